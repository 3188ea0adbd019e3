//! OffsetCommit: answered when the offsets are durable.

use std::time::Duration;

use model::LeaderEpoch;
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitResponse,
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};

use super::audit::{NAMED_MAX, some};
use super::{Call, held_partition};
use crate::broker::access::right;
use crate::broker::groups::{CommittedPlace, Generation, MemberClaim, OffsetCommit};
use crate::broker::{Refusal, Topic};
use crate::front::kafka::errors;

/// The first version that learns that a group does not exist, instead of that its generation is wrong.
const KNOWS_MISSING: i16 = 9;
/// What a client sends that leaves the retention to the broker.
const DEFAULT_RETENTION_MS: i64 = -1;

pub(super) async fn answer(request: OffsetCommitRequest, call: Call) -> OffsetCommitResponse {
    let claim = MemberClaim {
        member_id: request.member_id,
        instance_id: request.group_instance_id,
        generation: Generation::from_wire(request.generation_id_or_member_epoch),
    };
    let retention = match request.retention_time_ms {
        DEFAULT_RETENTION_MS => None,
        millis => Some(Duration::from_millis(u64::try_from(millis).unwrap_or(0))),
    };
    let mut commits = Vec::new();
    // One code for each partition in the order of the request; None where the group has the say.
    let mut codes: Vec<Option<i16>> = Vec::new();
    for topic in &request.topics {
        let known = call.door.topic(&topic.name, right::Read);
        for partition in &topic.partitions {
            match known
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|topic| commit(topic, partition))
            {
                Ok(commit) => {
                    commits.push(commit);
                    codes.push(None);
                }
                Err(refusal) => codes.push(Some(errors::code(&refusal))),
            }
        }
    }
    let mut results = store(&call, &request.group_id, &claim, commits, retention)
        .await
        .into_iter();
    let mut codes = codes.into_iter().map(|code| {
        code.or_else(|| results.next())
            .expect("each commit has one result")
    });
    let topics = request
        .topics
        .into_iter()
        .map(|topic| OffsetCommitResponseTopic {
            name: topic.name,
            partitions: topic
                .partitions
                .iter()
                .map(|partition| OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: codes.next().expect("each partition has one code"),
                })
                .collect(),
            ..OffsetCommitResponseTopic::default()
        });
    OffsetCommitResponse {
        topics: topics.collect(),
        ..OffsetCommitResponse::default()
    }
}

/// Asks the group; one code for each commit, in order.
async fn store(
    call: &Call,
    group_id: &str,
    claim: &MemberClaim,
    commits: Vec<OffsetCommit>,
    retention: Option<Duration>,
) -> Vec<i16> {
    let group = call.door.group(group_id, right::Read);
    let count = commits.len();
    if count == 0 {
        return Vec::new();
    }
    let is_member = !claim.member_id.is_empty() || claim.generation.is_some();
    let set: Vec<String> = match is_member {
        true => Vec::new(),
        false => commits.iter().take(2 * NAMED_MAX).map(shown).collect(),
    };
    let results = match group {
        Ok(group) => group
            .commit(claim, commits, retention)
            .await
            .map_err(|error| match call.version {
                KNOWS_MISSING.. => errors::group(error),
                _ => errors::group_where_none_is_missing(error),
            }),
        Err(refusal) => Err(errors::code(&refusal)),
    };
    match results {
        Ok(results) => {
            if !is_member && results.iter().any(Result::is_ok) {
                call.offsets_set(group_id, &some(set.into_iter()));
            }
            let code = |result: Result<(), _>| result.map_or_else(errors::group, |()| errors::NONE);
            results.into_iter().map(code).collect()
        }
        Err(code) => vec![code; count],
    }
}

fn shown(commit: &OffsetCommit) -> String {
    let (topic, partition) = (&commit.topic, commit.partition);
    format!("{topic}-{partition}: {}", commit.offset.to_wire())
}

fn commit(topic: &Topic, request: &OffsetCommitRequestPartition) -> Result<OffsetCommit, Refusal> {
    let partition = held_partition(topic, request.partition_index)?;
    Ok(OffsetCommit {
        topic: topic.name.clone(),
        topic_id: topic.id,
        partition,
        offset: CommittedPlace::from_wire(request.committed_offset),
        leader_epoch: LeaderEpoch::from_wire(request.committed_leader_epoch),
        metadata: request.committed_metadata.clone().unwrap_or_default(),
    })
}
