//! CreatePartitions (37): grows topics. Every topic that was asked for is in the answer. A request for too many new
//! partitions is refused whole.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use wire::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    CreatePartitionsTopicResult,
};

use super::audit::Change;
use super::{Call, node_ids};
use crate::broker::Topic;
use crate::broker::access::right;
use crate::front::kafka::errors::{self, Failure, Misuse};

/// The first version whose clients know that a quota refuses.
const STRICT_SINCE: i16 = 3;

pub(super) async fn answer(
    request: CreatePartitionsRequest,
    call: Call,
) -> CreatePartitionsResponse {
    let mut times: HashMap<String, u32> = HashMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.clone()).or_default() += 1;
    }
    let added = request.topics.iter().map(|topic| {
        let found = call.door.topic(&topic.name, right::Alter);
        let before = found.map_or(0, |found| found.partition_count());
        let added = i64::from(topic.count) - i64::from(before);
        // What is no count counts nothing, as in Kafka's `validateTotalNumberOfPartitions`.
        Some(u64::try_from(added).unwrap_or(0))
    });
    let whole = call.broker().check_partitions_of_request(added);
    let mut told = HashSet::new();
    let mut results: Vec<CreatePartitionsTopicResult> = Vec::new();
    for topic in request.topics {
        if !told.insert(topic.name.clone()) {
            continue;
        }
        let result = if let Err(refusal) = &whole {
            Err(refusal.clone().into())
        } else if times[&topic.name] > 1 {
            Err(Misuse::TopicNamedTwice.into())
        } else {
            grow(&topic, request.validate_only, &call).await
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

async fn grow(
    wanted: &CreatePartitionsTopic,
    validate_only: bool,
    call: &Call,
) -> Result<Arc<Topic>, Failure> {
    let topic = call.door.topic(&wanted.name, right::Alter)?;
    let assignments = wanted.assignments.as_ref().map(|assignments| {
        let replicas = assignments.iter().map(|one| node_ids(&one.broker_ids));
        replicas.collect()
    });
    let count = u32::try_from(wanted.count).unwrap_or(0);
    let added = count.saturating_sub(topic.partition_count());
    call.mutate(u64::from(added), STRICT_SINCE)?;
    let grown = call
        .broker()
        .grow_topic(&topic, count, assignments, validate_only);
    Ok(grown.await?)
}
