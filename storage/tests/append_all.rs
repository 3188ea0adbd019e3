//! One append over several logs: it lands in one frame or not at all, above a frame's cap too, and nothing is assigned to any
//! log before all of them take it. (`power_cut.rs` cuts the power in the middle of such appends.)

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluvium_storage as storage;
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, Codec, split};
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicId};
use storage::inspect::{WalFrame, WalItem, dump_wal};
use storage::io::SimDisk;
use storage::{
    AppendAllError, AppendBatch, AppendError, AppendSize, Disk, Env, GROUP_BATCHES_MAX, Log,
    LogAppend, LogSettings, ManualClock, Purpose, ReadError, SequenceError, Storage, StorageConfig,
    Threads,
};

const FILE_BYTES: u64 = 256 << 10;
const FRAME_BYTES_MAX: usize = 8 << 10;
const LOGS: u32 = 3;

fn id(partition: u32) -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(partition))
}

struct House {
    disk: SimDisk,
    storage: Storage,
}

impl House {
    fn new() -> House {
        House::with(Threads::Manual)
    }

    fn with(threads: Threads) -> House {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data")).unwrap();
        let storage = open(&disk, threads);
        House { disk, storage }
    }

    fn log(&self, partition: u32) -> Arc<Log> {
        self.storage.log(id(partition)).unwrap()
    }

    fn ends(&self) -> Vec<u64> {
        (0..LOGS)
            .map(|partition| self.log(partition).bounds().end.get())
            .collect()
    }

    fn group(&self, parts: &[(u32, Vec<AppendBatch>)]) -> Vec<LogAppend> {
        parts
            .iter()
            .map(|(partition, batches)| LogAppend {
                log: self.log(*partition),
                batches: batches.clone(),
            })
            .collect()
    }

    /// Appends a group that there is room for, or that is refused.
    fn append_all(&self, group: &[LogAppend]) -> Result<storage::AppendedAll, AppendAllError> {
        let size = LogAppend::size_of(group);
        let admission = self.storage.try_admit_all(size, Purpose::Records).unwrap();
        self.storage.append_all(group, admission)
    }

    fn append(&self, partition: u32, batch: AppendBatch) {
        let admission = self.storage.try_admit(batch.bytes()).unwrap();
        drop(self.log(partition).append(vec![batch], admission).unwrap());
    }

    fn commit(&self) -> u64 {
        let before = self.storage.metrics().frames;
        while self.storage.commit_once() {}
        self.storage.metrics().frames - before
    }

    /// The process dies, and the store is opened again.
    fn kill(&mut self) {
        self.disk.cut_power();
        self.storage.shutdown();
        self.disk.restart_process();
        self.storage = open(&self.disk, Threads::Manual);
    }

    /// All frames of the WAL that hold something, in order.
    fn frames(&self) -> Vec<WalFrame> {
        let files = self.disk.files().into_keys();
        let wal: Vec<PathBuf> = files
            .filter(|path| path.extension().is_some_and(|name| name == "wal"))
            .collect();
        let mut frames = Vec::new();
        for path in wal {
            dump_wal(&self.disk, &path, &mut |item| {
                if let WalItem::Frame(frame) = item
                    && !frame.entries.is_empty()
                {
                    frames.push(frame);
                }
            })
            .unwrap();
        }
        frames.sort_by_key(|frame| frame.sequence);
        frames
    }
}

fn open(disk: &SimDisk, threads: Threads) -> Storage {
    let mut config = StorageConfig::new("/data");
    config.wal_file_bytes = FILE_BYTES;
    config.wal_files_min = 2;
    config.wal_files_max = 16;
    config.frame_bytes_max = FRAME_BYTES_MAX;
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
    let env = Env {
        threads,
        ..Env::manual(Arc::new(disk.clone()), clock)
    };
    let (storage, report) = Storage::open(config, env).unwrap();
    assert_eq!(report.damage, []);
    storage.finish_open(&(0..LOGS).map(id).collect()).unwrap();
    while threads == Threads::Manual && storage.prepare_once().unwrap() {}
    for partition in 0..LOGS {
        storage.create_log(id(partition), LogSettings::from(&TopicConfig::default()));
    }
    storage
}

/// A batch of one record whose value has this length.
fn batch(value: &str, bytes: usize) -> AppendBatch {
    built(value, bytes, None)
}

fn built(value: &str, bytes: usize, producer: Option<(i64, i32)>) -> AppendBatch {
    let mut builder = BatchBuilder::new(Codec::None);
    if let Some((id, sequence)) = producer {
        builder.producer(ProducerId::new(id), ProducerEpoch::new(0), sequence);
    }
    let value = [value.as_bytes(), &vec![b'.'; bytes]].concat();
    builder
        .push(Timestamp::from_millis(1), None, Some(&value), &[])
        .unwrap();
    Batch::parse(builder.build().unwrap()).unwrap().into()
}

/// The values of a log, without their filling.
fn values(log: &Log) -> Vec<String> {
    let (mut found, mut from) = (Vec::new(), log.bounds().start);
    while from < log.bounds().durable_end {
        let chunk = log.read(from, 1 << 20, true).unwrap();
        for batch in split(chunk.to_bytes()) {
            for record in batch.unwrap().records(Default::default()).unwrap() {
                let value: Bytes = record.unwrap().value.unwrap();
                let text = std::str::from_utf8(&value).unwrap();
                found.push(text.trim_end_matches('.').to_owned());
            }
        }
        from = chunk.end_offset;
    }
    found
}

#[test]
fn a_group_is_one_frame_above_the_frames_cap_and_is_found_again_after_a_kill() {
    let mut house = House::new();
    house.append(0, batch("before", 6_000));
    let group = house.group(&[
        (2, vec![batch("c", 20_000)]),
        (0, vec![batch("a", 100), batch("b", 30_000)]),
    ]);
    let appended = house.append_all(&group).unwrap();
    let offsets = |range: &std::ops::Range<Offset>| range.start.get()..range.end.get();
    assert_eq!(
        appended.offsets.iter().map(offsets).collect::<Vec<_>>(),
        [0..1, 1..3],
        "in the order of the group"
    );
    house.append(1, batch("after", 6_000));
    assert_eq!(house.commit(), 3, "the queue is cut around the group");
    appended.durable.wait().unwrap();
    house.kill();
    let of_frames: Vec<Vec<u64>> = house
        .frames()
        .iter()
        .map(|frame| frame.entries.iter().map(|entry| entry.offset).collect())
        .collect();
    assert_eq!(of_frames, [vec![0], vec![1, 2, 0], vec![0]]);
    assert_eq!(values(&house.log(0)), ["before", "a", "b"]);
    assert_eq!(values(&house.log(1)), ["after"]);
    assert_eq!(values(&house.log(2)), ["c"]);
    assert_eq!(house.storage.metrics().queued_bytes, 0);
}

#[test]
fn a_log_that_is_told_lies_in_the_same_frame_and_knows_where_the_others_went() {
    let mut house = House::new();
    house.append(0, batch("before", 100));
    let group = house.group(&[(2, vec![batch("c", 100)]), (0, vec![batch("a", 100)])]);
    let tell = |offsets: &[std::ops::Range<Offset>]| {
        let shown: Vec<String> = offsets
            .iter()
            .map(|it| format!("{}..{}", it.start, it.end))
            .collect();
        vec![batch(&shown.join(" "), 100)]
    };
    // Room for something longer than what is told in the end.
    let mut size = LogAppend::size_of(&group);
    size.batches += 1;
    size.bytes += 500;
    let admission = house.storage.try_admit_all(size, Purpose::Records).unwrap();
    let log = house.log(1);
    let told = storage::ToldLog { log, batches: tell };
    let appended = house.storage.append_all_telling(&group, told, admission);
    assert_eq!(appended.unwrap().offsets.len(), 2, "those of the group");
    assert_eq!(house.commit(), 1);
    // Without room for it nothing is appended, also to the others.
    let ends = house.ends();
    let size = LogAppend::size_of(&group);
    let admission = house.storage.try_admit_all(size, Purpose::Records).unwrap();
    let log = house.log(1);
    let told = storage::ToldLog { log, batches: tell };
    let refused = house.storage.append_all_telling(&group, told, admission);
    assert!(matches!(
        refused,
        Err(AppendAllError::Refused(AppendError::NotAdmitted { .. }))
    ));
    assert_eq!(house.ends(), ends);
    house.kill();
    assert_eq!(values(&house.log(1)), ["0..1 1..2"]);
    assert_eq!(values(&house.log(0)), ["before", "a"]);
    assert_eq!(values(&house.log(2)), ["c"]);
}

#[test]
fn small_groups_share_a_frame_and_are_not_cut() {
    let house = House::new();
    for _ in 0..10 {
        let group = house.group(&[(0, vec![batch("a", 900)]), (1, vec![batch("b", 900)])]);
        drop(house.append_all(&group).unwrap());
    }
    assert!(house.commit() > 1, "they are more than one frame's cap");
    for frame in house.frames() {
        assert!(frame.entries.len() > 2 && frame.batch_bytes < FRAME_BYTES_MAX as u64);
        assert!(frame.entries.len().is_multiple_of(2), "a group was cut");
    }
}

#[test]
fn nothing_is_assigned_if_one_of_the_logs_refuses() {
    let house = House::new();
    let first = built("first", 10, Some((5, 0)));
    house.append(1, first.clone());
    let ends = house.ends();
    let refused = |second: AppendBatch| {
        let group = house.group(&[(0, vec![batch("a", 10)]), (1, vec![second])]);
        house.append_all(&group).unwrap_err()
    };
    let error = refused(built("gap", 10, Some((5, 7))));
    let is_sequence = matches!(
        error,
        AppendAllError::Log { log, source: AppendError::Sequence(SequenceError::OutOfOrder { .. }) }
            if log == id(1)
    );
    assert!(is_sequence, "{error}");
    let error = refused(first);
    let is_duplicate = matches!(
        error,
        AppendAllError::Duplicate { log, base_offset, .. } if log == id(1) && base_offset == Offset::ZERO
    );
    assert!(is_duplicate, "{error}");
    let twice = house.group(&[(0, vec![batch("a", 10)]), (0, vec![batch("b", 10)])]);
    let error = house.append_all(&twice).unwrap_err();
    assert!(
        matches!(error, AppendAllError::Twice { log } if log == id(0)),
        "{error}"
    );
    let gone = house.group(&[(0, vec![batch("a", 10)]), (2, vec![batch("b", 10)])]);
    house.storage.delete_log(id(2));
    let error = house.append_all(&gone).unwrap_err();
    let is_deleted =
        matches!(error, AppendAllError::Log { log, source: AppendError::Deleted } if log == id(2));
    assert!(is_deleted, "{error}");
    house
        .storage
        .create_log(id(2), LogSettings::from(&TopicConfig::default()));
    assert_eq!(house.ends(), ends);
    assert_eq!(house.commit(), 1, "only what was appended alone");
    assert_eq!(house.storage.metrics().queued_bytes, 0, "all is given back");
}

#[test]
fn a_group_takes_half_of_a_wal_file_and_no_byte_more() {
    let house = House::new();
    let size = |batches, bytes| AppendSize { batches, bytes };
    let takes = |size| house.storage.takes_all(size);
    let overhead = 2 * 4096 + 2 * 40;
    let most = FILE_BYTES / 2 - overhead;
    assert!(takes(size(2, most)) && !takes(size(2, most + 1)));
    // Many small batches are admitted that would each need a frame's room if they came alone.
    assert!(takes(size(100, 10_000)) && !house.storage.takes(size(100, 10_000)));
    assert!(!takes(size(GROUP_BATCHES_MAX + 1, 0)));

    let empty = batch("", 0).bytes();
    let filling = usize::try_from(most).unwrap() / 2 - empty - 64;
    let group = house.group(&[(0, vec![batch("", filling)]), (1, vec![batch("", filling)])]);
    let appended = house.append_all(&group).unwrap();
    assert_eq!(house.commit(), 1);
    appended.durable.wait().unwrap();

    let ends = house.ends();
    let group = house.group(&[
        (0, vec![batch("", filling + 200)]),
        (1, vec![batch("", filling)]),
    ]);
    let error = house.append_all(&group).unwrap_err();
    let is_too_large = matches!(
        error,
        AppendAllError::Refused(AppendError::TooLarge { bytes_max, .. }) if bytes_max == most
    );
    assert!(is_too_large, "{error}");
    assert_eq!(house.ends(), ends);
}

#[test]
fn a_group_needs_an_admission_of_its_own_kind_and_size() {
    let house = House::new();
    let group = house.group(&[(0, vec![batch("a", 10)]), (1, vec![batch("b", 10)])]);
    let size = LogAppend::size_of(&group);
    let alone = house.storage.try_admit_for(size, Purpose::Records).unwrap();
    let less = AppendSize {
        bytes: size.bytes - 1,
        ..size
    };
    let less = house.storage.try_admit_all(less, Purpose::Records).unwrap();
    for admission in [alone, less] {
        let error = house.storage.append_all(&group, admission).unwrap_err();
        let is_named = matches!(error, AppendAllError::Refused(AppendError::NotAdmitted { size: tried, .. }) if tried == size);
        assert!(is_named, "{error}");
    }
    let admission = house.storage.try_admit_all(size, Purpose::Records).unwrap();
    let refused = house.log(0).append(vec![batch("a", 10)], admission);
    assert!(matches!(refused, Err(AppendError::NotAdmitted { .. })));
    assert_eq!(house.ends(), [0, 0, 0]);
}

#[test]
fn a_log_that_is_deleted_meanwhile_takes_only_its_own_part_with_it() {
    for deleted in 0..LOGS {
        let mut house = House::new();
        let part = |name: &str| vec![batch(name, 10)];
        let group = house.group(&[(2, part("c")), (0, part("a")), (1, part("b"))]);
        let appended = house.append_all(&group).unwrap();
        house.storage.delete_log(id(deleted));
        house.append((deleted + 1) % LOGS, batch("later", 10));
        assert_eq!(house.commit(), 1);
        appended.durable.wait().unwrap();
        assert_eq!(
            house.frames()[0].entries.len(),
            3,
            "two parts and what came later"
        );
        house.storage.settle_once();
        house.kill();
        for partition in 0..LOGS {
            let expected: &[&str] = match (partition + LOGS - deleted) % LOGS {
                0 => &[],
                1 => &["", "later"],
                _ => &[""],
            };
            let found = values(&house.log(partition));
            assert_eq!(found.len(), expected.len(), "{partition} of {deleted}");
        }
    }
    let house = House::new();
    let group = house.group(&[(0, vec![batch("a", 10)]), (1, vec![batch("b", 10)])]);
    let appended = house.append_all(&group).unwrap();
    (0..2).for_each(|partition| house.storage.delete_log(id(partition)));
    house.commit();
    assert!(
        appended.durable.wait().is_err(),
        "nobody is left to have it"
    );
}

#[test]
fn of_a_damaged_frame_that_was_durable_each_damaged_batch_is_named_and_the_others_are_kept() {
    let mut house = House::new();
    let group = house.group(&[
        (0, vec![batch("a", 6_000)]),
        (1, vec![batch("b", 6_000)]),
        (2, vec![batch("c", 6_000)]),
    ]);
    drop(house.append_all(&group).unwrap());
    house.commit();
    assert!(
        house.storage.confirm_once(),
        "a later frame knows that it was durable"
    );
    let frame = &house.frames()[0];
    let position = frame.entries[1].position + 3_000;
    let files = house.disk.files().into_keys();
    let path = files
        .filter(|path| path.extension().is_some_and(|name| name == "wal"))
        .min()
        .unwrap();
    house.disk.cut_power();
    house.storage.shutdown();
    house.disk.restart_process();
    house.disk.flip(&path, position, 1);
    let mut config = StorageConfig::new("/data");
    config.wal_file_bytes = FILE_BYTES;
    config.wal_files_min = 2;
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
    let env = Env::manual(Arc::new(house.disk.clone()), clock);
    let (storage, report) = Storage::open(config, env).unwrap();
    let named: Vec<_> = report.damage.iter().map(|damage| damage.log).collect();
    assert_eq!(named, [Some(id(1))]);
    let read = |partition| {
        storage
            .log(id(partition))
            .unwrap()
            .read(Offset::ZERO, 1 << 20, true)
    };
    assert!(matches!(read(1), Err(ReadError::Damaged { .. })));
    for partition in [0, 2] {
        assert!(read(partition).unwrap().bytes > 6_000, "{partition}");
    }
    house.storage = storage;
}

#[test]
fn groups_that_name_the_same_logs_in_any_order_do_not_wait_for_each_other() {
    const GROUPS: usize = 200;
    let house = House::with(Threads::Own);
    let orders: [[u32; 3]; 4] = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]];
    std::thread::scope(|scope| {
        for order in orders {
            let house = &house;
            scope.spawn(move || {
                for _ in 0..GROUPS {
                    let part = |partition: &u32| (*partition, vec![batch("x", 10)]);
                    let group = house.group(&order.iter().map(part).collect::<Vec<_>>());
                    let size = LogAppend::size_of(&group);
                    let admission = loop {
                        match house.storage.try_admit_all(size, Purpose::Records) {
                            Some(admission) => break admission,
                            None => std::thread::yield_now(),
                        }
                    };
                    let appended = house.storage.append_all(&group, admission).unwrap();
                    appended.durable.wait().unwrap();
                }
            });
        }
    });
    let all = (orders.len() * GROUPS) as u64;
    assert_eq!(house.ends(), [all, all, all]);
    // Each group has the same offset in all logs: nobody came in between.
    for frame in house.frames() {
        for group in frame.entries.chunks(3) {
            assert!(group.iter().all(|entry| entry.offset == group[0].offset));
        }
    }
}
