//! One partition's log: its bounds, the index of its tail in the WAL, and how it is appended to and read.
//!
//! Callers: the broker, through [`crate::Storage::log`]; the committer publishes, the settler moves the tail into segments.
//! Invariant: `start <= durable_end <= end`, `settled_end <= durable_end`; offsets continue from entry to entry, but over
//! ranges that are marked as damaged. No reader is given anything past the durable end. The log's lock is short: no
//! file is touched under it.

mod append;
mod read;
pub(crate) mod segments;
mod settings;
mod state;
mod tail;

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use model::{LogId, Offset, ProducerId, Timestamp};

use self::segments::Segments;
use crate::epochs::Epochs;
use crate::producers::{ProducerState, Producers};
use crate::storage::Shared;
use crate::waiter::{Waiter, Watchers};

pub use self::append::{AppendBatch, Appended, Durable};
pub use self::read::Chunk;
pub use self::settings::{Bounds, LogSettings};
pub(crate) use self::state::{LogState, PRODUCER_IDLE_MS};
pub(crate) use self::tail::TailEntry;

/// One partition's log.
pub struct Log {
    id: LogId,
    shared: Weak<Shared>,
    state: Mutex<LogState>,
    watchers: Watchers,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Log {
    pub(crate) fn new(
        id: LogId,
        shared: Weak<Shared>,
        settings: Arc<LogSettings>,
        at: Bounds,
    ) -> Log {
        let state = LogState {
            settings,
            bounds: at,
            tail: VecDeque::new(),
            tail_bytes: 0,
            producers: Producers::default(),
            producers_scanned_at: Timestamp::from_millis(i64::MIN),
            epochs: Epochs::default(),
            segments: Segments::default(),
            damaged: Vec::new(),
            deleted: false,
            dirty: false,
            seal: false,
        };
        Log {
            id,
            shared,
            state: Mutex::new(state),
            watchers: Watchers::default(),
        }
    }

    pub(crate) fn locked(&self) -> MutexGuard<'_, LogState> {
        self.state
            .lock()
            .expect("nothing panics while it holds a log")
    }

    /// The same log, of a store that is open now.
    pub(crate) fn owned_by(self, shared: Weak<Shared>) -> Log {
        Log { shared, ..self }
    }

    fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.upgrade()
    }

    /// Which partition this is.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// Where the log begins and ends now.
    pub fn bounds(&self) -> Bounds {
        self.locked().bounds
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
        self.watchers.add(waiter);
    }

    /// A batch has reached the disk as its topic's durability asks: show it to readers. True if the settler does not know
    /// yet that this log has something to settle.
    pub(crate) fn publish(&self, entry: TailEntry) -> bool {
        let mut state = self.locked();
        if state.deleted {
            return false;
        }
        assert!(
            entry.base >= state.bounds.durable_end,
            "a log is published in the order of its offsets"
        );
        state.bounds.durable_end = entry.next;
        assert!(
            entry.next <= state.bounds.end,
            "only what has offsets is published"
        );
        state.tail_bytes += u64::from(entry.bytes);
        state.tail.push_back(entry);
        let newly_dirty = !std::mem::replace(&mut state.dirty, true);
        drop(state);
        self.watchers.wake_all();
        newly_dirty
    }

    /// The raised start is durable: readers below it are told. True as for [`Log::publish`].
    pub(crate) fn publish_start(&self, start: Offset) -> bool {
        let mut state = self.locked();
        if state.deleted || start <= state.bounds.start {
            return false;
        }
        state.raise_start(start);
        let newly_dirty = !std::mem::replace(&mut state.dirty, true);
        drop(state);
        self.watchers.wake_all();
        newly_dirty
    }

    /// The active segment is to be sealed, so that retention can remove it.
    pub(crate) fn ask_for_seal(&self) {
        self.locked().seal = true;
    }

    /// No reader and no writer gets anything from the log any more.
    pub(crate) fn mark_deleted(&self) {
        let mut state = self.locked();
        state.deleted = true;
        state.tail.clear();
        state.tail_bytes = 0;
        drop(state);
        self.watchers.wake_all();
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.locked().deleted
    }

    pub(crate) fn set_settings(&self, settings: Arc<LogSettings>) {
        self.locked().settings = settings;
    }
}
