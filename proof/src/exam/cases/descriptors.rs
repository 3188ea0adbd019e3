//! Case 23: few descriptors, and more connections than fit. Accepting pauses and goes on; the storage keeps its reserve.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use model::codec::Codec;

use crate::exam::hostile::{Siege, shortest_question};
use crate::exam::ledger::Ledger;
use crate::exam::probe::{Answer, Probe, batch_of};
use crate::exam::random::Random;
use crate::exam::victim::Plan;
use crate::exam::{Case, Exam, Outcome, Rounds};

const DESCRIPTORS: usize = 256;
/// Connections to each port.
const FLOOD: usize = 400;
/// Topics that are made meanwhile, each with batches that fill some segments.
const TOPICS: u32 = 12;
const BATCHES: u32 = 24;
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one of the flood's connections may take.
const KNOCK: Duration = Duration::from_millis(300);

/// The case.
pub const CASE: Case = Case {
    number: 23,
    name: "few-descriptors",
    about: "256 descriptors, up to 400 connections to each port, while topics are made and segments roll",
    rounds: Rounds { full: 5, short: 1 },
    run,
};

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let plan =
        Plan::new(&exam.binary, &exam.work.join("data"), &exam.work).with_descriptors(DESCRIPTORS);
    let siege = Siege::of(exam, &plan)?;
    let mut most = 0;
    for round in 1..=exam.rounds {
        let ((waiting, open), _) = siege.endure(|| flood(exam, &siege, round))?;
        most = most.max(open);
        outcome.times = round;
        outcome.require(waiting > 0, || {
            format!("round {round}: all connections were served with {DESCRIPTORS} descriptors")
        });
        outcome.require(open <= DESCRIPTORS, || {
            format!("round {round}: {open} descriptors were open")
        });
        let began = Instant::now();
        let mut probe = Probe::connect(&siege.victim.kafka)?;
        probe.producer_id().with_context(|| {
            format!("round {round}: nobody is served after the others have gone")
        })?;
        outcome.require(began.elapsed() < PATIENCE, || {
            format!("round {round}: served again after {:?}", began.elapsed())
        });
    }
    outcome
        .notes
        .push(format!("{most} descriptors were open at most"));
    siege.end(&mut outcome)?;
    Ok(outcome)
}

/// Opens connections until none is served any more, and makes topics with an older one. Answers how many were not served, and how
/// many descriptors the broker had open.
fn flood(exam: &Exam, siege: &Siege, round: u32) -> Result<(usize, usize)> {
    let victim = &siege.victim;
    let mut probe = Probe::connect(&victim.kafka)?;
    // The honest load and this one are there before the others come.
    probe.producer_id()?;
    thread::sleep(Duration::from_millis(200));
    let open = |address: &str| -> Result<Vec<TcpStream>> {
        let address = address.parse().context("the broker's address")?;
        // When the kernel's queue of connections is full too, one that comes gets no answer.
        Ok((0..FLOOD)
            .map_while(|_| TcpStream::connect_timeout(&address, KNOCK).ok())
            .collect())
    };
    let (mut kafka, http) = (open(&victim.kafka)?, open(&victim.http)?);
    anyhow::ensure!(
        kafka.len() + http.len() > DESCRIPTORS,
        "only {} connections could be opened: they are no flood",
        kafka.len() + http.len()
    );
    let mut served = 0;
    let question = shortest_question();
    for stream in &mut kafka {
        stream.write_all(&question)?;
    }
    thread::sleep(Duration::from_millis(500));
    for stream in &mut kafka {
        stream.set_nonblocking(true)?;
        served += usize::from(matches!(stream.read(&mut [0; 64]), Ok(count) if count > 0));
    }
    let ledger = Ledger::create(&exam.work.join(format!("flood-{round}")))?;
    let mut random = Random::new(exam.seed.wrapping_add(round.into()));
    let mut descriptors = victim.descriptors()?;
    for number in 0..TOPICS {
        let topic = format!("flood-{round}-{number}");
        probe.create_topic(&topic, 1, &[("segment.bytes", "16384")])?;
        let mut sent = Vec::new();
        for _ in 0..BATCHES {
            let payloads = ledger.send(&topic, 0, 8, 1 << 10, &mut random)?;
            let answer = probe.produce(&topic, 0, batch_of(&payloads, Codec::None, None)?)?;
            anyhow::ensure!(
                matches!(answer, Answer::Acknowledged(_)),
                "{topic}: with all connections taken, produce was answered {answer:?}"
            );
            sent.extend(payloads);
        }
        let found = probe.read_all(&topic, 0)?;
        anyhow::ensure!(
            found.len() == sent.len(),
            "{topic}: {} of {} records can be read",
            found.len(),
            sent.len()
        );
        descriptors = descriptors.max(victim.descriptors()?);
    }
    drop(http);
    Ok((kafka.len() - served, descriptors))
}
