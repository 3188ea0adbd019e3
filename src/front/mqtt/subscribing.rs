//! What a client subscribes to and ends: what comes, and what was.
//! Callers: `connection`. Invariants: a subscription begins in all Kafka topics that its messages go to, or in none. What a kept session
//! subscribes to is kept before the answer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use model::{Offset, TopicId};

use super::bounds::{REPLAYS_MAX, SUBSCRIPTIONS_MAX, TOPICS_MAX};
use super::ending::Ending;
use super::errors::{NotSubscribed, of_subscribe, of_unsubscribe};
use super::feed::Feed;
use super::history::{self, From, NoReplay, Replay};
use super::last;
use super::outbound::{Outbound, subscribed};
use super::packet::{Fault, Filter, Properties, RetainHandling, Subscribe, Unsubscribe};
use super::readable::Readable;
use super::reading::{history_of, read_by};
use super::retained::Asked;
use super::session::ending_of;
use super::shared;
use super::subscriptions::{Subscribed, Subscriptions};
use super::topic::TopicFilter;
use crate::broker::sessions::{KeptSubscription, Positions, SHARED};

impl Outbound {
    /// Subscribes; a code for each filter, in order.
    pub(super) async fn subscribe(&mut self, asked: &Subscribe<'_>) -> Result<Vec<u8>, Ending> {
        let mut codes = Vec::with_capacity(asked.filters.len());
        let is_shared = |filter: &Filter<'_>| filter.filter.starts_with(SHARED);
        if asked.filters.iter().any(|it| is_shared(it) && it.no_local) {
            // A fault, and no refusal (§3.8.3.1).
            const LOCAL: &str = "no local on a shared subscription";
            return Err(Fault::Protocol(LOCAL).into());
        }
        if !self.takes(asked).await {
            // Nothing of it holds, and all that was before does.
            let refused = of_subscribe(self.version, NotSubscribed::TooMany);
            return Ok(vec![refused; asked.filters.len()]);
        }
        for filter in &asked.filters {
            codes.push(match self.subscribe_one(filter, &asked.properties).await {
                Ok(()) if filter.filter == history::STATUS => 0,
                Ok(()) => filter.qos.number(),
                Err(why) => of_subscribe(self.version, why),
            });
        }
        self.save().await.map_err(ending_of)?;
        Ok(codes)
    }

    /// Whether the session may be kept with all that is asked for.
    async fn takes(&mut self, asked: &Subscribe<'_>) -> bool {
        if !self.session.is_kept() {
            return true;
        }
        let mut all = self.kept_subscriptions();
        for new in &asked.filters {
            let has_no_place = shared::parse(new.filter).is_some() || new.filter == history::STATUS;
            let mut since = Positions::default();
            if !has_no_place {
                let Some(filter) = TopicFilter::readable(new.filter) else {
                    continue;
                };
                // Who may not read is told so, filter by filter.
                let Ok(topics) = read_by(&self.front, &self.door, &filter).await else {
                    continue;
                };
                for topic in topics {
                    since.set_topic(topic.id, vec![Offset::ZERO; topic.partitions().count()]);
                }
            }
            match all.iter_mut().find(|it| *it.filter == *new.filter) {
                Some(before) => before.retained = before.retained.take().or(Some("".into())),
                None => all.push(KeptSubscription {
                    filter: new.filter.into(),
                    options: 0,
                    id: 0,
                    since,
                    retained: (!has_no_place).then(|| "".into()),
                }),
            }
        }
        self.session.takes(all)
    }

    async fn subscribe_one(
        &mut self,
        asked: &Filter<'_>,
        properties: &Properties<'_>,
    ) -> Result<(), NotSubscribed> {
        let (now, id) = (self.front.broker.now(), properties.subscription_id);
        if asked.filter.starts_with(SHARED) {
            return self.subscribe_shared(asked, id).await;
        }
        if asked.filter == history::STATUS {
            self.begin_status(id);
            return Ok(());
        }
        if let Some(text) = asked.filter.strip_prefix(history::PREFIX) {
            let replay = Replay::parse(text, now);
            let replay = replay.map_err(|NoReplay| NotSubscribed::Filter)?;
            let (replay, filter) = replay;
            return self
                .subscribe_history(asked, (Some(&replay), filter), id)
                .await;
        }
        if let Some(filter) = asked.filter.strip_prefix(last::PREFIX) {
            return self.subscribe_history(asked, (None, filter), id).await;
        }
        let replay = Replay::of_properties(properties, now);
        if let Some(replay) = replay.map_err(|NoReplay| NotSubscribed::Failed)? {
            let of = (Some(&replay), asked.filter);
            return self.subscribe_history(asked, of, id).await;
        }
        self.subscribe_live(asked, id).await
    }

    async fn subscribe_live(
        &mut self,
        asked: &Filter<'_>,
        id: Option<u32>,
    ) -> Result<(), NotSubscribed> {
        let filter = TopicFilter::readable(asked.filter).ok_or(NotSubscribed::Filter)?;
        let is_new = !self.live_filters.has(asked.filter);
        if is_new && self.live_filters.count() >= SUBSCRIPTIONS_MAX {
            return Err(NotSubscribed::TooMany);
        }
        let topics = read_by(&self.front, &self.door, &filter).await?;
        self.end_replay(asked.filter);
        let (text, new) = (filter.text(), subscribed(asked, filter.clone(), id));
        let begun = self.begin_in(&topics, &new);
        if begun.is_err() && is_new {
            for live in self.lives() {
                live.remove(asked.filter);
            }
        }
        let (since, feeds) = begun?;
        feeds.into_iter().for_each(|feed| self.go_on(feed));
        let is_given_retained = match asked.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => is_new,
            RetainHandling::Never => false,
        };
        if is_given_retained {
            let asked = Asked {
                filter,
                qos: asked.qos,
                no_local: asked.no_local,
                id,
            };
            self.looks.begin(asked, topics, since, None);
        }
        if is_new {
            self.live_filters.insert(text);
            self.front.stats.subscriptions.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Begins a subscription in these topics, or changes it, also where it reads already. Gives where it begins, and the feeds of topics that
    /// nothing was read of before.
    fn begin_in(
        &self,
        topics: &[Readable],
        new: &Subscribed,
    ) -> Result<(Positions, Vec<Feed>), NotSubscribed> {
        let (mut since, mut feeds) = (Positions::default(), Vec::new());
        let is_named = |id: TopicId| topics.iter().any(|topic| topic.id == id);
        let filter = new.filter.as_str();
        for live in self.lives().filter(|live| !is_named(live.topic.id)) {
            if live.subscriptions.has(filter) {
                live.insert(&self.front, new.clone())?;
            }
        }
        for topic in topics {
            let begins = match self.lives().find(|live| live.topic.id == topic.id) {
                // One that reads already goes on.
                Some(live) => live.insert(&self.front, new.clone())?,
                None if self.lives().count() + feeds.len() >= TOPICS_MAX => {
                    return Err(NotSubscribed::TooMany);
                }
                None => {
                    let live = Feed::live(&self.front, topic.clone())?;
                    let begins = live.insert(&self.front, new.clone())?;
                    feeds.push(live);
                    begins
                }
            };
            since.set_topic(topic.id, begins);
        }
        Ok((since, feeds))
    }

    /// A feed of what comes begins: how far it is, is noted from here on.
    pub(super) fn go_on(&mut self, live: Feed) {
        let progress = self.session.held.progress();
        progress.follows(live.topic.id, live.place());
        // As a rule there is one.
        self.feeds.reserve_exact(1);
        self.feeds.push(live);
    }

    /// A replay, or last values where there is none, take the place of whatever there was of the same filter.
    async fn subscribe_history(
        &mut self,
        asked: &Filter<'_>,
        (replay, filter): (Option<&Replay>, &str),
        id: Option<u32>,
    ) -> Result<(), NotSubscribed> {
        let filter = TopicFilter::readable(filter).ok_or(NotSubscribed::Filter)?;
        if self.other_replays(asked.filter).len() >= REPLAYS_MAX {
            self.forget_ended_replays(asked.filter);
        }
        if self.other_replays(asked.filter).len() >= REPLAYS_MAX {
            return Err(NotSubscribed::TooMany);
        }
        let (front, door) = (&self.front, &self.door);
        let topics = match replay {
            Some(replay) if replay.speed.is_none() => history_of(front, door, &filter).await?,
            _ => read_by(front, door, &filter).await?,
        };
        if let Some(replay) = replay {
            check(replay, &topics, asked.filter)?;
        }
        let left = replay.and_then(|it| it.limit);
        let left = left.map(|limit| Arc::new(AtomicU64::new(limit)));
        let mut feeds = Vec::new();
        for topic in topics {
            let one = Subscriptions::default();
            // It begins where the cursor does.
            one.insert(subscribed(asked, filter.clone(), id));
            let name = asked.filter.into();
            feeds.push(match replay {
                Some(replay) => {
                    Feed::replay(front, topic, (name, replay, left.clone()), one).await?
                }
                None => Feed::last(front, topic, name, one).await?,
            });
        }
        self.end_subscription(asked.filter);
        self.feeds.extend(feeds);
        self.front.stats.subscriptions.fetch_add(1, Relaxed);
        Ok(())
    }

    /// The names of replays but one.
    fn other_replays(&self, but: &str) -> BTreeSet<&str> {
        let replays = self.feeds.iter().filter_map(|it| it.replay.as_deref());
        replays.filter(|it| *it != but).collect()
    }

    /// Those that are over make room.
    fn forget_ended_replays(&mut self, but: &str) {
        let reads = self.feeds.iter().filter(|it| !it.is_over());
        let reads: BTreeSet<Box<str>> = reads.filter_map(|it| it.replay.clone()).collect();
        let is_over = |it: &str| it != but && !reads.contains(it);
        let over = self.other_replays(but).into_iter();
        let count = over.filter(|it| is_over(it)).count();
        self.feeds
            .retain(|it| !it.replay.as_deref().is_some_and(is_over));
        self.front
            .stats
            .subscriptions
            .fetch_sub(count as u64, Relaxed);
    }

    fn end_replay(&mut self, filter: &str) {
        let before = self.feeds.len();
        let is_it = |it: &Feed| it.replay.as_deref() == Some(filter);
        self.feeds.retain(|it| !is_it(it));
        if self.feeds.len() < before {
            self.front.stats.subscriptions.fetch_sub(1, Relaxed);
        }
    }

    /// Ends subscriptions; a code for each filter, in order.
    pub(super) async fn unsubscribe(&mut self, asked: &Unsubscribe<'_>) -> Result<Vec<u8>, Ending> {
        let mut codes = Vec::with_capacity(asked.filters.len());
        for filter in &asked.filters {
            let was_there = match filter.starts_with(SHARED) {
                true => self.leave_shared(filter).await,
                false => self.end_subscription(filter),
            };
            codes.push(of_unsubscribe(was_there));
        }
        self.save().await.map_err(ending_of)?;
        Ok(codes)
    }

    /// Ends one; whether it was there.
    fn end_subscription(&mut self, filter: &str) -> bool {
        if filter == history::STATUS {
            return self.end_status();
        }
        let is_replay = |it: &Feed| it.replay.as_deref() == Some(filter);
        let was_live = self.live_filters.remove(filter);
        let was_there = was_live || self.feeds.iter().any(is_replay);
        if was_live {
            for live in self.lives() {
                live.remove(filter);
            }
        }
        self.looks.end(filter);
        let progress = self.session.held.progress();
        self.feeds.retain(|it| {
            if it.replay.is_some() {
                return !is_replay(it);
            }
            let is_wanted = it.subscriptions.count() > 0;
            if !is_wanted {
                progress.left(it.topic.id);
            }
            is_wanted
        });
        if was_there {
            self.front.stats.subscriptions.fetch_sub(1, Relaxed);
        }
        was_there
    }
}

/// Whether a replay can be of these topics: one that goes on behind messages is of theirs, and a pace is that of one topic.
fn check(replay: &Replay, topics: &[Readable], asked: &str) -> Result<(), NotSubscribed> {
    if replay.speed.is_some() && topics.len() > 1 {
        return Err(NotSubscribed::Failed);
    }
    let From::Behind(taken) = &replay.from else {
        return Ok(());
    };
    let is_there = |name: &str| topics.iter().any(|topic| &*topic.name == name);
    match taken.iter().all(|it| is_there(&it.topic)) {
        true => Ok(()),
        false if asked.starts_with(history::PREFIX) => Err(NotSubscribed::Filter),
        false => Err(NotSubscribed::Failed),
    }
}
