//! What is kept of files, and that none outlives what it was made of.
//!
//! Callers: `state`, which holds it; `Front::serve`, which has it tidied; the routes of files.

use std::path::PathBuf;
use std::time::Duration;

use super::cache::Cache;
use crate::broker::Broker;
use crate::broker::access::{Protocol, right};

/// How often it is looked whether what files were made of is still there.
const TIDY_EVERY: Duration = Duration::from_secs(30);

/// What is kept of files.
pub(in crate::front::http) struct Files {
    pub(super) cache: Cache,
}

impl Files {
    /// Files in this directory, which is emptied first, of so many bytes together; none if that is 0.
    pub(in crate::front::http) fn new(directory: PathBuf, bytes_max: u64) -> Files {
        Files {
            cache: Cache::new(directory, bytes_max),
        }
    }

    /// Removes all files of a topic: records of it were erased. Blocks; not for async code.
    pub(in crate::front::http) fn forget(&self, topic: &str) {
        self.cache.forget(topic);
    }

    /// Removes files whose records are not as they were, again and again.
    pub(in crate::front::http) async fn tidy(&self, broker: &Broker) {
        loop {
            tokio::time::sleep(TIDY_EVERY).await;
            let door = broker.own_door(Protocol::Http);
            for (topic, name) in self.cache.names() {
                let granted = door.topic(&topic, right::Read);
                let is_current = granted.is_ok_and(|topic| name.range(broker, &topic).is_some());
                if !is_current {
                    self.cache.remove(&topic, &name);
                }
            }
        }
    }
}
