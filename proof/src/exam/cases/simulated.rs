//! Case 5: the power is cut during every operation of scripted lives of a store, on the simulated disk. The script and
//! its judge are a test of the storage crate; this runs it under many seeds.

use anyhow::{Context as _, Result};

use crate::exam::{Case, Exam, Outcome, Rounds};
use xtask::run;

/// The case. A round is a seed.
pub const CASE: Case = Case {
    number: 5,
    name: "simulated-power-cut",
    about: "power cut during every write and flush of a script (simulated disk)",
    rounds: Rounds {
        full: 1000,
        short: 3,
    },
    run,
};

fn run(exam: &Exam) -> Result<Outcome> {
    let first = exam.seed % 1_000_000;
    let mut command = run::cargo();
    command
        .args([
            "test",
            "--release",
            "--quiet",
            "--package",
            "alluvium-storage",
        ])
        .args(["--test", "power_cut", "--", "--nocapture"])
        .env("SEEDS", exam.rounds.to_string())
        .env("FIRST_SEED", first.to_string());
    let output = run::quiet(&mut command)?;
    let (cuts, records) = summary(&output).context("the test printed no summary")?;
    Ok(Outcome {
        tried: CASE.about.to_owned(),
        times: cuts,
        checked: records,
        notes: vec![format!("{} seeds from {first} on", exam.rounds)],
        ..Outcome::default()
    })
}

/// Cuts and records of the line `power_cut: N cuts under seeds A..B, M acknowledged records found again, none lost`.
fn summary(output: &str) -> Option<(u32, u64)> {
    let (_, rest) = output.split_once("power_cut: ")?;
    let (cuts, rest) = rest.split_once(" cuts under seeds ")?;
    let (_, rest) = rest.split_once(", ")?;
    let (records, _) = rest.split_once(" acknowledged records found again, none lost")?;
    Some((cuts.parse().ok()?, records.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_found_among_other_output() {
        let output = "running 1 test\npower_cut: 812 cuts under seeds 1..3, 9044 acknowledged records found again, none lost\n.";
        assert_eq!(summary(output), Some((812, 9044)));
        assert_eq!(summary("running 0 tests"), None);
    }
}
