//! A group as the coordination runtime drives it: the state machine, its committed offsets, its parked requests, and its
//! account with the bounds on all groups.
//! Callers: the runtime, and the coordinator in the steps that it asks for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use model::TopicName;
use tokio::sync::oneshot;

use super::effects::{Answer, Effects, GroupRecord};
use super::exchange::{GroupError, GroupState, JoinRefused, Joined, Moment, Synced, Ticket};
use super::generation::Generation;
use super::group::{Group, GroupSettings, Growth};
use super::ledger::{Account, Held, Ledger};
use super::offsets::{AppendNumber, GroupOffsets, OffsetChange};
use super::record::{
    PROMISE_VALUE_BYTES, Record, group_key_bytes, offset_key_bytes, offset_value_bytes,
    owner_value_bytes,
};
use crate::broker::coordination::{self, Machine};
use crate::broker::state_log::StateLogError;

/// What one step of a group stores and tells.
pub(super) type Step = coordination::Step<GroupMachine>;

/// Records that one step of a group's state machine makes at most, beside one of the whole group: promises, and the group
/// without members.
const SMALL_RECORDS_MAX: usize = 4;
/// What a group takes in memory, about, beside its id and its members.
const GROUP_BYTES: usize = 512;

/// One group in memory.
pub(super) struct GroupMachine {
    id: Arc<str>,
    pub(super) group: Group,
    pub(super) offsets: GroupOffsets,
    parked: HashMap<Ticket, Parked>,
    ledger: Arc<Ledger>,
    /// What of the ledger's sums is this group's.
    account: Account,
    /// Whether the log says whose it is.
    is_owner_stored: bool,
    /// State and generation as the log line about the last change had them.
    logged: (GroupState, Generation),
}

/// A request that waits for its group.
pub(super) enum Parked {
    Join(oneshot::Sender<Result<Joined, JoinRefused>>),
    Sync(oneshot::Sender<Result<Synced, GroupError>>),
}

/// An answer with whom it is for.
pub(super) enum GroupAnswer {
    Join(
        oneshot::Sender<Result<Joined, JoinRefused>>,
        Result<Joined, JoinRefused>,
    ),
    Sync(
        oneshot::Sender<Result<Synced, GroupError>>,
        Result<Synced, GroupError>,
    ),
    /// To whoever changes offsets, or removes.
    Done(
        oneshot::Sender<Result<(), GroupError>>,
        Result<(), GroupError>,
    ),
}

/// What a step decided.
#[derive(Default)]
pub(super) struct GroupChange {
    decided_a_generation: bool,
    stores_owner: bool,
    offsets: Vec<OffsetChange>,
}

impl GroupMachine {
    /// A group that is read back, or about to be let in, on this principal's account if there is one.
    pub(super) fn new(
        id: Arc<str>,
        owner: Option<Arc<str>>,
        settings: GroupSettings,
        ledger: Arc<Ledger>,
        now: Moment,
    ) -> GroupMachine {
        let group = Group::new(settings, now);
        GroupMachine {
            id,
            logged: (group.state(), group.generation()),
            group,
            offsets: GroupOffsets::default(),
            parked: HashMap::new(),
            ledger,
            account: Account::of(owner),
            is_owner_stored: false,
        }
    }

    /// Puts what it holds on its account, if the bounds on all groups allow it one more group.
    pub(super) fn let_in(mut self, now: Moment) -> Option<GroupMachine> {
        let held = self.held();
        self.grow(now, held).then_some(self)
    }

    /// Whose it is, as the log says. The group is read back, and on no account yet.
    pub(super) fn restore_owner(&mut self, owner: &str) {
        self.account = Account::of(Some(owner.into()));
        self.is_owner_stored = true;
    }

    /// Ends the reading back: what was let in stays, and nothing of it is news.
    pub(super) fn restored(&mut self) {
        self.logged = (self.group.state(), self.group.generation());
        self.settle_account();
    }

    /// Puts growth on the group's account, if the bounds on all groups allow it.
    pub(super) fn grow(&mut self, now: Moment, growth: Held) -> bool {
        self.ledger.grow(now.monotonic, &mut self.account, growth)
    }

    /// Corrects the group's account to what it holds.
    fn settle_account(&mut self) {
        let actual = self.held();
        self.ledger.settle(&mut self.account, actual);
    }

    /// What the group holds.
    fn held(&self) -> Held {
        if self.group.state() == GroupState::Dead {
            return Held::default();
        }
        let growth = self.group.held();
        let offsets = self.offsets.size();
        Held {
            groups: 1,
            members: growth.members as u64,
            member_bytes: (GROUP_BYTES + self.id.len() + growth.bytes) as u64,
            offsets: offsets.count,
            offset_bytes: offsets.bytes + offsets.count * self.id.len() as u64,
        }
    }

    // Steps.

    /// Parks a request under its ticket.
    pub(super) fn park(&mut self, ticket: Ticket, parked: Parked) {
        self.parked.insert(ticket, parked);
    }

    /// One step of the state machine.
    pub(super) fn act<R>(
        &mut self,
        step: &mut Step,
        act: impl FnOnce(&mut Group, &mut Effects) -> R,
    ) -> R {
        let mut effects = Effects::default();
        let result = act(&mut self.group, &mut effects);
        step.change.decided_a_generation |= !effects.records.is_empty();
        if !effects.records.is_empty() {
            self.store_owner(step);
        }
        let records = effects.records.into_iter();
        step.records.extend(records.map(|record| match record {
            GroupRecord::Stored(stored) => Record::Group(self.id.to_string(), Some(stored)),
            GroupRecord::Promised(generation) => {
                Record::Promise(self.id.to_string(), Some(generation))
            }
        }));
        let answers = effects.answers.into_iter();
        step.answers
            .extend(answers.filter_map(|answer| self.unpark(answer)));
        result
    }

    /// Stores whose the group is, with the first that is stored of it.
    fn store_owner(&mut self, step: &mut Step) {
        if self.is_owner_stored {
            return;
        }
        if let Some(owner) = self.account.owner() {
            let record = Record::Owner(self.id.to_string(), Some(owner.to_string()));
            step.records.push(record);
            (self.is_owner_stored, step.change.stores_owner) = (true, true);
        }
    }

    /// Stores changes of offsets, and tells `done` when they are durable.
    pub(super) fn change_offsets(
        &mut self,
        changes: Vec<OffsetChange>,
        done: oneshot::Sender<Result<(), GroupError>>,
        step: &mut Step,
    ) {
        let record = |change: &OffsetChange| {
            let OffsetChange {
                topic,
                partition,
                committed,
            } = change.clone();
            Record::Offset(self.id.to_string(), topic, partition, committed)
        };
        let records: Vec<Record> = changes.iter().map(record).collect();
        if changes.iter().any(|change| change.committed.is_some()) {
            self.store_owner(step);
        }
        step.records.extend(records);
        step.change.offsets.extend(changes);
        step.answers.push(GroupAnswer::Done(done, Ok(())));
    }

    /// Ends the group, for good once that is stored.
    pub(super) fn bury(&mut self, now: Moment, step: &mut Step) {
        self.group.bury(now);
        step.records.extend([
            Record::Group(self.id.to_string(), None),
            Record::Promise(self.id.to_string(), None),
        ]);
        if std::mem::take(&mut self.is_owner_stored) {
            let record = Record::Owner(self.id.to_string(), None);
            step.records.push(record);
        }
    }

    fn unpark(&mut self, answer: Answer) -> Option<GroupAnswer> {
        let (Answer::Join(ticket, _) | Answer::Sync(ticket, _)) = &answer;
        Some(match (self.parked.remove(ticket)?, answer) {
            (Parked::Join(sender), Answer::Join(_, result)) => GroupAnswer::Join(sender, result),
            (Parked::Sync(sender), Answer::Sync(_, result)) => GroupAnswer::Sync(sender, result),
            (Parked::Join(_), Answer::Sync(..)) | (Parked::Sync(_), Answer::Join(..)) => {
                unreachable!("a ticket names one request")
            }
        })
    }

    // The lengths of its records.

    /// Those that a step may come to which does not store the whole group.
    pub(super) fn small_records(&self, protocol_type_bytes: usize) -> Vec<usize> {
        let (_, empty) = self.group.record_bytes();
        let value = PROMISE_VALUE_BYTES.max(empty + protocol_type_bytes);
        let mut sizes = vec![group_key_bytes(&self.id) + value; SMALL_RECORDS_MAX];
        sizes.extend(self.owner_record());
        sizes
    }

    /// The one that says whose it is, if it is still to be stored.
    pub(super) fn owner_record(&self) -> Option<usize> {
        let owner = self.account.owner().filter(|_| !self.is_owner_stored)?;
        Some(group_key_bytes(&self.id) + owner_value_bytes(owner))
    }

    /// Records that end the group.
    pub(super) fn tombstones(&self) -> usize {
        2 + usize::from(self.is_owner_stored)
    }

    /// The group's own record, once it has grown by so much.
    pub(super) fn whole_record(&self, growth: usize) -> usize {
        let (whole, _) = self.group.record_bytes();
        group_key_bytes(&self.id) + whole + growth
    }

    /// One that deletes an offset of this topic.
    pub(super) fn deletion_record(&self, topic: &TopicName) -> usize {
        offset_key_bytes(&self.id, topic)
    }

    /// One that deletes the group, its promise, or its owner.
    pub(super) fn tombstone_record(&self) -> usize {
        group_key_bytes(&self.id)
    }

    /// One line for each rebalance that is complete, and for a group that has lost its last member.
    fn log_change(&mut self) {
        let after = (self.group.state(), self.group.generation());
        let before = std::mem::replace(&mut self.logged, after);
        if after == before {
            return;
        }
        let (from, to) = (before.0.name(), after.0.name());
        let id = &self.id;
        match after.0 {
            GroupState::Stable => {
                let members = self.group.member_count();
                let protocol = self.group.protocol().unwrap_or_default();
                tracing::info!(group = %id, generation = after.1.get(), members, protocol, "group rebalanced");
            }
            GroupState::Empty if before.0 != GroupState::Dead => {
                tracing::info!(group = %id, generation = after.1.get(), "group is empty: its last member has gone");
            }
            _ => {
                tracing::debug!(group = %id, from, to, generation = after.1.get(), "group changed")
            }
        }
    }
}

/// The length of the record of a committed offset with this text beside it.
pub(super) fn offset_record_bytes(group: &str, topic: &TopicName, metadata: &str) -> usize {
    offset_key_bytes(group, topic) + offset_value_bytes(metadata)
}

/// What a request would add, as the ledger counts it.
pub(super) fn growth_of(growth: Growth) -> Held {
    Held {
        members: growth.members as u64,
        member_bytes: growth.bytes as u64,
        ..Held::default()
    }
}

impl Machine for GroupMachine {
    const KIND: &'static str = "group";
    type Key = Arc<str>;
    type Name = str;
    type Record = Record;
    type Answer = GroupAnswer;
    type Change = GroupChange;
    type Mark = AppendNumber;

    fn on_appended(&mut self, change: GroupChange) -> Option<AppendNumber> {
        let offsets = change.offsets;
        (!offsets.is_empty()).then(|| self.offsets.on_appended(offsets))
    }

    fn on_durable(&mut self, mark: AppendNumber) {
        self.offsets.on_durable(mark);
    }

    fn withdraw(
        &mut self,
        change: GroupChange,
        now: Moment,
        _refused: &StateLogError,
        answers: &mut Vec<GroupAnswer>,
    ) {
        answers.iter_mut().for_each(GroupAnswer::refuse);
        if self.group.state() == GroupState::Dead {
            self.group.exhume(now);
        }
        if change.stores_owner {
            self.is_owner_stored = false;
        }
        if change.decided_a_generation {
            let mut effects = Effects::default();
            self.group.on_records_lost(now, &mut effects);
            let more = effects.answers.into_iter();
            answers.extend(more.filter_map(|answer| self.unpark(answer)));
        }
    }

    fn wake_at(&self) -> Option<Duration> {
        self.group.wake_at()
    }

    fn record_bytes_on_time(&self) -> Vec<usize> {
        self.small_records(0)
    }

    fn on_time(&mut self, now: Moment, step: &mut Step) {
        self.act(step, |group, effects| group.on_time(now, effects));
    }

    fn on_settled(&mut self) {
        self.group.assert_sound();
        self.settle_account();
        self.log_change();
    }

    fn is_gone(&self) -> bool {
        self.group.state() == GroupState::Dead
    }
}

impl GroupAnswer {
    /// Turns good news into a retry.
    fn refuse(&mut self) {
        let unavailable = GroupError::NotAvailable;
        match self {
            GroupAnswer::Join(_, result) => {
                if let Ok(joined) = result {
                    let member_id = std::mem::take(&mut joined.member_id);
                    *result = Err(JoinRefused {
                        error: unavailable,
                        member_id,
                    });
                }
            }
            GroupAnswer::Sync(_, result) => {
                if result.is_ok() {
                    *result = Err(unavailable);
                }
            }
            GroupAnswer::Done(_, result) => *result = Err(unavailable),
        }
    }
}

impl coordination::Answer for GroupAnswer {
    /// Whoever no longer waits is not missed: its session keeps the time.
    fn tell(mut self, stored: Result<(), &StateLogError>) {
        if stored.is_err() {
            self.refuse();
        }
        match self {
            GroupAnswer::Join(sender, result) => drop(sender.send(result)),
            GroupAnswer::Sync(sender, result) => drop(sender.send(result)),
            GroupAnswer::Done(sender, result) => drop(sender.send(result)),
        }
    }
}
