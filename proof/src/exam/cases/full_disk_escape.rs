//! Case 35: on a full disk what frees space works through the broker: deleted records, a deleted topic, lowered retention, also
//! after a kill and after a stop. Then it goes on by itself, and nothing else is lost.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use wire::ErrorCode;
use wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};

use crate::exam::cases::full::{self, Opened, TOPIC, judge, judge_after_kill};
use crate::exam::disk::LoopDisk;
use crate::exam::ledger::Ledger;
use crate::exam::probe::{Answer, Probe, batch_of};
use crate::exam::victim::Victim;
use crate::exam::{Case, Exam, Outcome, Rounds};

const DISK_BYTES: u64 = 192 << 20;
const VALUE_BYTES: usize = 16 << 10;
/// The topic that makes room.
const OLD: &str = "old";
/// Its batches, of 256 KiB.
const OLD_BATCHES: u32 = 300;
const PATIENCE: Duration = Duration::from_secs(60);
/// How soon it goes on after room was made.
const ESCAPE_MAX: Duration = Duration::from_secs(20);

/// The case.
pub const CASE: Case = Case {
    number: 35,
    name: "full-disk-escape",
    about: "a full disk, and room made by deleting records, a topic, or by lower retention, also after a kill or a stop",
    rounds: Rounds { full: 9, short: 3 },
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
    let mut opened = full::open(exam, round, disk)?;
    opened
        .probe
        .create_topic(OLD, 1, &[("segment.bytes", "4194304")])?;
    opened
        .probe
        .create_topic(TOPIC, 1, &[("segment.bytes", "4194304")])?;
    let others = Ledger::create(&exam.work.join(format!("old-{round}")))?;
    for _ in 0..OLD_BATCHES {
        let payloads = others.send(OLD, 0, 16, VALUE_BYTES, &mut opened.random)?;
        let batch = batch_of(&payloads, model::codec::Codec::None, None)?;
        let answer = opened.probe.produce(OLD, 0, batch)?;
        if !matches!(answer, Answer::Acknowledged(_)) {
            break;
        }
    }
    opened.produce_until_refused(PATIENCE, VALUE_BYTES, outcome)?;
    let named = Instant::now() + ESCAPE_MAX;
    while Instant::now() < named && times_named(&opened.victim) == 0 {
        thread::sleep(Duration::from_millis(20));
    }
    let ending = match round % 3 {
        0 => "running",
        1 => {
            opened.victim.kill()?;
            "killed"
        }
        _ => {
            opened.victim.terminate()?;
            "stopped"
        }
    };
    if !round.is_multiple_of(3) {
        opened.victim = opened
            .plan
            .start()
            .with_context(|| format!("round {round}: the start on a full disk"))?;
        opened.probe = Probe::connect(&opened.victim.kafka)?;
    }
    let (way, error) = match ((round - 1) / 3 + round) % 3 {
        0 => ("deleted records", delete_records(&mut opened.probe)?),
        1 => ("a deleted topic", opened.probe.delete_topic(OLD)?),
        _ => ("lower retention", lower_retention(&mut opened.probe)?),
    };
    outcome.require(error == ErrorCode::None, || {
        format!("round {round}: {ending}, {way}: {}", error.name())
    });
    let again = opened.produce_until_acknowledged(ESCAPE_MAX, VALUE_BYTES)?;
    outcome.require(again.is_some(), || {
        format!("round {round}: {ending}, {way}: produce was still refused after {ESCAPE_MAX:?}")
    });
    outcome.notes.push(format!(
        "round {round}: {ending}, {way}: produced again after {:.1} s",
        again.unwrap_or(ESCAPE_MAX).as_secs_f64()
    ));
    judge(&mut opened.probe, &opened.ledger, &opened.shown, outcome)?;
    let told = times_named(&opened.victim);
    outcome.require((1..=20).contains(&told), || {
        format!("round {round}: the log says {told} times that the disk is full")
    });
    let Opened {
        plan,
        victim,
        ledger,
        shown,
        ..
    } = opened;
    judge_after_kill(&plan, victim, &ledger, &shown, outcome)
}

/// J7: how often the log says that the disk is full.
fn times_named(victim: &Victim) -> usize {
    victim.log().matches("the disk is full: appends").count()
}

fn delete_records(probe: &mut Probe) -> Result<ErrorCode> {
    let partition = DeleteRecordsPartition {
        partition_index: 0,
        offset: -1,
    };
    let topic = DeleteRecordsTopic {
        name: OLD.to_owned(),
        partitions: vec![partition],
    };
    let request = DeleteRecordsRequest {
        topics: vec![topic],
        timeout_ms: 30_000,
    };
    let response = probe.call(2, &request)?;
    let answer = response
        .topics
        .first()
        .and_then(|topic| topic.partitions.first())
        .context("no partition in the answer")?;
    Ok(ErrorCode::from_code(answer.error_code))
}

/// To a second: all of it is due when this returns.
fn lower_retention(probe: &mut Probe) -> Result<ErrorCode> {
    let config = AlterableConfig {
        name: "retention.ms".to_owned(),
        config_operation: 0,
        value: Some("1000".to_owned()),
    };
    let resource = AlterConfigsResource {
        resource_type: 2,
        resource_name: OLD.to_owned(),
        configs: vec![config],
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![resource],
        ..IncrementalAlterConfigsRequest::default()
    };
    let response = probe.call(1, &request)?;
    let answer = response
        .responses
        .first()
        .context("no resource in the answer")?;
    // What was appended last is older than the limit then.
    thread::sleep(Duration::from_secs(1));
    Ok(ErrorCode::from_code(answer.error_code))
}
