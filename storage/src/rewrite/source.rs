//! Reads sealed segments batch by batch, each checked before it is shown: checksum, offsets, and at the end of each block of the
//! index the checksum of the heads. Nothing is read through a map: a bad sector is an error and not a signal.
//!
//! Callers: [`scan`] for those who only look, and the rewrite. Large reads, of which the next is told to the disk beforehand. The
//! cache is left to readers: of a segment that none has open, the pages are dropped behind that were not in memory before, but where
//! the segment is read again at once.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};
use model::batch::{Batch, BatchHeader, HEADER_BYTES, peek_len};
use model::{LogId, Offset, Timestamp};

use super::RewriteParts;
use super::error::RewriteError;
use super::keeper::{KeepError, PIECE_BYTES_MAX, Pace};
use crate::io::{Ahead, DiskFile, OpenHow};
use crate::log::LogCell;
use crate::manifest::{Manifest, Sealed, SegmentEntry, SegmentKind};
use crate::segment::{IndexFile, SegmentId, SegmentIndex, read_index_file};

/// Bytes of a batch that its checksum leaves out, and the checksum itself.
const HEAD_BYTES: usize = 21;

/// So many pieces are read ahead by the disk while nobody else waits for it.
const PIECES_AHEAD: u64 = 4;
/// So many windows are waited for to use their memory again.
const WINDOWS_MAX: usize = 4;
const WHOLE_PIECE: u64 = PIECE_BYTES_MAX as u64;

/// What becomes of a segment's pages when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Those are dropped that were not in memory before, if no reader has it open.
    AsFound,
    /// They stay: it is read again soon.
    Keep,
}

/// Shows each batch of some sealed segments, in order, to `each`. Blocks.
/// Errors: `Keep` with what `each` said, if it is not [`KeepError::Enough`], which ends the scan.
pub(crate) fn scan(
    parts: &RewriteParts,
    log: &Arc<LogCell>,
    segments: &[SegmentId],
    pages: Pages,
    pace: &dyn Pace,
    each: &mut dyn FnMut(&BatchHeader, &Bytes) -> Result<(), KeepError>,
) -> Result<(), RewriteError> {
    for segment in segments {
        let mut batches = open_segment(parts, log, *segment, pages)?;
        while let Some(found) = batches.next_batch(pace)? {
            if shown(*segment, each(&found.header, &found.bytes))?.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether who was shown a batch of a segment wants more.
pub(super) fn shown(
    segment: SegmentId,
    said: Result<(), KeepError>,
) -> Result<ControlFlow<()>, RewriteError> {
    match said {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(KeepError::Enough) => Ok(ControlFlow::Break(())),
        Err(source) => Err(RewriteError::Keep { segment, source }),
    }
}

/// The same for some blocks of a sealed segment, in order; for all of it if its index cannot be used.
pub(crate) fn scan_blocks(
    parts: &RewriteParts,
    log: &Arc<LogCell>,
    segment: SegmentId,
    blocks: &[Range<u32>],
    pace: &dyn Pace,
    each: &mut dyn FnMut(&BatchHeader, &Bytes) -> Result<(), KeepError>,
) -> Result<(), RewriteError> {
    let mut batches = open_segment(parts, log, segment, Pages::AsFound)?;
    let all = 0..u32::MAX;
    let blocks = match batches.index() {
        Some(_) => blocks,
        None => std::slice::from_ref(&all),
    };
    for range in blocks {
        batches.go_to(range);
        while batches.block < range.end as usize
            && let Some(found) = batches.next_batch(pace)?
        {
            each(&found.header, &found.bytes)
                .map_err(|source| RewriteError::Keep { segment, source })?;
        }
    }
    Ok(())
}

/// Opens a sealed segment, to be walked over batch by batch. It stays readable if another takes its place meanwhile.
pub(crate) fn open_segment(
    parts: &RewriteParts,
    log: &Arc<LogCell>,
    segment: SegmentId,
    pages: Pages,
) -> Result<Batches, RewriteError> {
    let (_, entry, sealed) = live(log, segment)?;
    let mut source = Source::open(parts, log, entry, sealed)?;
    source.keeps_pages |= pages == Pages::Keep;
    source.leaves_as_found = pages == Pages::AsFound;
    Ok(Arc::new(source).batches())
}

/// A sealed segment as the log's manifest names it, and the manifest.
pub(super) fn live(
    log: &LogCell,
    segment: SegmentId,
) -> Result<(Arc<Manifest>, SegmentEntry, Sealed), RewriteError> {
    let state = log.locked();
    if state.deleted {
        return Err(RewriteError::Deleted { log: log.id() });
    }
    let gone = RewriteError::NoLongerLive { segment };
    let Some(manifest) = state.segments.manifest.clone() else {
        return Err(gone);
    };
    let named = manifest.sealed().find(|(entry, _)| entry.id == segment);
    match named.map(|(entry, sealed)| (*entry, *sealed)) {
        Some((entry, sealed)) => Ok((manifest, entry, sealed)),
        None => Err(gone),
    }
}

/// A sealed segment, open to be read.
#[derive(Debug)]
pub(super) struct Source {
    pub entry: SegmentEntry,
    pub sealed: Sealed,
    file: Arc<dyn DiskFile>,
    /// What its index file says; None if that is missing or damaged.
    pub index: Option<IndexFile>,
    keeps_pages: bool,
    /// Whether those stay that were in memory before.
    leaves_as_found: bool,
    /// From where on some were not: the disk was asked for what follows.
    cold_from: AtomicU64,
    /// Whether the file goes, and its pages with it.
    goes: AtomicBool,
}

impl Drop for Source {
    fn drop(&mut self) {
        let from = match self.leaves_as_found {
            true => *self.cold_from.get_mut(),
            false => 0,
        };
        let keeps = self.keeps_pages || *self.goes.get_mut() || from >= self.sealed.bytes;
        if !keeps && let Err(error) = self.file.drop_cache_of(from..u64::MAX) {
            tracing::warn!(segment = %self.entry.id, %error, "pages could not be dropped");
        }
    }
}

impl Source {
    pub fn open(
        parts: &RewriteParts,
        log: &LogCell,
        entry: SegmentEntry,
        sealed: Sealed,
    ) -> Result<Source, RewriteError> {
        let id = entry.id;
        let io = |source| {
            // It may have gone away since the manifest was looked at.
            let gone = live(log, id).err();
            gone.unwrap_or(RewriteError::Io {
                segment: id,
                source,
            })
        };
        let data = &parts.files.data;
        let directory = data.of_log(log.id());
        let file = data
            .disk()
            .open(&id.log_path(&directory), OpenHow::Read)
            .map_err(io)?;
        file.read_no_further();
        let len = file.len().map_err(io)?;
        if len != sealed.bytes {
            return Err(RewriteError::Damaged {
                segment: id,
                position: len.min(sealed.bytes),
                reason: format!(
                    "the file has {len} bytes, it was sealed with {}",
                    sealed.bytes
                ),
            });
        }
        let index = index_of(parts, log.id(), id, sealed.bytes);
        Ok(Source {
            keeps_pages: parts.files.cache.is_open(log.id(), id),
            leaves_as_found: false,
            cold_from: AtomicU64::new(u64::MAX),
            goes: AtomicBool::new(false),
            entry,
            sealed,
            file,
            index,
        })
    }

    /// Another segment takes its place: its pages go with its file.
    pub fn goes(&self) {
        self.goes.store(true, Relaxed);
    }

    pub fn batches(self: &Arc<Source>) -> Batches {
        let base = self.entry.id.base;
        Batches {
            source: Arc::clone(self),
            window: Bytes::new(),
            window_start: 0,
            used: VecDeque::new(),
            position: 0,
            read_end: self.sealed.bytes,
            ahead: Ahead::default(),
            is_cold: false,
            next_offset: base,
            block: 0,
            heads: crc32fast::Hasher::new(),
        }
    }
}

/// What a segment's index file says; None if it is missing or damaged.
pub(crate) fn index_of(
    parts: &RewriteParts,
    log: LogId,
    id: SegmentId,
    bytes: u64,
) -> Option<IndexFile> {
    let data = &parts.files.data;
    match read_index_file(data.disk(), &data.of_log(log), log, id, bytes) {
        Ok(Ok(found)) => Some(found),
        Ok(Err(reason)) => {
            tracing::warn!(%log, segment = %id, reason, "an index is unusable: the segment is read without it");
            None
        }
        Err(error) => {
            tracing::warn!(%log, segment = %id, %error, "an index cannot be read: the segment is read without it");
            None
        }
    }
}

/// A batch that was found sound.
#[derive(Debug)]
pub(crate) struct Found {
    pub header: BatchHeader,
    pub bytes: Bytes,
    /// When the broker appended it, or a later batch of its block.
    pub append_time: Timestamp,
    /// Whether its segment ends with it.
    pub is_last: bool,
}

/// Walks over the batches of a segment.
#[derive(Debug)]
pub(crate) struct Batches {
    source: Arc<Source>,
    /// What is in memory of the file, from `window_start` on.
    window: Bytes,
    window_start: u64,
    /// Windows of before, of which somebody may still have batches.
    used: VecDeque<Bytes>,
    position: u64,
    /// No byte from here on is read beforehand.
    read_end: u64,
    ahead: Ahead,
    /// Some of it was not in memory, so that the disk is told what comes next: of what is there that costs more than to read it.
    is_cold: bool,
    next_offset: Offset,
    /// The block of the index that the walk is in.
    block: usize,
    heads: crc32fast::Hasher,
}

impl Batches {
    fn index(&self) -> Option<&SegmentIndex> {
        self.source.index.as_ref().map(|file| &file.index)
    }

    /// The next batch. None at the end, which is where the segment ends.
    pub fn next_batch(&mut self, pace: &dyn Pace) -> Result<Option<Found>, RewriteError> {
        if self.bytes_left() == 0 {
            return self.check_end();
        }
        let bytes = self.take(pace)?;
        let start = self.position;
        let batch = Batch::parse(bytes).map_err(|error| self.damaged(error))?;
        let header = *batch.header();
        self.check_offsets(&header)?;
        let append_time = self.append_time();
        self.next_offset = header.next_offset();
        self.position = start + header.total_bytes() as u64;
        let bytes = batch.into_bytes();
        self.check_heads(&bytes)?;
        Ok(Some(Found {
            header,
            bytes,
            append_time,
            is_last: self.bytes_left() == 0,
        }))
    }

    /// Goes on at the first of some blocks, unless it is behind that already, and reads no others beforehand.
    fn go_to(&mut self, blocks: &Range<u32>) {
        let Some(index) = self.index() else { return };
        let count = index.blocks().len();
        let (first, end) = (blocks.start as usize, (blocks.end as usize).min(count));
        if first >= end || end <= self.block {
            return;
        }
        let read_end = index.block_end(end - 1);
        let position = u64::from(index.blocks()[first].position);
        let offset = index.block_offset(first);
        self.read_end = read_end;
        if first > self.block {
            (self.position, self.next_offset, self.block) = (position, offset, first);
            self.heads = crc32fast::Hasher::new();
        }
    }

    /// How much of the segment was not shown.
    pub fn bytes_left(&self) -> u64 {
        self.source.sealed.bytes - self.position
    }

    fn check_end(&self) -> Result<Option<Found>, RewriteError> {
        let (found, expected) = (self.next_offset, self.source.sealed.end_offset);
        if found == expected {
            return Ok(None);
        }
        Err(self.damaged(format!(
            "the batches end at offset {found}, expected {expected}"
        )))
    }

    /// Offsets follow one another, or rise, and stay inside their block of the index: they stand outside the batch's checksum.
    fn check_offsets(&self, header: &BatchHeader) -> Result<(), RewriteError> {
        let (base, next) = (header.base(), self.next_offset);
        if !self.source.entry.kind.may_follow(next, base) {
            return Err(self.damaged(format!("base offset {base}, expected {next}")));
        }
        let limit = match self.index() {
            Some(index)
                if self.source.entry.kind == SegmentKind::Sparse
                    && self.block + 1 < index.blocks().len() =>
            {
                index.block_offset(self.block + 1)
            }
            _ => self.source.sealed.end_offset,
        };
        if header.next_offset() > limit {
            let reason = format!(
                "the batch ends at offset {}, past {limit}",
                header.next_offset()
            );
            return Err(self.damaged(reason));
        }
        Ok(())
    }

    fn append_time(&self) -> Timestamp {
        let block = self
            .index()
            .and_then(|index| index.blocks().get(self.block));
        block.map_or(self.source.sealed.last_append_time, |block| {
            block.append_time
        })
    }

    /// At the end of a block: the heads of its batches are those that were indexed.
    fn check_heads(&mut self, batch: &Bytes) -> Result<(), RewriteError> {
        let Some(index) = self.index() else {
            return Ok(());
        };
        let end = index.block_end(self.block);
        let expected = index.blocks()[self.block].heads_checksum;
        self.heads.update(&batch[..HEAD_BYTES]);
        if self.position < end {
            return Ok(());
        }
        let computed = std::mem::take(&mut self.heads).finalize();
        if self.position > end || computed != expected {
            return Err(self.damaged(format!(
                "crc mismatch of the batch heads of the block that ends at position {end}"
            )));
        }
        self.block += 1;
        Ok(())
    }

    /// The bytes of the batch at the walk's position.
    fn take(&mut self, pace: &dyn Pace) -> Result<Bytes, RewriteError> {
        let left = self.bytes_left();
        if left < HEADER_BYTES as u64 {
            return Err(self.damaged(format!("{left} bytes are too few for a batch")));
        }
        if self.in_window().len() < HEADER_BYTES {
            self.read(HEADER_BYTES, pace)?;
        }
        let len = peek_len(&self.window[self.in_window()]).filter(|len| *len as u64 <= left);
        let Some(len) = len.filter(|len| *len >= HEADER_BYTES) else {
            return Err(self.damaged(format!(
                "the batch's length is impossible, {left} bytes are left"
            )));
        };
        if self.in_window().len() < len {
            self.read(len, pace)?;
        }
        let at = self.in_window().start;
        Ok(self.window.slice(at..at + len))
    }

    /// Where in the window what follows the position lies; nothing if the position is outside.
    fn in_window(&self) -> Range<usize> {
        let at = self.position - self.window_start;
        let at = usize::try_from(at).map_or(self.window.len(), |at| at.min(self.window.len()));
        at..self.window.len()
    }

    /// Has the disk begin with what is read after `next`: a piece, or several where nobody else waits for the disk.
    fn tell_what_follows(&mut self, next: u64, piece: u64) {
        let pieces = match piece {
            WHOLE_PIECE => PIECES_AHEAD,
            _ => 1,
        };
        let end = (next + pieces * piece).min(self.read_end);
        self.ahead.tell(&*self.source.file, next..end);
    }

    /// Puts what follows the position into the window: `least` bytes or more, or what is left.
    fn read(&mut self, least: usize, pace: &dyn Pace) -> Result<(), RewriteError> {
        let left = self.bytes_left();
        let ahead = self.read_end.saturating_sub(self.position);
        let piece = pace.piece_bytes();
        let count = usize::try_from(ahead).map_or(piece, |ahead| ahead.min(piece));
        let count = count.max(least);
        let count = usize::try_from(left).map_or(count, |left| left.min(count));
        let mut buffer = self.unused();
        buffer.resize(count, 0);
        let segment = self.source.entry.id;
        let io = |source| RewriteError::Io { segment, source };
        let file = &self.source.file;
        let known = match self.is_cold {
            true => 0,
            false => file.read_at_now(self.position, &mut buffer).unwrap_or(0),
        };
        if known < count {
            self.is_cold = true;
            let cold_from = self.position + known as u64;
            self.source.cold_from.fetch_min(cold_from, Relaxed);
        }
        file.read_exact_at(self.position + known as u64, &mut buffer[known..])
            .map_err(io)?;
        self.window = buffer.freeze();
        self.window_start = self.position;
        if self.is_cold {
            self.tell_what_follows(self.position + count as u64, piece as u64);
        }
        pace.spend(count as u64)?;
        Ok(())
    }

    /// The memory of a window of before, if nobody has a batch of it any more.
    fn unused(&mut self) -> BytesMut {
        if !self.window.is_empty() {
            self.used.push_back(std::mem::take(&mut self.window));
        }
        for _ in 0..self.used.len() {
            let Some(window) = self.used.pop_front() else {
                break;
            };
            match window.try_into_mut() {
                Ok(buffer) => return buffer,
                Err(window) => self.used.push_back(window),
            }
        }
        if self.used.len() > WINDOWS_MAX {
            self.used.pop_front();
        }
        BytesMut::new()
    }

    fn damaged(&self, reason: impl ToString) -> RewriteError {
        RewriteError::Damaged {
            segment: self.source.entry.id,
            position: self.position,
            reason: reason.to_string(),
        }
    }
}
