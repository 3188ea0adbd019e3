//! The settler: moves the tail into segments, off the path of the acks, and frees the WAL.
//!
//! A thread of its own, or a test's calls. One round: take how far the WAL is, and go through every log that has a tail, in
//! pieces of some thousand logs. A piece appends the logs' batches to their active segments (sealing as segments fill), syncs
//! all of it together, writes and syncs the manifests, stores the checkpoint, and publishes the new settled ends. After the
//! last piece the WAL files go back that nothing needs any more. No file stays open from one log to the next if there are many.
//! Invariants: a checkpoint names only what is durable; a WAL file is given back one checkpoint after the last that needed
//! it, so that the older of the two checkpoints can stand in for the newer; at most one manifest per log and round; between
//! rounds the settler knows of each log what the newest checkpoint says.
//! A failed write or sync ends the process, but for a full disk: then what was settled since the last checkpoint is taken
//! back, what is deleted goes (`removal.rs`), and the round is tried again later. The store's end does not wait for a round.

mod changes;
mod error;
mod known;
mod parts;
mod removal;
mod seat;
mod settled_log;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::batch::BatchHeader;
use model::{LogId, Timestamp};

use self::changes::Asked;
use self::known::KnownLogs;
use self::settled_log::{Before, SettledLog, Work};
use crate::checkpoint::{CheckpointStore, LogEntry, Moment, WalPosition};
use crate::cleanup::store_bound;
use crate::error::{OpenError, ReadError, StorageFailed};
use crate::io::{AlignedBuffer, DIRECT_ALIGNMENT_BYTES, SyncFailed, Syncs};
use crate::log::{Log, LogCell, LogSettings, Segments, TailEntry};
use crate::recovery::segments::Lost;
use crate::recovery::sweep::{Known, Swept, sweep};
use crate::segment::SegmentId;
use crate::wal::WalFile;
use crate::wal::format::{FRAME_HEAD_BYTES, FrameHead};
use crate::wal::frame_writer::Progress;
use crate::wal::gate::RESERVED_FILES;

pub(crate) use self::changes::{Change, Changes, Outcome};
pub(crate) use self::error::SettleError;
pub(crate) use self::parts::SettlerParts;
pub(crate) use self::seat::SettlerSeat;

/// Memory for one direct write.
const SCRATCH_BYTES: usize = 2 << 20;
/// Logs of one piece at least. What a piece costs beside its logs is two syncs and a checkpoint.
const PIECE_LOGS_MIN: usize = 1024;
/// Pieces of a round at most: each stores a checkpoint of all logs.
const PIECES_MAX: usize = 8;
/// How often idle producers are looked for, in milliseconds.
const EXPIRY_MS: i64 = 60_000;

/// The settler's state.
#[derive(Debug)]
pub(crate) struct Settler {
    parts: Arc<SettlerParts>,
    checkpoints: CheckpointStore,
    logs: KnownLogs,
    scratch: AlignedBuffer,
    /// Where the replay of the checkpoint before the newest begins.
    older: WalPosition,
    /// Where the replay of the newest checkpoint begins.
    newest: WalPosition,
    /// Whether the newest checkpoint names a log that is forgotten, so that a round stores one though nothing settles.
    forgotten: bool,
    last_expiry_ms: i64,
    /// Logs whose directories were not tidied since the start.
    unswept: Vec<LogId>,
}

/// What holds for all pieces of a round.
struct Round {
    now: Timestamp,
    /// Only what lies in earlier files of the WAL.
    file_limit: Option<u64>,
    expire_before: Option<Timestamp>,
    /// The bound of the whole store, which makes segments smaller.
    store_bytes_max: Option<u64>,
    /// How long a file may become, whole blocks.
    file_bytes_max: u64,
    /// Whether nothing settles: manifests are changed as others ask, and what lies before a log's start goes.
    changes_only: bool,
}

/// A log of a piece, and the way back.
struct Touched {
    log: Arc<LogCell>,
    before: Option<Before>,
    seal: bool,
    /// What others asked for and the log's manifest says now.
    changed: Vec<Asked>,
}

/// What a piece leaves to be removed.
#[derive(Default)]
struct Garbage {
    /// Files before their log's start: they go once a checkpoint does not name them any more.
    passed: Vec<PathBuf>,
    /// Segments whose records another one holds: they go once neither of the two checkpoints names them any more, so that the
    /// older one can stand in for the newer.
    replaced: Vec<(LogId, SegmentId)>,
}

impl Round {
    /// What a log has for the settler. None if it is deleted.
    fn work_of(&self, log: &LogCell) -> Option<Work> {
        let mut state = log.locked();
        if state.deleted {
            return None;
        }
        if let Some(oldest) = self.expire_before {
            state.producers.expire(oldest);
        }
        let seal = !self.changes_only && std::mem::take(&mut state.seal);
        Some(Work {
            log: log.id(),
            tail: {
                let is_in = |entry: &&TailEntry| {
                    !self.changes_only
                        && (self.file_limit).is_none_or(|limit| entry.file.sequence < limit)
                };
                state.tail.iter().take_while(is_in).cloned().collect()
            },
            start: state.bounds.start,
            settings: self.settings_of(&state.settings),
            seal,
            expire_before: self.expire_before,
            now: self.now,
        })
    }

    /// A log's settings, with segments that are sealed early enough for the bound of the store, and for the limit on file sizes.
    fn settings_of(&self, own: &Arc<LogSettings>) -> Arc<LogSettings> {
        let segment_bytes = store_bound::segment_bytes(own.segment_bytes, self.store_bytes_max)
            .min(self.file_bytes_max);
        if segment_bytes == own.segment_bytes {
            return Arc::clone(own);
        }
        Arc::new(LogSettings {
            segment_bytes,
            ..LogSettings::clone(own)
        })
    }
}

impl Settler {
    /// A settler of a store whose newest checkpoint's replay begins at `from`.
    pub fn new(
        parts: Arc<SettlerParts>,
        checkpoints: CheckpointStore,
        from: WalPosition,
    ) -> Settler {
        Settler {
            parts,
            checkpoints,
            logs: KnownLogs::default(),
            scratch: AlignedBuffer::with_capacity(SCRATCH_BYTES),
            older: from,
            newest: from,
            forgotten: false,
            last_expiry_ms: 0,
            unswept: Vec::new(),
        }
    }

    /// What the checkpoint says of a log, at the start. Gives the view for readers, and what of it is lost: the log goes on
    /// without that, and is to be on the settler's list.
    pub fn restore(&mut self, entry: &LogEntry) -> Result<(Segments, Vec<Lost>, bool), OpenError> {
        let (settled, lost, is_changed) = SettledLog::restore(self.parts.data(), entry)?;
        if settled.has_files() {
            self.unswept.push(entry.log);
        }
        let view = settled.view();
        self.logs.restore(entry.log, settled);
        Ok((view, lost, is_changed))
    }

    /// If the newest checkpoint names a log that is forgotten, a round that stores one without it.
    pub fn tidy(&mut self) -> Result<(), SettleError> {
        if self.forgotten {
            self.round().map(drop)
        } else {
            Ok(())
        }
    }

    /// Nothing of the log is named by the next checkpoint.
    pub fn forget(&mut self, log: LogId) {
        self.forgotten |= self.logs.remove(log).is_some();
    }

    /// Tidies the directories of some logs, after a round that went well. Where something is damaged nothing is touched: a
    /// file that is no longer named may hold what is missing.
    pub fn sweep_some(&mut self, count: usize) {
        let left = self.unswept.len().saturating_sub(count);
        let mut busy = Vec::new();
        for log in self.unswept.split_off(left) {
            if !self.sweep(log) {
                busy.push(log);
            }
        }
        self.unswept.append(&mut busy);
    }

    /// Tidies a log's directory now, if it was not tidied since the start.
    pub fn sweep_now(&mut self, log: LogId) {
        if let Some(at) = self.unswept.iter().position(|one| *one == log)
            && self.sweep(log)
        {
            self.unswept.swap_remove(at);
        }
    }

    /// Tidies a log's directory. False if a rewrite makes files in it.
    fn sweep(&self, log: LogId) -> bool {
        let (Some(settled), Some(live)) = (self.logs.get(log), self.parts.registry.get(log)) else {
            return true;
        };
        if self.parts.damage.may_concern(log) {
            return true;
        }
        let Some(_claim) = self.parts.changes.try_claim(log) else {
            return false;
        };
        let known = Known {
            segments: settled.segments().collect(),
            rewritten: settled.rewritten().collect(),
            start: settled.start,
            holds: &|header| holds(&live, header),
        };
        let data = self.parts.data();
        let (directory, aside) = (data.of_log(log), data.quarantine());
        match sweep(data.disk(), &directory, &known, &aside) {
            Ok(swept) if swept == Swept::default() => {}
            Ok(swept) => {
                tracing::warn!(%log, removed = ?swept.removed, moved = ?swept.moved, "files that no checkpoint names");
            }
            Err(error) => tracing::warn!(%log, %error, "a directory could not be tidied"),
        }
        true
    }

    /// One round. True if something settled. On a full disk what is deleted goes first, and what it needs no space for.
    pub fn round(&mut self) -> Result<bool, SettleError> {
        if self.parts.wal.gate.is_disk_full() {
            self.relieve()?;
        }
        loop {
            match self.settle(None) {
                Err(SettleError::DiskFull) => {}
                settled => return settled,
            }
            let mut freed = self.relieve()? | self.give_up_spares();
            // What one file of the WAL holds needs less than all, and the file itself is space for the next one's.
            while let Some(limit) = self.after_oldest_file() {
                match self.settle(Some(limit)) {
                    Ok(_) => {
                        assert!(self.newest >= limit, "each time it is another file");
                        freed = true;
                        self.give_up_spares();
                    }
                    Err(SettleError::DiskFull) => break,
                    Err(error) => return Err(error),
                }
            }
            if !freed {
                return Err(SettleError::DiskFull);
            }
        }
    }

    /// Settles all that is published, and has both checkpoints begin behind it: the WAL's files before that are given back.
    pub fn settle_all(&mut self) -> Result<(), SettleError> {
        self.forgotten = true;
        self.round()?;
        self.checkpoint(self.newest)?;
        self.release_below(self.older.file)
    }

    /// Where the WAL file begins that follows the one in which the newest checkpoint's replay begins. None if that is the last.
    fn after_oldest_file(&self) -> Option<WalPosition> {
        let progress = self.parts.wal.committer.progress();
        let is_later = |file: &&Arc<WalFile>| file.sequence > self.newest.file;
        let next = progress.files.iter().find(is_later)?;
        let mut head = [0; FRAME_HEAD_BYTES];
        next.file.read_exact_at(0, &mut head).ok()?;
        let head = FrameHead::parse(&head)?;
        let is_its =
            head.store == self.parts.wal.stamp.store && head.file_sequence == next.sequence;
        is_its.then_some(WalPosition {
            file: next.sequence,
            position: 0,
            frame: head.sequence,
        })
    }

    /// Settles all that is published now, or what lies in the WAL before `limit`. A log for which there is no space is left as
    /// it was, and the others settle.
    fn settle(&mut self, limit: Option<WalPosition>) -> Result<bool, SettleError> {
        // The deleted logs first: no frame that is written from now on holds anything of theirs. Then how far the WAL is: all
        // that is published before it will be settled by the end of the round.
        let mut deleted = self.parts.registry.take_deleted();
        let progress = self.parts.wal.committer.progress();
        let wal = limit.unwrap_or_else(|| position_of(&progress));
        // Its files are not to look as if somebody read them.
        drop(progress);
        for log in &deleted {
            self.logs.remove(*log);
        }
        let dirty = self.parts.dirty.take();
        // A file of the WAL is given back by a checkpoint that begins behind it, also if no log has anything any more.
        if dirty.is_empty() && deleted.is_empty() && !self.forgotten && limit.is_none() {
            return Ok(false);
        }
        let file_limit = limit.map(|limit| limit.file);
        let result = self.pieces(wal, file_limit, &dirty, &mut deleted);
        for log in deleted {
            self.parts.registry.put_back_deleted(log);
        }
        result?;
        self.release()?;
        Ok(true)
    }

    fn round_at(&self, now: Timestamp) -> Round {
        let limit = self.parts.data().disk().file_bytes_max();
        Round {
            now,
            file_limit: None,
            expire_before: None,
            store_bytes_max: self.parts.live.get().store_bytes_max,
            file_bytes_max: limit - limit % DIRECT_ALIGNMENT_BYTES as u64,
            changes_only: false,
        }
    }

    /// Changes manifests as others ask, and settles nothing: so that who waits for it need not wait for a round.
    pub fn apply_changes(&mut self) -> Result<(), SettleError> {
        let mut cells = Vec::new();
        for log in self.parts.changes.logs() {
            match self.parts.registry.get(log) {
                Some(found) => cells.push(Arc::clone(found.cell())),
                None => answer_all(self.parts.changes.take(log), Outcome::Deleted),
            }
        }
        let round = Round {
            changes_only: true,
            ..self.round_at(self.parts.wal.now())
        };
        // The logs are still on the settler's list.
        let mut left = Vec::new();
        for piece in cells.chunks(PIECE_LOGS_MIN) {
            self.piece(&round, piece, &mut left, None)?;
        }
        Ok(())
    }

    /// Piece by piece. `deleted` is emptied once a checkpoint without these logs is stored, and their files are gone.
    fn pieces(
        &mut self,
        wal: WalPosition,
        file_limit: Option<u64>,
        dirty: &[Arc<LogCell>],
        deleted: &mut Vec<LogId>,
    ) -> Result<(), SettleError> {
        let parts = Arc::clone(&self.parts);
        let now = parts.wal.now();
        let expires = now.millis() - self.last_expiry_ms > EXPIRY_MS;
        let round = Round {
            file_limit,
            expire_before: expires.then(|| parts.producers.kept_since(now).idle),
            ..self.round_at(now)
        };
        let size = PIECE_LOGS_MIN.max(dirty.len() / PIECES_MAX);
        let mut rest = dirty;
        let mut left = Vec::new();
        // A round without logs still owes its checkpoint: where there is no space for that, nothing was settled.
        let mut is_stored = true;
        loop {
            let (piece, later) = rest.split_at(rest.len().min(size));
            let settled = self.piece(&round, piece, &mut left, later.is_empty().then_some(wal));
            match settled {
                Ok(stored) => {
                    is_stored &= stored;
                    if stored {
                        for log in std::mem::take(deleted) {
                            parts.remove_directory(log);
                        }
                    }
                }
                Err(error) => {
                    // The logs stay on the list.
                    left.extend(rest.iter().cloned());
                    parts.dirty.push_all(left);
                    return Err(error);
                }
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        let is_left = !left.is_empty();
        parts.dirty.push_all(left);
        if is_left || !is_stored || !deleted.is_empty() {
            return Err(SettleError::DiskFull);
        }
        if expires {
            self.last_expiry_ms = now.millis();
        }
        Ok(())
    }

    /// One piece: settled, synced, named by a checkpoint, published. Logs for which there is no space go to `left`. If none
    /// is left and `end` is given, replay begins there from now on. True if a checkpoint was stored.
    fn piece(
        &mut self,
        round: &Round,
        logs: &[Arc<LogCell>],
        left: &mut Vec<Arc<LogCell>>,
        end: Option<WalPosition>,
    ) -> Result<bool, SettleError> {
        let parts = Arc::clone(&self.parts);
        let mut syncs = Syncs::new(parts.data().disk(), parts.data().root())
            .map_err(SettleError::io("the data directory"))?;
        let mut touched = Vec::with_capacity(logs.len());
        let mut garbage = Garbage::default();
        for log in logs {
            if self.parts.signals.is_stopping() {
                return Err(SettleError::Stopped);
            }
            let asked = parts.changes.take(log.id());
            let Some(work) = round.work_of(log) else {
                answer_all(asked, Outcome::Deleted);
                continue;
            };
            let mut one = Touched {
                log: Arc::clone(log),
                before: self.logs.get(log.id()).map(SettledLog::before),
                seal: work.seal,
                changed: Vec::new(),
            };
            let settled = self.logs.get_or_default(log.id());
            match settled.settle(&parts, &work, &mut self.scratch, &mut syncs) {
                Ok(mut passed) => {
                    garbage.passed.append(&mut passed);
                    for asked in asked {
                        match settled.apply(&asked.change) {
                            Ok(replaced) => {
                                let replaced = replaced.into_iter().map(|id| (log.id(), id));
                                garbage.replaced.extend(replaced);
                                one.changed.push(asked);
                            }
                            Err(gone) => asked.answer(Outcome::NoLongerLive(gone)),
                        }
                    }
                    touched.push(one);
                }
                Err(SettleError::DiskFull) => {
                    one.changed = asked;
                    self.take_back(one, left)?;
                }
                Err(error) => return Err(error),
            }
        }
        if touched.is_empty() && !left.is_empty() {
            return Ok(false);
        }
        let at = end.filter(|_| left.is_empty()).unwrap_or(self.newest);
        match self.make_durable(&touched, &mut syncs, at) {
            Ok(()) => {}
            Err(SettleError::DiskFull) => {
                for one in touched {
                    self.take_back(one, left)?;
                }
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        self.publish(&touched, round);
        self.remove(garbage, at)?;
        for one in touched {
            answer_all(one.changed, Outcome::Applied);
        }
        Ok(true)
    }

    /// Removes what no checkpoint names any more.
    fn remove(&mut self, garbage: Garbage, at: WalPosition) -> Result<(), SettleError> {
        for path in garbage.passed {
            self.parts.remove_quietly(&path);
        }
        if garbage.replaced.is_empty() {
            return Ok(());
        }
        match self.checkpoint(at) {
            // On a full disk they are the space that is missing: they do not wait for the older checkpoint.
            Ok(()) | Err(SettleError::DiskFull) => {}
            Err(error) => return Err(error),
        }
        let mut logs = BTreeSet::new();
        for (log, id) in garbage.replaced {
            logs.insert(log);
            let directory = self.parts.data().of_log(log);
            self.parts.remove_segment(&directory, id);
            // Behind the removal: whoever looks for it from now on finds the new one.
            self.parts.files.retire(log, id);
        }
        for log in logs {
            let directory = self.parts.data().of_log(log);
            let disk = self.parts.data().disk();
            disk.sync_dir(&directory)
                .map_err(SettleError::io(directory.display()))?;
        }
        Ok(())
    }

    /// Syncs what was settled, then the manifests that name it, then the checkpoint that names both.
    fn make_durable(
        &mut self,
        touched: &[Touched],
        syncs: &mut Syncs<'_>,
        at: WalPosition,
    ) -> Result<(), SettleError> {
        let failed = |SyncFailed { path, source }| SettleError::io(path.display())(source);
        syncs.sync().map_err(failed)?;
        for one in touched {
            let id = one.log.id();
            if let Some(settled) = self.logs.get_mut(id) {
                settled.write_manifest(&self.parts, id, syncs)?;
            }
        }
        syncs.sync().map_err(failed)?;
        if self.parts.signals.is_stopping() {
            return Err(SettleError::Stopped);
        }
        self.checkpoint(at)
    }

    /// Takes a log back to what the newest checkpoint says of it.
    fn take_back(&mut self, one: Touched, left: &mut Vec<Arc<LogCell>>) -> Result<(), SettleError> {
        let id = one.log.id();
        if let Some(settled) = self.logs.remove(id)
            && let Some(settled) = settled.take_back(&self.parts, id, one.before)?
        {
            self.logs.insert(id, settled);
        }
        one.log.locked().seal |= one.seal;
        left.push(one.log);
        answer_all(one.changed, Outcome::NoSpace);
        Ok(())
    }

    fn checkpoint(&mut self, wal: WalPosition) -> Result<(), SettleError> {
        self.parts
            .damage
            .save_unsaved()
            .map_err(|error| match error {
                OpenError::Io { source, .. } => SettleError::io("the record of damage")(source),
                other => SettleError::Failed(StorageFailed::new(other.to_string())),
            })?;
        assert!(
            self.older <= self.newest && self.newest <= wal,
            "no checkpoint begins before the one that it follows"
        );
        let moment = Moment {
            leader_epoch: self.parts.wal.leader_epoch(),
            wal,
        };
        self.logs
            .store(&mut self.checkpoints, self.parts.data().disk(), moment)
            .map_err(SettleError::io("the checkpoint"))?;
        let counters = &self.parts.counters;
        counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        let written_bytes = self.checkpoints.written_bytes();
        counters
            .checkpoint_bytes
            .store(written_bytes, Ordering::Relaxed);
        self.older = std::mem::replace(&mut self.newest, wal);
        self.forgotten = false;
        Ok(())
    }

    fn publish(&mut self, touched: &[Touched], round: &Round) {
        for Touched { log, before, .. } in touched {
            let Some(settled) = self.logs.stored(log.id()) else {
                continue;
            };
            if settled.kept(before.as_ref()) {
                settled.forget_old_manifests(&self.parts, log.id());
            }
            let mut state = log.locked();
            if state.deleted {
                continue;
            }
            assert!(
                settled.start <= state.bounds.start && settled.end <= state.bounds.durable_end,
                "nothing settles that is not durable, and no start that was not raised"
            );
            let segments = std::mem::replace(&mut state.segments, settled.view());
            if segments.is_sealed_otherwise(&state.segments) {
                self.parts.files.key_indexes.look_at(log.id());
            }
            if state.settings.key_index
                && let Some(active) = &state.segments.active
            {
                let (id, bytes) = (active.segment.id, active.segment.bytes);
                self.parts.files.key_indexes.grew(log.id(), id, bytes);
            }
            if state.settings.compaction.is_some() {
                self.parts.due.changed(log.id());
            }
            if settled.end > state.bounds.settled_end {
                let before = state.tail_bytes;
                state.settled(settled.end);
                assert!(
                    state.bounds.settled_end == settled.end && state.tail_bytes <= before,
                    "what has settled leaves the tail"
                );
                self.parts
                    .counters
                    .settled_bytes
                    .fetch_add(before - state.tail_bytes, Ordering::Relaxed);
            }
            if round.changes_only {
                continue;
            }
            // What came during the round has its turn in the next one.
            state.dirty = !state.tail.is_empty();
            if state.dirty {
                drop(state);
                self.parts.dirty.push(log);
            }
        }
    }

    /// Gives back the WAL files that the checkpoint before the newest did not need any more.
    fn release(&mut self) -> Result<(), SettleError> {
        self.release_below(self.older.file)?;
        if self.parts.wal.pool.available() <= RESERVED_FILES && self.older.file < self.newest.file {
            // Producers may be waiting for a file: a second checkpoint makes both of them need no more than this one.
            self.checkpoint(self.newest)?;
            self.release_below(self.older.file)?;
        }
        self.parts.wal.gate.look_again();
        Ok(())
    }

    fn release_below(&self, sequence: u64) -> Result<(), SettleError> {
        assert!(
            sequence <= self.newest.file,
            "a file that the newest checkpoint needs is not given back"
        );
        for file in self.parts.wal.committer.release_files(sequence) {
            self.parts
                .wal
                .pool
                .give_back(file)
                .map_err(SettleError::io("the write-ahead log"))?;
        }
        Ok(())
    }
}

fn answer_all(asked: Vec<Asked>, outcome: Outcome) {
    for asked in asked {
        asked.answer(outcome);
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
