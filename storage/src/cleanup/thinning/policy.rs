//! `thin.tiers`, prepared for use: which values are read of each record, and what each tier keeps by them.
//!
//! Called by [`super::Piece`]. Pure. Invariant: what a tier looks at, the first tier looks at too, so that one list of values
//! and conditions serves all tiers, and a record that can be read for one tier can be read for all later ones.

use std::collections::HashSet;
use std::sync::Arc;

use model::topic_config::thin::{Condition, Selector, ThinTiers, ValueAt};

use super::extract;
use super::number::Number;

/// See the module.
#[derive(Clone, Debug)]
pub struct ThinPolicy {
    setting: ThinTiers,
    tiers: Vec<Tier>,
    values: Vec<ValueAt>,
    conditions: Vec<Condition>,
    keeps_newest: bool,
    held_keys: HashSet<Arc<[u8]>>,
}

/// One tier. Values and conditions are named by their place in the policy's lists.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tier {
    pub age_ms: i64,
    pub window_ms: i64,
    pub first: bool,
    pub last: bool,
    pub min: Vec<usize>,
    pub max: Vec<usize>,
    pub change: Vec<Bands>,
    /// A bit for each condition.
    pub conditions: u32,
}

/// The bands of one value in one tier: so many bands of the first tier each, so that a band's edge is one there too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bands {
    pub value: usize,
    first_width: f64,
    times: i64,
}

impl Bands {
    pub fn of(&self, number: Number) -> i64 {
        let widths = number.to_f64() / self.first_width;
        // 0.6 is three times 0.2, and not a little less, as it is in floats.
        let rounding = widths.abs() * 4.0 * f64::EPSILON;
        let nearest = widths.round();
        let narrow = match (widths - nearest).abs() <= rounding {
            true => nearest,
            false => widths.floor(),
        };
        // The conversion saturates: beyond 2^63 widths all values lie in one band.
        (narrow as i64).div_euclid(self.times)
    }
}

impl ThinPolicy {
    /// None if there is no tier.
    pub fn new(tiers: &ThinTiers) -> Option<ThinPolicy> {
        let first = tiers.tiers().first()?;
        let mut policy = ThinPolicy {
            setting: tiers.clone(),
            tiers: Vec::new(),
            values: Vec::new(),
            conditions: Vec::new(),
            keeps_newest: false,
            held_keys: HashSet::new(),
        };
        for selector in &first.keep {
            match selector {
                Selector::First | Selector::Last => {}
                Selector::If(condition) => policy.conditions.push(condition.clone()),
                Selector::Min(value) | Selector::Max(value) | Selector::Change { value, .. } => {
                    if !policy.values.contains(value) {
                        policy.values.push(value.clone());
                    }
                }
            }
        }
        for tier in tiers.tiers() {
            let prepared = policy.tier(tier.age_ms, tier.window_ms, &tier.keep, &first.keep);
            policy.tiers.push(prepared);
        }
        Some(policy)
    }

    fn tier(&self, age_ms: u64, window_ms: u64, keep: &[Selector], first: &[Selector]) -> Tier {
        let ms = |span: u64| i64::try_from(span).expect("spans are a hundred years at most");
        let place = |value: &ValueAt| {
            let found = self.values.iter().position(|known| known == value);
            found.expect("the first tier keeps what later tiers keep")
        };
        let mut tier = Tier {
            age_ms: ms(age_ms),
            window_ms: ms(window_ms),
            first: keep.contains(&Selector::First),
            last: keep.contains(&Selector::Last),
            min: Vec::new(),
            max: Vec::new(),
            change: Vec::new(),
            conditions: 0,
        };
        for selector in keep {
            match selector {
                Selector::First | Selector::Last => {}
                Selector::Min(value) => tier.min.push(place(value)),
                Selector::Max(value) => tier.max.push(place(value)),
                Selector::If(condition) => {
                    let found = self.conditions.iter().position(|known| known == condition);
                    tier.conditions |= 1 << found.expect("the first tier keeps it too");
                }
                Selector::Change { value, by } => {
                    let known = first.iter().find(|known| known.repeats(selector));
                    let Some(Selector::Change { by: narrow, .. }) = known else {
                        unreachable!("the first tier keeps it too");
                    };
                    let times = by.multiple_of(*narrow).filter(|times| *times > 0);
                    tier.change.push(Bands {
                        value: place(value),
                        first_width: narrow.to_f64(),
                        times: times.expect("widths are multiples of the first tier's"),
                    });
                }
            }
        }
        tier
    }

    /// The same for a topic that is compacted too: what compaction would keep of the records, thinning keeps.
    pub fn beside_compaction(mut self) -> ThinPolicy {
        self.keeps_newest = true;
        self
    }

    /// The same, but that every record of these keys is kept.
    pub fn holding(mut self, keys: impl IntoIterator<Item = Arc<[u8]>>) -> ThinPolicy {
        self.held_keys.extend(keys);
        self
    }

    pub(super) fn held_keys(&self) -> &HashSet<Arc<[u8]>> {
        &self.held_keys
    }

    pub(super) fn keeps_newest(&self) -> bool {
        self.keeps_newest
    }

    /// The length of the last tier's windows, which is the longest.
    pub fn longest_window_ms(&self) -> i64 {
        self.tiers.last().map_or(0, |tier| tier.window_ms)
    }

    pub(super) fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// The values of which smallest, largest and sum are kept, as `thin.tiers` spells them, in the order of views.
    pub fn value_names(&self) -> Vec<String> {
        self.values.iter().map(ValueAt::to_string).collect()
    }

    pub(super) fn has_conditions(&self) -> bool {
        !self.conditions.is_empty()
    }

    pub(super) fn value_count(&self) -> usize {
        self.values.len()
    }

    /// Whether a record can be read, so that it is thinned and counted. `numbers` is memory.
    pub(crate) fn reads(&self, value: Option<&[u8]>, numbers: &mut Vec<Number>) -> bool {
        self.read(value, numbers).is_some()
    }

    /// Reads a record: its values are appended to `numbers`, and the bits of the conditions that hold are given. None, and
    /// nothing appended, if anything that is looked at is not there.
    pub(super) fn read(&self, value: Option<&[u8]>, numbers: &mut Vec<Number>) -> Option<u32> {
        if self.values.is_empty() && self.conditions.is_empty() {
            return Some(0);
        }
        let bytes = value?;
        let before = numbers.len();
        let mut read = || {
            for value in &self.values {
                numbers.push(extract::number(value, bytes)?);
            }
            let mut held = 0;
            for (bit, condition) in self.conditions.iter().enumerate() {
                held |= u32::from(extract::holds(condition, bytes)?) << bit;
            }
            Some(held)
        };
        let held = read();
        if held.is_none() {
            numbers.truncate(before);
        }
        held
    }
}

impl std::fmt::Display for ThinPolicy {
    /// The setting that it was made from, in its one spelling.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.setting.fmt(f)
    }
}

/// Where the window of this length begins that holds this time.
pub(crate) fn start(time: i64, window_ms: i64) -> i64 {
    // Saturates in the first window of all time, whose beginning cannot be told.
    time.saturating_sub(time.rem_euclid(window_ms))
}

/// The last time in the window of this length that holds this time.
pub(super) fn last(time: i64, window_ms: i64) -> i64 {
    time.saturating_add(window_ms - 1 - time.rem_euclid(window_ms))
}
