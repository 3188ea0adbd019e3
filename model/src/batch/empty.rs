//! A batch whose records are all gone: it keeps the place of its offsets, its producer and its sequence.

use bytes::Bytes;

use super::header::{Attributes, BatchHeader, TimestampType};
use super::{HEADER_BYTES, LENGTH_PREFIX_BYTES, MAGIC, POSITION_ATTRIBUTES, POSITION_CRC, crc32c};

/// The batch without any record: same offsets, leader epoch, producer and largest timestamp. Source: Kafka's
/// `DefaultRecordBatch.writeEmptyHeader`, which the log cleaner writes where the last batch of a producer has no record left.
pub fn without_records(header: &BatchHeader) -> Bytes {
    let mut attributes = 0;
    if header.timestamp_type() == TimestampType::LogAppendTime {
        attributes |= Attributes::LOG_APPEND_TIME;
    }
    if header.is_transactional() {
        attributes |= Attributes::TRANSACTIONAL;
    }
    if header.is_control() {
        attributes |= Attributes::CONTROL;
    }
    let length = (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32;
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(&header.base_offset.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&header.leader_epoch.to_be_bytes());
    bytes.push(MAGIC.cast_unsigned());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&attributes.to_be_bytes());
    bytes.extend_from_slice(&header.last_offset_delta.to_be_bytes());
    // The base timestamp, which nothing counts from any more, and which is no delete horizon.
    bytes.extend_from_slice(&header.max_timestamp.to_be_bytes());
    bytes.extend_from_slice(&header.max_timestamp.to_be_bytes());
    bytes.extend_from_slice(&header.producer_id.to_be_bytes());
    bytes.extend_from_slice(&header.producer_epoch.to_be_bytes());
    bytes.extend_from_slice(&header.base_sequence.to_be_bytes());
    bytes.extend_from_slice(&0i32.to_be_bytes());
    assert!(bytes.len() == HEADER_BYTES, "an empty batch is a header");
    let crc = crc32c(&bytes[POSITION_ATTRIBUTES..]);
    bytes[POSITION_CRC..POSITION_ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, BatchBuilder, Codec, DecompressLimit};
    use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

    #[test]
    fn an_empty_batch_keeps_offsets_epoch_and_producer_and_holds_no_record() {
        let mut builder = BatchBuilder::new(Codec::Zstd);
        builder
            .base_offset(Offset::new(40))
            .leader_epoch(LeaderEpoch::new(3))
            .producer(ProducerId::new(7), ProducerEpoch::new(2), 11);
        for time in [5, 9, 4] {
            builder
                .push(Timestamp::from_millis(time), None, Some(b"value"), &[])
                .unwrap();
        }
        let whole = Batch::parse(builder.build().unwrap()).unwrap();
        let empty = Batch::parse(without_records(whole.header())).unwrap();
        let (before, after) = (*whole.header(), *empty.header());
        let expected = BatchHeader {
            length: 49,
            crc: after.crc,
            attributes: Attributes::from_bits(0),
            base_timestamp: 9,
            record_count: 0,
            ..before
        };
        assert_eq!(after, expected);
        assert_eq!(after.last_sequence(), before.last_sequence());
        let records = empty.records(DecompressLimit::default()).unwrap();
        assert_eq!(records.count(), 0);
    }
}
