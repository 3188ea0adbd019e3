//! Backups: copies of a data directory that are whole, checked and summed up, and stores that are made from them.
//!
//! `take` copies, with or without a server on the directory; `restore` checks a backup and makes a data directory of it. `place`
//! is where the backups of a store lie, `summary` the file that ends each of them, `journal` what an unfinished one has,
//! `plan` says what is copied of a log, `frames` copies the write-ahead log, `copying` single files.
//! Callers: the command line. All of it goes through [`crate::Disk`], so that the simulated disk can cut the power.

mod copying;
mod error;
mod frames;
mod journal;
mod place;
mod plan;
mod progress;
mod restore;
mod summary;
mod take;

pub use error::{BackupError, BadFile};
pub use place::{Listed, list};
pub use progress::Progress;
pub use restore::{RestoreOrder, Restored, check_backup, restore};
pub use summary::{SUMMARY_FILE, Summary, SummaryDamage, SummaryFile, SummaryHead};
pub use take::{BackupOrder, BackupTaken, take_backup};
