//! One job: the policy run over each of its partitions in order, and what came of it.
//!
//! Caller: the worker, on a thread that may block. Invariants: what fails is named and the others go on; a job
//! that is stopped ends before the next partition, or where the storage gives up the one that it was at.

use model::LogId;
use storage::Storage;
use storage::cleanup::run::{CleanupError as Fault, RunOptions};

use super::jobs::{Control, Job, Request};
use super::outcome::{Outcome, PartitionRun, Removed, SEGMENTS_LISTED_MAX};

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
