//! How many of the things that a chore tried passed and failed.
//! Callers: `test`, which adds them up; the crate `proof`, which hands its own over in a file.

use anyhow::{Context, Result};
use std::path::Path;
use std::process::ExitCode;

/// How many scenarios, cases or tests passed and failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Those that passed.
    pub passed: usize,
    /// Those that failed, were not reported or could not be run.
    pub failed: usize,
}

impl Tally {
    /// A chore that is one thing, and passed.
    pub const ONE_PASSED: Tally = Tally {
        passed: 1,
        failed: 0,
    };
    /// A chore that is one thing, and failed.
    pub const ONE_FAILED: Tally = Tally {
        passed: 0,
        failed: 1,
    };

    /// Adds another's counts to these.
    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Success if nothing failed.
    pub fn exit_code(self) -> ExitCode {
        if self.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Writes `<passed> <failed>` to `file`.
    pub fn write(self, file: &Path) -> Result<()> {
        let text = format!("{} {}\n", self.passed, self.failed);
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Reads what [`Tally::write`] wrote. Error: there is no such file, or it holds something else.
    pub fn read(file: &Path) -> Result<Tally> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let counts = text.trim().split_once(' ');
        let (passed, failed) =
            counts.with_context(|| format!("{} holds no tally", file.display()))?;
        Ok(Tally {
            passed: passed.parse()?,
            failed: failed.parse()?,
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
        let tally = Tally {
            passed: 12,
            failed: 3,
        };
        tally.write(&file).expect("written");
        assert_eq!(Tally::read(&file).expect("read"), tally);
        std::fs::write(&file, "").expect("emptied");
        assert!(Tally::read(&file).is_err());
    }
}
