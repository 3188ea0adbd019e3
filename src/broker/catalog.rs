//! The catalog: every topic that exists, found by name and by id.
//! Callers: every operation of the broker, which finds its partitions here; `topics` alone changes it.
//! Invariants: a topic is known by both of its names until it is removed. Readers take a snapshot of one topic and never wait for
//! a change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, RwLock};

use model::topic_config::TopicConfig;
use model::{LogId, PartitionId, TopicId, TopicName};
use storage::Log;

use super::publish::Keyless;
use super::{Refusal, Traffic};

/// A topic as it was when it was looked up.
#[derive(Debug)]
pub struct Topic {
    /// New at every creation.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// The settings that were made for this topic.
    pub overrides: BTreeMap<String, String>,
    /// All settings: the overrides over the broker's defaults.
    pub config: TopicConfig,
    /// What goes in and out.
    pub traffic: Arc<Traffic>,
    /// Where messages without a key go.
    pub(super) keyless: Arc<Keyless>,
    pub(super) logs: Vec<Arc<Log>>,
}

impl Topic {
    /// How many partitions it has, numbered from 0.
    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.logs.len()).expect("partitions are numbered by u32")
    }

    /// The numbers of its partitions.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..self.partition_count()).map(PartitionId::new)
    }

    /// Whether it has this partition.
    pub fn has(&self, partition: PartitionId) -> bool {
        partition.get() < self.partition_count()
    }

    /// The log of a partition.
    pub(super) fn log(&self, partition: PartitionId) -> Result<&Arc<Log>, Refusal> {
        self.logs
            .get(partition.get() as usize)
            .ok_or(Refusal::UnknownTopicOrPartition)
    }

    /// The id under which the storage knows a partition.
    pub fn log_id(&self, partition: PartitionId) -> LogId {
        LogId::new(self.id, partition)
    }
}

/// A topic by one of its two names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicKey {
    /// By name.
    Name(String),
    /// By id.
    Id(TopicId),
}

/// Every topic, found by name and by id.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    topics: RwLock<Topics>,
}

#[derive(Debug, Default)]
struct Topics {
    by_name: BTreeMap<TopicName, Arc<Topic>>,
    by_id: HashMap<TopicId, Arc<Topic>>,
    /// Names that could collide with others, by what those would share with them.
    by_collision_key: HashMap<String, BTreeSet<TopicName>>,
}

impl Catalog {
    pub(super) fn by_name(&self, name: &str) -> Option<Arc<Topic>> {
        self.read(|topics| topics.by_name.get(name).cloned())
    }

    pub(super) fn by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.read(|topics| topics.by_id.get(&id).cloned())
    }

    /// Another topic whose name collides with this one.
    pub(super) fn colliding(&self, name: &TopicName) -> Option<TopicName> {
        let key = name.collision_key()?;
        self.read(|topics| {
            let known = topics.by_collision_key.get(&key)?;
            known.iter().find(|known| *known != name).cloned()
        })
    }

    /// All topics, by name.
    pub(super) fn all(&self) -> Vec<Arc<Topic>> {
        self.read(|topics| topics.by_name.values().cloned().collect())
    }

    fn read<T>(&self, look: impl FnOnce(&Topics) -> T) -> T {
        look(
            &self
                .topics
                .read()
                .expect("no change of the catalog panics half-way"),
        )
    }

    /// Makes a topic known, or replaces what was known of it.
    pub(super) fn put(&self, topic: Arc<Topic>) {
        let mut topics = self
            .topics
            .write()
            .expect("no change of the catalog panics half-way");
        topics.by_id.insert(topic.id, topic.clone());
        if let Some(key) = topic.name.collision_key() {
            let known = topics.by_collision_key.entry(key).or_default();
            known.insert(topic.name.clone());
        }
        topics.by_name.insert(topic.name.clone(), topic);
    }

    pub(super) fn remove(&self, topic: &Topic) {
        let mut topics = self
            .topics
            .write()
            .expect("no change of the catalog panics half-way");
        let known = topics.by_id.remove(&topic.id);
        let named = topics.by_name.remove(&topic.name);
        assert!(
            known.is_some() && named.is_some_and(|named| named.id == topic.id),
            "a topic is known by both of its names until it is removed"
        );
        if let Some(key) = topic.name.collision_key()
            && let Some(known) = topics.by_collision_key.get_mut(&key)
        {
            known.remove(&topic.name);
            if known.is_empty() {
                topics.by_collision_key.remove(&key);
            }
        }
    }
}
