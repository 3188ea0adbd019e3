//! One connection: the greeting, and then packets both ways until one side ends it.
//! Callers: `mqtt::Front::serve`, one task for each connection.
//! Invariants: nothing waits for the peer to take what is sent but what is sent: reading, storing and acknowledging go on side by side.
//! What is unsent is bounded, and while it is full nothing is read. A client that is silent for one and a half times its keep alive is
//! disconnected; while nothing is read of it, that does not count. A connection that ends without a DISCONNECT of the client has its
//! will published, once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::bounds::{GREETING_BYTES_MAX, UNSENT_BYTES_MAX};
use super::ending::Ending;
use super::errors;
use super::frame::{Frame, Frames};
use super::greeting::{Client, greet};
use super::inbound::Inbound;
use super::outbound::Outbound;
use super::packet::{
    AckKind, Disconnect, Fault, Incoming, Version, decode, disconnect, pingresp, suback, unsuback,
};
use super::session::{Leaving, Session};
use super::state::Front;
use crate::front::listener::{AnyStream, OfPeer, stopped};
use crate::front::places::Place;

/// CONNECT is there so long after the connection was made, or never.
const GREETING_MAX: Duration = Duration::from_secs(10);
/// How long what is owed may take when the server stops, and a last packet to leave.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);
/// How long what still comes is read after the last packet.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// No pause is longer that a client's quota asks for.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long a packet may take of a connection that ends, if it was sent before that: it is here as a rule.
const HEARD_WITHIN: Duration = Duration::from_millis(20);
/// And all of them.
const HEARD_OUT_MAX: Duration = Duration::from_millis(500);

/// Serves a connection until it ends.
pub(super) async fn run(
    stream: AnyStream,
    (place, peer, transport): OfPeer,
    front: Arc<Front>,
    mut stop: watch::Receiver<bool>,
) {
    let (read, write) = tokio::io::split(stream);
    let mut frames = Frames::new(read, Arc::clone(&front.received), GREETING_BYTES_MAX);
    let mut writer = Writer {
        front: Arc::clone(&front),
        stream: write,
        out: BytesMut::new(),
        is_dirty: false,
        moved_at: Instant::now(),
    };
    let greeting = async {
        front.is_ready.wait().await;
        let frame = frames.next().await.ok()??;
        front
            .stats
            .received_bytes
            .fetch_add(frame.bytes as u64, Relaxed);
        let greeted = greet(&front, &frame, (&transport, peer), &mut writer.out).await;
        if let Err(why) = &greeted {
            tracing::debug!(%peer, %why, "an MQTT client was not let in");
        }
        greeted.ok()
    };
    // What comes once in a connection stands in a box, so that an idle one does not hold the memory for it.
    let greeting = Box::pin(timeout(GREETING_MAX, greeting));
    let greeted = tokio::select! {
        greeted = greeting => greeted.ok().flatten(),
        () = place.leave() => None,
        () = stopped(&mut stop) => None,
    };
    match greeted {
        Some(client) if writer.out.len() <= client.packet_bytes_max => {
            // A client that is idle is of use: it makes no room.
            let _stay = place.stay();
            frames.limit(front.settings.packet_bytes_max);
            let mut connection = Connection::new(front, client, frames, writer, peer);
            let ending = connection.serve(&place, &mut stop).await;
            Box::pin(connection.end(ending)).await;
        }
        Some(_) => {}
        None => writer.last().await,
    }
}

/// The writing side.
struct Writer {
    front: Arc<Front>,
    stream: WriteHalf<AnyStream>,
    /// What is to be sent.
    out: BytesMut,
    /// Whether what was written may wait in the stream.
    is_dirty: bool,
    /// When the peer last took something, or had nothing to take.
    moved_at: Instant,
}

impl Writer {
    fn has_something(&self) -> bool {
        !self.out.is_empty() || self.is_dirty
    }

    /// Sends something. What is given up loses nothing.
    async fn write(&mut self) -> Result<(), Ending> {
        if self.out.is_empty() {
            self.stream.flush().await.map_err(|_| Ending::Gone)?;
            self.is_dirty = false;
            return Ok(());
        }
        let written = self.stream.write_buf(&mut self.out).await;
        let count = written.map_err(|_| Ending::Gone)?;
        if count == 0 {
            return Err(Ending::Gone);
        }
        self.is_dirty = true;
        self.moved_at = Instant::now();
        self.front.stats.sent_bytes.fetch_add(count as u64, Relaxed);
        if self.out.is_empty() {
            // Memory that an idle connection would hold.
            self.out = BytesMut::new();
        }
        Ok(())
    }

    /// Sends all that is left, and ends the stream.
    async fn last(&mut self) {
        let sent = async {
            while self.has_something() {
                if self.write().await.is_err() {
                    return;
                }
            }
            let _ = self.stream.shutdown().await;
        };
        let _ = timeout(LAST_WORDS_MAX, sent).await;
    }
}

/// A client's connection.
struct Connection {
    front: Arc<Front>,
    client: Client,
    peer: SocketAddr,
    frames: Frames<ReadHalf<AnyStream>>,
    writer: Writer,
    inbound: Inbound,
    outbound: Outbound,
    /// When the last packet came, or could not be read.
    heard_at: Instant,
    /// Nothing is read before this, because of the client's quota.
    reads_at: Instant,
    /// No messages are sent before this, likewise.
    sends_at: Instant,
}

/// What happened next.
enum Happened {
    Packet(Frame),
    /// Something moved; what follows from it is looked at anyway.
    Moved,
    End(Ending),
}

impl From<Result<(), Ending>> for Happened {
    fn from(result: Result<(), Ending>) -> Happened {
        match result {
            Ok(()) => Happened::Moved,
            Err(ending) => Happened::End(ending),
        }
    }
}

impl Connection {
    fn new(
        front: Arc<Front>,
        client: Client,
        frames: Frames<ReadHalf<AnyStream>>,
        writer: Writer,
        peer: SocketAddr,
    ) -> Connection {
        let now = Instant::now();
        Connection {
            inbound: Inbound::new(&front, &client),
            outbound: Outbound::new(&front, &client),
            front,
            client,
            peer,
            frames,
            writer,
            heard_at: now,
            reads_at: now,
            sends_at: now,
        }
    }

    /// Serves the client. Gives why that has an end.
    async fn serve(&mut self, place: &Place, stop: &mut watch::Receiver<bool>) -> Ending {
        let resumed = self.client.resumed.take();
        // They are given up when the session has them itself.
        let parts = std::mem::take(&mut self.client.parts);
        let resumes = Box::pin(self.outbound.resume(resumed, &mut self.writer.out));
        if let Err(ending) = resumes.await {
            return ending;
        }
        drop(parts);
        loop {
            match self.next(place, stop).await {
                Happened::Moved => {}
                Happened::End(ending) => return ending,
                Happened::Packet(frame) => {
                    if let Err(ending) = self.take(frame).await {
                        return ending;
                    }
                }
            }
        }
    }

    async fn next(&mut self, place: &Place, stop: &mut watch::Receiver<bool>) -> Happened {
        let now = Instant::now();
        if now >= self.sends_at {
            let wait = self.outbound.fill(&mut self.writer.out);
            self.sends_at = now + wait.min(PAUSE_MAX);
        }
        let is_full = self.writer.out.len() >= UNSENT_BYTES_MAX;
        let is_paused = now < self.reads_at;
        let reads = self.inbound.has_room() && !is_full && !is_paused;
        if !reads {
            self.heard_at = now;
        }
        if !self.writer.has_something() {
            self.writer.moved_at = now;
        }
        let wakes_at = self.wakes_at(now, reads);
        let Connection {
            client,
            frames,
            writer,
            inbound,
            outbound,
            ..
        } = self;
        let works = inbound.has_work(!is_full);
        let more = outbound.saves() || outbound.wants_more() && now >= self.sends_at;
        let looks = outbound.looks_further() && !is_full && now >= self.sends_at;
        let sends = writer.has_something();
        let mut acks = BytesMut::new();
        let out = &mut acks;
        let mut kept = BytesMut::new();
        let mut woken_at = None;
        // What the client says and is owed comes first: nothing of it waits while the log is read for it.
        let happened = tokio::select! {
            biased;
            () = stopped(stop) => Happened::End(Ending::Stopping),
            () = place.leave() => Happened::End(Ending::Evicted),
            ending = client.entered.ended() => Happened::End(ending),
            packet = frames.next(), if reads => match packet {
                Ok(Some(frame)) => Happened::Packet(frame),
                Ok(None) => Happened::End(Ending::Gone),
                Err(ending) => Happened::End(ending),
            },
            stored = inbound.step(!is_full, out), if works => stored.into(),
            written = writer.write(), if sends => written.into(),
            read = outbound.step(&mut kept), if more => read.into(),
            () = tokio::task::yield_now(), if looks => Happened::Moved,
            () = sleep_until(wakes_at) => {
                woken_at = Some(Instant::now());
                Happened::Moved
            }
        };
        self.writer.out.extend_from_slice(&acks);
        self.writer.out.extend_from_slice(&kept);
        match woken_at.and_then(|now| self.overdue(now, reads)) {
            Some(ending) => Happened::End(ending),
            None => happened,
        }
    }

    /// When somebody has to look again, whatever happens.
    fn wakes_at(&self, now: Instant, reads: bool) -> Instant {
        let silence = self.client.silence_max.filter(|_| reads);
        let unread = self.front.shared.idle_max;
        [
            silence.map(|silence| self.heard_at + silence),
            self.writer
                .has_something()
                .then(|| self.writer.moved_at + unread),
            Some(self.reads_at).filter(|at| *at > now),
            Some(self.sends_at).filter(|at| *at > now),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(now + unread)
    }

    /// Why the connection is at its end, if it is.
    fn overdue(&self, now: Instant, reads: bool) -> Option<Ending> {
        let silence = self.client.silence_max.filter(|_| reads);
        if silence.is_some_and(|silence| now >= self.heard_at + silence) {
            return Some(Ending::KeepAlive);
        }
        let is_stuck = now >= self.writer.moved_at + self.front.shared.idle_max;
        (self.writer.has_something() && is_stuck).then_some(Ending::Unread)
    }

    /// Takes a packet.
    async fn take(&mut self, frame: Frame) -> Result<(), Ending> {
        self.heard_at = Instant::now();
        let received = &self.front.stats.received_bytes;
        received.fetch_add(frame.bytes as u64, Relaxed);
        let version = self.client.version;
        let body = frame.body.clone();
        let out = &mut self.writer.out;
        match decode(version, frame.first, &body)? {
            Incoming::Publish(said) => {
                let wait = self.inbound.publish(frame, &said)?;
                self.reads_at = self.heard_at + wait.min(PAUSE_MAX);
            }
            Incoming::Ack(ack) if ack.kind == AckKind::Pubrel => self.inbound.release(ack),
            Incoming::Ack(ack) => self.outbound.ack(ack, out)?,
            Incoming::Subscribe(asked) => {
                self.inbound.settle().await;
                let codes = Box::pin(self.outbound.subscribe(&asked)).await?;
                suback(out, version, asked.packet_id, &codes);
            }
            Incoming::Unsubscribe(asked) => {
                let codes = Box::pin(self.outbound.unsubscribe(&asked)).await?;
                unsuback(out, version, asked.packet_id, &codes);
            }
            Incoming::Pingreq => pingresp(out),
            Incoming::Disconnect(said) => return Err(self.disconnected(said)),
        }
        Ok(())
    }

    fn disconnected(&self, said: Disconnect) -> Ending {
        // A session that was to end with its connection is not kept after all (§3.14.2.2.2).
        if said.session_expiry.is_some_and(|it| it > 0) && !self.client.session.is_kept() {
            const MORE: &str = "a session expiry where there was none";
            return Fault::Protocol(MORE).into();
        }
        Ending::Disconnected {
            with_will: said.reason != 0,
            session_expiry: said.session_expiry,
        }
    }

    /// Takes what the client had said before the connection ended, for a reason that it did not know of: that it goes may be among it.
    async fn heard_out(&mut self, ending: Ending) -> Ending {
        if !matches!(ending, Ending::TakenOver | Ending::Gone | Ending::Unread) {
            return ending;
        }
        let heard = async {
            loop {
                while !self.inbound.has_room() {
                    self.inbound.step(true, &mut self.writer.out).await?;
                }
                match timeout(HEARD_WITHIN, self.frames.next()).await {
                    Ok(Ok(Some(frame))) => self.take(frame).await?,
                    _ => return Ok::<(), Ending>(()),
                }
            }
        };
        match timeout(HEARD_OUT_MAX, heard).await {
            Ok(Err(said @ Ending::Disconnected { .. })) => said,
            _ => ending,
        }
    }

    /// Ends the connection: what is on its way is stored, the peer is told why, and the will is published.
    async fn end(mut self, ending: Ending) {
        let ending = self.heard_out(ending).await;
        tracing::debug!(peer = %self.peer, %ending, "an MQTT connection ends");
        let stores = async {
            let acks = ending == Ending::Stopping;
            while self.inbound.has_work(acks) {
                self.inbound.step(acks, &mut self.writer.out).await?;
            }
            Ok::<_, Ending>(())
        };
        // A failure ends it too.
        let _ = timeout(LAST_WORDS_MAX, stores).await;
        let Connection {
            front,
            client,
            mut frames,
            mut writer,
            inbound,
            mut outbound,
            ..
        } = self;
        drop(inbound);
        let Client {
            session,
            version,
            packet_bytes_max,
            entered: _entered,
            ..
        } = client;
        let (mut left, shared_ends) = outbound.leaves();
        let how = leaving(&session, &ending, &front);
        drop(outbound);
        // Whoever takes over from it waits for its session, and not for its last words. It goes on, whatever becomes of this task.
        let leaves = {
            let front = Arc::clone(&front);
            tokio::spawn(async move {
                let lost = shared_ends.await;
                if let Some(left) = &mut left {
                    let pending = &mut left.sending.pending;
                    pending.retain(|it| !lost.contains(&it.packet_id));
                }
                session.leave(&front, how, left).await;
            })
        };
        let _ = timeout(LAST_WORDS_MAX, leaves).await;
        if let Some(code) = errors::of_ending(&ending) {
            front.stats.ended(code);
            if version == Version::V5 {
                let reason = ending.to_string();
                let fits = reason.len() + 16 <= packet_bytes_max;
                let reason = Some(reason.as_str()).filter(|_| fits);
                disconnect(&mut writer.out, code, reason);
            }
            writer.last().await;
            let _ = timeout(LINGER_MAX, frames.linger()).await;
        }
    }
}

/// How the client leaves its session.
fn leaving(session: &Session, ending: &Ending, front: &Front) -> Leaving {
    let (with_will, said) = match ending {
        Ending::Disconnected {
            with_will,
            session_expiry,
        } => (*with_will, *session_expiry),
        _ => (true, None),
    };
    let longest = front.settings.session_expiry_max_seconds();
    let said = said.map(|seconds| seconds.min(longest));
    Leaving {
        with_will,
        expiry_seconds: said.unwrap_or(session.expiry_seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the task of a connection takes, whatever it waits for: an idle one holds all of it.
    fn task_bytes<Serves: Future>(
        _: fn(AnyStream, OfPeer, Arc<Front>, watch::Receiver<bool>) -> Serves,
    ) -> usize {
        size_of::<Serves>()
    }

    #[test]
    fn an_idle_connection_holds_no_memory_of_its_beginning_and_end() {
        // With the greeting, a session's resuming and the end in it, it had three times as much.
        let bytes = task_bytes(run);
        assert!(bytes <= 4_608, "{bytes} bytes");
        let state = size_of::<Connection>();
        assert!(state <= 2_048, "{state} bytes");
    }
}
