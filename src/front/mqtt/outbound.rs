//! What a client is sent: the messages of its subscriptions, read from the log as they become durable.
//! Callers: `connection`. Invariants: nothing is queued for a client: it has a place in the log, and while it takes nothing, or as many
//! messages are without an ack as may be, nothing is read for it. Messages of a topic come in the order of the log. No more than
//! the client's receive maximum are without an ack, and each identifier is one message's at a time. A message that is longer than the
//! client takes is passed over and counted, and holds up nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::{BoxFuture, select_all};
use model::quota::Quota;

use super::again::Again;
use super::bounds::{LOOKS_AT_ONCE, SEND_MAX, UNSENT_BYTES_MAX};
use super::ending::Ending;
use super::errors::unknown_id;
use super::feed::Feed;
use super::greeting::Client;
use super::history::head_of;
use super::packet::{Ack, AckKind, Delivery, Fault, Filter, Qos, Version, publish, reply};
use super::record::{Found, Stored, found, found_retained};
use super::retained::{Looks, Next};
use super::session::Session;
use super::shared::{Finishing, Shared, next_given};
use super::state::Front;
use super::stats::Skipped;
use super::status::Status;
use super::subscriptions::{Filters, Seen, Subscribed};
use super::topic::TopicFilter;
use super::window::{Source, Waits, Window};
use crate::broker::access::Door;
use crate::broker::place::Place;
use crate::broker::replay::ReplayRecord;
use crate::broker::sessions::Positions;

/// See the module.
pub(super) struct Outbound {
    pub(super) front: Arc<Front>,
    pub(super) door: Arc<Door>,
    pub(super) version: Version,
    pub(super) packet_bytes_max: usize,
    /// Whether gaps are told in messages of their own.
    pub(super) status: Option<Status>,
    /// Those of the subscriptions to what comes, one for each Kafka topic, and those of replays.
    pub(super) feeds: Vec<Feed>,
    /// The filters of the subscriptions to what comes.
    pub(super) live_filters: Filters,
    /// Its parts in shared subscriptions, those of which messages are still on their way among them.
    pub(super) shared: Vec<Shared>,
    /// The number of the last of them.
    pub(super) next_shared: u64,
    /// What an earlier connection was sent and has not acknowledged: it comes before anything else.
    pub(super) again: Option<Box<Again>>,
    /// Messages that come again, and that lie where the session goes on reading: a place that was noted while it was sent more may be
    /// before these.
    pub(super) come_again: BTreeSet<Place>,
    /// Messages that the session was being sent exactly once when it was taken up: what a shared subscription gives of these, because the server
    /// was killed before the others were told, is its own already.
    pub(super) had: BTreeSet<Place>,
    /// Retained messages that are to be given before anything else.
    pub(super) looks: Looks,
    pub(super) window: Window,
    pub(super) session: Arc<Session>,
    /// What lies before was sent exactly once, of a session that is kept.
    pub(super) sent_to: Positions,
    /// Packets that leave when it is kept what they begin or end.
    pub(super) staged: Staged,
    /// The same, and that is on its way to the log.
    pub(super) saving: Option<Box<(Staged, Save)>>,
    /// Whether all of its session is here: until then it is as it was kept.
    pub(super) is_resumed: bool,
    /// Whether it is kept that retained messages are still to be given.
    pub(super) keeps_looks: bool,
}

/// A change of the session, on its way to the log.
pub(super) type Save = BoxFuture<'static, Result<(), Ending>>;

/// Packets that wait, the messages among them that are new, and what is to be finished before they leave.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) packets: BytesMut,
    pub(super) places: Vec<Place>,
    pub(super) finishing: Vec<Finishing>,
}

impl Outbound {
    /// Of a client that was just let in. What is there of its session is taken up by [`Outbound::resume`].
    pub(super) fn new(front: &Arc<Front>, client: &Client) -> Outbound {
        Outbound {
            front: Arc::clone(front),
            door: Arc::clone(&client.door),
            version: client.version,
            packet_bytes_max: client.packet_bytes_max,
            status: None,
            feeds: Vec::new(),
            live_filters: Filters::default(),
            shared: Vec::new(),
            next_shared: 0,
            again: None,
            come_again: BTreeSet::new(),
            had: BTreeSet::new(),
            looks: Looks::default(),
            window: Window::new(usize::from(client.receive_maximum).min(SEND_MAX)),
            session: Arc::clone(&client.session),
            sent_to: Positions::default(),
            staged: Staged::default(),
            saving: None,
            is_resumed: false,
            keeps_looks: false,
        }
    }

    /// What the client calls itself.
    pub(super) fn client_id(&self) -> &[u8] {
        let id = self.door.caller().client_id.as_deref();
        id.unwrap_or_default().as_bytes()
    }

    /// Whether there is nothing to do but to wait for what comes.
    pub(super) fn rests(&self) -> bool {
        self.feeds.iter().all(Feed::rests)
            && self.shared.is_empty()
            && self.again.is_none()
            && self.looks.is_empty()
            && self.status.is_none()
            && !self.saves()
    }

    /// Resolves when something has come for one that rests.
    pub(super) fn poll_came(&self, context: &mut Context<'_>) -> Poll<()> {
        // All of them were asked where it waits, and will wake it.
        let mut feeds = self.feeds.iter();
        match feeds.any(|feed| feed.poll_came(context).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Whether one that rests has nothing, nor anything to be known for what comes next: a new one would be the same.
    pub(super) fn is_over(&self) -> bool {
        self.feeds.is_empty()
            && self.live_filters.count() == 0
            && self.come_again.is_empty()
            && self.window.is_empty()
            && self.sent_to.is_empty()
            && !self.keeps_looks
    }

    /// Those of the subscriptions to what comes.
    pub(super) fn lives(&self) -> impl Iterator<Item = &Feed> {
        self.feeds.iter().filter(|feed| feed.replay.is_none())
    }

    /// How many subscriptions it has, shared ones aside.
    fn count(&self) -> usize {
        let replays = self.feeds.iter().filter_map(|it| it.replay.as_deref());
        self.live_filters.count() + replays.collect::<BTreeSet<_>>().len()
    }

    /// Whether there may be more retained messages, and room for them.
    pub(super) fn looks_further(&self) -> bool {
        !self.looks.is_empty() && self.window.has_room() && !self.saves() && self.again.is_none()
    }

    /// Whether the log is to be asked for more: what was read is sent first, and what was retained before that.
    pub(super) fn wants_more(&self) -> bool {
        match &self.again {
            _ if self.saves() => false,
            Some(again) => again.is_empty(),
            None => {
                let is_shared = self.shared.iter().any(Shared::waits);
                self.looks.is_empty() && (self.reads_feeds() || is_shared)
            }
        }
    }

    fn reads_feeds(&self) -> bool {
        !self.feeds.is_empty() && self.feeds.iter().all(Feed::is_empty)
    }

    /// Reads on in the log, and waits for something there. What is given up loses nothing.
    pub(super) async fn read(&mut self) -> Result<(), Ending> {
        if let Some(again) = &mut self.again {
            if again.read(&self.door).await? {
                self.end_again();
            }
            return Ok(());
        }
        let reads = self.reads_feeds();
        let Outbound {
            front,
            door,
            feeds,
            shared,
            ..
        } = self;
        tokio::select! {
            read = Outbound::read_feeds((&**front, &**door), feeds), if reads => read,
            given = next_given(shared, door) => given,
        }
    }

    async fn read_feeds((front, door): (&Front, &Door), feeds: &mut [Feed]) -> Result<(), Ending> {
        match feeds {
            [] => Ok(()),
            [one] => one.read(front, door).await,
            several => {
                let next = several
                    .iter_mut()
                    .map(|feed| Box::pin(feed.read(front, door)));
                let (read, at, others) = select_all(next).await;
                drop(others);
                // Each has its turn.
                several.rotate_left(at + 1);
                read
            }
        }
    }

    /// Appends messages that were read to what is to be sent, as far as there is room. Gives how long nothing more is to be sent
    /// because of the client's quota.
    pub(super) fn fill(&mut self, out: &mut BytesMut) -> Duration {
        if self.saves() {
            return Duration::ZERO;
        }
        let before = out.len();
        if self.again.is_some() {
            self.fill_again(out);
        } else {
            self.fill_retained(out);
            self.fill_status(out);
            if self.looks.is_empty() {
                self.fill_from_feeds(out);
                self.fill_from_shared(out);
            }
        }
        let bytes = out.len() + self.staged.packets.len() - before;
        if bytes == 0 {
            return Duration::ZERO;
        }
        let (quotas, caller) = (self.front.broker.quotas(), self.door.caller());
        let wait = quotas.charge(Quota::ConsumerByteRate, caller, bytes as f64);
        quotas.note(Quota::ConsumerByteRate, wait);
        wait
    }

    /// Whether more may be put to what is to be sent.
    pub(super) fn has_room(&self, out: &BytesMut) -> bool {
        out.len() + self.staged.packets.len() < UNSENT_BYTES_MAX && self.window.has_room()
    }

    fn fill_from_feeds(&mut self, out: &mut BytesMut) {
        for at in 0..self.feeds.len() {
            let Some((slice, mut index)) = self.feeds[at].take() else {
                continue;
            };
            while self.has_room(out) {
                let Some(record) = slice.get(index) else {
                    break;
                };
                if !self.feeds[at].is_due(&record) {
                    break;
                }
                let goes_on = self.send(at, &record, out);
                index += 1;
                if !goes_on {
                    // In all topics that it reads.
                    let replay = self.feeds[at].replay.clone();
                    let all = self.feeds.iter_mut().filter(|it| it.replay == replay);
                    all.for_each(Feed::end);
                    break;
                }
            }
            self.feeds[at].put_back(slice, index);
        }
    }

    /// The same with retained messages.
    fn fill_retained(&mut self, out: &mut BytesMut) {
        for _ in 0..LOOKS_AT_ONCE {
            if !self.has_room(out) {
                return;
            }
            match self.looks.next(&self.front, &self.door) {
                Next::Nothing => return,
                Next::Further => {}
                Next::Message(kept, asked, behind) => {
                    let found = found_retained(&kept, self.front.broker.steady_now());
                    let Found::Message(stored) = found else {
                        continue;
                    };
                    let Stored {
                        qos,
                        client_id,
                        mut delivery,
                    } = *stored;
                    if asked.no_local && client_id == Some(self.client_id()) {
                        continue;
                    }
                    delivery.topic = &kept.name;
                    delivery.retain = true;
                    delivery.subscription_ids = asked.id.into_iter().collect();
                    let qos = qos.unwrap_or(asked.qos).min(asked.qos);
                    let from = Source::Retained(asked.filter.as_str().into(), behind);
                    self.put(qos, &mut delivery, &[], (from, None), out);
                }
            }
        }
    }

    /// False if no more is to be given.
    fn send(&mut self, at: usize, record: &ReplayRecord<'_>, out: &mut BytesMut) -> bool {
        let (offset, time) = (record.record.offset, record.record.timestamp);
        let (feed, stats) = (&self.feeds[at], &self.front.stats);
        let stored = match found(&record.record, self.front.broker.now()) {
            Found::Message(stored) => *stored,
            Found::Expired => {
                stats.skipped(Skipped::Expired, 1);
                return true;
            }
        };
        let Stored {
            qos,
            client_id,
            mut delivery,
        } = stored;
        let naming = feed.naming.clone();
        let names = naming.names(&record.record);
        let wanted = feed.subscriptions.wanted(&Seen {
            names: &names,
            is_own: client_id == Some(self.client_id()),
            partition: record.partition,
            offset,
        });
        let Some(wanted) = wanted else { return true };
        let Some(name) = names.by(wanted.is_of_kafka) else {
            return true;
        };
        delivery.topic = name;
        let qos = qos.unwrap_or(wanted.qos).min(wanted.qos);
        let place = Place {
            topic: feed.topic.id,
            partition: record.partition,
            offset,
        };
        let is_noted = self.session.is_kept() && qos == Qos::ExactlyOnce && feed.replay.is_none();
        if is_noted && self.sent_to.is_past(&place) {
            // It was sent before the server was killed.
            return true;
        }
        if feed.replay.is_none() && self.come_again.remove(&place) {
            return true;
        }
        delivery.subscription_ids = wanted.ids;
        delivery.retain &= wanted.retain_as_published;
        let said = feed.replay.as_ref().map(|_| {
            let head = head_of(&naming.topic);
            let offset = format!("{head}{}:{offset}", record.partition);
            (offset, format!("{}ms", time.millis()))
        });
        if let Some((offset, time)) = &said {
            delivery.user.push(("log-offset", offset));
            delivery.user.push(("log-time", time));
        }
        let gaps = feed.gaps(true);
        let from = (Source::Log(place), None);
        let told = match self.version {
            Version::V5 => self.put(qos, &mut delivery, &gaps, from, out),
            Version::V311 => {
                // It has no words for them.
                self.put(qos, &mut delivery, &[], from, out);
                gaps.len()
            }
        };
        if is_noted {
            let offset = offset.plus(1);
            self.sent_to.set(Place { offset, ..place });
        }
        let feed = &mut self.feeds[at];
        feed.told_gaps(told);
        feed.spend()
    }

    /// Appends a message, if it is not too long: under a new identifier, or the one that it was sent with before. It tells of these gaps,
    /// if they fit; gives how many it told.
    pub(super) fn put<'a>(
        &mut self,
        qos: Qos,
        delivery: &mut Delivery<'a>,
        gaps: &'a [String],
        (from, again): (Source, Option<u16>),
        out: &mut BytesMut,
    ) -> usize {
        const DUP: u8 = 0x08;
        let (place, of_shared) = match &from {
            Source::Log(place) => (Some(*place), None),
            Source::Shared(number, place) => (None, Some((*number, *place))),
            Source::Retained(..) => (None, None),
        };
        // The others have it no more when it leaves, or when it is acknowledged.
        let finished_first = of_shared.filter(|_| qos != Qos::AtLeastOnce);
        let packet_id = match again {
            None => self.window.take(qos, from),
            Some(packet_id) => {
                self.window.put(packet_id, qos, from);
                packet_id
            }
        };
        let place = place.filter(|_| self.session.is_kept());
        let is_new = qos == Qos::ExactlyOnce && again.is_none();
        // What was retained has no place in the log: it comes again.
        let to_be_kept = place.filter(|_| is_new);
        let waits = to_be_kept.is_some() || finished_first.is_some();
        let out = match waits || !self.staged.packets.is_empty() {
            true => &mut self.staged.packets,
            false => out,
        };
        let (first, stats) = (out.len(), &self.front.stats);
        let (sent, bytes_max) = ((qos, packet_id), self.packet_bytes_max);
        let (plain, mut told) = (delivery.user.len(), gaps.len());
        delivery
            .user
            .extend(gaps.iter().map(|it| ("log-gap", it.as_str())));
        let mut fits = publish(out, self.version, sent, delivery, bytes_max);
        if !fits && told > 0 {
            // The next one tells them.
            told = 0;
            delivery.user.truncate(plain);
            fits = publish(out, self.version, sent, delivery, bytes_max);
        }
        let progress = self.session.held.progress();
        if !fits {
            stats.skipped(Skipped::TooLarge, 1);
            self.window.sent.remove(&packet_id);
            progress.acked(packet_id);
            if let Some((number, place)) = of_shared {
                self.ended_shared(number, place, true);
            }
            return told;
        }
        stats.delivered(qos);
        if let Some(place) = to_be_kept {
            progress.takes(place);
            self.staged.places.push(place);
        }
        if again.is_some() {
            out[first] |= DUP;
        }
        if let Some(place) = place.filter(|_| qos == Qos::AtLeastOnce) {
            progress.sent(packet_id, place);
        }
        if let Some((number, place)) = finished_first {
            self.finish_first(number, place, packet_id);
        }
        told
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
        match (kind, sent.get(&packet_id).map(|it| it.waits)) {
            (AckKind::Puback, Some(Waits::Puback)) => {
                let done = sent.remove(&packet_id);
                self.session.held.progress().acked(packet_id);
                if let Some(Source::Shared(number, place)) = done.map(|it| it.from) {
                    self.ended_shared(number, place, reason >= 0x80);
                    self.forget_shared();
                }
            }
            (AckKind::Pubcomp, Some(Waits::Pubcomp)) => {
                sent.remove(&packet_id);
            }
            (AckKind::Pubrec, Some(Waits::Pubrec)) if reason >= 0x80 => {
                sent.remove(&packet_id);
            }
            (AckKind::Pubrec, Some(Waits::Pubrec | Waits::Pubcomp)) => {
                let mut is_of_log = false;
                if let Some(sent) = sent.get_mut(&packet_id) {
                    sent.waits = Waits::Pubcomp;
                    is_of_log = !matches!(sent.from, Source::Retained(..));
                }
                // Its client forgets the message then: that it is not to be sent again is kept before.
                let out = match self.session.is_kept() && is_of_log {
                    true => &mut self.staged.packets,
                    false => out,
                };
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
        let count = self.count() as u64 + u64::from(self.status.is_some());
        self.front.stats.subscriptions.fetch_sub(count, Relaxed);
    }
}

pub(super) fn subscribed(asked: &Filter<'_>, filter: TopicFilter, id: Option<u32>) -> Subscribed {
    Subscribed {
        filter,
        qos: asked.qos,
        no_local: asked.no_local,
        retain_as_published: asked.retain_as_published,
        id,
        since: Arc::new([]),
    }
}
