//! Administration: topics, configurations, offsets, groups. Each method is one kind of request; what the broker says of
//! each item is that item's own result.

use crate::error::check;
use crate::metadata::{Broker, TopicMetadata};
use crate::{Client, Error, Result};
use model::{Offset, PartitionId, Timestamp, TopicId, TopicName, TopicPartition};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use wire::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use wire::messages::delete_groups::DeleteGroupsRequest;
use wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use wire::messages::describe_cluster::DescribeClusterRequest;
use wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use wire::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup};
use wire::messages::describe_log_dirs::DescribeLogDirsRequest;
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use wire::messages::list_groups::ListGroupsRequest;
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use wire::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use wire::{ErrorCode, Request};

const LATEST: i16 = i16::MAX;
/// From 8 on several groups are asked for at once, in other fields.
const OFFSET_FETCH_VERSION_MAX: i16 = 7;
/// From 10 on topics go by their ids.
pub(crate) const OFFSET_COMMIT_VERSION_MAX: i16 = 9;
/// From 6 on topics go by name or id, in other fields.
const DELETE_TOPICS_VERSION_MAX: i16 = 5;

/// Administration of a cluster.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
    /// How long the broker may take for a change.
    timeout: Duration,
}

/// The brokers of a cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The cluster's id.
    pub id: Option<String>,
    /// The controller, if clients may know it.
    pub controller: Option<i32>,
    /// By id.
    pub brokers: Vec<Broker>,
}

/// A topic to be created.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; the broker's default, if none is given.
    pub partitions: Option<i32>,
    /// How many copies; the broker's default, if none is given.
    pub replication_factor: Option<i16>,
    /// The brokers of each partition, instead of the two above.
    pub assignments: Vec<(i32, Vec<i32>)>,
    /// Settings that differ from the defaults.
    pub configs: Vec<(String, String)>,
}

/// A topic that was created.
#[derive(Clone, Debug)]
pub struct CreatedTopic {
    /// Its id; zero if the broker does not tell.
    pub id: TopicId,
    /// How many partitions, if the broker tells.
    pub partitions: Option<i32>,
    /// How many copies, if the broker tells.
    pub replication_factor: Option<i16>,
}

/// What a configuration belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// A broker by id, or all brokers.
    Broker(Option<i32>),
    /// A consumer group.
    Group(String),
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Resource::Topic(name) => write!(f, "topic {name}"),
            Resource::Broker(Some(id)) => write!(f, "broker {id}"),
            Resource::Broker(None) => write!(f, "all brokers"),
            Resource::Group(name) => write!(f, "group {name}"),
        }
    }
}

impl Resource {
    fn to_wire(&self) -> (i8, String) {
        match self {
            Resource::Topic(name) => (2, name.clone()),
            Resource::Broker(id) => (4, id.map(|id| id.to_string()).unwrap_or_default()),
            Resource::Group(name) => (32, name.clone()),
        }
    }
}

/// A setting and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Kafka's name of the setting.
    pub name: String,
    /// Its value; none for one that is not shown or not set.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it can only be set before the start.
    pub read_only: bool,
    /// Whether its value is not shown.
    pub sensitive: bool,
    /// What the broker says about it, if it was asked.
    pub documentation: Option<String>,
}

/// Where a setting's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set for this topic.
    Topic,
    /// Set for this broker while it runs.
    Broker,
    /// Set for all brokers while they run.
    DefaultBroker,
    /// From the broker's own file or command line.
    StaticBroker,
    /// Built in.
    Default,
    /// Set for this group.
    Group,
    /// Something else.
    Other(i8),
}

impl ConfigSource {
    fn from_wire(source: i8) -> ConfigSource {
        match source {
            1 => ConfigSource::Topic,
            2 => ConfigSource::Broker,
            3 => ConfigSource::DefaultBroker,
            4 => ConfigSource::StaticBroker,
            5 => ConfigSource::Default,
            8 => ConfigSource::Group,
            other => ConfigSource::Other(other),
        }
    }
}

/// A change of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// Set it.
    Set(String, String),
    /// Back to its default.
    Delete(String),
    /// Add to a list.
    Append(String, String),
    /// Take out of a list.
    Subtract(String, String),
}

/// A place to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The oldest record.
    Earliest,
    /// After the newest record.
    Latest,
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// The first record that is as young as this or younger.
    Time(Timestamp),
}

/// A place that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its offset; none if there is no such record.
    pub offset: Option<Offset>,
    /// The record's timestamp, where the look-up was about one.
    pub timestamp: Option<Timestamp>,
    /// The epoch of the leader that wrote it, if the broker tells.
    pub leader_epoch: Option<i32>,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next record to be read.
    pub offset: Offset,
    /// The committer's own note.
    pub metadata: String,
}

/// A group as a broker lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// Its name.
    pub group: String,
    /// What kind of members it has, `consumer`.
    pub protocol_type: String,
    /// Its state, if the broker tells.
    pub state: String,
    /// Which group protocol it speaks, if the broker tells.
    pub group_type: String,
}

/// A group in detail.
#[derive(Clone, Debug)]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// `Stable`, `Empty`, `Dead` and so on.
    pub state: String,
    /// What kind of members it has.
    pub protocol_type: String,
    /// The assignor that its members agreed on.
    pub protocol: String,
    /// Its coordinator.
    pub coordinator: i32,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug)]
pub struct GroupMember {
    /// Its id.
    pub member_id: String,
    /// Its name across restarts, if it has one.
    pub instance_id: Option<String>,
    /// How its client calls itself.
    pub client_id: String,
    /// Where it is.
    pub host: String,
    /// What it reads.
    pub partitions: Vec<TopicPartition>,
}

/// A directory with partitions.
#[derive(Clone, Debug)]
pub struct LogDir {
    /// The broker.
    pub broker: i32,
    /// The path there.
    pub path: String,
    /// Bytes of each partition.
    pub partitions: Vec<(TopicPartition, u64)>,
    /// The volume's size, if the broker tells.
    pub total_bytes: Option<u64>,
    /// What of it is free, if the broker tells.
    pub usable_bytes: Option<u64>,
}

impl Admin {
    /// Administration through a client.
    pub fn new(client: &Client) -> Admin {
        Admin {
            client: client.clone(),
            timeout: Duration::from_secs(30),
        }
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX)
    }

    /// The brokers.
    pub async fn describe_cluster(&self) -> Result<Cluster> {
        match self
            .client
            .call_any(&DescribeClusterRequest::default(), LATEST)
            .await
        {
            Ok(answer) => {
                check(
                    answer.error_code,
                    || "cluster".to_owned(),
                    answer.error_message.as_ref(),
                )?;
                let broker = |b: &wire::messages::describe_cluster::DescribeClusterBroker| Broker {
                    id: b.broker_id,
                    host: b.host.clone(),
                    port: b.port,
                    rack: b.rack.clone(),
                };
                Ok(Cluster {
                    id: Some(answer.cluster_id.clone()),
                    controller: (answer.controller_id >= 0).then_some(answer.controller_id),
                    brokers: answer.brokers.iter().map(broker).collect(),
                })
            }
            Err(Error::NoCommonVersion { .. }) => {
                let known = self.client.refresh(Some(&[])).await?;
                Ok(Cluster {
                    id: known.cluster_id.clone(),
                    controller: known.controller,
                    brokers: known.brokers.values().cloned().collect(),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// All topics, by name.
    pub async fn list_topics(&self) -> Result<BTreeMap<String, Arc<TopicMetadata>>> {
        let known = self.client.retry(|| self.client.refresh(None)).await?;
        Ok(known
            .topics
            .iter()
            .map(|(name, topic)| (name.clone(), topic.clone()))
            .collect())
    }

    /// Creates topics, or only checks whether they could be.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Vec<(String, Result<CreatedTopic>)>> {
        let topic = |new: &NewTopic| {
            let assigned = !new.assignments.is_empty();
            let assignment = |(partition, brokers): &(i32, Vec<i32>)| CreatableReplicaAssignment {
                partition_index: *partition,
                broker_ids: brokers.clone(),
            };
            let config = |(name, value): &(String, String)| CreatableTopicConfig {
                name: name.clone(),
                value: Some(value.clone()),
            };
            CreatableTopic {
                name: new.name.clone(),
                num_partitions: new.partitions.filter(|_| !assigned).unwrap_or(-1),
                replication_factor: new.replication_factor.filter(|_| !assigned).unwrap_or(-1),
                assignments: new.assignments.iter().map(assignment).collect(),
                configs: new.configs.iter().map(config).collect(),
            }
        };
        let request = CreateTopicsRequest {
            topics: topics.iter().map(topic).collect(),
            timeout_ms: self.timeout_ms(),
            validate_only,
        };
        let answer = self.call(&request, LATEST).await?;
        let result = |t: &wire::messages::create_topics::CreatableTopicResult| {
            let what = || format!("topic {}", t.name);
            let result =
                check(t.error_code, what, t.error_message.as_ref()).map(|()| CreatedTopic {
                    id: TopicId::from_uuid(t.topic_id),
                    partitions: Some(t.num_partitions).filter(|n| *n >= 0),
                    replication_factor: Some(t.replication_factor).filter(|n| *n >= 0),
                });
            (t.name.clone(), result)
        };
        Ok(answer.topics.iter().map(result).collect())
    }

    /// Creates one topic and waits until it can be used. A topic that exists already is an error.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<CreatedTopic> {
        let name = topic.name.clone();
        let created = single(self.create_topics(&[topic], false).await?, &name)?;
        self.client
            .retry(|| async {
                let known = self.client.topic_anew(&name, false).await;
                // The broker that is asked may not know yet.
                let code = ErrorCode::LeaderNotAvailable;
                let not_yet = || Error::broker(code, format!("topic {name}"), None);
                match known {
                    Ok(known) if known.partitions.iter().all(|p| p.leader.is_some()) => Ok(()),
                    Ok(_) => Err(not_yet()),
                    Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                        Err(not_yet())
                    }
                    Err(error) => Err(error),
                }
            })
            .await?;
        Ok(created)
    }

    /// Deletes topics.
    pub async fn delete_topics(&self, names: &[&str]) -> Result<Vec<(String, Result<()>)>> {
        let mut request = DeleteTopicsRequest {
            timeout_ms: self.timeout_ms(),
            ..Default::default()
        };
        request.topic_names = names.iter().map(|&n| n.to_owned()).collect();
        let by_name = self
            .client
            .any()
            .await?
            .version_for::<DeleteTopicsRequest>(DELETE_TOPICS_VERSION_MAX);
        let version_max = if by_name.is_ok() {
            DELETE_TOPICS_VERSION_MAX
        } else {
            LATEST
        };
        if version_max == LATEST {
            let named = |&n: &&str| DeleteTopicState {
                name: Some(n.to_owned()),
                ..Default::default()
            };
            request.topics = names.iter().map(named).collect();
        }
        let answer = self.call(&request, version_max).await?;
        let result = |r: &wire::messages::delete_topics::DeletableTopicResult| {
            let name = r.name.clone().unwrap_or_default();
            let result = check(
                r.error_code,
                || format!("topic {name}"),
                r.error_message.as_ref(),
            );
            (name, result)
        };
        Ok(answer.responses.iter().map(result).collect())
    }

    /// Raises topics' numbers of partitions.
    pub async fn create_partitions(
        &self,
        topics: &[(&str, i32)],
        validate_only: bool,
    ) -> Result<Vec<(String, Result<()>)>> {
        let topic = |&(name, count): &(&str, i32)| CreatePartitionsTopic {
            name: name.to_owned(),
            count,
            assignments: None,
        };
        let request = CreatePartitionsRequest {
            topics: topics.iter().map(topic).collect(),
            timeout_ms: self.timeout_ms(),
            validate_only,
        };
        let answer = self.call(&request, LATEST).await?;
        let result = |r: &wire::messages::create_partitions::CreatePartitionsTopicResult| {
            let result = check(
                r.error_code,
                || format!("topic {}", r.name),
                r.error_message.as_ref(),
            );
            (r.name.clone(), result)
        };
        Ok(answer.results.iter().map(result).collect())
    }

    /// All settings of a resource.
    pub async fn describe_configs(&self, resource: &Resource) -> Result<Vec<ConfigEntry>> {
        let (resource_type, resource_name) = resource.to_wire();
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type,
                resource_name,
                configuration_keys: None,
            }],
            include_documentation: false,
            include_synonyms: false,
        };
        let answer = match resource {
            Resource::Broker(Some(id)) => self.call_broker(*id, &request, LATEST).await?,
            _ => self.call(&request, LATEST).await?,
        };
        let missing = || Error::Invalid(format!("the answer does not mention {resource:?}"));
        let result = answer.results.into_iter().next().ok_or_else(missing)?;
        check(
            result.error_code,
            || resource.to_string(),
            result.error_message.as_ref(),
        )?;
        let entry =
            |c: wire::messages::describe_configs::DescribeConfigsResourceResult| ConfigEntry {
                name: c.name,
                value: c.value,
                source: ConfigSource::from_wire(c.config_source),
                read_only: c.read_only,
                sensitive: c.is_sensitive,
                documentation: c.documentation,
            };
        Ok(result.configs.into_iter().map(entry).collect())
    }

    /// One setting of a resource, asked for once; none if the resource has no such setting.
    pub(crate) async fn setting(&self, resource: &Resource, name: &str) -> Result<Option<String>> {
        let (resource_type, resource_name) = resource.to_wire();
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type,
                resource_name,
                configuration_keys: Some(vec![name.to_owned()]),
            }],
            include_documentation: false,
            include_synonyms: false,
        };
        let connection = self.client.any().await?;
        let pending = connection.start(&request, LATEST).await?;
        let answer = pending.wait(Duration::ZERO).await?;
        let Some(result) = answer.results.into_iter().next() else {
            return Ok(None);
        };
        check(
            result.error_code,
            || resource.to_string(),
            result.error_message.as_ref(),
        )?;
        let found = result
            .configs
            .into_iter()
            .find(|config| config.name == name);
        Ok(found.and_then(|config| config.value))
    }

    /// Changes settings of a resource; the others stay.
    pub async fn alter_configs(
        &self,
        resource: &Resource,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<()> {
        let change = |change: &ConfigChange| {
            let (config_operation, name, value) = match change {
                ConfigChange::Set(name, value) => (0, name, Some(value)),
                ConfigChange::Delete(name) => (1, name, None),
                ConfigChange::Append(name, value) => (2, name, Some(value)),
                ConfigChange::Subtract(name, value) => (3, name, Some(value)),
            };
            AlterableConfig {
                name: name.clone(),
                config_operation,
                value: value.cloned(),
            }
        };
        let (resource_type, resource_name) = resource.to_wire();
        let configs = changes.iter().map(change).collect();
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type,
                resource_name,
                configs,
            }],
            validate_only,
        };
        let answer = match resource {
            Resource::Broker(Some(id)) => self.call_broker(*id, &request, LATEST).await?,
            _ => self.call(&request, LATEST).await?,
        };
        for result in &answer.responses {
            check(
                result.error_code,
                || resource.to_string(),
                result.error_message.as_ref(),
            )?;
        }
        Ok(())
    }

    /// Looks up places in partitions. The first partition that fails fails all.
    pub async fn list_offsets(
        &self,
        wanted: &[(TopicPartition, At)],
    ) -> Result<HashMap<TopicPartition, Place>> {
        self.by_leader(wanted, |batch| self.list_offsets_of(batch))
            .await
    }

    async fn list_offsets_of(
        &self,
        (broker, wanted): (i32, Vec<(TopicPartition, At)>),
    ) -> Result<HashMap<TopicPartition, Place>> {
        let topics = by_topic(
            &wanted,
            |(p, _)| p,
            |(p, at)| ListOffsetsPartition {
                partition_index: p.partition.to_wire(),
                timestamp: match at {
                    At::Earliest => -2,
                    At::Latest => -1,
                    At::MaxTimestamp => -3,
                    // A negative time would be one of the marks above.
                    At::Time(time) => time.millis().max(0),
                },
                ..Default::default()
            },
        );
        let topic = |(name, partitions)| ListOffsetsTopic { name, partitions };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: topics.into_iter().map(topic).collect(),
            ..Default::default()
        };
        let answer = self.call_broker(broker, &request, 8).await?;
        let asked: HashMap<TopicPartition, At> = wanted.into_iter().collect();
        let mut found = HashMap::new();
        for topic in &answer.topics {
            for p in &topic.partitions {
                let Some(partition) = topic_partition(&topic.name, p.partition_index) else {
                    continue;
                };
                check(p.error_code, || partition.to_string(), None)?;
                let about_a_record =
                    matches!(asked.get(&partition), Some(At::Time(_) | At::MaxTimestamp));
                let place = Place {
                    offset: Offset::from_wire(p.offset),
                    timestamp: Some(Timestamp::from_millis(p.timestamp))
                        .filter(|_| about_a_record && p.offset >= 0),
                    leader_epoch: Some(p.leader_epoch).filter(|e| *e >= 0),
                };
                found.insert(partition, place);
            }
        }
        Ok(found)
    }

    /// Deletes all records before an offset (none: all there are). Yields the first offset that is left.
    pub async fn delete_records(
        &self,
        wanted: &[(TopicPartition, Option<Offset>)],
    ) -> Result<HashMap<TopicPartition, Offset>> {
        self.by_leader(wanted, |(broker, wanted)| async move {
            let topics = by_topic(
                &wanted,
                |(p, _)| p,
                |(p, before)| DeleteRecordsPartition {
                    partition_index: p.partition.to_wire(),
                    offset: before.map_or(-1, Offset::to_wire),
                },
            );
            let topic = |(name, partitions)| DeleteRecordsTopic { name, partitions };
            let request = DeleteRecordsRequest {
                topics: topics.into_iter().map(topic).collect(),
                timeout_ms: self.timeout_ms(),
            };
            let answer = self.call_broker(broker, &request, LATEST).await?;
            let mut left = HashMap::new();
            for topic in &answer.topics {
                for p in &topic.partitions {
                    let Some(partition) = topic_partition(&topic.name, p.partition_index) else {
                        continue;
                    };
                    check(p.error_code, || partition.to_string(), None)?;
                    left.insert(
                        partition,
                        Offset::from_wire(p.low_watermark).unwrap_or_default(),
                    );
                }
            }
            Ok(left)
        })
        .await
    }

    /// Groups of all brokers.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>> {
        let brokers = self.client.retry(|| self.client.refresh(Some(&[]))).await?;
        let mut groups = Vec::new();
        for broker in brokers.brokers.keys() {
            let answer = self
                .call_broker(*broker, &ListGroupsRequest::default(), LATEST)
                .await?;
            check(
                answer.error_code,
                || format!("groups of broker {broker}"),
                None,
            )?;
            groups.extend(answer.groups.into_iter().map(|g| GroupListing {
                group: g.group_id,
                protocol_type: g.protocol_type,
                state: g.group_state,
                group_type: g.group_type,
            }));
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(groups)
    }

    /// A group in detail. One that does not exist is `Dead`, or an error, as the broker has it.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        self.on_coordinator(group, |coordinator| async move {
            let request = DescribeGroupsRequest {
                groups: vec![group.to_owned()],
                ..Default::default()
            };
            let answer = self
                .client
                .call_broker(coordinator, &request, LATEST, Duration::ZERO)
                .await?;
            let missing = || Error::Invalid(format!("the answer does not mention group {group}"));
            let found = answer.groups.into_iter().next().ok_or_else(missing)?;
            check(
                found.error_code,
                || format!("group {group}"),
                found.error_message.as_ref(),
            )?;
            Ok(describe(found, coordinator))
        })
        .await
    }

    /// Deletes a group without members, and all that it committed.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        self.on_coordinator(group, |coordinator| async move {
            let request = DeleteGroupsRequest {
                groups_names: vec![group.to_owned()],
            };
            let answer = self
                .client
                .call_broker(coordinator, &request, LATEST, Duration::ZERO)
                .await?;
            for result in &answer.results {
                check(result.error_code, || format!("group {group}"), None)?;
            }
            Ok(())
        })
        .await
    }

    /// What a group committed, for some partitions or for all. Partitions without a commit are not in the result.
    pub async fn committed(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<HashMap<TopicPartition, Committed>> {
        let topics = partitions.map(|list| {
            let topics = by_topic(list, |p| p, |p| p.partition.to_wire());
            let topic = |(name, partition_indexes)| OffsetFetchRequestTopic {
                name,
                partition_indexes,
            };
            topics.into_iter().map(topic).collect::<Vec<_>>()
        });
        let request = &OffsetFetchRequest {
            group_id: group.to_owned(),
            topics,
            ..Default::default()
        };
        self.on_coordinator(group, |coordinator| async move {
            let answer = self
                .client
                .call_broker(
                    coordinator,
                    request,
                    OFFSET_FETCH_VERSION_MAX,
                    Duration::ZERO,
                )
                .await?;
            check(answer.error_code, || format!("group {group}"), None)?;
            let mut committed = HashMap::new();
            for topic in answer.topics {
                for p in topic.partitions {
                    let Some(partition) = topic_partition(&topic.name, p.partition_index) else {
                        continue;
                    };
                    check(
                        p.error_code,
                        || format!("{partition} of group {group}"),
                        None,
                    )?;
                    if let Some(offset) = Offset::from_wire(p.committed_offset) {
                        let metadata = p.metadata.unwrap_or_default();
                        committed.insert(partition, Committed { offset, metadata });
                    }
                }
            }
            Ok(committed)
        })
        .await
    }

    /// Commits for a group that has no members now, to move it.
    pub async fn commit(&self, group: &str, offsets: &[(TopicPartition, Committed)]) -> Result<()> {
        let request = &commit_request(group, offsets);
        self.on_coordinator(group, |coordinator| async move {
            let answer = self
                .client
                .call_broker(
                    coordinator,
                    request,
                    OFFSET_COMMIT_VERSION_MAX,
                    Duration::ZERO,
                )
                .await?;
            check_commit(&answer, group)
        })
        .await
    }

    /// Forgets what a group committed for some partitions.
    pub async fn delete_committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<()> {
        let topics = by_topic(
            partitions,
            |p| p,
            |p| OffsetDeleteRequestPartition {
                partition_index: p.partition.to_wire(),
            },
        );
        let topic = |(name, partitions)| OffsetDeleteRequestTopic { name, partitions };
        let topics = topics.into_iter().map(topic).collect();
        let request = &OffsetDeleteRequest {
            group_id: group.to_owned(),
            topics,
        };
        self.on_coordinator(group, |coordinator| async move {
            let answer = self
                .client
                .call_broker(coordinator, request, LATEST, Duration::ZERO)
                .await?;
            check(answer.error_code, || format!("group {group}"), None)?;
            for topic in &answer.topics {
                for p in &topic.partitions {
                    check(
                        p.error_code,
                        || format!("{}-{}", topic.name, p.partition_index),
                        None,
                    )?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Where all brokers keep their partitions, and how large each is.
    pub async fn log_dirs(&self) -> Result<Vec<LogDir>> {
        let known = self.client.retry(|| self.client.refresh(Some(&[]))).await?;
        let mut dirs = Vec::new();
        for &broker in known.brokers.keys() {
            let answer = self
                .call_broker(broker, &DescribeLogDirsRequest { topics: None }, LATEST)
                .await?;
            check(
                answer.error_code,
                || format!("directories of broker {broker}"),
                None,
            )?;
            for dir in answer.results {
                check(dir.error_code, || dir.log_dir.clone(), None)?;
                let sizes = dir.topics.iter().flat_map(|t| {
                    t.partitions.iter().filter_map(|p| {
                        let partition = topic_partition(&t.name, p.partition_index)?;
                        Some((partition, u64::try_from(p.partition_size).unwrap_or(0)))
                    })
                });
                dirs.push(LogDir {
                    broker,
                    partitions: sizes.collect(),
                    path: dir.log_dir.clone(),
                    total_bytes: u64::try_from(dir.total_bytes).ok(),
                    usable_bytes: u64::try_from(dir.usable_bytes).ok(),
                });
            }
        }
        Ok(dirs)
    }

    /// To any broker; brokers that have no controller role pass it on.
    async fn call<R: Request>(&self, request: &R, version_max: i16) -> Result<R::Response> {
        self.client
            .retry(|| async {
                let connection = self.client.any().await?;
                connection
                    .start(request, version_max)
                    .await?
                    .wait(self.timeout)
                    .await
            })
            .await
    }

    async fn call_broker<R: Request>(
        &self,
        broker: i32,
        request: &R,
        version_max: i16,
    ) -> Result<R::Response> {
        self.client
            .retry(|| {
                self.client
                    .call_broker(broker, request, version_max, self.timeout)
            })
            .await
    }

    /// Asks each partition's leader, and asks again where leaders moved.
    async fn by_leader<T: Clone, V, F>(
        &self,
        wanted: &[(TopicPartition, T)],
        ask: impl Fn((i32, Vec<(TopicPartition, T)>)) -> F,
    ) -> Result<HashMap<TopicPartition, V>>
    where
        F: Future<Output = Result<HashMap<TopicPartition, V>>>,
    {
        self.client
            .retry(|| async {
                let mut leaders: BTreeMap<i32, Vec<(TopicPartition, T)>> = BTreeMap::new();
                for (partition, what) in wanted {
                    let leader = self
                        .client
                        .leader(partition.topic.as_str(), partition.partition.to_wire())
                        .await?;
                    leaders
                        .entry(leader)
                        .or_default()
                        .push((partition.clone(), what.clone()));
                }
                let mut all = HashMap::new();
                for batch in leaders {
                    match ask(batch).await {
                        Ok(some) => all.extend(some),
                        Err(error) => {
                            if error.wants_metadata() {
                                let mut topics: Vec<&str> =
                                    wanted.iter().map(|(p, _)| p.topic.as_str()).collect();
                                topics.dedup();
                                self.client.refresh(Some(&topics)).await?;
                            }
                            return Err(error);
                        }
                    }
                }
                Ok(all)
            })
            .await
    }

    async fn on_coordinator<V, F: Future<Output = Result<V>>>(
        &self,
        group: &str,
        ask: impl Fn(i32) -> F,
    ) -> Result<V> {
        self.client
            .retry(|| async { ask(self.client.coordinator(group).await?).await })
            .await
    }
}

/// The result of the only item.
pub fn single<T>(results: Vec<(String, Result<T>)>, name: &str) -> Result<T> {
    let missing = || Error::Invalid(format!("the answer does not mention {name}"));
    results.into_iter().next().ok_or_else(missing)?.1
}

pub(crate) fn topic_partition(topic: &str, partition: i32) -> Option<TopicPartition> {
    Some(TopicPartition::new(
        TopicName::parse(topic).ok()?,
        PartitionId::from_wire(partition)?,
    ))
}

/// Puts items together by topic, as most requests want them.
pub(crate) fn by_topic<T, P>(
    items: &[T],
    partition: impl Fn(&T) -> &TopicPartition,
    entry: impl Fn(&T) -> P,
) -> BTreeMap<String, Vec<P>> {
    let mut topics: BTreeMap<String, Vec<P>> = BTreeMap::new();
    for item in items {
        topics
            .entry(partition(item).topic.to_string())
            .or_default()
            .push(entry(item));
    }
    topics
}

pub(crate) fn commit_request(
    group: &str,
    offsets: &[(TopicPartition, Committed)],
) -> OffsetCommitRequest {
    let topics = by_topic(
        offsets,
        |(p, _)| p,
        |(p, committed)| OffsetCommitRequestPartition {
            partition_index: p.partition.to_wire(),
            committed_offset: committed.offset.to_wire(),
            committed_metadata: Some(committed.metadata.clone()),
            ..Default::default()
        },
    );
    let topic = |(name, partitions)| OffsetCommitRequestTopic {
        name,
        partitions,
        ..Default::default()
    };
    OffsetCommitRequest {
        group_id: group.to_owned(),
        topics: topics.into_iter().map(topic).collect(),
        ..Default::default()
    }
}

pub(crate) fn check_commit(
    answer: &wire::messages::offset_commit::OffsetCommitResponse,
    group: &str,
) -> Result<()> {
    for topic in &answer.topics {
        for p in &topic.partitions {
            check(
                p.error_code,
                || format!("{}-{} of group {group}", topic.name, p.partition_index),
                None,
            )?;
        }
    }
    Ok(())
}

fn describe(group: DescribedGroup, coordinator: i32) -> GroupDescription {
    let members = group.members.into_iter().map(|member| {
        // Other protocol types put other things there.
        let assignment =
            wire::consumer::decode_assignment(member.member_assignment).unwrap_or_default();
        let partitions = assignment.assigned_partitions.iter();
        GroupMember {
            member_id: member.member_id,
            instance_id: member.group_instance_id,
            client_id: member.client_id,
            host: member.client_host,
            partitions: partitions
                .flat_map(|t| {
                    t.partitions
                        .iter()
                        .filter_map(|p| topic_partition(&t.topic, *p))
                })
                .collect(),
        }
    });
    GroupDescription {
        members: members.collect(),
        group: group.group_id,
        state: group.group_state,
        protocol_type: group.protocol_type,
        protocol: group.protocol_data,
        coordinator,
    }
}
