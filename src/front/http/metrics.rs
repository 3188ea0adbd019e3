//! The page of metrics: families as Prometheus reads them (text format 0.0.4), and what the HTTP front counts itself.

use std::fmt::{Display, Write as _};

use super::state::Front;
use crate::broker::LogDir;
use crate::broker::access::{Cluster, Granted, right};
use crate::metrics::{Families, Family, Kind, Sample, Value, process};

impl Front {
    /// The whole page. Takes a while for many topics, and never waits for the disk.
    pub(super) fn page(
        &self,
        cluster: &Granted<Cluster, right::Describe>,
        space: Option<&LogDir>,
    ) -> String {
        let mut text = String::new();
        let mut write = |family: &Family| render(family, &mut text);
        let mut families = Families::new(self.settings.metrics_series_max, &mut write);
        let mut build = Family::new(
            Kind::Gauge,
            "alluvium_build_info",
            "Always 1; what runs stands in the labels.",
            &["version", "commit"],
        );
        let commit = self.others.commit.unwrap_or_default();
        build.sample(&[env!("CARGO_PKG_VERSION"), commit], 1_u64);
        families.add(build);
        process::add(&mut families);
        self.broker.add_metrics(cluster, &mut families, space);
        for add in &self.others.add_metrics {
            add(&mut families);
        }
        self.add_metrics(&mut families);
        families.finish();
        text
    }

    fn add_metrics(&self, families: &mut Families<'_>) {
        self.traffic.add_metrics(families);
        let counts = self.places.counts();
        families.gauge(
            "alluvium_http_connections_max",
            "HTTP connections at a time at most.",
            counts.open_max,
        );
        families.gauge(
            "alluvium_http_connections",
            "Open HTTP connections.",
            counts.open,
        );
        families.counter(
            "alluvium_http_connections_accepted_total",
            "HTTP connections accepted.",
            counts.accepted,
        );
        families.counter(
            "alluvium_http_connections_made_room_total",
            "HTTP connections that were closed to let others in.",
            counts.made_room,
        );
    }
}

fn render(family: &Family, text: &mut String) {
    let (name, help) = (family.name, &family.help);
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect(NEVER_FAILS);
    for sample in &family.samples {
        let mut line = |suffix: &str, bound: Option<&str>, value: &dyn Display| {
            write!(text, "{name}{suffix}").expect(NEVER_FAILS);
            labels(family, sample, bound, text);
            writeln!(text, " {value}").expect(NEVER_FAILS);
        };
        match &sample.value {
            Value::Whole(number) => line("", None, number),
            Value::Real(number) => line("", None, number),
            Value::Histogram(histogram) => {
                for (bound, count) in &histogram.buckets {
                    line("_bucket", Some(&bound.to_string()), count);
                }
                line("_bucket", Some("+Inf"), &histogram.count);
                line("_sum", None, &histogram.sum);
                line("_count", None, &histogram.count);
            }
        }
    }
}

const NEVER_FAILS: &str = "writing to a string cannot fail";

/// Writes the labels of a series, and the upper bound of a bucket.
fn labels(family: &Family, sample: &Sample, bound: Option<&str>, text: &mut String) {
    let own = sample.labels.iter().map(String::as_str);
    let all = family.labels.iter().copied().zip(own);
    let mut separator = "{";
    for (label, value) in all.chain(bound.map(|bound| ("le", bound))) {
        write!(text, "{separator}{label}=\"").expect(NEVER_FAILS);
        escape(value, text);
        text.push('"');
        separator = ",";
    }
    if separator == "," {
        text.push('}');
    }
}

fn escape(value: &str, text: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Histogram;

    fn rendered(family: &Family) -> String {
        let mut text = String::new();
        render(family, &mut text);
        text
    }

    #[test]
    fn labels_are_escaped() {
        let mut family = Family::new(Kind::Gauge, "x", "X.", &["a", "b"]);
        family.sample(&["\"\\\n", "plain"], 1.5);
        let expected = "# HELP x X.\n# TYPE x gauge\nx{a=\"\\\"\\\\\\n\",b=\"plain\"} 1.5\n";
        assert_eq!(rendered(&family), expected);
    }

    #[test]
    fn a_histogram_is_a_series_for_each_bound_its_sum_and_its_count() {
        let mut family = Family::new(Kind::Histogram, "x", "X.", &["api"]);
        let histogram = Histogram::of_micros(&[500], &[1, 2], 3_000_000);
        family.sample(&["Fetch"], histogram);
        let expected = "# HELP x X.\n# TYPE x histogram\nx_bucket{api=\"Fetch\",le=\"0.0005\"} 1\n\
                        x_bucket{api=\"Fetch\",le=\"+Inf\"} 3\nx_sum{api=\"Fetch\"} 3\nx_count{api=\"Fetch\"} 3\n";
        assert_eq!(rendered(&family), expected);
    }
}
