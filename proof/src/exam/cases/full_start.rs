//! Case 13: the disk is full to the last block when the broker starts: with small files of the write-ahead log, filled while the
//! broker was down; with the default settings, filled by the load itself, which goes on until SIGTERM or SIGKILL. It starts and serves
//! what it has, refuses produce by name, and goes on by itself when space returns.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use wire::ErrorCode;

use crate::exam::cases::full::{self, TOPIC, acknowledged_again, judge, produce, until};
use crate::exam::cases::{crash, files};
use crate::exam::disk::LoopDisk;
use crate::exam::judge::Shown;
use crate::exam::ledger::Ledger;
use crate::exam::load::{Load, LoadPlan};
use crate::exam::probe::{Answer, Probe};
use crate::exam::random::Random;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};

const SMALL_DISK_BYTES: u64 = 192 << 20;
/// Three files of the write-ahead log of 64 MiB, which an empty store has, one more and 48 MiB for segments, and the ballast.
const DEFAULT_DISK_BYTES: u64 = 384 << 20;
/// The space that returns after a fill under load.
const BALLAST_BYTES: usize = 80 << 20;
const VALUE_BYTES: usize = 4 << 10;
const PATIENCE: Duration = Duration::from_secs(30);
/// J6: up again within 10 s plus the time for the write-ahead log at 1 GB/s, which fits on the larger disk.
const UP_IN_MAX: Duration = Duration::from_millis(10_000 + DEFAULT_DISK_BYTES / 1_000_000);
/// How long a fill may take.
const FILL_MAX: Duration = Duration::from_secs(120);

/// The case.
pub const CASE: Case = Case {
    number: 13,
    name: "full-start",
    about: "disk full to the last block at the start, after a kill and after a stop; by default settings under load, too",
    rounds: Rounds { full: 20, short: 2 },
    run: |exam| {
        let is_default = |round: u32| (round - 1) % 4 < 2;
        let bytes = |round| match is_default(round) {
            true => DEFAULT_DISK_BYTES,
            false => SMALL_DISK_BYTES,
        };
        full::each_disk(
            exam,
            CASE.about,
            bytes,
            |round, disk, outcome| match is_default(round) {
                true => filled_under_load(exam, round, disk, outcome),
                false => filled_while_down(exam, round, disk, outcome),
            },
        )
    },
};

fn filled_while_down(
    exam: &Exam,
    round: u32,
    disk: &LoopDisk,
    outcome: &mut Outcome,
) -> Result<()> {
    let plan = crash::small(Plan::new(
        &exam.binary,
        &disk.path().join("data"),
        &exam.work,
    ));
    let mut probed = Probed::new(exam, round)?;
    let mut victim = plan.start()?;
    let mut probe = Probe::connect(&victim.kafka)?;
    probe.create_topic(TOPIC, 1, &[("segment.bytes", "1048576")])?;
    for _ in 0..probed.random.between(10, 200) {
        probed.produce_with_room(&mut probe, outcome)?;
    }
    end(&mut victim, round)?;
    let ballast = disk.path().join("ballast");
    fill(&ballast)?;
    probed.full_then_freed(&plan, &ballast, outcome)
}

fn filled_under_load(
    exam: &Exam,
    round: u32,
    disk: &LoopDisk,
    outcome: &mut Outcome,
) -> Result<()> {
    let plan = Plan::new(&exam.binary, &disk.path().join("data"), &exam.work);
    let mut probed = Probed::new(exam, round)?;
    let ballast = disk.path().join("ballast");
    let written = File::create(&ballast).and_then(|mut file| {
        file.write_all(&vec![0x5a; BALLAST_BYTES])?;
        file.sync_all()
    });
    written.context("write the ballast")?;
    let mut victim = plan.start()?;
    let mut probe = Probe::connect(&victim.kafka)?;
    probe.create_topic(TOPIC, 1, &[])?;
    probed.produce_with_room(&mut probe, outcome)?;
    let load_plan = LoadPlan {
        configs: Vec::new(),
        value_bytes_max: 48 << 10,
        pause: Duration::ZERO,
        ..LoadPlan::default()
    };
    let work = exam.work.join(format!("load-{round}"));
    fs::create_dir(&work)?;
    let load = Load::new(load_plan, &work, probed.random.next())?;
    load.create_topics(&victim.kafka)?;
    let running = load.begin(&victim.kafka);
    files::wait_until(FILL_MAX, "the load does not fill the disk", || {
        Ok(!load.refusals().is_empty())
    })?;
    load.fault_begins();
    // The moment of its end, random under the seed; the load goes on.
    thread::sleep(Duration::from_millis(probed.random.between(0, 1500)));
    end(&mut victim, round)?;
    running.finish();
    let refusals: Vec<&str> = load.refusals().into_keys().collect();
    outcome.require(
        refusals.contains(&ErrorCode::KafkaStorageError.name()),
        || format!("round {round}: with the disk full, the load was refused with {refusals:?}"),
    );
    // What the load left.
    fill(&disk.path().join("rest"))?;
    probed.load = Some(load);
    probed.full_then_freed(&plan, &ballast, outcome)
}

/// Rounds alternate between a kill and a stop.
fn end(victim: &mut Victim, round: u32) -> Result<()> {
    match round.is_multiple_of(2) {
        true => victim.terminate(),
        false => victim.kill(),
    }
}

/// A topic that is produced to before and after, what was promised of it, and the load that filled the disk, if one did.
struct Probed {
    round: u32,
    ledger: Ledger,
    shown: Shown,
    random: Random,
    load: Option<Arc<Load>>,
}

impl Probed {
    fn new(exam: &Exam, round: u32) -> Result<Probed> {
        Ok(Probed {
            round,
            ledger: Ledger::create(&exam.work.join(format!("ledger-{round}")))?,
            shown: Shown::default(),
            random: Random::new(exam.seed.wrapping_add(round.into())),
            load: None,
        })
    }

    fn produce_with_room(&mut self, probe: &mut Probe, outcome: &mut Outcome) -> Result<()> {
        let answer = produce(probe, &self.ledger, &mut self.random, VALUE_BYTES)?;
        outcome.require(matches!(answer, Answer::Acknowledged(_)), || {
            let round = self.round;
            format!("round {round}: with room, produce was answered {answer:?}")
        });
        Ok(())
    }

    /// Starts on the full disk, and sees it through until space returns and after another kill.
    fn full_then_freed(
        &mut self,
        plan: &Plan,
        ballast: &Path,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let round = self.round;
        let mut victim = plan
            .start()
            .with_context(|| format!("round {round}: the start on a full disk"))?;
        let up_in = victim.up_in;
        outcome.require(up_in <= UP_IN_MAX, || {
            format!("J6 round {round}: up on the full disk after {up_in:?}")
        });
        self.judge(&victim, outcome)
            .context("reading while the disk is full")?;
        // What room the write-ahead log's files have may be used up first.
        let mut probe = Probe::connect(&victim.kafka)?;
        let refused = until(
            PATIENCE,
            || produce(&mut probe, &self.ledger, &mut self.random, VALUE_BYTES),
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
        fs::remove_file(ballast)?;
        let again = acknowledged_again(PATIENCE, || {
            produce(&mut probe, &self.ledger, &mut self.random, VALUE_BYTES)
        })?;
        outcome.require(again.is_some(), || {
            format!(
                "round {round}: space returned, and produce was still refused after {PATIENCE:?}"
            )
        });
        victim.kill()?;
        let mut victim = plan.start()?;
        self.judge(&victim, outcome)?;
        victim.terminate()
    }

    fn judge(&self, victim: &Victim, outcome: &mut Outcome) -> Result<()> {
        let before = std::mem::take(&mut outcome.checked);
        let mut probe = Probe::connect(&victim.kafka)?;
        judge(&mut probe, &self.ledger, &self.shown, outcome)?;
        outcome.checked += before;
        if let Some(load) = &self.load {
            let judgement = load.judge(&victim.kafka)?;
            outcome.checked += judgement.checked;
            outcome.lost += judgement.lost;
            let failures = judgement.failures.into_iter();
            outcome
                .failures
                .extend(failures.map(|failure| format!("round {}: {failure}", self.round)));
        }
        Ok(())
    }
}

/// Writes until there is no room for a byte.
pub(super) fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    // What a file system reserves for data that it has not placed yet is free again after a sync.
    for piece in [1 << 20, 4096, 1, 4096, 1] {
        let piece = vec![0x5a; piece];
        while file.write_all(&piece).is_ok() {}
        // It fails where there was room in memory only.
        let _ = file.sync_data();
    }
    let more = file.write_all(&[0x5a]).and_then(|()| file.sync_data());
    ensure!(more.is_err(), "the disk is not full");
    Ok(())
}
