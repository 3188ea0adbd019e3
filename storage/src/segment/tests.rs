use super::*;
use crate::epochs::Epochs;
use crate::io::{AlignedBuffer, Disk, DiskFile, OpenHow, RealDisk, read_file};
use crate::manifest::SegmentKind;
use crate::producers::Producers;
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder};
use model::codec::Codec;
use model::{LeaderEpoch, LogId, PartitionId, Timestamp, TopicId};
use proptest::prelude::*;
use std::sync::{Arc, mpsc};
use std::time::Duration;

fn log() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(3))
}

/// A batch at `base` whose records have these times and values of `value_bytes`.
fn batch(base: u64, times: &[i64], value_bytes: usize) -> SettledBatch {
    let mut builder = BatchBuilder::new(Codec::None);
    builder
        .base_offset(Offset::new(base))
        .leader_epoch(LeaderEpoch::new(2));
    for time in times {
        let value = vec![*time as u8; value_bytes];
        builder
            .push(Timestamp::from_millis(*time), None, Some(&value), &[])
            .unwrap();
    }
    let batch = Batch::parse(builder.build().unwrap()).unwrap();
    let append_time = Timestamp::from_millis(1_000_000 + base as i64);
    SettledBatch {
        header: *batch.header(),
        bytes: batch.into_bytes(),
        append_time,
    }
}

/// A segment that starts at offset 100, written in the given pieces.
struct Fixture {
    directory: tempfile::TempDir,
    writer: SegmentWriter,
    batches: Vec<SettledBatch>,
    scratch: AlignedBuffer,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let id = SegmentId::first(Offset::new(100));
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let writer = SegmentWriter::create(disk, directory.path().to_owned(), log(), id).unwrap();
        Fixture {
            directory,
            writer,
            batches: Vec::new(),
            scratch: AlignedBuffer::default(),
        }
    }

    /// Lays down one batch for each list of times.
    fn append(&mut self, way: WriteWay, value_bytes: usize, times: &[&[i64]]) {
        let mut next = self.writer.end_offset().get();
        let mut piece = Vec::new();
        for times in times {
            piece.push(batch(next, times, value_bytes));
            next += times.len() as u64;
        }
        self.writer.append(&piece, way, &mut self.scratch).unwrap();
        self.batches.extend(piece);
    }

    fn bytes(&self) -> Vec<u8> {
        self.batches
            .iter()
            .flat_map(|batch| batch.bytes.to_vec())
            .collect()
    }

    fn file(&self) -> Arc<dyn DiskFile> {
        RealDisk
            .open(
                &self.writer.id().log_path(self.directory.path()),
                OpenHow::Read,
            )
            .unwrap()
    }

    fn with_reader<T>(&self, look: impl FnOnce(SegmentReader<'_>) -> T) -> T {
        let file = self.file();
        look(SegmentReader {
            id: self.writer.id(),
            file: &*file,
            index: self.writer.index(),
            bytes: self.writer.bytes(),
            end_offset: self.writer.end_offset(),
        })
    }

    fn seal(self) -> (tempfile::TempDir, SealedSegment, Vec<SettledBatch>) {
        let sealed = self
            .writer
            .seal(&Producers::default(), &Epochs::default())
            .unwrap();
        (self.directory, sealed, self.batches)
    }
}

#[test]
fn names_parse_back_and_others_are_nobodys() {
    let id = SegmentId {
        base: Offset::new(4_711),
        generation: 12,
    };
    assert_eq!(id.log_name(), "00000000000000004711.12.log");
    assert_eq!(
        SegmentId::parse(&id.log_name()),
        Some((id, SegmentFileKind::Log))
    );
    assert_eq!(
        SegmentId::parse(&id.index_name()),
        Some((id, SegmentFileKind::Index))
    );
    let foreign = [
        "4711.0.log",
        "00000000000000004711.log",
        "00000000000000004711.0.txt",
        "",
        "...",
        "00000000000000004711.0.log.bak",
        "99999999999999999999.0.log",
        "0000000000000000471+.0.log",
    ];
    for name in foreign {
        assert_eq!(SegmentId::parse(name), None, "{name}");
    }
}

#[test]
fn the_log_file_is_the_batches_and_nothing_else_whatever_way_they_were_written() {
    let mut fixture = Fixture::new();
    for round in 0..12 {
        let way = match round % 5 {
            0 | 3 => WriteWay::Direct,
            1 => WriteWay::Buffered,
            _ => WriteWay::Through,
        };
        let times: &[i64] = &[round, round + 1];
        fixture.append(way, 700, &[times, times, times]);
        if round == 5 {
            fixture.writer.close();
        }
        let len = fixture.writer.bytes() as usize;
        let path = fixture.writer.id().log_path(fixture.directory.path());
        assert_eq!(
            read_file(&RealDisk, &path, 1 << 30).unwrap()[..len],
            fixture.bytes(),
            "round {round}"
        );
    }
    let expected = fixture.bytes();
    let (directory, sealed, _) = fixture.seal();
    let path = sealed.id.log_path(directory.path());
    assert_eq!(
        read_file(&RealDisk, &path, 1 << 30).unwrap(),
        expected,
        "cut to its exact length"
    );
    assert_eq!(sealed.sealed.bytes, expected.len() as u64);
}

#[test]
fn writes_of_several_chunks_keep_every_byte() {
    for way in [WriteWay::Direct, WriteWay::Through] {
        let mut fixture = Fixture::new();
        let times: Vec<Vec<i64>> = (0..50).map(|n| vec![n; 10]).collect();
        let times: Vec<&[i64]> = times.iter().map(|times| &times[..]).collect();
        fixture.append(way, 11_000, &times);
        fixture.append(way, 1, &times);
        let expected = fixture.bytes();
        assert!(expected.len() > 2 * (2 << 20));
        let path = fixture.writer.id().log_path(fixture.directory.path());
        assert_eq!(
            read_file(&RealDisk, &path, 1 << 30).unwrap()[..expected.len()],
            expected,
            "{way:?}"
        );
    }
}

#[test]
fn a_resumed_writer_overwrites_what_was_not_settled() {
    let mut fixture = Fixture::new();
    fixture.append(WriteWay::Direct, 900, &[&[1, 2], &[3]]);
    let active = fixture.writer.active();
    let end_offset = fixture.writer.end_offset();
    let settled = fixture.batches.len();
    fixture.append(WriteWay::Direct, 3_000, &[&[4, 5, 6], &[7]]);
    fixture.batches.truncate(settled);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    fixture.writer = SegmentWriter::resume(
        disk,
        fixture.directory.path().to_owned(),
        log(),
        &active,
        end_offset,
    )
    .unwrap();
    fixture.append(WriteWay::Buffered, 20, &[&[8]]);
    fixture.append(WriteWay::Direct, 20, &[&[9]]);
    let expected = fixture.bytes();
    let found = fixture.with_reader(|reader| {
        reader
            .extent(Offset::new(100), 1 << 20, true)
            .unwrap()
            .unwrap()
    });
    assert_eq!(found.end_offset, fixture.writer.end_offset());
    let (directory, sealed, _) = fixture.seal();
    assert_eq!(
        read_file(&RealDisk, &sealed.id.log_path(directory.path()), 1 << 30).unwrap(),
        expected
    );
}

#[test]
fn a_resumed_writer_seals_after_direct_writes_though_nobody_asked_for_the_index() {
    let mut fixture = Fixture::new();
    fixture.append(WriteWay::Direct, 900, &[&[1, 2], &[3]]);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    fixture.writer = SegmentWriter::resume(
        disk,
        fixture.directory.path().to_owned(),
        log(),
        &fixture.writer.active(),
        fixture.writer.end_offset(),
    )
    .unwrap();
    fixture.append(WriteWay::Direct, 3_000, &[&[4, 5, 6], &[7]]);
    let expected = fixture.bytes();
    let (directory, sealed, _) = fixture.seal();
    assert_eq!(
        read_file(&RealDisk, &sealed.id.log_path(directory.path()), 1 << 30).unwrap(),
        expected
    );
    assert_eq!(
        sealed.index.peek(SegmentIndex::end_offset),
        Some(sealed.sealed.end_offset)
    );
}

#[test]
fn a_segment_shorter_than_what_was_settled_is_damaged() {
    let mut fixture = Fixture::new();
    fixture.append(WriteWay::Buffered, 900, &[&[1, 2], &[3]]);
    let active = fixture.writer.active();
    let path = active.id.log_path(fixture.directory.path());
    RealDisk
        .open(&path, OpenHow::ReadWrite)
        .unwrap()
        .set_len(active.bytes - 1)
        .unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let resumed = SegmentWriter::resume(
        disk,
        fixture.directory.path().to_owned(),
        log(),
        &active,
        Offset::new(103),
    );
    assert!(
        matches!(resumed, Err(SegmentError::Damaged { position, .. }) if position == active.bytes - 1)
    );
}

#[test]
fn extents_are_whole_batches_within_the_limit_but_for_the_first() {
    let mut fixture = Fixture::new();
    let times: Vec<Vec<i64>> = (0..400).map(|n| vec![n; 1 + (n as usize % 3)]).collect();
    let times: Vec<&[i64]> = times.iter().map(|times| &times[..]).collect();
    fixture.append(WriteWay::Buffered, 200, &times);
    let end = fixture.writer.end_offset().get();
    fixture.with_reader(|reader| {
        for from in (100..end).step_by(7) {
            for max in [0u64, 1, 300, 5_000, 20_000, 50_000, 1 << 30] {
                let found = reader
                    .extent(Offset::new(from), max, true)
                    .unwrap()
                    .unwrap();
                let expected = expected_extent(&fixture.batches, from, max);
                assert_eq!(found, expected, "from {from} max {max}");
                let none = reader.extent(Offset::new(from), max, false).unwrap();
                let fits = expected.positions.end - expected.positions.start <= max;
                assert_eq!(none, fits.then_some(expected));
            }
        }
        assert_eq!(reader.extent(Offset::new(end), 1_000, true).unwrap(), None);
    });
}

fn expected_extent(batches: &[SettledBatch], from: u64, max: u64) -> Extent {
    let mut position = 0;
    let mut extent: Option<Extent> = None;
    for batch in batches {
        let end = position + batch.bytes.len() as u64;
        let end_offset = batch.header.next_offset();
        match &mut extent {
            None if end_offset.get() > from => {
                extent = Some(Extent {
                    positions: position..end,
                    base_offset: batch.header.base(),
                    end_offset,
                });
            }
            None => {}
            Some(extent) if end - extent.positions.start <= max => {
                (extent.positions.end, extent.end_offset) = (end, end_offset);
            }
            Some(_) => break,
        }
        position = end;
    }
    extent.unwrap()
}

#[test]
fn readers_see_nothing_past_the_published_end() {
    let mut fixture = Fixture::new();
    fixture.append(WriteWay::Buffered, 100, &[&[1], &[2], &[9], &[4]]);
    let published = fixture.batches[..2]
        .iter()
        .map(|batch| batch.bytes.len() as u64)
        .sum();
    let file = fixture.file();
    let reader = SegmentReader {
        id: fixture.writer.id(),
        file: &*file,
        index: fixture.writer.index(),
        bytes: published,
        end_offset: Offset::new(102),
    };
    assert_eq!(
        reader
            .extent(Offset::new(100), 1 << 20, true)
            .unwrap()
            .unwrap()
            .positions,
        0..published
    );
    assert_eq!(
        reader
            .offset_for_time(Timestamp::from_millis(3), Offset::ZERO)
            .unwrap(),
        None
    );
    let largest = reader.max_timestamp(Offset::ZERO).unwrap().unwrap();
    assert_eq!(
        (largest.offset, largest.timestamp),
        (Offset::new(101), Timestamp::from_millis(2))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn time_lookups_are_exact_to_the_record_under_jumping_clocks(
        times in prop::collection::vec(prop::collection::vec(-50i64..50, 1..6), 1..120),
        value_bytes in prop::sample::select(vec![1usize, 2_000]),
        queries in prop::collection::vec((-60i64..60, 0u64..400), 20),
    ) {
        let mut fixture = Fixture::new();
        let slices: Vec<&[i64]> = times.iter().map(|times| &times[..]).collect();
        fixture.append(WriteWay::Buffered, value_bytes, &slices);
        let records: Vec<(u64, i64)> = times.concat().into_iter().enumerate().map(|(n, t)| (100 + n as u64, t)).collect();
        fixture.with_reader(|reader| -> Result<(), TestCaseError> {
            for (target, from) in queries {
                let expected = records.iter().find(|(offset, time)| *offset >= from && *time >= target);
                let found = reader.offset_for_time(Timestamp::from_millis(target), Offset::new(from)).unwrap();
                let found = found.map(|hit| (hit.offset.get(), hit.timestamp.millis()));
                prop_assert_eq!(found, expected.copied(), "target {} from {}", target, from);

                let after = records.iter().filter(|(offset, _)| *offset >= from);
                let expected = after.max_by(|l, r| l.1.cmp(&r.1).then(r.0.cmp(&l.0)));
                let found = reader.max_timestamp(Offset::new(from)).unwrap();
                let found = found.map(|hit| (hit.offset.get(), hit.timestamp.millis()));
                prop_assert_eq!(found, expected.copied(), "largest from {}", from);
            }
            Ok(())
        })?;
    }
}

/// A sealed segment of some blocks, with its index file's bytes.
fn sealed() -> (tempfile::TempDir, SealedSegment, Vec<u8>) {
    let mut fixture = Fixture::new();
    let times: Vec<[i64; 2]> = (0..30).map(|n| [n, 60 - n]).collect();
    let times: Vec<&[i64]> = times.iter().map(|times| &times[..]).collect();
    fixture.append(WriteWay::Direct, 1_500, &times);
    let (directory, sealed, _) = fixture.seal();
    let index = read_file(&RealDisk, &sealed.id.index_path(directory.path()), 1 << 20).unwrap();
    (directory, sealed, index)
}

#[test]
fn an_index_file_cut_or_flipped_anywhere_is_refused() {
    let (_directory, sealed, bytes) = sealed();
    let decoded = IndexFile::decode(&bytes).unwrap();
    assert_eq!(Some(decoded.index), sealed.index.peek(SegmentIndex::clone));
    for len in 0..bytes.len() {
        assert!(IndexFile::decode(&bytes[..len]).is_err(), "cut to {len}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(IndexFile::decode(&flipped).is_err(), "bit {bit}");
    }
}

fn open(
    directory: &tempfile::TempDir,
    sealed: &SealedSegment,
) -> Result<Arc<OpenSegment>, SegmentError> {
    let cache = SegmentCache::new(Arc::new(RealDisk), 10, 1 << 20);
    let source = SegmentSource::Sealed {
        kind: SegmentKind::Plain,
        bytes: sealed.sealed.bytes,
        last_append_time: sealed.sealed.last_append_time,
    };
    cache.open(directory.path(), log(), sealed.id, &source)
}

#[test]
fn a_lost_or_damaged_index_is_built_again_and_answers_the_same() {
    let (directory, sealed, bytes) = sealed();
    let path = sealed.id.index_path(directory.path());
    let end = sealed.sealed.end_offset;
    let ask = || {
        let open = open(&directory, &sealed).unwrap();
        let reader = open.reader(sealed.sealed.bytes, end);
        let extents: Vec<Option<Extent>> = (100..=160)
            .map(|from| reader.extent(Offset::new(from), 40_000, true).unwrap())
            .collect();
        let times: Vec<Option<crate::TimedOffset>> = (-1..62)
            .map(|time| {
                reader
                    .offset_for_time(Timestamp::from_millis(time), Offset::ZERO)
                    .unwrap()
            })
            .collect();
        (extents, times)
    };
    let expected = ask();
    RealDisk.remove_file(&path).unwrap();
    assert_eq!(ask(), expected, "lost");
    for damage in [
        &bytes[..0],
        &bytes[..bytes.len() / 2],
        &bytes[..bytes.len() - 1],
        &[0; 4_096],
    ] {
        crate::io::write_new_file(&RealDisk, &path, damage).unwrap();
        assert_eq!(ask(), expected, "damaged");
        RealDisk.remove_file(&path).unwrap();
    }
}

#[test]
fn a_base_offset_that_no_segment_reaches_is_damage_and_no_panic_when_the_index_is_built_again() {
    let mut fixture = Fixture::new();
    fixture.append(WriteWay::Buffered, 100, &[&[1, 2], &[3, 4], &[5, 6]]);
    let mut bytes = fixture.bytes();
    let second = bytes.len() / 3;
    // Bits 32 and up of the second batch's base offset: its checksum does not cover them.
    for byte in 1..4 {
        bytes[second + byte] ^= 1;
        let path = fixture.directory.path().join("damaged.log");
        std::fs::write(&path, &bytes).unwrap();
        let file = RealDisk.open(&path, OpenHow::Read).unwrap();
        let id = fixture.writer.id();
        let built = SegmentIndex::rebuild(
            &*file,
            id,
            SegmentKind::Plain,
            bytes.len() as u64,
            Timestamp::from_millis(0),
        );
        match built {
            Err(SegmentError::Damaged { position, .. }) => assert_eq!(position, second as u64),
            other => panic!("byte {byte}: {other:?}"),
        }
        bytes[second + byte] ^= 1;
    }
}

#[test]
fn a_log_file_that_was_swapped_with_another_is_not_served() {
    let (directory, first, _) = sealed();
    let mut fixture = Fixture::new();
    fixture.append(WriteWay::Direct, 1_500, &[&[5i64, 5][..]; 30]);
    let (other, second, _) = fixture.seal();
    assert_eq!(
        first.sealed.bytes, second.sealed.bytes,
        "no other check would notice"
    );
    std::fs::copy(
        second.id.log_path(other.path()),
        first.id.log_path(directory.path()),
    )
    .unwrap();
    assert!(matches!(
        open(&directory, &first),
        Err(SegmentError::Damaged { .. })
    ));
}

#[test]
fn the_cache_keeps_to_its_bound_and_what_it_dropped_stays_valid() {
    let (directory, sealed, _) = sealed();
    let cache = SegmentCache::new(Arc::new(RealDisk), 2, 1 << 20);
    let source = SegmentSource::Sealed {
        kind: SegmentKind::Plain,
        bytes: sealed.sealed.bytes,
        last_append_time: sealed.sealed.last_append_time,
    };
    let logs: Vec<LogId> = (0..4)
        .map(|n| LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(n)))
        .collect();
    let held: Vec<Arc<OpenSegment>> = logs
        .iter()
        .map(|log| {
            cache
                .open(directory.path(), *log, sealed.id, &source)
                .unwrap()
        })
        .collect();
    assert_eq!(cache.len(), 2);
    assert!(cache.get(logs[0], sealed.id).is_none());
    let slice = held[0].map().unwrap().slice(0..100);
    cache.forget_log(logs[3]);
    assert_eq!(cache.len(), 1);
    RealDisk
        .remove_file(&sealed.id.log_path(directory.path()))
        .unwrap();
    assert_eq!(slice, held[0].map().unwrap().slice(0..100));
}

#[test]
fn the_verifier_finds_every_flipped_bit_of_a_sealed_segment() {
    let mut fixture = Fixture::new();
    fixture.append(WriteWay::Buffered, 5, &[&[1, 2], &[3], &[4]]);
    let (directory, sealed, _) = fixture.seal();
    let path = sealed.id.log_path(directory.path());
    let index = sealed.index.peek(SegmentIndex::clone).unwrap();
    let whole = read_file(&RealDisk, &path, 1 << 20).unwrap();
    assert!(is_clean(
        &RealDisk.open(&path, OpenHow::Read).unwrap(),
        &sealed,
        &index
    ));
    let file = RealDisk.open(&path, OpenHow::ReadWrite).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut byte = [whole[bit / 8]];
        byte[0] ^= 1 << (bit % 8);
        file.write_at((bit / 8) as u64, &byte).unwrap();
        assert!(!is_clean(&file, &sealed, &index), "bit {bit}");
        file.write_at((bit / 8) as u64, &whole[bit / 8..=bit / 8])
            .unwrap();
    }
}

fn is_clean(file: &Arc<dyn DiskFile>, sealed: &SealedSegment, index: &SegmentIndex) -> bool {
    let mut verifier = verify::SegmentVerifier::new(
        sealed.id,
        SegmentKind::Plain,
        sealed.sealed.bytes,
        sealed.sealed.end_offset,
    );
    loop {
        match verifier.next_batch(&**file, Some(index)) {
            Ok(Some(verified)) if verified.fault.is_none() => {}
            Ok(None) => return verifier.next_offset() == sealed.sealed.end_offset,
            Ok(Some(_)) | Err(_) => return false,
        }
    }
}

#[test]
fn slices_of_the_map_are_the_files_bytes() {
    let (directory, sealed, _) = sealed();
    let open = open(&directory, &sealed).unwrap();
    let reader = open.reader(sealed.sealed.bytes, sealed.sealed.end_offset);
    let extent = reader
        .extent(Offset::new(120), 50_000, true)
        .unwrap()
        .unwrap();
    let mapped: Bytes = open.map().unwrap().slice(extent.positions.clone());
    assert_eq!(mapped, reader.copy(extent.positions).unwrap());
    assert_eq!(
        Offset::new(120),
        model::batch::split(mapped)
            .next()
            .unwrap()
            .unwrap()
            .header()
            .base()
    );
}

/// A file whose reads wait until they may go on.
#[derive(Debug)]
struct Held {
    file: Arc<dyn DiskFile>,
    begun: mpsc::Sender<()>,
    may_go_on: std::sync::Mutex<mpsc::Receiver<()>>,
}

impl DiskFile for Held {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let _ = self.begun.send(());
        // Who let it go on is gone: it goes on for good.
        let _ = self.may_go_on.lock().unwrap().recv();
        self.file.read_at(position, buffer)
    }

    fn read_at_now(&self, position: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.file.read_at_now(position, buffer)
    }

    fn write_vectored_at(&self, _: u64, _: &[std::io::IoSlice<'_>]) -> std::io::Result<()> {
        panic!("it is read")
    }

    fn sync_data(&self) -> std::io::Result<()> {
        panic!("it is read")
    }

    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, _: u64) -> std::io::Result<()> {
        panic!("it is read")
    }

    fn reserve(&self, _: u64) -> std::io::Result<()> {
        panic!("it is read")
    }

    fn drop_cache_of(&self, range: std::ops::Range<u64>) -> std::io::Result<()> {
        self.file.drop_cache_of(range)
    }

    fn map(&self, capacity: u64) -> std::io::Result<Arc<crate::io::FileMap>> {
        self.file.map(capacity)
    }
}

#[test]
fn batches_settle_while_a_missing_index_is_built() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut fixture = Fixture::new();
    for round in 0..20 {
        fixture.append(WriteWay::Buffered, 9_000, &[&[round], &[round, 3]]);
    }
    let written = fixture.writer.index().clone();
    let whole = |fixture: &Fixture| {
        let index = fixture.writer.index();
        index.with(&*fixture.file(), SegmentIndex::clone).unwrap()
    };
    let before = whole(&fixture);
    let index = SharedIndex::missing(
        before.id(),
        before.bytes(),
        before.end_offset(),
        before.last_append_time(),
        written.heads_checksum(),
    );
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let held = Held {
        file: fixture.file(),
        begun,
        may_go_on: may_go_on.into(),
    };
    let build = {
        let index = index.clone();
        std::thread::spawn(move || index.with(&held, SegmentIndex::clone))
    };
    has_begun.recv_timeout(PATIENCE).unwrap();
    // More settles while the headers are read.
    let known = fixture.batches.len();
    fixture.append(WriteWay::Buffered, 9_000, &[&[77], &[78], &[79, 80]]);
    let (settled, has_settled) = mpsc::channel();
    let settle = {
        let (index, batches) = (index.clone(), fixture.batches[known..].to_vec());
        std::thread::spawn(move || {
            let of = |batch: &SettledBatch| *batch.bytes.first_chunk().unwrap();
            let each = batches.iter();
            index.push(each.map(|batch| (&batch.header, of(batch), batch.append_time)));
            settled.send(()).unwrap();
        })
    };
    let waited = has_settled.recv_timeout(PATIENCE);
    drop(go_on);
    waited.expect("it does not wait for whoever reads");
    settle.join().unwrap();
    let built = build.join().unwrap().unwrap();
    let expected = whole(&fixture);
    assert_eq!(
        (built.bytes(), built.end_offset(), built.blocks().len()),
        (
            expected.bytes(),
            expected.end_offset(),
            expected.blocks().len()
        )
    );
    let heads = |index: &SegmentIndex| -> Vec<u32> {
        index
            .blocks()
            .iter()
            .map(|block| block.heads_checksum)
            .collect()
    };
    assert_eq!(heads(&built), heads(&expected));
    assert_eq!(index.peek(SegmentIndex::bytes), Some(expected.bytes()));
}
