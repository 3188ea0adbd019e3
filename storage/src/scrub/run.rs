//! Runs the scrub over the store's logs: a thread of its own, or a test's calls.
//!
//! What is damaged is put on record to the offset, readers of it are told, and the rest of the segment stays readable. An
//! index that cannot be used is written again once its log was found sound. Segments that a reader had trouble with come
//! first. Nothing is deleted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::LogId;

use super::index::{Before, write_index};
use super::{Fault, Scrubber, Step, Target};
use crate::config::Live;
use crate::damage::{Damage, DamageRecord};
use crate::epochs::Epochs;
use crate::io::Clock;
use crate::metrics::Counters;
use crate::producers::Producers;
use crate::registry::Registry;
use crate::segment::{SegmentError, SegmentFiles, SegmentId, read_index_file};

/// A pass over all segments begins no sooner after the one before: a small store is not read all the time.
const PASS_INTERVAL: Duration = Duration::from_secs(3600);

/// What the scrub works with.
#[derive(Debug)]
pub(crate) struct ScrubParts {
    pub files: Arc<SegmentFiles>,
    pub registry: Arc<Registry>,
    pub damage: Arc<DamageRecord>,
    /// Gives the rate.
    pub live: Arc<Live>,
    pub counters: Arc<Counters>,
    pub clock: Arc<dyn Clock>,
}

/// The scrub's state between steps.
#[derive(Debug)]
pub(crate) struct Scrub {
    parts: Arc<ScrubParts>,
    scrubber: Scrubber,
    /// The logs of this pass, the next one last.
    pass: Vec<LogId>,
    /// The segment of the pass that was begun last.
    last: Option<(LogId, SegmentId)>,
    began: Option<Duration>,
    /// Why the index of the segment that is being verified is to be written again.
    index_unusable: Option<String>,
    is_sound: bool,
}

impl Scrub {
    pub fn new(parts: ScrubParts) -> Scrub {
        let rate = parts.live.get().scrub_bytes_per_second;
        Scrub {
            scrubber: Scrubber::new(parts.files.data.shared_disk(), rate),
            parts: Arc::new(parts),
            pass: Vec::new(),
            last: None,
            began: None,
            index_unusable: None,
            is_sound: true,
        }
    }

    /// One step. None if something was done, or else how long to wait.
    pub fn step(&mut self) -> Option<Duration> {
        let parts = Arc::clone(&self.parts);
        let now = parts.clock.monotonic();
        let rate = parts.live.get().scrub_bytes_per_second;
        if rate == 0 {
            return Some(Duration::from_secs(1));
        }
        self.scrubber.set_rate(rate);
        let may_begin = self
            .began
            .is_none_or(|began| now.saturating_sub(began) >= PASS_INTERVAL);
        if !self.scrubber.is_busy()
            && self.pass.is_empty()
            && !may_begin
            && parts.files.suspects.is_empty()
        {
            return Some(Duration::from_secs(1));
        }
        let (pass, last, began) = (&mut self.pass, &mut self.last, &mut self.began);
        let next = || {
            if let Some(suspect) = next_suspect(&parts) {
                return Some(suspect);
            }
            if pass.is_empty() && may_begin {
                *began = Some(now);
                *pass = parts.registry.all().iter().map(|log| log.id()).collect();
                pass.sort_by(|one, other| other.cmp(one));
            }
            let next = next_of_pass(&parts, pass, *last);
            *last = next.as_ref().map(|target| (target.log, target.id));
            next
        };
        match self.scrubber.step(now, next) {
            Step::Wait(wait) => return Some(wait),
            Step::Idle => return Some(Duration::from_secs(1)),
            Step::Verified { bytes } => {
                parts
                    .counters
                    .scrubbed_bytes
                    .fetch_add(bytes, Ordering::Relaxed);
            }
            Step::Found(fault) => {
                self.is_sound = false;
                found(&parts, fault);
            }
            Step::IndexUnusable { reason, .. } => self.index_unusable = Some(reason),
            Step::Finished(target) => self.finished(&target),
        }
        if !self.scrubber.is_busy() {
            (self.index_unusable, self.is_sound) = (None, true);
        }
        None
    }

    fn finished(&mut self, target: &Target) {
        let parts = Arc::clone(&self.parts);
        parts
            .counters
            .scrubbed_segments
            .fetch_add(1, Ordering::Relaxed);
        let Some(reason) = self.index_unusable.take().filter(|_| self.is_sound) else {
            return;
        };
        match rewrite_index(&parts, target) {
            Ok(true) => {
                tracing::warn!(log = %target.log, segment = %target.id, reason, "an index was unusable and is written again");
                parts
                    .counters
                    .rewritten_indexes
                    .fetch_add(1, Ordering::Relaxed);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(log = %target.log, segment = %target.id, %error, "an unusable index could not be written again");
            }
        }
    }
}

fn next_suspect(parts: &ScrubParts) -> Option<Target> {
    std::iter::from_fn(|| parts.files.suspects.take())
        .find_map(|(log, id)| target_of(parts, log, |known| known == id))
}

/// The segment that follows `done` in this pass.
fn next_of_pass(
    parts: &ScrubParts,
    pass: &mut Vec<LogId>,
    done: Option<(LogId, SegmentId)>,
) -> Option<Target> {
    while let Some(log) = pass.last().copied() {
        let after = done.filter(|(of, _)| *of == log).map(|(_, id)| id);
        let is_next = |id| after.is_none_or(|after| id > after);
        if let Some(target) = target_of(parts, log, is_next) {
            return Some(target);
        }
        pass.pop();
    }
    None
}

/// The first sealed segment of a log that is wanted and still kept.
fn target_of(
    parts: &ScrubParts,
    log: LogId,
    is_wanted: impl Fn(SegmentId) -> bool,
) -> Option<Target> {
    let found = parts.registry.get(log)?;
    let state = found.cell().locked();
    let start = state.bounds.start;
    let (entry, sealed) = state
        .segments
        .manifest
        .iter()
        .flat_map(|manifest| manifest.sealed())
        .find(|(entry, sealed)| sealed.end_offset > start && is_wanted(entry.id))?;
    Some(Target {
        log,
        directory: parts.files.data.of_log(log),
        id: entry.id,
        kind: entry.kind,
        bytes: sealed.bytes,
        end_offset: sealed.end_offset,
        is_read: parts.files.cache.is_open(log, entry.id),
    })
}

/// Puts a fault on record, unless the segment went away meanwhile or it is known.
fn found(parts: &ScrubParts, fault: Fault) {
    let Some(log) = parts.registry.get(fault.log) else {
        return;
    };
    let range = fault.from..fault.to;
    {
        let mut state = log.cell().locked();
        let manifest = state.segments.manifest.clone();
        let is_there = manifest
            .iter()
            .flat_map(|manifest| manifest.sealed())
            .any(|(entry, _)| entry.id == fault.id);
        if !is_there || state.deleted || range.end <= state.bounds.start {
            return;
        }
        if !state.mark_damaged(range.clone()) {
            return;
        }
    }
    let known = parts.damage.note(Damage {
        log: Some(fault.log),
        range,
        reason: format!(
            "segment {}, position {}: {}",
            fault.id, fault.position, fault.reason
        ),
    });
    if !known {
        parts.counters.scrub_faults.fetch_add(1, Ordering::Relaxed);
    }
}

/// Builds the index of a sound segment again and puts it in place of the old one. False if the segment went away.
fn rewrite_index(parts: &ScrubParts, target: &Target) -> Result<bool, SegmentError> {
    let disk = parts.files.data.disk();
    let Some(before) = contents_before(parts, target) else {
        return Ok(false);
    };
    if !write_index(disk, target, before)? {
        return Ok(false);
    }
    parts.files.cache.forget(target.log, target.id);
    if target_of(parts, target.log, |id| id == target.id).is_none() {
        // It was removed while its index was being written.
        let removed = disk.remove_file(&target.id.index_path(&target.directory));
        removed.map_err(|source| SegmentError::Io {
            segment: target.id,
            source,
        })?;
        return Ok(false);
    }
    Ok(true)
}

/// What the index of the segment before says of producers and epochs, and when the segment's last batch was appended.
/// None if the segment went away.
fn contents_before(parts: &ScrubParts, target: &Target) -> Option<Before> {
    let log = parts.registry.get(target.log)?;
    let manifest = log.cell().locked().segments.manifest.clone()?;
    let mut before: Option<(SegmentId, u64)> = None;
    for (entry, sealed) in manifest.sealed() {
        if entry.id != target.id {
            before = Some((entry.id, sealed.bytes));
            continue;
        }
        let found = before.and_then(|(id, bytes)| {
            let disk = parts.files.data.disk();
            let read = read_index_file(disk, &target.directory, target.log, id, bytes);
            read.ok()?.ok()
        });
        let (producers, epochs) = found.map_or_else(
            || (Producers::default(), Epochs::default()),
            |found| (found.producers, found.epochs),
        );
        return Some(Before {
            producers,
            epochs,
            append_time: sealed.last_append_time,
        });
    }
    None
}
