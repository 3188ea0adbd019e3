//! Why a rewrite, or a scan, came to nothing.

use std::io;

use model::LogId;

use super::keeper::{Cancelled, KeepError};
use crate::segment::SegmentId;
use crate::wal::pool::is_full;

/// Why nothing was rewritten. All is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// A batch is not as it was written: the segment is left as it is.
    #[error("segment {segment}, position {position}: {reason}")]
    Damaged {
        /// Which segment.
        segment: SegmentId,
        /// Where in its file.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// The disk refused.
    #[error("segment {segment}: {source}")]
    Io {
        /// Which segment: one that is read, or the new one.
        segment: SegmentId,
        /// What the disk said.
        source: io::Error,
    },
    /// There is no space for the new segment beside the old ones.
    #[error("there is no space to write segment {segment} (up to {need_bytes} bytes)")]
    NoSpace {
        /// The new segment.
        segment: SegmentId,
        /// How much it may take.
        need_bytes: u64,
    },
    /// The new segment would be larger than a segment can be.
    #[error("what is kept from segment {segment} on does not fit into one segment")]
    TooLarge {
        /// The first one that was to be replaced.
        segment: SegmentId,
    },
    /// A batch was not judged.
    #[error("segment {segment}: {source}")]
    Keep {
        /// Which segment.
        segment: SegmentId,
        /// Why.
        source: KeepError,
    },
    /// A segment is no longer one of the log's, or not a sealed one, or not the neighbour of the one before it.
    #[error("segment {segment} is no sealed segment of the log any more")]
    NoLongerLive {
        /// Which segment.
        segment: SegmentId,
    },
    /// There is no such log, or it was deleted.
    #[error("the log {log} was deleted")]
    Deleted {
        /// Which log.
        log: LogId,
    },
    /// Whoever set the pace has ended it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The store ends or has failed. Which of both segments counts, the next start finds out.
    #[error("the store has stopped writing")]
    Stopped,
}

impl RewriteError {
    /// The disk refused to write a new segment, which needs so many bytes.
    pub(crate) fn of_disk(segment: SegmentId, source: io::Error, need_bytes: u64) -> RewriteError {
        match is_full(&source) {
            true => RewriteError::NoSpace {
                segment,
                need_bytes,
            },
            false => RewriteError::Io { segment, source },
        }
    }
}
