//! `bench`: what a running broker does for this client: durable produce, ack latency at a fixed rate, replay.
//!
//! Everything happens in a topic of its own, which is deleted at the end, also after a failure or an interrupt. A measure is
//! repeated, and told as minimum, median and maximum of its runs. `load.rs` makes and sends batches, `report.rs` tells.

mod load;
mod report;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use client::Client;
use client::admin::{Admin, At, NewTopic};
use client::consumer::{Consumer, ConsumerConfig, Start};
use model::batch::Codec;
use model::{PartitionId, TopicName, TopicPartition};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::print_text;
use crate::signals::StopSignals;
use load::{Load, Sending};
use report::{Measure, Report, Spread};

/// What no batch stays below: its header and a record.
const BATCH_BYTES_MIN: usize = 256;
/// What a topic takes without a setting of its own, in Kafka and here.
const MESSAGE_BYTES_MAX_DEFAULT: usize = 1_048_588;
/// Rates of the load, in MiB a second: slower ones have no batch in a run, faster ones no time between two.
const RATES_MIB: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;

/// Measure a running broker: durable produce, ack latency at a fixed rate, replay.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// What to measure; everything by default
    #[arg(value_enum)]
    measures: Vec<What>,
    /// How long each run lasts, in seconds
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS", value_parser = seconds)]
    seconds: f64,
    /// How often each measure is repeated
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Partitions of the topic
    #[arg(short, long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    partitions: u32,
    /// Producers, each with a connection of its own
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    producers: u32,
    /// The length of a record's value
    #[arg(long, default_value_t = 512, value_name = "BYTES")]
    record_bytes: usize,
    /// The length of a batch before compression
    #[arg(long, default_value_t = 64 << 10, value_name = "BYTES")]
    batch_bytes: usize,
    /// How batches are compressed: none, gzip, snappy, lz4, zstd
    #[arg(long, default_value = "none")]
    codec: Codec,
    /// The rate at which latency is measured, in MiB a second; half of what produce reached by default, or else 10
    #[arg(long, value_name = "MIB")]
    rate: Option<f64>,
    /// A setting of the topic, as durability=os
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    topic_config: Vec<(String, String)>,
    /// Keep the topic
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum What {
    /// Batches as fast as they are acknowledged.
    Produce,
    /// The time from when a batch is due to its acknowledgement, at a fixed rate.
    Latency,
    /// All of it read back, as fast as it comes.
    Replay,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.1..=86_400.0).contains(&seconds) {
        true => Ok(seconds),
        false => Err("must be 0.1 to 86400".to_owned()),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Runs the command.
pub async fn run(args: BenchArgs, client: &Client, json: bool) -> Result<ExitCode> {
    if !(BATCH_BYTES_MIN..=64 << 20).contains(&args.batch_bytes)
        || args.record_bytes > args.batch_bytes
    {
        bail!(Failure::Usage(format!(
            "a batch has {BATCH_BYTES_MIN} bytes to 64 MiB, and room for a record of --record-bytes"
        )));
    }
    if args.rate.is_some_and(|rate| !RATES_MIB.contains(&rate)) {
        bail!(Failure::Usage(format!(
            "--rate is {} to {} MiB a second",
            RATES_MIB.start(),
            RATES_MIB.end()
        )));
    }
    let topic = TopicName::parse(&format!("bench-{}", uuid::Uuid::new_v4().simple()))?;
    let admin = Admin::new(client);
    let mut configs = args.topic_config.clone();
    let is_set = configs.iter().any(|(key, _)| key == "max.message.bytes");
    if !is_set && args.batch_bytes + BATCH_BYTES_MIN > MESSAGE_BYTES_MAX_DEFAULT {
        let bytes_max = args.batch_bytes + BATCH_BYTES_MIN;
        configs.push(("max.message.bytes".to_owned(), bytes_max.to_string()));
    }
    let new = NewTopic {
        name: topic.to_string(),
        partitions: Some(i32::try_from(args.partitions)?),
        configs,
        ..NewTopic::default()
    };
    // From here on an end before its time deletes the topic.
    let mut signals = StopSignals::listen()?;
    admin.create_topic(new).await?;
    let bench = Bench {
        args: &args,
        client,
        topic: &topic,
        is_quiet: json,
    };
    let measured = tokio::select! {
        measured = bench.all() => measured,
        () = signals.asked() => Err(anyhow::anyhow!("interrupted")),
    };
    if !args.keep {
        let deleted = admin.delete_topics(&[topic.as_str()]).await;
        let deleted =
            deleted.and_then(|results| results.into_iter().try_for_each(|(_, result)| result));
        deleted.with_context(|| format!("topic {topic} could not be deleted"))?;
    }
    let report = measured?;
    match json {
        true => print_text(&format!("{}\n", serde_json::to_string_pretty(&report)?))?,
        false => print_text(&report.to_string())?,
    }
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a> {
    args: &'a BenchArgs,
    client: &'a Client,
    topic: &'a TopicName,
    is_quiet: bool,
}

impl Bench<'_> {
    async fn all(&self) -> Result<Report> {
        let wanted = |what| self.args.measures.is_empty() || self.args.measures.contains(&what);
        let load = Load::new(
            self.args.codec,
            self.args.batch_bytes,
            self.args.record_bytes,
        )?;
        let sending = Sending {
            client: self.client,
            partitions: &self.partitions(),
            producers: self.args.producers,
            load: &load,
            time: Duration::from_secs_f64(self.args.seconds),
        };
        let mut report = Report::new(self.args, &load);
        if wanted(What::Produce) {
            let rates = self
                .repeat("produce", async || sending.flat_out().await)
                .await?;
            report.produce = Some(Measure::of(&rates, &load));
        } else if wanted(What::Replay) {
            self.show_progress("filling the topic");
            sending.flat_out().await?;
        }
        if wanted(What::Latency) {
            let peak = report
                .produce
                .as_ref()
                .map(|produce| produce.bytes_per_second.median / 2.0);
            let rate = match (self.args.rate, peak) {
                (Some(mib), _) => mib * f64::from(1 << 20),
                (None, Some(half)) if half > 0.0 => half,
                (None, Some(_)) => bail!(
                    "nothing was acknowledged in {} s, and there is no rate to measure latency at: give more time by \
                     --seconds, or a --rate",
                    self.args.seconds
                ),
                (None, None) => 10.0 * f64::from(1 << 20),
            };
            let runs = self
                .repeat("latency", async || sending.paced(rate).await)
                .await?;
            report.latency = Some(report::Latency::of(rate, &runs));
        }
        if wanted(What::Replay) {
            let rates = self.repeat("replay", async || self.replay().await).await?;
            report.replay = Some(Measure::of_replay(&rates));
        }
        Ok(report)
    }

    fn partitions(&self) -> Vec<TopicPartition> {
        (0..self.args.partitions)
            .map(|number| TopicPartition::new(self.topic.clone(), PartitionId::new(number)))
            .collect()
    }

    async fn repeat<T>(&self, what: &str, run: impl AsyncFn() -> Result<T>) -> Result<Vec<T>> {
        let mut results = Vec::new();
        for number in 1..=self.args.runs {
            self.show_progress(&format!("{what}: run {number} of {}", self.args.runs));
            results.push(
                run()
                    .await
                    .with_context(|| format!("{what}, run {number}"))?,
            );
        }
        Ok(results)
    }

    /// Progress, on a terminal only.
    fn show_progress(&self, text: &str) {
        if !self.is_quiet && std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            crate::output::note!("{text}");
        }
    }

    /// Reads everything once: bytes and records a second.
    async fn replay(&self) -> Result<(f64, f64)> {
        let wanted: Vec<(TopicPartition, At)> = self
            .partitions()
            .into_iter()
            .map(|partition| (partition, At::Latest))
            .collect();
        let ends = Admin::new(self.client).list_offsets(&wanted).await?;
        let ends = ends.values().filter_map(|place| place.offset);
        let mut left: u64 = ends.map(|end| end.get()).sum();
        let config = ConsumerConfig {
            partition_bytes_max: 8 << 20,
            ..ConsumerConfig::default()
        };
        let mut consumer = Consumer::new(self.client, config);
        consumer.assign_topic(self.topic, Start::Earliest).await?;
        let (mut bytes, mut records) = (0usize, 0u64);
        let begun = Instant::now();
        while left > 0 {
            let fetched = consumer.poll(Duration::from_secs(30)).await?;
            if fetched.is_empty() {
                bail!("nothing came for 30 seconds, and {left} records are missing");
            }
            for fetched in fetched {
                bytes += fetched.bytes();
                let count = fetched.end().since(fetched.from);
                records += count;
                left = left.saturating_sub(count);
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        Ok((bytes as f64 / seconds, records as f64 / seconds))
    }
}

impl Spread {
    fn of_rates(rates: &[f64]) -> Spread {
        Spread::of(rates.iter().copied())
    }
}
