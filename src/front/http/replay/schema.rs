//! `GET /api/v1/topics/{topic}/schema`: a topic's columns, and since when.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::HeaderMap;
use columnar::{Column, Columns, Schema, Shape};
use model::PartitionId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::pump;
use crate::broker::access::{Granted, right};
use crate::broker::replay::{Block, Place, ReplayRequest};
use crate::broker::{Broker, Topic};
use crate::front::http::errors::Failure;
use crate::front::http::request::{id_of, parsed};
use crate::front::http::schema as described;
use crate::front::http::schema::{boolean, integer_from, list, object, one_of, text};
use crate::front::http::state::Front;

/// The records of each partition that are looked at.
const LOOK_RECORDS: u64 = 1_000;
/// Partitions that are looked at.
const PARTITIONS_MAX: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SchemaQuery {
    version: Option<u32>,
}

/// What the answer looks like.
pub(super) fn described() -> described::Schema {
    let column = object([("name", text()), ("type", text())]).optional([
        ("path", text().about("of a field: where it is in the value")),
        ("since_version", integer_from(0)),
    ]);
    object([
        ("topic", text()),
        ("version", integer_from(0)),
        ("key", one_of(&["text", "bytes"])),
        ("value", one_of(&["text", "bytes"])),
        ("columns", list(column)),
        ("truncated", boolean()),
    ])
}

pub(super) async fn topic_schema(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    topic: Result<Path<String>, PathRejection>,
    query: Result<Query<SchemaQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let topic = id_of(topic).map_err(Failure::Query)?;
    let SchemaQuery { version } = parsed(query)?;
    let door = front.door(peer, &headers);
    let topic = door.topic(&topic, right::Read)?;
    let broker = door.broker();
    let schema = match version {
        Some(_) => broker.schema(&topic),
        None => newest_schema(broker, &topic).await?,
    };
    let schema = match version {
        None => Schema::clone(&schema),
        Some(version) => schema.at(version).ok_or(Failure::NoSchemaVersion {
            version,
            newest: schema.version,
        })?,
    };
    Ok(Json(value(topic.name.as_str(), &schema)))
}

/// What is known of a topic, after a look at its newest records.
pub(in crate::front::http) async fn newest_schema(
    broker: &Broker,
    topic: &Granted<Arc<Topic>, right::Read>,
) -> Result<Arc<Schema>, Failure> {
    let partitions: Vec<PartitionId> = topic.partitions().take(PARTITIONS_MAX).collect();
    let newest = Place::BeforeLatest(LOOK_RECORDS);
    let blocks = some_records(broker, topic, &partitions, newest).await?;
    let known = Schema::clone(&broker.schema(topic));
    let seen = tokio::task::spawn_blocking(move || pump::seen_in(known, &blocks)).await;
    let seen = seen.map_err(|error| Failure::Internal(std::io::Error::other(error)))?;
    Ok(pump::learn(broker, topic, seen).await)
}

/// Some records of each of these partitions, from this place on.
pub(super) async fn some_records(
    broker: &Broker,
    topic: &Granted<Arc<Topic>, right::Read>,
    partitions: &[PartitionId],
    from: Place,
) -> Result<Vec<Block>, Failure> {
    let mut blocks = Vec::new();
    for partition in partitions.iter().take(PARTITIONS_MAX) {
        let request = ReplayRequest {
            partitions: Some(vec![*partition]),
            from,
            max_records: Some(LOOK_RECORDS),
            ..ReplayRequest::default()
        };
        let mut replay = broker.replay(topic, request).await?;
        // A block is half a MiB, or its last records.
        blocks.extend(replay.next().await?);
    }
    Ok(blocks)
}

fn value(topic: &str, schema: &Schema) -> Value {
    let shape = |shape| match shape {
        Shape::Text => "text",
        Shape::Bytes => "bytes",
    };
    let (key, value) = (shape(schema.keys()), shape(schema.values()));
    let column = |column: &Column| {
        let name = column.name();
        let kind = match column {
            Column::Topic => "text",
            Column::Headers => "json",
            Column::Partition | Column::Offset => "int",
            Column::Timestamp => "timestamp",
            Column::Key => key,
            Column::Value => value,
            Column::Field(path) => {
                let field = schema.fields.iter().find(|field| field.path == *path);
                let field = field.expect("the columns are of this schema");
                return json!({
                    "name": name, "type": field.kind.name(), "path": path, "since_version": field.since,
                });
            }
        };
        json!({ "name": name, "type": kind })
    };
    let columns: Vec<Value> = Columns::all(schema).iter().map(column).collect();
    json!({
        "topic": topic, "version": schema.version, "key": key, "value": value, "columns": columns,
        "truncated": schema.truncated,
    })
}
