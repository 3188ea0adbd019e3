//! ElectLeaders (43): every partition is led by its only replica, so that no election is ever needed.

use std::collections::HashSet;

use wire::messages::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};

use super::{Call, held_partition};
use crate::broker::access::{Cluster, Granted, right};
use crate::front::kafka::errors::{self, Failure, Misuse};

/// Elect the preferred replica; any replica, in sync or not.
const ELECTION_TYPES: std::ops::RangeInclusive<i8> = 0..=1;

pub(super) async fn answer(request: ElectLeadersRequest, call: Call) -> ElectLeadersResponse {
    let known = ELECTION_TYPES.contains(&request.election_type);
    let cluster = match call.door.cluster(right::Alter) {
        Ok(cluster) => cluster,
        Err(refusal) => {
            return ElectLeadersResponse {
                error_code: errors::code(&refusal),
                ..ElectLeadersResponse::default()
            };
        }
    };
    let replica_election_results = match request.topic_partitions {
        Some(topics) => topics
            .into_iter()
            .map(|topic| ReplicaElectionResult {
                partition_result: once(topic.partitions)
                    .map(|partition| match known {
                        true => refused(
                            partition,
                            &election(&topic.topic, partition, &cluster, &call),
                        ),
                        false => refused(partition, &Misuse::UnknownElectionType.into()),
                    })
                    .collect(),
                topic: topic.topic,
            })
            .collect(),
        None if !known => Vec::new(),
        // Asked for all, only those are listed that changed or failed, below each topic's name.
        None => call
            .door
            .topics_of(&cluster)
            .into_iter()
            .map(|topic| ReplicaElectionResult {
                topic: topic.name.as_str().to_owned(),
                partition_result: Vec::new(),
            })
            .collect(),
    };
    ElectLeadersResponse {
        error_code: match known {
            true => errors::NONE,
            false => Misuse::UnknownElectionType.code(),
        },
        replica_election_results,
        ..ElectLeadersResponse::default()
    }
}

/// Each partition once.
fn once(partitions: Vec<i32>) -> impl Iterator<Item = i32> {
    let mut named = HashSet::new();
    partitions
        .into_iter()
        .filter(move |partition| named.insert(*partition))
}

/// Why there is none.
fn election(
    topic: &str,
    partition: i32,
    cluster: &Granted<Cluster, right::Alter>,
    call: &Call,
) -> Failure {
    let found = call.door.topic_of(cluster, topic);
    match found.and_then(|topic| held_partition(&topic, partition)) {
        Ok(_) => Misuse::ElectionNotNeeded.into(),
        Err(refusal) => refusal.into(),
    }
}

fn refused(partition_id: i32, failure: &Failure) -> PartitionResult {
    PartitionResult {
        partition_id,
        error_code: failure.code(),
        error_message: Some(failure.to_string()),
    }
}
