//! DeleteTopics (20): by name, from version 6 on also by id.

use std::collections::{HashMap, HashSet};

use model::TopicId;
use wire::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};

use super::Call;
use super::audit::Change;
use crate::broker::access::right;
use crate::broker::{Refusal, TopicKey};
use crate::front::kafka::errors::{self, Misuse};

/// The first version whose clients know that a quota refuses.
const STRICT_SINCE: i16 = 5;

pub(super) async fn answer(request: DeleteTopicsRequest, call: Call) -> DeleteTopicsResponse {
    let (keys, mut refused) = match call.version >= 6 {
        true => sorted_out(request.topics, &call),
        false => {
            let unnamed = |name| DeleteTopicState {
                name: Some(name),
                ..DeleteTopicState::default()
            };
            sorted_out(
                request.topic_names.into_iter().map(unnamed).collect(),
                &call,
            )
        }
    };
    let found: Vec<Result<_, Refusal>> = keys
        .iter()
        .map(|key| {
            let topic = call.door.topic_by_key(key, right::Delete)?;
            call.mutate(u64::from(topic.partition_count()), STRICT_SINCE)?;
            Ok(topic)
        })
        .collect();
    let allowed = found.iter().flatten().cloned().collect();
    let mut deleted = call.broker().delete_topics(allowed).await.into_iter();
    let results: Vec<_> = found
        .into_iter()
        .map(|found| found.and_then(|_| deleted.next().expect("one result for each topic")))
        .collect();
    for topic in results.iter().flatten() {
        call.changed(&Change::TopicDeleted {
            topic: topic.name.as_str(),
        });
    }
    let answered = keys
        .into_iter()
        .zip(results)
        .map(|(key, result)| match result {
            Ok(topic) => DeletableTopicResult {
                name: Some(topic.name.as_str().to_owned()),
                topic_id: topic.id.as_uuid(),
                ..DeletableTopicResult::default()
            },
            Err(refusal) => {
                let described = call.door.topic_by_key_if_allowed(&key, right::Describe);
                let (name, topic_id) = match key {
                    TopicKey::Name(name) => (Some(name), uuid::Uuid::nil()),
                    TopicKey::Id(id) => (
                        described.map(|topic| topic.name.as_str().to_owned()),
                        id.as_uuid(),
                    ),
                };
                DeletableTopicResult {
                    name,
                    topic_id,
                    error_code: errors::code(&refusal),
                    error_message: Some(errors::text(&refusal)),
                }
            }
        });
    refused.extend(answered);
    DeleteTopicsResponse {
        responses: refused,
        ..DeleteTopicsResponse::default()
    }
}

/// What is to be deleted, and the answers to what cannot be meant. A topic that is named twice, be it once by name and
/// once by id, is answered once and stays, as in Kafka: who names it twice may have meant another.
fn sorted_out(
    topics: Vec<DeleteTopicState>,
    call: &Call,
) -> (Vec<TopicKey>, Vec<DeletableTopicResult>) {
    let mut keys = Vec::new();
    let mut refused = Vec::new();
    let misused =
        |name: Option<String>, topic_id: uuid::Uuid, misuse: &Misuse| DeletableTopicResult {
            name,
            topic_id,
            error_code: misuse.code(),
            error_message: Some(misuse.to_string()),
        };
    let mut times: HashMap<String, u32> = HashMap::new();
    for topic in topics {
        let id = TopicId::from_uuid(topic.topic_id);
        let key = match (topic.name, id.is_zero()) {
            (Some(name), true) => TopicKey::Name(name),
            (None, false) => TopicKey::Id(id),
            (Some(name), false) => {
                let misuse = Misuse::DeletedByNameAndId;
                refused.push(misused(Some(name), topic.topic_id, &misuse));
                continue;
            }
            (None, true) => {
                refused.push(misused(None, topic.topic_id, &Misuse::DeletedByNothing));
                continue;
            }
        };
        *times.entry(identity(&key, call)).or_default() += 1;
        keys.push(key);
    }
    let mut told = HashSet::new();
    keys.retain(|key| {
        let identity = identity(key, call);
        if times[&identity] == 1 {
            return true;
        }
        if told.insert(identity) {
            let (name, topic_id) = match key {
                TopicKey::Name(name) => (Some(name.clone()), uuid::Uuid::nil()),
                TopicKey::Id(id) => (None, id.as_uuid()),
            };
            refused.push(misused(name, topic_id, &Misuse::TopicNamedTwice));
        }
        false
    });
    (keys, refused)
}

/// The same text for all mentions of one topic.
fn identity(key: &TopicKey, call: &Call) -> String {
    // Whoever may not delete it is told so once, when it is to be deleted.
    let topic = call.door.topic_by_key_if_allowed(key, right::Delete);
    match (topic, key) {
        (Some(topic), _) => topic.name.as_str().to_owned(),
        (None, TopicKey::Name(name)) => name.clone(),
        (None, TopicKey::Id(id)) => id.as_uuid().to_string(),
    }
}
