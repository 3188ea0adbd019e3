//! Operators' holds over HTTP, at `/api/v1/cleanup/holds`. The page `docs/http-api.md` describes each route.
//!
//! Callers: `http::routes`.

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use model::hex::{from_hex, to_hex};
use model::{PartitionId, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::{self, Failure};
use super::request::{body_of, id_of};
use super::routes::{Operation, Routes};
use super::schema::{Schema, integer, integer_from, integer_in, list, object, text};
use crate::broker::access::{Door, ResourceKind, Right, right};
use crate::broker::holds::{Hold, HoldError, NewHold};

/// All of them.
const HOLDS: &str = "/api/v1/cleanup/holds";
/// One of them.
const HOLD: &str = "/api/v1/cleanup/holds/{id}";

pub(super) fn routes() -> Routes {
    let of = |id, summary| Operation::new(id, "cleanup", summary);
    let new = object([("topic", text()), ("reason", text())])
        .optional([
            ("partition", integer_in(0..=i64::from(u32::MAX)).or_null()),
            ("from_ms", integer().or_null().about("inclusive")),
            ("to_ms", integer().or_null().about("exclusive")),
            ("expires_ms", integer().or_null()),
            ("key", text().about("the records of this key only")),
            ("key_hex", text().about("the key as hexadecimal digits")),
        ])
        .closed();
    Routes::new()
        .get(
            HOLDS,
            list_holds,
            of("listHolds", "What cleanup must not remove")
                .needs(ResourceKind::Cluster, Right::Describe)
                .answers_json(200, "all holds", object([("holds", list(schema()))])),
        )
        .post(
            HOLDS,
            add,
            of("addHold", "Keeps records of a topic from cleanup")
                .needs(ResourceKind::Topic, Right::Hold)
                .takes_json("the records, and why they stay", new)
                .answers_json(201, "the hold", schema())
                .refuses(400, "invalid_hold, invalid_body")
                .refuses(404, "unknown_topic")
                .refuses(429, "too_many_holds")
                .refuses(507, "disk_full"),
        )
        .delete(
            HOLD,
            remove,
            of("removeHold", "Ends a hold")
                .needs(ResourceKind::Cluster, Right::Hold)
                .path("id", text(), "the hold's id")
                .answers_json(200, "the hold that was", schema())
                .refuses(404, "unknown_hold")
                .refuses(507, "disk_full"),
        )
}

/// What a hold looks like.
fn schema() -> Schema {
    object([
        ("id", text()),
        ("topic", text()),
        ("partition", integer_from(0).or_null()),
        ("from_ms", integer().or_null()),
        ("to_ms", integer().or_null()),
        ("reason", text()),
        ("by", text()),
        ("added_ms", integer()),
        ("expires_ms", integer().or_null()),
        (
            "key",
            text()
                .or_null()
                .about("null if it is no text, or all records are held"),
        ),
        ("key_hex", text().or_null()),
    ])
}

fn value(hold: &Hold) -> Value {
    let key = hold.key();
    let as_text = key.clone().and_then(|key| String::from_utf8(key).ok());
    json!({
        "key": as_text, "key_hex": key.as_deref().map(to_hex),
        "id": hold.id, "topic": hold.topic, "partition": hold.partition, "from_ms": hold.from_ms, "to_ms": hold.to_ms,
        "reason": hold.reason, "by": hold.by, "added_ms": hold.added_ms, "expires_ms": hold.expires_ms,
    })
}

async fn list_holds(door: Door) -> Result<Json<Value>, Failure> {
    let cluster = door.cluster(right::Describe)?;
    let holds = door.broker().holds(&cluster);
    let holds: Vec<Value> = holds.iter().map(|hold| value(hold)).collect();
    Ok(Json(json!({ "holds": holds })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddBody {
    topic: String,
    partition: Option<u32>,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    reason: String,
    expires_ms: Option<i64>,
    key: Option<String>,
    key_hex: Option<String>,
}

async fn add(door: Door, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let body: AddBody = body_of(&headers, body).await?;
    let topic = door.topic(&body.topic, right::Hold)?;
    let invalid = |reason: &str| HoldError::Invalid(reason.to_owned());
    let key = match (body.key, body.key_hex) {
        (Some(_), Some(_)) => return Err(invalid("key and key_hex are the same: give one").into()),
        (Some(key), None) => Some(key.into_bytes()),
        (None, Some(digits)) => {
            let key = from_hex(&digits);
            Some(key.ok_or_else(|| invalid("key_hex: these are no hexadecimal digits"))?)
        }
        (None, None) => None,
    };
    let new = NewHold {
        partition: body.partition.map(PartitionId::new),
        from: body.from_ms.map(Timestamp::from_millis),
        to: body.to_ms.map(Timestamp::from_millis),
        reason: body.reason,
        expires: body.expires_ms.map(Timestamp::from_millis),
        key: key.map(Into::into),
    };
    let hold = door.broker().add_hold(&topic, new, door.caller()).await?;
    Ok(errors::created(Json(value(&hold)).into_response()))
}

async fn remove(
    door: Door,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Failure> {
    let cluster = door.cluster(right::Hold)?;
    let id = id_of(id).map_err(HoldError::Unknown)?;
    let hold = door
        .broker()
        .remove_hold(&cluster, &id, door.caller())
        .await?;
    Ok(Json(value(&hold)))
}
