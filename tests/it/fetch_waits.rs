//! What ends a fetch's wait, and what does not: a limit that is reached and most errors do, a topic or partition that does
//! not exist does not. Nothing here measures time: what must come at once comes before a wait of minutes, and what must
//! be waited for comes with records that were produced meanwhile.

use std::time::Duration;

use alluvium::broker;
use alluvium::broker::access::{Caller, Principal, Protocol, right};
use bytes::Bytes;
use futures_util::FutureExt as _;
use model::batch::{BatchBuilder, Codec};
use model::{Offset, PartitionId, Timestamp};
use wire::Uuid;
use wire::messages::delete_topics::DeleteTopicsRequest;
use wire::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, ForgottenTopic,
};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};

use crate::raw::Raw;
use crate::server::Server;

const NONE: i16 = 0;
const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const UNKNOWN_TOPIC_ID: i16 = 100;
/// Much longer than any test waits.
const LONG_MS: i32 = 600_000;
/// Much shorter than `LONG_MS`.
const AT_ONCE: Duration = Duration::from_secs(60);

fn batch(value_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    let value = vec![7; value_bytes];
    builder
        .push(Timestamp::from_millis(1), None, Some(&value), &[])
        .expect("a small record");
    builder.build().expect("a small batch")
}

async fn produce(raw: &mut Raw, name: &str, partition: i32, value_bytes: usize) {
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: name.into(),
            partition_data: vec![PartitionProduceData {
                index: partition,
                records: Some(batch(value_bytes).into()),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    let answer = raw.call(9, &request).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, NONE);
}

fn wanted(partition: i32, fetch_offset: i64, partition_max_bytes: i32) -> FetchPartition {
    FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes,
        ..FetchPartition::default()
    }
}

/// Topics by name and id, with what is wanted of them.
type Wanted<'a> = Vec<(&'a str, Uuid, Vec<FetchPartition>)>;

fn fetch(version: i16, topics: Wanted<'_>) -> FetchRequest {
    FetchRequest {
        max_wait_ms: LONG_MS,
        min_bytes: 1,
        max_bytes: 50 << 20,
        topics: topics
            .into_iter()
            .map(|(name, topic_id, partitions)| FetchTopic {
                topic: if version < 13 {
                    name.into()
                } else {
                    String::new()
                },
                topic_id: if version < 13 { Uuid::nil() } else { topic_id },
                partitions,
            })
            .collect(),
        ..FetchRequest::default()
    }
}

/// Error code and bytes of each partition of an answer.
fn told(answer: &FetchResponse) -> Vec<(i16, usize)> {
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    partitions
        .map(|partition| {
            let records = partition.records.clone();
            let bytes = records.map_or(0, |records| records.into_bytes().len());
            (partition.error_code, bytes)
        })
        .collect()
}

async fn at_once(raw: &mut Raw, version: i16, request: &FetchRequest) -> Vec<(i16, usize)> {
    let answer = tokio::time::timeout(AT_ONCE, raw.call(version, request)).await;
    told(&answer.expect("this fetch has nothing to wait for"))
}

#[tokio::test]
async fn an_answer_that_is_full_does_not_wait_for_fetch_min_bytes() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let id = raw.create_topic("full", 2).await;
    for _ in 0..4 {
        produce(&mut raw, "full", 0, 1000).await;
    }
    let one = batch(1000).len();
    let limit = |batches: usize| i32::try_from(batches * one).unwrap();
    let min_bytes = limit(100);
    for (what, max_bytes, partitions, bytes) in [
        (
            "the partition's limit",
            50 << 20,
            vec![wanted(0, 0, limit(2))],
            vec![2 * one],
        ),
        (
            "a partition's limit within a batch",
            50 << 20,
            vec![wanted(0, 0, limit(3) - 1)],
            vec![2 * one],
        ),
        (
            "a partition's limit below a batch",
            50 << 20,
            vec![wanted(0, 0, 1)],
            vec![one],
        ),
        (
            "a partition's limit below the last batch",
            50 << 20,
            vec![wanted(0, 3, 1)],
            vec![one],
        ),
        (
            "a limit beside an empty partition",
            50 << 20,
            vec![wanted(0, 0, limit(2)), wanted(1, 0, 1000)],
            vec![2 * one, 0],
        ),
        (
            "the answer's limit",
            limit(2),
            vec![wanted(0, 0, 1 << 20)],
            vec![2 * one],
        ),
        (
            "the answer's limit below the last batch",
            1,
            vec![wanted(0, 3, 1 << 20)],
            vec![one],
        ),
        (
            "the answer's limit, used up",
            limit(3),
            vec![wanted(0, 0, limit(2)), wanted(1, 0, 1 << 20)],
            vec![2 * one, 0],
        ),
    ] {
        for version in [4, 12, 17] {
            let request = FetchRequest {
                min_bytes,
                max_bytes,
                ..fetch(version, vec![("full", id, partitions.clone())])
            };
            let answer = at_once(&mut raw, version, &request).await;
            let found: Vec<usize> = answer.iter().map(|(_, bytes)| *bytes).collect();
            assert_eq!(found, bytes, "{what}, version {version}");
        }
    }
}

#[tokio::test]
async fn a_limit_that_is_not_reached_leaves_the_minimum_as_it_is() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let id = raw.create_topic("some", 2).await;
    produce(&mut raw, "some", 0, 1000).await;
    let one = batch(1000).len();
    let request = FetchRequest {
        min_bytes: i32::try_from(2 * one).unwrap(),
        ..fetch(
            17,
            vec![("some", id, vec![wanted(0, 0, 1 << 20), wanted(1, 0, 0)])],
        )
    };
    raw.send(17, &request).await;
    let mut other = Raw::connect(server.address).await;
    produce(&mut other, "some", 0, 1000).await;
    assert_eq!(
        told(&raw.receive::<FetchRequest>(17).await),
        [(NONE, 2 * one), (NONE, 0)]
    );
}

#[tokio::test]
async fn what_does_not_exist_does_not_end_the_wait_for_what_does() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let mut other = Raw::connect(server.address).await;
    let gone = raw.create_topic("gone", 2).await;
    let delete = DeleteTopicsRequest {
        topic_names: vec!["gone".into()],
        ..DeleteTopicsRequest::default()
    };
    raw.call(5, &delete).await;
    let one = batch(10).len();
    for version in [4, 12, 13, 17] {
        let name = format!("there-{version}");
        let id = raw.create_topic(&name, 2).await;
        for (what, absent, code) in [
            (
                "a partition",
                (name.as_str(), id, vec![wanted(7, 0, 1000)]),
                UNKNOWN_TOPIC_OR_PARTITION,
            ),
            (
                "a negative partition",
                (name.as_str(), id, vec![wanted(-1, 0, 1000)]),
                UNKNOWN_TOPIC_OR_PARTITION,
            ),
            (
                "a deleted topic",
                ("gone", gone, vec![wanted(0, 0, 1000)]),
                if version < 13 {
                    UNKNOWN_TOPIC_OR_PARTITION
                } else {
                    UNKNOWN_TOPIC_ID
                },
            ),
            (
                "a topic that never was",
                ("never", Uuid::from_u128(9), vec![wanted(0, 0, 1000)]),
                if version < 13 {
                    UNKNOWN_TOPIC_OR_PARTITION
                } else {
                    UNKNOWN_TOPIC_ID
                },
            ),
        ] {
            let high = at_once(
                &mut raw,
                version,
                &FetchRequest {
                    max_wait_ms: 0,
                    ..fetch(version, vec![(&name, id, vec![wanted(0, 0, 1 << 20)])])
                },
            )
            .await[0]
                .1
                / one;
            let end = i64::try_from(high).unwrap();
            let request = fetch(
                version,
                vec![absent, (&name, id, vec![wanted(0, end, 1000)])],
            );
            raw.send(version, &request).await;
            produce(&mut other, &name, 0, 10).await;
            assert_eq!(
                told(&raw.receive::<FetchRequest>(version).await),
                [(code, 0), (NONE, one)],
                "{what}, version {version}"
            );
        }
    }
}

#[tokio::test]
async fn where_nothing_exists_there_is_nothing_to_wait_for() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let request = fetch(12, vec![("never", Uuid::nil(), vec![wanted(0, 0, 1000)])]);
    assert_eq!(
        at_once(&mut raw, 12, &request).await,
        [(UNKNOWN_TOPIC_OR_PARTITION, 0)]
    );
}

#[tokio::test]
async fn an_offset_out_of_range_is_told_at_once_beside_what_is_waited_for() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let id = raw.create_topic("ranged", 2).await;
    let request = fetch(
        17,
        vec![("ranged", id, vec![wanted(0, 0, 1000), wanted(1, 9, 1000)])],
    );
    assert_eq!(
        at_once(&mut raw, 17, &request).await,
        [(NONE, 0), (OFFSET_OUT_OF_RANGE, 0)]
    );
}

#[tokio::test]
async fn a_topic_that_is_deleted_under_a_waiting_fetch_ends_it() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    for name in ["kept", "doomed"] {
        raw.create_topic(name, 2).await;
    }
    let door = server.broker.door(Caller {
        principal: Principal::Anonymous,
        address: server.address,
        client_id: None,
        protocol: Protocol::Kafka,
    });
    let partition = |name: &str| broker::FetchPartition {
        topic: door.topic(name, right::Read),
        partition: PartitionId::new(0),
        offset: Some(Offset::ZERO),
        bytes_max: 1000,
        leader_epoch: None,
        last_fetched_epoch: None,
        idle: None,
    };
    let fetch = broker::Fetch {
        partitions: vec![partition("kept"), partition("doomed")],
        bytes_min: 1,
        bytes_max: 1000,
        wait_max: Duration::from_secs(600),
        watch: None,
    };
    let mut waiting = Box::pin(server.broker.fetch(fetch));
    assert!((&mut waiting).now_or_never().is_none(), "it waits");
    let delete = DeleteTopicsRequest {
        topic_names: vec!["doomed".into()],
        ..DeleteTopicsRequest::default()
    };
    raw.call(5, &delete).await;
    let found = tokio::time::timeout(AT_ONCE, waiting).await;
    let found = found.expect("the deletion ends the wait");
    assert!(matches!(&found[0], Some(Ok(fetched)) if fetched.slices.is_empty()));
    assert!(matches!(
        &found[1],
        Some(Err(broker::Refusal::UnknownTopicOrPartition))
    ));
}

fn in_session(id: i32, epoch: i32, request: FetchRequest) -> FetchRequest {
    FetchRequest {
        session_id: id,
        session_epoch: epoch,
        ..request
    }
}

/// Partition and bytes of what an answer tells.
fn news(answer: &FetchResponse) -> Vec<(i32, usize)> {
    assert_eq!(answer.error_code, NONE);
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    let indexes = partitions.map(|partition| partition.partition_index);
    indexes
        .zip(told(answer))
        .map(|(index, (error_code, bytes))| {
            assert_eq!(error_code, NONE);
            (index, bytes)
        })
        .collect()
}

#[tokio::test]
async fn a_fetch_session_tells_what_is_new_and_wakes_for_what_it_did_not_name_again() {
    const SESSION_ID_NOT_FOUND: i16 = 70;
    const INVALID_SESSION_EPOCH: i16 = 71;
    const SESSION_TOPIC_ID_ERROR: i16 = 106;
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let mut producer = Raw::connect(server.address).await;
    let topic_id = raw.create_topic("session", 2).await;
    let one = batch(100).len();
    let short = |request: FetchRequest| FetchRequest {
        max_wait_ms: 1,
        ..request
    };
    for (version, other) in [(12, 13), (17, 12)] {
        let both = |at: i64| vec![wanted(0, at, 1 << 20), wanted(1, at, 1 << 20)];
        let named = |partitions| fetch(version, vec![("session", topic_id, partitions)]);
        let nothing = || fetch(version, vec![]);
        // From the end on, so that both versions begin alike.
        let end = match version {
            12 => 0,
            _ => 2,
        };
        let full = short(in_session(0, 0, named(both(end))));
        let begun = raw.call(version, &full).await;
        let id = begun.session_id;
        assert!(id > 0);
        assert_eq!(news(&begun), [(0, 0), (1, 0)]);

        // Nothing is new.
        let quiet = raw
            .call(version, &short(in_session(id, 1, nothing())))
            .await;
        assert_eq!((quiet.session_id, news(&quiet)), (id, vec![]));

        // A fetch that names nothing waits for both.
        let waiting = in_session(id, 2, nothing());
        let mut waits = Box::pin(raw.call(version, &waiting));
        assert!(waits.as_mut().now_or_never().is_none());
        produce(&mut producer, "session", 1, 100).await;
        let woken = tokio::time::timeout(AT_ONCE, waits).await.expect("woken");
        assert_eq!(news(&woken), [(1, one)]);

        // Until the client has moved on it is given the same, and then what comes.
        let again = raw.call(version, &in_session(id, 3, nothing())).await;
        assert_eq!(news(&again), [(1, one)]);
        produce(&mut producer, "session", 0, 100).await;
        let moved = named(vec![wanted(1, end + 1, 1 << 20)]);
        let other_one = raw.call(version, &in_session(id, 4, moved)).await;
        let mut found = news(&other_one);
        found.sort_unstable();
        // That the partition which moved on ends where it did is told already.
        assert_eq!(found, [(0, one)]);

        // A partition is forgotten: what comes to it is not told.
        let mut forget = in_session(id, 5, named(vec![wanted(0, end + 1, 1 << 20)]));
        forget.forgotten_topics_data = vec![ForgottenTopic {
            topic: forget.topics[0].topic.clone(),
            topic_id: forget.topics[0].topic_id,
            partitions: vec![1],
        }];
        assert!(news(&raw.call(version, &short(forget)).await).is_empty());
        produce(&mut producer, "session", 1, 100).await;
        produce(&mut producer, "session", 0, 100).await;
        let last = raw.call(version, &in_session(id, 6, nothing())).await;
        assert_eq!(news(&last), [(0, one)]);

        let refused = |answer: FetchResponse| (answer.error_code, answer.responses.len());
        let late = raw.call(version, &in_session(id, 6, nothing())).await;
        assert_eq!(refused(late), (INVALID_SESSION_EPOCH, 0));
        let strange = raw
            .call(other, &in_session(id, 7, fetch(other, vec![])))
            .await;
        assert_eq!(refused(strange), (SESSION_TOPIC_ID_ERROR, 0));
        let ended = raw
            .call(version, &short(in_session(id, -1, named(both(end + 2)))))
            .await;
        assert_eq!((ended.session_id, news(&ended)), (0, vec![(0, 0), (1, 0)]));
        let gone = raw.call(version, &in_session(id, 7, nothing())).await;
        assert_eq!(refused(gone), (SESSION_ID_NOT_FOUND, 0));
    }
}
