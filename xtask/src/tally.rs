//! How many of the things that a chore tried passed and failed.
//! Callers: `test`, which adds them up; the crate `proof`, which hands its own over in a file.

use anyhow::{Context, Result};
use std::path::Path;
use std::process::ExitCode;

/// How many scenarios, cases or tests passed, and which failed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Those that passed.
    pub passed: usize,
    /// Those that failed, were not reported or could not be run: a line each, its name first.
    pub failures: Vec<String>,
}

impl Tally {
    /// A chore that is one thing, and passed.
    pub const ONE_PASSED: Tally = Tally {
        passed: 1,
        failures: Vec::new(),
    };

    /// A chore that is one thing, and failed for this reason.
    pub fn one_failed(why: impl ToString) -> Tally {
        let mut tally = Tally::default();
        tally.fail(why);
        tally
    }

    /// Notes something that failed. Of a reason over several lines one is made.
    pub fn fail(&mut self, why: impl ToString) {
        let why = why.to_string();
        let lines: Vec<&str> = why.lines().map(str::trim).collect();
        self.failures.push(lines.join(" "));
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.failures.len()
    }

    /// Adds another's to these.
    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
    }

    /// Success if nothing failed.
    pub fn exit_code(&self) -> ExitCode {
        if self.failures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Writes it to `file`: a line with the number of those that passed, then a line for each that failed.
    pub fn write(&self, file: &Path) -> Result<()> {
        let mut text = format!("{}\n", self.passed);
        for failure in &self.failures {
            text += failure;
            text.push('\n');
        }
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Reads what [`Tally::write`] wrote. Error: there is no such file, or it holds something else.
    pub fn read(file: &Path) -> Result<Tally> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let mut lines = text.lines();
        let passed = lines.next().and_then(|line| line.parse().ok());
        Ok(Tally {
            passed: passed.with_context(|| format!("{} holds no tally", file.display()))?,
            failures: lines.map(str::to_owned).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn a_tally_comes_back_from_its_file_and_an_empty_file_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("tally");
        let mut tally = Tally {
            passed: 12,
            failures: Vec::new(),
        };
        tally.fail("case 5: lost a record\n  of topic t");
        tally.fail("case 9");
        assert_eq!(tally.failures[0], "case 5: lost a record of topic t");
        tally.write(&file).expect("written");
        assert_eq!(Tally::read(&file).expect("read"), tally);
        std::fs::write(&file, "").expect("emptied");
        assert!(Tally::read(&file).is_err());
    }
}
