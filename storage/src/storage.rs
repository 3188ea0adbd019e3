//! The store's door: opens a data directory, owns its threads, and gives out its logs.
//!
//! Callers: the broker. What is behind it: `open` puts an `engine` together, whose loops the threads run.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use model::batch::BatchHeader;
use model::{LeaderEpoch, LogId, Offset};
use uuid::Uuid;

use crate::cleanup::erase::{EraseError, EraseWatch, Erased, Known, Sighting, Wanted};
use crate::cleanup::holds::HoldsOf;
use crate::cleanup::removed::OnRemoved;
use crate::cleanup::run::{CleanupError, Progress, Report, RunOptions};
use crate::cleanup::{CompactionMetrics, Hold, Plan, Policy};
use crate::components::{Env, Threads};
use crate::config::{LiveSettings, StorageConfig};
use crate::engine::Engine;
use crate::error::{AppendAllError, OpenError, StorageFailed};
use crate::io::{Clock, LockGuard};
use crate::log::{
    AppendedAll, Log, LogAppend, LogSettings, ToldLog, append_all, append_all_telling,
};
use crate::manifest::SegmentEntry;
use crate::metrics::{Health, Metrics};
use crate::open::open;
use crate::producers::ProducerAccounts;
use crate::purge::{PurgeError, purge_wal};
use crate::recovery::RecoveryReport;
use crate::recovery::orphans::{self, Fate, Orphan};
use crate::rewrite::{
    KeepError, Keeper, Pace, Pages, RewriteError, Rewritten, mark_compacted, rewrite, scan,
};
use crate::segment::SegmentId;
use crate::settler::SettleError;
use crate::wal::appends::{AppendBatch, AppendSize, Purpose};
use crate::wal::committer::Turn;
use crate::wal::gate::Admission;
use crate::wal::stall::{AppendWaits, SyncDurations};

/// An open store. Cheap to clone; the last one to go stops the threads.
#[derive(Clone, Debug)]
pub struct Storage {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Arc<Engine>,
    threads_are: Threads,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Whether the start's own frame is written.
    is_started: AtomicBool,
    _lock: Box<dyn LockGuard>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    fn stop(&self) {
        self.engine.close();
        let threads = std::mem::take(
            &mut *self
                .threads
                .lock()
                .expect("nothing panics while it holds the threads"),
        );
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
        // A store that was only looked at stays as it was.
        if self.is_started.load(Ordering::Acquire) {
            self.engine.keep_time();
        }
    }
}

/// By how much the nice value of threads that work in the background is above that of the process.
const BEHIND: i32 = 10;

/// Has the others go before this thread.
fn step_behind() -> std::io::Result<()> {
    let this = Some(rustix::thread::gettid());
    let own = rustix::process::getpriority_process(this)?;
    rustix::process::setpriority_process(this, own + BEHIND)?;
    Ok(())
}

/// A panic on a thread of the store is a failure of the store, not a silent stop.
struct FailOnPanic<'a>(&'a Engine, &'static str);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        let failure = StorageFailed::new(format!("the thread {} panicked", self.1));
        self.0.wal.gate.fail(failure);
    }
}

impl Storage {
    /// Opens a data directory, or makes a new one: locks it, replays the WAL, raises the leader epoch, and makes what was
    /// read durable. Nothing is settled or cleaned up before [`Storage::finish_open`].
    pub fn open(config: StorageConfig, env: Env) -> Result<(Storage, RecoveryReport), OpenError> {
        let (storage, report) = Storage::recover(config, env)?;
        storage.start()?;
        Ok((storage, report))
    }

    /// Like [`Storage::open`], but nothing is written to the WAL yet, so that whoever cannot understand what the logs hold
    /// can still leave the store as it was. The logs may be read; appends wait for [`Storage::finish_open`].
    pub fn recover(
        config: StorageConfig,
        env: Env,
    ) -> Result<(Storage, RecoveryReport), OpenError> {
        let opened = open(&config, &env)?;
        let storage = Storage {
            inner: Arc::new(Inner {
                engine: Arc::new(opened.engine),
                threads_are: env.threads,
                threads: Mutex::default(),
                is_started: AtomicBool::new(false),
                _lock: opened.lock,
            }),
        };
        Ok((storage, opened.report))
    }

    /// Makes the new leader epoch durable before anyone is shown anything; then appends are taken. Once: a store that is
    /// started already is left alone.
    fn start(&self) -> Result<(), OpenError> {
        if self.inner.is_started.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.engine().open_epoch()?;
        self.spawn("log-committer", |engine| engine.wal.committer.run())?;
        self.spawn("wal-filler", Engine::run_pool)?;
        self.spawn("log-watch", Engine::run_watch)
    }

    fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Starts a thread, unless a test does the work.
    fn spawn(
        &self,
        name: &'static str,
        work: impl FnOnce(&Engine) + Send + 'static,
    ) -> Result<(), OpenError> {
        if self.inner.threads_are == Threads::Manual {
            return Ok(());
        }
        let engine = Arc::clone(&self.inner.engine);
        let spawned = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let guard = FailOnPanic(&engine, name);
                work(&engine);
                std::mem::forget(guard);
            });
        let thread = spawned.map_err(OpenError::io(
            "start a thread (`ulimit -u`, TasksMax of the service or the container's limit on processes allows no more) for",
            self.engine().data.root(),
        ))?;
        self.inner
            .threads
            .lock()
            .expect("nothing panics while it holds the threads")
            .push(thread);
        Ok(())
    }

    /// Like [`Storage::spawn`], for work that nobody waits for: producers and readers have the processors first.
    fn spawn_behind(
        &self,
        name: &'static str,
        work: impl FnOnce(&Engine) + Send + 'static,
    ) -> Result<(), OpenError> {
        self.spawn(name, |engine| {
            if let Err(error) = step_behind() {
                tracing::debug!(%error, "the priority of a background thread could not be lowered");
            }
            work(engine);
        })
    }

    /// All logs that are to exist: the files of others are set aside, never deleted. Settling and cleanup begin.
    pub fn finish_open(&self, known: &HashSet<LogId>) -> Result<(), OpenError> {
        self.finish_open_by(&|log| match known.contains(&log) {
            true => Fate::Kept,
            false => Fate::Unknown,
        })
    }

    /// Like [`Storage::finish_open`], for a caller that also knows which logs were deleted: their files are removed.
    pub fn finish_open_by(&self, fate: &dyn Fn(LogId) -> Fate) -> Result<(), OpenError> {
        self.start()?;
        let engine = self.engine();
        let fate = |id: LogId| {
            if id.is_reserved() {
                Fate::Kept
            } else {
                fate(id)
            }
        };
        self.drop_unknown(&fate);
        engine.cleaner.expire_producers();
        let orphans = orphans::find(&engine.data, &fate)?;
        for log in orphans.iter().filter_map(|orphan| orphan.deleted) {
            engine.registry.put_back_deleted(log);
        }
        self.quarantine(&orphans)?;
        if orphans.iter().any(|orphan| orphan.deleted.is_some()) {
            tracing::info!(
                "files of deleted partitions were left by the last process: they are removed"
            );
            engine.signals.settle_soon();
        }
        engine.damage.read_acknowledgements();
        self.spawn("log-settler", Engine::run_settler)?;
        self.spawn("log-cleaner", Engine::run_cleaner)?;
        self.spawn_behind("log-compaction", Engine::run_compaction)?;
        self.spawn_behind("log-key-index", |engine| engine.key_indexer.run())?;
        self.spawn_behind("log-scrub", Engine::run_scrub)
    }

    /// Takes off the logs that are not to exist.
    fn drop_unknown(&self, fate: &dyn Fn(LogId) -> Fate) {
        let engine = self.engine();
        for log in engine.registry.all() {
            let id = log.id();
            match fate(id) {
                Fate::Kept => continue,
                // As when it was deleted: the kill came before the settler.
                Fate::Deleted => self.delete_log(id),
                Fate::Unknown => {
                    tracing::warn!(log = %id, "the metadata does not know this log: it is left out");
                    engine.registry.forget(id);
                    engine.settler.locked().forget(id);
                }
            }
        }
    }

    /// Moves what nobody knows aside. No checkpoint may name it, nor begin before its last records: a round sees to both.
    /// Without space for it all stays where it is.
    fn quarantine(&self, orphans: &[Orphan]) -> Result<(), OpenError> {
        let engine = self.engine();
        match engine.settler.locked().tidy() {
            Ok(()) => {}
            Err(SettleError::DiskFull) => return Ok(()),
            Err(error) => {
                return Err(OpenError::Format {
                    path: engine.data.checkpoints(),
                    reason: error.to_string(),
                });
            }
        }
        orphans::quarantine(&engine.data, orphans)
    }

    /// The store's id.
    pub fn store_id(&self) -> Uuid {
        self.engine().wal.stamp.store
    }

    /// The leader epoch of this start; batches are stamped with it.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.engine().wal.leader_epoch()
    }

    /// The time by which records age, as a clock: it does not jump, also not from one start to the next.
    pub fn steady_clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.engine().steady) as Arc<dyn Clock>
    }

    /// The machine's clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.engine().wal.clock)
    }

    /// The settings that may change while the store is open, as they are now.
    pub fn live(&self) -> LiveSettings {
        self.engine().live.get()
    }

    /// Changes the settings that may change while the store is open.
    pub fn set_live(&self, live: LiveSettings) {
        self.engine().live.set(live);
    }

    /// The largest batch that can be appended.
    pub fn batch_bytes_max(&self) -> u64 {
        self.engine().wal.gate.batch_bytes_max()
    }

    /// What the committer puts into one frame at most, but for a single batch that is larger.
    pub fn frame_bytes_max(&self) -> usize {
        self.engine().wal.committer.frame_bytes_max()
    }

    /// A partition's log.
    pub fn log(&self, id: LogId) -> Option<Arc<Log>> {
        self.engine().registry.get(id)
    }

    /// The logs of the store itself that are there, in the order of their ids.
    pub fn state_logs(&self) -> Vec<LogId> {
        let logs = self.engine().registry.all();
        let mut ids: Vec<_> = logs.iter().map(|log| log.id()).collect();
        ids.retain(|id| id.is_reserved());
        ids.sort();
        ids
    }

    /// Makes a log; no file is touched until something of it settles. A log that is there already gets the settings.
    pub fn create_log(&self, id: LogId, settings: LogSettings) -> Arc<Log> {
        let is_compacted = settings.compaction.is_some();
        let log = self.engine().registry.create(id, settings);
        if is_compacted {
            self.engine().cleaner.due.changed(id);
        }
        log
    }

    /// Changes a log's settings; false if there is no such log.
    pub fn set_settings(&self, id: LogId, settings: LogSettings) -> bool {
        let log = self.log(id);
        if let Some(log) = &log {
            log.cell().set_settings(Arc::new(settings));
            self.engine().cleaner.due.changed(id);
            self.engine().files.key_indexes.look_at(id);
        }
        log.is_some()
    }

    /// Deletes a log. The caller has made the deletion durable in the metadata before.
    pub fn delete_log(&self, id: LogId) {
        if self.engine().registry.delete(id) {
            self.engine().signals.settle_soon();
        }
    }

    /// Waits until `bytes` may be appended; a refusal, as on a full disk, is what the append answers then.
    pub async fn admit(&self, bytes: usize) -> Admission {
        self.admit_for(AppendSize::of_one(bytes), Purpose::Records)
            .await
    }

    /// Like [`Storage::admit`], for several batches that are appended together, and for the broker's own records: those that
    /// free space, or may, are taken on a full disk too.
    pub async fn admit_for(&self, size: AppendSize, purpose: Purpose) -> Admission {
        self.engine().wal.admit(size.in_batches(), purpose).await
    }

    /// Like [`Storage::admit`], for code that is not async: None if it would have to wait.
    pub fn try_admit(&self, bytes: usize) -> Option<Admission> {
        self.try_admit_for(AppendSize::of_one(bytes), Purpose::Records)
    }

    /// Like [`Storage::admit_for`], for code that is not async: None if it would have to wait.
    pub fn try_admit_for(&self, size: AppendSize, purpose: Purpose) -> Option<Admission> {
        self.engine().wal.gate.try_admit(size.in_batches(), purpose)
    }

    /// Whether an append of this size can ever be admitted.
    pub fn takes(&self, size: AppendSize) -> bool {
        self.engine().wal.gate.takes(size.in_batches())
    }

    /// Waits until so much may be appended to several logs at once, by [`Storage::append_all`]: there is room for all of it.
    pub async fn admit_all(&self, size: AppendSize, purpose: Purpose) -> Admission {
        self.engine().wal.admit(size.in_one_frame(), purpose).await
    }

    /// Like [`Storage::admit_all`], for code that is not async: None if it would have to wait.
    pub fn try_admit_all(&self, size: AppendSize, purpose: Purpose) -> Option<Admission> {
        self.engine()
            .wal
            .gate
            .try_admit(size.in_one_frame(), purpose)
    }

    /// Whether an append of this size over several logs can ever be admitted: it is one frame, and a frame takes no more than
    /// half of a WAL file and [`crate::GROUP_BATCHES_MAX`] batches.
    pub fn takes_all(&self, size: AppendSize) -> bool {
        self.engine().wal.gate.takes(size.in_one_frame())
    }

    /// Appends to several logs at once: all of it becomes durable in one frame of the WAL, or nothing does, also above
    /// [`Storage::frame_bytes_max`]. Never waits: the admission, of [`Storage::admit_all`], was waited for, and the sync is
    /// `durable`. A log that is deleted before that takes its own part with it, as if it were deleted right after. Readers may
    /// see one log's part before another's.
    /// Errors: nothing is appended to any log. `Refused(TooLarge)` if it is more than one frame can be.
    pub fn append_all(
        &self,
        group: &[LogAppend],
        admission: Admission,
    ) -> Result<AppendedAll, AppendAllError> {
        append_all(group, admission)
    }

    /// Like [`Storage::append_all`], with one log more, which is told where the others' records went: its batches are made
    /// when that is known, and are part of the same frame. The admission is for all of it; batches that turn out to be less
    /// than it was for are as good.
    pub fn append_all_telling<F: FnOnce(&[Range<Offset>]) -> Vec<AppendBatch>>(
        &self,
        group: &[LogAppend],
        told: ToldLog<F>,
        admission: Admission,
    ) -> Result<AppendedAll, AppendAllError> {
        append_all_telling(group, Some(told), admission)
    }

    /// How the store is. Never waits for the disk.
    pub fn health(&self) -> Health {
        self.engine().health()
    }

    /// How long appends wait now. Never waits for the disk.
    pub fn append_waits(&self) -> AppendWaits {
        self.engine().wal.append_waits()
    }

    /// How long the syncs of the write-ahead log took since the start.
    pub fn sync_durations(&self) -> SyncDurations {
        self.engine().wal.stall.durations()
    }

    /// From now on idempotent producers are on accounts, and each account has so many at most, counted in each log. Said once, before
    /// anything is appended.
    pub fn keep_producer_accounts(&self, accounts: Arc<dyn ProducerAccounts>, one_max: u64) {
        self.engine().producers.keep_accounts(accounts, one_max);
    }

    /// Of the account that has most producers how many; and how often producers were refused as their account has too many.
    pub fn producers_of_accounts(&self) -> (u64, u64) {
        self.engine().producers.of_accounts()
    }

    /// Counts and sizes. Never waits for the disk.
    pub fn metrics(&self) -> Metrics {
        self.engine().metrics()
    }

    /// What compaction has done, and how it is. Never waits for the disk.
    pub fn compaction_metrics(&self) -> CompactionMetrics {
        self.engine().cleaner.executor.counters.get()
    }

    /// Wakes readers that wait for a log, until it is dropped. A task that runs this takes their wake-ups off the thread that
    /// makes appends durable; without one that thread wakes them, after the acks.
    pub async fn wake_readers(&self) {
        self.engine().wal.committer.wake_readers().await;
    }

    /// Manual mode: makes one frame of what is queued durable. True if there was something.
    pub fn commit_once(&self) -> bool {
        self.engine().wal.committer.turn() == Turn::Worked
    }

    /// Manual mode: what the committer does when it has been idle for a second. False if it has to be tried again.
    pub fn confirm_once(&self) -> bool {
        self.engine().wal.committer.confirm()
    }

    /// Manual mode: one round of the settler. True if something settled.
    pub fn settle_once(&self) -> bool {
        self.engine().settle_once()
    }

    /// Manual mode: one look of the cleaner at all logs. True if something is to be removed.
    pub fn clean_once(&self) -> bool {
        self.engine().clean_once()
    }

    /// Manual mode: compacts the log that is due and most dirty. False if none is due.
    pub fn compact_once(&self) -> bool {
        self.engine().compact_once()
    }

    /// Manual mode: makes a key index, or removes those of a log. False if there is nothing to do.
    pub fn index_keys_once(&self) -> bool {
        self.engine().key_indexer.once()
    }

    /// Manual mode: one step of the scrub. False if there is nothing to verify now, by the rate or at all.
    pub fn scrub_once(&self) -> bool {
        self.engine().scrub_once().is_none()
    }

    /// Sets who says what cleanup must not remove, once, before the open is finished.
    pub fn set_holds(&self, holds: HoldsOf) {
        self.engine().cleaner.holds.set(holds);
    }

    /// What is held of logs has changed. Returns once every removal is done that retention planned before; compaction looks at
    /// these logs again. Blocks for as long as a plan takes.
    pub fn holds_changed(&self, logs: &[LogId]) {
        self.engine().cleaner.wait_for_plans();
        for id in logs {
            self.engine().cleaner.due.changed(*id);
        }
    }

    /// The first hold on some records of a range that holds against everything. Never waits for the disk.
    pub fn hold_on(&self, id: LogId, range: &Range<Offset>) -> Option<Hold> {
        let log = self.log(id)?;
        self.engine().cleaner.hold_on(&log, range)
    }

    /// Sets who hears of what cleanup removes, once, before the open is finished.
    pub fn on_removed(&self, listener: OnRemoved) {
        self.engine().cleaner.removals.set(listener);
    }

    /// What a policy would do to a log now, segment by segment, and what holds each of them back. With `now`, as a run with
    /// [`RunOptions::now`] would begin.
    pub fn plan_cleanup(&self, id: LogId, policy: Policy, now: bool) -> Result<Plan, CleanupError> {
        let log = self.log(id).ok_or(CleanupError::NoLog(id))?;
        self.engine().cleaner.plan_of(&log, policy, now)
    }

    /// Runs a policy over a log and tells what was done. Blocks until it is done, failed or cancelled; not for async code.
    pub fn run_cleanup(
        &self,
        id: LogId,
        policy: Policy,
        options: RunOptions,
        progress: &Progress,
    ) -> Result<Report, CleanupError> {
        let log = self.log(id).ok_or(CleanupError::NoLog(id))?;
        self.engine()
            .run_cleanup(&log, policy, options, progress, self.inner.threads_are)
    }

    /// A log's sealed segments, in order. Empty if there is no such log.
    pub fn sealed_segments(&self, id: LogId) -> Vec<SegmentEntry> {
        let Some(log) = self.log(id) else {
            return Vec::new();
        };
        let state = log.cell().locked();
        state.segments.sealed().map(|(entry, _)| *entry).collect()
    }

    /// Shows each batch of some sealed segments to `each`, in the order of offsets; checksums and offsets are checked before.
    /// Blocks.
    pub fn scan(
        &self,
        id: LogId,
        segments: &[SegmentId],
        pace: &dyn Pace,
        each: &mut dyn FnMut(&BatchHeader, &Bytes) -> Result<(), KeepError>,
    ) -> Result<(), RewriteError> {
        let log = self.log(id).ok_or(RewriteError::Deleted { log: id })?;
        let parts = &self.engine().rewrites;
        scan(parts, log.cell(), segments, Pages::AsFound, pace, each)
    }

    /// Puts one new segment in the place of neighbouring sealed ones, with what `keeper` keeps of them. Durable when it returns,
    /// and the old files are unlinked; after an error all is as it was. Blocks.
    pub fn rewrite(
        &self,
        id: LogId,
        segments: &[SegmentId],
        compacted_to: Option<Offset>,
        pace: &dyn Pace,
        keeper: &mut dyn Keeper,
    ) -> Result<Rewritten, RewriteError> {
        let log = self.log(id).ok_or(RewriteError::Deleted { log: id })?;
        let parts = &self.engine().rewrites;
        rewrite(parts, log.cell(), segments, compacted_to, pace, keeper)
    }

    /// Notes that compaction has looked at all sealed segments before an offset, where there was nothing to rewrite. Durable when
    /// it returns. Blocks.
    pub fn mark_compacted(&self, id: LogId, to: Offset) -> Result<(), RewriteError> {
        let log = self.log(id).ok_or(RewriteError::Deleted { log: id })?;
        mark_compacted(&self.engine().rewrites, log.cell(), to)
    }

    /// Removes from the write-ahead log what has settled: when this returns no file of it holds a byte of a record that was durable
    /// when it was called, but what readers hold in memory. For erasure, behind its rewrites. Blocks.
    pub fn purge_wal(&self) -> Result<(), PurgeError> {
        let engine = self.engine();
        purge_wal(&engine.wal, &engine.settler, &engine.signals)
    }

    /// What a log has of some keys. Of sealed segments it is noted in `known`, which is to be of the same keys. Nothing is changed.
    /// Blocks.
    pub fn look_for_keys(
        &self,
        id: LogId,
        wanted: &Wanted,
        known: &mut Known,
        progress: &Progress,
    ) -> Result<Sighting, EraseError> {
        let log = self.log(id).ok_or(EraseError::NoLog)?;
        self.engine()
            .cleaner
            .look_for_keys(&log, wanted, known, progress)
    }

    /// Erases from a log what it has of some keys, and from its summaries; what is not sealed is sealed first. Each segment that
    /// has something of them is written again, durably, and its old file unlinked. What the write-ahead log holds goes with
    /// [`Storage::purge_wal`]. May be called again after any error. Blocks.
    pub fn erase(
        &self,
        id: LogId,
        wanted: &Wanted,
        known: &mut Known,
        progress: &Progress,
        watch: &mut dyn EraseWatch,
    ) -> Result<Erased, EraseError> {
        let log = self.log(id).ok_or(EraseError::NoLog)?;
        self.engine().erase(&log, wanted, known, progress, watch)
    }

    /// What must not be removed of a log now, by whatever it is held. Never waits for the disk.
    pub fn holds_on(&self, id: LogId) -> Vec<Hold> {
        let log = self.log(id);
        log.map_or_else(Vec::new, |log| self.engine().cleaner.all_holds_of(&log))
    }

    /// Tidies a log's directory now, if that was not done since the start: what a crash left behind goes. Blocks.
    pub fn tidy(&self, id: LogId) {
        self.engine().settler.locked().sweep_now(id);
    }

    /// The data directory.
    pub fn directory(&self) -> &Path {
        self.engine().data.root()
    }

    /// Removes a file below `quarantine/`, durably. Errors: it lies elsewhere, or the disk's.
    pub fn remove_quarantined(&self, path: &Path) -> std::io::Result<()> {
        let data = &self.engine().data;
        let is_plain = |part| matches!(part, std::path::Component::Normal(_));
        let below = path.strip_prefix(data.quarantine());
        let is_below = below.is_ok_and(|below| below.components().all(is_plain));
        let Some(directory) = path.parent().filter(|_| is_below) else {
            return Err(std::io::ErrorKind::InvalidInput.into());
        };
        data.disk().remove_file(path)?;
        data.disk().sync_dir(directory)
    }

    /// Manual mode: makes one WAL file ready. True if one was missing.
    pub fn prepare_once(&self) -> std::io::Result<bool> {
        self.engine().wal.pool.prepare_one()
    }

    /// Ends the store in order: what is queued is made durable, then the threads stop. Appends are refused from now on.
    pub fn shutdown(&self) {
        self.inner.stop();
    }
}
