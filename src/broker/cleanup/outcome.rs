//! What came of a job.
//! Callers: `run`, which makes it; `jobs`, which keeps it; fronts, which show it.

use std::sync::Arc;

use model::{Offset, PartitionId};
use storage::cleanup::Plan;
use storage::cleanup::run::{CleanupError as Fault, Report};

/// Partitions that a result names at most; what more changed or failed is in its sums.
const PARTITIONS_LISTED_MAX: usize = 1_000;
/// Segments that a result names at most.
pub(super) const SEGMENTS_LISTED_MAX: usize = 1_000;

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

    /// Of a job over so many partitions whose thread panicked: what it did until then is not known.
    pub(super) fn unknown(partitions: u64) -> Outcome {
        Outcome {
            failed: partitions,
            left_out: partitions,
            ..Outcome::default()
        }
    }

    pub(super) fn take(
        &mut self,
        partition: PartitionId,
        result: Result<Report, Fault>,
        room: &mut usize,
    ) {
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
