//! Committed offsets over the wire: commits, look-ups and refusals, in every version, with Kafka's codes.

use wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use wire::messages::offset_commit::{OffsetCommitRequest, OffsetCommitRequestPartition};
use wire::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup};

use super::{
    GROUP_ID_NOT_FOUND, ILLEGAL_GENERATION, NONE, OFFSET_METADATA_TOO_LARGE, REBALANCE_IN_PROGRESS,
    UNKNOWN_MEMBER_ID, UNKNOWN_TOPIC_OR_PARTITION, commit_code, commit_request, connect,
    create_topic, fetch, fetched, join_request, member,
};
use crate::server::Server;

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
