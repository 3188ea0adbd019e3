//! Metrics as Prometheus reads them: ours, and the names of kafka_exporter, which every dashboard knows.
//! Base units; never a device as a label.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use crate::broker::{Bounds, Broker, LogDir};
use crate::front::stats::Stats;

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}")
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
        writeln!(self.0, "{name}{labels} {value}").expect("writing to a string cannot fail");
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

/// The whole page. Blocks.
pub(super) fn text(broker: &Broker, stats: &Stats, space: &LogDir) -> String {
    let mut page = Page(String::new());
    process(&mut page, broker, space);
    storage(&mut page, broker);
    connections(&mut page, stats);
    topics(&mut page, broker);
    groups(&mut page, broker);
    page.0
}

fn process(page: &mut Page, broker: &Broker, space: &LogDir) {
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
            space.bytes_total,
        ),
        (
            "alluvium_disk_free_bytes",
            "What of it may still be written.",
            space.bytes_free,
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
        "Bytes of batches laid down into segments.",
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
        "alluvium_logs",
        "gauge",
        "Logs: partitions, and two of the broker's own.",
        metrics.logs,
    );
    page.single(
        "alluvium_damaged_ranges",
        "gauge",
        "Ranges of acknowledged records that cannot be read any more.",
        health.damage.len(),
    );
}

fn connections(page: &mut Page, stats: &Stats) {
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

fn topics(page: &mut Page, broker: &Broker) {
    page.single("kafka_brokers", "gauge", "Brokers of the cluster.", 1);
    let topics = broker.topics();
    page.family("kafka_topic_partitions", "gauge", "Partitions of a topic.");
    for topic in &topics {
        page.sample(
            "kafka_topic_partitions",
            &[("topic", topic.name.as_str())],
            topic.partition_count(),
        );
    }
    page.family(
        "alluvium_topic_bytes",
        "gauge",
        "Bytes of a topic's batches.",
    );
    for topic in &topics {
        let sizes = broker.partition_sizes(topic);
        page.sample(
            "alluvium_topic_bytes",
            &[("topic", topic.name.as_str())],
            sizes.iter().map(|size| size.bytes).sum::<u64>(),
        );
    }
    let offsets: Vec<(&str, String, Bounds)> = topics
        .iter()
        .flat_map(|topic| {
            topic.partitions().filter_map(|partition| {
                let bounds = topic.log(partition.to_wire()).ok()?.bounds();
                Some((topic.name.as_str(), partition.to_string(), bounds))
            })
        })
        .collect();
    page.family(
        "kafka_topic_partition_current_offset",
        "gauge",
        "The end of what readers may see.",
    );
    for (topic, partition, bounds) in &offsets {
        let labels = [("topic", *topic), ("partition", partition.as_str())];
        page.sample(
            "kafka_topic_partition_current_offset",
            &labels,
            bounds.durable_end.get(),
        );
    }
    page.family(
        "kafka_topic_partition_oldest_offset",
        "gauge",
        "The first offset that is kept.",
    );
    for (topic, partition, bounds) in &offsets {
        let labels = [("topic", *topic), ("partition", partition.as_str())];
        page.sample(
            "kafka_topic_partition_oldest_offset",
            &labels,
            bounds.start.get(),
        );
    }
}

fn groups(page: &mut Page, broker: &Broker) {
    page.family(
        "kafka_consumergroup_members",
        "gauge",
        "Members of a group.",
    );
    for group in broker.groups().list() {
        let members = broker.groups().describe(&group.id);
        page.sample(
            "kafka_consumergroup_members",
            &[("consumergroup", &group.id)],
            members.map_or(0, |group| group.members.len()),
        );
    }
    let lags = broker.group_lags();
    let mut family =
        |name: &str, help: &str, value: &dyn Fn(&crate::broker::GroupLag) -> Option<String>| {
            page.family(name, "gauge", help);
            for lag in &lags {
                let Some(value) = value(lag) else { continue };
                let partition = lag.partition.to_string();
                let labels = [
                    ("consumergroup", lag.group.as_str()),
                    ("topic", lag.topic.as_str()),
                    ("partition", partition.as_str()),
                ];
                page.sample(name, &labels, value);
            }
        };
    family(
        "kafka_consumergroup_current_offset",
        "The offset that a group committed.",
        &|lag| Some(lag.committed.get().to_string()),
    );
    family(
        "kafka_consumergroup_lag",
        "Records that a group has still to read.",
        &|lag| Some(lag.records.to_string()),
    );
    family(
        "alluvium_consumergroup_lag_seconds",
        "The age of the record that a group reads next.",
        &|lag| lag.age.map(|age| age.as_secs_f64().to_string()),
    );
}
