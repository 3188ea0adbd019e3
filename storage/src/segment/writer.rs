//! The active segment, as the settler extends it: large pieces past the page cache, small ones through it.
//!
//! Callers: the settler, from one thread. It appends, then syncs (all files of a piece of a round together, see `io::Syncs`), and
//! only then publishes the new end in a checkpoint; readers stay below it. The unaligned end of a direct write is a last
//! block filled up with [`PADDING`], which the next write writes again; the seal cuts the file to its exact length.
//! Invariants: a file changes its way of writing only after a sync and with its pages dropped; nothing is kept in memory for
//! a segment that is closed but its index.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use model::batch::BatchHeader;
use model::{LogId, Offset, Timestamp};

use super::index::{SegmentIndex, SharedIndex};
use super::index_file::IndexFile;
use super::walk::HEAD_BYTES;
use super::{SegmentError, SegmentId};
use crate::checkpoint::ActiveSegment;
use crate::epochs::Epochs;
use crate::io::{
    AlignedBuffer, DIRECT_ALIGNMENT_BYTES, Disk, DiskFile, OpenHow, SyncFailed, Syncs,
};
use crate::manifest::{Sealed, SegmentKind};
use crate::producers::Producers;

/// How much a direct write lays down at once: bigger ones delay the WAL's syncs, smaller ones cost throughput.
const DIRECT_CHUNK_BYTES: usize = 2 << 20;

/// What fills up the last block of a direct write. Read as a batch's head it promises more bytes than any file has, which
/// Kafka's own tools take for the end of the file; at zeros they give up, as no batch is that short.
pub const PADDING: u8 = 0x7f;

const BLOCK: u64 = DIRECT_ALIGNMENT_BYTES as u64;

/// How bytes go to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteWay {
    /// Through the page cache: for small pieces, synced together.
    Buffered,
    /// Through the page cache and on to the disk in chunks: for large pieces that are read again soon. No more than a chunk is dirty,
    /// as the kernel would write back all of it at once, and syncs of the write-ahead log wait behind that.
    Through,
    /// Past it, in aligned chunks: for large pieces. Buffered where the file system has no direct writes.
    Direct,
}

/// A batch to settle, stamped with its offset and epoch.
#[derive(Clone, Debug)]
pub struct SettledBatch {
    /// The whole batch.
    pub bytes: Bytes,
    /// Its header.
    pub header: BatchHeader,
    /// When the broker appended it.
    pub append_time: Timestamp,
}

/// A segment that does not change any more.
#[derive(Debug)]
pub struct SealedSegment {
    /// Which file.
    pub id: SegmentId,
    /// What the manifest says of it.
    pub sealed: Sealed,
    /// Its index.
    pub index: SharedIndex,
    /// What of it is damaged, so that it has no index file: readers of it are told, and the log goes on behind it.
    pub damage: Option<SegmentError>,
}

/// Extends one segment.
#[derive(Debug)]
pub struct SegmentWriter {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    log: LogId,
    id: SegmentId,
    bytes: u64,
    end_offset: Offset,
    max_timestamp: Timestamp,
    first_append_time: Timestamp,
    last_append_time: Timestamp,
    index: SharedIndex,
    open: Option<(WriteWay, Arc<dyn DiskFile>)>,
    /// Bytes, or the length, may not be on the disk.
    unsynced: bool,
    /// Bytes may be in the page cache only.
    has_dirty_pages: bool,
    no_direct: bool,
}

impl SegmentWriter {
    /// Creates the segment's file, in a directory that exists. The caller syncs the directory before anything names the file.
    pub fn create(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        log: LogId,
        id: SegmentId,
    ) -> io::Result<SegmentWriter> {
        let file = disk.open(&id.log_path(&directory), OpenHow::CreateNew)?;
        Ok(SegmentWriter {
            disk,
            directory,
            log,
            id,
            bytes: 0,
            end_offset: id.base,
            max_timestamp: Timestamp::NONE,
            first_append_time: Timestamp::NONE,
            last_append_time: Timestamp::NONE,
            index: SharedIndex::new(SegmentIndex::empty(id, SegmentKind::Plain)),
            open: Some((WriteWay::Buffered, file)),
            unsynced: true,
            has_dirty_pages: false,
            no_direct: false,
        })
    }

    /// Goes on with a segment as the checkpoint knows it; what lies behind its settled bytes is overwritten.
    /// Reads nothing but the file's length: the index is built when it is needed.
    pub fn resume(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        log: LogId,
        active: &ActiveSegment,
        end_offset: Offset,
    ) -> Result<SegmentWriter, SegmentError> {
        let id = active.id;
        let file = disk
            .open(&id.log_path(&directory), OpenHow::ReadWrite)
            .map_err(SegmentError::io(id))?;
        let len = file.len().map_err(SegmentError::io(id))?;
        if len < active.bytes {
            let reason = format!(
                "the file ends at {len}, {} bytes were settled",
                active.bytes
            );
            return Err(SegmentError::damaged(id, len, reason));
        }
        Ok(SegmentWriter {
            disk,
            directory,
            log,
            id,
            bytes: active.bytes,
            end_offset,
            max_timestamp: active.max_timestamp,
            first_append_time: active.first_append_time,
            last_append_time: active.last_append_time,
            index: SharedIndex::missing(
                id,
                active.bytes,
                end_offset,
                active.last_append_time,
                active.heads_checksum,
            ),
            open: None,
            unsynced: true,
            has_dirty_pages: true,
            no_direct: false,
        })
    }

    /// Whether a batch fits behind the others without an overflow of the index's fields; if not, seal first.
    pub fn has_room_for(&self, header: &BatchHeader) -> bool {
        let relative = header.next_offset().get().checked_sub(self.id.base.get());
        let end = self.bytes + header.total_bytes() as u64;
        relative.is_some_and(|relative| relative <= u32::MAX.into()) && end <= u32::MAX.into()
    }

    /// Lays batches down behind the others. They are in the file when this returns, but not durable.
    /// `scratch` is memory for direct writes, lent so that a thousand segments share one.
    /// After an error nothing is known about the file past the settled bytes: the process must stop.
    pub fn append(
        &mut self,
        batches: &[SettledBatch],
        way: WriteWay,
        scratch: &mut AlignedBuffer,
    ) -> io::Result<()> {
        let mut end_offset = self.end_offset;
        let mut count = 0;
        for batch in batches {
            assert!(
                batch.header.base() == end_offset,
                "a log's offsets have no gaps"
            );
            assert!(
                batch.bytes.len() == batch.header.total_bytes(),
                "a batch is whole"
            );
            end_offset = batch.header.next_offset();
            count += batch.bytes.len() as u64;
        }
        if batches.is_empty() {
            return Ok(());
        }
        assert!(
            self.bytes + count <= u64::from(u32::MAX),
            "a segment is sealed before its positions leave u32"
        );
        let (way, file) = self.open_for(way)?;
        match way {
            WriteWay::Buffered => {
                self.has_dirty_pages = true;
                write_slices(&*file, self.bytes, batches)?;
            }
            WriteWay::Through => self.write_through(&*file, batches)?,
            WriteWay::Direct => self.write_direct(&*file, batches, scratch)?,
        }
        self.unsynced = true;
        self.note(batches);
        self.bytes += count;
        self.end_offset = end_offset;
        let indexed = self.index.peek(|index| (index.bytes(), index.end_offset()));
        assert!(
            indexed.is_none_or(|indexed| indexed == (self.bytes, self.end_offset)),
            "the index covers what is in the file"
        );
        Ok(())
    }

    /// Makes what was settled durable. After an error it is unknown, and the process must stop.
    pub fn sync(&mut self) -> io::Result<()> {
        if !self.unsynced {
            return Ok(());
        }
        let (_, file) = self.open_for_any()?;
        file.sync_data()?;
        self.mark_synced();
        Ok(())
    }

    /// Hands the file over to be synced with others, and gives the descriptor back; the next append opens the file again.
    /// When the sync has returned, [`SegmentWriter::mark_synced`] has to be called.
    pub fn sync_with(&mut self, syncs: &mut Syncs<'_>) -> io::Result<()> {
        if self.unsynced && !syncs.are_together() {
            let (_, file) = self.open_for_any()?;
            syncs.file(self.id.log_path(&self.directory), file);
        }
        self.close();
        Ok(())
    }

    /// Notes that the file was synced after the last append.
    pub fn mark_synced(&mut self) {
        self.unsynced = false;
        self.has_dirty_pages = false;
    }

    /// Gives the file descriptor back; the next append opens the file again.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Cuts the file to its length and writes the index beside it. Both have to be synced, with `syncs`, before the manifest is
    /// stored. A segment that was damaged while it was active is sealed too, without an index.
    /// `producers` and `epochs` are the log's state at this segment's end.
    pub fn seal_with(
        mut self,
        producers: &Producers,
        epochs: &Epochs,
        syncs: &mut Syncs<'_>,
    ) -> Result<SealedSegment, SegmentError> {
        let io = SegmentError::io(self.id);
        let log_path = self.id.log_path(&self.directory);
        let (_, file) = self.open_for_any().map_err(&io)?;
        file.set_len(self.bytes).map_err(&io)?;
        self.close();
        syncs.file(log_path.clone(), file);
        // After a start the index may have to be built here, by reads that a file open for direct ones refuses.
        let file = self.disk.open(&log_path, OpenHow::Read).map_err(&io)?;
        let index = match self.index.with(&*file, SegmentIndex::clone) {
            Ok(index) => index,
            Err(SegmentError::Io { source, .. }) if source.raw_os_error() != Some(libc::EIO) => {
                return Err(io(source));
            }
            Err(error) => {
                return Ok(SealedSegment {
                    id: self.id,
                    sealed: self.sealed(),
                    index: self.index,
                    damage: Some(error),
                });
            }
        };
        assert!(
            (index.bytes(), index.end_offset()) == (self.bytes, self.end_offset),
            "the index covers what was settled"
        );
        let contents = IndexFile {
            log: self.log,
            index,
            producers: producers.clone(),
            epochs: epochs.clone(),
        }
        .encode();
        let path = self.id.index_path(&self.directory);
        if self.disk.exists(&path).map_err(&io)? {
            // A seal that was cut short left it.
            self.disk.remove_file(&path).map_err(&io)?;
        }
        let file = self.disk.open(&path, OpenHow::CreateNew).map_err(&io)?;
        file.write_at(0, &contents).map_err(&io)?;
        syncs.file(path, file);
        syncs.directory(&self.directory);
        Ok(SealedSegment {
            id: self.id,
            sealed: self.sealed(),
            index: self.index,
            damage: None,
        })
    }

    /// Like [`SegmentWriter::seal_with`], durable when it returns.
    pub fn seal(
        self,
        producers: &Producers,
        epochs: &Epochs,
    ) -> Result<SealedSegment, SegmentError> {
        let io = SegmentError::io(self.id);
        let disk = Arc::clone(&self.disk);
        let directory = self.directory.clone();
        let mut syncs = Syncs::new(disk.as_ref(), &directory).map_err(&io)?;
        let sealed = self.seal_with(producers, epochs, &mut syncs)?;
        syncs
            .sync()
            .map_err(|SyncFailed { source, .. }| io(source))?;
        Ok(sealed)
    }

    /// What the checkpoint says of it, once it is synced.
    pub fn active(&self) -> ActiveSegment {
        ActiveSegment {
            id: self.id,
            bytes: self.bytes,
            max_timestamp: self.max_timestamp,
            first_append_time: self.first_append_time,
            last_append_time: self.last_append_time,
            heads_checksum: self.index.heads_checksum(),
        }
    }

    fn sealed(&self) -> Sealed {
        Sealed {
            end_offset: self.end_offset,
            bytes: self.bytes,
            max_timestamp: self.max_timestamp,
            first_append_time: self.first_append_time,
            last_append_time: self.last_append_time,
            records: self.end_offset.since(self.id.base),
        }
    }

    /// Which file.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// How many bytes of batches were settled.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The offset after the last batch that was settled.
    pub fn end_offset(&self) -> Offset {
        self.end_offset
    }

    /// When the broker appended its first batch; `Timestamp::NONE` while it is empty.
    pub fn first_append_time(&self) -> Timestamp {
        self.first_append_time
    }

    /// The index, for readers.
    pub fn index(&self) -> &SharedIndex {
        &self.index
    }

    fn open_for_any(&mut self) -> io::Result<(WriteWay, Arc<dyn DiskFile>)> {
        let way = self
            .open
            .as_ref()
            .map_or(WriteWay::Buffered, |(way, _)| *way);
        self.open_for(way)
    }

    fn open_for(&mut self, way: WriteWay) -> io::Result<(WriteWay, Arc<dyn DiskFile>)> {
        let way = if self.no_direct && way == WriteWay::Direct {
            WriteWay::Buffered
        } else {
            way
        };
        if let Some((open_way, file)) = &self.open
            && *open_way == way
        {
            return Ok((way, Arc::clone(file)));
        }
        let path = self.id.log_path(&self.directory);
        if way == WriteWay::Direct {
            self.drop_pages()?;
            match self.disk.open(&path, OpenHow::Direct) {
                Ok(file) => return Ok(self.opened(WriteWay::Direct, file)),
                Err(error) if error.kind() == io::ErrorKind::Unsupported => self.no_direct = true,
                Err(error) => return Err(error),
            }
        }
        if matches!(self.open, Some((WriteWay::Direct, _))) {
            self.drop_pages()?;
        }
        let (way, how) = match way {
            WriteWay::Through => (way, OpenHow::Through),
            WriteWay::Buffered | WriteWay::Direct => (WriteWay::Buffered, OpenHow::ReadWrite),
        };
        let file = self.disk.open(&path, how)?;
        Ok(self.opened(way, file))
    }

    fn opened(&mut self, way: WriteWay, file: Arc<dyn DiskFile>) -> (WriteWay, Arc<dyn DiskFile>) {
        self.open = Some((way, Arc::clone(&file)));
        (way, file)
    }

    /// Syncs the file and drops its pages, so that it can change its way.
    fn drop_pages(&mut self) -> io::Result<()> {
        let file = match self.open.take() {
            Some((_, file)) => file,
            None => self
                .disk
                .open(&self.id.log_path(&self.directory), OpenHow::ReadWrite)?,
        };
        if self.has_dirty_pages {
            file.sync_data()?;
            self.has_dirty_pages = false;
        }
        file.drop_cache()
    }

    fn write_through(&self, file: &dyn DiskFile, batches: &[SettledBatch]) -> io::Result<()> {
        let mut position = self.bytes;
        let mut rest = batches;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |batch: &&SettledBatch| {
                let fits = bytes < DIRECT_CHUNK_BYTES;
                bytes += batch.bytes.len();
                fits
            };
            let count = rest.iter().take_while(fits).count();
            let (now, later) = rest.split_at(count);
            write_slices(file, position, now)?;
            position += now.iter().map(|it| it.bytes.len() as u64).sum::<u64>();
            rest = later;
        }
        Ok(())
    }

    fn write_direct(
        &self,
        file: &dyn DiskFile,
        batches: &[SettledBatch],
        scratch: &mut AlignedBuffer,
    ) -> io::Result<()> {
        let mut position = self.bytes / BLOCK * BLOCK;
        self.read_last_block(file, position, scratch)?;
        for batch in batches {
            let mut rest = &batch.bytes[..];
            while !rest.is_empty() {
                let room = DIRECT_CHUNK_BYTES - scratch.len();
                let (now, later) = rest.split_at(rest.len().min(room));
                scratch.extend_from_slice(now);
                rest = later;
                if scratch.len() == DIRECT_CHUNK_BYTES {
                    file.write_at(position, scratch.as_slice())?;
                    position += DIRECT_CHUNK_BYTES as u64;
                    scratch.clear();
                }
            }
        }
        if !scratch.is_empty() {
            scratch.pad_to_block(PADDING);
            file.write_at(position, scratch.as_slice())?;
            scratch.clear();
        }
        Ok(())
    }

    /// Puts the settled bytes of the last, incomplete block into `scratch`: they are written again with what follows.
    fn read_last_block(
        &self,
        file: &dyn DiskFile,
        start: u64,
        scratch: &mut AlignedBuffer,
    ) -> io::Result<()> {
        scratch.clear();
        scratch.reserve(DIRECT_CHUNK_BYTES);
        let wanted = usize::try_from(self.bytes - start).expect("less than a block");
        if wanted == 0 {
            return Ok(());
        }
        scratch.extend_with(0, DIRECT_ALIGNMENT_BYTES);
        let read = file.read_at(start, scratch.as_mut_slice())?;
        if read < wanted {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "segment {} ends at {}, {} bytes were settled",
                    self.id,
                    start + read as u64,
                    self.bytes
                ),
            ));
        }
        scratch.truncate(wanted);
        Ok(())
    }

    fn note(&mut self, batches: &[SettledBatch]) {
        for batch in batches {
            let max_timestamp = batch.header.max_time();
            if self.bytes == 0 && batch.header.base() == self.id.base {
                self.first_append_time = batch.append_time;
                self.max_timestamp = max_timestamp;
            }
            self.max_timestamp = self.max_timestamp.max(max_timestamp);
            self.last_append_time = batch.append_time;
        }
        self.index.push(batches.iter().map(|batch| {
            let head = batch
                .bytes
                .first_chunk::<HEAD_BYTES>()
                .expect("a batch is longer than its head");
            (&batch.header, *head, batch.append_time)
        }));
    }
}

fn write_slices(file: &dyn DiskFile, position: u64, batches: &[SettledBatch]) -> io::Result<()> {
    let slices: Vec<IoSlice<'_>> = batches
        .iter()
        .map(|batch| IoSlice::new(&batch.bytes))
        .collect();
    file.write_vectored_at(position, &slices)
}
