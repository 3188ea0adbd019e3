//! Client quotas over the wire: set, told, kept; and what becomes of those who use more.

use std::net::SocketAddr;

use model::Timestamp;
use model::batch::{BatchBuilder, Codec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::messages::alter_client_quotas::{
    AlterClientQuotasRequest, OpData, RequestEntityData, RequestEntryData,
};
use wire::messages::api_versions::ApiVersionsRequest;
use wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use wire::messages::describe_client_quotas::{ComponentData, DescribeClientQuotasRequest};
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use wire::messages::list_groups::ListGroupsRequest;
use wire::messages::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use wire::{ApiKey, ErrorCode, Records, RequestHeader, frame};

use crate::binary::{Running, create_topic, serve};
use crate::raw::Raw;
use crate::server::Server;

/// The client id of [`Raw`].
const CLIENT: &str = "raw";
const TOPIC: &str = "readings";

/// One entry: of these types and names (`*` is the default), these quotas; NaN removes one.
fn entry(entity: &[(&str, &str)], ops: &[(&str, f64)]) -> RequestEntryData {
    RequestEntryData {
        entity: entity
            .iter()
            .map(|(kind, name)| RequestEntityData {
                entity_type: (*kind).to_owned(),
                entity_name: Some((*name).to_owned()).filter(|name| name != "*"),
            })
            .collect(),
        ops: ops
            .iter()
            .map(|(key, value)| OpData {
                key: (*key).to_owned(),
                value: if value.is_nan() { 0.0 } else { *value },
                remove: value.is_nan(),
            })
            .collect(),
    }
}

/// Error codes, one for each entity.
async fn alter(
    address: SocketAddr,
    entries: Vec<RequestEntryData>,
    validate_only: bool,
) -> Vec<i16> {
    let request = AlterClientQuotasRequest {
        entries,
        validate_only,
    };
    // A connection of its own: others may be muted.
    let answer = Raw::connect(address).await.call(1, &request).await;
    answer
        .entries
        .iter()
        .map(|entry| entry.error_code)
        .collect()
}

async fn set(address: SocketAddr, entity: &[(&str, &str)], quota: &str, value: f64) {
    let altered = alter(address, vec![entry(entity, &[(quota, value)])], false).await;
    assert_eq!(altered, [0]);
}

/// What is told of entities that fit, as `type=name … quota=value …`, sorted.
async fn described(
    address: SocketAddr,
    components: Vec<ComponentData>,
    strict: bool,
) -> Vec<String> {
    let request = DescribeClientQuotasRequest { components, strict };
    let answer = Raw::connect(address).await.call(1, &request).await;
    assert_eq!(answer.error_code, 0);
    let mut lines: Vec<String> = answer
        .entries
        .expect("no error")
        .iter()
        .map(|entry| {
            let parts = entry.entity.iter();
            let parts = parts.map(|part| {
                let name = part.entity_name.as_deref().unwrap_or("*");
                format!("{}={name}", part.entity_type)
            });
            let values = entry.values.iter();
            let values = values.map(|value| format!("{}={}", value.key, value.value));
            parts.chain(values).collect::<Vec<_>>().join(" ")
        })
        .collect();
    lines.sort();
    lines
}

fn any(kind: &str) -> ComponentData {
    ComponentData {
        entity_type: kind.to_owned(),
        match_type: 2,
        r#match: None,
    }
}

fn topic(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: -1,
        ..CreatableTopic::default()
    }
}

fn produce(value_bytes: usize, acks: i16) -> ProduceRequest {
    let mut builder = BatchBuilder::new(Codec::None);
    let value = vec![7; value_bytes];
    builder
        .push(Timestamp::from_millis(1), None, Some(&value), &[])
        .expect("a small record");
    let batch = builder.build().expect("a small batch");
    ProduceRequest {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: TOPIC.to_owned(),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(batch.into()),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

/// Bytes of a request, as they are counted: its frame without the length.
fn request_bytes(request: &ProduceRequest) -> f64 {
    let header = RequestHeader {
        key: ApiKey::Produce,
        version: 9,
        correlation_id: 1,
        client_id: Some(CLIENT.into()),
    };
    let pieces = frame::request(&header, request).expect("the version has these fields");
    (pieces.concat().len() - 4) as f64
}

/// Kafka's throttle time of a first use: the excess over the limit, of ten whole samples of a second.
fn first_throttle_ms(bytes: f64, limit: f64) -> i32 {
    ((bytes / 10.0 - limit) / limit * 10_000.0).round() as i32
}

/// A server with the topic, and a connection to it.
async fn started() -> (Server, Raw) {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let request = CreateTopicsRequest {
        topics: vec![topic(TOPIC, 1)],
        ..CreateTopicsRequest::default()
    };
    let answer = raw.call(7, &request).await;
    assert_eq!(answer.topics[0].error_code, 0);
    (server, raw)
}

/// Many requests of somebody else are answered: time enough for one that is not held back.
async fn others_are_served(address: SocketAddr) {
    let mut other = Raw::connect(address).await;
    for _ in 0..50 {
        other
            .call(
                3,
                &ApiVersionsRequest {
                    client_software_name: "it".into(),
                    client_software_version: "1".into(),
                },
            )
            .await;
    }
}

#[tokio::test]
async fn quotas_are_set_told_and_kept_over_a_restart() {
    let server = Server::start().await;
    let address = server.address;
    let alice = [("user", "alice")];
    let altered = alter(
        address,
        vec![
            entry(
                &alice,
                &[("producer_byte_rate", 1024.0), ("request_percentage", 12.5)],
            ),
            entry(
                &[("user", "*"), ("client-id", "app")],
                &[("consumer_byte_rate", 7.0)],
            ),
            entry(&[("ip", "*")], &[("connection_creation_rate", 1e6)]),
            entry(&[("client-id", "c")], &[("controller_mutation_rate", 0.5)]),
        ],
        false,
    )
    .await;
    assert_eq!(altered, [0, 0, 0, 0]);
    let wanted = [
        "client-id=app user=* consumer_byte_rate=7",
        "client-id=c controller_mutation_rate=0.5",
        "ip=* connection_creation_rate=1000000",
        "user=alice producer_byte_rate=1024 request_percentage=12.5",
    ];
    assert_eq!(described(address, Vec::new(), false).await, wanted);
    assert_eq!(
        described(address, vec![any("user")], true).await,
        [wanted[3]]
    );
    assert_eq!(
        described(address, vec![any("user"), any("client-id")], true).await,
        [wanted[0]]
    );

    // What is only looked at, and what cannot be, changes nothing.
    let only_looked_at = vec![entry(&alice, &[("producer_byte_rate", 1.0)])];
    assert_eq!(alter(address, only_looked_at, true).await, [0]);
    let invalid = ErrorCode::InvalidRequest.code();
    let rate = [("producer_byte_rate", 1.0)];
    for (entity, ops) in [
        (&alice[..], &[("no_such_rate", 1.0)][..]),
        (&alice, &[("producer_byte_rate", 0.0)]),
        (&alice, &[("producer_byte_rate", 1.5)]),
        (&alice, &[("connection_creation_rate", 1.0)]),
        (
            &alice,
            &[("producer_byte_rate", 1.0), ("producer_byte_rate", 2.0)],
        ),
        (&[("group", "g")], &rate),
        (&[("user", "")], &rate),
        (&[("user", "alice"), ("ip", "::1")], &rate),
        (
            &[("ip", "no address")],
            &[("connection_creation_rate", 1.0)],
        ),
        (&[], &rate),
    ] {
        let altered = alter(address, vec![entry(entity, ops)], false).await;
        assert_eq!(altered, [invalid], "{entity:?} {ops:?}");
    }
    let twice = vec![
        entry(&alice, &rate),
        entry(&alice, &[("request_percentage", 1.0)]),
    ];
    assert_eq!(alter(address, twice, false).await, [invalid]);
    assert_eq!(described(address, Vec::new(), false).await, wanted);

    let removed = entry(
        &[("client-id", "c")],
        &[("controller_mutation_rate", f64::NAN)],
    );
    let fewer = entry(&alice, &[("request_percentage", f64::NAN)]);
    assert_eq!(alter(address, vec![removed, fewer], false).await, [0, 0]);
    let wanted = [wanted[0], wanted[2], "user=alice producer_byte_rate=1024"];
    assert_eq!(described(address, Vec::new(), false).await, wanted);
    let server = server.cut().await;
    assert_eq!(described(server.address, Vec::new(), false).await, wanted);
}

#[tokio::test]
async fn a_producer_over_its_quota_is_answered_and_then_not_read() {
    let (server, mut raw) = started().await;
    let request = produce(10_000, -1);
    let answer: ProduceResponse = raw.call(9, &request).await;
    assert_eq!(answer.throttle_time_ms, 0);
    // A minute too much.
    let limit = (request_bytes(&request) / 70.0).round();
    set(
        server.address,
        &[("client-id", CLIENT)],
        "producer_byte_rate",
        limit,
    )
    .await;
    let answer: ProduceResponse = raw.call(9, &request).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    let wanted = first_throttle_ms(request_bytes(&request), limit);
    assert!(wanted > 50_000, "{wanted}");
    assert_eq!(answer.throttle_time_ms, wanted);
    raw.send(4, &ListGroupsRequest::default()).await;
    others_are_served(server.address).await;
    assert!(!raw.has_answer());

    // Without an answer to wait for it is the same: the next one who is counted with it is told of both.
    set(
        server.address,
        &[("client-id", CLIENT)],
        "producer_byte_rate",
        limit * 10.0,
    )
    .await;
    let mut silent = Raw::connect(server.address).await;
    silent.send(9, &produce(80_000, 0)).await;
    silent.send(4, &ListGroupsRequest::default()).await;
    loop {
        let mut counted = Raw::connect(server.address).await;
        let answer: ProduceResponse = counted.call(9, &produce(1, -1)).await;
        if answer.throttle_time_ms > 20_000 {
            break;
        }
    }
    others_are_served(server.address).await;
    assert!(!silent.has_answer());

    // Who is not under the quota is not throttled: the user's goes before the client id's.
    set(server.address, &[("user", "*")], "producer_byte_rate", 1e12).await;
    let mut raw = Raw::connect(server.address).await;
    let answer: ProduceResponse = raw.call(9, &request).await;
    assert_eq!(answer.throttle_time_ms, 0);
}

#[tokio::test]
async fn who_has_waited_is_read_again() {
    let (server, mut raw) = started().await;
    let request = produce(10_000, -1);
    // 20 ms too much of ten seconds.
    let limit = (request_bytes(&request) / 10.0 / 1.002).floor();
    set(
        server.address,
        &[("client-id", CLIENT)],
        "producer_byte_rate",
        limit,
    )
    .await;
    let answer: ProduceResponse = raw.call(9, &request).await;
    let wanted = first_throttle_ms(request_bytes(&request), limit);
    assert!((1..100).contains(&wanted), "{wanted}");
    assert_eq!(answer.throttle_time_ms, wanted);
    raw.call(4, &ListGroupsRequest::default()).await;
}

fn fetch(max_bytes: i32) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: TOPIC.to_owned(),
            partitions: vec![FetchPartition {
                partition_max_bytes: max_bytes,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

fn fetched_bytes(answer: &FetchResponse) -> usize {
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    let records = partitions.flat_map(|partition| &partition.records);
    records.map(Records::len).sum()
}

#[tokio::test]
async fn a_consumer_over_its_quota_gets_nothing_and_is_not_charged_for_it() {
    let (server, mut raw) = started().await;
    for _ in 0..10 {
        raw.call(9, &produce(1_000, -1)).await;
    }
    let answer = raw.call(12, &fetch(1 << 20)).await;
    let all = fetched_bytes(&answer);
    assert_eq!(answer.throttle_time_ms, 0);
    // Ten seconds of the quota are six of the ten batches: more is not given at once.
    let batch = all / 10;
    let limit = (batch * 6) as f64 / 10.0;
    set(
        server.address,
        &[("client-id", CLIENT)],
        "consumer_byte_rate",
        limit.ceil(),
    )
    .await;
    let answer = raw.call(12, &fetch(1 << 20)).await;
    assert_eq!(
        (fetched_bytes(&answer), answer.throttle_time_ms),
        (batch * 6, 0)
    );
    for _ in 0..3 {
        let mut raw = Raw::connect(server.address).await;
        let answer = raw.call(12, &fetch(1 << 20)).await;
        assert_eq!((answer.error_code, fetched_bytes(&answer)), (0, 0));
        // The same each time: what was not given was not charged. Some of the window may have passed.
        let told = answer.throttle_time_ms;
        assert!((1..=10_001).contains(&told), "{told}");
    }
}

#[tokio::test]
async fn the_time_of_requests_is_charged_and_never_for_longer_than_a_sample() {
    let (server, _) = started().await;
    set(
        server.address,
        &[("user", "ANONYMOUS"), ("client-id", CLIENT)],
        "request_percentage",
        1e-6,
    )
    .await;
    let told = loop {
        let mut raw = Raw::connect(server.address).await;
        let answer = raw.call(4, &ListGroupsRequest::default()).await;
        if answer.throttle_time_ms > 0 {
            break answer.throttle_time_ms;
        }
    };
    assert!(told <= 1_000, "{told}");
}

#[tokio::test]
async fn partitions_beyond_the_quota_are_refused_or_their_client_waits() {
    let (server, mut raw) = started().await;
    // A bucket of 22, of which 2 come back a second.
    set(
        server.address,
        &[("user", "*")],
        "controller_mutation_rate",
        2.0,
    )
    .await;
    let create = |name: &str, partitions| CreateTopicsRequest {
        topics: vec![topic(name, partitions)],
        timeout_ms: 30_000,
        ..CreateTopicsRequest::default()
    };
    // What is there is enough for a change, however large.
    let answer = raw.call(7, &create("many", 222)).await;
    assert_eq!(
        (answer.topics[0].error_code, answer.throttle_time_ms),
        (0, 0)
    );
    let answer = raw.call(7, &create("more", 1)).await;
    let refused = ErrorCode::ThrottlingQuotaExceeded.code();
    assert_eq!(answer.topics[0].error_code, refused);
    assert!(
        (1..=100_000).contains(&answer.throttle_time_ms),
        "{}",
        answer.throttle_time_ms
    );
    let mut raw = Raw::connect(server.address).await;
    let request = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: Some("many".into()),
            ..DeleteTopicState::default()
        }],
        timeout_ms: 30_000,
        ..DeleteTopicsRequest::default()
    };
    let answer = raw.call(6, &request).await;
    assert_eq!(answer.responses[0].error_code, refused);
    // A client that does not know the refusal waits instead.
    let mut raw = Raw::connect(server.address).await;
    let answer = raw.call(5, &create("more", 1)).await;
    assert_eq!(answer.topics[0].error_code, 0);
    assert!(answer.throttle_time_ms > 0);
}

/// Whether a new connection is served.
async fn is_served(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address)
        .await
        .expect("the broker listens");
    let header = RequestHeader {
        key: ApiKey::ApiVersions,
        version: 0,
        correlation_id: 1,
        client_id: None,
    };
    let request = ApiVersionsRequest::default();
    let pieces = frame::request(&header, &request).expect("the version has these fields");
    if stream.write_all(&pieces.concat()).await.is_err() {
        return false;
    }
    stream.read_u32().await.is_ok()
}

#[tokio::test]
async fn an_address_that_connects_too_fast_is_closed() {
    let server = Server::start().await;
    set(
        server.address,
        &[("ip", "127.0.0.1")],
        "connection_creation_rate",
        1.0,
    )
    .await;
    let mut served = 0;
    for _ in 0..14 {
        served += i32::from(is_served(server.address).await);
    }
    // Ten at once are one a second over ten seconds. Those who are not served wait, and some of the window passes.
    assert!((10..14).contains(&served), "{served}");
    // Without the quota there is no limit any more.
    end_address_quota(server.address).await;
    for _ in 0..20 {
        assert!(is_served(server.address).await);
    }
}

/// Ends the quota of the address; who does has to come again until it is let in.
async fn end_address_quota(address: SocketAddr) {
    loop {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let header = RequestHeader {
            key: ApiKey::AlterClientQuotas,
            version: 1,
            correlation_id: 1,
            client_id: None,
        };
        let request = AlterClientQuotasRequest {
            entries: vec![entry(
                &[("ip", "127.0.0.1")],
                &[("connection_creation_rate", f64::NAN)],
            )],
            validate_only: false,
        };
        let pieces = frame::request(&header, &request).expect("the version has these fields");
        if stream.write_all(&pieces.concat()).await.is_ok() && stream.read_u32().await.is_ok() {
            return;
        }
    }
}

#[test]
fn over_http_who_is_over_the_quota_is_told_when_to_come_again_and_nothing_is_written() {
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    let address: SocketAddr = running.kafka.parse().expect("an address");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(create_topic(&running, TOPIC, 1, &[]));
    let body = format!("\"{}\"\n", "x".repeat(998));
    let send = || {
        let headers = "Content-Type: application/x-ndjson\r\n";
        running.ask(
            &format!("POST /api/v1/topics/{TOPIC}/records"),
            headers,
            &body,
        )
    };
    let records = || {
        let (status, answer) = running.get(&format!("/api/v1/topics/{TOPIC}/replay"));
        assert_eq!(status, 200, "{answer}");
        answer.matches("xxx\"").count()
    };
    assert_eq!(send().0, 200);
    assert_eq!(records(), 1);
    // Ten seconds of it are 500 bytes, so that one body is over it for at least ten seconds more.
    let anonymous = [("user", "ANONYMOUS")];
    runtime.block_on(set(address, &anonymous, "producer_byte_rate", 50.0));
    assert_eq!(send().0, 200, "what was not over it when it came is taken");
    let (status, answer) = send();
    assert_eq!(status, 429, "{answer}");
    let after = answer.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("retry-after: ")?
            .parse::<u64>()
            .ok()
    });
    assert!(after.is_some_and(|seconds| seconds > 0), "{answer}");
    assert_eq!(records(), 2, "what is refused is not written");
    runtime.block_on(set(address, &anonymous, "producer_byte_rate", f64::NAN));
    assert_eq!(send().0, 200);
}
