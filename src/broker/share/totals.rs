//! What became of records of all groups, since the start.
//! Callers: the groups' machines, once a step is appended; the metrics.

use std::sync::Mutex;

use super::partition::Tally;

/// See the module.
#[derive(Debug, Default)]
pub struct Totals(Mutex<Tally>);

impl Totals {
    /// Adds what a step came to.
    pub fn add(&self, tally: Tally) {
        if tally != Tally::default() {
            let mut total = self.0.lock().expect("nothing panics while it adds");
            total.add(tally);
        }
    }

    /// As they are.
    pub fn get(&self) -> Tally {
        *self.0.lock().expect("nothing panics while it adds")
    }
}
