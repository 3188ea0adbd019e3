//! Copies what a start would replay of the write-ahead log: whole frames only, also while a server writes more.
//!
//! Caller: `take`. The frames are walked in the order of their numbers, each checked, and copied as they are; what lies
//! before the first and behind the last one in a file is left as a hole of zeros. A file whose name is still there after it was read was not used again
//! meanwhile: it gets a new name before it is written to, and no name comes back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::hex::to_hex;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::copying::{create, read_or_zeros};
use super::error::BackupError;
use super::summary::SummaryFile;
use crate::checkpoint::WalPosition;
use crate::io::{Disk, DiskFile, OpenHow};
use crate::wal::pool::{file_name, sequence_of};
use crate::wal::walk::{Event, Source, walk};

/// The write-ahead log's part of a backup.
#[derive(Debug, Default)]
pub(super) struct CopiedFrames {
    pub files: Vec<SummaryFile>,
    /// The number of the last frame.
    pub last_frame: Option<u64>,
    /// Frames that were durable and cannot be read, in words. They may only have been written while they were looked at.
    pub lost: Vec<String>,
}

/// Copies the frames from a position on. None if files were used again before they were read.
pub(super) fn copy_frames(
    disk: &dyn Disk,
    source: &Path,
    target: &Path,
    store: Uuid,
    from: WalPosition,
    each: &mut dyn FnMut(u64),
) -> Result<Option<CopiedFrames>, BackupError> {
    let (from_dir, to_dir) = (source.join("wal"), target.join("wal"));
    disk.create_dir_all(&to_dir)
        .map_err(BackupError::io("create", &to_dir))?;
    remove_files(disk, &to_dir)?;
    let Some(sources) = open_sources(disk, &from_dir, from)? else {
        return Ok(None);
    };
    let mut writers: BTreeMap<usize, FileWriter> = BTreeMap::new();
    // The file in which replay begins is there, also if no frame follows. What lies before has settled.
    if let Some((index, first)) = sources
        .iter()
        .enumerate()
        .find(|(_, one)| one.sequence == from.file)
    {
        writers.insert(index, FileWriter::new(disk, &to_dir, first)?);
    }
    let mut copied = CopiedFrames::default();
    let mut failed = None;
    walk(&sources, store, from, &mut |event| match event {
        Event::Lost(lost) => copied.lost.push(lost.to_string()),
        Event::Frame {
            source,
            position,
            frame,
        } => {
            if failed.is_some() {
                return;
            }
            let range = position..position + frame.head.padded_bytes();
            let one = &sources[source];
            let copied_frame = match writers.remove(&source) {
                Some(writer) => Ok(writer),
                None => FileWriter::new(disk, &to_dir, one),
            }
            .and_then(|mut writer| {
                writer.copy(&*one.file, range, each)?;
                writers.insert(source, writer);
                Ok(())
            });
            failed = copied_frame.err();
            copied.last_frame = Some(frame.head.sequence);
        }
    })
    .map_err(BackupError::io("read the write-ahead log in", &from_dir))?;
    if let Some(failed) = failed {
        return Err(failed);
    }
    for (_, writer) in writers {
        copied.files.push(writer.finish()?);
    }
    for one in &sources {
        let path = from_dir.join(file_name(one.sequence));
        if !disk
            .exists(&path)
            .map_err(BackupError::io("look for", &path))?
        {
            return Ok(None);
        }
    }
    Ok(Some(copied))
}

fn remove_files(disk: &dyn Disk, directory: &Path) -> Result<(), BackupError> {
    let names = disk
        .list(directory)
        .map_err(BackupError::io("list", directory))?;
    for entry in names.iter().filter(|entry| !entry.is_dir) {
        let path = directory.join(&entry.name);
        disk.remove_file(&path)
            .map_err(BackupError::io("remove", &path))?;
    }
    Ok(())
}

/// The files that replay needs, in order. None if one went away while they were listed.
fn open_sources(
    disk: &dyn Disk,
    directory: &Path,
    from: WalPosition,
) -> Result<Option<Vec<Source>>, BackupError> {
    let names = disk
        .list(directory)
        .map_err(BackupError::io("list", directory))?;
    let mut sources = Vec::new();
    for entry in names {
        let Some(sequence) = sequence_of(&entry.name).filter(|found| *found >= from.file) else {
            continue;
        };
        let path = directory.join(&entry.name);
        let opened = disk
            .open(&path, OpenHow::Read)
            .and_then(|file| Ok((file.len()?, file)));
        match opened {
            Ok((bytes, file)) => sources.push(Source {
                sequence,
                file,
                bytes,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BackupError::io("open", path)(error)),
        }
    }
    sources.sort_by_key(|one| one.sequence);
    Ok(Some(sources))
}

/// A file of the write-ahead log that is being copied: frames, and zeros between them.
struct FileWriter {
    name: String,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    hasher: Sha256,
    position: u64,
    length: u64,
}

impl FileWriter {
    fn new(disk: &dyn Disk, directory: &Path, of: &Source) -> Result<FileWriter, BackupError> {
        let name = file_name(of.sequence);
        let path = directory.join(&name);
        Ok(FileWriter {
            file: create(disk, &path)?,
            name,
            path,
            hasher: Sha256::new(),
            position: 0,
            length: of.bytes,
        })
    }

    /// Copies a range that lies behind what was copied before.
    fn copy(
        &mut self,
        from: &dyn DiskFile,
        range: std::ops::Range<u64>,
        each: &mut dyn FnMut(u64),
    ) -> Result<(), BackupError> {
        assert!(range.start >= self.position, "frames rise within a file");
        self.hash_zeros(range.start - self.position);
        let bytes = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut buffer = vec![0; bytes];
        read_or_zeros(from, range.start, &mut buffer)
            .map_err(BackupError::io("read what is copied to", &self.path))?;
        self.hasher.update(&buffer);
        self.file
            .write_at(range.start, &buffer)
            .map_err(BackupError::io("write", &self.path))?;
        self.position = range.end;
        each(range.end - range.start);
        Ok(())
    }

    fn hash_zeros(&mut self, mut count: u64) {
        let zeros = [0; 4096];
        while count > 0 {
            let piece = count.min(zeros.len() as u64);
            self.hasher
                .update(&zeros[..usize::try_from(piece).expect("at most a block")]);
            count -= piece;
        }
    }

    fn finish(self) -> Result<SummaryFile, BackupError> {
        self.file
            .set_len(self.length)
            .and_then(|()| self.file.sync_data())
            .map_err(BackupError::io("write", &self.path))?;
        Ok(SummaryFile {
            path: format!("wal/{}", self.name),
            bytes: self.position.min(self.length),
            sha256: to_hex(self.hasher.finalize()),
            length: (self.length > self.position).then_some(self.length),
            batches: None,
            records: None,
            damaged: false,
        })
    }
}
