//! The power is cut during every operation that changes the disk, one after the other, of scripts in which segments are rewritten
//! between appends, settlings, removals, purges of the write-ahead log and restarts. After each cut the log is what it was before the step that was cut, or what
//! that step makes of it, and never something between; and what the cut left behind goes without a trace.
//!
//! `SEEDS=100 cargo test --release -p alluvium-storage --test rewrite_cut` runs longer; `FIRST_SEED` moves the start.

#![allow(clippy::unwrap_used)]

mod random;
mod rewriting;

use std::collections::BTreeMap;

use alluvium_storage::rewrite::RewriteError;
use alluvium_storage::segment::SegmentId;
use bytes::Bytes;
use model::Timestamp;

use random::Random;
use rewriting::House;

/// Steps of one script, behind the first segments.
const STEPS: usize = 14;
/// Seeds that a plain test run takes.
const SEEDS_DEFAULT: u64 = 2;

#[test]
fn a_cut_at_any_operation_leaves_the_state_before_or_after_the_rewrite() {
    let seeds = setting("SEEDS", SEEDS_DEFAULT);
    let first = setting("FIRST_SEED", 1);
    let (mut cuts, mut before, mut after) = (0, 0, 0);
    for seed in first..first + seeds {
        let begin = Life::new(seed, None).house.disk.operations();
        let mut whole = Life::new(seed, None);
        assert!(whole.live(), "without a cut nothing fails");
        assert!(whole.rewrites > 0, "seed {seed} rewrites something");
        let end = whole.house.disk.operations();
        for cut in begin + 1..=end {
            let mut life = Life::new(seed, Some(cut));
            life.live();
            match life.judge(seed.wrapping_mul(1_000_003).wrapping_add(cut)) {
                Some(Found::Before) => before += 1,
                Some(Found::After) => after += 1,
                None => {}
            }
            cuts += 1;
        }
    }
    println!(
        "rewrite_cut: {cuts} cuts under seeds {first}..{}; of those inside a rewrite {before} left the old segments, {after} the new one",
        first + seeds
    );
    assert!(
        before > 0 && after > 0,
        "cuts must hit both sides of the switch: {before} before, {after} after"
    );
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

type Records = BTreeMap<u64, (Timestamp, Bytes)>;

/// What a log may be like after a cut.
struct State {
    records: Records,
    start: u64,
    end: u64,
}

/// Which of two states was found after a cut inside a rewrite.
enum Found {
    Before,
    After,
}

struct Life {
    house: House,
    random: Random,
    seed: u64,
    cut: Option<u64>,
    /// What the step that was cut would have made, and whether it was a rewrite.
    other: Option<(State, bool)>,
    rewrites: u32,
}

impl Life {
    /// A store with some segments; the power goes during the operation with this number.
    fn new(seed: u64, cut: Option<u64>) -> Life {
        let mut house = House::new(seed);
        for time in 0..12 {
            house.append(&[time, time + 3, time - 1]);
        }
        house.settle();
        if let Some(cut) = cut {
            house.disk.cut_power_during(cut);
        }
        Life {
            house,
            random: Random(seed),
            seed,
            cut,
            other: None,
            rewrites: 0,
        }
    }

    /// False if the power went.
    fn live(&mut self) -> bool {
        for _ in 0..STEPS {
            let went_well = match self.random.below(100) {
                0..=29 => self.append(),
                30..=49 => {
                    self.house.settle();
                    true
                }
                50..=84 => self.rewrite(),
                85..=89 => self.delete_records(),
                90..=93 => self.house.storage().purge_wal().is_ok(),
                _ => {
                    self.house.close();
                    self.house.try_open().is_ok()
                }
            };
            if !went_well || self.house.disk.is_off() {
                return false;
            }
            self.other = None;
        }
        true
    }

    fn append(&mut self) -> bool {
        let count = 1 + self.random.below(4) as usize;
        let time = self.random.below(50) as i64;
        let times = vec![time; count];
        // The payloads are known before: the next numbers.
        let records = self.house.next_records(&times);
        let mut state = self.state();
        for record in records {
            state.records.insert(state.end, record);
            state.end += 1;
        }
        self.other = Some((state, false));
        self.house.try_append(&times)
    }

    fn rewrite(&mut self) -> bool {
        let ids: Vec<SegmentId> = self.house.sealed().iter().map(|entry| entry.id).collect();
        if ids.is_empty() {
            return true;
        }
        let from = self.random.below(ids.len() as u64) as usize;
        let count = 1 + self.random.below(3) as usize;
        let ids = &ids[from..ids.len().min(from + count)];
        let (by, rest) = (2 + self.random.below(4), self.random.below(2));
        let keep = move |offset: u64| offset % by == rest;
        let range = self.house.range_of(ids);
        let mut state = self.state();
        state
            .records
            .retain(|offset, _| !range.contains(offset) || keep(*offset));
        self.other = Some((state, true));
        self.rewrites += 1;
        match self.house.try_rewrite(ids, keep) {
            // The start has passed it, and the settler's round came to that first.
            Ok(_) | Err(RewriteError::NoLongerLive { .. }) => true,
            Err(_) => false,
        }
    }

    fn delete_records(&mut self) -> bool {
        let more = self.random.below(5);
        let mut state = self.state();
        state.start = (state.start + more).min(state.end);
        state.records = state.records.split_off(&state.start);
        self.other = Some((state, false));
        self.house.try_delete_records(more)
    }

    fn state(&self) -> State {
        State {
            records: self.house.records.clone(),
            start: self.house.start,
            end: self.house.end,
        }
    }

    /// Brings the power back and compares the log with what it may be; some seeds cut the recovery too. Then the store goes on
    /// as if nothing had been.
    fn judge(&mut self, seed: u64) -> Option<Found> {
        let mut random = Random(seed);
        self.house.disk.cut_power();
        self.house.close();
        self.house.disk.restart(random.next());
        for _ in 0..random.below(3) {
            let cut = self.house.disk.operations() + 1 + random.below(30);
            self.house.disk.cut_power_during(cut);
            if self.house.try_open().is_ok() {
                self.house.settle();
                self.house.disk.cut_power();
            }
            self.house.close();
            self.house.disk.restart(random.next());
        }
        self.house.open();
        let found = self.adopt();
        self.house.check();
        self.house.check_offline();
        self.house.append(&[9, 8]);
        self.house.settle();
        let name = self.name();
        let ids: Vec<SegmentId> = self.house.sealed().iter().map(|entry| entry.id).collect();
        let last = &ids[ids.len() - ids.len().min(2)..];
        if !last.is_empty() {
            let rewritten = self.house.try_rewrite(last, |offset| offset % 2 == 0);
            assert!(rewritten.is_ok(), "{name}: {rewritten:?}");
        }
        self.house.check();
        self.house.check_directory();
        self.house.restart();
        self.house.check();
        self.house.close();
        found
    }

    /// Finds out which of the states the log is in, and takes it for what it should be.
    fn adopt(&mut self) -> Option<Found> {
        let bounds = self.house.log().bounds();
        let found: Records = self
            .house
            .read_on(bounds.start.get(), 1 << 20)
            .into_iter()
            .collect();
        let is_it = |state: &State| {
            let ends = (bounds.start.get(), bounds.durable_end.get());
            ends == (state.start, state.end) && found == state.records
        };
        if is_it(&self.state()) {
            let (_, is_rewrite) = self.other.as_ref()?;
            return is_rewrite.then_some(Found::Before);
        }
        let name = self.name();
        let Some((state, is_rewrite)) = self.other.take().filter(|(state, _)| is_it(state)) else {
            panic!(
                "{name}: the log is neither what it was nor what it was to become: {bounds:?}, {found:?}"
            );
        };
        (self.house.records, self.house.start, self.house.end) =
            (state.records, state.start, state.end);
        is_rewrite.then_some(Found::After)
    }

    fn name(&self) -> String {
        format!(
            "FIRST_SEED={} SEEDS=1, cut during operation {:?}",
            self.seed, self.cut
        )
    }
}
