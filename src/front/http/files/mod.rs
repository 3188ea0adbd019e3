//! Sealed ranges of a topic as Parquet files: `GET /api/v1/topics/{topic}/files` and `…/files/{name}`. The page `docs/http-api.md`
//! describes them.
//!
//! Callers: `http::routes`. A file's name says all that it is made of, so that it is the same bytes whenever it is made; what it was
//! made of may go (retention, compaction, an erasure), and then the name is not known any more, and nothing of it stays on the disk
//! for longer than `TIDY_EVERY` (`store.rs`).

mod cache;
mod make;
mod name;
mod send;
pub(super) mod store;

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use columnar::Format;
use serde_json::{Value, json};

use super::errors::Failure;
use super::replay::newest_schema;
use super::request::id_of;
use super::routes::{Operation, Routes};
use super::schema::{boolean, bytes, integer, integer_from, list, object, text};
use super::state::Front;
use crate::broker::access::{Door, ResourceKind, Right, right};
use name::FileName;

const FILES: &str = "/api/v1/topics/{topic}/files";
const FILE: &str = "/api/v1/topics/{topic}/files/{name}";
/// Files that an answer lists.
const LISTED_MAX: usize = 10_000;
pub(super) fn routes() -> Routes {
    let of = |id, summary| {
        Operation::new(id, "records", summary)
            .needs(ResourceKind::Topic, Right::Read)
            .path("topic", text(), "the topic's name")
    };
    let file = object([
        ("name", text()),
        ("url", text()),
        ("partition", integer_from(0)),
        ("from_offset", integer_from(0)),
        ("to_offset", integer_from(0)),
        ("max_timestamp_ms", integer()),
        ("bytes", integer_from(0).or_null()),
    ]);
    let listing = object([
        ("topic", text()),
        ("schema_version", integer_from(0)),
        ("files", list(file)),
        ("truncated", boolean()),
    ]);
    let list_about = of("listFiles", "Parquet files of what is sealed")
        .details("A file is made when it is first asked for; its bytes never change. What is in no sealed segment yet is in none.")
        .answers_json(200, "the files", listing)
        .refuses(404, "unknown_topic");
    let parquet = vec![(Format::Parquet.content_type(), bytes())];
    let file_about = of("getFile", "A Parquet file")
        .path("name", text(), "the file's name, as the list has it")
        .header(
            "Range",
            text(),
            "a part of it; several parts are answered by all of it",
        )
        .header("If-Range", text(), "the ETag by which the range counts")
        .header("If-None-Match", text(), "ETags that the reader has")
        .answers(200, "the file", parquet.clone())
        .answers(206, "a part of it", parquet)
        .answers(304, "the reader has it", Vec::new())
        .refuses(404, "unknown_topic, unknown_file, files_disabled")
        .refuses(416, "range_not_satisfiable");
    Routes::new()
        .get(FILES, list_files, list_about)
        .get(FILE, file_of, file_about)
}

async fn list_files(
    State(front): State<Arc<Front>>,
    door: Door,
    topic: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Failure> {
    let topic = id_of(topic).map_err(Failure::Query)?;
    let topic = door.topic(&topic, right::Read)?;
    let broker = door.broker();
    let version = newest_schema(broker, &topic).await?.version;
    let (mut files, mut truncated) = (Vec::new(), false);
    for partition in topic.partitions() {
        for range in broker.sealed_ranges(&topic, partition)? {
            if files.len() == LISTED_MAX {
                truncated = true;
                break;
            }
            let name = FileName::of(&range, version);
            let text = name.to_string();
            files.push(json!({
                "url": FILE.replace("{topic}", topic.name.as_str()).replace("{name}", &text),
                "partition": range.partition.get(), "from_offset": range.offsets.start.get(),
                "to_offset": range.offsets.end.get(), "max_timestamp_ms": range.max_timestamp.millis(),
                "bytes": front.files.cache.bytes_of(topic.name.as_str(), &name), "name": text,
            }));
        }
    }
    let topic = topic.name.as_str();
    Ok(Json(json!({
        "topic": topic, "schema_version": version, "files": files, "truncated": truncated,
    })))
}

async fn file_of(
    State(front): State<Arc<Front>>,
    door: Door,
    method: Method,
    headers: HeaderMap,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Failure> {
    let Path((topic, name)) = path.map_err(|rejection| Failure::Query(rejection.body_text()))?;
    let topic = door.topic(&topic, right::Read)?;
    let broker = door.broker();
    let unknown = || Failure::NoFile(name.clone());
    let wanted = FileName::parse(&name).ok_or_else(unknown)?;
    if !front.files.cache.is_enabled() {
        return Err(Failure::FilesDisabled);
    }
    let Some(range) = wanted.range(broker, &topic) else {
        front.files.cache.remove(topic.name.as_str(), &wanted);
        return Err(unknown());
    };
    let schema = broker.schema(&topic);
    let schema = schema.at(wanted.schema_version).ok_or_else(unknown)?;
    let cache = &front.files.cache;
    let file = match cache.get(topic.name.as_str(), &wanted) {
        Some(file) => file,
        None => {
            // One is made at a time; whoever waited may find it made.
            let _making = cache.making().await;
            match cache.get(topic.name.as_str(), &wanted) {
                Some(file) => file,
                None => make::make(cache, broker, &topic, &wanted, &range, schema).await?,
            }
        }
    };
    // What it is made of may have gone meanwhile.
    if wanted.range(broker, &topic).as_ref() != Some(&range) {
        cache.remove(topic.name.as_str(), &wanted);
        return Err(unknown());
    }
    send::answer(file, &method, &headers)
}
