//! Arrow streams as bodies of produce bring them: `piece bytes u16 | stream`. However a stream is cut into pieces, the same rows come.

use bytes::Bytes;
use columnar::{ArrowReader, BodyColumns, Encoder, Format, Row, Schema};
use model::batch::{Batch, BatchBuilder, Codec, DecompressLimit};
use model::{PartitionId, Timestamp};

use crate::Input;

/// As the server bounds a batch, for inputs of this length.
const BATCH_BYTES_MAX: usize = 64 << 10;
/// More rows than these are not compared.
const ROWS_MAX: usize = 2_000;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let piece = usize::from(input.u16()).max(1);
    let bytes = Bytes::copy_from_slice(input.rest());
    let at_once = read(&bytes, bytes.len().max(1));
    let in_pieces = read(&bytes, piece);
    if at_once.1 && in_pieces.1 {
        assert_eq!(at_once.0, in_pieces.0, "however it is cut");
    }
}

/// The rows, and whether the stream was whole.
fn read(bytes: &Bytes, piece: usize) -> (Vec<String>, bool) {
    let mut reader = ArrowReader::new(BodyColumns::default(), BATCH_BYTES_MAX);
    let mut rows = Vec::new();
    for at in (0..bytes.len()).step_by(piece) {
        reader.push(bytes.slice(at..bytes.len().min(at + piece)));
        loop {
            match reader.next_rows() {
                Ok(Some(batch)) => {
                    for index in 0..batch.len() {
                        if rows.len() == ROWS_MAX {
                            return (rows, false);
                        }
                        rows.push(format!("{:?}", batch.get(index)));
                    }
                }
                Ok(None) => break,
                Err(_) => return (rows, false),
            }
        }
    }
    let is_whole = reader.finish().is_ok();
    (rows, is_whole)
}

/// A stream as replay writes it, in two batches.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(Format::Arrow, None, &Schema::default()).expect("columns");
    let mut out = Vec::new();
    for (time, key, value) in [
        (1, Some(&b"k"[..]), Some(&b"{\"n\":1}"[..])),
        (2, None, Some(b"text")),
        (-1, Some(b""), None),
    ] {
        let mut builder = BatchBuilder::new(Codec::None);
        let headers = [(&b"h"[..], Some(&b"v"[..]))];
        builder
            .push(Timestamp::from_millis(time), key, value, &headers)
            .expect("a record");
        let batch = Batch::parse(builder.build().expect("a batch")).expect("a batch");
        let mut records = batch.records(DecompressLimit::default()).expect("records");
        let record = records.next_ref().expect("one").expect("a record");
        encoder
            .push(&Row {
                topic: "t",
                partition: PartitionId::new(0),
                record,
            })
            .expect("a row");
        encoder.flush().expect("a batch");
        out.extend_from_slice(&encoder.take());
    }
    out.extend_from_slice(&encoder.finish().expect("an end").bytes);
    let with = |piece: u16| [&piece.to_be_bytes()[..], &out].concat();
    vec![with(7), with(1_000)]
}
