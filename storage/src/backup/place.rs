//! The place where backups of one store lie: `<number, 8 digits>/` for each finished one, a whole data directory with a summary,
//! and `unfinished/` for the one that is being made. Sealed segments that two backups share are one file with two names.
//!
//! Caller: `take`; `restore` finds a backup here. Invariant: a directory with a number is finished: it is durable and checked.

use std::io;
use std::path::{Path, PathBuf};

use super::error::BackupError;
use super::summary::{SUMMARY_FILE, Summary};
use crate::io::{Disk, LockGuard, LockHow};

const UNFINISHED: &str = "unfinished";
const NUMBER_DIGITS: usize = 8;

/// A place, locked for one backup at a time.
#[derive(Debug)]
pub(super) struct Place<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    _lock: Box<dyn LockGuard>,
}

impl<'a> Place<'a> {
    /// Opens a place, and makes it if it is not there.
    pub fn open(disk: &'a dyn Disk, path: &Path) -> Result<Place<'a>, BackupError> {
        if disk
            .exists(&path.join("STORE"))
            .map_err(BackupError::io("look for", path))?
        {
            return Err(BackupError::Unusable {
                path: path.to_owned(),
                reason: "it is a data directory, and no place for backups".to_owned(),
            });
        }
        disk.create_dir_all(path)
            .map_err(BackupError::io("create", path))?;
        Ok(Place {
            disk,
            path: path.to_owned(),
            _lock: lock(disk, path)?,
        })
    }

    pub fn unfinished(&self) -> PathBuf {
        self.path.join(UNFINISHED)
    }

    pub fn directory(&self, number: u64) -> PathBuf {
        directory(&self.path, number)
    }

    /// The numbers of the finished backups, rising.
    pub fn numbers(&self) -> Result<Vec<u64>, BackupError> {
        numbers(self.disk, &self.path)
    }

    /// The unfinished backup is finished: it gets its number.
    pub fn finish(&self, number: u64) -> Result<PathBuf, BackupError> {
        let (from, to) = (self.unfinished(), self.directory(number));
        self.disk
            .rename(&from, &to)
            .and_then(|()| self.disk.sync_dir(&self.path))
            .map_err(BackupError::io("finish", &to))?;
        Ok(to)
    }

    /// Removes all but the newest `keep` backups. Each loses its summary first, so that a rest is not taken for a backup.
    pub fn keep_newest(&self, keep: usize) -> Result<Vec<u64>, BackupError> {
        let mut older = self.numbers()?;
        older.truncate(older.len().saturating_sub(keep.max(1)));
        for number in &older {
            let directory = self.directory(*number);
            let summary = directory.join(SUMMARY_FILE);
            self.disk
                .remove_file(&summary)
                .and_then(|()| self.disk.sync_dir(&directory))
                .map_err(BackupError::io("remove", &summary))?;
        }
        self.remove_rests()?;
        Ok(older)
    }

    /// Removes directories with a number and without a summary: what is left of a removal.
    pub fn remove_rests(&self) -> Result<(), BackupError> {
        for entry in self
            .disk
            .list(&self.path)
            .map_err(BackupError::io("list", &self.path))?
        {
            let path = self.path.join(&entry.name);
            let is_rest = number_of(&entry.name).is_some()
                && entry.is_dir
                && !self
                    .disk
                    .exists(&path.join(SUMMARY_FILE))
                    .map_err(BackupError::io("look for", &path))?;
            if is_rest {
                remove_tree(self.disk, &path)?;
            }
        }
        Ok(())
    }
}

/// Locks a place or a target against another backup, restore or server.
pub(super) fn lock(disk: &dyn Disk, directory: &Path) -> Result<Box<dyn LockGuard>, BackupError> {
    let path = directory.join("LOCK");
    disk.lock(&path, LockHow::Exclusive)
        .map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => BackupError::Busy { path },
            _ => BackupError::io("lock", path)(error),
        })
}

/// The finished backups of a place, rising.
pub(super) fn numbers(disk: &dyn Disk, place: &Path) -> Result<Vec<u64>, BackupError> {
    let mut found = Vec::new();
    for entry in disk.list(place).map_err(BackupError::io("list", place))? {
        let Some(number) = number_of(&entry.name).filter(|_| entry.is_dir) else {
            continue;
        };
        let summary = place.join(&entry.name).join(SUMMARY_FILE);
        if disk
            .exists(&summary)
            .map_err(BackupError::io("look for", &summary))?
        {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Where the backup with a number lies.
pub(super) fn directory(place: &Path, number: u64) -> PathBuf {
    place.join(format!("{number:0NUMBER_DIGITS$}"))
}

fn number_of(name: &str) -> Option<u64> {
    let is_number = name.len() == NUMBER_DIGITS && name.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| name.parse().ok()).flatten()
}

/// A finished backup: where it is, and its summary.
pub type Listed = (PathBuf, Result<Summary, BackupError>);

/// The backups of a place with their summaries, rising; or, of a directory that is a backup itself, that one.
/// A summary that cannot be read is told in its place.
pub fn list(disk: &dyn Disk, place: &Path) -> Result<Vec<Listed>, BackupError> {
    let is_one = disk
        .exists(&place.join(SUMMARY_FILE))
        .map_err(BackupError::io("look for", place))?;
    if is_one {
        return Ok(vec![(place.to_owned(), Summary::read(disk, place))]);
    }
    let numbers = numbers(disk, place)?;
    Ok(numbers
        .into_iter()
        .map(|number| {
            let path = directory(place, number);
            let summary = Summary::read(disk, &path);
            (path, summary)
        })
        .collect())
}

/// Removes a directory and all that is in it.
pub(super) fn remove_tree(disk: &dyn Disk, directory: &Path) -> Result<(), BackupError> {
    for entry in disk
        .list(directory)
        .map_err(BackupError::io("list", directory))?
    {
        let path = directory.join(&entry.name);
        match entry.is_dir {
            true => remove_tree(disk, &path)?,
            false => disk
                .remove_file(&path)
                .map_err(BackupError::io("remove", &path))?,
        }
    }
    disk.remove_dir(directory)
        .map_err(BackupError::io("remove", directory))
}
