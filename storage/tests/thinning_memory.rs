//! What thinning holds in memory, counted by the allocator: no more than `cleaner.memory.bytes` and some buffers, however many
//! records and windows a segment has. And that nothing is lost by it: the summaries count every record.
//!
//! A program of its own, because it counts all that is allocated in it.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alluvium_storage as storage;
use model::batch::{Batch, BatchBuilder, Codec, DecompressLimit, split};
use model::topic_config::{Defaults, TopicConfig};
use model::{LogId, PartitionId, Timestamp, TopicId};
use peak_alloc::PeakAlloc;
use storage::cleanup::Policy;
use storage::cleanup::run::{Progress, Report, RunOptions};
use storage::inspect::summed_windows;
use storage::{
    AppendBatch, Env, LogSettings, ManualClock, RealDisk, Storage, StorageConfig, Threads,
};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const MEMORY_BYTES: usize = 8 << 20;
/// Read buffers, of which three are on their way at a time, write buffers, the index of a segment, a batch.
const BUFFERS_BYTES: usize = 10 << 20;
const DEVICES: u64 = 500;
const READINGS: u64 = 1_200;
/// Eight readings a second.
const STEP_MS: u64 = 125;
const RECORDS: u64 = DEVICES * READINGS;
const DAY_MS: u64 = 86_400_000;

fn log_id() -> LogId {
    LogId::new(TopicId::from_bytes([9; 16]), PartitionId::new(0))
}

fn settings() -> LogSettings {
    let tiers = "0ms:1s:first+last+min(f32@0)+max(f32@0); 1d:1m:min(f32@0)+max(f32@0)";
    let pairs = [("cleanup.policy", "thin"), ("thin.tiers", tiers)];
    let named = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let overrides = BTreeMap::from(named);
    LogSettings::from(&TopicConfig::from_overrides(&overrides, &Defaults::default()).unwrap())
}

/// What device `device` measures at its `number`th reading: no two of a window are equal.
fn value(device: u64, number: u64) -> u16 {
    (number * 7919 + device * 31) as u16 % 10_007
}

fn append(storage: &Storage) {
    let log = storage.log(log_id()).unwrap();
    for number in 0..READINGS {
        let mut builder = BatchBuilder::new(Codec::None);
        for device in 0..DEVICES {
            let time = Timestamp::from_millis((number * STEP_MS) as i64);
            let value = f32::from(value(device, number)).to_le_bytes();
            let key = device.to_be_bytes();
            builder.push(time, Some(&key), Some(&value), &[]).unwrap();
        }
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        while storage.prepare_once().unwrap() {}
        let admission = storage.try_admit(batch.bytes().len()).unwrap();
        let batches = vec![AppendBatch::from(batch)];
        let appended = log.append(batches, admission).unwrap();
        assert!(storage.commit_once());
        appended.durable.wait().unwrap();
    }
}

/// Thins, and says by how much the memory grew meanwhile.
fn thin(storage: &Storage) -> (Report, usize) {
    let options = RunOptions {
        now: true,
        ..RunOptions::default()
    };
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let report = storage
        .run_cleanup(log_id(), Policy::Thin, options, &Progress::default())
        .unwrap();
    (report, ALLOCATED.peak_usage() - before)
}

/// Values that are left, by device and second.
fn left(storage: &Storage) -> BTreeMap<(u64, u64), Vec<u16>> {
    let log = storage.log(log_id()).unwrap();
    let bounds = log.bounds();
    let (mut at, mut left) = (bounds.start, BTreeMap::<_, Vec<u16>>::new());
    while at < bounds.durable_end {
        let chunk = log.read(at, 1 << 20, true).unwrap();
        for batch in split(chunk.to_bytes()) {
            for record in batch.unwrap().records(DecompressLimit::default()).unwrap() {
                let record = record.unwrap();
                let device = u64::from_be_bytes(record.key.unwrap()[..].try_into().unwrap());
                let second = record.timestamp.millis() as u64 / 1_000;
                let value = f32::from_le_bytes(record.value.unwrap()[..].try_into().unwrap());
                left.entry((device, second)).or_default().push(value as u16);
            }
        }
        at = chunk.end_offset;
    }
    left
}

/// All records are counted once, in windows of this length.
fn check_summaries(data: &Path, window_ms: i64) {
    let only = |path: &Path| path.read_dir().unwrap().next().unwrap().unwrap().path();
    let directory = only(&only(&data.join("p")));
    let windows = summed_windows(&RealDisk, &directory, log_id(), None).unwrap();
    // At the edge of two pieces a window may be left shorter than it could be.
    let shorter = windows.keys().filter(|at| at.window_ms != window_ms);
    let shorter = shorter.count();
    assert!(
        shorter * 50 < windows.len(),
        "{shorter} of {} windows are shorter than {window_ms} ms",
        windows.len()
    );
    let records: u64 = windows.values().map(|window| window.records).sum();
    assert_eq!(records, RECORDS);
    let sum: f64 = windows.values().map(|it| it.values["f32@0"].1.sum).sum();
    let readings = (0..READINGS).flat_map(|number| (0..DEVICES).map(move |it| value(it, number)));
    assert_eq!(sum, readings.map(f64::from).sum::<f64>());
}

/// A store with the log, whose work is done by calls of it or by threads of its own.
fn open(directory: &Path, clock: &Arc<ManualClock>, threads: Threads) -> Storage {
    let mut config = StorageConfig::new(directory);
    config.cleaner_memory_bytes = MEMORY_BYTES as u64;
    let env = Env {
        threads,
        ..Env::manual(Arc::new(RealDisk), clock.clone())
    };
    let (storage, _) = Storage::open(config, env).unwrap();
    storage.create_log(log_id(), settings());
    storage.finish_open(&HashSet::from([log_id()])).unwrap();
    storage
}

/// One test, so that nothing else is counted meanwhile.
#[test]
fn a_segment_of_any_number_of_records_and_windows_is_thinned_within_the_memory_for_it() {
    for threads in [Threads::Manual, Threads::Own] {
        check_thinned(threads);
    }
}

fn check_thinned(threads: Threads) {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
    let storage = open(directory.path(), &clock, Threads::Manual);
    append(&storage);
    storage.shutdown();
    drop(storage);
    let storage = open(directory.path(), &clock, threads);
    // Held all at once, the records alone would take more than three times as much.
    const { assert!(RECORDS as usize * 43 > 3 * MEMORY_BYTES) };

    clock.advance(Duration::from_secs(10));
    let (report, grown) = thin(&storage);
    assert!(report.set_aside.is_empty());
    assert!(grown < MEMORY_BYTES + BUFFERS_BYTES, "{grown} bytes");
    let seconds = left(&storage);
    let held: u64 = seconds.values().map(|values| values.len() as u64).sum();
    assert_eq!(held, RECORDS - report.records_removed);
    assert!(held < RECORDS * 6 / 10, "{held} records are left");
    assert_eq!(seconds.len() as u64, DEVICES * READINGS / 8);
    for ((device, second), values) in &seconds {
        let window = (second * 8..second * 8 + 8).map(|number| value(*device, number));
        let (least, most) = (window.clone().min().unwrap(), window.max().unwrap());
        assert!(values.contains(&least) && values.contains(&most));
    }
    check_summaries(directory.path(), 1_000);

    clock.advance(Duration::from_millis(DAY_MS + 60_000));
    let (report, grown) = thin(&storage);
    assert!(grown < MEMORY_BYTES + BUFFERS_BYTES, "{grown} bytes");
    assert!(report.records_removed > 0);
    check_summaries(directory.path(), 60_000);
}
