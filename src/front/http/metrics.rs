//! Metrics as Prometheus reads them: ours, and the names of kafka_exporter, which every dashboard knows.
//! Base units; never a device as a label.
//! Invariant: a family whose labels clients choose has no more than `metrics.series.max` series, and one more for the rest.

mod disk;
mod process;
mod traffic;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::broker::groups::Bound;
use crate::broker::{Bounds, Broker, GroupLag, LogDir};
use crate::front::stats::{Stats, Use};

/// The label of the series that stands for all that have none of their own. No topic can have this name.
const OTHER: &str = "(other)";

struct Page {
    text: String,
    /// Series of one family at most.
    series_max: usize,
    /// Families that have more, and how many of them are summed.
    summed: Vec<(String, usize)>,
}

/// A family whose labels clients choose.
struct Family<'a> {
    name: &'a str,
    labels: &'a [&'a str],
    written: usize,
    summed: usize,
    sum: u64,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}")
            .expect("writing to a string cannot fail");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{}\"", escaped(value)))
            .collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        writeln!(self.text, "{name}{labels} {value}").expect("writing to a string cannot fail");
    }

    /// Opens a family of gauges whose labels clients choose.
    fn many<'a>(&mut self, name: &'a str, help: &str, labels: &'a [&'a str]) -> Family<'a> {
        self.many_of("gauge", name, help, labels)
    }

    /// Opens a family whose labels clients choose.
    fn many_of<'a>(
        &mut self,
        kind: &str,
        name: &'a str,
        help: &str,
        labels: &'a [&'a str],
    ) -> Family<'a> {
        let help = format!(
            "{help} Series beyond the first {} (metrics.series.max) are summed in one with the labels {OTHER}.",
            self.series_max
        );
        self.family(name, kind, &help);
        Family {
            name,
            labels,
            written: 0,
            summed: 0,
            sum: 0,
        }
    }

    /// One series of it, or a part of the sum.
    fn one_of(&mut self, family: &mut Family<'_>, values: &[&str], value: u64) {
        if family.written == self.series_max {
            family.summed += 1;
            family.sum = family.sum.saturating_add(value);
            return;
        }
        family.written += 1;
        let labels: Vec<(&str, &str)> = family
            .labels
            .iter()
            .copied()
            .zip(values.iter().copied())
            .collect();
        self.sample(family.name, &labels, value);
    }

    /// Ends it, with what was summed.
    fn close(&mut self, family: Family<'_>) {
        if family.summed == 0 {
            return;
        }
        let labels: Vec<(&str, &str)> = family.labels.iter().map(|label| (*label, OTHER)).collect();
        self.sample(family.name, &labels, family.sum);
        self.summed.push((family.name.to_owned(), family.summed));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// The whole page. Takes a while for many topics, and never waits for the disk.
pub(super) fn text(broker: &Broker, stats: &Stats, space: Option<&LogDir>) -> String {
    let mut page = Page {
        text: String::new(),
        series_max: broker.config().metrics_series_max,
        summed: Vec::new(),
    };
    server(&mut page, broker, space);
    process::write(&mut page);
    storage(&mut page, broker);
    disk::write(&mut page, broker);
    connections(&mut page, broker, stats);
    topics(&mut page, broker);
    traffic::write(&mut page, broker, stats);
    groups(&mut page, broker);
    limits(&mut page, broker);
    let name = "alluvium_metrics_series_summed";
    page.family(
        name,
        "gauge",
        "Series that have none of their own because their family has metrics.series.max of them.",
    );
    for (family, count) in std::mem::take(&mut page.summed) {
        page.sample(name, &[("family", &family)], count);
    }
    page.text
}

fn server(page: &mut Page, broker: &Broker, space: Option<&LogDir>) {
    let name = "alluvium_build_info";
    page.family(name, "gauge", "Always 1; what runs stands in the labels.");
    page.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.single(
        "alluvium_leader_epoch",
        "gauge",
        "The epoch of this start; it rises by one with each.",
        broker.leader_epoch().get(),
    );
    for (name, help, bytes) in [
        (
            "alluvium_disk_size_bytes",
            "The size of the file system that holds the data directory.",
            space.and_then(|space| space.bytes_total),
        ),
        (
            "alluvium_disk_free_bytes",
            "What of it may still be written.",
            space.and_then(|space| space.bytes_free),
        ),
    ] {
        if let Some(bytes) = bytes {
            page.single(name, "gauge", help, bytes);
        }
    }
}

fn storage(page: &mut Page, broker: &Broker) {
    let metrics = broker.storage_metrics();
    let health = broker.health();
    let counter = "counter";
    page.single(
        "alluvium_wal_frames_total",
        counter,
        "Frames written to the write-ahead log.",
        metrics.frames,
    );
    page.single(
        "alluvium_wal_syncs_total",
        counter,
        "Syncs of the write-ahead log.",
        metrics.syncs,
    );
    page.single(
        "alluvium_appended_bytes_total",
        counter,
        "Bytes of batches appended.",
        metrics.appended_bytes,
    );
    page.single(
        "alluvium_settled_bytes_total",
        counter,
        "Bytes of batches written into segments.",
        metrics.settled_bytes,
    );
    page.single(
        "alluvium_checkpoints_total",
        counter,
        "Checkpoints stored.",
        metrics.checkpoints,
    );
    page.single(
        "alluvium_scrubbed_bytes_total",
        counter,
        "Bytes of sealed segments that the background scrub has verified.",
        metrics.scrubbed_bytes,
    );
    page.single(
        "alluvium_scrubbed_segments_total",
        counter,
        "Sealed segments that the background scrub has verified to their end.",
        metrics.scrubbed_segments,
    );
    page.single(
        "alluvium_scrub_faults_total",
        counter,
        "Places that the background scrub has found damaged.",
        metrics.scrub_faults,
    );
    page.single(
        "alluvium_read_faults_total",
        counter,
        "Places that the check before the first read has found damaged.",
        metrics.read_faults,
    );
    page.single(
        "alluvium_indexes_rewritten_total",
        counter,
        "Indexes that were missing or damaged, and were written again from their logs.",
        metrics.rewritten_indexes,
    );
    page.single(
        "alluvium_store_bound_removed_bytes_total",
        counter,
        "Bytes of segments removed because the store was larger than store.bytes.max.",
        metrics.bound_removed_bytes,
    );
    page.single(
        "alluvium_append_queue_bytes",
        "gauge",
        "Bytes that wait for the disk.",
        metrics.queued_bytes,
    );
    page.single(
        "alluvium_wal_files",
        "gauge",
        "Files of the write-ahead log.",
        metrics.wal_files,
    );
    page.single(
        "alluvium_wal_files_used",
        "gauge",
        "Files of the write-ahead log that hold something unsettled.",
        metrics.wal_files_used,
    );
    page.single(
        "alluvium_wal_files_max",
        "gauge",
        "Files of the write-ahead log at most (wal.files.max).",
        metrics.wal_files_max,
    );
    page.single(
        "alluvium_disk_full",
        "gauge",
        "1 while appends are refused for lack of space.",
        u8::from(health.disk_full),
    );
    page.single(
        "alluvium_storage_failed",
        "gauge",
        "1 once a write or sync has failed: nothing is appended any more.",
        u8::from(health.failed.is_some()),
    );
    page.single(
        "alluvium_producers",
        "gauge",
        "Idempotent producers that partitions remember, counted in each.",
        metrics.producers,
    );
    page.single(
        "alluvium_producers_forgotten_total",
        counter,
        "Idle producers that were forgotten before producer.id.expiration.ms, because there are too many.",
        metrics.producers_forgotten,
    );
    page.single(
        "alluvium_producers_refused_total",
        counter,
        "Batches of new producers that were refused, because there are too many.",
        metrics.producers_refused,
    );
    page.single(
        "alluvium_pinned_files",
        "gauge",
        "Deleted segments and files of the write-ahead log that connections are still to send from.",
        metrics.pinned_files,
    );
    page.single(
        "alluvium_pinned_bytes",
        "gauge",
        "Their bytes: the disk gets them back when those answers are sent, after response.send.max.ms at the latest.",
        metrics.pinned_bytes,
    );
    page.single(
        "alluvium_logs",
        "gauge",
        "Logs: partitions, and two of the broker's own.",
        metrics.logs,
    );
    page.single(
        "alluvium_damaged_ranges",
        "gauge",
        "Ranges of acknowledged records that cannot be read any more, and that no operator has acknowledged.",
        health.damage.len(),
    );
    page.single(
        "alluvium_damaged_ranges_acknowledged",
        "gauge",
        "Ranges of records that cannot be read any more, as an operator has acknowledged.",
        health.damage_acknowledged.len(),
    );
}

fn connections(page: &mut Page, broker: &Broker, stats: &Stats) {
    page.single(
        "alluvium_kafka_connections_max",
        "gauge",
        "Connections at a time at most (max.connections, or fewer if the limit of descriptors allows no more).",
        broker.config().connections_max,
    );
    page.single(
        "alluvium_kafka_connections",
        "gauge",
        "Open connections.",
        stats.connections.load(Relaxed),
    );
    page.single(
        "alluvium_kafka_connections_accepted_total",
        "counter",
        "Connections accepted.",
        stats.accepted.load(Relaxed),
    );
    page.single(
        "alluvium_kafka_received_bytes_total",
        "counter",
        "Bytes of requests.",
        stats.received_bytes.load(Relaxed),
    );
    page.single(
        "alluvium_kafka_sent_bytes_total",
        "counter",
        "Bytes of responses.",
        stats.sent_bytes.load(Relaxed),
    );
    page.single(
        "alluvium_kafka_connections_made_room_total",
        "counter",
        "Connections that were silent or idle, and were closed to let others in.",
        stats.made_room.load(Relaxed),
    );
    page.single(
        "alluvium_http_connections_made_room_total",
        "counter",
        "HTTP connections that were closed to let others in.",
        stats.http_made_room.load(Relaxed),
    );
    page.single(
        "alluvium_kafka_responses_not_taken_total",
        "counter",
        "Connections that were closed because an answer was not taken within response.send.max.ms.",
        stats.unread_closed.load(Relaxed),
    );
    memory(page, stats);
    let name = "alluvium_kafka_request_duration_seconds";
    page.family(
        name,
        "histogram",
        "From the whole request to the ready response; waiting for data is in it.",
    );
    for key in stats.keys() {
        let mut count = 0;
        for (bound, within) in &key.buckets {
            count += within;
            let bound = bound.map_or_else(
                || "+Inf".to_owned(),
                |micros| (micros as f64 / 1e6).to_string(),
            );
            page.sample(
                &format!("{name}_bucket"),
                &[("api", &key.name), ("le", &bound)],
                count,
            );
        }
        page.sample(
            &format!("{name}_sum"),
            &[("api", &key.name)],
            key.micros as f64 / 1e6,
        );
        page.sample(
            &format!("{name}_count"),
            &[("api", &key.name)],
            key.finished,
        );
    }
}

/// What requests and answers hold in memory.
fn memory(page: &mut Page, stats: &Stats) {
    let Some(uses) = stats.memory() else { return };
    let uses = ["request", "response"].into_iter().zip(uses);
    type Value = fn(&Use) -> u64;
    let families: [(&str, &str, &str, Value); 5] = [
        (
            "alluvium_kafka_queued_bytes",
            "gauge",
            "Bytes of memory that requests hold that are received or worked on, and that answers hold until they are sent.",
            |it| it.held as u64,
        ),
        (
            "alluvium_kafka_queued_bytes_max",
            "gauge",
            "The bound of it: queued.max.request.bytes and queued.max.response.bytes.",
            |it| it.bytes_max as u64,
        ),
        (
            "alluvium_kafka_queued_waiting",
            "gauge",
            "Requests or answers that wait for others to give back their memory.",
            |it| it.waiting as u64,
        ),
        (
            "alluvium_kafka_queued_waits_total",
            "counter",
            "How often one had to wait for it.",
            |it| it.waits,
        ),
        (
            "alluvium_kafka_queued_evicted_total",
            "counter",
            "Connections that were closed because others waited for what they held and moved too slowly.",
            |it| it.evicted,
        ),
    ];
    for (name, kind, help, value) in families {
        page.family(name, kind, help);
        for (what, usage) in uses.clone() {
            page.sample(name, &[("kind", what)], value(&usage));
        }
    }
}

fn topics(page: &mut Page, broker: &Broker) {
    page.single("kafka_brokers", "gauge", "Brokers of the cluster.", 1);
    let topics = broker.topics();
    let mut family = page.many(
        "kafka_topic_partitions",
        "Partitions of a topic.",
        &["topic"],
    );
    for topic in &topics {
        let count = topic.partition_count();
        page.one_of(&mut family, &[topic.name.as_str()], count.into());
    }
    page.close(family);
    let mut family = page.many(
        "alluvium_topic_bytes",
        "Bytes of a topic's batches.",
        &["topic"],
    );
    for topic in &topics {
        let sizes = broker.partition_sizes(topic);
        let bytes = sizes.iter().map(|size| size.bytes).sum();
        page.one_of(&mut family, &[topic.name.as_str()], bytes);
    }
    page.close(family);
    type Value = fn(&Bounds) -> u64;
    let offsets: [(&str, &str, Value); 2] = [
        (
            "kafka_topic_partition_current_offset",
            "The end of what readers may see.",
            |bounds| bounds.durable_end.get(),
        ),
        (
            "kafka_topic_partition_oldest_offset",
            "The first offset that is kept.",
            |bounds| bounds.start.get(),
        ),
    ];
    for (name, help, value) in offsets {
        let mut family = page.many(name, help, &["topic", "partition"]);
        for topic in &topics {
            for partition in topic.partitions() {
                let Ok(bounds) = broker.bounds(topic, partition) else {
                    continue;
                };
                let labels = [topic.name.as_str(), &partition.to_string()];
                page.one_of(&mut family, &labels, value(&bounds));
            }
        }
        page.close(family);
    }
}

fn groups(page: &mut Page, broker: &Broker) {
    let mut family = page.many(
        "kafka_consumergroup_members",
        "Members of a group.",
        &["consumergroup"],
    );
    for group in broker.groups().list() {
        let members = broker.groups().describe(&group.id);
        let count = members.map_or(0, |group| group.members.len());
        page.one_of(&mut family, &[&group.id], count as u64);
    }
    page.close(family);
    let lags = broker.group_lags(page.series_max);
    let of_partition = ["consumergroup", "topic", "partition"];
    type Value = fn(&GroupLag) -> u64;
    let sums: [(&str, &str, Value, u64); 2] = [
        (
            "kafka_consumergroup_current_offset",
            "The offset that a group committed.",
            |lag| lag.committed.get(),
            lags.other_committed,
        ),
        (
            "kafka_consumergroup_lag",
            "Records that a group has still to read.",
            |lag| lag.records,
            lags.other_records,
        ),
    ];
    for (name, help, value, others) in sums {
        let mut family = page.many(name, help, &of_partition);
        for lag in &lags.single {
            let partition = lag.partition.to_string();
            let labels = [lag.group.as_str(), lag.topic.as_str(), partition.as_str()];
            page.one_of(&mut family, &labels, value(lag));
        }
        (family.summed, family.sum) = (lags.other_count, others);
        page.close(family);
    }
    let mut of_topics: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for lag in &lags.single {
        let sum = of_topics
            .entry((lag.group.as_str(), lag.topic.as_str()))
            .or_default();
        *sum = sum.saturating_add(lag.records);
    }
    let mut family = page.many(
        "kafka_consumergroup_lag_sum",
        "Records that a group has still to read of a topic, of the partitions that have series of their own.",
        &["consumergroup", "topic"],
    );
    for ((group, topic), records) in of_topics {
        page.one_of(&mut family, &[group, topic], records);
    }
    page.close(family);
    type Age = fn(&GroupLag) -> Option<Duration>;
    let ages: [(&str, &str, Age); 2] = [
        (
            "alluvium_consumergroup_lag_seconds",
            "For how long the record that a group reads next has been here; of the first metrics.series.max groups and partitions.",
            |lag| lag.age,
        ),
        (
            "alluvium_consumergroup_lag_event_seconds",
            "The age of that record by its own timestamp, which is the device's.",
            |lag| lag.event_age,
        ),
    ];
    for (name, help, age) in ages {
        page.family(name, "gauge", help);
        for lag in &lags.single {
            let Some(age) = age(lag) else { continue };
            let partition = lag.partition.to_string();
            let labels = [
                ("consumergroup", lag.group.as_str()),
                ("topic", lag.topic.as_str()),
                ("partition", partition.as_str()),
            ];
            page.sample(name, &labels, age.as_secs_f64());
        }
    }
}

fn limits(page: &mut Page, broker: &Broker) {
    let bounds = broker.groups().bounds();
    let mut family = |name: &str, kind: &str, help: &str, value: fn(&Bound) -> u64| {
        page.family(name, kind, help);
        for bound in &bounds {
            page.sample(name, &[("setting", bound.setting)], value(bound));
        }
    };
    family(
        "alluvium_limit_used",
        "gauge",
        "What is held of what a setting bounds.",
        |bound| bound.used,
    );
    family(
        "alluvium_limit_max",
        "gauge",
        "What may be held of it.",
        |bound| bound.max,
    );
    family(
        "alluvium_limit_refused_total",
        "counter",
        "Requests, or parts of them, that the bound has refused.",
        |bound| bound.refused,
    );
}
