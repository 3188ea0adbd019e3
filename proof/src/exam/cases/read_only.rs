//! Case 14: the file system turns read-only under load, as ext4 does with `errors=remount-ro` when it finds itself damaged.
//! The broker has to end at once, by name, and to come back whole once the file system is mended.

use std::time::Duration;

use anyhow::Result;

use crate::exam::cases::crash;
use crate::exam::disk::LoopDisk;
use crate::exam::load::{Load, LoadPlan};
use crate::exam::random::Random;
use crate::exam::victim::{self, Plan};
use crate::exam::{Case, Exam, Outcome, Rounds};

/// What the broker exits with when its storage failed.
const EXIT_CODE_STORAGE_FAILED: i32 = 74;

/// The case.
pub const CASE: Case = Case {
    number: 14,
    name: "read-only",
    about: "the file system turns read-only under load",
    rounds: Rounds { full: 20, short: 1 },
    run,
};

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let mut random = Random::new(exam.seed);
    let mut disk = LoopDisk::create(&exam.work, "disk", 512 << 20)?;
    let plan = crash::small(Plan::new(
        &exam.binary,
        &disk.path().join("data"),
        &exam.work,
    ));
    let load = Load::new(LoadPlan::default(), &exam.work, exam.seed)?;
    let mut victim = plan.start()?;
    load.create_topics(&victim.kafka)?;
    for round in 1..=exam.rounds {
        let running = load.begin(&victim.kafka);
        // The fault's moment, random under the seed; nothing is waited for here.
        std::thread::sleep(Duration::from_millis(random.between(50, 700)));
        load.fault_begins();
        disk.turn_read_only()?;
        let status = victim.wait(Duration::from_secs(20))?;
        running.finish();
        outcome.times = round;
        outcome.require(status.code() == Some(EXIT_CODE_STORAGE_FAILED), || {
            let ending = victim::ending(status);
            format!("round {round}: the broker ended with {ending}")
        });
        outcome.require(victim.log().contains("Read-only file system"), || {
            format!("J7 round {round}: the log does not name the reason")
        });
        disk.mend()?;
        victim = plan.start()?;
        let judgement = load.judge(&victim.kafka)?;
        outcome.checked = judgement.checked;
        outcome.lost += judgement.lost;
        let failures = judgement.failures.into_iter();
        outcome
            .failures
            .extend(failures.map(|failure| format!("round {round}: {failure}")));
        if !outcome.passed() {
            break;
        }
    }
    victim.terminate()?;
    Ok(outcome)
}
