//! The loss ledger over HTTP, at `/api/v1/cleanup/losses`. The page `docs/http-api.md` describes it.
//!
//! Callers: `http::routes`.

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::Failure;
use super::request::parsed;
use super::routes::{Operation, Routes};
use super::schema::{integer, integer_from, list, object, text};
use crate::broker::access::{Door, ResourceKind, Right, right};
use crate::broker::losses::Loss;

pub(super) const LOSSES: &str = "/api/v1/cleanup/losses";
/// Entries that one answer has at most.
const ENTRIES_MAX: usize = 1_000;

pub(super) fn routes() -> Routes {
    let loss = object([
        ("number", integer_from(0)),
        ("group", text().or_null()),
        ("reader", text().or_null()),
        ("topic", text()),
        ("partition", integer_from(0)),
        ("from", integer_from(0)),
        ("to", integer_from(0)),
        ("records", integer_from(0).or_null()),
        ("first_ms", integer().or_null()),
        ("last_ms", integer().or_null()),
        ("at_ms", integer()),
        ("until_ms", integer()),
        ("cause", text()),
        ("reason", text()),
    ]);
    let answer = object([
        ("cluster_id", text()),
        ("losses", list(loss)),
        ("left_out", integer_from(0)),
    ]);
    let about = Operation::new(
        "listLosses",
        "cleanup",
        "What consumer groups and open readers had not read when it was removed or damaged",
    )
    .needs(ResourceKind::Cluster, Right::Describe)
    .query("group", text(), "losses of this group alone")
    .query("topic", text(), "losses of this topic alone")
    .answers_json(200, "entries of the ledger, newest first", answer);
    Routes::new().get(LOSSES, list_losses, about)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LossQuery {
    group: Option<String>,
    topic: Option<String>,
}

fn value(loss: &Loss) -> Value {
    json!({
        "number": loss.number, "group": loss.group, "reader": loss.reader, "topic": loss.topic, "partition": loss.partition, "from": loss.from,
        "to": loss.to, "records": loss.records, "first_ms": loss.first_ms, "last_ms": loss.last_ms, "at_ms": loss.at_ms,
        "until_ms": loss.until_ms, "cause": loss.cause, "reason": loss.reason,
    })
}

async fn list_losses(
    door: Door,
    query: Result<Query<LossQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let query = parsed(query)?;
    let cluster = door.cluster(right::Describe)?;
    let broker = door.broker();
    let found = broker.losses(&cluster, query.group.as_deref(), query.topic.as_deref());
    let shown: Vec<Value> = found
        .iter()
        .take(ENTRIES_MAX)
        .map(|loss| value(loss))
        .collect();
    let left_out = found.len() - shown.len();
    let cluster_id = broker.cluster_id();
    Ok(Json(
        json!({ "cluster_id": cluster_id, "losses": shown, "left_out": left_out }),
    ))
}
