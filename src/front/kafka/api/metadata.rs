//! Metadata (3): this broker, and the topics that were asked for.

use std::collections::HashSet;
use std::sync::Arc;

use model::{TopicId, TopicName};
use wire::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};

use super::{Call, operations};
use crate::broker::access::{Door, right};
use crate::broker::{Refusal, Topic};
use crate::front::kafka::errors::{Failure, Misuse};

/// What a partition takes, in the answer and before it.
const PARTITION_BYTES: usize = 200;

pub(super) async fn answer(request: MetadataRequest, call: Call) -> MetadataResponse {
    let broker = call.broker();
    // Version 0 has no null: an empty list asks for all there.
    let all = match &request.topics {
        None => true,
        Some(topics) => topics.is_empty() && call.version == 0,
    };
    let asked = request.include_topic_authorized_operations;
    let mut topics = Vec::new();
    if all {
        for topic in call.door.topics(right::Describe) {
            topics.push(held(&topic, asked, &call).await);
        }
    } else {
        let create = call.version < 4 || request.allow_auto_topic_creation;
        // A topic that is named twice is told once, as in Kafka.
        let mut told = HashSet::new();
        for wanted in request.topics.unwrap_or_default() {
            if told.insert((wanted.name.clone(), wanted.topic_id)) {
                topics.push(one(wanted, create, asked, &call).await);
            }
        }
    }
    let config = broker.config();
    MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: config.node_id,
            host: call.endpoint.advertised_host.clone(),
            port: i32::from(call.endpoint.advertised_port),
            rack: config.rack.clone(),
        }],
        cluster_id: Some(broker.cluster_id()),
        controller_id: config.node_id,
        topics,
        cluster_authorized_operations: operations::of_cluster(
            request.include_cluster_authorized_operations,
            &call.door,
        ),
        ..MetadataResponse::default()
    }
}

async fn one(
    wanted: MetadataRequestTopic,
    create: bool,
    asked: bool,
    call: &Call,
) -> MetadataResponseTopic {
    let id = TopicId::from_uuid(wanted.topic_id);
    let found: Result<_, Failure> = match &wanted.name {
        None if !id.is_zero() => call
            .door
            .topic_by_id(id, right::Describe)
            .map(|topic| Arc::clone(&topic))
            .map_err(Failure::from),
        None => Err(Misuse::TopicUnnamed.into()),
        Some(name) => by_name(name, create, call).await.map_err(Failure::from),
    };
    match found {
        Ok(topic) => held(&topic, asked, call).await,
        Err(failure) => MetadataResponseTopic {
            error_code: failure.code(),
            name: wanted.name,
            topic_id: wanted.topic_id,
            topic_authorized_operations: operations::NOT_ASKED,
            ..MetadataResponseTopic::default()
        },
    }
}

async fn by_name(name: &str, create: bool, call: &Call) -> Result<Arc<Topic>, Refusal> {
    match call.door.topic(name, right::Describe) {
        Ok(topic) => Ok(Arc::clone(&topic)),
        // Who may not know of it learns no more by the wish to have it.
        Err(refusal @ Refusal::Denied { .. }) => Err(refusal),
        Err(_) if create => created(name, call).await,
        Err(refusal) => {
            TopicName::parse(name)?;
            Err(refusal)
        }
    }
}

/// A topic that is not made because of a quota is unknown, whatever the version.
const ALWAYS_STRICT: i16 = 0;

/// Partitions of a topic that is created by its use.
fn default_partitions(call: &Call) -> u64 {
    u64::from(call.broker().config().default_partitions)
}

/// The topic that is called into being by asking for it. A name that Kafka keeps for itself is unknown and stays so: to look
/// at it is no wish to have it.
async fn created(name: &str, call: &Call) -> Result<Arc<Topic>, Refusal> {
    let created = match call.door.new_topic(name) {
        Ok(name) => match call.mutate(default_partitions(call), ALWAYS_STRICT) {
            Ok(()) => {
                call.broker()
                    .auto_create_topic(name, call.door.caller())
                    .await
            }
            // The client asks again.
            Err(_) => Err(Refusal::UnknownTopicOrPartition),
        },
        Err(refusal) => Err(refusal),
    };
    match created {
        Ok(topic) => Ok(Arc::clone(&topic)),
        // Somebody else did the same at the same time.
        Err(Refusal::TopicExists { .. }) => {
            let topic = call.door.topic(name, right::Describe)?;
            Ok(Arc::clone(&topic))
        }
        Err(Refusal::InternalTopic { .. } | Refusal::ReservedTopicName { .. }) => {
            Err(Refusal::UnknownTopicOrPartition)
        }
        Err(refusal) => Err(refusal),
    }
}

/// The topic, if it still fits into the answer.
async fn held(topic: &Topic, asked: bool, call: &Call) -> MetadataResponseTopic {
    let partitions = topic.partition_count() as usize;
    let bytes = 256 + partitions.saturating_mul(PARTITION_BYTES);
    match call.answer.hold(bytes).await {
        Ok(()) => described(topic, asked, &call.door),
        Err(misuse) => MetadataResponseTopic {
            error_code: misuse.code(),
            name: Some(topic.name.as_str().to_owned()),
            topic_id: topic.id.as_uuid(),
            topic_authorized_operations: operations::NOT_ASKED,
            ..MetadataResponseTopic::default()
        },
    }
}

/// `asked`: whether the client wants to know what it may do.
fn described(topic: &Topic, asked: bool, door: &Door) -> MetadataResponseTopic {
    let broker = door.broker();
    let node = broker.config().node_id;
    let leader_epoch = broker.leader_epoch().to_wire();
    let partition = |partition: model::PartitionId| MetadataResponsePartition {
        partition_index: partition.to_wire(),
        leader_id: node,
        leader_epoch,
        replica_nodes: vec![node],
        isr_nodes: vec![node],
        ..MetadataResponsePartition::default()
    };
    MetadataResponseTopic {
        name: Some(topic.name.as_str().to_owned()),
        topic_id: topic.id.as_uuid(),
        is_internal: TopicName::is_internal(&topic.name),
        partitions: topic.partitions().map(partition).collect(),
        topic_authorized_operations: operations::of_topic(asked, &topic.name, door),
        ..MetadataResponseTopic::default()
    }
}
