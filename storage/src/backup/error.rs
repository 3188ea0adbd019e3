//! What can keep a backup or a restore from being made, by what the operator does about it.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::inspect::Finding;
use crate::wal::pool::is_full;

/// A file of a backup that is not what the summary says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BadFile {
    /// Which, in the backup.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// Why there is no backup, or no restored store.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The source is none.
    #[error("{} is no data directory: it has no file STORE", path.display())]
    NotAStore {
        /// What was to be copied.
        path: PathBuf,
    },
    /// The source would not open, and a copy of it would not either.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another backup or restore is at work there, or a server.
    #[error("{} is in use by another process", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// A place holds the backups of one store.
    #[error("{} holds backups of store {found}, and this is store {wanted}: choose another place", path.display())]
    OtherStore {
        /// The place.
        path: PathBuf,
        /// Whose backups it holds.
        found: Uuid,
        /// Whose were to be added.
        wanted: Uuid,
    },
    /// The target's disk is full. What is copied stays.
    #[error(
        "no space is left to write {}: {source}. What is copied so far stays: make room and run the same command again, it \
         goes on from there",
        path.display()
    )]
    NoSpace {
        /// What was being written.
        path: PathBuf,
        /// The disk's answer.
        source: io::Error,
    },
    /// The disk refused.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The disk's answer.
        source: io::Error,
    },
    /// Files went away faster than they could be copied.
    #[error(
        "the store changes faster than it can be copied: in pass {passes} {} was removed before it was read. What is copied so \
         far stays: run the same command again, or at a quieter hour",
        path.display()
    )]
    Moving {
        /// How often it was tried.
        passes: u32,
        /// What was gone.
        path: PathBuf,
    },
    /// The target's disk does not keep what is written to it.
    #[error("{}: what is read back is not what was written: this disk cannot be trusted with a backup", path.display())]
    Unreliable {
        /// Which file.
        path: PathBuf,
    },
    /// A restore writes into an empty directory only.
    #[error("{} is not empty: restore into a directory that does not exist yet", path.display())]
    NotEmpty {
        /// The target.
        path: PathBuf,
    },
    /// Another backup was being restored into the directory.
    #[error("{} holds an unfinished restore of another backup: remove it, or choose another directory", path.display())]
    OtherRestore {
        /// The target.
        path: PathBuf,
    },
    /// There is no finished backup.
    #[error("{} holds no finished backup", path.display())]
    NoBackup {
        /// Where one was looked for.
        path: PathBuf,
    },
    /// The summary, without which nothing of the backup can be checked, is damaged.
    #[error("{}: {reason}", path.display())]
    Summary {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Files of the backup are not what they were.
    #[error("{} of the backup's files {} damaged", bad.len(), if bad.len() == 1 { "is" } else { "are" })]
    Damaged {
        /// Which.
        bad: Vec<BadFile>,
    },
    /// A server would not start with the copy.
    #[error("a server would not start with the copy: {}: {}", finding.path.display(), finding.reason)]
    NotSound {
        /// Why.
        finding: Box<Finding>,
    },
}

impl BackupError {
    /// An error of the disk, with what was tried on what. A full disk is told as one.
    pub(super) fn io(
        what: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> BackupError {
        let path = path.as_ref().to_owned();
        move |source| match is_full(&source) {
            true => BackupError::NoSpace { path, source },
            false => BackupError::Io { what, path, source },
        }
    }
}
