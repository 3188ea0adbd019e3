//! A piece of a log, thinned: which of its records go.
//!
//! Called by the executor, which shows a piece all records of a range and then asks it. Pure: no clock, no disk. What is held
//! of a record is a few dozen bytes and never its value, and the executor ends a piece where [`Piece::has_room_for`] says so.
//!
//! Per key, windows of record time; per window, what the tier selects. Each tier works on what the tier before has left, the
//! youngest first. A tier reaches a window when the newest of its records, by the broker's append time, is older than the
//! tier's age and a window's length: a window of which more records may be to come in the piece's range is left alone.
//! Invariants, held by tests: thinning what was thinned changes nothing, now or with what would have been thinned at once
//! later; a record that cannot be read is kept; a record without a key counts as one of a key of its own, which the whole
//! partition shares.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

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
}

/// A window that a summary tells of, and where the summary's records begin.
#[derive(Clone, Debug)]
struct Known {
    base: Offset,
    key: u32,
    start: i64,
    window_ms: i64,
    count: u64,
    stats: Box<[Stats]>,
}

/// What a key costs beside its bytes: entries of a map, which is half empty at times, and of a list, a count of uses, and its places
/// while readings are dealt out and summed up.
const KEY_BYTES: usize = 160 + size_of::<Dealt>() + size_of::<usize>();
/// What a window of a summary costs beside its numbers: itself in a list that grows, and its place among those that are counted
/// already.
const KNOWN_BYTES: usize = 3 * size_of::<Known>() + 80;
/// What a reading costs beside its numbers: itself, its place in the order, and its fate.
const READING_BYTES: usize = size_of::<Reading>() + 8;

/// See the module.
#[derive(Debug)]
pub struct Piece<'p> {
    policy: &'p ThinPolicy,
    keys: HashMap<Arc<[u8]>, u32>,
    /// The keys by their numbers; None is the one that records without a key share.
    names: Vec<Option<Arc<[u8]>>>,
    keyless: Option<u32>,
    readings: Vec<Reading>,
    /// As many for each reading as the policy looks at values.
    numbers: Vec<Number>,
    /// What summaries said, in the order of their offsets.
    known: Vec<Known>,
    /// The sections of a summary in which the present records may be counted.
    sections: Vec<Section>,
    memory_bytes: usize,
    held_bytes: usize,
    /// Keys of which every record is kept.
    held_keys: &'p HashSet<Arc<[u8]>>,
    /// Whether each key's newest record of a window is kept too, and each record without a value: what compaction wants.
    keeps_newest: bool,
}

/// A section of a summary: which windows it counts, per length, key and beginning, and where the records stand that it counts.
#[derive(Debug)]
struct Section {
    windows: BTreeMap<i64, HashSet<(u32, i64)>>,
    counted_at: Vec<Range<Offset>>,
}

impl Section {
    fn counts(&self, key: u32, time: i64, offset: Offset) -> bool {
        let mut windows = self.windows.iter();
        self.counted_at.iter().any(|range| range.contains(&offset))
            && windows.any(|(ms, windows)| windows.contains(&(key, start(time, *ms))))
    }
}

impl<'p> Piece<'p> {
    /// An empty one, which takes so much memory at most. It is taken at once, for so many records at most.
    pub fn new(policy: &'p ThinPolicy, memory_bytes: usize, records: u64) -> Piece<'p> {
        let each = READING_BYTES + policy.value_count() * size_of::<Number>();
        let records = usize::try_from(records).unwrap_or(usize::MAX);
        let count = records.min(memory_bytes / each);
        Piece {
            policy,
            keys: HashMap::new(),
            names: Vec::new(),
            keyless: None,
            readings: Vec::with_capacity(count),
            numbers: Vec::with_capacity(count * policy.value_count()),
            known: Vec::new(),
            sections: Vec::new(),
            memory_bytes,
            held_bytes: 0,
            held_keys: policy.held_keys(),
            keeps_newest: policy.keeps_newest(),
        }
    }

    /// Whether so many more records fit. Into an empty one any number does.
    pub fn has_room_for(&self, records: u64) -> bool {
        let each = READING_BYTES + self.policy.value_count() * size_of::<Number>() + KEY_BYTES / 16;
        let records = usize::try_from(records).unwrap_or(usize::MAX);
        let need = records.saturating_mul(each).saturating_add(self.held_bytes);
        self.readings.is_empty() || need <= self.memory_bytes
    }

    /// The next records may be counted in a section of a summary: of those windows that it counts no record is counted again. With
    /// an offset, which is where its records begin, its windows become part of what the piece tells.
    pub fn begin_section(&mut self, section: &Summary, base: Option<Offset>) {
        if section.values != self.policy.value_names() {
            return;
        }
        let mut windows: BTreeMap<i64, HashSet<(u32, i64)>> = BTreeMap::new();
        for window in &section.windows {
            let key = self.key(window.at.key.as_deref());
            let length = windows.entry(window.at.window_ms).or_default();
            length.insert((key, window.at.start));
            self.held_bytes += KNOWN_BYTES + window.stats.len() * size_of::<Stats>();
            if let Some(base) = base {
                self.known.push(Known {
                    base,
                    key,
                    start: window.at.start,
                    window_ms: window.at.window_ms,
                    count: window.count,
                    stats: window.stats.as_slice().into(),
                });
            }
        }
        self.sections.push(Section {
            windows,
            counted_at: section.counted.clone(),
        });
    }

    /// What follows lies from an offset on: sections that end before are forgotten.
    pub fn reach(&mut self, offset: Offset) {
        let goes_on = |section: &Section| {
            section
                .counted_at
                .last()
                .is_some_and(|last| last.end > offset)
        };
        self.sections.retain(goes_on);
    }

    /// Takes back all records from an offset on: they are kept in any case.
    pub fn forget_from(&mut self, offset: Offset) {
        let left = self.readings.partition_point(|it| it.offset < offset);
        self.readings.truncate(left);
        self.numbers.truncate(left * self.policy.value_count());
    }

    /// The next record, in the order of offsets.
    pub fn push(&mut self, sample: Sample<'_>) {
        if self.keeps_newest && sample.value.is_none() {
            return;
        }
        if sample.key.is_some_and(|key| self.held_keys.contains(key)) {
            return;
        }
        let Some(conditions) = self.policy.read(sample.value, &mut self.numbers) else {
            // It cannot be read, so that it is kept, and no other goes because of it.
            return;
        };
        let key = self.key(sample.key);
        let time = sample.time.millis();
        let mut sections = self.sections.iter();
        let reading = Reading {
            key,
            conditions,
            time,
            appended: sample.appended.millis(),
            offset: sample.offset,
            counted: sections.any(|section| section.counts(key, time, sample.offset)),
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
        let next = u32::try_from(self.names.len()).expect("a piece's memory ends before its keys");
        let Some(key) = key else {
            if self.keyless.is_none() {
                self.names.push(None);
            }
            return *self.keyless.get_or_insert(next);
        };
        if let Some(id) = self.keys.get(key) {
            return *id;
        }
        self.held_bytes += KEY_BYTES + key.len();
        let key = Arc::<[u8]>::from(key);
        self.names.push(Some(Arc::clone(&key)));
        self.keys.insert(key, next);
        next
    }

    /// Decides. `now` is the broker's time; all records of the log that were appended before `complete_until` have been shown
    /// (or lie before the piece).
    pub fn decide(self, now: Timestamp, complete_until: Timestamp) -> Decided<'p> {
        let mut decided = Decided {
            kept: vec![true; self.readings.len()],
            tier: vec![0; self.readings.len()],
            order: self.order(),
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

impl Piece<'_> {
    /// The readings by key, time and offset. They are dealt out to their keys in the order of offsets, which for most keys is
    /// that of time: only the others are sorted.
    fn order(&self) -> Vec<u32> {
        let count = self.readings.len();
        let count = u32::try_from(count).expect("a piece's memory ends before its records");
        let mut keys = vec![Dealt::NONE; self.names.len()];
        for reading in &self.readings {
            let key = &mut keys[reading.key as usize];
            key.next += 1;
            key.is_sorted &= key.newest <= reading.time;
            key.newest = reading.time;
        }
        let mut begin = 0;
        for key in &mut keys {
            begin += std::mem::replace(&mut key.next, begin);
        }
        assert!(begin == count, "each reading has a key");
        let mut order = vec![0; self.readings.len()];
        for (index, reading) in (0..count).zip(&self.readings) {
            let next = &mut keys[reading.key as usize].next;
            order[*next as usize] = index;
            *next += 1;
        }
        let mut begin = 0;
        for key in keys {
            let own = &mut order[begin..key.next as usize];
            if !key.is_sorted {
                own.sort_unstable_by_key(|index| (self.readings[*index as usize].time, *index));
            }
            begin = key.next as usize;
        }
        order
    }
}

/// A key whose readings are dealt out.
#[derive(Clone, Copy, Debug)]
struct Dealt {
    /// How many there are, and later where the next one goes.
    next: u32,
    /// Whether their times rise.
    is_sorted: bool,
    newest: i64,
}

impl Dealt {
    const NONE: Dealt = Dealt {
        next: 0,
        is_sorted: true,
        newest: i64::MIN,
    };
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

    /// Which of the records go that lie from an offset on, asked in the order of their offsets.
    pub fn going(&self, from: Offset) -> Going<'_> {
        let next = self.place(from);
        Going {
            decided: self,
            next,
        }
    }

    /// Whether any record of a range goes.
    pub fn drops_of(&self, offsets: &Range<Offset>) -> bool {
        self.kept[self.places(offsets)].contains(&false)
    }

    /// The lowest tier that a record of a range is in, 0 for none; None if none of its records can be read. Offsets are half-open.
    pub fn lowest_tier(&self, offsets: &Range<Offset>) -> Option<u8> {
        self.tier[self.places(offsets)].iter().copied().min()
    }

    fn places(&self, offsets: &Range<Offset>) -> Range<usize> {
        self.place(offsets.start)..self.place(offsets.end)
    }

    fn place(&self, offset: Offset) -> usize {
        self.piece.readings.partition_point(|it| it.offset < offset)
    }

    /// A range in parts, of each of which a summary tells so many windows at most, and those that one section told before.
    pub fn parts(&self, offsets: &Range<Offset>, windows_max: usize) -> Vec<Range<Offset>> {
        let place = |offset| {
            self.piece
                .known
                .partition_point(|known| known.base < offset)
        };
        let known = &self.piece.known[place(offsets.start)..place(offsets.end)];
        let mut bases = known.iter().map(|known| known.base).peekable();
        let (mut parts, mut start, mut count) = (Vec::new(), offsets.start, 0);
        for index in self.places(offsets) {
            let offset = self.piece.readings[index].offset;
            let begin = bases.peek().map_or(offset, |base| offset.min(*base));
            let mut more = 1;
            while bases.next_if(|base| *base <= offset).is_some() {
                more += 1;
            }
            if count > 0 && count + more > windows_max {
                parts.push(start..begin);
                (start, count) = (begin, 0);
            }
            count += more;
        }
        if count > 0 || bases.peek().is_some() {
            parts.push(start..offsets.end);
        }
        parts
    }

    /// What is to be told of the records in a range that was thinned: a summary of what was there before anything went.
    pub fn summary(&self, offsets: &Range<Offset>) -> Summary {
        let policy = self.piece.policy;
        let mut summed = Summed::of(self.piece.names.len());
        for known in self
            .piece
            .known
            .iter()
            .filter(|known| offsets.contains(&known.base))
        {
            let now = self.tier_at(known.key, known.start);
            let now = now.filter(|tier| tier.window_ms % known.window_ms == 0);
            let window_ms = now.map_or(known.window_ms, |tier| tier.window_ms);
            let at = (known.key, start(known.start, window_ms), window_ms);
            summed.add(at, known.count, known.stats.iter().copied());
        }
        for index in self.places(offsets) {
            let (reading, tier) = (&self.piece.readings[index], self.tier[index]);
            let Some(tier) = policy.tiers().get(usize::from(tier).wrapping_sub(1)) else {
                continue;
            };
            if !reading.counted {
                let at = (
                    reading.key,
                    start(reading.time, tier.window_ms),
                    tier.window_ms,
                );
                let numbers = self.numbers(index).iter();
                summed.add(at, 1, numbers.map(|it| Stats::one(it.to_f64())));
            }
        }
        let names = &self.piece.names;
        let window = |(at, count, stats): (WindowAt, u64, &[Stats])| Window {
            at: WindowKey {
                key: names[at.0 as usize].as_deref().map(Box::from),
                start: at.1,
                window_ms: at.2,
            },
            count,
            stats: stats.to_vec(),
        };
        let mut windows: Vec<Window> = summed.windows().map(window).collect();
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

    /// The tier that has reached the window of a key and a time, as far as a record of it tells that is left.
    fn tier_at(&self, key: u32, time: i64) -> Option<&Tier> {
        let reading = |index: &u32| &self.piece.readings[*index as usize];
        let mut tiers = self.piece.policy.tiers().iter().enumerate().rev();
        let reached = tiers.find(|(before, tier)| {
            let begin = start(time, tier.window_ms);
            let order = &self.order;
            let place =
                order.partition_point(|it| (reading(it).key, reading(it).time) < (key, begin));
            order.get(place).is_some_and(|index| {
                let end = begin.saturating_add(tier.window_ms);
                let is_in = reading(index).key == key && reading(index).time < end;
                is_in && usize::from(self.tier[*index as usize]) > *before
            })
        });
        reached.map(|(_, tier)| tier)
    }
}

/// A window: key, beginning, length.
type WindowAt = (u32, i64, i64);

/// Windows that are being summed up.
#[derive(Debug)]
struct Summed {
    places: HashMap<WindowAt, usize>,
    /// Each key's window that was added to last, which mostly is the next one's, too.
    latest: Vec<usize>,
    counts: Vec<(WindowAt, u64)>,
    /// As many for each window as there are values.
    stats: Vec<Stats>,
}

impl Summed {
    /// Nothing yet, for so many keys.
    fn of(keys: usize) -> Summed {
        Summed {
            places: HashMap::new(),
            latest: vec![usize::MAX; keys],
            counts: Vec::new(),
            stats: Vec::new(),
        }
    }

    fn add(&mut self, at: WindowAt, count: u64, stats: impl ExactSizeIterator<Item = Stats>) {
        let each = stats.len();
        let latest = &mut self.latest[at.0 as usize];
        if self
            .counts
            .get(*latest)
            .is_none_or(|(known, _)| *known != at)
        {
            *latest = *self.places.entry(at).or_insert_with(|| {
                self.counts.push((at, 0));
                self.stats.resize(self.counts.len() * each, Stats::NONE);
                self.counts.len() - 1
            });
        }
        let place = *latest;
        self.counts[place].1 += count;
        for (merged, stats) in self.stats[place * each..].iter_mut().zip(stats) {
            merged.merge(&stats);
        }
    }

    fn windows(&self) -> impl Iterator<Item = (WindowAt, u64, &[Stats])> {
        let each = self.stats.len() / self.counts.len().max(1);
        let counts = self.counts.iter().enumerate();
        counts.map(move |(place, (at, count))| (*at, *count, &self.stats[place * each..][..each]))
    }
}

/// See [`Decided::going`].
#[derive(Debug)]
pub struct Going<'d> {
    decided: &'d Decided<'d>,
    next: usize,
}

impl Going<'_> {
    /// Whether the record at an offset goes. One that was not shown, or cannot be read, stays.
    pub fn goes(&mut self, offset: Offset) -> bool {
        let readings = &self.decided.piece.readings;
        while readings.get(self.next).is_some_and(|it| it.offset < offset) {
            self.next += 1;
        }
        let is_here = readings
            .get(self.next)
            .is_some_and(|it| it.offset == offset);
        is_here && !self.decided.kept[self.next]
    }

    /// How many of the records before an offset go.
    pub fn count_before(&self, end: Offset) -> usize {
        let readings = self.decided.piece.readings[self.next..].iter();
        let readings = readings.take_while(|it| it.offset < end).count();
        let kept = &self.decided.kept[self.next..][..readings];
        kept.iter().filter(|kept| !**kept).count()
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
