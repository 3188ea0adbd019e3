//! Error conditions and outcomes: the only place that chooses them, but for what breaks the protocol, which `amqp`'s endpoint ends.
//! Callers: `connection`, `producing`, `cursor`, and the nodes that answer.

use amqp::{DecodeError, ErrorCondition};

use super::address::NoNode;
use super::command::NoCommand;
use super::filter;
use super::route::Unfit;
use crate::broker::Refusal;
use crate::broker::publish::PublishRefusal;
use crate::broker::replay::ReplayError;
use crate::broker::share::{ShareError, ShareReadError};

/// Why a link is not attached, or ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoLink {
    /// Its address.
    #[error(transparent)]
    Node(#[from] NoNode),
    /// Its filters.
    #[error(transparent)]
    Filter(#[from] filter::Refused),
    /// A filter that what is shared cannot have.
    #[error("a queue or a subscription that is kept has no place to begin with: ask for copies")]
    PlaceOfShared,
    /// A subscription that has its consumer, or has others.
    #[error("the subscription is in use")]
    InUse,
    /// A subscription that is not there.
    #[error("there is no such subscription")]
    NoSubscription,
    /// What was settled is a part of a transaction that is not there.
    #[error("there is no such transaction")]
    NoTransaction,
    /// A dynamic node that is to live longer than its link.
    #[error("a dynamic node lives as long as its link, and no other lifetime policy is offered")]
    Lifetime,
    /// More dynamic nodes than there may be.
    #[error("the connection has as many dynamic nodes as it may have")]
    TooManyNodes,
    /// Another connection's temporary node.
    #[error("a temporary node is received from by the connection that has made it")]
    NotOwned,
    /// A numeric offset without a partition.
    #[error("the topic has {0} partitions: an offset is one partition's")]
    Offset(u32),
    /// More receivers than there may be.
    #[error("the connection has as many receivers as it may have")]
    TooMany,
    /// Who has not logged in, and may only show a token.
    #[error("a token has to be put to $cbs first")]
    NoToken,
    /// An owner level that is none, or of what has none.
    #[error("an owner level is a number from 0 on, and a partition's in a consumer group")]
    Level,
    /// Somebody else reads the partition for the group, and has this level.
    #[error("a receiver with the owner level {0} has the partition for this consumer group")]
    Owned(i64),
    /// Somebody else has taken it.
    #[error("a receiver with the owner level {0} has taken the partition for this consumer group")]
    Taken(i64),
    /// The topic, or the right to it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReplayError),
    /// The group of the queue does not do what is asked.
    #[error(transparent)]
    Group(ShareError),
}

impl From<ShareReadError> for NoLink {
    fn from(error: ShareReadError) -> NoLink {
        match error {
            ShareReadError::Group(error) => NoLink::Group(error),
            ShareReadError::Read(error) => NoLink::Read(error),
        }
    }
}

impl NoLink {
    /// Its condition; `was_there` says that the link was attached.
    pub(super) fn condition(&self, was_there: bool) -> ErrorCondition {
        match self {
            NoLink::Node(_) => ErrorCondition::NotFound,
            NoLink::Filter(filter::Refused::NoPlace(_) | filter::Refused::Selector(_))
            | NoLink::Offset(_)
            | NoLink::Level
            | NoLink::PlaceOfShared => ErrorCondition::InvalidField,
            NoLink::Owned(_) | NoLink::Taken(_) => ErrorCondition::Stolen,
            NoLink::NoTransaction => ErrorCondition::UnknownTransaction,
            NoLink::Filter(filter::Refused::NotOffered(_)) | NoLink::Lifetime => {
                ErrorCondition::NotImplemented
            }
            NoLink::TooMany | NoLink::TooManyNodes => ErrorCondition::ResourceLimitExceeded,
            NoLink::NotOwned | NoLink::NoToken => ErrorCondition::UnauthorizedAccess,
            NoLink::InUse => ErrorCondition::ResourceLocked,
            NoLink::NoSubscription => ErrorCondition::NotFound,
            NoLink::Refused(refusal) | NoLink::Read(ReplayError::Refused(refusal)) => {
                condition_of(refusal, was_there)
            }
            NoLink::Read(ReplayError::NoPartition { .. }) => ErrorCondition::NotFound,
            NoLink::Group(ShareError::NotFound) => ErrorCondition::ResourceDeleted,
            NoLink::Group(ShareError::OtherKind) => ErrorCondition::PreconditionFailed,
            NoLink::Group(ShareError::MaxSizeReached | ShareError::OffsetsMaxReached) => {
                ErrorCondition::ResourceLimitExceeded
            }
            NoLink::Group(_) => ErrorCondition::InternalError,
        }
    }
}

fn condition_of(refusal: &Refusal, was_there: bool) -> ErrorCondition {
    match refusal {
        Refusal::Denied { .. } | Refusal::InternalTopic { .. } => {
            ErrorCondition::UnauthorizedAccess
        }
        Refusal::UnknownTopicOrPartition | Refusal::UnknownTopicId if was_there => {
            ErrorCondition::ResourceDeleted
        }
        Refusal::UnknownTopicOrPartition
        | Refusal::UnknownTopicId
        | Refusal::InvalidTopicName(_)
        | Refusal::CollidingTopicName { .. }
        | Refusal::ReservedTopicName { .. } => ErrorCondition::NotFound,
        Refusal::TooManyPartitions(_) | Refusal::QuotaExceeded { .. } => {
            ErrorCondition::ResourceLimitExceeded
        }
        Refusal::BatchTooLarge { .. } => ErrorCondition::MessageSizeExceeded,
        Refusal::CorruptBatch(_) | Refusal::InvalidRecord(_) | Refusal::InvalidTimestamp(_) => {
            ErrorCondition::InvalidField
        }
        _ => ErrorCondition::InternalError,
    }
}

/// Why a connection is not opened, or ends, beside what its endpoint ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ending {
    /// Its name is too long.
    #[error("the container id is longer than 1,024 bytes")]
    ContainerId,
    /// The token that it has shown does not hold any more, or none came in time.
    #[error("no token that holds was put to $cbs")]
    NoToken,
    /// The server stops.
    #[error("the server stops")]
    Stopping,
    /// Others wait for memory that this one holds.
    #[error("others wait for memory, and what is held comes too slowly")]
    Evicted,
    /// The peer takes nothing of what is sent.
    #[error("nothing of what was sent was taken for too long")]
    Unread,
    /// The connection is gone, or was ended by the endpoint.
    #[error("the connection is over")]
    Over,
}

impl Ending {
    /// Its condition; None: there is nobody to be told.
    pub(super) fn condition(self) -> Option<ErrorCondition> {
        match self {
            Ending::ContainerId => Some(ErrorCondition::InvalidField),
            Ending::NoToken => Some(ErrorCondition::UnauthorizedAccess),
            Ending::Stopping => Some(ErrorCondition::ConnectionForced),
            Ending::Evicted => Some(ErrorCondition::ResourceLimitExceeded),
            Ending::Unread | Ending::Over => None,
        }
    }
}

/// Of a connection whose container id is another one's alone.
pub(super) const CONTAINER_IN_USE: ErrorCondition = ErrorCondition::InvalidField;

/// Why a request is not answered at all, by a node that answers.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoRequest {
    /// No message.
    #[error("it is no message: {0}")]
    Malformed(#[from] DecodeError),
    /// A part of a transaction.
    #[error("a request is no part of a transaction")]
    Transaction,
    /// There is nobody to be answered.
    #[error("the connection has no receiver of this node, which the answer could go to")]
    NoReceiver,
    /// More than are kept.
    #[error("more answers wait for their receiver than are kept")]
    TooMany,
}

impl NoRequest {
    /// Its condition.
    pub(super) fn condition(&self) -> ErrorCondition {
        match self {
            NoRequest::Malformed(_) => ErrorCondition::DecodeError,
            NoRequest::Transaction => ErrorCondition::NotImplemented,
            NoRequest::NoReceiver => ErrorCondition::PreconditionFailed,
            NoRequest::TooMany => ErrorCondition::ResourceLimitExceeded,
        }
    }
}

/// How a request ended, in the numbers of HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: i32,
    pub(super) description: String,
    pub(super) condition: Option<ErrorCondition>,
}

impl Status {
    /// Of one that was done.
    pub(super) fn of_done(code: i32, description: &str) -> Status {
        Status {
            code,
            description: description.to_owned(),
            condition: None,
        }
    }
}

/// Why a request gets an answer that it did not ask for.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// An operation that is not offered.
    #[error("this operation is not offered")]
    Unknown,
    /// A property without which nothing can be answered.
    #[error("the application property {0} is missing, or no text")]
    Missing(&'static str),
    /// A token that is not taken.
    #[error("this token is not taken")]
    Token,
    /// What is asked for, or the right to it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl NoAnswer {
    /// What the client is told.
    pub(super) fn status(&self) -> Status {
        let condition = match self {
            NoAnswer::Unknown => ErrorCondition::NotImplemented,
            NoAnswer::Missing(_) => ErrorCondition::InvalidField,
            NoAnswer::Token => ErrorCondition::UnauthorizedAccess,
            NoAnswer::Refused(refusal) => condition_of(refusal, false),
        };
        let code = match condition {
            ErrorCondition::InvalidField => 400,
            ErrorCondition::UnauthorizedAccess => 401,
            ErrorCondition::NotFound => 404,
            ErrorCondition::NotImplemented => 501,
            ErrorCondition::ResourceLimitExceeded => 503,
            _ => 500,
        };
        Status {
            code,
            description: self.to_string(),
            // Of a token the number is all that clients look at, and one that they show only without a condition.
            condition: Some(condition).filter(|_| !matches!(self, NoAnswer::Token)),
        }
    }
}

/// What became of a delivery that was not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotStored {
    /// It never will be.
    Rejected(ErrorCondition, String),
    /// It may be sent again.
    Released,
    /// It is not known: nothing is said, and the connection ends.
    Unknown,
}

/// Of a delivery that is not fit.
pub(super) fn of_unfit(unfit: &Unfit) -> NotStored {
    let condition = match unfit {
        Unfit::Malformed(_) => ErrorCondition::DecodeError,
        Unfit::NoMessage => ErrorCondition::InvalidField,
        Unfit::Delayed | Unfit::Format(_) => ErrorCondition::NotImplemented,
    };
    NotStored::Rejected(condition, unfit.to_string())
}

/// Why a transaction is not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoCommit {
    /// It is not there.
    #[error("there is no such transaction")]
    Unknown,
    /// A delivery of it was rejected.
    #[error("a message of the transaction was not taken")]
    NotTaken,
    /// More was sent than is kept in memory.
    #[error("the transactions of the connection have more messages than are kept for them")]
    TooMuch,
    /// It took too long.
    #[error("the transaction was open for longer than an hour")]
    Timeout,
    /// The log does not take it.
    #[error("the transaction is rolled back: {0}")]
    Failed(String),
}

/// Of a discharge of a transaction that is not committed.
pub(super) fn of_no_commit(why: &NoCommit) -> NotStored {
    let condition = match why {
        NoCommit::Unknown => ErrorCondition::UnknownTransaction,
        NoCommit::Timeout => ErrorCondition::TransactionTimeout,
        NoCommit::NotTaken | NoCommit::TooMuch | NoCommit::Failed(_) => {
            ErrorCondition::TransactionRollback
        }
    };
    NotStored::Rejected(condition, why.to_string())
}

/// Of a delivery, or of a declaration, that the connection's transactions have no room for.
pub(super) fn of_full() -> NotStored {
    let text = "the connection's transactions have no room for more";
    NotStored::Rejected(ErrorCondition::ResourceLimitExceeded, text.to_owned())
}

/// Of what a coordinator does not understand.
pub(super) fn of_command(why: &NoCommand) -> NotStored {
    let condition = match why {
        NoCommand::Malformed(_) => ErrorCondition::DecodeError,
        NoCommand::Unknown => ErrorCondition::InvalidField,
        NoCommand::Distributed => ErrorCondition::NotImplemented,
    };
    NotStored::Rejected(condition, why.to_string())
}

/// Of a delivery whose node is not there, or not to be written to. One that may be there later is given back.
pub(super) fn of_node(why: &NoLink) -> NotStored {
    let passing = match why {
        NoLink::Refused(Refusal::QuotaExceeded { .. }) => true,
        NoLink::Refused(refusal) => condition_of(refusal, false) == ErrorCondition::InternalError,
        _ => false,
    };
    match passing {
        true => NotStored::Released,
        false => NotStored::Rejected(why.condition(false), why.to_string()),
    }
}

/// Of a delivery that the broker refuses.
pub(super) fn of_publish(refusal: &PublishRefusal) -> NotStored {
    match refusal {
        PublishRefusal::Record(_) => {
            NotStored::Rejected(ErrorCondition::InvalidField, refusal.to_string())
        }
        PublishRefusal::TooLarge { .. } | PublishRefusal::TooMuch { .. } => {
            NotStored::Rejected(ErrorCondition::MessageSizeExceeded, refusal.to_string())
        }
        PublishRefusal::Retained(_) => {
            NotStored::Rejected(ErrorCondition::ResourceLimitExceeded, refusal.to_string())
        }
        PublishRefusal::Refused(refused) => match condition_of(refused, true) {
            // What a quota refuses now is taken later.
            ErrorCondition::ResourceLimitExceeded | ErrorCondition::InternalError => {
                NotStored::Released
            }
            condition => NotStored::Rejected(condition, refused.to_string()),
        },
        PublishRefusal::Abandoned => NotStored::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_may_pass_is_given_back_and_never_rejected() {
        for passing in [
            Refusal::DiskFull,
            Refusal::NotEnoughReplicas {
                min_insync_replicas: 2,
            },
        ] {
            let refusal = PublishRefusal::Refused(Arc::new(passing));
            assert_eq!(of_publish(&refusal), NotStored::Released, "{refusal}");
        }
        assert_eq!(of_publish(&PublishRefusal::Abandoned), NotStored::Unknown);
        let unknown = NoLink::Refused(Refusal::UnknownTopicOrPartition);
        assert_eq!(unknown.condition(false), ErrorCondition::NotFound);
        // rabbitmq-server#12817.
        assert_eq!(unknown.condition(true), ErrorCondition::ResourceDeleted);
    }
}
