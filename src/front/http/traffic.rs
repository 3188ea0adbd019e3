//! What the HTTP front counts of requests: by route, as it was declared, method and class of status; never by a path as it came.
//!
//! Callers: `middleware` counts, `metrics` shows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::http::Method;

use crate::metrics::{Families, Family, Histogram, Kind};

/// Upper bounds of the buckets of times, in microseconds; one more bucket has no bound.
const MICROS: [u64; 12] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 250_000, 1_000_000, 2_500_000, 10_000_000,
    60_000_000,
];
/// Methods that are told apart.
const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER",
];
/// Classes of status.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// What stands for all paths that no route has.
const UNMATCHED: &str = "unmatched";

/// Counters since the start.
pub(super) struct Traffic {
    /// The routes' paths, and last what stands for all others.
    paths: Vec<&'static str>,
    /// One for each path and method.
    counts: Vec<Counts>,
    /// Requests that were turned away because there are too many at a time.
    pub(super) overloaded: AtomicU64,
    /// Answers that go on for as long as their readers like, now.
    pub(super) following: AtomicU64,
    /// Requests whose answer has not ended, now.
    pub(super) answering: AtomicU64,
}

#[derive(Default)]
struct Counts {
    classes: [AtomicU64; CLASSES.len()],
    micros: AtomicU64,
    buckets: [AtomicU64; MICROS.len() + 1],
    received: AtomicU64,
    sent: AtomicU64,
}

/// A path and method in the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted(usize);

impl Traffic {
    /// Counters of these paths.
    pub(super) fn new(paths: impl IntoIterator<Item = &'static str>) -> Traffic {
        let mut paths: Vec<_> = paths.into_iter().collect();
        paths.sort_unstable();
        paths.dedup();
        paths.push(UNMATCHED);
        let counts = (0..paths.len() * METHODS.len()).map(|_| Counts::default());
        Traffic {
            counts: counts.collect(),
            paths,
            overloaded: AtomicU64::new(0),
            following: AtomicU64::new(0),
            answering: AtomicU64::new(0),
        }
    }

    /// Where a request of this route is counted.
    pub(super) fn of(&self, route: Option<&str>, method: &Method) -> Counted {
        let routes = &self.paths[..self.paths.len() - 1];
        let path = route.and_then(|route| routes.binary_search(&route).ok());
        let path = path.unwrap_or(routes.len());
        let name = method.as_str();
        let method = METHODS.iter().position(|known| *known == name);
        Counted(path * METHODS.len() + method.unwrap_or(METHODS.len() - 1))
    }

    /// The head of an answer is there, after so long.
    pub(super) fn answered(&self, at: Counted, status: u16) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        self.counts[at.0].classes[class].fetch_add(1, Relaxed);
    }

    /// An answer took so long.
    pub(super) fn took(&self, at: Counted, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = MICROS.partition_point(|bound| *bound < micros);
        self.counts[at.0].micros.fetch_add(micros, Relaxed);
        self.counts[at.0].buckets[bucket].fetch_add(1, Relaxed);
    }

    /// So many bytes of a request's body came.
    pub(super) fn received(&self, at: Counted, bytes: u64) {
        self.counts[at.0].received.fetch_add(bytes, Relaxed);
    }

    /// So many bytes of an answer's body went.
    pub(super) fn sent(&self, at: Counted, bytes: u64) {
        self.counts[at.0].sent.fetch_add(bytes, Relaxed);
    }

    /// Adds all of it.
    pub(super) fn add_metrics(&self, families: &mut Families<'_>) {
        let new = |kind, name, help: &str, labels| Family::new(kind, name, help, labels);
        let route = &["route", "method"][..];
        let mut requests = new(
            Kind::Counter,
            "alluvium_http_requests_total",
            "HTTP requests answered, by the route as it is declared, method and class of status.",
            &["route", "method", "status"],
        );
        let mut times = new(
            Kind::Histogram,
            "alluvium_http_request_duration_seconds",
            "Time from a request's head to the end of its answer, or to the head of one that follows.",
            route,
        );
        let mut received = new(
            Kind::Counter,
            "alluvium_http_received_bytes_total",
            "Bytes of request bodies.",
            route,
        );
        let mut sent = new(
            Kind::Counter,
            "alluvium_http_sent_bytes_total",
            "Bytes of answers' bodies.",
            route,
        );
        for (index, counts) in self.counts.iter().enumerate() {
            let (path, method) = (
                self.paths[index / METHODS.len()],
                METHODS[index % METHODS.len()],
            );
            let mut is_used = false;
            for (class, count) in CLASSES.iter().zip(&counts.classes) {
                let count = count.load(Relaxed);
                if count > 0 {
                    is_used = true;
                    requests.sample(&[path, method, class], count);
                }
            }
            if !is_used {
                continue;
            }
            let buckets = counts.buckets.each_ref().map(|count| count.load(Relaxed));
            let histogram = Histogram::of_micros(&MICROS, &buckets, counts.micros.load(Relaxed));
            times.sample(&[path, method], histogram);
            received.sample(&[path, method], counts.received.load(Relaxed));
            sent.sample(&[path, method], counts.sent.load(Relaxed));
        }
        for family in [requests, times, received, sent] {
            families.add(family);
        }
        families.counter(
            "alluvium_http_overloaded_total",
            "HTTP requests refused because too many were being answered.",
            self.overloaded.load(Relaxed),
        );
        families.gauge(
            "alluvium_http_requests_answering",
            "HTTP requests whose answer has not ended.",
            self.answering.load(Relaxed),
        );
        families.gauge(
            "alluvium_http_following",
            "HTTP answers that go on for as long as their readers like.",
            self.following.load(Relaxed),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_whatever_has_none_together() {
        let traffic = Traffic::new(["/b", "/a/{id}", "/b"]);
        let get = |route| traffic.of(route, &Method::GET);
        assert_eq!(get(Some("/nosuch")), get(None));
        assert_ne!(get(Some("/a/{id}")), get(Some("/b")));
        let odd = Method::from_bytes(b"BREW").expect("a method");
        assert_eq!(traffic.of(None, &odd), traffic.of(None, &Method::TRACE));
        traffic.answered(get(Some("/b")), 204);
        traffic.took(get(Some("/b")), Duration::from_millis(3));
        traffic.answered(get(None), 404);
        let mut series = Vec::new();
        let mut write = |family: &Family| {
            if family.name == "alluvium_http_requests_total" {
                series.extend(family.samples.iter().map(|one| one.labels.join(" ")));
            }
        };
        traffic.add_metrics(&mut Families::new(100, &mut write));
        assert_eq!(series, ["/b GET 2xx", "unmatched GET 4xx"]);
    }
}
