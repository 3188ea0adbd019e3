//! What encryption costs: produce and replay over TLS beside the same without, in speed and in the broker's processor time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use client::{ClientConfig, Connection, Tls, TlsFiles};
use wire::ErrorCode;

use crate::bench::broker::{self, BATCH_BYTES, CONNECTIONS, IN_FLIGHT, PARTITIONS, TOPIC};
use crate::bench::figures::Figure;
use crate::bench::{Bench, Case, pace};
use crate::exam::victim::Victim;
use crate::secured::Secured;

/// The case.
pub const CASE: Case = Case {
    name: "tls",
    about: "Produce and replay over TLS 1.3 beside the same without it, on two listeners of one broker, by turns: 2 GiB in 64 KiB \
            batches, 4 connections with 8 batches under way each, acks=all, as fast as they are taken; then the same records read \
            from start to end by 4 connections in fetches of 1 MiB, all from memory. The column of limits has the same without TLS. \
            Processor time is the broker's, user and system; the client, which encrypts and decrypts too, has the same two cores.",
    uses_binary: true,
    run,
};

const BYTES: u64 = 2 << 30;

/// A way to the broker, and what came of it.
struct Way {
    config: ClientConfig,
    rate: Vec<f64>,
    cost: Vec<f64>,
    replay_rate: Vec<f64>,
    replay_cost: Vec<f64>,
}

impl Way {
    fn new(config: ClientConfig) -> Way {
        Way {
            config,
            rate: Vec::new(),
            cost: Vec::new(),
            replay_rate: Vec::new(),
            replay_cost: Vec::new(),
        }
    }
}

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let directory = bench.directory()?;
    let secured = Secured::make(&directory.path().join("secured"))?;
    let mut plan = broker::plan(bench, directory.path())?
        .with("listeners", "PLAINTEXT://127.0.0.1:0,SSL://127.0.0.1:0")
        .with("settle.age.ms", 200);
    plan.settings.extend(secured.settings());
    let mut victim = plan.start()?;
    // Room for all runs: replays begin with the first record.
    broker::create_topic(&victim, BYTES * 2 * (u64::from(bench.runs) + 1))?;
    let files = TlsFiles {
        truststore: Some(secured.path("ca.pem")),
        ..TlsFiles::default()
    };
    let mut encrypted = ClientConfig::new(&victim.other("SSL")?);
    encrypted.tls = Some(Tls::open(&files)?);
    let mut ways = [
        Way::new(ClientConfig::new(&victim.kafka)),
        Way::new(encrypted),
    ];
    let runtime = broker::runtime()?;
    for _ in 0..bench.runs {
        for way in &mut ways {
            runtime.block_on(produce(&victim, way))?;
        }
        // The first pass brings all of it into memory.
        runtime.block_on(replay(&ways[0].config))?;
        for way in &mut ways {
            let (before, began) = (victim.processor_time()?, std::time::Instant::now());
            let bytes = runtime.block_on(replay(&way.config))? as f64;
            way.replay_rate
                .push(bytes / began.elapsed().as_secs_f64() / 1e6);
            let took = victim.processor_time()?.saturating_sub(before);
            way.replay_cost.push(took.as_secs_f64() / bytes * 1e9);
        }
        let last = |values: &[f64]| values.last().copied().unwrap_or_default();
        bench.progress(&format!(
            "produce {:.0} MB/s of {:.0}, replay {:.0} MB/s of {:.0}",
            last(&ways[1].rate),
            last(&ways[0].rate),
            last(&ways[1].replay_rate),
            last(&ways[0].replay_rate)
        ));
    }
    victim.kill()?;
    let [plain, over_tls] = ways;
    let figure = |what, unit, runs, limits| Figure {
        runs,
        limits,
        ..Figure::new(what, unit)
    };
    Ok(vec![
        figure("produce over TLS", "MB/s", over_tls.rate, plain.rate),
        figure(
            "produce: processor time for a GB",
            "s",
            over_tls.cost,
            plain.cost,
        ),
        figure(
            "replay over TLS",
            "MB/s",
            over_tls.replay_rate,
            plain.replay_rate,
        ),
        figure(
            "replay: processor time for a GB",
            "s",
            over_tls.replay_cost,
            plain.replay_cost,
        ),
    ])
}

async fn produce(victim: &Victim, way: &mut Way) -> Result<()> {
    let lanes = broker::lanes_of(&way.config).await?;
    let before = victim.processor_time()?;
    let pace = pace::Pace {
        piece_bytes: BATCH_BYTES as u64,
        in_flight: IN_FLIGHT,
        bytes_per_second: None,
        bytes_max: BYTES,
        time_max: Duration::from_secs(600),
    };
    let paced = pace::run(pace, lanes).await?;
    let took = victim.processor_time()?.saturating_sub(before);
    way.rate.push(paced.rate() / 1e6);
    way.cost.push(took.as_secs_f64() / paced.bytes as f64 * 1e9);
    Ok(())
}

/// Reads the first [`BYTES`] of all partitions, each connection those of its own. Answers how many bytes came.
async fn replay(config: &ClientConfig) -> Result<u64> {
    let mut readers = tokio::task::JoinSet::new();
    for index in 0..CONNECTIONS {
        let connection = Connection::open(&config.bootstrap[0], config).await?;
        readers.spawn(async move {
            let mut bytes = 0;
            for partition in
                (0..PARTITIONS).filter(|p| p.unsigned_abs() as usize % CONNECTIONS == index)
            {
                let until = BYTES / u64::from(PARTITIONS.unsigned_abs());
                bytes += read(&connection, partition, until).await?;
            }
            anyhow::Ok(bytes)
        });
    }
    let mut bytes = 0;
    while let Some(read) = readers.join_next().await {
        bytes += read??;
    }
    ensure!(bytes > BYTES * 9 / 10, "only {bytes} bytes were read back");
    Ok(bytes)
}

async fn read(connection: &Connection, partition: i32, bytes_max: u64) -> Result<u64> {
    let (mut bytes, mut next) = (0, 0);
    while bytes < bytes_max {
        let request = broker::fetch_request(TOPIC, [partition], next);
        let pending = connection.start(&request, broker::FETCH_VERSION).await?;
        let response = pending.wait(Duration::from_secs(60)).await?;
        let topic = response.responses.into_iter().next();
        let found = topic.and_then(|topic| topic.partitions.into_iter().next());
        let found = found.context("no partition in the answer")?;
        let error = ErrorCode::from_code(found.error_code);
        ensure!(error == ErrorCode::None, "fetch: {}", error.name());
        let (read, behind) = broker::passed(found.records)?;
        if read == 0 {
            break;
        }
        (bytes, next) = (bytes + read, behind);
    }
    Ok(bytes)
}
