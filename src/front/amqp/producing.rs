//! What clients send: brought to the log in order, and settled once it is durable.
//! Callers: `connection`. Invariants: `accepted` leaves after the sync, and never for a link that is gone. Deliveries of a connection
//! are admitted in the order in which they came, so that each partition keeps it. What came and is not admitted is bounded, and
//! while it is at its bound nothing more is read.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use amqp::endpoint::{Delivery, Endpoint, LinkId, error};
use amqp::state::{DeliveryState, Rejected};
use model::PartitionId;
use tokio::time::Instant;

use super::address::{self, TargetNode};
use super::bounds::{CREDIT, QUEUED_BYTES_MAX, QUEUED_MAX};
use super::errors::{NoLink, NotStored, of_node, of_publish, of_unfit};
use super::route::{Stored, Unfit, stored};
use super::state::Front;
use super::stats::Became;
use crate::broker::Refusal;
use crate::broker::access::{Door, right};
use crate::broker::publish::{Message, Outgoing, Publishing};
use crate::front::written::{Writable, made};

/// Deliveries that are brought to the log at once.
const ADMITTED_MAX: usize = 256;
/// How long no credit is given after a delivery had to be given back.
const REST: Duration = Duration::from_secs(1);

type Admission = Pin<Box<dyn Future<Output = Vec<Owed>> + Send>>;

/// See the module.
pub(super) struct Inbound {
    front: Arc<Front>,
    producers: BTreeMap<LinkId, Producer>,
    queue: VecDeque<Arrived>,
    /// Bytes that came and are not admitted.
    queued_bytes: usize,
    admitting: Option<Admission>,
    admitting_bytes: usize,
    /// What is to be settled, in the order in which it came.
    owed: VecDeque<Owed>,
    /// Until when no credit is given.
    rests_until: Option<Instant>,
    /// Which partition messages without a key go to, before the session counts.
    seed: u32,
}

/// A link that a client sends on.
struct Producer {
    /// Where to; None: each message says it.
    to: Option<Arc<Node>>,
    /// Deliveries that are not settled.
    unsettled: u32,
}

/// A node that is written to.
struct Node {
    name: TargetNode,
    topic: Writable,
}

/// A delivery that came.
struct Arrived {
    link: LinkId,
    to: Option<Arc<Node>>,
    delivery: Delivery,
}

/// A delivery that is on its way to the disk, or is not.
struct Owed {
    link: LinkId,
    id: u32,
    is_settled: bool,
    became: Result<Vec<Publishing>, NotStored>,
}

impl Owed {
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
        self.producers.insert(link, Producer { to, unsettled: 0 });
        self.front.stats.producers.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Links are gone.
    pub(super) fn forget(&mut self, is_gone: impl Fn(LinkId) -> bool) {
        let before = self.producers.len();
        self.producers.retain(|link, _| !is_gone(*link));
        let gone = (before - self.producers.len()) as u64;
        self.front.stats.producers.fetch_sub(gone, Relaxed);
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
        self.held_bytes() < QUEUED_BYTES_MAX && self.queue.len() < QUEUED_MAX
    }

    /// Bytes of deliveries that came and are not admitted.
    pub(super) fn held_bytes(&self) -> usize {
        self.queued_bytes + self.admitting_bytes
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
        let count = self.queue.len().min(ADMITTED_MAX);
        let arrived: Vec<Arrived> = self.queue.drain(..count).collect();
        let bytes: usize = arrived.iter().map(|it| it.delivery.payload.len()).sum();
        self.queued_bytes -= bytes;
        self.admitting_bytes = bytes;
        let (front, door) = (Arc::clone(&self.front), Arc::clone(door));
        let seed = self.seed;
        self.admitting = Some(Box::pin(async move {
            admit_all(&front, &door, seed, arrived).await
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
            self.count(&became, now);
            let Some(producer) = self.producers.get_mut(&link) else {
                continue;
            };
            producer.unsettled -= 1;
            if owed.is_settled {
                continue;
            }
            match (became, &mut run) {
                (Ok(()), Some((channel, _, last)))
                    if *channel == link.channel && id == last.wrapping_add(1) =>
                {
                    *last = id;
                }
                (Ok(()), run) => {
                    flush(endpoint, run);
                    *run = Some((link.channel, id, id));
                }
                (Err(why), run) => {
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
        let count = self.producers.len() as u64;
        self.front.stats.producers.fetch_sub(count, Relaxed);
    }
}

fn give_back(endpoint: &mut Endpoint, link: LinkId, id: u32, why: &NotStored) {
    let state = match why {
        NotStored::Rejected(condition, text) => DeliveryState::Rejected(Rejected {
            error: Some(error(*condition, text)),
        }),
        NotStored::Released | NotStored::Unknown => DeliveryState::Released,
    };
    endpoint.settle(link.channel, (id, id), state);
}

/// The topic of a node, as the client may write to it; made, if it is not there and use makes topics.
async fn writable(door: &Door, name: &TargetNode) -> Result<Writable, NoLink> {
    let topic = made(door, &name.topic, right::Write).await?;
    let partition = name.partition.map(PartitionId::new);
    match partition.is_none_or(|partition| topic.has(partition)) {
        true => Ok(topic),
        false => Err(Refusal::UnknownTopicOrPartition.into()),
    }
}

/// What is to be published: of which delivery, and as what.
struct Part {
    owed: usize,
    to: Arc<Node>,
    stored: Stored,
    channel: u16,
}

async fn admit_all(front: &Front, door: &Door, seed: u32, arrived: Vec<Arrived>) -> Vec<Owed> {
    let mut owed: Vec<Owed> = Vec::with_capacity(arrived.len());
    let mut parts: Vec<Part> = Vec::with_capacity(arrived.len());
    for Arrived { link, to, delivery } in arrived {
        let at = owed.len();
        let found = parts_of(front, door, (at, link.channel), to, &delivery).await;
        owed.push(Owed {
            link,
            id: delivery.id,
            is_settled: delivery.settled,
            became: match found {
                Ok(found) => {
                    parts.extend(found);
                    Ok(Vec::new())
                }
                Err(why) => Err(why),
            },
        });
    }
    // Those of one topic that stand behind each other go together.
    for group in parts.chunk_by(|one, next| one.to.topic.id == next.to.topic.id) {
        publish(front, door, seed, group, &mut owed).await;
    }
    owed
}

async fn parts_of(
    front: &Front,
    door: &Door,
    (owed, channel): (usize, u16),
    to: Option<Arc<Node>>,
    delivery: &Delivery,
) -> Result<Vec<Part>, NotStored> {
    if delivery.is_transactional {
        return Err(of_unfit(&Unfit::Transactional));
    }
    let publisher = to.as_ref().and_then(|it| it.name.publisher.as_deref());
    let now = front.broker.now();
    let all = stored(&delivery.payload, delivery.message_format, publisher, now);
    let all = all.map_err(|unfit| of_unfit(&unfit))?;
    let mut parts = Vec::with_capacity(all.len());
    for stored in all {
        let to = match &to {
            Some(to) => Arc::clone(to),
            // rabbitmq-server#7823: a message to nowhere is not accepted.
            None => {
                let name = address::target(stored.to.as_deref().unwrap_or_default());
                let name = name.map_err(|why| of_node(&why.into()))?;
                let topic = writable(door, &name).await.map_err(|why| of_node(&why))?;
                Arc::new(Node { name, topic })
            }
        };
        parts.push(Part {
            owed,
            to,
            stored,
            channel,
        });
    }
    Ok(parts)
}

/// A record's header: its name, and its value.
type Header<'a> = (&'a [u8], Option<&'a [u8]>);

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
    let headers: Vec<Vec<Header<'_>>> = { group.iter() }
        .map(|part| {
            let headers = part.stored.headers.iter();
            headers
                .map(|(name, value)| (&name[..], Some(&value[..])))
                .collect()
        })
        .collect();
    let count = topic.partition_count().max(1);
    let outgoing: Vec<Outgoing<'_>> = { group.iter().zip(&headers) }
        .map(|(part, headers)| {
            let stored = &part.stored;
            // A session keeps its order: without a key all goes to one partition.
            let of_session = seed.wrapping_add(part.channel.into()) % count;
            let of_session = Some(of_session).filter(|_| stored.key.is_none());
            Outgoing {
                partition: part.to.name.partition.or(of_session).map(PartitionId::new),
                message: Message {
                    key: stored.key.as_deref(),
                    value: stored.value.as_deref(),
                    headers,
                    time: stored.time,
                },
            }
        })
        .collect();
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
