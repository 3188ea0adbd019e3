//! What flat means: of each measure, the median of a span's last quarter is no more than a bound above the median of its
//! second quarter (the first is warming up). Two spans are judged: the whole run, whose restarts show what a start leaves
//! behind, and the longest life of one process, which shows what grows with time.
//! Caller: `soak::run`. Pure.

use super::load::Done;
use super::sample::{Restart, Sample};
use std::fmt::Write as _;
use std::time::Duration;

/// A measure, and how much it may rise.
struct Measure {
    name: &'static str,
    unit: &'static str,
    of: fn(&Sample) -> Option<f64>,
    /// The late median may be this many times the early one...
    ratio: f64,
    /// ...and this much more.
    slack: f64,
    /// What the machine itself took meanwhile: where that rose, the bound rises as much.
    beside: Option<fn(&Sample) -> Option<f64>>,
    because: &'static str,
}

const MIB: f64 = 1_048_576.0;

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

const MEASURES: [Measure; 10] = [
    Measure {
        name: "anonymous memory",
        unit: "MiB",
        of: |sample| Some(sample.anonymous_bytes as f64 / MIB),
        ratio: 1.10,
        slack: 2.0,
        beside: None,
        because: "in an hour, a leak of 2 bytes for each record is more",
    },
    Measure {
        name: "resident memory",
        unit: "MiB",
        of: |sample| Some(sample.resident_bytes as f64 / MIB),
        ratio: 1.10,
        slack: 64.0,
        beside: None,
        because: "with mapped files, of which one of the write-ahead log is 64 MiB",
    },
    Measure {
        name: "descriptors",
        unit: "",
        of: |sample| Some(sample.descriptors as f64),
        ratio: 1.10,
        slack: 16.0,
        beside: None,
        because: "connections and topics come and go",
    },
    Measure {
        name: "maps",
        unit: "",
        of: |sample| Some(sample.maps as f64),
        ratio: 1.10,
        slack: 16.0,
        beside: None,
        because: "segments come and go",
    },
    Measure {
        name: "threads",
        unit: "",
        of: |sample| Some(sample.threads as f64),
        ratio: 1.0,
        slack: 4.0,
        beside: None,
        because: "the blocking pool grows by what reads cold data at once",
    },
    Measure {
        name: "data directory",
        unit: "MiB",
        of: |sample| Some(sample.data_bytes as f64 / MIB),
        ratio: 1.10,
        slack: 64.0,
        beside: None,
        because: "retention removes whole segments, and the write-ahead log grows by whole files",
    },
    Measure {
        name: "ack p50",
        unit: "ms",
        of: |sample| Some(millis(sample.latency?.p50)),
        ratio: 1.5,
        slack: 0.5,
        beside: Some(|sample| Some(millis(sample.bare?.p50))),
        because: "and by what a bare write and sync does",
    },
    Measure {
        name: "ack p99",
        unit: "ms",
        of: |sample| Some(millis(sample.latency?.p99)),
        ratio: 2.0,
        slack: 5.0,
        beside: Some(|sample| Some(millis(sample.bare?.p99))),
        because: "and by what a bare write and sync does; of 250 in a sample it is the third-slowest",
    },
    Measure {
        name: "bare p50",
        unit: "ms",
        of: |sample| Some(millis(sample.bare?.p50)),
        ratio: f64::INFINITY,
        slack: 0.0,
        beside: None,
        because: "the machine itself: a write and a sync of 4 KiB, without a broker",
    },
    Measure {
        name: "bare p99",
        unit: "ms",
        of: |sample| Some(millis(sample.bare?.p99)),
        ratio: f64::INFINITY,
        slack: 0.0,
        beside: None,
        because: "the same",
    },
];

/// All measures.
pub struct Verdict {
    /// One for each measure.
    pub rows: Vec<Row>,
}

/// A measure's medians.
pub struct Row {
    /// Its name.
    pub name: &'static str,
    measure: &'static Measure,
    whole: Medians,
    longest_life: Medians,
    max: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Medians {
    early: f64,
    late: f64,
    /// How many times slower the machine itself was late than early; 1 where that does not matter.
    machine: f64,
}

impl Row {
    /// Whether neither span rises above the bound.
    pub fn is_flat(&self) -> bool {
        [self.whole, self.longest_life].iter().all(|medians| {
            let bound = medians.early * self.measure.ratio * medians.machine + self.measure.slack;
            // Of a span too short for medians nothing is known.
            medians.late <= bound
        })
    }
}

/// Judges the samples, which are in order.
pub fn judge(samples: &[Sample], restarts: &[Restart]) -> Verdict {
    let longest_life = longest_life(samples, restarts);
    let rows = MEASURES
        .iter()
        .map(|measure| Row {
            name: measure.name,
            measure,
            whole: medians(samples, measure),
            longest_life: medians(longest_life, measure),
            max: samples.iter().filter_map(measure.of).fold(0.0, f64::max),
        })
        .collect();
    Verdict { rows }
}

/// The samples of the process that lived longest.
fn longest_life<'a>(samples: &'a [Sample], restarts: &[Restart]) -> &'a [Sample] {
    samples
        .chunk_by(|a, b| {
            !restarts
                .iter()
                .any(|restart| a.at <= restart.at && restart.at < b.at)
        })
        .max_by_key(|life| life.len())
        .unwrap_or_default()
}

fn medians(span: &[Sample], measure: &Measure) -> Medians {
    let quarter = span.len() / 4;
    let (early, late) = (&span[quarter..2 * quarter], &span[span.len() - quarter..]);
    let machine = measure
        .beside
        .map(|of| median(late, of) / median(early, of));
    Medians {
        early: median(early, measure.of),
        late: median(late, measure.of),
        machine: machine.map_or(1.0, |slower| slower.max(1.0)),
    }
}

fn median(part: &[Sample], of: fn(&Sample) -> Option<f64>) -> f64 {
    let mut values: Vec<f64> = part.iter().filter_map(of).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The page's part: what was done, the table, and the picture.
pub fn section(minutes: u64, verdict: &Verdict, restarts: &[Restart], done: &Done) -> String {
    let killed = restarts.iter().filter(|restart| restart.killed).count();
    let down = restarts
        .iter()
        .map(|restart| restart.down)
        .max()
        .unwrap_or_default();
    let mut text = format!(
        "`cargo xtask soak --minutes {minutes}`: {done}. The broker was restarted {} times, {killed} of them by SIGKILL and {} by \
         SIGTERM, and was ready again after {:.2} s at most.\n\n\
         | measure | whole run: 2nd quarter | last quarter | longest life: 2nd quarter | last quarter | highest | may rise by | flat |\n\
         |---|---|---|---|---|---|---|---|\n",
        restarts.len(),
        restarts.len() - killed,
        down.as_secs_f64(),
    );
    for row in &verdict.rows {
        let Measure {
            unit,
            ratio,
            slack,
            because,
            ..
        } = row.measure;
        let value = |value: f64| {
            let digits = usize::from(*unit == "ms" || *unit == "MiB");
            format!("{value:.digits$} {unit}").trim_end().to_owned()
        };
        let percent = (ratio - 1.0) * 100.0;
        let (bound, flat) = match (percent, row.is_flat()) {
            (f64::INFINITY, _) => ("any".to_owned(), ""),
            (0.0, flat) => (value(*slack), yes_or_no(flat)),
            (_, flat) => (
                format!("{percent:.0} % and {}", value(*slack)),
                yes_or_no(flat),
            ),
        };
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {bound}: {because} | {flat} |",
            row.name,
            value(row.whole.early),
            value(row.whole.late),
            value(row.longest_life.early),
            value(row.longest_life.late),
            value(row.max),
        );
    }
    text.push_str("\nMedians of quarters. The picture shows the same, with a line for each restart (dashed: SIGTERM):\n\n![](soak.svg)\n");
    text
}

fn yes_or_no(holds: bool) -> &'static str {
    if holds { "yes" } else { "**no**" }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Latency;
    use super::*;

    fn samples(count: u64, anonymous_mib: impl Fn(u64) -> u64) -> Vec<Sample> {
        let latency = |p99| {
            Some(Latency {
                p50: Duration::from_millis(1),
                p99: Duration::from_millis(p99),
            })
        };
        (0..count)
            .map(|number| Sample {
                at: Duration::from_secs(number),
                anonymous_bytes: anonymous_mib(number) << 20,
                latency: latency(10),
                bare: latency(2),
                ..Sample::default()
            })
            .collect()
    }

    fn restart(seconds: u64) -> Restart {
        Restart {
            at: Duration::from_secs(seconds),
            killed: true,
            down: Duration::ZERO,
        }
    }

    fn not_flat(samples: &[Sample], restarts: &[Restart]) -> Vec<&'static str> {
        judge(samples, restarts)
            .rows
            .iter()
            .filter(|row| !row.is_flat())
            .map(|row| row.name)
            .collect()
    }

    #[test]
    fn what_stays_is_flat_and_warming_up_does_no_harm() {
        let warm = samples(400, |number| number.min(100));
        assert_eq!(not_flat(&warm, &[restart(300)]), [""; 0]);
    }

    #[test]
    fn what_grows_all_the_time_is_not_flat() {
        assert_eq!(
            not_flat(&samples(400, |number| 100 + number / 4), &[]),
            ["anonymous memory"]
        );
    }

    #[test]
    fn what_grows_within_a_life_is_found_though_restarts_hide_it() {
        let sawtooth = samples(
            400,
            |number| if number < 300 { number } else { number - 300 },
        );
        assert_eq!(not_flat(&sawtooth, &[restart(299)]), ["anonymous memory"]);
    }

    #[test]
    fn slower_acknowledgements_are_flat_only_beside_a_slower_machine() {
        let mut slower = samples(400, |_| 50);
        for sample in &mut slower[300..] {
            let slow = Duration::from_millis(60);
            sample.latency = sample.latency.map(|latency| Latency {
                p99: slow,
                ..latency
            });
        }
        assert_eq!(not_flat(&slower, &[]), ["ack p99"]);
        for sample in &mut slower[300..] {
            let slow = Duration::from_millis(6);
            sample.bare = sample.bare.map(|bare| Latency { p99: slow, ..bare });
        }
        assert_eq!(not_flat(&slower, &[]), [""; 0]);
    }

    #[test]
    fn a_measure_without_values_is_not_flat() {
        let mut silent = samples(400, |_| 50);
        silent.iter_mut().for_each(|sample| sample.latency = None);
        assert_eq!(not_flat(&silent, &[]), ["ack p50", "ack p99"]);
    }

    #[test]
    fn the_longest_life_lies_between_two_restarts() {
        let all = samples(100, |_| 1);
        let life = longest_life(&all, &[restart(10), restart(70)]);
        assert_eq!((life[0].at.as_secs(), life.len()), (11, 60));
    }
}
