//! Errors of the client: what a broker answered, what became of a connection, what is invalid; and which may be retried.

use model::{Offset, TopicPartition};
use std::sync::Arc;
use std::time::Duration;
use wire::{ApiKey, DecodeError, EncodeError, ErrorCode};

/// Why an operation failed. Cheap to clone: a failed batch tells each of its records.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The broker said no.
    #[error("{what}: {code}{}", message.as_deref().map(|m| format!(": {m}")).unwrap_or_default())]
    Broker {
        /// The protocol's code.
        code: ErrorCode,
        /// What it is about: a topic, a partition, a group.
        what: String,
        /// The broker's own words, if it sent any.
        message: Option<String>,
    },
    /// No connection could be opened.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The broker.
        address: String,
        /// Why.
        source: Arc<std::io::Error>,
    },
    /// The server's certificate is not trusted, or ours is not by the server, or they have no version of TLS in common.
    #[error("no encrypted connection to {address}: {reason}")]
    Tls {
        /// The broker.
        address: String,
        /// Why.
        reason: Arc<str>,
    },
    /// The client does not believe the server, to which it would log in.
    #[error("the login of {user} at {address}: {source}")]
    Login {
        /// Who.
        user: Arc<str>,
        /// The broker.
        address: String,
        /// Why.
        source: model::sasl::LoginError,
    },
    /// An open connection ended, and with it whatever was waiting for an answer.
    #[error("the connection to {address} ended: {reason}")]
    Disconnected {
        /// The broker.
        address: String,
        /// Why.
        reason: Arc<str>,
    },
    /// Somebody listens there, but not a broker.
    #[error("{address} speaks {protocol}, not Kafka's protocol")]
    NotKafka {
        /// The address.
        address: String,
        /// What it speaks.
        protocol: &'static str,
    },
    /// A record was not acknowledged within the delivery timeout. It may have been written all the same.
    #[error("{what}: not acknowledged within {after:?}{}", last.as_deref().map(|e| format!(": {e}")).unwrap_or_default())]
    Undelivered {
        /// Its topic and partition, or what it waited for.
        what: String,
        /// The delivery timeout.
        after: Duration,
        /// Why the last attempt failed, if there was one.
        last: Option<Box<Error>>,
    },
    /// No answer in time.
    #[error("{what}: no answer within {after:?}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// The broker knows no version of a request that this client knows too.
    #[error(
        "the broker has no version of {key:?} that is known here: it has {broker:?}, known here are {here:?}"
    )]
    NoCommonVersion {
        /// The request.
        key: ApiKey,
        /// First and last version of the broker; none if it does not have the key at all.
        broker: Option<(i16, i16)>,
        /// First and last version that this client would use.
        here: (i16, i16),
    },
    /// A broker that the cluster does not list.
    #[error("broker {0} is not in the cluster's metadata")]
    UnknownBroker(i32),
    /// The answer cannot be read.
    #[error("{key:?} answer: {source}")]
    Decode {
        /// The request.
        key: ApiKey,
        /// Why.
        source: DecodeError,
    },
    /// The request cannot be written.
    #[error("request: {0}")]
    Encode(#[from] EncodeError),
    /// What a partition holds from an offset on cannot be read. Everything before it was yielded.
    #[error("{partition}: what begins at offset {offset} is damaged: {reason}")]
    Damaged {
        /// The partition.
        partition: TopicPartition,
        /// The first offset that cannot be read.
        offset: Offset,
        /// What is wrong, or what the broker said.
        reason: String,
    },
    /// A record batch that was fetched is damaged.
    #[error("{partition} at offset {offset}: {source}")]
    Batch {
        /// Topic and partition.
        partition: String,
        /// The offset that was asked for.
        offset: u64,
        /// What is wrong with it.
        source: model::batch::BatchError,
    },
    /// A record batch cannot be built.
    #[error(transparent)]
    Build(#[from] model::batch::BuildError),
    /// A record that is larger than a batch may be.
    #[error("a record that takes {bytes} bytes is larger than {limit}, {bytes_max}")]
    RecordTooLarge {
        /// Its size, as a batch of its own.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
        /// Whose bound it is.
        limit: &'static str,
    },
    /// The offset that is to be read next no longer exists, and the consumer is told not to choose another.
    #[error("{partition}: offset {offset} is out of range")]
    OffsetOutOfRange {
        /// Topic and partition.
        partition: String,
        /// The offset.
        offset: u64,
    },
    /// The producer, consumer or client was closed.
    #[error("closed")]
    Closed,
    /// What the caller asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// An error that the broker sent.
    pub fn broker(code: ErrorCode, what: impl Into<String>, message: Option<String>) -> Error {
        let message = message.filter(|m| !m.is_empty());
        Error::Broker {
            code,
            what: what.into(),
            message,
        }
    }

    /// The protocol's code, if the broker sent one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same may succeed later. A request that timed out or lost its connection may have been carried out.
    pub fn is_retriable(&self) -> bool {
        match self {
            Error::Broker { code, .. } => code.is_retriable(),
            Error::Connect { .. }
            | Error::Disconnected { .. }
            | Error::TimedOut { .. }
            | Error::Undelivered { .. }
            | Error::UnknownBroker(_) => true,
            _ => false,
        }
    }

    /// Whether the client's view of brokers and leaders may be stale.
    pub fn wants_metadata(&self) -> bool {
        match self {
            Error::Broker { code, .. } => code.wants_metadata(),
            other => other.is_retriable(),
        }
    }
}

/// `Ok` for code 0, else an error about `what`.
pub(crate) fn check(
    code: i16,
    what: impl FnOnce() -> String,
    message: Option<&String>,
) -> Result<(), Error> {
    ErrorCode::check(code).map_err(|code| Error::broker(code, what(), message.cloned()))
}
