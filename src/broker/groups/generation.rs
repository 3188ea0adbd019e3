//! Which membership of a group: a number that rises with every rebalance.
//! Callers: fronts, which parse it from their wire; the group, which alone counts it up; the records, which store it.
//! Invariant: never negative, so that no sentinel of a wire is taken for one.

use std::fmt;

/// A group's generation. A group that never had members is in generation 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(i32);

impl Generation {
    /// The generation with this number; None for a number that no generation has, such as Kafka's -1 for "no member".
    pub const fn from_wire(number: i32) -> Option<Generation> {
        if number < 0 {
            return None;
        }
        Some(Generation(number))
    }

    /// The number itself.
    pub const fn get(self) -> i32 {
        self.0
    }

    /// The one that follows both this and `promised`. It stays at the largest number, which no group reaches in a
    /// lifetime.
    #[must_use]
    pub fn after(self, promised: Generation) -> Generation {
        let next = Generation(self.max(promised).0.saturating_add(1));
        assert!(next >= self && next >= promised, "a generation never falls");
        next
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests write generations as numbers.
    impl From<i32> for Generation {
        fn from(number: i32) -> Generation {
            Generation::from_wire(number).expect("a generation's number")
        }
    }

    impl PartialEq<i32> for Generation {
        fn eq(&self, number: &i32) -> bool {
            self.0 == *number
        }
    }

    impl PartialOrd<i32> for Generation {
        fn partial_cmp(&self, number: &i32) -> Option<std::cmp::Ordering> {
            self.0.partial_cmp(number)
        }
    }

    #[test]
    fn no_sentinel_is_a_generation() {
        for number in [-1, i32::MIN] {
            assert_eq!(Generation::from_wire(number), None, "{number}");
        }
        for number in [0, 1, i32::MAX] {
            let generation = Generation::from_wire(number).expect("not negative");
            assert_eq!(generation.get(), number);
        }
    }

    #[test]
    fn the_next_one_follows_whichever_is_higher() {
        let after = |one: i32, other: i32| Generation::from(one).after(other.into()).get();
        assert_eq!((after(3, 7), after(7, 3), after(0, 0)), (8, 8, 1));
        assert_eq!(after(i32::MAX, 0), i32::MAX);
    }
}
