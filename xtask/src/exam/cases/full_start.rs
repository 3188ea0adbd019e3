//! Case 13: the disk is full to the last block when the broker starts. It starts and serves what it has, refuses produce by
//! name, and goes on by itself when space returns.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use wire::ErrorCode;

use crate::exam::cases::crash;
use crate::exam::cases::full::{TOPIC, judge, produce, until};
use crate::exam::disk::LoopDisk;
use crate::exam::judge::Shown;
use crate::exam::ledger::Ledger;
use crate::exam::probe::{Answer, Probe};
use crate::exam::random::Random;
use crate::exam::victim::Plan;
use crate::exam::{Case, Exam, Outcome, Rounds};

const DISK_BYTES: u64 = 192 << 20;
const VALUE_BYTES: usize = 4 << 10;
const PATIENCE: Duration = Duration::from_secs(30);

/// The case.
pub const CASE: Case = Case {
    number: 13,
    name: "full-start",
    about: "disk full to the last block at the start, after a kill and after a stop",
    rounds: Rounds { full: 10, short: 2 },
    run: |exam| {
        let mut outcome = Outcome {
            tried: CASE.about.to_owned(),
            ..Outcome::default()
        };
        for round in 1..=exam.rounds {
            let disk = LoopDisk::create(&exam.work, &format!("disk-{round}"), DISK_BYTES)?;
            one(exam, round, &disk, &mut outcome).with_context(|| format!("round {round}"))?;
            outcome.times = round;
        }
        Ok(outcome)
    },
};

fn one(exam: &Exam, round: u32, disk: &LoopDisk, outcome: &mut Outcome) -> Result<()> {
    let ledger = Ledger::create(&exam.work.join(format!("ledger-{round}")))?;
    let shown = Shown::default();
    let mut random = Random::new(exam.seed.wrapping_add(round.into()));
    let data = disk.path().join("data");
    let plan = crash::small(Plan::new(&exam.binary, &data, &exam.work));
    let mut victim = plan.start()?;
    let mut probe = Probe::connect(&victim.kafka)?;
    probe.create_topic(TOPIC, 1, &[("segment.bytes", "1048576")])?;
    for _ in 0..random.between(10, 200) {
        let answer = produce(&mut probe, &ledger, &mut random, VALUE_BYTES)?;
        outcome.require(matches!(answer, Answer::Acknowledged(_)), || {
            format!("round {round}: with room, produce was answered {answer:?}")
        });
    }
    if round.is_multiple_of(2) {
        victim.terminate()?;
    } else {
        victim.kill()?;
    }
    let ballast = disk.path().join("ballast");
    fill(&ballast)?;
    let mut victim = plan
        .start()
        .with_context(|| format!("round {round}: the start on a full disk"))?;
    let mut probe = Probe::connect(&victim.kafka)?;
    judge(&mut probe, &ledger, &shown, outcome).context("reading while the disk is full")?;
    // What room the write-ahead log's files have may be used up first.
    let refused = until(
        PATIENCE,
        || produce(&mut probe, &ledger, &mut random, VALUE_BYTES),
        |answer| matches!(answer, Answer::Refused(_)),
    )?;
    outcome.require(
        refused == Some(Answer::Refused(ErrorCode::KafkaStorageError)),
        || format!("round {round}: with the disk full, produce was answered {refused:?}"),
    );
    let ended = victim.ended()?;
    outcome.require(ended.is_none(), || {
        format!("round {round}: the full disk ended the broker: {ended:?}")
    });
    fs::remove_file(&ballast)?;
    let accepted = until(
        PATIENCE,
        || produce(&mut probe, &ledger, &mut random, VALUE_BYTES),
        |answer| matches!(answer, Answer::Acknowledged(_)),
    )?;
    outcome.require(matches!(accepted, Some(Answer::Acknowledged(_))), || {
        format!("round {round}: space returned, and produce was still refused after {PATIENCE:?}")
    });
    victim.kill()?;
    let mut victim = plan.start()?;
    judge(
        &mut Probe::connect(&victim.kafka)?,
        &ledger,
        &shown,
        outcome,
    )?;
    victim.terminate()
}

/// Writes until there is no room for a byte.
fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    for piece in [1 << 20, 4096, 1] {
        let piece = vec![0x5a; piece];
        while file
            .write_all(&piece)
            .and_then(|()| file.sync_data())
            .is_ok()
        {}
    }
    Ok(())
}
