//! One connection: its endpoint, what it is sent and what it sends, driven until one side ends it.
//! Callers: `amqp::Front::serve`, one task for each connection.
//! Invariants: nothing waits for the peer to take what is sent but what is sent. What is unsent is bounded, and while it is full, or
//! as much came as may wait for the disk, nothing is read; that does not count as silence. A client that has not opened its
//! connection in ten seconds is gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use amqp::endpoint::{Attached, Endpoint, Event, Frame, LinkId, Scope, Settled, error};
use amqp::performative::{Attach, Open, Role, SenderSettleMode};
use amqp::terminus::{AnyTarget, Source};
use amqp::{MapBuf, Multiple, Value};
use model::quota::Quota;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::address::NoNode;
use super::bounds::{
    CONTAINER_ID_BYTES_MAX, FRAME_BYTES_MAX, LINKS_MAX, NUMBER_MAX, UNSENT_BYTES_MAX,
    UNSETTLED_MAX, WINDOW,
};
use super::cursor::Cursors;
use super::errors::{Ending, NoLink};
use super::login::Login;
use super::producing::Inbound;
use super::state::Front;
use super::stream::{Reader, Writer};
use crate::broker::access::{Caller, Door, Protocol};
use crate::front::listener::{Accepted, stopped};
use crate::front::places::Place;

/// A connection is opened so long after it was made, or never.
const OPENING_MAX: Duration = Duration::from_secs(10);
/// How long a peer may take to close after we did.
const CLOSING_MAX: Duration = Duration::from_secs(2);
/// The silence that is borne; peers are told half of it.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long what is owed may take when the server stops.
const STORING_MAX: Duration = Duration::from_secs(5);
/// No pause is longer that a client's quota asks for.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Which connection it is: sessions of different ones go to different partitions.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Serves a connection until it ends.
pub(super) async fn run(accepted: Accepted, front: Arc<Front>, mut stop: watch::Receiver<bool>) {
    let Accepted {
        stream,
        place,
        peer,
        transport,
    } = accepted;
    let (read, write) = tokio::io::split(stream);
    let login = Login::new(&front, transport, peer);
    let now = Instant::now();
    let settings = amqp::endpoint::Settings {
        container_id: "alluvium".to_owned(),
        frame_bytes_max: FRAME_BYTES_MAX,
        channel_max: NUMBER_MAX,
        handle_max: NUMBER_MAX.into(),
        links_max: LINKS_MAX,
        silence_max: SILENCE_MAX,
        window: WINDOW,
        message_bytes_max: front.settings.message_bytes_max as u64,
        partial_bytes_max: 4 * front.settings.message_bytes_max,
        unsettled_max: UNSETTLED_MAX,
        first_id: 0,
        mechanisms: login.mechanisms(),
        allows_bare: login.allows_bare(),
    };
    let mut connection = Connection {
        reader: Reader::new(&front, read),
        writer: Writer::new(&front, write),
        endpoint: Endpoint::new(settings, now.into_std()),
        inbound: Inbound::new(&front, NUMBER.fetch_add(1, Relaxed)),
        cursors: Cursors::new(&front),
        login,
        door: None,
        peer,
        began_at: now,
        closed_at: None,
        reads_at: now,
        sends_at: now,
        front,
    };
    let ending = connection.serve(&place, &mut stop).await;
    connection.end(ending).await;
}

struct Connection {
    front: Arc<Front>,
    reader: Reader,
    writer: Writer,
    endpoint: Endpoint,
    inbound: Inbound,
    cursors: Cursors,
    login: Login,
    /// The broker, as the client may use it; once the connection is open.
    door: Option<Arc<Door>>,
    peer: SocketAddr,
    began_at: Instant,
    /// Since when we wait for the peer to close.
    closed_at: Option<Instant>,
    /// Nothing is read before this, because of the client's quota.
    reads_at: Instant,
    /// Nothing is sent before this, likewise.
    sends_at: Instant,
}

impl Connection {
    async fn serve(&mut self, place: &Place, stop: &mut watch::Receiver<bool>) -> Ending {
        let mut stays = None;
        loop {
            if let Err(ending) = self.next(place, stop).await {
                return ending;
            }
            if self.endpoint.is_over() {
                return Ending::Over;
            }
            // A client that is idle is of use: it makes no room.
            if stays.is_none() && self.endpoint.is_running() {
                stays = Some(place.stay());
            }
        }
    }

    /// Whether more is taken of the peer.
    fn takes(&mut self) -> bool {
        self.inbound.has_room() && self.endpoint.output().len() < UNSENT_BYTES_MAX
    }

    /// What is held of what the peer sent, beside what was read and not taken.
    fn held_bytes(&self) -> usize {
        self.inbound.held_bytes() + self.endpoint.partial_bytes()
    }

    /// Takes what was read, sends what is there, and waits for what happens.
    async fn next(
        &mut self,
        place: &Place,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Ending> {
        let now = Instant::now();
        while self.takes()
            && let Some(frame) = self.endpoint.cut(&mut self.reader.input, now.into_std())
        {
            self.take(&frame).await?;
        }
        if self.endpoint.is_over() {
            return Ok(());
        }
        self.prepare(now)?;
        let reads = self.takes() && now >= self.reads_at;
        if !reads {
            self.endpoint.pauses(now.into_std());
        }
        let more = now >= self.sends_at && self.cursors.wants_more(&self.endpoint);
        let held = self.held_bytes();
        self.reader.holds(held);
        let wakes_at = self.wakes_at(now);
        let is_partial = self.endpoint.partial_bytes() > 0;
        let Connection {
            reader,
            writer,
            endpoint,
            inbound,
            cursors,
            door,
            ..
        } = self;
        let out = endpoint.output();
        let sends = writer.has_something(out);
        if !sends {
            writer.moved_at = now;
        }
        let works = door.is_some() && inbound.has_work();
        let mut ended = None;
        let mut has_sent = false;
        tokio::select! {
            () = stopped(stop) => return Err(Ending::Stopping),
            () = place.leave() => return Err(Ending::Evicted),
            () = store(inbound, door.as_ref()), if works => {}
            written = writer.write(out), if sends => {
                written?;
                has_sent = true;
            }
            read = reader.read(held, is_partial), if reads => read?,
            read = read_on(cursors, door.as_ref()), if more => ended = read.err(),
            () = sleep_until(wakes_at) => {}
        }
        let now = Instant::now();
        if has_sent {
            self.endpoint.sent(now.into_std());
        }
        if let Some((link, why)) = ended {
            self.detach(link, &why);
        }
        self.look_at_time(now, sends)
    }

    /// Settles what is decided, gives credit, and sends what was read.
    fn prepare(&mut self, now: Instant) -> Result<(), Ending> {
        if !self.inbound.settle(&mut self.endpoint, now) {
            return Err(Ending::Stopping);
        }
        self.inbound.top_up(&mut self.endpoint, now);
        if now >= self.sends_at
            && let Some(door) = &self.door
        {
            let (wait, ended) = self.cursors.fill(door, &mut self.endpoint);
            self.sends_at = now + wait.min(PAUSE_MAX);
            if let Some((link, why)) = ended {
                self.detach(link, &why);
            }
        }
        Ok(())
    }

    /// When somebody has to look again, whatever happens.
    fn wakes_at(&self, now: Instant) -> Instant {
        let opening = self.began_at + OPENING_MAX;
        [
            Some(Instant::from_std(self.endpoint.wakes_at())),
            Some(opening).filter(|_| !self.endpoint.is_running()),
            self.closed_at.map(|at| at + CLOSING_MAX),
            self.inbound.rests_until(),
            Some(self.reads_at).filter(|at| *at > now),
            Some(self.sends_at).filter(|at| *at > now),
            Some(self.writer.moved_at + self.front.shared.idle_max),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(opening)
    }

    /// Ends what has taken too long.
    fn look_at_time(&mut self, now: Instant, sends: bool) -> Result<(), Ending> {
        self.endpoint.tick(now.into_std());
        let is_closing = self.endpoint.is_closing();
        if is_closing && self.closed_at.is_none() {
            self.closed_at = Some(now);
        }
        let is_late =
            !self.endpoint.is_running() && !is_closing && now >= self.began_at + OPENING_MAX;
        let is_left = self.closed_at.is_some_and(|at| now >= at + CLOSING_MAX);
        if is_late || is_left {
            return Err(Ending::Over);
        }
        let is_stuck = sends && now >= self.writer.moved_at + self.front.shared.idle_max;
        if is_stuck {
            Err(Ending::Unread)
        } else {
            Ok(())
        }
    }

    /// Takes a frame.
    async fn take(&mut self, frame: &Frame) -> Result<(), Ending> {
        let Some(event) = self.endpoint.receive(frame) else {
            return Ok(());
        };
        match event {
            Event::Login(step) => self.login.take(step, &mut self.endpoint).await,
            Event::Open(open) => self.open(&open)?,
            Event::Attach {
                link,
                attach,
                stolen,
            } => {
                if let Some(stolen) = stolen {
                    self.forget(|it| it == stolen);
                }
                self.attach(link, &attach).await;
            }
            // The endpoint knows it; credit and drains are looked at before anything is waited for.
            Event::Flow(..) => {}
            Event::Delivery(link, delivery) => {
                let bytes = delivery.payload.len();
                self.inbound.push(link, delivery);
                self.charge(bytes);
            }
            Event::Settled(said) => self.settled(&said),
            Event::Detached { link, .. } => self.forget(|it| it == link),
            Event::Ended(channel, _) => self.forget(|it| it.channel == channel),
            Event::Closed(_) => self.forget(|_| true),
            Event::Fault(fault) => {
                tracing::debug!(peer = %self.peer, %fault, "an AMQP client broke the protocol");
                self.front.stats.ended(fault.condition.symbol());
                match fault.scope {
                    Scope::Connection => self.forget(|_| true),
                    Scope::Session(channel) => self.forget(|it| it.channel == channel),
                    Scope::Link(link) => self.forget(|it| it == link),
                }
            }
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize) {
        let Some(door) = &self.door else { return };
        let quotas = self.front.broker.quotas();
        let wait = quotas.charge(Quota::ProducerByteRate, door.caller(), bytes as f64);
        quotas.note(Quota::ProducerByteRate, wait);
        self.reads_at = Instant::now() + wait.min(PAUSE_MAX);
    }

    fn forget(&mut self, is_gone: impl Fn(LinkId) -> bool) {
        self.inbound.forget(&is_gone);
        self.cursors.forget(&is_gone);
    }

    fn detach(&mut self, link: LinkId, why: &NoLink) {
        let condition = why.condition(true);
        tracing::debug!(peer = %self.peer, %why, "an AMQP link ends");
        self.front.stats.ended(condition.symbol());
        let text = why.to_string();
        self.endpoint
            .detach(link, true, Some(error(condition, &text)));
        self.forget(|it| it == link);
    }

    fn open(&mut self, open: &Open<'_>) -> Result<(), Ending> {
        if open.container_id.len() > CONTAINER_ID_BYTES_MAX {
            return Err(Ending::ContainerId);
        }
        self.door = Some(Arc::new(self.front.broker.door(Caller {
            principal: self.login.principal.clone(),
            address: self.peer,
            client_id: Some(open.container_id.to_owned()),
            protocol: Protocol::Amqp,
        })));
        let mut properties = MapBuf::new();
        properties.put_symbol("product", &Value::String("Alluvium"));
        let version = Value::String(env!("CARGO_PKG_VERSION"));
        properties.put_symbol("version", &version);
        let properties = Some(properties.as_map());
        self.endpoint.accept_open(&["ANONYMOUS-RELAY"], properties);
        Ok(())
    }

    async fn attach(&mut self, link: LinkId, attach: &Attach<'_>) {
        let Some(door) = self.door.clone() else {
            return;
        };
        let attached = match attach.role {
            Role::Sender => self.attach_producer(&door, link, attach).await,
            Role::Receiver => self.attach_cursor(&door, link, attach),
        };
        if let Err(why) = attached {
            let condition = why.condition(false);
            tracing::debug!(peer = %self.peer, %why, "an AMQP link is refused");
            self.front.stats.ended(condition.symbol());
            let text = why.to_string();
            self.endpoint.refuse(link, error(condition, &text));
            self.forget(|it| it == link);
        }
    }

    async fn attach_producer(
        &mut self,
        door: &Door,
        link: LinkId,
        attach: &Attach<'_>,
    ) -> Result<(), NoLink> {
        let target = match attach.target {
            None => return Err(NoNode.into()),
            Some(AnyTarget::Coordinator(_)) => return Err(NoLink::Transactions),
            Some(AnyTarget::Target(target)) => target,
        };
        if target.dynamic {
            return Err(NoLink::Dynamic);
        }
        let to = match target.address {
            None => None,
            Some(address) => Some(address.text().ok_or(NoNode)?),
        };
        self.inbound.open(door, link, to).await?;
        if !self.answer(link, attach, attach.source) {
            self.forget(|it| it == link);
        }
        Ok(())
    }

    fn attach_cursor(
        &mut self,
        door: &Door,
        link: LinkId,
        attach: &Attach<'_>,
    ) -> Result<(), NoLink> {
        let source = attach.source.ok_or(NoNode)?;
        let sends_settled = attach.snd_settle_mode == SenderSettleMode::Settled;
        let asked = self.cursors.open(door, link, &source, sends_settled)?;
        let in_force = asked.in_force.as_map();
        let source = Source {
            filter: Some(in_force).filter(|it| !it.is_empty()),
            ..source
        };
        if !self.answer(link, attach, Some(source)) {
            self.forget(|it| it == link);
        }
        Ok(())
    }

    /// Answers an attach as it was asked for, but for its source.
    fn answer(&mut self, link: LinkId, attach: &Attach<'_>, source: Option<Source<'_>>) -> bool {
        let with = Attached {
            source,
            target: attach.target,
            snd_settle_mode: attach.snd_settle_mode,
            rcv_settle_mode: attach.rcv_settle_mode,
            offered_capabilities: Multiple::None,
            properties: None,
        };
        self.endpoint.accept(link, &with)
    }

    /// Nothing follows for a cursor from what a receiver says, but that it is settled.
    fn settled(&mut self, said: &Settled<'_>) {
        let is_done = said.state.is_some_and(|state| state.is_outcome());
        let ends = said.deliveries.first().zip(said.deliveries.last());
        if let (false, true, Some(((_, first), (_, last)))) = (said.settled, is_done, ends) {
            let ids = (*first, *last);
            self.endpoint.settle_sent(said.channel, ids, said.state);
        }
    }

    /// Ends the connection: what is on its way is stored and settled, and the peer is told why.
    async fn end(mut self, ending: Ending) {
        tracing::debug!(peer = %self.peer, %ending, "an AMQP connection ends");
        if let (Ending::Stopping, Some(door)) = (ending, self.door.clone()) {
            let stores = async {
                while self.inbound.has_work() {
                    self.inbound.step(&door).await;
                    if !self.inbound.settle(&mut self.endpoint, Instant::now()) {
                        return;
                    }
                }
            };
            // What is not stored by then is not settled either.
            let _ = timeout(STORING_MAX, stores).await;
        }
        if let Some(condition) = ending.condition() {
            self.front.stats.ended(condition.symbol());
            let text = ending.to_string();
            self.endpoint.close(Some(error(condition, &text)));
        }
        if ending == Ending::Unread {
            return;
        }
        self.writer.last(self.endpoint.output()).await;
        self.reader.linger().await;
    }
}

async fn store(inbound: &mut Inbound, door: Option<&Arc<Door>>) {
    if let Some(door) = door {
        inbound.step(door).await;
    }
}

async fn read_on(cursors: &mut Cursors, door: Option<&Arc<Door>>) -> Result<(), (LinkId, NoLink)> {
    match door {
        Some(door) => cursors.read(door).await,
        None => Ok(()),
    }
}
