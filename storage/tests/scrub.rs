//! The background scrub, through the store's own door: what it finds, what it mends, and that it keeps to its rate.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alluvium_storage as storage;
use model::batch::{Batch, BatchBuilder, split};
use model::codec::Codec;
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use storage::io::SimDisk;
use storage::segment::IndexFile;
use storage::{Disk, Env, Log, LogSettings, ManualClock, ReadError, Storage, StorageConfig};

const RECORDS: u64 = 60;

struct House {
    disk: SimDisk,
    clock: Arc<ManualClock>,
}

impl House {
    /// A store with one log in several sealed segments, a record a batch, and an active one.
    fn new() -> House {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data")).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
        let house = House { disk, clock };
        let storage = house.open(1 << 20);
        for sequence in 0..RECORDS {
            let mut builder = BatchBuilder::new(Codec::None);
            builder.producer(
                model::ProducerId::new(5),
                model::ProducerEpoch::new(0),
                sequence as i32,
            );
            builder
                .push(Timestamp::from_millis(1), None, Some(&[7; 900]), &[])
                .unwrap();
            let batch = Batch::parse(builder.build().unwrap()).unwrap();
            // The pool's helper would do it.
            while storage.prepare_once().unwrap() {}
            let admission = storage.try_admit(batch.bytes().len()).unwrap();
            let appended = log(&storage).append(vec![batch.into()], admission).unwrap();
            storage.commit_once();
            appended.durable.wait().unwrap();
        }
        storage.settle_once();
        storage.shutdown();
        house
    }

    fn open(&self, scrub_bytes_per_second: u64) -> Storage {
        let mut config = StorageConfig::new("/data");
        config.wal_file_bytes = 256 << 10;
        config.wal_files_min = 2;
        config.scrub_bytes_per_second = scrub_bytes_per_second;
        let env = Env::manual(Arc::new(self.disk.clone()), self.clock.clone());
        let (storage, _) = Storage::open(config, env).unwrap();
        storage.finish_open(&HashSet::from([id()])).unwrap();
        let settings = LogSettings {
            segment_bytes: 10_000,
            ..LogSettings::from(&TopicConfig::default())
        };
        storage.create_log(id(), settings);
        storage
    }

    /// Scrubs, with the clock going on, until nothing more is verified for a while.
    fn scrub(&self, storage: &Storage) {
        let mut idle = 0;
        while idle < 50 {
            idle = if storage.scrub_once() { 0 } else { idle + 1 };
            self.clock.advance(Duration::from_millis(20));
        }
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let files = self.disk.files().into_keys();
        files
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .collect()
    }
}

fn id() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
}

fn log(storage: &Storage) -> Arc<Log> {
    storage.log(id()).unwrap()
}

#[test]
fn no_second_reads_more_than_the_rate_and_0_reads_nothing() {
    let house = House::new();
    let rate = 8_000;
    let storage = house.open(rate);
    let mut seconds = 0;
    let mut before = 0;
    while storage.metrics().scrubbed_segments < 4 {
        for _ in 0..100 {
            while storage.scrub_once() {}
            house.clock.advance(Duration::from_millis(10));
        }
        seconds += 1;
        let verified = storage.metrics().scrubbed_bytes;
        assert!(verified - before <= rate + 1_000, "{before} {verified}");
        before = verified;
        assert!(seconds < 60, "the scrub stands still");
    }
    assert!(seconds >= 4, "40 KB at 8 KB a second took {seconds} s");
    drop(storage);
    let storage = house.open(0);
    house.scrub(&storage);
    assert_eq!(storage.metrics().scrubbed_bytes, 0);
}

#[test]
fn a_flipped_bit_is_put_on_record_and_its_batch_alone_is_refused() {
    let house = House::new();
    let segment = &house.files("log")[1];
    house.disk.flip(segment, 2_500, 4);
    let storage = house.open(1 << 20);
    house.scrub(&storage);
    let health = storage.health();
    assert_eq!(health.damage.len(), 1, "{health:?}");
    let range = health.damage[0].range.clone();
    assert_eq!(range.end.since(range.start), 1);
    assert_eq!(storage.metrics().scrub_faults, 1);
    let mut readable = 0;
    for offset in (0..RECORDS).map(Offset::new) {
        match log(&storage).read(offset, 1, true) {
            Ok(chunk) => {
                readable += split(chunk.to_bytes()).count() as u64;
            }
            Err(ReadError::Damaged { range: found }) => assert_eq!(found, range),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(readable, RECORDS - 1);
    drop(storage);
    let storage = house.open(1 << 20);
    assert_eq!(
        storage.health().damage[0].range,
        range,
        "it stays on record"
    );
    house.scrub(&storage);
    assert_eq!(storage.health().damage.len(), 1, "once");
}

#[test]
fn a_damaged_or_missing_index_is_written_again_as_it_was() {
    let house = House::new();
    let indexes = house.files("idx");
    let read = |path: &PathBuf| IndexFile::decode(&house.disk.files()[path]).unwrap();
    let before: Vec<IndexFile> = indexes.iter().map(read).collect();
    house.disk.remove_file(&indexes[0]).unwrap();
    house.disk.flip(&indexes[2], 40, 1);
    let storage = house.open(1 << 20);
    house.scrub(&storage);
    assert_eq!(storage.metrics().rewritten_indexes, 2);
    assert!(storage.health().damage.is_empty());
    let after: Vec<IndexFile> = indexes.iter().map(read).collect();
    assert_eq!(after, before);
    let names = house.disk.files().into_keys();
    assert!(
        names
            .map(|path| path.display().to_string())
            .all(|name| !name.ends_with(".new"))
    );
}

#[test]
fn the_index_of_a_damaged_log_is_not_written_again() {
    let house = House::new();
    let segment = house.files("log")[0].clone();
    house.disk.flip(&segment, 500, 1);
    house.disk.remove_file(&house.files("idx")[0]).unwrap();
    let storage = house.open(1 << 20);
    house.scrub(&storage);
    assert_eq!(storage.metrics().rewritten_indexes, 0);
    assert_eq!(storage.health().damage.len(), 1);
}

#[test]
fn a_segment_that_a_reader_had_trouble_with_comes_first() {
    let house = House::new();
    let storage = house.open(1 << 20);
    house.scrub(&storage);
    assert!(storage.health().damage.is_empty());
    let segment = house.files("log")[3].clone();
    let base: u64 = segment.file_name().unwrap().to_str().unwrap()[..20]
        .parse()
        .unwrap();
    house.disk.set_unreadable(&segment, 0..u64::MAX);
    let chunk = log(&storage).read(Offset::new(base), 1 << 20, true);
    let failed = chunk.is_err() || chunk.is_ok_and(|chunk| chunk.populate().is_err());
    assert!(failed, "the disk cannot read it");
    let other = log(&storage).read(Offset::ZERO, 2_000, true).unwrap();
    assert!(other.populate().is_ok(), "another segment is not affected");
    house.scrub(&storage);
    let health = storage.health();
    assert_eq!(health.damage[0].range.start.get(), base, "{health:?}");
}

#[test]
fn what_lies_before_a_bad_sector_is_read() {
    let house = House::new();
    let storage = house.open(1 << 20);
    let segment = house.files("log")[1].clone();
    let base: u64 = segment.file_name().unwrap().to_str().unwrap()[..20]
        .parse()
        .unwrap();
    house.disk.set_unreadable(&segment, 3_500..3_501);
    let log = log(&storage);
    let mut next = Offset::new(base);
    let failed = loop {
        match log.read_warm(next, 1 << 20, true) {
            Ok(chunk) if chunk.bytes > 0 => next = chunk.end_offset,
            other => break other,
        }
    };
    let at = (next.get() - base) as usize;
    let batch_bytes = log.read(Offset::ZERO, 1, true).unwrap().bytes;
    assert!(
        matches!(failed, Err(ReadError::Io { from, .. }) if from == next),
        "{failed:?}"
    );
    assert!(
        at >= 2 && at * batch_bytes < 3_500 && (at + 2) * batch_bytes > 3_500,
        "{at}"
    );
    // Other segments are not affected.
    assert!(log.read_warm(Offset::ZERO, 2_000, true).unwrap().bytes > 0);
    assert!(
        log.read_warm(Offset::new(base + 20), 2_000, true)
            .unwrap()
            .bytes
            > 0
    );
}

#[test]
fn a_small_store_is_not_read_all_the_time() {
    let house = House::new();
    let storage = house.open(1 << 20);
    house.scrub(&storage);
    let segments = storage.metrics().scrubbed_segments;
    assert!(segments > 4);
    house.scrub(&storage);
    assert_eq!(storage.metrics().scrubbed_segments, segments);
    house.clock.advance(Duration::from_secs(3600));
    house.scrub(&storage);
    assert_eq!(storage.metrics().scrubbed_segments, 2 * segments);
}

#[test]
fn a_read_ends_before_what_is_damaged_and_goes_on_behind_it() {
    let house = House::new();
    house.disk.flip(&house.files("log")[1], 2_500, 4);
    let storage = house.open(1 << 20);
    house.scrub(&storage);
    let damaged = storage.health().damage[0].range.clone();
    let (mut from, mut offsets) = (Offset::ZERO, Vec::new());
    while from < log(&storage).bounds().durable_end {
        if from == damaged.start {
            from = damaged.end;
        }
        let chunk = log(&storage).read(from, 1 << 20, true).unwrap();
        for batch in split(chunk.to_bytes()) {
            offsets.push(batch.unwrap().header().base().get());
        }
        from = chunk.end_offset;
    }
    let expected: Vec<u64> = (0..RECORDS)
        .filter(|at| *at != damaged.start.get())
        .collect();
    assert_eq!(offsets, expected);
}

#[test]
fn a_wrong_base_offset_says_nothing_about_other_offsets_and_moves_no_end() {
    let house = House::new();
    let segment = &house.files("log")[1];
    let (batch, base) = {
        let contents = house.disk.files()[segment].clone();
        let second = split(contents.into()).nth(2).unwrap().unwrap();
        (second.bytes().len() as u64, second.header().base())
    };
    // The first byte of its base offset: as if it were 2^56 records further on.
    house.disk.flip(segment, 2 * batch, 1);
    let storage = house.open(1 << 20);
    house.scrub(&storage);
    let damage = storage.health().damage;
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!(damage[0].range, base..Offset::new(base.get() + 1));
    drop(storage);
    let storage = house.open(1 << 20);
    assert_eq!(log(&storage).bounds().end.get(), RECORDS);
    assert!(log(&storage).read(Offset::ZERO, 1, true).is_ok());
}
