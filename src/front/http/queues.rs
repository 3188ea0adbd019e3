//! Queues over HTTP, at `/api/v1/queues`: topics as the groups have them that share their records. The page `docs/http-api.md` describes
//! each route.
//!
//! Callers: `http::routes`.

use std::collections::HashMap;

use axum::Json;
use axum::body::Body;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::HeaderMap;
use model::TopicId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::Failure;
use super::request::{At, body_of, parsed};
use super::routes::{Operation, Routes};
use super::schema::{Schema, boolean, integer, integer_from, list, object, text};
use crate::broker::access::{Door, ResourceKind, Right, right};
use crate::broker::share::{Counts, Letter, Queue, QueuePartition, Transfer};
use crate::front::audit::{self, Change};

const QUEUES: &str = "/api/v1/queues";
const QUEUE: &str = "/api/v1/queues/{group}/{topic}";
const PURGE: &str = "/api/v1/queues/{group}/{topic}/purge";
const MOVE: &str = "/api/v1/queues/{group}/{topic}/move";
/// Queues that one answer has at most.
const SHOWN_MAX: usize = 1_000;
/// Messages that one request moves at most, and unless it says otherwise.
const MOVED_MAX: u64 = 10_000;

pub(super) fn routes() -> Routes {
    let of = |id, summary| Operation::new(id, "queues", summary);
    let on_queue = |about: Operation| {
        about
            .path(
                "group",
                text().example("queue"),
                "the group that shares it; queue for AMQP's queues",
            )
            .path("topic", text().example("readings"), "the topic")
            .refuses(404, "unknown_queue, unknown_topic")
    };
    let all = object([
        ("queues", list(queue_schema([]))),
        ("left_out", integer_from(0)),
    ]);
    let purge = object([]).optional([("dry_run", boolean())]).closed();
    let purged = object([("discarded", integer_from(0)), ("dry_run", boolean())]);
    let wanted = object([("to", text().about("the topic that they go to"))])
        .optional([
            (
                "dead_of",
                text()
                    .or_null()
                    .about("only dead letters that this group has of that topic, as they were"),
            ),
            (
                "max",
                integer_from(1).about("so many at most; 10000 if not given, and at most"),
            ),
            ("dry_run", boolean()),
        ])
        .closed();
    let moved = object([
        ("moved", integer_from(0)),
        (
            "empty",
            integer_from(0).about("dead letters without their messages, which stay"),
        ),
        ("dry_run", boolean()),
        ("letters", list(letter_schema())),
    ]);
    Routes::new()
        .get(
            QUEUES,
            list_queues,
            of("listQueues", "Topics as groups share them: AMQP's queues and subscriptions, Kafka's share groups")
                .needs(ResourceKind::Group, Right::Describe)
                .needs(ResourceKind::Topic, Right::Describe)
                .query("group", text(), "of this group alone")
                .answers_json(200, "by group and topic", all),
        )
        .get(
            QUEUE,
            describe,
            on_queue(of("describeQueue", "A queue: its partitions, and who holds what"))
                .needs(ResourceKind::Group, Right::Describe)
                .needs(ResourceKind::Topic, Right::Describe)
                .answers_json(
                    200,
                    "the queue",
                    queue_schema([
                        ("dead_letter_topic", text().or_null()),
                        ("members", list(member_schema())),
                        ("partition_list", list(partition_schema())),
                    ]),
                ),
        )
        .post(
            PURGE,
            purge_queue,
            on_queue(of("purgeQueue", "Finishes all messages that nobody holds"))
                .needs(ResourceKind::Group, Right::Read)
                .needs(ResourceKind::Group, Right::Describe)
                .needs(ResourceKind::Topic, Right::Read)
                .needs(ResourceKind::Topic, Right::Describe)
                .takes_json("whether to try it only", purge)
                .answers_json(200, "how many", purged)
                .refuses(409, "other_group")
                .refuses(503, "group_not_available"),
        )
        .post(
            MOVE,
            move_messages,
            on_queue(of("moveQueue", "Moves messages that nobody holds to another topic"))
                .needs(ResourceKind::Group, Right::Read)
                .needs(ResourceKind::Topic, Right::Read)
                .needs(ResourceKind::Topic, Right::Write)
                .takes_json("where to", wanted)
                .answers_json(200, "how many", moved)
                .refuses(400, "invalid_body, same_topic")
                .refuses(409, "other_group")
                .refuses(503, "group_not_available"),
        )
}

fn queue_schema<const N: usize>(more: [(&str, Schema); N]) -> Schema {
    let mut schema = object([
        ("group", text()),
        ("topic", text()),
        ("partitions", integer_from(0)),
        ("available", integer_from(0)),
        ("held", integer_from(0)),
        ("archiving", integer_from(0)),
        ("finished", integer_from(0)),
        ("oldest_ms", integer().or_null()),
    ]);
    schema = schema.optional(more);
    schema
}

fn partition_schema() -> Schema {
    object([
        ("partition", integer_from(0)),
        ("log_start", integer_from(0)),
        ("log_end", integer_from(0)),
        ("start", integer_from(0)),
        ("available", integer_from(0)),
        ("held", integer_from(0)),
        ("archiving", integer_from(0)),
        ("finished", integer_from(0)),
        ("oldest_ms", integer().or_null()),
        (
            "held_by",
            list(object([
                ("member_id", text()),
                ("records", integer_from(0)),
            ])),
        ),
    ])
}

fn member_schema() -> Schema {
    object([
        ("member_id", text()),
        ("client_id", text()),
        ("host", text()),
    ])
}

fn letter_schema() -> Schema {
    object([
        ("partition", integer_from(0)),
        ("offset", integer_from(0)),
        ("time_ms", integer()),
        ("of_partition", text()),
        ("of_offset", text()),
        ("delivery_count", text()),
        ("reason", text()),
    ])
}

fn counted(counts: Counts) -> Value {
    json!({
        "available": counts.available, "held": counts.held, "archiving": counts.archiving, "finished": counts.finished,
    })
}

fn joined(mut one: Value, other: Value) -> Value {
    if let (Value::Object(one), Value::Object(other)) = (&mut one, other) {
        one.extend(other);
    }
    one
}

fn shown(group: &str, topic: &str, queue: &Queue) -> Value {
    let head = json!({
        "group": group, "topic": topic, "partitions": queue.partitions.len(),
        "oldest_ms": queue.oldest().map(model::Timestamp::millis),
    });
    joined(head, counted(queue.counts()))
}

fn shown_partition(one: &QueuePartition) -> Value {
    let held_by = one.holders.iter();
    let held_by =
        held_by.map(|(member, records)| json!({ "member_id": &**member, "records": records }));
    let head = json!({
        "partition": one.partition.get(), "log_start": one.bounds.start.get(), "log_end": one.bounds.end.get(),
        "start": one.start.get(), "oldest_ms": one.oldest.map(model::Timestamp::millis),
        "held_by": held_by.collect::<Vec<_>>(),
    });
    joined(head, counted(one.counts))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    group: Option<String>,
}

async fn list_queues(
    door: Door,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let query = parsed(query)?;
    let topics = door.topics(right::Describe).into_iter();
    let topics: HashMap<TopicId, _> = topics.map(|topic| (topic.id, topic)).collect();
    let (mut queues, mut left_out) = (Vec::new(), 0);
    for listed in door.share_groups() {
        if query.group.as_ref().is_some_and(|id| *id != listed.id) {
            continue;
        }
        // Who may describe the cluster is shown a group that it may not describe itself; its queues are that group's.
        let Some(group) = door.group_if_allowed(&listed.id, right::Describe) else {
            continue;
        };
        let Ok(places) = group.shared_places() else {
            continue;
        };
        let mut ids: Vec<TopicId> = places.iter().map(|place| place.topic).collect();
        ids.dedup();
        let mut of_group: Vec<_> = ids.iter().filter_map(|id| topics.get(id)).collect();
        of_group.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        for topic in of_group {
            if queues.len() >= SHOWN_MAX {
                left_out += 1;
            } else if let Ok(queue) = door.broker().queue(&group, topic).await {
                queues.push(shown(&listed.id, topic.name.as_str(), &queue));
            }
        }
    }
    Ok(Json(json!({ "queues": queues, "left_out": left_out })))
}

async fn describe(
    door: Door,
    At((group, topic)): At<(String, String)>,
) -> Result<Json<Value>, Failure> {
    let granted = door.group(&group, right::Describe)?;
    let found = door.topic(&topic, right::Describe)?;
    let queue = door.broker().queue(&granted, &found).await?;
    let members = granted.describe_shared()?.members.into_iter();
    let members = members.map(|it| {
        json!({ "member_id": it.member_id, "client_id": it.client.client_id, "host": it.client.host })
    });
    let more = json!({
        "dead_letter_topic": queue.dead_letter_topic, "members": members.collect::<Vec<_>>(),
        "partition_list": queue.partitions.iter().map(shown_partition).collect::<Vec<_>>(),
    });
    Ok(Json(joined(shown(&group, &topic, &queue), more)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PurgeBody {
    #[serde(default)]
    dry_run: bool,
}

async fn purge_queue(
    door: Door,
    headers: HeaderMap,
    At((group, topic)): At<(String, String)>,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let PurgeBody { dry_run } = body_of(&headers, body).await?;
    let granted = door.group(&group, right::Read)?;
    let read = door.topic(&topic, right::Read)?;
    let described = door.group(&group, right::Describe)?;
    let found = door.topic(&topic, right::Describe)?;
    let queue = door.broker().queue(&described, &found).await?;
    let discarded = match dry_run {
        true => queue.counts().available,
        false => {
            let discarded = door.broker().discard_shared(&granted, &read).await?;
            let change = Change::QueuePurged {
                group: &group,
                topic: &topic,
                messages: discarded,
            };
            audit::log(&door, &change);
            discarded
        }
    };
    Ok(Json(json!({ "discarded": discarded, "dry_run": dry_run })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveBody {
    to: String,
    dead_of: Option<String>,
    max: Option<u64>,
    #[serde(default)]
    dry_run: bool,
}

async fn move_messages(
    door: Door,
    headers: HeaderMap,
    At((group, topic)): At<(String, String)>,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let body: MoveBody = body_of(&headers, body).await?;
    let granted = door.group(&group, right::Read)?;
    let from = door.topic(&topic, right::Read)?;
    let to = door.topic(&body.to, right::Write)?;
    let transfer = Transfer {
        from: &from,
        to: &to,
        dead_of: body.dead_of.as_deref(),
        count_max: body.max.unwrap_or(MOVED_MAX).clamp(1, MOVED_MAX),
        dry_run: body.dry_run,
    };
    let done = door.broker().transfer(&granted, &transfer).await?;
    if !body.dry_run && done.moved > 0 {
        let change = Change::QueueMoved {
            group: &group,
            topic: &topic,
            to: &body.to,
            messages: done.moved,
        };
        audit::log(&door, &change);
    }
    let letters = done.letters.iter().map(told);
    Ok(Json(json!({
        "moved": done.moved, "empty": done.empty, "dry_run": body.dry_run, "letters": letters.collect::<Vec<_>>(),
    })))
}

fn told(letter: &Letter) -> Value {
    let [of_partition, of_offset, delivery_count, reason] = &letter.about;
    json!({
        "partition": letter.partition.get(), "offset": letter.offset.get(), "time_ms": letter.time.millis(),
        "of_partition": of_partition, "of_offset": of_offset, "delivery_count": delivery_count, "reason": reason,
    })
}
