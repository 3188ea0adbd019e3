//! Case 1: SIGKILL under load, at random moments.

use crate::exam::cases::crash;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Rounds};

/// The case.
pub const CASE: Case = Case {
    number: 1,
    name: "kill",
    about: "kill -9 under load, at random moments",
    rounds: Rounds {
        full: 100,
        short: 5,
    },
    run: |exam| {
        let plan = Plan::new(&exam.binary, &exam.work.join("data"), &exam.work);
        crash::rounds(exam, &crash::small(plan), CASE.about, Victim::kill)
    },
};
