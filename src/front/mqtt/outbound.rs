//! What a client is sent: the messages of its subscriptions, read from the log as they become durable.
//! Callers: `connection`. Invariants: nothing is queued for a client: it has a place in the log, and while it takes nothing, or as many
//! messages are without an ack as may be, nothing is read for it. Messages of a topic come in the order of the log. No more than
//! the client's receive maximum are without an ack, and each identifier is one message's at a time. A message that is longer than the
//! client takes is passed over and counted, and holds up nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::select_all;
use model::quota::Quota;

use super::bounds::{REPLAYS_MAX, SEND_MAX, SUBSCRIPTIONS_MAX, UNSENT_BYTES_MAX};
use super::ending::Ending;
use super::errors::{NotSubscribed, of_subscribe, of_unsubscribe, unknown_id};
use super::feed::Feed;
use super::greeting::Client;
use super::history::{self, Replay};
use super::packet::{
    Ack, AckKind, Fault, Filter, Qos, Subscribe, Unsubscribe, Version, publish, reply,
};
use super::publishing;
use super::route::{Found, Stored, found};
use super::state::Front;
use super::stats::Skipped;
use super::subscriptions::{Seen, Subscribed, Subscriptions};
use super::topic::TopicFilter;
use crate::broker::access::{Door, Granted, right};
use crate::broker::replay::ReplayRecord;
use crate::broker::{Refusal, Topic};

/// See the module.
pub(super) struct Outbound {
    front: Arc<Front>,
    door: Arc<Door>,
    version: Version,
    client_id: Bytes,
    packet_bytes_max: usize,
    /// That of the subscriptions to what comes, if there are any, and those of replays.
    feeds: Vec<Feed>,
    window: Window,
}

/// Messages without an ack.
struct Window {
    count_max: usize,
    sent: BTreeMap<u16, Waits>,
    last_id: u16,
}

/// What a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Puback,
    Pubrec,
    Pubcomp,
}

impl Window {
    fn has_room(&self) -> bool {
        self.sent.len() < self.count_max
    }

    /// An identifier that no message has. There is one: the window is smaller than there are.
    fn take(&mut self, waits: Waits) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.sent.contains_key(&self.last_id) {
                self.sent.insert(self.last_id, waits);
                return self.last_id;
            }
        }
    }
}

impl Outbound {
    /// Of a client that was just let in.
    pub(super) fn new(front: &Arc<Front>, client: &Client) -> Outbound {
        Outbound {
            front: Arc::clone(front),
            door: Arc::clone(&client.door),
            version: client.version,
            client_id: client.id.clone(),
            packet_bytes_max: client.packet_bytes_max,
            feeds: Vec::new(),
            window: Window {
                count_max: usize::from(client.receive_maximum).min(SEND_MAX),
                sent: BTreeMap::new(),
                last_id: 0,
            },
        }
    }

    /// Subscribes; a code for each filter, in order.
    pub(super) async fn subscribe(&mut self, asked: &Subscribe<'_>) -> Result<Vec<u8>, Ending> {
        let mut codes = Vec::with_capacity(asked.filters.len());
        for filter in &asked.filters {
            // A fault, and no refusal (§3.8.3.1).
            if filter.filter.starts_with("$share/") && filter.no_local {
                const LOCAL: &str = "no local on a shared subscription";
                return Err(Fault::Protocol(LOCAL).into());
            }
            let id = asked.properties.subscription_id;
            codes.push(match self.subscribe_one(filter, id).await {
                Ok(()) => filter.qos.number(),
                Err(why) => of_subscribe(self.version, why),
            });
        }
        Ok(codes)
    }

    async fn subscribe_one(
        &mut self,
        asked: &Filter<'_>,
        id: Option<u32>,
    ) -> Result<(), NotSubscribed> {
        if asked.filter.starts_with("$share/") {
            return Err(NotSubscribed::Shared);
        }
        if let Some(replay) = asked.filter.strip_prefix(history::PREFIX) {
            return self.subscribe_replay(asked, replay, id).await;
        }
        if asked.filter.starts_with('$') {
            return Err(NotSubscribed::Filter);
        }
        let filter = TopicFilter::parse(asked.filter).map_err(|_| NotSubscribed::Filter)?;
        let count = self.live().map_or(0, |live| live.subscriptions.count());
        let is_new = self
            .live()
            .is_none_or(|live| !live.subscriptions.has(asked.filter));
        if is_new && count >= SUBSCRIPTIONS_MAX {
            return Err(NotSubscribed::TooMany);
        }
        let topic = readable(&self.front, &self.door).await?;
        let new = subscribed(asked, filter, id);
        match self.live() {
            // One that reads already goes on.
            Some(live) => drop(live.insert(&self.front, new)?),
            None => {
                let live = Feed::live(&self.front, topic)?;
                live.insert(&self.front, new)?;
                self.feeds.push(live);
            }
        }
        if is_new {
            self.front.stats.subscriptions.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// That of the subscriptions to what comes.
    fn live(&self) -> Option<&Feed> {
        self.feeds.iter().find(|feed| feed.replay.is_none())
    }

    /// A replay of the same filter begins anew.
    async fn subscribe_replay(
        &mut self,
        asked: &Filter<'_>,
        replay: &str,
        id: Option<u32>,
    ) -> Result<(), NotSubscribed> {
        let replay = Replay::parse(replay, self.front.broker.now());
        let Replay { from, filter } = replay.ok_or(NotSubscribed::Filter)?;
        let is_same = |it: &Feed| it.replay.as_deref() == Some(asked.filter);
        let others = self
            .feeds
            .iter()
            .filter(|it| it.replay.is_some() && !is_same(it));
        if others.count() >= REPLAYS_MAX {
            return Err(NotSubscribed::TooMany);
        }
        let topic = readable(&self.front, &self.door).await?;
        let one = Subscriptions::default();
        // It begins where the cursor does.
        one.insert(subscribed(asked, filter, id));
        let place = (asked.filter.into(), from.into());
        let feed = Feed::replay(&self.front, topic, place, one)?;
        match self.feeds.iter_mut().find(|it| is_same(it)) {
            Some(before) => *before = feed,
            None => {
                self.feeds.push(feed);
                self.front.stats.subscriptions.fetch_add(1, Relaxed);
            }
        }
        Ok(())
    }

    /// Ends subscriptions; a code for each filter, in order.
    pub(super) fn unsubscribe(&mut self, asked: &Unsubscribe<'_>) -> Vec<u8> {
        let codes = asked.filters.iter().map(|filter| {
            let before = self.count();
            if let Some(live) = self.live() {
                live.remove(filter);
            }
            self.feeds.retain(|it| match &it.replay {
                Some(replay) => **replay != **filter,
                None => it.subscriptions.count() > 0,
            });
            let was_there = self.count() < before;
            if was_there {
                self.front.stats.subscriptions.fetch_sub(1, Relaxed);
            }
            of_unsubscribe(was_there)
        });
        codes.collect()
    }

    fn count(&self) -> usize {
        let counts = self.feeds.iter().map(|feed| feed.subscriptions.count());
        counts.sum()
    }

    /// Whether the log is to be asked for more: what was read is sent first.
    pub(super) fn wants_more(&self) -> bool {
        !self.feeds.is_empty() && self.feeds.iter().all(Feed::is_empty)
    }

    /// Reads on in the log, and waits for something there. What is given up loses nothing.
    pub(super) async fn read(&mut self) -> Result<(), Ending> {
        let (front, door) = (&self.front, &self.door);
        match &mut self.feeds[..] {
            [] => Ok(()),
            [one] => one.read(front, door).await,
            several => {
                let next = several
                    .iter_mut()
                    .map(|feed| Box::pin(feed.read(front, door)));
                select_all(next).await.0
            }
        }
    }

    /// Appends messages that were read to what is to be sent, as far as there is room. Gives how long nothing more is to be sent
    /// because of the client's quota.
    pub(super) fn fill(&mut self, out: &mut BytesMut) -> Duration {
        let before = out.len();
        for at in 0..self.feeds.len() {
            let Some((slice, mut index)) = self.feeds[at].take() else {
                continue;
            };
            while out.len() < UNSENT_BYTES_MAX && self.window.has_room() {
                let Some(record) = slice.get(index) else {
                    break;
                };
                self.send(at, &record, out);
                index += 1;
            }
            self.feeds[at].put_back(slice, index);
        }
        let bytes = out.len() - before;
        if bytes == 0 {
            return Duration::ZERO;
        }
        let (quotas, caller) = (self.front.broker.quotas(), self.door.caller());
        let wait = quotas.charge(Quota::ConsumerByteRate, caller, bytes as f64);
        quotas.note(Quota::ConsumerByteRate, wait);
        wait
    }

    fn send(&mut self, at: usize, record: &ReplayRecord<'_>, out: &mut BytesMut) {
        let (feed, stats) = (&self.feeds[at], &self.front.stats);
        let (offset, time) = (record.record.offset, record.record.timestamp);
        let stored = match found(&record.record, self.front.broker.now()) {
            Found::Message(stored) => *stored,
            Found::Expired => return stats.skipped(Skipped::Expired, 1),
            Found::None => return,
        };
        let Stored {
            qos,
            client_id,
            mut delivery,
        } = stored;
        let wanted = feed.subscriptions.wanted(&Seen {
            topic: delivery.topic,
            is_own: client_id == Some(&self.client_id),
            partition: record.partition,
            offset,
        });
        let Some(wanted) = wanted else { return };
        let qos = qos.unwrap_or(wanted.qos).min(wanted.qos);
        delivery.subscription_ids = wanted.ids;
        delivery.retain &= wanted.retain_as_published;
        let place = feed.replay.as_ref().map(|_| {
            let offset = format!("{}:{offset}", record.partition);
            (offset, format!("{}ms", time.millis()))
        });
        if let Some((offset, time)) = &place {
            delivery.user.push(("log-offset", offset));
            delivery.user.push(("log-time", time));
        }
        let packet_id = match qos {
            Qos::AtMostOnce => 0,
            Qos::AtLeastOnce => self.window.take(Waits::Puback),
            Qos::ExactlyOnce => self.window.take(Waits::Pubrec),
        };
        let sent = (qos, packet_id);
        if publish(out, self.version, sent, &delivery, self.packet_bytes_max) {
            stats.delivered(qos);
        } else {
            self.window.sent.remove(&packet_id);
            stats.skipped(Skipped::TooLarge, 1);
        }
    }

    /// Takes a client's word about a message that it was sent.
    pub(super) fn ack(&mut self, ack: Ack, out: &mut BytesMut) -> Result<(), Ending> {
        const OTHER: Fault = Fault::Protocol("an ack of another QoS than the message has");
        let Ack {
            kind,
            packet_id,
            reason,
        } = ack;
        let sent = &mut self.window.sent;
        match (kind, sent.get(&packet_id).copied()) {
            (AckKind::Puback, Some(Waits::Puback)) | (AckKind::Pubcomp, Some(Waits::Pubcomp)) => {
                sent.remove(&packet_id);
            }
            (AckKind::Pubrec, Some(Waits::Pubrec)) if reason >= 0x80 => {
                sent.remove(&packet_id);
            }
            (AckKind::Pubrec, Some(Waits::Pubrec | Waits::Pubcomp)) => {
                sent.insert(packet_id, Waits::Pubcomp);
                reply(out, self.version, AckKind::Pubrel, packet_id, 0, None);
            }
            // A refusal ends the message, so that no PUBREL is owed.
            (AckKind::Pubrec, None) if reason >= 0x80 => {}
            (AckKind::Pubrec, None) => {
                let code = match self.version {
                    Version::V311 => 0,
                    Version::V5 => unknown_id(),
                };
                reply(out, self.version, AckKind::Pubrel, packet_id, code, None);
            }
            // Of one that is done already.
            (AckKind::Puback | AckKind::Pubcomp, None) => {}
            (_, Some(_)) => return Err(OTHER.into()),
            (AckKind::Pubrel, None) => unreachable!("a PUBREL is about a client's own message"),
        }
        Ok(())
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        let count = self.count() as u64;
        self.front.stats.subscriptions.fetch_sub(count, Relaxed);
    }
}

fn subscribed(asked: &Filter<'_>, filter: TopicFilter, id: Option<u32>) -> Subscribed {
    Subscribed {
        filter,
        qos: asked.qos,
        no_local: asked.no_local,
        retain_as_published: asked.retain_as_published,
        id,
        since: Arc::new([]),
    }
}

/// The topic of the route, as the client may read it.
async fn readable(
    front: &Front,
    door: &Door,
) -> Result<Granted<Arc<Topic>, right::Read>, NotSubscribed> {
    let topic = publishing::topic(front, door, right::Read).await;
    topic.map_err(|refusal| match refusal {
        Refusal::Denied { .. } => NotSubscribed::Denied,
        _ => NotSubscribed::Failed,
    })
}
