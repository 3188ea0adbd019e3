//! Opening a data directory, step by step: lock it, refuse what a later release wrote, learn whose it is, load the checkpoint,
//! replay the WAL, find the segments again. [`Engine::open_epoch`] is the last step, which a caller may leave out.
//!
//! Caller: [`crate::Storage::recover`], before any thread runs. Invariants: nothing is changed before all files are known to be
//! of this release; what was read is durable before anyone is shown anything.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, RwLock};

use model::{LeaderEpoch, LogId, Offset};
use uuid::Uuid;

use crate::checkpoint::{Checkpoint, CheckpointStore, LogEntry, Moment, WalPosition};
use crate::cleanup::cleaner::Cleaner;
use crate::cleanup::due::CompactionDue;
use crate::cleanup::execute::Executor;
use crate::cleanup::hold_source::HoldSource;
use crate::cleanup::pace::PaceParts;
use crate::cleanup::removed::RemovalListener;
use crate::cleanup::thinning::execute::LookedSegments;
use crate::components::{Env, Threads};
use crate::config::{Live, StorageConfig};
use crate::damage::{Damage, DamageRecord};
use crate::data_dir::{DataDir, has_settled};
use crate::demand::Demand;
use crate::engine::Engine;
use crate::error::OpenError;
use crate::io::{Clock, LockGuard, LockHow, lock_holder};
use crate::key_indexer::KeyIndexer;
use crate::log::{DirtyLogs, LogCell, LogParts, SettledReader};
use crate::metrics::Counters;
use crate::producers::ProducerLimits;
use crate::recovery::RecoveryReport;
use crate::recovery::logs::RecoveredLogs;
use crate::recovery::newer::{self, Newer};
use crate::recovery::replay::{Replay, replay_wal};
use crate::recovery::segments::Lost;
use crate::recovery::store_file::{
    RESTORING_FILE, is_being_restored, no_checkpoint, open_store_file,
};
use crate::registry::Registry;
use crate::rewrite::RewriteParts;
use crate::scrub::run::{Scrub, ScrubParts};
use crate::segment::SegmentFiles;
use crate::settler::{Changes, Settler, SettlerParts, SettlerSeat};
use crate::signals::Signals;
use crate::steady::{self, SteadyTime};
use crate::wal::committer::{Committer, CommitterParts};
use crate::wal::frame_writer::{FrameStamp, FrameWriter, Progress};
use crate::wal::gate::Gate;
use crate::wal::queue::AppendQueue;
use crate::wal::resume::resume;
use crate::wal::stall::Stall;
use crate::wal::{Wal, WalPool};

/// A frame takes no more than this part of a WAL file, whatever the setting says.
const FRAMES_PER_FILE_MIN: u64 = 4;

/// A store that is open, and what its opening has found.
pub(crate) struct Opened {
    pub engine: Engine,
    /// The data directory is this process's while this lives.
    pub lock: Box<dyn LockGuard>,
    pub report: RecoveryReport,
}

/// The newest checkpoint that can be read, and where the next one goes.
struct LoadedCheckpoint {
    checkpoints: CheckpointStore,
    newest: Option<Checkpoint>,
    /// Why the others cannot be read.
    trouble: Vec<String>,
}

impl LoadedCheckpoint {
    /// Where the replay of the WAL begins.
    fn from(&self) -> WalPosition {
        self.newest
            .as_ref()
            .map_or(WalPosition::BEGINNING, |newest| newest.wal)
    }
}

/// Opens a data directory, or makes a new one. Nothing is settled or cleaned up yet, and no thread runs.
pub(crate) fn open(config: &StorageConfig, env: &Env) -> Result<Opened, OpenError> {
    config.check()?;
    let data = Arc::new(DataDir::new(Arc::clone(&env.disk), config.data_dir.clone()));
    let lock = lock(&data)?;
    refuse_unfinished_restore(&data)?;
    refuse_newer(|visit| newer::find_in_store(data.disk(), data.root(), visit))?;
    let (store, created) = open_store_file(data.disk(), data.root())?;
    for directory in [data.wal(), data.checkpoints()] {
        data.create(&directory)?;
    }
    let mut loaded = load_checkpoint(&data, store)?;
    let newest = loaded.newest.as_ref();
    refuse_newer(|visit| newer::find_in_partitions(data.disk(), data.root(), newest, visit))?;

    let clock = Arc::clone(&env.clock);
    let damage = Arc::new(DamageRecord::load(Arc::clone(&data), Arc::clone(&clock))?);
    let (cells, mut replay) = recover_logs(&data, store, &loaded, &damage)?;
    let leader_epoch = next_epoch(&loaded, &replay);
    store_first_checkpoint(&data, leader_epoch, &mut loaded)?;
    let mut report = std::mem::take(&mut replay.report);
    report.created = created;
    report.checkpoint_trouble = std::mem::take(&mut loaded.trouble);
    report.leader_epoch = leader_epoch.get();

    let kept = steady::load(data.disk(), data.root());
    let stamp = FrameStamp {
        store,
        leader_epoch,
        steady: Arc::new(SteadyTime::start(clock, kept)),
    };
    let (from, newest) = (loaded.from(), loaded.newest.take());
    let base = Base::new(data, damage, config, env);
    let wal = Arc::new(open_wal(&base, config, env, stamp, replay)?);
    let engine = assemble(base, config, wal, cells, loaded.checkpoints, from);
    restore_segments(&engine, newest.as_ref())?;
    mark_news(&engine, newest.as_ref());
    report.damage = engine.damage.all();
    Ok(Opened {
        engine,
        lock,
        report,
    })
}

/// Makes the directory this process's.
fn lock(data: &DataDir) -> Result<Box<dyn LockGuard>, OpenError> {
    let root = data.root();
    data.disk()
        .create_dir_all(root)
        .map_err(OpenError::io("create", root))?;
    let path = root.join("LOCK");
    data.disk()
        .lock(&path, LockHow::Exclusive)
        .map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked {
                holder: lock_holder(&path),
                path,
            },
            _ => OpenError::io("lock", path)(source),
        })
}

/// Refuses a directory that does not hold all of a backup yet.
fn refuse_unfinished_restore(data: &DataDir) -> Result<(), OpenError> {
    let reason = is_being_restored(data.disk(), data.root())
        .map_err(OpenError::io("look for a restore in", data.root()))?;
    reason.map_or(Ok(()), |reason| {
        let path = data.root().join(RESTORING_FILE);
        Err(OpenError::Format { path, reason })
    })
}

/// Refuses to go on if a file is found that a later release wrote.
fn refuse_newer(find: impl FnOnce(&mut dyn FnMut(Newer))) -> Result<(), OpenError> {
    let mut first = None;
    find(&mut |newer| {
        first.get_or_insert(newer);
    });
    first.map_or(Ok(()), |newer| Err(newer.into()))
}

/// The newest checkpoint. A store without one has settled nothing, or does not open: going on would write new segments over
/// old ones.
fn load_checkpoint(data: &DataDir, store: Uuid) -> Result<LoadedCheckpoint, OpenError> {
    let directory = data.checkpoints();
    let (checkpoints, loaded) = CheckpointStore::open(data.disk(), &directory, store)
        .map_err(OpenError::io("read the checkpoints in", &directory))?;
    let trouble: Vec<String> = loaded
        .invalid
        .iter()
        .map(|(slot, reason)| format!("{slot:?}: {reason}"))
        .collect();
    if loaded.newest.is_none() && has_settled(data.disk(), data.root())? {
        return Err(OpenError::Format {
            path: directory,
            reason: no_checkpoint(&trouble),
        });
    }
    Ok(LoadedCheckpoint {
        checkpoints,
        newest: loaded.newest,
        trouble,
    })
}

/// The logs as the checkpoint and the WAL behind it tell, and what replay has found beside. New damage is put on record.
fn recover_logs(
    data: &DataDir,
    store: Uuid,
    loaded: &LoadedCheckpoint,
    damage: &DamageRecord,
) -> Result<(Vec<Arc<LogCell>>, Replay), OpenError> {
    let known = damage.count();
    let mut recovered = RecoveredLogs::new(loaded.newest.as_ref(), damage)?;
    let replay = replay_wal(
        data.disk(),
        &data.wal(),
        store,
        loaded.from(),
        &mut |found| recovered.take(found, damage),
    )?;
    if damage.count() > known {
        damage.save_found()?;
    }
    Ok((recovered.finish().collect(), replay))
}

/// One more than all that were seen.
fn next_epoch(loaded: &LoadedCheckpoint, replay: &Replay) -> LeaderEpoch {
    let of_checkpoint = loaded.newest.as_ref().map(|newest| newest.leader_epoch);
    let before = replay.leader_epoch.max(of_checkpoint);
    before.map_or(LeaderEpoch::new(0), LeaderEpoch::next)
}

/// From the first frame on there is a checkpoint: that there is none always means that it was lost.
fn store_first_checkpoint(
    data: &DataDir,
    leader_epoch: LeaderEpoch,
    loaded: &mut LoadedCheckpoint,
) -> Result<(), OpenError> {
    if loaded.newest.is_some() {
        return Ok(());
    }
    let first = Moment {
        leader_epoch,
        wal: loaded.from(),
    };
    let (none, entry) = (HashMap::new(), |_, entry: &LogEntry| entry.clone());
    loaded
        .checkpoints
        .store(data.disk(), first, &HashSet::new(), &none, entry)
        .map_err(OpenError::io("write", data.checkpoints()))?;
    Ok(())
}

/// The parts that know no other part but the directory.
struct Base {
    data: Arc<DataDir>,
    damage: Arc<DamageRecord>,
    clock: Arc<dyn Clock>,
    threads: Threads,
    signals: Arc<Signals>,
    counters: Arc<Counters>,
    dirty: Arc<DirtyLogs>,
    live: Arc<Live>,
    producers: Arc<ProducerLimits>,
    files: Arc<SegmentFiles>,
    demand: Arc<Demand>,
}

impl Base {
    fn new(
        data: Arc<DataDir>,
        damage: Arc<DamageRecord>,
        config: &StorageConfig,
        env: &Env,
    ) -> Base {
        let producers = ProducerLimits::new(
            config.producers_per_log_max,
            config.producers_max,
            config.producer_expiry,
        );
        let files = SegmentFiles::new(Arc::clone(&data), config.open_segments_max);
        let counters = Arc::<Counters>::default();
        Base {
            data,
            damage,
            clock: Arc::clone(&env.clock),
            threads: env.threads,
            signals: Arc::new(Signals::new(Arc::clone(&env.clock))),
            demand: Arc::new(Demand::new(Arc::clone(&env.clock), Arc::clone(&counters))),
            counters,
            dirty: Arc::default(),
            live: Arc::new(Live::new(config)),
            producers: Arc::new(producers),
            files: Arc::new(files),
        }
    }
}

/// The WAL, ready to go on where the replay has ended.
fn open_wal(
    base: &Base,
    config: &StorageConfig,
    env: &Env,
    stamp: FrameStamp,
    replay: Replay,
) -> Result<Wal, OpenError> {
    let pool = Arc::new(WalPool::new(
        base.data.shared_disk(),
        base.data.wal(),
        config.wal_file_bytes,
        config.wal_files_min..=config.wal_files_max,
        replay.free,
        replay.files.len(),
        replay.next_file,
    ));
    let mut files = replay.files;
    // Where the last file ends cleanly it is written on: so that starts alone never use the pool up.
    let position = resume(&pool, &mut files, replay.last_end)
        .map_err(OpenError::io("prepare a WAL file in", base.data.wal()))?;
    let gate = Gate::new(Arc::clone(&pool), config.append_queue_bytes, env.on_failure);
    let gate = Arc::new(gate);
    gate.set_current_remaining(config.wal_file_bytes);
    let (clock, stall) = (&base.clock, Arc::new(Stall::default()));
    let queue = Arc::new(AppendQueue::new(Arc::clone(clock)));
    let writer = FrameWriter::new(
        stamp.clone(),
        Arc::clone(clock),
        Arc::clone(&stall),
        Arc::clone(&base.counters),
        Progress {
            files,
            position,
            frame: replay.next_frame,
        },
    );
    let most = usize::try_from(config.wal_file_bytes / FRAMES_PER_FILE_MIN).unwrap_or(usize::MAX);
    let parts = CommitterParts {
        queue: Arc::clone(&queue),
        pool: Arc::clone(&pool),
        gate: Arc::clone(&gate),
        stall: Arc::clone(&stall),
        clock: Arc::clone(clock),
        dirty: Arc::clone(&base.dirty),
        signals: Arc::clone(&base.signals),
        frame_bytes_max: config.frame_bytes_max.min(most),
    };
    Ok(Wal {
        pool,
        gate,
        committer: Committer::new(parts, writer),
        queue,
        stall,
        stamp,
        clock: Arc::clone(clock),
    })
}

/// Gives each part what it uses.
fn assemble(
    base: Base,
    config: &StorageConfig,
    wal: Arc<Wal>,
    cells: Vec<Arc<LogCell>>,
    checkpoints: CheckpointStore,
    from: WalPosition,
) -> Engine {
    let logs = LogParts {
        wal: Arc::clone(&wal),
        settled: SettledReader {
            files: Arc::clone(&base.files),
            damage: Arc::clone(&base.damage),
            dirty: Arc::clone(&base.dirty),
            counters: Arc::clone(&base.counters),
        },
        producers: Arc::clone(&base.producers),
    };
    let registry = Arc::new(Registry::new(cells, Arc::new(logs)));
    let changes = Arc::new(Changes::default());
    let due = Arc::new(CompactionDue::default());
    let settler = SettlerParts {
        changes: Arc::clone(&changes),
        due: Arc::clone(&due),
        wal: Arc::clone(&wal),
        files: Arc::clone(&base.files),
        registry: Arc::clone(&registry),
        dirty: Arc::clone(&base.dirty),
        damage: Arc::clone(&base.damage),
        producers: Arc::clone(&base.producers),
        live: Arc::clone(&base.live),
        signals: Arc::clone(&base.signals),
        counters: Arc::clone(&base.counters),
        demand: Arc::clone(&base.demand),
    };
    let scrub = ScrubParts {
        files: Arc::clone(&base.files),
        registry: Arc::clone(&registry),
        damage: Arc::clone(&base.damage),
        live: Arc::clone(&base.live),
        counters: Arc::clone(&base.counters),
        clock: Arc::clone(&base.clock),
    };
    let settler = Settler::new(Arc::new(settler), checkpoints, from);
    let settler = Arc::new(SettlerSeat::new(settler, Arc::clone(&wal)));
    let rewrites = Arc::new(RewriteParts {
        files: Arc::clone(&base.files),
        changes,
        dirty: Arc::clone(&base.dirty),
        signals: Arc::clone(&base.signals),
        settler: Arc::clone(&settler),
        threads: base.threads,
        closing: Arc::default(),
    });
    let cleaner = cleaner(&base, &wal, &registry, &rewrites, due);
    let key_indexer = KeyIndexer::new(
        Arc::clone(&rewrites),
        Arc::clone(&registry),
        cleaner.executor.pace.clone(),
    );
    Engine {
        key_indexer,
        data: base.data,
        steady: Arc::clone(&wal.stamp.steady),
        wal,
        registry,
        files: base.files,
        damage: base.damage,
        producers: base.producers,
        dirty: base.dirty,
        settler,
        rewrites,
        cleaner,
        scrub: Mutex::new(Scrub::new(scrub)),
        live: base.live,
        signals: base.signals,
        counters: base.counters,
        settle_age: config.settle_age,
        wal_files_max: config.wal_files_max,
    }
}

/// What removes and rewrites.
fn cleaner(
    base: &Base,
    wal: &Arc<Wal>,
    registry: &Arc<Registry>,
    rewrites: &Arc<RewriteParts>,
    due: Arc<CompactionDue>,
) -> Cleaner {
    let executor = Executor {
        rewrites: Arc::clone(rewrites),
        pace: PaceParts {
            wal: Arc::clone(wal),
            live: Arc::clone(&base.live),
            signals: Arc::clone(&base.signals),
            threads: base.threads,
            demand: Arc::clone(&base.demand),
        },
        set_aside: Arc::default(),
        counters: Arc::default(),
    };
    Cleaner {
        registry: Arc::clone(registry),
        producers: Arc::clone(&base.producers),
        live: Arc::clone(&base.live),
        wal: Arc::clone(wal),
        signals: Arc::clone(&base.signals),
        counters: Arc::clone(&base.counters),
        executor,
        due,
        compacting: Mutex::default(),
        looked: LookedSegments::default(),
        holds: HoldSource::default(),
        planning: RwLock::default(),
        removals: RemovalListener::default(),
    }
}

/// Finds the segments again that the checkpoint names. What of them is lost is put on record, and readers are told.
fn restore_segments(engine: &Engine, newest: Option<&Checkpoint>) -> Result<(), OpenError> {
    let before = engine.damage.count();
    let mut settler = engine.settler.locked();
    for entry in newest.iter().flat_map(|newest| &newest.logs) {
        let (segments, lost, is_changed) = settler.restore(entry)?;
        let log = engine
            .registry
            .get(entry.log)
            .expect("recovery made every log of the checkpoint");
        log.cell().locked().segments = segments;
        for lost in lost {
            note_lost(&engine.damage, log.cell(), lost);
        }
        if is_changed {
            engine.dirty.push_once(log.cell());
        }
    }
    if engine.damage.count() > before {
        engine.damage.save_found()?;
    }
    Ok(())
}

/// Acknowledged records are gone: readers are told. It is put on record at the end of the step.
fn note_lost(damage: &DamageRecord, log: &LogCell, (range, reason): Lost) {
    {
        let mut state = log.locked();
        if range.is_empty() || range.end <= state.bounds.start {
            // Its records were deleted, after the checkpoint that still names it.
            return;
        }
        state.mark_damaged(range.clone());
    }
    tracing::error!(log = %log.id(), reason, "a settled part of a log is lost");
    if !damage.knows(log.id(), &range) {
        let log = Some(log.id());
        damage.add(Damage { log, range, reason });
    }
}

/// Puts on the settler's list what the newest checkpoint does not say: the next one begins behind what was replayed, and must
/// hold all of it.
fn mark_news(engine: &Engine, newest: Option<&Checkpoint>) {
    let settled_starts: HashMap<LogId, Offset> = newest
        .iter()
        .flat_map(|newest| &newest.logs)
        .map(|entry| (entry.log, entry.start_offset))
        .collect();
    for log in engine.registry.all() {
        let settled_start = settled_starts.get(&log.id()).copied().unwrap_or_default();
        let has_news = {
            let state = log.cell().locked();
            !state.tail.is_empty() || state.bounds.start != settled_start
        };
        if has_news {
            engine.dirty.push_once(log.cell());
        }
    }
}
