//! Exact decimal numbers, as people write them: a setting is compared and multiplied without rounding.

use std::fmt::{self, Display};

/// Digits that an `i64` holds whatever they are.
const DIGITS_MAX: usize = 18;

/// `digits / 10^scale`, without zeros at the end of the fraction: equal numbers are equal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    digits: i64,
    scale: u8,
}

impl Decimal {
    /// Reads an optional minus, digits, and an optional point with digits. None if it is written otherwise or has more than
    /// 18 digits.
    pub fn parse(text: &str) -> Option<Decimal> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = match unsigned.split_once('.') {
            Some((_, "")) => return None,
            Some((whole, fraction)) => (whole, fraction.trim_end_matches('0')),
            None => (unsigned, ""),
        };
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        if whole.len() + fraction.len() > DIGITS_MAX {
            return None;
        }
        let digits: i64 = format!("0{whole}{fraction}").parse().ok()?;
        Some(Decimal {
            digits: if negative { -digits } else { digits },
            scale: u8::try_from(fraction.len()).ok()?,
        })
    }

    /// Whether it is more than zero.
    pub const fn is_positive(self) -> bool {
        self.digits > 0
    }

    /// How many times `unit` it is, if that is a whole number and `unit` is not zero.
    pub fn multiple_of(self, unit: Decimal) -> Option<i64> {
        let scale = self.scale.max(unit.scale);
        let scaled = |number: Decimal| {
            i128::from(number.digits) * 10i128.pow(u32::from(scale - number.scale))
        };
        let (whole, unit) = (scaled(self), scaled(unit));
        if unit == 0 || whole % unit != 0 {
            return None;
        }
        i64::try_from(whole / unit).ok()
    }

    /// The nearest floating-point number.
    pub fn to_f64(self) -> f64 {
        self.to_string()
            .parse()
            .expect("a decimal number is spelled as a float may be")
    }

    /// The number if it is whole.
    pub const fn to_integer(self) -> Option<i64> {
        match self.scale {
            0 => Some(self.digits),
            _ => None,
        }
    }
}

impl Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.digits < 0 { "-" } else { "" };
        let scale = usize::from(self.scale);
        let digits = format!("{:0>width$}", self.digits.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        match scale {
            0 => write!(f, "{sign}{whole}"),
            _ => write!(f, "{sign}{whole}.{fraction}"),
        }
    }
}
