//! The one grammar of places and times in a log, for every command that takes one.
//!
//! ```text
//! range     place | place ":" | ":" place | place ":" place | offset "-" offset | "@" time-range
//! place     offset                       1200
//!           | "earliest" | "start" | "oldest" | "beginning"
//!           | "latest" | "end" | "newest"
//!           | "+" count                  so many after the earliest
//!           | "-" count                  so many before the latest
//!           | time
//!           | "s@" time | "e@" time      as in kcat: a start, or an end
//! time      sign duration                -10m, +1h30m, -1.5d: from now
//!           | number unit                1700000000s, 1700000000123ms, ...us, ...ns: since 1970
//!           | date                       2026-03-01, at midnight UTC
//!           | date ("T" | " ") clock     2026-03-01T14:03, 2026-03-01T14:03:05.250, in UTC
//!           | RFC 3339                   2026-03-01T14:03:05.25+02:00
//! ```
//! After `@`, as in rpk, everything is a time: a bare number is seconds, milliseconds, microseconds or nanoseconds since
//! 1970 by its 10, 13, 16 or 19 digits, and a duration needs no sign. A range's second duration counts from its start, if
//! that is a fixed time, and from now otherwise. A range's end is exclusive.
//!
//! A time between two milliseconds is the later one: "the first record at or after" stays exact. A time before 1970 is 0, the
//! first that a record can have: so no time ever turns into one of the protocol's negative marks for "latest" or "earliest".

use std::str::FromStr;

use crate::{Offset, Timestamp};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

const NANOS_PER_MILLI: i128 = 1_000_000;
/// For a number that no time is as late as.
const LATEST_TIME: Timestamp = Timestamp::from_millis(i64::MAX);

/// Parses a place; a duration in it counts from the time given.
type ParsePlace = fn(&str, Timestamp) -> Option<Position>;

/// A place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The first record that is kept.
    Earliest,
    /// The end, after the last record.
    Latest,
    /// This offset.
    Offset(Offset),
    /// So many records after the earliest.
    AfterEarliest(u64),
    /// So many records before the latest.
    BeforeLatest(u64),
    /// The first record at or after this time.
    At(Timestamp),
}

/// From `start`, inclusive, to `end`, exclusive; without an end, on and on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where to begin.
    pub start: Position,
    /// Where to stop.
    pub end: Option<Position>,
}

/// A text that is no place, time or range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is {reason}")]
pub struct TimeSpecError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

const EXAMPLES: &str = "not a place in a log: an offset, earliest, latest, -10m, 2026-03-01, 2026-03-01T14:03:05Z or 1700000000s";

fn error(text: &str, reason: &'static str) -> TimeSpecError {
    TimeSpecError {
        text: text.to_owned(),
        reason,
    }
}

impl Position {
    /// Parses a place; durations count from `now`.
    pub fn parse(text: &str, now: Timestamp) -> Result<Position, TimeSpecError> {
        if let Some(text) = text.strip_prefix('@') {
            return time_after_at(text, now).ok_or_else(|| error(text, "not a time"));
        }
        place(text, now).ok_or_else(|| error(text, EXAMPLES))
    }
}

impl Range {
    /// Everything that is there, and what comes.
    pub const ALL: Range = Range {
        start: Position::Earliest,
        end: None,
    };

    /// Parses a range; durations count from `now`.
    pub fn parse(text: &str, now: Timestamp) -> Result<Range, TimeSpecError> {
        let kcat = |text: &str| time_after_at(text, now).ok_or_else(|| error(text, "not a time"));
        if let Some(text) = text.strip_prefix("s@") {
            let start = kcat(text)?;
            return Ok(Range { start, end: None });
        }
        if let Some(text) = text.strip_prefix("e@") {
            let (start, end) = (Position::Earliest, Some(kcat(text)?));
            return Ok(Range { start, end });
        }
        let (halves, parse): (_, ParsePlace) = match text.strip_prefix('@') {
            Some(rest) => (rest, time_after_at),
            None => (text, place),
        };
        let whole = parse(halves, now).map(|start| Range { start, end: None });
        let range = match whole.or_else(|| offsets(text)) {
            Some(range) => range,
            None => split(text, halves, now, parse)?,
        };
        range.check(text)
    }

    fn check(self, text: &str) -> Result<Range, TimeSpecError> {
        let is_empty = match (self.start, self.end) {
            (Position::Offset(start), Some(Position::Offset(end))) => end <= start,
            (Position::At(start), Some(Position::At(end))) => end <= start,
            (Position::Latest, Some(Position::Latest)) => true,
            (_, Some(Position::Earliest)) => true,
            _ => false,
        };
        if is_empty {
            Err(error(
                text,
                "an empty range: its end is not after its start",
            ))
        } else {
            Ok(self)
        }
    }
}

/// `12-20`, as rpk takes it.
fn offsets(text: &str) -> Option<Range> {
    let (start, end) = text.split_once('-')?;
    Some(Range {
        start: Position::Offset(offset(start)?),
        end: Some(Position::Offset(offset(end)?)),
    })
}

/// Times have colons of their own: of all colons there must be exactly one with a place on either side.
fn split(
    text: &str,
    halves: &str,
    now: Timestamp,
    parse: ParsePlace,
) -> Result<Range, TimeSpecError> {
    let mut found = None;
    for (colon, _) in halves.match_indices(':') {
        let (left, right) = (&halves[..colon], &halves[colon + 1..]);
        let start = match left {
            "" => Some(Position::Earliest),
            _ => parse(left, now),
        };
        let Some(start) = start else { continue };
        // A start that moves with what it counts from is a duration.
        let is_fixed = parse(left, now.plus_millis(1)) == Some(start);
        let base = match start {
            Position::At(at) if is_fixed => at,
            _ => now,
        };
        let range = match right {
            "" if left.is_empty() => continue,
            "" => Range { start, end: None },
            _ => match parse(right, base) {
                Some(end) => Range {
                    start,
                    end: Some(end),
                },
                None => continue,
            },
        };
        if found.replace(range).is_some() {
            return Err(error(
                text,
                "ambiguous: it can be divided into a start and an end in more than one way",
            ));
        }
    }
    found.ok_or_else(|| error(text, EXAMPLES))
}

/// A place without `@`. `base` is what a duration counts from.
fn place(text: &str, base: Timestamp) -> Option<Position> {
    if let Some(word) = word(text) {
        return Some(word);
    }
    if let Some(offset) = offset(text) {
        return Some(Position::Offset(offset));
    }
    if let Some(count) = text.strip_prefix('+').and_then(digits) {
        return Some(Position::AfterEarliest(count));
    }
    if let Some(count) = text.strip_prefix('-').and_then(digits) {
        return Some(Position::BeforeLatest(count));
    }
    if text.starts_with(['+', '-']) {
        return duration(text).map(|millis| Position::At(after(base, millis)));
    }
    epoch_with_unit(text)
        .or_else(|| calendar(text))
        .map(Position::At)
}

/// A place after `@`: a time, or the end of a range.
fn time_after_at(text: &str, base: Timestamp) -> Option<Position> {
    if let Some(word) = word(text) {
        return Some(word);
    }
    let time = epoch_by_digits(text)
        .or_else(|| duration(text).map(|millis| after(base, millis)))
        .or_else(|| calendar(text));
    time.map(Position::At)
}

fn word(text: &str) -> Option<Position> {
    match text {
        "earliest" | "start" | "oldest" | "beginning" => Some(Position::Earliest),
        "latest" | "end" | "newest" => Some(Position::Latest),
        _ => None,
    }
}

/// A time alone, where no offset can be meant (a reset to a date, say): a bare number is taken by its digits.
pub fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, TimeSpecError> {
    let bare = text.strip_prefix('@').unwrap_or(text);
    if let Some(time) = epoch_by_digits(bare) {
        return Ok(time);
    }
    match Position::parse(text, now) {
        Ok(Position::At(time)) => Ok(time),
        _ => Err(error(
            text,
            "not a time: -10m, 2026-03-01, 2026-03-01T14:03:05Z, 1700000000 or 1700000000123",
        )),
    }
}

/// A time that does not depend on when it is read, as a field of a record has it: a date, RFC 3339, a number with a unit, or
/// a bare number by its digits.
pub fn fixed_time(text: &str) -> Option<Timestamp> {
    epoch_by_digits(text)
        .or_else(|| epoch_with_unit(text))
        .or_else(|| calendar(text))
}

/// A number since 1970, by its size: seconds, or milliseconds, microseconds or nanoseconds if it has their 13, 16 or 19
/// digits.
pub fn epoch_by_size(number: u64) -> Timestamp {
    let unit = match number {
        0..1_000_000_000_000 => 1_000_000_000,
        1_000_000_000_000..1_000_000_000_000_000 => NANOS_PER_MILLI,
        1_000_000_000_000_000..1_000_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    to_timestamp(i128::from(number).saturating_mul(unit)).unwrap_or(LATEST_TIME)
}

/// So many milliseconds before `now`.
pub fn before(now: Timestamp, millis: i64) -> Timestamp {
    after(now, millis.saturating_neg())
}

/// So many milliseconds after `base`, or before it, but not before 1970.
fn after(base: Timestamp, millis: i64) -> Timestamp {
    since_1970(base.plus_millis(millis))
}

/// The one place where a time before 1970 becomes 0.
fn since_1970(time: Timestamp) -> Timestamp {
    time.max(Timestamp::from_millis(0))
}

/// A duration in milliseconds, with or without a sign: `10m`, `-1h30m`, `1.5d`, or ISO 8601's `PT10M`.
pub fn parse_duration(text: &str) -> Result<i64, TimeSpecError> {
    let not = || error(text, "not a duration: 10s, 5m, 1h30m, 1.5d, 2w or PT10M");
    if text.contains(['P', 'p']) {
        let span = jiff::Span::from_str(text).map_err(|_| not())?;
        let day = jiff::SpanRelativeTo::days_are_24_hours();
        let duration = span.to_duration(day).map_err(|_| not())?;
        return i64::try_from(duration.as_millis()).map_err(|_| not());
    }
    duration(text).ok_or_else(not)
}

fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn offset(text: &str) -> Option<Offset> {
    digits(text)
        .map(Offset::new)
        .filter(|offset| *offset <= Offset::MAX)
}

/// How many nanoseconds a unit has.
fn unit_nanos(unit: &str) -> Option<i128> {
    let seconds = 1_000_000_000;
    Some(match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => NANOS_PER_MILLI,
        "s" => seconds,
        "m" => 60 * seconds,
        "h" | "hr" => 3600 * seconds,
        "d" => 86_400 * seconds,
        "w" => 7 * 86_400 * seconds,
        _ => return None,
    })
}

fn to_timestamp(nanos: i128) -> Option<Timestamp> {
    let millis = Timestamp::from_millis(to_millis(nanos)?);
    Some(since_1970(millis))
}

/// Rounded up.
fn to_millis(nanos: i128) -> Option<i64> {
    i64::try_from(-(-nanos).div_euclid(NANOS_PER_MILLI)).ok()
}

fn epoch_with_unit(text: &str) -> Option<Timestamp> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    if !matches!(unit, "s" | "ms" | "us" | "µs" | "ns") {
        return None;
    }
    to_timestamp(i128::from(digits(number)?).checked_mul(unit_nanos(unit)?)?)
}

fn epoch_by_digits(text: &str) -> Option<Timestamp> {
    let unit = match text.len() {
        10 => "s",
        13 => "ms",
        16 => "us",
        19 => "ns",
        _ => return None,
    };
    to_timestamp(i128::from(digits(text)?).checked_mul(unit_nanos(unit)?)?)
}

/// Numbers with units, all of one sign, in milliseconds rounded up.
fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let mut nanos = 0i128;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(unit_at);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        nanos = nanos.checked_add(scaled(number, unit_nanos(unit)?)?)?;
        rest = after;
    }
    let nanos = if negative { -nanos } else { nanos };
    to_millis(nanos)
}

/// A decimal number times `unit`, cut to whole nanoseconds.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.contains('.') && fraction.is_empty() {
        return None;
    }
    let mut nanos = i128::from(digits(whole)?).checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.bytes() {
        if !digit.is_ascii_digit() {
            return None;
        }
        place /= 10;
        nanos = nanos.checked_add(place.checked_mul(i128::from(digit - b'0'))?)?;
    }
    Some(nanos)
}

fn calendar(text: &str) -> Option<Timestamp> {
    // What jiff takes beyond this grammar (weeks, zone names in brackets, hours alone) stays out of it.
    let shaped = text.len() >= 10
        && text
            .bytes()
            .take(10)
            .enumerate()
            .all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            })
        && !text.contains(['[', ',']);
    if !shaped {
        return None;
    }
    if text.len() == 10 {
        return in_utc(
            Date::from_str(text)
                .ok()?
                .to_datetime(jiff::civil::Time::midnight()),
        );
    }
    if !matches!(text.as_bytes()[10], b'T' | b't' | b' ') || text.as_bytes().get(13) != Some(&b':')
    {
        return None;
    }
    match jiff::Timestamp::from_str(text) {
        Ok(time) => to_timestamp(time.as_nanosecond()),
        Err(_) if text.ends_with(['Z', 'z']) || text[11..].contains(['+', '-']) => None,
        Err(_) => in_utc(DateTime::from_str(text).ok()?),
    }
}

fn in_utc(at: DateTime) -> Option<Timestamp> {
    let zoned = at.to_zoned(TimeZone::UTC).ok()?;
    to_timestamp(zoned.timestamp().as_nanosecond())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2023-11-14T22:13:20Z.
    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn at(millis: i64) -> Position {
        Position::At(Timestamp::from_millis(millis))
    }

    fn offset_at(offset: u64) -> Position {
        Position::Offset(Offset::new(offset))
    }

    #[test]
    fn places_are_read() {
        let day = 86_400_000;
        let base = NOW.millis();
        for (text, expected) in [
            ("0", offset_at(0)),
            ("1700000000", offset_at(1_700_000_000)),
            ("9223372036854775807", Position::Offset(Offset::MAX)),
            ("earliest", Position::Earliest),
            ("start", Position::Earliest),
            ("oldest", Position::Earliest),
            ("latest", Position::Latest),
            ("end", Position::Latest),
            ("newest", Position::Latest),
            ("+3", Position::AfterEarliest(3)),
            ("-3", Position::BeforeLatest(3)),
            ("-10m", at(base - 600_000)),
            ("+1h30m", at(base + 5_400_000)),
            ("-1.5d", at(base - day * 3 / 2)),
            ("-2w", at(base - 14 * day)),
            ("-250ms", at(base - 250)),
            ("-1ns", at(base)),
            ("+1ns", at(base + 1)),
            ("1700000000s", at(base)),
            ("1700000000123ms", at(base + 123)),
            ("1700000000123000us", at(base + 123)),
            ("1700000000123000001ns", at(base + 124)),
            ("2023-11-14", at(base - 80_000_000)),
            ("1969-12-31", at(0)),
            ("1969-12-31T23:59:59.999Z", at(0)),
            ("1969-12-31T23:59:59.998Z", at(0)),
            ("0001-01-01", at(0)),
            ("-99999d", at(0)),
            ("@-99999d", at(0)),
            ("2023-11-14T22:13", at(base - 20_000)),
            ("2023-11-14 22:13:20", at(base)),
            ("2023-11-14T22:13:20Z", at(base)),
            ("2023-11-14T22:13:20.123Z", at(base + 123)),
            ("2023-11-14T22:13:20.1230001Z", at(base + 124)),
            ("2023-11-15T00:13:20+02:00", at(base)),
            ("2023-11-14t22:13:20z", at(base)),
            ("@1700000000", at(base)),
            ("@1700000000123", at(base + 123)),
            ("@1700000000123456", at(base + 124)),
            ("@1700000000123456789", at(base + 124)),
            ("@-48h", at(base - 2 * day)),
            ("@10s", at(base + 10_000)),
        ] {
            assert_eq!(Position::parse(text, NOW), Ok(expected), "{text}");
        }
    }

    #[test]
    fn ranges_are_divided_at_the_right_colon() {
        let base = NOW.millis();
        let range = |start, end| Range {
            start,
            end: Some(end),
        };
        let valentine = 1_644_796_800_000;
        for (text, expected) in [
            (
                "12",
                Range {
                    start: offset_at(12),
                    end: None,
                },
            ),
            (
                "12:",
                Range {
                    start: offset_at(12),
                    end: None,
                },
            ),
            (":end", range(Position::Earliest, Position::Latest)),
            (":12", range(Position::Earliest, offset_at(12))),
            ("12:20", range(offset_at(12), offset_at(20))),
            ("12-20", range(offset_at(12), offset_at(20))),
            ("12:end", range(offset_at(12), Position::Latest)),
            ("start:end", range(Position::Earliest, Position::Latest)),
            ("-5:end", range(Position::BeforeLatest(5), Position::Latest)),
            ("-10m:-5m", range(at(base - 600_000), at(base - 300_000))),
            (
                "2022-02-14:2022-02-15",
                range(at(valentine), at(valentine + 86_400_000)),
            ),
            (
                "2022-02-14:+1h",
                range(at(valentine), at(valentine + 3_600_000)),
            ),
            (
                "2022-02-14T00:00:2022-02-14T01:00",
                range(at(valentine), at(valentine + 3_600_000)),
            ),
            (
                "2022-02-14T00:00:00Z:2022-02-14T01:00:00Z",
                range(at(valentine), at(valentine + 3_600_000)),
            ),
            (
                "2022-02-14T00:00:00Z:",
                Range {
                    start: at(valentine),
                    end: None,
                },
            ),
            (
                ":2022-02-14T00:00:00Z",
                range(Position::Earliest, at(valentine)),
            ),
            (
                "1644796800s:1644800400s",
                range(at(valentine), at(valentine + 3_600_000)),
            ),
            (
                "@2022-02-14:1h",
                range(at(valentine), at(valentine + 3_600_000)),
            ),
            (
                "@-48h:-24h",
                range(at(base - 172_800_000), at(base - 86_400_000)),
            ),
            (
                "s@1700000000123",
                Range {
                    start: at(base + 123),
                    end: None,
                },
            ),
            (
                "s@end",
                Range {
                    start: Position::Latest,
                    end: None,
                },
            ),
            ("e@1700000000123", range(Position::Earliest, at(base + 123))),
            ("@10s:20s", range(at(base + 10_000), at(base + 20_000))),
            ("@-1m:end", range(at(base - 60_000), Position::Latest)),
            ("@:-1hr", range(Position::Earliest, at(base - 3_600_000))),
            (
                "@1644796800:1644800400",
                range(at(valentine), at(valentine + 3_600_000)),
            ),
            (
                "@2022-02-14T00:00:00Z:end",
                range(at(valentine), Position::Latest),
            ),
        ] {
            assert_eq!(Range::parse(text, NOW), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_in_the_grammar_is_refused() {
        for text in [
            "",
            ":",
            "@",
            "@:",
            "yesterday",
            "10m",
            "-",
            "+",
            "-10x",
            "-1.m",
            "1.5",
            "0x10",
            " 1",
            "1 ",
            "2023-13-01",
            "2023-02-30",
            "2023-11-14T",
            "2023-11-14T22",
            "2023-11-14T25:00",
            "2023-11-14T22:13:20Q",
            "9223372036854775808",
            "--5m",
            "@12",
            "s@12",
            "s@1",
            "2023-11-14T22:13:20+26:00",
            "99999999999999999999s",
            "-99999999999999999999999999999999999999999d",
        ] {
            assert!(Position::parse(text, NOW).is_err(), "{text}");
        }
        for text in [
            "20:12",
            "12:12",
            "12-12",
            "end:end",
            "1:start",
            "2022-02-15:2022-02-14",
            "1:2:3",
            "a:b",
            "-5m:-10m",
        ] {
            assert!(Range::parse(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn where_only_a_time_can_be_meant_a_bare_number_is_one() {
        let time = |text| parse_time(text, NOW).map(Timestamp::millis);
        assert_eq!(time("1700000000"), Ok(1_700_000_000_000));
        assert_eq!(time("1700000000123"), Ok(1_700_000_000_123));
        assert_eq!(time("-1s"), Ok(1_699_999_999_000));
        assert!(time("12").is_err() && time("earliest").is_err() && time("-3").is_err());
    }

    #[test]
    fn durations_are_read_as_typed_and_as_iso_writes_them() {
        for (text, millis) in [
            ("10s", 10_000),
            ("-1h30m", -5_400_000),
            ("PT10M", 600_000),
            ("-P1DT1H", -90_000_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(millis), "{text}");
        }
        for text in ["", "10", "PT", "P1Y", "s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text: String, shaped in "[-+@:T0-9.Zsmhdu]{0,30}") {
            for text in [text, shaped] {
                let _ = (Range::parse(&text, NOW), parse_time(&text, NOW), parse_duration(&text));
                // Nothing that is typed becomes a negative time, which the protocol takes for a mark.
                if let Ok(Position::At(time)) = Position::parse(&text, NOW) {
                    prop_assert!(time.millis() >= 0);
                }
            }
        }

        #[test]
        fn every_time_comes_back(millis in -62_000_000_000_000i64..253_000_000_000_000) {
            let text = jiff::Timestamp::from_millisecond(millis).unwrap().to_string();
            prop_assume!(!text.starts_with('-'));
            prop_assert_eq!(Position::parse(&text, NOW), Ok(at(millis.max(0))));
            prop_assert_eq!(fixed_time(&text), Some(Timestamp::from_millis(millis.max(0))));
        }

        #[test]
        fn two_times_make_a_range(start in 0i64..2_000_000_000_000, length in 1i64..1_000_000_000) {
            let text = |millis| jiff::Timestamp::from_millisecond(millis).unwrap().to_string();
            let range = Range { start: at(start), end: Some(at(start + length)) };
            let joined = format!("{}:{}", text(start), text(start + length));
            prop_assert_eq!(Range::parse(&joined, NOW), Ok(range));
            prop_assert_eq!(Range::parse(&format!("@{joined}"), NOW), Ok(range));
        }
    }
}
