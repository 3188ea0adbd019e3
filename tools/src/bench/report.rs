//! What was measured, for people and as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::BenchArgs;
use super::load::Load;
use crate::output::counted;

/// Minimum, median and maximum over runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.collect();
        assert!(!values.is_empty(), "a measure has a run");
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => (values[middle - 1] + values[middle]) / 2.0,
        };
        Spread {
            min: values[0],
            median,
            max: values[values.len() - 1],
        }
    }
}

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Measure {
    pub bytes_per_second: Spread,
    pub records_per_second: Spread,
}

impl Measure {
    pub fn of(bytes_per_second: &[f64], load: &Load) -> Measure {
        let records = load.records as f64 / load.batch.len() as f64;
        Measure {
            bytes_per_second: Spread::of_rates(bytes_per_second),
            records_per_second: Spread::of(bytes_per_second.iter().map(|rate| rate * records)),
        }
    }

    /// Of runs of bytes and records a second.
    pub fn of_replay(runs: &[(f64, f64)]) -> Measure {
        Measure {
            bytes_per_second: Spread::of(runs.iter().map(|run| run.0)),
            records_per_second: Spread::of(runs.iter().map(|run| run.1)),
        }
    }
}

/// Times from when a batch was due to its acknowledgement. Each percentile is told over the runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Latency {
    pub rate_bytes_per_second: f64,
    /// Of all runs.
    pub batches: usize,
    pub p50_ms: Spread,
    pub p90_ms: Spread,
    pub p99_ms: Spread,
    pub p999_ms: Spread,
    pub max_ms: Spread,
}

impl Latency {
    pub fn of(rate: f64, runs: &[Vec<Duration>]) -> Latency {
        let sorted: Vec<Vec<Duration>> = runs
            .iter()
            .map(|run| {
                let mut run = run.clone();
                run.sort();
                run
            })
            .collect();
        let at = |share: f64| {
            let of_run = |run: &Vec<Duration>| percentile(run, share).as_secs_f64() * 1000.0;
            Spread::of(sorted.iter().map(of_run))
        };
        Latency {
            rate_bytes_per_second: rate,
            batches: runs.iter().map(Vec::len).sum(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: at(1.0),
        }
    }
}

/// The smallest time that at least this share of all times does not exceed.
fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// Everything that was measured, and how.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub runs: u32,
    pub seconds: f64,
    pub partitions: u32,
    pub producers: u32,
    pub codec: &'static str,
    pub record_bytes: usize,
    /// As it is sent.
    pub batch_bytes: usize,
    pub batch_records: u64,
    pub produce: Option<Measure>,
    pub latency: Option<Latency>,
    pub replay: Option<Measure>,
}

impl Report {
    pub fn new(args: &BenchArgs, load: &Load) -> Report {
        Report {
            runs: args.runs,
            seconds: args.seconds,
            partitions: args.partitions,
            producers: args.producers,
            codec: args.codec.name(),
            record_bytes: args.record_bytes,
            batch_bytes: load.batch.len(),
            batch_records: load.records,
            produce: None,
            latency: None,
            replay: None,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |n: u64, thing| counted(usize::try_from(n).unwrap_or(usize::MAX), thing);
        writeln!(
            f,
            "{} of {} s; {}, {}; batches of {}, {} bytes, codec {}\n",
            count(self.runs.into(), "run"),
            self.seconds,
            count(self.producers.into(), "producer"),
            count(self.partitions.into(), "partition"),
            count(self.batch_records, "record"),
            self.batch_bytes,
            self.codec
        )?;
        let mut table = crate::table::Table::new(&["MEASURE", "MIN", "MEDIAN", "MAX", "UNIT"]);
        let mut row = |name: &str, spread: &Spread, scale: f64, digits: usize, unit: &str| {
            let cell = |value: f64| format!("{:.digits$}", value / scale);
            table.row([
                name.to_owned(),
                cell(spread.min),
                cell(spread.median),
                cell(spread.max),
                unit.to_owned(),
            ]);
        };
        for (name, measure) in [("produce", &self.produce), ("replay", &self.replay)] {
            if let Some(measure) = measure {
                row(
                    name,
                    &measure.bytes_per_second,
                    f64::from(1 << 20),
                    1,
                    "MiB/s",
                );
                row(
                    &format!("{name}, records"),
                    &measure.records_per_second,
                    1.0,
                    0,
                    "records/s",
                );
            }
        }
        if let Some(latency) = &self.latency {
            let rate = latency.rate_bytes_per_second / f64::from(1 << 20);
            row(
                &format!("ack at {rate:.1} MiB/s, p50"),
                &latency.p50_ms,
                1.0,
                2,
                "ms",
            );
            for (name, spread) in [
                ("p90", &latency.p90_ms),
                ("p99", &latency.p99_ms),
                ("p99.9", &latency.p999_ms),
                ("max", &latency.max_ms),
            ] {
                row(name, spread, 1.0, 2, "ms");
            }
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        let spread = |values: &[f64]| Spread::of_rates(values);
        assert_eq!(
            spread(&[3.0, 1.0, 2.0]),
            Spread {
                min: 1.0,
                median: 2.0,
                max: 3.0
            }
        );
        assert_eq!(
            spread(&[4.0, 1.0]),
            Spread {
                min: 1.0,
                median: 2.5,
                max: 4.0
            }
        );
    }

    #[test]
    fn a_percentile_is_a_time_that_was_seen() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        for (share, millis) in [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100), (0.0, 1)] {
            assert_eq!(
                percentile(&times, share),
                Duration::from_millis(millis),
                "{share}"
            );
        }
        assert_eq!(percentile(&times[..1], 0.99), Duration::from_millis(1));
    }
}
