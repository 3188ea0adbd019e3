//! Records that come over HTTP: lines of NDJSON a second that are acknowledged after their fsync, beside the same values over Kafka's
//! protocol, by as many connections with as much under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use client::{ClientConfig, Connection};
use model::Timestamp;
use model::batch::BatchBuilder;
use model::codec::Codec;
use wire::ErrorCode;

use crate::bench::broker::{self, PARTITIONS, TOPIC};
use crate::bench::figures::Figure;
use crate::bench::{Bench, Case, limits};
use crate::exam::victim::Victim;
use crate::http::Http;

/// The case.
pub const CASE: Case = Case {
    name: "http-produce",
    about: "Durable produce of small records, flat out: 16 connections, each with 1,000 readings of about 110 bytes under way, 8 \
            partitions. Over HTTP as NDJSON with the key in a field; over Kafka's protocol as batches that were made beforehand, acks=all. \
            The limit is a bare loop of writing as much as is under way (1.7 MiB) and fdatasync, in readings of this length.",
    uses_binary: true,
    run,
};

const CONNECTIONS: usize = 16;
const LINES: usize = 1_000;
const BYTES_KEPT: u64 = 4 << 30;

/// The readings of one connection, a line each.
fn lines(connection: usize) -> Vec<String> {
    let line = |index: usize| {
        format!(
            "{{\"device\":\"sensor-{:04}\",\"at\":{},\"temperature\":{}.{},\"humidity\":{}.5,\"battery\":3.{:02},\"ok\":true}}",
            (connection * 61 + index * 7) % 2_000,
            1_700_000_000_000u64 + index as u64,
            index % 40,
            index % 10,
            index % 100,
            index % 97
        )
    };
    (0..LINES).map(line).collect()
}

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let mut http = Figure::new("readings over HTTP, NDJSON", "records/s");
    let mut kafka = Figure::new("the same over Kafka's protocol", "records/s");
    let readings = lines(0);
    let bytes: usize = readings.iter().map(|line| line.len() + 1).sum();
    for _ in 0..bench.runs {
        let directory = bench.directory()?;
        let bare = || {
            let rate = limits::write_and_sync(
                directory.path(),
                bytes * CONNECTIONS,
                Duration::from_secs(5),
            )?;
            Ok::<_, anyhow::Error>(rate / bytes as f64 * LINES as f64)
        };
        let before = bare()?;
        let mut victim = broker::plan(bench, directory.path())?.start()?;
        broker::create_topic(&victim, BYTES_KEPT)?;
        http.runs.push(over_http(&victim, bench.time)?);
        kafka.runs.push(over_kafka(&victim, bench.time)?);
        victim.kill()?;
        let limit = (before + bare()?) / 2.0;
        http.limits.push(limit);
        kafka.limits.push(limit);
        bench.progress(&format!(
            "{:.0} records/s over HTTP, {:.0} over Kafka's protocol",
            http.runs.last().unwrap_or(&0.0),
            kafka.runs.last().unwrap_or(&0.0)
        ));
    }
    Ok(vec![http, kafka])
}

/// Readings a second of all connections, each of which runs in a thread of its own until `time` is over.
fn in_threads(time: Duration, work: impl Fn(usize, Instant) -> Result<u64> + Sync) -> Result<f64> {
    let begin = Instant::now();
    let sent = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|index| {
                scope.spawn({
                    let work = &work;
                    move || work(index, begin + time)
                })
            })
            .collect();
        let sent = threads.into_iter().map(|thread| {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a connection panicked"))?
        });
        sent.sum::<Result<u64>>()
    })?;
    Ok(sent as f64 / begin.elapsed().as_secs_f64())
}

fn over_http(victim: &Victim, time: Duration) -> Result<f64> {
    in_threads(time, |index, end| {
        let body = lines(index).join("\n");
        let path = format!("/api/v1/topics/{TOPIC}/records?key_field=/device");
        let wanted = format!("\"records\":{LINES},");
        let mut http = Http::connect(&victim.http)?;
        let mut sent = 0;
        while Instant::now() < end {
            let answer = http.post(&path, body.as_bytes())?;
            ensure!(answer.contains(&wanted), "refused: {answer}");
            sent += LINES as u64;
        }
        Ok(sent)
    })
}

fn over_kafka(victim: &Victim, time: Duration) -> Result<f64> {
    let runtime = broker::runtime()?;
    let runtime = &runtime;
    in_threads(time, |index, end| {
        let mut builder = BatchBuilder::new(Codec::None);
        for line in lines(index) {
            let key = &line.as_bytes()[11..22];
            builder.push(
                Timestamp::from_millis(0),
                Some(key),
                Some(line.as_bytes()),
                &[],
            )?;
        }
        let batch: Bytes = builder.build()?;
        let partition = i32::try_from(index)? % PARTITIONS;
        let request = Arc::new(broker::produce_request(TOPIC, partition, &batch));
        let address = &victim.kafka;
        runtime.block_on(async {
            let connection = Connection::open(address, &ClientConfig::new(address)).await?;
            let mut sent = 0;
            while Instant::now() < end {
                let pending = connection.start(&*request, broker::PRODUCE_VERSION).await?;
                let response = pending.wait(Duration::from_secs(60)).await?;
                for topic in &response.responses {
                    for partition in &topic.partition_responses {
                        let error = ErrorCode::from_code(partition.error_code);
                        ensure!(error == ErrorCode::None, "refused: {}", error.name());
                    }
                }
                sent += LINES as u64;
            }
            Ok(sent)
        })
    })
}
