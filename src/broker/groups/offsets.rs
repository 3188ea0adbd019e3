//! The committed offsets of one group, as a pure state: what is durable and may be fetched, and what is on its way.
//! Callers: `Coordinator`, under the group's lock. Invariant: changes become visible in the order in which they were
//! appended, and only once they are durable, so a fetch never shows what a power cut could take back.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use model::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicName};

use super::group::OffsetsExpiry;

/// A consumer's place in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Which incarnation of the topic it is about.
    pub topic_id: TopicId,
    /// The next record to read; None if the client stored metadata without a place.
    pub offset: Option<Offset>,
    /// The leader epoch of the last record that was read.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The client's own note.
    pub metadata: String,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// When it goes, where the commit itself said so.
    pub expires_at: Option<Timestamp>,
}

/// One change of one partition; None deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetChange {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// What is now committed.
    pub committed: Option<CommittedOffset>,
}

/// A group's committed offsets.
#[derive(Debug, Default)]
pub struct GroupOffsets {
    durable: BTreeMap<TopicName, BTreeMap<PartitionId, CommittedOffset>>,
    /// Appended and not yet known durable, in the order of the log.
    appended: VecDeque<(AppendNumber, Vec<OffsetChange>)>,
    append_count: u64,
}

/// Which of a group's appends, counted in the order of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppendNumber(u64);

impl GroupOffsets {
    /// Notes changes that were just appended.
    pub fn on_appended(&mut self, changes: Vec<OffsetChange>) -> AppendNumber {
        self.append_count += 1;
        let number = AppendNumber(self.append_count);
        self.appended.push_back((number, changes));
        number
    }

    /// Makes visible this append and all before it: a log is durable up to a point.
    pub fn on_durable(&mut self, number: AppendNumber) {
        while self
            .appended
            .front()
            .is_some_and(|(first, _)| *first <= number)
        {
            if let Some((_, changes)) = self.appended.pop_front() {
                changes.into_iter().for_each(|change| self.apply(change));
            }
        }
    }

    /// Applies a change that is durable already, as at start.
    pub fn apply(&mut self, change: OffsetChange) {
        match change.committed {
            Some(committed) => {
                self.durable
                    .entry(change.topic)
                    .or_default()
                    .insert(change.partition, committed);
            }
            None => {
                if let Some(partitions) = self.durable.get_mut(&change.topic) {
                    partitions.remove(&change.partition);
                    if partitions.is_empty() {
                        self.durable.remove(&change.topic);
                    }
                }
            }
        }
    }

    /// The durable offset of one partition.
    pub fn get(&self, topic: &TopicName, partition: PartitionId) -> Option<&CommittedOffset> {
        self.durable.get(topic)?.get(&partition)
    }

    /// All durable offsets.
    pub fn all(
        &self,
    ) -> impl Iterator<Item = (&TopicName, &BTreeMap<PartitionId, CommittedOffset>)> {
        self.durable.iter()
    }

    /// The durable offsets behind one place, by topic and partition; from the first one if there is no place.
    pub fn after(
        &self,
        after: Option<&(TopicName, PartitionId)>,
    ) -> impl Iterator<Item = (&TopicName, PartitionId, &CommittedOffset)> {
        let from = match after {
            Some((topic, _)) => Bound::Included(topic),
            None => Bound::Unbounded,
        };
        let topics = self.durable.range::<TopicName, _>((from, Bound::Unbounded));
        topics.flat_map(move |(topic, partitions)| {
            let from = match after {
                Some((at, partition)) if at == topic => Bound::Excluded(*partition),
                _ => Bound::Unbounded,
            };
            partitions
                .range((from, Bound::Unbounded))
                .map(move |(partition, committed)| (topic, *partition, committed))
        })
    }

    /// Whether nothing is committed, nor on its way.
    pub fn is_empty(&self) -> bool {
        self.durable.is_empty() && self.appended.is_empty()
    }

    /// Deletions of everything for which `gone` holds, on its way or durable.
    pub fn deletions(
        &self,
        mut gone: impl FnMut(&TopicName, PartitionId, &CommittedOffset) -> bool,
    ) -> Vec<OffsetChange> {
        let mut latest: BTreeMap<(&TopicName, PartitionId), Option<&CommittedOffset>> =
            BTreeMap::new();
        for (topic, partitions) in &self.durable {
            latest.extend(
                partitions
                    .iter()
                    .map(|(partition, committed)| ((topic, *partition), Some(committed))),
            );
        }
        for change in self.appended.iter().flat_map(|(_, changes)| changes) {
            latest.insert((&change.topic, change.partition), change.committed.as_ref());
        }
        latest
            .into_iter()
            .filter(|((topic, partition), committed)| {
                committed.is_some_and(|committed| gone(topic, *partition, committed))
            })
            .map(|((topic, partition), _)| OffsetChange {
                topic: topic.clone(),
                partition,
                committed: None,
            })
            .collect()
    }
}

/// Whether retention takes this offset now. `retention_ms` counts from what `expiry` names, unless the commit itself
/// said when it goes.
pub fn is_expired(
    committed: &CommittedOffset,
    expiry: OffsetsExpiry,
    retention_ms: i64,
    now: Timestamp,
) -> bool {
    let counts_from = match expiry {
        OffsetsExpiry::Never => return false,
        OffsetsExpiry::SinceEmpty(since) => since,
        OffsetsExpiry::SinceCommit => committed.committed_at,
    };
    match committed.expires_at {
        Some(expires_at) => now >= expires_at,
        None => now.millis_since(counts_from) >= retention_ms,
    }
}
