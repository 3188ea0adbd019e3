//! The HTTP front: liveness, readiness with reasons, metrics, who is connected, the version, and cleanup that is asked for.
//! Callers: `serve`. Knows the broker; what other fronts count comes as functions that add metrics.
//! Invariants: connections are bounded, and whoever comes when all places are taken is let in: what is silent, idle or late
//! goes. `PAGES_MAX` long pages, as of metrics, are made or sent at a time, so that many who ask for them hold no more memory.

mod cleanup;
mod connection;
mod errors;
mod metrics;
mod settings;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::broker::access::{Caller, Door, Principal, Protocol, right};
use crate::broker::{Broker, Damage};
use crate::descriptors::Ask;
use crate::front::listener::{Accepted, Listener};
use crate::front::peers::Peers;
use crate::front::places::{Patience, Places};
use crate::front::{self, Limits};
use crate::metrics::Families;
pub use settings::{SETTINGS, Settings};

/// How long connections stay while others wait for a place. An answer takes milliseconds; a page of metrics, seconds.
const PATIENCE: Patience = Patience {
    silent: Duration::from_secs(1),
    idle: Duration::from_secs(1),
    busy: Some(Duration::from_secs(5)),
};
/// Long pages, of metrics and of plans, that are made, or not taken by their readers yet: of each kind.
const PAGES_MAX: usize = 4;
/// How long a page of metrics waits for what has to come from the disk.
const DISK_WAIT: Duration = Duration::from_secs(1);
/// Connections that `/connections` lists at most.
const PEERS_SHOWN_MAX: usize = 1_000;
/// A page is handed to the connection in pieces of this size.
const PIECE_BYTES: usize = 64 * 1024;
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

/// What a part of the server adds to the page of metrics.
pub type AddMetrics = Box<dyn Fn(&mut Families<'_>) + Send + Sync>;

/// What is shown of others.
pub struct Others {
    /// Who is connected to the Kafka port.
    pub peers: Arc<Peers>,
    /// The metrics of other fronts.
    pub add_metrics: Vec<AddMetrics>,
    /// The commit that the process was built from, if that is known.
    pub commit: Option<&'static str>,
}

/// What all connections share.
pub struct Front {
    broker: Broker,
    shared: front::Settings,
    settings: Settings,
    places: Arc<Places>,
    others: Others,
    metrics_pages: Arc<Semaphore>,
    plan_pages: Arc<Semaphore>,
}

impl Front {
    /// A front of this broker, which serves nobody yet: so many connections at a time.
    pub fn new(
        broker: Broker,
        shared: front::Settings,
        settings: Settings,
        connections_max: usize,
        others: Others,
    ) -> Arc<Front> {
        let limits = Limits {
            connections_max,
            per_address_max: usize::MAX,
        };
        Arc::new(Front {
            broker,
            shared,
            settings,
            places: Places::new(limits, PATIENCE),
            others,
            metrics_pages: Arc::new(Semaphore::new(PAGES_MAX)),
            plan_pages: Arc::new(Semaphore::new(PAGES_MAX)),
        })
    }

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

    /// The broker as who sends this request may use it.
    fn door(&self, peer: SocketAddr, headers: &HeaderMap) -> Door {
        let agent = headers.get(header::USER_AGENT);
        self.broker.door(Caller {
            principal: Principal::Anonymous,
            address: peer,
            client_id: agent.and_then(|agent| Some(agent.to_str().ok()?.to_owned())),
            protocol: Protocol::Http,
        })
    }
}

/// What is served, and what it is for.
const ROUTES: [(&str, &str); 6] = [
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
    let acknowledged: Vec<_> = health.damage_acknowledged.iter().map(place_of).collect();
    let answer = json!({ "ready": ready, "reasons": reasons, "acknowledged": acknowledged });
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

/// Waits for one of the places of long pages.
async fn place_for(pages: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let page = pages.clone().acquire_owned().await;
    page.expect("the semaphore is never closed")
}

/// A long page, which keeps its place until the last piece of it is taken.
fn in_pieces(text: String, content_type: &'static str, page: OwnedSemaphorePermit) -> Response {
    let length = text.len();
    let pieces =
        futures_util::stream::unfold((Bytes::from(text), page), |(mut rest, page)| async move {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES));
            (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), (rest, page)))
        });
    let headers = [
        (header::CONTENT_TYPE, content_type.to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

/// Runs `work` on a thread of its own: those of the runtime that may block may all be waiting for the disk.
async fn on_own_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Whoever asked may have gone.
            let _ = done.send(work());
        })?;
    result.await.map_err(io::Error::other)
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
