//! What the Kafka front counts, as families of metrics.

use std::sync::atomic::Ordering::Relaxed;

use super::state::Front;
use super::stats::{LATENCY_MICROS, Stats};
use crate::front::budget::Use;
use crate::metrics::{Families, Family, Histogram, Kind};

impl Front {
    /// Adds all of them.
    pub fn add_metrics(&self, families: &mut Families<'_>) {
        self.add_connections(families);
        families.counter(
            "alluvium_kafka_received_bytes_total",
            "Bytes of requests.",
            self.stats.received_bytes.load(Relaxed),
        );
        families.counter(
            "alluvium_kafka_sent_bytes_total",
            "Bytes of responses.",
            self.stats.sent_bytes.load(Relaxed),
        );
        families.counter(
            "alluvium_kafka_responses_not_taken_total",
            "Connections that were closed because an answer was not taken within response.send.max.ms.",
            self.stats.unread_closed.load(Relaxed),
        );
        let (sessions, partitions) = self.share_sessions.count();
        families.gauge(
            "alluvium_kafka_share_sessions",
            "Share sessions: members of share groups that fetch.",
            sessions as u64,
        );
        families.gauge(
            "alluvium_kafka_share_session_partitions",
            "Partitions of all share sessions.",
            partitions as u64,
        );
        self.add_memory(families);
        add_requests(families, &self.stats);
    }

    fn add_connections(&self, families: &mut Families<'_>) {
        let counts = self.places.counts();
        families.gauge(
            "alluvium_kafka_connections_max",
            "Connections at a time at most (max.connections, or fewer if the limit of descriptors allows no more).",
            counts.open_max,
        );
        families.gauge(
            "alluvium_kafka_connections",
            "Open connections.",
            counts.open,
        );
        families.counter(
            "alluvium_kafka_connections_accepted_total",
            "Connections accepted.",
            counts.accepted,
        );
        families.counter(
            "alluvium_kafka_connections_refused_total",
            "Connections that were closed at once because their address has max.connections.per.ip of them.",
            counts.refused,
        );
        families.counter(
            "alluvium_kafka_connections_made_room_total",
            "Connections that were silent or idle, and were closed to let others in.",
            counts.made_room,
        );
    }

    /// What requests and answers hold in memory.
    fn add_memory(&self, families: &mut Families<'_>) {
        let uses = [
            ("request", self.requests.usage()),
            ("response", self.answers.usage()),
        ];
        type Value = fn(&Use) -> u64;
        let held: [(Kind, &'static str, &str, Value); 5] = [
            (
                Kind::Gauge,
                "alluvium_kafka_queued_bytes",
                "Bytes of memory that requests hold that are received or worked on, and that answers hold until they are sent.",
                |of| of.held as u64,
            ),
            (
                Kind::Gauge,
                "alluvium_kafka_queued_bytes_max",
                "The bound of it: queued.max.request.bytes and queued.max.response.bytes.",
                |of| of.bytes_max as u64,
            ),
            (
                Kind::Gauge,
                "alluvium_kafka_queued_waiting",
                "Requests or answers that wait for others to give back their memory.",
                |of| of.waiting as u64,
            ),
            (
                Kind::Counter,
                "alluvium_kafka_queued_waits_total",
                "How often one had to wait for it.",
                |of| of.waits,
            ),
            (
                Kind::Counter,
                "alluvium_kafka_queued_evicted_total",
                "Connections that were closed because others waited for what they held and moved too slowly.",
                |of| of.evicted,
            ),
        ];
        for (kind, name, help, value) in held {
            let mut family = Family::new(kind, name, help, &["kind"]);
            for (what, of) in &uses {
                family.sample(&[what], value(of));
            }
            families.add(family);
        }
    }
}

/// How long requests took, and the errors in their answers.
fn add_requests(families: &mut Families<'_>, stats: &Stats) {
    let keys = stats.keys();
    let mut family = Family::new(
        Kind::Histogram,
        "alluvium_kafka_request_duration_seconds",
        "From the whole request to the ready response; waiting for data is in it.",
        &["api"],
    );
    for key in &keys {
        let durations = Histogram::of_micros(&LATENCY_MICROS, &key.buckets, key.micros);
        family.sample(&[&key.name], durations);
    }
    families.add(family);
    let mut family = Family::new(
        Kind::Counter,
        "alluvium_kafka_errors_total",
        "Error codes in answers, by API and Kafka's name of the code. Some belong to a client's everyday life.",
        &["api", "code"],
    );
    for key in &keys {
        for (code, count) in &key.errors {
            family.sample(&[&key.name, code], *count);
        }
    }
    families.add(family);
}
