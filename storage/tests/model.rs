//! A log against a model of it: whatever is done in whatever order, it answers as a list of records would.
//!
//! `PROPTEST_CASES=5000 cargo test --release -p alluvium-storage --test model` runs longer.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alluvium_storage as storage;
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, split};
use model::codec::Codec;
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use proptest::prelude::*;
use storage::io::SimDisk;
use storage::{
    Disk, Env, Log, LogAppend, LogSettings, ManualClock, Purpose, ReadError, Storage, StorageConfig,
};

const RETENTION: Duration = Duration::from_secs(3600);

/// One thing that is done to the log. Places are in thousandths of what is there.
#[derive(Clone, Debug)]
enum Step {
    Append {
        codec: Codec,
        bytes: usize,
        /// Timestamps of the records, as far as the devices' clocks know.
        times: Vec<i64>,
    },
    /// To the log and to another one at once.
    AppendAll {
        bytes: usize,
    },
    Commit,
    Settle,
    /// Time passes, and the cleaner looks at the log.
    Clean {
        seconds: u64,
    },
    DeleteRecords {
        before: u64,
    },
    Read {
        from: u64,
        max_bytes: usize,
    },
    SeekTime {
        wanted: i64,
    },
    /// The process ends in order or is killed, and perhaps somebody deletes all indexes before the next start.
    Restart {
        is_killed: bool,
        loses_indexes: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let codec = prop_oneof![
        4 => Just(Codec::None),
        1 => Just(Codec::Lz4),
        1 => Just(Codec::Zstd),
        1 => Just(Codec::Gzip),
        1 => Just(Codec::Snappy),
    ];
    let times = prop::collection::vec(0..1_000_i64, 1..6);
    let append = (codec, 0..900_usize, times).prop_map(|(codec, bytes, times)| Step::Append {
        codec,
        bytes,
        times,
    });
    prop_oneof![
        12 => append,
        3 => (0..2_000_usize).prop_map(|bytes| Step::AppendAll { bytes }),
        6 => Just(Step::Commit),
        4 => Just(Step::Settle),
        1 => (0..4_000_u64).prop_map(|seconds| Step::Clean { seconds }),
        1 => (0..=1_000_u64).prop_map(|before| Step::DeleteRecords { before }),
        3 => (0..=1_100_u64, 0..6_000_usize).prop_map(|(from, max_bytes)| Step::Read { from, max_bytes }),
        3 => (-1..1_001_i64).prop_map(|wanted| Step::SeekTime { wanted }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(is_killed, loses_indexes)| Step::Restart {
            is_killed,
            loses_indexes
        }),
    ]
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    time: i64,
    value: Bytes,
    epoch: u32,
    /// When the broker made it durable; None while it has not.
    appended: Option<Timestamp>,
}

/// The log as it should be: all that was ever appended and not lost, from offset 0 on.
#[derive(Default)]
struct Model {
    records: Vec<Record>,
    start: u64,
    durable_end: u64,
    /// The records of the other log: each was appended together with one of the log, at this offset.
    others: Vec<(u64, Bytes)>,
}

impl Model {
    /// How many of the other log are durable: those whose fellows are.
    fn durable_others(&self) -> usize {
        let is_durable = |(offset, _): &&(u64, Bytes)| *offset < self.durable_end;
        self.others.iter().take_while(is_durable).count()
    }

    fn first_at_or_after(&self, wanted: i64) -> Option<(u64, i64)> {
        let visible = self.start as usize..self.durable_end as usize;
        let mut records = (self.start..).zip(&self.records[visible]);
        let found = records.find(|(_, record)| record.time >= wanted);
        found.map(|(offset, record)| (offset, record.time))
    }

    fn max_timestamp(&self) -> Option<(u64, i64)> {
        let visible = &self.records[self.start as usize..self.durable_end as usize];
        let largest = visible.iter().map(|record| record.time).max()?;
        self.first_at_or_after(largest)
    }

    /// What lies at this many thousandths between the start and the durable end, or behind it.
    fn place(&self, thousandths: u64) -> u64 {
        self.start + (self.durable_end - self.start) * thousandths / 1_000
    }
}

struct House {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    storage: Storage,
    model: Model,
    values: u64,
}

fn id() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
}

fn other_id() -> LogId {
    LogId::new(TopicId::from_bytes([3; 16]), PartitionId::new(0))
}

fn open(disk: &SimDisk, clock: &Arc<ManualClock>) -> Storage {
    let mut config = StorageConfig::new("/data");
    config.wal_file_bytes = 256 << 10;
    config.wal_files_min = 2;
    config.wal_files_max = 64;
    config.open_segments_max = 2;
    config.frame_bytes_max = 3_000;
    let env = Env::manual(Arc::new(disk.clone()), clock.clone());
    let (storage, report) = Storage::open(config, env).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    storage
        .finish_open(&HashSet::from([id(), other_id()]))
        .unwrap();
    let settings = LogSettings {
        segment_bytes: 3_000,
        retention_ms: Some(RETENTION.as_millis() as u64),
        ..LogSettings::from(&TopicConfig::default())
    };
    storage.create_log(id(), settings);
    let settings = LogSettings {
        segment_bytes: 3_000,
        ..LogSettings::state()
    };
    storage.create_log(other_id(), settings);
    storage
}

impl House {
    fn new() -> House {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data")).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
        let storage = open(&disk, &clock);
        House {
            disk,
            clock,
            storage,
            model: Model::default(),
            values: 0,
        }
    }

    fn log(&self) -> Arc<Log> {
        self.storage.log(id()).unwrap()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Append {
                codec,
                bytes,
                times,
            } => self.append(codec, bytes, &times),
            Step::AppendAll { bytes } => self.append_all(bytes),
            Step::Commit => self.commit(),
            Step::Settle => drop(self.storage.settle_once()),
            Step::Clean { seconds } => self.clean(seconds),
            Step::DeleteRecords { before } => self.delete_records(self.model.place(before)),
            Step::Read { from, max_bytes } => self.read(self.model.place(from), max_bytes),
            Step::SeekTime { wanted } => self.seek_time(wanted),
            Step::Restart {
                is_killed,
                loses_indexes,
            } => self.restart(is_killed, loses_indexes),
        }
        let bounds = self.log().bounds();
        let found = [bounds.start, bounds.durable_end, bounds.end].map(Offset::get);
        let model = &self.model;
        let expected = [model.start, model.durable_end, model.records.len() as u64];
        assert_eq!(found, expected, "start, durable end, end");
        assert!(bounds.settled_end <= bounds.durable_end);
        let others = self.storage.log(other_id()).unwrap().bounds();
        let found = [others.durable_end, others.end].map(|end| end.get() as usize);
        assert_eq!(found, [model.durable_others(), model.others.len()]);
    }

    fn append(&mut self, codec: Codec, bytes: usize, times: &[i64]) {
        let mut builder = BatchBuilder::new(codec);
        let base = self.model.records.len() as u64;
        for time in times {
            self.values += 1;
            let value = [&self.values.to_be_bytes()[..], &vec![3; bytes]].concat();
            let at = Timestamp::from_millis(*time);
            builder.push(at, Some(b"key"), Some(&value), &[]).unwrap();
            self.model.records.push(Record {
                time: *time,
                value: value.into(),
                epoch: self.storage.leader_epoch().get(),
                appended: None,
            });
        }
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        let Some(admission) = self.storage.try_admit(batch.bytes().len()) else {
            self.model.records.truncate(base as usize);
            return self.make_room();
        };
        let appended = self.log().append(vec![batch.into()], admission).unwrap();
        assert_eq!(appended.base_offset.get(), base);
        assert_eq!(appended.last_offset.get(), base + times.len() as u64 - 1);
        assert_eq!(appended.start_offset.get(), self.model.start);
    }

    fn make_room(&mut self) {
        self.commit();
        self.storage.settle_once();
        while self.storage.prepare_once().unwrap() {}
    }

    fn append_all(&mut self, bytes: usize) {
        self.values += 1;
        let value: Bytes = [&self.values.to_be_bytes()[..], &vec![4; bytes]]
            .concat()
            .into();
        let mut builder = BatchBuilder::new(Codec::None);
        let at = Timestamp::from_millis(500);
        builder.push(at, Some(b"key"), Some(&value), &[]).unwrap();
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        let group = [id(), other_id()].map(|id| LogAppend {
            log: self.storage.log(id).unwrap(),
            batches: vec![batch.clone().into()],
        });
        let size = LogAppend::size_of(&group);
        let Some(admission) = self.storage.try_admit_all(size, Purpose::Records) else {
            return self.make_room();
        };
        let appended = self.storage.append_all(&group, admission).unwrap();
        let base = self.model.records.len() as u64;
        let found = appended.offsets.iter().map(|range| range.start.get());
        let expected = [base, self.model.others.len() as u64];
        assert_eq!(found.collect::<Vec<_>>(), expected);
        self.model.others.push((base, value.clone()));
        self.model.records.push(Record {
            time: 500,
            value,
            epoch: self.storage.leader_epoch().get(),
            appended: None,
        });
    }

    fn commit(&mut self) {
        while self.storage.commit_once() {}
        let now = storage::Clock::now(&*self.clock);
        for record in &mut self.model.records[self.model.durable_end as usize..] {
            record.appended = Some(now);
        }
        self.model.durable_end = self.model.records.len() as u64;
    }

    fn clean(&mut self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        let now = storage::Clock::now(&*self.clock);
        for _ in 0..3 {
            self.storage.clean_once();
            self.commit();
            self.storage.settle_once();
        }
        let start = self.log().bounds().start.get();
        assert!(start >= self.model.start && start <= self.model.durable_end);
        let removed = &self.model.records[self.model.start as usize..start as usize];
        for record in removed {
            let age = now.millis_since(record.appended.unwrap());
            assert!(
                age >= RETENTION.as_millis() as i64,
                "a record of {age} ms is gone"
            );
        }
        let kept = &self.model.records[start as usize..self.model.durable_end as usize];
        let is_old = |record: &Record| {
            now.millis_since(record.appended.unwrap()) > RETENTION.as_millis() as i64
        };
        if kept.iter().all(is_old) {
            assert!(kept.is_empty(), "{} old records are kept", kept.len());
        }
        self.model.start = start;
    }

    fn delete_records(&mut self, before: u64) {
        let durable = self.log().delete_records(Offset::new(before)).unwrap();
        self.commit();
        durable.wait().unwrap();
        self.model.start = self.model.start.max(before);
    }

    fn read(&self, from: u64, max_bytes: usize) {
        let (log, model) = (self.log(), &self.model);
        let read = log.read(Offset::new(from), max_bytes, true);
        if from < model.start || from > model.records.len() as u64 {
            assert!(
                matches!(read, Err(ReadError::OutOfRange { .. })),
                "{read:?}"
            );
            return;
        }
        let chunk = read.unwrap();
        let (mut next, mut batches) = (None, 0);
        for batch in split(chunk.to_bytes()) {
            let batch = batch.unwrap();
            let header = *batch.header();
            let base = header.base().get();
            match next {
                None => assert!((base..header.next_offset().get()).contains(&from)),
                Some(next) => assert_eq!(base, next, "batches follow one another"),
            }
            next = Some(header.next_offset().get());
            batches += 1;
            for record in batch.records(Default::default()).unwrap() {
                let record = record.unwrap();
                let expected = &model.records[record.offset.get() as usize];
                let found = Record {
                    time: record.timestamp.millis(),
                    value: record.value.unwrap(),
                    epoch: header.epoch().unwrap().get(),
                    appended: expected.appended,
                };
                assert_eq!(&found, expected, "offset {}", record.offset);
                let epoch = log.epoch_at(record.offset);
                if record.offset.get() >= model.start {
                    assert_eq!(epoch.map(|epoch| epoch.get()), Some(found.epoch));
                }
            }
        }
        assert_eq!(batches > 0, from < model.durable_end);
        assert!(batches <= 1 || chunk.bytes <= max_bytes);
        let end = next.unwrap_or(from);
        assert_eq!(chunk.end_offset.get(), end);
        assert!(
            end <= model.durable_end.max(from),
            "nothing past the durable end"
        );
    }

    fn seek_time(&self, wanted: i64) {
        let plain = |found: Option<storage::TimedOffset>| {
            found.map(|found| (found.offset.get(), found.timestamp.millis()))
        };
        let log = self.log();
        let found = log.offset_for_time(Timestamp::from_millis(wanted)).unwrap();
        assert_eq!(plain(found), self.model.first_at_or_after(wanted));
        let found = log.max_timestamp().unwrap();
        assert_eq!(plain(found), self.model.max_timestamp());
    }

    fn restart(&mut self, is_killed: bool, loses_indexes: bool) {
        if is_killed {
            self.disk.cut_power();
        } else {
            self.commit();
        }
        self.storage.shutdown();
        self.disk.restart_process();
        self.model.records.truncate(self.model.durable_end as usize);
        self.model.others.truncate(self.model.durable_others());
        if loses_indexes {
            let files = self.disk.files().into_keys();
            for path in files.filter(|path| path.extension().is_some_and(|name| name == "idx")) {
                self.disk.remove_file(&path).unwrap();
            }
        }
        // The one before holds the directory's lock while it lives, and a killed one's lock is gone.
        self.storage = open(&self.disk, &self.clock);
        self.read_all();
    }

    fn read_all(&self) {
        let mut from = self.model.start;
        let mut records = BTreeMap::new();
        while from < self.model.durable_end {
            self.read(from, 4_000);
            let chunk = self.log().read(Offset::new(from), 4_000, true).unwrap();
            for batch in split(chunk.to_bytes()) {
                for record in batch.unwrap().records(Default::default()).unwrap() {
                    records.insert(record.unwrap().offset.get(), ());
                }
            }
            from = chunk.end_offset.get();
        }
        let found = records.range(self.model.start..).count() as u64;
        assert_eq!(found, self.model.durable_end - self.model.start);
        self.read_others();
    }

    /// The other log holds what was appended together with what is durable, and no more.
    fn read_others(&self) {
        let log = self.storage.log(other_id()).unwrap();
        let (mut values, mut from) = (Vec::new(), Offset::ZERO);
        while from < log.bounds().durable_end {
            let chunk = log.read(from, 4_000, true).unwrap();
            for batch in split(chunk.to_bytes()) {
                for record in batch.unwrap().records(Default::default()).unwrap() {
                    values.push(record.unwrap().value.unwrap());
                }
            }
            from = chunk.end_offset;
        }
        let others = &self.model.others[..self.model.durable_others()];
        assert!(values.iter().eq(others.iter().map(|(_, value)| value)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_log_answers_as_a_list_of_records_would(steps in prop::collection::vec(step(), 1..120)) {
        let mut house = House::new();
        for step in steps {
            house.take(step);
        }
        house.commit();
        house.read_all();
    }
}
