//! Writing numbers and base64, and reading the latter back.

use super::layout::Number;

const HEX: &[u8; 16] = b"0123456789abcdef";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends a number; what does not fit is cut to its lowest digits or bytes.
pub(super) fn put_number(out: &mut Vec<u8>, value: i64, how: Number) {
    match how {
        Number::Ascii => put_decimal(out, value),
        Number::Hex(digits) => {
            for digit in (0..digits).rev() {
                out.push(HEX[(value >> (4 * digit)) as usize & 15]);
            }
        }
        Number::HexShortest => {
            let digits = (64 - (value | 1).leading_zeros() as usize).div_ceil(4);
            put_number(out, value, Number::Hex(digits));
        }
        Number::Big(bytes) => out.extend_from_slice(&value.to_be_bytes()[8 - bytes..]),
        Number::Little(bytes) => out.extend_from_slice(&value.to_le_bytes()[..bytes]),
        Number::Bool => out.extend_from_slice(if value != 0 { b"true" } else { b"false" }),
    }
}

/// Appends decimal digits.
pub(super) fn put_decimal(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    put_unsigned(out, value.unsigned_abs());
}

/// Appends decimal digits.
pub(super) fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends base64 in the standard alphabet.
pub(super) fn put_base64(out: &mut Vec<u8>, text: &[u8], padded: bool) {
    out.reserve(text.len().div_ceil(3) * 4);
    for chunk in text.chunks(3) {
        let byte = |index: usize| u32::from(*chunk.get(index).unwrap_or(&0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            if digit <= chunk.len() {
                out.push(BASE64[(bits >> (18 - 6 * digit)) as usize & 63]);
            } else if padded {
                out.push(b'=');
            }
        }
    }
}

/// Reads base64 in the standard alphabet, padded or not. Bits that belong to no byte must be zero.
pub(super) fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = match text.len() % 4 {
        0 => text
            .strip_suffix(b"==")
            .or_else(|| text.strip_suffix(b"="))
            .unwrap_or(text),
        _ => text,
    };
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 3);
    for chunk in digits.chunks(4) {
        let mut bits = 0u32;
        for index in 0..4 {
            bits = bits << 6
                | chunk
                    .get(index)
                    .map_or(Some(0), |&digit| base64_value(digit))?;
        }
        let bytes = match chunk.len() {
            4 => 3,
            3 if bits & 0xff == 0 => 2,
            2 if bits & 0xffff == 0 => 1,
            _ => return None,
        };
        out.extend_from_slice(&bits.to_be_bytes()[1..1 + bytes]);
    }
    Some(out)
}

fn base64_value(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}
