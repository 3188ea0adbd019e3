//! The readings of a piece, dealt out to their keys: per key in the order of time, window after window, decided by tiers.
//!
//! Called by the piece. What a window's choice needs of a reading (its time, its numbers, its fate) is moved into the order of keys,
//! so that tiers walk through memory from end to end; the rest stays in the order of offsets, and a list of places leads
//! from one to the other. Pure.

use std::ops::Range;

use model::Offset;

use super::number::{Number, Numbers, moved};
use super::policy::{Tier, last};
use super::readings::{Readings, place_of};

/// See the module. An index is a reading's place in the order of offsets, a place is one in the order of keys.
#[derive(Debug)]
pub(super) struct Dealt {
    /// What offsets are counted from.
    base: Offset,
    /// Per index.
    offsets: Vec<u32>,
    pub keys: Vec<u32>,
    pub counted: Vec<bool>,
    pub places: Vec<u32>,
    /// Per place.
    pub times: Vec<i64>,
    pub tiers: Vec<u8>,
    kept: Vec<bool>,
    indexes: Vec<u32>,
    numbers: Numbers,
    conditions: Vec<u32>,
    /// Where each key's places end.
    ends: Vec<u32>,
    /// When readings were appended: from this index on at this time.
    appended: Vec<(usize, i64)>,
    /// How many numbers a reading has.
    values: usize,
    /// See `Piece`.
    keeps_newest: bool,
}

/// A key while its readings are counted and dealt out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hand {
    /// How many there are, and later where the next one goes.
    next: u32,
    /// Whether their times rise.
    is_sorted: bool,
    newest: i64,
}

impl Hand {
    const EMPTY: Hand = Hand {
        next: 0,
        is_sorted: true,
        newest: i64::MIN,
    };
}

impl Dealt {
    /// Deals out the readings of so many keys, with so many numbers each. Nothing is decided yet: all of them are kept.
    pub fn new(readings: Readings, keys: usize, values: usize, keeps_newest: bool) -> Dealt {
        let count = readings.offsets.len();
        let end = u32::try_from(count).expect("a piece's memory ends before its records");
        let mut hands = vec![Hand::EMPTY; keys];
        for (key, time) in readings.keys.iter().zip(&readings.times) {
            let hand = &mut hands[*key as usize];
            hand.next += 1;
            hand.is_sorted &= hand.newest <= *time;
            hand.newest = *time;
        }
        let mut begin = 0;
        for hand in &mut hands {
            begin += std::mem::replace(&mut hand.next, begin);
        }
        assert!(begin == end, "each reading has a key");
        let mut indexes = vec![0; count];
        for (index, key) in (0..end).zip(&readings.keys) {
            let next = &mut hands[*key as usize].next;
            indexes[*next as usize] = index;
            *next += 1;
        }
        let mut begin = 0;
        for hand in &hands {
            let own = &mut indexes[begin..hand.next as usize];
            if !hand.is_sorted {
                own.sort_unstable_by_key(|index| (readings.times[*index as usize], *index));
            }
            begin = hand.next as usize;
        }
        let mut places = vec![0; count];
        for (place, index) in (0..end).zip(&indexes) {
            places[*index as usize] = place;
        }
        Dealt {
            times: moved(readings.times, &places, 1),
            numbers: readings.numbers.moved(&places, values),
            conditions: moved(readings.conditions, &places, 1),
            tiers: vec![0; count],
            kept: vec![true; count],
            ends: hands.iter().map(|hand| hand.next).collect(),
            base: readings.base,
            offsets: readings.offsets,
            keys: readings.keys,
            counted: readings.counted,
            appended: readings.appended,
            places,
            indexes,
            values,
            keeps_newest,
        }
    }

    /// How many readings there are.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Where the first reading lies that has this offset or a later one.
    pub fn index_of(&self, offset: Offset) -> usize {
        place_of(self.base, &self.offsets, offset)
    }

    /// The offset of the reading at an index.
    pub fn offset_at(&self, index: usize) -> Offset {
        self.base.plus(self.offsets[index].into())
    }

    /// Whether the reading at an index stays.
    pub fn keeps(&self, index: usize) -> bool {
        self.kept[self.places[index] as usize]
    }

    /// The number of the tier that has reached the window of the reading at an index, from 1; 0 for none.
    pub fn tier_of(&self, index: usize) -> u8 {
        self.tiers[self.places[index] as usize]
    }

    /// The places of a key.
    pub fn places_of(&self, key: u32) -> Range<usize> {
        let key = key as usize;
        let begin = key.checked_sub(1).map_or(0, |before| self.ends[before]);
        begin as usize..self.ends[key] as usize
    }

    /// The numbers of the reading at a place.
    pub fn numbers_at(&self, place: u32) -> impl ExactSizeIterator<Item = Number> {
        let first = place as usize * self.values;
        (first..first + self.values).map(|index| self.numbers.get(index))
    }

    /// Thins the windows that a tier has reached: those with nothing newer than `until`.
    pub fn apply(&mut self, number: u8, tier: &Tier, until: i64) {
        let mut live = Vec::new();
        let mut begin = 0;
        for key in 0..self.ends.len() {
            let end = self.ends[key] as usize;
            while begin < end {
                let last = last(self.times[begin], tier.window_ms);
                let times = self.times[begin..end].iter();
                let window = begin..begin + times.take_while(|time| **time <= last).count();
                begin = window.end;
                live.clear();
                live.extend(
                    (window.start as u32..window.end as u32).filter(|it| self.kept[*it as usize]),
                );
                let newest = live.iter().map(|place| self.appended_at(*place)).max();
                if newest.is_none_or(|newest| newest > until) {
                    continue;
                }
                self.tiers[window.clone()].fill(number);
                self.kept[window].fill(false);
                self.select(tier, &live);
            }
        }
    }

    /// When the reading at a place was appended.
    fn appended_at(&self, place: u32) -> i64 {
        let index = self.indexes[place as usize] as usize;
        let runs = &self.appended;
        let run = match runs.as_slice() {
            [_] => 1,
            _ => runs.partition_point(|(from, _)| *from <= index),
        };
        runs[run - 1].1
    }

    /// Marks what a tier keeps of a window's readings, which are in the order of time.
    fn select(&mut self, tier: &Tier, live: &[u32]) {
        let (numbers, values, kept) = (&self.numbers, self.values, &mut self.kept);
        let number = |place: u32, value: usize| numbers.get(place as usize * values + value);
        let mut keep = |place: u32| kept[place as usize] = true;
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
            for place in live {
                let band = bands.of(number(*place, bands.value));
                if before != Some(band) {
                    keep(*place);
                }
                before = Some(band);
            }
        }
        if tier.conditions != 0 {
            let conditions = &self.conditions;
            let holds = |place: &&u32| conditions[**place as usize] & tier.conditions != 0;
            live.iter().filter(holds).copied().for_each(&mut keep);
        }
        if self.keeps_newest {
            let newest = live.iter().copied();
            let newest = newest.max_by_key(|place| self.indexes[*place as usize]);
            newest.into_iter().for_each(&mut keep);
        }
    }
}
