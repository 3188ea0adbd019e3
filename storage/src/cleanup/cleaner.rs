//! The cleaner: looks at logs now and then, plans what is to be done to them, and has it done.
//!
//! Plans are pure (see `plan`). What retention removes goes in two steps: the log's start rises, durably, through the WAL, so
//! that readers are told; the settler's next round takes the passed segments off the manifest, and unlinks their files after
//! the checkpoint. On a full disk it unlinks them first. Compaction has a thread of its own, so that a long one does not delay
//! retention, and only looks at logs of which something was settled, or whose time has come (`due`). One log is compacted at a
//! time, because the memory for keys is there once.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, TryLockError};
use std::time::Duration;

use model::Offset;

use super::compaction::{self, Compaction};
use super::due::CompactionDue;
use super::execute::{Executor, Job, raise_start};
use super::hold_source::{HoldSource, LogHolds};
use super::holds::first_on;
use super::pace::RunPace;
use super::removed::RemovalListener;
use super::run::{CleanupError, Progress, Report, RunOptions, Unsealed};
use super::store_bound::Share;
use super::thinning::ThinPolicy;
use super::thinning::execute::{LookedSegments, Thinned, Thinner};
use super::view::{SealRules, TailBatch};
use super::{Hold, LogView, Plan, Policy, Rules, plan, store_bound};
use crate::config::Live;
use crate::error::{AppendError, DeleteRecordsError, StorageFailed};
use crate::log::{Durable, Log, LogSettings};
use crate::metrics::Counters;
use crate::producers::{OfAccounts, ProducerLimits};
use crate::registry::Registry;
use crate::rewrite::{KeepError, RewriteError};
use crate::signals::Signals;
use crate::wal::Wal;

/// How often a run that waits for its turn looks whether it is cancelled.
const TURN_INTERVAL: Duration = Duration::from_millis(20);
/// A log whose compaction ended with an error is tried again after this.
const RETRY_MS: i64 = 60_000;

/// So many logs are compacted before it is looked again which are due.
const LOGS_PER_LOOK: usize = 16;

/// A log that is due for compaction.
struct DueLog {
    log: Arc<Log>,
    dirty_ppm: u32,
    delay_ms: u64,
}

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
    pub executor: Executor,
    pub due: Arc<CompactionDue>,
    /// Held by the one who compacts or thins: the memory for it is there once.
    pub compacting: Mutex<()>,
    /// What thinning knows of segments.
    pub looked: LookedSegments,
    /// What forbids a removal.
    pub holds: HoldSource,
    /// Held shared from a plan of retention to its end: whoever adds a hold waits for those that did not know of it.
    pub planning: RwLock<()>,
    /// Who hears of one.
    pub removals: RemovalListener,
}

impl Cleaner {
    /// What a policy wants done to a log now. With `asked`, as a run that somebody asked for.
    pub fn plan_of(&self, log: &Log, policy: Policy, asked: bool) -> Result<Plan, CleanupError> {
        let mut view = self.view_of(log).ok_or(CleanupError::NoLog(log.id()))?;
        let settings = self.settings_of(log);
        let rolls = asked && view.has_unsealed();
        if rolls && policy == Policy::Retention {
            // Its plan needs no look at records: it tells of what is not sealed yet as well.
            let rules = SealRules {
                segment_bytes: settings.segment_bytes,
                segment_ms: settings.segment_ms,
                now: self.wal.now(),
            };
            view = view.sealed(&TailBatch::all_of(log.cell()), &rules);
        }
        let rules = Rules::of(policy, &settings, asked);
        let mut rules = rules.ok_or(CleanupError::NotOfOneLog(policy))?;
        if let Rules::Thin(thinning) = &mut rules {
            thinning.looked = self.looked.of(log.id(), &thinning.tiers.to_string());
        }
        let now = self.wal.now();
        // What groups have not read is held from retention; the others keep the newest of each key.
        let holds = self.holds.on(&view, now, policy != Policy::Retention);
        let mut plan = plan(&view, &rules, &holds, now);
        plan.rolls_active |= rolls;
        Ok(plan)
    }

    /// What policies are shown of a log. None if it is deleted.
    fn view_of(&self, log: &Log) -> Option<LogView> {
        let mut view = LogView::of(log.cell())?;
        self.executor.set_aside.show_in(&mut view);
        Some(view)
    }

    /// A log's settings, with segments as large as the settler makes them.
    fn settings_of(&self, log: &Log) -> LogSettings {
        let own = log.settings();
        let store_bytes_max = self.live.get().store_bytes_max;
        LogSettings {
            segment_bytes: store_bound::segment_bytes(own.segment_bytes, store_bytes_max),
            ..LogSettings::clone(&own)
        }
    }

    /// Runs compaction over one log; waits for its turn before. `roll` settles and seals what the log has.
    pub fn run_compaction(
        &self,
        log: &Log,
        options: RunOptions,
        progress: &Progress,
        roll: &dyn Fn(),
    ) -> Result<Report, CleanupError> {
        let _turn = self.turn(progress)?;
        self.look_for_held_keys_of(log, progress)?;
        if options.now && !options.dry_run {
            self.executor.set_aside.forget(log.id());
        }
        let plan = self.plan_of(log, Policy::Compaction, options.now)?;
        let settings = self.settings_of(log);
        let Some(config) = settings.compaction else {
            return Ok(Report::of_nothing(plan, log.bounds().start, options));
        };
        if plan.rolls_active && !options.dry_run {
            roll();
        }
        let rules = Compaction::of(&settings, options.now);
        self.executor.compact(&Job {
            log,
            rules: rules.expect("it is compacted"),
            delete_retention_ms: config.delete_retention_ms,
            holds: self.log_holds(log),
            now: self.wal.now(),
            options,
            progress,
        })
    }

    /// Thins one log as far as its tiers ask for; waits for its turn before. `roll` settles and seals what the log has.
    pub fn run_thinning(
        &self,
        log: &Log,
        options: RunOptions,
        progress: &Progress,
        roll: &dyn Fn(),
    ) -> Result<Report, CleanupError> {
        let _turn = self.turn(progress)?;
        self.look_for_held_keys_of(log, progress)?;
        let began = self.wal.clock.monotonic();
        let start = log.bounds().start;
        let settings = self.settings_of(log);
        let Some(tiers) = &settings.thinning else {
            self.looked.forget(log.id());
            let plan = self.plan_of(log, Policy::Thin, options.now)?;
            return Ok(Report::of_nothing(plan, start, options));
        };
        if options.now && !options.dry_run {
            self.executor.set_aside.forget(log.id());
            roll();
        }
        let view = self.view_of(log).ok_or(CleanupError::NoLog(log.id()))?;
        let rewrites = &self.executor.rewrites;
        self.looked.look_up(rewrites, &view, &tiers.to_string());
        let plan = self.plan_of(log, Policy::Thin, false)?;
        let mut policy = ThinPolicy::new(tiers).expect("what is thinned has a tier");
        if settings.compaction.is_some() {
            policy = policy.beside_compaction();
        }
        let held = self.holds.keys(log.id()).into_iter();
        let policy = policy.holding(held.map(|held| held.key));
        let planned = plan.groups();
        let planned = planned.iter().flatten().map(|segment| 2 * segment.bytes);
        progress.expect(planned.sum());
        let memory_bytes = usize::try_from(self.live.get().cleaner_memory_bytes);
        let thinner = Thinner {
            parts: rewrites,
            looked: &self.looked,
            policy: &policy,
            pace: &RunPace::new(&self.executor.pace, progress, options.bytes_per_second),
            holds: self.log_holds(log),
            now: self.wal.now(),
            memory_bytes: memory_bytes.unwrap_or(usize::MAX),
            dry_run: options.dry_run,
        };
        let mut thinned = Thinned::default();
        let ran = thinner.run(log.cell(), &view, &plan, &mut thinned);
        let is_cut_short = match ran.or_else(|error| self.failed(&view, error, options)) {
            Ok(()) => false,
            Err(CleanupError::Cancelled) => true,
            Err(error) => return Err(error),
        };
        let mut after = self.view_of(log).unwrap_or_else(|| LogView::gone(log.id()));
        Ok(Report {
            is_cut_short,
            unsealed: match options.dry_run && options.now {
                true => view.unsealed(),
                false => Unsealed::default(),
            },
            records_removed: thinned.records_removed,
            bytes_removed: thinned.bytes_before.saturating_sub(thinned.bytes_after),
            bytes_read: thinned.bytes_read,
            bytes_written: thinned.bytes_written,
            passes: u64::from(thinned.bytes_read > 0),
            rewrites: thinned.rewrites,
            set_aside: std::mem::take(&mut after.set_aside),
            took: self.wal.clock.monotonic().saturating_sub(began),
            ..Report::of_nothing(plan, start, options)
        })
    }

    /// What a rewrite that failed means for a run of thinning. A segment that is to blame is set aside, and the next run goes on
    /// without it.
    fn failed(
        &self,
        view: &LogView,
        error: RewriteError,
        options: RunOptions,
    ) -> Result<(), CleanupError> {
        let segment = match &error {
            // Somebody else was faster: the next look plans anew.
            RewriteError::NoLongerLive { .. } => return Ok(()),
            RewriteError::Keep {
                segment,
                source: KeepError::Held { hold },
            } => {
                let log = view.log;
                tracing::info!(%log, %segment, %hold, "a hold was added while a segment was thinned: it stays as it was");
                return Ok(());
            }
            RewriteError::Cancelled(_) => return Err(CleanupError::Cancelled),
            RewriteError::Deleted { log } => return Err(CleanupError::NoLog(*log)),
            RewriteError::NoSpace { .. } => return Err(CleanupError::DiskFull),
            RewriteError::Stopped => return Err(StorageFailed::new(error.to_string()).into()),
            RewriteError::Damaged { segment, .. }
            | RewriteError::Io { segment, .. }
            | RewriteError::TooLarge { segment }
            | RewriteError::Keep { segment, .. } => *segment,
        };
        // The new segment has the base of the first one that it was to replace.
        let mut live = view.segments.iter().map(|live| live.id);
        let segment = live.find(|id| id.base == segment.base).unwrap_or(segment);
        let (log, error) = (view.log, Arc::<str>::from(error.to_string()));
        tracing::error!(%log, %segment, error = &*error, "a segment cannot be thinned and is set aside: the others are thinned");
        if !options.dry_run {
            self.executor.set_aside.add(log, segment, error);
        }
        Ok(())
    }

    /// Thins all logs that a tier has reached.
    pub fn thin_once(&self) {
        self.looked.keep(&|id| self.registry.get(id).is_some());
        for log in self.registry.all() {
            if log.settings().thinning.is_none() || self.signals.is_stopping() {
                continue;
            }
            let progress = Progress::default();
            match self.run_thinning(&log, RunOptions::default(), &progress, &|| {}) {
                Ok(_) | Err(CleanupError::NoLog(_) | CleanupError::Cancelled) => {}
                Err(error) => {
                    tracing::warn!(log = %log.id(), %error, "a log could not be thinned: it is tried again later");
                }
            }
        }
    }

    /// Waits until nobody compacts.
    pub(super) fn turn(&self, progress: &Progress) -> Result<MutexGuard<'_, ()>, CleanupError> {
        loop {
            match self.compacting.try_lock() {
                Ok(turn) => return Ok(turn),
                // What a panic left undone, the next run does.
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
            if progress.is_cancelled() || !self.signals.pause(TURN_INTERVAL) {
                return Err(CleanupError::Cancelled);
            }
        }
    }

    /// Compacts the logs that are due, the most dirty ones first, some before it is looked again. False if none is due.
    pub fn compact_once(&self, roll: &dyn Fn(&Log)) -> bool {
        self.look_for_held_keys();
        let mut due = self.due_logs();
        let executor = &self.executor;
        let is_there = |id| self.registry.get(id).is_some();
        let delay_ms = due.iter().map(|due| due.delay_ms).max();
        let uncleanable = executor.set_aside.count(&is_there) as u64;
        executor.counters.looked(uncleanable, delay_ms.unwrap_or(0));
        due.sort_by_key(|due| (Reverse(due.dirty_ppm), due.log.id()));
        due.truncate(LOGS_PER_LOOK);
        for one in &due {
            self.compact_due(&one.log, &|| roll(&one.log));
            if self.signals.is_stopping() {
                return false;
            }
        }
        !due.is_empty()
    }

    /// Compacts a log that is due, and notes when it is looked at again.
    fn compact_due(&self, log: &Log, roll: &dyn Fn()) {
        let (id, progress) = (log.id(), Progress::default());
        let done = self.run_compaction(log, RunOptions::default(), &progress, roll);
        let later = self.wal.now().plus_millis(RETRY_MS);
        match done {
            Ok(report) if report.passes == 0 && report.rewrites.is_empty() => {
                self.due.not_before(id, later);
            }
            Ok(_) => {}
            Err(CleanupError::NoLog(_) | CleanupError::Cancelled) => {}
            Err(error) => {
                tracing::warn!(log = %id, %error, "a compaction ended early: it is tried again later");
                self.executor.counters.failed(&error.to_string());
                self.due.not_before(id, later);
            }
        }
    }

    /// Of the logs that may have become due since the last look: those that are. For the others it is noted when they may be.
    fn due_logs(&self) -> Vec<DueLog> {
        let now = self.wal.now();
        let mut due = Vec::new();
        for id in self.due.take(now) {
            let Some(log) = self.registry.get(id) else {
                continue;
            };
            let settings = self.settings_of(&log);
            let (Some(rules), Some(view)) = (Compaction::of(&settings, false), self.view_of(&log))
            else {
                continue;
            };
            let plan = compaction::plan(&view, &rules, &self.holds_of(&log), now);
            if plan.is_empty() {
                if let Some(time) = compaction::next_due(&view, &rules, now) {
                    self.due.at(id, time);
                }
                continue;
            }
            // Before it is compacted, so that what settles meanwhile is not missed.
            self.due.changed(id);
            due.push(DueLog {
                dirty_ppm: compaction::dirty_ppm(&view),
                delay_ms: compaction::delay_ms(&view, &rules, now),
                log,
            });
        }
        due
    }

    /// What no policy may remove from a log.
    fn holds_of(&self, log: &Log) -> Vec<Hold> {
        self.log_holds(log).present()
    }

    fn log_holds<'c>(&'c self, log: &'c Log) -> LogHolds<'c> {
        LogHolds {
            source: &self.holds,
            planning: &self.planning,
            wal: &self.wal,
            log: log.cell(),
            removals: &self.removals,
        }
    }

    /// Looks into the segments of a log for the keys that are held, if there are such. Until that is done all of them are held.
    fn look_for_held_keys_of(&self, log: &Log, progress: &Progress) -> Result<(), CleanupError> {
        let keys = self.holds.keys(log.id());
        let Some(view) = LogView::of(log.cell()) else {
            return Err(CleanupError::NoLog(log.id()));
        };
        let (parts, pace) = (&self.executor.rewrites, &self.executor.pace);
        let pace = RunPace::new(pace, progress, None);
        match self
            .holds
            .places
            .look(parts, log.cell(), &view, &keys, &pace)
        {
            Ok(has_looked) => {
                if has_looked {
                    // What was held because nothing was known may be due now.
                    self.due.changed(log.id());
                }
                Ok(())
            }
            Err(error) => self.failed(&view, error, RunOptions::default()),
        }
    }

    fn look_for_held_keys(&self) {
        self.holds
            .places
            .keep(&|id| self.registry.get(id).is_some());
        for log in self.registry.all() {
            if log.id().is_reserved() || self.holds.keys(log.id()).is_empty() {
                continue;
            }
            match self.look_for_held_keys_of(&log, &Progress::default()) {
                Ok(()) | Err(CleanupError::NoLog(_) | CleanupError::Cancelled) => {}
                Err(error) => {
                    tracing::warn!(log = %log.id(), %error, "held keys could not be looked for: it is tried again later");
                }
            }
        }
    }

    /// What must not be removed from a log by whoever has no other leave.
    pub fn all_holds_of(&self, log: &Log) -> Vec<Hold> {
        let view = LogView::of(log.cell());
        view.map_or_else(Vec::new, |view| self.holds.on(&view, self.wal.now(), false))
    }

    /// Returns once every removal is done that was planned without a hold that is known now.
    pub fn wait_for_plans(&self) {
        drop(
            self.planning
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    pub(super) fn planning(&self) -> RwLockReadGuard<'_, ()> {
        self.planning.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first hold on some records of a range that holds against everything.
    pub fn hold_on(&self, log: &Log, range: &Range<Offset>) -> Option<Hold> {
        if range.is_empty() {
            return None;
        }
        first_on(&self.holds_of(log), range).cloned()
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
        self.look_for_held_keys_of(log, progress)?;
        let planning = self.planning();
        let plan = self.plan_of(log, Policy::Retention, options.now && options.dry_run)?;
        if progress.is_cancelled() {
            return Err(CleanupError::Cancelled);
        }
        progress.expect(plan.removed_bytes());
        if let Some(start) = plan.raise_start_to.filter(|_| !options.dry_run) {
            let durable = self.raise_start_soon(log, &plan, start, progress)?;
            drop(planning);
            wait(durable)?;
        }
        progress.done(plan.removed_bytes());
        // Not those that a raised start took from readers before.
        let records = plan.removed().map(|(segment, _)| {
            let readable = segment.end_offset.get().saturating_sub(start_before.get());
            segment.records.min(readable)
        });
        Ok(Report {
            start_after: plan.raise_start_to.unwrap_or(start_before),
            segments_removed: plan.removed().count() as u64,
            records_removed: records.sum(),
            bytes_removed: plan.removed_bytes(),
            took: self.wal.clock.monotonic().saturating_sub(began),
            ..Report::of_nothing(plan, start_before, options)
        })
    }

    /// Raises a start as soon as that can be noted.
    fn raise_start_soon(
        &self,
        log: &Log,
        plan: &Plan,
        start: Offset,
        progress: &Progress,
    ) -> Result<Durable, CleanupError> {
        loop {
            let raised = raise_start(&self.removals, log, plan, start);
            let raised = raised.map_err(|error| match error {
                DeleteRecordsError::Append(AppendError::DiskFull) => CleanupError::DiskFull,
                DeleteRecordsError::Append(AppendError::Deleted) => CleanupError::NoLog(log.id()),
                error => CleanupError::StartNotRaised(error.to_string().into()),
            })?;
            if let Some(durable) = raised {
                return Ok(durable);
            }
            if let Some(failure) = self.wal.gate.failure() {
                return Err(failure.clone().into());
            }
            if progress.is_cancelled() || !self.signals.pause(TURN_INTERVAL) {
                return Err(CleanupError::Cancelled);
            }
        }
    }

    /// Looks at all logs once. True if something is to be removed.
    pub fn clean_once(&self) -> bool {
        self.expire_producers();
        let mut worked = self.bound_once();
        for log in self.registry.all() {
            if log.id().is_reserved() {
                continue;
            }
            let _planning = self.planning();
            let plan = self.plan_of(&log, Policy::Retention, false);
            worked |= plan.is_ok_and(|plan| execute(&self.removals, &log, &plan));
        }
        if worked {
            self.signals.settle_soon();
        }
        worked
    }

    /// Forgets the producers of all logs that appended nothing for `producer.id.expiration.ms`, and counts the others. While
    /// there are nearly as many as there may be, in all or of an account, those go too that have been idle for long enough that no retry
    /// can come.
    pub fn expire_producers(&self) {
        let now = self.wal.now();
        let since = self.producers.kept_since(now);
        let (full, idle) = (self.producers.nearly_full(), self.producers.idle_since(now));
        let (mut known, mut of_one) = (0, OfAccounts::new());
        for log in self.registry.all() {
            let mut state = log.cell().locked();
            state.producers.expire(since.expired);
            let mut early = state.producers.expire(since.idle);
            if !full.is_empty() {
                let is_of = |id| self.producers.is_of(id, &full);
                early += state.producers.expire_of(idle, is_of);
            }
            self.producers.forgot_early(early as u64);
            known += state.producers.len() as u64;
            let ids = state.producers.iter().map(|(id, _)| id);
            for (account, count) in self.producers.accounts_of(ids) {
                *of_one.entry(account).or_default() += count;
            }
        }
        self.producers.recounted(known, of_one);
    }

    /// Compares what the whole store holds with its bound. True if something is to be removed.
    pub fn bound_once(&self) -> bool {
        let Some(bytes_max) = self.live.get().store_bytes_max else {
            return false;
        };
        let logs = self.registry.all();
        let _planning = self.planning();
        let now = self.wal.now();
        let (logs, shares): (Vec<_>, Vec<_>) = logs
            .iter()
            .filter_map(|log| {
                let view = LogView::of(log.cell())?;
                let settings = log.settings();
                let share = Share {
                    holds: self.holds.on(&view, now, true),
                    view,
                    is_only_compacted: settings.compaction.is_some()
                        && settings.retention_ms.is_none()
                        && settings.retention_bytes.is_none(),
                };
                Some((log, share))
            })
            .unzip();
        let plans = store_bound::plan(&shares, bytes_max);
        let mut worked = false;
        for (log, plan) in logs.into_iter().zip(plans) {
            if !plan.is_empty() {
                let removed = &self.counters.bound_removed_bytes;
                removed.fetch_add(plan.removed_bytes(), Relaxed);
                worked |= execute(&self.removals, log, &plan);
            }
        }
        if worked {
            self.signals.settle_soon();
        }
        worked
    }
}

/// Does what a plan says, without waiting for it. True if something is to be removed.
fn execute(removals: &RemovalListener, log: &Log, plan: &Plan) -> bool {
    let Some(start) = plan.raise_start_to else {
        return false;
    };
    match raise_start(removals, log, plan, start) {
        // Nobody waits for it: the settler acts on the start when it has become durable.
        Ok(Some(durable)) => drop(durable),
        Ok(None) => {
            tracing::debug!(log = %log.id(), "retention waits until its removal can be noted");
        }
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
