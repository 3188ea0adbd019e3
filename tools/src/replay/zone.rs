//! Days and clocks in a time zone: what people type beside the one grammar of places (`model::time_spec`), as places of it.
//!
//! ```text
//! "now" | "today" | "yesterday"           midnight in the command's zone
//! date | date ("T" | " ") clock           in the command's zone
//! any of these but "now" "[" zone "]"     in this zone: 2026-10-25T02:30[Europe/Berlin], today[America/New_York]
//! ```
//! A clock that a zone has twice, as summer time ends, is the first of both; one that it leaves out is as much later. All else is
//! left as it is, for the grammar to judge.

use jiff::Zoned;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use model::Timestamp;
use model::time_spec::Position;

use crate::failure::Failure;

/// The zone with this name: `UTC`, `local`, or one of the IANA database.
pub(super) fn zone(name: &str) -> Result<TimeZone, Failure> {
    match name {
        "UTC" | "utc" | "Z" => Ok(TimeZone::UTC),
        "local" => Ok(TimeZone::system()),
        name => TimeZone::get(name).map_err(|_| {
            Failure::Usage(format!(
                "{name:?} is no time zone that this machine knows: it is UTC, local, or a name such as Europe/Berlin"
            ))
        }),
    }
}

/// A place as the server reads it.
pub(super) fn place(text: &str, command: &TimeZone, now: Timestamp) -> Result<String, Failure> {
    let (bare, named) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((bare, name)) => (bare, Some(zone(name)?)),
        None => (text, None),
    };
    let in_zone = named.as_ref().unwrap_or(command);
    let found = match bare {
        "now" if named.is_none() => Some(now.millis()),
        bare => day_or_clock(bare, in_zone, now),
    };
    if let Some(millis) = found {
        // A time before 1970 is 0, as in the grammar.
        return Ok(format!("{}ms", millis.max(0)));
    }
    if named.is_some() {
        return Err(Failure::Usage(format!(
            "{text:?}: a zone in brackets stands behind a date, a date and a clock, today or yesterday"
        )));
    }
    match Position::parse(text, now) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Failure::Usage(error.to_string())),
    }
}

/// Milliseconds since 1970 of a day's beginning or of a clock in a zone. None for what is neither.
fn day_or_clock(text: &str, zone: &TimeZone, now: Timestamp) -> Option<i64> {
    let today = || Some(at(now, zone)?.date());
    let civil = match text {
        "today" => today()?.at(0, 0, 0, 0),
        "yesterday" => today()?.yesterday().ok()?.at(0, 0, 0, 0),
        text => civil(text)?,
    };
    let zoned = zone.to_ambiguous_zoned(civil).compatible().ok()?;
    let nanos = zoned.timestamp().as_nanosecond();
    // Between two milliseconds is the later one, as in the grammar.
    i64::try_from(nanos.div_euclid(1_000_000) + i128::from(nanos.rem_euclid(1_000_000) > 0)).ok()
}

/// A date, or a date and a clock of hours and minutes at least, without a zone or an offset.
fn civil(text: &str) -> Option<DateTime> {
    let (date, clock) = match text.split_once(['T', ' ']) {
        Some((date, clock)) => (date, Some(clock)),
        None => (text, None),
    };
    let is_of = |text: &str, others: &str| {
        let fits = |c: char| c.is_ascii_digit() || others.contains(c);
        text.chars().all(fits)
    };
    if date.len() != 10 || !is_of(date, "-") {
        return None;
    }
    let date: Date = date.parse().ok()?;
    let clock = match clock {
        None => Time::midnight(),
        Some(clock) if clock.len() >= 5 && is_of(clock, ":.") => clock.parse().ok()?,
        Some(_) => return None,
    };
    Some(date.to_datetime(clock))
}

fn at(time: Timestamp, zone: &TimeZone) -> Option<Zoned> {
    let time = jiff::Timestamp::from_millisecond(time.millis()).ok()?;
    Some(time.to_zoned(zone.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-10-25T00:30Z: the night in which summer time ends in Berlin.
    const NOW: Timestamp = Timestamp::from_millis(1_792_888_200_000);
    const HOUR: i64 = 3_600_000;
    /// 2026-10-25T00:00Z.
    const MIDNIGHT: i64 = 1_792_886_400_000;

    fn check(text: &str, zone_name: &str, expected: &str) {
        let zone = zone(zone_name).unwrap();
        assert_eq!(
            place(text, &zone, NOW).unwrap(),
            expected,
            "{text} in {zone_name}"
        );
    }

    #[test]
    fn days_and_clocks_are_those_of_their_zone() {
        let ms = |millis: i64| format!("{millis}ms");
        check("now", "UTC", &ms(NOW.millis()));
        check("today", "UTC", &ms(MIDNIGHT));
        check("yesterday", "UTC", &ms(MIDNIGHT - 24 * HOUR));
        check("today", "Europe/Berlin", &ms(MIDNIGHT - 2 * HOUR));
        check("today[Europe/Berlin]", "UTC", &ms(MIDNIGHT - 2 * HOUR));
        check(
            "yesterday[America/New_York]",
            "UTC",
            &ms(MIDNIGHT - 44 * HOUR),
        );
        check(
            "2026-10-25T02:30[Europe/Berlin]",
            "UTC",
            &ms(MIDNIGHT + HOUR / 2),
        );
        check(
            "2026-10-25 03:30:00.5",
            "Europe/Berlin",
            &ms(MIDNIGHT + HOUR * 5 / 2 + 500),
        );
        // 02:30 is not there on the day on which summer time begins: 03:30 is meant.
        check(
            "2026-03-29T02:30[Europe/Berlin]",
            "UTC",
            &ms(1_774_747_800_000),
        );
        check("2026-10-25", "UTC", &ms(MIDNIGHT));
    }

    #[test]
    fn all_else_is_the_grammars() {
        for text in [
            "-10m",
            "1200",
            "earliest",
            "1700000000123ms",
            "2026-03-01T14:03:05.25+02:00",
        ] {
            check(text, "Europe/Berlin", text);
        }
        for wrong in [
            "tomorow",
            "-10m[UTC]",
            "today[Mars/Base]",
            "2026-13-01",
            "now[UTC]",
        ] {
            assert!(place(wrong, &TimeZone::UTC, NOW).is_err(), "{wrong}");
        }
    }
}
