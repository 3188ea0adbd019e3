//! An interval map of offsets: runs of records that are in one state. What stands in no run is available and was never delivered, so
//! that a partition that nobody has taken from holds nothing, and records that nobody wants cost one run, however many they are.
//! Callers: `partition`. Pure.
//! Invariants: runs are not empty, do not overlap, and neighbours that touch differ. Every change is journaled by the run's base, until
//! the journal is taken: what a step changed is known to the run, and can be taken back.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use model::Offset;

/// Who holds records: a member, a link, a connection. Numbers are given by whoever owns the partition, and mean nothing after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(pub u64);

/// What is the case with a record. Counts are deliveries, the one under way included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Anybody may have it.
    Available {
        /// How often it was delivered in vain.
        count: u16,
    },
    /// Somebody has it.
    Acquired {
        /// Who.
        holder: Holder,
        /// How often it was delivered.
        count: u16,
        /// Until when it is held, by the monotonic clock; without end if None.
        until: Option<Duration>,
    },
    /// It was worked on, and never comes again.
    Acknowledged,
    /// It was given up, and nobody gets it; it is archived when its dead letter is written.
    Archiving {
        /// How often it was delivered.
        count: u16,
        /// Why it was given up.
        reason: Reason,
    },
    /// It was given up, and never comes again.
    Archived,
}

/// Why records are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Who held them said so.
    Rejected,
    /// They were delivered as often as they may be.
    DeliveredTooOften,
}

impl Reason {
    /// In the words of Kafka's dead letters.
    pub fn words(self) -> &'static str {
        match self {
            Reason::Rejected => "Offset rejected by client.",
            Reason::DeliveredTooOften => "Offset delivery count exceeded the threshold.",
        }
    }
}

impl State {
    /// Of records that nobody had.
    pub const FRESH: State = State::Available { count: 0 };

    /// Whether it never comes again.
    pub fn is_finished(self) -> bool {
        matches!(self, State::Acknowledged | State::Archived)
    }
}

/// Records in one state; where they begin is the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Behind the last one.
    pub end: Offset,
    /// Theirs.
    pub state: State,
}

/// The runs that were at these bases before the changes.
pub type Journal = BTreeMap<Offset, Option<Run>>;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    map: BTreeMap<Offset, Run>,
    journal: Journal,
}

impl Runs {
    /// How many runs.
    pub fn count(&self) -> usize {
        self.map.len()
    }

    /// Behind the last run; `start` if there is none.
    pub fn end(&self, start: Offset) -> Offset {
        self.map.last_key_value().map_or(start, |(_, run)| run.end)
    }

    /// The run that begins here.
    pub fn at(&self, base: Offset) -> Option<&Run> {
        self.map.get(&base)
    }

    /// All runs.
    pub fn iter(&self) -> impl Iterator<Item = (Range<Offset>, State)> + '_ {
        let piece = |(base, run): (&Offset, &Run)| (*base..run.end, run.state);
        self.map.iter().map(piece)
    }

    /// What is in `range`, in order and without gaps.
    pub fn pieces(&self, range: Range<Offset>) -> Pieces<'_> {
        Pieces {
            runs: self,
            at: range.start,
            end: range.end,
        }
    }

    /// The run that holds this offset.
    fn containing(&self, offset: Offset) -> Option<(Offset, Run)> {
        let (base, run) = self.map.range(..=offset).next_back()?;
        (run.end > offset).then_some((*base, *run))
    }

    fn put(&mut self, base: Offset, run: Option<Run>) {
        let before = match run {
            Some(run) => {
                assert!(run.end > base, "a run holds something");
                self.map.insert(base, run)
            }
            None => self.map.remove(&base),
        };
        self.journal.entry(base).or_insert(before);
    }

    fn split_at(&mut self, offset: Offset) {
        if let Some((base, run)) = self.containing(offset)
            && base < offset
        {
            self.put(base, Some(Run { end: offset, ..run }));
            self.put(offset, Some(run));
        }
    }

    /// Puts records into a state.
    pub fn set(&mut self, range: Range<Offset>, state: State) {
        if range.is_empty() {
            return;
        }
        self.split_at(range.start);
        self.split_at(range.end);
        let inside = self.map.range(range.clone()).map(|(base, _)| *base);
        for base in inside.collect::<Vec<_>>() {
            self.put(base, None);
        }
        if state == State::FRESH {
            return;
        }
        let Range { mut start, mut end } = range;
        if let Some((base, before)) = self.map.range(..start).next_back()
            && before.end == start
            && before.state == state
        {
            start = *base;
        }
        if let Some(after) = self.map.get(&end).copied()
            && after.state == state
        {
            self.put(end, None);
            end = after.end;
        }
        self.put(start, Some(Run { end, state }));
    }

    /// Forgets what is before `offset`.
    pub fn forget_before(&mut self, offset: Offset) {
        self.split_at(offset);
        let before = self.map.range(..offset).map(|(base, _)| *base);
        for base in before.collect::<Vec<_>>() {
            self.put(base, None);
        }
    }

    /// What changed since the last time, which is settled now.
    pub fn take_journal(&mut self) -> Journal {
        std::mem::take(&mut self.journal)
    }

    /// Puts back what was before the changes of a journal that was the last.
    pub fn put_back(&mut self, journal: Journal) {
        assert!(self.journal.is_empty(), "the last journal is put back");
        for (base, run) in journal {
            match run {
                Some(run) => self.map.insert(base, run),
                None => self.map.remove(&base),
            };
        }
    }
}

/// See [`Runs::pieces`].
pub struct Pieces<'a> {
    runs: &'a Runs,
    at: Offset,
    end: Offset,
}

impl Iterator for Pieces<'_> {
    type Item = (Range<Offset>, State);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let start = self.at;
        let (end, state) = match self.runs.containing(start) {
            Some((_, run)) => (run.end, run.state),
            None => {
                let next = self.runs.map.range(start..self.end).next();
                (next.map_or(self.end, |(base, _)| *base), State::FRESH)
            }
        };
        self.at = end.min(self.end);
        Some((start..self.at, state))
    }
}
