//! Appending to a log, and raising its start: offsets are assigned under the log's short lock, and the committer makes it
//! durable.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use model::Offset;
use model::batch::{Batch, HEADER_BYTES, stamped_head};
use model::topic_config::Durability;
use tokio::sync::oneshot;

use super::Log;
use crate::error::{AppendError, DeleteRecordsError, StorageFailed};
use crate::producers::Sequence;
use crate::wal::committer::{Pending, Work};
use crate::wal::gate::{Admission, AppendSize, Purpose};

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

impl Log {
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
}

const _: () = assert!(HEADER_BYTES == 61);
