//! Bytes as hexadecimal digits, two a byte.
//!
//! Callers: whatever shows bytes to people, or keeps them in JSON. The witness of erasures has its own, because it shares no code
//! with the engine.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Appends the digits of bytes, in lower case.
pub fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// The digits of bytes, in lower case.
pub fn to_hex(bytes: impl AsRef<[u8]>) -> String {
    let mut digits = Vec::new();
    put_hex(&mut digits, bytes.as_ref());
    digits.into_iter().map(char::from).collect()
}

/// The bytes that digits stand for, in either case. None for anything else, an odd count of them among it.
pub fn from_hex(digits: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = digits.as_ref().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok();
    pairs.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_are_two_a_byte_and_nothing_else_is_read() {
        assert_eq!(to_hex([0x00, 0x7f, 0xa0, 0xff]), "007fa0ff");
        assert_eq!(from_hex("007FaOff"), None, "a letter");
        assert_eq!(from_hex("007FA0ff"), Some(vec![0x00, 0x7f, 0xa0, 0xff]));
        assert_eq!(from_hex(""), Some(Vec::new()));
        for wrong in ["0", "007", "0x", "+1", " 1", "1 ", "\u{e4}"] {
            assert_eq!(from_hex(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn bytes_come_back(bytes: Vec<u8>) {
            let expected: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(to_hex(&bytes), expected.clone());
            prop_assert_eq!(from_hex(expected.to_uppercase()), Some(bytes));
        }
    }
}
