//! Erasure by key: all records of some keys below an offset go from a log, and what its summaries tell of them.
//!
//! Callers: the broker, through `Storage::look_for_keys` and `Storage::erase`; behind the last log it has the write-ahead log
//! purged (`purge.rs`). `run.rs` goes over a log, `look.rs` finds which segments have something of the keys,
//! `keeper.rs` says what of a batch stays. Each
//! segment is written again by itself, in one durable step, so that an erasure may end anywhere and begins again with what is
//! left: doing it twice is doing it once. What was found of a sealed segment stays true as long as the segment is one of the log's.
//! Invariants: no record goes on which there is a hold, which is asked again before each segment, with those kept waiting who add
//! one; a batch whose records cannot be read is named and stays; a segment that cannot be read ends the erasure with an error,
//! after all the others were done.

mod keeper;
mod look;
mod run;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use model::Offset;

use super::holds::Hold;
use super::run::CleanupError;
use crate::error::StorageFailed;
use crate::rewrite::Rewritten;
use crate::segment::SegmentId;

/// What is to be erased from a log.
#[derive(Clone, Debug)]
pub struct Wanted {
    keys: HashSet<Bytes>,
    /// Records at this offset and behind it stay.
    pub before: Offset,
}

impl Wanted {
    /// The records with one of these keys that lie before an offset.
    pub fn new(keys: impl IntoIterator<Item = Bytes>, before: Offset) -> Wanted {
        Wanted {
            keys: keys.into_iter().collect(),
            before,
        }
    }

    fn is_key(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
    }

    fn is(&self, offset: Offset, key: Option<&[u8]>) -> bool {
        offset < self.before && key.is_some_and(|key| self.is_key(key))
    }
}

/// What a segment has of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which segment.
    pub segment: SegmentId,
    /// From the first of the records to behind the last one; empty if only the summary tells of the keys.
    pub offsets: Range<Offset>,
    /// How many records.
    pub records: u64,
    /// Windows of its summary.
    pub windows: u64,
    /// Whether its summary cannot be read, so that it may tell of the keys.
    pub unreadable_summary: bool,
}

/// A batch whose records cannot be read, although its checksum is right: what it holds is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// The segment; None if it is not sealed.
    pub segment: Option<SegmentId>,
    /// Where the batch begins.
    pub base_offset: Offset,
    /// What is wrong with it.
    pub reason: String,
}

/// What is known of a sealed segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// What it has of the keys.
    pub found: Option<Found>,
    /// Batches whose records cannot be read.
    pub undecodable: Vec<Undecodable>,
}

/// What is known of sealed segments: what they have, nothing for those that have nothing.
pub type Known = HashMap<SegmentId, Looked>;

/// Hears of what an erasure does, segment by segment. May block.
pub trait EraseWatch {
    /// A segment is about to be written again. Errors: it is not, and the erasure ends.
    fn begin(&mut self, found: &Found) -> Result<(), WatchFailed>;
    /// It was written again, or was gone when it was to be.
    fn end(&mut self, found: &Found, rewritten: Option<&Rewritten>);
}

/// Whoever watches cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct WatchFailed(pub String);

/// Why an erasure ended early. What it did until then stays done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EraseError {
    /// There is no such log, or not any more.
    #[error("the log was deleted")]
    NoLog,
    /// Some of the records are held.
    #[error("{} keeps what is to be erased", .0.name)]
    Held(Hold),
    /// Somebody ended it, or the store ends.
    #[error("it was stopped")]
    Cancelled,
    /// There is no space for what it has to write.
    #[error("the disk is full")]
    DiskFull,
    /// Some segments could not be read or written again; all the others were.
    #[error("{}", unreadable_text(.0))]
    Unreadable(Vec<(SegmentId, Arc<str>)>),
    /// Segments came and went too fast.
    #[error("the log's segments changed again and again")]
    Restless,
    /// Whoever watches could not go on.
    #[error(transparent)]
    Watch(#[from] WatchFailed),
    /// The store has failed.
    #[error(transparent)]
    Failed(#[from] StorageFailed),
}

fn unreadable_text(segments: &[(SegmentId, Arc<str>)]) -> String {
    let first = segments.first().map_or("", |(_, reason)| reason);
    match segments.len() {
        1 => first.to_owned(),
        count => format!("{count} segments could not be read; the first one: {first}"),
    }
}

/// What a look at a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// Records with one of the keys.
    pub records: u64,
    /// Where the first lies and behind the last.
    pub offsets: Option<Range<Offset>>,
    /// Segments that have something of the keys, one that is not sealed and the write-ahead log among them.
    pub segments: u64,
    /// All segments that were looked at, likewise.
    pub segments_read: u64,
    /// Windows of summaries.
    pub windows: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Batches whose records cannot be read.
    pub undecodable: Vec<Undecodable>,
    /// Segments that cannot be read, and why.
    pub unreadable: Vec<(SegmentId, Arc<str>)>,
    /// The first hold that forbids it.
    pub hold: Option<Hold>,
}

/// What an erasure did to a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Records that went.
    pub records: u64,
    /// Segments that were written again.
    pub segments: u64,
    /// Batches whose records cannot be read, in the segments that there are now.
    pub undecodable: Vec<Undecodable>,
}

impl From<CleanupError> for EraseError {
    fn from(error: CleanupError) -> EraseError {
        match error {
            CleanupError::NoLog(_) => EraseError::NoLog,
            CleanupError::DiskFull => EraseError::DiskFull,
            CleanupError::Failed(failure) => EraseError::Failed(failure),
            CleanupError::Cancelled | CleanupError::NotOfOneLog(_) => EraseError::Cancelled,
            CleanupError::StartNotRaised(reason) => {
                EraseError::Failed(StorageFailed::new(reason.to_string()))
            }
        }
    }
}
