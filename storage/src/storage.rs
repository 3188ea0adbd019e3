//! The store: opens a data directory, owns its threads, and gives out its logs.
//!
//! Callers: the broker. Lock order: a log's state, then the committer's queue; the map of logs is never held over either.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use model::{LeaderEpoch, LogId, Offset, Timestamp};
use uuid::Uuid;

use crate::acknowledged::{self, Acknowledgement};
use crate::checkpoint::{Checkpoint, CheckpointStore, LogEntry, Moment, WalPosition};
use crate::cleanup::execute::{bound_once, clean_once, expire_producers};
use crate::config::{Env, LiveSettings, OnFailure, StorageConfig, Threads};
use crate::damage::{Damage, load_damage, store_damage};
use crate::epochs::Epochs;
use crate::error::{OpenError, StorageFailed};
use crate::io::{Clock, Disk, LockGuard, LockHow, create_dir_durable};
use crate::log::segments::directory_of;
use crate::log::{Bounds, Log, LogSettings};
use crate::metrics::{Counters, Health, Metrics};
use crate::producers::Producers;
use crate::recovery::newer::{self, Newer};
use crate::recovery::orphans::{self, Fate};
use crate::recovery::replay::{RecoveryReport, Replayed, replay_wal};
use crate::recovery::store_file::open_store_file;
use crate::scrub::run::{Scrub, Suspects};
use crate::segment::SegmentCache;
use crate::settler::{SettleError, Settler};
use crate::steady::{self, SteadyTime};
use crate::wal::WalPool;
use crate::wal::committer::{Committer, Progress, Turn, Writer};
use crate::wal::gate::{Admission, AppendSize, Gate, Purpose};
use crate::wal::pool::is_full;
use crate::wal::resume::resume;
use crate::wal::stall::{AppendWaits, Change, Stall, SyncDurations};

/// What all parts of the store share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub config: StorageConfig,
    live: Mutex<LiveSettings>,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    steady: Arc<SteadyTime>,
    pub store: Uuid,
    pub leader_epoch: LeaderEpoch,
    pub frame_bytes_max: usize,
    pub pool: Arc<WalPool>,
    pub gate: Arc<Gate>,
    pub committer: Committer,
    pub stall: Stall,
    pub counters: Counters,
    pub checkpoints: Mutex<CheckpointStore>,
    logs: RwLock<HashMap<LogId, Arc<Log>>>,
    pub segments: SegmentCache,
    settler: Mutex<Settler>,
    dirty: Mutex<Vec<Arc<Log>>>,
    deleted: Mutex<Vec<LogId>>,
    signal: Mutex<Signal>,
    signalled: Condvar,
    damage: Mutex<Vec<Damage>>,
    acknowledged: Mutex<Vec<Acknowledgement>>,
    /// Whether the file `DAMAGE` lacks something of it, for want of space.
    damage_unsaved: AtomicBool,
    /// Held while the record of damage is written, so that health never waits for the disk.
    damage_record: Mutex<()>,
    pub suspects: Arc<Suspects>,
    stopping: AtomicBool,
    _lock: Box<dyn LockGuard>,
}

#[derive(Debug, Default)]
struct Signal {
    settle: bool,
}

impl Shared {
    pub fn log(&self, id: LogId) -> Option<Arc<Log>> {
        self.logs
            .read()
            .expect("nothing panics while it holds the map of logs")
            .get(&id)
            .cloned()
    }

    pub fn all_logs(&self) -> Vec<Arc<Log>> {
        self.logs
            .read()
            .expect("nothing panics while it holds the map of logs")
            .values()
            .cloned()
            .collect()
    }

    /// The log has something that the settler does not know of yet.
    pub fn mark_dirty(&self, log: &Arc<Log>) {
        self.dirty
            .lock()
            .expect("nothing panics while it holds the list")
            .push(Arc::clone(log));
    }

    pub fn log_directory(&self, log: LogId) -> PathBuf {
        directory_of(&self.config.data_dir, log)
    }

    /// The deleted logs whose files are still there.
    pub fn take_deleted(&self) -> Vec<LogId> {
        std::mem::take(
            &mut *self
                .deleted
                .lock()
                .expect("nothing panics while it holds the list"),
        )
    }

    pub fn put_back_deleted(&self, log: LogId) {
        self.deleted
            .lock()
            .expect("nothing panics while it holds the list")
            .push(log);
    }

    /// One round of the settler. A failure ends all writing; a full disk only this round.
    fn settle_round(&self) -> bool {
        let mut settler = self
            .settler
            .lock()
            .expect("nothing panics while it holds the settler");
        match settler.round(self) {
            Ok(worked) => {
                self.gate.set_settling_full(false);
                settler.sweep_some(self, SWEEPS_PER_ROUND);
                worked
            }
            Err(SettleError::DiskFull) => {
                self.gate.set_settling_full(true);
                self.gate.tell_of_disk(self.clock.monotonic());
                false
            }
            Err(SettleError::Stopped) => false,
            Err(SettleError::Failed(failure)) => {
                drop(settler);
                self.fail(failure);
                false
            }
        }
    }

    /// The settler's thread. At the end it leaves what is unsettled to the next start: the write-ahead log holds it.
    fn settle(&self) {
        while !self.is_stopping() && self.gate.failure().is_none() {
            let age = self.config.settle_age;
            self.wait_to_settle(if self.gate.is_disk_full() {
                age.min(FULL_DISK_INTERVAL)
            } else {
                age
            });
            if !self.is_stopping() {
                self.settle_round();
            }
        }
    }

    /// The logs that the settler has something to do for.
    pub fn dirty_logs(&self) -> Vec<Arc<Log>> {
        self.dirty
            .lock()
            .expect("nothing panics while it holds the list")
            .clone()
    }

    pub fn take_dirty(&self) -> Vec<Arc<Log>> {
        std::mem::take(
            &mut *self
                .dirty
                .lock()
                .expect("nothing panics while it holds the list"),
        )
    }

    /// Puts damage on record, on the disk too. True if it was there already.
    pub fn note_damage(&self, found: Damage) -> bool {
        // Held to the end, so that the file holds no fewer than another caller wrote.
        let _one_at_a_time = self
            .damage_record
            .lock()
            .expect("nothing panics while it writes the record");
        let all = {
            let mut damage = self
                .damage
                .lock()
                .expect("nothing panics while it holds the damage");
            if damage.contains(&found) {
                return true;
            }
            damage.push(found.clone());
            damage.clone()
        };
        tracing::error!(log = ?found.log.map(|log| log.to_string()), range = ?found.range, reason = found.reason, "acknowledged records are damaged");
        let root = &self.config.data_dir;
        if let Err(error) = store_damage(self.disk.as_ref(), root, &all, self.clock.now()) {
            tracing::error!(%error, "damage could not be put on record");
            self.damage_unsaved.store(true, Ordering::Release);
        }
        false
    }

    /// Puts damage on record that could not be before. Until then no checkpoint is stored: one that begins behind what is
    /// damaged in the write-ahead log would be all that is known of it.
    pub fn save_damage(&self) -> Result<(), OpenError> {
        if !self.damage_unsaved.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one_at_a_time = self
            .damage_record
            .lock()
            .expect("nothing panics while it writes the record");
        let damage = self
            .damage
            .lock()
            .expect("nothing panics while it holds the damage")
            .clone();
        let root = &self.config.data_dir;
        store_damage(self.disk.as_ref(), root, &damage, self.clock.now())?;
        self.damage_unsaved.store(false, Ordering::Release);
        Ok(())
    }

    /// Acknowledged records turn out to be damaged: readers are told, and it is put on record. False if it was there, or if
    /// the log does not hold them any more.
    pub fn lose_range(&self, log: LogId, range: Range<Offset>, reason: String) -> bool {
        let Some(found) = self.log(log) else {
            return false;
        };
        {
            let mut state = found.locked();
            if state.deleted || range.end <= state.bounds.start {
                return false;
            }
            if !state.mark_damaged(range.clone()) {
                return false;
            }
        }
        let log = Some(log);
        !self.note_damage(Damage { log, range, reason })
    }

    /// Whether readers of all of a range are told that it is damaged, or that it is gone.
    pub fn is_lost(&self, log: LogId, range: &Range<Offset>) -> bool {
        self.log(log).is_none_or(|log| {
            let state = log.locked();
            state.deleted || range.end <= state.bounds.start || state.is_damaged(range)
        })
    }

    /// Whether the damage on record is of this log, or of one that nobody can name.
    pub fn may_be_damaged(&self, log: LogId) -> bool {
        self.damage
            .lock()
            .expect("nothing panics while it holds the damage")
            .iter()
            .any(|damage| damage.log.is_none_or(|damaged| damaged == log))
    }

    /// What is damaged and still kept: what an operator has acknowledged, and the rest.
    fn damage_by_acknowledgement(&self) -> (Vec<Damage>, Vec<Damage>) {
        let all = self
            .damage
            .lock()
            .expect("nothing panics while it holds the damage")
            .clone();
        let is_kept = |damage: &Damage| {
            let Some(id) = damage.log else {
                return true;
            };
            // Retention has passed it, or the topic was deleted.
            self.log(id)
                .is_some_and(|log| damage.range.end > log.bounds().start)
        };
        let acknowledged = self
            .acknowledged
            .lock()
            .expect("nothing panics while it holds the acknowledgements");
        all.into_iter()
            .filter(is_kept)
            .partition(|damage| acknowledged.iter().any(|line| line.covers(damage)))
    }

    /// Reads what operators have acknowledged, if there is damage at all.
    fn read_acknowledgements(&self) {
        if self.damage_count() == 0 {
            return;
        }
        let found = match acknowledged::load(self.disk.as_ref(), &self.config.data_dir) {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "acknowledgements of damage cannot be read");
                return;
            }
        };
        let mut known = self
            .acknowledged
            .lock()
            .expect("nothing panics while it holds the acknowledgements");
        for line in found.iter().filter(|line| !known.contains(line)) {
            let Acknowledgement {
                log,
                from,
                to,
                by,
                note,
                ..
            } = line;
            tracing::info!(log, from, to, by, note, "damage was acknowledged");
        }
        *known = found;
    }

    fn damage_count(&self) -> usize {
        self.damage
            .lock()
            .expect("nothing panics while it holds the damage")
            .len()
    }

    /// A start found that acknowledged records are gone: readers are told. It is put on record at the end of the start.
    fn lose(&self, log: &Log, range: Range<Offset>, reason: String) {
        let mut state = log.locked();
        if range.is_empty() || range.end <= state.bounds.start {
            // Its records were deleted, after the checkpoint that still names it.
            return;
        }
        state.mark_damaged(range.clone());
        drop(state);
        tracing::error!(log = %log.id(), reason, "a settled part of a log is lost");
        let mut damage = self
            .damage
            .lock()
            .expect("nothing panics while it holds the damage");
        let is_known = |known: &Damage| known.log == Some(log.id()) && known.range == range;
        if !damage.iter().any(is_known) {
            let log = Some(log.id());
            damage.push(Damage { log, range, reason });
        }
    }

    /// Puts a log on the settler's list, unless it is there.
    pub fn mark_dirty_once(&self, log: &Arc<Log>) {
        if !std::mem::replace(&mut log.locked().dirty, true) {
            self.mark_dirty(log);
        }
    }

    /// The settings that may have changed since the start.
    pub fn live(&self) -> LiveSettings {
        *self
            .live
            .lock()
            .expect("nothing panics while it holds the settings")
    }

    /// The time by which records age. It does not jump.
    pub fn steady_now(&self) -> Timestamp {
        self.steady.now()
    }

    fn keep_time(&self) {
        let root = &self.config.data_dir;
        steady::store(self.disk.as_ref(), root, self.steady.to_keep());
    }

    /// The cleaner's thread.
    fn clean(&self) {
        let mut last = self.clock.monotonic();
        while self.pause(self.live().retention_check.min(FULL_DISK_INTERVAL)) {
            self.read_acknowledgements();
            let now = self.clock.monotonic();
            if now.saturating_sub(last) >= self.live().retention_check {
                last = now;
                self.keep_time();
                clean_once(self);
            } else if self.gate.is_disk_full() {
                // What is due makes room: it is not left for later.
                clean_once(self);
            } else {
                bound_once(self);
            }
        }
    }

    pub fn append_waits(&self) -> AppendWaits {
        self.stall
            .waits(self.clock.monotonic(), self.committer.oldest_since())
    }

    /// The thread that says so when appends stall and when they go on. All others may be waiting for the disk then.
    fn watch(&self) {
        while self.pause(WATCH_INTERVAL) {
            let waits = self.append_waits();
            let waited_ms = waits.oldest.max(waits.oldest_at_gate).as_millis();
            match self.stall.change(&waits) {
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

    /// Waits, also over what wakes others. False at the end.
    pub fn pause(&self, time: Duration) -> bool {
        let ends = self.clock.monotonic() + time;
        let mut signal = self
            .signal
            .lock()
            .expect("nothing panics while it holds the signal");
        loop {
            let left = ends.saturating_sub(self.clock.monotonic());
            if self.is_stopping() || self.gate.failure().is_some() {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            signal = self
                .signalled
                .wait_timeout(signal, left)
                .expect("nothing panics while it holds the signal")
                .0;
        }
    }

    /// A WAL file is full: there is something for the settler.
    pub fn settle_soon(&self) {
        self.signal
            .lock()
            .expect("nothing panics while it holds the signal")
            .settle = true;
        self.signalled.notify_all();
    }

    /// Waits for [`Shared::settle_soon`], the end, or the time.
    pub fn wait_to_settle(&self, at_most: Duration) {
        let mut signal = self
            .signal
            .lock()
            .expect("nothing panics while it holds the signal");
        if !signal.settle && !self.is_stopping() {
            signal = self
                .signalled
                .wait_timeout(signal, at_most)
                .expect("nothing panics while it holds the signal")
                .0;
        }
        signal.settle = false;
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// A write or sync has failed: nothing is retried, and nothing more is acknowledged.
    pub fn fail(&self, failure: StorageFailed) {
        tracing::error!(reason = %failure.reason, "the store stops writing");
        self.gate.fail(failure.clone());
        if self.config.on_failure == OnFailure::ExitProcess {
            // Standard error may have no reader any more.
            let _ = writeln!(std::io::stderr(), "fatal: {failure}");
            std::process::exit(EXIT_CODE_STORAGE_FAILED);
        }
    }

    /// Logs once that the limit on file sizes keeps appends out, and once that it does not any more.
    fn note_limit(&self, was_limited: &mut bool) {
        let is_limited = self.pool.is_limited();
        if std::mem::replace(was_limited, is_limited) == is_limited {
            return;
        }
        if is_limited {
            tracing::error!(
                limit = self.pool.file_bytes_limit(),
                wal.file.bytes = self.pool.file_bytes(),
                "the limit on file sizes (RLIMIT_FSIZE, `ulimit -f`) is below wal.file.bytes: appends are refused until it is raised"
            );
        } else {
            tracing::info!("the limit on file sizes lets whole files be written again");
        }
        self.gate.look_again();
    }

    /// The pool's helper: keeps zero-filled files ready.
    fn fill_pool(&self) {
        let mut trimmed = self.clock.monotonic();
        let mut was_limited = false;
        while !self.is_stopping() && self.gate.failure().is_none() {
            self.gate.tell_of_disk(self.clock.monotonic());
            if self.clock.monotonic().saturating_sub(trimmed) >= POOL_TRIM_INTERVAL {
                trimmed = self.clock.monotonic();
                if let Err(error) = self.pool.trim() {
                    tracing::warn!(%error, "free files of the write-ahead log could not be removed");
                }
            }
            self.note_limit(&mut was_limited);
            match self.pool.prepare_one() {
                Ok(true) => self.gate.look_again(),
                Ok(false) => self.pool.wait_for_work(Duration::from_millis(500)),
                Err(error) => {
                    if self.is_stopping() {
                        return;
                    }
                    if !crate::wal::pool::is_full(&error) {
                        self.fail(StorageFailed::new(format!(
                            "next file of the write-ahead log: {error}"
                        )));
                        return;
                    }
                    self.gate.tell_of_disk(self.clock.monotonic());
                    self.gate.look_again();
                    self.pool.wait_for_space(Duration::from_millis(200));
                }
            }
        }
    }
}

/// How often what the store holds is compared with its bound, and how often a full disk is looked at: whether there is space again, and whether something that is kept is due.
const FULL_DISK_INTERVAL: Duration = Duration::from_secs(1);

/// A wall clock that is further than this from the store's own time is told of at the start, in milliseconds.
const WALL_APART_MS: i64 = 60_000;

/// How often it is looked whether appends stall.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// WAL files that were not needed for this long are removed, down to those that are kept.
const POOL_TRIM_INTERVAL: Duration = Duration::from_secs(30);

/// Memory for the indexes of sealed segments that are open.
const INDEX_CACHE_BYTES: usize = 64 << 20;

/// Directories that are tidied after one round of the settler.
const SWEEPS_PER_ROUND: usize = 256;

/// The exit code of a process whose store has failed (`EX_IOERR` of sysexits).
pub const EXIT_CODE_STORAGE_FAILED: i32 = 74;

/// An open store. Cheap to clone; the last one to go stops the threads.
#[derive(Clone, Debug)]
pub struct Storage {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// In manual mode; a thread has its own.
    scrub: Mutex<Option<Scrub>>,
    /// Whether the start's own frame is written.
    is_started: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    fn stop(&self) {
        let shared = &self.shared;
        shared.gate.close();
        shared.committer.close();
        shared.stopping.store(true, Ordering::Release);
        shared.settle_soon();
        shared.pool.stop();
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
            shared.keep_time();
        }
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
        config.check()?;
        let root = config.data_dir.clone();
        let disk = Arc::clone(&env.disk);
        let wal_directory = root.join("wal");
        let checkpoint_directory = root.join("checkpoint");
        disk.create_dir_all(&root)
            .map_err(OpenError::io("create", &root))?;
        let lock_path = root.join("LOCK");
        let lock = disk
            .lock(&lock_path, LockHow::Exclusive)
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::WouldBlock => OpenError::Locked {
                    path: lock_path.clone(),
                },
                _ => OpenError::Io {
                    what: "lock",
                    path: lock_path.clone(),
                    source,
                },
            })?;
        refuse_newer(|visit| newer::find_in_store(disk.as_ref(), &root, visit))?;
        let (store, created) = open_store_file(disk.as_ref(), &root)?;
        for directory in [&wal_directory, &checkpoint_directory] {
            create_dir_durable(disk.as_ref(), &root, directory)
                .map_err(OpenError::io("create", directory))?;
        }
        let (mut checkpoints, loaded) =
            CheckpointStore::open(disk.as_ref(), &checkpoint_directory, store).map_err(
                OpenError::io("read the checkpoints in", &checkpoint_directory),
            )?;
        let trouble: Vec<String> = loaded
            .invalid
            .iter()
            .map(|(slot, reason)| format!("{slot:?}: {reason}"))
            .collect();
        let from = loaded
            .newest
            .as_ref()
            .map_or(WalPosition::BEGINNING, |newest| newest.wal);

        if loaded.newest.is_none() && has_settled(disk.as_ref(), &root)? {
            // Going on without it would write new segments over old ones.
            return Err(OpenError::Format {
                path: checkpoint_directory,
                reason: no_checkpoint(&trouble),
            });
        }
        let newest = loaded.newest.as_ref();
        refuse_newer(|visit| newer::find_in_partitions(disk.as_ref(), &root, newest, visit))?;
        let mut damage = load_damage(disk.as_ref(), &root)?;
        let known_damage = damage.len();
        let mut building = Building {
            logs: HashMap::new(),
        };
        if let Some(newest) = &loaded.newest {
            building.settled(newest)?;
        }
        for known in &damage {
            if let Some(log) = known.log {
                building.log(log).locked().mark_damaged(known.range.clone());
            }
        }
        let mut replay = replay_wal(disk.as_ref(), &wal_directory, store, from, &mut |found| {
            building.take(found, &mut damage);
        })?;
        for log in building.logs.values() {
            log.locked().replayed();
        }
        let mut damage_unsaved = damage.len() > known_damage
            && !keep_damage(disk.as_ref(), &root, &damage, env.clock.now())?;
        let before = loaded.newest.as_ref().map(|newest| newest.leader_epoch);
        let leader_epoch = replay
            .leader_epoch
            .max(before)
            .map_or(LeaderEpoch::new(0), LeaderEpoch::next);
        if loaded.newest.is_none() {
            // From the first frame on there is a checkpoint: that there is none always means that it was lost.
            let first = Moment {
                leader_epoch,
                wal: from,
            };
            let (none, entry) = (HashMap::new(), |_, entry: &LogEntry| entry.clone());
            checkpoints
                .store(disk.as_ref(), first, &HashSet::new(), &none, entry)
                .map_err(OpenError::io("write", &checkpoint_directory))?;
        }
        replay.report.created = created;
        replay.report.checkpoint_trouble = trouble;
        replay.report.damage = damage.clone();
        replay.report.leader_epoch = leader_epoch.get();

        let pool = Arc::new(WalPool::new(
            Arc::clone(&disk),
            wal_directory.clone(),
            config.wal_file_bytes,
            config.wal_files_min..=config.wal_files_max,
            replay.free,
            replay.files.len(),
            replay.next_file,
        ));
        let mut files = replay.files;
        // Where the last file ends cleanly it is written on: so that starts alone never use the pool up.
        let position = resume(&pool, &mut files, replay.last_end)
            .map_err(OpenError::io("prepare a WAL file in", &wal_directory))?;
        let gate = Arc::new(Gate::new(Arc::clone(&pool), config.append_queue_bytes));
        gate.set_current_remaining(config.wal_file_bytes);
        let frame_bytes_max = config
            .frame_bytes_max
            .min(usize::try_from(config.wal_file_bytes / 4).unwrap_or(usize::MAX));
        let logs = building.logs;
        let segments = SegmentCache::new(
            Arc::clone(&disk),
            config.open_segments_max,
            INDEX_CACHE_BYTES,
        );
        let kept = steady::load(disk.as_ref(), &root);
        let steady = Arc::new(SteadyTime::start(Arc::clone(&env.clock), kept));
        let shared = Arc::new_cyclic(|weak: &Weak<Shared>| {
            let logs = logs
                .into_iter()
                .map(|(id, log)| (id, Arc::new(log.owned_by(weak.clone()))))
                .collect();
            Shared {
                live: Mutex::new(LiveSettings::from(&config)),
                disk,
                steady,
                clock: Arc::clone(&env.clock),
                store,
                leader_epoch,
                frame_bytes_max,
                pool,
                gate,
                committer: Committer::new(Arc::clone(&env.clock)),
                stall: Stall::default(),
                counters: Counters::default(),
                checkpoints: Mutex::new(checkpoints),
                logs: RwLock::new(logs),
                segments,
                settler: Mutex::new(Settler::new(from)),
                dirty: Mutex::default(),
                deleted: Mutex::default(),
                signal: Mutex::default(),
                signalled: Condvar::new(),
                damage: Mutex::new(damage),
                acknowledged: Mutex::default(),
                damage_unsaved: AtomicBool::new(damage_unsaved),
                damage_record: Mutex::default(),
                suspects: Arc::default(),
                stopping: AtomicBool::new(false),
                _lock: lock,
                config,
            }
        });
        shared.committer.start(Writer::new(Progress {
            files,
            position,
            frame: replay.next_frame,
        }));
        let settled_starts: HashMap<LogId, Offset> = loaded
            .newest
            .iter()
            .flat_map(|newest| &newest.logs)
            .map(|entry| (entry.log, entry.start_offset))
            .collect();
        let before = shared.damage_count();
        for entry in loaded.newest.iter().flat_map(|newest| &newest.logs) {
            let mut settler = shared
                .settler
                .lock()
                .expect("nothing panics while it holds the settler");
            let (segments, lost, is_changed) = settler.restore(&shared, entry)?;
            let log = shared
                .log(entry.log)
                .expect("recovery made every log of the checkpoint");
            log.locked().segments = segments;
            for (range, reason) in lost {
                shared.lose(&log, range, reason);
            }
            if is_changed {
                shared.mark_dirty_once(&log);
            }
        }
        if shared.damage_count() > before {
            let damage = shared
                .damage
                .lock()
                .expect("nothing panics while it holds the damage")
                .clone();
            damage_unsaved =
                !keep_damage(shared.disk.as_ref(), &root, &damage, shared.clock.now())?;
            shared
                .damage_unsaved
                .store(damage_unsaved, Ordering::Release);
            replay.report.damage = damage;
        }
        for log in shared.all_logs() {
            let settled_start = settled_starts.get(&log.id()).copied().unwrap_or_default();
            let has_news = {
                let state = log.locked();
                !state.tail.is_empty() || state.bounds.start != settled_start
            };
            // The next checkpoint begins behind what was replayed: it must hold all of it.
            if has_news {
                shared.mark_dirty_once(&log);
            }
        }
        let storage = Storage {
            inner: Arc::new(Inner {
                shared,
                threads: Mutex::default(),
                scrub: Mutex::default(),
                is_started: AtomicBool::new(false),
            }),
        };
        Ok((storage, replay.report))
    }

    /// Makes the new leader epoch durable, in a frame of its own, before anyone is shown anything; then appends are taken.
    /// Once: a store that is started already is left alone.
    fn start(&self) -> Result<(), OpenError> {
        if self.inner.is_started.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let shared = &self.inner.shared;
        shared
            .committer
            .open_epoch(shared)
            .map_err(|failure| OpenError::Config {
                reason: format!("the write-ahead log: {}", failure.reason),
            })?;
        shared.keep_time();
        let ahead = shared.steady.wall_is_ahead_by();
        if ahead.abs() > WALL_APART_MS {
            tracing::warn!(
                ahead_ms = ahead,
                "the wall clock has moved by more than the store was away: records age by the store's own time"
            );
        }
        if shared.config.threads == Threads::Own {
            self.spawn("log-committer", |shared| shared.committer.run(shared))?;
            self.spawn("wal-filler", Shared::fill_pool)?;
            self.spawn("log-watch", Shared::watch)?;
        }
        Ok(())
    }

    fn spawn(
        &self,
        name: &'static str,
        work: impl FnOnce(&Shared) + Send + 'static,
    ) -> Result<(), OpenError> {
        let shared = Arc::clone(&self.inner.shared);
        let spawned = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let guard = FailOnPanic(&shared, name);
                work(&shared);
                std::mem::forget(guard);
            });
        let thread = spawned.map_err(OpenError::io(
            "start a thread (`ulimit -u`, TasksMax of the service or the container's limit on processes allows no more) for",
            self.inner.shared.config.data_dir.clone(),
        ))?;
        self.inner
            .threads
            .lock()
            .expect("nothing panics while it holds the threads")
            .push(thread);
        Ok(())
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
        let shared = &self.inner.shared;
        let fate = |id: LogId| {
            if id.is_reserved() {
                Fate::Kept
            } else {
                fate(id)
            }
        };
        for log in shared.all_logs() {
            let id = log.id();
            match fate(id) {
                Fate::Kept => continue,
                // As when it was deleted: the kill came before the settler.
                Fate::Deleted => self.delete_log(id),
                Fate::Unknown => {
                    tracing::warn!(log = %id, "the metadata does not know this log: it is left out");
                    shared
                        .logs
                        .write()
                        .expect("nothing panics while it holds the map of logs")
                        .remove(&id);
                    log.mark_deleted();
                    shared
                        .settler
                        .lock()
                        .expect("nothing panics while it holds the settler")
                        .forget(id);
                }
            }
        }
        expire_producers(shared);
        let orphans = orphans::find(shared, &fate)?;
        for log in orphans.iter().filter_map(|orphan| orphan.deleted) {
            shared.put_back_deleted(log);
        }
        // No checkpoint may name what is set aside, nor begin before its last records: a round sees to both. Without space
        // for it all stays where it is.
        let mut settler = shared
            .settler
            .lock()
            .expect("nothing panics while it holds the settler");
        let tidy = match settler.tidy(shared) {
            Ok(()) => true,
            Err(SettleError::DiskFull) => false,
            Err(error) => {
                let path = shared.config.data_dir.join("checkpoint");
                return Err(OpenError::Format {
                    path,
                    reason: error.to_string(),
                });
            }
        };
        drop(settler);
        if tidy {
            orphans::quarantine(shared, &orphans)?;
        }
        if orphans.iter().any(|orphan| orphan.deleted.is_some()) {
            tracing::info!(
                "files of deleted partitions were left by the last process: they are removed"
            );
            shared.settle_soon();
        }
        shared.read_acknowledgements();
        if shared.config.threads == Threads::Own {
            self.spawn("log-settler", Shared::settle)?;
            self.spawn("log-cleaner", Shared::clean)?;
            self.spawn("log-scrub", crate::scrub::run::run)?;
        }
        Ok(())
    }

    /// The store's id.
    pub fn store_id(&self) -> Uuid {
        self.inner.shared.store
    }

    /// The leader epoch of this start; batches are stamped with it.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.inner.shared.leader_epoch
    }

    /// The time by which records age, as a clock: it does not jump, also not from one start to the next.
    pub fn steady_clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.inner.shared.steady) as Arc<dyn Clock>
    }

    /// The machine's clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.inner.shared.clock)
    }

    /// The settings that may change while the store is open, as they are now.
    pub fn live(&self) -> LiveSettings {
        self.inner.shared.live()
    }

    /// Changes the settings that may change while the store is open.
    pub fn set_live(&self, live: LiveSettings) {
        let shared = &self.inner.shared;
        *shared
            .live
            .lock()
            .expect("nothing panics while it holds the settings") = live;
    }

    /// The largest batch that can be appended.
    pub fn batch_bytes_max(&self) -> u64 {
        self.inner.shared.gate.batch_bytes_max()
    }

    /// What the committer puts into one frame at most, but for a single batch that is larger.
    pub fn frame_bytes_max(&self) -> usize {
        self.inner.shared.frame_bytes_max
    }

    /// A partition's log.
    pub fn log(&self, id: LogId) -> Option<Arc<Log>> {
        self.inner.shared.log(id)
    }

    /// The logs of the store itself that are there, in the order of their ids.
    pub fn state_logs(&self) -> Vec<LogId> {
        let logs = self.inner.shared.all_logs();
        let mut ids: Vec<_> = logs.iter().map(|log| log.id()).collect();
        ids.retain(|id| id.is_reserved());
        ids.sort();
        ids
    }

    /// Makes a log; no file is touched until something of it settles. A log that is there already gets the settings.
    pub fn create_log(&self, id: LogId, settings: LogSettings) -> Arc<Log> {
        let shared = &self.inner.shared;
        let settings = Arc::new(settings);
        let mut logs = shared
            .logs
            .write()
            .expect("nothing panics while it holds the map of logs");
        let log = logs.entry(id).or_insert_with(|| {
            let at = Bounds {
                start: Offset::ZERO,
                settled_end: Offset::ZERO,
                durable_end: Offset::ZERO,
                end: Offset::ZERO,
            };
            Arc::new(Log::new(
                id,
                Arc::downgrade(shared),
                Arc::clone(&settings),
                at,
            ))
        });
        let log = Arc::clone(log);
        drop(logs);
        log.set_settings(settings);
        log
    }

    /// Changes a log's settings; false if there is no such log.
    pub fn set_settings(&self, id: LogId, settings: LogSettings) -> bool {
        let log = self.log(id);
        if let Some(log) = &log {
            log.set_settings(Arc::new(settings));
        }
        log.is_some()
    }

    /// Deletes a log. The caller has made the deletion durable in the metadata before.
    pub fn delete_log(&self, id: LogId) {
        let removed = self
            .inner
            .shared
            .logs
            .write()
            .expect("nothing panics while it holds the map of logs")
            .remove(&id);
        if let Some(log) = removed {
            let producers = log.producer_count() as u64;
            let counter = &self.inner.shared.counters.producers;
            let less = |known: u64| Some(known.saturating_sub(producers));
            // It always succeeds.
            let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            log.mark_deleted();
            self.inner.shared.put_back_deleted(id);
            self.inner.shared.settle_soon();
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
        let shared = &self.inner.shared;
        shared
            .stall
            .noting(&*shared.clock, shared.gate.admit(size, purpose))
            .await
    }

    /// Like [`Storage::admit`], for code that is not async: None if it would have to wait.
    pub fn try_admit(&self, bytes: usize) -> Option<Admission> {
        self.try_admit_for(AppendSize::of_one(bytes), Purpose::Records)
    }

    /// Like [`Storage::admit_for`], for code that is not async: None if it would have to wait.
    pub fn try_admit_for(&self, size: AppendSize, purpose: Purpose) -> Option<Admission> {
        self.inner.shared.gate.try_admit(size, purpose)
    }

    /// Whether an append of this size can ever be admitted.
    pub fn takes(&self, size: AppendSize) -> bool {
        self.inner.shared.gate.takes(size)
    }

    /// How the store is. Never waits for the disk.
    pub fn health(&self) -> Health {
        let shared = &self.inner.shared;
        let (damage_acknowledged, damage) = shared.damage_by_acknowledgement();
        let waits = shared.append_waits();
        Health {
            stalled: waits
                .is_stalled
                .then(|| waits.oldest.max(waits.oldest_at_gate)),
            disk_full: shared.gate.is_disk_full(),
            failed: shared
                .gate
                .failure()
                .map(|failure| failure.reason.to_string()),
            damage,
            damage_acknowledged,
        }
    }

    /// How long appends wait now. Never waits for the disk.
    pub fn append_waits(&self) -> AppendWaits {
        self.inner.shared.append_waits()
    }

    /// How long the syncs of the write-ahead log took since the start.
    pub fn sync_durations(&self) -> SyncDurations {
        self.inner.shared.stall.durations()
    }

    /// Counts and sizes. Never waits for the disk.
    pub fn metrics(&self) -> Metrics {
        let shared = &self.inner.shared;
        let counters = &shared.counters;
        let (segments_pinned, wal_pinned) = (shared.segments.pinned(), shared.pool.pinned());
        Metrics {
            frames: counters.frames.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
            appended_bytes: counters.appended_bytes.load(Ordering::Relaxed),
            settled_bytes: counters.settled_bytes.load(Ordering::Relaxed),
            checkpoints: counters.checkpoints.load(Ordering::Relaxed),
            scrubbed_bytes: counters.scrubbed_bytes.load(Ordering::Relaxed),
            scrubbed_segments: counters.scrubbed_segments.load(Ordering::Relaxed),
            scrub_faults: counters.scrub_faults.load(Ordering::Relaxed),
            read_faults: counters.read_faults.load(Ordering::Relaxed),
            rewritten_indexes: counters.rewritten_indexes.load(Ordering::Relaxed),
            bound_removed_bytes: counters.bound_removed_bytes.load(Ordering::Relaxed),
            queued_bytes: shared.gate.reserved_bytes(),
            wal_files_used: shared.committer.files_used() as u64,
            wal_files: shared.pool.files() as u64,
            wal_files_max: shared.config.wal_files_max as u64,
            wal_files_created: shared.pool.created(),
            logs: shared
                .logs
                .read()
                .expect("nothing panics while it holds the map of logs")
                .len() as u64,
            producers: counters.producers.load(Ordering::Relaxed),
            producers_forgotten: counters.producers_forgotten.load(Ordering::Relaxed),
            producers_refused: counters.producers_refused.load(Ordering::Relaxed),
            pinned_files: segments_pinned.0 + wal_pinned.0,
            pinned_bytes: segments_pinned.1 + wal_pinned.1,
        }
    }

    /// Manual mode: makes one frame of what is queued durable. True if there was something.
    pub fn commit_once(&self) -> bool {
        self.inner.shared.committer.turn(&self.inner.shared) == Turn::Worked
    }

    /// Manual mode: what the committer does when it has been idle for a second. False if it has to be tried again.
    pub fn confirm_once(&self) -> bool {
        self.inner.shared.committer.confirm(&self.inner.shared)
    }

    /// Manual mode: one round of the settler. True if something settled.
    pub fn settle_once(&self) -> bool {
        self.inner.shared.settle_round()
    }

    /// Manual mode: one look of the cleaner at all logs. True if something is to be removed.
    pub fn clean_once(&self) -> bool {
        self.inner.shared.read_acknowledgements();
        clean_once(&self.inner.shared)
    }

    /// Manual mode: one step of the scrub. False if there is nothing to verify now, by the rate or at all.
    pub fn scrub_once(&self) -> bool {
        let shared = &self.inner.shared;
        let mut scrub = self
            .inner
            .scrub
            .lock()
            .expect("nothing panics while it holds the scrub");
        let scrub = scrub.get_or_insert_with(|| Scrub::new(shared));
        scrub.step(shared).is_none()
    }

    /// What retention would remove from a log now. None if there is no such log.
    pub fn plan_retention(&self, id: LogId) -> Option<crate::cleanup::Plan> {
        crate::cleanup::execute::plan_of(&self.inner.shared, self.log(id)?.as_ref())
    }

    /// Manual mode: makes one WAL file ready. True if one was missing.
    pub fn prepare_once(&self) -> std::io::Result<bool> {
        self.inner.shared.pool.prepare_one()
    }

    /// Ends the store in order: what is queued is made durable, then the threads stop. Appends are refused from now on.
    pub fn shutdown(&self) {
        self.inner.stop();
    }
}

/// Puts damage that a start has found on record. False if there is no space for it: readers know of it all the same, and the
/// settler tries again.
fn keep_damage(
    disk: &dyn Disk,
    root: &std::path::Path,
    damage: &[Damage],
    now: Timestamp,
) -> Result<bool, OpenError> {
    match store_damage(disk, root, damage, now) {
        Err(OpenError::Io { source, .. }) if is_full(&source) => {
            tracing::error!(error = %source, "damage could not be put on record yet");
            Ok(false)
        }
        stored => stored.map(|()| true),
    }
}

/// Refuses to go on if a file is found that a later release wrote.
fn refuse_newer(find: impl FnOnce(&mut dyn FnMut(Newer))) -> Result<(), OpenError> {
    let mut first = None;
    find(&mut |newer| {
        first.get_or_insert(newer);
    });
    first.map_or(Ok(()), |newer| Err(newer.into()))
}

/// Why a store without a checkpoint does not start, and what to do.
pub(crate) fn no_checkpoint(trouble: &[String]) -> String {
    format!(
        "no checkpoint can be read, though partitions have settled ({}). Restore the data directory from a copy: a checkpoint \
         alone is of use only with the write-ahead log of the same moment",
        trouble.join("; ")
    )
}

/// Whether some partition has files.
pub(crate) fn has_settled(disk: &dyn Disk, root: &std::path::Path) -> Result<bool, OpenError> {
    let partitions = root.join("p");
    if !disk
        .exists(&partitions)
        .map_err(OpenError::io("look for", &partitions))?
    {
        return Ok(false);
    }
    for spread in disk
        .list(&partitions)
        .map_err(OpenError::io("list", &partitions))?
    {
        let directory = partitions.join(&spread.name);
        let has_files = spread.is_dir
            && !disk
                .list(&directory)
                .map_err(OpenError::io("list", &directory))?
                .is_empty();
        if has_files {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Moves a file or directory to `quarantine`, durably.
pub(crate) fn set_aside(shared: &Shared, from: &std::path::Path) -> Result<(), OpenError> {
    let disk = shared.disk.as_ref();
    let root = &shared.config.data_dir;
    let aside = root.join("quarantine");
    create_dir_durable(disk, root, &aside).map_err(OpenError::io("create", &aside))?;
    let to = crate::recovery::sweep::move_aside(disk, from, &aside)
        .map_err(OpenError::io("set aside", from))?;
    tracing::warn!(from = %from.display(), to = %to.display(), "set aside");
    disk.sync_dir(&aside)
        .map_err(OpenError::io("sync", &aside))?;
    if let Some(above) = from.parent() {
        disk.sync_dir(above).map_err(OpenError::io("sync", above))?;
    }
    Ok(())
}

/// A panic on a thread of the store is a failure of the store, not a silent stop.
struct FailOnPanic<'a>(&'a Shared, &'static str);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        self.0.fail(StorageFailed::new(format!(
            "the thread {} panicked",
            self.1
        )));
    }
}

/// Puts damage on the list, unless it is there.
fn note_damage(damage: &mut Vec<Damage>, found: Damage) {
    if !damage.contains(&found) {
        damage.push(found);
    }
}

/// The logs as recovery puts them together.
struct Building {
    logs: HashMap<LogId, Log>,
}

impl Building {
    fn log(&mut self, id: LogId) -> &Log {
        self.logs.entry(id).or_insert_with(|| {
            let at = Bounds {
                start: Offset::ZERO,
                settled_end: Offset::ZERO,
                durable_end: Offset::ZERO,
                end: Offset::ZERO,
            };
            let settings = LogSettings::from(&model::topic_config::TopicConfig::default());
            Log::new(id, Weak::new(), Arc::new(settings), at)
        })
    }

    fn settled(&mut self, checkpoint: &Checkpoint) -> Result<(), OpenError> {
        let format = |error: crate::fields::FormatError| OpenError::Format {
            path: PathBuf::from("checkpoint"),
            reason: error.to_string(),
        };
        for entry in &checkpoint.logs {
            let mut state = self.log(entry.log).locked();
            let end = entry.settled_end;
            state.bounds = Bounds {
                start: entry.start_offset,
                settled_end: end,
                durable_end: end,
                end,
            };
            if !entry.producers.is_empty() {
                state.producers = Producers::decode(&entry.producers).map_err(format)?;
            }
            if !entry.epochs.is_empty() {
                state.epochs = Epochs::decode(&entry.epochs).map_err(format)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, found: Replayed, damage: &mut Vec<Damage>) {
        match found {
            Replayed::Batch {
                log,
                header,
                entry,
                epoch,
            } => {
                let gap = self.log(log).locked().replay(&header, entry, epoch);
                if let Some(range) = gap {
                    let reason =
                        "acknowledged records are missing from the write-ahead log".to_owned();
                    note_damage(
                        damage,
                        Damage {
                            log: Some(log),
                            range,
                            reason,
                        },
                    );
                }
            }
            Replayed::StartRaised { log, start } => {
                let mut state = self.log(log).locked();
                if start > state.bounds.start && start <= state.bounds.durable_end {
                    state.raise_start(start);
                }
            }
            Replayed::Damaged(mut found) => {
                if let Some(log) = found.log {
                    let mut state = self.log(log).locked();
                    if found.range.end <= state.bounds.settled_end {
                        // It was settled before it was damaged.
                        return;
                    }
                    found.range.start = found.range.start.min(state.bounds.end);
                    state.lose(found.range.clone());
                }
                note_damage(damage, found);
            }
        }
    }
}
