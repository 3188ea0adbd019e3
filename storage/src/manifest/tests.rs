use super::*;
use crate::io::RealDisk;
use crate::io::write_new_file;
use model::{PartitionId, TopicId};
use proptest::prelude::*;

fn log() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(3))
}

fn sealed(end: u64) -> Sealed {
    Sealed {
        end_offset: Offset::new(end),
        bytes: 4_711,
        max_timestamp: Timestamp::from_millis(-5),
        first_append_time: Timestamp::from_millis(1),
        last_append_time: Timestamp::from_millis(2),
        records: 10,
    }
}

fn manifest(number: u64, segments: u64) -> Manifest {
    let id = |n: u64| SegmentId {
        base: Offset::new(n * 10),
        generation: n as u32,
    };
    let mut entries: Vec<SegmentEntry> = (0..segments)
        .map(|n| SegmentEntry::sealed(id(n), SegmentKind::Plain, sealed(n * 10 + 10)))
        .collect();
    entries.push(SegmentEntry::active(id(segments)));
    Manifest {
        log: log(),
        number,
        start_offset: Offset::new(4),
        compacted_to: Offset::new(7),
        segments: entries,
    }
}

#[test]
fn a_manifest_cut_or_flipped_anywhere_is_refused() {
    let whole = manifest(9, 2).encode();
    assert_eq!(Manifest::decode(&whole).unwrap(), manifest(9, 2));
    for len in 0..whole.len() {
        assert!(Manifest::decode(&whole[..len]).is_err(), "cut to {len}");
    }
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Manifest::decode(&flipped).is_err(), "bit {bit}");
    }
    let longer = [&whole[..], b"x"].concat();
    assert_eq!(
        Manifest::decode(&longer),
        Err(FormatError::Trailing { bytes: 1 })
    );
}

#[test]
fn the_newest_valid_one_counts_and_the_one_before_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    for number in 1..=4 {
        store(&RealDisk, directory.path(), &manifest(number, number)).unwrap();
    }
    let names: Vec<String> = RealDisk
        .list(directory.path())
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert_eq!(names, [file_name(3), file_name(4)]);

    let loaded = load(&RealDisk, directory.path(), log()).unwrap();
    assert_eq!(loaded.manifest, Some(manifest(4, 4)));
    assert_eq!(loaded.previous, Some(manifest(3, 3)));

    let newest = RealDisk
        .open(
            &directory.path().join(file_name(4)),
            crate::io::OpenHow::ReadWrite,
        )
        .unwrap();
    newest.set_len(30).unwrap();
    let loaded = load(&RealDisk, directory.path(), log()).unwrap();
    assert_eq!(loaded.manifest, Some(manifest(3, 3)));
    assert_eq!(loaded.number_max, 4);
    assert_eq!(loaded.rejected.len(), 1);
    assert!(
        loaded.rejected[0].reason.contains("cut short"),
        "{:?}",
        loaded.rejected
    );
}

#[test]
fn a_manifest_under_a_foreign_name_or_of_a_foreign_log_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    write_new_file(
        &RealDisk,
        &directory.path().join(file_name(8)),
        &manifest(7, 1).encode(),
    )
    .unwrap();
    write_new_file(&RealDisk, &directory.path().join("manifest.x"), b"").unwrap();
    let loaded = load(&RealDisk, directory.path(), log()).unwrap();
    assert_eq!((loaded.manifest, loaded.rejected.len()), (None, 2));
    let other = LogId::new(TopicId::from_bytes([8; 16]), PartitionId::new(3));
    store(&RealDisk, directory.path(), &manifest(9, 1)).unwrap();
    assert_eq!(
        load(&RealDisk, directory.path(), other).unwrap().manifest,
        None
    );
}

proptest! {
    #[test]
    fn manifests_round_trip(number in any::<u64>(), segments in 0u64..40) {
        let manifest = manifest(number, segments);
        prop_assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
    }
}
