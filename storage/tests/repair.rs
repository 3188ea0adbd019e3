//! The offline repair on the simulated disk: each kind of file damaged in each way, repaired, opened and read. What the plan does
//! not put on record is there; nothing that was acknowledged is deleted; and a second plan has nothing left to change.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluvium_storage as storage;
use model::batch::{Batch, BatchBuilder, split};
use model::codec::Codec;
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use storage::io::{OpenHow, SimDisk, write_new_file};
use storage::repair::{Action, Planned, RepairError, execute, plan};
use storage::{Disk, Env, LogSettings, ManualClock, ReadError, Storage, StorageConfig};

const ROOT: &str = "/data";

fn id() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
}

fn open(disk: &SimDisk) -> Storage {
    let mut config = StorageConfig::new(ROOT);
    config.wal_file_bytes = 256 << 10;
    config.wal_files_min = 2;
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
    let env = Env::manual(Arc::new(disk.clone()), clock);
    let (storage, _) = Storage::open(config, env).unwrap();
    storage.finish_open(&HashSet::from([id()])).unwrap();
    let settings = LogSettings {
        segment_bytes: 10_000,
        ..LogSettings::from(&TopicConfig::default())
    };
    storage.create_log(id(), settings);
    storage
}

fn append(storage: &Storage, count: u64, held: &mut BTreeMap<u64, Vec<u8>>) {
    for _ in 0..count {
        while storage.prepare_once().unwrap() {}
        let payload = format!("{} {}", held.len(), "x".repeat(700)).into_bytes();
        let mut builder = BatchBuilder::new(Codec::None);
        builder
            .push(Timestamp::from_millis(1), None, Some(&payload), &[])
            .unwrap();
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        let admission = storage.try_admit(batch.bytes().len()).unwrap();
        let log = storage.log(id()).unwrap();
        let appended = log.append(vec![batch.into()], admission).unwrap();
        storage.commit_once();
        held.insert(appended.base_offset.get(), payload);
        appended.durable.wait().unwrap();
    }
}

/// A store that was killed: sealed segments, an active one, and records in the write-ahead log only.
fn killed() -> (SimDisk, BTreeMap<u64, Vec<u8>>) {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new(ROOT)).unwrap();
    let mut held = BTreeMap::new();
    let storage = open(&disk);
    for _ in 0..4 {
        append(&storage, 20, &mut held);
        storage.settle_once();
    }
    append(&storage, 10, &mut held);
    disk.cut_power();
    drop(storage);
    disk.restart_process();
    (disk, held)
}

/// What the store gives, and what it says is damaged.
fn read(disk: &SimDisk) -> (BTreeMap<u64, Vec<u8>>, Vec<std::ops::Range<u64>>) {
    let storage = open(disk);
    let log = storage.log(id()).unwrap();
    let bounds = log.bounds();
    let (mut at, mut found) = (bounds.start, BTreeMap::new());
    let mut damaged = Vec::new();
    while at < bounds.durable_end {
        match log.read_copy(at, 1) {
            Ok(chunk) => {
                for slice in &chunk.slices {
                    for batch in split(slice.to_vec().into()) {
                        for record in batch.unwrap().records(Default::default()).unwrap() {
                            let record = record.unwrap();
                            found.insert(record.offset.get(), record.value.unwrap().to_vec());
                        }
                    }
                }
                at = chunk.end_offset.max(at.plus(1));
            }
            Err(ReadError::Damaged { range, .. }) => {
                damaged.push(range.start.get()..range.end.get());
                at = range.end.max(at.plus(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
    storage.shutdown();
    (found, damaged)
}

/// Repairs until nothing more is to be changed; gives all that was done.
fn repair(disk: &SimDisk) -> Vec<Planned> {
    let mut done = Vec::new();
    for _ in 0..3 {
        let planned = plan(disk, Path::new(ROOT)).unwrap();
        if !planned.iter().any(Planned::changes) {
            return done;
        }
        execute(disk, Path::new(ROOT), &planned, Timestamp::from_millis(9)).unwrap();
        done.extend(planned.into_iter().filter(Planned::changes));
    }
    panic!("a repair comes to an end: {done:?}");
}

fn files(disk: &SimDisk, part: &str) -> Vec<PathBuf> {
    let all = disk.files().into_keys();
    all.filter(|path| path.to_string_lossy().contains(part))
        .collect()
}

#[derive(Clone, Copy, Debug)]
enum Wrong {
    Flipped,
    Half,
    Empty,
    Zeroed,
    Deleted,
}

const ALL: [Wrong; 5] = [
    Wrong::Flipped,
    Wrong::Half,
    Wrong::Empty,
    Wrong::Zeroed,
    Wrong::Deleted,
];

fn damage(disk: &SimDisk, path: &Path, wrong: Wrong) {
    let bytes = disk.files()[path].len() as u64;
    if let Wrong::Deleted = wrong {
        return disk.remove_file(path).unwrap();
    }
    let file = disk.open(path, OpenHow::ReadWrite).unwrap();
    match wrong {
        Wrong::Flipped => disk.flip(path, bytes / 3 + 30, 1),
        Wrong::Half => file.set_len(bytes / 2).unwrap(),
        Wrong::Empty => file.set_len(0).unwrap(),
        Wrong::Zeroed => file
            .write_at(0, &vec![0; bytes.min(4096) as usize])
            .unwrap(),
        Wrong::Deleted => {}
    }
}

/// Damages a file in each way, repairs, and compares what is read: what is missing must lie in ranges that the reader is told of.
fn check(which: impl Fn(&SimDisk) -> Vec<PathBuf>, expected: &[Action], may_lose: bool) {
    for wrong in ALL {
        let (disk, held) = killed();
        let paths = which(&disk);
        assert!(!paths.is_empty());
        for path in &paths {
            damage(&disk, path, wrong);
        }
        let before = disk.files();
        let planned = plan(&disk, Path::new(ROOT)).unwrap();
        assert_eq!(disk.files(), before, "a plan changes nothing");
        assert!(
            planned.iter().all(|one| expected.contains(&one.action)),
            "{wrong:?} {paths:?}: {planned:#?}"
        );
        repair(&disk);
        let after: HashSet<Vec<u8>> = disk.files().into_values().collect();
        for (path, contents) in &before {
            let is_derived =
                path.extension().is_some_and(|kind| kind == "idx") || path.ends_with("DAMAGE");
            assert!(
                is_derived || after.contains(contents),
                "{wrong:?}: {} is gone",
                path.display()
            );
        }
        let (found, damaged) = read(&disk);
        for (offset, payload) in &held {
            let is_told = damaged.iter().any(|range| range.contains(offset));
            match found.get(offset) {
                Some(found) => assert_eq!(found, payload, "{wrong:?} {paths:?}: offset {offset}"),
                None => assert!(
                    is_told && may_lose,
                    "{wrong:?} {paths:?}: offset {offset}, {damaged:?}"
                ),
            }
        }
    }
}

#[test]
fn a_sound_store_has_nothing_to_repair() {
    let (disk, held) = killed();
    assert_eq!(plan(&disk, Path::new(ROOT)).unwrap(), []);
    assert_eq!(read(&disk), (held, Vec::new()));
}

#[test]
fn an_index_is_built_again_and_nothing_is_lost() {
    check(|disk| files(disk, ".idx"), &[Action::RebuildIndex], false);
    let (disk, _) = killed();
    let path = files(&disk, ".idx").remove(0);
    let before = disk.files()[&path].clone();
    disk.flip(&path, 40, 1);
    let done = repair(&disk);
    assert_eq!(
        done.iter().map(|one| one.action).collect::<Vec<_>>(),
        [Action::RebuildIndex]
    );
    assert_eq!(disk.files()[&path].len(), before.len());
}

#[test]
fn damage_in_a_sealed_segment_is_put_on_record_and_the_rest_is_served() {
    let sealed = |disk: &SimDisk| vec![files(disk, ".idx").remove(1).with_extension("log")];
    check(sealed, &[Action::RecordDamage, Action::LeftToStart], true);
    let (disk, _) = killed();
    damage(&disk, &sealed(&disk)[0], Wrong::Flipped);
    let done = repair(&disk);
    let [one] = &done[..] else { panic!("{done:?}") };
    assert!(one.from.is_some() && one.to > one.from);
    let (_, damaged) = read(&disk);
    let recorded = one.from.unwrap()..one.to.unwrap();
    assert_eq!((damaged.len(), &damaged[0]), (1, &recorded));
}

#[test]
fn store_is_written_again_from_its_other_copy_a_checkpoint_or_a_frame() {
    check(|disk| files(disk, "/STORE"), &[Action::RewriteStore], false);
    let (disk, held) = killed();
    for path in [files(&disk, "/STORE"), files(&disk, "checkpoint/")].concat() {
        damage(&disk, &path, Wrong::Zeroed);
    }
    let actions: Vec<Action> = repair(&disk).iter().map(|one| one.action).collect();
    assert!(
        actions.contains(&Action::RewriteStore) && actions.contains(&Action::RebuildCheckpoint)
    );
    assert_eq!(read(&disk), (held, Vec::new()));
}

#[test]
fn one_lost_checkpoint_is_left_to_the_start_and_two_are_built_again() {
    let one = |disk: &SimDisk| vec![files(disk, "checkpoint/").remove(0)];
    check(one, &[Action::LeftToStart], false);
    let both = |disk: &SimDisk| files(disk, "checkpoint/");
    check(both, &[Action::SetAside, Action::RebuildCheckpoint], false);
}

#[test]
fn checkpoints_and_manifests_that_are_lost_together_are_had_from_the_segments() {
    for wrong in [Wrong::Zeroed, Wrong::Deleted] {
        let (disk, held) = killed();
        for path in [files(&disk, "checkpoint/"), files(&disk, "manifest.")].concat() {
            damage(&disk, &path, wrong);
        }
        repair(&disk);
        assert_eq!(read(&disk), (held, Vec::new()), "{wrong:?}");
    }
}

#[test]
fn a_lost_manifest_and_a_damaged_write_ahead_log_are_left_to_the_start() {
    check(
        |disk| files(disk, "manifest."),
        &[Action::LeftToStart],
        false,
    );
    let (disk, _) = killed();
    let all = disk.files();
    let used = files(&disk, ".wal")
        .into_iter()
        .find(|path| all[path].iter().any(|byte| *byte != 0));
    damage(&disk, &used.unwrap(), Wrong::Flipped);
    let planned = plan(&disk, Path::new(ROOT)).unwrap();
    let is_left = |one: &Planned| one.action == Action::LeftToStart;
    assert!(planned.iter().all(is_left), "{planned:?}");
}

#[test]
fn a_file_that_nobody_knows_is_set_aside_and_a_later_releases_stops_everything() {
    let (disk, held) = killed();
    let stray = Path::new(ROOT).join("p/07/notes.txt");
    write_new_file(&disk, &stray, b"mine").unwrap();
    let done = repair(&disk);
    assert_eq!((done.len(), done[0].action), (1, Action::SetAside));
    assert!(
        disk.files()
            .iter()
            .any(|(path, contents)| contents == b"mine" && path.starts_with("/data/quarantine"))
    );
    assert_eq!(read(&disk), (held, Vec::new()));
    write_new_file(&disk, &Path::new(ROOT).join("RESTORING"), b"x\n").unwrap();
    let refused = plan(&disk, Path::new(ROOT));
    assert!(
        matches!(refused, Err(RepairError::Refused { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_power_cut_at_any_operation_of_a_repair_leaves_one_that_can_be_repaired() {
    let begin = || {
        let (disk, held) = killed();
        for path in [
            files(&disk, "checkpoint/"),
            files(&disk, "/STORE"),
            files(&disk, ".idx"),
        ]
        .concat()
        {
            damage(&disk, &path, Wrong::Zeroed);
        }
        disk.sync_filesystem(Path::new("/")).unwrap();
        (disk, held)
    };
    let (disk, _) = begin();
    let from = disk.operations();
    repair(&disk);
    let operations = disk.operations() - from;
    for cut in 1..=operations {
        let (disk, held) = begin();
        disk.cut_power_during(disk.operations() + cut);
        let planned = plan(&disk, Path::new(ROOT)).unwrap();
        let _ = execute(&disk, Path::new(ROOT), &planned, Timestamp::from_millis(9));
        if !disk.is_off() {
            continue;
        }
        disk.restart(cut);
        repair(&disk);
        assert_eq!(read(&disk), (held, Vec::new()), "cut {cut}");
    }
}

#[test]
fn what_was_deleted_from_the_front_stays_deleted_if_a_manifest_says_so() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new(ROOT)).unwrap();
    let mut held = BTreeMap::new();
    let storage = open(&disk);
    append(&storage, 60, &mut held);
    storage.settle_once();
    let log = storage.log(id()).unwrap();
    let durable = log.delete_records(Offset::new(30)).unwrap();
    storage.commit_once();
    drop(durable);
    storage.settle_once();
    storage.shutdown();
    drop((log, storage));
    for path in files(&disk, "checkpoint/") {
        damage(&disk, &path, Wrong::Deleted);
    }
    repair(&disk);
    let (found, damaged) = read(&disk);
    assert_eq!(found.keys().next(), Some(&30));
    assert_eq!((found.len(), damaged.len()), (30, 0));
}
