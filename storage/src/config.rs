//! The store's settings: numbers and bounds that an operator may know better, and those of them that may change while the store
//! is open. What the store is made with is in `components.rs`.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::error::OpenError;
use crate::wal::appends::batch_bytes_max;
use crate::wal::format::FILE_UNIT_BYTES;

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
    /// How often it is looked whether a log is due for compaction.
    pub cleaner_check: Duration,
    /// Bytes that compaction reads and writes in a second; None is any number.
    pub cleaner_bytes_per_second: Option<u64>,
    /// The memory for the keys of a log that is compacted.
    pub cleaner_memory_bytes: u64,
    /// Bytes that are read in a second to make key indexes; None is any number.
    pub key_index_bytes_per_second: Option<u64>,
    /// How long an idle producer's state is kept.
    pub producer_expiry: Duration,
    /// Idempotent producers that one log remembers.
    pub producers_per_log_max: usize,
    /// Idempotent producers that all logs remember.
    pub producers_max: u64,
}

impl StorageConfig {
    /// The largest batch that can be appended.
    pub fn batch_bytes_max(&self) -> u64 {
        batch_bytes_max(self.wal_file_bytes)
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
            cleaner_check: Duration::from_secs(15),
            cleaner_bytes_per_second: None,
            cleaner_memory_bytes: 128 << 20,
            key_index_bytes_per_second: Some(64 << 20),
            producer_expiry: Duration::from_secs(24 * 3600),
            producers_per_log_max: 50_000,
            producers_max: 500_000,
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

/// The settings that may change while the store is open. The cleaner, the settler and the scrub read them anew each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveSettings {
    /// All logs together keep no more bytes than this; None is any number.
    pub store_bytes_max: Option<u64>,
    /// The background scrub's rate; 0 switches it off.
    pub scrub_bytes_per_second: u64,
    /// How often retention is looked at.
    pub retention_check: Duration,
    /// How often it is looked whether a log is due for compaction.
    pub cleaner_check: Duration,
    /// Bytes that compaction reads and writes in a second; None is any number.
    pub cleaner_bytes_per_second: Option<u64>,
    /// The memory for the keys of a log that is compacted.
    pub cleaner_memory_bytes: u64,
    /// Bytes that are read in a second to make key indexes; None is any number.
    pub key_index_bytes_per_second: Option<u64>,
}

impl From<&StorageConfig> for LiveSettings {
    fn from(config: &StorageConfig) -> LiveSettings {
        LiveSettings {
            store_bytes_max: config.store_bytes_max,
            scrub_bytes_per_second: config.scrub_bytes_per_second,
            retention_check: config.retention_check,
            cleaner_check: config.cleaner_check,
            cleaner_bytes_per_second: config.cleaner_bytes_per_second,
            cleaner_memory_bytes: config.cleaner_memory_bytes,
            key_index_bytes_per_second: config.key_index_bytes_per_second,
        }
    }
}

/// The live settings as they are now.
#[derive(Debug)]
pub(crate) struct Live(Mutex<LiveSettings>);

impl Live {
    pub fn new(config: &StorageConfig) -> Live {
        Live(Mutex::new(LiveSettings::from(config)))
    }

    pub fn get(&self) -> LiveSettings {
        *self.locked()
    }

    pub fn set(&self, settings: LiveSettings) {
        *self.locked() = settings;
    }

    fn locked(&self) -> MutexGuard<'_, LiveSettings> {
        self.0
            .lock()
            .expect("nothing panics while it holds the settings")
    }
}
