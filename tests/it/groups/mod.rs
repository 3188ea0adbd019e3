//! Consumer groups and committed offsets over the wire: every version of every key, every error code, and restarts.
//! This file holds the requests that the tests send; the tests are beside it.

mod administration;
mod members;
mod offsets;
mod restarts;

use std::net::SocketAddr;

use bytes::Bytes;
use wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use wire::messages::delete_groups::DeleteGroupsRequest;
use wire::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup};
use wire::messages::heartbeat::HeartbeatRequest;
use wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    OffsetFetchResponse,
};
use wire::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};

use crate::raw::Raw;

const NONE: i16 = 0;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const OFFSET_METADATA_TOO_LARGE: i16 = 12;
const ILLEGAL_GENERATION: i16 = 22;
const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
const INVALID_GROUP_ID: i16 = 24;
const UNKNOWN_MEMBER_ID: i16 = 25;
const INVALID_SESSION_TIMEOUT: i16 = 26;
const REBALANCE_IN_PROGRESS: i16 = 27;
const INVALID_REQUEST: i16 = 42;
const NON_EMPTY_GROUP: i16 = 68;
const GROUP_ID_NOT_FOUND: i16 = 69;
const MEMBER_ID_REQUIRED: i16 = 79;
const FENCED_INSTANCE_ID: i16 = 82;
const GROUP_SUBSCRIBED_TO_TOPIC: i16 = 86;

fn join_request(group: &str, member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 30_000,
        member_id: member_id.into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: Bytes::from_static(b"\0\0\0\0\0\x01\0\x04read"),
        }],
        ..JoinGroupRequest::default()
    }
}

fn sync_request(group: &str, joined: &JoinGroupResponse, version: i16) -> SyncGroupRequest {
    let assignments = joined
        .members
        .iter()
        .map(|member| SyncGroupRequestAssignment {
            member_id: member.member_id.clone(),
            assignment: Bytes::from(format!("for {}", member.member_id)),
        });
    SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: (version >= 5).then(|| "consumer".into()),
        protocol_name: (version >= 5).then(|| "range".into()),
        assignments: assignments.collect(),
        ..SyncGroupRequest::default()
    }
}

fn heartbeat_request(group: &str, member_id: &str, generation_id: i32) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: group.into(),
        generation_id,
        member_id: member_id.into(),
        ..HeartbeatRequest::default()
    }
}

fn commit_request(group: &str, topic: &str, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        committed_metadata: Some("note".into()),
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: topic.into(),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    OffsetCommitRequest {
        group_id: group.into(),
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    }
}

/// Joins, with a second round where the version asks for one.
async fn join(raw: &mut Raw, version: i16, request: &JoinGroupRequest) -> JoinGroupResponse {
    let answer = raw.call(version, request).await;
    if answer.error_code != MEMBER_ID_REQUIRED {
        return answer;
    }
    assert!(version >= 4 && request.group_instance_id.is_none());
    raw.call(
        version,
        &JoinGroupRequest {
            member_id: answer.member_id,
            ..request.clone()
        },
    )
    .await
}

/// The only member of a stable group.
async fn member(raw: &mut Raw, group: &str) -> JoinGroupResponse {
    let joined = join(raw, 9, &join_request(group, "")).await;
    assert_eq!(joined.error_code, NONE);
    let synced: SyncGroupResponse = raw.call(5, &sync_request(group, &joined, 5)).await;
    assert_eq!(synced.error_code, NONE);
    joined
}

async fn create_topic(raw: &mut Raw, name: &str) {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: 2,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let created = raw
        .call(
            5,
            &CreateTopicsRequest {
                topics: vec![topic],
                timeout_ms: 5_000,
                ..CreateTopicsRequest::default()
            },
        )
        .await;
    assert_eq!(created.topics[0].error_code, NONE);
}

async fn commit_code(raw: &mut Raw, version: i16, request: &OffsetCommitRequest) -> i16 {
    raw.call(version, request).await.topics[0].partitions[0].error_code
}

async fn fetch(
    raw: &mut Raw,
    version: i16,
    group: &str,
    topics: Option<&[&str]>,
) -> OffsetFetchResponse {
    let mut request = OffsetFetchRequest::default();
    if version >= 8 {
        let topic = |name: &&str| OffsetFetchRequestTopics {
            name: (*name).into(),
            partition_indexes: vec![0],
            ..Default::default()
        };
        let topics = topics.map(|topics| topics.iter().map(topic).collect());
        request.groups = vec![OffsetFetchRequestGroup {
            group_id: group.into(),
            topics,
            ..OffsetFetchRequestGroup::default()
        }];
    } else {
        let topic = |name: &&str| OffsetFetchRequestTopic {
            name: (*name).into(),
            partition_indexes: vec![0],
        };
        request.group_id = group.into();
        request.topics = topics.map(|topics| topics.iter().map(topic).collect());
    }
    raw.call(version, &request).await
}

/// Offset and metadata of a topic's partition 0.
async fn fetched(raw: &mut Raw, version: i16, group: &str, topic: &str) -> (i64, String) {
    let response = fetch(raw, version, group, Some(&[topic])).await;
    if version >= 8 {
        let partition = &response.groups[0].topics[0].partitions[0];
        assert_eq!(
            (response.groups[0].error_code, partition.error_code),
            (NONE, NONE)
        );
        (
            partition.committed_offset,
            partition.metadata.clone().expect("never null"),
        )
    } else {
        let partition = &response.topics[0].partitions[0];
        assert_eq!((response.error_code, partition.error_code), (NONE, NONE));
        (
            partition.committed_offset,
            partition.metadata.clone().expect("never null"),
        )
    }
}

async fn describe(raw: &mut Raw, version: i16, group: &str) -> DescribedGroup {
    let request = DescribeGroupsRequest {
        groups: vec![group.into()],
        ..DescribeGroupsRequest::default()
    };
    raw.call(version, &request).await.groups.remove(0)
}

async fn delete_code(raw: &mut Raw, group: &str) -> i16 {
    raw.call(
        2,
        &DeleteGroupsRequest {
            groups_names: vec![group.into()],
        },
    )
    .await
    .results[0]
        .error_code
}

async fn leave(raw: &mut Raw, group: &str, member_id: &str) {
    let members = vec![MemberIdentity {
        member_id: member_id.into(),
        ..MemberIdentity::default()
    }];
    let left = raw
        .call(
            5,
            &LeaveGroupRequest {
                group_id: group.into(),
                members,
                ..LeaveGroupRequest::default()
            },
        )
        .await;
    assert_eq!((left.error_code, left.members[0].error_code), (NONE, NONE));
}

async fn connect(address: SocketAddr) -> Raw {
    Raw::connect(address).await
}
