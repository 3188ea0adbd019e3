//! Builds a checkpoint where both are lost: what manifests and segments hold has settled, and the write-ahead log is replayed from
//! the oldest frame on from which no frame is missing.
//!
//! Source of what is safe here: a file of the log is used again only once two checkpoints lie past it, so that whatever is in no
//! frame any more is in a segment that a manifest names, or in the active one. Batches that both hold are replayed for nothing:
//! what ends at or before the settled end is passed over. Each batch of an active segment is checked before it is believed.

use std::path::Path;

use model::{LeaderEpoch, LogId, Offset, Timestamp};
use uuid::Uuid;

use super::plan::RepairError;
use crate::checkpoint::{ActiveSegment, Checkpoint, LogEntry, WalPosition};
use crate::epochs::Epochs;
use crate::io::{Disk, OpenHow};
use crate::manifest::{self, Loaded, SegmentKind};
use crate::producers::Producers;
use crate::segment::verify::SegmentVerifier;
use crate::segment::{SegmentFileKind, SegmentId, read_index_file};
use crate::wal::format::FrameHead;
use crate::wal::pool::sequence_of;
use crate::wal::reader::scan_heads;

/// Builds the checkpoint. Changes nothing.
pub(super) fn build(
    disk: &dyn Disk,
    root: &Path,
    store: Uuid,
    now: Timestamp,
) -> Result<Checkpoint, RepairError> {
    let (wal, leader_epoch) = replay_from(disk, &root.join("wal"), store)?;
    let mut logs = Vec::new();
    let partitions = root.join("p");
    let list = |directory: &Path| {
        disk.list(directory)
            .map_err(RepairError::io("list", directory))
    };
    for spread in list(&partitions)?.into_iter().filter(|entry| entry.is_dir) {
        let spread = partitions.join(spread.name);
        for entry in list(&spread)?.into_iter().filter(|entry| entry.is_dir) {
            if let Ok(log) = entry.name.parse::<LogId>() {
                logs.extend(of_log(disk, &spread.join(&entry.name), log, now)?);
            }
        }
    }
    Ok(Checkpoint {
        store,
        sequence: 1,
        leader_epoch: leader_epoch.unwrap_or(LeaderEpoch::new(0)),
        wal,
        logs,
    })
}

/// What one file of the write-ahead log begins with, and all of its frames.
struct Frames {
    file: u64,
    heads: Vec<(u64, FrameHead)>,
}

/// The oldest frame from which on the numbers continue to the newest, and the largest leader epoch.
fn replay_from(
    disk: &dyn Disk,
    directory: &Path,
    store: Uuid,
) -> Result<(WalPosition, Option<LeaderEpoch>), RepairError> {
    let mut files = Vec::new();
    let names = disk
        .list(directory)
        .map_err(RepairError::io("list", directory))?;
    for entry in names {
        let Some(file) = sequence_of(&entry.name) else {
            continue;
        };
        let path = directory.join(&entry.name);
        let opened = disk
            .open(&path, OpenHow::Read)
            .map_err(RepairError::io("open", &path))?;
        let heads = scan_heads(&*opened, store, file, 0).map_err(RepairError::io("read", &path))?;
        if !heads.is_empty() {
            files.push(Frames { file, heads });
        }
    }
    files.sort_by_key(|frames| frames.file);
    let heads = files.iter().flat_map(|frames| &frames.heads);
    let epoch = heads.map(|(_, head)| head.leader_epoch).max();
    let Some(newest) = files.last() else {
        return Ok((WalPosition::BEGINNING, None));
    };
    let mut first = newest;
    for older in files.iter().rev().skip(1) {
        let wanted = first.heads[0].1.sequence.saturating_sub(1);
        if !older.heads.iter().any(|(_, head)| head.sequence == wanted) {
            break;
        }
        first = older;
    }
    let (position, head) = first.heads[0];
    let from = WalPosition {
        file: first.file,
        position,
        frame: head.sequence,
    };
    Ok((from, epoch))
}

/// What is settled of a log. None if it has neither a manifest nor a segment.
fn of_log(
    disk: &dyn Disk,
    directory: &Path,
    log: LogId,
    now: Timestamp,
) -> Result<Option<LogEntry>, RepairError> {
    let loaded =
        manifest::load(disk, directory, log).map_err(RepairError::io("read", directory))?;
    let manifest = loaded.manifest.as_ref();
    let sealed = match manifest {
        Some(found) => found
            .sealed()
            .map(|(entry, sealed)| (entry.id, sealed.end_offset, sealed.bytes))
            .collect(),
        None => by_indexes(disk, directory, log, &loaded)?,
    };
    let last = sealed.last().copied();
    // A start puts a lost manifest together from the indexes, if it is told that there was one.
    let number = match manifest {
        Some(found) => found.number,
        None if last.is_some() => loaded.number_max.max(1),
        None => 0,
    };
    let start = match manifest {
        Some(found) => Some(found.start_offset),
        None => sealed.first().map(|(id, ..)| id.base),
    };
    let (mut producers, mut epochs) = (Producers::default(), Epochs::default());
    if let Some((id, _, bytes)) = last
        && let Ok(Ok(found)) = read_index_file(disk, directory, log, id, bytes)
    {
        (producers, epochs) = (found.producers, found.epochs);
    }
    let sealed_end = last.map(|(_, end, _)| end);
    let Some(id) = active_of(&loaded, &sealed) else {
        return Ok(sealed_end.zip(start).map(|(end, start)| LogEntry {
            log,
            start_offset: start.min(end),
            settled_end: end,
            manifest: number,
            active: None,
            producers: producers.encode(),
            epochs: epochs.encode(),
        }));
    };
    let (active, end) = believed(disk, directory, id, now, &mut producers, &mut epochs)?;
    if active.is_none() && number == 0 {
        return Ok(None);
    }
    Ok(Some(LogEntry {
        log,
        start_offset: start.unwrap_or(id.base).min(end),
        settled_end: end,
        manifest: number,
        active,
        producers: producers.encode(),
        epochs: epochs.encode(),
    }))
}

/// What of an active segment can be believed, if anything can, and where it ends. What cannot be is the padding, or what was
/// being settled. The producers' state and the epochs go on by it.
fn believed(
    disk: &dyn Disk,
    directory: &Path,
    id: SegmentId,
    now: Timestamp,
    producers: &mut Producers,
    epochs: &mut Epochs,
) -> Result<(Option<ActiveSegment>, Offset), RepairError> {
    let path = id.log_path(directory);
    let file = disk
        .open(&path, OpenHow::Read)
        .map_err(RepairError::io("open", &path))?;
    let bytes = file.len().map_err(RepairError::io("open", &path))?;
    let mut verifier = SegmentVerifier::new(id, SegmentKind::Plain, bytes, Offset::MAX);
    let mut max_timestamp = Timestamp::from_millis(0);
    let (mut position, mut end, mut heads) = (0, id.base, verifier.heads_checksum());
    while let Ok(Some(verified)) = verifier.next_batch(&*file, None) {
        if verified.fault.is_some() {
            break;
        }
        let header = &verified.header;
        producers.record(header, header.base(), now);
        if let Some(epoch) = header.epoch() {
            epochs.begin(epoch, header.base());
        }
        max_timestamp = max_timestamp.max(header.max_time());
        (position, end, heads) = (
            verifier.position(),
            verifier.next_offset(),
            verifier.heads_checksum(),
        );
    }
    assert!(
        end >= id.base && position <= bytes,
        "what is believed lies within the segment"
    );
    let active = (end > id.base).then_some(ActiveSegment {
        id,
        bytes: position,
        max_timestamp,
        // Nothing is to be thought older than it is.
        first_append_time: now,
        last_append_time: now,
        heads_checksum: Some(heads),
    });
    Ok((active, end))
}

/// A sealed segment, its end offset and its length.
type SealedPart = (SegmentId, Offset, u64);

/// The sealed segments that have a sound index, in order; of two generations the higher one.
fn by_indexes(
    disk: &dyn Disk,
    directory: &Path,
    log: LogId,
    loaded: &Loaded,
) -> Result<Vec<SealedPart>, RepairError> {
    let mut found: Vec<SealedPart> = Vec::new();
    for (name, bytes) in &loaded.segments {
        let Some((id, SegmentFileKind::Log)) = SegmentId::parse(name) else {
            continue;
        };
        let read = read_index_file(disk, directory, log, id, *bytes)
            .map_err(RepairError::io("read", id.index_path(directory)))?;
        if let Ok(index) = read {
            found.push((id, index.index.end_offset(), *bytes));
        }
    }
    found.sort_by_key(|(id, ..)| (id.base, std::cmp::Reverse(id.generation)));
    let mut reached = Offset::ZERO;
    found.retain(|(id, end, _)| {
        let follows = id.base >= reached;
        if follows {
            reached = *end;
        }
        follows
    });
    Ok(found)
}

/// The segment behind the sealed ones: the one that was settled into.
fn active_of(loaded: &Loaded, sealed: &[SealedPart]) -> Option<SegmentId> {
    let ids = loaded
        .segments
        .keys()
        .filter_map(|name| match SegmentId::parse(name) {
            Some((id, SegmentFileKind::Log)) => Some(id),
            _ => None,
        });
    let behind = ids.filter(|id| !sealed.iter().any(|(named, ..)| named == id));
    match sealed.last() {
        Some((_, end, _)) => behind.filter(|id| id.base == *end).max(),
        None => behind.min(),
    }
}
