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
use crate::front::http::schema::{Schema, boolean, integer, integer_from, list, object, text};

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

fn removed_schema() -> Schema {
    object([
        ("segments", integer_from(0)),
        ("records", integer_from(0)),
        ("bytes", integer_from(0)),
    ])
}

/// What [`of_plan`] writes.
pub(super) fn plan_schema() -> Schema {
    let segment = object([
        ("base_offset", integer_from(0)),
        ("end_offset", integer_from(0)),
        ("sealed", boolean()),
        ("records", integer_from(0)),
        ("bytes", integer_from(0)),
        ("last_append_ms", integer()),
        ("outcome", text()),
        ("rule", text()),
        ("why", text()),
    ]);
    let partition = object([
        ("partition", integer_from(0)),
        ("start_offset", integer_from(0)),
        ("end_offset", integer_from(0)),
        ("start_offset_after", integer_from(0)),
        ("bytes", integer_from(0)),
        ("wal_bytes", integer_from(0)),
        ("rolls_active", boolean()),
        ("removes", removed_schema()),
        ("segments", list(segment)),
    ]);
    object([
        ("policy", text()),
        ("topic", text()),
        ("removes", removed_schema()),
        ("segments_left_out", integer_from(0)),
        ("partitions", list(partition)),
    ])
}

/// What [`of_job`] writes, and [`of_jobs`] a list of, without results.
pub(super) fn job_schema() -> Schema {
    let progress = object([
        ("partitions", integer_from(0)),
        ("partitions_done", integer_from(0)),
        ("bytes", integer_from(0)),
        ("bytes_done", integer_from(0)),
        ("pass", integer_from(0)),
    ]);
    let run = object([
        ("partition", integer_from(0)),
        (
            "error",
            object([("code", text()), ("detail", text())]).or_null(),
        ),
    ]);
    let result = object([
        ("removed", removed_schema()),
        ("bytes_read", integer_from(0)),
        ("bytes_written", integer_from(0)),
        ("partitions_failed", integer_from(0)),
        ("partitions_left_out", integer_from(0)),
        ("partitions", list(run)),
    ]);
    object([
        ("id", text()),
        ("state", text()),
        ("policy", text()),
        ("topic", text()),
        ("partition", integer_from(0).or_null()),
        ("now", boolean()),
        ("dry_run", boolean()),
        ("bytes_per_second", integer_from(1).or_null()),
        ("asked_by", text()),
        ("asked_ms", integer()),
        ("started_ms", integer().or_null()),
        ("ended_ms", integer().or_null()),
        ("progress", progress),
    ])
    .optional([("result", result.or_null())])
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
            "unsealed": { "records": report.unsealed.records, "bytes": report.unsealed.bytes },
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
