//! Compacted topics as clients meet them: what they take, and what they refuse as Apache Kafka 4.3.1 does.

use std::time::{Duration, Instant};

use bytes::Bytes;
use model::Timestamp;
use model::batch::{BatchBuilder, Codec, DecompressLimit};
use wire::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use wire::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};

use crate::raw::Raw;
use crate::server::Server;

const NONE: i16 = 0;
const INVALID_TIMESTAMP: i16 = 32;
const POLICY_VIOLATION: i16 = 44;
const INVALID_RECORD: i16 = 87;

async fn create(raw: &mut Raw, name: &str, settings: &[(&str, &str)]) {
    let configs = settings.iter().map(|(name, value)| CreatableTopicConfig {
        name: (*name).into(),
        value: Some((*value).into()),
    });
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: 1,
        replication_factor: -1,
        configs: configs.collect(),
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 5_000,
        ..CreateTopicsRequest::default()
    };
    let created = raw.call(7, &request).await.topics.remove(0);
    assert_eq!(created.error_code, NONE, "{:?}", created.error_message);
}

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

async fn set_policy(raw: &mut Raw, topic: &str, policy: &str) {
    set(raw, (TOPIC, topic), "cleanup.policy", policy).await;
}

async fn set(raw: &mut Raw, resource: (i8, &str), name: &str, value: &str) {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: resource.0,
            resource_name: resource.1.into(),
            configs: vec![AlterableConfig {
                name: name.into(),
                config_operation: 0,
                value: Some(value.into()),
            }],
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    assert_eq!(raw.call(1, &request).await.responses[0].error_code, NONE);
}

/// A batch of records with these keys, all of them stamped `millis`.
fn batch(codec: Codec, keys: &[Option<&str>], millis: i64) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for key in keys {
        let time = Timestamp::from_millis(millis);
        builder
            .push(time, key.map(str::as_bytes), Some(b"value"), &[])
            .expect("a small batch");
    }
    builder.build().expect("a batch")
}

async fn produce(raw: &mut Raw, topic: &str, records: Bytes) -> PartitionProduceResponse {
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 5_000,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(records.into()),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    let mut answer = raw.call(9, &request).await.responses.remove(0);
    answer.partition_responses.remove(0)
}

#[tokio::test]
async fn a_compacted_topic_takes_no_record_without_a_key() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    create(&mut raw, "plain", &[]).await;
    create(&mut raw, "keyed", &[("cleanup.policy", "compact")]).await;
    create(&mut raw, "both", &[("cleanup.policy", "compact,delete")]).await;
    let mixed = [Some("a"), None, Some(""), None, None, None];
    for codec in Codec::ALL {
        let refused = produce(&mut raw, "plain", batch(codec, &mixed, 1_000)).await;
        assert_eq!(refused.error_code, NONE, "{codec}: a plain topic takes it");
        for topic in ["keyed", "both"] {
            let taken = produce(&mut raw, topic, batch(codec, &[Some("a"), Some("")], 1_000)).await;
            assert_eq!(taken.error_code, NONE, "{codec}: an empty key is a key");
            let refused = produce(&mut raw, topic, batch(codec, &mixed, 1_000)).await;
            assert_eq!(refused.error_code, INVALID_RECORD, "{codec}");
            assert_eq!(refused.base_offset, -1);
            let words = format!(
                "Compacted topic cannot accept message without key in topic partition {topic}-0"
            );
            let told: Vec<(i32, &str)> = refused
                .record_errors
                .iter()
                .map(|error| {
                    let text = error.batch_index_error_message.as_deref();
                    (error.batch_index, text.unwrap_or_default())
                })
                .collect();
            assert_eq!(told, [1, 3, 4, 5].map(|index| (index, words.as_str())));
            let summary = format!(
                "One or more records have been rejected due to 4 record errors in total, and only showing the first three \
                 errors at most: [RecordError(batchIndex=1, message='{words}'), RecordError(batchIndex=3, \
                 message='{words}'), RecordError(batchIndex=4, message='{words}')]"
            );
            assert_eq!(refused.error_message, Some(summary));
        }
    }
    let after = produce(&mut raw, "keyed", batch(Codec::None, &[Some("a")], 1_000)).await;
    let kept = 2 * Codec::ALL.len() as i64;
    assert_eq!(after.base_offset, kept, "nothing of a refused batch stays");
}

#[tokio::test]
async fn a_batch_too_large_to_be_looked_at_at_once_needs_keys_too() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    create(&mut raw, "keyed", &[("cleanup.policy", "compact")]).await;
    let mut keys = vec![Some("a"); 10_000];
    let whole = batch(Codec::None, &keys, 1_000);
    assert!(whole.len() > 100_000);
    assert_eq!(produce(&mut raw, "keyed", whole).await.error_code, NONE);
    keys.push(None);
    for codec in Codec::ALL {
        let refused = produce(&mut raw, "keyed", batch(codec, &keys, 1_000)).await;
        assert_eq!(refused.error_code, INVALID_RECORD, "{codec}");
        assert_eq!(refused.record_errors.len(), 1);
        assert_eq!(refused.record_errors[0].batch_index, 10_000);
    }
}

#[tokio::test]
async fn a_record_without_a_key_is_told_for_that_and_others_for_their_time() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let settings = [
        ("cleanup.policy", "compact"),
        ("message.timestamp.before.max.ms", "1000"),
    ];
    create(&mut raw, "recent", &settings).await;
    let old = batch(Codec::None, &[Some("a"), None], 1_000);
    let refused = produce(&mut raw, "recent", old).await;
    assert_eq!(refused.error_code, INVALID_TIMESTAMP);
    let texts: Vec<String> = refused
        .record_errors
        .into_iter()
        .filter_map(|error| error.batch_index_error_message)
        .collect();
    assert!(texts[0].contains("timestamp"), "{texts:?}");
    assert!(texts[1].contains("without key"), "{texts:?}");
}

#[tokio::test]
async fn a_change_of_the_policy_holds_from_the_next_record_on() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    create(&mut raw, "t", &[]).await;
    let keyless = || batch(Codec::None, &[None], 1_000);
    for (policy, expected) in [
        ("delete", NONE),
        ("compact", INVALID_RECORD),
        ("delete,compact", INVALID_RECORD),
        ("", NONE),
    ] {
        set_policy(&mut raw, "t", policy).await;
        let answer = produce(&mut raw, "t", keyless()).await;
        assert_eq!(answer.error_code, expected, "{policy:?}");
    }
}

/// The offsets that a reader from the start is given, below `end`.
async fn offsets(raw: &mut Raw, topic: &str, end: u64) -> Vec<u64> {
    let (mut found, mut next) = (Vec::new(), 0);
    while next < end {
        let request = FetchRequest {
            max_wait_ms: 100,
            min_bytes: 1,
            max_bytes: 1 << 20,
            topics: vec![FetchTopic {
                topic: topic.into(),
                partitions: vec![FetchPartition {
                    fetch_offset: i64::try_from(next).expect("small"),
                    partition_max_bytes: 1 << 20,
                    ..FetchPartition::default()
                }],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let mut answer = raw.call(12, &request).await.responses.remove(0);
        let records = answer.partitions.remove(0).records.expect("records");
        for batch in model::batch::split(records.into_bytes()) {
            let batch = batch.expect("whole batches");
            for record in batch.records(DecompressLimit::default()).expect("records") {
                found.push(record.expect("a record").offset.get());
            }
            next = batch.header().next_offset().get();
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_becomes_compacted_keeps_the_latest_of_each_key() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let settings = [
        ("max.compaction.lag.ms", "1"),
        ("min.cleanable.dirty.ratio", "0"),
    ];
    create(&mut raw, "t", &settings).await;
    set(&mut raw, (BROKER, ""), "log.cleaner.backoff.ms", "100").await;
    for codec in Codec::ALL {
        let keys = [Some("a"), Some("b"), Some("a")];
        let answer = produce(&mut raw, "t", batch(codec, &keys, 1_000)).await;
        assert_eq!(answer.error_code, NONE);
    }
    let all: Vec<u64> = (0..15).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(offsets(&mut raw, "t", 15).await, all, "not by delete");
    set_policy(&mut raw, "t", "compact").await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while offsets(&mut raw, "t", 15).await != [13, 14] {
        assert!(Instant::now() < deadline, "the last batch's b and a alone");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn records_that_only_compaction_removes_are_not_deleted_by_clients() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    create(&mut raw, "t", &[]).await;
    let one = batch(Codec::None, &[Some("a")], 1_000);
    for (policy, expected) in [
        ("compact", POLICY_VIOLATION),
        ("compact,delete", NONE),
        ("delete", NONE),
        ("", NONE),
    ] {
        set_policy(&mut raw, "t", policy).await;
        assert_eq!(produce(&mut raw, "t", one.clone()).await.error_code, NONE);
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: "t".into(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: 0,
                    offset: -1,
                }],
            }],
            timeout_ms: 5_000,
        };
        let answer = raw.call(2, &request).await;
        let code = answer.topics[0].partitions[0].error_code;
        assert_eq!(code, expected, "{policy:?}");
    }
}

#[tokio::test]
async fn a_list_is_kept_in_its_one_spelling() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let settings = [
        ("cleanup.policy", "delete, compact,delete"),
        ("min.cleanable.dirty.ratio", "1e-4"),
    ];
    create(&mut raw, "t", &settings).await;
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 2,
            resource_name: "t".into(),
            configuration_keys: Some(settings.iter().map(|(name, _)| (*name).into()).collect()),
        }],
        ..DescribeConfigsRequest::default()
    };
    let described = raw.call(4, &request).await.results.remove(0).configs;
    let values: Vec<&str> = described
        .iter()
        .map(|config| config.value.as_deref().unwrap_or_default())
        .collect();
    assert_eq!(values, ["delete,compact", "1.0E-4"]);
}
