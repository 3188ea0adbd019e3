//! A piece of a log, thinned: which of its records go.
//!
//! Called by the executor, which shows a piece all records of a range and then asks it. Pure: no clock, no disk. What is held
//! of a record is a few dozen bytes and never its value, and the executor ends a piece where [`Piece::held_bytes`] reaches its
//! bound.
//!
//! Per key, windows of record time; per window, what the tier selects. Each tier works on what the tier before has left, the
//! youngest first. A tier reaches a window when the newest of its records, by the broker's append time, is older than the
//! tier's age and a window's length: a window of which more records may be to come in the piece's range is left alone.
//! Invariants, held by tests: thinning what was thinned changes nothing, now or with what would have been thinned at once
//! later; a record that cannot be read is kept; a record without a key counts as one of a key of its own, which the whole
//! partition shares.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use model::{Offset, Timestamp};

use super::number::Number;
use super::policy::{ThinPolicy, Tier};
use crate::segment::summary::{Stats, Summary, Window, WindowKey};

/// A record as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Its place in the log.
    pub offset: Offset,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its own time, by which windows are cut.
    pub time: Timestamp,
    /// When the broker appended it, or the newest record of its segment: from then on it ages.
    pub appended: Timestamp,
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// What is held of a record.
#[derive(Clone, Copy, Debug)]
struct Reading {
    key: u32,
    conditions: u32,
    time: i64,
    appended: i64,
    offset: Offset,
    /// Whether a summary that was read with it counts it.
    counted: bool,
    /// Whether a record that is kept in any case lies between it and the reading before.
    after_gap: bool,
}

/// What a key costs beside its bytes: entries of a map and of a list.
const KEY_BYTES: usize = 96;
/// What a reading costs beside its numbers: itself, its place in the order, and its fate.
const READING_BYTES: usize = size_of::<Reading>() + 8;

/// See the module.
#[derive(Debug)]
pub struct Piece<'p> {
    policy: &'p ThinPolicy,
    keys: HashMap<Box<[u8]>, u32>,
    /// The key that records without one share, if there are such.
    keyless: Option<u32>,
    readings: Vec<Reading>,
    /// As many for each reading as the policy looks at values.
    numbers: Vec<Number>,
    /// What the segments' summaries said: the segment's base, and the window.
    known: Vec<(Offset, u32, Window)>,
    /// Windows that the present segment's summary counts, and where the records stand that it counts.
    counted: Counted,
    counted_at: Vec<Range<Offset>>,
    held_bytes: usize,
    /// Whether a record has been passed over since the last reading.
    gap: bool,
    /// Whether each key's newest record of a window is kept too, and each record without a value: what compaction wants.
    keeps_newest: bool,
}

/// Which windows a segment's summary counts already: per length, key and beginning.
type Counted = BTreeMap<i64, HashSet<(u32, i64)>>;

impl<'p> Piece<'p> {
    /// An empty one.
    pub fn new(policy: &'p ThinPolicy) -> Piece<'p> {
        Piece {
            policy,
            keys: HashMap::new(),
            keyless: None,
            readings: Vec::new(),
            numbers: Vec::new(),
            known: Vec::new(),
            counted: Counted::new(),
            counted_at: Vec::new(),
            held_bytes: 0,
            gap: false,
            keeps_newest: policy.keeps_newest(),
        }
    }

    /// Begins with the records of a segment. Of those windows that its summary counts no record is counted again.
    pub fn begin_segment(&mut self, base: Offset, summary: Option<&Summary>) {
        self.counted.clear();
        self.counted_at = summary.map_or_else(Vec::new, |summary| summary.counted.clone());
        let same_values = |summary: &&Summary| summary.values == self.policy.value_names();
        for window in summary
            .filter(same_values)
            .into_iter()
            .flat_map(|it| &it.windows)
        {
            let key = self.key(window.at.key.as_deref());
            let length = self.counted.entry(window.at.window_ms).or_default();
            length.insert((key, window.at.start));
            self.held_bytes += size_of::<Window>() + window.stats.len() * size_of::<Stats>() + 32;
            self.known.push((base, key, window.clone()));
        }
    }

    /// Goes on with the records of a segment whose first ones another piece was shown.
    pub fn continue_segment(&mut self, summary: Option<&Summary>) {
        self.begin_segment(Offset::ZERO, summary);
        self.known.clear();
    }

    /// A record, or a batch of them, is kept in any case.
    pub fn pass_over(&mut self) {
        self.gap = true;
    }

    /// Takes back all records from an offset on: they are kept in any case.
    pub fn forget_from(&mut self, offset: Offset) {
        let left = self.readings.partition_point(|it| it.offset < offset);
        self.readings.truncate(left);
        self.numbers.truncate(left * self.policy.value_count());
        self.gap = true;
    }

    /// The next record, in the order of offsets.
    pub fn push(&mut self, sample: Sample<'_>) {
        if self.keeps_newest && sample.value.is_none() {
            return self.pass_over();
        }
        let Some(conditions) = self.policy.read(sample.value, &mut self.numbers) else {
            // It cannot be read, so that it is kept, and no other goes because of it.
            return self.pass_over();
        };
        let key = self.key(sample.key);
        let time = sample.time.millis();
        let mut counted = self.counted.iter();
        let is_at = |range: &Range<Offset>| range.contains(&sample.offset);
        let counts_here = !self.counted.is_empty() && self.counted_at.iter().any(is_at);
        let reading = Reading {
            key,
            conditions,
            time,
            appended: sample.appended.millis(),
            offset: sample.offset,
            after_gap: std::mem::take(&mut self.gap),
            counted: counts_here
                && counted.any(|(ms, windows)| windows.contains(&(key, start(time, *ms)))),
        };
        assert!(
            self.readings
                .last()
                .is_none_or(|last| last.offset < reading.offset),
            "records come in the order of their offsets"
        );
        self.readings.push(reading);
        self.held_bytes += READING_BYTES + self.policy.value_count() * size_of::<Number>();
    }

    fn key(&mut self, key: Option<&[u8]>) -> u32 {
        let known = self.keys.len() + usize::from(self.keyless.is_some());
        let next = u32::try_from(known).expect("a piece's memory ends before its keys");
        let Some(key) = key else {
            return *self.keyless.get_or_insert(next);
        };
        if let Some(id) = self.keys.get(key) {
            return *id;
        }
        self.held_bytes += KEY_BYTES + key.len();
        self.keys.insert(key.into(), next);
        next
    }

    /// How much memory it takes, about.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Decides. `now` is the broker's time; all records of the log that were appended before `complete_until` have been shown
    /// (or lie before the piece).
    pub fn decide(self, now: Timestamp, complete_until: Timestamp) -> Decided<'p> {
        let readings = &self.readings;
        let count =
            u32::try_from(readings.len()).expect("a piece's memory ends before its records");
        let mut order: Vec<u32> = (0..count).collect();
        let at = |index: &u32| &readings[*index as usize];
        order.sort_unstable_by_key(|index| (at(index).key, at(index).time, *index));
        let mut decided = Decided {
            kept: vec![true; readings.len()],
            tier: vec![0; readings.len()],
            order,
            piece: self,
        };
        let policy = decided.piece.policy;
        let mut number = 0;
        for tier in policy.tiers() {
            number += 1;
            let aged = now.millis().saturating_sub(tier.age_ms);
            let until = aged.min(complete_until.millis());
            decided.apply(number, tier, until.saturating_sub(tier.window_ms));
        }
        decided
    }
}

/// Where the window of this length begins that holds this time.
fn start(time: i64, window_ms: i64) -> i64 {
    // Saturates in the first window of all time, whose beginning cannot be told.
    time.saturating_sub(time.rem_euclid(window_ms))
}

/// What became of a piece.
#[derive(Debug)]
pub struct Decided<'p> {
    piece: Piece<'p>,
    /// Readings by key, time and offset.
    order: Vec<u32>,
    /// Per reading.
    kept: Vec<bool>,
    /// Per reading: the number of the tier that has reached its window, from 1; 0 for none.
    tier: Vec<u8>,
}

impl Decided<'_> {
    /// Thins the windows that a tier has reached: those with nothing newer than `until`.
    fn apply(&mut self, number: u8, tier: &Tier, until: i64) {
        let readings = &self.piece.readings;
        let same = |a: u32, b: u32| {
            let (a, b) = (&readings[a as usize], &readings[b as usize]);
            a.key == b.key && start(a.time, tier.window_ms) == start(b.time, tier.window_ms)
        };
        let mut live = Vec::new();
        for window in self.order.chunk_by(|a, b| same(*a, *b)) {
            live.clear();
            live.extend(window.iter().copied().filter(|it| self.kept[*it as usize]));
            let newest = live.iter().map(|it| readings[*it as usize].appended).max();
            if newest.is_none_or(|newest| newest > until) {
                continue;
            }
            for index in window {
                self.tier[*index as usize] = number;
            }
            for index in &live {
                self.kept[*index as usize] = false;
            }
            select(&self.piece, tier, &live, &mut self.kept);
        }
    }

    /// How many records can be read.
    pub fn readings(&self) -> usize {
        self.kept.len()
    }

    /// The records of a range that go: ranges of offsets that hold no record that stays, rising.
    pub fn dropped(&self, offsets: &Range<Offset>) -> Vec<Range<Offset>> {
        let mut dropped: Vec<Range<Offset>> = Vec::new();
        let mut goes_on = false;
        for index in self.places(offsets) {
            let reading = &self.piece.readings[index];
            let end = reading.offset.plus(1);
            match dropped.last_mut() {
                _ if self.kept[index] => {}
                Some(range) if goes_on && !reading.after_gap => range.end = end,
                _ => dropped.push(reading.offset..end),
            }
            goes_on = !self.kept[index];
        }
        dropped
    }

    /// Whether a summary was read with a segment of a range.
    pub fn tells_of(&self, offsets: &Range<Offset>) -> bool {
        self.piece
            .known
            .iter()
            .any(|(base, ..)| offsets.contains(base))
    }

    /// The lowest tier that a record of a range is in, 0 for none; None if none of its records can be read. Offsets are half-open.
    pub fn lowest_tier(&self, offsets: &Range<Offset>) -> Option<u8> {
        self.tier[self.places(offsets)].iter().copied().min()
    }

    fn places(&self, offsets: &Range<Offset>) -> Range<usize> {
        let place = |offset| self.piece.readings.partition_point(|it| it.offset < offset);
        place(offsets.start)..place(offsets.end)
    }

    /// What is to be told of the records in a range that was thinned: a summary of what was there before anything went.
    pub fn summary(&self, offsets: &Range<Offset>) -> Summary {
        let policy = self.piece.policy;
        let mut windows: BTreeMap<(u32, i64, i64), (u64, Vec<Stats>)> = BTreeMap::new();
        let mut add = |key, window_ms, start, count, stats: &[Stats]| {
            let (counted, merged) = windows
                .entry((key, window_ms, start))
                .or_insert_with(|| (0, vec![Stats::NONE; policy.value_count()]));
            *counted += count;
            for (merged, stats) in merged.iter_mut().zip(stats) {
                merged.merge(stats);
            }
        };
        for (base, key, window) in &self.piece.known {
            if !offsets.contains(base) {
                continue;
            }
            let at = &window.at;
            let tier = self.tier_at(*key, at.start, at.window_ms).map(i64::from);
            let now = tier.and_then(|tier| policy.tiers().get(usize::try_from(tier - 1).ok()?));
            let now = now.filter(|tier| tier.window_ms % at.window_ms == 0);
            let window_ms = now.map_or(at.window_ms, |tier| tier.window_ms);
            add(
                *key,
                window_ms,
                start(at.start, window_ms),
                window.count,
                &window.stats,
            );
        }
        for index in self.places(offsets) {
            let (reading, tier) = (&self.piece.readings[index], self.tier[index]);
            let Some(tier) = policy.tiers().get(usize::from(tier).wrapping_sub(1)) else {
                continue;
            };
            if !reading.counted {
                let stats: Vec<Stats> = self
                    .numbers(index)
                    .iter()
                    .map(|it| Stats::one(it.to_f64()))
                    .collect();
                add(
                    reading.key,
                    tier.window_ms,
                    start(reading.time, tier.window_ms),
                    1,
                    &stats,
                );
            }
        }
        let names: HashMap<u32, &Box<[u8]>> =
            self.piece.keys.iter().map(|(key, id)| (*id, key)).collect();
        let mut windows: Vec<Window> = windows
            .into_iter()
            .map(|((key, window_ms, start), (count, stats))| Window {
                at: WindowKey {
                    key: names.get(&key).map(|key| (*key).clone()),
                    start,
                    window_ms,
                },
                count,
                stats,
            })
            .collect();
        windows.sort_unstable_by(|a, b| a.at.cmp(&b.at));
        Summary {
            tiers: policy.to_string(),
            tier: self.lowest_tier(offsets).unwrap_or(0),
            counted: vec![offsets.clone()],
            values: policy.value_names(),
            windows,
        }
    }

    fn numbers(&self, index: usize) -> &[Number] {
        let each = self.piece.policy.value_count();
        &self.piece.numbers[index * each..][..each]
    }

    /// The tier of the records of a window, if any of them is left.
    fn tier_at(&self, key: u32, from: i64, window_ms: i64) -> Option<u8> {
        let reading = |index: &u32| &self.piece.readings[*index as usize];
        let place = self
            .order
            .partition_point(|it| (reading(it).key, reading(it).time) < (key, from));
        let index = self.order.get(place)?;
        let inside =
            reading(index).key == key && reading(index).time < from.saturating_add(window_ms);
        inside.then(|| self.tier[*index as usize])
    }
}

/// Marks what a tier keeps of a window's records, which are in the order of time.
fn select(piece: &Piece<'_>, tier: &Tier, live: &[u32], kept: &mut [bool]) {
    let each = piece.policy.value_count();
    let number = |index: u32, value: usize| piece.numbers[index as usize * each + value];
    let mut keep = |index: u32| kept[index as usize] = true;
    if tier.first {
        live.first().copied().into_iter().for_each(&mut keep);
    }
    if tier.last {
        live.last().copied().into_iter().for_each(&mut keep);
    }
    for value in &tier.min {
        // The first of equal ones.
        let least = live.iter().copied().min_by_key(|it| number(*it, *value));
        least.into_iter().for_each(&mut keep);
    }
    for value in &tier.max {
        // The last of equal ones, seen from the end.
        let most = live
            .iter()
            .rev()
            .copied()
            .max_by_key(|it| number(*it, *value));
        most.into_iter().for_each(&mut keep);
    }
    for bands in &tier.change {
        let mut before = None;
        for index in live {
            let band = bands.of(number(*index, bands.value));
            if before != Some(band) {
                keep(*index);
            }
            before = Some(band);
        }
    }
    for index in live {
        if piece.readings[*index as usize].conditions & tier.conditions != 0 {
            keep(*index);
        }
    }
    if piece.keeps_newest {
        live.iter().copied().max().into_iter().for_each(&mut keep);
    }
}
