//! What an unfinished backup has of sealed segments that are copied and checked: the file `JOURNAL` beside them, a JSON object a
//! line, so that a backup that was killed goes on where it was. It goes when the backup is finished.
//!
//! Caller: `take`. Invariant: a line is written after its file is durable and was checked. A line that cannot be read is none.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::BackupError;
use super::place::remove_tree;
use super::summary::SummaryFile;
use crate::io::{Disk, DiskFile, OpenHow, read_file};

pub(super) const JOURNAL_FILE: &str = "JOURNAL";
const BYTES_MAX: u64 = 2 << 30;

#[derive(Serialize, Deserialize)]
struct First {
    store: Uuid,
}

/// A journal, open to be written.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    bytes: u64,
    known: HashMap<String, SummaryFile>,
}

impl Journal {
    /// Opens the journal of a directory; of another store's, or without one, the directory is begun anew.
    pub fn open(disk: &dyn Disk, directory: &Path, store: Uuid) -> Result<Journal, BackupError> {
        let path = directory.join(JOURNAL_FILE);
        let read = match disk
            .exists(&path)
            .map_err(BackupError::io("look for", &path))?
        {
            true => read_file(disk, &path, BYTES_MAX).map_err(BackupError::io("read", &path))?,
            false => Vec::new(),
        };
        let mut lines = read.split(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let is_its = serde_json::from_slice(first).is_ok_and(|first: First| first.store == store);
        if !is_its {
            if disk
                .exists(directory)
                .map_err(BackupError::io("look for", directory))?
            {
                remove_tree(disk, directory)?;
            }
            disk.create_dir_all(directory)
                .map_err(BackupError::io("create", directory))?;
            let file = disk
                .open(&path, OpenHow::CreateNew)
                .map_err(BackupError::io("create", &path))?;
            let mut journal = Journal {
                path,
                file,
                bytes: 0,
                known: HashMap::new(),
            };
            journal.append(&First { store })?;
            return Ok(journal);
        }
        let known = lines
            .filter_map(|line| serde_json::from_slice::<SummaryFile>(line).ok())
            .map(|file| (file.path.clone(), file))
            .collect();
        let file = disk
            .open(&path, OpenHow::ReadWrite)
            .map_err(BackupError::io("open", &path))?;
        let mut journal = Journal {
            path,
            file,
            bytes: read.len() as u64,
            known,
        };
        // A line that was cut short ends here.
        journal.write(b"\n")?;
        Ok(journal)
    }

    /// What is known of a file.
    pub fn get(&self, path: &str) -> Option<&SummaryFile> {
        self.known.get(path)
    }

    /// Files that are durable and were checked.
    pub fn add(&mut self, files: &[SummaryFile]) -> Result<(), BackupError> {
        for file in files {
            self.append(file)?;
            self.known.insert(file.path.clone(), file.clone());
        }
        Ok(())
    }

    fn append(&mut self, line: &impl Serialize) -> Result<(), BackupError> {
        let mut bytes = serde_json::to_vec(line).expect("plain fields are JSON");
        bytes.push(b'\n');
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.file
            .write_at(self.bytes, bytes)
            .and_then(|()| self.file.sync_data())
            .map_err(BackupError::io("write", &self.path))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}
