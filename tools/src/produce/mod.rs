//! `produce`: records from standard input or a file to topics, at pipe speed.
//!
//! The input is read on a thread of its own, which also pushes into the producer's buffers: a full buffer makes it wait, and
//! nothing else holds the pipe back (`pump.rs`). Nothing is reported as produced before the broker has acknowledged it.

mod progress;
mod pump;

use std::fs::File;
use std::io::{IsTerminal as _, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use client::{Acks, Client, Error, ErrorCode, Producer, ProducerConfig};
use model::batch::Codec;
use model::{Timestamp, TopicName};
use tokio::sync::{mpsc, oneshot};

use crate::failure::Failure;
use crate::format::{InputFormat, InputReader, OutputFormat};
use crate::output::{counted, grouped, note, say, size};
use crate::signals::StopSignals;
use progress::Progress;
use pump::{Counts, Fallback, Pump, print_reports};

/// Reports that may wait to be printed; beyond it reading waits.
const REPORTS_MAX: usize = 64 << 10;
/// How long what is under way is waited for after Ctrl-C.
const MOMENT: Duration = Duration::from_secs(5);
/// How often it is looked whether the producer has failed.
const LOOK: Duration = Duration::from_millis(200);
/// The largest record of a topic that does not say: Kafka's default.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// The default of --format: a line is a value.
const FORMAT: &str = "%v\\n";

/// Shown below the options.
pub(crate) const EXAMPLES: &str = "\
Letters of --format: %t topic, %k key, %v value, %p partition, %d time (milliseconds), each up to the text that follows it; \
%H{2}%h{%k=%v } two headers; %K %V %T sizes. \\n \\t \\xNN stand for what they do in C.

Examples:
  seq 1000 | alluvium produce readings                     a record for each line
  alluvium produce readings -f '%k %v\\n' --file in.txt    the key, a space, the value
  alluvium produce -f '%t,%k,%v\\n' < in.csv               topics come from the input
  alluvium produce readings --key-field device --time-field at < lines.json
                                                           lines that are JSON themselves
  alluvium consume a -e --json | alluvium produce b -f json    copy records whole
  alluvium produce -f json < copy.json                     back to the topics that the lines name

Exit codes: 0 all acknowledged, 1 not all, 2 wrong usage, 3 no such topic, 4 no broker in time.";

/// Produce records, one for each match of the input format.
#[derive(Debug, clap::Args)]
pub struct ProduceArgs {
    /// Topic for all records; without it the format names one with %t, or JSON lines do
    pub topic: Option<String>,
    /// Input format: rpk's % letters, or `json` for lines as `consume -f json` writes them
    /// [default: %v\n]
    #[arg(short, long)]
    pub format: Option<String>,
    /// Lines are JSON objects, the value is the whole line, and this field of it is the key; `a.b` is b within a
    #[arg(long, value_name = "FIELD", conflicts_with_all = ["format", "key"])]
    pub key_field: Option<String>,
    /// Lines are JSON objects, the value is the whole line, and this field of it is the time: RFC 3339, a date, or a number
    /// since 1970 in seconds, or in milliseconds, microseconds or nanoseconds by its 13, 16 or 19 digits
    #[arg(long, value_name = "FIELD", conflicts_with_all = ["format", "timestamp"])]
    pub time_field: Option<String>,
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
    #[arg(short, long, value_name = "TIME", allow_hyphen_values = true)]
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

impl ProduceArgs {
    /// Whether lines are what `consume -f json` writes, which bring topics and partitions of their own.
    fn is_json(&self) -> bool {
        self.format.as_deref() == Some("json")
    }

    fn input_format(&self) -> Result<InputFormat> {
        if self.key_field.is_some() || self.time_field.is_some() {
            return Ok(InputFormat::fields(
                self.key_field.clone(),
                self.time_field.clone(),
            ));
        }
        let format = self.format.as_deref().unwrap_or(FORMAT);
        InputFormat::parse(format).context("--format")
    }
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

/// How the input ended.
enum End {
    /// It was read to its end: so many records, with so many bytes of keys and values.
    Read(u64, u64),
    /// By the user.
    Interrupted,
    /// It cannot be read, or nothing can be sent any more.
    Failed(anyhow::Error),
}

/// Runs the command. `now` is what relative times count from. If the input fails or the user ends it, what was read until
/// then is acknowledged as far as a moment is enough, and standard error says how much that is.
pub async fn run(args: ProduceArgs, client: &Client, now: Timestamp) -> Result<Produced> {
    let started = Instant::now();
    let format = args.input_format()?;
    let output = args
        .output_format
        .as_deref()
        .map(OutputFormat::parse)
        .transpose()
        .context("--output-format")?;
    let fallback = Fallback::new(&args, now)?;
    let input: Box<dyn Read + Send> = match &args.file {
        Some(path) => Box::new(File::open(path).with_context(|| path.display().to_string())?),
        None => Box::new(std::io::stdin()),
    };
    check_partition(&fallback, client, !args.no_create).await?;
    let producer = Producer::new(client, config(&args))?;
    let mut reader = InputReader::new(input, format);
    if let Some(topic) = &fallback.topic {
        reader.limit(input_bytes_max(client, &producer, topic).await);
    }
    let (reports, reported) = mpsc::channel(REPORTS_MAX);
    let reports = output.is_some().then_some(reports);
    let printing = output.map(|output| tokio::spawn(print_reports(output, reported)));

    let mut signals = StopSignals::listen()?;
    let (done, finished) = oneshot::channel();
    let counts = Arc::new(Counts::default());
    let is_typed = args.file.is_none() && std::io::stdin().is_terminal();
    if is_typed && std::io::stderr().is_terminal() {
        note!("note: reading from the terminal; Ctrl-D ends the input");
    }
    let progress = Progress::start(!is_typed && reports.is_none(), counts.clone());
    let pump = Pump {
        reader,
        fallback,
        producer: producer.clone(),
        reports,
        counts: counts.clone(),
    };
    let runtime = tokio::runtime::Handle::current();
    // A thread that the runtime does not wait for at its end: it may sit in a read of the terminal.
    std::thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || {
            let _ = done.send(runtime.block_on(pump.run()));
        })?;
    let end = tokio::select! {
        read = finished => match read {
            Ok(Ok((records, bytes))) => End::Read(records, bytes),
            Ok(Err(error)) => End::Failed(error),
            Err(_) => End::Failed(anyhow!("reading the input ended early")),
        },
        () = signals.asked() => End::Interrupted,
        error = hopeless(&producer) => End::Failed(error.into()),
    };
    let is_interrupted = matches!(end, End::Interrupted);
    let flushed = close(&producer, is_interrupted, &mut signals).await;
    let printed = match printing {
        // The pump's end closed the channel, unless it goes on reading.
        Some(printing) if matches!(end, End::Read(..)) && flushed.is_some() => printing.await?,
        _ => Ok(()),
    };
    progress.end();
    let fate = Fate {
        acknowledged: producer.acknowledged(),
        sent: counts.sent.load(Relaxed),
        too_large: counts.too_large.load(Relaxed),
        is_typed,
    };
    let (records, bytes) = fate.result(end, flushed)?;
    printed?;
    Ok(Produced {
        records,
        bytes,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Yields once there is a failure that further records will share. Failures of single records are told in the end.
async fn hopeless(producer: &Producer) -> Error {
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        ticks.tick().await;
        if let Some(error) = producer.failure()
            && !is_of_one_record(&error)
        {
            return error;
        }
    }
}

/// Whether the broker refused a record for what it is, which says nothing of the others.
fn is_of_one_record(error: &Error) -> bool {
    matches!(error, Error::RecordTooLarge { .. })
        || matches!(
            error.code(),
            Some(
                ErrorCode::MessageTooLarge
                    | ErrorCode::InvalidRecord
                    | ErrorCode::InvalidTimestamp
                    | ErrorCode::CorruptMessage
            )
        )
}

/// Waits for what is under way: after an interruption only for a moment, and not at all after another one. None if it was
/// not waited for.
async fn close(
    producer: &Producer,
    mut is_interrupted: bool,
    signals: &mut StopSignals,
) -> Option<client::Result<()>> {
    // The handle that stays knows the failures that were before.
    let closing = async {
        let flushed = producer.flush().await;
        flushed.and(producer.clone().close().await)
    };
    let mut closing = std::pin::pin!(closing);
    loop {
        let moment = async {
            match is_interrupted {
                true => tokio::time::sleep(MOMENT).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            flushed = &mut closing => return Some(flushed),
            () = moment => return None,
            () = signals.asked() => {
                if is_interrupted {
                    return None;
                }
                is_interrupted = true;
                note!("note: waiting a moment for what is under way; Ctrl-C again ends at once");
            }
        }
    }
}

/// What became of the records.
struct Fate {
    acknowledged: u64,
    sent: u64,
    too_large: u64,
    is_typed: bool,
}

impl Fate {
    /// How many records and bytes were produced, or why not all were. `flushed` is None if it was not waited for.
    fn result(&self, end: End, flushed: Option<client::Result<()>>) -> Result<(u64, u64)> {
        let all = self.sent + self.too_large;
        let lost = all.saturating_sub(self.acknowledged);
        let not_all = || {
            let all = counted_u64(all, "record");
            format!("{} of {all} not acknowledged", grouped(lost))
        };
        let acknowledged = || counted_u64(self.acknowledged, "record");
        let end = match (end, flushed) {
            (End::Interrupted, None) => bail!(
                "interrupted: {} acknowledged, {} under way, whose outcome is not known",
                acknowledged(),
                counted_u64(lost, "record"),
            ),
            (_, None) => bail!("interrupted: {}", not_all()),
            // A producer that failed refuses further records: then its own reason is the one to give.
            (End::Failed(error), Some(Err(failed))) if is_closed(&error) || lost > 0 => {
                return Err(failed).with_context(not_all);
            }
            (end, Some(Ok(()))) => end,
            (_, Some(Err(failed))) => return Err(failed).with_context(not_all),
        };
        match end {
            End::Read(_, _) if self.too_large > 0 => {
                bail!("{}: {} too large", not_all(), self.too_large)
            }
            End::Read(records, bytes) => Ok((records, bytes)),
            // Whoever types ends the input so, as with Ctrl-D.
            End::Interrupted if self.is_typed && self.too_large == 0 => Ok((self.sent, 0)),
            End::Interrupted => bail!("interrupted: {} acknowledged", acknowledged()),
            End::Failed(error) => {
                note!("note: {} acknowledged before that", acknowledged());
                Err(error)
            }
        }
    }
}

fn is_closed(error: &anyhow::Error) -> bool {
    matches!(error.root_cause().downcast_ref(), Some(Error::Closed))
}

fn counted_u64(count: u64, thing: &str) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), thing)
}

/// How many bytes of input one record may take: as much as the topic allows, written out in full as JSON or hexadecimal.
/// The topic is not created for this.
async fn input_bytes_max(client: &Client, producer: &Producer, topic: &TopicName) -> usize {
    let of_topic = match client.topic(topic, false).await {
        Ok(_) => producer.record_bytes_max(topic).await.ok(),
        Err(_) => None,
    };
    of_topic
        .unwrap_or(RECORD_BYTES_MAX)
        .saturating_mul(8)
        .saturating_add(64 << 10)
}

/// Says on standard output, as JSON with `records`, `bytes` and `seconds`, or on a terminal, for people, what was produced.
pub fn report(produced: &Produced, as_json: bool) -> Result<ExitCode> {
    if as_json {
        say!("{}", serde_json::to_string(produced)?);
    } else if std::io::stderr().is_terminal() {
        let rate = produced.records as f64 / produced.seconds.max(1e-9);
        note!(
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

#[cfg(test)]
mod tests {
    use super::*;

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
