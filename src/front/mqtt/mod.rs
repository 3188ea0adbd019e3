//! The MQTT front: serves each connection in a task of its own. MQTT 3.1.1 and 5.0; `docs/mqtt.md` says what of it.
//! Callers: `serve`. Knows the broker; never the storage, nor other fronts.
//! Invariants: a message is acknowledged when its record is durable. What is not offered is refused with the protocol's code,
//! and never accepted and dropped. Nothing is allocated for a packet before its length was judged.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::descriptors::Ask;
use crate::front::WebSockets;
use crate::front::listener::{Accepted, Listener, Socket, stopped};
pub use settings::{MqttListen, SETTINGS, Settings, joined_listens};
pub use state::Front;

mod admin;
mod again;
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
mod last;
mod live;
mod matching;
mod metrics;
mod naming;
mod new_routes;
mod outbound;
pub mod packet;
mod publishing;
mod readable;
mod reading;
mod record;
mod resume;
mod retained;
mod routes;
mod session;
mod settings;
mod shared;
mod shared_out;
mod sharing;
mod state;
mod stats;
mod status;
mod status_out;
mod subscribing;
mod subscriptions;
mod topic;
mod window;

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
        let mut stops = shutdown.clone();
        let front = Arc::clone(&self);
        let ends_all = async {
            stopped(&mut stops).await;
            front.clients.stop();
            std::future::pending::<()>().await;
        };
        let keeps_time = async {
            new_routes::begin(&front).await;
            let _ = front.is_ready.set(());
            session::keep_time(&front).await;
        };
        let web = Arc::clone(&self.web);
        let handle = move |accepted: Accepted| {
            let (stream, of_peer) = accepted.split();
            connection::run(stream, of_peer, self.clone(), stop.clone())
        };
        let serves = async {
            listener.serve(shutdown, handle).await;
            web.drain(DRAIN).await;
        };
        tokio::select! {
            () = serves => {}
            () = keeps_time => {}
            () = ends_all => {}
        }
    }

    /// Takes connections that come as WebSockets, until `stop` turns true.
    pub fn web_sockets(self: &Arc<Front>, stop: &watch::Receiver<bool>) -> WebSockets {
        let front = Arc::clone(self);
        let counted = (&self.places, &self.web);
        WebSockets::new(
            "mqtt",
            self.settings.packet_bytes_max,
            counted,
            stop,
            move |stream, of_peer, stop| connection::run(stream, of_peer, Arc::clone(&front), stop),
        )
    }
}
