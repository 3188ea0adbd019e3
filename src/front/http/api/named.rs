//! What several parts of the API name alike: topics and partitions, in descriptions and as they are.
//!
//! Callers: the other files of `api`.

use model::PartitionId;

use crate::broker::Topic;
use crate::front::http::errors::Failure;
use crate::front::http::schema::{Schema, integer_from, text};

/// A partition's number, in descriptions.
pub(super) fn partition_number() -> Schema {
    integer_from(0)
}

/// A topic's name in a path, in descriptions.
pub(super) fn topic_name() -> Schema {
    text().example("readings")
}

/// The partitions of a topic that are meant: one that it has, or all.
pub(super) fn partitions_of(
    topic: &Topic,
    wanted: Option<u32>,
) -> Result<Vec<PartitionId>, Failure> {
    match wanted.map(PartitionId::new) {
        None => Ok(topic.partitions().collect()),
        Some(partition) if topic.has(partition) => Ok(vec![partition]),
        Some(partition) => Err(Failure::UnknownPartition { partition }),
    }
}
