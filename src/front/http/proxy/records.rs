//! Records of a partition from an offset on, as an array: what is there, or what comes within a time.
//!
//! Callers: `proxy::routes`. Source: Redpanda's HTTP proxy. Invariants: an answer holds `max_bytes` of keys and values at most,
//! except that its first record is whole. Offsets that have no record to give are told in a header, as the array has no place for
//! them: of what lies between two records, or before the first, nothing is passed over in silence.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use model::Offset;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::second::shape_of;
use crate::broker::Refusal;
use crate::broker::access::{Door, ResourceKind, Right, right};
use crate::broker::replay::{
    Event, Filter, FollowRequest, Gap, Order, Place, ReplayError, ReplayRecord,
};
use crate::front::http::connection::OfConnection;
use crate::front::http::errors::Failure;
use crate::front::http::request::{At, parsed};
use crate::front::http::routes::{Operation, Routes};
use crate::front::http::schema::{anything, integer_from, integer_in, list, object, text};
use crate::front::http::state::Front;

/// Values as JSON.
const JSON: &str = "application/vnd.kafka.json.v2+json";
/// Values in base64.
const BINARY: &str = "application/vnd.kafka.binary.v2+json";
/// Bytes of keys and values without `max_bytes`, and at most.
const BYTES: usize = 1 << 20;
const BYTES_MAX: usize = 16 << 20;
/// Offsets that had no record to give.
const GAPS: &str = "alluvium-gaps";
/// So many of them are named.
const GAPS_MAX: usize = 32;
/// Milliseconds to wait for records without `timeout`, and at most.
const WAIT_MS: u64 = 1_000;
const WAIT_MS_MAX: u64 = 30_000;

pub(super) fn routes() -> Routes {
    let record = || {
        list(object([
            ("topic", text()),
            ("key", anything()),
            ("value", anything()),
            ("partition", integer_from(0)),
            ("offset", integer_from(0)),
        ]))
    };
    let about = Operation::new("proxyRecords", "rest proxy", "Records of a partition from an offset on, version 2")
        .details(
            "Waits for `timeout` milliseconds at most if there are none. Values are JSON or base64, as `Accept` says. Offsets \
             without a record that lie before the last one are told by the header Alluvium-Gaps: `5-9 damaged, 12-12 cleaned`.",
        )
        .told_as_proxy()
    .follows()
        .needs(ResourceKind::Topic, Right::Describe)
        .needs(ResourceKind::Topic, Right::Read)
        .path("topic", text().example("readings"), "the topic's name")
        .path("partition", integer_from(0), "its number")
        .query_required("offset", integer_from(0), "the first record")
        .query("timeout", integer_in(0..=WAIT_MS_MAX as i64), "milliseconds to wait for the first; 1000 without it")
        .query("max_bytes", integer_in(1..=BYTES_MAX as i64), "bytes of keys and values at most; 1 MiB without it")
        .answers(200, "records, perhaps none", vec![(BINARY, record()), (JSON, record())])
        .refuses(404, "40401, 40402")
        .refuses(416, "416: no such offset")
        .refuses(422, "42203: a key or value is no JSON");
    Routes::new().get(
        "/topics/{topic}/partitions/{partition}/records",
        records,
        about,
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordsQuery {
    offset: u64,
    timeout: Option<u64>,
    max_bytes: Option<usize>,
}

async fn records(
    State(front): State<Arc<Front>>,
    door: Door,
    connection: Option<Extension<OfConnection>>,
    headers: HeaderMap,
    At((name, number)): At<(String, u32)>,
    query: Result<Query<RecordsQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let query = parsed(query)?;
    let wait_ms = query.timeout.unwrap_or(WAIT_MS);
    let bytes_max = query.max_bytes.unwrap_or(BYTES);
    if wait_ms > WAIT_MS_MAX || !(1..=BYTES_MAX).contains(&bytes_max) {
        let must = format!("timeout must be 0 to {WAIT_MS_MAX}, max_bytes 1 to {BYTES_MAX}");
        return Err(Failure::Query(must));
    }
    let offset = i64::try_from(query.offset).ok().and_then(Offset::from_wire);
    let offset = offset.ok_or_else(|| Failure::Query("no record has this offset".to_owned()))?;
    let shown = door.topic(&name, right::Describe)?;
    let topic = door.topic(&name, right::Read)?;
    let shape = shape_of(&front, &shown, number)?;
    if offset < shape.bounds.start || offset > shape.bounds.durable_end {
        let refusal = Refusal::OffsetOutOfRange {
            offset: Some(offset),
            start_offset: shape.bounds.start,
            high_watermark: shape.bounds.durable_end,
        };
        return Err(refusal.into());
    }
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    let as_json = accept.is_some_and(|accept| accept.contains(".json."));
    let request = FollowRequest {
        partitions: Some(vec![shape.partition]),
        from: Place::Offset(offset),
        resume: None,
        order: Order::Offset,
        filter: Filter::default(),
    };
    let mut follow = door.broker().follow(&topic, request).map_err(refused)?;
    follow.open_as(door.caller());
    let stopped = async {
        match connection {
            Some(Extension(connection)) => connection.stopped().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(stopped);
    let until = Instant::now() + Duration::from_millis(wait_ms);
    let (mut found, mut bytes, mut gaps) = (Vec::new(), 0, Gaps::default());
    // What is there is read whatever the time; only for what comes does it wait.
    let mut is_caught_up = false;
    while bytes < bytes_max {
        let event = match is_caught_up {
            false => follow.next().await,
            true => tokio::select! {
                event = follow.next() => event,
                () = tokio::time::sleep_until(until) => break,
                () = &mut stopped => break,
            },
        };
        match event.map_err(refused)? {
            Event::Records(block) => {
                if let Some(gap) = follow.gap_of_records() {
                    gaps.put(&gap);
                }
                for one in block.iter() {
                    let (key, value) = (one.record.key, one.record.value);
                    bytes += key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
                    if bytes > bytes_max && !found.is_empty() {
                        break;
                    }
                    found.push(shown_as(&name, &one, as_json)?);
                }
            }
            // The next answer begins with it.
            Event::Gap(_) if !found.is_empty() => break,
            Event::Gap(gap) => gaps.put(&gap),
            Event::CaughtUp if !found.is_empty() => break,
            Event::CaughtUp => is_caught_up = true,
        }
    }
    let content_type = if as_json { JSON } else { BINARY };
    let content_type = [(header::CONTENT_TYPE, content_type)];
    let mut answer = (content_type, Value::from(found).to_string()).into_response();
    if let Some(text) = gaps.text() {
        answer.headers_mut().insert(GAPS, text);
    }
    Ok(answer)
}

/// Offsets that had no record to give, as the header tells them.
#[derive(Default)]
struct Gaps(Vec<String>);

impl Gaps {
    fn put(&mut self, gap: &Gap) {
        let (from, end) = (gap.offsets.start.get(), gap.offsets.end.get());
        let last = end.saturating_sub(1);
        match self.0.len() {
            0..GAPS_MAX => self.0.push(format!("{from}-{last} {}", gap.reason.name())),
            GAPS_MAX => self.0.push("more".to_owned()),
            _ => {}
        }
    }

    fn text(&self) -> Option<HeaderValue> {
        let is_there = !self.0.is_empty();
        let text = is_there.then(|| HeaderValue::try_from(self.0.join(", ")));
        text.map(|text| text.expect("it is ASCII"))
    }
}

fn shown_as(topic: &str, one: &ReplayRecord<'_>, as_json: bool) -> Result<Value, Failure> {
    let offset = one.record.offset;
    let shown = |bytes: Option<&[u8]>| match bytes {
        None => Ok(Value::Null),
        Some(bytes) if as_json => {
            serde_json::from_slice(bytes).map_err(|_| Failure::NoJson { offset })
        }
        Some(bytes) => Ok(BASE64_STANDARD.encode(bytes).into()),
    };
    Ok(json!({
        "topic": topic, "key": shown(one.record.key)?, "value": shown(one.record.value)?, "partition": one.partition.get(),
        "offset": offset.get(),
    }))
}

fn refused(error: ReplayError) -> Failure {
    match error {
        ReplayError::Refused(refusal) => refusal.into(),
        ReplayError::NoPartition { partition } => Failure::UnknownPartition { partition },
    }
}
