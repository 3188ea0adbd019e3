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

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use ahash::HashMap;
use model::{Offset, Timestamp};

use super::dealt::{Dealt, Hand};
use super::number::{Number, Numbers};
use super::policy::{ThinPolicy, Tier, start};
use super::readings::Readings;
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

/// A window that a section of a summary tells of.
#[derive(Clone, Debug)]
struct Known {
    /// Where the section's records begin in this piece.
    base: Offset,
    /// Where they end, which may be in a later piece.
    end: Offset,
    key: u32,
    start: i64,
    window_ms: i64,
    count: u64,
    stats: Box<[Stats]>,
}

/// Windows that a section tells of and of which no record was shown yet: a later piece tells of them.
#[derive(Debug, Default)]
pub struct Ahead(Vec<(Known, Option<Arc<[u8]>>)>);

/// What a key costs beside its bytes: entries of a map, which is half empty at times, and of a list, a count of uses, its places
/// while readings are dealt out and summed up, and its rank.
const KEY_BYTES: usize = 160 + size_of::<Hand>() + size_of::<usize>() + size_of::<u32>();
/// What a window of a summary costs beside its numbers: itself in a list that grows, and its place among those that are counted
/// already.
const KNOWN_BYTES: usize = 3 * size_of::<Known>() + 80;

/// See the module.
#[derive(Debug)]
pub struct Piece<'p> {
    policy: &'p ThinPolicy,
    keys: HashMap<Arc<[u8]>, u32>,
    /// The keys by their numbers; None is the one that records without a key share.
    names: Vec<Option<Arc<[u8]>>>,
    keyless: Option<u32>,
    readings: Readings,
    /// The values of the record that is being read.
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
        let records = usize::try_from(records).unwrap_or(usize::MAX);
        let count = records.min(memory_bytes / Readings::bytes_each(policy));
        Piece {
            policy,
            keys: HashMap::default(),
            names: Vec::new(),
            keyless: None,
            readings: Readings::with_capacity(count, policy),
            numbers: Vec::new(),
            known: Vec::new(),
            sections: Vec::new(),
            memory_bytes,
            held_bytes: 0,
            held_keys: policy.held_keys(),
            keeps_newest: policy.keeps_newest(),
        }
    }

    /// Whether so many more records fit, all of them before an offset. Into an empty one any number does.
    pub fn has_room_for(&self, records: u64, end: Offset) -> bool {
        let each = Readings::bytes_each(self.policy) + KEY_BYTES / 16;
        let records = usize::try_from(records).unwrap_or(usize::MAX);
        let need = records.saturating_mul(each).saturating_add(self.held_bytes);
        let is_near = u32::try_from(end.since(self.readings.base)).is_ok();
        self.readings.len() == 0 || (need <= self.memory_bytes && is_near)
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
                    end: section.counted.last().map_or(base, |last| last.end),
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

    /// Begins with windows that the piece before left to this one, which begins at an offset.
    pub fn begin_with(&mut self, ahead: Ahead, base: Offset) {
        for (mut known, name) in ahead.0 {
            known.base = base;
            known.key = self.key(name.as_deref());
            self.held_bytes += KNOWN_BYTES + known.stats.len() * size_of::<Stats>();
            self.known.push(known);
        }
    }

    /// Leaves those windows to the next piece of which it is told that records stand behind this one's end, and of which none was
    /// shown: here nothing would say which tier has reached them.
    pub fn leave_ahead(&mut self, end: Offset) -> Ahead {
        let goes_on = |known: &&Known| known.end > end;
        let at = |known: &Known| (known.key, known.start, known.window_ms);
        let mut unseen: HashSet<WindowAt> = self.known.iter().filter(goes_on).map(at).collect();
        let Some(first) = self
            .known
            .iter()
            .filter(goes_on)
            .map(|known| known.base)
            .min()
        else {
            return Ahead::default();
        };
        let lengths: BTreeSet<i64> = unseen.iter().map(|(_, _, window_ms)| *window_ms).collect();
        for index in self.readings.place(first)..self.readings.len() {
            let (key, time) = (self.readings.keys[index], self.readings.times[index]);
            for window_ms in &lengths {
                unseen.remove(&(key, start(time, *window_ms), *window_ms));
            }
        }
        let is_ahead = |known: &mut Known| known.end > end && unseen.contains(&at(known));
        let left = self.known.extract_if(.., is_ahead);
        let names = &self.names;
        let named = left.map(|known| {
            let name = names[known.key as usize].clone();
            (known, name)
        });
        Ahead(named.collect())
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
        let left = self.readings.place(offset);
        self.readings.truncate(left, self.policy.value_count());
    }

    /// The next record, in the order of offsets.
    pub fn push(&mut self, sample: Sample<'_>) {
        if self.keeps_newest && sample.value.is_none() {
            return;
        }
        if sample.key.is_some_and(|key| self.held_keys.contains(key)) {
            return;
        }
        self.numbers.clear();
        let Some(conditions) = self.policy.read(sample.value, &mut self.numbers) else {
            // It cannot be read, so that it is kept, and no other goes because of it.
            return;
        };
        let key = self.key(sample.key);
        let time = sample.time.millis();
        let mut sections = self.sections.iter();
        let counted = sections.any(|section| section.counts(key, time, sample.offset));
        let readings = &mut self.readings;
        if readings.offsets.is_empty() {
            readings.base = sample.offset;
        }
        let offset = u32::try_from(sample.offset.since(readings.base));
        let offset = offset.expect("a piece ends before its offsets do");
        assert!(
            readings.offsets.last().is_none_or(|last| *last < offset),
            "records come in the order of their offsets"
        );
        let appended = sample.appended.millis();
        let before = readings.appended.last();
        if before.is_none_or(|(_, before)| *before != appended) {
            readings.appended.push((readings.offsets.len(), appended));
        }
        readings.offsets.push(offset);
        readings.keys.push(key);
        readings.times.push(time);
        readings.counted.push(counted);
        if self.policy.has_conditions() {
            readings.conditions.push(conditions);
        }
        for number in &self.numbers {
            if !readings.numbers.push(*number) {
                self.held_bytes += Numbers::OTHER_BYTES;
            }
        }
        self.held_bytes += Readings::bytes_each(self.policy);
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
        let Piece {
            policy,
            names,
            readings,
            known,
            keeps_newest,
            ..
        } = self;
        let mut dealt = Dealt::new(readings, names.len(), policy.value_count(), keeps_newest);
        for (number, tier) in (1..).zip(policy.tiers()) {
            let aged = now.millis().saturating_sub(tier.age_ms);
            let until = aged.min(complete_until.millis());
            dealt.apply(number, tier, until.saturating_sub(tier.window_ms));
        }
        Decided {
            policy,
            ranks: ranks(&names),
            names,
            known,
            dealt,
        }
    }
}

/// The place of each name among all of them, in their order.
fn ranks(names: &[Option<Arc<[u8]>>]) -> Vec<u32> {
    let count = u32::try_from(names.len()).expect("a piece's memory ends before its keys");
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_unstable_by_key(|id| &names[*id as usize]);
    let mut ranks = vec![0; names.len()];
    for (rank, id) in (0..).zip(order) {
        ranks[id as usize] = rank;
    }
    ranks
}

/// What became of a piece.
#[derive(Debug)]
pub struct Decided<'p> {
    policy: &'p ThinPolicy,
    names: Vec<Option<Arc<[u8]>>>,
    /// Per name: its place among all.
    ranks: Vec<u32>,
    known: Vec<Known>,
    dealt: Dealt,
}

impl Decided<'_> {
    /// Which of the records go that lie from an offset on, asked in the order of their offsets.
    pub fn going(&self, from: Offset) -> Going<'_> {
        Going {
            dealt: &self.dealt,
            next: self.dealt.index_of(from),
        }
    }

    /// Whether any record of a range goes.
    pub fn drops_of(&self, offsets: &Range<Offset>) -> bool {
        !self.indexes(offsets).all(|index| self.dealt.keeps(index))
    }

    /// The lowest tier that a record of a range is in, 0 for none; None if none of its records can be read. Offsets are half-open.
    pub fn lowest_tier(&self, offsets: &Range<Offset>) -> Option<u8> {
        let tiers = self.indexes(offsets).map(|index| self.dealt.tier_of(index));
        tiers.min()
    }

    fn indexes(&self, offsets: &Range<Offset>) -> Range<usize> {
        self.dealt.index_of(offsets.start)..self.dealt.index_of(offsets.end)
    }

    /// A range in parts, of each of which a summary tells so many windows at most, and those that one section told before.
    pub fn parts(&self, offsets: &Range<Offset>, windows_max: usize) -> Vec<Range<Offset>> {
        let place = |offset| self.known.partition_point(|known| known.base < offset);
        let known = &self.known[place(offsets.start)..place(offsets.end)];
        let mut bases = known.iter().map(|known| known.base).peekable();
        let (mut parts, mut start, mut count) = (Vec::new(), offsets.start, 0);
        for index in self.indexes(offsets) {
            let offset = self.dealt.offset_at(index);
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
        let (policy, dealt) = (self.policy, &self.dealt);
        let mut summed = Summed::of(self.names.len());
        for known in self
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
        let mut lowest = None;
        for index in self.indexes(offsets) {
            let number = dealt.tier_of(index);
            lowest = Some(lowest.map_or(number, |lowest: u8| lowest.min(number)));
            let Some(tier) = policy.tiers().get(usize::from(number).wrapping_sub(1)) else {
                continue;
            };
            if !dealt.counted[index] {
                let place = dealt.places[index];
                let (key, time) = (dealt.keys[index], dealt.times[place as usize]);
                let at = summed.window_of(key, time, tier.window_ms);
                let numbers = dealt.numbers_at(place);
                summed.add(at, 1, numbers.map(|it| Stats::one(it.to_f64())));
            }
        }
        let window = |((key, start, window_ms), count, stats): (WindowAt, u64, &[Stats])| Window {
            at: WindowKey {
                key: self.names[key as usize].clone(),
                start,
                window_ms,
            },
            count,
            stats: stats.to_vec(),
        };
        Summary {
            tiers: policy.to_string(),
            tier: lowest.unwrap_or(0),
            counted: vec![offsets.clone()],
            values: policy.value_names(),
            windows: summed.windows(&self.ranks).map(window).collect(),
        }
    }

    /// The tier that has reached the window of a key and a time, as far as a record of it tells that is left.
    fn tier_at(&self, key: u32, time: i64) -> Option<&Tier> {
        let of_key = self.dealt.places_of(key);
        let times = &self.dealt.times[of_key.clone()];
        let mut tiers = self.policy.tiers().iter().enumerate().rev();
        let reached = tiers.find(|(before, tier)| {
            let begin = start(time, tier.window_ms);
            let place = times.partition_point(|time| *time < begin);
            times.get(place).is_some_and(|found| {
                let is_in = *found < begin.saturating_add(tier.window_ms);
                is_in && usize::from(self.dealt.tiers[of_key.start + place]) > *before
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
            places: HashMap::default(),
            latest: vec![usize::MAX; keys],
            counts: Vec::new(),
            stats: Vec::new(),
        }
    }

    /// The window that holds a time. That of a key's latest one, mostly, which is told without a division.
    fn window_of(&self, key: u32, time: i64, window_ms: i64) -> WindowAt {
        if let Some((latest, _)) = self.counts.get(self.latest[key as usize])
            && latest.2 == window_ms
            && latest.1 > i64::MIN
            && (latest.1..=latest.1.saturating_add(window_ms - 1)).contains(&time)
        {
            return *latest;
        }
        (key, start(time, window_ms), window_ms)
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

    /// In the order of their keys' ranks, beginnings and lengths.
    fn windows(&self, ranks: &[u32]) -> impl Iterator<Item = (WindowAt, u64, &[Stats])> {
        let mut order: Vec<usize> = (0..self.counts.len()).collect();
        order.sort_unstable_by_key(|place| {
            let (key, start, window_ms) = self.counts[*place].0;
            (ranks[key as usize], start, window_ms)
        });
        let each = self.stats.len() / self.counts.len().max(1);
        order.into_iter().map(move |place| {
            let (at, count) = self.counts[place];
            (at, count, &self.stats[place * each..][..each])
        })
    }
}

/// See [`Decided::going`].
#[derive(Debug)]
pub struct Going<'d> {
    dealt: &'d Dealt,
    next: usize,
}

impl Going<'_> {
    /// Whether the record at an offset goes. One that was not shown, or cannot be read, stays.
    pub fn goes(&mut self, offset: Offset) -> bool {
        let dealt = self.dealt;
        while self.next < dealt.len() && dealt.offset_at(self.next) < offset {
            self.next += 1;
        }
        let is_here = self.next < dealt.len() && dealt.offset_at(self.next) == offset;
        is_here && !dealt.keeps(self.next)
    }

    /// How many of the records before an offset go.
    pub fn count_before(&self, end: Offset) -> usize {
        let indexes = self.next..self.dealt.index_of(end);
        indexes.filter(|index| !self.dealt.keeps(*index)).count()
    }
}
