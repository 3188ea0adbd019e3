//! `GET /api/v1/topics/{topic}/follow`: records as they come. The page `docs/http-api.md` describes it.
//!
//! Callers: `http::routes`. How many follow at a time is bounded where all requests pass; each of them has a cursor in the log, and
//! no thread. Invariant: each event and each answer says where it ends, so that a reader that comes again there is given all that
//! follows, and nothing twice.

mod follower;
mod poll;
mod position;
mod request;
mod stream;

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::errors::Failure;
use super::request::{At, parsed};
use super::routes::{Operation, Routes};
use super::schema::{integer_from, number, one_of, text};
use crate::broker::access::{Door, ResourceKind, Right, right};
use follower::Follower;
use request::{Asked, FollowQuery, Form};
use stream::Events;

const PATH: &str = "/api/v1/topics/{topic}/follow";
/// Where to go on.
const NEXT_OFFSET: &str = "next-offset";
/// Whether all that was there was given.
const CAUGHT_UP: &str = "caught-up";
/// Longest time of a long poll, as the description tells it.
const ABOUT_WAIT: &str = "format=ndjson: how long to wait for the first record where there is none, 10s if it is not said, 60s at most";

pub(super) fn routes() -> Routes {
    let about = Operation::new("followTopic", "records", "Records as they come")
        .details(
            "Server-sent events go on until the reader leaves: each record is an event whose id is where to go on behind it, so \
             that a client that connects again with Last-Event-ID misses nothing and gets nothing twice. Events named gap tell of \
             offsets that had no records to give any more, caught-up that all that is there was given, end why nothing more comes. \
             Lines of JSON (format=ndjson) answer as soon as there is a record. The header Next-Offset is the position for the \
             next request, and Caught-Up tells whether all that was there was given (true), or more may be there (false).",
        )
        .needs(ResourceKind::Topic, Right::Read)
        .path("topic", text(), "the topic's name")
        .query("format", one_of(&["sse", "ndjson"]), "how; without it as the header Accept says, or sse")
        .query("from", text(), "where to begin: an offset, earliest, latest (the default), -10m, a date, a time; a time bounds \
             the timestamps of what is there already")
        .query("position", text(), "where to go on: the header Next-Offset of an answer, or the id of an event; before from")
        .query("partition", text(), "these partitions alone, with commas between them")
        .query("key", text(), "records with this key alone")
        .query("key_prefix", text(), "records whose key begins so alone")
        .query("max_records", integer_from(0), "the end, after so many records; 1000 for format=ndjson")
        .query("wait", text(), ABOUT_WAIT)
        .query("speed", number(), "format=sse: so many times as fast as the records came, by their own timestamps")
        .query("pause_max", text(), "with speed: no pause is longer; 60s if it is not said")
        .header("Last-Event-ID", text(), "where to go on, as clients of server-sent events say by themselves; before position")
        .answers(
            200,
            "records, as they come",
            vec![("text/event-stream", text()), ("application/x-ndjson", text())],
        )
        .refuses(404, "unknown_topic, unknown_partition")
        .refuses(503, "overloaded")
        .follows();
    Routes::new().get(PATH, follow_topic, about)
}

async fn follow_topic(
    door: Door,
    At(topic): At<String>,
    headers: HeaderMap,
    query: Result<Query<FollowQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let query = parsed(query)?;
    let topic = door.topic(&topic, right::Read)?;
    let tag = position::tag_of(topic.id);
    let broker = door.broker();
    let Asked {
        form,
        request,
        max_records,
        is_recreated,
    } = query.read(&headers, &tag, &topic, broker.now())?;
    let mut subscription = broker.follow(&topic, request)?;
    subscription.open_as(door.caller());
    let name = topic.name.as_str().to_owned();
    let mut follower = Follower::new(name, tag, subscription, max_records);
    match form {
        Form::Events { pace } => {
            let events = Events::new(follower, pace, is_recreated);
            let pieces = futures_util::stream::unfold(events, |mut events| async move {
                let piece = events.piece().await?;
                Some((Ok::<_, Infallible>(piece), events))
            });
            let headers = [
                (header::CONTENT_TYPE.as_str(), "text/event-stream"),
                // Proxies that hold answers back until they are whole would hold this one for ever.
                ("x-accel-buffering", "no"),
            ];
            Ok((headers, Body::from_stream(pieces)).into_response())
        }
        Form::Lines { wait } => {
            let lines = poll::lines(&mut follower, wait, is_recreated).await?;
            let headers = [
                (
                    header::CONTENT_TYPE.as_str(),
                    "application/x-ndjson".to_owned(),
                ),
                (NEXT_OFFSET, lines.position),
                (CAUGHT_UP, lines.is_caught_up.to_string()),
            ];
            Ok((headers, lines.body).into_response())
        }
    }
}

/// Where a follower was, as its next event would say it if nothing came; for [`super::foreign`].
pub(super) fn read_foreign(headers: &HeaderMap) -> Option<String> {
    let (tag, places) = position::parse(request::position_in(headers)?).ok()?;
    let mut text = String::new();
    position::put(&mut text, &tag, &places);
    Some(text)
}
