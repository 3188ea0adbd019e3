//! Why a message is not taken, message by message.

use std::sync::Arc;

use storage::AppendError;

use crate::broker::Refusal;
use crate::broker::allowance::Limit;
use crate::broker::produce::RecordFault;

/// Why one message was not published. The others that came with it are not concerned, but where the refusal says so.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishRefusal {
    /// The topic's rules do not take this record.
    #[error(transparent)]
    Record(#[from] RecordFault),
    /// The record alone is longer than a batch of its topic may be.
    #[error("the record takes {bytes} bytes, and max.message.bytes allows {bytes_max}")]
    TooLarge {
        /// As a batch of its own.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// Messages that are to be published together are more than one frame of the write-ahead log takes.
    #[error("the messages take {bytes} bytes together, and {bytes_max} are taken at once")]
    TooMuch {
        /// All of them.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// It is to be kept, and as much is kept as may be.
    #[error("retained messages hold as many bytes as they may: {0}")]
    Retained(Limit),
    /// The broker takes none now, or not for this topic: the same for all that were to be written with it.
    #[error(transparent)]
    Refused(Arc<Refusal>),
    /// The server stopped before it was known whether the record is durable.
    #[error("the server stops: whether the record was stored is not known")]
    Abandoned,
}

impl From<Refusal> for PublishRefusal {
    fn from(refusal: Refusal) -> PublishRefusal {
        PublishRefusal::Refused(Arc::new(refusal))
    }
}

impl From<AppendError> for PublishRefusal {
    fn from(error: AppendError) -> PublishRefusal {
        PublishRefusal::from(crate::broker::append_refusal(error))
    }
}
