//! The protocol's error codes: number, Kafka's name, and what a client may do about each.
//! Facts of `org.apache.kafka.common.protocol.Errors`, release 4.3.1.

/// What a client may do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    /// The same request will fail again.
    Fatal,
    /// The same request may succeed later.
    Retriable,
    /// The same request may succeed later, elsewhere: metadata has to be asked for first.
    Metadata,
}

/// Kafka's name for the code of an error, `OFFSET_OUT_OF_RANGE`; `UNKNOWN` for a code without one. For those who count
/// codes and choose none.
pub const fn error_name(code: i16) -> &'static str {
    ErrorCode::from_code(code).name()
}

macro_rules! error_codes {
    ($($code:literal $variant:ident $name:ident $remedy:ident,)*) => {
        /// An error code, `None` for 0. Codes that Kafka has not given a name yet are kept as they are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(
                #[doc = concat!("Code ", stringify!($code), ", `", stringify!($name), "`.")]
                $variant,
            )*
            /// A code without a name.
            Unknown(i16),
        }

        impl ErrorCode {
            /// Every code that has a name.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The number on the wire.
            pub const fn code(self) -> i16 {
                match self {
                    $(ErrorCode::$variant => $code,)*
                    ErrorCode::Unknown(code) => code,
                }
            }

            /// From the number on the wire.
            pub const fn from_code(code: i16) -> ErrorCode {
                match code {
                    $($code => ErrorCode::$variant,)*
                    code => ErrorCode::Unknown(code),
                }
            }

            /// Kafka's name, `OFFSET_OUT_OF_RANGE`; `UNKNOWN` for a code without one.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => stringify!($name),)*
                    ErrorCode::Unknown(_) => "UNKNOWN",
                }
            }

            const fn remedy(self) -> Remedy {
                match self {
                    $(ErrorCode::$variant => Remedy::$remedy,)*
                    ErrorCode::Unknown(_) => Remedy::Fatal,
                }
            }
        }
    };
}

error_codes! {
    -1 UnknownServerError UNKNOWN_SERVER_ERROR Fatal,
    0 None NONE Fatal,
    1 OffsetOutOfRange OFFSET_OUT_OF_RANGE Fatal,
    2 CorruptMessage CORRUPT_MESSAGE Retriable,
    3 UnknownTopicOrPartition UNKNOWN_TOPIC_OR_PARTITION Metadata,
    4 InvalidFetchSize INVALID_FETCH_SIZE Fatal,
    5 LeaderNotAvailable LEADER_NOT_AVAILABLE Metadata,
    6 NotLeaderOrFollower NOT_LEADER_OR_FOLLOWER Metadata,
    7 RequestTimedOut REQUEST_TIMED_OUT Retriable,
    8 BrokerNotAvailable BROKER_NOT_AVAILABLE Fatal,
    9 ReplicaNotAvailable REPLICA_NOT_AVAILABLE Metadata,
    10 MessageTooLarge MESSAGE_TOO_LARGE Fatal,
    11 StaleControllerEpoch STALE_CONTROLLER_EPOCH Fatal,
    12 OffsetMetadataTooLarge OFFSET_METADATA_TOO_LARGE Fatal,
    13 NetworkException NETWORK_EXCEPTION Metadata,
    14 CoordinatorLoadInProgress COORDINATOR_LOAD_IN_PROGRESS Retriable,
    15 CoordinatorNotAvailable COORDINATOR_NOT_AVAILABLE Retriable,
    16 NotCoordinator NOT_COORDINATOR Retriable,
    17 InvalidTopicException INVALID_TOPIC_EXCEPTION Fatal,
    18 RecordListTooLarge RECORD_LIST_TOO_LARGE Fatal,
    19 NotEnoughReplicas NOT_ENOUGH_REPLICAS Retriable,
    20 NotEnoughReplicasAfterAppend NOT_ENOUGH_REPLICAS_AFTER_APPEND Retriable,
    21 InvalidRequiredAcks INVALID_REQUIRED_ACKS Fatal,
    22 IllegalGeneration ILLEGAL_GENERATION Fatal,
    23 InconsistentGroupProtocol INCONSISTENT_GROUP_PROTOCOL Fatal,
    24 InvalidGroupId INVALID_GROUP_ID Fatal,
    25 UnknownMemberId UNKNOWN_MEMBER_ID Fatal,
    26 InvalidSessionTimeout INVALID_SESSION_TIMEOUT Fatal,
    27 RebalanceInProgress REBALANCE_IN_PROGRESS Fatal,
    28 InvalidCommitOffsetSize INVALID_COMMIT_OFFSET_SIZE Fatal,
    29 TopicAuthorizationFailed TOPIC_AUTHORIZATION_FAILED Fatal,
    30 GroupAuthorizationFailed GROUP_AUTHORIZATION_FAILED Fatal,
    31 ClusterAuthorizationFailed CLUSTER_AUTHORIZATION_FAILED Fatal,
    32 InvalidTimestamp INVALID_TIMESTAMP Fatal,
    33 UnsupportedSaslMechanism UNSUPPORTED_SASL_MECHANISM Fatal,
    34 IllegalSaslState ILLEGAL_SASL_STATE Fatal,
    35 UnsupportedVersion UNSUPPORTED_VERSION Fatal,
    36 TopicAlreadyExists TOPIC_ALREADY_EXISTS Fatal,
    37 InvalidPartitions INVALID_PARTITIONS Fatal,
    38 InvalidReplicationFactor INVALID_REPLICATION_FACTOR Fatal,
    39 InvalidReplicaAssignment INVALID_REPLICA_ASSIGNMENT Fatal,
    40 InvalidConfig INVALID_CONFIG Fatal,
    41 NotController NOT_CONTROLLER Retriable,
    42 InvalidRequest INVALID_REQUEST Fatal,
    43 UnsupportedForMessageFormat UNSUPPORTED_FOR_MESSAGE_FORMAT Fatal,
    44 PolicyViolation POLICY_VIOLATION Fatal,
    45 OutOfOrderSequenceNumber OUT_OF_ORDER_SEQUENCE_NUMBER Fatal,
    46 DuplicateSequenceNumber DUPLICATE_SEQUENCE_NUMBER Fatal,
    47 InvalidProducerEpoch INVALID_PRODUCER_EPOCH Fatal,
    48 InvalidTxnState INVALID_TXN_STATE Fatal,
    49 InvalidProducerIdMapping INVALID_PRODUCER_ID_MAPPING Fatal,
    50 InvalidTransactionTimeout INVALID_TRANSACTION_TIMEOUT Fatal,
    51 ConcurrentTransactions CONCURRENT_TRANSACTIONS Retriable,
    52 TransactionCoordinatorFenced TRANSACTION_COORDINATOR_FENCED Fatal,
    53 TransactionalIdAuthorizationFailed TRANSACTIONAL_ID_AUTHORIZATION_FAILED Fatal,
    54 SecurityDisabled SECURITY_DISABLED Fatal,
    55 OperationNotAttempted OPERATION_NOT_ATTEMPTED Fatal,
    56 KafkaStorageError KAFKA_STORAGE_ERROR Metadata,
    57 LogDirNotFound LOG_DIR_NOT_FOUND Fatal,
    58 SaslAuthenticationFailed SASL_AUTHENTICATION_FAILED Fatal,
    59 UnknownProducerId UNKNOWN_PRODUCER_ID Fatal,
    60 ReassignmentInProgress REASSIGNMENT_IN_PROGRESS Fatal,
    61 DelegationTokenAuthDisabled DELEGATION_TOKEN_AUTH_DISABLED Fatal,
    62 DelegationTokenNotFound DELEGATION_TOKEN_NOT_FOUND Fatal,
    63 DelegationTokenOwnerMismatch DELEGATION_TOKEN_OWNER_MISMATCH Fatal,
    64 DelegationTokenRequestNotAllowed DELEGATION_TOKEN_REQUEST_NOT_ALLOWED Fatal,
    65 DelegationTokenAuthorizationFailed DELEGATION_TOKEN_AUTHORIZATION_FAILED Fatal,
    66 DelegationTokenExpired DELEGATION_TOKEN_EXPIRED Fatal,
    67 InvalidPrincipalType INVALID_PRINCIPAL_TYPE Fatal,
    68 NonEmptyGroup NON_EMPTY_GROUP Fatal,
    69 GroupIdNotFound GROUP_ID_NOT_FOUND Fatal,
    70 FetchSessionIdNotFound FETCH_SESSION_ID_NOT_FOUND Retriable,
    71 InvalidFetchSessionEpoch INVALID_FETCH_SESSION_EPOCH Retriable,
    72 ListenerNotFound LISTENER_NOT_FOUND Metadata,
    73 TopicDeletionDisabled TOPIC_DELETION_DISABLED Fatal,
    74 FencedLeaderEpoch FENCED_LEADER_EPOCH Metadata,
    75 UnknownLeaderEpoch UNKNOWN_LEADER_EPOCH Retriable,
    76 UnsupportedCompressionType UNSUPPORTED_COMPRESSION_TYPE Fatal,
    77 StaleBrokerEpoch STALE_BROKER_EPOCH Fatal,
    78 OffsetNotAvailable OFFSET_NOT_AVAILABLE Retriable,
    79 MemberIdRequired MEMBER_ID_REQUIRED Fatal,
    80 PreferredLeaderNotAvailable PREFERRED_LEADER_NOT_AVAILABLE Metadata,
    81 GroupMaxSizeReached GROUP_MAX_SIZE_REACHED Fatal,
    82 FencedInstanceId FENCED_INSTANCE_ID Fatal,
    83 EligibleLeadersNotAvailable ELIGIBLE_LEADERS_NOT_AVAILABLE Metadata,
    84 ElectionNotNeeded ELECTION_NOT_NEEDED Metadata,
    85 NoReassignmentInProgress NO_REASSIGNMENT_IN_PROGRESS Fatal,
    86 GroupSubscribedToTopic GROUP_SUBSCRIBED_TO_TOPIC Fatal,
    87 InvalidRecord INVALID_RECORD Fatal,
    88 UnstableOffsetCommit UNSTABLE_OFFSET_COMMIT Retriable,
    89 ThrottlingQuotaExceeded THROTTLING_QUOTA_EXCEEDED Retriable,
    90 ProducerFenced PRODUCER_FENCED Fatal,
    91 ResourceNotFound RESOURCE_NOT_FOUND Fatal,
    92 DuplicateResource DUPLICATE_RESOURCE Fatal,
    93 UnacceptableCredential UNACCEPTABLE_CREDENTIAL Fatal,
    94 InconsistentVoterSet INCONSISTENT_VOTER_SET Fatal,
    95 InvalidUpdateVersion INVALID_UPDATE_VERSION Fatal,
    96 FeatureUpdateFailed FEATURE_UPDATE_FAILED Fatal,
    97 PrincipalDeserializationFailure PRINCIPAL_DESERIALIZATION_FAILURE Fatal,
    98 SnapshotNotFound SNAPSHOT_NOT_FOUND Fatal,
    99 PositionOutOfRange POSITION_OUT_OF_RANGE Fatal,
    100 UnknownTopicId UNKNOWN_TOPIC_ID Metadata,
    101 DuplicateBrokerRegistration DUPLICATE_BROKER_REGISTRATION Fatal,
    102 BrokerIdNotRegistered BROKER_ID_NOT_REGISTERED Fatal,
    103 InconsistentTopicId INCONSISTENT_TOPIC_ID Metadata,
    104 InconsistentClusterId INCONSISTENT_CLUSTER_ID Fatal,
    105 TransactionalIdNotFound TRANSACTIONAL_ID_NOT_FOUND Fatal,
    106 FetchSessionTopicIdError FETCH_SESSION_TOPIC_ID_ERROR Retriable,
    107 IneligibleReplica INELIGIBLE_REPLICA Fatal,
    108 NewLeaderElected NEW_LEADER_ELECTED Fatal,
    109 OffsetMovedToTieredStorage OFFSET_MOVED_TO_TIERED_STORAGE Fatal,
    110 FencedMemberEpoch FENCED_MEMBER_EPOCH Fatal,
    111 UnreleasedInstanceId UNRELEASED_INSTANCE_ID Fatal,
    112 UnsupportedAssignor UNSUPPORTED_ASSIGNOR Fatal,
    113 StaleMemberEpoch STALE_MEMBER_EPOCH Fatal,
    114 MismatchedEndpointType MISMATCHED_ENDPOINT_TYPE Fatal,
    115 UnsupportedEndpointType UNSUPPORTED_ENDPOINT_TYPE Fatal,
    116 UnknownControllerId UNKNOWN_CONTROLLER_ID Fatal,
    117 UnknownSubscriptionId UNKNOWN_SUBSCRIPTION_ID Fatal,
    118 TelemetryTooLarge TELEMETRY_TOO_LARGE Fatal,
    119 InvalidRegistration INVALID_REGISTRATION Fatal,
    120 TransactionAbortable TRANSACTION_ABORTABLE Fatal,
    121 InvalidRecordState INVALID_RECORD_STATE Fatal,
    122 ShareSessionNotFound SHARE_SESSION_NOT_FOUND Retriable,
    123 InvalidShareSessionEpoch INVALID_SHARE_SESSION_EPOCH Retriable,
    124 FencedStateEpoch FENCED_STATE_EPOCH Fatal,
    125 InvalidVoterKey INVALID_VOTER_KEY Fatal,
    126 DuplicateVoter DUPLICATE_VOTER Fatal,
    127 VoterNotFound VOTER_NOT_FOUND Fatal,
    128 InvalidRegularExpression INVALID_REGULAR_EXPRESSION Fatal,
    129 RebootstrapRequired REBOOTSTRAP_REQUIRED Fatal,
    130 StreamsInvalidTopology STREAMS_INVALID_TOPOLOGY Fatal,
    131 StreamsInvalidTopologyEpoch STREAMS_INVALID_TOPOLOGY_EPOCH Fatal,
    132 StreamsTopologyFenced STREAMS_TOPOLOGY_FENCED Fatal,
    133 ShareSessionLimitReached SHARE_SESSION_LIMIT_REACHED Retriable,
}

impl ErrorCode {
    /// Whether the same request may succeed later.
    pub const fn is_retriable(self) -> bool {
        !matches!(self.remedy(), Remedy::Fatal)
    }

    /// Whether the error says that the client's view of topics and leaders is stale.
    pub const fn wants_metadata(self) -> bool {
        matches!(self.remedy(), Remedy::Metadata)
    }

    /// `Ok` for code 0.
    pub const fn check(code: i16) -> Result<(), ErrorCode> {
        match ErrorCode::from_code(code) {
            ErrorCode::None => Ok(()),
            error => Err(error),
        }
    }
}

/// `OFFSET_OUT_OF_RANGE (1)`.
impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name(), self.code())
    }
}

impl std::error::Error for ErrorCode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_from_its_number() {
        for code in i16::MIN..=i16::MAX {
            assert_eq!(ErrorCode::from_code(code).code(), code);
        }
        assert_eq!(ErrorCode::ALL.len(), 135);
    }

    #[test]
    fn the_display_names_the_code() {
        assert_eq!(
            ErrorCode::OffsetOutOfRange.to_string(),
            "OFFSET_OUT_OF_RANGE (1)"
        );
        assert_eq!(ErrorCode::from_code(999).to_string(), "UNKNOWN (999)");
    }
}
