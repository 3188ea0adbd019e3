//! Random histories of members that take, settle, renew, go, and let deadlines pass, of steps that cannot be stored, of power cuts
//! between and within steps, against a model that knows each record by itself.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const RECORDS: u64 = 40;
const LIMITS: Limits = Limits {
    deliveries_max: 3,
    held_max: 12,
    runs_max: 10,
};

#[derive(Clone, Debug)]
enum Act {
    Acquire {
        holder: u64,
        within: Vec<Range<u64>>,
        count: usize,
        lasts: Option<u64>,
    },
    Settle {
        holder: u64,
        verdicts: Vec<(Range<u64>, Verdict)>,
        /// Only what it holds of the ranges, so that it is not refused.
        clipped: bool,
    },
    Leave(u64),
    Pass(u64),
    Trim(u64),
    /// What of it was given up has its dead letters.
    Archive {
        range: Range<u64>,
        /// Only what was given up of it, so that it is not refused.
        clipped: bool,
    },
}

#[derive(Clone, Debug)]
enum Step {
    Act(Act),
    /// It is not stored.
    Refused(Act),
    /// The power is cut when so many of its records are stored.
    Torn(Act, usize),
    Cut,
}

/// A record of the model. Deadlines are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    Available(u16),
    Held(u64, u16, Option<u64>),
    Acknowledged,
    Archiving(u16, Reason),
    Archived,
}

#[derive(Clone, Debug)]
struct Model {
    /// Records of the log, from the first that there ever was.
    records: Vec<Record>,
    log_start: u64,
    start: u64,
    now: u64,
}

impl Model {
    fn held(&self) -> usize {
        let is_held = |record: &&Record| matches!(record, Record::Held(..));
        self.records.iter().filter(is_held).count()
    }

    fn advance(&mut self) {
        while let Some(Record::Acknowledged | Record::Archived) =
            self.records.get(self.start as usize)
        {
            self.start += 1;
        }
    }

    fn release(&mut self, is_meant: impl Fn(u64, Option<u64>) -> bool) {
        for at in 0..self.records.len() {
            let too_often = |count| Record::Archiving(count, Reason::DeliveredTooOften);
            if let Record::Held(holder, count, until) = self.records[at]
                && is_meant(holder, until)
            {
                self.records[at] = match count >= LIMITS.deliveries_max {
                    true => too_often(count),
                    false => Record::Available(count),
                };
            }
        }
        self.advance();
    }

    /// What a start finds.
    fn cut(&mut self) {
        for record in &mut self.records {
            if let Record::Held(_, count, _) = *record {
                *record = Record::Available(count);
            }
        }
    }

    /// Gives the records that somebody gets, with their counts. `known_end` is where nothing is given out any more.
    fn acquire(
        &mut self,
        holder: u64,
        within: &[Range<u64>],
        count_max: usize,
        until: Option<u64>,
        known_end: u64,
    ) -> Vec<(u64, u16)> {
        let mut left = count_max.min(LIMITS.held_max.saturating_sub(self.held()));
        let mut given = Vec::new();
        for offset in within.iter().cloned().flatten() {
            if left == 0 {
                break;
            }
            if offset < self.start || offset >= known_end {
                continue;
            }
            let at = offset as usize;
            match self.records[at] {
                Record::Available(count) if count >= LIMITS.deliveries_max => {
                    self.records[at] = Record::Archiving(count, Reason::DeliveredTooOften);
                }
                Record::Available(count) => {
                    self.records[at] = Record::Held(holder, count + 1, until);
                    given.push((offset, count + 1));
                    left -= 1;
                }
                _ => {}
            }
        }
        self.advance();
        given
    }

    fn settle(&mut self, holder: u64, verdicts: &[(Range<u64>, Verdict)]) -> Result<(), u64> {
        let log_start = self.log_start;
        let of = |range: &Range<u64>| range.start.max(log_start)..range.end;
        for offset in verdicts.iter().flat_map(|(range, _)| of(range)) {
            let is_held =
                matches!(self.records[offset as usize], Record::Held(it, ..) if it == holder);
            if !is_held || offset < self.start {
                return Err(offset);
            }
        }
        for (range, verdict) in verdicts {
            for offset in of(range) {
                let at = offset as usize;
                let Record::Held(_, count, _) = self.records[at] else {
                    continue;
                };
                self.records[at] = match verdict {
                    Verdict::Accept => Record::Acknowledged,
                    Verdict::Absent | Verdict::Discard => Record::Archived,
                    Verdict::Reject => Record::Archiving(count, Reason::Rejected),
                    Verdict::Release if count >= LIMITS.deliveries_max => {
                        Record::Archiving(count, Reason::DeliveredTooOften)
                    }
                    Verdict::Release => Record::Available(count),
                    Verdict::Return => Record::Available(count - 1),
                    Verdict::Renew(until) => {
                        Record::Held(holder, count, until.map(|until| until.as_secs()))
                    }
                };
            }
        }
        self.advance();
        Ok(())
    }

    fn trim(&mut self, log_start: u64) {
        self.log_start = self.log_start.max(log_start);
        if self.log_start > self.start {
            self.start = self.log_start;
            self.records[..self.start as usize].fill(Record::Archived);
            self.advance();
        }
    }
}

/// The machine, what of it is stored, and the model beside it.
struct Both {
    limits: Limits,
    partition: SharePartition,
    kept: Kept,
    model: Model,
    /// Who was told that which records are done: they never come again.
    told: Vec<bool>,
}

impl Both {
    fn new() -> Both {
        Both {
            limits: LIMITS,
            partition: SharePartition::new(Offset::ZERO),
            kept: Kept::default(),
            model: Model {
                records: vec![Record::Available(0); RECORDS as usize],
                log_start: 0,
                start: 0,
                now: 0,
            },
            told: vec![false; RECORDS as usize],
        }
    }

    /// Of these ranges what the holder holds.
    fn clip(&self, holder: u64, verdicts: &[(Range<u64>, Verdict)]) -> Vec<(Range<u64>, Verdict)> {
        let held = |offset: &u64| matches!(self.model.records[*offset as usize], Record::Held(it, ..) if it == holder);
        let singles = verdicts.iter().flat_map(|(range, verdict)| {
            range
                .clone()
                .filter(held)
                .map(|offset| (offset..offset + 1, *verdict))
        });
        singles.collect()
    }

    /// Takes a step in both, and says what it may have to keep at most.
    fn act(&mut self, act: &Act) -> usize {
        let Both {
            partition,
            model,
            limits,
            ..
        } = self;
        let limits = *limits;
        match act {
            Act::Acquire {
                holder,
                within,
                count,
                lasts,
            } => {
                let until = lasts.map(|lasts| model.now + lasts);
                let ask = Ask {
                    within: within.iter().cloned().map(offsets).collect(),
                    absent: Vec::new(),
                    count_max: *count,
                    ends: Vec::new(),
                    holder: Holder(*holder),
                    until: until.map(Duration::from_secs),
                };
                let most = partition.keeps_max(&partition.touched_by(&ask, &limits));
                let runs = runs_of(model);
                let known_end = match runs.len() >= LIMITS.runs_max {
                    true => runs.last().map_or(model.start, |(range, _)| range.end),
                    false => RECORDS,
                };
                let (given, _) = partition.acquire(&ask, &limits);
                let given = given.into_iter().flat_map(|piece| {
                    let Range { start, end } = piece.offsets;
                    (start.get()..end.get()).map(move |offset| (offset, piece.count))
                });
                let given: Vec<_> = given.collect();
                assert!(given.iter().all(|(offset, _)| !self.told[*offset as usize]));
                let wanted = model.acquire(*holder, within, *count, until, known_end);
                assert_eq!(given, wanted);
                most
            }
            Act::Settle {
                holder,
                verdicts,
                clipped,
            } => {
                let verdicts = match clipped {
                    true => self.clip(*holder, verdicts),
                    false => verdicts.clone(),
                };
                let Both {
                    partition, model, ..
                } = self;
                let asked: Vec<_> = verdicts
                    .iter()
                    .map(|(range, verdict)| (offsets(range.clone()), *verdict))
                    .collect();
                let ranges: Vec<_> = asked.iter().map(|(range, _)| range.clone()).collect();
                let most = partition.keeps_max(&ranges);
                let log_start = Offset::new(model.log_start);
                let settled = partition.settle(Holder(*holder), &asked, log_start, &limits);
                let wanted = model.settle(*holder, &verdicts);
                assert_eq!(settled.map(drop).map_err(|it| it.offset.get()), wanted);
                most
            }
            Act::Leave(holder) => {
                let ranges = partition.held_ranges(|it, _| it == Holder(*holder));
                let most = partition.keeps_max(&ranges);
                partition.leave(Holder(*holder), &limits);
                model.release(|it, _| it == *holder);
                most
            }
            Act::Pass(seconds) => {
                model.now += seconds;
                let now = Duration::from_secs(model.now);
                let due = |until: Option<Duration>| until.is_some_and(|until| until <= now);
                let ranges = partition.held_ranges(|_, until| due(until));
                assert!(ranges.is_empty() || partition.wake_at().is_some_and(|at| at <= now));
                let most = partition.keeps_max(&ranges);
                partition.expire(now, &limits);
                let now = model.now;
                model.release(|_, until| until.is_some_and(|until| until <= now));
                most
            }
            Act::Trim(start) => {
                let most = partition.bases().len() + 3;
                model.trim(*start);
                partition.trim(Offset::new(model.log_start));
                most
            }
            Act::Archive { range, clipped } => {
                let is_archiving = |offset: &u64| {
                    let record = model.records[*offset as usize];
                    *offset >= model.start && matches!(record, Record::Archiving(..))
                };
                let all = range.clone().all(|offset| is_archiving(&offset));
                let meant: Vec<u64> = match clipped {
                    true => range.clone().filter(is_archiving).collect(),
                    false => range.clone().collect(),
                };
                let ranges: Vec<_> = meant.iter().map(|at| offsets(*at..at + 1)).collect();
                let most = partition.keeps_max(&ranges);
                assert_eq!(partition.archive(&ranges), *clipped || all);
                if *clipped || all {
                    for offset in meant {
                        model.records[offset as usize] = Record::Archived;
                    }
                    model.advance();
                }
                most
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Act(act) => {
                let most = self.act(act);
                let (keeps, _) = self.partition.end_step();
                assert!(keeps.len() <= most, "{} of {most}", keeps.len());
                keeps.into_iter().for_each(|keep| self.kept.apply(keep));
                self.tell();
            }
            Step::Refused(act) => {
                let (model, told) = (self.model.clone(), self.told.clone());
                self.act(act);
                let (_, undo) = self.partition.end_step();
                self.partition.take_back(undo);
                (self.model, self.told) = (model, told);
            }
            Step::Torn(act, count) => {
                let before = self.told.clone();
                self.act(act);
                let (keeps, _) = self.partition.end_step();
                // With its dead letters it is one frame.
                let count = match act {
                    Act::Archive { .. } if *count < keeps.len() => 0,
                    _ => *count,
                };
                let is_whole = count >= keeps.len();
                keeps
                    .into_iter()
                    .take(count)
                    .for_each(|keep| self.kept.apply(keep));
                self.partition = self.kept.restore();
                match is_whole {
                    true => self.model.cut(),
                    false => {
                        self.told = before;
                        self.adopt();
                    }
                }
                self.check_told();
            }
            Step::Cut => {
                self.partition = self.kept.restore();
                self.model.cut();
            }
        }
        self.check();
    }

    /// Of a step that was torn anything may be stored, but what was told before it is.
    fn adopt(&mut self) {
        self.model.start = self.partition.start().get();
        self.model.records[..self.model.start as usize].fill(Record::Archived);
        for (range, state) in self
            .partition
            .states(self.partition.start()..Offset::new(RECORDS))
        {
            let range = range.start.get() as usize..range.end.get() as usize;
            self.model.records[range].fill(record_of(state));
        }
    }

    fn tell(&mut self) {
        for (record, told) in self.model.records.iter().zip(&mut self.told) {
            *told |= matches!(record, Record::Acknowledged | Record::Archiving(..));
        }
    }

    fn check_told(&self) {
        for (offset, told) in self.told.iter().enumerate() {
            let record = self.model.records[offset];
            let is_finished = matches!(
                record,
                Record::Acknowledged | Record::Archiving(..) | Record::Archived
            );
            assert!(
                !told || is_finished,
                "{offset} was acknowledged, or given up: {record:?}"
            );
        }
    }

    fn check(&self) {
        let Both {
            partition, model, ..
        } = self;
        assert_eq!(partition.start().get(), model.start);
        assert_eq!(partition.held(), model.held());
        let archiving = { model.records[model.start as usize..].iter() }
            .filter(|record| matches!(record, Record::Archiving(..)));
        assert_eq!(partition.archiving(), archiving.count() as u64);
        let end = Offset::new(RECORDS);
        for (range, state) in partition.states(partition.start()..end) {
            for offset in range.start.get()..range.end.get() {
                assert_eq!(record_of(state), model.records[offset as usize], "{offset}");
            }
        }
        let unfinished = model.records[model.start as usize..].iter();
        let unfinished = unfinished
            .filter(|it| !matches!(it, Record::Acknowledged | Record::Archived))
            .count();
        assert_eq!(partition.unfinished(end), unfinished as u64);
        let most = LIMITS.runs_max + 2 * LIMITS.held_max + 2 * LIMITS.runs_max;
        assert!(runs_of(model).len() <= most);
    }
}

fn record_of(state: State) -> Record {
    match state {
        State::Available { count } => Record::Available(count),
        State::Acquired {
            holder,
            count,
            until,
        } => Record::Held(holder.0, count, until.map(|until| until.as_secs())),
        State::Acknowledged => Record::Acknowledged,
        State::Archiving { count, reason } => Record::Archiving(count, reason),
        State::Archived => Record::Archived,
    }
}

/// The longest runs of one state, but for what was never delivered.
fn runs_of(model: &Model) -> Vec<(Range<u64>, Record)> {
    let mut runs: Vec<(Range<u64>, Record)> = Vec::new();
    for offset in model.start..RECORDS {
        let record = model.records[offset as usize];
        match runs.last_mut() {
            Some((range, state)) if range.end == offset && *state == record => range.end += 1,
            _ if record == Record::Available(0) => {}
            _ => runs.push((offset..offset + 1, record)),
        }
    }
    runs
}

fn range() -> impl Strategy<Value = Range<u64>> {
    (0..RECORDS, 1..9u64).prop_map(|(start, count)| start..(start + count).min(RECORDS))
}

/// In order and apart.
fn ranges() -> impl Strategy<Value = Vec<Range<u64>>> {
    let cuts = proptest::collection::btree_set(0..=RECORDS, 2..8);
    let whole = Just(std::iter::once(0..RECORDS).collect::<Vec<_>>());
    let some = cuts.prop_map(|cuts| {
        let cuts: Vec<u64> = cuts.into_iter().collect();
        cuts.chunks_exact(2).map(|cut| cut[0]..cut[1]).collect()
    });
    prop_oneof![whole, some]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        4 => Just(Verdict::Accept),
        2 => Just(Verdict::Release),
        1 => Just(Verdict::Return),
        1 => Just(Verdict::Reject),
        1 => Just(Verdict::Absent),
        1 => Just(Verdict::Discard),
        1 => (1..200u64).prop_map(|at| Verdict::Renew(Some(Duration::from_secs(at)))),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let acquire = (0..3u64, ranges(), 1..8usize, proptest::option::of(1..6u64));
    let acquire = acquire.prop_map(|(holder, within, count, lasts)| Act::Acquire {
        holder,
        within,
        count,
        lasts,
    });
    let verdicts = proptest::collection::vec((range(), verdict()), 1..4);
    let settle = (0..3u64, verdicts, proptest::bool::weighted(0.9));
    let settle = settle.prop_map(|(holder, verdicts, clipped)| Act::Settle {
        holder,
        verdicts,
        clipped,
    });
    prop_oneof![
        8 => acquire,
        8 => settle,
        1 => (0..3u64).prop_map(Act::Leave),
        2 => (1..4u64).prop_map(Act::Pass),
        1 => (0..RECORDS / 4).prop_map(Act::Trim),
        2 => (range(), proptest::bool::weighted(0.8))
            .prop_map(|(range, clipped)| Act::Archive { range, clipped }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => act().prop_map(Step::Act),
        2 => act().prop_map(Step::Refused),
        2 => (act(), 0..6usize).prop_map(|(act, count)| Step::Torn(act, count)),
        1 => Just(Step::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_acknowledged_never_comes_again_and_what_is_not_is_not_lost(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut both = Both::new();
        for step in &steps {
            both.step(step);
        }
    }
}
