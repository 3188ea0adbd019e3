//! Version 3: topics with their partitions and settings, and creating and deleting them.
//!
//! Callers: `proxy::routes`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use model::{PartitionId, TopicName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::second::{held, node_of};
use super::third::{Places, in_cluster, list_schema, resource_schema, third};
use crate::broker::access::{Door, ResourceKind, Right, right};
use crate::broker::{Entry, Layout, NewTopic, Origin, REPLICATION_FACTOR, Resource, Topic};
use crate::front::http::api::topics::{create_one, created_count, delete_one, log_created};
use crate::front::http::errors::{self, Failure};
use crate::front::http::request::{At, body_of};
use crate::front::http::routes::{Operation, Routes};
use crate::front::http::schema::{boolean, integer, list, object, text};
use crate::front::http::state::Front;

const TOPICS: &str = "/v3/clusters/{cluster}/topics";
const TOPIC: &str = "/v3/clusters/{cluster}/topics/{topic}";
const PARTITIONS: &str = "/v3/clusters/{cluster}/topics/{topic}/partitions";
const PARTITION: &str = "/v3/clusters/{cluster}/topics/{topic}/partitions/{partition}";
const CONFIGS: &str = "/v3/clusters/{cluster}/topics/{topic}/configs";
const CONFIG: &str = "/v3/clusters/{cluster}/topics/{topic}/configs/{name}";

pub(super) fn routes() -> Routes {
    let of = |id, summary, right| in_cluster(third(id, summary)).needs(ResourceKind::Topic, right);
    let on_topic = |about: Operation| {
        about
            .path("topic", text().example("readings"), "the topic's name")
            .refuses(404, "40403")
    };
    let config = object([("name", text())]).optional([("value", text().or_null())]);
    let new = object([("topic_name", text().example("readings"))]).optional([
        ("partitions_count", integer().or_null()),
        ("replication_factor", integer().or_null()),
        ("configs", list(config)),
        ("validate_only", boolean()),
    ]);
    Routes::new()
        .get(
            TOPICS,
            topics,
            of("proxyClusterTopics", "Topics, version 3", Right::Describe).answers_json(
                200,
                "all of them",
                list_schema(),
            ),
        )
        .post(
            TOPICS,
            create,
            of(
                "proxyCreateTopic",
                "Creates a topic, version 3",
                Right::Create,
            )
            .takes_json("what is to be created", new)
            .answers_json(201, "the topic", resource_schema())
            .answers_json(200, "what would have been created", resource_schema())
            .refuses(400, "40002")
            .refuses(409, "40002")
            .refuses(429, "429")
            .refuses(507, "50002"),
        )
        .get(
            TOPIC,
            topic,
            on_topic(of(
                "proxyClusterTopic",
                "A topic, version 3",
                Right::Describe,
            ))
            .answers_json(200, "the topic", resource_schema()),
        )
        .delete(
            TOPIC,
            delete,
            on_topic(of(
                "proxyDeleteTopic",
                "Deletes a topic, version 3",
                Right::Delete,
            ))
            .answers(204, "it is gone", Vec::new())
            .refuses(409, "409: held"),
        )
        .get(
            PARTITIONS,
            partitions,
            on_topic(of(
                "proxyClusterPartitions",
                "Its partitions, version 3",
                Right::Describe,
            ))
            .answers_json(200, "all of them", list_schema()),
        )
        .get(
            PARTITION,
            one_partition,
            on_topic(of(
                "proxyClusterPartition",
                "One of them, version 3",
                Right::Describe,
            ))
            .path("partition", integer(), "its number")
            .answers_json(200, "the partition", resource_schema()),
        )
        .get(
            CONFIGS,
            configs,
            on_topic(of(
                "proxyTopicConfigs",
                "Its settings, version 3",
                Right::DescribeConfigs,
            ))
            .answers_json(200, "all of them", list_schema()),
        )
        .get(
            CONFIG,
            one_config,
            on_topic(of(
                "proxyTopicConfig",
                "One of those, version 3",
                Right::DescribeConfigs,
            ))
            .path("name", text().example("retention.ms"), "the setting's name")
            .answers_json(200, "the setting", resource_schema()),
        )
}

fn of_topic(places: &Places, topic: &Topic, partitions: u32) -> Value {
    let name = topic.name.as_str();
    let path = format!("/topics/{name}");
    json!({
        "kind": "KafkaTopic", "metadata": places.metadata(&path, &format!("/topic={name}")), "cluster_id": places.cluster_id,
        "topic_name": name, "is_internal": TopicName::is_internal(name), "replication_factor": REPLICATION_FACTOR,
        "partitions_count": partitions, "partitions": places.related(&format!("{path}/partitions")),
        "configs": places.related(&format!("{path}/configs")),
        "partition_reassignments": places.related(&format!("{path}/partitions/-/reassignment")),
    })
}

fn of_partition(places: &Places, topic: &str, partition: PartitionId, node: i32) -> Value {
    let path = format!("/topics/{topic}/partitions/{partition}");
    let name = format!("/topic={topic}/partition={partition}");
    json!({
        "kind": "KafkaPartition", "metadata": places.metadata(&path, &name), "cluster_id": places.cluster_id,
        "topic_name": topic, "partition_id": partition.get(), "leader": places.related(&format!("{path}/replicas/{node}")),
        "replicas": places.related(&format!("{path}/replicas")), "reassignment": places.related(&format!("{path}/reassignment")),
    })
}

/// Places that values come from, as Kafka names them.
fn source(origin: Origin) -> &'static str {
    match origin {
        Origin::Topic => "DYNAMIC_TOPIC_CONFIG",
        Origin::Broker => "DYNAMIC_BROKER_CONFIG",
        Origin::Cluster => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        Origin::Static => "STATIC_BROKER_CONFIG",
        Origin::Default => "DEFAULT_CONFIG",
        Origin::Logger => "DYNAMIC_BROKER_LOGGER_CONFIG",
        Origin::Group => "GROUP_CONFIG",
    }
}

fn of_config(places: &Places, topic: &str, entry: &Entry) -> Value {
    let name = &entry.name;
    let path = format!("/topics/{topic}/configs/{name}");
    let synonyms: Vec<Value> = entry
        .synonyms
        .iter()
        .map(|one| {
            json!({
                "name": one.name, "value": one.value, "source": source(one.origin),
            })
        })
        .collect();
    json!({
        "kind": "KafkaTopicConfig", "metadata": places.metadata(&path, &format!("/topic={topic}/config={name}")),
        "cluster_id": places.cluster_id, "topic_name": topic, "name": name, "value": entry.value,
        "is_read_only": entry.read_only, "is_sensitive": false, "source": source(entry.origin), "synonyms": synonyms,
        "is_default": entry.origin != Origin::Topic,
    })
}

async fn topics(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At(id): At<String>,
) -> Result<Json<Value>, Failure> {
    let places = Places::of(&front, &headers, &id)?;
    let mut topics = door.topics(right::Describe);
    topics.sort_by(|one, other| one.name.cmp(&other.name));
    let data = topics
        .iter()
        .map(|topic| of_topic(&places, topic, topic.partition_count()));
    Ok(Json(places.list(
        "KafkaTopicList",
        "/topics",
        data.collect(),
    )))
}

#[derive(Deserialize)]
struct Config {
    name: String,
    value: Option<String>,
}

#[derive(Deserialize)]
struct NewBody {
    topic_name: String,
    partitions_count: Option<u32>,
    replication_factor: Option<u16>,
    #[serde(default)]
    configs: Vec<Config>,
    #[serde(default)]
    validate_only: bool,
}

async fn create(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At(id): At<String>,
    body: Body,
) -> Result<Response, Failure> {
    let body: NewBody = body_of(&headers, body).await?;
    let places = Places::of(&front, &headers, &id)?;
    let new = NewTopic {
        name: door.new_topic(&body.topic_name)?,
        layout: Layout::Counted {
            partitions: body.partitions_count,
            replicas: body.replication_factor,
        },
        settings: body
            .configs
            .into_iter()
            .map(|one| (one.name, one.value))
            .collect(),
    };
    let topic = create_one(&door, new, body.validate_only).await?;
    let count = created_count(&topic, body.partitions_count, door.broker());
    let answer = Json(of_topic(&places, &topic, count)).into_response();
    if body.validate_only {
        return Ok(answer);
    }
    log_created(&door, &topic);
    Ok(errors::created(answer))
}

async fn topic(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At((id, name)): At<(String, String)>,
) -> Result<Json<Value>, Failure> {
    let places = Places::of(&front, &headers, &id)?;
    let topic = door.topic(&name, right::Describe)?;
    Ok(Json(of_topic(&places, &topic, topic.partition_count())))
}

async fn delete(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At((id, name)): At<(String, String)>,
) -> Result<Response, Failure> {
    Places::of(&front, &headers, &id)?;
    let topic = door.topic(&name, right::Delete)?;
    delete_one(&door, topic).await?;
    Ok(errors::no_content())
}

async fn partitions(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At((id, name)): At<(String, String)>,
) -> Result<Json<Value>, Failure> {
    let places = Places::of(&front, &headers, &id)?;
    let topic = door.topic(&name, right::Describe)?;
    let node = node_of(&front);
    let data = topic
        .partitions()
        .map(|one| of_partition(&places, &name, one, node));
    let path = format!("/topics/{name}/partitions");
    Ok(Json(places.list(
        "KafkaPartitionList",
        &path,
        data.collect(),
    )))
}

async fn one_partition(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At((id, name, number)): At<(String, String, u32)>,
) -> Result<Json<Value>, Failure> {
    let places = Places::of(&front, &headers, &id)?;
    let topic = door.topic(&name, right::Describe)?;
    let partition = held(&topic, number)?;
    Ok(Json(of_partition(
        &places,
        &name,
        partition,
        node_of(&front),
    )))
}

async fn configs(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At((id, name)): At<(String, String)>,
) -> Result<Json<Value>, Failure> {
    let places = Places::of(&front, &headers, &id)?;
    let topic = Resource::Topic(door.topic(&name, right::DescribeConfigs)?);
    let entries = door.broker().describe_configs(&topic, None);
    let data = entries.iter().map(|entry| of_config(&places, &name, entry));
    let path = format!("/topics/{name}/configs");
    Ok(Json(places.list(
        "KafkaTopicConfigList",
        &path,
        data.collect(),
    )))
}

async fn one_config(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At((id, name, setting)): At<(String, String, String)>,
) -> Result<Json<Value>, Failure> {
    let places = Places::of(&front, &headers, &id)?;
    let topic = Resource::Topic(door.topic(&name, right::DescribeConfigs)?);
    let entries = door
        .broker()
        .describe_configs(&topic, Some(std::slice::from_ref(&setting)));
    match entries.first() {
        Some(entry) => Ok(Json(of_config(&places, &name, entry))),
        None => Err(Failure::UnknownSetting(setting)),
    }
}
