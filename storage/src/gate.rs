//! The gate before the log: how much may wait for the disk, and whether the disk has room for it.
//!
//! Every append needs an [`Admission`] first. It reserves bytes of the committer's queue, so that memory stays bounded, and
//! room in the WAL's files, so that what has an offset can always be written. Reaching either bound slows the sender down;
//! only a full disk refuses.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::Notify;

use crate::error::{AppendError, StorageFailed};
use crate::wal::WalPool;

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
        loop {
            // Registered before the look, so that no change between the two is missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(admission) = self.try_admit(bytes) {
                return admission;
            }
            changed.await;
        }
    }

    /// The answer to whether `bytes` may be appended, if it can be given at once.
    pub fn try_admit(self: &Arc<Gate>, bytes: usize) -> Option<Admission> {
        match self.reserve(bytes) {
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

    fn reserve(&self, bytes: usize) -> Result<Option<u64>, AppendError> {
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
        if wanted > self.room() {
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

    pub fn is_disk_full(&self) -> bool {
        self.pool.is_disk_full() || self.settling_is_full.load(Ordering::Acquire)
    }

    pub fn set_settling_full(&self, full: bool) {
        self.settling_is_full.store(full, Ordering::Release);
        self.changed.notify_waiters();
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
