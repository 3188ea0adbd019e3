//! The gate before the log: how much may wait for the disk, and whether the disk has room for it.
//!
//! Every append needs an [`Admission`] first. It reserves bytes of the committer's queue, so that memory stays bounded, and
//! room in the WAL's files, so that what has an offset can always be written. Reaching either bound slows the sender down;
//! only a full disk refuses.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;

use crate::error::{AppendError, StorageFailed};
use crate::wal::WalPool;

/// WAL files that ordinary appends leave to the broker's own records, so that on a full disk something can still be deleted.
pub(crate) const RESERVED_FILES: usize = 1;
/// A disk that was full is told to have space again once it has had it for this long.
const SPACE_AGAIN: Duration = Duration::from_secs(3);

/// What an append is for: how far it may go into the room that is kept for a full disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody's records: nothing of it.
    Records,
    /// The broker's own state, as of groups: a quarter of it.
    State,
    /// Settings, which may free space, and may not: half of it.
    Settings,
    /// A deletion: all of it.
    Removal,
}

/// What a frame of its own may cost a batch: head, table entry and padding.
const FRAME_OVERHEAD_BYTES: u64 = 2 * 4096;

/// The largest batch that a WAL file of this length takes for certain.
pub(crate) fn batch_bytes_max(file_bytes: u64) -> u64 {
    (file_bytes / 2).saturating_sub(FRAME_OVERHEAD_BYTES)
}

/// Leave to append some bytes, or the reason why not, which the append then answers. Given back when it is dropped, which
/// the committer does after the sync.
#[derive(Debug)]
pub struct Admission {
    gate: Arc<Gate>,
    bytes: u64,
    refused: Option<AppendError>,
}

impl Admission {
    /// Why nothing may be appended with it.
    pub(crate) fn refusal(&self) -> Option<&AppendError> {
        self.refused.as_ref()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut reserved = self
            .gate
            .reserved
            .lock()
            .expect("nothing panics while it holds the gate");
        assert!(*reserved >= self.bytes, "an admission is given back once");
        *reserved -= self.bytes;
        drop(reserved);
        self.gate.changed.notify_waiters();
    }
}

/// What the log was told of the disk.
#[derive(Debug, Default)]
struct Told {
    is_full: bool,
    /// When the disk turned out to have space again.
    has_space_since: Option<Duration>,
}

/// What the log is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiskNews {
    Full,
    SpaceAgain,
}

/// The gate. Shared by everyone who appends.
#[derive(Debug)]
pub(crate) struct Gate {
    reserved: Mutex<u64>,
    changed: Notify,
    queue_bytes_max: u64,
    pool: Arc<WalPool>,
    /// Bytes left in the file that the committer writes.
    current_remaining: AtomicU64,
    settling_is_full: AtomicBool,
    told: Mutex<Told>,
    closed: AtomicBool,
    failed: OnceLock<StorageFailed>,
}

impl Gate {
    pub fn new(pool: Arc<WalPool>, queue_bytes_max: u64) -> Gate {
        Gate {
            reserved: Mutex::new(0),
            changed: Notify::new(),
            queue_bytes_max,
            pool,
            current_remaining: AtomicU64::new(0),
            settling_is_full: AtomicBool::new(false),
            told: Mutex::default(),
            closed: AtomicBool::new(false),
            failed: OnceLock::new(),
        }
    }

    /// The largest batch that a WAL file takes for certain.
    pub fn batch_bytes_max(&self) -> u64 {
        batch_bytes_max(self.pool.file_bytes())
    }

    /// Waits until `bytes` may be appended, or may not be.
    pub async fn admit(self: &Arc<Gate>, bytes: usize) -> Admission {
        self.admit_for(bytes, Purpose::Records).await
    }

    /// Like [`Gate::admit`], for what may use the room that is kept for a full disk.
    pub async fn admit_for(self: &Arc<Gate>, bytes: usize, purpose: Purpose) -> Admission {
        loop {
            // Registered before the look, so that no change between the two is missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(admission) = self.try_admit_for(bytes, purpose) {
                return admission;
            }
            changed.await;
        }
    }

    /// The answer to whether `bytes` may be appended, if it can be given at once.
    pub fn try_admit(self: &Arc<Gate>, bytes: usize) -> Option<Admission> {
        self.try_admit_for(bytes, Purpose::Records)
    }

    /// Like [`Gate::try_admit`], for what may use the room that is kept for a full disk.
    pub fn try_admit_for(self: &Arc<Gate>, bytes: usize, purpose: Purpose) -> Option<Admission> {
        match self.reserve(bytes, purpose) {
            Ok(None) => None,
            Ok(Some(bytes)) => Some(Admission {
                gate: Arc::clone(self),
                bytes,
                refused: None,
            }),
            Err(refused) => Some(Admission {
                gate: Arc::clone(self),
                bytes: 0,
                refused: Some(refused),
            }),
        }
    }

    fn reserve(&self, bytes: usize, purpose: Purpose) -> Result<Option<u64>, AppendError> {
        self.check_open()?;
        let bytes = bytes as u64;
        if bytes > self.batch_bytes_max() {
            return Err(AppendError::TooLarge {
                bytes,
                bytes_max: self.batch_bytes_max(),
            });
        }
        let need = bytes + FRAME_OVERHEAD_BYTES;
        let mut reserved = self
            .reserved
            .lock()
            .expect("nothing panics while it holds the gate");
        let wanted = *reserved + need;
        if wanted > self.queue_bytes_max && *reserved > 0 {
            return Ok(None);
        }
        if wanted > self.room().saturating_sub(self.kept_from(purpose)) {
            drop(reserved);
            return if self.is_disk_full() {
                Err(AppendError::DiskFull)
            } else {
                Ok(None)
            };
        }
        *reserved = wanted;
        Ok(Some(need))
    }

    /// Bytes that certainly fit into the WAL's files as they are. Half of each file: a frame that does not fit any more
    /// leaves the rest of its file empty, and no frame is longer than half a file.
    fn room(&self) -> u64 {
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
        self.pool.is_disk_full() || self.settling_is_full.load(Ordering::Acquire)
    }

    pub fn set_settling_full(&self, full: bool) {
        self.settling_is_full.store(full, Ordering::Release);
        self.pool.hold_back(full);
        self.changed.notify_waiters();
    }

    /// Tells the log when the disk has become full and when it has space again, once each.
    pub fn tell_of_disk(&self, now: Duration) {
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
        let mut told = self
            .told
            .lock()
            .expect("nothing panics while it holds what was told");
        if self.is_disk_full() {
            told.has_space_since = None;
            return (!std::mem::replace(&mut told.is_full, true)).then_some(DiskNews::Full);
        }
        if !told.is_full {
            return None;
        }
        let since = *told.has_space_since.get_or_insert(now);
        if now.saturating_sub(since) < SPACE_AGAIN {
            return None;
        }
        *told = Told::default();
        Some(DiskNews::SpaceAgain)
    }

    pub fn set_current_remaining(&self, bytes: u64) {
        self.current_remaining.store(bytes, Ordering::Release);
    }

    /// Lets those who wait look again: the pool has changed.
    pub fn look_again(&self) {
        self.changed.notify_waiters();
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub fn fail(&self, failure: StorageFailed) {
        // Only the first failure counts: what follows are its consequences.
        let _ = self.failed.set(failure);
        self.changed.notify_waiters();
    }

    pub fn failure(&self) -> Option<&StorageFailed> {
        self.failed.get()
    }

    fn check_open(&self) -> Result<(), AppendError> {
        if let Some(failure) = self.failure() {
            return Err(AppendError::Failed(failure.clone()));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(AppendError::Closed);
        }
        Ok(())
    }

    pub fn reserved_bytes(&self) -> u64 {
        *self
            .reserved
            .lock()
            .expect("nothing panics while it holds the gate")
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
        Arc::new(Gate::new(Arc::new(pool), 64 << 20))
    }

    fn is_admitted(gate: &Arc<Gate>, bytes: usize, purpose: Purpose) -> bool {
        gate.try_admit_for(bytes, purpose)
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
