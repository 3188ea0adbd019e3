//! Case 8: the order of system calls. After a request came in on a connection, a WAL file was written and its fdatasync
//! returned 0, before the acknowledgement is written to the socket. The control: the same judge must
//! object to a topic with `durability=os`.

use std::fs;

use anyhow::{Result, ensure};
use model::codec::Codec;

use crate::exam::ledger::Ledger;
use crate::exam::probe::{Answer, Probe, batch_of};
use crate::exam::random::Random;
use crate::exam::trace::{self, Event};
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};

/// The case. A round is one acknowledgement.
pub const CASE: Case = Case {
    number: 8,
    name: "syscalls",
    about: "the order of system calls under strace: write, fdatasync, acknowledgement",
    rounds: Rounds {
        full: 500,
        short: 50,
    },
    run,
};

/// Batches of the control, whose answers wait for no sync.
const CONTROL_BATCHES: u32 = 15;

fn run(exam: &Exam) -> Result<Outcome> {
    let trace_path = exam.work.join("trace");
    let trace_name = trace_path.to_string_lossy();
    let filter = format!("trace={}", trace::CALLS);
    let plan = Plan::new(&exam.binary, &exam.work.join("data"), &exam.work).traced(&[
        "-yy",
        "-s",
        "0",
        "-o",
        &trace_name,
        "-e",
        &filter,
    ]);
    let mut victim = plan.start()?;
    let ledger = Ledger::create(&exam.work.join("ledger"))?;
    let mut random = Random::new(exam.seed);
    let fsync = produce(&victim, &ledger, &mut random, "order", "fsync", exam.rounds)?;
    let checked = ledger.acknowledged_count();
    let os = produce(
        &victim,
        &ledger,
        &mut random,
        "control",
        "os",
        CONTROL_BATCHES,
    )?;
    victim.terminate()?;
    let events = trace::parse(&fs::read_to_string(&trace_path)?);
    let mut outcome = judge(&events, fsync);
    outcome.tried = CASE.about.to_owned();
    outcome.checked = checked;
    let times = outcome.times;
    outcome.require(times == exam.rounds, || {
        format!(
            "{} batches were acknowledged, the trace shows {times} answers",
            exam.rounds
        )
    });
    let control = judge(&events, os).failures.len();
    outcome.require(control > 0, || {
        "the control went unnoticed: answers of a topic with durability=os, which waits for no sync".to_owned()
    });
    outcome.notes.push(format!(
        "the control, a topic with durability=os: {control} of {CONTROL_BATCHES} answers were found to leave before a sync"
    ));
    Ok(outcome)
}

/// Produces batches one after the other to a new topic, on a connection of its own. Answers that connection's port.
fn produce(
    victim: &Victim,
    ledger: &Ledger,
    random: &mut Random,
    topic: &str,
    durability: &str,
    batches: u32,
) -> Result<u16> {
    Probe::connect(&victim.kafka)?.create_topic(topic, 1, &[("durability", durability)])?;
    let mut probe = Probe::connect(&victim.kafka)?;
    for _ in 0..batches {
        let payloads = ledger.send(topic, 0, 3, 100, random)?;
        let batch = batch_of(&payloads, Codec::None, None)?;
        match probe.produce(topic, 0, batch)? {
            Answer::Acknowledged(offset) => ledger.acknowledged(&payloads, offset)?,
            Answer::Refused(error) => ensure!(false, "a batch was refused: {}", error.name()),
        }
    }
    probe.local_port()
}

/// Goes through the trace of one sequential producer's connection.
fn judge(events: &[Event], port: u16) -> Outcome {
    let mut outcome = Outcome::default();
    for answer in trace::answers(events) {
        if answer.port != port {
            continue;
        }
        outcome.times += 1;
        if let Some(lacks) = answer.lacks {
            let times = outcome.times;
            outcome
                .failures
                .push(format!("answer {times} left before {lacks}"));
        }
    }
    outcome.failures.truncate(20);
    outcome
}
