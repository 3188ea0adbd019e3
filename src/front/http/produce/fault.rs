//! What can be wrong with a body, and with one row of it.

use crate::broker::once::OnceRefusal;
use crate::broker::publish::PublishRefusal;

/// Why a body was not taken, or not to its end. What was written before it stays written.
#[derive(Debug, Clone, thiserror::Error)]
pub(in crate::front::http) enum Stop {
    /// The server does not take it now, or not for this topic.
    #[error(transparent)]
    Refused(PublishRefusal),
    /// The body was read whole, and some of its rows are no records.
    #[error("{refused} of the rows are no records of this topic; the others are written")]
    SomeRefused {
        /// How many.
        refused: u64,
    },
    /// Some rows are no records, and the request wants all or none.
    #[error("{refused} of the rows are no records of this topic; nothing is written")]
    AllRefused {
        /// How many.
        refused: u64,
    },
    /// A body that breaks off, or has not the form that it says.
    #[error("{0}")]
    Body(String),
    /// Nothing came for too long.
    #[error("nothing of the body came for {seconds_max} s")]
    Late {
        /// The bound.
        seconds_max: u64,
    },
    /// More than this kind of request may bring.
    #[error("{what} {bytes_max} bytes at most")]
    TooLarge {
        /// What is bounded, as a half sentence.
        what: &'static str,
        /// The bound.
        bytes_max: u64,
    },
    /// A body that becomes too large when it is decompressed.
    #[error("a body has {ratio_max} times as many bytes decompressed as it came with, at most")]
    Inflates {
        /// The bound.
        ratio_max: u64,
    },
    /// An encoding that is not known.
    #[error("content encoding {0:?} is not known: it is gzip, zstd or none")]
    Encoding(String),
    /// A content type that is not known.
    #[error("{0}")]
    ContentType(String),
    /// The query or a header says what cannot be.
    #[error("{0}")]
    Query(String),
    /// A key under which the request cannot be done once.
    #[error(transparent)]
    Once(#[from] OnceRefusal),
    /// Bodies hold as much memory as they may.
    #[error("the server has no memory for this body now")]
    Overloaded,
}

/// Why a row is no record.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum RowFault {
    #[error("invalid UTF-8 behind byte {valid}")]
    Utf8 { valid: usize },
    #[error("{0}")]
    Json(String),
    #[error("nested deeper than {depth_max}")]
    TooDeep { depth_max: usize },
    #[error("the row is longer than max.message.bytes={bytes_max}")]
    TooLong { bytes_max: usize },
    #[error("no field {field}, which is to be the key")]
    KeyMissing { field: String },
    #[error("field {field} is no text, number or boolean, and cannot be the key")]
    KeyNotScalar { field: String },
    #[error("no field {field}, which is to be the timestamp")]
    TimestampMissing { field: String },
    #[error("timestamp {found}: {reason}")]
    Timestamp { found: String, reason: &'static str },
    #[error("{found} columns, and the header has {wanted}")]
    Columns { found: usize, wanted: usize },
    #[error("{0}")]
    Cell(String),
    #[error(transparent)]
    Refused(PublishRefusal),
}

impl RowFault {
    /// Its name, which stays.
    pub fn code(&self) -> &'static str {
        match self {
            RowFault::Utf8 { .. } => "invalid_utf8",
            RowFault::Json(_) => "invalid_json",
            RowFault::TooDeep { .. } => "too_deep",
            RowFault::TooLong { .. } | RowFault::Refused(PublishRefusal::TooLarge { .. }) => {
                "record_too_large"
            }
            RowFault::KeyMissing { .. } => "key_missing",
            RowFault::KeyNotScalar { .. } => "key_not_scalar",
            RowFault::TimestampMissing { .. } => "timestamp_missing",
            RowFault::Timestamp { .. } => "timestamp_invalid",
            RowFault::Columns { .. } => "wrong_columns",
            RowFault::Cell(_) => "invalid_cell",
            RowFault::Refused(PublishRefusal::Record(fault)) => match fault {
                crate::broker::RecordFault::NoKey => "no_key",
                crate::broker::RecordFault::Timestamp { .. } => "timestamp_outside",
            },
            RowFault::Refused(
                PublishRefusal::TooMuch { .. }
                | PublishRefusal::Retained(_)
                | PublishRefusal::Refused(_)
                | PublishRefusal::Abandoned,
            ) => "not_written",
        }
    }
}
