//! Reads timestamps as bodies have them, each in the unit that the request says: nothing is guessed.

use model::Timestamp;

use super::fault::RowFault;

/// 9999-12-31T23:59:59.999Z: what is later is another unit's number.
const MILLIS_MAX: i64 = 253_402_300_799_999;

/// What a timestamp is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Millis,
    Micros,
    Nanos,
    Rfc3339,
}

/// Their names in a query.
const UNITS: [(&str, Unit); 5] = [
    ("s", Unit::Seconds),
    ("ms", Unit::Millis),
    ("us", Unit::Micros),
    ("ns", Unit::Nanos),
    ("rfc3339", Unit::Rfc3339),
];

impl Unit {
    pub fn parse(name: &str) -> Result<Unit, String> {
        let found = UNITS.iter().find(|(known, _)| *known == name);
        found.map(|(_, unit)| *unit).ok_or_else(|| {
            format!("timestamp_unit {name:?} is not known: it is s, ms, us, ns or rfc3339")
        })
    }

    /// Reads a timestamp; what is finer than a millisecond is cut off.
    pub fn read(self, text: &str) -> Result<Timestamp, RowFault> {
        let text = text.trim();
        let millis = match self {
            Unit::Rfc3339 => text
                .parse::<jiff::Timestamp>()
                .map_err(|_| "it is not as RFC 3339 has it, as 2026-01-31T12:00:00Z")
                .map(|time| time.as_nanosecond().div_euclid(1_000_000)),
            Unit::Seconds => number(text, 1_000, 1),
            Unit::Millis => number(text, 1, 1),
            Unit::Micros => number(text, 1, 1_000),
            Unit::Nanos => number(text, 1, 1_000_000),
        };
        let millis = millis.and_then(|millis| {
            let millis = i64::try_from(millis).ok();
            let millis = millis.filter(|millis| (0..=MILLIS_MAX).contains(millis));
            millis.ok_or("it is not between 1970 and 9999 in the unit that the request says")
        });
        millis
            .map(Timestamp::from_millis)
            .map_err(|reason| RowFault::Timestamp {
                found: text.chars().take(40).collect(),
                reason,
            })
    }
}

/// A decimal number times `times`, divided by `by`, rounded down. Exact, but for numbers with an exponent.
fn number(text: &str, times: i128, by: i128) -> Result<i128, &'static str> {
    const NO_NUMBER: &str = "it is no number";
    if text.contains(['e', 'E']) {
        let number: f64 = text.parse().map_err(|_| NO_NUMBER)?;
        let scaled = number * times as f64 / by as f64;
        return match scaled.is_finite() {
            true => Ok(scaled.floor() as i128),
            false => Err(NO_NUMBER),
        };
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let is_negative = whole.starts_with('-');
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    if !is_digits(digits) || !is_digits(fraction) || digits.len() > 30 {
        return Err(NO_NUMBER);
    }
    let whole: i128 = digits.parse().map_err(|_| NO_NUMBER)?;
    // Of the fraction as many digits as can matter: thousandths.
    let kept = &fraction[..fraction.len().min(3)];
    let scale = 10i128.pow(kept.len() as u32);
    let fraction: i128 = kept.parse().map_err(|_| NO_NUMBER)?;
    let scaled = (whole * scale + fraction) * times;
    let scaled = if is_negative { -scaled } else { scaled };
    Ok(scaled.div_euclid(scale * by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read_exactly_and_nothing_is_guessed() {
        let read = |unit: &str, text: &str| {
            let time = Unit::parse(unit).expect("a unit").read(text);
            time.map_or(-1, Timestamp::millis)
        };
        for (unit, text, wanted) in [
            ("s", "1700000000", 1_700_000_000_000),
            ("s", "1700000000.1239", 1_700_000_000_123),
            ("s", "1700000000.5", 1_700_000_000_500),
            ("s", "1.7e9", 1_700_000_000_000),
            ("ms", "1700000000123", 1_700_000_000_123),
            ("ms", "1700000000123.9", 1_700_000_000_123),
            ("us", "1700000000123999", 1_700_000_000_123),
            ("ns", "1700000000123999999", 1_700_000_000_123),
            ("rfc3339", "2023-11-14T22:13:20Z", 1_700_000_000_000),
            (
                "rfc3339",
                "2023-11-14T23:13:20.1239+01:00",
                1_700_000_000_123,
            ),
            ("ms", "0", 0),
            ("ms", "-1", -1),
            ("ms", "-0.5", -1),
            ("ms", "", -1),
            ("ms", "x", -1),
            ("ms", "1e400", -1),
            ("ms", "1.", -1),
            ("s", "1700000000123", -1),
            ("s", "99999999999999999999999999999999999999", -1),
            ("rfc3339", "1700000000", -1),
            ("rfc3339", "2023-11-14T22:13:20", -1),
        ] {
            assert_eq!(read(unit, text), wanted, "{text} {unit}");
        }
        assert!(Unit::parse("min").is_err());
    }
}
