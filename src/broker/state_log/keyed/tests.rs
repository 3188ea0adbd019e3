//! Keyed logs over a real store: small files, long records, compaction by the engine, restarts.

use std::collections::BTreeMap;
use std::path::Path;

use storage::cleanup::Policy;
use storage::cleanup::run::{Progress, RunOptions};
use storage::{AppendError, Env, OnFailure, StorageConfig};
use tempfile::TempDir;

use super::replay::{DECOMPRESSED_BYTES_MAX, decompress_limit};
use super::*;

const KIB: usize = 1024;

type Entries = Vec<(Bytes, Bytes)>;

fn store(directory: &Path, wal_file_bytes: u64, frame_bytes_max: usize) -> Storage {
    let mut config = StorageConfig::new(directory);
    config.wal_file_bytes = wal_file_bytes;
    config.frame_bytes_max = frame_bytes_max;
    config.wal_files_min = 2;
    config.settle_age = std::time::Duration::from_millis(20);
    config.cleaner_check = std::time::Duration::from_millis(50);
    let env = Env {
        on_failure: OnFailure::Refuse,
        ..Env::real()
    };
    let (storage, _) = Storage::open(config, env).expect("a store");
    let known = [LogId::METADATA, LogId::OFFSETS].into();
    storage.finish_open(&known).expect("a tidy store");
    storage
}

fn open(storage: &Storage) -> (KeyedLog, Entries) {
    let (log, opened) =
        KeyedLog::open(storage, storage.clock(), LogId::METADATA).expect("a readable log");
    (log, opened.live)
}

fn removed(storage: &Storage) -> Vec<Bytes> {
    let opened = KeyedLog::open(storage, storage.clock(), LogId::METADATA);
    opened.expect("a readable log").1.removed
}

/// Has the engine compact the log, as the tool would ask for it. Gives how many records went.
async fn compact(storage: &Storage) -> u64 {
    let storage = storage.clone();
    let run = move || {
        let options = RunOptions {
            now: true,
            ..RunOptions::default()
        };
        let (log, policy) = (LogId::METADATA, Policy::Compaction);
        storage.run_cleanup(log, policy, options, &Progress::default())
    };
    let report = tokio::task::spawn_blocking(run).await.expect("no panic");
    report.expect("a compaction").records_removed
}

fn set(key: &str, value: impl Into<Bytes>) -> Change {
    (Bytes::copy_from_slice(key.as_bytes()), Some(value.into()))
}

fn value(byte: u8, bytes: usize) -> Bytes {
    vec![byte; bytes].into()
}

fn model_of(changes: &[Change]) -> Entries {
    let mut model = BTreeMap::new();
    for (key, value) in changes {
        match value {
            Some(value) => model.insert(key.clone(), value.clone()),
            None => model.remove(key),
        };
    }
    model.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_is_kept_and_compacted_at_every_length_of_files_and_frames() {
    for (wal_file_bytes, frame_bytes_max) in [
        (256 << 10, 64 << 10),
        (256 << 10, 64 << 20),
        (320 << 10, 4 << 20),
        (2 << 20, 64 << 10),
    ] {
        let directory = TempDir::new().expect("a directory");
        let storage = store(directory.path(), wal_file_bytes, frame_bytes_max);
        let (log, entries) = open(&storage);
        assert_eq!(entries, []);
        let longest = log.record_bytes_max() - 4;
        let mut all = Vec::new();
        for round in 0..6u8 {
            let mut changes: Vec<_> = (0..400)
                .map(|key| set(&format!("{key:03}"), value(round, 1000)))
                .collect();
            changes.push(set("long", value(round, longest)));
            changes.push((Bytes::from_static(b"007"), None));
            for result in log
                .append_each(changes.clone(), Purpose::State)
                .await
                .wait()
                .await
            {
                result.expect("room");
            }
            all.extend(changes);
        }
        let written = log.bounds();
        let live = model_of(&all).len() as u64;
        let gone = compact(&storage).await;
        // The one removal stays for a day.
        assert_eq!(gone, written.end.get() - live - 1, "{wal_file_bytes}");
        drop((log, storage));
        let storage = store(directory.path(), wal_file_bytes, frame_bytes_max);
        let (_, entries) = open(&storage);
        assert!(entries == model_of(&all), "{wal_file_bytes}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_changes_all_the_time_is_kept_short_by_itself() {
    let directory = TempDir::new().expect("a directory");
    let storage = store(directory.path(), 2 << 20, 512 << 10);
    let (log, _) = open(&storage);
    let mut written = 0;
    for round in 0..=255u8 {
        let changes = (0..4).map(|key| set(&key.to_string(), value(round, 64 * KIB)));
        written += 4 * 64 * KIB as u64;
        log.write(changes.collect(), Purpose::State)
            .await
            .expect("room");
    }
    // Two segments of 8 MiB at most wait for compaction while a third one is written, and what is in the WAL.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while log.log.size_bytes() > written / 2 {
        let now = std::time::Instant::now();
        assert!(now < deadline, "{} of {written}", log.log.size_bytes());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    drop((log, storage));
    let storage = store(directory.path(), 2 << 20, 512 << 10);
    let (_, entries) = open(&storage);
    let expected: Entries = (0..4)
        .map(|key| (Bytes::from(key.to_string()), value(255, 64 * KIB)))
        .collect();
    assert!(entries == expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_stored_is_refused_and_changes_nothing() {
    let directory = TempDir::new().expect("a directory");
    let storage = store(directory.path(), 256 << 10, 64 << 10);
    let (log, _) = open(&storage);
    let most = log.record_bytes_max();
    let too_long = set("k", value(1, most + 64));
    let refused = log.write(vec![too_long.clone()], Purpose::State).await;
    let is_named = matches!(
        refused,
        Err(StateLogError::Append(AppendError::TooLarge { .. }))
    );
    assert!(is_named, "{refused:?}");
    let several = vec![set("a", value(1, 1)), too_long, set("b", value(2, 1))];
    let results = log.append_each(several, Purpose::State).await.wait().await;
    assert_eq!(
        results.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true]
    );
    log.write(vec![set("k", value(3, most - 1))], Purpose::State)
        .await
        .expect("the longest record");
    drop((log, storage));
    let storage = store(directory.path(), 256 << 10, 64 << 10);
    let (_, entries) = open(&storage);
    let keys: Vec<_> = entries.iter().map(|(key, _)| key.as_ref()).collect();
    assert_eq!(keys, [b"a", b"b", b"k"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_a_time_of_longer_files_forbids_neither_start_nor_compaction() {
    let directory = TempDir::new().expect("a directory");
    let storage = store(directory.path(), 2 << 20, 512 << 10);
    let (log, _) = open(&storage);
    let changes = vec![set("a", value(1, 10)), set("long", value(2, 700 * KIB))];
    log.write(changes, Purpose::State).await.expect("room");
    log.write(vec![set("z", value(3, 10))], Purpose::State)
        .await
        .expect("room");
    drop((log, storage));

    let storage = store(directory.path(), 256 << 10, 64 << 10);
    let (log, entries) = open(&storage);
    let lengths: Vec<_> = entries.iter().map(|(_, value)| value.len()).collect();
    assert_eq!(lengths, [10, 700 * KIB, 10]);
    log.write(vec![set("a", value(4, 10))], Purpose::State)
        .await
        .expect("room");
    assert_eq!(compact(&storage).await, 1, "the first record of a");
    drop((log, storage));

    let storage = store(directory.path(), 256 << 10, 64 << 10);
    let (log, again) = open(&storage);
    assert_eq!(again.len(), entries.len());
    assert!(again[1..] == entries[1..], "the long one is there");
    log.write(vec![set("long", value(4, 10))], Purpose::State)
        .await
        .expect("room");
    assert_eq!(compact(&storage).await, 1, "the long record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_brings_back_nothing_that_was_overwritten_meanwhile() {
    let directory = TempDir::new().expect("a directory");
    let storage = store(directory.path(), 256 << 10, 64 << 10);
    let (log, _) = open(&storage);
    let mut all: Vec<_> = (0..2_000)
        .map(|key| set(&format!("{key:04}"), value(0, 500)))
        .collect();
    for result in log
        .append_each(all.clone(), Purpose::State)
        .await
        .wait()
        .await
    {
        result.expect("room");
    }
    let writing = async {
        let mut later = Vec::new();
        for round in 1..40u8 {
            let change = match round % 4 {
                0 => (Bytes::from(format!("{:04}", u32::from(round) * 50)), None),
                _ => set(&format!("{:04}", u32::from(round) * 50), value(round, 500)),
            };
            log.write(vec![change.clone()], Purpose::State)
                .await
                .expect("room");
            later.push(change);
        }
        later
    };
    let (_, later) = tokio::join!(compact(&storage), writing);
    all.extend(later);
    drop((log, storage));
    let storage = store(directory.path(), 256 << 10, 64 << 10);
    let (_, entries) = open(&storage);
    assert!(entries == model_of(&all));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_size_of_an_append_is_told_before_its_records_are_known() {
    let directory = TempDir::new().expect("a directory");
    let storage = store(directory.path(), 256 << 10, 64 << 10);
    let (log, _) = open(&storage);
    let lengths = [0, 1, 40_000, 30_000, 63_000, 64_000, 100_000, 5, 5, 62_000];
    for count in 1..=lengths.len() {
        let changes: Vec<_> = lengths[..count]
            .iter()
            .map(|bytes| set("key", value(1, *bytes)))
            .collect();
        let told = log.size_of(lengths[..count].iter().map(|bytes| bytes + 3));
        let size = log.encode(changes).expect("short enough").size();
        assert!(told.holds(size), "{told:?} {size:?}");
        assert_eq!(told.batches, size.batches);
    }
    let fit = log.count_for_one_append(lengths);
    assert!(storage.takes(log.size_of(lengths[..fit].iter().copied())));
    assert!(!storage.takes(log.size_of(lengths[..=fit].iter().copied())));
}

#[test]
fn what_is_not_compressed_may_be_of_any_length() {
    let mut builder = BatchBuilder::new(Codec::None);
    let value = vec![7; DECOMPRESSED_BYTES_MAX + 1];
    builder
        .push(Timestamp::from_millis(1), None, Some(&value), &[])
        .expect("below 2 GiB");
    let batch = Batch::parse(builder.build().expect("a batch")).expect("a batch");
    let mut records = batch.records(decompress_limit(&batch)).expect("readable");
    let record = records.next().expect("one").expect("whole");
    assert_eq!(record.value.map(|value| value.len()), Some(value.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_removal_of_a_key_outlives_compactions() {
    let directory = TempDir::new().expect("a directory");
    let storage = store(directory.path(), 256 << 10, 64 << 10);
    let (log, _) = open(&storage);
    let gone = Bytes::from_static(b"gone");
    let changes = vec![
        set("kept", value(1, 1)),
        set("gone", value(2, 1)),
        (gone.clone(), None),
    ];
    log.write(changes, Purpose::State).await.expect("written");
    for expected in [1, 0] {
        assert_eq!(compact(&storage).await, expected);
    }
    drop((storage, log));
    // The start after a kill has still to know it.
    let storage = store(directory.path(), 256 << 10, 64 << 10);
    assert_eq!(removed(&storage), [gone]);
    let (log, entries) = open(&storage);
    assert_eq!(entries.len(), 1);
    let back = vec![set("gone", value(3, 1))];
    log.write(back, Purpose::State).await.expect("written");
    drop((storage, log));
    let storage = store(directory.path(), 256 << 10, 64 << 10);
    assert_eq!(removed(&storage), Vec::<Bytes>::new());
    assert_eq!(open(&storage).1.len(), 2);
}
