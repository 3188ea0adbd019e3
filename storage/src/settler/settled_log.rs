//! One log as the settler knows it: what is settled, the step that settles more, and the way back to the checkpoint.
//!
//! Callers: the settler's rounds. Nothing here syncs: files and directories are collected, and nothing names them before
//! they are synced. A step that fails, or whose sync fails, is taken back to what the newest checkpoint says: after a failed
//! sync nothing is known about the bytes in the page cache, and the write-ahead log still holds them all.
//! Invariant: between rounds a [`SettledLog`] is what the newest checkpoint says of its log.

use std::path::PathBuf;
use std::sync::Arc;

use model::batch::BatchHeader;
use model::{LogId, Offset, Timestamp};

use super::changes::Change;
use super::error::SettleError;
use super::parts::SettlerParts;
use crate::checkpoint::{ActiveSegment, LogEntry};
use crate::data_dir::DataDir;
use crate::epochs::Epochs;
use crate::error::{OpenError, StorageFailed};
use crate::io::{AlignedBuffer, OpenHow, Syncs};
use crate::log::{ActiveView, LogSettings, Segments, TailEntry};
use crate::manifest::{self, Manifest, SegmentEntry, SegmentKind};
use crate::producers::{PRODUCER_IDLE_MS, Producers};
use crate::recovery::segments::{Lost, restore};
use crate::segment::{SegmentError, SegmentId, SegmentWriter, SettledBatch, WriteWay};

/// Runs from this size on go past the page cache, but for those of logs that are compacted.
const DIRECT_BYTES_MIN: u64 = 512 << 10;
/// Where more is asked of the disk, or more has to settle at a time, those do, too: chunk by chunk through the page cache a log settles
/// half as fast beside producers.
const THROUGH_MIB_PER_SECOND_MAX: u64 = 512;
const THROUGH_BYTES_MAX: u64 = 64 << 20;

/// What the settler knows of one log; it exists once something has settled.
#[derive(Debug, Default)]
pub(super) struct SettledLog {
    /// The first offset that is not settled yet.
    pub end: Offset,
    pub start: Offset,
    active: Option<Active>,
    manifest: Option<Arc<Manifest>>,
    /// Whether the manifest on the disk says something else.
    is_stale: bool,
    /// Sealed in this round, and not in the manifest yet.
    sealed: Vec<SegmentEntry>,
    /// Segments whose files were made in this round.
    created: Vec<SegmentId>,
    producers: Producers,
    epochs: Epochs,
}

#[derive(Debug)]
struct Active {
    writer: SegmentWriter,
    bytes_max: u64,
}

/// What a log was like at the newest checkpoint, to go back to.
#[derive(Debug)]
pub(super) struct Before {
    end: Offset,
    start: Offset,
    active: Option<(ActiveSegment, u64)>,
    manifest: Option<Arc<Manifest>>,
    is_stale: bool,
    producers: Producers,
    epochs: Epochs,
}

/// What a log has for the settler, as it was at one moment.
pub(super) struct Work {
    pub log: LogId,
    pub tail: Vec<TailEntry>,
    pub start: Offset,
    pub settings: Arc<LogSettings>,
    /// The active segment is to be sealed first.
    pub seal: bool,
    /// Producers that were idle since then are forgotten.
    pub expire_before: Option<Timestamp>,
    pub now: Timestamp,
}

impl SettledLog {
    /// What the checkpoint says of a log, at the start, and what of it is lost. True if there is something to store.
    pub fn restore(
        data: &DataDir,
        entry: &LogEntry,
    ) -> Result<(SettledLog, Vec<Lost>, bool), OpenError> {
        let restored = restore(data, entry)?;
        let is_changed = restored.is_rebuilt || !restored.lost.is_empty();
        let bytes = entry.active.as_ref().map_or(0, |active| active.bytes);
        let settled = SettledLog {
            end: entry.settled_end,
            start: entry.start_offset,
            active: restored.active.map(|writer| Active {
                writer,
                bytes_max: bytes.max(1 << 30),
            }),
            manifest: restored.manifest.map(Arc::new),
            is_stale: restored.is_rebuilt,
            producers: Producers::decode(&entry.producers).unwrap_or_default(),
            epochs: Epochs::decode(&entry.epochs).unwrap_or_default(),
            ..SettledLog::default()
        };
        Ok((settled, restored.lost, is_changed))
    }

    /// Whether it has files.
    pub fn has_files(&self) -> bool {
        self.manifest.is_some() || self.active.is_some()
    }

    /// Segments that took the place of others, and where they end.
    pub fn rewritten(&self) -> impl Iterator<Item = (SegmentId, Offset)> {
        let sealed = self.manifest.iter().flat_map(|manifest| manifest.sealed());
        sealed
            .filter(|(entry, _)| entry.id.generation > 0)
            .map(|(entry, sealed)| (entry.id, sealed.end_offset))
    }

    pub fn segments(&self) -> impl Iterator<Item = SegmentId> {
        let in_manifest = self
            .manifest
            .iter()
            .flat_map(|manifest| &manifest.segments)
            .chain(&self.sealed)
            .map(|entry| entry.id);
        in_manifest.chain(self.active.iter().map(|active| active.writer.id()))
    }

    /// What the checkpoint says of it.
    pub fn entry(&self, log: LogId) -> LogEntry {
        assert!(
            self.sealed.is_empty(),
            "a checkpoint names no segment that its manifest does not name"
        );
        assert!(
            self.active
                .as_ref()
                .is_none_or(|active| active.writer.end_offset() <= self.end),
            "a checkpoint names no batch of a segment that has not settled"
        );
        LogEntry {
            log,
            start_offset: self.start,
            settled_end: self.end,
            manifest: self.manifest.as_ref().map_or(0, |manifest| manifest.number),
            active: self.active.as_ref().map(|active| active.writer.active()),
            producers: if self.producers.is_empty() {
                Vec::new()
            } else {
                self.producers.encode()
            },
            epochs: if self.epochs.entries().is_empty() {
                Vec::new()
            } else {
                self.epochs.encode()
            },
        }
    }

    /// What readers see of it.
    pub fn view(&self) -> Segments {
        let active = self.active.as_ref().map(|active| {
            Arc::new(ActiveView {
                segment: active.writer.active(),
                end_offset: active.writer.end_offset(),
                index: active.writer.index().clone(),
                bytes_max: active.bytes_max,
            })
        });
        Segments {
            manifest: self.manifest.clone(),
            active,
        }
    }

    /// What to go back to if the round fails.
    pub fn before(&self) -> Before {
        let active = self.active.as_ref();
        Before {
            end: self.end,
            start: self.start,
            active: active.map(|active| (active.writer.active(), active.bytes_max)),
            manifest: self.manifest.clone(),
            is_stale: self.is_stale,
            producers: self.producers.clone(),
            epochs: self.epochs.clone(),
        }
    }

    /// Settles what the log has. The paths are of files that are removed after the checkpoint.
    pub fn settle(
        &mut self,
        parts: &SettlerParts,
        work: &Work,
        scratch: &mut AlignedBuffer,
        syncs: &mut Syncs<'_>,
    ) -> Result<Vec<PathBuf>, SettleError> {
        let log = work.log;
        if let Some(oldest) = work.expire_before {
            self.producers.expire(oldest);
            let idle = work.now.plus_millis(-PRODUCER_IDLE_MS);
            let most = parts.producers.per_log_max();
            self.producers.forget_idle(idle, most);
        }
        let garbage = self.raise_start(parts, log, work.start);
        if work.seal
            && self
                .active
                .as_ref()
                .is_some_and(|active| active.writer.bytes() > 0)
        {
            self.seal_active(parts, log, syncs)?;
        }
        let tail = self.pass_over(log, &work.tail)?;
        self.settle_tail(parts, work, tail, scratch, syncs)?;
        // Not past what is settled: the start may already lie in what is still in the WAL.
        self.epochs.forget_before(work.start.min(self.end));
        if let Some(active) = &mut self.active {
            active
                .writer
                .sync_with(syncs)
                .map_err(SettleError::io(log))?;
        }
        Ok(garbage)
    }

    /// Changes the manifest as somebody asks. Gives the segments that are replaced, or the one because of which nothing is
    /// changed.
    pub fn apply(&mut self, change: &Change) -> Result<Vec<SegmentId>, SegmentId> {
        let (old, new, compacted_to) = match change {
            Change::Replace {
                old,
                new,
                compacted_to,
            } => (&old[..], Some(*new), *compacted_to),
            Change::CompactedTo(to) => (&[][..], None, Some(*to)),
        };
        let Some(manifest) = &self.manifest else {
            return old.first().map_or(Ok(Vec::new()), |first| Err(*first));
        };
        let mut manifest = Manifest::clone(manifest);
        manifest.compacted_to = manifest
            .compacted_to
            .max(compacted_to.unwrap_or(Offset::ZERO));
        if let (Some(new), Some(first)) = (new, old.first()) {
            let at = manifest
                .segments
                .iter()
                .position(|entry| entry.id == *first)
                .ok_or(*first)?;
            let named = &manifest.segments[at..];
            for (index, id) in old.iter().enumerate() {
                let is_it = named.get(index).is_some_and(|entry| entry.id == *id);
                is_it.then_some(()).ok_or(*id)?;
            }
            let ends = |entry: &SegmentEntry| entry.sealed.map(|sealed| sealed.end_offset);
            assert!(
                new.id.base == first.base
                    && ends(&new) == ends(&named[old.len() - 1])
                    && old.iter().all(|old| old.generation < new.id.generation),
                "a new segment stands for all offsets of those that it replaces, in a later generation"
            );
            manifest.segments.splice(at..at + old.len(), [new]);
        }
        self.manifest = Some(Arc::new(manifest));
        self.is_stale = true;
        Ok(old.to_vec())
    }

    /// Takes segments off that lie before the start. The paths are of their files, which go after the checkpoint.
    pub fn raise_start(&mut self, parts: &SettlerParts, log: LogId, start: Offset) -> Vec<PathBuf> {
        assert!(start >= self.start, "a log's start is only raised");
        self.start = start;
        let mut garbage = Vec::new();
        let directory = parts.data().of_log(log);
        let is_passed = |entry: &SegmentEntry| {
            entry
                .sealed
                .is_some_and(|sealed| sealed.end_offset <= start)
        };
        if let Some(manifest) = &self.manifest
            && manifest.segments.iter().any(is_passed)
        {
            let (passed, live): (Vec<_>, Vec<_>) =
                manifest.segments.iter().copied().partition(is_passed);
            for entry in passed {
                parts.files.retire(log, entry.id);
                garbage.extend(entry.id.paths(&directory));
            }
            self.manifest = Some(Arc::new(Manifest {
                segments: live,
                start_offset: start,
                ..Manifest::clone(manifest)
            }));
            self.is_stale = true;
        }
        if let Some(active) = self
            .active
            .take_if(|active| active.writer.bytes() > 0 && active.writer.end_offset() <= start)
        {
            parts.files.cache.retire(log, active.writer.id());
            garbage.push(active.writer.id().log_path(&directory));
        }
        garbage
    }

    /// Passes over batches that were deleted before they were settled: they need no space. Gives the rest.
    fn pass_over<'a>(
        &mut self,
        log: LogId,
        tail: &'a [TailEntry],
    ) -> Result<&'a [TailEntry], SettleError> {
        let waiting = tail.partition_point(|entry| entry.base < self.end);
        let tail = &tail[waiting..];
        let deleted = tail.partition_point(|entry| entry.next <= self.start);
        let (deleted, tail) = tail.split_at(deleted);
        for entry in deleted {
            let header = header_of(log, entry)?;
            self.note(&header, entry.append_time);
            self.end = entry.next;
        }
        assert!(
            tail.first().is_none_or(|entry| entry.base >= self.end),
            "no batch settles twice"
        );
        Ok(tail)
    }

    /// The producer's state and the epochs go on by a batch that is settled, or passed over.
    fn note(&mut self, header: &BatchHeader, append_time: Timestamp) {
        self.producers.record(header, header.base(), append_time);
        if let Some(epoch) = header.epoch() {
            self.epochs.begin(epoch, header.base());
        }
    }

    fn settle_tail(
        &mut self,
        parts: &SettlerParts,
        work: &Work,
        tail: &[TailEntry],
        scratch: &mut AlignedBuffer,
        syncs: &mut Syncs<'_>,
    ) -> Result<(), SettleError> {
        let log = work.log;
        let bytes: u64 = tail.iter().map(|entry| u64::from(entry.bytes)).sum();
        let is_compacted = work.settings.compaction.is_some();
        let way = way_for(bytes, is_compacted, || parts.demand.mib_per_second());
        let mut run = Run::default();
        let mut end = self.end;
        for entry in tail {
            assert!(
                entry.base >= end && entry.next > entry.base,
                "a tail's batches follow each other"
            );
            let header = header_of(log, entry)?;
            let is_gap = entry.base != end;
            if self.active.as_ref().is_some_and(|active| {
                is_gap || active.is_full(&run, entry, &work.settings, work.now)
            }) {
                self.flush(log, &mut run, way, scratch)?;
                self.seal_active(parts, log, syncs)?;
            }
            if self.active.is_none() {
                self.create_segment(parts, log, entry, &work.settings, syncs)?;
            }
            let active = self.active.as_mut().expect("it was just made");
            active.bytes_max = active
                .bytes_max
                .max(active.writer.bytes() + run.bytes + u64::from(entry.bytes));
            run.bytes += u64::from(entry.bytes);
            run.batches.push(SettledBatch {
                bytes: entry.slice(),
                header,
                append_time: entry.append_time,
            });
            end = entry.next;
        }
        self.flush(log, &mut run, way, scratch)?;
        assert!(
            self.end == end,
            "the whole tail settles, or an error is told"
        );
        Ok(())
    }

    fn create_segment(
        &mut self,
        parts: &SettlerParts,
        log: LogId,
        first: &TailEntry,
        settings: &LogSettings,
        syncs: &mut Syncs<'_>,
    ) -> Result<(), SettleError> {
        assert!(
            self.active.is_none() && first.base >= self.end,
            "one segment is active, and it begins behind all others"
        );
        let directory = parts.data().of_log(log);
        let id = SegmentId::first(first.base);
        let writer = (|| {
            syncs.create_directory(&directory)?;
            let path = id.log_path(&directory);
            if parts.data().disk().exists(&path)? {
                // The rest of a settling that no checkpoint has named.
                parts.data().disk().remove_file(&path)?;
            }
            let disk = parts.data().shared_disk();
            let writer = SegmentWriter::create(disk, directory.clone(), log, id)?;
            syncs.directory(&directory);
            Ok(writer)
        })()
        .map_err(SettleError::io(log))?;
        let bytes_max = settings
            .segment_bytes
            .max(u64::from(first.bytes))
            .min(u64::from(u32::MAX));
        self.created.push(id);
        self.active = Some(Active { writer, bytes_max });
        Ok(())
    }

    /// Writes what is on its way.
    fn flush(
        &mut self,
        log: LogId,
        run: &mut Run,
        way: WriteWay,
        scratch: &mut AlignedBuffer,
    ) -> Result<(), SettleError> {
        let run = std::mem::take(run);
        let Some(active) = self.active.as_mut().filter(|_| !run.batches.is_empty()) else {
            return Ok(());
        };
        scratch.clear();
        let bytes_before = active.writer.bytes();
        active
            .writer
            .append(&run.batches, way, scratch)
            .map_err(SettleError::io(log))?;
        let before = std::mem::replace(&mut self.end, active.writer.end_offset());
        assert!(before < self.end, "what settles follows what has settled");
        assert!(
            active.writer.bytes() == bytes_before + run.bytes
                && active.writer.bytes() <= active.bytes_max,
            "a segment grows by what was gathered, and no further than its map"
        );
        for batch in &run.batches {
            self.note(&batch.header, batch.append_time);
        }
        Ok(())
    }

    fn seal_active(
        &mut self,
        parts: &SettlerParts,
        log: LogId,
        syncs: &mut Syncs<'_>,
    ) -> Result<(), SettleError> {
        let Some(active) = self.active.take() else {
            return Ok(());
        };
        let sealed = active
            .writer
            .seal_with(&self.producers, &self.epochs, syncs)
            .map_err(SettleError::segment(log))?;
        assert!(
            sealed.id.base < sealed.sealed.end_offset && sealed.sealed.end_offset <= self.end,
            "a sealed segment holds what has settled, and something"
        );
        parts.files.cache.forget(log, sealed.id);
        if let Some(error) = sealed.damage {
            tracing::error!(%log, %error, "a segment was damaged before it was sealed");
            match error {
                // Batch by batch the scrub would find nothing wrong.
                SegmentError::Foreign { .. } => {
                    let range = sealed.id.base..sealed.sealed.end_offset;
                    if let Some(log) = parts.registry.get(log) {
                        parts.damage.note_lost(log.cell(), range, error.to_string());
                    }
                }
                _ => parts.files.suspects.add(log, sealed.id),
            }
        }
        self.sealed.push(SegmentEntry::sealed(
            sealed.id,
            SegmentKind::Plain,
            sealed.sealed,
        ));
        Ok(())
    }

    /// Writes the manifest if it is to change; what it names has been synced.
    pub fn write_manifest(
        &mut self,
        parts: &SettlerParts,
        log: LogId,
        syncs: &mut Syncs<'_>,
    ) -> Result<(), SettleError> {
        if self.sealed.is_empty() && !self.is_stale {
            return Ok(());
        }
        let mut segments = self
            .manifest
            .as_ref()
            .map_or_else(Vec::new, |manifest| manifest.segments.clone());
        segments.extend(self.sealed.iter().copied());
        assert!(
            segments.is_sorted_by(|one, next| one.id.base < next.id.base),
            "a manifest names segments in the order of their offsets"
        );
        let number = self.manifest.as_ref().map_or(0, |known| known.number) + 1;
        let manifest = Manifest {
            log,
            number,
            start_offset: self.start,
            compacted_to: self
                .manifest
                .as_ref()
                .map_or(Offset::ZERO, |known| known.compacted_to),
            segments,
        };
        let directory = parts.data().of_log(log);
        let path = directory.join(manifest::file_name(number));
        (|| {
            if parts.data().disk().exists(&path)? {
                // A round that was given up left it; no checkpoint names it.
                parts.data().disk().remove_file(&path)?;
            }
            manifest::write(parts.data().disk(), &directory, &manifest, syncs)
        })()
        .map_err(SettleError::io(log))?;
        self.manifest = Some(Arc::new(manifest));
        self.sealed.clear();
        self.is_stale = false;
        Ok(())
    }

    /// All of it is durable, and a checkpoint names it. True if there is a new manifest since `before`.
    pub fn kept(&mut self, before: Option<&Before>) -> bool {
        assert!(
            self.sealed.is_empty() && !self.is_stale,
            "the manifest that the checkpoint names is written"
        );
        self.created = Vec::new();
        if let Some(active) = &mut self.active {
            active.writer.mark_synced();
        }
        let number = |manifest: &Option<Arc<Manifest>>| manifest.as_ref().map(|known| known.number);
        let before = before.and_then(|before| number(&before.manifest));
        number(&self.manifest) > before
    }

    /// Removes the manifests that neither of the two newest checkpoints names.
    pub fn forget_old_manifests(&self, parts: &SettlerParts, log: LogId) {
        let Some(manifest) = &self.manifest else {
            return;
        };
        let directory = parts.data().of_log(log);
        let keep_from = manifest.number.saturating_sub(1);
        if let Err(error) = manifest::forget_older_than(parts.data().disk(), &directory, keep_from)
        {
            tracing::warn!(%log, %error, "manifests that are no longer needed could not be removed");
        }
    }

    /// Goes back to what the newest checkpoint says, and gives the space back that was taken since.
    pub fn take_back(
        self,
        parts: &SettlerParts,
        log: LogId,
        before: Option<Before>,
    ) -> Result<Option<SettledLog>, SettleError> {
        assert!(
            before.as_ref().is_none_or(|before| before.end <= self.end),
            "what is taken back had settled since"
        );
        let directory = parts.data().of_log(log);
        let number = |manifest: &Option<Arc<Manifest>>| {
            manifest.as_ref().map_or(0, |manifest| manifest.number)
        };
        let known = before.as_ref().map_or(0, |before| number(&before.manifest));
        for id in self.created {
            parts.files.cache.forget(log, id);
            parts.remove_quietly(&id.index_path(&directory));
            parts.remove_quietly(&id.log_path(&directory));
        }
        if number(&self.manifest) > known {
            let name = manifest::file_name(known + 1);
            parts.remove_quietly(&directory.join(name));
        }
        let Some(before) = before else {
            return Ok(None);
        };
        let mut active = None;
        if let Some((segment, bytes_max)) = before.active {
            let disk = parts.data().shared_disk();
            let (id, end) = (segment.id, before.end);
            let writer = SegmentWriter::resume(disk, directory.clone(), log, &segment, end)
                .map_err(SettleError::segment(log))?;
            // Readers stay below what was published, so that the file may be cut behind it.
            let cut = || {
                let path = id.log_path(&directory);
                let file = parts.data().disk().open(&path, OpenHow::ReadWrite)?;
                if file.len()? > segment.bytes {
                    file.set_len(segment.bytes)?;
                }
                Ok(())
            };
            cut().map_err(SettleError::io(log))?;
            parts.remove_quietly(&id.index_path(&directory));
            active = Some(Active { writer, bytes_max });
        }
        Ok(Some(SettledLog {
            end: before.end,
            start: before.start,
            active,
            manifest: before.manifest,
            is_stale: before.is_stale,
            producers: before.producers,
            epochs: before.epochs,
            ..SettledLog::default()
        }))
    }
}

fn header_of(log: LogId, entry: &TailEntry) -> Result<BatchHeader, SettleError> {
    BatchHeader::parse(&entry.slice()).map_err(|error| {
        SettleError::Failed(StorageFailed::new(format!(
            "settling {log}: the WAL at offset {}: {error}",
            entry.base
        )))
    })
}

/// How a run of so many bytes of a log is written. The demand is asked for if it matters, in MiB a second.
fn way_for(bytes: u64, is_compacted: bool, demand: impl FnOnce() -> u64) -> WriteWay {
    if bytes < DIRECT_BYTES_MIN {
        return WriteWay::Buffered;
    }
    // It is read again soon, from memory if it is there.
    let has_time = || bytes <= THROUGH_BYTES_MAX && demand() <= THROUGH_MIB_PER_SECOND_MAX;
    match is_compacted && has_time() {
        true => WriteWay::Through,
        false => WriteWay::Direct,
    }
}

/// Batches on their way into the active segment.
#[derive(Debug, Default)]
struct Run {
    batches: Vec<SettledBatch>,
    bytes: u64,
}

impl Active {
    /// Whether the segment is sealed before `next` comes, behind what is on its way.
    fn is_full(&self, run: &Run, next: &TailEntry, settings: &LogSettings, now: Timestamp) -> bool {
        let written = self.writer.bytes() + run.bytes;
        if written == 0 {
            return false;
        }
        let first = match run.batches.first() {
            Some(first) if self.writer.bytes() == 0 => first.append_time,
            _ => self.writer.first_append_time(),
        };
        let length = written + u64::from(next.bytes);
        let reach = next.next.get().saturating_sub(self.writer.id().base.get());
        length > settings.segment_bytes
            || length > u64::from(u32::MAX)
            || reach > u64::from(u32::MAX)
            || now.millis_since(first) > i64::try_from(settings.segment_ms).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_runs_go_past_the_page_cache_but_for_compacted_logs_while_the_disk_has_time() {
        const MIB: u64 = 1 << 20;
        let quiet = |bytes, is_compacted| way_for(bytes, is_compacted, || 0);
        for is_compacted in [false, true] {
            assert_eq!(quiet(512 * 1024 - 1, is_compacted), WriteWay::Buffered);
        }
        assert_eq!(quiet(512 * 1024, false), WriteWay::Direct);
        assert_eq!(quiet(512 * 1024, true), WriteWay::Through);
        assert_eq!(quiet(64 * MIB, true), WriteWay::Through);
        assert_eq!(quiet(64 * MIB + 1, true), WriteWay::Direct);
        assert_eq!(way_for(MIB, true, || 512), WriteWay::Through);
        assert_eq!(way_for(MIB, true, || 513), WriteWay::Direct);
    }
}
