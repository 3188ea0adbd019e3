//! Numbers as devices send them, compared exactly: an integer of 64 bits does not lose its last digits in a float, so that
//! the smallest of a window is really the smallest.

use std::cmp::Ordering;

/// A number that has an order: no NaN and no infinity.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// Less than zero.
    Negative(i64),
    /// Zero or more.
    Unsigned(u64),
    /// With a fraction, or beyond 64 bits.
    Float(f64),
}

/// Above all integers of 64 bits, exactly.
const BEYOND: f64 = 18_446_744_073_709_551_616.0;

impl Number {
    /// A float, unless it is none that can be compared.
    pub fn from_f64(value: f64) -> Option<Number> {
        value.is_finite().then_some(Number::Float(value))
    }

    /// The nearest float.
    pub fn to_f64(self) -> f64 {
        match self {
            Number::Negative(value) => value as f64,
            Number::Unsigned(value) => value as f64,
            Number::Float(value) => value,
        }
    }

    /// The integer, or the float's whole part with what is left of it; None if the float is beyond all integers.
    fn parts(self) -> Result<(i128, f64), Ordering> {
        match self {
            Number::Negative(value) => Ok((value.into(), 0.0)),
            Number::Unsigned(value) => Ok((value.into(), 0.0)),
            Number::Float(value) if value >= BEYOND => Err(Ordering::Greater),
            Number::Float(value) if value <= -BEYOND => Err(Ordering::Less),
            Number::Float(value) => {
                let whole = value.floor();
                // Between -2^64 and 2^64, so that the conversion is exact.
                Ok((whole as i128, value - whole))
            }
        }
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        match u64::try_from(value) {
            Ok(value) => Number::Unsigned(value),
            Err(_) => Number::Negative(value),
        }
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number::Unsigned(value)
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Number) -> Ordering {
        // What a device sends is of one kind, mostly.
        match (self, other) {
            (Number::Unsigned(this), Number::Unsigned(other)) => return this.cmp(other),
            (Number::Negative(this), Number::Negative(other)) => return this.cmp(other),
            (Number::Float(this), Number::Float(other)) => {
                return this.partial_cmp(other).expect("it is no NaN");
            }
            _ => {}
        }
        match (self.parts(), other.parts()) {
            (Ok((whole, rest)), Ok((other, other_rest))) => {
                whole.cmp(&other).then(rest.total_cmp(&other_rest))
            }
            (Ok(_), Err(other)) => other.reverse(),
            (Err(this), Ok(_)) => this,
            (Err(_), Err(_)) => self.to_f64().total_cmp(&other.to_f64()),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

/// Numbers, each in eight bytes: as a float where that is exact. The others stand in a list of their own, to which a NaN leads.
#[derive(Debug, Default)]
pub struct Numbers {
    packed: Vec<u64>,
    others: Vec<Number>,
}

/// A float that is no number, with a place in its last 32 bits.
const OTHER: u64 = 0x7ff8_0000_0000_0000;

impl Numbers {
    /// What a number costs that is no exact float, beside the eight bytes.
    pub const OTHER_BYTES: usize = 2 * size_of::<Number>();

    pub fn with_capacity(count: usize) -> Numbers {
        Numbers {
            packed: Vec::with_capacity(count),
            others: Vec::new(),
        }
    }

    /// Adds one, and says whether it is an exact float.
    pub fn push(&mut self, number: Number) -> bool {
        let float = number.to_f64();
        let is_exact = Number::Float(float) == number;
        self.packed.push(match is_exact {
            true => float.to_bits(),
            false => {
                let place = u32::try_from(self.others.len());
                self.others.push(number);
                OTHER | u64::from(place.expect("a piece's memory ends before its numbers"))
            }
        });
        is_exact
    }

    pub fn get(&self, index: usize) -> Number {
        let packed = self.packed[index];
        let float = f64::from_bits(packed);
        match float.is_nan() {
            false => Number::Float(float),
            true => self.others[packed as u32 as usize],
        }
    }

    /// Only the first so many stay.
    pub fn truncate(&mut self, left: usize) {
        self.packed.truncate(left);
    }

    /// The same in another order: those of the reading at an index go to the place of that index.
    pub fn moved(self, places: &[u32], each: usize) -> Numbers {
        Numbers {
            packed: moved(self.packed, places, each),
            others: self.others,
        }
    }
}

/// A list in another order: of each so many entries that stand at an index go to the place of that index.
pub fn moved<T: Copy + Default>(list: Vec<T>, places: &[u32], each: usize) -> Vec<T> {
    let mut moved = vec![T::default(); list.len()];
    match each {
        1 => {
            for (entry, place) in list.iter().zip(places) {
                moved[*place as usize] = *entry;
            }
        }
        _ => {
            for (entries, place) in list.chunks_exact(each.max(1)).zip(places) {
                moved[*place as usize * each..][..each].copy_from_slice(entries);
            }
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_move_to_their_places() {
        let mut numbers = Numbers::default();
        for number in [1, u64::MAX, 3, 4, 5, u64::MAX - 1] {
            numbers.push(number.into());
        }
        let moved = numbers.moved(&[2, 0, 1], 2);
        let found: Vec<Number> = (0..6).map(|index| moved.get(index)).collect();
        let expected = [3, 4, 5, u64::MAX - 1, 1, u64::MAX].map(Number::from);
        assert_eq!(found, expected);
    }

    #[test]
    fn numbers_of_all_kinds_are_ordered_exactly() {
        let rising = [
            Number::Float(f64::MIN),
            Number::Float(-1e19),
            Number::Negative(i64::MIN),
            Number::Negative(i64::MIN + 1),
            Number::Float(-1.5),
            Number::Negative(-1),
            Number::Float(-0.25),
            Number::Unsigned(0),
            Number::Float(f64::MIN_POSITIVE),
            Number::Float(2.5),
            // As floats these three are one.
            Number::Unsigned((1 << 53) - 1),
            Number::Float(9_007_199_254_740_992.0),
            Number::Unsigned((1 << 53) + 1),
            Number::Unsigned(u64::MAX),
            Number::Float(BEYOND),
            Number::Float(f64::MAX),
        ];
        for (a, first) in rising.iter().enumerate() {
            for (b, second) in rising.iter().enumerate() {
                assert_eq!(first.cmp(second), a.cmp(&b), "{first:?} {second:?}");
            }
        }
        let mut numbers = Numbers::default();
        for number in rising {
            numbers.push(number);
        }
        for (index, number) in rising.iter().enumerate() {
            assert_eq!(numbers.get(index), *number);
            assert_eq!(numbers.get(index).to_f64(), number.to_f64());
        }
        assert_eq!(Number::Float(-0.0), Number::from(0i64));
        assert_eq!(Number::Float(7.0), Number::from(7u64));
        assert_eq!(Number::from_f64(f64::NAN), None);
        assert_eq!(Number::from_f64(f64::INFINITY), None);
    }
}
