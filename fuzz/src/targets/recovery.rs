//! The start of a whole store whose files several things were done to: `edits`, each `what u8 | file u8 | position u32 | argument u8`.
//! The store starts or says why not; what it then serves was appended to that log; and it takes new records, which are there after
//! another start. Edits reach bytes behind checksums only by bringing back files as they were at another moment.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, Codec, split_unverified};
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use storage::io::{SimDisk, write_new_file};
use storage::{
    Admission, Disk, Env, Log, LogAppend, LogSettings, ManualClock, OpenError, Purpose, ReadError,
    Storage, StorageConfig,
};

use crate::Input;

const FRAMES: u64 = 36;
const EDITS_MAX: usize = 12;
type Files = BTreeMap<PathBuf, Vec<u8>>;
type Values = BTreeSet<(LogId, Bytes)>;

/// A store at several moments of its life, and all that was ever appended to it.
struct Life {
    moments: Vec<Files>,
    values: Values,
}

/// See the module.
pub fn run(data: &[u8]) {
    static LIFE: OnceLock<Life> = OnceLock::new();
    let life = LIFE.get_or_init(live);
    let mut input = Input::new(data);
    let mut files = life.moments[usize::from(input.u8()) % life.moments.len()].clone();
    for _ in 0..EDITS_MAX {
        if input.is_empty() {
            break;
        }
        edit(&mut files, life, &mut input);
    }
    let disk = disk_of(&files);
    let Ok(storage) = open(&disk) else { return };
    for id in known() {
        for value in read(&storage, id).records.into_values() {
            assert!(
                life.values.contains(&(id, value.clone())),
                "{id} serves {value:?}, which was never appended to it"
            );
        }
    }
    let mut appended = Vec::new();
    for id in known() {
        if let Some(offset) = append(&storage, id, "after the start") {
            appended.push((id, offset));
        }
    }
    let is_durable = storage.commit_once();
    storage.settle_once();
    drop(storage);
    disk.restart_process();
    if !is_durable {
        return;
    }
    let storage = open(&disk).expect("what started once starts again");
    for (id, offset) in appended {
        let Held { records, .. } = read(&storage, id);
        assert_eq!(
            records.get(&offset).map(Bytes::as_ref),
            Some(&b"after the start"[..]),
            "{id} at {offset}"
        );
    }
}

/// What can be read of a log.
#[derive(Default)]
struct Held {
    /// The records, by offset.
    records: BTreeMap<u64, Bytes>,
    /// What the log says cannot be.
    damaged: Vec<Range<Offset>>,
}

fn edit(files: &mut Files, life: &Life, input: &mut Input<'_>) {
    let (what, file, position, argument) = (input.u8(), input.u8(), input.u32(), input.u8());
    let paths: Vec<PathBuf> = files.keys().cloned().collect();
    let Some(path) = paths.get(usize::from(file) % paths.len().max(1)).cloned() else {
        return;
    };
    let contents = files.get_mut(&path).expect("a file's own name");
    let at = position as usize % contents.len().max(1);
    match what % 8 {
        0 => contents.truncate(at),
        1 => {
            files.remove(&path);
        }
        2 => {
            let end = contents.len().min(at + usize::from(argument) * 16);
            contents[at..end].fill(0);
        }
        3 => {
            let moment = &life.moments[usize::from(argument) % life.moments.len()];
            if let Some(other) = moment.get(&path) {
                *contents = other.clone();
            }
        }
        4 => contents.resize(contents.len() + usize::from(argument) * 64, argument),
        5 => {
            let from = position as usize / 4096 * 4096 % contents.len().max(1);
            let block: Vec<u8> = contents[from..].iter().take(4096).copied().collect();
            let to = (usize::from(argument) * 4096).min(contents.len());
            let end = contents.len().min(to + block.len());
            contents[to..end].copy_from_slice(&block[..end - to]);
        }
        _ => {
            if let Some(byte) = contents.get_mut(at) {
                *byte ^= argument.max(1);
            }
        }
    }
}

fn log_id(partition: u32) -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(partition))
}

fn known() -> [LogId; 2] {
    [log_id(0), log_id(1)]
}

fn settings() -> LogSettings {
    LogSettings {
        segment_bytes: 1_000,
        ..LogSettings::from(&TopicConfig::default())
    }
}

fn open(disk: &SimDisk) -> Result<Storage, OpenError> {
    let mut config = StorageConfig::new("/data");
    config.wal_file_bytes = 256 << 10;
    config.wal_files_min = 2;
    config.wal_files_max = 8;
    let disk = Arc::new(disk.clone());
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
    let (storage, _) = Storage::open(config, Env::manual(disk, clock))?;
    storage.finish_open(&HashSet::from(known()))?;
    for id in known() {
        storage.create_log(id, settings());
    }
    Ok(storage)
}

fn disk_of(files: &Files) -> SimDisk {
    let disk = SimDisk::new(1);
    let made = disk.create_dir_all(Path::new("/data"));
    made.expect("an empty disk");
    for (path, contents) in files {
        let directory = path.parent().expect("files lie below the root");
        disk.create_dir_all(directory).expect("an empty disk");
        write_new_file(&disk, path, contents).expect("an empty disk");
    }
    disk.sync_filesystem(Path::new("/")).expect("no faults");
    disk
}

fn batch(value: &str) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    builder
        .push(Timestamp::from_millis(5), None, Some(value.as_bytes()), &[])
        .expect("a small record");
    Batch::parse(builder.build().expect("a small batch")).expect("just built")
}

/// An admission, if there is room for it. Nobody else makes files of the write-ahead log ready here.
fn admitted(storage: &Storage, admit: impl Fn() -> Option<Admission>) -> Option<Admission> {
    loop {
        match admit() {
            Some(admission) => return Some(admission),
            None if storage.prepare_once().ok()? => {}
            None => return None,
        }
    }
}

/// Appends a record to each of several logs at once.
fn append_all(storage: &Storage, records: &[(LogId, String)]) {
    let part = |(id, value): &(LogId, String)| LogAppend {
        log: storage.log(*id).expect("a known log"),
        batches: vec![batch(value).into()],
    };
    let group: Vec<LogAppend> = records.iter().map(part).collect();
    let size = LogAppend::size_of(&group);
    let admission = admitted(storage, || storage.try_admit_all(size, Purpose::Records));
    let appended = storage.append_all(&group, admission.expect("there is room"));
    drop(appended.expect("a healthy store"));
}

/// Appends a record; None if the log takes none.
fn append(storage: &Storage, id: LogId, value: &str) -> Option<u64> {
    let batch = batch(value);
    let log = storage.log(id)?;
    let bytes = batch.bytes().len();
    let admission = admitted(storage, || storage.try_admit(bytes))?;
    let appended = log.append(vec![batch.into()], admission).ok()?;
    Some(appended.base_offset.get())
}

fn read(storage: &Storage, id: LogId) -> Held {
    let mut held = Held::default();
    let Some(log) = storage.log(id) else {
        return held;
    };
    let bounds = log.bounds();
    let mut from = bounds.start;
    while from < bounds.durable_end {
        match log.read(from, 1 << 20, true) {
            Ok(chunk) => {
                assert!(chunk.end_offset > from, "it stands still at {from}");
                take_records(&chunk.to_bytes(), from, &mut held.records);
                from = chunk.end_offset;
            }
            Err(ReadError::Damaged { range }) => {
                assert!(range.contains(&from), "{from} is not in {range:?}");
                from = range.end;
                held.damaged.push(range);
            }
            Err(error) => panic!("{id} at {from}: {error}"),
        }
    }
    look_up_times(&log);
    held
}

fn take_records(chunk: &Bytes, from: Offset, records: &mut BTreeMap<u64, Bytes>) {
    // A settled batch whose checksum is wrong is the reader's to notice; those behind it are good.
    for batch in split_unverified(chunk.clone()).flatten() {
        if batch.verify_crc().is_err() {
            continue;
        }
        let Ok(in_batch) = batch.records(Default::default()) else {
            continue;
        };
        for record in in_batch.flatten().filter(|record| record.offset >= from) {
            records.insert(record.offset.get(), record.value.unwrap_or_default());
        }
    }
}

fn look_up_times(log: &Log) {
    for millis in [-1, 5, 1_000_000] {
        let _ = log.offset_for_time(Timestamp::from_millis(millis));
    }
    let _ = log.max_timestamp();
}

fn live() -> Life {
    let disk = disk_of(&Files::new());
    let storage = open(&disk).expect("an empty disk");
    let (mut moments, mut values) = (vec![disk.files()], Values::new());
    for frame in 0..FRAMES {
        // Every third time both logs at once: one frame, which is replayed whole or not.
        let partitions: &[u32] = if frame % 3 == 2 { &[0, 1] } else { &[0] };
        let record = |partition: &u32| {
            let value = format!("frame {frame} of partition {partition}, {}", "-".repeat(60));
            (log_id(*partition), value)
        };
        let records: Vec<(LogId, String)> = partitions.iter().map(record).collect();
        match records.as_slice() {
            [(id, value)] => drop(append(&storage, *id, value).expect("a healthy store")),
            all => append_all(&storage, all),
        }
        values.extend(records.into_iter().map(|(id, value)| (id, value.into())));
        assert!(storage.commit_once());
        if frame % 8 == 7 {
            storage.settle_once();
        }
        if frame % 9 == 5 {
            moments.push(disk.files());
        }
    }
    values.extend(known().map(|id| (id, Bytes::from_static(b"after the start"))));
    moments.push(disk.files());
    Life { moments, values }
}

/// Each moment untouched, and each kind of edit of each file at one of them.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..6).map(|moment| vec![moment]).collect();
    for file in 0..12 {
        for what in 0..7 {
            seeds.push(vec![file % 6, what, file, 0, 0, 0, 90, 1]);
        }
    }
    seeds
}
