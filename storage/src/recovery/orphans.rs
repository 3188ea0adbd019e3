//! Logs that the metadata does not know, at a start: files of what it says is deleted are removed, as a kill left them; what
//! it says nothing about is moved to `quarantine`, where an operator can look at it.
//!
//! Caller: `Storage::finish_open`, once, before the settler's thread runs. Invariant: nothing is removed or moved before a
//! checkpoint that does not name it is stored.

use std::path::PathBuf;

use model::LogId;

use crate::data_dir::DataDir;
use crate::error::OpenError;
use crate::wal::pool::is_full;

/// What the metadata says of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It exists.
    Kept,
    /// It existed and was deleted: its files go.
    Deleted,
    /// Nothing. Its files are kept, out of the way.
    Unknown,
}

/// One entry of a directory of partitions, by what the metadata says of it.
pub(crate) struct Orphan {
    pub path: PathBuf,
    /// The deleted log whose files these are; None if nobody knows.
    pub deleted: Option<LogId>,
}

/// Everything below `p` that is no directory of a log that exists.
pub(crate) fn find(data: &DataDir, fate: &dyn Fn(LogId) -> Fate) -> Result<Vec<Orphan>, OpenError> {
    let disk = data.disk();
    let partitions = data.partitions();
    let mut orphans = Vec::new();
    if !disk
        .exists(&partitions)
        .map_err(OpenError::io("look for", &partitions))?
    {
        return Ok(orphans);
    }
    for spread in disk
        .list(&partitions)
        .map_err(OpenError::io("list", &partitions))?
    {
        let directory = partitions.join(&spread.name);
        if !spread.is_dir {
            continue;
        }
        for entry in disk
            .list(&directory)
            .map_err(OpenError::io("list", &directory))?
        {
            let path = directory.join(&entry.name);
            let log = entry.name.parse::<LogId>().ok();
            // A directory under another's first byte was put there by hand.
            let log = log.filter(|log| entry.is_dir && data.of_log(*log) == path);
            let deleted = match log.map_or(Fate::Unknown, fate) {
                Fate::Kept => continue,
                Fate::Deleted => log,
                Fate::Unknown => None,
            };
            orphans.push(Orphan { path, deleted });
        }
    }
    Ok(orphans)
}

/// Moves what nobody knows to `quarantine`. Without space for that it stays where it is until a later start.
pub(crate) fn quarantine(data: &DataDir, orphans: &[Orphan]) -> Result<(), OpenError> {
    for orphan in orphans.iter().filter(|orphan| orphan.deleted.is_none()) {
        match data.set_aside(&orphan.path) {
            Err(OpenError::Io { source, .. }) if is_full(&source) => {
                let path = orphan.path.display();
                tracing::warn!(%path, error = %source, "there is no space to set it aside");
                return Ok(());
            }
            other => other?,
        }
    }
    Ok(())
}
