//! The logs of a data directory, put together from checkpoint, manifests, segments and write-ahead log as a start would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use model::{LogId, Offset};
use serde::Serialize;
use storage::checkpoint::{Checkpoint, LogEntry, Slot};
use storage::inspect::{self, WalItem};
use storage::io::{Disk as _, OpenHow};
use storage::manifest::{Loaded, SegmentKind};
use storage::segment::SegmentId;
use storage::{RealDisk, manifest};

use super::names::Names;

/// A log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Log {
    /// Segments, the active one included.
    pub segments: u64,
    /// Bytes of batches in segments.
    pub bytes: u64,
    /// Bytes of batches that are in the write-ahead log only.
    pub wal_bytes: u64,
    pub start: Offset,
    /// What is in segments ends here.
    pub settled_end: Offset,
    pub end: Offset,
}

/// A segment of a log.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub id: SegmentId,
    pub kind: SegmentKind,
    /// The offset after its last one, as far as it is settled.
    pub end: Offset,
    pub path: PathBuf,
    /// Why its file cannot be what it was; as far as the listing tells.
    pub trouble: Option<String>,
}

/// Damage that an earlier start found and put on record.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Known {
    pub log: Option<String>,
    pub from: u64,
    pub to: u64,
    pub reason: String,
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub store: Option<uuid::Uuid>,
    pub checkpoint: Option<u64>,
    pub leader_epoch: Option<u32>,
    pub logs: BTreeMap<LogId, Log>,
    /// The segments of each log that the newest manifest and the checkpoint name, in order.
    pub segments: BTreeMap<LogId, Vec<Segment>>,
    pub names: Names,
    pub wal_files: u64,
    pub wal_file_bytes: u64,
    pub known: Vec<Known>,
    /// What could not be read, and what lies in quarantine.
    pub notes: Vec<String>,
}

impl Directory {
    /// Reads everything but the batches of partitions.
    pub fn read(path: &Path) -> Result<Directory> {
        let mut found = Directory::default();
        let checkpoint = found.read_checkpoint(path)?;
        found.read_partitions(path, checkpoint.as_ref())?;
        found.read_wal(path, checkpoint.as_ref())?;
        found.known = known_damage(path)?;
        let quarantine = path.join("quarantine");
        if quarantine.exists() {
            let count = RealDisk.list(&quarantine)?.len();
            found
                .notes
                .push(format!("quarantine holds {}", counted(count)));
        }
        Ok(found)
    }

    fn read_checkpoint(&mut self, path: &Path) -> Result<Option<Checkpoint>> {
        let mut newest: Option<Checkpoint> = None;
        for slot in Slot::ALL {
            let path = slot.path(&path.join("checkpoint"));
            if !path.exists() {
                continue;
            }
            match inspect::dump_checkpoint(&RealDisk, &path).context(path.display().to_string())? {
                Ok(found)
                    if newest
                        .as_ref()
                        .is_none_or(|known| known.sequence < found.sequence) =>
                {
                    newest = Some(found);
                }
                Ok(_) => {}
                Err(reason) => self.notes.push(format!("{}: {reason}", path.display())),
            }
        }
        if let Some(checkpoint) = &newest {
            self.store = Some(checkpoint.store);
            self.checkpoint = Some(checkpoint.sequence);
            self.leader_epoch = Some(checkpoint.leader_epoch.get());
            for entry in &checkpoint.logs {
                let log = self.logs.entry(entry.log).or_default();
                (log.start, log.settled_end, log.end) =
                    (entry.start_offset, entry.settled_end, entry.settled_end);
                if let Some(active) = &entry.active {
                    log.segments += 1;
                    log.bytes += active.bytes;
                }
            }
        }
        Ok(newest)
    }

    fn read_partitions(&mut self, path: &Path, checkpoint: Option<&Checkpoint>) -> Result<()> {
        for (id, directory) in partitions(path)? {
            let loaded = manifest::load(&RealDisk, &directory, id)
                .with_context(|| directory.display().to_string())?;
            for rejected in &loaded.rejected {
                let path = directory.join(&rejected.name);
                self.notes
                    .push(format!("{}: {}", path.display(), rejected.reason));
            }
            let log = self.logs.entry(id).or_default();
            let mut files = Vec::new();
            for (entry, sealed) in loaded
                .manifest
                .iter()
                .flat_map(|manifest| manifest.sealed())
            {
                log.segments += 1;
                log.bytes += sealed.bytes;
                files.push((entry.id.log_path(&directory), sealed.bytes));
            }
            let entry =
                checkpoint.and_then(|known| known.logs.iter().find(|entry| entry.log == id));
            self.segments
                .insert(id, segments_of(&directory, &loaded, entry));
            let active = entry.and_then(|entry| entry.active.as_ref());
            files.extend(active.map(|active| (active.id.log_path(&directory), active.bytes)));
            if id == LogId::METADATA {
                for (path, bytes) in files {
                    self.take_names(&path, bytes);
                }
            }
        }
        Ok(())
    }

    fn take_names(&mut self, path: &Path, bytes: u64) {
        let Ok(mut contents) = std::fs::read(path) else {
            // Verification says so; here it only costs names.
            return self
                .notes
                .push(format!("{}: cannot be read", path.display()));
        };
        contents.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        for batch in model::batch::split(Bytes::from(contents)).map_while(Result::ok) {
            let base = batch.header().base();
            self.names.take(batch.into_bytes(), base);
        }
    }

    fn read_wal(&mut self, path: &Path, checkpoint: Option<&Checkpoint>) -> Result<()> {
        let directory = path.join("wal");
        if !directory.exists() {
            return Ok(());
        }
        let first = checkpoint.map_or(0, |checkpoint| checkpoint.wal.frame);
        for entry in RealDisk.list(&directory)? {
            if !entry.name.ends_with(".wal") {
                continue;
            }
            self.wal_files += 1;
            self.wal_file_bytes += entry.len;
            let path = directory.join(&entry.name);
            let file = RealDisk.open(&path, OpenHow::Read)?;
            let mut take = |item: WalItem| {
                let WalItem::Frame(frame) = item else { return };
                for entry in frame.entries.iter().filter(|_| frame.sequence >= first) {
                    let Ok(id) = entry.log.parse::<LogId>() else {
                        continue;
                    };
                    let log = self.logs.entry(id).or_default();
                    if entry.kind == "start-raised" {
                        log.start = log.start.max(Offset::new(entry.offset));
                        continue;
                    }
                    if entry.end_offset <= log.end.get() {
                        continue;
                    }
                    log.end = Offset::new(entry.end_offset);
                    log.wal_bytes += u64::from(entry.bytes);
                    if id == LogId::METADATA {
                        let mut bytes = vec![0; entry.bytes as usize];
                        if file.read_exact_at(entry.position, &mut bytes).is_ok() {
                            self.names.take(bytes.into(), Offset::new(entry.offset));
                        }
                    }
                }
            };
            let summary = inspect::dump_wal(&RealDisk, &path, &mut take)
                .with_context(|| path.display().to_string())?;
            self.store = self.store.or(summary.store);
        }
        Ok(())
    }
}

/// The segments of a log, in order. Where the manifest is lost that the checkpoint names, those whose index is there: a start
/// puts it together from these.
fn segments_of(directory: &Path, loaded: &Loaded, entry: Option<&LogEntry>) -> Vec<Segment> {
    let start = entry.map_or(Offset::ZERO, |entry| entry.start_offset);
    let wanted = entry.map_or(0, |entry| entry.manifest);
    let mut segments: Vec<Segment> = Vec::new();
    match &loaded.manifest {
        Some(manifest) if manifest.number >= wanted => {
            let kept = manifest
                .sealed()
                .filter(|(_, sealed)| sealed.end_offset > start);
            segments.extend(kept.map(|(entry, sealed)| Segment {
                id: entry.id,
                kind: entry.kind,
                end: sealed.end_offset,
                path: entry.id.log_path(directory),
                trouble: loaded.trouble(entry.id, sealed),
            }));
        }
        _ => {
            for name in loaded.segments.keys() {
                let Some((id, _)) = SegmentId::parse(name) else {
                    continue;
                };
                let index = inspect::dump_index(&RealDisk, &id.index_path(directory));
                let Ok(Ok(found)) = index else { continue };
                segments.push(Segment {
                    id,
                    kind: found.index.kind(),
                    end: found.index.end_offset(),
                    path: id.log_path(directory),
                    trouble: None,
                });
            }
        }
    }
    if let Some((entry, active)) = entry.and_then(|entry| Some((entry, entry.active.as_ref()?))) {
        let there = loaded.segments.get(&active.id.log_name());
        let trouble = match there {
            None => Some(format!("segment {} is missing", active.id)),
            Some(bytes) if *bytes < active.bytes => Some(format!(
                "segment {}: the file has {bytes} bytes, {} were settled",
                active.id, active.bytes
            )),
            Some(_) => None,
        };
        segments.retain(|segment| segment.id.base < active.id.base);
        segments.push(Segment {
            id: active.id,
            kind: SegmentKind::Plain,
            end: entry.settled_end,
            path: active.id.log_path(directory),
            trouble,
        });
    }
    // Of two generations the higher one counts.
    segments.sort_by_key(|segment| (segment.id.base, std::cmp::Reverse(segment.id.generation)));
    segments.dedup_by_key(|segment| segment.id.base);
    segments
}

/// The directories of partitions, in order.
pub(super) fn partitions(path: &Path) -> Result<Vec<(LogId, PathBuf)>> {
    let root = path.join("p");
    let mut found = Vec::new();
    if !root.exists() {
        return Ok(found);
    }
    for spread in RealDisk
        .list(&root)?
        .into_iter()
        .filter(|entry| entry.is_dir)
    {
        let spread = root.join(spread.name);
        for entry in RealDisk
            .list(&spread)?
            .into_iter()
            .filter(|entry| entry.is_dir)
        {
            if let Ok(log) = entry.name.parse() {
                found.push((log, spread.join(&entry.name)));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The lines of the file `DAMAGE`.
pub(super) fn known_damage(path: &Path) -> Result<Vec<Known>> {
    let path = path.join("DAMAGE");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let known = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        Known {
            log: text("log"),
            from: value["from"].as_u64().unwrap_or(0),
            to: value["to"].as_u64().unwrap_or(0),
            reason: text("reason").unwrap_or_else(|| format!("a line that cannot be read: {line}")),
        }
    };
    Ok(text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(known)
        .collect())
}

fn counted(count: usize) -> String {
    match count {
        1 => "1 thing that was set aside".to_owned(),
        _ => format!("{count} things that were set aside"),
    }
}
