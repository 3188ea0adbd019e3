//! The metrics of the AMQP front.
//! Callers: the page of metrics, by way of `serve`.

use std::sync::atomic::Ordering::Relaxed;

use super::state::Front;
use crate::metrics::{Families, Family, Kind};

impl Front {
    /// Adds them all.
    pub fn add_metrics(&self, families: &mut Families<'_>) {
        let counts = self.places.counts();
        families.gauge(
            "alluvium_amqp_connections_max",
            "AMQP connections at a time at most.",
            counts.open_max,
        );
        families.gauge(
            "alluvium_amqp_connections",
            "Open AMQP connections.",
            counts.open,
        );
        families.counter(
            "alluvium_amqp_connections_accepted_total",
            "AMQP connections accepted.",
            counts.accepted,
        );
        let stats = &self.stats;
        let mut links = Family::new(
            Kind::Gauge,
            "alluvium_amqp_links",
            "Attached AMQP links.",
            &["kind"],
        );
        links.sample(&["producer"], stats.producers.load(Relaxed));
        links.sample(&["consumer"], stats.consumers.load(Relaxed));
        links.sample(&["cursor"], stats.cursors.load(Relaxed));
        links.sample(&["coordinator"], stats.coordinators.load(Relaxed));
        links.sample(&["request"], stats.requests.load(Relaxed));
        families.add(links);
        families.gauge(
            "alluvium_amqp_temporary_nodes",
            "Temporary queues and topics that AMQP connections have made and not yet given up.",
            stats.temporaries.load(Relaxed),
        );
        for (name, help, count) in [
            (
                "alluvium_amqp_received_bytes_total",
                "Bytes from AMQP clients.",
                &stats.received_bytes,
            ),
            (
                "alluvium_amqp_sent_bytes_total",
                "Bytes sent to AMQP clients.",
                &stats.sent_bytes,
            ),
            (
                "alluvium_amqp_delivered_total",
                "Deliveries sent to AMQP receivers.",
                &stats.delivered,
            ),
            (
                "alluvium_amqp_skipped_total",
                "Records that an AMQP receiver was not sent: longer than it takes, or a gap in the log.",
                &stats.skipped,
            ),
            (
                "alluvium_amqp_expired_total",
                "Messages of queues that were given to nobody, as their time was over.",
                &stats.expired,
            ),
        ] {
            families.counter(name, help, count.load(Relaxed));
        }
        let mut received = Family::new(
            Kind::Counter,
            "alluvium_amqp_received_total",
            "Deliveries of AMQP clients, by what became of them.",
            &["outcome"],
        );
        for (what, count) in stats.all_received() {
            received.sample(&[what.name()], count);
        }
        families.add(received);
        let mut ended = Family::new(
            Kind::Counter,
            "alluvium_amqp_ended_total",
            "AMQP links, sessions and connections that the server ended or did not let in, by condition.",
            &["condition"],
        );
        for (condition, count) in stats.all_ended() {
            ended.sample(&[condition], count);
        }
        families.add(ended);
    }
}
