//! What plans and jobs look like in JSON. Names in it stay.
//!
//! Callers: the routes of cleanup.

use std::sync::Arc;

use axum::Json;
use model::Timestamp;
use serde_json::{Value, json};

use crate::broker::cleanup::{
    Fault, Job, Outcome, PartitionPlan, PartitionRun, Plan, Policy, Removed, Report, SegmentId,
    SegmentPlan, TopicPlan,
};
use crate::front::http::errors::cleanup_code;

/// The policies by the names of their commands.
pub(super) const POLICIES: &[(&str, Policy)] = &[
    ("retention", Policy::Retention),
    ("compact", Policy::Compaction),
    ("thin", Policy::Thin),
];

fn policy_name(policy: Policy) -> &'static str {
    let found = POLICIES.iter().find(|(_, known)| *known == policy);
    found.map_or(policy.name(), |(name, _)| name)
}

/// What would be done to a topic.
pub(super) fn of_plan(plan: &TopicPlan) -> Value {
    let mut removes = Removed::default();
    for one in &plan.partitions {
        removes += Removed::planned(&one.plan, one.bounds.start);
    }
    let parts = plan.partitions.iter();
    let left_out: usize = parts.map(|one| one.plan.segments.len() - one.listed).sum();
    json!({
        "policy": policy_name(plan.policy), "topic": plan.topic.as_str(), "removes": of_removed(&removes),
        "segments_left_out": left_out,
        "partitions": plan.partitions.iter().map(of_partition).collect::<Vec<_>>(),
    })
}

fn of_removed(removed: &Removed) -> Value {
    json!({ "segments": removed.segments, "records": removed.records, "bytes": removed.bytes })
}

fn of_partition(one: &PartitionPlan) -> Value {
    let bounds = &one.bounds;
    let settled: u64 = one.plan.segments.iter().map(|one| one.segment.bytes).sum();
    let start_after = one.plan.raise_start_to.unwrap_or(bounds.start);
    json!({
        "partition": one.partition.get(), "start_offset": bounds.start.get(), "end_offset": bounds.durable_end.get(),
        "start_offset_after": start_after.get(), "bytes": one.bytes,
        "wal_bytes": one.bytes.saturating_sub(settled), "rolls_active": one.plan.rolls_active,
        "removes": of_removed(&Removed::planned(&one.plan, bounds.start)), "segments": of_segments(&one.plan, one.listed),
    })
}

fn of_segments(plan: &Plan, listed: usize) -> Vec<Value> {
    plan.segments.iter().take(listed).map(of_segment).collect()
}

fn of_segment(one: &SegmentPlan) -> Value {
    let segment = &one.segment;
    json!({
        "base_offset": segment.id.base.get(), "end_offset": segment.end_offset.get(), "sealed": segment.sealed,
        "records": segment.records, "bytes": segment.bytes, "last_append_ms": segment.last_append_time.millis(),
        "outcome": one.outcome.name(), "rule": one.outcome.rule(), "why": one.outcome.to_string(),
    })
}

pub(super) fn of_jobs(jobs: &[Job]) -> Json<Value> {
    let jobs: Vec<Value> = jobs.iter().map(head_of).collect();
    Json(json!({ "jobs": jobs }))
}

pub(super) fn of_job(job: &Job) -> Json<Value> {
    let mut value = head_of(job);
    value["result"] = job.outcome.as_deref().map(of_outcome).into();
    Json(value)
}

/// What is told of a job in a list of them.
fn head_of(job: &Job) -> Value {
    let request = &job.request;
    let partition = request.partitions.first().filter(|_| !request.whole_topic);
    let millis = |time: Option<Timestamp>| time.map(Timestamp::millis);
    let progress = &job.control.progress;
    json!({
        "id": job.id.to_string(), "state": job.state.name(), "policy": policy_name(request.policy),
        "topic": request.topic.as_str(), "partition": partition.map(|partition| partition.get()),
        "now": request.now, "dry_run": request.dry_run, "bytes_per_second": request.bytes_per_second, "asked_by": request.asked_by,
        "asked_ms": job.asked_at.millis(), "started_ms": millis(job.started_at), "ended_ms": millis(job.ended_at),
        "progress": {
            "partitions": request.partitions.len(), "partitions_done": job.control.partitions_done(),
            "bytes": progress.bytes_total(), "bytes_done": progress.bytes_done(), "pass": progress.pass(),
        },
    })
}

fn of_outcome(outcome: &Outcome) -> Value {
    json!({
        "removed": of_removed(&outcome.removed), "bytes_read": outcome.bytes_read,
        "bytes_written": outcome.bytes_written, "partitions_failed": outcome.failed,
        "partitions_left_out": outcome.left_out,
        "partitions": outcome.partitions.iter().map(of_run).collect::<Vec<_>>(),
    })
}

fn of_run(run: &PartitionRun) -> Value {
    let partition = run.partition.get();
    match &run.result {
        Ok(report) => json!({
            "partition": partition, "start_offset": report.start_before.get(),
            "start_offset_after": report.start_after.get(), "removed": of_removed(&Removed::done(report)),
            "segments_rewritten": rewritten(report), "passes": report.passes,
            "rolls_active": report.plan.rolls_active,
            "tombstones_removed": report.tombstones_removed, "unreadable_batches": report.unreadable_batches,
            "segments": of_segments(&report.plan, run.listed), "error": null,
            "set_aside": report.set_aside.iter().map(of_set_aside).collect::<Vec<_>>(),
        }),
        Err(fault) => json!({ "partition": partition, "error": of_fault(fault) }),
    }
}

/// Segments that others took the place of, or would.
fn rewritten(report: &Report) -> usize {
    report
        .rewrites
        .iter()
        .map(|rewrite| rewrite.old.len())
        .sum()
}

/// A segment that could not be cleaned up.
fn of_set_aside((segment, error): &(SegmentId, Arc<str>)) -> Value {
    json!({ "base_offset": segment.base.get(), "detail": &**error })
}

fn of_fault(fault: &Fault) -> Value {
    json!({ "code": cleanup_code(fault), "detail": fault.to_string() })
}
