//! Case 12: the disk fills up while producers produce. They are refused with a named error, readers go on, and when
//! space returns the broker goes on by itself.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::exam::amqp::AmqpLoad;
use crate::exam::cases::full::{self, Opened, TOPIC, judge, judge_after_kill};
use crate::exam::disk::LoopDisk;
use crate::exam::mqtt::MqttLoad;
use crate::exam::victim::Victim;
use crate::exam::{Case, Exam, Outcome, Rounds};
use anyhow::{Context as _, Result};

const DISK_BYTES: u64 = 256 << 20;
const BALLAST_BYTES: usize = 64 << 20;
const VALUE_BYTES: usize = 16 << 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// The case.
pub const CASE: Case = Case {
    number: 12,
    name: "disk-full",
    about: "disk full while producing, space returned by hand",
    rounds: Rounds { full: 5, short: 1 },
    run,
};

fn run(exam: &Exam) -> Result<Outcome> {
    full::each_disk(
        exam,
        CASE.about,
        |_| DISK_BYTES,
        |round, disk, outcome| try_round(exam, round, disk, outcome),
    )
}

fn try_round(exam: &Exam, round: u32, disk: &LoopDisk, outcome: &mut Outcome) -> Result<()> {
    let ballast = disk.path().join("ballast");
    fill(&ballast)?;
    let mut opened = full::open(exam, round, disk)?;
    let settings = [("segment.bytes", "8388608")];
    opened.probe.create_topic(TOPIC, 1, &settings)?;
    let (devices, mqtt) = (MqttLoad::new(exam.seed), opened.victim.other("MQTT")?);
    let published = devices.publish_one(&mqtt, VALUE_BYTES)?;
    outcome.require(published, || "a message over MQTT is not taken".to_owned());
    let (queue, amqp) = (AmqpLoad::new(exam), opened.victim.other("AMQP")?);
    queue.create_topics(&opened.victim.kafka, &[])?;
    let sent = queue.send_one(&amqp, VALUE_BYTES)?;
    outcome.require(sent, || "a message over AMQP is not taken".to_owned());
    queue.begin_jms(&amqp)?;
    let goes_on = queue.jms_goes_on(PATIENCE)?;
    outcome.require(goes_on, || "a message over JMS is not taken".to_owned());
    queue.fault_begins();
    opened.produce_until_refused(PATIENCE, VALUE_BYTES, outcome)?;
    let refused = until(PATIENCE, || Ok(!devices.publish_one(&mqtt, VALUE_BYTES)?))?;
    outcome.require(refused, || {
        "with the disk full, messages over MQTT are acknowledged".to_owned()
    });
    let released = until(PATIENCE, || Ok(!queue.send_one(&amqp, VALUE_BYTES)?))?;
    outcome.require(released, || {
        "with the disk full, messages over AMQP are accepted".to_owned()
    });
    judge(&mut opened.probe, &opened.ledger, &opened.shown, outcome)
        .context("reading while the disk is full")?;
    let ended = opened.victim.ended()?;
    outcome.require(ended.is_none(), || {
        format!("the full disk ended the broker: {ended:?}")
    });
    require_named(&opened.victim, outcome);
    fs::remove_file(&ballast)?;
    let again = opened.produce_until_acknowledged(PATIENCE, VALUE_BYTES)?;
    outcome.require(again.is_some(), || {
        format!("space returned, and produce was still refused after {PATIENCE:?}")
    });
    outcome.notes.push(format!(
        "round {round}: produced again {:.1} s after space returned",
        again.unwrap_or(PATIENCE).as_secs_f64()
    ));
    let taken = until(PATIENCE, || devices.publish_one(&mqtt, VALUE_BYTES))?;
    outcome.require(taken, || {
        format!("space returned, and nothing was taken over MQTT after {PATIENCE:?}")
    });
    let taken = until(PATIENCE, || queue.send_one(&amqp, VALUE_BYTES))?;
    outcome.require(taken, || {
        format!("space returned, and nothing was taken over AMQP after {PATIENCE:?}")
    });
    let goes_on = queue.jms_goes_on(PATIENCE)?;
    outcome.require(goes_on, || {
        format!("space returned, and nothing was taken over JMS after {PATIENCE:?}")
    });
    judge(&mut opened.probe, &opened.ledger, &opened.shown, outcome)?;
    let of_mqtt = devices.judge(&opened.victim.kafka, &mqtt, true)?;
    let published = of_mqtt.add_to(outcome);
    outcome.require(published > 1, || {
        format!("{published} messages over MQTT were looked for, of those before and after")
    });
    let of_amqp = queue.judge(&opened.victim.kafka, &amqp)?;
    let accepted = of_amqp.add_to(outcome);
    outcome.require(accepted > 1, || {
        format!("{accepted} messages over AMQP were looked for, of those before and after")
    });
    queue.conclude(outcome);
    let Opened {
        plan,
        victim,
        ledger,
        shown,
        ..
    } = opened;
    judge_after_kill(&plan, victim, &ledger, &shown, outcome)
}

/// J7: the log says that the disk is full.
fn require_named(victim: &Victim, outcome: &mut Outcome) {
    let log = victim.log();
    outcome.require(log.contains("full") || log.contains("space"), || {
        "the broker's log does not say that the disk is full".to_owned()
    });
}

fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    let piece = vec![0x5a; 1 << 20];
    for _ in 0..BALLAST_BYTES >> 20 {
        file.write_all(&piece)?;
    }
    Ok(file.sync_all()?)
}

/// Tries until it is so. Whether it was, in time.
fn until(patience: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if is_so()? {
            return Ok(true);
        }
    }
    Ok(false)
}
