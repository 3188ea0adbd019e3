//! CreateTopics (19): each topic for itself, answered when it is durable. A request for too many partitions is refused whole.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use model::PartitionId;
use wire::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfigs, CreatableTopicResult,
    CreateTopicsRequest, CreateTopicsResponse,
};

use super::audit::{Change, some};
use super::{Call, config_resource, node_ids};
use crate::broker::access::{Door, Granted, Resource, Right, right};
use crate::broker::{Assignment, Layout, NewTopic, REPLICATION_FACTOR, Refusal, Topic};
use crate::front::kafka::errors::{self, Failure, Misuse};

/// The first version whose clients know that a quota refuses.
const STRICT_SINCE: i16 = 6;

pub(super) async fn answer(request: CreateTopicsRequest, call: Call) -> CreateTopicsResponse {
    let counts = request.topics.iter().map(asked_count);
    if let Err(refusal) = call.broker().check_partitions_of_request(counts) {
        return refused_whole(request, &refusal.into());
    }
    let mut times: HashMap<String, u32> = HashMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.clone()).or_default() += 1;
    }
    let mut refused: Vec<(String, Failure)> = Vec::new();
    let mut told = HashSet::new();
    let mut wanted = Vec::new();
    for topic in request.topics {
        if times[&topic.name] > 1 {
            // One answer for all its mentions, as Kafka gives it.
            if told.insert(topic.name.clone()) {
                refused.push((topic.name, Misuse::TopicNamedTwice.into()));
            }
            continue;
        }
        match planned(topic, &call) {
            Ok(planned) => wanted.push(planned),
            Err((name, misuse)) => refused.push((name, misuse.into())),
        }
    }
    let allowed = wanted.iter().filter_map(|it| it.new.as_ref().ok().cloned());
    let results = call
        .broker()
        .create_topics(allowed.collect(), request.validate_only)
        .await;
    let mut results = results.into_iter();
    let mut topics: Vec<CreatableTopicResult> = Vec::with_capacity(wanted.len());
    for planned in wanted {
        let result = planned
            .new
            .and_then(|_| results.next().expect("one result for each new topic"));
        topics.push(match result {
            Ok(topic) => {
                if !request.validate_only {
                    let settings = topic.overrides.iter();
                    let settings = settings.map(|(key, value)| format!("{key}={value}"));
                    call.changed(&Change::TopicCreated {
                        topic: topic.name.as_str(),
                        partitions: topic.partition_count(),
                        settings: &some(settings),
                    });
                }
                let mut created = created(&topic, planned.partitions, &call.door);
                // What was created is answered; its settings can be asked for again.
                let bytes = created.configs.iter().flatten().map(bytes_of).sum();
                if call.answer.hold(bytes).await.is_err() {
                    created.configs = None;
                }
                created
            }
            Err(refusal) => not_created(planned.name, &refusal.into()),
        });
    }
    topics.extend(
        refused
            .into_iter()
            .map(|(name, failure)| not_created(name, &failure)),
    );
    CreateTopicsResponse {
        topics,
        ..CreateTopicsResponse::default()
    }
}

/// The partitions that a topic asks for, None for the default: what its assignments say, or else its count. What is no
/// count counts nothing, as in Kafka's `validateTotalNumberOfPartitions`.
fn asked_count(topic: &CreatableTopic) -> Option<u64> {
    match topic.assignments.len() {
        0 => counted(topic.num_partitions),
        assigned => Some(assigned as u64),
    }
}

/// A count, None for the default. What is no count is none at all, which is refused in its turn.
fn counted<T: TryFrom<i32> + Default>(count: impl Into<i32>) -> Option<T> {
    match count.into() {
        -1 => None,
        count => Some(T::try_from(count).unwrap_or_default()),
    }
}

/// The same refusal for every name.
fn refused_whole(request: CreateTopicsRequest, failure: &Failure) -> CreateTopicsResponse {
    let mut told = HashSet::new();
    let names = request.topics.into_iter().map(|topic| topic.name);
    CreateTopicsResponse {
        topics: names
            .filter(|name| told.insert(name.clone()))
            .map(|name| not_created(name, failure))
            .collect(),
        ..CreateTopicsResponse::default()
    }
}

/// A topic that is asked for.
struct Planned {
    name: String,
    partitions: u32,
    /// What the broker is to make of it, if its name is to be had.
    new: Result<NewTopic, Refusal>,
}

fn planned(topic: CreatableTopic, call: &Call) -> Result<Planned, (String, Misuse)> {
    let layout = if topic.assignments.is_empty() {
        Layout::Counted {
            partitions: counted(topic.num_partitions),
            replicas: counted(topic.replication_factor),
        }
    } else {
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            return Err((topic.name, Misuse::CountsAndAssignments));
        }
        let assignment = |one: &CreatableReplicaAssignment| Assignment {
            partition: PartitionId::from_wire(one.partition_index),
            replicas: node_ids(&one.broker_ids),
        };
        Layout::Assigned(topic.assignments.iter().map(assignment).collect())
    };
    let settings = topic
        .configs
        .into_iter()
        .map(|config| (config.name, config.value))
        .collect();
    let asked = layout.count().map(u32::try_from);
    let partitions = asked.map_or(call.broker().config().default_partitions, |count| {
        count.unwrap_or(u32::MAX)
    });
    let granted = call.door.new_topic(&topic.name);
    let charged = granted.and_then(|name| {
        call.mutate(u64::from(partitions), STRICT_SINCE)?;
        Ok(name)
    });
    let new = charged.map(|name| NewTopic {
        name,
        layout,
        settings,
    });
    Ok(Planned {
        name: topic.name,
        partitions,
        new,
    })
}

fn created(
    topic: &Granted<Arc<Topic>, right::Create>,
    partitions: u32,
    door: &Door,
) -> CreatableTopicResult {
    let name = topic.name.as_str();
    if !door.may(Resource::Topic(name), Right::DescribeConfigs) {
        // As Kafka answers who may create and not look.
        return CreatableTopicResult {
            name: name.to_owned(),
            topic_id: topic.id.as_uuid(),
            num_partitions: -1,
            replication_factor: -1,
            topic_config_error_code: errors::topic_denied(),
            configs: Some(Vec::new()),
            ..CreatableTopicResult::default()
        };
    }
    let configs = door
        .broker()
        .describe_new_topic(topic)
        .into_iter()
        .map(|entry| CreatableTopicConfigs {
            name: entry.name,
            value: Some(entry.value),
            read_only: entry.read_only,
            config_source: config_resource::source(entry.origin),
            is_sensitive: false,
        })
        .collect();
    CreatableTopicResult {
        name: topic.name.as_str().to_owned(),
        topic_id: topic.id.as_uuid(),
        num_partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
        replication_factor: i16::try_from(REPLICATION_FACTOR).unwrap_or(i16::MAX),
        error_message: None,
        configs: Some(configs),
        ..CreatableTopicResult::default()
    }
}

/// What a setting takes, in the answer and before it.
fn bytes_of(config: &CreatableTopicConfigs) -> usize {
    let value = config.value.as_ref().map_or(0, String::len);
    128 + 2 * (config.name.len() + value)
}

fn not_created(name: String, failure: &Failure) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: failure.code(),
        error_message: Some(failure.to_string()),
        num_partitions: -1,
        replication_factor: -1,
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    }
}
