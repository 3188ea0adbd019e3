//! Case 43: 100,000 partitions with a record each, in little memory and with few descriptors: created, written, settled, killed,
//! up again. What a checkpoint writes is what changed, and not what there is.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use wire::ErrorCode;
use wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};

use crate::exam::cases::many::{TOPIC, produce_to, produce_to_all, require_all};
use crate::exam::memory_group::MemoryGroup;
use crate::exam::probe::Probe;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};

const PARTITIONS: u32 = 100_000;
/// The short form's.
const PARTITIONS_SHORT: u32 = 10_000;
/// As many as one request may ask for.
const PER_REQUEST: i32 = 10_000;
/// For the broker and all that the kernel caches for it.
const MEMORY: u64 = 256 << 20;
const DESCRIPTORS: usize = 2_000;
const SETTLE_AGE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(300);
/// Partitions that have something to settle in the last step.
const DIRTY: u32 = 10;
/// What one checkpoint may write then.
const CHECKPOINT_MAX: u64 = 64 << 10;
const SETTLED_BYTES: &str = "alluvium_settled_bytes_total";

/// The case.
pub const CASE: Case = Case {
    number: 43,
    name: "hundred-thousand",
    about: "100,000 partitions with a record each, in 256 MiB with 2,000 descriptors, and after a kill",
    rounds: Rounds { full: 2, short: 1 },
    run: |exam| exam.each_round(CASE.about, |round, outcome| one(exam, round, outcome)),
};

fn one(exam: &Exam, round: u32, outcome: &mut Outcome) -> Result<()> {
    let partitions = match exam.rounds >= CASE.rounds.full {
        true => PARTITIONS,
        false => PARTITIONS_SHORT,
    };
    let data = exam.work.join(format!("data-{round}"));
    let group = MemoryGroup::create(MEMORY)?;
    let plan = Plan::new(&exam.binary, &data, &exam.work)
        .with("settle.age.ms", SETTLE_AGE.as_millis())
        .with_descriptors(DESCRIPTORS)
        .within(&group);
    let mut victim = plan.start()?;
    let mut steps = Steps::new(round, partitions);
    let mut probe = Probe::connect(&victim.kafka)?;
    create(&mut probe, i32::try_from(partitions)?)?;
    steps.done("created", &victim)?;
    let sent = produce_to_all(&mut probe, partitions)?;
    steps.done("written", &victim)?;
    wait_for_settled(&mut victim, &data, partitions)?;
    steps.done("settled", &victim)?;
    victim.kill()?;
    steps.began = Instant::now();
    victim = plan.start()?;
    steps.done("up after SIGKILL", &victim)?;
    require_all(&mut Probe::connect(&victim.kafka)?, &sent, outcome)?;
    steps.done("read", &victim)?;
    // Each of the two checkpoint files is written whole once after a start.
    few_dirty(&victim)?;
    few_dirty(&victim)?;
    let (checkpoints, bytes) = few_dirty(&victim)?;
    outcome.require(bytes <= checkpoints * CHECKPOINT_MAX, || {
        format!(
            "round {round}: {checkpoints} checkpoints for {DIRTY} partitions wrote {bytes} bytes"
        )
    });
    let peak = victim.peak_resident_bytes()?;
    victim.terminate()?;
    let killed = group.killed()?;
    outcome.require(killed == 0, || {
        format!("round {round}: {killed} processes were killed for want of memory")
    });
    outcome.notes.push(format!(
        "{}; {checkpoints} checkpoints of {DIRTY} partitions wrote {} KiB; at most {} MiB resident since the last start",
        steps.notes.join(", "),
        bytes >> 10,
        peak >> 20
    ));
    Ok(())
}

/// Makes the topic. One request may ask for so many partitions only.
fn create(probe: &mut Probe, partitions: i32) -> Result<()> {
    probe.create_topic(TOPIC, PER_REQUEST.min(partitions), &[])?;
    for count in (1..=partitions / PER_REQUEST)
        .map(|times| times * PER_REQUEST)
        .skip(1)
    {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: TOPIC.to_owned(),
                count,
                assignments: None,
            }],
            timeout_ms: 30_000,
            ..CreatePartitionsRequest::default()
        };
        let response = probe.call(2, &request)?;
        let result = response.results.first().context("no topic in the answer")?;
        let error = ErrorCode::from_code(result.error_code);
        ensure!(
            error == ErrorCode::None,
            "{count} partitions: {}",
            error.name()
        );
    }
    Ok(())
}

/// How long each step took, and what the broker held after it.
struct Steps {
    began: Instant,
    notes: Vec<String>,
}

impl Steps {
    fn new(round: u32, partitions: u32) -> Steps {
        Steps {
            began: Instant::now(),
            notes: vec![format!("round {round}: {partitions} partitions")],
        }
    }

    fn done(&mut self, step: &str, victim: &Victim) -> Result<()> {
        self.notes.push(format!(
            "{step} in {:.1} s ({} MiB of its own, {} descriptors)",
            self.began.elapsed().as_secs_f64(),
            victim.anonymous_bytes()? >> 20,
            victim.descriptors()?
        ));
        self.began = Instant::now();
        Ok(())
    }
}

/// Waits until every partition has its directory and nothing more settles.
fn wait_for_settled(victim: &mut Victim, data: &Path, partitions: u32) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut settled_bytes = 0;
    loop {
        let settled = super::many_dirty::directories(data);
        let bytes = metric(victim, SETTLED_BYTES)?;
        if settled >= partitions as usize && bytes == settled_bytes {
            return Ok(());
        }
        settled_bytes = bytes;
        if let Some(status) = victim.ended()? {
            bail!(
                "the broker ended with {status}; its log ends: {}",
                victim.log_tail()
            );
        }
        ensure!(
            Instant::now() < deadline,
            "{settled} of {partitions} partitions settled within {PATIENCE:?}"
        );
        thread::sleep(SETTLE_AGE / 4);
    }
}

/// Writes to a few partitions and waits until that has settled: the checkpoints that it took, and the bytes that they wrote.
fn few_dirty(victim: &Victim) -> Result<(u64, u64)> {
    let now = || -> Result<(u64, u64)> {
        Ok((
            metric(victim, "alluvium_checkpoints_total")?,
            metric(victim, "alluvium_checkpoint_bytes_total")?,
        ))
    };
    let settled_before = metric(victim, SETTLED_BYTES)?;
    let (checkpoints, bytes) = now()?;
    let mut probe = Probe::connect(&victim.kafka)?;
    produce_to(&mut probe, 0..DIRTY)?;
    let deadline = Instant::now() + PATIENCE;
    while metric(victim, SETTLED_BYTES)? == settled_before {
        ensure!(
            Instant::now() < deadline,
            "nothing settled within {PATIENCE:?}"
        );
        thread::sleep(Duration::from_millis(100));
    }
    // The settled bytes are counted before their checkpoint.
    thread::sleep(SETTLE_AGE);
    let (checkpoints_after, bytes_after) = now()?;
    ensure!(checkpoints_after > checkpoints, "no checkpoint was written");
    Ok((checkpoints_after - checkpoints, bytes_after - bytes))
}

fn metric(victim: &Victim, name: &str) -> Result<u64> {
    let (_, page) = victim.get("/metrics")?;
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .with_context(|| format!("/metrics has no {name}"))?;
    Ok(value.parse::<f64>()? as u64)
}
