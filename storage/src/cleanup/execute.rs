//! The cleaner: looks at every log now and then, plans what retention removes, and has it done.
//!
//! Plans are pure (`plan`, `retention`, `store_bound`). What a plan removes goes in two steps: the log's start rises, durably, through the WAL, so
//! that readers are told; the settler's next round takes the passed segments off the manifest, and unlinks their files after
//! the checkpoint. On a full disk it unlinks them first.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::plan::{LogView, Plan, SegmentView};
use super::retention::{Retention, plan};
use super::store_bound;
use crate::config::Live;
use crate::error::{AppendError, DeleteRecordsError};
use crate::log::{Log, LogCell};
use crate::metrics::Counters;
use crate::producers::ProducerLimits;
use crate::registry::Registry;
use crate::signals::Signals;
use crate::wal::Wal;

/// See the module.
#[derive(Debug)]
pub(crate) struct Cleaner {
    pub registry: Arc<Registry>,
    pub producers: Arc<ProducerLimits>,
    pub live: Arc<Live>,
    /// Gives the time by which records age.
    pub wal: Arc<Wal>,
    /// To have the settler begin.
    pub signals: Arc<Signals>,
    pub counters: Arc<Counters>,
}

/// What a log looks like to a cleanup policy.
fn view_of(log: &LogCell) -> Option<LogView> {
    let state = log.locked();
    if state.deleted {
        return None;
    }
    let sealed = state.segments.sealed().map(|(entry, sealed)| SegmentView {
        id: entry.id,
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

impl Cleaner {
    /// Plans retention for one log. None for a deleted one.
    pub fn plan_of(&self, log: &Log) -> Option<Plan> {
        let settings = log.settings();
        let limits = Retention {
            retention_ms: settings.retention_ms,
            retention_bytes: settings.retention_bytes,
        };
        Some(plan(&view_of(log.cell())?, limits, self.wal.now()))
    }

    /// Looks at all logs once. True if something is to be removed.
    pub fn clean_once(&self) -> bool {
        self.expire_producers();
        let mut worked = self.bound_once();
        for log in self.registry.all() {
            if log.id().is_reserved() {
                continue;
            }
            let plan = self.plan_of(&log).filter(|plan| !plan.is_empty());
            worked |= plan.is_some_and(|plan| execute(&log, &plan));
        }
        if worked {
            self.signals.settle_soon();
        }
        worked
    }

    /// Forgets the producers of all logs that appended nothing for `producer.id.expiration.ms`, and counts the others. While
    /// there are nearly as many as there may be, those go too that have been idle for long enough that no retry can come.
    pub fn expire_producers(&self) {
        let since = self.producers.kept_since(self.wal.now());
        let mut known = 0;
        for log in self.registry.all() {
            let mut state = log.cell().locked();
            state.producers.expire(since.expired);
            let early = state.producers.expire(since.idle);
            self.producers.forgot_early(early as u64);
            known += state.producers.len() as u64;
        }
        self.producers.recounted(known);
    }

    /// Compares what the whole store holds with its bound. True if something is to be removed.
    pub fn bound_once(&self) -> bool {
        let Some(bytes_max) = self.live.get().store_bytes_max else {
            return false;
        };
        let logs = self.registry.all();
        let (logs, views): (Vec<_>, Vec<_>) = logs
            .iter()
            .filter_map(|log| Some((log, view_of(log.cell())?)))
            .unzip();
        let mut worked = false;
        for (log, plan) in logs.into_iter().zip(store_bound::plan(&views, bytes_max)) {
            if !plan.is_empty() {
                let removed = &self.counters.bound_removed_bytes;
                removed.fetch_add(plan.bytes(), Relaxed);
                worked |= execute(log, &plan);
            }
        }
        if worked {
            self.signals.settle_soon();
        }
        worked
    }
}

/// Does what a plan says. True if something is to be removed.
fn execute(log: &Log, plan: &Plan) -> bool {
    let Some(start) = plan.raise_start_to else {
        return false;
    };
    assert!(
        plan.remove
            .iter()
            .all(|removal| removal.end_offset <= start),
        "only what lies before the new start goes"
    );
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
