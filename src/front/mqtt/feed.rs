//! A client's place in one topic's log, and what it is given from there: by the topic's task while it keeps up, and else by a cursor of
//! its own until it has caught up.
//! Callers: `outbound`. Invariants: each record that the subscriptions want is given once, in the order of its partition, or a gap is
//! counted. While what was given last is not taken, nothing more is read.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};

use model::Offset;

use super::ending::Ending;
use super::errors::NotSubscribed;
use super::live::{Handed, Member, MemberPlace, Slice, offsets, resume};
use super::route::topic_of;
use super::state::Front;
use super::stats::{Skipped, Stats};
use super::subscriptions::{Seen, Subscribed, Subscriptions};
use crate::broker::Topic;
use crate::broker::access::{Door, Granted, right};
use crate::broker::replay::{self, Event, Filter, FollowRequest, Order, Place, ReadTo};
use crate::broker::sessions::Reading;

/// See the module.
pub(super) struct Feed {
    /// The filter as it was written, of a replay.
    pub(super) replay: Option<Box<str>>,
    /// What it gives for.
    pub(super) subscriptions: Subscriptions,
    pub(super) topic: Granted<Arc<Topic>, right::Read>,
    source: Source,
    /// What was given last, and how many of its records were taken.
    held: Option<(Slice, usize)>,
    /// What is missing before the next message, for those who are told.
    pub(super) gap: Option<String>,
    place: Arc<FeedPlace>,
}

/// How far a feed is, for others to look at: what lies before was given and taken.
#[derive(Debug)]
pub(super) struct FeedPlace(Mutex<PlaceOf>);

#[derive(Debug)]
enum PlaceOf {
    Member(MemberPlace),
    Reader(Arc<ReadTo>),
}

impl FeedPlace {
    fn of(source: &mut Source) -> PlaceOf {
        match source {
            Source::Live(member) => PlaceOf::Member(member.place()),
            Source::Behind(reader) => PlaceOf::Reader(reader.subscription.read_to()),
        }
    }

    fn locked(&self) -> MutexGuard<'_, PlaceOf> {
        self.0
            .lock()
            .expect("nothing panics while it holds a place")
    }
}

impl Reading for FeedPlace {
    fn offsets(&self) -> Vec<Offset> {
        match &*self.locked() {
            PlaceOf::Member(member) => member.offsets(),
            PlaceOf::Reader(read_to) => read_to.offsets(),
        }
    }
}

enum Source {
    Live(Member),
    Behind(Reader),
}

/// A cursor of its own.
struct Reader {
    subscription: replay::Subscription,
    stats: Arc<Stats>,
}

impl Reader {
    fn new(subscription: replay::Subscription, stats: &Arc<Stats>) -> Reader {
        stats.readers.fetch_add(1, Relaxed);
        Reader {
            subscription,
            stats: Arc::clone(stats),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stats.readers.fetch_sub(1, Relaxed);
    }
}

impl Feed {
    /// What comes, for subscriptions that are still to be added.
    pub(super) fn live(
        front: &Front,
        topic: Granted<Arc<Topic>, right::Read>,
    ) -> Result<Feed, NotSubscribed> {
        let joined = front.lives.join(&topic, None, Vec::new());
        let member = joined.map_err(|_| NotSubscribed::Failed)?;
        let source = Source::Live(member.expect("what comes is ahead of everybody"));
        Ok(Feed::new(None, topic, source, Subscriptions::default()))
    }

    /// What comes, from where it was before on, for these subscriptions.
    pub(super) fn resumed(
        front: &Front,
        topic: Granted<Arc<Topic>, right::Read>,
        at: &[Offset],
        subscriptions: Subscriptions,
    ) -> Result<Feed, NotSubscribed> {
        let request = request(&subscriptions, Place::Latest, Some(at));
        let followed = front.broker.follow(&topic, request);
        let subscription = followed.map_err(|_| NotSubscribed::Failed)?;
        let source = Source::Behind(Reader::new(subscription, &front.stats));
        Ok(Feed::new(None, topic, source, subscriptions))
    }

    fn new(
        replay: Option<Box<str>>,
        topic: Granted<Arc<Topic>, right::Read>,
        mut source: Source,
        subscriptions: Subscriptions,
    ) -> Feed {
        let place = Arc::new(FeedPlace(Mutex::new(FeedPlace::of(&mut source))));
        Feed {
            replay,
            subscriptions,
            topic,
            source,
            held: None,
            gap: None,
            place,
        }
    }

    /// How far it is, for others to look at.
    pub(super) fn place(&self) -> Arc<FeedPlace> {
        Arc::clone(&self.place)
    }

    /// What lies before was taken, partition by partition.
    pub(super) fn read_to(&self) -> Vec<Offset> {
        let mut at = match &self.source {
            Source::Live(_) => self.place.offsets(),
            Source::Behind(reader) => offsets(&reader.subscription.position()),
        };
        if let Some(next) = self
            .held
            .as_ref()
            .and_then(|(slice, taken)| slice.get(*taken))
        {
            let index = next.partition.get() as usize;
            at.resize(at.len().max(index + 1), Offset::ZERO);
            at[index] = next.record.offset;
        }
        at
    }

    fn go_on(&mut self, mut source: Source) {
        *self.place.locked() = FeedPlace::of(&mut source);
        self.source = source;
    }

    /// What was there from some place on, and then what comes, for these subscriptions.
    pub(super) fn replay(
        front: &Front,
        topic: Granted<Arc<Topic>, right::Read>,
        (name, from): (Box<str>, Place),
        subscriptions: Subscriptions,
    ) -> Result<Feed, NotSubscribed> {
        let request = request(&subscriptions, from, None);
        let followed = front.broker.follow(&topic, request);
        let subscription = followed.map_err(|_| NotSubscribed::Failed)?;
        let source = Source::Behind(Reader::new(subscription, &front.stats));
        Ok(Feed::new(Some(name), topic, source, subscriptions))
    }

    /// Adds a subscription to what becomes durable from now on, or changes that of the same filter. Gives where it begins.
    pub(super) fn insert(
        &self,
        front: &Front,
        mut new: Subscribed,
    ) -> Result<Arc<[Offset]>, NotSubscribed> {
        // Who is told of it first misses nothing of what follows the ends.
        if let Source::Live(member) = &self.source
            && !self.subscriptions.has(new.filter.as_str())
        {
            member.insert(&new.filter);
        }
        let ends = front.broker.durable_ends(&self.topic);
        let ends: Arc<[Offset]> = ends.map_err(|_| NotSubscribed::Failed)?.into();
        new.since = Arc::clone(&ends);
        self.subscriptions.insert(new);
        Ok(ends)
    }

    /// Takes a subscription out; whether it was there.
    pub(super) fn remove(&self, filter: &str) -> bool {
        if let Source::Live(member) = &self.source {
            member.remove(filter);
        }
        self.subscriptions.remove(filter)
    }

    /// Reads on, and waits for something there. What is given up loses nothing.
    pub(super) async fn read(&mut self, front: &Front, door: &Door) -> Result<(), Ending> {
        let unreadable = |error| {
            tracing::debug!(%error, "a subscription cannot be read");
            Ending::Unreadable
        };
        match &mut self.source {
            Source::Live(member) => match member.next().await {
                Handed::Slice(slice) => self.hold(slice, door)?,
                Handed::Behind(at) => {
                    let request = request(&self.subscriptions, Place::Latest, Some(&at));
                    let followed = front.broker.follow(&self.topic, request);
                    let subscription = followed.map_err(unreadable)?;
                    self.go_on(Source::Behind(Reader::new(subscription, &front.stats)));
                }
                Handed::Ended => return Err(Ending::Unreadable),
            },
            Source::Behind(reader) => {
                match reader.subscription.next().await.map_err(unreadable)? {
                    Event::Records(block) => self.hold(Slice::all(block), door)?,
                    Event::Gap(gap) => {
                        front.stats.skipped(Skipped::Gap, gap.missing);
                        let (from, to) = (gap.offsets.start, gap.offsets.end);
                        self.gap = Some(format!("{}:{from}..{to}", gap.partition));
                    }
                    Event::CaughtUp => {
                        let at = offsets(&reader.subscription.position());
                        let filters = self.subscriptions.filters();
                        let joined = front.lives.join(&self.topic, Some(at), filters);
                        // If the task is ahead, there is more to read.
                        if let Some(member) = joined.map_err(unreadable)? {
                            self.go_on(Source::Live(member));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn hold(&mut self, slice: Slice, door: &Door) -> Result<(), Ending> {
        // The right may have been taken since.
        let renewed = door.renew(&self.topic);
        self.topic = renewed.map_err(|_| Ending::Denied)?;
        self.held = Some((slice, 0));
        Ok(())
    }

    /// Whether all that was given is taken.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_none()
    }

    /// What was given last, and how many of its records were taken.
    pub(super) fn take(&mut self) -> Option<(Slice, usize)> {
        self.held.take()
    }

    /// Puts it back after some more were taken.
    pub(super) fn put_back(&mut self, slice: Slice, taken: usize) {
        self.held = (taken < slice.len()).then_some((slice, taken));
        if let (None, Source::Live(member)) = (&self.held, &self.source) {
            member.took();
        }
    }
}

/// What is asked of the log for subscriptions: from a place on, or where they were.
fn request(subscriptions: &Subscriptions, from: Place, at: Option<&[Offset]>) -> FollowRequest {
    let wanted = subscriptions.clone();
    FollowRequest {
        partitions: None,
        from,
        resume: at.map(resume),
        filter: Filter {
            accept: Some(Arc::new(move |partition, record| {
                let topic = topic_of(record);
                topic.is_some_and(|topic| {
                    wanted.want(&Seen {
                        topic,
                        // It is looked at when the message is sent.
                        is_own: false,
                        partition,
                        offset: record.offset,
                    })
                })
            })),
            ..Filter::default()
        },
        order: Order::Offset,
    }
}
