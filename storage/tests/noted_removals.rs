//! Whoever keeps the book of removals is told before something goes: after a cut of the power at any operation nothing is missing that
//! the book does not have.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use alluvium_storage as storage;
use model::batch::{Batch, BatchBuilder, Codec, split};
use model::topic_config::{CompactionConfig, Ratio, TopicConfig};
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use storage::cleanup::Policy;
use storage::cleanup::removed::{Noted, Removed};
use storage::cleanup::run::{Progress, RunOptions};
use storage::io::SimDisk;
use storage::{AppendBatch, Disk, Env, Log, LogSettings, ManualClock, Storage, StorageConfig};

const NOW: RunOptions = RunOptions {
    now: true,
    dry_run: false,
    bytes_per_second: None,
};

fn log_id() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
}

/// The log that is the book.
fn book_id() -> LogId {
    LogId::new(TopicId::from_bytes([8; 16]), PartitionId::new(0))
}

struct House {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    settings: LogSettings,
}

impl House {
    fn new(settings: LogSettings) -> House {
        let disk = SimDisk::new(11);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        House {
            disk,
            clock: Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000))),
            settings,
        }
    }

    fn open(&self) -> (Arc<Storage>, Arc<Log>, Arc<Log>) {
        let mut config = StorageConfig::new("/data");
        config.wal_file_bytes = 256 << 10;
        config.wal_files_min = 2;
        let env = Env::manual(Arc::new(self.disk.clone()), self.clock.clone());
        let (storage, _) = Storage::open(config, env).unwrap();
        storage.finish_open(&[log_id(), book_id()].into()).unwrap();
        let log = storage.create_log(log_id(), self.settings.clone());
        let book = storage.create_log(book_id(), LogSettings::from(&TopicConfig::default()));
        (Arc::new(storage), log, book)
    }

    /// Segments of a few records each, of three keys, of which something is to go.
    fn fill(&self, storage: &Storage, log: &Log) {
        for round in 0..4 {
            for key in ["a", "b", "c"] {
                assert!(append(
                    storage,
                    log,
                    key,
                    &format!("{round} {}", "v".repeat(600))
                ));
            }
            storage.settle_once();
        }
        self.clock.advance(Duration::from_secs(100));
    }
}

/// False if the disk failed.
fn append(storage: &Storage, log: &Log, key: &str, value: &str) -> bool {
    let mut builder = BatchBuilder::new(Codec::None);
    let time = Timestamp::from_millis(5);
    let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
    builder.push(time, key, value, &[]).unwrap();
    let batch = Batch::parse(builder.build().unwrap()).unwrap();
    while storage.prepare_once().unwrap_or(false) {}
    let Some(admission) = storage.try_admit(batch.bytes().len()) else {
        return false;
    };
    let Ok(appended) = log.append(vec![AppendBatch::from(batch)], admission) else {
        return false;
    };
    storage.commit_once();
    appended.durable.wait().is_ok()
}

/// Of a start that is raised it is appended only; of a rewrite it is durable.
fn note(storage: &Weak<Storage>, book: &Log, removed: &Removed) -> Noted {
    let Some(storage) = storage.upgrade() else {
        return Noted::NotNow;
    };
    let text = format!("{:?}", removed.offsets);
    let is_noted = match removed.rewritten_as {
        Some(_) => append(&storage, book, "book", &text),
        None => {
            let mut builder = BatchBuilder::new(Codec::None);
            let (time, value) = (Timestamp::from_millis(5), Some(text.as_bytes()));
            builder.push(time, None, value, &[]).unwrap();
            let batch = Batch::parse(builder.build().unwrap()).unwrap();
            let admission = storage.try_admit(batch.bytes().len());
            admission.is_some_and(|admission| {
                book.append(vec![AppendBatch::from(batch)], admission)
                    .is_ok()
            })
        }
    };
    match is_noted {
        true => Noted::Yes,
        false => Noted::NotNow,
    }
}

/// The offsets of the records that a reader gets, from `from` on.
fn offsets(log: &Log, from: Offset) -> Vec<u64> {
    let end = log.bounds().durable_end;
    let (mut at, mut found) = (from, Vec::new());
    while at < end {
        let chunk = log.read(at, 1 << 20, true).unwrap();
        for batch in split(chunk.to_bytes()) {
            let batch = batch.unwrap();
            at = batch.header().next_offset();
            for record in batch.records(Default::default()).unwrap() {
                found.push(record.unwrap().offset.get());
            }
        }
    }
    found
}

/// One life, with a cut during an operation of the removal. Gives how many operations that took, and whether something was gone.
fn life(settings: &LogSettings, policy: Policy, cut: Option<u64>) -> (u64, bool) {
    let house = House::new(settings.clone());
    let (storage, log, book) = house.open();
    let noted = Arc::new(Mutex::new(0));
    let (known, count) = (Arc::downgrade(&storage), Arc::clone(&noted));
    let listed = Arc::clone(&book);
    let progress = Arc::new(Progress::default());
    let ends = Arc::clone(&progress);
    storage.on_removed(Arc::new(move |removed| {
        *count.lock().unwrap() += 1;
        let noted = note(&known, &listed, removed);
        if noted == Noted::NotNow {
            // The power is out: there is no other time.
            ends.cancel();
        }
        noted
    }));
    house.fill(&storage, &log);
    let before = offsets(&log, Offset::ZERO);
    let began = house.disk.operations();
    if let Some(cut) = cut {
        house.disk.cut_power_during(began + cut);
    }
    let ran = storage.run_cleanup(log_id(), policy, NOW, &progress);
    assert!(ran.is_ok() || cut.is_some(), "{ran:?}");
    let operations = house.disk.operations() - began;
    assert!(*noted.lock().unwrap() > 0 || cut.is_some());
    drop((log, book, storage));
    if let Some(cut) = cut {
        house.disk.cut_power();
        house.disk.restart(cut);
    }
    let (_storage, log, book) = house.open();
    let after = offsets(&log, log.bounds().start);
    let is_gone = after.len() < before.len();
    let entries = offsets(&book, Offset::ZERO).len();
    assert!(
        !is_gone || entries > 0,
        "{policy} {cut:?}: {before:?} became {after:?}, and nobody was told"
    );
    (operations, is_gone)
}

fn every_cut(settings: &LogSettings, policy: Policy) {
    let (operations, is_gone) = life(settings, policy, None);
    assert!(is_gone && operations > 3, "{operations}");
    let (mut gone, mut left) = (0, 0);
    for cut in 1..=operations {
        match life(settings, policy, Some(cut)).1 {
            true => gone += 1,
            false => left += 1,
        }
    }
    assert!(
        gone > 0 && left > 0,
        "cuts before and after: {gone}, {left}"
    );
}

#[test]
fn a_raised_start_is_never_durable_without_what_was_noted_of_it() {
    let settings = LogSettings {
        segment_bytes: 2_000,
        retention_ms: Some(10_000),
        ..LogSettings::from(&TopicConfig::default())
    };
    every_cut(&settings, Policy::Retention);
}

#[test]
fn a_compacted_segment_never_takes_a_place_without_what_was_noted_of_it() {
    let settings = LogSettings {
        segment_bytes: 2_000,
        retention_ms: None,
        compaction: Some(CompactionConfig {
            delete_retention_ms: 0,
            min_cleanable_dirty_ratio: Ratio::new(0.0).unwrap(),
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: None,
        }),
        ..LogSettings::from(&TopicConfig::default())
    };
    every_cut(&settings, Policy::Compaction);
}

#[test]
fn what_cannot_be_noted_stays() {
    let settings = LogSettings {
        segment_bytes: 2_000,
        retention_ms: Some(10_000),
        ..LogSettings::from(&TopicConfig::default())
    };
    let house = House::new(settings);
    let (storage, log, _) = house.open();
    let may = Arc::new(Mutex::new(Noted::NotNow));
    let says = Arc::clone(&may);
    storage.on_removed(Arc::new(move |_| *says.lock().unwrap()));
    house.fill(&storage, &log);
    storage.clean_once();
    storage.commit_once();
    assert_eq!(log.bounds().start, Offset::ZERO);
    *may.lock().unwrap() = Noted::Yes;
    storage.clean_once();
    storage.commit_once();
    assert_eq!(log.bounds().start, log.bounds().end);
}
