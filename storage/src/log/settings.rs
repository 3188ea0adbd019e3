//! What a log is set to, and where it begins and ends: plain values that its users pass around.

use model::Offset;
use model::topic_config::{CompactionConfig, Durability, ThinTiers, TopicConfig};

/// Where a log begins and ends. All ends are exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is kept.
    pub start: Offset,
    /// The first offset that is in the WAL only.
    pub settled_end: Offset,
    /// The first offset that is not durable: the high watermark. (With `durability=os`: not yet written.)
    pub durable_end: Offset,
    /// The next offset to be assigned.
    pub end: Offset,
}

impl Bounds {
    /// Those of a log without a record, that goes on at an offset.
    pub(crate) fn at(offset: Offset) -> Bounds {
        Bounds {
            start: offset,
            settled_end: offset,
            durable_end: offset,
            end: offset,
        }
    }
}

/// The settings of a log that the engine acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// A segment is sealed before it would grow past this.
    pub segment_bytes: u64,
    /// A segment is sealed at this age.
    pub segment_ms: u64,
    /// How long a record is kept after its append; None is for ever.
    pub retention_ms: Option<u64>,
    /// How many bytes are kept; None is any number.
    pub retention_bytes: Option<u64>,
    /// How it is compacted by key; None for a log that is not.
    pub compaction: Option<CompactionConfig>,
    /// What is kept of records as they age; None for a log that is not thinned.
    pub thinning: Option<ThinTiers>,
    /// Whether sealed segments get a key index.
    pub key_index: bool,
}

impl LogSettings {
    /// For the broker's own state: durable, compacted, in segments that are small, as the last one is not compacted. A removal
    /// is kept for a day.
    pub fn state() -> LogSettings {
        LogSettings {
            durability: Durability::Fsync,
            segment_bytes: 8 << 20,
            segment_ms: u64::MAX,
            retention_ms: None,
            retention_bytes: None,
            compaction: Some(TopicConfig::default().compaction),
            thinning: None,
            key_index: false,
        }
    }
}

impl From<&TopicConfig> for LogSettings {
    fn from(config: &TopicConfig) -> LogSettings {
        LogSettings {
            durability: config.durability,
            segment_bytes: config.segment_bytes,
            segment_ms: config.segment_ms,
            // Kafka's retention by age and size belongs to the policy `delete`.
            retention_ms: config.retention_ms.filter(|_| config.cleanup_policy.delete),
            retention_bytes: config
                .retention_bytes
                .filter(|_| config.cleanup_policy.delete),
            compaction: Some(config.compaction).filter(|_| config.cleanup_policy.compact),
            thinning: Some(config.thin_tiers.clone()).filter(|_| config.cleanup_policy.thin),
            key_index: config.key_index,
        }
    }
}
