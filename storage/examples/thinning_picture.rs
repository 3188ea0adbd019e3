//! Draws `docs/thinning.svg`: two recordings before and after thinning, and what was kept of them.
//!
//! `cargo run -p alluvium-storage --example thinning_picture > docs/thinning.svg`. A test compares the page's picture with it.

#![allow(clippy::print_stdout)]

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use alluvium_storage as storage;
use model::topic_config::ThinTiers;
use model::{Offset, Timestamp};
use storage::cleanup::thinning::{Piece, Sample, ThinPolicy};

const DAY_MS: i64 = 86_400_000;
/// A panel's size, and the space around it.
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 44.0;
const TOP: f64 = 46.0;
const ROW: f64 = 196.0;
const COLUMN: f64 = 500.0;

/// A recording, or some days of it.
struct Recording {
    title: &'static str,
    file: &'static str,
    time_column: usize,
    value_column: usize,
    /// Which days are drawn, from its first one on.
    days: std::ops::Range<i64>,
}

const RECORDINGS: [Recording; 2] = [
    Recording {
        title: "glucose, mg/dl, every 5 minutes, 3 days",
        file: "CGM.csv.gz",
        time_column: 1,
        value_column: 2,
        days: 10..13,
    },
    Recording {
        title: "sea temperature, °C, every 30 minutes, 10 days",
        file: "sea_surface_temperature.csv.gz",
        time_column: 0,
        value_column: 1,
        days: 100..110,
    },
];

/// A reading: its time, its value, its line.
type Reading = (i64, f64, String);

/// `2010-03-24 09:51:00` or `2016-02-15T00:30:00Z`, in UTC. Days by Howard Hinnant's `days_from_civil`.
fn millis(text: &str) -> i64 {
    let part = |from: usize, to: usize| -> i64 { text[from..to].parse().expect("a recording") };
    let (month, day) = (part(5, 7), part(8, 10));
    let year = part(0, 4) - i64::from(month <= 2);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = (year % 400) * 365 + (year % 400) / 4 - (year % 400) / 100 + day_of_year;
    let days = year / 400 * 146_097 + day_of_era - 719_468;
    ((days * 24 + part(11, 13)) * 60 + part(14, 16)) * 60_000 + part(17, 19) * 1000
}

fn readings(recording: &Recording) -> Vec<Reading> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
    let file = std::fs::File::open(folder.join(recording.file)).expect("it is checked in");
    let mut text = String::new();
    let mut unpacked = flate2::read::GzDecoder::new(file);
    unpacked.read_to_string(&mut text).expect("it is whole");
    let reading = |line: &str| {
        let cell = |column: usize| line.split(',').nth(column).expect("a recording");
        let value = cell(recording.value_column).parse().expect("a number");
        (millis(cell(recording.time_column)), value, line.to_owned())
    };
    let all: Vec<Reading> = text.lines().skip(1).map(reading).collect();
    let first_day = all[0].0.div_euclid(DAY_MS);
    let is_drawn = |reading: &Reading| {
        recording
            .days
            .contains(&(reading.0.div_euclid(DAY_MS) - first_day))
    };
    all.into_iter().filter(is_drawn).collect()
}

/// What a store keeps of them after an age.
fn thinned(readings: &[Reading], tiers: &str, age_ms: i64) -> Vec<Reading> {
    let tiers: ThinTiers = tiers.parse().expect("valid tiers");
    let policy = ThinPolicy::new(&tiers).expect("there are tiers");
    let mut piece = Piece::new(&policy, usize::MAX, readings.len() as u64);
    let mut offset = Offset::ZERO;
    let mut newest = i64::MIN;
    for (time, _, line) in readings {
        newest = newest.max(*time);
        piece.push(Sample {
            offset,
            key: Some(b"sensor"),
            time: Timestamp::from_millis(*time),
            appended: Timestamp::from_millis(*time),
            value: Some(line.as_bytes()),
        });
        offset = offset.plus(1);
    }
    let now = Timestamp::from_millis(newest + age_ms);
    let decided = piece.decide(now, now);
    let mut going = decided.going(Offset::ZERO);
    let kept = readings
        .iter()
        .enumerate()
        .filter(|(index, _)| !going.goes(Offset::new(*index as u64)));
    kept.map(|(_, reading)| reading.clone()).collect()
}

/// One panel: all readings as a grey line, those that are kept as dots.
fn panel(
    svg: &mut String,
    place: (f64, f64),
    title: &str,
    all: &[Reading],
    kept: &[Reading],
    window_ms: i64,
) {
    let (from, to) = (
        all[0].0.div_euclid(DAY_MS) * DAY_MS,
        (all[all.len() - 1].0.div_euclid(DAY_MS) + 1) * DAY_MS,
    );
    let least = all.iter().map(|it| it.1).fold(f64::INFINITY, f64::min);
    let most = all.iter().map(|it| it.1).fold(f64::NEG_INFINITY, f64::max);
    let x = |time: i64| place.0 + (time - from) as f64 / (to - from) as f64 * WIDTH;
    let y = |value: f64| place.1 + HEIGHT - (value - least) / (most - least) * HEIGHT;
    let (left, top, bottom) = (place.0, place.1, place.1 + HEIGHT);
    let mut line = |text: std::fmt::Arguments<'_>| writeln!(svg, "{text}").expect("a string grows");
    line(format_args!(
        r##"<text x="{left}" y="{:.0}">{title}</text>"##,
        top - 8.0
    ));
    line(format_args!(
        r##"<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>"##
    ));
    for edge in (1..(to - from) / window_ms).map(|number| from + number * window_ms) {
        let is_day = edge % DAY_MS == 0;
        let colour = if is_day { "#999" } else { "#e4e4e4" };
        let at = x(edge);
        line(format_args!(
            r##"<path d="M{at:.1} {top}V{bottom}" stroke="{colour}"/>"##
        ));
    }
    for (value, at) in [(most, top + 4.0), (least, bottom)] {
        line(format_args!(
            r##"<text x="{:.0}" y="{at:.0}" text-anchor="end">{value}</text>"##,
            left - 5.0
        ));
    }
    let mut path = String::new();
    for (time, value, _) in all {
        let command = if path.is_empty() { 'M' } else { 'L' };
        write!(path, "{command}{:.1} {:.1}", x(*time), y(*value)).expect("a string grows");
    }
    line(format_args!(
        r##"<path d="{path}" fill="none" stroke="#b5b5b5"/>"##
    ));
    for (time, value, _) in kept {
        line(format_args!(
            r##"<circle cx="{:.1}" cy="{:.1}" r="2.2" fill="#0b62a4"/>"##,
            x(*time),
            y(*value)
        ));
    }
}

/// The picture.
pub fn picture() -> String {
    let mut svg = String::from(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 620" font-family="sans-serif" font-size="12">
<rect width="1000" height="620" fill="#fff"/>
"##,
    );
    for (column, recording) in RECORDINGS.iter().enumerate() {
        let readings = readings(recording);
        let csv = recording.value_column + 1;
        let tiers = format!(
            "30d:6h:first+last+min(csv{csv})+max(csv{csv}); 365d:1d:min(csv{csv})+max(csv{csv})"
        );
        let left = LEFT + COLUMN * column as f64;
        for (row, (age_days, window_ms, what)) in [
            (0, DAY_MS, recording.title),
            (
                40,
                DAY_MS / 4,
                "after 30 days: first, last, smallest and largest of 6 hours",
            ),
            (400, DAY_MS, "after a year: smallest and largest of a day"),
        ]
        .into_iter()
        .enumerate()
        {
            let kept = thinned(&readings, &tiers, age_days * DAY_MS);
            let title = format!("{what} — {} records", kept.len());
            let place = (left, TOP + ROW * row as f64);
            panel(&mut svg, place, &title, &readings, &kept, window_ms);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[allow(dead_code)]
fn main() {
    print!("{}", picture());
}
