//! Goes over a log: looks at every segment, and has those written again that have something of the keys.
//!
//! Caller: the engine, through the cleaner.

use std::sync::Arc;

use super::keeper::EraseKeeper;
use super::look::{Looker, summary_of};
use super::{EraseError, EraseWatch, Erased, Found, Known, Sighting, Wanted};
use crate::cleanup::cleaner::Cleaner;
use crate::cleanup::execute::last_batches;
use crate::cleanup::pace::RunPace;
use crate::cleanup::run::Progress;
use crate::cleanup::{LogView, SegmentView};
use crate::error::StorageFailed;
use crate::log::Log;
use crate::rewrite::{RewriteError, Rewritten, rewrite};
use crate::segment::SegmentId;

/// Segments of a log may go away under an erasure; it looks again so often at most.
const LOOKS_MAX: u32 = 100;

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
        let summary = match summary_of(parts, self.log, segment) {
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
