//! The background scrub: reads sealed segments at a set rate and reports what is not as it was written.
//!
//! Callers: `run`, the store's thread, calls [`Scrubber::step`] and sleeps as told; it gives the targets, marks what is
//! damaged, and has indexes written again. Pure but for the reads: the time comes in, and nothing is changed here.
//! The pages of a segment that nobody reads are dropped before and after, so that the disk is verified and not the cache,
//! and the cache is left to readers.
//! Invariant: over any second it reads no more than the rate, but for one batch that is larger.

pub(crate) mod index;
pub(crate) mod run;
mod suspects;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{LogId, Offset};

use crate::io::{Ahead, Disk, DiskFile, OpenHow};
use crate::manifest::SegmentKind;
use crate::segment::verify::SegmentVerifier;
use crate::segment::{SegmentError, SegmentId, SegmentIndex, is_shortage, read_index_file};

pub(crate) use self::suspects::Suspects;

/// A sealed segment to verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whose.
    pub log: LogId,
    /// Where its files are.
    pub directory: PathBuf,
    /// Which file.
    pub id: SegmentId,
    /// Whether its offsets have gaps.
    pub kind: SegmentKind,
    /// Its length.
    pub bytes: u64,
    /// The offset after its last record.
    pub end_offset: Offset,
    /// Whether readers have it open: then its pages stay in memory.
    pub is_read: bool,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whose.
    pub log: LogId,
    /// Which segment.
    pub id: SegmentId,
    /// Where in its file.
    pub position: u64,
    /// The first offset that is affected.
    pub from: Offset,
    /// The offset after the last one that is affected.
    pub to: Offset,
    /// What was found.
    pub reason: String,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The rate is used up: come again after this time.
    Wait(Duration),
    /// Some bytes were verified.
    Verified {
        /// How many.
        bytes: u64,
    },
    /// A segment is verified to its end.
    Finished(Target),
    /// Something is wrong. The scrub goes on behind it as far as it can.
    Found(Fault),
    /// The index file is missing or damaged; it can be built again. The log file is verified without it.
    IndexUnusable {
        /// Of which segment.
        target: Target,
        /// Why.
        reason: String,
    },
    /// There is nothing to verify.
    Idle,
}

/// The disk reads so much at a time, and as much ahead: whoever else waits for it waits for little.
const PIECE_BYTES: u64 = 256 << 10;

/// Goes through sealed segments.
#[derive(Debug)]
pub struct Scrubber {
    disk: Arc<dyn Disk>,
    bytes_per_second: u64,
    /// Bytes that may be read now; below zero after a batch that was larger.
    budget: i128,
    last: Option<Duration>,
    job: Option<Job>,
}

#[derive(Debug)]
struct Job {
    target: Target,
    file: Arc<dyn DiskFile>,
    index: Option<SegmentIndex>,
    verifier: SegmentVerifier,
    ahead: Ahead,
}

impl Job {
    /// Has the disk read a piece at a time before it is verified batch by batch: see [`DiskFile::read_no_further`].
    fn read_ahead(&mut self) {
        let position = self.verifier.position();
        let end = (position / PIECE_BYTES + 2) * PIECE_BYTES;
        self.ahead.tell(&*self.file, position..end);
    }

    /// Leaves the cache to what readers use.
    fn leave(&self) {
        if !self.target.is_read
            && let Err(error) = self.file.drop_cache()
        {
            tracing::warn!(log = %self.target.log, segment = %self.target.id, %error, "pages could not be dropped");
        }
    }
}

impl Scrubber {
    /// A scrub that reads at most this much in a second.
    pub fn new(disk: Arc<dyn Disk>, bytes_per_second: u64) -> Scrubber {
        Scrubber {
            disk,
            bytes_per_second,
            budget: 0,
            last: None,
            job: None,
        }
    }

    /// Changes the rate.
    pub fn set_rate(&mut self, bytes_per_second: u64) {
        self.bytes_per_second = bytes_per_second;
    }

    /// Whether it is in the middle of a segment.
    pub fn is_busy(&self) -> bool {
        self.job.is_some()
    }

    /// Verifies a batch or opens the segment that `next` gives. `now` never goes back.
    pub fn step(&mut self, now: Duration, next: impl FnOnce() -> Option<Target>) -> Step {
        if let Some(wait) = self.wait(now) {
            return Step::Wait(wait);
        }
        let Some(mut job) = self.job.take() else {
            return self.begin(next());
        };
        let before = job.verifier.position();
        let from = job.verifier.next_offset();
        job.read_ahead();
        match job.verifier.next_batch(&*job.file, job.index.as_ref()) {
            Ok(Some(verified)) => {
                let bytes = job.verifier.position() - before;
                self.budget -= i128::from(bytes);
                let fault = verified
                    .fault
                    .map(|reason| fault(&job.target, before, verified.offsets, reason));
                self.job = Some(job);
                fault.map_or(Step::Verified { bytes }, Step::Found)
            }
            Ok(None) => self.finish(job),
            Err(SegmentError::Io { source, .. }) if is_shortage(&source) => {
                // Of descriptors or memory: that says nothing about the segment.
                self.job = Some(job);
                Step::Wait(Duration::from_secs(1))
            }
            Err(error) => {
                let (position, reason) = match error {
                    SegmentError::Damaged {
                        position, reason, ..
                    } => (position, reason),
                    SegmentError::Io { source, .. } => (before, source.to_string()),
                    error @ SegmentError::Foreign { .. } => (0, error.to_string()),
                };
                let index = job.index.as_ref();
                let resumed = index.is_some_and(|index| job.verifier.resume_behind(index));
                let to = if resumed {
                    job.verifier.next_offset()
                } else {
                    job.target.end_offset
                };
                let found = fault(&job.target, position, from..to, reason);
                if resumed {
                    self.job = Some(job);
                } else {
                    job.leave();
                }
                Step::Found(found)
            }
        }
    }

    fn wait(&mut self, now: Duration) -> Option<Duration> {
        let since = now.saturating_sub(self.last.unwrap_or(now));
        let rate = i128::from(self.bytes_per_second);
        let earned = i128::try_from(since.as_nanos())
            .unwrap_or(i128::MAX)
            .saturating_mul(rate)
            / 1_000_000_000;
        if earned > 0 || self.last.is_none() {
            self.last = Some(now);
        }
        self.budget = self.budget.saturating_add(earned).min(rate);
        (self.budget <= 0).then_some(Duration::from_millis(100))
    }

    fn begin(&mut self, target: Option<Target>) -> Step {
        let Some(target) = target else {
            return Step::Idle;
        };
        let whole = target.id.base..target.end_offset;
        let opened = self
            .disk
            .open(&target.id.log_path(&target.directory), OpenHow::Read);
        let (file, len) = match opened.and_then(|file| Ok((Arc::clone(&file), file.len()?))) {
            Ok(opened) => opened,
            Err(error) if is_shortage(&error) => return Step::Wait(Duration::from_secs(1)),
            Err(error) => return Step::Found(fault(&target, 0, whole, error.to_string())),
        };
        if len != target.bytes {
            let reason = format!(
                "the file has {len} bytes, it was sealed with {}",
                target.bytes
            );
            return Step::Found(fault(&target, len.min(target.bytes), whole, reason));
        }
        if !target.is_read
            && let Err(error) = file.drop_cache()
        {
            return Step::Found(fault(&target, 0, whole, error.to_string()));
        }
        file.read_no_further();
        let verifier =
            SegmentVerifier::new(target.id, target.kind, target.bytes, target.end_offset);
        let read = read_index_file(
            &*self.disk,
            &target.directory,
            target.log,
            target.id,
            target.bytes,
        );
        let index = match read {
            Ok(Ok(found)) => Ok(found.index),
            Ok(Err(reason)) => Err(reason),
            Err(error) => Err(error.to_string()),
        };
        let (index, unusable) = match index {
            Ok(index) => (Some(index), None),
            Err(reason) => (
                None,
                Some(Step::IndexUnusable {
                    target: target.clone(),
                    reason,
                }),
            ),
        };
        self.job = Some(Job {
            target,
            file,
            index,
            verifier,
            ahead: Ahead::default(),
        });
        unusable.unwrap_or(Step::Verified { bytes: 0 })
    }

    fn finish(&mut self, job: Job) -> Step {
        job.leave();
        let (found, expected) = (job.verifier.next_offset(), job.target.end_offset);
        if found == expected {
            return Step::Finished(job.target);
        }
        let reason = format!("the batches end at offset {found}, expected {expected}");
        Step::Found(fault(
            &job.target,
            job.target.bytes,
            found.min(expected)..expected,
            reason,
        ))
    }
}

fn fault(
    target: &Target,
    position: u64,
    offsets: std::ops::Range<Offset>,
    reason: String,
) -> Fault {
    // Whatever is wrong in a segment, it says nothing about offsets outside it.
    let within = |offset: Offset| offset.clamp(target.id.base, target.end_offset);
    Fault {
        log: target.log,
        id: target.id,
        position,
        from: within(offsets.start),
        to: within(offsets.end),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::SimDisk;
    use crate::sample_tests;
    use crate::segment::WriteWay;
    use model::codec::Codec;

    fn sealed() -> (SimDisk, Target) {
        let disk = SimDisk::new(1);
        let directory = PathBuf::from("/data");
        let batch =
            |base: u8| sample_tests::batch(base.into(), Codec::None, &[[base; 900].as_slice()]);
        let batches = (0..20).map(batch);
        let (id, sealed) = sample_tests::seal(&disk, &directory, batches, WriteWay::Buffered);
        let target = Target {
            log: sample_tests::log(),
            directory,
            id,
            kind: SegmentKind::Plain,
            bytes: sealed.bytes,
            end_offset: sealed.end_offset,
            is_read: false,
        };
        (disk, target)
    }

    /// Steps, a millisecond each, until the target is through; gives all but the verified bytes, and the time it took.
    fn run(disk: &SimDisk, target: &Target, rate: u64) -> (Vec<Step>, Duration) {
        let mut scrubber = Scrubber::new(Arc::new(disk.clone()), rate);
        let mut todo = Some(target.clone());
        let mut now = Duration::ZERO;
        let mut steps = Vec::new();
        loop {
            match scrubber.step(now, || todo.take()) {
                Step::Idle => return (steps, now),
                Step::Wait(wait) => now += wait,
                Step::Verified { .. } => {}
                other => steps.push(other),
            }
            now += Duration::from_millis(1);
        }
    }

    #[test]
    fn a_sound_segment_is_finished_at_the_rate() {
        let (disk, target) = sealed();
        let (steps, took) = run(&disk, &target, target.bytes / 4);
        assert_eq!(steps, [Step::Finished(target)]);
        assert!(
            (Duration::from_secs(3)..Duration::from_secs(6)).contains(&took),
            "{took:?}"
        );
    }

    #[test]
    fn a_flipped_bit_is_found_with_its_offset_and_the_rest_is_still_verified() {
        let (disk, target) = sealed();
        let batch_bytes = target.bytes / 20;
        disk.flip(
            &target.id.log_path(&target.directory),
            batch_bytes * 3 + 500,
            4,
        );
        let (steps, _) = run(&disk, &target, 1 << 30);
        assert!(
            matches!(&steps[..], [Step::Found(fault), Step::Finished(_)]
                if fault.from == Offset::new(3) && fault.to == Offset::new(4) && fault.position == batch_bytes * 3),
            "{steps:?}"
        );
    }

    #[test]
    fn a_missing_index_and_an_unreadable_file_are_told_apart() {
        let (disk, target) = sealed();
        disk.remove_file(&target.id.index_path(&target.directory))
            .unwrap();
        let (steps, _) = run(&disk, &target, 1 << 30);
        assert!(
            matches!(&steps[..], [Step::IndexUnusable { .. }, Step::Finished(_)]),
            "{steps:?}"
        );
        disk.set_unreadable(&target.id.log_path(&target.directory), 0..u64::MAX);
        let (steps, _) = run(&disk, &target, 1 << 30);
        assert!(
            matches!(&steps[..], [Step::IndexUnusable { .. }, Step::Found(fault)] if fault.to == target.end_offset),
            "{steps:?}"
        );
    }
}
