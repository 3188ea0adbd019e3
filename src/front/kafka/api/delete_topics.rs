//! DeleteTopics (20): by name, from version 6 on also by id.

use model::TopicId;
use wire::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse,
};

use super::Call;
use crate::broker::TopicKey;
use crate::front::kafka::errors;

pub(super) async fn answer(request: DeleteTopicsRequest, call: Call) -> DeleteTopicsResponse {
    let keys: Vec<TopicKey> = if call.version >= 6 {
        let key = |topic: wire::messages::delete_topics::DeleteTopicState| match topic.name {
            Some(name) => TopicKey::Name(name),
            None => TopicKey::Id(TopicId::from_uuid(topic.topic_id)),
        };
        request.topics.into_iter().map(key).collect()
    } else {
        request
            .topic_names
            .into_iter()
            .map(TopicKey::Name)
            .collect()
    };
    let results = call.broker.delete_topics(keys.clone()).await;
    let responses = keys
        .into_iter()
        .zip(results)
        .map(|(key, result)| match result {
            Ok(topic) => DeletableTopicResult {
                name: Some(topic.name.as_str().to_owned()),
                topic_id: topic.id.as_uuid(),
                ..DeletableTopicResult::default()
            },
            Err(refusal) => {
                let (name, topic_id) = match key {
                    TopicKey::Name(name) => (Some(name), uuid::Uuid::nil()),
                    TopicKey::Id(id) => (None, id.as_uuid()),
                };
                DeletableTopicResult {
                    name,
                    topic_id,
                    error_code: errors::code(&refusal),
                    error_message: Some(refusal.to_string()),
                }
            }
        })
        .collect();
    DeleteTopicsResponse {
        responses,
        ..DeleteTopicsResponse::default()
    }
}
