//! The MQTT front: serves each connection in a task of its own. MQTT 3.1.1 and 5.0; `docs/mqtt.md` says what of it.
//! Callers: `serve`. Knows the broker; never the storage, nor other fronts.
//! Invariants: a message is acknowledged when its record is durable. What is not offered is refused with the protocol's code,
//! and never accepted and dropped. Nothing is allocated for a packet before its length was judged.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::descriptors::Ask;
use crate::front::listener::{Listener, Socket};
pub use settings::{MqttListen, SETTINGS, Settings};
pub use state::Front;

mod bounds;
mod clients;
mod connection;
mod ending;
mod errors;
mod feed;
mod frame;
mod greeting;
mod history;
mod inbound;
mod live;
mod matching;
mod metrics;
mod outbound;
pub mod packet;
mod publishing;
mod route;
mod settings;
mod state;
mod stats;
mod subscriptions;
mod topic;

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
    /// Serves MQTT on `sockets` until `shutdown` turns true, then lets connections finish what was published and returns.
    pub async fn serve(self: Arc<Front>, sockets: Vec<Socket>, shutdown: watch::Receiver<bool>) {
        let listener = Listener {
            front: "mqtt",
            sockets,
            places: self.places.clone(),
            drain: DRAIN,
        };
        let stop = shutdown.clone();
        let handle = move |accepted| connection::run(accepted, self.clone(), stop.clone());
        listener.serve(shutdown, handle).await;
    }
}
