//! The engine: an open store's parts, and the threads that drive them.
//!
//! Made by `open`, owned by [`crate::Storage`]. Each part holds what it uses; only the threads' loops here see several.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::cleanup::cleaner::Cleaner;
use crate::cleanup::erase::{EraseError, EraseWatch, Erased, Known, Wanted};
use crate::cleanup::run::{CleanupError, Progress, Report, RunOptions};
use crate::cleanup::{LogView, Policy, Uncleanable};
use crate::components::Threads;
use crate::config::Live;
use crate::damage::{Damage, DamageRecord};
use crate::data_dir::DataDir;
use crate::error::{OpenError, StorageFailed};
use crate::key_indexer::KeyIndexer;
use crate::log::{DirtyLogs, Log};
use crate::metrics::{Counters, Health, Metrics};
use crate::producers::ProducerLimits;
use crate::registry::Registry;
use crate::rewrite::RewriteParts;
use crate::scrub::run::Scrub;
use crate::segment::SegmentFiles;
use crate::settler::SettlerSeat;
use crate::signals::Signals;
use crate::steady::{self, SteadyTime};
use crate::wal::Wal;
use crate::wal::pool::is_full;
use crate::wal::stall::Change;

/// How often what the store holds is compared with its bound, and how often a full disk is looked at: whether there is space
/// again, and whether something that is kept is due.
const FULL_DISK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether appends stall.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// WAL files that were not needed for this long are removed, down to those that are kept.
const POOL_TRIM_INTERVAL: Duration = Duration::from_secs(30);
/// How long the pool's thread waits for something to do.
const POOL_WAIT: Duration = Duration::from_millis(500);
/// How long the pool's thread waits for space on a full disk.
const POOL_SPACE_WAIT: Duration = Duration::from_millis(200);
/// A wall clock that is further than this from the store's own time is told of at the start, in milliseconds.
const WALL_APART_MS: i64 = 60_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    pub data: Arc<DataDir>,
    pub wal: Arc<Wal>,
    pub registry: Arc<Registry>,
    pub files: Arc<SegmentFiles>,
    pub damage: Arc<DamageRecord>,
    pub producers: Arc<ProducerLimits>,
    pub dirty: Arc<DirtyLogs>,
    pub settler: Arc<SettlerSeat>,
    pub rewrites: Arc<RewriteParts>,
    pub cleaner: Cleaner,
    pub scrub: Mutex<Scrub>,
    pub key_indexer: KeyIndexer,
    pub live: Arc<Live>,
    pub signals: Arc<Signals>,
    pub counters: Arc<Counters>,
    pub steady: Arc<SteadyTime>,
    /// What has not settled after this time settles then.
    pub settle_age: Duration,
    /// WAL files at most.
    pub wal_files_max: usize,
}

impl Engine {
    fn scrub(&self) -> MutexGuard<'_, Scrub> {
        self.scrub
            .lock()
            .expect("nothing panics while it holds the scrub")
    }

    /// Neither ended nor failed.
    fn goes_on(&self) -> bool {
        !self.signals.is_stopping() && self.wal.gate.failure().is_none()
    }

    /// Waits. False if the store ends or has failed.
    fn pause(&self, time: Duration) -> bool {
        self.signals.pause(time) && self.wal.gate.failure().is_none()
    }

    /// One round of the settler. True if something settled. A failure ends all writing; a full disk only this round.
    pub fn settle_once(&self) -> bool {
        self.settler.round()
    }

    /// One look of the cleaner at all logs. True if something is to be removed.
    pub fn clean_once(&self) -> bool {
        self.damage.read_acknowledgements();
        self.cleaner.clean_once()
    }

    /// A run that somebody asked for.
    pub fn run_cleanup(
        &self,
        log: &Log,
        policy: Policy,
        options: RunOptions,
        progress: &Progress,
        threads_are: Threads,
    ) -> Result<Report, CleanupError> {
        if policy == Policy::Retention && options.now && !options.dry_run {
            self.seal_active(log);
        }
        let report = match policy {
            Policy::Compaction => {
                let roll = || self.seal_active(log);
                return self.cleaner.run_compaction(log, options, progress, &roll);
            }
            Policy::Retention => self
                .cleaner
                .run_retention(log, options, progress, |durable| {
                    if threads_are == Threads::Manual {
                        self.wal.committer.turn();
                    }
                    durable.wait()
                })?,
            Policy::Thin => {
                let roll = || self.seal_active(log);
                return self.cleaner.run_thinning(log, options, progress, &roll);
            }
            Policy::StoreBound => return Err(CleanupError::NotOfOneLog(policy)),
        };
        if !report.dry_run {
            // So that what the plan removes is gone when this returns. On a full disk a later round does it.
            self.settle_once();
        }
        Ok(report)
    }

    /// Erases from a log what it has of some keys: what is not sealed is sealed first, and what a crash left behind is tidied.
    /// Errors: `DiskFull` if it cannot be sealed.
    pub fn erase(
        &self,
        log: &Log,
        wanted: &Wanted,
        known: &mut Known,
        progress: &Progress,
        watch: &mut dyn EraseWatch,
    ) -> Result<Erased, EraseError> {
        self.settler.locked().sweep_now(log.id());
        let is_unsealed = || {
            let view = LogView::of(log.cell())?;
            let sealed = view.segments.iter().rfind(|segment| segment.sealed);
            let sealed = sealed.map_or(view.start_offset, |last| last.end_offset);
            let is_meant = sealed < wanted.before.min(log.bounds().durable_end);
            Some(is_meant && view.has_unsealed())
        };
        if is_unsealed().ok_or(EraseError::NoLog)? {
            self.seal_active(log);
        }
        if is_unsealed().ok_or(EraseError::NoLog)? {
            return Err(match self.wal.gate.failure() {
                Some(failure) => failure.clone().into(),
                None => EraseError::DiskFull,
            });
        }
        self.cleaner.erase(log, wanted, known, progress, watch)
    }

    /// Compacts the log that is due and most dirty. False if none is due.
    pub fn compact_once(&self) -> bool {
        self.cleaner.compact_once(&|log| self.seal_active(log))
    }

    /// The thread of compaction.
    pub fn run_compaction(&self) {
        while self.pause(self.live.get().cleaner_check) {
            while self.goes_on() && self.compact_once() {}
            self.cleaner.thin_once();
        }
    }

    /// Seals the active segment, settles what is in the WAL only into one of its own, and seals that too, as far as the disk
    /// allows: what was appended before is in sealed segments then, and no older for what came last.
    fn seal_active(&self, log: &Log) {
        for _ in 0..2 {
            log.cell().ask_for_seal();
            self.dirty.push_once(log.cell());
            self.settle_once();
        }
    }

    /// One step of the scrub. None if something was done, or else how long to wait.
    pub fn scrub_once(&self) -> Option<Duration> {
        self.scrub().step()
    }

    /// The settler's thread. At the end it leaves what is unsettled to the next start: the write-ahead log holds it.
    pub fn run_settler(&self) {
        while self.goes_on() {
            let full = self.wal.gate.is_disk_full();
            let most = self.settle_age;
            self.signals.wait_to_settle(if full {
                most.min(FULL_DISK_INTERVAL)
            } else {
                most
            });
            if !self.signals.is_stopping() {
                self.settle_once();
            }
        }
    }

    /// The cleaner's thread.
    pub fn run_cleaner(&self) {
        let clock = &self.wal.clock;
        let mut last = clock.monotonic();
        while self.pause(self.live.get().retention_check.min(FULL_DISK_INTERVAL)) {
            self.damage.read_acknowledgements();
            let now = clock.monotonic();
            if now.saturating_sub(last) >= self.live.get().retention_check {
                last = now;
                self.keep_time();
                self.cleaner.clean_once();
            } else if self.wal.gate.is_disk_full() {
                // What is due makes room: it is not left for later.
                self.cleaner.clean_once();
            } else {
                self.cleaner.bound_once();
            }
        }
    }

    /// The scrub's thread.
    pub fn run_scrub(&self) {
        loop {
            let wait = self.scrub_once().unwrap_or(Duration::ZERO);
            if !self.pause(wait) {
                return;
            }
        }
    }

    /// The thread that says so when appends stall and when they go on. All others may be waiting for the disk then.
    pub fn run_watch(&self) {
        while self.pause(WATCH_INTERVAL) {
            let waits = self.wal.append_waits();
            let waited_ms = waits.oldest.max(waits.oldest_at_gate).as_millis();
            match self.wal.stall.change(&waits) {
                Some(Change::Stalls) => {
                    tracing::warn!(%waited_ms, "appends stall: the disk does not answer");
                }
                Some(Change::GoesOn) => {
                    tracing::info!("appends go on: the disk answers again");
                }
                None => {}
            }
        }
    }

    /// The pool's thread: keeps zero-filled files ready.
    pub fn run_pool(&self) {
        let Wal {
            pool, gate, clock, ..
        } = &*self.wal;
        let mut trimmed = clock.monotonic();
        let mut was_limited = false;
        while self.goes_on() {
            gate.report_disk(clock.monotonic());
            if clock.monotonic().saturating_sub(trimmed) >= POOL_TRIM_INTERVAL {
                trimmed = clock.monotonic();
                if let Err(error) = pool.trim() {
                    tracing::warn!(%error, "free files of the write-ahead log could not be removed");
                }
            }
            self.note_limit(&mut was_limited);
            match pool.prepare_one() {
                Ok(true) => gate.look_again(),
                Ok(false) => pool.wait_for_work(POOL_WAIT),
                Err(_) if self.signals.is_stopping() => return,
                Err(error) if is_full(&error) => {
                    gate.report_disk(clock.monotonic());
                    gate.look_again();
                    pool.wait_for_space(POOL_SPACE_WAIT);
                }
                Err(error) => {
                    gate.fail(StorageFailed::new(format!(
                        "next file of the write-ahead log: {error}"
                    )));
                    return;
                }
            }
        }
    }

    /// Logs once that the limit on file sizes keeps appends out, and once that it does not any more.
    fn note_limit(&self, was_limited: &mut bool) {
        let pool = &self.wal.pool;
        let is_limited = pool.is_limited();
        if std::mem::replace(was_limited, is_limited) == is_limited {
            return;
        }
        if is_limited {
            tracing::error!(
                limit = pool.file_bytes_limit(),
                wal.file.bytes = pool.file_bytes(),
                "the limit on file sizes (RLIMIT_FSIZE, `ulimit -f`) is below wal.file.bytes: appends are refused until it is raised"
            );
        } else {
            tracing::info!("the limit on file sizes lets whole files be written again");
        }
        self.wal.gate.look_again();
    }

    /// The last step of an opening: makes the new leader epoch durable, in a frame of its own.
    pub fn open_epoch(&self) -> Result<(), OpenError> {
        let opened = self.wal.committer.open_epoch();
        opened.map_err(|failure| OpenError::Config {
            reason: format!("the write-ahead log: {}", failure.reason),
        })?;
        self.keep_time();
        let ahead = self.steady.wall_is_ahead_by();
        if ahead.abs() > WALL_APART_MS {
            tracing::warn!(
                ahead_ms = ahead,
                "the wall clock has moved by more than the store was away: records age by the store's own time"
            );
        }
        Ok(())
    }

    /// Keeps the time by which records age for the next start.
    pub fn keep_time(&self) {
        steady::store(self.data.disk(), self.data.root(), self.steady.to_keep());
    }

    /// How the store is. Never waits for the disk.
    pub fn health(&self) -> Health {
        let gate = &self.wal.gate;
        let is_kept = |damage: &Damage| {
            let Some(id) = damage.log else {
                return true;
            };
            // Retention has passed it, or the topic was deleted.
            self.registry
                .get(id)
                .is_some_and(|log| damage.range.end > log.bounds().start)
        };
        let (damage_acknowledged, damage) = self
            .damage
            .all()
            .into_iter()
            .filter(is_kept)
            .partition(|damage| self.damage.is_acknowledged(damage));
        let waits = self.wal.append_waits();
        Health {
            stalled: waits
                .is_stalled
                .then(|| waits.oldest.max(waits.oldest_at_gate)),
            disk_full: gate.is_disk_full(),
            failed: gate.failure().map(|failure| failure.reason.to_string()),
            damage,
            damage_acknowledged,
            uncleanable: self.uncleanable(),
        }
    }

    /// The segments that are set aside, of the logs that still have them.
    fn uncleanable(&self) -> Vec<Uncleanable> {
        let mut all = self.cleaner.executor.set_aside.all();
        all.retain(|one| {
            let log = self.registry.get(one.log);
            log.is_some_and(|log| {
                let state = log.cell().locked();
                state
                    .segments
                    .sealed()
                    .any(|(entry, _)| entry.id == one.segment)
            })
        });
        all
    }

    /// Counts and sizes. Never waits for the disk.
    pub fn metrics(&self) -> Metrics {
        let (pool, producers) = (&self.wal.pool, &self.producers);
        let (segments_pinned, wal_pinned) = (self.files.cache.pinned(), pool.pinned());
        Metrics {
            queued_bytes: self.wal.gate.reserved_bytes(),
            wal_files_used: self.wal.committer.files_used() as u64,
            wal_files: pool.files() as u64,
            wal_files_max: self.wal_files_max as u64,
            wal_files_created: pool.created(),
            logs: self.registry.len() as u64,
            producers: producers.known(),
            producers_forgotten: producers.forgotten(),
            producers_refused: producers.refused(),
            pinned_files: segments_pinned.0 + wal_pinned.0,
            pinned_bytes: segments_pinned.1 + wal_pinned.1,
            key_indexes: self.key_indexer.counters.counted(),
            ..self.counters.counted()
        }
    }

    /// Takes no more appends. What is queued is still made durable; the threads end.
    pub fn close(&self) {
        self.wal.close();
        self.signals.stop();
    }
}
