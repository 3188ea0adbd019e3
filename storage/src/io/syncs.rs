//! What was written and is not durable yet: made durable together, by as few syncs as that takes.
//!
//! Callers: the settler and the segment's writer, which collect files and directories here and sync them once before
//! anything names them. A few are synced one by one and kept open until then; of many nothing is kept open, and the file
//! system is synced once: so the number of descriptors and of syncs does not grow with the number of files.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, DiskFile, FileSystem};

/// More than this are synced by one sync of the file system.
const SINGLE_SYNCS_MAX: usize = 24;

/// Files and directories that wait for their sync.
pub struct Syncs<'a> {
    disk: &'a dyn Disk,
    root: PathBuf,
    /// Open since before the first write, so that it reports the write errors of files that are closed.
    file_system: Box<dyn FileSystem>,
    files: Vec<(PathBuf, Arc<dyn DiskFile>)>,
    directories: BTreeSet<PathBuf>,
    together: bool,
}

/// A sync that failed: nothing is known about what was collected.
#[derive(Debug)]
pub struct SyncFailed {
    /// What was synced.
    pub path: PathBuf,
    /// What the disk says.
    pub source: io::Error,
}

impl SyncFailed {
    fn of(path: &Path) -> impl FnOnce(io::Error) -> SyncFailed {
        let path = path.to_owned();
        |source| SyncFailed { path, source }
    }
}

impl<'a> Syncs<'a> {
    /// Nothing yet. Begin before anything is written that is to be collected. All of it lies below `root`.
    pub fn new(disk: &'a dyn Disk, root: &Path) -> io::Result<Syncs<'a>> {
        Ok(Syncs {
            disk,
            root: root.to_owned(),
            file_system: disk.file_system(root)?,
            files: Vec::new(),
            directories: BTreeSet::new(),
            together: false,
        })
    }

    /// A file's bytes and length are to become durable.
    pub fn file(&mut self, path: PathBuf, file: Arc<dyn DiskFile>) {
        if !self.together {
            self.files.push((path, file));
            self.bound();
        }
    }

    /// The names in a directory are to become durable.
    pub fn directory(&mut self, path: &Path) {
        if !self.together && !self.directories.contains(path) {
            self.directories.insert(path.to_owned());
            self.bound();
        }
    }

    /// Creates a directory and those above it that are missing; their names are to become durable.
    pub fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)?;
        let mut above = path.parent();
        while let Some(directory) = above {
            self.directory(directory);
            if directory == self.root {
                break;
            }
            above = directory.parent();
        }
        Ok(())
    }

    /// Whether a file that is given from now on is closed at once.
    pub fn are_together(&self) -> bool {
        self.together
    }

    fn bound(&mut self) {
        if self.files.len() + self.directories.len() > SINGLE_SYNCS_MAX {
            self.together = true;
            self.files = Vec::new();
            self.directories = BTreeSet::new();
        }
    }

    /// Makes all of it durable. What is collected afterwards waits for the next call.
    pub fn sync(&mut self) -> Result<(), SyncFailed> {
        if std::mem::take(&mut self.together) {
            let root = self.root.clone();
            return self.file_system.sync().map_err(SyncFailed::of(&root));
        }
        for (path, file) in std::mem::take(&mut self.files) {
            file.sync_data().map_err(SyncFailed::of(&path))?;
        }
        for path in std::mem::take(&mut self.directories) {
            self.disk.sync_dir(&path).map_err(SyncFailed::of(&path))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Syncs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Syncs")
            .field("files", &self.files.len())
            .field("directories", &self.directories.len())
            .field("together", &self.together)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{OpenHow, SimDisk};

    /// Writes files, each in a directory of its own, syncs, and cuts the power.
    fn check(count: usize) -> u64 {
        let disk = SimDisk::new(1);
        let root = Path::new("/data");
        disk.create_dir_all(root).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let mut syncs = Syncs::new(&disk, root).unwrap();
        let path = |n: usize| root.join(format!("p/{:02x}/{n}/file", n % 7));
        for n in 0..count {
            let path = path(n);
            syncs.create_directory(path.parent().unwrap()).unwrap();
            let file = disk.open(&path, OpenHow::CreateNew).unwrap();
            file.write_at(0, &[n as u8; 700]).unwrap();
            syncs.file(path.clone(), file);
            syncs.directory(path.parent().unwrap());
        }
        let before = disk.operations();
        syncs.sync().unwrap();
        let operations = disk.operations() - before;
        disk.cut_power();
        disk.restart(7);
        let files = disk.files();
        assert_eq!(files.len(), count);
        for n in 0..count {
            assert_eq!(files[&path(n)], [n as u8; 700], "file {n} of {count}");
        }
        operations
    }

    #[test]
    fn what_is_collected_is_durable_after_one_call_and_many_share_one_sync() {
        // The file, its directory, and the three above it.
        assert_eq!(check(1), 5);
        assert!(check(4) <= SINGLE_SYNCS_MAX as u64);
        assert_eq!(check(100), 1);
    }
}
