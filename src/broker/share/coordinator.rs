//! All groups that share records: what fronts ask of them, as steps of each group's machine.
//! Callers: the fronts, through `Broker::shares` and the door; `Broker` for topics that go.
//! Invariants: those of `coordination`. What is left of a partition that began anew or ended is removed behind it: its runs count for nothing
//! without their start, and a start of the broker goes on with what a stop has left.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use model::{Offset, PartitionId, TopicId};
use storage::io::Clock;
use storage::{LogAppend, Purpose, Storage};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::ShareError;
use super::machine::{Hold, Released, ShareAnswer, ShareMachine, SharedPartition, Step, Wanted};
use super::members::{Beat, Beaten, ShareMember, Topic};
use super::partition::{Acquired, SharePartition, StoredRun, Tally, Verdict};
use super::record::{Incarnation, Place, ShareRecord, SharesError, settings_record_bytes};
use super::runs::State;
use super::settings::GroupSettings;
use super::totals::Totals;
use crate::broker::coordination::{
    self, Durably, Moment, NotTogether, Runtime, RuntimeTask, Shape, Stopped,
};
use crate::broker::state_log::{Replayed, StateLog, StateLogError};

/// Groups are spread over so many shards, and so many of each shard's steps may wait for their sync.
const SHAPE: Shape = Shape {
    shards: 8,
    places: 512,
};
/// There are so many groups at most.
const GROUPS_MAX: usize = 10_000;
/// The longest id of a group: it stands in each of its records.
const GROUP_ID_BYTES_MAX: usize = 1_024;
/// Records that are removed at once.
const PIECE: usize = 1_000;

type Cell = coordination::Cell<ShareMachine>;
/// The runs of a partition, by beginning.
type StoredRuns = HashMap<(String, Place, Incarnation), Vec<(Offset, StoredRun)>>;

/// All groups. Cheap to clone.
#[derive(Clone)]
pub struct Shares {
    runtime: Runtime<ShareMachine>,
    /// Records that were found at the start and count for nothing.
    leftovers: Arc<Mutex<Vec<ShareRecord>>>,
    totals: Arc<Totals>,
}

/// The work of the groups: it must be run for answers to leave and for time to pass.
pub struct SharesTask(RuntimeTask<ShareMachine>);

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareListing {
    /// Its id.
    pub id: String,
    /// Whether it has members.
    pub has_members: bool,
}

/// A group as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareDescription {
    /// How often its members or their partitions changed.
    pub epoch: i32,
    /// Who is in it.
    pub members: Vec<ShareMember>,
}

/// How far a group is with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedOffset {
    /// All before it is finished.
    pub start: Offset,
    /// Records that are not, up to the log's end.
    pub lag: u64,
}

/// What somebody says of records of a partition that it holds, to be done with other things.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub(super) group: Arc<str>,
    pub(super) member: Arc<str>,
    pub(super) place: Place,
    pub(super) verdicts: Vec<(Range<Offset>, Verdict)>,
    pub(super) log_start: Offset,
}

/// Why settlements were not done, none of them.
#[derive(Debug)]
pub(super) enum NotSettled {
    /// A group has refused it.
    Share(ShareError),
    /// It is more than one frame of the log takes.
    TooMuch,
    /// It could not be appended.
    Refused(StateLogError),
}

impl From<NotTogether<ShareError>> for NotSettled {
    fn from(why: NotTogether<ShareError>) -> NotSettled {
        match why {
            NotTogether::Stopped => NotSettled::Share(ShareError::NotAvailable),
            NotTogether::TooMuch => NotSettled::TooMuch,
            NotTogether::Machine(error) => NotSettled::Share(error),
            NotTogether::Refused(error) => NotSettled::Refused(error),
        }
    }
}

impl Shares {
    /// Reads all groups back. Nobody holds anything.
    pub fn open(
        log: StateLog<ShareRecord>,
        replayed: Replayed<ShareRecord>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Shares, SharesTask), SharesError> {
        let (runtime, task) = Runtime::new(SHAPE, log, clock);
        let totals = Arc::<Totals>::default();
        let mut runs = StoredRuns::new();
        let mut starts = Vec::new();
        let restore = |group: &str, change: &dyn Fn(&mut ShareMachine)| {
            let id: Arc<str> = group.into();
            let made = runtime.cell_or(Arc::clone(&id), || {
                Some(ShareMachine::new(id, Arc::clone(&totals)))
            });
            made.expect("one is made").restore(change);
        };
        for record in replayed {
            match record? {
                ShareRecord::Group(group, created) => {
                    restore(&group, &|machine| machine.created = created);
                }
                ShareRecord::Settings(group, Some(values)) => {
                    let settings = GroupSettings::of(&values);
                    let settings =
                        settings.map_err(|_| SharesError::Malformed("no value of a setting"))?;
                    restore(&group, &|machine| {
                        machine.values.clone_from(&values);
                        machine.settings = settings;
                    });
                }
                ShareRecord::Start(group, place, Some(start)) => starts.push((group, place, start)),
                ShareRecord::Run(group, place, incarnation, base, Some(run)) => {
                    let of = runs.entry((group, place, incarnation)).or_default();
                    of.push((base, run));
                }
                ShareRecord::Settings(_, None)
                | ShareRecord::Start(_, _, None)
                | ShareRecord::Run(_, _, _, _, None) => {}
            }
        }
        for (group, place, (incarnation, start)) in starts {
            let key = (group, place, incarnation);
            let stored = runs.remove(&key).unwrap_or_default();
            restore(&key.0, &|machine| {
                let runs = SharePartition::restore(start, stored.iter().copied());
                let shared = SharedPartition { incarnation, runs };
                machine.partitions.insert(place, shared);
            });
        }
        let leftover = |((group, place, incarnation), runs): (_, Vec<(Offset, StoredRun)>)| {
            let group: String = group;
            runs.into_iter().map(move |(base, _)| {
                ShareRecord::Run(group.clone(), place, incarnation, base, None)
            })
        };
        let leftovers = runs.into_iter().flat_map(leftover).collect();
        runtime.begin();
        let shares = Shares {
            runtime,
            leftovers: Arc::new(Mutex::new(leftovers)),
            totals,
        };
        Ok((shares, SharesTask(task)))
    }

    fn cell(&self, group: &str) -> Result<Arc<Cell>, ShareError> {
        let cell = self.runtime.cell(group).ok_or(ShareError::NotFound)?;
        match cell.read(ShareMachine::is_there) {
            true => Ok(cell),
            false => Err(ShareError::NotFound),
        }
    }

    fn cell_or_new(&self, group: &str) -> Result<Arc<Cell>, ShareError> {
        if group.is_empty() || group.len() > GROUP_ID_BYTES_MAX {
            return Err(ShareError::InvalidGroupId);
        }
        if let Some(cell) = self.runtime.cell(group) {
            return Ok(cell);
        }
        if self.runtime.cells().len() >= GROUPS_MAX {
            return Err(ShareError::MaxSizeReached);
        }
        let id: Arc<str> = group.into();
        let made = self.runtime.cell_or(Arc::clone(&id), || {
            Some(ShareMachine::new(id, Arc::clone(&self.totals)))
        });
        Ok(made.expect("one is made"))
    }

    /// A step whose answer is told when it is durable.
    async fn step(
        &self,
        cell: &Arc<Cell>,
        sizes: impl Fn(&ShareMachine) -> Vec<usize>,
        act: impl FnOnce(&mut ShareMachine, Moment, &mut Step) -> Result<Tally, ShareError>,
    ) -> Result<Tally, ShareError> {
        let (to, answer) = oneshot::channel();
        let act = |machine: &mut ShareMachine, now, step: &mut Step| {
            let result = act(machine, now, step);
            step.answers.push(ShareAnswer { to, result });
        };
        let taken = self.runtime.step(cell, Purpose::State, sizes, act);
        taken.await?;
        answer.await.unwrap_or(Err(ShareError::NotAvailable))
    }

    /// Applies every deadline that has passed.
    pub async fn run_due(&self) -> Result<(), ShareError> {
        Ok(self.runtime.run_due().await?)
    }

    // Members.

    /// Takes a sign of life. Whoever is new is a member when the group is durable.
    pub async fn beat(
        &self,
        group: &str,
        beat: Beat,
        topic: impl Fn(&str) -> Option<Topic>,
    ) -> Result<Beaten, ShareError> {
        let is_new = beat.epoch == 0;
        let cell = match is_new {
            true => self.cell_or_new(group)?,
            false => self.cell(group)?,
        };
        let mut beaten = Err(ShareError::NotAvailable);
        let take = |machine: &mut ShareMachine, now: Moment| {
            let settings = machine.settings;
            let times = (now.monotonic, settings.heartbeat, settings.session);
            machine.members.beat(beat, times, topic)
        };
        if !is_new {
            return self.runtime.touch(&cell, take);
        }
        let sizes = |machine: &ShareMachine| match machine.is_there() {
            true => Vec::new(),
            false => machine.group_records(),
        };
        let stored = self.step(&cell, sizes, |machine, now, step| {
            beaten = take(machine, now);
            if beaten.is_ok() {
                machine.create(now, step);
            }
            Ok(Tally::default())
        });
        let stored = stored.await;
        self.runtime.forget_if_gone(&cell);
        stored.and(beaten)
    }

    /// Takes a member out of a group.
    pub fn leave(
        &self,
        group: &str,
        member: &str,
        topic: impl Fn(&str) -> Option<Topic>,
    ) -> Result<(), ShareError> {
        let cell = self.cell(group)?;
        let left = self
            .runtime
            .touch(&cell, |machine, _| machine.members.leave(member, topic));
        left.then_some(()).ok_or(ShareError::UnknownMember)
    }

    /// All groups, by id.
    pub fn list(&self) -> Vec<ShareListing> {
        let listed = |cell: Arc<Cell>| {
            let has_members =
                cell.read(|machine| machine.is_there().then(|| machine.members.count() > 0))?;
            let id = cell.key().to_string();
            Some(ShareListing { id, has_members })
        };
        let mut all: Vec<_> = self
            .runtime
            .cells()
            .into_iter()
            .filter_map(listed)
            .collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    }

    /// Whether there is such a group.
    pub fn has(&self, group: &str) -> bool {
        self.cell(group).is_ok()
    }

    /// A group with its members.
    pub fn describe(&self, group: &str) -> Result<ShareDescription, ShareError> {
        let shown = |machine: &ShareMachine| ShareDescription {
            epoch: machine.members.epoch(),
            members: machine.members.shown(),
        };
        Ok(self.cell(group)?.read(shown))
    }

    // Records.

    /// The settings in force; the defaults of a group that is not there.
    pub fn settings(&self, group: &str) -> GroupSettings {
        let cell = self.runtime.cell(group);
        cell.map_or_else(GroupSettings::default, |cell| cell.read(|it| it.settings))
    }

    /// Tells of records that become available again.
    pub fn watch(&self, group: &str) -> Result<watch::Receiver<()>, ShareError> {
        let cell = self.runtime.cell(group).ok_or(ShareError::NotFound)?;
        Ok(cell.read(ShareMachine::watch))
    }

    /// Whether the group has begun with a partition.
    pub fn has_begun(&self, group: &str, place: Place) -> bool {
        let cell = self.runtime.cell(group);
        cell.is_some_and(|cell| cell.read(|machine| machine.partitions.contains_key(&place)))
    }

    /// Begins with a partition, if the group has not. Durable when it returns.
    pub async fn begin(&self, group: &str, place: Place, start: Offset) -> Result<(), ShareError> {
        let cell = self.cell_or_new(group)?;
        let sizes = |machine: &ShareMachine| {
            let mut sizes = machine.group_records();
            sizes.extend(machine.partition_records(1));
            sizes
        };
        let begun = self.step(&cell, sizes, |machine, now, step| {
            machine.create(now, step);
            machine.begin(place, new_incarnation(), start, false, step);
            Ok(Tally::default())
        });
        begun.await.map(drop)
    }

    /// The first record of `from..end` that can be given out now.
    pub fn first_available(
        &self,
        group: &str,
        place: Place,
        within: Range<Offset>,
    ) -> Option<Offset> {
        let cell = self.runtime.cell(group)?;
        cell.read(|machine| {
            let partition = machine.partitions.get(&place)?;
            let limits = machine.settings.limits;
            partition
                .runs
                .first_available(within.start, within.end, &limits)
        })
    }

    /// What of a range is not finished: all of it, where the group has not begun.
    pub fn unfinished_in(
        &self,
        group: &str,
        place: Place,
        within: Range<Offset>,
    ) -> Vec<Range<Offset>> {
        let unfinished = |machine: &ShareMachine| {
            let runs = &machine.partitions.get(&place)?.runs;
            let states = runs.states(within.start.max(runs.start())..within.end);
            let open = states.filter(|(_, state)| !state.is_finished());
            Some(open.map(|(offsets, _)| offsets).collect())
        };
        let cell = self.runtime.cell(group);
        let found = cell.and_then(|cell| cell.read(unfinished));
        found.unwrap_or_else(|| vec![within])
    }

    /// Of some records those that anybody may have now, and those that are finished.
    pub(super) fn sorted(
        &self,
        group: &str,
        place: Place,
        records: impl Iterator<Item = Offset>,
    ) -> (Vec<Offset>, Vec<Offset>) {
        let (mut available, mut finished) = (Vec::new(), Vec::new());
        let Some(cell) = self.runtime.cell(group) else {
            return (available, finished);
        };
        cell.read(|machine| {
            let Some(SharedPartition { runs, .. }) = machine.partitions.get(&place) else {
                return;
            };
            let has_room = runs.held() < machine.settings.limits.held_max;
            for offset in records {
                let state = runs.states(offset..offset.plus(1)).next();
                match state {
                    _ if offset < runs.start() => finished.push(offset),
                    Some((_, state)) if state.is_finished() => finished.push(offset),
                    Some((_, State::Available { .. })) if has_room => available.push(offset),
                    _ => {}
                }
            }
        });
        (available, finished)
    }

    /// Gives records to somebody.
    pub async fn acquire(
        &self,
        group: &str,
        member: &str,
        wanted: &Wanted,
    ) -> Result<Vec<Acquired>, ShareError> {
        self.acquire_for(group, member, wanted, Hold::Locked).await
    }

    /// Gives records to somebody who holds them until they are settled or released, however long that takes.
    pub async fn acquire_until_settled(
        &self,
        group: &str,
        member: &str,
        wanted: &Wanted,
    ) -> Result<Vec<Acquired>, ShareError> {
        self.acquire_for(group, member, wanted, Hold::UntilSettled)
            .await
    }

    async fn acquire_for(
        &self,
        group: &str,
        member: &str,
        wanted: &Wanted,
        hold: Hold,
    ) -> Result<Vec<Acquired>, ShareError> {
        let cell = self.cell(group)?;
        let (told, given) = oneshot::channel();
        let sizes = |machine: &ShareMachine| machine.acquire_records(member, wanted, hold);
        let act = |machine: &mut ShareMachine, now, step: &mut Step| {
            machine.acquire((member, hold), wanted, now, told, step);
        };
        let taken = self.runtime.step(&cell, Purpose::State, sizes, act);
        taken.await?;
        given.await.unwrap_or(Err(ShareError::NotAvailable))
    }

    /// Does what somebody says of records that it holds: all of it or nothing. Durable when it returns.
    pub async fn settle(
        &self,
        group: &str,
        member: &str,
        place: Place,
        verdicts: &[(Range<Offset>, Verdict)],
        log_start: Offset,
    ) -> Result<Tally, ShareError> {
        let cell = self.cell(group)?;
        let ranges: Vec<_> = verdicts.iter().map(|(range, _)| range.clone()).collect();
        let sizes = |machine: &ShareMachine| machine.settle_records(place, &ranges);
        let settled = self.step(&cell, sizes, |machine, now, step| {
            let renewed = renewed(verdicts, now, machine.settings);
            machine.settle(member, place, &renewed, log_start, step)
        });
        settled.await
    }

    /// Does what several say of records that they hold, with appends to other logs in the same frame: all of it or nothing. Gives when it is
    /// durable.
    pub(super) async fn settle_together(
        &self,
        storage: &Storage,
        settlements: &[Settlement],
        appends: Vec<LogAppend>,
    ) -> Result<Durably, NotSettled> {
        let groups: BTreeSet<&Arc<str>> = settlements.iter().map(|it| &it.group).collect();
        let cells = groups.iter().map(|group| self.cell(group));
        let cells: Vec<Arc<Cell>> = cells.collect::<Result<_, _>>().map_err(NotSettled::Share)?;
        let of = |cell: usize| {
            let group = cells[cell].key();
            settlements.iter().filter(move |it| it.group == *group)
        };
        let sizes = |cell: usize, machine: &ShareMachine| {
            let mut sizes = Vec::new();
            for one in of(cell) {
                // One may move the start over what another has settled.
                let all = of(cell).filter(|it| it.place == one.place);
                let ranges = all.flat_map(|it| it.verdicts.iter().map(|(range, _)| range.clone()));
                sizes.extend(machine.settle_records(one.place, &ranges.collect::<Vec<_>>()));
            }
            sizes
        };
        let mut act = |cell: usize, machine: &mut ShareMachine, _, step: &mut Step| {
            for it in of(cell) {
                machine.settle(&it.member, it.place, &it.verdicts, it.log_start, step)?;
            }
            Ok(())
        };
        let stepped = self
            .runtime
            .step_together(storage, &cells, appends, sizes, &mut act);
        Ok(stepped.await?)
    }

    /// Releases all that somebody holds.
    pub async fn release(&self, group: &str, member: &str) -> Result<(), ShareError> {
        self.release_as(group, member, Released::Delivered).await
    }

    /// Releases all that somebody holds, as if it had not been delivered.
    pub async fn give_back(&self, group: &str, member: &str) -> Result<(), ShareError> {
        self.release_as(group, member, Released::Unseen).await
    }

    async fn release_as(&self, group: &str, member: &str, how: Released) -> Result<(), ShareError> {
        let Some(cell) = self.runtime.cell(group) else {
            return Ok(());
        };
        let held = cell.read(|machine| machine.held_by(member));
        for place in held {
            let sizes = |machine: &ShareMachine| machine.release_records(place, member);
            let released = self.step(&cell, sizes, |machine, _, step| {
                machine.release(member, place, how, step);
                Ok(Tally::default())
            });
            released.await?;
        }
        self.runtime
            .touch(&cell, |machine, _| machine.forget_holder(member));
        Ok(())
    }

    // Offsets.

    /// The partitions that the group has begun with.
    pub fn places(&self, group: &str) -> Result<Vec<Place>, ShareError> {
        Ok(self
            .cell(group)?
            .read(|machine| machine.partitions.keys().copied().collect()))
    }

    /// How far the group is with a partition whose log reaches so far; None if it has not begun.
    pub fn offset(&self, group: &str, place: Place, bounds: Range<Offset>) -> Option<SharedOffset> {
        let cell = self.cell(group).ok()?;
        cell.read(|machine| {
            let runs = &machine.partitions.get(&place)?.runs;
            Some(SharedOffset {
                start: runs.start(),
                lag: runs.unfinished(bounds.end) - runs.unfinished(bounds.start.min(bounds.end)),
            })
        })
    }

    /// Begins anew with partitions of a group without members, which comes into being if it is not there. Durable when it returns.
    pub async fn reset(&self, group: &str, starts: &[(Place, Offset)]) -> Result<(), ShareError> {
        let cell = self.cell_or_new(group)?;
        let mut removed = Vec::new();
        for piece in starts.chunks(PIECE) {
            let sizes = |machine: &ShareMachine| {
                let mut sizes = machine.group_records();
                sizes.extend(machine.partition_records(piece.len()));
                sizes
            };
            let reset = self.step(&cell, sizes, |machine, now, step| {
                empty(machine)?;
                machine.create(now, step);
                for (place, start) in piece {
                    removed.extend(runs_of(cell.key(), *place, machine.partitions.get(place)));
                    machine.begin(*place, new_incarnation(), *start, true, step);
                }
                Ok(Tally::default())
            });
            let reset = reset.await;
            self.runtime.forget_if_gone(&cell);
            reset?;
        }
        self.remove(removed).await;
        Ok(())
    }

    /// What became of records since the start, of all groups.
    pub fn totals(&self) -> Tally {
        self.totals.get()
    }

    /// Ends a topic's partitions in a group without members, which then begins with them as if it were new. Durable when it returns.
    pub async fn end(&self, group: &str, topic: TopicId) -> Result<(), ShareError> {
        let cell = self.cell(group)?;
        self.end_where(&cell, |place| place.topic == topic, empty)
            .await
    }

    async fn end_where(
        &self,
        cell: &Arc<Cell>,
        is_meant: impl Fn(&Place) -> bool,
        may: impl Fn(&ShareMachine) -> Result<(), ShareError>,
    ) -> Result<(), ShareError> {
        let mut removed = Vec::new();
        let sizes = |machine: &ShareMachine| {
            let meant = machine.partitions.keys().filter(|place| is_meant(place));
            machine.partition_records(meant.count())
        };
        let ended = self.step(cell, sizes, |machine, _, step| {
            may(machine)?;
            for (place, partition) in &machine.partitions {
                if is_meant(place) {
                    removed.extend(runs_of(cell.key(), *place, Some(partition)));
                }
            }
            machine.end_where(&is_meant, step);
            Ok(Tally::default())
        });
        ended.await?;
        self.remove(removed).await;
        Ok(())
    }

    /// Deletes a group without members. Its settings stay. Durable when it returns.
    pub async fn delete(&self, group: &str) -> Result<(), ShareError> {
        let cell = self.cell(group)?;
        let mut removed = Vec::new();
        let deleted = self.step(&cell, ShareMachine::group_records, |machine, _, step| {
            empty(machine)?;
            for (place, partition) in &machine.partitions {
                removed.extend(runs_of(cell.key(), *place, Some(partition)));
            }
            machine.delete(step);
            Ok(Tally::default())
        });
        deleted.await?;
        self.runtime.forget_if_gone(&cell);
        self.remove(removed).await;
        Ok(())
    }

    /// Ends a topic's partitions in all groups. Called when the topic's own deletion is durable.
    pub async fn forget_topic(&self, topic: TopicId) -> Result<(), ShareError> {
        self.forget_topics(|it| it == topic).await
    }

    /// Ends the partitions of all topics that are not there any more, and removes what a stop has left.
    pub async fn tidy_up(&self, is_there: impl Fn(TopicId) -> bool) -> Result<(), ShareError> {
        let leftovers = self.leftovers.lock();
        let leftovers = std::mem::take(&mut *leftovers.expect("nothing panics under this lock"));
        self.remove(leftovers).await;
        self.forget_topics(|topic| !is_there(topic)).await
    }

    async fn forget_topics(&self, is_gone: impl Fn(TopicId) -> bool) -> Result<(), ShareError> {
        for cell in self.runtime.cells() {
            let is_gone = |place: &Place| is_gone(place.topic);
            let has_any = cell.read(|machine| machine.partitions.keys().any(is_gone));
            if has_any {
                self.end_where(&cell, is_gone, |_| Ok(())).await?;
            }
        }
        Ok(())
    }

    /// Removes records that count for nothing. What is not removed now is, after the next start.
    async fn remove(&self, records: Vec<ShareRecord>) {
        for piece in records.chunks(PIECE) {
            let done = self.runtime.log().write_each(piece.iter(), Purpose::State);
            if let Some(error) = done.await.into_iter().find_map(Result::err) {
                tracing::warn!(%error, "records of shared subscriptions are left over");
                return;
            }
        }
    }

    // Settings.

    /// What was set for a group.
    pub fn values(&self, group: &str) -> Vec<(String, String)> {
        let cell = self.runtime.cell(group);
        cell.map_or_else(Vec::new, |cell| cell.read(|it| it.values.clone()))
    }

    /// Sets a group's settings, be it there or not. Durable when it returns.
    pub async fn configure(
        &self,
        group: &str,
        values: Vec<(String, String)>,
        settings: GroupSettings,
    ) -> Result<(), ShareError> {
        let cell = self.cell_or_new(group)?;
        let bytes = settings_record_bytes(group, &values);
        let configured = self.step(
            &cell,
            |_| vec![bytes],
            |machine, _, step| {
                machine.configure(values, settings, step);
                Ok(Tally::default())
            },
        );
        let configured = configured.await.map(drop);
        self.runtime.forget_if_gone(&cell);
        configured
    }

    /// Partitions of a topic that a group has begun with.
    pub fn partitions_of(&self, group: &str, topic: TopicId) -> Vec<PartitionId> {
        let cell = self.runtime.cell(group);
        cell.map_or_else(Vec::new, |cell| cell.read(|it| it.partitions_of(topic)))
    }
}

fn empty(machine: &ShareMachine) -> Result<(), ShareError> {
    match machine.members.count() {
        0 => Ok(()),
        _ => Err(ShareError::NonEmpty),
    }
}

fn runs_of(group: &str, place: Place, partition: Option<&SharedPartition>) -> Vec<ShareRecord> {
    let Some(SharedPartition { incarnation, runs }) = partition else {
        return Vec::new();
    };
    let removed = |base| ShareRecord::Run(group.to_owned(), place, *incarnation, base, None);
    runs.bases().into_iter().map(removed).collect()
}

/// Holds on for as long as the group's records are held.
fn renewed(
    verdicts: &[(Range<Offset>, Verdict)],
    now: Moment,
    settings: GroupSettings,
) -> Vec<(Range<Offset>, Verdict)> {
    let renewed = |(range, verdict): &(Range<Offset>, Verdict)| {
        let verdict = match verdict {
            Verdict::Renew(_) => Verdict::Renew(Some(now.monotonic + settings.lock)),
            other => *other,
        };
        (range.clone(), verdict)
    };
    verdicts.iter().map(renewed).collect()
}

fn new_incarnation() -> Incarnation {
    let (number, _) = Uuid::new_v4().as_u64_pair();
    Incarnation(number)
}

impl SharesTask {
    /// Delivers answers and keeps the time until `shutdown` turns true; then delivers what is left and returns.
    pub async fn run(self, shutdown: watch::Receiver<bool>) {
        self.0.run(shutdown).await;
    }
}

impl From<Stopped> for ShareError {
    fn from(_: Stopped) -> ShareError {
        ShareError::NotAvailable
    }
}
