//! Erasure by key over HTTP, at `/api/v1/cleanup/erasures`. The page `docs/http-api.md` describes each route.
//!
//! Callers: `http::routes`. Invariant: keys come in bodies only, so that no line of a log that names a path tells of one.

mod json;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use model::PartitionId;
use model::hex::from_hex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::{self, Failure};
use super::pages::{in_pieces, place_for};
use super::request::{CONTENT_TYPE, body_of, id_of, parsed};
use super::routes::{Operation, Routes};
use super::schema::{Schema, boolean, integer_in, list, object, text};
use super::state::Front;
use crate::broker::access::{Door, ResourceKind, Right, right};
use crate::broker::erasures::{ErasureError, LookKind, NewErasure};

/// All of them.
const ERASURES: &str = "/api/v1/cleanup/erasures";
/// One of them.
const ERASURE: &str = "/api/v1/cleanup/erasures/{id}";
/// Its receipt.
const RECEIPT: &str = "/api/v1/cleanup/erasures/{id}/receipt";
/// The receipts of all.
const RECEIPTS: &str = "/api/v1/cleanup/erasures/receipts";
/// What one would erase.
const PLAN: &str = "/api/v1/cleanup/erasures/plan";
/// Whether something is left.
const VERIFY: &str = "/api/v1/cleanup/erasures/verify";
/// How far one of the two is.
const LOOK: &str = "/api/v1/cleanup/erasures/looks/{id}";
/// How long a request waits at most: less than a stopping server waits for its connections.
const WAIT_MS_MAX: u64 = 2_000;
/// The longest line of a JSON text a line.
const LINES: &str = "application/x-ndjson";

pub(super) fn routes() -> Routes {
    requests().merge(looks())
}

fn of(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(id, "cleanup", summary)
}

fn requests() -> Routes {
    let asked = keys_schema().optional([
        ("reason", text().or_null()),
        (
            "remove_quarantined",
            boolean().about("remove files of the quarantine that hold a key"),
        ),
    ]);
    let describes = |id, summary| of(id, summary).needs(ResourceKind::Cluster, Right::Describe);
    Routes::new()
        .get(
            ERASURES,
            list_erasures,
            describes("listErasures", "Erasures by key, the newest first").answers_json(
                200,
                "all that are known",
                object([("erasures", list(json::schema()))]),
            ),
        )
        .post(
            ERASURES,
            request,
            of(
                "requestErasure",
                "Has the records of some keys erased for good",
            )
            .needs(ResourceKind::Topic, Right::DeleteRecords)
            .takes_json("which keys of which topic", asked.closed())
            .answers_json(202, "the erasure; its place is in Location", json::schema())
            .refuses(400, "invalid_erasure, invalid_body")
            .refuses(404, "unknown_topic")
            .refuses(409, "held")
            .refuses(429, "too_many_erasures")
            .refuses(507, "disk_full"),
        )
        .get(
            ERASURE,
            show,
            describes("getErasure", "One of them")
                .path("id", text(), "the erasure's id")
                .query(
                    "wait_ms",
                    integer_in(0..=2_000),
                    "how long to wait for its end",
                )
                .answers_json(200, "the erasure", json::schema())
                .refuses(404, "unknown_erasure"),
        )
        .delete(
            ERASURE,
            cancel,
            of("cancelErasure", "Ends one; what it has erased stays erased")
                .needs(ResourceKind::Cluster, Right::Clean)
                .path("id", text(), "the erasure's id")
                .answers_json(200, "the erasure", json::schema())
                .refuses(404, "unknown_erasure")
                .refuses(409, "erasure_over")
                .refuses(507, "disk_full"),
        )
        .get(
            RECEIPT,
            receipt,
            describes("getErasureReceipt", "The receipt of one, to the byte")
                .path("id", text(), "the erasure's id")
                .answers_json(200, "the receipt", json::receipt_schema())
                .refuses(404, "unknown_erasure, no_receipt"),
        )
        .get(
            RECEIPTS,
            receipts,
            describes(
                "listErasureReceipts",
                "All receipts, a line each, oldest first, to the byte",
            )
            .answers(200, "the receipts", vec![(LINES, text())]),
        )
}

fn looks() -> Routes {
    let reads = |id, summary| {
        of(id, summary)
            .needs(ResourceKind::Topic, Right::Read)
            .takes_json("which keys of which topic", keys_schema().closed())
            .answers_json(
                202,
                "the look; its place is in Location",
                json::look_schema(),
            )
            .refuses(400, "invalid_erasure, invalid_body")
            .refuses(404, "unknown_topic")
            .refuses(429, "too_many_erasures")
    };
    Routes::new()
        .post(
            PLAN,
            plan,
            reads("planErasure", "Counts what an erasure would erase"),
        )
        .post(
            VERIFY,
            verify,
            reads(
                "verifyErasure",
                "Searches every file of the store for records of some keys",
            ),
        )
        .get(
            LOOK,
            look,
            of(
                "getErasureLook",
                "How far such a look is, and what it found",
            )
            .needs(ResourceKind::Cluster, Right::Describe)
            .path("id", text(), "the look's id")
            .query(
                "wait_ms",
                integer_in(0..=2_000),
                "how long to wait for its end",
            )
            .answers_json(200, "the look", json::look_schema())
            .refuses(404, "unknown_erasure"),
        )
}

fn keys_schema() -> Schema {
    object([("topic", text())]).optional([
        ("partition", integer_in(0..=i64::from(u32::MAX)).or_null()),
        ("keys", list(text()).about("as text")),
        ("keys_hex", list(text()).about("as hexadecimal digits")),
    ])
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestBody {
    topic: String,
    partition: Option<u32>,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    keys_hex: Vec<String>,
    reason: Option<String>,
    #[serde(default)]
    remove_quarantined: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LookBody {
    topic: String,
    partition: Option<u32>,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    keys_hex: Vec<String>,
}

/// The keys of a body.
fn keys_of(keys: Vec<String>, hex: &[String]) -> Result<Vec<Bytes>, Failure> {
    let mut all: Vec<Bytes> = keys.into_iter().map(Bytes::from).collect();
    for text in hex {
        let key = from_hex(text);
        let invalid = || Failure::Body(format!("keys_hex: {text:?} is no hexadecimal digits"));
        all.push(key.ok_or_else(invalid)?.into());
    }
    all.sort();
    all.dedup();
    Ok(all)
}

async fn list_erasures(door: Door) -> Result<Json<Value>, Failure> {
    let cluster = door.cluster(right::Describe)?;
    let erasures = door.broker().erasures(&cluster);
    let erasures: Vec<Value> = erasures.iter().map(json::of_erasure).collect();
    Ok(Json(json!({ "erasures": erasures })))
}

async fn request(door: Door, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let body: RequestBody = body_of(&headers, body).await?;
    let new = NewErasure {
        partition: body.partition.map(PartitionId::new),
        keys: keys_of(body.keys, &body.keys_hex)?,
        reason: body.reason,
        removes_quarantined: body.remove_quarantined,
    };
    let topic = door.topic(&body.topic, right::DeleteRecords)?;
    let broker = door.broker();
    let erasure = broker.request_erasure(&topic, new, door.caller()).await?;
    let place = format!("{ERASURES}/{}", erasure.erasure.id);
    let answer = (
        [(header::LOCATION, place)],
        Json(json::of_erasure(&erasure)),
    );
    Ok(errors::accepted(answer.into_response()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitQuery {
    #[serde(default)]
    wait_ms: u64,
}

fn wait_of(query: Result<Query<WaitQuery>, QueryRejection>) -> Result<Duration, Failure> {
    let WaitQuery { wait_ms } = parsed(query)?;
    if wait_ms > WAIT_MS_MAX {
        let detail = format!("wait_ms must be 0 to {WAIT_MS_MAX}");
        return Err(Failure::Query(detail));
    }
    Ok(Duration::from_millis(wait_ms))
}

async fn show(
    door: Door,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<WaitQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let wait = wait_of(query)?;
    let cluster = door.cluster(right::Describe)?;
    let id = id_of(id).map_err(ErasureError::Unknown)?;
    let erasure = door.broker().erasure(&cluster, &id, wait).await?;
    Ok(Json(json::of_erasure(&erasure)))
}

async fn cancel(
    door: Door,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Failure> {
    let cluster = door.cluster(right::Clean)?;
    let id = id_of(id).map_err(ErasureError::Unknown)?;
    let broker = door.broker();
    let erasure = broker.cancel_erasure(&cluster, &id, door.caller()).await?;
    Ok(Json(json::of_erasure(&erasure)))
}

async fn receipt(door: Door, id: Result<Path<String>, PathRejection>) -> Result<Response, Failure> {
    let cluster = door.cluster(right::Describe)?;
    let id = id_of(id).map_err(ErasureError::Unknown)?;
    let receipt = door.broker().receipt(&cluster, &id)?;
    let kind = [(header::CONTENT_TYPE, CONTENT_TYPE)];
    Ok((kind, receipt.to_string()).into_response())
}

async fn receipts(State(front): State<Arc<Front>>, door: Door) -> Result<Response, Failure> {
    let cluster = door.cluster(right::Describe)?;
    let page = place_for(&front.plan_pages).await;
    let receipts = door.broker().receipts(&cluster);
    let lines = receipts.iter().map(|line| format!("{line}\n"));
    Ok(in_pieces(lines.collect(), LINES, page))
}

async fn plan(door: Door, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    begin_look(&door, &headers, body, LookKind::Plan).await
}

async fn verify(door: Door, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    begin_look(&door, &headers, body, LookKind::Verify).await
}

async fn begin_look(
    door: &Door,
    headers: &HeaderMap,
    body: Body,
    kind: LookKind,
) -> Result<Response, Failure> {
    let body: LookBody = body_of(headers, body).await?;
    let keys = keys_of(body.keys, &body.keys_hex)?;
    let topic = door.topic(&body.topic, right::Read)?;
    let partition = body.partition.map(PartitionId::new);
    let look = door.broker().begin_look(&topic, kind, partition, keys)?;
    let place = format!("{ERASURES}/looks/{}", look.id);
    let answer = ([(header::LOCATION, place)], Json(json::of_look(&look)));
    Ok(errors::accepted(answer.into_response()))
}

async fn look(
    door: Door,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<WaitQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let wait = wait_of(query)?;
    let cluster = door.cluster(right::Describe)?;
    let id = id_of(id).map_err(ErasureError::Unknown)?;
    let look = door.broker().look_state(&cluster, &id, wait).await?;
    Ok(Json(json::of_look(&look)))
}
