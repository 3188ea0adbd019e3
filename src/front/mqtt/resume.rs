//! What a subscriber's session keeps, and how its next connection goes on with that (§4.4).
//! Callers: `connection`. Invariants: what was sent and not acknowledged comes again before anything else, in the order of the log, under the
//! identifier that it had and marked as such. What is sent exactly once leaves when that is kept, and its end before the client is told
//! to forget it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use model::Offset;

use super::again::Again;
use super::ending::Ending;
use super::errors::NotSubscribed;
use super::feed::Feed;
use super::history::STATUS;
use super::outbound::{Outbound, readable};
use super::packet::{AckKind, Qos, reply};
use super::retained::Asked;
use super::route::{Found, found};
use super::session::{Left, ending_of, options_of, read_options};
use super::shared::{Shared, finish};
use super::stats::Skipped;
use super::status::Status;
use super::subscriptions::{Seen, Subscribed, Subscriptions};
use super::topic::TopicFilter;
use super::window::{Sent, Source, Waits};
use crate::broker::Topic;
use crate::broker::access::{Granted, right};
use crate::broker::place::Place;
use crate::broker::replay::{self, FollowRequest, Order, Place as Begin, ReplayRecord, Resume};
use crate::broker::sessions::{
    Cursor, KeptSession, KeptSubscription, Positions, SHARED, Sending, SessionRefusal, SessionState,
};

type Readable = Granted<Arc<Topic>, right::Read>;

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
        if kept.subscriptions.is_empty() && self.window.again.is_empty() {
            return Ok(());
        }
        let topic = readable(&self.front, &self.door).await;
        let topic = topic.map_err(|why| match why {
            NotSubscribed::Denied => Ending::Denied,
            _ => Ending::StoreFailed,
        })?;
        let subscriptions = self.take_up_subscriptions(kept, &topic);
        if let Some(status) = kept.subscriptions.iter().find(|it| &*it.filter == STATUS) {
            self.begin_status((status.id > 0).then_some(status.id));
        }
        for shared in kept.subscriptions.iter().filter(|it| is_shared(it)) {
            let joined = self.rejoin(&topic, shared).await;
            joined.map_err(|why| match why {
                NotSubscribed::Denied => Ending::Denied,
                _ => Ending::StoreFailed,
            })?;
        }
        self.keeps_looks = kept.subscriptions.iter().any(|it| it.retained.is_some());
        self.send_again(&topic, &subscriptions)?;
        if subscriptions.count() > 0 {
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
            let again = (packet_id, Qos::AtLeastOnce);
            self.window.again.entry(*place).or_default().push(again);
            // It is not done, and nothing is told of this session before all of them are named.
            self.session.held.progress().sent(packet_id, *place);
        }
    }

    fn take_up_subscriptions(&mut self, kept: &KeptSession, topic: &Readable) -> Subscriptions {
        let subscriptions = Subscriptions::default();
        for it in kept.subscriptions.iter().filter(|it| has_place(it)) {
            // It was checked when it came.
            let Ok(filter) = TopicFilter::parse(&it.filter) else {
                continue;
            };
            let (qos, no_local, retain_as_published) = read_options(it.options);
            let id = (it.id > 0).then_some(it.id);
            let since: Arc<[Offset]> = it.since.of_topic(topic.id).into();
            if let Some(behind) = &it.retained {
                let asked = Asked {
                    filter: filter.clone(),
                    qos,
                    no_local,
                    id,
                };
                let behind = Some(Arc::clone(behind));
                self.looks
                    .begin(asked, topic.clone(), Arc::clone(&since), behind);
            }
            subscriptions.insert(Subscribed {
                filter,
                qos,
                no_local,
                retain_as_published,
                id,
                since,
            });
            self.front.stats.subscriptions.fetch_add(1, Relaxed);
        }
        subscriptions
    }

    /// Reads what is to be sent again. What its topic does not have any more is not.
    fn send_again(
        &mut self,
        topic: &Readable,
        subscriptions: &Subscriptions,
    ) -> Result<(), Ending> {
        let progress = self.session.held.progress();
        self.window.again.retain(|place, all| {
            let is_there = place.topic == topic.id;
            if !is_there {
                all.iter()
                    .for_each(|(packet_id, _)| progress.acked(*packet_id));
            }
            is_there
        });
        let mut from: Vec<Resume> = Vec::new();
        for place in self.window.again.keys() {
            if from.last().is_none_or(|it| it.partition != place.partition) {
                from.push(Resume {
                    partition: place.partition,
                    offset: place.offset,
                    since: None,
                });
            }
        }
        if from.is_empty() {
            return Ok(());
        }
        let wanted = self.window.again.keys();
        let wanted: std::collections::BTreeSet<_> = wanted
            .map(|place| (place.partition, place.offset))
            .collect();
        let request = FollowRequest {
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
        };
        let followed = self.front.broker.follow(topic, request);
        let subscription = followed.map_err(|_| Ending::Unreadable)?;
        self.again = Some(Again {
            subscriptions: subscriptions.clone(),
            subscription,
            topic: topic.clone(),
            block: None,
        });
        Ok(())
    }

    /// Appends what is to be sent again, as far as there is room.
    pub(super) fn fill_again(&mut self, out: &mut BytesMut) {
        let Some(again) = &mut self.again else { return };
        let Some((block, mut index)) = again.block.take() else {
            return;
        };
        let subscriptions = again.subscriptions.clone();
        let topic = again.topic.id;
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
                self.put_again(&record, (place, sent), &subscriptions, out);
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
        subscriptions: &Subscriptions,
        out: &mut BytesMut,
    ) {
        let stored = match found(&record.record, self.front.broker.now()) {
            Found::Message(stored) => *stored,
            // Of no use any more.
            Found::Expired | Found::None => {
                self.front.stats.skipped(Skipped::Expired, 1);
                return self.session.held.progress().acked(packet_id);
            }
        };
        let mut delivery = stored.delivery;
        // What was begun is ended, also if nobody subscribes to it any more.
        let wanted = subscriptions.wanted(&Seen {
            topic: delivery.topic,
            is_own: stored.client_id == Some(&self.client_id),
            partition: place.partition,
            offset: place.offset,
        });
        delivery.retain &= wanted.as_ref().is_some_and(|it| it.retain_as_published);
        delivery.subscription_ids = match wanted {
            Some(wanted) => wanted.ids,
            None => self.shared_ids(delivery.topic),
        };
        let from = Source::Log(place);
        self.put(qos, &mut delivery, &[], (from, Some(packet_id)), out);
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
            self.saving = Some((staged, saving.boxed()));
        }
        let (_, saving) = self.saving.as_mut().expect("there is one now");
        let saved = saving.await;
        let (staged, _) = self.saving.take().expect("it was there just now");
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
        for live in self.feeds.iter().filter(|it| it.replay.is_none()) {
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
        let Some(live) = self.live() else {
            return shared.collect();
        };
        let all = live.subscriptions.all().into_iter();
        let kept = all.map(|it| {
            let mut since = Positions::default();
            since.set_topic(live.topic.id, it.since.to_vec());
            let filter = it.filter.as_str();
            let looked = self.looks.behind(filter);
            let in_flight = self.window.retained_behind(filter);
            KeptSubscription {
                filter: filter.into(),
                options: options_of(it.qos, it.no_local, it.retain_as_published),
                id: it.id.unwrap_or(0),
                since,
                retained: looked.into_iter().chain(in_flight).min(),
            }
        });
        kept.chain(shared).collect()
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
