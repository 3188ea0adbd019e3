//! MQTT's connected clients over HTTP, at `/api/v1/mqtt`. The page `docs/http-api.md` describes each route.
//!
//! Callers: `http::routes`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::errors::{self, Failure};
use super::request::At;
use super::routes::{Operation, Routes};
use super::schema::{Schema, integer_from, list, number, object, text};
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

/// Asks the MQTT front, or says that there is none.
fn ask_mqtt(front: &Front, question: impl FnOnce(&Administered) -> Json<Value>) -> Response {
    match &front.others.mqtt {
        Some(mqtt) => question(mqtt).into_response(),
        None => errors::not_offered("MQTT is not served here (mqtt.listen)"),
    }
}

async fn list_sessions(State(front): State<Arc<Front>>, door: Door) -> Result<Response, Failure> {
    door.cluster(right::Describe)?;
    Ok(ask_mqtt(&front, |mqtt| {
        let (open, shown) = (mqtt.clients)(SHOWN_MAX);
        let shown = shown.iter().map(|it| {
            json!({
                "client_id": it.client_id, "principal": it.principal, "address": it.address, "version": it.version,
                "connected_seconds": it.age.as_millis() as f64 / 1e3,
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
