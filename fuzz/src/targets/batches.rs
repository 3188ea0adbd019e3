//! Record batches: `choices u8 | base offset i64 | epoch i32 | bytes`. Cutting apart, reading records, stamping, rewriting; a
//! choice mends lengths and checksums first, so that what lies behind them is reached.

use bytes::Bytes;
use model::batch::{
    Batch, BatchBuilder, Codec, DecompressLimit, HEADER_BYTES, STAMP_BYTES, crc32c, peek_len,
    recompress, records_summary, split, split_unverified, stamped_head, with_log_append_time,
    with_max_timestamp,
};
use model::{LeaderEpoch, Offset, Timestamp};

use crate::Input;
use crate::seeds::produced_batches;

const MEND: u8 = 1;
const LIMIT: DecompressLimit = DecompressLimit::bytes(1 << 20);

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choices = input.u8();
    let base = Offset::from_wire(input.i64()).unwrap_or(Offset::ZERO);
    let epoch = LeaderEpoch::from_wire(input.i32()).unwrap_or(LeaderEpoch::new(0));
    let mut bytes = input.rest().to_vec();
    if choices & MEND != 0 {
        mend(&mut bytes);
    }
    let bytes = Bytes::from(bytes);
    let verified = split(bytes.clone()).filter_map(Result::ok).count();
    let unverified: Vec<Batch> = split_unverified(bytes.clone())
        .filter_map(Result::ok)
        .collect();
    assert!(verified <= unverified.len(), "a checksum adds no batches");
    for batch in unverified {
        assert_eq!(peek_len(batch.bytes()), Some(batch.bytes().len()));
        if batch.verify_crc().is_ok() {
            read(&batch, base, epoch);
        }
    }
}

/// Gives consecutive batches their right checksum; the last one the length of what is there.
pub(super) fn mend(bytes: &mut [u8]) {
    let mut rest = bytes;
    while rest.len() >= HEADER_BYTES {
        let there = rest.len();
        let bytes = match peek_len(rest).filter(|bytes| *bytes <= there) {
            Some(bytes) => bytes,
            None => {
                let length = i32::try_from(there - 12).expect("inputs are short");
                rest[8..12].copy_from_slice(&length.to_be_bytes());
                there
            }
        };
        let (batch, after) = rest.split_at_mut(bytes);
        batch[16] = 2;
        let crc = crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        rest = after;
    }
}

fn read(batch: &Batch, base: Offset, epoch: LeaderEpoch) {
    let header = *batch.header();
    let head = stamped_head(batch, base, epoch);
    let stamped = [&head[..], &batch.bytes()[STAMP_BYTES..]].concat();
    if let Ok(stamped) = Batch::parse(stamped.into()) {
        assert_eq!(stamped.header().base(), base);
        assert_eq!(
            stamped.header().crc,
            header.crc,
            "a stamp lies outside the checksum"
        );
    }
    let now = Timestamp::from_millis(1_700_000_000_000);
    for rewritten in [
        with_log_append_time(batch, now),
        with_max_timestamp(batch, now),
    ] {
        let rewritten = Batch::parse(rewritten).expect("a rewritten batch is whole");
        assert_eq!(rewritten.header().max_time(), now);
    }
    let owned: Vec<_> = match batch.records(LIMIT) {
        Ok(records) => {
            assert!(records.payload().len() <= LIMIT.get());
            records.collect()
        }
        Err(_) => return,
    };
    let is_whole = owned.iter().all(Result::is_ok);
    assert_eq!(records_summary(batch, LIMIT).is_ok(), is_whole);
    let mut borrowed = batch.records(LIMIT).expect("it decompressed before");
    for record in &owned {
        match (borrowed.next_ref(), record) {
            (Some(Ok(borrowed)), Ok(owned)) => {
                assert_eq!(borrowed.offset, owned.offset);
                assert!(
                    (header.base()..header.next_offset()).contains(&owned.offset),
                    "a record lies within its batch"
                );
                assert_eq!(borrowed.value, owned.value.as_deref());
                assert_eq!(borrowed.headers().count(), owned.headers.len());
            }
            (Some(Err(_)), Err(_)) => {}
            (borrowed, owned) => panic!("{borrowed:?} beside {owned:?}"),
        }
    }
    assert!(borrowed.next_ref().is_none());
    if !is_whole {
        return;
    }
    for codec in Codec::ALL {
        let again = recompress(batch, codec, LIMIT).expect("what decompresses within the limit");
        let again = Batch::parse(again).expect("a recompressed batch is whole");
        let records = again.records(LIMIT).expect("just compressed");
        assert!(
            records.eq(owned.iter().cloned()),
            "{codec}: the same records"
        );
    }
}

/// Recorded batches, and one of each codec with all that a record can have.
pub fn seeds() -> Vec<Vec<u8>> {
    let head = |choices: u8| [&[choices][..], &7i64.to_be_bytes(), &3i32.to_be_bytes()].concat();
    let built = Codec::ALL.map(built);
    let all = produced_batches().into_iter().chain(built);
    all.map(|batch| [&head(MEND)[..], &batch].concat())
        .collect()
}

pub(super) fn built(codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for n in 0..4u8 {
        let value = [n; 40];
        let headers: &[_] = &[(&b"unit"[..], Some(&b"m/s"[..])), (b"null", None)];
        builder
            .push(
                Timestamp::from_millis(1_700_000_000_000 + i64::from(n)),
                (n != 2).then_some(&b"buoy-7"[..]),
                (n != 3).then_some(&value[..]),
                if n == 1 { headers } else { &[] },
            )
            .expect("small records");
    }
    builder.build().expect("a small batch")
}
