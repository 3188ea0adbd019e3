//! What all groups hold together, and the bounds on it: groups, members, committed offsets, and their bytes.
//! Callers: `Coordinator`, under a group's lock; it asks before a group grows, and corrects the figure after each step.
//! Invariant: what is held is the sum of what each group has on its account. Nothing grows past a bound; what an earlier
//! start let in, under other settings, stays.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// The settings that bound the fields of [`Held`], in their order.
const SETTINGS: [&str; FIELDS] = [
    "groups.max",
    "groups.members.max",
    "groups.bytes.max",
    "offsets.max",
    "offsets.bytes.max",
];
const FIELDS: usize = 5;
/// A bound that refuses is logged once in this time.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// What a group holds, or all of them, or may hold, or wants to grow by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Groups.
    pub groups: u64,
    /// Members, and ids that were given out to become members.
    pub members: u64,
    /// Bytes of groups and members: names, subscriptions, assignments.
    pub member_bytes: u64,
    /// Committed offsets.
    pub offsets: u64,
    /// Bytes of committed offsets, with the text beside them.
    pub offset_bytes: u64,
}

impl Held {
    fn fields(self) -> [u64; FIELDS] {
        [
            self.groups,
            self.members,
            self.member_bytes,
            self.offsets,
            self.offset_bytes,
        ]
    }

    fn of_fields(fields: [u64; FIELDS]) -> Held {
        let [groups, members, member_bytes, offsets, offset_bytes] = fields;
        Held {
            groups,
            members,
            member_bytes,
            offsets,
            offset_bytes,
        }
    }

    fn with(self, other: Held, join: fn(u64, u64) -> u64) -> Held {
        let (own, other) = (self.fields(), other.fields());
        Held::of_fields(std::array::from_fn(|field| join(own[field], other[field])))
    }

    fn plus(self, other: Held) -> Held {
        self.with(other, u64::saturating_add)
    }
}

/// One bound, as an operator is shown it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The setting.
    pub setting: &'static str,
    /// What is held.
    pub used: u64,
    /// What may be held.
    pub max: u64,
    /// How often it has refused since the start.
    pub refused: u64,
}

/// The account of all groups.
#[derive(Debug)]
pub(super) struct Ledger {
    max: Held,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: Held,
    refused: [u64; FIELDS],
    warned: [Option<Duration>; FIELDS],
}

impl Ledger {
    pub(super) fn new(max: Held) -> Ledger {
        Ledger {
            max,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// Puts growth on a group's account, if every bound on what grows allows it.
    pub(super) fn grow(&self, now: Duration, account: &mut Held, growth: Held) -> bool {
        let mut state = self.lock();
        let wanted = state.held.plus(growth);
        let passes = |field: usize| {
            growth.fields()[field] > 0 && wanted.fields()[field] > self.max.fields()[field]
        };
        if let Some(field) = (0..FIELDS).find(|field| passes(*field)) {
            state.refused[field] += 1;
            let is_due = state.warned[field]
                .is_none_or(|warned| now.saturating_sub(warned) >= WARN_INTERVAL);
            if is_due {
                state.warned[field] = Some(now);
                let (used, max) = (state.held.fields()[field], self.max.fields()[field]);
                tracing::warn!(
                    setting = SETTINGS[field],
                    used,
                    max,
                    "a consumer group was refused: the bound on all groups is reached"
                );
            }
            return false;
        }
        state.held = wanted;
        *account = account.plus(growth);
        true
    }

    /// Corrects a group's account to what it holds now.
    pub(super) fn settle(&self, account: &mut Held, actual: Held) {
        if *account == actual {
            return;
        }
        let mut state = self.lock();
        let others = state.held.with(*account, |held, own| {
            held.checked_sub(own)
                .expect("the sum holds what each group has on its account")
        });
        state.held = others.plus(actual);
        *account = actual;
    }

    /// All bounds, by setting.
    pub(super) fn bounds(&self) -> Vec<Bound> {
        let state = self.lock();
        let bound = |field: usize| Bound {
            setting: SETTINGS[field],
            used: state.held.fields()[field],
            max: self.max.fields()[field],
            refused: state.refused[field],
        };
        (0..FIELDS).map(bound).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(members: u64, member_bytes: u64) -> Held {
        Held {
            members,
            member_bytes,
            ..Held::default()
        }
    }

    #[test]
    fn a_bound_refuses_growth_and_nothing_else() {
        let ledger = Ledger::new(members(2, 100));
        let (mut one, mut other) = (Held::default(), Held::default());
        let now = Duration::ZERO;
        assert!(ledger.grow(now, &mut one, members(1, 60)));
        assert!(!ledger.grow(now, &mut other, members(1, 60)), "bytes");
        assert!(ledger.grow(now, &mut other, members(1, 40)));
        assert!(!ledger.grow(now, &mut one, members(1, 0)), "members");
        assert!(ledger.grow(now, &mut one, Held::default()));
        assert_eq!((one, other), (members(1, 60), members(1, 40)));
        let refused: Vec<_> = ledger.bounds().iter().map(|bound| bound.refused).collect();
        assert_eq!(refused, [0, 1, 1, 0, 0]);
    }

    #[test]
    fn what_goes_makes_room_and_what_an_earlier_start_let_in_stays() {
        let ledger = Ledger::new(members(2, 100));
        let (mut one, mut other) = (Held::default(), Held::default());
        let now = Duration::ZERO;
        ledger.settle(&mut one, members(5, 500));
        assert!(!ledger.grow(now, &mut other, members(1, 1)));
        assert!(ledger.grow(now, &mut other, members(0, 0)));
        ledger.settle(&mut one, members(1, 10));
        assert!(ledger.grow(now, &mut other, members(1, 90)));
        ledger.settle(&mut one, Held::default());
        ledger.settle(&mut other, Held::default());
        assert!(ledger.bounds().iter().all(|bound| bound.used == 0));
    }
}
