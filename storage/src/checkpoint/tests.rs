use super::*;
use crate::io::{RealDisk, write_new_file};
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
    for logs in [9, 8, 2] {
        store.store(&RealDisk, checkpoint(logs)).unwrap();
    }
    let (_, loaded) = CheckpointStore::open(&RealDisk, path, STORE).unwrap();
    let newest = loaded.newest.unwrap();
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
    let (mut store, loaded) = CheckpointStore::open(&RealDisk, path, STORE).unwrap();
    assert_eq!(loaded.newest.unwrap().sequence, 2);
    assert_eq!(loaded.invalid.len(), 1);
    store.store(&RealDisk, checkpoint(1)).unwrap();
    let (_, loaded) = CheckpointStore::open(&RealDisk, path, STORE).unwrap();
    assert_eq!(
        (loaded.newest.unwrap().sequence, loaded.invalid),
        (3, Vec::new()),
        "the torn file was next"
    );
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
