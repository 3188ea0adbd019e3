//! `produce`: records from standard input or a file to topics, at pipe speed.
//!
//! The input is read on a thread of its own, which also pushes into the producer's buffers: a full buffer makes it wait, and
//! nothing else holds the pipe back. Nothing is reported as produced before the broker has acknowledged it.

use std::fs::File;
use std::io::{IsTerminal as _, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use client::{Acks, Client, Delivery, Error, Producer, ProducerConfig};
use indicatif::{ProgressBar, ProgressStyle};
use model::batch::{Codec, HeaderRef, RecordBody};
use model::{PartitionId, Timestamp, TopicName};
use tokio::sync::{mpsc, oneshot};

use crate::failure::Failure;
use crate::format::{Headers, InputFormat, InputReader, InputRecord, OutputFormat, OutputRecord};
use crate::output::{counted, say, size};
use crate::signals::StopSignals;
use crate::time_spec::parse_time;

/// Reports that may wait to be printed; beyond it reading waits.
const REPORTS_MAX: usize = 64 << 10;

/// Shown below the options.
pub(crate) const EXAMPLES: &str = "\
Letters of --format: %t topic, %k key, %v value, %p partition, %d time (milliseconds), each up to the text that follows it; \
%H{2}%h{%k=%v } two headers; %K %V %T sizes. \\n \\t \\xNN stand for what they do in C.

Examples:
  seq 1000 | alluvium produce readings                     a record for each line
  alluvium produce readings -f '%k %v\\n' --file in.txt    the key, a space, the value
  alluvium produce -f '%t,%k,%v\\n' < in.csv               topics come from the input
  alluvium consume a -e --json | alluvium produce b -f json    copy keys, values, times and headers to a topic
  alluvium produce -f json < lines.json                    back to the topics and partitions that the lines name

Exit codes: 0 all acknowledged, 1 not all, 2 wrong usage, 3 no such topic, 4 no broker in time.";

/// Produce records, one for each match of the input format.
#[derive(Debug, clap::Args)]
pub struct ProduceArgs {
    /// Topic for all records; without it the format names one with %t, or JSON lines do
    pub topic: Option<String>,
    /// Input format: rpk's % letters, or `json` for lines as `consume -f json` writes them
    #[arg(short, long, default_value = "%v\\n")]
    pub format: String,
    /// Write this for each record that was acknowledged, in rpk's % letters or `json`
    #[arg(short = 'o', long, value_name = "FORMAT")]
    pub output_format: Option<String>,
    /// Read this file instead of standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Key for records whose format has no %k
    #[arg(short, long)]
    pub key: Option<String>,
    /// Header for every record, before those of the input; may be repeated
    #[arg(short = 'H', long = "header", value_name = "KEY:VALUE", value_parser = parse_header)]
    pub headers: Vec<(String, String)>,
    /// Partition for records whose format has no %p, and for JSON lines; chosen by key otherwise
    #[arg(short, long)]
    pub partition: Option<u32>,
    /// Time for records whose format has no %d: RFC 3339, a date, -10m, or seconds since 1970
    #[arg(short, long, value_name = "TIME")]
    pub timestamp: Option<String>,
    /// Compression: none, gzip, snappy, lz4, zstd
    #[arg(short = 'z', long, default_value = "none")]
    pub compression: Codec,
    /// Level of the compression
    #[arg(long)]
    pub compression_level: Option<i32>,
    /// Which acknowledgement to wait for: all, 1 or 0
    #[arg(long, default_value = "all", value_parser = parse_acks)]
    pub acks: Acks,
    /// Send batches without sequence numbers: a retry may then double records
    #[arg(long)]
    pub no_idempotence: bool,
    /// Make empty values tombstones
    #[arg(short = 'Z', long)]
    pub tombstone: bool,
    /// How long a batch waits for more records, in milliseconds
    #[arg(long, default_value_t = 5, value_name = "MS")]
    pub linger_ms: u64,
    /// How large a batch becomes before compression
    #[arg(long, default_value_t = 256 << 10, value_name = "BYTES")]
    pub batch_bytes: usize,
    /// How long a record may take in all, in seconds
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub delivery_timeout: u64,
    /// Don't let the broker create topics that are missing
    #[arg(long)]
    pub no_create: bool,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let split = text.split_once([':', '=']).ok_or("a header is KEY:VALUE")?;
    Ok((split.0.to_owned(), split.1.to_owned()))
}

fn parse_acks(text: &str) -> Result<Acks, String> {
    match text {
        "all" | "-1" => Ok(Acks::All),
        "1" | "leader" => Ok(Acks::Leader),
        "0" | "none" => Ok(Acks::None),
        _ => Err("must be all, 1 or 0".to_owned()),
    }
}

/// What was produced.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Produced {
    /// Records that were acknowledged.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// What every record gets that does not bring its own.
struct Fallback {
    topic: Option<TopicName>,
    partition: Option<PartitionId>,
    timestamp: Option<Timestamp>,
    key: Option<Vec<u8>>,
    headers: Vec<(String, String)>,
    tombstone: bool,
    /// Whether a record's own partition counts. That of a JSON line belongs to the topic that the line names.
    own_partition: bool,
}

/// A record on its way that will be reported.
struct Report {
    delivery: Delivery,
    timestamp: Option<Timestamp>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Runs the command. `now` is what relative times count from. If the input fails or the user ends it, what was read until
/// then is acknowledged, and standard error says how much that is.
pub async fn run(args: ProduceArgs, client: &Client, now: Timestamp) -> Result<Produced> {
    let started = Instant::now();
    let format = InputFormat::parse(&args.format).context("--format")?;
    let output = args
        .output_format
        .as_deref()
        .map(OutputFormat::parse)
        .transpose()
        .context("--output-format")?;
    let fallback = fallback(&args, now)?;
    let input: Box<dyn Read + Send> = match &args.file {
        Some(path) => Box::new(File::open(path).with_context(|| path.display().to_string())?),
        None => Box::new(std::io::stdin()),
    };
    check_partition(&fallback, client, !args.no_create).await?;
    let producer = Producer::new(client, config(&args))?;
    let (reports, reported) = mpsc::channel(REPORTS_MAX);
    let reports = output.is_some().then_some(reports);
    let printing = output.map(|output| tokio::spawn(print_reports(output, reported)));

    let mut signals = StopSignals::listen()?;
    let (done, finished) = oneshot::channel();
    let sent = Arc::new(AtomicU64::new(0));
    let is_typed = args.file.is_none() && std::io::stdin().is_terminal();
    let progress = Progress::start(!is_typed && reports.is_none(), sent.clone());
    let pump = Pump {
        reader: InputReader::new(input, format),
        fallback,
        producer: producer.clone(),
        reports,
        sent: sent.clone(),
    };
    let runtime = tokio::runtime::Handle::current();
    // A thread that the runtime does not wait for at its end: it may sit in a read of the terminal.
    std::thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || {
            let _ = done.send(runtime.block_on(pump.run()));
        })?;
    let read = tokio::select! {
        read = finished => read.unwrap_or_else(|_| Err(anyhow!("reading the input ended early"))),
        () = signals.asked() => Err(anyhow!("interrupted")),
    };
    let flushed = producer
        .close()
        .await
        .context("not every record was acknowledged");
    let printed = match printing {
        // The pump's end closed the channel, unless it was interrupted.
        Some(printing) if read.is_ok() => printing.await?,
        _ => Ok(()),
    };
    progress.end();
    // A producer that failed refuses further records: then its own reason is the one to tell.
    let is_consequence = read
        .as_ref()
        .is_err_and(|error| matches!(error.root_cause().downcast_ref(), Some(Error::Closed)));
    if is_consequence {
        flushed?;
        bail!("the producer was closed");
    }
    flushed?;
    if read.is_err() {
        let sent = usize::try_from(sent.load(Relaxed))?;
        eprintln!("note: {} acknowledged before that", counted(sent, "record"));
    }
    let (records, bytes) = read?;
    printed?;
    Ok(Produced {
        records,
        bytes,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Says on standard output, as JSON with `records`, `bytes` and `seconds`, or on a terminal, for people, what was produced.
pub fn tell(produced: &Produced, as_json: bool) -> Result<ExitCode> {
    if as_json {
        say!("{}", serde_json::to_string(produced)?);
    } else if std::io::stderr().is_terminal() {
        let rate = produced.records as f64 / produced.seconds.max(1e-9);
        eprintln!(
            "{} with {} acknowledged in {:.1} s ({rate:.0} a second)",
            counted(usize::try_from(produced.records)?, "record"),
            size(produced.bytes),
            produced.seconds
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn config(args: &ProduceArgs) -> ProducerConfig {
    let defaults = ProducerConfig::default();
    ProducerConfig {
        acks: args.acks,
        idempotent: args.acks == Acks::All && !args.no_idempotence,
        compression: model::batch::Compression {
            codec: args.compression,
            level: args.compression_level,
        },
        linger: Duration::from_millis(args.linger_ms),
        batch_bytes: args.batch_bytes,
        record_bytes_max: defaults.record_bytes_max.max(args.batch_bytes),
        delivery_timeout: Duration::from_secs(args.delivery_timeout),
        create_topics: !args.no_create,
        ..defaults
    }
}

/// Tells of a partition that is not there before anything is read.
async fn check_partition(fallback: &Fallback, client: &Client, create: bool) -> Result<()> {
    let (Some(topic), Some(partition)) = (&fallback.topic, fallback.partition) else {
        return Ok(());
    };
    let known = client.topic(topic, create).await?;
    if known.partition(partition.to_wire()).is_none() {
        let count = counted(known.partitions.len(), "partition");
        bail!(Failure::NotFound(format!(
            "topic {topic} has no partition {}: it has {count}, from 0 on",
            partition.get()
        )));
    }
    Ok(())
}

fn fallback(args: &ProduceArgs, now: Timestamp) -> Result<Fallback> {
    Ok(Fallback {
        topic: args.topic.as_deref().map(TopicName::parse).transpose()?,
        partition: args.partition.map(PartitionId::new),
        timestamp: args
            .timestamp
            .as_deref()
            .map(|text| parse_time(text, now))
            .transpose()
            .context("--timestamp")?,
        key: args.key.clone().map(String::into_bytes),
        headers: args.headers.clone(),
        tombstone: args.tombstone,
        own_partition: args.format != "json" || (args.topic.is_none() && args.partition.is_none()),
    })
}

/// Tells how far it is while it goes on, on a terminal only.
struct Progress(Option<(ProgressBar, tokio::task::JoinHandle<()>)>);

impl Progress {
    /// How often it is told.
    const EVERY: Duration = Duration::from_millis(200);

    /// Not `wanted` where somebody types the records, or reads their reports.
    fn start(wanted: bool, sent: Arc<AtomicU64>) -> Progress {
        if !wanted || !std::io::stderr().is_terminal() {
            return Progress(None);
        }
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
        let told = bar.clone();
        let telling = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Progress::EVERY);
            let begun = Instant::now();
            loop {
                ticks.tick().await;
                let sent = sent.load(Relaxed);
                let rate = sent as f64 / begun.elapsed().as_secs_f64().max(1e-3);
                told.set_message(format!("{sent} records sent, {rate:.0} a second"));
                told.tick();
            }
        });
        Progress(Some((bar, telling)))
    }

    fn end(self) {
        if let Some((bar, telling)) = self.0 {
            telling.abort();
            bar.finish_and_clear();
        }
    }
}

/// Reads records and pushes them to the producer.
struct Pump<R> {
    reader: InputReader<R>,
    fallback: Fallback,
    producer: Producer,
    reports: Option<mpsc::Sender<Report>>,
    /// Records that were handed to the producer.
    sent: Arc<AtomicU64>,
}

impl<R: Read> Pump<R> {
    /// Returns how many records and bytes were handed to the producer.
    async fn run(mut self) -> Result<(u64, u64)> {
        let (mut records, mut bytes) = (0, 0);
        let mut topic = self.fallback.topic.clone();
        while let Some(record) = self.reader.next_record()? {
            let name = target(&mut topic, &self.fallback, record.topic)?;
            let record = with_fallback(record, &self.fallback);
            bytes +=
                (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
            records += 1;
            let body = RecordBody {
                key: record.key,
                value: record.value,
                headers: &record.headers,
            };
            let partition = record
                .partition
                .filter(|_| self.fallback.own_partition)
                .and_then(PartitionId::from_wire)
                .or(self.fallback.partition);
            let timestamp = record
                .timestamp
                .map(Timestamp::from_millis)
                .or(self.fallback.timestamp);
            // A report tells the time that the record got, so it is chosen here.
            let timestamp = timestamp.or_else(|| self.reports.as_ref().map(|_| clock()));
            let delivery = self
                .producer
                .send_body(name, partition, timestamp, body)
                .await
                .with_context(|| format!("record {records} of the input"))?;
            self.sent.store(records, Relaxed);
            if let Some(reports) = &self.reports {
                let report = Report::new(delivery, timestamp, &record);
                if reports.send(report).await.is_err() {
                    bail!("standard output was closed");
                }
            }
        }
        Ok((records, bytes))
    }
}

fn clock() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The topic of a record; a name is only checked again when it differs from the last one.
fn target<'a>(
    last: &'a mut Option<TopicName>,
    fallback: &Fallback,
    named: Option<&[u8]>,
) -> Result<&'a TopicName> {
    // A JSON line brings the topic that it was read from; the one on the command line goes before it.
    let named = named.filter(|name| fallback.topic.is_none() && !name.is_empty());
    if let Some(name) = named
        && last.as_ref().is_none_or(|last| last.as_bytes() != name)
    {
        let text = std::str::from_utf8(name).context("the topic's name is not UTF-8")?;
        *last = Some(TopicName::parse(text)?);
    }
    let missing =
        || Failure::Usage("no topic: name one as an argument, or with %t in the format".to_owned());
    Ok(last.as_ref().ok_or_else(missing)?)
}

fn with_fallback<'a>(mut record: InputRecord<'a>, fallback: &'a Fallback) -> InputRecord<'a> {
    record.key = record.key.or(fallback.key.as_deref());
    if fallback.tombstone && record.value.is_some_and(<[u8]>::is_empty) {
        record.value = None;
    }
    if !fallback.headers.is_empty() {
        let fixed = fallback
            .headers
            .iter()
            .map(|(key, value)| (key.as_bytes(), Some(value.as_bytes())));
        record.headers = fixed.chain(record.headers).collect();
    }
    record
}

impl Report {
    fn new(delivery: Delivery, timestamp: Option<Timestamp>, record: &InputRecord<'_>) -> Report {
        Report {
            delivery,
            timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .iter()
                .map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)))
                .collect(),
        }
    }
}

/// Writes a line for each record, once it is acknowledged. Flushes whenever nothing more waits.
async fn print_reports(
    mut output: OutputFormat,
    mut reports: mpsc::Receiver<Report>,
) -> Result<()> {
    let mut stdout = std::io::stdout();
    let mut out = Vec::new();
    while let Some(report) = reports.recv().await {
        // The failure itself is the producer's to tell.
        let Ok(delivered) = report.delivery.wait().await else {
            continue;
        };
        let headers: Vec<HeaderRef<'_>> = report
            .headers
            .iter()
            .map(|(key, value)| (&key[..], value.as_deref()))
            .collect();
        let time = delivered
            .append_time
            .or(report.timestamp)
            .unwrap_or(Timestamp::NONE);
        let partition = &delivered.partition;
        output.write(
            &OutputRecord {
                timestamp: time.millis(),
                key: report.key.as_deref(),
                value: report.value.as_deref(),
                headers: Headers::Slice(&headers),
                ..OutputRecord::new(
                    &partition.topic,
                    partition.partition.to_wire(),
                    delivered.offset.map_or(-1, |offset| offset.to_wire()),
                )
            },
            &mut out,
        );
        if reports.is_empty() || out.len() >= 64 << 10 {
            stdout.write_all(&out)?;
            stdout.flush()?;
            out.clear();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fallback() -> Fallback {
        Fallback {
            topic: None,
            partition: None,
            timestamp: None,
            key: Some(b"k".to_vec()),
            headers: vec![("a".to_owned(), "b".to_owned())],
            tombstone: true,
            own_partition: true,
        }
    }

    #[test]
    fn what_the_input_brings_goes_before_what_the_options_say() {
        let fallback = fallback();
        let bare = with_fallback(
            InputRecord {
                value: Some(b""),
                ..InputRecord::default()
            },
            &fallback,
        );
        assert_eq!((bare.key, bare.value), (Some(&b"k"[..]), None));
        assert_eq!(bare.headers, [(&b"a"[..], Some(&b"b"[..]))]);
        let own = InputRecord {
            key: Some(b"own"),
            value: Some(b"v"),
            headers: vec![(b"c", None)],
            ..InputRecord::default()
        };
        let own = with_fallback(own, &fallback);
        assert_eq!((own.key, own.value), (Some(&b"own"[..]), Some(&b"v"[..])));
        assert_eq!(own.headers, [(&b"a"[..], Some(&b"b"[..])), (b"c", None)]);
    }

    #[test]
    fn a_record_needs_a_topic_and_the_command_lines_goes_first() {
        let mut last = None;
        assert!(target(&mut last, &fallback(), None).is_err());
        assert_eq!(
            target(&mut last, &fallback(), Some(b"sea"))
                .unwrap()
                .as_str(),
            "sea"
        );
        assert!(target(&mut last, &fallback(), Some(b"a/b")).is_err());
        let topic = Some(TopicName::parse("land").unwrap());
        let fixed = Fallback {
            topic: topic.clone(),
            ..fallback()
        };
        let mut last = topic;
        assert_eq!(
            target(&mut last, &fixed, Some(b"sea")).unwrap().as_str(),
            "land"
        );
    }

    #[test]
    fn headers_and_acks_are_read() {
        assert_eq!(
            parse_header("a:b:c"),
            Ok(("a".to_owned(), "b:c".to_owned()))
        );
        assert_eq!(parse_header("a=b"), Ok(("a".to_owned(), "b".to_owned())));
        assert!(parse_header("a").is_err());
        assert_eq!(parse_acks("-1"), Ok(Acks::All));
        assert!(parse_acks("2").is_err());
    }
}
