//! The offline verification over a partition made by hand.

use super::*;
use crate::io::SimDisk;
use crate::manifest::SegmentEntry;
use crate::sample_tests;
use crate::segment::WriteWay;
use model::codec::Codec;

/// A partition with one sealed segment of three batches.
fn store() -> (SimDisk, PathBuf) {
    let disk = SimDisk::new(1);
    let log = sample_tests::log();
    let directory = PathBuf::from("/data/p/07").join(log.to_string());
    let batches =
        [0, 2, 4].map(|base| sample_tests::batch(base, Codec::Zstd, &[b"value", b"value"]));
    let (id, sealed) = sample_tests::seal(&disk, &directory, batches, WriteWay::Direct);
    let store = crate::recovery::store_file::encode_store(uuid::Uuid::from_u128(1));
    crate::io::write_new_file(&disk, Path::new("/data/STORE"), &store).unwrap();
    let segments = vec![SegmentEntry::sealed(id, SegmentKind::Plain, sealed)];
    let manifest = Manifest {
        log,
        number: 1,
        start_offset: Offset::ZERO,
        compacted_to: Offset::ZERO,
        segments,
    };
    manifest::store(&disk, &directory, &manifest).unwrap();
    let checkpoint = Checkpoint {
        store: Uuid::from_u128(1),
        sequence: 1,
        leader_epoch: model::LeaderEpoch::new(0),
        wal: crate::checkpoint::WalPosition::BEGINNING,
        logs: Vec::new(),
    };
    disk.create_dir_all(Path::new("/data/checkpoint")).unwrap();
    let slot = Slot::A.path(Path::new("/data/checkpoint"));
    crate::io::write_new_file(&disk, &slot, &checkpoint.encode()).unwrap();
    (disk, id.log_path(&directory))
}

fn verify(disk: &SimDisk) -> (Summary, Vec<Finding>) {
    let mut findings = Vec::new();
    let summary = verify_store(disk, Path::new("/data"), &mut |finding| {
        findings.push(finding)
    })
    .unwrap();
    (summary, findings)
}

#[test]
fn a_sound_store_has_no_findings_and_its_batches_are_listed() {
    let (disk, path) = store();
    let (summary, findings) = verify(&disk);
    assert_eq!(findings, []);
    assert_eq!(
        (
            summary.logs,
            summary.segments,
            summary.batches,
            summary.records
        ),
        (1, 1, 3, 6)
    );
    let mut lines = Vec::new();
    dump_segment(&disk, &path, &mut |line| lines.push(line)).unwrap();
    let offsets: Vec<(u64, u64)> = lines
        .iter()
        .map(|line| (line.base_offset, line.last_offset))
        .collect();
    assert_eq!(offsets, [(0, 1), (2, 3), (4, 5)]);
    assert!(
        lines
            .iter()
            .all(|line| line.fault.is_none() && line.codec == "zstd")
    );
}

#[test]
fn a_flipped_bit_is_named_with_its_segment_position_and_offsets() {
    let (disk, path) = store();
    let bytes = disk.files()[&path].len() as u64;
    disk.flip(&path, bytes / 3 + 70, 1);
    let (summary, findings) = verify(&disk);
    assert_eq!(summary.damaged, 1);
    let finding = &findings[0];
    assert_eq!(
        (finding.position, finding.from_offset, finding.to_offset),
        (Some(bytes / 3), Some(2), Some(4))
    );
    assert!(finding.reason.contains("crc"), "{}", finding.reason);
}

#[test]
fn lost_files_are_told_and_only_lost_records_are_damage() {
    let (disk, path) = store();
    disk.remove_file(&path.with_extension("idx")).unwrap();
    let (summary, _) = verify(&disk);
    assert_eq!((summary.damaged, summary.notes), (0, 1));
    disk.remove_file(&path).unwrap();
    let (summary, _) = verify(&disk);
    assert_eq!(summary.damaged, 1);
}

#[test]
fn the_padding_of_an_active_segment_ends_its_listing() {
    let (disk, path) = store();
    disk.remove_file(&path.with_extension("idx")).unwrap();
    let bytes = disk.files()[&path].len() as u64;
    let file = disk.open(&path, OpenHow::ReadWrite).unwrap();
    for fill in [0, PADDING] {
        let fill = vec![fill; 4096 - bytes as usize];
        file.write_at(bytes, &fill).unwrap();
        let mut count = 0;
        assert_eq!(
            dump_segment(&disk, &path, &mut |_| count += 1).unwrap(),
            bytes
        );
        assert_eq!(count, 3);
    }
}
