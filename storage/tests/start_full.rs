//! A store that is whole starts, however little the disk has left: on a full disk without a spare file of the write-ahead log,
//! with every file of the pool in use, with a torn end, with damage that has no room to be put on record.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluvium_storage as storage;
use model::batch::{Batch, BatchBuilder};
use model::codec::Codec;
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use storage::io::{OpenHow, SimDisk};
use storage::{
    Disk, Env, LogSettings, ManualClock, OpenError, RecoveryReport, Storage, StorageConfig,
};

const FILE_BYTES: u64 = 256 << 10;
const FILES_MAX: usize = 6;

fn log_id() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
}

fn open(disk: &SimDisk) -> Result<(Storage, RecoveryReport), OpenError> {
    let mut config = StorageConfig::new("/data");
    config.wal_file_bytes = FILE_BYTES;
    config.wal_files_min = 2;
    config.wal_files_max = FILES_MAX;
    let disk = Arc::new(disk.clone());
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
    let (storage, report) = Storage::open(config, Env::manual(disk, clock))?;
    storage.finish_open(&HashSet::from([log_id()]))?;
    storage.create_log(log_id(), LogSettings::from(&TopicConfig::default()));
    Ok((storage, report))
}

fn batch(number: u64) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    let value = vec![number as u8; 20_000];
    let time = Timestamp::from_millis(5);
    builder.push(time, None, Some(&value), &[]).unwrap();
    Batch::parse(builder.build().unwrap()).unwrap()
}

/// Appends one record and makes it durable. False if nothing more is let in.
fn append(storage: &Storage, number: u64) -> bool {
    let batch = batch(number);
    let Some(admission) = storage.try_admit(batch.bytes().len()) else {
        return false;
    };
    let log = storage.log(log_id()).unwrap();
    match log.append(vec![batch.into()], admission) {
        Ok(appended) => {
            assert_eq!(appended.base_offset.get(), number);
            assert!(storage.commit_once());
            true
        }
        Err(error) => {
            assert!(matches!(error, storage::AppendError::DiskFull), "{error}");
            false
        }
    }
}

fn new_disk() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk.sync_filesystem(Path::new("/")).unwrap();
    disk
}

/// Not a byte more fits on the disk.
fn fill(disk: &SimDisk) {
    disk.set_capacity(disk.files().values().map(|file| file.len() as u64).sum());
}

/// The process ends without a word.
fn kill(disk: &SimDisk, storage: Storage) {
    disk.cut_power();
    drop(storage);
    disk.restart_process();
}

/// A store whose disk filled up under load, killed. Gives how many records were acknowledged.
fn filled_under_load() -> (SimDisk, u64) {
    let disk = new_disk();
    let (storage, _) = open(&disk).unwrap();
    let mut acknowledged = 0;
    for _ in 0..10 {
        let _ = storage.prepare_once();
        assert!(append(&storage, acknowledged));
        acknowledged += 1;
    }
    fill(&disk);
    while append(&storage, acknowledged) || !storage.health().disk_full {
        acknowledged = storage.log(log_id()).unwrap().bounds().end.get();
        // Whoever would make the next file meets the full disk.
        let _ = storage.prepare_once();
    }
    assert!(storage.health().disk_full);
    kill(&disk, storage);
    (disk, acknowledged)
}

fn read_all(storage: &Storage) -> u64 {
    let log = storage.log(log_id()).unwrap();
    let bounds = log.bounds();
    let mut next = bounds.start;
    while next < bounds.durable_end {
        next = log.read(next, 1 << 20, true).unwrap().end_offset;
    }
    assert_eq!(next, bounds.durable_end);
    next.get()
}

#[test]
fn a_disk_that_filled_up_under_load_does_not_keep_the_store_from_starting() {
    let (disk, acknowledged) = filled_under_load();
    // A supervisor starts it again and again: each start needs a block, and there is room for more than a few.
    for _ in 0..3 {
        let (storage, report) = open(&disk).unwrap();
        assert_eq!(report.damage, []);
        assert_eq!(read_all(&storage), acknowledged);
        assert!(!append(&storage, acknowledged), "there is no room");
        assert!(storage.health().disk_full);
        kill(&disk, storage);
    }
    let (storage, _) = open(&disk).unwrap();
    disk.set_capacity(u64::MAX);
    storage.settle_once();
    while storage.prepare_once().unwrap() {}
    assert!(append(&storage, acknowledged), "it resumes with space");
    assert_eq!(read_all(&storage), acknowledged + 1);
}

#[test]
fn a_limit_on_file_sizes_refuses_appends_like_a_full_disk_until_it_is_raised() {
    let disk = new_disk();
    let (storage, _) = open(&disk).unwrap();
    for number in 0..3 {
        assert!(append(&storage, number));
    }
    disk.set_file_bytes_max(FILE_BYTES / 2);
    assert!(!append(&storage, 3), "no whole file can be written");
    assert_eq!(read_all(&storage), 3);
    kill(&disk, storage);
    let (storage, _) = open(&disk).unwrap();
    assert!(storage.health().disk_full && storage.health().failed.is_none());
    assert_eq!(read_all(&storage), 3);
    disk.set_file_bytes_max(FILE_BYTES);
    assert!(append(&storage, 3));
    // Segments are no longer than the limit, whatever their setting.
    while append(&storage, read_all(&storage)) && read_all(&storage) < 40 {
        storage.settle_once();
        let _ = storage.prepare_once();
    }
    assert_eq!(
        (read_all(&storage), storage.health().disk_full),
        (40, false)
    );
    drop(storage);
    // A new store has no file to begin with, and says why.
    let disk = new_disk();
    disk.set_file_bytes_max(FILE_BYTES / 2);
    assert!(open(&disk).is_err());
}

/// The last file of the write-ahead log that holds a frame, and where its last frame ends.
fn last_frame(disk: &SimDisk) -> (PathBuf, u64) {
    let mut last = None;
    for path in disk.files().into_keys() {
        if path.extension().is_some_and(|kind| kind == "wal") {
            let summary = storage::inspect::dump_wal(disk, &path, &mut |_| {}).unwrap();
            if summary.frames > 0 {
                last = Some((path, summary.used_bytes));
            }
        }
    }
    last.unwrap()
}

/// Puts a frame behind the last one that was written to its end, but for a block in the middle.
fn tear(disk: &SimDisk) {
    let (path, end) = last_frame(disk);
    // The last frame is one of a start, of one block, or one with a batch of 20,000 bytes.
    let mut frame = disk.files()[&path][..usize::try_from(end).unwrap()].to_vec();
    let begin = (0..frame.len())
        .step_by(4096)
        .rfind(|at| frame[*at..].starts_with(b"WALF"))
        .unwrap();
    frame.drain(..begin);
    let sequence = u64::from_le_bytes(*frame[32..].first_chunk().unwrap());
    frame[32..40].copy_from_slice(&(sequence + 2).to_le_bytes());
    let count = u32::from_le_bytes(*frame[60..].first_chunk().unwrap()) as usize;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame[..76]);
    crc.update(&frame[80..80 + 40 * count]);
    frame[76..80].copy_from_slice(&crc.finalize().to_le_bytes());
    let file = disk.open(&path, OpenHow::ReadWrite).unwrap();
    file.write_at(end + 4096, &frame).unwrap();
    file.sync_data().unwrap();
}

#[test]
fn a_torn_end_on_a_full_disk_is_written_over() {
    let (disk, acknowledged) = filled_under_load();
    tear(&disk);
    let (storage, report) = open(&disk).unwrap();
    assert!(report.torn.is_some() && report.damage.is_empty());
    assert_eq!(read_all(&storage), acknowledged);
    disk.set_capacity(u64::MAX);
    storage.settle_once();
    while storage.prepare_once().unwrap() {}
    assert!(append(&storage, acknowledged));
    kill(&disk, storage);
    let (storage, report) = open(&disk).unwrap();
    assert_eq!((report.torn, report.damage), (None, vec![]));
    assert_eq!(read_all(&storage), acknowledged + 1);
}

#[test]
fn a_torn_end_with_every_file_of_the_pool_in_use_is_no_reason_not_to_start() {
    let disk = new_disk();
    let (storage, _) = open(&disk).unwrap();
    let mut acknowledged = 0;
    while append(&storage, acknowledged) {
        acknowledged += 1;
        let _ = storage.prepare_once();
    }
    kill(&disk, storage);
    tear(&disk);
    let (storage, report) = open(&disk).unwrap();
    assert!(report.torn.is_some());
    assert_eq!(read_all(&storage), acknowledged);
}

#[test]
fn damage_that_has_no_room_to_be_put_on_record_is_kept_until_it_has() {
    let (disk, acknowledged) = filled_under_load();
    let (path, end) = last_frame(&disk);
    // Within the batch of a frame that later ones know to be durable.
    disk.flip(&path, end - 3 * 24_576 + 9_000, 1);
    let (storage, report) = open(&disk).unwrap();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    let record = Path::new("/data/DAMAGE");
    assert!(!disk.exists(record).unwrap());
    let log = storage.log(log_id()).unwrap();
    assert_eq!(log.bounds().durable_end, Offset::new(acknowledged));
    disk.set_capacity(u64::MAX);
    assert!(storage.settle_once());
    assert!(disk.exists(record).unwrap());
    kill(&disk, storage);
    let (_, again) = open(&disk).unwrap();
    assert_eq!(again.damage, report.damage);
}
