//! What administrators change, as one line of the log each: what, and who asked for it from where.
//! Callers: the handlers of requests that change something, once the change is durable.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Call;

/// Of many partitions or settings in one change, so many are named.
pub(super) const NAMED_MAX: usize = 16;
/// A consumer that assigns its partitions itself commits as an administrator does who resets offsets, all the time: a
/// connection is told of once for a group, and again after it was silent for this long.
const SILENT: Duration = Duration::from_secs(3600);
/// Connections and groups that are remembered. While so many commit, further ones are not told of.
const TOLD_MAX: usize = 4096;

/// A change that was made.
pub(super) enum Change<'a> {
    TopicCreated {
        topic: &'a str,
        partitions: u32,
        settings: &'a str,
    },
    /// A client spoke of it, and `auto.create.topics.enable` is set.
    TopicCreatedByUse {
        topic: &'a str,
        partitions: u32,
    },
    TopicDeleted {
        topic: &'a str,
    },
    TopicGrown {
        topic: &'a str,
        partitions: u32,
    },
    RecordsDeleted {
        topic: &'a str,
        before: &'a str,
    },
    SettingsChanged {
        /// As in `topic readings` or `broker 1`.
        resource: &'a str,
        changes: &'a str,
    },
    /// All of them, so that those that are not named have their defaults again.
    SettingsReplaced {
        resource: &'a str,
        settings: &'a str,
    },
    GroupDeleted {
        group: &'a str,
    },
    OffsetsDeleted {
        group: &'a str,
        partitions: &'a str,
    },
    OffsetsSet {
        group: &'a str,
        offsets: &'a str,
    },
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::TopicCreated {
                topic,
                partitions,
                settings: "",
            } => write!(f, "topic {topic} created, partitions: {partitions}"),
            Change::TopicCreated {
                topic,
                partitions,
                settings,
            } => write!(
                f,
                "topic {topic} created, partitions: {partitions}, settings: {settings}"
            ),
            Change::TopicCreatedByUse { topic, partitions } => write!(
                f,
                "topic {topic} created because a client asked for it, partitions: {partitions}"
            ),
            Change::TopicDeleted { topic } => write!(f, "topic {topic} deleted"),
            Change::TopicGrown { topic, partitions } => {
                write!(f, "topic {topic} has more partitions: {partitions}")
            }
            Change::RecordsDeleted { topic, before } => {
                write!(
                    f,
                    "records of topic {topic} deleted before offset: {before}"
                )
            }
            Change::SettingsChanged { resource, changes } => {
                write!(f, "settings of {resource} changed: {changes}")
            }
            Change::SettingsReplaced { resource, settings } => {
                write!(f, "settings of {resource} replaced by: {settings}")
            }
            Change::GroupDeleted { group } => write!(f, "group {group:?} deleted"),
            Change::OffsetsDeleted { group, partitions } => {
                write!(f, "offsets of group {group:?} deleted: {partitions}")
            }
            Change::OffsetsSet { group, offsets } => {
                write!(
                    f,
                    "offsets of group {group:?} set by a client that is no member: {offsets}"
                )
            }
        }
    }
}

impl Call {
    /// Logs a change that was made.
    pub(super) fn changed(&self, change: &Change<'_>) {
        let caller = self.door.caller();
        let client = caller.client_id.as_deref().unwrap_or_default();
        tracing::info!(client, address = %caller.address, "{change}");
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

/// Some of many, in words.
pub(super) fn some(all: impl ExactSizeIterator<Item = String>) -> String {
    let left = all.len().saturating_sub(NAMED_MAX);
    let named: Vec<String> = all.take(NAMED_MAX).collect();
    let named = named.join(", ");
    if left == 0 {
        named
    } else {
        format!("{named} and {left} more")
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

    #[test]
    fn of_many_some_are_named() {
        let names = |count: usize| some((0..count).map(|at| at.to_string()));
        assert_eq!(names(0), "");
        assert_eq!(names(2), "0, 1");
        assert!(names(20).ends_with("14, 15 and 4 more"));
    }
}
