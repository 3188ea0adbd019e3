//! The Kafka protocol's front: serves each connection in a task of its own.
//! Callers: `serve`. Knows the broker and `wire`; never the storage.
//! Invariants: connections are bounded by the front's listener, and at the bound those that are silent or idle make room.
//! What half-received requests and answers hold in memory is bounded for all connections together.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::broker::Broker;
use crate::descriptors::Ask;
use crate::front::Limits;
use crate::front::budget::Budget;
use crate::front::listener::{Accepted, Listener};
use crate::front::peers::Peers;
use crate::front::places::{Patience, Places};
use stats::Stats;
use unsupported::UnsupportedLog;

mod answer;
mod api;
mod connection;
mod errors;
mod frame;
mod metrics;
mod stats;
mod unsupported;

/// How long connections may take to finish what they were doing at shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// How long connections stay while others wait for a place. A client that works sends requests all the time.
const PATIENCE: Patience = Patience {
    silent: Duration::from_secs(1),
    idle: Duration::from_secs(10),
    busy: None,
};

/// What this front asks for of the descriptors.
pub fn descriptors(connections_max: usize) -> Ask {
    Ask {
        connections: connections_max,
        weight: 3,
    }
}

/// What all connections share.
pub struct Front {
    broker: Broker,
    places: Arc<Places>,
    /// Who is connected.
    peers: Arc<Peers>,
    stats: Arc<Stats>,
    unsupported: UnsupportedLog,
    /// Memory of requests that are being received or worked on.
    requests: Arc<Budget>,
    /// Memory of answers.
    answers: Arc<Budget>,
}

impl Front {
    /// A front of this broker, which serves nobody yet.
    pub fn new(broker: Broker, limits: Limits) -> Arc<Front> {
        let config = broker.config();
        let requests = Budget::new(
            config.queued_request_bytes_max,
            config.socket_request_bytes_max + frame::LENGTH_BYTES,
        );
        let answers = Budget::new(config.queued_response_bytes_max, config.response_bytes_max);
        Arc::new(Front {
            broker,
            places: Places::new(limits, PATIENCE),
            peers: Arc::default(),
            stats: Arc::default(),
            unsupported: UnsupportedLog::default(),
            requests,
            answers,
        })
    }

    /// Who is connected.
    pub fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// Puts other limits in force, at once.
    pub fn limit(&self, limits: Limits) {
        self.places.limit(limits);
    }

    /// Serves Kafka's protocol on `socket` until `shutdown` turns true, then lets connections finish what was appended and
    /// returns.
    pub async fn serve(self: Arc<Front>, socket: TcpListener, shutdown: watch::Receiver<bool>) {
        let listener = Listener {
            front: "kafka",
            socket,
            places: self.places.clone(),
            drain: DRAIN,
        };
        let stop = shutdown.clone();
        let handle = move |accepted: Accepted| {
            let entered = self.peers.enter(accepted.peer);
            connection::run(accepted, entered, self.clone(), stop.clone())
        };
        listener.serve(shutdown, handle).await;
    }
}
