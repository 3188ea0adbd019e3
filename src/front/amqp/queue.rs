//! What consumers of queues, and of subscriptions that are kept, are sent: records that are theirs until they have said what becomes of them.
//! Callers: `connection`. Invariants: without credit nothing is taken for a consumer. What a consumer said is durable before it is told so, and
//! before what it holds is given to others. A link that goes gives back all that its consumer holds: unseen what was not sent, and, as a
//! failed delivery, what it leaves unsettled when its connection is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use amqp::endpoint::{Endpoint, LinkId};
use amqp::state::DeliveryState;
use futures_util::future::{BoxFuture, join_all, select_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use model::Offset;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::bounds::{CONSUMERS_MAX, UNSENT_BYTES_MAX};
use super::errors::NoLink;
use super::outcome::{Outcome, Ranges};
use super::pinned::{Pin, give_up};
use super::route::Record;
use super::selected::selects;
use super::selector::Selector;
use super::state::Front;
use super::subscriptions::{ENDING_MAX, InUse, Named};
use crate::broker::Topic;
use crate::broker::access::{Door, Granted, right};
use crate::broker::share::{
    Begin, Choice, Given, Place, QUEUES, ShareConsumer, ShareError, ShareReadError, ShareReader,
    Verdict,
};

/// A topic that may be read.
type Readable = Granted<Arc<Topic>, right::Read>;
/// Records that are taken at once.
const TAKEN_MAX: usize = 256;

/// The consumers of a connection.
pub(super) struct Queues {
    front: Arc<Front>,
    all: Vec<Consumer>,
    /// What makes its consumers' names differ from those of other connections.
    name: String,
    /// How many consumers it had.
    opened: u64,
    /// Subscriptions that end with links that were closed.
    ending: Vec<JoinHandle<()>>,
}

struct Consumer {
    link: LinkId,
    /// None while it takes records.
    reader: Option<ShareReader>,
    taking: Option<BoxFuture<'static, Taken>>,
    said: ShareConsumer,
    /// Records that it does not want again, which its reader is still to be told.
    unwanted: Vec<(Place, Offset)>,
    /// Records that are taken, and how many of them were sent.
    given: Option<(Given, usize)>,
    /// What was sent and is not finished, by the delivery's id.
    sent: BTreeMap<u32, (Place, Offset)>,
    /// What the consumer has said, on its way to the disk.
    settling: FuturesUnordered<BoxFuture<'static, Said>>,
    /// How many of those it waits for.
    untold: usize,
    /// Whether nothing was there when it was looked last.
    is_empty: bool,
    sends_settled: bool,
    /// Held by what it has settled in transactions that are open.
    pinned: (mpsc::Sender<()>, mpsc::Receiver<()>),
    /// The subscription, if it is no queue.
    in_use: Option<InUse>,
}

/// How a link has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// It was detached, or its session or connection ended.
    Detached,
    /// It was closed: a subscription goes with it.
    Closed,
    /// Its connection was lost.
    Lost,
}

type Taken = (ShareReader, Result<Option<Given>, ShareReadError>);

/// What a consumer has said, when it is durable.
struct Said {
    /// The deliveries, and what became of them; None if the consumer has settled them itself.
    tell: Option<(u32, u32, Outcome)>,
    became: Result<(), ShareError>,
}

/// What happened to one of the consumers.
enum Happened {
    Taken(Box<Taken>),
    Said(Option<Said>),
    MayHaveMore(Result<(), ShareReadError>),
}

impl Consumer {
    /// Begins to take records, if the consumer has credit and there may be some.
    fn begin(&mut self, endpoint: &Endpoint) {
        let credit = endpoint.credit(self.link) as usize;
        if self.given.is_some() || credit == 0 {
            return;
        }
        let is_idle = |reader: &ShareReader| self.is_empty && !reader.may_have_more();
        if self.reader.as_ref().is_none_or(is_idle) {
            return;
        }
        let Some(mut reader) = self.reader.take() else {
            return;
        };
        for (place, offset) in self.unwanted.drain(..) {
            reader.leave_out(place, offset);
        }
        let (said, sends_settled) = (self.said.clone(), self.sends_settled);
        let count = credit.min(TAKEN_MAX);
        self.is_empty = false;
        self.taking = Some(Box::pin(async move {
            let mut taken = reader.take(count).await;
            // Who is sent what is settled has no way to give it back.
            if sends_settled && let Ok(Some(given)) = &taken {
                let mut all = Ranges::default();
                all.add_all(given, 0);
                if let Err(error) = all.settle(&said, Verdict::Accept).await {
                    taken = Err(error.into());
                }
            }
            (reader, taken)
        }));
    }

    /// Sends what was taken, as far as there is room; gives how many bytes.
    fn send(&mut self, front: &Front, endpoint: &mut Endpoint) -> usize {
        let Some((given, mut index)) = self.given.take() else {
            return 0;
        };
        let now = front.broker.now();
        let mut bytes = 0;
        while endpoint.can_send(self.link) && endpoint.output().len() < UNSENT_BYTES_MAX {
            let Some((found, count)) = given.get(index) else {
                return bytes;
            };
            index += 1;
            let record = Record::of(&found);
            let offset = found.record.offset;
            if record.is_expired(now) {
                front.stats.expired.fetch_add(1, Relaxed);
                self.say(given.place, offset, Verdict::Discard);
                continue;
            }
            let message = record.message_of_queue(count);
            if !endpoint.takes(self.link, message.len()) {
                front.stats.skipped.fetch_add(1, Relaxed);
                self.unwanted.push((given.place, offset));
                self.say(given.place, offset, Verdict::Return);
                continue;
            }
            bytes += message.len();
            let sent = endpoint.send(self.link, self.sends_settled, message);
            if let Some(id) = sent.filter(|_| !self.sends_settled) {
                self.sent.insert(id, (given.place, offset));
            }
            front.stats.delivered.fetch_add(1, Relaxed);
        }
        if index < given.len() {
            self.given = Some((given, index));
        }
        bytes
    }

    /// Does with a record what nobody asked for by its delivery.
    fn say(&mut self, place: Place, offset: Offset, verdict: Verdict) {
        if self.sends_settled {
            return;
        }
        let mut ranges = Ranges::default();
        ranges.add(place, offset);
        self.begin_to_settle(ranges, verdict, None);
    }

    /// Begins to settle records; `tell` is said when that is durable.
    fn begin_to_settle(
        &mut self,
        ranges: Ranges,
        verdict: Verdict,
        tell: Option<(u32, u32, Outcome)>,
    ) {
        let said = self.said.clone();
        self.untold += usize::from(tell.is_some());
        self.settling.push(Box::pin(async move {
            let became = ranges.settle(&said, verdict).await;
            Said { tell, became }
        }));
    }

    /// The consumer has said what becomes of deliveries.
    fn settle(&mut self, ids: &[u32], outcome: Outcome, is_settled: bool) {
        let mut ranges = Ranges::default();
        for id in ids {
            let Some((place, offset)) = self.sent.remove(id) else {
                continue;
            };
            if outcome.is_elsewhere() {
                self.unwanted.push((place, offset));
            }
            ranges.add(place, offset);
        }
        let tell = ids.first().zip(ids.last()).filter(|_| !is_settled);
        let tell = tell.map(|(first, last)| (*first, *last, outcome));
        self.begin_to_settle(ranges, outcome.verdict(), tell);
    }

    /// Takes deliveries that its consumer has settled in a transaction.
    fn pin(&mut self, ids: &[u32], outcome: Outcome, is_settled: bool) -> Vec<Pin> {
        let pin = |id: &u32| {
            let (place, offset) = self.sent.remove(id)?;
            Some(Pin {
                link: self.link,
                id: *id,
                place,
                offset,
                outcome,
                is_settled,
                said: self.said.clone(),
                _held: self.pinned.0.clone(),
            })
        };
        ids.iter().filter_map(pin).collect()
    }

    /// Gives back all that it holds, behind what its consumer has said. Gives what its client waits for: the end of a subscription
    /// that goes with a link that was closed, unless a transaction holds that up.
    fn end(mut self, gone: Gone) -> Option<JoinHandle<()>> {
        let goes = |it: &mut InUse| it.goes(gone == Gone::Closed);
        let deletes = self.in_use.as_mut().is_some_and(goes);
        let is_awaited = deletes && gone == Gone::Closed && self.pinned.0.strong_count() == 1;
        let ends = tokio::spawn(async move {
            let Consumer {
                taking,
                said,
                given,
                sent,
                mut settling,
                pinned: (held, mut all_gone),
                in_use,
                ..
            } = self;
            while settling.next().await.is_some() {}
            let mut unseen = Ranges::default();
            if let Some((given, index)) = &given {
                unseen.add_all(given, *index);
            }
            if let Some(taking) = taking
                && let (_, Ok(Some(given))) = taking.await
            {
                unseen.add_all(&given, 0);
            }
            if gone != Gone::Lost {
                { sent.into_values() }.for_each(|(place, offset)| unseen.add(place, offset));
            }
            // What was sent settled is held no more.
            let _ = unseen.settle(&said, Verdict::Return).await;
            // What it has settled in a transaction is that one's to end, and holds up nobody who takes its place.
            let is_pinned = held.strong_count() > 1;
            let in_use = in_use.filter(|_| deletes || !is_pinned);
            drop(held);
            let _ = all_gone.recv().await;
            if let Err(error) = said.release().await {
                tracing::debug!(%error, "what a consumer held is held until the next start");
            }
            if let Some(in_use) = in_use.filter(|_| deletes)
                && let Err(why) = in_use.delete().await
            {
                tracing::warn!(%why, "a subscription could not be ended");
            }
        });
        is_awaited.then_some(ends)
    }
}

impl Queues {
    pub(super) fn new(front: &Arc<Front>) -> Queues {
        Queues {
            front: Arc::clone(front),
            all: Vec::new(),
            ending: Vec::new(),
            name: format!("amqp-{}", uuid::Uuid::new_v4().simple()),
            opened: 0,
        }
    }

    /// Opens a consumer of a queue, or of a subscription that is kept.
    pub(super) async fn open(
        &mut self,
        door: &Arc<Door>,
        link: LinkId,
        (topic, kept): (Readable, Option<&Named>),
        selector: Option<Selector>,
        sends_settled: bool,
    ) -> Result<(), NoLink> {
        if self.all.len() >= CONSUMERS_MAX {
            return Err(NoLink::TooMany);
        }
        let group = door.group(kept.map_or(QUEUES, |it| &it.id), right::Read)?;
        let begin = kept.map_or(Begin::Earliest, |_| Begin::Latest);
        let in_use = match kept {
            None => None,
            Some(named) => {
                let in_use = InUse::take(&self.front.subscriptions, door, named.clone()).await?;
                in_use.is_of(topic.id).await?;
                Some(in_use)
            }
        };
        self.opened += 1;
        let member = format!("{}-{}", self.name, self.opened);
        let member = (member.into(), door.caller());
        let broker = &self.front.broker;
        let mut reader = broker.share_reader(&topic, &group, begin, member).await?;
        if let Some(selector) = selector {
            reader.choose(Choice {
                wants: Arc::new(move |found| selects(&selector, found)),
                // All consumers of a subscription have its selector.
                finishes_others: kept.is_some(),
            });
        }
        self.all.push(Consumer {
            link,
            said: reader.consumer(),
            reader: Some(reader),
            taking: None,
            unwanted: Vec::new(),
            given: None,
            sent: BTreeMap::new(),
            settling: FuturesUnordered::new(),
            untold: 0,
            is_empty: false,
            sends_settled,
            pinned: mpsc::channel(1),
            in_use,
        });
        self.front.stats.consumers.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Links are gone.
    pub(super) fn forget(&mut self, is_gone: impl Fn(LinkId) -> bool, how: Gone) {
        for consumer in self.all.extract_if(.., |it| is_gone(it.link)) {
            self.front.stats.consumers.fetch_sub(1, Relaxed);
            self.ending.extend(consumer.end(how));
        }
    }

    /// Waits until the subscriptions are gone that went with links: what is asked for next finds the room that they had.
    pub(super) async fn ended(&mut self) {
        let _ = timeout(ENDING_MAX, join_all(self.ending.drain(..))).await;
    }

    /// Whether there is something to wait for.
    pub(super) fn has_work(&self) -> bool {
        !self.all.is_empty()
    }

    /// Whether consumers wait to be told that what they said on these links is durable.
    pub(super) fn owes(&self, is_of: impl Fn(LinkId) -> bool) -> bool {
        { self.all.iter() }.any(|it| it.untold > 0 && is_of(it.link))
    }

    /// What consumers say of deliveries that they were sent: those that are not of queues are left in `others`.
    pub(super) fn settled(
        &mut self,
        deliveries: &[(LinkId, u32)],
        state: Option<&DeliveryState<'_>>,
        is_settled: bool,
    ) -> Vec<u32> {
        let mut others = Vec::new();
        let outcome = Outcome::said(state, is_settled);
        let is_next = |one: &(LinkId, u32), next: &(LinkId, u32)| {
            one.0 == next.0 && one.1.wrapping_add(1) == next.1
        };
        for run in deliveries.chunk_by(is_next) {
            let ids: Vec<u32> = run.iter().map(|(_, id)| *id).collect();
            let link = run[0].0;
            match (self.all.iter_mut().find(|it| it.link == link), outcome) {
                (Some(consumer), Some(outcome)) => consumer.settle(&ids, outcome, is_settled),
                (Some(_), None) => {}
                (None, _) => others.extend(ids),
            }
        }
        others
    }

    /// What consumers say in a transaction of deliveries that they were sent. Those that are not of queues are left in `others`.
    pub(super) fn pin(
        &mut self,
        deliveries: &[(LinkId, u32)],
        outcome: Outcome,
        is_settled: bool,
    ) -> (Vec<Pin>, Vec<u32>) {
        let (mut pins, mut others) = (Vec::new(), Vec::new());
        for run in deliveries.chunk_by(|one, next| one.0 == next.0) {
            let ids: Vec<u32> = run.iter().map(|(_, id)| *id).collect();
            match self.all.iter_mut().find(|it| it.link == run[0].0) {
                Some(consumer) => pins.extend(consumer.pin(&ids, outcome, is_settled)),
                None => others.extend(ids),
            }
        }
        (pins, others)
    }

    /// Deliveries of transactions that were rolled back are as if nothing had been said of them.
    pub(super) fn put_back(&mut self, pins: Vec<Pin>) {
        let mut left = Vec::new();
        for pin in pins {
            match self.all.iter_mut().find(|it| it.link == pin.link) {
                Some(consumer) if !pin.is_settled => {
                    consumer.sent.insert(pin.id, (pin.place, pin.offset));
                }
                _ => left.push(pin),
            }
        }
        give_up(left);
    }

    /// Sends what was taken, takes more, and answers drains. Gives how many bytes are sent.
    pub(super) fn fill(&mut self, endpoint: &mut Endpoint) -> usize {
        let mut bytes = 0;
        for consumer in &mut self.all {
            bytes += consumer.send(&self.front, endpoint);
            consumer.begin(endpoint);
            if endpoint.drains(consumer.link) {
                let is_done = consumer.is_empty && consumer.given.is_none();
                if is_done || endpoint.credit(consumer.link) == 0 {
                    endpoint.drained(consumer.link);
                }
            }
        }
        bytes
    }

    /// Goes on until something was taken, said, or may be there; gives what a consumer is to be told. What is given up loses nothing. An
    /// error ends its link.
    pub(super) async fn step(&mut self) -> Result<Option<Told>, (LinkId, NoLink)> {
        let mut works: Vec<BoxFuture<'_, (usize, Happened)>> = Vec::new();
        for (at, consumer) in self.all.iter_mut().enumerate() {
            if let Some(taking) = &mut consumer.taking {
                works.push(Box::pin(async move {
                    (at, Happened::Taken(Box::new(taking.await)))
                }));
            }
            if let Some(reader) = consumer.reader.as_mut().filter(|_| consumer.is_empty) {
                works.push(Box::pin(async move {
                    (at, Happened::MayHaveMore(reader.wait().await))
                }));
            }
            let settling = &mut consumer.settling;
            if !settling.is_empty() {
                works.push(Box::pin(async move {
                    (at, Happened::Said(settling.next().await))
                }));
            }
        }
        if works.is_empty() {
            return std::future::pending().await;
        }
        let ((at, happened), _, rest) = select_all(works).await;
        drop(rest);
        let consumer = &mut self.all[at];
        let link = consumer.link;
        match happened {
            Happened::Taken(taken) => {
                let (reader, taken) = *taken;
                consumer.reader = Some(reader);
                consumer.taking = None;
                let taken = taken.map_err(|error| (link, error.into()))?;
                consumer.is_empty = taken.is_none();
                consumer.given = taken.map(|given| (given, 0));
            }
            Happened::MayHaveMore(more) => {
                more.map_err(|error| (link, error.into()))?;
                consumer.is_empty = false;
            }
            Happened::Said(said) => {
                let Some(Said { tell, became }) = said else {
                    return Ok(None);
                };
                // A record that is gone from the log is not held any more, and nobody gets it.
                match became {
                    Ok(()) | Err(ShareError::NotHeld(_) | ShareError::NotFound) => {}
                    Err(error) => return Err((link, ShareReadError::from(error).into())),
                }
                consumer.untold -= usize::from(tell.is_some());
                return Ok(tell.map(|(first, last, outcome)| Told {
                    channel: link.channel,
                    ids: (first, last),
                    state: outcome.state(),
                }));
            }
        }
        Ok(None)
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        self.forget(|_| true, Gone::Lost);
    }
}

/// Deliveries whose outcome is durable.
pub(super) struct Told {
    pub(super) channel: u16,
    pub(super) ids: (u32, u32),
    pub(super) state: DeliveryState<'static>,
}
