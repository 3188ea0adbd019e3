//! Changing a batch after it was produced: the only places where a producer's bytes are not kept verbatim.

use bytes::Bytes;

use super::header::Attributes;
use super::{
    Batch, BatchError, CodecError, Compression, DecompressLimit, HEADER_BYTES, LENGTH_PREFIX_BYTES,
    POSITION_ATTRIBUTES, POSITION_CRC, POSITION_LENGTH, POSITION_MAX_TIMESTAMP, crc32c,
};
use crate::{Offset, Timestamp};

/// The batch with `now` as the time of all its records. Compressed records are not touched.
pub fn with_log_append_time(batch: &Batch, now: Timestamp) -> Bytes {
    let attributes = batch.header().attributes.bits() | Attributes::LOG_APPEND_TIME;
    rewrite_header(batch, Attributes::from_bits(attributes), now)
}

/// The batch with this largest timestamp in its header: for a producer that wrote a wrong one.
pub fn with_max_timestamp(batch: &Batch, max: Timestamp) -> Bytes {
    rewrite_header(batch, batch.header().attributes, max)
}

fn rewrite_header(batch: &Batch, attributes: Attributes, max: Timestamp) -> Bytes {
    let mut bytes = batch.bytes().to_vec();
    bytes[POSITION_ATTRIBUTES..][..2].copy_from_slice(&attributes.bits().to_be_bytes());
    bytes[POSITION_MAX_TIMESTAMP..][..8].copy_from_slice(&max.millis().to_be_bytes());
    write_crc(&mut bytes);
    bytes.into()
}

/// The same records in another codec (or the same at another level); everything else in the header stays.
/// A batch that has this codec already and needs no level is handed back as it is.
pub fn recompress(
    batch: &Batch,
    how: impl Into<Compression>,
    limit: DecompressLimit,
) -> Result<Bytes, BatchError> {
    let how = how.into();
    let from = batch.header().codec()?;
    if from == how.codec {
        return Ok(batch.bytes().clone());
    }
    let plain = crate::codec::decompress(from, &batch.compressed_records(), limit)?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + plain.len());
    bytes.extend_from_slice(&batch.bytes()[..HEADER_BYTES]);
    crate::codec::compress(how, &plain, &mut bytes)?;
    let length =
        i32::try_from(bytes.len() - LENGTH_PREFIX_BYTES).map_err(|error| CodecError::Compress {
            codec: how.codec,
            reason: error.to_string(),
        })?;
    let attributes = batch.header().attributes.with_codec(how.codec);
    bytes[POSITION_LENGTH..][..4].copy_from_slice(&length.to_be_bytes());
    bytes[POSITION_ATTRIBUTES..][..2].copy_from_slice(&attributes.bits().to_be_bytes());
    write_crc(&mut bytes);
    Ok(bytes.into())
}

fn write_crc(bytes: &mut [u8]) {
    let crc = crc32c(&bytes[POSITION_ATTRIBUTES..]);
    bytes[POSITION_CRC..POSITION_ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
}

/// What a batch's records really hold, beside what its header claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordsSummary {
    /// The largest timestamp among the records, and the first record that has it.
    pub max_timestamp: Option<(Offset, Timestamp)>,
    /// The smallest timestamp among the records.
    pub min_timestamp: Option<Timestamp>,
    /// The first record without a key, counted from 0.
    pub first_without_key: Option<u32>,
}

/// Reads every record of a batch. An error means that the records are malformed, or not as many as the header says, or
/// their offsets not in order. Records may be fewer than offsets, as compaction leaves them.
pub fn records_summary(
    batch: &Batch,
    limit: DecompressLimit,
) -> Result<RecordsSummary, BatchError> {
    let mut records = batch.records(limit)?;
    let mut summary = RecordsSummary {
        max_timestamp: None,
        min_timestamp: None,
        first_without_key: None,
    };
    let mut index = 0u32;
    while let Some(record) = records.next_ref() {
        let record = record?;
        if summary
            .max_timestamp
            .is_none_or(|(_, max)| record.timestamp > max)
        {
            summary.max_timestamp = Some((record.offset, record.timestamp));
        }
        if summary
            .min_timestamp
            .is_none_or(|min| record.timestamp < min)
        {
            summary.min_timestamp = Some(record.timestamp);
        }
        if record.key.is_none() && summary.first_without_key.is_none() {
            summary.first_without_key = Some(index);
        }
        index += 1;
    }
    Ok(summary)
}
