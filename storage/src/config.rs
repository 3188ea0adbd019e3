//! The store's settings, and the components that it is made with: the disk, the clock, who does the work, and what a failure
//! does. A setting is a number that an operator may know better; a component is a part of the world.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::OpenError;
use crate::io::{Clock, Disk};
use crate::wal::format::FILE_UNIT_BYTES;

/// What the process does when a write or sync has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It ends at once, with exit code 74: what the page cache says can no longer be trusted.
    ExitProcess,
    /// It refuses all appends; for tests and simulations.
    Refuse,
}

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Threads of the store's own.
    Own,
    /// Nobody, until a test calls [`Storage::commit_once`] and the like: the same order every time.
    Manual,
}

/// A store's settings.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// Where everything is.
    pub data_dir: PathBuf,
    /// The length of a WAL file, a multiple of 64 KiB, 256 KiB to 1 GiB.
    pub wal_file_bytes: u64,
    /// WAL files that are kept for use again.
    pub wal_files_min: usize,
    /// WAL files at most, in use or not; when they are used up, producers wait.
    pub wal_files_max: usize,
    /// The committer puts no more into one frame.
    pub frame_bytes_max: usize,
    /// Bytes that may wait for the committer.
    pub append_queue_bytes: u64,
    /// What has not settled after this time settles then.
    pub settle_age: Duration,
    /// Maps and descriptors of segments that are kept open.
    pub open_segments_max: usize,
    /// The background scrub's rate; 0 switches it off.
    pub scrub_bytes_per_second: u64,
    /// How often retention is looked at.
    pub retention_check: Duration,
    /// All logs together keep no more bytes of batches than this; None is any number.
    pub store_bytes_max: Option<u64>,
    /// How long an idle producer's state is kept.
    pub producer_expiry: Duration,
    /// Idempotent producers that one log remembers.
    pub producers_per_log_max: usize,
    /// Idempotent producers that all logs remember.
    pub producers_max: u64,
    /// What a failed write or sync does.
    pub on_failure: OnFailure,
    /// Who does the work.
    pub threads: Threads,
}

impl StorageConfig {
    /// The largest batch that can be appended.
    pub fn batch_bytes_max(&self) -> u64 {
        crate::wal::gate::batch_bytes_max(self.wal_file_bytes)
    }

    /// The defaults, for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> StorageConfig {
        StorageConfig {
            data_dir: data_dir.into(),
            wal_file_bytes: 64 << 20,
            wal_files_min: 8,
            wal_files_max: 64,
            frame_bytes_max: 4 << 20,
            append_queue_bytes: 64 << 20,
            settle_age: Duration::from_secs(10),
            open_segments_max: 1024,
            scrub_bytes_per_second: 8 << 20,
            retention_check: Duration::from_secs(300),
            store_bytes_max: None,
            producer_expiry: Duration::from_secs(24 * 3600),
            producers_per_log_max: 50_000,
            producers_max: 500_000,
            on_failure: OnFailure::ExitProcess,
            threads: Threads::Own,
        }
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refuse = |reason: &str| {
            Err(OpenError::Config {
                reason: reason.to_owned(),
            })
        };
        if !self.wal_file_bytes.is_multiple_of(FILE_UNIT_BYTES)
            || !(256 << 10..=1 << 30).contains(&self.wal_file_bytes)
        {
            return refuse("a WAL file has 256 KiB to 1 GiB, a multiple of 64 KiB");
        }
        if self.wal_files_min < 2 || self.wal_files_max < self.wal_files_min.max(4) {
            return refuse(
                "the WAL keeps at least 2 files, and has at most no fewer than that and 4",
            );
        }
        Ok(())
    }
}

/// The world the store lives in.
#[derive(Clone, Debug)]
pub struct Env {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Env {
    /// The machine's disk and clock.
    pub fn real() -> Env {
        Env {
            disk: Arc::new(crate::io::RealDisk),
            clock: Arc::new(crate::io::SystemClock::new()),
        }
    }
}

/// The settings that may change while the store is open. The cleaner, the settler and the scrub read them anew each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveSettings {
    /// All logs together keep no more bytes than this; None is any number.
    pub store_bytes_max: Option<u64>,
    /// The background scrub's rate; 0 switches it off.
    pub scrub_bytes_per_second: u64,
    /// How often retention is looked at.
    pub retention_check: Duration,
}

impl From<&StorageConfig> for LiveSettings {
    fn from(config: &StorageConfig) -> LiveSettings {
        LiveSettings {
            store_bytes_max: config.store_bytes_max,
            scrub_bytes_per_second: config.scrub_bytes_per_second,
            retention_check: config.retention_check,
        }
    }
}
