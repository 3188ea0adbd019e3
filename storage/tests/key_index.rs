//! Key indexes on a store: a scan by key shows what a brute-force filter of all records has, and reads a part of it; indexes come
//! and go with their segments and their setting; a cut at any operation leaves a store that is as it was.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alluvium_storage::cleanup::Policy;
use alluvium_storage::cleanup::run::{Progress, RunOptions};
use alluvium_storage::inspect::verify_store;
use alluvium_storage::io::{Disk, ManualClock, SimDisk};
use alluvium_storage::{
    AppendBatch, Env, Log, LogSettings, ScanCounts, ScanRange, Scanned, Storage, StorageConfig,
};
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, Codec, split};
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};

/// Records in a batch, and bytes of a value: a block is some eight batches.
const RECORDS: u64 = 20;
const VALUE_BYTES: usize = 90;
/// Devices, each of which sends a batch's records in a row.
const DEVICES: u64 = 40;

fn log_id() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
}

fn settings(key_index: bool) -> LogSettings {
    LogSettings {
        segment_bytes: 300 << 10,
        key_index,
        ..LogSettings::from(&TopicConfig::default())
    }
}

fn device(number: u64) -> Bytes {
    format!("device-{number}").into()
}

/// Key and value of a record.
type Record = (Option<Bytes>, Bytes);

struct House {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    storage: Storage,
    records: BTreeMap<u64, Record>,
}

impl House {
    fn new(key_index: bool) -> House {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
        let storage = open(&disk, &clock).unwrap();
        storage.create_log(log_id(), settings(key_index));
        House {
            disk,
            clock,
            storage,
            records: BTreeMap::new(),
        }
    }

    /// With some sealed segments, and records behind them.
    fn filled(key_index: bool, batches: u64) -> House {
        let mut house = House::new(key_index);
        for _ in 0..batches {
            house.append();
        }
        house.settle();
        house
    }

    fn log(&self) -> Arc<Log> {
        self.storage.log(log_id()).unwrap()
    }

    /// A batch of one device's records, and one without a key.
    fn append(&mut self) {
        let base = self.records.len() as u64;
        let mut builder = BatchBuilder::new(Codec::None);
        for record in 0..RECORDS {
            let key = (record > 0).then(|| device(base / RECORDS * 7 % DEVICES));
            let value = Bytes::from(format!("{:0>VALUE_BYTES$}", base + record));
            let time = Timestamp::from_millis(5);
            builder
                .push(time, key.as_deref(), Some(&value), &[])
                .unwrap();
            self.records.insert(base + record, (key, value));
        }
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        while self.storage.prepare_once().unwrap() {}
        let admission = self
            .storage
            .try_admit(batch.bytes().len())
            .unwrap_or_else(|| {
                self.storage.settle_once();
                self.storage.try_admit(batch.bytes().len()).unwrap()
            });
        let appended = self.log().append(vec![AppendBatch::from(batch)], admission);
        self.storage.commit_once();
        appended.unwrap().durable.wait().unwrap();
    }

    fn settle(&self) {
        while self.storage.settle_once() {}
    }

    fn index(&self) {
        while self.storage.index_keys_once() {}
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let is_it = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
        self.disk.files().into_keys().filter(is_it).collect()
    }

    /// Sealed segments.
    fn sealed(&self) -> usize {
        self.files("idx").len()
    }

    /// Scans for each device, and checks what is shown against all records that were appended; gives the sum of the counts.
    fn check(&self) -> ScanCounts {
        let mut counts = ScanCounts::default();
        for number in 0..DEVICES + 3 {
            let key = device(number);
            let (found, of_key) = scan(&self.log(), Some(key.clone()));
            let has_key = |record: &Record| record.0.as_ref() == Some(&key);
            let found: Vec<_> = found
                .into_iter()
                .filter(|(_, record)| has_key(record))
                .collect();
            let start = self.log().bounds().start.get();
            let expected = self
                .records
                .range(start..)
                .filter(|(_, record)| has_key(record));
            let expected: Vec<_> = expected.map(|(at, record)| (*at, record.clone())).collect();
            assert_eq!(found, expected, "device {number}");
            counts.bytes += of_key.bytes;
            counts.skipped_bytes += of_key.skipped_bytes;
        }
        counts
    }

    fn restart(self) -> House {
        let House {
            disk,
            clock,
            storage,
            records,
        } = self;
        storage.shutdown();
        // The directory's lock goes with it.
        drop(storage);
        disk.restart_process();
        let storage = open(&disk, &clock).unwrap();
        House {
            disk,
            clock,
            storage,
            records,
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut report = |finding: alluvium_storage::inspect::Finding| {
            notes.push(format!("{}: {}", finding.path.display(), finding.reason));
        };
        let summary = verify_store(&self.disk, Path::new("/data"), &mut report).unwrap();
        assert_eq!((summary.damaged, summary.refusals), (0, 0), "{notes:?}");
        notes
    }
}

fn open(disk: &SimDisk, clock: &Arc<ManualClock>) -> Result<Storage, String> {
    let mut config = StorageConfig::new("/data");
    config.wal_file_bytes = 256 << 10;
    config.wal_files_min = 2;
    config.wal_files_max = 16;
    let env = Env::manual(Arc::new(disk.clone()), clock.clone());
    let (storage, report) = Storage::open(config, env).map_err(|error| error.to_string())?;
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    let known = HashSet::from([log_id()]);
    storage
        .finish_open(&known)
        .map_err(|error| error.to_string())?;
    Ok(storage)
}

/// All records that a scan shows, and what it counted.
fn scan(log: &Log, key: Option<Bytes>) -> (Vec<(u64, Record)>, ScanCounts) {
    let bounds = log.bounds();
    let mut scan = log.scan(ScanRange {
        offsets: bounds.start..bounds.durable_end,
        times: None,
        key,
        run_bytes: 256 << 10,
    });
    let mut found = Vec::new();
    while let Some(step) = scan.next_step().unwrap() {
        let Scanned::Run { batches, offsets } = step else {
            panic!("nothing is missing: {step:?}");
        };
        for batch in split(batches) {
            for record in batch.unwrap().records(Default::default()).unwrap() {
                let record = record.unwrap();
                if offsets.contains(&record.offset) {
                    found.push((record.offset.get(), (record.key, record.value.unwrap())));
                }
            }
        }
    }
    assert_eq!(
        scan.next_offset(),
        bounds.durable_end,
        "all of it was passed"
    );
    (found, scan.counts())
}

#[test]
fn a_scan_by_key_shows_all_of_it_and_reads_a_small_part() {
    let house = House::filled(true, 700);
    assert!(house.sealed() >= 4, "{}", house.sealed());
    let all = house.check();
    assert_eq!(all.skipped_bytes, 0, "there is no key index yet");
    house.index();
    assert_eq!(house.files("kix").len(), house.sealed());
    assert_eq!(house.notes(), Vec::<String>::new());
    let some = house.check();
    assert_eq!(some.bytes + some.skipped_bytes, all.bytes);
    // Every device is in a fifth of the blocks; the tail and the active segment are read whole.
    assert!(some.bytes * 2 < all.bytes, "{some:?} of {all:?}");
    assert_eq!(scan(&house.log(), None).1.skipped_bytes, 0, "all keys");
    let metrics = house.storage.metrics().key_indexes;
    assert_eq!(metrics.built, house.sealed() as u64);
    assert!(metrics.written_bytes <= metrics.indexed_bytes / 80 + 200 * metrics.built);
    // After a start they are there, and nothing is made again.
    let house = house.restart();
    assert!(!house.storage.index_keys_once());
    assert_eq!(house.check(), some);
}

#[test]
fn the_setting_makes_and_removes_them() {
    let house = House::filled(false, 300);
    house.index();
    assert_eq!(house.files("kix").len(), 0);
    house.storage.set_settings(log_id(), settings(true));
    house.index();
    assert_eq!(house.files("kix").len(), house.sealed());
    assert!(house.check().skipped_bytes > 0);
    house.storage.set_settings(log_id(), settings(false));
    house.index();
    assert_eq!(house.files("kix").len(), 0);
    assert_eq!(house.check().skipped_bytes, 0);
}

#[test]
fn one_that_is_missing_damaged_or_of_another_segment_is_made_again() {
    let house = House::filled(true, 400);
    house.index();
    let some = house.check();
    let files = house.files("kix");
    let contents = |house: &House| -> Vec<_> {
        let all = house.disk.files();
        house
            .files("kix")
            .iter()
            .map(|file| all[file].clone())
            .collect()
    };
    let sound = contents(&house);
    assert!(files.len() >= 2);

    house.disk.remove_file(&files[0]).unwrap();
    house.disk.flip(&files[1], 40, 1);
    let noted = house.notes();
    assert!(noted.len() == 1 && noted[0].contains(".kix"), "{noted:?}");
    // A look-up keeps the file open that it knows: a start knows none.
    let house = house.restart();
    let before = house.check();
    assert!(before.bytes > some.bytes, "two segments are read whole");
    house.index();
    assert_eq!(house.check(), some);

    house.disk.remove_file(&files[0]).unwrap();
    house.disk.link(&files[1], &files[0]).unwrap();
    let noted = house.notes();
    assert!(
        noted.len() == 1 && noted[0].contains("not of this"),
        "{noted:?}"
    );
    let house = house.restart();
    house.check();
    house.index();
    assert_eq!(house.check(), some);
    assert!(contents(&house) == sound, "the same bytes");
}

#[test]
fn one_of_a_later_release_is_left_as_it_is_and_not_used() {
    let house = House::filled(true, 200);
    house.index();
    let file = &house.files("kix")[0];
    house.disk.flip(file, 8, 2);
    let later = house.disk.files()[file].clone();
    let house = house.restart();
    house.check();
    house.index();
    assert_eq!(house.disk.files()[file], later);
}

#[test]
fn it_goes_with_its_segment() {
    let house = House::filled(true, 500);
    house.index();
    let sealed = house.sealed();
    let before = Offset::new(house.records.len() as u64 / 2);
    let durable = house.log().delete_records(before).unwrap();
    house.storage.commit_once();
    durable.wait().unwrap();
    house.settle();
    assert!(house.sealed() < sealed);
    assert_eq!(house.files("kix").len(), house.sealed());
    house.check();

    // A compaction makes new segments: the old ones' indexes go with them.
    let compacted = LogSettings {
        compaction: Some(TopicConfig::default().compaction),
        segment_bytes: 300 << 10,
        ..settings(true)
    };
    house.storage.set_settings(log_id(), compacted);
    let options = RunOptions {
        now: true,
        ..RunOptions::default()
    };
    let progress = Progress::default();
    let ran = house
        .storage
        .run_cleanup(log_id(), Policy::Compaction, options, &progress);
    assert!(ran.unwrap().records_removed > 0);
    house.settle();
    let of = |extension| -> Vec<_> {
        let files = house.files(extension).into_iter();
        files.map(|file| file.with_extension("")).collect()
    };
    let (indexed, live) = (of("kix"), of("idx"));
    assert!(
        indexed.iter().all(|file| live.contains(file)),
        "{indexed:?} of {live:?}"
    );
    house.storage.delete_log(log_id());
    house.settle();
    assert!(house.files("kix").is_empty());
}

#[test]
fn a_damaged_segment_gets_none_until_it_is_looked_at_again() {
    let house = House::filled(true, 300);
    let log = house.files("log")[0].clone();
    house.disk.flip(&log, 100_000, 1);
    house.index();
    assert_eq!(house.files("kix").len(), house.sealed() - 1);
    assert_eq!(house.storage.metrics().key_indexes.failed, 1);
    house.disk.flip(&log, 100_000, 1);
    house.index();
    assert_eq!(house.files("kix").len(), house.sealed() - 1);
    house.clock.advance(Duration::from_secs(3601));
    house.index();
    assert_eq!(house.files("kix").len(), house.sealed());
    assert_eq!(house.notes(), Vec::<String>::new());
}

#[test]
fn a_cut_at_any_operation_leaves_a_store_that_is_as_it_was() {
    let whole = House::filled(true, 350);
    let begin = whole.disk.operations();
    whole.index();
    let end = whole.disk.operations();
    assert!(end - begin >= 12, "{} operations", end - begin);
    let sealed = whole.sealed();
    let sound = whole.check();
    for cut in begin + 1..=end {
        let house = House::filled(true, 350);
        house.disk.cut_power_during(cut);
        house.index();
        assert!(
            house.disk.is_off(),
            "cut {cut} of {begin}..{end}, {}",
            house.disk.operations()
        );
        house.disk.restart(cut);
        let house = house.restart();
        house.storage.create_log(log_id(), settings(true));
        house.check();
        house.index();
        house.settle();
        assert_eq!(house.files("kix").len(), sealed, "cut {cut}");
        assert!(
            house
                .disk
                .files()
                .keys()
                .all(|path| !path.ends_with("kix.new"))
        );
        assert_eq!(house.check(), sound, "cut {cut}");
        assert_eq!(house.notes(), Vec::<String>::new());
    }
}
