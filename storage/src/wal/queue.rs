//! The queue before the committer: what waits to become durable, in the order of the offsets.
//!
//! Callers: logs push under their own lock, so that the queue has the order of each log's offsets; the committer takes what goes
//! into the next frame. Admissions bound its bytes, see `gate`.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use model::batch::STAMP_BYTES;
use model::{Offset, Timestamp};
use tokio::sync::oneshot;

use super::format::{EntryKind, FRAME_ENTRIES_MAX, FRAME_ENTRY_BYTES, FrameEntry};
use super::gate::Admission;
use crate::error::{AppendError, StorageFailed};
use crate::io::Clock;
use crate::log::LogCell;

/// One thing to make durable.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Whose; None only for [`Work::None`].
    pub log: Option<Arc<LogCell>>,
    pub work: Work,
    /// Told when it is durable.
    pub ack: Option<oneshot::Sender<Result<(), StorageFailed>>>,
    /// Given back then.
    pub admission: Option<Admission>,
    /// Whether it goes into the same frame as the one before it: they are one group.
    pub joins_previous: bool,
}

/// What is to be made durable.
#[derive(Debug)]
pub(crate) enum Work {
    /// A batch: its first bytes with offset and epoch stamped, and the rest as it came.
    Batch {
        head: [u8; STAMP_BYTES],
        bytes: Bytes,
        base: Offset,
        next: Offset,
        max_timestamp: Timestamp,
        os: bool,
    },
    /// The log's start moves.
    StartRaised { start: Offset },
    /// Nothing of its own: acknowledged when all that came before is.
    None,
}

impl Pending {
    /// A log's work, that nobody is told of yet.
    pub fn of(log: &Arc<LogCell>, work: Work) -> Pending {
        Pending {
            log: Some(Arc::clone(log)),
            work,
            ack: None,
            admission: None,
            joins_previous: false,
        }
    }

    /// Nothing but an acknowledgement, when all that came before is durable.
    pub fn behind_all(
        ack: oneshot::Sender<Result<(), StorageFailed>>,
        admission: Option<Admission>,
    ) -> Pending {
        Pending {
            log: None,
            work: Work::None,
            ack: Some(ack),
            admission,
            joins_previous: false,
        }
    }

    /// Tells who waits that it will not become durable.
    pub fn refuse(self, failure: &StorageFailed) {
        if let Some(ack) = self.ack {
            // Whoever asked may have gone: then nobody waits for the answer.
            let _ = ack.send(Err(failure.clone()));
        }
    }

    /// Its entry in the frame's table; None if it has none.
    pub fn entry(&self) -> Option<FrameEntry> {
        let log = || self.log.as_ref().expect("work has a log").id();
        match &self.work {
            Work::Batch {
                bytes, base, next, ..
            } => Some(FrameEntry {
                log: log(),
                kind: EntryKind::Batch,
                offset: *base,
                bytes: u32::try_from(bytes.len()).expect("a batch's length is an i32"),
                offsets: u32::try_from(next.since(*base))
                    .expect("a batch's last offset delta is an i32"),
            }),
            Work::StartRaised { start } => Some(FrameEntry {
                log: log(),
                kind: EntryKind::StartRaised,
                offset: *start,
                bytes: 0,
                offsets: 0,
            }),
            Work::None => None,
        }
    }
}

impl Work {
    /// What it takes in a frame: its entry in the table, and the batch.
    pub fn frame_bytes(&self) -> usize {
        match self {
            Work::Batch { bytes, .. } => FRAME_ENTRY_BYTES + bytes.len(),
            Work::StartRaised { .. } => FRAME_ENTRY_BYTES,
            Work::None => 0,
        }
    }

    /// Whether a sync has to return before it is acknowledged. `unsynced`: something before it was written without one.
    pub fn needs_sync(&self, unsynced: bool) -> bool {
        match self {
            Work::Batch { os, .. } => !os,
            Work::StartRaised { .. } => true,
            Work::None => unsynced,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct AppendQueue {
    items: Mutex<Items>,
    arrived: Condvar,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct Items {
    pending: VecDeque<Pending>,
    /// Since when each of them waits.
    since: VecDeque<Duration>,
    closed: bool,
}

impl AppendQueue {
    pub fn new(clock: Arc<dyn Clock>) -> AppendQueue {
        AppendQueue {
            items: Mutex::default(),
            arrived: Condvar::new(),
            clock,
        }
    }

    fn locked(&self) -> MutexGuard<'_, Items> {
        self.items
            .lock()
            .expect("nothing panics while it holds the queue")
    }

    /// Queues work in order. The caller holds its log's lock.
    pub fn push(&self, pending: impl IntoIterator<Item = Pending>) -> Result<(), AppendError> {
        let mut items = self.locked();
        if items.closed {
            return Err(AppendError::Closed);
        }
        let was_empty = items.pending.is_empty();
        let now = self.clock.monotonic();
        items.pending.extend(pending);
        let count = items.pending.len();
        items.since.resize(count, now);
        drop(items);
        if was_empty {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Takes no more work. What is queued is still done.
    pub fn close(&self) {
        self.locked().closed = true;
        self.arrived.notify_all();
    }

    pub fn is_closed(&self) -> bool {
        self.locked().closed
    }

    /// Takes no more work, and refuses what is queued.
    pub fn refuse_all(&self, failure: &StorageFailed) {
        let mut items = self.locked();
        items.closed = true;
        let rest = std::mem::take(&mut items.pending);
        items.since.clear();
        drop(items);
        rest.into_iter().for_each(|pending| pending.refuse(failure));
    }

    /// Waits for work. With `idle` no longer than that. None when there will be none, false if none came in time.
    pub fn wait(&self, idle: Option<Duration>) -> Option<bool> {
        let mut items = self.locked();
        while items.pending.is_empty() && !items.closed {
            let Some(idle) = idle else {
                items = self
                    .arrived
                    .wait(items)
                    .expect("nothing panics while it holds the queue");
                continue;
            };
            let (again, waited) = self
                .arrived
                .wait_timeout(items, idle)
                .expect("nothing panics while it holds the queue");
            items = again;
            if waited.timed_out() && items.pending.is_empty() && !items.closed {
                return Some(false);
            }
        }
        (!items.pending.is_empty()).then_some(true)
    }

    /// Takes what goes into the next frame: no more than `bytes_max`, but for a single batch or group that is larger, so that
    /// every frame fits into half a file of the WAL. A group is never cut. `note` hears, before the queue can be looked at
    /// without them, since when the oldest one waits.
    pub fn take(&self, bytes_max: usize, note: impl FnOnce(Duration)) -> Vec<Pending> {
        let mut items = self.locked();
        let count = count_of_frame(&items.pending, bytes_max);
        assert!(
            items
                .pending
                .get(count)
                .is_none_or(|next| !next.joins_previous),
            "the queue is cut around a group"
        );
        assert!(
            items.since.len() == items.pending.len(),
            "each of the queue knows since when it waits"
        );
        if let Some(oldest) = items.since.drain(..count).next() {
            note(oldest);
        }
        items.pending.drain(..count).collect()
    }

    /// Since when the first one waits. `beside` is looked at while nothing can be taken.
    pub fn oldest_since<T>(&self, beside: impl FnOnce() -> T) -> (Option<Duration>, T) {
        let items = self.locked();
        (items.since.front().copied(), beside())
    }
}

/// How many from the front make the next frame.
fn count_of_frame(pending: &VecDeque<Pending>, bytes_max: usize) -> usize {
    let (mut count, mut bytes) = (0, 0);
    while let Some(first) = pending.get(count) {
        let joined = pending.range(count + 1..);
        let joined = joined.take_while(|pending| pending.joins_previous);
        let (mut group, mut group_bytes) = (1, first.work.frame_bytes());
        for pending in joined {
            group += 1;
            group_bytes += pending.work.frame_bytes();
        }
        let fits = bytes + group_bytes <= bytes_max && count + group <= FRAME_ENTRIES_MAX;
        if count > 0 && !fits {
            break;
        }
        (count, bytes) = (count + group, bytes + group_bytes);
    }
    assert!(
        count <= FRAME_ENTRIES_MAX,
        "a group has no more entries than a frame"
    );
    count
}
