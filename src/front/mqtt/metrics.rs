//! The metrics of the MQTT front.
//! Callers: the page of metrics, by way of `serve`.

use std::sync::atomic::Ordering::Relaxed;

use super::state::Front;
use crate::metrics::{Families, Family, Kind};

impl Front {
    /// Adds them all.
    pub fn add_metrics(&self, families: &mut Families<'_>) {
        let counts = self.places.counts();
        families.gauge(
            "alluvium_mqtt_connections_max",
            "MQTT connections at a time at most.",
            counts.open_max,
        );
        families.gauge(
            "alluvium_mqtt_connections",
            "Open MQTT connections.",
            counts.open,
        );
        families.gauge(
            "alluvium_mqtt_clients",
            "MQTT clients that are connected.",
            self.clients.count(),
        );
        families.counter(
            "alluvium_mqtt_connections_accepted_total",
            "MQTT connections accepted.",
            counts.accepted,
        );
        families.counter(
            "alluvium_mqtt_connections_made_room_total",
            "MQTT connections without a client that were closed to let others in.",
            counts.made_room,
        );
        let stats = &self.stats;
        families.gauge(
            "alluvium_mqtt_subscriptions",
            "Subscriptions of connected MQTT clients.",
            stats.subscriptions.load(Relaxed),
        );
        families.gauge(
            "alluvium_mqtt_readers",
            "Subscriptions of MQTT clients that read the log by themselves: replays, and those that are behind.",
            stats.readers.load(Relaxed),
        );
        families.counter(
            "alluvium_mqtt_fell_behind_total",
            "Times that an MQTT subscriber was too slow for what comes, and went on to read by itself.",
            stats.fell_behind.load(Relaxed),
        );
        families.counter(
            "alluvium_mqtt_received_bytes_total",
            "Bytes of packets from MQTT clients.",
            stats.received_bytes.load(Relaxed),
        );
        families.counter(
            "alluvium_mqtt_sent_bytes_total",
            "Bytes sent to MQTT clients.",
            stats.sent_bytes.load(Relaxed),
        );
        let queued = self.received.usage();
        families.gauge(
            "alluvium_mqtt_queued_bytes",
            "Bytes of memory that packets of MQTT clients hold that are received or stored, beside some KiB of each connection.",
            queued.held as u64,
        );
        families.counter(
            "alluvium_mqtt_queued_waits_total",
            "How often a packet had to wait for that memory.",
            queued.waits,
        );
        families.counter(
            "alluvium_mqtt_queued_evicted_total",
            "MQTT connections that were closed because others waited for what they held and moved too slowly.",
            queued.evicted,
        );
        families.counter(
            "alluvium_mqtt_wills_published_total",
            "Wills that were published.",
            stats.wills.load(Relaxed),
        );
        families.gauge(
            "alluvium_mqtt_sessions",
            "MQTT sessions that are kept: those that outlive their connection, or have a will.",
            self.broker.session_count(),
        );
        let (count, bytes) = self.broker.retained_held();
        families.gauge("alluvium_mqtt_retained", "Retained MQTT messages.", count);
        families.gauge(
            "alluvium_mqtt_retained_bytes",
            "What retained MQTT messages hold in memory.",
            bytes,
        );
        self.add_messages(families);
        self.add_codes(families);
    }

    fn add_messages(&self, families: &mut Families<'_>) {
        for (name, help, counts) in [
            (
                "alluvium_mqtt_published_total",
                "Messages that MQTT clients published, by QoS.",
                self.stats.all_published(),
            ),
            (
                "alluvium_mqtt_delivered_total",
                "Messages sent to MQTT subscribers, by the QoS that they were sent with.",
                self.stats.all_delivered(),
            ),
        ] {
            let mut family = Family::new(Kind::Counter, name, help, &["qos"]);
            for (qos, count) in ["0", "1", "2"].into_iter().zip(counts) {
                family.sample(&[qos], count);
            }
            families.add(family);
        }
        let mut family = Family::new(
            Kind::Counter,
            "alluvium_mqtt_skipped_total",
            "Messages that an MQTT subscriber was not sent: longer than it takes, expired, or a gap in the log.",
            &["reason"],
        );
        for (why, count) in self.stats.all_skipped() {
            family.sample(&[why.name()], count);
        }
        families.add(family);
    }

    fn add_codes(&self, families: &mut Families<'_>) {
        let [refused, ended, not_connected] = self.stats.by_code();
        for (name, help, counts) in [
            (
                "alluvium_mqtt_refused_total",
                "Messages of MQTT clients that were refused with an ack, by its reason code.",
                refused,
            ),
            (
                "alluvium_mqtt_ended_total",
                "MQTT connections that the server ended, by reason code.",
                ended,
            ),
            (
                "alluvium_mqtt_not_connected_total",
                "MQTT clients that were not let in, by the code of their CONNACK.",
                not_connected,
            ),
        ] {
            let mut family = Family::new(Kind::Counter, name, help, &["code"]);
            for (code, count) in counts {
                family.sample(&[&format!("0x{code:02x}")], count);
            }
            families.add(family);
        }
    }
}
