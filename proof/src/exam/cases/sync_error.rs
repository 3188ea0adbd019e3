//! Case 9: the WAL's fdatasync fails once (EIO, injected by strace). The broker has to end at once, without retry and
//! without another acknowledgement, and to come back with everything it had acknowledged.

use std::collections::HashMap;
use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;
use model::codec::Codec;

use crate::exam::amqp::AmqpLoad;
use crate::exam::cases::crash;
use crate::exam::judge::{Shown, judge_partition};
use crate::exam::ledger::Ledger;
use crate::exam::mqtt::MqttLoad;
use crate::exam::probe::{Answer, Probe, batch_of};
use crate::exam::random::Random;
use crate::exam::trace::{self, Call, Event};
use crate::exam::victim::{self, Plan};
use crate::exam::{Case, Exam, Outcome, Rounds};

/// What the broker exits with when its storage failed.
const EXIT_CODE_STORAGE_FAILED: i32 = 74;
const PRODUCERS: i32 = 3;

/// The case.
pub const CASE: Case = Case {
    number: 9,
    name: "sync-error",
    about: "EIO on the WAL's fdatasync, once",
    rounds: Rounds { full: 20, short: 2 },
    run,
};

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let mut random = Random::new(exam.seed);
    let ledger = Ledger::create(&exam.work.join("ledger"))?;
    let shown = Shown::default();
    let devices = MqttLoad::new(exam.seed);
    let queue = AmqpLoad::new(exam);
    let data = exam.work.join("data");
    let healthy = crash::small(Plan::new(&exam.binary, &data, &exam.work));
    let healthy = exam.with_amqp(healthy)?;
    let mut victim = healthy.start()?;
    Probe::connect(&victim.kafka)?.create_topic("errors", PRODUCERS, &[])?;
    queue.create_topics(&victim.kafka, &[])?;
    // A broker that is going to fail may not live until they are connected.
    queue.begin_jms(&victim.other("AMQP")?)?;
    queue.fault_begins();
    victim.terminate()?;
    let (mut published, mut queued) = (0, 0);
    for round in 1..=exam.rounds {
        let trace_path = exam.work.join(format!("trace-{round}"));
        let when = random.between(20, 200);
        let inject = format!("inject=fdatasync:error=EIO:when={when}");
        let filter = format!("trace={}", trace::CALLS);
        let trace_name = trace_path.to_string_lossy();
        let sick = healthy.clone().traced(&[
            "-yy",
            "-s",
            "0",
            "-o",
            &trace_name,
            "-e",
            &filter,
            "-e",
            &inject,
        ]);
        let mut victim = sick.start()?;
        let publishing = devices.begin(&victim.other("MQTT")?)?;
        devices.fault_begins();
        let working = queue.begin(&victim.other("AMQP")?)?;
        queue.fault_begins();
        let acknowledged = produce_until_gone(&victim.kafka, &ledger, random.next())?;
        publishing.finish();
        working.finish();
        let status = victim.wait(Duration::from_secs(30))?;
        outcome.times = round;
        outcome.require(status.code() == Some(EXIT_CODE_STORAGE_FAILED), || {
            format!(
                "round {round}: the broker ended with {}",
                victim::ending(status)
            )
        });
        let covered = covered_answers(&trace::parse(&fs::read_to_string(&trace_path)?));
        outcome.require(covered.is_some(), || {
            format!("round {round}: no sync failed, the case proves nothing")
        });
        for (port, count) in acknowledged {
            let possible = covered
                .as_ref()
                .and_then(|covered| covered.get(&port))
                .copied();
            outcome.require(count <= possible.unwrap_or_default(), || {
                format!("round {round}: an acknowledgement left that no sync had covered")
            });
        }
        let mut victim = healthy.start()?;
        let mut probe = Probe::connect(&victim.kafka)?;
        let entries = ledger.entries();
        outcome.checked = 0;
        for partition in 0..PRODUCERS {
            let contents = probe.read_all("errors", partition)?;
            let verdict = judge_partition("errors", partition, &entries, &contents, &shown, false);
            outcome.checked += verdict.checked;
            outcome.lost += verdict.lost;
            outcome.failures.extend(verdict.failures);
        }
        let of_mqtt = devices.judge(&victim.kafka, &victim.other("MQTT")?, false)?;
        published = of_mqtt.add_to(&mut outcome);
        let of_amqp = queue.judge(&victim.kafka, &victim.other("AMQP")?)?;
        queued = of_amqp.add_to(&mut outcome);
        drop(probe);
        victim.terminate()?;
        if !outcome.passed() {
            break;
        }
    }
    queue.conclude(&mut outcome);
    outcome.require(published > 0, || {
        "nothing published over MQTT was acknowledged: that proves nothing".to_owned()
    });
    outcome.require(queued > 0, || {
        "nothing sent over AMQP was accepted: that proves nothing".to_owned()
    });
    Ok(outcome)
}

/// Produces on one connection per partition until the broker goes. Answers how many acknowledgements each local port got.
fn produce_until_gone(address: &str, ledger: &Ledger, seed: u64) -> Result<HashMap<u16, u64>> {
    let acknowledged = Mutex::new(HashMap::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..PRODUCERS)
            .map(|partition| {
                let acknowledged = &acknowledged;
                scope.spawn(move || -> Result<()> {
                    let mut probe = Probe::connect(address)?;
                    let port = probe.local_port()?;
                    let mut random =
                        Random::new(seed.wrapping_add(partition.unsigned_abs().into()));
                    loop {
                        let payloads = ledger.send("errors", partition, 2, 60, &mut random)?;
                        let batch = batch_of(&payloads, Codec::None, None)?;
                        match probe.produce("errors", partition, batch) {
                            Ok(Answer::Acknowledged(offset)) => {
                                ledger.acknowledged(&payloads, offset)?;
                                *acknowledged
                                    .lock()
                                    .expect("no producer panics")
                                    .entry(port)
                                    .or_insert(0) += 1;
                            }
                            // Between the failed sync and its exit the broker may refuse; it was in the WAL perhaps.
                            Ok(Answer::Refused(_)) | Err(_) => {
                                return ledger.unknown(&payloads);
                            }
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no producer panics")?;
        }
        Ok::<(), anyhow::Error>(())
    })?;
    Ok(acknowledged.into_inner().expect("no producer panics"))
}

/// How many answers each port was sent whose records a sync had covered. `None` if no sync of the WAL failed. An answer
/// that a sync had covered may leave just after a later one failed; none that waits for the failed one or a later one.
fn covered_answers(events: &[Event]) -> Option<HashMap<u16, u64>> {
    let failed = |event: &Event| matches!(event.call, Call::WalSync(_)) && event.injected;
    if !events.iter().any(failed) {
        return None;
    }
    let mut covered = HashMap::new();
    for answer in trace::answers(events) {
        if answer.lacks.is_none() {
            *covered.entry(answer.port).or_default() += 1;
        }
    }
    Some(covered)
}
