//! The settler: lays the tail down into segments, off the path of the acks, and frees the WAL.
//!
//! A thread of its own, or a test's calls. One round: take how far the WAL is, take every log that has a tail, append its
//! batches to its active segment (sealing as segments fill), sync, store the checkpoint, publish the new settled ends, and
//! give the WAL files back that nothing needs any more.
//! Invariants: a checkpoint names only what is durable; a WAL file is given back one checkpoint after the last that needed
//! it, so that the older of the two checkpoints can stand in for the newer; at most one manifest per log and checkpoint.
//! A failed write or sync ends the process, but for a full disk: then the round is given up, and tried again later.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::batch::BatchHeader;
use model::{LogId, Offset, Timestamp};

use crate::checkpoint::{ActiveSegment, Checkpoint, LogEntry, WalPosition};
use crate::cleanup::sweep::{Known, Swept, sweep};
use crate::committer::Progress;
use crate::epochs::Epochs;
use crate::error::{OpenError, ReadError, StorageFailed};
use crate::io::{AlignedBuffer, create_dir_durable};
use crate::log::{Log, LogSettings, TailEntry};
use crate::manifest::{self, Manifest, SegmentEntry};
use crate::producers::Producers;
use crate::restore::{Lost, restore};
use crate::segment::{SegmentError, SegmentId, SegmentWriter, SettledBatch, WriteWay};
use crate::segments::{ActiveView, Segments};
use crate::storage::Shared;
use crate::wal::pool::is_full;

/// Pieces from this size on go past the page cache.
const DIRECT_BYTES_MIN: u64 = 512 << 10;
/// More files than this are synced by one sync of the file system.
const FILE_SYNCS_MAX: usize = 24;
/// Memory for one direct write.
const SCRATCH_BYTES: usize = 2 << 20;

/// Why a round was given up.
#[derive(Debug)]
pub(crate) enum SettleError {
    /// No space: nothing is lost, the WAL still holds it.
    DiskFull,
    /// The disk failed.
    Failed(StorageFailed),
}

impl std::fmt::Display for SettleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SettleError::DiskFull => f.write_str("the disk is full"),
            SettleError::Failed(failure) => f.write_str(&failure.reason),
        }
    }
}

impl SettleError {
    fn io(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> SettleError {
        move |error| {
            if is_full(&error) {
                return SettleError::DiskFull;
            }
            SettleError::Failed(StorageFailed::new(format!("settling {what}: {error}")))
        }
    }

    fn segment(log: LogId) -> impl FnOnce(SegmentError) -> SettleError {
        move |error| match error {
            SegmentError::Io { source, .. } => SettleError::io(log)(source),
            SegmentError::Damaged { .. } | SegmentError::Foreign { .. } => {
                SettleError::Failed(StorageFailed::new(format!("settling {log}: {error}")))
            }
        }
    }
}

/// What the settler knows of one log; it exists once something has settled.
#[derive(Debug, Default)]
struct Laid {
    /// The first offset that is not laid down yet.
    end: Offset,
    start: Offset,
    active: Option<Active>,
    manifest: Option<Arc<Manifest>>,
    /// Whether the manifest is not on the disk as it is here.
    is_rebuilt: bool,
    /// Sealed in this round, and not in the manifest yet.
    sealed: Vec<SegmentEntry>,
    producers: Producers,
    epochs: Epochs,
}

/// The active segment, and what to go back to if the writer is lost to a full disk.
#[derive(Debug)]
struct Active {
    writer: SegmentWriter,
    bytes_max: u64,
}

/// The settler's state.
#[derive(Debug)]
pub(crate) struct Settler {
    laid: HashMap<LogId, Laid>,
    scratch: AlignedBuffer,
    /// The WAL file where the newest checkpoint's replay begins.
    last_wal: u64,
    /// Whether the newest checkpoint names a log that is forgotten.
    forgotten: bool,
    last_expiry_ms: i64,
    /// Logs whose directories were not tidied since the start.
    unswept: Vec<LogId>,
}

impl Settler {
    pub fn new(from: WalPosition) -> Settler {
        Settler {
            laid: HashMap::new(),
            scratch: AlignedBuffer::with_capacity(SCRATCH_BYTES),
            last_wal: from.file,
            forgotten: false,
            last_expiry_ms: 0,
            unswept: Vec::new(),
        }
    }

    /// What the checkpoint says of a log, at the start. Gives the view for readers, and what of it is lost: the log goes on
    /// without that, and is to be on the settler's list.
    pub fn restore(
        &mut self,
        shared: &Shared,
        entry: &LogEntry,
    ) -> Result<(Segments, Vec<Lost>, bool), OpenError> {
        let restored = restore(shared, entry)?;
        let is_changed = restored.is_rebuilt || !restored.lost.is_empty();
        let bytes = entry.active.as_ref().map_or(0, |active| active.bytes);
        let active = restored.active.map(|writer| Active {
            writer,
            bytes_max: bytes.max(1 << 30),
        });
        let laid = Laid {
            end: entry.settled_end,
            start: entry.start_offset,
            active,
            manifest: restored.manifest.map(Arc::new),
            is_rebuilt: restored.is_rebuilt,
            sealed: Vec::new(),
            producers: Producers::decode(&entry.producers).unwrap_or_default(),
            epochs: Epochs::decode(&entry.epochs).unwrap_or_default(),
        };
        if laid.manifest.is_some() || laid.active.is_some() {
            self.unswept.push(entry.log);
        }
        let view = laid.view();
        self.laid.insert(entry.log, laid);
        Ok((view, restored.lost, is_changed))
    }

    /// If the newest checkpoint names a log that is forgotten, a round that stores one without it.
    pub fn tidy(&mut self, shared: &Shared) -> Result<(), SettleError> {
        if self.forgotten {
            self.round(shared).map(drop)
        } else {
            Ok(())
        }
    }

    /// Nothing of the log is named by the next checkpoint.
    pub fn forget(&mut self, log: LogId) {
        self.forgotten |= self.laid.remove(&log).is_some();
    }

    /// Tidies the directories of some logs, after a round that went well. Where something is damaged nothing is touched: a
    /// file that is no longer named may hold what is missing.
    pub fn sweep_some(&mut self, shared: &Shared, count: usize) {
        let left = self.unswept.len().saturating_sub(count);
        for log in self.unswept.split_off(left) {
            let (Some(laid), Some(live)) = (self.laid.get(&log), shared.log(log)) else {
                continue;
            };
            if shared.may_be_damaged(log) {
                continue;
            }
            let known = Known {
                segments: laid.segments().collect(),
                start: laid.start,
                holds: &|header| holds(&live, header),
            };
            let directory = shared.log_directory(log);
            let aside = shared.config.data_dir.join("quarantine");
            match sweep(shared.disk.as_ref(), &directory, &known, &aside) {
                Ok(swept) if swept == Swept::default() => {}
                Ok(swept) => {
                    tracing::warn!(%log, removed = ?swept.removed, moved = ?swept.moved, "files that no checkpoint names");
                }
                Err(error) => tracing::warn!(%log, %error, "a directory could not be tidied"),
            }
        }
    }

    /// One round. True if something settled.
    pub fn round(&mut self, shared: &Shared) -> Result<bool, SettleError> {
        // The deleted logs first: no frame that is written from now on holds anything of theirs. Then how far the WAL is: all
        // that is published before it will be settled by the end of the round.
        let deleted = shared.take_deleted();
        let Some(wal) = shared.committer.progress().map(|at| position_of(&at)) else {
            return Ok(false);
        };
        for log in &deleted {
            self.laid.remove(log);
        }
        let dirty = shared.take_dirty();
        if dirty.is_empty() && deleted.is_empty() && !self.forgotten {
            return Ok(false);
        }
        match self.settle(shared, &dirty) {
            Ok(garbage) => {
                self.checkpoint(shared, wal)?;
                self.publish(shared, &dirty);
                for path in garbage {
                    remove_quietly(shared, &path);
                }
                for log in deleted {
                    remove_directory(shared, log);
                }
                self.release(shared, wal)?;
                Ok(true)
            }
            Err(error) => {
                // The logs stay on the list; what was laid down of them is not laid down twice.
                for log in &dirty {
                    shared.mark_dirty(log);
                }
                for log in deleted {
                    shared.put_back_deleted(log);
                }
                Err(error)
            }
        }
    }

    /// Lays down, seals, syncs and stores manifests. Gives the files that nothing names any more.
    fn settle(&mut self, shared: &Shared, dirty: &[Arc<Log>]) -> Result<Vec<PathBuf>, SettleError> {
        let now = shared.steady_now();
        let oldest = now.plus_millis(
            -i64::try_from(shared.config.producer_expiry.as_millis()).unwrap_or(i64::MAX),
        );
        let expire = now.millis() - self.last_expiry_ms > 60_000;
        let mut touched = Vec::new();
        let mut garbage = Vec::new();
        for log in dirty {
            let (tail, start, settings, seal) = {
                let mut state = log.locked();
                if state.deleted {
                    continue;
                }
                if expire {
                    state.producers.expire(oldest);
                }
                let tail: Vec<TailEntry> = state.tail.iter().cloned().collect();
                let seal = std::mem::take(&mut state.seal);
                (tail, state.bounds.start, Arc::clone(&state.settings), seal)
            };
            let laid = self.laid.entry(log.id()).or_default();
            if expire {
                laid.producers.expire(oldest);
            }
            laid.start = start;
            if seal
                && laid
                    .active
                    .as_ref()
                    .is_some_and(|active| active.writer.bytes() > 0)
            {
                seal_active(shared, log.id(), laid)?;
            }
            if lay_down(
                shared,
                log.id(),
                laid,
                &settings,
                &tail,
                now,
                &mut self.scratch,
            )? {
                touched.push(log.id());
            }
            // Not past what is laid down: the start may already lie in what is still in the WAL.
            laid.epochs.forget_before(start.min(laid.end));
        }
        if expire {
            self.last_expiry_ms = now.millis();
        }
        self.sync(shared, &touched)?;
        for log in dirty {
            if let Some(laid) = self.laid.get_mut(&log.id()) {
                drop_passed(shared, log.id(), laid, &mut garbage);
                store_manifest(shared, log.id(), laid)?;
            }
        }
        Ok(garbage)
    }

    fn sync(&mut self, shared: &Shared, touched: &[LogId]) -> Result<(), SettleError> {
        let root = &shared.config.data_dir;
        let together = touched.len() > FILE_SYNCS_MAX;
        if together {
            shared
                .disk
                .sync_filesystem(root)
                .map_err(SettleError::io("the file system"))?;
        }
        for log in touched {
            let active = self.laid.get_mut(log).and_then(|laid| laid.active.as_mut());
            let Some(active) = active else { continue };
            if together {
                active.writer.mark_synced();
            } else {
                active.writer.sync().map_err(SettleError::io(log))?;
            }
            active.writer.close();
        }
        Ok(())
    }

    fn checkpoint(&mut self, shared: &Shared, wal: WalPosition) -> Result<(), SettleError> {
        shared.save_damage().map_err(|error| match error {
            OpenError::Io { source, .. } => SettleError::io("the record of damage")(source),
            other => SettleError::Failed(StorageFailed::new(other.to_string())),
        })?;
        let logs = self
            .laid
            .iter()
            .map(|(log, laid)| laid.entry(*log))
            .collect();
        let checkpoint = Checkpoint {
            store: shared.store,
            sequence: 0,
            leader_epoch: shared.leader_epoch,
            wal,
            logs,
        };
        let mut store = shared
            .checkpoints
            .lock()
            .expect("nothing panics while it holds the checkpoints");
        store
            .store(shared.disk.as_ref(), checkpoint)
            .map_err(SettleError::io("the checkpoint"))?;
        shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn publish(&mut self, shared: &Shared, dirty: &[Arc<Log>]) {
        for log in dirty {
            let Some(laid) = self.laid.get(&log.id()) else {
                continue;
            };
            let mut state = log.locked();
            if state.deleted {
                continue;
            }
            state.segments = laid.view();
            if laid.end > state.bounds.settled_end {
                let before = state.tail_bytes;
                state.settled(laid.end);
                shared
                    .counters
                    .settled_bytes
                    .fetch_add(before - state.tail_bytes, Ordering::Relaxed);
            }
            // What came during the round has its turn in the next one.
            state.dirty = !state.tail.is_empty();
            if state.dirty {
                drop(state);
                shared.mark_dirty(log);
            }
        }
    }

    /// Gives back the WAL files that the checkpoint before this one did not need any more.
    fn release(&mut self, shared: &Shared, wal: WalPosition) -> Result<(), SettleError> {
        self.release_below(shared, self.last_wal)?;
        if shared.pool.available() == 0 && self.last_wal < wal.file {
            // Producers may be waiting for a file: a second checkpoint makes both of them need no more than this one.
            self.checkpoint(shared, wal)?;
            self.release_below(shared, wal.file)?;
        }
        self.last_wal = wal.file;
        self.forgotten = false;
        shared.gate.look_again();
        Ok(())
    }

    fn release_below(&self, shared: &Shared, sequence: u64) -> Result<(), SettleError> {
        for file in shared.committer.release_files(sequence) {
            shared
                .pool
                .give_back(file)
                .map_err(SettleError::io("the write-ahead log"))?;
        }
        Ok(())
    }
}

/// Whether a log gives a batch with this header, checksum included, to its readers.
fn holds(log: &Log, header: &BatchHeader) -> io::Result<bool> {
    match log.read_copy(header.base(), 1) {
        Ok(chunk) => {
            let found = chunk.slices.first().map(|slice| BatchHeader::parse(slice));
            Ok(found.is_some_and(|found| found.as_ref() == Ok(header)))
        }
        Err(ReadError::Io { source, .. }) => Err(source),
        Err(_) => Ok(false),
    }
}

/// Where the next frame goes. Nothing of the files is kept: one that somebody holds is not used again.
fn position_of(progress: &Progress) -> WalPosition {
    let current = progress
        .files
        .last()
        .expect("there is always a file to write");
    WalPosition {
        file: current.sequence,
        position: progress.position,
        frame: progress.frame,
    }
}

impl Laid {
    fn segments(&self) -> impl Iterator<Item = SegmentId> {
        let in_manifest = self
            .manifest
            .iter()
            .flat_map(|manifest| &manifest.segments)
            .chain(&self.sealed)
            .map(|entry| entry.id);
        in_manifest.chain(self.active.iter().map(|active| active.writer.id()))
    }

    fn entry(&self, log: LogId) -> LogEntry {
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

    fn view(&self) -> Segments {
        let active = self
            .active
            .as_ref()
            .map(|active| Arc::new(view_of(&active.writer, active.bytes_max)));
        Segments {
            manifest: self.manifest.clone(),
            active,
        }
    }
}

fn view_of(writer: &SegmentWriter, bytes_max: u64) -> ActiveView {
    let segment: ActiveSegment = writer.active();
    ActiveView {
        segment,
        end_offset: writer.end_offset(),
        index: writer.index().clone(),
        bytes_max,
    }
}

/// Lays what a log's tail holds down into its segments. True if a file needs a sync.
fn lay_down(
    shared: &Shared,
    log: LogId,
    laid: &mut Laid,
    settings: &LogSettings,
    tail: &[TailEntry],
    now: Timestamp,
    scratch: &mut AlignedBuffer,
) -> Result<bool, SettleError> {
    let waiting = tail.partition_point(|entry| entry.base < laid.end);
    let tail = &tail[waiting..];
    let bytes: u64 = tail.iter().map(|entry| u64::from(entry.bytes)).sum();
    let way = if bytes >= DIRECT_BYTES_MIN {
        WriteWay::Direct
    } else {
        WriteWay::Buffered
    };
    let mut piece = Piece::default();
    let mut end = laid.end;
    for entry in tail {
        let bytes = entry.slice();
        let header = BatchHeader::parse(&bytes).map_err(|error| {
            SettleError::Failed(StorageFailed::new(format!(
                "settling {log}: the WAL at offset {}: {error}",
                entry.base
            )))
        })?;
        let is_gap = entry.base != end;
        if laid
            .active
            .as_ref()
            .is_some_and(|active| is_gap || active.is_full(&piece, entry, settings, now))
        {
            flush(log, laid, &mut piece, way, scratch)?;
            seal_active(shared, log, laid)?;
        }
        let active = match &mut laid.active {
            Some(active) => active,
            None => laid
                .active
                .insert(create_segment(shared, log, entry, settings)?),
        };
        active.bytes_max = active
            .bytes_max
            .max(active.writer.bytes() + piece.bytes + u64::from(entry.bytes));
        piece.bytes += u64::from(entry.bytes);
        piece.batches.push(SettledBatch {
            bytes,
            header,
            append_time: entry.append_time,
        });
        end = entry.next;
    }
    flush(log, laid, &mut piece, way, scratch)?;
    Ok(!tail.is_empty())
}

/// Batches on their way into the active segment.
#[derive(Debug, Default)]
struct Piece {
    batches: Vec<SettledBatch>,
    bytes: u64,
}

impl Active {
    /// Whether the segment is sealed before `next` comes, behind what is on its way.
    fn is_full(
        &self,
        piece: &Piece,
        next: &TailEntry,
        settings: &LogSettings,
        now: Timestamp,
    ) -> bool {
        let written = self.writer.bytes() + piece.bytes;
        if written == 0 {
            return false;
        }
        let first = match piece.batches.first() {
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

fn create_segment(
    shared: &Shared,
    log: LogId,
    first: &TailEntry,
    settings: &LogSettings,
) -> Result<Active, SettleError> {
    let directory = shared.log_directory(log);
    let id = SegmentId::first(first.base);
    let writer = (|| {
        create_dir_durable(shared.disk.as_ref(), &shared.config.data_dir, &directory)?;
        let path = id.log_path(&directory);
        if shared.disk.exists(&path)? {
            // The rest of a settling that no checkpoint has named.
            shared.disk.remove_file(&path)?;
        }
        let writer = SegmentWriter::create(Arc::clone(&shared.disk), directory.clone(), log, id)?;
        shared.disk.sync_dir(&directory)?;
        Ok(writer)
    })()
    .map_err(SettleError::io(log))?;
    let bytes_max = settings
        .segment_bytes
        .max(u64::from(first.bytes))
        .min(u64::from(u32::MAX));
    Ok(Active { writer, bytes_max })
}

/// Writes what is on its way. On an error the next round begins where the writer stands.
fn flush(
    log: LogId,
    laid: &mut Laid,
    piece: &mut Piece,
    way: WriteWay,
    scratch: &mut AlignedBuffer,
) -> Result<(), SettleError> {
    let piece = std::mem::take(piece);
    let Some(active) = laid.active.as_mut().filter(|_| !piece.batches.is_empty()) else {
        return Ok(());
    };
    scratch.clear();
    active
        .writer
        .append(&piece.batches, way, scratch)
        .map_err(SettleError::io(log))?;
    for batch in &piece.batches {
        laid.producers
            .record(&batch.header, batch.header.base(), batch.append_time);
        if let Some(epoch) = batch.header.epoch() {
            laid.epochs.begin(epoch, batch.header.base());
        }
    }
    laid.end = active.writer.end_offset();
    Ok(())
}

fn seal_active(shared: &Shared, log: LogId, laid: &mut Laid) -> Result<(), SettleError> {
    let Some(active) = laid.active.take() else {
        return Ok(());
    };
    let (known, end_offset, bytes_max) = (
        active.writer.active(),
        active.writer.end_offset(),
        active.bytes_max,
    );
    match active.writer.seal(&laid.producers, &laid.epochs) {
        Ok(sealed) => {
            shared.segments.forget(log, sealed.id);
            if let Some(error) = sealed.damage {
                tracing::error!(%log, %error, "a segment was damaged before it was sealed");
                match error {
                    // Batch by batch the scrub would find nothing wrong.
                    SegmentError::Foreign { .. } => {
                        let range = sealed.id.base..sealed.sealed.end_offset;
                        shared.lose_range(log, range, error.to_string());
                    }
                    _ => shared.suspects.add(log, sealed.id),
                }
            }
            laid.sealed
                .push(SegmentEntry::sealed(sealed.id, sealed.sealed));
            Ok(())
        }
        Err(error) => {
            let disk = Arc::clone(&shared.disk);
            let writer =
                SegmentWriter::resume(disk, shared.log_directory(log), log, &known, end_offset)
                    .map_err(SettleError::segment(log))?;
            laid.active = Some(Active { writer, bytes_max });
            Err(SettleError::segment(log)(error))
        }
    }
}

/// Takes segments off that lie before the log's start. Their files go after the checkpoint.
fn drop_passed(shared: &Shared, log: LogId, laid: &mut Laid, garbage: &mut Vec<PathBuf>) {
    let directory = shared.log_directory(log);
    let mut entries: Vec<SegmentEntry> = laid
        .manifest
        .iter()
        .flat_map(|manifest| manifest.segments.clone())
        .collect();
    entries.append(&mut laid.sealed);
    let (passed, live): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| {
        entry
            .sealed
            .is_some_and(|sealed| sealed.end_offset <= laid.start)
    });
    for entry in &passed {
        shared.segments.forget(log, entry.id);
        garbage.push(entry.id.log_path(&directory));
        garbage.push(entry.id.index_path(&directory));
    }
    if laid
        .active
        .as_ref()
        .is_some_and(|active| active.writer.bytes() > 0 && active.writer.end_offset() <= laid.start)
    {
        let active = laid.active.take().expect("it was just looked at");
        shared.segments.forget(log, active.writer.id());
        garbage.push(active.writer.id().log_path(&directory));
    }
    laid.sealed = live;
}

/// Stores the manifest if what `drop_passed` left differs from it.
fn store_manifest(shared: &Shared, log: LogId, laid: &mut Laid) -> Result<(), SettleError> {
    let segments = std::mem::take(&mut laid.sealed);
    let known: &[SegmentEntry] = laid
        .manifest
        .as_ref()
        .map_or(&[], |manifest| &manifest.segments);
    if known == segments.as_slice() && !laid.is_rebuilt {
        return Ok(());
    }
    let number = laid.manifest.as_ref().map_or(0, |manifest| manifest.number) + 1;
    let stored = Manifest {
        log,
        number,
        start_offset: laid.start,
        segments,
    };
    let directory = shared.log_directory(log);
    let path = directory.join(manifest::file_name(number));
    let result = (|| {
        if shared.disk.exists(&path)? {
            // A round that was given up left it; no checkpoint names it.
            shared.disk.remove_file(&path)?;
        }
        manifest::store(shared.disk.as_ref(), &directory, &stored)
    })();
    match result {
        Ok(()) => {
            laid.manifest = Some(Arc::new(stored));
            laid.is_rebuilt = false;
            Ok(())
        }
        Err(error) => {
            let known: Vec<SegmentId> = known.iter().map(|entry| entry.id).collect();
            laid.sealed = stored
                .segments
                .into_iter()
                .filter(|entry| !known.contains(&entry.id))
                .collect();
            Err(SettleError::io(log)(error))
        }
    }
}

fn remove_quietly(shared: &Shared, path: &std::path::Path) {
    match shared.disk.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a file that is no longer needed could not be removed");
        }
        _ => {}
    }
}

fn remove_directory(shared: &Shared, log: LogId) {
    shared.segments.forget_log(log);
    let directory = shared.log_directory(log);
    let entries = match shared.disk.list(&directory) {
        Ok(entries) => entries,
        Err(_) => return,
    };
    for entry in entries {
        remove_quietly(shared, &directory.join(entry.name));
    }
    if let Err(error) = shared.disk.remove_dir(&directory) {
        tracing::warn!(path = %directory.display(), %error, "a deleted partition's directory could not be removed");
    }
}
