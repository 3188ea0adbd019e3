//! The one configuration: TOML, then the environment, then flags and `-X KEY=VALUE`; the last one that speaks counts.
//!
//! Callers: `main` and `serve`. Keys are Kafka's own where Kafka has one. Every key is a row of [`SETTINGS`] (or one of the
//! topic defaults in `model::topic_config`), is parsed and range-checked by that row, and goes into the typed configuration
//! that the parts are started with: a key that nothing reads cannot be written down. Unknown keys are refused.

mod sources;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::topic_config::{self, Holds, Setting as TopicSetting};
use storage::StorageConfig;

use crate::broker::BrokerConfig;

use sources::Given;
pub use sources::Place;

/// The topic default whose bound is the store's.
const MESSAGE_MAX_BYTES: &str = "message.max.bytes";

/// Its bound is the store's too.
const GROUP_MAX_BYTES: &str = "group.max.bytes";

/// Everything that a server is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the Kafka protocol listens, `host:port`.
    pub kafka: String,
    /// Where HTTP listens, `host:port`.
    pub http: String,
    /// Where clients are told to connect; None for where the Kafka protocol listens.
    pub advertised: Option<(String, u16)>,
    /// The broker's part.
    pub broker: BrokerConfig,
    /// The storage's part.
    pub storage: StorageConfig,
    /// Whether a data directory without a store gets a new one.
    pub store_create: bool,
    /// `wal.profile=small`.
    wal_is_small: bool,
    /// Variables of the environment with our prefix that a container platform sets, and that are no settings.
    pub ignored_variables: Vec<String>,
    origins: BTreeMap<String, (Place, String)>,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File,
    /// An `ALLUVIUM_…` variable.
    Environment,
    /// A flag.
    Flag,
    /// `wal.profile`.
    Profile,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Default => "default",
            Origin::File => "file",
            Origin::Environment => "environment",
            Origin::Flag => "flag",
            Origin::Profile => "wal.profile",
        })
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No setting has this name.
    #[error("{place}: unknown setting `{key}`{}", did_you_mean(.suggestion))]
    Unknown {
        /// The name.
        key: String,
        /// A name that is close.
        suggestion: Option<String>,
        /// Where it stands.
        place: Place,
    },
    /// The value cannot be.
    #[error("{place}: {key}={value}: {reason}")]
    Invalid {
        /// The setting.
        key: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
        /// Where it stands.
        place: Place,
    },
    /// A variable's value is not UTF-8.
    #[error("environment variable {variable}: its value is not UTF-8")]
    NotText {
        /// Its name.
        variable: String,
    },
    /// The file cannot be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

fn did_you_mean(known: &Option<String>) -> String {
    known
        .as_ref()
        .map_or_else(String::new, |known| format!("; did you mean `{known}`?"))
}

/// One setting: its name, what it means, and how a value goes into the configuration.
pub struct Setting {
    /// Its name, Kafka's where Kafka has it.
    pub key: &'static str,
    /// What it means, with unit and range.
    pub doc: &'static str,
    /// Its value when nobody sets it.
    pub default: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
}

macro_rules! settings {
    ($($key:literal = $default:literal, $doc:literal, $set:expr;)*) => {
        &[$(Setting { key: $key, default: $default, doc: $doc, set: $set },)*]
    };
}

/// All settings but the topic defaults, by name.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = settings! {
    "advertised.listeners" = "", "The address that clients are told to connect to, `PLAINTEXT://host:port`; empty for that of kafka.listen. It must be one that clients can reach from where they are.", |config, value| advertised(config, value);
    "append.queue.bytes" = "67108864", "The most bytes that wait for the disk; beyond it producers are slowed down. 1 MiB to 4 GiB.", |config, value| number(value, 1 << 20..=4 << 30).map(|bytes| config.storage.append_queue_bytes = bytes);
    "auto.create.topics.enable" = "true", "Whether a topic that a client asks for is created.", |config, value| boolean(value).map(|on| config.broker.auto_create_topics = on);
    "broker.rack" = "", "The rack of this broker that clients are told; empty for none.", |config, value| { config.broker.rack = Some(value.to_owned()).filter(|rack| !rack.is_empty()); Ok(()) };
    "connections.max.idle.ms" = "600000", "A connection without a request is closed after this many milliseconds, on the HTTP port too; 1000 or more. So is one whose peer leaves its replies unread for as long. While all connections are taken, those that are idle make room much sooner.", |config, value| millis(value, 1000).map(|time| config.broker.connection_idle_max = time);
    "data.dir" = "data", "The directory of the store. Its parent directory must exist. It must be empty, or hold a store.", |config, value| data_dir(config, value);
    "fetch.max.bytes" = "57671680", "The most bytes in the answer to a fetch. A first batch that is larger is returned whole. 1024 or more.", |config, value| size(value, 1024).map(|bytes| config.broker.fetch_bytes_max = bytes);
    "frame.max.bytes" = "4194304", "The most bytes that one sync covers; 64 KiB to 64 MiB, and never more than a quarter of wal.file.bytes.", |config, value| number(value, 64 << 10..=64 << 20).map(|bytes| config.storage.frame_bytes_max = bytes as usize);
    "group.initial.rebalance.delay.ms" = "3000", "How many milliseconds a new group waits for more members.", |config, value| millis(value, 0).map(|time| config.broker.groups.initial_rebalance_delay = time);
    "group.max.bytes" = "8388608", "The longest a group's members may be together, with their subscriptions and assignments, in bytes: they are stored as one record. A join or an assignment beyond it is refused. 4096 or more, and no more than about a quarter of wal.file.bytes.", |config, value| size(value, 4096).map(|bytes| config.broker.groups.bytes_max = bytes);
    "group.max.session.timeout.ms" = "1800000", "The longest session timeout of a member, in milliseconds.", |config, value| millis(value, 1).map(|time| config.broker.groups.session_timeout_max = time);
    "group.max.size" = "2147483647", "Members of a group at most; 1 or more.", |config, value| size(value, 1).map(|count| config.broker.groups.size_max = count);
    "group.min.session.timeout.ms" = "6000", "The shortest session timeout of a member, in milliseconds.", |config, value| millis(value, 1).map(|time| config.broker.groups.session_timeout_min = time);
    "groups.bytes.max" = "134217728", "Bytes of all groups' names, members, subscriptions and assignments at most; what would go beyond it is refused. 1 MiB or more.", |config, value| number(value, 1 << 20..=u64::MAX).map(|bytes| config.broker.groups.groups_bytes_max = bytes);
    "groups.max" = "100000", "Consumer groups at most; further ones are refused. 1 or more.", |config, value| number(value, 1..=u64::MAX).map(|count| config.broker.groups.groups_max = count);
    "groups.members.max" = "100000", "Members of all groups at most, with those that are about to join; further ones are refused. 1 or more.", |config, value| number(value, 1..=u64::MAX).map(|count| config.broker.groups.members_max = count);
    "http.listen" = "127.0.0.1:8080", "Where HTTP listens, `host:port`; port 0 picks one.", |config, value| { config.http = address(value)?; Ok(()) };
    "kafka.listen" = "127.0.0.1:9092", "Where the Kafka protocol listens, `host:port`; port 0 picks one.", |config, value| { config.kafka = address(value)?; Ok(()) };
    "log.retention.check.interval.ms" = "300000", "How often retention is checked, in milliseconds; 100 or more.", |config, value| millis(value, 100).map(|time| config.storage.retention_check = time);
    "max.connections" = "50000", "Connections at a time at most. A further one is let in when another is silent for a second or idle for ten, which is then closed; else it waits. Fewer if the limit of open files allows no more: the server logs how many at its start. 1 or more.", |config, value| size(value, 1).map(|count| config.broker.connections_max = count);
    "metrics.series.max" = "10000", "Series of one metric on `/metrics` at most, where topics, partitions or groups are its labels; the rest is summed in one series. 100 to 1000000.", |config, value| number(value, 100..=1_000_000).map(|count| config.broker.metrics_series_max = count as usize);
    "node.id" = "1", "This broker's id; 0 or more.", |config, value| number(value, 0..=i32::MAX as u64).map(|id| config.broker.node_id = id as i32);
    "num.partitions" = "1", "Partitions of a topic that is created without a count; 1 to 10000.", |config, value| number(value, 1..=10_000).map(|count| config.broker.default_partitions = count as u32);
    "offset.metadata.max.bytes" = "4096", "The longest text beside a committed offset, in characters (UTF-16 code units), as Kafka counts it.", |config, value| size(value, 0).map(|count| config.broker.groups.offset_metadata_chars_max = count);
    "offsets.bytes.max" = "268435456", "Bytes that the committed offsets of all groups take in memory at most, with the text beside them; a commit beyond it is refused. 1 MiB or more.", |config, value| number(value, 1 << 20..=u64::MAX).map(|bytes| config.broker.groups.offsets_bytes_max = bytes);
    "offsets.max" = "1000000", "Committed offsets of all groups at most; a commit beyond it is refused. 1 or more.", |config, value| number(value, 1..=u64::MAX).map(|count| config.broker.groups.offsets_max = count);
    "offsets.retention.check.interval.ms" = "600000", "How often expired offsets are removed, in milliseconds; 100 or more.", |config, value| millis(value, 100).map(|time| config.broker.groups.offsets_retention_check = time);
    "offsets.retention.minutes" = "10080", "How long an empty group keeps its offsets, in minutes; 1 or more.", |config, value| number(value, 1..=u64::from(u32::MAX)).map(|minutes| config.broker.groups.offsets_retention = Duration::from_secs(minutes * 60));
    "partitions.max" = "200000", "Partitions of all topics at most, and so topics too, as each has one; what would be more is refused with POLICY_VIOLATION. An idle one takes some kilobytes of memory. 1 to 10000000.", |config, value| number(value, 1..=10_000_000).map(|count| config.broker.partitions_max = count);
    "producer.id.expiration.ms" = "86400000", "How long an idle idempotent producer is remembered, in milliseconds; 1000 or more.", |config, value| millis(value, 1000).map(|time| config.storage.producer_expiry = time);
    "producer.ids.max" = "500000", "Idempotent producers that all partitions remember, counted in each; 1 or more. At the bound those are forgotten that have been idle for 15 minutes, and if there are none, new ones are refused with POLICY_VIOLATION.", |config, value| number(value, 1..=u64::from(u32::MAX)).map(|count| config.storage.producers_max = count);
    "producer.ids.per.partition.max" = "50000", "Idempotent producers that one partition remembers; 1 or more. The same happens at the bound.", |config, value| size(value, 1).map(|count| config.storage.producers_per_log_max = count);
    "queued.max.request.bytes" = "268435456", "Bytes of requests, all connections together, that are being received or worked on; beyond it connections are not read, and those that hold much and send little are closed. No less than twice socket.request.max.bytes and 8.", |config, value| size(value, 1 << 20).map(|bytes| config.broker.queued_request_bytes_max = bytes);
    "queued.max.response.bytes" = "268435456", "Bytes of answers, all connections together, that are being made or sent, records not counted; beyond it answers wait, and connections that hold much and take little are closed. No less than twice socket.response.max.bytes and 8.", |config, value| size(value, 1 << 20).map(|bytes| config.broker.queued_response_bytes_max = bytes);
    "response.send.max.ms" = "120000", "A connection whose peer has not taken a whole answer after this many milliseconds is closed; until then the answer holds memory, or the disk space of segments that were deleted meanwhile. 1000 or more.", |config, value| millis(value, 1000).map(|time| config.broker.response_send_max = time);
    "scrub.bytes.per.second" = "8388608", "How fast sealed segments are verified in the background; 0 switches it off.", |config, value| number(value, 0..=u64::MAX).map(|bytes| config.storage.scrub_bytes_per_second = bytes);
    "segments.open.max" = "1024", "Segments whose files and maps are kept open; fewer if the limit of open files allows no more. 16 or more.", |config, value| size(value, 16).map(|count| config.storage.open_segments_max = count);
    "settle.age.ms" = "10000", "Records are written from the write-ahead log into segments after this many milliseconds at the latest; 10 or more.", |config, value| millis(value, 10).map(|time| config.storage.settle_age = time);
    "socket.request.max.bytes" = "104857600", "The longest request; a longer one closes its connection. 1024 to 1 GiB.", |config, value| number(value, 1024..=1 << 30).map(|bytes| config.broker.socket_request_bytes_max = bytes as usize);
    "socket.response.max.bytes" = "104857600", "The longest answer, records not counted; what would be in it beyond that is refused with POLICY_VIOLATION. 1 MiB to 1 GiB.", |config, value| number(value, 1 << 20..=1 << 30).map(|bytes| config.broker.response_bytes_max = bytes as usize);
    "store.bytes.max" = "-1", "Bytes of records that all topics keep together: beyond it the segments that were written to longest ago are removed, of whichever topic, as by retention; -1 is any number. Looked at every second. The write-ahead log (`wal.files.max` times `wal.file.bytes` at most) and indexes come on top. Topics seal their segments at a 32nd of it at the latest. At least 1048576.", |config, value| store_bytes_max(config, value);
    "store.create.enable" = "true", "Whether a missing or empty data directory becomes a new store. With `false` the server does not start without a store, as when a disk is not mounted.", |config, value| boolean(value).map(|on| config.store_create = on);
    "topic.settings.max.bytes" = "65536", "Bytes of the names and values of a topic's own settings, and of those that are set on the running broker; more is refused with INVALID_CONFIG. 1024 to 16 MiB.", |config, value| number(value, 1024..=16 << 20).map(|bytes| config.broker.settings_bytes_max = bytes as usize);
    "validate.records" = "false", "Whether every batch is decompressed and each of its records checked. For producers that are not trusted.", |config, value| boolean(value).map(|on| config.broker.validate_records = on);
    "wal.file.bytes" = "67108864", "The length of a file of the write-ahead log: 256 KiB to 1 GiB, a multiple of 64 KiB. The largest batch is half of it.", |config, value| wal_file_bytes(config, value);
    "wal.files.max" = "64", "Files of the write-ahead log at most: when they are used up, producers wait. 4 to 4096, and no fewer than wal.files.min.", |config, value| number(value, 4..=4096).map(|count| config.storage.wal_files_max = count as usize);
    "wal.files.min" = "8", "Files of the write-ahead log that are kept for use again; 2 or more.", |config, value| number(value, 2..=4096).map(|count| config.storage.wal_files_min = count as usize);
    "wal.profile" = "standard", "`small` is for small disks: wal.file.bytes=4194304, wal.files.min=2, wal.files.max=16, append.queue.bytes=8388608, unless these are set themselves. An empty store takes 12 MiB instead of 192 MiB, the write-ahead log at most 64 MiB; batches have at most 2 MiB, and sustained throughput is lower.", |config, value| wal_profile(config, value);
};

fn number(value: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let number: u64 = value.parse().map_err(|_| "not a whole number".to_owned())?;
    if range.contains(&number) {
        return Ok(number);
    }
    match *range.end() {
        u64::MAX => Err(format!("must be {} or more", range.start())),
        end => Err(format!("must be {} to {end}", range.start())),
    }
}

fn size(value: &str, least: u64) -> Result<usize, String> {
    number(value, least..=i32::MAX as u64)
        .and_then(|number| usize::try_from(number).map_err(|error| error.to_string()))
}

fn millis(value: &str, least: u64) -> Result<Duration, String> {
    number(value, least..=i64::MAX as u64).map(Duration::from_millis)
}

fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

fn address(value: &str) -> Result<String, String> {
    let (host, port) = value.rsplit_once(':').ok_or("must be host:port")?;
    let known = !host.is_empty() && port.parse::<u16>().is_ok();
    known
        .then(|| value.to_owned())
        .ok_or_else(|| "must be host:port, with a port from 0 to 65535".to_owned())
}

fn store_bytes_max(config: &mut Config, value: &str) -> Result<(), String> {
    config.storage.store_bytes_max = match value {
        "-1" => None,
        value => {
            Some(number(value, 1 << 20..=u64::MAX).map_err(|reason| format!("{reason}, or -1"))?)
        }
    };
    Ok(())
}

/// What `wal.profile=small` sets.
const SMALL_WAL: [(&str, &str); 4] = [
    ("append.queue.bytes", "8388608"),
    ("wal.file.bytes", "4194304"),
    ("wal.files.max", "16"),
    ("wal.files.min", "2"),
];

fn wal_profile(config: &mut Config, value: &str) -> Result<(), String> {
    config.wal_is_small = match value {
        "small" => true,
        "standard" => false,
        _ => return Err("must be small or standard".to_owned()),
    };
    Ok(())
}

fn data_dir(config: &mut Config, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("must name a directory".to_owned());
    }
    config.storage.data_dir = PathBuf::from(value);
    config.broker.data_dir = PathBuf::from(value);
    Ok(())
}

/// Whether this host, as it stands before a port, means every address of the machine.
fn is_every_address(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse()
        .is_ok_and(|address: IpAddr| address.is_unspecified())
}

fn advertised(config: &mut Config, value: &str) -> Result<(), String> {
    if value.is_empty() {
        config.advertised = None;
        return Ok(());
    }
    let value = value
        .strip_prefix("PLAINTEXT://")
        .ok_or("must be PLAINTEXT://host:port")?;
    let (host, port) = value
        .rsplit_once(':')
        .ok_or("must be PLAINTEXT://host:port")?;
    let port = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or("must end in a port from 1 to 65535")?;
    // Clients are given an IPv6 address without its brackets, as by Kafka.
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = bracketed.unwrap_or(host);
    if host.is_empty() || is_every_address(host) {
        return Err(
            "clients cannot connect to that: give a name or address that they can reach".to_owned(),
        );
    }
    config.advertised = Some((host.to_owned(), port));
    Ok(())
}

fn wal_file_bytes(config: &mut Config, value: &str) -> Result<(), String> {
    let bytes = number(value, 256 << 10..=1 << 30)?;
    if !bytes.is_multiple_of(64 << 10) {
        return Err("must be a multiple of 64 KiB".to_owned());
    }
    config.storage.wal_file_bytes = bytes;
    Ok(())
}

/// What is given on the command line and in the environment.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// Variables of the environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags, in order.
    pub flags: Vec<(String, String)>,
}

/// One setting as it is in force.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Shown {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Who set it.
    pub origin: String,
}

impl Config {
    fn defaults() -> Config {
        let mut config = Config {
            kafka: String::new(),
            http: String::new(),
            advertised: None,
            broker: BrokerConfig::default(),
            storage: StorageConfig::new("data"),
            store_create: true,
            wal_is_small: false,
            ignored_variables: Vec::new(),
            origins: BTreeMap::new(),
        };
        for setting in SETTINGS {
            (setting.set)(&mut config, setting.default).expect("a setting's default is valid");
        }
        config
    }

    /// Reads all sources.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let mut config = Config::defaults();
        if let Some(path) = &sources.file {
            config.set_all(sources::of_file(path)?)?;
        }
        let environment = sources::of_environment(&sources.environment, is_known)?;
        config.ignored_variables = environment.ignored;
        config.set_all(environment.given)?;
        for (key, value) in &sources.flags {
            config.set(key, value, Place::Flag)?;
        }
        if config.wal_is_small {
            for (key, value) in SMALL_WAL {
                if !config.is_set(key) {
                    config.set(key, value, Place::Profile)?;
                }
            }
        }
        config.check()?;
        Ok(config)
    }

    fn set_all(&mut self, all: Vec<Given>) -> Result<(), ConfigError> {
        all.into_iter()
            .try_for_each(|given| self.set(&given.key, &given.value, given.place))
    }

    fn set(&mut self, key: &str, value: &str, place: Place) -> Result<(), ConfigError> {
        let invalid = |reason: String| ConfigError::Invalid {
            key: key.to_owned(),
            value: value.to_owned(),
            reason,
            place: place.clone(),
        };
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
            (setting.set)(self, value).map_err(invalid)?;
        } else if TopicSetting::find_by_server_name(key).is_some() {
            self.broker
                .topic_defaults
                .set(key, value)
                .map_err(|error| invalid(error.reason))?;
        } else {
            let names = names();
            let close = names
                .iter()
                .map(|name| (strsim::jaro_winkler(name, key), name))
                .filter(|(score, _)| *score > 0.85);
            let best = close
                .max_by(|one, other| one.0.total_cmp(&other.0))
                .map(|(_, name)| (*name).to_owned());
            return Err(ConfigError::Unknown {
                key: key.to_owned(),
                suggestion: best,
                place,
            });
        }
        self.origins
            .insert(key.to_owned(), (place, value.to_owned()));
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let (least, most) = (self.storage.wal_files_min, self.storage.wal_files_max);
        if most < least {
            return Err(self.conflict(
                "wal.files.max",
                format!("must be no less than wal.files.min, which is {least}"),
            ));
        }
        let most = self.storage.batch_bytes_max();
        let larger = self
            .origins
            .get(MESSAGE_MAX_BYTES)
            .and_then(|(_, value)| value.trim().parse::<u64>().ok())
            .is_some_and(|bytes| bytes > most);
        if larger {
            let reason = format!("must be no more than {most}, half of wal.file.bytes");
            return Err(self.conflict(MESSAGE_MAX_BYTES, reason));
        }
        for (all, all_max, one, one_max) in [
            (
                "queued.max.request.bytes",
                self.broker.queued_request_bytes_max,
                "socket.request.max.bytes",
                self.broker.socket_request_bytes_max,
            ),
            (
                "queued.max.response.bytes",
                self.broker.queued_response_bytes_max,
                "socket.response.max.bytes",
                self.broker.response_bytes_max,
            ),
        ] {
            // A frame's length field is held with it.
            if all_max < 2 * (one_max + 4) {
                let reason =
                    format!("must be no less than twice {one}, which is {one_max}, and 8 bytes");
                return Err(self.conflict(all, reason));
            }
        }
        let most = crate::broker::group_bytes_max(self.storage.batch_bytes_max());
        if self.origins.contains_key(GROUP_MAX_BYTES) && self.broker.groups.bytes_max > most {
            let reason = format!("must be no more than {most}, about a quarter of wal.file.bytes");
            return Err(self.conflict(GROUP_MAX_BYTES, reason));
        }
        let (least, most) = (
            self.broker.groups.session_timeout_min,
            self.broker.groups.session_timeout_max,
        );
        if most < least {
            let reason = format!(
                "must be no less than group.min.session.timeout.ms, which is {}",
                least.as_millis()
            );
            return Err(self.conflict("group.max.session.timeout.ms", reason));
        }
        Ok(())
    }

    fn conflict(&self, key: &str, reason: String) -> ConfigError {
        let (place, value) = self
            .origins
            .get(key)
            .cloned()
            .unwrap_or((Place::Default, String::new()));
        ConfigError::Invalid {
            key: key.to_owned(),
            value,
            reason,
            place,
        }
    }

    /// Whether somebody set this, wherever.
    pub fn is_set(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// What is allowed and most likely not meant: a sentence each. With all defaults there is none.
    pub fn warnings(&self) -> Vec<String> {
        let host = self.kafka.rsplit_once(':').map_or("", |(host, _)| host);
        let unreachable = self.advertised.is_none() && is_every_address(host);
        unreachable
            .then(|| UNREACHABLE.to_owned())
            .into_iter()
            .collect()
    }

    /// Every setting as it is in force, by name.
    pub fn show(&self) -> Vec<Shown> {
        let shown = |key: &str, default: &str| {
            let (place, value) = self
                .origins
                .get(key)
                .cloned()
                .unwrap_or_else(|| (Place::Default, default.to_owned()));
            Shown {
                key: key.to_owned(),
                value,
                origin: place.origin().to_string(),
            }
        };
        let mut all: Vec<Shown> = SETTINGS
            .iter()
            .map(|setting| shown(setting.key, setting.default))
            .collect();
        all.extend(topic_defaults().map(|setting| shown(setting.server_name, setting.default)));
        all.sort_by(|one, other| one.key.cmp(&other.key));
        all
    }
}

/// The commonest first mistake, with the way out.
const UNREACHABLE: &str = "kafka.listen is every address of this machine, and advertised.listeners is not set: clients on other \
     machines will be told to connect to 127.0.0.1, which is their own machine. Set \
     advertised.listeners=PLAINTEXT://NAME:PORT, with a name or address that clients can reach";

fn is_known(key: &str) -> bool {
    names().contains(&key)
}

fn topic_defaults() -> impl Iterator<Item = &'static TopicSetting> {
    topic_config::SETTINGS
        .iter()
        .filter(|setting| !setting.server_name.is_empty())
}

fn names() -> Vec<&'static str> {
    SETTINGS
        .iter()
        .map(|setting| setting.key)
        .chain(topic_defaults().map(|setting| setting.server_name))
        .collect()
}

/// The server's settings, topic defaults included: name, default, meaning.
pub fn settings() -> impl Iterator<Item = (&'static str, &'static str, String)> {
    let own = SETTINGS
        .iter()
        .map(|setting| (setting.key, setting.default, setting.doc.to_owned()));
    own.chain(
        topic_defaults().map(|setting| (setting.server_name, setting.default, meaning(setting))),
    )
}

/// The reference page, `docs/configuration.md`.
pub fn reference() -> String {
    let mut page = String::from(
        "# Configuration\n\nA setting comes from a TOML file (`--config FILE`), then from the environment \
         (`ALLUVIUM_NUM_PARTITIONS` for `num.partitions`), then from flags and `-X KEY=VALUE`; the last one wins. An unknown \
         setting is refused, with the file and line, or the variable, that names it. Variables that Kubernetes and Docker set \
         for a service with the name `alluvium` (`ALLUVIUM_SERVICE_HOST`, `ALLUVIUM_PORT=tcp://…`, `ALLUVIUM_PORT_9092_TCP`) \
         are ignored. `alluvium config check` checks a configuration, and `alluvium config show --origin` prints it. This page \
         is generated by `alluvium config reference`; a test compares it.\n\n## Server\n\nThese can also be changed while the \
         server runs, with `kafka-configs.sh --entity-type brokers --entity-name ID --alter --add-config KEY=VALUE`: \
         `log.retention.check.interval.ms`, `scrub.bytes.per.second`, `store.bytes.max`. What is set so is kept in the store and \
         wins over file, environment and flags. All others need a restart, and such a change of them is refused.\n\n\
         | setting | default | meaning |\n|---|---|---|\n",
    );
    for setting in SETTINGS {
        page.push_str(&format!(
            "| `{}` | {} | {} |\n",
            setting.key,
            code(setting.default),
            setting.doc
        ));
    }
    page.push_str(
        "\n## Topic defaults\n\nWhat topics use that do not have the setting themselves; they can be changed while the server \
         runs.\n\n| setting | default | topic setting | meaning |\n|---|---|---|---|\n",
    );
    for setting in topic_defaults() {
        page.push_str(&format!(
            "| `{}` | {} | `{}` | {} |\n",
            setting.server_name,
            code(setting.default),
            setting.name,
            meaning(setting)
        ));
    }
    page.push_str("\n## Topic settings without a default of the server\n\n| setting | default | meaning |\n|---|---|---|\n");
    for setting in topic_config::SETTINGS
        .iter()
        .filter(|setting| setting.server_name.is_empty())
    {
        page.push_str(&format!(
            "| `{}` | {} | {} |\n",
            setting.name,
            code(setting.default),
            meaning(setting)
        ));
    }
    page
}

fn code(value: &str) -> String {
    if value.is_empty() {
        String::new()
    } else {
        format!("`{value}`")
    }
}

fn meaning(setting: &TopicSetting) -> String {
    match setting.holds {
        Holds::Enforced => setting.doc.to_owned(),
        Holds::HoldsTrivially(reason) => format!("{} No effect here: {reason}.", setting.doc),
        Holds::Refused(reason) => {
            format!("{} Only the default is accepted: {reason}.", setting.doc)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let flags = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Config::load(&Sources {
            flags,
            ..Sources::default()
        })
    }

    #[test]
    fn settings_stand_once_each_in_order() {
        assert!(SETTINGS.windows(2).all(|pair| pair[0].key < pair[1].key));
    }

    #[test]
    fn an_unknown_setting_is_refused_with_a_suggestion() {
        let error = flags(&[("num.partition", "3")])
            .expect_err("there is no such setting")
            .to_string();
        assert_eq!(
            error,
            "flag: unknown setting `num.partition`; did you mean `num.partitions`?"
        );
    }

    #[test]
    fn a_value_outside_its_range_is_refused() {
        for (key, value) in [
            ("num.partitions", "0"),
            ("num.partitions", "many"),
            ("auto.create.topics.enable", "yes"),
            ("wal.file.bytes", "300001"),
            ("kafka.listen", "9092"),
            ("advertised.listeners", "PLAINTEXT://0.0.0.0:9092"),
            ("advertised.listeners", "PLAINTEXT://[::]:9092"),
            ("advertised.listeners", "PLAINTEXT://:::9092"),
            ("data.dir", ""),
            ("store.bytes.max", "1000"),
            ("wal.profile", "tiny"),
            ("log.retention.ms", "soon"),
            ("message.max.bytes", "40000000"),
        ] {
            assert!(flags(&[(key, value)]).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn errors_name_the_variable_or_the_file_and_the_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.toml");
        std::fs::write(&path, "[num]\npartition = 2\n").unwrap();
        let error = Config::load(&Sources {
            file: Some(path),
            ..Sources::default()
        });
        let error = error.expect_err("there is no such setting").to_string();
        assert!(
            error.contains("server.toml, line 2: unknown setting `num.partition`"),
            "{error}"
        );
        let error = Config::load(&Sources {
            environment: vec![("ALLUVIUM_PORT".into(), "9092".into())],
            ..Sources::default()
        });
        let error = error.expect_err("there is no such setting").to_string();
        assert!(
            error.contains("ALLUVIUM_PORT: unknown setting `port`"),
            "{error}"
        );
    }

    #[test]
    fn listening_on_every_address_without_a_name_for_clients_warns() {
        for (listen, warned) in [
            ("0.0.0.0:9092", 1),
            ("[::]:0", 1),
            ("127.0.0.1:9092", 0),
            ("store.example:9092", 0),
        ] {
            let alone = flags(&[("kafka.listen", listen)]).unwrap();
            assert_eq!(alone.warnings().len(), warned, "{listen}");
            let name = ("advertised.listeners", "PLAINTEXT://store.example:9092");
            let named = flags(&[("kafka.listen", listen), name]).unwrap();
            assert_eq!(named.warnings(), [""; 0], "{listen}");
        }
        assert_eq!(flags(&[]).unwrap().warnings(), [""; 0]);
    }

    #[test]
    fn a_profile_sets_what_nobody_set_and_is_shown_as_the_reason() {
        let config = flags(&[("wal.files.max", "32"), ("wal.profile", "small")]).unwrap();
        let storage = &config.storage;
        assert_eq!(
            (
                storage.wal_file_bytes,
                storage.wal_files_min,
                storage.wal_files_max
            ),
            (4 << 20, 2, 32)
        );
        let shown = config.show();
        let origin = |key: &str| &shown.iter().find(|shown| shown.key == key).unwrap().origin;
        assert_eq!(origin("wal.file.bytes"), "wal.profile");
        assert_eq!(origin("wal.files.max"), "flag");
        // The default of message.max.bytes has to fit.
        assert!(storage.batch_bytes_max() > 1_048_588);
    }

    #[test]
    fn an_advertised_ipv6_address_is_given_without_its_brackets() {
        let config = flags(&[("advertised.listeners", "PLAINTEXT://[fd00::7]:9092")]).unwrap();
        assert_eq!(config.advertised, Some(("fd00::7".to_owned(), 9092)));
    }

    #[test]
    fn every_setting_reaches_what_the_parts_are_started_with() {
        // What cannot be derived from the default.
        let others = [
            ("advertised.listeners", "PLAINTEXT://example.org:9092"),
            ("broker.rack", "cellar"),
            ("data.dir", "elsewhere"),
            ("http.listen", "127.0.0.1:1"),
            ("kafka.listen", "127.0.0.1:1"),
            ("scrub.bytes.per.second", "0"),
            ("store.bytes.max", "1073741824"),
            ("wal.file.bytes", "1048576"),
            ("wal.profile", "small"),
        ];
        let without_origins = |mut config: Config| {
            config.origins.clear();
            format!("{config:?}")
        };
        let before = without_origins(Config::defaults());
        for setting in SETTINGS {
            let other = others.iter().find(|(key, _)| *key == setting.key);
            let value = match (other, setting.default) {
                (Some((_, value)), _) => (*value).to_owned(),
                (_, "true") => "false".to_owned(),
                (_, "false") => "true".to_owned(),
                (_, number) => {
                    let number: u64 = number.parse().expect("a number");
                    // One of the two neighbours lies in the range.
                    let more = (number + 1).to_string();
                    let fits = flags(&[(setting.key, &more)]).is_ok();
                    if fits { more } else { (number - 1).to_string() }
                }
            };
            let config = flags(&[(setting.key, &value)]).expect("a valid value");
            assert!(
                without_origins(config) != before,
                "{}={value} changes nothing",
                setting.key
            );
        }
    }

    #[test]
    fn the_last_source_that_speaks_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.toml");
        std::fs::write(&path, "num.partitions = 2\n[log.retention]\nms = 1000\n").unwrap();
        let sources = Sources {
            file: Some(path),
            environment: vec![
                ("ALLUVIUM_NODE_ID".into(), "7".into()),
                ("PATH".into(), "/bin".into()),
            ],
            flags: vec![("num.partitions".into(), "5".into())],
        };
        let config = Config::load(&sources).unwrap();
        assert_eq!(
            (config.broker.default_partitions, config.broker.node_id),
            (5, 7)
        );
        let origin = |key: &str| {
            config
                .show()
                .into_iter()
                .find(|shown| shown.key == key)
                .unwrap()
                .origin
        };
        assert_eq!(origin("num.partitions"), "flag");
        assert_eq!(origin("node.id"), "environment");
        assert_eq!(origin("log.retention.ms"), "file");
        assert_eq!(origin("wal.files.max"), "default");
    }

    #[test]
    fn the_reference_page_is_the_one_in_the_docs() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == reference(),
            "docs/configuration.md differs: write it again with `alluvium config reference`"
        );
    }
}
