//! Figures: several runs of one measurement, beside the machine's limit, and the mark to pass.

use std::fmt::Write as _;

/// What a measurement must reach.
#[derive(Clone, Copy, Debug)]
pub enum Mark {
    /// The median is at most this.
    AtMost(f64),
    /// The median is at least this.
    AtLeast(f64),
    /// The median is at least this part of the limit's median.
    OfLimit(f64),
    /// The median is at most this part of the limit's median.
    WithinLimit(f64),
}

/// One row of a table.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// In which unit.
    pub unit: &'static str,
    /// The runs.
    pub runs: Vec<f64>,
    /// What the machine does in a bare loop, a value for each run; empty where there is no such thing.
    pub limits: Vec<f64>,
    /// What must be reached.
    pub mark: Option<Mark>,
}

impl Figure {
    /// A row without runs yet.
    pub fn new(what: impl Into<String>, unit: &'static str) -> Figure {
        Figure {
            what: what.into(),
            unit,
            runs: Vec::new(),
            limits: Vec::new(),
            mark: None,
        }
    }

    /// With a mark to pass.
    pub fn marked(mut self, mark: Mark) -> Figure {
        self.mark = Some(mark);
        self
    }

    /// The part of the limit that was reached.
    pub fn ratio(&self) -> Option<f64> {
        Some(median(&self.runs)? / median(&self.limits)?)
    }

    /// Whether the mark was reached; None if there is none.
    pub fn passed(&self) -> Option<bool> {
        match self.mark? {
            Mark::AtMost(most) => Some(median(&self.runs)? <= most),
            Mark::AtLeast(least) => Some(median(&self.runs)? >= least),
            Mark::OfLimit(part) => Some(self.ratio()? >= part),
            Mark::WithinLimit(part) => Some(self.ratio()? <= part),
        }
    }
}

/// The middle value; None of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// The value below which `part` of the values lie, by nearest rank.
pub fn quantile(values: &mut [u64], part: f64) -> u64 {
    if values.is_empty() {
        return 0;
    }
    values.sort_unstable();
    let rank = (values.len() as f64 * part).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}

/// A table in Markdown.
pub fn table(figures: &[Figure]) -> String {
    let mut text = String::from(
        "| what | unit | min | median | max | the machine's limit | ratio | mark |\n|---|---|---|---|---|---|---|---|\n",
    );
    for figure in figures {
        let least = figure.runs.iter().copied().reduce(f64::min);
        let most = figure.runs.iter().copied().reduce(f64::max);
        let mark = match (figure.mark, figure.passed()) {
            (None, _) => String::new(),
            (Some(Mark::AtMost(most)), passed) => format!("at most {most}: {}", verdict(passed)),
            (Some(Mark::AtLeast(least)), passed) => {
                format!("at least {least}: {}", verdict(passed))
            }
            (Some(Mark::OfLimit(part)), passed) => format!("ratio {part}: {}", verdict(passed)),
            (Some(Mark::WithinLimit(part)), passed) => {
                format!("ratio at most {part}: {}", verdict(passed))
            }
        };
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            figure.what,
            figure.unit,
            number(least),
            number(median(&figure.runs)),
            number(most),
            number(median(&figure.limits)),
            figure
                .ratio()
                .map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            mark
        )
        .expect("writing to a string");
    }
    text
}

fn verdict(passed: Option<bool>) -> &'static str {
    match passed {
        Some(true) => "passed",
        Some(false) => "**missed**",
        None => "not measured",
    }
}

/// A value with as many digits as say something; empty for None.
pub fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_judged_by_the_median() {
        let mut figure = Figure::new("rate", "MB/s").marked(Mark::OfLimit(0.5));
        assert_eq!(figure.passed(), None);
        figure.runs = vec![10.0, 60.0, 50.0];
        figure.limits = vec![100.0, 100.0, 90.0];
        assert_eq!(figure.passed(), Some(true));
        figure.mark = Some(Mark::AtMost(49.0));
        assert_eq!(figure.passed(), Some(false));
        assert!(table(&[figure.clone()]).contains("at most 49: **missed**"));
        figure.mark = Some(Mark::AtLeast(50.0));
        assert_eq!(figure.passed(), Some(true));
        figure.mark = Some(Mark::WithinLimit(0.4));
        assert_eq!(figure.passed(), Some(false));
        assert!(table(&[figure]).contains("ratio at most 0.4: **missed**"));
    }

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let mut values: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(quantile(&mut values, 0.99), 99);
        assert_eq!(quantile(&mut values, 0.5), 50);
        assert_eq!(quantile(&mut values, 1.0), 100);
        assert_eq!(quantile(&mut [], 0.5), 0);
    }
}
