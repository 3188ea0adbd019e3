//! Case 4: the power goes under load, on a disk whose cache loses, keeps and reorders single sectors of what was not flushed.

use std::cell::Cell;
use std::time::Duration;

use anyhow::Result;

use crate::exam::cases::crash;
use crate::exam::disk::LoopDisk;
use crate::exam::image::Image;
use crate::exam::random::Random;
use crate::exam::victim::Plan;
use crate::exam::{Case, Exam, Outcome, Rounds};

/// How long to wait for a flush under load.
const PATIENCE: Duration = Duration::from_secs(1);
const DISK_BYTES: u64 = 512 << 20;
/// What the broker says when it drops the end of its write-ahead log.
const TORN_TAIL: &str = "dropped an incomplete last write of the write-ahead log";

/// The case.
pub const CASE: Case = Case {
    number: 4,
    name: "torn-power-cut",
    about: "power cut under load, unflushed sectors lost, torn and reordered one by one",
    rounds: Rounds { full: 50, short: 5 },
    run,
};

fn run(exam: &Exam) -> Result<Outcome> {
    let image = Image::create(&exam.work, "disk", DISK_BYTES)?;
    let mut disk = LoopDisk::on(&image.path(), &exam.work.join("disk"))?;
    let plan = Plan::new(&exam.binary, &disk.path().join("data"), &exam.work);
    let mut random = Random::new(exam.seed.rotate_left(17));
    let (lost, unflushed) = (Cell::new(0), Cell::new(0));
    let mut outcome = crash::rounds(exam, &crash::small(plan.clone()), CASE.about, |victim| {
        // At any moment little is on its way that is not flushed; in a flush there always is.
        let cut = match random.between(0, 4) {
            0 => image.cut_power(&mut random)?,
            _ => image.cut_power_in_flush(&mut random, PATIENCE)?,
        };
        lost.set(lost.get() + cut.lost);
        unflushed.set(unflushed.get() + cut.unflushed);
        victim.kill()?;
        disk.reopen(|| image.restore_power())
    })?;
    let (lost, unflushed) = (lost.get(), unflushed.get());
    outcome.require(lost > 0, || {
        "no sector was lost: the case proves nothing".to_owned()
    });
    let tails = plan.log_text().matches(TORN_TAIL).count();
    // A few cuts may all fall between the writes of two frames.
    outcome.require(tails > 0 || exam.rounds < CASE.rounds.full, || {
        "no start said that it dropped the end of the write-ahead log".to_owned()
    });
    outcome.notes.push(format!(
        "{lost} of {unflushed} unflushed sectors were lost; {tails} starts dropped the end of the write-ahead log, and said so"
    ));
    Ok(outcome)
}
