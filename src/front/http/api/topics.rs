//! Topics: list, create, describe, add partitions, delete.
//!
//! Callers: `api::routes`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use model::TopicName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::listing::Listing;
use super::named::{partition_number, partitions_of, topic_name};
use super::settings::{setting_schema, settings_of};
use crate::broker::access::{Door, Granted, ResourceKind, Right, right};
use crate::broker::quotas::Mutation;
use crate::broker::{Broker, Layout, NewTopic, PartitionShape, Refusal, Resource, Topic};
use crate::front::audit::{self, Change, some};
use crate::front::http::errors::{self, Failure};
use crate::front::http::request::{At, body_of, parsed};
use crate::front::http::routes::{Operation, Routes};
use crate::front::http::schema::{
    Schema, boolean, integer_from, integer_in, list, map, object, text,
};

/// All topics.
pub(super) const TOPICS: &str = "/api/v1/topics";
/// One of them.
const TOPIC: &str = "/api/v1/topics/{topic}";
/// Its partitions.
const PARTITIONS: &str = "/api/v1/topics/{topic}/partitions";
/// One of those.
const PARTITION: &str = "/api/v1/topics/{topic}/partitions/{partition}";

pub(super) fn routes() -> Routes {
    let of = |id, summary| Operation::new(id, "topics", summary);
    let on_topic = |about: Operation| {
        about
            .path("topic", topic_name(), "the topic's name")
            .refuses(404, "unknown_topic")
    };
    let head = object([
        ("name", text()),
        ("id", text()),
        ("internal", boolean()),
        ("partitions", integer_from(1)),
        ("bytes", integer_from(0)),
        ("settings", map(text())),
    ]);
    let page = object([("topics", list(head)), ("next_after", text().or_null())]);
    let new = object([("name", topic_name())])
        .optional([
            ("partitions", integer_in(1..=10_000).or_null()),
            ("settings", map(text())),
            ("dry_run", boolean()),
        ])
        .closed();
    let deleted = object([
        ("topic", text()),
        ("id", text()),
        ("dry_run", boolean()),
        ("partitions", integer_from(1)),
        ("offsets", integer_from(0)),
        ("bytes", integer_from(0)),
    ]);
    let grown = object([
        ("topic", text()),
        ("before", integer_from(1)),
        ("after", integer_from(1)),
        ("dry_run", boolean()),
    ]);
    let more = object([("count", integer_in(1..=1_000_000))])
        .optional([("dry_run", boolean())])
        .closed();
    Routes::new()
        .get(
            TOPICS,
            list_topics,
            Listing::describe(of("listTopics", "Topics by name"))
                .needs(ResourceKind::Topic, Right::Describe)
                .answers_json(200, "a page of them", page),
        )
        .post(
            TOPICS,
            create,
            of("createTopic", "Creates a topic")
                .needs(ResourceKind::Topic, Right::Create)
                .takes_json("what is to be created", new)
                .answers_json(201, "the topic; its place is in Location", created_schema())
                .answers_json(200, "what a dry run would have created", created_schema())
                .refuses(
                    400,
                    "invalid_body, invalid_topic_name, invalid_layout, invalid_setting",
                )
                .refuses(403, "internal_topic")
                .refuses(409, "name_taken")
                .refuses(429, "limit_reached")
                .refuses(507, "disk_full"),
        )
        .get(
            TOPIC,
            describe,
            on_topic(of(
                "describeTopic",
                "A topic, its partitions and its settings",
            ))
            .needs(ResourceKind::Topic, Right::Describe)
            .needs(ResourceKind::Topic, Right::DescribeConfigs)
            .answers_json(200, "the topic", topic_schema()),
        )
        .delete(
            TOPIC,
            delete,
            on_topic(of("deleteTopic", "Deletes a topic with all that is in it"))
                .needs(ResourceKind::Topic, Right::Delete)
                .needs(ResourceKind::Topic, Right::Describe)
                .query(
                    "dry_run",
                    boolean(),
                    "tell what would go, and change nothing",
                )
                .answers_json(200, "what went", deleted)
                .refuses(409, "held"),
        )
        .get(
            PARTITIONS,
            list_partitions,
            on_topic(of("listPartitions", "A topic's partitions"))
                .needs(ResourceKind::Topic, Right::Describe)
                .answers_json(
                    200,
                    "all of them",
                    object([("topic", text()), ("partitions", list(partition_schema()))]),
                ),
        )
        .post(
            PARTITIONS,
            grow,
            on_topic(of("addPartitions", "Adds partitions to a topic"))
                .needs(ResourceKind::Topic, Right::Alter)
                .takes_json("how many there are to be in all", more)
                .answers_json(200, "how many there are", grown)
                .refuses(400, "invalid_body, invalid_layout")
                .refuses(429, "limit_reached")
                .refuses(507, "disk_full"),
        )
        .get(
            PARTITION,
            describe_partition,
            on_topic(of("describePartition", "One partition"))
                .path("partition", partition_number(), "its number")
                .needs(ResourceKind::Topic, Right::Describe)
                .answers_json(200, "the partition", partition_schema())
                .refuses(404, "unknown_partition"),
        )
}

fn partition_schema() -> Schema {
    object([
        ("partition", partition_number()),
        ("start_offset", integer_from(0)),
        ("end_offset", integer_from(0)),
        ("offsets", integer_from(0)),
        ("bytes", integer_from(0)),
        ("leader", integer_from(0)),
    ])
}

fn topic_schema() -> Schema {
    object([
        ("name", text()),
        ("id", text()),
        ("internal", boolean()),
        ("partitions", list(partition_schema())),
        ("settings", list(setting_schema())),
    ])
}

fn created_schema() -> Schema {
    object([
        ("name", text()),
        ("id", text().or_null()),
        ("partitions", integer_from(1)),
        ("settings", map(text())),
        ("dry_run", boolean()),
    ])
}

fn of_partition(broker: &Broker, shape: &PartitionShape) -> Value {
    let (start, end) = (shape.bounds.start.get(), shape.bounds.durable_end.get());
    json!({
        "partition": shape.partition.get(), "start_offset": start, "end_offset": end, "offsets": end.saturating_sub(start),
        "bytes": shape.bytes, "leader": broker.config().node_id,
    })
}

async fn list_topics(
    door: Door,
    query: Result<Query<Listing>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let listing = parsed(query)?;
    let page = listing.page(door.topics(right::Describe), |topic| topic.name.as_str())?;
    let topics: Vec<Value> = page.entries.iter().map(|topic| {
        let shapes = door.broker().partition_shapes(topic);
        let bytes: u64 = shapes.iter().map(|shape| shape.bytes).sum();
        json!({
            "name": topic.name.as_str(), "id": topic.id.to_string(), "internal": TopicName::is_internal(topic.name.as_str()),
            "partitions": topic.partition_count(), "bytes": bytes, "settings": topic.overrides,
        })
    }).collect();
    Ok(Json(
        json!({ "topics": topics, "next_after": page.next_after }),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBody {
    name: String,
    partitions: Option<u32>,
    #[serde(default)]
    settings: BTreeMap<String, String>,
    #[serde(default)]
    dry_run: bool,
}

async fn create(door: Door, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let body: NewBody = body_of(&headers, body).await?;
    let new = NewTopic {
        name: door.new_topic(&body.name)?,
        layout: Layout::Counted {
            partitions: body.partitions,
            replicas: None,
        },
        settings: body
            .settings
            .into_iter()
            .map(|(name, value)| (name, Some(value)))
            .collect(),
    };
    let topic = create_one(&door, new, body.dry_run).await?;
    let answer = json!({
        "name": topic.name.as_str(), "id": (!body.dry_run).then(|| topic.id.to_string()),
        "partitions": created_count(&topic, body.partitions, door.broker()), "settings": topic.overrides, "dry_run": body.dry_run,
    });
    if body.dry_run {
        return Ok(Json(answer).into_response());
    }
    log_created(&door, &topic);
    let place = format!("{TOPICS}/{}", topic.name);
    Ok(errors::created(
        ([(header::LOCATION, place)], Json(answer)).into_response(),
    ))
}

/// What would be created has no partitions yet.
pub(in crate::front::http) fn created_count(
    topic: &Topic,
    asked: Option<u32>,
    broker: &Broker,
) -> u32 {
    match topic.partition_count() {
        0 => asked.unwrap_or(broker.config().default_partitions),
        count => count,
    }
}

/// Logs that a topic was created.
pub(in crate::front::http) fn log_created(door: &crate::broker::access::Door, topic: &Topic) {
    let settings = topic.overrides.iter();
    let settings = settings.map(|(key, value)| format!("{key}={value}"));
    let change = Change::TopicCreated {
        topic: topic.name.as_str(),
        partitions: topic.partition_count(),
        settings: &some(settings),
    };
    audit::log(door, &change);
}

/// Creates one topic.
pub(in crate::front::http) async fn create_one(
    door: &Door,
    new: NewTopic,
    dry_run: bool,
) -> Result<Granted<Arc<Topic>, right::Create>, Refusal> {
    let broker = door.broker();
    let asked = new.layout.count();
    let partitions = asked.unwrap_or(u64::from(broker.config().default_partitions));
    door.mutate(partitions, Mutation::Strict)?;
    let mut created = broker.create_topics(vec![new], dry_run).await;
    created.pop().expect("one answer for one topic")
}

async fn describe(door: Door, At(name): At<String>) -> Result<Json<Value>, Failure> {
    let topic = door.topic(&name, right::Describe)?;
    let settings = Resource::Topic(door.topic(&name, right::DescribeConfigs)?);
    let broker = door.broker();
    let shapes = broker.partition_shapes(&topic);
    let partitions: Vec<Value> = shapes
        .iter()
        .map(|shape| of_partition(broker, shape))
        .collect();
    Ok(Json(json!({
        "name": topic.name.as_str(), "id": topic.id.to_string(), "internal": TopicName::is_internal(topic.name.as_str()),
        "partitions": partitions, "settings": settings_of(broker, &settings),
    })))
}

async fn list_partitions(door: Door, At(name): At<String>) -> Result<Json<Value>, Failure> {
    let topic = door.topic(&name, right::Describe)?;
    let broker = door.broker();
    let shapes = broker.partition_shapes(&topic);
    let partitions: Vec<Value> = shapes
        .iter()
        .map(|shape| of_partition(broker, shape))
        .collect();
    Ok(Json(
        json!({ "topic": topic.name.as_str(), "partitions": partitions }),
    ))
}

async fn describe_partition(
    door: Door,
    At((name, number)): At<(String, u32)>,
) -> Result<Json<Value>, Failure> {
    let topic = door.topic(&name, right::Describe)?;
    let partition = partitions_of(&topic, Some(number))?[0];
    let broker = door.broker();
    let shape = broker.partition_shape(&topic, partition)?;
    Ok(Json(of_partition(broker, &shape)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoreBody {
    count: u32,
    #[serde(default)]
    dry_run: bool,
}

async fn grow(
    door: Door,
    headers: HeaderMap,
    At(name): At<String>,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let body: MoreBody = body_of(&headers, body).await?;
    let topic = door.topic(&name, right::Alter)?;
    let before = topic.partition_count();
    let added = body.count.saturating_sub(before);
    door.mutate(u64::from(added), Mutation::Strict)?;
    door.broker()
        .grow_topic(&topic, body.count, None, body.dry_run)
        .await?;
    if !body.dry_run {
        let change = Change::TopicGrown {
            topic: &name,
            partitions: body.count,
        };
        audit::log(&door, &change);
    }
    Ok(Json(
        json!({ "topic": name, "before": before, "after": body.count, "dry_run": body.dry_run }),
    ))
}

/// Whether something is only to be tried.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DryRun {
    #[serde(default)]
    pub(super) dry_run: bool,
}

async fn delete(
    door: Door,
    At(name): At<String>,
    query: Result<Query<DryRun>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let DryRun { dry_run } = parsed(query)?;
    let topic = door.topic(&name, right::Delete)?;
    let shown = door.topic(&name, right::Describe)?;
    let shapes = door.broker().partition_shapes(&shown);
    let offsets: u64 = shapes
        .iter()
        .map(|one| {
            one.bounds
                .durable_end
                .get()
                .saturating_sub(one.bounds.start.get())
        })
        .sum();
    let bytes: u64 = shapes.iter().map(|one| one.bytes).sum();
    if dry_run {
        door.broker().check_deletion(&topic)?;
    } else {
        delete_one(&door, topic).await?;
    }
    Ok(Json(json!({
        "topic": name, "id": shown.id.to_string(), "dry_run": dry_run, "partitions": shown.partition_count(), "offsets": offsets,
        "bytes": bytes,
    })))
}

/// Deletes a topic, and logs it.
pub(in crate::front::http) async fn delete_one(
    door: &crate::broker::access::Door,
    topic: Granted<Arc<Topic>, right::Delete>,
) -> Result<(), Refusal> {
    let partitions = u64::from(topic.partition_count());
    door.mutate(partitions, Mutation::Strict)?;
    let mut deleted = door.broker().delete_topics(vec![topic]).await;
    let topic = deleted.pop().expect("one answer for one topic")?;
    let change = Change::TopicDeleted {
        topic: topic.name.as_str(),
    };
    audit::log(door, &change);
    Ok(())
}
