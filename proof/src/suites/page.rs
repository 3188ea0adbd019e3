//! Page: the suites' tables in `docs/COMPATIBILITY.md`, written from the checked-in lists.
//! Callers: `suites::run` with `--write`; a test that compares.

use super::list::{CLASSES, List};
use super::{SUITES, Suite};
use anyhow::{Context, Result};
use std::fs;
use xtask::run;

const OPENING: &str = "<!-- suites -->\n";
const CLOSING: &str = "<!-- end of suites -->\n";

/// Writes the tables anew.
pub fn write() -> Result<()> {
    let file = run::workspace().join("docs/COMPATIBILITY.md");
    let page = fs::read_to_string(&file)?;
    let (head, rest) = page.split_once(OPENING).context("the page has no suites")?;
    let (_, tail) = rest
        .split_once(CLOSING)
        .context("the page's suites do not end")?;
    Ok(fs::write(&file, format!("{head}{}{tail}", tables()?))?)
}

/// From the opening to the closing mark.
fn tables() -> Result<String> {
    let mut lists = Vec::new();
    for suite in SUITES {
        lists.push((*suite, List::read(suite.name())?));
    }
    Ok(format!(
        "{OPENING}\n{}\n{}\n{CLOSING}",
        counts(&lists),
        exclusions(&lists)
    ))
}

fn counts(lists: &[(&dyn Suite, List)]) -> String {
    let mut table = String::from(
        "| suite | from | tests that talk to a broker | pass | excluded |\n|---|---|---:|---:|---|\n",
    );
    for (suite, list) in lists {
        let mut excluded = Vec::new();
        for (class, _) in CLASSES {
            let of_class = list.exclusions.iter().filter(|one| one.class == *class);
            let count: usize = of_class.map(|one| one.tests.len()).sum();
            if count > 0 {
                excluded.push(format!("{class} {count}"));
            }
        }
        table += &format!(
            "| {} | {} | {} | {} | {} |\n",
            suite.name(),
            suite.package(),
            list.passing_count() + list.excluded_count(),
            list.passing_count(),
            if excluded.is_empty() {
                "none".to_string()
            } else {
                excluded.join(", ")
            }
        );
    }
    table
}

fn exclusions(lists: &[(&dyn Suite, List)]) -> String {
    let mut table =
        String::from("| suite | excluded test | why | what it says here |\n|---|---|---|---|\n");
    for (suite, list) in lists {
        for exclusion in &list.exclusions {
            for (test, evidence) in &exclusion.tests {
                let evidence = evidence.replace('|', "\\|");
                table += &format!(
                    "| {} | `{test}` | {}: {} | {evidence} |\n",
                    suite.name(),
                    exclusion.class,
                    exclusion.reason
                );
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_compatibility_page_tells_the_suites_as_their_lists_do() {
        let page = include_str!("../../../docs/COMPATIBILITY.md");
        let wanted = super::tables().unwrap();
        assert!(page.contains(&wanted), "the page must say:\n{wanted}");
    }
}
