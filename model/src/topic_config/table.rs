//! The table itself. Names, types, defaults and ranges are those of Kafka 4.3 (`LogConfig`, `TopicConfig`,
//! `ServerTopicConfigSynonyms`) but where a row's documentation says otherwise.

use super::{Holds, Kind, Setting, Values};
use Holds::{Enforced, HoldsTrivially, Refused};

const INT_MAX: i64 = i32::MAX as i64;
const LONG_MAX: i64 = i64::MAX;

const NO_TIERS: &str = "there is no remote storage in this release";
const ONE_REPLICA: &str = "there is one replica, and no replication that could be throttled";
const SYNCED: &str =
    "every record is synced before it is acknowledged (refused together with durability=os)";

const fn integer(min: i64, max: i64) -> Values {
    Values::Integer { min, max }
}

macro_rules! setting {
    ($name:literal, $server:literal, $kind:ident, $default:literal, $values:expr, $holds:expr, $doc:literal) => {
        Setting {
            name: $name,
            server_name: $server,
            kind: Kind::$kind,
            default: $default,
            values: $values,
            holds: $holds,
            doc: $doc,
        }
    };
}

/// Every topic setting, ordered by name.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    setting!("cleanup.policy", "log.cleanup.policy", List, "delete", Values::ListOf(&["compact", "delete", "thin"]), Enforced,
        "What removes old records. `delete` is retention by time and size; `compact` keeps the latest record of each key, and \
         takes no record without a key; `thin` keeps fewer records as they age, by thin.tiers, and is not one of Kafka's. \
         Several may be named, separated by commas; with an empty list nothing is removed."),
    setting!("compression.gzip.level", "compression.gzip.level", Int, "-1", integer(-1, 9), Enforced,
        "The level when compression.type is gzip: 1 to 9, or -1 for the codec's own."),
    setting!("compression.lz4.level", "compression.lz4.level", Int, "9", integer(1, 17),
        Refused("the lz4 encoder here has one level only"),
        "The level when compression.type is lz4."),
    setting!("compression.type", "compression.type", String, "producer",
        Values::OneOf(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]), Enforced,
        "How batches are stored: as the producer sent them, or recompressed."),
    setting!("compression.zstd.level", "compression.zstd.level", Int, "3", integer(-131_072, 22), Enforced,
        "The level when compression.type is zstd."),
    setting!("delete.retention.ms", "log.cleaner.delete.retention.ms", Long, "86400000", integer(0, LONG_MAX), Enforced,
        "How long a compacted topic keeps a tombstone, a record without a value, at least: counted from the first compaction \
         after which nothing older of its key is left, so that a reader who starts over sees it in this time."),
    setting!("durability", "", String, "fsync", Values::OneOf(&["fsync", "os"]), Enforced,
        "What an acknowledgement promises: `fsync`, the record is on the disk; `os`, the operating system has it, and a power \
         cut may lose it. Not a Kafka setting."),
    setting!("errors.deadletterqueue.group.enable", "", Boolean, "false", Values::Boolean, Enforced,
        "Whether groups may name the topic as theirs for dead letters, by errors.deadletterqueue.topic.name. Kafka's, from 4.4 on."),
    setting!("file.delete.delay.ms", "log.segment.delete.delay.ms", Long, "60000", integer(0, LONG_MAX),
        HoldsTrivially("a reader keeps the removed files that it is reading, so that nothing has to wait"),
        "How long a removed file stays on the disk."),
    setting!("flush.messages", "log.flush.interval.messages", Long, "9223372036854775807", integer(1, LONG_MAX),
        HoldsTrivially(SYNCED),
        "After how many records the log is flushed."),
    setting!("flush.ms", "log.flush.interval.ms", Long, "9223372036854775807", integer(0, LONG_MAX),
        HoldsTrivially(SYNCED),
        "After how long a record is flushed."),
    setting!("follower.replication.throttled.replicas", "", List, "", Values::Replicas,
        HoldsTrivially(ONE_REPLICA),
        "Which replicas are throttled as followers."),
    setting!("index.interval.bytes", "log.index.interval.bytes", Int, "4096", integer(0, INT_MAX),
        HoldsTrivially("the index has an entry per about 16 KiB, and lookups are exact at any interval"),
        "How far apart the index's entries are."),
    setting!("key.index.enable", "", Boolean, "true", Values::Boolean, Enforced,
        "Whether a sealed segment of 256 KiB or more, and an active one from 1 MiB on, gets an index of its keys, so that a replay \
         of one key reads a small part of it. It is made in the background, goes on as the segment grows, and takes an 80th of \
         the segment at most; with false those that are there are removed. Not a Kafka setting."),
    setting!("leader.replication.throttled.replicas", "", List, "", Values::Replicas,
        HoldsTrivially(ONE_REPLICA),
        "Which replicas are throttled as leaders."),
    setting!("local.retention.bytes", "log.local.retention.bytes", Long, "-2", integer(-2, LONG_MAX), Refused(NO_TIERS),
        "How many bytes of a tiered topic stay on the local disk."),
    setting!("local.retention.ms", "log.local.retention.ms", Long, "-2", integer(-2, LONG_MAX), Refused(NO_TIERS),
        "How long records of a tiered topic stay on the local disk."),
    setting!("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms", Long, "9223372036854775807",
        integer(1, LONG_MAX), Enforced,
        "After how long a record of a compacted topic is due for compaction, whatever the dirty ratio: its segment is sealed \
         for it. Not less than min.compaction.lag.ms."),
    setting!("max.message.bytes", "message.max.bytes", Int, "1048588", integer(0, INT_MAX), Enforced,
        "The largest batch that is accepted, as it comes (compressed)."),
    setting!("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms", Long, "9223372036854775807",
        integer(0, LONG_MAX), Enforced,
        "How far a producer's timestamp may lie after the broker's clock. Kafka's default is an hour; here it is any distance, \
         because retention follows the broker's clock and a device with a wrong one should not lose its readings."),
    setting!("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms", Long, "9223372036854775807",
        integer(0, LONG_MAX), Enforced,
        "How far a producer's timestamp may lie before the broker's clock."),
    setting!("message.timestamp.type", "log.message.timestamp.type", String, "CreateTime",
        Values::OneOf(&["CreateTime", "LogAppendTime"]), Enforced,
        "Whose clock stamps the records: the producer's or the broker's."),
    setting!("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio", Double, "0.5",
        Values::Real { min: 0.0, max: 1.0 }, Enforced,
        "Which part of a compacted topic's bytes must be dirty, appended since the last compaction, before it is compacted."),
    setting!("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms", Long, "0", integer(0, LONG_MAX),
        Enforced,
        "How long a record of a compacted topic stays uncompacted at least."),
    setting!("min.insync.replicas", "min.insync.replicas", Int, "1", integer(1, INT_MAX), Enforced,
        "How many replicas must have a record before acks=all is answered. There is one: with more, such a produce is refused."),
    setting!("preallocate", "log.preallocate", Boolean, "false", Values::Boolean,
        HoldsTrivially("appends go to write-ahead files that are filled beforehand, for every topic"),
        "Whether files are allocated before they are written."),
    setting!("remote.log.copy.disable", "", Boolean, "false", Values::Boolean, Refused(NO_TIERS),
        "Whether a tiered topic stops copying to remote storage."),
    setting!("remote.log.delete.on.disable", "", Boolean, "false", Values::Boolean, Refused(NO_TIERS),
        "Whether remote data is deleted when tiering is switched off."),
    setting!("remote.storage.enable", "", Boolean, "false", Values::Boolean, Refused(NO_TIERS),
        "Whether the topic is tiered to remote storage."),
    setting!("retention.bytes", "log.retention.bytes", Long, "-1", integer(-1, LONG_MAX), Enforced,
        "How many bytes a partition keeps; -1 is any number."),
    setting!("retention.hold.bytes", "", Long, "-1", integer(-1, LONG_MAX), Enforced,
        "What retention.hold.groups keeps of a partition at most: its newest so many bytes, whole segments; -1 is any number. \
         Not a Kafka setting."),
    setting!("retention.hold.groups", "", List, "", Values::Names, Enforced,
        "Consumer groups, separated by commas: retention keeps what one of them has not committed, as far as \
         retention.hold.bytes and retention.hold.ms allow. What is removed all the same is written to the loss ledger. \
         store.bytes.max goes before. Not a Kafka setting."),
    setting!("retention.hold.ms", "", Long, "2592000000", integer(-1, LONG_MAX), Enforced,
        "How long after its append retention.hold.groups keeps a record at most; -1 is for ever. Not a Kafka setting."),
    setting!("retention.ms", "log.retention.ms", Long, "604800000", integer(-1, LONG_MAX), Enforced,
        "How long records are kept after their append, in the store's own time, which no jump of a clock changes; -1 is for ever."),
    setting!("segment.bytes", "log.segment.bytes", Int, "1073741824", integer(4096, INT_MAX), Enforced,
        "A segment is sealed when it reaches this size. Kafka's least is 1 MiB, here it is 4 KiB."),
    setting!("segment.index.bytes", "log.index.size.max.bytes", Int, "10485760", integer(4, INT_MAX),
        HoldsTrivially("an index is as large as its segment needs, and nothing is allocated for it beforehand"),
        "The largest index file."),
    setting!("segment.jitter.ms", "log.roll.jitter.ms", Long, "0", integer(0, LONG_MAX),
        HoldsTrivially("one settler seals segments one after the other, so that no herd has to be spread out"),
        "By how much at random a segment is sealed earlier."),
    setting!("segment.ms", "log.roll.ms", Long, "604800000", integer(1, LONG_MAX), Enforced,
        "A segment is sealed at this age."),
    setting!("thin.tiers", "", String, "", Values::ThinTiers, Enforced,
        "Which records a topic with the policy `thin` keeps as they age: tiers of an age, a window and what is kept of each key in \
         each window, such as `7d:1m:first+last+min(json/temp)+max(json/temp); 90d:1h:min(json/temp)+max(json/temp)`. See \
         thinning.md. Not a Kafka setting."),
    setting!("unclean.leader.election.enable", "unclean.leader.election.enable", Boolean, "false", Values::Boolean,
        HoldsTrivially("there is one replica, so that no election can be unclean"),
        "Whether a replica that lags may become the leader."),
];
