//! What all groups are given, and what is said of a group's offsets.
//! Callers: `Coordinator`; the state machine here.

use std::time::Duration;

use model::Timestamp;

/// What an operator sets for all groups.
#[derive(Clone, Copy, Debug)]
pub struct GroupSettings {
    /// How long the first rebalance of an empty group waits for more members.
    pub initial_rebalance_delay: Duration,
    /// Most members of a group.
    pub size_max: usize,
    /// Most bytes of a group's members: it is stored as one record.
    pub bytes_max: usize,
}

impl Default for GroupSettings {
    fn default() -> Self {
        GroupSettings {
            initial_rebalance_delay: Duration::from_secs(3),
            size_max: usize::MAX,
            bytes_max: usize::MAX,
        }
    }
}

/// From when on the retention of a group's offsets counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetsExpiry {
    /// They are in use.
    Never,
    /// Since the last member left.
    SinceEmpty(Timestamp),
    /// Since each offset's own commit, where the topic is not subscribed to.
    SinceCommit,
}
