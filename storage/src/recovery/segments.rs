//! Finds a log's segments again at a start, as the checkpoint names them.
//!
//! Caller: the settler, once for each log, before any thread runs. What cannot be found costs no more than itself: a lost or
//! cut segment its own records, a lost active segment what had settled into it, a lost manifest nothing that the indexes of
//! the sealed segments still tell. Nothing is opened but the active segment: the listing tells names and lengths.
//! Invariant: all offsets from the log's start to its settled end lie in the segments that are given, or are given as lost.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;

use model::{LogId, Offset};

use crate::checkpoint::{ActiveSegment, LogEntry};
use crate::data_dir::DataDir;
use crate::error::OpenError;
use crate::io::Disk;
use crate::manifest::{self, Loaded, Manifest, Sealed, SegmentEntry, SegmentKind};
use crate::segment::{SegmentError, SegmentFileKind, SegmentId, SegmentWriter, read_index_file};

/// Offsets that are lost with their segment, and why.
pub(crate) type Lost = (Range<Offset>, String);

/// What was found of a log.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// The sealed segments; None for none.
    pub manifest: Option<Manifest>,
    /// The one that is settled into.
    pub active: Option<SegmentWriter>,
    /// Whether the manifest was lost and put together again: it is to be stored.
    pub is_rebuilt: bool,
    /// What is not there any more, or not whole.
    pub lost: Vec<Lost>,
}

/// Finds the manifest and the active segment that the checkpoint names. Errors are the disk's.
pub(crate) fn restore(data: &DataDir, entry: &LogEntry) -> Result<Restored, OpenError> {
    let mut restored = Restored::default();
    if entry.manifest == 0 && entry.active.is_none() {
        return Ok(restored);
    }
    let directory = data.of_log(entry.log);
    let disk = data.disk();
    if !disk
        .exists(&directory)
        .map_err(OpenError::io("look for", &directory))?
    {
        let reason = format!("the directory {} is missing", directory.display());
        restored
            .lost
            .push((entry.start_offset..entry.settled_end, reason));
        return Ok(restored);
    }
    if entry.manifest > 0 {
        restore_manifest(disk, &directory, entry, &mut restored)
            .map_err(OpenError::io("read the manifests in", &directory))?;
    }
    if let Some(active) = &entry.active {
        match restore_active(data, &directory, entry, active)? {
            Ok(writer) => restored.active = Some(writer),
            Err(reason) => {
                let lost = active.id.base..entry.settled_end;
                restored.lost.push((lost, reason));
            }
        }
    }
    Ok(restored)
}

/// The active segment, or why it cannot be gone on with: then what is left of it is set aside.
fn restore_active(
    data: &DataDir,
    directory: &Path,
    entry: &LogEntry,
    active: &ActiveSegment,
) -> Result<Result<SegmentWriter, String>, OpenError> {
    let (disk, end) = (data.shared_disk(), entry.settled_end);
    let path = active.id.log_path(directory);
    let reason = match SegmentWriter::resume(disk, directory.to_owned(), entry.log, active, end) {
        Ok(mut writer) => {
            writer.close();
            return Ok(Ok(writer));
        }
        Err(SegmentError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(Err(format!("segment {} is missing", active.id)));
        }
        Err(SegmentError::Io { source, .. }) if source.raw_os_error() != Some(libc::EIO) => {
            return Err(OpenError::io("open", path)(source));
        }
        Err(error) => error.to_string(),
    };
    data.set_aside(&path)?;
    Ok(Err(reason))
}

/// The manifest that the checkpoint names, and which of its segments the listing shows to be lost.
fn restore_manifest(
    disk: &dyn Disk,
    directory: &Path,
    entry: &LogEntry,
    restored: &mut Restored,
) -> io::Result<()> {
    let log = entry.log;
    let loaded = manifest::load(disk, directory, log)?;
    for rejected in &loaded.rejected {
        tracing::warn!(%log, name = rejected.name, reason = rejected.reason, "a manifest cannot be used");
    }
    let found = [&loaded.manifest, &loaded.previous]
        .into_iter()
        .flatten()
        .find(|found| found.number == entry.manifest);
    let Some(found) = found else {
        tracing::error!(%log, manifest = entry.manifest, "a manifest is missing or damaged: the segments' indexes stand in for it");
        let (manifest, lost) = rebuild(disk, directory, entry, &loaded)?;
        (restored.manifest, restored.lost) = (Some(manifest), lost);
        restored.is_rebuilt = true;
        return Ok(());
    };
    // One that is newer was stored by a round that no checkpoint has seen.
    for number in found.number + 1..=loaded.number_max {
        let path = directory.join(manifest::file_name(number));
        if disk.exists(&path)? {
            disk.remove_file(&path)?;
        }
    }
    let entry_start = entry.start_offset;
    let kept = |sealed: &Sealed| sealed.end_offset > entry_start;
    let lost = found.sealed().filter_map(|(entry, sealed)| {
        if !kept(sealed) {
            return None;
        }
        let reason = loaded.trouble(entry.id, sealed)?;
        Some((entry.id.base..sealed.end_offset, reason))
    });
    restored.lost = lost.collect();
    let mut manifest = found.clone();
    // What was deleted on a full disk went without a new manifest.
    manifest.segments.retain(|entry| {
        let sealed = entry.sealed.as_ref();
        sealed.is_none_or(kept)
    });
    restored.is_rebuilt = manifest.segments.len() < found.segments.len();
    restored.manifest = Some(manifest);
    Ok(())
}

/// Puts a lost manifest together from what another one, or the index of each sealed segment, tells of the files that are there.
/// Where files stand for the same offsets the higher generation counts: its index was written when all of it was durable, and
/// what it left out was to go. It has the number that was lost; the settler's first round stores it under the next one.
fn rebuild(
    disk: &dyn Disk,
    directory: &Path,
    entry: &LogEntry,
    loaded: &Loaded,
) -> io::Result<(Manifest, Vec<Lost>)> {
    let active = entry.active.as_ref().map(|active| active.id.base);
    let end = active.unwrap_or(entry.settled_end);
    let mut found = Vec::new();
    for (name, bytes) in &loaded.segments {
        if let Some((id, SegmentFileKind::Log)) = SegmentId::parse(name)
            && let Some(told) = told_of(disk, directory, entry.log, id, *bytes, loaded)?
        {
            found.push(told);
        }
    }
    found.sort_unstable_by_key(|(id, ..)| (Reverse(id.generation), id.base));
    let mut segments: BTreeMap<Offset, SegmentEntry> = BTreeMap::new();
    for (id, kind, sealed) in found {
        if sealed.end_offset <= entry.start_offset || sealed.end_offset > end {
            continue;
        }
        // Of those that are taken, the last one that begins before this one ends.
        let neighbour = segments.range(..sealed.end_offset).next_back();
        let is_covered = neighbour
            .is_some_and(|(_, taken)| taken.sealed.is_none_or(|taken| taken.end_offset > id.base));
        if !is_covered {
            segments.insert(id.base, SegmentEntry::sealed(id, kind, sealed));
        }
    }
    let mut lost = Vec::new();
    let mut reached = entry.start_offset;
    let mut lose = |range: Range<Offset>| {
        if range.start < range.end {
            let reason = format!(
                "manifest {} is lost, and with it their segment",
                entry.manifest
            );
            lost.push((range, reason));
        }
    };
    let segments: Vec<SegmentEntry> = segments.into_values().collect();
    for (segment, sealed) in segments
        .iter()
        .filter_map(|segment| Some((segment, segment.sealed?)))
    {
        lose(reached..segment.id.base);
        reached = sealed.end_offset;
    }
    lose(reached..end);
    let older = [&loaded.manifest, &loaded.previous]
        .into_iter()
        .flatten()
        .find(|known| known.number < entry.manifest);
    let manifest = Manifest {
        log: entry.log,
        number: entry.manifest,
        start_offset: entry.start_offset,
        compacted_to: older.map_or(Offset::ZERO, |known| known.compacted_to),
        segments,
    };
    Ok((manifest, lost))
}

/// What another manifest or its index tells of a segment's file, if it is of this length. None if neither does.
fn told_of(
    disk: &dyn Disk,
    directory: &Path,
    log: LogId,
    id: SegmentId,
    bytes: u64,
    loaded: &Loaded,
) -> io::Result<Option<(SegmentId, SegmentKind, Sealed)>> {
    let named = [&loaded.manifest, &loaded.previous]
        .into_iter()
        .flatten()
        .flat_map(Manifest::sealed)
        .find(|(named, sealed)| named.id == id && sealed.bytes == bytes);
    if let Some((entry, sealed)) = named {
        return Ok(Some((id, entry.kind, *sealed)));
    }
    let read = match read_index_file(disk, directory, log, id, bytes) {
        Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(None),
        read => read?,
    };
    Ok(read
        .ok()
        .map(|found| (id, found.index.kind(), found.index.sealed())))
}
