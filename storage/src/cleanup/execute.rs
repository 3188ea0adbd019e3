//! The cleaner: looks at every log now and then, plans what retention removes, and has it done.
//!
//! Plans are pure (`cleanup`). What a plan removes goes in two steps: the log's start rises, durably, through the WAL, so
//! that readers are told; the settler's next round takes the passed segments off the manifest, and unlinks their files after
//! the checkpoint. On a full disk it unlinks them first.

use std::sync::Arc;
use std::sync::atomic::Ordering::{self, Relaxed};

use model::Timestamp;

use crate::cleanup::retention::{Retention, plan};
use crate::cleanup::{LogView, Plan, SegmentView, store_bound};
use crate::error::{AppendError, DeleteRecordsError};
use crate::log::{Log, PRODUCER_IDLE_MS};
use crate::storage::Shared;

/// What a log looks like to a cleanup policy.
pub(crate) fn view_of(log: &Log) -> Option<LogView> {
    let state = log.locked();
    if state.deleted {
        return None;
    }
    let sealed = state
        .segments
        .manifest
        .iter()
        .flat_map(|manifest| manifest.sealed())
        .map(|(id, sealed)| SegmentView {
            id,
            end_offset: sealed.end_offset,
            bytes: sealed.bytes,
            last_append_time: sealed.last_append_time,
            sealed: true,
        });
    let active = state.segments.active.iter().map(|active| SegmentView {
        id: active.segment.id,
        end_offset: active.end_offset,
        bytes: active.segment.bytes,
        last_append_time: active.segment.last_append_time,
        sealed: false,
    });
    Some(LogView {
        log: log.id(),
        start_offset: state.bounds.start,
        segments: sealed.chain(active).collect(),
        tail_bytes: state.tail_bytes,
        tail_end: state
            .tail
            .back()
            .map(|entry| (entry.next, entry.append_time)),
    })
}

/// Plans retention for one log. None for a deleted one.
pub(crate) fn plan_of(shared: &Shared, log: &Log) -> Option<Plan> {
    let settings = log.settings();
    let limits = Retention {
        retention_ms: settings.retention_ms,
        retention_bytes: settings.retention_bytes,
    };
    Some(plan(&view_of(log)?, limits, shared.steady_now()))
}

/// Looks at all logs once. True if something is to be removed.
pub(crate) fn clean_once(shared: &Shared) -> bool {
    expire_producers(shared);
    let mut worked = bound_once(shared);
    for log in shared
        .all_logs()
        .into_iter()
        .filter(|log| !log.id().is_reserved())
    {
        worked |= clean(shared, &log);
    }
    if worked {
        shared.settle_soon();
    }
    worked
}

/// Producers that appended nothing since the first time have expired; those that appended nothing since the second one are not
/// kept either: that is the same time, or a later one while there are nearly as many as there may be.
pub(crate) fn producers_kept_since(shared: &Shared) -> (Timestamp, Timestamp) {
    let now = shared.steady_now();
    let config = &shared.config;
    let expiry_ms = i64::try_from(config.producer_expiry.as_millis()).unwrap_or(i64::MAX);
    let known = shared.counters.producers.load(Relaxed);
    let idle_ms = match known >= config.producers_max - config.producers_max / 10 {
        true => expiry_ms.min(PRODUCER_IDLE_MS),
        false => expiry_ms,
    };
    (now.plus_millis(-expiry_ms), now.plus_millis(-idle_ms))
}

/// Forgets the producers of all logs that appended nothing for `producer.id.expiration.ms`, and counts the others. While
/// there are nearly as many as there may be, those go too that have been idle for long enough that no retry can come.
pub(crate) fn expire_producers(shared: &Shared) {
    let (expired, idle) = producers_kept_since(shared);
    let counters = &shared.counters;
    let mut known = 0;
    for log in shared.all_logs() {
        let mut state = log.locked();
        state.producers.expire(expired);
        let early = state.producers.expire(idle);
        counters
            .producers_forgotten
            .fetch_add(early as u64, Relaxed);
        known += state.producers.len() as u64;
    }
    // What was appended meanwhile may count twice or not at all until the next time.
    counters.producers.store(known, Relaxed);
}

fn clean(shared: &Shared, log: &Arc<Log>) -> bool {
    let Some(plan) = plan_of(shared, log).filter(|plan| !plan.is_empty()) else {
        return false;
    };
    execute(log, &plan)
}

/// Compares what the whole store holds with its bound. True if something is to be removed.
pub(crate) fn bound_once(shared: &Shared) -> bool {
    let Some(bytes_max) = shared.live().store_bytes_max else {
        return false;
    };
    let logs = shared.all_logs();
    let (logs, views): (Vec<_>, Vec<_>) = logs
        .iter()
        .filter_map(|log| Some((log, view_of(log)?)))
        .unzip();
    let mut worked = false;
    for (log, plan) in logs.into_iter().zip(store_bound::plan(&views, bytes_max)) {
        if !plan.is_empty() {
            let removed = &shared.counters.bound_removed_bytes;
            removed.fetch_add(plan.bytes(), Ordering::Relaxed);
            worked |= execute(log, &plan);
        }
    }
    if worked {
        shared.settle_soon();
    }
    worked
}

/// Does what a plan says. True if something is to be removed.
fn execute(log: &Arc<Log>, plan: &Plan) -> bool {
    let Some(start) = plan.raise_start_to else {
        return false;
    };
    for removal in &plan.remove {
        tracing::info!(log = %log.id(), segment = %removal.id, bytes = removal.bytes, reason = ?removal.reason, "retention removes a segment");
    }
    match log.delete_records(start) {
        // Nobody waits for it: the settler acts on the start when it has become durable.
        Ok(durable) => drop(durable),
        Err(DeleteRecordsError::Append(AppendError::DiskFull)) => {
            // The room for removals is used up by others, which give it back.
            tracing::debug!(log = %log.id(), "retention waits for room in the write-ahead log");
        }
        Err(error) => {
            tracing::warn!(log = %log.id(), %error, "retention could not raise the start");
        }
    }
    true
}
