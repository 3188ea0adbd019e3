//! Appending to a log, and raising its start: offsets are assigned under the log's short lock, and the committer makes it
//! durable.
//!
//! An append decides everything before it changes anything: [`assign`] checks and gives offsets, the queue takes the work, and
//! [`note`] writes down what was assigned, all under one lock.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use model::batch::{HEADER_BYTES, stamped_head};
use model::topic_config::Durability;
use model::{LeaderEpoch, Offset, ProducerId, Timestamp};
use tokio::sync::oneshot;

use super::Log;
use super::state::LogState;
use crate::error::{AppendError, DeleteRecordsError, StorageFailed};
use crate::producers::{ProducerLimits, Sequence};
use crate::wal::appends::{AppendBatch, AppendSize, Purpose};
use crate::wal::gate::Admission;
use crate::wal::queue::{Pending, Work};

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
pub struct Durable(pub(super) oneshot::Receiver<Result<(), StorageFailed>>);

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

/// When, and in which leader epoch, something is appended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub now: Timestamp,
    pub epoch: LeaderEpoch,
}

/// The offsets that an append will have, decided under the log's lock.
#[derive(Debug)]
pub(super) struct Assigned {
    pub base: Offset,
    pub end: Offset,
    pub work: Vec<Work>,
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
        admission.check(AppendSize::of(&batches).in_batches())?;
        let moment = self.moment();
        let (ack, acked) = oneshot::channel();
        let durable = Durable(acked);
        let mut state = self.locked();
        if state.deleted {
            return Err(AppendError::Deleted);
        }
        let start_offset = state.bounds.start;
        if let [only] = batches.as_slice()
            && let Sequence::Duplicate(first) = state.producers.check(only.0.header())?
        {
            // Its first append may still wait for the sync; behind it in the queue this is decided with it.
            self.parts
                .wal
                .push(Pending::behind_all(ack, Some(admission)))?;
            return Ok(Appended {
                base_offset: first.base_offset,
                last_offset: first.last_offset,
                start_offset,
                duplicate: true,
                durable,
            });
        }
        let limits = &self.parts.producers;
        let mut assigned = assign(&mut state, &batches, limits, moment)?;
        let work = std::mem::take(&mut assigned.work);
        let mut pending: Vec<Pending> = work
            .into_iter()
            .map(|work| Pending::of(&self.cell, work))
            .collect();
        let last = pending.last_mut().expect("an append has a batch");
        (last.ack, last.admission) = (Some(ack), Some(admission));
        self.parts.wal.push_all(pending)?;
        note(&mut state, &batches, &assigned, limits, moment);
        drop(state);
        Ok(Appended {
            base_offset: assigned.base,
            last_offset: Offset::new(assigned.end.get() - 1),
            start_offset,
            duplicate: false,
            durable,
        })
    }

    pub(super) fn moment(&self) -> Moment {
        Moment {
            now: self.parts.wal.now(),
            epoch: self.parts.wal.leader_epoch(),
        }
    }

    /// Raises the start to `before`; what lies below is gone for readers when the result resolves, and stays gone over
    /// restarts. A start that is already there or past it is left.
    pub fn delete_records(&self, before: Offset) -> Result<Durable, DeleteRecordsError> {
        let wal = &self.parts.wal;
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
        if before <= state.bounds.start {
            wal.push(Pending::behind_all(ack, None))?;
            return Ok(Durable(acked));
        }
        // Where there is no room for more than what is admitted it waits with the others, as the file is being made.
        let admission = wal
            .gate
            .try_admit(AppendSize::of_one(0).in_batches(), Purpose::Removal);
        if let Some(refusal) = admission.as_ref().and_then(Admission::refusal) {
            return Err(refusal.clone().into());
        }
        let mut pending = Pending::of(&self.cell, Work::StartRaised { start: before });
        (pending.ack, pending.admission) = (Some(ack), admission);
        wal.push(pending)?;
        Ok(Durable(acked))
    }
}

/// Gives batches their offsets, if all of them may be appended. Nothing is written down yet.
pub(super) fn assign(
    state: &mut LogState,
    batches: &[AppendBatch],
    limits: &ProducerLimits,
    moment: Moment,
) -> Result<Assigned, AppendError> {
    let new = new_producers(state, batches);
    if !new.is_empty() {
        state.make_room_for_producers(limits, &new, moment.now)?;
    }
    let base_offset = state.bounds.end;
    assert!(
        state.bounds.durable_end <= base_offset,
        "no offset is given out twice"
    );
    let count: u64 = batches
        .iter()
        .map(|batch| batch.0.header().offset_count())
        .sum();
    let end = base_offset
        .checked_plus(count)
        .filter(|end| *end < Offset::MAX)
        .ok_or(AppendError::OffsetsExhausted)?;
    let os = state.settings.durability == Durability::Os;
    let mut work = Vec::with_capacity(batches.len());
    let mut base = base_offset;
    for AppendBatch(batch) in batches {
        state.producers.check(batch.header())?;
        let next = base.plus(batch.header().offset_count());
        work.push(Work::Batch {
            head: stamped_head(batch, base, moment.epoch),
            bytes: batch.bytes().clone(),
            base,
            next,
            max_timestamp: batch.header().max_time(),
            os,
        });
        base = next;
    }
    assert!(base == end, "the batches' offsets add up");
    Ok(Assigned {
        base: base_offset,
        end,
        work,
    })
}

/// The producers of batches that are not remembered, each once.
fn new_producers(state: &LogState, batches: &[AppendBatch]) -> Vec<ProducerId> {
    let new = batches
        .iter()
        .map(|batch| batch.0.header())
        .filter(|header| state.producers.is_new(header))
        .filter_map(|header| Some(header.producer()?.0));
    let mut new: Vec<ProducerId> = new.collect();
    new.sort_unstable();
    new.dedup();
    new
}

/// Writes down what was assigned; the queue has taken it.
pub(super) fn note(
    state: &mut LogState,
    batches: &[AppendBatch],
    assigned: &Assigned,
    limits: &ProducerLimits,
    moment: Moment,
) {
    assert!(
        state.bounds.end == assigned.base,
        "nobody appended since the offsets were assigned"
    );
    let new = new_producers(state, batches);
    let mut base = assigned.base;
    for AppendBatch(batch) in batches {
        state.producers.record(batch.header(), base, moment.now);
        base = base.plus(batch.header().offset_count());
    }
    assert!(base == assigned.end, "the batches' offsets add up");
    limits.added(&new);
    state.epochs.begin(moment.epoch, assigned.base);
    state.bounds.end = assigned.end;
}

const _: () = assert!(HEADER_BYTES == 61);
