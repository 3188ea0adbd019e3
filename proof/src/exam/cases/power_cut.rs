//! Case 3: the power goes under load; what was not synced is gone.

use crate::exam::cases::crash;
use crate::exam::disk::LoopDisk;
use crate::exam::victim::Plan;
use crate::exam::{Case, Rounds};

/// The case.
pub const CASE: Case = Case {
    number: 3,
    name: "power-cut",
    about: "power cut under load, unsynced data lost",
    rounds: Rounds { full: 30, short: 3 },
    run: |exam| {
        let mut disk = LoopDisk::create(&exam.work, "disk", 2 << 30)?;
        let plan = Plan::new(&exam.binary, &disk.path().join("data"), &exam.work);
        crash::rounds(exam, &crash::small(plan), CASE.about, |victim| {
            disk.cut_power()?;
            victim.kill()?;
            disk.restore_power()
        })
    },
};
