//! The Kafka protocol's front: accepts connections and serves each in a task of its own.
//! Callers: `serve`. Knows the broker and `wire`; never the storage.
//! Invariants: connections are bounded; at the bound those that are silent or idle make room for new ones, and if there
//! are none the listener waits instead of refusing. What half-received requests and answers hold is bounded for all
//! connections together. A connection's failure, panics included, ends that connection only.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::front::budget::Budget;
use crate::front::peers;
use crate::front::places::{Patience, Places};
use crate::front::stats::Stats;
use unsupported::UnsupportedLog;

mod answer;
mod api;
mod connection;
mod errors;
mod frame;
mod unsupported;

/// After a failed accept (no descriptors left, most likely) the listener rests this long.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long connections may take to finish what they were doing at shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// How long connections stay while others wait for a place. A client that works sends requests all the time.
const PATIENCE: Patience = Patience {
    silent: Duration::from_secs(1),
    idle: Duration::from_secs(10),
    busy: None,
};

/// What all connections share.
struct Front {
    broker: Broker,
    stats: Arc<Stats>,
    unsupported: UnsupportedLog,
    /// Memory of requests that are being received or worked on.
    requests: Arc<Budget>,
    /// Memory of answers.
    answers: Arc<Budget>,
}

/// Serves Kafka's protocol on `listener` until `shutdown` turns true, then lets connections finish what was appended
/// and returns. Connections beyond `max.connections` wait in the listener's queue until others end or make room. What goes
/// on is counted in `stats`.
pub async fn serve(
    listener: TcpListener,
    broker: Broker,
    stats: Arc<Stats>,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let config = broker.config();
    let places = Places::new(config.connections_max, PATIENCE);
    let requests = Budget::new(
        config.queued_request_bytes_max,
        config.socket_request_bytes_max + frame::LENGTH_BYTES,
    );
    let answers = Budget::new(config.queued_response_bytes_max, config.response_bytes_max);
    stats.show(&requests, &answers);
    let front = Arc::new(Front {
        broker,
        stats,
        requests,
        answers,
        unsupported: UnsupportedLog::default(),
    });
    let mut connections: JoinSet<()> = JoinSet::new();
    let mut stop = shutdown.clone();
    // Accepted before it has a place, so that nobody has to make room for one who does not come.
    let mut accepted: Option<(TcpStream, SocketAddr)> = None;
    loop {
        tokio::select! {
            biased;
            () = connection::stopped(&mut stop) => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            place = places.enter(), if accepted.is_some() => {
                let Some((socket, peer)) = accepted.take() else { continue };
                front.stats.made_room.store(places.made_room(), Relaxed);
                let (front, shutdown) = (front.clone(), shutdown.clone());
                connections.spawn(async move {
                    let _open = front.stats.open();
                    let entered = peers::enter(&front.stats, peer);
                    connection::run(socket, peer, &place, entered, front.clone(), shutdown).await;
                });
            }
            found = listener.accept(), if accepted.is_none() => match found {
                Ok((socket, peer)) => {
                    front.stats.accepted.fetch_add(1, Relaxed);
                    if let Err(error) = socket.set_nodelay(true) {
                        tracing::debug!(%peer, %error, "no TCP_NODELAY");
                    }
                    accepted = Some((socket, peer));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    rest(&mut connections).await;
                }
            },
        }
    }
    drop(listener);
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!(
            open = connections.len(),
            "connections were cut off at shutdown"
        );
    }
    Ok(())
}

/// Waits a moment, and meanwhile takes note of connections that end.
async fn rest(connections: &mut JoinSet<()>) {
    let reap = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
        std::future::pending::<()>().await;
    };
    let _ = tokio::time::timeout(ACCEPT_REST, reap).await;
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked; the connection is closed");
    }
}
