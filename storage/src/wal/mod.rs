//! The write-ahead log: what is durable first. Frames in zero-filled, recycled files; its tail is served from its own map.
//!
//! An append passes the `gate` (backpressure), waits in the `queue` for the `committer` (group commit: one frame, one sync), and
//! is published. `pool` keeps files ready and takes them back from the settler; `walk` and `reader` read frames back for
//! recovery and for the offline tools. `Wal` is all of that in one hand: what a log holds.

pub(crate) mod appends;
pub(crate) mod committer;
pub mod format;
pub(crate) mod frame_writer;
pub(crate) mod gate;
pub mod pool;
pub(crate) mod queue;
pub mod reader;
pub mod resume;
pub(crate) mod stall;
pub(crate) mod wakeups;
pub mod walk;

use std::sync::Arc;

use model::{LeaderEpoch, Timestamp};

use self::appends::{Demand, Purpose};
use self::committer::Committer;
use self::frame_writer::FrameStamp;
use self::gate::{Admission, Gate};
use self::queue::{AppendQueue, Pending};
use self::stall::{AppendWaits, Stall};
use crate::error::AppendError;
use crate::io::Clock;

pub use self::pool::{WalFile, WalPool};

/// The write-ahead log of an open store.
#[derive(Debug)]
pub(crate) struct Wal {
    pub pool: Arc<WalPool>,
    pub gate: Arc<Gate>,
    pub committer: Committer,
    pub queue: Arc<AppendQueue>,
    pub stall: Arc<Stall>,
    pub stamp: FrameStamp,
    pub clock: Arc<dyn Clock>,
}

impl Wal {
    /// The leader epoch of this start; batches are stamped with it.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.stamp.leader_epoch
    }

    /// The time by which records age. It does not jump.
    pub fn now(&self) -> Timestamp {
        self.stamp.steady.now()
    }

    /// Waits until so much may be appended, or may not be.
    pub async fn admit(&self, demand: Demand, purpose: Purpose) -> Admission {
        self.stall
            .noting(&*self.clock, self.gate.admit(demand, purpose))
            .await
    }

    /// Queues one piece of work. The caller holds its log's lock, so that the queue has the order of the offsets.
    pub fn push(&self, pending: Pending) -> Result<(), AppendError> {
        self.queue.push([pending])
    }

    /// Queues work in order, all of it for one frame. The caller holds all of its logs' locks.
    pub fn push_group(&self, mut pending: Vec<Pending>) -> Result<(), AppendError> {
        for later in pending.iter_mut().skip(1) {
            later.joins_previous = true;
        }
        self.queue.push(pending)
    }

    /// Queues work in order.
    pub fn push_all(&self, pending: Vec<Pending>) -> Result<(), AppendError> {
        self.queue.push(pending)
    }

    /// How long appends wait now. Never waits for the disk.
    pub fn append_waits(&self) -> AppendWaits {
        self.stall
            .waits(self.clock.monotonic(), self.committer.oldest_since())
    }

    /// Takes no more appends. What is queued is still made durable.
    pub fn close(&self) {
        self.gate.close();
        self.queue.close();
        self.pool.stop();
    }
}
