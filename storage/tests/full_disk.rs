//! On a full disk what is deleted gives its space back at once, nothing of what settles is believed before it is synced, and a
//! round takes no more descriptors than there are.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use alluvium_storage as storage;
use model::batch::{Batch, BatchBuilder};
use model::codec::Codec;
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use storage::io::SimDisk;
use storage::io::sim::{Fault, Operation};
use storage::{
    AppendError, AppendSize, Disk, Env, LogSettings, ManualClock, Purpose, Storage, StorageConfig,
    Threads,
};

const VALUE_BYTES: usize = 10_000;

fn log_id(partition: u32) -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(partition))
}

fn settings(retention_ms: Option<u64>) -> LogSettings {
    LogSettings {
        segment_bytes: 50_000,
        retention_ms,
        ..LogSettings::from(&TopicConfig::default())
    }
}

/// A store of `partitions` logs on a disk of its own.
struct House {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    partitions: u32,
    threads: Threads,
}

impl House {
    fn new(partitions: u32) -> House {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        House {
            disk,
            clock: Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000))),
            partitions,
            threads: Threads::Manual,
        }
    }

    fn open(&self) -> Storage {
        let mut config = StorageConfig::new("/data");
        config.wal_file_bytes = 256 << 10;
        config.wal_files_min = 2;
        config.wal_files_max = 8;
        let env = Env {
            threads: self.threads,
            ..Env::manual(Arc::new(self.disk.clone()), self.clock.clone())
        };
        let (storage, report) = Storage::open(config, env).unwrap();
        assert_eq!(report.damage, []);
        let known: HashSet<LogId> = (0..self.partitions).map(log_id).collect();
        storage.finish_open(&known).unwrap();
        for id in known {
            storage.create_log(id, settings(None));
        }
        storage
    }

    /// The process ends without a word.
    fn kill(&self, storage: Storage) {
        self.disk.cut_power();
        drop(storage);
        self.disk.restart_process();
    }

    fn power_cut(&self, storage: Storage) {
        self.disk.cut_power();
        drop(storage);
        self.disk.restart(99);
    }

    /// Segments' files.
    fn files_of(&self, partition: u32) -> usize {
        let name = log_id(partition).to_string();
        let files = self.disk.files();
        files
            .keys()
            .filter(|path| path.to_string_lossy().contains(&name))
            .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
            .count()
    }
}

fn batch(number: u64) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    let value = vec![number as u8; VALUE_BYTES];
    let time = Timestamp::from_millis(5);
    builder.push(time, None, Some(&value), &[]).unwrap();
    Batch::parse(builder.build().unwrap()).unwrap()
}

/// Appends a record and makes it durable. False if there is no room for it.
fn append(storage: &Storage, partition: u32) -> bool {
    let log = storage.log(log_id(partition)).unwrap();
    let batch = batch(log.bounds().end.get());
    let Some(admission) = storage.try_admit(batch.bytes().len()) else {
        return false;
    };
    match log.append(vec![batch.into()], admission) {
        Ok(appended) => {
            assert!(storage.commit_once());
            appended.durable.wait().unwrap();
            true
        }
        Err(AppendError::DiskFull) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Whether records are taken, once the helper and the settler had their turn.
fn goes_on(storage: &Storage, partition: u32) -> bool {
    (0..4).any(|_| {
        storage.settle_once();
        let _ = storage.prepare_once();
        append(storage, partition)
    })
}

/// Each record is what was appended at its offset.
fn check(storage: &Storage, partition: u32) -> u64 {
    let log = storage.log(log_id(partition)).unwrap();
    let bounds = log.bounds();
    let mut next = bounds.start;
    while next < bounds.durable_end {
        let chunk = log.read(next, 1, true).unwrap();
        let read = Batch::parse(chunk.to_bytes()).unwrap();
        for record in read.records(Default::default()).unwrap() {
            let record = record.unwrap();
            let wanted = vec![record.offset.get() as u8; VALUE_BYTES];
            assert_eq!(record.value.unwrap(), wanted, "offset {}", record.offset);
        }
        next = chunk.end_offset;
    }
    assert_eq!(next, bounds.durable_end);
    bounds.durable_end.since(bounds.start)
}

/// A disk that filled up under load: the logs have segments, and something that cannot settle.
fn filled(partitions: u32) -> (House, Storage) {
    let house = House::new(partitions);
    let storage = house.open();
    for round in 0..30 {
        for partition in 0..partitions {
            while storage.prepare_once().unwrap() {}
            assert!(append(&storage, partition));
        }
        if round == 20 {
            storage.settle_once();
        }
    }
    house.disk.fill();
    while append(&storage, 0) {
        storage.settle_once();
        let _ = storage.prepare_once();
    }
    assert!(!goes_on(&storage, 0) && storage.health().disk_full);
    (house, storage)
}

fn delete_records(storage: &Storage, partition: u32, before: u64) {
    let log = storage.log(log_id(partition)).unwrap();
    let durable = log.delete_records(Offset::new(before)).unwrap();
    storage.commit_once();
    durable.wait().unwrap();
}

/// Both, before and after a kill: `remove` frees enough for records to be taken again, and what is left is whole.
fn frees(remove: impl Fn(&House, &Storage)) {
    for is_killed in [false, true] {
        let (house, mut storage) = filled(2);
        if is_killed {
            house.kill(storage);
            storage = house.open();
            assert!(!goes_on(&storage, 0));
        }
        remove(&house, &storage);
        storage.settle_once();
        assert!(goes_on(&storage, 0), "killed: {is_killed}");
        check(&storage, 0);
        house.power_cut(storage);
        let storage = house.open();
        check(&storage, 0);
        assert!(goes_on(&storage, 0), "killed: {is_killed}");
        assert!(check(&storage, 0) > 0);
    }
}

#[test]
fn deleted_records_free_a_full_disk() {
    frees(|_, storage| delete_records(storage, 0, 15));
}

#[test]
fn a_deleted_log_frees_a_full_disk() {
    frees(|house, storage| {
        assert!(house.files_of(1) > 0);
        storage.delete_log(log_id(1));
        storage.settle_once();
        assert_eq!(house.files_of(1), 0);
        // It is not known to the next start either.
        storage.create_log(log_id(1), settings(None));
    });
}

#[test]
fn lowered_retention_frees_a_full_disk() {
    frees(|house, storage| {
        house.clock.advance(Duration::from_secs(60));
        storage.set_settings(log_id(1), settings(Some(1_000)));
        assert!(storage.clean_once());
        while storage.commit_once() {}
        let bounds = storage.log(log_id(1)).unwrap().bounds();
        // Also what waits in the write-ahead log, and could not settle.
        assert_eq!(bounds.start, bounds.durable_end);
        storage.settle_once();
        assert_eq!(house.files_of(1), 0);
    });
}

#[test]
fn deleted_records_of_the_write_ahead_log_are_not_settled_and_need_no_space() {
    let house = House::new(1);
    let storage = house.open();
    // Both checkpoints are there.
    for _ in 0..2 {
        assert!(append(&storage, 0));
        storage.settle_once();
    }
    delete_records(&storage, 0, 2);
    storage.settle_once();
    for _ in 0..8 {
        while storage.prepare_once().unwrap() {}
        assert!(append(&storage, 0));
    }
    house.disk.fill();
    delete_records(&storage, 0, 10);
    assert!(storage.settle_once());
    let bounds = storage.log(log_id(0)).unwrap().bounds();
    assert_eq!(
        (bounds.start, bounds.settled_end),
        (Offset::new(10), Offset::new(10))
    );
    assert_eq!(house.files_of(0), 0);
    assert!(append(&storage, 0));
    house.disk.set_capacity(u64::MAX);
    house.power_cut(storage);
    let storage = house.open();
    assert_eq!(check(&storage, 0), 1);
}

#[test]
fn deletions_are_taken_when_nothing_else_is() {
    let (_house, storage) = filled(1);
    let log = storage.log(log_id(0)).unwrap();
    let take = |purpose| {
        let batch = batch(log.bounds().end.get());
        let admission = now(storage.admit_for(AppendSize::of_one(batch.bytes().len()), purpose));
        log.append(vec![batch.into()], admission).map(drop)
    };
    assert!(matches!(take(Purpose::Records), Err(AppendError::DiskFull)));
    take(Purpose::Settings).unwrap();
    take(Purpose::Removal).unwrap();
    // Nothing waits for a file that cannot come.
    assert!(storage.commit_once());
}

/// What has to be decided at once on a full disk.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    match future.as_mut().poll(&mut context) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn what_a_failed_sync_left_in_the_page_cache_is_settled_again() {
    for (partitions, operation) in [(2, Operation::SyncData), (40, Operation::SyncFilesystem)] {
        let house = House::new(partitions);
        let storage = house.open();
        for _ in 0..3 {
            for partition in 0..partitions {
                while storage.prepare_once().unwrap() {}
                while !append(&storage, partition) {
                    storage.settle_once();
                    while storage.prepare_once().unwrap() {}
                }
            }
        }
        // As a file system does that finds out about its space when it writes: the pages are clean then, and lost.
        house.disk.inject(Fault {
            operation,
            path_contains: if partitions > 24 { "/data" } else { "/data/p/" }.to_owned(),
            skip: 0,
            times: 100,
            errno: libc::ENOSPC,
        });
        storage.settle_once();
        assert!(storage.health().disk_full && storage.health().failed.is_none());
        house.disk.clear_faults();
        storage.settle_once();
        assert!(!storage.health().disk_full);
        let log = storage.log(log_id(0)).unwrap();
        assert_eq!(log.bounds().settled_end, log.bounds().durable_end);
        // Both checkpoints lie behind it, and the write-ahead log does not hold it any more.
        for _ in 0..2 {
            assert!(append(&storage, 0));
            storage.settle_once();
        }
        house.power_cut(storage);
        let storage = house.open();
        for partition in 0..partitions {
            assert!(check(&storage, partition) >= 3);
        }
    }
}

#[test]
fn a_round_goes_through_more_logs_than_there_are_descriptors() {
    let house = House::new(600);
    let storage = house.open();
    for partition in 0..house.partitions {
        while storage.prepare_once().unwrap() {}
        while !append(&storage, partition) {
            storage.settle_once();
            while storage.prepare_once().unwrap() {}
        }
    }
    house.disk.set_descriptors(house.disk.descriptors() + 40);
    storage.settle_once();
    assert_eq!(storage.health().failed, None);
    let settled = |storage: &Storage| {
        (0..house.partitions).all(|partition| {
            let bounds = storage.log(log_id(partition)).unwrap().bounds();
            bounds.settled_end == Offset::new(1)
        })
    };
    assert!(settled(&storage));
    house.power_cut(storage);
    let storage = house.open();
    assert!(settled(&storage), "all of it was named by a checkpoint");
    assert_eq!(check(&storage, 599), 1);
}

/// A store with a record in each of 30 logs, nothing settled.
fn many_new_logs() -> (House, Storage) {
    let house = House::new(30);
    let storage = house.open();
    for partition in 0..house.partitions {
        while storage.prepare_once().unwrap() {}
        assert!(append(&storage, partition));
    }
    (house, storage)
}

#[test]
fn a_power_cut_during_a_round_whose_logs_share_their_syncs_loses_nothing() {
    let (house, storage) = many_new_logs();
    let begin = house.disk.operations();
    assert!(storage.settle_once());
    let operations = house.disk.operations() - begin;
    for cut in 1..=operations {
        let (house, storage) = many_new_logs();
        house.disk.cut_power_during(house.disk.operations() + cut);
        storage.settle_once();
        assert!(house.disk.is_off(), "cut {cut}");
        drop(storage);
        house.disk.restart(cut);
        let storage = house.open();
        for _ in 0..2 {
            for partition in 0..house.partitions {
                assert_eq!(check(&storage, partition), 1, "cut {cut}");
            }
            storage.settle_once();
        }
    }
}

#[test]
fn new_logs_of_one_round_share_their_syncs() {
    let house = House::new(500);
    let storage = house.open();
    for partition in 0..100 {
        while storage.prepare_once().unwrap() {}
        while !append(&storage, partition) {
            storage.settle_once();
            while storage.prepare_once().unwrap() {}
        }
    }
    storage.settle_once();
    for partition in 200..210 {
        assert!(append(&storage, partition));
    }
    let before = house.disk.operations();
    assert!(storage.settle_once());
    let operations = house.disk.operations() - before;
    // Each: its directory, its file, its write. And few for all: the syncs, and the checkpoint.
    assert!(operations < 10 * 3 + 30, "{operations} operations");
}

struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for leave to append: the store's own thread may still be at its first files.
fn admit(storage: &Storage, bytes: usize) -> storage::Admission {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut asked = std::pin::pin!(storage.admit(bytes));
    loop {
        match asked.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(admission) => return admission,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn the_end_of_a_store_leaves_what_is_unsettled_to_the_next_start() {
    let mut house = House::new(12);
    house.threads = Threads::Own;
    let storage = house.open();
    for partition in 0..house.partitions {
        let log = storage.log(log_id(partition)).unwrap();
        let batch = batch(0);
        let admission = admit(&storage, batch.bytes().len());
        let appended = log.append(vec![batch.into()], admission).unwrap();
        appended.durable.wait().unwrap();
    }
    let before = house.disk.operations();
    storage.shutdown();
    let operations = house.disk.operations() - before;
    assert!(operations < 20, "{operations} operations to stop");
    drop(storage);
    let storage = house.open();
    for partition in 0..house.partitions {
        assert_eq!(check(&storage, partition), 1);
    }
    storage.shutdown();
}
