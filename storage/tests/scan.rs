//! Scans: random windows over records whose times are out of order equal a plain filter, in segments and in the tail, also while
//! the log grows, settles and is cleaned between two steps.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use alluvium_storage as storage;
use model::batch::{Batch, BatchBuilder, Codec, split};
use model::topic_config::{Defaults, TopicConfig};
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use proptest::prelude::*;
use storage::cleanup::Policy;
use storage::cleanup::run::{Progress, RunOptions};
use storage::io::RealDisk;
use storage::{
    AppendBatch, Env, GapReason, Log, LogScan, LogSettings, ManualClock, ReadError, ScanRange,
    Scanned, Storage, StorageConfig,
};

fn log_id() -> LogId {
    LogId::new(TopicId::from_bytes([3; 16]), PartitionId::new(0))
}

fn settings(pairs: &[(&str, &str)]) -> LogSettings {
    let named = pairs
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()));
    let overrides: BTreeMap<String, String> = named.collect();
    LogSettings::from(&TopicConfig::from_overrides(&overrides, &Defaults::default()).unwrap())
}

/// How a log is cleaned.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Deleted,
    Compacted,
    Thinned,
}

impl Kind {
    fn settings(self) -> LogSettings {
        let segment = ("segment.bytes", "4096");
        match self {
            Kind::Deleted => settings(&[segment]),
            Kind::Compacted => settings(&[segment, ("cleanup.policy", "compact")]),
            Kind::Thinned => settings(&[
                segment,
                ("cleanup.policy", "thin"),
                ("thin.tiers", "0ms:100ms:min(json/reading)"),
            ]),
        }
    }
}

struct House {
    storage: Storage,
    log: Arc<Log>,
    kind: Kind,
    /// The time of each record that was ever appended, by its offset.
    sent: BTreeMap<u64, i64>,
    _directory: tempfile::TempDir,
}

impl House {
    fn new(kind: Kind) -> House {
        let directory = tempfile::tempdir().unwrap();
        let mut config = StorageConfig::new(directory.path());
        config.wal_file_bytes = 256 << 10;
        config.wal_files_min = 2;
        config.wal_files_max = 16;
        config.cleaner_memory_bytes = 1 << 20;
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000_000)));
        let env = Env::manual(Arc::new(RealDisk), clock);
        let (storage, _) = Storage::open(config, env).unwrap();
        storage.finish_open(&[log_id()].into()).unwrap();
        let log = storage.create_log(log_id(), kind.settings());
        House {
            storage,
            log,
            kind,
            sent: BTreeMap::new(),
            _directory: directory,
        }
    }

    fn append(&mut self, codec: Codec, records: &[(i64, u8)]) {
        let mut builder = BatchBuilder::new(codec);
        for (millis, key) in records {
            let key = format!("device-{key}");
            let value = format!("{{\"reading\": {millis}}}");
            let time = Timestamp::from_millis(*millis);
            builder
                .push(time, Some(key.as_bytes()), Some(value.as_bytes()), &[])
                .unwrap();
        }
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        while self.storage.prepare_once().unwrap() {}
        let admission = self.storage.try_admit(batch.bytes().len());
        let admission = admission.unwrap_or_else(|| {
            self.storage.settle_once();
            self.storage.try_admit(batch.bytes().len()).unwrap()
        });
        let appended = self.log.append(vec![AppendBatch::from(batch)], admission);
        let appended = appended.unwrap();
        self.storage.commit_once();
        let base = appended.base_offset.get();
        appended.durable.wait().unwrap();
        let times = records.iter().map(|(millis, _)| *millis);
        self.sent.extend((base..).zip(times));
    }

    fn clean(&mut self, part: u8) {
        let policy = match self.kind {
            Kind::Deleted => {
                let bounds = self.log.bounds();
                let count = bounds.durable_end.since(bounds.start);
                let before = bounds.start.plus(count * u64::from(part % 4) / 8);
                let durable = self.log.delete_records(before).unwrap();
                self.storage.commit_once();
                durable.wait().unwrap();
                self.storage.settle_once();
                return;
            }
            Kind::Compacted => Policy::Compaction,
            Kind::Thinned => Policy::Thin,
        };
        let options = RunOptions {
            now: true,
            ..RunOptions::default()
        };
        let progress = Progress::default();
        let ran = self
            .storage
            .run_cleanup(log_id(), policy, options, &progress);
        ran.unwrap();
    }

    /// All records that are there, by the reader of fetches.
    fn kept(&self) -> BTreeMap<u64, i64> {
        let bounds = self.log.bounds();
        let (mut from, mut kept) = (bounds.start, BTreeMap::new());
        while from < bounds.durable_end {
            let chunk = self.log.read(from, 1 << 20, true).unwrap();
            for batch in split(chunk.to_bytes()) {
                let batch = batch.unwrap();
                for record in batch.records(Default::default()).unwrap() {
                    let record = record.unwrap();
                    if record.offset >= from {
                        kept.insert(record.offset.get(), record.timestamp.millis());
                    }
                }
            }
            from = chunk.end_offset;
        }
        kept
    }

    fn scan(&self, window: &Window) -> Reading {
        Reading {
            scan: self.log.scan(window.range()),
            window: window.clone(),
            shown: BTreeMap::new(),
            removed: Vec::new(),
            passed: window.offsets.start,
        }
    }
}

/// What a scan asks for.
#[derive(Clone, Debug)]
struct Window {
    offsets: Range<u64>,
    times: Option<Range<i64>>,
    run_bytes: usize,
}

impl Window {
    fn range(&self) -> ScanRange {
        let millis = Timestamp::from_millis;
        ScanRange {
            offsets: Offset::new(self.offsets.start)..Offset::new(self.offsets.end),
            times: self
                .times
                .as_ref()
                .map(|times| millis(times.start)..millis(times.end)),
            key: None,
            run_bytes: self.run_bytes,
        }
    }

    fn wants(&self, offset: u64, millis: i64) -> bool {
        let times = self.times.as_ref();
        self.offsets.contains(&offset) && times.is_none_or(|times| times.contains(&millis))
    }
}

/// A scan under way, and what it has shown of what it wants.
struct Reading {
    scan: LogScan,
    window: Window,
    shown: BTreeMap<u64, i64>,
    removed: Vec<Range<u64>>,
    /// Up to where it has told something.
    passed: u64,
}

impl Reading {
    /// A step; false at the end. What it tells comes in order, and never twice.
    fn step(&mut self) -> bool {
        match self.scan.next_step().unwrap() {
            None => false,
            Some(Scanned::Gap { offsets, reason }) => {
                assert_eq!(reason, GapReason::Removed);
                assert!(offsets.start.get() >= self.passed && offsets.start < offsets.end);
                self.passed = offsets.end.get();
                self.removed.push(offsets.start.get()..offsets.end.get());
                true
            }
            Some(Scanned::Run { batches, offsets }) => {
                assert!(offsets.start.get() >= self.passed && offsets.start < offsets.end);
                self.passed = offsets.end.get();
                for batch in split(batches) {
                    for record in batch.unwrap().records(Default::default()).unwrap() {
                        let record = record.unwrap();
                        let (offset, millis) = (record.offset.get(), record.timestamp.millis());
                        if offsets.contains(&record.offset) && self.window.wants(offset, millis) {
                            let before = self.shown.insert(offset, millis);
                            assert_eq!(before, None, "shown twice");
                        }
                    }
                }
                true
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Deed {
    Append(bool, Vec<(i64, u8)>),
    Settle,
    Clean(u8),
    Begin(Window),
    /// Each scan under way goes on by so many steps.
    Go(usize),
}

fn window() -> impl Strategy<Value = Window> {
    let offsets = (0u64..600, 1u64..600);
    let times = prop::option::of((0i64..1000, 0i64..400));
    (
        offsets,
        times,
        prop::sample::select(vec![1, 2_000, 64 << 10]),
    )
        .prop_map(|((from, count), times, run_bytes)| Window {
            offsets: from..from + count,
            times: times.map(|(from, length)| from..from + length),
            run_bytes,
        })
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let records = prop::collection::vec((0i64..1000, 0u8..8), 1..25);
    let deed = prop_oneof![
        6 => (any::<bool>(), records).prop_map(|(codec, records)| Deed::Append(codec, records)),
        2 => Just(Deed::Settle),
        1 => any::<u8>().prop_map(Deed::Clean),
        2 => window().prop_map(Deed::Begin),
        3 => (1usize..4).prop_map(Deed::Go),
    ];
    prop::collection::vec(deed, 1..80)
}

fn check(kind: Kind, deeds: &[Deed], windows: &[Window]) {
    let mut house = House::new(kind);
    let mut readings = Vec::new();
    for deed in deeds {
        match deed {
            Deed::Append(compressed, records) => {
                let codec = if *compressed { Codec::Lz4 } else { Codec::None };
                house.append(codec, records);
            }
            Deed::Settle => drop(house.storage.settle_once()),
            Deed::Clean(part) => house.clean(*part),
            Deed::Begin(window) => readings.push(house.scan(window)),
            Deed::Go(steps) => {
                for reading in &mut readings {
                    for _ in 0..*steps {
                        reading.step();
                    }
                }
            }
        }
    }
    let kept = house.kept();
    let start = house.log.bounds().start.get();
    for mut reading in readings {
        while reading.step() {}
        let window = &reading.window;
        for (offset, millis) in &reading.shown {
            assert_eq!(house.sent.get(offset), Some(millis), "as it was appended");
        }
        // What is there now was there all the time.
        let wanted = kept
            .iter()
            .filter(|(offset, millis)| window.wants(**offset, **millis));
        for (offset, _) in wanted {
            assert!(
                reading.shown.contains_key(offset),
                "offset {offset} is lost"
            );
        }
        for removed in &reading.removed {
            assert!(removed.end <= start, "{removed:?} is there");
        }
    }
    for window in windows {
        let mut reading = house.scan(window);
        while reading.step() {}
        let mut expected = kept.clone();
        expected.retain(|offset, millis| window.wants(*offset, *millis));
        assert_eq!(reading.shown, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 25, ..ProptestConfig::default() })]

    #[test]
    fn scans_show_what_a_plain_filter_shows(
        deeds in deeds(),
        windows in prop::collection::vec(window(), 40),
    ) {
        for kind in [Kind::Deleted, Kind::Compacted, Kind::Thinned] {
            check(kind, &deeds, &windows);
        }
    }
}

#[test]
fn a_time_that_lies_late_is_found_without_reading_what_is_early() {
    let mut house = House::new(Kind::Deleted);
    for round in 0..500i64 {
        let records: Vec<(i64, u8)> = (0..20).map(|index| (round * 20 + index, 1)).collect();
        house.append(Codec::None, &records);
        if round % 50 == 0 {
            house.storage.settle_once();
        }
    }
    let window = |times: Option<Range<i64>>| Window {
        offsets: 0..u64::MAX >> 1,
        times,
        run_bytes: 16 << 10,
    };
    let read = |window: &Window| {
        let mut reading = house.scan(window);
        while reading.step() {}
        (reading.shown.len(), reading.scan.counts())
    };
    let (count, all) = read(&window(None));
    assert_eq!((count, all.skipped_bytes), (10_000, 0));
    let (count, late) = read(&window(Some(9_500..i64::MAX)));
    assert_eq!(count, 500);
    assert_eq!(late.bytes + late.skipped_bytes, all.bytes);
    assert!(
        late.bytes < all.bytes / 8,
        "{} of {}",
        late.bytes,
        all.bytes
    );
}

#[test]
fn a_scan_of_a_deleted_log_is_told_so() {
    let mut house = House::new(Kind::Deleted);
    house.append(Codec::None, &[(1, 1)]);
    let mut scan = house.log.scan(ScanRange {
        offsets: Offset::ZERO..Offset::MAX,
        times: None,
        key: None,
        run_bytes: 1,
    });
    assert!(scan.next_step().unwrap().is_some());
    assert!(scan.next_step().unwrap().is_none());
    house.append(Codec::None, &[(2, 1)]);
    assert!(scan.next_step_in_memory().unwrap().flatten().is_some());
    house.storage.delete_log(log_id());
    assert!(matches!(scan.next_step(), Err(ReadError::Deleted)));
}
