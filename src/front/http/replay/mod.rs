//! A range of a topic as a table: `GET /api/v1/topics/{topic}/replay` and `…/schema`. The pages `docs/http-api.md` and
//! `docs/columns.md` describe them.
//!
//! Callers: `http::routes`. Invariants: an answer holds a batch of rows and what is made of two others, however long the range is, and
//! reads on only as its reader takes it; what breaks off is never ended as if it were whole: the connection is closed instead. So many replays run at a time as there
//! are places.

mod asked;
mod downsampled;
mod frames;
mod look;
mod pump;
mod schema;

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use columnar::Format;

use super::errors::Failure;
use super::pages::{DOWNSAMPLED_MAX, REPLAYS_MAX};
use super::request::{id_of, parsed};
use super::routes::{Operation, Routes};
use super::schema::{boolean, bytes, integer_from, one_of, text};
use super::state::Front;
use crate::broker::access::{Door, ResourceKind, Right, right};
use asked::{Asks, ReplayQuery};
pub(super) use look::newest_schema;

const REPLAY: &str = "/api/v1/topics/{topic}/replay";
const SCHEMA: &str = "/api/v1/topics/{topic}/schema";
pub(super) fn routes() -> Routes {
    let of = |id, summary| {
        Operation::new(id, "records", summary)
            .needs(ResourceKind::Topic, Right::Read)
            .path("topic", text(), "the topic's name")
    };
    let formats = Format::ALL.map(Format::name);
    let types = Format::ALL.map(|format| (format.content_type(), bytes()));
    let replay = of("replayTopic", "A range of a topic as a table")
        .details(
            "Rows come partition by partition, or merged by time, and only as fast as the reader takes them. from is inclusive, to \
             exclusive; times are exact by the records' own timestamps. An answer that breaks off ends without the end of its body. \
             How much was looked at, and where to go on, stands in trailers, and for format=ndjson with summary=true in a last line.",
        )
        .query("format", one_of(&formats), "how rows are written; ndjson if it is not said")
        .query("from", text(), "where to begin, inclusive: an offset, earliest, -10m, a date, a time")
        .query("to", text(), "where to stop, exclusive; the end at the request if it is not said")
        .query("resume", text(), "partition:offset, with commas between them: the Next-Offset of an earlier answer; before from")
        .query("partition", text(), "these partitions alone, with commas between them")
        .query("key", text(), "records with this key alone")
        .query("key_prefix", text(), "records whose key begins so alone")
        .query("where", text(), "a condition on fields of JSON values, as temp > 20 and site = 'north'")
        .query("columns", text(), "these columns alone, in this order, with commas between them")
        .query("order", one_of(&["offset", "time"]), "the order of rows; offset if it is not said")
        .query("max_records", integer_from(0), "no more rows than these")
        .query("resolution", text(), "a row for each key and window of so much time, as 1m: what thinning has summed up and what is kept as records, together")
        .query("values", text(), "with resolution: of which values, as temp, json/pos/lat, csv3 or f32@4, with commas between them")
        .query("summary", boolean(), "format=ndjson: a last line that says what was looked at and where to go on")
        .answers(200, "the rows", types.to_vec())
        .refuses(400, "invalid_query, invalid_condition, unknown_column")
        .refuses(413, "too_many_windows")
        .refuses(404, "unknown_topic, unknown_partition")
        .refuses(503, "too_many_replays, cleanup_at_work");
    let schema = of("getSchema", "The columns of a topic")
        .details("Columns are inferred from JSON values as somebody reads them; this looks at the newest records first.")
        .query("version", integer_from(0), "as it was at this version")
        .answers_json(200, "the schema", schema::described())
        .refuses(404, "unknown_topic, unknown_schema_version");
    Routes::new()
        .get(REPLAY, replay_topic, replay)
        .get(SCHEMA, schema::topic_schema, schema)
}

async fn replay_topic(
    State(front): State<Arc<Front>>,
    door: Door,
    topic: Result<Path<String>, PathRejection>,
    query: Result<Query<ReplayQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let topic = id_of(topic).map_err(Failure::Query)?;
    let query = parsed(query)?;
    let topic = door.topic(&topic, right::Read)?;
    let asked = query.read(door.broker().now())?;
    let place = front.replays.clone().try_acquire_owned();
    let place = place.map_err(|_| Failure::TooManyReplays {
        replays_max: REPLAYS_MAX,
    })?;
    let asked = match asked {
        Asks::Records(asked) => asked,
        Asks::Windows(asked) => {
            let own = front.downsampled.clone().try_acquire_owned();
            let own = own.map_err(|_| Failure::TooManyReplays {
                replays_max: DOWNSAMPLED_MAX,
            })?;
            return downsampled::answer(&door, topic, asked, [place, own]).await;
        }
    };
    pump::answer(&door, topic, asked, place).await
}
