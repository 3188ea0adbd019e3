//! A group that shares records as the coordination runtime drives it: its members, and its partitions.
//! Callers: the runtime, and the coordinator in the steps that it asks for.
//! Invariants: what a step changed of a partition is stored by it, or taken back. Nobody is told of a settlement before it is durable; records
//! are given out when that they are is appended.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use model::{Offset, PartitionId, Timestamp, TopicId};
use tokio::sync::{oneshot, watch};

use super::ShareError;
use super::members::Members;
use super::partition::{
    Acquired, Ask, Keep, Limits, NotHeld, SharePartition, Tally, Undo, Verdict,
};
use super::record::{Incarnation, Place, ShareRecord, group_record_bytes, run_record_bytes};
use super::runs::Holder;
use super::settings::GroupSettings;
use super::totals::Totals;
use crate::broker::coordination::{self, Machine, Moment};
use crate::broker::state_log::StateLogError;

/// What one step of a group stores and tells.
pub(super) type Step = coordination::Step<ShareMachine>;

/// After a step of its own that could not be stored a group tries again so much later.
const RETRY: Duration = Duration::from_secs(1);

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
}

/// A partition, and since which beginning.
#[derive(Clone, Debug)]
pub(super) struct SharedPartition {
    pub(super) incarnation: Incarnation,
    pub(super) runs: SharePartition,
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
    /// Those of all groups.
    totals: Arc<Totals>,
}

impl ShareMachine {
    pub(super) fn new(id: Arc<str>, totals: Arc<Totals>) -> ShareMachine {
        ShareMachine {
            id,
            created: None,
            members: Members::default(),
            values: Vec::new(),
            settings: GroupSettings::default(),
            partitions: BTreeMap::new(),
            holders: HashMap::new(),
            next_holder: 0,
            changed: watch::Sender::new(()),
            wake_at: None,
            retry_at: Duration::ZERO,
            totals,
        }
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
        sizes
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

    fn limits_for(&self, wanted: &Wanted) -> Limits {
        let limits = self.settings.limits;
        Limits {
            deliveries_max: wanted.deliveries_max.unwrap_or(limits.deliveries_max),
            ..limits
        }
    }

    pub(super) fn acquire_records(&self, member: &str, wanted: &Wanted, hold: Hold) -> Vec<usize> {
        let Some(partition) = self.partitions.get(&wanted.place) else {
            return Vec::new();
        };
        let ask = self.ask((member, hold), wanted, Duration::ZERO);
        let touched = partition.runs.touched_by(&ask, &self.limits_for(wanted));
        let trims = partition.runs.trims_max(wanted.log_start);
        self.keeps(partition.runs.keeps_max(&touched) + trims)
    }

    pub(super) fn settle_records(&self, place: Place, ranges: &[Range<Offset>]) -> Vec<usize> {
        let partition = self.partitions.get(&place);
        self.keeps(partition.map_or(0, |partition| partition.runs.keeps_max(ranges)))
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
            self.created = Some(now.wall);
            let record = ShareRecord::Group(self.id.to_string(), self.created);
            step.records.push(record);
            step.change.undo.push(Undoing::Created);
        }
    }

    /// Begins a partition, if it has not begun; anew, where it has and `again` says so.
    pub(super) fn begin(
        &mut self,
        place: Place,
        incarnation: Incarnation,
        start: Offset,
        again: bool,
        step: &mut Step,
    ) {
        if self.partitions.contains_key(&place) && !again {
            return;
        }
        let begun = SharedPartition {
            incarnation,
            runs: SharePartition::new(start),
        };
        let start = Some((incarnation, start));
        step.records
            .push(ShareRecord::Start(self.id.to_string(), place, start));
        step.change
            .undo
            .push(match self.partitions.insert(place, begun) {
                Some(before) => Undoing::Ended(place, before),
                None => Undoing::Begun(place),
            });
        self.changed.send_replace(());
    }

    /// Ends the partitions that are meant.
    pub(super) fn end_where(&mut self, is_meant: impl Fn(&Place) -> bool, step: &mut Step) {
        let places: Vec<Place> = self.partitions.keys().copied().filter(is_meant).collect();
        for place in places {
            if let Some(before) = self.partitions.remove(&place) {
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
    }

    /// Settings are set.
    pub(super) fn configure(
        &mut self,
        values: Vec<(String, String)>,
        settings: GroupSettings,
        step: &mut Step,
    ) {
        let stored = (!values.is_empty()).then(|| values.clone());
        step.records
            .push(ShareRecord::Settings(self.id.to_string(), stored));
        let before = std::mem::replace(&mut self.values, values);
        let in_force = std::mem::replace(&mut self.settings, settings);
        step.change.undo.push(Undoing::Configured(before, in_force));
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
        let limits = self.limits_for(wanted);
        let Some(partition) = self.partitions.get_mut(&wanted.place) else {
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
        let Some(SharedPartition { incarnation, runs }) = self.partitions.get_mut(&place) else {
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
        self.wake_at = earlier(self.wake_at, runs.wake_at());
    }

    fn take_back(&mut self, undoing: Undoing) {
        match undoing {
            Undoing::Step(place, undo) => {
                let partition = self.partitions.get_mut(&place);
                partition
                    .expect("a step keeps its partitions")
                    .runs
                    .take_back(undo);
            }
            Undoing::Begun(place) => drop(self.partitions.remove(&place)),
            Undoing::Ended(place, before) => drop(self.partitions.insert(place, before)),
            Undoing::Created => self.created = None,
            Undoing::Deleted(created) => self.created = Some(created),
            Undoing::Configured(values, settings) => {
                (self.values, self.settings) = (values, settings);
            }
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

impl Machine for ShareMachine {
    const KIND: &'static str = "share group";
    type Key = Arc<str>;
    type Name = str;
    type Record = ShareRecord;
    type Answer = ShareAnswer;
    type Change = ShareChange;
    type Mark = std::convert::Infallible;

    fn on_appended(&mut self, change: ShareChange) -> Option<Self::Mark> {
        self.totals.add(change.tally);
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
