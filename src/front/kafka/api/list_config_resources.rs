//! ListConfigResources (74): what has settings here, which is the topics, this broker and its log. In version 0 it asks for the
//! metrics that clients shall send, and there are none.

use std::sync::Arc;

use wire::messages::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};

use super::Call;
use super::config_resource::{BROKER, BROKER_LOGGER, GROUP, TOPIC};
use crate::broker::Topic;
use crate::broker::access::right;
use crate::front::kafka::errors::{self, Misuse};

/// Kafka's number for metrics of clients as resources.
const CLIENT_METRICS: i8 = 16;
/// Kafka's types of resources.
const TYPES: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

pub(super) async fn answer(
    request: ListConfigResourcesRequest,
    call: Call,
) -> ListConfigResourcesResponse {
    if call.version == 0 {
        return ListConfigResourcesResponse::default();
    }
    let cluster = match call.door.cluster(right::DescribeConfigs) {
        Ok(cluster) => cluster,
        Err(refusal) => {
            return ListConfigResourcesResponse {
                error_code: errors::code(&refusal),
                ..ListConfigResourcesResponse::default()
            };
        }
    };
    let asked = match request.resource_types.as_slice() {
        [] => &TYPES,
        asked => asked,
    };
    if asked.iter().any(|kind| !TYPES.contains(kind)) {
        return ListConfigResourcesResponse {
            error_code: Misuse::UnknownResourceType.code(),
            ..ListConfigResourcesResponse::default()
        };
    }
    let mut config_resources = Vec::new();
    if asked.contains(&TOPIC) {
        let topics = call.door.topics_of(&cluster);
        let bytes = |topic: &Arc<Topic>| 64 + 2 * topic.name.as_str().len();
        if let Err(misuse) = call.answer.hold(topics.iter().map(bytes).sum()).await {
            return ListConfigResourcesResponse {
                error_code: misuse.code(),
                ..ListConfigResourcesResponse::default()
            };
        }
        config_resources.extend(topics.iter().map(|topic| ConfigResource {
            resource_name: topic.name.as_str().to_owned(),
            resource_type: TOPIC,
        }));
    }
    for resource_type in [BROKER_LOGGER, BROKER] {
        if asked.contains(&resource_type) {
            config_resources.push(ConfigResource {
                resource_name: call.broker().config().node_id.to_string(),
                resource_type,
            });
        }
    }
    ListConfigResourcesResponse {
        config_resources,
        ..ListConfigResourcesResponse::default()
    }
}
