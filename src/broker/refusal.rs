//! What the broker refuses, in its own words: a variant for each thing that a client does differently, with the facts.
//! Callers: every operation of `broker`; each front maps it to its protocol's codes, and where its clients use other words
//! to its own text, in one place.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use model::batch::{BatchError, Codec};
use model::topic_config::ConfigError;
use model::{InvalidName, Offset, PartitionId, ProducerId, Timestamp, TopicName};
use storage::{AppendError, Bounds, ReadError, SequenceError, StorageFailed};

use super::access::{Principal, ResourceKind, Right};
use super::node::NodeId;
use super::server_settings::InvalidServerSetting;
use super::state_log::StateLogError;

/// Why a request, or one part of it, was refused. The text names the facts and may be shown to the client.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// The caller has no right to it.
    #[error("{principal} may not {right} {resource}")]
    Denied {
        /// Who asks.
        principal: Principal,
        /// What the operation does.
        right: Right,
        /// To what.
        resource: ResourceKind,
    },
    /// No topic of this name, or no such partition of it.
    #[error("this broker does not hold this topic-partition")]
    UnknownTopicOrPartition,
    /// No topic with this id.
    #[error("no topic has this id")]
    UnknownTopicId,
    /// Not a name that a topic can have.
    #[error("invalid topic name: {0}")]
    InvalidTopicName(#[from] InvalidName),
    /// A name that differs from another topic's by dots and underscores only, which metrics do not tell apart.
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    CollidingTopicName {
        /// The name that was asked for.
        name: TopicName,
        /// The topic that exists.
        existing: TopicName,
    },
    /// What a client may not do with a topic in which the broker keeps its own state.
    #[error("topic '{name}' is internal: {operation}")]
    InternalTopic {
        /// The topic.
        name: TopicName,
        /// What is not allowed.
        operation: InternalOperation,
    },
    /// The name of a log that is no topic: no client gets a topic of this name.
    #[error("topic '{name}' cannot be created: it is the name of a log that is no topic")]
    ReservedTopicName {
        /// The name that was asked for.
        name: TopicName,
    },
    /// A topic of this name exists.
    #[error("topic '{name}' already exists")]
    TopicExists {
        /// The name that was asked for.
        name: TopicName,
    },
    /// One request names the topic twice, and may mean another.
    #[error("topic '{name}' is named twice")]
    TopicNamedTwice {
        /// The topic.
        name: TopicName,
    },
    /// A partition count that cannot be had.
    #[error(transparent)]
    InvalidPartitions(#[from] InvalidPartitions),
    /// More partitions than may be.
    #[error(transparent)]
    TooManyPartitions(#[from] TooManyPartitions),
    /// A replication factor that one node cannot give.
    #[error(transparent)]
    InvalidReplicationFactor(#[from] InvalidReplicationFactor),
    /// A manual replica assignment that one node cannot give.
    #[error(transparent)]
    InvalidReplicaAssignment(#[from] InvalidAssignment),
    /// A setting that is unknown, out of its range, or not supported.
    #[error(transparent)]
    InvalidSetting(#[from] InvalidSetting),
    /// One request alters a setting twice.
    #[error("setting {name} is altered twice")]
    SettingAlteredTwice {
        /// The setting.
        name: String,
    },
    /// A topic from which only compaction removes records.
    #[error(
        "records of partition {topic}-{partition} can not be deleted due to the configured policy: cleanup.policy=compact"
    )]
    DeletesForbidden {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
    },
    /// Records that somebody holds.
    #[error("topic {topic}: {hold} keeps its records; end the hold first")]
    Held {
        /// The topic.
        topic: TopicName,
        /// The hold, in words.
        hold: String,
    },
    /// A setting that is read at the start only.
    #[error("cannot update {name} dynamically: it needs a restart")]
    SettingNeedsRestart {
        /// The setting.
        name: String,
    },
    /// Outside what the partition holds.
    #[error("offset {} is outside {start_offset}..={high_watermark}", shown(*offset))]
    OffsetOutOfRange {
        /// The offset that was asked for; None for what is no record's offset.
        offset: Option<Offset>,
        /// The first offset kept.
        start_offset: Offset,
        /// The end of what readers may see.
        high_watermark: Offset,
    },
    /// The client knows an older leader epoch than ours.
    #[error("the leader epoch of the request is older than this broker's")]
    FencedLeaderEpoch,
    /// The client knows a newer leader epoch than ours.
    #[error("the leader epoch of the request is newer than this broker's")]
    UnknownLeaderEpoch,
    /// The bytes are not the batch that was built: length, magic, checksum or counts are wrong.
    #[error("corrupt batch: {0}")]
    CorruptBatch(BatchError),
    /// A batch above `max.message.bytes`.
    #[error("a batch of {bytes} bytes is larger than max.message.bytes={bytes_max}")]
    BatchTooLarge {
        /// The batch's size, header included.
        bytes: u64,
        /// The topic's bound.
        bytes_max: u64,
    },
    /// A well-formed batch that a producer must not send.
    #[error(transparent)]
    InvalidRecord(#[from] InvalidRecord),
    /// A record's timestamp is not what the topic takes.
    #[error(transparent)]
    InvalidTimestamp(#[from] InvalidTimestamp),
    /// A batch that somebody cannot decompress.
    #[error(transparent)]
    UnsupportedCompression(#[from] UnsupportedCompression),
    /// `min.insync.replicas` asks for more copies than one node keeps.
    #[error("min.insync.replicas={min_insync_replicas} cannot be met: one replica is in sync")]
    NotEnoughReplicas {
        /// The topic's setting.
        min_insync_replicas: u32,
    },
    /// An idempotent producer's batch does not follow its last one.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// A new idempotent producer, where as many are remembered as may be.
    #[error(
        "{count} idempotent producers are remembered, as many as {setting} allows, and none of them has been idle for {idle_minutes} minutes"
    )]
    TooManyProducers {
        /// How many are remembered.
        count: u64,
        /// The bound that was reached.
        setting: &'static str,
        /// Those that are idle for so long are forgotten for new ones.
        idle_minutes: u64,
    },
    /// So many producer ids were given to a principal that there are no more for it now.
    #[error(
        "{owner} was given as many producer ids as one may have that are in use, or were not used within a day"
    )]
    TooManyProducerIds {
        /// Who.
        owner: Arc<str>,
    },
    /// A producer that a partition does not remember has an id that was given to another principal.
    #[error("producer id {id} was given to another principal")]
    ForeignProducerId {
        /// The id.
        id: ProducerId,
    },
    /// More than a client may use, by a quota.
    #[error("the quota {quota} is used up for {} ms", wait.as_millis())]
    QuotaExceeded {
        /// Which.
        quota: &'static str,
        /// How long that is so.
        wait: Duration,
    },
    /// Transactions are not offered.
    #[error(
        "this broker does not support transactions: use a producer without a transactional id (an idempotent one is fine)"
    )]
    TransactionsUnsupported,
    /// The disk is full; appends resume by themselves when there is room.
    #[error("the disk is full")]
    DiskFull,
    /// The storage failed or stopped.
    #[error("storage: {0}")]
    Storage(#[from] StorageFault),
    /// A range of this partition is damaged on disk and was not served.
    #[error("damaged on disk: offsets {}..{} cannot be read", range.start, range.end)]
    Damaged {
        /// The records that cannot be read.
        range: Range<Offset>,
    },
}

/// What clients may not do with an internal topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InternalOperation {
    /// Create it.
    #[error("it cannot be created")]
    Create,
    /// Write records to it.
    #[error("clients cannot write to it")]
    Write,
    /// Delete records of it.
    #[error("its records cannot be deleted")]
    DeleteRecords,
}

/// Why a topic cannot have so many partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPartitions {
    /// None at all.
    #[error("the number of partitions must be larger than 0")]
    None,
    /// To grow is to have more than before.
    #[error("the topic has {before} partitions; {asked} is not more than that")]
    NotMore {
        /// How many it has.
        before: u32,
        /// How many it should have.
        asked: u32,
    },
}

/// Which bound on partitions is reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooManyPartitions {
    /// That of one request.
    #[error(
        "the request asks for {asked} partitions, and one request may create {count_max} at most: nothing of it was done"
    )]
    OfRequest {
        /// How many it asks for in all.
        asked: u64,
        /// The bound.
        count_max: u64,
    },
    /// That of one principal.
    #[error(
        "{asked} more partitions: {owner} has {count} already, and partitions.per.principal.max allows {count_max}"
    )]
    OfPrincipal {
        /// How many it asks for.
        asked: u32,
        /// Whose account it would be.
        owner: Arc<str>,
        /// What is on it.
        count: u64,
        /// The bound.
        count_max: u64,
    },
    /// That of the broker.
    #[error(
        "{asked} more partitions: {left} are left of the {count_max} that partitions.max allows"
    )]
    OfBroker {
        /// How many should be added.
        asked: u32,
        /// How many may be.
        left: u64,
        /// The bound.
        count_max: u64,
    },
}

/// Why a partition cannot have so many replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReplicationFactor {
    /// None at all.
    #[error("replication factor must be larger than 0")]
    None,
    /// More than there are brokers.
    #[error("a replication factor of {replicas} cannot be reached: there is 1 broker")]
    Unreachable {
        /// How many were asked for.
        replicas: u16,
    },
}

/// Why partitions cannot be where they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAssignment {
    /// The partitions are not numbered from 0 without gaps.
    #[error("partitions must be a consecutive 0-based integer sequence")]
    NotConsecutive,
    /// Not one assignment for each new partition.
    #[error("{assigned} assignments for {added} new partitions")]
    Count {
        /// How many assignments there are.
        assigned: usize,
        /// How many partitions are new.
        added: u32,
    },
    /// Replicas on other brokers, or on none.
    #[error("replicas {replicas:?}: broker {only} is the only one")]
    NotHere {
        /// Where they should be.
        replicas: Vec<NodeId>,
        /// This broker.
        only: NodeId,
    },
}

/// Why a setting is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSetting {
    /// A new topic's setting without a value.
    #[error("null value not supported for topic configs: {name}")]
    NoValue {
        /// The setting.
        name: String,
    },
    /// A topic setting, or a default of one, that is unknown or has a value that it cannot have.
    #[error(transparent)]
    Value(#[from] ConfigError),
    /// A setting of the server's own with a value that it cannot have.
    #[error(transparent)]
    ServerValue(#[from] InvalidServerSetting),
    /// No broker setting of this name.
    #[error("unknown broker setting {name}")]
    UnknownOfBroker {
        /// The setting.
        name: String,
    },
    /// No setting of this name.
    #[error("unknown setting {name}")]
    Unknown {
        /// The setting.
        name: String,
    },
    /// To be appended to or subtracted from, and not a list.
    #[error("cannot append to or subtract from {name}: its type is not list")]
    NotList {
        /// The setting.
        name: String,
    },
    /// More settings of one resource than are kept.
    #[error("the settings have {bytes} bytes, and topic.settings.max.bytes allows {bytes_max}")]
    TooLong {
        /// Names and values.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// More settings of one principal's topics than are kept.
    #[error(
        "the settings of the topics of {owner} would have {bytes} bytes, and topic.settings.bytes.per.principal.max allows {bytes_max}"
    )]
    TooMuchOfPrincipal {
        /// Whose account it would be.
        owner: Arc<str>,
        /// Names and values.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// More settings than one record of the metadata takes.
    #[error("the settings take {bytes} bytes; the store takes {bytes_max} at once")]
    TooLongToStore {
        /// The record.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// Batches that the store could not keep.
    #[error("{name}={bytes}: batches are {bytes_max} bytes at most, half of wal.file.bytes")]
    BatchesTooLarge {
        /// The setting.
        name: &'static str,
        /// Its value.
        bytes: u64,
        /// The store's bound.
        bytes_max: u64,
    },
    /// A default under which a topic's own settings would contradict each other.
    #[error("topic '{topic}' could not keep its settings: {error}")]
    TopicContradicts {
        /// The topic.
        topic: TopicName,
        /// What would be wrong with its settings.
        error: ConfigError,
    },
    /// The log's level.
    #[error("the log's level is set at the start, by ALLUVIUM_LOG")]
    LogLevel,
    /// A group's setting with a value that it cannot have.
    #[error(transparent)]
    OfGroup(#[from] super::share::InvalidGroupSetting),
    /// The group cannot have settings.
    #[error(transparent)]
    Group(super::share::ShareError),
}

/// Why a producer must not send this batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    /// None, or several.
    #[error("a partition needs exactly one record batch")]
    NotOneBatch,
    /// An older format.
    #[error("records must be of message format 2")]
    OldFormat,
    /// Offsets that are the broker's to give.
    #[error("a producer's batch has base offset 0")]
    BaseOffset,
    /// Counts that contradict each other.
    #[error("the batch's record count does not fit its last offset delta")]
    Count,
    /// A batch of the broker's own.
    #[error("clients cannot write control records")]
    Control,
    /// Records without a key, in a compacted topic; which ones is told beside.
    #[error("{count} of the records have no key, and the topic is compacted")]
    NoKey {
        /// How many.
        count: usize,
    },
    /// Records that cannot be read, or counts that no batch can have.
    #[error(transparent)]
    Malformed(BatchError),
    /// The records contradict the header.
    #[error("the header's largest timestamp is {header}, the records' is {records}")]
    MaxTimestamp {
        /// What the header says.
        header: Timestamp,
        /// What the records say.
        records: Timestamp,
    },
}

/// Why a topic does not take these timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTimestamp {
    /// A kind of time that is the broker's to give.
    #[error("a producer cannot set log append time")]
    LogAppendTime,
    /// Too far from now; which records are at fault is told beside.
    #[error(
        "timestamps are outside what message.timestamp.before.max.ms and message.timestamp.after.max.ms take"
    )]
    Outside,
}

/// Who cannot decompress a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedCompression {
    /// Nobody.
    #[error(transparent)]
    Unknown(BatchError),
    /// Clients of the producer's version of its protocol.
    #[error("{codec} is not known to this version of the protocol")]
    NewerThanClient {
        /// The codec of the batch.
        codec: Codec,
    },
}

/// How the store failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageFault {
    /// An append.
    #[error(transparent)]
    Append(AppendError),
    /// What was appended does not become durable.
    #[error(transparent)]
    Sync(#[from] StorageFailed),
    /// A read.
    #[error(transparent)]
    Read(Arc<ReadError>),
    /// The broker's own records.
    #[error(transparent)]
    StateLog(Arc<StateLogError>),
}

fn shown(offset: Option<Offset>) -> String {
    offset.map_or_else(|| "(none)".to_owned(), |offset| offset.to_string())
}

/// What is refused to who asks for an offset that the log does not have.
pub(super) fn out_of_range(offset: Option<Offset>, bounds: &Bounds) -> Refusal {
    Refusal::OffsetOutOfRange {
        offset,
        start_offset: bounds.start,
        high_watermark: bounds.durable_end,
    }
}

/// What is refused because of a read that failed.
pub(super) fn read_refusal(error: ReadError) -> Refusal {
    match error {
        ReadError::OutOfRange { from, bounds } => out_of_range(Some(from), &bounds),
        ReadError::Damaged { range } => Refusal::Damaged { range },
        ReadError::Io { .. } => {
            tracing::error!(%error, "a read failed");
            StorageFault::Read(Arc::new(error)).into()
        }
        ReadError::Deleted => Refusal::UnknownTopicOrPartition,
    }
}

/// What is refused because of an append that failed.
pub(super) fn append_refusal(error: AppendError) -> Refusal {
    match error {
        AppendError::DiskFull => Refusal::DiskFull,
        AppendError::TooLarge { bytes, bytes_max } => Refusal::BatchTooLarge { bytes, bytes_max },
        AppendError::Sequence(error) => error.into(),
        AppendError::TooManyProducers {
            count,
            setting,
            idle_minutes,
        } => Refusal::TooManyProducers {
            count,
            setting,
            idle_minutes,
        },
        AppendError::Deleted => Refusal::UnknownTopicOrPartition,
        AppendError::NotAdmitted { .. }
        | AppendError::OffsetsExhausted
        | AppendError::Failed(_)
        | AppendError::Closed => StorageFault::Append(error).into(),
    }
}

/// What is refused because a change of the broker's own state failed.
pub(super) fn state_refusal(error: StateLogError) -> Refusal {
    match error {
        // Nothing in a record of the metadata is long but the settings.
        StateLogError::Append(AppendError::TooLarge { bytes, bytes_max }) => {
            InvalidSetting::TooLongToStore { bytes, bytes_max }.into()
        }
        StateLogError::Append(error) => append_refusal(error),
        other => StorageFault::StateLog(Arc::new(other)).into(),
    }
}
