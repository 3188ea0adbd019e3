//! Writes a sparse segment: what a rewrite keeps of sealed segments, in one go, durable when it is finished.
//!
//! Caller: the rewrite. It stands apart from the settler's writer, which extends a segment over many rounds and whose offsets have
//! no gaps. Space is reserved before the first byte is written, so that a full disk refuses at the beginning. Large segments go
//! past the page cache in aligned chunks, small ones through it.
//! Invariant: the index file is written after the log file was synced, so that a valid index says that its log is whole; nothing
//! names the files before [`SparseWriter::finish`] has returned.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::batch::BatchHeader;
use model::{LogId, Offset, Timestamp};

use super::SegmentId;
use super::index::SegmentIndex;
use super::index_file::IndexFile;
use super::walk::HEAD_BYTES;
use super::writer::PADDING;
use crate::epochs::Epochs;
use crate::io::{
    AlignedBuffer, DIRECT_ALIGNMENT_BYTES, Disk, DiskFile, OpenHow, WriteBehind, write_new_file,
};
use crate::manifest::{SegmentEntry, SegmentKind};
use crate::producers::Producers;

/// Segments that may become as large as this go past the page cache.
const DIRECT_BYTES_MIN: u64 = 512 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct SparseWriter {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    log: LogId,
    file: Arc<dyn DiskFile>,
    is_direct: bool,
    /// Takes whole chunks to the file.
    behind: WriteBehind,
    index: SegmentIndex,
    /// What is not in the file yet.
    chunk: AlignedBuffer,
    /// Bytes that are in the file: whole chunks.
    written: u64,
}

impl SparseWriter {
    /// Makes the file, with space for `reserve_bytes`. What a rewrite that did not finish has left under its name goes. On an
    /// error there is no file. It is written by a thread of its own, if it may have one.
    pub fn create(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        log: LogId,
        id: SegmentId,
        reserve_bytes: u64,
        may_have_thread: bool,
    ) -> io::Result<SparseWriter> {
        for path in [
            id.key_index_path(&directory),
            id.index_path(&directory),
            id.log_path(&directory),
        ] {
            if disk.exists(&path)? {
                disk.remove_file(&path)?;
            }
        }
        let path = id.log_path(&directory);
        let file = disk.open(&path, OpenHow::CreateNew)?;
        let opened = (|| {
            file.reserve(reserve_bytes)?;
            if reserve_bytes < DIRECT_BYTES_MIN {
                return Ok((file, false));
            }
            match disk.open(&path, OpenHow::Direct) {
                Ok(direct) => Ok((direct, true)),
                Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok((file, false)),
                Err(error) => Err(error),
            }
        })();
        let (file, is_direct) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let _ = disk.remove_file(&path);
                return Err(error);
            }
        };
        Ok(SparseWriter {
            disk,
            directory,
            log,
            behind: WriteBehind::new(Arc::clone(&file), may_have_thread),
            file,
            is_direct,
            index: SegmentIndex::empty(id, SegmentKind::Sparse),
            chunk: AlignedBuffer::default(),
            written: 0,
        })
    }

    /// Whether a batch fits behind the others without an overflow of the index's fields.
    pub fn has_room_for(&self, header: &BatchHeader) -> bool {
        self.index.has_room_for(header)
    }

    /// Adds a batch behind the others. Its bytes may reach the file later, in chunks of `chunk_bytes`, a multiple of the disk's block;
    /// that they cannot be written may be told later.
    pub fn push(
        &mut self,
        header: &BatchHeader,
        batch: &[u8],
        append_time: Timestamp,
        chunk_bytes: usize,
    ) -> io::Result<()> {
        assert!(
            chunk_bytes.is_multiple_of(DIRECT_ALIGNMENT_BYTES),
            "direct writes are of whole blocks"
        );
        assert!(
            batch.len() == header.total_bytes(),
            "a batch is whole, and its header its own"
        );
        let head = batch
            .first_chunk::<HEAD_BYTES>()
            .expect("a batch is longer than its head");
        self.index.push(header, head, append_time);
        let mut rest = batch;
        while !rest.is_empty() {
            // Chunks may have become smaller: what is there is filled up to whole ones.
            let room = chunk_bytes - self.chunk.len() % chunk_bytes;
            let (now, later) = rest.split_at(rest.len().min(room));
            self.chunk.extend_from_slice(now);
            rest = later;
            if self.chunk.len().is_multiple_of(chunk_bytes) {
                let bytes = self.chunk.len() as u64;
                self.behind.write(self.written, &mut self.chunk)?;
                self.written += bytes;
            }
        }
        Ok(())
    }

    /// Writes what is left, and the index beside it. Both are durable, under their names, when this returns. `end_offset` is
    /// where the replaced segments end, and the last batch too; `producers` and `epochs` are the log's state there.
    pub fn finish(
        &mut self,
        end_offset: Offset,
        first_append_time: Timestamp,
        producers: Producers,
        epochs: Epochs,
    ) -> io::Result<SegmentEntry> {
        assert!(
            self.index.end_offset() == end_offset,
            "the last batch is kept, so that readers get past the end"
        );
        if self.is_direct {
            self.chunk.pad_to_block(PADDING);
        }
        self.behind.write(self.written, &mut self.chunk)?;
        self.behind.wait()?;
        self.file.set_len(self.index.bytes())?;
        self.file.sync_data()?;
        self.index.set_first_append_time(first_append_time);
        let (id, sealed) = (self.index.id(), self.index.sealed());
        let contents = IndexFile {
            log: self.log,
            index: self.index.clone(),
            producers,
            epochs,
        }
        .encode();
        write_new_file(&*self.disk, &id.index_path(&self.directory), &contents)?;
        self.disk.sync_dir(&self.directory)?;
        Ok(SegmentEntry::sealed(id, SegmentKind::Sparse, sealed))
    }

    /// Removes its files: nothing names them.
    pub fn discard(self) {
        let (disk, directory, id) = (self.disk, self.directory, self.index.id());
        drop(self.behind);
        remove_files(&*disk, &directory, id);
    }
}

/// Removes the files of a segment that nothing names. What cannot be removed goes with the next start.
pub(crate) fn remove_files(disk: &dyn Disk, directory: &Path, id: SegmentId) {
    for path in id.paths(directory) {
        match disk.remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "the rest of a rewrite could not be removed: the next start does");
            }
            _ => {}
        }
    }
}
