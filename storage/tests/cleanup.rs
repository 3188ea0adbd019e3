//! Cleanup that somebody asks for: the plan tells what the run does, and the run does what the plan told.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use alluvium_storage::cleanup::run::{CleanupError, Progress, Report, RunOptions};
use alluvium_storage::cleanup::{HeldBack, Outcome, Policy};
use alluvium_storage::io::{ManualClock, RealDisk};
use alluvium_storage::{AppendBatch, Env, Log, LogSettings, Storage, StorageConfig};
use model::batch::{Batch, BatchBuilder, Codec};
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};

struct House {
    _directory: tempfile::TempDir,
    clock: Arc<ManualClock>,
    storage: Storage,
}

impl House {
    fn new() -> House {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
        let mut config = StorageConfig::new(directory.path());
        config.wal_file_bytes = 256 << 10;
        config.wal_files_min = 2;
        config.wal_files_max = 16;
        let env = Env::manual(Arc::new(RealDisk), clock.clone());
        let (storage, _) = Storage::open(config, env).unwrap();
        House {
            _directory: directory,
            clock,
            storage,
        }
    }

    fn append(&self, log: &Log, value: &[u8]) {
        let mut builder = BatchBuilder::new(Codec::None);
        let time = Timestamp::from_millis(5);
        builder.push(time, Some(b"key"), Some(value), &[]).unwrap();
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        while self.storage.prepare_once().unwrap() {}
        let admission = self.storage.try_admit(batch.bytes().len()).unwrap();
        let appended = log
            .append(vec![AppendBatch::from(batch)], admission)
            .unwrap();
        assert!(self.storage.commit_once());
        appended.durable.wait().unwrap();
    }
}

fn log_id() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
}

#[test]
fn a_run_of_retention_does_what_its_plan_tells_and_leaves_nothing_for_a_second_run() {
    let house = House::new();
    let settings = LogSettings {
        retention_ms: Some(60_000),
        ..LogSettings::from(&TopicConfig::default())
    };
    let log = house.storage.create_log(log_id(), settings);
    house.append(&log, b"old");
    house.storage.settle_once();
    house.clock.advance(Duration::from_secs(61));
    house.append(&log, b"new");

    let storage = &house.storage;
    let plan = storage
        .plan_cleanup(log_id(), Policy::Retention, true)
        .unwrap();
    assert!(plan.rolls_active, "the active segment is sealed first");
    let ends: Vec<u64> = plan
        .removed()
        .map(|(segment, _)| segment.end_offset.get())
        .collect();
    assert_eq!(ends, [1]);

    let options = RunOptions {
        now: true,
        ..RunOptions::default()
    };
    let dry = RunOptions {
        dry_run: true,
        ..options
    };
    let progress = Progress::default();
    let told = storage
        .run_cleanup(log_id(), Policy::Retention, dry, &progress)
        .unwrap();
    assert_eq!(
        (told.records_removed, told.start_after),
        (1, Offset::new(1))
    );
    assert_eq!(
        log.bounds().start,
        Offset::ZERO,
        "a dry run changes nothing"
    );

    let progress = Progress::default();
    let done = storage
        .run_cleanup(log_id(), Policy::Retention, options, &progress)
        .unwrap();
    assert_eq!(
        (done.records_removed, done.start_after),
        (1, Offset::new(1))
    );
    assert_eq!(done.bytes_removed, told.bytes_removed);
    assert_eq!(progress.bytes_done(), progress.bytes_total());
    assert_eq!(log.bounds().start, Offset::new(1));

    let after = storage
        .plan_cleanup(log_id(), Policy::Retention, false)
        .unwrap();
    assert_eq!(after.raise_start_to, None);
    let kept: Vec<_> = after
        .segments
        .iter()
        .map(|one| (one.segment.id.base.get(), &one.outcome))
        .collect();
    let young = Outcome::Keep(HeldBack::Young {
        age_ms: 0,
        retention_ms: 60_000,
    });
    assert_eq!(kept, [(1, &young)]);
    let again = storage
        .run_cleanup(log_id(), Policy::Retention, options, &progress)
        .unwrap();
    assert_eq!((again.records_removed, again.bytes_removed), (0, 0));
}

#[test]
fn a_run_that_was_cancelled_before_it_began_removes_nothing() {
    let house = House::new();
    let settings = LogSettings {
        retention_ms: Some(0),
        ..LogSettings::from(&TopicConfig::default())
    };
    let log = house.storage.create_log(log_id(), settings);
    house.append(&log, b"old");
    house.storage.settle_once();
    house.clock.advance(Duration::from_secs(1));
    let progress = Progress::default();
    progress.cancel();
    let run = house.storage.run_cleanup(
        log_id(),
        Policy::Retention,
        RunOptions::default(),
        &progress,
    );
    assert!(matches!(run, Err(CleanupError::Cancelled)));
    assert_eq!(log.bounds().start, Offset::ZERO);
    let other = LogId::new(TopicId::from_bytes([8; 16]), PartitionId::new(0));
    let unknown = house.storage.plan_cleanup(other, Policy::Retention, false);
    assert!(matches!(unknown, Err(CleanupError::NoLog(id)) if id == other));
}

#[test]
fn a_dry_run_of_retention_now_tells_of_what_is_in_no_sealed_segment_too() {
    let house = House::new();
    let settings = LogSettings {
        segment_bytes: 4096,
        retention_ms: None,
        retention_bytes: Some(3_000),
        ..LogSettings::from(&TopicConfig::default())
    };
    let log = house.storage.create_log(log_id(), settings);
    for count in 0..12 {
        house.append(&log, &[b'v'; 1_000]);
        if count == 5 {
            house.storage.settle_once();
        }
    }
    let storage = &house.storage;
    let run = |dry_run| {
        let options = RunOptions {
            now: true,
            dry_run,
            ..RunOptions::default()
        };
        let progress = Progress::default();
        storage
            .run_cleanup(log_id(), Policy::Retention, options, &progress)
            .unwrap()
    };
    let told = run(true);
    assert_eq!(log.bounds().start, Offset::ZERO, "nothing is changed");
    assert!(
        told.records_removed > 6,
        "more than what is settled: {}",
        told.records_removed
    );
    let done = run(false);
    let figures = |report: &Report| {
        let start = report.start_after;
        (start, report.records_removed, report.bytes_removed)
    };
    assert_eq!(figures(&told), figures(&done));
    assert_eq!(log.bounds().start, done.start_after);
}
