//! Case 45: the disk has no free byte when compaction begins. It backs out: the broker lives, readers get everything, no half file
//! stays. When space returns it compacts without a restart, and after a kill nothing of what went is back.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::exam::cases::cleanup_jobs::{require_no_leftovers, run_now};
use crate::exam::cases::keyed::{Keyed, Rule};
use crate::exam::cases::{crash, files, full, full_start};
use crate::exam::disk::LoopDisk;
use crate::exam::probe::{Answer, Probe};
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};

const DISK_BYTES: u64 = 96 << 20;
const BATCHES: u32 = 1500;
/// So many that a segment is compacted to more than what a full disk may have left somewhere.
const KEYS: u64 = 10_000;
const TOPIC: &str = "compacted";
const PATIENCE: Duration = Duration::from_secs(60);

/// The case.
pub const CASE: Case = Case {
    number: 45,
    name: "full-compaction",
    about: "compaction on a disk without a free byte, space returned by hand",
    rounds: Rounds { full: 10, short: 1 },
    run: |exam| {
        full::each_disk(
            exam,
            CASE.about,
            |_| DISK_BYTES,
            |round, disk, outcome| try_round(exam, round, disk, outcome),
        )
    },
};

fn try_round(exam: &Exam, round: u32, disk: &LoopDisk, outcome: &mut Outcome) -> Result<()> {
    let data = disk.path().join("data");
    // Only jobs compact, so that none has before the disk is full.
    let plan = crash::small(Plan::new(&exam.binary, &data, &exam.work))
        .with("settle.age.ms", 100)
        .with("log.cleaner.backoff.ms", 3_600_000);
    let rule = Rule::Compact {
        tombstones_stay: true,
    };
    let keyed = Keyed::new(TOPIC, 1, KEYS, rule, exam.seed.wrapping_add(round.into()));
    let mut victim = plan.start()?;
    let mut probe = Probe::connect(&victim.kafka)?;
    keyed.create(&mut probe, &[("segment.bytes", "2097152")])?;
    for _ in 0..BATCHES {
        let answer = keyed.produce(&mut probe, 0)?;
        ensure!(
            matches!(answer, Answer::Acknowledged(_)),
            "produce was answered {answer:?}"
        );
    }
    // Everything is in sealed segments after it, and no room is set aside for more of them.
    let job = run_now(&victim.http, "retention", TOPIC)?;
    ensure!(job["state"] == "done", "sealing: {job}");
    let ballast = disk.path().join("ballast");
    full_start::fill(&ballast)?;
    let job = run_now(&victim.http, "compact", TOPIC)?;
    outcome.require(job["state"] == "failed", || {
        format!("on a full disk the job ended so: {job}")
    });
    let ended = victim.ended()?;
    outcome.require(ended.is_none(), || {
        format!("the full disk ended the broker: {ended:?}")
    });
    let look = keyed.judge(&mut probe, false)?;
    outcome.require(look.gone == 0, || {
        format!("{} records went on a full disk", look.gone)
    });
    outcome.failures.extend(look.failures);
    fs::remove_file(&ballast)?;
    let mut last = None;
    let waited = files::wait_until(PATIENCE, "no compaction comes to its end", || {
        let job = run_now(&victim.http, "compact", TOPIC)?;
        let is_done = job["state"] == "done";
        last = Some(job);
        Ok(is_done)
    });
    waited.with_context(|| format!("the last job: {last:?}"))?;
    judge(&keyed, &victim, &data, outcome)?;
    victim.kill()?;
    let mut victim = plan.start()?;
    judge(&keyed, &victim, &data, outcome)?;
    victim.terminate()
}

fn judge(
    keyed: &Keyed,
    victim: &Victim,
    data: &std::path::Path,
    outcome: &mut Outcome,
) -> Result<()> {
    let look = keyed.judge(&mut Probe::connect(&victim.kafka)?, true)?;
    outcome.checked = outcome.checked.max(look.checked);
    outcome.lost += look.lost;
    outcome.failures.extend(look.failures);
    outcome.require(look.gone > 0, || "nothing was compacted".to_owned());
    require_no_leftovers(&victim.http, data, &[TOPIC.to_owned()])?;
    let aside = files::files_below(&data.join("quarantine"))?;
    outcome.require(aside.is_empty(), || {
        format!("files in the quarantine: {aside:?}")
    });
    Ok(())
}
