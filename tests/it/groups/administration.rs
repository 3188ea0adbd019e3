//! Groups as tools see them: found, described, listed and deleted.

use wire::messages::describe_groups::DescribeGroupsRequest;
use wire::messages::find_coordinator::FindCoordinatorRequest;
use wire::messages::list_groups::ListGroupsRequest;
use wire::messages::offset_commit::OffsetCommitRequest;
use wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};

use super::{
    GROUP_ID_NOT_FOUND, GROUP_SUBSCRIBED_TO_TOPIC, INVALID_REQUEST, NON_EMPTY_GROUP, NONE,
    UNKNOWN_TOPIC_OR_PARTITION, commit_code, commit_request, connect, create_topic, delete_code,
    describe, fetched, leave, member,
};
use crate::raw::Raw;
use crate::server::Server;

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
