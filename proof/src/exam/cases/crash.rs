//! What the crash cases share: load, crash at a random moment, start again, judge; over and over on the same data.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::exam::amqp::AmqpLoad;
use crate::exam::load::{Load, LoadPlan};
use crate::exam::mqtt::MqttLoad;
use crate::exam::random::Random;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Exam, Outcome};

/// WAL files of a victim: small, so that a short round fills, settles and recycles some.
pub const WAL_FILE_BYTES: u64 = 2 << 20;
/// The most of them.
pub const WAL_FILES_MAX: u64 = 16;

/// A broker with small WAL files, which speaks MQTT and AMQP, too.
pub fn small(plan: Plan) -> Plan {
    plan.with("wal.file.bytes", WAL_FILE_BYTES)
        .with("wal.files.min", 4)
        .with("wal.files.max", WAL_FILES_MAX)
        .with("mqtt.listen", "127.0.0.1:0")
        .with("amqp.listen", "127.0.0.1:0")
}

/// J6: up again within 10 s plus the WAL's size at 1 GB/s.
pub fn up_in_max() -> Duration {
    Duration::from_secs(10) + Duration::from_micros(WAL_FILE_BYTES * WAL_FILES_MAX / 1000)
}

/// A replay of all that devices published is judged in each of so many rounds.
const ROUNDS_A_REPLAY: u32 = 5;

/// Runs the rounds, with clients of the Kafka protocol, of MQTT and of AMQP. `crash` ends the broker in its own way, and prepares its disk for the next start.
pub fn rounds(
    exam: &Exam,
    plan: &Plan,
    tried: &str,
    mut crash: impl FnMut(&mut Victim) -> Result<()>,
) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: tried.to_owned(),
        ..Outcome::default()
    };
    let mut random = Random::new(exam.seed);
    let load = Load::new(LoadPlan::default(), &exam.work, exam.seed)?;
    let devices = MqttLoad::new(exam.seed);
    let queue = AmqpLoad::new(exam);
    let plan = &exam.with_amqp(plan.clone())?;
    let mut victim = plan.start()?;
    load.create_topics(&victim.kafka)?;
    queue.create_topics(&victim.kafka, &[])?;
    let (mut published, mut queued) = (0, 0);
    let (mut slowest, mut slowest_answer) = (Duration::ZERO, Duration::ZERO);
    for round in 1..=exam.rounds {
        let running = load.begin(&victim.kafka);
        let publishing = devices.begin(&victim.other("MQTT")?)?;
        let working = queue.begin(&victim.other("AMQP")?)?;
        // The fault's moment, random under the seed; nothing is waited for here.
        std::thread::sleep(Duration::from_millis(random.between(20, 700)));
        load.fault_begins();
        devices.fault_begins();
        queue.fault_begins();
        crash(&mut victim).with_context(|| format!("round {round}"))?;
        running.finish();
        publishing.finish();
        working.finish();
        victim = plan
            .start()
            .with_context(|| format!("the start after crash {round}"))?;
        outcome.times = round;
        slowest = slowest.max(victim.up_in);
        let up_in = victim.up_in;
        outcome.require(up_in <= up_in_max(), || {
            format!("J6 round {round}: up after {up_in:?}")
        });
        let loads = (&*load, &*devices, &*queue);
        (published, queued) = judge(loads, &victim, round, &mut outcome)?;
        if !outcome.passed() {
            break;
        }
        load.fault_ends();
        let began = Instant::now();
        load.produce_each(&victim.kafka)
            .with_context(|| format!("J6 round {round}: {}", victim.log_tail()))?;
        let answered_in = began.elapsed();
        slowest_answer = slowest_answer.max(answered_in);
        outcome.require(answered_in <= up_in_max(), || {
            format!("J6 round {round}: up, and took records only after {answered_in:?}")
        });
        if round % 10 == 0 {
            exam.progress(&format!(
                "round {round}: {} records acknowledged",
                outcome.checked
            ));
        }
    }
    let refusals = load.refusals();
    outcome.require(refusals.is_empty(), || {
        format!("requests were refused: {refusals:?}")
    });
    outcome.require(outcome.checked > 0, || {
        "nothing was acknowledged: the case proves nothing".to_owned()
    });
    outcome.require(published > 0, || {
        "nothing published over MQTT was acknowledged: that proves nothing".to_owned()
    });
    outcome.require(queued > 0, || {
        "nothing sent over AMQP was accepted: that proves nothing".to_owned()
    });
    queue.conclude(&mut outcome);
    outcome.notes.push(format!(
        "{published} messages of MQTT and {queued} of AMQP acknowledged, slowest start {:.2} s, slowest first records {:.2} s, {} descriptors and {} MiB resident at the end",
        slowest.as_secs_f64(),
        slowest_answer.as_secs_f64(),
        victim.descriptors()?,
        victim.resident_bytes()? >> 20
    ));
    victim.terminate()?;
    Ok(outcome)
}

/// Judges what all loads were promised. Returns how many messages of MQTT and of AMQP were.
fn judge(
    (load, devices, queue): (&Load, &MqttLoad, &AmqpLoad),
    victim: &Victim,
    round: u32,
    outcome: &mut Outcome,
) -> Result<(u64, u64)> {
    let judgement = load.judge(&victim.kafka)?;
    let replays = round.is_multiple_of(ROUNDS_A_REPLAY);
    let of_mqtt = devices.judge(&victim.kafka, &victim.other("MQTT")?, replays)?;
    let of_amqp = queue.judge(&victim.kafka, &victim.other("AMQP")?)?;
    outcome.checked = judgement.checked + of_mqtt.checked + of_amqp.checked;
    outcome.lost += judgement.lost + of_mqtt.lost + of_amqp.lost;
    let failures = judgement.failures.into_iter().chain(of_mqtt.failures);
    let failures = failures.chain(of_amqp.failures);
    outcome
        .failures
        .extend(failures.map(|failure| format!("round {round}: {failure}")));
    Ok((of_mqtt.checked, of_amqp.checked))
}
