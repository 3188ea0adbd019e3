//! Case 25: lengths that lie, and batches that are bombs. Memory stays bounded, and the answer is the protocol's.

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fuzz::seeds::{Direction, traffic};
use model::Timestamp;
use model::batch::BatchBuilder;
use model::codec::Codec;
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};

use crate::amqp_client::conversations::{self, Conversation};
use crate::exam::hostile::{Siege, attack, framed};
use crate::exam::mqtt;
use crate::exam::probe::{Answer, Probe};
use crate::exam::random::Random;
use crate::exam::victim::Plan;
use crate::exam::{Case, Exam, Outcome, Rounds};

/// What is written over lengths: 2 GiB less one, the most negative, null and its like, 16 MiB, 64 Ki.
const LIES: [u32; 5] = [
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x0100_0000,
    0x0001_0000,
];
/// The same as variable-length numbers, which flexible versions use.
const VARINTS: [&[u8]; 3] = [
    &[0xff, 0xff, 0xff, 0xff, 0x07],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
];
/// Places of a frame that are tried in a round, at most.
const PLACES_MAX: usize = 24;
/// How much more than under the honest load the broker may hold for lengths that lie.
const LIES_BYTES_MAX: u64 = 64 << 20;
/// How much more for bombs: what may be decompressed at a time (256 MiB), as much again where it is written anew in another codec,
/// and as much that the allocator keeps for a while.
const BOMBS_BYTES_MAX: u64 = 768 << 20;
/// Bombs that go off at a time.
const BOMBERS: usize = 24;
const PLAIN_BYTES: usize = 120 << 20;
const TOO_MANY_BYTES: usize = 400 << 20;

/// The case.
pub const CASE: Case = Case {
    number: 25,
    name: "lies",
    about: "lengths that lie (2 GiB, negative) at every place of every request, of every packet of MQTT and frame of AMQP, and decompression bombs",
    rounds: Rounds { full: 5, short: 1 },
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
    let mut random = Random::new(exam.seed);
    let frames = frames();
    let (mut highest_of_lies, mut highest_of_bombs) = (0, 0);
    let (mut answered, mut closed) = (0, 0);
    for _ in 1..=exam.rounds {
        let mut inputs: Vec<Vec<u8>> = LIES
            .iter()
            .flat_map(|lie| {
                let prefix = lie.to_be_bytes().to_vec();
                [prefix.clone(), [prefix, vec![0; 4096]].concat()]
            })
            .collect();
        for frame in &frames {
            lie_about(frame, &mut random, &mut inputs);
        }
        let over_mqtt = lies_over_mqtt();
        let mut over_amqp = conversations::killers();
        for frame in &said {
            lie_over_amqp(frame, &mut random, &mut over_amqp);
        }
        let (tally, highest) = siege.endure(|| {
            let mut tally = attack(&siege.victim.kafka, &inputs)?;
            tally += attack(&siege.victim.other("MQTT")?, &over_mqtt)?;
            tally += attack(&siege.victim.other("AMQP")?, &over_amqp)?;
            Ok(tally)
        })?;
        highest_of_lies = highest_of_lies.max(highest);
        answered += tally.answered;
        closed += tally.closed;
        outcome.times += u32::try_from(tally.sent)?;
    }
    let bombs = bombs()?;
    let (answers, highest) = siege.endure(|| explode(&siege.victim.kafka, &bombs))?;
    highest_of_bombs = highest_of_bombs.max(highest);
    outcome.times += u32::try_from(answers.values().sum::<usize>())?;
    let mib = |bytes: u64| bytes.saturating_sub(siege.calm_bytes) >> 20;
    outcome.require(highest_of_lies <= siege.calm_bytes + LIES_BYTES_MAX, || {
        format!("lengths that lie took {} MiB", mib(highest_of_lies))
    });
    outcome.require(
        highest_of_bombs <= siege.calm_bytes + BOMBS_BYTES_MAX,
        || format!("bombs took {} MiB", mib(highest_of_bombs)),
    );
    outcome.require(closed > 0 && answered > 0, || {
        format!("{answered} lies were answered and {closed} refused: they were none")
    });
    let is_refused = answers.keys().any(|answer| answer.contains("Refused"));
    outcome.require(is_refused, || format!("no bomb was refused: {answers:?}"));
    outcome.notes.push(format!(
        "lies took {} MiB and bombs {} MiB more than the honest load alone",
        mib(highest_of_lies),
        mib(highest_of_bombs)
    ));
    outcome.notes.push(format!("bombs: {answers:?}"));
    siege.end(&mut outcome)?;
    Ok(outcome)
}

/// The shortest request of each key and version that real clients sent.
fn frames() -> Vec<Vec<u8>> {
    let mut shortest: BTreeMap<(i16, i16), Vec<u8>> = BTreeMap::new();
    for exchange in traffic() {
        if exchange.direction == Direction::Request {
            let known = shortest
                .entry((exchange.key.code(), exchange.version))
                .or_insert_with(|| exchange.frame.clone());
            if exchange.frame.len() < known.len() {
                *known = exchange.frame;
            }
        }
    }
    shortest.into_values().collect()
}

/// Every place behind key, version and correlation id may be a length.
fn lie_about(frame: &[u8], random: &mut Random, inputs: &mut Vec<Vec<u8>>) {
    let places = frame.len().saturating_sub(8);
    for number in 0..places.min(PLACES_MAX) {
        let place = match places <= PLACES_MAX {
            true => 8 + number,
            false => 8 + random.between(0, places as u64) as usize,
        };
        let lies = LIES.map(|lie| lie.to_be_bytes().to_vec());
        let varints = VARINTS.map(<[u8]>::to_vec);
        for lie in lies.into_iter().chain(varints) {
            let mut lying = frame.to_vec();
            lying.truncate(place);
            lying.extend_from_slice(&lie);
            lying.extend(frame.get(place + lie.len()..).unwrap_or_default());
            inputs.push(framed(&lying));
        }
    }
}

/// Every place behind a packet's first byte may be a length: the packet's own, or one of two bytes.
fn lies_over_mqtt() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for (greeting, packet) in mqtt::conversations() {
        for place in 1..packet.len() {
            for lie in [
                &[0xff, 0xff][..],
                &[0xff, 0xff, 0xff, 0x7f],
                &[0x80, 0x80, 0x80, 0x80],
            ] {
                let rest = packet.get(place + lie.len()..).unwrap_or_default();
                inputs.push([&greeting[..], &packet[..place], lie, rest].concat());
            }
        }
    }
    inputs
}

/// Every place of a frame's body may be a length or a count, of one byte or of four; the frame's own is of what is there.
fn lie_over_amqp(of: &Conversation, random: &mut Random, inputs: &mut Vec<Vec<u8>>) {
    let short = [vec![0xff], vec![0x80]];
    let lies: Vec<Vec<u8>> = { LIES.iter().map(|lie| lie.to_be_bytes().to_vec()) }
        .chain(short)
        .collect();
    let places = of.body.len();
    for number in 0..places.min(PLACES_MAX) {
        let place = match places <= PLACES_MAX {
            true => number,
            false => random.between(0, places as u64) as usize,
        };
        for lie in &lies {
            let rest = of.body.get(place + lie.len()..).unwrap_or_default();
            inputs.push(of.with(&[&of.body[..place], lie, rest].concat()));
        }
    }
}

/// Batches of few bytes that hold a lot: as much as may be, and more.
fn bombs() -> Result<Vec<Bytes>> {
    let mut bombs = Vec::new();
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        for bytes in [PLAIN_BYTES, TOO_MANY_BYTES] {
            let mut builder = BatchBuilder::new(codec);
            let time = Timestamp::from_millis(1_700_000_000_000);
            builder.push(time, None, Some(&vec![0; bytes]), &[])?;
            let bomb = builder.build()?;
            // Others are refused for their length alone.
            if bomb.len() < 1_000_000 {
                bombs.push(bomb);
            }
        }
    }
    Ok(bombs)
}

/// Every bomb many times at once, to a topic that stores batches as they are and to one that decompresses them; then times are
/// looked for among them. Answers how often which answer came.
fn explode(address: &str, bombs: &[Bytes]) -> Result<BTreeMap<String, usize>> {
    let mut probe = Probe::connect(address)?;
    probe.create_topic("bombs", 1, &[])?;
    probe.create_topic("plain-bombs", 1, &[("compression.type", "uncompressed")])?;
    drop(probe);
    let one = |topic: &'static str, number: usize| -> Result<Vec<String>> {
        let mut probe = Probe::connect(address)?;
        let mut answers = Vec::new();
        for turn in 0..bombs.len() {
            let bomb = bombs[(turn + number) % bombs.len()].clone();
            let answer: Answer = probe.produce(topic, 0, bomb)?;
            answers.push(match answer {
                Answer::Acknowledged(_) => format!("{topic}: Acknowledged"),
                Answer::Refused(error) => format!("{topic}: Refused with {}", error.name()),
            });
        }
        let found = probe.call(5, &time_lookup(topic))?;
        let partition = found
            .topics
            .first()
            .and_then(|topic| topic.partitions.first())
            .context("no partition in the answer")?;
        answers.push(format!("{topic}: time, error {}", partition.error_code));
        Ok(answers)
    };
    let mut counts = BTreeMap::new();
    thread::scope(|scope| {
        let one = &one;
        let bombers: Vec<_> = (0..BOMBERS)
            .map(|number| {
                let topic = ["bombs", "plain-bombs"][number % 2];
                scope.spawn(move || one(topic, number))
            })
            .collect();
        for bomber in bombers {
            for answer in bomber.join().expect("no bomber panics")? {
                *counts.entry(answer).or_default() += 1;
            }
        }
        Ok(counts)
    })
}

/// Asks for a time that only the records of the first batch can tell.
fn time_lookup(topic: &str) -> ListOffsetsRequest {
    ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: topic.to_owned(),
            partitions: vec![ListOffsetsPartition {
                partition_index: 0,
                current_leader_epoch: -1,
                timestamp: 1_600_000_000_000,
            }],
        }],
        ..ListOffsetsRequest::default()
    }
}
