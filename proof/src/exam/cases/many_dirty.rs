//! Case 42: more partitions with an unsettled tail than the process may open files: they settle, and also after a kill.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::exam::cases::many::{TOPIC, produce_to_all, require_all};
use crate::exam::probe::Probe;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};

/// Partitions and descriptors, in turn.
const SIZES: [(u32, usize); 2] = [(300, 256), (3_000, 1_024)];
const SETTLE_AGE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// The case.
pub const CASE: Case = Case {
    number: 42,
    name: "many-dirty",
    about: "300 partitions to settle with 256 descriptors, 3,000 with 1,024, and again after a kill",
    rounds: Rounds { full: 4, short: 1 },
    run: |exam| exam.each_round(CASE.about, |round, outcome| try_round(exam, round, outcome)),
};

fn try_round(exam: &Exam, round: u32, outcome: &mut Outcome) -> Result<()> {
    let (partitions, descriptors) = SIZES[(round as usize - 1) % SIZES.len()];
    let data = exam.work.join(format!("data-{round}"));
    let plan = Plan::new(&exam.binary, &data, &exam.work)
        .with("settle.age.ms", SETTLE_AGE.as_millis())
        .with_descriptors(descriptors);
    let mut victim = plan.start()?;
    let mut probe = Probe::connect(&victim.kafka)?;
    probe.create_topic(TOPIC, i32::try_from(partitions)?, &[])?;
    let sent = produce_to_all(&mut probe, partitions)?;
    // Killed with all of it unsettled at first: the start has as much to settle.
    victim.kill()?;
    victim = plan.start()?;
    let began = Instant::now();
    let settled = loop {
        let settled = directories(&data);
        if settled >= partitions as usize || began.elapsed() > PATIENCE {
            break settled;
        }
        if let Some(status) = victim.ended()? {
            anyhow::bail!(
                "the broker ended with {status}; its log ends: {}",
                victim.log()
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    outcome.require(settled >= partitions as usize, || {
        format!("round {round}: {settled} of {partitions} partitions settled within {PATIENCE:?}")
    });
    outcome.notes.push(format!(
        "round {round}: {partitions} partitions settled with {descriptors} descriptors, {} of them open",
        victim.descriptors()?
    ));
    check(&mut victim, &sent, outcome)?;
    victim.kill()?;
    victim = plan.start()?;
    check(&mut victim, &sent, outcome)?;
    victim.terminate()
}

fn check(victim: &mut Victim, sent: &[Vec<u8>], outcome: &mut Outcome) -> Result<()> {
    require_all(&mut Probe::connect(&victim.kafka)?, sent, outcome)
}

/// Partitions that have settled.
pub(super) fn directories(data: &std::path::Path) -> usize {
    let spread = std::fs::read_dir(data.join("p")).into_iter().flatten();
    spread
        .flatten()
        .flat_map(|spread| std::fs::read_dir(spread.path()).into_iter().flatten())
        .count()
}
