//! Serial numbers (RFC 1982), as delivery ids, transfer ids and delivery counts are: 32 bits that wrap.
//! Callers: the endpoint.

use std::cmp::Ordering;

/// A number that wraps; `a` is before `b` if fewer than 2^31 steps lead from `a` to `b`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Serial(pub u32);

impl Serial {
    /// So many steps further.
    #[must_use]
    pub fn plus(self, steps: u32) -> Serial {
        Serial(self.0.wrapping_add(steps))
    }

    /// The steps from `other` to this one; None if this one is before it.
    pub fn since(self, other: Serial) -> Option<u32> {
        let steps = self.0.wrapping_sub(other.0);
        (steps < 1 << 31).then_some(steps)
    }

    /// How it stands to another; None for the one pair that the RFC leaves open, half of all numbers apart.
    pub fn compare(self, other: Serial) -> Option<Ordering> {
        match self.0.wrapping_sub(other.0) {
            0 => Some(Ordering::Equal),
            0x8000_0000 => None,
            steps if steps < 1 << 31 => Some(Ordering::Greater),
            _ => Some(Ordering::Less),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap_and_keep_their_order() {
        let last = Serial(u32::MAX);
        assert_eq!(last.plus(1), Serial(0));
        assert_eq!(last.plus(1).since(last), Some(1));
        assert_eq!(last.since(last.plus(1)), None);
        assert_eq!(last.compare(last.plus(3)), Some(Ordering::Less));
        assert_eq!(Serial(0).compare(Serial(1 << 31)), None);
        assert_eq!(Serial(5).since(Serial(5)), Some(0));
    }
}
