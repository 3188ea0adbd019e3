//! The HTTP front: liveness, readiness with reasons, metrics, who is connected, the version, and cleanup that is asked for.
//! Callers: `serve`. Knows the broker; what other fronts count comes as functions that add metrics.
//! Invariants: connections are bounded, and whoever comes when all places are taken is let in: what is silent, idle or late
//! goes. Few long pages, as of metrics, are made or sent at a time (`pages`), so that many who ask for them hold no more memory.

#[cfg(test)]
mod access_tests;
mod acls;
mod amqp_path;
mod api;
mod cleanup;
mod connection;
mod ended;
mod erasures;
mod errors;
mod files;
mod follow;
pub mod foreign;
mod guard;
mod health;
mod holds;
mod login;
mod losses;
mod metrics;
mod middleware;
mod mqtt_clients;
mod openapi;
mod operation;
mod pages;
mod produce;
mod proxy;
mod queues;
mod quota;
mod replay;
mod request;
#[cfg(test)]
mod rights_tests;
mod routes;
mod schema;
mod settings;
mod state;
mod table;
mod traffic;
mod users;
mod web_socket;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::json;
use tokio::sync::watch;

use crate::broker::Broker;
use crate::broker::access::{Door, Resource, ResourceKind, Right, right};
use crate::descriptors::Ask;
use crate::front;
use crate::front::listener::{Accepted, Listener, Socket};
use connection::OfConnection;
use errors::Failure;
use openapi::Document;
use operation::Described;
use pages::{in_pieces, on_own_thread, place_for};
use routes::{Operation, Routes};
use schema::{boolean, integer, integer_from, list, object, text};
pub use settings::{SETTINGS, Settings};
pub use state::{AddMetrics, Bounds, Front, Others};
use table::Table;

/// How long a page of metrics waits for what has to come from the disk.
const DISK_WAIT: Duration = Duration::from_secs(1);
/// Connections that `/connections` lists at most.
const PEERS_SHOWN_MAX: usize = 1_000;
/// How long connections may take to finish what they were doing at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// What this front asks for of the descriptors.
pub fn descriptors(settings: &Settings) -> Ask {
    Ask {
        connections: settings.connections_max,
        weight: 1,
    }
}

/// A front of this broker, which serves nobody yet: so many connections at a time, on this address.
pub fn front(
    broker: Broker,
    shared: front::Settings,
    settings: Settings,
    bounds: Bounds,
    others: Others,
) -> Arc<Front> {
    let (_, described) = all_routes().into_parts();
    Front::new(
        broker,
        shared,
        settings,
        bounds,
        others,
        Table::of(&described),
    )
}

impl Front {
    /// Serves HTTP on `sockets` until `shutdown` turns true, then lets connections finish their requests and returns.
    pub async fn serve(self: Arc<Front>, sockets: Vec<Socket>, shutdown: watch::Receiver<bool>) {
        let listener = Listener {
            front: "http",
            sockets,
            places: self.places.clone(),
            drain: DRAIN,
        };
        let idle_max = self.shared.idle_max;
        let front = self.clone();
        let routes = routes(self);
        let stop = shutdown.clone();
        let handle = move |accepted: Accepted| {
            connection::run(accepted, routes.clone(), idle_max, stop.clone())
        };
        tokio::select! {
            () = listener.serve(shutdown, handle) => {}
            () = front.files.tidy(&front.broker) => {}
        }
    }
}

/// Everything that is served.
fn all_routes() -> Routes {
    server_routes()
        .merge(openapi::routes())
        .merge(api::routes())
        .merge(proxy::routes())
        .merge(cleanup::routes())
        .merge(acls::routes())
        .merge(users::routes())
        .merge(holds::routes())
        .merge(losses::routes())
        .merge(replay::routes())
        .merge(files::routes())
        .merge(produce::routes())
        .merge(follow::routes())
        .merge(erasures::routes())
        .merge(web_socket::routes())
        .merge(mqtt_clients::routes())
        .merge(queues::routes())
}

fn routes(front: Arc<Front>) -> Router {
    let (router, described) = all_routes().into_parts();
    let document = Document(Bytes::from(openapi::of(&described).to_string()));
    let paths = Paths::of(&described);
    router
        .fallback(errors::not_found)
        .method_not_allowed_fallback(errors::method_not_allowed)
        .layer(from_fn_with_state(front.clone(), middleware::handle))
        .layer(Extension(document))
        .layer(Extension(Arc::new(paths)))
        .with_state(front)
}

/// What is served beside the API: what machines that watch a server ask for.
fn server_routes() -> Routes {
    let of = |id, summary| Operation::new(id, "server", summary).for_everybody();
    let plain = || vec![("text/plain", text())];
    let any = || schema::map(schema::anything());
    let ready = || {
        object([
            ("ready", boolean()),
            ("reasons", list(object([("code", text())]))),
            ("acknowledged", list(object([("code", text())]))),
            (
                "losses",
                object([("entries", integer_from(0)), ("records", integer_from(0))]),
            ),
        ])
    };
    let version = object([
        ("name", text()),
        ("version", text()),
        ("cluster_id", text()),
        ("node_id", integer()),
        ("leader_epoch", integer()),
    ]);
    Routes::new()
        .get(
            "/",
            index,
            of("index", "The paths that there are").answers_json(200, "paths", any()),
        )
        .get(
            "/healthz",
            healthz,
            of("healthz", "200 while the process answers").answers(200, "it answers", plain()),
        )
        .get(
            "/readyz",
            readyz,
            of(
                "readyz",
                "200 while records are taken, 503 otherwise, with reasons",
            )
            .answers_json(200, "records are taken", ready())
            .answers_json(503, "records are not taken", ready()),
        )
        .get(
            "/metrics",
            metrics,
            of("metrics", "Metrics in Prometheus's text format")
                .needs(ResourceKind::Cluster, Right::Describe)
                .answers(200, "metrics", plain()),
        )
        .get(
            "/version",
            version_page,
            of("version", "What runs").answers_json(200, "what runs", version),
        )
        .get(
            "/connections",
            connections,
            Operation::new(
                "connections",
                "server",
                "Who is connected to the Kafka port",
            )
            .needs(ResourceKind::Cluster, Right::Describe)
            .answers_json(
                200,
                "the busiest first",
                object([
                    ("open", integer_from(0)),
                    ("shown", integer_from(0)),
                    ("connections", list(any())),
                ]),
            ),
        )
}

/// Paths with what they are for, as the index shows them.
struct Paths(serde_json::Map<String, serde_json::Value>);

impl Paths {
    fn of(described: &[Described]) -> Paths {
        let mut paths = serde_json::Map::new();
        for one in described {
            let said = match (one.method == Method::GET, one.about.summary) {
                (true, summary) => summary.to_owned(),
                (false, summary) => format!("{} {summary}", one.method),
            };
            match paths
                .get_mut(one.path)
                .and_then(|said| said.as_str().map(str::to_owned))
            {
                Some(before) => paths[one.path] = format!("{before}; {said}").into(),
                None => drop(paths.insert(one.path.to_owned(), said.into())),
            }
        }
        Paths(paths)
    }
}

/// The paths that there are.
async fn index(Extension(paths): Extension<Arc<Paths>>) -> Json<serde_json::Value> {
    Json(json!({ "name": "alluvium", "version": env!("CARGO_PKG_VERSION"), "paths": paths.0 }))
}

/// The process answers.
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether records are taken, and if not, or if something is wrong, why: in full to who may describe the cluster.
async fn readyz(
    State(front): State<Arc<Front>>,
    connection: Option<Extension<OfConnection>>,
    door: Door,
) -> Response {
    let is_stopping = connection.is_some_and(|connection| connection.is_stopping());
    let health = front.broker.health();
    let (is_ready, mut reasons) = health::reasons(&health);
    if is_stopping {
        reasons.insert(
            0,
            json!({ "code": "stopping", "detail": "the server stops" }),
        );
    }
    let ready = is_ready && !is_stopping;
    let acknowledged = health.damage_acknowledged.iter().map(health::place_of);
    let mut acknowledged: Vec<_> = acknowledged.collect();
    if !door.may(Resource::Cluster, Right::Describe) {
        // They name topics, and places on the disk.
        health::keep_codes(&mut reasons);
        health::keep_codes(&mut acknowledged);
    }
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

async fn metrics(State(front): State<Arc<Front>>, door: Door) -> Response {
    let cluster = match door.cluster(right::Describe) {
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
async fn connections(
    State(front): State<Arc<Front>>,
    door: Door,
) -> Result<Json<serde_json::Value>, Failure> {
    door.cluster(right::Describe)?;
    let peers = &front.others.peers;
    let seconds = |time: Duration| time.as_millis() as f64 / 1e3;
    let shown: Vec<_> = peers
        .busiest(PEERS_SHOWN_MAX)
        .into_iter()
        .map(|peer| {
            let (listener, protocol) = &peer.listener;
            json!({
                "principal": peer.principal.to_string(), "listener": listener, "security_protocol": protocol.name(),
                "client_id": peer.client_id, "address": peer.address.to_string(),
                "open_seconds": seconds(peer.age), "idle_seconds": seconds(peer.idle), "requests": peer.requests,
                "received_bytes": peer.total.received, "sent_bytes": peer.total.sent,
                "received_bytes_per_second": peer.rate.received, "sent_bytes_per_second": peer.rate.sent,
            })
        })
        .collect();
    let (open, count) = (peers.count(), shown.len());
    Ok(Json(
        json!({ "open": open, "shown": count, "connections": shown }),
    ))
}

/// What runs.
async fn version_page(State(front): State<Arc<Front>>) -> Json<serde_json::Value> {
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
