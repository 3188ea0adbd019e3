//! The committed offsets of one group, as a pure state: what is durable and may be fetched, and what is on its way.
//! Callers: `Coordinator`, under the group's lock. Invariant: changes become visible in the order in which they were
//! appended, and only once they are durable, so a fetch never shows what a power cut could take back.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use model::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicName};

use super::group::OffsetsExpiry;

/// What an offset takes in memory, beside its texts: here, and its key in the log's index.
const OFFSET_BYTES: u64 = 192;

/// Where a consumer is in a partition, as it committed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommittedPlace {
    /// The next record to read.
    Next(Offset),
    /// A negative number, which is a sign between clients (librdkafka's -2 is the beginning): kept, and not understood.
    Sign(i64),
}

impl CommittedPlace {
    /// From the number that is committed and stored.
    pub fn from_wire(number: i64) -> CommittedPlace {
        Offset::from_wire(number).map_or(CommittedPlace::Sign(number), CommittedPlace::Next)
    }

    /// The number that is committed and stored.
    pub fn to_wire(self) -> i64 {
        match self {
            CommittedPlace::Next(offset) => offset.to_wire(),
            CommittedPlace::Sign(number) => number,
        }
    }
}

/// A consumer's place in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Which incarnation of the topic it is about.
    pub topic_id: TopicId,
    /// Where it is.
    pub offset: CommittedPlace,
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
    appended: VecDeque<Appended>,
    append_count: u64,
    /// What is in `durable`, and what `appended` adds to it.
    size: OffsetsSize,
}

#[derive(Debug)]
struct Appended {
    number: AppendNumber,
    changes: Vec<OffsetChange>,
    /// What it adds, as far as that could be told when it was appended.
    growth: OffsetsSize,
}

/// How many offsets, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffsetsSize {
    /// Offsets.
    pub count: u64,
    /// What they take in memory, about, without the group's id.
    pub bytes: u64,
}

impl OffsetsSize {
    fn of(topic: &TopicName, committed: &CommittedOffset) -> OffsetsSize {
        OffsetsSize {
            count: 1,
            bytes: OFFSET_BYTES + (topic.as_str().len() + committed.metadata.len()) as u64,
        }
    }

    /// Both together.
    pub fn plus(self, other: OffsetsSize) -> OffsetsSize {
        OffsetsSize {
            count: self.count + other.count,
            bytes: self.bytes + other.bytes,
        }
    }

    fn minus(self, other: OffsetsSize) -> OffsetsSize {
        OffsetsSize {
            count: self.count.saturating_sub(other.count),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// Which of a group's appends, counted in the order of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppendNumber(u64);

impl GroupOffsets {
    /// Notes changes that were just appended.
    pub fn on_appended(&mut self, changes: Vec<OffsetChange>) -> AppendNumber {
        self.append_count += 1;
        let number = AppendNumber(self.append_count);
        let growth = changes
            .iter()
            .filter_map(|change| {
                let committed = change.committed.as_ref()?;
                Some(self.growth(&change.topic, change.partition, committed))
            })
            .fold(OffsetsSize::default(), OffsetsSize::plus);
        assert!(
            self.appended.back().is_none_or(|last| last.number < number),
            "what is appended follows what was appended"
        );
        self.size = self.size.plus(growth);
        self.appended.push_back(Appended {
            number,
            changes,
            growth,
        });
        number
    }

    /// What committing this would add to what is durable.
    pub fn growth(
        &self,
        topic: &TopicName,
        partition: PartitionId,
        committed: &CommittedOffset,
    ) -> OffsetsSize {
        let wanted = OffsetsSize::of(topic, committed);
        match self.get(topic, partition) {
            Some(known) => wanted.minus(OffsetsSize::of(topic, known)),
            None => wanted,
        }
    }

    /// What it holds, with what is on its way.
    pub fn size(&self) -> OffsetsSize {
        self.size
    }

    /// Makes visible this append and all before it: a log is durable up to a point.
    pub fn on_durable(&mut self, number: AppendNumber) {
        assert!(
            number.0 <= self.append_count,
            "only what was appended becomes durable"
        );
        while self
            .appended
            .front()
            .is_some_and(|first| first.number <= number)
        {
            if let Some(first) = self.appended.pop_front() {
                self.size = self.size.minus(first.growth);
                first
                    .changes
                    .into_iter()
                    .for_each(|change| self.apply(change));
            }
        }
    }

    /// Applies a change that is durable already, as at start.
    pub fn apply(&mut self, change: OffsetChange) {
        let OffsetChange {
            topic,
            partition,
            committed,
        } = change;
        if let Some(known) = self.get(&topic, partition) {
            assert!(self.size.count > 0, "what is known is counted");
            self.size = self.size.minus(OffsetsSize::of(&topic, known));
        }
        match committed {
            Some(committed) => {
                self.size = self.size.plus(OffsetsSize::of(&topic, &committed));
                self.durable
                    .entry(topic)
                    .or_default()
                    .insert(partition, committed);
            }
            None => {
                if let Some(partitions) = self.durable.get_mut(&topic) {
                    partitions.remove(&partition);
                    if partitions.is_empty() {
                        self.durable.remove(&topic);
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
        for change in self.appended.iter().flat_map(|append| &append.changes) {
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
