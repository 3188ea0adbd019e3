//! One connection: its endpoint, what it is sent and what it sends, driven until one side ends it.
//! Callers: `amqp::Front::serve`, one task for each connection.
//! Invariants: nothing waits for the peer to take what is sent but what is sent. What is unsent is bounded, and while it is full, or
//! as much came as may wait for the disk, nothing is read; that does not count as silence. A link, session or connection whose client
//! waits for what becomes of deliveries ends behind that. A client that has not opened its connection in ten seconds is gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use amqp::endpoint::{Attached, Delivery, Endpoint, Event, Frame, LinkId, Scope, Settled, error};
use amqp::performative::{Attach, Error, Open, Role, SenderSettleMode};
use amqp::state::{DeliveryState, TransactionalState};
use amqp::terminus::{AnyTarget, Coordinator, Source, Target, TerminusDurability};
use amqp::{Field as _, MapBuf, Multiple, Symbol, Value};
use model::quota::Quota;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::address::{NoNode, SourceNode};
use super::bounds::{
    CONTAINER_ID_BYTES_MAX, LINKS_MAX, NUMBER_MAX, UNSENT_BYTES_MAX, UNSETTLED_MAX, WINDOW,
};
use super::containers::{SOLE_CONNECTION, Sole};
use super::cursor::{Cursors, Start, Wanted};
use super::errors::{CONTAINER_IN_USE, Ending, NoLink, NoRequest};
use super::login::Login;
use super::management;
use super::outcome::Outcome;
use super::owners::{self, Lost};
use super::pinned::Pinned;
use super::producing::Inbound;
use super::queue::{Gone, Queues, Told};
use super::receiving;
use super::requests::{Request, RequestNode, Requests};
use super::state::Front;
use super::stream::{Reader, Writer};
use super::subscriptions::{self, InUse};
use super::temporary::Temporaries;
use crate::broker::Topic;
use crate::broker::access::{Caller, Door, Granted, Protocol, is_temporary, right};
use crate::broker::replay::Place;
use crate::front::listener::{AnyStream, OfPeer, stopped};
use crate::front::places;
use crate::front::written::made;

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
pub(super) async fn run(
    stream: AnyStream,
    (place, peer, transport): OfPeer,
    front: Arc<Front>,
    mut stop: watch::Receiver<bool>,
) {
    let (read, write) = tokio::io::split(stream);
    let login = Login::new(&front, transport, peer);
    let now = Instant::now();
    let settings = amqp::endpoint::Settings {
        container_id: "alluvium".to_owned(),
        frame_bytes_max: front.settings.frame_bytes_max,
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
    let lost = Arc::default();
    let mut connection = Connection {
        reader: Reader::new(&front, read),
        writer: Writer::new(&front, write),
        endpoint: Endpoint::new(settings, now.into_std()),
        inbound: Inbound::new(&front, NUMBER.fetch_add(1, Relaxed)),
        cursors: Cursors::new(&front, &lost),
        queues: Queues::new(&front),
        temporaries: Temporaries::new(&front),
        requests: Requests::new(&front),
        lost,
        left: Vec::new(),
        ending: None,
        login,
        sole: None,
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
    queues: Queues,
    temporaries: Temporaries,
    requests: Requests,
    /// Readers that others have taken their partitions from.
    lost: Arc<Lost>,
    /// Subscriptions that their client wants to be rid of, and the links that say so.
    left: Vec<(LinkId, InUse)>,
    /// A frame that ends what the peer is still owed something for: nothing is taken before it.
    ending: Option<Frame>,
    login: Login,
    /// Its container id, if that is to be its alone.
    sole: Option<Sole>,
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
    async fn serve(&mut self, place: &places::Place, stop: &mut watch::Receiver<bool>) -> Ending {
        let mut stays = None;
        loop {
            if let Err(ending) = self.next(place, stop).await {
                return ending;
            }
            if self.endpoint.is_over() {
                return Ending::Over;
            }
            // A client that is idle is of use: it makes no room.
            if stays.is_none() && self.endpoint.is_running() && !self.login.awaits_token {
                stays = Some(place.stay());
            }
        }
    }

    /// Whether more is taken of the peer.
    fn takes(&mut self) -> bool {
        let has_room = self.inbound.has_room() && self.endpoint.output().len() < UNSENT_BYTES_MAX;
        has_room && self.ending.is_none()
    }

    /// Whether a frame ends what the peer is still owed something for.
    fn ends_early(&self, frame: &Frame) -> bool {
        let owes =
            |is_of: &dyn Fn(LinkId) -> bool| self.inbound.owes(is_of) || self.queues.owes(is_of);
        match self.endpoint.ended_by(frame) {
            None => false,
            Some(Scope::Link(link)) => owes(&|it| it == link),
            Some(Scope::Session(channel)) => owes(&|it| it.channel == channel),
            Some(Scope::Connection) => owes(&|_| true),
        }
    }

    /// What is held until the peer goes on.
    fn holds_of_peer(&self) -> usize {
        self.endpoint.partial_bytes() + self.inbound.transactions.held_bytes()
    }

    /// What is held of what the peer sent, beside what was read and not taken.
    fn held_bytes(&self) -> usize {
        let ending = self.ending.as_ref().map_or(0, Frame::byte_len);
        self.inbound.held_bytes() + self.endpoint.partial_bytes() + ending
    }

    /// Takes what was read, sends what is there, and waits for what happens.
    async fn next(
        &mut self,
        place: &places::Place,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Ending> {
        let now = Instant::now();
        while self.takes()
            && let Some(frame) = self.endpoint.cut(&mut self.reader.input, now.into_std())
        {
            match self.ends_early(&frame) {
                true => self.ending = Some(frame),
                false => self.take(&frame).await?,
            }
        }
        if self.endpoint.is_over() {
            return Ok(());
        }
        self.prepare(now)?;
        match self.ending.take() {
            Some(frame) if self.ends_early(&frame) => self.ending = Some(frame),
            Some(frame) => return self.take(&frame).await,
            None => {}
        }
        if self.endpoint.is_closing() {
            self.closed_at.get_or_insert(now);
        }
        let reads = self.takes() && now >= self.reads_at;
        if !reads {
            self.endpoint.pauses(now.into_std());
        }
        let more = now >= self.sends_at && self.cursors.wants_more(&self.endpoint);
        let held = self.held_bytes();
        self.reader.holds(held, reads);
        let sends = self.writer.has_something(self.endpoint.output());
        if !sends {
            self.writer.moved_at = now;
        }
        let wakes_at = self.wakes_at(now, sends);
        // The peer has to go on with what is not whole, and to end its transactions.
        let is_partial = self.holds_of_peer() > 0;
        let Connection {
            reader,
            writer,
            endpoint,
            inbound,
            cursors,
            queues,
            lost,
            door,
            ..
        } = self;
        let out = endpoint.output();
        let works = door.is_some() && inbound.has_work();
        let shares = queues.has_work();
        let mut ended = None;
        let mut told: Option<Told> = None;
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
            read = cursors.read(), if more => ended = read.err(),
            done = queues.step(), if shares => match done {
                Ok(it) => told = it,
                Err(why) => ended = Some(why),
            },
            () = lost.told() => {}
            () = sleep_until(wakes_at) => {}
        }
        let now = Instant::now();
        if has_sent {
            self.endpoint.sent(now.into_std());
        }
        if let Some(Told {
            channel,
            ids,
            state,
        }) = told
        {
            self.endpoint.settle_sent(channel, ids, Some(state));
        }
        if let Some((link, why)) = ended {
            self.detach(link, &why);
        }
        for (reader, level) in self.lost.take() {
            if let Some(link) = self.cursors.link_of(reader) {
                self.detach(link, &NoLink::Taken(level));
            }
        }
        self.look_at_time(now, sends)
    }

    /// Settles what is decided, gives credit, and sends what was read.
    fn prepare(&mut self, now: Instant) -> Result<(), Ending> {
        if !self.inbound.settle(&mut self.endpoint, now) {
            return Err(Ending::Stopping);
        }
        self.inbound.top_up(&mut self.endpoint, now);
        let given_back = std::mem::take(&mut self.inbound.given_back);
        self.put_back(given_back);
        if now >= self.sends_at
            && let Some(door) = &self.door
        {
            let (bytes, ended) = self.cursors.fill(door, &mut self.endpoint);
            let bytes = bytes + self.queues.fill(&mut self.endpoint);
            let bytes = bytes + self.requests.fill(&mut self.endpoint);
            if bytes > 0 {
                let quotas = self.front.broker.quotas();
                let wait = quotas.charge(Quota::ConsumerByteRate, door.caller(), bytes as f64);
                quotas.note(Quota::ConsumerByteRate, wait);
                self.sends_at = now + wait.min(PAUSE_MAX);
            }
            if let Some((link, why)) = ended {
                self.detach(link, &why);
            }
        }
        Ok(())
    }

    /// When somebody has to look again, whatever happens.
    fn wakes_at(&self, now: Instant, sends: bool) -> Instant {
        let opening = self.began_at + OPENING_MAX;
        [
            Some(Instant::from_std(self.endpoint.wakes_at())),
            Some(opening).filter(|_| self.is_opening()),
            self.closed_at.map(|at| at + CLOSING_MAX),
            self.inbound.rests_until(),
            self.login.holds_until,
            self.inbound.transactions.ends_at(),
            Some(self.reads_at).filter(|at| *at > now),
            Some(self.sends_at).filter(|at| *at > now),
            Some(self.writer.moved_at + self.front.shared.idle_max).filter(|_| sends),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(opening)
    }

    fn is_opening(&self) -> bool {
        let is_running = self.endpoint.is_running() && !self.login.awaits_token;
        !is_running && !self.endpoint.is_closing()
    }

    /// Ends what has taken too long.
    fn look_at_time(&mut self, now: Instant, sends: bool) -> Result<(), Ending> {
        self.endpoint.tick(now.into_std());
        let late = self.inbound.transactions.look_at_time(now);
        self.put_back(late);
        let is_late = self.is_opening() && now >= self.began_at + OPENING_MAX;
        let is_left = self.closed_at.is_some_and(|at| now >= at + CLOSING_MAX);
        let has_no_token = is_late && self.login.awaits_token;
        if has_no_token || self.login.holds_until.is_some_and(|until| now >= until) {
            return Err(Ending::NoToken);
        }
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
            Event::Open(open) => self.open(&open).await?,
            Event::Attach {
                link,
                attach,
                stolen,
            } => {
                if let Some(stolen) = stolen {
                    self.forget(|it| it == stolen, Gone::Detached);
                }
                self.attach(link, &attach).await;
            }
            // The endpoint knows it; credit and drains are looked at before anything is waited for.
            Event::Flow(..) => {}
            Event::Delivery(link, delivery) => {
                let bytes = delivery.payload.len();
                match self.requests.node_of(link) {
                    Some(node) => self.request(link, node, &delivery).await,
                    None => self.inbound.push(link, delivery),
                }
                self.charge(bytes);
            }
            Event::Settled(said) => self.settled(&said),
            Event::Detached { link, closed, .. } => {
                let how = if closed { Gone::Closed } else { Gone::Detached };
                self.detached(link, how).await;
            }
            Event::Ended(channel, _) => self.forget(|it| it.channel == channel, Gone::Detached),
            Event::Closed(_) => {
                // A client may close without having waited for what becomes of what it sent, and of its transactions.
                self.finish().await;
                self.closed();
            }
            Event::Fault(fault) => {
                tracing::debug!(peer = %self.peer, %fault, "an AMQP client broke the protocol");
                self.front.stats.ended(fault.condition.symbol());
                match fault.scope {
                    Scope::Connection => self.closed(),
                    Scope::Session(channel) => {
                        self.forget(|it| it.channel == channel, Gone::Detached)
                    }
                    Scope::Link(link) => self.forget(|it| it == link, Gone::Detached),
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

    /// The connection has nothing any more, and whoever opens the next one of its name may have that.
    fn closed(&mut self) {
        self.forget(|_| true, Gone::Detached);
        self.sole = None;
    }

    fn forget(&mut self, is_gone: impl Fn(LinkId) -> bool, how: Gone) {
        self.inbound.forget(&is_gone);
        self.cursors.forget(&is_gone);
        self.left.retain(|(link, _)| !is_gone(*link));
        self.queues.forget(&is_gone, how);
        self.requests.forget(&is_gone);
        self.temporaries.forget(&is_gone);
    }

    fn detach(&mut self, link: LinkId, why: &NoLink) {
        let condition = why.condition(true);
        tracing::debug!(peer = %self.peer, %why, "an AMQP link ends");
        self.front.stats.ended(condition.symbol());
        let text = why.to_string();
        self.endpoint
            .detach(link, true, Some(error(condition, &text)));
        self.forget(|it| it == link, Gone::Detached);
    }

    async fn open(&mut self, open: &Open<'_>) -> Result<(), Ending> {
        if open.container_id.len() > CONTAINER_ID_BYTES_MAX {
            return Err(Ending::ContainerId);
        }
        let mut offered = vec!["ANONYMOUS-RELAY", "SHARED-SUBS"];
        if open.desired_capabilities.has(SOLE_CONNECTION) {
            self.sole = self.front.containers.take(open.container_id).await;
            if self.sole.is_none() {
                self.refuse_open();
                return Ok(());
            }
            offered.push(SOLE_CONNECTION);
        }
        self.door = Some(Arc::new(self.door_of(open.container_id.to_owned())));
        let mut properties = MapBuf::new();
        properties.put_symbol("product", &Value::String("Alluvium"));
        let version = Value::String(env!("CARGO_PKG_VERSION"));
        properties.put_symbol("version", &version);
        let properties = Some(properties.as_map());
        self.endpoint.accept_open(&offered, properties);
        Ok(())
    }

    /// The broker, as who has logged in by now may use it.
    fn door_of(&self, container_id: String) -> Door {
        self.front.broker.door(Caller {
            principal: self.login.principal.clone(),
            address: self.peer,
            client_id: Some(container_id),
            protocol: Protocol::Amqp,
        })
    }

    /// Another connection has the client's name, and is to be the only one.
    fn refuse_open(&mut self) {
        let (mut properties, mut info) = (MapBuf::new(), MapBuf::new());
        let failed = "amqp:connection-establishment-failed";
        properties.put_symbol(failed, &Value::Boolean(true));
        info.put_symbol("invalid-field", &Value::Symbol("container-id"));
        tracing::debug!(peer = %self.peer, "an AMQP client's container id is in use");
        self.front.stats.ended(CONTAINER_IN_USE.symbol());
        let text = "another connection has the container id, and is to be the only one";
        let error = Error {
            info: Some(info.as_map()),
            ..error(CONTAINER_IN_USE, text)
        };
        self.endpoint.refuse_open(properties.as_map(), error);
    }

    async fn attach(&mut self, link: LinkId, attach: &Attach<'_>) {
        let Some(door) = self.door.clone() else {
            return;
        };
        let node = RequestNode::of_link(attach);
        let attached = match attach.role {
            _ if self.login.awaits_token && node != Some(RequestNode::Tokens) => {
                Err(NoLink::NoToken)
            }
            _ if node.is_some() => {
                self.attach_request(link, node, attach);
                Ok(())
            }
            Role::Sender => self.attach_producer(&door, link, attach).await,
            Role::Receiver => self.attach_receiver(&door, link, attach).await,
        };
        if let Err(why) = attached {
            let condition = why.condition(false);
            tracing::debug!(peer = %self.peer, %why, "an AMQP link is refused");
            self.front.stats.ended(condition.symbol());
            let text = why.to_string();
            self.endpoint.refuse(link, error(condition, &text));
            self.forget(|it| it == link, Gone::Detached);
        }
    }

    /// A link to a node that answers.
    fn attach_request(&mut self, link: LinkId, node: Option<RequestNode>, attach: &Attach<'_>) {
        if let Some(node) = node
            && self.answer(link, attach, attach.source)
        {
            self.requests.open(link, node, attach);
        }
    }

    /// A node is asked something.
    async fn request(&mut self, link: LinkId, node: RequestNode, delivery: &Delivery) {
        let became = self.answer_request(link, node, delivery).await;
        Requests::settle(&mut self.endpoint, (link, delivery), became);
    }

    async fn answer_request(
        &mut self,
        link: LinkId,
        node: RequestNode,
        delivery: &Delivery,
    ) -> Result<(), NoRequest> {
        if delivery.transaction.is_some() {
            return Err(NoRequest::Transaction);
        }
        let request = Request::of(&delivery.payload)?;
        self.requests.check(link, &request)?;
        let Some(door) = self.door.clone() else {
            return Ok(());
        };
        let answer = match node {
            RequestNode::Management => management::answer(&door, &request).await,
            RequestNode::Tokens => {
                let answer = self.login.put_token(&request).await;
                if self.login.principal != door.caller().principal {
                    let container = door.caller().client_id.clone();
                    self.door = Some(Arc::new(self.door_of(container.unwrap_or_default())));
                }
                answer
            }
        };
        self.requests.answer(link, &request, &answer);
        Ok(())
    }

    async fn attach_producer(
        &mut self,
        door: &Door,
        link: LinkId,
        attach: &Attach<'_>,
    ) -> Result<(), NoLink> {
        let target = match attach.target {
            None => return Err(NoNode.into()),
            Some(AnyTarget::Coordinator(_)) => {
                self.inbound.open_coordinator(link);
                let attach = &Attach {
                    target: Some(AnyTarget::Coordinator(Coordinator {
                        capabilities: Multiple::These(&["amqp:local-transactions"]),
                    })),
                    ..*attach
                };
                if !self.answer(link, attach, attach.source) {
                    self.forget(|it| it == link, Gone::Detached);
                }
                return Ok(());
            }
            Some(AnyTarget::Target(target)) => target,
        };
        let made;
        let target = match target.dynamic {
            false => target,
            true => {
                let properties = target.dynamic_node_properties;
                made = self.temporaries.make(door, link, properties).await?;
                Target {
                    address: Some(Value::String(&made)),
                    ..target
                }
            }
        };
        let to = match target.address {
            None => None,
            Some(address) => Some(address.text().ok_or(NoNode)?),
        };
        self.inbound.open(door, link, to).await?;
        let attach = &Attach {
            target: Some(AnyTarget::Target(target)),
            ..*attach
        };
        if !self.answer(link, attach, attach.source) {
            self.forget(|it| it == link, Gone::Detached);
        }
        Ok(())
    }

    async fn attach_receiver(
        &mut self,
        door: &Arc<Door>,
        link: LinkId,
        attach: &Attach<'_>,
    ) -> Result<(), NoLink> {
        let container = door.caller().client_id.as_deref().unwrap_or_default();
        let Some(source) = attach.source else {
            return self.attach_left(door, link, attach).await;
        };
        let made;
        let source = match source.dynamic {
            false => source,
            true => {
                let properties = source.dynamic_node_properties;
                made = self.temporaries.make(door, link, properties).await?;
                Source {
                    address: Some(Value::String(&made)),
                    ..source
                }
            }
        };
        let sends_settled = attach.snd_settle_mode == SenderSettleMode::Settled;
        let now = self.front.broker.now();
        let asked = receiving::asked(&source, attach.name, container, now)?;
        self.temporaries.check(asked.node.topic())?;
        let group = asked.node.group().map(str::to_owned);
        let level = owners::level_of(attach, group.is_some())?;
        let at = |first| Start::At(asked.from.unwrap_or(first));
        let cursor = match &asked.node {
            SourceNode::Subscription(topic) if asked.kept.is_none() => {
                let topic = readable(door, topic).await?;
                Some((topic, None, at(Place::Latest)))
            }
            SourceNode::Queue(topic) if asked.browses => {
                let topic = readable(door, topic).await?;
                Some((topic, None, Start::Queue))
            }
            SourceNode::Queue(topic) | SourceNode::Subscription(topic) => {
                let of = (readable(door, topic).await?, asked.kept.as_ref());
                let selector = asked.selector.clone();
                self.queues
                    .open(door, link, of, selector, sends_settled)
                    .await?;
                None
            }
            SourceNode::Cursor {
                topic, partition, ..
            } => {
                let topic = door.topic(topic, right::Read)?;
                Some((topic, *partition, at(Place::Earliest)))
            }
        };
        if let Some((topic, partition, start)) = cursor {
            let wanted = Wanted {
                topic,
                partition,
                start,
                selector: asked.selector,
                is_rabbit: asked.is_rabbit,
                repeats: matches!(asked.node, SourceNode::Subscription(_)),
                group,
                level,
            };
            // Event Hubs' clients settle nothing, and nothing would follow from it. Who leaves it to us is sent all settled: that for Go
            // gives credit for what is settled alone.
            let mut sends_settled = sends_settled;
            if wanted.group.is_some() {
                sends_settled |= attach.snd_settle_mode == SenderSettleMode::Mixed;
                self.endpoint.forgets_unsettled(link);
            }
            self.cursors.open(door, link, wanted, sends_settled).await?;
        }
        let in_force = asked.in_force.as_map();
        let source = Source {
            filter: Some(in_force).filter(|it| !it.is_empty()),
            ..source
        };
        if !self.answer(link, attach, Some(source)) {
            self.forget(|it| it == link, Gone::Detached);
        }
        Ok(())
    }

    /// Attaches a link without a source: it names a subscription that its client wants to be rid of.
    async fn attach_left(
        &mut self,
        door: &Arc<Door>,
        link: LinkId,
        attach: &Attach<'_>,
    ) -> Result<(), NoLink> {
        let container = door.caller().client_id.as_deref().unwrap_or_default();
        let named = receiving::left(attach, container);
        subscriptions::look_for(door, &named)?;
        let in_use = InUse::take(&self.front.subscriptions, door, named).await?;
        self.left.push((link, in_use));
        let source = Source {
            address: Some(Value::String(attach.name)),
            durable: TerminusDurability::UnsettledState,
            expiry_policy: Symbol("never"),
            timeout: 0,
            dynamic: false,
            dynamic_node_properties: None,
            distribution_mode: None,
            filter: None,
            default_outcome: None,
            outcomes: Multiple::None,
            capabilities: Multiple::These(&["topic"]),
        };
        if !self.answer(link, attach, Some(source)) {
            self.forget(|it| it == link, Gone::Detached);
        }
        Ok(())
    }

    /// The peer has detached a link. A subscription that it wants to be rid of is gone before anything else is taken.
    async fn detached(&mut self, link: LinkId, how: Gone) {
        let left = self.left.extract_if(.., |(of, _)| *of == link);
        for (_, mut left) in left.filter(|_| how == Gone::Closed).collect::<Vec<_>>() {
            if left.goes(true)
                && let Err(why) = left.delete().await
            {
                tracing::warn!(peer = %self.peer, %why, "a subscription could not be ended");
            }
        }
        self.forget(|it| it == link, how);
        self.queues.ended().await;
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

    /// What receivers say of what they were sent. Nothing follows from it for a cursor, but that it is settled.
    fn settled(&mut self, said: &Settled<'_>) {
        if let Some(DeliveryState::Transactional(state)) = &said.state {
            return self.settled_in(state, said);
        }
        let state = said.state.as_ref();
        let deliveries = &said.deliveries;
        if let Some(outcome) = Outcome::said(state, said.settled) {
            self.cursors.settled(deliveries, outcome);
        }
        let others = self.queues.settled(deliveries, state, said.settled);
        let is_done = state.is_some_and(DeliveryState::is_outcome);
        if said.settled || !is_done {
            return;
        }
        for run in others.chunk_by(|one, next| one.wrapping_add(1) == *next) {
            let ids = (run[0], run[run.len() - 1]);
            self.endpoint.settle_sent(said.channel, ids, said.state);
        }
    }

    /// The same in a transaction.
    fn settled_in(&mut self, state: &TransactionalState<'_>, said: &Settled<'_>) {
        if !self.inbound.transactions.has(state.txn_id) {
            let mut links: Vec<LinkId> = said.deliveries.iter().map(|(link, _)| *link).collect();
            links.dedup();
            links
                .into_iter()
                .for_each(|link| self.detach(link, &NoLink::NoTransaction));
            return;
        }
        let outcome = state.outcome.and_then(DeliveryState::of);
        let Some(outcome) = outcome.as_ref().and_then(Outcome::of) else {
            // Nothing is said but that it is a part of it.
            return;
        };
        let deliveries = &said.deliveries;
        let (shared, mut others) = self.queues.pin(deliveries, outcome, said.settled);
        let of_topics = self.cursors.pin(deliveries, outcome, said.settled);
        others.retain(|id| of_topics.iter().all(|it| it.id != *id));
        let pins = Pinned { shared, of_topics };
        let left = self.inbound.transactions.pin(state.txn_id, pins);
        self.put_back(left);
        // Any other cursor has nothing to be undone.
        if !said.settled {
            for run in others.chunk_by(|one, next| one.wrapping_add(1) == *next) {
                let ids = (run[0], run[run.len() - 1]);
                self.endpoint.settle_sent(said.channel, ids, said.state);
            }
        }
    }

    /// What transactions give back is its consumers' again.
    fn put_back(&mut self, pins: Pinned) {
        self.queues.put_back(pins.shared);
        self.cursors.put_back(pins.of_topics);
    }

    /// Brings what has come to the log, and settles it. What is not stored in time is not settled either.
    async fn finish(&mut self) {
        let Some(door) = self.door.clone() else {
            return;
        };
        let stores = async {
            while self.inbound.has_work() {
                self.inbound.step(&door).await;
                if !self.inbound.settle(&mut self.endpoint, Instant::now()) {
                    return;
                }
            }
        };
        let _ = timeout(STORING_MAX, stores).await;
    }

    /// Ends the connection: what is on its way is stored and settled, and the peer is told why.
    async fn end(mut self, ending: Ending) {
        tracing::debug!(peer = %self.peer, %ending, "an AMQP connection ends");
        if matches!(ending, Ending::Stopping | Ending::Over) {
            self.finish().await;
        }
        if let Some(condition) = ending.condition() {
            self.front.stats.ended(condition.symbol());
            let text = ending.to_string();
            self.endpoint.close(Some(error(condition, &text)));
        }
        self.sole = None;
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

/// A topic as its client may receive from it; made, where use makes topics.
async fn readable(door: &Door, topic: &str) -> Result<Granted<Arc<Topic>, right::Read>, NoLink> {
    Ok(match is_temporary(topic) {
        true => door.topic(topic, right::Read)?,
        false => made(door, topic, right::Read).await?,
    })
}
