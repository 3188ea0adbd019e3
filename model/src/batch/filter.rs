//! A batch again with some of its records: what cleanup leaves of one.
//!
//! Callers: the keepers of `storage`'s cleanup policies. Everything but the records stays: base offset and last offset delta, so
//! that the offsets of what went are still taken; producer id, epoch and sequence; leader epoch, codec, timestamp type, flags.
//! Invariants: a batch of which all records stay is not touched; what a control batch holds is never looked into; a record that
//! stays has the same offset, timestamp, key, value and headers as before.
//! Source: Kafka's `MemoryRecords.filterTo` and KIP-534. A batch whose records that stay include a tombstone gets a delete
//! horizon when it is first cleaned: attribute bit 6, and the time after which its tombstones may go as base timestamp. The
//! timestamps of the records count from it, and are mostly negative then.

use bytes::Bytes;

use super::header::Attributes;
use super::{
    Batch, BatchError, BatchHeader, Codec, CodecError, DecompressLimit, HEADER_BYTES,
    LENGTH_PREFIX_BYTES, MAGIC, POSITION_ATTRIBUTES, POSITION_CRC, RecordRef, TimestampType,
    crc32c,
};
use crate::varint::{i64_bytes, put_i64, take_i64};
use crate::{Offset, Timestamp};

/// Rebuilds batches from some of their records. Keeps its memory from one to the next.
#[derive(Debug, Default)]
pub struct Filter {
    limit: DecompressLimit,
    kept: Vec<Kept>,
    plain: Vec<u8>,
}

/// A record that stays: where it stands in the decompressed records, and its time.
#[derive(Clone, Copy, Debug)]
struct Kept {
    from: usize,
    to: usize,
    timestamp: i64,
}

/// What is left of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filtered {
    /// The batch.
    pub rest: Rest,
    /// Records that stay.
    pub kept: u32,
    /// Records that went.
    pub dropped: u32,
    /// Of those that stay: without a value.
    pub tombstones_kept: u32,
    /// Of those that went: without a value.
    pub tombstones_dropped: u32,
}

/// See [`Filtered`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing has changed: its bytes stay as they are.
    Whole,
    /// This takes its place.
    Rebuilt(Bytes),
    /// No record is left; [`super::without_records`] stands for it where its place in the log must be kept.
    Nothing,
}

impl Filter {
    /// Decompresses no batch to more than `limit`.
    pub fn new(limit: DecompressLimit) -> Filter {
        Filter {
            limit,
            ..Filter::default()
        }
    }

    /// Leaves the records for which `keep` is true. With a `horizon`, a batch that keeps a tombstone and has no delete horizon
    /// gets this one. Errors: the records cannot be read.
    pub fn apply(
        &mut self,
        batch: &Batch,
        horizon: Option<Timestamp>,
        keep: &mut dyn FnMut(&RecordRef<'_>) -> bool,
    ) -> Result<Filtered, BatchError> {
        let header = batch.header();
        let mut filtered = Filtered {
            rest: Rest::Whole,
            kept: 0,
            dropped: 0,
            tombstones_kept: 0,
            tombstones_dropped: 0,
        };
        if header.is_control() {
            filtered.kept = header.record_count.unsigned_abs();
            return Ok(filtered);
        }
        self.kept.clear();
        let mut records = batch.records(self.limit)?;
        let payload = records.payload().clone();
        loop {
            let from = records.position();
            let Some(record) = records.next_ref() else {
                break;
            };
            let record = record?;
            let tombstone = u32::from(record.value.is_none());
            let timestamp = record.timestamp.millis();
            if keep(&record) {
                filtered.kept += 1;
                filtered.tombstones_kept += tombstone;
                let to = records.position();
                self.kept.push(Kept {
                    from,
                    to,
                    timestamp,
                });
            } else {
                filtered.dropped += 1;
                filtered.tombstones_dropped += tombstone;
            }
        }
        let horizon = horizon
            .filter(|_| filtered.tombstones_kept > 0 && !header.attributes.has_delete_horizon());
        filtered.rest = if filtered.kept == 0 {
            Rest::Nothing
        } else if filtered.dropped == 0 && horizon.is_none() {
            Rest::Whole
        } else {
            Rest::Rebuilt(self.rebuild(header, &payload, horizon)?)
        };
        Ok(filtered)
    }

    /// Takes out the records at the offsets for which `goes` is true, and says how many. The batch's records were read before: of
    /// each it only looks where it stands. Errors: they cannot be read.
    pub fn take_out(
        &mut self,
        batch: &Batch,
        goes: &mut dyn FnMut(Offset) -> bool,
    ) -> Result<(Rest, u32), BatchError> {
        let header = batch.header();
        if header.is_control() {
            return Ok((Rest::Whole, 0));
        }
        self.kept.clear();
        let mut gone = 0;
        let mut records = batch.records(self.limit)?;
        while let Some(place) = records.next_place() {
            let place = place?;
            if goes(place.offset) {
                gone += 1;
                continue;
            }
            self.kept.push(Kept {
                from: place.bytes.start,
                to: place.bytes.end,
                timestamp: place.timestamp.millis(),
            });
        }
        let rest = match (gone, self.kept.is_empty()) {
            (0, _) => Rest::Whole,
            (_, true) => Rest::Nothing,
            (_, false) => Rest::Rebuilt(self.rebuild(header, records.payload(), None)?),
        };
        Ok((rest, gone))
    }

    fn kept_bytes(&self) -> usize {
        self.kept.iter().map(|kept| kept.to - kept.from).sum()
    }

    /// The batch with the records of `self.kept`.
    fn rebuild(
        &mut self,
        header: &BatchHeader,
        payload: &[u8],
        horizon: Option<Timestamp>,
    ) -> Result<Bytes, BatchError> {
        let first = self.kept.first().expect("a record stays").timestamp;
        let base_timestamp = match horizon {
            Some(horizon) => horizon.millis(),
            None if header.attributes.has_delete_horizon() => header.base_timestamp,
            None => first,
        };
        let max_timestamp = match header.timestamp_type() {
            TimestampType::LogAppendTime => header.max_timestamp,
            TimestampType::CreateTime => {
                let times = self.kept.iter().map(|kept| kept.timestamp);
                times.max().expect("a record stays")
            }
        };
        let attributes = match horizon {
            Some(_) => header.attributes.with_delete_horizon(),
            None => header.attributes,
        };
        let codec = header.codec()?;
        let mut bytes = Vec::with_capacity(match codec {
            // Records that are put together anew may become longer by a few bytes.
            Codec::None => HEADER_BYTES + self.kept_bytes() + 8 * self.kept.len(),
            _ => HEADER_BYTES,
        });
        bytes.resize(HEADER_BYTES, 0);
        let out = match codec {
            Codec::None => &mut bytes,
            _ => {
                self.plain.clear();
                &mut self.plain
            }
        };
        for kept in &self.kept {
            let record = &payload[kept.from..kept.to];
            if base_timestamp == header.base_timestamp {
                out.extend_from_slice(record);
            } else {
                put_record(out, record, kept.timestamp.wrapping_sub(base_timestamp));
            }
        }
        if codec != Codec::None {
            crate::codec::compress(codec, &self.plain, &mut bytes)?;
        }
        let fields = Fields {
            attributes,
            base_timestamp,
            max_timestamp,
            record_count: i32::try_from(self.kept.len()).expect("no more than there were"),
        };
        write_header(&mut bytes, header, fields)?;
        Ok(bytes.into())
    }
}

/// A record's bytes with another timestamp delta.
fn put_record(out: &mut Vec<u8>, record: &[u8], timestamp_delta: i64) {
    const CHECKED: &str = "the record was read before";
    let mut rest = record;
    take_i64(&mut rest).expect(CHECKED);
    let (attributes, after) = rest.split_first().expect(CHECKED);
    rest = after;
    take_i64(&mut rest).expect(CHECKED);
    put_i64(out, (1 + i64_bytes(timestamp_delta) + rest.len()) as i64);
    out.push(*attributes);
    put_i64(out, timestamp_delta);
    out.extend_from_slice(rest);
}

/// What of a header changes.
#[derive(Clone, Copy, Debug)]
struct Fields {
    attributes: Attributes,
    base_timestamp: i64,
    max_timestamp: i64,
    record_count: i32,
}

fn write_header(bytes: &mut [u8], old: &BatchHeader, new: Fields) -> Result<(), BatchError> {
    let length =
        i32::try_from(bytes.len() - LENGTH_PREFIX_BYTES).map_err(|error| CodecError::Compress {
            codec: new.attributes.codec().unwrap_or(Codec::None),
            reason: error.to_string(),
        })?;
    bytes[..8].copy_from_slice(&old.base_offset.to_be_bytes());
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[12..16].copy_from_slice(&old.leader_epoch.to_be_bytes());
    bytes[16] = MAGIC.cast_unsigned();
    bytes[21..23].copy_from_slice(&new.attributes.bits().to_be_bytes());
    bytes[23..27].copy_from_slice(&old.last_offset_delta.to_be_bytes());
    bytes[27..35].copy_from_slice(&new.base_timestamp.to_be_bytes());
    bytes[35..43].copy_from_slice(&new.max_timestamp.to_be_bytes());
    bytes[43..51].copy_from_slice(&old.producer_id.to_be_bytes());
    bytes[51..53].copy_from_slice(&old.producer_epoch.to_be_bytes());
    bytes[53..57].copy_from_slice(&old.base_sequence.to_be_bytes());
    bytes[57..61].copy_from_slice(&new.record_count.to_be_bytes());
    let crc = crc32c(&bytes[POSITION_ATTRIBUTES..]);
    bytes[POSITION_CRC..POSITION_ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    Ok(())
}
