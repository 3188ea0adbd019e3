//! Threads produce, read, seek by time and delete at once, while the store's own threads sync and settle, and the power is cut
//! in the middle of it. What they were told is a history, and it must be one that a single list of records can have.
//!
//! `SEEDS=3000 cargo test --release -p alluvium-storage --test linearizable` runs longer; `FIRST_SEED` moves the start. A seed
//! gives what is asked and when the power goes; how the threads take turns is the machine's, so that a history that fails is
//! printed whole.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alluvium_storage as storage;
use bytes::Bytes;
use history::{Operation, Outcome, Record, Recorder, Violation, What, check};
use model::batch::{Batch, BatchBuilder, split};
use model::codec::Codec;
use model::topic_config::{Durability, TopicConfig};
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use random::Random;
use storage::io::SimDisk;
use storage::{
    Disk, Env, Log, LogSettings, ReadError, Storage, StorageConfig, SystemClock, Threads,
};

#[path = "../../tests/history/mod.rs"]
mod history;
mod random;

/// Histories in a plain test run.
const SEEDS_DEFAULT: u64 = 60;
/// How often the store is opened and cut off in one history.
const LIVES: u64 = 3;
/// What each client does in one life.
const OPERATIONS: u64 = 8;

#[test]
fn histories_with_power_cuts_are_linearizable() {
    let (seeds, first) = (setting("SEEDS", SEEDS_DEFAULT), setting("FIRST_SEED", 1));
    let (mut operations, mut records) = (0, 0);
    for seed in first..first + seeds {
        let history = run(seed, Durability::Fsync);
        operations += history.len();
        records += history.iter().map(shown).sum::<usize>();
        if let Err(Violation(reason)) = check(&history) {
            panic!("FIRST_SEED={seed} SEEDS=1: {reason}\n{}", printed(&history));
        }
    }
    println!(
        "linearizable: {seeds} histories under seeds {first}..{}, {operations} operations, {records} records shown, no violation",
        first + seeds
    );
    assert!(
        records as u64 > 10 * seeds,
        "the readers must see something"
    );
}

#[test]
fn a_store_that_does_not_sync_is_found_out() {
    let is_caught = |seed: &u64| check(&run(*seed, Durability::Os)).is_err();
    let caught = (1..200).find(is_caught);
    assert!(caught.is_some(), "the judge must be able to find a loss");
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn shown(operation: &Operation) -> usize {
    match &operation.what {
        What::Read { found, .. } => found.len(),
        _ => 0,
    }
}

fn printed(history: &[Operation]) -> String {
    let line = |operation: &Operation| {
        let Operation {
            invoked,
            completed,
            what,
        } = operation;
        format!("{invoked:5}..{completed:5} {what:?}\n")
    };
    history.iter().map(line).collect()
}

fn id() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
}

/// One history: lives of a store on one disk, cut off at some operation of the disk, and a look at what is there in the end.
fn run(seed: u64, durability: Durability) -> Vec<Operation> {
    let mut random = Random(seed);
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let recorder = Recorder::default();
    let values = AtomicU64::new(0);
    for _ in 0..LIVES {
        let storage = open(&disk, durability);
        disk.cut_power_during(disk.operations() + 1 + random.below(120));
        let clients: Vec<Client<'_>> = (0..5)
            .map(|_| Client {
                recorder: &recorder,
                values: &values,
                disk: &disk,
                storage: &storage,
                log: storage.log(id()).unwrap(),
                random: Random(random.next()),
            })
            .collect();
        std::thread::scope(|scope| {
            for (role, mut client) in clients.into_iter().enumerate() {
                scope.spawn(move || (0..OPERATIONS).for_each(|_| client.act(role)));
            }
        });
        // Either the process dies with the machine, or alone.
        let dies_alone = !disk.is_off() && random.below(3) == 0;
        disk.cut_power();
        storage.shutdown();
        drop(storage);
        if dies_alone {
            disk.restart_process();
        } else {
            disk.restart(random.next());
        }
    }
    let storage = open(&disk, durability);
    let log = storage.log(id()).unwrap();
    let mut last = Client {
        recorder: &recorder,
        values: &values,
        disk: &disk,
        storage: &storage,
        log,
        random,
    };
    last.look_at_all();
    recorder.history()
}

fn open(disk: &SimDisk, durability: Durability) -> Storage {
    let mut config = StorageConfig::new("/data");
    config.wal_file_bytes = 256 << 10;
    config.wal_files_min = 2;
    config.wal_files_max = 16;
    config.settle_age = Duration::from_millis(1);
    config.retention_check = Duration::from_secs(3600);
    let env = Env {
        threads: Threads::Own,
        ..Env::manual(Arc::new(disk.clone()), Arc::new(SystemClock::new()))
    };
    let (storage, report) = Storage::open(config, env).unwrap();
    assert!(report.damage.is_empty(), "a cut is no damage: {report:?}");
    let settings = LogSettings {
        segment_bytes: 1_500,
        durability,
        ..LogSettings::from(&TopicConfig::default())
    };
    storage.create_log(id(), settings);
    storage.finish_open(&HashSet::from([id()])).unwrap();
    storage
}

/// One client, on a thread of its own.
struct Client<'a> {
    recorder: &'a Recorder,
    values: &'a AtomicU64,
    disk: &'a SimDisk,
    storage: &'a Storage,
    log: Arc<Log>,
    random: Random,
}

impl Client<'_> {
    fn act(&mut self, role: usize) {
        match (role, self.random.below(4)) {
            (0 | 1, _) => self.produce(),
            (2, _) => self.read_somewhere(),
            (3, 0) => self.bounds(),
            (3, _) => self.seek_time(),
            (_, 0) => self.delete_records(),
            (_, 1) => self.bounds(),
            (_, 2) => self.seek_time(),
            _ => self.read_somewhere(),
        }
    }

    /// Appends one to three batches at once, and waits for all of them.
    fn produce(&mut self) {
        let mut waiting = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            let mut builder = BatchBuilder::new(Codec::None);
            let mut records = Vec::new();
            for _ in 0..1 + self.random.below(3) {
                let value = self.values.fetch_add(1, Ordering::Relaxed);
                let time = self.random.below(50) as i64;
                let mut bytes = value.to_be_bytes().to_vec();
                bytes.resize(8 + self.random.below(300) as usize, 0);
                let at = Timestamp::from_millis(time);
                builder.push(at, None, Some(&bytes), &[]).unwrap();
                records.push(Record { value, time });
            }
            let batch = Batch::parse(builder.build().unwrap()).unwrap();
            let invoked = self.recorder.begin();
            let Some(admission) = self.storage.try_admit(batch.bytes().len()) else {
                // It would have to wait, and was not sent.
                continue;
            };
            match self.log.append(vec![batch.into()], admission) {
                Ok(appended) => waiting.push((invoked, records, appended)),
                Err(_) => {
                    let base = Outcome::Refused;
                    self.recorder.end(invoked, What::Produce { records, base });
                }
            }
        }
        for (invoked, records, appended) in waiting {
            let base = match appended.durable.wait() {
                Ok(()) => Outcome::Done(appended.base_offset.get()),
                Err(_) => Outcome::Unknown,
            };
            self.recorder.end(invoked, What::Produce { records, base });
        }
    }

    fn read_somewhere(&mut self) {
        let bounds = self.log.bounds();
        let (start, end) = (bounds.start.get(), bounds.durable_end.get());
        let from = match self.random.below(4) {
            0 => start,
            1 => end,
            2 => start.saturating_sub(self.random.below(4)),
            _ => start + self.random.below(end - start + 1),
        };
        let max_bytes = 1 + self.random.below(4_000) as usize;
        self.read(from, max_bytes);
    }

    /// Reads once. Gives where to read on; None at the end, or if it could not be read.
    fn read(&mut self, from: u64, max_bytes: usize) -> Option<u64> {
        let invoked = self.recorder.begin();
        let read = self.log.read_copy(Offset::new(from), max_bytes);
        let answer = read.map(|chunk| records_from(from, chunk.to_bytes()));
        let what = match &answer {
            Ok(found) => Some(What::Read {
                from,
                found: found.clone(),
                end: None,
            }),
            Err(ReadError::OutOfRange { bounds, .. }) if bounds.start.get() > from => {
                Some(What::BelowStart { from })
            }
            Err(_) => None,
        };
        if let Some(what) = what {
            self.recorder.end(invoked, what);
        }
        match answer {
            Ok(found) => found.last().map(|(last, _)| last + 1),
            Err(ReadError::OutOfRange { .. }) => None,
            Err(error) => {
                assert!(self.disk.is_off(), "offset {from}: {error}");
                None
            }
        }
    }

    fn bounds(&mut self) {
        let invoked = self.recorder.begin();
        let bounds = self.log.bounds();
        let what = What::Bounds {
            start: Some(bounds.start.get()),
            end: Some(bounds.durable_end.get()),
        };
        self.recorder.end(invoked, what);
    }

    fn seek_time(&mut self) {
        let wanted = self.random.below(55) as i64;
        let invoked = self.recorder.begin();
        match self.log.offset_for_time(Timestamp::from_millis(wanted)) {
            Ok(found) => {
                let found = found.map(|found| (found.offset.get(), found.timestamp.millis()));
                self.recorder.end(invoked, What::SeekTime { wanted, found });
            }
            Err(error) => assert!(self.disk.is_off(), "time {wanted}: {error}"),
        }
    }

    fn delete_records(&mut self) {
        let bounds = self.log.bounds();
        let kept = bounds.durable_end.since(bounds.start);
        let before = bounds.start.get() + self.random.below(kept / 2 + 1);
        let invoked = self.recorder.begin();
        let outcome = match self.log.delete_records(Offset::new(before)) {
            Ok(durable) => match durable.wait() {
                Ok(()) => Outcome::Done(()),
                Err(_) => Outcome::Unknown,
            },
            Err(_) => Outcome::Refused,
        };
        self.recorder
            .end(invoked, What::DeleteRecords { before, outcome });
    }

    /// After the last start: every record that is there, and a search for every time.
    fn look_at_all(&mut self) {
        self.bounds();
        let mut from = self.log.bounds().start.get();
        while let Some(next) = self.read(from, 2_000) {
            from = next;
        }
        assert_eq!(from, self.log.bounds().durable_end.get(), "all was read");
        for _ in 0..10 {
            self.seek_time();
        }
    }
}

fn records_from(from: u64, bytes: Bytes) -> Vec<(u64, Record)> {
    let mut records = Vec::new();
    for batch in split(bytes) {
        for record in batch.unwrap().records(Default::default()).unwrap() {
            let record = record.unwrap();
            let value = record.value.unwrap();
            let value = u64::from_be_bytes(*value.first_chunk().unwrap());
            let time = record.timestamp.millis();
            if record.offset.get() >= from {
                records.push((record.offset.get(), Record { value, time }));
            }
        }
    }
    records
}
