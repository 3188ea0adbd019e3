//! What administrators change by the Kafka protocol, logged.
//! Callers: the handlers of requests that change something, once the change is durable.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Call;
use crate::front::audit::log;
pub(super) use crate::front::audit::{Change, NAMED_MAX, some};

/// A consumer that assigns its partitions itself commits as an administrator does who resets offsets, all the time: a
/// connection is told of once for a group, and again after it was silent for this long.
const SILENT: Duration = Duration::from_secs(3600);
/// Connections and groups that are remembered. While so many commit, further ones are not told of.
const TOLD_MAX: usize = 4096;

impl Call {
    /// Logs a change that was made.
    pub(super) fn changed(&self, change: &Change<'_>) {
        log(&self.door, change);
    }

    /// Logs that offsets were set from outside the group, but not each time again.
    pub(super) fn offsets_set(&self, group: &str, offsets: &str) {
        let is_due = TOLD
            .lock()
            .expect("nothing panics while it holds the list")
            .is_due(self.door.caller().address, group, Instant::now());
        if is_due {
            self.changed(&Change::OffsetsSet { group, offsets });
        }
    }
}

/// Who was told of, and when they committed last.
static TOLD: Mutex<Told> = Mutex::new(Told(BTreeMap::new()));

struct Told(BTreeMap<(SocketAddr, String), Instant>);

impl Told {
    fn is_due(&mut self, address: SocketAddr, group: &str, now: Instant) -> bool {
        let is_recent = |seen: &Instant| now.saturating_duration_since(*seen) < SILENT;
        let key = (address, group.to_owned());
        if let Some(seen) = self.0.get_mut(&key) {
            let is_due = !is_recent(seen);
            *seen = now;
            return is_due;
        }
        if self.0.len() >= TOLD_MAX {
            self.0.retain(|_, seen| is_recent(seen));
        }
        if self.0.len() >= TOLD_MAX {
            return false;
        }
        self.0.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_commits_all_the_time_is_told_of_once() {
        let mut told = Told(BTreeMap::new());
        let (one, other) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
        let mut now = Instant::now();
        assert!(told.is_due(one, "a", now));
        assert!(told.is_due(one, "b", now));
        for _ in 0..5 {
            now += SILENT / 2;
            assert!(!told.is_due(one, "a", now));
        }
        // A tool that resets offsets connects anew each time.
        assert!(told.is_due(other, "a", now));
        assert!(told.is_due(one, "a", now + SILENT));
        for group in 0..2 * TOLD_MAX {
            told.is_due(one, &group.to_string(), now);
        }
        assert_eq!(told.0.len(), TOLD_MAX);
    }
}
