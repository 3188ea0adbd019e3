//! Case 60: idle clients of AMQP, each with a session, and a queue of very many messages in front of a consumer whose selector matches none of
//! them. Neither takes memory by what there is, and the consumer is served when a match comes.

use anyhow::{Context as _, Result, ensure};
use model::codec::Codec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::amqp_client::peer::{Heard, Peer};
use crate::exam::ledger::Payload;
use crate::exam::probe::{Answer, Probe, batch_of};
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};

const QUEUE: &str = "jobs";
const SELECTOR: &str = "color = 'red'";
/// Messages of a round: the full form has 50 million in all.
const MESSAGES: usize = 200_000;
const BATCH_RECORDS: u64 = 2_000;
const VALUE_BYTES: usize = 40;
/// Idle connections, and those of the short form.
const CONNECTIONS: u64 = 10_000;
const CONNECTIONS_SHORT: u64 = 1_000;
/// What an idle connection with a session may take of memory, also in a build with debug assertions.
const CONNECTION_BYTES_MAX: u64 = 64 << 10;
/// By what memory may grow over all rounds: blocks that are read, and the log's own.
const GROWTH_BYTES_MAX: u64 = 96 << 20;

/// The case.
pub const CASE: Case = Case {
    number: 60,
    name: "selective-queue",
    about: "idle AMQP connections, and a queue behind a selector that matches nothing in it",
    rounds: Rounds {
        full: 250,
        short: 1,
    },
    run,
};

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let count = match exam.rounds {
        0..=1 => CONNECTIONS_SHORT,
        _ => CONNECTIONS,
    };
    allow_descriptors(count + 1_000)?;
    let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let descriptors = (2 * count + 4_000).min(allowed);
    let plan = Plan::new(&exam.binary, &exam.work.join("data"), &exam.work)
        .with("amqp.listen", "127.0.0.1:0")
        .with("amqp.connections.max", CONNECTIONS + 100)
        // Of the descriptors others take few.
        .with("max.connections", 200)
        .with("segments.open.max", 256)
        .with_descriptors(usize::try_from(descriptors)?);
    let mut victim = plan.start()?;
    // As far as the limit of open files goes here.
    let count = count.min(connections_max(&victim)?.saturating_sub(16));
    let address = victim.other("AMQP")?;
    let mut probe = Probe::connect(&victim.kafka)?;
    probe.create_topic(QUEUE, 1, &[("segment.bytes", "8388608")])?;

    // One opens and ends first, so that what all share is there.
    Peer::open(&address)?.begun()?;
    let before = victim.anonymous_bytes()?;
    let mut idle = Vec::new();
    for _ in 0..count {
        let mut peer = Peer::open(&address)?;
        peer.begun()?;
        idle.push(peer);
    }
    let each = victim.anonymous_bytes()?.saturating_sub(before) / count;
    outcome.require(each <= CONNECTION_BYTES_MAX, || {
        format!("each of {count} idle connections with a session takes {each} bytes")
    });
    drop(idle);

    let mut sender = Peer::open(&address)?;
    sender.sender(0, QUEUE)?;
    let mut consumer = Peer::open(&address)?;
    consumer.selector(0, QUEUE, SELECTOR)?;
    consumer.credit(0, 10, false)?;
    let before = victim.anonymous_bytes()?;
    let mut most = before;
    for round in 1..=exam.rounds {
        fill(&mut probe)?;
        let red = format!("red {round}");
        let sent = sender.transfer_with(0, red.as_bytes(), ("color", "red"))?;
        sender.outcome(sent)?;
        // It has looked at all that stands before it.
        let found = loop {
            if let Heard::Delivery { id, value, .. } = consumer.next()? {
                consumer.accept(id)?;
                break value;
            }
        };
        outcome.require(found == red.as_bytes(), || {
            format!("round {round}: another message came in the place of {red}")
        });
        consumer.credit(0, 10, false)?;
        most = most.max(victim.anonymous_bytes()?);
        outcome.times = round;
        outcome.checked += MESSAGES as u64 + 1;
        outcome.require(most - before <= GROWTH_BYTES_MAX, || {
            format!("round {round}: memory has grown from {before} to {most} bytes")
        });
        if !outcome.passed() {
            break;
        }
        if round % 10 == 0 {
            exam.progress(&format!("round {round}: {} MiB", most >> 20));
        }
    }
    outcome.notes.push(format!(
        "{each} bytes for each of {count} idle connections with a session; {} messages behind the selector, memory {} MiB and {} MiB at most",
        outcome.checked,
        before >> 20,
        most >> 20
    ));
    victim.terminate()?;
    Ok(outcome)
}

/// Messages that the selector does not match, as records of Kafka's protocol.
fn fill(probe: &mut Probe) -> Result<()> {
    let payload = |id: u64| Payload {
        id,
        key: b"device".to_vec(),
        value: vec![b'x'; VALUE_BYTES],
    };
    let payloads: Vec<Payload> = (0..BATCH_RECORDS).map(payload).collect();
    let batch = batch_of(&payloads, Codec::None, None)?;
    for _ in 0..MESSAGES / payloads.len() {
        let answer = probe.produce(QUEUE, 0, batch.clone())?;
        let is_taken = matches!(answer, Answer::Acknowledged(_));
        ensure!(is_taken, "a batch is not taken: {answer:?}");
    }
    Ok(())
}

/// How many connections of AMQP the broker takes.
fn connections_max(victim: &Victim) -> Result<u64> {
    let (_, page) = victim.get("/metrics")?;
    let name = "alluvium_amqp_connections_max ";
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    let count = line.context("no such metric")?.trim();
    count.parse().context("no number of connections")
}

fn allow_descriptors(count: u64) -> Result<()> {
    let allowed = getrlimit(Resource::Nofile);
    if allowed.current.is_none_or(|current| current >= count) {
        return Ok(());
    }
    let limit = Rlimit {
        current: Some(count),
        maximum: allowed.maximum,
    };
    setrlimit(Resource::Nofile, limit).with_context(|| format!("no {count} descriptors"))
}
