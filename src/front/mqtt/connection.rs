//! One connection: the greeting, and then packets both ways until one side ends it.
//! Callers: `mqtt::Front::serve`, one task for each connection.
//! Invariants: nothing waits for the peer to take what is sent but what is sent: reading, storing and acknowledging go on side by side.
//! What is unsent is bounded, and while it is full nothing is read. A client that is silent for one and a half times its keep alive is
//! disconnected; while nothing is read of it, that does not count. A connection that ends without a DISCONNECT of the client has its
//! will published, once. While there is nothing to do in either direction a connection rests: then it holds little memory.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::bounds::{GREETING_BYTES_MAX, UNSENT_BYTES_MAX};
use super::ending::Ending;
use super::errors;
use super::frame::{Frame, Frames};
use super::greeting::{Client, Resumed, greet};
use super::inbound::Inbound;
use super::outbound::Outbound;
use super::packet::{
    AckKind, Disconnect, Fault, Incoming, Version, decode, disconnect, pingresp, suback, unsuback,
};
use super::session::{Leaving, Session};
use super::state::Front;
use crate::front::listener::{AnyStream, OfPeer, stopped};
use crate::front::places::{Place, Stay};

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

/// Serves a connection until it ends. All that it holds while it is idle is this future and what it has of its client: what happens once,
/// or while there is something to do, stands in boxes.
pub(super) fn run(
    stream: AnyStream,
    of_peer: OfPeer,
    front: Arc<Front>,
    stop: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send + 'static {
    serve(Box::pin(begin(stream, of_peer, front, stop)))
}

/// A client's connection, and why it ends already, if it does.
type Begun = (Box<Connection>, Option<Ending>);

async fn serve(begins: Pin<Box<impl Future<Output = Option<Begun>> + Send>>) {
    let Some((mut connection, mut ended)) = begins.await else {
        return;
    };
    let ending = loop {
        if let Some(ending) = ended {
            break ending;
        }
        ended = match Box::pin(connection.work()).await {
            Ok(()) => connection.rest().await.err(),
            Err(ending) => Some(ending),
        };
    };
    Box::pin(connection.end(ending)).await;
}

/// Lets a client in, and goes on with what is there of its session.
async fn begin(
    stream: AnyStream,
    (place, peer, transport): OfPeer,
    front: Arc<Front>,
    mut stop: watch::Receiver<bool>,
) -> Option<Begun> {
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
    let greeted = tokio::select! {
        greeted = timeout(GREETING_MAX, greeting) => greeted.ok().flatten(),
        () = place.leave() => None,
        () = stopped(&mut stop) => None,
    };
    let Some((client, resumed)) = greeted else {
        writer.last().await;
        return None;
    };
    if writer.out.len() > client.packet_bytes_max {
        return None;
    }
    // A client that is idle is of use: it makes no room, unless it was asked to before.
    let stay = place.stay();
    frames.limit(front.settings.packet_bytes_max);
    let mut connection = Box::new(Connection::new(
        front,
        client,
        (frames, writer),
        (place, stay),
    ));
    let ended = connection.resume(resumed).await.err();
    let is_asked = || connection.place.leave().now_or_never().is_some();
    let ended = ended.or_else(|| is_asked().then_some(Ending::Evicted));
    Some((connection, ended))
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
    frames: Frames<ReadHalf<AnyStream>>,
    writer: Writer,
    /// What it publishes; None while nothing is to be known of that.
    inbound: Option<Box<Inbound>>,
    /// What it subscribes to; None while that is nothing.
    outbound: Option<Box<Outbound>>,
    /// When the last packet came, or could not be read.
    heard_at: Instant,
    /// Nothing is read before this, because of the client's quota.
    reads_at: Instant,
    /// No messages are sent before this, likewise.
    sends_at: Instant,
    place: Place,
    _stay: Stay,
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

/// What a client publishes goes through this, which is made where it is needed.
fn inbound_of<'a>(
    inbound: &'a mut Option<Box<Inbound>>,
    (front, client): (&Arc<Front>, &Client),
) -> &'a mut Inbound {
    inbound.get_or_insert_with(|| Box::new(Inbound::new(front, client, BTreeSet::new())))
}

/// The same of what it subscribes to.
fn outbound_of<'a>(
    outbound: &'a mut Option<Box<Outbound>>,
    (front, client): (&Arc<Front>, &Client),
) -> &'a mut Outbound {
    outbound.get_or_insert_with(|| {
        let mut new = Box::new(Outbound::new(front, client));
        // What was kept was taken up when the connection began.
        new.is_resumed = true;
        new
    })
}

impl Connection {
    fn new(
        front: Arc<Front>,
        client: Client,
        (frames, writer): (Frames<ReadHalf<AnyStream>>, Writer),
        (place, stay): (Place, Stay),
    ) -> Connection {
        let now = Instant::now();
        Connection {
            inbound: None,
            outbound: None,
            front,
            client,
            frames,
            writer,
            heard_at: now,
            reads_at: now,
            sends_at: now,
            place,
            _stay: stay,
        }
    }

    /// Goes on with what is there of the session.
    async fn resume(&mut self, resumed: Resumed) -> Result<(), Ending> {
        // The parts are given up when the session has them itself.
        let Resumed {
            state,
            parts: _parts,
        } = resumed;
        let (front, client) = (&self.front, &self.client);
        if let Some(state) = state.as_ref().filter(|it| !it.received.is_empty()) {
            let inbound = Inbound::new(front, client, state.received.clone());
            self.inbound = Some(Box::new(inbound));
        }
        let outbound = Box::new(Outbound::new(front, client));
        let outbound = self.outbound.insert(outbound);
        outbound.resume(state, &mut self.writer.out).await
    }

    /// Does what there is to do, until there is nothing.
    async fn work(&mut self) -> Result<(), Ending> {
        loop {
            match self.next().await {
                Happened::Moved => {}
                Happened::End(ending) => return Err(ending),
                Happened::Packet(frame) => self.take(frame).await?,
            }
            if self.rests() {
                return Ok(());
            }
        }
    }

    /// Whether nothing is under way in either direction. What says nothing is given up then.
    fn rests(&mut self) -> bool {
        if self.writer.has_something() || !self.frames.is_empty() {
            return false;
        }
        self.inbound.take_if(|it| it.is_over());
        let works = self.inbound.as_ref().is_some_and(|it| it.has_work(true));
        if works || self.outbound.as_ref().is_some_and(|it| !it.rests()) {
            return false;
        }
        let now = Instant::now();
        if now < self.reads_at || now < self.sends_at {
            return false;
        }
        self.outbound.take_if(|it| it.is_over());
        true
    }

    /// Waits until there is something to do.
    async fn rest(&mut self) -> Result<(), Ending> {
        let Connection {
            client,
            frames,
            outbound,
            ..
        } = self;
        let silence_ends = client.silence_max.map(|silence| self.heard_at + silence);
        let silence = silence_ends.map(sleep_until);
        tokio::pin!(silence);
        poll_fn(|context| {
            if let Poll::Ready(ending) = client.entered.poll_ended(context) {
                return Poll::Ready(Err(ending));
            }
            if let Poll::Ready(came) = frames.poll_came(context) {
                return Poll::Ready(came);
            }
            let outbound = outbound.as_mut();
            if outbound.is_some_and(|it| it.poll_came(context).is_ready()) {
                return Poll::Ready(Ok(()));
            }
            let silence = silence.as_mut().as_pin_mut();
            if silence.is_some_and(|it| it.poll(context).is_ready()) {
                return Poll::Ready(Err(Ending::KeepAlive));
            }
            Poll::Pending
        })
        .await
    }

    async fn next(&mut self) -> Happened {
        let now = Instant::now();
        if let Some(outbound) = self.outbound.as_mut().filter(|_| now >= self.sends_at) {
            let wait = outbound.fill(&mut self.writer.out);
            self.sends_at = now + wait.min(PAUSE_MAX);
        }
        let is_full = self.writer.out.len() >= UNSENT_BYTES_MAX;
        let is_paused = now < self.reads_at;
        let has_room = self.inbound.as_ref().is_none_or(|it| it.has_room());
        let reads = has_room && !is_full && !is_paused;
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
        let (inbound, outbound) = (inbound.as_deref_mut(), outbound.as_deref_mut());
        let works = inbound.as_ref().is_some_and(|it| it.has_work(!is_full));
        let (mut more, mut looks) = (false, false);
        if let Some(outbound) = &outbound {
            let sends = now >= self.sends_at;
            more = outbound.saves() || outbound.wants_more() && sends;
            looks = outbound.looks_further() && !is_full && sends;
        }
        let sends = writer.has_something();
        let mut acks = BytesMut::new();
        let mut kept = BytesMut::new();
        let stores = async {
            let inbound = inbound.expect("it has work");
            inbound.step(!is_full, &mut acks).await
        };
        let reads_on = async {
            let outbound = outbound.expect("it wants more");
            outbound.step(&mut kept).await
        };
        let mut woken_at = None;
        // What the client says and is owed comes first: nothing of it waits while the log is read for it.
        let happened = tokio::select! {
            biased;
            ending = client.entered.ended() => Happened::End(ending),
            packet = frames.next(), if reads => match packet {
                Ok(Some(frame)) => Happened::Packet(frame),
                Ok(None) => Happened::End(Ending::Gone),
                Err(ending) => Happened::End(ending),
            },
            stored = stores, if works => stored.into(),
            written = writer.write(), if sends => written.into(),
            read = reads_on, if more => read.into(),
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
        let of = (&self.front, &self.client);
        let (inbound, outbound) = (&mut self.inbound, &mut self.outbound);
        match decode(version, frame.first, &body)? {
            Incoming::Publish(said) => {
                let wait = inbound_of(inbound, of).publish(frame, &said)?;
                self.reads_at = self.heard_at + wait.min(PAUSE_MAX);
            }
            Incoming::Ack(ack) if ack.kind == AckKind::Pubrel => {
                inbound_of(inbound, of).release(ack);
            }
            Incoming::Ack(ack) => outbound_of(outbound, of).ack(ack, out)?,
            Incoming::Subscribe(asked) => {
                if let Some(inbound) = inbound {
                    inbound.settle().await;
                }
                let codes = outbound_of(outbound, of).subscribe(&asked).await?;
                suback(out, version, asked.packet_id, &codes);
            }
            Incoming::Unsubscribe(asked) => {
                let codes = outbound_of(outbound, of).unsubscribe(&asked).await?;
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
                if let Some(inbound) = &mut self.inbound {
                    while !inbound.has_room() {
                        inbound.step(true, &mut self.writer.out).await?;
                    }
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
        let peer = self.client.door.caller().address;
        tracing::debug!(%peer, %ending, "an MQTT connection ends");
        let stores = async {
            let acks = ending == Ending::Stopping;
            if let Some(inbound) = &mut self.inbound {
                while inbound.has_work(acks) {
                    inbound.step(acks, &mut self.writer.out).await?;
                }
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
        let outbound_now = outbound_of(&mut outbound, (&front, &client));
        let (mut left, shared_ends) = outbound_now.leaves();
        drop(outbound);
        let Client {
            session,
            version,
            packet_bytes_max,
            entered: _entered,
            ..
        } = client;
        let how = leaving(&session, &ending, &front);
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
    use super::super::feed::Feed;
    use super::*;

    /// What the task of a connection takes, whatever it waits for: an idle one holds all of it.
    fn task_bytes<Serves: Future>(
        _: fn(AnyStream, OfPeer, Arc<Front>, watch::Receiver<bool>) -> Serves,
    ) -> usize {
        size_of::<Serves>()
    }

    #[test]
    fn an_idle_connection_holds_no_memory_of_its_beginning_and_end() {
        // With what happens once in a connection in it, the task alone had ten times as much; with what is there while there is something to
        // do, three.
        let bytes = task_bytes(run);
        assert!(bytes <= 320, "{bytes} bytes");
        let state = size_of::<Connection>();
        assert!(state <= 448, "{state} bytes");
        let subscribes = (size_of::<Outbound>(), size_of::<Feed>());
        assert!(
            subscribes.0 <= 512 && subscribes.1 <= 256,
            "{subscribes:?} bytes"
        );
    }
}
