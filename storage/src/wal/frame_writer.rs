//! The frame writer: puts what the committer took into one frame of the current file, and syncs it.
//!
//! Owned by the committer. Invariants: frames lie one behind the other and rise by one; a frame fits into its file; what a sync
//! covers is durable, and everything below `durable_frame` is.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use model::batch::STAMP_BYTES;
use model::{LeaderEpoch, Timestamp};
use uuid::Uuid;

use super::format::{
    FRAME_ALIGNMENT_BYTES, FRAME_ENTRIES_MAX, FRAME_HEAD_BYTES, FrameEntry, FrameHead, encode_head,
    file_units,
};
use super::pool::WalFile;
use super::queue::{Pending, Work};
use super::stall::Stall;
use crate::error::StorageFailed;
use crate::io::Clock;
use crate::metrics::Counters;
use crate::steady::SteadyTime;

/// Batches up to this size are copied into the frame's own buffer, where they cost less than a slice of their own.
const COPY_BYTES_MAX: usize = 2048;
/// Zeros to pad a frame with.
static PADDING: [u8; FRAME_ALIGNMENT_BYTES as usize] = [0; FRAME_ALIGNMENT_BYTES as usize];

/// How far the WAL is written and durable: what the settler and the checkpoint go by.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// Every file that may hold something unsettled, in order; the last one is being written.
    pub files: Vec<Arc<WalFile>>,
    /// Where the next frame goes in the last file.
    pub position: u64,
    /// The next frame's number.
    pub frame: u64,
}

impl Progress {
    /// The file that is being written.
    pub fn current(&self) -> &Arc<WalFile> {
        self.files.last().expect("there is always a file to write")
    }
}

/// What each frame says of its store.
#[derive(Clone, Debug)]
pub(crate) struct FrameStamp {
    pub store: Uuid,
    pub leader_epoch: LeaderEpoch,
    /// Gives the append times.
    pub steady: Arc<SteadyTime>,
}

/// Where a frame went.
#[derive(Debug)]
pub(super) struct Written {
    pub file: Arc<WalFile>,
    pub batches_position: u64,
    pub batch_bytes: u64,
    pub append_time: Timestamp,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    stamp: FrameStamp,
    clock: Arc<dyn Clock>,
    stall: Arc<Stall>,
    counters: Arc<Counters>,
    progress: Progress,
    /// The first frame that is not known to be durable.
    durable_frame: u64,
    /// Whether something was written that no sync has covered.
    unsynced: bool,
    /// Whether the last frame holds something that no later frame says was durable.
    is_unconfirmed: bool,
    head: Vec<u8>,
}

impl FrameWriter {
    pub fn new(
        stamp: FrameStamp,
        clock: Arc<dyn Clock>,
        stall: Arc<Stall>,
        counters: Arc<Counters>,
        progress: Progress,
    ) -> FrameWriter {
        assert!(
            progress.position.is_multiple_of(FRAME_ALIGNMENT_BYTES)
                && progress.position <= progress.current().bytes,
            "a start goes on at a whole block of its file"
        );
        let durable_frame = progress.frame;
        FrameWriter {
            stamp,
            clock,
            stall,
            counters,
            progress,
            durable_frame,
            unsynced: false,
            is_unconfirmed: false,
            head: Vec::new(),
        }
    }

    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(super) fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    pub(super) fn is_unconfirmed(&self) -> bool {
        self.is_unconfirmed
    }

    /// Bytes that are left in the current file.
    pub(super) fn remaining(&self) -> u64 {
        let file = self.progress.current();
        assert!(
            self.progress.position <= file.bytes,
            "frames lie within their file"
        );
        file.bytes - self.progress.position
    }

    /// Goes on at the front of a new file. What the old one holds was synced: later syncs do not cover it.
    pub(super) fn go_on_in(&mut self, file: Arc<WalFile>) {
        assert!(!self.unsynced, "a file is left when all of it is durable");
        assert!(
            file.sequence > self.progress.current().sequence,
            "files are written in the order of their sequences"
        );
        self.progress.files.push(file);
        self.progress.position = 0;
    }

    /// Takes the files below `sequence` off the list: they have settled.
    pub(super) fn release_files(&mut self, sequence: u64) -> Vec<Arc<WalFile>> {
        let is_settled = |file: &&Arc<WalFile>| file.sequence < sequence;
        let count = self.progress.files.iter().take_while(is_settled).count();
        assert!(
            count < self.progress.files.len(),
            "the file that is being written has not settled"
        );
        self.progress.files.drain(..count).collect()
    }

    /// Frames, writes and, unless all of it is `durability=os`, syncs.
    pub(super) fn write(&mut self, pending: &[Pending]) -> Result<Written, StorageFailed> {
        let entries: Vec<FrameEntry> = pending.iter().filter_map(Pending::entry).collect();
        let needs_sync = pending
            .iter()
            .any(|pending| pending.work.needs_sync(self.unsynced));
        if entries.is_empty() {
            // Nothing of its own: it waits for nothing but the frames before it.
            if needs_sync {
                self.sync()?;
            }
            return Ok(Written {
                file: Arc::clone(self.progress.current()),
                batches_position: self.progress.position,
                batch_bytes: 0,
                append_time: self.stamp.steady.now(),
            });
        }
        self.write_frame(pending, &entries, needs_sync)
    }

    /// Writes and syncs a frame without entries: it carries the leader epoch, and says what was durable before it.
    pub(super) fn write_empty(&mut self) -> Result<(), StorageFailed> {
        self.write_frame(&[], &[], true).map(drop)
    }

    fn write_frame(
        &mut self,
        pending: &[Pending],
        entries: &[FrameEntry],
        needs_sync: bool,
    ) -> Result<Written, StorageFailed> {
        let file = Arc::clone(self.progress.current());
        let position = self.progress.position;
        let batches = Batches::gather(pending);
        let frame = self.head_of(&file, entries, batches.crc);
        assert!(
            position + frame.padded_bytes() <= file.bytes,
            "there is room for the frame before it is written"
        );
        assert!(
            frame.batch_bytes == batches.bytes,
            "the table and the batches have the same length"
        );
        encode_head(&frame, entries, &mut self.head);
        let padding =
            usize::try_from(frame.padded_bytes() - frame.plain_bytes()).expect("less than a block");
        let mut slices = Vec::with_capacity(batches.runs.len() + 2);
        slices.push(IoSlice::new(&self.head));
        slices.extend(batches.slices());
        if padding > 0 {
            slices.push(IoSlice::new(&PADDING[..padding]));
        }
        file.file
            .write_vectored_at(position, &slices)
            .map_err(|error| failed(&format!("write at {position} to"), &file, &error))?;
        self.progress.position += frame.padded_bytes();
        self.progress.frame += 1;
        assert!(
            self.progress.position.is_multiple_of(FRAME_ALIGNMENT_BYTES),
            "frames begin at whole blocks"
        );
        self.is_unconfirmed = !entries.is_empty();
        self.unsynced = true;
        if needs_sync {
            self.sync()?;
        }
        self.counters.frame(frame.batch_bytes, needs_sync);
        Ok(Written {
            batches_position: position + frame.table_end(),
            batch_bytes: frame.batch_bytes,
            append_time: frame.append_time,
            file,
        })
    }

    fn head_of(&self, file: &WalFile, entries: &[FrameEntry], batch_crc: u32) -> FrameHead {
        assert!(
            entries.len() <= FRAME_ENTRIES_MAX,
            "the queue cuts frames at the most entries"
        );
        assert!(
            self.durable_frame <= self.progress.frame,
            "only what was written is durable"
        );
        FrameHead {
            store: self.stamp.store,
            file_sequence: file.sequence,
            file_units: file_units(file.bytes),
            sequence: self.progress.frame,
            durable_sequence: self.durable_frame,
            append_time: self.stamp.steady.now(),
            leader_epoch: self.stamp.leader_epoch,
            entry_count: u32::try_from(entries.len()).expect("capped"),
            batch_bytes: entries.iter().map(|entry| u64::from(entry.bytes)).sum(),
            batch_crc,
        }
    }

    pub(super) fn sync(&mut self) -> Result<(), StorageFailed> {
        let file = self.progress.current();
        let began = self.clock.monotonic();
        file.file
            .sync_data()
            .map_err(|error| failed("sync of", file, &error))?;
        self.stall
            .synced(self.clock.monotonic().saturating_sub(began));
        self.durable_frame = self.progress.frame;
        self.unsynced = false;
        Ok(())
    }
}

/// The length of the frame that these make; 0 if none of them has an entry, and there is no frame.
pub(super) fn padded_bytes(pending: &[Pending]) -> u64 {
    let bytes: usize = pending
        .iter()
        .map(|pending| pending.work.frame_bytes())
        .sum();
    if bytes == 0 {
        return 0;
    }
    ((FRAME_HEAD_BYTES + bytes) as u64).next_multiple_of(FRAME_ALIGNMENT_BYTES)
}

fn failed(what: &str, file: &WalFile, error: &io::Error) -> StorageFailed {
    StorageFailed::new(format!("{what} {}: {error}", file.path.display()))
}

/// A frame's batches as they are written: small ones copied next to each other, large ones as they lie.
struct Batches<'a> {
    runs: Vec<Run<'a>>,
    copies: Vec<u8>,
    crc: u32,
    bytes: u64,
}

enum Run<'a> {
    Copied(Range<usize>),
    Borrowed(&'a [u8]),
}

impl<'a> Batches<'a> {
    fn gather(pending: &'a [Pending]) -> Batches<'a> {
        let mut crc = crc32fast::Hasher::new();
        let mut copies = Vec::new();
        let mut runs: Vec<Run<'_>> = Vec::with_capacity(pending.len());
        let mut length = 0;
        for pending in pending {
            let Work::Batch { head, bytes, .. } = &pending.work else {
                continue;
            };
            let rest = &bytes[STAMP_BYTES..];
            length += bytes.len() as u64;
            crc.update(head);
            crc.update(rest);
            let start = copies.len();
            copies.extend_from_slice(head);
            if rest.len() <= COPY_BYTES_MAX {
                copies.extend_from_slice(rest);
            }
            match runs.last_mut() {
                Some(Run::Copied(range)) => range.end = copies.len(),
                _ => runs.push(Run::Copied(start..copies.len())),
            }
            if rest.len() > COPY_BYTES_MAX {
                runs.push(Run::Borrowed(rest));
            }
        }
        Batches {
            runs,
            copies,
            crc: crc.finalize(),
            bytes: length,
        }
    }

    fn slices(&self) -> impl Iterator<Item = IoSlice<'_>> {
        self.runs.iter().map(|run| match run {
            Run::Copied(range) => IoSlice::new(&self.copies[range.clone()]),
            Run::Borrowed(bytes) => IoSlice::new(bytes),
        })
    }
}
