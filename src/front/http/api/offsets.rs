//! Offsets of partitions by place or time, and deleting the records before one.
//!
//! Callers: `api::routes`; `reset`, which moves groups to such places.

use std::sync::Arc;

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use model::time_spec::Position;
use model::{Offset, PartitionId, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::named::{partition_number, partitions_of, topic_name};
use crate::broker::access::{Door, Granted, ResourceKind, Right, right};
use crate::broker::{Broker, DeleteBefore, OffsetQuery, Refusal, Topic};
use crate::front::audit::{self, Change, some};
use crate::front::http::errors::Failure;
use crate::front::http::request::{At, parsed};
use crate::front::http::routes::{Operation, Routes};
use crate::front::http::schema::{Schema, boolean, integer, integer_from, list, object, text};

/// Where places are.
const OFFSETS: &str = "/api/v1/topics/{topic}/offsets";
/// The records themselves.
const RECORDS: &str = "/api/v1/topics/{topic}/records";

pub(super) fn routes() -> Routes {
    let on_topic = |about: Operation| {
        about
            .path("topic", topic_name(), "the topic's name")
            .query("partition", partition_number(), "this partition alone")
            .refuses(400, "invalid_place")
            .refuses(404, "unknown_topic, unknown_partition")
    };
    let found = object([
        ("partition", partition_number()),
        ("offset", integer_from(0)),
        ("timestamp_ms", integer().or_null()),
    ]);
    let deleted = object([
        ("partition", partition_number()),
        ("start_offset", integer_from(0)),
        ("start_offset_after", integer_from(0)),
        ("offsets", integer_from(0)),
    ]);
    Routes::new()
        .get(
            OFFSETS,
            find,
            on_topic(Operation::new(
                "findOffsets",
                "topics",
                "Offsets at a place or time",
            ))
            .needs(ResourceKind::Topic, Right::Describe)
            .query_required(
                "at",
                place(),
                "where: the first record at or after a time, in each partition",
            )
            .answers_json(
                200,
                "one for each partition; the end, where no record is so late",
                object([("topic", text()), ("partitions", list(found))]),
            ),
        )
        .delete(
            RECORDS,
            delete,
            on_topic(Operation::new(
                "deleteRecords",
                "topics",
                "Deletes the records before a place",
            ))
            .needs(ResourceKind::Topic, Right::DeleteRecords)
            .needs(ResourceKind::Topic, Right::Describe)
            .query_required(
                "before",
                place(),
                "the first record that stays, in each partition",
            )
            .query(
                "dry_run",
                boolean(),
                "tell what would go, and change nothing",
            )
            .answers_json(
                200,
                "what went of each partition",
                object([
                    ("topic", text()),
                    ("dry_run", boolean()),
                    ("partitions", list(deleted)),
                ]),
            )
            .refuses(409, "deletes_forbidden, held")
            .refuses(403, "internal_topic")
            .refuses(416, "offset_out_of_range"),
        )
}

/// A place in a log, in descriptions.
pub(super) fn place() -> Schema {
    text()
        .about("an offset, `earliest`, `latest`, `+100`, `-100`, `-10m`, a date, RFC 3339, or a time since 1970 with its unit")
        .example("earliest")
}

/// Reads a place; durations count from now.
pub(super) fn position(text: &str, now: Timestamp) -> Result<Position, Failure> {
    Position::parse(text, now).map_err(|error| Failure::Place(error.to_string()))
}

/// The offset of a place in a partition, never outside of what it holds, and the time of the record there if the place is a time.
pub(super) async fn offset_at(
    broker: &Broker,
    topic: &Granted<Arc<Topic>, right::Describe>,
    partition: PartitionId,
    place: Position,
) -> Result<(Offset, Option<Timestamp>), Refusal> {
    let ask = |query| broker.offset_for(topic, partition, None, query);
    let edge = async |query| {
        let found = ask(query).await?;
        Ok::<_, Refusal>(found.map_or(Offset::ZERO, |found| found.offset))
    };
    let start = edge(OffsetQuery::Earliest).await?;
    let end = edge(OffsetQuery::Latest).await?;
    let offset = match place {
        Position::Earliest => start,
        Position::Latest => end,
        Position::Offset(offset) => offset,
        Position::AfterEarliest(count) => Offset::new(start.get().saturating_add(count)),
        Position::BeforeLatest(count) => Offset::new(end.get().saturating_sub(count)),
        Position::At(time) => {
            let found = ask(OffsetQuery::AtTime(time)).await?;
            return Ok(found.map_or((end, None), |found| (found.offset, found.timestamp)));
        }
    };
    Ok((offset.clamp(start, end.max(start)), None))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FindQuery {
    at: String,
    partition: Option<u32>,
}

async fn find(
    door: Door,
    At(name): At<String>,
    query: Result<Query<FindQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let query = parsed(query)?;
    let topic = door.topic(&name, right::Describe)?;
    let broker = door.broker();
    let place = position(&query.at, broker.now())?;
    let mut found = Vec::new();
    for partition in partitions_of(&topic, query.partition)? {
        let (offset, time) = offset_at(broker, &topic, partition, place).await?;
        found.push(json!({
            "partition": partition.get(), "offset": offset.get(), "timestamp_ms": time.map(Timestamp::millis),
        }));
    }
    Ok(Json(json!({ "topic": name, "partitions": found })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteQuery {
    before: String,
    partition: Option<u32>,
    #[serde(default)]
    dry_run: bool,
}

async fn delete(
    door: Door,
    At(name): At<String>,
    query: Result<Query<DeleteQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let query = parsed(query)?;
    let topic = door.topic(&name, right::DeleteRecords)?;
    let shown = door.topic(&name, right::Describe)?;
    let broker = door.broker();
    let place = position(&query.before, broker.now())?;
    let mut deleted = Vec::new();
    let mut logged = Vec::new();
    for partition in partitions_of(&topic, query.partition)? {
        let (start, _) = offset_at(broker, &shown, partition, Position::Earliest).await?;
        let before = match place {
            // One that is typed is meant: what lies behind the end is refused, not cut.
            Position::Offset(offset) => offset,
            place => offset_at(broker, &shown, partition, place).await?.0,
        };
        let before = DeleteBefore::Offset(before.max(start));
        let after = match query.dry_run {
            true => broker.check_delete_records(&topic, partition, before)?,
            false => broker.delete_records(&topic, partition, before).await?,
        };
        logged.push(format!("{partition}: {after}"));
        deleted.push(json!({
            "partition": partition.get(), "start_offset": start.get(), "start_offset_after": after.get(),
            "offsets": after.get().saturating_sub(start.get()),
        }));
    }
    if !query.dry_run {
        let change = Change::RecordsDeleted {
            topic: &name,
            before: &some(logged.into_iter()),
        };
        audit::log(&door, &change);
    }
    Ok(Json(
        json!({ "topic": name, "dry_run": query.dry_run, "partitions": deleted }),
    ))
}
