//! One thing on the disk is not as it was written: a bit, a file's end, a file. Whatever was acknowledged is then still
//! there, or named as damaged; nothing else is ever given in its place, and the store starts.
//!
//! `EVERY_BYTE=1 cargo test --release -p alluvium-storage --test damage` leaves no byte out.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alluvium_storage as storage;
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, split, split_unverified};
use model::codec::Codec;
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use storage::io::{OpenHow, SimDisk, write_new_file};
use storage::segment::IndexFile;
use storage::{
    Disk, Env, Log, LogSettings, ManualClock, OpenError, ReadError, RecoveryReport, Storage,
    StorageConfig,
};

type Files = BTreeMap<PathBuf, Vec<u8>>;
/// What was acknowledged, by log and offset.
type Acknowledged = BTreeMap<(LogId, u64), Bytes>;

fn log_id(partition: u32) -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(partition))
}

fn known() -> HashSet<LogId> {
    (0..2).map(log_id).collect()
}

fn settings() -> LogSettings {
    LogSettings {
        segment_bytes: 1_000,
        ..LogSettings::from(&TopicConfig::default())
    }
}

/// A plain test run tries every thirteenth byte: no field is so short and so regular that it is left out everywhere.
fn stride() -> usize {
    if std::env::var_os("EVERY_BYTE").is_some() {
        1
    } else {
        13
    }
}

fn open(disk: &SimDisk) -> Result<(Storage, RecoveryReport), OpenError> {
    open_at(disk, &clock())
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)))
}

fn open_at(
    disk: &SimDisk,
    clock: &Arc<ManualClock>,
) -> Result<(Storage, RecoveryReport), OpenError> {
    let mut config = StorageConfig::new("/data");
    config.wal_file_bytes = 256 << 10;
    config.wal_files_min = 2;
    config.wal_files_max = 8;
    let disk = Arc::new(disk.clone());
    let clock = clock.clone();
    let (storage, report) = Storage::open(config, Env::manual(disk, clock))?;
    storage.finish_open(&known())?;
    for id in known() {
        storage.create_log(id, settings());
    }
    Ok((storage, report))
}

fn disk_of(files: &Files) -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/data")).unwrap();
    for (path, contents) in files {
        disk.create_dir_all(path.parent().unwrap()).unwrap();
        write_new_file(&disk, path, contents).unwrap();
    }
    disk.sync_filesystem(Path::new("/")).unwrap();
    disk
}

fn append(storage: &Storage, partition: u32, values: &[&str]) -> (u64, Batch) {
    let mut builder = BatchBuilder::new(Codec::None);
    for value in values {
        builder
            .push(Timestamp::from_millis(5), None, Some(value.as_bytes()), &[])
            .unwrap();
    }
    let batch = Batch::parse(builder.build().unwrap()).unwrap();
    let log = storage.log(log_id(partition)).unwrap();
    let admission = storage.try_admit(batch.bytes().len()).unwrap_or_else(|| {
        // The pool's helper would have seen to it.
        while storage.prepare_once().unwrap() {}
        storage.try_admit(batch.bytes().len()).unwrap()
    });
    let appended = log.append(vec![batch.clone().into()], admission).unwrap();
    (appended.base_offset.get(), batch)
}

/// A store whose process was killed: frames of one batch or two, each synced by itself. With `settle`, some of it is in
/// segments.
fn written(frames: u64, settle: bool) -> (Files, Acknowledged) {
    let disk = disk_of(&Files::new());
    let (storage, _) = open(&disk).unwrap();
    let mut acknowledged = Acknowledged::new();
    for frame in 0..frames {
        let partitions: &[u32] = if frame % 3 == 2 { &[0, 1] } else { &[0] };
        for partition in partitions {
            let values = [format!("{frame}-{partition}-a"), format!("{frame}-b")];
            let (base, _) = append(&storage, *partition, &[&values[0], &values[1]]);
            for (offset, value) in (base..).zip(values) {
                acknowledged.insert((log_id(*partition), offset), value.into());
            }
        }
        assert!(storage.commit_once());
        if settle && frame % 8 == 7 && frame + 3 < frames {
            storage.settle_once();
        }
    }
    disk.cut_power();
    drop(storage);
    disk.restart_process();
    (disk.files(), acknowledged)
}

/// All records of a log that can be read, and the ranges for which it says that they are damaged. The reader looks at no
/// checksum, as librdkafka does by default.
fn read(log: &Log) -> (BTreeMap<u64, Bytes>, Vec<std::ops::Range<u64>>) {
    let bounds = log.bounds();
    let (mut records, mut damaged) = (BTreeMap::new(), Vec::new());
    let mut from = bounds.start;
    while from < bounds.durable_end {
        match log.read(from, 1 << 20, true) {
            Ok(chunk) => {
                assert!(chunk.end_offset > from, "it stands still at {from}");
                for batch in split_unverified(chunk.to_bytes()) {
                    let batch = batch.unwrap();
                    for record in batch.records(Default::default()).unwrap() {
                        let record = record.unwrap();
                        records.insert(record.offset.get(), record.value.unwrap());
                    }
                }
                from = chunk.end_offset;
            }
            Err(ReadError::Damaged { range }) => {
                assert!(range.contains(&from), "{from} is not in {range:?}");
                damaged.push(range.start.get()..range.end.get());
                from = range.end;
            }
            Err(error) => panic!("{from}: {error}"),
        }
    }
    (records, damaged)
}

/// Opens a store to which something was done, and compares. Gives how many acknowledged records are lost, all named.
fn judge(
    name: &str,
    disk: &SimDisk,
    acknowledged: &Acknowledged,
    may_drop_last: &[(LogId, u64)],
) -> usize {
    let mut lost = 0;
    let mut damage_before = None;
    for _ in 0..2 {
        let (storage, report) = open(disk).unwrap_or_else(|error| panic!("{name}: {error}"));
        let unnamed_file = report.damage.iter().any(|damage| damage.log.is_none());
        lost = 0;
        for id in known() {
            let (records, damaged) = read(&storage.log(id).unwrap());
            for ((_, offset), value) in acknowledged.iter().filter(|((log, _), _)| *log == id) {
                let is_named = damaged.iter().any(|range| range.contains(offset));
                match records.get(offset) {
                    Some(found) => assert_eq!(found, value, "{name}: {id} at {offset}"),
                    None => {
                        lost += 1;
                        let is_torn = may_drop_last.contains(&(id, *offset));
                        assert!(
                            is_named || unnamed_file || is_torn,
                            "{name}: {id} lost {offset} in silence: {report:?}"
                        );
                    }
                }
            }
            let is_invented = |offset: &u64| !acknowledged.contains_key(&(id, *offset));
            assert!(
                !records.keys().any(is_invented),
                "{name}: {id}: {records:?}"
            );
        }
        if let Some(before) = damage_before.replace(report.damage.clone()) {
            assert_eq!(
                report.damage, before,
                "{name}: damage stays on record, once"
            );
        }
        storage.shutdown();
    }
    lost
}

/// The one WAL file with frames.
fn wal(files: &Files) -> (PathBuf, usize) {
    let is_used = |contents: &Vec<u8>| contents.iter().any(|byte| *byte != 0);
    let (path, contents) = files
        .iter()
        .rfind(|(path, contents)| path.starts_with("/data/wal") && is_used(contents))
        .unwrap();
    let used = contents.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (path.clone(), used)
}

/// The last frame's records: nobody who looks at the disk alone can tell that they were acknowledged.
fn last_frame(frames: u64, acknowledged: &Acknowledged) -> Vec<(LogId, u64)> {
    let mark = format!("{}-", frames - 1);
    let is_last = |value: &Bytes| value.starts_with(mark.as_bytes());
    let keys = acknowledged.iter().filter(|(_, value)| is_last(value));
    keys.map(|(key, _)| *key).collect()
}

#[test]
fn a_flipped_bit_anywhere_in_the_wal_is_named_unless_it_is_in_the_last_frame() {
    let (files, acknowledged) = written(6, false);
    let (path, used) = wal(&files);
    let contents = &files[&path];
    let torn = last_frame(6, &acknowledged);
    let mut losses = 0;
    let positions: Vec<usize> = (0..used)
        .filter(|at| contents[*at] != 0 || (at % 4096 < 200 && at % 5 == 0))
        .collect();
    for at in positions {
        let disk = disk_of(&files);
        disk.flip(&path, at as u64, 1 << (at % 8));
        losses += judge(&format!("bit of byte {at}"), &disk, &acknowledged, &torn).min(1);
    }
    assert!(losses > 500, "flips hurt: {losses}");
}

#[test]
fn every_bit_of_a_frames_head_counts() {
    let (files, acknowledged) = written(4, false);
    let (path, _) = wal(&files);
    let torn = last_frame(4, &acknowledged);
    // Frame 0 is the start's own; 1 holds a batch, and later ones know that it was durable.
    for bit in 4096 * 8..(4096 + 120) * 8_u64 {
        let disk = disk_of(&files);
        disk.flip(&path, bit / 8, 1 << (bit % 8));
        let lost = judge(&format!("bit {bit}"), &disk, &acknowledged, &torn);
        assert_eq!(lost, 2, "bit {bit}: one batch is lost, and named");
    }
}

#[test]
fn a_wal_file_that_was_cut_at_any_byte_is_named() {
    let (files, acknowledged) = written(5, false);
    let (path, used) = wal(&files);
    let whole = files[&path].len();
    let near = |len: &usize| len % 4096 < 140 || len.is_multiple_of(211);
    for len in (0..used).filter(near).chain([used, 64 << 10, whole - 1]) {
        let disk = disk_of(&files);
        let file = disk.open(&path, OpenHow::ReadWrite).unwrap();
        file.set_len(len as u64).unwrap();
        judge(&format!("cut at {len}"), &disk, &acknowledged, &[]);
        let (_, report) = open(&disk).unwrap();
        assert!(!report.damage.is_empty(), "cut at {len}: {report:?}");
    }
}

#[test]
fn a_wal_file_that_is_lost_zeroed_or_swapped_is_named() {
    for settle in [false, true] {
        let (files, acknowledged) = written(20, settle);
        let (path, used) = wal(&files);
        let torn = last_frame(20, &acknowledged);
        for at in (0..used as u64).step_by(4096) {
            let disk = disk_of(&files);
            let file = disk.open(&path, OpenHow::ReadWrite).unwrap();
            file.write_at(at, &[0; 4096]).unwrap();
            let name = format!("zeros at {at}, settled: {settle}");
            judge(&name, &disk, &acknowledged, &torn);
        }
        if settle {
            let disk = disk_of(&files);
            disk.remove_file(&path).unwrap();
            let lost = judge("the WAL file is gone", &disk, &acknowledged, &[]);
            assert!(lost > 0);
        }
    }
}

#[test]
fn an_unreadable_sector_of_the_wal_does_not_keep_the_store_from_starting() {
    let (files, acknowledged) = written(6, true);
    let disk = disk_of(&files);
    disk.set_unreadable(&wal(&files).0, 0..u64::MAX);
    let (storage, _) = open(&disk).unwrap();
    drop(storage);
    disk.set_unreadable(&wal(&files).0, 0..0);
    judge("readable again", &disk, &acknowledged, &[]);
}

#[test]
fn either_checkpoint_may_be_lost_and_without_both_nothing_is_written_over_old_segments() {
    let (files, acknowledged) = written(40, true);
    let slots = ["/data/checkpoint/A", "/data/checkpoint/B"].map(PathBuf::from);
    for slot in &slots {
        for len in [0, files[slot].len() / 2, files[slot].len() - 1] {
            let disk = disk_of(&files);
            let file = disk.open(slot, OpenHow::ReadWrite).unwrap();
            file.set_len(len as u64).unwrap();
            let name = format!("{} cut at {len}", slot.display());
            assert_eq!(judge(&name, &disk, &acknowledged, &[]), 0, "{name}");
        }
        let disk = disk_of(&files);
        disk.remove_file(slot).unwrap();
        assert_eq!(judge("a slot is gone", &disk, &acknowledged, &[]), 0);
    }
    let disk = disk_of(&files);
    slots
        .iter()
        .for_each(|slot| disk.remove_file(slot).unwrap());
    let refused = open(&disk).err().map(|error| error.to_string());
    assert!(refused.is_some_and(|error| error.contains("checkpoint")));
    let kept = |files: &Files| -> Files {
        files
            .iter()
            .filter(|(path, _)| path.starts_with("/data/p"))
            .map(|(path, contents)| (path.clone(), contents.clone()))
            .collect()
    };
    assert_eq!(kept(&disk.files()), kept(&files), "no segment was touched");
}

#[test]
fn with_all_indexes_deleted_everything_is_found_again() {
    let (files, acknowledged) = written(60, true);
    let disk = disk_of(&files);
    let indexes: Vec<&PathBuf> = files
        .keys()
        .filter(|path| path.extension().is_some_and(|name| name == "idx"))
        .collect();
    assert!(
        indexes.len() >= 5,
        "segments were sealed: {}",
        indexes.len()
    );
    indexes
        .iter()
        .for_each(|path| disk.remove_file(path).unwrap());
    assert_eq!(judge("no index", &disk, &acknowledged, &[]), 0);
    let (storage, report) = open(&disk).unwrap();
    assert!(report.damage.is_empty());
    let log = storage.log(log_id(0)).unwrap();
    for offset in (0..log.bounds().durable_end.get()).step_by(7) {
        let chunk = log.read(Offset::new(offset), 1, true).unwrap();
        let batch = split(chunk.to_bytes()).next().unwrap().unwrap();
        let offsets = batch.header().base().get()..=batch.header().last_offset().get();
        assert!(offsets.contains(&offset));
    }
    let found = log.offset_for_time(Timestamp::from_millis(5)).unwrap();
    assert_eq!(found.unwrap().offset, Offset::ZERO);
}

#[test]
fn swapped_segments_are_damage_and_never_served() {
    let (files, acknowledged) = written(60, true);
    let logs: Vec<&PathBuf> = files
        .keys()
        .filter(|path| path.extension().is_some_and(|name| name == "log"))
        .collect();
    let (one, other) = (logs[0], logs[1]);
    let mut swapped = files.clone();
    swapped.insert(one.clone(), files[other].clone());
    swapped.insert(other.clone(), files[one].clone());
    let disk = disk_of(&swapped);
    let lost = judge("two segments are swapped", &disk, &acknowledged, &[]);
    assert!(lost > 0);
}

#[test]
fn swapped_active_segments_are_damage_and_never_served() {
    // Both begin at offset 0 and have batches of the same sizes: nothing but the checkpoint tells one from the other.
    let disk = disk_of(&Files::new());
    let (storage, _) = open(&disk).unwrap();
    let mut acknowledged = Acknowledged::new();
    for round in 0..5 {
        for partition in 0..2 {
            let value = format!("{round} of {partition}");
            let (base, _) = append(&storage, partition, &[&value]);
            acknowledged.insert((log_id(partition), base), value.into());
        }
        storage.commit_once();
        storage.settle_once();
    }
    storage.shutdown();
    drop(storage);
    let files = disk.files();
    let logs = files_of(&files, ".log");
    let [one, other] = &logs[..] else {
        panic!("each log has one segment: {logs:?}");
    };
    assert_eq!(files[one].len(), files[other].len());
    let mut swapped = files.clone();
    swapped.insert(one.clone(), files[other].clone());
    swapped.insert(other.clone(), files[one].clone());
    let disk = disk_of(&swapped);
    let summary = storage::inspect::verify_store(&disk, Path::new("/data"), &mut |_| ()).unwrap();
    assert_eq!(summary.damaged, 2, "the offline check finds both");
    let lost = judge("two active segments are swapped", &disk, &acknowledged, &[]);
    assert_eq!(lost, acknowledged.len());
}

/// The files of the store whose names end so.
fn files_of(files: &Files, end: &str) -> Vec<PathBuf> {
    let is_one = |path: &&PathBuf| path.to_string_lossy().ends_with(end);
    files.keys().filter(is_one).cloned().collect()
}

/// The partition and first offset of a sealed segment, by its name.
fn segment_of(path: &Path) -> (LogId, u64) {
    let directory = path.parent().unwrap().file_name().unwrap();
    let base = &path.file_name().unwrap().to_str().unwrap()[..20];
    (
        directory.to_str().unwrap().parse().unwrap(),
        base.parse().unwrap(),
    )
}

fn cut(disk: &SimDisk, path: &Path, len: usize) {
    let file = disk.open(path, OpenHow::ReadWrite).unwrap();
    file.set_len(len as u64).unwrap();
}

/// Sealed segments: those that have an index.
fn sealed(files: &Files) -> Vec<PathBuf> {
    let indexes = files_of(files, ".idx").into_iter();
    indexes.map(|path| path.with_extension("log")).collect()
}

/// Where the batches of a segment begin.
fn heads_of(contents: &[u8]) -> Vec<usize> {
    let batches = split(contents.to_vec().into());
    let begin = |at: &mut usize, batch: Result<Batch, _>| {
        let bytes = batch.ok()?.bytes().len();
        Some(std::mem::replace(at, *at + bytes))
    };
    batches.scan(0, begin).collect()
}

#[test]
fn a_sealed_segment_that_is_missing_or_cut_is_named_at_the_start_and_others_are_not_affected() {
    let (files, acknowledged) = written(60, true);
    let segments = sealed(&files);
    assert!(segments.len() >= 5, "{} segments", segments.len());
    for (nth, path) in segments.iter().enumerate() {
        let whole = files[path].len();
        // At all bytes of one of them, and at the ends of all.
        let step = if nth == 2 { stride() } else { whole - 1 };
        for len in std::iter::once(None).chain((0..whole).step_by(step).map(Some)) {
            let disk = disk_of(&files);
            match len {
                None => disk.remove_file(path).unwrap(),
                Some(len) => cut(&disk, path, len),
            }
            let name = format!("{} cut at {len:?}", path.display());
            let (log, base) = segment_of(path);
            let (storage, report) = open(&disk).unwrap();
            drop(storage);
            assert_eq!(report.damage.len(), 1, "{name}: {report:?}");
            let damage = &report.damage[0];
            assert_eq!((damage.log, damage.range.start.get()), (Some(log), base));
            let lost = judge(&name, &disk, &acknowledged, &[]);
            let named = damage.range.end.since(damage.range.start);
            assert_eq!(lost as u64, named, "{name}: no more is lost than is named");
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_segment_is_put_on_record_by_the_scrub_and_never_served_after() {
    let (files, acknowledged) = written(60, true);
    let path = &sealed(&files)[1];
    let index = IndexFile::decode(&files[&path.with_extension("idx")]).unwrap();
    let end = index.index.end_offset().get();
    let heads = heads_of(&files[path]);
    for at in (0..files[path].len()).step_by(stride()) {
        let disk = disk_of(&files);
        disk.flip(path, at as u64, 1 << (at % 8));
        let name = format!("bit of byte {at}");
        let clock = clock();
        let (storage, _) = open_at(&disk, &clock).unwrap();
        for _ in 0..50 {
            clock.advance(Duration::from_millis(100));
            while storage.scrub_once() {}
        }
        let damage = storage.health().damage;
        assert!(!damage.is_empty(), "{name}: it is found");
        let (log, base) = segment_of(path);
        for damage in &damage {
            let range = damage.range.start.get()..damage.range.end.get();
            let is_within = base <= range.start && range.start < range.end && range.end <= end;
            assert!(damage.log == Some(log) && is_within, "{name}: {damage:?}");
        }
        drop(storage);
        // A wrong header may cost a block of the index; the first block's headers also tell whose file it is.
        let lost = judge(&name, &disk, &acknowledged, &[]);
        let in_header = heads.iter().any(|head| (*head..head + 61).contains(&at));
        let most = if in_header { end - base } else { 2 };
        assert!(
            (1..=most).contains(&(lost as u64)),
            "{name}: {lost} are lost: {damage:?}"
        );
    }
}

#[test]
fn a_flipped_bit_or_a_cut_of_a_checkpoint_or_an_index_costs_nothing() {
    let (files, acknowledged) = written(40, true);
    let mut paths = ["/data/checkpoint/A", "/data/checkpoint/B"]
        .map(PathBuf::from)
        .to_vec();
    paths.extend(files_of(&files, ".idx").into_iter().take(2));
    for path in &paths {
        for at in (0..files[path].len()).step_by(stride()) {
            let disk = disk_of(&files);
            disk.flip(path, at as u64, 1 << (at % 8));
            let name = format!("{}: bit of byte {at}", path.display());
            assert_eq!(judge(&name, &disk, &acknowledged, &[]), 0, "{name}");
            let disk = disk_of(&files);
            cut(&disk, path, at);
            let name = format!("{}: cut at {at}", path.display());
            assert_eq!(judge(&name, &disk, &acknowledged, &[]), 0, "{name}");
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_an_active_segment_is_named_and_the_store_goes_on() {
    let (files, acknowledged) = written(60, true);
    let with_index = sealed(&files);
    let mut logs = files_of(&files, ".log").into_iter();
    let path = &logs.find(|path| !with_index.contains(path)).unwrap();
    let partition = segment_of(path).0.partition.get();
    let used = files[path].iter().rposition(|byte| *byte != 0x7f).unwrap();
    for at in (0..used).step_by(stride()) {
        let name = format!("bit of byte {at}");
        let disk = disk_of(&files);
        disk.flip(path, at as u64, 1 << (at % 8));
        let clock = clock();
        let (storage, _) = open_at(&disk, &clock).unwrap();
        // A reader may be the first to need its index, or the seal.
        if at % 2 == 0 {
            drop(
                storage
                    .log(log_id(partition))
                    .unwrap()
                    .offset_for_time(Timestamp::NONE),
            );
        }
        let mut acknowledged = acknowledged.clone();
        for round in 0..30 {
            let value = format!("after-{round}-{}", "x".repeat(50));
            let (base, _) = append(&storage, partition, &[&value]);
            acknowledged.insert((log_id(partition), base), value.into());
            assert!(storage.commit_once());
            if round % 10 == 9 {
                storage.settle_once();
            }
        }
        assert_eq!(storage.health().failed, None, "{name}");
        for _ in 0..100 {
            clock.advance(Duration::from_millis(100));
            while storage.scrub_once() {}
        }
        assert!(!storage.health().damage.is_empty(), "{name}: it is found");
        storage.shutdown();
        drop(storage);
        let lost = judge(&name, &disk, &acknowledged, &[]);
        assert!(lost > 0, "{name}: {lost} are lost");
    }
}

#[test]
fn what_settles_after_a_reader_found_the_active_segment_damaged_is_out_of_its_reach() {
    let (files, acknowledged) = written(60, true);
    let with_index = sealed(&files);
    let mut logs = files_of(&files, ".log").into_iter();
    let path = &logs.find(|path| !with_index.contains(path)).unwrap();
    let (log, base) = segment_of(path);
    let disk = disk_of(&files);
    disk.flip(path, 9, 0x40);
    let (storage, _) = open(&disk).unwrap();
    let found = storage.log(log).unwrap().read(Offset::new(base), 1, true);
    assert!(matches!(found, Err(ReadError::Damaged { .. })), "{found:?}");
    let mut acknowledged = acknowledged.clone();
    let first_after = storage.log(log).unwrap().bounds().end.get();
    for round in 0..3 {
        let value = format!("after-{round}");
        let (base, _) = append(&storage, log.partition.get(), &[&value]);
        acknowledged.insert((log, base), value.into());
        storage.commit_once();
        storage.settle_once();
    }
    storage.shutdown();
    drop(storage);
    judge("a damaged active segment", &disk, &acknowledged, &[]);
    let (storage, _) = open(&disk).unwrap();
    let (records, _) = read(&storage.log(log).unwrap());
    let after = records.range(first_after..).count();
    assert_eq!(after, 3, "what came after is readable");
}

/// The newest manifest of a partition that has one.
fn newest_manifest(files: &Files) -> PathBuf {
    let is_one = |path: &&PathBuf| path.to_string_lossy().contains("manifest.");
    files.keys().rfind(is_one).unwrap().clone()
}

#[test]
fn a_flipped_bit_or_a_cut_of_a_manifest_costs_nothing_while_the_indexes_are_there() {
    let (files, acknowledged) = written(60, true);
    let path = &newest_manifest(&files);
    for at in (0..files[path].len()).step_by(stride()) {
        for is_cut in [false, true] {
            let disk = disk_of(&files);
            if is_cut {
                cut(&disk, path, at);
            } else {
                disk.flip(path, at as u64, 1 << (at % 8));
            }
            let name = format!("{}: byte {at}, cut: {is_cut}", path.display());
            assert_eq!(judge(&name, &disk, &acknowledged, &[]), 0, "{name}");
        }
    }
}

#[test]
fn a_log_without_its_manifests_goes_on_and_stores_a_new_one() {
    let (files, mut acknowledged) = written(60, true);
    let disk = disk_of(&files);
    let is_manifest = |path: &&PathBuf| path.to_string_lossy().contains("manifest.");
    for path in files.keys().filter(is_manifest) {
        disk.remove_file(path).unwrap();
    }
    let (storage, report) = open(&disk).unwrap();
    assert!(report.damage.is_empty(), "{report:?}");
    for round in 0..40 {
        let value = format!("after-{round}");
        let (base, _) = append(&storage, 0, &[&value]);
        acknowledged.insert((log_id(0), base), value.into());
        storage.commit_once();
    }
    storage.settle_once();
    storage.shutdown();
    drop(storage);
    let stored = newest_manifest(&disk.files());
    assert!(!files.contains_key(&stored), "{}", stored.display());
    let indexes = files_of(&disk.files(), ".idx");
    indexes
        .iter()
        .for_each(|path| disk.remove_file(path).unwrap());
    let name = "with the new manifest alone";
    assert_eq!(judge(name, &disk, &acknowledged, &[]), 0);
}

#[test]
fn a_lost_manifest_together_with_an_index_costs_that_segment_and_is_named() {
    let (files, acknowledged) = written(60, true);
    let disk = disk_of(&files);
    let segment = &sealed(&files)[1];
    let is_manifest = |path: &&PathBuf| {
        path.to_string_lossy().contains("manifest.") && path.parent() == segment.parent()
    };
    for path in files.keys().filter(is_manifest) {
        disk.remove_file(path).unwrap();
    }
    disk.remove_file(&segment.with_extension("idx")).unwrap();
    let (log, base) = segment_of(segment);
    let lost = judge("manifest and index", &disk, &acknowledged, &[]);
    let (_, report) = open(&disk).unwrap();
    let damage = &report.damage[0];
    assert_eq!((damage.log, damage.range.start.get()), (Some(log), base));
    assert_eq!(lost as u64, damage.range.end.since(damage.range.start));
    assert_eq!(disk.files()[segment], files[segment], "its log stays");
}

#[test]
fn a_lost_or_cut_active_segment_costs_what_had_settled_into_it_and_no_more() {
    let (files, acknowledged) = written(60, true);
    let with_index = sealed(&files);
    let active: Vec<PathBuf> = files_of(&files, ".log")
        .into_iter()
        .filter(|path| !with_index.contains(path))
        .collect();
    assert!(!active.is_empty());
    for path in &active {
        let (log, base) = segment_of(path);
        for len in [None, Some(0), Some(100)] {
            let disk = disk_of(&files);
            match len {
                None => disk.remove_file(path).unwrap(),
                Some(len) => cut(&disk, path, len),
            }
            let name = format!("{} cut at {len:?}", path.display());
            let lost = judge(&name, &disk, &acknowledged, &[]);
            let (storage, report) = open(&disk).unwrap();
            assert_eq!(report.damage.len(), 1, "{name}: {report:?}");
            let damage = &report.damage[0];
            assert_eq!((damage.log, damage.range.start.get()), (Some(log), base));
            assert_eq!(lost as u64, damage.range.end.since(damage.range.start));
            // And the log goes on behind it.
            let end = storage.log(log).unwrap().bounds().end;
            let (offset, _) = append(&storage, log.partition.get(), &["after"]);
            assert_eq!(offset, end.get());
            storage.commit_once();
            storage.settle_once();
            let (records, _) = read(&storage.log(log).unwrap());
            assert_eq!(records[&offset], Bytes::from("after"));
            drop(storage);
            let mut more = acknowledged.clone();
            more.insert((log, offset), "after".into());
            assert_eq!(judge(&name, &disk, &more, &[]), lost);
        }
    }
}

#[test]
fn a_store_file_with_one_bad_copy_opens_and_with_two_refuses_and_changes_nothing() {
    let (files, acknowledged) = written(20, true);
    let path = Path::new("/data/STORE");
    for at in (0..40_u64).chain([4095]) {
        let disk = disk_of(&files);
        disk.flip(path, at, 1);
        let name = format!("STORE: byte {at}");
        assert_eq!(judge(&name, &disk, &acknowledged, &[]), 0, "{name}");
        let disk = disk_of(&files);
        disk.flip(path, at % 36, 1);
        disk.flip(path, 4096 + at % 36, 1);
        let before = disk.files();
        assert!(matches!(open(&disk), Err(OpenError::Format { .. })));
        let mut after = disk.files();
        after.retain(|path, _| !path.ends_with("LOCK"));
        assert!(after.iter().all(|(path, bytes)| before[path] == *bytes));
    }
    for len in [0, 35, 36, 4095, 4096, 4131, 8191] {
        let disk = disk_of(&files);
        cut(&disk, path, len);
        let opened = open(&disk).map(|_| ());
        assert_eq!(opened.is_ok(), len >= 36, "cut at {len}: {opened:?}");
    }
}

#[test]
fn damage_to_the_last_frame_is_named_once_an_idle_store_has_confirmed_it() {
    for (confirmed, part) in [(false, 10), (false, 150), (true, 10), (true, 150)] {
        let disk = disk_of(&Files::new());
        let (storage, _) = open(&disk).unwrap();
        append(&storage, 0, &["first"]);
        assert!(storage.commit_once());
        append(&storage, 0, &["last"]);
        assert!(storage.commit_once());
        let frames = storage.metrics().frames;
        if confirmed {
            assert!(storage.confirm_once());
            assert!(storage.confirm_once());
            assert_eq!(
                storage.metrics().frames,
                frames + 1,
                "one, not one a second"
            );
        }
        disk.cut_power();
        drop(storage);
        disk.restart_process();
        // The start's own frame, then one for each record: the last of them, in its head or in its batch.
        let path = disk
            .files()
            .into_iter()
            .find(|(path, contents)| {
                path.extension().is_some_and(|kind| kind == "wal") && contents.starts_with(b"WALF")
            })
            .unwrap()
            .0;
        disk.flip(&path, 2 * 4096 + part, 1);
        let (storage, report) = open(&disk).unwrap();
        assert_eq!(
            report.damage.len(),
            usize::from(confirmed),
            "{part}: {report:?}"
        );
        assert_eq!(
            report.torn.is_some(),
            !confirmed && part == 150,
            "{report:?}"
        );
        let (records, _) = read(&storage.log(log_id(0)).unwrap());
        assert!(records.contains_key(&0));
    }
}
