//! Case 7: the control. The power cut of case 3, on topics with `durability=os`: acknowledged data must be lost and the
//! judge must say so. If it does not, the exam cannot fail and its passes mean nothing.

use std::time::Duration;

use anyhow::Result;

use crate::exam::amqp::AmqpLoad;
use crate::exam::cases::crash;
use crate::exam::disk::LoopDisk;
use crate::exam::load::{Judgement, Load, LoadPlan};
use crate::exam::mqtt::{self, MqttLoad};
use crate::exam::probe::Probe;
use crate::exam::victim::Plan;
use crate::exam::{Case, Exam, Outcome, Rounds};

/// The case.
pub const CASE: Case = Case {
    number: 7,
    name: "control",
    about: "power cut with durability=os, which must lose data and be caught",
    rounds: Rounds { full: 20, short: 3 },
    run,
};

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let (mut caught, mut caught_of_mqtt, mut caught_of_amqp) = (0, 0, 0);
    let mut disk = LoopDisk::create(&exam.work, "disk", 1 << 30)?;
    for round in 1..=exam.rounds {
        let load_plan = LoadPlan {
            configs: vec![("durability".to_owned(), "os".to_owned())],
            // A commit is always synced, and would take the records before it along.
            commits: false,
            ..LoadPlan::default()
        };
        let load = Load::new(load_plan, &exam.work, exam.seed + u64::from(round))?;
        let data = disk.path().join(format!("data-{round}"));
        let plan = crash::small(Plan::new(&exam.binary, &data, &exam.work));
        let plan = exam.with_amqp(plan)?;
        let mut victim = plan.start()?;
        load.create_topics(&victim.kafka)?;
        let lax = [("durability", "os")];
        Probe::connect(&victim.kafka)?.create_topic(mqtt::TOPIC, mqtt::PARTITIONS, &lax)?;
        let devices = MqttLoad::without_sessions(exam.seed + u64::from(round));
        let queue = AmqpLoad::without_consumers(exam, round);
        queue.create_topics(&victim.kafka, &lax)?;
        let running = load.begin(&victim.kafka);
        let working = queue.begin(&victim.other("AMQP")?)?;
        let publishing = devices.begin(&victim.other("MQTT")?)?;
        std::thread::sleep(Duration::from_millis(500));
        devices.fault_begins();
        queue.fault_begins();
        disk.cut_power()?;
        victim.kill()?;
        running.finish();
        publishing.finish();
        working.finish();
        disk.restore_power()?;
        victim = plan.start()?;
        let judgement = load.judge(&victim.kafka)?;
        outcome.times = round;
        outcome.checked += judgement.checked;
        outcome.lost += judgement.lost;
        let named = judgement
            .failures
            .iter()
            .any(|failure| failure.starts_with("J1"));
        outcome.require(named == (judgement.lost > 0), || {
            format!(
                "round {round}: {} of {} acknowledged records are gone, and the judge's words do not fit: {:?}",
                judgement.lost, judgement.checked, judgement.failures
            )
        });
        caught += u32::from(named);
        let of_mqtt = devices.judge(&victim.kafka, &victim.other("MQTT")?, false)?;
        let of_amqp = queue.judge(&victim.kafka, &victim.other("AMQP")?)?;
        caught_of_mqtt += note(&mut outcome, ("MQTT", "M1", round), of_mqtt);
        caught_of_amqp += note(&mut outcome, ("AMQP", "Q1", round), of_amqp);
        queue.conclude(&mut outcome);
        victim.terminate()?;
    }
    // Now and then the kernel has written everything back by itself just before the cut.
    outcome.require(caught * 2 > exam.rounds, || {
        format!("records were acknowledged without a sync and the power was cut, and only {caught} of {} times did the judge miss any", exam.rounds)
    });
    for (protocol, caught) in [("MQTT", caught_of_mqtt), ("AMQP", caught_of_amqp)] {
        outcome.require(caught * 2 > exam.rounds, || {
            format!(
                "of messages over {protocol} the judge missed any only {caught} of {} times",
                exam.rounds
            )
        });
    }
    outcome.notes.push(format!(
        "the control passes because the judge reports the loss, {caught}, over MQTT {caught_of_mqtt} and over AMQP {caught_of_amqp} of {} times",
        exam.rounds
    ));
    Ok(outcome)
}

/// What was judged of a protocol's messages in a round; the judge names what is gone so. Gives 1 if anything is.
fn note(
    outcome: &mut Outcome,
    (protocol, name, round): (&str, &str, u32),
    of_it: Judgement,
) -> u32 {
    outcome.require(of_it.checked > 0, || {
        format!("round {round}: nothing sent over {protocol} was acknowledged")
    });
    let named = of_it.failures.iter().any(|it| it.starts_with(name));
    outcome.require(named == (of_it.lost > 0), || {
        format!(
            "round {round}: {} of {} acknowledged messages over {protocol} are gone, and the judge's words do not fit: {:?}",
            of_it.lost, of_it.checked, of_it.failures
        )
    });
    outcome.checked += of_it.checked;
    outcome.lost += of_it.lost;
    u32::from(of_it.lost > 0)
}
