//! The committer: the one thread that makes appends durable, by group commit. Drain, frame, write, sync, publish, acknowledge,
//! in order.
//!
//! There is no timer: what arrives during a sync is the next frame. A frame is capped, so that its latency stays bounded.
//! Invariants: nothing is published or acknowledged before its sync returned, unless its topic says `durability=os`; acks
//! leave in the order of the queue; a failed write or sync is never retried and ends all writing.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::format::FRAME_ALIGNMENT_BYTES;
use super::frame_writer::{FrameWriter, Progress, Written, padded_bytes};
use super::gate::Gate;
use super::pool::{WalFile, WalPool, is_full};
use super::queue::{AppendQueue, Pending, Work};
use super::stall::Stall;
use super::wakeups::Wakeups;
use crate::error::StorageFailed;
use crate::io::Clock;
use crate::log::{DirtyLogs, LogCell, TailEntry};
use crate::signals::Signals;

/// How long the store is idle before its last frame is confirmed by another.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);
/// How long to wait for the next file before looking again.
const FILE_WAIT: Duration = Duration::from_millis(50);

/// What came of one turn of the committer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// A frame was written.
    Worked,
    /// There was nothing to do.
    Idle,
    /// The queue is closed and empty, or writing has failed.
    Over,
}

/// What the committer works with.
#[derive(Debug)]
pub(crate) struct CommitterParts {
    pub queue: Arc<AppendQueue>,
    pub pool: Arc<WalPool>,
    pub gate: Arc<Gate>,
    pub stall: Arc<Stall>,
    pub clock: Arc<dyn Clock>,
    /// Logs that have something to settle.
    pub dirty: Arc<DirtyLogs>,
    /// To have the settler begin.
    pub signals: Arc<Signals>,
    /// No more goes into one frame.
    pub frame_bytes_max: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Committer {
    parts: CommitterParts,
    /// Held while the disk works: nobody takes it who must not wait for the disk.
    writer: Mutex<FrameWriter>,
    /// Readers that wait for what was published.
    wakeups: Wakeups,
    /// Since when the oldest one of the frame waits that is being written, in microseconds; [`NONE`] between two frames.
    in_flight: AtomicU64,
    /// How many files the writer has.
    files: AtomicUsize,
}

/// No frame is being written.
const NONE: u64 = u64::MAX;

/// The end of a turn, however it comes about.
struct TurnEnds<'c>(&'c AtomicU64);

impl Drop for TurnEnds<'_> {
    fn drop(&mut self) {
        self.0.store(NONE, Ordering::Release);
    }
}

impl Committer {
    pub fn new(parts: CommitterParts, writer: FrameWriter) -> Committer {
        let files = writer.progress().files.len();
        Committer {
            parts,
            writer: Mutex::new(writer),
            wakeups: Wakeups::default(),
            in_flight: AtomicU64::new(NONE),
            files: AtomicUsize::new(files),
        }
    }

    fn writer(&self) -> MutexGuard<'_, FrameWriter> {
        self.writer
            .lock()
            .expect("nothing panics while it holds the writer")
    }

    /// Wakes readers until it is dropped, so that this thread does not.
    pub async fn wake_readers(&self) {
        self.wakeups.serve().await;
    }

    /// Since when the oldest append waits that is not durable, by the monotonic clock. Never waits for the disk.
    pub fn oldest_since(&self) -> Option<Duration> {
        let (queued, in_flight) = self
            .parts
            .queue
            .oldest_since(|| self.in_flight.load(Ordering::Acquire));
        let in_flight = (in_flight != NONE).then(|| Duration::from_micros(in_flight));
        in_flight.into_iter().chain(queued).min()
    }

    /// Files that hold something unsettled. Never waits for the disk.
    pub fn files_used(&self) -> usize {
        self.files.load(Ordering::Relaxed)
    }

    fn note_files(&self, writer: &FrameWriter) {
        self.files
            .store(writer.progress().files.len(), Ordering::Relaxed);
    }

    /// How far the WAL is written. Everything before it is published.
    pub fn progress(&self) -> Progress {
        self.writer().progress().clone()
    }

    /// Takes the files below `sequence` off the list: they have settled.
    pub fn release_files(&self, sequence: u64) -> Vec<Arc<WalFile>> {
        let mut writer = self.writer();
        let released = writer.release_files(sequence);
        self.note_files(&writer);
        released
    }

    /// What goes into one frame at most, but for a single batch that is larger.
    pub fn frame_bytes_max(&self) -> usize {
        self.parts.frame_bytes_max
    }

    /// The committer's thread.
    pub fn run(&self) {
        let mut idle = None;
        while let Some(has_work) = self.parts.queue.wait(idle) {
            if !has_work {
                if self.confirm() {
                    idle = None;
                }
                continue;
            }
            if self.turn() == Turn::Over {
                break;
            }
            idle = Some(CONFIRM_AFTER);
        }
    }

    /// Writes and syncs a frame without entries, which carries the new leader epoch. Before anything else, once.
    pub fn open_epoch(&self) -> Result<(), StorageFailed> {
        let mut writer = self.writer();
        writer.write_empty()?;
        self.parts.gate.set_current_remaining(writer.remaining());
        Ok(())
    }

    /// Writes and syncs a frame without entries that says that the last one was durable, so that damage to it is told from a
    /// torn tail. Once after the store went idle. False if it has to be tried again.
    pub fn confirm(&self) -> bool {
        let CommitterParts { pool, gate, .. } = &self.parts;
        let mut writer = self.writer();
        let end = writer
            .progress()
            .current()
            .bytes
            .min(pool.file_bytes_limit());
        let fits = writer.progress().position + FRAME_ALIGNMENT_BYTES <= end;
        if !writer.is_unconfirmed() || !fits || gate.failure().is_some() {
            return true;
        }
        if gate.reserved_bytes() > 0 {
            // What was admitted was promised the room that there is.
            return false;
        }
        let written = (|| {
            if writer.is_unsynced() {
                writer.sync()?;
            }
            writer.write_empty()
        })();
        match written {
            Ok(()) => gate.set_current_remaining(writer.remaining()),
            Err(failure) => {
                self.fail(Vec::new(), &failure);
            }
        }
        true
    }

    /// Goes on in a new file, unless appends were promised the room that is left in this one. False if it has to be tried again.
    pub fn roll(&self) -> Result<bool, StorageFailed> {
        let CommitterParts { pool, gate, .. } = &self.parts;
        let mut writer = self.writer();
        if let Some(failure) = gate.failure() {
            return Err(failure.clone());
        }
        if gate.reserved_bytes() > 0 {
            return Ok(false);
        }
        let rolled = (|| {
            if writer.is_unsynced() {
                writer.sync()?;
            }
            let Some(next) = pool.take() else {
                return Ok(false);
            };
            writer.go_on_in(next);
            writer.write_empty()?;
            Ok(true)
        })();
        match rolled {
            Ok(true) => {
                self.note_files(&writer);
                gate.set_current_remaining(writer.remaining());
                Ok(true)
            }
            Ok(false) => {
                drop(writer);
                self.wait_for_file()?;
                Ok(false)
            }
            Err(failure) => {
                drop(writer);
                self.fail(Vec::new(), &failure);
                Err(failure)
            }
        }
    }

    /// Makes one frame of what is queued durable.
    pub fn turn(&self) -> Turn {
        let _ends = TurnEnds(&self.in_flight);
        let mut pending = self.take();
        if pending.is_empty() {
            return if self.parts.queue.is_closed() {
                Turn::Over
            } else {
                Turn::Idle
            };
        }
        loop {
            let mut writer = self.writer();
            if let Some(failure) = self.parts.gate.failure() {
                // Another thread's: nobody takes what would come after this, so that the queue takes no more.
                refuse(pending, failure);
                self.parts.queue.refuse_all(failure);
                return Turn::Over;
            }
            // Under the writer's lock: once the settler has seen a deletion, no later frame names the log.
            pending = refuse_deleted(pending);
            if pending.is_empty() {
                return Turn::Worked;
            }
            match self.make_room(&mut writer, padded_bytes(&pending)) {
                Ok(true) => {}
                Ok(false) => {
                    // Without the lock, which the settler needs to give files back.
                    drop(writer);
                    if let Err(failure) = self.wait_for_file() {
                        return self.fail(pending, &failure);
                    }
                    continue;
                }
                Err(failure) => return self.fail(pending, &failure),
            }
            return match writer.write(&pending) {
                Ok(written) => {
                    self.finish(&writer, pending, &written);
                    Turn::Worked
                }
                Err(failure) => self.fail(pending, &failure),
            };
        }
    }

    /// What goes into the next frame. It counts as in flight from the moment on that it is no longer queued.
    fn take(&self) -> Vec<Pending> {
        let note = |oldest: Duration| {
            let micros = u64::try_from(oldest.as_micros()).unwrap_or(NONE);
            self.in_flight.store(micros, Ordering::Release);
        };
        self.parts.queue.take(self.parts.frame_bytes_max, note)
    }

    fn fail(&self, pending: Vec<Pending>, failure: &StorageFailed) -> Turn {
        self.parts.gate.fail(failure.clone());
        refuse(pending, failure);
        self.parts.queue.refuse_all(failure);
        Turn::Over
    }

    /// Goes to the next file if the frame does not fit. What the old one holds is synced first: later syncs do not cover it.
    /// False if there is no next file yet.
    fn make_room(&self, writer: &mut FrameWriter, bytes: u64) -> Result<bool, StorageFailed> {
        let pool = &self.parts.pool;
        let progress = writer.progress();
        // The limit on file sizes may have been lowered since this was let in.
        let limit = pool.file_bytes_limit();
        if bytes > limit {
            return Err(StorageFailed::new(format!(
                "the write-ahead log: a frame of {bytes} bytes does not fit: the limit on file sizes is {limit} bytes \
                 (RLIMIT_FSIZE, `ulimit -f`)"
            )));
        }
        assert!(
            bytes <= pool.file_bytes() / 2,
            "the gate lets in only what half of a file takes"
        );
        if progress.position + bytes <= progress.current().bytes.min(limit) {
            return Ok(true);
        }
        if writer.is_unsynced() {
            writer.sync()?;
        }
        let Some(next) = pool.take() else {
            return Ok(false);
        };
        writer.go_on_in(next);
        self.note_files(writer);
        self.parts.signals.settle_soon();
        Ok(true)
    }

    /// Waits a while for the next file. The gate keeps room for all that is admitted, so that one comes: at worst it is being
    /// renamed now.
    fn wait_for_file(&self) -> Result<(), StorageFailed> {
        let pool = &self.parts.pool;
        match pool.prepare_one() {
            Ok(true) => Ok(()),
            Ok(false) => {
                pool.wait(FILE_WAIT);
                Ok(())
            }
            Err(error) if is_full(&error) => {
                pool.wait(FILE_WAIT);
                Ok(())
            }
            Err(error) => Err(StorageFailed::new(format!(
                "next file of the write-ahead log: {error}"
            ))),
        }
    }

    /// Publishes what the frame holds, then acknowledges it, in order, and then has readers woken.
    fn finish(&self, writer: &FrameWriter, pending: Vec<Pending>, written: &Written) {
        let CommitterParts { gate, signals, .. } = &self.parts;
        let mut position = written.batches_position;
        for pending in &pending {
            position += self.publish(pending, written, position);
        }
        assert!(
            position == written.batches_position + written.batch_bytes,
            "what was written is what is published"
        );
        let moved = pending.iter().filter_map(|pending| pending.log.as_ref());
        let due = moved.filter(|log| log.readers_become_due());
        let due: Vec<Arc<LogCell>> = due.cloned().collect();
        let raises_a_start = |pending: &Pending| matches!(pending.work, Work::StartRaised { .. });
        if gate.is_disk_full() && pending.iter().any(raises_a_start) {
            // What it frees is needed now.
            signals.settle_soon();
        }
        self.parts.stall.went_on(self.parts.clock.monotonic());
        gate.set_current_remaining(writer.remaining());
        for pending in pending {
            if let Some(ack) = pending.ack {
                let _ = ack.send(Ok(()));
            }
            drop(pending.admission);
        }
        self.wakeups.hand_over(due);
    }

    /// Shows one thing that the frame holds to readers. Gives how many bytes of the frame's batches it is.
    fn publish(&self, pending: &Pending, written: &Written, position: u64) -> u64 {
        let Some(log) = &pending.log else { return 0 };
        let (bytes, newly_dirty) = match &pending.work {
            Work::Batch {
                bytes,
                base,
                next,
                max_timestamp,
                ..
            } => {
                let entry = TailEntry {
                    base: *base,
                    next: *next,
                    file: Arc::clone(&written.file),
                    position: u32::try_from(position).expect("WAL files are far below 4 GiB"),
                    bytes: u32::try_from(bytes.len()).expect("a batch's length is an i32"),
                    max_timestamp: *max_timestamp,
                    append_time: written.append_time,
                };
                (bytes.len() as u64, log.publish(entry))
            }
            Work::StartRaised { start } => (0, log.publish_start(*start)),
            Work::None => (0, false),
        };
        if newly_dirty {
            self.parts.dirty.push(log);
        }
        bytes
    }
}

/// Refuses what belongs to deleted logs. Gives the rest. Of a group the rest is written: its other logs have given out offsets
/// for it, and to its caller it is as if the log had been deleted right behind it.
fn refuse_deleted(pending: Vec<Pending>) -> Vec<Pending> {
    let is_gone = |pending: &Pending| pending.log.as_ref().is_some_and(|log| log.is_deleted());
    if !pending.iter().any(is_gone) {
        return pending;
    }
    let failure = StorageFailed::new("the log was deleted before this became durable");
    let mut kept: Vec<Pending> = Vec::with_capacity(pending.len());
    let mut group_is_kept = false;
    for mut pending in pending {
        group_is_kept &= pending.joins_previous;
        if !is_gone(&pending) {
            // The first of a group that is kept begins it.
            pending.joins_previous = group_is_kept;
            group_is_kept = true;
            kept.push(pending);
            continue;
        }
        match kept.last_mut().filter(|_| group_is_kept) {
            // The acknowledgement waits at the end of its group.
            Some(last) if pending.ack.is_some() => {
                (last.ack, last.admission) = (pending.ack, pending.admission);
            }
            _ => pending.refuse(&failure),
        }
    }
    kept
}

fn refuse(pending: Vec<Pending>, failure: &StorageFailed) {
    pending
        .into_iter()
        .for_each(|pending| pending.refuse(failure));
}
