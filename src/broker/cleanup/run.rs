//! One job: the policy run over each of its partitions in order, and what came of it.
//!
//! Caller: the worker, on a thread that may block. Invariants: what fails is named and the others go on; a job
//! that is stopped ends before the next partition, or where the storage gives up the one that it was at.

use std::sync::Arc;

use model::{LogId, Offset, PartitionId};
use storage::Storage;
use storage::cleanup::Plan;
use storage::cleanup::run::{CleanupError as Fault, Report, RunOptions};

use super::jobs::{Control, Job, Request};

/// Partitions that a result names at most; what more changed or failed is in its sums.
const PARTITIONS_LISTED_MAX: usize = 1_000;
/// Segments that a result names at most.
const SEGMENTS_LISTED_MAX: usize = 1_000;

/// How much went, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Whole segments.
    pub segments: u64,
    /// Records, those of whole segments and others.
    pub records: u64,
    /// Bytes of batches.
    pub bytes: u64,
}

/// What a job did to one partition, or why it failed.
#[derive(Clone, Debug)]
pub struct PartitionRun {
    /// Which.
    pub partition: PartitionId,
    /// What was done.
    pub result: Result<Arc<Report>, Fault>,
    /// How many of the first segments of the report's plan are listed.
    pub listed: usize,
}

/// What a job did.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The partitions that it changed or failed at, in order.
    pub partitions: Vec<PartitionRun>,
    /// How many more of them there were.
    pub left_out: u64,
    /// How much went in all.
    pub removed: Removed,
    /// Bytes that were read in all.
    pub bytes_read: u64,
    /// Bytes that were written in all.
    pub bytes_written: u64,
    /// Partitions at which it failed, or a segment of which it had to set aside.
    pub failed: u64,
    /// Whether it was stopped before its end.
    pub is_cut_short: bool,
}

impl Removed {
    /// What a plan says of whole segments, of a partition that begins at `start`: what a rewrite drops is known when it has
    /// read them.
    pub fn planned(plan: &Plan, start: Offset) -> Removed {
        let mut removed = Removed::default();
        for (segment, _) in plan.removed() {
            let readable = segment.end_offset.get().saturating_sub(start.get());
            removed.segments += 1;
            removed.records += segment.records.min(readable);
            removed.bytes += segment.bytes;
        }
        removed
    }

    /// What a run did.
    pub fn done(report: &Report) -> Removed {
        Removed {
            segments: report.segments_removed,
            records: report.records_removed,
            bytes: report.bytes_removed,
        }
    }
}

impl std::ops::AddAssign for Removed {
    fn add_assign(&mut self, other: Removed) {
        self.segments += other.segments;
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

impl Outcome {
    /// Of a job that never ran.
    pub(super) fn cut_short() -> Outcome {
        Outcome {
            is_cut_short: true,
            ..Outcome::default()
        }
    }

    /// Of a job whose thread panicked: what it did until then is not known.
    pub(super) fn unknown(request: &Request) -> Outcome {
        Outcome {
            failed: request.partitions.len() as u64,
            left_out: request.partitions.len() as u64,
            ..Outcome::default()
        }
    }

    fn take(&mut self, partition: PartitionId, result: Result<Report, Fault>, room: &mut usize) {
        let mut listed = 0;
        match &result {
            Ok(report) => {
                self.removed += Removed::done(report);
                self.bytes_read += report.bytes_read;
                self.bytes_written += report.bytes_written;
                if report.plan.is_empty() && report.set_aside.is_empty() {
                    return;
                }
                self.failed += u64::from(!report.set_aside.is_empty());
                listed = report.plan.segments.len().min(*room);
                *room -= listed;
            }
            Err(_) => self.failed += 1,
        }
        if self.partitions.len() >= PARTITIONS_LISTED_MAX {
            self.left_out += 1;
            return;
        }
        self.partitions.push(PartitionRun {
            partition,
            result: result.map(|report| Arc::new(shortened(report, listed))),
            listed,
        });
    }
}

/// The report without the segments that are not listed: results are kept for long.
fn shortened(mut report: Report, listed: usize) -> Report {
    report.plan.segments.truncate(listed);
    report.plan.segments.shrink_to_fit();
    report
}

/// Runs a job to its end. Blocks.
pub(super) fn run(storage: &Storage, request: &Request, control: &Control) -> Outcome {
    let mut outcome = Outcome::default();
    let mut room = SEGMENTS_LISTED_MAX;
    let options = RunOptions {
        now: request.now,
        dry_run: request.dry_run,
        bytes_per_second: request.bytes_per_second,
    };
    for partition in &request.partitions {
        if control.progress.is_cancelled() {
            outcome.is_cut_short = true;
            break;
        }
        let log = LogId::new(request.topic_id, *partition);
        match storage.run_cleanup(log, request.policy, options, &control.progress) {
            Err(Fault::Cancelled) => {
                outcome.is_cut_short = true;
                break;
            }
            Ok(report) if report.is_cut_short => {
                outcome.take(*partition, Ok(report), &mut room);
                outcome.is_cut_short = true;
                break;
            }
            result => outcome.take(*partition, result, &mut room),
        }
        control.partition_done();
    }
    outcome
}

/// Logs how a job ended, and who asked for it, with the first failure; the result names the others.
pub(super) fn log(job: &Job) {
    let request = &job.request;
    let Some(outcome) = &job.outcome else {
        return;
    };
    let Removed {
        segments,
        records,
        bytes,
    } = outcome.removed;
    let failure = |run: &PartitionRun| match &run.result {
        Err(fault) => Some(fault.to_string()),
        Ok(report) => report.set_aside.first().map(|(_, error)| error.to_string()),
    };
    let error = outcome.partitions.iter().find_map(failure);
    tracing::info!(
        job = %job.id, policy = %request.policy, topic = %request.topic, state = job.state.name(),
        partitions = request.partitions.len(), now = request.now, dry_run = request.dry_run,
        asked_by = request.asked_by, segments, records, bytes, failed = outcome.failed, error,
        "a cleanup that was asked for has ended"
    );
}
