//! `GET /api/v1/topics/{topic}/schema`: a topic's columns, and since when.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query};
use columnar::{Column, Columns, Schema, Shape};
use serde::Deserialize;
use serde_json::{Value, json};

use super::look::newest_schema;
use crate::broker::access::{Door, right};
use crate::front::http::errors::Failure;
use crate::front::http::request::{id_of, parsed};
use crate::front::http::schema as described;
use crate::front::http::schema::{boolean, integer_from, list, object, one_of, text};

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
    door: Door,
    topic: Result<Path<String>, PathRejection>,
    query: Result<Query<SchemaQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let topic = id_of(topic).map_err(Failure::Query)?;
    let SchemaQuery { version } = parsed(query)?;
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
