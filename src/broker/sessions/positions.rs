//! An offset for each partition of some topics. Pure.

use std::sync::Arc;

use model::{Offset, PartitionId, TopicId};

use crate::broker::place::{Place, later_offsets, offset_mut, offset_of, reaches};

/// An offset for each partition of some topics; what is not named is at the start. Clones share the offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(Vec<OfTopic>);

/// Topics are in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OfTopic {
    topic: TopicId,
    offsets: Arc<[Offset]>,
}

impl Positions {
    fn find(&self, topic: TopicId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&topic, |it| it.topic)
    }

    /// Topics in the order of their ids, with the offsets of their partitions.
    pub fn topics(&self) -> impl Iterator<Item = (TopicId, &[Offset])> {
        let all = self.0.iter();
        all.map(|it| (it.topic, &*it.offsets))
    }

    /// Sets all of a topic.
    pub fn set_topic(&mut self, topic: TopicId, offsets: impl Into<Arc<[Offset]>>) {
        let offsets = offsets.into();
        match self.find(topic) {
            Ok(at) => self.0[at].offsets = offsets,
            Err(at) => {
                // As a rule there is one, of each of many sessions.
                self.0.reserve_exact(1);
                self.0.insert(at, OfTopic { topic, offsets });
            }
        }
    }

    /// Whether the topic is named.
    pub fn has(&self, topic: TopicId) -> bool {
        self.find(topic).is_ok()
    }

    /// All of a topic.
    pub fn of_topic(&self, topic: TopicId) -> &[Offset] {
        self.find(topic).map_or(&[], |at| &*self.0[at].offsets)
    }

    /// The same, for whoever keeps it.
    pub fn shared_of_topic(&self, topic: TopicId) -> Arc<[Offset]> {
        let at = self.find(topic);
        at.map_or_else(|_| Arc::default(), |at| Arc::clone(&self.0[at].offsets))
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
        let Place {
            topic,
            partition,
            offset,
        } = place;
        if let Ok(at) = self.find(topic) {
            let offsets = &mut self.0[at].offsets;
            let index = partition.get() as usize;
            if index < offsets.len() {
                Arc::make_mut(offsets)[index] = offset;
                return;
            }
        }
        let mut offsets = self.of_topic(topic).to_vec();
        *offset_mut(&mut offsets, partition) = offset;
        self.set_topic(topic, offsets);
    }

    /// The later of both in each partition of the topics that are named here.
    pub fn advance(&mut self, other: &Positions) {
        for it in &mut self.0 {
            if let Ok(at) = other.find(it.topic) {
                it.offsets = later_offsets(&it.offsets, &other.0[at].offsets).into();
            }
        }
    }

    /// The same, in one memory with the other where they are the same.
    pub fn sharing(mut self, other: &Positions) -> Positions {
        for it in &mut self.0 {
            if let Ok(at) = other.find(it.topic)
                && it.offsets == other.0[at].offsets
            {
                it.offsets = Arc::clone(&other.0[at].offsets);
            }
        }
        self
    }

    /// Whether this one is as far as the other in each partition of the topics that are named here.
    pub fn reaches(&self, other: &Positions) -> bool {
        let mut all = self.0.iter();
        all.all(|it| reaches(&it.offsets, other.of_topic(it.topic)))
    }

    /// Whether no topic is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_partition_of_each_topic_has_the_offset_that_was_set_last(
            changes in proptest::collection::vec((0..3u128, 0..5u32, 0..9u64, any::<bool>()), 0..30),
        ) {
            let topic = |number| TopicId::from_uuid(uuid::Uuid::from_u128(number));
            let mut expected = std::collections::BTreeMap::new();
            let (mut positions, mut others) = (Positions::default(), Vec::new());
            for (number, partition, offset, is_shared) in changes {
                if is_shared {
                    others.push((positions.clone(), expected.clone()));
                }
                let place = Place {
                    topic: topic(number),
                    partition: PartitionId::new(partition),
                    offset: Offset::new(offset),
                };
                positions.set(place);
                expected.insert((number, partition), offset);
            }
            // Clones stay as they were.
            others.push((positions, expected));
            for (positions, expected) in others {
                for number in 0..3 {
                    for partition in 0..5 {
                        let offset = positions.get(topic(number), PartitionId::new(partition));
                        let last = expected.get(&(number, partition)).copied();
                        prop_assert_eq!(offset, Offset::new(last.unwrap_or(0)));
                    }
                }
                let ids: Vec<_> = positions.topics().map(|(id, _)| id).collect();
                prop_assert!(ids.is_sorted());
            }
        }
    }
}
