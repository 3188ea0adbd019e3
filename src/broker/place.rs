//! Places in topics: one in a partition, and offsets by partition. Pure.

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

/// The offset of a partition, where each has its own; what is not named is at the start.
pub fn offset_of(offsets: &[Offset], partition: PartitionId) -> Offset {
    let offset = offsets.get(partition.get() as usize);
    offset.copied().unwrap_or(Offset::ZERO)
}

/// The same to be changed: what was not named is from here on.
pub fn offset_mut(offsets: &mut Vec<Offset>, partition: PartitionId) -> &mut Offset {
    let index = partition.get() as usize;
    if offsets.len() <= index {
        offsets.resize(index + 1, Offset::ZERO);
    }
    &mut offsets[index]
}

/// The later of both, partition by partition.
pub fn later_offsets(one: &[Offset], other: &[Offset]) -> Vec<Offset> {
    let partitions = (0..).take(one.len().max(other.len())).map(PartitionId::new);
    partitions
        .map(|partition| offset_of(one, partition).max(offset_of(other, partition)))
        .collect()
}

/// Whether one is nowhere behind the other.
pub fn reaches(one: &[Offset], other: &[Offset]) -> bool {
    let partitions = (0..).map(PartitionId::new).zip(other);
    partitions
        .into_iter()
        .all(|(partition, other)| offset_of(one, partition) >= *other)
}
