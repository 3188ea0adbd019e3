//! One HTTP connection: serves its requests until it ends or has used up its time.
//! Callers: `http::Front::serve`, one task for each connection; `middleware` says what its requests do.
//! Invariants: a request's head arrives within [`HEAD_MAX`] of its first byte; a peer takes some of an answer every
//! [`WRITE_MAX`], or where an answer is long every `connections.max.idle.ms`, so that who works on it may pause; a connection without a request ends after `connections.max.idle.ms`, and sooner if others wait for a place.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, Sleep};

use super::amqp_path;
use crate::front::listener::{Accepted, Stream, stopped};
use crate::front::places::{Busy, Place, Stay};

/// A request's head is there so long after its first byte, or never.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// A peer that takes nothing of its answer for so long gets no more of it.
const WRITE_MAX: Duration = Duration::from_secs(15);
/// A request's head and what is read ahead of its body.
const BUFFER_BYTES_MAX: usize = 256 * 1024;
/// So much of what a peer still sends is taken after the last answer, for so long: a socket that is closed with bytes that
/// nobody has read is reset, and with it the answer that refused them may be lost.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
const LINGER_MAX: Duration = Duration::from_secs(1);
/// How often the times are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Serves a connection, whose peer's address each request brings along, until it ends, is idle for `idle_max`, or has to make room; at `stop` it finishes its request.
pub(super) async fn run(
    accepted: Accepted,
    routes: Router,
    idle_max: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let Accepted {
        stream,
        place,
        peer,
        transport,
    } = accepted;
    let times = Arc::new(Mutex::new(Times::default()));
    let place = Arc::new(place);
    let routes = TowerToHyperService::new(routes);
    let service = service_fn({
        let times = times.clone();
        let of_connection = OfConnection {
            place: place.clone(),
            times: times.clone(),
            stop: stop.clone(),
        };
        move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(transport.clone());
            request.extensions_mut().insert(of_connection.clone());
            amqp_path::find_path(&mut request);
            let mut times = locked(&times);
            times.head_at = None;
            times.may_pause = false;
            drop(times);
            routes.call(request)
        }
    });
    let socket = Timed {
        stream,
        place: place.clone(),
        times: times.clone(),
        linger: None,
    };
    let connection = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::pin!(connection);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = false;
    let reason = loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an HTTP connection ended");
                }
                return;
            }
            () = place.leave() => break "others wait for a place",
            () = stopped(&mut stop), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = look.tick() => {
                if let Some(reason) = locked(&times).overdue(&place, idle_max) {
                    break reason;
                }
            }
        }
    };
    tracing::debug!(reason, "an HTTP connection was closed");
}

fn locked(times: &Mutex<Times>) -> std::sync::MutexGuard<'_, Times> {
    times
        .lock()
        .expect("nothing panics while it holds the times")
}

/// A connection, as its requests see it.
#[derive(Clone)]
pub(super) struct OfConnection {
    place: Arc<Place>,
    times: Arc<Mutex<Times>>,
    stop: watch::Receiver<bool>,
}

impl OfConnection {
    /// A request is being answered until the guard is dropped.
    pub(super) fn busy(&self) -> Busy {
        self.place.busy()
    }

    /// The connection makes no room for others until the guard is dropped.
    pub(super) fn stay(&self) -> Stay {
        self.place.stay()
    }

    /// Whether the reader of this answer may pause for as long as a connection may be idle.
    pub(super) fn may_pause(&self, may: bool) {
        locked(&self.times).may_pause = may;
    }

    /// Whether the server stops.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Resolves when the server stops.
    pub(super) async fn stopped(mut self) {
        stopped(&mut self.stop).await;
    }
}

/// What the peer is late with.
#[derive(Debug, Default)]
struct Times {
    /// When the first byte of a request came whose head is not whole.
    head_at: Option<Instant>,
    /// Since when the peer has taken nothing of what there is to write.
    write_at: Option<Instant>,
    /// Whether it may take nothing for as long as a connection may be idle.
    may_pause: bool,
}

impl Times {
    fn overdue(&self, place: &Place, idle_max: Duration) -> Option<&'static str> {
        let is_over = |since: Option<Instant>, most: Duration| {
            since.is_some_and(|since| since.elapsed() >= most)
        };
        let write_max = match self.may_pause {
            true => idle_max,
            false => WRITE_MAX.min(idle_max),
        };
        if is_over(self.head_at, HEAD_MAX.min(idle_max)) {
            return Some("the head of a request did not arrive in time");
        }
        if is_over(self.write_at, write_max) {
            return Some("the peer does not read its answer");
        }
        let is_idle = !place.is_busy() && self.write_at.is_none() && self.head_at.is_none();
        (is_idle && place.unchanged_for() >= idle_max).then_some("idle")
    }
}

/// A socket that notes when the peer is late.
struct Timed {
    stream: Stream,
    place: Arc<Place>,
    times: Arc<Mutex<Times>>,
    /// Until when it waits for the peer's end, and how much it may still take.
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && !self.place.is_busy() {
            locked(&self.times).head_at.get_or_insert_with(Instant::now);
        }
        read
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        let mut times = locked(&self.times);
        match &written {
            Poll::Pending => {
                times.write_at.get_or_insert_with(Instant::now);
            }
            Poll::Ready(_) => times.write_at = None,
        }
        drop(times);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        // What is encrypted is written before it is sent.
        let mut times = locked(&self.times);
        match &flushed {
            Poll::Pending => {
                times.write_at.get_or_insert_with(Instant::now);
            }
            Poll::Ready(_) => times.write_at = None,
        }
        drop(times);
        flushed
    }

    /// Says that nothing more comes, and takes what the peer still sends for a moment.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        let (until, left) = this.linger.get_or_insert_with(|| {
            let until = Box::pin(tokio::time::sleep(LINGER_MAX));
            (until, LINGER_BYTES_MAX)
        });
        let mut scratch = [0; 4096];
        while *left > 0 {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    *left = left.saturating_sub(buffer.filled().len());
                }
                // The peer has ended too, or is gone.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return until.as_mut().poll(context).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}
