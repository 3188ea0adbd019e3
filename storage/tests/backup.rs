//! Backup and restore on the simulated disk: while a store appends, settles, deletes and recycles between any two pieces that
//! are copied; with the power cut at each operation; with damage in the source, in the copy, and in nothing.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alluvium_storage as storage;
use model::batch::{Batch, BatchBuilder, split};
use model::codec::Codec;
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use storage::backup::{
    BackupError, BackupOrder, BackupTaken, RestoreOrder, check_backup, list, restore, take_backup,
};
use storage::inspect::verify_store;
use storage::io::SimDisk;
use storage::{Disk, Env, Log, LogSettings, ManualClock, Storage, StorageConfig};

const SOURCE: &str = "/data";
const PLACE: &str = "/backups";

/// A store, and what it has acknowledged: by log, offset and payload.
struct House {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    storage: Option<Storage>,
    acknowledged: BTreeMap<(LogId, u64), Vec<u8>>,
    /// The start of each log.
    starts: BTreeMap<LogId, u64>,
    appended: u64,
    random: u64,
}

fn id(log: u8) -> LogId {
    LogId::new(TopicId::from_bytes([log; 16]), PartitionId::new(0))
}

impl House {
    fn new(seed: u64) -> House {
        let disk = SimDisk::new(seed);
        disk.create_dir_all(Path::new(SOURCE)).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
        let mut house = House {
            disk,
            clock,
            storage: None,
            acknowledged: BTreeMap::new(),
            starts: BTreeMap::new(),
            appended: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        };
        house.storage = Some(house.open(SOURCE));
        house
    }

    fn open(&self, root: &str) -> Storage {
        let mut config = StorageConfig::new(root);
        config.wal_file_bytes = 256 << 10;
        config.wal_files_min = 2;
        config.wal_files_max = 8;
        let env = Env::manual(Arc::new(self.disk.clone()), self.clock.clone());
        let (storage, report) = Storage::open(config, env).unwrap();
        assert_eq!(report.damage, []);
        storage.finish_open(&HashSet::from([id(1), id(2)])).unwrap();
        for log in [1, 2] {
            let settings = LogSettings {
                segment_bytes: 12_000,
                ..LogSettings::from(&TopicConfig::default())
            };
            storage.create_log(id(log), settings);
        }
        storage
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn storage(&self) -> &Storage {
        self.storage.as_ref().unwrap()
    }

    fn log(&self, log: u8) -> Arc<Log> {
        self.storage().log(id(log)).unwrap()
    }

    fn append(&mut self, log: u8) {
        while self.storage().prepare_once().unwrap() {}
        self.appended += 1;
        let payload = format!("{} {}", self.appended, "x".repeat(900)).into_bytes();
        let mut builder = BatchBuilder::new(Codec::None);
        builder
            .push(Timestamp::from_millis(1), None, Some(&payload), &[])
            .unwrap();
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        let admission = match self.storage().try_admit(batch.bytes().len()) {
            Some(admission) => admission,
            None => {
                self.storage().settle_once();
                self.storage().settle_once();
                self.storage().try_admit(batch.bytes().len()).unwrap()
            }
        };
        let appended = self.log(log).append(vec![batch.into()], admission).unwrap();
        self.storage().commit_once();
        let offset = appended.base_offset.get();
        appended.durable.wait().unwrap();
        self.acknowledged.insert((id(log), offset), payload);
    }

    fn delete_before(&mut self, log: u8, start: u64) {
        let durable = self.log(log).delete_records(Offset::new(start)).unwrap();
        self.storage().commit_once();
        drop(durable);
        self.starts.insert(id(log), start);
    }

    /// One thing that a server does while its directory is copied.
    fn live(&mut self) {
        self.clock.advance(Duration::from_millis(500));
        let log = 1 + self.random(2) as u8;
        match self.random(10) {
            0..=6 => self.append(log),
            7 | 8 => {
                self.storage().settle_once();
            }
            _ => {
                let end = self.log(log).bounds().durable_end.get();
                let start = self.starts.get(&id(log)).copied().unwrap_or(0);
                let next = start + self.random(end.saturating_sub(start) / 2 + 1);
                self.delete_before(log, next);
            }
        }
    }

    fn order(&self) -> BackupOrder {
        BackupOrder {
            source: SOURCE.into(),
            place: PLACE.into(),
            keep: 2,
            recheck: false,
            now: Timestamp::from_millis(5),
            release: "0".to_owned(),
        }
    }

    fn backup(&self) -> Result<BackupTaken, BackupError> {
        let ended = || Timestamp::from_millis(6);
        take_backup(&self.disk, &self.order(), &ended, &mut |_| {})
    }

    /// Takes a backup while the store lives: something happens at every `every`th piece.
    fn backup_living(&mut self, every: u64) -> BackupTaken {
        let (disk, order) = (self.disk.clone(), self.order());
        let mut pieces = 0;
        let ended = || Timestamp::from_millis(6);
        take_backup(&disk, &order, &ended, &mut |_| {
            pieces += 1;
            // Now and then so much happens that files of the log are used again.
            let steps = if pieces % 7 == 0 { 12 } else { 1 };
            for _ in 0..steps * u64::from(pieces % every == 0) {
                self.live();
            }
        })
        .unwrap()
    }

    /// Restores the backup, opens it, and gives what its logs hold.
    fn restored(&self, backup: &Path, to: &str) -> (BTreeMap<(LogId, u64), Vec<u8>>, Storage) {
        let order = RestoreOrder {
            backup: backup.to_owned(),
            target: PathBuf::from(to),
            keep_damaged: false,
        };
        let restored = restore(&self.disk, &order, &mut |_| {}).unwrap();
        assert_eq!(restored.findings, []);
        let storage = self.open(to);
        let mut found = BTreeMap::new();
        for log in [1, 2] {
            let Some(open) = storage.log(id(log)) else {
                continue;
            };
            found.extend(
                records(&open)
                    .into_iter()
                    .map(|(offset, payload)| ((id(log), offset), payload)),
            );
        }
        (found, storage)
    }
}

fn records(log: &Log) -> Vec<(u64, Vec<u8>)> {
    let bounds = log.bounds();
    let mut at = bounds.start;
    let mut found = Vec::new();
    while at < bounds.durable_end {
        let chunk = log.read_copy(at, 1 << 20).unwrap();
        for slice in &chunk.slices {
            for batch in split(slice.to_vec().into()) {
                let batch = batch.unwrap();
                for record in batch.records(Default::default()).unwrap() {
                    let record = record.unwrap();
                    if record.offset >= at {
                        found.push((record.offset.get(), record.value.unwrap().to_vec()));
                        at = record.offset.plus(1);
                    }
                }
            }
        }
    }
    found
}

#[test]
fn a_backup_of_a_living_store_holds_all_that_was_acknowledged_before_and_nothing_that_was_not_sent()
{
    let mut passes = 0;
    for seed in 1..=12 {
        let mut house = House::new(seed);
        for _ in 0..60 {
            house.live();
        }
        for round in 0..3 {
            let before = house.acknowledged.clone();
            let taken = house.backup_living(1 + seed % 3);
            passes += taken.passes;
            let root = format!("/restored{round}");
            let (found, storage) = house.restored(&taken.directory, &root);
            for log in [1, 2] {
                let start = storage.log(id(log)).unwrap().bounds().start.get();
                let missing = before.keys().find(|(of, offset)| {
                    *of == id(log) && *offset >= start && !found.contains_key(&(*of, *offset))
                });
                assert_eq!(missing, None, "seed {seed}, log {log}, start {start}");
                assert!(start <= house.starts.get(&id(log)).copied().unwrap_or(0));
            }
            for (place, payload) in &found {
                assert_eq!(
                    house.acknowledged.get(place),
                    Some(payload),
                    "seed {seed}: {place:?}"
                );
            }
            storage.shutdown();
        }
    }
    assert!(passes > 36, "some of them must have been begun again");
}

#[test]
fn a_second_backup_copies_no_sealed_segment_that_the_first_has() {
    let mut house = House::new(3);
    for _ in 0..80 {
        house.append(1);
    }
    house.storage().settle_once();
    let first = house.backup().unwrap();
    let sealed = |taken: &BackupTaken| -> u64 {
        let files = taken.summary.files.values();
        files
            .filter(|file| file.batches.is_some())
            .map(|file| file.bytes)
            .sum()
    };
    assert!(sealed(&first) > 50_000 && first.reused_bytes == 0);
    for _ in 0..20 {
        house.append(1);
    }
    house.storage().settle_once();
    let second = house.backup().unwrap();
    assert_eq!(second.reused_bytes, sealed(&first));
    assert_eq!(
        second.summary.head.previous.as_ref(),
        Some(&first.summary.sha256)
    );
    assert!(second.copied_bytes < first.copied_bytes / 2);
    let third = house.backup().unwrap();
    assert_eq!(third.removed, [1]);
    let (found, storage) = house.restored(&third.directory, "/restored");
    assert_eq!(found, house.acknowledged);
    storage.shutdown();
    // The older one that is kept is whole, though it shares files with both.
    let (_, bad) = check_backup(&house.disk, &second.directory, &mut |_| {}).unwrap();
    assert_eq!(bad, []);
}

/// A store with sealed and active segments, with something in the write-ahead log only, and one backup.
fn settled() -> House {
    let mut house = House::new(7);
    for number in 0..40 {
        house.append(1 + number % 2);
    }
    house.storage().settle_once();
    for _ in 0..5 {
        house.append(1);
    }
    house
}

#[test]
fn a_power_cut_at_any_operation_of_a_backup_leaves_the_one_before_and_the_next_one_is_whole() {
    let begin = |cut: Option<u64>| {
        let mut house = settled();
        house.backup().unwrap();
        for _ in 0..15 {
            house.append(2);
        }
        house.storage().settle_once();
        let acknowledged = house.acknowledged.clone();
        house.storage.take().unwrap().shutdown();
        let from = house.disk.operations();
        if let Some(cut) = cut {
            house.disk.cut_power_during(from + cut);
        }
        let taken = house.backup();
        (house, acknowledged, taken, from)
    };
    let (house, _, taken, from) = begin(None);
    taken.unwrap();
    let operations = house.disk.operations() - from;
    assert!(operations > 50, "{operations}");
    for cut in (1..=operations).step_by(3) {
        let (house, acknowledged, taken, _) = begin(Some(cut));
        house.disk.restart(cut);
        let found = list(&house.disk, Path::new(PLACE)).unwrap();
        assert!(!found.is_empty(), "cut {cut}: the backup before is gone");
        for (directory, summary) in found {
            summary.unwrap();
            let (_, bad) = check_backup(&house.disk, &directory, &mut |_| {}).unwrap();
            assert_eq!(bad, [], "cut {cut}, {}, {taken:?}", directory.display());
        }
        let again = house.backup().unwrap();
        let (found, storage) = house.restored(&again.directory, "/restored");
        assert_eq!(found, acknowledged, "cut {cut}");
        storage.shutdown();
    }
}

#[test]
fn a_power_cut_at_any_operation_of_a_restore_is_gone_on_from_and_no_store_opens_half_restored() {
    let order = |backup: &Path| RestoreOrder {
        backup: backup.to_owned(),
        target: "/restored".into(),
        keep_damaged: false,
    };
    let begin = || {
        let mut house = settled();
        let taken = house.backup().unwrap();
        house.storage.take().unwrap().shutdown();
        // The machine was on for a while.
        house.disk.sync_filesystem(Path::new("/")).unwrap();
        (house, taken)
    };
    let (house, taken) = begin();
    let from = house.disk.operations();
    restore(&house.disk, &order(&taken.directory), &mut |_| {}).unwrap();
    let operations = house.disk.operations() - from;
    for cut in (1..=operations).step_by(3) {
        let (house, taken) = begin();
        house.disk.cut_power_during(house.disk.operations() + cut);
        let outcome = restore(&house.disk, &order(&taken.directory), &mut |_| {});
        assert!(outcome.is_err(), "cut {cut}");
        house.disk.restart(cut);
        let marker = Path::new("/restored/RESTORING");
        if house.disk.exists(marker).unwrap() {
            let env = Env::manual(Arc::new(house.disk.clone()), house.clock.clone());
            let refused = Storage::open(StorageConfig::new("/restored"), env);
            let told = refused
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(told.contains("restore"), "cut {cut}: {told}");
        }
        // The last operations are behind the removal of the marker: then it is done, and a second one is refused.
        match restore(&house.disk, &order(&taken.directory), &mut |_| {}) {
            Ok(restored) => assert_eq!(restored.findings, []),
            Err(BackupError::NotEmpty { .. }) => assert!(cut + 3 > operations, "cut {cut}"),
            Err(error) => panic!("cut {cut}: {error}"),
        }
        let storage = house.open("/restored");
        let mut found = BTreeMap::new();
        for log in [1, 2] {
            let open = storage.log(id(log)).unwrap();
            found.extend(
                records(&open)
                    .into_iter()
                    .map(|(offset, payload)| ((id(log), offset), payload)),
            );
        }
        assert_eq!(found, house.acknowledged, "cut {cut}");
        storage.shutdown();
    }
}

#[test]
fn each_file_of_a_backup_that_is_damaged_or_missing_is_named() {
    let house = settled();
    let taken = house.backup().unwrap();
    for file in taken.summary.files.values() {
        let path = taken.directory.join(&file.path);
        house.disk.flip(&path, file.bytes / 2, 1);
        let (_, bad) = check_backup(&house.disk, &taken.directory, &mut |_| {}).unwrap();
        assert_eq!(bad.iter().map(|bad| &bad.path).collect::<Vec<_>>(), [&path]);
        let order = RestoreOrder {
            backup: taken.directory.clone(),
            target: Path::new("/bad").join(file.path.replace('/', "-")),
            keep_damaged: false,
        };
        match restore(&house.disk, &order, &mut |_| {}) {
            Err(BackupError::Damaged { bad }) => assert_eq!(bad[0].path, path),
            other => panic!("{}: {other:?}", file.path),
        }
        house.disk.flip(&path, file.bytes / 2, 1);
    }
    let lost = taken.directory.join("STORE");
    house.disk.remove_file(&lost).unwrap();
    let (_, bad) = check_backup(&house.disk, &taken.directory, &mut |_| {}).unwrap();
    assert_eq!((bad.len(), bad[0].reason.as_str()), (1, "it is missing"));
    house.disk.flip(&taken.directory.join("BACKUP"), 100, 1);
    let refused = check_backup(&house.disk, &taken.directory, &mut |_| {});
    assert!(
        matches!(refused, Err(BackupError::Summary { .. })),
        "{refused:?}"
    );
}

/// The log file of a sealed segment: one that has an index.
fn sealed_segment(house: &House) -> PathBuf {
    let mut files = house.disk.files().into_keys();
    let index = files.find(|path| path.extension().is_some_and(|kind| kind == "idx"));
    index.unwrap().with_extension("log")
}

#[test]
fn damage_of_the_source_is_named_and_its_whole_records_are_in_the_backup() {
    let house = settled();
    let segment = sealed_segment(&house);
    house.disk.flip(&segment, 300, 1);
    let taken = house.backup().unwrap();
    let [damage] = &taken.summary.damage[..] else {
        panic!("{:?}", taken.summary.damage);
    };
    assert!(segment.ends_with(&damage.damage) && damage.from.is_some());
    let (_, bad) = check_backup(&house.disk, &taken.directory, &mut |_| {}).unwrap();
    assert_eq!(bad, [], "the copy is what the source is");
    let order = RestoreOrder {
        backup: taken.directory.clone(),
        target: "/restored".into(),
        keep_damaged: false,
    };
    let restored = restore(&house.disk, &order, &mut |_| {}).unwrap();
    assert_eq!(restored.findings.len(), 1);
    // A later backup does not take it for sound.
    house.disk.flip(&segment, 300, 1);
    let later = house.backup().unwrap();
    assert_eq!(later.summary.damage, []);
}

#[test]
fn a_segment_that_is_lost_for_good_keeps_no_backup_from_being_taken() {
    let house = settled();
    let segment = sealed_segment(&house);
    house.disk.remove_file(&segment).unwrap();
    let taken = house.backup().unwrap();
    assert_eq!((taken.passes, taken.summary.damage.len()), (2, 1));
}

#[test]
fn a_full_disk_is_told_and_what_is_copied_stays() {
    let mut house = House::new(5);
    for _ in 0..120 {
        house.append(1);
    }
    house.storage().settle_once();
    house.disk.create_dir_all(Path::new(PLACE)).unwrap();
    let free = house.disk.free_bytes(Path::new("/")).unwrap();
    let used = u64::MAX - free;
    // The write-ahead log's file, and some segments.
    house.disk.set_capacity(used + (256 << 10) + 120_000);
    let told = house.backup().unwrap_err();
    assert!(matches!(told, BackupError::NoSpace { .. }), "{told}");
    assert!(told.to_string().contains("goes on from there"), "{told}");
    house.disk.set_capacity(u64::MAX);
    let taken = house.backup().unwrap();
    assert!(taken.reused_bytes > 20_000, "{}", taken.reused_bytes);
    let mut found = Vec::new();
    verify_store(&house.disk, &taken.directory, &mut |finding| {
        found.push(finding)
    })
    .unwrap();
    assert_eq!(found, []);
}

#[test]
fn two_stores_and_two_backups_at_once_do_not_share_a_place() {
    let house = settled();
    house.backup().unwrap();
    let held = house
        .disk
        .lock(
            &Path::new(PLACE).join("LOCK"),
            storage::io::LockHow::Exclusive,
        )
        .unwrap();
    assert!(matches!(house.backup(), Err(BackupError::Busy { .. })));
    drop(held);
    let other = house.open("/other");
    other.shutdown();
    let order = BackupOrder {
        source: "/other".into(),
        ..house.order()
    };
    let ended = || Timestamp::from_millis(6);
    let refused = take_backup(&house.disk, &order, &ended, &mut |_| {});
    assert!(
        matches!(refused, Err(BackupError::OtherStore { .. })),
        "{refused:?}"
    );
    let order = BackupOrder {
        place: "/other".into(),
        ..house.order()
    };
    let refused = take_backup(&house.disk, &order, &ended, &mut |_| {});
    assert!(
        matches!(refused, Err(BackupError::Unusable { .. })),
        "{refused:?}"
    );
}
