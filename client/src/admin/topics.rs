//! Topics: listing, creation, deletion, more partitions.
//! Callers: whoever holds an [`Admin`]. What the broker says of each topic is that topic's own result.

use super::{Admin, LATEST, single};
use crate::error::check;
use crate::metadata::TopicMetadata;
use crate::{Error, Result};
use model::TopicId;
use std::collections::BTreeMap;
use std::sync::Arc;
use wire::ErrorCode;
use wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use wire::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};

/// From 6 on topics go by name or id, in other fields.
const DELETE_TOPICS_VERSION_MAX: i16 = 5;

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

impl Admin {
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
}
