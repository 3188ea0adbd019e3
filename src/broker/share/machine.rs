//! A group that shares records as the coordination runtime drives it: its members, and its partitions.
//! Callers: the runtime, and the coordinator in the steps that it asks for.
//! Invariants: what a step changed of a partition is stored by it, or taken back. Nobody is told of a settlement before it is durable; records
//! are given out when that they are is appended.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use model::{Offset, PartitionId, Timestamp, TopicId};
use tokio::sync::{Notify, oneshot, watch};

use super::ShareError;
use super::members::{Beat, Beaten, Members, Topic};
use super::partition::{
    Acquired, Ask, Keep, Limits, NotHeld, SharePartition, Tally, Undo, Verdict,
};
use super::record::{
    Incarnation, Place, ShareRecord, group_record_bytes, owner_record_bytes, run_record_bytes,
};
use super::runs::Holder;
use super::settings::{GroupSettings, QUEUES};
use super::totals::Totals;
use crate::broker::access::Owner;
use crate::broker::coordination::{self, Machine, Moment};
use crate::broker::groups::{Account, Held, Ledger};
use crate::broker::state_log::StateLogError;

/// What one step of a group stores and tells.
pub(super) type Step = coordination::Step<ShareMachine>;

/// After a step of its own that could not be stored a group tries again so much later.
const RETRY: Duration = Duration::from_secs(1);
/// What a group takes in memory, about, beside its id, its members and its settings; a name that has held records; a partition
/// without runs; a run.
const GROUP_BYTES: usize = 512;
const HOLDER_BYTES: usize = 96;
const PARTITION_BYTES: usize = 256;
const RUN_BYTES: usize = 80;

/// What all groups have in common. Cheap to clone.
#[derive(Clone)]
pub(super) struct OfAll {
    pub(super) totals: Arc<Totals>,
    /// Told when records wait for their dead letters.
    pub(super) dead: Arc<Notify>,
    pub(super) ledger: Arc<Ledger>,
}

/// On whose accounts things are put that come into being: nobody's where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Makers<'a> {
    /// Who makes the group, if it is not there.
    pub group: Option<&'a str>,
    /// Who has made the topic.
    pub topic: Option<&'a Arc<str>>,
}

/// Whom a step answers when it is durable.
pub(super) struct ShareAnswer {
    pub(super) to: oneshot::Sender<Result<Tally, ShareError>>,
    pub(super) result: Result<Tally, ShareError>,
}

/// How long records are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// As long as the group's settings say.
    Locked,
    /// Until they are settled or released.
    UntilSettled,
}

/// As what records go back that somebody held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Released {
    /// They were delivered in vain.
    Delivered,
    /// As if they had not been delivered.
    Unseen,
}

/// Whom records are given to.
type GivenTo = oneshot::Sender<Result<Vec<Acquired>, ShareError>>;

/// What a step decided, and whom it tells as soon as it is appended.
#[derive(Default)]
pub(super) struct ShareChange {
    undo: Vec<Undoing>,
    given: Option<(GivenTo, Vec<Acquired>)>,
    is_by_time: bool,
    /// Whether there are records without their dead letters.
    has_dead: bool,
    /// What it came to.
    tally: Tally,
}

enum Undoing {
    Step(Place, Undo),
    Begun(Place),
    Ended(Place, SharedPartition),
    Created,
    Deleted(Timestamp),
    Configured(Vec<(String, String)>, GroupSettings),
    /// Whether the log said before whose the group is.
    Owner(bool),
}

/// A partition, and since which beginning.
#[derive(Debug)]
pub(super) struct SharedPartition {
    pub(super) incarnation: Incarnation,
    pub(super) runs: SharePartition,
    /// What of the ledger's sums is its own.
    account: Account,
}

/// One group in memory.
pub(super) struct ShareMachine {
    id: Arc<str>,
    /// When it came into being; None before that is stored, and when it is gone.
    pub(super) created: Option<Timestamp>,
    pub(super) members: Members,
    pub(super) values: Vec<(String, String)>,
    pub(super) settings: GroupSettings,
    pub(super) partitions: BTreeMap<Place, SharedPartition>,
    holders: HashMap<Arc<str>, Holder>,
    next_holder: u64,
    /// Told when records became available.
    changed: watch::Sender<()>,
    /// No deadline of a partition is before it.
    wake_at: Option<Duration>,
    /// Before it nothing that is due is done.
    retry_at: Duration,
    all: OfAll,
    /// What of the ledger's sums is the group's, without its partitions.
    account: Account,
    /// Whether the log says whose it is.
    is_owner_stored: bool,
}

impl ShareMachine {
    /// A group that is read back, or about to be let in, on this principal's account if there is one.
    pub(super) fn new(id: Arc<str>, owner: Option<&str>, all: OfAll) -> ShareMachine {
        let settings = GroupSettings::defaults(&id);
        // All queues are one group, and each queue is on the account that its topic is on.
        let owner = owner.filter(|_| *id != *QUEUES);
        ShareMachine {
            id,
            created: None,
            members: Members::default(),
            values: Vec::new(),
            settings,
            partitions: BTreeMap::new(),
            holders: HashMap::new(),
            next_holder: 0,
            changed: watch::Sender::new(()),
            wake_at: None,
            retry_at: Duration::ZERO,
            all,
            account: Account::of(owner.map(Owner::from)),
            is_owner_stored: false,
        }
    }

    // Its account.

    /// Puts what it takes on its account, if the bounds allow it one more group.
    pub(super) fn let_in(mut self, now: Moment) -> Option<ShareMachine> {
        let growth = self.taken();
        self.grow(now, growth).then_some(self)
    }

    fn grow(&mut self, now: Moment, growth: Held) -> bool {
        self.all
            .ledger
            .grow(now.monotonic, &mut self.account, growth)
    }

    /// What it takes without its partitions, as long as it is there.
    fn taken(&self) -> Held {
        let settings = self.values.iter();
        let settings: usize = settings.map(|(name, value)| name.len() + value.len()).sum();
        let bytes = GROUP_BYTES
            + self.id.len()
            + settings
            + HOLDER_BYTES * self.holders.len()
            + self.members.bytes();
        Held {
            groups: 1,
            members: self.members.count() as u64,
            member_bytes: bytes as u64,
            ..Held::default()
        }
    }

    /// Corrects its account to what it takes.
    pub(super) fn settle_account(&mut self) {
        let taken = match self.is_gone() {
            true => Held::default(),
            false => self.taken(),
        };
        self.all.ledger.settle(&mut self.account, taken);
    }

    /// What a partition takes.
    fn taken_by(&self, runs: usize) -> Held {
        Held {
            offsets: 1,
            offset_bytes: (PARTITION_BYTES + self.id.len() + RUN_BYTES * runs) as u64,
            ..Held::default()
        }
    }

    /// Corrects a partition's account to what it takes.
    fn settle_partition(&mut self, place: Place) {
        let Some(partition) = self.partitions.get(&place) else {
            return;
        };
        let taken = self.taken_by(partition.runs.run_count());
        let partition = self.partitions.get_mut(&place).expect("it was just there");
        self.all.ledger.settle(&mut partition.account, taken);
    }

    /// Takes a partition out, and off its account.
    fn take_out(&mut self, place: Place) -> Option<SharedPartition> {
        let mut partition = self.partitions.remove(&place)?;
        let ledger = &self.all.ledger;
        ledger.settle(&mut partition.account, Held::default());
        Some(partition)
    }

    /// What bounds the deliveries of a partition now: where there is no room for more runs nothing is given out that would make some.
    pub(super) fn limits_of(&self, partition: &SharedPartition, now: Duration) -> Limits {
        let limits = self.settings.limits;
        let run = Held {
            offset_bytes: RUN_BYTES as u64,
            ..Held::default()
        };
        match self.all.ledger.has_room(now, &partition.account, run) {
            true => limits,
            false => Limits {
                runs_max: 0,
                ..limits
            },
        }
    }

    /// Whose it is, as the log says. The group is read back, and on no account yet.
    pub(super) fn restore_owner(&mut self, owner: &str) {
        self.account = Account::of(Some(owner.into()));
        self.is_owner_stored = true;
    }

    /// A partition that is read back, which may be on the account of who made its topic.
    pub(super) fn restore_partition(
        &mut self,
        place: Place,
        (incarnation, runs): (Incarnation, SharePartition),
        of_topic: Option<&Owner>,
    ) {
        let account = Account::of(self.owner_of(of_topic).cloned());
        let shared = SharedPartition {
            incarnation,
            runs,
            account,
        };
        self.partitions.insert(place, shared);
    }

    /// On whose account a partition is.
    fn owner_of<'a>(&'a self, of_topic: Option<&'a Owner>) -> Option<&'a Owner> {
        match &*self.id == QUEUES {
            true => of_topic,
            false => self.account.owner(),
        }
    }

    /// Ends the reading back: what an earlier start let in stays.
    pub(super) fn restored(&mut self) {
        self.settle_account();
        let places: Vec<Place> = self.partitions.keys().copied().collect();
        places.into_iter().for_each(|it| self.settle_partition(it));
    }

    /// Stores whose the group is, with the first that is stored of it.
    fn store_owner(&mut self, step: &mut Step) {
        let Some(owner) = self.account.owner().filter(|_| !self.is_owner_stored) else {
            return;
        };
        let record = ShareRecord::Owner(self.id.to_string(), Some(owner.to_string()));
        step.records.push(record);
        step.change.undo.push(Undoing::Owner(false));
        self.is_owner_stored = true;
    }

    /// Stores that the group is nobody's, with the last that ends of it.
    pub(super) fn forget_owner(&mut self, step: &mut Step) {
        let is_left = self.created.is_some() || !self.values.is_empty();
        if is_left || !std::mem::take(&mut self.is_owner_stored) {
            return;
        }
        step.records
            .push(ShareRecord::Owner(self.id.to_string(), None));
        step.change.undo.push(Undoing::Owner(true));
    }

    /// Takes back what a step has done that is refused after all.
    pub(super) fn abandon(&mut self, step: &mut Step) {
        step.records.clear();
        while let Some(undoing) = step.change.undo.pop() {
            self.take_back(undoing);
        }
    }

    /// Takes a sign of life of a member, by the topics as they are.
    pub(super) fn beat(
        &mut self,
        beat: Beat,
        now: Moment,
        topic: impl Fn(&str) -> Option<Topic>,
    ) -> Result<Beaten, ShareError> {
        let (members, bytes) = self.members.growth(&beat);
        let growth = Held {
            members: members as u64,
            member_bytes: bytes as u64,
            ..Held::default()
        };
        if !self.grow(now, growth) {
            return Err(ShareError::MaxSizeReached);
        }
        let GroupSettings {
            heartbeat, session, ..
        } = self.settings;
        let times = (now.monotonic, heartbeat, session);
        let beaten = self.members.beat(beat, times, topic);
        self.settle_account();
        beaten
    }

    /// Whether there is such a group.
    pub(super) fn is_there(&self) -> bool {
        self.created.is_some()
    }

    /// Tells of records that become available.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn holder(&mut self, member: &str) -> Holder {
        if let Some(holder) = self.holders.get(member) {
            return *holder;
        }
        self.next_holder += 1;
        let holder = Holder(self.next_holder);
        self.holders.insert(member.into(), holder);
        holder
    }

    // Lengths of records.

    fn keeps(&self, count: usize) -> Vec<usize> {
        vec![run_record_bytes(&self.id); count]
    }

    /// Those of a beginning or an end of the group with all its partitions.
    pub(super) fn group_records(&self) -> Vec<usize> {
        let mut sizes = self.keeps(self.partitions.len());
        sizes.extend([group_record_bytes(&self.id); 2]);
        sizes.extend(self.owner_record());
        sizes
    }

    /// The one that says whose it is, or that it is nobody's.
    pub(super) fn owner_record(&self) -> Option<usize> {
        let owner = self.account.owner()?;
        Some(owner_record_bytes(&self.id, owner))
    }

    pub(super) fn partition_records(&self, count: usize) -> Vec<usize> {
        self.keeps(count)
    }

    fn ask(&self, (member, hold): (&str, Hold), wanted: &Wanted, now: Duration) -> Ask {
        // Who holds nothing yet is nobody's double.
        let holder = self.holders.get(member).copied().unwrap_or(Holder(0));
        Ask {
            within: wanted.within.clone(),
            absent: wanted.absent.clone(),
            count_max: wanted.count_max,
            ends: wanted.ends.clone(),
            holder,
            until: match hold {
                Hold::Locked => Some(now + self.settings.lock),
                Hold::UntilSettled => None,
            },
        }
    }

    pub(super) fn acquire_records(&self, member: &str, wanted: &Wanted, hold: Hold) -> Vec<usize> {
        let Some(partition) = self.partitions.get(&wanted.place) else {
            return Vec::new();
        };
        let ask = self.ask((member, hold), wanted, Duration::ZERO);
        // What others hold may change until then, and with it the room: it is at most as much as without a bound.
        let limits = wanted.limits(self.settings.limits);
        let touched = partition.runs.touched_by(&ask, &limits);
        let trims = partition.runs.trims_max(wanted.log_start);
        self.keeps(partition.runs.keeps_max(&touched) + trims)
    }

    pub(super) fn settle_records(&self, place: Place, ranges: &[Range<Offset>]) -> Vec<usize> {
        let partition = self.partitions.get(&place);
        self.keeps(partition.map_or(0, |partition| partition.runs.keeps_max(ranges)))
    }

    pub(super) fn discard_records(&self, place: Place, range: Range<Offset>) -> Vec<usize> {
        let keeps = |partition: &SharedPartition| {
            let available = partition.runs.available(range);
            partition.runs.keeps_max(&available)
        };
        self.keeps(self.partitions.get(&place).map_or(0, keeps))
    }

    pub(super) fn release_records(&self, place: Place, member: &str) -> Vec<usize> {
        let Some(holder) = self.holders.get(member) else {
            return Vec::new();
        };
        let held = |partition: &SharedPartition| {
            let held = partition.runs.held_ranges(|it, _| it == *holder);
            partition.runs.keeps_max(&held)
        };
        self.keeps(self.partitions.get(&place).map_or(0, held))
    }

    // Steps.

    /// The group comes into being, if it is not there.
    pub(super) fn create(&mut self, now: Moment, step: &mut Step) {
        if self.created.is_none() {
            self.store_owner(step);
            self.created = Some(now.wall);
            let record = ShareRecord::Group(self.id.to_string(), self.created);
            step.records.push(record);
            step.change.undo.push(Undoing::Created);
        }
    }

    /// Begins a partition, if it has not begun; anew, where it has and `again` says so.
    pub(super) fn begin(
        &mut self,
        (place, of_topic): (Place, Option<&Owner>),
        (incarnation, start): (Incarnation, Offset),
        again: bool,
        now: Moment,
        step: &mut Step,
    ) -> Result<(), ShareError> {
        let has_begun = self.partitions.contains_key(&place);
        if has_begun && !again {
            return Ok(());
        }
        let mut account = Account::of(self.owner_of(of_topic).cloned());
        // One that begins anew takes no more than before.
        let ledger = &self.all.ledger;
        if !has_begun && !ledger.grow(now.monotonic, &mut account, self.taken_by(0)) {
            return Err(ShareError::OffsetsMaxReached);
        }
        let before = self.take_out(place);
        let begun = SharedPartition {
            incarnation,
            runs: SharePartition::new(start),
            account,
        };
        self.partitions.insert(place, begun);
        self.settle_partition(place);
        let start = Some((incarnation, start));
        step.records
            .push(ShareRecord::Start(self.id.to_string(), place, start));
        step.change.undo.push(match before {
            Some(before) => Undoing::Ended(place, before),
            None => Undoing::Begun(place),
        });
        self.changed.send_replace(());
        Ok(())
    }

    /// Ends the partitions that are meant.
    pub(super) fn end_where(&mut self, is_meant: impl Fn(&Place) -> bool, step: &mut Step) {
        let places: Vec<Place> = self.partitions.keys().copied().filter(is_meant).collect();
        for place in places {
            if let Some(before) = self.take_out(place) {
                let record = ShareRecord::Start(self.id.to_string(), place, None);
                step.records.push(record);
                step.change.undo.push(Undoing::Ended(place, before));
            }
        }
    }

    /// The group ends, with all that it has.
    pub(super) fn delete(&mut self, step: &mut Step) {
        self.end_where(|_| true, step);
        if let Some(created) = self.created.take() {
            step.records
                .push(ShareRecord::Group(self.id.to_string(), None));
            step.change.undo.push(Undoing::Deleted(created));
        }
        self.forget_owner(step);
    }

    /// Settings are set.
    pub(super) fn configure(
        &mut self,
        values: Vec<(String, String)>,
        settings: GroupSettings,
        step: &mut Step,
    ) {
        let stored = (!values.is_empty()).then(|| values.clone());
        if stored.is_some() {
            self.store_owner(step);
        }
        step.records
            .push(ShareRecord::Settings(self.id.to_string(), stored));
        let before = std::mem::replace(&mut self.values, values);
        let in_force = std::mem::replace(&mut self.settings, settings);
        step.change.undo.push(Undoing::Configured(before, in_force));
        self.forget_owner(step);
        self.changed.send_replace(());
    }

    /// Gives records to a member, and tells it as soon as that is appended.
    pub(super) fn acquire(
        &mut self,
        (member, hold): (&str, Hold),
        wanted: &Wanted,
        now: Moment,
        told: GivenTo,
        step: &mut Step,
    ) {
        self.holder(member);
        let ask = self.ask((member, hold), wanted, now.monotonic);
        let partition = self.partitions.get(&wanted.place);
        let limits = partition.map(|it| wanted.limits(self.limits_of(it, now.monotonic)));
        let partition = self.partitions.get_mut(&wanted.place);
        let (Some(limits), Some(partition)) = (limits, partition) else {
            drop(told.send(Ok(Vec::new())));
            return;
        };
        let lost = partition.runs.trim(wanted.log_start);
        let (given, tally) = partition.runs.acquire(&ask, &limits);
        let records = |piece: &Acquired| piece.offsets.end.since(piece.offsets.start);
        step.change.tally.add(tally);
        step.change.tally.lost += lost;
        step.change.tally.acquired += given.iter().map(records).sum::<u64>();
        self.keep(wanted.place, step);
        match step.records.is_empty() {
            true => drop(told.send(Ok(given))),
            false => step.change.given = Some((told, given)),
        }
    }

    /// Does what a member says of records that it holds.
    pub(super) fn settle(
        &mut self,
        member: &str,
        place: Place,
        verdicts: &[(Range<Offset>, Verdict)],
        log_start: Offset,
        step: &mut Step,
    ) -> Result<Tally, ShareError> {
        let limits = self.settings.limits;
        let holder = self.holders.get(member).copied().unwrap_or(Holder(0));
        let offset = verdicts.first().map_or(Offset::ZERO, |it| it.0.start);
        let partition = self.partitions.get_mut(&place).ok_or(NotHeld { offset })?;
        let tally = partition
            .runs
            .settle(holder, verdicts, log_start, &limits)?;
        step.change.tally.add(tally);
        self.keep(place, step);
        self.tell_of(tally);
        Ok(tally)
    }

    /// Releases what a member holds of a partition.
    pub(super) fn release(&mut self, member: &str, place: Place, how: Released, step: &mut Step) {
        let limits = self.settings.limits;
        let holder = self.holders.get(member).copied();
        if let (Some(holder), Some(partition)) = (holder, self.partitions.get_mut(&place)) {
            let tally = match how {
                Released::Delivered => partition.runs.leave(holder, &limits),
                Released::Unseen => partition.runs.give_back(holder, &limits),
            };
            step.change.tally.add(tally);
            self.keep(place, step);
            self.tell_of(tally);
        }
    }

    /// Stores what of a partition is not stored as it is, some of it.
    pub(super) fn mend(&mut self, place: Place, step: &mut Step) {
        self.keep(place, step);
    }

    /// Whether all of a partition is stored as it is, or there is none.
    pub(super) fn is_stored(&self, place: Place) -> bool {
        let partition = self.partitions.get(&place);
        partition.is_none_or(|partition| partition.runs.is_stored())
    }

    /// Finishes what anybody may have of these offsets, some pieces of it.
    pub(super) fn discard(&mut self, place: Place, range: Range<Offset>, step: &mut Step) -> Tally {
        let mut tally = Tally::default();
        if let Some(partition) = self.partitions.get_mut(&place) {
            tally.discarded = partition.runs.discard(range);
            step.change.tally.add(tally);
            self.keep(place, step);
        }
        tally
    }

    /// Who holds how many records of a partition, by name.
    pub(super) fn holders_of(&self, partition: &SharedPartition) -> Vec<(Arc<str>, u64)> {
        let held = partition.runs.holders();
        let named = self.holders.iter();
        let mut all: Vec<_> = named
            .filter_map(|(name, holder)| Some((Arc::clone(name), *held.get(holder)?)))
            .collect();
        all.sort();
        all
    }

    /// Archives records that were given up; `tally` says what became of their dead letters. Errors: some of them do not wait for those.
    pub(super) fn archive(
        &mut self,
        (place, incarnation): (Place, Incarnation),
        ranges: &[Range<Offset>],
        tally: Tally,
        step: &mut Step,
    ) -> Result<(), ShareError> {
        let offset = ranges.first().map_or(Offset::ZERO, |range| range.start);
        let is_it = |it: &&mut SharedPartition| it.incarnation == incarnation;
        let partition = self.partitions.get_mut(&place).filter(is_it);
        if !partition.is_some_and(|it| it.runs.archive(ranges)) {
            return Err(NotHeld { offset }.into());
        }
        step.change.tally.add(tally);
        self.keep(place, step);
        // There is room for more runs.
        self.changed.send_replace(());
        Ok(())
    }

    /// The partitions with records that wait for their dead letters.
    pub(super) fn dead(&self) -> Vec<Place> {
        let has_any = |(_, it): &(&Place, &SharedPartition)| it.runs.archiving() > 0;
        let places = self.partitions.iter().filter(has_any);
        places.map(|(place, _)| *place).collect()
    }

    /// The partitions of which a member holds records.
    pub(super) fn held_by(&self, member: &str) -> Vec<Place> {
        let Some(holder) = self.holders.get(member) else {
            return Vec::new();
        };
        let holds = |(_, partition): &(&Place, &SharedPartition)| {
            let held = partition.runs.held_ranges(|it, _| it == *holder);
            !held.is_empty()
        };
        self.partitions
            .iter()
            .filter(holds)
            .map(|(place, _)| *place)
            .collect()
    }

    /// A member that holds nothing any more is forgotten.
    pub(super) fn forget_holder(&mut self, member: &str) {
        if self.held_by(member).is_empty() {
            self.holders.remove(member);
        }
    }

    fn tell_of(&self, tally: Tally) {
        // Also what was done makes room for more.
        if tally != Tally::default() {
            self.changed.send_replace(());
        }
    }

    /// Stores what the step changed of a partition.
    fn keep(&mut self, place: Place, step: &mut Step) {
        let partition = self.partitions.get_mut(&place);
        let Some(SharedPartition {
            incarnation, runs, ..
        }) = partition
        else {
            return;
        };
        let (keeps, undo) = runs.end_step();
        let group = || self.id.to_string();
        step.records
            .extend(keeps.into_iter().map(|keep| match keep {
                Keep::Start(start) => {
                    ShareRecord::Start(group(), place, Some((*incarnation, start)))
                }
                Keep::Run(base, run) => ShareRecord::Run(group(), place, *incarnation, base, run),
            }));
        step.change.undo.push(Undoing::Step(place, undo));
        step.change.has_dead |= runs.archiving() > 0;
        self.wake_at = earlier(self.wake_at, runs.wake_at());
        self.settle_partition(place);
    }

    fn take_back(&mut self, undoing: Undoing) {
        match undoing {
            Undoing::Step(place, undo) => {
                let partition = self.partitions.get_mut(&place);
                partition
                    .expect("a step keeps its partitions")
                    .runs
                    .take_back(undo);
                self.settle_partition(place);
            }
            Undoing::Begun(place) => drop(self.take_out(place)),
            Undoing::Ended(place, before) => {
                self.take_out(place);
                self.partitions.insert(place, before);
                self.settle_partition(place);
            }
            Undoing::Created => self.created = None,
            Undoing::Deleted(created) => self.created = Some(created),
            Undoing::Configured(values, settings) => {
                (self.values, self.settings) = (values, settings);
            }
            Undoing::Owner(was_stored) => self.is_owner_stored = was_stored,
        }
    }

    /// The partition whose deadline is the next.
    fn next_due(&self) -> Option<(Place, Duration)> {
        let due = |(place, partition): (&Place, &SharedPartition)| {
            Some((*place, partition.runs.wake_at()?))
        };
        self.partitions
            .iter()
            .filter_map(due)
            .min_by_key(|(_, at)| *at)
    }

    /// Partitions of a topic that have begun.
    pub(super) fn partitions_of(&self, topic: TopicId) -> Vec<PartitionId> {
        let places = self.partitions.keys().filter(|place| place.topic == topic);
        places.map(|place| place.partition).collect()
    }
}

fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// What a member wants of a partition.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which.
    pub place: Place,
    /// Records that were read, in order.
    pub within: Vec<Range<Offset>>,
    /// Between them: where there are none.
    pub absent: Vec<Range<Offset>>,
    /// So many of them at most.
    pub count_max: usize,
    /// Where batches end that are given whole; see [`Ask::ends`].
    pub ends: Vec<Offset>,
    /// A record is delivered so often at most, if not as often as the group's settings say.
    pub deliveries_max: Option<u16>,
    /// Where the log starts.
    pub log_start: Offset,
}

impl Wanted {
    fn limits(&self, limits: Limits) -> Limits {
        Limits {
            deliveries_max: self.deliveries_max.unwrap_or(limits.deliveries_max),
            ..limits
        }
    }
}

impl Machine for ShareMachine {
    const KIND: &'static str = "share group";
    type Key = Arc<str>;
    type Name = str;
    type Record = ShareRecord;
    type Answer = ShareAnswer;
    type Change = ShareChange;
    type Mark = std::convert::Infallible;

    fn on_appended(&mut self, change: ShareChange) -> Option<Self::Mark> {
        self.all.totals.add(change.tally);
        if change.has_dead {
            self.all.dead.notify_one();
        }
        if let Some((told, given)) = change.given {
            // Who has gone meanwhile gives them back when its session ends, or they expire.
            drop(told.send(Ok(given)));
        }
        None
    }

    fn on_durable(&mut self, mark: Self::Mark) {
        match mark {}
    }

    fn withdraw(
        &mut self,
        change: ShareChange,
        now: Moment,
        _refused: &StateLogError,
        answers: &mut Vec<ShareAnswer>,
    ) {
        for answer in answers {
            answer.result = Err(ShareError::NotAvailable);
        }
        if let Some((told, _)) = change.given {
            drop(told.send(Err(ShareError::NotAvailable)));
        }
        for undoing in change.undo.into_iter().rev() {
            self.take_back(undoing);
        }
        self.wake_at = self.next_due().map(|(_, at)| at);
        if change.is_by_time {
            self.retry_at = now.monotonic + RETRY;
        }
    }

    fn wake_at(&self) -> Option<Duration> {
        let at = earlier(self.wake_at, self.members.wake_at());
        at.map(|at| at.max(self.retry_at))
    }

    fn record_bytes_on_time(&self) -> Vec<usize> {
        let Some((place, _)) = self.next_due() else {
            return Vec::new();
        };
        let partition = &self.partitions[&place];
        let held = partition.runs.held_ranges(|_, until| until.is_some());
        self.keeps(partition.runs.keeps_max(&held))
    }

    fn on_time(&mut self, now: Moment, step: &mut Step) {
        self.members.expire(now.monotonic);
        if let Some((place, at)) = self.next_due()
            && at <= now.monotonic
            && self.retry_at <= now.monotonic
        {
            let limits = self.settings.limits;
            let partition = self.partitions.get_mut(&place).expect("it is due");
            let tally = partition.runs.expire(now.monotonic, &limits);
            step.change.tally.add(tally);
            step.change.tally.expired += tally.released + tally.archived;
            step.change.is_by_time = true;
            self.keep(place, step);
            self.tell_of(tally);
        }
        self.wake_at = self.next_due().map(|(_, at)| at);
    }

    fn on_settled(&mut self) {
        self.settle_account();
    }

    fn is_gone(&self) -> bool {
        self.created.is_none() && self.values.is_empty() && self.members.count() == 0
    }
}

impl coordination::Answer for ShareAnswer {
    fn tell(self, stored: Result<(), &StateLogError>) {
        let result = match stored {
            Ok(()) => self.result,
            Err(_) => Err(ShareError::NotAvailable),
        };
        // Whoever no longer waits is not missed.
        let _ = self.to.send(result);
    }
}
