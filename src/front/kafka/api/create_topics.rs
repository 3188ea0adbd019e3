//! CreateTopics (19): each topic for itself, answered when it is durable. A request for too many partitions is refused whole.

use std::collections::{HashMap, HashSet};

use wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest,
    CreateTopicsResponse,
};

use super::audit::{Change, some};
use super::{Call, config_resource};
use crate::broker::{Broker, Layout, NewTopic, REPLICATION_FACTOR, Refusal, Topic};
use crate::front::kafka::errors;

pub(super) async fn answer(request: CreateTopicsRequest, call: Call) -> CreateTopicsResponse {
    let counts = request.topics.iter().map(asked_count);
    if let Err(refusal) = call.broker.check_partitions_of_request(counts) {
        return refused_whole(request, &refusal);
    }
    let mut times: HashMap<String, u32> = HashMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.clone()).or_default() += 1;
    }
    let mut refused: Vec<(String, Refusal)> = Vec::new();
    let mut told = HashSet::new();
    let mut wanted = Vec::new();
    for topic in request.topics {
        if times[&topic.name] > 1 {
            // One answer for all its mentions, as Kafka gives it.
            if told.insert(topic.name.clone()) {
                refused.push((
                    topic.name,
                    Refusal::InvalidRequest("the topic is named twice".into()),
                ));
            }
            continue;
        }
        match planned(topic) {
            Ok(topic) => wanted.push(topic),
            Err((name, refusal)) => refused.push((name, refusal)),
        }
    }
    let names: Vec<String> = wanted.iter().map(|topic| topic.name.clone()).collect();
    let partitions: Vec<i32> = wanted
        .iter()
        .map(|topic| asked_partitions(topic, &call.broker))
        .collect();
    let results = call
        .broker
        .create_topics(wanted, request.validate_only)
        .await;
    let mut topics: Vec<CreatableTopicResult> = Vec::with_capacity(names.len());
    for ((name, partitions), result) in names.into_iter().zip(partitions).zip(results) {
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
                let mut created = created(&topic, partitions, &call.broker);
                // What was created is answered; its settings can be asked for again.
                let bytes = created.configs.iter().flatten().map(bytes_of).sum();
                if call.answer.hold(bytes).await.is_err() {
                    created.configs = None;
                }
                created
            }
            Err(refusal) => not_created(name, &refusal),
        });
    }
    topics.extend(
        refused
            .into_iter()
            .map(|(name, refusal)| not_created(name, &refusal)),
    );
    CreateTopicsResponse {
        topics,
        ..CreateTopicsResponse::default()
    }
}

/// The partitions that a topic asks for, None for the default: what its assignments say, or else its count.
fn asked_count(topic: &CreatableTopic) -> Option<i64> {
    match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) => None,
        (0, count) => Some(i64::from(count)),
        (assigned, _) => Some(i64::try_from(assigned).unwrap_or(i64::MAX)),
    }
}

/// The same refusal for every name.
fn refused_whole(request: CreateTopicsRequest, refusal: &Refusal) -> CreateTopicsResponse {
    let mut told = HashSet::new();
    let names = request.topics.into_iter().map(|topic| topic.name);
    CreateTopicsResponse {
        topics: names
            .filter(|name| told.insert(name.clone()))
            .map(|name| not_created(name, refusal))
            .collect(),
        ..CreateTopicsResponse::default()
    }
}

fn planned(topic: CreatableTopic) -> Result<NewTopic, (String, Refusal)> {
    let counted = |value: i32| (value != -1).then_some(value);
    let layout = if topic.assignments.is_empty() {
        let replicas = (topic.replication_factor != -1).then_some(topic.replication_factor);
        Layout::Counted {
            partitions: counted(topic.num_partitions),
            replicas,
        }
    } else {
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            let reason = "counts and assignments cannot both be given: set the counts to -1";
            return Err((topic.name, Refusal::InvalidRequest(reason.into())));
        }
        Layout::Assigned(
            topic
                .assignments
                .into_iter()
                .map(|one| (one.partition_index, one.broker_ids))
                .collect(),
        )
    };
    let settings = topic
        .configs
        .into_iter()
        .map(|config| (config.name, config.value))
        .collect();
    Ok(NewTopic {
        name: topic.name,
        layout,
        settings,
    })
}

fn asked_partitions(topic: &NewTopic, broker: &Broker) -> i32 {
    match &topic.layout {
        Layout::Counted { partitions, .. } => partitions.unwrap_or_else(|| {
            i32::try_from(broker.config().default_partitions).unwrap_or(i32::MAX)
        }),
        Layout::Assigned(assignments) => i32::try_from(assignments.len()).unwrap_or(i32::MAX),
    }
}

fn created(topic: &Topic, num_partitions: i32, broker: &Broker) -> CreatableTopicResult {
    let configs = broker
        .describe_topic_configs(topic)
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
        num_partitions,
        replication_factor: REPLICATION_FACTOR,
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

fn not_created(name: String, refusal: &Refusal) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: errors::code(refusal),
        error_message: Some(refusal.to_string()),
        num_partitions: -1,
        replication_factor: -1,
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    }
}
