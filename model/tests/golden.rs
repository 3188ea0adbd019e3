//! Batches that another client wrote, and batches of ours that it has read.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail as its assertions do"
)]

#[path = "golden/records.rs"]
mod records;

use alluvium_model::batch::{
    Batch, BatchBuilder, Codec, DecompressLimit, HeaderRef, records_summary,
};
use alluvium_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};
use bytes::Bytes;
use records::{GoldenRecord, golden_records};

fn golden(name: &str) -> Batch {
    let path = format!("{}/tests/golden/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text: String = std::fs::read_to_string(path)
        .unwrap()
        .split_whitespace()
        .collect();
    let digits = text.as_bytes().chunks(2);
    let bytes: Vec<u8> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    Batch::parse(bytes.into()).unwrap()
}

fn records(batch: &Batch) -> Vec<GoldenRecord> {
    let own = |part: Option<Bytes>| part.map(|part| part.to_vec());
    let records = batch
        .records(DecompressLimit::default())
        .unwrap()
        .map(|record| {
            let record = record.unwrap();
            let headers = record
                .headers
                .into_iter()
                .map(|header| (header.key.to_vec(), own(header.value)));
            (
                record.timestamp,
                own(record.key),
                own(record.value),
                headers.collect(),
            )
        });
    records.collect()
}

#[test]
fn batches_of_kafka_python_are_read_in_every_codec() {
    for codec in Codec::ALL {
        let batch = golden(&format!("kafka-python-{codec}"));
        let header = batch.header();
        assert_eq!(header.codec(), Ok(codec));
        assert_eq!(
            header.producer(),
            Some((ProducerId::new(4001), ProducerEpoch::new(3), 70_000))
        );
        assert_eq!(
            (header.base(), header.next_offset()),
            (Offset::ZERO, Offset::new(4))
        );
        assert_eq!(header.max_time(), Timestamp::from_millis(1_700_000_000_007));
        assert_eq!(records(&batch), golden_records(), "{codec}");
        let summary = records_summary(&batch, DecompressLimit::default()).unwrap();
        assert_eq!(
            summary.max_timestamp,
            Some((Offset::new(1), header.max_time()))
        );
        assert_eq!(summary.first_without_key, Some(1));
    }
}

#[test]
fn batches_of_ours_that_kafka_python_has_read_are_still_read() {
    for codec in Codec::ALL {
        let batch = golden(&format!("alluvium-{codec}"));
        assert_eq!(batch.header().codec(), Ok(codec));
        assert_eq!(batch.header().base(), Offset::new(1000));
        assert_eq!(records(&batch), golden_records(), "{codec}");
    }
}

/// Byte for byte where no codec's version can make a difference.
#[test]
fn the_builder_still_writes_what_kafka_python_has_read() {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.base_offset(Offset::new(1000)).producer(
        ProducerId::new(4001),
        ProducerEpoch::new(3),
        70_000,
    );
    for (timestamp, key, value, headers) in golden_records() {
        let headers: Vec<HeaderRef> = headers
            .iter()
            .map(|(key, value)| (&key[..], value.as_deref()))
            .collect();
        builder
            .push(timestamp, key.as_deref(), value.as_deref(), &headers)
            .unwrap();
    }
    let ours = builder.build().unwrap();
    assert!(ours == golden("alluvium-none").bytes());
    // kafka-python's own differs in base offset and leader epoch only, which no checksum covers.
    let theirs = golden("kafka-python-none");
    let mut stamped = ours.to_vec();
    let head = stamped.first_chunk_mut().unwrap();
    alluvium_model::batch::stamp(head, Offset::ZERO, LeaderEpoch::new(0));
    stamped[12..16].copy_from_slice(&theirs.bytes()[12..16]);
    assert!(stamped == *theirs.bytes());
}
