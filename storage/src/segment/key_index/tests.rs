use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, Codec};
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use proptest::prelude::*;

use super::file::KeyIndexError;
use super::*;
use crate::io::{Disk, OpenHow, SimDisk};
use crate::manifest::SegmentKind;
use crate::segment::SegmentId;

const DIRECTORY: &str = "/data";

fn log() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(3))
}

/// Keys of one batch, and how long each record's value is.
type Keys = Vec<Option<Vec<u8>>>;

/// A device's clock that is wrong now and then.
fn time_of(offset: u64) -> i64 {
    let random = hash_of(&offset.to_be_bytes());
    match random % 20 {
        0 => (random >> 20) as i64 - (1 << 43),
        _ => offset as i64 * 1_000,
    }
}

fn batch(base: u64, keys: &Keys, (codec, value_bytes): (Codec, usize)) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    builder.base_offset(Offset::new(base));
    for (at, key) in keys.iter().enumerate() {
        let random = hash_of(&(base + at as u64).to_le_bytes()).to_le_bytes();
        let value: Vec<u8> = random.into_iter().cycle().take(value_bytes).collect();
        let time = Timestamp::from_millis(time_of(base + at as u64));
        builder
            .push(time, key.as_deref(), Some(&value), &[])
            .unwrap();
    }
    builder.build().unwrap()
}

/// A segment, its blocks, and its key index on a disk.
struct Fixture {
    disk: SimDisk,
    index: SegmentIndex,
    built: Built,
    /// In which blocks each key really is.
    places: BTreeMap<Vec<u8>, BTreeSet<u32>>,
    /// The smallest timestamp that each block really has.
    smallest: Vec<i64>,
}

fn fixture(batches: &[Keys], form: (Codec, usize)) -> Fixture {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new(DIRECTORY)).unwrap();
    let id = SegmentId::first(Offset::new(50));
    let mut index = SegmentIndex::empty(id, SegmentKind::Plain);
    let (mut shown, mut places) = (Vec::new(), BTreeMap::<_, BTreeSet<u32>>::new());
    let mut smallest = Vec::new();
    for keys in batches {
        let base = index.end_offset().get();
        let bytes = batch(index.end_offset().get(), keys, form);
        let parsed = Batch::parse(bytes.clone()).unwrap();
        let head = bytes.first_chunk().unwrap();
        index.push(parsed.header(), head, Timestamp::from_millis(1));
        let block = index.blocks().len() as u32 - 1;
        smallest.resize(block as usize + 1, i64::MAX);
        let times = (base..base + keys.len() as u64).map(time_of);
        let least = times.chain([smallest[block as usize]]).min();
        smallest[block as usize] = least.unwrap();
        for key in keys.iter().flatten() {
            places.entry(key.clone()).or_default().insert(block);
        }
        shown.push(bytes);
    }
    let built = build_of(&disk, &index, &shown);
    Fixture {
        disk,
        index,
        built,
        places,
        smallest,
    }
}

fn build_of(disk: &SimDisk, index: &SegmentIndex, batches: &[Bytes]) -> Built {
    build::<io::Error>(
        disk,
        Path::new(DIRECTORY),
        (log(), index),
        None,
        |from, each| {
            assert_eq!(from, 0, "all of them");
            batches.iter().try_for_each(each)
        },
    )
    .unwrap()
}

impl Fixture {
    fn open(&self) -> Result<KeyIndex, KeyIndexError> {
        let path = self.index.id().key_index_path(Path::new(DIRECTORY));
        KeyIndex::open(self.disk.open(&path, OpenHow::Read)?)
    }

    fn bytes(&self) -> Vec<u8> {
        let path = self.index.id().key_index_path(Path::new(DIRECTORY));
        self.disk.files()[&path].clone()
    }

    fn look_up(&self, key: &[u8]) -> Vec<Range<u32>> {
        self.open().unwrap().look_up(hash_of(key)).unwrap().blocks
    }

    /// No block with a key is missing from the answer, and the answer has the form that is promised.
    fn check(&self) {
        let open = self.open().unwrap();
        open.check().unwrap();
        assert!(open.is_of(log(), &self.index));
        let smallest = open.smallest_times().unwrap().iter();
        let smallest: Vec<_> = smallest.map(|time| time.millis()).collect();
        assert_eq!(smallest, self.smallest);
        let all = self.index.blocks().len() as u32;
        for (key, places) in &self.places {
            let found = open.look_up(hash_of(key)).unwrap().blocks;
            for block in places {
                assert!(
                    found.iter().any(|range| range.contains(block)),
                    "block {block} has {key:?}: {found:?}"
                );
            }
            assert!(found.windows(2).all(|pair| pair[0].end < pair[1].start));
            assert!(
                found
                    .iter()
                    .all(|range| !range.is_empty() && range.end <= all)
            );
        }
    }

    /// The most bytes that it may take: its share, some 200 for the ends, and a time for each block.
    fn bytes_max(&self) -> u64 {
        let blocks = self.index.blocks().len() as u64;
        self.index.bytes() / SHARE + 200 + 8 * blocks
    }

    /// How many blocks are read for each of some keys, as a part of all.
    fn part_read(&self, keys: impl Iterator<Item = Vec<u8>>) -> f64 {
        let open = self.open().unwrap();
        let (mut read, mut asked) = (0, 0);
        for key in keys {
            let found = open.look_up(hash_of(&key)).unwrap();
            read += found.blocks.iter().map(|range| range.len()).sum::<usize>();
            asked += 1;
        }
        read as f64 / (asked * self.index.blocks().len()) as f64
    }
}

fn device(number: u64) -> Vec<u8> {
    format!("device-{number:05}").into_bytes()
}

/// Batches of `records` each, whose keys are chosen by a function of the record's number.
fn segment(batches: u64, records: u64, key: impl Fn(u64) -> Option<Vec<u8>>) -> Vec<Keys> {
    let of_batch = |batch: u64| (batch * records..(batch + 1) * records).map(&key).collect();
    (0..batches).map(of_batch).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_look_up_never_misses_a_block_that_has_the_key(
        cardinality in prop::sample::select(vec![1_u64, 3, 40, 500, 100_000]),
        batches in 1_u64..150,
        records in 1_u64..60,
        value_bytes in prop::sample::select(vec![0_usize, 20, 300, 6_000]),
        keyless in 1_u64..5,
        seed: u64,
    ) {
        let keys = segment(batches, records, |record| {
            let random = hash_of(&(seed ^ record).to_le_bytes());
            random.is_multiple_of(keyless).then(|| device(random / 7 % cardinality))
        });
        let fixture = fixture(&keys, (Codec::None, value_bytes));
        fixture.check();
        prop_assert!(fixture.built.bytes <= fixture.bytes_max());
    }

    #[test]
    fn compressed_batches_are_looked_into(seed: u64) {
        for codec in [Codec::Gzip, Codec::Lz4, Codec::Snappy, Codec::Zstd] {
            let keys = segment(40, 30, |record| Some(device(hash_of(&(seed ^ record).to_le_bytes()) % 300)));
            fixture(&keys, (codec, 200)).check();
        }
    }
}

#[test]
fn a_replay_of_one_device_reads_a_small_part_of_each_usual_fleet() {
    // 100 bytes a record, some 160 records in a block; devices in turn, or each in runs of its own.
    for (devices, run, part_max) in [
        (1_000_u64, 1_u64, 0.35),
        (10_000, 1, 0.08),
        (1_000, 50, 0.02),
        (100_000, 1, 0.03),
    ] {
        let keys = segment(2_000, 16, |record| {
            Some(device(hash_of(&(record / run).to_le_bytes()) % devices))
        });
        let fixture = fixture(&keys, (Codec::None, 70));
        fixture.check();
        let part = fixture.part_read((0..200).map(|at| device(at * devices / 200)));
        let size = fixture.built.bytes as f64 / fixture.index.bytes() as f64;
        println!(
            "{devices} devices in runs of {run}: index {:.2} %, read {:.2} %",
            size * 100.0,
            part * 100.0
        );
        assert!(part <= part_max, "{devices} in runs of {run}: {part}");
        assert!(size <= 1.0 / SHARE as f64 + 0.001, "{size}");
        let unknown = fixture.part_read((0..200).map(|at| format!("none-{at}").into_bytes()));
        assert!(unknown <= part_max, "keys that are nowhere: {unknown}");
    }
}

#[test]
fn a_segment_of_keys_that_are_all_different_stays_within_the_bound() {
    let keys = segment(1_000, 100, |record| {
        Some(hash_of(&record.to_le_bytes()).to_string().into_bytes())
    });
    let fixture = fixture(&keys, (Codec::None, 30));
    fixture.check();
    assert!(fixture.built.bytes <= fixture.bytes_max());
    let part = fixture.part_read(fixture.places.keys().step_by(997).cloned());
    assert!(part < 0.1, "{part}");
}

#[test]
fn where_the_bound_leaves_too_little_all_is_read_and_the_file_says_so() {
    // Each block of small compressed records has every device.
    let keys = segment(60, 4_000, |record| Some(device(record % 4_000)));
    let fixture = fixture(&keys, (Codec::Zstd, 0));
    fixture.check();
    let blocks = fixture.index.blocks().len() as u32;
    assert_eq!(fixture.built.unknown_blocks, blocks);
    assert_eq!(fixture.open().unwrap().blocks(), (blocks, 0));
    assert!(
        fixture
            .look_up(b"nobody")
            .into_iter()
            .eq(std::iter::once(0..blocks))
    );
}

#[test]
fn records_without_keys_are_in_no_answer_and_batches_that_cannot_be_read_in_each() {
    let keys = segment(400, 16, |record| {
        (record < 160).then(|| device(record / 16))
    });
    let plain = fixture(&keys, (Codec::None, 100));
    plain.check();
    let last = plain.index.blocks().len() as u32 - 1;
    assert!(
        plain
            .look_up(&device(3))
            .iter()
            .all(|range| range.end <= last)
    );

    // The records' bytes of one batch are turned into nonsense: what comes is checked elsewhere, and told to be so.
    let mut index = SegmentIndex::empty(plain.index.id(), SegmentKind::Plain);
    let mut shown = Vec::new();
    for (at, keys) in keys.iter().enumerate() {
        let mut bytes = batch(index.end_offset().get(), keys, (Codec::None, 100)).to_vec();
        if at == 300 {
            bytes[61..].fill(0xff);
        }
        let header = model::batch::BatchHeader::parse(&bytes).unwrap();
        index.push(
            &header,
            bytes.first_chunk().unwrap(),
            Timestamp::from_millis(1),
        );
        shown.push((index.blocks().len() as u32 - 1, Bytes::from(bytes)));
    }
    let (nonsense, _) = shown[300];
    let shown: Vec<_> = shown.into_iter().map(|(_, bytes)| bytes).collect();
    build_of(&plain.disk, &index, &shown);
    let found = plain.look_up(b"nobody");
    assert!(
        found.iter().any(|range| range.contains(&nonsense)),
        "{found:?}"
    );
    assert!(
        found.iter().map(|range| range.len()).sum::<usize>() < 4,
        "{found:?}"
    );
    // It may hold any time, and no other block is taken for one that may.
    let open = plain.open().unwrap();
    let least = open.smallest_times().unwrap().iter().enumerate();
    let least = least.filter(|(_, time)| time.millis() == i64::MIN);
    assert_eq!(
        least.map(|(block, _)| block as u32).collect::<Vec<_>>(),
        [nonsense]
    );
}

#[test]
fn a_name_in_a_header_is_found_as_a_key_is_and_every_one_of_several() {
    let mut index = SegmentIndex::empty(SegmentId::first(Offset::new(50)), SegmentKind::Plain);
    let mut shown = Vec::new();
    for number in 0..80 {
        let mut builder = BatchBuilder::new(Codec::Lz4);
        builder.base_offset(index.end_offset());
        let (name, second) = (device(number), device(1_000 + number));
        let header = model::batch::NAME_HEADER.as_bytes();
        let headers = [
            (header, None),
            (header, Some(&name[..])),
            (header, Some(&second)),
        ];
        let value = hash_of(&number.to_le_bytes()).to_le_bytes().repeat(300);
        let key = (number % 2 == 0).then_some(&b"all"[..]);
        let time = Timestamp::from_millis(0);
        builder.push(time, key, Some(&value), &headers).unwrap();
        let bytes = builder.build().unwrap();
        let parsed = Batch::parse(bytes.clone()).unwrap();
        let head = bytes.first_chunk().unwrap();
        index.push(parsed.header(), head, time);
        shown.push((index.blocks().len() as u32 - 1, bytes));
    }
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new(DIRECTORY)).unwrap();
    let bytes: Vec<_> = shown.iter().map(|(_, bytes)| bytes.clone()).collect();
    build_of(&disk, &index, &bytes);
    let path = index.id().key_index_path(Path::new(DIRECTORY));
    let open = KeyIndex::open(disk.open(&path, OpenHow::Read).unwrap()).unwrap();
    assert!(open.knows_names());
    for (number, (block, _)) in (0..).zip(&shown) {
        for name in [device(number), device(1_000 + number)] {
            let found = open.look_up(hash_of(&name)).unwrap().blocks;
            assert!(found.iter().any(|it| it.contains(block)), "{number}");
        }
    }
}

#[test]
fn an_index_of_other_blocks_is_not_taken_for_this_ones() {
    let keys = |seed: u64| segment(50, 16, move |record| Some(device(record ^ seed)));
    let (one, other) = (
        fixture(&keys(1), (Codec::None, 100)),
        fixture(&keys(2), (Codec::None, 100)),
    );
    assert_eq!(one.index.blocks().len(), other.index.blocks().len());
    let open = one.open().unwrap();
    assert!(open.is_of(log(), &one.index));
    assert!(
        !open.is_of(log(), &other.index),
        "the same places and other heads"
    );
    let elsewhere = LogId::new(log().topic_id, PartitionId::new(4));
    assert!(!open.is_of(elsewhere, &one.index));
}

#[test]
fn a_file_cut_or_flipped_anywhere_is_refused_or_answers_the_same() {
    let keys = segment(30, 16, |record| Some(device(record % 40)));
    let fixture = fixture(&keys, (Codec::None, 100));
    let bytes = fixture.bytes();
    let path = Path::new("/data/other");
    let open = |bytes: &[u8]| {
        let _ = fixture.disk.remove_file(path);
        crate::io::write_new_file(&fixture.disk, path, bytes).unwrap();
        let open = KeyIndex::open(fixture.disk.open(path, OpenHow::Read).unwrap())?;
        open.check()?;
        Ok::<_, KeyIndexError>(open.look_up(hash_of(&device(5)))?.blocks)
    };
    let sound = open(&bytes).unwrap();
    for end in 0..bytes.len() {
        assert!(open(&bytes[..end]).is_err(), "cut to {end}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match open(&flipped) {
            Err(_) => {}
            Ok(found) => panic!("bit {bit}: {found:?} and {sound:?}"),
        }
    }
    assert!(
        open(&[&bytes[..], &[0]].concat()).is_err(),
        "a byte too many"
    );
}

#[test]
fn one_section_follows_another() {
    // Blocks of one batch each: 5,000 of them are two sections.
    let keys = segment(5_000, 1, |record| Some(device(record / 100)));
    let fixture = fixture(&keys, (Codec::None, 17_000));
    fixture.check();
    let blocks = |key: &[u8]| {
        fixture
            .look_up(key)
            .iter()
            .map(|range| range.len())
            .sum::<usize>()
    };
    for near in [0, 40, 41, 49] {
        assert!(
            blocks(&device(near)) < 200,
            "{near}: {:?}",
            fixture.look_up(&device(near))
        );
    }
}
