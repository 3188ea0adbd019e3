//! Page: the table of known differences in `docs/COMPATIBILITY.md`, written from the checked-in list.
//! Callers: `oracle::main` with `--write`; a test that compares.

use super::differences::Differences;
use anyhow::{Context, Result};
use std::fs;
use xtask::run;

const OPENING: &str = "<!-- beside Apache Kafka -->\n";
const CLOSING: &str = "<!-- end of beside Apache Kafka -->\n";

/// Writes the table anew.
pub fn write() -> Result<()> {
    let file = run::workspace().join("docs/COMPATIBILITY.md");
    let page = fs::read_to_string(&file)?;
    let (head, rest) = page.split_once(OPENING).context("the page has no table")?;
    let (_, tail) = rest
        .split_once(CLOSING)
        .context("the page's table does not end")?;
    Ok(fs::write(&file, format!("{head}{}{tail}", table()?))?)
}

/// From the opening to the closing mark.
fn table() -> Result<String> {
    let mut table = format!(
        "{OPENING}\n| API | where | field | Alluvium | Kafka | why |\n|---|---|---|---|---|---|\n"
    );
    let code = |text: &str| match text {
        "" => "the answer".to_owned(),
        "*" => "any".to_owned(),
        text => format!("`{}`", text.replace('|', "\\|")),
    };
    for entry in Differences::read()?.entries {
        let versions = match entry.versions {
            Some((first, last)) => format!(" {first} to {last}"),
            None => String::new(),
        };
        table += &format!(
            "| {}{versions} | {} | {} | {} | {} | {} |\n",
            entry.api,
            entry
                .scene
                .as_deref()
                .unwrap_or("anywhere")
                .replace('*', "…"),
            code(&entry.path),
            code(&entry.ours),
            code(&entry.theirs),
            entry.reason
        );
    }
    Ok(format!("{table}\n{CLOSING}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_compatibility_page_tells_the_differences_as_their_list_does() {
        let page = include_str!("../../../docs/COMPATIBILITY.md");
        let wanted = super::table().unwrap();
        assert!(page.contains(&wanted), "the page must say:\n{wanted}");
    }
}
