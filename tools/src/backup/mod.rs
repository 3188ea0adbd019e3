//! `backup` and `restore`: copies of a data directory that are whole and checked, and stores made from them.
//!
//! The work is done in `storage::backup`; here are the options, the progress on a terminal, and what is printed.

mod restore;
mod take;

pub use restore::RestoreArgs;
pub use take::BackupArgs;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use storage::backup::{BackupError, Progress, Summary};

use crate::failure::Failure;
use crate::output::size;

/// Shown below `backup --help`.
pub const BACKUP_EXAMPLES: &str = "\
A server may run on the directory. Each backup in the place is a whole data directory, with a summary of SHA-256 sums in its
file BACKUP; sealed segments that two of them share are on the disk once. A backup that was interrupted goes on when the same
command is run again.

Examples:
  alluvium backup /var/lib/alluvium --to /srv/backups/store
  alluvium backup data --to /srv/backups/store --keep 7 --bytes-per-second 100MiB
  alluvium backup data --to /srv/backups/store --json | jq .directory

Exit codes: 0 done, 1 failed, 3 no data directory, 5 done, and the store has damage that nobody acknowledged.";

/// Shown below `restore --help`.
pub const RESTORE_EXAMPLES: &str = "\
BACKUP is a place of backups, of which the newest is taken, or one backup. The directory must be empty or not be there. Every
file is compared with its SHA-256 sum, and the restored store is verified. A restore that was interrupted goes on when the same
command is run again; until it is done no server starts on the directory.

Examples:
  alluvium restore /srv/backups/store --list
  alluvium restore /srv/backups/store --check          read every byte, and write nothing
  alluvium restore /srv/backups/store --to /var/lib/alluvium
  alluvium restore /srv/backups/store/00000007 --to data

Exit codes: 0 done, 1 failed, 3 no backup, 5 files of the backup are damaged, or the store had damage when it was copied.";

/// Progress on standard error, drawn only if that is a terminal, and the rate that is kept to.
struct Meter {
    bar: ProgressBar,
    began: Instant,
    rate: Option<u64>,
}

impl Meter {
    fn new(rate: Option<u64>) -> Result<Meter> {
        let style = ProgressStyle::with_template(
            "{bytes} of {total_bytes}, {bytes_per_sec}, {eta} left {msg}",
        )?;
        Ok(Meter {
            bar: ProgressBar::new(0).with_style(style),
            began: Instant::now(),
            rate,
        })
    }

    fn show(&self, progress: &Progress) {
        let done = progress.copied_bytes + progress.reused_bytes;
        self.bar.set_length(progress.total_bytes.max(done));
        self.bar.set_position(done);
        match (progress.is_checking, progress.pass) {
            (true, _) => self.bar.set_message("(verifying)"),
            (false, 0 | 1) => {}
            (false, pass) => self
                .bar
                .set_message(format!("(pass {pass}: the store has moved)")),
        }
        if let Some(rate) = self.rate {
            let due =
                std::time::Duration::from_secs_f64(progress.copied_bytes as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(self.began.elapsed()));
        }
    }

    fn end(&self) -> f64 {
        self.bar.finish_and_clear();
        self.began.elapsed().as_secs_f64()
    }
}

/// What a summary says, for JSON.
fn summary_value(directory: &Path, summary: &Summary) -> Value {
    json!({
        "directory": directory,
        "number": summary.head.number,
        "store": summary.head.store,
        "release": summary.head.release,
        "began_ms": summary.head.began_ms,
        "ended_ms": summary.head.ended_ms,
        "files": summary.files.len(),
        "bytes": summary.bytes(),
        "partitions": summary.head.logs,
        "segments": summary.head.segments,
        "records": summary.head.records,
        "damage": summary.damage,
        "sha256": summary.sha256,
    })
}

/// What a summary says, in words.
fn summary_words(summary: &Summary) -> String {
    format!(
        "{} partitions, {} segments, {} records, {} in {} files",
        summary.head.logs,
        summary.head.segments,
        summary.head.records,
        size(summary.bytes()),
        summary.files.len(),
    )
}

/// The failure of a backup with the exit code that it has.
fn failed<T>(result: Result<T, BackupError>) -> Result<T> {
    match result {
        Ok(done) => Ok(done),
        Err(error @ (BackupError::NotAStore { .. } | BackupError::NoBackup { .. })) => {
            bail!(Failure::NotFound(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// A path without `.`, `..` and links, as far as it is there.
fn resolved(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    let mut above = Some(path);
    while let Some(directory) = above {
        let there = match directory.as_os_str().is_empty() {
            true => std::env::current_dir(),
            false => directory.canonicalize(),
        };
        if let Ok(there) = there {
            return rest.iter().rev().fold(there, |path, name| path.join(name));
        }
        rest.extend(directory.file_name());
        above = directory.parent();
    }
    path.to_owned()
}

/// Refuses a place inside the directory that is copied, or the other way round.
fn refuse_nested(source: &Path, target: &Path) -> Result<()> {
    let (from, to) = (resolved(source), resolved(target));
    if from.starts_with(&to) || to.starts_with(&from) {
        bail!(Failure::Usage(format!(
            "{} and {} lie within one another: choose a directory of its own",
            source.display(),
            target.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_within_the_store_is_refused_however_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        std::fs::create_dir(&store).unwrap();
        let inside = store.join("backups/new");
        let around = directory.path().to_owned();
        let dotted = store.join("../store/x");
        for target in [&store, &inside, &around, &dotted] {
            assert!(
                refuse_nested(&store, target).is_err(),
                "{}",
                target.display()
            );
        }
        let beside = directory.path().join("backups");
        assert!(refuse_nested(&store, &beside).is_ok());
    }
}
