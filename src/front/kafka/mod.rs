//! The Kafka protocol's front: serves each connection in a task of its own.
//! Callers: `serve`. Knows the broker and `wire`; never the storage.
//! Invariants: connections are bounded by the front's listener, and at the bound those that are silent or idle make room.
//! What half-received requests and answers hold in memory is bounded for all connections together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::descriptors::Ask;
use crate::front::Limits;
use crate::front::listener::{Accepted, Listener, Socket};
use crate::front::places::{Patience, Places};
use crate::setting::SIZE_MAX;
pub(crate) use settings::is_every_address;
pub use settings::{Conflict, Listen, SETTINGS, Settings};

mod answer;
mod api;
mod connection;
mod copied;
mod errors;
mod frame;
mod login;
mod metrics;
mod sessions;
mod settings;
mod share_sessions;
mod socket;
mod state;
mod stats;
mod subscription;
mod throttle;
mod unsupported;

pub use state::Front;
pub use subscription::subscribed_topics;

/// How long connections may take to finish what they were doing at shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// How long connections stay while others wait for a place. A client that works sends requests all the time.
const PATIENCE: Patience = Patience {
    silent: Duration::from_secs(1),
    idle: Duration::from_secs(10),
    busy: None,
};

/// What this front asks for of the descriptors: all that it may ever be allowed, as `max.connections` can be raised while it
/// runs.
pub fn descriptors() -> Ask {
    Ask {
        connections: SIZE_MAX as usize,
        weight: 3,
    }
}

/// The places of this front's connections.
pub fn places(limits: Limits) -> Arc<Places> {
    Places::new(limits, PATIENCE)
}

impl Front {
    /// Serves Kafka's protocol on `sockets` until `shutdown` turns true, then lets connections finish what was appended and
    /// returns.
    pub async fn serve(self: Arc<Front>, sockets: Vec<Socket>, shutdown: watch::Receiver<bool>) {
        let listener = Listener {
            front: "kafka",
            sockets,
            places: self.places.clone(),
            drain: DRAIN,
        };
        let stop = shutdown.clone();
        let handle = move |accepted: Accepted| {
            let entered = self.peers.enter(accepted.peer, accepted.transport.clone());
            connection::run(accepted, entered, self.clone(), stop.clone())
        };
        listener.serve(shutdown, handle).await;
    }
}
