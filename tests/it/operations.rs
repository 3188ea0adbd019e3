//! What a client is told that it may do: without access control everything, and only if it asks.

use wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use wire::messages::describe_cluster::DescribeClusterRequest;
use wire::messages::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, TopicRequest as PartitionsOf,
};
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};

use crate::raw::Raw;
use crate::server::Server;

const NOT_ASKED: i32 = i32::MIN;
/// Read to describe (3 to 8), describe and alter settings (10, 11).
const OF_TOPIC: i32 = 0b1101_1111_1000;
/// Create, alter, describe, act for the cluster, describe and alter settings, write idempotently.
const OF_CLUSTER: i32 = 0b1_1111_1010_0000;

#[tokio::test]
async fn who_asks_is_told_every_operation_of_the_resource() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let topic = CreatableTopic {
        name: "operations".into(),
        num_partitions: 1,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let create = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 5_000,
        ..CreateTopicsRequest::default()
    };
    raw.call(7, &create).await;

    for asked in [false, true] {
        let metadata = MetadataRequest {
            topics: Some(
                ["operations", "not-there"]
                    .map(|name| MetadataRequestTopic {
                        name: Some(name.into()),
                        ..MetadataRequestTopic::default()
                    })
                    .to_vec(),
            ),
            allow_auto_topic_creation: false,
            include_topic_authorized_operations: asked,
            include_cluster_authorized_operations: asked,
        };
        let told = raw.call(10, &metadata).await;
        let wanted = |operations| if asked { operations } else { NOT_ASKED };
        assert_eq!(told.cluster_authorized_operations, wanted(OF_CLUSTER));
        assert_eq!(told.topics[0].topic_authorized_operations, wanted(OF_TOPIC));
        assert_eq!(told.topics[1].topic_authorized_operations, NOT_ASKED);

        let cluster = DescribeClusterRequest {
            include_cluster_authorized_operations: asked,
            ..DescribeClusterRequest::default()
        };
        let told = raw.call(0, &cluster).await;
        assert_eq!(told.cluster_authorized_operations, wanted(OF_CLUSTER));
    }

    let partitions = DescribeTopicPartitionsRequest {
        topics: vec![PartitionsOf {
            name: "operations".into(),
        }],
        response_partition_limit: 10,
        ..DescribeTopicPartitionsRequest::default()
    };
    let told = raw.call(0, &partitions).await;
    assert_eq!(told.topics[0].topic_authorized_operations, OF_TOPIC);
}
