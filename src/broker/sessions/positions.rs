//! An offset for each partition of some topics. Pure.

use std::collections::BTreeMap;

use model::{Offset, PartitionId, TopicId};

use crate::broker::place::{Place, later_offsets, offset_mut, offset_of, reaches};

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
        offset_of(self.of_topic(topic), partition)
    }

    /// Whether a place lies before.
    pub fn is_past(&self, place: &Place) -> bool {
        place.offset < self.get(place.topic, place.partition)
    }

    /// Sets one of them.
    pub fn set(&mut self, place: Place) {
        *offset_mut(self.0.entry(place.topic).or_default(), place.partition) = place.offset;
    }

    /// The later of both in each partition of the topics that are named here.
    pub fn advance(&mut self, other: &Positions) {
        for (topic, offsets) in &mut self.0 {
            if let Some(others) = other.0.get(topic) {
                *offsets = later_offsets(offsets, others);
            }
        }
    }

    /// Whether this one is as far as the other in each partition of the topics that are named here.
    pub fn reaches(&self, other: &Positions) -> bool {
        let mut all = self.0.iter();
        all.all(|(topic, offsets)| reaches(offsets, other.of_topic(*topic)))
    }

    /// Whether no topic is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
