//! Drives every group: parks and answers requests, keeps the time, and stores what must survive.
//! Callers: the fronts, through `Broker::groups`; `Broker` for topics that go.
//! Invariants: a group's steps and their appends happen under its lock, so the log has them in order. What a request is
//! told leaves only when all that its group had appended by then is durable, and so does a committed offset for fetches.
//! No lock is held over an await.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use model::TopicName;
use storage::io::Clock;
use storage::{AppendSize, Purpose};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::exchange::{
    Answer, Effects, GroupDescription, GroupError, GroupRecord, GroupState, JoinRefused,
    JoinRequest, Joined, Leaver, MemberClaim, Moment, SyncRequest, Synced, Ticket,
};
use super::group::{Group, GroupSettings, Growth};
use super::ledger::{Bound, Held, Ledger};
use super::offsets::{AppendNumber, GroupOffsets, OffsetChange};
use super::record::{
    PROMISE_VALUE_BYTES, Record, RecordError, group_key_bytes, member_bytes, offset_key_bytes,
    offset_value_bytes,
};
use super::store::{OffsetsLog, Room, Written};
use super::timers::Timers;
use crate::broker::config::GroupConfig;

/// Answers that wait for their sync. When so many do, requests wait for a place before they take effect.
const DELIVERIES_MAX: usize = 4096;
/// Records that one step of a group's state machine makes at most, beside one of the whole group: promises, and the group
/// without members.
const SMALL_RECORDS_MAX: usize = 4;
/// What a group takes in memory, about, beside its id and its members.
const GROUP_BYTES: usize = 512;
/// A new member id begins with at most this much of the client's own name.
const ID_PREFIX_BYTES_MAX: usize = 255;
/// How often the log is asked whether it is worth compacting.
const COMPACTION_CHECK: Duration = Duration::from_secs(10);

/// All consumer groups. Cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    pub(super) shared: Arc<Shared>,
}

/// The coordinator's own work: it must be run for answers to leave and for time to pass.
pub struct CoordinatorTask {
    coordinator: Coordinator,
    deliveries: mpsc::Receiver<Delivery>,
}

pub(super) struct Shared {
    pub(super) config: GroupConfig,
    pub(super) log: OffsetsLog,
    clock: Arc<dyn Clock>,
    ledger: Ledger,
    groups: Mutex<HashMap<Arc<str>, Arc<Cell>>>,
    timers: Timers,
    deliveries: mpsc::Sender<Delivery>,
    tickets: AtomicU64,
}

/// One group's place in memory.
pub(super) struct Cell {
    pub(super) id: Arc<str>,
    inner: Mutex<Inner>,
}

pub(super) struct Inner {
    pub(super) group: Group,
    pub(super) offsets: GroupOffsets,
    /// What of the ledger's sum is this group's.
    account: Held,
    parked: HashMap<Ticket, Parked>,
    /// Deliveries of this group that are queued.
    pub(super) undelivered: usize,
    /// The entry in the timers that counts.
    scheduled: Option<Duration>,
}

enum Parked {
    Join(oneshot::Sender<Result<Joined, JoinRefused>>),
    Sync(oneshot::Sender<Result<Synced, GroupError>>),
}

/// What leaves when `written`, and all before it in the queue, is durable.
struct Delivery {
    cell: Arc<Cell>,
    written: Option<Written>,
    changes: Option<AppendNumber>,
    answers: Vec<(Parked, Answer)>,
    done: Option<oneshot::Sender<Result<(), GroupError>>>,
}

/// What a step needs before it takes the group's lock.
struct Start {
    room: Room,
    place: mpsc::OwnedPermit<Delivery>,
}

/// What one step of a group stores and tells.
#[derive(Default)]
pub(super) struct Step {
    effects: Effects,
    pub(super) changes: Vec<OffsetChange>,
    /// Appended after the group's own records and the changes.
    pub(super) tombstones: Vec<Record>,
    pub(super) done: Option<oneshot::Sender<Result<(), GroupError>>>,
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// The group's id.
    pub id: String,
    /// The kind of group; empty for offsets without members.
    pub protocol_type: String,
    /// Where it is in its life.
    pub state: GroupState,
}

impl Coordinator {
    /// Reads back all groups. Members have one session timeout to be heard of again.
    pub fn open(
        config: GroupConfig,
        mut log: OffsetsLog,
        clock: Arc<dyn Clock>,
    ) -> Result<(Coordinator, CoordinatorTask), RecordError> {
        let (deliveries, receiver) = mpsc::channel(DELIVERIES_MAX);
        let entries = log.take_entries();
        let ledger = Ledger::new(config.held_max());
        let shared = Shared {
            config,
            log,
            clock,
            ledger,
            groups: Mutex::new(HashMap::new()),
            timers: Timers::default(),
            deliveries,
            tickets: AtomicU64::new(0),
        };
        let coordinator = Coordinator {
            shared: Arc::new(shared),
        };
        // Each value goes once it is understood: what is kept is kept once.
        for (key, value) in entries {
            coordinator.restore(Record::decode(&key, Some(&value))?);
        }
        for cell in coordinator.cells() {
            let mut inner = cell.lock();
            coordinator.settle(&cell, &mut inner);
            coordinator.schedule(&cell, &mut inner);
        }
        Ok((
            coordinator.clone(),
            CoordinatorTask {
                coordinator,
                deliveries: receiver,
            },
        ))
    }

    /// Joins a group, creating it for someone new; returns when the generation is complete.
    pub async fn join(&self, group: &str, request: JoinRequest) -> Result<Joined, JoinRefused> {
        let member_id = request.member_id.clone();
        let refuse = |error| JoinRefused {
            error,
            member_id: member_id.clone(),
        };
        if group.is_empty() {
            return Err(refuse(GroupError::InvalidGroupId));
        }
        if !self.allows(request.session_timeout) {
            return Err(refuse(GroupError::InvalidSessionTimeout));
        }
        let cell = if member_id.is_empty() {
            self.cell_or_new(group)
                .ok_or(GroupError::MaxSizeReached)
                .map_err(refuse)?
        } else {
            self.cell(group)
                .ok_or_else(|| refuse(GroupError::UnknownMember))?
        };
        let new_member_id = new_member_id(
            request
                .instance_id
                .as_deref()
                .unwrap_or(&request.client.client_id),
        );
        let (sender, answer) = oneshot::channel();
        let ticket = self.next_ticket();
        let protocol_type_bytes = request.protocol_type.len();
        // Only a static member's return stores the group before everyone has rejoined.
        let static_bytes = (request.instance_id.is_some() && member_id.is_empty())
            .then(|| new_member_id.len() + request_bytes(&request));
        let sizes = |inner: &Inner| {
            let mut sizes = cell.small_records(inner, protocol_type_bytes);
            sizes.extend(static_bytes.map(|bytes| cell.whole_record(inner, bytes)));
            sizes
        };
        self.step(&cell, sizes, |inner, now, step| {
            let growth = inner.group.join_growth(&request, &new_member_id);
            let has_room = self.grow(inner, now, held(growth));
            inner.parked.insert(ticket, Parked::Join(sender));
            let effects = &mut step.effects;
            if has_room {
                inner
                    .group
                    .join(now, request, new_member_id, ticket, effects);
            } else {
                inner
                    .group
                    .turn_away(now, &request.member_id, ticket, effects);
            }
        })
        .await
        .map_err(refuse)?;
        answer
            .await
            .unwrap_or_else(|_| Err(refuse(GroupError::NotAvailable)))
    }

    /// Fetches the member's assignment, or brings everyone's; returns when it is there.
    pub async fn sync(&self, group: &str, request: SyncRequest) -> Result<Synced, GroupError> {
        if group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let cell = self.cell(group).ok_or(GroupError::UnknownMember)?;
        let assigned = request.assignments.iter();
        let assigned: usize = assigned.map(|(_, assignment)| assignment.len()).sum();
        let member_id = request.member_id.clone();
        let (sender, answer) = oneshot::channel();
        let ticket = self.next_ticket();
        let sizes = |inner: &Inner| {
            let mut sizes = cell.small_records(inner, 0);
            if inner.group.is_led_by(&member_id) {
                sizes.push(cell.whole_record(inner, assigned));
            }
            sizes
        };
        self.step(&cell, sizes, |inner, now, step| {
            let growth = inner.group.sync_growth(&request);
            let has_room = self.grow(inner, now, held(growth));
            inner.parked.insert(ticket, Parked::Sync(sender));
            let effects = &mut step.effects;
            if has_room {
                inner.group.sync(now, request, ticket, effects);
            } else {
                inner
                    .group
                    .turn_away_leader(now, &request.member_id, ticket, effects);
            }
        })
        .await?;
        answer.await.unwrap_or(Err(GroupError::NotAvailable))
    }

    /// Keeps a member's session alive.
    pub fn heartbeat(&self, group: &str, claim: &MemberClaim) -> Result<(), GroupError> {
        if group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let cell = self.cell(group).ok_or(GroupError::UnknownMember)?;
        let mut inner = cell.lock();
        let result = inner.group.heartbeat(self.now(), claim);
        self.schedule(&cell, &mut inner);
        result
    }

    /// Removes members; one result for each, in order.
    pub async fn leave(
        &self,
        group: &str,
        leavers: Vec<Leaver>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let Some(cell) = self.cell(group) else {
            return Ok(leavers
                .iter()
                .map(|_| Err(GroupError::UnknownMember))
                .collect());
        };
        let sizes = |inner: &Inner| cell.small_records(inner, 0);
        self.step(&cell, sizes, |inner, now, step| {
            inner.group.leave(now, &leavers, &mut step.effects)
        })
        .await?
    }

    /// All groups, by id.
    pub fn list(&self) -> Vec<GroupListing> {
        let mut listings: Vec<_> = self
            .cells()
            .iter()
            .map(|cell| {
                let inner = cell.lock();
                GroupListing {
                    id: cell.id.to_string(),
                    protocol_type: inner.group.protocol_type().unwrap_or_default().to_owned(),
                    state: inner.group.state(),
                }
            })
            .collect();
        listings.retain(|listing: &GroupListing| listing.state != GroupState::Dead);
        listings.sort_by(|a, b| a.id.cmp(&b.id));
        listings
    }

    /// One group, if it exists.
    pub fn describe(&self, group: &str) -> Option<GroupDescription> {
        self.cell(group)
            .map(|cell| cell.lock().group.describe())
            .filter(|description| description.state != GroupState::Dead)
    }

    /// The bounds on all groups, and what is held of each.
    pub fn bounds(&self) -> Vec<Bound> {
        self.shared.ledger.bounds()
    }

    /// Applies every deadline that has passed.
    pub async fn run_due(&self) -> Result<(), GroupError> {
        while let Some((at, id)) = self.shared.timers.take_due(self.now().monotonic) {
            let Some(cell) = self.cell(&id) else { continue };
            let sizes = |inner: &Inner| cell.small_records(inner, 0);
            self.step(&cell, sizes, |inner, now, step| {
                if inner.scheduled == Some(at) {
                    inner.scheduled = None;
                    inner.group.on_time(now, &mut step.effects);
                }
            })
            .await?;
        }
        Ok(())
    }

    // One step of one group.

    async fn start(&self, size: AppendSize, purpose: Purpose) -> Result<Start, GroupError> {
        let place = self
            .shared
            .deliveries
            .clone()
            .reserve_owned()
            .await
            .map_err(|_| GroupError::NotAvailable)?;
        let room = self.shared.log.reserve(size, purpose).await;
        Ok(Start { room, place })
    }

    /// One step of a group. `sizes` tells, of the group as it is, how long the records are that it may come to at most:
    /// so much is admitted before the group's lock is taken, and again if the group has grown meanwhile.
    pub(super) async fn step<R>(
        &self,
        cell: &Arc<Cell>,
        sizes: impl Fn(&Inner) -> Vec<usize>,
        act: impl FnOnce(&mut Inner, Moment, &mut Step) -> R,
    ) -> Result<R, GroupError> {
        self.step_for(Purpose::State, cell, sizes, act).await
    }

    /// Like [`Coordinator::step`], for one that frees space, or may: it is taken on a full disk too.
    pub(super) async fn step_for<R>(
        &self,
        purpose: Purpose,
        cell: &Arc<Cell>,
        sizes: impl Fn(&Inner) -> Vec<usize>,
        act: impl FnOnce(&mut Inner, Moment, &mut Step) -> R,
    ) -> Result<R, GroupError> {
        let mut size = self.size(&sizes(&cell.lock()));
        loop {
            let start = self.start(size, purpose).await?;
            let mut inner = cell.lock();
            let needed = self.size(&sizes(&inner));
            if size.holds(needed) {
                return Ok(self.step_admitted(cell, &mut inner, start, act));
            }
            size = needed;
        }
    }

    fn size(&self, records: &[usize]) -> AppendSize {
        self.shared.log.size_of(records.iter().copied())
    }

    fn step_admitted<R>(
        &self,
        cell: &Arc<Cell>,
        inner: &mut Inner,
        start: Start,
        act: impl FnOnce(&mut Inner, Moment, &mut Step) -> R,
    ) -> R {
        let mut step = Step::default();
        let before = (inner.group.state(), inner.group.generation());
        let result = act(inner, self.now(), &mut step);
        self.store_and_tell(cell, inner, start, step);
        self.settle(cell, inner);
        self.schedule(cell, inner);
        log_change(cell, &inner.group, before);
        result
    }

    /// Puts growth on the group's account, if the bounds on all groups allow it.
    pub(super) fn grow(&self, inner: &mut Inner, now: Moment, growth: Held) -> bool {
        self.shared
            .ledger
            .grow(now.monotonic, &mut inner.account, growth)
    }

    /// Corrects the group's account to what it holds.
    fn settle(&self, cell: &Cell, inner: &mut Inner) {
        let actual = cell.held(inner);
        self.shared.ledger.settle(&mut inner.account, actual);
    }

    fn store_and_tell(&self, cell: &Arc<Cell>, inner: &mut Inner, start: Start, step: Step) {
        let Step {
            effects,
            changes,
            tombstones,
            done,
        } = step;
        let mut answers = effects.answers;
        let decided_a_generation = !effects.records.is_empty();
        let mut records: Vec<_> = effects
            .records
            .into_iter()
            .map(|record| cell.record(record))
            .collect();
        records.extend(
            changes
                .iter()
                .cloned()
                .map(|change| cell.offset_record(change)),
        );
        records.extend(tombstones);
        let mut delivery = Delivery {
            cell: cell.clone(),
            written: None,
            changes: None,
            answers: Vec::new(),
            done,
        };
        if !records.is_empty() {
            match self.shared.log.append(&records, start.room) {
                Ok(written) => {
                    delivery.written = Some(written);
                    delivery.changes =
                        (!changes.is_empty()).then(|| inner.offsets.on_appended(changes));
                }
                Err(error) => {
                    tracing::warn!(group = %cell.id, %error, "a group's records could not be appended");
                    self.withdraw(inner, decided_a_generation, &mut answers);
                    delivery.fail();
                }
            }
        }
        for answer in answers {
            let (Answer::Join(ticket, _) | Answer::Sync(ticket, _)) = &answer;
            if let Some(parked) = inner.parked.remove(ticket) {
                delivery.answers.push((parked, answer));
            }
        }
        if delivery.written.is_none() && inner.undelivered == 0 {
            delivery.tell(true);
        } else {
            inner.undelivered += 1;
            start.place.send(delivery);
        }
    }

    /// Takes back what a step told and decided, after its records were refused.
    fn withdraw(&self, inner: &mut Inner, decided_a_generation: bool, answers: &mut Vec<Answer>) {
        answers.iter_mut().for_each(refuse);
        let now = self.now();
        if inner.group.state() == GroupState::Dead {
            inner.group.exhume(now);
        }
        if decided_a_generation {
            let mut effects = Effects::default();
            inner.group.on_records_lost(now, &mut effects);
            answers.extend(effects.answers);
        }
    }

    fn schedule(&self, cell: &Cell, inner: &mut Inner) {
        if let Some(at) = inner.group.wake_at()
            && inner.scheduled.is_none_or(|scheduled| at < scheduled)
        {
            inner.scheduled = Some(at);
            self.shared.timers.add(at, cell.id.clone());
        }
    }

    // Small facts.

    fn allows(&self, session_timeout: Duration) -> bool {
        (self.shared.config.session_timeout_min..=self.shared.config.session_timeout_max)
            .contains(&session_timeout)
    }

    fn settings(&self) -> GroupSettings {
        let most = group_bytes_max(self.shared.log.record_bytes_max());
        GroupSettings {
            initial_rebalance_delay: self.shared.config.initial_rebalance_delay,
            size_max: self.shared.config.size_max,
            bytes_max: self.shared.config.bytes_max.min(most),
        }
    }

    pub(super) fn now(&self) -> Moment {
        Moment {
            monotonic: self.shared.clock.monotonic(),
            wall: self.shared.clock.now(),
        }
    }

    fn next_ticket(&self) -> Ticket {
        Ticket(self.shared.tickets.fetch_add(1, Relaxed))
    }

    fn lock_groups(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Cell>>> {
        self.shared
            .groups
            .lock()
            .expect("nothing panics under this lock")
    }

    pub(super) fn cells(&self) -> Vec<Arc<Cell>> {
        self.lock_groups().values().cloned().collect()
    }

    pub(super) fn cell(&self, group: &str) -> Option<Arc<Cell>> {
        self.lock_groups().get(group).cloned()
    }

    /// The group, or a new one; None if there may be no more.
    pub(super) fn cell_or_new(&self, group: &str) -> Option<Arc<Cell>> {
        let mut groups = self.lock_groups();
        if let Some(cell) = groups.get(group) {
            return Some(cell.clone());
        }
        let cell = self.new_cell(group);
        let mut account = Held::default();
        let growth = cell.held(&cell.lock());
        if !self
            .shared
            .ledger
            .grow(self.now().monotonic, &mut account, growth)
        {
            return None;
        }
        cell.lock().account = account;
        groups.insert(cell.id.clone(), cell.clone());
        Some(cell)
    }

    fn new_cell(&self, group: &str) -> Arc<Cell> {
        let group_state = Group::new(self.settings(), self.now());
        Arc::new(Cell::new(group.into(), group_state))
    }

    /// The group that is read back, however many there may be now.
    fn restored_cell(&self, group: &str) -> Arc<Cell> {
        let mut groups = self.lock_groups();
        if let Some(cell) = groups.get(group) {
            return cell.clone();
        }
        let cell = self.new_cell(group);
        groups.insert(cell.id.clone(), cell.clone());
        cell
    }

    pub(super) fn forget_if_dead(&self, cell: &Arc<Cell>) {
        let mut groups = self.lock_groups();
        let is_current = groups
            .get(&cell.id)
            .is_some_and(|current| Arc::ptr_eq(current, cell));
        if is_current && cell.lock().group.state() == GroupState::Dead {
            groups.remove(&cell.id);
        }
    }

    fn restore(&self, record: Record) {
        match record {
            Record::Group(id, Some(stored)) => {
                let cell = self.restored_cell(&id);
                cell.lock().group = Group::restore(self.settings(), stored, self.now());
            }
            Record::Promise(id, Some(generation)) => self
                .restored_cell(&id)
                .lock()
                .group
                .restore_promise(generation),
            Record::Offset(id, topic, partition, committed) => {
                self.restored_cell(&id).lock().offsets.apply(OffsetChange {
                    topic,
                    partition,
                    committed,
                });
            }
            Record::Group(_, None) | Record::Promise(_, None) => {}
        }
    }
}

impl CoordinatorTask {
    /// Delivers answers and keeps the time until `shutdown` turns true; then delivers what is left and returns.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let CoordinatorTask {
            coordinator,
            mut deliveries,
        } = self;
        let mut stop = shutdown.clone();
        let delivering = async {
            loop {
                tokio::select! {
                    biased;
                    delivery = deliveries.recv() => match delivery {
                        Some(delivery) => delivery.run(&coordinator).await,
                        None => break,
                    },
                    () = stopped(&mut stop) => {
                        deliveries.close();
                        while let Some(delivery) = deliveries.recv().await {
                            delivery.run(&coordinator).await;
                        }
                        break;
                    }
                }
            }
        };
        let keeping_time = async {
            tokio::select! {
                () = stopped(&mut shutdown) => {}
                () = coordinator.keep_time() => {}
                () = coordinator.keep_retention() => {}
            }
        };
        tokio::join!(delivering, keeping_time);
    }
}

impl Coordinator {
    async fn keep_time(&self) {
        loop {
            let now = self.now().monotonic;
            let wait = match self.shared.timers.next() {
                Some(at) => at.saturating_sub(now),
                None => Duration::MAX,
            };
            if wait.is_zero() {
                if self.run_due().await.is_err() {
                    return;
                }
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shared.timers.earlier() => {}
            }
        }
    }

    async fn keep_retention(&self) {
        let period = self.shared.config.offsets_retention_check;
        let mut next_expiry = period;
        let mut since = Duration::ZERO;
        loop {
            let wait = COMPACTION_CHECK.min(next_expiry.saturating_sub(since));
            tokio::time::sleep(wait).await;
            since += wait;
            if since >= next_expiry {
                since = Duration::ZERO;
                next_expiry = period;
                if self.expire_offsets().await.is_err() {
                    return;
                }
            }
            self.shared.log.compact_if_due().await;
        }
    }
}

impl Cell {
    fn new(id: Arc<str>, group: Group) -> Cell {
        let inner = Inner {
            group,
            offsets: GroupOffsets::default(),
            account: Held::default(),
            parked: HashMap::new(),
            undelivered: 0,
            scheduled: None,
        };
        Cell {
            id,
            inner: Mutex::new(inner),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("a step that panicked left the group in an unknown state")
    }

    /// The lengths of the records that a step may come to which does not store the whole group.
    fn small_records(&self, inner: &Inner, protocol_type_bytes: usize) -> Vec<usize> {
        let (_, empty) = inner.group.record_bytes();
        let value = PROMISE_VALUE_BYTES.max(empty + protocol_type_bytes);
        vec![group_key_bytes(&self.id) + value; SMALL_RECORDS_MAX]
    }

    /// The length of the group's record, once it has grown by so much.
    fn whole_record(&self, inner: &Inner, growth: usize) -> usize {
        let (whole, _) = inner.group.record_bytes();
        group_key_bytes(&self.id) + whole + growth
    }

    /// The length of the record of a committed offset with this text beside it.
    pub(super) fn offset_record_bytes(&self, topic: &TopicName, metadata: &str) -> usize {
        offset_key_bytes(&self.id, topic) + offset_value_bytes(metadata)
    }

    /// The length of the record that deletes an offset of this topic.
    pub(super) fn deletion_record(&self, topic: &TopicName) -> usize {
        offset_key_bytes(&self.id, topic)
    }

    /// The length of a record that deletes the group, or its promise.
    pub(super) fn tombstone_record(&self) -> usize {
        group_key_bytes(&self.id)
    }

    /// What the group holds.
    fn held(&self, inner: &Inner) -> Held {
        if inner.group.state() == GroupState::Dead {
            return Held::default();
        }
        let growth = inner.group.held();
        let offsets = inner.offsets.size();
        Held {
            groups: 1,
            members: growth.members as u64,
            member_bytes: (GROUP_BYTES + self.id.len() + growth.bytes) as u64,
            offsets: offsets.count,
            offset_bytes: offsets.bytes + offsets.count * self.id.len() as u64,
        }
    }

    fn record(&self, record: GroupRecord) -> Record {
        match record {
            GroupRecord::Stored(stored) => Record::Group(self.id.to_string(), Some(stored)),
            GroupRecord::Promised(generation) => {
                Record::Promise(self.id.to_string(), Some(generation))
            }
        }
    }

    fn offset_record(&self, change: OffsetChange) -> Record {
        Record::Offset(
            self.id.to_string(),
            change.topic,
            change.partition,
            change.committed,
        )
    }
}

impl Delivery {
    async fn run(mut self, coordinator: &Coordinator) {
        let is_durable = match self.written.take() {
            Some(written) => written.wait().await,
            None => true,
        };
        let cell = self.cell.clone();
        let mut inner = cell.lock();
        inner.undelivered -= 1;
        if let Some(changes) = self.changes.take()
            && is_durable
        {
            inner.offsets.on_durable(changes);
            coordinator.settle(&cell, &mut inner);
        }
        drop(inner);
        self.tell(is_durable);
    }

    /// Whoever no longer waits is not missed: its session keeps the time.
    fn tell(self, is_durable: bool) {
        for (parked, mut answer) in self.answers {
            if !is_durable {
                refuse(&mut answer);
            }
            match (parked, answer) {
                (Parked::Join(sender), Answer::Join(_, result)) => drop(sender.send(result)),
                (Parked::Sync(sender), Answer::Sync(_, result)) => drop(sender.send(result)),
                (Parked::Join(_), Answer::Sync(..)) | (Parked::Sync(_), Answer::Join(..)) => {
                    unreachable!("a ticket names one request")
                }
            }
        }
        if let Some(done) = self.done {
            let _ = done.send(if is_durable {
                Ok(())
            } else {
                Err(GroupError::NotAvailable)
            });
        }
    }

    fn fail(&mut self) {
        if let Some(done) = self.done.take() {
            let _ = done.send(Err(GroupError::NotAvailable));
        }
    }
}

/// Returns when it is told to stop, or when nobody is left to tell.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// How many bytes of members one group may have, where its record may be this long: half of it, for the longest names
/// beside them.
pub fn group_bytes_max(record_bytes_max: usize) -> usize {
    record_bytes_max / 2
}

/// One line for each rebalance that is complete, and for a group that has lost its last member.
fn log_change(cell: &Cell, group: &Group, before: (GroupState, i32)) {
    let after = (group.state(), group.generation());
    if after == before {
        return;
    }
    let (from, to) = (before.0.name(), after.0.name());
    match after.0 {
        GroupState::Stable => {
            let (members, protocol) = (group.member_count(), group.protocol().unwrap_or_default());
            tracing::info!(group = %cell.id, generation = after.1, members, protocol, "group rebalanced");
        }
        GroupState::Empty if before.0 != GroupState::Dead => {
            tracing::info!(group = %cell.id, generation = after.1, "group is empty: its last member has gone");
        }
        _ => tracing::debug!(group = %cell.id, from, to, generation = after.1, "group changed"),
    }
}

fn held(growth: Growth) -> Held {
    Held {
        members: growth.members as u64,
        member_bytes: growth.bytes as u64,
        ..Held::default()
    }
}

/// What the member that a join is about takes in its group's record, beside its id.
fn request_bytes(request: &JoinRequest) -> usize {
    let instance_id = request.instance_id.as_deref();
    member_bytes("", instance_id, &request.client, &request.protocols, &[])
}

/// Turns good news into a retry.
fn refuse(answer: &mut Answer) {
    match answer {
        Answer::Join(_, result @ Ok(_)) => {
            let member_id = result
                .as_ref()
                .map(|joined| joined.member_id.clone())
                .unwrap_or_default();
            *result = Err(JoinRefused {
                error: GroupError::NotAvailable,
                member_id,
            });
        }
        Answer::Sync(_, result @ Ok(_)) => *result = Err(GroupError::NotAvailable),
        Answer::Join(_, Err(_)) | Answer::Sync(_, Err(_)) => {}
    }
}

fn new_member_id(name: &str) -> String {
    let prefix = &name[..name.floor_char_boundary(ID_PREFIX_BYTES_MAX)];
    format!("{prefix}-{}", Uuid::new_v4())
}

pub(super) fn saturating_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
