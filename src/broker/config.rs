//! The broker's configuration, typed, and how its static part is shown to clients.
//! Callers: whoever starts a broker fills it; operations read it. Immutable: what may change while the broker runs are
//! the topic defaults, in `configs`.

use std::path::PathBuf;
use std::time::Duration;

use model::topic_config::{Defaults, Kind};

use super::groups::Held;

/// What a broker is started with. `BrokerConfig::default()` is Kafka's defaults where Kafka has the setting.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// `node.id`.
    pub node_id: i32,
    /// The host that clients are told to connect to.
    pub advertised_host: String,
    /// The port that clients are told to connect to.
    pub advertised_port: u16,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Where the store is; only shown.
    pub data_dir: PathBuf,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `num.partitions`, of topics that are created without a count.
    pub default_partitions: u32,
    /// What topics without settings of their own use (`log.retention.ms`, `message.max.bytes`, …).
    pub topic_defaults: Defaults,
    /// Every batch's records are decompressed and checked, not its header only: for producers that are not trusted.
    pub validate_records: bool,
    /// `socket.request.max.bytes`: a longer frame closes its connection.
    pub socket_request_bytes_max: usize,
    /// `queued.max.request.bytes`: requests that are received or worked on, in all.
    pub queued_request_bytes_max: usize,
    /// `socket.response.max.bytes`: the longest answer, records not counted.
    pub response_bytes_max: usize,
    /// `queued.max.response.bytes`: answers that are made or sent, in all.
    pub queued_response_bytes_max: usize,
    /// `response.send.max.ms`: how long a peer may take for an answer.
    pub response_send_max: Duration,
    /// `partitions.max`: of all topics.
    pub partitions_max: u64,
    /// `topic.settings.max.bytes`: names and values of one resource's settings.
    pub settings_bytes_max: usize,
    /// `metrics.series.max`: series of one metric.
    pub metrics_series_max: usize,
    /// `max.connections`: beyond it new ones wait, or others make room.
    pub connections_max: usize,
    /// `connections.max.idle.ms`; also how long a peer may leave its replies unread.
    pub connection_idle_max: Duration,
    /// `fetch.max.bytes`: no fetch answers with more, but for a first batch that is larger.
    pub fetch_bytes_max: usize,
    /// Consumer groups.
    pub groups: GroupConfig,
}

/// The settings of consumer groups and their offsets.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min: Duration,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max: Duration,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay: Duration,
    /// `group.max.size`.
    pub size_max: usize,
    /// `group.max.bytes`: a group's members, as they are stored.
    pub bytes_max: usize,
    /// `groups.max`.
    pub groups_max: u64,
    /// `groups.members.max`: of all groups together.
    pub members_max: u64,
    /// `groups.bytes.max`: of all groups together.
    pub groups_bytes_max: u64,
    /// `offsets.max`: of all groups together.
    pub offsets_max: u64,
    /// `offsets.bytes.max`: of all groups together.
    pub offsets_bytes_max: u64,
    /// `offsets.retention.minutes`.
    pub offsets_retention: Duration,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check: Duration,
    /// `offset.metadata.max.bytes`. Kafka's name; it counts characters (UTF-16 code units).
    pub offset_metadata_chars_max: usize,
}

impl GroupConfig {
    /// What all groups together may hold.
    pub fn held_max(&self) -> Held {
        Held {
            groups: self.groups_max,
            members: self.members_max,
            member_bytes: self.groups_bytes_max,
            offsets: self.offsets_max,
            offset_bytes: self.offsets_bytes_max,
        }
    }
}

impl Default for BrokerConfig {
    fn default() -> BrokerConfig {
        BrokerConfig {
            node_id: 1,
            advertised_host: "127.0.0.1".into(),
            advertised_port: 9092,
            rack: None,
            data_dir: PathBuf::from("data"),
            auto_create_topics: true,
            default_partitions: 1,
            topic_defaults: Defaults::default(),
            validate_records: false,
            socket_request_bytes_max: 100 * 1024 * 1024,
            queued_request_bytes_max: 256 * 1024 * 1024,
            response_bytes_max: 100 * 1024 * 1024,
            queued_response_bytes_max: 256 * 1024 * 1024,
            response_send_max: Duration::from_secs(120),
            partitions_max: 200_000,
            settings_bytes_max: 64 * 1024,
            metrics_series_max: 10_000,
            connections_max: 50_000,
            connection_idle_max: Duration::from_secs(10 * 60),
            fetch_bytes_max: 55 * 1024 * 1024,
            groups: GroupConfig::default(),
        }
    }
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: Duration::from_secs(30 * 60),
            initial_rebalance_delay: Duration::from_secs(3),
            size_max: i32::MAX as usize,
            bytes_max: 8 << 20,
            groups_max: 100_000,
            members_max: 100_000,
            groups_bytes_max: 128 << 20,
            offsets_max: 1_000_000,
            offsets_bytes_max: 256 << 20,
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            offsets_retention_check: Duration::from_secs(600),
            offset_metadata_chars_max: 4096,
        }
    }
}

/// One setting that needs a restart to change, as clients are shown it.
pub(super) struct StaticSetting {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) doc: &'static str,
    pub(super) value: fn(&BrokerConfig) -> String,
}

macro_rules! settings {
    ($($name:literal, $kind:ident, $doc:literal, $value:expr;)*) => {
        &[$(StaticSetting { name: $name, kind: Kind::$kind, doc: $doc, value: $value },)*]
    };
}

/// Every static setting that clients are shown, ordered by name.
#[rustfmt::skip]
pub(super) const STATIC_SETTINGS: &[StaticSetting] = settings! {
    "advertised.listeners", String, "Where clients are told to connect.", |config| format!("PLAINTEXT://{}:{}", config.advertised_host, config.advertised_port);
    "auto.create.topics.enable", Boolean, "Whether a topic that a client asks for is created.", |config| config.auto_create_topics.to_string();
    "broker.id", Int, "This broker's id.", |config| config.node_id.to_string();
    "broker.rack", String, "This broker's rack.", |config| config.rack.clone().unwrap_or_default();
    "connections.max.idle.ms", Long, "Connections without a request are closed after this long.", |config| ms(config.connection_idle_max);
    "default.replication.factor", Int, "Replicas of a topic: this broker is alone.", |_| "1".into();
    "delete.topic.enable", Boolean, "Whether topics may be deleted.", |_| "true".into();
    "fetch.max.bytes", Int, "The most that a fetch answers with.", |config| config.fetch_bytes_max.to_string();
    "group.initial.rebalance.delay.ms", Int, "How long a new group waits for more members.", |config| ms(config.groups.initial_rebalance_delay);
    "group.max.session.timeout.ms", Int, "The longest session timeout of a member.", |config| ms(config.groups.session_timeout_max);
    "group.max.size", Int, "The most members of a group.", |config| config.groups.size_max.to_string();
    "group.min.session.timeout.ms", Int, "The shortest session timeout of a member.", |config| ms(config.groups.session_timeout_min);
    "log.dirs", String, "Where the store is.", |config| config.data_dir.display().to_string();
    "max.connections", Int, "The most connections at a time.", |config| config.connections_max.to_string();
    "metrics.series.max", Int, "The most series of one metric.", |config| config.metrics_series_max.to_string();
    "node.id", Int, "This broker's id.", |config| config.node_id.to_string();
    "num.partitions", Int, "Partitions of a topic that is created without a count.", |config| config.default_partitions.to_string();
    "offset.metadata.max.bytes", Int, "The longest text beside a committed offset, in characters.", |config| config.groups.offset_metadata_chars_max.to_string();
    "offsets.retention.check.interval.ms", Long, "How often expired offsets are looked for.", |config| ms(config.groups.offsets_retention_check);
    "offsets.retention.minutes", Int, "How long an empty group keeps its offsets.", |config| (config.groups.offsets_retention.as_secs() / 60).to_string();
    "partitions.max", Int, "The most partitions of all topics.", |config| config.partitions_max.to_string();
    "queued.max.request.bytes", Long, "The most bytes of requests at a time.", |config| config.queued_request_bytes_max.to_string();
    "queued.max.response.bytes", Long, "The most bytes of answers at a time.", |config| config.queued_response_bytes_max.to_string();
    "response.send.max.ms", Long, "How long a client may take for an answer.", |config| ms(config.response_send_max);
    "socket.request.max.bytes", Int, "The longest request.", |config| config.socket_request_bytes_max.to_string();
    "socket.response.max.bytes", Int, "The longest answer, records not counted.", |config| config.response_bytes_max.to_string();
    "topic.settings.max.bytes", Int, "The most bytes of a topic's settings.", |config| config.settings_bytes_max.to_string();
};

fn ms(duration: Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_settings_stand_once_each_in_order() {
        assert!(
            STATIC_SETTINGS
                .windows(2)
                .all(|pair| pair[0].name < pair[1].name)
        );
    }

    #[test]
    fn no_static_setting_is_a_topic_default() {
        for setting in STATIC_SETTINGS {
            assert!(
                model::topic_config::Setting::find_by_server_name(setting.name).is_none(),
                "{}",
                setting.name
            );
        }
    }
}
