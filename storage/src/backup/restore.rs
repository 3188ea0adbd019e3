//! Checks a backup against its summary, and makes a data directory of it.
//!
//! The target is locked, and marked with the file `RESTORING` until all of it is durable and checked: a server refuses to start
//! on it before. A restore that was killed goes on: what is there already is read and compared, and copied again if it differs.
//! Caller: the command line.

use std::io;
use std::path::{Path, PathBuf};

use super::copying::{copy, fill, hash_file, is_zeros, write};
use super::error::{BackupError, BadFile};
use super::place::lock;
use super::progress::Progress;
use super::summary::{Summary, SummaryFile};
use crate::inspect::{self, Finding};
use crate::io::{Disk, OpenHow, read_file};
use crate::recovery::store_file::RESTORING_FILE;

/// Which backup is to be restored where.
#[derive(Clone, Debug)]
pub struct RestoreOrder {
    /// The backup: a directory with a summary.
    pub backup: PathBuf,
    /// The data directory, which must be empty or not be there.
    pub target: PathBuf,
    /// Whether files that are damaged in the backup are copied as they are.
    pub keep_damaged: bool,
}

/// A store that was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the backup's summary says.
    pub summary: Summary,
    /// Bytes that were copied now.
    pub copied_bytes: u64,
    /// Bytes that an earlier attempt had copied.
    pub reused_bytes: u64,
    /// Files that are damaged in the backup, and were copied as they are.
    pub bad: Vec<BadFile>,
    /// What the verification of the restored store found.
    pub found: inspect::Summary,
    /// Its findings, notes left out.
    pub findings: Vec<Finding>,
}

/// Reads every byte of a backup and compares it with the summary. Gives the files that are not as they were.
pub fn check_backup(
    disk: &dyn Disk,
    backup: &Path,
    watch: &mut dyn FnMut(&Progress),
) -> Result<(Summary, Vec<BadFile>), BackupError> {
    let summary = Summary::read(disk, backup)?;
    let mut progress = Progress {
        total_bytes: summary.bytes(),
        ..Progress::default()
    };
    let mut bad = Vec::new();
    for file in summary.files.values() {
        let path = backup.join(&file.path);
        let mut each = |bytes| progress.copied(bytes, watch);
        if let Err(reason) = check_file(disk, &path, file, &mut each)? {
            bad.push(BadFile { path, reason });
        }
    }
    Ok((summary, bad))
}

/// Whether a file is what the summary says. The inner error is what is wrong with it, the outer one the disk's.
fn check_file(
    disk: &dyn Disk,
    path: &Path,
    wanted: &SummaryFile,
    each: &mut dyn FnMut(u64),
) -> Result<Result<(), String>, BackupError> {
    let length = wanted.length.unwrap_or(wanted.bytes);
    let mut checked = || -> io::Result<Result<(), String>> {
        let file = disk.open(path, OpenHow::Read)?;
        let found = file.len()?;
        if found != length {
            return Ok(Err(format!(
                "it has {found} bytes, there should be {length}"
            )));
        }
        if hash_file(&*file, wanted.bytes, each)?.as_deref() != Some(wanted.sha256.as_str()) {
            return Ok(Err("its SHA-256 is not that of the summary".to_owned()));
        }
        if wanted.length.is_some() && !is_zeros(&*file, wanted.bytes)? {
            return Ok(Err(format!(
                "there should be zeros from position {} on",
                wanted.bytes
            )));
        }
        Ok(Ok(()))
    };
    match checked() {
        Ok(checked) => Ok(checked),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(Err("it is missing".to_owned()))
        }
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(Err(error.to_string())),
        Err(error) => Err(BackupError::io("read", path)(error)),
    }
}

/// Restores a backup. Blocks. `watch` hears of each piece that is copied.
pub fn restore(
    disk: &dyn Disk,
    order: &RestoreOrder,
    watch: &mut dyn FnMut(&Progress),
) -> Result<Restored, BackupError> {
    let summary = Summary::read(disk, &order.backup)?;
    let target = &order.target;
    let exists = disk
        .exists(target)
        .map_err(BackupError::io("look for", target))?;
    let is_begun = exists && is_begun(disk, target, &summary)?;
    disk.create_dir_all(target)
        .map_err(BackupError::io("create", target))?;
    let _lock = lock(disk, target)?;
    let marker = target.join(RESTORING_FILE);
    if !is_begun {
        write(disk, &marker, format!("{}\n", summary.sha256).as_bytes())?;
        disk.sync_dir(target)
            .map_err(BackupError::io("sync", target))?;
    }
    let mut restoring = Restoring {
        disk,
        order,
        bad: Vec::new(),
        progress: Progress {
            total_bytes: summary.bytes(),
            pass: 1,
            ..Progress::default()
        },
        watch,
    };
    // What says that a directory is a store comes last.
    let (last, first): (Vec<_>, Vec<_>) = summary
        .files
        .values()
        .partition(|file| file.path == "STORE");
    for file in first.into_iter().chain(last) {
        restoring.file(file, is_begun)?;
    }
    let Restoring { bad, progress, .. } = restoring;
    if !bad.is_empty() && !order.keep_damaged {
        return Err(BackupError::Damaged { bad });
    }
    let mut findings = Vec::new();
    let found = inspect::verify_store_but(disk, target, &|_| false, &mut |finding| {
        if (finding.is_damage || finding.stops_start) && finding.path != marker {
            findings.push(finding);
        }
    })
    .map_err(BackupError::io("verify", target))?;
    if let Some(finding) = findings.iter().find(|finding| finding.stops_start) {
        let finding = Box::new(finding.clone());
        return Err(BackupError::NotSound { finding });
    }
    disk.sync_filesystem(target)
        .map_err(BackupError::io("sync", target))?;
    disk.remove_file(&marker)
        .and_then(|()| disk.sync_dir(target))
        .map_err(BackupError::io("remove", &marker))?;
    Ok(Restored {
        summary,
        copied_bytes: progress.copied_bytes,
        reused_bytes: progress.reused_bytes,
        bad,
        found,
        findings,
    })
}

/// Whether this backup was being restored into the target. An error if the target holds anything else.
fn is_begun(disk: &dyn Disk, target: &Path, summary: &Summary) -> Result<bool, BackupError> {
    let names = disk.list(target).map_err(BackupError::io("list", target))?;
    let marker = target.join(RESTORING_FILE);
    if names.iter().any(|entry| entry.name == RESTORING_FILE) {
        let text = read_file(disk, &marker, 4096).map_err(BackupError::io("read", &marker))?;
        let is_cut = !text.ends_with(b"\n");
        if text.trim_ascii() == summary.sha256.as_bytes() {
            return Ok(true);
        }
        // The marker comes first: one that was cut short has nothing beside it.
        if !is_cut || names.iter().any(|entry| !is_ours(&entry.name)) {
            let path = target.to_owned();
            return Err(BackupError::OtherRestore { path });
        }
        return Ok(false);
    }
    // A target that was locked and got no further.
    if names.iter().any(|entry| !is_ours(&entry.name)) {
        let path = target.to_owned();
        return Err(BackupError::NotEmpty { path });
    }
    Ok(false)
}

fn is_ours(name: &str) -> bool {
    matches!(name, RESTORING_FILE | "LOCK" | "lost+found")
}

struct Restoring<'a> {
    disk: &'a dyn Disk,
    order: &'a RestoreOrder,
    bad: Vec<BadFile>,
    progress: Progress,
    watch: &'a mut dyn FnMut(&Progress),
}

impl Restoring<'_> {
    fn file(&mut self, file: &SummaryFile, is_begun: bool) -> Result<(), BackupError> {
        let (from, to) = (
            self.order.backup.join(&file.path),
            self.order.target.join(&file.path),
        );
        if is_begun && check_file(self.disk, &to, file, &mut |_| {})?.is_ok() {
            self.progress.reused(file.bytes, self.watch);
            return Ok(());
        }
        if let Some(directory) = to.parent() {
            self.disk
                .create_dir_all(directory)
                .map_err(BackupError::io("create", directory))?;
        }
        let bad = |reason: String| BadFile {
            path: from.clone(),
            reason,
        };
        let source = match self.disk.open(&from, OpenHow::Read) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.bad.push(bad("it is missing".to_owned()));
                return Ok(());
            }
            Err(error) => return Err(BackupError::io("open", from)(error)),
        };
        let (progress, watch) = (&mut self.progress, &mut *self.watch);
        let mut each = |bytes| progress.copied(bytes, watch);
        let copied = copy(self.disk, &*source, &to, file.bytes, &mut each)?;
        if copied.sha256 != file.sha256 {
            let reason = match copied.bytes < file.bytes {
                true => format!(
                    "it has {} bytes, there should be {}",
                    copied.bytes, file.bytes
                ),
                false => "its SHA-256 is not that of the summary".to_owned(),
            };
            self.bad.push(bad(reason));
        }
        if let Some(length) = file.length {
            // The write-ahead log is written on in its files: their space is taken now.
            let target = self
                .disk
                .open(&to, OpenHow::ReadWrite)
                .map_err(BackupError::io("open", &to))?;
            fill(&*target, &to, copied.bytes, length)?;
        }
        Ok(())
    }
}
