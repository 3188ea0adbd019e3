//! What a client is sent of shared subscriptions (§4.8.2), and what becomes of that.
//! Callers: `outbound` and `connection`. Invariants: a message of QoS 1 is finished when its client has acknowledged it, whatever the code, and
//! goes back to the others if it does not before its connection ends. One of QoS 0 or 2 is finished for the others before it leaves: of QoS 2
//! it is the client's, by its session, from then on, and comes to it once, also where a kill was between the two.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::BytesMut;

use super::bounds::SHARED_MAX;
use super::errors::NotSubscribed;
use super::naming::Names;
use super::outbound::{Outbound, subscribed};
use super::packet::Filter;
use super::readable::Readable;
use super::reading::read_by;
use super::record::{Found, Stored, found};
use super::session::{Left, read_options};
use super::shared::{self, Finishing, Shared, place_of};
use super::stats::Skipped;
use super::subscriptions::Subscribed;
use super::window::Source;
use crate::broker::place::Place;
use crate::broker::replay::ReplayRecord;
use crate::broker::sessions::KeptSubscription;
use crate::broker::share::Verdict;

impl Outbound {
    /// Takes part in a shared subscription, or changes how.
    pub(super) async fn subscribe_shared(
        &mut self,
        asked: &Filter<'_>,
        id: Option<u32>,
    ) -> Result<(), NotSubscribed> {
        let filter = shared::parse(asked.filter).ok_or(NotSubscribed::Filter)?;
        let new = subscribed(asked, filter, id);
        let mut open = self.shared.iter_mut().filter(|it| it.is_open());
        if let Some(before) = open.find(|it| &*it.filter == asked.filter) {
            before.asked = new;
            return Ok(());
        }
        if self.shared.len() >= SHARED_MAX {
            return Err(NotSubscribed::TooMany);
        }
        let topics = read_by(&self.front, &self.door, &new.filter).await?;
        self.join(topics, (asked.filter, new), false).await
    }

    async fn join(
        &mut self,
        topics: Vec<Readable>,
        (filter, asked): (&str, Subscribed),
        goes_on: bool,
    ) -> Result<(), NotSubscribed> {
        self.next_shared += 1;
        let of = (self.next_shared, filter, asked);
        let joined = Shared::join(&self.front, &self.door, topics, of, goes_on).await?;
        self.shared.push(joined);
        self.front.stats.subscriptions.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Goes on with one of its session: also where its messages went before routes were other ones, as there may be some that nobody has got.
    pub(super) async fn rejoin(&mut self, kept: &KeptSubscription) -> Result<(), NotSubscribed> {
        let Some(filter) = shared::parse(&kept.filter) else {
            return Ok(());
        };
        let (qos, no_local, retain_as_published) = read_options(kept.options);
        let asked = Subscribed {
            filter,
            qos,
            no_local,
            retain_as_published,
            id: (kept.id > 0).then_some(kept.id),
            since: Arc::new([]),
        };
        let (front, door) = (&self.front, &self.door);
        let mut topics = read_by(front, door, &asked.filter).await?;
        for begun in front
            .sharing
            .begun_with(door, (&kept.filter, &asked.filter))?
        {
            if topics.iter().all(|it| it.id != begun.id) {
                topics.push(begun);
            }
        }
        self.join(topics, (&kept.filter, asked), true).await
    }

    /// Ends one; whether it was there. What was sent of it may still be acknowledged (§3.10.4); if nothing was, it is over when this returns.
    pub(super) async fn leave_shared(&mut self, filter: &str) -> bool {
        let mut open = self.shared.iter_mut().filter(|it| it.is_open());
        let Some(one) = open.find(|it| &*it.filter == filter) else {
            return false;
        };
        one.close();
        self.front.stats.subscriptions.fetch_sub(1, Relaxed);
        for done in self.done_shared() {
            done.end().await;
        }
        true
    }

    /// Ends those that were closed and of which nothing is on its way.
    pub(super) fn forget_shared(&mut self) {
        for done in self.done_shared() {
            tokio::spawn(done.end());
        }
    }

    fn done_shared(&mut self) -> Vec<Shared> {
        let saving = self.saving.iter().map(|saving| &saving.0.finishing);
        let finishing = saving.chain([&self.staged.finishing]).flatten();
        let finishing: Vec<u64> = finishing.map(|it| it.number).collect();
        let window = &self.window;
        let is_done = |it: &mut Shared| {
            !it.is_open() && !finishing.contains(&it.number) && !window.has_shared(it.number)
        };
        self.shared.extract_if(.., is_done).collect()
    }

    /// Appends what was taken, as far as there is room, and asks for more.
    pub(super) fn fill_from_shared(&mut self, out: &mut BytesMut) {
        for at in 0..self.shared.len() {
            if let Some((given, mut index)) = self.shared[at].given.take() {
                while self.has_room(out) {
                    let Some((record, _)) = given.get(index) else {
                        break;
                    };
                    let place = place_of(given.place, record.record.offset);
                    self.send_shared(at, place, &record, out);
                    index += 1;
                }
                if index < given.len() {
                    self.shared[at].given = Some((given, index));
                }
            }
            if self.has_room(out) {
                let room = self.window.room();
                self.shared[at].ask(room);
            }
        }
    }

    fn send_shared(
        &mut self,
        at: usize,
        place: Place,
        record: &ReplayRecord<'_>,
        out: &mut BytesMut,
    ) {
        let was_its_own = self.had.remove(&place);
        let shared = &self.shared[at];
        if was_its_own {
            return shared.say(place, Verdict::Accept);
        }
        let stored = match found(&record.record, self.front.broker.now()) {
            Found::Message(stored) => *stored,
            Found::Expired => {
                self.front.stats.skipped(Skipped::Expired, 1);
                return shared.say(place, Verdict::Discard);
            }
        };
        let Stored {
            qos, mut delivery, ..
        } = stored;
        let asked = &shared.asked;
        let topic = shared.topic(place.topic);
        let naming = topic.map(|topic| self.front.settings.routes.naming(&topic.name));
        let names = naming.as_ref().map(|naming| naming.names(&record.record));
        let name = names
            .as_ref()
            .and_then(|names| names.by(asked.filter.is_of_kafka()));
        let Some(name) = name else {
            return shared.say(place, Verdict::Reject);
        };
        delivery.topic = name;
        let qos = qos.unwrap_or(asked.qos).min(asked.qos);
        delivery.subscription_ids = asked.id.into_iter().collect();
        delivery.retain &= asked.retain_as_published;
        let from = Source::Shared(shared.number, place);
        self.put(qos, &mut delivery, &[], (from, None), out);
    }

    /// Those that a message is for: their identifiers, and whether all of them match it as a record of its Kafka topic; None if there is none.
    pub(super) fn shared_wanted(&self, names: &Names<'_>) -> Option<(Vec<u32>, bool)> {
        let asked = self.shared.iter().map(|it| &it.asked);
        let wanted: Vec<_> = { asked.filter(|it| names.is_matched_by(&it.filter)) }.collect();
        let is_of_kafka = wanted.iter().all(|it| it.filter.is_of_kafka());
        let ids = wanted.iter().filter_map(|it| it.id).collect();
        (!wanted.is_empty()).then_some((ids, is_of_kafka))
    }

    fn shared_of(&self, number: u64) -> Option<&Shared> {
        self.shared.iter().find(|it| it.number == number)
    }

    /// Has a message wait to leave until it is finished for the others.
    pub(super) fn finish_first(&mut self, number: u64, place: Place, packet_id: u16) {
        let Some(shared) = self.shared_of(number) else {
            return;
        };
        self.staged.finishing.push(Finishing {
            number,
            said: shared.said.clone(),
            place,
            packet_id,
        });
    }

    /// A message has come to its end: nobody else is to have it.
    pub(super) fn ended_shared(&self, number: u64, place: Place, is_refused: bool) {
        let verdict = match is_refused {
            true => Verdict::Reject,
            false => Verdict::Accept,
        };
        if let Some(shared) = self.shared_of(number) {
            shared.say(place, verdict);
        }
    }

    /// The connection has ended. Gives what is to be kept of its session, and has shared subscriptions go back to the others when what is on
    /// its way is kept: messages whose end is not known then are not the session's.
    pub(super) fn leaves(
        &mut self,
    ) -> (
        Option<Left>,
        impl Future<Output = Vec<u16>> + Send + 'static + use<>,
    ) {
        for it in std::mem::take(&mut self.staged.finishing) {
            self.window.sent.remove(&it.packet_id);
        }
        let left = self.left();
        let saving = self.saving.take();
        let saving = saving.filter(|saving| !saving.0.finishing.is_empty());
        let count = self.shared.iter().filter(|it| it.is_open()).count();
        self.front
            .stats
            .subscriptions
            .fetch_sub(count as u64, Relaxed);
        let shared = std::mem::take(&mut self.shared);
        let ends = async move {
            let mut lost = Vec::new();
            if let Some(saving) = saving {
                let (staged, saving) = *saving;
                if saving.await.is_err() {
                    lost.extend(staged.finishing.iter().map(|it| it.packet_id));
                }
            }
            for it in shared {
                it.end().await;
            }
            lost
        };
        (left, ends)
    }
}
