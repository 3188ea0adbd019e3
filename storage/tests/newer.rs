//! A store of which one file is of a later format version is not opened, whichever file it is; nothing on the disk changes, and
//! the offline verification says the same. A bit that flipped in a version is damage, and no reason not to start.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alluvium_storage as storage;
use model::batch::{Batch, BatchBuilder};
use model::codec::Codec;
use model::topic_config::TopicConfig;
use model::{LogId, PartitionId, Timestamp, TopicId};
use storage::inspect::verify_store;
use storage::io::{SimDisk, write_new_file};
use storage::{Disk, Env, LogSettings, ManualClock, OpenError, Storage, StorageConfig};

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn log_id() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)))
}

fn open(disk: &SimDisk) -> Result<Storage, OpenError> {
    open_at(disk, clock())
}

fn open_at(disk: &SimDisk, clock: Arc<ManualClock>) -> Result<Storage, OpenError> {
    let mut config = StorageConfig::new("/data");
    config.wal_file_bytes = 256 << 10;
    config.wal_files_min = 2;
    config.wal_files_max = 8;
    let disk = Arc::new(disk.clone());
    let (storage, _) = Storage::open(config, Env::manual(disk, clock))?;
    storage.finish_open(&HashSet::from([log_id()]))?;
    let settings = LogSettings {
        segment_bytes: 1_000,
        ..LogSettings::from(&TopicConfig::default())
    };
    storage.create_log(log_id(), settings);
    Ok(storage)
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

fn append(storage: &Storage) {
    let mut builder = BatchBuilder::new(Codec::None);
    let time = Timestamp::from_millis(5);
    builder.push(time, None, Some(&[b'x'; 300]), &[]).unwrap();
    let batch = Batch::parse(builder.build().unwrap()).unwrap();
    while storage.prepare_once().unwrap() {}
    let admission = storage.try_admit(batch.bytes().len()).unwrap();
    let log = storage.log(log_id()).unwrap();
    let _ = log.append(vec![batch.into()], admission).unwrap();
    assert!(storage.commit_once());
}

/// A killed store with every kind of file: sealed segments, an unsettled rest, damage on record.
fn files() -> Files {
    let disk = disk_of(&Files::new());
    let storage = open(&disk).unwrap();
    for round in 0..4 {
        for _ in 0..8 {
            append(&storage);
        }
        if round < 3 {
            storage.settle_once();
        }
    }
    disk.cut_power();
    drop(storage);
    disk.restart_process();
    let (wal, _) = frames(&disk.files())[20].clone();
    // A start that finds damage puts it on record, and goes on in the same file.
    let (_, last) = frames(&disk.files())
        .into_iter()
        .rfind(|(path, _)| *path == wal)
        .unwrap();
    disk.flip(&wal, last - 4096 + 150, 1);
    drop(open(&disk).unwrap());
    disk.files()
}

/// Each frame's file and position, in order.
fn frames(files: &Files) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for (path, contents) in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(sequence) = name.strip_suffix(".wal") else {
            continue;
        };
        let sequence: u64 = sequence.parse().unwrap();
        for at in (0..contents.len()).step_by(4096) {
            let head = &contents[at..];
            if head.starts_with(b"WALF") && head[24..32] == sequence.to_le_bytes() {
                found.push((path.clone(), at as u64));
            }
        }
    }
    found
}

fn mend_frame(frame: &mut [u8], version: u16) {
    frame[4..6].copy_from_slice(&version.to_le_bytes());
    let count = u32::from_le_bytes(*frame[60..].first_chunk().unwrap()) as usize;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame[..76]);
    crc.update(&frame[80..80 + 40 * count]);
    frame[76..80].copy_from_slice(&crc.finalize().to_le_bytes());
}

/// Sets the version of an envelope, with its checksum.
fn mend_envelope(bytes: &mut [u8], version: u32) {
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    let body = u32::from_le_bytes(*bytes[12..].first_chunk().unwrap()) as usize;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..16]);
    crc.update(&bytes[20..20 + body]);
    bytes[16..20].copy_from_slice(&crc.finalize().to_le_bytes());
}

fn mend_index(bytes: &mut [u8], version: u32) {
    let end = bytes.len();
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    bytes[end - 12..end - 8].copy_from_slice(&version.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..end - 16]);
    bytes[end - 16..end - 12].copy_from_slice(&crc.to_le_bytes());
}

fn mend_damage(bytes: &[u8], version: u32) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).unwrap();
    let (line, _) = text
        .split_once(",\"crc32\":")
        .expect("a line with a checksum");
    let line = line.replace("\"version\":2", &format!("\"version\":{version}"));
    let crc = crc32fast::hash(line.as_bytes());
    format!("{line},\"crc32\":\"{crc:08x}\"}}\n").into_bytes()
}

/// The store is refused by name, nothing changes, and the verification refuses it too.
fn check_refused(files: &Files, path: &Path, version: u32) {
    let disk = disk_of(files);
    match open(&disk).map(drop) {
        Err(OpenError::Newer {
            path: named, found, ..
        }) => {
            assert_eq!((named.as_path(), found), (path, version));
        }
        other => panic!("{}: {other:?}", path.display()),
    }
    let after = disk.files();
    for (path, contents) in files {
        assert!(
            after.get(path) == Some(contents),
            "{} changed",
            path.display()
        );
    }
    assert_eq!(
        after.len(),
        files.len() + usize::from(!files.contains_key(Path::new("/data/LOCK")))
    );
    let mut named = false;
    let summary = verify_store(&disk, Path::new("/data"), &mut |finding| {
        named |= finding.stops_start && finding.path == path && finding.reason.contains("release");
    })
    .unwrap();
    assert!(named && summary.refusals > 0, "{summary:?}");
}

#[test]
fn a_file_of_a_later_version_refuses_the_start_whichever_it_is_and_nothing_changes() {
    let files = files();
    let mut kinds = HashSet::new();
    for (path, contents) in &files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut newer = contents.clone();
        let kind = match name {
            "STORE" => {
                mend_envelope(&mut newer[4096..], 9);
                "STORE"
            }
            "A" | "B" => {
                mend_envelope(&mut newer, 9);
                name
            }
            "CLOCK" => {
                mend_envelope(&mut newer, 9);
                "CLOCK"
            }
            "DAMAGE" => {
                newer = mend_damage(&newer, 9);
                "DAMAGE"
            }
            _ if name.starts_with("manifest.") => {
                mend_envelope(&mut newer, 9);
                "manifest"
            }
            _ if name.ends_with(".idx") => {
                mend_index(&mut newer, 9);
                "index"
            }
            _ => continue,
        };
        kinds.insert(kind);
        let mut files = files.clone();
        files.insert(path.clone(), newer);
        check_refused(&files, path, 9);
    }
    assert_eq!(kinds.len(), 7, "{kinds:?}");
}

#[test]
fn frames_of_a_later_version_are_no_torn_tail_from_wherever_they_begin() {
    let files = files();
    let frames = frames(&files);
    // The checkpoint begins behind the 24 frames of the rounds that settled, and the first start's own.
    for first in 25..frames.len() {
        let mut newer = files.clone();
        for (path, at) in &frames[first..] {
            mend_frame(&mut newer.get_mut(path).unwrap()[*at as usize..], 3);
        }
        check_refused(&newer, &frames[first].0, 3);
        // The one before them is damaged besides.
        if first > 25 {
            let (path, at) = &frames[first - 1];
            newer.get_mut(path).unwrap()[*at as usize + 50] ^= 1;
            check_refused(&newer, &frames[first].0, 3);
        }
    }
}

#[test]
fn a_flipped_bit_in_a_version_is_damage_and_no_reason_not_to_start() {
    let files = files();
    for (path, contents) in &files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut flipped = contents.clone();
        match name {
            "STORE" | "A" | "B" | "CLOCK" => flipped[8] ^= 4,
            "DAMAGE" => {
                let text = String::from_utf8(flipped).unwrap();
                flipped = text.replace("\"version\":2", "\"version\":6").into_bytes();
            }
            _ if name.starts_with("manifest.") => flipped[8] ^= 4,
            _ if name.ends_with(".idx") => flipped[8] ^= 4,
            _ => continue,
        }
        let mut files = files.clone();
        files.insert(path.clone(), flipped);
        open(&disk_of(&files)).unwrap();
    }
    for (path, at) in frames(&files) {
        let mut files = files.clone();
        files.get_mut(&path).unwrap()[at as usize + 4] ^= 4;
        open(&disk_of(&files)).unwrap();
    }
}

#[test]
fn an_index_of_a_later_version_is_not_written_over() {
    let files = files();
    let path = files
        .keys()
        .find(|path| path.extension().is_some_and(|kind| kind == "idx"))
        .unwrap();
    let mut newer = files[path].clone();
    mend_index(&mut newer, 9);
    let mut damaged = files[path].clone();
    damaged[30] ^= 1;
    for (contents, expected) in [(&newer, &newer), (&damaged, &files[path])] {
        let disk = disk_of(&files);
        let clock = clock();
        let storage = open_at(&disk, clock.clone()).unwrap();
        disk.remove_file(path).unwrap();
        write_new_file(&disk, path, contents).unwrap();
        for _ in 0..200 {
            clock.advance(Duration::from_secs(3600));
            storage.scrub_once();
        }
        assert!(disk.files()[path] == *expected);
    }
}
