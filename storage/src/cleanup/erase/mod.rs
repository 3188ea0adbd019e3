//! Erasure by key: all records of some keys below an offset go from a log, and what its summaries tell of them.
//!
//! Callers: the broker, through `Storage::look_for_keys` and `Storage::erase`; behind the last log it has the write-ahead log
//! purged (`purge.rs`). `look.rs` finds which segments have something of the keys, `keeper.rs` says what of a batch stays. Each
//! segment is written again by itself, in one durable step, so that an erasure may end anywhere and begins again with what is
//! left: doing it twice is doing it once. What was found of a sealed segment stays true as long as the segment is one of the log's.
//! Invariants: no record goes on which there is a hold, which is asked again before each segment, with those kept waiting who add
//! one; a batch whose records cannot be read is named and stays; a segment that cannot be read ends the erasure with an error,
//! after all the others were done.

mod keeper;
mod look;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use model::Offset;

pub use self::look::{Looked, Undecodable};
use super::cleaner::Cleaner;
use super::execute::last_batches;
use super::holds::Hold;
use super::pace::RunPace;
use super::run::{CleanupError, Progress};
use super::{LogView, SegmentView};
use crate::error::StorageFailed;
use crate::log::Log;
use crate::rewrite::{RewriteError, Rewritten, rewrite};
use crate::segment::SegmentId;
use keeper::EraseKeeper;
use look::Looker;

/// Segments of a log may go away under an erasure; it looks again so often at most.
const LOOKS_MAX: u32 = 100;

/// What is to be erased from a log.
#[derive(Clone, Debug)]
pub struct Wanted {
    keys: HashSet<Bytes>,
    /// Records at this offset and behind it stay.
    pub before: Offset,
}

impl Wanted {
    /// The records with one of these keys that lie before an offset.
    pub fn new(keys: impl IntoIterator<Item = Bytes>, before: Offset) -> Wanted {
        Wanted {
            keys: keys.into_iter().collect(),
            before,
        }
    }

    fn is_key(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
    }

    fn is(&self, offset: Offset, key: Option<&[u8]>) -> bool {
        offset < self.before && key.is_some_and(|key| self.is_key(key))
    }
}

/// What a segment has of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which segment.
    pub segment: SegmentId,
    /// From the first of the records to behind the last one; empty if only the summary tells of the keys.
    pub offsets: Range<Offset>,
    /// How many records.
    pub records: u64,
    /// Windows of its summary.
    pub windows: u64,
    /// Whether its summary cannot be read, so that it may tell of the keys.
    pub unreadable_summary: bool,
}

/// What is known of sealed segments: what they have, nothing for those that have nothing.
pub type Known = HashMap<SegmentId, Looked>;

/// Hears of what an erasure does, segment by segment. May block.
pub trait EraseWatch {
    /// A segment is about to be written again. Errors: it is not, and the erasure ends.
    fn begin(&mut self, found: &Found) -> Result<(), WatchFailed>;
    /// It was written again, or was gone when it was to be.
    fn end(&mut self, found: &Found, rewritten: Option<&Rewritten>);
}

/// Whoever watches cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct WatchFailed(pub String);

/// Why an erasure ended early. What it did until then stays done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EraseError {
    /// There is no such log, or not any more.
    #[error("the log was deleted")]
    NoLog,
    /// Some of the records are held.
    #[error("{} keeps what is to be erased", .0.name)]
    Held(Hold),
    /// Somebody ended it, or the store ends.
    #[error("it was stopped")]
    Cancelled,
    /// There is no space for what it has to write.
    #[error("the disk is full")]
    DiskFull,
    /// Some segments could not be read or written again; all the others were.
    #[error("{}", unreadable_text(.0))]
    Unreadable(Vec<(SegmentId, Arc<str>)>),
    /// Segments came and went too fast.
    #[error("the log's segments changed again and again")]
    Restless,
    /// Whoever watches could not go on.
    #[error(transparent)]
    Watch(#[from] WatchFailed),
    /// The store has failed.
    #[error(transparent)]
    Failed(#[from] StorageFailed),
}

fn unreadable_text(segments: &[(SegmentId, Arc<str>)]) -> String {
    let first = segments.first().map_or("", |(_, reason)| reason);
    match segments.len() {
        1 => first.to_owned(),
        count => format!("{count} segments could not be read; the first one: {first}"),
    }
}

/// What a look at a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// Records with one of the keys.
    pub records: u64,
    /// Where the first lies and behind the last.
    pub offsets: Option<Range<Offset>>,
    /// Segments that have something of the keys, one that is not sealed and the write-ahead log among them.
    pub segments: u64,
    /// All segments that were looked at, likewise.
    pub segments_read: u64,
    /// Windows of summaries.
    pub windows: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Batches whose records cannot be read.
    pub undecodable: Vec<Undecodable>,
    /// Segments that cannot be read, and why.
    pub unreadable: Vec<(SegmentId, Arc<str>)>,
    /// The first hold that forbids it.
    pub hold: Option<Hold>,
}

/// What an erasure did to a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Records that went.
    pub records: u64,
    /// Segments that were written again.
    pub segments: u64,
    /// Batches whose records cannot be read, in the segments that there are now.
    pub undecodable: Vec<Undecodable>,
}

impl Cleaner {
    /// Looks what a log has of the keys; nothing is changed. Of sealed segments it is noted in `known`. Blocks.
    pub(crate) fn look_for_keys(
        &self,
        log: &Log,
        wanted: &Wanted,
        known: &mut Known,
        progress: &Progress,
    ) -> Result<Sighting, EraseError> {
        let view = LogView::of(log.cell()).ok_or(EraseError::NoLog)?;
        let holds = self.holds.on(&view, self.wal.now(), false);
        progress.expect(view.bytes());
        let pace = RunPace::new(&self.executor.pace, progress, None);
        let mut looker = Looker::new(&self.executor.rewrites, log, wanted, &pace);
        looker.holds = &holds;
        looker.all(&view, known)
    }

    /// Erases from a log what it has of the keys, as far as it is sealed. Blocks; other cleanup of the store waits meanwhile.
    pub(crate) fn erase(
        &self,
        log: &Log,
        wanted: &Wanted,
        known: &mut Known,
        progress: &Progress,
        watch: &mut dyn EraseWatch,
    ) -> Result<Erased, EraseError> {
        let turn = self.turn(progress).map_err(|_| EraseError::Cancelled)?;
        let pace = RunPace::new(&self.executor.pace, progress, None);
        let mut eraser = Eraser {
            cleaner: self,
            log,
            wanted,
            pace: &pace,
            erased: Erased::default(),
            bad: Vec::new(),
        };
        progress.expect(LogView::of(log.cell()).map_or(0, |view| view.bytes()));
        let mut looks = 0;
        while eraser.pass(known, watch)? {
            looks += 1;
            if looks == LOOKS_MAX {
                return Err(EraseError::Restless);
            }
        }
        drop(turn);
        eraser.end(known)
    }
}

/// An erasure from one log as it goes.
struct Eraser<'e> {
    cleaner: &'e Cleaner,
    log: &'e Log,
    wanted: &'e Wanted,
    pace: &'e RunPace<'e>,
    erased: Erased,
    /// Segments that could not be done.
    bad: Vec<(SegmentId, Arc<str>)>,
}

impl Eraser<'_> {
    fn view(&self) -> Result<LogView, EraseError> {
        if let Some(failure) = self.cleaner.executor.pace.wal.gate.failure() {
            return Err(failure.clone().into());
        }
        let mut view = LogView::of(self.log.cell()).ok_or(EraseError::NoLog)?;
        let before = self.wanted.before;
        let is_meant = |one: &SegmentView| one.sealed && one.id.base < before;
        view.segments.retain(is_meant);
        Ok(view)
    }

    /// Looks at every segment once and writes those again that have something of the keys. True if something changed.
    fn pass(&mut self, known: &mut Known, watch: &mut dyn EraseWatch) -> Result<bool, EraseError> {
        let view = self.view()?;
        known.retain(|id, _| view.segments.iter().any(|one| one.id == *id));
        let mut is_changed = false;
        for segment in &view.segments {
            let id = segment.id;
            if self.bad.iter().any(|(bad, _)| *bad == id) {
                continue;
            }
            let parts = &self.cleaner.executor.rewrites;
            let mut looker = Looker::new(parts, self.log, self.wanted, self.pace);
            let found = match looker.sealed(id, known) {
                Ok(looked) => looked.found.clone(),
                Err(error) => {
                    is_changed |= self.failed(error, id)?;
                    continue;
                }
            };
            let Some(found) = found else { continue };
            watch.begin(&found)?;
            let done = self.rewrite(&found)?;
            watch.end(&found, done.as_ref());
            known.remove(&id);
            is_changed = true;
        }
        Ok(is_changed)
    }

    /// Writes a segment again without what is to be erased. None if it could not be, or is gone.
    fn rewrite(&mut self, found: &Found) -> Result<Option<Rewritten>, EraseError> {
        let cleaner = self.cleaner;
        // Whoever adds a hold waits for a rewrite that did not know of it.
        let _planning = cleaner.planning();
        let view = LogView::of(self.log.cell()).ok_or(EraseError::NoLog)?;
        let holds = cleaner.holds.on(&view, cleaner.wal.now(), false);
        let parts = &cleaner.executor.rewrites;
        let segment = found.segment;
        let summary = match look::summary_of(parts, self.log, segment) {
            Ok(summary) => summary,
            Err(source) => {
                self.failed(RewriteError::Io { segment, source }, segment)?;
                return Ok(None);
            }
        };
        let last = last_batches(self.log);
        let erased = (self.wanted, self.log.id(), segment);
        let mut keeper = EraseKeeper::new(erased, &holds, &last, parts, summary);
        let cell = self.log.cell();
        let done = rewrite(parts, cell, &[found.segment], None, self.pace, &mut keeper);
        match done {
            Ok(rewritten) => {
                self.erased.records += keeper.records;
                self.erased.segments += 1;
                tracing::info!(
                    log = %self.log.id(), segment = %found.segment, records = keeper.records,
                    bytes_before = rewritten.before.bytes, bytes_after = rewritten.after.bytes, "an erasure wrote a segment again"
                );
                Ok(Some(rewritten))
            }
            Err(_) if keeper.held.is_some() => {
                let hold = keeper.held.expect("just looked at");
                Err(EraseError::Held(hold))
            }
            Err(error) => {
                let error = match keeper.trouble.take() {
                    Some(source) => RewriteError::of_disk(segment, source, 0),
                    None => error,
                };
                self.failed(error, segment)?;
                Ok(None)
            }
        }
    }

    /// What a rewrite or a look that failed means. A segment that is to blame is left out; true if it is only gone.
    fn failed(&mut self, error: RewriteError, id: SegmentId) -> Result<bool, EraseError> {
        match error {
            RewriteError::NoLongerLive { .. } => Ok(true),
            RewriteError::Cancelled(_) => Err(EraseError::Cancelled),
            RewriteError::Deleted { .. } => Err(EraseError::NoLog),
            RewriteError::NoSpace { .. } => Err(EraseError::DiskFull),
            RewriteError::Stopped => Err(StorageFailed::new(error.to_string()).into()),
            RewriteError::Damaged { .. }
            | RewriteError::Io { .. }
            | RewriteError::TooLarge { .. }
            | RewriteError::Keep { .. } => {
                tracing::error!(log = %self.log.id(), segment = %id, %error, "an erasure cannot write a segment again: it goes on with the others");
                self.bad.push((id, error.to_string().into()));
                Ok(false)
            }
        }
    }

    fn end(mut self, known: &Known) -> Result<Erased, EraseError> {
        if !self.bad.is_empty() {
            return Err(EraseError::Unreadable(self.bad));
        }
        let mut undecodable: Vec<_> = known
            .values()
            .flat_map(|looked| looked.undecodable.iter().cloned())
            .collect();
        undecodable.sort_by_key(|one| one.base_offset);
        self.erased.undecodable = undecodable;
        Ok(self.erased)
    }
}

impl From<CleanupError> for EraseError {
    fn from(error: CleanupError) -> EraseError {
        match error {
            CleanupError::NoLog(_) => EraseError::NoLog,
            CleanupError::DiskFull => EraseError::DiskFull,
            CleanupError::Failed(failure) => EraseError::Failed(failure),
            CleanupError::Cancelled | CleanupError::NotOfOneLog(_) => EraseError::Cancelled,
            CleanupError::StartNotRaised(reason) => {
                EraseError::Failed(StorageFailed::new(reason.to_string()))
            }
        }
    }
}
