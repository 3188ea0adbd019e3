//! CreatePartitions (37): grows topics. Every topic that was asked for is in the answer. A request for too many new
//! partitions is refused whole.

use std::collections::{HashMap, HashSet};

use wire::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopicResult,
};

use super::Call;
use super::audit::Change;
use crate::broker::Refusal;
use crate::front::kafka::errors;

pub(super) async fn answer(
    request: CreatePartitionsRequest,
    call: Call,
) -> CreatePartitionsResponse {
    let mut times: HashMap<String, u32> = HashMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.clone()).or_default() += 1;
    }
    let added = request.topics.iter().map(|topic| {
        let found = call.broker.topic(&topic.name);
        let before = found.map_or(0, |found| found.partition_count());
        Some(i64::from(topic.count) - i64::from(before))
    });
    let whole = call.broker.check_partitions_of_request(added);
    let mut told = HashSet::new();
    let mut results: Vec<CreatePartitionsTopicResult> = Vec::new();
    for topic in request.topics {
        if !told.insert(topic.name.clone()) {
            continue;
        }
        let result = if let Err(refusal) = &whole {
            Err(refusal.clone())
        } else if times[&topic.name] > 1 {
            Err(Refusal::InvalidRequest("the topic is named twice".into()))
        } else {
            let assignments = topic.assignments.map(|assignments| {
                assignments
                    .into_iter()
                    .map(|assignment| assignment.broker_ids)
                    .collect()
            });
            call.broker
                .grow_topic(&topic.name, topic.count, assignments, request.validate_only)
                .await
        };
        if let Ok(grown) = &result
            && !request.validate_only
        {
            call.changed(&Change::TopicGrown {
                topic: grown.name.as_str(),
                partitions: grown.partition_count(),
            });
        }
        let refusal = result.err();
        results.push(CreatePartitionsTopicResult {
            name: topic.name,
            error_code: refusal.as_ref().map_or(errors::NONE, errors::code),
            error_message: refusal.map(|refusal| refusal.to_string()),
        });
    }
    CreatePartitionsResponse {
        results,
        ..CreatePartitionsResponse::default()
    }
}
