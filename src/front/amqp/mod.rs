//! The AMQP 1.0 front: serves each connection in a task of its own; `docs/amqp.md` says what of it.
//! Callers: `serve`. Knows the broker; never the storage, nor other fronts. The protocol itself is the crate `amqp`.
//! Invariants: `accepted` says that a message is durable. What is not offered is refused with the protocol's condition, and never
//! accepted and dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::descriptors::Ask;
use crate::front::WebSockets;
use crate::front::listener::{Accepted, Listener, Socket};
pub use settings::{AmqpListen, SETTINGS, Settings};
pub use state::Front;

mod address;
mod again;
mod bounds;
mod command;
mod connection;
mod containers;
mod cursor;
mod errors;
mod filter;
pub mod foreign;
mod login;
mod management;
mod metrics;
mod outcome;
mod outgoing;
mod owners;
mod pinned;
mod producing;
mod queue;
mod receiving;
mod requests;
mod route;
mod selected;
mod selector;
mod settings;
mod state;
mod stats;
mod stream;
mod subscriptions;
mod temporary;
mod transactions;

/// The longest frame of a WebSocket. Several frames of AMQP may be in one.
const WEB_FRAME_BYTES_MAX: usize = 1 << 20;
/// How long connections may take to finish what they were doing at shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// What this front asks for of the descriptors: none if it listens nowhere.
pub fn descriptors(settings: &Settings) -> Ask {
    Ask {
        connections: match settings.listen.is_empty() {
            true => 0,
            false => settings.connections_max,
        },
        weight: 3,
    }
}

impl Front {
    /// Serves AMQP on `sockets` until `shutdown` turns true, then lets connections finish what was sent and returns.
    pub async fn serve(self: Arc<Front>, sockets: Vec<Socket>, shutdown: watch::Receiver<bool>) {
        let listener = Listener {
            front: "amqp",
            sockets,
            places: self.places.clone(),
            drain: DRAIN,
        };
        subscriptions::end_left(&self.broker).await;
        temporary::delete_left(&self.broker).await;
        let stop = shutdown.clone();
        let web = Arc::clone(&self.web);
        let handle = move |accepted: Accepted| {
            let (stream, of_peer) = accepted.split();
            connection::run(stream, of_peer, self.clone(), stop.clone())
        };
        listener.serve(shutdown, handle).await;
        web.drain(DRAIN).await;
    }

    /// Takes connections that come as WebSockets, until `stop` turns true.
    pub fn web_sockets(self: &Arc<Front>, stop: &watch::Receiver<bool>) -> WebSockets {
        let front = Arc::clone(self);
        let counted = (&self.places, &self.web);
        WebSockets::new(
            "amqp",
            WEB_FRAME_BYTES_MAX,
            counted,
            stop,
            move |stream, of_peer, stop| connection::run(stream, of_peer, Arc::clone(&front), stop),
        )
    }
}
