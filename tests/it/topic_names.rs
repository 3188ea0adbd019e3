//! Names of topics that Kafka does not let clients have: those that collide, and those that it keeps for itself.

use model::Timestamp;
use model::batch::{BatchBuilder, Codec};
use wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};

use crate::raw::Raw;
use crate::server::Server;

const NONE: i16 = 0;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_TOPIC: i16 = 17;
const TOPIC_EXISTS: i16 = 36;
const INVALID_REQUEST: i16 = 42;
const INTERNAL: [&str; 3] = [
    "__consumer_offsets",
    "__transaction_state",
    "__share_group_state",
];

/// Code and text of each topic's creation.
async fn create(raw: &mut Raw, names: &[&str]) -> Vec<(i16, Option<String>)> {
    let request = CreateTopicsRequest {
        topics: names
            .iter()
            .map(|name| CreatableTopic {
                name: (*name).into(),
                num_partitions: 1,
                replication_factor: 1,
                ..CreatableTopic::default()
            })
            .collect(),
        ..CreateTopicsRequest::default()
    };
    let answer = raw.call(7, &request).await;
    let told = answer.topics.into_iter();
    told.map(|topic| (topic.error_code, topic.error_message))
        .collect()
}

async fn delete(raw: &mut Raw, name: &str) -> i16 {
    let request = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: Some(name.into()),
            ..DeleteTopicState::default()
        }],
        ..DeleteTopicsRequest::default()
    };
    raw.call(6, &request).await.responses[0].error_code
}

async fn look(raw: &mut Raw, name: &str, create: bool) -> i16 {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(name.into()),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: create,
        ..MetadataRequest::default()
    };
    raw.call(9, &request).await.topics[0].error_code
}

#[tokio::test]
async fn a_name_that_collides_is_refused_until_the_other_topic_is_gone() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    assert_eq!(create(&mut raw, &["a.b_c"]).await[0].0, NONE);
    for name in ["a_b_c", "a.b.c", "a_b.c"] {
        let text = format!("Topic '{name}' collides with existing topic: a.b_c");
        assert_eq!(
            create(&mut raw, &[name]).await,
            [(INVALID_TOPIC, Some(text))]
        );
        assert_eq!(look(&mut raw, name, true).await, INVALID_TOPIC);
        assert_eq!(
            look(&mut raw, name, false).await,
            UNKNOWN_TOPIC_OR_PARTITION
        );
    }
    assert_eq!(create(&mut raw, &["a.b_c"]).await[0].0, TOPIC_EXISTS);
    assert_eq!(create(&mut raw, &["a-b-c", "a.b_cd"]).await[0].0, NONE);
    assert_eq!(delete(&mut raw, "a.b_c").await, NONE);
    assert_eq!(create(&mut raw, &["a_b.c"]).await[0].0, NONE);
    assert_eq!(create(&mut raw, &["a.b_c"]).await[0].0, INVALID_TOPIC);
}

#[tokio::test]
async fn a_name_collides_also_after_a_restart() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    assert_eq!(create(&mut raw, &["a.b"]).await[0].0, NONE);
    let server = server.cut().await;
    let mut raw = Raw::connect(server.address).await;
    assert_eq!(create(&mut raw, &["a_b"]).await[0].0, INVALID_TOPIC);
}

#[tokio::test]
async fn internal_topics_are_made_neither_by_a_look_nor_by_a_wish() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let internal = INTERNAL.map(|name| (name, INVALID_TOPIC, INVALID_TOPIC));
    let log = (
        "__cluster_metadata",
        INVALID_REQUEST,
        UNKNOWN_TOPIC_OR_PARTITION,
    );
    for (name, when_created, when_written) in internal.into_iter().chain([log]) {
        for auto in [false, true, false] {
            assert_eq!(look(&mut raw, name, auto).await, UNKNOWN_TOPIC_OR_PARTITION);
        }
        assert_eq!(create(&mut raw, &[name]).await[0].0, when_created, "{name}");
        assert_eq!(produce(&mut raw, name).await, when_written, "{name}");
        assert_eq!(delete(&mut raw, name).await, UNKNOWN_TOPIC_OR_PARTITION);
    }
    let all = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    assert_eq!(raw.call(9, &all).await.topics, []);
}

async fn produce(raw: &mut Raw, name: &str) -> i16 {
    let mut builder = BatchBuilder::new(Codec::None);
    builder
        .push(Timestamp::from_millis(1), None, Some(b"v"), &[])
        .expect("a small record");
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 1000,
        topic_data: vec![TopicProduceData {
            name: name.into(),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(builder.build().expect("a small batch").into()),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    raw.call(9, &request).await.responses[0].partition_responses[0].error_code
}
