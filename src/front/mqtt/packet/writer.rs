//! Writes the types of §1.5, and whole packets around them.

use bytes::{BufMut as _, BytesMut};

/// Strings and binary data are no longer than this.
const TEXT_BYTES_MAX: usize = u16::MAX as usize;

/// A variable byte integer of no more than 28 bits.
pub(super) fn variable(out: &mut BytesMut, mut value: usize) {
    assert!(value <= 0x0fff_ffff, "a length is 28 bits");
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return out.put_u8(low);
        }
        out.put_u8(low | 0x80);
    }
}

/// Bytes that a variable byte integer takes.
pub(super) fn variable_bytes(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Binary data, or a string; what is longer than one can be is cut by whoever calls.
pub(super) fn binary(out: &mut BytesMut, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("it was measured before");
    out.put_u16(length);
    out.put_slice(bytes);
}

/// Whether it can be a string or binary data at all.
pub(super) fn fits(bytes: &[u8]) -> bool {
    bytes.len() <= TEXT_BYTES_MAX
}
