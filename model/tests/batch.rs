//! What a batch promises: records come back, damage is found, stamping leaves the checksum alone.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail as its assertions do"
)]

use alluvium_model::batch::{
    Attributes, Batch, BatchBuilder, BatchError, BuildError, Codec, CodecError, Compression,
    DecompressLimit, HEADER_BYTES, HeaderRef, LENGTH_PREFIX_BYTES, Record, RecordHeader,
    TimestampType, crc32c, peek_len, recompress, records_summary, split, stamp, stamped_head,
    with_log_append_time, with_max_timestamp,
};
use alluvium_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};
use bytes::Bytes;
use proptest::prelude::*;

const LIMIT: DecompressLimit = DecompressLimit::bytes(1 << 24);

#[derive(Clone, Debug)]
struct Input {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn input() -> impl Strategy<Value = Input> {
    let part = || prop::collection::vec(any::<u8>(), 0..200);
    let headers = prop::collection::vec((part(), prop::option::of(part())), 0..3);
    let times = prop_oneof![any::<i64>(), 1_700_000_000_000i64..1_700_000_100_000];
    (
        times,
        prop::option::of(part()),
        prop::option::of(part()),
        headers,
    )
        .prop_map(|(timestamp, key, value, headers)| Input {
            timestamp,
            key,
            value,
            headers,
        })
}

fn codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(Codec::ALL.to_vec())
}

fn build(codec: impl Into<Compression>, inputs: &[Input]) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for input in inputs {
        let headers: Vec<HeaderRef> = input
            .headers
            .iter()
            .map(|(key, value)| (&key[..], value.as_deref()))
            .collect();
        let timestamp = Timestamp::from_millis(input.timestamp);
        builder
            .push(
                timestamp,
                input.key.as_deref(),
                input.value.as_deref(),
                &headers,
            )
            .unwrap();
    }
    builder.build().unwrap()
}

fn simple(codec: Codec, count: i64) -> Bytes {
    let value = |i: i64| Some(format!("value {i}").into_bytes());
    let inputs: Vec<Input> = (0..count)
        .map(|i| Input {
            timestamp: 1000 + i,
            key: None,
            value: value(i),
            headers: vec![],
        })
        .collect();
    build(codec, &inputs)
}

fn read(batch: &Batch) -> Vec<Record> {
    batch.records(LIMIT).unwrap().map(Result::unwrap).collect()
}

fn with_crc(mut bytes: Vec<u8>) -> Bytes {
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

fn patched(bytes: &Bytes, position: usize, field: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[position..position + field.len()].copy_from_slice(field);
    with_crc(bytes)
}

#[test]
fn crc32c_is_castagnolis() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(b""), 0);
    for bytes in [1, 15, 16, 17, 255, 4096, 16384, 100_001] {
        let data: Vec<u8> = (0..bytes).map(|i| (i * 7 + i / 256) as u8).collect();
        assert_eq!(crc32c(&data), bitwise_crc32c(&data), "{bytes}");
    }
}

fn bitwise_crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn a_batch_cut_anywhere_is_no_batch() {
    for codec in Codec::ALL {
        let whole = simple(codec, 20);
        assert!(Batch::parse(whole.clone()).is_ok());
        for end in 0..whole.len() {
            assert!(Batch::parse(whole.slice(..end)).is_err(), "{codec} {end}");
            assert!(
                split(whole.slice(..end)).all(|batch| batch.is_err()),
                "{codec} {end}"
            );
        }
        let longer = [&whole[..], b"x"].concat();
        assert_eq!(
            Batch::parse(longer.into()),
            Err(BatchError::Trailing { bytes: 1 })
        );
    }
}

#[test]
fn every_flipped_bit_under_the_checksum_is_found() {
    for codec in Codec::ALL {
        let whole = simple(codec, 10);
        for position in 16..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.to_vec();
                bytes[position] ^= 1 << bit;
                assert!(
                    Batch::parse(bytes.into()).is_err(),
                    "{codec} byte {position} bit {bit}"
                );
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_the_length_is_found() {
    let whole = simple(Codec::None, 10);
    for position in 8..LENGTH_PREFIX_BYTES {
        for bit in 0..8 {
            let mut bytes = whole.to_vec();
            bytes[position] ^= 1 << bit;
            assert!(
                Batch::parse(bytes.into()).is_err(),
                "byte {position} bit {bit}"
            );
        }
    }
}

#[test]
fn impossible_headers_are_refused_before_the_checksum_matters() {
    let whole = simple(Codec::None, 3);
    let count = |bytes| matches!(Batch::parse(bytes), Err(BatchError::Count { .. }));
    assert!(
        count(patched(&whole, 0, &(-1i64).to_be_bytes())),
        "negative base offset"
    );
    assert!(
        count(patched(&whole, 0, &(i64::MAX - 2).to_be_bytes())),
        "offsets beyond i64"
    );
    assert!(
        count(patched(&whole, 23, &(-1i32).to_be_bytes())),
        "negative last offset"
    );
    assert!(
        count(patched(&whole, 57, &(-1i32).to_be_bytes())),
        "negative count"
    );
    assert!(
        count(patched(&whole, 57, &4i32.to_be_bytes())),
        "more records than offsets"
    );
    let many = patched(
        &patched(&whole, 23, &(i32::MAX - 1).to_be_bytes()),
        57,
        &i32::MAX.to_be_bytes(),
    );
    assert!(count(many), "more records than bytes");
    for magic in [0i8, 1, 3, -1] {
        let old = patched(&whole, 16, &magic.to_be_bytes());
        assert_eq!(Batch::parse(old), Err(BatchError::Magic { found: magic }));
    }
    let length = patched(&whole, 8, &48i32.to_be_bytes());
    assert_eq!(Batch::parse(length), Err(BatchError::Length { length: 48 }));
}

#[test]
fn records_that_contradict_the_header_are_errors() {
    let whole = simple(Codec::None, 3);
    let error = |bytes: Bytes| {
        Batch::parse(bytes)
            .unwrap()
            .records(LIMIT)
            .unwrap()
            .find_map(Result::err)
    };
    let fewer = patched(&whole, 57, &2i32.to_be_bytes());
    assert!(matches!(
        error(fewer),
        Some(BatchError::Record { index: 2, .. })
    ));
    let shorter_delta = patched(
        &patched(&whole, 23, &1i32.to_be_bytes()),
        57,
        &2i32.to_be_bytes(),
    );
    assert!(matches!(
        error(shorter_delta),
        Some(BatchError::Record { .. })
    ));
    let longer_delta = patched(
        &patched(&whole, 23, &5i32.to_be_bytes()),
        57,
        &4i32.to_be_bytes(),
    );
    assert!(matches!(
        error(longer_delta),
        Some(BatchError::Record { index: 3, .. })
    ));
    // The first record's own length field, one too large: the next record is not where it should be.
    let mut bytes = whole.to_vec();
    bytes[HEADER_BYTES] += 2;
    assert!(error(with_crc(bytes)).is_some());
}

#[test]
fn a_compressed_batch_may_claim_any_count_and_allocates_nothing_for_it() {
    for codec in &Codec::ALL[1..] {
        let whole = simple(*codec, 3);
        let many = patched(
            &patched(&whole, 23, &(i32::MAX - 1).to_be_bytes()),
            57,
            &i32::MAX.to_be_bytes(),
        );
        let batch = Batch::parse(many).unwrap();
        let mut records = batch.records(LIMIT).unwrap();
        assert_eq!(records.by_ref().filter(Result::is_ok).count(), 3);
        assert!(records.next().is_none());
        assert!(records_summary(&batch, LIMIT).is_err());
    }
}

#[test]
fn unknown_codecs_are_named_where_the_records_are_wanted() {
    let odd = patched(&simple(Codec::None, 1), 21, &5i16.to_be_bytes());
    let batch = Batch::parse(odd).unwrap();
    assert_eq!(
        batch.records(LIMIT).unwrap_err(),
        BatchError::UnknownCodec { bits: 5 }
    );
}

#[test]
fn decompression_is_capped() {
    let zeros = vec![0u8; 1 << 20];
    for codec in Codec::ALL {
        let mut builder = BatchBuilder::new(codec);
        builder
            .push(Timestamp::from_millis(0), None, Some(&zeros), &[])
            .unwrap();
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        let error = batch.records(DecompressLimit::bytes(1 << 20)).unwrap_err();
        assert_eq!(
            error,
            BatchError::Codec(CodecError::TooLarge { limit: 1 << 20 }),
            "{codec}"
        );
    }
}

#[test]
fn an_empty_batch_is_not_built() {
    assert_eq!(
        BatchBuilder::new(Codec::None).build(),
        Err(BuildError::Empty)
    );
}

#[test]
fn the_producer_is_kept_and_sequences_wrap() {
    let mut builder = BatchBuilder::new(Codec::Lz4);
    builder.producer(ProducerId::new(9), ProducerEpoch::new(2), i32::MAX - 1);
    for _ in 0..3 {
        builder
            .push(Timestamp::from_millis(0), None, None, &[])
            .unwrap();
    }
    let batch = Batch::parse(builder.build().unwrap()).unwrap();
    assert_eq!(
        batch.header().producer(),
        Some((ProducerId::new(9), ProducerEpoch::new(2), i32::MAX - 1))
    );
    assert_eq!(batch.header().last_sequence(), Some(0));
    let none = Batch::parse(simple(Codec::None, 1)).unwrap();
    assert_eq!(
        (none.header().producer(), none.header().last_sequence()),
        (None, None)
    );
}

#[test]
fn attribute_bits_are_told_apart() {
    let mut builder = BatchBuilder::new(Codec::Zstd);
    builder.attributes(Attributes::from_bits(0b111_0000));
    builder
        .push(Timestamp::from_millis(0), None, None, &[])
        .unwrap();
    let batch = Batch::parse(builder.build().unwrap()).unwrap();
    let header = batch.header();
    assert!(
        header.is_transactional() && header.is_control() && header.attributes.has_delete_horizon()
    );
    assert_eq!(
        (header.codec(), header.timestamp_type()),
        (Ok(Codec::Zstd), TimestampType::CreateTime)
    );
}

#[test]
fn log_append_time_is_every_records_time() {
    for codec in Codec::ALL {
        let batch = Batch::parse(simple(codec, 5)).unwrap();
        let now = Timestamp::from_millis(1_800_000_000_000);
        let stamped = Batch::parse(with_log_append_time(&batch, now)).unwrap();
        assert_eq!(
            stamped.header().timestamp_type(),
            TimestampType::LogAppendTime
        );
        assert_eq!(
            stamped.header().base_timestamp,
            batch.header().base_timestamp
        );
        assert!(read(&stamped).iter().all(|record| record.timestamp == now));
        assert_eq!(stamped.compressed_records(), batch.compressed_records());
    }
}

#[test]
fn a_wrong_max_timestamp_is_corrected_under_a_new_checksum() {
    let batch = Batch::parse(simple(Codec::Gzip, 5)).unwrap();
    let lying = Batch::parse(with_max_timestamp(
        &batch,
        Timestamp::from_millis(5_000_000),
    ))
    .unwrap();
    let (_, truth) = records_summary(&lying, LIMIT)
        .unwrap()
        .max_timestamp
        .unwrap();
    assert_eq!(with_max_timestamp(&lying, truth), batch.bytes());
}

#[test]
fn the_first_twelve_bytes_tell_the_length() {
    let whole = simple(Codec::None, 2);
    assert_eq!(peek_len(&whole), Some(whole.len()));
    assert_eq!(peek_len(&whole[..12]), Some(whole.len()));
    assert_eq!(peek_len(&whole[..11]), None);
    for length in [0, 48, -1, i32::MIN] {
        assert_eq!(peek_len(&patched(&whole, 8, &length.to_be_bytes())), None);
    }
}

#[test]
fn consecutive_batches_are_cut_apart_and_a_cut_tail_is_told() {
    let parts = [
        simple(Codec::None, 3),
        simple(Codec::Zstd, 500),
        simple(Codec::Gzip, 1),
    ];
    let joined: Bytes = parts.concat().into();
    let batches: Vec<Batch> = split(joined.clone()).map(Result::unwrap).collect();
    assert_eq!(
        batches
            .iter()
            .map(|batch| batch.bytes().clone())
            .collect::<Vec<_>>(),
        parts
    );
    let cut = joined.slice(..joined.len() - 1);
    let mut split = split(cut);
    assert!(split.next().unwrap().is_ok() && split.next().unwrap().is_ok());
    let missing_one = BatchError::Truncated {
        have: parts[2].len() - 1,
        need: parts[2].len(),
    };
    assert_eq!(split.next(), Some(Err(missing_one)));
    assert_eq!(split.next(), None);
}

proptest! {
    #[test]
    fn records_come_back_from_every_codec(codec in codec(), inputs in prop::collection::vec(input(), 1..30)) {
        let batch = Batch::parse(build(codec, &inputs)).unwrap();
        let records = read(&batch);
        prop_assert_eq!(records.len(), inputs.len());
        for (index, (record, input)) in records.iter().zip(&inputs).enumerate() {
            let headers: Vec<RecordHeader> = input
                .headers
                .iter()
                .map(|(key, value)| RecordHeader { key: key.clone().into(), value: value.clone().map(Bytes::from) })
                .collect();
            prop_assert_eq!(record, &Record {
                offset: Offset::new(index as u64),
                timestamp: Timestamp::from_millis(input.timestamp),
                key: input.key.clone().map(Bytes::from),
                value: input.value.clone().map(Bytes::from),
                headers,
            });
        }
        prop_assert_eq!(batch.header().max_timestamp, inputs.iter().map(|input| input.timestamp).max().unwrap());

        let mut borrowed = batch.records(LIMIT).unwrap();
        let mut index = 0;
        while let Some(record) = borrowed.next_ref() {
            let record = record.unwrap();
            prop_assert_eq!(record.key, records[index].key.as_deref());
            prop_assert_eq!(record.value, records[index].value.as_deref());
            prop_assert_eq!(record.headers().count(), records[index].headers.len());
            index += 1;
        }
        prop_assert_eq!(index, records.len());
    }

    #[test]
    fn stamping_leaves_the_checksum_valid(
        codec in codec(), base in 0u64..i64::MAX as u64 / 2, epoch in 0u32..i32::MAX as u32, count in 1i64..20,
    ) {
        let batch = Batch::parse(simple(codec, count)).unwrap();
        let (base, epoch) = (Offset::new(base), LeaderEpoch::new(epoch));
        let mut bytes = batch.bytes().to_vec();
        stamp(bytes.first_chunk_mut().unwrap(), base, epoch);
        prop_assert_eq!(&stamped_head(&batch, base, epoch)[..], &bytes[..16]);
        let stamped = Batch::parse(bytes.into()).unwrap();
        prop_assert_eq!(stamped.header().epoch(), Some(epoch));
        prop_assert_eq!(stamped.header().next_offset(), base.plus(count as u64));
        for (index, (after, before)) in read(&stamped).into_iter().zip(read(&batch)).enumerate() {
            prop_assert_eq!(after.offset, base.plus(index as u64));
            prop_assert_eq!(after.value, before.value);
        }
    }

    #[test]
    fn recompressing_changes_nothing_but_the_codec(
        from in codec(), to in codec(), inputs in prop::collection::vec(input(), 1..10),
    ) {
        let batch = Batch::parse(build(from, &inputs)).unwrap();
        let other = Batch::parse(recompress(&batch, to, LIMIT).unwrap()).unwrap();
        prop_assert_eq!(other.header().codec(), Ok(to));
        prop_assert_eq!(read(&other), read(&batch));
        prop_assert_eq!(&other.bytes()[23..HEADER_BYTES], &batch.bytes()[23..HEADER_BYTES]);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>, magic: bool) {
        if magic && bytes.len() > 16 {
            bytes[16] = 2;
        }
        let bytes = Bytes::from(bytes);
        let _ = peek_len(&bytes);
        let _ = Batch::parse(bytes.clone());
        prop_assert!(split(bytes).count() <= 1);
    }

    #[test]
    fn damaged_records_under_a_valid_checksum_never_panic(
        codec in codec(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = simple(codec, 20).to_vec();
        for (position, value) in damage {
            let position = 21 + position.index(bytes.len() - 21);
            bytes[position] = value;
        }
        if let Ok(batch) = Batch::parse(with_crc(bytes)) {
            if let Ok(records) = batch.records(LIMIT) {
                prop_assert!(records.filter(Result::is_ok).count() <= 100_000);
            }
            let _ = records_summary(&batch, LIMIT);
            let _ = recompress(&batch, Codec::Lz4, LIMIT);
            let _ = with_log_append_time(&batch, Timestamp::from_millis(1));
        }
    }
}
