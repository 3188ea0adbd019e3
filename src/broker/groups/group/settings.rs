//! What all groups are given, and what is said of a group's offsets.
//! Callers: `Coordinator`; the state machine here.

use std::collections::BTreeSet;
use std::time::Duration;

use model::Timestamp;

/// Reads the topics from a consumer's subscription; None if the bytes are not one. They are in the format of the protocol that
/// the members speak.
pub type SubscribedTopics = fn(&[u8]) -> Option<BTreeSet<String>>;

/// What an operator sets for all groups, and how their members' subscriptions are read.
#[derive(Clone, Copy, Debug)]
pub struct GroupSettings {
    /// How long the first rebalance of an empty group waits for more members.
    pub initial_rebalance_delay: Duration,
    /// Most members of a group.
    pub size_max: usize,
    /// Most bytes of a group's members: it is stored as one record.
    pub bytes_max: usize,
    /// How the topics of a subscription are read.
    pub subscribed_topics: SubscribedTopics,
}

impl Default for GroupSettings {
    fn default() -> Self {
        GroupSettings {
            initial_rebalance_delay: Duration::from_secs(3),
            size_max: usize::MAX,
            bytes_max: usize::MAX,
            subscribed_topics: |_| None,
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
