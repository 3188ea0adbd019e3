//! `import` of rows: NDJSON, CSV, Arrow or Parquet, as `replay` writes them or as others do, into a topic.
//!
//! Caller: `import`. The file is read twice: once to check each row, then to send them, so that nothing is sent of a file with bad rows.
//! Invariants: which row goes to which partition, and in which order, is told by the file alone, so that an import that was cut short
//! goes on behind what is there; what is held is a row or a batch of the file, and what the producer has on its way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use client::producer::partition_of_key;
use client::{Client, Delivery, Producer, ProducerConfig};
use columnar::{BodyColumns, BodyError, BodyRow, Exact, Format, RowReader, TimeUnit};
use indicatif::{ProgressBar, ProgressStyle};
use model::batch::{BatchBuilder, HeaderRef, RecordBody};
use model::{Offset, PartitionId, Timestamp, TopicName};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{counted, grouped, note};

/// Records on their way, at most.
const ON_THEIR_WAY_MAX: usize = 64 * 1024;
/// When a batch is full: no server's log has files so small that it would not take one.
const BATCH_BYTES: usize = 64 << 10;
/// Bad rows that are named; the others are counted.
const NAMED_MAX: usize = 100;
/// Rows without a key and a partition that go to one partition, before the next ones go to the next.
const RUN_ROWS: u64 = 1_000;
/// How many rows go by before it is told again how far it is.
const TOLD_EVERY: u64 = 1 << 14;

/// How rows are read.
#[derive(Debug, Args)]
pub(super) struct RowArgs {
    /// How the file is written [default: by the end of its name: .ndjson, .jsonl, .csv, .arrow, .arrows, .parquet; else as export does]
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Each row as a whole is a value: NDJSON's line, or a JSON object of all columns. Without it a row is what `replay` writes: topic,
    /// partition, timestamp, key, headers and value
    #[arg(long)]
    whole_row: bool,
    /// The column, or field of a line, that is the key [default: key; with --whole-row none]
    #[arg(long, value_name = "NAME")]
    key_column: Option<String>,
    /// The column, or field of a line, that is the timestamp [default: timestamp; with --whole-row none, and the time of the import]
    #[arg(long, value_name = "NAME")]
    timestamp_column: Option<String>,
    /// What a timestamp counts that is a number; RFC 3339 and columns with a type of time need none
    #[arg(long, value_enum, value_name = "UNIT")]
    timestamp_unit: Option<UnitName>,
    /// The column that is the value [default: value]
    #[arg(long, value_name = "NAME", conflicts_with = "whole_row")]
    value_column: Option<String>,
    /// What stands between CSV's columns: one character, or tab
    #[arg(long, value_name = "CHAR", value_parser = delimiter)]
    delimiter: Option<u8>,
    /// How many partitions a topic gets that is made [default: as many as the rows name]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    partitions: Option<u32>,
    /// What becomes of a file with rows that cannot be records: nothing of it is sent, or the others are
    #[arg(long, value_enum, default_value_t = OnError::Reject)]
    on_error: OnError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FormatName {
    Native,
    Ndjson,
    Csv,
    Arrow,
    Parquet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum UnitName {
    S,
    Ms,
    Us,
    Ns,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnError {
    Reject,
    Skip,
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !b"\"\r\n".contains(byte) => Ok(*byte),
        _ => Err("it is one ASCII character, or tab".to_owned()),
    }
}

impl RowArgs {
    /// The format of a file's rows; None if it has batches.
    pub fn format(&self, path: &Path) -> Result<Option<Format>> {
        let end = path.extension().and_then(|end| end.to_str());
        let by_name = match end {
            Some("ndjson" | "jsonl") => Some(Format::Ndjson),
            Some("csv") => Some(Format::Csv),
            Some("arrow" | "arrows") => Some(Format::Arrow),
            Some("parquet") => Some(Format::Parquet),
            _ => None,
        };
        let format = match self.format {
            None => by_name,
            Some(FormatName::Native) => None,
            Some(FormatName::Ndjson) => Some(Format::Ndjson),
            Some(FormatName::Csv) => Some(Format::Csv),
            Some(FormatName::Arrow) => Some(Format::Arrow),
            Some(FormatName::Parquet) => Some(Format::Parquet),
        };
        let wrong = |reason: &str| Err(Failure::Usage(reason.to_owned()).into());
        let says_rows = self.whole_row
            || self.key_column.is_some()
            || self.timestamp_column.is_some()
            || self.timestamp_unit.is_some()
            || self.value_column.is_some()
            || self.partitions.is_some()
            || self.on_error == OnError::Skip;
        match format {
            None if says_rows || self.delimiter.is_some() => wrong(
                "a file of `alluvium export` has no rows to read so; --format says what else it is",
            ),
            Some(format) if self.delimiter.is_some() && format != Format::Csv => {
                wrong("--delimiter says how to read CSV, and the file is none")
            }
            format => Ok(format),
        }
    }

    fn columns(&self) -> BodyColumns {
        let time_unit = self.timestamp_unit.map(|unit| match unit {
            UnitName::S => TimeUnit::Seconds,
            UnitName::Ms => TimeUnit::Millis,
            UnitName::Us => TimeUnit::Micros,
            UnitName::Ns => TimeUnit::Nanos,
        });
        BodyColumns {
            key: self.key_column.clone(),
            timestamp: self.timestamp_column.clone(),
            value: self.value_column.clone(),
            exact: Some(Exact {
                whole_row: self.whole_row,
                time_unit,
            }),
        }
    }
}

/// A file of rows, and how it is read.
pub(super) struct Rows<'a> {
    pub args: &'a RowArgs,
    pub path: &'a Path,
    pub format: Format,
    /// What a row without a time gets.
    pub now: Timestamp,
}

/// What is in a file.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub rows: u64,
    pub topics: BTreeSet<String>,
    /// As many as the rows name, and any.
    partitions: u32,
    bad: Bad,
    /// The largest row: its bytes as a record, and where it stands.
    largest: (usize, u64),
    has_offsets: bool,
}

/// Rows that cannot be records.
#[derive(Debug, Default)]
struct Bad {
    count: u64,
    named: Vec<String>,
}

impl Bad {
    fn add(&mut self, what: String) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(what);
        }
    }

    fn tell(&self) {
        for row in &self.named {
            note!("{row}");
        }
        let left = self.count - self.named.len() as u64;
        if left > 0 {
            note!(
                "and {} more",
                counted(usize::try_from(left).unwrap_or(usize::MAX), "row")
            );
        }
    }
}

/// What was sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    records: u64,
    skipped: u64,
    moved: u64,
}

/// A record on its way: its row, and the offset that it had.
struct OnItsWay {
    place: u64,
    offset: Option<Offset>,
    delivery: Delivery,
}

impl Rows<'_> {
    fn open(&self) -> Result<RowReader> {
        let file = File::open(self.path)?;
        let delimiter = self.args.delimiter.unwrap_or(b',');
        RowReader::open(self.format, file, self.args.columns(), delimiter).map_err(of_file)
    }

    /// Where a row stands, in words.
    fn place(&self, place: u64) -> String {
        match self.format {
            Format::Ndjson | Format::Csv => format!("line {place}"),
            Format::Arrow | Format::Parquet => format!("row {place}"),
        }
    }

    /// Reads all of the file. Errors: it is none, or has bad rows and must not.
    pub fn check(&self) -> Result<Found> {
        let mut reader = self.open()?;
        let mut found = Found {
            partitions: 1,
            ..Found::default()
        };
        let progress = Progress::start(None);
        while let Some((place, row)) = reader.next_row().map_err(of_file)? {
            progress.tell("checked", found.rows);
            match row {
                Ok(row) => found.add(place, &row),
                Err(error) => found
                    .bad
                    .add(format!("{}: {}", self.place(place), reason(error))),
            }
        }
        drop(progress);
        if found.bad.count > 0 && self.args.on_error == OnError::Reject {
            found.bad.tell();
            bail!(Failure::Damaged(format!(
                "{} of {} cannot be records, and nothing was sent; --on-error skip sends the others",
                grouped(found.bad.count),
                counted(usize::try_from(found.bad.count + found.rows)?, "row"),
            )));
        }
        Ok(found)
    }

    /// Sends the rows behind those that are there.
    pub async fn send(
        &self,
        client: &Client,
        topic: &TopicName,
        partitions: u32,
        mut skip: BTreeMap<PartitionId, u64>,
        found: &Found,
    ) -> Result<Sent> {
        let config = ProducerConfig {
            batch_bytes: BATCH_BYTES,
            ..ProducerConfig::default()
        };
        let producer = Producer::new(client, config)?;
        let (bytes, place) = found.largest;
        let bytes_max = producer.record_bytes_max(topic).await?;
        if bytes > bytes_max {
            bail!(Failure::Usage(format!(
                "{}: {bytes} bytes are more than the {bytes_max} that a record of topic {topic} may have (max.message.bytes); \
                 nothing was sent",
                self.place(place)
            )));
        }
        let mut reader = self.open()?;
        let mut sent = Sent::default();
        let mut waiting = VecDeque::new();
        let progress = Progress::start(Some(found.rows));
        let mut index = 0;
        while let Some((place, row)) = reader.next_row().map_err(of_file)? {
            let Ok(row) = row else { continue };
            let partition = partition_of(&row, index, partitions);
            index += 1;
            let there = skip.entry(partition).or_default();
            if *there > 0 {
                *there -= 1;
                sent.skipped += 1;
                continue;
            }
            progress.tell("sent", index);
            let delivery = self.send_row(&producer, topic, partition, &row).await;
            let delivery = delivery.with_context(|| self.place(place))?;
            waiting.push_back(OnItsWay {
                place,
                offset: row.offset,
                delivery,
            });
            while waiting.len() > ON_THEIR_WAY_MAX
                && let Some(first) = waiting.pop_front()
            {
                self.wait(first, &mut sent).await?;
            }
        }
        for first in waiting {
            self.wait(first, &mut sent).await?;
        }
        producer.close().await?;
        if index != found.rows {
            bail!("the file was changed while it was read");
        }
        if let Some((partition, left)) = skip.iter().find(|(_, left)| **left > 0) {
            bail!("partition {partition} holds {left} records more than the file");
        }
        Ok(sent)
    }

    async fn send_row(
        &self,
        producer: &Producer,
        topic: &TopicName,
        partition: PartitionId,
        row: &BodyRow<'_>,
    ) -> Result<Delivery> {
        let headers = row.headers.iter();
        let headers: Vec<HeaderRef<'_>> = headers
            .map(|(name, value)| (&name[..], value.as_deref()))
            .collect();
        let body = RecordBody {
            key: row.key.as_deref(),
            value: row.value.as_deref(),
            headers: &headers,
        };
        let time = row.timestamp.unwrap_or(self.now);
        let sending = producer.send_body(topic, Some(partition), Some(time), body);
        Ok(sending.await?)
    }

    /// Waits until a record is there.
    async fn wait(&self, record: OnItsWay, sent: &mut Sent) -> Result<()> {
        let delivered = record.delivery.wait().await;
        let delivered = delivered.with_context(|| {
            format!(
                "{} was not stored; what was is gone on behind with --resume",
                self.place(record.place)
            )
        })?;
        sent.records += 1;
        sent.moved += u64::from(record.offset.is_some() && delivered.offset != record.offset);
        Ok(())
    }

    /// How it ended, in words or as JSON. Errors: rows were left out.
    pub fn tell(&self, is_json: bool, topic: &str, found: &Found, sent: &Sent) -> Result<()> {
        if is_json {
            let value = json!({
                "topic": topic, "records": sent.records, "skipped_records": sent.skipped,
                "offsets_kept": found.has_offsets.then_some(sent.moved == 0), "bad_rows": found.bad.count,
                "errors": found.bad.named,
            });
            crate::output::print(true, || value, String::new)?;
        } else {
            let records = usize::try_from(sent.records).unwrap_or(usize::MAX);
            note!("topic {topic}: {} written", counted(records, "record"));
            if sent.skipped > 0 {
                note!("{} records were there already", grouped(sent.skipped));
            }
            match (found.has_offsets, sent.moved) {
                (false, _) => {}
                (true, 0) => note!("all offsets are as they were"),
                (true, _) => note!("offsets are others than they were: they are counted anew"),
            }
            found.bad.tell();
        }
        match found.bad.count {
            0 => Ok(()),
            bad => bail!(Failure::Damaged(format!(
                "{} left out: they cannot be records",
                counted(usize::try_from(bad)?, "row")
            ))),
        }
    }
}

impl Found {
    fn add(&mut self, place: u64, row: &BodyRow<'_>) {
        self.rows += 1;
        // One more than can be told apart is enough.
        if let Some(topic) = row.topic.as_deref().filter(|_| self.topics.len() < 2) {
            let topic = String::from_utf8_lossy(topic);
            if !self.topics.contains(topic.as_ref()) {
                self.topics.insert(topic.into_owned());
            }
        }
        if let Some(partition) = row.partition {
            self.partitions = self.partitions.max(partition.get().saturating_add(1));
        }
        self.has_offsets |= row.offset.is_some();
        let length = |cell: Option<&[u8]>| cell.map_or(0, <[u8]>::len);
        let headers = row.headers.iter();
        let headers = headers.map(|(name, value)| name.len() + length(value.as_deref()) + 10);
        let bytes = BatchBuilder::record_bytes_max(
            length(row.key.as_deref()),
            length(row.value.as_deref()),
        ) + headers.sum::<usize>();
        if bytes > self.largest.0 {
            self.largest = (bytes, place);
        }
    }

    /// The topic that they were in.
    pub fn topic(&self) -> Result<String> {
        let mut topics = self.topics.iter();
        match (topics.next(), topics.next()) {
            (Some(topic), None) => Ok(topic.clone()),
            (None, _) => bail!(Failure::Usage(
                "the rows name no topic: --topic says which".to_owned()
            )),
            (Some(_), Some(_)) => bail!(Failure::Usage(
                "the rows are of several topics: --topic says which one they all go to".to_owned()
            )),
        }
    }

    /// How many partitions they need.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "topics": self.topics, "records": self.rows, "partitions": self.partitions, "bad_rows": self.bad.count,
            "errors": self.bad.named,
        })
    }

    /// Names the bad rows.
    pub fn tell_bad(&self) {
        self.bad.tell();
    }
}

impl RowArgs {
    /// How many partitions a topic gets that is made.
    pub fn partitions(&self, found: &Found) -> Result<u32> {
        let needed = found.partitions();
        match self.partitions {
            Some(wanted) if wanted < needed => bail!(Failure::Usage(format!(
                "the rows name {}, which are more than --partitions {wanted}",
                counted(needed as usize, "partition")
            ))),
            wanted => Ok(wanted.unwrap_or(needed)),
        }
    }
}

/// Where a row goes: where it was, or by its key as clients have it, or with its neighbours.
fn partition_of(row: &BodyRow<'_>, index: u64, partitions: u32) -> PartitionId {
    if let Some(partition) = row.partition {
        return partition;
    }
    PartitionId::new(match row.key.as_deref() {
        Some(key) => partition_of_key(key, partitions),
        None => {
            let run = index / RUN_ROWS % u64::from(partitions);
            u32::try_from(run).expect("less than the partitions")
        }
    })
}

/// A file that cannot be read as what it is said to be.
fn of_file(error: BodyError) -> anyhow::Error {
    let advice = match error {
        BodyError::Io(error) => return error.into(),
        BodyError::LeftOut(_) | BodyError::NoColumn(_) => {
            "; --whole-row makes a value of all of a row, --value-column, --key-column and --timestamp-column say which column is what"
        }
        _ => "",
    };
    Failure::Damaged(format!("{error}{advice}")).into()
}

/// What is wrong with a row, without where it stands.
fn reason(error: BodyError) -> String {
    match error {
        BodyError::Line { reason, .. } => reason,
        BodyError::Cell { column, reason, .. } => format!("the {column} {reason}"),
        other => other.to_string(),
    }
}

/// How far it is, on a terminal.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn start(rows: Option<u64>) -> Progress {
        use std::io::IsTerminal as _;
        let bar = || match rows {
            Some(rows) => ProgressBar::new(rows),
            None => ProgressBar::new_spinner(),
        };
        let style = match rows {
            Some(_) => ProgressStyle::with_template("{wide_bar} {percent}% {msg}, {eta} left"),
            None => ProgressStyle::with_template("{spinner} {msg}, {elapsed}"),
        };
        let style = style.ok().filter(|_| std::io::stderr().is_terminal());
        Progress(style.map(|style| bar().with_style(style)))
    }

    fn tell(&self, what: &str, rows: u64) {
        if let Some(bar) = self.0.as_ref().filter(|_| rows.is_multiple_of(TOLD_EVERY)) {
            bar.set_message(format!("{} rows {what}", grouped(rows)));
            bar.set_position(rows);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
