//! Places in logs: one, and one for each partition of some topics. Pure.

use std::collections::BTreeMap;

use model::{Offset, PartitionId, TopicId};

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionId,
    /// The offset.
    pub offset: Offset,
}

/// An offset for each partition of some topics; what is not named is at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(BTreeMap<TopicId, Vec<Offset>>);

impl Positions {
    /// Topics in the order of their ids, with the offsets of their partitions.
    pub fn topics(&self) -> impl Iterator<Item = (TopicId, &[Offset])> {
        let all = self.0.iter();
        all.map(|(topic, offsets)| (*topic, offsets.as_slice()))
    }

    /// Sets all of a topic.
    pub fn set_topic(&mut self, topic: TopicId, offsets: Vec<Offset>) {
        self.0.insert(topic, offsets);
    }

    /// Whether the topic is named.
    pub fn has(&self, topic: TopicId) -> bool {
        self.0.contains_key(&topic)
    }

    /// All of a topic.
    pub fn of_topic(&self, topic: TopicId) -> &[Offset] {
        self.0.get(&topic).map_or(&[], Vec::as_slice)
    }

    /// Where it is in a partition.
    pub fn get(&self, topic: TopicId, partition: PartitionId) -> Offset {
        let offsets = self.0.get(&topic);
        let offset = offsets.and_then(|it| it.get(partition.get() as usize));
        offset.copied().unwrap_or(Offset::ZERO)
    }

    /// Whether a place lies before.
    pub fn is_past(&self, place: &Place) -> bool {
        place.offset < self.get(place.topic, place.partition)
    }

    /// Sets one of them.
    pub fn set(&mut self, place: Place) {
        let offsets = self.0.entry(place.topic).or_default();
        let index = place.partition.get() as usize;
        if offsets.len() <= index {
            offsets.resize(index + 1, Offset::ZERO);
        }
        offsets[index] = place.offset;
    }

    /// The later of both in each partition of the topics that are named here.
    pub fn advance(&mut self, other: &Positions) {
        for (topic, offsets) in &mut self.0 {
            let Some(others) = other.0.get(topic) else {
                continue;
            };
            offsets.resize(offsets.len().max(others.len()), Offset::ZERO);
            for (offset, other) in offsets.iter_mut().zip(others) {
                *offset = (*offset).max(*other);
            }
        }
    }

    /// Whether this one is as far as the other in each partition of the topics that are named here.
    pub fn reaches(&self, other: &Positions) -> bool {
        self.0.iter().all(|(topic, offsets)| {
            let others = other.0.get(topic).map_or(&[][..], Vec::as_slice);
            (0..others.len())
                .all(|index| offsets.get(index).copied().unwrap_or(Offset::ZERO) >= others[index])
        })
    }
}
