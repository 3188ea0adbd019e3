//! What shared subscriptions promise: by examples, and by random histories against a model.

mod dead_letters;
mod examples;
mod groups;
mod random;
mod records;

use std::collections::BTreeMap;
use std::ops::Range;

use model::Offset;

use super::*;

/// What a state log would hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept {
    start: Offset,
    runs: BTreeMap<Offset, StoredRun>,
}

impl Kept {
    fn apply(&mut self, keep: Keep) {
        match keep {
            Keep::Start(start) => self.start = start,
            Keep::Run(base, Some(run)) => drop(self.runs.insert(base, run)),
            Keep::Run(base, None) => drop(self.runs.remove(&base)),
        }
    }

    fn restore(&self) -> SharePartition {
        SharePartition::restore(self.start, self.runs.clone(), Offset::MAX)
    }
}

fn offsets(range: Range<u64>) -> Range<Offset> {
    Offset::new(range.start)..Offset::new(range.end)
}
