//! The broker's configuration, typed; `settings` is how it is written down.
//! Callers: whoever starts a broker fills it; operations read it. Immutable: what may change while the broker runs are
//! the topic defaults, in `configs`.

use std::path::PathBuf;
use std::time::Duration;

use model::topic_config::Defaults;

use super::access::{AccessConfig, Authorizer};
use super::audit::AuditConfig;
use super::credentials::jwt::JwtConfig;
use super::groups::Held;
use super::quotas::Window;

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
    /// `partitions.max`: of all topics.
    pub partitions_max: u64,
    /// `idempotency.keys.max`: that are remembered.
    pub idempotency_keys_max: usize,
    /// `idempotency.key.retention.ms`: how long.
    pub idempotency_key_retention_ms: u64,
    /// `topic.settings.max.bytes`: names and values of one resource's settings.
    pub settings_bytes_max: usize,
    /// `partitions.per.principal.max`.
    pub partitions_of_one_max: u64,
    /// `producer.ids.per.principal.max`.
    pub producers_of_one_max: u64,
    /// `topic.settings.bytes.per.principal.max`.
    pub settings_bytes_of_one_max: u64,
    /// `fetch.max.bytes`: no fetch answers with more, but for a first batch that is larger.
    pub fetch_bytes_max: usize,
    /// Who may do what.
    pub access: AccessConfig,
    /// Where it is written who changed what, and was denied what.
    pub audit: AuditConfig,
    /// How quotas are measured.
    pub quotas: Window,
    /// `failed.logins.per.ip.max`: of one address in a minute.
    pub failed_logins_max: u32,
    /// Which tokens that somebody else signed let in.
    pub jwt: JwtConfig,
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
    /// `groups.per.principal.max` and those like it: what the groups of one principal hold together.
    pub held_of_one_max: Held,
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

impl BrokerConfig {
    /// Where access is not controlled everybody may call themselves anything, and what principals hold has no bound of its own.
    pub(super) fn groups_in_force(&self) -> GroupConfig {
        let mut groups = self.groups.clone();
        if self.access.authorizer == Authorizer::None {
            groups.held_of_one_max = Held::UNBOUNDED;
        }
        groups
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
            partitions_max: 200_000,
            idempotency_keys_max: 100_000,
            idempotency_key_retention_ms: 24 * 3600 * 1000,
            settings_bytes_max: 64 * 1024,
            partitions_of_one_max: 50_000,
            producers_of_one_max: 100_000,
            settings_bytes_of_one_max: 16 << 20,
            fetch_bytes_max: 55 * 1024 * 1024,
            access: AccessConfig::default(),
            audit: AuditConfig::default(),
            quotas: Window::default(),
            failed_logins_max: 100,
            jwt: JwtConfig::default(),
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
            held_of_one_max: Held {
                groups: 10_000,
                members: 20_000,
                member_bytes: 32 << 20,
                offsets: 200_000,
                offset_bytes: 64 << 20,
            },
        }
    }
}
