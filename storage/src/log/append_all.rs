//! One append over several logs: it lands in one frame of the WAL, or not at all.
//!
//! Caller: [`crate::Storage::append_all`]. For records that go together: a record and the state that goes with it, a dead letter
//! and the mark that it was moved. A group is written, synced and replayed as one frame, also above the bytes that the committer
//! otherwise puts into one; the bound is half of a WAL file, because every frame must fit into that. Readers may see it log by
//! log: it is one for the disk, not for them.
//! All locks are taken in the order of the logs' ids, so that two groups cannot wait for each other.

use std::ops::Range;
use std::sync::{Arc, MutexGuard};

use model::{LogId, Offset};
use tokio::sync::oneshot;

use super::Log;
use super::append::{Assigned, Durable, assign, note};
use super::state::LogState;
use crate::error::{AppendAllError, AppendError};
use crate::producers::Sequence;
use crate::wal::appends::{AppendBatch, AppendSize};
use crate::wal::gate::Admission;
use crate::wal::queue::Pending;

/// What one log is given of an append over several.
#[derive(Clone, Debug)]
pub struct LogAppend {
    /// Which log; each is named once.
    pub log: Arc<Log>,
    /// Its batches, one after the other; at least one.
    pub batches: Vec<AppendBatch>,
}

impl LogAppend {
    /// How much a group of these is, for its admission.
    pub fn size_of(group: &[LogAppend]) -> AppendSize {
        AppendSize::of(group.iter().flat_map(|append| &append.batches))
    }
}

/// What an append over several logs was given. All of it is durable when `durable` resolves.
#[derive(Debug)]
pub struct AppendedAll {
    /// Where each log's records went, in the order of the append: `base..end`.
    pub offsets: Vec<Range<Offset>>,
    /// Resolves when the records are durable, in all logs.
    pub durable: Durable,
}

/// Appends to several logs at once. Nothing is assigned in any of them unless all of them take it.
pub(crate) fn append_all(
    group: &[LogAppend],
    admission: Admission,
) -> Result<AppendedAll, AppendAllError> {
    let first = group.first().expect("a group has a log");
    assert!(
        group
            .iter()
            .all(|append| Arc::ptr_eq(&append.log.parts, &first.log.parts)),
        "a group's logs are of one store"
    );
    admission
        .check(LogAppend::size_of(group).in_one_frame())
        .map_err(AppendAllError::Refused)?;
    let (wal, limits) = (&first.log.parts.wal, &first.log.parts.producers);
    let moment = first.log.moment();
    let mut order: Vec<usize> = (0..group.len()).collect();
    order.sort_unstable_by_key(|index| group[*index].log.id());
    check_once(order.iter().map(|index| group[*index].log.id()))?;

    let mut states: Vec<MutexGuard<'_, LogState>> = order
        .iter()
        .map(|index| group[*index].log.locked())
        .collect();
    let mut assigned = Vec::with_capacity(group.len());
    for (state, index) in states.iter_mut().zip(&order) {
        let LogAppend { log, batches } = &group[*index];
        assert!(!batches.is_empty(), "each log of a group has a batch");
        let refused = |source| AppendAllError::Log {
            log: log.id(),
            source,
        };
        check_new(state, log.id(), batches)?;
        assigned.push(assign(state, batches, limits, moment).map_err(refused)?);
    }

    let (ack, acked) = oneshot::channel();
    let mut pending: Vec<Pending> = Vec::new();
    for (assigned, index) in assigned.iter_mut().zip(&order) {
        let work = std::mem::take(&mut assigned.work).into_iter();
        pending.extend(work.map(|work| Pending::of(&group[*index].log.cell, work)));
    }
    let last = pending.last_mut().expect("a group has a batch");
    (last.ack, last.admission) = (Some(ack), Some(admission));
    wal.push_group(pending).map_err(AppendAllError::Refused)?;
    for ((state, assigned), index) in states.iter_mut().zip(&assigned).zip(&order) {
        note(state, &group[*index].batches, assigned, limits, moment);
    }
    drop(states);
    Ok(AppendedAll {
        offsets: offsets_of(&assigned, &order),
        durable: Durable(acked),
    })
}

/// Each log is named once.
fn check_once(ids: impl Iterator<Item = LogId>) -> Result<(), AppendAllError> {
    let mut before = None;
    for id in ids {
        if before.replace(id) == Some(id) {
            return Err(AppendAllError::Twice { log: id });
        }
    }
    Ok(())
}

/// The log takes appends, and none of the batches was appended before. Of a group that was, nothing is appended again: it is
/// the caller's to know what it was about.
fn check_new(state: &LogState, log: LogId, batches: &[AppendBatch]) -> Result<(), AppendAllError> {
    if state.deleted {
        let source = AppendError::Deleted;
        return Err(AppendAllError::Log { log, source });
    }
    for batch in batches {
        let checked = state.producers.check(batch.0.header());
        let checked = checked.map_err(|error| AppendAllError::Log {
            log,
            source: error.into(),
        })?;
        if let Sequence::Duplicate(first) = checked {
            return Err(AppendAllError::Duplicate {
                log,
                base_offset: first.base_offset,
                last_offset: first.last_offset,
            });
        }
    }
    Ok(())
}

/// Where the records went, in the order of the group.
fn offsets_of(assigned: &[Assigned], order: &[usize]) -> Vec<Range<Offset>> {
    let mut offsets = vec![Offset::ZERO..Offset::ZERO; order.len()];
    for (assigned, index) in assigned.iter().zip(order) {
        offsets[*index] = assigned.base..assigned.end;
    }
    offsets
}
