//! Times as rows have them, where nothing is guessed: RFC 3339, or a number whose unit was said.
//!
//! Callers: the readers, for rows that must come back as they were. What is finer than a millisecond is cut off.

use model::Timestamp;

/// Nanoseconds of a millisecond.
const MILLI: i128 = 1_000_000;

/// What a time that is a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

impl TimeUnit {
    /// In nanoseconds.
    fn nanos(self) -> i128 {
        match self {
            TimeUnit::Seconds => 1_000_000_000,
            TimeUnit::Millis => MILLI,
            TimeUnit::Micros => 1_000,
            TimeUnit::Nanos => 1,
        }
    }
}

/// A time that is a number. Errors: what is wrong, behind "the timestamp".
pub(super) fn of_integer(number: i128, unit: Option<TimeUnit>) -> Result<Timestamp, String> {
    let unit = unit.ok_or_else(|| format!("{number} is a number, whose unit was not said"))?;
    let nanos = number.checked_mul(unit.nanos());
    of_nanos(nanos.ok_or_else(|| format!("{number} is out of range"))?)
}

/// A time that is a text.
pub(super) fn of_text(text: &str, unit: Option<TimeUnit>) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return of_nanos(time.as_nanosecond());
    }
    let wrong = || format!("{text:?} is neither a number nor RFC 3339, as 2026-03-01T14:03:05Z");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let are_digits =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(digits) || !are_digits(fraction) || digits.len() > 20 {
        return Err(wrong());
    }
    let whole: i128 = whole.parse().map_err(|_| wrong())?;
    let Some(unit) = unit else {
        return of_integer(whole, None);
    };
    // Of the fraction as many digits as can matter.
    let kept = &fraction[..fraction.len().min(9)];
    let nanos: i128 = format!("{kept:0<9}").parse().map_err(|_| wrong())?;
    let nanos = nanos * unit.nanos() / 1_000_000_000;
    let is_negative = text.starts_with('-');
    let whole = whole * unit.nanos();
    of_nanos(if is_negative {
        whole - nanos
    } else {
        whole + nanos
    })
}

/// A time that is counted in milliseconds.
pub(super) fn of_millis(millis: i64) -> Result<Timestamp, String> {
    let time = Timestamp::from_millis(millis);
    match time.is_none() {
        // Kafka's word for no time.
        true => Err("is the last millisecond of 1969, which no record can have".to_owned()),
        false => Ok(time),
    }
}

fn of_nanos(nanos: i128) -> Result<Timestamp, String> {
    let millis = i64::try_from(nanos.div_euclid(MILLI));
    of_millis(millis.map_err(|_| "is out of range".to_owned())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_read_exactly_and_nothing_is_guessed() {
        use TimeUnit::{Micros, Millis, Nanos, Seconds};
        for (text, unit, wanted) in [
            ("2023-11-14T22:13:20.123Z", None, Some(1_700_000_000_123)),
            (
                "2023-11-14T23:13:20.1239+01:00",
                None,
                Some(1_700_000_000_123),
            ),
            ("1969-12-31T23:59:59Z", None, Some(-1_000)),
            ("1969-12-31T23:59:59.999Z", None, None),
            ("1700000000", None, None),
            ("1700000000", Some(Seconds), Some(1_700_000_000_000)),
            ("1700000000.1239", Some(Seconds), Some(1_700_000_000_123)),
            ("-0.5", Some(Millis), None),
            ("-1.5", Some(Seconds), Some(-1_500)),
            ("9223372036854775807", Some(Millis), Some(i64::MAX)),
            ("9223372036854775807", Some(Seconds), None),
            ("1700000000123999", Some(Micros), Some(1_700_000_000_123)),
            ("1700000000123999999", Some(Nanos), Some(1_700_000_000_123)),
            ("2023-11-14", Some(Millis), None),
            ("1e9", Some(Seconds), None),
            ("", Some(Seconds), None),
            ("1.", Some(Seconds), None),
            ("--1", Some(Seconds), None),
        ] {
            let read = of_text(text, unit).ok().map(Timestamp::millis);
            assert_eq!(read, wanted, "{text:?} {unit:?}");
        }
        assert_eq!(of_integer(-1, Some(Millis)).ok(), None);
        assert_eq!(of_integer(5, None).ok(), None);
        assert_eq!(
            of_integer(5, Some(Seconds)),
            Ok(Timestamp::from_millis(5_000))
        );
    }
}
