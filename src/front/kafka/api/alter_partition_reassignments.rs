//! AlterPartitionReassignments (45): a partition may be moved to where it is. There is nowhere else, and nothing under way
//! that could be cancelled.

use wire::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartition,
    ReassignablePartitionResponse, ReassignableTopicResponse,
};

use super::Call;
use crate::broker::Refusal;
use crate::front::kafka::errors::{self, Misuse};

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
    let refused = |refusal: Refusal| (errors::code(&refusal), Some(refusal.to_string()));
    let (error_code, error_message) = match (held(topic, partition, call), &partition.replicas) {
        (Err(refusal), _) => refused(refusal),
        (Ok(()), None) => (
            errors::misuse(Misuse::NoReassignmentInProgress),
            Some("nothing is being moved".into()),
        ),
        (Ok(()), Some(replicas)) => match call.broker.check_assignment(replicas) {
            Ok(()) => (errors::NONE, None),
            Err(refusal) => refused(refusal),
        },
    };
    ReassignablePartitionResponse {
        partition_index: partition.partition_index,
        error_code,
        error_message,
    }
}

fn held(topic: &str, partition: &ReassignablePartition, call: &Call) -> Result<(), Refusal> {
    let topic = call.broker.topic(topic)?;
    topic.log(partition.partition_index).map(drop)
}
