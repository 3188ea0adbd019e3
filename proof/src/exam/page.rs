//! Puts results into the table of `docs/reliability.md`, whose last column they are. Caller: the frame, for `--write`.

use anyhow::{Context as _, Result};

use super::{Case, Outcome};
use xtask::run;

/// The page, from the workspace's root.
const PAGE: &str = "docs/reliability.md";

/// What stands in the table for an outcome.
pub fn result(seed: u64, outcome: &Outcome, seconds: f64) -> String {
    let verdict = if outcome.passed() {
        "passed".to_owned()
    } else {
        format!("**failed**: {}", outcome.failures.join("; "))
    };
    let times = outcome.times;
    let mut text = format!("{verdict}; {times} times");
    if outcome.checked > 0 {
        let (checked, lost) = (outcome.checked, outcome.lost);
        text += &format!(", {checked} acknowledged records checked, {lost} lost");
    }
    text + &format!("; seed {seed}, {seconds:.0} s")
}

/// Replaces the last column of a case's row.
pub fn write(case: &Case, result: &str) -> Result<()> {
    let path = run::workspace().join(PAGE);
    let old = std::fs::read_to_string(&path).with_context(|| format!("read {PAGE}"))?;
    let new = replaced(&old, case, result)
        .with_context(|| format!("{PAGE} has no row for case {} {}", case.number, case.name))?;
    Ok(std::fs::write(&path, new)?)
}

fn replaced(page: &str, case: &Case, result: &str) -> Option<String> {
    let start = format!("| {} | {} |", case.number, case.name);
    let row = page.lines().find(|line| line.starts_with(&start))?;
    let (kept, _) = row.strip_suffix(" |")?.rsplit_once(" | ")?;
    let result = result.replace('|', "/").replace(['\n', '\r'], " ");
    Some(page.replacen(row, &format!("{kept} | {result} |"), 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exam::cases;

    #[test]
    fn the_page_has_a_row_for_every_case_and_only_its_result_changes() {
        let page = std::fs::read_to_string(run::workspace().join(PAGE)).unwrap();
        for case in cases::ALL {
            let new = replaced(&page, case, "what | came").expect(case.name);
            let changed: Vec<_> = new
                .lines()
                .zip(page.lines())
                .filter(|(new, old)| new != old)
                .collect();
            assert_eq!(changed.len(), 1, "{}", case.name);
            assert!(changed[0].0.ends_with(" | what / came |"), "{}", case.name);
        }
    }
}
