//! A partition as a group of consumers shares it: which records anybody may have, who holds which and until when, and which are finished.
//! Callers: a group's machine, for every protocol; it keeps the records that a step's change says, and takes back a step that could
//! not be stored. Pure: time comes in.
//! Invariants: what is acknowledged or archived never comes again. All before the start is finished. What is held is bounded, and so are the runs: at a bound nothing more is given out, and what is out can always be settled.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use model::Offset;

use super::runs::{Holder, Journal, Reason, Run, Runs, State};

/// Runs of a partition. From so many on only records before the last run are given out, which joins runs again.
pub const RUNS_MAX: usize = 64 << 10;
/// Runs of records that were delivered too often, and are given up in one step; runs that one step takes from the beginning, and those
/// that it mends.
const PIECE_RUNS: usize = 1_000;

/// What bounds a partition's deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A record is delivered so often at most.
    pub deliveries_max: u16,
    /// So many records are held at most.
    pub held_max: usize,
    /// From so many runs on nothing behind the last one is given out.
    pub runs_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            deliveries_max: 5,
            held_max: 2_000,
            runs_max: RUNS_MAX,
        }
    }
}

/// What somebody wants.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Where there are records that it wants; in order, and apart from each other.
    pub within: Vec<Range<Offset>>,
    /// Where there are none: compaction took them. In order too.
    pub absent: Vec<Range<Offset>>,
    /// So many at most.
    pub count_max: usize,
    /// Where batches end, in order: what is given ends with one of them, though it may be more than `count_max`. Nothing is
    /// rounded up where there are none.
    pub ends: Vec<Offset>,
    /// Who.
    pub holder: Holder,
    /// Until when it holds them; without end if None.
    pub until: Option<Duration>,
}

impl Ask {
    /// The end of the batch that a record before `end` is in.
    fn rounded(&self, end: Offset) -> Offset {
        let at = self.ends.partition_point(|it| *it < end);
        self.ends.get(at).copied().unwrap_or(end)
    }
}

/// What an acquisition does.
#[derive(Default)]
struct Chosen {
    given: Vec<Acquired>,
    /// Delivered too often: so often.
    given_up: Vec<(Range<Offset>, u16)>,
    absent: Vec<Range<Offset>>,
}

/// Records that were given to somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acquired {
    /// Which.
    pub offsets: Range<Offset>,
    /// How often they were delivered, with this time.
    pub count: u16,
}

/// What a holder says of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are done.
    Accept,
    /// Others may have them. The delivery counts.
    Release,
    /// Others may have them, as if they had not been delivered.
    Return,
    /// Nobody shall have them: they cannot be worked on.
    Reject,
    /// Nobody wants them any more: their time is over. They have no dead letters.
    Discard,
    /// There are no such records: compaction took them.
    Absent,
    /// They are held on, until then.
    Renew(Option<Duration>),
}

/// How many records came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Done.
    pub acknowledged: u64,
    /// Given back.
    pub released: u64,
    /// Given up: by a verdict, or because they were delivered too often.
    pub archived: u64,
    /// Of those that were given up: their dead letters are written.
    pub dead_letters: u64,
    /// Of those that were given up: they have no dead letters.
    pub dropped: u64,
    /// Not wanted any more.
    pub discarded: u64,
    /// Not there.
    pub absent: u64,
    /// Held on.
    pub renewed: u64,
    /// Given out.
    pub acquired: u64,
    /// Given back or given up because they were held for too long.
    pub expired: u64,
    /// Not finished when the log let go of them.
    pub lost: u64,
}

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: Tally) {
        self.acknowledged += other.acknowledged;
        self.released += other.released;
        self.archived += other.archived;
        self.dead_letters += other.dead_letters;
        self.dropped += other.dropped;
        self.discarded += other.discarded;
        self.absent += other.absent;
        self.renewed += other.renewed;
        self.acquired += other.acquired;
        self.expired += other.expired;
        self.lost += other.lost;
    }
}

/// How many records of a partition are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Anybody may have them.
    pub available: u64,
    /// Somebody has them.
    pub held: u64,
    /// Given up, and without their dead letters.
    pub archiving: u64,
    /// Done, or archived.
    pub finished: u64,
}

/// A record that whoever settles does not hold. Nothing was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record at offset {offset} is not held by who settles it")]
pub struct NotHeld {
    /// The first such record.
    pub offset: Offset,
}

/// What is kept of a run: who holds it is not, so that after a start anybody may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRun {
    /// Behind the last record.
    pub end: Offset,
    /// Their state.
    pub state: StoredState,
}

/// The states that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredState {
    /// Delivered so often, and not finished.
    Available(u16),
    /// Done.
    Acknowledged,
    /// Given up after so many deliveries, and without its dead letter.
    Archiving(u16, Reason),
    /// Given up.
    Archived,
}

impl From<StoredState> for State {
    fn from(stored: StoredState) -> State {
        match stored {
            StoredState::Available(count) => State::Available { count },
            StoredState::Acknowledged => State::Acknowledged,
            StoredState::Archiving(count, reason) => State::Archiving { count, reason },
            StoredState::Archived => State::Archived,
        }
    }
}

impl StoredState {
    /// Of steps that were stored in part the higher one counts.
    fn rank(self) -> u8 {
        match self {
            StoredState::Available(_) => 0,
            StoredState::Archiving(..) => 1,
            StoredState::Acknowledged | StoredState::Archived => 2,
        }
    }
}

impl StoredRun {
    fn of(run: &Run) -> StoredRun {
        let state = match run.state {
            State::Available { count } | State::Acquired { count, .. } => {
                StoredState::Available(count)
            }
            State::Acknowledged => StoredState::Acknowledged,
            State::Archiving { count, reason } => StoredState::Archiving(count, reason),
            State::Archived => StoredState::Archived,
        };
        StoredRun {
            end: run.end,
            state,
        }
    }
}

/// One thing to keep of a step, by what it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Where the partition starts.
    Start(Offset),
    /// The run at a base; none there if None.
    Run(Offset, Option<StoredRun>),
}

/// How a step is taken back.
#[derive(Debug)]
pub struct Undo {
    counted: Counted,
    runs: Journal,
    stale: BTreeSet<Offset>,
}

/// What is known of a partition beside its runs.
#[derive(Clone, Copy, Debug)]
struct Counted {
    start: Offset,
    held: usize,
    /// Records that are given up and have no dead letters yet.
    archiving: u64,
    /// No deadline is before it; None if there is none.
    wake_at: Option<Duration>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct SharePartition {
    now: Counted,
    runs: Runs,
    /// As it was at the beginning of the step.
    before: Counted,
    /// Bases of which what is stored is not what is here: of a step that a power cut stored in part.
    stale: BTreeSet<Offset>,
}

impl SharePartition {
    /// One that nobody has taken anything from. Whoever makes it keeps its start.
    pub fn new(start: Offset) -> SharePartition {
        SharePartition::restore(start, [], Offset::MAX)
    }

    /// One whose log ends before what is stored of it. It begins at that end, which the next step stores.
    pub fn cut(stored_start: Offset, end: Offset) -> SharePartition {
        let mut partition = SharePartition::new(end);
        partition.before.start = stored_start;
        partition
    }

    /// One as it is stored, of a log that ends there. Of a step that was stored in part what is finished counts; behind the log's end
    /// nothing does.
    pub fn restore(
        start: Offset,
        stored: impl IntoIterator<Item = (Offset, StoredRun)>,
        log_end: Offset,
    ) -> SharePartition {
        let mut runs = Runs::default();
        let stored: Vec<_> = stored.into_iter().collect();
        for rank in 0..=2 {
            for (base, run) in &stored {
                let there = (*base).max(start)..run.end.min(log_end);
                if run.state.rank() == rank && !there.is_empty() {
                    runs.set(there, run.state.into());
                }
            }
        }
        runs.take_journal();
        let archiving = runs.iter().map(|(offsets, state)| match state {
            State::Archiving { .. } => offsets.end.since(offsets.start),
            _ => 0,
        });
        let now = Counted {
            start,
            held: 0,
            archiving: archiving.sum(),
            wake_at: None,
        };
        let mut partition = SharePartition {
            now,
            runs,
            before: now,
            stale: BTreeSet::new(),
        };
        partition.advance();
        let journal = partition.runs.take_journal();
        let is_stale = |(base, run): &&(Offset, StoredRun)| {
            partition.runs.at(*base).map(StoredRun::of) != Some(*run)
        };
        let mut stale: BTreeSet<_> = stored
            .iter()
            .filter(is_stale)
            .map(|(base, _)| *base)
            .collect();
        stale.extend(journal.into_keys());
        let bases = partition.runs.iter().map(|(offsets, _)| offsets.start);
        let stored: BTreeSet<_> = stored.iter().map(|(base, _)| *base).collect();
        stale.extend(bases.filter(|base| !stored.contains(base)));
        partition.stale = stale;
        partition
    }

    /// Whether all of it is stored as it is.
    pub fn is_stored(&self) -> bool {
        self.stale.is_empty() && self.before.start == self.now.start
    }

    /// All before it is finished.
    pub fn start(&self) -> Offset {
        self.now.start
    }

    /// How many records are held.
    pub fn held(&self) -> usize {
        self.now.held
    }

    /// How many records are given up and have no dead letters yet.
    pub fn archiving(&self) -> u64 {
        self.now.archiving
    }

    /// How many runs it has.
    pub fn run_count(&self) -> usize {
        self.runs.count()
    }

    /// The first of them, in order: so many runs at most.
    pub fn archiving_runs(&self, runs_max: usize) -> Vec<(Range<Offset>, u16, Reason)> {
        if self.now.archiving == 0 {
            return Vec::new();
        }
        let archiving = |(offsets, state): (Range<Offset>, State)| match state {
            State::Archiving { count, reason } => Some((offsets, count, reason)),
            _ => None,
        };
        { self.runs.iter().filter_map(archiving) }
            .take(runs_max)
            .collect()
    }

    /// Records in `start..end` that are not finished.
    pub fn unfinished(&self, end: Offset) -> u64 {
        let finished = |(offsets, state): (Range<Offset>, State)| match state.is_finished() {
            true => offsets.end.min(end).since(offsets.start),
            false => 0,
        };
        end.since(self.now.start)
            - self
                .runs
                .iter()
                .map(finished)
                .sum::<u64>()
                .min(end.since(self.now.start))
    }

    /// How many records are in which state, of a log that reaches so far.
    pub fn counts(&self, bounds: Range<Offset>) -> Counts {
        let mut counts = Counts::default();
        let from = self.now.start.max(bounds.start);
        counts.finished = from.min(bounds.end).since(bounds.start);
        for (offsets, state) in self.runs.pieces(from..bounds.end) {
            let counted = match state {
                State::Available { .. } => &mut counts.available,
                State::Acquired { .. } => &mut counts.held,
                State::Archiving { .. } => &mut counts.archiving,
                State::Acknowledged | State::Archived => &mut counts.finished,
            };
            *counted += offsets.end.since(offsets.start);
        }
        counts
    }

    /// The first record that is not finished, of a log that reaches so far.
    pub fn first_unfinished(&self, bounds: Range<Offset>) -> Option<Offset> {
        let from = self.now.start.max(bounds.start);
        let mut pieces = self.runs.pieces(from..bounds.end);
        let found = pieces.find(|(_, state)| !state.is_finished());
        found.map(|(offsets, _)| offsets.start)
    }

    /// Who holds how many records.
    pub fn holders(&self) -> BTreeMap<Holder, u64> {
        let mut holders = BTreeMap::new();
        if self.now.held > 0 {
            for (offsets, state) in self.runs.iter() {
                if let State::Acquired { holder, .. } = state {
                    *holders.entry(holder).or_default() += offsets.end.since(offsets.start);
                }
            }
        }
        holders
    }

    /// What anybody may have of these offsets: the first pieces of it.
    pub fn available(&self, range: Range<Offset>) -> Vec<Range<Offset>> {
        let pieces = self.runs.pieces(range.start.max(self.now.start)..range.end);
        let available = pieces.filter(|(_, state)| matches!(state, State::Available { .. }));
        available
            .map(|(offsets, _)| offsets)
            .take(PIECE_RUNS)
            .collect()
    }

    /// No deadline passes before it. May be early.
    pub fn wake_at(&self) -> Option<Duration> {
        self.now.wake_at
    }

    /// What is in `range`, in order.
    pub fn states(
        &self,
        range: Range<Offset>,
    ) -> impl Iterator<Item = (Range<Offset>, State)> + '_ {
        self.runs.pieces(range)
    }

    /// The first record from `from` on that anybody may have, if it lies before `end` and more may be given out.
    pub fn first_available(&self, from: Offset, end: Offset, limits: &Limits) -> Option<Offset> {
        if self.now.held >= limits.held_max {
            return None;
        }
        let end = self.given_end(end, limits);
        let mut pieces = self.runs.pieces(from.max(self.now.start)..end);
        let found = pieces.find(|(_, state)| matches!(state, State::Available { .. }));
        found.map(|(offsets, _)| offsets.start)
    }

    fn given_end(&self, end: Offset, limits: &Limits) -> Offset {
        match self.runs.count() >= limits.runs_max {
            true => end.min(self.runs.end(self.now.start)),
            false => end,
        }
    }

    // Steps.

    /// What [`SharePartition::acquire`] would do.
    fn choose(&self, ask: &Ask, limits: &Limits) -> Chosen {
        let mut room = limits.held_max.saturating_sub(self.now.held) as u64;
        let mut left = (ask.count_max as u64).min(room);
        let mut chosen = Chosen::default();
        for range in &ask.absent {
            let end = self.given_end(range.end, limits);
            for (offsets, state) in self.runs.pieces(range.start.max(self.now.start)..end) {
                if chosen.absent.len() < PIECE_RUNS && matches!(state, State::Available { .. }) {
                    chosen.absent.push(offsets);
                }
            }
        }
        for range in &ask.within {
            let end = self.given_end(range.end, limits);
            for (offsets, state) in self.runs.pieces(range.start.max(self.now.start)..end) {
                if left == 0 {
                    return chosen;
                }
                match state {
                    State::Available { count } if count >= limits.deliveries_max => {
                        if chosen.given_up.len() == PIECE_RUNS {
                            return chosen;
                        }
                        chosen.given_up.push((offsets, count));
                    }
                    State::Available { count } => {
                        let end = ask.rounded(offsets.start.plus(left));
                        let end = end.min(offsets.start.plus(room)).min(offsets.end);
                        let records = end.since(offsets.start);
                        left = left.saturating_sub(records);
                        room -= records;
                        chosen.given.push(Acquired {
                            offsets: offsets.start..end,
                            count: count + 1,
                        });
                    }
                    State::Acquired { .. }
                    | State::Acknowledged
                    | State::Archiving { .. }
                    | State::Archived => {}
                }
            }
        }
        chosen
    }

    /// Gives records to somebody: the first that are available and wanted.
    pub fn acquire(&mut self, ask: &Ask, limits: &Limits) -> (Vec<Acquired>, Tally) {
        let Chosen {
            given,
            given_up,
            absent,
        } = self.choose(ask, limits);
        for piece in &given {
            let state = State::Acquired {
                holder: ask.holder,
                count: piece.count,
                until: ask.until,
            };
            self.put(piece.offsets.clone(), state);
        }
        let mut tally = Tally::default();
        for (offsets, count) in given_up {
            tally.archived += offsets.end.since(offsets.start);
            let reason = Reason::DeliveredTooOften;
            self.put(offsets, State::Archiving { count, reason });
        }
        for offsets in absent {
            tally.absent += offsets.end.since(offsets.start);
            self.put(offsets, State::Archived);
        }
        self.advance();
        (given, tally)
    }

    /// Does with records what their holder says: with all of them or, if one is not held, with none. What is before the start of
    /// the log, `log_start`, is nobody's, and passed over.
    pub fn settle(
        &mut self,
        holder: Holder,
        verdicts: &[(Range<Offset>, Verdict)],
        log_start: Offset,
        limits: &Limits,
    ) -> Result<Tally, NotHeld> {
        let verdicts = || {
            let kept = |(range, verdict): &(Range<Offset>, Verdict)| {
                (range.start.max(log_start)..range.end, *verdict)
            };
            verdicts
                .iter()
                .map(kept)
                .filter(|(range, _)| !range.is_empty())
        };
        for (range, _) in verdicts() {
            if range.start < self.now.start {
                return Err(NotHeld {
                    offset: range.start,
                });
            }
            let is_held = |state: &State| matches!(state, State::Acquired { holder: it, .. } if *it == holder);
            let mut pieces = self.runs.pieces(range);
            if let Some((offsets, _)) = pieces.find(|(_, state)| !is_held(state)) {
                return Err(NotHeld {
                    offset: offsets.start,
                });
            }
        }
        let mut tally = Tally::default();
        for (range, verdict) in verdicts() {
            let pieces: Vec<_> = self.runs.pieces(range).collect();
            for (offsets, state) in pieces {
                // Of ranges that overlap the first counts.
                if let State::Acquired { count, .. } = state {
                    self.settle_piece(offsets, holder, count, verdict, limits, &mut tally);
                }
            }
        }
        self.advance();
        Ok(tally)
    }

    fn settle_piece(
        &mut self,
        offsets: Range<Offset>,
        holder: Holder,
        count: u16,
        verdict: Verdict,
        limits: &Limits,
        tally: &mut Tally,
    ) {
        let records = offsets.end.since(offsets.start);
        let given_up = match verdict {
            Verdict::Reject => Some(Reason::Rejected),
            Verdict::Release if count >= limits.deliveries_max => Some(Reason::DeliveredTooOften),
            _ => None,
        };
        if let Some(reason) = given_up {
            tally.archived += records;
            return self.put(offsets, State::Archiving { count, reason });
        }
        let (state, counted) = match verdict {
            Verdict::Accept => (State::Acknowledged, &mut tally.acknowledged),
            Verdict::Absent => (State::Archived, &mut tally.absent),
            Verdict::Reject | Verdict::Discard => (State::Archived, &mut tally.discarded),
            Verdict::Release => (State::Available { count }, &mut tally.released),
            Verdict::Return => {
                let count = count.saturating_sub(1);
                (State::Available { count }, &mut tally.released)
            }
            Verdict::Renew(until) => {
                let state = State::Acquired {
                    holder,
                    count,
                    until,
                };
                (state, &mut tally.renewed)
            }
        };
        *counted += records;
        self.put(offsets, state);
    }

    /// Releases what somebody holds, who has gone.
    pub fn leave(&mut self, holder: Holder, limits: &Limits) -> Tally {
        self.release_where((Verdict::Release, limits), |it, _| it == holder)
    }

    /// Releases what somebody holds, as if it had not been delivered.
    pub fn give_back(&mut self, holder: Holder, limits: &Limits) -> Tally {
        self.release_where((Verdict::Return, limits), |it, _| it == holder)
    }

    /// Releases what was held until now.
    pub fn expire(&mut self, now: Duration, limits: &Limits) -> Tally {
        let is_over = |_, until: Option<Duration>| until.is_some_and(|until| until <= now);
        let tally = self.release_where((Verdict::Release, limits), is_over);
        let deadline = |(_, state): (Range<Offset>, State)| match state {
            State::Acquired { until, .. } => until,
            _ => None,
        };
        self.now.wake_at = self.runs.iter().filter_map(deadline).min();
        tally
    }

    fn release_where(
        &mut self,
        (verdict, limits): (Verdict, &Limits),
        is_meant: impl Fn(Holder, Option<Duration>) -> bool,
    ) -> Tally {
        let mut tally = Tally::default();
        if self.now.held == 0 {
            return tally;
        }
        let meant = |(offsets, state): (Range<Offset>, State)| match state {
            State::Acquired {
                holder,
                count,
                until,
            } if is_meant(holder, until) => Some((offsets, holder, count)),
            _ => None,
        };
        for (offsets, holder, count) in self.runs.iter().filter_map(meant).collect::<Vec<_>>() {
            self.settle_piece(offsets, holder, count, verdict, limits, &mut tally);
        }
        self.advance();
        tally
    }

    /// Finishes what anybody may have of these offsets, some pieces of it; how many records.
    pub fn discard(&mut self, range: Range<Offset>) -> u64 {
        let mut records = 0;
        for offsets in self.available(range) {
            records += offsets.end.since(offsets.start);
            self.put(offsets, State::Archived);
        }
        self.advance();
        records
    }

    /// Archives records that were given up, which have dead letters now, or get none. False, and nothing is done, if some of them are not
    /// being archived any more.
    pub fn archive(&mut self, ranges: &[Range<Offset>]) -> bool {
        let is_archiving =
            |(_, state): (Range<Offset>, State)| matches!(state, State::Archiving { .. });
        let is_meant = |range: &Range<Offset>| {
            range.start >= self.now.start && self.runs.pieces(range.clone()).all(is_archiving)
        };
        if !ranges.iter().all(is_meant) {
            return false;
        }
        for range in ranges {
            self.put(range.clone(), State::Archived);
        }
        self.advance();
        true
    }

    /// Forgets what is before `log_start`: those records do not exist any more. How many of them were not finished. Of many runs it
    /// takes some: whoever trims goes on until the start is there.
    pub fn trim(&mut self, log_start: Offset) -> u64 {
        let to = match self.runs.iter().nth(PIECE_RUNS) {
            Some((offsets, _)) => log_start.min(offsets.start),
            None => log_start,
        };
        if to <= self.now.start {
            return 0;
        }
        let lost = self.unfinished(to);
        self.begin_at(to);
        lost
    }

    fn begin_at(&mut self, start: Offset) {
        self.put(self.now.start..start, State::FRESH);
        self.runs.forget_before(start);
        self.now.start = start;
        self.advance();
    }

    /// Puts records into a state, and counts what is held.
    fn put(&mut self, offsets: Range<Offset>, state: State) {
        let count = |(offsets, state): (Range<Offset>, State)| {
            let records = offsets.end.since(offsets.start);
            match state {
                State::Acquired { .. } => (records, 0),
                State::Archiving { .. } => (0, records),
                _ => (0, 0),
            }
        };
        for (held, archiving) in self.runs.pieces(offsets.clone()).map(count) {
            self.now.held -= held as usize;
            self.now.archiving -= archiving;
        }
        let (held, archiving) = count((offsets.clone(), state));
        self.now.held += held as usize;
        self.now.archiving += archiving;
        if let State::Acquired {
            until: Some(until), ..
        } = state
        {
            self.now.wake_at = Some(self.now.wake_at.map_or(until, |at| at.min(until)));
        }
        self.runs.set(offsets, state);
    }

    /// Moves the start behind what is finished. Of many runs it takes some, and the next step goes on.
    fn advance(&mut self) {
        let mut start = self.now.start;
        for _ in 0..PIECE_RUNS {
            match self.runs.at(start).filter(|run| run.state.is_finished()) {
                Some(run) => start = run.end,
                None => break,
            }
        }
        if start > self.now.start {
            self.runs.forget_before(start);
            self.now.start = start;
        }
    }

    // What a step changed.

    /// How many things a step has to keep at most that touches these ranges.
    pub fn keeps_max(&self, ranges: &[Range<Offset>]) -> usize {
        let touched = ranges
            .iter()
            .map(|range| self.runs.pieces(range.clone()).count());
        // Of each piece: itself, what is left of its run on both sides, and the neighbours that it joins.
        let pieces = 5 * touched.sum::<usize>();
        let is_touched = |at: Offset| ranges.iter().any(|range| range.contains(&at));
        let mut heads = 0;
        let mut at = self.now.start;
        while let Some((offsets, state)) = self.runs.pieces(at..Offset::MAX).next()
            && (state.is_finished() || is_touched(offsets.start))
            && heads < PIECE_RUNS
        {
            heads += 1;
            at = match state.is_finished() {
                true => offsets.end,
                false => ranges
                    .iter()
                    .filter(|range| range.contains(&offsets.start))
                    .map(|range| range.end.min(offsets.end))
                    .max()
                    .unwrap_or(offsets.end),
            };
        }
        pieces + heads + self.stale.len().min(PIECE_RUNS) + 1
    }

    /// How many things more it keeps when it is trimmed.
    pub fn trims_max(&self, log_start: Offset) -> usize {
        match log_start > self.now.start {
            true => {
                let before = self.runs.iter().take_while(|(it, _)| it.start < log_start);
                before.take(PIECE_RUNS).count() + 2 + PIECE_RUNS
            }
            false => 0,
        }
    }

    /// The ranges that an acquisition touches.
    pub fn touched_by(&self, ask: &Ask, limits: &Limits) -> Vec<Range<Offset>> {
        let Chosen {
            given,
            given_up,
            absent,
        } = self.choose(ask, limits);
        let mut touched = absent;
        touched.extend(given_up.into_iter().map(|(offsets, _)| offsets));
        touched.extend(given.into_iter().map(|piece| piece.offsets));
        touched
    }

    /// The ranges that are held by somebody, or until then.
    pub fn held_ranges(
        &self,
        is_meant: impl Fn(Holder, Option<Duration>) -> bool,
    ) -> Vec<Range<Offset>> {
        if self.now.held == 0 {
            return Vec::new();
        }
        let held = |(offsets, state): (Range<Offset>, State)| match state {
            State::Acquired { holder, until, .. } if is_meant(holder, until) => Some(offsets),
            _ => None,
        };
        self.runs.iter().filter_map(held).collect()
    }

    /// Every run's base: what there is to remove when nothing of the partition is to be kept.
    pub fn bases(&self) -> BTreeSet<Offset> {
        let bases = self.runs.iter().map(|(offsets, _)| offsets.start);
        bases.chain(self.stale.iter().copied()).collect()
    }

    /// Ends a step: what is to be kept of it, and how it is taken back. What replaces comes before what is removed, so that of a step
    /// which is stored in part nothing that was finished before is lost.
    pub fn end_step(&mut self) -> (Vec<Keep>, Undo) {
        let runs = self.runs.take_journal();
        let mut stale = std::mem::take(&mut self.stale);
        if let Some(later) = stale.iter().nth(PIECE_RUNS).copied() {
            self.stale = stale.split_off(&later);
        }
        let counted = std::mem::replace(&mut self.before, self.now);
        let mut keeps = Vec::new();
        if self.now.start != counted.start {
            keeps.push(Keep::Start(self.now.start));
        }
        let stored = |run: Option<&Run>| run.map(StoredRun::of);
        let is_changed = |(base, before): &(&Offset, &Option<Run>)| {
            stored(before.as_ref()) != stored(self.runs.at(**base))
        };
        let changed = runs.iter().filter(is_changed).map(|(base, _)| *base);
        let bases: BTreeSet<Offset> = changed.chain(stale.iter().copied()).collect();
        for is_put in [true, false] {
            for base in &bases {
                let now = stored(self.runs.at(*base));
                if now.is_some() == is_put {
                    keeps.push(Keep::Run(*base, now));
                }
            }
        }
        let undo = Undo {
            counted,
            runs,
            stale,
        };
        (keeps, undo)
    }

    /// Takes the last step back: it could not be stored.
    pub fn take_back(&mut self, undo: Undo) {
        let Undo {
            counted,
            runs,
            stale,
        } = undo;
        self.runs.put_back(runs);
        (self.now, self.before) = (counted, counted);
        self.stale.extend(stale);
    }
}
