//! A batch's header: its fields, and whether they can be true.

use super::{BatchError, Codec, HEADER_BYTES, LENGTH_PREFIX_BYTES, MAGIC, POSITION_MAGIC};
use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

/// The least that one record takes: seven one-byte fields.
const RECORD_BYTES_MIN: usize = 7;

/// Whose clock a batch's timestamps are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's: every record has the batch's max timestamp.
    LogAppendTime,
}

/// The attributes field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes(i16);

impl Attributes {
    pub(crate) const LOG_APPEND_TIME: i16 = 1 << 3;
    pub(super) const TRANSACTIONAL: i16 = 1 << 4;
    pub(super) const CONTROL: i16 = 1 << 5;
    const DELETE_HORIZON: i16 = 1 << 6;

    /// From the field's bits.
    pub const fn from_bits(bits: i16) -> Attributes {
        Attributes(bits)
    }

    /// The field's bits.
    pub const fn bits(self) -> i16 {
        self.0
    }

    /// How the records are compressed; None for a number that is not in use.
    pub const fn codec(self) -> Option<Codec> {
        Codec::from_bits(self.0)
    }

    /// Whose clock the timestamps are of.
    pub const fn timestamp_type(self) -> TimestampType {
        if self.0 & Attributes::LOG_APPEND_TIME != 0 {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        }
    }

    /// Whether the batch is part of a transaction.
    pub const fn is_transactional(self) -> bool {
        self.0 & Attributes::TRANSACTIONAL != 0
    }

    /// Whether the batch holds a transaction's end instead of records.
    pub const fn is_control(self) -> bool {
        self.0 & Attributes::CONTROL != 0
    }

    /// Whether the base timestamp is the time after which compaction may drop tombstones.
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & Attributes::DELETE_HORIZON != 0
    }

    /// The same for a batch whose base timestamp is its delete horizon.
    #[must_use]
    pub const fn with_delete_horizon(self) -> Attributes {
        Attributes(self.0 | Attributes::DELETE_HORIZON)
    }

    /// The same with another codec.
    #[must_use]
    pub const fn with_codec(self, codec: Codec) -> Attributes {
        Attributes((self.0 & !Codec::MASK) | codec.bits())
    }
}

/// The fields of a batch's header, in wire order. Offsets and counts are checked by [`BatchHeader::parse`]; the rest is
/// what the producer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The first record's offset; never negative. See [`BatchHeader::base`].
    pub base_offset: i64,
    /// Bytes after the length field. See [`BatchHeader::total_bytes`].
    pub length: i32,
    /// The leader epoch stamped on it, or -1.
    pub leader_epoch: i32,
    /// CRC-32C of what follows it.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: Attributes,
    /// The last record's offset, relative to the base; never negative.
    pub last_offset_delta: i32,
    /// The first record's timestamp, from which the others count; or the delete horizon. See [`BatchHeader::first_time`].
    pub base_timestamp: i64,
    /// The largest timestamp, as the producer or the broker says.
    pub max_timestamp: i64,
    /// The producer's id, or -1.
    pub producer_id: i64,
    /// The producer's epoch, or -1.
    pub producer_epoch: i16,
    /// The first record's sequence number, or -1.
    pub base_sequence: i32,
    /// How many records; never negative, never more than offsets.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads a header from the first [`HEADER_BYTES`] bytes; what follows is not looked at.
    /// Checks length field, magic, and that offsets and counts are possible. The codec is checked when it is asked for.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        // The magic stands at the same place in every format: an old format should be called so, not "cut short".
        if let Some(&magic) = bytes.get(POSITION_MAGIC)
            && magic.cast_signed() != MAGIC
        {
            return Err(BatchError::Magic {
                found: magic.cast_signed(),
            });
        }
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Truncated {
                have: bytes.len(),
                need: HEADER_BYTES,
            });
        };
        let header = BatchHeader {
            base_offset: i64::from_be_bytes(field(head, 0)),
            length: i32::from_be_bytes(field(head, 8)),
            leader_epoch: i32::from_be_bytes(field(head, 12)),
            crc: u32::from_be_bytes(field(head, 17)),
            attributes: Attributes(i16::from_be_bytes(field(head, 21))),
            last_offset_delta: i32::from_be_bytes(field(head, 23)),
            base_timestamp: i64::from_be_bytes(field(head, 27)),
            max_timestamp: i64::from_be_bytes(field(head, 35)),
            producer_id: i64::from_be_bytes(field(head, 43)),
            producer_epoch: i16::from_be_bytes(field(head, 51)),
            base_sequence: i32::from_be_bytes(field(head, 53)),
            record_count: i32::from_be_bytes(field(head, 57)),
        };
        header.check_length()?;
        header.check_counts()?;
        Ok(header)
    }

    fn check_length(&self) -> Result<(), BatchError> {
        let least = (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32;
        if self.length < least {
            Err(BatchError::Length {
                length: self.length,
            })
        } else {
            Ok(())
        }
    }

    fn check_counts(&self) -> Result<(), BatchError> {
        let offsets = i64::from(self.last_offset_delta) + 1;
        let body_bytes = self.total_bytes() - HEADER_BYTES;
        let plain = self.attributes.bits() & Codec::MASK == 0;
        let possible = self.base_offset >= 0
            && self.last_offset_delta >= 0
            && self.base_offset.checked_add(offsets).is_some()
            && self.record_count >= 0
            && i64::from(self.record_count) <= offsets
            && (!plain || self.record_count as usize <= body_bytes / RECORD_BYTES_MIN);
        if possible {
            return Ok(());
        }
        Err(BatchError::Count {
            base_offset: self.base_offset,
            last_offset_delta: self.last_offset_delta,
            record_count: self.record_count,
        })
    }

    /// The whole batch's size in bytes.
    pub fn total_bytes(&self) -> usize {
        LENGTH_PREFIX_BYTES + usize::try_from(self.length).unwrap_or(0)
    }

    /// How the records are compressed.
    pub fn codec(&self) -> Result<Codec, BatchError> {
        let bits = self.attributes.bits() & Codec::MASK;
        self.attributes
            .codec()
            .ok_or(BatchError::UnknownCodec { bits })
    }

    /// Whether the batch is part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes.is_transactional()
    }

    /// Whether the batch holds a transaction's end instead of records.
    pub fn is_control(&self) -> bool {
        self.attributes.is_control()
    }

    /// Whose clock the timestamps are of.
    pub fn timestamp_type(&self) -> TimestampType {
        self.attributes.timestamp_type()
    }

    /// The first record's offset.
    pub fn base(&self) -> Offset {
        Offset::from_wire(self.base_offset).expect("parse refuses negative base offsets")
    }

    /// The last record's offset, inclusive.
    pub fn last_offset(&self) -> Offset {
        self.base()
            .plus(u64::from(self.last_offset_delta.unsigned_abs()))
    }

    /// The offset after the batch.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// How many offsets the batch takes: as many as records, unless compaction removed some.
    pub fn offset_count(&self) -> u64 {
        u64::from(self.last_offset_delta.unsigned_abs()) + 1
    }

    /// The leader epoch stamped on it.
    pub fn epoch(&self) -> Option<LeaderEpoch> {
        LeaderEpoch::from_wire(self.leader_epoch)
    }

    /// The first record's timestamp. None where the header does not tell: with a delete horizon, or without a record.
    pub fn first_time(&self) -> Option<Timestamp> {
        let is_told = !self.attributes.has_delete_horizon() && self.record_count > 0;
        is_told.then_some(Timestamp::from_millis(self.base_timestamp))
    }

    /// The time from which on compaction may drop the batch's tombstones, once it has seen them.
    pub fn delete_horizon(&self) -> Option<Timestamp> {
        let has = self.attributes.has_delete_horizon();
        has.then_some(Timestamp::from_millis(self.base_timestamp))
    }

    /// The largest timestamp, as the header says.
    pub fn max_time(&self) -> Timestamp {
        Timestamp::from_millis(self.max_timestamp)
    }

    /// The idempotent producer that wrote it: id, epoch and the first record's sequence.
    pub fn producer(&self) -> Option<(ProducerId, ProducerEpoch, i32)> {
        let id = ProducerId::from_wire(self.producer_id)?;
        Some((
            id,
            ProducerEpoch::new(self.producer_epoch),
            self.base_sequence,
        ))
    }

    /// The last record's sequence number; wraps from `i32::MAX` to 0. None without a producer.
    pub fn last_sequence(&self) -> Option<i32> {
        self.producer()
            .map(|(_, _, first)| sequence_plus(first, self.last_offset_delta))
    }
}

/// A sequence number `count` further on, wrapping from `i32::MAX` to 0 as Kafka's do.
fn sequence_plus(sequence: i32, count: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(count);
    (sum & i64::from(i32::MAX)) as i32
}

fn field<const N: usize>(head: &[u8; HEADER_BYTES], position: usize) -> [u8; N] {
    *head[position..]
        .first_chunk()
        .expect("every field lies within the header")
}
