//! Queues by AMQP 1.0, beside other brokers.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::Runtime;

use crate::bench::amqp::client::Client;
use crate::bench::amqp::links;
use crate::bench::figures::{Figure, Mark, quantile};
use crate::bench::peers::queues;
use crate::bench::{Bench, Case, broker};
use crate::exam::probe::Probe;
use crate::exam::victim::Victim;

/// The case.
pub const CASE: Case = Case {
    name: "amqp-queue",
    about: "Durable messages of 1 KiB through a queue by AMQP 1.0, by 1 link and by 16, each on a connection of its own with 1,000 \
            deliveries under way at most. First they are sent, for --seconds, each settled by the broker as accepted; then all of them are \
            received and accepted: all that was accepted has to come, from this store once, and nothing that nobody sent, which is checked. \
            The column of limits has the same client at Artemis, whose journal is \
            synced, and at RabbitMQ with its plugin for AMQP 1.0. Memory of a connection with a session that does nothing: what the \
            process has resident with 5,000 more of them, by their number; 200 are there before.",
    uses_binary: true,
    run,
};

const QUEUE: &str = "bench";
const LINKS: [u64; 2] = [1, 16];
const PARTITIONS: i32 = 16;
const IDLE: usize = 5_000;
const IDLE_BEFORE: usize = 200;
const SETTLES: Duration = Duration::from_millis(1_500);

/// What one broker makes of a number of links.
struct Through {
    sent: f64,
    late_ms: f64,
    received: f64,
    /// Deliveries of what had come before.
    again: u64,
}

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    broker::more_descriptors(20_000)?;
    let runtime = broker::runtime()?;
    let row = |what: String, part| Figure::new(what, "messages/s").marked(Mark::OfLimit(part));
    // For each number of links: sent and received, beside each peer, and how late an answer was.
    let mut tables: Vec<[Figure; 5]> = LINKS
        .iter()
        .map(|links| {
            [
                row(format!("sent, links: {links}, beside Artemis"), 3.0),
                row(format!("sent, links: {links}, beside RabbitMQ"), 5.0),
                row(format!("received, links: {links}, beside Artemis"), 3.0),
                row(format!("received, links: {links}, beside RabbitMQ"), 5.0),
                Figure::new(format!("settled p99, links: {links}, beside Artemis"), "ms")
                    .marked(Mark::WithinLimit(1.0)),
            ]
        })
        .collect();
    let mut idle = Figure::new("a connection with a session: resident", "KiB")
        .marked(Mark::AtMost(20_000.0 / 1024.0));
    for _ in 0..bench.runs {
        let directory = bench.directory()?;
        let (ours, each) = measured(bench, directory.path(), &runtime)?;
        idle.runs.push(each);
        let theirs = |address: &str| -> Result<Vec<Through>> {
            (0..)
                .zip(LINKS)
                .map(|(round, links)| {
                    runtime.block_on(through(address, (round, links), bench.time))
                })
                .collect()
        };
        let artemis = queues::artemis(directory.path())?;
        let at_artemis = theirs(&artemis.address).context("Artemis")?;
        drop(artemis);
        let rabbit = queues::rabbitmq(directory.path())?;
        let at_rabbit = theirs(&rabbit.address).context("RabbitMQ")?;
        drop(rabbit);
        for (index, table) in tables.iter_mut().enumerate() {
            let (own, artemis, rabbit) = (&ours[index], &at_artemis[index], &at_rabbit[index]);
            let pairs = [
                (own.sent, artemis.sent),
                (own.sent, rabbit.sent),
                (own.received, artemis.received),
                (own.received, rabbit.received),
                (own.late_ms, artemis.late_ms),
            ];
            for (figure, (own, theirs)) in table.iter_mut().zip(pairs) {
                figure.runs.push(own);
                figure.limits.push(theirs);
            }
            bench.progress(&format!(
                "links: {}: sent {:.0}/s, Artemis {:.0}, RabbitMQ {:.0}; received {:.0}/s, {:.0}, {:.0}; again {}, {}, {}; {each:.1} KiB a connection",
                LINKS[index],
                own.sent,
                artemis.sent,
                rabbit.sent,
                own.received,
                artemis.received,
                rabbit.received,
                own.again,
                artemis.again,
                rabbit.again
            ));
        }
    }
    let mut rows: Vec<Figure> = tables.into_iter().flatten().collect();
    rows.push(idle);
    Ok(rows)
}

/// What this store makes of it, and the memory of a connection.
fn measured(bench: &Bench, directory: &Path, runtime: &Runtime) -> Result<(Vec<Through>, f64)> {
    let plan = broker::plan(bench, directory)?.with("amqp.listen", "127.0.0.1:0");
    let mut victim = plan.start()?;
    let address = victim.other("AMQP")?;
    Probe::connect(&victim.kafka)?.create_topic(QUEUE, PARTITIONS, &[])?;
    let mut ours = Vec::new();
    for (round, links) in (0..).zip(LINKS) {
        let before = broker::records_of(&victim, QUEUE, PARTITIONS)?;
        let sent = runtime.block_on(links::send(&address, QUEUE, (round, links), bench.time))?;
        let stored = broker::records_of(&victim, QUEUE, PARTITIONS)? - before;
        ensure!(
            stored == sent.messages(),
            "{} messages were accepted, {stored} are in the log",
            sent.messages()
        );
        let one = runtime.block_on(received(&address, round, sent))?;
        ensure!(one.again == 0, "{} messages came again", one.again);
        ours.push(one);
    }
    victim.kill()?;
    // Of a process that has nothing to reuse.
    let idle = directory.join("idle");
    std::fs::create_dir_all(&idle)?;
    let plan = broker::plan(bench, &idle)?.with("amqp.listen", "127.0.0.1:0");
    let mut victim = plan.start()?;
    let each = runtime.block_on(grown(&victim.other("AMQP")?, &victim))?;
    victim.kill()?;
    Ok((ours, each))
}

async fn through(address: &str, (round, links): (u64, u64), time: Duration) -> Result<Through> {
    let sent = links::send(address, QUEUE, (round, links), time).await?;
    ensure!(sent.counted > 0, "nothing was accepted");
    received(address, round, sent).await
}

async fn received(address: &str, round: u64, mut sent: links::Sent) -> Result<Through> {
    let received = links::empty(address, QUEUE, round, &sent).await?;
    Ok(Through {
        sent: sent.rate(),
        late_ms: quantile(&mut sent.latencies_us, 0.99) as f64 / 1e3,
        received: received.rate,
        again: received.again,
    })
}

/// By how much the process grows for a connection with a session, in KiB.
async fn grown(address: &str, victim: &Victim) -> Result<f64> {
    let mut clients = Vec::new();
    let mut before = 0;
    for (upto, is_last) in [(IDLE_BEFORE, false), (IDLE_BEFORE + IDLE, true)] {
        while clients.len() < upto {
            let name = format!("idle-{}", clients.len());
            clients.push(Client::open(address, &name).await?);
        }
        tokio::time::sleep(SETTLES).await;
        if !is_last {
            before = victim.resident_bytes()?;
        }
    }
    let more = victim.resident_bytes()?.saturating_sub(before);
    Ok(more as f64 / IDLE as f64 / 1024.0)
}
