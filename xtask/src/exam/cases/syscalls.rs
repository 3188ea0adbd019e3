//! Case 8: the order of system calls. Between one acknowledgement and the next on a connection, a WAL file was written
//! and its fdatasync returned 0, before the acknowledgement is written to the socket. The control: the same judge must
//! object to a topic with `durability=os`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Result, ensure};
use model::codec::Codec;

use crate::exam::ledger::Ledger;
use crate::exam::probe::{Answer, Probe, batch_of};
use crate::exam::random::Random;
use crate::exam::trace::{self, Call, Event};
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

/// Writes of this size fill a new WAL file with zeros; the batches of this case are far smaller.
const FILL_BYTES: i64 = 256 << 10;

/// How far one WAL file has come since the last answer.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// A write to it returned.
    written: bool,
    /// After that, a sync of it began.
    sync_begun: bool,
    /// And returned 0.
    synced: bool,
}

/// Goes through the trace of one sequential producer's connection. Between two answers, some WAL file must have been
/// written, and a sync of that file that began after the write must have returned 0. What the broker does with other
/// files meanwhile (filling new ones, settling) neither helps nor hurts.
fn judge(events: &[Event], port: u16) -> Outcome {
    let mut outcome = Outcome::default();
    let mut files: BTreeMap<&str, Progress> = BTreeMap::new();
    for event in events {
        match &event.call {
            Call::WalWrite(file) if event.returned && (1..FILL_BYTES).contains(&event.result) => {
                files.entry(file).or_default().written = true;
            }
            Call::WalSync(file) => {
                let progress = files.entry(file).or_default();
                if event.returned {
                    progress.synced |= progress.sync_begun && event.result == 0;
                    progress.sync_begun = false;
                } else {
                    progress.sync_begun = progress.written;
                }
            }
            Call::Answer(to) if !event.returned && *to == port => {
                outcome.times += 1;
                let answer = outcome.times;
                outcome.require(files.values().any(|file| file.synced), || {
                    let written = files.iter().find(|(_, progress)| progress.written);
                    let lacks = match written {
                        Some((file, _)) => format!("the sync of {file} returned 0"),
                        None => "anything was written to the WAL".to_owned(),
                    };
                    format!("answer {answer} left before {lacks}")
                });
                files.clear();
            }
            _ => {}
        }
    }
    outcome.failures.truncate(20);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: &str = "7 pwritev(9</d/wal/0000.wal>, [{}], 1, 0) = 4096\n";
    const SYNC: &str = "7 fdatasync(9</d/wal/0000.wal>) = 0\n";
    const ANSWER: &str = "8 writev(12<TCP:[127.0.0.1:9092->127.0.0.1:5555]>, [{}], 2) = 60\n";

    fn check(trace: &str) -> Outcome {
        judge(&trace::parse(trace), 5555)
    }

    #[test]
    fn an_answer_after_its_sync_passes() {
        let outcome = check(&[WRITE, SYNC, ANSWER, WRITE, SYNC, ANSWER].concat());
        assert_eq!((outcome.times, outcome.failures.len()), (2, 0));
    }

    #[test]
    fn an_answer_before_its_sync_returned_is_named() {
        let begun = "7 fdatasync(9</d/wal/0000.wal> <unfinished ...>\n";
        let returned = "7 <... fdatasync resumed>) = 0\n";
        assert_eq!(check(&[WRITE, ANSWER, SYNC].concat()).failures.len(), 1);
        assert_eq!(
            check(&[WRITE, begun, ANSWER, returned].concat())
                .failures
                .len(),
            1
        );
        assert_eq!(
            check(&[WRITE, SYNC, ANSWER, SYNC, ANSWER].concat())
                .failures
                .len(),
            1
        );
        assert!(check(&[WRITE, begun, returned, ANSWER].concat()).passed());
        let other = "7 fdatasync(9</d/wal/0001.wal>) = 0\n";
        assert_eq!(check(&[WRITE, other, ANSWER].concat()).failures.len(), 1);
    }

    #[test]
    fn a_sync_that_began_before_the_write_does_not_count() {
        let begun = "6 fdatasync(9</d/wal/0000.wal> <unfinished ...>\n";
        let returned = "6 <... fdatasync resumed>) = 0\n";
        let early = check(&[begun, WRITE, returned, ANSWER].concat());
        assert_eq!(early.failures.len(), 1);
    }

    #[test]
    fn other_files_neither_help_nor_hurt() {
        let fill = "9 pwritev(9</d/wal/0001.wal>, [{}], 1, 0) = 1048576\n";
        let fill_sync = "9 fdatasync(9</d/wal/0001.wal>) = 0\n";
        assert!(check(&[WRITE, SYNC, fill, ANSWER].concat()).passed());
        assert!(check(&[WRITE, fill, SYNC, ANSWER].concat()).passed());
        let masked = check(&[WRITE, fill, fill_sync, ANSWER].concat());
        assert_eq!(masked.failures.len(), 1);
    }
}
