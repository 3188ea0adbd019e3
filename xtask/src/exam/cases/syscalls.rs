//! Case 8: the order of system calls. Between one acknowledgement and the next on a connection, a WAL file was written
//! and its fdatasync returned 0, before the acknowledgement is written to the socket.

use std::fs;

use anyhow::{Result, ensure};
use model::codec::Codec;

use crate::exam::ledger::Ledger;
use crate::exam::probe::{Answer, Probe, batch_of};
use crate::exam::random::Random;
use crate::exam::trace::{self, Call, Event};
use crate::exam::victim::Plan;
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
    Probe::connect(&victim.kafka)?.create_topic("order", 1, &[])?;
    let mut probe = Probe::connect(&victim.kafka)?;
    let port = probe.local_port()?;
    let ledger = Ledger::create(&exam.work.join("ledger"))?;
    let mut random = Random::new(exam.seed);
    for _ in 0..exam.rounds {
        let payloads = ledger.send("order", 0, 3, 100, &mut random)?;
        let batch = batch_of(&payloads, Codec::None, None)?;
        match probe.produce("order", 0, batch)? {
            Answer::Acknowledged(offset) => ledger.acknowledged(&payloads, offset)?,
            Answer::Refused(error) => ensure!(false, "a batch was refused: {}", error.name()),
        }
    }
    victim.terminate()?;
    let events = trace::parse(&fs::read_to_string(&trace_path)?);
    let mut outcome = judge(&events, port);
    outcome.tried = CASE.about.to_owned();
    outcome.checked = ledger.acknowledged_count();
    let times = outcome.times;
    outcome.require(times == exam.rounds, || {
        format!(
            "{} batches were acknowledged, the trace shows {times} answers",
            exam.rounds
        )
    });
    Ok(outcome)
}

/// Goes through the trace of one sequential producer's connection.
fn judge(events: &[Event], port: u16) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut written, mut synced) = (false, false);
    for event in events {
        match &event.call {
            Call::WalWrite if event.returned && event.result > 0 => {
                (written, synced) = (true, false)
            }
            Call::WalSync if event.returned && event.result == 0 => synced = written,
            Call::Answer(to) if !event.returned && *to == port => {
                outcome.times += 1;
                let answer = outcome.times;
                outcome.require(written && synced, || {
                    let lacks = if written {
                        "a sync that returned 0"
                    } else {
                        "a write"
                    };
                    format!("answer {answer} left before {lacks}")
                });
                (written, synced) = (false, false);
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
    }
}
