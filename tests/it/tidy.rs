//! Holds the house in order: who may know whom, where `unsafe` may stand, and what every file must say.
//! A rule is a function from a file's path and text to what is wrong with it, and each is shown a file that breaks it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates by folder, and the project's own crates that each may depend on. Tests may know more.
const CRATES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("wire", &[]),
    ("amqp", &[]),
    ("storage", &["model"]),
    ("witness", &[]),
    ("columnar", &["model"]),
    ("client", &["model", "wire"]),
    (
        "tools",
        &["client", "columnar", "model", "storage", "wire", "witness"],
    ),
    (
        "fuzz",
        &[
            "amqp", "columnar", "model", "src", "storage", "tools", "wire", "witness",
        ],
    ),
    ("xtask", &[]),
    (
        "proof",
        &[
            "amqp", "client", "fuzz", "model", "storage", "wire", "xtask",
        ],
    ),
    (
        "src",
        &["amqp", "columnar", "model", "storage", "wire", "witness"],
    ),
    ("", &["src", "tools"]),
];

/// Below the folder, none of these may be named: our own crates and modules by their paths, others' crates by name.
const MAY_NOT_KNOW: &[(&str, &[&str])] = &[
    (
        "model/src/",
        &["tokio", "std::fs", "std::net", "std::thread"],
    ),
    (
        "wire/src/",
        &["tokio", "std::fs", "std::net", "std::thread"],
    ),
    (
        "amqp/src/",
        &["tokio", "std::fs", "std::net", "std::thread"],
    ),
    (
        "columnar/src/",
        &["tokio", "std::fs", "std::net", "std::thread"],
    ),
    ("storage/src/", &["std::net", "tokio::net", "tokio::spawn"]),
    (
        "src/broker/",
        &["front", "wire", "amqp", "axum", "tools", "columnar"],
    ),
    // What runs on it, and what that is for.
    (
        "src/broker/coordination/",
        &["groups", "producer_ids", "topics", "configs"],
    ),
    (
        "src/front/kafka/",
        &["http", "mqtt", "amqp", "storage", "axum", "tools"],
    ),
    (
        "src/front/http/",
        &["kafka", "mqtt", "amqp", "storage", "wire", "tools"],
    ),
    (
        "src/front/mqtt/",
        &["kafka", "http", "amqp", "storage", "wire", "axum", "tools"],
    ),
    (
        "src/front/amqp/",
        &["kafka", "http", "mqtt", "storage", "wire", "axum", "tools"],
    ),
    ("src/front/", &["config", "serve"]),
    // What every part brings its own of.
    (
        "src/metrics/",
        &["broker", "front", "config", "storage", "wire"],
    ),
    ("src/", &["tools", "clap"]),
    ("tools/src/", &["alluvium"]),
    ("client/src/", &["storage", "alluvium"]),
];

/// Choices that are made in one file only, by the types they are made of.
const ONE_PLACE: &[(&str, &str, &str)] = &[
    ("src/", "ErrorCode", "src/front/kafka/errors.rs"),
    ("src/", "StatusCode", "src/front/http/errors.rs"),
    ("src/", "ReasonCode", "src/front/mqtt/errors.rs"),
    ("src/", "ErrorCondition", "src/front/amqp/errors.rs"),
];

const UNSAFE_FILE: &str = "storage/src/io/map.rs";

/// A file with more lines has a second subject. What is generated obeys it too.
const FILE_LINES_MAX: usize = 1_000;

/// Below the folder, 99 of 100 functions have no more lines in their bodies.
const FUNCTION_LINES_MAX: &[(&str, usize)] = &[("storage/src/", 67), ("src/", 64)];

pub fn root() -> PathBuf {
    let of_package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_root = |directory: &&Path| directory.join("tests/it/tidy.rs").is_file();
    let root = of_package.ancestors().find(is_root);
    root.expect("this file lies in the workspace").to_owned()
}

/// Every file that is kept, by its path from the root: what git knows, or what lies there if this is no repository.
fn files() -> Vec<String> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output()
        .ok()
        .filter(|output| output.status.success());
    let mut files = match listed {
        Some(output) => String::from_utf8(output.stdout)
            .expect("paths are UTF-8")
            .split_terminator('\0')
            .map(str::to_owned)
            .collect(),
        None => {
            let mut found = Vec::new();
            walk(&root(), "", &mut found);
            found
        }
    };
    files.retain(|path| root().join(path).is_file());
    files.sort();
    assert!(files.len() > 100, "there are only {} files", files.len());
    files
}

fn walk(directory: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("a UTF-8 name");
        let path = format!("{prefix}{name}");
        if !entry.file_type().expect("a type").is_dir() {
            found.push(path);
        } else if !matches!(
            name.as_str(),
            "target" | ".git" | ".cache" | "data" | "node_modules"
        ) {
            walk(&entry.path(), &format!("{path}/"), found);
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rust_files() -> impl Iterator<Item = (String, String)> {
    let is_rust = |path: &String| path.ends_with(".rs");
    files().into_iter().filter(is_rust).map(|path| {
        let text = read(&path);
        (path, text)
    })
}

/// The text without comments. What looks like one inside a string goes too.
fn code(text: &str) -> String {
    text.lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether `word` stands in the text as a word or path of its own, and not as a part of a longer name.
fn names(text: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(part_of_name) && !text[at + word.len()..].starts_with(part_of_name)
    })
}

/// Whether the text has the module or crate `name` as a step of a path: `name::` or `use name`.
fn goes_through(text: &str, name: &str) -> bool {
    let whole = |at: usize| {
        let before = &text[..at];
        !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
    };
    let step = format!("{name}::");
    text.match_indices(&step).any(|(at, _)| whole(at))
        || names(text, &format!("use {name}"))
        || ["crate::", "super::", "front::"]
            .iter()
            .any(|from| names(text, &format!("{from}{name}")))
}

/// Of a crate's manifest: the project's own crates in a table of dependencies.
fn own_dependencies(manifest: &str, table: &str) -> BTreeSet<String> {
    let manifest: toml::Table = manifest.parse().expect("a manifest");
    let Some(dependencies) = manifest.get(table) else {
        return BTreeSet::new();
    };
    let own: BTreeMap<&str, &str> = CRATES
        .iter()
        .flat_map(|(folder, _)| [(*folder, *folder)])
        .collect();
    let dependencies = dependencies.as_table().expect("a table");
    dependencies
        .iter()
        .filter_map(|(name, value)| {
            let package = value.get("package").and_then(|package| package.as_str());
            let folder = match (package, name.as_str()) {
                (Some("alluvium"), _) => "",
                // The server's library goes by the product's name.
                (Some("alluvium-server"), _) | (None, "alluvium") => "src",
                (package, name) => package.unwrap_or(name).trim_start_matches("alluvium-"),
            };
            own.get(folder).map(|folder| (*folder).to_owned())
        })
        .collect()
}

fn strangers(folder: &str, manifest: &str) -> BTreeSet<String> {
    let (_, may_know) = CRATES
        .iter()
        .find(|(known, _)| *known == folder)
        .unwrap_or_else(|| panic!("{folder} is a new crate: say in tidy.rs whom it may know"));
    own_dependencies(manifest, "dependencies")
        .into_iter()
        .filter(|name| !may_know.contains(&name.as_str()))
        .collect()
}

/// The forbidden modules and crates that a source file names.
fn forbidden(path: &str, text: &str) -> Vec<&'static str> {
    let text = code(text);
    MAY_NOT_KNOW
        .iter()
        .filter(|(below, _)| path.starts_with(below))
        .flat_map(|(_, modules)| modules.iter().copied())
        .filter(|module| goes_through(&text, module))
        .collect()
}

fn chosen_elsewhere(path: &str, text: &str) -> Vec<&'static str> {
    let text = code(text);
    ONE_PLACE
        .iter()
        .filter(|(below, _, place)| path.starts_with(below) && path != *place)
        .filter(|(_, word, _)| names(&text, word))
        .map(|(_, word, _)| *word)
        .collect()
}

fn is_unsafe(text: &str) -> bool {
    let text = code(text);
    names(&text, "unsafe") || names(&text, "unsafe_code")
}

/// Directories of one machine or one person.
fn machine_paths(text: &str) -> Vec<String> {
    let roots = ["home", "root", "Users", "work", "mnt"];
    let mut found = Vec::new();
    for root in roots {
        let root = format!("/{root}/");
        for (at, _) in text.match_indices(&root) {
            // `src/work/x` is a relative path, and `https://host/home/` is an address.
            let starts = text[..at]
                .chars()
                .next_back()
                .is_none_or(|c| c.is_whitespace() || "\"'`=(:<[,".contains(c));
            if starts {
                found.push(text[at..].chars().take(40).collect());
            }
        }
    }
    found
}

/// Relative links of a document to files that are not there.
fn dead_links<'a>(path: &str, text: &'a str) -> Vec<&'a str> {
    let folder = root()
        .join(path)
        .parent()
        .expect("a file has a folder")
        .to_owned();
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    targets
        .filter_map(|target| target.split('#').next())
        .filter(|target| {
            !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:")
        })
        .filter(|target| !folder.join(target).exists())
        .collect()
}

/// The functions of a formatted file, without those of its unit tests: name and lines between the braces.
pub fn functions(text: &str) -> Vec<(String, usize)> {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let item = line.trim_start();
        let indent = &line[..line.len() - item.len()];
        let Some(name) = function_name(item) else {
            continue;
        };
        // A line of the signature's own depth ends it: with a brace, or, in a trait, without a body.
        let own_depth = |line: &str| {
            line.strip_prefix(indent)
                .is_some_and(|rest| !rest.starts_with(' '))
        };
        let begin = (at..lines.len())
            .find(|&row| own_depth(lines[row]) && lines[row].ends_with(['{', ';', '}']));
        let Some(begin) = begin.filter(|&row| lines[row].ends_with('{')) else {
            continue;
        };
        let end = (begin..lines.len()).find(|&row| lines[row].strip_prefix(indent) == Some("}"));
        found.push((name, end.map_or(0, |end| end - begin - 1)));
    }
    found
}

/// The name of the function that a line begins, if it begins one.
fn function_name(line: &str) -> Option<String> {
    let (before, after) = line.split_once("fn ")?;
    let words = before.split_whitespace().all(|word| {
        word.starts_with("pub")
            || word.ends_with(')')
            || matches!(word, "const" | "async" | "unsafe")
    });
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let name: String = after.chars().take_while(|c| is_name(*c)).collect();
    (words && !name.is_empty()).then_some(name)
}

/// The length that 99 of 100 functions do not exceed, and the functions that do.
fn long_functions(mut functions: Vec<(String, usize)>) -> (usize, Vec<(String, usize)>) {
    functions.sort_by_key(|(_, lines)| *lines);
    let at = functions.len() * 99 / 100;
    let length = functions.get(at).map_or(0, |(_, lines)| *lines);
    (length, functions.split_off(at.min(functions.len())))
}

fn is_unit_tests(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/")
}

#[test]
fn crates_depend_only_on_those_they_may_know() {
    let workspace: toml::Table = read("Cargo.toml").parse().expect("a manifest");
    let members: BTreeSet<&str> = workspace["workspace"]["members"]
        .as_array()
        .expect("members")
        .iter()
        .map(|member| member.as_str().expect("a folder"))
        .collect();
    let known: BTreeSet<&str> = CRATES
        .iter()
        .map(|(folder, _)| *folder)
        .filter(|folder| !folder.is_empty())
        .collect();
    assert_eq!(
        members, known,
        "tidy.rs says of each crate whom it may know"
    );
    for (folder, _) in CRATES {
        let manifest = read(
            Path::new(folder)
                .join("Cargo.toml")
                .to_str()
                .expect("UTF-8"),
        );
        assert_eq!(strangers(folder, &manifest), BTreeSet::new(), "{folder}");
    }
    // The rule sees an edge that must not be.
    let wrong = "[dependencies]\nmodel.workspace = true\nclient.workspace = true\n\
                 broker = { package = \"alluvium\", path = \"..\" }\nbytes = \"1\"";
    let found: Vec<String> = strangers("storage", wrong).into_iter().collect();
    assert_eq!(found, ["", "client"]);
    let wrong = "[dependencies]\ntools.workspace = true\nstorage.workspace = true";
    let found: Vec<String> = strangers("src", wrong).into_iter().collect();
    assert_eq!(found, ["tools"]);
}

#[test]
fn modules_know_only_what_lies_below_them() {
    for (path, text) in rust_files() {
        assert_eq!(forbidden(&path, &text), Vec::<&str>::new(), "{path}");
    }
    for (below, _) in MAY_NOT_KNOW {
        assert!(root().join(below).is_dir(), "{below}");
    }
    for (path, text, expected) in [
        (
            "src/broker/x.rs",
            "use crate::front::kafka;",
            &["front"][..],
        ),
        ("src/broker/x.rs", "let x = wire::ApiKey::Fetch;", &["wire"]),
        ("src/front/http/x.rs", "use super::kafka;", &["kafka"]),
        ("src/front/kafka/x.rs", "use storage::Log;", &["storage"]),
        (
            "src/broker/x.rs",
            "// wire::X\nrewire::X; Offset::from_wire(1);",
            &[],
        ),
        ("src/serve.rs", "use crate::front::kafka;", &[]),
    ] {
        assert_eq!(forbidden(path, text), expected, "{text}");
    }
}

#[test]
fn codes_of_a_protocol_are_chosen_in_one_file() {
    for (path, text) in rust_files() {
        assert_eq!(chosen_elsewhere(&path, &text), Vec::<&str>::new(), "{path}");
    }
    for (_, word, place) in ONE_PLACE {
        assert!(names(&read(place), word), "{place} chooses no {word}");
    }
    let wrong = "use axum::http::StatusCode;";
    assert_eq!(
        chosen_elsewhere("src/front/http/mod.rs", wrong),
        ["StatusCode"]
    );
}

#[test]
fn unsafe_code_stands_in_the_file_that_maps_memory() {
    for (path, text) in rust_files() {
        if path != UNSAFE_FILE && path != "tests/it/tidy.rs" {
            assert!(!is_unsafe(&text), "{path}");
        }
    }
    let text = read(UNSAFE_FILE);
    assert!(is_unsafe(&text));
    let blocks = text
        .lines()
        .filter(|line| line.contains("unsafe {"))
        .count();
    let reasons = text.matches("// SAFETY:").count();
    assert!(
        blocks > 0 && reasons >= blocks,
        "{blocks} blocks, {reasons} reasons"
    );
    let manifest: toml::Table = read("Cargo.toml").parse().expect("a manifest");
    let level = manifest["workspace"]["lints"]["rust"]["unsafe_code"].as_str();
    assert_eq!(level, Some("deny"));
}

#[test]
fn every_crate_takes_the_workspaces_lints() {
    for (folder, _) in CRATES {
        let path = Path::new(folder).join("Cargo.toml");
        let manifest: toml::Table = read(path.to_str().expect("UTF-8"))
            .parse()
            .expect("a manifest");
        let taken = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"));
        assert_eq!(
            taken.and_then(|taken| taken.as_bool()),
            Some(true),
            "{folder}"
        );
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    for (path, text) in rust_files() {
        // Unit tests in a file of their own belong to the file beside them.
        let is_unit_tests = path.ends_with("/tests.rs") || path.ends_with("_tests.rs");
        assert!(text.starts_with("//!") || is_unit_tests, "{path}");
    }
}

#[test]
fn no_file_is_longer_than_one_subject() {
    let too_long = |text: &str| text.lines().count() > FILE_LINES_MAX;
    for (path, text) in rust_files() {
        assert!(
            !too_long(&text),
            "{path} has {} lines",
            text.lines().count()
        );
    }
    assert!(too_long(&"//! A subject.\n".repeat(FILE_LINES_MAX + 1)));
    assert!(!too_long(&"//! A subject.\n".repeat(FILE_LINES_MAX)));
}

#[test]
fn functions_fit_a_screen_but_for_one_in_a_hundred() {
    for (folder, lines_max) in FUNCTION_LINES_MAX {
        let found: Vec<_> = rust_files()
            .filter(|(path, _)| path.starts_with(folder) && !is_unit_tests(path))
            .flat_map(|(_, text)| functions(&text))
            .collect();
        assert!(found.len() > 500, "{folder} has {} functions", found.len());
        let (length, longest) = long_functions(found);
        assert!(
            length <= *lines_max,
            "{folder}: {length} lines, for {lines_max}: {longest:?}"
        );
    }
    let function = |name: &str, lines: usize| {
        let body = "        body();\n".repeat(lines);
        format!(
            "    pub(in crate::a) async fn {name}<T>(\n        &self,\n    ) -> T {{\n{body}    }}\n"
        )
    };
    let short = "    fn declared(&self);\n    const fn one(&self) {}\n".to_owned();
    let text = short + &function("short", 3) + &function("long", 80);
    let in_tests = "#[cfg(test)]\nmod tests {\n    fn test() {\n        a();\n    }\n}\n";
    let found = functions(&(text + in_tests));
    assert_eq!(found, [("short".to_owned(), 3), ("long".to_owned(), 80)]);
    let many = |long: usize| {
        let lengths = (0..200).map(|index| if index < long { 80 } else { 10 });
        lengths.map(|lines| (String::new(), lines)).collect()
    };
    assert_eq!(long_functions(many(2)).0, 80);
    assert_eq!(long_functions(many(1)).0, 10);
}

#[test]
fn the_map_names_every_folder() {
    let map = read("docs/ARCHITECTURE.md");
    let mut folders: BTreeSet<String> = files()
        .iter()
        .filter_map(|path| path.split_once('/'))
        .map(|(folder, _)| format!("{folder}/"))
        .collect();
    assert!(folders.contains("model/") && folders.contains("docs/"));
    folders.extend(
        [
            "src/broker/",
            "src/front/kafka/",
            "src/front/http/",
            "src/front/mqtt/",
            "src/front/amqp/",
        ]
        .map(str::to_owned),
    );
    for folder in folders {
        assert!(
            map.contains(&format!("`{folder}")),
            "docs/ARCHITECTURE.md does not name {folder}"
        );
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for path in files().iter().filter(|path| path.ends_with(".md")) {
        assert_eq!(dead_links(path, &read(path)), Vec::<&str>::new(), "{path}");
    }
    let text =
        "[a](formats.md#segment) [b](../Cargo.toml) [c](nowhere.md) [d](https://example.org)";
    assert_eq!(dead_links("docs/x.md", text), ["nowhere.md"]);
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    for path in files() {
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else {
            continue; // Not text.
        };
        if path != "tests/it/tidy.rs" {
            assert_eq!(machine_paths(&text), Vec::<String>::new(), "{path}");
        }
    }
    assert_eq!(machine_paths("data = \"/home/someone/data\"").len(), 1);
    assert_eq!(
        machine_paths("see https://example.org/home/ and src/work/x.rs"),
        Vec::<String>::new()
    );
}
