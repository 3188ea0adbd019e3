//! DescribeTopicPartitions (75): like Metadata, in pages (KIP-966).

use wire::messages::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic, ResponseCursor,
};

use super::{Call, operations};
use crate::broker::access::{Door, right};
use crate::broker::{Refusal, Topic};
use crate::front::kafka::errors;

/// No page has more partitions (`max.request.partition.size.limit` of Kafka).
const PARTITIONS_MAX: usize = 2000;

pub(super) async fn answer(
    request: DescribeTopicPartitionsRequest,
    call: Call,
) -> DescribeTopicPartitionsResponse {
    let mut names: Vec<String> = request.topics.into_iter().map(|topic| topic.name).collect();
    if names.is_empty() {
        names = call
            .door
            .topics(right::Describe)
            .iter()
            .map(|topic| topic.name.as_str().to_owned())
            .collect();
    }
    names.sort();
    names.dedup();
    let (from_topic, from_partition) = match request.cursor {
        Some(cursor) => (
            cursor.topic_name,
            usize::try_from(cursor.partition_index).unwrap_or(0),
        ),
        None => (String::new(), 0),
    };
    let mut left = usize::try_from(request.response_partition_limit)
        .unwrap_or(0)
        .clamp(1, PARTITIONS_MAX);
    let mut topics = Vec::new();
    let mut next_cursor = None;
    for name in names.into_iter().filter(|name| *name >= from_topic) {
        let skip = if name == from_topic {
            from_partition
        } else {
            0
        };
        if left == 0 {
            next_cursor = Some(ResponseCursor {
                topic_name: name,
                partition_index: 0,
            });
            break;
        }
        let found = call.door.topic(&name, right::Describe);
        let count = found.as_ref().map_or(0, |it| it.partition_count() as usize);
        let described = match found {
            Ok(topic) => page(&topic, skip, left, &call.door),
            Err(refusal) => unknown(&name, &refusal, &call.door),
        };
        left -= described.partitions.len().min(left);
        let seen = skip + described.partitions.len();
        topics.push(described);
        if seen < count {
            let partition_index = i32::try_from(seen).unwrap_or(i32::MAX);
            next_cursor = Some(ResponseCursor {
                topic_name: name,
                partition_index,
            });
            break;
        }
    }
    DescribeTopicPartitionsResponse {
        topics,
        next_cursor,
        ..DescribeTopicPartitionsResponse::default()
    }
}

fn page(
    topic: &Topic,
    skip: usize,
    count: usize,
    door: &Door,
) -> DescribeTopicPartitionsResponseTopic {
    let broker = door.broker();
    let node = broker.config().node_id;
    let leader_epoch = broker.leader_epoch().to_wire();
    let partition = |partition: model::PartitionId| DescribeTopicPartitionsResponsePartition {
        partition_index: partition.to_wire(),
        leader_id: node,
        leader_epoch,
        replica_nodes: vec![node],
        isr_nodes: vec![node],
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        ..DescribeTopicPartitionsResponsePartition::default()
    };
    DescribeTopicPartitionsResponseTopic {
        name: Some(topic.name.as_str().to_owned()),
        topic_id: topic.id.as_uuid(),
        is_internal: model::TopicName::is_internal(&topic.name),
        partitions: topic
            .partitions()
            .skip(skip)
            .take(count)
            .map(partition)
            .collect(),
        topic_authorized_operations: operations::of_topic(true, &topic.name, door),
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn unknown(name: &str, refusal: &Refusal, door: &Door) -> DescribeTopicPartitionsResponseTopic {
    let is_told = !matches!(refusal, Refusal::Denied { .. });
    let refusal = match model::TopicName::parse(name) {
        Err(error) => &Refusal::InvalidTopicName(error),
        Ok(_) => refusal,
    };
    DescribeTopicPartitionsResponseTopic {
        error_code: errors::code(refusal),
        name: Some(name.to_owned()),
        topic_authorized_operations: operations::of_topic(is_told, name, door),
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}
