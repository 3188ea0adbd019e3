//! Cluster metadata as a client caches it: brokers, topics, partitions, leaders. Callers: `client`, which refreshes it.

use model::TopicId;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;
use wire::ErrorCode;
use wire::messages::metadata::{MetadataResponse, MetadataResponseTopic};

/// A broker as the cluster advertises it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its id.
    pub id: i32,
    /// Host to connect to.
    pub host: String,
    /// Port to connect to.
    pub port: i32,
    /// Its rack.
    pub rack: Option<String>,
}

impl Broker {
    /// `host:port`.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// A topic.
#[derive(Clone, Debug)]
pub struct TopicMetadata {
    /// Its name.
    pub name: String,
    /// Its id; zero if the broker does not tell.
    pub id: TopicId,
    /// Whether it is one of the cluster's own.
    pub is_internal: bool,
    /// By number, without gaps.
    pub partitions: Vec<PartitionMetadata>,
    /// When this was asked for.
    pub fetched_at: Instant,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Its number.
    pub partition: i32,
    /// The leader, if there is one.
    pub leader: Option<i32>,
    /// The leader's epoch, -1 if the broker does not tell.
    pub leader_epoch: i32,
    /// Brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub in_sync: Vec<i32>,
    /// Why it cannot be used.
    pub error: Option<ErrorCode>,
}

/// A view of the cluster at one moment.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// Brokers by id.
    pub brokers: BTreeMap<i32, Broker>,
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// The controller, if the cluster has one that clients may know.
    pub controller: Option<i32>,
    /// Topics by name; those that were asked for.
    pub topics: HashMap<String, Arc<TopicMetadata>>,
}

impl Metadata {
    /// The view after an answer: brokers are replaced, topics in the answer are replaced or, if they are gone, removed.
    /// `whole`: all topics were asked for, so what is not in the answer is gone.
    pub(crate) fn after(&self, answer: &MetadataResponse, whole: bool, now: Instant) -> Metadata {
        let mut topics = if whole {
            HashMap::new()
        } else {
            self.topics.clone()
        };
        for topic in &answer.topics {
            let Some(name) = &topic.name else { continue };
            if topic.error_code == 0 {
                topics.insert(
                    name.clone(),
                    Arc::new(TopicMetadata::from_wire(name, topic, now)),
                );
            } else {
                topics.remove(name);
            }
        }
        let brokers = answer.brokers.iter().map(|b| {
            (
                b.node_id,
                Broker {
                    id: b.node_id,
                    host: b.host.clone(),
                    port: b.port,
                    rack: b.rack.clone(),
                },
            )
        });
        Metadata {
            brokers: brokers.collect(),
            cluster_id: answer.cluster_id.clone(),
            controller: (answer.controller_id >= 0).then_some(answer.controller_id),
            topics,
        }
    }
}

impl TopicMetadata {
    fn from_wire(name: &str, topic: &MetadataResponseTopic, now: Instant) -> TopicMetadata {
        let mut partitions: Vec<PartitionMetadata> = topic
            .partitions
            .iter()
            .map(|p| PartitionMetadata {
                partition: p.partition_index,
                leader: (p.leader_id >= 0).then_some(p.leader_id),
                leader_epoch: p.leader_epoch,
                replicas: p.replica_nodes.clone(),
                in_sync: p.isr_nodes.clone(),
                error: ErrorCode::check(p.error_code).err(),
            })
            .collect();
        partitions.sort_by_key(|p| p.partition);
        TopicMetadata {
            name: name.to_owned(),
            id: TopicId::from_uuid(topic.topic_id),
            is_internal: topic.is_internal,
            partitions,
            fetched_at: now,
        }
    }

    /// A partition by number.
    pub fn partition(&self, partition: i32) -> Option<&PartitionMetadata> {
        self.partitions.iter().find(|p| p.partition == partition)
    }
}
