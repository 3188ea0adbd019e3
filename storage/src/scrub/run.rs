//! Runs the scrub over the store's logs: a thread of its own, or a test's calls.
//!
//! What is damaged is put on record to the offset, readers of it are told, and the rest of the segment stays readable. An
//! index that cannot be used is written again once its log was found sound. Segments that a reader had trouble with come
//! first. Nothing is deleted.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::LogId;

use super::{Fault, Scrubber, Step, Target};
use crate::damage::Damage;
use crate::epochs::Epochs;
use crate::io::{OpenHow, write_new_file};
use crate::producers::Producers;
use crate::recovery::newer::newer_index;
use crate::segment::{
    BLOCK_BYTES, HeaderWalk, IndexFile, SegmentError, SegmentId, SegmentIndex, read_index_file,
};
use crate::storage::Shared;

/// A pass over all segments begins no sooner after the one before: a small store is not read all the time.
const PASS_INTERVAL: Duration = Duration::from_secs(3600);
/// More segments than this are not waited for by name: the pass comes to them.
const SUSPECTS_MAX: usize = 1024;

/// Segments that a reader had trouble with.
#[derive(Debug, Default)]
pub(crate) struct Suspects(Mutex<VecDeque<(LogId, SegmentId)>>);

impl Suspects {
    /// Has a segment verified soon.
    pub fn add(&self, log: LogId, id: SegmentId) {
        let mut suspects = self.locked();
        if suspects.len() < SUSPECTS_MAX && !suspects.contains(&(log, id)) {
            suspects.push_back((log, id));
        }
    }

    fn take(&self) -> Option<(LogId, SegmentId)> {
        self.locked().pop_front()
    }

    fn is_empty(&self) -> bool {
        self.locked().is_empty()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, VecDeque<(LogId, SegmentId)>> {
        self.0
            .lock()
            .expect("nothing panics while it holds the suspects")
    }
}

/// The scrub's state between steps.
#[derive(Debug)]
pub(crate) struct Scrub {
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
    pub fn new(shared: &Shared) -> Scrub {
        let disk = Arc::clone(&shared.disk);
        Scrub {
            scrubber: Scrubber::new(disk, shared.live().scrub_bytes_per_second),
            pass: Vec::new(),
            last: None,
            began: None,
            index_unusable: None,
            is_sound: true,
        }
    }

    /// One step. None if something was done, or else how long to wait.
    pub fn step(&mut self, shared: &Shared) -> Option<Duration> {
        let now = shared.clock.monotonic();
        let rate = shared.live().scrub_bytes_per_second;
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
            && shared.suspects.is_empty()
        {
            return Some(Duration::from_secs(1));
        }
        let (pass, last, began) = (&mut self.pass, &mut self.last, &mut self.began);
        let next = || {
            if let Some(suspect) = next_suspect(shared) {
                return Some(suspect);
            }
            if pass.is_empty() && may_begin {
                *began = Some(now);
                *pass = shared.all_logs().iter().map(|log| log.id()).collect();
                pass.sort_by(|one, other| other.cmp(one));
            }
            let next = next_of_pass(shared, pass, *last);
            *last = next.as_ref().map(|target| (target.log, target.id));
            next
        };
        match self.scrubber.step(now, next) {
            Step::Wait(wait) => return Some(wait),
            Step::Idle => return Some(Duration::from_secs(1)),
            Step::Verified { bytes } => {
                shared
                    .counters
                    .scrubbed_bytes
                    .fetch_add(bytes, Ordering::Relaxed);
            }
            Step::Found(fault) => {
                self.is_sound = false;
                found(shared, fault);
            }
            Step::IndexUnusable { reason, .. } => self.index_unusable = Some(reason),
            Step::Finished(target) => self.finished(shared, &target),
        }
        if !self.scrubber.is_busy() {
            (self.index_unusable, self.is_sound) = (None, true);
        }
        None
    }

    fn finished(&mut self, shared: &Shared, target: &Target) {
        shared
            .counters
            .scrubbed_segments
            .fetch_add(1, Ordering::Relaxed);
        let Some(reason) = self.index_unusable.take().filter(|_| self.is_sound) else {
            return;
        };
        match rewrite_index(shared, target) {
            Ok(true) => {
                tracing::warn!(log = %target.log, segment = %target.id, reason, "an index was unusable and is written again");
                shared
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

/// The scrub's thread.
pub(crate) fn run(shared: &Shared) {
    let mut scrub = Scrub::new(shared);
    loop {
        let wait = scrub.step(shared).unwrap_or(Duration::ZERO);
        if !shared.pause(wait) {
            return;
        }
    }
}

fn next_suspect(shared: &Shared) -> Option<Target> {
    std::iter::from_fn(|| shared.suspects.take())
        .find_map(|(log, id)| target_of(shared, log, |known| known == id))
}

/// The segment that follows `done` in this pass.
fn next_of_pass(
    shared: &Shared,
    pass: &mut Vec<LogId>,
    done: Option<(LogId, SegmentId)>,
) -> Option<Target> {
    while let Some(log) = pass.last().copied() {
        let after = done.filter(|(of, _)| *of == log).map(|(_, id)| id);
        let is_next = |id| after.is_none_or(|after| id > after);
        if let Some(target) = target_of(shared, log, is_next) {
            return Some(target);
        }
        pass.pop();
    }
    None
}

/// The first sealed segment of a log that is wanted and still kept.
fn target_of(shared: &Shared, log: LogId, is_wanted: impl Fn(SegmentId) -> bool) -> Option<Target> {
    let found = shared.log(log)?;
    let state = found.locked();
    let start = state.bounds.start;
    let (id, sealed) = state
        .segments
        .manifest
        .iter()
        .flat_map(|manifest| manifest.sealed())
        .find(|(id, sealed)| sealed.end_offset > start && is_wanted(*id))?;
    Some(Target {
        log,
        directory: shared.log_directory(log),
        id,
        bytes: sealed.bytes,
        end_offset: sealed.end_offset,
        is_read: shared.segments.is_open(log, id),
    })
}

/// Puts a fault on record, unless the segment went away meanwhile or it is known.
fn found(shared: &Shared, fault: Fault) {
    let Some(log) = shared.log(fault.log) else {
        return;
    };
    let range = fault.from..fault.to;
    {
        let mut state = log.locked();
        let manifest = state.segments.manifest.clone();
        let is_there = manifest
            .iter()
            .flat_map(|manifest| manifest.sealed())
            .any(|(id, _)| id == fault.id);
        if !is_there || state.deleted || range.end <= state.bounds.start {
            return;
        }
        if !state.mark_damaged(range.clone()) {
            return;
        }
    }
    let known = shared.note_damage(Damage {
        log: Some(fault.log),
        range,
        reason: format!(
            "segment {}, position {}: {}",
            fault.id, fault.position, fault.reason
        ),
    });
    if !known {
        shared.counters.scrub_faults.fetch_add(1, Ordering::Relaxed);
    }
}

/// Builds the index of a sound segment again and puts it in place of the old one. False if the segment went away.
fn rewrite_index(shared: &Shared, target: &Target) -> Result<bool, SegmentError> {
    let disk = shared.disk.as_ref();
    let io = |source| SegmentError::Io {
        segment: target.id,
        source,
    };
    let Some(before) = contents_before(shared, target) else {
        return Ok(false);
    };
    let file = disk
        .open(&target.id.log_path(&target.directory), OpenHow::Read)
        .map_err(io)?;
    let append_time = before.append_time;
    let index = SegmentIndex::rebuild(&*file, target.id, target.bytes, append_time)?;
    let (mut producers, mut epochs) = (before.producers, before.epochs);
    let mut walk = HeaderWalk::new(
        &*file,
        target.id,
        0..target.bytes,
        target.id.base,
        BLOCK_BYTES as usize,
    );
    while let Some(walked) = walk.next_batch()? {
        producers.record(&walked.header, walked.header.base(), append_time);
        if let Some(epoch) = walked.header.epoch() {
            epochs.begin(epoch, walked.header.base());
        }
    }
    let contents = IndexFile {
        log: target.log,
        index,
        producers,
        epochs,
    }
    .encode();
    let path = target.id.index_path(&target.directory);
    if let Some(version) = newer_index(disk, &path) {
        tracing::warn!(path = %path.display(), version, "a later release wrote this index: it is left as it is, and not used");
        return Ok(false);
    }
    let fresh = path.with_extension("idx.new");
    if disk.exists(&fresh).map_err(io)? {
        disk.remove_file(&fresh).map_err(io)?;
    }
    write_new_file(disk, &fresh, &contents).map_err(io)?;
    disk.rename(&fresh, &path).map_err(io)?;
    disk.sync_dir(&target.directory).map_err(io)?;
    shared.segments.forget(target.log, target.id);
    if target_of(shared, target.log, |id| id == target.id).is_none() {
        // It was removed while its index was being written.
        disk.remove_file(&path).map_err(io)?;
        return Ok(false);
    }
    Ok(true)
}

struct Before {
    producers: Producers,
    epochs: Epochs,
    append_time: model::Timestamp,
}

/// What the index of the segment before says of producers and epochs, and when the segment's last batch was appended.
/// None if the segment went away.
fn contents_before(shared: &Shared, target: &Target) -> Option<Before> {
    let log = shared.log(target.log)?;
    let manifest = log.locked().segments.manifest.clone()?;
    let mut before: Option<(SegmentId, u64)> = None;
    for (id, sealed) in manifest.sealed() {
        if id != target.id {
            before = Some((id, sealed.bytes));
            continue;
        }
        let found = before.and_then(|(id, bytes)| {
            let disk = shared.disk.as_ref();
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
