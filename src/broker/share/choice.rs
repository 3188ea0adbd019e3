//! Which of a group's records a consumer wants, and how far it has looked for them. Pure.
//! Callers: `reader`. Of records that a consumer does not want the group is done with, if all its consumers want the same; else they stay for
//! others. Then a consumer looks at each record once: it remembers how far it has looked, and, behind that, which records others had, as those
//! may come back. So a queue may be as long as it will behind records that nobody wants.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use model::Offset;

use crate::broker::replay::{Block, ReplayRecord};

/// Records to come back to. They are held by somebody, of which there is a bound, or were a moment ago: more than so many are looked for anew.
const LATER_MAX: usize = 16 << 10;

/// Says of a record whether it is wanted.
type Wants = Arc<dyn Fn(&ReplayRecord<'_>) -> bool + Send + Sync>;

/// Which records a consumer wants. Cheap to clone.
#[derive(Clone)]
pub struct Choice {
    /// Whether it wants this one.
    pub wants: Wants,
    /// Whether the group is done with the others.
    pub finishes_others: bool,
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice")
            .field("finishes_others", &self.finishes_others)
            .finish_non_exhaustive()
    }
}

/// Offsets in order, those behind each other as one range.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Offsets(pub(super) Vec<Range<Offset>>);

impl Offsets {
    pub(super) fn add(&mut self, range: Range<Offset>) {
        match self.0.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.0.push(range),
        }
    }
}

/// What of a range is wanted, and what is not.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    pub(super) wanted: Offsets,
    pub(super) others: Offsets,
    /// Behind what was looked at.
    pub(super) end: Offset,
}

impl Choice {
    /// Sorts a range by the records that a block has of it, until so many are wanted. Where it has none, nothing is wanted; nor are those that
    /// are left out.
    pub(super) fn sort(
        &self,
        block: &Block,
        within: Range<Offset>,
        count_max: usize,
        is_left_out: impl Fn(Offset) -> bool,
    ) -> Sorted {
        let mut sorted = Sorted::default();
        let (mut at, mut count) = (within.start, 0);
        for found in block.iter() {
            let offset = found.record.offset;
            if offset < at || offset >= within.end {
                continue;
            }
            if count == count_max {
                sorted.end = at;
                return sorted;
            }
            let next = offset.plus(1);
            if !is_left_out(offset) && (self.wants)(&found) {
                sorted.others.add(at..offset);
                sorted.wanted.add(offset..next);
                count += 1;
            } else {
                sorted.others.add(at..next);
            }
            at = next;
        }
        sorted.others.add(at..within.end.max(at));
        sorted.end = within.end.max(at);
        sorted
    }
}

/// How far a consumer has looked at a partition.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What lies before was looked at.
    pub(super) to: Offset,
    /// And what of that it may still want.
    pub(super) later: BTreeSet<Offset>,
    /// Whether some of it may have come back.
    pub(super) is_due: bool,
}

impl Looked {
    /// It has looked so far; `later` is what it may want when it comes back.
    pub(super) fn pass(&mut self, to: Offset, later: impl IntoIterator<Item = Range<Offset>>) {
        for range in later {
            let count = range.end.since(range.start);
            self.later
                .extend((0..count).map(|past| range.start.plus(past)));
        }
        self.to = self.to.max(to);
        if self.later.len() > LATER_MAX
            && let Some(first) = self.later.pop_first()
        {
            self.to = first;
            self.later = BTreeSet::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(range: Range<u64>) -> Range<Offset> {
        Offset::new(range.start)..Offset::new(range.end)
    }

    #[test]
    fn what_lies_behind_each_other_is_one_range() {
        let mut all = Offsets::default();
        for range in [0..0, 1..2, 2..5, 7..8, 8..8, 8..9] {
            all.add(offsets(range));
        }
        assert_eq!(all.0, [offsets(1..5), offsets(7..9)]);
    }

    #[test]
    fn a_consumer_that_has_passed_too_much_looks_anew() {
        let mut looked = Looked::default();
        looked.pass(Offset::new(10), [offsets(3..5)]);
        assert_eq!(looked.to, Offset::new(10));
        assert_eq!(looked.later.len(), 2);
        let many = LATER_MAX as u64;
        looked.pass(Offset::new(20 + many), [offsets(20..20 + many)]);
        assert_eq!(looked.to, Offset::new(3));
        assert!(looked.later.is_empty());
    }
}
