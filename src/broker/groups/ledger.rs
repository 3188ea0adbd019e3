//! What all groups hold together, and those of each principal, and the bounds on it: groups, members, committed offsets, and
//! their bytes. Groups that share records are among them: where such a group is with a partition counts as an offset.
//! Callers: `Coordinator` and `share`, under a group's lock; they ask before a group grows, and correct the figure after each step.
//! Invariant: what is held is the sum of what each group has on its account, and so is what a principal holds of those that are
//! its own; a principal without any takes no memory. Nothing grows past a bound; what an earlier start let in, under other
//! settings, stays.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// The settings that bound the fields of [`Held`], in their order.
const SETTINGS: [&str; FIELDS] = [
    "groups.max",
    "groups.members.max",
    "groups.bytes.max",
    "offsets.max",
    "offsets.bytes.max",
];
/// The settings that bound what one principal holds of each.
const SETTINGS_OF_ONE: [&str; FIELDS] = [
    "groups.per.principal.max",
    "groups.members.per.principal.max",
    "groups.bytes.per.principal.max",
    "offsets.per.principal.max",
    "offsets.bytes.per.principal.max",
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
    /// Committed offsets, and partitions that are shared.
    pub offsets: u64,
    /// Bytes of committed offsets, with the text beside them; of what is known of the records of shared partitions.
    pub offset_bytes: u64,
}

impl Held {
    /// Without a bound.
    pub const UNBOUNDED: Held = Held {
        groups: u64::MAX,
        members: u64::MAX,
        member_bytes: u64::MAX,
        offsets: u64::MAX,
        offset_bytes: u64::MAX,
    };

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
    /// What is held; of the bounds on each principal, by whoever holds most.
    pub used: u64,
    /// What may be held.
    pub max: u64,
    /// How often it has refused since the start.
    pub refused: u64,
}

/// The account of all groups.
#[derive(Debug)]
pub(in crate::broker) struct Ledger {
    max: Held,
    /// What one principal may hold.
    max_of_one: Held,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: Held,
    /// Those who hold something.
    of_one: HashMap<Arc<str>, Held>,
    all: Refusals,
    one: Refusals,
}

/// How often bounds have refused.
#[derive(Debug, Default)]
struct Refusals {
    refused: [u64; FIELDS],
    warned: [Option<Duration>; FIELDS],
}

impl Refusals {
    /// Notes one. Whether it is to be logged.
    fn note(&mut self, field: usize, now: Duration) -> bool {
        self.refused[field] += 1;
        let is_due =
            self.warned[field].is_none_or(|warned| now.saturating_sub(warned) >= WARN_INTERVAL);
        if is_due {
            self.warned[field] = Some(now);
        }
        is_due
    }
}

/// What one group holds, and whose it is.
#[derive(Debug, Default)]
pub(in crate::broker) struct Account {
    owner: Option<Arc<str>>,
    held: Held,
}

impl Account {
    /// Of a new group, which is on this principal's account if there is one.
    pub(in crate::broker) fn of(owner: Option<Arc<str>>) -> Account {
        Account {
            owner,
            held: Held::default(),
        }
    }

    /// Whose it is.
    pub(in crate::broker) fn owner(&self) -> Option<&Arc<str>> {
        self.owner.as_ref()
    }
}

/// The first bound that growth would pass, of those on what grows.
fn passed(wanted: Held, growth: Held, max: Held) -> Option<usize> {
    let (wanted, growth, max) = (wanted.fields(), growth.fields(), max.fields());
    (0..FIELDS).find(|field| growth[*field] > 0 && wanted[*field] > max[*field])
}

impl Ledger {
    pub(in crate::broker) fn new(max: Held, max_of_one: Held) -> Ledger {
        Ledger {
            max,
            max_of_one,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// Puts growth on a group's account, if every bound on what grows allows it.
    pub(in crate::broker) fn grow(
        &self,
        now: Duration,
        account: &mut Account,
        growth: Held,
    ) -> bool {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some((all, one)) = self.judge(state, now, account, growth) else {
            return false;
        };
        state.held = all;
        if let Some(owner) = &account.owner {
            state.of_one.insert(Arc::clone(owner), one);
        }
        account.held = account.held.plus(growth);
        true
    }

    /// Whether every bound on what would grow allows it. Where one does not, that is a refusal.
    pub(in crate::broker) fn has_room(
        &self,
        now: Duration,
        account: &Account,
        growth: Held,
    ) -> bool {
        let mut state = self.lock();
        self.judge(&mut state, now, account, growth).is_some()
    }

    /// Whether bytes of offsets were refused since the start.
    pub(in crate::broker) fn has_refused_offset_bytes(&self) -> bool {
        let state = self.lock();
        let of = |refusals: &Refusals| refusals.refused[FIELDS - 1];
        of(&state.all) + of(&state.one) > 0
    }

    /// What all groups and those of the account's owner would hold; None, and noted, if a bound does not allow it.
    fn judge(
        &self,
        state: &mut State,
        now: Duration,
        account: &Account,
        growth: Held,
    ) -> Option<(Held, Held)> {
        let all = state.held.plus(growth);
        if let Some(field) = passed(all, growth, self.max) {
            if state.all.note(field, now) {
                let (used, max) = (state.held.fields()[field], self.max.fields()[field]);
                tracing::warn!(
                    setting = SETTINGS[field],
                    used,
                    max,
                    "a group was refused: the bound on all groups is reached"
                );
            }
            return None;
        }
        let Some(owner) = &account.owner else {
            return Some((all, Held::default()));
        };
        let held = state.of_one.get(owner).copied().unwrap_or_default();
        let one = held.plus(growth);
        if let Some(field) = passed(one, growth, self.max_of_one) {
            if state.one.note(field, now) {
                let (used, max) = (held.fields()[field], self.max_of_one.fields()[field]);
                tracing::warn!(
                    principal = &**owner,
                    setting = SETTINGS_OF_ONE[field],
                    used,
                    max,
                    "a group was refused: the bound on one principal's groups is reached"
                );
            }
            return None;
        }
        Some((all, one))
    }

    /// Corrects a group's account to what it holds now.
    pub(in crate::broker) fn settle(&self, account: &mut Account, actual: Held) {
        if account.held == actual {
            return;
        }
        let corrected = |all: Held| {
            let others = all.with(account.held, |held, own| {
                held.checked_sub(own)
                    .expect("the sum holds what each group has on its account")
            });
            others.plus(actual)
        };
        let mut state = self.lock();
        state.held = corrected(state.held);
        if let Some(owner) = &account.owner {
            let held = state.of_one.get(owner).copied().unwrap_or_default();
            match corrected(held) {
                none if none == Held::default() => drop(state.of_one.remove(owner)),
                held => drop(state.of_one.insert(Arc::clone(owner), held)),
            }
        }
        account.held = actual;
    }

    /// All bounds, by setting: first those on all groups.
    pub(in crate::broker) fn bounds(&self) -> Vec<Bound> {
        let state = self.lock();
        let all = |field: usize| Bound {
            setting: SETTINGS[field],
            used: state.held.fields()[field],
            max: self.max.fields()[field],
            refused: state.all.refused[field],
        };
        let most = state.of_one.values();
        let most = most.fold(Held::default(), |most, held| most.with(*held, u64::max));
        let one = |field: usize| Bound {
            setting: SETTINGS_OF_ONE[field],
            used: most.fields()[field],
            max: self.max_of_one.fields()[field],
            refused: state.one.refused[field],
        };
        // Where access is not controlled nobody has an account.
        let is_bounded = self.max_of_one != Held::UNBOUNDED;
        let of_one = (0..FIELDS).filter(|_| is_bounded).map(one);
        (0..FIELDS).map(all).chain(of_one).collect()
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

    fn ledger() -> Ledger {
        Ledger::new(members(2, 100), members(1, 50))
    }

    #[test]
    fn a_bound_refuses_growth_and_nothing_else() {
        let ledger = ledger();
        let (mut one, mut other) = (Account::default(), Account::default());
        let now = Duration::ZERO;
        assert!(ledger.grow(now, &mut one, members(1, 60)));
        assert!(!ledger.grow(now, &mut other, members(1, 60)), "bytes");
        assert!(ledger.grow(now, &mut other, members(1, 40)));
        assert!(!ledger.grow(now, &mut one, members(1, 0)), "members");
        assert!(ledger.grow(now, &mut one, Held::default()));
        assert_eq!((one.held, other.held), (members(1, 60), members(1, 40)));
        let refused: Vec<_> = ledger.bounds().iter().map(|bound| bound.refused).collect();
        assert_eq!(refused, [0, 1, 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_goes_makes_room_and_what_an_earlier_start_let_in_stays() {
        let ledger = ledger();
        let (mut one, mut other) = (Account::default(), Account::default());
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

    #[test]
    fn what_one_principal_holds_is_no_hindrance_to_another() {
        let ledger = ledger();
        let now = Duration::ZERO;
        let of = |owner: &str| Account::of(Some(owner.into()));
        let (mut one, mut more, mut other) = (of("mallory"), of("mallory"), of("alice"));
        assert!(ledger.grow(now, &mut one, members(1, 50)));
        assert!(!ledger.grow(now, &mut more, members(1, 0)));
        assert!(!ledger.grow(now, &mut one, members(0, 1)));
        assert!(ledger.grow(now, &mut other, members(1, 30)));
        let used = |at: usize| ledger.bounds()[FIELDS + at];
        assert_eq!((used(1).used, used(2).used), (1, 50), "of whoever has most");
        assert_eq!((used(1).refused, used(2).refused), (1, 1));
        ledger.settle(&mut one, Held::default());
        assert!(ledger.grow(now, &mut more, members(1, 50)));
        ledger.settle(&mut more, Held::default());
        ledger.settle(&mut other, Held::default());
        assert!(
            ledger.lock().of_one.is_empty(),
            "who holds nothing is forgotten"
        );
    }
}
