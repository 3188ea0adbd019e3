//! AlterPartitionReassignments (45): a partition may be moved to where it is. There is nowhere else, and nothing under way
//! that could be cancelled.

use wire::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartition,
    ReassignablePartitionResponse, ReassignableTopicResponse,
};

use super::{Call, held_partition, node_ids};
use crate::front::kafka::errors::{self, Failure, Misuse};

pub(super) async fn answer(
    request: AlterPartitionReassignmentsRequest,
    call: Call,
) -> AlterPartitionReassignmentsResponse {
    let responses = request
        .topics
        .into_iter()
        .map(|topic| ReassignableTopicResponse {
            partitions: topic
                .partitions
                .iter()
                .map(|partition| one(&topic.name, partition, &call))
                .collect(),
            name: topic.name,
        })
        .collect();
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        responses,
        ..AlterPartitionReassignmentsResponse::default()
    }
}

fn one(
    topic: &str,
    partition: &ReassignablePartition,
    call: &Call,
) -> ReassignablePartitionResponse {
    let failure = moved(topic, partition, call).err();
    ReassignablePartitionResponse {
        partition_index: partition.partition_index,
        error_code: failure.as_ref().map_or(errors::NONE, Failure::code),
        error_message: failure.map(|failure| failure.to_string()),
    }
}

fn moved(topic: &str, partition: &ReassignablePartition, call: &Call) -> Result<(), Failure> {
    let topic = call.broker.topic(topic)?;
    held_partition(&topic, partition.partition_index)?;
    match &partition.replicas {
        None => Err(Misuse::NoReassignmentInProgress.into()),
        Some(replicas) => Ok(call.broker.check_assignment(&node_ids(replicas))?),
    }
}
