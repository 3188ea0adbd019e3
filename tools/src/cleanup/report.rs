//! Plans and jobs as the server tells them and `--json` prints them, and what of them is told to people.
//!
//! Callers: the cleanup commands. Both ways to a plan, over HTTP and from a directory, end in these types, so that the two are
//! told alike. The server's page `docs/http-api.md` describes the fields.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::output::{counted, size};
use crate::table::Table;

/// How much goes, or went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Removed {
    pub segments: u64,
    pub records: u64,
    pub bytes: u64,
}

/// What would be done to a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub policy: String,
    pub topic: String,
    pub removes: Removed,
    pub segments_left_out: u64,
    pub partitions: Vec<PartitionPlan>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartitionPlan {
    pub partition: u32,
    pub start_offset: u64,
    pub end_offset: u64,
    pub start_offset_after: u64,
    pub bytes: u64,
    pub wal_bytes: u64,
    pub rolls_active: bool,
    pub removes: Removed,
    pub segments: Vec<Segment>,
}

/// A segment, and what happens to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Segment {
    pub base_offset: u64,
    pub end_offset: u64,
    pub sealed: bool,
    pub records: u64,
    pub bytes: u64,
    pub last_append_ms: i64,
    pub outcome: String,
    pub rule: String,
    pub why: String,
}

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// None for one over a directory.
    pub id: Option<String>,
    pub state: String,
    pub policy: String,
    pub topic: String,
    pub partition: Option<u32>,
    pub now: bool,
    pub dry_run: bool,
    pub bytes_per_second: Option<u64>,
    pub asked_by: String,
    pub asked_ms: i64,
    pub started_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    pub progress: Progress,
    /// Once it has ended, and where one job is looked at.
    #[serde(default)]
    pub result: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    pub partitions: u64,
    pub partitions_done: u64,
    pub bytes: u64,
    pub bytes_done: u64,
    pub pass: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub removed: Removed,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub partitions_failed: u64,
    pub partitions_left_out: u64,
    pub partitions: Vec<PartitionRun>,
}

/// What a dry run with --now did not look at, because it is in no sealed segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unsealed {
    pub records: u64,
    pub bytes: u64,
}

/// What was done to a partition, or why it failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PartitionRun {
    pub partition: u32,
    #[serde(default)]
    pub start_offset: Option<u64>,
    #[serde(default)]
    pub start_offset_after: Option<u64>,
    #[serde(default)]
    pub removed: Removed,
    #[serde(default)]
    pub segments_rewritten: u64,
    #[serde(default)]
    pub passes: u64,
    #[serde(default)]
    pub rolls_active: bool,
    #[serde(default)]
    pub unsealed: Unsealed,
    #[serde(default)]
    pub tombstones_removed: u64,
    #[serde(default)]
    pub unreadable_batches: u64,
    #[serde(default)]
    pub segments: Vec<Segment>,
    pub error: Option<Fault>,
    #[serde(default)]
    pub set_aside: Vec<SetAside>,
}

/// A segment that could not be cleaned up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SetAside {
    pub base_offset: u64,
    pub detail: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Fault {
    pub code: String,
    pub detail: String,
}

impl Segment {
    fn stays(&self) -> bool {
        self.outcome == "keep"
    }
}

impl Job {
    pub fn is_ended(&self) -> bool {
        !matches!(self.state.as_str(), "waiting" | "running")
    }

    pub fn is_done(&self) -> bool {
        self.state == "done"
    }
}

/// `3 segments, 1,200 records, 150.0 KiB`.
fn amount(removed: &Removed) -> String {
    let number = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    format!(
        "{}, {}, {}",
        counted(number(removed.segments), "segment"),
        counted(number(removed.records), "record"),
        size(removed.bytes)
    )
}

/// The segments that something happens to.
pub(super) fn plan_text(plan: &Plan) -> String {
    let mut table = Table::new(&["PARTITION", "SEGMENT", "RECORDS", "BYTES", "OUTCOME"]);
    let mut rows = 0;
    for part in &plan.partitions {
        for segment in part.segments.iter().filter(|segment| !segment.stays()) {
            rows += 1;
            table.row([
                part.partition.to_string(),
                segment.base_offset.to_string(),
                segment.records.to_string(),
                segment.bytes.to_string(),
                segment.outcome.clone(),
            ]);
        }
    }
    let mut text = match rows {
        0 => String::new(),
        _ => format!("{table}\n"),
    };
    let rewrites = plan.partitions.iter().flat_map(|part| &part.segments);
    let rewrites = rewrites
        .filter(|segment| segment.outcome == "rewrite")
        .count();
    let _ = match rewrites {
        0 => writeln!(
            text,
            "{} would go by {}",
            amount(&plan.removes),
            plan.policy
        ),
        _ => writeln!(
            text,
            "{} would go as a whole by {}, and {} would be written anew: how many of their records go, --dry-run tells",
            amount(&plan.removes),
            plan.policy,
            counted(rewrites, "segment")
        ),
    };
    left_out(&mut text, plan);
    text
}

/// Every segment, with what happens to it and why.
pub(super) fn explain_text(plan: &Plan) -> String {
    let mut text = format!("topic {}, {}\n\n", plan.topic, plan.policy);
    let mut table = Table::new(&[
        "PARTITION",
        "SEGMENT",
        "END",
        "RECORDS",
        "BYTES",
        "STATE",
        "OUTCOME",
        "WHY",
    ]);
    let mut rows = 0;
    for part in &plan.partitions {
        for segment in &part.segments {
            rows += 1;
            let state = if segment.sealed { "sealed" } else { "active" };
            table.row([
                part.partition.to_string(),
                segment.base_offset.to_string(),
                segment.end_offset.to_string(),
                segment.records.to_string(),
                segment.bytes.to_string(),
                state.to_owned(),
                segment.outcome.clone(),
                segment.why.clone(),
            ]);
        }
    }
    if rows > 0 {
        let _ = writeln!(text, "{table}");
    }
    for part in &plan.partitions {
        let number = part.partition;
        if part.start_offset_after != part.start_offset {
            let _ = writeln!(
                text,
                "partition {number} begins at offset {}, and would at {}",
                part.start_offset, part.start_offset_after
            );
        }
        if part.wal_bytes > 0 {
            let bytes = size(part.wal_bytes);
            let _ = writeln!(
                text,
                "partition {number}: {bytes} are in the write-ahead log only, and in no segment yet"
            );
        }
        if part.rolls_active {
            let _ = writeln!(
                text,
                "partition {number}: what is not in a sealed segment would be put into one first (--now)"
            );
        }
        if part.segments.is_empty() && part.wal_bytes == 0 && plan.segments_left_out == 0 {
            let _ = writeln!(text, "partition {number} holds no segment");
        }
    }
    let _ = writeln!(text, "{} would go", amount(&plan.removes));
    left_out(&mut text, plan);
    text
}

fn left_out(text: &mut String, plan: &Plan) {
    if plan.segments_left_out > 0 {
        let _ = writeln!(
            text,
            "{} more segments are not listed: --partition P lists those of one partition",
            plan.segments_left_out
        );
    }
}

/// How a run is, or how it ended.
pub(super) fn job_text(job: &Job) -> String {
    let mut text = String::new();
    let Some(outcome) = &job.result else {
        let id = job.id.as_deref().unwrap_or("-");
        let _ = writeln!(
            text,
            "job {id} on topic {} is {}: {}",
            job.topic,
            job.state,
            progress_text(&job.progress)
        );
        return text;
    };
    let mut table = Table::new(&[
        "PARTITION",
        "START",
        "NEW START",
        "REMOVED",
        "REWRITTEN",
        "RECORDS",
        "BYTES",
    ]);
    let mut rows = 0;
    for run in outcome.partitions.iter().filter(|run| run.error.is_none()) {
        rows += 1;
        let offset =
            |offset: Option<u64>| offset.map_or_else(|| "-".to_owned(), |at| at.to_string());
        table.row([
            run.partition.to_string(),
            offset(run.start_offset),
            offset(run.start_offset_after),
            run.removed.segments.to_string(),
            run.segments_rewritten.to_string(),
            run.removed.records.to_string(),
            run.removed.bytes.to_string(),
        ]);
    }
    if rows > 0 {
        let _ = writeln!(text, "{table}");
    }
    for run in &outcome.partitions {
        if let Some(fault) = &run.error {
            let _ = writeln!(text, "partition {} failed: {}", run.partition, fault.detail);
        }
        for segment in &run.set_aside {
            let _ = writeln!(
                text,
                "partition {}: the segment at offset {} is set aside, and the others went on: {}",
                run.partition, segment.base_offset, segment.detail
            );
        }
        if run.unsealed.records > 0 {
            let _ = writeln!(
                text,
                "partition {}: {} records, {}, are in no sealed segment and not counted; a run with --now puts them into one first",
                run.partition,
                run.unsealed.records,
                size(run.unsealed.bytes)
            );
        } else if job.dry_run && run.rolls_active && !job.now {
            let _ = writeln!(
                text,
                "partition {}: what is in no sealed segment is not counted; a run puts it into one first",
                run.partition
            );
        }
        if run.unreadable_batches > 0 {
            let _ = writeln!(
                text,
                "partition {}: {} batches have records that cannot be read, and stay as they are",
                run.partition, run.unreadable_batches
            );
        }
    }
    if outcome.partitions_left_out > 0 {
        let _ = writeln!(
            text,
            "{} more partitions are not listed",
            outcome.partitions_left_out
        );
    }
    let amount = amount(&outcome.removed);
    let _ = match (job.state.as_str(), job.dry_run) {
        ("cancelled", _) => writeln!(
            text,
            "cancelled: {amount} went with what was finished before; the rest of what was done stays done"
        ),
        (_, true) => writeln!(text, "{amount} would go"),
        (_, false) => writeln!(text, "{amount} went"),
    };
    text
}

/// How far a run is.
pub(super) fn progress_text(progress: &Progress) -> String {
    let mut text = format!(
        "{} of {} partitions",
        progress.partitions_done, progress.partitions
    );
    if progress.bytes > 0 {
        let (done, all) = (size(progress.bytes_done), size(progress.bytes));
        let _ = write!(text, ", {done} of {all}");
    }
    text
}

/// The runs that a server knows of.
pub(super) fn jobs_text(jobs: &[Job]) -> String {
    let mut table = Table::new(&["JOB", "STATE", "POLICY", "TOPIC", "DONE", "ASKED BY"]);
    for job in jobs {
        let topic = match job.partition {
            Some(partition) => format!("{}:{partition}", job.topic),
            None => job.topic.clone(),
        };
        table.row([
            job.id.clone().unwrap_or_default(),
            job.state.clone(),
            job.policy.clone(),
            topic,
            progress_text(&job.progress),
            job.asked_by.clone(),
        ]);
    }
    match jobs.is_empty() {
        true => "no cleanup was asked for since the server started\n".to_owned(),
        false => table.to_string(),
    }
}
