//! Building batches, for producers. Records are written in their final form as they come; compression happens at the end.

use bytes::Bytes;

use super::header::Attributes;
use super::{
    CodecError, Compression, HEADER_BYTES, LENGTH_PREFIX_BYTES, MAGIC, POSITION_ATTRIBUTES, crc32c,
};
use crate::varint::{i64_bytes, put_i64};
use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

/// A header to be written: key and value.
pub type HeaderRef<'a> = (&'a [u8], Option<&'a [u8]>);

/// What a record consists of, beside its time and place.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordBody<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; None is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [HeaderRef<'a>],
}

/// Why a batch cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// No record was pushed.
    #[error("a batch needs at least one record")]
    Empty,
    /// With this record the batch would be larger than the format allows (2 GiB).
    #[error("the record does not fit: the batch would have {bytes} bytes")]
    TooLarge {
        /// How large it would be.
        bytes: usize,
    },
    /// Compressing the records failed.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Collects records and makes a batch of them, with base offset 0 unless told otherwise.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    compression: Compression,
    /// Room for the header, then the records, not compressed.
    plain: Vec<u8>,
    record_count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    base_offset: Offset,
    leader_epoch: i32,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    attributes: i16,
    append_time: Option<i64>,
}

impl BatchBuilder {
    /// An empty batch that will be compressed so.
    pub fn new(compression: impl Into<Compression>) -> BatchBuilder {
        BatchBuilder::with_capacity(compression, 0)
    }

    /// An empty batch with room for this many bytes of records.
    pub fn with_capacity(compression: impl Into<Compression>, bytes: usize) -> BatchBuilder {
        let mut plain = Vec::with_capacity(HEADER_BYTES.saturating_add(bytes));
        plain.resize(HEADER_BYTES, 0);
        BatchBuilder {
            compression: compression.into(),
            plain,
            record_count: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            base_offset: Offset::ZERO,
            leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            attributes: 0,
            append_time: None,
        }
    }

    /// The idempotent producer, and the first record's sequence number.
    pub fn producer(
        &mut self,
        id: ProducerId,
        epoch: ProducerEpoch,
        base_sequence: i32,
    ) -> &mut Self {
        self.producer_id = id.get();
        self.producer_epoch = epoch.get();
        self.base_sequence = base_sequence;
        self
    }

    /// The first record's offset; 0 without this.
    pub fn base_offset(&mut self, base: Offset) -> &mut Self {
        self.base_offset = base;
        self
    }

    /// The leader epoch; -1 without this.
    pub fn leader_epoch(&mut self, epoch: LeaderEpoch) -> &mut Self {
        self.leader_epoch = epoch.to_wire();
        self
    }

    /// Attribute bits beside the codec, for tests of what must be refused or shown.
    pub fn attributes(&mut self, attributes: Attributes) -> &mut Self {
        self.attributes = attributes.bits();
        self
    }

    /// The time of all records, whatever their own are, as a broker gives it where a topic wants that.
    pub fn append_time(&mut self, time: Timestamp) -> &mut Self {
        self.attributes |= Attributes::LOG_APPEND_TIME;
        self.append_time = Some(time.millis());
        self
    }

    /// Appends a record. The first one's timestamp is the batch's base.
    pub fn push(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderRef<'_>],
    ) -> Result<(), BuildError> {
        self.push_body(
            timestamp,
            RecordBody {
                key,
                value,
                headers,
            },
        )
    }

    /// Appends a record, as [`BatchBuilder::push`] does.
    pub fn push_body(
        &mut self,
        timestamp: Timestamp,
        body: RecordBody<'_>,
    ) -> Result<(), BuildError> {
        let millis = timestamp.millis();
        if self.record_count == 0 {
            self.base_timestamp = millis;
            self.max_timestamp = millis;
        }
        let timestamp_delta = millis.wrapping_sub(self.base_timestamp);
        let body_bytes = body_bytes(timestamp_delta, self.record_count, &body);
        let batch_bytes = self
            .plain
            .len()
            .saturating_add(body_bytes)
            .saturating_add(5);
        if batch_bytes > i32::MAX as usize || self.record_count == i32::MAX {
            return Err(BuildError::TooLarge { bytes: batch_bytes });
        }
        self.max_timestamp = self.max_timestamp.max(millis);
        self.write(timestamp_delta, body_bytes, &body);
        self.record_count += 1;
        Ok(())
    }

    fn write(&mut self, timestamp_delta: i64, body_bytes: usize, body: &RecordBody<'_>) {
        let out = &mut self.plain;
        out.reserve(body_bytes + 5);
        put_i64(out, body_bytes as i64);
        out.push(0);
        put_i64(out, timestamp_delta);
        put_i64(out, i64::from(self.record_count));
        put_nullable(out, body.key);
        put_nullable(out, body.value);
        put_i64(out, body.headers.len() as i64);
        for (key, value) in body.headers {
            put_nullable(out, Some(key));
            put_nullable(out, *value);
        }
    }

    /// How many records there are.
    pub fn record_count(&self) -> usize {
        self.record_count.unsigned_abs() as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// The batch's size so far, before compression: header and records.
    pub fn plain_bytes(&self) -> usize {
        self.plain.len()
    }

    /// By how much a record with these sizes could make the batch larger at most, before compression, headers aside.
    pub fn record_bytes_max(key_bytes: usize, value_bytes: usize) -> usize {
        // length 5, attributes 1, timestamp 10, offset 5, key length 5, value length 5, header count 1
        32usize
            .saturating_add(key_bytes)
            .saturating_add(value_bytes)
    }

    /// The size of a batch with this record alone, before compression.
    pub fn alone_bytes(body: &RecordBody<'_>) -> usize {
        let bytes = body_bytes(0, 0, body);
        let length_bytes = i64::try_from(bytes).map_or(usize::MAX, i64_bytes);
        HEADER_BYTES
            .saturating_add(length_bytes)
            .saturating_add(bytes)
    }

    /// Makes the batch.
    pub fn build(mut self) -> Result<Bytes, BuildError> {
        if self.record_count == 0 {
            return Err(BuildError::Empty);
        }
        let mut bytes = match self.compression.codec {
            super::Codec::None => std::mem::take(&mut self.plain),
            _ => {
                let records = &self.plain[HEADER_BYTES..];
                let mut out = Vec::with_capacity(HEADER_BYTES + records.len() / 2 + 64);
                out.resize(HEADER_BYTES, 0);
                crate::codec::compress(self.compression, records, &mut out)?;
                out
            }
        };
        self.write_header(&mut bytes)?;
        Ok(Bytes::from(bytes))
    }

    fn write_header(&self, bytes: &mut [u8]) -> Result<(), BuildError> {
        let too_large = BuildError::TooLarge { bytes: bytes.len() };
        let length = i32::try_from(bytes.len() - LENGTH_PREFIX_BYTES).map_err(|_| too_large)?;
        let attributes = Attributes::from_bits(self.attributes).with_codec(self.compression.codec);
        bytes[..8].copy_from_slice(&self.base_offset.to_wire().to_be_bytes());
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        bytes[16] = MAGIC.cast_unsigned();
        bytes[21..23].copy_from_slice(&attributes.bits().to_be_bytes());
        bytes[23..27].copy_from_slice(&(self.record_count - 1).to_be_bytes());
        bytes[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        let max_timestamp = self.append_time.unwrap_or(self.max_timestamp);
        bytes[35..43].copy_from_slice(&max_timestamp.to_be_bytes());
        bytes[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        bytes[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        bytes[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        bytes[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        let crc = crc32c(&bytes[POSITION_ATTRIBUTES..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        Ok(())
    }
}

fn body_bytes(timestamp_delta: i64, offset_delta: i32, body: &RecordBody<'_>) -> usize {
    let headers = body
        .headers
        .iter()
        .map(|(key, value)| nullable_bytes(Some(key)) + nullable_bytes(*value));
    1 + i64_bytes(timestamp_delta)
        + i64_bytes(i64::from(offset_delta))
        + nullable_bytes(body.key)
        + nullable_bytes(body.value)
        + i64_bytes(body.headers.len() as i64)
        + headers.sum::<usize>()
}

fn nullable_bytes(part: Option<&[u8]>) -> usize {
    match part {
        Some(part) => i64_bytes(part.len() as i64) + part.len(),
        None => 1,
    }
}

fn put_nullable(out: &mut Vec<u8>, part: Option<&[u8]>) {
    match part {
        Some(part) => {
            put_i64(out, part.len() as i64);
            out.extend_from_slice(part);
        }
        None => put_i64(out, -1),
    }
}
