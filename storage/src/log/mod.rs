//! One partition's log: its bounds, the index of its tail in the WAL, and how it is appended to and read.
//!
//! Callers: the broker, through [`crate::Storage::log`]. A log holds what it uses: its state (`cell`, which the committer and
//! the settler share), the WAL that it appends to, and the reader of what has settled.
//! Invariant: `start <= durable_end <= end`, `settled_end <= durable_end`; offsets continue from entry to entry, but over
//! ranges that are marked as damaged. No reader is given anything past the durable end. The log's lock is short: no
//! file is touched under it.

mod append;
mod append_all;
mod cell;
mod dirty;
mod read;
mod scan;
mod scan_blocks;
mod segments;
mod settings;
mod settled;
mod state;
mod tail;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard};

use model::{LogId, Offset, ProducerId};

use crate::io::Disk;
use crate::producers::{ProducerLimits, ProducerState};
use crate::waiter::Waiter;
use crate::wal::Wal;

pub use self::append::{Appended, Durable};
pub use self::append_all::{AppendedAll, LogAppend, ToldLog};
pub(crate) use self::append_all::{append_all, append_all_telling};
pub(crate) use self::cell::LogCell;
pub(crate) use self::dirty::DirtyLogs;
pub use self::read::Chunk;
pub use self::scan::{GapReason, LogScan, ScanCounts, ScanRange, Scanned};
pub(crate) use self::segments::{ActiveView, Segments};
pub use self::settings::{Bounds, LogSettings};
pub(crate) use self::settled::SettledReader;
pub(crate) use self::state::LogState;
pub(crate) use self::tail::TailEntry;

/// What all logs of a store use.
#[derive(Debug)]
pub(crate) struct LogParts {
    /// To append.
    pub wal: Arc<Wal>,
    /// To read what has settled.
    pub settled: SettledReader,
    /// How many idempotent producers are remembered.
    pub producers: Arc<ProducerLimits>,
}

/// One partition's log.
pub struct Log {
    cell: Arc<LogCell>,
    parts: Arc<LogParts>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

impl Log {
    pub(crate) fn new(cell: Arc<LogCell>, parts: Arc<LogParts>) -> Log {
        Log { cell, parts }
    }

    pub(crate) fn cell(&self) -> &Arc<LogCell> {
        &self.cell
    }

    /// The disk, and the directory of the log's files.
    pub(crate) fn place(&self) -> (&dyn Disk, PathBuf) {
        let data = &self.parts.settled.files.data;
        (data.disk(), data.of_log(self.id()))
    }

    fn locked(&self) -> MutexGuard<'_, LogState> {
        self.cell.locked()
    }

    /// Which partition this is.
    pub fn id(&self) -> LogId {
        self.cell.id()
    }

    /// Where the log begins and ends now.
    pub fn bounds(&self) -> Bounds {
        self.cell.bounds()
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<LogSettings> {
        Arc::clone(&self.locked().settings)
    }

    /// Bytes of its batches, in segments and tail.
    pub fn size_bytes(&self) -> u64 {
        let state = self.locked();
        state.segments.bytes() + state.tail_bytes
    }

    /// Ranges of acknowledged offsets that were found damaged.
    pub fn damaged(&self) -> Vec<Range<Offset>> {
        self.locked().damaged.clone()
    }

    /// How many idempotent producers are remembered.
    pub fn producer_count(&self) -> usize {
        self.locked().producers.len()
    }

    /// Whether an idempotent producer is remembered.
    pub fn knows_producer(&self, id: ProducerId) -> bool {
        self.locked().producers.get(id).is_some()
    }

    /// The ids of those that are remembered, in no order.
    pub(crate) fn producer_ids(&self) -> Vec<ProducerId> {
        self.locked().producers.iter().map(|(id, _)| id).collect()
    }

    /// The idempotent producers that are remembered, in order of their ids.
    pub fn producers(&self) -> Vec<(ProducerId, ProducerState)> {
        let state = self.locked();
        let mut producers: Vec<_> = state
            .producers
            .iter()
            .map(|(id, producer)| (id, producer.clone()))
            .collect();
        producers.sort_unstable_by_key(|(id, _)| *id);
        producers
    }

    /// Registers a waiter for one wake: when the durable end or the start moves, or the log is deleted. Register first,
    /// then look at the log, then wait: so no move is missed.
    pub fn watch(&self, waiter: &Arc<Waiter>) {
        self.cell.watch(waiter);
    }

    /// How often what [`Log::watch`] tells of has happened. Taken before a look at the log: while it is the same, another
    /// look would find the same, and a waiter that was registered after it was taken is registered still. Takes no lock.
    pub fn moves(&self) -> u64 {
        self.cell.moves()
    }
}
