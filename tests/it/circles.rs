//! Forbids circles of files: whoever knows a file is not known by it, over however many others, inside `storage/src` and inside
//! `src`.
//!
//! A file knows another if it names something of it by a path: in a `use`, or in the code. A name that a module only passes on
//! (`pub use child::Name`) counts for those who use it, and leads them to the file that holds it; so a folder's `mod.rs` may list
//! what its files offer, and the files may use what it defines itself. Unit tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The crates whose files are looked at.
const SOURCES: &[&str] = &["storage/src", "src"];

/// A module's path from the root of its crate.
type Module = Vec<String>;

/// A crate's files by their paths below its source folder, each with its text.
type Files = BTreeMap<String, String>;

fn module_of(file: &str) -> Module {
    let path = file.strip_suffix(".rs").expect("a Rust file");
    let mut steps: Module = path.split('/').map(str::to_owned).collect();
    if matches!(
        steps.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        steps.pop();
    }
    steps
}

fn is_unit_tests(file: &str) -> bool {
    file.ends_with("tests.rs") || file.contains("tests/")
}

/// The text without comments, without the places from which a name may be used (`pub(in …)`), and without unit tests, which stand
/// at the end.
fn code(text: &str) -> String {
    let code: Vec<String> = text
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .map(without_visibility)
        .collect();
    let tests = code.windows(2).position(|pair| {
        pair[0].trim() == "#[cfg(test)]"
            && (pair[1].starts_with("mod ") || pair[1].starts_with("#["))
    });
    code[..tests.unwrap_or(code.len())].join("\n")
}

/// A line with `pub` in the place of `pub(in …)`, which names who may know something, and nothing that is known.
fn without_visibility(line: &str) -> String {
    match line.split_once("pub(in ") {
        Some((before, rest)) => {
            let (_, after) = rest.split_once(')').expect("a visibility ends");
            format!("{before}pub{after}")
        }
        None => line.to_owned(),
    }
}

/// One name of a `use`: the path to it, the name that it has here, and whether it is passed on.
struct Used {
    path: Vec<String>,
    name: String,
    is_passed_on: bool,
}

/// Whether a line begins a `use` that is passed on, and the tree as far as it is on the line. None for other lines.
fn use_of(line: &str) -> Option<(bool, &str)> {
    let line = line.trim_start();
    let (is_passed_on, item) = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => (true, rest.split_once(')')?.1),
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let tree = item.trim_start().strip_prefix("use ")?;
    Some((is_passed_on, tree))
}

/// Whether a line only says that there is a module in a file of its own.
fn declares_a_module(line: &str) -> bool {
    let mut words = line.split_whitespace().rev();
    words.next().is_some_and(|name| name.ends_with(';')) && words.next() == Some("mod")
}

/// The `use` items of a file's code, and the code without them and without the declarations of modules.
fn uses(code: &str) -> (Vec<Used>, String) {
    let (mut found, mut rest) = (Vec::new(), String::new());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let Some((is_passed_on, begin)) = use_of(line) else {
            if !declares_a_module(line) {
                rest.push_str(line);
                rest.push('\n');
            }
            continue;
        };
        let mut tree = begin.to_owned();
        while !tree.contains(';') {
            tree.push_str(lines.next().expect("a use ends"));
        }
        let tree = tree.split(';').next().expect("a tree");
        let tree = tree.split_whitespace().collect::<Vec<_>>().join(" ");
        expand(&tree, &mut |path, name| {
            found.push(Used {
                path,
                name,
                is_passed_on,
            });
        });
    }
    (found, rest)
}

/// Gives each path of a tree like `a::{b, c::{d as e}}`, and the name that it gets.
fn expand(tree: &str, visit: &mut dyn FnMut(Vec<String>, String)) {
    let tree = tree.trim();
    let Some((before, inside)) = tree.split_once('{') else {
        let (path, name) = match tree.split_once(" as ") {
            Some((path, name)) => (path, Some(name.trim())),
            None => (tree, None),
        };
        let mut path: Vec<String> = path
            .split("::")
            .map(|step| step.trim().to_owned())
            .collect();
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let last = path.last().cloned().unwrap_or_default();
        return visit(path, name.map_or(last, str::to_owned));
    };
    let inside = inside.strip_suffix('}').unwrap_or(inside);
    let (mut depth, mut from) = (0, 0);
    for (at, c) in inside.char_indices().chain([(inside.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = inside[from..at].trim();
                if !part.is_empty() {
                    expand(&format!("{before}{part}"), visit);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// Every path of two or more steps in the code.
fn paths(code: &str) -> Vec<Vec<String>> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.split(|c: char| !is_part(c))
        .filter(|word| word.contains("::"))
        .map(|word| word.split("::").map(str::to_owned).collect())
        .filter(|path: &Vec<String>| path.iter().all(|step| !step.is_empty()))
        .collect()
}

fn names(code: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.split(|c: char| !is_part(c)).any(|word| word == name)
}

/// What the modules of a crate are, and what they pass on.
struct House<'f> {
    modules: BTreeMap<Module, &'f str>,
    passed_on: BTreeMap<Module, BTreeMap<String, Module>>,
}

impl House<'_> {
    /// A path as it is written in a module, from the root of the crate; None if it leads out of it.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([module, rest].concat()),
            "super" => {
                let above = module.split_last()?.1.to_vec();
                match rest.first().map(String::as_str) {
                    Some("super") => self.absolute(&above, rest),
                    _ => Some([&above, rest].concat()),
                }
            }
            _ => {
                let child = [module.as_slice(), std::slice::from_ref(first)].concat();
                let whole = [module.as_slice(), path].concat();
                self.modules.contains_key(&child).then_some(whole)
            }
        }
    }

    /// The file that holds what a path from the root leads to.
    fn file(&self, path: &Module, depth: usize) -> Option<&str> {
        let mut module = Module::new();
        for (index, step) in path.iter().enumerate() {
            let mut child = module.clone();
            child.push(step.clone());
            if self.modules.contains_key(&child) {
                module = child;
                continue;
            }
            let passed_on = self
                .passed_on
                .get(&module)
                .and_then(|names| names.get(step));
            if let Some(target) = passed_on.filter(|_| depth < 10) {
                let target = [target.as_slice(), &path[index + 1..]].concat();
                return self.file(&target, depth + 1);
            }
            break;
        }
        self.modules.get(&module).copied()
    }
}

/// Which files each file knows.
fn edges(files: &Files) -> BTreeMap<&str, BTreeSet<&str>> {
    let is_shadowed = |file: &str| file == "main.rs" && files.contains_key("lib.rs");
    let files = || {
        files
            .iter()
            .map(|(file, text)| (file.as_str(), text))
            .filter(|(file, _)| !is_unit_tests(file) && !is_shadowed(file))
    };
    let mut house = House {
        modules: files().map(|(file, _)| (module_of(file), file)).collect(),
        passed_on: BTreeMap::new(),
    };
    let mut known: Vec<(&str, Module)> = Vec::new();
    for (file, text) in files() {
        let module = module_of(file);
        let (uses, rest) = uses(&code(text));
        for used in uses {
            let Some(path) = house.absolute(&module, &used.path) else {
                continue;
            };
            let is_only_passed_on = used.is_passed_on && !names(&rest, &used.name);
            if used.is_passed_on {
                let names = house.passed_on.entry(module.clone()).or_default();
                names.insert(used.name, path.clone());
            }
            if !is_only_passed_on {
                known.push((file, path));
            }
        }
        for path in paths(&rest) {
            known.extend(house.absolute(&module, &path).map(|path| (file, path)));
        }
    }
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (file, _) in files() {
        edges.entry(file).or_default();
    }
    let by_name: BTreeMap<&str, &str> = files().map(|(file, _)| (file, file)).collect();
    for (file, path) in known {
        let target = house.file(&path, 0).and_then(|target| by_name.get(target));
        if let Some(target) = target.filter(|target| **target != file) {
            edges.entry(file).or_default().insert(target);
        }
    }
    edges
}

/// The groups of files that know one another in circles, each in order.
fn circles(files: &Files) -> Vec<Vec<String>> {
    let edges = edges(files);
    let reach = |from: &str| {
        let mut reached = BTreeSet::new();
        let mut left = vec![from];
        while let Some(file) = left.pop() {
            for next in &edges[file] {
                if reached.insert(*next) {
                    left.push(next);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        edges.keys().map(|file| (*file, reach(file))).collect();
    let mut circles = BTreeSet::new();
    for (file, reaches) in &reached {
        let circle: Vec<String> = reaches
            .iter()
            .filter(|other| reached[**other].contains(file))
            .map(|other| (*other).to_owned())
            .collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

fn load(folder: &Path, prefix: &str, files: &mut Files) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("a UTF-8 name");
        if entry.file_type().expect("a type").is_dir() {
            load(&entry.path(), &format!("{prefix}{name}/"), files);
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(entry.path()).expect("a text");
            files.insert(format!("{prefix}{name}"), text);
        }
    }
}

#[test]
fn no_file_knows_one_that_knows_it() {
    for source in SOURCES {
        let mut files = Files::new();
        let root = crate::tidy::root();
        load(&root.join(source), "", &mut files);
        assert!(files.len() > 20, "{source}: {} files", files.len());
        let circles = circles(&files);
        assert!(
            circles.is_empty(),
            "{source}: circles of files: {circles:?}"
        );
    }
}

/// The circles of a crate with these files.
fn check(files: &[(&str, &str)], expected: &[&[&str]]) {
    let files = files
        .iter()
        .map(|(file, text)| ((*file).to_owned(), (*text).to_owned()))
        .collect();
    assert_eq!(circles(&files), expected);
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    check(
        &[
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "fn f() { crate::c::g(); }"),
            ("c.rs", "use super::a::{\n    A,\n};"),
            ("d.rs", "use crate::{a::A, b};"),
        ],
        &[&["a.rs", "b.rs", "c.rs"]],
    );
    // Over names that are passed on, and from a folder to its own file.
    check(
        &[
            ("lib.rs", "mod x;\npub use x::Y;"),
            (
                "x/mod.rs",
                "mod y;\nmod z;\npub(crate) use self::y::Y as Why;\npub use y::Y;",
            ),
            ("x/y.rs", "use super::z::Z;"),
            ("x/z.rs", "use crate::x::Why;"),
        ],
        &[&["x/y.rs", "x/z.rs"]],
    );
    check(
        &[
            ("x/mod.rs", "mod y;\nuse y::Y;\npub struct X(Y);"),
            ("x/y.rs", "use super::X;"),
        ],
        &[&["x/mod.rs", "x/y.rs"]],
    );
}

#[test]
fn what_is_no_circle_is_not_taken_for_one() {
    check(
        &[
            ("lib.rs", "mod x;\npub use x::{X, Y};"),
            // It passes the name on, and does not use it.
            (
                "x/mod.rs",
                "mod y;\npub use self::y::{Y, y};\npub struct X;",
            ),
            (
                "x/y.rs",
                "use crate::X;\n// crate::z::Z\nfn f() { std::mem::drop(1); }",
            ),
            (
                "z.rs",
                "use crate::x::Y;\n#[cfg(test)]\nmod tests { use crate::w::W; }",
            ),
            ("w.rs", "use crate::z;"),
            // It says who may use a name of it.
            ("v/mod.rs", "mod u;\nuse u::U;"),
            ("v/u.rs", "pub(in crate::v) struct U;"),
        ],
        &[],
    );
}
