//! `thin view`: what a thinned topic held before, window by window, out of the summaries beside its segments.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use model::topic_config::thin::{parse_span, span};
use model::{LogId, TopicName};
use serde_json::{Value, json};
use storage::RealDisk;
use storage::inspect::{SummedWindow, summed_windows};
use storage::segment::summary::WindowKey;

use super::directory::{Directory, partitions};
use super::lock;
use crate::failure::Failure;
use crate::output::{print, readable};
use crate::table::Table;

pub(crate) const EXAMPLES: &str = "\
Windows that no tier has reached yet are not shown: all of their records are still there.
--json: an array of objects: partition, key (null for records without one), start_ms, window_ms, records, values (an array of value, \
records, sum, smallest, largest).

Examples:
  alluvium thin view readings
  alluvium thin view readings --dir data --window 1d
  alluvium thin view readings --json | jq '.[] | select(.key == \"buoy-1\")'";

/// Which windows.
#[derive(Debug, clap::Args)]
pub(crate) struct ViewArgs {
    /// The topic
    topic: TopicName,
    /// One partition of it
    #[arg(short, long, value_name = "P")]
    partition: Option<u32>,
    /// The data directory
    #[arg(long, value_name = "DIR", default_value = "data")]
    dir: PathBuf,
    /// Look while a server has the directory open: what goes just then is not shown
    #[arg(long)]
    while_running: bool,
    /// Merge windows into longer ones: 1h, 1d
    #[arg(long, value_name = "LENGTH", value_parser = window_ms)]
    window: Option<i64>,
}

fn window_ms(text: &str) -> Result<i64, String> {
    let span = parse_span(text).ok_or("a length of time is a whole number and ms, s, m, h or d")?;
    i64::try_from(span).map_err(|error| error.to_string())
}

/// A window, and the partition it is of.
type Row = (LogId, WindowKey, SummedWindow);

impl ViewArgs {
    /// Runs the command. Blocks.
    pub(crate) fn run(&self, json: bool) -> Result<ExitCode> {
        let rows = self.rows()?;
        let values = || rows.iter().map(value).collect();
        print(json, || Value::Array(values()), || table(&rows))?;
        Ok(ExitCode::SUCCESS)
    }

    fn rows(&self) -> Result<Vec<Row>> {
        let _lock = lock(&self.dir, self.while_running)?;
        let found = Directory::read(&self.dir)?;
        let wanted = self.topic.as_str();
        let mut logs: Vec<_> = partitions(&self.dir)?
            .into_iter()
            .filter(|(log, _)| found.names.topic(*log) == Some(wanted))
            .collect();
        if !found.names.topics().any(|(_, topic)| topic.name == wanted) {
            let place = self.dir.display();
            bail!(Failure::NotFound(format!(
                "{place} holds no topic {wanted}"
            )));
        }
        logs.retain(|(log, _)| {
            self.partition
                .is_none_or(|wanted| log.partition.get() == wanted)
        });
        logs.sort_by_key(|(log, _)| *log);
        let mut rows = Vec::new();
        for (log, directory) in logs {
            let windows = summed_windows(&RealDisk, &directory, log, self.window)
                .with_context(|| directory.display().to_string())?;
            rows.extend(windows.into_iter().map(|(at, summed)| (log, at, summed)));
        }
        Ok(rows)
    }
}

fn value((log, at, summed): &Row) -> Value {
    let values = summed.values.iter().map(|(name, (records, stats))| {
        json!({
            "value": name, "records": records, "sum": stats.sum, "smallest": stats.min, "largest": stats.max,
        })
    });
    let key = at.key.as_deref().map(String::from_utf8_lossy);
    json!({
        "partition": log.partition.get(), "key": key, "start_ms": at.start, "window_ms": at.window_ms,
        "records": summed.records, "values": values.collect::<Vec<_>>(),
    })
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new(&[
        "PARTITION",
        "KEY",
        "WINDOW",
        "LENGTH",
        "RECORDS",
        "VALUE",
        "SMALLEST",
        "MEAN",
        "LARGEST",
    ]);
    for (log, at, summed) in rows {
        let key = match &at.key {
            Some(key) => String::from_utf8_lossy(&readable(key)).into_owned(),
            None => "-".to_owned(),
        };
        let start = jiff::Timestamp::from_millisecond(at.start);
        let start = start.map_or_else(|_| at.start.to_string(), |start| start.to_string());
        let length = u64::try_from(at.window_ms).map_or_else(|_| "-".to_owned(), span);
        let head = [
            log.partition.to_string(),
            key,
            start,
            length,
            summed.records.to_string(),
        ];
        if summed.values.is_empty() {
            let dashes = std::iter::repeat_n("-".to_owned(), 4);
            table.row(head.iter().cloned().chain(dashes));
        }
        for (name, (records, stats)) in &summed.values {
            let mean = stats.sum / *records as f64;
            let cells = [
                name.clone(),
                stats.min.to_string(),
                format!("{mean:.6}"),
                stats.max.to_string(),
            ];
            table.row(head.iter().cloned().chain(cells));
        }
    }
    table.to_string()
}
