//! Why an erasure or a look is not taken, shown or cancelled.
//! Callers: all of `erasures`.

use crate::broker::Refusal;

/// Receipts that there may be.
pub const RECEIPTS_MAX: usize = 10_000;

/// Why an erasure is not taken, shown or cancelled.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ErasureError {
    /// The topic, the partition or the right to it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It says something that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// As many wait as may, or as many looks run.
    #[error("{waiting} erasures or looks wait for their turn, and no more may")]
    TooMany {
        /// The bound.
        waiting: usize,
    },
    /// There are as many receipts as there may be.
    #[error("there are {RECEIPTS_MAX} receipts of erasures, and no more may be")]
    TooManyReceipts,
    /// There is none of this name.
    #[error("there is no erasure or look {0:?}")]
    Unknown(String),
    /// It has no receipt yet, or will never have one.
    #[error("erasure {0} has no receipt: its state tells why")]
    NoReceipt(String),
    /// All of it is done already.
    #[error("erasure {0} is over, or about to be: it cannot be cancelled any more")]
    TooLate(String),
}
