//! Case 26: frames of real clients, changed at random, on every port, beside an honest load that must not notice.

use anyhow::Result;
use fuzz::mutate::{self, mutated};
use fuzz::seeds::{Direction, traffic};

use crate::amqp_client::conversations::{self, Conversation};
use crate::exam::hostile::{Siege, Tally, attack, framed};
use crate::exam::mqtt;
use crate::exam::victim::Plan;
use crate::exam::{Case, Exam, Outcome, Rounds};

/// Inputs of a round, for each port.
const INPUTS: usize = 2_000;
const FRAME_BYTES_MAX: usize = 16 << 10;

/// What an HTTP port is asked, before it is changed.
const HTTP: [&str; 4] = [
    "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /readyz?verbose HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n",
    "HEAD /healthz HTTP/1.0\r\n\r\n",
    "POST /version HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
];

/// The case.
pub const CASE: Case = Case {
    number: 26,
    name: "fuzzed",
    about: "frames of real clients, changed at random, on the Kafka, the HTTP, the MQTT and the AMQP port, beside an honest load",
    rounds: Rounds { full: 20, short: 1 },
    run,
};

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let plan = Plan::new(&exam.binary, &exam.work.join("data"), &exam.work);
    let plan = plan
        .with("mqtt.listen", "127.0.0.1:0")
        .with("amqp.listen", "127.0.0.1:0");
    let siege = Siege::with_amqp(exam, &plan)?;
    let said = conversations::conversations();
    let frames: Vec<Vec<u8>> = traffic()
        .into_iter()
        .filter(|exchange| exchange.direction == Direction::Request)
        .map(|exchange| exchange.frame)
        .collect();
    let pages: Vec<Vec<u8>> = HTTP.iter().map(|page| page.as_bytes().to_vec()).collect();
    let mut random = mutate::Random::new(exam.seed);
    let mut all = Tally::default();
    for _ in 1..=exam.rounds {
        let kafka: Vec<Vec<u8>> = (0..INPUTS)
            .map(|number| {
                // Most keep their length, so that what is inside is looked at.
                let frame = framed(&mutated(&frames, FRAME_BYTES_MAX, &mut random));
                match number % 8 {
                    0 => mutated(&[frame], FRAME_BYTES_MAX, &mut random),
                    _ => frame,
                }
            })
            .collect();
        let http: Vec<Vec<u8>> = (0..INPUTS / 4)
            .map(|_| mutated(&pages, FRAME_BYTES_MAX, &mut random))
            .collect();
        let mqtt: Vec<Vec<u8>> = (0..INPUTS / 4)
            .map(|number| said_over_mqtt(number, &mut random))
            .collect();
        let amqp: Vec<Vec<u8>> = (0..INPUTS / 2)
            .map(|number| said_over_amqp(&said[number % said.len()], number, &mut random))
            .collect();
        let (tallies, _) = siege.endure(|| {
            Ok([
                attack(&siege.victim.kafka, &kafka)?,
                attack(&siege.victim.http, &http)?,
                attack(&siege.victim.other("MQTT")?, &mqtt)?,
                attack(&siege.victim.other("AMQP")?, &amqp)?,
            ])
        })?;
        for tally in tallies {
            all += tally;
        }
    }
    outcome.times = u32::try_from(all.sent)?;
    all.require(&mut outcome);
    outcome.notes.push(all.to_string());
    siege.end(&mut outcome)?;
    Ok(outcome)
}

/// A client that connects and then says something that was changed; now and then its CONNECT was.
fn said_over_mqtt(number: usize, random: &mut mutate::Random) -> Vec<u8> {
    let mut all = mqtt::conversations();
    let (greeting, packet) = all.swap_remove(number % all.len());
    let packet = mutated(&[packet], FRAME_BYTES_MAX, random);
    [greeting, packet].concat()
}

/// A client of AMQP that says everything that comes before a frame, and then another one; most keep their length, so that what is inside
/// is looked at.
fn said_over_amqp(of: &Conversation, number: usize, random: &mut mutate::Random) -> Vec<u8> {
    match number % 8 {
        0 => of.with_frame(&mutated(&[of.frame(&of.body)], FRAME_BYTES_MAX, random)),
        _ => of.with(&mutated(
            std::slice::from_ref(&of.body),
            FRAME_BYTES_MAX,
            random,
        )),
    }
}
