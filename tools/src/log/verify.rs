//! `log verify`: checks every byte of a data directory, or of single segments.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use model::LogId;
use serde_json::{Value, json};
use storage::RealDisk;
use storage::inspect::{self, Finding, Summary};

use super::directory::{self, Directory};
use super::{DAMAGED, lock};
use crate::failure::Failure;
use crate::output::say;

/// What to check.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// A data directory, or segments (.log)
    #[arg(default_value = "data", value_name = "DIRECTORY | SEGMENT")]
    paths: Vec<PathBuf>,
    /// Look while a server has the directory open: what it is writing just then may look wrong
    #[arg(long, alias = "read-only")]
    while_running: bool,
}

pub(super) fn run(args: &VerifyArgs, json: bool) -> Result<ExitCode> {
    let mut is_damaged = false;
    for path in &args.paths {
        if !path.exists() {
            bail!(Failure::NotFound(format!("there is no {}", path.display())));
        }
        is_damaged |= match path.is_dir() {
            true => directory(path, args.while_running, json)?,
            false => segment(path, json)?,
        };
    }
    Ok(ExitCode::from(if is_damaged { DAMAGED } else { 0 }))
}

fn directory(path: &Path, while_running: bool, json: bool) -> Result<bool> {
    let _lock = lock(path, while_running)?;
    // What cannot be read here costs names only: the findings say it too.
    let names = Directory::read(path)
        .map(|found| found.names)
        .unwrap_or_default();
    let progress = progress(path)?;
    let mut findings = Vec::new();
    let mut report = |finding: Finding| {
        if !json {
            progress.suspend(|| say!("{}", line(&finding, &|log| names.of(log))));
        }
        findings.push(finding);
    };
    let mut watch = |summary: &Summary| progress.set_position(summary.bytes);
    let summary = inspect::verify_store_watched(&RealDisk, path, &mut report, &mut watch)
        .with_context(|| path.display().to_string())?;
    progress.finish_and_clear();
    let known = directory::known_damage(path)?;
    if json {
        let findings: Vec<Value> = findings
            .iter()
            .map(|finding| value(finding, &|log| names.of(log)))
            .collect();
        let known = json!(known);
        say!(
            "{:#}",
            json!({ "path": path, "summary": summary, "findings": findings, "on_record": known })
        );
    } else {
        for known in &known {
            let log = known.log.as_deref().unwrap_or("an unknown log");
            let name = log
                .parse()
                .map_or_else(|_| log.to_owned(), |id| names.of(id));
            say!(
                "on record: {name}, offsets {}..{}: {}",
                known.from,
                known.to,
                known.reason
            );
        }
        if summary.refusals > 0 {
            say!("a server would not start with this directory: what is to be done stands above");
        }
        say!(
            "{}: {} partitions, {} segments, {} batches, {} records ({} of them in the write-ahead log only), {} bytes; {} WAL frames; {} damaged, {} notes",
            path.display(),
            summary.logs,
            summary.segments,
            summary.batches,
            summary.records,
            summary.wal_records,
            summary.bytes,
            summary.wal_frames,
            summary.damaged,
            summary.notes,
        );
    }
    Ok(summary.damaged > 0 || summary.refusals > 0 || !known.is_empty())
}

fn progress(path: &Path) -> Result<ProgressBar> {
    let mut bytes = 0;
    for (_, directory) in directory::partitions(path)? {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|kind| kind == "log") {
                bytes += entry.metadata()?.len();
            }
        }
    }
    let style = ProgressStyle::with_template(
        "{bytes} of {total_bytes} verified, {bytes_per_sec}, {eta} left",
    )?;
    // Drawn on standard error, and only if that is a terminal.
    Ok(ProgressBar::new(bytes).with_style(style))
}

fn line(finding: &Finding, name: &dyn Fn(LogId) -> String) -> String {
    let kind = match (finding.stops_start, finding.is_damage) {
        (true, _) => "a server would not start",
        (false, true) => "damaged",
        (false, false) => "note",
    };
    let mut text = format!("{kind}: {}", finding.path.display());
    if let Some(position) = finding.position {
        text.push_str(&format!(", position {position}"));
    }
    if let Some(log) = finding.log.as_deref().and_then(|log| log.parse().ok()) {
        text.push_str(&format!(", {}", name(log)));
    }
    if let (Some(from), Some(to)) = (finding.from_offset, finding.to_offset) {
        text.push_str(&format!(", offsets {from}..{to}"));
    }
    format!("{text}: {}", finding.reason)
}

fn value(finding: &Finding, name: &dyn Fn(LogId) -> String) -> Value {
    let mut value = json!(finding);
    let log = finding.log.as_deref().and_then(|log| log.parse().ok());
    value["name"] = json!(log.map(name));
    value
}

fn segment(path: &Path, json: bool) -> Result<bool> {
    let (mut batches, mut records, mut faults) = (0u64, 0u64, Vec::new());
    let read = inspect::dump_segment(&RealDisk, path, &mut |line| {
        batches += 1;
        records += u64::from(line.records.unsigned_abs());
        faults.extend(line.fault.clone().map(|fault| (line, fault)));
    });
    let mut damage: Vec<Value> = Vec::new();
    for (line, fault) in &faults {
        damage.push(json!({
            "position": line.position, "from_offset": line.base_offset, "to_offset": line.last_offset.saturating_add(1),
            "reason": fault,
        }));
    }
    let bytes = match read {
        Ok(bytes) => Some(bytes),
        Err(storage::segment::SegmentError::Damaged {
            position, reason, ..
        }) => {
            damage.push(json!({ "position": position, "reason": reason }));
            None
        }
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    if json {
        say!(
            "{:#}",
            json!({ "path": path, "bytes": bytes, "batches": batches, "records": records, "damage": damage })
        );
    } else {
        for one in &damage {
            let at = one["from_offset"].as_u64().zip(one["to_offset"].as_u64());
            let offsets =
                at.map_or_else(String::new, |(from, to)| format!(", offsets {from}..{to}"));
            let reason = one["reason"].as_str().unwrap_or_default();
            say!(
                "damaged: {}, position {}{offsets}: {reason}",
                path.display(),
                one["position"]
            );
        }
        say!(
            "{}: {batches} batches, {records} records; {} damaged",
            path.display(),
            damage.len()
        );
    }
    Ok(!damage.is_empty())
}
