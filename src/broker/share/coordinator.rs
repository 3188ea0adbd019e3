//! All groups that share records: what fronts ask of them, as steps of each group's machine.
//! Callers: the fronts, through `Broker::shares` and the door; `Broker` for topics that go.
//! Invariants: those of `coordination`. What is left of a partition that began anew or ended is removed behind it: its runs count for nothing
//! without their start, and a start of the broker goes on with what a stop has left.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use model::{Offset, PartitionId, TopicId};
use storage::{LogAppend, Purpose, Storage};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::ShareError;
use super::machine::{
    Hold, Makers, OfAll, Released, ShareAnswer, ShareMachine, SharedPartition, Step, Wanted,
};
use super::members::{Beat, Beaten, ShareMember, Topic};
use super::partition::{Acquired, Counts, Tally, Verdict};
use super::record::{Incarnation, Place, ShareRecord, settings_record_bytes};
use super::runs::{Reason, State};
use super::settings::{DEAD_LETTER_TOPIC, GroupSettings};
use crate::broker::coordination::{
    self, Durably, Moment, NotTogether, Runtime, RuntimeTask, Stopped,
};
use crate::broker::state_log::StateLogError;

/// The longest id of a group: it stands in each of its records.
const GROUP_ID_BYTES_MAX: usize = 1_024;
/// Records that are removed at once.
const PIECE: usize = 1_000;

type Cell = coordination::Cell<ShareMachine>;

/// All groups. Cheap to clone.
#[derive(Clone)]
pub struct Shares {
    pub(super) runtime: Runtime<ShareMachine>,
    /// Records that were found at the start and count for nothing.
    pub(super) leftovers: Arc<Mutex<Vec<ShareRecord>>>,
    /// Partitions whose logs were found to end before what was stored of them.
    pub(super) cut: Arc<Mutex<Vec<(String, Place)>>>,
    pub(super) all: OfAll,
}

/// The work of the groups: it must be run for answers to leave and for time to pass.
pub struct SharesTask(pub(super) RuntimeTask<ShareMachine>);

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

/// How a partition is.
pub(super) struct Shown {
    pub(super) start: Offset,
    pub(super) counts: Counts,
    /// The first record that is not finished.
    pub(super) first: Option<Offset>,
    /// Who holds how many records.
    pub(super) holders: Vec<(Arc<str>, u64)>,
}

/// Records of a partition that wait for their dead letters.
pub(super) struct Dead {
    pub(super) place: Place,
    pub(super) incarnation: Incarnation,
    /// How often they were delivered, and why they were given up.
    pub(super) runs: Vec<(Range<Offset>, u16, Reason)>,
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
    fn cell(&self, group: &str) -> Result<Arc<Cell>, ShareError> {
        let cell = self.runtime.cell(group).ok_or(ShareError::NotFound)?;
        match cell.read(ShareMachine::is_there) {
            true => Ok(cell),
            false => Err(ShareError::NotFound),
        }
    }

    /// The group, or one that is about to be made, on this principal's account if there is one.
    fn cell_or_new(&self, group: &str, owner: Option<&str>) -> Result<Arc<Cell>, ShareError> {
        if group.is_empty() || group.len() > GROUP_ID_BYTES_MAX {
            return Err(ShareError::InvalidGroupId);
        }
        let now = self.runtime.now();
        let id: Arc<str> = group.into();
        let made = self.runtime.cell_or(Arc::clone(&id), || {
            ShareMachine::new(id, owner, self.all.clone()).let_in(now)
        });
        made.ok_or(ShareError::MaxSizeReached)
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
            if result.is_err() {
                machine.abandon(step);
            }
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

    /// Takes a sign of life. Whoever is new is a member when the group is durable, which is on the account of `owner` if it is new.
    pub async fn beat(
        &self,
        (group, owner): (&str, Option<&str>),
        beat: Beat,
        topic: impl Fn(&str) -> Option<Topic>,
    ) -> Result<Beaten, ShareError> {
        let is_new = beat.epoch == 0;
        let cell = match is_new {
            true => self.cell_or_new(group, owner)?,
            false => self.cell(group)?,
        };
        let mut beaten = Err(ShareError::NotAvailable);
        let take = |machine: &mut ShareMachine, now: Moment| machine.beat(beat, now, topic);
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
        let left = self.runtime.touch(&cell, |machine, _| {
            let left = machine.members.leave(member, topic);
            machine.settle_account();
            left
        });
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
        cell.map_or_else(
            || GroupSettings::defaults(group),
            |cell| cell.read(|it| it.settings),
        )
    }

    /// The topic that gets the group's dead letters.
    pub fn dead_letter_topic(&self, group: &str) -> Option<String> {
        let values = self.values(group).into_iter();
        let mut named =
            values.filter(|(name, value)| name == DEAD_LETTER_TOPIC && !value.is_empty());
        named.next().map(|(_, topic)| topic)
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
    pub async fn begin(
        &self,
        (group, makers): (&str, Makers<'_>),
        place: Place,
        start: Offset,
    ) -> Result<(), ShareError> {
        let cell = self.cell_or_new(group, makers.group)?;
        let sizes = |machine: &ShareMachine| {
            let mut sizes = machine.group_records();
            sizes.extend(machine.partition_records(1));
            sizes
        };
        let begun = self.step(&cell, sizes, |machine, now, step| {
            machine.create(now, step);
            let (place, start) = ((place, makers.topic), (new_incarnation(), start));
            machine.begin(place, start, false, now, step)?;
            Ok(Tally::default())
        });
        let begun = begun.await.map(drop);
        self.runtime.forget_if_gone(&cell);
        begun
    }

    /// The first record of `from..end` that can be given out now.
    pub fn first_available(
        &self,
        group: &str,
        place: Place,
        within: Range<Offset>,
    ) -> Option<Offset> {
        let cell = self.runtime.cell(group)?;
        let now = self.runtime.now().monotonic;
        cell.read(|machine| {
            let partition = machine.partitions.get(&place)?;
            let limits = machine.limits_of(partition, now);
            partition
                .runs
                .first_available(within.start, within.end, &limits)
        })
    }

    /// What of a range somebody may have, or has: all of it, where the group has not begun.
    pub fn unfinished_in(
        &self,
        group: &str,
        place: Place,
        within: Range<Offset>,
    ) -> Vec<Range<Offset>> {
        let unfinished = |machine: &ShareMachine| {
            let runs = &machine.partitions.get(&place)?.runs;
            let states = runs.states(within.start.max(runs.start())..within.end);
            let is_open = |state| matches!(state, State::Available { .. } | State::Acquired { .. });
            let open = states.filter(|(_, state)| is_open(*state));
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

    /// Finishes all of these offsets that anybody may have; how many records. Durable when it returns.
    pub(super) async fn discard(
        &self,
        group: &str,
        place: Place,
        range: Range<Offset>,
    ) -> Result<u64, ShareError> {
        let cell = self.cell(group)?;
        let mut records = 0;
        loop {
            let sizes = |machine: &ShareMachine| machine.discard_records(place, range.clone());
            let discarded = self.step(&cell, sizes, |machine, _, step| {
                Ok(machine.discard(place, range.clone(), step))
            });
            match discarded.await?.discarded {
                0 => return Ok(records),
                some => records += some,
            }
        }
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
        self.runtime.touch(&cell, |machine, _| {
            machine.forget_holder(member);
            machine.settle_account();
        });
        Ok(())
    }

    // Dead letters.

    /// Returns when records may wait for their dead letters.
    pub(super) async fn dead_notified(&self) {
        self.all.dead.notified().await;
    }

    /// The partitions with records that wait for their dead letters.
    pub(super) fn dead(&self) -> Vec<(Arc<str>, Place)> {
        let of_group = |cell: Arc<Cell>| {
            let places = cell.read(ShareMachine::dead).into_iter();
            places.map(move |place| (Arc::clone(cell.key()), place))
        };
        let cells = self.runtime.cells().into_iter();
        cells.flat_map(of_group).collect()
    }

    /// The first of them: so many runs at most.
    pub(super) fn dead_of(&self, group: &str, place: Place, runs_max: usize) -> Option<Dead> {
        let cell = self.runtime.cell(group)?;
        cell.read(|machine| {
            let partition = machine.partitions.get(&place)?;
            Some(Dead {
                place,
                incarnation: partition.incarnation,
                runs: partition.runs.archiving_runs(runs_max),
            })
        })
    }

    /// Archives records that waited for their dead letters, and writes those, in one frame; `tally` says what became of them. Nothing of it
    /// is stored if some do not wait any more. Durable when it returns.
    pub(super) async fn archive(
        &self,
        storage: &Storage,
        (group, place, incarnation): (&str, Place, Incarnation),
        ranges: &[Range<Offset>],
        (letters, tally): (Option<LogAppend>, Tally),
    ) -> Result<(), NotSettled> {
        let cell = [self.cell(group).map_err(NotSettled::Share)?];
        let letters = letters.into_iter().collect();
        let sizes = |_, machine: &ShareMachine| machine.settle_records(place, ranges);
        let mut act = |_, machine: &mut ShareMachine, _, step: &mut Step| {
            machine.archive((place, incarnation), ranges, tally, step)
        };
        let together = self
            .runtime
            .step_together(storage, &cell, letters, sizes, &mut act);
        let durable = together.await?;
        durable.await.map_err(NotSettled::Refused)
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

    /// How a partition is, of a log that reaches so far; None if the group has not begun with it.
    pub(super) fn look(&self, group: &str, place: Place, bounds: Range<Offset>) -> Option<Shown> {
        let cell = self.cell(group).ok()?;
        cell.read(|machine| {
            let partition = machine.partitions.get(&place)?;
            Some(Shown {
                start: partition.runs.start(),
                counts: partition.runs.counts(bounds.clone()),
                first: partition.runs.first_unfinished(bounds),
                holders: machine.holders_of(partition),
            })
        })
    }

    /// Begins anew with partitions of a group without members, which comes into being if it is not there, on the account of `owner`. With
    /// each comes who has made its topic. Durable when it returns.
    pub async fn reset(
        &self,
        (group, owner): (&str, Option<&str>),
        starts: &[(Place, Offset, Option<Arc<str>>)],
    ) -> Result<(), ShareError> {
        let cell = self.cell_or_new(group, owner)?;
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
                let mut of_piece = Vec::new();
                for (place, start, maker) in piece {
                    of_piece.extend(runs_of(cell.key(), *place, machine.partitions.get(place)));
                    let (place, start) = ((*place, maker.as_ref()), (new_incarnation(), *start));
                    machine.begin(place, start, true, now, step)?;
                }
                removed.append(&mut of_piece);
                Ok(Tally::default())
            });
            let reset = reset.await;
            self.runtime.forget_if_gone(&cell);
            reset?;
        }
        self.remove(removed).await;
        Ok(())
    }

    /// Whether records were not given out since the start, as there was no room for what is known of them.
    pub(super) fn has_lacked_room(&self) -> bool {
        self.all.ledger.has_refused_offset_bytes()
    }

    /// What became of records since the start, of all groups.
    pub fn totals(&self) -> Tally {
        self.all.totals.get()
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
        self.store_cut().await?;
        self.forget_left_owners().await?;
        let leftovers = self.leftovers.lock();
        let leftovers = std::mem::take(&mut *leftovers.expect("nothing panics under this lock"));
        self.remove(leftovers).await;
        self.forget_topics(|topic| !is_there(topic)).await
    }

    /// Stores where groups are with logs that ended before what was stored.
    async fn store_cut(&self) -> Result<(), ShareError> {
        let cut = self.cut.lock();
        let cut = std::mem::take(&mut *cut.expect("nothing panics under this lock"));
        for (group, place) in cut {
            let Some(cell) = self.runtime.cell(&group) else {
                continue;
            };
            while !cell.read(|machine| machine.is_stored(place)) {
                let sizes = |machine: &ShareMachine| machine.settle_records(place, &[]);
                let stored = self.step(&cell, sizes, |machine, _, step| {
                    machine.mend(place, step);
                    Ok(Tally::default())
                });
                stored.await?;
            }
        }
        Ok(())
    }

    /// Removes what says whose groups are that are not there: a stop has left it.
    async fn forget_left_owners(&self) -> Result<(), ShareError> {
        for cell in self.runtime.cells() {
            if !cell.read(coordination::Machine::is_gone) {
                continue;
            }
            let sizes = |machine: &ShareMachine| machine.owner_record().into_iter().collect();
            let forgotten = self.step(&cell, sizes, |machine, _, step| {
                machine.forget_owner(step);
                Ok(Tally::default())
            });
            forgotten.await?;
            self.runtime.forget_if_gone(&cell);
        }
        Ok(())
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

    /// Sets a group's settings, be it there or not; they are on the account of `owner` where it is not. Durable when it returns.
    pub async fn configure(
        &self,
        (group, owner): (&str, Option<&str>),
        values: Vec<(String, String)>,
        settings: GroupSettings,
    ) -> Result<(), ShareError> {
        let cell = self.cell_or_new(group, owner)?;
        let bytes = settings_record_bytes(group, &values);
        let sizes = |machine: &ShareMachine| {
            let owner = machine.owner_record().into_iter();
            owner.chain([bytes]).collect()
        };
        let configured = self.step(&cell, sizes, |machine, _, step| {
            machine.configure(values, settings, step);
            Ok(Tally::default())
        });
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
    let Some(SharedPartition {
        incarnation, runs, ..
    }) = partition
    else {
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

pub(super) fn new_incarnation() -> Incarnation {
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
