//! Three real recordings, as a fleet of devices. Sources and licences: `tests/data/README.md`.

use std::io::Read as _;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use flate2::read::GzDecoder;
use model::Timestamp;

const BUOY: &[u8] = include_bytes!("../../../tests/data/sea_surface_temperature.csv.gz");
const RIDE: &[u8] = include_bytes!("../../../tests/data/cycling.csv.gz");
const GLUCOSE: &[u8] = include_bytes!("../../../tests/data/CGM.csv.gz");

/// The ride's file tells the time since its start only.
const RIDE_START: &str = "2013-09-14T08:00:00Z";

/// What one device recorded.
#[derive(Debug)]
pub(super) struct Recording {
    /// The records' key.
    pub(super) device: &'static str,
    /// What it is, for people.
    pub(super) what: &'static str,
    /// In the order in which they were recorded.
    pub(super) readings: Vec<Reading>,
}

/// One reading: when it was taken, and its JSON.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// The device's own time.
    pub(super) at: Timestamp,
    /// The record's value.
    pub(super) json: Bytes,
}

impl Recording {
    /// From the first reading to the last.
    pub(super) fn span_ms(&self) -> i64 {
        match (self.readings.first(), self.readings.last()) {
            (Some(first), Some(last)) => last.at.millis_since(first.at),
            _ => 0,
        }
    }
}

/// All recordings.
pub(super) fn recordings() -> Result<Vec<Recording>> {
    let ride_start: jiff::Timestamp = RIDE_START.parse().context("the ride's start")?;
    let buoy = |n: usize, f: &[&str]| {
        let at: jiff::Timestamp = f[0].parse()?;
        reading(n, at, &[("temperature_c", f[1])])
    };
    let ride = |n: usize, f: &[&str]| {
        let seconds: i64 = f[0].parse()?;
        let at = ride_start + jiff::SignedDuration::from_secs(seconds);
        let names = [
            "altitude_m",
            "power_w",
            "cadence_rpm",
            "distance_m",
            "speed_mps",
        ];
        let mut fields = vec![("lat_semicircles", f[1]), ("long_semicircles", f[2])];
        fields.extend(names.into_iter().zip(f[3..8].iter().copied()));
        reading(n, at, &fields)
    };
    let glucose = |n: usize, f: &[&str]| {
        let at: jiff::civil::DateTime = f[1].parse()?;
        let at = at.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp();
        reading(n, at, &[("glucose_mg_dl", f[2]), ("signal_na", f[0])])
    };
    Ok(vec![
        recording("buoy-b01", "sea temperature, half-hourly", BUOY, 2, buoy)?,
        recording(
            "ride",
            "a bicycle: power, cadence, speed, each second",
            RIDE,
            9,
            ride,
        )?,
        recording(
            "glucose-sensor",
            "blood glucose, every five minutes",
            GLUCOSE,
            3,
            glucose,
        )?,
    ])
}

fn recording(
    device: &'static str,
    what: &'static str,
    compressed: &[u8],
    columns: usize,
    parse: impl Fn(usize, &[&str]) -> Result<Reading>,
) -> Result<Recording> {
    let mut text = String::new();
    GzDecoder::new(compressed)
        .read_to_string(&mut text)
        .with_context(|| format!("unpack the recording {device}"))?;
    let line = |(number, line): (usize, &str)| {
        let fields: Vec<&str> = line.split(',').collect();
        ensure!(fields.len() == columns, "{} columns", fields.len());
        parse(number, &fields)
    };
    let readings = text
        .lines()
        .enumerate()
        .skip(1)
        .filter(|(_, text)| !text.is_empty())
        .map(|(number, text)| {
            line((number, text)).with_context(|| format!("{device}, line {}: {text}", number + 1))
        })
        .collect::<Result<_>>()?;
    Ok(Recording {
        device,
        what,
        readings,
    })
}

/// A JSON object of a number, a time, and numbers as they are written in the recording; null where there is none.
fn reading(number: usize, at: jiff::Timestamp, fields: &[(&str, &str)]) -> Result<Reading> {
    let mut object = serde_json::Map::new();
    object.insert("n".to_owned(), number.into());
    object.insert("at".to_owned(), at.to_string().into());
    for (name, text) in fields {
        let value = if ["", "nil"].contains(text) {
            serde_json::Value::Null
        } else {
            let number: f64 = text.parse().with_context(|| format!("{name}: {text}"))?;
            if number.fract() == 0.0 && !text.contains('.') {
                serde_json::Value::from(text.parse::<i64>()?)
            } else {
                serde_json::Value::from(number)
            }
        };
        object.insert((*name).to_owned(), value);
    }
    Ok(Reading {
        at: Timestamp::from_millis(at.as_millisecond()),
        json: Bytes::from(serde_json::to_vec(&object)?),
    })
}

#[cfg(test)]
mod tests {
    use super::recordings;

    #[test]
    fn every_reading_of_the_recordings_is_read() {
        let counts: Vec<(&str, usize)> = recordings()
            .expect("the recordings are part of the program")
            .iter()
            .map(|r| (r.device, r.readings.len()))
            .collect();
        assert_eq!(
            counts,
            [
                ("buoy-b01", 19_226),
                ("ride", 4_391),
                ("glucose-sensor", 52_281)
            ]
        );
    }

    #[test]
    fn a_reading_keeps_its_time_and_its_numbers() {
        let recordings = recordings().expect("the recordings are part of the program");
        let texts: Vec<&str> = recordings
            .iter()
            .map(|r| std::str::from_utf8(&r.readings[0].json).expect("JSON is UTF-8"))
            .collect();
        assert_eq!(
            texts,
            [
                r#"{"n":1,"at":"2016-02-15T00:00:00Z","temperature_c":4.929}"#,
                r#"{"n":1,"at":"2013-09-14T08:00:00Z","lat_semicircles":-138827872,"long_semicircles":1992059008,"altitude_m":12.799999999999956,"power_w":68,"cadence_rpm":5,"distance_m":2.07,"speed_mps":1.621}"#,
                r#"{"n":1,"at":"2010-03-24T09:51:00Z","glucose_mg_dl":258,"signal_na":22.59}"#,
            ]
        );
        assert_eq!(recordings[0].readings[0].at.millis(), 1_455_494_400_000);
    }
}
