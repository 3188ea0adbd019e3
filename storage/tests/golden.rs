//! Every format of the segments' side, as its first version wrote it: the files under `tests/golden` are read by this and
//! every later release, and are never edited. `WRITE_GOLDEN=1` makes those that are missing, for a new version.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluvium_storage as storage;
use model::batch::{Batch, BatchBuilder, HeaderRef, NAME_HEADER};
use model::codec::Codec;
use model::{
    LeaderEpoch, LogId, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicId,
};
use storage::Disk;
use storage::checkpoint::{
    ActiveSegment, Checkpoint, CheckpointStore, LogEntry, Moment, WalPosition,
};
use storage::epochs::Epochs;
use storage::io::write_new_file;
use storage::io::{AlignedBuffer, SimDisk};
use storage::io::{Boot, OpenHow};
use storage::manifest::{Manifest, Sealed, SegmentEntry, SegmentKind};
use storage::producers::Producers;
use storage::segment::key_index::{self, KeyIndex};
use storage::segment::summary::{self, Stats, Summary, Window, WindowKey};
use storage::segment::{
    IndexFile, SealedSegment, SegmentId, SegmentIndex, SegmentWriter, SettledBatch, WriteWay,
};
use storage::steady::Kept;
use storage::wal::format::{
    EntryKind, FrameEntry, FrameHead, encode_head, file_units, parse_table,
};
use storage::wal::reader::read_frame;

fn log() -> LogId {
    LogId::new(
        TopicId::from_bytes(*b"golden topic id "),
        PartitionId::new(3),
    )
}

fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

fn producers() -> Producers {
    let mut producers = Producers::default();
    for batch in batches() {
        producers.record(&batch.header, batch.header.base(), batch.append_time);
    }
    producers
}

fn epochs() -> Epochs {
    let mut epochs = Epochs::default();
    epochs.begin(LeaderEpoch::new(2), Offset::new(1_000));
    epochs.begin(LeaderEpoch::new(4), Offset::new(1_030));
    epochs
}

/// Sixty records in twenty batches, about two index blocks.
fn batches() -> Vec<SettledBatch> {
    let batch = |n: u64| {
        let mut builder = BatchBuilder::new(Codec::None);
        let epoch = if n < 10 { 2 } else { 4 };
        builder
            .base_offset(Offset::new(1_000 + n * 3))
            .leader_epoch(LeaderEpoch::new(epoch));
        builder.producer(ProducerId::new(77), ProducerEpoch::new(1), n as i32 * 3);
        for record in 0..3 {
            let value = vec![n as u8; 400];
            builder
                .push(
                    time((n * 3 + record) as i64),
                    Some(b"key"),
                    Some(&value),
                    &[],
                )
                .expect("small records");
        }
        let batch = Batch::parse(builder.build().expect("small batch")).expect("just built");
        SettledBatch {
            header: *batch.header(),
            bytes: batch.into_bytes(),
            append_time: time(n as i64 * 1_000),
        }
    };
    (0..20).map(batch).collect()
}

/// Forty batches of four records each, some with keys of their own.
fn keyed_batches() -> Vec<SettledBatch> {
    batches_of(40, key_of)
}

fn key_of(n: u64) -> Option<String> {
    match n {
        2 => Some("first".into()),
        4 | 25 => Some("twice".into()),
        39 => Some("last".into()),
        n if n % 3 == 0 => None,
        _ => Some("all".into()),
    }
}

/// So many batches, each with four records of one key or of none.
fn batches_of(count: u64, key: impl Fn(u64) -> Option<String>) -> Vec<SettledBatch> {
    named_batches_of(count, key, |_| None)
}

/// The same with names in a header, or without.
fn named_batches_of(
    count: u64,
    key: impl Fn(u64) -> Option<String>,
    name: impl Fn(u64) -> Option<String>,
) -> Vec<SettledBatch> {
    let batch = |n: u64| {
        let (key, name) = (key(n), name(n));
        let header_of = |name| (NAME_HEADER.as_bytes(), Some(name));
        let names = name.iter().map(|name| name.as_bytes());
        let headers: Vec<HeaderRef<'_>> = names.map(header_of).collect();
        let mut builder = BatchBuilder::new(Codec::None);
        builder.base_offset(Offset::new(1_000 + n * 4));
        for record in 0..4 {
            let value = vec![n as u8; 400];
            let key = key.as_deref().map(str::as_bytes);
            builder
                .push(time((n * 4 + record) as i64), key, Some(&value), &headers)
                .expect("small records");
        }
        let batch = Batch::parse(builder.build().expect("small batch")).expect("just built");
        SettledBatch {
            header: *batch.header(),
            bytes: batch.into_bytes(),
            append_time: time(n as i64),
        }
    };
    (0..count).map(batch).collect()
}

fn sealed() -> (SimDisk, SealedSegment) {
    let disk = SimDisk::new(1);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let id = SegmentId::first(Offset::new(1_000));
    let mut writer =
        SegmentWriter::create(shared, PathBuf::from("/"), log(), id).expect("an empty disk");
    writer
        .append(&batches(), WriteWay::Direct, &mut AlignedBuffer::default())
        .expect("an empty disk");
    let sealed = writer.seal(&producers(), &epochs()).expect("an empty disk");
    (disk, sealed)
}

/// The sixty records after a rewrite that kept the batches 3, 4 and 8 and later.
fn sparse_index() -> SegmentIndex {
    let id = SegmentId {
        base: Offset::new(1_000),
        generation: 1,
    };
    let mut index = SegmentIndex::empty(id, SegmentKind::Sparse);
    for (n, batch) in batches().iter().enumerate() {
        if [3, 4].contains(&n) || n >= 8 {
            let head = batch.bytes.first_chunk().expect("a batch has a head");
            index.push(&batch.header, head, batch.append_time);
        }
    }
    index
}

fn manifest() -> Manifest {
    let sparse = sparse_index();
    let segments = vec![
        SegmentEntry::sealed(
            SegmentId::first(Offset::new(900)),
            SegmentKind::Plain,
            Sealed {
                end_offset: Offset::new(1_000),
                bytes: 1_234,
                max_timestamp: time(-7),
                first_append_time: time(-9),
                last_append_time: time(-8),
                records: 100,
            },
        ),
        SegmentEntry::sealed(sparse.id(), SegmentKind::Sparse, sparse.sealed()),
        SegmentEntry::active(SegmentId {
            base: Offset::new(1_060),
            generation: 1,
        }),
    ];
    Manifest {
        log: log(),
        number: 12,
        start_offset: Offset::new(1_002),
        compacted_to: Offset::new(1_060),
        segments,
    }
}

fn checkpoint() -> Checkpoint {
    let active = ActiveSegment {
        id: SegmentId {
            base: Offset::new(1_060),
            generation: 1,
        },
        bytes: 4_321,
        max_timestamp: time(-5),
        first_append_time: time(30_000),
        last_append_time: time(40_000),
        heads_checksum: Some(0x1234_5678),
    };
    let entry = LogEntry {
        log: log(),
        start_offset: Offset::new(1_002),
        settled_end: Offset::new(1_080),
        manifest: 12,
        active: Some(active),
        producers: producers().encode(),
        epochs: epochs().encode(),
    };
    let idle = LogEntry {
        log: LogId::METADATA,
        active: None,
        producers: vec![],
        epochs: vec![],
        ..entry.clone()
    };
    Checkpoint {
        store: TopicId::from_bytes(*b"golden store id ").as_uuid(),
        sequence: 9,
        leader_epoch: LeaderEpoch::new(4),
        wal: WalPosition {
            file: 5,
            position: 8_192,
            frame: 600,
        },
        logs: vec![entry, idle],
    }
}

fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(golden_path(name)).expect("the golden file is checked in")
}

fn check(name: &str, written: &[u8]) -> Vec<u8> {
    let path = golden_path(name);
    if std::env::var_os("WRITE_GOLDEN").is_some() && !path.exists() {
        std::fs::write(&path, written).expect("the golden directory can be written");
    }
    let golden = golden(name);
    assert!(
        golden == written,
        "{name} is written differently: a new version needs a new number and a new golden file"
    );
    golden
}

#[test]
fn manifest_v1() {
    // It knew plain segments only, and neither how many records they hold nor what is compacted.
    let (_, sealed) = sealed();
    assert_eq!(sealed.sealed.records, 60);
    let active = manifest().segments.pop().expect("the active one");
    let expected = Manifest {
        compacted_to: Offset::ZERO,
        segments: vec![
            SegmentEntry::sealed(sealed.id, SegmentKind::Plain, sealed.sealed),
            active,
        ],
        ..manifest()
    };
    let found = Manifest::decode(&golden("manifest.v1"));
    assert_eq!(found.expect("a golden file"), expected);
}

#[test]
fn manifest_v2() {
    let golden = check("manifest.v2", &manifest().encode());
    assert_eq!(
        Manifest::decode(&golden).expect("a golden file"),
        manifest()
    );
}

/// Keys of all kinds, and a window that was thinned twice.
fn one_summary() -> Summary {
    let window = |key: Option<&[u8]>, start, window_ms, count: u32| Window {
        at: WindowKey {
            key: key.map(Into::into),
            start,
            window_ms,
        },
        count: count.into(),
        stats: vec![
            Stats {
                sum: f64::from(count) * 20.5,
                min: -1.5,
                max: 40.25,
            },
            Stats::one(f64::from(count)),
        ],
    };
    Summary {
        tiers: "1d:1m:min(csv2)+max(csv3); 7d:1h:max(csv3)".to_owned(),
        tier: 1,
        counted: vec![
            Offset::new(1_000)..Offset::new(4_000),
            Offset::new(5_000)..Offset::new(5_001),
        ],
        values: vec!["csv2".to_owned(), "csv3".to_owned()],
        windows: vec![
            window(None, -60_000, 60_000, 7),
            window(Some(b""), 0, 60_000, 1),
            window(Some(b"buoy-1"), 0, 3_600_000, 3_600),
            window(Some(b"buoy-1"), 3_600_000, 60_000, 60),
            window(Some(b"buoy-2"), 3_600_000, 60_000, 58),
        ],
    }
}

fn summary_id() -> SegmentId {
    SegmentId {
        base: Offset::new(1_000),
        generation: 3,
    }
}

#[test]
fn summary_v1() {
    // It was one section.
    let golden = golden("summary.v1");
    assert_eq!(
        summary::decode(&golden),
        Ok((log(), summary_id(), vec![one_summary()]))
    );
}

#[test]
fn summary_v2() {
    let later = Summary {
        tier: 2,
        counted: vec![Offset::new(5_001)..Offset::new(9_000)],
        ..one_summary()
    };
    let sections = [one_summary(), later];
    let golden = check(
        "summary.v2",
        &summary::encode(log(), summary_id(), &sections),
    );
    assert_eq!(
        summary::decode(&golden),
        Ok((log(), summary_id(), sections.to_vec()))
    );
}

#[test]
fn keyindex_v1() {
    // It had no times.
    let golden = golden("keyindex.v1");
    check_key_index(&golden, &keyed_batches(), None);
}

/// The blocks of some batches.
fn index_of(batches: &[SettledBatch]) -> SegmentIndex {
    let mut index = SegmentIndex::empty(SegmentId::first(Offset::new(1_000)), SegmentKind::Plain);
    for batch in batches {
        let head = batch.bytes.first_chunk().expect("a batch has a head");
        index.push(&batch.header, head, batch.append_time);
    }
    index
}

/// Builds a key index from all of some batches, or from what is known and those that are wanted with it.
fn build_key_index(disk: &SimDisk, batches: &[SettledBatch], known: Option<&KeyIndex>) -> Vec<u8> {
    let (root, index) = (Path::new("/"), index_of(batches));
    let owner = (log(), &index);
    let built = key_index::build::<std::io::Error>(disk, root, owner, known, |from, each| {
        let mut position = 0;
        let mut batches = batches.iter().filter(|batch| {
            position += batch.bytes.len() as u64;
            position > from
        });
        batches.try_for_each(|batch| each(&batch.bytes))
    });
    assert_eq!(built.expect("an empty disk").unknown_blocks, 0);
    disk.files()[&index.id().key_index_path(root)].clone()
}

#[test]
fn keyindex_v2() {
    // It had no names in headers.
    let golden = golden("keyindex.v2");
    // Ten batches of four records a millisecond apart are a block.
    check_key_index(&golden, &keyed_batches(), Some(&[0, 40, 80, 120].map(time)));
}

#[test]
fn keyindex_v3() {
    // The batches without a key have names.
    let names = |n| (n % 3 == 0).then(|| format!("name {n}"));
    let batches = named_batches_of(40, key_of, names);
    let written = build_key_index(&SimDisk::new(1), &batches, None);
    let golden = check("keyindex.v3", &written);
    let found = check_key_index(&golden, &batches, Some(&[0, 40, 80, 120].map(time)));
    assert!(found.knows_names() && found.is_current());
    let named = found.look_up(key_index::hash_of(b"name 27"));
    let blocks = named.expect("a golden file").blocks;
    assert!(blocks.into_iter().eq(std::iter::once(2..3)));
}

#[test]
fn keyindex_v3_of_an_active_segment() {
    // Each key is in one of eight blocks, of which six are known.
    let batches = batches_of(80, |n| Some(format!("key {}", n / 10)));
    let index = index_of(&batches);
    let six_blocks = index.block_end(5);
    let begun = index.ended_blocks(six_blocks + 1);
    assert_eq!(
        (begun.bytes(), begun.end_offset().get()),
        (six_blocks, 1_240)
    );
    let disk = SimDisk::new(1);
    let golden = check(
        "keyindex_begun.v3",
        &build_key_index(&disk, &batches[..60], None),
    );
    let path = index.id().key_index_path(Path::new("/"));
    let open = || KeyIndex::open(disk.open(&path, OpenHow::Read).expect("it is there"));
    let found = open().expect("a golden file");
    assert!(found.is_of(log(), &index) && found.is_of(log(), &begun));
    assert!(
        !found.is_of(log(), &index.ended_blocks(six_blocks - 1)),
        "less"
    );
    assert_eq!((found.blocks(), found.log_bytes()), ((6, 6), six_blocks));
    let smallest = found.smallest_times().map(|times| times.to_vec());
    assert_eq!(
        smallest,
        Some([0, 40, 80, 120, 160, 200].map(time).to_vec())
    );
    // It goes on to the end.
    build_key_index(&disk, &batches, Some(&found));
    let whole = open().expect("a golden file");
    assert!(whole.is_of(log(), &index));
    for key in 0..8 {
        let hash = key_index::hash_of(format!("key {key}").as_bytes());
        let blocks = |index: &KeyIndex| index.look_up(hash).expect("a golden file").blocks;
        let expected: Vec<_> = std::iter::once(key..key + 1).collect();
        assert_eq!(blocks(&whole), expected);
        assert_eq!(blocks(&found), if key < 6 { expected } else { Vec::new() });
    }
    assert!(golden.len() < disk.files()[&path].len());
}

fn check_key_index(
    golden: &[u8],
    batches: &[SettledBatch],
    smallest: Option<&[Timestamp]>,
) -> KeyIndex {
    let index = index_of(batches);
    let (disk, path) = (SimDisk::new(1), Path::new("/file"));
    write_new_file(&disk, path, golden).expect("an empty disk");
    let file = disk.open(path, OpenHow::Read).expect("it was written");
    let found = KeyIndex::open(file).expect("a golden file");
    assert!(found.is_of(log(), &index));
    assert_eq!(found.smallest_times().map(|times| &**times), smallest);
    let blocks = |key: &str| {
        let found = found.look_up(key_index::hash_of(key.as_bytes()));
        found.expect("a golden file").blocks
    };
    // Ten batches of 1.7 KiB are a block.
    let expected = [vec![(0, 1)], vec![(0, 1), (2, 3)], vec![(3, 4)]];
    for (key, expected) in ["first", "twice", "last"].into_iter().zip(expected) {
        let found: Vec<_> = blocks(key)
            .iter()
            .map(|found| (found.start, found.end))
            .collect();
        assert_eq!(found, expected, "{key}");
    }
    assert!(blocks("nobody").is_empty());
    found
}

#[test]
fn checkpoint_v1() {
    // It had no checksum of an active segment's heads.
    let mut expected = checkpoint();
    for entry in &mut expected.logs {
        if let Some(active) = &mut entry.active {
            active.heads_checksum = None;
        }
    }
    let found = Checkpoint::decode(&golden("checkpoint.v1"));
    assert_eq!(found.expect("a golden file"), expected);
}

#[test]
fn checkpoint_v2() {
    // It was one envelope around all entries.
    let found = Checkpoint::decode(&golden("checkpoint.v2"));
    assert_eq!(found.expect("a golden file"), checkpoint());
}

#[test]
fn checkpoint_v3() {
    let golden = check("checkpoint.v3", &checkpoint().encode());
    assert_eq!(
        Checkpoint::decode(&golden).expect("a golden file"),
        checkpoint()
    );
}

#[test]
fn checkpoint_v3_that_was_appended_to() {
    let disk = SimDisk::new(1);
    let directory = Path::new("/");
    let mut expected = checkpoint();
    let (mut store, _) = CheckpointStore::open(&disk, directory, expected.store).expect("empty");
    let moment = Moment {
        leader_epoch: expected.leader_epoch,
        wal: expected.wal,
    };
    let mut logs: HashMap<LogId, LogEntry> = HashMap::new();
    // One at a time, so that their order is the same every time. File A is begun with one of them.
    for mut entry in checkpoint().logs {
        entry.settled_end = entry.settled_end.plus(1);
        let changed = HashSet::from([entry.log]);
        logs.insert(entry.log, entry);
        for _ in 0..2 {
            let stored = store.store(&disk, moment, &changed, &logs, |_, entry| entry.clone());
            stored.expect("an empty disk");
        }
    }
    let last = expected.logs.pop().expect("two");
    logs.insert(expected.logs[0].log, expected.logs[0].clone());
    logs.remove(&last.log);
    for changed in [expected.logs[0].log, last.log] {
        let changed = HashSet::from([changed]);
        for _ in 0..2 {
            let stored = store.store(&disk, moment, &changed, &logs, |_, entry| entry.clone());
            expected.sequence = stored.expect("an empty disk");
        }
    }
    let golden = check("checkpoint.v3.appended", &disk.files()[Path::new("/B")]);
    assert_eq!(
        Checkpoint::decode(&golden).expect("a golden file"),
        expected
    );
}

#[test]
fn segment_and_index_v2() {
    let (disk, sealed) = sealed();
    let files = disk.files();
    check(
        "segment.v1.log",
        &files[&sealed.id.log_path(Path::new("/"))],
    );
    let written = check(
        "segment.v2.idx",
        &files[&sealed.id.index_path(Path::new("/"))],
    );
    let index = sealed
        .index
        .peek(SegmentIndex::clone)
        .expect("the writer had it");
    assert!(index.blocks().len() > 1, "more than one block");
    let expected = IndexFile {
        log: log(),
        index,
        producers: producers(),
        epochs: epochs(),
    };
    assert_eq!(IndexFile::decode(&written), Ok(expected.clone()));
    // Version 1 had neither kind nor records: it is of a plain segment.
    assert_eq!(IndexFile::decode(&golden("segment.v1.idx")), Ok(expected));
}

#[test]
fn index_v2_of_a_sparse_segment() {
    let expected = IndexFile {
        log: log(),
        index: sparse_index(),
        producers: producers(),
        epochs: epochs(),
    };
    let written = check("segment.v2.sparse.idx", &expected.encode());
    assert_eq!(IndexFile::decode(&written), Ok(expected));
}

fn wal_frame() -> (FrameHead, Vec<FrameEntry>, Vec<u8>) {
    let batches = &batches()[..2];
    let mut entries: Vec<FrameEntry> = batches
        .iter()
        .map(|batch| FrameEntry {
            log: log(),
            kind: EntryKind::Batch,
            offset: batch.header.base(),
            bytes: batch.bytes.len() as u32,
            offsets: 3,
        })
        .collect();
    entries.push(FrameEntry {
        log: LogId::OFFSETS,
        kind: EntryKind::StartRaised,
        offset: Offset::new(17),
        bytes: 0,
        offsets: 0,
    });
    let bytes = batches
        .iter()
        .map(|batch| &batch.bytes[..])
        .collect::<Vec<_>>()
        .concat();
    let head = FrameHead {
        store: TopicId::from_bytes(*b"golden store id ").as_uuid(),
        file_units: file_units(64 << 20),
        file_sequence: 5,
        sequence: 600,
        durable_sequence: 599,
        append_time: time(50_000),
        leader_epoch: LeaderEpoch::new(4),
        entry_count: 3,
        batch_bytes: bytes.len() as u64,
        batch_crc: 0x6f4a_76e3,
    };
    (head, entries, bytes)
}

#[test]
fn wal_frame_v1() {
    let (head, entries, batches) = wal_frame();
    let mut written = Vec::new();
    encode_head(&head, &entries, &mut written);
    let table_end = written.len();
    written.extend_from_slice(&batches);
    written.resize(written.len().next_multiple_of(4096), 0);
    let golden = check("wal.v1", &written);
    assert_eq!(FrameHead::parse(&golden), Some(head));
    assert_eq!(parse_table(&head, &golden[..table_end]), Some(entries));
    let disk = SimDisk::new(1);
    let path = Path::new("/00000000000000000005.wal");
    write_new_file(&disk, path, &golden).expect("an empty disk");
    let file = disk
        .open(path, storage::io::OpenHow::Read)
        .expect("it was just written");
    let frame = read_frame(&*file, head.store, 5, 0).expect("a readable disk");
    let frame = frame.expect("a golden frame");
    assert!(frame.intact, "crc {:08x}", crc32fast::hash(&frame.batches));
    assert_eq!(frame.batches, batches);
}

#[test]
fn the_time() {
    let kept = Kept {
        time: time(7),
        boot: Some(Boot {
            id: uuid::Uuid::from_bytes(*b"golden boot's id"),
            since: std::time::Duration::from_nanos(98_765_432_101),
        }),
    };
    let golden = check("clock.v1", &kept.encode());
    assert_eq!(Kept::decode(&golden), Ok(kept));
}
