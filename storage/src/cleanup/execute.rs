//! The cleaner: looks at every log now and then, plans what retention removes, and has it done.
//!
//! Plans are pure (`plan`, `retention`, `store_bound`). What a plan removes goes in two steps: the log's start rises, durably, through the WAL, so
//! that readers are told; the settler's next round takes the passed segments off the manifest, and unlinks their files after
//! the checkpoint. On a full disk it unlinks them first.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use model::Offset;

use super::run::{CleanupError, Progress, Report, RunOptions};
use super::{LogView, Plan, Policy, Rules, SegmentView, plan, store_bound};
use crate::config::Live;
use crate::error::{AppendError, DeleteRecordsError, StorageFailed};
use crate::log::{Durable, Log};
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

impl Cleaner {
    /// What a policy wants done to a log now. With `asked`, as a run that somebody asked for.
    pub fn plan_of(&self, log: &Log, policy: Policy, asked: bool) -> Result<Plan, CleanupError> {
        let view = LogView::of(log.cell()).ok_or(CleanupError::NoLog(log.id()))?;
        let rules = Rules::of(policy, &log.settings()).ok_or(CleanupError::NotOfOneLog(policy))?;
        let mut plan = plan(&view, &rules, &[], self.wal.now());
        plan.rolls_active |= asked && view.has_unsealed();
        Ok(plan)
    }

    /// Runs retention over one log, and waits until the start is durable. The settler's next round removes the files.
    pub fn run_retention(
        &self,
        log: &Log,
        options: RunOptions,
        progress: &Progress,
        wait: impl FnOnce(Durable) -> Result<(), StorageFailed>,
    ) -> Result<Report, CleanupError> {
        let began = self.wal.clock.monotonic();
        let start_before = log.bounds().start;
        let plan = self.plan_of(log, Policy::Retention, false)?;
        if progress.is_cancelled() {
            return Err(CleanupError::Cancelled);
        }
        progress.expect(plan.removed_bytes());
        if let Some(start) = plan.raise_start_to.filter(|_| !options.dry_run) {
            let durable = raise_start(log, &plan, start).map_err(|error| match error {
                DeleteRecordsError::Append(AppendError::DiskFull) => CleanupError::DiskFull,
                DeleteRecordsError::Append(AppendError::Deleted) => CleanupError::NoLog(log.id()),
                error => CleanupError::StartNotRaised(error.to_string().into()),
            })?;
            wait(durable)?;
        }
        progress.done(plan.removed_bytes());
        // Not those that a raised start took from readers before.
        let records = plan.removed().map(|(segment, _)| {
            let readable = segment.end_offset.get().saturating_sub(start_before.get());
            segment.records.min(readable)
        });
        Ok(Report {
            dry_run: options.dry_run,
            start_before,
            start_after: plan.raise_start_to.unwrap_or(start_before),
            segments_removed: plan.removed().count() as u64,
            records_removed: records.sum(),
            bytes_removed: plan.removed_bytes(),
            bytes_read: 0,
            bytes_written: 0,
            took: self.wal.clock.monotonic().saturating_sub(began),
            plan,
        })
    }

    /// Looks at all logs once. True if something is to be removed.
    pub fn clean_once(&self) -> bool {
        self.expire_producers();
        let mut worked = self.bound_once();
        for log in self.registry.all() {
            if log.id().is_reserved() {
                continue;
            }
            let plan = self.plan_of(&log, Policy::Retention, false);
            worked |= plan.is_ok_and(|plan| execute(&log, &plan));
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
            .filter_map(|log| Some((log, LogView::of(log.cell())?)))
            .unzip();
        let mut worked = false;
        for (log, plan) in logs.into_iter().zip(store_bound::plan(&views, bytes_max)) {
            if !plan.is_empty() {
                let removed = &self.counters.bound_removed_bytes;
                removed.fetch_add(plan.removed_bytes(), Relaxed);
                worked |= execute(log, &plan);
            }
        }
        if worked {
            self.signals.settle_soon();
        }
        worked
    }
}

/// Does what a plan says, without waiting for it. True if something is to be removed.
fn execute(log: &Log, plan: &Plan) -> bool {
    let Some(start) = plan.raise_start_to else {
        return false;
    };
    match raise_start(log, plan, start) {
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

/// Raises a log's start past what the plan removes.
fn raise_start(log: &Log, plan: &Plan, start: Offset) -> Result<Durable, DeleteRecordsError> {
    let passed = |(segment, _): (&SegmentView, _)| segment.end_offset <= start;
    assert!(
        plan.removed().all(passed),
        "only what lies before the new start goes"
    );
    for (segment, reason) in plan.removed() {
        tracing::info!(log = %log.id(), segment = %segment.id, bytes = segment.bytes, reason = ?reason, "retention removes a segment");
    }
    log.delete_records(start)
}
