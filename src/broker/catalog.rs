//! The catalog: every topic that exists, found by name and by id.
//! Callers: every operation of the broker, which finds its partitions here; `topics` alone changes it.
//! Invariants: a topic is known by both of its names until it is removed. Readers take a snapshot of one topic and never wait for
//! a change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, RwLock};

use model::topic_config::TopicConfig;
use model::{LogId, PartitionId, TopicId, TopicName};
use storage::Log;

use super::access::Owner;
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
    /// On whose account it is.
    pub(super) owner: Option<Owner>,
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

/// What topics take, as far as principals have it on their accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) partitions: u64,
    /// Names and values of the topics' own settings.
    pub(super) settings_bytes: u64,
}

impl Owned {
    pub(super) fn of(partitions: u32, overrides: &BTreeMap<String, String>) -> Owned {
        let sizes = overrides
            .iter()
            .map(|(name, value)| name.len() + value.len());
        Owned {
            partitions: partitions.into(),
            settings_bytes: sizes.sum::<usize>() as u64,
        }
    }

    pub(super) fn plus(self, other: Owned) -> Owned {
        Owned {
            partitions: self.partitions.saturating_add(other.partitions),
            settings_bytes: self.settings_bytes.saturating_add(other.settings_bytes),
        }
    }

    /// What this is more.
    pub(super) fn beyond(self, other: Owned) -> Owned {
        Owned {
            partitions: self.partitions.saturating_sub(other.partitions),
            settings_bytes: self.settings_bytes.saturating_sub(other.settings_bytes),
        }
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
    /// What each principal has that has any.
    owned: HashMap<Owner, Owned>,
}

impl Topics {
    fn account(&mut self, topic: &Topic, change: fn(Owned, Owned) -> Owned) {
        let Some(owner) = &topic.owner else {
            return;
        };
        let of_topic = Owned::of(topic.partition_count(), &topic.overrides);
        let owned = self.owned.entry(owner.clone()).or_default();
        *owned = change(*owned, of_topic);
        if *owned == Owned::default() {
            self.owned.remove(owner);
        }
    }
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

    /// What a principal has.
    pub(super) fn owned(&self, owner: &Owner) -> Owned {
        self.read(|topics| topics.owned.get(owner).copied().unwrap_or_default())
    }

    /// The most that one principal has of each.
    pub(super) fn owned_most(&self) -> Owned {
        self.read(|topics| {
            let all = topics.owned.values();
            all.fold(Owned::default(), |most, owned| Owned {
                partitions: most.partitions.max(owned.partitions),
                settings_bytes: most.settings_bytes.max(owned.settings_bytes),
            })
        })
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
        if let Some(before) = topics.by_id.insert(topic.id, topic.clone()) {
            topics.account(&before, Owned::beyond);
        }
        topics.account(&topic, Owned::plus);
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
        if let Some(known) = &known {
            topics.account(known, Owned::beyond);
        }
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
