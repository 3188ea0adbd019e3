//! `cargo xtask wire`: writes `wire/src/messages/` from the facts in `wire/schema/`.

mod generate;
mod import;
pub mod schema;

use anyhow::{Context, Result, bail};
use schema::Module;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Arguments of `cargo xtask wire`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Write nothing; fail if the checked-in messages differ from what would be written.
    #[arg(long)]
    check: bool,
    /// First take the facts anew from a folder of Kafka's message schemas (common/message of the kafka-clients jar).
    #[arg(long, value_name = "FOLDER", requires = "release")]
    import: Option<PathBuf>,
    /// The release of Kafka that those schemas belong to.
    #[arg(long, value_name = "VERSION")]
    release: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let home = home();
    if let (Some(folder), Some(release)) = (&args.import, &args.release) {
        let source = format!(
            "Facts of Kafka's message schemas, release {release}. The notation: xtask/src/wire/schema.rs"
        );
        for (name, module) in import::import(folder)? {
            std::fs::write(home.join("schema").join(name), module.print(&source))?;
        }
    }
    let target = home.join("src/messages");
    let wanted = generated()?;
    if args.check {
        return compare(&target, &wanted);
    }
    std::fs::create_dir_all(&target)?;
    for entry in std::fs::read_dir(&target)? {
        std::fs::remove_file(entry?.path())?;
    }
    for (name, text) in &wanted {
        std::fs::write(target.join(name), text)?;
    }
    println!("{} files in {}", wanted.len(), target.display());
    Ok(())
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire")
}

/// The files of `wire/src/messages/`, by name.
fn generated() -> Result<BTreeMap<String, String>> {
    let mut modules = Vec::new();
    let mut paths: Vec<_> = std::fs::read_dir(home().join("schema"))?
        .map(|e| Ok(e?.path()))
        .collect::<Result<_>>()?;
    paths.sort();
    for path in paths {
        let text = std::fs::read_to_string(&path)?;
        let module = Module::parse(&text)
            .map_err(anyhow::Error::msg)
            .with_context(|| path.display().to_string())?;
        modules.push(module);
    }
    let mut files = BTreeMap::new();
    for (name, text) in generate::files(&modules)? {
        files.insert(name, rustfmt(&text)?);
    }
    Ok(files)
}

fn compare(target: &Path, wanted: &BTreeMap<String, String>) -> Result<()> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(target)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        found.insert(name, std::fs::read_to_string(&path)?);
    }
    for name in wanted.keys().chain(found.keys()) {
        if wanted.get(name) != found.get(name) {
            bail!("wire/src/messages/{name} is not what the facts say: run `cargo xtask wire`");
        }
    }
    Ok(())
}

fn rustfmt(text: &str) -> Result<String> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout"])
        .current_dir(home())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("rustfmt did not start: `rustup component add rustfmt`")?;
    child
        .stdin
        .take()
        .context("rustfmt has no stdin")?
        .write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("rustfmt refused generated code");
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// `JoinGroup` to `join_group`.
fn snake(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (i, c) in letters.iter().enumerate() {
        let after_lower = i > 0 && !letters[i - 1].is_uppercase();
        let before_lower = letters.get(i + 1).is_some_and(|next| next.is_lowercase());
        if c.is_uppercase() && i > 0 && (after_lower || before_lower) {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checked_in_messages_are_what_the_facts_say() {
        compare(&home().join("src/messages"), &generated().unwrap()).unwrap();
    }

    #[test]
    fn facts_survive_print_and_parse() {
        for entry in std::fs::read_dir(home().join("schema")).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let source = text.lines().next().unwrap().trim_start_matches("# ");
            assert_eq!(Module::parse(&text).unwrap().print(source), text);
        }
    }

    #[test]
    fn names_become_snake_case() {
        for (name, wanted) in [
            ("GroupId", "group_id"),
            ("KRaftVersion", "k_raft_version"),
            ("ISRs", "is_rs"),
            ("A", "a"),
        ] {
            assert_eq!(snake(name), wanted);
        }
    }
}
