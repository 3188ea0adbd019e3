//! What becomes durable is read and matched once for all who keep up: a task for each topic that has live subscribers.
//! Callers: `feed`, which joins a task as a member, and falls back to a cursor of its own where it is too slow.
//! Invariants: a member is handed each record that one of its filters matches, in the order of its partition, from where it joined
//! until it leaves or is told that it fell behind, and from where. What waits for a member are places in blocks that are shared; they
//! are few, and a member that lets them grow old loses them, so that no member keeps much of the log in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};

use model::{Offset, PartitionId, TopicId};
use tokio::sync::Notify;

use super::matching::Matching;
use super::naming::Naming;
use super::routes::Routes;
use super::stats::{Skipped, Stats};
use super::topic::{KAFKA, TopicFilter};
use crate::broker::access::{Granted, right};
use crate::broker::place::{later_offsets, offset_mut, offset_of, reaches};
use crate::broker::replay::{
    Block, Event, Filter, FollowRequest, Order, Place, ReplayError, ReplayRecord, Resume,
    Subscription,
};
use crate::broker::{Broker, Topic};

/// Slices that wait for a member.
const SLICES_MAX: usize = 128;
/// Records of theirs, beside those of the last slice.
const WAITING_MAX: usize = 2_048;
/// Blocks that were handed last: older ones wait for nobody.
const RECENT_MAX: usize = 1_024;
/// Bytes of theirs, beside the last one's.
const RECENT_BYTES_MAX: usize = 8 << 20;

/// Records of a block that are for somebody.
#[derive(Debug)]
pub(super) struct Slice {
    block: Arc<Block>,
    /// Which; None for all.
    picked: Option<Box<[u32]>>,
    /// Where the task was in each partition before it.
    before: Arc<[Offset]>,
    /// Which block it is of.
    number: u64,
}

impl Slice {
    /// All records of a block.
    pub(super) fn all(block: Block) -> Slice {
        Slice {
            block: Arc::new(block),
            picked: None,
            before: Arc::new([]),
            number: 0,
        }
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        let picked = self.picked.as_ref();
        picked.map_or(self.block.len(), |picked| picked.len())
    }

    /// One of them.
    pub(super) fn get(&self, index: usize) -> Option<ReplayRecord<'_>> {
        let index = match &self.picked {
            None => index,
            Some(picked) => *picked.get(index)? as usize,
        };
        self.block.get(index)
    }
}

/// What a member is given.
#[derive(Debug)]
pub(super) enum Handed {
    /// Records that one of its filters matched when they came.
    Slice(Slice),
    /// It was too slow, and is no member any more: what it was not given begins here, partition by partition.
    Behind(Vec<Offset>),
    /// The topic is gone, or cannot be read.
    Ended,
}

/// The tasks of all topics that have live subscribers.
pub(super) struct Lives {
    broker: Broker,
    routes: Routes,
    stats: Arc<Stats>,
    open: Mutex<HashMap<TopicId, Arc<Live>>>,
}

/// What a task and its members share.
#[derive(Debug)]
struct Live {
    naming: Naming,
    state: Mutex<State>,
    /// Told when the last member has left.
    left: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The next offset of each partition that is not handed yet.
    positions: Vec<Offset>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    matching: Matching,
    /// Blocks that were handed.
    number: u64,
    /// The last of them: number, bytes, and the slots that they were handed to.
    recent: VecDeque<(u64, usize, Vec<u32>)>,
    recent_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    inbox: Arc<Inbox>,
    filters: Vec<TopicFilter>,
}

#[derive(Debug, Default)]
struct Inbox(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    slices: VecDeque<Slice>,
    records: usize,
    /// Where the task was before what the member was given last, until that is taken.
    given: Option<Arc<[Offset]>>,
    end: Option<End>,
    /// Its member, if that waits for something to come.
    waits: Option<Waker>,
}

#[derive(Clone, Debug)]
enum End {
    Behind(Arc<[Offset]>),
    /// Where the first of what was not given begins, if there was something.
    Ended(Option<Arc<[Offset]>>),
}

/// A subscriber that keeps up, until this is dropped.
#[derive(Debug)]
pub(super) struct Member {
    live: Arc<Live>,
    slot: u32,
    inbox: Arc<Inbox>,
    /// What it is not given, as it had it before it joined.
    floor: Vec<Offset>,
}

impl Lives {
    pub(super) fn new(broker: Broker, routes: Routes, stats: Arc<Stats>) -> Arc<Lives> {
        Arc::new(Lives {
            broker,
            routes,
            stats,
            open: Mutex::default(),
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<TopicId, Arc<Live>>> {
        self.open
            .lock()
            .expect("nothing panics while it holds the live tasks")
    }

    /// Joins the topic's task, which is begun if there is none: from the offsets `at` on, or from what comes next. None if the task is
    /// past one of these offsets.
    pub(super) fn join(
        self: &Arc<Lives>,
        topic: &Granted<Arc<Topic>, right::Read>,
        at: Option<Vec<Offset>>,
        filters: Vec<TopicFilter>,
    ) -> Result<Option<Member>, ReplayError> {
        let mut open = self.open();
        if let Some(live) = open.get(&topic.id) {
            return Ok(Live::join(live, at, filters));
        }
        let request = FollowRequest {
            partitions: None,
            from: Place::Latest,
            resume: at.as_deref().map(resume),
            filter: Filter::default(),
            order: Order::Offset,
        };
        let subscription = self.broker.follow(topic, request)?;
        let positions = offsets(&subscription.position());
        let live = Arc::new(Live {
            naming: self.routes.naming(&topic.name),
            state: Mutex::new(State {
                positions,
                ..State::default()
            }),
            left: Notify::new(),
        });
        let member = Live::join(&live, at, filters);
        open.insert(topic.id, Arc::clone(&live));
        let task = Task {
            lives: Arc::clone(self),
            topic: topic.id,
            live,
        };
        // Its members see how it ends.
        tokio::spawn(task.run(subscription));
        Ok(member)
    }
}

/// Positions as offsets, partition by partition.
pub(super) fn offsets(positions: &[Resume]) -> Vec<Offset> {
    let mut offsets = Vec::with_capacity(positions.len());
    for at in positions {
        *offset_mut(&mut offsets, at.partition) = at.offset;
    }
    offsets
}

/// The same the other way.
pub(super) fn resume(offsets: &[Offset]) -> Vec<Resume> {
    let all = (0..).zip(offsets);
    all.map(|(partition, offset)| Resume {
        partition: PartitionId::new(partition),
        offset: *offset,
        since: None,
    })
    .collect()
}

/// A topic's task. Whatever ends it, its members are told.
struct Task {
    lives: Arc<Lives>,
    topic: TopicId,
    live: Arc<Live>,
}

impl Task {
    async fn run(self, mut subscription: Subscription) {
        loop {
            let event = tokio::select! {
                event = subscription.next() => event,
                () = self.live.left.notified() => match self.ends() {
                    true => return,
                    false => continue,
                },
            };
            match event {
                Ok(Event::Records(block)) => {
                    let behind = self.live.state().hand(block, &self.live.naming);
                    self.lives.stats.fell_behind.fetch_add(behind, Relaxed);
                    if self.ends() {
                        return;
                    }
                }
                Ok(Event::Gap(gap)) => {
                    let mut state = self.live.state();
                    let members = state.members().count() as u64;
                    let position = offset_mut(&mut state.positions, gap.partition);
                    *position = (*position).max(gap.offsets.end);
                    let missing = gap.missing.saturating_mul(members);
                    self.lives.stats.skipped(Skipped::Gap, missing);
                }
                Ok(Event::CaughtUp) => {}
                Err(error) => {
                    tracing::debug!(%error, "a topic with live subscribers cannot be read");
                    return;
                }
            }
        }
    }

    /// Whether nobody is left: then nobody finds it any more, either.
    fn ends(&self) -> bool {
        let mut open = self.lives.open();
        let is_empty = self.live.state().members().next().is_none();
        if is_empty {
            open.remove(&self.topic);
        }
        is_empty
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut open = self.lives.open();
        let is_own = |it: &Arc<Live>| Arc::ptr_eq(it, &self.live);
        if open.get(&self.topic).is_some_and(is_own) {
            open.remove(&self.topic);
        }
        for slot in self.live.state().members() {
            slot.inbox.end();
        }
    }
}

impl Live {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds members")
    }

    fn join(
        live: &Arc<Live>,
        at: Option<Vec<Offset>>,
        filters: Vec<TopicFilter>,
    ) -> Option<Member> {
        let mut state = live.state();
        if at.as_ref().is_some_and(|at| !reaches(at, &state.positions)) {
            return None;
        }
        let slot = match state.free.pop() {
            Some(slot) => slot,
            None => {
                state.slots.push(None);
                u32::try_from(state.slots.len() - 1).expect("fewer members than connections")
            }
        };
        for filter in &filters {
            state.matching.insert(filter, slot);
        }
        let inbox = Arc::<Inbox>::default();
        state.slots[slot as usize] = Some(Slot {
            inbox: Arc::clone(&inbox),
            filters,
        });
        Some(Member {
            live: Arc::clone(live),
            slot,
            inbox,
            floor: at.unwrap_or_default(),
        })
    }
}

impl State {
    fn members(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().flatten()
    }

    /// Whether somebody was there.
    fn leave(&mut self, slot: u32) -> bool {
        let Some(left) = self.slots[slot as usize].take() else {
            return false;
        };
        for filter in &left.filters {
            self.matching.remove(filter, slot);
        }
        self.free.push(slot);
        true
    }

    /// Hands a block's records to those whose filters match. Gives how many members fell behind.
    fn hand(&mut self, block: Block, naming: &Naming) -> u64 {
        let Some(last) = block.len().checked_sub(1).and_then(|last| block.get(last)) else {
            return 0;
        };
        let (partition, end) = (last.partition, last.record.offset.plus(1));
        let mut picked: HashMap<u32, Vec<u32>> = HashMap::new();
        let by_kafka = self.matching.has_first(KAFKA.trim_end_matches('/'));
        for (index, found) in (0..).zip(block.iter()) {
            let names = naming.names(&found.record);
            let mut pick = |name: &str| {
                for slot in self.matching.holders(name).iter() {
                    let of_slot = picked.entry(*slot).or_default();
                    // One whose filters match both of its names has it once.
                    if of_slot.last() != Some(&index) {
                        of_slot.push(index);
                    }
                }
            };
            if let Some(published) = names.published() {
                pick(published);
            }
            if by_kafka {
                pick(names.kafka());
            }
        }
        let before: Arc<[Offset]> = self.positions[..].into();
        *offset_mut(&mut self.positions, partition) = end;
        if picked.is_empty() {
            return 0;
        }
        self.number += 1;
        let (number, bytes) = (self.number, block.memory_bytes());
        let block = Arc::new(block);
        let mut behind = Vec::new();
        let slots = picked.keys().copied().collect();
        for (slot, picked) in picked {
            let member = self.slots[slot as usize].as_ref();
            let member = member.expect("who holds a filter is a member");
            let is_handed = member.inbox.hand(Slice {
                block: Arc::clone(&block),
                picked: Some(picked.into()),
                before: Arc::clone(&before),
                number,
            });
            if !is_handed {
                behind.push(slot);
            }
        }
        self.recent.push_back((number, bytes, slots));
        self.recent_bytes += bytes;
        while self.recent.len() > RECENT_MAX
            || self.recent_bytes > RECENT_BYTES_MAX && self.recent.len() > 1
        {
            behind.extend(self.forget_oldest());
        }
        let behind = behind.into_iter();
        behind.filter(|slot| self.leave(*slot)).count() as u64
    }

    /// The oldest block waits for nobody any more. Gives those whom it did wait for: they are behind.
    fn forget_oldest(&mut self) -> Vec<u32> {
        let Some((oldest, bytes, slots)) = self.recent.pop_front() else {
            return Vec::new();
        };
        self.recent_bytes -= bytes;
        let waited = |slot: &u32| {
            let member = self.slots[*slot as usize].as_ref();
            member.is_some_and(|member| member.inbox.forget(oldest))
        };
        slots.into_iter().filter(waited).collect()
    }
}

impl Inbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().expect("nothing panics while it holds slices")
    }

    /// Something has come: whoever waits for it is told.
    fn came(waiting: MutexGuard<'_, Waiting>) {
        let mut waiting = waiting;
        let waits = waiting.waits.take();
        drop(waiting);
        if let Some(waits) = waits {
            waits.wake();
        }
    }

    /// False if too much waits already: then its member is behind, from the oldest on that waits.
    fn hand(&self, slice: Slice) -> bool {
        let mut waiting = self.waiting();
        if waiting.slices.len() >= SLICES_MAX || waiting.records >= WAITING_MAX {
            let oldest = waiting.slices.front().map(|it| Arc::clone(&it.before));
            waiting.end(End::Behind(oldest.expect("much waits")));
            Inbox::came(waiting);
            return false;
        }
        waiting.records += slice.len();
        waiting.slices.push_back(slice);
        Inbox::came(waiting);
        true
    }

    /// True if this block waits: then its member is behind, from it on.
    fn forget(&self, number: u64) -> bool {
        let mut waiting = self.waiting();
        let Some(oldest) = waiting.slices.front().filter(|it| it.number == number) else {
            return false;
        };
        let before = Arc::clone(&oldest.before);
        waiting.end(End::Behind(before));
        Inbox::came(waiting);
        true
    }

    fn end(&self) {
        let mut waiting = self.waiting();
        let oldest = waiting.slices.front().map(|it| Arc::clone(&it.before));
        waiting.end(End::Ended(oldest));
        Inbox::came(waiting);
    }
}

impl Waiting {
    fn end(&mut self, end: End) {
        self.slices = VecDeque::new();
        self.records = 0;
        self.end = Some(end);
    }
}

impl Member {
    /// The next that it is handed; waits for it. A call that is given up loses nothing.
    pub(super) async fn next(&mut self) -> Handed {
        std::future::poll_fn(|context| {
            loop {
                if let Some(handed) = self.take() {
                    return Poll::Ready(handed);
                }
                ready!(self.poll_came(context));
            }
        })
        .await
    }

    /// Resolves when there is something to take.
    pub(super) fn poll_came(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.inbox.waiting();
        if !waiting.slices.is_empty() || waiting.end.is_some() {
            return Poll::Ready(());
        }
        match &mut waiting.waits {
            Some(waits) => waits.clone_from(context.waker()),
            waits => *waits = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    fn take(&mut self) -> Option<Handed> {
        let mut waiting = self.inbox.waiting();
        waiting.given = None;
        match &waiting.end {
            None => {}
            Some(End::Ended(_)) => return Some(Handed::Ended),
            Some(End::Behind(at)) => {
                return Some(Handed::Behind(later_offsets(&self.floor, at)));
            }
        }
        while let Some(mut slice) = waiting.slices.pop_front() {
            waiting.records -= slice.len();
            if self.leave_out(&mut slice) {
                waiting.given = Some(Arc::clone(&slice.before));
                return Some(Handed::Slice(slice));
            }
        }
        None
    }

    /// Leaves out what it had before it joined. Whether something is left.
    fn leave_out(&self, slice: &mut Slice) -> bool {
        let Some(first) = slice.get(0) else {
            return false;
        };
        let floor = offset_of(&self.floor, first.partition);
        if first.record.offset >= floor {
            return true;
        }
        let block = &slice.block;
        let is_new = |index: &u32| {
            let found = block.get(*index as usize);
            found.is_some_and(|found| found.record.offset >= floor)
        };
        let picked = slice.picked.iter().flatten().copied().filter(is_new);
        let picked: Box<[u32]> = picked.collect();
        slice.picked = Some(picked);
        slice.len() > 0
    }

    /// All of what it was given last is taken.
    pub(super) fn took(&self) {
        self.inbox.waiting().given = None;
    }

    /// Where it is, for others to look at.
    pub(super) fn place(&self) -> MemberPlace {
        MemberPlace {
            live: Arc::clone(&self.live),
            inbox: Arc::clone(&self.inbox),
            floor: self.floor.clone(),
        }
    }

    /// Wants what this filter matches, too, of what comes from now on.
    pub(super) fn insert(&self, filter: &TopicFilter) {
        let mut state = self.live.state();
        if self.is_in(&state) {
            state.matching.insert(filter, self.slot);
            let slot = state.slots[self.slot as usize].as_mut();
            let filters = &mut slot.expect("it is a member").filters;
            // As a rule it has one.
            filters.reserve_exact(1);
            filters.push(filter.clone());
        }
    }

    /// Wants that no more.
    pub(super) fn remove(&self, filter: &str) {
        let mut state = self.live.state();
        if !self.is_in(&state) {
            return;
        }
        let slot = state.slots[self.slot as usize].as_mut();
        let filters = &mut slot.expect("it is a member").filters;
        let at = filters.iter().position(|it| it.as_str() == filter);
        if let Some(at) = at {
            let filter = filters.swap_remove(at);
            state.matching.remove(&filter, self.slot);
        }
    }

    fn is_in(&self, state: &State) -> bool {
        let slot = state.slots[self.slot as usize].as_ref();
        slot.is_some_and(|slot| Arc::ptr_eq(&slot.inbox, &self.inbox))
    }
}

/// Where a member is.
#[derive(Debug)]
pub(super) struct MemberPlace {
    live: Arc<Live>,
    inbox: Arc<Inbox>,
    floor: Vec<Offset>,
}

impl MemberPlace {
    /// What lies before was given and taken, partition by partition.
    pub(super) fn offsets(&self) -> Vec<Offset> {
        let state = self.live.state();
        let waiting = self.inbox.waiting();
        let first = waiting.slices.front().map(|it| &it.before);
        let ended = waiting.end.as_ref().and_then(|end| match end {
            End::Behind(at) => Some(at),
            End::Ended(at) => at.as_ref(),
        });
        let at = waiting.given.as_ref().or(ended).or(first);
        later_offsets(&self.floor, at.map_or(&state.positions[..], |at| &at[..]))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.live.state();
        {
            // Its place stays where it is: what comes from here on is not its own.
            let mut waiting = self.inbox.waiting();
            if waiting.end.is_none() {
                let first = waiting.slices.front().map(|it| Arc::clone(&it.before));
                let at = first.unwrap_or_else(|| state.positions[..].into());
                waiting.end(End::Ended(Some(at)));
            }
        }
        if self.is_in(&state) {
            state.leave(self.slot);
            if state.members().next().is_none() {
                drop(state);
                self.live.left.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::routes::Routes;
    use super::*;

    #[test]
    fn the_place_of_one_that_has_left_stays_where_it_was() {
        let live = Arc::new(Live {
            naming: Routes::default().naming(&"mqtt".parse().expect("a name")),
            state: Mutex::default(),
            left: Notify::new(),
        });
        let member = Live::join(&live, Some(vec![Offset::new(3)]), Vec::new());
        let member = member.expect("nothing is ahead of it");
        live.state().positions = vec![Offset::new(5)];
        let place = member.place();
        assert_eq!(place.offsets(), [Offset::new(5)], "nothing was for it");
        drop(member);
        live.state().positions = vec![Offset::new(8)];
        assert_eq!(place.offsets(), [Offset::new(5)]);
    }
}
