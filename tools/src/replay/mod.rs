//! `replay`: a range of a topic as rows, by key, time and condition, to a file or standard output.
//!
//! Caller: the command line. Talks HTTP to `/api/v1/topics/{topic}/replay`, which filters; what is looked at row by row here is in
//! `rows.rs`, days and time zones in `zone.rs`. Invariant: a file appears under its name whole or not at all, and an answer that
//! breaks off ends in a failure.

mod rows;
mod zone;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use model::Timestamp;
use serde_json::{Value, json};

use self::rows::Rows;
use crate::cli::Common;
use crate::failure::Failure;
use crate::http::{HttpError, HttpStream, escaped, query};
use crate::output::{counted, grouped, note, print_text, size};

/// Shown below `replay --help`.
pub const EXAMPLES: &str = "\
Examples:
  alluvium replay rides --key ride-3                               one device's history
  alluvium replay rides --from today --zone local                  since midnight, here
  alluvium replay rides --from '2026-10-25T02:30[Europe/Berlin]' --to '2026-10-26[Europe/Berlin]'
  alluvium replay rides --from -1h --where 'speed > 30' --columns timestamp,key,speed --format csv
  alluvium replay rides --resolution 1m --values speed --format csv    one row a minute and device
  alluvium replay rides --last-per-key                             the newest record of each key
  alluvium replay rides --format parquet -o rides.parquet          for pandas, Polars, DuckDB
  alluvium replay rides --grep timeout | head

A place is an offset, earliest, a time such as -10m, 2026-03-01 or 2026-03-01T14:03:05Z; now, today or yesterday; a date or a date \
and a clock, in --zone or with a zone in brackets behind it. --from is inclusive, --to exclusive. Times are exact by the records' \
own timestamps.

What was looked at, and where to go on (--resume), is said on standard error.";

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// `replay` and its options.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The topic
    topic: String,
    /// Where to begin, inclusive [default: earliest]
    #[arg(short, long, value_name = "PLACE", allow_hyphen_values = true)]
    from: Option<String>,
    /// Where to stop, exclusive [default: the end as it is now]
    #[arg(short, long, value_name = "PLACE", allow_hyphen_values = true)]
    to: Option<String>,
    /// The time zone of dates and clocks that name none, and of today and yesterday: UTC, local, or a name such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    zone: String,
    /// Only these partitions, separated by commas
    #[arg(short, long, value_name = "N,…")]
    partition: Option<String>,
    /// Go on where an earlier replay said, PARTITION:OFFSET separated by commas
    #[arg(long, value_name = "P:OFFSET,…")]
    resume: Option<String>,
    /// Only records with this key: with its key index the server reads a small part of the topic
    #[arg(short, long, conflicts_with = "key_prefix")]
    key: Option<String>,
    /// Only records whose key begins so
    #[arg(long, value_name = "PREFIX")]
    key_prefix: Option<String>,
    /// Only records whose JSON value meets a condition, such as `temp > 20 and site = 'north'`
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// A row for each key and window of so much time instead of each record, such as 1m: how many records, and of each value
    /// count, sum, min, max, mean. What was thinned is known by its summaries; the column source says of each row which it was
    #[arg(long, value_name = "TIME", conflicts_with_all = ["condition", "resume", "max_records", "grep", "last_per_key"])]
    resolution: Option<String>,
    /// With --resolution: of which values, such as temp, json/pos/lat, csv3 or f32@4, separated by commas [default: those that
    /// the topic's thinning looks at, or all numbers of JSON values]
    #[arg(long, value_name = "VALUE,…", requires = "resolution")]
    values: Option<String>,
    /// Only records with this text in their key, headers or value (NDJSON only)
    #[arg(short, long, value_name = "TEXT")]
    grep: Option<String>,
    /// Only the last record of each key, of those that are found, as --order has them (NDJSON only)
    #[arg(long)]
    last_per_key: bool,
    /// Only these columns, in this order, separated by commas
    #[arg(short, long, value_name = "NAME,…")]
    columns: Option<String>,
    /// No more records than these
    #[arg(short = 'n', long, value_name = "N", conflicts_with_all = ["grep", "last_per_key"])]
    max_records: Option<u64>,
    /// Partition by partition in the order of offsets, or all together in the order of time
    #[arg(long, value_enum, default_value_t = OrderName::Offset)]
    order: OrderName,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = FormatName::Ndjson)]
    format: FormatName,
    /// Write to this file, which is there when it is whole, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Say nothing of what was looked at
    #[arg(short, long)]
    quiet: bool,
    /// Where the server serves HTTP, HOST or HOST:PORT [env: ALLUVIUM_HTTP] [default: port 8080 of the first broker]
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
}

/// `--order`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OrderName {
    Offset,
    Time,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatName {
    Ndjson,
    Csv,
    Arrow,
    Parquet,
}

impl FormatName {
    fn name(self) -> &'static str {
        match self {
            FormatName::Ndjson => "ndjson",
            FormatName::Csv => "csv",
            FormatName::Arrow => "arrow",
            FormatName::Parquet => "parquet",
        }
    }

    fn is_text(self) -> bool {
        matches!(self, FormatName::Ndjson | FormatName::Csv)
    }
}

impl ReplayArgs {
    /// Runs the command.
    pub async fn run(self, common: &Common, now: Timestamp) -> Result<ExitCode> {
        self.check()?;
        let path = self.path(now)?;
        let server = common.http(self.http.as_deref())?;
        let mut out = Output::open(self.output.as_deref())?;
        let mut answer = server
            .stream(&path)
            .await
            .map_err(|error| self.named(error))?;
        let mut rows = Rows::is_wanted(self.grep.as_deref(), self.last_per_key)
            .then(|| Rows::new(self.grep.clone(), self.last_per_key));
        let mut progress = Progress::start(self.quiet, self.output.is_some());
        while let Some(bytes) = answer.next().await? {
            match &mut rows {
                Some(rows) => rows.push(&bytes, out.writer())?,
                None => out.writer().write_all(&bytes)?,
            }
            progress.add(bytes.len());
        }
        if let Some(rows) = &mut rows {
            rows.finish(out.writer())?;
        }
        progress.end();
        out.finish()?;
        let found = Summary::of(&answer, rows.map(|rows| rows.written), self.max_records);
        self.tell(&found, common.json)?;
        Ok(ExitCode::SUCCESS)
    }

    fn check(&self) -> Result<(), Failure> {
        let wrong = |reason: &str| Err(Failure::Usage(reason.to_owned()));
        if Rows::is_wanted(self.grep.as_deref(), self.last_per_key)
            && self.format != FormatName::Ndjson
        {
            return wrong("--grep and --last-per-key are for --format ndjson");
        }
        let has_key = |columns: &String| columns.split(',').any(|name| name.trim() == "key");
        if self.last_per_key && !self.columns.as_ref().is_none_or(has_key) {
            return wrong("--last-per-key needs the column key among --columns");
        }
        if self.output.is_none() && !self.format.is_text() && io::stdout().is_terminal() {
            return wrong(
                "arrow and parquet are no text: write them to a file with --output, or to a pipe",
            );
        }
        Ok(())
    }

    /// The server does not repeat the name that it was asked for.
    fn named(&self, error: HttpError) -> anyhow::Error {
        match error {
            HttpError::Problem(problem) if problem.code == "unknown_topic" => {
                Failure::NotFound(format!("there is no topic {}", self.topic)).into()
            }
            error => error.into(),
        }
    }

    /// What is asked of the server.
    fn path(&self, now: Timestamp) -> Result<String> {
        let zone = zone::zone(&self.zone)?;
        let place = |text: &Option<String>| {
            let place = text.as_deref().map(|text| zone::place(text, &zone, now));
            place.transpose()
        };
        let order = match self.order {
            OrderName::Offset => None,
            OrderName::Time => Some("time".to_owned()),
        };
        let pairs = [
            ("format", Some(self.format.name().to_owned())),
            ("from", place(&self.from)?),
            ("to", place(&self.to)?),
            ("resume", self.resume.clone()),
            ("partition", self.partition.clone()),
            ("key", self.key.clone()),
            ("key_prefix", self.key_prefix.clone()),
            ("where", self.condition.clone()),
            ("columns", self.columns.clone()),
            ("resolution", self.resolution.clone()),
            ("values", self.values.clone()),
            ("order", order),
            ("max_records", self.max_records.map(|most| most.to_string())),
        ];
        let pairs = pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let pairs: Vec<(&str, String)> = pairs.collect();
        let topic = escaped(&self.topic);
        Ok(format!("/api/v1/topics/{topic}/replay?{}", query(&pairs)))
    }

    fn tell(&self, found: &Summary, is_json: bool) -> Result<()> {
        match (is_json, self.output.is_some()) {
            (true, true) => print_text(&format!("{:#}\n", found.json()))?,
            (true, false) => note!("{}", found.json()),
            (false, _) if self.quiet => {}
            (false, _) => found.tell(),
        }
        Ok(())
    }
}

/// What the server says behind the rows.
struct Summary {
    records: u64,
    scanned_records: u64,
    scanned_bytes: u64,
    skipped_bytes: u64,
    gaps: u64,
    unfit: u64,
    new_fields: u64,
    /// Windows of what was thinned that were taken in.
    summed_windows: u64,
    /// Whether rows are windows.
    is_downsampled: bool,
    next: Option<String>,
    /// Whether there may be more in the range.
    is_cut: bool,
}

impl Summary {
    fn of(answer: &HttpStream, written: Option<u64>, most: Option<u64>) -> Summary {
        let number = |name: &str| {
            let text = answer.trailer(name);
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        let records = written.unwrap_or_else(|| number("alluvium-records"));
        Summary {
            records,
            scanned_records: number("alluvium-scanned-records"),
            scanned_bytes: number("alluvium-scanned-bytes"),
            skipped_bytes: number("alluvium-skipped-bytes"),
            gaps: number("alluvium-gaps"),
            unfit: number("alluvium-unfit"),
            new_fields: number("alluvium-new-fields"),
            summed_windows: number("alluvium-summed-windows"),
            is_downsampled: answer.trailer("alluvium-summed-windows").is_some(),
            next: answer.trailer("next-offset").map(str::to_owned),
            is_cut: most == Some(records),
        }
    }

    fn json(&self) -> Value {
        json!({
            "records": self.records, "scanned_records": self.scanned_records, "scanned_bytes": self.scanned_bytes,
            "skipped_bytes": self.skipped_bytes, "gaps": self.gaps, "unfit": self.unfit, "new_fields": self.new_fields,
            "summed_windows": self.summed_windows, "next_offset": self.next,
        })
    }

    fn tell(&self) {
        let found = usize::try_from(self.records).unwrap_or(usize::MAX);
        let (rows, read) = (grouped(self.scanned_records), size(self.scanned_bytes));
        let mut text = match self.is_downsampled {
            false => format!(
                "{} of {rows} that were read ({read})",
                counted(found, "record")
            ),
            true => format!(
                "{} of {rows} records that were read ({read}) and {} windows of what was thinned",
                counted(found, "window"),
                grouped(self.summed_windows)
            ),
        };
        if self.skipped_bytes > 0 {
            text.push_str(&format!(
                ", {} passed over by indexes",
                size(self.skipped_bytes)
            ));
        }
        note!("{text}");
        if self.gaps > 0 {
            let gaps = usize::try_from(self.gaps).unwrap_or(usize::MAX);
            note!(
                "{} in the range: records there were removed or are damaged",
                counted(gaps, "gap")
            );
        }
        if let Some(next) = self.next.as_ref().filter(|_| self.is_cut) {
            note!("there may be more: go on with --resume {next}");
        }
    }
}

/// Where rows go.
enum Output {
    Standard(BufWriter<io::Stdout>),
    /// A file beside the one that was asked for, which takes its place when it is whole.
    File {
        writer: BufWriter<File>,
        unfinished: PathBuf,
        path: PathBuf,
    },
}

impl Output {
    fn open(path: Option<&Path>) -> Result<Output> {
        let Some(path) = path else {
            return Ok(Output::Standard(BufWriter::new(io::stdout())));
        };
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".unfinished");
        let unfinished = path.with_file_name(name);
        let file = File::create(&unfinished)
            .with_context(|| format!("cannot write {}", unfinished.display()))?;
        Ok(Output::File {
            writer: BufWriter::new(file),
            unfinished,
            path: path.to_owned(),
        })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Output::Standard(writer) => writer,
            Output::File { writer, .. } => writer,
        }
    }

    /// All was written.
    fn finish(mut self) -> Result<()> {
        self.writer().flush()?;
        if let Output::File {
            writer,
            unfinished,
            path,
        } = &self
        {
            writer.get_ref().sync_all()?;
            std::fs::rename(unfinished, path)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Output {
    /// What was not finished is of no use. After the rename there is nothing under this name.
    fn drop(&mut self) {
        if let Output::File { unfinished, .. } = self {
            let _ = std::fs::remove_file(unfinished);
        }
    }
}

/// How far it is, on a terminal that the rows do not go to.
struct Progress {
    bar: Option<ProgressBar>,
    begun: Instant,
    told: Instant,
    bytes: u64,
}

impl Progress {
    fn start(is_quiet: bool, has_output: bool) -> Progress {
        let is_wanted =
            !is_quiet && io::stderr().is_terminal() && (has_output || !io::stdout().is_terminal());
        let style = ProgressStyle::default_spinner();
        Progress {
            bar: is_wanted.then(|| ProgressBar::new_spinner().with_style(style)),
            begun: Instant::now(),
            told: Instant::now(),
            bytes: 0,
        }
    }

    fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        let Some(bar) = self
            .bar
            .as_ref()
            .filter(|_| self.told.elapsed() >= PROGRESS_EVERY)
        else {
            return;
        };
        self.told = Instant::now();
        let rate = self.bytes as f64 / self.begun.elapsed().as_secs_f64().max(1e-3);
        bar.set_message(format!(
            "{} received, {}/s",
            size(self.bytes),
            size(rate as u64)
        ));
        bar.tick();
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
