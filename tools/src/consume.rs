//! `consume`: records of topics to standard output, at pipe speed, from any place to any place.
//!
//! A range is turned into offsets per partition before the first record is read; a partition is done when its end is
//! reached, and the command when all are. Without an end it goes on until it is interrupted.

use std::collections::HashMap;
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use client::admin::{Admin, At};
use client::consumer::{Consumer, ConsumerConfig, Fetched, Reset, Start};
use client::group::{GroupConfig, GroupConsumer};
use client::{Client, Error, ErrorCode};
use model::batch::{Batch, DecompressLimit};
use model::{Offset, PartitionId, Timestamp, TopicName, TopicPartition};

use crate::failure::Failure;
use crate::format::{Headers, OutputFormat, OutputRecord};
use crate::signals::StopSignals;
use crate::time_spec::{Position, Range};

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
  alluvium consume readings -g dashboard             share the topic with a group, and commit

Exit codes: 0 at the end or after Ctrl-C, 1 failed, 2 wrong usage, 3 no such topic or partition, 4 no broker in time.";

/// Consume records and write them to standard output.
#[derive(Debug, clap::Args)]
pub struct ConsumeArgs {
    /// Topics
    #[arg(required = true)]
    pub topics: Vec<String>,
    /// From where to where: an offset, start, end, +3, -3, -10m, a date or RFC 3339 time, START:END, :END. The words
    /// json and text choose the format instead, as kcat's users type it
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

/// After how long a silence it is looked whether there still is something to wait for.
const SILENCE: Duration = Duration::from_secs(3);
/// How long that may take.
const LOOK: Duration = Duration::from_secs(5);
/// How often a group's progress is committed: what was written since is written again after a crash.
const COMMIT: Duration = Duration::from_secs(1);

/// Offsets of one partition that are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: Offset,
    /// Exclusive; without it, on and on.
    end: Option<Offset>,
}

/// What a partition's places are found from.
#[derive(Clone, Copy, Debug, Default)]
struct Places {
    earliest: Offset,
    latest: Offset,
    /// The first record at or after the range's start; none if there is no such record.
    start_time: Option<Offset>,
    /// The same for the range's end.
    end_time: Option<Offset>,
}

/// Runs the command. `now` is what relative times count from.
pub async fn run(args: ConsumeArgs, client: &Client, now: Timestamp) -> Result<ExitCode> {
    let (range, format) = what(&args, now)?;
    let reading = Reading {
        remaining: args.num,
        ..Reading::new(format)
    };
    match &args.group {
        Some(group) => read_group(group, &args, client, range, reading).await?,
        None => read_partitions(&args, client, range, reading).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn read_partitions(
    args: &ConsumeArgs,
    client: &Client,
    range: Range,
    mut reading: Reading,
) -> Result<()> {
    let partitions = partitions(client, args).await?;
    let mut spans = spans(client, &partitions, range).await?;
    spans.retain(|_, span| span.end.is_none_or(|end| span.start < end));
    let mut consumer = Consumer::new(client, config(args));
    for (partition, span) in &spans {
        consumer.assign(partition.clone(), Start::Offset(span.start));
    }
    reading.spans = Some(spans);
    let mut signals = StopSignals::listen()?;
    let mut silence = Silence::new(client, args, range.end.is_some());
    while !reading.is_done() {
        let fetched = tokio::select! {
            fetched = silence.over(consumer.poll(POLL)) => fetched?,
            () = signals.asked() => break,
        };
        for fetched in fetched {
            if reading.take(&fetched)? {
                consumer.unassign(&fetched.partition);
            }
        }
        reading.flush(1)?;
    }
    Ok(())
}

/// What a poll yielded is written before the next poll, which may commit it.
async fn read_group(
    group: &str,
    args: &ConsumeArgs,
    client: &Client,
    range: Range,
    mut reading: Reading,
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
    let mut signals = StopSignals::listen()?;
    let mut silence = Silence::new(client, args, false);
    while !reading.is_done() {
        let fetched = tokio::select! {
            fetched = silence.over(consumer.poll(POLL)) => fetched?,
            () = signals.asked() => break,
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
    Ok(consumer.close().await?)
}

/// Polls wait out whatever may pass. This looks, when nothing comes for long, whether it can: a topic may be deleted, and
/// a reader that is to come to an end must not wait for a broker for ever.
struct Silence<'a> {
    client: &'a Client,
    topics: &'a [String],
    has_end: bool,
    since: Instant,
    unreachable_since: Option<Instant>,
}

impl<'a> Silence<'a> {
    fn new(client: &'a Client, args: &'a ConsumeArgs, has_end: bool) -> Silence<'a> {
        Silence {
            client,
            topics: &args.topics,
            has_end,
            since: Instant::now(),
            unreachable_since: None,
        }
    }

    /// What the poll yields. Dropping the future loses nothing if that is so of the poll.
    async fn over<T>(
        &mut self,
        poll: impl Future<Output = client::Result<Vec<T>>>,
    ) -> Result<Vec<T>> {
        let yielded = poll.await?;
        if !yielded.is_empty() {
            self.since = Instant::now();
            self.answered();
        } else if self.since.elapsed() >= SILENCE {
            self.look().await?;
            self.since = Instant::now();
        }
        Ok(yielded)
    }

    async fn look(&mut self) -> Result<()> {
        for topic in self.topics {
            let look = self.client.topic_anew(topic, false);
            match tokio::time::timeout(LOOK, look).await {
                Ok(Ok(_)) => self.answered(),
                Ok(Err(error)) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                    bail!(Failure::NotFound(format!("topic {topic} was deleted")));
                }
                Ok(Err(_)) | Err(_) => return self.unreachable(),
            }
        }
        Ok(())
    }

    fn answered(&mut self) {
        if self.unreachable_since.take().is_some() {
            crate::output::note!("note: the broker answers again");
        }
    }

    fn unreachable(&mut self) -> Result<()> {
        let Some(since) = self.unreachable_since else {
            crate::output::note!("note: no broker answers: going on when one does");
            self.unreachable_since = Some(Instant::now());
            return Ok(());
        };
        let after = self.client.config().retry_timeout;
        if self.has_end && since.elapsed() > after {
            let what = "reading".to_owned();
            bail!(Error::TimedOut { what, after });
        }
        Ok(())
    }
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
fn what(args: &ConsumeArgs, now: Timestamp) -> Result<(Range, OutputFormat)> {
    let mut range = Range::ALL;
    let mut layout = args.format.as_deref();
    for text in &args.offset {
        match text.as_str() {
            "json" => layout = layout.or(Some("json")),
            "text" => layout = layout.or(Some("%v\\n")),
            text => range = Range::parse(text, now).context("--offset")?,
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

/// Turns a range into offsets of each partition, asking for no more than it needs.
async fn spans(
    client: &Client,
    partitions: &[TopicPartition],
    range: Range,
) -> Result<HashMap<TopicPartition, Span>> {
    let admin = Admin::new(client);
    let ask = async |at: At| {
        let wanted: Vec<(TopicPartition, At)> = partitions
            .iter()
            .map(|partition| (partition.clone(), at))
            .collect();
        admin.list_offsets(&wanted).await
    };
    let earliest = ask(At::Earliest).await?;
    let latest = ask(At::Latest).await?;
    let start_time = match range.start {
        Position::At(time) => ask(At::Time(time)).await?,
        _ => HashMap::new(),
    };
    let end_time = match range.end {
        Some(Position::At(time)) => ask(At::Time(time)).await?,
        _ => HashMap::new(),
    };
    let spans = partitions.iter().map(|partition| {
        let offset = |places: &HashMap<TopicPartition, client::admin::Place>| {
            places.get(partition).and_then(|p| p.offset)
        };
        let places = Places {
            earliest: offset(&earliest).unwrap_or_default(),
            latest: offset(&latest).unwrap_or_default(),
            start_time: offset(&start_time),
            end_time: offset(&end_time),
        };
        (partition.clone(), places.span(range))
    });
    Ok(spans.collect())
}

impl Places {
    /// A start that is no longer there, or not yet, is the nearest that is; an end is one that can be reached.
    fn span(&self, range: Range) -> Span {
        let start = self.offset(range.start, self.start_time);
        let start = match range.start {
            // Waiting for an offset that is yet to come is what a reader of an open range may want.
            Position::Offset(_) if range.end.is_none() => start.max(self.earliest),
            _ => start.clamp(self.earliest, self.latest.max(self.earliest)),
        };
        let end = range.end.map(|end| match end {
            Position::Offset(offset) => offset.min(self.latest),
            end => self.offset(end, self.end_time),
        });
        Span { start, end }
    }

    fn offset(&self, position: Position, time: Option<Offset>) -> Offset {
        match position {
            Position::Earliest => self.earliest,
            Position::Latest => self.latest,
            Position::Offset(offset) => offset,
            Position::AfterEarliest(count) => self.earliest.plus(count),
            Position::BeforeLatest(count) => Offset::new(self.latest.get().saturating_sub(count)),
            Position::At(_) => time.unwrap_or(self.latest),
        }
    }
}

/// What is still to be read, and what was read but not yet written.
struct Reading {
    /// None for a group, whose members read what they are given.
    spans: Option<HashMap<TopicPartition, Span>>,
    format: OutputFormat,
    remaining: Option<u64>,
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
            self.take_batch(fetched, batch, span).with_context(|| {
                format!("{} at offset {}", fetched.partition, batch.header().base())
            })?;
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
            let output = OutputRecord {
                offset: record.offset.to_wire(),
                timestamp: record.timestamp.millis(),
                key: record.key,
                value: record.value,
                headers: Headers::Batch(record.headers()),
                ..about
            };
            self.format.write(&output, &mut self.out);
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

    fn span(text: &str) -> (u64, Option<u64>) {
        let places = Places {
            earliest: Offset::new(100),
            latest: Offset::new(200),
            start_time: Some(Offset::new(150)),
            end_time: None,
        };
        let span = places.span(Range::parse(text, NOW).unwrap());
        (span.start.get(), span.end.map(Offset::get))
    }

    #[test]
    fn ranges_become_offsets_within_what_is_there() {
        for (text, expected) in [
            ("start", (100, None)),
            ("end", (200, None)),
            ("50", (100, None)),
            ("120", (120, None)),
            ("250", (250, None)),
            ("+5", (105, None)),
            ("-5", (195, None)),
            ("-500", (100, None)),
            (":end", (100, Some(200))),
            ("120:130", (120, Some(130))),
            ("120:500", (120, Some(200))),
            ("250:300", (200, Some(200))),
            ("-10m", (150, None)),
            ("-10m:-5m", (150, Some(200))),
        ] {
            assert_eq!(span(text), expected, "{text}");
        }
    }

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
