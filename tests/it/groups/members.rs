//! Members over the wire: joining, leaving, rebalances and static members, in every version, with Kafka's codes.

use bytes::Bytes;
use wire::messages::delete_groups::DeleteGroupsRequest;
use wire::messages::heartbeat::HeartbeatRequest;
use wire::messages::join_group::JoinGroupRequest;
use wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use wire::messages::list_groups::ListGroupsRequest;
use wire::messages::offset_commit::OffsetCommitRequest;
use wire::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

use super::{
    FENCED_INSTANCE_ID, ILLEGAL_GENERATION, INCONSISTENT_GROUP_PROTOCOL, INVALID_GROUP_ID,
    INVALID_SESSION_TIMEOUT, MEMBER_ID_REQUIRED, NONE, REBALANCE_IN_PROGRESS, UNKNOWN_MEMBER_ID,
    commit_code, commit_request, connect, create_topic, describe, fetched, heartbeat_request, join,
    join_request, member, sync_request,
};
use crate::raw::Raw;
use crate::server::Server;

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
