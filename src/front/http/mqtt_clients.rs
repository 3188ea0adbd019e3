//! MQTT's clients, their sessions, what is retained, and routes over HTTP, at `/api/v1/mqtt`. The page `docs/http-api.md` describes each route.
//!
//! Callers: `http::routes`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::{self, Failure};
use super::request::{At, parsed};
use super::routes::{Operation, Routes};
use super::schema::{Schema, boolean, integer_from, list, number, object, text};
use super::state::Front;
use crate::broker::access::{Door, ResourceKind, Right, right};
use crate::front::Administered;

/// Clients that are listed at most.
const SHOWN_MAX: usize = 10_000;

pub(super) fn routes() -> Routes {
    let of = |id, summary| Operation::new(id, "mqtt", summary).refuses(404, "not_found");
    let all = object([
        ("open", integer_from(0)),
        ("shown", integer_from(0)),
        ("sessions", list(session())),
    ]);
    Routes::new()
        .get(
            "/api/v1/mqtt/sessions",
            list_sessions,
            of("listMqttSessions", "Which MQTT clients are connected")
                .needs(ResourceKind::Cluster, Right::Describe)
                .answers_json(200, "by their ids", all),
        )
        .get(
            "/api/v1/mqtt/sessions/{client_id}",
            show_session,
            of("showMqttSession", "What is kept of a client's session")
                .refuses(404, "unknown_mqtt_session")
                .needs(ResourceKind::Cluster, Right::Describe)
                .path("client_id", text(), "the client's id")
                .query(
                    "user",
                    text(),
                    "whose client; one that shows no user if not given",
                )
                .answers_json(200, "as it is kept", kept_session()),
        )
        .get(
            "/api/v1/mqtt/retained",
            list_retained,
            of("listMqttRetained", "Which MQTT messages are retained")
                .needs(ResourceKind::Cluster, Right::Describe)
                .query("filter", text(), "of which topics; # if not given")
                .query(
                    "behind",
                    text(),
                    "to go on behind this topic, as `next` said",
                )
                .answers_json(
                    200,
                    "by their topics, some at a time",
                    object([
                        ("retained", list(retained())),
                        ("next", text().or_null().about("where there may be more")),
                    ]),
                ),
        )
        .get(
            "/api/v1/mqtt/routes",
            list_routes,
            of("listMqttRoutes", "Which Kafka topics MQTT messages go to")
                .needs(ResourceKind::Cluster, Right::Describe)
                .query("topic", text(), "an MQTT topic: where its messages go")
                .answers_json(
                    200,
                    "in order: the first that matches takes a message",
                    object([
                        ("routes", list(route())),
                        (
                            "takes",
                            routed()
                                .or_null()
                                .about("where `topic` goes, if it is given"),
                        ),
                    ]),
                ),
        )
        .delete(
            "/api/v1/mqtt/sessions/{client_id}",
            end,
            of("endMqttSession", "Ends a client's connection")
                .needs(ResourceKind::Cluster, Right::Alter)
                .path("client_id", text(), "the client's id")
                .answers_json(
                    200,
                    "how many there were, of different users",
                    object([("ended", integer_from(0))]),
                ),
        )
}

fn session() -> Schema {
    object([
        ("client_id", text()),
        ("principal", text()),
        ("address", text()),
        ("version", text()),
        ("connected_seconds", number()),
    ])
}

fn kept_session() -> Schema {
    object([
        ("client_id", text()),
        ("principal", text()),
        ("connected", boolean()),
        ("expiry_seconds", integer_from(0)),
        ("absent_seconds", number().or_null()),
        (
            "will",
            object([("topic", text()), ("delay_seconds", integer_from(0))]).or_null(),
        ),
        (
            "subscriptions",
            list(object([("filter", text()), ("qos", integer_from(0))])),
        ),
        ("unacknowledged", integer_from(0)),
        ("unreleased", integer_from(0)),
    ])
}

fn retained() -> Schema {
    object([
        ("topic", text()),
        ("bytes", integer_from(0)),
        ("age_seconds", number()),
        ("expires_seconds", number().or_null()),
    ])
}

fn route() -> Schema {
    object([
        ("filter", text()),
        ("topic", text()),
        ("key", text()),
        ("partitions", integer_from(1)),
        ("default", boolean()),
    ])
}

fn routed() -> Schema {
    object([
        (
            "route",
            integer_from(1)
                .or_null()
                .about("which one, from 1; null where the MQTT topic names the Kafka topic itself"),
        ),
        ("topic", text()),
        ("key", text().or_null()),
        ("partition", integer_from(0).or_null()),
    ])
}

/// Asks the MQTT front, or says that there is none.
fn ask_mqtt(front: &Front, question: impl FnOnce(&Administered) -> Json<Value>) -> Response {
    match &front.others.mqtt {
        Some(mqtt) => question(mqtt).into_response(),
        None => no_mqtt(),
    }
}

fn no_mqtt() -> Response {
    errors::not_offered("MQTT is not served here (mqtt.listen)")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionQuery {
    user: Option<String>,
}

async fn show_session(
    State(front): State<Arc<Front>>,
    door: Door,
    At(client_id): At<String>,
    query: Result<Query<SessionQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    door.cluster(right::Describe)?;
    let user = parsed(query)?.user;
    let Some(mqtt) = &front.others.mqtt else {
        return Ok(no_mqtt());
    };
    let Some(it) = (mqtt.session)(user.as_deref(), &client_id) else {
        return Err(Failure::NoMqttSession(client_id));
    };
    let subscriptions = it.subscriptions.iter();
    let subscriptions = subscriptions.map(|(filter, qos)| json!({ "filter": filter, "qos": qos }));
    let will = it.will.as_ref();
    let will =
        will.map(|(topic, delay)| json!({ "topic": topic, "delay_seconds": delay.as_secs() }));
    let answer = json!({
        "client_id": client_id, "principal": it.principal, "connected": it.is_connected,
        "expiry_seconds": it.expiry.as_secs(), "absent_seconds": it.absent.map(seconds), "will": will,
        "subscriptions": subscriptions.collect::<Vec<_>>(), "unacknowledged": it.unacknowledged,
        "unreleased": it.unreleased,
    });
    Ok(Json(answer).into_response())
}

fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1e3
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetainedQuery {
    filter: Option<String>,
    behind: Option<String>,
}

async fn list_retained(
    State(front): State<Arc<Front>>,
    door: Door,
    query: Result<Query<RetainedQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    door.cluster(right::Describe)?;
    let RetainedQuery { filter, behind } = parsed(query)?;
    let Some(mqtt) = &front.others.mqtt else {
        return Ok(no_mqtt());
    };
    let filter = filter.as_deref().unwrap_or("#");
    let (all, next) = (mqtt.retained)(filter, behind.as_deref()).map_err(Failure::Query)?;
    let all = all.iter().map(|it| {
        json!({
            "topic": it.topic, "bytes": it.bytes, "age_seconds": seconds(it.age),
            "expires_seconds": it.left.map(seconds),
        })
    });
    let all: Vec<Value> = all.collect();
    Ok(Json(json!({ "retained": all, "next": next })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoutesQuery {
    topic: Option<String>,
}

async fn list_routes(
    State(front): State<Arc<Front>>,
    door: Door,
    query: Result<Query<RoutesQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    door.cluster(right::Describe)?;
    let asked = parsed(query)?.topic;
    let Some(mqtt) = &front.others.mqtt else {
        return Ok(no_mqtt());
    };
    let takes = asked.map(|topic| (mqtt.route)(&topic));
    let takes = takes.transpose().map_err(Failure::Query)?;
    let takes = takes.map(|it| {
        json!({ "route": it.route, "topic": it.topic, "key": it.key, "partition": it.partition })
    });
    let all = (mqtt.routes)();
    let all = all.iter().map(|it| {
        json!({
            "filter": it.filter, "topic": it.topic, "key": it.key, "partitions": it.partitions,
            "default": it.is_default,
        })
    });
    let all: Vec<Value> = all.collect();
    Ok(Json(json!({ "routes": all, "takes": takes })).into_response())
}

async fn list_sessions(State(front): State<Arc<Front>>, door: Door) -> Result<Response, Failure> {
    door.cluster(right::Describe)?;
    Ok(ask_mqtt(&front, |mqtt| {
        let (open, shown) = (mqtt.clients)(SHOWN_MAX);
        let shown = shown.iter().map(|it| {
            json!({
                "client_id": it.client_id, "principal": it.principal, "address": it.address, "version": it.version,
                "connected_seconds": seconds(it.age),
            })
        });
        let shown: Vec<Value> = shown.collect();
        Json(json!({ "open": open, "shown": shown.len(), "sessions": shown }))
    }))
}

async fn end(
    State(front): State<Arc<Front>>,
    door: Door,
    At(client_id): At<String>,
) -> Result<Response, Failure> {
    door.cluster(right::Alter)?;
    Ok(ask_mqtt(&front, |mqtt| {
        Json(json!({ "ended": (mqtt.end)(&client_id) }))
    }))
}
