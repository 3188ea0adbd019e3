//! The record reader: goes over one partition's log and gives the wanted records, decoded, with the gaps between them.
//!
//! Callers: replays and subscriptions. This is the one place where stored batches become records for somebody to see.
//! A reader is a cursor: between two calls it holds a piece of a run of batches as they are stored, at most, or what a step that was made
//! ahead has found, and nothing open.
//! It reads and decompresses on the blocking pool, a bounded number of readers at a time, within what all decompression may hold
//! together (`inflation.rs`).
//! Invariants: records come in the order of offsets, none twice; each offset of its range is shown, or was not wanted, or is in a
//! gap or counted as cleaned. Control records are nobody's to see.

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use model::batch::{Batch, BatchError, DecompressLimit, Records, split_unverified};
use model::{LogId, Offset, PartitionId};
use storage::{Log, LogScan, ReadError, ScanRange};

use super::block::{Block, Part};
use super::request::{Filter, Gap, GapReason, ReplayError, Scanned};
use crate::broker::inflation::TooLarge;
use crate::broker::open_readers::{Opened, ReaderName};
use crate::broker::{Broker, read_refusal};

/// How much a reader reads and gives at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Stored bytes that are copied at a time, but for a single larger batch.
    run_bytes: usize,
    /// Decompressed bytes after which a block is complete.
    block_bytes: usize,
}

impl Sizes {
    /// For who reads all of a range, a partition after the other, as fast as it can: each step is worth its way to another thread.
    pub const WHOLE: Sizes = Sizes {
        run_bytes: 1 << 20,
        block_bytes: 2 << 20,
    };
    /// For who reads a part of a range, or several partitions at a time.
    pub const RANGE: Sizes = Sizes {
        run_bytes: 256 << 10,
        block_bytes: 512 << 10,
    };
    /// For one of many who follow, some of whom take nothing for long.
    pub const FOLLOWER: Sizes = Sizes {
        run_bytes: 64 << 10,
        block_bytes: 64 << 10,
    };
}

/// A batch that is larger when decompressed is not kept for its records: they are copied out of it.
const KEPT_BYTES_MAX: usize = 4 << 20;
/// If the wanted records of a batch are a smaller part of it, they are copied out of it: the memory of a run that was read is not kept for
/// some bytes of it, and the next run is read into it.
const SPARSE_PART: usize = 8;
/// Stored bytes that are looked at before others have their turn, if nothing wanted is among them.
const TURN_BYTES: u64 = 4 << 20;
/// A batch of the tail that decompresses to no more is decompressed where its reader runs.
const NOW_BYTES_MAX: usize = 1 << 20;
/// As [`TURN_BYTES`], where the reader runs among others.
const NOW_TURN_BYTES: u64 = 256 << 10;

/// A step of a reader.
#[derive(Debug)]
pub(super) struct Step {
    /// What cleanup has taken since the last step, before the last of what was found.
    pub cleaned: Option<Gap>,
    pub found: Found,
}

/// What a step of a reader found.
#[derive(Debug)]
pub(super) enum Found {
    Records(Block),
    /// Nothing is to be seen there.
    Gap(Gap),
    /// It looked at much, and nothing was wanted so far.
    Nothing,
    /// The end of its range, or the end of the log for now.
    End,
}

/// One partition's reader. See the module.
pub(super) struct Reader {
    partition: PartitionId,
    cursor: Arc<Mutex<Cursor>>,
    /// Where the cursor was at the end of the last step whose result was handed out. The cursor itself may be ahead of it: a step
    /// that nobody waits for goes on.
    next: Offset,
    /// Its place in the list of those who read.
    open: Option<Opened>,
    /// How much was looked at by then.
    scanned: Scanned,
    /// A step under way.
    pending: Option<BoxFuture<'static, Result<Step, ReplayError>>>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Cursor {
    partition: PartitionId,
    scan: LogScan,
    filter: Filter,
    sizes: Sizes,
    /// Records before it are not shown.
    next: Offset,
    run: Option<Run>,
    /// What the scan has told behind records that were given first.
    gap: Option<(Range<Offset>, GapReason)>,
    scanned: Scanned,
    /// What cleanup has taken, and nobody was told of.
    cleaned: Option<Gap>,
    /// Where the wanted records of a batch lie: memory for the next batch.
    places: Vec<Range<usize>>,
}

/// Stored batches that are not decoded yet.
#[derive(Debug)]
struct Run {
    rest: Bytes,
    offsets: Range<Offset>,
}

/// What decoding a run came to.
enum Ran {
    /// It is over; the block takes more.
    Out,
    /// The block is complete. What is left of the run is the next step's.
    Full,
    /// Nothing is to be seen there, and nothing was found before.
    Gap(Gap),
}

/// How much of a batch was decoded.
enum Decoded {
    All { size: usize },
    Piece,
}

impl Reader {
    /// Reads a range of a log. Nothing is read before the first step.
    pub fn new(
        partition: PartitionId,
        log: &Log,
        offsets: Range<Offset>,
        filter: Filter,
        sizes: Sizes,
    ) -> Reader {
        let next = offsets.start;
        let times = filter.times.clone();
        let cursor = Cursor {
            partition,
            scan: log.scan(ScanRange {
                offsets,
                times,
                key: filter.sought(),
                run_bytes: sizes.run_bytes,
            }),
            filter,
            sizes,
            next,
            run: None,
            gap: None,
            scanned: Scanned::default(),
            cleaned: None,
            places: Vec::new(),
        };
        Reader {
            partition,
            cursor: Arc::new(Mutex::new(cursor)),
            next,
            open: None,
            scanned: Scanned::default(),
            pending: None,
        }
    }

    /// Which partition it reads.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Goes on to the next wanted records or the next gap. A call that is given up loses nothing: the next one goes on with it.
    pub async fn step(&mut self, broker: &Broker) -> Result<Step, ReplayError> {
        if let Some(step) = self.step_now(broker) {
            return step;
        }
        let begin = || -> BoxFuture<'static, _> {
            Box::pin(run_step(broker.clone(), Arc::clone(&self.cursor)))
        };
        let step = self.pending.get_or_insert_with(begin).await;
        self.pending = None;
        self.handed_out(broker, &step);
        step
    }

    /// A step in the tail, which is in memory; None if it would have to wait for the disk, takes long, or is under way already.
    pub fn step_now(&mut self, broker: &Broker) -> Option<Result<Step, ReplayError>> {
        if self.pending.is_some() {
            return None;
        }
        let step = locked(&self.cursor).step_now()?;
        self.handed_out(broker, &step);
        Some(step)
    }

    /// Begins the next step before it is asked for, unless others are ahead already.
    pub fn go_ahead(&mut self, broker: &Broker) {
        if self.pending.is_some() {
            return;
        }
        let Some(leave) = broker.shared.readers.ahead() else {
            return;
        };
        let step = tokio::spawn(run_step(broker.clone(), Arc::clone(&self.cursor)));
        self.pending = Some(Box::pin(async move {
            let _leave = leave;
            match step.await {
                Ok(step) => step,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime ends, and with it whoever asks.
                Err(_) => std::future::pending().await,
            }
        }));
    }

    /// Has it stand in the list of those who read.
    pub fn open_as(&mut self, broker: &Broker, who: &ReaderName, log: LogId) {
        let opened = broker.open_reader(who, log, self.next_offset());
        self.open = Some(opened);
    }

    fn handed_out(&mut self, broker: &Broker, step: &Result<Step, ReplayError>) {
        if step.is_ok() {
            let cursor = locked(&self.cursor);
            let counts = cursor.scan.counts();
            self.next = cursor.next;
            self.scanned = Scanned {
                bytes: counts.bytes,
                skipped_bytes: counts.skipped_bytes,
                ..cursor.scanned
            };
        }
        if let Some(open) = &self.open {
            let is_damaged = matches!(step, Ok(Step { found: Found::Gap(gap), .. }) if gap.reason == GapReason::Damaged);
            if is_damaged {
                broker.note_new_damage();
            }
            open.is_at(self.next_offset());
        }
    }

    /// The first offset that was not shown, passed over or told as a gap, by the steps that were handed out.
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// How much was looked at for the steps that were handed out.
    pub fn scanned(&self) -> Scanned {
        self.scanned
    }
}

async fn run_step(broker: Broker, cursor: Arc<Mutex<Cursor>>) -> Result<Step, ReplayError> {
    let shared = &broker.shared;
    let _turn = shared.readers.turn().await;
    let run_bytes = locked(&cursor).sizes.run_bytes;
    let work = move |limit, is_last| {
        let mut cursor = locked(&cursor);
        let found = cursor.step(limit, is_last)?;
        Ok(cursor.told(found))
    };
    shared.inflation.run(run_bytes, work).await
}

fn locked(cursor: &Mutex<Cursor>) -> MutexGuard<'_, Cursor> {
    cursor
        .lock()
        .expect("nothing panics while it holds a cursor")
}

impl Cursor {
    /// A step in the tail, which is in memory; None if it would have to wait for the disk, or takes long.
    fn step_now(&mut self) -> Option<Result<Step, ReplayError>> {
        let limit = DecompressLimit::bytes(NOW_BYTES_MAX);
        let found = self.step_by(limit, false, NOW_TURN_BYTES, LogScan::next_step_in_memory);
        let found = found.ok().flatten()?;
        Some(self.told(found))
    }

    /// What was found, with what cleanup has taken before. That is still to be told where something goes wrong.
    fn told(&mut self, found: Result<Found, ReplayError>) -> Result<Step, ReplayError> {
        let found = found?;
        let cleaned = self.cleaned.take();
        Ok(Step { cleaned, found })
    }

    /// A step wherever it is. Blocks. `TooLarge` if the next batch takes more than `limit`, and that is not the last one.
    fn step(
        &mut self,
        limit: DecompressLimit,
        is_last: bool,
    ) -> Result<Result<Found, ReplayError>, TooLarge> {
        let next = |scan: &mut LogScan| scan.next_step().map(Some);
        let found = self.step_by(limit, is_last, TURN_BYTES, next)?;
        Ok(found.expect("the disk is waited for"))
    }

    fn step_by(
        &mut self,
        limit: DecompressLimit,
        is_last: bool,
        turn_bytes: u64,
        mut next_step: impl FnMut(&mut LogScan) -> Result<Option<Option<storage::Scanned>>, ReadError>,
    ) -> Result<Option<Result<Found, ReplayError>>, TooLarge> {
        let bytes_before = self.scan.counts().bytes;
        if let Some((offsets, reason)) = self.gap.take() {
            self.next = offsets.end;
            return Ok(Some(Ok(Found::Gap(self.gap(offsets, reason)))));
        }
        // What is wanted of many short runs, as a replay of one key reads them, is one block.
        let (mut block, mut bytes) = (Block::default(), 0);
        loop {
            if let Some(run) = self.run.take() {
                match self.decode_run(run, limit, is_last, (&mut block, &mut bytes))? {
                    Ran::Out => {}
                    Ran::Full => return Ok(Some(Ok(Found::Records(block)))),
                    Ran::Gap(gap) => return Ok(Some(Ok(Found::Gap(gap)))),
                }
            }
            let is_turn_over = self.scan.counts().bytes - bytes_before >= turn_bytes;
            let is_full = bytes >= self.sizes.block_bytes && !block.is_empty();
            if is_turn_over || is_full {
                return Ok(Some(Ok(match block.is_empty() {
                    true => Found::Nothing,
                    false => Found::Records(block),
                })));
            }
            match next_step(&mut self.scan) {
                Ok(Some(Some(storage::Scanned::Run { batches, offsets }))) => {
                    self.next = self.next.max(offsets.start);
                    self.run = Some(Run {
                        rest: batches,
                        offsets,
                    });
                }
                Ok(Some(Some(storage::Scanned::Gap { offsets, reason }))) => {
                    if !block.is_empty() {
                        self.gap = Some((offsets, reason.into()));
                        return Ok(Some(Ok(Found::Records(block))));
                    }
                    self.next = offsets.end;
                    return Ok(Some(Ok(Found::Gap(self.gap(offsets, reason.into())))));
                }
                // What was found is good; the next step comes to the same.
                _ if !block.is_empty() => return Ok(Some(Ok(Found::Records(block)))),
                Err(error) => return Ok(Some(Err(read_refusal(error).into()))),
                Ok(None) => return Ok(None),
                Ok(Some(None)) => {
                    self.next = self.next.max(self.scan.next_offset());
                    return Ok(Some(Ok(Found::End)));
                }
            }
        }
    }

    /// Decodes batches of a run into a block, of which so many bytes were decoded, until it is full or the run ends.
    fn decode_run(
        &mut self,
        mut run: Run,
        limit: DecompressLimit,
        is_last: bool,
        (block, bytes): (&mut Block, &mut usize),
    ) -> Result<Ran, TooLarge> {
        while *bytes < self.sizes.block_bytes || block.is_empty() {
            let mut batches = split_unverified(run.rest.clone());
            let Some(batch) = batches.next() else {
                self.note_missing(run.offsets.end);
                return Ok(Ran::Out);
            };
            let batch = batch.expect("the storage gives whole batches that it has verified");
            let end = batch.header().next_offset().min(run.offsets.end);
            match self.decode(&batch, limit, end, block) {
                Ok(Decoded::All { size }) => {
                    *bytes += size;
                    run.rest = batches.rest().clone();
                }
                Ok(Decoded::Piece) => break,
                // What was found before the trouble is good; the next step begins with the trouble.
                Err(_) if !block.is_empty() => break,
                Err(error) if TooLarge::is(&error) && !is_last => {
                    self.run = Some(run);
                    return Err(TooLarge);
                }
                Err(error) => {
                    let offsets = self.next..end;
                    tracing::warn!(partition = %self.partition, offset = %offsets.start, %error, "a batch holds no records that can be read");
                    self.next = end;
                    run.rest = batches.rest().clone();
                    self.run = Some(run);
                    return Ok(Ran::Gap(self.gap(offsets, GapReason::Undecodable)));
                }
            }
        }
        self.run = Some(run);
        Ok(Ran::Full)
    }

    /// Adds a batch's wanted records before `end` to a block.
    fn decode(
        &mut self,
        batch: &Batch,
        limit: DecompressLimit,
        end: Offset,
        block: &mut Block,
    ) -> Result<Decoded, BatchError> {
        if batch.header().is_control() {
            self.next = self.next.max(end);
            return Ok(Decoded::All { size: 0 });
        }
        let records = batch.records(limit)?;
        let size = records.payload().len();
        if size > KEPT_BYTES_MAX {
            return self.decode_piece(records, end, block);
        }
        let (partition, frame) = (self.partition, records.frame());
        let payload = records.payload().clone();
        let mut places = std::mem::take(&mut self.places);
        let found = self.each(records, end, &mut |at| {
            places.push(at);
            ControlFlow::Continue(())
        });
        let wanted: usize = places.iter().map(Range::len).sum();
        if wanted * SPARSE_PART < size {
            let (mut copies, mut positions) = (BytesMut::with_capacity(wanted), Vec::new());
            for at in places.drain(..) {
                positions.push(copies.len());
                copies.extend_from_slice(&payload[at]);
            }
            block.push_copies(partition, frame, copies, &positions);
        } else {
            block.begin_part(Part {
                partition,
                frame,
                payload,
            });
            places.drain(..).for_each(|at| block.push(at.start));
        }
        self.places = places;
        found.map(|_| Decoded::All { size })
    }

    /// Copies some wanted records out of a batch that is too large to be kept. It is decompressed again for the next ones.
    fn decode_piece(
        &mut self,
        records: Records,
        end: Offset,
        block: &mut Block,
    ) -> Result<Decoded, BatchError> {
        let (partition, frame) = (self.partition, records.frame());
        let payload = records.payload().clone();
        let block_bytes = self.sizes.block_bytes;
        let (mut copies, mut positions) = (BytesMut::new(), Vec::new());
        let copied = self.each(records, end, &mut |at| {
            positions.push(copies.len());
            copies.extend_from_slice(&payload[at]);
            match copies.len() < block_bytes {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        let size = copies.len();
        block.push_copies(partition, frame, copies, &positions);
        Ok(match copied? {
            ControlFlow::Continue(()) => Decoded::All { size },
            ControlFlow::Break(()) => Decoded::Piece,
        })
    }

    /// Looks at each record of a batch that was not looked at before, and hands out where in the payload the wanted ones lie.
    fn each(
        &mut self,
        mut records: Records,
        end: Offset,
        wanted: &mut dyn FnMut(Range<usize>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, BatchError> {
        loop {
            let start = records.position();
            let Some(record) = records.next_ref() else {
                break;
            };
            let record = record?;
            if record.offset >= end {
                break;
            }
            if record.offset < self.next {
                continue;
            }
            self.note_missing(record.offset);
            self.next = record.offset.plus(1);
            self.scanned.records += 1;
            if self.filter.accepts(self.partition, &record)
                && wanted(start..records.position()).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Cleanup has taken what lies between the last record and this place.
    fn note_missing(&mut self, until: Offset) {
        if until <= self.next {
            return;
        }
        let missing = until.since(self.next);
        self.scanned.cleaned += missing;
        let cleaned = self.cleaned.get_or_insert(Gap {
            partition: self.partition,
            offsets: self.next..until,
            missing: 0,
            reason: GapReason::Cleaned,
        });
        cleaned.offsets.end = until;
        cleaned.missing += missing;
        self.next = until;
    }

    fn gap(&self, offsets: Range<Offset>, reason: GapReason) -> Gap {
        Gap {
            partition: self.partition,
            missing: offsets.end.since(offsets.start),
            offsets,
            reason,
        }
    }
}
