//! What all connections of the HTTP front share, and the door that each request comes in by.
//!
//! Callers: `serve` makes it; the routes use it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use tokio::sync::Semaphore;

use super::files::Files;
use super::pages::PAGES_MAX;
use super::produce::Memory;
use super::replay::REPLAYS_MAX;
use super::settings::Settings;
use crate::broker::Broker;
use crate::broker::access::{Caller, Door, Principal, Protocol};
use crate::front::peers::Peers;
use crate::front::places::{Patience, Places};
use crate::front::{self, Limits};
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
    /// The metrics of other fronts.
    pub add_metrics: Vec<AddMetrics>,
    /// Where Parquet files lie that were made for readers: emptied at a start.
    pub files_directory: PathBuf,
    /// The commit that the process was built from, if that is known.
    pub commit: Option<&'static str>,
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
    /// Parquet files that were made.
    pub(super) files: Files,
    /// What bodies of records hold.
    pub(super) bodies: Memory,
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
        let files = Files::new(others.files_directory.clone(), settings.files_bytes);
        Arc::new(Front {
            broker,
            shared,
            settings,
            places: Places::new(limits, PATIENCE),
            others,
            metrics_pages: Arc::new(Semaphore::new(PAGES_MAX)),
            plan_pages: Arc::new(Semaphore::new(PAGES_MAX)),
            replays: Arc::new(Semaphore::new(REPLAYS_MAX)),
            files,
            bodies: Memory::new(),
        })
    }

    /// The broker as who sends this request may use it.
    pub(super) fn door(&self, peer: SocketAddr, headers: &HeaderMap) -> Door {
        let agent = headers.get(header::USER_AGENT);
        self.broker.door(Caller {
            principal: Principal::Anonymous,
            address: peer,
            client_id: agent.and_then(|agent| Some(agent.to_str().ok()?.to_owned())),
            protocol: Protocol::Http,
        })
    }
}
