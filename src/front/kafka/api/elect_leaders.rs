//! ElectLeaders (43): every partition is led by its only replica, so that no election is ever needed.

use std::collections::HashSet;

use wire::messages::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};

use super::Call;
use crate::broker::Refusal;
use crate::front::kafka::errors::{self, Misuse};

/// Elect the preferred replica; any replica, in sync or not.
const ELECTION_TYPES: std::ops::RangeInclusive<i8> = 0..=1;

pub(super) async fn answer(request: ElectLeadersRequest, call: Call) -> ElectLeadersResponse {
    let known = ELECTION_TYPES.contains(&request.election_type);
    let replica_election_results = match request.topic_partitions {
        Some(topics) => topics
            .into_iter()
            .map(|topic| ReplicaElectionResult {
                partition_result: once(topic.partitions)
                    .map(|partition| match known {
                        true => elected(&topic.topic, partition, &call),
                        false => unknown_type(partition),
                    })
                    .collect(),
                topic: topic.topic,
            })
            .collect(),
        None if !known => Vec::new(),
        // Asked for all, only those are listed that changed or failed, below each topic's name.
        None => call
            .broker
            .topics()
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
            false => errors::misuse(Misuse::InvalidRequest),
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

fn elected(topic: &str, partition_id: i32, call: &Call) -> PartitionResult {
    let found = call
        .broker
        .topic(topic)
        .and_then(|topic| topic.log(partition_id).map(drop));
    match found {
        Ok(()) => PartitionResult {
            partition_id,
            error_code: errors::misuse(Misuse::ElectionNotNeeded),
            error_message: Some("the only replica leads already".into()),
        },
        Err(refusal) => refused(partition_id, &refusal),
    }
}

fn unknown_type(partition_id: i32) -> PartitionResult {
    let refusal = Refusal::InvalidRequest("no such type of election".into());
    refused(partition_id, &refusal)
}

fn refused(partition_id: i32, refusal: &Refusal) -> PartitionResult {
    PartitionResult {
        partition_id,
        error_code: errors::code(refusal),
        error_message: Some(refusal.to_string()),
    }
}
