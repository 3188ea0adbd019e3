//! CreateTopics (19): each topic for itself, answered when it is durable.

use std::collections::HashMap;

use wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest,
    CreateTopicsResponse,
};

use super::{Call, config_resource};
use crate::broker::{Broker, Layout, NewTopic, REPLICATION_FACTOR, Refusal, Topic};
use crate::front::kafka::errors;

pub(super) async fn answer(request: CreateTopicsRequest, call: Call) -> CreateTopicsResponse {
    let mut times: HashMap<String, u32> = HashMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.clone()).or_default() += 1;
    }
    let mut refused: Vec<(String, Refusal)> = Vec::new();
    let mut wanted = Vec::new();
    for topic in request.topics {
        if times[&topic.name] > 1 {
            // One answer for all its mentions, as Kafka gives it.
            if !refused.iter().any(|(name, _)| *name == topic.name) {
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
    let mut topics: Vec<CreatableTopicResult> = names
        .into_iter()
        .zip(partitions)
        .zip(results)
        .map(|((name, partitions), result)| match result {
            Ok(topic) => created(&topic, partitions, &call.broker),
            Err(refusal) => not_created(name, &refusal),
        })
        .collect();
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
