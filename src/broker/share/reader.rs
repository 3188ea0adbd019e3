//! A consumer's way through a topic that its group shares: finds records that nobody has, takes them for the consumer, and gives them decoded.
//! Callers: fronts whose consumers are pushed records. It holds one block of one partition, and nothing is read before it is asked.
//! Invariants: what is given is held by the consumer until it is settled or released. Offsets at which there is no record any more are finished
//! on the way. A take that is given up may have taken records: whoever gives one up releases all that its member holds.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use model::{Offset, PartitionId, TopicId};
use storage::{Log, Waiter};
use tokio::sync::watch;

use super::ShareError;
use super::choice::{Choice, Looked, Offsets, Sorted};
use super::coordinator::Settlement;
use super::machine::{Makers, Wanted};
use super::partition::{Acquired, Verdict};
use super::record::Place;
use super::settings::QUEUES;
use crate::broker::access::{Caller, Granted, Group, right};
use crate::broker::open_readers::ReaderName;
use crate::broker::replay::{Block, Reading, ReplayError, ReplayRecord};
use crate::broker::{Broker, Refusal, Topic};

/// So many records are left out for a consumer at most.
const UNWANTED_MAX: usize = 1_000;
/// How often somebody who waits looks whether the topic has got more partitions.
const GROWTH_LOOK: Duration = Duration::from_secs(10);

/// See the module.
pub struct ShareReader {
    member: ShareConsumer,
    /// On whose account the group is, if it is made.
    maker: Option<Arc<str>>,
    topic: Granted<Arc<Topic>, right::Read>,
    who: ReaderName,
    partitions: Vec<Partition>,
    /// Records that the consumer does not want again: others may have them.
    unwanted: BTreeSet<(PartitionId, Offset)>,
    /// Which records it wants; None for all.
    choice: Option<Choice>,
    /// How often a record is delivered at most, if not as often as the group's settings say.
    deliveries_max: Option<u16>,
    /// Which one has its turn.
    turn: usize,
    open: Option<Open>,
    waiter: Arc<Waiter>,
    /// Told when records of the group become available again.
    changed: watch::Receiver<()>,
}

/// A member of a group, for what it says of the records that it was given. Cheap to clone.
#[derive(Clone)]
pub struct ShareConsumer {
    broker: Broker,
    group: Arc<str>,
    member: Arc<str>,
}

/// A partition, and how often its log and its group had moved when nothing was found in it.
struct Partition {
    log: Arc<Log>,
    idle_at: Option<u64>,
    /// The count of moves since which the waiter is told of the next one.
    watched_at: Option<u64>,
    /// How far it was looked for what is wanted, where others get the rest.
    looked: Looked,
}

/// What was read last: records of a partition from an offset up to another.
struct Open {
    partition: PartitionId,
    reading: Reading,
    offsets: Range<Offset>,
    block: Block,
}

/// Where a group begins with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With the first record that there is.
    Earliest,
    /// With the next one.
    Latest,
}

/// Why nothing can be taken.
#[derive(Debug, thiserror::Error)]
pub enum ShareReadError {
    /// The group.
    #[error(transparent)]
    Group(#[from] ShareError),
    /// The topic.
    #[error(transparent)]
    Read(#[from] ReplayError),
}

impl From<Refusal> for ShareReadError {
    fn from(refusal: Refusal) -> ShareReadError {
        ShareReadError::Read(refusal.into())
    }
}

/// Records that were taken: of one partition, in the order of offsets.
#[derive(Debug)]
pub struct Given {
    /// Of which partition.
    pub place: Place,
    block: Block,
    /// Which records of the block, and how often each was delivered, with this time.
    records: Vec<(usize, u16)>,
}

impl Given {
    /// How many.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// One of them, and how often it was delivered, with this time.
    pub fn get(&self, index: usize) -> Option<(ReplayRecord<'_>, u16)> {
        let (at, count) = self.records.get(index)?;
        Some((self.block.get(*at)?, *count))
    }
}

impl Broker {
    /// A consumer's way through a topic that a group shares, from a beginning on if the group has not begun. Durable when it returns: what is
    /// appended from then on is for the group.
    /// Errors: `OtherKind` for the id of a group that does not share records.
    pub async fn share_reader(
        &self,
        topic: &Granted<Arc<Topic>, right::Read>,
        group: &Granted<Group<'_>, right::Read>,
        begin: Begin,
        (member, caller): (Arc<str>, &Caller),
    ) -> Result<ShareReader, ShareReadError> {
        group.check_kind()?;
        let mut reader = ShareReader {
            member: ShareConsumer {
                broker: self.clone(),
                group: group.id().into(),
                member,
            },
            maker: group.maker().map(Arc::from),
            topic: topic.clone(),
            who: ReaderName::of(caller),
            partitions: Vec::new(),
            unwanted: BTreeSet::new(),
            choice: None,
            deliveries_max: None,
            turn: 0,
            open: None,
            waiter: Waiter::new(),
            changed: watch::channel(()).1,
        };
        let was_there = self.shares().has(group.id());
        if let Err(refused) = reader.grow(begin).await {
            // What is left of a group that nobody can use would be there for ever.
            if !was_there
                && group.id() != QUEUES
                && matches!(
                    refused,
                    ShareReadError::Group(ShareError::OffsetsMaxReached)
                )
                && let Err(error) = self.shares().delete(group.id()).await
                && error != ShareError::NotFound
            {
                tracing::warn!(group = group.id(), %error, "a subscription that could not begin is left over");
            }
            return Err(refused);
        }
        reader.changed = self.shares().watch(group.id())?;
        Ok(reader)
    }
}

impl Broker {
    /// The topics that a group has begun with.
    pub fn shared_topics(
        &self,
        group: &Granted<Group<'_>, right::Read>,
    ) -> Result<Vec<TopicId>, ShareError> {
        let mut topics: Vec<TopicId> = { self.shares().places(group.id())?.into_iter() }
            .map(|place| place.topic)
            .collect();
        topics.dedup();
        Ok(topics)
    }

    /// Ends a group that is a subscription: what it had not finished is nobody's. Who may consume of it may end it.
    pub async fn end_subscription(
        &self,
        group: &Granted<Group<'_>, right::Read>,
    ) -> Result<(), ShareError> {
        self.shares().delete(group.id()).await
    }

    /// The ids of groups that share records and are called so.
    pub fn sharing_groups(&self, is_called: impl Fn(&str) -> bool) -> Vec<String> {
        let all = self.shares().list().into_iter().map(|it| it.id);
        all.filter(|id| is_called(id)).collect()
    }

    /// Says, whenever it is asked, whether a group has not finished a record of a topic.
    pub fn unfinished_of(
        &self,
        group: &Granted<Group<'_>, right::Read>,
        topic: TopicId,
    ) -> impl Fn(PartitionId, Offset) -> bool + Send + Sync + 'static {
        let (broker, group) = (self.clone(), group.id().to_owned());
        move |partition, offset| {
            let place = Place { topic, partition };
            let one = offset..offset.plus(1);
            !broker.shares().unfinished_in(&group, place, one).is_empty()
        }
    }

    /// Ends the groups whose ids begin so: they were to end with their consumers, and a stop of the broker has left them.
    pub async fn end_left_subscriptions(&self, begin: &str) {
        for group in self.shares().list() {
            if group.id.starts_with(begin)
                && let Err(error) = self.shares().delete(&group.id).await
            {
                tracing::warn!(group = group.id, %error, "a subscription of before the start could not be ended");
            }
        }
    }
}

impl ShareReader {
    /// For what is said of the records.
    pub fn consumer(&self) -> ShareConsumer {
        self.member.clone()
    }

    /// Takes in the partitions that the topic has got since.
    async fn grow(&mut self, begin: Begin) -> Result<(), ShareReadError> {
        let ShareConsumer { broker, group, .. } = &self.member;
        let topic = broker.topic_by_id(self.topic.id)?;
        // What a partition has that came behind the group's beginning came behind it, too.
        let has_begun = !broker.shares().partitions_of(group, topic.id).is_empty();
        for partition in topic.partitions().skip(self.partitions.len()) {
            let log = topic.log(partition).map_err(ReplayError::from)?;
            let place = self.place(partition);
            if !broker.shares().has_begun(group, place) {
                let bounds = log.bounds();
                let start = match begin {
                    Begin::Latest if !has_begun => bounds.durable_end,
                    Begin::Latest | Begin::Earliest => bounds.start,
                };
                let makers = Makers {
                    group: self.maker.as_deref(),
                    topic: topic.owner.as_ref(),
                };
                let begun = broker.shares().begin((group, makers), place, start);
                begun.await?;
            }
            self.partitions.push(Partition {
                log: Arc::clone(log),
                idle_at: None,
                watched_at: None,
                looked: Looked::default(),
            });
        }
        Ok(())
    }

    /// Has only such records given to the consumer. Said before anything is taken.
    pub fn choose(&mut self, choice: Choice) {
        self.choice = Some(choice);
    }

    /// Has records delivered until somebody finishes them, however often that is.
    pub fn deliver_until_finished(&mut self) {
        self.deliveries_max = Some(u16::MAX);
    }

    /// Has a record not given to the consumer again. Of those that come again late the oldest are forgotten first.
    pub fn leave_out(&mut self, place: Place, offset: Offset) {
        self.unwanted.insert((place.partition, offset));
        if self.unwanted.len() > UNWANTED_MAX {
            self.unwanted.pop_first();
        }
    }

    /// Whether there may be something to take since [`ShareReader::take`] found nothing.
    pub fn may_have_more(&self) -> bool {
        let is_idle = |it: &Partition| it.idle_at == Some(it.log.moves());
        !self.partitions.iter().all(is_idle) || self.changed.has_changed().unwrap_or(true)
    }

    fn place(&self, partition: PartitionId) -> Place {
        Place {
            topic: self.topic.id,
            partition,
        }
    }

    /// Takes records of one partition for the consumer: the first that nobody has, so many at most. None if there are none now.
    pub async fn take(&mut self, count_max: usize) -> Result<Option<Given>, ShareReadError> {
        // Nobody tells of changes any more: the group is gone.
        if self
            .changed
            .has_changed()
            .map_err(|_| ShareError::NotFound)?
        {
            self.changed.mark_unchanged();
            for partition in &mut self.partitions {
                partition.idle_at = None;
                partition.looked.is_due = true;
            }
        }
        let count = self.partitions.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            // Taken before the look: what moves during it is looked at again.
            let moves = self.partitions[at].log.moves();
            if self.partitions[at].idle_at == Some(moves) {
                continue;
            }
            let given = match &self.choice {
                Some(choice) if !choice.finishes_others => self.take_chosen(at, count_max).await?,
                _ => self.take_of(at, count_max).await?,
            };
            if let Some(given) = given {
                // Each partition has its turn.
                self.turn = (at + 1) % count;
                return Ok(Some(given));
            }
            self.partitions[at].idle_at = Some(moves);
        }
        Ok(None)
    }

    async fn take_of(
        &mut self,
        at: usize,
        count_max: usize,
    ) -> Result<Option<Given>, ShareReadError> {
        let partition = PartitionId::new(u32::try_from(at).expect("few partitions"));
        let place = self.place(partition);
        let ShareConsumer { broker, group, .. } = self.member.clone();
        let shares = broker.shares();
        let mut from = Offset::ZERO;
        loop {
            let bounds = self.partitions[at].log.bounds();
            let within = from.max(bounds.start)..bounds.durable_end;
            let Some(first) = shares.first_available(&group, place, within) else {
                return Ok(None);
            };
            if self.unwanted.contains(&(partition, first)) {
                from = first.plus(1);
                continue;
            }
            if !self.has_read(partition, first) && !self.read(at, partition, first).await? {
                return Ok(None);
            }
            let open = self.open.as_ref().expect("it was just read");
            let unwanted = self.unwanted.range((partition, first)..).next();
            let unwanted = unwanted.filter(|(of, _)| *of == partition);
            let end = open.offsets.end;
            let within = first..unwanted.map_or(end, |(_, offset)| end.min(*offset));
            // What turns out to be missing is settled when it is found.
            let (within, absent) = match &self.choice {
                None => (vec![within], Vec::new()),
                Some(choice) => {
                    let sorted = choice.sort(&open.block, within, count_max, |_| false);
                    (sorted.wanted.0, sorted.others.0)
                }
            };
            let given = self
                .acquire(place, (within, absent), count_max, bounds.start)
                .await?;
            if given.is_some() {
                return Ok(given);
            }
            // Others were faster, or nothing is there any more: what follows is looked at.
            tokio::task::yield_now().await;
        }
    }

    /// The same for a consumer that leaves to others what it does not want.
    async fn take_chosen(
        &mut self,
        at: usize,
        count_max: usize,
    ) -> Result<Option<Given>, ShareReadError> {
        let partition = PartitionId::new(u32::try_from(at).expect("few partitions"));
        let place = self.place(partition);
        let ShareConsumer { broker, group, .. } = self.member.clone();
        let shares = broker.shares();
        loop {
            if self.partitions[at].looked.is_due {
                let given = self.take_later(at, place, count_max).await?;
                if given.is_some() {
                    return Ok(given);
                }
            }
            let bounds = self.partitions[at].log.bounds();
            let from = self.partitions[at].looked.to.max(bounds.start);
            let within = from..bounds.durable_end.max(from);
            let Some(first) = shares.first_available(&group, place, within) else {
                return Ok(None);
            };
            if !self.has_read(partition, first) && !self.read(at, partition, first).await? {
                return Ok(None);
            }
            let end = self.open.as_ref().expect("it was just read").offsets.end;
            let Sorted { wanted, end, .. } = self.sorted(partition, first..end, count_max);
            let later = wanted.0.clone();
            let given = self
                .acquire(place, (wanted.0, Vec::new()), count_max, bounds.start)
                .await?;
            // What others have, and what was taken, may come back.
            let held = shares.unfinished_in(&group, place, from..first);
            let looked = &mut self.partitions[at].looked;
            looked.pass(end, held.into_iter().chain(later));
            if given.is_some() {
                return Ok(given);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Takes of what was passed, as somebody had it, what has come back.
    async fn take_later(
        &mut self,
        at: usize,
        place: Place,
        count_max: usize,
    ) -> Result<Option<Given>, ShareReadError> {
        let partition = place.partition;
        let ShareConsumer { broker, group, .. } = self.member.clone();
        loop {
            let bounds = self.partitions[at].log.bounds();
            let looked = &mut self.partitions[at].looked;
            looked.later = looked.later.split_off(&bounds.start);
            let later = looked.later.iter().copied();
            let (available, finished) = broker.shares().sorted(&group, place, later);
            for offset in &finished {
                looked.later.remove(offset);
            }
            let unwanted = &self.unwanted;
            let mut wanted = available
                .into_iter()
                .filter(|it| !unwanted.contains(&(partition, *it)))
                .peekable();
            let Some(first) = wanted.peek().copied() else {
                self.partitions[at].looked.is_due = false;
                return Ok(None);
            };
            let all: Vec<Offset> = wanted.collect();
            let has_read = self.has_read(partition, first);
            if !has_read && !self.read(at, partition, first).await? {
                // It is gone from the log.
                self.partitions[at].looked.later.remove(&first);
                continue;
            }
            let end = self.open.as_ref().expect("it was just read").offsets.end;
            let sorted = self.sorted(partition, first..end, usize::MAX);
            let chosen = sorted.wanted.0;
            let (mut within, mut others) = (Offsets::default(), Vec::new());
            for offset in all.into_iter().take_while(|it| *it < end) {
                let at = chosen.partition_point(|it| it.end <= offset);
                match chosen.get(at).is_some_and(|it| it.contains(&offset)) {
                    true => within.add(offset..offset.plus(1)),
                    false => others.push(offset),
                }
            }
            let has_any = !within.0.is_empty();
            let looked = &mut self.partitions[at].looked;
            for offset in &others {
                looked.later.remove(offset);
            }
            let given = self
                .acquire(place, (within.0, Vec::new()), count_max, bounds.start)
                .await?;
            if given.is_some() {
                return Ok(given);
            }
            if has_any && others.is_empty() {
                // Others were faster, or no more may be held: it is looked again when something changes.
                self.partitions[at].looked.is_due = false;
                return Ok(None);
            }
            tokio::task::yield_now().await;
        }
    }

    /// What of a range of the open block is wanted, up to so many records.
    fn sorted(&self, partition: PartitionId, within: Range<Offset>, count_max: usize) -> Sorted {
        let (Some(choice), Some(open)) = (&self.choice, &self.open) else {
            return Sorted::default();
        };
        let is_left_out = |offset| self.unwanted.contains(&(partition, offset));
        choice.sort(&open.block, within, count_max, is_left_out)
    }

    /// Acquires records of the open block, and finishes others. What was acquired and is not there is settled.
    async fn acquire(
        &mut self,
        place: Place,
        (within, absent): (Vec<Range<Offset>>, Vec<Range<Offset>>),
        count_max: usize,
        log_start: Offset,
    ) -> Result<Option<Given>, ShareReadError> {
        if within.is_empty() && absent.is_empty() {
            return Ok(None);
        }
        let ShareConsumer {
            broker,
            group,
            member,
        } = self.member.clone();
        let shares = broker.shares();
        let wanted = Wanted {
            place,
            within,
            absent,
            ends: Vec::new(),
            count_max,
            deliveries_max: self.deliveries_max,
            log_start,
        };
        let acquired = shares
            .acquire_until_settled(&group, &member, &wanted)
            .await?;
        let open = self.open.as_ref().expect("it was just read");
        let block = open.block.clone();
        let (records, absent) = found_in(&block, &acquired);
        if !absent.is_empty() {
            let absent = absent.into_iter();
            let verdicts: Vec<_> = absent.map(|offsets| (offsets, Verdict::Absent)).collect();
            shares
                .settle(&group, &member, place, &verdicts, log_start)
                .await?;
        }
        Ok((!records.is_empty()).then_some(Given {
            place,
            block,
            records,
        }))
    }

    fn has_read(&self, partition: PartitionId, offset: Offset) -> bool {
        let open = self.open.as_ref();
        open.is_some_and(|it| it.partition == partition && it.offsets.contains(&offset))
    }

    /// Reads on from an offset. False: it is the end of the log.
    async fn read(
        &mut self,
        at: usize,
        partition: PartitionId,
        from: Offset,
    ) -> Result<bool, ShareReadError> {
        let goes_on =
            |open: &Open| open.partition == partition && open.reading.next_offset() == from;
        let mut reading = match self.open.take().filter(goes_on) {
            Some(open) => open.reading,
            None => {
                let log = &*self.partitions[at].log;
                Reading::new(&self.member.broker, &self.who, (partition, log), from)
            }
        };
        let block = reading.read(&self.member.broker).await?;
        let offsets = from..reading.next_offset();
        let has_passed = !offsets.is_empty();
        self.open = has_passed.then_some(Open {
            partition,
            reading,
            offsets,
            block,
        });
        Ok(has_passed)
    }

    /// Waits until there may be something to take. May be given up.
    pub async fn wait(&mut self) -> Result<(), ShareReadError> {
        loop {
            for partition in &mut self.partitions {
                if partition.watched_at != partition.idle_at {
                    partition.watched_at = partition.idle_at;
                    partition.log.watch(&self.waiter);
                }
            }
            // What moved before it was watched is seen here, what moves later wakes.
            if self.may_have_more() {
                return Ok(());
            }
            let woken = async {
                tokio::select! {
                    () = self.waiter.wait() => {}
                    // Whoever takes looks whether that was so.
                    _ = self.changed.changed() => self.changed.mark_changed(),
                }
            };
            if tokio::time::timeout(GROWTH_LOOK, woken).await.is_err() {
                self.grow(Begin::Earliest).await?;
                // Nobody tells of room that other groups make.
                if self.member.broker.shares().has_lacked_room() {
                    for partition in &mut self.partitions {
                        partition.idle_at = None;
                    }
                }
            }
        }
    }
}

impl ShareConsumer {
    /// Does what the consumer says of records that it was given: all of it or nothing. Durable when it returns.
    pub async fn settle(
        &self,
        place: Place,
        verdicts: &[(Range<Offset>, Verdict)],
    ) -> Result<(), ShareError> {
        let log_start = self.log_start(place);
        let shares = self.broker.shares();
        let settled = shares.settle(&self.group, &self.member, place, verdicts, log_start);
        settled.await.map(drop)
    }

    /// The same as something that is done with others, by [`Broker::publish_and_settle`].
    pub fn settlement(&self, place: Place, verdicts: Vec<(Range<Offset>, Verdict)>) -> Settlement {
        Settlement {
            group: Arc::clone(&self.group),
            member: Arc::clone(&self.member),
            place,
            verdicts,
            log_start: self.log_start(place),
        }
    }

    fn log_start(&self, place: Place) -> Offset {
        let topic = self.broker.topic_by_id(place.topic);
        let start = topic.and_then(|topic| Ok(topic.log(place.partition)?.bounds().start));
        start.unwrap_or(Offset::ZERO)
    }

    /// Gives back all that the consumer holds; the deliveries count.
    pub async fn release(&self) -> Result<(), ShareError> {
        let shares = self.broker.shares();
        shares.release(&self.group, &self.member).await
    }

    /// Gives back all that the consumer holds, as if it had not been delivered.
    pub async fn give_back(&self) -> Result<(), ShareError> {
        let shares = self.broker.shares();
        shares.give_back(&self.group, &self.member).await
    }
}

/// Which of a block's records were acquired, and the offsets that were and have no record.
fn found_in(block: &Block, acquired: &[Acquired]) -> (Vec<(usize, u16)>, Vec<Range<Offset>>) {
    let (mut records, mut absent) = (Vec::new(), Vec::new());
    let mut all = block.iter().enumerate().peekable();
    for piece in acquired {
        let mut next = piece.offsets.start;
        while let Some((index, found)) = all.peek() {
            let offset = found.record.offset;
            if offset >= piece.offsets.end {
                break;
            }
            if offset >= piece.offsets.start {
                if offset > next {
                    absent.push(next..offset);
                }
                records.push((*index, piece.count));
                next = offset.plus(1);
            }
            all.next();
        }
        if next < piece.offsets.end {
            absent.push(next..piece.offsets.end);
        }
    }
    (records, absent)
}
