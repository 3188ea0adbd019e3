//! The engine through its public door: append, make durable, read, restart.

#![allow(clippy::unwrap_used)]

use std::future::Future as _;
use std::sync::Arc;

use alluvium_storage::io::{ManualClock, RealDisk};
use alluvium_storage::{
    AppendBatch, Env, Fate, LiveSettings, Log, LogSettings, ReadError, RecoveryReport, Storage,
    StorageConfig,
};
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, Codec, split};
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};

struct House {
    directory: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl House {
    fn new() -> House {
        let directory = tempfile::tempdir().unwrap();
        House {
            directory,
            clock: Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000))),
        }
    }

    fn config(&self) -> StorageConfig {
        let mut config = StorageConfig::new(self.directory.path());
        config.wal_file_bytes = 256 << 10;
        config.wal_files_min = 2;
        config.wal_files_max = 16;
        config
    }

    fn open(&self) -> (Storage, RecoveryReport) {
        self.open_with(self.config())
    }

    fn open_with(&self, config: StorageConfig) -> (Storage, RecoveryReport) {
        let env = Env::manual(Arc::new(RealDisk), self.clock.clone());
        Storage::open(config, env).unwrap()
    }
}

fn log_id(partition: u32) -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(partition))
}

fn settings() -> LogSettings {
    LogSettings::from(&TopicConfig::default())
}

fn batch(values: &[&str], at: i64) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    for (index, value) in values.iter().enumerate() {
        let time = Timestamp::from_millis(at + index as i64);
        builder
            .push(time, Some(b"key"), Some(value.as_bytes()), &[])
            .unwrap();
    }
    Batch::parse(builder.build().unwrap()).unwrap()
}

fn append(storage: &Storage, log: &Log, batch: Batch) -> alluvium_storage::Appended {
    let admission = storage.try_admit(batch.bytes().len()).unwrap_or_else(|| {
        // The pool's helper would have seen to it.
        while storage.prepare_once().unwrap() {}
        storage.try_admit(batch.bytes().len()).unwrap()
    });
    log.append(vec![AppendBatch::from(batch)], admission)
        .unwrap()
}

fn values(log: &Log, from: u64) -> Vec<(u64, String)> {
    let chunk = log.read(Offset::new(from), 1 << 20, true).unwrap();
    split(chunk.to_bytes())
        .flat_map(|batch| batch.unwrap().records(Default::default()).unwrap())
        .map(|record| {
            let record = record.unwrap();
            let value: Bytes = record.value.unwrap();
            (
                record.offset.get(),
                String::from_utf8(value.to_vec()).unwrap(),
            )
        })
        .collect()
}

fn owned(pairs: &[(u64, &str)]) -> Vec<(u64, String)> {
    pairs
        .iter()
        .map(|(offset, value)| (*offset, (*value).to_owned()))
        .collect()
}

#[test]
fn nothing_is_shown_or_acknowledged_before_the_sync() {
    let house = House::new();
    let (storage, report) = house.open();
    assert!(report.created);
    let log = storage.create_log(log_id(0), settings());
    let mut appended = append(&storage, &log, batch(&["a", "b"], 10));
    assert_eq!(
        (appended.base_offset.get(), appended.last_offset.get()),
        (0, 1)
    );
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    let polled = std::pin::Pin::new(&mut appended.durable).poll(&mut context);
    assert!(polled.is_pending());
    assert_eq!(log.bounds().durable_end, Offset::ZERO);
    assert!(values(&log, 0).is_empty());
    assert!(storage.commit_once());
    appended.durable.wait().unwrap();
    assert_eq!(values(&log, 0), owned(&[(0, "a"), (1, "b")]));
}

#[test]
fn a_restart_shows_the_same_records_at_the_same_offsets() {
    let house = House::new();
    {
        let (storage, _) = house.open();
        for partition in 0..3 {
            let log = storage.create_log(log_id(partition), settings());
            for round in 0..20 {
                let text = format!("{partition}-{round}");
                let appended = append(&storage, &log, batch(&[&text], round));
                if round % 3 == 0 {
                    storage.commit_once();
                    appended.durable.wait().unwrap();
                }
            }
        }
        while storage.commit_once() {}
    }
    let (storage, report) = house.open();
    assert_eq!(report.batches, 60);
    assert_eq!(report.leader_epoch, 1);
    for partition in 0..3 {
        let log = storage.log(log_id(partition)).unwrap();
        let wanted: Vec<_> = (0..20)
            .map(|round| (round, format!("{partition}-{round}")))
            .collect();
        assert_eq!(values(&log, 0), wanted);
        let next = append(&storage, &log, batch(&["after"], 99));
        assert_eq!(next.base_offset.get(), 20);
    }
}

#[test]
fn times_are_found_to_the_record_also_out_of_order() {
    let house = House::new();
    let (storage, _) = house.open();
    let log = storage.create_log(log_id(0), settings());
    for (at, text) in [(100, "late"), (50, "early"), (300, "latest"), (200, "back")] {
        let _ = append(&storage, &log, batch(&[text, text], at));
    }
    storage.commit_once();
    let find = |at| {
        log.offset_for_time(Timestamp::from_millis(at))
            .unwrap()
            .map(|found| (found.offset.get(), found.timestamp.millis()))
    };
    assert_eq!(find(0), Some((0, 100)));
    assert_eq!(find(101), Some((1, 101)));
    assert_eq!(find(102), Some((4, 300)));
    assert_eq!(find(301), Some((5, 301)));
    assert_eq!(find(302), None);
    assert_eq!(log.max_timestamp().unwrap().unwrap().offset.get(), 5);
}

#[test]
fn deleted_records_stay_deleted_over_a_restart() {
    let house = House::new();
    {
        let (storage, _) = house.open();
        let log = storage.create_log(log_id(0), settings());
        let _ = append(&storage, &log, batch(&["a", "b", "c"], 0));
        storage.commit_once();
        let durable = log.delete_records(Offset::new(2)).unwrap();
        assert_eq!(log.bounds().start, Offset::ZERO);
        storage.commit_once();
        durable.wait().unwrap();
        assert!(matches!(
            log.read(Offset::new(1), 1 << 20, true),
            Err(ReadError::OutOfRange { .. })
        ));
    }
    let (storage, _) = house.open();
    let log = storage.log(log_id(0)).unwrap();
    assert_eq!(log.bounds().start.get(), 2);
}

fn known(partitions: u32) -> std::collections::HashSet<LogId> {
    (0..partitions).map(log_id).collect()
}

#[test]
fn what_has_settled_reads_the_same_and_survives_restarts() {
    let house = House::new();
    let mut small = settings();
    small.segment_bytes = 4096;
    let mut wanted = Vec::new();
    for start in 0..4_u64 {
        let (storage, _) = house.open();
        storage.finish_open(&known(1)).unwrap();
        let log = storage.create_log(log_id(0), small.clone());
        for round in 0..50_u64 {
            let text = format!("{start}-{round}-{}", "x".repeat(200));
            let appended = append(
                &storage,
                &log,
                batch(&[&text], (start * 100 + round) as i64),
            );
            wanted.push((appended.base_offset.get(), text));
            if round % 7 == 0 {
                storage.commit_once();
            }
            if round % 20 == 0 {
                assert!(storage.settle_once());
            }
        }
        while storage.commit_once() {}
        assert_eq!(values(&log, 0), wanted);
        storage.settle_once();
        let bounds = log.bounds();
        assert_eq!(bounds.settled_end, bounds.end);
        assert_eq!(values(&log, 0), wanted);
        assert_eq!(
            values(&log, 77 % wanted.len() as u64)[0].0,
            77 % wanted.len() as u64
        );
        let time = Timestamp::from_millis((start * 100 + 13) as i64);
        assert_eq!(
            log.offset_for_time(time).unwrap().unwrap().offset.get(),
            start * 50 + 13
        );
    }
    let (storage, report) = house.open();
    assert_eq!(report.batches, 0, "all of it has settled");
    assert_eq!(values(&storage.log(log_id(0)).unwrap(), 0), wanted);
    assert_eq!(
        storage
            .log(log_id(0))
            .unwrap()
            .epoch_at(Offset::new(60))
            .unwrap()
            .get(),
        1
    );
}

#[test]
fn wal_files_are_used_again_and_producers_wait_for_them() {
    let house = House::new();
    let mut config = house.config();
    config.wal_files_max = 4;
    let (storage, _) = house.open_with(config);
    storage.finish_open(&known(1)).unwrap();
    let log = storage.create_log(log_id(0), settings());
    let text = "y".repeat(60_000);
    let mut waited = 0;
    for round in 0..200 {
        let batch = batch(&[&text], round);
        loop {
            if let Some(admission) = storage.try_admit(batch.bytes().len()) {
                let _ = log
                    .append(vec![AppendBatch::from(batch.clone())], admission)
                    .unwrap();
                break;
            }
            waited += 1;
            while storage.commit_once() {}
            storage.settle_once();
            while storage.prepare_once().unwrap() {}
            assert!(waited < 1000, "the pool never has room again");
        }
        storage.commit_once();
    }
    assert!(waited > 0, "12 MB pass through 1 MB of WAL");
    assert!(storage.metrics().wal_files <= 4);
    assert_eq!(log.bounds().durable_end.get(), 200);
}

#[test]
fn a_deleted_log_takes_its_files_along_and_an_unknown_one_is_set_aside() {
    let house = House::new();
    let files = |name: &str| {
        let directory = house.directory.path().join(name);
        let mut count = 0;
        let mut open = vec![directory];
        while let Some(next) = open.pop() {
            for entry in std::fs::read_dir(next).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    count += 1;
                }
            }
        }
        count
    };
    {
        let (storage, _) = house.open();
        storage.finish_open(&known(2)).unwrap();
        for partition in 0..2 {
            let log = storage.create_log(log_id(partition), settings());
            let _ = append(&storage, &log, batch(&["a"], 0));
        }
        storage.commit_once();
        storage.settle_once();
        assert_eq!(files("p"), 2);
        storage.delete_log(log_id(0));
        storage.settle_once();
        assert_eq!(files("p"), 1);
    }
    let (storage, _) = house.open();
    storage.finish_open(&known(0)).unwrap();
    assert!(storage.log(log_id(1)).is_none());
    assert_eq!((files("p"), files("quarantine")), (0, 1));
}

#[test]
fn what_a_kill_left_of_a_deleted_log_goes_at_the_next_start() {
    let house = House::new();
    let files = |below: &str| {
        let root = house.directory.path().join(below);
        let mut open = vec![root];
        let mut count = 0;
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    count += 1;
                }
            }
        }
        count
    };
    {
        let (storage, _) = house.open();
        storage.finish_open(&known(3)).unwrap();
        for partition in 0..3 {
            let log = storage.create_log(log_id(partition), settings());
            let _ = append(&storage, &log, batch(&["a"], 0));
        }
        storage.commit_once();
        storage.settle_once();
        // Of 0 the metadata says that it was deleted, and the process ends before the settler's turn. Of 1 the same, and
        // the checkpoint is stored, but not every file is gone. Of 2 it knows nothing.
        let path = std::fs::read_dir(house.directory.path().join("p"))
            .unwrap()
            .map(|spread| spread.unwrap().path().join(log_id(1).to_string()))
            .find(|path| path.is_dir())
            .unwrap();
        storage.delete_log(log_id(1));
        let kept = std::fs::read_dir(&path).unwrap().next().unwrap().unwrap();
        let copy = house.directory.path().join("copy");
        std::fs::copy(kept.path(), &copy).unwrap();
        storage.settle_once();
        std::fs::create_dir_all(&path).unwrap();
        std::fs::rename(copy, kept.path()).unwrap();
    }
    let (storage, _) = house.open();
    let is_deleted = |log| [log_id(0), log_id(1)].contains(&log);
    storage
        .finish_open_by(&|log| match is_deleted(log) {
            true => Fate::Deleted,
            false => Fate::Unknown,
        })
        .unwrap();
    storage.settle_once();
    assert_eq!((files("p"), files("quarantine")), (0, 1));
    assert_eq!(storage.health().damage, []);
}

#[test]
fn an_idempotent_producers_retry_is_answered_with_its_first_offsets_also_after_restarts() {
    let house = House::new();
    let from = |sequence| {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.producer(
            model::ProducerId::new(5),
            model::ProducerEpoch::new(0),
            sequence,
        );
        builder
            .push(Timestamp::from_millis(1), None, Some(b"v"), &[])
            .unwrap();
        Batch::parse(builder.build().unwrap()).unwrap()
    };
    for start in 0..3 {
        let (storage, _) = house.open();
        storage.finish_open(&known(1)).unwrap();
        let log = storage.create_log(log_id(0), settings());
        if start == 0 {
            for sequence in 0..3 {
                let appended = append(&storage, &log, from(sequence));
                assert!(!appended.duplicate);
            }
        }
        let again = append(&storage, &log, from(1));
        assert!(again.duplicate);
        assert_eq!(again.base_offset.get(), 1);
        while storage.commit_once() {}
        again.durable.wait().unwrap();
        let admission = storage.try_admit(100).unwrap();
        assert!(
            log.append(vec![AppendBatch::from(from(7))], admission)
                .is_err()
        );
        if start == 1 {
            storage.settle_once();
        }
    }
}

#[test]
fn producers_beyond_a_bound_are_refused_and_those_idle_for_long_make_room() {
    for of_log in [true, false] {
        let house = House::new();
        let mut config = house.config();
        match of_log {
            true => config.producers_per_log_max = 3,
            false => config.producers_max = 3,
        }
        let (storage, _) = house.open_with(config);
        storage.finish_open(&known(1)).unwrap();
        let log = storage.create_log(log_id(0), settings());
        let send = |producer: i64, sequence: i32| {
            let mut builder = BatchBuilder::new(Codec::None);
            builder.producer(
                model::ProducerId::new(producer),
                model::ProducerEpoch::new(0),
                sequence,
            );
            builder
                .push(Timestamp::from_millis(1), None, Some(b"v"), &[])
                .unwrap();
            let batch = Batch::parse(builder.build().unwrap()).unwrap();
            let admission = storage.try_admit(batch.bytes().len()).unwrap();
            log.append(vec![AppendBatch::from(batch)], admission)
        };
        for producer in 0..3 {
            send(producer, 0).unwrap();
        }
        let refused = send(3, 0).unwrap_err();
        assert!(refused.to_string().contains("producer.ids."), "{refused}");
        // Those that are known go on, and a retry is still one.
        send(0, 1).unwrap();
        assert!(send(1, 0).unwrap().duplicate);
        assert_eq!(log.bounds().end.get(), 4);
        house.clock.advance(std::time::Duration::from_secs(16 * 60));
        send(2, 1).unwrap();
        send(3, 0).unwrap();
        house.clock.advance(std::time::Duration::from_secs(2));
        assert!(!send(0, 2).unwrap().duplicate);
        let metrics = storage.metrics();
        assert_eq!(metrics.producers_refused, 1);
        assert_eq!((metrics.producers, metrics.producers_forgotten), (3, 2));
        assert!(send(2, 1).unwrap().duplicate, "it was not idle");
    }
}

/// Odd producers are alice's, even ones nobody's; the hundreds are bob's.
struct ByNumber;

impl alluvium_storage::ProducerAccounts for ByNumber {
    fn account_of(&self, id: model::ProducerId) -> Option<std::sync::Arc<str>> {
        match id.get() {
            100.. => Some("bob".into()),
            id if id % 2 == 1 => Some("alice".into()),
            _ => None,
        }
    }
}

#[test]
fn producers_beyond_the_bound_on_their_account_are_refused_and_after_a_start_too() {
    let house = House::new();
    let send = |storage: &alluvium_storage::Storage,
                log: &alluvium_storage::Log,
                producer: i64,
                sequence: i32| {
        let mut builder = BatchBuilder::new(Codec::None);
        let (id, epoch) = (
            model::ProducerId::new(producer),
            model::ProducerEpoch::new(0),
        );
        builder.producer(id, epoch, sequence);
        builder
            .push(Timestamp::from_millis(1), None, Some(b"v"), &[])
            .unwrap();
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        let admission = storage.try_admit(batch.bytes().len()).unwrap();
        let sent = log.append(vec![AppendBatch::from(batch)], admission);
        while storage.commit_once() {}
        sent.map(|sent| sent.base_offset.get())
    };
    let open = || {
        let (storage, _) = house.open();
        storage.keep_producer_accounts(std::sync::Arc::new(ByNumber), 3);
        storage.finish_open(&known(2)).unwrap();
        storage
    };
    let storage = open();
    let logs = [0, 1].map(|n| storage.create_log(log_id(n), settings()));
    // In whichever logs they are remembered, one in two of them twice.
    send(&storage, &logs[0], 1, 0).unwrap();
    send(&storage, &logs[1], 1, 0).unwrap();
    send(&storage, &logs[1], 3, 0).unwrap();
    let refused = send(&storage, &logs[0], 5, 0).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("producer.ids.per.principal.max"),
        "{refused}"
    );
    for others in [0, 2, 4, 6, 101, 103, 105] {
        send(&storage, &logs[0], others, 0).unwrap();
    }
    send(&storage, &logs[1], 3, 1).expect("who is known goes on");
    assert_eq!(storage.producers_of_accounts(), (3, 1));
    drop((logs, storage));
    let storage = open();
    let logs = [0, 1].map(|n| storage.create_log(log_id(n), settings()));
    assert_eq!(
        storage.producers_of_accounts(),
        (3, 0),
        "as before the start"
    );
    assert!(send(&storage, &logs[0], 5, 0).is_err());
    // Those that are idle make room, wherever they are, at the next look; nobody else's go.
    house.clock.advance(std::time::Duration::from_secs(16 * 60));
    send(&storage, &logs[1], 3, 2).unwrap();
    storage.clean_once();
    assert_eq!(logs[0].producer_count(), 4, "nobody's are there");
    send(&storage, &logs[0], 5, 0).expect("room");
    send(&storage, &logs[0], 107, 0).expect("room");
    // And so do those of a log that is deleted.
    send(&storage, &logs[0], 7, 0).expect("room");
    assert!(send(&storage, &logs[0], 9, 0).is_err());
    storage.delete_log(log_id(1));
    send(&storage, &logs[0], 9, 0).expect("room");
}

#[test]
fn a_log_that_nobody_appends_to_forgets_its_producers_too() {
    let house = House::new();
    let (storage, _) = house.open();
    storage.finish_open(&known(1)).unwrap();
    let log = storage.create_log(log_id(0), settings());
    let mut builder = BatchBuilder::new(Codec::None);
    builder.producer(model::ProducerId::new(1), model::ProducerEpoch::new(0), 0);
    builder
        .push(Timestamp::from_millis(1), None, Some(b"v"), &[])
        .unwrap();
    let sent = append(
        &storage,
        &log,
        Batch::parse(builder.build().unwrap()).unwrap(),
    );
    while storage.commit_once() {}
    sent.durable.wait().unwrap();
    storage.clean_once();
    assert_eq!(log.producer_count(), 1);
    house
        .clock
        .advance(std::time::Duration::from_secs(25 * 3600));
    storage.clean_once();
    assert_eq!((log.producer_count(), storage.metrics().producers), (0, 0));
}

#[test]
fn retention_removes_old_segments_by_the_brokers_clock_and_readers_are_told() {
    let house = House::new();
    let mut short = settings();
    short.segment_bytes = 4096;
    short.retention_ms = Some(60_000);
    let (storage, _) = house.open();
    storage.finish_open(&known(1)).unwrap();
    let log = storage.create_log(log_id(0), short);
    let text = "z".repeat(1000);
    let old_device_clock = 4_000_000_000_000;
    for _ in 0..10 {
        let _ = append(&storage, &log, batch(&[&text], old_device_clock));
    }
    storage.commit_once();
    storage.settle_once();
    assert!(!storage.clean_once());
    house.clock.advance(std::time::Duration::from_secs(61));
    let _ = append(&storage, &log, batch(&["young"], 5));
    storage.commit_once();
    storage.settle_once();
    assert!(storage.clean_once());
    storage.commit_once();
    storage.settle_once();
    let start = log.bounds().start.get();
    assert!(start > 0 && start < 11, "{start}");
    assert!(matches!(
        log.read(Offset::ZERO, 1 << 20, true),
        Err(ReadError::OutOfRange { .. })
    ));
    house.clock.advance(std::time::Duration::from_secs(61));
    for _ in 0..3 {
        storage.clean_once();
        storage.commit_once();
        storage.settle_once();
    }
    assert_eq!(log.bounds().start, log.bounds().end, "all of it is old now");
    assert_eq!(log.size_bytes(), 0);
    let appended = append(&storage, &log, batch(&["next"], 5));
    assert_eq!(appended.base_offset.get(), 11);
}

/// What retention leaves of a log with a retention of seven days, when the wall clock shows `jump_ms` more at the next start; `away` is
/// how long the store was really away.
fn left_after_a_stop(jump_ms: i64, away: std::time::Duration, rebooted: bool) -> u64 {
    let house = House::new();
    let mut week = settings();
    week.segment_bytes = 4096;
    week.retention_ms = Some(7 * 24 * 3_600_000);
    let (storage, _) = house.open();
    storage.finish_open(&known(1)).unwrap();
    let log = storage.create_log(log_id(0), week.clone());
    let text = "z".repeat(1000);
    for _ in 0..10 {
        drop(append(&storage, &log, batch(&[&text], 5)));
    }
    storage.commit_once();
    storage.settle_once();
    storage.shutdown();
    drop((log, storage));
    house.clock.advance(away);
    if rebooted {
        house.clock.reboot();
    }
    let now = alluvium_storage::Clock::now(house.clock.as_ref());
    house.clock.set_wall(now.plus_millis(jump_ms));
    let (storage, _) = house.open();
    storage.finish_open(&known(1)).unwrap();
    let log = storage.create_log(log_id(0), week);
    for _ in 0..3 {
        storage.clean_once();
        storage.commit_once();
        storage.settle_once();
    }
    let bounds = log.bounds();
    bounds.end.get() - bounds.start.get()
}

#[test]
fn a_clock_that_is_a_year_off_at_the_next_start_removes_nothing() {
    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    let minute = std::time::Duration::from_secs(60);
    for jump_ms in [YEAR_MS, -YEAR_MS, 3_600_000] {
        for rebooted in [false, true] {
            assert_eq!(
                left_after_a_stop(jump_ms, minute, rebooted),
                10,
                "{jump_ms}, {rebooted}"
            );
        }
    }
    // A store that was really away for longer than its retention knows it, whatever the wall clock says.
    let eight_days = 8 * 24 * 60 * minute;
    assert_eq!(left_after_a_stop(-YEAR_MS, eight_days, false), 0);
}

#[test]
fn the_whole_store_keeps_no_more_than_its_bound_and_the_oldest_goes_first() {
    let house = House::new();
    let mut config = house.config();
    let bound = 40_000;
    config.store_bytes_max = Some(bound);
    let (storage, _) = house.open_with(config);
    storage.finish_open(&known(2)).unwrap();
    let mut small = settings();
    small.segment_bytes = 4096;
    let logs = [0, 1].map(|n| storage.create_log(log_id(n), small.clone()));
    let text = "z".repeat(1000);
    let held = |log: &Log| log.bounds().end.get() - log.bounds().start.get();
    for round in 0..60 {
        // The first log gets its records first, and twice as many.
        let log = &logs[usize::from(round >= 40)];
        drop(append(&storage, log, batch(&[&text], 5)));
        storage.commit_once();
        storage.settle_once();
        house.clock.advance(std::time::Duration::from_secs(1));
        storage.clean_once();
        storage.commit_once();
        storage.settle_once();
        let bytes: u64 = logs.iter().map(|log| log.size_bytes()).sum();
        assert!(bytes <= bound, "{bytes} in round {round}");
    }
    // About 38 of 60 records of 1,060 bytes fit: all 20 of the second log, which are the newest.
    assert_eq!(held(&logs[1]), 20);
    assert!((12..=18).contains(&held(&logs[0])), "{}", held(&logs[0]));
    assert!(storage.metrics().bound_removed_bytes > 0);
    let Err(ReadError::OutOfRange { bounds, .. }) = logs[0].read(Offset::ZERO, 1 << 20, true)
    else {
        panic!("the reader is told");
    };
    assert_eq!(bounds.start.get(), 40 - held(&logs[0]));
    // Lowered while it runs, to less than what is kept.
    storage.set_live(LiveSettings {
        store_bytes_max: Some(10_000),
        scrub_bytes_per_second: 0,
        retention_check: std::time::Duration::from_secs(300),
        ..storage.live()
    });
    for _ in 0..4 {
        storage.clean_once();
        storage.commit_once();
        storage.settle_once();
    }
    let bytes: u64 = logs.iter().map(|log| log.size_bytes()).sum();
    assert!(bytes <= 10_000, "{bytes}");
    assert!(held(&logs[1]) > 0, "the newest records are kept");
}

#[test]
fn wal_files_are_used_again_once_they_have_settled() {
    let house = House::new();
    let mut config = house.config();
    config.wal_files_max = 6;
    let (storage, _) = house.open_with(config);
    storage.finish_open(&Default::default()).unwrap();
    let log = storage.create_log(log_id(0), settings());
    let value = "v".repeat(60_000);
    let mut created_early = 0;
    for round in 0..120 {
        drop(append(&storage, &log, batch(&[&value], 1)));
        storage.commit_once();
        storage.settle_once();
        if round == 30 {
            created_early = storage.metrics().wal_files_created;
        }
    }
    assert_eq!(storage.metrics().wal_files_created, created_early);
    assert!(storage.metrics().wal_files <= 6);
}

#[test]
fn the_largest_timestamp_is_not_a_deleted_records() {
    let house = House::new();
    let (storage, _) = house.open();
    storage.finish_open(&known(1)).unwrap();
    let log = storage.create_log(log_id(0), settings());
    let mut builder = BatchBuilder::new(Codec::None);
    for at in [900, 10, 20] {
        let time = Timestamp::from_millis(at);
        builder.push(time, None, Some(b"v"), &[]).unwrap();
    }
    let _ = append(
        &storage,
        &log,
        Batch::parse(builder.build().unwrap()).unwrap(),
    );
    storage.commit_once();
    let largest = || log.max_timestamp().unwrap().unwrap().offset.get();
    assert_eq!(largest(), 0);
    drop(log.delete_records(Offset::new(1)).unwrap());
    storage.commit_once();
    assert_eq!(largest(), 2, "in the middle of a batch of the tail");
    storage.settle_once();
    assert_eq!(largest(), 2, "in the middle of a batch of a segment");
}
