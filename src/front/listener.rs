//! Listener: accepts the connections of one front, on all of its endpoints, gives each a place and a task, does the handshake
//! where an endpoint is encrypted, and ends them in order.
//! Callers: each front's `serve`, with a function that serves one connection of its protocol.
//! Invariants: connections are bounded by [`Places`], at the bound those that are of least use make room, and if there are
//! none the next one waits in the listener's queue instead of being refused. An address that has as many connections as one
//! may have gets no further one. A handshake that takes longer than `HANDSHAKE_MAX` ends, and too many at a time end the
//! oldest (`handshakes`). A connection's failure, panics included, ends that connection only. At the end nothing more
//! is accepted, and connections have `Listener::drain` to finish what is under way.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_rustls::server::TlsStream;

use super::places::{Place, Places};
use crate::broker::access::Principal;
use failures::Failures;

mod endpoint;
mod failures;
mod handshakes;
mod pem;
mod principal;
mod stop;
mod subject;
mod tls;
mod tls_settings;

pub use endpoint::{Endpoint, Named, SecurityProtocol, joined, listener_name};
pub use pem::TlsError;
pub(in crate::front) use stop::stopped;
pub use tls::Tls;
pub use tls_settings::SETTINGS as TLS_SETTINGS;
pub use tls_settings::{ClientAuth, TlsSettings, Versions};

/// After a failed accept (no descriptors left, most likely) the listener rests this long.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// A handshake is done after this time, or never.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// A bound socket of a front.
#[derive(Debug)]
pub struct Socket {
    /// It.
    pub socket: TcpListener,
    /// What its connections know of it.
    pub endpoint: Arc<Endpoint>,
    /// What encrypts its connections; None if nothing does.
    pub tls: Option<Arc<Tls>>,
}

impl Socket {
    /// A socket whose connections are plain, and whose clients are told to connect to where it listens.
    pub fn plain(socket: TcpListener) -> io::Result<Socket> {
        let listens = socket.local_addr()?;
        let protocol = SecurityProtocol::Plaintext;
        Ok(Socket {
            socket,
            endpoint: Arc::new(Endpoint {
                name: protocol.name().to_owned(),
                protocol,
                advertised_host: listens.ip().to_string(),
                advertised_port: listens.port(),
            }),
            tls: None,
        })
    }
}

/// What accepts the connections of one front.
pub(in crate::front) struct Listener {
    /// The front's name in log lines.
    pub(in crate::front) front: &'static str,
    /// The bound sockets, one at least.
    pub(in crate::front) sockets: Vec<Socket>,
    /// How many connections there may be, and who makes room.
    pub(in crate::front) places: Arc<Places>,
    /// How long connections may take at the end to finish what they were doing.
    pub(in crate::front) drain: Duration,
}

/// A connection that has its place.
pub(in crate::front) struct Accepted {
    pub(in crate::front) stream: Stream,
    pub(in crate::front) peer: SocketAddr,
    pub(in crate::front) transport: Transport,
    /// Its place, until it is dropped.
    pub(in crate::front) place: Place,
}

/// Of whom a connection is: its place, until that is dropped, its address, and how it is encrypted.
pub(in crate::front) type OfPeer = (Place, SocketAddr, Transport);

impl Accepted {
    /// What it says and hears, and of whom it is.
    pub(in crate::front) fn split(self) -> (AnyStream, OfPeer) {
        (
            Box::new(self.stream),
            (self.place, self.peer, self.transport),
        )
    }
}

/// What any connection's bytes go through: a socket, or frames of a WebSocket.
pub(in crate::front) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Any of them.
pub(in crate::front) type AnyStream = Box<dyn Duplex>;

/// What the bytes of a listener's connection go through.
pub(in crate::front) enum Stream {
    /// They are as they are.
    Plain(TcpStream),
    /// They are encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// What is known of a connection before its first request.
#[derive(Clone, Debug)]
pub(in crate::front) struct Transport {
    /// The name of whoever showed a certificate.
    pub(in crate::front) peer_certificate_principal: Option<Arc<str>>,
    /// The listener that it came by, which says whether it is encrypted.
    pub(in crate::front) listener: Arc<Endpoint>,
}

impl Transport {
    /// That of a plain listener, for tests.
    #[cfg(test)]
    pub(in crate::front) fn plain() -> Transport {
        Transport {
            peer_certificate_principal: None,
            listener: Arc::new(Endpoint {
                name: "PLAINTEXT".to_owned(),
                protocol: SecurityProtocol::Plaintext,
                advertised_host: "127.0.0.1".to_owned(),
                advertised_port: 1,
            }),
        }
    }

    /// Whether nobody else reads what passes between this peer and the server: a password may be shown.
    pub(in crate::front) fn is_private(&self, peer: IpAddr) -> bool {
        self.listener.protocol.is_encrypted() || peer.to_canonical().is_loopback()
    }

    /// Who is at the other end, as far as the connection tells.
    pub(in crate::front) fn principal(&self) -> Principal {
        match &self.peer_certificate_principal {
            Some(name) => Principal::User(name.clone()),
            None => Principal::Anonymous,
        }
    }
}

/// A connection that nobody serves yet.
struct Knock {
    stream: TcpStream,
    peer: SocketAddr,
    endpoint: Arc<Endpoint>,
    tls: Option<Arc<Tls>>,
}

impl Listener {
    /// Serves each connection by a task of `handle` until `shutdown` turns true; returns when all have ended or the time to
    /// drain is over.
    pub(in crate::front) async fn serve<Served>(
        self,
        mut shutdown: watch::Receiver<bool>,
        handle: impl Fn(Accepted) -> Served + Send + Sync + 'static,
    ) where
        Served: Future<Output = ()> + Send + 'static,
    {
        let handle = Arc::new(handle);
        let failures = Arc::new(Failures::of(self.front));
        let mut connections: JoinSet<()> = JoinSet::new();
        // Accepted before it has a place, so that nobody has to make room for one who does not come.
        let mut waiting: Option<Knock> = None;
        // Where the next look begins, so that no socket is always the last one.
        let mut turn = 0;
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut shutdown) => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => self.report(ended),
                never = self.places.shed() => match never {},
                place = self.places.enter(waiting.as_ref().map(|knock| knock.peer.ip())), if waiting.is_some() => {
                    let Some(knock) = waiting.take() else { continue };
                    match knock.tls {
                        None => connections.spawn(handle(knock.plain(place))),
                        Some(_) => {
                            let (handle, failures, stop) = (handle.clone(), failures.clone(), shutdown.clone());
                            connections.spawn(async move {
                                if let Some(accepted) = knock.secured(place, &failures, stop).await {
                                    handle(accepted).await;
                                }
                            })
                        }
                    };
                }
                (index, accepted) = accept(&self.sockets, turn), if waiting.is_none() => match accepted {
                    Ok((stream, peer)) => {
                        turn = index + 1;
                        waiting = self.admit(stream, peer, &self.sockets[index]);
                    }
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
    fn admit(&self, stream: TcpStream, peer: SocketAddr, socket: &Socket) -> Option<Knock> {
        let stream = self.places.within_rate(peer.ip(), stream)?;
        if !self.places.accept(peer.ip()) {
            tracing::debug!(front = self.front, %peer, "refused: its address has as many connections as it may have");
            return None;
        }
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(front = self.front, %peer, %error, "no TCP_NODELAY");
        }
        Some(Knock {
            stream,
            peer,
            endpoint: socket.endpoint.clone(),
            tls: socket.tls.clone(),
        })
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

    /// Closes the sockets and lets connections end.
    async fn end(self, mut connections: JoinSet<()>) {
        let Listener { front, drain, .. } = self;
        drop(self.sockets);
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

impl Knock {
    fn plain(self, place: Place) -> Accepted {
        Accepted {
            stream: Stream::Plain(self.stream),
            peer: self.peer,
            transport: Transport {
                peer_certificate_principal: None,
                listener: self.endpoint,
            },
            place,
        }
    }

    /// Does the handshake; None if it fails, takes too long, or has to make room.
    async fn secured(
        self,
        place: Place,
        failures: &Failures,
        mut stop: watch::Receiver<bool>,
    ) -> Option<Accepted> {
        let (tls, peer) = (self.tls?, self.peer);
        let slot = tls.begin(peer.ip());
        let handshake = tokio::time::timeout(
            HANDSHAKE_MAX,
            tls.accept(self.stream, self.endpoint.protocol),
        );
        let failed = tokio::select! {
            done = handshake => match done {
                Ok(Ok(secured)) => {
                    return Some(Accepted {
                        stream: Stream::Tls(secured.stream),
                        peer,
                        transport: Transport {
                            peer_certificate_principal: secured.principal,
                            listener: self.endpoint,
                        },
                        place,
                    });
                }
                Ok(Err(error)) => error.to_string(),
                Err(_elapsed) => format!("it took longer than {HANDSHAKE_MAX:?}"),
            },
            () = slot.ended() => "too many are under way, and it was the oldest".to_owned(),
            () = place.leave() => "others wait for a place".to_owned(),
            () = stopped(&mut stop) => return None,
        };
        failures.note(peer, &self.endpoint.name, &failed);
        None
    }
}

/// The next connection of any of the sockets, and of which; the look begins with the one whose turn it is.
async fn accept(sockets: &[Socket], turn: usize) -> (usize, io::Result<(TcpStream, SocketAddr)>) {
    std::future::poll_fn(|context| {
        for index in (0..sockets.len()).map(|step| (turn + step) % sockets.len()) {
            if let Poll::Ready(accepted) = sockets[index].socket.poll_accept(context) {
                return Poll::Ready((index, accepted));
            }
        }
        Poll::Pending
    })
    .await
}

fn report(front: &'static str, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(front, %error, "a connection's task panicked; the connection is closed");
    }
}
