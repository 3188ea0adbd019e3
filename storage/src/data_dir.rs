//! The data directory: the disk it is on, and the places in it. `docs/formats.md` lists the files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::LogId;

use crate::error::OpenError;
use crate::io::{Disk, create_dir_durable};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    disk: Arc<dyn Disk>,
    root: PathBuf,
}

impl DataDir {
    pub fn new(disk: Arc<dyn Disk>, root: PathBuf) -> DataDir {
        DataDir { disk, root }
    }

    pub fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// The disk, for what outlives this.
    pub fn shared_disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoint")
    }

    pub fn partitions(&self) -> PathBuf {
        self.root.join("p")
    }

    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// Where a partition's files are.
    pub fn of_log(&self, log: LogId) -> PathBuf {
        directory_of(&self.root, log)
    }

    /// Makes a directory of its own, durably.
    pub fn create(&self, directory: &Path) -> Result<(), OpenError> {
        create_dir_durable(self.disk(), &self.root, directory)
            .map_err(OpenError::io("create", directory))
    }

    /// Moves a file or directory to `quarantine`, durably.
    pub fn set_aside(&self, from: &Path) -> Result<(), OpenError> {
        let aside = self.quarantine();
        self.create(&aside)?;
        let to = move_aside(self.disk(), from, &aside).map_err(OpenError::io("set aside", from))?;
        tracing::warn!(from = %from.display(), to = %to.display(), "set aside");
        self.disk()
            .sync_dir(&aside)
            .map_err(OpenError::io("sync", &aside))?;
        if let Some(above) = from.parent() {
            self.disk()
                .sync_dir(above)
                .map_err(OpenError::io("sync", above))?;
        }
        Ok(())
    }
}

/// Where a partition's files are: `p/<xx>/<topic uuid>-<partition>`, spread over 256 directories.
pub(crate) fn directory_of(root: &Path, log: LogId) -> PathBuf {
    let [first, ..] = log.topic_id.to_bytes();
    let spread = first ^ log.partition.get().to_le_bytes()[0];
    root.join("p")
        .join(format!("{spread:02x}"))
        .join(log.to_string())
}

/// Whether some partition has files.
pub(crate) fn has_settled(disk: &dyn Disk, root: &Path) -> Result<bool, OpenError> {
    let partitions = root.join("p");
    if !disk
        .exists(&partitions)
        .map_err(OpenError::io("look for", &partitions))?
    {
        return Ok(false);
    }
    for spread in disk
        .list(&partitions)
        .map_err(OpenError::io("list", &partitions))?
    {
        let directory = partitions.join(&spread.name);
        let has_files = spread.is_dir
            && !disk
                .list(&directory)
                .map_err(OpenError::io("list", &directory))?
                .is_empty();
        if has_files {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Moves a file or directory into `quarantine`, under a name that is free, and returns where it is now. The move is not synced:
/// after a power cut it may be found at its old place, and is moved again.
pub(crate) fn move_aside(disk: &dyn Disk, path: &Path, quarantine: &Path) -> io::Result<PathBuf> {
    if !disk.exists(quarantine)? {
        disk.create_dir_all(quarantine)?;
        if let Some(parent) = quarantine.parent() {
            disk.sync_dir(parent)?;
        }
    }
    let above = path
        .parent()
        .and_then(Path::file_name)
        .unwrap_or_default()
        .to_string_lossy();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for number in 0u32.. {
        let target = quarantine.join(format!("{above}.{name}.{number}"));
        if !disk.exists(&target)? {
            disk.rename(path, &target)?;
            return Ok(target);
        }
    }
    unreachable!("there are fewer than 2^32 files in one directory")
}
