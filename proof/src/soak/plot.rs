//! Draws the samples as an SVG picture: a small chart for each measure, one above the other, with a line for each restart.
//! Caller: `soak::run`. The picture is checked in, so it is kept small: of many samples in one place the median is drawn.

use super::sample::{Restart, Sample};
use std::fmt::Write as _;
use std::time::Duration;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const CHART: f64 = 92.0;
const GAP: f64 = 34.0;
const POINTS_MAX: usize = 240;
const COLOURS: [&str; 2] = ["#1f77b4", "#d9822b"];
const MIB: f64 = 1_048_576.0;

type Value = fn(&Sample) -> Option<f64>;

/// A chart's title and its lines, each with a name.
const CHARTS: [(&str, &[(&str, Value)]); 7] = [
    (
        "resident memory, MiB",
        &[("mapped files included", |sample| {
            Some(sample.resident_bytes as f64 / MIB)
        })],
    ),
    (
        "anonymous memory, MiB",
        &[("without mapped files", |sample| {
            Some(sample.anonymous_bytes as f64 / MIB)
        })],
    ),
    (
        "open",
        &[
            ("descriptors", |sample| Some(sample.descriptors as f64)),
            ("maps", |sample| Some(sample.maps as f64)),
        ],
    ),
    (
        "threads",
        &[("threads", |sample| Some(sample.threads as f64))],
    ),
    (
        "acknowledgement, p50, ms",
        &[
            ("of the broker", |sample| Some(millis(sample.latency?.p50))),
            ("bare sync", |sample| Some(millis(sample.bare?.p50))),
        ],
    ),
    (
        "acknowledgement, p99, ms",
        &[
            ("of the broker", |sample| Some(millis(sample.latency?.p99))),
            ("bare sync", |sample| Some(millis(sample.bare?.p99))),
        ],
    ),
    (
        "data directory, MiB",
        &[("length of all files", |sample| {
            Some(sample.data_bytes as f64 / MIB)
        })],
    ),
];

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The picture.
pub fn draw(samples: &[Sample], restarts: &[Restart]) -> String {
    let end = samples
        .last()
        .map_or(Duration::from_secs(1), |sample| sample.at);
    let x = |at: Duration| {
        LEFT + (WIDTH - LEFT - RIGHT) * (at.as_secs_f64() / end.as_secs_f64()).min(1.0)
    };
    let height = GAP + CHARTS.len() as f64 * (CHART + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (number, (title, lines)) in CHARTS.iter().enumerate() {
        let top = GAP + number as f64 * (CHART + GAP);
        chart(&mut svg, top, title, lines, samples, &x);
        for restart in restarts {
            let dash = if restart.killed {
                ""
            } else {
                " stroke-dasharray=\"3 3\""
            };
            let at = x(restart.at);
            line(
                &mut svg,
                (at, top),
                (at, top + CHART),
                &format!("stroke=\"#999\" stroke-width=\"0.7\"{dash}"),
            );
        }
    }
    let bottom = height - 10.0;
    let step = minutes_between_labels(end);
    for number in 0.. {
        let at = Duration::from_secs(60 * step * number);
        if at > end {
            break;
        }
        let label = format!("{} min", step * number);
        text(&mut svg, (x(at), bottom), "middle", "#444", &label);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Round, and no more than eight labels.
fn minutes_between_labels(end: Duration) -> u64 {
    let steps = [1, 2, 5, 10, 20, 30, 60, 120, 240, 480, 1440];
    let fits = |step: &u64| end.as_secs() / (60 * step) < 8;
    steps.into_iter().find(fits).unwrap_or(10_080)
}

fn chart(
    svg: &mut String,
    top: f64,
    title: &str,
    lines: &[(&str, Value)],
    samples: &[Sample],
    x: &impl Fn(Duration) -> f64,
) {
    let highest = lines
        .iter()
        .flat_map(|(_, value)| points(samples, *value))
        .fold(0.0, |highest: f64, (_, value)| highest.max(value));
    let scale = round_up(highest);
    let y = |value: f64| top + CHART * (1.0 - value / scale);
    text(svg, (LEFT, top - 6.0), "start", "#000", title);
    for (part, label) in [(0.0, 0.0), (0.5, scale / 2.0), (1.0, scale)] {
        let at = top + CHART * (1.0 - part);
        line(svg, (LEFT, at), (WIDTH - RIGHT, at), "stroke=\"#ddd\"");
        text(
            svg,
            (LEFT - 6.0, at + 4.0),
            "end",
            "#444",
            &format!("{label}"),
        );
    }
    for (number, (name, value)) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let right = WIDTH - RIGHT - 90.0 * (lines.len() - 1 - number) as f64;
        text(svg, (right, top - 6.0), "end", colour, name);
        // A gap in the values is a gap in the line.
        for run in points(samples, *value).chunk_by(|a, b| {
            b.0.saturating_sub(a.0) < a.0.max(b.0).mul_f64(0.02).max(spacing(samples) * 3)
        }) {
            let path: Vec<String> = run
                .iter()
                .map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.3\"/>",
                path.join(" ")
            );
        }
    }
}

/// The time between two points that are drawn.
fn spacing(samples: &[Sample]) -> Duration {
    let drawn = samples.len().clamp(1, POINTS_MAX);
    samples.last().map_or(Duration::ZERO, |sample| sample.at)
        / u32::try_from(drawn).unwrap_or(u32::MAX)
}

/// A value for each place, the median of those that fall there.
fn points(samples: &[Sample], value: Value) -> Vec<(Duration, f64)> {
    let each = samples.len().div_ceil(POINTS_MAX).max(1);
    samples
        .chunks(each)
        .filter_map(|chunk| {
            let mut values: Vec<f64> = chunk.iter().filter_map(value).collect();
            values.sort_unstable_by(f64::total_cmp);
            Some((chunk[0].at, *values.get(values.len() / 2)?))
        })
        .collect()
}

/// The next of 1, 2, 4, 6, 8 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    let step = steps.into_iter().find(|step| step * power >= value);
    step.unwrap_or(10.0) * power
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), style: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" {style}/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, colour: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{words}</text>",
        at.0, at.1
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_stays_small_however_many_samples_there_are() {
        let samples: Vec<Sample> = (0..5_000)
            .map(|number| Sample {
                at: Duration::from_secs(number),
                resident_bytes: (100 + number % 7) << 20,
                ..Sample::default()
            })
            .collect();
        let svg = draw(&samples, &[]);
        assert!(svg.len() < 40_000, "{} bytes", svg.len());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(
            svg.matches("<polyline").count(),
            6,
            "no latency was measured"
        );
    }

    #[test]
    fn labels_are_round_and_few() {
        for (minutes, wanted) in [(1, 1), (7, 1), (10, 2), (60, 10), (600, 120)] {
            let end = Duration::from_secs(minutes * 60);
            assert_eq!(minutes_between_labels(end), wanted, "{minutes} min");
        }
    }

    #[test]
    fn scales_end_at_round_numbers() {
        for (value, wanted) in [
            (0.0, 1.0),
            (0.7, 0.8),
            (1.0, 1.0),
            (13.0, 20.0),
            (61.0, 80.0),
            (99.0, 100.0),
            (400.0, 400.0),
        ] {
            assert!((round_up(value) - wanted).abs() < 1e-9, "{value}");
        }
    }
}
