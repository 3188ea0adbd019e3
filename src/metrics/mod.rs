//! Metrics as families: what each part of the server counts, in a shape that belongs to no format.
//! Callers: each part has a function that adds its families; whoever shows metrics brings the [`Families`] and writes each
//! family as it comes, so that never more than one is held.
//! Names: ours begin with `alluvium_`; those of kafka_exporter and of Prometheus's client libraries are used where they
//! have the metric, as every dashboard knows them. Base units; never a device as a label.
//! Invariant: a family whose labels clients choose has no more than `metrics.series.max` series, and one more for the rest.

pub mod process;

/// The label of the series that stands for all that have none of their own. No topic can have this name.
const OTHER: &str = "(other)";

/// A family's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only rises; its name ends in `_total`.
    Counter,
    /// It rises and falls.
    Gauge,
    /// How many of what was measured fell below each bound.
    Histogram,
}

/// A number.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole one.
    Whole(u64),
    /// One with a fraction, such as seconds.
    Real(f64),
    /// All of a histogram.
    Histogram(Histogram),
}

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        Value::Whole(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Value {
        Value::Whole(value as u64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Real(value)
    }
}

impl From<Histogram> for Value {
    fn from(value: Histogram) -> Value {
        Value::Histogram(value)
    }
}

/// What was measured, counted by bounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Upper bounds, rising, each with how many were no larger, those below the bound before included.
    pub buckets: Vec<(f64, u64)>,
    /// How many there were, those above all bounds included.
    pub count: u64,
    /// All of them together.
    pub sum: f64,
}

impl Histogram {
    /// From bounds and durations in microseconds: `counts` is how many fell into each bucket alone, in the order of the
    /// bounds, with one more at the end that has no bound.
    pub fn of_micros(bounds: &[u64], counts: &[u64], sum: u64) -> Histogram {
        assert!(
            counts.len() == bounds.len() + 1,
            "one bucket has no bound: {} counts for {} bounds",
            counts.len(),
            bounds.len()
        );
        let mut count = 0;
        let mut buckets = Vec::with_capacity(bounds.len());
        for (bound, within) in bounds.iter().zip(counts) {
            count += within;
            buckets.push((seconds(*bound), count));
        }
        Histogram {
            buckets,
            count: count + counts[bounds.len()],
            sum: seconds(sum),
        }
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// One series.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The values of the family's labels, in their order.
    pub labels: Vec<String>,
    /// Its value.
    pub value: Value,
}

/// Series of one name and meaning.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What it means.
    pub help: String,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its series.
    pub samples: Vec<Sample>,
    bound: Option<Bound>,
}

/// What keeps a family short whose labels clients choose.
#[derive(Debug, Clone, Default, PartialEq)]
struct Bound {
    series_max: usize,
    summed: usize,
    sum: u64,
}

impl Family {
    /// A family without series, whose labels take a few values that we know.
    pub fn new(
        kind: Kind,
        name: &'static str,
        help: impl Into<String>,
        labels: &'static [&'static str],
    ) -> Family {
        Family {
            name,
            kind,
            help: help.into(),
            labels,
            samples: Vec::new(),
            bound: None,
        }
    }

    /// Adds a series.
    pub fn sample(&mut self, labels: &[&str], value: impl Into<Value>) {
        assert!(
            labels.len() == self.labels.len(),
            "{} has the labels {:?}",
            self.name,
            self.labels
        );
        self.samples.push(Sample {
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            value: value.into(),
        });
    }

    /// Adds a series, or, beyond the bound, its value to the one for the rest.
    pub fn bounded_sample(&mut self, labels: &[&str], value: u64) {
        match &mut self.bound {
            Some(bound) if self.samples.len() >= bound.series_max => {
                bound.summed += 1;
                bound.sum = bound.sum.saturating_add(value);
            }
            _ => self.sample(labels, value),
        }
    }

    /// Says what stands for those that were never looked at: how many, and their sum.
    pub fn rest(&mut self, count: usize, sum: u64) {
        let bound = self.bound.get_or_insert_default();
        bound.summed += count;
        bound.sum = bound.sum.saturating_add(sum);
    }
}

/// Takes families one by one and hands each on.
pub struct Families<'a> {
    series_max: usize,
    write: &'a mut dyn FnMut(&Family),
    /// Families that have more series than they may, and how many of them are summed.
    summed: Vec<(&'static str, usize)>,
}

impl<'a> Families<'a> {
    /// `write` is called with each family, whole.
    pub fn new(series_max: usize, write: &'a mut dyn FnMut(&Family)) -> Families<'a> {
        Families {
            series_max,
            write,
            summed: Vec::new(),
        }
    }

    /// Series of one family at most.
    pub fn series_max(&self) -> usize {
        self.series_max
    }

    /// A gauge of one series.
    pub fn gauge(&mut self, name: &'static str, help: &str, value: impl Into<Value>) {
        self.single(Kind::Gauge, name, help, value);
    }

    /// A counter of one series.
    pub fn counter(&mut self, name: &'static str, help: &str, value: impl Into<Value>) {
        self.single(Kind::Counter, name, help, value);
    }

    fn single(&mut self, kind: Kind, name: &'static str, help: &str, value: impl Into<Value>) {
        let mut family = Family::new(kind, name, help, &[]);
        family.sample(&[], value);
        self.add(family);
    }

    /// A family whose labels clients choose: [`Family::bounded_sample`] fills it.
    pub fn bounded(
        &self,
        kind: Kind,
        name: &'static str,
        help: &str,
        labels: &'static [&'static str],
    ) -> Family {
        let series_max = self.series_max;
        let help = format!(
            "{help} Series beyond the first {series_max} (metrics.series.max) are summed in one with the labels {OTHER}."
        );
        let mut family = Family::new(kind, name, help, labels);
        family.bound = Some(Bound {
            series_max,
            ..Bound::default()
        });
        family
    }

    /// Hands a family on.
    pub fn add(&mut self, mut family: Family) {
        if let Some(bound) = family.bound.take().filter(|bound| bound.summed > 0) {
            let others = vec![OTHER; family.labels.len()];
            family.sample(&others, bound.sum);
            self.summed.push((family.name, bound.summed));
        }
        (self.write)(&family);
    }

    /// Adds the family that says which others were cut short. The last call.
    pub fn finish(mut self) {
        let mut family = Family::new(
            Kind::Gauge,
            "alluvium_metrics_series_summed",
            "Series that have none of their own because their family has metrics.series.max of them.",
            &["family"],
        );
        for (name, count) in std::mem::take(&mut self.summed) {
            family.sample(&[name], count);
        }
        self.add(family);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_beyond_the_bound_are_summed_in_one_and_counted() {
        let mut written = Vec::new();
        let mut write = |family: &Family| written.push(family.clone());
        let mut families = Families::new(2, &mut write);
        let mut family = families.bounded(Kind::Gauge, "x", "X.", &["topic"]);
        for (topic, value) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            family.bounded_sample(&[topic], value);
        }
        family.rest(10, 100);
        families.add(family);
        families.finish();
        let [x, summed] = &written[..] else {
            panic!("{written:?}")
        };
        let series: Vec<_> = x
            .samples
            .iter()
            .map(|one| (&*one.labels[0], &one.value))
            .collect();
        let value = Value::Whole;
        assert_eq!(
            series,
            [("a", &value(1)), ("b", &value(2)), (OTHER, &value(107))]
        );
        assert_eq!(summed.samples[0].labels, ["x"]);
        assert_eq!(summed.samples[0].value, value(12));
    }

    #[test]
    fn a_histogram_is_cumulated_and_counts_what_is_above_all_bounds() {
        let histogram = Histogram::of_micros(&[1_000, 2_000_000], &[1, 2, 4], 5_000_000);
        let expected = Histogram {
            buckets: vec![(0.001, 1), (2.0, 3)],
            count: 7,
            sum: 5.0,
        };
        assert_eq!(histogram, expected);
    }
}
