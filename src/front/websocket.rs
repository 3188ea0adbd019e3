//! Protocols that are spoken over WebSocket on the HTTP port (RFC 6455): what the HTTP front offers, and the stream of bytes that its
//! taker sees.
//! Callers: the HTTP front makes streams of connections that ask for it; the fronts that take them give themselves as [`WebSockets`].
//! Invariants: binary frames only; where one ends means nothing, as MQTT demands (V5 §6), and for AMQP. A frame has no more bytes than the taker
//! allows.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::{Buf as _, Bytes};
use futures_util::future::BoxFuture;
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::listener::{AnyStream, OfPeer, Transport};
use super::places::Places;

/// Bytes of a frame that is sent.
const SENT_FRAME_BYTES_MAX: usize = 64 << 10;

/// Serves one connection until it ends.
pub(in crate::front) type ServeWeb =
    Box<dyn Fn(WebStream, SocketAddr, Transport) -> BoxFuture<'static, ()> + Send + Sync>;

/// Who takes connections of a subprotocol.
pub struct WebSockets {
    /// The subprotocol that a client has to name.
    pub(in crate::front) protocol: &'static str,
    /// The longest frame that is taken.
    pub(in crate::front) frame_bytes_max: usize,
    /// What serves a connection.
    pub(in crate::front) serve: ServeWeb,
}

impl WebSockets {
    /// A front that serves each connection by `run`, as it does those of its own listener: each has a place, and is counted in
    /// `open`. Those that come after `stop` has turned true are ended.
    pub(in crate::front) fn new<F>(
        protocol: &'static str,
        frame_bytes_max: usize,
        (places, open): (&Arc<Places>, &Arc<OpenWeb>),
        stop: &watch::Receiver<bool>,
        run: impl Fn(AnyStream, OfPeer, watch::Receiver<bool>) -> F + Clone + Send + Sync + 'static,
    ) -> WebSockets
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (places, open, stop) = (Arc::clone(places), Arc::clone(open), stop.clone());
        let serve =
            move |stream: WebStream, peer: SocketAddr, transport| -> BoxFuture<'static, ()> {
                let (places, open, stop, run) = (
                    Arc::clone(&places),
                    Arc::clone(&open),
                    stop.clone(),
                    run.clone(),
                );
                Box::pin(async move {
                    let _open = open.enter();
                    if *stop.borrow() {
                        return;
                    }
                    let place = places.enter(Some(peer.ip())).await;
                    run(Box::new(stream), (place, peer, transport), stop).await;
                })
            };
        WebSockets {
            protocol,
            frame_bytes_max,
            serve: Box::new(serve),
        }
    }
}

/// How many connections of a front are open that came as WebSockets: its listener does not know them, and the end of the server
/// waits for them.
#[derive(Debug)]
pub(in crate::front) struct OpenWeb(watch::Sender<usize>);

/// A connection is open until this is dropped.
pub(in crate::front) struct WebGuard(Arc<OpenWeb>);

impl OpenWeb {
    /// None is.
    pub(in crate::front) fn new() -> Arc<OpenWeb> {
        Arc::new(OpenWeb(watch::Sender::new(0)))
    }

    /// Counts one.
    pub(in crate::front) fn enter(self: &Arc<OpenWeb>) -> WebGuard {
        self.0.send_modify(|open| *open += 1);
        WebGuard(Arc::clone(self))
    }

    /// Waits until none is open, so long at most.
    pub(in crate::front) async fn drain(&self, patience: Duration) {
        let mut open = self.0.subscribe();
        let _ = tokio::time::timeout(patience, open.wait_for(|open| *open == 0)).await;
    }
}

impl Drop for WebGuard {
    fn drop(&mut self) {
        (self.0).0.send_modify(|open| *open -= 1);
    }
}

/// A connection as a stream of bytes.
pub(in crate::front) struct WebStream {
    socket: WebSocket,
    /// What is left of the last frame.
    rest: Bytes,
}

impl WebStream {
    pub(in crate::front) fn new(socket: WebSocket) -> WebStream {
        WebStream {
            socket,
            rest: Bytes::new(),
        }
    }
}

fn failed(error: axum::Error) -> io::Error {
    io::Error::other(error)
}

impl AsyncRead for WebStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Text(_))) => {
                    const TEXT: &str = "a frame of text where bytes are spoken";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, TEXT)));
                }
                // The library answers them.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(failed(error))),
            }
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        if self.rest.is_empty() {
            // An idle connection keeps no frame.
            self.rest = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(context)).map_err(failed)?;
        let count = bytes.len().min(SENT_FRAME_BYTES_MAX);
        let frame = Message::Binary(Bytes::copy_from_slice(&bytes[..count]));
        socket.start_send(frame).map_err(failed)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = Pin::new(&mut self.socket);
        socket.poll_flush(context).map_err(failed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = Pin::new(&mut self.socket);
        socket.poll_close(context).map_err(failed)
    }
}
