//! What clients have the broker keep of one kind, added up: of all of them and of each principal that has an account, with a bound on either.
//! Callers: `sessions` and `retained`, which hold one for each thing that is bounded, under the lock of their book. Pure.
//! Invariants: the sum is that of all that is kept, and what a principal has is that of what is on its account; who has nothing takes no
//! memory. Nothing grows past a bound; what an earlier start let in, under other settings, stays.

use std::collections::HashMap;

use super::access::Owner;
use super::groups::Bound;

/// How much may be kept, and by which settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// What all may have together.
    pub all: Limit,
    /// What one principal may have, where access is controlled.
    pub of_one: Limit,
}

/// A bound, and the setting that says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} allows {max}")]
pub struct Limit {
    /// The setting.
    pub setting: &'static str,
    /// What it allows.
    pub max: u64,
}

/// What something takes, and on whose account it is, if it is on somebody's.
pub(super) type Taken<'a> = (Option<&'a str>, u64);

/// See the module. Without an allowance nothing is bounded.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    allowance: Option<Allowance>,
    held: u64,
    /// Of those who have something.
    of_one: HashMap<Owner, u64>,
    refused: u64,
    refused_of_one: u64,
}

impl Holdings {
    /// Bounds what comes from now on.
    pub(super) fn allow(&mut self, allowance: Allowance) {
        self.allowance = Some(allowance);
    }

    /// What all have.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    fn of(&self, owner: &str) -> u64 {
        self.of_one.get(owner).copied().unwrap_or(0)
    }

    /// Whether something that takes so much may take as much as this from now on. A refusal is counted.
    pub(super) fn check(&mut self, before: Taken<'_>, now: Taken<'_>) -> Result<(), Limit> {
        let Some(Allowance { all, of_one }) = self.allowance else {
            return Ok(());
        };
        if now.1 > before.1 && self.held - before.1 + now.1 > all.max {
            self.refused += 1;
            return Err(all);
        }
        let Some(owner) = now.0 else { return Ok(()) };
        let its_own = if before.0 == now.0 { before.1 } else { 0 };
        if now.1 > its_own && self.of(owner) - its_own + now.1 > of_one.max {
            self.refused_of_one += 1;
            return Err(of_one);
        }
        Ok(())
    }

    /// What took so much takes this from now on.
    pub(super) fn change(&mut self, before: Taken<'_>, now: Taken<'_>) {
        if before == now {
            return;
        }
        const HELD: &str = "the sum holds what each of them takes";
        self.held = self.held.checked_sub(before.1).expect(HELD) + now.1;
        if let (Some(owner), 1..) = before {
            let rest = self.of(owner).checked_sub(before.1).expect(HELD);
            self.set(owner, rest);
        }
        if let (Some(owner), 1..) = now {
            self.set(owner, self.of(owner) + now.1);
        }
    }

    fn set(&mut self, owner: &str, held: u64) {
        match self.of_one.get_mut(owner) {
            _ if held == 0 => drop(self.of_one.remove(owner)),
            Some(of_owner) => *of_owner = held,
            None => drop(self.of_one.insert(owner.into(), held)),
        }
    }

    /// The bounds, as operators are shown them: that on one principal where there are accounts.
    pub(super) fn bounds(&self, has_accounts: bool) -> Vec<Bound> {
        let Some(Allowance { all, of_one }) = self.allowance else {
            return Vec::new();
        };
        let bound = |limit: Limit, used, refused| Bound {
            setting: limit.setting,
            used,
            max: limit.max,
            refused,
        };
        let mut bounds = vec![bound(all, self.held, self.refused)];
        if has_accounts {
            let most = self.of_one.values().copied().max();
            bounds.push(bound(of_one, most.unwrap_or(0), self.refused_of_one));
        }
        bounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Limit = Limit {
        setting: "all",
        max: 10,
    };
    const OF_ONE: Limit = Limit {
        setting: "of one",
        max: 6,
    };

    fn holdings() -> Holdings {
        let mut holdings = Holdings::default();
        holdings.allow(Allowance {
            all: ALL,
            of_one: OF_ONE,
        });
        holdings
    }

    #[test]
    fn growth_is_refused_beyond_a_bound_and_nothing_else_is() {
        let mut holdings = holdings();
        let (nothing, alice, bob) = ((None, 0), Some("alice"), Some("bob"));
        for (before, now, told) in [
            (nothing, (alice, 7), Err(OF_ONE)),
            (nothing, (alice, 6), Ok(())),
            (nothing, (bob, 5), Err(ALL)),
            (nothing, (bob, 4), Ok(())),
            ((bob, 4), (bob, 5), Err(ALL)),
            ((bob, 4), (bob, 3), Ok(())),
            // What is another's from now on is no longer of who had it.
            ((bob, 3), (alice, 3), Err(OF_ONE)),
            ((alice, 6), (bob, 3), Ok(())),
            (nothing, (alice, 4), Ok(())),
        ] {
            let checked = holdings.check(before, now);
            assert_eq!(checked, told, "{before:?} {now:?}");
            if checked.is_ok() {
                holdings.change(before, now);
            }
        }
        assert_eq!(holdings.held(), 10);
        let bounds = holdings.bounds(true);
        let shown: Vec<_> = bounds.iter().map(|it| (it.used, it.refused)).collect();
        assert_eq!(shown, [(10, 2), (6, 2)]);
        assert_eq!(holdings.bounds(false).len(), 1);
    }

    #[test]
    fn what_was_there_before_a_bound_stays_and_may_shrink() {
        let mut holdings = Holdings::default();
        let big = (Some("alice"), 90);
        assert_eq!(holdings.check((None, 0), big), Ok(()), "no bound yet");
        holdings.change((None, 0), big);
        holdings.allow(Allowance {
            all: ALL,
            of_one: OF_ONE,
        });
        for now in [90, 80] {
            assert_eq!(holdings.check(big, (Some("alice"), now)), Ok(()));
        }
        assert_eq!(holdings.check(big, (Some("alice"), 91)), Err(ALL));
        holdings.change(big, (None, 0));
        assert_eq!(holdings.held(), 0);
        assert!(holdings.of_one.is_empty(), "who has nothing is forgotten");
    }
}
