//! Kafka's error codes: the only file that names one. What the broker refuses and what clients misuse becomes a code
//! here, by exhaustive matches.
//! Callers: the handlers in `api`.
//! Source: Kafka's `Errors`, by way of `wire::ErrorCode`.

use wire::ErrorCode;

use crate::broker::Refusal;
use crate::broker::groups::GroupError;

/// No error.
pub(crate) const NONE: i16 = 0;

/// Mistakes that only exist in this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misuse {
    InvalidRequest,
    UnsupportedVersion,
    IllegalSaslState,
    FetchSessionIdNotFound,
    MismatchedEndpointType,
    UnsupportedEndpointType,
    ElectionNotNeeded,
    NoReassignmentInProgress,
    LogDirNotFound,
}

/// The code of a misuse.
pub(crate) fn misuse(misuse: Misuse) -> i16 {
    match misuse {
        Misuse::InvalidRequest => ErrorCode::InvalidRequest,
        Misuse::UnsupportedVersion => ErrorCode::UnsupportedVersion,
        Misuse::IllegalSaslState => ErrorCode::IllegalSaslState,
        Misuse::FetchSessionIdNotFound => ErrorCode::FetchSessionIdNotFound,
        Misuse::MismatchedEndpointType => ErrorCode::MismatchedEndpointType,
        Misuse::UnsupportedEndpointType => ErrorCode::UnsupportedEndpointType,
        Misuse::ElectionNotNeeded => ErrorCode::ElectionNotNeeded,
        Misuse::NoReassignmentInProgress => ErrorCode::NoReassignmentInProgress,
        Misuse::LogDirNotFound => ErrorCode::LogDirNotFound,
    }
    .code()
}

/// The code of a refusal.
pub(crate) fn code(refusal: &Refusal) -> i16 {
    match refusal {
        Refusal::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
        Refusal::UnknownTopicId => ErrorCode::UnknownTopicId,
        Refusal::InvalidTopicName(_)
        | Refusal::CollidingTopicName { .. }
        | Refusal::InternalTopic { .. } => ErrorCode::InvalidTopicException,
        Refusal::TopicExists(_) => ErrorCode::TopicAlreadyExists,
        Refusal::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
        Refusal::InvalidReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
        Refusal::InvalidReplicaAssignment(_) => ErrorCode::InvalidReplicaAssignment,
        Refusal::InvalidConfig(_) => ErrorCode::InvalidConfig,
        Refusal::InvalidRequest(_) | Refusal::UnknownResource(_) => ErrorCode::InvalidRequest,
        Refusal::PolicyViolation(_) => ErrorCode::PolicyViolation,
        Refusal::UnsupportedVersion(_) => ErrorCode::UnsupportedVersion,
        Refusal::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        Refusal::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
        Refusal::UnknownLeaderEpoch => ErrorCode::UnknownLeaderEpoch,
        Refusal::CorruptMessage(_) | Refusal::Damaged(_) => ErrorCode::CorruptMessage,
        Refusal::MessageTooLarge { .. } => ErrorCode::MessageTooLarge,
        Refusal::InvalidRecord(_) => ErrorCode::InvalidRecord,
        Refusal::InvalidTimestamp(_) => ErrorCode::InvalidTimestamp,
        Refusal::UnsupportedCompression(_) => ErrorCode::UnsupportedCompressionType,
        Refusal::InvalidRequiredAcks(_) => ErrorCode::InvalidRequiredAcks,
        Refusal::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        Refusal::OutOfOrderSequence(_) => ErrorCode::OutOfOrderSequenceNumber,
        Refusal::InvalidProducerEpoch(_) => ErrorCode::InvalidProducerEpoch,
        // The one code that ends a transaction for every client: they take it for final wherever they meet it, where
        // COORDINATOR_NOT_AVAILABLE makes them try for minutes, and librdkafka retries UNSUPPORTED_VERSION and
        // INVALID_REQUEST too.
        Refusal::TransactionsUnsupported => ErrorCode::TransactionalIdAuthorizationFailed,
        // Clients retry it: appends resume by themselves when there is room again.
        Refusal::DiskFull | Refusal::Storage(_) => ErrorCode::KafkaStorageError,
    }
    .code()
}

/// The code of a group's refusal.
pub(crate) fn group(error: GroupError) -> i16 {
    match error {
        GroupError::NotAvailable => ErrorCode::CoordinatorNotAvailable,
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::NotFound => ErrorCode::GroupIdNotFound,
        GroupError::NonEmpty => ErrorCode::NonEmptyGroup,
        GroupError::UnknownMember => ErrorCode::UnknownMemberId,
        GroupError::FencedInstance => ErrorCode::FencedInstanceId,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::MaxSizeReached => ErrorCode::GroupMaxSizeReached,
        // Final for a commit in every client; what is retried would be refused again.
        GroupError::OffsetsMaxReached => ErrorCode::InvalidCommitOffsetSize,
        GroupError::SubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::MetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
    }
    .code()
}
