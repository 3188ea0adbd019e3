//! One partition's log: its bounds, the index of its tail in the WAL, and how it is appended to and read.
//!
//! Callers: the broker, through [`crate::Storage::log`]; the committer publishes, the settler moves the tail into segments.
//! Invariant: `start <= durable_end <= end`, `settled_end <= durable_end`; offsets continue from entry to entry, but over
//! ranges that are marked as damaged. No reader is given anything past the durable end. The log's lock is short: no
//! file is touched under it.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use model::batch::{Batch, BatchError, BatchHeader, HEADER_BYTES, stamped_head};
use model::topic_config::{Durability, TopicConfig};
use model::{LeaderEpoch, LogId, Offset, ProducerId, Timestamp};
use tokio::sync::oneshot;

use crate::committer::{Pending, Work};
use crate::epochs::Epochs;
use crate::error::{AppendError, DeleteRecordsError, ReadError, StorageFailed, TimedOffset};
use crate::gate::{Admission, AppendSize, Purpose};
use crate::producers::{ProducerState, Producers, Sequence};
use crate::segment::{first_at_or_after, largest_in};
use crate::segments::{SegmentPart, Segments};
use crate::storage::Shared;
use crate::waiter::{Waiter, Watchers};
use crate::wal::WalFile;

/// No more slices than this are handed out at once: what one vectored write takes.
const CHUNK_SLICES_MAX: usize = 512;

/// Producers that are idle for so long make room for new ones where there are too many. Clients give a batch up after two
/// minutes (`delivery.timeout.ms`).
pub(crate) const PRODUCER_IDLE_MS: i64 = 15 * 60_000;
/// How often a log's producers are looked at for it, at most.
const PRODUCER_SCAN_MS: i64 = 1000;

/// Where a log begins and ends. All ends are exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is kept.
    pub start: Offset,
    /// The first offset that is in the WAL only.
    pub settled_end: Offset,
    /// The first offset that is not durable: the high watermark. (With `durability=os`: not yet written.)
    pub durable_end: Offset,
    /// The next offset to be assigned.
    pub end: Offset,
}

/// The settings of a log that the engine acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// A segment is sealed before it would grow past this.
    pub segment_bytes: u64,
    /// A segment is sealed at this age.
    pub segment_ms: u64,
    /// How long a record is kept after its append; None is for ever.
    pub retention_ms: Option<u64>,
    /// How many bytes are kept; None is any number.
    pub retention_bytes: Option<u64>,
}

impl LogSettings {
    /// For the broker's own state: durable, kept for ever, in segments of moderate size.
    pub fn state() -> LogSettings {
        LogSettings {
            durability: Durability::Fsync,
            segment_bytes: 64 << 20,
            segment_ms: u64::MAX,
            retention_ms: None,
            retention_bytes: None,
        }
    }
}

impl From<&TopicConfig> for LogSettings {
    fn from(config: &TopicConfig) -> LogSettings {
        LogSettings {
            durability: config.durability,
            segment_bytes: config.segment_bytes,
            segment_ms: config.segment_ms,
            retention_ms: config.retention_ms,
            retention_bytes: config.retention_bytes,
        }
    }
}

/// A checked batch to append; its base offset and leader epoch are assigned by the log.
#[derive(Clone, Debug)]
pub struct AppendBatch(Batch);

impl AppendBatch {
    /// Its length, header included.
    pub fn bytes(&self) -> usize {
        self.0.bytes().len()
    }
}

impl From<Batch> for AppendBatch {
    fn from(batch: Batch) -> AppendBatch {
        AppendBatch(batch)
    }
}

/// What an append was given. It is durable when `durable` resolves.
#[derive(Debug)]
pub struct Appended {
    /// Where the first record went.
    pub base_offset: Offset,
    /// Where the last record went, inclusive.
    pub last_offset: Offset,
    /// The log's start at that moment.
    pub start_offset: Offset,
    /// Whether an idempotent producer had appended this before; the offsets are the first time's.
    pub duplicate: bool,
    /// Resolves when the records are durable.
    pub durable: Durable,
}

/// Resolves when what it stands for is durable, or can no longer become so.
#[must_use = "what is appended is not durable yet"]
#[derive(Debug)]
pub struct Durable(oneshot::Receiver<Result<(), StorageFailed>>);

impl Durable {
    /// Blocks until it is decided. Not for async code.
    pub fn wait(self) -> Result<(), StorageFailed> {
        self.0.blocking_recv().unwrap_or_else(|_| Err(stopped()))
    }
}

impl Future for Durable {
    type Output = Result<(), StorageFailed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|result| result.unwrap_or_else(|_| Err(stopped())))
    }
}

fn stopped() -> StorageFailed {
    StorageFailed::new("it was shut down before this became durable")
}

/// What a read found: whole batches, as slices of the WAL's and the segments' maps.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// The batches, one after the other; a slice may hold several.
    pub slices: Vec<Bytes>,
    /// Their length together.
    pub bytes: usize,
    /// The offset after the last record; where to read on.
    pub end_offset: Offset,
    /// The parts that come from segments, to see whether they are in memory.
    parts: Vec<SegmentPart>,
}

impl Chunk {
    /// Whether some of it would have to come from the disk, so that writing it to a socket may block.
    pub fn is_cold(&self) -> bool {
        self.parts.iter().any(SegmentPart::is_cold)
    }

    /// Brings it into memory. Blocks; an unreadable sector is an error, never a signal.
    pub fn populate(&self) -> std::io::Result<()> {
        self.parts.iter().try_for_each(SegmentPart::populate)
    }

    /// All of it in one piece.
    pub fn to_bytes(&self) -> Bytes {
        match self.slices.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => many.concat().into(),
        }
    }

    fn push(&mut self, slice: Bytes, end_offset: Offset) {
        self.bytes += slice.len();
        self.end_offset = end_offset;
        self.slices.push(slice);
    }
}

/// A batch of the tail: where it lies in the WAL.
#[derive(Clone, Debug)]
pub(crate) struct TailEntry {
    pub base: Offset,
    pub next: Offset,
    pub file: Arc<WalFile>,
    pub position: u32,
    pub bytes: u32,
    pub max_timestamp: Timestamp,
    pub append_time: Timestamp,
}

impl TailEntry {
    pub fn slice(&self) -> Bytes {
        let start = u64::from(self.position);
        self.file.map.slice(start..start + u64::from(self.bytes))
    }

    /// What is looked for in its batch.
    fn look<T>(&self, find: impl Fn(&Batch) -> Result<T, BatchError>) -> Result<T, ReadError> {
        let batch = Batch::parse_unverified(self.slice());
        batch
            .and_then(|batch| find(&batch))
            .map_err(|_| ReadError::Damaged {
                range: self.base..self.next,
            })
    }

    fn ends_at(&self) -> (u64, u64) {
        (
            self.file.sequence,
            u64::from(self.position) + u64::from(self.bytes),
        )
    }
}

/// All that a search looks through, as it was at one moment.
struct SearchView {
    start: Offset,
    settled_end: Offset,
    segments: Segments,
    tail: Vec<TailEntry>,
}

/// What the log's lock guards.
#[derive(Debug)]
pub(crate) struct LogState {
    pub settings: Arc<LogSettings>,
    pub bounds: Bounds,
    pub tail: VecDeque<TailEntry>,
    pub tail_bytes: u64,
    pub producers: Producers,
    /// When it was last looked for idle producers to forget.
    pub producers_scanned_at: Timestamp,
    pub epochs: Epochs,
    pub segments: Segments,
    pub damaged: Vec<Range<Offset>>,
    pub deleted: bool,
    /// Whether the settler has this log on its list.
    pub dirty: bool,
    /// Whether the active segment is to be sealed with the next settling, whatever its size.
    pub seal: bool,
}

/// One partition's log.
pub struct Log {
    id: LogId,
    shared: Weak<Shared>,
    state: Mutex<LogState>,
    watchers: Watchers,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Log {
    pub(crate) fn new(
        id: LogId,
        shared: Weak<Shared>,
        settings: Arc<LogSettings>,
        at: Bounds,
    ) -> Log {
        let state = LogState {
            settings,
            bounds: at,
            tail: VecDeque::new(),
            tail_bytes: 0,
            producers: Producers::default(),
            producers_scanned_at: Timestamp::from_millis(i64::MIN),
            epochs: Epochs::default(),
            segments: Segments::default(),
            damaged: Vec::new(),
            deleted: false,
            dirty: false,
            seal: false,
        };
        Log {
            id,
            shared,
            state: Mutex::new(state),
            watchers: Watchers::default(),
        }
    }

    pub(crate) fn locked(&self) -> MutexGuard<'_, LogState> {
        self.state
            .lock()
            .expect("nothing panics while it holds a log")
    }

    /// The same log, of a store that is open now.
    pub(crate) fn owned_by(self, shared: Weak<Shared>) -> Log {
        Log { shared, ..self }
    }

    fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.upgrade()
    }

    /// Which partition this is.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// Where the log begins and ends now.
    pub fn bounds(&self) -> Bounds {
        self.locked().bounds
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<LogSettings> {
        Arc::clone(&self.locked().settings)
    }

    /// Bytes of its batches, in segments and tail.
    pub fn size_bytes(&self) -> u64 {
        let state = self.locked();
        state.segments.bytes() + state.tail_bytes
    }

    /// Ranges of acknowledged offsets that were found damaged.
    pub fn damaged(&self) -> Vec<Range<Offset>> {
        self.locked().damaged.clone()
    }

    /// How many idempotent producers are remembered.
    pub fn producer_count(&self) -> usize {
        self.locked().producers.len()
    }

    /// The idempotent producers that are remembered, in order of their ids.
    pub fn producers(&self) -> Vec<(ProducerId, ProducerState)> {
        let state = self.locked();
        let mut producers: Vec<_> = state
            .producers
            .iter()
            .map(|(id, producer)| (id, producer.clone()))
            .collect();
        producers.sort_unstable_by_key(|(id, _)| *id);
        producers
    }

    /// Registers a waiter for one wake: when the durable end or the start moves, or the log is deleted. Register first,
    /// then look at the log, then wait: so no move is missed.
    pub fn watch(&self, waiter: &Arc<Waiter>) {
        self.watchers.add(waiter);
    }

    /// Appends whole batches one after the other. Never waits: the admission was waited for, and the sync is `durable`.
    /// A single batch that an idempotent producer appended before is answered with its first offsets.
    /// Errors: `NotAdmitted` if the batches are more than the admission is for; nothing is appended then.
    pub fn append(
        &self,
        batches: Vec<AppendBatch>,
        admission: Admission,
    ) -> Result<Appended, AppendError> {
        assert!(!batches.is_empty(), "an append has a batch");
        admission.check(&batches)?;
        let shared = self.shared().ok_or(AppendError::Closed)?;
        let now = shared.steady_now();
        let epoch = shared.leader_epoch;
        let (ack, acked) = oneshot::channel();
        let mut state = self.locked();
        if state.deleted {
            return Err(AppendError::Deleted);
        }
        if let [only] = batches.as_slice()
            && let Sequence::Duplicate(first) = state.producers.check(only.0.header())?
        {
            // Its first append may still wait for the sync; behind it in the queue this is decided with it.
            let start_offset = state.bounds.start;
            shared.committer.push(Pending {
                log: None,
                work: Work::Ride,
                ack: Some(ack),
                admission: Some(admission),
            })?;
            return Ok(Appended {
                base_offset: first.base_offset,
                last_offset: first.last_offset,
                start_offset,
                duplicate: true,
                durable: Durable(acked),
            });
        }
        let found_new = batches
            .iter()
            .filter(|batch| state.producers.is_new(batch.0.header()));
        let new_producers = found_new.count();
        if new_producers > 0 {
            state.make_room_for_producers(&shared, new_producers, now)?;
        }
        let base_offset = state.bounds.end;
        let count: u64 = batches
            .iter()
            .map(|batch| batch.0.header().offset_count())
            .sum();
        let end = base_offset
            .checked_plus(count)
            .filter(|end| *end < Offset::MAX)
            .ok_or(AppendError::OffsetsExhausted)?;
        let os = state.settings.durability == Durability::Os;
        let mut pending = Vec::with_capacity(batches.len());
        let mut base = base_offset;
        for AppendBatch(batch) in &batches {
            state.producers.check(batch.header())?;
            let next = base.plus(batch.header().offset_count());
            let work = Work::Batch {
                head: stamped_head(batch, base, epoch),
                bytes: batch.bytes().clone(),
                base,
                next,
                max_timestamp: batch.header().max_time(),
                os,
            };
            pending.push(work);
            base = next;
        }
        assert!(base == end, "the batches' offsets add up");
        let this = shared.log(self.id).ok_or(AppendError::Deleted)?;
        let (mut ack, mut admission) = (Some(ack), Some(admission));
        let last = pending.len() - 1;
        let pending = pending
            .into_iter()
            .enumerate()
            .map(|(index, work)| Pending {
                log: Some(Arc::clone(&this)),
                work,
                ack: if index == last { ack.take() } else { None },
                admission: if index == last {
                    admission.take()
                } else {
                    None
                },
            });
        shared.committer.push_all(pending.collect())?;
        let mut base = base_offset;
        let before = state.producers.len();
        for AppendBatch(batch) in &batches {
            state.producers.record(batch.header(), base, now);
            base = base.plus(batch.header().offset_count());
        }
        let new_producers = (state.producers.len() - before) as u64;
        if new_producers > 0 {
            shared.counters.producers.fetch_add(new_producers, Relaxed);
        }
        state.epochs.begin(epoch, base_offset);
        state.bounds.end = end;
        let start_offset = state.bounds.start;
        drop(state);
        let last_offset = Offset::new(end.get() - 1);
        Ok(Appended {
            base_offset,
            last_offset,
            start_offset,
            duplicate: false,
            durable: Durable(acked),
        })
    }

    /// Raises the start to `before`; what lies below is gone for readers when the result resolves, and stays gone over
    /// restarts. A start that is already there or past it is left.
    pub fn delete_records(&self, before: Offset) -> Result<Durable, DeleteRecordsError> {
        let shared = self.shared().ok_or(AppendError::Closed)?;
        let (ack, acked) = oneshot::channel();
        let state = self.locked();
        if state.deleted {
            return Err(AppendError::Deleted.into());
        }
        if before > state.bounds.durable_end {
            return Err(DeleteRecordsError::OutOfRange {
                before,
                bounds: state.bounds,
            });
        }
        let log = shared.log(self.id).ok_or(AppendError::Deleted)?;
        let is_passed = before <= state.bounds.start;
        // Where there is no room for more than what is admitted it waits with the others, as the file is being made.
        let admission = if is_passed {
            None
        } else {
            shared
                .gate
                .try_admit(AppendSize::of_one(0), Purpose::Removal)
        };
        if let Some(refusal) = admission.as_ref().and_then(Admission::refusal) {
            return Err(refusal.clone().into());
        }
        let work = if is_passed {
            Work::Ride
        } else {
            Work::StartRaised { start: before }
        };
        shared.committer.push(Pending {
            log: Some(log),
            work,
            ack: Some(ack),
            admission,
        })?;
        Ok(Durable(acked))
    }

    /// Reads whole batches, starting with the one that contains `from`. Returns at most `max_bytes`, except that with
    /// `min_one` the first batch is returned whole even if it is larger (KIP-74). Nothing at the durable end.
    /// Errors: `OutOfRange` outside `start..=end`, `Damaged`, `Io`. Never waits for the writer. What has settled is checked
    /// the first time that it is read, which blocks.
    pub fn read(&self, from: Offset, max_bytes: usize, min_one: bool) -> Result<Chunk, ReadError> {
        let mut chunk = Chunk {
            end_offset: from,
            ..Chunk::default()
        };
        loop {
            let next = chunk.end_offset;
            let budget = max_bytes.saturating_sub(chunk.bytes);
            let first = min_one && chunk.slices.is_empty();
            if (budget == 0 && !first) || chunk.slices.len() >= CHUNK_SLICES_MAX {
                return Ok(chunk);
            }
            let before = chunk.slices.len();
            match self.read_on(next, budget, first, &mut chunk) {
                Ok(()) if chunk.slices.len() == before => return Ok(chunk),
                Ok(()) => {}
                // What was found before the trouble is good; the next read begins with the trouble.
                Err(_) if before > 0 => return Ok(chunk),
                Err(error) => return Err(error),
            }
        }
    }

    fn read_on(
        &self,
        from: Offset,
        max_bytes: usize,
        min_one: bool,
        chunk: &mut Chunk,
    ) -> Result<(), ReadError> {
        let state = self.locked();
        state.check_readable(from)?;
        if from >= state.bounds.durable_end {
            return Ok(());
        }
        if from < state.bounds.settled_end {
            let segments = state.segments.clone();
            let settled_end = state.bounds.settled_end;
            let offsets = from..state.damaged_after(from).unwrap_or(settled_end);
            drop(state);
            let shared = self.shared().ok_or(ReadError::Deleted)?;
            let found = segments
                .read(&shared, self.id, offsets, max_bytes, min_one)
                .or_else(|error| self.unless_removed(from, error))?;
            if let Some(part) = found {
                // What settled since this view was taken is the tail's to give.
                assert!(
                    part.end_offset() <= settled_end,
                    "a view shows nothing past its settled end"
                );
                chunk.push(part.slice(), part.end_offset());
                chunk.parts.push(part);
            }
            return Ok(());
        }
        let first = state.tail.partition_point(|entry| entry.next <= from);
        let mut taken: Vec<(TailEntry, u64)> = Vec::new();
        let mut bytes = 0;
        let mut expected: Option<Offset> = None;
        for entry in state.tail.range(first..) {
            let fits = bytes + entry.bytes as usize <= max_bytes || (min_one && bytes == 0);
            let continues = expected.is_none_or(|expected| expected == entry.base);
            if !fits || !continues || entry.next > state.bounds.durable_end {
                break;
            }
            bytes += entry.bytes as usize;
            expected = Some(entry.next);
            let slices = taken.len() + chunk.slices.len();
            match taken.last_mut() {
                // Neighbours in the WAL leave as one slice.
                Some((last, end))
                    if (last.file.sequence, *end)
                        == (entry.file.sequence, u64::from(entry.position)) =>
                {
                    *end = entry.ends_at().1;
                    last.next = entry.next;
                }
                _ if slices >= CHUNK_SLICES_MAX => break,
                _ => taken.push((entry.clone(), entry.ends_at().1)),
            }
        }
        drop(state);
        for (entry, end) in taken {
            chunk.push(
                entry.file.map.slice(u64::from(entry.position)..end),
                entry.next,
            );
        }
        Ok(())
    }

    /// A segment that went away while it was looked for is no trouble of the disk: the start has passed it.
    fn unless_removed<T>(&self, from: Offset, error: ReadError) -> Result<T, ReadError> {
        self.locked().check_readable(from)?;
        Err(error)
    }

    /// Like [`Log::read`], with all of it in memory, so that writing it to a socket does not wait for the disk. Blocks. Where a
    /// sector cannot be read it ends before the batch that lies on it; an error if that is the first one.
    pub fn read_warm(
        &self,
        from: Offset,
        max_bytes: usize,
        min_one: bool,
    ) -> Result<Chunk, ReadError> {
        let mut chunk = self.read(from, max_bytes, min_one)?;
        while chunk.is_cold()
            && let Err(source) = chunk.populate()
        {
            let less = self.read(from, chunk.bytes / 2, true)?;
            if less.bytes >= chunk.bytes {
                return Err(ReadError::Io { from, source });
            }
            chunk = less;
        }
        Ok(chunk)
    }

    /// Like [`Log::read`] with `min_one`, for our own code to look into: a bad sector is an error, never a signal. Blocks.
    pub fn read_copy(&self, from: Offset, max_bytes: usize) -> Result<Chunk, ReadError> {
        let chunk = self.read(from, max_bytes, true)?;
        chunk
            .populate()
            .map_err(|source| ReadError::Io { from, source })?;
        Ok(chunk)
    }

    /// The first record in log order whose timestamp is at or after `wanted`, exact to the record, also where clocks were
    /// wrong. None if there is none below the durable end. Blocks: it decompresses the batch that holds it.
    pub fn offset_for_time(&self, wanted: Timestamp) -> Result<Option<TimedOffset>, ReadError> {
        self.search(|shared, view| {
            if let Some(shared) = &shared {
                let (segments, start) = (&view.segments, view.start);
                if let Some(found) = segments.offset_for_time(shared, self.id, start, wanted)? {
                    return Ok(Some(found));
                }
            }
            for entry in &view.tail {
                if entry.max_timestamp < wanted {
                    continue;
                }
                let in_batch = |batch: &Batch| first_at_or_after(batch, wanted, view.start);
                if let Some(found) = entry.look(in_batch)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
    }

    /// The record with the largest timestamp, the first of them. None in an empty log. Blocks.
    pub fn max_timestamp(&self) -> Result<Option<TimedOffset>, ReadError> {
        self.search(|shared, view| {
            let mut largest: Option<TimedOffset> = None;
            if let Some(shared) = &shared {
                let (segments, start) = (&view.segments, view.start);
                if let Some(time) = segments.max_timestamp(shared, self.id, start)? {
                    largest = segments.offset_for_time(shared, self.id, start, time)?;
                }
            }
            for entry in &view.tail {
                if largest.is_some_and(|known| known.timestamp >= entry.max_timestamp) {
                    continue;
                }
                let found = entry.look(|batch| largest_in(batch, view.start))?;
                let is_larger = |found: &TimedOffset| {
                    largest.is_none_or(|known| known.timestamp < found.timestamp)
                };
                largest = found.filter(is_larger).or(largest);
            }
            Ok(largest)
        })
    }

    /// Looks through all that is visible at one moment. Segments that are removed meanwhile are no trouble of the disk: the
    /// start has passed them, and the search begins anew.
    fn search<T>(
        &self,
        look: impl Fn(Option<Arc<Shared>>, &SearchView) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        loop {
            let view = self.view_for_search()?;
            let shared = if view.start < view.settled_end {
                Some(self.shared().ok_or(ReadError::Deleted)?)
            } else {
                None
            };
            match look(shared, &view) {
                Err(_) if self.bounds().start > view.start => {}
                found => return found,
            }
        }
    }

    fn view_for_search(&self) -> Result<SearchView, ReadError> {
        let state = self.locked();
        if state.deleted {
            return Err(ReadError::Deleted);
        }
        let Bounds {
            start,
            durable_end,
            settled_end,
            ..
        } = state.bounds;
        let visible = |entry: &&TailEntry| entry.next > start && entry.next <= durable_end;
        Ok(SearchView {
            start,
            settled_end,
            segments: state.segments.clone(),
            tail: state.tail.iter().filter(visible).cloned().collect(),
        })
    }

    /// When the broker appended the record at `offset`, or the next one that is kept, by the store's own time: not before the
    /// first and not after the second. Exact in the tail; in a segment as exact as its index, which has a time for each block.
    /// None at the durable end. Blocks.
    pub fn appended_between(
        &self,
        offset: Offset,
    ) -> Result<Option<(Timestamp, Timestamp)>, ReadError> {
        let segments = {
            let state = self.locked();
            if state.deleted {
                return Err(ReadError::Deleted);
            }
            if offset >= state.bounds.durable_end {
                return Ok(None);
            }
            if offset >= state.bounds.settled_end {
                let at = state.tail.partition_point(|entry| entry.next <= offset);
                let found = state.tail.get(at);
                return Ok(found.map(|entry| (entry.append_time, entry.append_time)));
            }
            state.segments.clone()
        };
        let shared = self.shared().ok_or(ReadError::Deleted)?;
        segments
            .appended_between(&shared, self.id, offset)
            .or_else(|error| self.unless_removed(offset, error))
    }

    /// The largest leader epoch that is not above `epoch`, and where it ended; Kafka's OffsetForLeaderEpoch. None if the
    /// epoch is above all that are known.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let state = self.locked();
        state.epochs.end_offset_for(epoch, state.bounds.durable_end)
    }

    /// The leader epoch of the record at `offset`, if it is still known.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.locked().epochs.epoch_at(offset)
    }

    // --- what the committer, recovery and the settler do ---

    /// A batch has reached the disk as its topic's durability asks: show it to readers. True if the settler does not know
    /// yet that this log has something to settle.
    pub(crate) fn publish(&self, entry: TailEntry) -> bool {
        let mut state = self.locked();
        if state.deleted {
            return false;
        }
        assert!(
            entry.base >= state.bounds.durable_end,
            "a log is published in the order of its offsets"
        );
        state.bounds.durable_end = entry.next;
        assert!(
            entry.next <= state.bounds.end,
            "only what has offsets is published"
        );
        state.tail_bytes += u64::from(entry.bytes);
        state.tail.push_back(entry);
        let newly_dirty = !std::mem::replace(&mut state.dirty, true);
        drop(state);
        self.watchers.wake_all();
        newly_dirty
    }

    /// The raised start is durable: readers below it are told. True as for [`Log::publish`].
    pub(crate) fn publish_start(&self, start: Offset) -> bool {
        let mut state = self.locked();
        if state.deleted || start <= state.bounds.start {
            return false;
        }
        state.raise_start(start);
        let newly_dirty = !std::mem::replace(&mut state.dirty, true);
        drop(state);
        self.watchers.wake_all();
        newly_dirty
    }

    /// The active segment is to be sealed, so that retention can remove it.
    pub(crate) fn ask_for_seal(&self) {
        self.locked().seal = true;
    }

    /// No reader and no writer gets anything from the log any more.
    pub(crate) fn mark_deleted(&self) {
        let mut state = self.locked();
        state.deleted = true;
        state.tail.clear();
        state.tail_bytes = 0;
        drop(state);
        self.watchers.wake_all();
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.locked().deleted
    }

    pub(crate) fn set_settings(&self, settings: Arc<LogSettings>) {
        self.locked().settings = settings;
    }
}

impl LogState {
    fn check_readable(&self, from: Offset) -> Result<(), ReadError> {
        if self.deleted {
            return Err(ReadError::Deleted);
        }
        if from < self.bounds.start || from > self.bounds.end {
            return Err(ReadError::OutOfRange {
                from,
                bounds: self.bounds,
            });
        }
        match self.damaged.iter().find(|range| range.contains(&from)) {
            Some(range) => Err(ReadError::Damaged {
                range: range.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Where the next damage begins.
    fn damaged_after(&self, from: Offset) -> Option<Offset> {
        let starts = self.damaged.iter().map(|range| range.start);
        starts.filter(|start| *start > from).min()
    }

    pub(crate) fn raise_start(&mut self, start: Offset) {
        assert!(
            start <= self.bounds.durable_end,
            "the start never passes the durable end"
        );
        self.bounds.start = start;
        self.epochs.forget_before(start);
        self.damaged.retain(|range| range.end > start);
    }

    /// Acknowledged records are known to be gone. Their offsets are not given out again.
    pub(crate) fn lose(&mut self, range: Range<Offset>) {
        self.bounds.end = self.bounds.end.max(range.end);
        self.bounds.durable_end = self.bounds.durable_end.max(range.end);
        self.mark_damaged(range);
    }

    /// Readers of the range are told that it is damaged. False if they were, or if the log does not reach back that far.
    pub(crate) fn mark_damaged(&mut self, range: Range<Offset>) -> bool {
        if range.is_empty() || range.end <= self.bounds.start || self.is_damaged(&range) {
            return false;
        }
        // Neighbours are one range: it tells readers where to go on.
        let touches = |known: &Range<Offset>| known.start <= range.end && range.start <= known.end;
        let mut all = range.clone();
        for known in self.damaged.iter().filter(|known| touches(known)) {
            all = all.start.min(known.start)..all.end.max(known.end);
        }
        self.damaged.retain(|known| !touches(known));
        self.damaged.push(all);
        true
    }

    pub(crate) fn is_damaged(&self, range: &Range<Offset>) -> bool {
        let holds = |known: &Range<Offset>| known.start <= range.start && range.end <= known.end;
        self.damaged.iter().any(holds)
    }

    /// The WAL is replayed: no offset of what is damaged behind its last record is given out again.
    pub(crate) fn replayed(&mut self) {
        let damaged = self.damaged.iter().map(|range| range.end);
        let end = damaged.fold(self.bounds.start, Offset::max);
        self.bounds.end = self.bounds.end.max(end);
        self.bounds.durable_end = self.bounds.end;
    }

    /// Recovery found a batch in the WAL that is not settled yet. Gives the gap before it, if one was not known.
    pub(crate) fn replay(
        &mut self,
        header: &BatchHeader,
        entry: TailEntry,
        epoch: LeaderEpoch,
    ) -> Option<Range<Offset>> {
        if entry.next <= self.bounds.settled_end {
            return None;
        }
        let end = self.bounds.end;
        assert!(
            entry.base >= end,
            "offsets continue from frame to frame: {} after {end}",
            entry.base
        );
        let gap = Some(end..entry.base).filter(|gap| !gap.is_empty() && !self.is_damaged(gap));
        if let Some(gap) = &gap {
            self.mark_damaged(gap.clone());
        }
        self.producers.record(header, entry.base, entry.append_time);
        self.epochs.begin(epoch, entry.base);
        self.bounds.end = entry.next;
        self.bounds.durable_end = entry.next;
        self.tail_bytes += u64::from(entry.bytes);
        self.tail.push_back(entry);
        gap
    }

    /// Sees that `count` more producers may be remembered: forgets those that are idle for long, or refuses. What is forgotten
    /// could only come again as a retry that its client gave up long ago.
    fn make_room_for_producers(
        &mut self,
        shared: &Shared,
        count: usize,
        now: Timestamp,
    ) -> Result<(), AppendError> {
        let config = &shared.config;
        let total = &shared.counters.producers;
        let over = |known: usize| -> Option<(u64, &'static str)> {
            let all = total.load(Relaxed);
            if known + count > config.producers_per_log_max {
                Some((known as u64, "producer.ids.per.partition.max"))
            } else if all + count as u64 > config.producers_max {
                Some((all, "producer.ids.max"))
            } else {
                None
            }
        };
        if over(self.producers.len()).is_none() {
            return Ok(());
        }
        // A look at all of them takes time, and a refused producer may come again at once.
        if now
            .millis()
            .saturating_sub(self.producers_scanned_at.millis())
            >= PRODUCER_SCAN_MS
        {
            self.producers_scanned_at = now;
            let oldest = now.plus_millis(-PRODUCER_IDLE_MS);
            // Some more than needed, so that the next look is not at once.
            let keep = self.producers.len() - self.producers.len() / 16;
            let forgotten = self
                .producers
                .forget_idle(oldest, keep.saturating_sub(count)) as u64;
            // What was counted anew meanwhile may be less.
            let less = |known: u64| Some(known.saturating_sub(forgotten));
            let _ = total.fetch_update(Relaxed, Relaxed, less);
            shared
                .counters
                .producers_forgotten
                .fetch_add(forgotten, Relaxed);
        }
        match over(self.producers.len()) {
            None => Ok(()),
            Some((known, setting)) => {
                shared.counters.producers_refused.fetch_add(1, Relaxed);
                Err(AppendError::TooManyProducers {
                    count: known,
                    setting,
                    idle_minutes: PRODUCER_IDLE_MS.unsigned_abs() / 60_000,
                })
            }
        }
    }

    /// Drops what settled from the tail's index.
    pub(crate) fn settled(&mut self, settled_end: Offset) {
        assert!(
            settled_end <= self.bounds.durable_end,
            "only what is durable settles"
        );
        assert!(
            settled_end >= self.bounds.settled_end,
            "what is settled stays settled"
        );
        while self
            .tail
            .front()
            .is_some_and(|entry| entry.next <= settled_end)
        {
            let entry = self.tail.pop_front().expect("it was just looked at");
            self.tail_bytes -= u64::from(entry.bytes);
        }
        if self.tail.is_empty() {
            self.tail.shrink_to_fit();
        }
        self.bounds.settled_end = settled_end;
    }
}

const _: () = assert!(HEADER_BYTES == 61);
