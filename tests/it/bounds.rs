//! What one client can make the broker hold, and that it cannot lock others out.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use wire::ErrorCode;
use wire::messages::api_versions::ApiVersionsRequest;
use wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use wire::messages::describe_groups::DescribeGroupsRequest;
use wire::messages::describe_log_dirs::{DescribableLogDirTopic, DescribeLogDirsRequest};
use wire::messages::describe_producers::{DescribeProducersRequest, TopicRequest};
use wire::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use wire::messages::find_coordinator::FindCoordinatorRequest;
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};

use crate::binary::{Running, serve};
use crate::raw::Raw;
use crate::server::Server;

const MIB: usize = 1 << 20;

fn running(settings: &[&str]) -> (tempfile::TempDir, Running) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = serve(dir.path());
    for setting in settings {
        command.args(["-X", setting]);
    }
    let running = Running::start(&mut command);
    (dir, running)
}

fn address(running: &Running) -> SocketAddr {
    running.kafka.parse().expect("an address")
}

fn metric(running: &Running, series: &str) -> f64 {
    let (status, page) = running.get("/metrics");
    assert_eq!(status, 200);
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("there is no {series}"))
        .parse()
        .expect("a number")
}

/// Waits until a metric is as it is to be.
fn until(running: &Running, series: &str, is_so: impl Fn(f64) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let value = metric(running, series);
        if is_so(value) {
            return;
        }
        assert!(Instant::now() < deadline, "{series} stays at {value}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn create(raw: &mut Raw, topics: &[(String, i32)]) -> Vec<i16> {
    let topic = |(name, count): &(String, i32)| CreatableTopic {
        name: name.clone(),
        num_partitions: *count,
        replication_factor: -1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: topics.iter().map(topic).collect(),
        timeout_ms: 30_000,
        ..CreateTopicsRequest::default()
    };
    let answer = raw.call(7, &request).await;
    answer.topics.iter().map(|topic| topic.error_code).collect()
}

async fn known_topics(raw: &mut Raw) -> usize {
    let request = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    raw.call(12, &request).await.topics.len()
}

#[tokio::test]
async fn a_request_for_too_many_partitions_is_refused_whole() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let policy = ErrorCode::PolicyViolation.code();
    let named = |counts: &[i32]| -> Vec<(String, i32)> {
        let number = |(n, count): (usize, &i32)| (format!("t{n}"), *count);
        counts.iter().enumerate().map(number).collect()
    };
    for counts in [
        &[6000, 6000][..],
        &[10_001, 1],
        &[i32::MAX, i32::MAX, i32::MAX, 1],
        &[9999, 1, 1],
    ] {
        let codes = create(&mut raw, &named(counts)).await;
        assert_eq!(codes, vec![policy; counts.len()], "{counts:?}");
        assert_eq!(known_topics(&mut raw).await, 0, "{counts:?}");
    }
    // One that is refused anyway counts too, as in Kafka.
    let topics = [("right".to_owned(), 9999), ("not right".to_owned(), 2)];
    assert_eq!(create(&mut raw, &topics).await, [policy; 2]);
    let topics = [("right".to_owned(), 3), ("not right".to_owned(), 2)];
    let invalid = ErrorCode::InvalidTopicException.code();
    assert_eq!(create(&mut raw, &topics).await, [0, invalid]);
    let other = [("other".to_owned(), 3)];
    assert_eq!(create(&mut raw, &other).await, [0]);
    let grown = |name: &str, count| CreatePartitionsTopic {
        name: name.into(),
        count,
        ..CreatePartitionsTopic::default()
    };
    let request = CreatePartitionsRequest {
        topics: vec![grown("right", 6000), grown("other", 6000)],
        timeout_ms: 30_000,
        ..CreatePartitionsRequest::default()
    };
    let answer = raw.call(3, &request).await;
    let codes: Vec<i16> = answer.results.iter().map(|it| it.error_code).collect();
    assert_eq!(codes, [policy; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_settings_and_producers_beyond_their_bounds_are_refused() {
    let (_dir, running) = running(&[
        "partitions.max=10",
        "topic.settings.max.bytes=1024",
        "producer.ids.per.partition.max=2",
    ]);
    let policy = ErrorCode::PolicyViolation.code();
    let mut raw = Raw::connect(address(&running)).await;
    let topics = [
        ("six".to_owned(), 6),
        ("five".to_owned(), 5),
        ("four".to_owned(), 4),
    ];
    assert_eq!(create(&mut raw, &topics).await, [0, policy, 0]);
    let grown = CreatePartitionsTopic {
        name: "four".into(),
        count: 5,
        ..CreatePartitionsTopic::default()
    };
    let request = CreatePartitionsRequest {
        topics: vec![grown],
        timeout_ms: 30_000,
        ..CreatePartitionsRequest::default()
    };
    let answer = raw.call(3, &request).await;
    assert_eq!(answer.results[0].error_code, policy);

    let alter = |value: String| IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 2,
            resource_name: "six".into(),
            configs: vec![AlterableConfig {
                name: "leader.replication.throttled.replicas".into(),
                config_operation: 0,
                value: Some(value),
            }],
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    let answer = raw.call(1, &alter("0:1,".repeat(300) + "0:1")).await;
    let invalid = ErrorCode::InvalidConfig.code();
    assert_eq!(answer.responses[0].error_code, invalid);
    let text = answer.responses[0].error_message.clone();
    assert!(
        text.unwrap_or_default()
            .contains("topic.settings.max.bytes")
    );
    let answer = raw.call(1, &alter("0:1,0:2".to_owned())).await;
    assert_eq!(answer.responses[0].error_code, 0);

    let mut codes = Vec::new();
    for producer in [10, 11, 12, 10] {
        let sequence = codes.len() as i32 / 3;
        let mut builder = model::batch::BatchBuilder::new(model::batch::Codec::None);
        builder.producer(
            model::ProducerId::new(producer),
            model::ProducerEpoch::new(0),
            sequence,
        );
        let time = model::Timestamp::from_millis(1_700_000_000_000);
        builder.push(time, None, Some(b"v"), &[]).expect("it fits");
        let request = produce("six", builder.build().expect("a batch"));
        let answer = raw.call(9, &request).await;
        codes.push(answer.responses[0].partition_responses[0].error_code);
    }
    // One that is known goes on.
    assert_eq!(codes, [0, 0, policy, 0]);
    assert_eq!(metric(&running, "alluvium_producers_refused_total"), 1.0);
}

#[tokio::test]
async fn what_a_request_names_many_times_is_answered_once() {
    const TIMES: usize = 1000;
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    assert_eq!(create(&mut raw, &[("one".to_owned(), 2)]).await, [0]);
    let partition = OffsetCommitRequestPartition {
        committed_offset: 7,
        committed_metadata: Some("m".repeat(4000)),
        ..OffsetCommitRequestPartition::default()
    };
    let commit = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: "one".into(),
            partitions: vec![partition],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    assert_eq!(
        raw.call(8, &commit).await.topics[0].partitions[0].error_code,
        0
    );

    let topics = OffsetFetchRequestTopics {
        name: "one".into(),
        partition_indexes: vec![0; TIMES],
        ..OffsetFetchRequestTopics::default()
    };
    let group = OffsetFetchRequestGroup {
        group_id: "g".into(),
        topics: Some(vec![topics; 2]),
        ..OffsetFetchRequestGroup::default()
    };
    let request = OffsetFetchRequest {
        groups: vec![group; 2],
        ..OffsetFetchRequest::default()
    };
    let answer = raw.call(9, &request).await;
    let topics = answer.groups.iter().flat_map(|group| &group.topics);
    let offsets: Vec<i64> = topics
        .flat_map(|topic| &topic.partitions)
        .map(|partition| partition.committed_offset)
        .collect();
    assert_eq!(offsets, [7]);

    let request = DescribeGroupsRequest {
        groups: vec!["g".into(); TIMES],
        ..DescribeGroupsRequest::default()
    };
    assert_eq!(raw.call(5, &request).await.groups.len(), 1);

    let topic = TopicRequest {
        name: "one".into(),
        partition_indexes: vec![1; TIMES],
    };
    let request = DescribeProducersRequest {
        topics: vec![topic; 2],
    };
    let answer = raw.call(0, &request).await;
    let count = |it: &wire::messages::describe_producers::TopicResponse| it.partitions.len();
    assert_eq!(answer.topics.iter().map(count).sum::<usize>(), 1);

    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: "one".into(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource; TIMES],
        ..DescribeConfigsRequest::default()
    };
    assert_eq!(raw.call(4, &request).await.results.len(), 1);

    let topic = MetadataRequestTopic {
        name: Some("one".into()),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![topic; TIMES]),
        ..MetadataRequest::default()
    };
    assert_eq!(raw.call(12, &request).await.topics.len(), 1);

    let request = FindCoordinatorRequest {
        coordinator_keys: vec!["g".into(); TIMES],
        ..FindCoordinatorRequest::default()
    };
    assert_eq!(raw.call(4, &request).await.coordinators.len(), 1);

    let partitions = TopicPartitions {
        topic: "one".into(),
        partitions: vec![0; TIMES],
    };
    let request = ElectLeadersRequest {
        topic_partitions: Some(vec![partitions]),
        timeout_ms: 1000,
        ..ElectLeadersRequest::default()
    };
    let answer = raw.call(2, &request).await;
    assert_eq!(answer.replica_election_results[0].partition_result.len(), 1);

    let topic = DescribableLogDirTopic {
        topic: "one".into(),
        partitions: vec![0; TIMES],
    };
    let request = DescribeLogDirsRequest {
        topics: Some(vec![topic; 2]),
    };
    let answer = raw.call(4, &request).await;
    assert_eq!(answer.results[0].topics.len(), 1);
    assert_eq!(answer.results[0].topics[0].partitions.len(), 1);
}

#[tokio::test]
async fn an_answer_ends_at_its_bound_and_says_of_the_rest_that_it_does() {
    let bound = MIB;
    let (_dir, running) = running(&["socket.response.max.bytes=1048576"]);
    let mut raw = Raw::connect(address(&running)).await;
    let topics: Vec<(String, i32)> = (0..300).map(|n| (format!("t{n}"), 1)).collect();
    assert!(
        create(&mut raw, &topics)
            .await
            .iter()
            .all(|code| *code == 0)
    );
    let resource = |(name, _): &(String, i32)| DescribeConfigsResource {
        resource_type: 2,
        resource_name: name.clone(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: topics.iter().map(resource).collect(),
        include_synonyms: true,
        include_documentation: true,
    };
    let results = raw.call(4, &request).await.results;
    assert_eq!(results.len(), topics.len());
    let whole = results.iter().filter(|it| it.error_code == 0).count();
    assert!((1..topics.len()).contains(&whole), "{whole}");
    for result in &results {
        match result.error_code {
            0 => assert!(!result.configs.is_empty()),
            code => {
                assert_eq!(code, ErrorCode::PolicyViolation.code());
                let text = result.error_message.as_deref().unwrap_or_default();
                assert!(text.contains(&bound.to_string()), "{text}");
            }
        }
    }
    // The answer is here a moment before what it held is given back.
    let queued = "alluvium_kafka_queued_bytes{kind=\"response\"}";
    until(&running, queued, |bytes| bytes == 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_received_requests_hold_no_more_than_their_bound_and_do_not_lock_others_out() {
    let (_dir, running) = running(&[
        "socket.request.max.bytes=4194304",
        "queued.max.request.bytes=9437184",
    ]);
    let kafka = running.kafka.clone();
    let attack = std::thread::spawn(move || {
        let half = |_| {
            let mut stream = TcpStream::connect(&kafka).expect("it listens");
            stream
                .set_write_timeout(Some(Duration::from_secs(1)))
                .expect("a socket");
            let _ = stream.write_all(&4_194_304u32.to_be_bytes());
            // Some wait for their turn, and some are closed.
            let _ = stream.write_all(&vec![0; 2 * MIB]);
            stream
        };
        (0..12).map(half).collect::<Vec<_>>()
    });
    let held = attack.join().expect("all have sent what was taken");
    let mut raw = Raw::connect(address(&running)).await;
    let topic = |n: usize| MetadataRequestTopic {
        name: Some(format!("{n:0>200}")),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some((0..2000).map(topic).collect()),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    let started_at = Instant::now();
    assert_eq!(raw.call(12, &request).await.topics.len(), 2000);
    assert!(
        started_at.elapsed() < Duration::from_secs(30),
        "{:?}",
        started_at.elapsed()
    );
    let bytes = metric(&running, "alluvium_kafka_queued_bytes{kind=\"request\"}");
    assert!(bytes <= 9_437_184.0, "{bytes}");
    let evicted = "alluvium_kafka_queued_evicted_total{kind=\"request\"}";
    // Who waits looks for one to close after a while; all that was sent may have been taken before.
    until(&running, evicted, |count| count >= 1.0);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_http_connections_do_not_lock_out_health() {
    let (_dir, running) = running(&[]);
    let connect = |n: usize| {
        let mut stream = TcpStream::connect(&running.http).expect("it listens");
        if n.is_multiple_of(2) {
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-A: ")
                .expect("sent");
        }
        stream
    };
    let silent: Vec<TcpStream> = (0..300).map(connect).collect();
    for _ in 0..3 {
        let started_at = Instant::now();
        assert_eq!(running.get("/healthz").0, 200);
        assert_eq!(running.get("/metrics").0, 200);
        assert!(started_at.elapsed() < Duration::from_secs(10));
    }
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_is_not_waited_for() {
    let (_dir, running) = running(&["connections.max.idle.ms=1000"]);
    let mut silent = TcpStream::connect(&running.http).expect("it listens");
    let mut half = TcpStream::connect(&running.http).expect("it listens");
    half.write_all(b"GET /healthz HTT").expect("sent");
    for stream in [&mut silent, &mut half] {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a socket");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("it is closed");
        assert!(rest.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_kafka_connections_make_room_and_those_that_work_stay() {
    let (_dir, running) = running(&["max.connections=10"]);
    let mut working = Raw::connect(address(&running)).await;
    let version = ApiVersionsRequest {
        client_software_name: "raw".into(),
        client_software_version: "1".into(),
    };
    working.call(3, &version).await;
    let silent: Vec<TcpStream> = (0..30)
        .map(|_| TcpStream::connect(&running.kafka).expect("it listens"))
        .collect();
    let mut newcomer = Raw::connect(address(&running)).await;
    newcomer.call(3, &version).await;
    working.call(3, &version).await;
    let made_room = "alluvium_kafka_connections_made_room_total";
    assert!(metric(&running, made_room) >= 1.0);
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn series_beyond_the_bound_are_summed_and_said() {
    let (_dir, running) = running(&["metrics.series.max=100"]);
    let mut raw = Raw::connect(address(&running)).await;
    assert_eq!(create(&mut raw, &[("wide".to_owned(), 150)]).await, [0]);
    let partition = |index| OffsetCommitRequestPartition {
        partition_index: index,
        ..OffsetCommitRequestPartition::default()
    };
    let commit = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: "wide".into(),
            partitions: (0..150).map(partition).collect(),
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    raw.call(8, &commit).await;
    let (_, page) = running.get("/metrics");
    for family in [
        "kafka_topic_partition_current_offset",
        "kafka_topic_partition_oldest_offset",
        "kafka_consumergroup_current_offset",
        "kafka_consumergroup_lag",
    ] {
        let series: HashSet<&str> = page
            .lines()
            .filter(|line| line.starts_with(&format!("{family}{{")))
            .collect();
        assert_eq!(series.len(), 101, "{family}");
        let other = series.iter().filter(|line| line.contains("(other)"));
        assert_eq!(other.count(), 1, "{family}");
        let summed = format!("alluvium_metrics_series_summed{{family=\"{family}\"}}");
        assert_eq!(metric(&running, &summed), 50.0, "{family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_taken_in_time_is_given_up() {
    let (_dir, running) = running(&["response.send.max.ms=1000", "wal.file.bytes=4194304"]);
    let mut raw = Raw::connect(address(&running)).await;
    assert_eq!(create(&mut raw, &[("big".to_owned(), 1)]).await, [0]);
    let batch = batch(&vec![b'v'; 900_000]);
    for _ in 0..24 {
        let request = produce("big", batch.clone());
        let answer = raw.call(9, &request).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    }
    let fetch = FetchRequest {
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes: 50 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: "big".into(),
            partitions: vec![FetchPartition {
                partition_max_bytes: 50 << 20,
                current_leader_epoch: -1,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    raw.send(11, &fetch).await;
    let not_taken = "alluvium_kafka_responses_not_taken_total";
    until(&running, not_taken, |count| count > 0.0);
    assert_eq!(metric(&running, not_taken), 1.0);
}

fn produce(topic: &str, batch: bytes::Bytes) -> ProduceRequest {
    let data = PartitionProduceData {
        index: 0,
        records: Some(batch.into()),
    };
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![data],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

/// A batch of one record.
fn batch(value: &[u8]) -> bytes::Bytes {
    let mut builder = model::batch::BatchBuilder::new(model::batch::Codec::None);
    let time = model::Timestamp::from_millis(1_700_000_000_000);
    builder.push(time, None, Some(value), &[]).expect("it fits");
    builder.build().expect("a batch")
}
