//! Judges a recorded history of one log: could all of it have happened one operation at a time?
//!
//! Callers: `storage/tests/linearizable.rs` over the simulated disk, and `tests/it/linearizable.rs` over the real process.
//! Every operation has the moment before it was begun and the moment after its answer came; what got no answer may have
//! happened at any time since, or never. The log is linearizable if each operation can be put at one moment between its two,
//! so that all answers are those of a list of records that only grows, whose start only rises, and of registers for the
//! committed offsets. Offsets tell the order of appends, and ends and starts only rise: so comparing pairs of operations of
//! which one ended before the other began is enough, and nothing is searched for. For committed offsets this is the
//! criterion of Gibbons and Korach (Testing Shared Memories, 1997) for registers whose written values differ.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

#[cfg(test)]
mod tests;

/// A record: a value that nobody else writes, and its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub value: u64,
    pub time: i64,
}

/// What came of something that changes the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was acknowledged.
    Done(T),
    /// It was refused before anything happened.
    Refused,
    /// No answer came, or one that does not tell.
    Unknown,
}

/// What was asked and what was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Records were appended in one batch; done with the offset of the first.
    Produce {
        records: Vec<Record>,
        base: Outcome<u64>,
    },
    /// Records from an offset on, with the high watermark if it was told.
    Read {
        from: u64,
        found: Vec<(u64, Record)>,
        end: Option<u64>,
    },
    /// A read was told that its offset lies before the start.
    BelowStart { from: u64 },
    /// The start and the high watermark, each if it was asked for.
    Bounds {
        start: Option<u64>,
        end: Option<u64>,
    },
    /// The first record at or after a time: its offset and timestamp.
    SeekTime {
        wanted: i64,
        found: Option<(u64, i64)>,
    },
    /// All before an offset was deleted.
    DeleteRecords { before: u64, outcome: Outcome<()> },
    /// A group's offset was committed; no two commits of a group have the same.
    Commit {
        group: u32,
        offset: u64,
        outcome: Outcome<()>,
    },
    /// A group's committed offset was asked for.
    Committed { group: u32, offset: Option<u64> },
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// A moment before it began.
    pub invoked: u64,
    /// A moment after it was answered.
    pub completed: u64,
    pub what: What,
}

/// Takes a history down while it happens, from any thread.
#[derive(Debug, Default)]
pub struct Recorder {
    moments: AtomicU64,
    operations: Mutex<Vec<Operation>>,
}

impl Recorder {
    /// A moment before an operation.
    pub fn begin(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::SeqCst)
    }

    /// The operation that began at `invoked` is answered.
    pub fn end(&self, invoked: u64, what: What) {
        let completed = self.moments.fetch_add(1, Ordering::SeqCst);
        let operation = Operation {
            invoked,
            completed,
            what,
        };
        self.locked().push(operation);
    }

    /// All that was taken down.
    pub fn history(&self) -> Vec<Operation> {
        let mut operations = self.locked().clone();
        operations.sort_by_key(|operation| operation.invoked);
        operations
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.operations
            .lock()
            .expect("nothing panics while it holds the list")
    }
}

/// What a history shows that cannot have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

macro_rules! ensure {
    ($holds:expr, $($reason:tt)*) => {
        if !$holds {
            return Err(Violation(format!($($reason)*)));
        }
    };
}

/// Whether the history is one that a log can have, from empty on.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let known = Known::of(history)?;
    known.check_ends(history)?;
    known.check_starts(history)?;
    known.check_seeks(history)?;
    check_committed(history)
}

/// Something that only rises was at least so much at a moment.
#[derive(Clone, Copy, Debug)]
struct AtLeast {
    moment: u64,
    value: u64,
}

/// The most that was known to be reached before a moment.
fn reached(bounds: &[AtLeast], moment: u64) -> u64 {
    let before = bounds.iter().filter(|bound| bound.moment < moment);
    before.map(|bound| bound.value).max().unwrap_or(0)
}

/// What all of a history tells together.
struct Known {
    /// Which record stands at an offset.
    records: BTreeMap<u64, Record>,
    /// How far the high watermark was at least, by when.
    ends: Vec<AtLeast>,
    /// How far the start was at least, by when.
    starts: Vec<AtLeast>,
}

impl Known {
    /// Puts each record to its offset: one record an offset, one offset a record, and none that nobody has sent.
    fn of(history: &[Operation]) -> Result<Known, Violation> {
        let mut sent: HashMap<u64, (u64, Record, bool)> = HashMap::new();
        for operation in history {
            let What::Produce { records, base } = &operation.what else {
                continue;
            };
            for record in records {
                let refused = *base == Outcome::Refused;
                let entry = (operation.invoked, *record, refused);
                let before = sent.insert(record.value, entry);
                assert!(before.is_none(), "a history's values differ");
            }
        }
        let mut known = Known {
            records: BTreeMap::new(),
            ends: Vec::new(),
            starts: Vec::new(),
        };
        let mut places: HashMap<u64, u64> = HashMap::new();
        for operation in history {
            let completed = operation.completed;
            for (offset, record) in operation.shown() {
                let Some((invoked, original, refused)) = sent.get(&record.value) else {
                    return Err(Violation(format!(
                        "nobody sent {record:?}, which is at {offset}"
                    )));
                };
                ensure!(!refused, "{record:?} was refused, and is at {offset}");
                ensure!(
                    *original == record,
                    "{original:?} was sent, {record:?} is at {offset}"
                );
                ensure!(
                    *invoked < completed,
                    "{record:?} was shown before it was sent"
                );
                let there = *known.records.entry(offset).or_insert(record);
                ensure!(
                    there == record,
                    "offset {offset} has shown {there:?} and {record:?}"
                );
                let place = *places.entry(record.value).or_insert(offset);
                ensure!(place == offset, "{record:?} is at {place} and at {offset}");
            }
            known.learn(operation);
        }
        Ok(known)
    }

    fn learn(&mut self, operation: &Operation) {
        let moment = operation.completed;
        let mut end = |value| self.ends.push(AtLeast { moment, value });
        let mut start = |value| self.starts.push(AtLeast { moment, value });
        if let Some((last, _)) = operation.shown().last() {
            end(last + 1);
        }
        match &operation.what {
            What::Read {
                end: Some(high), ..
            } => end(*high),
            What::BelowStart { from } => start(from + 1),
            What::Bounds {
                start: low,
                end: high,
            } => {
                low.map(&mut start);
                high.map(&mut end);
            }
            What::SeekTime {
                found: Some((offset, _)),
                ..
            } => end(offset + 1),
            What::DeleteRecords {
                before,
                outcome: Outcome::Done(()),
            } => start(*before),
            _ => {}
        }
    }

    /// The high watermark never goes back, holds all that was acknowledged or shown, and nothing that was not sent yet.
    fn check_ends(&self, history: &[Operation]) -> Result<(), Violation> {
        for operation in history {
            let least = reached(&self.ends, operation.invoked);
            let mut sent = 0;
            for other in history
                .iter()
                .filter(|other| other.invoked < operation.completed)
            {
                if let What::Produce { records, base } = &other.what
                    && *base != Outcome::Refused
                {
                    sent += records.len() as u64;
                }
            }
            match &operation.what {
                What::Produce {
                    base: Outcome::Done(base),
                    ..
                } => ensure!(
                    *base >= least,
                    "{operation:?} got an offset before {least}, which was reached before it began"
                ),
                What::Read { from, found, end } => {
                    for (expected, (offset, _)) in (*from..).zip(found) {
                        ensure!(*offset == expected, "{operation:?} leaves {expected} out");
                    }
                    let until = end.unwrap_or(u64::MAX);
                    let last = found.last().map_or(0, |(offset, _)| offset + 1);
                    ensure!(last <= until, "{operation:?} shows more than is durable");
                    ensure!(
                        !found.is_empty() || *from >= least,
                        "{operation:?} is empty, though {least} was reached before it began"
                    );
                }
                _ => {}
            }
            if let What::Bounds { end: Some(end), .. } | What::Read { end: Some(end), .. } =
                &operation.what
            {
                ensure!(
                    *end >= least,
                    "{operation:?}: the end was {least} before it began"
                );
                ensure!(
                    *end <= sent,
                    "{operation:?}: no more than {sent} were sent by then"
                );
            }
        }
        Ok(())
    }

    /// The start never goes back, is where somebody wanted it, and nothing before it is shown.
    fn check_starts(&self, history: &[Operation]) -> Result<(), Violation> {
        for operation in history {
            let least = reached(&self.starts, operation.invoked);
            let possible = starts_until(history, operation.completed);
            match &operation.what {
                What::Bounds {
                    start: Some(start), ..
                } => {
                    ensure!(
                        *start >= least,
                        "{operation:?}: the start was {least} before it began"
                    );
                    ensure!(
                        possible.contains(start),
                        "{operation:?}: nobody deleted up to {start}"
                    );
                }
                What::Read { from, .. } => ensure!(
                    *from >= least,
                    "{operation:?} was answered, though the start was {least} before it began"
                ),
                What::BelowStart { from } => ensure!(
                    possible.iter().any(|start| start > from),
                    "{operation:?}: nobody deleted as far as that"
                ),
                _ => {}
            }
        }
        Ok(())
    }

    /// A search by time finds the first record of all that are kept at one moment while it runs.
    fn check_seeks(&self, history: &[Operation]) -> Result<(), Violation> {
        for operation in history {
            let What::SeekTime { wanted, found } = &operation.what else {
                continue;
            };
            let least = reached(&self.starts, operation.invoked);
            let starts = starts_until(history, operation.completed);
            let mut starts = starts.range(least..);
            let until = match found {
                Some((offset, time)) => {
                    ensure!(time >= wanted, "{operation:?} is too early");
                    let record = self.records.get(offset);
                    ensure!(
                        record.is_none_or(|record| record.time == *time),
                        "{operation:?}: {record:?} is there"
                    );
                    *offset
                }
                None => reached(&self.ends, operation.invoked),
            };
            let mut earlier = self.records.range(..until);
            let passed = earlier.rfind(|(_, record)| record.time >= *wanted);
            let passed = passed.map_or(0, |(offset, _)| offset + 1);
            ensure!(
                starts.any(|start| *start >= passed && (found.is_none() || *start <= until)),
                "{operation:?} passes over {} or finds what was deleted",
                passed.saturating_sub(1)
            );
        }
        Ok(())
    }
}

impl Operation {
    /// The records that its answer puts to offsets.
    fn shown(&self) -> impl Iterator<Item = (u64, Record)> {
        let (base, produced, read): (u64, &[Record], &[(u64, Record)]) = match &self.what {
            What::Produce {
                records,
                base: Outcome::Done(base),
            } => (*base, records, &[]),
            What::Read { found, .. } => (0, &[], found),
            _ => (0, &[], &[]),
        };
        (base..)
            .zip(produced.iter().copied())
            .chain(read.iter().copied())
    }
}

/// Where the start can have been by a moment.
fn starts_until(history: &[Operation], moment: u64) -> BTreeSet<u64> {
    let mut starts = BTreeSet::from([0]);
    for operation in history.iter().filter(|other| other.invoked < moment) {
        if let What::DeleteRecords { before, outcome } = &operation.what
            && *outcome != Outcome::Refused
        {
            starts.insert(*before);
        }
    }
    starts
}

/// One value of a register: its write and all reads of it.
#[derive(Clone, Copy, Debug)]
struct Zone {
    value: Option<u64>,
    /// Its write began.
    written: u64,
    /// The first of its operations was answered.
    first_completed: u64,
    /// The last of its operations began.
    last_invoked: u64,
}

impl Zone {
    /// Whether the register must have held the value from one moment to a later one, and not just at some moment.
    fn is_forward(&self) -> bool {
        self.first_completed < self.last_invoked
    }

    /// Whether another value can have had its moments before or behind all of these.
    fn is_apart(&self, other: &Zone) -> bool {
        other.last_invoked < self.first_completed || self.last_invoked < other.first_completed
    }
}

/// Committed offsets are those of registers, one for each group.
fn check_committed(history: &[Operation]) -> Result<(), Violation> {
    let mut groups: BTreeMap<u32, BTreeMap<Option<u64>, Zone>> = BTreeMap::new();
    for operation in history {
        let What::Commit {
            group,
            offset,
            outcome,
        } = &operation.what
        else {
            continue;
        };
        if *outcome == Outcome::Refused {
            continue;
        }
        let is_done = *outcome == Outcome::Done(());
        let zone = Zone {
            value: Some(*offset),
            written: operation.invoked,
            first_completed: if is_done {
                operation.completed
            } else {
                u64::MAX
            },
            last_invoked: operation.invoked,
        };
        let zones = groups.entry(*group).or_default();
        let before = zones.insert(Some(*offset), zone);
        assert!(before.is_none(), "a group's commits differ");
    }
    for operation in history {
        let What::Committed { group, offset } = &operation.what else {
            continue;
        };
        let zones = groups.entry(*group).or_default();
        if offset.is_none() {
            // No offset is what was there before all.
            zones.entry(None).or_insert(Zone {
                value: None,
                written: 0,
                first_completed: 0,
                last_invoked: 0,
            });
        }
        let Some(zone) = zones.get_mut(offset) else {
            return Err(Violation(format!("{operation:?}: nobody committed that")));
        };
        ensure!(
            zone.written < operation.completed,
            "{operation:?} was answered before it was committed"
        );
        zone.first_completed = zone.first_completed.min(operation.completed);
        zone.last_invoked = zone.last_invoked.max(operation.invoked);
    }
    for (group, zones) in &groups {
        // What was never read and never acknowledged need not have happened.
        let zones: Vec<&Zone> = zones
            .values()
            .filter(|zone| zone.first_completed < u64::MAX)
            .collect();
        for one in zones.iter().filter(|zone| zone.is_forward()) {
            for other in zones.iter().filter(|other| other.value != one.value) {
                ensure!(
                    one.is_apart(other),
                    "group {group}: {:?} and {:?} were both committed at once",
                    one.value,
                    other.value
                );
            }
        }
    }
    Ok(())
}
