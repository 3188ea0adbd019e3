//! The HTTP front: liveness, readiness with reasons, metrics, who is connected, the version, and cleanup that is asked for.
//! Callers: `serve`. Knows the broker; what other fronts count comes as functions that add metrics.
//! Invariants: connections are bounded, and whoever comes when all places are taken is let in: what is silent, idle or late
//! goes. Few long pages, as of metrics, are made or sent at a time (`pages`), so that many who ask for them hold no more memory.

mod cleanup;
mod connection;
mod errors;
mod holds;
mod losses;
mod metrics;
mod pages;
mod request;
mod settings;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::broker::Damage;
use crate::broker::access::right;
use crate::descriptors::Ask;
use crate::front::listener::{Accepted, Listener};
use pages::{in_pieces, on_own_thread, place_for};
pub use settings::{SETTINGS, Settings};
pub use state::{AddMetrics, Front, Others};

/// How long a page of metrics waits for what has to come from the disk.
const DISK_WAIT: Duration = Duration::from_secs(1);
/// Connections that `/connections` lists at most.
const PEERS_SHOWN_MAX: usize = 1_000;
/// How long connections may take to finish what they were doing at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// Connections that ask for health and metrics.
const CONNECTIONS_MAX: usize = 256;

/// What this front asks for of the descriptors.
pub fn descriptors() -> Ask {
    Ask {
        connections: CONNECTIONS_MAX,
        weight: 1,
    }
}

impl Front {
    /// Serves HTTP on `socket` until `shutdown` turns true, then lets connections finish their requests and returns.
    pub async fn serve(self: Arc<Front>, socket: TcpListener, shutdown: watch::Receiver<bool>) {
        let listener = Listener {
            front: "http",
            socket,
            places: self.places.clone(),
            drain: DRAIN,
        };
        let idle_max = self.shared.idle_max;
        let routes = routes(self);
        let stop = shutdown.clone();
        let handle = move |accepted: Accepted| {
            connection::run(accepted, routes.clone(), idle_max, stop.clone())
        };
        listener.serve(shutdown, handle).await;
    }
}

/// What is served, and what it is for.
const ROUTES: [(&str, &str); 8] = [
    ("/healthz", "200 while the process answers"),
    (
        "/readyz",
        "200 while records are taken, 503 otherwise, with reasons",
    ),
    ("/metrics", "metrics in Prometheus's text format"),
    ("/version", "what runs"),
    ("/connections", "who is connected to the Kafka port"),
    (
        cleanup::JOBS,
        "cleanups that were asked for; plans of them are beside it, at /api/v1/cleanup/plan",
    ),
    (holds::HOLDS, "what cleanup must not remove"),
    (
        losses::LOSSES,
        "what consumer groups had not read when it was removed or damaged",
    ),
];

fn routes(front: Arc<Front>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/connections", get(connections))
        .merge(cleanup::routes())
        .merge(holds::routes())
        .merge(losses::routes())
        .fallback(errors::not_found)
        .method_not_allowed_fallback(errors::method_not_allowed)
        .with_state(front)
}

/// The paths that there are.
async fn index() -> Json<serde_json::Value> {
    let paths: serde_json::Map<_, _> = ROUTES
        .into_iter()
        .map(|(path, about)| (path.to_owned(), about.into()))
        .collect();
    Json(json!({ "name": "alluvium", "version": env!("CARGO_PKG_VERSION"), "paths": paths }))
}

/// The process answers.
async fn healthz() -> &'static str {
    "ok\n"
}

fn place_of(damage: &Damage) -> serde_json::Value {
    json!({
        "code": "damaged", "log": damage.log.map(|log| log.to_string()), "from": damage.range.start.get(),
        "to": damage.range.end.get(), "detail": damage.reason,
    })
}

/// Whether records are taken, and if not, or if something is wrong, why.
async fn readyz(State(front): State<Arc<Front>>) -> Response {
    let health = front.broker.health();
    let mut reasons = Vec::new();
    if health.disk_full {
        reasons.push(json!({ "code": "disk_full", "detail": "the disk is full: appends are refused until there is space, reads go on" }));
    }
    if let Some(waited) = health.stalled {
        let seconds = waited.as_secs();
        reasons.push(json!({ "code": "disk_stalled", "detail": format!("the disk does not answer: an append has waited for {seconds} s; reads go on, nothing is lost") }));
    }
    if let Some(failed) = &health.failed {
        reasons.push(json!({ "code": "storage_failed", "detail": failed }));
    }
    let ready = reasons.is_empty();
    for damage in &health.damage {
        reasons.push(place_of(damage));
    }
    for one in &health.uncleanable {
        reasons.push(json!({
            "code": "cleanup_set_aside", "log": one.log.to_string(), "from": one.segment.base.get(), "detail": &*one.reason,
        }));
    }
    let acknowledged: Vec<_> = health.damage_acknowledged.iter().map(place_of).collect();
    let losses = front.broker.loss_totals();
    let losses = json!({ "entries": losses.entries, "records": losses.records, "newest_ms": losses.newest_ms });
    let answer = json!({ "ready": ready, "reasons": reasons, "acknowledged": acknowledged, "losses": losses });
    let answer = Json(answer).into_response();
    if ready {
        answer
    } else {
        errors::unavailable(answer)
    }
}

async fn metrics(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    let cluster = match front.door(peer, &headers).cluster(right::Describe) {
        Ok(cluster) => cluster,
        Err(refusal) => return errors::refused(&refusal),
    };
    let page = place_for(&front.metrics_pages).await;
    // What has to come from the disk is left out of a page that would have to wait for it.
    let series_max = front.settings.metrics_series_max;
    let (space, ()) = tokio::join!(
        tokio::time::timeout(DISK_WAIT, front.broker.log_dir(&cluster)),
        front
            .broker
            .look_up_lag_times(&cluster, series_max, DISK_WAIT),
    );
    let work = move || front.page(&cluster, space.ok().as_ref());
    match on_own_thread("metrics-page", work).await {
        Ok(text) => in_pieces(text, "text/plain; version=0.0.4; charset=utf-8", page),
        Err(error) => errors::internal(&error),
    }
}

/// Who is connected to the Kafka port, busiest first.
async fn connections(State(front): State<Arc<Front>>) -> Json<serde_json::Value> {
    let peers = &front.others.peers;
    let seconds = |time: Duration| time.as_millis() as f64 / 1e3;
    let shown: Vec<_> = peers
        .busiest(PEERS_SHOWN_MAX)
        .into_iter()
        .map(|peer| {
            json!({
                "client_id": peer.client_id, "address": peer.address.to_string(),
                "open_seconds": seconds(peer.age), "idle_seconds": seconds(peer.idle), "requests": peer.requests,
                "received_bytes": peer.total.received, "sent_bytes": peer.total.sent,
                "received_bytes_per_second": peer.rate.received, "sent_bytes_per_second": peer.rate.sent,
            })
        })
        .collect();
    Json(json!({ "open": peers.count(), "shown": shown.len(), "connections": shown }))
}

/// What runs.
async fn version(State(front): State<Arc<Front>>) -> Json<serde_json::Value> {
    let broker = &front.broker;
    let mut version = json!({
        "name": "alluvium", "version": env!("CARGO_PKG_VERSION"), "cluster_id": broker.cluster_id(),
        "node_id": broker.config().node_id, "leader_epoch": broker.leader_epoch().get(),
    });
    if let Some(commit) = front.others.commit {
        version["commit"] = commit.into();
    }
    Json(version)
}
