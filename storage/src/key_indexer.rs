//! Makes and removes key indexes in the background: a thread of its own, or a test's calls.
//!
//! A log is looked at when a segment of it was sealed or replaced, when its active segment grew, when its settings change, when a
//! reader found an index damaged, and once an hour with all others, the first time after a start. Every sealed segment of a log that is
//! to have key indexes (`key.index.enable`) gets one, oldest first, and then the active segment for what has settled of it; of a log
//! that is not they go. An index of an active segment goes on where it ended, also behind a start, and when the segment is sealed: what
//! was read for it is read again only where small sections become a larger one, and nothing is done where nothing has come. Bytes are
//! read at a set rate (`key.index.io.max.bytes.per.second`), and no faster than producers and readers of the disk allow. A segment that
//! cannot be read whole gets none.
//! Invariant: an index that was written while its segment went away goes too.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use model::LogId;
use model::batch::split;

use crate::cleanup::pace::{PaceParts, RunPace};
use crate::cleanup::run::Progress;
use crate::io::{Disk, DiskFile, OpenHow};
use crate::log::{ActiveView, Log};
use crate::manifest::{Sealed, SegmentEntry};
use crate::metrics::KeyIndexMetrics;
use crate::registry::Registry;
use crate::rewrite::{Cancelled, KeepError, Pace, Pages, RewriteError, RewriteParts, scan};
use crate::segment::key_index::{Built, GROWTH_MIN, KeyIndex, LOG_BYTES_MIN, Place, build};
use crate::segment::{SegmentError, SegmentFileKind, SegmentId, SegmentIndex, read_index_file};

/// How often active segments that grow slowly have their turn.
const GROWTH_INTERVAL: Duration = Duration::from_secs(30);
/// So much of a log is read at a time where an index goes on: a larger read delays the write-ahead log's syncs for longer.
const RUN_BYTES: u64 = 256 << 10;
/// How often all logs are looked at.
const PASS_INTERVAL: Duration = Duration::from_secs(3600);
/// How often it is looked whether there is something to do.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// While producers append or readers bring from the disk a MiB a second, an index is made so many times as slowly: a read of the disk
/// delays the write-ahead log's syncs that wait behind it. At 64 MiB a second such reads doubled the 99th percentile of
/// acknowledgements.
const BUSY_TIMES: u64 = 16;
/// With more it is made so many times as slowly for each MiB a second: up to 4 MiB an index keeps up, and at 200 it has a read of
/// [`RUN_BYTES`] every three seconds.
const BUSY_TIMES_A_MIB: u64 = 4;
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

/// The pace of an index: slower while others ask much of the disk.
struct BehindOthers<'i> {
    indexer: &'i KeyIndexer,
    pace: RunPace<'i>,
}

impl Pace for BehindOthers<'_> {
    fn spend(&self, bytes: u64) -> Result<(), Cancelled> {
        let demand = self.indexer.pace.demand.mib_per_second();
        self.pace
            .spend(bytes.saturating_mul(times_as_slowly(demand)))
    }
}

/// By how much an index gives way, when so many MiB a second are asked of the disk.
fn times_as_slowly(demand: u64) -> u64 {
    match demand {
        0 => 1,
        mib => BUSY_TIMES.max(BUSY_TIMES_A_MIB.saturating_mul(mib)),
    }
}

#[derive(Debug, Default)]
struct State {
    passed_at: Option<Duration>,
    /// When active segments that grow slowly had their turn.
    grown_at: Duration,
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
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error("a later release wrote its index")]
    Newer,
}

impl From<Cancelled> for BuildError {
    fn from(cancelled: Cancelled) -> BuildError {
        BuildError::Read(cancelled.into())
    }
}

/// What a look at a log has found to do.
enum Task {
    Build(Target),
    Remove(Vec<SegmentId>),
}

/// A segment to index.
enum Target {
    Sealed(SegmentEntry, Sealed),
    /// As far as it has settled.
    Active(Arc<ActiveView>),
}

impl Target {
    fn id(&self) -> SegmentId {
        match self {
            Target::Sealed(entry, _) => entry.id,
            Target::Active(active) => active.segment.id,
        }
    }
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
                Some(Task::Build(target)) => {
                    // There may be more.
                    indexes.look_at(id);
                    self.build(&log, &target);
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
        let indexes = &self.rewrites.files.key_indexes;
        let mut state = self.locked();
        if now.saturating_sub(state.grown_at) >= GROWTH_INTERVAL {
            state.grown_at = now;
            indexes.go_on();
        }
        let is_due = |at: Duration| now.saturating_sub(at) >= PASS_INTERVAL;
        if state.passed_at.is_none_or(is_due) {
            state.passed_at = Some(now);
            state.failed.clear();
            for log in self.registry.all() {
                let active = log.cell().locked().segments.active.clone();
                if let Some(active) = active {
                    indexes.grew(log.id(), active.segment.id, active.segment.bytes);
                }
                indexes.look_at(log.id());
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
        let (is_wanted, sealed, active) = {
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
            let active = state.segments.active.clone();
            let active = active.filter(|active| active.segment.bytes >= LOG_BYTES_MIN);
            (state.settings.key_index, sealed, active)
        };
        if sealed.is_empty() && active.is_none() {
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
        if let Some((entry, sealed)) = sealed.into_iter().find(is_missing) {
            return Some(Task::Build(Target::Sealed(entry, sealed)));
        }
        let active = active.filter(|active| {
            let id = active.segment.id;
            indexes.takes_due(log.id(), id) && !state.failed.contains(&(log.id(), id))
        });
        active.map(|active| Task::Build(Target::Active(active)))
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

    fn build(&self, log: &Log, target: &Target) {
        let (id, segment) = (log.id(), target.id());
        let built = self.build_in(log, target);
        let is_live = log.cell().has_segment(segment) && !log.cell().is_deleted();
        match built {
            Ok(None) => {}
            Ok(Some(made)) => self.count(id, segment, &made),
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

    fn count(&self, log: LogId, segment: SegmentId, made: &Made) {
        let (counters, built) = (&self.counters, made.built);
        counters.built.fetch_add(1, Ordering::Relaxed);
        let (read, written) = (&counters.indexed_bytes, &counters.written_bytes);
        read.fetch_add(made.read_bytes, Ordering::Relaxed);
        written.fetch_add(built.bytes, Ordering::Relaxed);
        tracing::debug!(%log, %segment, bytes = built.bytes, read_bytes = made.read_bytes, blocks = built.blocks, "a key index was made");
        if built.unknown_blocks > 0 {
            tracing::info!(
                %log, %segment, blocks = built.blocks, unknown_blocks = built.unknown_blocks,
                "a segment has too many keys for its key index: a replay by key reads these blocks whole"
            );
        }
    }

    /// Makes an index, or has the one that is there go on. None if that covers enough.
    fn build_in(&self, log: &Log, target: &Target) -> Result<Option<Made>, BuildError> {
        let (disk, id) = (self.disk(), log.id());
        let directory = self.rewrites.files.data.of_log(id);
        let indexes = &self.rewrites.files.key_indexes;
        let index = match target {
            Target::Sealed(entry, sealed) => self.segment_index(&directory, id, *entry, *sealed)?,
            Target::Active(active) => match self.covered(&directory, id, active) {
                Some(covered) => {
                    indexes.covers(id, active.segment.id, covered, active.segment.bytes);
                    return Ok(None);
                }
                None => {
                    let file = disk.open(&active.segment.id.log_path(&directory), OpenHow::Read)?;
                    let bytes = active.segment.bytes;
                    active
                        .index
                        .with(&*file, |index| index.ended_blocks(bytes))?
                }
            },
        };
        if let Target::Active(active) = target {
            let covered = index.bytes();
            let is_all = covered == 0 || self.is_sound(&directory, id, &index);
            if is_all {
                indexes.covers(id, active.segment.id, covered, active.segment.bytes);
                return Ok(None);
            }
        }
        if index.blocks().is_empty() {
            return Ok(None);
        }
        let known = self.known(&directory, id, &index);
        let progress = Progress::default();
        let rate = self.pace.live.get().key_index_bytes_per_second;
        let pace = BehindOthers {
            indexer: self,
            pace: RunPace::new(&self.pace, &progress, Some(rate.unwrap_or(u64::MAX))),
        };
        let known = known.as_deref();
        let mut read_bytes = 0;
        let show = |from: u64, each: &mut dyn FnMut(&Bytes) -> std::io::Result<()>| {
            read_bytes = index.bytes() - from;
            match target {
                Target::Sealed(entry, _) if from == 0 => self.show_all(log, entry.id, &pace, each),
                _ => {
                    let file = disk.open(&index.id().log_path(&directory), OpenHow::Read)?;
                    show_from(&*file, &index, from, &pace, each)
                }
            }
        };
        let built = build(disk, &directory, (id, &index), known, show)?;
        // Another may be open.
        indexes.forget(id, index.id());
        if let Target::Active(active) = target {
            indexes.covers(id, active.segment.id, index.bytes(), active.segment.bytes);
        }
        Ok(Some(Made { built, read_bytes }))
    }

    /// How much the index of an active segment covers, if little has come since: as its file says.
    fn covered(&self, directory: &Path, log: LogId, active: &ActiveView) -> Option<u64> {
        let id = active.segment.id;
        let file = self
            .disk()
            .open(&id.key_index_path(directory), OpenHow::Read)
            .ok()?;
        let found = KeyIndex::open(file).ok()?;
        let bytes = found.log_bytes();
        let has_enough = bytes <= active.segment.bytes
            && active.segment.bytes - bytes < GROWTH_MIN
            && found.is_current();
        (found.id() == (log, id) && has_enough).then_some(bytes)
    }

    /// Whether a segment has an index of exactly these blocks, which is sound.
    fn is_sound(&self, directory: &Path, log: LogId, index: &SegmentIndex) -> bool {
        let found = self.found(directory, log, index);
        found.is_some_and(|found| {
            let is_whole = found.log_bytes() == index.bytes() && found.is_current();
            is_whole && found.check().is_ok()
        })
    }

    /// The index that a segment has, if it is sound and can go on.
    fn known(&self, directory: &Path, log: LogId, index: &SegmentIndex) -> Option<Arc<KeyIndex>> {
        let known = self.found(directory, log, index)?;
        let goes_on = known.log_bytes() < index.bytes() && known.is_current();
        (goes_on && known.check().is_ok()).then_some(known)
    }

    fn found(&self, directory: &Path, log: LogId, index: &SegmentIndex) -> Option<Arc<KeyIndex>> {
        let place = Place {
            directory,
            log,
            id: index.id(),
            bytes: index.bytes(),
            grows: true,
            is_of: &|found| found.is_of(log, index),
        };
        let found = self.rewrites.files.key_indexes.open(self.disk(), &place);
        found.ok().flatten()
    }

    /// Shows all batches of a sealed segment.
    fn show_all(
        &self,
        log: &Log,
        segment: SegmentId,
        pace: &dyn Pace,
        each: &mut dyn FnMut(&Bytes) -> std::io::Result<()>,
    ) -> Result<(), BuildError> {
        let mut failed = None;
        let read = scan(
            &self.rewrites,
            log.cell(),
            &[segment],
            Pages::AsFound,
            pace,
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

/// What a build has come to.
struct Made {
    built: Built,
    /// Bytes of the segment that were read.
    read_bytes: u64,
}

/// Shows the batches of a segment that begin at or behind a position, where a block begins. They are checked.
fn show_from(
    file: &dyn DiskFile,
    index: &SegmentIndex,
    from: u64,
    pace: &dyn Pace,
    each: &mut dyn FnMut(&Bytes) -> std::io::Result<()>,
) -> Result<(), BuildError> {
    file.read_no_further();
    let (mut position, mut spare) = (from, BytesMut::new());
    while position < index.bytes() {
        let enough = position + RUN_BYTES;
        let last = index
            .block_of_position(enough - 1)
            .expect("blocks begin at 0");
        let end = index.block_end(last).max(position);
        pace.spend(end - position)?;
        spare.resize(
            usize::try_from(end - position).expect("a run fits into memory"),
            0,
        );
        file.read_exact_at(position, &mut spare)?;
        let run = spare.freeze();
        for batch in split(run.clone()) {
            each(batch.map_err(std::io::Error::other)?.bytes())?;
        }
        spare = run.try_into_mut().unwrap_or_default();
        position = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_made_the_more_slowly_the_more_others_ask_of_the_disk() {
        assert_eq!([0, 1, 4, 8, 200].map(times_as_slowly), [1, 16, 16, 32, 800]);
    }
}
