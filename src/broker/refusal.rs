//! What the broker refuses, in its own words; a variant for each thing that a client does differently.
//! Callers: every operation of `broker`; each front maps it to its protocol's codes in one place.

use model::TopicName;

/// Why a request, or one part of it, was refused. The text names the facts and may be shown to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No topic of this name, or no such partition of it.
    #[error("this broker does not hold this topic-partition")]
    UnknownTopicOrPartition,
    /// No topic with this id.
    #[error("no topic has this id")]
    UnknownTopicId,
    /// Not a name that a topic can have.
    #[error("invalid topic name: {0}")]
    InvalidTopicName(String),
    /// A name that differs from another topic's by dots and underscores only, which metrics do not tell apart.
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    CollidingTopicName {
        /// The name that was asked for.
        name: String,
        /// The topic that exists.
        existing: TopicName,
    },
    /// What a client may not do with a name that Kafka keeps for itself.
    #[error("topic '{name}' is internal: {reason}")]
    InternalTopic {
        /// The topic.
        name: String,
        /// What is not allowed, and why.
        reason: &'static str,
    },
    /// A topic of this name exists.
    #[error("topic '{0}' already exists")]
    TopicExists(String),
    /// A partition count that cannot be had.
    #[error("{0}")]
    InvalidPartitions(String),
    /// A replication factor that one node cannot give.
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// A manual replica assignment that one node cannot give.
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    /// A setting that is unknown, out of its range, or not supported; the text says which and why.
    #[error("{0}")]
    InvalidConfig(String),
    /// The request contradicts itself.
    #[error("{0}")]
    InvalidRequest(String),
    /// Understood, and against a rule of this broker.
    #[error("{0}")]
    PolicyViolation(String),
    /// Asks for something that this version of the request cannot ask for.
    #[error("{0}")]
    UnsupportedVersion(String),
    /// Outside what the partition holds.
    #[error("offset {offset} is outside {start_offset}..={high_watermark}")]
    OffsetOutOfRange {
        /// The offset that was asked for, as it was on the wire.
        offset: i64,
        /// The first offset kept.
        start_offset: u64,
        /// The end of what readers may see.
        high_watermark: u64,
    },
    /// The client knows an older leader epoch than ours.
    #[error("the leader epoch of the request is older than this broker's")]
    FencedLeaderEpoch,
    /// The client knows a newer leader epoch than ours.
    #[error("the leader epoch of the request is newer than this broker's")]
    UnknownLeaderEpoch,
    /// The bytes are not the batch that was built: length, magic, checksum or counts are wrong.
    #[error("corrupt batch: {0}")]
    CorruptMessage(String),
    /// A batch above `max.message.bytes`.
    #[error("a batch of {bytes} bytes is larger than max.message.bytes={bytes_max}")]
    MessageTooLarge {
        /// The batch's size, header included.
        bytes: u64,
        /// The topic's bound.
        bytes_max: u64,
    },
    /// A well-formed batch that a producer must not send.
    #[error("{0}")]
    InvalidRecord(String),
    /// A record's timestamp is outside what the topic takes.
    #[error("{0}")]
    InvalidTimestamp(String),
    /// This codec cannot be had with this version of the request.
    #[error("{0}")]
    UnsupportedCompression(String),
    /// Acks other than none, one and all.
    #[error("acks={0}: must be -1, 0 or 1")]
    InvalidRequiredAcks(i16),
    /// `min.insync.replicas` asks for more copies than one node keeps.
    #[error("min.insync.replicas={min_insync_replicas} cannot be met: one replica is in sync")]
    NotEnoughReplicas {
        /// The topic's setting.
        min_insync_replicas: u32,
    },
    /// A producer's sequence number skips records.
    #[error("{0}")]
    OutOfOrderSequence(String),
    /// A producer that was superseded.
    #[error("{0}")]
    InvalidProducerEpoch(String),
    /// Transactions are not offered.
    #[error(
        "this broker does not support transactions: use a producer without a transactional id (an idempotent one is fine)"
    )]
    TransactionsUnsupported,
    /// The disk is full; appends resume by themselves when there is room.
    #[error("the disk is full")]
    DiskFull,
    /// The storage failed or stopped; the text says how.
    #[error("storage: {0}")]
    Storage(String),
    /// A range of this partition is damaged on disk and was not served.
    #[error("damaged on disk: {0}")]
    Damaged(String),
    /// A resource of a kind that has no settings here.
    #[error("{0}")]
    UnknownResource(String),
}
