//! What Apache Kafka answers to odd requests, as `cargo xtask oracle` found it, is what this broker answers.

use bytes::Bytes;
use model::Timestamp;
use model::batch::{BatchBuilder, Codec};
use wire::Uuid;
use wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use wire::messages::describe_cluster::DescribeClusterRequest;
use wire::messages::describe_producers::{self, DescribeProducersRequest};
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use wire::messages::init_producer_id::InitProducerIdRequest;
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use wire::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use wire::messages::sasl_handshake::SaslHandshakeRequest;

use crate::raw::Raw;
use crate::server::Server;

const NONE: i16 = 0;
const OFFSET_OUT_OF_RANGE: i16 = 1;
const CORRUPT_MESSAGE: i16 = 2;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_TOPIC: i16 = 17;
const ILLEGAL_SASL_STATE: i16 = 34;
const UNSUPPORTED_VERSION: i16 = 35;
const INVALID_REQUEST: i16 = 42;
const UNKNOWN_LEADER_EPOCH: i16 = 75;
const INVALID_RECORD: i16 = 87;
const MISMATCHED_ENDPOINT_TYPE: i16 = 114;
const UNSUPPORTED_ENDPOINT_TYPE: i16 = 115;

fn named(name: Option<&str>, topic_id: Uuid) -> MetadataRequestTopic {
    MetadataRequestTopic {
        name: name.map(str::to_owned),
        topic_id,
    }
}

async fn exists(raw: &mut Raw, name: &str) -> bool {
    let request = MetadataRequest {
        topics: Some(vec![named(Some(name), Uuid::nil())]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    raw.call(12, &request).await.topics[0].error_code == NONE
}

#[tokio::test]
async fn a_topic_that_is_to_be_deleted_twice_in_one_request_stays() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let id = raw.create_topic("kept", 1).await;
    let by_names = DeleteTopicsRequest {
        topic_names: vec!["kept".into(), "kept".into()],
        ..DeleteTopicsRequest::default()
    };
    let answer = raw.call(5, &by_names).await;
    assert_eq!(answer.responses.len(), 1, "{answer:?}");
    assert_eq!(answer.responses[0].error_code, INVALID_REQUEST);
    let state = |name: Option<&str>, topic_id| DeleteTopicState {
        name: name.map(str::to_owned),
        topic_id,
    };
    let wrong = [
        vec![state(Some("kept"), Uuid::nil()), state(None, id)],
        vec![state(None, id), state(None, id)],
        vec![state(Some("kept"), id)],
        vec![state(None, Uuid::nil())],
    ];
    for topics in wrong {
        let request = DeleteTopicsRequest {
            topics: topics.clone(),
            ..DeleteTopicsRequest::default()
        };
        let answer = raw.call(6, &request).await;
        assert_eq!(answer.responses.len(), 1, "{topics:?}: {answer:?}");
        assert_eq!(
            answer.responses[0].error_code, INVALID_REQUEST,
            "{topics:?}"
        );
    }
    assert!(exists(&mut raw, "kept").await);
    let request = DeleteTopicsRequest {
        topics: vec![state(None, id)],
        ..DeleteTopicsRequest::default()
    };
    let answer = raw.call(6, &request).await;
    assert_eq!(answer.responses[0].error_code, NONE);
    assert!(!exists(&mut raw, "kept").await);
}

#[tokio::test]
async fn a_producer_id_without_its_epoch_is_refused() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    for (producer_id, producer_epoch, wanted) in [
        (5, -1, INVALID_REQUEST),
        (-1, 0, INVALID_REQUEST),
        (5, 0, NONE),
        (-1, -1, NONE),
    ] {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            producer_id,
            producer_epoch,
            ..InitProducerIdRequest::default()
        };
        let answer = raw.call(4, &request).await;
        assert_eq!(answer.error_code, wanted, "{producer_id} {producer_epoch}");
    }
}

#[tokio::test]
async fn metadata_tells_a_topic_once_and_what_may_be_done_with_it_if_asked() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    raw.create_topic("told", 1).await;
    let mut request = MetadataRequest {
        topics: Some(vec![
            named(Some("told"), Uuid::nil()),
            named(Some("told"), Uuid::nil()),
        ]),
        ..MetadataRequest::default()
    };
    let answer = raw.call(10, &request).await;
    assert_eq!(answer.topics.len(), 1);
    assert_eq!(answer.topics[0].topic_authorized_operations, i32::MIN);
    assert_eq!(answer.cluster_authorized_operations, i32::MIN);
    request.include_topic_authorized_operations = true;
    request.include_cluster_authorized_operations = true;
    let answer = raw.call(10, &request).await;
    // Of a topic: read, write, create, delete, alter, describe, and its configuration's describe and alter.
    assert_eq!(
        answer.topics[0].topic_authorized_operations,
        0b1101_1111_1000
    );
    // Of the cluster: create, alter, describe, cluster action, configuration's describe and alter, idempotent write.
    assert_eq!(answer.cluster_authorized_operations, 0b1_1111_1010_0000);
}

#[tokio::test]
async fn endpoints_that_are_not_brokers_are_told_apart() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    for (endpoint_type, wanted) in [
        (1, NONE),
        (2, MISMATCHED_ENDPOINT_TYPE),
        (0, UNSUPPORTED_ENDPOINT_TYPE),
        (9, UNSUPPORTED_ENDPOINT_TYPE),
    ] {
        let request = DescribeClusterRequest {
            endpoint_type,
            ..DescribeClusterRequest::default()
        };
        assert_eq!(raw.call(1, &request).await.error_code, wanted);
    }
    let request = SaslHandshakeRequest {
        mechanism: "PLAIN".into(),
    };
    assert_eq!(raw.call(1, &request).await.error_code, ILLEGAL_SASL_STATE);
}

#[tokio::test]
async fn a_topic_that_cannot_be_has_no_producers_and_says_why() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    for (name, wanted) in [
        ("a b", INVALID_TOPIC),
        ("not-there", UNKNOWN_TOPIC_OR_PARTITION),
    ] {
        let request = DescribeProducersRequest {
            topics: vec![describe_producers::TopicRequest {
                name: name.into(),
                partition_indexes: vec![0],
            }],
        };
        let answer = raw.call(0, &request).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, wanted);
    }
}

#[tokio::test]
async fn the_end_of_no_epoch_is_still_refused_for_what_is_wrong_beside_it() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    raw.create_topic("read", 1).await;
    for (partition, current_leader_epoch, wanted) in [
        (0, -1, NONE),
        (9, -1, UNKNOWN_TOPIC_OR_PARTITION),
        (0, i32::MAX, UNKNOWN_LEADER_EPOCH),
    ] {
        let request = OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![OffsetForLeaderTopic {
                topic: "read".into(),
                partitions: vec![OffsetForLeaderPartition {
                    partition,
                    current_leader_epoch,
                    leader_epoch: -1,
                }],
            }],
        };
        let answer = raw.call(4, &request).await;
        let told = &answer.topics[0].partitions[0];
        assert_eq!(told.error_code, wanted);
        assert_eq!((told.leader_epoch, told.end_offset), (-1, -1));
    }
}

#[tokio::test]
async fn a_reader_of_an_epoch_that_has_not_begun_is_out_of_range() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let topic_id = raw.create_topic("read", 1).await;
    let request = FetchRequest {
        topics: vec![FetchTopic {
            topic_id,
            partitions: vec![FetchPartition {
                partition: 0,
                last_fetched_epoch: i32::MAX,
                partition_max_bytes: 1000,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        max_bytes: 1000,
        ..FetchRequest::default()
    };
    let answer = raw.call(13, &request).await;
    let told = &answer.responses[0].partitions[0];
    assert_eq!(told.error_code, OFFSET_OUT_OF_RANGE);
    assert_eq!(told.aborted_transactions, None);
}

#[tokio::test]
async fn half_a_batch_is_an_invalid_record_and_a_damaged_one_is_corrupt() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    raw.create_topic("written", 1).await;
    let mut builder = BatchBuilder::new(Codec::None);
    builder
        .push(Timestamp::from_millis(1), None, Some(b"value"), &[])
        .unwrap();
    let whole = builder.build().unwrap();
    let mut damaged = whole.to_vec();
    damaged[65] ^= 1;
    let mut of_format_3 = whole.to_vec();
    of_format_3[16] = 3;
    for (records, wanted) in [
        (whole.slice(..whole.len() - 1), INVALID_RECORD),
        (whole.slice(..20), INVALID_RECORD),
        (Bytes::from(damaged), CORRUPT_MESSAGE),
        (Bytes::from(of_format_3), CORRUPT_MESSAGE),
        (whole.clone(), NONE),
    ] {
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 1000,
            topic_data: vec![TopicProduceData {
                name: "written".into(),
                partition_data: vec![PartitionProduceData {
                    index: 0,
                    records: Some(records.into()),
                }],
                ..TopicProduceData::default()
            }],
            ..ProduceRequest::default()
        };
        let answer = raw.call(9, &request).await;
        let told = &answer.responses[0].partition_responses[0];
        assert_eq!(told.error_code, wanted);
    }
}

#[tokio::test]
async fn a_topic_whose_settings_are_changed_twice_in_one_request_keeps_them() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    raw.create_topic("tuned", 1).await;
    let change = |name: &str, value: &str| AlterConfigsResource {
        resource_type: 2,
        resource_name: "tuned".into(),
        configs: vec![AlterableConfig {
            name: name.into(),
            config_operation: 0,
            value: Some(value.into()),
        }],
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![change("retention.ms", "1000"), change("segment.ms", "1000")],
        ..IncrementalAlterConfigsRequest::default()
    };
    let answer = raw.call(1, &request).await;
    let codes: Vec<i16> = answer.responses.iter().map(|one| one.error_code).collect();
    assert_eq!(codes, [INVALID_REQUEST, INVALID_REQUEST]);
}

#[tokio::test]
async fn a_time_that_the_version_does_not_know_is_told_before_an_unknown_topic() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    for (timestamp, wanted) in [(-3, UNSUPPORTED_VERSION), (-1, UNKNOWN_TOPIC_OR_PARTITION)] {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: "not-there".into(),
                partitions: vec![ListOffsetsPartition {
                    timestamp,
                    ..ListOffsetsPartition::default()
                }],
            }],
            ..ListOffsetsRequest::default()
        };
        let answer = raw.call(4, &request).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, wanted);
    }
}
