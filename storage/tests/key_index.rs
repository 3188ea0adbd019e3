//! Key indexes on a store: a scan by key or by time shows what a brute-force filter of all records has, and reads a part of it; indexes come
//! and go with their segments and their setting; a cut at any operation leaves a store that is as it was.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alluvium_storage::cleanup::Policy;
use alluvium_storage::cleanup::holds::{Held, HoldWish};
use alluvium_storage::cleanup::run::{Progress, RunOptions};
use alluvium_storage::inspect::verify_store;
use alluvium_storage::io::{Disk, ManualClock, OpenHow, SimDisk, write_new_file};
use alluvium_storage::segment::key_index::KeyIndex;
use alluvium_storage::{
    AppendBatch, Env, Log, LogSettings, ScanCounts, ScanRange, Scanned, Sought, Storage,
    StorageConfig,
};
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, Codec, HeaderRef, NAME_HEADER, split};
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};

/// Records in a batch, and bytes of a value: a block is some eight batches.
const RECORDS: u64 = 20;
const VALUE_BYTES: usize = 90;
/// A file of the write-ahead log, for batches of a few KiB.
const WAL_FILE_BYTES: u64 = 256 << 10;
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

/// The time of a record: ten a second, but of a device whose clock is an hour wrong, or no clock at all.
fn time_of(offset: u64) -> i64 {
    let at = 1_700_000_000_000 + offset as i64 * 100;
    match offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 {
        wrong if wrong % 1_201 == 0 => 0,
        wrong if wrong % 1_009 == 0 => at - (wrong % 3_600_000) as i64,
        wrong if wrong % 1_013 == 0 => at + (wrong % 3_600_000) as i64,
        _ => at,
    }
}

/// Key and value of a record.
type Record = (Option<Bytes>, Bytes);

struct House {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    storage: Storage,
    records: BTreeMap<u64, Record>,
}

/// A segment that takes a while to fill.
fn growing() -> LogSettings {
    LogSettings {
        segment_bytes: 3 << 20,
        ..settings(true)
    }
}

impl House {
    fn new(key_index: bool) -> House {
        House::of(settings(key_index))
    }

    fn of(settings: LogSettings) -> House {
        House::with_wal(settings, WAL_FILE_BYTES)
    }

    fn with_wal(settings: LogSettings, wal_file_bytes: u64) -> House {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
        let storage = open_with(&disk, &clock, wal_file_bytes).unwrap();
        storage.create_log(log_id(), settings);
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
        house.grow(batches);
        house
    }

    fn grow(&mut self, batches: u64) {
        for _ in 0..batches {
            self.append();
        }
        self.settle();
    }

    /// Bytes of segments.
    fn log_bytes(&self) -> u64 {
        let files = self.disk.files();
        let of = |path: &PathBuf| files[path].len() as u64;
        self.files("log").iter().map(of).sum()
    }

    fn log(&self) -> Arc<Log> {
        self.storage.log(log_id()).unwrap()
    }

    /// A batch of one device's records, and one without a key.
    fn append(&mut self) {
        self.append_of(RECORDS);
    }

    fn append_of(&mut self, records: u64) {
        let base = self.records.len() as u64;
        let mut builder = BatchBuilder::new(Codec::None);
        for record in 0..records {
            let key = (record > 0).then(|| device(base / RECORDS * 7 % DEVICES));
            let value = Bytes::from(format!("{:0>VALUE_BYTES$}", base + record));
            let time = Timestamp::from_millis(time_of(base + record));
            builder
                .push(time, key.as_deref(), Some(&value), &[])
                .unwrap();
            self.records.insert(base + record, (key, value));
        }
        self.append_built(builder);
    }

    fn append_built(&self, builder: BatchBuilder) {
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
        self.check_devices(0..DEVICES + 3)
    }

    fn check_devices(&self, numbers: impl IntoIterator<Item = u64>) -> ScanCounts {
        let mut counts = ScanCounts::default();
        for number in numbers {
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
    open_with(disk, clock, WAL_FILE_BYTES)
}

fn open_with(
    disk: &SimDisk,
    clock: &Arc<ManualClock>,
    wal_file_bytes: u64,
) -> Result<Storage, String> {
    let mut config = StorageConfig::new("/data");
    config.wal_file_bytes = wal_file_bytes;
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

/// All records that a scan by key shows, and what it counted.
fn scan(log: &Log, key: Option<Bytes>) -> (Vec<(u64, Record)>, ScanCounts) {
    scan_of(log, key, None)
}

fn scan_of(
    log: &Log,
    key: Option<Bytes>,
    times: Option<Range<i64>>,
) -> (Vec<(u64, Record)>, ScanCounts) {
    scan_for(log, key.map(Sought::Key), times)
}

fn scan_for(
    log: &Log,
    key: Option<Sought>,
    times: Option<Range<i64>>,
) -> (Vec<(u64, Record)>, ScanCounts) {
    let bounds = log.bounds();
    let mut scan = log.scan(ScanRange {
        offsets: bounds.start..bounds.durable_end,
        times: times.map(|it| Timestamp::from_millis(it.start)..Timestamp::from_millis(it.end)),
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
    // A share, a time for each block of 16 KiB or a little more, and the ends.
    let most = metrics.indexed_bytes / 80 + metrics.indexed_bytes / 2048 + 200 * metrics.built;
    assert!(metrics.written_bytes <= most, "{metrics:?}");
    // After a start they are there, and nothing is made again.
    let house = house.restart();
    assert!(!house.storage.index_keys_once());
    assert_eq!(house.check(), some);
}

/// In the active segment the last block and less than a MiB before it are not indexed.
const UNKNOWN_MAX: u64 = (1 << 20) + (32 << 10);

#[test]
fn an_idle_active_segment_is_not_indexed_again() {
    let settings = LogSettings {
        segment_bytes: 32 << 20,
        ..growing()
    };
    let mut house = House::with_wal(settings, 4 << 20);
    let turns = |house: &House| {
        for _ in 0..3 {
            house.clock.advance(Duration::from_secs(31));
            house.index();
        }
        house.storage.metrics().key_indexes
    };
    // One block, which may grow; then one behind it that is as large, so that more than a MiB is never known.
    for block in 1..=2 {
        house.append_of(600 * RECORDS);
        house.settle();
        house.index();
        let known = house.storage.metrics().key_indexes;
        assert_eq!(known.built, block - 1);
        let operations = house.disk.operations();
        assert_eq!(turns(&house), known, "nothing has come");
        assert_eq!(house.disk.operations(), operations, "nothing was written");
    }
    house.check_devices([0, 20, DEVICES]);
}

#[test]
fn an_active_segment_that_grows_slowly_gets_few_sections() {
    let mut house = House::of(LogSettings {
        segment_bytes: 64 << 20,
        ..growing()
    });
    // A MiB and a little more before each turn.
    for _ in 0..20 {
        house.grow(530);
        house.clock.advance(Duration::from_secs(31));
        house.index();
    }
    let counted = house.storage.metrics().key_indexes;
    assert_eq!((house.sealed(), counted.built), (0, 20));
    let file = house.files("kix")[0].clone();
    let file = house.disk.open(&file, OpenHow::Read).unwrap();
    let sections = KeyIndex::open(file).unwrap().section_count();
    assert!(sections <= 7, "{sections}");
    // A part was read again for it, once for each doubling at most.
    assert!(
        counted.indexed_bytes > house.log_bytes(),
        "{counted:?}: {}",
        house.log_bytes()
    );
    assert!(counted.indexed_bytes < house.log_bytes() * 5, "{counted:?}");
    house.check_devices([0, 20, DEVICES]);
    assert_eq!(house.notes(), Vec::<String>::new());
}

#[test]
fn the_index_of_an_active_segment_grows_with_it_and_reads_little_twice() {
    let mut house = House::of(growing());
    house.grow(300);
    house.index();
    assert!(house.files("kix").is_empty(), "it is small yet");
    house.grow(300);
    house.index();
    assert_eq!((house.sealed(), house.files("kix").len()), (0, 1));
    assert_eq!(house.notes(), Vec::<String>::new());
    let counts = house.check();
    assert!(counts.skipped_bytes > counts.bytes, "{counts:?}");
    let read = |house: &House| house.storage.metrics().key_indexes.indexed_bytes;
    let known = read(&house);
    assert!(known + (32 << 10) > house.log_bytes(), "all but a block");

    // A start finds it as it is. What comes later is read, and once more what was one section with it then.
    let mut house = house.restart();
    house.storage.set_settings(log_id(), growing());
    house.index();
    assert_eq!(read(&house), 0, "nothing has come");
    assert_eq!(house.check(), counts);
    house.grow(200);
    house.index();
    assert_eq!(read(&house), 0, "less than a MiB has come");
    house.grow(300);
    house.index();
    let some = house.check();
    assert!(some.skipped_bytes > some.bytes, "{some:?}");
    assert!(read(&house) <= house.log_bytes());
    assert!(known + read(&house) + UNKNOWN_MAX > house.log_bytes());

    // It is sealed, and the index goes on to its end.
    house.grow(600);
    assert_eq!(house.sealed(), 1);
    house.index();
    house.clock.advance(Duration::from_secs(31));
    house.index();
    assert_eq!(house.notes(), Vec::<String>::new());
    assert!(known + read(&house) <= 3 * house.log_bytes());
    assert!(known + read(&house) + UNKNOWN_MAX > house.log_bytes());
    let all = house.check();
    assert!(all.skipped_bytes > all.bytes, "{all:?}");
    // Times are known too: of what is sealed nothing is read that no clock reaches.
    let early = house.check_window(i64::MIN..-1, None);
    assert!(early.bytes < UNKNOWN_MAX, "{early:?}");
    let house = house.restart();
    assert!(!house.storage.index_keys_once());
    assert_eq!(house.check(), all);
}

#[test]
fn a_scan_by_key_shows_what_comes_into_the_active_segment_behind_its_index() {
    let mut house = House::of(growing());
    house.grow(600);
    house.index();
    let key = device(7 % DEVICES);
    let mut scan = house.log().scan(ScanRange {
        offsets: Offset::new(0)..Offset::new(u64::MAX >> 1),
        times: None,
        key: Some(Sought::Key(key.clone())),
        run_bytes: 16 << 10,
    });
    let mut seen = Vec::new();
    for _ in 0..3 {
        while let Some(step) = scan.next_step().unwrap() {
            let Scanned::Run { batches, .. } = step else {
                panic!("nothing is missing: {step:?}");
            };
            for batch in split(batches) {
                let records = batch.unwrap().records(Default::default()).unwrap();
                let records = records.map(Result::unwrap);
                let of_key = records.filter(|record| record.key.as_ref() == Some(&key));
                seen.extend(of_key.map(|record| record.offset.get()));
            }
        }
        house.grow(60);
        house.index();
    }
    let last = scan.next_offset().get();
    let expected = house.records.range(..last);
    let expected = expected.filter(|(_, record)| record.0.as_ref() == Some(&key));
    assert_eq!(seen, expected.map(|(at, _)| *at).collect::<Vec<_>>());
    assert!(last > 700 * RECORDS);
}

#[test]
fn a_damaged_index_of_an_active_segment_is_made_again() {
    let mut house = House::of(growing());
    house.grow(600);
    house.index();
    let sound = house.check();
    let file = house.files("kix")[0].clone();
    let bytes = house.disk.files()[&file].clone();
    house.disk.flip(&file, 40, 1);
    let noted = house.notes();
    assert!(noted.len() == 1 && noted[0].contains(".kix"), "{noted:?}");
    let house = house.restart();
    house.check();
    house.index();
    assert!(house.disk.files()[&file] == bytes, "the same bytes");
    assert_eq!(house.check(), sound);
}

#[test]
fn a_cut_while_the_index_of_an_active_segment_grows_leaves_one_that_is_right() {
    let grown = || {
        let mut house = House::of(growing());
        for is_known in [true, false] {
            // 1.2 MiB in batches that are a block each.
            (0..30).for_each(|_| house.append_of(19 * RECORDS));
            house.settle();
            if is_known {
                house.index();
            }
        }
        house
    };
    let whole = grown();
    let begin = whole.disk.operations();
    whole.index();
    let end = whole.disk.operations();
    assert!(end - begin >= 6, "{} operations", end - begin);
    let some = [0, 20, DEVICES];
    let sound = whole.check_devices(some);
    for cut in begin + 1..=end {
        let house = grown();
        house.disk.cut_power_during(cut);
        house.index();
        assert!(house.disk.is_off(), "cut {cut} of {begin}..{end}");
        house.disk.restart(cut);
        let house = house.restart();
        house.storage.create_log(log_id(), growing());
        house.check_devices(some);
        house.index();
        assert_eq!(house.files("kix").len(), 1, "cut {cut}");
        assert_eq!(house.check_devices(some), sound, "cut {cut}");
        assert_eq!(house.notes(), Vec::<String>::new());
    }
}

impl House {
    /// Scans a window of time, also of one key, and checks it against all records that were appended; gives what was read.
    fn check_window(&self, times: Range<i64>, key: Option<&Bytes>) -> ScanCounts {
        let (found, counts) = scan_of(&self.log(), key.cloned(), Some(times.clone()));
        let is_wanted = |offset: u64, record: &Record| {
            let has_key = key.is_none_or(|key| record.0.as_ref() == Some(key));
            has_key && times.contains(&time_of(offset))
        };
        let found: Vec<_> = found
            .into_iter()
            .filter(|(offset, record)| is_wanted(*offset, record))
            .collect();
        let expected = self.records.iter();
        let expected = expected.filter(|(offset, record)| is_wanted(**offset, record));
        let expected: Vec<_> = expected.map(|(at, record)| (*at, record.clone())).collect();
        assert_eq!(found, expected, "{times:?} {key:?}");
        counts
    }
}

#[test]
fn a_scan_of_any_window_of_wrong_clocks_shows_all_of_it() {
    let house = House::filled(true, 700);
    house.index();
    let last = house.records.len() as u64 - 1;
    let span = 1_700_000_000_000 - 4_000_000..time_of(last) + 4_000_000;
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % below
    };
    for window in 0..400 {
        let start = span.start + next((span.end - span.start) as u64) as i64;
        let start = if window % 40 == 0 { 0 } else { start };
        let length = 1 << next(24);
        let end = start + 1 + next(length) as i64;
        let key = (window % 3 == 0).then(|| device(next(DEVICES)));
        house.check_window(start..end, key.as_ref());
    }
}

#[test]
fn an_early_window_of_a_long_log_reads_its_part() {
    let house = House::filled(true, 1_400);
    let all = scan(&house.log(), None).1.bytes;
    let first = 1_700_000_000_000..1_700_000_100_000;
    assert_eq!(
        house.check_window(first.clone(), None).bytes,
        all,
        "no index yet"
    );
    house.index();
    let counts = house.check_window(first, None);
    assert_eq!(counts.bytes + counts.skipped_bytes, all);
    // What no index tells of: the active segment and the tail. Then a thousand of 28,000 records, and the blocks of wrong clocks.
    let sealed: u64 = house
        .files("log")
        .iter()
        .filter(|log| house.disk.exists(&log.with_extension("idx")).unwrap())
        .map(|log| house.disk.files()[log].len() as u64)
        .sum();
    let of_sealed = counts.bytes - (all - sealed);
    assert!(of_sealed * 3 < sealed, "{of_sealed} of {sealed}");
    // Of a window that no clock reaches nothing else is read.
    let early = house.check_window(i64::MIN..-1, None);
    assert_eq!(early.bytes, all - sealed);
}

#[test]
fn an_index_of_an_earlier_release_serves_keys_and_is_made_again_for_times() {
    let house = House::filled(true, 400);
    house.index();
    let sound = house.check();
    let early = house.check_window(i64::MIN..-1, None);
    let files = house.files("kix");
    for file in &files {
        let bytes = first_version(&house.disk.files()[file]);
        house.disk.remove_file(file).unwrap();
        write_new_file(&house.disk, file, &bytes).unwrap();
    }
    let house = house.restart();
    assert_eq!(house.notes(), Vec::<String>::new());
    assert_eq!(house.check(), sound);
    assert!(!house.storage.index_keys_once(), "nobody asked for times");
    assert!(house.check_window(i64::MIN..-1, None).bytes > early.bytes);
    house.index();
    assert_eq!(
        house.storage.metrics().key_indexes.built,
        files.len() as u64
    );
    assert_eq!(house.check_window(i64::MIN..-1, None), early);
    assert_eq!(house.check(), sound);
}

impl House {
    /// A batch of records whose names stand in a header, under keys that are others' or none.
    fn append_named(&mut self, named: &Named) {
        let base = self.records.len() as u64;
        let mut builder = BatchBuilder::new(Codec::None);
        for (at, (key, name)) in named.iter().enumerate() {
            let value = Bytes::from(format!("{:0>VALUE_BYTES$}", base + at as u64));
            let time = Timestamp::from_millis(time_of(base + at as u64));
            let other: HeaderRef<'_> = (b"unit", Some(b"mqtt.topic"));
            let header: HeaderRef<'_> = (NAME_HEADER.as_bytes(), name.as_deref());
            builder
                .push(time, key.as_deref(), Some(&value), &[other, header])
                .unwrap();
            self.records.insert(base + at as u64, (key.clone(), value));
        }
        self.append_built(builder);
    }
}

/// Keys, and names in headers.
type Named = Vec<(Option<Bytes>, Option<Bytes>)>;

#[test]
fn a_scan_by_name_shows_what_is_called_so_by_key_or_header_and_reads_a_small_part() {
    let mut house = House::new(true);
    let mut named = BTreeMap::<u64, Bytes>::new();
    for round in 0..700 {
        house.append();
        if round % 10 == 0 {
            let name = device(round / 10 % DEVICES);
            let base = house.records.len() as u64;
            named.insert(base, name.clone());
            named.insert(base + 2, name.clone());
            house.append_named(&vec![
                (Some(Bytes::from_static(b"another")), Some(name.clone())),
                (Some(Bytes::from_static(b"another")), None),
                (None, Some(name)),
            ]);
        }
    }
    house.settle();
    let check = |house: &House| {
        let mut counts = ScanCounts::default();
        for number in 0..DEVICES + 3 {
            let name = device(number);
            let is_it = |offset: u64, record: &Record| {
                record.0.as_ref() == Some(&name) || named.get(&offset) == Some(&name)
            };
            let sought = Sought::Name(name.clone());
            let (mut found, of_name) = scan_for(&house.log(), Some(sought), None);
            found.retain(|(offset, record)| is_it(*offset, record));
            let mut expected = house.records.clone();
            expected.retain(|offset, record| is_it(*offset, record));
            assert!(found.into_iter().eq(expected), "device {number}");
            counts.bytes += of_name.bytes;
            counts.skipped_bytes += of_name.skipped_bytes;
        }
        counts
    };
    let all = check(&house);
    assert_eq!(all.skipped_bytes, 0, "there is no key index yet");
    house.index();
    let some = check(&house);
    assert_eq!(some.bytes + some.skipped_bytes, all.bytes);
    assert!(some.bytes * 2 < all.bytes, "{some:?} of {all:?}");

    // An earlier release's index does not know headers: all is read, and the index is made again.
    for file in house.files("kix") {
        let bytes = of_version(&house.disk.files()[&file], 2);
        house.disk.remove_file(&file).unwrap();
        write_new_file(&house.disk, &file, &bytes).unwrap();
    }
    let house = house.restart();
    assert!(house.check().skipped_bytes > 0, "keys are known");
    assert!(!house.storage.index_keys_once(), "nobody asked for names");
    assert!(check(&house).bytes > some.bytes);
    house.index();
    assert_eq!(check(&house), some);
}

#[test]
fn an_active_segments_index_of_an_earlier_release_is_made_again_for_names() {
    let mut house = House::of(growing());
    house.grow(600);
    house.index();
    let name = Sought::Name(device(1));
    let sound = scan_for(&house.log(), Some(name.clone()), None).1;
    assert!(sound.skipped_bytes > 0);
    let file = house.files("kix")[0].clone();
    let bytes = of_version(&house.disk.files()[&file], 2);
    house.disk.remove_file(&file).unwrap();
    write_new_file(&house.disk, &file, &bytes).unwrap();
    let house = house.restart();
    let all = scan_for(&house.log(), Some(name.clone()), None).1;
    assert_eq!(all.skipped_bytes, 0);
    house.index();
    assert_eq!(scan_for(&house.log(), Some(name), None).1, sound);
}

/// A key index that calls itself one of this version.
fn of_version(bytes: &[u8], version: u32) -> Vec<u8> {
    const FOOTER: usize = 96;
    let mut other = bytes.to_vec();
    let footer = other.len() - FOOTER;
    let top = u32::from_le_bytes(other[footer + 60..footer + 64].try_into().unwrap());
    other[8..12].copy_from_slice(&version.to_le_bytes());
    other[footer + 84..footer + 88].copy_from_slice(&version.to_le_bytes());
    let covered = [&other[..16], &other[footer - top as usize..footer + 80]].concat();
    let checksum = crc32fast::hash(&covered);
    other[footer + 80..footer + 84].copy_from_slice(&checksum.to_le_bytes());
    other
}

/// A key index without its smallest timestamps, as version 1 wrote it.
fn first_version(bytes: &[u8]) -> Vec<u8> {
    const FOOTER: usize = 96;
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let footer = bytes.len() - FOOTER;
    let (blocks, top) = (u32_at(footer + 48) as usize, u32_at(footer + 60) as usize);
    let times = footer - top..footer - top + 8 * blocks;
    let mut first = bytes.to_vec();
    first[8..12].copy_from_slice(&1_u32.to_le_bytes());
    first[footer + 60..footer + 64].copy_from_slice(&((top - 8 * blocks) as u32).to_le_bytes());
    let length = (bytes.len() - 8 * blocks) as u64;
    first[footer + 64..footer + 72].copy_from_slice(&length.to_le_bytes());
    first[footer + 84..footer + 88].copy_from_slice(&1_u32.to_le_bytes());
    first.drain(times.clone());
    let footer = first.len() - FOOTER;
    let covered = [&first[..16], &first[times.start..footer + 80]].concat();
    let checksum = crc32fast::hash(&covered);
    first[footer + 80..footer + 84].copy_from_slice(&checksum.to_le_bytes());
    first
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
    house.disk.flip(file, 8, 4);
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

/// Has a key held, and gives how many bytes were read to find it, and whether anything is held then.
fn hold(house: &House, key: Bytes) -> (u64, bool) {
    let ever = Timestamp::from_millis(i64::MIN)..Timestamp::from_millis(i64::MAX);
    let wish = HoldWish {
        name: "hold 1 (case 4711)".into(),
        held: Held::Key {
            key: key[..].into(),
            appended: ever,
        },
        is_absolute: true,
    };
    house
        .storage
        .set_holds(Arc::new(move |_| vec![wish.clone()]));
    let progress = Progress::default();
    let options = RunOptions {
        now: true,
        ..RunOptions::default()
    };
    house
        .storage
        .run_cleanup(log_id(), Policy::Retention, options, &progress)
        .unwrap();
    let bounds = house.log().bounds();
    let held = (house.storage).hold_on(log_id(), &(bounds.start..bounds.durable_end));
    (progress.bytes_done(), held.is_some())
}

#[test]
fn a_hold_by_key_reads_the_blocks_that_may_hold_the_key_and_no_others() {
    for (key, is_in) in [(device(3), true), (Bytes::from_static(b"nobody"), false)] {
        let mut read = Vec::new();
        for key_index in [false, true] {
            let house = House::filled(key_index, 700);
            house.index();
            assert_eq!(!house.files("kix").is_empty(), key_index);
            let (bytes, is_held) = hold(&house, key.clone());
            assert_eq!(is_held, is_in, "{key:?}, key index: {key_index}");
            read.push(bytes);
        }
        assert!(read[1] * 2 < read[0], "{key:?}: {read:?}");
    }
}
