//! Makes and removes key indexes in the background: a thread of its own, or a test's calls.
//!
//! A log is looked at when a segment of it was sealed or replaced, when its settings change, when a reader found an index damaged,
//! and once an hour with all others, the first time after a start. Every sealed segment of a log that is to have key
//! indexes (`key.index.enable`) gets one, oldest first; of a log that is not they go. Bytes are read at a set rate
//! (`key.index.io.max.bytes.per.second`), and no faster than producers allow. A segment that cannot be read whole gets none.
//! Invariant: an index that was written while its segment went away goes too.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::LogId;

use crate::cleanup::pace::{PaceParts, RunPace};
use crate::cleanup::run::Progress;
use crate::io::{Disk, OpenHow};
use crate::log::Log;
use crate::manifest::{Sealed, SegmentEntry};
use crate::metrics::KeyIndexMetrics;
use crate::registry::Registry;
use crate::rewrite::{KeepError, Pace, Pages, RewriteError, RewriteParts, scan};
use crate::segment::key_index::{Built, LOG_BYTES_MIN, build};
use crate::segment::{SegmentFileKind, SegmentId, SegmentIndex, read_index_file};

/// How often all logs are looked at.
const PASS_INTERVAL: Duration = Duration::from_secs(3600);
/// How often it is looked whether there is something to do.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// So many segments that could not be indexed are remembered until the next pass.
const FAILED_MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct KeyIndexer {
    pub rewrites: Arc<RewriteParts>,
    pub registry: Arc<Registry>,
    pub pace: PaceParts,
    pub counters: KeyIndexCounters,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    passed_at: Option<Duration>,
    failed: HashSet<(LogId, SegmentId)>,
}

/// What was done since the start.
#[derive(Debug, Default)]
pub(crate) struct KeyIndexCounters {
    /// Key indexes made.
    pub built: AtomicU64,
    /// Bytes of segments that they index.
    pub indexed_bytes: AtomicU64,
    /// Their own bytes.
    pub written_bytes: AtomicU64,
    /// Segments that could not be read, or their index not written.
    pub failed: AtomicU64,
}

impl KeyIndexCounters {
    /// As they are now.
    pub fn counted(&self) -> KeyIndexMetrics {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        KeyIndexMetrics {
            built: count(&self.built),
            indexed_bytes: count(&self.indexed_bytes),
            written_bytes: count(&self.written_bytes),
            failed: count(&self.failed),
        }
    }
}

/// Why a segment has no key index now.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Read(#[from] RewriteError),
    #[error("a later release wrote its index")]
    Newer,
}

/// What a look at a log has found to do.
enum Task {
    Build(SegmentEntry, Sealed),
    Remove(Vec<SegmentId>),
}

impl KeyIndexer {
    pub fn new(
        rewrites: Arc<RewriteParts>,
        registry: Arc<Registry>,
        pace: PaceParts,
    ) -> KeyIndexer {
        KeyIndexer {
            rewrites,
            registry,
            pace,
            counters: KeyIndexCounters::default(),
            state: Mutex::default(),
        }
    }

    /// The thread.
    pub fn run(&self) {
        let signals = &self.pace.signals;
        let goes_on = || self.pace.wal.gate.failure().is_none();
        while signals.pause(LOOK_INTERVAL) && goes_on() {
            while goes_on() && !signals.is_stopping() && self.once() {}
        }
    }

    /// Makes one index, or removes those of a log. False if there is nothing to do.
    pub fn once(&self) -> bool {
        self.begin_pass();
        let indexes = &self.rewrites.files.key_indexes;
        while !self.pace.wal.gate.is_disk_full()
            && let Some(id) = indexes.take()
        {
            let Some(log) = self.registry.get(id) else {
                indexes.forget_log(id);
                continue;
            };
            match self.task(&log) {
                Some(Task::Build(entry, sealed)) => {
                    // There may be more.
                    indexes.look_at(id);
                    self.build(&log, entry, sealed);
                    return true;
                }
                Some(Task::Remove(ids)) => {
                    self.remove(id, &ids);
                    return true;
                }
                None => {}
            }
        }
        false
    }

    /// Once an hour all logs are looked at, and what has failed is tried again.
    fn begin_pass(&self) {
        let now = self.pace.wal.clock.monotonic();
        let mut state = self.locked();
        let is_due = |at: Duration| now.saturating_sub(at) >= PASS_INTERVAL;
        if state.passed_at.is_none_or(is_due) {
            state.passed_at = Some(now);
            state.failed.clear();
            for log in self.registry.all() {
                self.rewrites.files.key_indexes.look_at(log.id());
            }
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds the indexer's state")
    }

    /// What is to be done for a log. Lists its directory if it has segments.
    fn task(&self, log: &Log) -> Option<Task> {
        let (is_wanted, sealed) = {
            let state = log.cell().locked();
            if state.deleted {
                return None;
            }
            let start = state.bounds.start;
            let sealed = state.segments.sealed();
            let sealed: Vec<_> = sealed
                .filter(|(_, sealed)| sealed.bytes >= LOG_BYTES_MIN && sealed.end_offset > start)
                .map(|(entry, sealed)| (*entry, *sealed))
                .collect();
            (state.settings.key_index, sealed)
        };
        if sealed.is_empty() {
            return None;
        }
        let directory = self.rewrites.files.data.of_log(log.id());
        let entries = self.disk().list(&directory).ok()?;
        let indexed = entries.iter().filter_map(|entry| {
            let name = entry.name.strip_suffix(".new").unwrap_or(&entry.name);
            let (id, kind) = SegmentId::parse(name)?;
            (kind == SegmentFileKind::KeyIndex).then_some((id, name == entry.name))
        });
        if !is_wanted {
            let ids: Vec<_> = indexed.map(|(id, _)| id).collect();
            return (!ids.is_empty()).then_some(Task::Remove(ids));
        }
        let indexed = indexed.filter_map(|(id, is_whole)| is_whole.then_some(id));
        let indexed: HashSet<_> = indexed.collect();
        let state = self.locked();
        let indexes = &self.rewrites.files.key_indexes;
        let is_missing = |(entry, _): &(SegmentEntry, Sealed)| {
            let has_one = indexed.contains(&entry.id) && !indexes.is_old(log.id(), entry.id);
            !has_one && !state.failed.contains(&(log.id(), entry.id))
        };
        let (entry, sealed) = sealed.into_iter().find(is_missing)?;
        Some(Task::Build(entry, sealed))
    }

    fn disk(&self) -> &dyn Disk {
        self.rewrites.files.data.disk()
    }

    fn remove(&self, log: LogId, ids: &[SegmentId]) {
        let directory = self.rewrites.files.data.of_log(log);
        let indexes = &self.rewrites.files.key_indexes;
        for id in ids {
            if let Err(error) = indexes.remove(self.disk(), &directory, log, *id) {
                tracing::warn!(%log, segment = %id, %error, "a key index could not be removed");
            }
        }
    }

    fn build(&self, log: &Log, entry: SegmentEntry, sealed: Sealed) {
        let (id, segment) = (log.id(), entry.id);
        let directory = self.rewrites.files.data.of_log(id);
        let built = self.build_in(&directory, log, entry, sealed);
        let is_live = log.cell().has_segment(segment) && !log.cell().is_deleted();
        match built {
            Ok(built) => {
                // One of an earlier release may be open.
                self.rewrites.files.key_indexes.forget(id, segment);
                let counters = &self.counters;
                counters.built.fetch_add(1, Ordering::Relaxed);
                let (read, written) = (&counters.indexed_bytes, &counters.written_bytes);
                read.fetch_add(sealed.bytes, Ordering::Relaxed);
                written.fetch_add(built.bytes, Ordering::Relaxed);
                tracing::debug!(log = %id, %segment, bytes = built.bytes, log_bytes = sealed.bytes, blocks = built.blocks, "a key index was made");
                if built.unknown_blocks > 0 {
                    tracing::info!(
                        log = %id, %segment, blocks = built.blocks, unknown_blocks = built.unknown_blocks,
                        "a segment has too many keys for its key index: a replay by key reads these blocks whole"
                    );
                }
            }
            Err(BuildError::Read(RewriteError::Cancelled(_) | RewriteError::Stopped)) => return,
            Err(error) if is_live => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(log = %id, %segment, %error, "a segment gets no key index: it is tried again in an hour");
                let mut state = self.locked();
                if state.failed.len() >= FAILED_MAX {
                    state.failed.clear();
                }
                state.failed.insert((id, segment));
            }
            Err(_) => {}
        }
        if !is_live {
            self.remove(id, &[segment]);
        }
    }

    fn build_in(
        &self,
        directory: &Path,
        log: &Log,
        entry: SegmentEntry,
        sealed: Sealed,
    ) -> Result<Built, BuildError> {
        let (disk, id) = (self.disk(), log.id());
        let index = self.segment_index(directory, id, entry, sealed)?;
        let progress = Progress::default();
        let rate = self.pace.live.get().key_index_bytes_per_second;
        let pace = RunPace::new(&self.pace, &progress, Some(rate.unwrap_or(u64::MAX)));
        build(disk, directory, (id, &index), |each| {
            let mut failed = None;
            let read = scan(
                &self.rewrites,
                log.cell(),
                &[entry.id],
                Pages::Drop,
                &pace as &dyn Pace,
                &mut |_, batch| {
                    each(batch).map_err(|error| {
                        failed = Some(error);
                        KeepError::Enough
                    })
                },
            );
            match failed {
                Some(error) => Err(BuildError::Io(error)),
                None => Ok(read?),
            }
        })
    }

    /// The blocks of a segment: by its index, or by its log where that is missing or damaged.
    fn segment_index(
        &self,
        directory: &Path,
        log: LogId,
        entry: SegmentEntry,
        sealed: Sealed,
    ) -> Result<SegmentIndex, BuildError> {
        let disk = self.disk();
        if let Ok(found) = read_index_file(disk, directory, log, entry.id, sealed.bytes)? {
            return Ok(found.index);
        }
        if crate::recovery::newer::newer_index(disk, &entry.id.index_path(directory)).is_some() {
            return Err(BuildError::Newer);
        }
        let file = disk.open(&entry.id.log_path(directory), OpenHow::Read)?;
        let (kind, bytes, time) = (entry.kind, sealed.bytes, sealed.last_append_time);
        let built = SegmentIndex::rebuild(&*file, entry.id, kind, bytes, time);
        built.map_err(|error| BuildError::Io(std::io::Error::other(error)))
    }
}
