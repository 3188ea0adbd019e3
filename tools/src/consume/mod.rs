//! `consume`: records of topics to standard output, at pipe speed, from any place to any place.
//!
//! A range is turned into offsets per partition before the first record is read; a partition is done when its end is
//! reached, and the command when all are. Without an end it goes on until it is interrupted.

mod choice;
pub(crate) mod places;
mod silence;

use std::collections::HashMap;
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::consumer::{Consumer, ConsumerConfig, Fetched, Reset, Start, after_damage};
use client::group::{GroupConfig, GroupConsumer};
use client::{Client, Error};
use model::batch::{Batch, DecompressLimit};
use model::{Offset, PartitionId, Timestamp, TopicName, TopicPartition};

use crate::failure::Failure;
use crate::format::{Headers, OutputFormat, OutputRecord};
use crate::output::{note, readable};
use crate::signals::StopSignals;
use crate::topic_choice::expand;
use choice::Choice;
use model::time_spec::{Position, Range};
use places::{Span, held, spans};
use silence::Silence;

/// Output is handed to the system in pieces of about this size.
const OUTPUT_BYTES: usize = 256 << 10;
/// How long one poll waits; only how often the signal is looked at depends on it.
const POLL: Duration = Duration::from_secs(1);

/// Shown below the options.
pub(crate) const EXAMPLES: &str = "\
Letters of --format: %t topic, %p partition, %o offset, %d time, %k key, %v value, %h{%k=%v } headers, \
%K %V %T lengths. \\n \\t \\xNN stand for what they do in C. JSON has kcat's keys: \
topic, partition, offset, tstype, ts, headers, key, payload.

Examples:
  alluvium consume readings                          everything, and then what comes, until Ctrl-C
  alluvium consume readings -o end                   only what comes
  alluvium consume readings -o -10m -e               the last ten minutes
  alluvium consume readings -o 2026-03-01T14:03: -n 1    the first record at or after that time
  alluvium consume readings -o 100:200 -p 0 -f '%o %k %v\\n'
  alluvium consume 'plant-*' --key pump-3 -e         all records of one device
  alluvium consume readings -g dashboard             share the topic with a group, and commit

Exit codes: 0 at the end or after Ctrl-C, 1 failed, 2 wrong usage, 3 no such topic or partition, 4 no broker in time.";

/// Consume records and write them to standard output.
#[derive(Debug, clap::Args)]
pub struct ConsumeArgs {
    /// Topics; `*` stands for any text
    #[arg(required = true)]
    pub topics: Vec<String>,
    /// From where to where: an offset, start, end, +3, -3, -10m, @1700000000, a date or RFC 3339 time, START:END, :END, or
    /// kcat's s@TIME and e@TIME. The words json and text choose the format instead, as kcat's users type it
    #[arg(
        short,
        long,
        default_value = "start",
        allow_hyphen_values = true,
        value_name = "RANGE"
    )]
    pub offset: Vec<String>,
    /// Output format: rpk's % letters or `json`; by default the value and a line feed on a terminal, `json` elsewhere
    #[arg(short, long)]
    pub format: Option<String>,
    /// Share the topics with the other members of this group, and commit what was written
    #[arg(short, long, conflicts_with_all = ["partitions", "exit"])]
    pub group: Option<String>,
    /// Only these partitions, separated by commas
    #[arg(short, long, value_delimiter = ',')]
    pub partitions: Vec<u32>,
    /// Only records with this key
    #[arg(long)]
    pub key: Option<String>,
    /// Only records whose key or value contains this text
    #[arg(long, value_name = "TEXT")]
    pub grep: Option<String>,
    /// Go on behind records that are damaged; what is skipped is named on standard error
    #[arg(long)]
    pub skip_damaged: bool,
    /// Stop after this many records
    #[arg(short, long)]
    pub num: Option<u64>,
    /// Stop at the end as it is now, as kcat's -e
    #[arg(short, long)]
    pub exit: bool,
    /// The most that one fetch brings
    #[arg(long, default_value_t = 32 << 20, value_name = "BYTES")]
    pub fetch_max_bytes: u32,
    /// How long the broker may wait for records, in milliseconds
    #[arg(long, default_value_t = 500, value_name = "MS")]
    pub fetch_max_wait_ms: u64,
}

/// How often a group's progress is committed: what was written since is written again after a crash.
const COMMIT: Duration = Duration::from_secs(1);

/// Runs the command. `now` is what relative times count from.
pub async fn run(mut args: ConsumeArgs, client: &Client, now: Timestamp) -> Result<ExitCode> {
    let (range, format) = range_and_format(&args, now)?;
    let mut signals = StopSignals::listen()?;
    args.topics = unless_asked(&mut signals, expand(client, &args.topics)).await?;
    let reading = Reading {
        remaining: args.num,
        choice: Choice::new(args.key.as_deref(), args.grep.as_deref()),
        ..Reading::new(format)
    };
    match &args.group {
        Some(group) => read_group(group, &args, client, range, reading, &mut signals).await?,
        None => read_partitions(&args, client, range, reading, &mut signals).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What comes before the reading, which may wait for a broker that cannot be reached: being asked to stop is heard there too.
async fn unless_asked<T>(
    signals: &mut StopSignals,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        done = work => done,
        () = signals.asked() => Err(anyhow::anyhow!("interrupted before anything was read")),
    }
}

async fn read_partitions(
    args: &ConsumeArgs,
    client: &Client,
    range: Range,
    mut reading: Reading,
    signals: &mut StopSignals,
) -> Result<()> {
    let look_up = async {
        let partitions = partitions(client, args).await?;
        spans(client, &partitions, range).await
    };
    let found = unless_asked(signals, look_up).await?;
    let mut spans: HashMap<TopicPartition, Span> = found
        .iter()
        .map(|(partition, (_, span))| (partition.clone(), *span))
        .collect();
    spans.retain(|_, span| span.end.is_none_or(|end| span.start < end));
    let mut consumer = Consumer::new(client, config(args));
    for (partition, span) in &spans {
        consumer.assign(partition.clone(), Start::Offset(span.start));
    }
    reading.spans = Some(spans);
    let mut silence = Silence::new(client, &args.topics, range.end.is_some());
    let mut is_stopped = false;
    while !reading.is_done() {
        let fetched = tokio::select! {
            fetched = silence.over(consumer.poll(POLL)) => fetched,
            () = signals.asked() => {
                is_stopped = true;
                break;
            }
        };
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                let (partition, next) = skipped(error, client, args).await?;
                if reading.skip_to(&partition, next) {
                    consumer.unassign(&partition);
                } else {
                    consumer.assign(partition, Start::Offset(next));
                }
                continue;
            }
        };
        for fetched in fetched {
            if reading.take(&fetched)? {
                consumer.unassign(&fetched.partition);
            }
        }
        reading.flush(1)?;
    }
    if reading.written == 0 && !is_stopped && !reading.is_broken {
        note!("note: {}: {}", reading.why_nothing(), held(&found));
    }
    Ok(())
}

/// Where to go on behind damage, if that is wanted; else the error, with where that would be.
async fn skipped(
    error: anyhow::Error,
    client: &Client,
    args: &ConsumeArgs,
) -> Result<(TopicPartition, Offset)> {
    let damage = error.downcast_ref::<Error>();
    let Some(Error::Damaged {
        partition, offset, ..
    }) = damage
    else {
        return Err(error);
    };
    let (partition, offset) = (partition.clone(), *offset);
    let next = after_damage(client, &partition, offset).await;
    let Ok(next) = next else {
        return Err(error);
    };
    let range = format!("{partition}: offsets {offset}..{next} cannot be read");
    if args.skip_damaged {
        note!("note: {range}: skipped");
        return Ok((partition, next));
    }
    let number = partition.partition;
    let way = match args.group {
        Some(_) => "--skip-damaged goes on behind it".to_owned(),
        None => format!("`-o {next}: -p {number}` or --skip-damaged goes on behind it"),
    };
    Err(error.context(format!("{range}; {way}")))
}

/// What a poll yielded is written before the next poll, which may commit it.
async fn read_group(
    group: &str,
    args: &ConsumeArgs,
    client: &Client,
    range: Range,
    mut reading: Reading,
    signals: &mut StopSignals,
) -> Result<()> {
    let reset = match range {
        Range {
            start: Position::Earliest,
            end: None,
        } => Reset::Earliest,
        Range {
            start: Position::Latest,
            end: None,
        } => Reset::Latest,
        _ => bail!(Failure::Usage(
            "with --group, --offset can only be start or end: where a group without a commit begins"
                .to_owned()
        )),
    };
    let mut config = GroupConfig {
        consumer: config(args),
        auto_commit: Some(COMMIT),
        ..GroupConfig::new(group, args.topics.iter())
    };
    config.consumer.reset = reset;
    let mut consumer = GroupConsumer::new(client, config);
    let mut begun = HashMap::new();
    let mut silence = Silence::new(client, &args.topics, false);
    while !reading.is_done() {
        let fetched = tokio::select! {
            fetched = silence.over(consumer.poll(POLL)) => fetched,
            () = signals.asked() => break,
        };
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                let (partition, next) = skipped(error, client, args).await?;
                consumer.seek(&partition, Start::Offset(next));
                continue;
            }
        };
        begun = fetched
            .iter()
            .map(|fetched| (fetched.partition.clone(), fetched.from))
            .collect();
        reading.reached = begun.clone();
        for fetched in &fetched {
            reading.take(fetched)?;
        }
        reading.flush(1)?;
    }
    // What was not written goes back to the group: closing commits positions.
    let reached = if reading.is_broken {
        begun
    } else {
        reading.reached
    };
    for (partition, offset) in &reached {
        consumer.seek(partition, Start::Offset(*offset));
    }
    consumer.close().await?;
    if args.num == Some(0) {
        note!("note: -n 0: nothing was read");
    }
    Ok(())
}

fn config(args: &ConsumeArgs) -> ConsumerConfig {
    ConsumerConfig {
        fetch_wait_max: Duration::from_millis(args.fetch_max_wait_ms),
        fetch_bytes_max: args.fetch_max_bytes,
        // What retention takes from under the reader is told, not skipped in silence.
        reset: Reset::Fail,
        ..ConsumerConfig::default()
    }
}

/// Range and format, of which `-o` may say either.
fn range_and_format(args: &ConsumeArgs, now: Timestamp) -> Result<(Range, OutputFormat)> {
    let mut range = Range::ALL;
    let mut layout = args.format.as_deref();
    for text in &args.offset {
        match text.as_str() {
            "json" => layout = layout.or(Some("json")),
            "text" => layout = layout.or(Some("%v\\n")),
            text => {
                let told = Range::parse(text, now).context("--offset")?;
                // As in kcat, where a start and an end are given one by one.
                range = match text.starts_with("e@") {
                    true => Range {
                        end: told.end,
                        ..range
                    },
                    false => Range {
                        end: told.end.or(range.end),
                        ..told
                    },
                };
            }
        }
    }
    if args.exit && range.end.is_none() {
        range.end = Some(Position::Latest);
    }
    let by_default = if std::io::stdout().is_terminal() {
        "%v\\n"
    } else {
        "json"
    };
    Ok((
        range,
        OutputFormat::parse(layout.unwrap_or(by_default)).context("--format")?,
    ))
}

async fn partitions(client: &Client, args: &ConsumeArgs) -> Result<Vec<TopicPartition>> {
    let mut all = Vec::new();
    for topic in &args.topics {
        let name = TopicName::parse(topic)?;
        let known = client.topic(&name, false).await?;
        let count = known.partitions.len();
        let wanted: Vec<u32> = match args.partitions.is_empty() {
            true => (0..u32::try_from(count)?).collect(),
            false => args.partitions.clone(),
        };
        for number in wanted {
            if number as usize >= count {
                let known = crate::output::counted(count, "partition");
                bail!(Failure::NotFound(format!(
                    "topic {name} has no partition {number}: it has {known}, from 0 on"
                )));
            }
            all.push(TopicPartition::new(name.clone(), PartitionId::new(number)));
        }
    }
    Ok(all)
}

/// What is still to be read, and what was read but not yet written.
struct Reading {
    /// None for a group, whose members read what they are given.
    spans: Option<HashMap<TopicPartition, Span>>,
    format: OutputFormat,
    remaining: Option<u64>,
    choice: Choice,
    /// Records that were formatted.
    written: u64,
    /// Control characters are made visible, so that a record cannot rule the terminal.
    is_terminal: bool,
    /// The offset after the last record that was formatted.
    reached: HashMap<TopicPartition, Offset>,
    out: Vec<u8>,
    /// Nobody reads what is written any more, as after `| head`: what was written last may not have been read.
    is_broken: bool,
}

impl Reading {
    fn new(format: OutputFormat) -> Reading {
        Reading {
            spans: None,
            format,
            remaining: None,
            choice: Choice::default(),
            written: 0,
            is_terminal: std::io::stdout().is_terminal(),
            reached: HashMap::new(),
            out: Vec::new(),
            is_broken: false,
        }
    }

    fn is_done(&self) -> bool {
        self.is_broken
            || self.remaining == Some(0)
            || self.spans.as_ref().is_some_and(HashMap::is_empty)
    }

    /// Goes on at `next`; returns whether the partition's end is reached.
    fn skip_to(&mut self, partition: &TopicPartition, next: Offset) -> bool {
        let Some(spans) = &mut self.spans else {
            return false;
        };
        let is_done = spans
            .get(partition)
            .is_none_or(|span| span.end.is_some_and(|end| next >= end));
        if is_done {
            spans.remove(partition);
        }
        is_done
    }

    /// Why no record was written, where the command ended by itself.
    fn why_nothing(&self) -> &'static str {
        match self.remaining {
            Some(0) => "-n 0: nothing was read",
            _ if self.choice.is_any() => "no record is in that range",
            _ => "no such record is in that range",
        }
    }

    /// Formats what came; returns whether the partition's end is reached.
    fn take(&mut self, fetched: &Fetched) -> Result<bool> {
        let span = match &self.spans {
            None => Span {
                start: fetched.from,
                end: None,
            },
            Some(spans) => match spans.get(&fetched.partition) {
                Some(span) => *span,
                None => return Ok(true),
            },
        };
        for batch in &fetched.batches {
            if self.is_broken || self.remaining == Some(0) {
                return Ok(false);
            }
            if let Err(error) = self.take_batch(fetched, batch, span) {
                // What lies before it is good.
                self.flush(1)?;
                let place = format!("{} at offset {}", fetched.partition, batch.header().base());
                return Err(error.context(place));
            }
            self.flush(OUTPUT_BYTES)?;
        }
        let is_done = span.end.is_some_and(|end| fetched.end() >= end);
        if let Some(spans) = self.spans.as_mut().filter(|_| is_done) {
            spans.remove(&fetched.partition);
        }
        Ok(is_done)
    }

    fn take_batch(&mut self, fetched: &Fetched, batch: &Batch, span: Span) -> Result<()> {
        let header = batch.header();
        if header.is_control() {
            self.reached
                .insert(fetched.partition.clone(), header.next_offset());
            return Ok(());
        }
        let from = fetched.from.max(span.start);
        let about = OutputRecord {
            leader_epoch: header.leader_epoch,
            attributes: header.attributes,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            log_start_offset: fetched.log_start.map_or(-1, Offset::to_wire),
            last_stable_offset: fetched.high_watermark.to_wire(),
            high_watermark: fetched.high_watermark.to_wire(),
            ..OutputRecord::new(
                &fetched.partition.topic,
                fetched.partition.partition.to_wire(),
                0,
            )
        };
        let mut next = header.next_offset();
        let mut records = batch.records(DecompressLimit::default())?;
        while let Some(record) = records.next_ref() {
            let record = record?;
            if record.offset < from {
                continue;
            }
            if span.end.is_some_and(|end| record.offset >= end) || self.remaining == Some(0) {
                next = record.offset;
                break;
            }
            if !self.choice.takes(record.key, record.value) {
                continue;
            }
            let output = OutputRecord {
                offset: record.offset.to_wire(),
                timestamp: record.timestamp.millis(),
                key: record.key,
                value: record.value,
                headers: Headers::Batch(record.headers()),
                ..about
            };
            self.format.write(&output, &mut self.out);
            self.written += 1;
            if let Some(remaining) = &mut self.remaining {
                *remaining -= 1;
            }
        }
        self.reached.insert(fetched.partition.clone(), next);
        Ok(())
    }

    /// Writes what there is, if it is at least so much.
    fn flush(&mut self, bytes_min: usize) -> Result<()> {
        if self.out.len() < bytes_min {
            return Ok(());
        }
        if self.is_terminal {
            self.out = readable(&self.out);
        }
        let mut stdout = std::io::stdout().lock();
        let result = stdout.write_all(&self.out).and_then(|()| stdout.flush());
        self.out.clear();
        match result {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.is_broken = true,
            result => result.context("standard output")?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::batch::{BatchBuilder, Codec};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn fetched(from: u64) -> Fetched {
        let mut builder = BatchBuilder::new(Codec::Lz4);
        builder.base_offset(Offset::new(10));
        for number in 0..10 {
            builder
                .push(NOW, None, Some(format!("r{number}").as_bytes()), &[])
                .unwrap();
        }
        Fetched {
            partition: TopicPartition::new(TopicName::parse("sea").unwrap(), PartitionId::new(0)),
            from: Offset::new(from),
            high_watermark: Offset::new(20),
            log_start: None,
            batches: vec![Batch::parse(builder.build().unwrap()).unwrap()],
        }
    }

    fn read(start: u64, end: Option<u64>, num: Option<u64>) -> (String, bool, bool) {
        let fetched = fetched(start);
        let format = OutputFormat::parse("%o=%v ").unwrap();
        let span = Span {
            start: Offset::new(start),
            end: end.map(Offset::new),
        };
        let spans = HashMap::from([(fetched.partition.clone(), span)]);
        let mut reading = Reading {
            spans: Some(spans),
            remaining: num,
            ..Reading::new(format)
        };
        let ended = reading.take(&fetched).unwrap();
        (
            String::from_utf8(reading.out.clone()).unwrap(),
            ended,
            reading.is_done(),
        )
    }

    #[test]
    fn records_before_the_start_and_from_the_end_on_are_left_out() {
        assert_eq!(
            read(17, None, None),
            ("17=r7 18=r8 19=r9 ".to_owned(), false, false)
        );
        assert_eq!(
            read(12, Some(14), None),
            ("12=r2 13=r3 ".to_owned(), true, true)
        );
        assert_eq!(
            read(18, Some(30), None),
            ("18=r8 19=r9 ".to_owned(), false, false)
        );
        assert_eq!(
            read(10, Some(20), Some(2)),
            ("10=r0 11=r1 ".to_owned(), true, true)
        );
        assert_eq!(read(10, None, Some(1)), ("10=r0 ".to_owned(), false, true));
    }
}
