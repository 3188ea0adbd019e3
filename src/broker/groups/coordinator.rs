//! Drives every group: parks and answers requests, keeps the time, and stores what must survive.
//! Callers: the fronts, through `Broker::groups`; `Broker` for topics that go.
//! Invariants: a group's steps and their appends happen under its lock, so the log has them in order. What a request is
//! told leaves only when all that its group had appended by then is durable, and so does a committed offset for fetches.
//! No lock is held over an await.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use model::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicName};
use storage::io::Clock;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::exchange::{
    Answer, Effects, GroupDescription, GroupError, GroupRecord, GroupState, JoinRefused,
    JoinRequest, Joined, Leaver, MemberClaim, Moment, SyncRequest, Synced, Ticket,
};
use super::group::{Group, GroupSettings};
use super::offsets::{AppendNumber, CommittedOffset, GroupOffsets, OffsetChange, is_expired};
use super::record::{Record, RecordError};
use super::store::{OffsetsLog, Room, Written};
use super::timers::Timers;
use crate::broker::config::GroupConfig;

/// Answers that wait for their sync. When so many do, requests wait for a place before they take effect.
const DELIVERIES_MAX: usize = 4096;
/// What a step's records take in the log, about, beside what the request brings.
const STEP_BYTES: usize = 1024;
/// A new member id begins with at most this much of the client's own name.
const ID_PREFIX_BYTES_MAX: usize = 255;
/// How often the log is asked whether it is worth compacting.
const COMPACTION_CHECK: Duration = Duration::from_secs(10);

/// All consumer groups. Cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    shared: Arc<Shared>,
}

/// The coordinator's own work: it must be run for answers to leave and for time to pass.
pub struct CoordinatorTask {
    coordinator: Coordinator,
    deliveries: mpsc::Receiver<Delivery>,
}

struct Shared {
    config: GroupConfig,
    log: OffsetsLog,
    clock: Arc<dyn Clock>,
    groups: Mutex<HashMap<Arc<str>, Arc<Cell>>>,
    timers: Timers,
    deliveries: mpsc::Sender<Delivery>,
    tickets: AtomicU64,
}

/// One group's place in memory.
struct Cell {
    id: Arc<str>,
    inner: Mutex<Inner>,
}

struct Inner {
    group: Group,
    offsets: GroupOffsets,
    parked: HashMap<Ticket, Parked>,
    /// Deliveries of this group that are queued.
    undelivered: usize,
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
struct Step {
    effects: Effects,
    changes: Vec<OffsetChange>,
    /// Appended after the group's own records and the changes.
    tombstones: Vec<Record>,
    done: Option<oneshot::Sender<Result<(), GroupError>>>,
}

/// An offset that a client wants to be remembered.
#[derive(Clone, Debug)]
pub struct OffsetCommit {
    /// The topic.
    pub topic: TopicName,
    /// The topic as it is now.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionId,
    /// The next record to read; None if the client names no place.
    pub offset: Option<Offset>,
    /// The leader epoch of the last record that was read.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The client's own note.
    pub metadata: String,
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
        log: OffsetsLog,
        clock: Arc<dyn Clock>,
    ) -> Result<(Coordinator, CoordinatorTask), RecordError> {
        let (deliveries, receiver) = mpsc::channel(DELIVERIES_MAX);
        let records = log.entries()?;
        let shared = Shared {
            config,
            log,
            clock,
            groups: Mutex::new(HashMap::new()),
            timers: Timers::default(),
            deliveries,
            tickets: AtomicU64::new(0),
        };
        let coordinator = Coordinator {
            shared: Arc::new(shared),
        };
        for record in records {
            coordinator.restore(record);
        }
        for cell in coordinator.cells() {
            let mut inner = cell.lock();
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
        let start = self.start(STEP_BYTES).await.map_err(refuse)?;
        let cell = if member_id.is_empty() {
            Some(self.cell_or_new(group))
        } else {
            self.cell(group)
        };
        let cell = cell.ok_or_else(|| refuse(GroupError::UnknownMember))?;
        let new_member_id = new_member_id(
            request
                .instance_id
                .as_deref()
                .unwrap_or(&request.client.client_id),
        );
        let (sender, answer) = oneshot::channel();
        let ticket = self.next_ticket();
        self.step(&cell, start, |inner, now, step| {
            inner.parked.insert(ticket, Parked::Join(sender));
            inner
                .group
                .join(now, request, new_member_id, ticket, &mut step.effects);
        });
        answer
            .await
            .unwrap_or_else(|_| Err(refuse(GroupError::NotAvailable)))
    }

    /// Fetches the member's assignment, or brings everyone's; returns when it is there.
    pub async fn sync(&self, group: &str, request: SyncRequest) -> Result<Synced, GroupError> {
        if group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let bytes: usize = request
            .assignments
            .iter()
            .map(|(member_id, assignment)| member_id.len() + assignment.len())
            .sum();
        let start = self.start(bytes + STEP_BYTES).await?;
        let cell = self.cell(group).ok_or(GroupError::UnknownMember)?;
        let (sender, answer) = oneshot::channel();
        let ticket = self.next_ticket();
        self.step(&cell, start, |inner, now, step| {
            inner.parked.insert(ticket, Parked::Sync(sender));
            inner.group.sync(now, request, ticket, &mut step.effects);
        });
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
        let start = self.start(STEP_BYTES).await?;
        let Some(cell) = self.cell(group) else {
            return Ok(leavers
                .iter()
                .map(|_| Err(GroupError::UnknownMember))
                .collect());
        };
        self.step(&cell, start, |inner, now, step| {
            inner.group.leave(now, &leavers, &mut step.effects)
        })
    }

    /// Stores offsets; one result for each, in order, when they are durable. `retention` overrides the broker's.
    /// `NotFound` if the claim names a generation of a group that does not exist.
    pub async fn commit(
        &self,
        group: &str,
        claim: &MemberClaim,
        commits: Vec<OffsetCommit>,
        retention: Option<Duration>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let bytes: usize = commits
            .iter()
            .map(|commit| group.len() + commit.topic.as_str().len() + commit.metadata.len() + 128)
            .sum();
        let start = self.start(bytes).await?;
        let cell = if claim.generation.is_none() {
            Some(self.cell_or_new(group))
        } else {
            self.cell(group)
        };
        let cell = cell.ok_or(GroupError::NotFound)?;
        let is_too_large = |commit: &OffsetCommit| {
            commit.metadata.len() > self.shared.config.offset_metadata_bytes_max
        };
        let results = commits
            .iter()
            .map(|commit| {
                if is_too_large(commit) {
                    Err(GroupError::MetadataTooLarge)
                } else {
                    Ok(())
                }
            })
            .collect();
        let (sender, done) = oneshot::channel();
        self.step(&cell, start, |inner, now, step| {
            inner.group.authorize_commit(now, claim)?;
            let expires_at =
                retention.map(|retention| now.wall.plus_millis(saturating_millis(retention)));
            let accepted = commits.into_iter().filter(|commit| !is_too_large(commit));
            step.changes = accepted
                .map(|commit| change(commit, now.wall, expires_at))
                .collect();
            step.done = Some(sender);
            Ok(())
        })?;
        done.await.unwrap_or(Err(GroupError::NotAvailable))?;
        Ok(results)
    }

    /// The durable offsets of these partitions, in order.
    pub fn fetch(
        &self,
        group: &str,
        wanted: &[(TopicName, PartitionId)],
    ) -> Vec<Option<CommittedOffset>> {
        let Some(cell) = self.cell(group) else {
            return vec![None; wanted.len()];
        };
        let inner = cell.lock();
        wanted
            .iter()
            .map(|(topic, partition)| inner.offsets.get(topic, *partition).cloned())
            .collect()
    }

    /// All durable offsets of a group, by topic and partition.
    pub fn fetch_all(&self, group: &str) -> Vec<(TopicName, PartitionId, CommittedOffset)> {
        let Some(cell) = self.cell(group) else {
            return Vec::new();
        };
        let inner = cell.lock();
        let of_topic = |(topic, partitions): (
            &TopicName,
            &std::collections::BTreeMap<PartitionId, CommittedOffset>,
        )| {
            partitions
                .iter()
                .map(|(partition, committed)| (topic.clone(), *partition, committed.clone()))
                .collect::<Vec<_>>()
        };
        inner.offsets.all().flat_map(of_topic).collect()
    }

    /// Durable offsets of a group in the order of topic and partition: at most `count`, beginning behind `after`.
    pub fn fetch_after(
        &self,
        group: &str,
        after: Option<(TopicName, PartitionId)>,
        count: usize,
    ) -> Vec<(TopicName, PartitionId, CommittedOffset)> {
        let Some(cell) = self.cell(group) else {
            return Vec::new();
        };
        let inner = cell.lock();
        let found = inner.offsets.after(after.as_ref()).take(count);
        found
            .map(|(topic, partition, committed)| (topic.clone(), partition, committed.clone()))
            .collect()
    }

    /// Deletes single offsets; one result for each, in order, when that is durable.
    pub async fn delete_offsets(
        &self,
        group: &str,
        wanted: &[(TopicName, PartitionId)],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let start = self.start(wanted.len() * 128).await?;
        let cell = self.cell(group).ok_or(GroupError::NotFound)?;
        let (sender, done) = oneshot::channel();
        let results = self.step(&cell, start, |inner, _, step| {
            inner.group.authorize_offset_delete()?;
            let is_read = |topic: &TopicName| inner.group.is_subscribed_to(topic.as_str());
            let named: std::collections::HashSet<_> = wanted
                .iter()
                .map(|(topic, partition)| (topic, *partition))
                .collect();
            step.changes = inner.offsets.deletions(|topic, partition, _| {
                named.contains(&(topic, partition)) && !is_read(topic)
            });
            step.done = Some(sender);
            let result = |topic| {
                if is_read(topic) {
                    Err(GroupError::SubscribedToTopic)
                } else {
                    Ok(())
                }
            };
            Ok(wanted.iter().map(|(topic, _)| result(topic)).collect())
        })?;
        done.await.unwrap_or(Err(GroupError::NotAvailable))?;
        Ok(results)
    }

    /// Deletes an empty group with its offsets; returns when that is durable.
    pub async fn delete(&self, group: &str) -> Result<(), GroupError> {
        let start = self.start(STEP_BYTES).await?;
        let cell = self.cell(group).ok_or(GroupError::NotFound)?;
        let (sender, done) = oneshot::channel();
        self.step(&cell, start, |inner, now, step| {
            inner.group.authorize_delete()?;
            bury(&cell, inner, now, step);
            step.done = Some(sender);
            Ok(())
        })?;
        self.forget_if_dead(&cell);
        done.await.unwrap_or(Err(GroupError::NotAvailable))
    }

    /// Deletes every group's offsets of this topic. Called when the topic's own deletion is durable.
    pub async fn forget_topic(&self, topic: TopicId) -> Result<(), GroupError> {
        self.delete_offsets_where(|_, committed| committed.topic_id == topic)
            .await
    }

    /// Deletes the offsets of all topics that are not the current ones. Called at start: the broker may have stopped
    /// between a topic's deletion and its offsets'.
    pub async fn forget_other_topics(
        &self,
        current: impl Fn(&TopicName) -> Option<TopicId>,
    ) -> Result<(), GroupError> {
        self.delete_offsets_where(|topic, committed| current(topic) != Some(committed.topic_id))
            .await
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

    /// Deletes what retention no longer keeps, and groups of which nothing is left; returns when that is durable.
    pub async fn expire_offsets(&self) -> Result<(), GroupError> {
        let retention_ms = saturating_millis(self.shared.config.offsets_retention);
        self.sweep(|cell, inner, now, step| {
            let Inner { group, offsets, .. } = inner;
            let expiry = group.offsets_expiry();
            let is_gone = |topic: &TopicName, committed: &CommittedOffset| {
                !group.is_subscribed_to(topic.as_str())
                    && is_expired(committed, expiry, retention_ms, now.wall)
            };
            if group.is_abandoned()
                && offsets
                    .deletions(|topic, _, committed| !is_gone(topic, committed))
                    .is_empty()
            {
                bury(cell, inner, now, step);
            } else {
                step.changes = offsets.deletions(|topic, _, committed| is_gone(topic, committed));
            }
        })
        .await
    }

    /// Applies every deadline that has passed.
    pub async fn run_due(&self) -> Result<(), GroupError> {
        while let Some((at, id)) = self.shared.timers.take_due(self.now().monotonic) {
            let Some(cell) = self.cell(&id) else { continue };
            let start = self.start(STEP_BYTES).await?;
            self.step(&cell, start, |inner, now, step| {
                if inner.scheduled == Some(at) {
                    inner.scheduled = None;
                    inner.group.on_time(now, &mut step.effects);
                }
            });
        }
        Ok(())
    }

    // One step of one group.

    async fn start(&self, bytes: usize) -> Result<Start, GroupError> {
        let place = self
            .shared
            .deliveries
            .clone()
            .reserve_owned()
            .await
            .map_err(|_| GroupError::NotAvailable)?;
        let room = self.shared.log.reserve(bytes).await;
        Ok(Start { room, place })
    }

    fn step<R>(
        &self,
        cell: &Arc<Cell>,
        start: Start,
        act: impl FnOnce(&mut Inner, Moment, &mut Step) -> R,
    ) -> R {
        let mut inner = cell.lock();
        let mut step = Step::default();
        let before = (inner.group.state(), inner.group.generation());
        let result = act(&mut inner, self.now(), &mut step);
        self.store_and_tell(cell, &mut inner, start, step);
        self.schedule(cell, &mut inner);
        let after = (inner.group.state(), inner.group.generation());
        if after != before {
            let (from, to) = (before.0.name(), after.0.name());
            tracing::info!(group = %cell.id, from, to, generation = after.1, "group changed");
        }
        result
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

    async fn delete_offsets_where(
        &self,
        gone: impl Fn(&TopicName, &CommittedOffset) -> bool,
    ) -> Result<(), GroupError> {
        self.sweep(|_, inner, _, step| {
            step.changes = inner
                .offsets
                .deletions(|topic, _, committed| gone(topic, committed))
        })
        .await
    }

    /// One step in every group; returns when all are durable.
    async fn sweep(
        &self,
        act: impl Fn(&Cell, &mut Inner, Moment, &mut Step),
    ) -> Result<(), GroupError> {
        let mut waits = Vec::new();
        for cell in self.cells() {
            let start = self.start(STEP_BYTES).await?;
            let (sender, done) = oneshot::channel();
            self.step(&cell, start, |inner, now, step| {
                act(&cell, inner, now, step);
                step.done = Some(sender);
            });
            self.forget_if_dead(&cell);
            waits.push(done);
        }
        for done in waits {
            done.await.unwrap_or(Err(GroupError::NotAvailable))?;
        }
        Ok(())
    }

    // Small facts.

    fn allows(&self, session_timeout: Duration) -> bool {
        (self.shared.config.session_timeout_min..=self.shared.config.session_timeout_max)
            .contains(&session_timeout)
    }

    fn settings(&self) -> GroupSettings {
        GroupSettings {
            initial_rebalance_delay: self.shared.config.initial_rebalance_delay,
            size_max: self.shared.config.size_max,
        }
    }

    fn now(&self) -> Moment {
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

    fn cells(&self) -> Vec<Arc<Cell>> {
        self.lock_groups().values().cloned().collect()
    }

    fn cell(&self, group: &str) -> Option<Arc<Cell>> {
        self.lock_groups().get(group).cloned()
    }

    fn cell_or_new(&self, group: &str) -> Arc<Cell> {
        let mut groups = self.lock_groups();
        if let Some(cell) = groups.get(group) {
            return cell.clone();
        }
        let id: Arc<str> = group.into();
        let cell = Arc::new(Cell::new(
            id.clone(),
            Group::new(self.settings(), self.now()),
        ));
        groups.insert(id, cell.clone());
        cell
    }

    fn forget_if_dead(&self, cell: &Arc<Cell>) {
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
                let cell = self.cell_or_new(&id);
                cell.lock().group = Group::restore(self.settings(), stored, self.now());
            }
            Record::Promise(id, Some(generation)) => self
                .cell_or_new(&id)
                .lock()
                .group
                .restore_promise(generation),
            Record::Offset(id, topic, partition, committed) => {
                self.cell_or_new(&id).lock().offsets.apply(OffsetChange {
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
                        Some(delivery) => delivery.run().await,
                        None => break,
                    },
                    () = stopped(&mut stop) => {
                        deliveries.close();
                        while let Some(delivery) = deliveries.recv().await {
                            delivery.run().await;
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
            parked: HashMap::new(),
            undelivered: 0,
            scheduled: None,
        };
        Cell {
            id,
            inner: Mutex::new(inner),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("a step that panicked left the group in an unknown state")
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
    async fn run(mut self) {
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

/// Marks the group dead and deletes all that is stored of it.
fn bury(cell: &Cell, inner: &mut Inner, now: Moment, step: &mut Step) {
    inner.group.bury(now);
    step.changes = inner.offsets.deletions(|_, _, _| true);
    step.tombstones = vec![
        Record::Group(cell.id.to_string(), None),
        Record::Promise(cell.id.to_string(), None),
    ];
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

fn change(
    commit: OffsetCommit,
    committed_at: Timestamp,
    expires_at: Option<Timestamp>,
) -> OffsetChange {
    let OffsetCommit {
        topic,
        topic_id,
        partition,
        offset,
        leader_epoch,
        metadata,
    } = commit;
    OffsetChange {
        topic,
        partition,
        committed: Some(CommittedOffset {
            topic_id,
            offset,
            leader_epoch,
            metadata,
            committed_at,
            expires_at,
        }),
    }
}

fn new_member_id(name: &str) -> String {
    let prefix = &name[..name.floor_char_boundary(ID_PREFIX_BYTES_MAX)];
    format!("{prefix}-{}", Uuid::new_v4())
}

fn saturating_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
