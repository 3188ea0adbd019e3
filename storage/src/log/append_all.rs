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
use super::append::{Durable, assign, note};
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

/// A log that is told, in the same append, where the others' records went.
pub struct ToldLog<F> {
    /// Which log; none of the others.
    pub log: Arc<Log>,
    /// Makes its batches, one at least, once it is given the offsets of the others, in their order. It is called under the
    /// locks of all of them: it computes, and waits for nothing.
    pub batches: F,
}

/// Appends to several logs at once. Nothing is assigned in any of them unless all of them take it.
pub(crate) fn append_all(
    group: &[LogAppend],
    admission: Admission,
) -> Result<AppendedAll, AppendAllError> {
    append_all_telling::<fn(&[Range<Offset>]) -> Vec<AppendBatch>>(group, None, admission)
}

/// Like [`append_all`], with a log that is told.
pub(crate) fn append_all_telling<F: FnOnce(&[Range<Offset>]) -> Vec<AppendBatch>>(
    group: &[LogAppend],
    told: Option<ToldLog<F>>,
    admission: Admission,
) -> Result<AppendedAll, AppendAllError> {
    let first = group.first().expect("a group has a log");
    let (told_log, told_batches) = told.map(|told| (told.log, told.batches)).unzip();
    let logs = group.iter().map(|append| &append.log);
    let logs: Vec<&Arc<Log>> = logs.chain(&told_log).collect();
    assert!(
        logs.iter()
            .all(|log| Arc::ptr_eq(&log.parts, &first.log.parts)),
        "a group's logs are of one store"
    );
    let (wal, limits) = (&first.log.parts.wal, &first.log.parts.producers);
    let moment = first.log.moment();
    let mut order: Vec<usize> = (0..logs.len()).collect();
    order.sort_unstable_by_key(|index| logs[*index].id());
    check_once(order.iter().map(|index| logs[*index].id()))?;

    let locked = order.iter().map(|index| (*index, logs[*index].locked()));
    let mut states: Vec<(usize, MutexGuard<'_, LogState>)> = locked.collect();
    // By their places in the group from here on; the lock order does not matter any more.
    states.sort_unstable_by_key(|(index, _)| *index);
    let mut assigned = Vec::with_capacity(logs.len());
    let assign_one = |state: &mut LogState, log: &Log, batches: &[AppendBatch]| {
        assert!(!batches.is_empty(), "each log of a group has a batch");
        check_new(state, log.id(), batches)?;
        assign(state, batches, limits, moment).map_err(|source| AppendAllError::Log {
            log: log.id(),
            source,
        })
    };
    for ((_, state), append) in states.iter_mut().zip(group) {
        assigned.push(assign_one(state, &append.log, &append.batches)?);
    }
    let offsets: Vec<Range<Offset>> = assigned.iter().map(|it| it.base..it.end).collect();
    let told: Vec<AppendBatch> = told_batches.map_or_else(Vec::new, |make| make(&offsets));
    if let Some(log) = &told_log {
        let (_, state) = states.last_mut().expect("it is the last of the group");
        assigned.push(assign_one(state, log, &told)?);
    }
    let all = group.iter().map(|append| append.batches.as_slice());
    let all = all.chain((!told.is_empty()).then_some(told.as_slice()));
    let all: Vec<&[AppendBatch]> = all.collect();
    admission
        .check(AppendSize::of(all.iter().copied().flatten()).in_one_frame())
        .map_err(AppendAllError::Refused)?;

    let (ack, acked) = oneshot::channel();
    let mut pending: Vec<Pending> = Vec::new();
    for index in order {
        let work = std::mem::take(&mut assigned[index].work).into_iter();
        pending.extend(work.map(|work| Pending::of(&logs[index].cell, work)));
    }
    let last = pending.last_mut().expect("a group has a batch");
    (last.ack, last.admission) = (Some(ack), Some(admission));
    wal.push_group(pending).map_err(AppendAllError::Refused)?;
    for (((_, state), assigned), batches) in states.iter_mut().zip(&assigned).zip(&all) {
        note(state, batches, assigned, limits, moment);
    }
    drop(states);
    Ok(AppendedAll {
        offsets,
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
