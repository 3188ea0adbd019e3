//! Kafka's error codes: the only file that names one. What the broker refuses and what clients misuse becomes a code
//! here, by exhaustive matches, and a text in the words of Kafka's protocol where they are not the broker's.
//! Callers: the handlers in `api`.
//! Source: Kafka's `Errors`, by way of `wire::ErrorCode`.

use wire::ErrorCode;

use super::login::Refused;
use crate::broker::access::{AclError, ResourceKind};
use crate::broker::credentials::CredentialError;
use crate::broker::groups::GroupError;
use crate::broker::quotas::QuotaError;
use crate::broker::share::{ShareError, TakeError};
use crate::broker::{
    InvalidPartitions, InvalidReplicationFactor, Refusal, SequenceError, UnsupportedCompression,
};

/// No error.
pub(crate) const NONE: i16 = 0;

/// Why a request, or one part of it, is answered with an error.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    /// The broker does not do it.
    #[error("{}", text(.0))]
    Refused(#[from] Refusal),
    /// The access control lists do not take it.
    #[error(transparent)]
    Acl(#[from] AclError),
    /// It says nothing that could be done.
    #[error(transparent)]
    Misused(#[from] Misuse),
    /// The quotas are not changed.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// The share group does not do it.
    #[error(transparent)]
    Share(#[from] ShareError),
}

impl Failure {
    /// Its code.
    pub(crate) fn code(&self) -> i16 {
        match self {
            Failure::Refused(refusal) => code(refusal),
            Failure::Acl(error) => acl(error),
            Failure::Misused(misuse) => misuse.code(),
            Failure::Quota(error) => quota(error),
            Failure::Share(error) => share(*error),
        }
    }
}

/// Mistakes that only exist in this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misuse {
    #[error("the client's name or version is not one (KIP-511)")]
    ClientSoftware,
    #[error("this version is not offered")]
    Version,
    #[error("the topic is named twice")]
    TopicNamedTwice,
    #[error("the partition is named twice")]
    PartitionNamedTwice,
    #[error("the resource is named twice")]
    ResourceNamedTwice,
    #[error("a topic without name and id")]
    TopicUnnamed,
    #[error("a topic is deleted by name or by id, not by both")]
    DeletedByNameAndId,
    #[error("neither a name nor an id")]
    DeletedByNothing,
    #[error("counts and assignments cannot both be given: set the counts to -1")]
    CountsAndAssignments,
    #[error("setting {name} has no value")]
    SettingWithoutValue { name: String },
    #[error("setting {name} is altered twice")]
    SettingAlteredTwice { name: String },
    #[error("setting {name}: unknown operation {operation}")]
    UnknownOperation { name: String, operation: i8 },
    #[error("broker '{name}' is not this one, which is {this}")]
    OtherBroker { name: String, this: i32 },
    #[error("the name of a group must not be empty")]
    GroupUnnamed,
    #[error("resources of type {kind} have no settings here")]
    ResourceWithoutSettings { kind: i8 },
    #[error("no such type of resource")]
    UnknownResourceType,
    #[error("no such type of election")]
    UnknownElectionType,
    #[error("there are no coordinators of type {kind}")]
    UnknownCoordinatorType { kind: i8 },
    #[error("a producer id and its epoch come together")]
    ProducerIdWithoutEpoch,
    #[error("an empty transactional id")]
    EmptyTransactionalId,
    #[error("timestamp {timestamp} has no meaning in version {version}")]
    UnknownTimestamp { timestamp: i64, version: i16 },
    #[error("offset {offset} is no record's")]
    NegativeOffset { offset: i64 },
    #[error("acks={0}: must be -1, 0 or 1")]
    RequiredAcks(i16),
    #[error("the answer would be larger than {bytes_max} bytes: ask for less at a time")]
    AnswerTooLarge { bytes_max: usize },
    #[error("there is no fetch session with this id")]
    FetchSessionIdNotFound,
    #[error("the fetch session expects another epoch")]
    InvalidFetchSessionEpoch,
    #[error("the fetch session names its topics the other way: by id or by name")]
    FetchSessionTopicId,
    #[error("this is a broker's endpoint, not a controller's")]
    MismatchedEndpointType,
    #[error("there are endpoints of brokers (1) and of controllers (2)")]
    UnsupportedEndpointType,
    #[error("the only replica leads already")]
    ElectionNotNeeded,
    #[error("nothing is being moved")]
    NoReassignmentInProgress,
    #[error("{code} is no {field} of a rule")]
    UnknownAclWord { field: &'static str, code: i8 },
    #[error("there are no delegation tokens here")]
    NoDelegationTokens,
    #[error("{0}")]
    QuotaFilter(String),
    #[error("there are no quotas of type {0}")]
    UnknownQuotaEntity(String),
    #[error("there is no such directory of logs")]
    LogDirNotFound,
    #[error("Cannot describe SCRAM credentials for the same user twice in a single request")]
    UserNamedTwice,
    #[error("A user credential cannot be altered twice in the same request")]
    UserAlteredTwice,
    #[error("Attempt to describe a user credential that does not exist")]
    UserWithoutCredentials,
    #[error("Unknown SCRAM mechanism")]
    UnknownScramMechanism,
    #[error("{0}")]
    Share(&'static str),
    #[error("there is no such share session")]
    ShareSessionNotFound,
    #[error("the share session expects another epoch")]
    InvalidShareSessionEpoch,
    #[error("there are as many share sessions as there may be")]
    ShareSessionLimit,
}

impl Misuse {
    /// Its code.
    pub(crate) fn code(&self) -> i16 {
        match self {
            Misuse::ClientSoftware
            | Misuse::TopicNamedTwice
            | Misuse::PartitionNamedTwice
            | Misuse::ResourceNamedTwice
            | Misuse::DeletedByNameAndId
            | Misuse::DeletedByNothing
            | Misuse::CountsAndAssignments
            | Misuse::SettingWithoutValue { .. }
            | Misuse::SettingAlteredTwice { .. }
            | Misuse::UnknownOperation { .. }
            | Misuse::OtherBroker { .. }
            | Misuse::GroupUnnamed
            | Misuse::ResourceWithoutSettings { .. }
            | Misuse::UnknownElectionType
            | Misuse::UnknownCoordinatorType { .. }
            | Misuse::ProducerIdWithoutEpoch
            | Misuse::UnknownAclWord { .. }
            | Misuse::NoDelegationTokens
            | Misuse::EmptyTransactionalId
            | Misuse::Share(_)
            | Misuse::QuotaFilter(_) => ErrorCode::InvalidRequest,
            Misuse::Version
            | Misuse::UnknownResourceType
            | Misuse::UnknownQuotaEntity(_)
            | Misuse::UnknownTimestamp { .. } => ErrorCode::UnsupportedVersion,
            Misuse::TopicUnnamed => ErrorCode::InvalidTopicException,
            Misuse::NegativeOffset { .. } => ErrorCode::OffsetOutOfRange,
            Misuse::RequiredAcks(_) => ErrorCode::InvalidRequiredAcks,
            Misuse::AnswerTooLarge { .. } => ErrorCode::PolicyViolation,
            Misuse::FetchSessionIdNotFound => ErrorCode::FetchSessionIdNotFound,
            Misuse::InvalidFetchSessionEpoch => ErrorCode::InvalidFetchSessionEpoch,
            Misuse::FetchSessionTopicId => ErrorCode::FetchSessionTopicIdError,
            Misuse::MismatchedEndpointType => ErrorCode::MismatchedEndpointType,
            Misuse::UnsupportedEndpointType => ErrorCode::UnsupportedEndpointType,
            Misuse::ElectionNotNeeded => ErrorCode::ElectionNotNeeded,
            Misuse::NoReassignmentInProgress => ErrorCode::NoReassignmentInProgress,
            Misuse::LogDirNotFound => ErrorCode::LogDirNotFound,
            Misuse::UserNamedTwice | Misuse::UserAlteredTwice => ErrorCode::DuplicateResource,
            Misuse::UserWithoutCredentials => ErrorCode::ResourceNotFound,
            Misuse::UnknownScramMechanism => ErrorCode::UnsupportedSaslMechanism,
            Misuse::ShareSessionNotFound => ErrorCode::ShareSessionNotFound,
            Misuse::InvalidShareSessionEpoch => ErrorCode::InvalidShareSessionEpoch,
            Misuse::ShareSessionLimit => ErrorCode::ShareSessionLimitReached,
        }
        .code()
    }
}

/// The code of a topic that the caller has no right to.
pub(crate) fn topic_denied() -> i16 {
    ErrorCode::TopicAuthorizationFailed.code()
}

/// The code of a refusal.
pub(crate) fn code(refusal: &Refusal) -> i16 {
    told(refusal).0.code()
}

/// What an answer says beside the code.
pub(crate) fn text(refusal: &Refusal) -> String {
    let (_, words) = told(refusal);
    words.map_or_else(|| refusal.to_string(), str::to_owned)
}

/// A refusal's code, and its text where the broker's own does not name what Kafka's clients know it by.
fn told(refusal: &Refusal) -> (ErrorCode, Option<&'static str>) {
    let code = match refusal {
        Refusal::Denied { resource, .. } => match resource {
            ResourceKind::Topic => ErrorCode::TopicAuthorizationFailed,
            ResourceKind::Group => ErrorCode::GroupAuthorizationFailed,
            ResourceKind::Cluster => ErrorCode::ClusterAuthorizationFailed,
        },
        Refusal::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
        Refusal::UnknownTopicId => ErrorCode::UnknownTopicId,
        Refusal::InvalidTopicName(_)
        | Refusal::CollidingTopicName { .. }
        | Refusal::InternalTopic { .. } => ErrorCode::InvalidTopicException,
        Refusal::ReservedTopicName { .. }
        | Refusal::TopicNamedTwice { .. }
        | Refusal::SettingAlteredTwice { .. }
        | Refusal::SettingNeedsRestart { .. } => ErrorCode::InvalidRequest,
        Refusal::TopicExists { .. } => ErrorCode::TopicAlreadyExists,
        Refusal::InvalidPartitions(InvalidPartitions::None) => {
            let words = "the number of partitions must be larger than 0, or -1 for the default";
            return (ErrorCode::InvalidPartitions, Some(words));
        }
        Refusal::InvalidPartitions(InvalidPartitions::NotMore { .. }) => {
            ErrorCode::InvalidPartitions
        }
        Refusal::TooManyPartitions(_)
        | Refusal::TooManyProducers { .. }
        | Refusal::TooManyProducerIds { .. } => ErrorCode::PolicyViolation,
        Refusal::ForeignProducerId { .. } => ErrorCode::InvalidProducerIdMapping,
        Refusal::InvalidReplicationFactor(InvalidReplicationFactor::None) => {
            let words = "replication factor must be larger than 0, or -1 for the default";
            return (ErrorCode::InvalidReplicationFactor, Some(words));
        }
        Refusal::InvalidReplicationFactor(InvalidReplicationFactor::Unreachable { .. }) => {
            ErrorCode::InvalidReplicationFactor
        }
        Refusal::InvalidReplicaAssignment(_) => ErrorCode::InvalidReplicaAssignment,
        Refusal::InvalidSetting(_) => ErrorCode::InvalidConfig,
        Refusal::DeletesForbidden { .. } | Refusal::Held { .. } => ErrorCode::PolicyViolation,
        Refusal::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        Refusal::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
        Refusal::UnknownLeaderEpoch => ErrorCode::UnknownLeaderEpoch,
        Refusal::CorruptBatch(_) | Refusal::Damaged { .. } => ErrorCode::CorruptMessage,
        Refusal::BatchTooLarge { .. } => ErrorCode::MessageTooLarge,
        Refusal::InvalidRecord(_) => ErrorCode::InvalidRecord,
        Refusal::InvalidTimestamp(_) => ErrorCode::InvalidTimestamp,
        Refusal::UnsupportedCompression(UnsupportedCompression::NewerThanClient { .. }) => {
            let words = "zstd needs Produce version 7 or later";
            return (ErrorCode::UnsupportedCompressionType, Some(words));
        }
        Refusal::UnsupportedCompression(UnsupportedCompression::Unknown(_)) => {
            ErrorCode::UnsupportedCompressionType
        }
        Refusal::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        Refusal::Sequence(error) => match error {
            SequenceError::OutOfOrder { .. } => ErrorCode::OutOfOrderSequenceNumber,
            SequenceError::OldEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            SequenceError::Missing { .. } => ErrorCode::InvalidRecord,
        },
        Refusal::QuotaExceeded { .. } => ErrorCode::ThrottlingQuotaExceeded,
        // The one code that ends a transaction for every client: they take it for final wherever they meet it, where
        // COORDINATOR_NOT_AVAILABLE makes them try for minutes, and librdkafka retries UNSUPPORTED_VERSION and
        // INVALID_REQUEST too.
        Refusal::TransactionsUnsupported => ErrorCode::TransactionalIdAuthorizationFailed,
        // Clients retry it: appends resume by themselves when there is room again.
        Refusal::DiskFull | Refusal::Storage(_) => ErrorCode::KafkaStorageError,
    };
    (code, None)
}

/// The code of what the access control lists do not take.
fn acl(error: &AclError) -> i16 {
    match error {
        AclError::Off => ErrorCode::SecurityDisabled.code(),
        AclError::Invalid(_) => ErrorCode::InvalidRequest.code(),
        AclError::TooMany => ErrorCode::PolicyViolation.code(),
        AclError::Refused(refusal) => code(refusal),
    }
}

/// The code of what does not become of quotas.
fn quota(error: &QuotaError) -> i16 {
    match error {
        QuotaError::Invalid(_) | QuotaError::QuotaNamedTwice(_) | QuotaError::EntityNamedTwice => {
            ErrorCode::InvalidRequest.code()
        }
        QuotaError::TooMany => ErrorCode::PolicyViolation.code(),
        QuotaError::Refused(refusal) => code(refusal),
    }
}

/// The code of a login's step that is refused.
pub(crate) fn login(refused: &Refused) -> i16 {
    match refused {
        Refused::State(_) => ErrorCode::IllegalSaslState,
        Refused::Mechanism(_) => ErrorCode::UnsupportedSaslMechanism,
        Refused::Failed(_) => ErrorCode::SaslAuthenticationFailed,
    }
    .code()
}

/// The code of a change of a credential that is refused.
pub(crate) fn credential(error: &CredentialError) -> i16 {
    match error {
        CredentialError::Refused(refusal) => return code(refusal),
        CredentialError::User(_)
        | CredentialError::Unacceptable(_)
        | CredentialError::About(_)
        | CredentialError::Expired => ErrorCode::UnacceptableCredential,
        CredentialError::TooMany => ErrorCode::PolicyViolation,
        CredentialError::Exists(_) => ErrorCode::DuplicateResource,
        CredentialError::Unknown | CredentialError::NoUser(_) | CredentialError::NoToken(_) => {
            ErrorCode::ResourceNotFound
        }
    }
    .code()
}

/// The code of a group's refusal.
pub(crate) fn group(error: GroupError) -> i16 {
    match error {
        GroupError::NotAvailable => ErrorCode::CoordinatorNotAvailable,
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::NotFound => ErrorCode::GroupIdNotFound,
        GroupError::NonEmpty { .. } => ErrorCode::NonEmptyGroup,
        GroupError::UnknownMember { .. } => ErrorCode::UnknownMemberId,
        GroupError::FencedInstance { .. } => ErrorCode::FencedInstanceId,
        GroupError::IllegalGeneration { .. } => ErrorCode::IllegalGeneration,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::InvalidSessionTimeout { .. } => ErrorCode::InvalidSessionTimeout,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::MaxSizeReached => ErrorCode::GroupMaxSizeReached,
        // Final for a commit in every client; what is retried would be refused again.
        GroupError::OffsetsMaxReached => ErrorCode::InvalidCommitOffsetSize,
        GroupError::SubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::MetadataTooLarge { .. } => ErrorCode::OffsetMetadataTooLarge,
    }
    .code()
}

/// The code of a share group's refusal.
pub(crate) fn share(error: ShareError) -> i16 {
    match error {
        ShareError::NotAvailable => ErrorCode::CoordinatorNotAvailable,
        ShareError::InvalidGroupId => ErrorCode::InvalidGroupId,
        ShareError::Invalid(_) => ErrorCode::InvalidRequest,
        ShareError::NotFound | ShareError::OtherKind => ErrorCode::GroupIdNotFound,
        ShareError::NonEmpty => ErrorCode::NonEmptyGroup,
        ShareError::UnknownMember => ErrorCode::UnknownMemberId,
        ShareError::FencedEpoch => ErrorCode::FencedMemberEpoch,
        ShareError::MaxSizeReached => ErrorCode::GroupMaxSizeReached,
        ShareError::OffsetsMaxReached => ErrorCode::InvalidCommitOffsetSize,
        ShareError::NotHeld(_) | ShareError::NotRenewed => ErrorCode::InvalidRecordState,
    }
    .code()
}

/// The code of a partition from which nothing is taken, or of which nothing is settled. Clients know few of them here.
pub(crate) fn take(error: &TakeError) -> i16 {
    match error {
        TakeError::Refused(refusal) => code(refusal),
        // Those that do not know a code end; this one they try again, and there may be room then.
        TakeError::Share(
            ShareError::NotAvailable | ShareError::MaxSizeReached | ShareError::OffsetsMaxReached,
        ) => ErrorCode::KafkaStorageError.code(),
        TakeError::Share(error) => share(*error),
    }
}

/// The code for clients that do not know that a group may be missing: they take its generation for passed.
pub(crate) fn group_where_none_is_missing(error: GroupError) -> i16 {
    match error {
        GroupError::NotFound => ErrorCode::IllegalGeneration.code(),
        error => group(error),
    }
}

#[cfg(test)]
mod tests {
    use model::batch::Codec;

    use super::*;

    #[test]
    fn what_the_wire_has_a_sign_for_is_told_in_its_words() {
        let zstd = UnsupportedCompression::NewerThanClient { codec: Codec::Zstd };
        for (refusal, code, words) in [
            (InvalidPartitions::None.into(), 37, "or -1 for the default"),
            (
                InvalidReplicationFactor::None.into(),
                38,
                "or -1 for the default",
            ),
            (
                Refusal::from(zstd),
                76,
                "zstd needs Produce version 7 or later",
            ),
        ] {
            let failure = Failure::from(refusal);
            assert_eq!(failure.code(), code);
            assert!(failure.to_string().ends_with(words), "{failure}");
        }
        let plain = Failure::from(Refusal::DiskFull);
        assert_eq!(plain.to_string(), Refusal::DiskFull.to_string());
    }
}
