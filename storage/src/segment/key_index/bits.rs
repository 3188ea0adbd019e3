//! Bits in a row: Rice codes and Elias gamma codes, the highest bit of a byte first.
//!
//! Callers: the pages of a key index. Nothing read can make a reader go past its bytes, or give a number outside of what was
//! asked for.

/// Puts bits one after the other.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// How many bits of the last byte are used; 0 for all.
    used: u32,
}

impl BitWriter {
    fn bit(&mut self, bit: bool) {
        if self.used == 0 {
            self.bytes.push(0);
        }
        let last = self.bytes.last_mut().expect("there is a byte");
        *last |= u8::from(bit) << (7 - self.used);
        self.used = (self.used + 1) % 8;
    }

    /// The lowest `count` bits of a value.
    fn bits(&mut self, value: u64, count: u32) {
        for at in (0..count).rev() {
            self.bit(value >> at & 1 == 1);
        }
    }

    /// A value as so many ones as `value >> k`, a zero, and the lowest `k` bits.
    pub fn rice(&mut self, value: u64, k: u32) {
        for _ in 0..value >> k {
            self.bit(true);
        }
        self.bit(false);
        self.bits(value, k);
    }

    /// A value of 1 or more as so many zeros as bits follow its first one, and itself.
    pub fn gamma(&mut self, value: u64) {
        let more = value.checked_ilog2().expect("only 1 and more have a code");
        self.bits(0, more);
        self.bits(value, more + 1);
    }

    /// The bytes; what is left of the last one is zeros.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// How long [`BitWriter::rice`] makes a value.
pub(super) fn rice_bits(value: u64, k: u32) -> u64 {
    (value >> k) + 1 + u64::from(k)
}

/// How long [`BitWriter::gamma`] makes a value of 1 or more.
pub(super) fn gamma_bits(value: u64) -> u64 {
    2 * u64::from(value.ilog2()) + 1
}

/// The parameter for `count` rising numbers below `universe`: the logarithm of their mean distance, rounded down.
pub(super) fn rice_parameter(universe: u64, count: u64) -> u32 {
    (universe / count.max(1)).checked_ilog2().unwrap_or(0)
}

/// Takes bits one after the other. None where they end, or where no such code was put.
#[derive(Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    pub fn new(bytes: &'a [u8]) -> BitReader<'a> {
        BitReader { bytes, position: 0 }
    }

    fn bit(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.position / 8)?;
        let bit = byte >> (7 - self.position % 8) & 1 == 1;
        self.position += 1;
        Some(bit)
    }

    fn bits(&mut self, count: u32) -> Option<u64> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u64::from(self.bit()?);
        }
        Some(value)
    }

    /// A value below `limit`.
    pub fn rice(&mut self, k: u32, limit: u64) -> Option<u64> {
        let mut high = 0_u64;
        while self.bit()? {
            high += 1;
            if high > limit >> k {
                return None;
            }
        }
        let value = high << k | self.bits(k)?;
        (value < limit).then_some(value)
    }

    /// A value of 1 to `limit`.
    pub fn gamma(&mut self, limit: u64) -> Option<u64> {
        let mut more = 0;
        while !self.bit()? {
            more += 1;
            if more > limit.max(1).ilog2() {
                return None;
            }
        }
        let value = 1 << more | self.bits(more)?;
        (value <= limit).then_some(value)
    }

    /// Whether nothing but the zeros that fill the last byte is left.
    pub fn is_at_end(&self) -> bool {
        let left = &self.bytes[self.position.div_ceil(8).min(self.bytes.len())..];
        let used = self.position % 8;
        let last = match used {
            0 => 0,
            used => self.bytes[self.position / 8] << used,
        };
        left.is_empty() && last == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back_and_take_what_was_told(
            numbers in prop::collection::vec((1_u64..1 << 20, 0_u32..20), 0..50),
        ) {
            let mut bits = BitWriter::default();
            let mut told = 0;
            for (value, k) in &numbers {
                bits.rice(value >> 4, *k);
                bits.gamma(*value);
                told += rice_bits(value >> 4, *k) + gamma_bits(*value);
            }
            let bytes = bits.finish();
            prop_assert_eq!(bytes.len() as u64, told.div_ceil(8));
            let mut reader = BitReader::new(&bytes);
            for (value, k) in &numbers {
                prop_assert_eq!(reader.rice(*k, 1 << 20), Some(value >> 4));
                prop_assert_eq!(reader.gamma(1 << 20), Some(*value));
            }
            prop_assert!(reader.is_at_end());
        }

        #[test]
        fn foreign_bytes_give_no_number_outside_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..40), limit in 1_u64..1000) {
            let mut reader = BitReader::new(&bytes);
            for k in 0..10 {
                prop_assert!(reader.rice(k, limit).is_none_or(|value| value < limit));
                prop_assert!(reader.gamma(limit).is_none_or(|value| (1..=limit).contains(&value)));
            }
        }
    }
}
