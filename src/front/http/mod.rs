//! The HTTP front: liveness, readiness with reasons, metrics and the version.
//! Callers: `serve`. Knows the broker, and the Kafka front's counters as numbers.

mod bounded;
mod errors;
mod metrics;

use std::io;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::broker::Broker;
use crate::front::stats::Stats;

#[derive(Clone)]
struct Front {
    broker: Broker,
    stats: Arc<Stats>,
}

/// Serves HTTP on `listener` until `shutdown` turns true, on so many connections at a time.
pub async fn serve(
    listener: TcpListener,
    connections_max: usize,
    broker: Broker,
    stats: Arc<Stats>,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .fallback(errors::not_found)
        .method_not_allowed_fallback(errors::method_not_allowed)
        .with_state(Front { broker, stats });
    axum::serve(bounded::Bounded::new(listener, connections_max), routes)
        .with_graceful_shutdown(async move {
            // Whoever would tell it being gone is the end too.
            let _ = shutdown.wait_for(|stop| *stop).await;
        })
        .await
}

/// The process answers.
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether records are taken, and if not, or if something is wrong, why.
async fn readyz(State(front): State<Front>) -> Response {
    let health = front.broker.health();
    let mut reasons = Vec::new();
    if health.disk_full {
        reasons.push(json!({ "code": "disk_full", "detail": "the disk is full: appends are refused until there is space, reads go on" }));
    }
    if let Some(failed) = &health.failed {
        reasons.push(json!({ "code": "storage_failed", "detail": failed }));
    }
    let ready = reasons.is_empty();
    for damage in &health.damage {
        reasons.push(json!({
            "code": "damaged", "log": damage.log.map(|log| log.to_string()), "from": damage.range.start.get(),
            "to": damage.range.end.get(), "detail": damage.reason,
        }));
    }
    let answer = Json(json!({ "ready": ready, "reasons": reasons })).into_response();
    if ready {
        answer
    } else {
        errors::unavailable(answer)
    }
}

async fn metrics(State(front): State<Front>) -> Response {
    // Lag in seconds looks at records, which may have to come from the disk.
    let space = front.broker.log_dir().await;
    let text =
        tokio::task::spawn_blocking(move || metrics::text(&front.broker, &front.stats, &space))
            .await;
    let text = match text {
        Ok(text) => text,
        Err(error) => return errors::internal(&error),
    };
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response()
}

async fn version(State(front): State<Front>) -> Json<serde_json::Value> {
    Json(json!({
        "name": "alluvium", "version": env!("CARGO_PKG_VERSION"), "cluster_id": front.broker.cluster_id(),
        "node_id": front.broker.config().node_id, "leader_epoch": front.broker.leader_epoch().get(),
    }))
}
