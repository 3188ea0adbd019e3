//! DescribeQuorum (55): this broker is the only voter of the cluster's metadata, and leads.

use wire::messages::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, Listener, Node, ReplicaState,
    RequestPartitionData, RequestTopicData, ResponsePartitionData, ResponseTopicData,
};

use super::Call;
use crate::broker::Refusal;
use crate::broker::access::right;
use crate::front::kafka::errors;

/// How Kafka calls the log of a cluster's metadata.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// How Kafka calls a listener without encryption and authentication by default.
const LISTENER: &str = "PLAINTEXT";
/// The first version whose answers tell directories and addresses.
const NODES: i16 = 2;

pub(super) async fn answer(request: DescribeQuorumRequest, call: Call) -> DescribeQuorumResponse {
    let asks_for_metadata = matches!(
        request.topics.as_slice(),
        [RequestTopicData { topic_name, partitions }]
            if topic_name == METADATA_TOPIC
                && *partitions == [RequestPartitionData { partition_index: 0 }]
    );
    if !asks_for_metadata {
        return DescribeQuorumResponse {
            topics: request.topics.into_iter().map(unknown).collect(),
            ..DescribeQuorumResponse::default()
        };
    }
    let cluster = match call.door.cluster(right::Describe) {
        Ok(cluster) => cluster,
        Err(refusal) => {
            return DescribeQuorumResponse {
                error_code: errors::code(&refusal),
                error_message: Some(errors::text(&refusal)),
                ..DescribeQuorumResponse::default()
            };
        }
    };
    let config = call.broker().config();
    let metadata = call.broker().metadata_bounds(&cluster);
    let mut voter = ReplicaState {
        replica_id: config.node_id,
        log_end_offset: metadata.end.to_wire(),
        // The leader has everything at any moment.
        last_fetch_timestamp: call.broker().now().millis(),
        last_caught_up_timestamp: call.broker().now().millis(),
        ..ReplicaState::default()
    };
    let mut nodes = Vec::new();
    if call.version >= NODES {
        voter.replica_directory_id = call.broker().store_id();
        nodes.push(Node {
            node_id: config.node_id,
            listeners: vec![Listener {
                name: LISTENER.to_owned(),
                host: call.endpoint.advertised_host.clone(),
                port: call.endpoint.advertised_port,
            }],
        });
    }
    DescribeQuorumResponse {
        topics: vec![ResponseTopicData {
            topic_name: METADATA_TOPIC.to_owned(),
            partitions: vec![ResponsePartitionData {
                leader_id: config.node_id,
                leader_epoch: call.broker().leader_epoch().to_wire(),
                high_watermark: metadata.durable_end.to_wire(),
                current_voters: vec![voter],
                ..ResponsePartitionData::default()
            }],
        }],
        nodes,
        ..DescribeQuorumResponse::default()
    }
}

fn unknown(topic: RequestTopicData) -> ResponseTopicData {
    let refusal = Refusal::UnknownTopicOrPartition;
    let partition = |partition: RequestPartitionData| ResponsePartitionData {
        partition_index: partition.partition_index,
        error_code: errors::code(&refusal),
        error_message: Some(errors::text(&refusal)),
        ..ResponsePartitionData::default()
    };
    ResponseTopicData {
        topic_name: topic.topic_name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    }
}
