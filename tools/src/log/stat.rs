//! `log stat`: what a data directory holds.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use model::LogId;
use serde_json::{Value, json};

use super::directory::{Directory, Log};
use super::{DAMAGED, DirectoryArgs, lock};
use crate::output::{print_text, say};
use crate::table::Table;

pub(super) fn run(args: &DirectoryArgs, json: bool) -> Result<ExitCode> {
    let _lock = lock(&args.directory, args.while_running)?;
    let found = Directory::read(&args.directory)?;
    if json {
        say!("{:#}", value(&found));
    } else {
        print_text(&page(&found)?)?;
    }
    let code = if found.known.is_empty() { 0 } else { DAMAGED };
    Ok(ExitCode::from(code))
}

/// Topics by name, then what belongs to none.
fn sorted(found: &Directory) -> Vec<(LogId, &Log)> {
    let mut logs: Vec<(LogId, &Log)> = found.logs.iter().map(|(id, log)| (*id, log)).collect();
    logs.sort_by_key(|(id, _)| {
        (
            found.names.topic(*id).is_none(),
            found.names.topic(*id),
            *id,
        )
    });
    logs
}

fn value(found: &Directory) -> Value {
    let logs = sorted(found).into_iter().map(|(id, log)| {
        json!({
            "log": id.to_string(), "topic": found.names.topic(id), "partition": id.partition.get(),
            "segments": log.segments, "bytes": log.bytes, "wal_bytes": log.wal_bytes,
            "start": log.start.get(), "settled_end": log.settled_end.get(), "end": log.end.get(),
        })
    });
    json!({
        "store": found.store.map(|store| store.to_string()), "checkpoint": found.checkpoint,
        "leader_epoch": found.leader_epoch, "wal_files": found.wal_files, "wal_file_bytes": found.wal_file_bytes,
        "logs": logs.collect::<Vec<_>>(), "damage": found.known, "notes": found.notes,
    })
}

fn page(found: &Directory) -> Result<String> {
    let mut page = String::new();
    let dash = || "-".to_owned();
    writeln!(
        page,
        "store         {}",
        found.store.map_or_else(dash, |store| store.to_string())
    )?;
    writeln!(
        page,
        "checkpoint    {}",
        found
            .checkpoint
            .map_or_else(dash, |number| number.to_string())
    )?;
    writeln!(
        page,
        "leader epoch  {}",
        found
            .leader_epoch
            .map_or_else(dash, |epoch| epoch.to_string())
    )?;
    writeln!(
        page,
        "WAL           {} files, {} bytes",
        found.wal_files, found.wal_file_bytes
    )?;
    let (segments, bytes, wal) = found.logs.values().fold((0, 0, 0), |sum, log| {
        (
            sum.0 + log.segments,
            sum.1 + log.bytes,
            sum.2 + log.wal_bytes,
        )
    });
    writeln!(
        page,
        "records       {bytes} bytes in {segments} segments, {wal} bytes in the WAL only\n"
    )?;
    let mut table = Table::new(&[
        "PARTITION",
        "SEGMENTS",
        "BYTES",
        "WAL BYTES",
        "START",
        "SETTLED END",
        "END",
    ]);
    for (id, log) in sorted(found) {
        table.row([
            found.names.of(id),
            log.segments.to_string(),
            log.bytes.to_string(),
            log.wal_bytes.to_string(),
            log.start.to_string(),
            log.settled_end.to_string(),
            log.end.to_string(),
        ]);
    }
    write!(page, "{table}")?;
    for known in &found.known {
        let log = known.log.as_deref().unwrap_or("an unknown log");
        let name = log
            .parse()
            .map_or_else(|_| log.to_owned(), |id| found.names.of(id));
        writeln!(
            page,
            "damaged: {name}, offsets {}..{}: {}",
            known.from, known.to, known.reason
        )?;
    }
    for note in &found.notes {
        writeln!(page, "note: {note}")?;
    }
    Ok(page)
}
