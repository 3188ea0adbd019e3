//! Topics: what exists, and creating, growing and deleting it.
//! Callers: fronts, and every other operation here, which finds its partitions through the catalog.
//! Invariants: a change is durable in the metadata log before it can be seen, and a deletion is before any file goes.
//! Changes are planned one at a time and share their syncs (`changes`); readers take a snapshot of one topic and never wait
//! for them. A topic that is created again has a new id.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use model::{LogId, PartitionId, TopicId};
use storage::{AppendError, Log, Purpose};

use super::access::{Authorizer, Caller, Granted, NewName, Owner, asked_by, right};
use super::audit::On;
use super::catalog::{Owned, Topic};
use super::changes::{Added, Touched, Turn};
use super::node::NodeId;
use super::per_principal::Bounded;
use super::records::{Record, TopicRecord};
use super::refusal::{
    InvalidAssignment, InvalidPartitions, InvalidReplicationFactor, InvalidSetting,
    TooManyPartitions,
};
use super::state_log::StateLogError;
use super::{Broker, Refusal};

/// Partitions that one request may create in all, as in Kafka: a count from outside must not become that many logs.
pub const PARTITIONS_PER_REQUEST_MAX: u64 = 10_000;
/// Replicas of a partition: this broker is alone.
pub const REPLICATION_FACTOR: u16 = 1;

/// A topic to create.
#[derive(Debug, Clone)]
pub struct NewTopic {
    /// Its name, which no other topic had when it was granted.
    pub name: Granted<NewName, right::Create>,
    /// How many partitions, on which brokers.
    pub layout: Layout,
    /// Settings to make for it.
    pub settings: Vec<(String, Option<String>)>,
}

/// Where a topic's partitions are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// This many, wherever the broker likes.
    Counted {
        /// `num.partitions` if not given.
        partitions: Option<u32>,
        /// `default.replication.factor` if not given.
        replicas: Option<u16>,
    },
    /// Each partition with its brokers.
    Assigned(Vec<Assignment>),
}

/// On which brokers one partition is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The partition; None for a number that no partition has.
    pub partition: Option<PartitionId>,
    /// The brokers.
    pub replicas: Vec<NodeId>,
}

/// What is left for changes that are planned together.
pub(super) struct Room {
    partitions: u64,
    /// What those have by then whose changes they are.
    owned: HashMap<Owner, Owned>,
}

impl Layout {
    /// How many partitions it asks for; None for the broker's default.
    pub fn count(&self) -> Option<u64> {
        match self {
            Layout::Counted { partitions, .. } => partitions.map(u64::from),
            Layout::Assigned(assignments) => Some(assignments.len() as u64),
        }
    }
}

impl Broker {
    /// A topic by name.
    pub(super) fn topic(&self, name: &str) -> Result<Arc<Topic>, Refusal> {
        self.shared
            .catalog
            .by_name(name)
            .ok_or(Refusal::UnknownTopicOrPartition)
    }

    /// A topic by id.
    pub(super) fn topic_by_id(&self, id: TopicId) -> Result<Arc<Topic>, Refusal> {
        self.shared.catalog.by_id(id).ok_or(Refusal::UnknownTopicId)
    }

    /// Whether the topic of this id is there.
    pub fn has_topic(&self, id: TopicId) -> bool {
        self.topic_by_id(id).is_ok()
    }

    /// All topics, by name.
    pub(super) fn topics(&self) -> Vec<Arc<Topic>> {
        self.shared.catalog.all()
    }

    /// A topic as it is now, if it still is. In a turn that touches it, it stays so.
    pub(super) fn current(&self, topic: &Topic) -> Result<Arc<Topic>, Refusal> {
        let found = self.shared.catalog.by_id(topic.id);
        found.ok_or(Refusal::UnknownTopicOrPartition)
    }

    /// Refuses what asks for more partitions than one request may, whoever of them would be refused anyway: half of a
    /// request is never done. `counts` are the request's own, one for each topic; None stands for `num.partitions`.
    pub fn check_partitions_of_request(
        &self,
        counts: impl Iterator<Item = Option<u64>>,
    ) -> Result<(), Refusal> {
        let default = u64::from(self.config().default_partitions);
        let asked = counts
            .map(|count| count.unwrap_or(default))
            .fold(0, u64::saturating_add);
        if asked <= PARTITIONS_PER_REQUEST_MAX {
            return Ok(());
        }
        let refusal = TooManyPartitions::OfRequest {
            asked,
            count_max: PARTITIONS_PER_REQUEST_MAX,
        };
        Err(refusal.into())
    }

    /// How many partitions may still be created, beside those that are under way.
    fn partitions_left(&self) -> u64 {
        let in_force = || -> u64 {
            let topics = self.topics();
            let partitions = topics
                .iter()
                .map(|topic| u64::from(topic.partition_count()));
            partitions.sum()
        };
        let partitions = self.shared.changes.partitions(in_force);
        self.config().partitions_max.saturating_sub(partitions)
    }

    /// What is left for changes that are planned together.
    pub(super) fn room(&self) -> Room {
        Room {
            partitions: self.partitions_left(),
            owned: HashMap::new(),
        }
    }

    /// Takes what a change adds of what is left: partitions of all, and what of it comes on its owner's account.
    pub(super) fn take_room(
        &self,
        room: &mut Room,
        owner: Option<&Owner>,
        added: Owned,
    ) -> Result<(), Refusal> {
        let config = self.config();
        let asked = u32::try_from(added.partitions).unwrap_or(u32::MAX);
        let left = room.partitions.checked_sub(added.partitions);
        let left = left.ok_or(TooManyPartitions::OfBroker {
            asked,
            left: room.partitions,
            count_max: config.partitions_max,
        })?;
        // Where access is not controlled everybody may call themselves anything.
        let is_bounded = config.access.authorizer != Authorizer::None;
        if let Some(owner) = owner.filter(|_| is_bounded) {
            let owned = room.owned.entry(owner.clone()).or_insert_with(|| {
                let in_force = || self.shared.catalog.owned(owner);
                self.shared.changes.owned(owner, in_force)
            });
            let wanted = owned.plus(added);
            if added.partitions > 0 && wanted.partitions > config.partitions_of_one_max {
                self.shared.bounds_of_one.refused(Bounded::Partitions);
                return Err(TooManyPartitions::OfPrincipal {
                    asked,
                    owner: owner.clone(),
                    count: owned.partitions,
                    count_max: config.partitions_of_one_max,
                }
                .into());
            }
            let bytes_max = config.settings_bytes_of_one_max;
            if added.settings_bytes > 0 && wanted.settings_bytes > bytes_max {
                self.shared.bounds_of_one.refused(Bounded::SettingsBytes);
                return Err(InvalidSetting::TooMuchOfPrincipal {
                    owner: owner.clone(),
                    bytes: wanted.settings_bytes,
                    bytes_max,
                }
                .into());
            }
            *owned = wanted;
        }
        room.partitions = left;
        Ok(())
    }

    /// Creates topics, each for itself: one that is refused doesn't hold back the others, but for a request that asks for
    /// too many partitions in all, which is refused whole. Returns when they are durable; with `validate_only`, what would
    /// have come of it, with nothing changed.
    pub async fn create_topics(
        &self,
        wanted: Vec<NewTopic>,
        validate_only: bool,
    ) -> Vec<Result<Granted<Arc<Topic>, right::Create>, Refusal>> {
        let names = wanted.iter().flat_map(|new| Touched::by_name(&new.name));
        let turn = self.shared.changes.turn(names).await;
        let counts = wanted.iter().map(|new| new.layout.count());
        if let Err(refusal) = self.check_partitions_of_request(counts) {
            return wanted.iter().map(|_| Err(refusal.clone())).collect();
        }
        let mut room = self.room();
        let mut names = HashSet::new();
        let planned: Vec<Result<TopicRecord, Refusal>> = wanted
            .iter()
            .map(|new| {
                let record = self.plan(new)?;
                if !names.insert(record.name.clone()) {
                    return Err(Refusal::TopicNamedTwice { name: record.name });
                }
                let added = Owned::of(record.partitions, &record.settings);
                self.take_room(&mut room, record.owner.as_ref(), added)?;
                Ok(record)
            })
            .collect();
        let created: Vec<Result<Arc<Topic>, Refusal>> = if validate_only {
            let topic = |record| Ok(Arc::new(self.topic_of(record, Vec::new())?));
            planned
                .into_iter()
                .map(|record| record.and_then(topic))
                .collect()
        } else {
            let records: Vec<TopicRecord> = planned.iter().flatten().cloned().collect();
            let all = records
                .iter()
                .map(|topic| u64::from(topic.partitions))
                .sum();
            let owned = records.iter().filter_map(|topic| {
                let owner = topic.owner.clone()?;
                Some((owner, Owned::of(topic.partitions, &topic.settings)))
            });
            let added = Added {
                partitions: all,
                owned: owned.collect(),
            };
            let records = records.into_iter().map(Record::Topic).collect();
            let done = self.carry_out(turn, records, added, Purpose::State).await;
            outcomes(planned, done)
        };
        let granted = Granted::<NewName, right::Create>::on;
        created
            .into_iter()
            .map(|topic| topic.map(granted))
            .collect()
    }

    /// Creates a topic that a client spoke of, if the broker does that.
    pub async fn auto_create_topic(
        &self,
        name: Granted<NewName, right::Create>,
        caller: &Caller,
    ) -> Result<Granted<Arc<Topic>, right::Create>, Refusal> {
        if !self.config().auto_create_topics {
            return Err(Refusal::UnknownTopicOrPartition);
        }
        let layout = Layout::Counted {
            partitions: None,
            replicas: None,
        };
        let new = NewTopic {
            name,
            layout,
            settings: Vec::new(),
        };
        self.create_by_use(new, caller).await
    }

    /// Creates a topic that comes with what a client does. It is told of here, as no front has a request for it.
    pub async fn create_by_use(
        &self,
        new: NewTopic,
        caller: &Caller,
    ) -> Result<Granted<Arc<Topic>, right::Create>, Refusal> {
        let mut created = self.create_topics(vec![new], false).await;
        let topic = created.pop().expect("one answer for one topic")?;
        let (name, by) = (topic.name.as_str(), asked_by(caller));
        let partitions = topic.partition_count();
        tracing::info!(
            topic = name,
            partitions,
            by,
            "a topic was created by its use"
        );
        let detail =
            format!("topic {name} created because a client used it, partitions: {partitions}");
        self.note_change(caller, "create", On::Topic(name), &detail);
        Ok(topic)
    }

    /// Adds partitions up to a new count; see [`Layout`] for the assignments, one for each partition that is added.
    pub async fn grow_topic(
        &self,
        topic: &Granted<Arc<Topic>, right::Alter>,
        count: u32,
        assignments: Option<Vec<Vec<NodeId>>>,
        validate_only: bool,
    ) -> Result<Arc<Topic>, Refusal> {
        let turn = self.shared.changes.turn([Touched::Topic(topic.id)]).await;
        let topic = self.current(topic)?;
        let before = topic.partition_count();
        let added = count.checked_sub(before).filter(|added| *added > 0);
        let added = added.ok_or(InvalidPartitions::NotMore {
            before,
            asked: count,
        })?;
        self.check_partitions_of_request(std::iter::once(Some(u64::from(added))))?;
        let more = Owned {
            partitions: u64::from(added),
            settings_bytes: 0,
        };
        self.take_room(&mut self.room(), topic.owner.as_ref(), more)?;
        if let Some(assignments) = assignments {
            if assignments.len() != added as usize {
                let assigned = assignments.len();
                return Err(InvalidAssignment::Count { assigned, added }.into());
            }
            assignments
                .iter()
                .try_for_each(|brokers| self.check_assignment(brokers))?;
        }
        let record = TopicRecord {
            partitions: count,
            ..TopicRecord::of(&topic)
        };
        if validate_only {
            return Ok(topic);
        }
        self.write_topic(turn, record, more).await
    }

    /// Replaces the settings of a topic, which were checked before.
    pub(super) async fn replace_overrides(
        &self,
        turn: Turn<'_>,
        topic: &Topic,
        overrides: BTreeMap<String, String>,
    ) -> Result<Arc<Topic>, Refusal> {
        let record = TopicRecord {
            settings: overrides,
            ..TopicRecord::of(topic)
        };
        let after = Owned::of(record.partitions, &record.settings);
        let before = Owned::of(topic.partition_count(), &topic.overrides);
        self.write_topic(turn, record, after.beyond(before)).await
    }

    /// Deletes topics, each for itself. When this returns they are gone for good; their files go in the background.
    pub async fn delete_topics(
        &self,
        topics: Vec<Granted<Arc<Topic>, right::Delete>>,
    ) -> Vec<Result<Arc<Topic>, Refusal>> {
        let touched = topics.iter().flat_map(|topic| {
            std::iter::once(Touched::Topic(topic.id)).chain(Touched::by_name(&topic.name))
        });
        let turn = self.shared.changes.turn(touched).await;
        let mut seen = HashSet::new();
        let planned: Vec<Result<Arc<Topic>, Refusal>> = topics
            .iter()
            .map(|topic| {
                let topic = self.current(topic)?;
                if !seen.insert(topic.id) {
                    let name = topic.name.clone();
                    return Err(Refusal::TopicNamedTwice { name });
                }
                self.check_topic_deletion(&topic)?;
                Ok(topic)
            })
            .collect();
        let removals = planned.iter().flatten();
        let removals = removals
            .map(|topic| Record::TopicRemoved(topic.id))
            .collect();
        self.note_topics_deleted(planned.iter().flatten()).await;
        let done = self
            .carry_out(turn, removals, Added::default(), Purpose::Removal)
            .await;
        if done.iter().any(Result::is_err) {
            // Those that are there still.
            let named: HashSet<TopicId> = topics.iter().map(|topic| topic.id).collect();
            self.take_back_losses(|loss| named.iter().any(|topic| loss.is_of_deleted(*topic)));
        }
        let results = outcomes(planned, done);
        for topic in results.iter().flatten() {
            // What is left over does not count for a new topic of this name, and goes at the next start.
            if let Err(error) = self.groups().forget_topic(topic.id).await {
                tracing::warn!(topic = %topic.name, %error, "offsets of a deleted topic are left over");
            }
            if let Err(error) = self.shares().forget_topic(topic.id).await {
                tracing::warn!(topic = %topic.name, %error, "shared partitions of a deleted topic are left over");
            }
            self.forget_schema(topic.id).await;
        }
        results
    }

    /// What a new topic would be, or why it cannot be.
    fn plan(&self, new: &NewTopic) -> Result<TopicRecord, Refusal> {
        let NewName { name, owner } = new.name.clone().into_inner();
        if self.topic(name.as_str()).is_ok() {
            return Err(Refusal::TopicExists { name });
        }
        if let Some(existing) = self.shared.catalog.colliding(&name) {
            return Err(Refusal::CollidingTopicName { name, existing });
        }
        let partitions = match &new.layout {
            Layout::Counted {
                partitions,
                replicas,
            } => {
                check_replicas(*replicas)?;
                self.count_of(*partitions)?
            }
            Layout::Assigned(assignments) => self.count_assigned(assignments)?,
        };
        let mut settings = BTreeMap::new();
        for (key, value) in &new.settings {
            let value = value
                .clone()
                .ok_or_else(|| InvalidSetting::NoValue { name: key.clone() })?;
            settings.insert(key.clone(), value);
        }
        let settings = super::configs::normalized(&settings)?;
        self.topic_config(&settings)?;
        self.check_batch_bytes(&settings)?;
        Ok(TopicRecord {
            id: TopicId::random(),
            name,
            partitions,
            settings,
            owner,
        })
    }

    fn count_of(&self, partitions: Option<u32>) -> Result<u32, Refusal> {
        match partitions {
            None => Ok(self.config().default_partitions),
            Some(0) => Err(InvalidPartitions::None.into()),
            Some(count) => Ok(count),
        }
    }

    fn count_assigned(&self, assignments: &[Assignment]) -> Result<u32, Refusal> {
        let mut partitions: Vec<Option<PartitionId>> = assignments
            .iter()
            .map(|assignment| assignment.partition)
            .collect();
        partitions.sort_unstable();
        let numbered = (0..).map(|number| Some(PartitionId::new(number)));
        if !partitions
            .iter()
            .copied()
            .eq(numbered.take(partitions.len()))
        {
            return Err(InvalidAssignment::NotConsecutive.into());
        }
        assignments
            .iter()
            .try_for_each(|assignment| self.check_assignment(&assignment.replicas))?;
        Ok(u32::try_from(assignments.len()).expect("numbered by u32 just now"))
    }

    /// Refuses replicas anywhere but here.
    pub fn check_assignment(&self, replicas: &[NodeId]) -> Result<(), Refusal> {
        let only = self.node_id();
        if replicas == [only] {
            return Ok(());
        }
        let replicas = replicas.to_vec();
        Err(InvalidAssignment::NotHere { replicas, only }.into())
    }

    /// This broker's number.
    pub fn node_id(&self) -> NodeId {
        NodeId::new(self.config().node_id)
    }

    /// Makes a changed topic durable and then known, with so much more.
    async fn write_topic(
        &self,
        turn: Turn<'_>,
        record: TopicRecord,
        more: Owned,
    ) -> Result<Arc<Topic>, Refusal> {
        let added = Added {
            partitions: more.partitions,
            owned: record.owner.iter().map(|it| (it.clone(), more)).collect(),
        };
        let records = vec![Record::Topic(record)];
        let mut done = self
            .carry_out(turn, records, added, Purpose::Settings)
            .await;
        done.pop().expect("one outcome for one record")
    }

    /// Appends what was planned in this turn, each record for itself, gives the turn on, and puts in force what is durable. Gives
    /// each record's topic, as it is now or was. Once a change is appended it takes effect, even if nobody waits for it.
    async fn carry_out(
        &self,
        turn: Turn<'_>,
        records: Vec<Record>,
        added: Added,
        purpose: Purpose,
    ) -> Vec<Result<Arc<Topic>, Refusal>> {
        let count = records.len();
        let metadata = &self.shared.metadata;
        let written = metadata.append_each(records.iter(), purpose).await;
        let begun = turn.begin(added);
        let broker = self.clone();
        let ending = tokio::spawn(async move {
            let written = written.wait().await;
            assert!(written.len() == records.len(), "one result for each record");
            broker.shared.changes.end(begun, || {
                let outcomes = records.into_iter().zip(written);
                let in_force = |(record, written): (Record, Result<(), StateLogError>)| {
                    written.map_err(super::state_refusal)?;
                    broker.put_in_force(record)
                };
                outcomes.map(in_force).collect()
            })
        });
        match ending.await {
            Ok(outcomes) => outcomes,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime ends, and the broker with it.
            Err(_) => {
                let closed = || Err(super::state_refusal(AppendError::Closed.into()));
                std::iter::repeat_with(closed).take(count).collect()
            }
        }
    }

    fn put_in_force(&self, record: Record) -> Result<Arc<Topic>, Refusal> {
        match record {
            Record::Topic(topic) => self.attach(topic),
            Record::TopicRemoved(id) => {
                let topic = self.shared.catalog.by_id(id);
                let topic = topic.expect("whoever removes a topic keeps other changes from it");
                self.detach(&topic);
                Ok(topic)
            }
            Record::BrokerSettings(_)
            | Record::ProducerIds { .. }
            | Record::ProducerIdOwner { .. } => {
                unreachable!("a change of topics has records of topics")
            }
        }
    }

    /// Gives a durable topic its logs and makes it known. Logs that are there are kept, with new settings.
    pub(super) fn attach(&self, record: TopicRecord) -> Result<Arc<Topic>, Refusal> {
        let settings = self.topic_config(&record.settings)?;
        let log_settings = super::log_settings(&settings);
        let logs = (0..record.partitions)
            .map(|partition| {
                let id = LogId::new(record.id, PartitionId::new(partition));
                match self.shared.storage.log(id) {
                    Some(log) => {
                        self.shared.storage.set_settings(id, log_settings.clone());
                        log
                    }
                    None => self.shared.storage.create_log(id, log_settings.clone()),
                }
            })
            .collect();
        let topic = Arc::new(self.topic_of(record, logs)?);
        self.shared.catalog.put(topic.clone());
        Ok(topic)
    }

    fn topic_of(&self, record: TopicRecord, logs: Vec<Arc<Log>>) -> Result<Topic, Refusal> {
        let config = self.topic_config(&record.settings)?;
        let known = self.shared.catalog.by_id(record.id);
        Ok(Topic {
            traffic: known
                .as_ref()
                .map_or_else(Arc::default, |known| known.traffic.clone()),
            keyless: known.map_or_else(Arc::default, |known| known.keyless.clone()),
            id: record.id,
            name: record.name,
            overrides: record.settings,
            owner: record.owner,
            config,
            logs,
        })
    }

    fn detach(&self, topic: &Topic) {
        self.shared.catalog.remove(topic);
        for partition in topic.partitions() {
            self.shared.storage.delete_log(topic.log_id(partition));
        }
    }
}

fn check_replicas(replicas: Option<u16>) -> Result<(), InvalidReplicationFactor> {
    match replicas {
        None | Some(REPLICATION_FACTOR) => Ok(()),
        Some(0) => Err(InvalidReplicationFactor::None),
        Some(replicas) => Err(InvalidReplicationFactor::Unreachable { replicas }),
    }
}

/// What came of each that was planned: it was refused before, or this was done with it.
fn outcomes<T>(
    planned: Vec<Result<T, Refusal>>,
    done: Vec<Result<Arc<Topic>, Refusal>>,
) -> Vec<Result<Arc<Topic>, Refusal>> {
    let mut done = done.into_iter();
    let outcome = |plan: Result<T, Refusal>| {
        plan.and_then(|_| done.next().expect("one outcome for each that was planned"))
    };
    planned.into_iter().map(outcome).collect()
}
