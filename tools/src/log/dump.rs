//! `log dump`: what a file of a data directory holds. Which kind it is, its name says.

use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use model::batch::{Batch, DecompressLimit};
use serde_json::{Value, json};
use storage::RealDisk;
use storage::checkpoint::Checkpoint;
use storage::epochs::Epochs;
use storage::inspect::{self, BatchLine, WalItem};
use storage::io::{Disk as _, OpenHow};
use storage::manifest::Manifest;
use storage::producers::Producers;
use storage::segment::key_index::KeyIndex;
use storage::segment::{IndexFile, SegmentId};

use super::DAMAGED;
use crate::failure::Failure;

/// What to list.
#[derive(Debug, clap::Args)]
pub(super) struct DumpArgs {
    /// Files: 00000000000000000000.0.log, .idx, manifest.1, checkpoint/A, .wal
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Of segments, list the records too
    #[arg(long)]
    records: bool,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Segment,
    Index,
    KeyIndex,
    Manifest,
    Checkpoint,
    Wal,
}

impl Kind {
    fn of(path: &Path) -> Option<Kind> {
        let name = path.file_name()?.to_str()?;
        let folder = path.parent().and_then(Path::file_name);
        match name.rsplit_once('.') {
            Some((_, "log")) => Some(Kind::Segment),
            Some((_, "idx")) => Some(Kind::Index),
            Some((_, "kix")) => Some(Kind::KeyIndex),
            Some((_, "wal")) => Some(Kind::Wal),
            Some(("manifest", _)) => Some(Kind::Manifest),
            None if matches!(name, "A" | "B") && folder.is_none_or(|name| name == "checkpoint") => {
                Some(Kind::Checkpoint)
            }
            _ => None,
        }
    }
}

/// Standard output, and what was found wrong on the way.
struct Out {
    to: BufWriter<std::io::StdoutLock<'static>>,
    json: bool,
    /// The first error of writing; nothing is written after it.
    failed: Option<std::io::Error>,
    is_damaged: bool,
}

impl Out {
    /// One line: JSON, or the text.
    fn line(&mut self, value: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        let line = match self.json {
            true => value().to_string(),
            false => text(),
        };
        if self.failed.is_none() {
            self.failed = writeln!(self.to, "{line}").err();
        }
    }

    fn damage(&mut self, path: &Path, reason: &str) {
        self.is_damaged = true;
        let path = path.display();
        self.line(
            || json!({ "path": path.to_string(), "damaged": reason }),
            || format!("damaged: {path}: {reason}"),
        );
    }
}

pub(super) fn run(args: &DumpArgs, json: bool) -> Result<ExitCode> {
    let mut out = Out {
        to: BufWriter::new(std::io::stdout().lock()),
        json,
        failed: None,
        is_damaged: false,
    };
    for path in &args.files {
        let Some(kind) = Kind::of(path) else {
            bail!(Failure::Usage(format!(
                "{}: no name of a segment (.log), index (.idx), key index (.kix), manifest, checkpoint (checkpoint/A) or write-ahead file (.wal)",
                path.display()
            )));
        };
        dump(kind, path, args.records, &mut out).with_context(|| path.display().to_string())?;
    }
    match out.failed.take().or_else(|| out.to.flush().err()) {
        // Nobody reads on, as after `| head`.
        Some(error) if error.kind() == ErrorKind::BrokenPipe => {}
        Some(error) => return Err(error.into()),
        None => {}
    }
    Ok(ExitCode::from(if out.is_damaged { DAMAGED } else { 0 }))
}

fn dump(kind: Kind, path: &Path, records: bool, out: &mut Out) -> Result<()> {
    match kind {
        Kind::Segment => segment(path, records, out),
        Kind::Index => decoded(inspect::dump_index(&RealDisk, path)?, path, out, index),
        Kind::KeyIndex => decoded(
            inspect::dump_key_index(&RealDisk, path)?,
            path,
            out,
            key_index,
        ),
        Kind::Manifest => decoded(
            inspect::dump_manifest(&RealDisk, path)?,
            path,
            out,
            manifest,
        ),
        Kind::Checkpoint => decoded(
            inspect::dump_checkpoint(&RealDisk, path)?,
            path,
            out,
            checkpoint,
        ),
        Kind::Wal => wal(path, out),
    }
}

fn decoded<T>(
    read: Result<T, String>,
    path: &Path,
    out: &mut Out,
    list: fn(&T, &mut Out),
) -> Result<()> {
    match read {
        Ok(found) => list(&found, out),
        Err(reason) => out.damage(path, &reason),
    }
    Ok(())
}

fn segment(path: &Path, records: bool, out: &mut Out) -> Result<()> {
    let file = RealDisk.open(path, OpenHow::Read)?;
    let read = inspect::dump_segment(&RealDisk, path, &mut |line| {
        out.is_damaged |= line.fault.is_some();
        out.line(|| json!(line), || batch_text(&line));
        if records && line.fault.is_none() {
            let mut bytes = vec![0; usize::try_from(line.bytes).unwrap_or(0)];
            match file.read_exact_at(line.position, &mut bytes) {
                Ok(()) => list_records(bytes.into(), out),
                Err(error) => out.damage(path, &error.to_string()),
            }
        }
    });
    match read {
        Ok(_) => Ok(()),
        Err(storage::segment::SegmentError::Damaged {
            position, reason, ..
        }) => {
            out.damage(path, &format!("position {position}: {reason}"));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn batch_text(line: &BatchLine) -> String {
    let producer = match line.producer_id {
        -1 => String::new(),
        id => format!(
            " producer {id}/{} sequence {}",
            line.producer_epoch, line.base_sequence
        ),
    };
    let fault = line
        .fault
        .as_ref()
        .map_or_else(String::new, |fault| format!(" DAMAGED: {fault}"));
    let control = if line.is_control { " control" } else { "" };
    format!(
        "position {} offsets {}..={} records {} bytes {} codec {} time {}..={} epoch {}{producer}{control} crc {:08x}{fault}",
        line.position,
        line.base_offset,
        line.last_offset,
        line.records,
        line.bytes,
        line.codec,
        line.base_timestamp,
        line.max_timestamp,
        line.leader_epoch,
        line.crc,
    )
}

fn list_records(bytes: Bytes, out: &mut Out) {
    let Ok(batch) = Batch::parse(bytes) else {
        return;
    };
    let Ok(records) = batch.records(DecompressLimit::default()) else {
        return;
    };
    for record in records.map_while(Result::ok) {
        let text = |bytes: &Option<Bytes>| {
            bytes
                .as_ref()
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let (key, value) = (text(&record.key), text(&record.value));
        let (offset, time) = (record.offset.get(), record.timestamp.millis());
        out.line(
            || json!({ "offset": offset, "timestamp": time, "key": key, "value": value }),
            || {
                let shown = |text: &Option<String>| {
                    text.as_ref()
                        .map_or("-".to_owned(), |text| format!("{text:?}"))
                };
                format!(
                    "  offset {offset} time {time} key {} value {}",
                    shown(&key),
                    shown(&value)
                )
            },
        );
    }
}

fn segment_name(id: SegmentId) -> String {
    id.to_string()
}

fn index(found: &IndexFile, out: &mut Out) {
    let index = &found.index;
    out.line(
        || {
            json!({
                "log": found.log.to_string(), "segment": segment_name(index.id()), "bytes": index.bytes(),
                "end_offset": index.end_offset().get(), "max_timestamp": index.max_timestamp().millis(),
                "blocks": index.blocks().len(), "producers": producers(&found.producers),
                "leader_epochs": epochs(&found.epochs),
            })
        },
        || {
            format!(
                "index of {} segment {}: {} bytes up to offset {}, {} blocks, {} producers, leader epochs {}",
                found.log,
                segment_name(index.id()),
                index.bytes(),
                index.end_offset(),
                index.blocks().len(),
                found.producers.len(),
                epochs(&found.epochs),
            )
        },
    );
    for (number, block) in index.blocks().iter().enumerate() {
        let offset = index.block_offset(number).get();
        let (least, most) = (block.min_timestamp.millis(), block.max_timestamp.millis());
        out.line(
            || {
                json!({
                    "offset": offset, "position": block.position, "min_timestamp": least, "max_timestamp": most,
                    "append_time": block.append_time.millis(), "heads_checksum": block.heads_checksum,
                })
            },
            || {
                let append = block.append_time.millis();
                format!("  offset {offset} position {} time {least}..={most} appended {append}", block.position)
            },
        );
    }
}

fn key_index(found: &KeyIndex, out: &mut Out) {
    let (log, id) = found.id();
    let (blocks, known) = found.blocks();
    let bytes = found.log_bytes();
    out.line(
        || {
            json!({
                "log": log.to_string(), "segment": segment_name(id), "bytes": bytes, "blocks": blocks,
                "blocks_with_known_keys": known,
            })
        },
        || {
            format!(
                "key index of {log} segment {}: {bytes} bytes in {blocks} blocks, the keys of {known} of them are known",
                segment_name(id)
            )
        },
    );
    // A release before had no times in it.
    let times = found.smallest_times().map(|times| times.iter());
    for (number, time) in times.into_iter().flatten().enumerate() {
        let time = time.millis();
        out.line(
            || json!({ "block": number, "min_timestamp": time }),
            || format!("  block {number} time {time}"),
        );
    }
}

fn producers(producers: &Producers) -> Value {
    let one = |(id, state): (model::ProducerId, &storage::producers::ProducerState)| {
        json!({
            "producer_id": id.get(), "epoch": state.epoch.get(), "last_append_time": state.last_append_time.millis(),
            "last_sequence": state.batches.last().map(|batch| batch.last_sequence),
            "last_offset": state.batches.last().map(|batch| batch.last_offset.get()),
        })
    };
    producers.iter().map(one).collect::<Vec<_>>().into()
}

fn epochs(epochs: &Epochs) -> Value {
    let one = |(epoch, start): &(model::LeaderEpoch, model::Offset)| json!({ "epoch": epoch.get(), "start_offset": start.get() });
    epochs.entries().iter().map(one).collect::<Vec<_>>().into()
}

fn manifest(found: &Manifest, out: &mut Out) {
    out.line(
        || {
            json!({
                "log": found.log.to_string(), "number": found.number, "start_offset": found.start_offset.get(),
                "segments": found.segments.len(),
            })
        },
        || {
            format!(
                "manifest {} of {}: starts at offset {}, {} segments",
                found.number,
                found.log,
                found.start_offset,
                found.segments.len()
            )
        },
    );
    for entry in &found.segments {
        let name = segment_name(entry.id);
        match &entry.sealed {
            Some(sealed) => out.line(
                || {
                    json!({
                        "segment": name, "sealed": true, "end_offset": sealed.end_offset.get(), "bytes": sealed.bytes,
                        "max_timestamp": sealed.max_timestamp.millis(),
                        "first_append_time": sealed.first_append_time.millis(),
                        "last_append_time": sealed.last_append_time.millis(),
                    })
                },
                || {
                    format!(
                        "  {name} sealed, ends at offset {}, {} bytes, largest time {}, appended {}..={}",
                        sealed.end_offset,
                        sealed.bytes,
                        sealed.max_timestamp.millis(),
                        sealed.first_append_time.millis(),
                        sealed.last_append_time.millis()
                    )
                },
            ),
            None => out.line(
                || json!({ "segment": name, "sealed": false }),
                || format!("  {name} active; the checkpoint knows how far"),
            ),
        }
    }
}

fn checkpoint(found: &Checkpoint, out: &mut Out) {
    let wal = found.wal;
    out.line(
        || {
            json!({
                "store": found.store.to_string(), "sequence": found.sequence, "leader_epoch": found.leader_epoch.get(),
                "wal_file": wal.file, "wal_position": wal.position, "wal_frame": wal.frame, "logs": found.logs.len(),
            })
        },
        || {
            format!(
                "checkpoint {} of store {}, leader epoch {}: replay from WAL file {} position {} frame {}; {} logs",
                found.sequence,
                found.store,
                found.leader_epoch.get(),
                wal.file,
                wal.position,
                wal.frame,
                found.logs.len()
            )
        },
    );
    for entry in &found.logs {
        let active = entry.active.as_ref();
        out.line(
            || {
                json!({
                    "log": entry.log.to_string(), "start_offset": entry.start_offset.get(),
                    "settled_end": entry.settled_end.get(), "manifest": entry.manifest,
                    "active": active.map(|active| segment_name(active.id)),
                    "active_bytes": active.map(|active| active.bytes),
                    "producers": Producers::decode(&entry.producers).map(|found| producers(&found)).unwrap_or_default(),
                    "leader_epochs": Epochs::decode(&entry.epochs).map(|found| epochs(&found)).unwrap_or_default(),
                })
            },
            || {
                let active = active.map_or_else(
                    || "no active segment".to_owned(),
                    |active| format!("active {} with {} bytes", segment_name(active.id), active.bytes),
                );
                format!(
                    "  {} offsets {}..{} settled, manifest {}, {active}",
                    entry.log, entry.start_offset, entry.settled_end, entry.manifest
                )
            },
        );
    }
}

fn wal(path: &Path, out: &mut Out) -> Result<()> {
    let summary = inspect::dump_wal(&RealDisk, path, &mut |item| {
        let is_damage = match &item {
            WalItem::Frame(frame) => !frame.intact && frame.known_durable,
            WalItem::Unreadable { was_durable, .. } => *was_durable,
        };
        out.is_damaged |= is_damage;
        out.line(|| json!(item), || wal_text(&item));
    })?;
    out.line(
        || json!({ "kind": "summary", "summary": summary }),
        || {
            format!(
                "WAL file {}: {} frames, {} batches, {} bytes of batches, {} of {} bytes used, frames below {} are durable",
                summary.file_sequence,
                summary.frames,
                summary.batches,
                summary.batch_bytes,
                summary.used_bytes,
                summary.bytes,
                summary.durable_sequence
            )
        },
    );
    Ok(())
}

fn wal_text(item: &WalItem) -> String {
    let frame = match item {
        WalItem::Frame(frame) => frame,
        WalItem::Unreadable {
            position,
            end_position,
            was_durable,
        } => {
            let durable = if *was_durable {
                "DAMAGED: it was durable"
            } else {
                "it may never have been durable"
            };
            return format!("position {position}..{end_position} cannot be read; {durable}");
        }
    };
    let state = match (frame.intact, frame.known_durable) {
        (true, true) => "durable",
        (true, false) => "not known to be durable",
        (false, true) => "DAMAGED: it was durable",
        (false, false) => "torn",
    };
    let mut text = format!(
        "position {} frame {} bytes {} appended {} epoch {} entries {} {state}",
        frame.position,
        frame.sequence,
        frame.bytes,
        frame.append_time,
        frame.leader_epoch,
        frame.entries.len()
    );
    for entry in &frame.entries {
        text.push_str(&match entry.bytes {
            0 => format!("\n  {} {} {}", entry.log, entry.kind, entry.offset),
            bytes => format!(
                "\n  {} {} offsets {}..{} position {} bytes {bytes}{}",
                entry.log,
                entry.kind,
                entry.offset,
                entry.end_offset,
                entry.position,
                match entry.batch.as_ref().map(|batch| &batch.fault) {
                    Some(None) => "",
                    _ => " DAMAGED",
                }
            ),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_says_what_it_is() {
        for (path, kind) in [
            ("p/07/x/00000000000000000000.0.log", Some(Kind::Segment)),
            ("00000000000000000000.0.idx", Some(Kind::Index)),
            ("00000000000000000000.0.kix", Some(Kind::KeyIndex)),
            ("p/07/x/manifest.00000000000000000003", Some(Kind::Manifest)),
            ("data/checkpoint/B", Some(Kind::Checkpoint)),
            ("wal/00000000000000000001.wal", Some(Kind::Wal)),
            ("data/LOCK", None),
            ("elsewhere/A", None),
        ] {
            assert_eq!(Kind::of(Path::new(path)), kind, "{path}");
        }
    }
}
