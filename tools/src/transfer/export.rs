//! `export`: topics into files, batch by batch as they are stored.
//!
//! Caller: the command line. Invariants: a file has its name only when it is whole; an unfinished one is gone on with, behind
//! its last whole part, and never begun anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use client::admin::{Admin, ConfigSource, Resource};
use client::consumer::Start;
use client::{Client, Consumer, ConsumerConfig};
use model::batch::split;
use model::time_spec::Range;
use model::{Offset, PartitionId, Timestamp, TopicName, TopicPartition};
use serde_json::{Value, json};

use super::POLL;
use super::file::{Header, Part, PartitionRange, Reader, Totals, TransferError, Writer};
use crate::cli::Common;
use crate::consume::places::spans;
use crate::failure::Failure;
use crate::output::{counted, note, print, size};

/// Shown below `export --help`.
pub const EXPORT_EXAMPLES: &str = "\
Examples:
  alluvium export rides --to archive                 archive/rides.records
  alluvium export --all --to archive                 every topic, a file each
  alluvium export rides --to archive --range @2026-03-01:2026-04-01
  alluvium import archive/rides.records              and back

A file has the batches as they are stored, with their codec, keys, headers, timestamps and offsets, under checksums, and the topic's \
settings. Of a range the first and the last batch may hold records beyond it: batches are kept whole. A file that is there already is \
checked and left; an export that was cut short is gone on with by the same command.

For rows, as NDJSON, CSV, Arrow or Parquet, use `alluvium replay TOPIC --format parquet -o FILE`.";

/// `export` and its options.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Topics
    #[arg(
        required_unless_present = "all",
        conflicts_with = "all",
        value_name = "TOPIC"
    )]
    topics: Vec<String>,
    /// Every topic, but for those that are the broker's own
    #[arg(long)]
    all: bool,
    /// The directory to write to; it is made if it is not there
    #[arg(short, long, value_name = "DIR")]
    to: PathBuf,
    /// Only these records, as `consume --offset` takes them: -1h, @2026-03-01:2026-04-01, 1000:2000
    #[arg(short, long, value_name = "RANGE", allow_hyphen_values = true)]
    range: Option<String>,
}

/// What became of a topic.
struct Exported {
    topic: String,
    path: PathBuf,
    totals: Totals,
    was_there: bool,
}

impl Exported {
    fn json(&self) -> Value {
        json!({
            "topic": self.topic, "file": self.path.display().to_string(), "batches": self.totals.batches,
            "records": self.totals.records, "bytes": self.totals.bytes, "was_there": self.was_there,
        })
    }
}

impl ExportArgs {
    /// Runs the command.
    pub async fn run(self, common: &Common, now: Timestamp) -> Result<ExitCode> {
        let range = self.range.as_deref().map(|text| Range::parse(text, now));
        let range = range.transpose()?.unwrap_or(Range::ALL);
        let client = common.connect().await?;
        let topics = match self.all {
            true => {
                let known = Admin::new(&client).list_topics().await?;
                let own = |(name, topic): (String, std::sync::Arc<client::TopicMetadata>)| {
                    (!topic.is_internal).then_some(name)
                };
                known.into_iter().filter_map(own).collect()
            }
            false => self.topics,
        };
        std::fs::create_dir_all(&self.to)
            .with_context(|| format!("cannot make {}", self.to.display()))?;
        let mut all = Vec::new();
        for name in topics {
            let topic = TopicName::parse(&name)?;
            let exported = export(&client, &topic, range, (&self.to, now)).await;
            let exported = exported.with_context(|| format!("topic {name}"))?;
            if !common.json {
                let records = usize::try_from(exported.totals.records).unwrap_or(usize::MAX);
                let was_there = if exported.was_there {
                    "was there already: "
                } else {
                    ""
                };
                note!(
                    "{}: {was_there}{}, {}",
                    exported.path.display(),
                    counted(records, "record"),
                    size(exported.totals.bytes)
                );
            }
            all.push(exported);
        }
        if common.json {
            let values: Vec<Value> = all.iter().map(Exported::json).collect();
            print(true, || Value::Array(values), String::new)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What is to be read still, and what is there of it.
struct Job {
    writer: Writer,
    /// Where each partition goes on, and where it ends.
    left: BTreeMap<TopicPartition, (Offset, Offset)>,
}

async fn export(
    client: &Client,
    topic: &TopicName,
    range: Range,
    (to, now): (&Path, Timestamp),
) -> Result<Exported> {
    let path = to.join(format!("{topic}.records"));
    if path.exists() {
        let (_, totals) = check_whole(&path)
            .with_context(|| format!("{} is there and is not whole", path.display()))?;
        return Ok(Exported {
            topic: topic.to_string(),
            path,
            totals,
            was_there: true,
        });
    }
    let unfinished = to.join(format!("{topic}.records.unfinished"));
    let mut job = match unfinished.exists() {
        true => go_on(topic, &unfinished)
            .with_context(|| format!("{} cannot be gone on with", unfinished.display()))?,
        false => begin(client, topic, range, (&unfinished, now)).await?,
    };
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    for (partition, (next, _)) in &job.left {
        consumer.assign(partition.clone(), Start::Offset(*next));
    }
    while !job.left.is_empty() {
        for fetched in consumer.poll(POLL).await? {
            let Some((next, end)) = job.left.get_mut(&fetched.partition) else {
                continue;
            };
            let mut bytes = Vec::new();
            for batch in &fetched.batches {
                let header = batch.header();
                if header.next_offset() <= *next || header.base() >= *end {
                    continue;
                }
                bytes.extend_from_slice(batch.bytes());
                job.writer.totals.batches += 1;
                job.writer.totals.records += u64::from(header.record_count.unsigned_abs());
                job.writer.totals.bytes += batch.bytes().len() as u64;
            }
            if !bytes.is_empty() {
                job.writer.batches(fetched.partition.partition, &bytes)?;
            }
            *next = (*next).max(fetched.end());
            if *next >= *end {
                job.left.remove(&fetched.partition);
                consumer.unassign(&fetched.partition);
            }
        }
    }
    let totals = job.writer.finish()?;
    std::fs::rename(&unfinished, &path)?;
    std::fs::File::open(to)?.sync_all()?;
    Ok(Exported {
        topic: topic.to_string(),
        path,
        totals,
        was_there: false,
    })
}

/// A new file, of what is there now.
async fn begin(
    client: &Client,
    topic: &TopicName,
    range: Range,
    (path, now): (&Path, Timestamp),
) -> Result<Job> {
    let known = client.topic(topic.as_str(), false).await?;
    let partitions = known.partitions.iter().filter_map(|of| {
        let number = u32::try_from(of.partition).ok()?;
        Some(TopicPartition::new(topic.clone(), PartitionId::new(number)))
    });
    let partitions: Vec<TopicPartition> = partitions.collect();
    let bounded = Range {
        end: range.end.or(Some(model::time_spec::Position::Latest)),
        ..range
    };
    let found = spans(client, &partitions, bounded).await?;
    let admin = Admin::new(client);
    let settings = admin
        .describe_configs(&Resource::Topic(topic.to_string()))
        .await?;
    let settings = settings.into_iter().filter_map(|entry| {
        let is_own = entry.source == ConfigSource::Topic;
        Some((entry.name, entry.value?)).filter(|_| is_own)
    });
    let (mut ranges, mut left) = (Vec::new(), BTreeMap::new());
    for (partition, (_, span)) in found {
        let end = span.end.unwrap_or(span.start).max(span.start);
        ranges.push(PartitionRange {
            partition: partition.partition.get(),
            start: span.start.get(),
            end: end.get(),
        });
        if span.start < end {
            left.insert(partition, (span.start, end));
        }
    }
    let header = Header {
        topic: topic.to_string(),
        settings: settings.collect(),
        partitions: ranges,
        exported_ms: now.millis(),
    };
    let writer = Writer::create(path, &header)?;
    Ok(Job { writer, left })
}

/// What is left to do of an unfinished file.
fn go_on(topic: &TopicName, path: &Path) -> Result<Job> {
    let (mut reader, header) = Reader::open(path)?;
    if header.topic != topic.as_str() {
        bail!(Failure::Usage(format!(
            "it is of the topic {}",
            header.topic
        )));
    }
    let mut left = BTreeMap::new();
    for range in &header.partitions {
        let partition = TopicPartition::new(topic.clone(), PartitionId::new(range.partition));
        if range.start < range.end {
            left.insert(
                partition,
                (Offset::new(range.start), Offset::new(range.end)),
            );
        }
    }
    let mut totals = Totals::default();
    let whole_bytes = loop {
        let before = reader.position();
        let (partition, batches) = match reader.next() {
            Ok(Part::Batches { partition, batches }) => (partition, batches),
            // Where nothing is missing but the name, the end is written again.
            Ok(Part::End(_))
            | Err(TransferError::Unfinished { .. } | TransferError::Damaged { .. }) => {
                break before;
            }
            Err(error) => return Err(error.into()),
        };
        let partition = TopicPartition::new(topic.clone(), partition);
        for batch in split(batches) {
            let batch = batch?;
            totals.batches += 1;
            totals.records += u64::from(batch.header().record_count.unsigned_abs());
            totals.bytes += batch.bytes().len() as u64;
            if let Some((next, _)) = left.get_mut(&partition) {
                *next = (*next).max(batch.header().next_offset());
            }
        }
    };
    left.retain(|_, (next, end)| next < end);
    Ok(Job {
        writer: Writer::go_on(path, whole_bytes, totals)?,
        left,
    })
}

/// Reads a file to its end, and checks all of it.
pub(super) fn check_whole(path: &Path) -> Result<(Header, Totals)> {
    read_whole(path).map_err(|error| match error.downcast_ref() {
        Some(TransferError::Io(_)) => error,
        _ => Failure::Damaged(format!("{error:#}")).into(),
    })
}

fn read_whole(path: &Path) -> Result<(Header, Totals)> {
    let (mut reader, header) = Reader::open(path)?;
    let mut found = Totals::default();
    loop {
        match reader.next()? {
            Part::Batches { batches, .. } => {
                for batch in split(batches) {
                    let batch = batch?;
                    found.batches += 1;
                    found.records += u64::from(batch.header().record_count.unsigned_abs());
                    found.bytes += batch.bytes().len() as u64;
                }
            }
            Part::End(totals) if totals == found => return Ok((header, totals)),
            Part::End(_) => bail!("it does not have as many records as its end says"),
        }
    }
}
