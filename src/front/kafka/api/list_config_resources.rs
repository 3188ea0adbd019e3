//! ListConfigResources (74): what has settings here, which is the topics and this broker. In version 0 it asks for the
//! metrics that clients shall send, and there are none.

use wire::messages::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};

use super::Call;
use super::config_resource::{BROKER, TOPIC};
use crate::front::kafka::errors::{self, Misuse};

/// Kafka's types of resources: topics, brokers, brokers' loggers, metrics of clients, groups.
const TYPES: [i8; 5] = [TOPIC, BROKER, 8, 16, 32];

pub(super) async fn answer(
    request: ListConfigResourcesRequest,
    call: Call,
) -> ListConfigResourcesResponse {
    if call.version == 0 {
        return ListConfigResourcesResponse::default();
    }
    let asked = match request.resource_types.as_slice() {
        [] => &TYPES,
        asked => asked,
    };
    if asked.iter().any(|kind| !TYPES.contains(kind)) {
        return ListConfigResourcesResponse {
            error_code: errors::misuse(Misuse::UnsupportedVersion),
            ..ListConfigResourcesResponse::default()
        };
    }
    let mut config_resources = Vec::new();
    if asked.contains(&TOPIC) {
        let topics = call.broker.topics();
        config_resources.extend(topics.iter().map(|topic| ConfigResource {
            resource_name: topic.name.as_str().to_owned(),
            resource_type: TOPIC,
        }));
    }
    if asked.contains(&BROKER) {
        config_resources.push(ConfigResource {
            resource_name: call.broker.config().node_id.to_string(),
            resource_type: BROKER,
        });
    }
    ListConfigResourcesResponse {
        config_resources,
        ..ListConfigResourcesResponse::default()
    }
}
