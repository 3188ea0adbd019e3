//! What groups and committed offsets are after the broker was killed or stopped.

use std::time::Duration;

use wire::messages::join_group::JoinGroupRequest;
use wire::messages::offset_commit::OffsetCommitRequest;
use wire::messages::sync_group::SyncGroupRequest;

use super::{
    ILLEGAL_GENERATION, NONE, commit_code, commit_request, connect, create_topic, fetched,
    heartbeat_request, join_request, member, sync_request,
};
use crate::server::Server;

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
        tokio::time::timeout(Duration::from_secs(300), writer)
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
