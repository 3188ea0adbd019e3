//! Why a state log could not be opened or written.
//! Callers: the logs, which say it; the coordinators, which answer with it.

use model::batch::{BatchError, BuildError};
use model::{LogId, Offset};
use storage::AppendError;

/// Why a state log could not be opened or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateLogError {
    /// The log cannot be read. Nothing is concluded from what is missing.
    #[error("state log {log}: unreadable at offset {offset}: {reason}")]
    Unreadable {
        /// Which log.
        log: LogId,
        /// From where.
        offset: Offset,
        /// What the storage says.
        reason: String,
    },
    /// A batch in it is not a batch.
    #[error("state log {log}: {error}")]
    Malformed {
        /// Which log.
        log: LogId,
        /// What is wrong.
        error: BatchError,
    },
    /// An append was refused.
    #[error("state log: {0}")]
    Append(#[from] AppendError),
    /// The storage failed or stopped before the change was durable.
    #[error("state log: {0}")]
    Storage(String),
    /// A change that no batch can hold.
    #[error("state log: {0}")]
    TooLarge(#[from] BuildError),
}
