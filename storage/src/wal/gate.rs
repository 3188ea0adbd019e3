//! The gate before the log: how much may wait for the disk, and whether the disk has room for it.
//!
//! Every append needs an [`Admission`] first. It reserves bytes of the committer's queue, so that memory stays bounded, and
//! room in the WAL's files, so that what has an offset can always be written. Reaching either bound slows the sender down;
//! only a full disk refuses. An append takes no more than its admission has paid for.
//! Invariant: admissions are given in the order in which they were asked for, so that a large one is not overtaken by small
//! ones for ever.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;

use super::appends::{AppendSize, Demand, Purpose, Shape, batch_bytes_max};
use super::pool::WalPool;
use crate::components::{EXIT_CODE_STORAGE_FAILED, OnFailure};
use crate::error::{AppendError, StorageFailed};

/// WAL files that ordinary appends leave to the broker's own records, so that on a full disk something can still be deleted.
pub(crate) const RESERVED_FILES: usize = 1;
/// A disk that was full is told to have space again once it has had it for this long.
const SPACE_AGAIN: Duration = Duration::from_secs(3);

/// Leave to append some bytes, or the reason why not, which the append then answers. Given back when it is dropped, which
/// the committer does after the sync.
#[derive(Debug)]
pub struct Admission {
    gate: Arc<Gate>,
    /// What may be appended with it.
    demand: Demand,
    /// What it has reserved.
    bytes: u64,
    refused: Option<AppendError>,
}

impl Admission {
    /// Why nothing may be appended with it.
    pub(crate) fn refusal(&self) -> Option<&AppendError> {
        self.refused.as_ref()
    }

    /// Whether so much may be appended with it: an append pays for what it lets in.
    pub(crate) fn check(&self, wanted: Demand) -> Result<(), AppendError> {
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        if self.demand.shape == wanted.shape && self.demand.size.holds(wanted.size) {
            return Ok(());
        }
        Err(AppendError::NotAdmitted {
            size: wanted.size,
            admitted: self.demand.size,
        })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut queue = self.gate.locked();
        assert!(
            queue.reserved >= self.bytes,
            "an admission is given back once"
        );
        queue.reserved -= self.bytes;
        drop(queue);
        self.gate.look_again();
    }
}

/// What was reported of the disk.
#[derive(Debug, Default)]
struct Reported {
    is_full: bool,
    /// When the disk turned out to have space again.
    has_space_since: Option<Duration>,
}

/// What the log is to be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiskNews {
    Full,
    SpaceAgain,
}

/// Who waits for an admission.
#[derive(Debug)]
struct Waiting {
    demand: Demand,
    purpose: Purpose,
    admitted: oneshot::Sender<Admission>,
}

#[derive(Debug, Default)]
struct Queue {
    reserved: u64,
    /// In the order in which they came.
    waiting: VecDeque<Waiting>,
}

/// The gate. Shared by everyone who appends.
#[derive(Debug)]
pub(crate) struct Gate {
    queue: Mutex<Queue>,
    queue_bytes_max: u64,
    pool: Arc<WalPool>,
    /// Bytes left in the file that the committer writes.
    current_remaining: AtomicU64,
    settling_is_full: AtomicBool,
    reported: Mutex<Reported>,
    closed: AtomicBool,
    failed: OnceLock<StorageFailed>,
    on_failure: OnFailure,
}

impl Gate {
    pub fn new(pool: Arc<WalPool>, queue_bytes_max: u64, on_failure: OnFailure) -> Gate {
        Gate {
            queue: Mutex::default(),
            queue_bytes_max,
            pool,
            current_remaining: AtomicU64::new(0),
            settling_is_full: AtomicBool::new(false),
            reported: Mutex::default(),
            closed: AtomicBool::new(false),
            failed: OnceLock::new(),
            on_failure,
        }
    }

    fn locked(&self) -> MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .expect("nothing panics while it holds the gate")
    }

    /// The largest batch that a WAL file takes for certain.
    pub fn batch_bytes_max(&self) -> u64 {
        batch_bytes_max(self.pool.file_bytes())
    }

    /// Whether an append of this size can ever be admitted.
    pub fn takes(&self, demand: Demand) -> bool {
        demand.fits(self.pool.file_bytes())
    }

    /// Waits until this much may be appended, or may not be. First come, first served, but for removals, which make room
    /// for the others.
    pub async fn admit(self: &Arc<Gate>, demand: Demand, purpose: Purpose) -> Admission {
        let admitted = {
            let mut queue = self.locked();
            if let Some(admission) = self.decide(&mut queue, demand, purpose) {
                return admission;
            }
            let (sender, admitted) = oneshot::channel();
            let waiting = Waiting {
                demand,
                purpose,
                admitted: sender,
            };
            if purpose == Purpose::Removal {
                queue.waiting.push_front(waiting);
            } else {
                queue.waiting.push_back(waiting);
            }
            admitted
        };
        // Only a gate that is gone drops who waits: there is no store to append to.
        admitted
            .await
            .unwrap_or_else(|_| self.refusal(AppendError::Closed))
    }

    /// The answer to whether this much may be appended, if it can be given at once.
    pub fn try_admit(self: &Arc<Gate>, demand: Demand, purpose: Purpose) -> Option<Admission> {
        self.decide(&mut self.locked(), demand, purpose)
    }

    /// The answer for someone who comes now: behind all who wait, if it is no removal.
    fn decide(
        self: &Arc<Gate>,
        queue: &mut Queue,
        demand: Demand,
        purpose: Purpose,
    ) -> Option<Admission> {
        if let Err(refused) = self.check(demand) {
            return Some(self.refusal(refused));
        }
        if !queue.waiting.is_empty() && purpose != Purpose::Removal {
            return None;
        }
        self.reserve(queue, demand, purpose)
    }

    /// The answer for the one whose turn it is.
    fn reserve(
        self: &Arc<Gate>,
        queue: &mut Queue,
        demand: Demand,
        purpose: Purpose,
    ) -> Option<Admission> {
        assert!(self.takes(demand), "what can never be written is refused");
        let bytes = demand.wal_bytes();
        let wanted = queue.reserved + bytes;
        if wanted > self.queue_bytes_max && queue.reserved > 0 {
            return None;
        }
        if wanted > self.room().saturating_sub(self.kept_from(purpose)) {
            return self
                .is_disk_full()
                .then(|| self.refusal(AppendError::DiskFull));
        }
        assert!(
            bytes > 0 && (wanted <= self.queue_bytes_max || wanted == bytes),
            "only what is alone may be more than the queue holds"
        );
        queue.reserved = wanted;
        Some(Admission {
            gate: Arc::clone(self),
            demand,
            bytes,
            refused: None,
        })
    }

    fn refusal(self: &Arc<Gate>, refused: AppendError) -> Admission {
        Admission {
            gate: Arc::clone(self),
            demand: Demand {
                size: AppendSize::default(),
                shape: Shape::Batches,
            },
            bytes: 0,
            refused: Some(refused),
        }
    }

    /// What no waiting changes.
    fn check(&self, demand: Demand) -> Result<(), AppendError> {
        if let Some(failure) = self.failure() {
            return Err(AppendError::Failed(failure.clone()));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(AppendError::Closed);
        }
        if !self.takes(demand) {
            return Err(AppendError::TooLarge {
                bytes: demand.size.bytes,
                bytes_max: demand.bytes_max(self.pool.file_bytes()),
            });
        }
        Ok(())
    }

    /// Bytes that certainly fit into the WAL's files as they are. Half of each file: a frame that does not fit any more
    /// leaves the rest of its file empty, and no frame is longer than half a file.
    fn room(&self) -> u64 {
        if self.pool.is_limited() {
            return 0;
        }
        let usable = self.pool.file_bytes() / 2;
        self.pool.available() as u64 * usable
            + self
                .current_remaining
                .load(Ordering::Acquire)
                .saturating_sub(usable)
    }

    /// Of the room, what `purpose` has to leave.
    fn kept_from(&self, purpose: Purpose) -> u64 {
        let kept = RESERVED_FILES as u64 * (self.pool.file_bytes() / 2);
        match purpose {
            Purpose::Records => kept,
            Purpose::State => kept - kept / 4,
            Purpose::Settings => kept / 2,
            Purpose::Removal => 0,
        }
    }

    pub fn is_disk_full(&self) -> bool {
        self.pool.is_disk_full()
            || self.pool.is_limited()
            || self.settling_is_full.load(Ordering::Acquire)
    }

    pub fn set_settling_full(self: &Arc<Gate>, full: bool) {
        self.settling_is_full.store(full, Ordering::Release);
        self.pool.hold_back(full);
        self.look_again();
    }

    /// Reports when the disk has become full and when it has space again, once each.
    pub fn report_disk(&self, now: Duration) {
        match self.disk_news(now) {
            Some(DiskNews::Full) => tracing::warn!(
                "the disk is full: appends are refused until there is space; deleting records or topics and lowering retention frees some"
            ),
            Some(DiskNews::SpaceAgain) => {
                tracing::info!("the disk has space again: appends are accepted");
            }
            None => {}
        }
    }

    fn disk_news(&self, now: Duration) -> Option<DiskNews> {
        let mut reported = self
            .reported
            .lock()
            .expect("nothing panics while it holds what was reported");
        if self.is_disk_full() {
            reported.has_space_since = None;
            return (!std::mem::replace(&mut reported.is_full, true)).then_some(DiskNews::Full);
        }
        if !reported.is_full {
            return None;
        }
        let since = *reported.has_space_since.get_or_insert(now);
        if now.saturating_sub(since) < SPACE_AGAIN {
            return None;
        }
        *reported = Reported::default();
        Some(DiskNews::SpaceAgain)
    }

    pub fn set_current_remaining(&self, bytes: u64) {
        self.current_remaining.store(bytes, Ordering::Release);
    }

    /// Answers those who wait, in their order, as far as there is an answer now: something has changed.
    pub fn look_again(self: &Arc<Gate>) {
        loop {
            let mut queue = self.locked();
            let Some(first) = queue.waiting.front() else {
                return;
            };
            let (demand, purpose) = (first.demand, first.purpose);
            let admission = if first.admitted.is_closed() {
                // Whoever asked is gone.
                None
            } else if let Err(refused) = self.check(demand) {
                Some(self.refusal(refused))
            } else if let Some(admission) = self.reserve(&mut queue, demand, purpose) {
                Some(admission)
            } else {
                return;
            };
            let first = queue.waiting.pop_front().expect("it was just looked at");
            // Before an admission that nobody takes is dropped, which asks for the lock.
            drop(queue);
            if let Some(admission) = admission {
                drop(first.admitted.send(admission));
            }
        }
    }

    pub fn close(self: &Arc<Gate>) {
        self.closed.store(true, Ordering::Release);
        self.look_again();
    }

    /// A write or sync has failed: nothing is retried, and nothing more is acknowledged.
    pub fn fail(self: &Arc<Gate>, failure: StorageFailed) {
        tracing::error!(reason = %failure.reason, "the store stops writing");
        // Only the first failure counts: what follows are its consequences.
        let _ = self.failed.set(failure.clone());
        self.look_again();
        if self.on_failure == OnFailure::ExitProcess {
            // Standard error may have no reader any more.
            let _ = writeln!(std::io::stderr(), "fatal: {failure}");
            std::process::exit(EXIT_CODE_STORAGE_FAILED);
        }
    }

    pub fn failure(&self) -> Option<&StorageFailed> {
        self.failed.get()
    }

    pub fn reserved_bytes(&self) -> u64 {
        self.locked().reserved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Disk as _, SimDisk};
    use std::path::Path;

    const FILE_BYTES: u64 = 256 << 10;

    /// A gate over a pool with so many files ready, on a disk that has no room for another.
    fn gate(ready: usize) -> Arc<Gate> {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/wal")).unwrap();
        let pool = WalPool::new(
            Arc::new(disk.clone()),
            "/wal".into(),
            FILE_BYTES,
            2..=8,
            Vec::new(),
            1,
            1,
        );
        for _ in 0..ready {
            assert!(pool.prepare_one().unwrap());
        }
        disk.fill();
        assert_eq!(pool.prepare_one().is_err(), ready < 2);
        Arc::new(Gate::new(Arc::new(pool), 64 << 20, OnFailure::Refuse))
    }

    fn is_admitted(gate: &Arc<Gate>, bytes: usize, purpose: Purpose) -> bool {
        gate.try_admit(AppendSize::of_one(bytes).in_batches(), purpose)
            .is_some_and(|admission| admission.refusal().is_none())
    }

    #[test]
    fn the_last_wal_file_is_kept_for_what_frees_space() {
        let gate = gate(1);
        assert!(!is_admitted(&gate, 0, Purpose::Records));
        assert!(is_admitted(&gate, 50_000, Purpose::Settings));
        assert!(!is_admitted(&gate, 60_000, Purpose::Settings));
        assert!(is_admitted(&gate, 60_000, Purpose::Removal));
        gate.set_current_remaining(FILE_BYTES);
        assert!(is_admitted(&gate, 100_000, Purpose::Records));
    }

    #[test]
    fn a_full_disk_is_told_once_and_space_once_it_has_lasted() {
        let gate = gate(2);
        let at = |seconds: u64| gate.disk_news(Duration::from_secs(seconds));
        assert_eq!(at(0), None);
        gate.set_settling_full(true);
        assert_eq!((at(1), at(2)), (Some(DiskNews::Full), None));
        gate.set_settling_full(false);
        assert_eq!((at(3), at(4)), (None, None));
        gate.set_settling_full(true);
        assert_eq!(at(5), None);
        gate.set_settling_full(false);
        assert_eq!((at(6), at(8)), (None, None));
        assert_eq!((at(9), at(10)), (Some(DiskNews::SpaceAgain), None));
    }
}
