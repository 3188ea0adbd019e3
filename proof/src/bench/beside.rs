//! Two builds in one run: `cargo xtask bench NAME --beside BINARY`.
//!
//! The builds take turns, run by run, and the one that goes first changes with each pair, so that a machine that drifts
//! is slow for both. What is judged is the median of the pairs' ratios.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, ensure};

use super::figures::{Figure, median, number};
use super::{Bench, Case};

/// The part by which this build may be worse than the other one before it counts: the noise of a median.
pub const TOLERANCE: f64 = 0.05;

/// One figure of both builds.
#[derive(Clone, Debug)]
pub struct Compared {
    this: Figure,
    other: Figure,
}

impl Compared {
    /// The median over the pairs of this build's value by the other's.
    pub fn ratio(&self) -> Option<f64> {
        let pairs = self.this.runs.iter().zip(&self.other.runs);
        let ratios: Vec<f64> = pairs
            .filter(|(_, other)| **other > 0.0)
            .map(|(this, other)| this / other)
            .collect();
        median(&ratios)
    }

    /// Whether this build is worse by more than [`TOLERANCE`]. False if nothing was measured.
    pub fn is_worse(&self) -> bool {
        let more_is_better = self.this.unit.ends_with("/s");
        self.ratio().is_some_and(|ratio| {
            if more_is_better {
                ratio < 1.0 - TOLERANCE
            } else {
                ratio > 1.0 + TOLERANCE
            }
        })
    }

    /// What was measured.
    pub fn measurement(&self) -> &str {
        &self.this.what
    }
}

/// Measures the case with both builds in turn, `bench.runs` times each.
pub fn run(case: &Case, bench: &Bench, other: &Path) -> Result<Vec<Compared>> {
    ensure!(
        case.uses_binary,
        "bench {} runs in this process, not in a broker's binary: there is nothing to run beside it",
        case.name
    );
    let once = |binary: &Path| {
        (case.run)(&Bench {
            runs: 1,
            bytes: bench.bytes,
            time: bench.time,
            binary: binary.to_path_buf(),
            work: bench.work.clone(),
        })
    };
    let mut compared: Vec<Compared> = Vec::new();
    for pair in 0..bench.runs {
        bench.progress(&format!("pair {} of {}", pair + 1, bench.runs));
        let (this, that) = if pair % 2 == 0 {
            let this = once(&bench.binary)?;
            (this, once(other)?)
        } else {
            let that = once(other)?;
            (once(&bench.binary)?, that)
        };
        add_pair(&mut compared, this, that)?;
    }
    Ok(compared)
}

fn add_pair(compared: &mut Vec<Compared>, this: Vec<Figure>, that: Vec<Figure>) -> Result<()> {
    ensure!(
        this.len() == that.len()
            && this
                .iter()
                .zip(&that)
                .all(|(one, other)| one.what == other.what),
        "both builds are measured alike"
    );
    if compared.is_empty() {
        let pairs = this.into_iter().zip(that);
        compared.extend(pairs.map(|(this, other)| Compared { this, other }));
        return Ok(());
    }
    for ((all, this), other) in compared.iter_mut().zip(this).zip(that) {
        all.this.runs.extend(this.runs);
        all.other.runs.extend(other.runs);
    }
    Ok(())
}

/// A table in Markdown.
pub fn table(compared: &[Compared]) -> String {
    let mut text = String::from(
        "| what | unit | this build: min | median | max | the other: min | median | max | ratio of the pairs, median | |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in compared {
        let cells = |figure: &Figure| {
            let least = figure.runs.iter().copied().reduce(f64::min);
            let most = figure.runs.iter().copied().reduce(f64::max);
            format!(
                "{} | {} | {}",
                number(least),
                number(median(&figure.runs)),
                number(most)
            )
        };
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            row.this.what,
            row.this.unit,
            cells(&row.this),
            cells(&row.other),
            row.ratio()
                .map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            if row.is_worse() { "**worse**" } else { "" }
        )
        .expect("writing to a string");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(unit: &'static str, runs: &[f64]) -> Figure {
        let mut figure = Figure::new("it", unit);
        figure.runs = runs.to_vec();
        figure
    }

    #[test]
    fn a_rate_is_worse_when_lower_and_a_time_when_higher() {
        let compared = |unit, this: &[f64], other: &[f64]| Compared {
            this: figure(unit, this),
            other: figure(unit, other),
        };
        assert!(compared("MB/s", &[90.0, 90.0, 90.0], &[100.0, 100.0, 100.0]).is_worse());
        assert!(!compared("MB/s", &[96.0], &[100.0]).is_worse());
        assert!(!compared("MB/s", &[150.0], &[100.0]).is_worse());
        assert!(compared("ms", &[1.1], &[1.0]).is_worse());
        assert!(!compared("ms", &[0.5], &[1.0]).is_worse());
    }

    #[test]
    fn pairs_are_compared_and_not_medians() {
        // The machine was half as fast in the second pair, for both.
        let compared = Compared {
            this: figure("MB/s", &[100.0, 50.0, 100.0]),
            other: figure("MB/s", &[100.0, 50.0, 100.0]),
        };
        assert_eq!(compared.ratio(), Some(1.0));
    }

    #[test]
    fn runs_are_added_to_their_own_figure() {
        let mut compared = Vec::new();
        for value in [1.0, 2.0] {
            let this = vec![figure("ms", &[value])];
            let that = vec![figure("ms", &[value * 2.0])];
            add_pair(&mut compared, this, that).unwrap();
        }
        assert_eq!(compared[0].this.runs, [1.0, 2.0]);
        assert_eq!(compared[0].other.runs, [2.0, 4.0]);
        assert!(add_pair(&mut compared, Vec::new(), vec![figure("ms", &[])]).is_err());
    }
}
