//! Version 2: metadata of topics, partitions and brokers, and what the other files need of them.
//!
//! Callers: `proxy::routes`, `records`, `third`, `third_topics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::broker::access::{Door, Granted, ResourceKind, Right, right};
use crate::broker::{PartitionShape, Resource, Topic};
use crate::front::http::errors::Failure;
use crate::front::http::request::At;
use crate::front::http::routes::{Operation, Routes};
use crate::front::http::schema::{Schema, integer, integer_from, list, map, object, text};
use crate::front::http::state::Front;
use model::PartitionId;

/// What version 2 answers.
const SECOND: &str = "application/vnd.kafka.v2+json";

/// An answer of version 2, in either of its types.
fn answers_second(about: Operation, what: &'static str, schema: Schema) -> Operation {
    let types = vec![(SECOND, schema.clone()), ("application/json", schema)];
    about.told_as_proxy().answers(200, what, types)
}

pub(super) fn routes() -> Routes {
    let of = |id, summary| {
        Operation::new(id, "rest proxy", summary).needs(ResourceKind::Topic, Right::Describe)
    };
    let on_topic = |about: Operation| {
        about
            .path("topic", text().example("readings"), "the topic's name")
            .refuses(404, "40401")
    };
    let on_partition = |about: Operation| {
        on_topic(about)
            .path("partition", integer_from(0), "its number")
            .refuses(404, "40402")
    };
    let replica = object([("broker", integer())]);
    let partition = || {
        object([
            ("partition", integer_from(0)),
            ("leader", integer()),
            ("replicas", list(replica.clone())),
        ])
    };
    let topic = object([
        ("name", text()),
        ("configs", map(text())),
        ("partitions", list(partition())),
    ]);
    let offsets = object([
        ("beginning_offset", integer_from(0)),
        ("end_offset", integer_from(0)),
    ]);
    Routes::new()
        .get(
            "/topics",
            topics,
            answers_second(
                of("proxyTopics", "Names of topics, version 2"),
                "names",
                list(text()),
            ),
        )
        .get(
            "/topics/{topic}",
            topic_metadata,
            answers_second(
                on_topic(of("proxyTopic", "A topic, version 2")),
                "the topic",
                topic,
            )
            .needs(ResourceKind::Topic, Right::DescribeConfigs),
        )
        .get(
            "/topics/{topic}/partitions",
            partitions,
            answers_second(
                on_topic(of("proxyPartitions", "Its partitions, version 2")),
                "all of them",
                list(partition()),
            ),
        )
        .get(
            "/topics/{topic}/partitions/{partition}",
            one_partition,
            answers_second(
                on_partition(of("proxyPartition", "One of them, version 2")),
                "the partition",
                partition(),
            ),
        )
        .get(
            "/topics/{topic}/partitions/{partition}/offsets",
            offsets_of,
            answers_second(
                on_partition(of(
                    "proxyOffsets",
                    "From where to where it reaches, version 2",
                )),
                "its offsets",
                offsets,
            ),
        )
        .get(
            "/brokers",
            brokers,
            answers_second(
                Operation::new(
                    "proxyBrokers",
                    "rest proxy",
                    "Numbers of brokers, version 2",
                )
                .needs(ResourceKind::Cluster, Right::Describe),
                "numbers",
                object([("brokers", list(integer()))]),
            ),
        )
}

/// An answer of version 2, in the type that the request accepts.
fn second(headers: &HeaderMap, value: &Value) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    let is_plain = accept
        .is_some_and(|accept| accept.contains("application/json") && !accept.contains("vnd.kafka"));
    let content_type = if is_plain { "application/json" } else { SECOND };
    ([(header::CONTENT_TYPE, content_type)], value.to_string()).into_response()
}

/// A partition that a path names.
pub(super) fn held(topic: &Topic, number: u32) -> Result<PartitionId, Failure> {
    let partition = PartitionId::new(number);
    match topic.has(partition) {
        true => Ok(partition),
        false => Err(Failure::UnknownPartition { partition }),
    }
}

/// A partition as it is now.
pub(super) fn shape_of(
    front: &Front,
    topic: &Granted<Arc<Topic>, right::Describe>,
    number: u32,
) -> Result<PartitionShape, Failure> {
    let partition = held(topic, number)?;
    Ok(front.broker.partition_shape(topic, partition)?)
}

fn of_partition(partition: PartitionId, node: i32) -> Value {
    json!({
        "partition": partition.get(), "leader": node,
        "replicas": [{ "broker": node, "leader": true, "in_sync": true }],
    })
}

pub(super) fn node_of(front: &Front) -> i32 {
    front.broker.config().node_id
}

async fn topics(door: Door, headers: HeaderMap) -> Response {
    let topics = door.topics(right::Describe);
    let mut names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    names.sort_unstable();
    second(&headers, &json!(names))
}

async fn topic_metadata(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At(name): At<String>,
) -> Result<Response, Failure> {
    let topic = door.topic(&name, right::Describe)?;
    let settings = Resource::Topic(door.topic(&name, right::DescribeConfigs)?);
    let entries = door.broker().describe_configs(&settings, None).into_iter();
    let configs: Map<_, _> = entries
        .map(|entry| (entry.name, entry.value.into()))
        .collect();
    let node = node_of(&front);
    let partitions: Vec<Value> = topic
        .partitions()
        .map(|one| of_partition(one, node))
        .collect();
    Ok(second(
        &headers,
        &json!({ "name": name, "configs": configs, "partitions": partitions }),
    ))
}

async fn partitions(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At(name): At<String>,
) -> Result<Response, Failure> {
    let topic = door.topic(&name, right::Describe)?;
    let node = node_of(&front);
    let partitions: Vec<Value> = topic
        .partitions()
        .map(|one| of_partition(one, node))
        .collect();
    Ok(second(&headers, &partitions.into()))
}

async fn one_partition(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At((name, number)): At<(String, u32)>,
) -> Result<Response, Failure> {
    let topic = door.topic(&name, right::Describe)?;
    let partition = held(&topic, number)?;
    Ok(second(&headers, &of_partition(partition, node_of(&front))))
}

async fn offsets_of(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At((name, number)): At<(String, u32)>,
) -> Result<Response, Failure> {
    let topic = door.topic(&name, right::Describe)?;
    let bounds = shape_of(&front, &topic, number)?.bounds;
    let value =
        json!({ "beginning_offset": bounds.start.get(), "end_offset": bounds.durable_end.get() });
    Ok(second(&headers, &value))
}

async fn brokers(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    door.cluster(right::Describe)?;
    Ok(second(&headers, &json!({ "brokers": [node_of(&front)] })))
}
