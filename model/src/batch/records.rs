//! Reading records out of a decompressed batch, owned or borrowed. Each is checked as it is reached.
//!
//! ```text
//! record: bytes varint | attributes i8 | timestamp delta varlong | offset delta varint
//!         | key bytes varint (-1 = null) | key | value bytes varint (-1 = null) | value
//!         | headers varint | { key bytes varint | key | value bytes varint (-1 = null) | value }*
//! ```

use std::ops::Range;

use bytes::Bytes;

use super::{BatchError, BatchHeader, TimestampType};
use crate::varint::{take_i32, take_i64};
use crate::{Offset, Timestamp};

/// A record that keeps its batch's decompressed bytes alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition.
    pub offset: Offset,
    /// Its time; the batch's max timestamp under log append time.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; None is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in order; keys may repeat.
    pub headers: Vec<RecordHeader>,
}

/// A record's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Its key: UTF-8 by the protocol, any bytes in practice.
    pub key: Bytes,
    /// Its value.
    pub value: Option<Bytes>,
}

/// A record within its batch's decompressed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its place in the partition.
    pub offset: Offset,
    /// Its time; the batch's max timestamp under log append time.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; None is a tombstone.
    pub value: Option<&'a [u8]>,
    headers: HeaderRefs<'a>,
}

impl<'a> RecordRef<'a> {
    /// Its headers, in order.
    pub fn headers(&self) -> HeaderRefs<'a> {
        self.headers
    }
}

/// The headers of a [`RecordRef`], checked already: `(key, value)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderRefs<'a> {
    rest: &'a [u8],
    count: u32,
}

impl HeaderRefs<'_> {
    /// How many are left.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> Iterator for HeaderRefs<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.count == 0 {
            return None;
        }
        self.count -= 1;
        take_header(&mut self.rest).ok()
    }
}

/// The records of one batch. Yields owned records as an iterator, borrowed ones by [`Records::next_ref`].
/// After an error nothing more comes. Records that are missing, or bytes after the last, are errors.
#[derive(Clone, Debug)]
pub struct Records {
    payload: Bytes,
    position: usize,
    index: u32,
    count: u32,
    base_offset: Offset,
    last_offset_delta: i32,
    base_timestamp: i64,
    append_time: Option<Timestamp>,
    /// The least offset delta that the next record may have.
    delta_min: i32,
}

/// What records of one batch are read with, apart from their bytes: so that a record that was found in a batch's payload can be
/// looked at again, there or in a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFrame {
    base_offset: Offset,
    base_timestamp: i64,
    append_time: Option<Timestamp>,
}

impl RecordFrame {
    /// The record that begins here, if one does.
    pub fn record_at<'a>(&self, payload: &'a [u8], position: usize) -> Option<RecordRef<'a>> {
        let mut rest = payload.get(position..)?;
        let parts = take_record(&mut rest).ok()?;
        Some(self.record(&parts))
    }

    /// Offset and time of a record that begins so.
    fn stamp(&self, head: &Head<'_>) -> (Offset, Timestamp) {
        let offset_delta = u64::from(head.offset_delta.unsigned_abs());
        let millis = self.base_timestamp.wrapping_add(head.timestamp_delta);
        let timestamp = self.append_time.unwrap_or(Timestamp::from_millis(millis));
        (self.base_offset.plus(offset_delta), timestamp)
    }

    fn record<'a>(&self, parts: &Parts<'a>) -> RecordRef<'a> {
        let (offset, timestamp) = self.stamp(&parts.head);
        RecordRef {
            offset,
            timestamp,
            key: parts.key,
            value: parts.value,
            headers: parts.headers,
        }
    }
}

/// Where a record stands in its batch's payload, its offset and its time.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub bytes: Range<usize>,
    pub offset: Offset,
    pub timestamp: Timestamp,
}

/// A record's first fields.
struct Head<'a> {
    offset_delta: i32,
    timestamp_delta: i64,
    /// All that follows them.
    rest: &'a [u8],
}

/// A record's parts as positions in the payload: what owned and borrowed records are made of.
struct Parts<'a> {
    head: Head<'a>,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: HeaderRefs<'a>,
}

impl Records {
    pub(super) fn new(header: &BatchHeader, payload: Bytes) -> Records {
        let append_time =
            (header.timestamp_type() == TimestampType::LogAppendTime).then(|| header.max_time());
        Records {
            payload,
            position: 0,
            index: 0,
            count: header.record_count.unsigned_abs(),
            base_offset: header.base(),
            last_offset_delta: header.last_offset_delta,
            base_timestamp: header.base_timestamp,
            append_time,
            delta_min: 0,
        }
    }

    /// How many records are still to come, by the header.
    pub fn remaining(&self) -> usize {
        (self.count - self.index) as usize
    }

    /// Where in the payload the next record begins.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The decompressed bytes of all records.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// What its records are read with, apart from their bytes.
    pub fn frame(&self) -> RecordFrame {
        RecordFrame {
            base_offset: self.base_offset,
            base_timestamp: self.base_timestamp,
            append_time: self.append_time,
        }
    }

    /// The next record, borrowed; no allocation.
    pub fn next_ref(&mut self) -> Option<Result<RecordRef<'_>, BatchError>> {
        if self.index == self.count {
            return self.check_end().err().map(Err);
        }
        let frame = self.frame();
        let rest = &self.payload[self.position..];
        let mut after = rest;
        match take_record(&mut after).and_then(|parts| {
            let in_order =
                (self.delta_min..=self.last_offset_delta).contains(&parts.head.offset_delta);
            if in_order {
                Ok(parts)
            } else {
                Err("offset out of order")
            }
        }) {
            Ok(parts) => {
                self.position += rest.len() - after.len();
                self.index += 1;
                self.delta_min = parts.head.offset_delta.saturating_add(1);
                Some(Ok(frame.record(&parts)))
            }
            Err(reason) => {
                let index = self.index;
                self.index = self.count;
                self.position = self.payload.len();
                Some(Err(BatchError::Record { index, reason }))
            }
        }
    }

    /// Where the next record stands, its offset and its time: for records that were read before, as their fields are not looked into.
    pub(super) fn next_place(&mut self) -> Option<Result<Place, BatchError>> {
        if self.index == self.count {
            return self.check_end().err().map(Err);
        }
        let from = self.position;
        let rest = &self.payload[from..];
        let mut after = rest;
        match take_head(&mut after) {
            Ok(head) => {
                self.position += rest.len() - after.len();
                self.index += 1;
                let (offset, timestamp) = self.frame().stamp(&head);
                Some(Ok(Place {
                    bytes: from..self.position,
                    offset,
                    timestamp,
                }))
            }
            Err(reason) => {
                let index = self.index;
                self.index = self.count;
                self.position = self.payload.len();
                Some(Err(BatchError::Record { index, reason }))
            }
        }
    }

    fn check_end(&mut self) -> Result<(), BatchError> {
        if self.position == self.payload.len() {
            return Ok(());
        }
        self.position = self.payload.len();
        Err(BatchError::Record {
            index: self.index,
            reason: "bytes after the last record",
        })
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Result<Record, BatchError>> {
        let payload = self.payload.clone();
        let own = |part: &[u8]| payload.slice_ref(part);
        Some(self.next_ref()?.map(|record| {
            Record {
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.map(own),
                value: record.value.map(own),
                headers: record
                    .headers
                    .map(|(key, value)| RecordHeader {
                        key: own(key),
                        value: value.map(own),
                    })
                    .collect(),
            }
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // One more than counted: the error at the end. The lower bound promises nothing, as the count is only claimed.
        (0, Some(self.remaining() + 1))
    }
}

fn take_head<'a>(input: &mut &'a [u8]) -> Result<Head<'a>, &'static str> {
    let bytes = take_i32(input).map_err(|_| "bad length")?;
    let bytes = usize::try_from(bytes).map_err(|_| "negative length")?;
    let (mut body, after) = input
        .split_at_checked(bytes)
        .ok_or("longer than its batch")?;
    let (_attributes, rest) = body.split_first().ok_or("no attributes")?;
    body = rest;
    let timestamp_delta = take_i64(&mut body).map_err(|_| "bad timestamp")?;
    let offset_delta = take_i32(&mut body).map_err(|_| "bad offset")?;
    *input = after;
    Ok(Head {
        offset_delta,
        timestamp_delta,
        rest: body,
    })
}

fn take_record<'a>(input: &mut &'a [u8]) -> Result<Parts<'a>, &'static str> {
    let mut after = *input;
    let head = take_head(&mut after)?;
    let mut body = head.rest;
    let key = take_nullable(&mut body).map_err(|_| "bad key")?;
    let value = take_nullable(&mut body).map_err(|_| "bad value")?;
    let count = take_i32(&mut body).map_err(|_| "bad header count")?;
    let headers = HeaderRefs {
        rest: body,
        count: u32::try_from(count).map_err(|_| "negative header count")?,
    };
    for _ in 0..headers.count {
        take_header(&mut body)?;
    }
    if !body.is_empty() {
        return Err("bytes after its last field");
    }
    *input = after;
    Ok(Parts {
        head,
        key,
        value,
        headers,
    })
}

fn take_header<'a>(input: &mut &'a [u8]) -> Result<(&'a [u8], Option<&'a [u8]>), &'static str> {
    let key = take_nullable(input)
        .map_err(|_| "bad header key")?
        .ok_or("null header key")?;
    let value = take_nullable(input).map_err(|_| "bad header value")?;
    Ok((key, value))
}

struct BadLength;

fn take_nullable<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, BadLength> {
    let bytes = take_i32(input).map_err(|_| BadLength)?;
    if bytes < 0 {
        // Kafka's reader takes every negative length for null.
        return Ok(None);
    }
    let (part, after) = input
        .split_at_checked(bytes.unsigned_abs() as usize)
        .ok_or(BadLength)?;
    *input = after;
    Ok(Some(part))
}
