//! The executor: does what plans say. The only file of `cleanup` that has something read or written.
//!
//! Callers: the cleaner. Retention raises the log's start, and the settler follows. Compaction goes over a log in passes: the
//! dirty part is read until the key map is full, then every segment up to there is written again, oldest first, and the manifest
//! says how far it came. Each rewritten group of segments is durable by itself; a run that ends early, for whatever reason,
//! leaves the log readable and correct, and the next one begins the pass again.
//! Invariants: an older record of a key goes before a tombstone of it; a tombstone does not go while a segment before it is set
//! aside; what is set aside does not keep the others from being cleaned.

use std::collections::VecDeque;
use std::sync::Arc;

use model::{Offset, Timestamp};

use super::compact_keeper::{CompactKeeper, Counts, KeepAll, LastBatches, Newest};
use super::compaction::{self, Compaction};
use super::hold_source::LogHolds;
use super::pace::{PaceParts, RunPace};
use super::removed::{Noted, RemovalListener, Removed};
use super::run::{CleanupError, Progress, Report, RunOptions, Unsealed};
use super::set_aside::SetAside;
use super::stats::CompactionCounters;
use super::{LogView, Outcome, Plan, SegmentView};
use crate::error::{DeleteRecordsError, StorageFailed};
use crate::log::{Durable, Log};
use crate::rewrite::{
    Amount, KeepError, Keeper, Pages, RewriteError, RewriteParts, Rewritten, Verdict,
    mark_compacted, new_id, rewrite, scan, scan_beforehand,
};
use crate::segment::SegmentId;

/// A run whose segments go away under it begins again so often at most.
const RESTARTS_MAX: u32 = 8;

/// Of so many bytes that were read for their keys the pages stay until they are read again to be written.
const PAGES_BYTES_MAX: u64 = 1 << 30;

/// Raises a log's start past what the plan removes. None if whoever keeps the book of removals could not note it now.
pub(super) fn raise_start(
    removals: &RemovalListener,
    log: &Log,
    plan: &Plan,
    start: Offset,
) -> Result<Option<Durable>, DeleteRecordsError> {
    let passed = |(segment, _): (&SegmentView, _)| segment.end_offset <= start;
    assert!(
        plan.removed().all(passed),
        "only what lies before the new start goes"
    );
    let before = log.bounds().start;
    // What the listener appends lies in the write-ahead log before what raises the start.
    if before < start && removals.tell(&removed_by(plan, log, before, start)) == Noted::NotNow {
        return Ok(None);
    }
    for (segment, reason) in plan.removed() {
        tracing::info!(log = %log.id(), segment = %segment.id, bytes = segment.bytes, reason = ?reason, "retention removes a segment");
    }
    log.delete_records(start).map(Some)
}

/// What a plan takes from readers.
fn removed_by(plan: &Plan, log: &Log, before: Offset, start: Offset) -> Removed {
    let gone = || {
        plan.removed()
            .filter(|(segment, _)| segment.end_offset > before)
    };
    let first = gone().next();
    let records = gone().map(|(segment, _)| {
        let readable = segment.end_offset.since(before.max(segment.id.base));
        segment.records.min(readable)
    });
    // What was in the WAL only has a record at each offset.
    let end = gone().last().map_or(before, |(last, _)| last.end_offset);
    let tail = start.get().saturating_sub(end.get());
    Removed {
        log: log.id(),
        offsets: before..start,
        records: records.sum::<u64>() + tail,
        appended: first
            .zip(gone().last())
            .map(|((first, _), (last, _))| (first.first_append_time, last.last_append_time)),
        policy: plan.policy,
        reason: first.map_or_else(String::new, |(_, reason)| reason.to_string()),
        rewritten_as: None,
    }
}

/// What compaction is done with.
#[derive(Debug)]
pub(crate) struct Executor {
    pub rewrites: Arc<RewriteParts>,
    pub pace: PaceParts,
    pub set_aside: Arc<SetAside>,
    pub counters: Arc<CompactionCounters>,
}

/// One log to be compacted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job<'r> {
    pub log: &'r Log,
    pub rules: Compaction,
    pub delete_retention_ms: u64,
    pub holds: LogHolds<'r>,
    /// The time by which records age: one for all of the run.
    pub now: Timestamp,
    pub options: RunOptions,
    pub progress: &'r Progress,
}

impl Executor {
    /// Compacts a log as its rules demand. Blocks.
    pub(super) fn compact(&self, job: &Job<'_>) -> Result<Report, CleanupError> {
        let clock = &self.pace.wal.clock;
        let began = clock.monotonic();
        let mut run = Run {
            executor: self,
            job,
            pace: RunPace::new(&self.pace, job.progress, job.options.bytes_per_second),
            last_batches: last_batches(job.log),
            plan: None,
            passes: 0,
            first_aside: None,
            bad: Vec::new(),
            rewrites: Vec::new(),
            counts: Counts::default(),
            bytes_scanned: 0,
        };
        let result = run.all_passes();
        let took = clock.monotonic().saturating_sub(began);
        let report = run.report(took);
        if !job.options.dry_run && (report.passes > 0 || !report.rewrites.is_empty()) {
            self.counters.ran(&report);
            tracing::info!(
                log = %job.log.id(), passes = report.passes, segments = report.rewrites.len(),
                records_removed = report.records_removed, tombstones_removed = report.tombstones_removed,
                bytes_read = report.bytes_read, bytes_written = report.bytes_written,
                bytes_removed = report.bytes_removed, took_ms = took.as_millis() as u64,
                complete = result.is_ok(), "compaction"
            );
        }
        match result {
            Ok(()) => Ok(report),
            Err(CleanupError::Cancelled) => Ok(Report {
                is_cut_short: true,
                ..report
            }),
            Err(error) => Err(error),
        }
    }
}

/// The last batch of each producer that the log remembers.
pub(super) fn last_batches(log: &Log) -> LastBatches {
    let producers = log.producers().into_iter();
    let last = producers.filter_map(|(id, state)| Some((id, state.batches.last()?.last_offset)));
    last.collect()
}

/// Why a pass ended before its end.
enum Ended {
    /// Segments went away meanwhile: it is planned again.
    Restart,
    Failed(CleanupError),
}

impl From<CleanupError> for Ended {
    fn from(error: CleanupError) -> Ended {
        Ended::Failed(error)
    }
}

struct Run<'r> {
    executor: &'r Executor,
    job: &'r Job<'r>,
    pace: RunPace<'r>,
    last_batches: LastBatches,
    /// The first one.
    plan: Option<Plan>,
    passes: u64,
    /// Where the first segment begins that is set aside.
    first_aside: Option<Offset>,
    /// Segments that this run has set aside.
    bad: Vec<SegmentId>,
    rewrites: Vec<Rewritten>,
    counts: Counts,
    bytes_scanned: u64,
}

/// Groups of neighbours without the bad ones.
fn without(segments: &[SegmentId], bad: &[SegmentId]) -> Vec<Vec<SegmentId>> {
    let parts = segments.split(|segment| bad.contains(segment));
    let parts = parts.filter(|part| !part.is_empty());
    parts.map(<[SegmentId]>::to_vec).collect()
}

impl Run<'_> {
    fn all_passes(&mut self) -> Result<(), CleanupError> {
        let mut rules = self.job.rules;
        let mut until = None;
        let mut restarts = 0;
        loop {
            let view = self.view()?;
            if until.is_some_and(|until| view.compacted_to >= until) {
                // What has become dirty meanwhile is for another run.
                return self.merge(&self.plan_of(&view, &self.job.rules));
            }
            let plan = self.plan_of(&view, &rules);
            let groups = plan.groups();
            if self.plan.is_none() {
                self.expect(&plan, &view);
                self.plan = Some(plan.clone());
            }
            let rewrites =
                |one: &&super::SegmentPlan| matches!(one.outcome, Outcome::Rewrite { .. });
            let last = plan.segments.iter().rfind(rewrites);
            let ended = match last {
                Some(last) => {
                    until = until.or(Some(last.segment.end_offset));
                    // A run that has begun goes on to the end.
                    rules.asked = true;
                    self.pass(&view, &groups)
                }
                None => {
                    return self.merge(&plan);
                }
            };
            match ended {
                Ok(()) if self.job.options.dry_run => return Ok(()),
                Ok(()) => {}
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::Restart) if restarts < RESTARTS_MAX => restarts += 1,
                Err(Ended::Restart) => return Ok(()),
            }
        }
    }

    /// By the holds that there are now.
    fn plan_of(&self, view: &LogView, rules: &Compaction) -> Plan {
        compaction::plan(view, rules, &self.job.holds.present(), self.job.now)
    }

    fn view(&mut self) -> Result<LogView, CleanupError> {
        self.check_store()?;
        let log = self.job.log;
        let mut view = LogView::of(log.cell()).ok_or(CleanupError::NoLog(log.id()))?;
        self.executor.set_aside.show_in(&mut view);
        let aside = view.set_aside.iter().map(|(id, _)| id.base);
        self.first_aside = aside.min();
        Ok(view)
    }

    /// A store that has failed is no fault of a segment.
    fn check_store(&self) -> Result<(), CleanupError> {
        match self.executor.pace.wal.gate.failure() {
            Some(failure) => Err(failure.clone().into()),
            None => Ok(()),
        }
    }

    /// What is to be read and written, as far as the first plan tells.
    fn expect(&self, plan: &Plan, view: &LogView) {
        let planned = plan
            .segments
            .iter()
            .filter(|one| one.outcome.group().is_some());
        for one in planned {
            let segment = &one.segment;
            let is_dirty = segment.end_offset > view.compacted_to;
            let reads = 1 + u64::from(is_dirty && matches!(one.outcome, Outcome::Rewrite { .. }));
            self.job.progress.expect(segment.bytes * reads);
        }
    }

    /// One pass: fills the key map, and has rewritten what it covers.
    fn pass(&mut self, view: &LogView, groups: &[Vec<SegmentView>]) -> Result<(), Ended> {
        self.passes += 1;
        self.job.progress.begin_pass();
        let newest = self.newest(view, groups)?;
        let covered = newest.covered();
        let reached: Vec<Vec<SegmentId>> = groups
            .iter()
            .flat_map(|group| {
                let reached = group.iter().filter(|segment| segment.id.base < covered);
                let ids: Vec<_> = reached.map(|segment| segment.id).collect();
                without(&ids, &self.bad)
            })
            .collect();
        let mut is_marked = false;
        for (index, group) in reached.iter().enumerate() {
            let compacted_to = (index + 1 == reached.len()).then_some(covered);
            is_marked = self.compact_group(group, &newest, compacted_to)?;
        }
        if self.job.options.dry_run {
            return Ok(());
        }
        if self.first_aside.is_some() {
            self.executor.set_aside.seen(self.job.log.id(), covered);
        } else if !is_marked {
            let log = self.job.log.cell();
            mark_compacted(&self.executor.rewrites, log, covered)
                .map_err(|error| self.ended(error))?;
        }
        Ok(())
    }

    /// Reads the dirty part, as far as the key map takes its keys.
    fn newest(&mut self, view: &LogView, groups: &[Vec<SegmentView>]) -> Result<Newest, Ended> {
        let from = view.compacted_to.max(view.start_offset);
        let dirty = groups.iter().flatten();
        let dirty: Vec<_> = dirty.filter(|segment| segment.end_offset > from).collect();
        let records = dirty.iter().map(|segment| segment.records).sum();
        let budget = self.executor.pace.live.get().cleaner_memory_bytes;
        let mut newest = Newest::new(from, records, budget);
        for segment in dirty {
            let mut is_full = false;
            let pages = match self.bytes_scanned < PAGES_BYTES_MAX {
                true => Pages::Keep,
                false => Pages::AsFound,
            };
            let log = self.job.log.cell();
            let scanned = scan_beforehand(
                &self.executor.rewrites,
                log,
                segment.id,
                pages,
                &self.pace,
                &mut |header, bytes| {
                    let taken = newest.take(header, bytes);
                    is_full = taken.is_err();
                    taken
                },
            );
            self.bytes_scanned += segment.bytes;
            match scanned {
                Ok(()) if is_full => break,
                Ok(()) => newest.reach(segment.end_offset),
                Err(error) => {
                    self.set_aside(error, &[segment.id])?;
                }
            }
        }
        Ok(newest)
    }

    /// Has a group of neighbours rewritten; without those that cannot be. True if the manifest says how far compaction has come.
    fn compact_group(
        &mut self,
        group: &[SegmentId],
        newest: &Newest,
        compacted_to: Option<Offset>,
    ) -> Result<bool, Ended> {
        let mut is_marked = false;
        let mut parts = VecDeque::from([group.to_vec()]);
        while let Some(part) = parts.pop_front() {
            if self.job.options.dry_run {
                for segment in part {
                    let mut keeper = self.keeper(newest, &[segment]);
                    let judged = self.judge(segment, &mut keeper);
                    self.counted(keeper.counts);
                    self.took(judged, &[segment])?;
                }
                continue;
            }
            let mut keeper = self.keeper(newest, &part);
            let to = compacted_to.filter(|_| parts.is_empty() && self.first_aside.is_none());
            let done = self.rewrite(&part, to, &mut keeper);
            let is_done = done.is_ok();
            if is_done {
                self.counted(keeper.counts);
                is_marked = to.is_some();
            }
            let rest = self.took(done, &part)?;
            for left in rest.into_iter().rev() {
                parts.push_front(left);
            }
        }
        Ok(is_marked)
    }

    fn keeper<'n>(&'n self, newest: &'n Newest, segments: &[SegmentId]) -> CompactKeeper<'n> {
        let base = segments[0].base;
        let now = self.job.now;
        let retention_ms = i64::try_from(self.job.delete_retention_ms).unwrap_or(i64::MAX);
        let horizon = Timestamp::from_millis(now.millis().saturating_add(retention_ms));
        let keeps_tombstones = self.first_aside.is_some_and(|first| first < base);
        let known = (newest, &self.last_batches);
        let holds = (self.job.holds, new_id(segments));
        CompactKeeper::new(known, holds, now, horizon, keeps_tombstones)
    }

    fn counted(&mut self, counts: Counts) {
        self.counts.add(counts);
    }

    fn rewrite(
        &self,
        segments: &[SegmentId],
        compacted_to: Option<Offset>,
        keeper: &mut dyn Keeper,
    ) -> Result<Rewritten, RewriteError> {
        let log = self.job.log.cell();
        let parts = &self.executor.rewrites;
        rewrite(parts, log, segments, compacted_to, &self.pace, keeper)
    }

    /// What a rewrite of a segment would leave.
    fn judge(
        &self,
        segment: SegmentId,
        keeper: &mut dyn Keeper,
    ) -> Result<Rewritten, RewriteError> {
        let (mut before, mut after) = (Amount::default(), Amount::default());
        let log = self.job.log.cell();
        scan(
            &self.executor.rewrites,
            log,
            &[segment],
            Pages::AsFound,
            &self.pace,
            &mut |header, bytes| {
                before.count(header);
                match keeper.judge(header, bytes)? {
                    Verdict::Keep => after.count(header),
                    Verdict::Drop => {}
                    Verdict::Replace(bytes) => {
                        let header = model::batch::BatchHeader::parse(&bytes);
                        after.count(&header.expect("a keeper gives whole batches"));
                    }
                }
                Ok(())
            },
        )?;
        Ok(Rewritten {
            old: vec![segment],
            new: None,
            before,
            after,
        })
    }

    /// Puts neighbours together, as the plan says; nothing is dropped. Where segments go away meanwhile it ends early: another run
    /// plans again.
    fn merge(&mut self, plan: &Plan) -> Result<(), CleanupError> {
        let is_merge = |one: &super::SegmentPlan| matches!(one.outcome, Outcome::Merge { .. });
        if self.job.options.dry_run || !plan.segments.iter().any(is_merge) {
            return Ok(());
        }
        for group in plan.groups() {
            let ids: Vec<_> = group.iter().map(|segment| segment.id).collect();
            let done = self.rewrite(&ids, None, &mut KeepAll);
            // What could not be put together stays as it is, but for what is set aside now.
            match self.took(done, &ids) {
                Ok(_) => {}
                Err(Ended::Restart) => return Ok(()),
                Err(Ended::Failed(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Notes what a rewrite did. After one that failed: which of its segments can still be done, in groups.
    fn took(
        &mut self,
        done: Result<Rewritten, RewriteError>,
        segments: &[SegmentId],
    ) -> Result<Vec<Vec<SegmentId>>, Ended> {
        match done {
            Ok(rewritten) => {
                self.rewrites.push(rewritten);
                Ok(Vec::new())
            }
            Err(RewriteError::TooLarge { .. }) if segments.len() > 1 => {
                Ok(segments.iter().map(|segment| vec![*segment]).collect())
            }
            Err(error) => {
                let bad = self.set_aside(error, segments)?;
                Ok(without(segments, &bad))
            }
        }
    }

    /// Sets the segments aside that an error is about. Errors: it is about none of them.
    fn set_aside(
        &mut self,
        error: RewriteError,
        segments: &[SegmentId],
    ) -> Result<Vec<SegmentId>, Ended> {
        let at_fault = match &error {
            RewriteError::Keep {
                source: KeepError::Held { .. },
                ..
            } => return Err(self.ended(error)),
            RewriteError::Damaged { segment, .. }
            | RewriteError::Io { segment, .. }
            | RewriteError::Keep { segment, .. }
            | RewriteError::TooLarge { segment } => *segment,
            RewriteError::NoSpace { .. }
            | RewriteError::NoLongerLive { .. }
            | RewriteError::Deleted { .. }
            | RewriteError::Cancelled(_)
            | RewriteError::Stopped => return Err(self.ended(error)),
        };
        self.check_store()?;
        let reason: Arc<str> = error.to_string().into();
        let log = self.job.log.id();
        let bad: Vec<SegmentId> = match segments.contains(&at_fault) {
            true => vec![at_fault],
            // The new one could not be written.
            false => segments.to_vec(),
        };
        for segment in &bad {
            tracing::error!(%log, %segment, error = &*reason, "a segment cannot be cleaned and is set aside: the others are cleaned");
            if !self.job.options.dry_run {
                self.executor
                    .set_aside
                    .add(log, *segment, Arc::clone(&reason));
            }
            self.bad.push(*segment);
            let first = self
                .first_aside
                .map_or(segment.base, |first| first.min(segment.base));
            self.first_aside = Some(first);
        }
        self.executor.counters.failed(&reason);
        Ok(bad)
    }

    fn ended(&self, error: RewriteError) -> Ended {
        match error {
            RewriteError::NoLongerLive { .. } => Ended::Restart,
            RewriteError::Keep {
                segment,
                source: KeepError::Held { hold },
            } => {
                let log = self.job.log.id();
                tracing::info!(%log, %segment, %hold, "a hold was added while a segment was compacted: it stays as it was");
                Ended::Restart
            }
            RewriteError::NoSpace { .. } => Ended::Failed(CleanupError::DiskFull),
            RewriteError::Deleted { log } => Ended::Failed(CleanupError::NoLog(log)),
            RewriteError::Cancelled(_) => Ended::Failed(CleanupError::Cancelled),
            error => Ended::Failed(StorageFailed::new(error.to_string()).into()),
        }
    }

    fn report(&self, took: std::time::Duration) -> Report {
        let log = self.job.log;
        let start = log.bounds().start;
        let sum = |of: fn(&Rewritten) -> u64| self.rewrites.iter().map(of).sum::<u64>();
        let view = LogView::of(log.cell());
        let plan = self.plan.clone().unwrap_or_else(|| {
            let view = view.clone().unwrap_or_else(|| LogView::gone(log.id()));
            self.plan_of(&view, &self.job.rules)
        });
        let (before, after) = (sum(|one| one.before.bytes), sum(|one| one.after.bytes));
        Report {
            plan,
            dry_run: self.job.options.dry_run,
            is_cut_short: false,
            unsealed: match self.job.options.dry_run && self.job.options.now {
                true => view.as_ref().map(LogView::unsealed).unwrap_or_default(),
                false => Unsealed::default(),
            },
            start_before: start,
            start_after: start,
            segments_removed: 0,
            records_removed: self.counts.records,
            bytes_removed: before.saturating_sub(after),
            bytes_read: self.bytes_scanned + before,
            bytes_written: sum(|one| one.new.map_or(0, |_| one.after.bytes)),
            passes: self.passes,
            tombstones_removed: self.counts.tombstones,
            keyless_removed: self.counts.keyless,
            unreadable_batches: self.counts.unreadable,
            rewrites: self.rewrites.clone(),
            set_aside: view.map_or_else(Vec::new, |mut view| {
                self.executor.set_aside.show_in(&mut view);
                view.set_aside
            }),
            took,
        }
    }
}
