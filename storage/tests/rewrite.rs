//! Rewrites through the store's door: what is left reads as a plain filter of the records says, from every offset, over restarts,
//! lost indexes and lost manifests; what cannot be done leaves all as it was.

#![allow(clippy::unwrap_used)]

mod rewriting;

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use alluvium_storage as storage;
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, BatchHeader, Codec};
use model::topic_config::TopicConfig;
use model::{Offset, Timestamp};
use proptest::prelude::*;
use storage::inspect::verify_store;
use storage::io::{OpenHow, write_new_file};
use storage::manifest::SegmentKind;
use storage::rewrite::{
    Cancelled, KeepError, Keeper, PIECE_BYTES_MAX, Pace, RewriteError, Verdict,
};
use storage::segment::SegmentId;
use storage::{Disk, Env, LogSettings, ManualClock, ReadError, RealDisk, Storage};

use rewriting::{AtOnce, Filter, House, log_id};

/// Whether an offset is kept, by a seed.
fn is_kept(seed: u64, offset: u64) -> bool {
    let mixed = (offset + 1)
        .wrapping_mul(seed | 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 60) < 7
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<i64>),
    Settle,
    /// Segments from one on, so many, and what is kept of them.
    Rewrite {
        from: usize,
        count: usize,
        seed: u64,
    },
    /// All records of one segment go.
    Empty(usize),
    Restart,
    Kill,
    LoseIndexes,
    Scrub,
    DeleteRecords(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(0i64..5_000, 1..6).prop_map(Step::Append),
        4 => Just(Step::Settle),
        6 => (0usize..8, 1usize..4, any::<u64>())
            .prop_map(|(from, count, seed)| Step::Rewrite { from, count, seed }),
        1 => (0usize..8).prop_map(Step::Empty),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        1 => Just(Step::LoseIndexes),
        1 => Just(Step::Scrub),
        1 => (0u64..12).prop_map(Step::DeleteRecords),
    ]
}

/// Rewrites, unless the start has passed the segments and the settler's round comes to that first.
fn rewrite(house: &mut House, segments: &[SegmentId], keep: impl Fn(u64) -> bool) {
    match house.rewrite(segments, keep) {
        Ok(_) | Err(RewriteError::NoLongerLive { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_rewritten_log_reads_as_a_plain_filter_says_from_every_offset(
        steps in prop::collection::vec(step(), 10..60)
    ) {
        let mut house = House::new(1);
        for time in 0..30 {
            house.append(&[time, time + 1, time - 1]);
        }
        house.settle();
        for step in steps {
            match step {
                Step::Append(times) => house.append(&times),
                Step::Settle => house.settle(),
                Step::Rewrite { from, count, seed } => {
                    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
                    if ids.is_empty() {
                        continue;
                    }
                    let from = from % ids.len();
                    let ids = &ids[from..ids.len().min(from + count)];
                    rewrite(&mut house, ids, |offset| is_kept(seed, offset));
                }
                Step::Empty(at) => {
                    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
                    if let Some(id) = ids.get(at) {
                        rewrite(&mut house, &[*id], |_| false);
                    }
                }
                Step::Restart => house.restart(),
                Step::Kill => house.kill(),
                Step::LoseIndexes => house.lose_indexes(),
                Step::Scrub => house.scrub(),
                Step::DeleteRecords(more) => house.delete_records(more),
            }
        }
        house.check();
        house.restart();
        house.check();
        house.check_directory();
        house.check_offline();
    }
}

#[test]
fn neighbours_become_one_sparse_segment_with_a_later_generation() {
    let mut house = House::with_segments(6);
    let before = house.sealed();
    let ids: Vec<SegmentId> = before[1..4].iter().map(|entry| entry.id).collect();
    let rewritten = house.rewrite(&ids, |offset| offset % 3 != 0).unwrap();
    let new = rewritten.new.unwrap();
    assert_eq!((new.id.base, new.id.generation), (ids[0].base, 1));
    assert_eq!(new.kind, SegmentKind::Sparse);
    let (old_end, sealed) = (before[3].sealed.unwrap().end_offset, new.sealed.unwrap());
    assert_eq!(sealed.end_offset, old_end);
    let kept = (ids[0].base.get()..old_end.get()).filter(|offset| offset % 3 != 0);
    assert_eq!(sealed.records, kept.count() as u64);
    assert_eq!(
        (rewritten.after.records, rewritten.after.bytes),
        (sealed.records, sealed.bytes)
    );
    assert_eq!(house.sealed().len(), before.len() - 2);
    house.check();
    let again = house.rewrite(&[new.id], |offset| offset % 2 == 0).unwrap();
    assert_eq!(again.new.unwrap().id.generation, 2);
    house.check();
    house.check_directory();
}

#[test]
fn a_segment_of_which_all_is_kept_stays_as_it_is() {
    let mut house = House::with_segments(3);
    let before = (house.sealed(), house.disk.files());
    let ids = [before.0[1].id];
    let segments = Path::new("/data/p");
    let written = house.disk.written_below(segments);
    let rewritten = house.rewrite(&ids, |_| true).unwrap();
    // It is not even begun to write.
    assert_eq!(house.disk.written_below(segments), written);
    assert_eq!(rewritten.new, None);
    assert_eq!(rewritten.before, rewritten.after);
    assert_eq!(house.sealed(), before.0);
    house.check_directory();
    house.check();
}

#[test]
fn how_far_compaction_has_come_is_kept_over_restarts() {
    let mut house = House::with_segments(3);
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    let end = house.sealed()[1].sealed.unwrap().end_offset;
    let mut keeper = Filter::new(|offset| offset % 2 == 0);
    let storage = house.storage();
    storage
        .rewrite(log_id(), &ids[..1], Some(ids[1].base), &AtOnce, &mut keeper)
        .unwrap();
    assert_eq!(house.manifest().compacted_to, ids[1].base);
    house.storage().mark_compacted(log_id(), end).unwrap();
    house
        .storage()
        .mark_compacted(log_id(), ids[1].base)
        .unwrap();
    house.kill();
    house.append(&[1; 50]);
    house.settle();
    assert_eq!(house.manifest().compacted_to, end, "it never goes back");
}

#[test]
fn a_reader_that_holds_slices_of_a_replaced_segment_keeps_its_bytes() {
    let mut house = House::with_segments(5);
    let log = house.log();
    let held = log.read(Offset::ZERO, 1 << 20, true).unwrap();
    let copy: Vec<Vec<u8>> = held.slices.iter().map(|slice| slice.to_vec()).collect();
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    house.rewrite(&ids, |offset| offset % 7 == 0).unwrap();
    let paths: Vec<PathBuf> = ids.iter().map(|id| house.path(*id)).collect();
    let files = house.disk.files();
    assert!(
        paths.iter().all(|path| !files.contains_key(path)),
        "unlinked"
    );
    assert!(
        held.slices
            .iter()
            .zip(&copy)
            .all(|(slice, copy)| slice == copy)
    );
    house.check();
}

#[test]
fn damage_is_named_and_changes_nothing() {
    let mut house = House::with_segments(4);
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    let bytes = house.sealed()[1].sealed.unwrap().bytes;
    let path = house.path(ids[1]);
    // A record's byte, a base offset, a leader epoch.
    for position in [bytes - 3, 6, 13] {
        house.disk.flip(&path, position, 2);
        let before = house.names();
        let error = house.try_rewrite(&ids[..3], |_| false).unwrap_err();
        let RewriteError::Damaged { segment, .. } = error else {
            panic!("position {position}: {error}");
        };
        assert_eq!(segment, ids[1]);
        assert_eq!(house.names(), before, "no file is left, and none is gone");
        house.disk.flip(&path, position, 2);
    }
    house.disk.set_unreadable(&path, 0..100);
    let error = house.try_rewrite(&ids[..3], |_| false).unwrap_err();
    assert!(
        matches!(&error, RewriteError::Io { segment, .. } if *segment == ids[1]),
        "{error}"
    );
    house.disk.set_unreadable(&path, 0..0);
    house.check();
    house.rewrite(&ids[..3], |_| false).unwrap();
    house.check();
}

#[test]
fn damage_in_a_sparse_segment_is_found_and_put_on_record() {
    let mut house = House::with_segments(2);
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    let rewritten = house.rewrite(&ids[..1], |offset| offset % 4 == 0).unwrap();
    let new = rewritten.new.unwrap();
    let path = house.path(new.id);
    // Each bit of the first batch's base offset that still makes sense, and one of its body.
    for position in [6, 7, 70] {
        house.kill();
        house.disk.flip(&path, position, 1);
        let read = house.log().read(Offset::ZERO, 1 << 20, true);
        assert!(
            matches!(read, Err(ReadError::Damaged { .. })),
            "position {position}: {read:?}"
        );
        assert!(!house.offline().is_empty(), "position {position}");
        house.disk.flip(&path, position, 1);
        house.forget_damage();
    }
    house.check();
}

#[test]
fn a_full_disk_backs_out_and_leaves_no_file() {
    let mut house = House::with_segments(6);
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    let before = house.names();
    house.disk.fill();
    let error = house.try_rewrite(&ids[1..3], |offset| offset % 2 == 0);
    assert!(
        matches!(&error, Err(RewriteError::NoSpace { .. })),
        "{error:?}"
    );
    assert_eq!(house.names(), before);
    house.check();
    // A little more each time, until there is enough: at the reservation, the index, the manifest, the checkpoint.
    let used = house.disk.used_bytes();
    let mut refused = 0;
    for more in 0..64 {
        house.disk.set_capacity(used + more * 4096);
        let result = house.try_rewrite(&ids[1..3], |offset| offset % 2 == 0);
        house.check();
        match result {
            Ok(_) => break,
            Err(RewriteError::NoSpace { .. }) => refused += 1,
            Err(other) => panic!("{more} blocks: {other}"),
        }
    }
    assert!(refused > 1, "the disk was full for a while");
    house.disk.set_capacity(u64::MAX);
    assert_eq!(house.sealed()[1].kind, SegmentKind::Sparse);
    house.settle();
    house.restart();
    house.check();
    house.check_directory();
}

struct CancelAfter(AtomicU32);

impl Pace for CancelAfter {
    fn spend(&self, _: u64) -> Result<(), Cancelled> {
        let less = |left: u32| left.checked_sub(1);
        let before = self.0.fetch_update(Relaxed, Relaxed, less);
        before.map(drop).map_err(|_| Cancelled)
    }
}

#[test]
fn either_checkpoint_finds_the_new_segment() {
    let mut house = House::with_segments(4);
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    house.rewrite(&ids[..2], |offset| offset % 2 == 0).unwrap();
    for slot in ["/data/checkpoint/A", "/data/checkpoint/B"] {
        house.kill();
        let path = PathBuf::from(slot);
        let whole = house.disk.files()[&path].clone();
        house.close();
        house.disk.flip(&path, 30, 1);
        house.open();
        house.check();
        house.close();
        house.disk.remove_file(&path).unwrap();
        write_new_file(&house.disk, &path, &whole).unwrap();
        house.open();
        house.check();
    }
}

/// The files that hold a record's value.
fn files_with(house: &House, value: &[u8]) -> Vec<PathBuf> {
    let holds = |contents: &Vec<u8>| contents.windows(value.len()).any(|window| window == value);
    let files = house.disk.files();
    let found = files.into_iter().filter(|(_, contents)| holds(contents));
    found.map(|(path, _)| path).collect()
}

#[test]
fn a_purge_behind_a_rewrite_leaves_no_byte_of_what_was_dropped() {
    let mut house = House::with_segments(4);
    // The pool's files are used again and again.
    for time in 0..40 {
        house.append(&[time; 60]);
        house.settle();
    }
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    let dropped: Vec<_> = (house.records.iter())
        .filter(|(offset, _)| *offset % 4 == 1)
        .map(|(offset, (_, value))| (*offset, value.clone()))
        .collect();
    let sealed_end = house.sealed().last().unwrap().sealed.unwrap().end_offset;
    for pair in ids.chunks(2) {
        house.rewrite(pair, |offset| offset % 4 != 1).unwrap();
    }
    house.append(&[1, 2, 3]);
    let first = &dropped.first().unwrap().1;
    assert!(
        !files_with(&house, first).is_empty(),
        "the log's files hold it still"
    );
    for _ in 0..2 {
        house.storage().purge_wal().unwrap();
        for (offset, value) in dropped.iter().step_by(dropped.len() / 8) {
            if *offset < sealed_end.get() {
                assert_eq!(files_with(&house, value), Vec::<PathBuf>::new(), "{offset}");
            }
        }
        house.check();
        house.append(&[4, 5]);
        house.kill();
        house.check();
    }
    house.disk.fill();
    house.append(&[6]);
    house.check();
}

#[test]
fn a_purge_beside_appends_ends_and_loses_nothing() {
    let mut house = House::on_threads();
    for _ in 0..60 {
        house.append(&[1, 2, 3]);
    }
    let purging = {
        let storage = house.storage().clone();
        std::thread::spawn(move || (0..5).for_each(|_| storage.purge_wal().unwrap()))
    };
    while !purging.is_finished() {
        house.append(&[7, 8]);
    }
    purging.join().unwrap();
    house.check();
    house.disk.cut_power();
    house.close();
    house.disk.restart(5);
    house.open();
    house.check();
}

#[test]
fn a_cancelled_rewrite_leaves_no_file() {
    let house = House::with_segments(4);
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    let before = house.names();
    for count in 0..4 {
        let mut keeper = Filter::new(|offset| offset % 2 == 0);
        let pace = CancelAfter(AtomicU32::new(count));
        let result = house
            .storage()
            .rewrite(log_id(), &ids, None, &pace, &mut keeper);
        assert!(
            matches!(result, Err(RewriteError::Cancelled(_))),
            "{result:?}"
        );
        assert_eq!(house.names(), before);
    }
    house.check();
}

#[test]
fn what_is_no_sealed_segment_of_the_log_is_not_rewritten() {
    let mut house = House::with_segments(5);
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    let never = SegmentId::first(Offset::new(1_000_000));
    for (segments, wrong) in [
        (vec![never], never),
        (vec![ids[0], ids[2]], ids[2]),
        (vec![ids[1], ids[0]], ids[0]),
        (vec![ids[4], never], never),
    ] {
        let error = house.try_rewrite(&segments, |_| false).unwrap_err();
        assert!(
            matches!(error, RewriteError::NoLongerLive { segment } if segment == wrong),
            "{error}"
        );
    }
    house.rewrite(&ids[..1], |_| false).unwrap();
    let error = house.try_rewrite(&ids[..1], |_| false).unwrap_err();
    assert!(
        matches!(error, RewriteError::NoLongerLive { .. }),
        "{error}"
    );
    house.check();
    house.storage().delete_log(log_id());
    let error = house.try_rewrite(&ids[1..2], |_| false).unwrap_err();
    assert!(matches!(error, RewriteError::Deleted { .. }), "{error}");
}

#[test]
fn superseded_and_unfinished_files_go_at_the_next_start_and_never_to_quarantine() {
    let mut house = House::with_segments(6);
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    let old = house.files_of(&ids[1..4]);
    house.rewrite(&ids[1..4], |offset| offset % 5 == 0).unwrap();
    let expected = house.names();
    house.kill();
    // A removal that did not become durable, and a rewrite that was cut short.
    for (path, contents) in old {
        write_new_file(&house.disk, &path, &contents).unwrap();
    }
    let unfinished = SegmentId {
        generation: 1,
        ..ids[5]
    };
    write_new_file(&house.disk, &house.path(unfinished), b"not yet a batch").unwrap();
    house.kill();
    house.append(&[5]);
    house.settle();
    assert_eq!(house.names(), expected);
    assert!(house.quarantined().is_empty(), "{:?}", house.quarantined());
    house.check();
}

#[test]
fn where_the_manifests_are_lost_the_higher_complete_generation_counts() {
    let mut house = House::with_segments(7);
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    let mut old = house.files_of(&ids[..5]);
    let merged = house.rewrite(&ids[1..4], |offset| offset % 5 == 0).unwrap();
    let alone = house.rewrite(&ids[..1], |offset| offset % 2 == 0).unwrap();
    old.extend(house.files_of(&[alone.new.unwrap().id]));
    let again = house
        .rewrite(&[alone.new.unwrap().id], |offset| offset % 3 == 0)
        .unwrap();
    // One whose index was not written is not complete: it does not count, however high its generation.
    let unfinished = SegmentId {
        generation: 9,
        ..ids[4]
    };
    old.push((
        house.path(unfinished),
        house.disk.files()[&house.path(ids[4])].clone(),
    ));
    let live = house.sealed();
    assert!(live.contains(&merged.new.unwrap()) && live.contains(&again.new.unwrap()));
    house.close();
    for (path, contents) in old {
        if !house.disk.exists(&path).unwrap() {
            write_new_file(&house.disk, &path, &contents).unwrap();
        }
    }
    house.lose_manifests();
    house.open();
    assert_eq!(house.sealed(), live);
    house.check();
    house.append(&[5]);
    house.settle();
    house.restart();
    house.check();
    house.check_directory();
}

#[test]
fn rewritten_segments_are_read_and_rewritten_without_their_indexes() {
    let mut house = House::with_segments(5);
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    house.rewrite(&ids[1..3], |offset| offset % 3 == 0).unwrap();
    house.lose_indexes();
    house.check();
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    house.rewrite(&ids[..3], |offset| offset % 2 == 0).unwrap();
    house.check();
    house.lose_indexes();
    let count = house.sealed().len();
    house.scrub();
    assert_eq!(house.storage().metrics().rewritten_indexes, count as u64);
    house.check();
    house.check_offline();
}

#[test]
fn a_producer_whose_records_went_is_still_known_after_a_restart() {
    let mut house = House::with_segments(2);
    let first = house.append_as_producer(7, 0);
    for _ in 0..40 {
        house.append(&[1, 2, 3]);
    }
    house.settle();
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    house.rewrite(&ids, |_| false).unwrap();
    house.check();
    for _ in 0..2 {
        house.kill();
        assert_eq!(house.append_as_producer(7, 0), first, "a duplicate");
    }
}

#[test]
fn a_segment_without_a_record_left_is_passed_by_readers() {
    let mut house = House::with_segments(5);
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    let rewritten = house.rewrite(&ids[1..3], |_| false).unwrap();
    assert_eq!(rewritten.after.batches, 1);
    assert_eq!(rewritten.after.records, 0);
    house.check();
    // All that has settled is empty: reading goes on into the tail.
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    house.rewrite(&ids, |_| false).unwrap();
    house.append(&[77]);
    house.check();
    let found = house
        .log()
        .offset_for_time(Timestamp::from_millis(0))
        .unwrap();
    let live: BTreeSet<u64> = house.live_offsets();
    assert_eq!(found.unwrap().offset.get(), *live.first().unwrap());
}

#[test]
fn a_rewrite_on_the_stores_own_threads_is_durable_when_it_returns() {
    let mut house = House::on_threads();
    for _ in 0..60 {
        house.append(&[1, 2, 3]);
    }
    house.wait_for_sealed(4);
    let ids: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    let reader = {
        let (log, end) = (house.log(), house.log().bounds().durable_end);
        std::thread::spawn(move || {
            for _ in 0..200 {
                let mut next = Offset::ZERO;
                while next < end {
                    let chunk = log.read(next, 4096, true).unwrap();
                    assert!(chunk.end_offset > next, "a reader never stands still");
                    next = chunk.end_offset;
                }
            }
        })
    };
    for pair in ids.chunks_exact(2) {
        house.rewrite(pair, |offset| offset % 3 == 0).unwrap();
    }
    reader.join().unwrap();
    house.check();
    house.disk.cut_power();
    house.close();
    house.disk.restart(3);
    house.open();
    house.check();
    let file = house.path(house.sealed()[0].id);
    assert!(house.disk.open(&file, OpenHow::Read).is_ok());
}

/// Drops one batch of three, and keeps the others as they are.
struct DropThird;

impl Keeper for DropThird {
    fn judge(&mut self, header: &BatchHeader, _: &Bytes) -> Result<Verdict, KeepError> {
        Ok(match header.base().get() % 3 {
            1 => Verdict::Drop,
            _ => Verdict::Keep,
        })
    }
}

/// Reads and writes another size at a time each time that it is asked.
struct Uneven(AtomicU32);

impl Pace for Uneven {
    fn piece_bytes(&self) -> usize {
        let count = self.0.fetch_add(1, Relaxed);
        [64 << 10, 4096, PIECE_BYTES_MAX, 16 << 10, 256 << 10][count as usize % 5]
    }

    fn spend(&self, _: u64) -> Result<(), Cancelled> {
        Ok(())
    }
}

#[test]
fn a_large_segment_goes_past_the_page_cache_and_is_cut_to_its_length() {
    drop_a_third_of_a_large_segment(&AtOnce);
}

#[test]
fn a_rewrite_whose_pieces_change_their_size_meanwhile_is_whole() {
    let pace = Uneven(AtomicU32::new(0));
    drop_a_third_of_a_large_segment(&pace);
    let asked = pace.0.into_inner();
    assert!(asked > 10, "it was asked {asked} times");
}

fn drop_a_third_of_a_large_segment(pace: &dyn Pace) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = storage::StorageConfig::new(directory.path());
    config.wal_file_bytes = 32 << 20;
    config.wal_files_min = 2;
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000));
    let env = Env::manual(Arc::new(RealDisk), Arc::new(clock));
    let (storage, _) = Storage::open(config, env).unwrap();
    storage.finish_open(&HashSet::from([log_id()])).unwrap();
    let settings = LogSettings {
        segment_bytes: 7 << 20,
        ..LogSettings::from(&TopicConfig::default())
    };
    let log = storage.create_log(log_id(), settings);
    let value = |n: u64| vec![n as u8; 70_000 + n as usize];
    for n in 0..120u64 {
        let mut builder = BatchBuilder::new(Codec::None);
        let time = Timestamp::from_millis(n as i64);
        builder.push(time, None, Some(&value(n)), &[]).unwrap();
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        let admission = loop {
            match storage.try_admit(batch.bytes().len()) {
                Some(admission) => break admission,
                None => assert!(storage.prepare_once().unwrap()),
            }
        };
        let appended = log.append(vec![batch.into()], admission).unwrap();
        assert!(storage.commit_once());
        appended.durable.wait().unwrap();
    }
    while storage.settle_once() {}
    let sealed = storage.sealed_segments(log_id());
    let ids: Vec<SegmentId> = sealed.iter().map(|entry| entry.id).collect();
    let end = sealed[0].sealed.unwrap().end_offset.get();
    let rewritten = storage
        .rewrite(log_id(), &ids[..1], None, pace, &mut DropThird)
        .unwrap();
    let new = rewritten.new.unwrap();
    let bytes = new.sealed.unwrap().bytes;
    assert!(bytes > 4 << 20 && !bytes.is_multiple_of(4096), "{bytes}");
    let mut next = 0;
    // Of the segment's last batch the place is kept in any case.
    let is_kept = |n: &u64| *n + 1 >= end || n % 3 != 1;
    for expected in (0..120).filter(is_kept) {
        let chunk = log.read(Offset::new(next), 1, true).unwrap();
        let batch = Batch::parse(chunk.to_bytes()).unwrap();
        let mut records = batch.records(Default::default()).unwrap();
        let found = records.next().map(|record| record.unwrap().value.unwrap());
        let is_empty = expected + 1 == end && expected % 3 == 1;
        let expected = (!is_empty).then(|| Bytes::from(value(expected)));
        assert!(found == expected, "at offset {next}");
        next = chunk.end_offset.get();
    }
    let mut findings = Vec::new();
    verify_store(&RealDisk, directory.path(), &mut |finding| {
        findings.push(finding);
    })
    .unwrap();
    assert_eq!(findings, []);
}

#[test]
fn a_scan_leaves_of_a_segment_in_memory_what_was_there_before_it() {
    let house = House::with_segments(2);
    let sealed: Vec<SegmentId> = house.sealed().iter().map(|entry| entry.id).collect();
    let files: Vec<Arc<dyn storage::io::DiskFile>> = sealed
        .iter()
        .map(|id| house.disk.open(&house.path(*id), OpenHow::Read).unwrap())
        .collect();
    let in_memory = |file: &dyn storage::io::DiskFile| {
        let len = usize::try_from(file.len().unwrap()).unwrap();
        file.read_at_now(0, &mut vec![0; len]).unwrap_or(0)
    };
    let sector = storage::io::sim::SECTOR_BYTES;
    let len = usize::try_from(files[0].len().unwrap()).unwrap();
    assert!(len > 2 * sector);
    for found in [len, sector, 2 * sector, 0] {
        for file in &files {
            file.read_exact_at(0, &mut vec![0; len]).unwrap();
            file.drop_cache_of(found as u64..u64::MAX).unwrap();
            assert_eq!(in_memory(&**file), found);
        }
        let mut seen = 0;
        let scanned = house
            .storage()
            .scan(log_id(), &sealed, &AtOnce, &mut |_, _| {
                seen += 1;
                Ok(())
            });
        scanned.unwrap();
        assert!(seen > 0);
        for file in &files {
            assert_eq!(in_memory(&**file), found);
        }
    }
}
