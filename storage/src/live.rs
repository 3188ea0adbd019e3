//! The settings that may change while the store is open.
//! Callers: `Storage::set_live`; the cleaner, the settler and the scrub read them anew each time.

use std::time::Duration;

use crate::storage::StorageConfig;

/// See the module.
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
