//! Compaction by key on a store: what is left equals a plain computation, and a plan is what was executed.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alluvium_storage::cleanup::run::{CleanupError, Progress, Report, RunOptions};
use alluvium_storage::cleanup::{HeldBack, Outcome, Policy};
use alluvium_storage::io::{Disk, ManualClock, OpenHow, RealDisk, SimDisk};
use alluvium_storage::{AppendBatch, Env, Log, LogSettings, Storage, StorageConfig, Threads};
use model::batch::{Batch, BatchBuilder, Codec, split};
use model::topic_config::{CompactionConfig, Ratio, TopicConfig};
use model::{LogId, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicId};
use proptest::prelude::*;

struct House {
    directory: tempfile::TempDir,
    root: PathBuf,
    disk: Arc<dyn Disk>,
    clock: Arc<ManualClock>,
    memory_bytes: u64,
    threads: Threads,
}

impl House {
    fn new() -> House {
        let directory = tempfile::tempdir().unwrap();
        House {
            root: directory.path().to_owned(),
            directory,
            disk: Arc::new(RealDisk),
            clock: Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000))),
            memory_bytes: 1 << 20,
            threads: Threads::Manual,
        }
    }

    /// On a simulated disk.
    fn simulated(disk: &SimDisk) -> House {
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        House {
            root: PathBuf::from("/data"),
            disk: Arc::new(disk.clone()),
            ..House::new()
        }
    }

    fn open(&self) -> Storage {
        let mut config = StorageConfig::new(&self.root);
        config.wal_file_bytes = 256 << 10;
        config.wal_files_min = 2;
        config.wal_files_max = 16;
        config.cleaner_memory_bytes = self.memory_bytes;
        let env = Env {
            threads: self.threads,
            ..Env::manual(Arc::clone(&self.disk), self.clock.clone())
        };
        let (storage, _) = Storage::open(config, env).unwrap();
        storage.finish_open(&[log_id()].into()).unwrap();
        storage
    }
}

fn log_id() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
}

fn compacted(delete_retention_ms: u64) -> LogSettings {
    LogSettings {
        segment_bytes: 4096,
        retention_ms: None,
        compaction: Some(CompactionConfig {
            delete_retention_ms,
            min_cleanable_dirty_ratio: Ratio::new(0.5).unwrap(),
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: None,
        }),
        ..LogSettings::from(&TopicConfig::default())
    }
}

/// A record of the test: key and value.
type Pair = (Option<String>, Option<String>);

fn pair(key: &str, value: Option<&str>) -> Pair {
    (Some(key.to_owned()), value.map(str::to_owned))
}

fn batch(codec: Codec, pairs: &[Pair], producer: Option<(i64, i32)>) -> Batch {
    let mut builder = BatchBuilder::new(codec);
    if let Some((id, sequence)) = producer {
        builder.producer(ProducerId::new(id), ProducerEpoch::new(0), sequence);
    }
    for (key, value) in pairs {
        let (key, value) = (
            key.as_ref().map(String::as_bytes),
            value.as_ref().map(String::as_bytes),
        );
        builder
            .push(Timestamp::from_millis(5), key, value, &[])
            .unwrap();
    }
    Batch::parse(builder.build().unwrap()).unwrap()
}

fn append(storage: &Storage, log: &Log, batch: Batch) {
    while storage.prepare_once().unwrap() {}
    let admission = storage.try_admit(batch.bytes().len()).unwrap_or_else(|| {
        storage.settle_once();
        storage.try_admit(batch.bytes().len()).unwrap()
    });
    let appended = log
        .append(vec![AppendBatch::from(batch)], admission)
        .unwrap();
    storage.commit_once();
    appended.durable.wait().unwrap();
}

/// All records that a consumer gets who reads the log from its start, by their offsets.
fn read_all(log: &Log) -> BTreeMap<u64, Pair> {
    let bounds = log.bounds();
    let (mut from, mut records) = (bounds.start, BTreeMap::new());
    while from < bounds.durable_end {
        let chunk = log.read(from, 1 << 20, true).unwrap();
        for batch in split(chunk.to_bytes()) {
            let batch = batch.unwrap();
            let header = *batch.header();
            assert!(header.next_offset() > from, "a reader gets on");
            from = header.next_offset();
            for record in batch.records(Default::default()).unwrap() {
                let record = record.unwrap();
                let text = |part: Option<bytes::Bytes>| {
                    part.map(|part| String::from_utf8(part.to_vec()).unwrap())
                };
                let known =
                    records.insert(record.offset.get(), (text(record.key), text(record.value)));
                assert_eq!(known, None, "no record is read twice");
            }
        }
    }
    records
}

const NOW: RunOptions = RunOptions {
    now: true,
    dry_run: false,
    bytes_per_second: None,
};

fn run(storage: &Storage, options: RunOptions) -> Report {
    storage
        .run_cleanup(log_id(), Policy::Compaction, options, &Progress::default())
        .unwrap()
}

/// A plain computation of what compaction leaves, by the words of Kafka's documentation and KIP-534.
#[derive(Default)]
struct Oracle {
    /// Each batch: its records by their offsets, and its delete horizon.
    batches: Vec<(BTreeMap<u64, Pair>, Option<i64>)>,
    end: u64,
    compacted_to: u64,
}

impl Oracle {
    fn append(&mut self, pairs: &[Pair]) {
        let offsets = self.end..;
        self.batches
            .push((offsets.zip(pairs.iter().cloned()).collect(), None));
        self.end += pairs.len() as u64;
    }

    /// Compacts all that there is. Gives how many records went.
    fn compact(&mut self, now: i64, delete_retention_ms: i64) -> u64 {
        if self.compacted_to == self.end {
            return 0;
        }
        let mut newest = HashMap::new();
        for (records, _) in &self.batches {
            for (offset, (key, _)) in records.range(self.compacted_to..) {
                if let Some(key) = key {
                    newest.insert(key.clone(), *offset);
                }
            }
        }
        let mut gone = 0;
        for (records, horizon) in &mut self.batches {
            let before = records.len();
            let is_over = horizon.is_some_and(|horizon| horizon <= now);
            records.retain(|offset, (key, value)| {
                let Some(key) = key else {
                    return false;
                };
                newest.get(key).is_none_or(|newest| offset >= newest)
                    && (value.is_some() || !is_over)
            });
            gone += (before - records.len()) as u64;
            if horizon.is_none() && records.values().any(|(_, value)| value.is_none()) {
                *horizon = Some(now + delete_retention_ms);
            }
        }
        self.compacted_to = self.end;
        gone
    }

    fn records(&self) -> BTreeMap<u64, Pair> {
        self.batches
            .iter()
            .flat_map(|(records, _)| records.clone())
            .collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Codec, Vec<Pair>),
    Settle,
    Advance(u64),
    Compact,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop::option::weighted(0.95, (0u8..12).prop_map(|key| format!("key-{key}")));
    let value = prop::option::weighted(0.8, "[a-z]{0,300}");
    let pairs = prop::collection::vec((key, value), 1..8);
    let codec = prop::sample::select(Codec::ALL.to_vec());
    prop_oneof![
        12 => (codec, pairs).prop_map(|(codec, pairs)| Step::Append(codec, pairs)),
        3 => Just(Step::Settle),
        3 => (1u64..40_000).prop_map(Step::Advance),
        4 => Just(Step::Compact),
        1 => Just(Step::Restart),
    ]
}

/// Runs a script on a store and on the oracle. `memory_bytes` of keys make some runs need several passes.
fn check(steps: &[Step], memory_bytes: u64, delete_retention_ms: u64) {
    let mut house = House::simulated(&SimDisk::new(1));
    house.memory_bytes = memory_bytes;
    let mut storage = house.open();
    let mut log = storage.create_log(log_id(), compacted(delete_retention_ms));
    let mut oracle = Oracle::default();
    for step in steps.iter().chain([&Step::Compact, &Step::Restart]) {
        match step {
            Step::Append(codec, pairs) => {
                append(&storage, &log, batch(*codec, pairs, None));
                oracle.append(pairs);
            }
            Step::Settle => {
                storage.settle_once();
            }
            Step::Advance(ms) => house.clock.advance(Duration::from_millis(*ms)),
            Step::Compact => {
                let now = storage.steady_clock().now().millis();
                let told = run(
                    &storage,
                    RunOptions {
                        dry_run: true,
                        ..NOW
                    },
                );
                assert_eq!(
                    read_all(&log),
                    oracle.records(),
                    "a dry run changes nothing"
                );
                let done = run(&storage, NOW);
                let gone = oracle.compact(now, delete_retention_ms.cast_signed());
                assert_eq!(done.records_removed, gone);
                if done.passes == 1
                    && told.plan.segments.len() == done.plan.segments.len()
                    && !told.plan.rolls_active
                {
                    assert_eq!(told.records_removed, done.records_removed);
                }
                if done.passes == 1 {
                    let planned: Vec<Vec<_>> = done
                        .plan
                        .groups()
                        .iter()
                        .map(|group| group.iter().map(|segment| segment.id).collect())
                        .collect();
                    let executed: Vec<_> = done
                        .rewrites
                        .iter()
                        .take(planned.len())
                        .map(|one| one.old.clone())
                        .collect();
                    assert_eq!(executed, planned, "a plan is what is executed");
                }
                let again = run(&storage, NOW);
                assert_eq!(
                    (again.records_removed, again.passes),
                    (0, 0),
                    "a second run finds nothing"
                );
            }
            Step::Restart => {
                storage.shutdown();
                drop(storage);
                storage = house.open();
                log = storage.create_log(log_id(), compacted(delete_retention_ms));
            }
        }
        assert_eq!(read_all(&log), oracle.records(), "after {step:?}");
    }
    assert_eq!(storage.compaction_metrics().errors, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn what_is_left_is_what_a_plain_computation_leaves(steps in prop::collection::vec(step(), 1..40), retention in 0u64..60_000) {
        check(&steps, 1 << 20, retention);
    }

    /// The smallest map takes 54 keys: there are up to 400.
    #[test]
    fn several_passes_leave_the_same_as_one(
        keys in prop::collection::vec((0u16..400, prop::option::weighted(0.9, "[a-z]{1,20}")), 100..600), cut in 0usize..600,
    ) {
        let appends: Vec<Step> = keys.chunks(7).map(|pairs| {
            let pairs = pairs.iter().map(|(key, value)| (Some(format!("{key}")), value.clone()));
            Step::Append(Codec::None, pairs.collect())
        }).collect();
        let cut = (cut / 7).min(appends.len());
        let mut steps = appends[..cut].to_vec();
        steps.push(Step::Compact);
        steps.extend_from_slice(&appends[cut..]);
        check(&steps, 1, 1_000_000);
    }
}

#[test]
fn the_cleaner_compacts_what_is_due_and_leaves_the_rest_alone() {
    let house = House::new();
    let storage = house.open();
    let log = storage.create_log(log_id(), compacted(0));
    assert!(!storage.compact_once(), "an empty log is not due");
    let value = "v".repeat(900);
    for round in 0..12 {
        append(
            &storage,
            &log,
            batch(
                Codec::None,
                &[pair(&format!("{}", round % 2), Some(&value))],
                None,
            ),
        );
    }
    storage.settle_once();
    assert!(storage.compact_once());
    let left: Vec<u64> = read_all(&log).into_keys().collect();
    // A segment takes four of them, and the last one is active.
    assert_eq!(left, [6, 7, 8, 9, 10, 11]);
    assert!(
        !storage.compact_once(),
        "what was compacted is not due again"
    );
    let metrics = storage.compaction_metrics();
    assert_eq!((metrics.runs, metrics.errors), (1, 0));
    assert!(metrics.records_removed > 0 && metrics.bytes_read > metrics.bytes_written);
}

#[test]
fn the_lag_has_the_active_segment_rolled_and_compacted_to_the_millisecond() {
    let house = House::new();
    let storage = house.open();
    let mut settings = compacted(0);
    settings.compaction.as_mut().unwrap().max_compaction_lag_ms = Some(60_000);
    let log = storage.create_log(log_id(), settings);
    for value in ["a", "b"] {
        append(
            &storage,
            &log,
            batch(Codec::None, &[pair("k", Some(value))], None),
        );
    }
    storage.settle_once();
    assert!(!storage.compact_once());
    house.clock.advance(Duration::from_millis(59_999));
    assert!(!storage.compact_once());
    house.clock.advance(Duration::from_millis(1));
    assert!(storage.compact_once());
    assert_eq!(read_all(&log), [(1, pair("k", Some("b")))].into());
    assert!(!storage.compact_once());
}

#[test]
fn an_idempotent_producer_goes_on_after_its_records_went_and_the_indexes_too() {
    let house = House::new();
    let mut storage = house.open();
    let mut log = storage.create_log(log_id(), compacted(0));
    append(
        &storage,
        &log,
        batch(Codec::None, &[pair("k", Some("first"))], Some((5, 0))),
    );
    append(
        &storage,
        &log,
        batch(Codec::None, &[pair("k", Some("second"))], None),
    );
    run(&storage, NOW);
    assert_eq!(read_all(&log), [(1, pair("k", Some("second")))].into());
    storage.shutdown();
    drop(storage);
    for entry in walk(house.directory.path()) {
        if entry
            .extension()
            .is_some_and(|extension| extension == "idx")
        {
            std::fs::remove_file(entry).unwrap();
        }
    }
    storage = house.open();
    log = storage.create_log(log_id(), compacted(0));
    append(
        &storage,
        &log,
        batch(Codec::None, &[pair("k", Some("third"))], Some((5, 1))),
    );
    let last = read_all(&log).pop_last().unwrap();
    assert_eq!(last, (2, pair("k", Some("third"))));
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn a_damaged_segment_is_set_aside_and_the_others_are_cleaned() {
    let house = House::new();
    let storage = house.open();
    let log = storage.create_log(log_id(), compacted(0));
    let value = "v".repeat(900);
    // Each segment takes four of them.
    for round in 0..12u32 {
        let key = if round < 4 { "old" } else { "new" };
        append(
            &storage,
            &log,
            batch(Codec::None, &[pair(key, Some(&value))], None),
        );
    }
    append(
        &storage,
        &log,
        batch(Codec::None, &[pair("old", None)], None),
    );
    storage.settle_once();
    let damaged = storage.sealed_segments(log_id())[0].id;
    let path = walk(house.directory.path())
        .into_iter()
        .find(|path| path.ends_with(format!("{damaged}.log")))
        .unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let done = run(&storage, NOW);
    assert_eq!(done.set_aside.len(), 1);
    assert_eq!(done.set_aside[0].0, damaged);
    assert_eq!(done.records_removed, 7, "of `new` one is left");
    let plan = storage
        .plan_cleanup(log_id(), Policy::Compaction, true)
        .unwrap();
    assert!(matches!(
        &plan.segments[0].outcome,
        Outcome::Keep(HeldBack::SetAside { .. })
    ));
    assert!(plan.is_empty(), "the others are clean: {plan:?}");
    let metrics = storage.compaction_metrics();
    assert!(metrics.errors == 1 && metrics.last_error.is_some());
    // A value that may come back keeps its tombstone, also when its horizon is over.
    house.clock.advance(Duration::from_secs(10));
    append(
        &storage,
        &log,
        batch(Codec::None, &[pair("x", Some("y"))], None),
    );
    let again = run(&storage, NOW);
    assert_eq!(again.tombstones_removed, 0);
    assert_eq!(
        again.set_aside.len(),
        1,
        "it was tried again: somebody asked"
    );
}

#[test]
fn a_batch_that_cannot_be_read_stays_and_replaces_nothing() {
    let house = House::new();
    let storage = house.open();
    let log = storage.create_log(log_id(), compacted(0));
    append(
        &storage,
        &log,
        batch(Codec::None, &[pair("k", Some("a"))], None),
    );
    // A batch that says it is compressed, and is not: its checksum is right.
    let mut bytes = batch(Codec::None, &[pair("k", Some("b"))], None)
        .bytes()
        .to_vec();
    bytes[22] |= 4;
    let checksum = model::batch::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    append(&storage, &log, Batch::parse(bytes.into()).unwrap());
    append(
        &storage,
        &log,
        batch(
            Codec::None,
            &[pair("l", Some("c")), pair("l", Some("d"))],
            None,
        ),
    );
    let done = run(&storage, NOW);
    assert_eq!((done.unreadable_batches, done.records_removed), (1, 1));
    let chunk = log.read(Offset::ZERO, 1 << 20, true).unwrap();
    let batches = split(chunk.to_bytes()).map(|batch| batch.unwrap().header().base().get());
    assert_eq!(batches.collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_run_that_is_cancelled_leaves_the_log_as_it_was() {
    let house = House::new();
    let storage = house.open();
    let log = storage.create_log(log_id(), compacted(0));
    for value in ["a", "b"] {
        append(
            &storage,
            &log,
            batch(Codec::None, &[pair("k", Some(value))], None),
        );
    }
    let before = read_all(&log);
    let progress = Progress::default();
    progress.cancel();
    let run = storage.run_cleanup(log_id(), Policy::Compaction, NOW, &progress);
    let run = run.unwrap();
    assert!(run.is_cut_short);
    assert_eq!(run.records_removed, 0);
    assert_eq!(read_all(&log), before);
}

#[test]
fn a_log_that_is_not_compacted_says_so() {
    let house = House::new();
    let storage = house.open();
    let log = storage.create_log(log_id(), LogSettings::from(&TopicConfig::default()));
    append(
        &storage,
        &log,
        batch(Codec::None, &[pair("k", Some("a"))], None),
    );
    storage.settle_once();
    let plan = storage
        .plan_cleanup(log_id(), Policy::Compaction, false)
        .unwrap();
    assert_eq!(
        plan.segments[0].outcome.to_string(),
        "cleanup.policy of the topic does not name compact"
    );
    assert_eq!(run(&storage, NOW).passes, 0);
}

/// Ten segments or so in which each key comes up several times, some of them deleted at the end.
fn fill(storage: &Storage, log: &Log, oracle: &mut Oracle) {
    let value = "v".repeat(600);
    for round in 0..30 {
        let key = |index: usize| format!("key-{}", (round * 2 + index) % 9);
        let of = |index: usize| (round < 25 || index > 0).then_some(&value[..]);
        let pairs = [pair(&key(0), of(0)), pair(&key(1), of(1))];
        append(storage, log, batch(Codec::None, &pairs, None));
        oracle.append(&pairs);
    }
    storage.settle_once();
}

#[test]
fn a_power_cut_at_any_operation_of_a_compaction_loses_no_newest_record_and_the_next_run_ends_it() {
    let life = |cut: Option<u64>| {
        let disk = SimDisk::new(7);
        let house = House::simulated(&disk);
        let storage = house.open();
        let log = storage.create_log(log_id(), compacted(1_000));
        let mut oracle = Oracle::default();
        fill(&storage, &log, &mut oracle);
        let began = disk.operations();
        if let Some(cut) = cut {
            disk.cut_power_during(began + cut);
        }
        let done = storage.run_cleanup(log_id(), Policy::Compaction, NOW, &Progress::default());
        assert!(done.is_ok() || cut.is_some(), "{done:?}");
        let operations = disk.operations() - began;
        drop((log, storage));
        if let Some(cut) = cut {
            disk.cut_power();
            disk.restart(cut);
        }
        let storage = house.open();
        let log = storage.create_log(log_id(), compacted(1_000));
        let all = oracle.records();
        let now = storage.steady_clock().now().millis();
        oracle.compact(now, 1_000);
        let newest = oracle.records();
        let found = read_all(&log);
        assert!(
            found
                .iter()
                .all(|(offset, pair)| all.get(offset) == Some(pair)),
            "{cut:?}: nothing is invented"
        );
        let is_lost = |(offset, _): &(&u64, &Pair)| !found.contains_key(offset);
        let lost: Vec<_> = newest.iter().filter(is_lost).collect();
        assert_eq!(lost, [], "{cut:?}: the newest of each key stays");
        run(&storage, NOW);
        assert_eq!(read_all(&log), newest, "{cut:?}: the next run ends it");
        operations
    };
    let operations = life(None);
    assert!(operations > 30, "a run of several rewrites: {operations}");
    for cut in 1..=operations {
        life(Some(cut));
    }
}

#[test]
fn on_a_full_disk_a_run_backs_out_and_goes_on_when_there_is_space() {
    let disk = SimDisk::new(3);
    let house = House::simulated(&disk);
    let storage = house.open();
    let log = storage.create_log(log_id(), compacted(1_000));
    let mut oracle = Oracle::default();
    fill(&storage, &log, &mut oracle);
    let files = |disk: &SimDisk| {
        let files = disk.files();
        let segments = files
            .into_keys()
            .filter(|path| path.extension().is_some_and(|end| end == "log"));
        segments.collect::<Vec<_>>()
    };
    let before = files(&disk);
    disk.fill();
    let options = RunOptions { now: false, ..NOW };
    let run_on =
        || storage.run_cleanup(log_id(), Policy::Compaction, options, &Progress::default());
    assert!(matches!(run_on(), Err(CleanupError::DiskFull)));
    assert_eq!(files(&disk), before, "what was begun is removed");
    assert_eq!(read_all(&log), oracle.records());
    assert!(
        storage.compaction_metrics().uncleanable_logs == 0,
        "a full disk is no fault of a segment"
    );
    disk.set_capacity(u64::MAX);
    run(&storage, NOW);
    oracle.compact(storage.steady_clock().now().millis(), 1_000);
    assert_eq!(read_all(&log), oracle.records());
}

#[test]
fn a_run_keeps_to_its_budget_of_bytes_a_second() {
    let directory = tempfile::tempdir().unwrap();
    let (storage, _) = Storage::open(StorageConfig::new(directory.path()), Env::real()).unwrap();
    storage.finish_open(&[log_id()].into()).unwrap();
    let log = storage.create_log(log_id(), compacted(1_000));
    let value = "v".repeat(1_000);
    for _ in 0..100 {
        let one = batch(Codec::None, &[pair("k", Some(&value))], None);
        let admission = storage.try_admit(one.bytes().len()).unwrap();
        log.append(vec![AppendBatch::from(one)], admission)
            .unwrap()
            .durable
            .wait()
            .unwrap();
    }
    let options = RunOptions {
        bytes_per_second: Some(200_000),
        ..NOW
    };
    let report = run(&storage, options);
    assert_eq!((report.records_removed, read_all(&log).len()), (99, 1));
    let moved = report.bytes_read + report.bytes_written;
    let least = Duration::from_secs_f64(moved as f64 / 200_000.0).mul_f64(0.8);
    assert!(report.took >= least, "{moved} bytes took {:?}", report.took);
}

#[test]
fn a_run_that_is_cancelled_half_way_tells_what_it_did_until_then() {
    let house = House::new();
    let storage = house.open();
    let progress = Arc::new(Progress::default());
    let questions = Arc::new(AtomicUsize::new(0));
    let (ends, asked) = (Arc::clone(&progress), Arc::clone(&questions));
    // What is held is asked for before each switch.
    storage.set_holds(Arc::new(move |_| {
        if asked.fetch_add(1, Ordering::Relaxed) == 4 {
            ends.cancel();
        }
        Vec::new()
    }));
    let log = storage.create_log(log_id(), compacted(1_000));
    fill(&storage, &log, &mut Oracle::default());
    let before = read_all(&log);
    questions.store(0, Ordering::Relaxed);
    let options = RunOptions { now: false, ..NOW };
    let cut = storage.run_cleanup(log_id(), Policy::Compaction, options, &progress);
    let cut = cut.unwrap();
    assert!(cut.is_cut_short && !cut.rewrites.is_empty());
    let after = read_all(&log);
    let gone = (before.len() - after.len()) as u64;
    assert!(gone > 0);
    assert_eq!(
        (cut.records_removed, log.bounds().start),
        (gone, Offset::ZERO)
    );
    let rest = run(&storage, options);
    assert!(rest.records_removed > 0 && !rest.is_cut_short);
}

#[test]
fn a_dry_run_now_says_what_it_did_not_look_at() {
    let house = House::new();
    let storage = house.open();
    let log = storage.create_log(log_id(), compacted(1_000));
    for value in ["a", "b"] {
        append(
            &storage,
            &log,
            batch(Codec::None, &[pair("k", Some(value))], None),
        );
    }
    storage.settle_once();
    append(
        &storage,
        &log,
        batch(Codec::None, &[pair("k", Some("c"))], None),
    );
    let told = run(
        &storage,
        RunOptions {
            dry_run: true,
            ..NOW
        },
    );
    assert_eq!(
        (told.unsealed.records, told.unsealed.bytes),
        (3, log.size_bytes())
    );
    assert_eq!(run(&storage, NOW).unsealed.records, 0);
}

/// A segment that is large enough for threads which read it, write the new one and close it.
#[test]
fn threads_beside_a_run_leave_what_it_leaves_alone() {
    const BATCHES: u64 = 360;
    const PER_BATCH: u64 = 50;
    let value = "v".repeat(1_000);
    let left = |threads| {
        let mut house = House::new();
        let storage = house.open();
        let settings = LogSettings {
            segment_bytes: 64 << 20,
            ..compacted(0)
        };
        let log = storage.create_log(log_id(), settings.clone());
        let mut newest = BTreeMap::new();
        for number in 0..BATCHES {
            // Some of each batch stays, and some goes.
            let keys = (number * PER_BATCH..(number + 1) * PER_BATCH).map(|offset| {
                let key = match offset % 3 {
                    0 => format!("once-{offset}"),
                    _ => format!("often-{}", offset % 700),
                };
                newest.insert(key.clone(), offset);
                pair(&key, Some(&value))
            });
            let pairs: Vec<Pair> = keys.collect();
            append(&storage, &log, batch(Codec::None, &pairs, None));
        }
        storage.settle_once();
        storage.shutdown();
        drop((log, storage));
        house.threads = threads;
        let storage = house.open();
        let log = storage.create_log(log_id(), settings);
        let report = run(&storage, NOW);
        let names = walk(&house.root);
        let of_logs: Vec<_> = names
            .iter()
            .filter_map(|path| path.file_name()?.to_str().filter(|it| it.ends_with(".log")))
            .filter(|name| name.starts_with("0000"))
            .collect();
        assert_eq!(of_logs[0], "00000000000000000000.1.log", "{of_logs:?}");
        let kept: Vec<u64> = read_all(&log).into_keys().collect();
        let mut expected: Vec<u64> = newest.into_values().collect();
        expected.sort_unstable();
        assert_eq!(kept, expected);
        assert_eq!(
            report.records_removed,
            BATCHES * PER_BATCH - kept.len() as u64
        );
        kept
    };
    assert_eq!(left(Threads::Manual), left(Threads::Own));
}

/// Of each segment's file, whether its first and its last byte are in memory.
fn ends_in_memory(disk: &SimDisk) -> Vec<(bool, bool)> {
    let is_segment = |path: &Path| {
        path.extension().is_some_and(|kind| kind == "log")
            && path.parent().unwrap().ends_with(log_id().to_string())
    };
    let lengths = disk.files().into_iter();
    let lengths = lengths.map(|(path, bytes)| (path, bytes.len() as u64));
    lengths
        .filter(|(path, _)| is_segment(path))
        .map(|(path, bytes)| {
            let file = disk.open(&path, OpenHow::Read).unwrap();
            let is_there = |position| file.read_at_now(position, &mut [0]).is_ok();
            (is_there(0), is_there(bytes - 1))
        })
        .collect()
}

#[test]
fn what_settles_of_a_compacted_log_stays_in_memory_to_be_compacted() {
    let settled = |settings: LogSettings| {
        let disk = SimDisk::new(1);
        let house = House::simulated(&disk);
        let storage = house.open();
        let log = storage.create_log(log_id(), settings);
        let value = "v".repeat(30_000);
        for number in 0..40 {
            let pairs = [pair(&format!("k{number}"), Some(&value))];
            append(&storage, &log, batch(Codec::None, &pairs, None));
        }
        while storage.settle_once() {}
        let found = ends_in_memory(&disk);
        storage.shutdown();
        found
    };
    let of_a_mebibyte = |settings| LogSettings {
        segment_bytes: 1 << 20,
        ..settings
    };
    let found = settled(of_a_mebibyte(compacted(0)));
    assert_eq!(found, vec![(true, true); found.len()]);
    assert!(found.len() > 1);
    // Of others only what is not a whole block.
    let found = settled(of_a_mebibyte(LogSettings::from(&TopicConfig::default())));
    assert!(found.iter().all(|(first, _)| !first), "{found:?}");
    assert!(found.len() > 1);
}
