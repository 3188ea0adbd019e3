//! A batch is checked before it is served from a segment for the first time: what was changed on the disk is never given as
//! sound, is put on record, and what lies before and behind it is given. No scrub runs here, and the reader looks at no
//! checksum, as librdkafka does by default.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluvium_storage as storage;
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, split_unverified};
use model::codec::Codec;
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use storage::io::SimDisk;
use storage::{Disk, Env, Log, LogSettings, ManualClock, ReadError, Storage, StorageConfig};

const BATCHES: u64 = 60;
/// Records of a batch.
const RECORDS: u64 = 2;

/// A store with one log; a segment holds as many batches as `segment_bytes` lets it.
struct Store {
    disk: SimDisk,
    segment_bytes: u64,
}

impl Store {
    fn new(segment_bytes: u64) -> Store {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data")).unwrap();
        let store = Store {
            disk,
            segment_bytes,
        };
        let storage = store.open();
        for batch in 0..BATCHES {
            append(&storage, batch);
        }
        storage.settle_once();
        storage.shutdown();
        store
    }

    fn open(&self) -> Storage {
        let mut config = StorageConfig::new("/data");
        config.wal_file_bytes = 1 << 20;
        config.wal_files_min = 2;
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
        let disk = Arc::new(self.disk.clone());
        let (storage, _) = Storage::open(config, Env::manual(disk, clock)).unwrap();
        storage.finish_open(&HashSet::from([id()])).unwrap();
        let settings = LogSettings {
            segment_bytes: self.segment_bytes,
            ..LogSettings::from(&TopicConfig::default())
        };
        storage.create_log(id(), settings);
        storage
    }

    fn logs(&self) -> Vec<PathBuf> {
        let is_log = |path: &PathBuf| path.extension().is_some_and(|found| found == "log");
        self.disk.files().into_keys().filter(is_log).collect()
    }

    /// The batches of a segment, where they are and which offsets they hold.
    fn batches_of(&self, path: &Path) -> Vec<(usize, std::ops::Range<u64>)> {
        let mut at = 0;
        let mut found = Vec::new();
        for batch in split_unverified(self.disk.files()[path].clone().into()) {
            let Ok(batch) = batch else { break };
            let header = batch.header();
            found.push((at, header.base().get()..header.next_offset().get()));
            at += batch.bytes().len();
        }
        found
    }
}

/// Damages a batch of the first segment, and has a reader find it.
fn damaged(store: &Store) -> (Storage, PathBuf, Vec<u8>) {
    let path = store.logs().into_iter().next().unwrap();
    let before = store.disk.files()[&path].clone();
    let (at, range) = store.batches_of(&path)[1].clone();
    let file = store
        .disk
        .open(&path, storage::io::OpenHow::ReadWrite)
        .unwrap();
    file.write_at(at as u64 + 100, b"#").unwrap();
    file.sync_data().unwrap();
    let storage = store.open();
    let read = log(&storage).read(Offset::new(range.start), 1 << 20, true);
    assert!(matches!(read, Err(ReadError::Damaged { .. })));
    assert_eq!(storage.health().damage.len(), 1);
    (storage, path, before)
}

#[test]
fn acknowledged_damage_is_no_alert_and_stays_unreadable() {
    use storage::acknowledged::{Acknowledgement, add};
    let store = Store::new(4096);
    let (storage, _, _) = damaged(&store);
    let damage = storage.health().damage[0].clone();
    let line = Acknowledgement::of(&damage, "me", 5, "");
    add(&store.disk, Path::new("/data"), &[line]).unwrap();
    storage.clean_once();
    assert!(storage.health().damage.is_empty());
    assert_eq!(
        storage.health().damage_acknowledged,
        std::slice::from_ref(&damage)
    );
    storage.shutdown();
    drop(storage);
    let storage = store.open();
    assert!(storage.health().damage.is_empty(), "after a start too");
    let read = log(&storage).read(damage.range.start, 1 << 20, true);
    assert!(matches!(read, Err(ReadError::Damaged { .. })));
    // Once it is deleted there is nothing left to be reported.
    let deleted = log(&storage).delete_records(damage.range.end).unwrap();
    storage.commit_once();
    deleted.wait().unwrap();
    assert!(storage.health().damage_acknowledged.is_empty());
}

#[test]
fn a_segment_that_is_restored_reads_again_once_its_line_is_off_the_record() {
    let store = Store::new(4096);
    let (storage, path, before) = damaged(&store);
    let range = storage.health().damage[0].range.clone();
    storage.shutdown();
    drop(storage);
    let file = store
        .disk
        .open(&path, storage::io::OpenHow::ReadWrite)
        .unwrap();
    file.write_at(0, &before).unwrap();
    file.sync_data().unwrap();
    store.disk.remove_file(Path::new("/data/DAMAGE")).unwrap();
    let storage = store.open();
    assert!(storage.health().damage.is_empty());
    assert!(log(&storage).read(range.start, 1 << 20, true).is_ok());
}

fn id() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
}

fn log(storage: &Storage) -> Arc<Log> {
    storage.log(id()).unwrap()
}

fn value(offset: u64) -> Bytes {
    format!("{offset:05}-{}", "v".repeat(400)).into()
}

fn append(storage: &Storage, batch: u64) {
    let mut builder = BatchBuilder::new(Codec::None);
    for offset in batch * RECORDS..(batch + 1) * RECORDS {
        builder
            .push(Timestamp::from_millis(1), None, Some(&value(offset)), &[])
            .unwrap();
    }
    let batch = Batch::parse(builder.build().unwrap()).unwrap();
    while storage.prepare_once().unwrap() {}
    let admission = storage.try_admit(batch.bytes().len()).unwrap();
    let appended = log(storage).append(vec![batch.into()], admission).unwrap();
    storage.commit_once();
    appended.durable.wait().unwrap();
}

/// What a reader gets who goes on behind every damage, and the ranges that are named to it.
fn read(log: &Log) -> (BTreeMap<u64, Bytes>, Vec<std::ops::Range<u64>>) {
    let (mut records, mut named) = (BTreeMap::new(), Vec::new());
    let mut from = log.bounds().start;
    while from < log.bounds().durable_end {
        match log.read_warm(from, 1 << 20, true) {
            Ok(chunk) => {
                assert!(chunk.end_offset > from, "it stands still at {from}");
                for batch in split_unverified(chunk.to_bytes()) {
                    for record in batch.unwrap().records(Default::default()).unwrap() {
                        let record = record.unwrap();
                        records.insert(record.offset.get(), record.value.unwrap());
                    }
                }
                from = chunk.end_offset;
            }
            Err(ReadError::Damaged { range }) => {
                assert!(range.contains(&from), "{from} is not in {range:?}");
                named.push(range.start.get()..range.end.get());
                from = range.end;
            }
            Err(error) => panic!("{from}: {error}"),
        }
    }
    (records, named)
}

/// All records but those of `lost` are read, as they were sent.
fn assert_all_but(name: &str, records: &BTreeMap<u64, Bytes>, lost: &[std::ops::Range<u64>]) {
    for offset in 0..BATCHES * RECORDS {
        let is_lost = lost.iter().any(|range| range.contains(&offset));
        let expected = (!is_lost).then(|| value(offset));
        assert_eq!(records.get(&offset), expected.as_ref(), "{name}: {offset}");
    }
}

/// In segments that are sealed, and in one that is active.
fn sealed_and_active() -> [(Store, PathBuf); 2] {
    let sealed = Store::new(10_000);
    let second = sealed.logs()[1].clone();
    assert!(second.with_extension("idx").exists() || sealed.logs().len() > 3);
    let active = Store::new(1 << 20);
    let only = active.logs()[0].clone();
    assert_eq!(active.logs().len(), 1);
    [(sealed, second), (active, only)]
}

#[test]
fn a_changed_value_is_named_and_put_on_record_by_the_first_read() {
    for (store, path) in sealed_and_active() {
        let batches = store.batches_of(&path);
        for (nth, (at, offsets)) in batches.iter().enumerate().step_by(5) {
            let name = format!("{} batch {nth}", path.display());
            let position = *at as u64 + 61 + 300;
            store.disk.flip(&path, position, 4);
            let storage = store.open();
            let (records, named) = read(&log(&storage));
            assert_eq!(named, std::slice::from_ref(offsets), "{name}");
            assert_all_but(&name, &records, std::slice::from_ref(offsets));
            let on_record = storage.health().damage;
            assert_eq!(on_record.len(), 1, "{name}: {on_record:?}");
            assert_eq!(on_record[0].range.start.get(), offsets.start, "{name}");
            assert_eq!(storage.metrics().read_faults, 1);
            // And a later read, also after another start, adds nothing to it.
            assert_eq!(read(&log(&storage)).1, named, "{name}");
            drop(storage);
            let storage = store.open();
            assert_eq!(read(&log(&storage)).1, named, "{name}");
            assert_eq!(storage.health().damage, on_record, "{name}");
            drop(storage);
            store.disk.flip(&path, position, 4);
            store.disk.remove_file(Path::new("/data/DAMAGE")).unwrap();
        }
    }
}

#[test]
fn damage_while_the_store_runs_is_named_too_until_the_batch_was_served_once() {
    let (store, path) = sealed_and_active().into_iter().nth(1).unwrap();
    let storage = store.open();
    let batches = store.batches_of(&path);
    let blocks = 16 * 1024;
    let (first, (far, offsets)) = (
        &batches[0],
        batches.iter().find(|(at, _)| *at > 2 * blocks).unwrap(),
    );
    log(&storage).read(Offset::ZERO, 1, true).unwrap();
    // What was checked is not looked at again while the file is open: warm reads pay nothing.
    store.disk.flip(&path, first.0 as u64 + 200, 1);
    store.disk.flip(&path, *far as u64 + 200, 1);
    let chunk = log(&storage).read(Offset::ZERO, 1, true).unwrap();
    assert_eq!(chunk.end_offset.get(), first.1.end);
    let (_, named) = read(&log(&storage));
    assert_eq!(named, std::slice::from_ref(offsets));
    // Opened anew it is.
    drop(storage);
    let storage = store.open();
    let (records, named) = read(&log(&storage));
    let lost = [first.1.clone(), offsets.clone()];
    assert_eq!(named, lost);
    assert_all_but("opened anew", &records, &lost);
}

#[test]
fn what_settles_behind_a_checked_block_is_checked_too() {
    let store = Store::new(1 << 20);
    let path = store.logs()[0].clone();
    let storage = store.open();
    let (records, named) = read(&log(&storage));
    assert_all_but("before", &records, &named);
    for batch in BATCHES..BATCHES + 40 {
        append(&storage, batch);
    }
    storage.settle_once();
    let (at, offsets) = store.batches_of(&path)[BATCHES as usize].clone();
    store.disk.flip(&path, at as u64 + 100, 0x10);
    let (records, named) = read(&log(&storage));
    assert_eq!(named, [offsets]);
    assert_eq!(records.len() as u64, (BATCHES + 39) * RECORDS);
}

#[test]
fn a_head_that_was_changed_while_the_store_ran_costs_its_block_at_most() {
    let store = Store::new(1 << 20);
    let path = store.logs()[0].clone();
    let batches = store.batches_of(&path);
    for (at, offsets) in batches.iter().skip(3).step_by(9) {
        for byte in 0..61 {
            let storage = store.open();
            // The index is made from what stands there, as after a settling.
            log(&storage).read(Offset::ZERO, 1, true).unwrap();
            if *at < 16 * 1024 {
                continue;
            }
            store.disk.flip(&path, *at as u64 + byte, 0x40);
            let name = format!("byte {byte} of the head at {at}");
            let (records, named) = read(&log(&storage));
            let is_named = |offset: &u64| named.iter().any(|range| range.contains(offset));
            assert!(offsets.clone().any(|offset| is_named(&offset)), "{name}");
            assert_all_but(&name, &records, &named);
            let lost: u64 = named.iter().map(|range| range.end - range.start).sum();
            assert!(lost <= 22 * RECORDS, "{name}: {named:?}");
            assert!(!storage.health().damage.is_empty(), "{name}");
            drop(storage);
            store.disk.flip(&path, *at as u64 + byte, 0x40);
            store.disk.remove_file(Path::new("/data/DAMAGE")).unwrap();
        }
    }
}

#[test]
fn what_lies_before_and_behind_an_unreadable_sector_is_read() {
    for (store, path) in sealed_and_active() {
        let (at, offsets) = store.batches_of(&path)[4].clone();
        store
            .disk
            .set_unreadable(&path, at as u64 + 500..at as u64 + 501);
        let storage = store.open();
        let log = log(&storage);
        let mut from = Offset::ZERO;
        while from.get() < offsets.start {
            let chunk = log.read_warm(from, 1 << 20, true).unwrap();
            assert!(chunk.end_offset > from);
            from = chunk.end_offset;
        }
        let failed = log.read_warm(from, 1 << 20, true);
        assert!(
            matches!(failed, Err(ReadError::Io { from, .. }) if from.get() == offsets.start),
            "{failed:?}"
        );
        let behind = log.read_warm(Offset::new(offsets.end), 1 << 20, true);
        assert!(behind.unwrap().end_offset.get() > offsets.end);
        // Whether it stays unreadable is for the scrub to say.
        assert!(storage.health().damage.is_empty());
    }
}

#[test]
fn what_is_read_without_the_disk_was_checked_before_and_is_the_same() {
    let store = Store::new(4096);
    let storage = store.open();
    let log = log(&storage);
    let mut from = Offset::ZERO;
    while from < log.bounds().durable_end {
        let at_once = log.read_in_memory(from, 1000, true).unwrap();
        assert!(at_once.is_none(), "nothing of {from} was checked yet");
        let found = log.read(from, 1000, true).unwrap();
        let again = log.read_in_memory(from, 1000, true).unwrap();
        let again = again.expect("it was checked, and the simulated disk is memory");
        assert_eq!(again.to_bytes(), found.to_bytes());
        assert_eq!(again.end_offset, found.end_offset);
        // Behind what was checked as a block, the next one was not.
        from = Offset::new(from.get() + BATCHES * RECORDS / 3);
    }
}

#[test]
fn a_small_segment_is_read_without_the_file_once_it_was_and_a_large_one_is_not() {
    for (segment_bytes, is_kept) in [(4096, true), (1 << 20, false)] {
        let store = Store::new(segment_bytes);
        let storage = store.open();
        let log = log(&storage);
        let read = log.read(Offset::ZERO, 1000, true).unwrap();
        let again = log.read_in_memory(Offset::ZERO, 1000, true).unwrap();
        assert_eq!(again.unwrap().to_bytes(), read.to_bytes());
        let path = store.logs().into_iter().next().unwrap();
        store.disk.set_unreadable(&path, 0..4096);
        let last = log.read_in_memory(Offset::ZERO, 1000, true).unwrap();
        let last = last.map(|chunk| chunk.to_bytes());
        assert_eq!(last, is_kept.then(|| read.to_bytes()), "{segment_bytes}");
    }
}
