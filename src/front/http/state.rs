//! What all connections of the HTTP front share, and the door that each request comes in by.
//!
//! Callers: `serve` makes it; the routes use it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Extension, FromRequestParts};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use super::errors;
use super::files::store::Files;
use super::guard::Guard;
use super::pages::{DOWNSAMPLED_MAX, PAGES_MAX, REPLAYS_MAX};
use super::produce::Memory;
use super::quota::Charge;
use super::settings::Settings;
use super::table::Table;
use super::traffic::Traffic;
use crate::broker::Broker;
use crate::broker::access::{Caller, Door, Principal, Protocol};
use crate::front::listener::Transport;
use crate::front::peers::Peers;
use crate::front::places::{Patience, Places};
use crate::front::{self, Administered, Limits, WebSockets};
use crate::metrics::Families;

/// How long connections stay while others wait for a place. An answer takes milliseconds; a page of metrics, seconds.
const PATIENCE: Patience = Patience {
    silent: Duration::from_secs(1),
    idle: Duration::from_secs(1),
    busy: Some(Duration::from_secs(5)),
};

/// What a part of the server adds to the page of metrics.
pub type AddMetrics = Box<dyn Fn(&mut Families<'_>) + Send + Sync>;

/// What is shown of others.
pub struct Others {
    /// Who is connected to the Kafka port.
    pub peers: Arc<Peers>,
    /// What is told of MQTT's clients.
    pub mqtt: Option<Administered>,
    /// Who takes connections by WebSocket.
    pub web_sockets: Vec<WebSockets>,
    /// The metrics of other fronts.
    pub add_metrics: Vec<AddMetrics>,
    /// Where Parquet files lie that were made for readers: emptied at a start.
    pub files_directory: PathBuf,
    /// The commit that the process was built from, if that is known.
    pub commit: Option<&'static str>,
}

/// The rights that one door was asked for.
#[cfg(test)]
type AskedOfDoor = Arc<
    std::sync::Mutex<
        std::collections::BTreeSet<(
            crate::broker::access::ResourceKind,
            crate::broker::access::Right,
        )>,
    >,
>;

/// Where a front listens, and how many may come.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at a time.
    pub connections_max: usize,
    /// The address, if it is known.
    pub listens: Option<IpAddr>,
}

/// What all connections share.
pub struct Front {
    pub(super) broker: Broker,
    pub(super) shared: front::Settings,
    pub(super) settings: Settings,
    pub(super) places: Arc<Places>,
    pub(super) others: Others,
    /// Places of pages of metrics.
    pub(super) metrics_pages: Arc<Semaphore>,
    /// Places of plans.
    pub(super) plan_pages: Arc<Semaphore>,
    /// Places of replays.
    pub(super) replays: Arc<Semaphore>,
    /// Places of answers in windows of time, each of which holds all of its windows.
    pub(super) downsampled: Arc<Semaphore>,
    /// Parquet files that were made.
    pub(super) files: Files,
    /// What bodies of records hold.
    pub(super) bodies: Memory,
    /// Places of requests that are answered.
    pub(super) requests: Arc<Semaphore>,
    /// Places of answers that go on for as long as their readers like.
    pub(super) followers: Arc<Semaphore>,
    pub(super) guard: Guard,
    pub(super) table: Table,
    pub(super) traffic: Traffic,
    pub(super) started_at: Instant,
    /// What doors were asked for.
    #[cfg(test)]
    pub(super) asked: std::sync::Mutex<Vec<AskedOfDoor>>,
}

impl Front {
    /// A front of this broker, which serves nobody yet: so many connections at a time, on this address.
    pub(super) fn new(
        broker: Broker,
        shared: front::Settings,
        settings: Settings,
        bounds: Bounds,
        others: Others,
        table: Table,
    ) -> Arc<Front> {
        let Bounds {
            connections_max,
            listens,
        } = bounds;
        let limits = Limits {
            connections_max,
            per_address_max: usize::MAX,
        };
        let files = Files::new(others.files_directory.clone(), settings.files_bytes);
        let traffic = Traffic::new(table.paths());
        let guard = Guard::new(&settings.allow_origins, &settings.hosts, listens);
        // What is left of the connections is for health and metrics, and for those who are silent.
        let part = |whole: usize| Arc::new(Semaphore::new((connections_max / whole).max(1)));
        let front = Arc::new(Front {
            broker,
            shared,
            settings,
            places: Places::new(limits, PATIENCE),
            others,
            metrics_pages: Arc::new(Semaphore::new(PAGES_MAX)),
            plan_pages: Arc::new(Semaphore::new(PAGES_MAX)),
            replays: Arc::new(Semaphore::new(REPLAYS_MAX)),
            downsampled: Arc::new(Semaphore::new(DOWNSAMPLED_MAX)),
            files,
            bodies: Memory::new(),
            requests: part(4),
            followers: part(2),
            guard,
            table,
            traffic,
            started_at: Instant::now(),
            #[cfg(test)]
            asked: std::sync::Mutex::default(),
        });
        let quotas = front.broker.clone();
        let rate = move |address| quotas.quotas().connect(address);
        front.places.set_rate(Box::new(rate));
        let erased = Arc::downgrade(&front);
        front.broker.on_erased(Arc::new(move |topic| {
            if let Some(front) = erased.upgrade() {
                front.files.forget(topic);
            }
        }));
        front
    }
}

/// The broker as who sends this request may use it: a handler that takes a door gets it made.
impl FromRequestParts<Arc<Front>> for Door {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, front: &Arc<Front>) -> Result<Door, Response> {
        let peer = Extension::<SocketAddr>::from_request_parts(parts, front).await;
        let Extension(peer) = peer.map_err(IntoResponse::into_response)?;
        let logged_in = parts.extensions.get::<Principal>().cloned();
        let transport = parts.extensions.get::<Transport>();
        let by_connection = || transport.map_or(Principal::Anonymous, Transport::principal);
        let agent = parts.headers.get(header::USER_AGENT);
        let door = front.broker.door(Caller {
            principal: logged_in.unwrap_or_else(by_connection),
            address: peer,
            client_id: agent.and_then(|agent| Some(agent.to_str().ok()?.to_owned())),
            protocol: Protocol::Http,
        });
        #[cfg(test)]
        front
            .asked
            .lock()
            .expect("nothing panics while it notes a door")
            .push(door.asked());
        if let Some(charge) = parts.extensions.get::<Arc<Charge>>() {
            charge
                .enter(&door)
                .map_err(|refusal| errors::refused(&refusal))?;
        }
        Ok(door)
    }
}
