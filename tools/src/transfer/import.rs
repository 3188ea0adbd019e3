//! `import`: a file of `export`, or of rows, into a topic.
//!
//! Caller: the command line. Invariants: nothing is sent before all of the file was checked; a stored batch goes out as it is in the file, but for
//! what the producer stamps, unless a broker could not take it so.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::Args;
use client::admin::{Admin, At, NewTopic};
use client::{Client, Delivery, Producer, ProducerConfig, TopicMetadata};
use columnar::Format;
use model::batch::{Batch, BatchBuilder, HeaderRef, TimestampType, split, stamp};
use model::codec::DecompressLimit;
use model::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicName, TopicPartition};
use serde_json::{Value, json};

use super::export::check_whole;
use super::file::{Part, Reader};
use super::rows::{RowArgs, Rows};
use crate::cli::Common;
use crate::failure::Failure;
use crate::output::{counted, note, print};

/// Shown below `import --help`.
pub const IMPORT_EXAMPLES: &str = "\
Examples:
  alluvium import archive/rides.records                       into the topic rides, which is made if it is not there
  alluvium import archive/rides.records --topic rides-copy
  alluvium import archive/rides.records --resume              go on with one that was cut short
  alluvium import rides.parquet                               rows as replay writes them: Parquet, Arrow, CSV, NDJSON
  alluvium import trips.csv -t trips --whole-row --key-column bike --timestamp-column at --timestamp-unit s

The file is checked to its end before anything is sent. Keys, headers, values, timestamps, codecs and partitions are as they were. \
Offsets are counted anew: they stay as they were only where the partition is empty, begins at the same offset and no offset was missing, \
and it is said whether they did. Records are appended: what else is in the topic stays. A topic that holds records already is refused \
without --append.

Of rows, topic, partition, timestamp, key, headers and value are what the columns of these names say. A row without a partition goes where \
its key belongs. A number is a timestamp only with --timestamp-unit, and nothing that is not a record's is left out in silence: columns \
beside these are refused, unless the file says offsets, as a replay's does, whose other columns are fields of the value. Rows that cannot be \
records are named by their lines.";

/// Batches on their way, at most.
const ON_THEIR_WAY_MAX: usize = 256;

/// `import` and its options.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A file of `alluvium export`, or of rows: NDJSON, CSV, an Arrow stream or Parquet
    file: PathBuf,
    /// The topic to write to [default: the one that the file is of]
    #[arg(short, long)]
    topic: Option<String>,
    /// Add to a topic that holds records already
    #[arg(long, conflicts_with = "resume")]
    append: bool,
    /// Go on behind the records that are there: the topic holds what an import of this file has sent, and nothing else
    #[arg(long)]
    resume: bool,
    /// Only check the file, and say what is in it
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    rows: RowArgs,
}

/// What was sent.
#[derive(Debug, Default)]
struct Sent {
    batches: u64,
    records: u64,
    /// Records that were there already.
    skipped: u64,
    /// Batches of transactions' marks, which are no records.
    marks: u64,
    /// Batches of which the first record has another offset than it had.
    moved: u64,
    /// Batches that were built anew.
    rebuilt: u64,
}

/// A batch on its way, and which offset it had.
struct OnItsWay(Offset, Delivery);

impl ImportArgs {
    /// Runs the command.
    pub async fn run(self, common: &Common, now: Timestamp) -> Result<ExitCode> {
        if let Some(format) = self.rows.format(&self.file)? {
            return self.run_rows(common, format, now).await;
        }
        let checking = || check_whole(&self.file);
        let checked = tokio::task::block_in_place(checking);
        let (header, totals) = checked.with_context(|| self.file.display().to_string())?;
        let name = self.topic.as_deref().unwrap_or(&header.topic).to_owned();
        if self.check {
            print(
                common.json,
                || {
                    json!({ "topic": header.topic, "settings": header.settings, "partitions": header.partitions,
                    "exported_ms": header.exported_ms, "batches": totals.batches, "records": totals.records, "bytes": totals.bytes })
                },
                || {
                    format!(
                        "{}: whole, {} records of topic {}\n",
                        self.file.display(),
                        totals.records,
                        header.topic
                    )
                },
            )?;
            return Ok(ExitCode::SUCCESS);
        }
        let topic = TopicName::parse(&name)?;
        let client = common.connect().await?;
        let needed = header.partitions.iter().map(|range| range.partition + 1);
        let needed = (needed.max().unwrap_or(1), None);
        let settings = header.settings.clone().into_iter().collect();
        let known = self.topic_for(&client, &topic, needed, settings).await?;
        let skip = self.records_there(&client, &topic, &known).await?;
        let sent = self.send(&client, &topic, skip).await?;
        self.tell(common.json, &name, &sent)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The same for rows.
    async fn run_rows(&self, common: &Common, format: Format, now: Timestamp) -> Result<ExitCode> {
        let rows = Rows {
            args: &self.rows,
            path: &self.file,
            format,
            now,
        };
        let checked = tokio::task::block_in_place(|| rows.check());
        let found = checked.with_context(|| self.file.display().to_string())?;
        if self.check {
            print(
                common.json,
                || found.json(),
                || {
                    format!(
                        "{}: {} can be read\n",
                        self.file.display(),
                        counted(usize::try_from(found.rows).unwrap_or(usize::MAX), "row")
                    )
                },
            )?;
            found.tell_bad();
            return Ok(ExitCode::SUCCESS);
        }
        let name = match &self.topic {
            Some(topic) => topic.clone(),
            None => found.topic()?,
        };
        let topic = TopicName::parse(&name)?;
        let needed = (found.partitions(), Some(self.rows.partitions(&found)?));
        let client = common.connect().await?;
        let known = self.topic_for(&client, &topic, needed, Vec::new()).await?;
        let skip = self.records_there(&client, &topic, &known).await?;
        let partitions = u32::try_from(known.partitions.len())?;
        let sent = rows.send(&client, &topic, partitions, skip, &found).await?;
        rows.tell(common.json, &name, &found, &sent)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The topic, made if it is not there. It needs so many partitions, and gets so many if it is made.
    async fn topic_for(
        &self,
        client: &Client,
        topic: &TopicName,
        (needed, made): (u32, Option<u32>),
        settings: Vec<(String, String)>,
    ) -> Result<Arc<TopicMetadata>> {
        let admin = Admin::new(client);
        if !admin.list_topics().await?.contains_key(topic.as_str()) {
            admin
                .create_topic(NewTopic {
                    name: topic.to_string(),
                    partitions: Some(i32::try_from(made.unwrap_or(needed))?),
                    configs: settings,
                    ..NewTopic::default()
                })
                .await?;
        }
        let known = client.topic_anew(topic.as_str(), false).await?;
        let there = known.partitions.len();
        if there < needed as usize {
            bail!(Failure::Usage(format!(
                "topic {topic} has {}, the file has records of {needed}",
                counted(there, "partition")
            )));
        }
        Ok(known)
    }

    /// How many records each partition holds that the file begins with.
    async fn records_there(
        &self,
        client: &Client,
        topic: &TopicName,
        known: &TopicMetadata,
    ) -> Result<BTreeMap<PartitionId, u64>> {
        let partitions = known
            .partitions
            .iter()
            .filter_map(|of| u32::try_from(of.partition).ok());
        let partitions: Vec<TopicPartition> = partitions
            .map(|number| TopicPartition::new(topic.clone(), PartitionId::new(number)))
            .collect();
        let admin = Admin::new(client);
        let ask = async |at: At| {
            let wanted: Vec<_> = partitions.iter().map(|of| (of.clone(), at)).collect();
            admin.list_offsets(&wanted).await
        };
        let (starts, ends) = (ask(At::Earliest).await?, ask(At::Latest).await?);
        let mut there = BTreeMap::new();
        for partition in &partitions {
            let offset =
                |places: &std::collections::HashMap<TopicPartition, client::admin::Place>| {
                    places
                        .get(partition)
                        .and_then(|place| place.offset)
                        .unwrap_or_default()
                };
            let count = offset(&ends).get().saturating_sub(offset(&starts).get());
            there.insert(partition.partition, count);
        }
        let held: u64 = there.values().sum();
        if held > 0 && !self.append && !self.resume {
            bail!(Failure::Usage(format!(
                "topic {topic} holds {held} records already: add to them with --append, or go on with an import that was cut \
                 short with --resume"
            )));
        }
        if !self.resume {
            there.clear();
        }
        Ok(there)
    }

    async fn send(
        &self,
        client: &Client,
        topic: &TopicName,
        mut skip: BTreeMap<PartitionId, u64>,
    ) -> Result<Sent> {
        let producer = Producer::new(client, ProducerConfig::default())?;
        let (mut reader, _) = Reader::open(&self.file)?;
        let mut sent = Sent::default();
        let mut waiting = VecDeque::new();
        while let Part::Batches { partition, batches } = reader.next()? {
            let of = TopicPartition::new(topic.clone(), partition);
            for batch in split(batches) {
                let batch = batch?;
                if batch.header().attributes.is_control() {
                    sent.marks += 1;
                    continue;
                }
                let records = u64::from(batch.header().record_count.unsigned_abs());
                if records == 0 {
                    continue;
                }
                let there = skip.entry(partition).or_default();
                if *there >= records {
                    *there -= records;
                    sent.skipped += records;
                    continue;
                }
                if *there > 0 {
                    bail!(
                        "{of} does not hold what an import of this file has sent: {there} records are no whole batch"
                    );
                }
                let base = batch.header().base();
                let bytes = sendable(&batch, &mut sent)?;
                sent.batches += 1;
                sent.records += records;
                waiting.push_back(OnItsWay(base, producer.send_batch(&of, bytes).await?));
                if waiting.len() > ON_THEIR_WAY_MAX
                    && let Some(first) = waiting.pop_front()
                {
                    sent.moved += u64::from(first.has_moved().await?);
                }
            }
        }
        for batch in waiting {
            sent.moved += u64::from(batch.has_moved().await?);
        }
        producer.close().await?;
        if let Some((partition, left)) = skip.iter().find(|(_, left)| **left > 0) {
            bail!("partition {partition} holds {left} records more than the file");
        }
        Ok(sent)
    }

    fn tell(&self, is_json: bool, topic: &str, sent: &Sent) -> Result<()> {
        let value = || -> Value {
            json!({
                "topic": topic, "records": sent.records, "batches": sent.batches, "skipped_records": sent.skipped,
                "rebuilt_batches": sent.rebuilt, "transaction_marks": sent.marks, "offsets_kept": sent.moved == 0,
            })
        };
        print(is_json, value, String::new)?;
        if is_json {
            return Ok(());
        }
        let records = usize::try_from(sent.records).unwrap_or(usize::MAX);
        note!("topic {topic}: {} written", counted(records, "record"));
        if sent.skipped > 0 {
            note!("{} records were there already", sent.skipped);
        }
        match sent.moved {
            0 => note!("all offsets are as they were"),
            _ => note!(
                "offsets are others than they were: they are counted anew where they cannot be kept"
            ),
        }
        if sent.rebuilt > 0 {
            note!(
                "{} batches were built anew, as no producer may send them as they were",
                sent.rebuilt
            );
        }
        if sent.marks > 0 {
            note!("{} marks of transactions were left out", sent.marks);
        }
        Ok(())
    }
}

impl OnItsWay {
    /// Waits until it is there; whether under another offset.
    async fn has_moved(self) -> Result<bool> {
        let delivered = self.1.wait().await?;
        Ok(delivered.offset != Some(self.0))
    }
}

/// A batch as a broker takes it of a producer: without gaps, of no transaction, with its records' own times.
fn sendable(batch: &Batch, sent: &mut Sent) -> Result<Bytes> {
    let header = batch.header();
    let is_whole = u64::from(header.record_count.unsigned_abs()) == header.offset_count();
    let is_producers = header.timestamp_type() == TimestampType::CreateTime
        && !header.is_transactional()
        && header.delete_horizon().is_none();
    if is_whole && is_producers {
        // A producer counts from 0. Base offset and leader epoch lie outside the batch's checksum.
        let mut bytes = batch.bytes().to_vec();
        let head = bytes.first_chunk_mut().expect("a batch has a head");
        stamp(head, Offset::ZERO, LeaderEpoch::new(0));
        return Ok(bytes.into());
    }
    sent.rebuilt += 1;
    let mut builder = BatchBuilder::new(header.codec()?);
    let mut records = batch.records(DecompressLimit::default())?;
    while let Some(record) = records.next_ref() {
        let record = record?;
        let headers: Vec<HeaderRef<'_>> = record.headers().collect();
        builder.push(record.timestamp, record.key, record.value, &headers)?;
    }
    Ok(builder.build()?)
}
