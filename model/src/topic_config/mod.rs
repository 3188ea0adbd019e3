//! Topic settings: the table of all of Kafka's (its 4.3 `LogConfig`) and ours, how each one holds here, and the typed
//! values that the broker and storage act on.
//!
//! Called by the broker (create, alter, describe) and by the command line. Invariant: a setting that is accepted is
//! enforced, or holds trivially for the reason given in the table; every other value is refused with the reason.

mod table;
pub mod thin;
mod value;

use std::collections::BTreeMap;

use crate::codec::{Codec, Compression};

pub use table::SETTINGS;
pub use thin::ThinTiers;
pub use value::{list_append, list_subtract, parse_list};

/// A setting's type, as the protocol numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// 32 bits.
    Int,
    /// 64 bits.
    Long,
    /// A floating-point number.
    Double,
    /// Texts, separated by commas.
    List,
}

impl Kind {
    /// The number in DescribeConfigs' replies.
    pub const fn wire(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::String => 2,
            Kind::Int => 3,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
        }
    }
}

/// Which values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    /// `true` or `false`.
    Boolean,
    /// A whole number in `min..=max`.
    Integer {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// A number in `min..=max`.
    Real {
        /// The least.
        min: f64,
        /// The greatest.
        max: f64,
    },
    /// One of these.
    OneOf(&'static [&'static str]),
    /// Any of these, or none. What is named again counts once.
    ListOf(&'static [&'static str]),
    /// `*`, or pairs `partition:broker`.
    Replicas,
    /// Tiers of thinning; see [`thin`].
    ThinTiers,
    /// Any names, or none. What is named again counts once.
    Names,
}

/// How a setting's promise is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// The broker or storage acts on it.
    Enforced,
    /// Whatever the value, what it promises is the case anyway, for this reason.
    HoldsTrivially(&'static str),
    /// Only the default is accepted, for this reason.
    Refused(&'static str),
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// Its name, Kafka's where Kafka has it.
    pub name: &'static str,
    /// The broker's setting that gives its default, Kafka's name; empty if there is none.
    pub server_name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its value where nobody sets it.
    pub default: &'static str,
    /// Which values it takes.
    pub values: Values,
    /// How it is kept.
    pub holds: Holds,
    /// What it means, in a sentence or two.
    pub doc: &'static str,
}

impl Setting {
    /// The row with this name.
    pub fn find(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The row whose default the broker's setting of this name gives.
    pub fn find_by_server_name(name: &str) -> Option<&'static Setting> {
        SETTINGS
            .iter()
            .find(|setting| !setting.server_name.is_empty() && setting.server_name == name)
    }

    /// Checks a value, and gives it in its one spelling.
    pub fn check(&self, value: &str) -> Result<String, ConfigError> {
        value::check(self, value).map_err(|reason| ConfigError {
            key: self.name.to_owned(),
            value: value.to_owned(),
            reason,
        })
    }
}

/// A setting that is refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value {value:?} for topic setting {key}: {reason}")]
pub struct ConfigError {
    /// The setting's name.
    pub key: String,
    /// The value that was given.
    pub value: String,
    /// Why it is refused.
    pub reason: String,
}

/// Where a setting's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Set on the topic.
    Topic,
    /// Set on the broker for all topics.
    Server,
    /// The table's default.
    Default,
}

/// The broker's own values for topics that say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults(BTreeMap<&'static str, String>);

impl Defaults {
    /// Sets a default; `name` is the topic's name for the setting or the broker's.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let setting = Setting::find(name).or_else(|| Setting::find_by_server_name(name));
        let setting = setting.ok_or_else(|| unknown(name, value))?;
        let value = setting.check(value)?;
        if setting.name == "cleanup.policy" && parse_list(&value).contains(&"thin") {
            return Err(ConfigError {
                key: name.to_owned(),
                value,
                reason: "thin is set on topics: each needs thin.tiers of its own".to_owned(),
            });
        }
        self.0.insert(setting.name, value);
        Ok(())
    }

    /// The default that is set for the topic setting of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// A setting's value for a topic with these overrides, and where it comes from.
pub fn effective<'a>(
    setting: &'static Setting,
    overrides: &'a BTreeMap<String, String>,
    defaults: &'a Defaults,
) -> (&'a str, Source) {
    if let Some(value) = overrides.get(setting.name) {
        (value, Source::Topic)
    } else if let Some(value) = defaults.get(setting.name) {
        (value, Source::Server)
    } else {
        (setting.default, Source::Default)
    }
}

/// Checks overrides and gives each value in its one spelling, as they should be stored and described.
pub fn normalize(
    overrides: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    overrides
        .iter()
        .map(|(name, value)| {
            let setting = Setting::find(name).ok_or_else(|| unknown(name, value))?;
            Ok((name.clone(), setting.check(value)?))
        })
        .collect()
}

fn unknown(name: &str, value: &str) -> ConfigError {
    ConfigError {
        key: name.to_owned(),
        value: value.to_owned(),
        reason: match similar(name) {
            Some(known) => format!("unknown topic setting; did you mean {known}?"),
            None => "unknown topic setting".to_owned(),
        },
    }
}

/// The setting that was probably meant.
fn similar(name: &str) -> Option<&'static str> {
    let distance = |known: &str| strsim::osa_distance(known, name);
    let nearest = SETTINGS
        .iter()
        .map(|setting| (distance(setting.name), setting.name))
        .min()?;
    // A third of the letters may be wrong.
    Some(nearest)
        .filter(|(distance, known)| distance * 3 <= known.len())
        .map(|(_, known)| known)
}

/// Whose clock a topic's records are stamped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageTimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's.
    LogAppendTime,
}

/// How batches are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// As the producer sent them.
    Producer,
    /// So; what comes otherwise is recompressed.
    Fixed(Compression),
}

/// What removes old records: any of these, or nothing at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Retention by time and size.
    pub delete: bool,
    /// The latest record of each key is kept.
    pub compact: bool,
    /// Fewer records are kept as they age.
    pub thin: bool,
}

/// A part of a whole, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Ratio(f64);

impl Ratio {
    /// None for what is no number from 0 to 1.
    pub fn new(part: f64) -> Option<Ratio> {
        (0.0..=1.0).contains(&part).then_some(Ratio(part))
    }

    /// The number, from 0 to 1.
    pub const fn get(self) -> f64 {
        self.0
    }
}

/// A ratio is a number, so that each equals itself.
impl Eq for Ratio {}

/// When a compacted topic is compacted, and what that keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionConfig {
    /// How long a tombstone is kept, from the first compaction after which nothing older of its key is left.
    pub delete_retention_ms: u64,
    /// Which part of the bytes must be dirty.
    pub min_cleanable_dirty_ratio: Ratio,
    /// A record is not compacted before it has this age.
    pub min_compaction_lag_ms: u64,
    /// A record is due for compaction at this age, whatever the ratio; None is never.
    pub max_compaction_lag_ms: Option<u64>,
}

/// What retention keeps for consumer groups, and for how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldConfig {
    /// The groups: what one of them has not committed stays.
    pub groups: Vec<String>,
    /// No more than the newest so many bytes of a partition; None is any number.
    pub bytes: Option<u64>,
    /// Nothing that was appended longer ago; None is any time.
    pub ms: Option<u64>,
}

/// What has happened when a record is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It is on the disk: the sync has returned.
    Fsync,
    /// It was given to the operating system: a power cut may lose it, a crash of the process does not.
    Os,
}

const MIN_LAG: &str = "min.compaction.lag.ms";
const MAX_LAG: &str = "max.compaction.lag.ms";

/// A topic's settings, typed: those that are enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// How long a record is kept after its append; None is for ever.
    pub retention_ms: Option<u64>,
    /// How many bytes a partition keeps; None is any number.
    pub retention_bytes: Option<u64>,
    /// A segment is sealed when it reaches this size.
    pub segment_bytes: u64,
    /// A segment is sealed at this age.
    pub segment_ms: u64,
    /// The largest batch, compressed as it comes.
    pub max_message_bytes: u64,
    /// Whose clock stamps the records.
    pub message_timestamp_type: MessageTimestampType,
    /// How far a producer's timestamp may lie before the broker's clock; None is any distance.
    pub message_timestamp_before_max_ms: Option<u64>,
    /// How far a producer's timestamp may lie after the broker's clock; None is any distance.
    pub message_timestamp_after_max_ms: Option<u64>,
    /// How batches are stored.
    pub compression_type: CompressionType,
    /// What removes old records.
    pub cleanup_policy: CleanupPolicy,
    /// How it is compacted, if it is.
    pub compaction: CompactionConfig,
    /// What is kept of records as they age, if it is thinned.
    pub thin_tiers: ThinTiers,
    /// Whether segments get an index of their keys.
    pub key_index: bool,
    /// What retention keeps for consumer groups.
    pub hold: HoldConfig,
    /// How many replicas must have a record for `acks=all`; there is one, so that more refuses such a produce.
    pub min_insync_replicas: u32,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Whether it may be named as a group's topic for dead letters.
    pub takes_dead_letters: bool,
}

impl TopicConfig {
    /// Checks every override and gives the typed settings; what is not overridden comes from `defaults`, then the table.
    pub fn from_overrides(
        overrides: &BTreeMap<String, String>,
        defaults: &Defaults,
    ) -> Result<TopicConfig, ConfigError> {
        let overrides = normalize(overrides)?;
        let read = Reader {
            overrides: &overrides,
            defaults,
        };
        let config = TopicConfig {
            retention_ms: u64::try_from(read.integer("retention.ms")).ok(),
            retention_bytes: u64::try_from(read.integer("retention.bytes")).ok(),
            segment_bytes: read.positive("segment.bytes"),
            segment_ms: read.positive("segment.ms"),
            max_message_bytes: read.positive("max.message.bytes"),
            message_timestamp_type: match read.text("message.timestamp.type") {
                "LogAppendTime" => MessageTimestampType::LogAppendTime,
                _ => MessageTimestampType::CreateTime,
            },
            message_timestamp_before_max_ms: read.bounded("message.timestamp.before.max.ms"),
            message_timestamp_after_max_ms: read.bounded("message.timestamp.after.max.ms"),
            compression_type: read.compression(),
            cleanup_policy: read.cleanup_policy(),
            compaction: read.compaction(),
            thin_tiers: read
                .text("thin.tiers")
                .parse()
                .expect("values were checked"),
            key_index: read.text("key.index.enable") == "true",
            hold: HoldConfig {
                groups: parse_list(read.text("retention.hold.groups"))
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
                bytes: u64::try_from(read.integer("retention.hold.bytes")).ok(),
                ms: u64::try_from(read.integer("retention.hold.ms")).ok(),
            },
            min_insync_replicas: u32::try_from(read.positive("min.insync.replicas"))
                .unwrap_or(u32::MAX),
            durability: match read.text("durability") {
                "os" => Durability::Os,
                _ => Durability::Fsync,
            },
            takes_dead_letters: read.text("errors.deadletterqueue.group.enable") == "true",
        };
        read.check_flush(config.durability)?;
        read.check_lags()?;
        config.check_tiers()?;
        Ok(config)
    }
}

impl TopicConfig {
    /// Thinning needs tiers. Tiers without the policy wait for it.
    fn check_tiers(&self) -> Result<(), ConfigError> {
        if !self.cleanup_policy.thin || !self.thin_tiers.is_empty() {
            return Ok(());
        }
        Err(ConfigError {
            key: "thin.tiers".to_owned(),
            value: String::new(),
            reason: "cleanup.policy names thin, which needs a tier, such as 7d:1m:first+last"
                .to_owned(),
        })
    }
}

impl Default for TopicConfig {
    fn default() -> TopicConfig {
        TopicConfig::from_overrides(&BTreeMap::new(), &Defaults::default())
            .expect("the table's defaults are valid")
    }
}

/// Reads checked values by name.
struct Reader<'a> {
    overrides: &'a BTreeMap<String, String>,
    defaults: &'a Defaults,
}

impl<'a> Reader<'a> {
    fn text(&self, name: &str) -> &'a str {
        let setting = Setting::find(name).expect("only names of the table are read");
        effective(setting, self.overrides, self.defaults).0
    }

    fn integer(&self, name: &str) -> i64 {
        self.text(name).parse().expect("values were checked")
    }

    fn positive(&self, name: &str) -> u64 {
        u64::try_from(self.integer(name)).expect("the table's range has no negative numbers")
    }

    /// The largest number means "any".
    fn bounded(&self, name: &str) -> Option<u64> {
        Some(self.positive(name)).filter(|&value| value != i64::MAX.unsigned_abs())
    }

    fn compression(&self) -> CompressionType {
        let level = |name| i32::try_from(self.integer(name)).ok();
        let fixed = |codec, level| CompressionType::Fixed(Compression { codec, level });
        match self.text("compression.type") {
            "uncompressed" => fixed(Codec::None, None),
            "gzip" => fixed(
                Codec::Gzip,
                level("compression.gzip.level").filter(|&level| level != -1),
            ),
            "snappy" => fixed(Codec::Snappy, None),
            "lz4" => fixed(Codec::Lz4, None),
            "zstd" => fixed(Codec::Zstd, level("compression.zstd.level")),
            _ => CompressionType::Producer,
        }
    }

    fn cleanup_policy(&self) -> CleanupPolicy {
        let policies = parse_list(self.text("cleanup.policy"));
        CleanupPolicy {
            delete: policies.contains(&"delete"),
            compact: policies.contains(&"compact"),
            thin: policies.contains(&"thin"),
        }
    }

    fn compaction(&self) -> CompactionConfig {
        let ratio = self.text("min.cleanable.dirty.ratio").parse().ok();
        CompactionConfig {
            delete_retention_ms: self.positive("delete.retention.ms"),
            min_cleanable_dirty_ratio: ratio.and_then(Ratio::new).expect("values were checked"),
            min_compaction_lag_ms: self.positive(MIN_LAG),
            max_compaction_lag_ms: self.bounded(MAX_LAG),
        }
    }

    /// A record cannot be due for compaction before it may be compacted.
    fn check_lags(&self) -> Result<(), ConfigError> {
        let (min, max) = (self.integer(MIN_LAG), self.integer(MAX_LAG));
        if min <= max {
            return Ok(());
        }
        Err(ConfigError {
            key: MAX_LAG.to_owned(),
            value: max.to_string(),
            reason: format!("is less than {MIN_LAG}={min}"),
        })
    }

    /// `flush.messages` and `flush.ms` hold because every record is synced: where that is switched off, they cannot.
    fn check_flush(&self, durability: Durability) -> Result<(), ConfigError> {
        if durability == Durability::Fsync {
            return Ok(());
        }
        for key in ["flush.messages", "flush.ms"] {
            if self.integer(key) != i64::MAX {
                return Err(ConfigError {
                    key: key.to_owned(),
                    value: self.text(key).to_owned(),
                    reason: "contradicts durability=os, where the operating system decides when to flush".to_owned(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
