//! State logs that a later release has written to: a record of a later version refuses the start and changes nothing, and the
//! offline verification says so before; a log of a later release is left alone.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluvium::broker::{Broker, BrokerConfig, ServerSettings};
use alluvium::front::kafka;
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, Codec};
use model::{LogId, Timestamp};
use storage::inspect::{Finding, verify_store};
use storage::io::SimDisk;
use storage::{Disk as _, Env, LogSettings, ManualClock, Storage, StorageConfig};

type Record<'a> = (&'a [u8], Option<&'a [u8]>);

/// A group's promised generation, of version 1, and with its value's and its key's version changed.
const PROMISE: Record<'_> = (b"\x01\x02\0\x01g", Some(b"\x01\0\0\0\x05"));
const LATER_PROMISE: Record<'_> = (b"\x01\x02\0\x01g", Some(b"\x02\0\0\0\x05"));
const LATER_KEY: Record<'_> = (b"\x02\x02\0\x01g", Some(b"\x01\0\0\0\x05"));
const OTHER_KIND: Record<'_> = (b"\x01\x07\0\x01g", Some(b"\x01\0\0\0\x05"));
const USER: Record<'_> = (b"user/alice", Some(b"{\"version\":1}"));
const PROMISE_GONE: Record<'_> = (b"\x01\x02\0\x01g", None);
const IDS: Record<'_> = (b"producer-ids", Some(b"{\"version\":1,\"next\":1000}"));
const LATER_IDS: Record<'_> = (b"producer-ids", Some(b"{\"version\":2,\"first\":7}"));

struct House {
    disk: SimDisk,
}

impl House {
    fn new() -> House {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data"))
            .expect("a directory");
        House { disk }
    }

    fn recover(&self) -> Storage {
        let mut config = StorageConfig::new("/data");
        config.wal_file_bytes = 256 << 10;
        config.wal_files_min = 2;
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
        let disk = Arc::new(self.disk.clone());
        let (storage, _) =
            Storage::recover(config, Env::manual(disk, clock)).expect("a sound store");
        storage
    }

    /// Writes these records as whoever wrote the store before, and is killed.
    fn write(&self, log: LogId, records: &[Record<'_>], settled: bool) {
        let storage = self.recover();
        storage.finish_open(&HashSet::new()).expect("a start");
        let log = storage.create_log(log, LogSettings::state());
        for (key, value) in records {
            let mut builder = BatchBuilder::new(Codec::None);
            let time = Timestamp::from_millis(5);
            builder
                .push(time, Some(key), *value, &[])
                .expect("a record");
            let batch = Batch::parse(builder.build().expect("a batch")).expect("a batch");
            let admission = storage.try_admit(batch.bytes().len()).expect("room");
            drop(log.append(vec![batch.into()], admission).expect("appended"));
            assert!(storage.commit_once());
        }
        if settled {
            assert!(storage.settle_once());
        }
        self.kill(storage);
    }

    fn kill(&self, storage: Storage) {
        self.disk.cut_power();
        drop(storage);
        self.disk.restart_process();
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.disk.files()
    }

    fn broker(&self) -> Result<(Broker, Storage), String> {
        let storage = self.recover();
        match Broker::open(
            BrokerConfig::default(),
            ServerSettings::default(),
            kafka::subscribed_topics,
            storage.clone(),
        ) {
            Ok(broker) => Ok((broker, storage)),
            Err(error) => {
                drop(storage);
                self.disk.restart_process();
                Err(error.to_string())
            }
        }
    }

    /// What the offline verification says that a start would refuse.
    fn refusals(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        verify_store(&self.disk, Path::new("/data"), &mut |finding| {
            found.push(finding);
        })
        .expect("a readable directory");
        found.retain(|finding| finding.stops_start);
        found
    }
}

#[test]
fn a_record_of_a_later_version_refuses_the_start_before_anything_is_written() {
    for (log, record, named) in [
        (LogId::METADATA, LATER_IDS, "value of version 2"),
        (LogId::OFFSETS, LATER_PROMISE, "value of version 2"),
        (LogId::OFFSETS, LATER_KEY, "key of version 2"),
        (
            LogId::OFFSETS,
            OTHER_KIND,
            "of a kind that this release does not know",
        ),
        (
            LogId::METADATA,
            USER,
            "of a kind that this release does not know",
        ),
    ] {
        for settled in [false, true] {
            let house = House::new();
            house.write(log, &[record], settled);
            let refusals = house.refusals();
            assert_eq!(refusals.len(), 1, "{refusals:?}");
            assert!(refusals[0].reason.contains(named), "{refusals:?}");
            assert_eq!(refusals[0].log, Some(log.to_string()));
            let before = house.files();
            let refused = house.broker().map(drop).expect_err("not understood");
            assert!(refused.contains(named), "{refused}");
            // Spare files of the write-ahead log may be made ready, or renamed: they hold nothing.
            let filled = |files: BTreeMap<PathBuf, Vec<u8>>| {
                let is_filled = |contents: &[u8]| contents.iter().any(|byte| *byte != 0);
                files
                    .into_iter()
                    .filter(|(_, contents)| is_filled(contents))
                    .collect::<BTreeMap<_, _>>()
            };
            let (before, after) = (filled(before), filled(house.files()));
            let changed: Vec<_> = after
                .iter()
                .filter(|(path, contents)| before.get(*path) != Some(*contents))
                .map(|(path, _)| path)
                .collect();
            assert!(changed.is_empty(), "{refused}: {changed:?} was written");
            assert_eq!(after.len(), before.len(), "{refused}: a file is gone");
        }
    }
}

#[test]
fn a_record_of_a_later_version_that_counts_no_more_refuses_nothing() {
    for (log, records) in [
        (LogId::METADATA, [LATER_IDS, IDS]),
        (LogId::OFFSETS, [LATER_PROMISE, PROMISE]),
        (LogId::OFFSETS, [LATER_PROMISE, PROMISE_GONE]),
    ] {
        for settled in [false, true] {
            let house = House::new();
            house.write(log, &records[..1], settled);
            house.write(log, &records[1..], false);
            assert_eq!(house.refusals(), []);
            let (broker, _) = house.broker().expect("a start");
            drop(broker);
        }
    }
}

#[test]
fn a_state_log_of_a_later_release_is_left_alone() {
    let later = LogId::of_state(99);
    for settled in [false, true] {
        let house = House::new();
        house.write(later, &[(b"key", Some(b"value"))], settled);
        for _ in 0..2 {
            assert_eq!(house.refusals(), []);
            let (broker, storage) = house.broker().expect("a start");
            let log = storage.log(later).expect("it is kept");
            let chunk = log.read_copy(log.bounds().start, 1000).expect("readable");
            let bytes: Bytes = chunk.slices.concat().into();
            let batch = Batch::parse(bytes).expect("a batch");
            assert_eq!(batch.header().record_count, 1);
            storage.settle_once();
            drop(broker);
            house.kill(storage);
        }
        let files = house.files();
        let is_aside = |path: &PathBuf| path.starts_with("/data/quarantine");
        assert!(!files.keys().any(is_aside), "{:?}", files.keys());
        let settled = Path::new("/data/p/00").join(later.to_string());
        assert!(files.keys().any(|path| path.starts_with(&settled)));
    }
}
