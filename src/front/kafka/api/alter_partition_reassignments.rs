//! AlterPartitionReassignments (45): a partition may be moved to where it is. There is nowhere else, and nothing under way
//! that could be cancelled.

use wire::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartition,
    ReassignablePartitionResponse, ReassignableTopicResponse,
};

use super::{Call, held_partition, node_ids};
use crate::broker::access::{Cluster, Granted, right};
use crate::front::kafka::errors::{self, Failure, Misuse};

pub(super) async fn answer(
    request: AlterPartitionReassignmentsRequest,
    call: Call,
) -> AlterPartitionReassignmentsResponse {
    let cluster = match call.door.cluster(right::Alter) {
        Ok(cluster) => cluster,
        Err(refusal) => {
            return AlterPartitionReassignmentsResponse {
                error_code: errors::code(&refusal),
                error_message: Some(errors::text(&refusal)),
                ..AlterPartitionReassignmentsResponse::default()
            };
        }
    };
    let responses = request
        .topics
        .into_iter()
        .map(|topic| ReassignableTopicResponse {
            partitions: topic
                .partitions
                .iter()
                .map(|partition| one(&topic.name, partition, &cluster, &call))
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
    cluster: &Granted<Cluster, right::Alter>,
    call: &Call,
) -> ReassignablePartitionResponse {
    let failure = moved(topic, partition, cluster, call).err();
    ReassignablePartitionResponse {
        partition_index: partition.partition_index,
        error_code: failure.as_ref().map_or(errors::NONE, Failure::code),
        error_message: failure.map(|failure| failure.to_string()),
    }
}

fn moved(
    topic: &str,
    partition: &ReassignablePartition,
    cluster: &Granted<Cluster, right::Alter>,
    call: &Call,
) -> Result<(), Failure> {
    let topic = call.door.topic_of(cluster, topic)?;
    held_partition(&topic, partition.partition_index)?;
    match &partition.replicas {
        None => Err(Misuse::NoReassignmentInProgress.into()),
        Some(replicas) => Ok(call.broker().check_assignment(&node_ids(replicas))?),
    }
}
