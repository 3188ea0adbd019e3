//! One connection: reads requests, runs them in order, writes the replies in order.
//! Callers: `kafka::serve`, one task for each connection.
//! Invariants: requests start in the order in which they came, and replies leave in that order. Only Produce is
//! pipelined: the next one is appended while the sync of the one before is pending, at most `PIPELINED_MAX` of them.
//! Every other request waits until nothing is pending and is finished before the next is read. A peer that doesn't
//! read its replies stops its own requests and nobody else's, and is closed after `response.send.max.ms`. What a frame
//! holds in memory is held until its request is answered, or appended.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesOrdered, StreamExt};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use wire::ApiKey;

use super::api::{self, Peer, Reply, Request, Run};
use super::frame::{self, Frame, FrameError, FrameReader};
use super::login::Login;
use super::socket::{self, Writing};
use super::state::Front;
use super::throttle::Throttle;
use super::unsupported::Unsupported;
use crate::broker::access::Entrance;
use crate::front::budget::{Claim, ClaimError};
use crate::front::listener::{Accepted, Stream, stopped};
use crate::front::peers::Entered;
use crate::front::places::Place;

/// Produce requests of one connection that may wait for their sync at the same time. Clients keep 1 to 5 in flight;
/// beyond this the connection is not read.
const PIPELINED_MAX: usize = 64;
/// Frames up to this hold nothing of the budget while their requests run: it is their connection's to hold that much.
const KEPT_BYTES: usize = 64 * 1024;
/// How long a request that is running at shutdown may still take.
const DRAIN: Duration = Duration::from_secs(5);
/// How long an encrypted connection may take to say that it ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a connection ended, other than the peer closing it between two requests.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Login(String),
    #[error("{0}")]
    Unsupported(Unsupported),
    #[error("write failed: {0}")]
    Write(io::Error),
    #[error("the peer has not taken its replies in {0:?}")]
    Unread(Duration),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error("others waited for a place")]
    MadeRoom,
    #[error("idle for {0:?}")]
    Idle(Duration),
}

/// Serves one connection until either side closes it.
pub(super) async fn run(
    accepted: Accepted,
    entered: Entered,
    front: Arc<Front>,
    shutdown: watch::Receiver<bool>,
) {
    let Accepted {
        mut stream,
        peer,
        transport,
        place,
    } = accepted;
    let entered = Arc::new(entered);
    let (read_half, write_half) = socket::split(&mut stream);
    let frames = FrameReader::new(
        read_half,
        front.settings.request_bytes_max,
        front.requests.clone(),
    );
    let mut connection = Connection {
        frames,
        replies: Replies {
            socket: write_half,
            entered: entered.clone(),
            front: front.clone(),
            pending: FuturesOrdered::new(),
        },
        peer: Peer {
            address: peer,
            login: Login::new(&front.shared.sasl, peer.ip(), transport),
            shares: front.share_sessions.connect(),
        },
        entrance: front.broker.entrance(),
        front,
        entered,
        place: &place,
        shutdown,
        muted_until: None,
    };
    let served = connection.serve().await;
    connection.peer.shares.close(&connection.front.broker).await;
    match served {
        Ok(()) => tracing::debug!(%peer, "connection closed"),
        Err(
            end
            @ (End::Idle(_) | End::MadeRoom | End::Frame(FrameError::Socket(_)) | End::Write(_)),
        ) => {
            tracing::debug!(%peer, reason = %end, "connection closed");
        }
        // Guesses and probes do not fill the log: metrics count them.
        Err(End::Login(reason)) => tracing::info!(%peer, reason, "connection closed"),
        Err(End::Unsupported(asked)) => connection.front.unsupported.log(asked, peer),
        Err(end) => tracing::warn!(%peer, reason = %end, "connection closed"),
    }
    if let Stream::Tls(mut stream) = stream {
        // The peer may be gone, or not read.
        let _ = tokio::time::timeout(FAREWELL, stream.shutdown()).await;
    }
}

struct Connection<'a> {
    frames: FrameReader<'a>,
    replies: Replies<'a>,
    front: Arc<Front>,
    peer: Peer,
    entrance: Entrance,
    entered: Arc<Entered>,
    place: &'a Place,
    shutdown: watch::Receiver<bool>,
    /// Until when nothing is read, because the client has used more than its quota.
    muted_until: Option<Instant>,
}

impl Connection<'_> {
    async fn serve(&mut self) -> Result<(), End> {
        let idle = self.front.shared.idle_max;
        let mut active_at = Instant::now();
        let idle_timer = tokio::time::sleep(idle);
        tokio::pin!(idle_timer);
        loop {
            self.bound_frames();
            tokio::select! {
                biased;
                Some(reply) = self.replies.pending.next(), if !self.replies.pending.is_empty() => {
                    self.replies.write_with_ready(reply).await?;
                    active_at = Instant::now();
                }
                () = stopped(&mut self.shutdown) => return self.replies.drain().await,
                () = self.place.leave() => {
                    self.replies.drain().await?;
                    return Err(End::MadeRoom);
                }
                frame = next(&mut self.frames, self.muted_until), if self.replies.pending.len() < PIPELINED_MAX => match frame? {
                    Some(frame) => {
                        self.run(frame).await?;
                        active_at = Instant::now();
                    }
                    None => return self.replies.drain().await,
                },
                () = &mut idle_timer => {
                    if self.replies.pending.is_empty() && active_at.elapsed() >= idle {
                        return Err(End::Idle(idle));
                    }
                    idle_timer.as_mut().reset(active_at.max(Instant::now() - idle) + idle);
                }
            }
        }
    }

    /// Frames of who has not logged in are short, and some have no header.
    fn bound_frames(&mut self) {
        if self.peer.login.is_demanded() {
            let most = self.front.settings.request_bytes_max;
            let most = self
                .peer
                .login
                .request_bytes_max()
                .unwrap_or(most)
                .min(most);
            self.frames.bound(self.peer.login.takes_bare(), most);
        }
    }

    /// Takes a message of the login that came without a header.
    async fn log_in(&mut self, message: &[u8]) -> Result<(), End> {
        let broker = self.front.broker.clone();
        let login = self.peer.login.clone();
        let taken = tokio::select! {
            biased;
            taken = login.take(&broker, message) => taken,
            () = stopped(&mut self.shutdown) => return Ok(()),
        };
        let token = taken
            .map_err(|refused| End::Login(refused.to_string()))?
            .token;
        let bytes = u32::try_from(token.len()).expect("a token is short");
        let length = Bytes::copy_from_slice(&bytes.to_be_bytes());
        self.replies.write_slices(&[length, token], None).await
    }

    /// Starts one request; returns when it is answered or, for Produce, when it is appended.
    async fn run(&mut self, frame: Frame) -> Result<(), End> {
        // It was read, so this is over.
        self.muted_until = None;
        let busy = self.place.busy();
        if self.peer.login.takes_bare() {
            return self.log_in(&frame.bytes).await;
        }
        let key = frame
            .bytes
            .first_chunk()
            .map(|code| i16::from_be_bytes(*code));
        let admitted = self.peer.login.admits(key.and_then(ApiKey::from_code));
        if let Err(reason) = admitted {
            self.replies.drain().await?;
            return Err(End::Login(reason.to_owned()));
        }
        let stats = self.front.stats.clone();
        stats
            .received_bytes
            .fetch_add(frame.bytes.len() as u64, Relaxed);
        let frame_bytes = frame.bytes.len();
        let started_at = Instant::now();
        let claim = frame.claim.filter(|_| frame.bytes.len() > KEPT_BYTES);
        let Front {
            answers, sessions, ..
        } = &*self.front;
        let routed = api::route(
            frame.bytes,
            &self.entrance,
            &stats,
            answers,
            sessions,
            &self.peer,
        );
        let (request, run) = match routed {
            Ok(routed) => routed,
            Err(answer) => {
                self.replies.drain().await?;
                return self.replies.write(answer).await;
            }
        };
        let key = request.key;
        self.entered.request(request.client_id(), frame_bytes);
        let throttle = request.throttle();
        stats.started(key);
        let reply = match run {
            Run::Pipelined(start) => {
                let stats = stats.clone();
                let pending = self.replies.write_until(start(request)).await?;
                let timed = async move {
                    let reply = pending.await;
                    stats.finished(key, started_at.elapsed());
                    drop(busy);
                    reply
                };
                self.replies.pending.push_back(timed.boxed());
                self.mute(throttle.as_deref());
                return Ok(());
            }
            Run::Alone(answer) => {
                self.replies.drain().await?;
                self.finish(answer(request)).await
            }
            Run::Waiting(answer) => {
                self.replies.drain().await?;
                // What a group keeps of a request is counted there, and it may wait for others for minutes.
                let claim = claim.filter(|_| request.is_answered_soon());
                let reply = self.wait(answer, request).await;
                drop(claim);
                reply
            }
        };
        stats.finished(key, started_at.elapsed());
        if key == ApiKey::SaslAuthenticate {
            self.entered.logged_in(self.peer.login.principal());
        }
        self.replies.write(reply).await?;
        self.mute(throttle.as_deref());
        match self.peer.login.has_failed() {
            true => Err(End::Login("the login failed".to_owned())),
            false => Ok(()),
        }
    }

    /// Reads nothing for as long as the client has to wait.
    fn mute(&mut self, throttle: Option<&Throttle>) {
        if let Some(throttle) = throttle {
            let until = Instant::now() + throttle.mute();
            self.muted_until = self.muted_until.max(Some(until));
        }
    }

    /// Runs a request that must not be broken off in the middle; at shutdown it has `DRAIN` left.
    async fn finish(&mut self, answer: BoxFuture<'static, Reply>) -> Reply {
        let shutdown = &mut self.shutdown;
        tokio::select! {
            biased;
            reply = answer => reply,
            () = async {
                // A closed channel is a shutdown too.
                let _ = shutdown.wait_for(|stop| *stop).await;
                tokio::time::sleep(DRAIN).await;
            } => Reply::Close("the broker is shutting down".into()),
        }
    }

    /// Runs a request that only reads, and drops it when the peer is gone or the broker stops.
    async fn wait(
        &mut self,
        answer: fn(Request) -> BoxFuture<'static, Reply>,
        request: Request,
    ) -> Reply {
        tokio::select! {
            biased;
            reply = answer(request) => reply,
            () = stopped(&mut self.shutdown) => Reply::Close("the broker is shutting down".into()),
            () = self.frames.closed() => Reply::Silent,
        }
    }
}

/// The next frame, once the connection is not muted any more; none if the peer goes meanwhile. Cancelling it loses nothing.
async fn next(
    frames: &mut FrameReader<'_>,
    muted_until: Option<Instant>,
) -> Result<Option<Frame>, FrameError> {
    if let Some(until) = muted_until {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(until) => {}
            () = frames.closed() => return Ok(None),
        }
    }
    frames.next().await
}

struct Replies<'a> {
    socket: Writing<'a>,
    entered: Arc<Entered>,
    front: Arc<Front>,
    pending: FuturesOrdered<BoxFuture<'static, Reply>>,
}

impl Replies<'_> {
    /// Writes a reply together with those behind it that are ready: after one sync that is often many.
    async fn write_with_ready(&mut self, first: Reply) -> Result<(), End> {
        let mut slices = Vec::new();
        let mut next = Some(first);
        while let Some(reply) = next {
            match reply {
                // Only Produce is pipelined, whose answers are small.
                Reply::Send(more, _) => slices.extend(more),
                Reply::Silent => {}
                Reply::Close(reason) => {
                    self.write_slices(&slices, None).await?;
                    return Err(End::Refused(reason));
                }
                Reply::Unsupported(asked) => {
                    self.write_slices(&slices, None).await?;
                    return Err(End::Unsupported(asked));
                }
            }
            next = self.pending.next().now_or_never().flatten();
        }
        self.write_slices(&slices, None).await
    }

    /// Drives `starting` to its end and meanwhile writes what becomes ready: an append that waits for admission holds
    /// back no reply, and a peer that doesn't read holds back no append, which others may be queueing behind.
    async fn write_until<T>(&mut self, mut starting: BoxFuture<'static, T>) -> Result<T, End> {
        loop {
            let reply = tokio::select! {
                biased;
                started = &mut starting => return Ok(started),
                Some(reply) = self.pending.next(), if !self.pending.is_empty() => reply,
            };
            let mut started = None;
            let writing = self.write_with_ready(reply);
            tokio::pin!(writing);
            loop {
                tokio::select! {
                    biased;
                    done = &mut starting, if started.is_none() => started = Some(done),
                    written = &mut writing => {
                        written?;
                        break;
                    }
                }
            }
            if let Some(started) = started {
                return Ok(started);
            }
        }
    }

    /// Waits for all that is pending and writes it.
    async fn drain(&mut self) -> Result<(), End> {
        while let Some(reply) = self.pending.next().await {
            self.write_with_ready(reply).await?;
        }
        Ok(())
    }

    async fn write(&mut self, reply: Reply) -> Result<(), End> {
        match reply {
            Reply::Send(slices, claim) => self.write_slices(&slices, claim).await,
            Reply::Silent => Ok(()),
            Reply::Close(reason) => Err(End::Refused(reason)),
            Reply::Unsupported(asked) => Err(End::Unsupported(asked)),
        }
    }

    /// Writes, and gives `claim` back afterwards.
    async fn write_slices(&mut self, slices: &[Bytes], claim: Option<Claim>) -> Result<(), End> {
        if slices.is_empty() {
            return Ok(());
        }
        let sent_bytes: usize = slices.iter().map(Bytes::len).sum();
        let front = &self.front;
        let most = front.shared.idle_max.min(front.settings.response_send_max);
        let moved = |bytes| {
            if let Some(claim) = &claim {
                claim.moved(bytes);
            }
        };
        let evicted = async {
            match &claim {
                Some(claim) => {
                    claim.await_peer();
                    claim.evicted().await;
                }
                None => std::future::pending().await,
            }
        };
        let stats = &self.front.stats;
        tokio::select! {
            biased;
            written = frame::write_all(&mut self.socket, slices, most, moved) => {
                written.map_err(|error| match error.kind() {
                    io::ErrorKind::TimedOut => {
                        stats.unread_closed.fetch_add(1, Relaxed);
                        End::Unread(most)
                    }
                    _ => End::Write(error),
                })?;
            }
            () = evicted => return Err(ClaimError::Evicted.into()),
        }
        stats.sent_bytes.fetch_add(sent_bytes as u64, Relaxed);
        self.entered.sent(sent_bytes);
        Ok(())
    }
}
