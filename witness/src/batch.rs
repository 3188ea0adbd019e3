//! Kafka's record batches of magic 2, by their published description: which bytes are one, and the keys in it.

use crate::codec::decompress;
use crate::crc::crc32c;

/// Bytes before the records.
pub const HEAD_BYTES: usize = 61;
/// Flags from here on have no meaning yet.
const FLAGS_END: u16 = 0x80;
/// No log reaches this offset: at ten million records a second it takes ten months. A head with flags that have no meaning and an offset
/// from here on is none: else every other byte of what is no batch would have to be taken for one, and its checksum be computed.
const OFFSETS_END: u64 = 1 << 48;
/// Bytes before the field `length` counts.
const LENGTH_END: u64 = 12;

/// Is shown offset, key and value of a record.
pub type Each<'e> = dyn FnMut(u64, Option<&[u8]>, Option<&[u8]>) + 'e;

/// What the head of a batch says.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// The first record's offset.
    pub base: u64,
    /// The batch with its head.
    pub bytes: u64,
    checksum: u32,
    attributes: u16,
    records: u32,
    /// The last record's offset, from the first one's on.
    last: u32,
}

fn be<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

impl Head {
    /// What may be the head of a batch of which so many bytes are there; None if it is none.
    pub fn read(bytes: &[u8], left: u64) -> Option<Head> {
        if bytes.get(16) != Some(&2) || bytes.len() < HEAD_BYTES {
            return None;
        }
        let length = i32::from_be_bytes(be(bytes, 8)?);
        let last = u32::try_from(i32::from_be_bytes(be(bytes, 23)?)).ok()?;
        let head = Head {
            base: u64::try_from(i64::from_be_bytes(be(bytes, 0)?)).ok()?,
            bytes: LENGTH_END + u64::try_from(length).ok()?,
            checksum: u32::from_be_bytes(be(bytes, 17)?),
            attributes: u16::from_be_bytes(be(bytes, 21)?),
            records: u32::try_from(i32::from_be_bytes(be(bytes, 57)?)).ok()?,
            last,
        };
        let is_one = (HEAD_BYTES as u64..=left).contains(&head.bytes)
            && (head.attributes < FLAGS_END || head.base < OFFSETS_END)
            && head.records <= last.saturating_add(1);
        is_one.then_some(head)
    }

    /// Whether these bytes, from the head on, are what was written.
    pub fn is_whole(&self, batch: &[u8]) -> bool {
        batch.len() as u64 == self.bytes && crc32c(&batch[21..]) == self.checksum
    }

    /// Whether it holds a client's records.
    pub fn has_records(&self) -> bool {
        self.records > 0 && self.attributes & 0x20 == 0
    }

    /// Shows each record's offset, key and value. Gives how many there were. Errors: why it could not be read to its end.
    pub fn records(&self, batch: &[u8], each: &mut Each<'_>) -> Result<u64, String> {
        let [_, low] = self.attributes.to_be_bytes();
        let plain = decompress(low & 7, &batch[HEAD_BYTES..]).map_err(|error| error.to_string())?;
        let mut rest = &plain[..];
        // Offsets rise.
        let mut from = 0;
        for number in 0..self.records {
            let short = || format!("record {number} of {} is cut or no record", self.records);
            let length = varint32(&mut rest).ok_or_else(short)?;
            let length = usize::try_from(length).map_err(|_| short())?;
            let mut record = rest.get(..length).ok_or_else(short)?;
            rest = &rest[length..];
            // Attributes, then the time.
            record = record.get(1..).ok_or_else(short)?;
            varint(&mut record).ok_or_else(short)?;
            let delta = varint32(&mut record).ok_or_else(short)?;
            let delta = u32::try_from(delta).map_err(|_| short())?;
            let key = blob(&mut record).ok_or_else(short)?;
            let value = blob(&mut record).ok_or_else(short)?;
            headers(&mut record).ok_or_else(short)?;
            if !record.is_empty() || !(from..=self.last).contains(&delta) {
                return Err(short());
            }
            from = delta + 1;
            each(self.base.saturating_add(u64::from(delta)), key, value);
        }
        match rest.len() {
            0 => Ok(u64::from(self.records)),
            left => Err(format!("{left} bytes follow the last record")),
        }
    }
}

/// The headers of a record: pairs of a name and what may be none.
fn headers(bytes: &mut &[u8]) -> Option<()> {
    let count = usize::try_from(varint32(bytes)?).ok()?;
    for _ in 0..count {
        blob(bytes)??;
        blob(bytes)?;
    }
    Some(())
}

/// Bytes behind their length; none where that is negative.
fn blob<'b>(bytes: &mut &'b [u8]) -> Option<Option<&'b [u8]>> {
    let Ok(count) = usize::try_from(varint32(bytes)?) else {
        return Some(None);
    };
    let blob = bytes.get(..count)?;
    *bytes = &bytes[count..];
    Some(Some(blob))
}

/// A zigzag number of up to 64 bits.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if shift == 63 && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let sign = (value & 1).wrapping_neg();
            return Some(((value >> 1) ^ sign).cast_signed());
        }
    }
    None
}

/// The same of up to 32 bits.
fn varint32(bytes: &mut &[u8]) -> Option<i32> {
    i32::try_from(varint(bytes)?).ok()
}
