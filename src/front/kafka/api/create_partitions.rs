//! CreatePartitions (37): grows topics. Every topic that was asked for is in the answer. A request for too many new
//! partitions is refused whole.

use std::collections::{HashMap, HashSet};

use wire::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopicResult,
};

use super::audit::Change;
use super::{Call, node_ids};
use crate::front::kafka::errors::{self, Failure, Misuse};

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
        let added = i64::from(topic.count) - i64::from(before);
        // What is no count counts nothing, as in Kafka's `validateTotalNumberOfPartitions`.
        Some(u64::try_from(added).unwrap_or(0))
    });
    let whole = call.broker.check_partitions_of_request(added);
    let mut told = HashSet::new();
    let mut results: Vec<CreatePartitionsTopicResult> = Vec::new();
    for topic in request.topics {
        if !told.insert(topic.name.clone()) {
            continue;
        }
        let result: Result<_, Failure> = if let Err(refusal) = &whole {
            Err(refusal.clone().into())
        } else if times[&topic.name] > 1 {
            Err(Misuse::TopicNamedTwice.into())
        } else {
            let assignments = topic.assignments.map(|assignments| {
                assignments
                    .iter()
                    .map(|assignment| node_ids(&assignment.broker_ids))
                    .collect()
            });
            let count = u32::try_from(topic.count).unwrap_or(0);
            let grown =
                call.broker
                    .grow_topic(&topic.name, count, assignments, request.validate_only);
            grown.await.map_err(Failure::from)
        };
        if let Ok(grown) = &result
            && !request.validate_only
        {
            call.changed(&Change::TopicGrown {
                topic: grown.name.as_str(),
                partitions: grown.partition_count(),
            });
        }
        let failure = result.err();
        results.push(CreatePartitionsTopicResult {
            name: topic.name,
            error_code: failure.as_ref().map_or(errors::NONE, Failure::code),
            error_message: failure.map(|failure| failure.to_string()),
        });
    }
    CreatePartitionsResponse {
        results,
        ..CreatePartitionsResponse::default()
    }
}
