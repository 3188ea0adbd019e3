//! The Kafka protocol's front: accepts connections and serves each in a task of its own.
//! Callers: `serve`. Knows the broker and `wire`; never the storage.
//! Invariants: connections are bounded, and at the bound the listener waits instead of refusing. A connection's
//! failure, panics included, ends that connection only.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::front::stats::Stats;
use unsupported::UnsupportedLog;

mod api;
mod connection;
mod errors;
mod frame;
mod unsupported;

/// After a failed accept (no descriptors left, most likely) the listener rests this long.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long connections may take to finish what they were doing at shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// What all connections share.
struct Front {
    broker: Broker,
    stats: Arc<Stats>,
    unsupported: UnsupportedLog,
}

/// Serves Kafka's protocol on `listener` until `shutdown` turns true, then lets connections finish what was appended
/// and returns. Connections beyond `max.connections` wait in the listener's queue. What goes on is counted in `stats`.
pub async fn serve(
    listener: TcpListener,
    broker: Broker,
    stats: Arc<Stats>,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(broker.config().connections_max));
    let front = Arc::new(Front {
        broker,
        stats,
        unsupported: UnsupportedLog::default(),
    });
    let mut connections: JoinSet<()> = JoinSet::new();
    let mut stop = shutdown.clone();
    loop {
        let accept = async {
            let place = places
                .clone()
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        tokio::select! {
            biased;
            () = connection::stopped(&mut stop) => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            (place, accepted) = accept => match accepted {
                Ok((socket, peer)) => {
                    front.stats.accepted.fetch_add(1, Relaxed);
                    if let Err(error) = socket.set_nodelay(true) {
                        tracing::debug!(%peer, %error, "no TCP_NODELAY");
                    }
                    let (front, shutdown) = (front.clone(), shutdown.clone());
                    connections.spawn(async move {
                        let _place = place;
                        let _open = front.stats.open();
                        connection::run(socket, peer, front.clone(), shutdown).await;
                    });
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
