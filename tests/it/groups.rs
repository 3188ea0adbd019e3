//! Consumer groups and committed offsets over the wire: every version of every key, every error code, and restarts.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use wire::messages::delete_groups::DeleteGroupsRequest;
use wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use wire::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup};
use wire::messages::find_coordinator::FindCoordinatorRequest;
use wire::messages::heartbeat::HeartbeatRequest;
use wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use wire::messages::list_groups::ListGroupsRequest;
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    OffsetFetchResponse,
};
use wire::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};

use crate::raw::Raw;
use crate::server::Server;

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

#[tokio::test]
async fn a_member_lives_its_life_in_every_version() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    create_topic(&mut raw, "read").await;
    for step in 0..=9i16 {
        let group = format!("group-{step}");
        let (sync, beat, leave) = (step.min(5), step.min(4), step.min(5));
        let (commit, fetch) = ((step + 2).min(9), step.max(1));
        let joined = join(&mut raw, step, &join_request(&group, "")).await;
        assert_eq!(
            (
                joined.error_code,
                joined.generation_id,
                joined.protocol_name.as_deref()
            ),
            (NONE, 1, Some("range")),
            "version {step}"
        );
        assert_eq!(
            (joined.leader.as_str(), joined.members.len()),
            (joined.member_id.as_str(), 1)
        );
        assert_eq!(
            joined.protocol_type.as_deref(),
            (step >= 7).then_some("consumer")
        );
        let synced: SyncGroupResponse = raw.call(sync, &sync_request(&group, &joined, sync)).await;
        assert_eq!(
            (synced.error_code, synced.assignment),
            (NONE, Bytes::from(format!("for {}", joined.member_id)))
        );
        assert_eq!(
            raw.call(beat, &heartbeat_request(&group, &joined.member_id, 1))
                .await
                .error_code,
            NONE
        );
        let request = OffsetCommitRequest {
            generation_id_or_member_epoch: 1,
            member_id: joined.member_id.clone(),
            ..commit_request(&group, "read", 40 + i64::from(step))
        };
        assert_eq!(commit_code(&mut raw, commit, &request).await, NONE);
        assert_eq!(
            fetched(&mut raw, fetch, &group, "read").await,
            (40 + i64::from(step), "note".into())
        );
        let described = describe(&mut raw, step.min(6), &group).await;
        assert_eq!(
            (
                described.group_state.as_str(),
                described.protocol_data.as_str(),
                described.members.len()
            ),
            ("Stable", "range", 1)
        );
        assert_eq!(
            (
                described.members[0].client_id.as_str(),
                described.members[0].client_host.as_str()
            ),
            ("raw", "/127.0.0.1")
        );
        let request = if leave >= 3 {
            let members = vec![MemberIdentity {
                member_id: joined.member_id,
                ..MemberIdentity::default()
            }];
            LeaveGroupRequest {
                group_id: group.clone(),
                members,
                ..LeaveGroupRequest::default()
            }
        } else {
            LeaveGroupRequest {
                group_id: group.clone(),
                member_id: joined.member_id,
                ..LeaveGroupRequest::default()
            }
        };
        assert_eq!(raw.call(leave, &request).await.error_code, NONE);
        let listed = raw.call(step.min(5), &ListGroupsRequest::default()).await;
        let listed = listed
            .groups
            .iter()
            .find(|listed| listed.group_id == group)
            .expect("it is listed");
        assert_eq!(listed.protocol_type, "consumer");
        assert_eq!(listed.group_state, if step >= 4 { "Empty" } else { "" });
        assert_eq!(
            raw.call(
                step.min(2),
                &DeleteGroupsRequest {
                    groups_names: vec![group]
                }
            )
            .await
            .results[0]
                .error_code,
            NONE
        );
    }
}

#[tokio::test]
async fn joins_are_refused_with_kafkas_codes() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    let request = join_request("g", "");
    let code = async |raw: &mut Raw, version: i16, request: &JoinGroupRequest| {
        let answer = raw.call(version, request).await;
        assert_eq!(
            (
                answer.generation_id,
                answer.leader.as_str(),
                answer.members.len()
            ),
            (-1, "", 0)
        );
        assert_eq!(
            answer.protocol_name.is_none(),
            version >= 7,
            "null from version 7 on, empty before"
        );
        answer.error_code
    };
    assert_eq!(
        code(
            &mut raw,
            4,
            &JoinGroupRequest {
                group_id: String::new(),
                ..request.clone()
            }
        )
        .await,
        INVALID_GROUP_ID
    );
    assert_eq!(
        code(
            &mut raw,
            4,
            &JoinGroupRequest {
                session_timeout_ms: 5_999,
                ..request.clone()
            }
        )
        .await,
        INVALID_SESSION_TIMEOUT
    );
    assert_eq!(
        code(
            &mut raw,
            9,
            &JoinGroupRequest {
                session_timeout_ms: -1,
                ..request.clone()
            }
        )
        .await,
        INVALID_SESSION_TIMEOUT
    );
    assert_eq!(
        code(
            &mut raw,
            6,
            &JoinGroupRequest {
                protocols: Vec::new(),
                ..request.clone()
            }
        )
        .await,
        INCONSISTENT_GROUP_PROTOCOL
    );
    assert_eq!(
        code(
            &mut raw,
            7,
            &JoinGroupRequest {
                member_id: "invented".into(),
                ..request.clone()
            }
        )
        .await,
        UNKNOWN_MEMBER_ID
    );
    assert_eq!(code(&mut raw, 4, &request).await, MEMBER_ID_REQUIRED);
    assert_eq!(
        raw.call(
            3,
            &JoinGroupRequest {
                group_id: "old".into(),
                ..request
            }
        )
        .await
        .error_code,
        NONE,
        "version 3 needs no id"
    );
}

#[tokio::test]
async fn a_second_member_makes_the_first_rejoin() {
    let server = Server::start().await;
    let mut first = connect(server.address).await;
    let mut second = connect(server.address).await;
    let leader = member(&mut first, "g").await;
    let id = second.call(9, &join_request("g", "")).await.member_id;
    second.send(9, &join_request("g", &id)).await;
    let beat = heartbeat_request("g", &leader.member_id, 1);
    while first.call(4, &beat).await.error_code == NONE {}
    assert_eq!(first.call(4, &beat).await.error_code, REBALANCE_IN_PROGRESS);
    assert_eq!(
        first
            .call(5, &sync_request("g", &leader, 5))
            .await
            .error_code,
        REBALANCE_IN_PROGRESS
    );
    let again = first.call(9, &join_request("g", &leader.member_id)).await;
    let joined = second.receive::<JoinGroupRequest>(9).await;
    assert_eq!((again.generation_id, again.members.len()), (2, 2));
    assert_eq!(
        (
            joined.generation_id,
            joined.members.len(),
            joined.leader.as_str()
        ),
        (2, 0, leader.member_id.as_str())
    );
    second.send(5, &sync_request("g", &joined, 5)).await;
    let stale = sync_request("g", &leader, 5);
    assert_eq!(first.call(5, &stale).await.error_code, ILLEGAL_GENERATION);
    let nameless = SyncGroupRequest {
        protocol_name: None,
        ..sync_request("g", &again, 5)
    };
    assert_eq!(
        first.call(5, &nameless).await.error_code,
        INCONSISTENT_GROUP_PROTOCOL
    );
    assert_eq!(
        first
            .call(5, &sync_request("g", &again, 5))
            .await
            .assignment,
        format!("for {}", leader.member_id)
    );
    assert_eq!(
        second.receive::<SyncGroupRequest>(5).await.assignment,
        format!("for {id}")
    );
}

#[tokio::test]
async fn a_member_that_hangs_up_while_it_waits_is_not_forgotten_at_once() {
    let server = Server::start().await;
    let mut first = connect(server.address).await;
    let leader = member(&mut first, "g").await;
    let mut second = connect(server.address).await;
    let id = second.call(9, &join_request("g", "")).await.member_id;
    second.send(9, &join_request("g", &id)).await;
    let beat = heartbeat_request("g", &leader.member_id, 1);
    while first.call(4, &beat).await.error_code == NONE {}
    drop(second);
    let again = first.call(9, &join_request("g", &leader.member_id)).await;
    assert_eq!(again.members.len(), 2, "its session goes on");
}

#[tokio::test]
async fn static_members_bounce_and_fence() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    let request = JoinGroupRequest {
        group_instance_id: Some("left".into()),
        ..join_request("g", "")
    };
    let first = raw.call(9, &request).await;
    assert_eq!(
        (first.error_code, first.generation_id),
        (NONE, 1),
        "no second round for an id"
    );
    let sync = SyncGroupRequest {
        group_instance_id: Some("left".into()),
        ..sync_request("g", &first, 5)
    };
    assert_eq!(raw.call(5, &sync).await.error_code, NONE);
    let second = raw.call(9, &request).await;
    assert_eq!(
        (
            second.generation_id,
            second.skip_assignment,
            second.members.len()
        ),
        (1, true, 1)
    );
    let third = raw.call(8, &request).await;
    assert_eq!(
        (
            third.generation_id,
            third.skip_assignment,
            third.leader == third.member_id
        ),
        (1, false, false)
    );
    let beat = HeartbeatRequest {
        group_instance_id: Some("left".into()),
        ..heartbeat_request("g", &first.member_id, 1)
    };
    assert_eq!(raw.call(4, &beat).await.error_code, FENCED_INSTANCE_ID);
    let current = SyncGroupRequest {
        member_id: third.member_id.clone(),
        assignments: Vec::new(),
        ..sync
    };
    assert_eq!(
        raw.call(5, &current).await.assignment,
        format!("for {}", first.member_id),
        "the assignment stays with the name"
    );
    let by_name = |member_id: &str, name: &str| MemberIdentity {
        member_id: member_id.into(),
        group_instance_id: Some(name.into()),
        ..MemberIdentity::default()
    };
    let members = vec![
        by_name(&first.member_id, "left"),
        by_name("", "nobody"),
        by_name("", "left"),
    ];
    let left = raw
        .call(
            4,
            &LeaveGroupRequest {
                group_id: "g".into(),
                members,
                ..LeaveGroupRequest::default()
            },
        )
        .await;
    let codes: Vec<_> = left
        .members
        .iter()
        .map(|member| member.error_code)
        .collect();
    assert_eq!(codes, [FENCED_INSTANCE_ID, UNKNOWN_MEMBER_ID, NONE]);
    assert_eq!(left.members[2].group_instance_id.as_deref(), Some("left"));
    assert_eq!(describe(&mut raw, 5, "g").await.group_state, "Empty");
}

#[tokio::test]
async fn leaving_in_old_versions_answers_for_the_one_member() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    let joined = member(&mut raw, "g").await;
    for version in 0..=2 {
        let stranger = LeaveGroupRequest {
            group_id: "g".into(),
            member_id: "stranger".into(),
            ..LeaveGroupRequest::default()
        };
        assert_eq!(
            raw.call(version, &stranger).await.error_code,
            UNKNOWN_MEMBER_ID
        );
    }
    let missing = LeaveGroupRequest {
        group_id: "missing".into(),
        member_id: "m".into(),
        ..LeaveGroupRequest::default()
    };
    assert_eq!(raw.call(1, &missing).await.error_code, UNKNOWN_MEMBER_ID);
    let own = LeaveGroupRequest {
        group_id: "g".into(),
        member_id: joined.member_id,
        ..LeaveGroupRequest::default()
    };
    assert_eq!(raw.call(1, &own).await.error_code, NONE);
}

#[tokio::test]
async fn heartbeats_are_refused_with_kafkas_codes() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    let joined = member(&mut raw, "g").await;
    let code = async |raw: &mut Raw, group: &str, id: &str, generation: i32| {
        raw.call(4, &heartbeat_request(group, id, generation))
            .await
            .error_code
    };
    assert_eq!(code(&mut raw, "", "m", 1).await, INVALID_GROUP_ID);
    assert_eq!(code(&mut raw, "missing", "m", 1).await, UNKNOWN_MEMBER_ID);
    assert_eq!(code(&mut raw, "g", "m", 1).await, UNKNOWN_MEMBER_ID);
    assert_eq!(
        code(&mut raw, "g", &joined.member_id, 2).await,
        ILLEGAL_GENERATION
    );
    assert_eq!(
        code(&mut raw, "g", &joined.member_id, -1).await,
        ILLEGAL_GENERATION
    );
    assert_eq!(code(&mut raw, "g", &joined.member_id, 1).await, NONE);
}

#[tokio::test]
async fn commits_are_refused_with_kafkas_codes() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    create_topic(&mut raw, "read").await;
    assert_eq!(
        commit_code(&mut raw, 8, &commit_request("g", "missing", 1)).await,
        UNKNOWN_TOPIC_OR_PARTITION
    );
    for partition_index in [-1, 2] {
        let mut request = commit_request("g", "read", 1);
        request.topics[0].partitions[0].partition_index = partition_index;
        assert_eq!(
            commit_code(&mut raw, 8, &request).await,
            UNKNOWN_TOPIC_OR_PARTITION
        );
    }
    let claiming = |generation: i32, member_id: &str| OffsetCommitRequest {
        generation_id_or_member_epoch: generation,
        member_id: member_id.into(),
        ..commit_request("g", "read", 1)
    };
    assert_eq!(
        commit_code(&mut raw, 8, &claiming(1, "m")).await,
        ILLEGAL_GENERATION,
        "of a group that does not exist"
    );
    assert_eq!(
        commit_code(&mut raw, 9, &claiming(1, "m")).await,
        GROUP_ID_NOT_FOUND,
        "and from version 9"
    );
    let joined = member(&mut raw, "g").await;
    assert_eq!(
        commit_code(&mut raw, 9, &claiming(-1, "")).await,
        UNKNOWN_MEMBER_ID
    );
    assert_eq!(
        commit_code(&mut raw, 9, &claiming(1, "m")).await,
        UNKNOWN_MEMBER_ID
    );
    assert_eq!(
        commit_code(&mut raw, 9, &claiming(0, &joined.member_id)).await,
        ILLEGAL_GENERATION
    );
    assert_eq!(
        commit_code(&mut raw, 9, &claiming(1, &joined.member_id)).await,
        NONE
    );
    let rejoined = raw.call(9, &join_request("g", &joined.member_id)).await;
    assert_eq!(
        commit_code(
            &mut raw,
            9,
            &claiming(rejoined.generation_id, &joined.member_id)
        )
        .await,
        REBALANCE_IN_PROGRESS
    );
}

#[tokio::test]
async fn one_partitions_refusal_leaves_the_others_alone() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    create_topic(&mut raw, "read").await;
    let mut request = commit_request("g", "read", 7);
    let partition = |partition_index: i32, bytes: usize| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: 7,
        committed_leader_epoch: 3,
        committed_metadata: Some("x".repeat(bytes)),
    };
    request.topics[0].partitions = vec![partition(9, 0), partition(0, 4097), partition(1, 4096)];
    let answer = raw.call(8, &request).await;
    let codes: Vec<_> = answer.topics[0]
        .partitions
        .iter()
        .map(|it| (it.partition_index, it.error_code))
        .collect();
    assert_eq!(
        codes,
        [
            (9, UNKNOWN_TOPIC_OR_PARTITION),
            (0, OFFSET_METADATA_TOO_LARGE),
            (1, NONE)
        ]
    );
    let all = fetch(&mut raw, 5, "g", None).await;
    let partitions: Vec<_> = all.topics[0]
        .partitions
        .iter()
        .map(|it| {
            (
                it.partition_index,
                it.committed_offset,
                it.committed_leader_epoch,
            )
        })
        .collect();
    assert_eq!(partitions, [(1, 7, 3)]);
}

#[tokio::test]
async fn offsets_that_nobody_committed_are_minus_one_and_no_error() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    create_topic(&mut raw, "read").await;
    for version in 1..=9 {
        for topic in ["read", "missing", "not a name"] {
            assert_eq!(
                fetched(&mut raw, version, "g", topic).await,
                (-1, String::new())
            );
        }
    }
    assert_eq!(fetch(&mut raw, 9, "g", None).await.groups[0].topics, []);
    let bare = OffsetCommitRequestPartition {
        committed_offset: 3,
        committed_metadata: None,
        ..OffsetCommitRequestPartition::default()
    };
    let mut request = commit_request("g", "read", 0);
    request.topics[0].partitions = vec![bare];
    assert_eq!(commit_code(&mut raw, 8, &request).await, NONE);
    assert_eq!(
        fetched(&mut raw, 9, "g", "read").await,
        (3, String::new()),
        "null metadata reads as empty"
    );
}

#[tokio::test]
async fn many_groups_are_fetched_at_once() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    create_topic(&mut raw, "read").await;
    for (group, offset) in [("a", 5), ("b", 6)] {
        assert_eq!(
            commit_code(&mut raw, 8, &commit_request(group, "read", offset)).await,
            NONE
        );
    }
    let group = |group_id: &str| OffsetFetchRequestGroup {
        group_id: group_id.into(),
        topics: None,
        ..OffsetFetchRequestGroup::default()
    };
    let groups = vec![group("a"), group("b"), group("c")];
    let answer = raw
        .call(
            8,
            &OffsetFetchRequest {
                groups,
                require_stable: true,
                ..OffsetFetchRequest::default()
            },
        )
        .await;
    let offsets: Vec<_> = answer
        .groups
        .iter()
        .map(|it| {
            (
                it.group_id.as_str(),
                it.topics
                    .first()
                    .map(|it| it.partitions[0].committed_offset),
            )
        })
        .collect();
    assert_eq!(offsets, [("a", Some(5)), ("b", Some(6)), ("c", None)]);
}

#[tokio::test]
async fn every_group_is_coordinated_here() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    for version in 0..=3 {
        let answer = raw
            .call(
                version,
                &FindCoordinatorRequest {
                    key: "g".into(),
                    ..FindCoordinatorRequest::default()
                },
            )
            .await;
        assert_eq!(
            (answer.error_code, answer.host.as_str(), answer.port),
            (NONE, "127.0.0.1", i32::from(server.address.port()))
        );
    }
    let keys = vec!["a".into(), "b".into()];
    let batch = FindCoordinatorRequest {
        coordinator_keys: keys,
        ..FindCoordinatorRequest::default()
    };
    let answer = raw.call(4, &batch).await;
    let found: Vec<_> = answer
        .coordinators
        .iter()
        .map(|it| (it.key.as_str(), it.error_code, it.port))
        .collect();
    let port = i32::from(server.address.port());
    assert_eq!(found, [("a", NONE, port), ("b", NONE, port)]);
    let of_nothing = FindCoordinatorRequest {
        key: "g".into(),
        key_type: 7,
        ..FindCoordinatorRequest::default()
    };
    assert_eq!(raw.call(2, &of_nothing).await.error_code, INVALID_REQUEST);
}

#[tokio::test]
async fn groups_are_described_and_listed_as_kafkas_tools_expect() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    create_topic(&mut raw, "read").await;
    assert_eq!(
        commit_code(&mut raw, 8, &commit_request("standalone", "read", 1)).await,
        NONE
    );
    member(&mut raw, "members").await;
    let missing = describe(&mut raw, 5, "missing").await;
    assert_eq!(
        (
            missing.error_code,
            missing.group_state.as_str(),
            missing.authorized_operations
        ),
        (NONE, "Dead", i32::MIN)
    );
    let missing = describe(&mut raw, 6, "missing").await;
    assert_eq!(
        (missing.error_code, missing.error_message.is_some()),
        (GROUP_ID_NOT_FOUND, true)
    );
    let request = DescribeGroupsRequest {
        groups: vec!["members".into()],
        include_authorized_operations: true,
    };
    let described = raw.call(5, &request).await.groups.remove(0);
    assert_eq!(
        (
            described.protocol_type.as_str(),
            described.members[0].member_metadata.len()
        ),
        ("consumer", 12)
    );
    assert!(described.members[0].member_assignment.starts_with(b"for "));
    assert!(described.authorized_operations > 0);
    let listed = async |raw: &mut Raw, states: &[&str], types: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let answer = raw
            .call(
                5,
                &ListGroupsRequest {
                    states_filter: own(states),
                    types_filter: own(types),
                },
            )
            .await;
        assert_eq!(answer.error_code, NONE);
        answer
            .groups
            .into_iter()
            .map(|it| {
                format!(
                    "{} {} {} {}",
                    it.group_id, it.protocol_type, it.group_state, it.group_type
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        listed(&mut raw, &[], &[]).await,
        [
            "members consumer Stable classic",
            "standalone  Empty classic"
        ]
    );
    assert_eq!(
        listed(&mut raw, &["stable", "Dead"], &["Classic"]).await,
        ["members consumer Stable classic"]
    );
    assert_eq!(listed(&mut raw, &[], &["consumer"]).await, [""; 0]);
}

#[tokio::test]
async fn groups_and_offsets_are_deleted_with_kafkas_codes() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    create_topic(&mut raw, "read").await;
    create_topic(&mut raw, "other").await;
    let joined = member(&mut raw, "g").await;
    for topic in ["read", "other"] {
        let request = OffsetCommitRequest {
            generation_id_or_member_epoch: 1,
            member_id: joined.member_id.clone(),
            ..commit_request("g", topic, 5)
        };
        assert_eq!(commit_code(&mut raw, 8, &request).await, NONE);
    }
    let delete = |group: &str, topics: &[(&str, i32)]| OffsetDeleteRequest {
        group_id: group.into(),
        topics: topics
            .iter()
            .map(|(name, partition_index)| OffsetDeleteRequestTopic {
                name: (*name).into(),
                partitions: vec![OffsetDeleteRequestPartition {
                    partition_index: *partition_index,
                }],
            })
            .collect(),
    };
    let answer = raw
        .call(
            0,
            &delete(
                "g",
                &[("missing", 0), ("read", 0), ("other", 0), ("other", 7)],
            ),
        )
        .await;
    let codes: Vec<_> = answer
        .topics
        .iter()
        .map(|topic| topic.partitions[0].error_code)
        .collect();
    assert_eq!(
        codes,
        [
            UNKNOWN_TOPIC_OR_PARTITION,
            GROUP_SUBSCRIBED_TO_TOPIC,
            NONE,
            UNKNOWN_TOPIC_OR_PARTITION
        ]
    );
    assert_eq!(fetched(&mut raw, 9, "g", "read").await.0, 5);
    assert_eq!(fetched(&mut raw, 9, "g", "other").await.0, -1);
    assert_eq!(
        raw.call(0, &delete("missing", &[("read", 0)]))
            .await
            .error_code,
        GROUP_ID_NOT_FOUND
    );
    assert_eq!(delete_code(&mut raw, "g").await, NON_EMPTY_GROUP);
    assert_eq!(delete_code(&mut raw, "missing").await, GROUP_ID_NOT_FOUND);
    leave(&mut raw, "g", &joined.member_id).await;
    assert_eq!(delete_code(&mut raw, "g").await, NONE);
    assert_eq!(delete_code(&mut raw, "g").await, GROUP_ID_NOT_FOUND);
    assert_eq!(fetched(&mut raw, 9, "g", "read").await.0, -1);
}

#[tokio::test]
async fn a_deleted_topics_offsets_do_not_count_for_the_next_of_its_name() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    create_topic(&mut raw, "read").await;
    assert_eq!(
        commit_code(&mut raw, 8, &commit_request("g", "read", 5)).await,
        NONE
    );
    let topics = vec![DeleteTopicState {
        name: Some("read".into()),
        ..DeleteTopicState::default()
    }];
    let deleted = raw
        .call(
            6,
            &DeleteTopicsRequest {
                topics,
                timeout_ms: 5_000,
                ..DeleteTopicsRequest::default()
            },
        )
        .await;
    assert_eq!(deleted.responses[0].error_code, NONE);
    assert_eq!(fetched(&mut raw, 9, "g", "read").await.0, -1);
    create_topic(&mut raw, "read").await;
    assert_eq!(fetched(&mut raw, 9, "g", "read").await.0, -1);
    let server = server.cut().await;
    let mut raw = connect(server.address).await;
    assert_eq!(fetched(&mut raw, 9, "g", "read").await.0, -1);
}

#[tokio::test]
async fn a_killed_broker_comes_back_with_its_groups_and_offsets() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    create_topic(&mut raw, "read").await;
    let joined = member(&mut raw, "g").await;
    let commit = |generation: i32, offset: i64| OffsetCommitRequest {
        generation_id_or_member_epoch: generation,
        member_id: joined.member_id.clone(),
        ..commit_request("g", "read", offset)
    };
    assert_eq!(commit_code(&mut raw, 8, &commit(1, 5)).await, NONE);
    let server = server.cut().await;
    let mut raw = connect(server.address).await;
    assert_eq!(fetched(&mut raw, 9, "g", "read").await, (5, "note".into()));
    assert_eq!(
        raw.call(4, &heartbeat_request("g", &joined.member_id, 1))
            .await
            .error_code,
        NONE,
        "the member is still one"
    );
    assert_eq!(commit_code(&mut raw, 8, &commit(1, 6)).await, NONE);
    let rejoined = raw.call(9, &join_request("g", &joined.member_id)).await;
    assert_eq!(rejoined.generation_id, 2);
    let server = server.cut().await;
    let mut raw = connect(server.address).await;
    assert_eq!(fetched(&mut raw, 9, "g", "read").await.0, 6);
    assert_eq!(
        raw.call(4, &heartbeat_request("g", &joined.member_id, 2))
            .await
            .error_code,
        ILLEGAL_GENERATION,
        "it never became stable"
    );
    let rejoined = raw.call(9, &join_request("g", &joined.member_id)).await;
    assert_eq!(
        (rejoined.error_code, rejoined.generation_id),
        (NONE, 3),
        "and its number is not given out again"
    );
}

#[tokio::test]
async fn a_static_member_that_restarts_with_the_broker_causes_no_rebalance() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    let request = JoinGroupRequest {
        group_instance_id: Some("left".into()),
        ..join_request("g", "")
    };
    let first = raw.call(9, &request).await;
    assert_eq!(
        raw.call(
            5,
            &SyncGroupRequest {
                group_instance_id: Some("left".into()),
                ..sync_request("g", &first, 5)
            }
        )
        .await
        .error_code,
        NONE
    );
    let server = server.cut().await;
    let mut raw = connect(server.address).await;
    let second = raw.call(9, &request).await;
    assert_eq!((second.generation_id, second.skip_assignment), (1, true));
}

#[tokio::test]
async fn thousands_of_commits_leave_the_last_one() {
    let server = Server::start().await;
    let mut raw = connect(server.address).await;
    create_topic(&mut raw, "read").await;
    let mut writers = Vec::new();
    for writer in 0..4 {
        let address = server.address;
        writers.push(tokio::spawn(async move {
            let mut raw = connect(address).await;
            for offset in 0..500 {
                assert_eq!(
                    commit_code(
                        &mut raw,
                        8,
                        &commit_request(&format!("g{writer}"), "read", offset)
                    )
                    .await,
                    NONE
                );
            }
        }));
    }
    for writer in writers {
        tokio::time::timeout(Duration::from_secs(60), writer)
            .await
            .expect("in time")
            .expect("no panic");
    }
    let server = server.cut().await;
    let mut raw = connect(server.address).await;
    for writer in 0..4 {
        assert_eq!(
            fetched(&mut raw, 9, &format!("g{writer}"), "read").await.0,
            499
        );
    }
}
