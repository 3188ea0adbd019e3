//! What a subscriber's session keeps, and how its next connection goes on with that (§4.4).
//! Callers: `connection`. Invariants: what was sent and not acknowledged comes again before anything else, in the order of the log, under the
//! identifier that it had and marked as such. What is sent exactly once leaves when that is kept, and its end before the client is told
//! to forget it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use model::Offset;

use super::again::{Again, OfTopic};
use super::ending::Ending;
use super::errors::NotSubscribed;
use super::feed::Feed;
use super::history::STATUS;
use super::naming::Naming;
use super::outbound::Outbound;
use super::packet::{AckKind, Qos, reply};
use super::readable::{Readable, read_by_id};
use super::reading::read_by;
use super::record::{Found, found};
use super::retained::Asked;
use super::session::{Left, ending_of, options_of, read_options};
use super::shared::{Shared, finish};
use super::stats::Skipped;
use super::status::Status;
use super::subscriptions::{Seen, Subscribed, Subscriptions};
use super::topic::TopicFilter;
use super::window::{Sent, Source, Waits};
use crate::broker::access::{Protocol, right};
use crate::broker::place::Place;
use crate::broker::replay::{self, FollowRequest, Order, Place as Begin, ReplayRecord, Resume};
use crate::broker::sessions::{
    Cursor, KeptSession, KeptSubscription, Positions, SHARED, Sending, SessionRefusal, SessionState,
};

/// A Kafka topic, and what a session subscribes to of it.
type Subscribing = (Readable, Subscriptions);

fn is_shared(kept: &KeptSubscription) -> bool {
    kept.filter.starts_with(SHARED)
}

/// Whether it has a place in the log.
fn has_place(kept: &KeptSubscription) -> bool {
    !is_shared(kept) && &*kept.filter != STATUS
}

impl Outbound {
    /// Goes on with what is kept.
    pub(super) async fn resume(
        &mut self,
        state: Option<SessionState>,
        out: &mut BytesMut,
    ) -> Result<(), Ending> {
        if let Some(state) = &state
            && let Some(kept) = &state.session
        {
            self.take_up(state, kept, out).await?;
        }
        self.is_resumed = true;
        self.session.held.progress().begin();
        Ok(())
    }

    async fn take_up(
        &mut self,
        state: &SessionState,
        kept: &KeptSession,
        out: &mut BytesMut,
    ) -> Result<(), Ending> {
        self.take_up_window(state, out);
        if kept.subscriptions.iter().any(is_shared) {
            let pending = state.sending.pending.iter();
            self.had = pending.map(|it| it.place).collect();
        }
        if kept.subscriptions.is_empty() && self.window.again.is_empty() {
            return Ok(());
        }
        let mut all: Vec<Subscribing> = Vec::new();
        for it in kept.subscriptions.iter().filter(|it| has_place(it)) {
            self.take_up_one(it, state, &mut all).await?;
        }
        if let Some(status) = kept.subscriptions.iter().find(|it| &*it.filter == STATUS) {
            self.begin_status((status.id > 0).then_some(status.id));
        }
        for shared in kept.subscriptions.iter().filter(|it| is_shared(it)) {
            self.rejoin(shared).await.map_err(not_resumed)?;
        }
        self.keeps_looks = kept.subscriptions.iter().any(|it| it.retained.is_some());
        self.send_again(&all)?;
        for (topic, subscriptions) in all {
            let at = |partition| state.cursor.read.get(topic.id, partition);
            let at: Vec<Offset> = topic.partitions().map(at).collect();
            let live = Feed::resumed(&self.front, topic, &at, subscriptions);
            self.go_on(live.map_err(|_| Ending::Unreadable)?);
        }
        Ok(())
    }

    fn take_up_window(&mut self, state: &SessionState, out: &mut BytesMut) {
        self.sent_to = state.sending.sent_to.clone();
        for it in &state.sending.pending {
            if it.is_released {
                let sent = Sent {
                    waits: Waits::Pubcomp,
                    from: Source::Log(it.place),
                };
                self.window.sent.insert(it.packet_id, sent);
                reply(out, self.version, AckKind::Pubrel, it.packet_id, 0, None);
            } else {
                let again = (it.packet_id, Qos::ExactlyOnce);
                self.window.again.entry(it.place).or_default().push(again);
            }
        }
        for (packet_id, place) in &state.cursor.unacked {
            let is_taken =
                self.window.sent.contains_key(packet_id) || self.window.is_to_come(*packet_id);
            if self.window.again.contains_key(place) {
                continue;
            }
            // The identifier may be another message's since.
            let packet_id = match is_taken {
                true => self.window.free_id(),
                false => *packet_id,
            };
            if state.cursor.read.has(place.topic) && !state.cursor.read.is_past(place) {
                self.come_again.insert(*place);
            }
            let again = (packet_id, Qos::AtLeastOnce);
            self.window.again.entry(*place).or_default().push(again);
            // It is not done, and nothing is told of this session before all of them are named.
            self.session.held.progress().sent(packet_id, *place);
        }
    }

    /// Goes on with a subscription: where its messages go, and where they went when it was made, or later, as there may be some that it was
    /// not sent.
    async fn take_up_one(
        &mut self,
        kept: &KeptSubscription,
        state: &SessionState,
        all: &mut Vec<Subscribing>,
    ) -> Result<(), Ending> {
        // It was checked when it came.
        let Some(filter) = TopicFilter::readable(&kept.filter) else {
            return Ok(());
        };
        let mut topics = match read_by(&self.front, &self.door, &filter).await {
            // The Kafka topic that it names is gone, and it ends with it.
            Err(NotSubscribed::Filter) => return Ok(()),
            topics => topics.map_err(not_resumed)?,
        };
        for (id, _) in kept.since.topics() {
            let is_known = topics.iter().any(|topic| topic.id == id);
            if !is_known && self.front.broker.has_topic(id) {
                let topic = read_by_id(&self.door, id, &filter);
                topics.push(topic.map_err(|_| Ending::Denied)?);
            }
        }
        let mut since = Positions::default();
        for topic in &topics {
            // Where its messages went only later, it has all that the session has not been given.
            let begins = match kept.since.has(topic.id) {
                true => &kept.since,
                false => &state.cursor.read,
            };
            since.set_topic(topic.id, begins.shared_of_topic(topic.id));
        }
        let (qos, no_local, retain_as_published) = read_options(kept.options);
        let id = (kept.id > 0).then_some(kept.id);
        if let Some(behind) = &kept.retained {
            let asked = Asked {
                filter: filter.clone(),
                qos,
                no_local,
                id,
            };
            let behind = Some(Arc::clone(behind));
            self.looks
                .begin(asked, topics.clone(), since.clone(), behind);
        }
        for topic in topics {
            let subscribed = Subscribed {
                filter: filter.clone(),
                qos,
                no_local,
                retain_as_published,
                id,
                since: since.shared_of_topic(topic.id),
            };
            match all.iter().find(|(known, _)| known.id == topic.id) {
                Some((_, subscriptions)) => subscriptions.insert(subscribed),
                None => {
                    let subscriptions = Subscriptions::default();
                    subscriptions.insert(subscribed);
                    all.push((topic, subscriptions));
                }
            }
        }
        self.live_filters.insert(filter.text());
        self.front.stats.subscriptions.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Reads what is to be sent again. What is in topics that are gone is not.
    fn send_again(&mut self, subscribing: &[Subscribing]) -> Result<(), Ending> {
        let (progress, broker) = (self.session.held.progress(), &self.front.broker);
        self.window.again.retain(|place, all| {
            let is_there = broker.has_topic(place.topic);
            if !is_there {
                all.iter()
                    .for_each(|(packet_id, _)| progress.acked(*packet_id));
            }
            is_there
        });
        let mut topics = VecDeque::new();
        let places: Vec<Place> = self.window.again.keys().copied().collect();
        for places in places.chunk_by(|one, next| one.topic == next.topic) {
            let id = places[0].topic;
            // What nothing of the session subscribes to is looked at message by message.
            let own = self.front.broker.own_door(Protocol::Mqtt);
            let topic = own.topic_by_id(id, right::Read);
            let topic = topic.map_err(|_| Ending::Denied)?;
            let of_topic = subscribing.iter().find(|(topic, _)| topic.id == id);
            let subscriptions = of_topic.map(|(_, subscriptions)| subscriptions.clone());
            let followed = self.front.broker.follow(&topic, request_of(places));
            topics.push_back(OfTopic {
                subscriptions: subscriptions.unwrap_or_default(),
                subscription: followed.map_err(|_| Ending::Unreadable)?,
                naming: self.front.settings.routes.naming(&topic.name),
                topic,
            });
        }
        if !topics.is_empty() {
            self.again = Some(Box::new(Again {
                topics,
                block: None,
            }));
        }
        Ok(())
    }

    /// Appends what is to be sent again, as far as there is room.
    pub(super) fn fill_again(&mut self, out: &mut BytesMut) {
        let Some(again) = &mut self.again else { return };
        let Some((block, mut index)) = again.block.take() else {
            return;
        };
        let of_topic = again.topics.front().expect("what was read is of the first");
        let subscriptions = of_topic.subscriptions.clone();
        let (topic, naming) = (of_topic.topic.id, of_topic.naming.clone());
        while self.has_room(out) {
            let Some(record) = block.get(index) else {
                break;
            };
            let place = Place {
                topic,
                partition: record.partition,
                offset: record.record.offset,
            };
            for sent in self.window.again.remove(&place).unwrap_or_default() {
                self.put_again(&record, (place, sent), (&subscriptions, &naming), out);
            }
            index += 1;
        }
        if let Some(again) = self.again.as_mut().filter(|_| index < block.len()) {
            again.block = Some((block, index));
        }
    }

    fn put_again(
        &mut self,
        record: &ReplayRecord<'_>,
        (place, (packet_id, qos)): (Place, (u16, Qos)),
        (subscriptions, naming): (&Subscriptions, &Naming),
        out: &mut BytesMut,
    ) {
        let stored = match found(&record.record, self.front.broker.now()) {
            Found::Message(stored) => *stored,
            // Of no use any more.
            Found::Expired => {
                self.front.stats.skipped(Skipped::Expired, 1);
                return self.session.held.progress().acked(packet_id);
            }
        };
        let mut delivery = stored.delivery;
        // What was begun is ended, also if nobody subscribes to it any more.
        let names = naming.names(&record.record);
        let wanted = subscriptions.wanted(&Seen {
            names: &names,
            is_own: stored.client_id == Some(self.client_id()),
            partition: place.partition,
            offset: place.offset,
        });
        delivery.retain &= wanted.as_ref().is_some_and(|it| it.retain_as_published);
        let wanted = match wanted {
            Some(wanted) => Some((wanted.ids, wanted.is_of_kafka)),
            None => self.shared_wanted(&names),
        };
        let is_of_kafka = names.published().is_none();
        let is_ended = wanted.is_none();
        let (ids, is_of_kafka) = wanted.unwrap_or((Vec::new(), is_of_kafka));
        if is_ended && !self.may_read(&naming.topic, names.published()) {
            return self.session.held.progress().acked(packet_id);
        }
        delivery.topic = names.by(is_of_kafka).unwrap_or_else(|| names.kafka());
        delivery.subscription_ids = ids;
        let from = Source::Log(place);
        self.put(qos, &mut delivery, &[], (from, Some(packet_id)), out);
    }

    /// Whether the client may read a message of this name, or one that has none.
    fn may_read(&self, topic: &str, name: Option<&str>) -> bool {
        let granted = match name {
            Some(name) => self.door.part_if_allowed(topic, name, right::Read),
            None => self.door.topic_if_allowed(topic, right::Read),
        };
        granted.is_some()
    }

    /// Everything that is there was sent again. What is not there any more, nobody waits for.
    pub(super) fn end_again(&mut self) {
        self.again = None;
        let gone = std::mem::take(&mut self.window.again);
        self.front.stats.skipped(Skipped::Gap, gone.len() as u64);
        for (packet_id, _) in gone.values().flatten() {
            self.session.held.progress().acked(*packet_id);
        }
    }

    /// Whether packets wait for what is to be kept before, or something else is to be kept.
    pub(super) fn saves(&self) -> bool {
        self.saving.is_some() || !self.staged.packets.is_empty() || self.has_looked()
    }

    /// Whether retained messages were given and acknowledged of which it is kept that they are to be given.
    fn has_looked(&self) -> bool {
        self.keeps_looks && self.looks.is_empty() && !self.window.has_retained()
    }

    /// Reads on, or keeps what is to be kept, whose packets are appended then. What is given up loses nothing.
    pub(super) async fn step(&mut self, out: &mut BytesMut) -> Result<(), Ending> {
        if !self.saves() {
            return self.read().await;
        }
        if self.saving.is_none() {
            let keeps = match self.has_looked() {
                true => self.save().boxed(),
                false => self.keep_sending().boxed(),
            };
            let mut staged = std::mem::take(&mut self.staged);
            let finishing = std::mem::take(&mut staged.finishing);
            staged.finishing.clone_from(&finishing);
            let saving = async move {
                keeps.await.map_err(ending_of)?;
                finish(finishing).await
            };
            self.saving = Some(Box::new((staged, saving.boxed())));
        }
        let saving = self.saving.as_mut().expect("there is one now");
        let saved = (&mut saving.1).await;
        let (staged, _) = *self.saving.take().expect("it was there just now");
        if saved.is_err() {
            // They go back to the others, and are not the session's.
            for it in &staged.finishing {
                self.window.sent.remove(&it.packet_id);
            }
        }
        saved?;
        self.session.held.progress().kept(&staged.places);
        out.extend_from_slice(&staged.packets);
        self.forget_shared();
        Ok(())
    }

    /// Keeps what is sent exactly once, if its session is kept.
    fn keep_sending(&self) -> impl Future<Output = Result<(), SessionRefusal>> + Send + use<> {
        let session = Some(Arc::clone(&self.session)).filter(|it| it.is_kept());
        let kept = session.map(|session| (session, self.sending()));
        async move {
            match kept {
                None => Ok(()),
                Some((session, sending)) => session.held.sending(sending).await,
            }
        }
    }

    /// What is sent exactly once.
    pub(super) fn sending(&self) -> Sending {
        Sending {
            sent_to: self.sent_to.clone(),
            pending: self.window.pending(),
        }
    }

    /// Where it is.
    pub(super) fn cursor(&self) -> Cursor {
        let mut read = Positions::default();
        for live in self.lives() {
            read.set_topic(live.topic.id, live.read_to());
        }
        Cursor {
            keeps_up: false,
            read,
            unacked: self.window.unacked(),
        }
    }

    /// Its subscriptions, as they are kept.
    pub(super) fn kept_subscriptions(&self) -> Vec<KeptSubscription> {
        let shared = self.shared.iter().filter(|it| it.is_open());
        let status = self.status.map(Status::kept);
        let shared = shared.map(Shared::kept).chain(status);
        let mut kept: Vec<KeptSubscription> = Vec::new();
        let mut known: HashMap<Arc<str>, usize> = HashMap::new();
        for live in self.lives() {
            for it in live.subscriptions.all() {
                let filter = it.filter.text();
                let at = *known.entry(Arc::clone(&filter)).or_insert(kept.len());
                if at == kept.len() {
                    kept.push(self.kept_of(&it, filter));
                }
                let since = &mut kept[at].since;
                since.set_topic(live.topic.id, it.since);
            }
        }
        kept.extend(shared);
        kept.shrink_to_fit();
        kept
    }

    /// Without where it begins.
    fn kept_of(&self, it: &Subscribed, filter: Arc<str>) -> KeptSubscription {
        let looked = self.looks.behind(&filter);
        let in_flight = self.window.retained_behind(&filter);
        KeptSubscription {
            filter,
            options: options_of(it.qos, it.no_local, it.retain_as_published),
            id: it.id.unwrap_or(0),
            since: Positions::default(),
            retained: looked.into_iter().chain(in_flight).min(),
        }
    }

    /// What is left of it at the end of its connection; None if it was not taken up, and is as it was.
    pub(super) fn left(&self) -> Option<Left> {
        self.is_resumed.then(|| Left {
            subscriptions: self.kept_subscriptions(),
            cursor: self.cursor(),
            sending: self.sending(),
        })
    }

    /// Keeps the session as it is, if it is one that is kept.
    pub(super) fn save(
        &mut self,
    ) -> impl Future<Output = Result<(), SessionRefusal>> + Send + use<> {
        let session = Some(Arc::clone(&self.session)).filter(|it| it.is_kept());
        let kept = session.map(|session| {
            let subscriptions = self.kept_subscriptions();
            self.keeps_looks = subscriptions.iter().any(|it| it.retained.is_some());
            // What waits to leave is behind the place.
            (session, subscriptions, self.cursor(), self.sending())
        });
        async move {
            match kept {
                None => Ok(()),
                Some((session, subscriptions, cursor, sending)) => {
                    let now = (Some(cursor), Some(sending));
                    session.save(subscriptions, now).await
                }
            }
        }
    }
}

/// What is asked of the log for messages at these places, which are of one topic.
fn request_of(places: &[Place]) -> FollowRequest {
    let mut from: Vec<Resume> = Vec::new();
    for place in places {
        if from.last().is_none_or(|it| it.partition != place.partition) {
            from.push(Resume {
                partition: place.partition,
                offset: place.offset,
                since: None,
            });
        }
    }
    let wanted = places.iter().map(|place| (place.partition, place.offset));
    let wanted: BTreeSet<_> = wanted.collect();
    FollowRequest {
        partitions: Some(from.iter().map(|it| it.partition).collect()),
        from: Begin::Latest,
        resume: Some(from),
        filter: replay::Filter {
            accept: Some(Arc::new(move |partition, record| {
                wanted.contains(&(partition, record.offset))
            })),
            ..replay::Filter::default()
        },
        order: Order::Offset,
    }
}

/// Why a session cannot be gone on with now.
fn not_resumed(why: NotSubscribed) -> Ending {
    match why {
        NotSubscribed::Denied => Ending::Denied,
        _ => Ending::StoreFailed,
    }
}
