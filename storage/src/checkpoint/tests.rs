use super::*;
use std::collections::HashSet;

use crate::io::{RealDisk, SimDisk, write_new_file};
use model::{PartitionId, TopicId};
use proptest::prelude::*;

const STORE: Uuid = Uuid::from_bytes([5; 16]);

fn entry(n: u32) -> LogEntry {
    LogEntry {
        log: LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(n)),
        start_offset: Offset::new(1),
        settled_end: Offset::new(u64::from(n) * 3),
        manifest: 2,
        active: n.is_multiple_of(2).then(|| ActiveSegment {
            id: SegmentId {
                base: Offset::new(u64::from(n)),
                generation: 1,
            },
            bytes: 99,
            max_timestamp: Timestamp::from_millis(-1),
            first_append_time: Timestamp::from_millis(3),
            last_append_time: Timestamp::from_millis(4),
            heads_checksum: n.is_multiple_of(4).then_some(0x1234_5678),
        }),
        producers: vec![1; n as usize],
        epochs: vec![2; 3],
    }
}

fn checkpoint(logs: u32) -> Checkpoint {
    Checkpoint {
        store: STORE,
        sequence: 0,
        leader_epoch: LeaderEpoch::new(6),
        wal: WalPosition {
            file: 1,
            position: 8_192,
            frame: 77,
        },
        logs: (0..logs).map(entry).collect(),
    }
}

#[test]
fn a_checkpoint_cut_or_flipped_anywhere_is_refused() {
    let whole = checkpoint(3).encode();
    assert_eq!(Checkpoint::decode(&whole).unwrap(), checkpoint(3));
    for len in 0..whole.len() {
        assert!(Checkpoint::decode(&whole[..len]).is_err(), "cut to {len}");
    }
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Checkpoint::decode(&flipped).is_err(), "bit {bit}");
    }
}

type Logs = HashMap<LogId, LogEntry>;

fn logs(count: u32) -> Logs {
    (0..count)
        .map(|n| (entry(n).log, entry(n)))
        .collect::<HashMap<_, _>>()
}

fn store_all(
    store: &mut CheckpointStore,
    disk: &dyn Disk,
    changed: &HashSet<LogId>,
    logs: &Logs,
) -> io::Result<u64> {
    let moment = Moment {
        leader_epoch: LeaderEpoch::new(6),
        wal: WalPosition::BEGINNING,
    };
    store.store(disk, moment, changed, logs, |_, entry| entry.clone())
}

/// What the newest checkpoint says, and how many of the files are invalid.
fn load(disk: &dyn Disk, path: &Path) -> (Checkpoint, usize) {
    let (_, loaded) = CheckpointStore::open(disk, path, STORE).unwrap();
    (loaded.newest.unwrap(), loaded.invalid.len())
}

fn by_log(checkpoint: Checkpoint) -> Logs {
    let count = checkpoint.logs.len();
    let logs: Logs = checkpoint
        .logs
        .into_iter()
        .map(|entry| (entry.log, entry))
        .collect();
    assert_eq!(logs.len(), count, "no log twice");
    logs
}

#[test]
fn stores_go_to_the_two_files_in_turn_and_a_torn_one_leaves_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (mut store, loaded) = CheckpointStore::open(&RealDisk, path, STORE).unwrap();
    assert_eq!(
        loaded,
        Loaded {
            newest: None,
            invalid: Vec::new()
        }
    );
    let mut known = logs(9);
    for count in [9, 8, 2] {
        let gone: HashSet<LogId> = (count..9).map(|n| entry(n).log).collect();
        known.retain(|log, _| !gone.contains(log));
        store_all(&mut store, &RealDisk, &gone, &known).unwrap();
    }
    let (newest, _) = load(&RealDisk, path);
    assert_eq!(
        (newest.sequence, newest.logs.len()),
        (3, 2),
        "a shorter one over a longer one"
    );

    RealDisk
        .open(&Slot::A.path(path), OpenHow::ReadWrite)
        .unwrap()
        .write_at(40, b"torn")
        .unwrap();
    let (newest, invalid) = load(&RealDisk, path);
    assert_eq!((newest.sequence, invalid), (2, 1));
    let (mut store, _) = CheckpointStore::open(&RealDisk, path, STORE).unwrap();
    store_all(&mut store, &RealDisk, &HashSet::new(), &known).unwrap();
    let (newest, invalid) = load(&RealDisk, path);
    assert_eq!((newest.sequence, invalid), (3, 0), "the torn file was next");
}

/// Rounds of random changes; after each one the files on the disk say what is so, both of them, and after a power cut during
/// any operation either the old or the new.
#[test]
fn whatever_changes_both_files_say_it_and_a_cut_leaves_the_old_or_the_new() {
    let path = Path::new("/checkpoint");
    let mut seed = 1u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    let (mut appended, mut begun) = (0, 0);
    for disk_seed in 0..40 {
        let disk = SimDisk::new(disk_seed);
        disk.create_dir_all(path).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let (mut store, _) = CheckpointStore::open(&disk, path, STORE).unwrap();
        let mut known = logs(12 + random(60) as u32);
        store_all(&mut store, &disk, &HashSet::new(), &known).unwrap();
        let mut before = known.clone();
        for round in 2..40 {
            let mut changed = HashSet::new();
            for _ in 0..random(4) {
                let id = entry(random(80) as u32).log;
                changed.insert(id);
                if random(4) == 0 {
                    known.remove(&id);
                } else {
                    let mut new = entry(id.partition.get());
                    new.settled_end = Offset::new(1_000 + round);
                    new.producers = vec![7; random(90) as usize];
                    known.insert(id, new);
                }
            }
            let cut = random(12) == 0;
            if cut {
                disk.cut_power_during(disk.operations() + 1 + random(6));
            }
            let stored = store_all(&mut store, &disk, &changed, &known);
            match store.appends() {
                0 => begun += 1,
                _ => appended += 1,
            }
            if cut {
                disk.cut_power();
                disk.restart(random(u64::MAX));
                let (newest, invalid) = load(&disk, path);
                assert!(invalid <= 1);
                let is_new = newest.sequence == round;
                assert!(is_new || (newest.sequence == round - 1 && stored.is_err()));
                let expected = if is_new { &known } else { &before };
                assert_eq!(&by_log(newest), expected, "disk {disk_seed}, round {round}");
                break;
            }
            assert_eq!(stored.unwrap(), round);
            let (newest, invalid) = load(&disk, path);
            assert_eq!((newest.sequence, invalid), (round, 0));
            assert_eq!(by_log(newest), known, "disk {disk_seed}, round {round}");
            let other = [Slot::A, Slot::B][usize::from(round % 2 == 1)];
            match read_slot(&disk, &other.path(path), STORE).unwrap() {
                SlotState::Valid(older) if older.sequence < round => {
                    assert_eq!(by_log(older), before, "disk {disk_seed}, round {round}");
                }
                SlotState::Valid(newer) => assert_eq!(newer.sequence, round),
                other => panic!("disk {disk_seed}, round {round}: {other:?}"),
            }
            before = known.clone();
        }
    }
    assert!(appended > 300 && begun > 30, "{appended} and {begun}");
}

#[test]
fn a_round_with_10_of_20_000_logs_writes_less_than_64_kib_and_the_row_does_not_grow_for_ever() {
    const COUNT: u32 = 20_000;
    let path = Path::new("/checkpoint");
    let disk = SimDisk::new(1);
    disk.create_dir_all(path).unwrap();
    let (mut store, _) = CheckpointStore::open(&disk, path, STORE).unwrap();
    let small = |n| LogEntry {
        producers: Vec::new(),
        ..entry(n)
    };
    let mut known: Logs = (0..COUNT).map(|n| (entry(n).log, small(n))).collect();
    for _ in 0..2 {
        store_all(&mut store, &disk, &HashSet::new(), &known).unwrap();
    }
    let whole = disk.written_below(path) / 2;
    let mut round = |first: u32, count: u32| {
        let changed = first..first + count;
        let ids: HashSet<LogId> = changed.map(|n| entry(n % COUNT).log).collect();
        for id in &ids {
            let known = known.get_mut(id).unwrap();
            known.settled_end = known.settled_end.plus(1);
        }
        let before = disk.written_below(path);
        store_all(&mut store, &disk, &ids, &known).unwrap();
        disk.written_below(path) - before
    };
    for n in 0..200 {
        let written = round(n * 10, 10);
        assert!(written < 64 << 10, "{written} bytes in round {n}");
    }
    // A tenth of the logs each time: what is written in all is in proportion to it.
    let written: u64 = (0..200).map(|n| round(n * 2_000, 2_000)).sum();
    let changed = 200 * whole / 10;
    assert!(written < 5 * changed, "{written} for {changed}");
    let longest = disk.files().values().map(Vec::len).max().unwrap();
    assert!((longest as u64) < 3 * whole, "{longest} of {whole}");
    assert_eq!(by_log(load(&disk, path).0), known);
}

#[test]
fn without_space_to_append_the_row_is_begun_anew_in_its_place() {
    let path = Path::new("/checkpoint");
    let disk = SimDisk::new(1);
    disk.create_dir_all(path).unwrap();
    let (mut store, _) = CheckpointStore::open(&disk, path, STORE).unwrap();
    let mut known = logs(300);
    for _ in 0..2 {
        store_all(&mut store, &disk, &HashSet::new(), &known).unwrap();
    }
    disk.fill();
    for round in 3..9u64 {
        let gone = entry(round as u32).log;
        known.remove(&gone);
        let changed = HashSet::from([gone]);
        assert_eq!(
            store_all(&mut store, &disk, &changed, &known).unwrap(),
            round
        );
        assert_eq!(by_log(load(&disk, path).0), known);
    }
}

#[test]
fn the_last_entry_of_a_log_counts_and_a_count_that_does_not_match_is_refused() {
    let mut row = Vec::new();
    let mut later = entry(1);
    later.settled_end = Offset::new(99);
    entry(1).encode(&mut row);
    entry(2).encode(&mut row);
    later.encode(&mut row);
    encode_forgotten(entry(2).log, &mut row);
    encode_forgotten(entry(3).log, &mut row);
    let with = |logs| {
        let head = Head {
            store: STORE,
            sequence: 1,
            leader_epoch: LeaderEpoch::new(1),
            wal: WalPosition::BEGINNING,
            logs,
            row_bytes: row.len() as u64,
            row_checksum: crc32fast::hash(&row),
        };
        Checkpoint::decode(&[head.encode(), row.clone()].concat())
    };
    assert_eq!(with(1).unwrap().logs, [later]);
    assert!(with(2).is_err());
}

#[test]
fn another_stores_checkpoint_is_not_taken() {
    let directory = tempfile::tempdir().unwrap();
    write_new_file(
        &RealDisk,
        &Slot::B.path(directory.path()),
        &checkpoint(1).encode(),
    )
    .unwrap();
    let other = Uuid::from_bytes([6; 16]);
    let (_, loaded) = CheckpointStore::open(&RealDisk, directory.path(), other).unwrap();
    assert_eq!((loaded.newest, loaded.invalid.len()), (None, 1));
}

proptest! {
    #[test]
    fn checkpoints_round_trip(logs in 0u32..60) {
        let checkpoint = checkpoint(logs);
        prop_assert_eq!(Checkpoint::decode(&checkpoint.encode()).unwrap(), checkpoint);
    }
}
