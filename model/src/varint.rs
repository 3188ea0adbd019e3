//! Variable-length integers: seven bits a byte, least significant first, the high bit meaning "more". Record fields are
//! zigzag-coded (0, -1, 1, -2, ...), the protocol's compact lengths are not.
//! Source: protocol buffers' encoding, as Kafka's `ByteUtils` uses it. Shared with the wire's compact forms.

/// The longest coded 32-bit number.
pub const U32_BYTES_MAX: usize = 5;
/// The longest coded 64-bit number.
pub const U64_BYTES_MAX: usize = 10;

/// A number cut short, or longer than its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VarintError {
    /// The bytes end before the number does.
    #[error("a variable-length integer is cut short")]
    Truncated,
    /// More bits than the type has.
    #[error("a variable-length integer is too long for its type")]
    TooLong,
}

/// Maps signed to unsigned, small magnitudes to small numbers.
#[inline]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[inline]
pub const fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

/// How many bytes `value` takes: 1..=10.
#[inline]
pub const fn u64_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// How many bytes `value` takes zigzag-coded: 1..=10.
#[inline]
pub const fn i64_bytes(value: i64) -> usize {
    u64_bytes(zigzag(value))
}

/// Appends `value`.
#[inline]
pub fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    if value < 0x80 {
        out.push(value as u8);
        return;
    }
    let mut bytes = [0u8; U64_BYTES_MAX];
    let mut count = 0;
    while value >= 0x80 {
        bytes[count] = value as u8 | 0x80;
        value >>= 7;
        count += 1;
    }
    bytes[count] = value as u8;
    out.extend_from_slice(&bytes[..=count]);
}

/// Appends `value`, zigzag-coded. A 32-bit number has the same form.
#[inline]
pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, zigzag(value));
}

/// Takes a number off the front of `input`, leaving `input` unchanged on an error.
#[inline]
pub fn take_u64(input: &mut &[u8]) -> Result<u64, VarintError> {
    match **input {
        [byte, ref rest @ ..] if byte < 0x80 => {
            *input = rest;
            Ok(u64::from(byte))
        }
        // Of two bytes are most offsets and lengths that are not of one.
        [low, high, ref rest @ ..] if high < 0x80 => {
            *input = rest;
            Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
        }
        _ => take_u64_slow(input),
    }
}

#[cold]
fn take_u64_slow(input: &mut &[u8]) -> Result<u64, VarintError> {
    let mut value = 0u64;
    for index in 0..U64_BYTES_MAX {
        let byte = *input.get(index).ok_or(VarintError::Truncated)?;
        if index == U64_BYTES_MAX - 1 && byte > 1 {
            return Err(VarintError::TooLong);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *input = &input[index + 1..];
            return Ok(value);
        }
    }
    Err(VarintError::TooLong)
}

/// Takes a 32-bit number off the front of `input`.
#[inline]
pub fn take_u32(input: &mut &[u8]) -> Result<u32, VarintError> {
    let before = *input;
    let value = take_u64(input)?;
    u32::try_from(value).map_err(|_| {
        *input = before;
        VarintError::TooLong
    })
}

/// Takes a zigzag-coded number off the front of `input`.
#[inline]
pub fn take_i64(input: &mut &[u8]) -> Result<i64, VarintError> {
    take_u64(input).map(unzigzag)
}

/// Takes a zigzag-coded 32-bit number off the front of `input`.
#[inline]
pub fn take_i32(input: &mut &[u8]) -> Result<i32, VarintError> {
    let value = take_u32(input)?;
    Ok(unzigzag(u64::from(value)) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_codes() {
        for (value, code) in [
            (0i64, &[0u8][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 1]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (
                i64::MIN,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            ),
        ] {
            let mut out = Vec::new();
            put_i64(&mut out, value);
            assert_eq!(out, code);
            assert_eq!(take_i64(&mut &code[..]), Ok(value));
            if let Ok(narrow) = i32::try_from(value) {
                assert_eq!(take_i32(&mut &code[..]), Ok(narrow));
            }
        }
    }

    #[test]
    fn too_long_and_cut_numbers_are_errors_and_take_nothing() {
        for (mut input, error) in [
            (&[][..], VarintError::Truncated),
            (&[0x80], VarintError::Truncated),
            (&[0xff; 9], VarintError::Truncated),
            (&[0xff; 12], VarintError::TooLong),
            (
                &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2],
                VarintError::TooLong,
            ),
        ] {
            let before = input;
            assert_eq!(take_u64(&mut input), Err(error));
            assert_eq!(input, before);
        }
        let mut input = &[0x80, 0x80, 0x80, 0x80, 0x10, 9][..];
        assert_eq!(take_u32(&mut input), Err(VarintError::TooLong));
        assert_eq!(input.len(), 6);
    }

    proptest! {
        #[test]
        fn numbers_come_back(value: i64, rest: Vec<u8>) {
            let mut out = Vec::new();
            put_i64(&mut out, value);
            prop_assert_eq!(out.len(), i64_bytes(value));
            out.extend_from_slice(&rest);
            let mut input = &out[..];
            prop_assert_eq!(take_i64(&mut input), Ok(value));
            prop_assert_eq!(input, &rest[..]);
        }
    }
}
