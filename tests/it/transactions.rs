//! Who asks for transactions is told at once, and in the one code that every client takes for final, with a text where
//! the answer has a place for it.

use alluvium::broker::Refusal;
use model::Timestamp;
use model::batch::{BatchBuilder, Codec, crc32c};
use wire::ApiKey;
use wire::messages::api_versions::ApiVersionsRequest;
use wire::messages::find_coordinator::FindCoordinatorRequest;
use wire::messages::init_producer_id::InitProducerIdRequest;
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};

use crate::raw::Raw;
use crate::server::Server;

/// TRANSACTIONAL_ID_AUTHORIZATION_FAILED.
const FINAL: i16 = 53;

fn text() -> Option<String> {
    Some(Refusal::TransactionsUnsupported.to_string())
}

#[tokio::test]
async fn the_search_for_a_transactions_coordinator_ends_at_once_in_every_version() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    for version in 1..4 {
        let request = FindCoordinatorRequest {
            key: "t".into(),
            key_type: 1,
            ..FindCoordinatorRequest::default()
        };
        let answer = raw.call(version, &request).await;
        assert_eq!((answer.error_code, answer.node_id), (FINAL, -1));
        assert_eq!(answer.error_message, text());
    }
    let request = FindCoordinatorRequest {
        key_type: 1,
        coordinator_keys: vec!["t".into(), "u".into()],
        ..FindCoordinatorRequest::default()
    };
    let answer = raw.call(4, &request).await;
    assert_eq!(answer.coordinators.len(), 2);
    for coordinator in answer.coordinators {
        assert_eq!((coordinator.error_code, coordinator.node_id), (FINAL, -1));
        assert_eq!(coordinator.error_message, text());
    }
}

#[tokio::test]
async fn a_producer_id_for_a_transaction_is_refused_for_good_in_every_version() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    for version in 0..=4 {
        let request = InitProducerIdRequest {
            transactional_id: Some("t".into()),
            transaction_timeout_ms: 1000,
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdRequest::default()
        };
        let answer = raw.call(version, &request).await;
        assert_eq!((answer.error_code, answer.producer_id), (FINAL, -1));
    }
}

#[tokio::test]
async fn records_of_a_transaction_are_refused_for_good() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let create = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some("t".into()),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };
    raw.call(9, &create).await;
    let mut builder = BatchBuilder::new(Codec::None);
    builder
        .push(Timestamp::from_millis(1), None, Some(b"v"), &[])
        .unwrap();
    let plain = builder.build().unwrap();
    let mut marked = plain.to_vec();
    marked[22] |= 0x10;
    let checksum = crc32c(&marked[21..]);
    marked[17..21].copy_from_slice(&checksum.to_be_bytes());
    for (transactional_id, records) in [(Some("t".to_owned()), plain), (None, marked.into())] {
        let request = ProduceRequest {
            transactional_id,
            acks: -1,
            timeout_ms: 1000,
            topic_data: vec![TopicProduceData {
                name: "t".into(),
                partition_data: vec![PartitionProduceData {
                    index: 0,
                    records: Some(records.into()),
                }],
                ..TopicProduceData::default()
            }],
        };
        let answer = raw.call(9, &request).await;
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, FINAL);
        assert_eq!(partition.error_message, text());
    }
}

#[tokio::test]
async fn no_other_request_of_transactions_is_offered() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let answer = raw.call(3, &ApiVersionsRequest::default()).await;
    for key in [
        ApiKey::AddPartitionsToTxn,
        ApiKey::AddOffsetsToTxn,
        ApiKey::EndTxn,
        ApiKey::TxnOffsetCommit,
        ApiKey::DescribeTransactions,
        ApiKey::ListTransactions,
    ] {
        assert!(
            answer.api_keys.iter().all(|row| row.api_key != key.code()),
            "{key:?}"
        );
    }
}
