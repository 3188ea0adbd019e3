//! What the broker and the store below it count, as families of metrics.
//! Callers: fronts that show metrics. Takes a while for many topics, and never waits for the disk: what has to come from
//! there is brought along, or left out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::access::{Authorizer, Cluster, Granted, is_temporary, right};
use super::groups::Bound;
use super::per_principal::Bounded;
use super::share::Tally;
use super::{
    Bounds, Broker, CompactionMetrics, GroupLag, Health, LogDir, SYNC_BUCKETS_MICROS,
    StorageMetrics, Topic, Traffic,
};
use crate::metrics::{Families, Family, Histogram, Kind};

/// A family of one series: its type, name, meaning, and where the number is.
type Single<T> = (Kind, &'static str, &'static str, fn(&T) -> u64);

fn add_singles<T>(families: &mut Families<'_>, of: &T, singles: &[Single<T>]) {
    for (kind, name, help, value) in singles {
        match kind {
            Kind::Counter => families.counter(name, help, value(of)),
            _ => families.gauge(name, help, value(of)),
        }
    }
}

impl Broker {
    /// Adds all of them. `space` is the data directory's file system, where its numbers could be had.
    pub fn add_metrics(
        &self,
        _cluster: &Granted<Cluster, right::Describe>,
        families: &mut Families<'_>,
        space: Option<&LogDir>,
    ) {
        families.gauge(
            "alluvium_leader_epoch",
            "The epoch of this start; it rises by one with each.",
            u64::from(self.leader_epoch().get()),
        );
        add_space(families, space);
        add_singles(families, &self.storage_metrics(), STORAGE);
        let compaction = self.compaction_metrics();
        add_singles(families, &compaction, COMPACTION);
        families.counter(
            "alluvium_compaction_seconds_total",
            "Time that compaction took.",
            compaction.time.as_secs_f64(),
        );
        families.gauge(
            "alluvium_compaction_max_delay_seconds",
            "How long the partition that waits longest was past its max.compaction.lag.ms, at the last look; 0 if none was.",
            compaction.delay_max.as_secs_f64(),
        );
        add_singles(families, &self.health(), HEALTH);
        self.add_holds(families);
        self.quotas().add_metrics(families);
        self.add_appends(families);
        let topics = self.topics();
        self.add_topics(families, &topics);
        // The name of a temporary topic is its makers' secret.
        let named: Vec<_> = { topics.iter() }
            .filter(|it| !is_temporary(&it.name))
            .collect();
        add_traffic(families, &named);
        self.add_groups(families);
        self.add_shares(families);
        self.add_logins(families);
        self.add_audit(families);
        self.add_group_lags(families);
        let mut bounds = self.groups().bounds();
        bounds.extend(self.bounds_of_one());
        bounds.extend(self.bounds_of_kept());
        add_limits(families, &bounds);
    }

    /// The bounds on what one principal has of topics; none where access is not controlled, as nobody has an account there.
    pub(super) fn bounds_of_one(&self) -> Vec<Bound> {
        let config = self.config();
        if config.access.authorizer == Authorizer::None {
            return Vec::new();
        }
        let most = self.shared.catalog.owned_most();
        let refused = &self.shared.bounds_of_one;
        let bound = |setting, used, max, bounded: Bounded| Bound {
            setting,
            used,
            max,
            refused: refused.count(bounded),
        };
        let (producers, refused_producers) = self.storage().producers_of_accounts();
        vec![
            Bound {
                setting: "producer.ids.per.principal.max",
                used: producers,
                max: config.producers_of_one_max,
                refused: refused_producers,
            },
            bound(
                "partitions.per.principal.max",
                most.partitions,
                config.partitions_of_one_max,
                Bounded::Partitions,
            ),
            bound(
                "topic.settings.bytes.per.principal.max",
                most.settings_bytes,
                config.settings_bytes_of_one_max,
                Bounded::SettingsBytes,
            ),
        ]
    }

    /// The bounds on sessions and retained messages; none where no front knows them.
    fn bounds_of_kept(&self) -> Vec<Bound> {
        let has_accounts = self.config().access.authorizer != Authorizer::None;
        let mut bounds = self.session_bounds(has_accounts);
        bounds.extend(self.retained_bounds(has_accounts));
        bounds
    }

    /// What requests can make the broker hold, by name, and how much was ever stored in each of its own logs and in those of topics.
    #[cfg(test)]
    pub(crate) fn held_in_memory(&self) -> Vec<(String, u64)> {
        let end = |id| { self.storage().log(id) }.map_or(0, |log| log.bounds().end.get());
        let mut bounds = self.groups().bounds();
        bounds.extend(self.bounds_of_one());
        let mut held: Vec<(String, u64)> = bounds
            .into_iter()
            .map(|bound| (bound.setting.to_owned(), bound.used))
            .collect();
        for log in model::state_log::StateLogKind::ALL {
            held.push((format!("log of {}", log.name()), end(log.id())));
        }
        let topics = self.topics();
        let partitions = topics.iter().map(|it| u64::from(it.partition_count()));
        let records = topics.iter().flat_map(|topic| {
            let ids = topic.partitions().map(|it| model::LogId::new(topic.id, it));
            ids.map(end).collect::<Vec<_>>()
        });
        let (retained, retained_bytes) = self.retained_held();
        let storage = self.storage_metrics();
        let totals = self.loss_totals();
        held.extend(
            [
                ("topics", topics.len() as u64),
                ("partitions", partitions.sum()),
                ("records", records.sum()),
                ("share groups", self.shares().list().len() as u64),
                ("sessions", self.session_count()),
                ("retained messages", retained as u64),
                ("bytes of retained messages", retained_bytes),
                ("producers", storage.producers),
                ("holds", self.hold_count() as u64),
                ("erasures", self.open_erasures().0 as u64),
                ("losses", totals.entries as u64),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        held
    }

    /// What is held back from cleanup, and what consumer groups have lost.
    fn add_holds(&self, families: &mut Families<'_>) {
        families.gauge(
            "alluvium_holds",
            "Operators' holds that are in force.",
            self.hold_count(),
        );
        let (open, stopped) = self.open_erasures();
        families.gauge(
            "alluvium_erasures_open",
            "Erasures by key that are not over.",
            open,
        );
        families.gauge(
            "alluvium_erasures_stopped",
            "Of the erasures that are not over: those that do not go on now, as a hold or a full disk stops them.",
            stopped,
        );
        let losses = self.loss_totals();
        families.gauge(
            "alluvium_loss_entries",
            "Entries in the loss ledger: what consumer groups had not read when it was removed or damaged.",
            losses.entries,
        );
        families.gauge(
            "alluvium_lost_records",
            "Records of the entries in the loss ledger since the start, and of those that it held then.",
            losses.records,
        );
    }

    /// Whether the disk keeps up: how long syncs take, and how long appends wait.
    fn add_appends(&self, families: &mut Families<'_>) {
        families.counter(
            "alluvium_appends_refused_total",
            "Batches that were refused, whatever the reason; alluvium_kafka_errors_total has the codes.",
            self.refused_appends(),
        );
        let waits = self.append_waits();
        families.gauge(
            "alluvium_append_oldest_unsynced_seconds",
            "The age of the oldest append that is not durable; 0 if there is none.",
            waits.oldest.as_secs_f64(),
        );
        families.gauge(
            "alluvium_append_oldest_waiting_seconds",
            "For how long a producer has waited for room to append; 0 if none does.",
            waits.oldest_at_gate.as_secs_f64(),
        );
        families.gauge(
            "alluvium_appends_stalled",
            "1 while appends wait for a disk that does not answer.",
            waits.is_stalled,
        );
        let syncs = self.sync_durations();
        let mut family = Family::new(
            Kind::Histogram,
            "alluvium_wal_sync_duration_seconds",
            "How long syncs of the write-ahead log took; every acknowledgement waits for one.",
            &[],
        );
        let durations = Histogram::of_micros(&SYNC_BUCKETS_MICROS, &syncs.buckets, syncs.micros);
        family.sample(&[], durations);
        families.add(family);
    }

    fn add_topics(&self, families: &mut Families<'_>, topics: &[std::sync::Arc<Topic>]) {
        families.gauge("kafka_brokers", "Brokers of the cluster.", 1_u64);
        let (name, help) = ("kafka_topic_partitions", "Partitions of a topic.");
        let mut family = families.bounded(Kind::Gauge, name, help, &["topic"]);
        for topic in topics {
            family.bounded_sample(&[topic.name.as_str()], topic.partition_count().into());
        }
        families.add(family);
        let (name, help) = ("alluvium_topic_bytes", "Bytes of a topic's batches.");
        let mut family = families.bounded(Kind::Gauge, name, help, &["topic"]);
        for topic in topics {
            let sizes = self.sizes(topic);
            let bytes = sizes.iter().map(|size| size.bytes).sum();
            family.bounded_sample(&[topic.name.as_str()], bytes);
        }
        families.add(family);
        type Value = fn(&Bounds) -> u64;
        let offsets: [(&'static str, &str, Value); 2] = [
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
            let mut family = families.bounded(Kind::Gauge, name, help, &["topic", "partition"]);
            for topic in topics {
                for partition in topic.partitions() {
                    let Ok(bounds) = self.bounds(topic, partition) else {
                        continue;
                    };
                    let labels = [topic.name.as_str(), &partition.to_string()];
                    family.bounded_sample(&labels, value(&bounds));
                }
            }
            families.add(family);
        }
    }

    fn add_groups(&self, families: &mut Families<'_>) {
        let (name, help) = ("kafka_consumergroup_members", "Members of a group.");
        let mut family = families.bounded(Kind::Gauge, name, help, &["consumergroup"]);
        for group in self.groups().list() {
            let members = self.groups().describe(&group.id);
            let count = members.map_or(0, |group| group.members.len());
            family.bounded_sample(&[&group.id], count as u64);
        }
        families.add(family);
    }

    /// What became of records that groups share.
    fn add_shares(&self, families: &mut Families<'_>) {
        families.gauge(
            "alluvium_share_groups",
            "Groups that share records.",
            self.shares().list().len() as u64,
        );
        type Value = fn(&Tally) -> u64;
        let outcomes: [(&str, Value); 11] = [
            ("acquired", |tally| tally.acquired),
            ("acknowledged", |tally| tally.acknowledged),
            ("released", |tally| tally.released),
            ("archived", |tally| tally.archived),
            ("dead_lettered", |tally| tally.dead_letters),
            ("dropped", |tally| tally.dropped),
            ("discarded", |tally| tally.discarded),
            ("renewed", |tally| tally.renewed),
            ("expired", |tally| tally.expired),
            ("absent", |tally| tally.absent),
            ("lost", |tally| tally.lost),
        ];
        let (name, help) = (
            "alluvium_share_records_total",
            "Records of share groups since the start: acquired, acknowledged, released to others, archived (rejected, or delivered too often), of those such that have dead letters (dead_lettered) and such that have none (dropped), discarded as their own time was over, renewed; of those released or archived, the ones whose time was over (expired); not there any more (absent), and unfinished when retention removed them (lost).",
        );
        let mut family = Family::new(Kind::Counter, name, help, &["outcome"]);
        let totals = self.shares().totals();
        for (outcome, value) in outcomes {
            family.sample(&[outcome], value(&totals));
        }
        families.add(family);
    }

    fn add_group_lags(&self, families: &mut Families<'_>) {
        const OF_PARTITION: &[&str] = &["consumergroup", "topic", "partition"];
        let lags = self.group_lags(families.series_max());
        let partitions: Vec<String> = lags
            .single
            .iter()
            .map(|lag| lag.partition.to_string())
            .collect();
        let singles = || lags.single.iter().zip(&partitions);
        type Value = fn(&GroupLag) -> u64;
        let sums: [(&'static str, &str, Value, u64); 2] = [
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
            let mut family = families.bounded(Kind::Gauge, name, help, OF_PARTITION);
            for (lag, partition) in singles() {
                family.bounded_sample(&[&lag.group, lag.topic.as_str(), partition], value(lag));
            }
            family.rest(lags.other_count, others);
            families.add(family);
        }
        families.add(lag_sums(families, &lags.single));
        type Age = fn(&GroupLag) -> Option<Duration>;
        let ages: [(&'static str, &str, Age); 2] = [
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
            let mut family = Family::new(Kind::Gauge, name, help, OF_PARTITION);
            for (lag, partition) in singles() {
                if let Some(age) = age(lag) {
                    let labels = [&lag.group, lag.topic.as_str(), partition];
                    family.sample(&labels, age.as_secs_f64());
                }
            }
            families.add(family);
        }
    }
}

/// How far each group is behind in each topic.
fn lag_sums(families: &Families<'_>, lags: &[GroupLag]) -> Family {
    let mut of_topics: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for lag in lags {
        let topic = (lag.group.as_str(), lag.topic.as_str());
        let sum = of_topics.entry(topic).or_default();
        *sum = sum.saturating_add(lag.records);
    }
    let mut family = families.bounded(
        Kind::Gauge,
        "kafka_consumergroup_lag_sum",
        "Records that a group has still to read of a topic, of the partitions that have series of their own.",
        &["consumergroup", "topic"],
    );
    for ((group, topic), records) in of_topics {
        family.bounded_sample(&[group, topic], records);
    }
    family
}

fn add_space(families: &mut Families<'_>, space: Option<&LogDir>) {
    if let Some(bytes) = space.and_then(|space| space.bytes_total) {
        families.gauge(
            "alluvium_disk_size_bytes",
            "The size of the file system that holds the data directory.",
            bytes,
        );
    }
    if let Some(bytes) = space.and_then(|space| space.bytes_free) {
        let help = "What of it may still be written.";
        families.gauge("alluvium_disk_free_bytes", help, bytes);
    }
}

/// What goes in and out by topic.
fn add_traffic(families: &mut Families<'_>, topics: &[&std::sync::Arc<Topic>]) {
    type Value = fn(&Traffic) -> u64;
    let counted: [(&'static str, &str, Value); 3] = [
        (
            "alluvium_topic_appended_records_total",
            "Records of the batches that were appended to a topic.",
            Traffic::appended_records,
        ),
        (
            "alluvium_topic_appended_bytes_total",
            "Bytes of the batches that were appended to a topic, as they are stored.",
            Traffic::appended_bytes,
        ),
        (
            "alluvium_topic_fetched_bytes_total",
            "Bytes of the batches of a topic that went to readers.",
            Traffic::fetched_bytes,
        ),
    ];
    for (name, help, value) in counted {
        let mut family = families.bounded(Kind::Counter, name, help, &["topic"]);
        for topic in topics {
            family.bounded_sample(&[topic.name.as_str()], value(&topic.traffic));
        }
        families.add(family);
    }
}

/// What all groups together hold of what settings bound.
fn add_limits(families: &mut Families<'_>, bounds: &[Bound]) {
    let limits: [Single<Bound>; 3] = [
        (
            Kind::Gauge,
            "alluvium_limit_used",
            "What is held of what a setting bounds.",
            |bound| bound.used,
        ),
        (
            Kind::Gauge,
            "alluvium_limit_max",
            "What may be held of it.",
            |bound| bound.max,
        ),
        (
            Kind::Counter,
            "alluvium_limit_refused_total",
            "Requests, or parts of them, that the bound has refused.",
            |bound| bound.refused,
        ),
    ];
    for (kind, name, help, value) in limits {
        let mut family = Family::new(kind, name, help, &["setting"]);
        for bound in bounds {
            family.sample(&[bound.setting], value(bound));
        }
        families.add(family);
    }
}

/// What compaction counts.
#[rustfmt::skip]
const COMPACTION: &[Single<CompactionMetrics>] = &[
    (Kind::Counter, "alluvium_compaction_runs_total", "Compactions of a partition that found something to do.", |it| it.runs),
    (Kind::Counter, "alluvium_compaction_read_bytes_total", "Bytes of segments that compaction has read.", |it| it.bytes_read),
    (Kind::Counter, "alluvium_compaction_written_bytes_total", "Bytes of segments that compaction has written.", |it| it.bytes_written),
    (Kind::Counter, "alluvium_compaction_removed_records_total", "Records that compaction has removed.", |it| it.records_removed),
    (Kind::Counter, "alluvium_compaction_removed_tombstones_total", "Records without a value among them.", |it| it.tombstones_removed),
    (Kind::Counter, "alluvium_compaction_errors_total", "Compactions that ended early, and segments that could not be compacted; the log has the reasons.", |it| it.errors),
    (Kind::Gauge, "alluvium_compaction_uncleanable_partitions", "Partitions with a segment that could not be compacted and is set aside.", |it| it.uncleanable_logs),
];

/// What the store counts.
#[rustfmt::skip]
const STORAGE: &[Single<StorageMetrics>] = &[
    (Kind::Counter, "alluvium_wal_frames_total", "Frames written to the write-ahead log.", |it| it.frames),
    (Kind::Counter, "alluvium_wal_syncs_total", "Syncs of the write-ahead log.", |it| it.syncs),
    (Kind::Counter, "alluvium_appended_bytes_total", "Bytes of batches appended.", |it| it.appended_bytes),
    (Kind::Counter, "alluvium_settled_bytes_total", "Bytes of batches written into segments.", |it| it.settled_bytes),
    (Kind::Counter, "alluvium_checkpoints_total", "Checkpoints stored.", |it| it.checkpoints),
    (Kind::Counter, "alluvium_checkpoint_bytes_total", "Bytes written for checkpoints.", |it| it.checkpoint_bytes),
    (Kind::Counter, "alluvium_scrubbed_bytes_total", "Bytes of sealed segments that the background scrub has verified.", |it| it.scrubbed_bytes),
    (Kind::Counter, "alluvium_scrubbed_segments_total", "Sealed segments that the background scrub has verified to their end.", |it| it.scrubbed_segments),
    (Kind::Counter, "alluvium_scrub_faults_total", "Places that the background scrub has found damaged.", |it| it.scrub_faults),
    (Kind::Counter, "alluvium_read_faults_total", "Places that the check before the first read has found damaged.", |it| it.read_faults),
    (Kind::Counter, "alluvium_indexes_rewritten_total", "Indexes that were missing or damaged, and were written again from their logs.", |it| it.rewritten_indexes),
    (Kind::Counter, "alluvium_key_indexes_built_total", "Key indexes made of segments, or gone on with as a segment grew (key.index.enable).", |it| it.key_indexes.built),
    (Kind::Counter, "alluvium_key_index_read_bytes_total", "Bytes of segments read to make key indexes; key.index.io.max.bytes.per.second bounds their rate.", |it| it.key_indexes.indexed_bytes),
    (Kind::Counter, "alluvium_key_index_written_bytes_total", "Bytes of the key indexes made.", |it| it.key_indexes.written_bytes),
    (Kind::Counter, "alluvium_key_indexes_failed_total", "Key indexes that could not be made, because the segment could not be read or the index not written.", |it| it.key_indexes.failed),
    (Kind::Counter, "alluvium_store_bound_removed_bytes_total", "Bytes of segments removed because the store was larger than store.bytes.max.", |it| it.bound_removed_bytes),
    (Kind::Gauge, "alluvium_append_queue_bytes", "Bytes that wait for the disk.", |it| it.queued_bytes),
    (Kind::Gauge, "alluvium_wal_files", "Files of the write-ahead log.", |it| it.wal_files),
    (Kind::Gauge, "alluvium_wal_files_used", "Files of the write-ahead log that hold something unsettled.", |it| it.wal_files_used),
    (Kind::Gauge, "alluvium_wal_files_max", "Files of the write-ahead log at most (wal.files.max).", |it| it.wal_files_max),
    (Kind::Gauge, "alluvium_producers", "Idempotent producers that partitions remember, counted in each.", |it| it.producers),
    (Kind::Counter, "alluvium_producers_forgotten_total", "Idle producers that were forgotten before producer.id.expiration.ms, because there are too many.", |it| it.producers_forgotten),
    (Kind::Counter, "alluvium_producers_refused_total", "Batches of new producers that were refused, because there are too many.", |it| it.producers_refused),
    (Kind::Gauge, "alluvium_pinned_files", "Deleted segments and files of the write-ahead log that connections are still to send from.", |it| it.pinned_files),
    (Kind::Gauge, "alluvium_pinned_bytes", "Their bytes: the disk gets them back when those answers are sent, after response.send.max.ms at the latest.", |it| it.pinned_bytes),
    (Kind::Gauge, "alluvium_logs", "Logs: partitions, and four of the broker's own.", |it| it.logs),
];

/// How the store is.
#[rustfmt::skip]
const HEALTH: &[Single<Health>] = &[
    (Kind::Gauge, "alluvium_disk_full", "1 while appends are refused for lack of space.", |health| u64::from(health.disk_full)),
    (Kind::Gauge, "alluvium_storage_failed", "1 once a write or sync has failed: nothing is appended any more.", |health| u64::from(health.failed.is_some())),
    (Kind::Gauge, "alluvium_damaged_ranges", "Ranges of acknowledged records that cannot be read any more, and that no operator has acknowledged.", |health| health.damage.len() as u64),
    (Kind::Gauge, "alluvium_damaged_ranges_acknowledged", "Ranges of records that cannot be read any more, as an operator has acknowledged.", |health| health.damage_acknowledged.len() as u64),
];
