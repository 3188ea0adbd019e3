//! What clients send: brought to the log in order, and settled once it is durable.
//! Callers: `connection`. Invariants: `accepted` leaves after the sync, and never for a link that is gone. Deliveries of a connection
//! are admitted in the order in which they came, so that each partition keeps it. What came and is not admitted is bounded, and
//! while it is at its bound nothing more is read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use amqp::endpoint::{Delivery, Endpoint, LinkId, error};
use amqp::reader::decode;
use amqp::state::{Declared, DeliveryState, Rejected, TransactionalState};
use amqp::{Bytes, BytesMut, Field as _};
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::address;
use super::bounds::{CREDIT, QUEUED_BYTES_MAX, QUEUED_MAX};
use super::command::Command;
use super::errors::{
    NoCommit, NoLink, NotStored, of_command, of_full, of_no_commit, of_node, of_publish,
};
use super::outgoing::{Headers, Node, Part, parts_of, writable};
use super::pinned::Pinned;
use super::state::Front;
use super::stats::Became;
use super::transactions::{Ended, Transactions};
use crate::broker::access::Door;
use crate::broker::publish::Publishing;

/// Deliveries that are brought to the log at once.
const ADMITTED_MAX: usize = 256;
/// How long no credit is given after a delivery had to be given back.
const REST: Duration = Duration::from_secs(1);

type Admission = BoxFuture<'static, Vec<Owed>>;

/// See the module.
pub(super) struct Inbound {
    front: Arc<Front>,
    producers: BTreeMap<LinkId, Producer>,
    queue: VecDeque<Arrived>,
    /// Bytes that came and are not admitted.
    queued_bytes: usize,
    admitting: Option<Admission>,
    admitting_bytes: usize,
    pub(super) transactions: Transactions,
    /// What transactions that were rolled back give back to consumers.
    pub(super) given_back: Pinned,
    /// What is to be settled, in the order in which it came.
    owed: VecDeque<Owed>,
    /// Until when no credit is given.
    rests_until: Option<Instant>,
    /// Which partition messages without a key go to, before the session counts.
    seed: u32,
}

/// Where a link goes.
#[derive(Clone)]
enum Destination {
    /// To a node; None: each message says it.
    Node(Option<Arc<Node>>),
    /// To the coordinator of transactions.
    Coordinator,
}

/// A link that a client sends on.
struct Producer {
    to: Destination,
    /// Deliveries that are not settled.
    unsettled: u32,
}

/// A delivery that came.
struct Arrived {
    link: LinkId,
    to: Destination,
    delivery: Delivery,
}

impl Arrived {
    fn is_command(&self) -> bool {
        matches!(self.to, Destination::Coordinator)
    }
}

/// What is said of a delivery that was taken.
enum Says {
    /// That it is durable.
    Accepted,
    /// That it is durable if its transaction is.
    InTransaction(Bytes),
    /// Of a command: that a transaction has begun.
    Declared(Bytes),
    /// Of a command: that one has ended, and with it what was settled in it.
    Discharged(Pinned),
}

/// A delivery that is on its way to the disk, or is not.
struct Owed {
    link: LinkId,
    id: u32,
    is_settled: bool,
    became: Result<Vec<Publishing>, NotStored>,
    says: Says,
    /// Whether it has ended a transaction of which nothing is done.
    rolls_back: bool,
}

impl Owed {
    fn of(link: LinkId, delivery: &Delivery) -> Owed {
        Owed {
            link,
            id: delivery.id,
            is_settled: delivery.settled,
            became: Ok(Vec::new()),
            says: Says::Accepted,
            rolls_back: false,
        }
    }

    /// Whether all of it is durable, or why it is not; None: that is not known yet.
    fn known(&self) -> Option<Result<(), NotStored>> {
        let publishing = match &self.became {
            Ok(publishing) => publishing,
            Err(why) => return Some(Err(why.clone())),
        };
        let mut became = Ok(());
        for one in publishing {
            if let Err(refusal) = one.known()? {
                became = Err(of_publish(&refusal));
            }
        }
        Some(became)
    }

    /// What has to be waited for first.
    fn waits_for(&self) -> Option<Publishing> {
        let publishing = self.became.as_ref().ok()?;
        publishing.iter().find(|it| it.known().is_none()).cloned()
    }
}

impl Inbound {
    pub(super) fn new(front: &Arc<Front>, seed: u32) -> Inbound {
        Inbound {
            front: Arc::clone(front),
            producers: BTreeMap::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            admitting: None,
            admitting_bytes: 0,
            transactions: Transactions::new(),
            given_back: Pinned::default(),
            owed: VecDeque::new(),
            rests_until: None,
            seed,
        }
    }

    /// What a target's address names, as this client may write to it. A topic that is not there is made, where that is allowed.
    pub(super) async fn open(
        &mut self,
        door: &Door,
        link: LinkId,
        target: Option<&str>,
    ) -> Result<(), NoLink> {
        let to = match target {
            None => None,
            Some(target) => {
                let name = address::target(target)?;
                let topic = writable(door, &name).await?;
                Some(Arc::new(Node { name, topic }))
            }
        };
        self.add(link, Destination::Node(to));
        Ok(())
    }

    /// A link to the coordinator of transactions.
    pub(super) fn open_coordinator(&mut self, link: LinkId) {
        self.add(link, Destination::Coordinator);
    }

    fn add(&mut self, link: LinkId, to: Destination) {
        self.attached(&to).fetch_add(1, Relaxed);
        self.producers.insert(link, Producer { to, unsettled: 0 });
    }

    /// The count of links of its kind.
    fn attached(&self, to: &Destination) -> &AtomicU64 {
        match to {
            Destination::Node(_) => &self.front.stats.producers,
            Destination::Coordinator => &self.front.stats.coordinators,
        }
    }

    /// Links are gone.
    pub(super) fn forget(&mut self, is_gone: impl Fn(LinkId) -> bool) {
        let gone = self.producers.extract_if(.., |link, _| is_gone(*link));
        for (_, producer) in gone.collect::<Vec<_>>() {
            self.attached(&producer.to).fetch_sub(1, Relaxed);
        }
        self.given_back.add(self.transactions.forget(is_gone));
    }

    /// Whether clients wait for what becomes of something that they sent on these links.
    pub(super) fn owes(&self, is_of: impl Fn(LinkId) -> bool) -> bool {
        let mut unsettled = self.producers.iter().filter(|(_, it)| it.unsettled > 0);
        unsettled.any(|(link, _)| is_of(*link))
    }

    /// Takes a delivery.
    pub(super) fn push(&mut self, link: LinkId, delivery: Delivery) {
        let Some(producer) = self.producers.get_mut(&link) else {
            return;
        };
        producer.unsettled += 1;
        let to = producer.to.clone();
        self.queued_bytes += delivery.payload.len();
        self.queue.push_back(Arrived { link, to, delivery });
    }

    /// Whether more may be read.
    pub(super) fn has_room(&self) -> bool {
        let waiting = self.queued_bytes + self.admitting_bytes;
        waiting < QUEUED_BYTES_MAX && self.queue.len() < QUEUED_MAX
    }

    /// Bytes of deliveries that came and are not admitted, or that wait for their transaction.
    pub(super) fn held_bytes(&self) -> usize {
        self.queued_bytes + self.admitting_bytes + self.transactions.held_bytes()
    }

    /// Whether there is something for [`Inbound::step`] to do.
    pub(super) fn has_work(&self) -> bool {
        self.admitting.is_some() || !self.queue.is_empty() || !self.owed.is_empty()
    }

    /// When credit is given again.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.rests_until
    }

    /// Begins to bring what came to the log.
    fn admit(&mut self, door: &Arc<Door>) {
        if self.admitting.is_some() || self.queue.is_empty() {
            return;
        }
        // Of a command all that came before it is admitted, and nothing that came behind it.
        let before = self.queue.iter().take(ADMITTED_MAX);
        let count = before.take_while(|it| !it.is_command()).count().max(1);
        let arrived: Vec<Arrived> = self.queue.drain(..count).collect();
        let bytes: usize = arrived.iter().map(|it| it.delivery.payload.len()).sum();
        self.queued_bytes -= bytes;
        self.admitting_bytes = bytes;
        let (front, door) = (Arc::clone(&self.front), Arc::clone(door));
        let (seed, transactions) = (self.seed, self.transactions.clone());
        self.admitting = Some(Box::pin(async move {
            match <[Arrived; 1]>::try_from(arrived) {
                Ok([one]) if one.is_command() => {
                    vec![coordinate(&front, &door, &transactions, seed, one).await]
                }
                Ok([one]) => admit_all(&front, &door, &transactions, seed, vec![one]).await,
                Err(all) => admit_all(&front, &door, &transactions, seed, all).await,
            }
        }));
    }

    /// Goes on until something was admitted, or is to be settled by [`Inbound::settle`]. What is given up loses nothing.
    pub(super) async fn step(&mut self, door: &Arc<Door>) {
        self.admit(door);
        let admits = self.admitting.is_some();
        let first = self.owed.front();
        let is_ready = first.is_some_and(|it| it.known().is_some());
        let waits_for = first.and_then(Owed::waits_for);
        let waits = waits_for.is_some();
        if is_ready {
            return;
        }
        let durable = async {
            match waits_for {
                // What became of it is looked at by whoever settles.
                Some(publishing) => drop(publishing.durable().await),
                None => std::future::pending().await,
            }
        };
        let admitted = async {
            match &mut self.admitting {
                Some(admitting) => admitting.await,
                None => std::future::pending().await,
            }
        };
        let owed = tokio::select! {
            owed = admitted, if admits => owed,
            () = durable, if waits => return,
            else => return,
        };
        self.admitting = None;
        self.admitting_bytes = 0;
        self.owed.extend(owed);
    }

    /// Settles what is decided, and gives credit for it. False: what became of a delivery is not known, and the connection ends.
    pub(super) fn settle(&mut self, endpoint: &mut Endpoint, now: Instant) -> bool {
        let mut run: Option<(u16, u32, u32)> = None;
        let flush = |endpoint: &mut Endpoint, run: &mut Option<(u16, u32, u32)>| {
            if let Some((channel, first, last)) = run.take() {
                endpoint.settle(channel, (first, last), DeliveryState::Accepted);
            }
        };
        while let Some(became) = self.owed.front().and_then(Owed::known) {
            let Some(owed) = self.owed.pop_front() else {
                break;
            };
            let (link, id) = (owed.link, owed.id);
            if became == Err(NotStored::Unknown) {
                flush(endpoint, &mut run);
                return false;
            }
            let says = match owed.says {
                Says::Discharged(pins) => {
                    match owed.rolls_back {
                        true => self.given_back.add(pins),
                        false => pins.tell(endpoint),
                    }
                    Says::Discharged(Pinned::default())
                }
                says @ Says::Declared(_) => says,
                // It is counted when the transaction is committed.
                says @ Says::InTransaction(_) if became.is_ok() => says,
                says => {
                    self.count(&became, now);
                    says
                }
            };
            let Some(producer) = self.producers.get_mut(&link) else {
                continue;
            };
            producer.unsettled -= 1;
            if owed.is_settled {
                continue;
            }
            match (became, says, &mut run) {
                (Ok(()), Says::Accepted | Says::Discharged(_), Some((channel, _, last)))
                    if *channel == link.channel && id == last.wrapping_add(1) =>
                {
                    *last = id;
                }
                (Ok(()), Says::Accepted | Says::Discharged(_), run) => {
                    flush(endpoint, run);
                    *run = Some((link.channel, id, id));
                }
                (Ok(()), Says::Declared(txn), run) => {
                    flush(endpoint, run);
                    let declared = DeliveryState::Declared(Declared { txn_id: &txn });
                    endpoint.settle(link.channel, (id, id), declared);
                }
                (became, Says::InTransaction(txn), run) => {
                    flush(endpoint, run);
                    say_in_transaction(endpoint, link, id, &txn, &became);
                }
                (Err(why), _, run) => {
                    flush(endpoint, run);
                    give_back(endpoint, link, id, &why);
                }
            }
        }
        flush(endpoint, &mut run);
        true
    }

    fn count(&mut self, became: &Result<(), NotStored>, now: Instant) {
        let what = match became {
            Ok(()) => Became::Accepted,
            Err(NotStored::Rejected(..)) => Became::Rejected,
            Err(NotStored::Released | NotStored::Unknown) => {
                self.rests_until = Some(now + REST);
                Became::Released
            }
        };
        self.front.stats.became(what);
    }

    /// Gives credit to links that have used up half of it, unless the store takes nothing now.
    pub(super) fn top_up(&mut self, endpoint: &mut Endpoint, now: Instant) {
        if self.rests_until.is_some_and(|until| now < until) {
            return;
        }
        self.rests_until = None;
        for (link, producer) in &self.producers {
            let wanted = CREDIT.saturating_sub(producer.unsettled);
            if wanted >= endpoint.credit(*link) + CREDIT / 2 {
                endpoint.grant(*link, wanted);
            }
        }
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        for producer in self.producers.values() {
            self.attached(&producer.to).fetch_sub(1, Relaxed);
        }
    }
}

fn give_back(endpoint: &mut Endpoint, link: LinkId, id: u32, why: &NotStored) {
    endpoint.settle(link.channel, (id, id), state_of(why));
}

fn state_of(why: &NotStored) -> DeliveryState<'_> {
    match why {
        NotStored::Rejected(condition, text) => DeliveryState::Rejected(Rejected {
            error: Some(error(*condition, text)),
        }),
        NotStored::Released | NotStored::Unknown => DeliveryState::Released,
    }
}

/// Says what becomes of a delivery if its transaction is committed (part 4, 4.4.2).
fn say_in_transaction(
    endpoint: &mut Endpoint,
    link: LinkId,
    id: u32,
    txn: &[u8],
    became: &Result<(), NotStored>,
) {
    let outcome = match became {
        Ok(()) => DeliveryState::Accepted,
        Err(why) => state_of(why),
    };
    let mut encoded = BytesMut::new();
    outcome.put(&mut encoded);
    let state = DeliveryState::Transactional(TransactionalState {
        txn_id: txn,
        outcome: decode(&encoded).ok(),
    });
    endpoint.settle(link.channel, (id, id), state);
}

async fn admit_all(
    front: &Front,
    door: &Door,
    transactions: &Transactions,
    seed: u32,
    arrived: Vec<Arrived>,
) -> Vec<Owed> {
    let mut owed: Vec<Owed> = Vec::with_capacity(arrived.len());
    let mut parts: Vec<Part> = Vec::with_capacity(arrived.len());
    for Arrived { link, to, delivery } in arrived {
        let Destination::Node(to) = to else {
            continue;
        };
        let at = owed.len();
        let mut one = Owed::of(link, &delivery);
        let found = parts_of(front, door, (at, link.channel), to, &delivery).await;
        match &delivery.transaction {
            Some(id) => {
                one.says = Says::InTransaction(id.clone());
                let found = found.and_then(|parts| taken(front, parts));
                one.became = transactions.add(id, found).map(|()| Vec::new());
            }
            None => match found {
                Ok(found) => parts.extend(found),
                Err(why) => one.became = Err(why),
            },
        }
        owed.push(one);
    }
    // Those of one topic that stand behind each other go together.
    for group in parts.chunk_by(|one, next| one.to.topic.id == next.to.topic.id) {
        publish(front, door, seed, group, &mut owed).await;
    }
    owed
}

/// Messages, if their topics take them: in a transaction that is asked before it is committed.
fn taken(front: &Front, parts: Vec<Part>) -> Result<Vec<Part>, NotStored> {
    let headers = Headers::of(&parts);
    for (part, outgoing) in parts.iter().zip(headers.outgoing(&parts, 0, 1)) {
        let refused = front.broker.refusals(&part.to.topic, &[outgoing]);
        let refused = refused.map_err(|why| of_publish(&why))?;
        if let Some((_, why)) = refused.into_iter().next() {
            return Err(of_publish(&why));
        }
    }
    drop(headers);
    Ok(parts)
}

/// Does what a coordinator is told.
async fn coordinate(
    front: &Arc<Front>,
    door: &Arc<Door>,
    transactions: &Transactions,
    seed: u32,
    Arrived { link, delivery, .. }: Arrived,
) -> Owed {
    let mut owed = Owed::of(link, &delivery);
    owed.says = Says::Discharged(Pinned::default());
    match Command::of(&delivery.payload) {
        Err(why) => owed.became = Err(of_command(&why)),
        Ok(Command::Declare) => match transactions.declare(link) {
            Some(id) => owed.says = Says::Declared(id),
            None => owed.became = Err(of_full()),
        },
        Ok(Command::Discharge { id, fails }) => match transactions.take(&id) {
            None => owed.became = Err(of_no_commit(&NoCommit::Unknown)),
            Some(transaction) if fails => {
                owed.says = Says::Discharged(transaction.roll_back());
                owed.rolls_back = true;
            }
            Some(transaction) => {
                let (front, door) = (Arc::clone(front), Arc::clone(door));
                let Ended { became, pins } = transaction.commit(front, door, seed).await;
                owed.rolls_back = became.is_err();
                owed.became = became.map(|it| it.into_iter().collect());
                owed.says = Says::Discharged(pins);
            }
        },
    }
    owed
}

async fn publish(front: &Front, door: &Door, seed: u32, group: &[Part], owed: &mut [Owed]) {
    let Some(first) = group.first() else {
        return;
    };
    let mut refuse_all = |why: NotStored| {
        for part in group {
            owed[part.owed].became = Err(why.clone());
        }
    };
    // The right may have been taken since.
    let topic = match door.renew(&first.to.topic) {
        Ok(topic) => topic,
        Err(refusal) => return refuse_all(of_node(&refusal.into())),
    };
    let headers = Headers::of(group);
    let outgoing = headers.outgoing(group, seed, topic.partition_count());
    match front.broker.publish_all(&topic, &outgoing).await {
        Err(refusal) => refuse_all(of_publish(&refusal)),
        Ok(published) => {
            for (part, published) in group.iter().zip(published) {
                let became = &mut owed[part.owed].became;
                match (published, became) {
                    (Ok(publishing), Ok(all)) => all.push(publishing),
                    (Err(refusal), became) => *became = Err(of_publish(&refusal)),
                    (Ok(_), Err(_)) => {}
                }
            }
        }
    }
}
