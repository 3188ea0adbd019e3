//! The committer: the one thread that makes appends durable. Drain, frame, write, sync, publish, acknowledge, in order.
//!
//! There is no timer: what arrives during a sync is the next frame. A frame is capped, so that its latency stays bounded.
//! Invariants: nothing is published or acknowledged before its sync returned, unless its topic says `durability=os`; acks
//! leave in the order of the queue; a failed write or sync is never retried and ends all writing.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use model::batch::STAMP_BYTES;
use model::{LogId, Offset, Timestamp};
use tokio::sync::oneshot;

use crate::error::{AppendError, StorageFailed};
use crate::io::Clock;
use crate::log::{Log, TailEntry};
use crate::storage::Shared;
use crate::wal::WalFile;
use crate::wal::format::{
    EntryKind, FRAME_ALIGNMENT_BYTES, FRAME_ENTRIES_MAX, FRAME_ENTRY_BYTES, FRAME_HEAD_BYTES,
    FrameEntry, FrameHead, encode_head, file_units,
};
use crate::wal::gate::Admission;

/// Batches up to this size are copied into the frame's own buffer, where they cost less than a slice of their own.
const COPY_BYTES_MAX: usize = 2048;
/// How long the store is idle before its last frame is confirmed by another.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);
/// Zeros to pad a frame with.
static PADDING: [u8; 4096] = [0; 4096];

/// One thing to make durable.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Whose; None only for a ride.
    pub log: Option<Arc<Log>>,
    pub work: Work,
    /// Told when it is durable.
    pub ack: Option<oneshot::Sender<Result<(), StorageFailed>>>,
    /// Given back then.
    pub admission: Option<Admission>,
}

/// What is to be made durable.
#[derive(Debug)]
pub(crate) enum Work {
    /// A batch: its first bytes with offset and epoch stamped, and the rest as it came.
    Batch {
        head: [u8; STAMP_BYTES],
        bytes: Bytes,
        base: Offset,
        next: Offset,
        max_timestamp: Timestamp,
        os: bool,
    },
    /// The log's start moves.
    StartRaised { start: Offset },
    /// Nothing of its own: acknowledged when all that came before is.
    Ride,
}

impl Work {
    /// What it takes in a frame: its entry in the table, and the batch.
    fn frame_bytes(&self) -> usize {
        match self {
            Work::Batch { bytes, .. } => FRAME_ENTRY_BYTES + bytes.len(),
            Work::StartRaised { .. } => FRAME_ENTRY_BYTES,
            Work::Ride => 0,
        }
    }
}

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

/// How far the WAL is written and durable: what the settler and the checkpoint go by.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// Every file that may hold something unsettled, in order; the last one is being written.
    pub files: Vec<Arc<WalFile>>,
    /// Where the next frame goes in the last file.
    pub position: u64,
    /// The next frame's number.
    pub frame: u64,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Pending>,
    /// Since when each of them waits.
    since: VecDeque<Duration>,
    closed: bool,
}

/// The queue before the committer.
#[derive(Debug)]
pub(crate) struct Committer {
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// Held while the disk works: nobody takes it who must not wait for the disk.
    writer: Mutex<Option<Writer>>,
    clock: Arc<dyn Clock>,
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

/// What the committer's thread owns.
#[derive(Debug)]
pub(crate) struct Writer {
    pub progress: Progress,
    /// The first frame that is not known to be durable.
    pub durable_frame: u64,
    /// Whether something was written that no sync has covered.
    pub unsynced: bool,
    /// Whether the last frame holds something that no later frame says was durable.
    is_unconfirmed: bool,
    buffer: Vec<u8>,
}

impl Writer {
    pub fn new(progress: Progress) -> Writer {
        let durable_frame = progress.frame;
        Writer {
            progress,
            durable_frame,
            unsynced: false,
            is_unconfirmed: false,
            buffer: Vec::new(),
        }
    }
}

impl Committer {
    pub fn new(clock: Arc<dyn Clock>) -> Committer {
        Committer {
            queue: Mutex::default(),
            arrived: Condvar::new(),
            writer: Mutex::default(),
            clock,
            in_flight: AtomicU64::new(NONE),
            files: AtomicUsize::new(0),
        }
    }

    /// Since when the oldest append waits that is not durable, by the monotonic clock. Never waits for the disk.
    pub fn oldest_since(&self) -> Option<Duration> {
        let queue = self.locked();
        let in_flight = match self.in_flight.load(Ordering::Acquire) {
            NONE => None,
            micros => Some(Duration::from_micros(micros)),
        };
        let queued = queue.since.front().copied();
        drop(queue);
        in_flight.into_iter().chain(queued).min()
    }

    /// Files that hold something unsettled. Never waits for the disk.
    pub fn files_used(&self) -> usize {
        self.files.load(Ordering::Relaxed)
    }

    fn note_files(&self, progress: &Progress) {
        self.files.store(progress.files.len(), Ordering::Relaxed);
    }

    fn locked(&self) -> MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .expect("nothing panics while it holds the queue")
    }

    /// Gives the committer its files; once, by recovery.
    pub fn start(&self, writer: Writer) {
        self.note_files(&writer.progress);
        *self
            .writer
            .lock()
            .expect("nothing panics while it holds the writer") = Some(writer);
    }

    /// Queues one piece of work. The caller holds its log's lock, so that the queue has the order of the offsets.
    pub fn push(&self, pending: Pending) -> Result<(), AppendError> {
        self.push_all(vec![pending])
    }

    /// Queues work in order.
    pub fn push_all(&self, pending: Vec<Pending>) -> Result<(), AppendError> {
        let mut queue = self.locked();
        if queue.closed {
            return Err(AppendError::Closed);
        }
        let was_empty = queue.items.is_empty();
        let now = self.clock.monotonic();
        queue.since.extend(std::iter::repeat_n(now, pending.len()));
        queue.items.extend(pending);
        drop(queue);
        if was_empty {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Takes no more work. What is queued is still done.
    pub fn close(&self) {
        self.locked().closed = true;
        self.arrived.notify_all();
    }

    /// Waits for work. With `idle` no longer than that. None when there will be none, false if none came in time.
    fn wait(&self, idle: Option<Duration>) -> Option<bool> {
        let mut queue = self.locked();
        while queue.items.is_empty() && !queue.closed {
            let Some(idle) = idle else {
                queue = self
                    .arrived
                    .wait(queue)
                    .expect("nothing panics while it holds the queue");
                continue;
            };
            let (again, waited) = self
                .arrived
                .wait_timeout(queue, idle)
                .expect("nothing panics while it holds the queue");
            queue = again;
            if waited.timed_out() && queue.items.is_empty() && !queue.closed {
                return Some(false);
            }
        }
        (!queue.items.is_empty()).then_some(true)
    }

    /// Takes what goes into the next frame: no more than `bytes_max`, but for a single batch that is larger, so that every
    /// frame fits into half a file of the WAL.
    fn take(&self, bytes_max: usize) -> Vec<Pending> {
        let mut queue = self.locked();
        let mut bytes = 0;
        let mut count = 0;
        for pending in queue.items.iter().take(FRAME_ENTRIES_MAX) {
            if count > 0 && bytes + pending.work.frame_bytes() > bytes_max {
                break;
            }
            bytes += pending.work.frame_bytes();
            count += 1;
        }
        let oldest = queue.since.drain(..count).next();
        if let Some(oldest) = oldest {
            let micros = u64::try_from(oldest.as_micros()).unwrap_or(NONE);
            self.in_flight.store(micros, Ordering::Release);
        }
        queue.items.drain(..count).collect()
    }

    /// The committer's thread.
    pub fn run(&self, shared: &Shared) {
        let mut idle = None;
        while let Some(has_work) = self.wait(idle) {
            if !has_work {
                if self.confirm(shared) {
                    idle = None;
                }
                continue;
            }
            if self.turn(shared) == Turn::Over {
                break;
            }
            idle = Some(CONFIRM_AFTER);
        }
    }

    /// Writes and syncs a frame without entries that says that the last one was durable, so that damage to it is told from a
    /// torn tail. Once after the store went idle. False if it has to be tried again.
    pub fn confirm(&self, shared: &Shared) -> bool {
        let mut writer = self
            .writer
            .lock()
            .expect("nothing panics while it holds the writer");
        let writer = writer.as_mut().expect("the committer was started");
        let end = current(writer).bytes.min(shared.pool.file_bytes_limit());
        let fits = writer.progress.position + FRAME_ALIGNMENT_BYTES <= end;
        if !writer.is_unconfirmed || !fits || shared.gate.failure().is_some() {
            return true;
        }
        if shared.gate.reserved_bytes() > 0 {
            // What was admitted was promised the room that there is.
            return false;
        }
        let written = (|| {
            if writer.unsynced {
                sync(shared, writer)?;
            }
            write_entries(shared, writer, &[], Vec::new(), true)
        })();
        match written {
            Ok(_) => shared
                .gate
                .set_current_remaining(current(writer).bytes - writer.progress.position),
            Err(failure) => {
                shared.fail(failure.clone());
                self.refuse_all(&failure);
            }
        }
        true
    }

    /// Makes one frame of what is queued durable.
    pub fn turn(&self, shared: &Shared) -> Turn {
        let _ends = TurnEnds(&self.in_flight);
        let mut pending = self.take(shared.frame_bytes_max);
        if pending.is_empty() {
            return if self.locked().closed {
                Turn::Over
            } else {
                Turn::Idle
            };
        }
        loop {
            let mut writer_guard = self
                .writer
                .lock()
                .expect("nothing panics while it holds the writer");
            let writer = writer_guard.as_mut().expect("the committer was started");
            if let Some(failure) = shared.gate.failure() {
                // Another thread's: nobody takes what would come after this, so that the queue takes no more.
                refuse(pending, failure);
                self.refuse_all(failure);
                return Turn::Over;
            }
            // Under the writer's lock: once the settler has seen a deletion, no later frame names the log.
            let deleted: Vec<_>;
            (pending, deleted) = pending
                .into_iter()
                .partition(|pending| pending.log.as_ref().is_none_or(|log| !log.is_deleted()));
            refuse(
                deleted,
                &StorageFailed::new("the log was deleted before this became durable"),
            );
            if pending.is_empty() {
                return Turn::Worked;
            }
            match make_room(shared, writer, padded_bytes(&pending)) {
                Ok(true) => {}
                Ok(false) => {
                    // Without the lock, which the settler needs to give files back.
                    drop(writer_guard);
                    if let Err(failure) = wait_for_file(shared) {
                        return self.fail(shared, pending, &failure);
                    }
                    continue;
                }
                Err(failure) => return self.fail(shared, pending, &failure),
            }
            return match write_frame(shared, writer, &pending) {
                Ok(written) => {
                    finish(shared, writer, pending, &written);
                    Turn::Worked
                }
                Err(failure) => self.fail(shared, pending, &failure),
            };
        }
    }

    fn fail(&self, shared: &Shared, pending: Vec<Pending>, failure: &StorageFailed) -> Turn {
        shared.fail(failure.clone());
        refuse(pending, failure);
        self.refuse_all(failure);
        Turn::Over
    }

    /// Writes and syncs a frame without entries, which carries the new leader epoch. Before anything else, once.
    pub fn open_epoch(&self, shared: &Shared) -> Result<(), StorageFailed> {
        let mut writer = self
            .writer
            .lock()
            .expect("nothing panics while it holds the writer");
        let writer = writer.as_mut().expect("the committer was started");
        write_entries(shared, writer, &[], Vec::new(), true)?;
        shared
            .gate
            .set_current_remaining(current(writer).bytes - writer.progress.position);
        Ok(())
    }

    fn refuse_all(&self, failure: &StorageFailed) {
        let mut queue = self.locked();
        queue.closed = true;
        let rest = std::mem::take(&mut queue.items);
        queue.since.clear();
        drop(queue);
        refuse(rest, failure);
    }

    /// How far the WAL is written. Everything before it is published.
    pub fn progress(&self) -> Option<Progress> {
        let writer = self
            .writer
            .lock()
            .expect("nothing panics while it holds the writer");
        writer.as_ref().map(|writer| writer.progress.clone())
    }

    /// Takes the files below `sequence` off the list: they have settled.
    pub fn release_files(&self, sequence: u64) -> Vec<Arc<WalFile>> {
        let mut writer = self
            .writer
            .lock()
            .expect("nothing panics while it holds the writer");
        let Some(writer) = writer.as_mut() else {
            return Vec::new();
        };
        let count = writer
            .progress
            .files
            .iter()
            .take_while(|file| file.sequence < sequence)
            .count();
        let released = writer.progress.files.drain(..count).collect();
        self.note_files(&writer.progress);
        released
    }
}

fn refuse(pending: impl IntoIterator<Item = Pending>, failure: &StorageFailed) {
    for ack in pending.into_iter().filter_map(|pending| pending.ack) {
        // Whoever asked may have gone: then nobody waits for the answer.
        let _ = ack.send(Err(failure.clone()));
    }
}

/// Where a frame went.
struct Written {
    file: Arc<WalFile>,
    batches_position: u64,
    append_time: Timestamp,
}

/// Frames, writes and, unless all of it is `durability=os`, syncs.
fn write_frame(
    shared: &Shared,
    writer: &mut Writer,
    pending: &[Pending],
) -> Result<Written, StorageFailed> {
    let entries: Vec<FrameEntry> = pending.iter().filter_map(entry_of).collect();
    let needs_sync = entries_need_sync(pending, writer.unsynced);
    if entries.is_empty() {
        // Rides only: they wait for nothing but the frames before them.
        if needs_sync {
            sync(shared, writer)?;
        }
        let file = Arc::clone(current(writer));
        return Ok(Written {
            file,
            batches_position: writer.progress.position,
            append_time: shared.steady_now(),
        });
    }
    write_entries(shared, writer, pending, entries, needs_sync)
}

fn write_entries(
    shared: &Shared,
    writer: &mut Writer,
    pending: &[Pending],
    entries: Vec<FrameEntry>,
    needs_sync: bool,
) -> Result<Written, StorageFailed> {
    let batch_bytes: u64 = entries.iter().map(|entry| u64::from(entry.bytes)).sum();
    let mut frame = FrameHead {
        store: shared.store,
        file_sequence: 0,
        file_units: 0,
        sequence: writer.progress.frame,
        durable_sequence: writer.durable_frame,
        append_time: shared.steady_now(),
        leader_epoch: shared.leader_epoch,
        entry_count: u32::try_from(entries.len()).expect("capped"),
        batch_bytes,
        batch_crc: 0,
    };
    let file = Arc::clone(current(writer));
    assert!(
        writer.progress.position + frame.padded_bytes() <= file.bytes,
        "there is room for the frame before it is written"
    );
    frame.file_sequence = file.sequence;
    frame.file_units = file_units(file.bytes);
    let position = writer.progress.position;

    let mut crc = crc32fast::Hasher::new();
    let mut copies = Vec::new();
    let mut pieces: Vec<Piece<'_>> = Vec::with_capacity(pending.len());
    for pending in pending {
        let Work::Batch { head, bytes, .. } = &pending.work else {
            continue;
        };
        let rest = &bytes[STAMP_BYTES..];
        crc.update(head);
        crc.update(rest);
        let start = copies.len();
        copies.extend_from_slice(head);
        if rest.len() <= COPY_BYTES_MAX {
            copies.extend_from_slice(rest);
        }
        match pieces.last_mut() {
            Some(Piece::Copied(range)) => range.end = copies.len(),
            _ => pieces.push(Piece::Copied(start..copies.len())),
        }
        if rest.len() > COPY_BYTES_MAX {
            pieces.push(Piece::Borrowed(rest));
        }
    }
    frame.batch_crc = crc.finalize();
    encode_head(&frame, &entries, &mut writer.buffer);
    let padding =
        usize::try_from(frame.padded_bytes() - frame.plain_bytes()).expect("less than a block");
    let mut slices = Vec::with_capacity(pieces.len() + 2);
    slices.push(IoSlice::new(&writer.buffer));
    slices.extend(pieces.iter().map(|piece| match piece {
        Piece::Copied(range) => IoSlice::new(&copies[range.clone()]),
        Piece::Borrowed(bytes) => IoSlice::new(bytes),
    }));
    if padding > 0 {
        slices.push(IoSlice::new(&PADDING[..padding]));
    }
    let failed = |what: &str, error: std::io::Error| {
        StorageFailed::new(format!(
            "{what} {} at {position}: {error}",
            file.path.display()
        ))
    };
    file.file
        .write_vectored_at(position, &slices)
        .map_err(|error| failed("write to", error))?;
    writer.progress.position += frame.padded_bytes();
    writer.progress.frame += 1;
    writer.is_unconfirmed = !entries.is_empty();
    writer.unsynced = true;
    if needs_sync {
        sync(shared, writer)?;
    }
    shared.counters.frame(batch_bytes, needs_sync);
    Ok(Written {
        batches_position: position + frame.table_end(),
        append_time: frame.append_time,
        file,
    })
}

enum Piece<'a> {
    Copied(std::ops::Range<usize>),
    Borrowed(&'a [u8]),
}

fn entry_of(pending: &Pending) -> Option<FrameEntry> {
    let log: Option<LogId> = pending.log.as_ref().map(|log| log.id());
    match &pending.work {
        Work::Batch {
            bytes, base, next, ..
        } => Some(FrameEntry {
            log: log.expect("a batch has a log"),
            kind: EntryKind::Batch,
            offset: *base,
            bytes: u32::try_from(bytes.len()).expect("a batch's length is an i32"),
            offsets: u32::try_from(next.since(*base))
                .expect("a batch's last offset delta is an i32"),
        }),
        Work::StartRaised { start } => Some(FrameEntry {
            log: log.expect("a start has a log"),
            kind: EntryKind::StartRaised,
            offset: *start,
            bytes: 0,
            offsets: 0,
        }),
        Work::Ride => None,
    }
}

fn entries_need_sync(pending: &[Pending], unsynced: bool) -> bool {
    pending.iter().any(|pending| match &pending.work {
        Work::Batch { os, .. } => !os,
        Work::StartRaised { .. } => true,
        Work::Ride => unsynced,
    })
}

fn current(writer: &Writer) -> &Arc<WalFile> {
    writer
        .progress
        .files
        .last()
        .expect("there is always a file to write")
}

fn sync(shared: &Shared, writer: &mut Writer) -> Result<(), StorageFailed> {
    let file = current(writer);
    let began = shared.clock.monotonic();
    file.file
        .sync_data()
        .map_err(|error| StorageFailed::new(format!("sync of {}: {error}", file.path.display())))?;
    shared
        .stall
        .synced(shared.clock.monotonic().saturating_sub(began));
    writer.durable_frame = writer.progress.frame;
    writer.unsynced = false;
    Ok(())
}

/// The length of the frame that these make; 0 for rides only, which need none.
fn padded_bytes(pending: &[Pending]) -> u64 {
    let bytes: usize = pending
        .iter()
        .map(|pending| pending.work.frame_bytes())
        .sum();
    if bytes == 0 {
        return 0;
    }
    ((FRAME_HEAD_BYTES + bytes) as u64).next_multiple_of(FRAME_ALIGNMENT_BYTES)
}

/// Goes to the next file if the frame does not fit. What the old one holds is synced first: later syncs do not cover it.
/// False if there is no next file yet.
fn make_room(shared: &Shared, writer: &mut Writer, bytes: u64) -> Result<bool, StorageFailed> {
    let file = current(writer);
    // The limit on file sizes may have been lowered since this was let in.
    let limit = shared.pool.file_bytes_limit();
    if bytes > limit {
        return Err(StorageFailed::new(format!(
            "the write-ahead log: a frame of {bytes} bytes does not fit: the limit on file sizes is {limit} bytes \
             (RLIMIT_FSIZE, `ulimit -f`)"
        )));
    }
    if writer.progress.position + bytes <= file.bytes.min(limit) {
        return Ok(true);
    }
    assert!(
        bytes <= shared.pool.file_bytes(),
        "the gate lets in only what a file takes"
    );
    if writer.unsynced {
        sync(shared, writer)?;
    }
    let Some(next) = shared.pool.take() else {
        return Ok(false);
    };
    writer.progress.files.push(next);
    shared.committer.note_files(&writer.progress);
    writer.progress.position = 0;
    shared.settle_soon();
    Ok(true)
}

/// Waits a while for the next file. The gate keeps room for all that is admitted, so that one comes: at worst it is being
/// renamed now.
fn wait_for_file(shared: &Shared) -> Result<(), StorageFailed> {
    match shared.pool.prepare_one() {
        Ok(true) => Ok(()),
        Ok(false) => {
            shared.pool.wait(Duration::from_millis(50));
            Ok(())
        }
        Err(error) if crate::wal::pool::is_full(&error) => {
            shared.pool.wait(Duration::from_millis(50));
            Ok(())
        }
        Err(error) => Err(StorageFailed::new(format!(
            "next file of the write-ahead log: {error}"
        ))),
    }
}

/// Publishes what the frame holds, then acknowledges it, in order.
fn finish(shared: &Shared, writer: &Writer, pending: Vec<Pending>, written: &Written) {
    let mut position = written.batches_position;
    let mut frees = false;
    for item in &pending {
        let Some(log) = &item.log else { continue };
        let newly_dirty = match &item.work {
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
                position += bytes.len() as u64;
                log.publish(entry)
            }
            Work::StartRaised { start } => {
                let newly_dirty = log.publish_start(*start);
                frees |= shared.gate.is_disk_full();
                newly_dirty
            }
            Work::Ride => false,
        };
        if newly_dirty {
            shared.mark_dirty(log);
        }
    }
    if frees {
        // What it frees is needed now.
        shared.settle_soon();
    }
    shared.stall.went_on(shared.clock.monotonic());
    let file = current(writer);
    shared
        .gate
        .set_current_remaining(file.bytes - writer.progress.position);
    for item in pending {
        if let Some(ack) = item.ack {
            let _ = ack.send(Ok(()));
        }
        drop(item.admission);
    }
}
