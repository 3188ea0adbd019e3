//! What the broker and the client spend on a batch: `cargo bench -p alluvium-model`.
//! Batches of 16 KiB (about 100-byte records), as a busy producer sends them.

#![allow(missing_docs, reason = "criterion_group makes a public function")]

use std::hint::black_box;

use alluvium_model::Timestamp;
use alluvium_model::batch::{
    Batch, BatchBuilder, BatchHeader, Codec, DecompressLimit, crc32c, with_log_append_time,
};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const RECORDS: u64 = 160;

fn value(record: u64) -> Vec<u8> {
    let reading = format!(
        r#"{{"device":"buoy-{:03}","at":{},"temperature":{}}}"#,
        record % 50,
        1_700_000_000 + record,
        21
    );
    format!("{reading:<84}").into_bytes()
}

fn push_all(builder: &mut BatchBuilder, values: &[Vec<u8>]) {
    for (index, value) in values.iter().enumerate() {
        let timestamp = Timestamp::from_millis(1_700_000_000_000 + index as i64);
        builder
            .push(timestamp, Some(b"buoy-017"), Some(value), &[])
            .expect("a small record fits");
    }
}

fn build(codec: Codec, values: &[Vec<u8>]) -> Bytes {
    let mut builder = BatchBuilder::with_capacity(codec, 32 << 10);
    push_all(&mut builder, values);
    builder.build().expect("there are records")
}

fn benches(criterion: &mut Criterion) {
    let values: Vec<Vec<u8>> = (0..RECORDS).map(value).collect();
    let plain = build(Codec::None, &values);
    let parsed = Batch::parse(plain.clone()).expect("just built");

    let mut group = criterion.benchmark_group("batch of 16 KiB");
    group.throughput(Throughput::Bytes(plain.len() as u64));
    group.bench_function("parse header", |bench| {
        bench.iter(|| BatchHeader::parse(black_box(&plain)))
    });
    group.bench_function("crc32c", |bench| bench.iter(|| crc32c(black_box(&plain))));
    group.bench_function("parse and verify", |bench| {
        bench.iter(|| Batch::parse(black_box(plain.clone())))
    });
    group.bench_function("stamp log append time", |bench| {
        bench.iter(|| with_log_append_time(black_box(&parsed), Timestamp::from_millis(5)))
    });
    group.finish();

    let mut group = criterion.benchmark_group("records");
    group.throughput(Throughput::Elements(RECORDS));
    for codec in Codec::ALL {
        let batch = Batch::parse(build(codec, &values)).expect("just built");
        group.bench_function(format!("build, {codec}"), |bench| {
            bench.iter(|| build(codec, black_box(&values)))
        });
        group.bench_function(format!("read borrowed, {codec}"), |bench| {
            bench.iter(|| {
                let mut records = batch
                    .records(DecompressLimit::default())
                    .expect("just built");
                let mut bytes = 0;
                while let Some(Ok(record)) = records.next_ref() {
                    bytes += record.value.map_or(0, <[u8]>::len);
                }
                bytes
            })
        });
    }
    group.bench_function("read owned, none", |bench| {
        bench.iter(|| {
            parsed
                .records(DecompressLimit::default())
                .expect("just built")
                .filter(Result::is_ok)
                .count()
        })
    });
    group.finish();
}

criterion_group!(batch, benches);
criterion_main!(batch);
