//! Segments: appending to one, looking things up in one, and building its index again.

#![allow(missing_docs)]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

use alluvium_storage as storage;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use model::batch::{Batch, BatchBuilder};
use model::codec::Codec;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use storage::Disk;
use storage::io::{AlignedBuffer, OpenHow, RealDisk};
use storage::manifest::SegmentKind;
use storage::segment::{
    OpenSegment, SegmentCache, SegmentId, SegmentIndex, SegmentReader, SegmentSource,
    SegmentWriter, SettledBatch, WriteWay,
};

const BATCHES: u64 = 4_000;
const RECORDS: u64 = 10;

fn batches() -> Vec<SettledBatch> {
    let batch = |n: u64| {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.base_offset(Offset::new(n * RECORDS));
        for record in 0..RECORDS {
            let time = Timestamp::from_millis((n * RECORDS + record) as i64);
            builder
                .push(time, None, Some(&[1; 400]), &[])
                .expect("small records");
        }
        let batch = Batch::parse(builder.build().expect("small batch")).expect("just built");
        SettledBatch {
            header: *batch.header(),
            bytes: batch.into_bytes(),
            append_time: Timestamp::from_millis(1),
        }
    };
    (0..BATCHES).map(batch).collect()
}

fn create(directory: PathBuf, generation: u32) -> SegmentWriter {
    let log = LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0));
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let id = SegmentId {
        base: Offset::ZERO,
        generation,
    };
    SegmentWriter::create(disk, directory, log, id).expect("a temporary directory")
}

fn segments(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().to_owned();
    let batches = batches();
    let bytes: u64 = batches.iter().map(|batch| batch.bytes.len() as u64).sum();
    let mut scratch = AlignedBuffer::default();

    let mut group = criterion.benchmark_group("segment_append");
    group.sample_size(10).throughput(Throughput::Bytes(bytes));
    let mut generation = 1;
    for (name, way) in [
        ("buffered", WriteWay::Buffered),
        ("direct", WriteWay::Direct),
    ] {
        group.bench_function(name, |bencher| {
            let fresh = || {
                generation += 1;
                create(path.clone(), generation)
            };
            let append = |mut writer: SegmentWriter| {
                writer
                    .append(&batches, way, &mut scratch)
                    .expect("room on the disk");
                let file = writer.id().log_path(&path);
                RealDisk.remove_file(&file).expect("it was just written");
            };
            bencher.iter_batched(fresh, append, BatchSize::PerIteration);
        });
    }
    group.finish();

    let mut writer = create(path.clone(), 0);
    writer
        .append(&batches, WriteWay::Buffered, &mut scratch)
        .expect("room on the disk");
    let file = RealDisk
        .open(&writer.id().log_path(&path), OpenHow::Read)
        .expect("it was just written");
    let reader = SegmentReader {
        id: writer.id(),
        file: &*file,
        index: writer.index(),
        bytes: writer.bytes(),
        end_offset: writer.end_offset(),
    };
    let mut offset = 0;
    criterion.bench_function("segment_find_offset", |bencher| {
        bencher.iter(|| {
            offset = (offset + 7_919) % (BATCHES * RECORDS);
            black_box(reader.locate(Offset::new(offset)).expect("a sound segment"))
        });
    });
    criterion.bench_function("segment_extent_1mib", |bencher| {
        bencher.iter(|| {
            offset = (offset + 7_919) % (BATCHES * RECORDS);
            black_box(
                reader
                    .extent(Offset::new(offset), 1 << 20, true)
                    .expect("a sound segment"),
            )
        });
    });
    criterion.bench_function("segment_find_time", |bencher| {
        bencher.iter(|| {
            offset = (offset + 7_919) % (BATCHES * RECORDS);
            let time = Timestamp::from_millis(offset as i64);
            black_box(
                reader
                    .offset_for_time(time, Offset::ZERO)
                    .expect("a sound segment"),
            )
        });
    });

    let mut group = criterion.benchmark_group("segment_index");
    group.sample_size(20).throughput(Throughput::Bytes(bytes));
    group.bench_function("rebuild", |bencher| {
        bencher.iter(|| {
            let time = Timestamp::from_millis(1);
            black_box(
                SegmentIndex::rebuild(
                    &*file,
                    writer.id(),
                    SegmentKind::Plain,
                    writer.bytes(),
                    time,
                )
                .expect("a sound segment"),
            )
        });
    });
    group.finish();

    // What the first read of a segment costs beside the later ones, with the file in memory: the check alone.
    let mut group = criterion.benchmark_group("segment_check");
    group.sample_size(20).throughput(Throughput::Bytes(bytes));
    let log = LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0));
    let source = SegmentSource::Active {
        index: writer.index().clone(),
        bytes_max: writer.bytes(),
    };
    let cache = SegmentCache::new(Arc::new(RealDisk), 8, 64 << 20);
    let open = || {
        let opened = cache.open(&path, log, writer.id(), &source);
        opened.expect("it was just written")
    };
    let check = |segment: Arc<OpenSegment>| {
        let all = 0..writer.bytes();
        let found = segment.check(&all, writer.bytes(), writer.end_offset());
        assert!(found.expect("a readable segment").is_none());
    };
    group.bench_function("first", |bencher| {
        let fresh = || {
            cache.forget(log, writer.id());
            open()
        };
        bencher.iter_batched(fresh, check, BatchSize::PerIteration);
    });
    group.bench_function("again", |bencher| bencher.iter(|| check(open())));
    group.bench_function("copy_alone", |bencher| {
        let mut buffer = vec![0; 256 << 10];
        bencher.iter(|| {
            for position in (0..writer.bytes()).step_by(256 << 10) {
                black_box(
                    file.read_at(position, &mut buffer)
                        .expect("a readable file"),
                );
            }
        });
    });
    group.finish();
}

criterion_group!(benches, segments);
criterion_main!(benches);
