//! Listener: accepts the connections of one front, gives each a place and a task, and ends them in order.
//! Callers: each front's `serve`, with a function that serves one connection of its protocol.
//! Invariants: connections are bounded by [`Places`], at the bound those that are of least use make room, and if there are
//! none the next one waits in the listener's queue instead of being refused. An address that has as many connections as one
//! may have gets no further one. A connection's failure, panics included, ends that connection only. At the end nothing more
//! is accepted, and connections have [`Listener::drain`] to finish what is under way.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::places::{Place, Places};

/// After a failed accept (no descriptors left, most likely) the listener rests this long.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What accepts the connections of one front.
pub(in crate::front) struct Listener {
    /// The front's name in log lines.
    pub(in crate::front) front: &'static str,
    /// The bound socket.
    pub(in crate::front) socket: TcpListener,
    /// How many connections there may be, and who makes room.
    pub(in crate::front) places: Arc<Places>,
    /// How long connections may take at the end to finish what they were doing.
    pub(in crate::front) drain: Duration,
}

/// A connection that has its place.
pub(in crate::front) struct Accepted {
    pub(in crate::front) stream: TcpStream,
    pub(in crate::front) peer: SocketAddr,
    /// Its place, until it is dropped.
    pub(in crate::front) place: Place,
}

impl Listener {
    /// Serves each connection by a task of `handle` until `shutdown` turns true; returns when all have ended or the time to
    /// drain is over.
    pub(in crate::front) async fn serve<Served>(
        self,
        mut shutdown: watch::Receiver<bool>,
        handle: impl Fn(Accepted) -> Served,
    ) where
        Served: Future<Output = ()> + Send + 'static,
    {
        let mut connections: JoinSet<()> = JoinSet::new();
        // Accepted before it has a place, so that nobody has to make room for one who does not come.
        let mut waiting: Option<(TcpStream, SocketAddr)> = None;
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut shutdown) => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => self.report(ended),
                never = self.places.shed() => match never {},
                place = self.places.enter(waiting.as_ref().map(|(_, peer)| peer.ip())), if waiting.is_some() => {
                    let Some((stream, peer)) = waiting.take() else { continue };
                    connections.spawn(handle(Accepted { stream, peer, place }));
                }
                accepted = self.socket.accept(), if waiting.is_none() => match accepted {
                    Ok((stream, peer)) => waiting = self.admit(stream, peer),
                    Err(error) => {
                        tracing::warn!(front = self.front, %error, "a connection could not be accepted");
                        self.rest(&mut connections).await;
                    }
                },
            }
        }
        self.end(connections).await;
    }

    /// The connection, unless its address has too many. Small answers leave at once (TCP_NODELAY).
    fn admit(&self, stream: TcpStream, peer: SocketAddr) -> Option<(TcpStream, SocketAddr)> {
        if !self.places.accept(peer.ip()) {
            tracing::debug!(front = self.front, %peer, "refused: its address has as many connections as it may have");
            return None;
        }
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(front = self.front, %peer, %error, "no TCP_NODELAY");
        }
        Some((stream, peer))
    }

    /// Waits a moment, and meanwhile takes note of connections that end.
    async fn rest(&self, connections: &mut JoinSet<()>) {
        let reap = async {
            while let Some(ended) = connections.join_next().await {
                self.report(ended);
            }
            std::future::pending::<Infallible>().await
        };
        let _ = tokio::time::timeout(ACCEPT_REST, reap).await;
    }

    /// Closes the socket and lets connections end.
    async fn end(self, mut connections: JoinSet<()>) {
        let Listener { front, drain, .. } = self;
        drop(self.socket);
        let drained = async {
            while let Some(ended) = connections.join_next().await {
                report(front, ended);
            }
        };
        if tokio::time::timeout(drain, drained).await.is_err() {
            tracing::warn!(
                front,
                open = connections.len(),
                "connections were cut off at shutdown"
            );
        }
    }

    fn report(&self, ended: Result<(), JoinError>) {
        report(self.front, ended);
    }
}

fn report(front: &'static str, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(front, %error, "a connection's task panicked; the connection is closed");
    }
}

/// Waits until the server stops; whoever would say so being gone is that too.
pub(in crate::front) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}
