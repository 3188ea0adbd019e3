//! Where a message goes.

use std::sync::Arc;

use model::{PartitionId, partition_of_key};

use super::message::Outgoing;
use super::refusal::PublishRefusal;
use crate::broker::catalog::Topic;
use crate::broker::{Broker, Refusal};

/// The topic as it is now, if it takes records at all.
pub(super) fn publishable(broker: &Broker, topic: &Topic) -> Result<Arc<Topic>, Refusal> {
    let topic = broker.current(topic)?;
    match topic.config.min_insync_replicas {
        0 | 1 => Ok(topic),
        min_insync_replicas => Err(Refusal::NotEnoughReplicas {
            min_insync_replicas,
        }),
    }
}

/// The partition of a message.
pub(super) fn partition_of(
    topic: &Topic,
    outgoing: &Outgoing<'_>,
) -> Result<PartitionId, PublishRefusal> {
    let partition = match (outgoing.partition, outgoing.message.key) {
        (Some(partition), _) if topic.has(partition) => partition,
        (Some(_), _) => return Err(Refusal::UnknownTopicOrPartition.into()),
        (None, Some(key)) => PartitionId::new(partition_of_key(key, topic.partition_count())),
        (None, None) => topic.keyless.partition(topic.partition_count()),
    };
    Ok(partition)
}
