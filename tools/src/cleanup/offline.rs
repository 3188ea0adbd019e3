//! Cleanup of a data directory that no server has open.
//!
//! Callers: the cleanup commands with `--dir`. The store is opened as a server opens it, with its lock; a plan writes nothing
//! beyond what every opening does, and a run is what a server would do. Invariants: nothing but the chosen partitions is
//! cleaned up; no log is taken for unknown and set aside, whatever the metadata says; limits that nobody has said remove
//! nothing (`limits.rs`).

use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, TopicId};
use storage::cleanup::run::{CleanupError, Progress, Report, RunOptions};
use storage::cleanup::{self, Policy};
use storage::{Env, Fate, LogSettings, OpenError, ReadError, Storage, StorageConfig};

use super::limits::Limits;
use super::report::{
    self, Fault, Job, Outcome, PartitionPlan, PartitionRun, Plan, Removed, Segment, SetAside,
    Unsealed,
};
use super::{RunArgs, Selection, name_of};
use crate::failure::Failure;
use crate::log::names::{Names, Topic};
use crate::output::note;
use crate::signals::StopSignals;
use crate::user::user_name;

/// Longer than any store is kept: what the store would do by itself meanwhile is the next server's to do.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Bytes of the metadata that are read at once.
const READ_BYTES: usize = 1 << 20;
/// How often progress is shown.
const LOOK: Duration = Duration::from_millis(200);

/// An open store, and what is chosen of it.
struct Opened {
    storage: Storage,
    topic: String,
    id: TopicId,
    partitions: Vec<PartitionId>,
    /// Settings of the policy that nobody has said, with their defaults.
    unsaid: Vec<String>,
}

/// The settings that a policy goes by.
fn settings_of(policy: Policy) -> &'static [&'static str] {
    match policy {
        Policy::Retention | Policy::StoreBound => {
            &["cleanup.policy", "retention.bytes", "retention.ms"]
        }
        Policy::Compaction => &[
            "cleanup.policy",
            "delete.retention.ms",
            "max.compaction.lag.ms",
            "min.cleanable.dirty.ratio",
            "min.compaction.lag.ms",
        ],
        // Tiers are set on topics only.
        Policy::Thin => &[],
    }
}

impl Opened {
    /// Opens the directory, for looking: nothing of it is settled or removed.
    fn open(policy: Policy, selection: &Selection, directory: &Path) -> Result<Opened> {
        let place = directory.display();
        if !directory.join("STORE").exists() {
            bail!(Failure::NotFound(format!(
                "{place} is no data directory: it has no file STORE"
            )));
        }
        let opened = Storage::recover(config(directory)?, Env::real());
        let (storage, _) = opened.map_err(|error| match error {
            OpenError::Locked { holder, .. } => {
                let process = holder.map_or_else(String::new, |id| format!(" (process {id})"));
                anyhow::anyhow!(
                    "a server{process} has {place} open: leave out --dir to ask it over HTTP, or stop it"
                )
            }
            other => anyhow::Error::from(other),
        })?;
        let names = names(&storage)?;
        let limits = selection.given.limits(&names)?;
        let wanted = selection.topic.as_str();
        let found = names.topics().find(|(_, topic)| topic.name == wanted);
        let Some((id, topic)) = found else {
            bail!(Failure::NotFound(format!(
                "{place} holds no topic {wanted}"
            )));
        };
        let partitions = chosen(topic, selection.partition)?;
        put_in_force(&storage, &names, &limits, id)?;
        let unsaid = limits.unsaid(topic, settings_of(policy));
        Ok(Opened {
            topic: topic.name.clone(),
            id,
            partitions,
            unsaid: unsaid
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            storage,
        })
    }

    fn log(&self, partition: PartitionId) -> LogId {
        LogId::new(self.id, partition)
    }
}

/// The store's settings: those of the server matter little here, but for the length of its write-ahead files.
fn config(directory: &Path) -> Result<StorageConfig> {
    let mut config = StorageConfig::new(directory);
    let mut lengths = Vec::new();
    let wal = directory.join("wal");
    if wal.exists() {
        for entry in std::fs::read_dir(&wal).with_context(|| wal.display().to_string())? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|kind| kind == "wal") {
                lengths.push(entry.metadata()?.len());
            }
        }
    }
    let is_one =
        |bytes: &u64| bytes.is_multiple_of(64 << 10) && (256 << 10..=1 << 30).contains(bytes);
    if let Some(bytes) = lengths.into_iter().filter(is_one).max() {
        config.wal_file_bytes = bytes;
    }
    config.wal_files_min = 2;
    config.scrub_bytes_per_second = 0;
    config.retention_check = NEVER;
    config.cleaner_check = NEVER;
    config.producer_expiry = NEVER;
    config.producers_per_log_max = usize::MAX;
    config.producers_max = u64::MAX;
    Ok(config)
}

/// What the store's own log of metadata says.
fn names(storage: &Storage) -> Result<Names> {
    let mut names = Names::default();
    let Some(log) = storage.log(LogId::METADATA) else {
        return Ok(names);
    };
    let bounds = log.bounds();
    let mut next = bounds.start;
    while next < bounds.durable_end {
        let chunk = match log.read_copy(next, READ_BYTES) {
            Ok(chunk) => chunk,
            Err(error @ (ReadError::Damaged { .. } | ReadError::Io { .. })) => {
                return Err(error).context("the metadata of the store");
            }
            Err(error) => return Err(error.into()),
        };
        let before = next;
        for batch in model::batch::split(chunk.to_bytes()) {
            let batch = batch.context("the metadata of the store")?;
            let (base, end) = (batch.header().base(), batch.header().next_offset());
            names.take(batch.into_bytes(), base);
            next = next.max(end);
        }
        if next == before {
            break;
        }
    }
    if let Some(trouble) = names.trouble() {
        bail!("not all of the store's metadata is understood, and nothing was done: {trouble}");
    }
    Ok(names)
}

fn chosen(topic: &Topic, partition: Option<u32>) -> Result<Vec<PartitionId>> {
    match partition {
        None => Ok((0..topic.partitions).map(PartitionId::new).collect()),
        Some(number) if number < topic.partitions => Ok(vec![PartitionId::new(number)]),
        Some(number) => bail!(Failure::NotFound(format!(
            "topic {} has no partition {number}: it has {}, from 0 on",
            topic.name, topic.partitions
        ))),
    }
}

/// Gives every log its topic's settings, and keeps what is not of the topic `chosen` for ever: it is not its turn.
fn put_in_force(storage: &Storage, names: &Names, limits: &Limits, chosen: TopicId) -> Result<()> {
    for (id, topic) in names.topics() {
        let mut settings = LogSettings::from(&limits.of(topic)?);
        if id != chosen {
            let kept = LogSettings::from(&TopicConfig::default());
            settings = LogSettings {
                durability: settings.durability,
                segment_bytes: settings.segment_bytes,
                segment_ms: settings.segment_ms,
                retention_ms: None,
                retention_bytes: None,
                ..kept
            };
        }
        for partition in 0..topic.partitions {
            let log = LogId::new(id, PartitionId::new(partition));
            if storage.log(log).is_some() {
                storage.set_settings(log, settings.clone());
            }
        }
    }
    Ok(())
}

/// What would be done. Blocks.
pub(super) fn plan(policy: Policy, selection: &Selection, directory: &Path) -> Result<Plan> {
    let opened = Opened::open(policy, selection, directory)?;
    for unsaid in &opened.unsaid {
        note!(
            "note: {unsaid} is taken, the default: the server's configuration may say something else (--config FILE, -X KEY=VALUE or --defaults)"
        );
    }
    let mut plan = Plan {
        policy: name_of(policy).to_owned(),
        topic: opened.topic.clone(),
        removes: Removed::default(),
        segments_left_out: 0,
        partitions: Vec::new(),
    };
    for partition in &opened.partitions {
        // A partition that nothing was appended to has no log.
        let Some(log) = opened.storage.log(opened.log(*partition)) else {
            plan.partitions.push(empty(*partition));
            continue;
        };
        let planned = opened
            .storage
            .plan_cleanup(log.id(), policy, selection.now)?;
        let (bounds, bytes) = (log.bounds(), log.size_bytes());
        let settled: u64 = planned.segments.iter().map(|one| one.segment.bytes).sum();
        let removes = planned_removal(&planned, bounds.start);
        add(&mut plan.removes, &removes);
        plan.partitions.push(PartitionPlan {
            partition: partition.get(),
            start_offset: bounds.start.get(),
            end_offset: bounds.durable_end.get(),
            start_offset_after: planned.raise_start_to.unwrap_or(bounds.start).get(),
            bytes,
            wal_bytes: bytes.saturating_sub(settled),
            rolls_active: planned.rolls_active,
            removes,
            segments: segments(&planned),
        });
    }
    Ok(plan)
}

fn empty(partition: PartitionId) -> PartitionPlan {
    PartitionPlan {
        partition: partition.get(),
        start_offset: 0,
        end_offset: 0,
        start_offset_after: 0,
        bytes: 0,
        wal_bytes: 0,
        rolls_active: false,
        removes: Removed::default(),
        segments: Vec::new(),
    }
}

fn planned_removal(plan: &cleanup::Plan, start: Offset) -> Removed {
    let mut removed = Removed::default();
    for (segment, _) in plan.removed() {
        let readable = segment.end_offset.get().saturating_sub(start.get());
        let one = Removed {
            segments: 1,
            records: segment.records.min(readable),
            bytes: segment.bytes,
        };
        add(&mut removed, &one);
    }
    removed
}

fn add(sum: &mut Removed, more: &Removed) {
    sum.segments += more.segments;
    sum.records += more.records;
    sum.bytes += more.bytes;
}

fn segments(plan: &cleanup::Plan) -> Vec<Segment> {
    let of = |one: &cleanup::SegmentPlan| Segment {
        base_offset: one.segment.id.base.get(),
        end_offset: one.segment.end_offset.get(),
        sealed: one.segment.sealed,
        records: one.segment.records,
        bytes: one.segment.bytes,
        last_append_ms: one.segment.last_append_time.millis(),
        outcome: one.outcome.name().to_owned(),
        rule: one.outcome.rule().to_owned(),
        why: one.outcome.to_string(),
    };
    plan.segments.iter().map(of).collect()
}

/// How far a run is, for who shows it.
#[derive(Default)]
struct Watched {
    progress: Progress,
    partitions_done: AtomicU64,
}

/// Runs it to its end; Ctrl-C cancels it.
pub(super) async fn run(policy: Policy, args: &RunArgs, directory: &Path) -> Result<Job> {
    let mut stop = StopSignals::listen()?;
    let opened = tokio::task::block_in_place(|| Opened::open(policy, &args.selection, directory))?;
    if !opened.unsaid.is_empty() && !args.dry_run {
        bail!(Failure::Usage(format!(
            "the store does not say {}, and the server's configuration may say something else than these defaults: name it with \
             --config FILE, or the settings with -X KEY=VALUE, or say --defaults if there are none",
            opened.unsaid.join(", ")
        )));
    }
    let mut job = Job {
        id: None,
        state: "running".to_owned(),
        policy: name_of(policy).to_owned(),
        topic: opened.topic.clone(),
        partition: args.selection.partition,
        now: args.selection.now,
        dry_run: args.dry_run,
        bytes_per_second: args.throttle.map(NonZero::get),
        asked_by: user_name(),
        asked_ms: now_ms(),
        started_ms: Some(now_ms()),
        ended_ms: None,
        progress: report::Progress::default(),
        result: None,
    };
    let options = RunOptions {
        now: args.selection.now,
        dry_run: args.dry_run,
        bytes_per_second: args.throttle.map(NonZero::get),
    };
    let watched = Arc::new(Watched::default());
    let count = opened.partitions.len() as u64;
    let mut work = tokio::task::spawn_blocking({
        let watched = watched.clone();
        move || work(&opened, policy, options, &watched)
    });
    let style = ProgressStyle::with_template("{spinner} {msg}")?;
    let bar = ProgressBar::new_spinner().with_style(style);
    let mut looks = tokio::time::interval(LOOK);
    let (outcome, is_cancelled) = loop {
        tokio::select! {
            done = &mut work => break done.context("the run")??,
            () = stop.asked() => {
                watched.progress.cancel();
                bar.suspend(|| note!("note: cancelling"));
            }
            _ = looks.tick() => {
                bar.set_message(report::progress_text(&progress(&watched, count)));
                bar.tick();
            }
        }
    };
    bar.finish_and_clear();
    let failed = outcome.partitions_failed > 0;
    job.state = match (is_cancelled, failed) {
        (true, _) => "cancelled",
        (false, true) => "failed",
        (false, false) => "done",
    }
    .to_owned();
    job.ended_ms = Some(now_ms());
    job.progress = progress(&watched, count);
    job.result = Some(outcome);
    Ok(job)
}

fn progress(watched: &Watched, partitions: u64) -> report::Progress {
    report::Progress {
        partitions,
        partitions_done: watched.partitions_done.load(Ordering::Relaxed),
        bytes: watched.progress.bytes_total(),
        bytes_done: watched.progress.bytes_done(),
        pass: watched.progress.pass(),
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

/// Goes through the partitions. True if it was cancelled before its end.
fn work(
    opened: &Opened,
    policy: Policy,
    options: RunOptions,
    watched: &Watched,
) -> Result<(Outcome, bool)> {
    if !options.dry_run {
        // Whatever the metadata says, nothing is set aside: that is a server's to judge.
        opened.storage.finish_open_by(&|_| Fate::Kept)?;
    }
    let mut outcome = Outcome::default();
    let mut is_cancelled = false;
    for partition in &opened.partitions {
        is_cancelled = watched.progress.is_cancelled();
        if is_cancelled {
            break;
        }
        let log = opened.log(*partition);
        if opened.storage.log(log).is_some() {
            match opened
                .storage
                .run_cleanup(log, policy, options, &watched.progress)
            {
                Err(CleanupError::Cancelled) => {
                    is_cancelled = true;
                    break;
                }
                Ok(report) if report.is_cut_short => {
                    take(&mut outcome, *partition, Ok(report));
                    is_cancelled = true;
                    break;
                }
                result => take(&mut outcome, *partition, result),
            }
        }
        watched.partitions_done.fetch_add(1, Ordering::Relaxed);
    }
    opened.storage.shutdown();
    Ok((outcome, is_cancelled))
}

/// Segments that others took the place of, or would.
fn rewritten(report: &Report) -> u64 {
    let old = report
        .rewrites
        .iter()
        .map(|rewrite| rewrite.old.len() as u64);
    old.sum()
}

fn set_aside(report: &Report) -> Vec<SetAside> {
    let segments = report.set_aside.iter();
    let of = segments.map(|(segment, error)| SetAside {
        base_offset: segment.base.get(),
        detail: error.to_string(),
    });
    of.collect()
}

fn take(outcome: &mut Outcome, partition: PartitionId, result: Result<Report, CleanupError>) {
    let partition = partition.get();
    match result {
        Ok(report) => {
            let removed = Removed {
                segments: report.segments_removed,
                records: report.records_removed,
                bytes: report.bytes_removed,
            };
            add(&mut outcome.removed, &removed);
            outcome.bytes_read += report.bytes_read;
            outcome.bytes_written += report.bytes_written;
            let is_whole = report.set_aside.is_empty();
            outcome.partitions_failed += u64::from(!is_whole);
            if !report.plan.is_empty() || !is_whole {
                let offset = |offset: Offset| Some(offset.get());
                outcome.partitions.push(PartitionRun {
                    partition,
                    start_offset: offset(report.start_before),
                    start_offset_after: offset(report.start_after),
                    removed,
                    segments_rewritten: rewritten(&report),
                    passes: report.passes,
                    rolls_active: report.plan.rolls_active,
                    unsealed: Unsealed {
                        records: report.unsealed.records,
                        bytes: report.unsealed.bytes,
                    },
                    tombstones_removed: report.tombstones_removed,
                    unreadable_batches: report.unreadable_batches,
                    segments: segments(&report.plan),
                    error: None,
                    set_aside: set_aside(&report),
                });
            }
        }
        Err(error) => {
            outcome.partitions_failed += 1;
            outcome.partitions.push(PartitionRun {
                partition,
                start_offset: None,
                start_offset_after: None,
                removed: Removed::default(),
                segments_rewritten: 0,
                passes: 0,
                rolls_active: false,
                unsealed: Unsealed::default(),
                tombstones_removed: 0,
                unreadable_batches: 0,
                segments: Vec::new(),
                set_aside: Vec::new(),
                error: Some(Fault {
                    code: "failed".to_owned(),
                    detail: error.to_string(),
                }),
            });
        }
    }
}
