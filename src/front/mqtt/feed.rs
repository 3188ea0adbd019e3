//! A client's place in one topic's log, and what it is given from there: by the topic's task while it keeps up, and else by a cursor of
//! its own until it has caught up.
//! Callers: `outbound`. Invariants: each record that the subscriptions want is given once, in the order of its partition, or a gap is
//! counted. While what was given last is not taken, nothing more is read.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use model::{Offset, PartitionId, partition_of_key};
use tokio::time::{Instant, sleep_until};

use super::ending::Ending;
use super::errors::NotSubscribed;
use super::history::{From, Replay, Taken, head_of};
use super::last::{Newest, TooMuch};
use super::live::{Handed, Member, MemberPlace, Slice, offsets, resume};
use super::naming::{Naming, looked_up_by};
use super::readable::renew_all;
use super::routes::To;
use super::state::Front;
use super::stats::{Skipped, Stats};
use super::subscriptions::{Seen, Subscribed, Subscriptions};
use crate::broker::Topic;
use crate::broker::access::{Door, Granted, right};
use crate::broker::place::offset_mut;
use crate::broker::replay::{
    self, Event, Filter, FollowRequest, Order, Place, ReadTo, ReplayRecord, ReplayRequest, Resume,
};
use crate::broker::sessions::Reading;
use crate::front::pace::Pace;

/// No pause of a replay with a speed is longer.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Gaps that one message tells of at most.
const GAPS_AT_ONCE: usize = 16;

/// See the module.
pub(super) struct Feed {
    /// The filter as it was written, of a replay.
    pub(super) replay: Option<Box<str>>,
    /// What it gives for.
    pub(super) subscriptions: Subscriptions,
    pub(super) topic: Granted<Arc<Topic>, right::Read>,
    /// What its records are called.
    pub(super) naming: Naming,
    source: Source,
    /// What was given last, and how many of its records were taken.
    held: Option<(Slice, usize)>,
    place: Arc<FeedPlace>,
    /// By which rules its filters were allowed last.
    allowed_by: Option<u64>,
    /// Messages that are left of a replay with a limit, over all of its topics.
    left: Option<Left>,
    pace: Option<Box<Pace>>,
    /// When the record is due that is taken next, if that was looked at.
    due: Option<Instant>,
}

/// Messages that are left of a replay.
pub(super) type Left = Arc<AtomicU64>;

/// How far a feed is, for others to look at: what lies before was given and taken, and what is missing of it was told.
#[derive(Debug)]
pub(super) struct FeedPlace {
    of: Mutex<PlaceOf>,
    gaps: Mutex<Vec<Missing>>,
}

/// Offsets of a partition that are not there, and that its reader was not told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    partition: PartitionId,
    offsets: Range<Offset>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Missing { partition, offsets } = self;
        write!(f, "{partition}:{}..{}", offsets.start, offsets.end)
    }
}

/// Puts a gap behind others. Those that are one are told as one.
fn add_gap(gaps: &mut Vec<Missing>, new: Missing) {
    let mut others = gaps.iter_mut().rev();
    let last = others.find(|it| it.partition == new.partition);
    match last.filter(|it| it.offsets.end >= new.offsets.start) {
        Some(last) => {
            last.offsets.start = last.offsets.start.min(new.offsets.start);
            last.offsets.end = last.offsets.end.max(new.offsets.end);
        }
        None => gaps.push(new),
    }
}

#[derive(Debug)]
enum PlaceOf {
    Member(MemberPlace),
    Reader(Arc<ReadTo>),
    /// It reads what is there, and does not go on.
    Nowhere,
}

impl FeedPlace {
    fn of(source: &mut Source) -> PlaceOf {
        match source {
            Source::Live(member) => PlaceOf::Member(member.place()),
            Source::Behind { subscription, .. } => PlaceOf::Reader(subscription.read_to()),
            Source::Range { .. } | Source::Last { .. } | Source::Ended => PlaceOf::Nowhere,
        }
    }

    fn locked(&self) -> MutexGuard<'_, PlaceOf> {
        self.of
            .lock()
            .expect("nothing panics while it holds a place")
    }

    fn gaps(&self) -> MutexGuard<'_, Vec<Missing>> {
        self.gaps
            .lock()
            .expect("nothing panics while it holds gaps")
    }

    /// Where gaps begin that are to be told, that is where it is.
    fn before_gaps(&self, mut offsets: Vec<Offset>) -> Vec<Offset> {
        for gap in self.gaps().iter() {
            let at = offset_mut(&mut offsets, gap.partition);
            *at = (*at).min(gap.offsets.start);
        }
        offsets
    }
}

impl Reading for FeedPlace {
    fn offsets(&self) -> Vec<Offset> {
        let offsets = match &*self.locked() {
            PlaceOf::Member(member) => member.offsets(),
            PlaceOf::Reader(read_to) => read_to.offsets(),
            PlaceOf::Nowhere => Vec::new(),
        };
        self.before_gaps(offsets)
    }
}

enum Source {
    Live(Member),
    /// What was there, and then what comes.
    Behind {
        subscription: Box<replay::Subscription>,
        _reads: Reads,
    },
    /// What is there.
    Range {
        replay: Box<replay::Replay>,
        _reads: Reads,
    },
    /// Where the newest message of each topic is; then these, and what comes.
    Last {
        replay: Box<replay::Replay>,
        newest: Box<Newest>,
        _reads: Reads,
    },
    /// All was given.
    Ended,
}

impl Source {
    fn behind(front: &Front, subscription: replay::Subscription) -> Source {
        Source::Behind {
            subscription: Box::new(subscription),
            _reads: Reads::new(&front.stats),
        }
    }
}

/// A cursor of its own is there until this is dropped.
struct Reads(Arc<Stats>);

impl Reads {
    fn new(stats: &Arc<Stats>) -> Reads {
        stats.readers.fetch_add(1, Relaxed);
        Reads(Arc::clone(stats))
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Relaxed);
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
        let naming = front.settings.routes.naming(&topic.name);
        let subscriptions = Subscriptions::default();
        Ok(Feed::new(None, (topic, naming), source, subscriptions))
    }

    /// What comes, from where it was before on, for these subscriptions.
    pub(super) fn resumed(
        front: &Front,
        topic: Granted<Arc<Topic>, right::Read>,
        at: &[Offset],
        subscriptions: Subscriptions,
    ) -> Result<Feed, NotSubscribed> {
        let naming = front.settings.routes.naming(&topic.name);
        let request = request((&subscriptions, &naming), Place::Latest, Some(at));
        let followed = front.broker.follow(&topic, request);
        let subscription = followed.map_err(|_| NotSubscribed::Failed)?;
        let source = Source::behind(front, subscription);
        Ok(Feed::new(None, (topic, naming), source, subscriptions))
    }

    fn new(
        replay: Option<Box<str>>,
        (topic, naming): (Granted<Arc<Topic>, right::Read>, Naming),
        mut source: Source,
        subscriptions: Subscriptions,
    ) -> Feed {
        let place = Arc::new(FeedPlace {
            of: Mutex::new(FeedPlace::of(&mut source)),
            gaps: Mutex::default(),
        });
        Feed {
            replay,
            subscriptions,
            topic,
            naming,
            source,
            held: None,
            place,
            allowed_by: None,
            left: None,
            pace: None,
            due: None,
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
            Source::Behind { subscription, .. } => offsets(&subscription.position()),
            Source::Range { .. } | Source::Last { .. } | Source::Ended => Vec::new(),
        };
        if let Some(next) = self
            .held
            .as_ref()
            .and_then(|(slice, taken)| slice.get(*taken))
        {
            *offset_mut(&mut at, next.partition) = next.record.offset;
        }
        self.place.before_gaps(at)
    }

    /// What is missing before the next message, and is still to be told: with the Kafka topic where that is not said beside it.
    pub(super) fn gaps(&self, with_topic: bool) -> Vec<String> {
        let head = match with_topic {
            true => head_of(&self.topic.name),
            false => String::new(),
        };
        let gaps = self.place.gaps();
        let told = gaps.iter().take(GAPS_AT_ONCE);
        told.map(|gap| format!("{head}{gap}")).collect()
    }

    /// So many of them were told.
    pub(super) fn told_gaps(&self, count: usize) {
        self.place.gaps().drain(..count);
    }

    fn go_on(&mut self, mut source: Source) {
        *self.place.locked() = FeedPlace::of(&mut source);
        self.source = source;
    }

    /// What was there, and, if no end is said, then what comes, for these subscriptions.
    pub(super) async fn replay(
        front: &Front,
        topic: Granted<Arc<Topic>, right::Read>,
        (name, asked, left): (Box<str>, &Replay, Option<Left>),
        subscriptions: Subscriptions,
    ) -> Result<Feed, NotSubscribed> {
        let naming = front.settings.routes.naming(&topic.name);
        let (from, behind) = match &asked.from {
            From::At(place) => ((*place).into(), None),
            From::Behind(all) => {
                let of_topic = |it: &&Taken| *it.topic == *topic.name;
                let next = all.iter().filter(of_topic).map(|it| Resume {
                    partition: it.partition,
                    offset: it.offset.plus(1),
                    since: None,
                });
                (Place::Earliest, Some(next.collect()))
            }
        };
        // With a speed, in the order of time.
        let order = match asked.speed {
            Some(_) => Order::Time,
            None => Order::Offset,
        };
        let source = match asked.to {
            None => {
                let request = FollowRequest {
                    order,
                    resume: behind,
                    filter: wanted_by_replay(&subscriptions, &naming),
                    ..request((&subscriptions, &naming), from, None)
                };
                let followed = front.broker.follow(&topic, request);
                let mut subscription = followed.map_err(|_| NotSubscribed::Failed)?;
                if let Some(partition) = first_of(front, &topic, &subscriptions) {
                    subscription.begin_with(partition);
                }
                Source::behind(front, subscription)
            }
            Some(to) => {
                let request = ReplayRequest {
                    from,
                    to: Some(to.into()),
                    filter: wanted_by_replay(&subscriptions, &naming),
                    order,
                    ..ReplayRequest::default()
                };
                let begun = front.broker.replay(&topic, request).await;
                let replay = begun.map_err(|_| NotSubscribed::Failed)?;
                Source::Range {
                    replay: Box::new(replay),
                    _reads: Reads::new(&front.stats),
                }
            }
        };
        Ok(Feed {
            left,
            pace: asked
                .speed
                .map(|speed| Box::new(Pace::new(speed, PAUSE_MAX))),
            ..Feed::new(Some(name), (topic, naming), source, subscriptions)
        })
    }

    /// The newest message of each topic, and then what comes, for these subscriptions.
    pub(super) async fn last(
        front: &Front,
        topic: Granted<Arc<Topic>, right::Read>,
        name: Box<str>,
        subscriptions: Subscriptions,
    ) -> Result<Feed, NotSubscribed> {
        let ends = front.broker.durable_ends(&topic);
        let ends = ends.map_err(|_| NotSubscribed::Failed)?;
        let routes = front.settings.routes.clone();
        let naming = routes.naming(&topic.name);
        let newest = Newest::new(ends, naming.clone(), routes);
        let request = ReplayRequest {
            from: Place::Earliest,
            to: Some(Place::Latest),
            filter: Filter {
                accept: Some(newest.notes(&subscriptions)),
                ..looked_up(&subscriptions)
            },
            ..ReplayRequest::default()
        };
        let begun = front.broker.replay(&topic, request).await;
        let source = Source::Last {
            replay: Box::new(begun.map_err(|_| NotSubscribed::Failed)?),
            newest: Box::new(newest),
            _reads: Reads::new(&front.stats),
        };
        Ok(Feed::new(
            Some(name),
            (topic, naming),
            source,
            subscriptions,
        ))
    }

    /// Adds a subscription to what becomes durable from now on, or changes that of the same filter. Gives where it begins.
    pub(super) fn insert(
        &self,
        front: &Front,
        mut new: Subscribed,
    ) -> Result<Arc<[Offset]>, NotSubscribed> {
        // Whoever reads is told of it first, and so misses nothing of what follows the ends: it may be reading now.
        let filter = new.filter.clone();
        let is_new = !self.subscriptions.has(filter.as_str());
        if let (Source::Live(member), true) = (&self.source, is_new) {
            member.insert(&filter);
        }
        new.since = Arc::new([]);
        self.subscriptions.insert(new);
        match front.broker.durable_ends(&self.topic) {
            Ok(ends) => {
                let ends: Arc<[Offset]> = ends.into();
                if is_new {
                    self.subscriptions.begin(&filter, Arc::clone(&ends));
                }
                Ok(ends)
            }
            Err(_) => {
                if is_new {
                    self.remove(filter.as_str());
                }
                Err(NotSubscribed::Failed)
            }
        }
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
        if let Some(due) = self.due.filter(|_| self.held.is_some()) {
            sleep_until(due).await;
            return Ok(());
        }
        match &mut self.source {
            Source::Ended => std::future::pending().await,
            Source::Live(member) => match member.next().await {
                Handed::Slice(slice) => self.hold(slice, door)?,
                Handed::Behind(at) => {
                    let of = (&self.subscriptions, &self.naming);
                    let mut request = request(of, Place::Latest, Some(&at));
                    if self.replay.is_some() {
                        request.filter = wanted_by_replay(&self.subscriptions, &self.naming);
                    }
                    let followed = front.broker.follow(&self.topic, request);
                    let subscription = followed.map_err(unreadable)?;
                    self.go_on(Source::behind(front, subscription));
                }
                Handed::Ended => return Err(Ending::Unreadable),
            },
            Source::Behind { subscription, .. } => {
                match subscription.next().await.map_err(unreadable)? {
                    Event::Records(block) => self.hold(Slice::all(block), door)?,
                    Event::Gap(gap) => {
                        front.stats.skipped(Skipped::Gap, gap.missing);
                        let (partition, offsets) = (gap.partition, gap.offsets);
                        add_gap(&mut self.place.gaps(), Missing { partition, offsets });
                    }
                    Event::CaughtUp => {
                        let at = offsets(&subscription.position());
                        let filters = self.subscriptions.filters();
                        let joined = front.lives.join(&self.topic, Some(at), filters);
                        // If the task is ahead, there is more to read.
                        if let Some(member) = joined.map_err(unreadable)? {
                            self.go_on(Source::Live(member));
                        }
                    }
                }
            }
            Source::Last { replay, newest, .. } => {
                // It gives nothing: it notes.
                while replay.next().await.map_err(unreadable)?.is_some() {}
                let missing = replay.gaps().0.iter().map(|gap| gap.missing).sum();
                front.stats.skipped(Skipped::Gap, missing);
                let given = newest.given(&self.subscriptions);
                let (begins, accept) = given.map_err(|TooMuch| Ending::TooManyTopics)?;
                let filter = Filter {
                    accept: Some(accept),
                    ..looked_up(&self.subscriptions)
                };
                let of = (&self.subscriptions, &self.naming);
                let request = FollowRequest {
                    resume: Some(begins),
                    filter,
                    ..request(of, Place::Latest, None)
                };
                let followed = front.broker.follow(&self.topic, request);
                let subscription = followed.map_err(unreadable)?;
                self.go_on(Source::behind(front, subscription));
            }
            Source::Range { replay, .. } => match replay.next().await.map_err(unreadable)? {
                Some(block) => self.hold(Slice::all(block), door)?,
                None => {
                    let missing = replay.gaps().0.iter().map(|gap| gap.missing).sum();
                    front.stats.skipped(Skipped::Gap, missing);
                    self.end();
                }
            },
        }
        Ok(())
    }

    /// Whether it has nothing to do but to wait for what comes.
    pub(super) fn rests(&self) -> bool {
        self.held.is_none() && matches!(self.source, Source::Live(_) | Source::Ended)
    }

    /// Resolves when something has come for one that rests.
    pub(super) fn poll_came(&self, context: &mut Context<'_>) -> Poll<()> {
        match &self.source {
            Source::Live(member) => member.poll_came(context),
            _ => Poll::Pending,
        }
    }

    fn hold(&mut self, slice: Slice, door: &Door) -> Result<(), Ending> {
        // It was given, and is not taken: whatever follows, the place is before it.
        self.held = Some((slice, 0));
        // The right may have been taken since.
        let rules = door.rules_version();
        if self.allowed_by != Some(rules) {
            let renewed = renew_all(door, &self.topic, &self.subscriptions);
            renewed.map_err(|_| Ending::Denied)?;
            self.allowed_by = Some(rules);
        }
        Ok(())
    }

    /// Whether more is to be read, or waited for: all that was given is taken, or is not due.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_none() || self.due.is_some_and(|due| due > Instant::now())
    }

    /// Whether the record that is taken next may be taken now.
    pub(super) fn is_due(&mut self, record: &ReplayRecord<'_>) -> bool {
        let Some(pace) = &mut self.pace else {
            return true;
        };
        let now = Instant::now();
        let time = record.record.timestamp;
        let due = *self.due.get_or_insert_with(|| pace.due(time, now));
        if due > now {
            return false;
        }
        self.due = None;
        true
    }

    /// A message was sent; whether there may be a further one.
    pub(super) fn spend(&mut self) -> bool {
        let Some(left) = &self.left else {
            return true;
        };
        // Its client's connection alone counts it down.
        let rest = left.load(Relaxed).saturating_sub(1);
        left.store(rest, Relaxed);
        rest > 0
    }

    /// Whether all was given.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.source, Source::Ended)
    }

    /// Gives nothing more.
    pub(super) fn end(&mut self) {
        self.held = None;
        self.go_on(Source::Ended);
    }

    /// What was given last, and how many of its records were taken.
    pub(super) fn take(&mut self) -> Option<(Slice, usize)> {
        self.held.take()
    }

    /// Puts it back after some more were taken.
    pub(super) fn put_back(&mut self, slice: Slice, taken: usize) {
        let is_left = taken < slice.len() && !matches!(self.source, Source::Ended);
        self.held = is_left.then_some((slice, taken));
        if let (None, Source::Live(member)) = (&self.held, &self.source) {
            member.took();
        }
    }
}

/// What is asked of the log for subscriptions: from a place on, or where they were.
fn request(
    (subscriptions, naming): (&Subscriptions, &Naming),
    from: Place,
    at: Option<&[Offset]>,
) -> FollowRequest {
    FollowRequest {
        partitions: None,
        from,
        resume: at.map(resume),
        filter: wanted(subscriptions, naming),
        order: Order::Offset,
    }
}

/// In which partition the records of a filter without wildcards are, if they came where its messages go now.
fn first_of(front: &Front, topic: &Topic, subscriptions: &Subscriptions) -> Option<PartitionId> {
    let filters = subscriptions.filters();
    let name = filters.first().filter(|it| it.prefix().is_none())?;
    let to = front.settings.routes.to(name.as_str())?;
    let leads_here = match &to {
        To::Route { route, .. } => route.topic == topic.name,
        To::Kafka { topic: named, .. } => *named == topic.name.as_str(),
    };
    let key = to.key().filter(|_| leads_here)?;
    let partition = partition_of_key(key, topic.partition_count());
    Some(PartitionId::new(partition))
}

/// Records that the subscriptions of a replay want, which stay as they are while it reads.
fn wanted_by_replay(subscriptions: &Subscriptions, naming: &Naming) -> Filter {
    Filter {
        accept: wanted(subscriptions, naming).accept,
        ..looked_up(subscriptions)
    }
}

/// What a key index can tell of the records that they want.
fn looked_up(subscriptions: &Subscriptions) -> Filter {
    match &subscriptions.filters()[..] {
        [filter] => looked_up_by(filter),
        _ => Filter::default(),
    }
}

/// Records that subscriptions want, whatever they are when these are looked at.
fn wanted(subscriptions: &Subscriptions, naming: &Naming) -> Filter {
    let (wanted, naming) = (subscriptions.clone(), naming.clone());
    Filter {
        accept: Some(Arc::new(move |partition, record| {
            wanted.want(&Seen {
                names: &naming.names(record),
                // It is looked at when the message is sent.
                is_own: false,
                partition,
                offset: record.offset,
            })
        })),
        ..Filter::default()
    }
}

#[cfg(test)]
mod tests;
