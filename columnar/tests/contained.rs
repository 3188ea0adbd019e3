//! Bodies on which a library panics: the reader says that they are broken, and nothing is printed. In a process of its own, as the
//! hook of panics is the process's.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::sync::atomic::{AtomicUsize, Ordering};

use alluvium_columnar::{ArrowReader, BodyColumns, Encoder, Format, Row, Schema};
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, Codec, DecompressLimit};
use model::{PartitionId, Timestamp};

/// Panics that came to the hook of the process.
static SHOWN: AtomicUsize = AtomicUsize::new(0);

fn stream() -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder
        .push(Timestamp::from_millis(1), Some(b"k"), Some(b"value"), &[])
        .expect("a record");
    let batch = Batch::parse(builder.build().expect("a batch")).expect("a batch");
    let mut records = batch.records(DecompressLimit::default()).expect("records");
    let record = records.next_ref().expect("one").expect("a record");
    let mut encoder = Encoder::new(Format::Arrow, None, &Schema::default()).expect("columns");
    let (topic, partition) = ("t", PartitionId::new(0));
    let row = Row {
        topic,
        partition,
        record,
    };
    encoder.push(&row).expect("a row");
    encoder.flush().expect("a batch");
    let head = encoder.take();
    let end = encoder.finish().expect("an end").bytes;
    [head, end].concat()
}

/// Whether the library panics on its own, whatever it says otherwise.
fn panics(bytes: &[u8]) -> bool {
    let mut buffer = Buffer::from(bytes);
    let read = || {
        let mut decoder = StreamDecoder::new();
        while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
    };
    catch_unwind(AssertUnwindSafe(read)).is_err()
}

/// Whether our reader finds it broken.
fn is_broken(bytes: Vec<u8>) -> bool {
    let mut reader = ArrowReader::new(BodyColumns::default(), 1 << 20);
    reader.push(Bytes::from(bytes));
    loop {
        match reader.next_rows() {
            Ok(Some(_)) => {}
            Ok(None) => return reader.finish().is_err(),
            Err(_) => return true,
        }
    }
}

#[test]
fn a_body_on_which_the_library_panics_is_broken_and_nothing_is_printed() {
    set_hook(Box::new(|_| {
        SHOWN.fetch_add(1, Ordering::Relaxed);
    }));
    let stream = stream();
    assert!(!is_broken(stream.clone()), "it is whole");
    let mut bad = Vec::new();
    for at in 0..stream.len() {
        let mut flipped = stream.clone();
        flipped[at] ^= 0x7f;
        bad.push(flipped);
    }
    let shown_before = SHOWN.load(Ordering::Relaxed);
    let panicking: Vec<Vec<u8>> = bad.into_iter().filter(|bytes| panics(bytes)).collect();
    let shown = SHOWN.load(Ordering::Relaxed);
    assert!(!panicking.is_empty(), "else this test says nothing");
    assert_eq!(shown, shown_before + panicking.len(), "they are printed");
    for bytes in panicking {
        assert!(is_broken(bytes));
    }
    assert_eq!(SHOWN.load(Ordering::Relaxed), shown, "these are not");
    assert!(catch_unwind(|| panic!("ours")).is_err());
    assert_eq!(SHOWN.load(Ordering::Relaxed), shown + 1, "ours are");
}
