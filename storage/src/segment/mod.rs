//! Segments: files of consecutive record batches, byte for byte as Kafka's own tools read them, and their indexes.
//!
//! `<base offset, 20 digits>.<generation>.log` holds batches and nothing else. `<same>.idx` is written when the segment is
//! sealed and is derived: lost or damaged it is built again from the log, and it is never trusted against the log.
//! `<same>.sum` tells of a thinned segment what it held before ([`summary`]), `<same>.kix` which blocks hold which keys
//! ([`key_index`]).
//! Callers: the settler writes ([`SegmentWriter`]), the log reads ([`SegmentReader`]), recovery resumes, the scrub and
//! the offline tools verify ([`verify`]).
//! Invariants: a segment's published bytes never change; one that is sealed never changes at all and only goes by unlink;
//! offsets within it rise, from its base.

mod cache;
mod checked;
mod checked_blocks;
mod files;
mod index;
mod index_file;
pub mod key_index;
mod reader;
mod sparse;
pub mod summary;
pub mod verify;
mod walk;
mod writer;

pub use cache::{OpenSegment, SegmentCache, SegmentSource};
pub use checked::{BadBatches, Examined};
pub(crate) use files::SegmentFiles;
pub(crate) use index::check_heads;
pub use index::{BLOCK_BYTES, Block, SegmentIndex, SharedIndex};
pub(crate) use index_file::VERSION as INDEX_VERSION;
pub use index_file::{INDEX_BYTES_MAX, IndexFile, read_index_file};
pub use reader::{Extent, SegmentReader, first_at_or_after, largest_in};
pub(crate) use sparse::{SparseWriter, remove_files};
pub use walk::{HeaderWalk, Walked};
pub use writer::{PADDING, SealedSegment, SegmentWriter, SettledBatch, WriteWay};

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use model::Offset;

/// Which file of a partition: segments are named by their base offset and a generation, which rises when a segment's
/// contents are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The offset of its first record, or where that was before compaction.
    pub base: Offset,
    /// Which rewriting of it.
    pub generation: u32,
}

impl SegmentId {
    /// The first generation of a segment.
    pub fn first(base: Offset) -> SegmentId {
        SegmentId {
            base,
            generation: 0,
        }
    }

    /// The name of the file with the batches.
    pub fn log_name(self) -> String {
        format!("{self}.log")
    }

    /// The name of the index file.
    pub fn index_name(self) -> String {
        format!("{self}.idx")
    }

    /// The path of the file with the batches.
    pub fn log_path(self, directory: &Path) -> PathBuf {
        directory.join(self.log_name())
    }

    /// The path of the index file.
    pub fn index_path(self, directory: &Path) -> PathBuf {
        directory.join(self.index_name())
    }

    /// The path of the file that tells what it held before it was thinned. There is none of a first generation.
    pub fn summary_path(self, directory: &Path) -> PathBuf {
        directory.join(format!("{self}.sum"))
    }

    /// The path of the key index.
    pub fn key_index_path(self, directory: &Path) -> PathBuf {
        directory.join(format!("{self}.kix"))
    }

    /// The paths of all files that it may have: what is derived from the batches, and the batches.
    pub fn paths(self, directory: &Path) -> impl Iterator<Item = PathBuf> {
        let summary = (self.generation > 0).then(|| self.summary_path(directory));
        let key_index = [self.key_index_path(directory), self.index_path(directory)];
        let log = self.log_path(directory);
        key_index.into_iter().chain(summary).chain([log])
    }

    /// Reads a file's name back; None if it is no segment's.
    pub fn parse(name: &str) -> Option<(SegmentId, SegmentFileKind)> {
        let mut parts = name.split('.');
        let (base, generation, kind) = (parts.next()?, parts.next()?, parts.next()?);
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if parts.next().is_some() || base.len() != 20 || !digits(base) || !digits(generation) {
            return None;
        }
        let kind = match kind {
            "log" => SegmentFileKind::Log,
            "idx" => SegmentFileKind::Index,
            "sum" => SegmentFileKind::Summary,
            "kix" => SegmentFileKind::KeyIndex,
            _ => return None,
        };
        let base = Offset::from_wire(base.parse().ok()?)?;
        Some((
            SegmentId {
                base,
                generation: generation.parse().ok()?,
            },
            kind,
        ))
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}.{}", self.base.get(), self.generation)
    }
}

/// Which of a segment's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentFileKind {
    /// The batches.
    Log,
    /// The index.
    Index,
    /// What it held before it was thinned.
    Summary,
    /// Which of its blocks hold which keys.
    KeyIndex,
}

/// Why a segment could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The disk refused.
    #[error("segment {segment}: {source}")]
    Io {
        /// Which segment.
        segment: SegmentId,
        /// What the disk said.
        source: io::Error,
    },
    /// The bytes are not what was written.
    #[error("segment {segment}, position {position}: {reason}")]
    Damaged {
        /// Which segment.
        segment: SegmentId,
        /// Where in its file.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// Batches that may each be sound, and that are not the ones that were settled here: a file of another log, or heads
    /// that changed outside their batches' checksums. Which of them, cannot be told.
    #[error(
        "segment {segment}: the batches' heads have checksum {found:08x}, {expected:08x} was settled"
    )]
    Foreign {
        /// Which segment.
        segment: SegmentId,
        /// CRC-32 of the heads in the file.
        found: u32,
        /// CRC-32 of the heads that the checkpoint knows.
        expected: u32,
    },
}

impl SegmentError {
    /// Whether it says that no batch of the segment is to be believed, or nothing about the segment at all.
    pub(crate) fn is_of_the_whole_segment(&self) -> bool {
        match self {
            SegmentError::Io { source, .. } => is_shortage(source),
            SegmentError::Damaged { .. } => false,
            SegmentError::Foreign { .. } => true,
        }
    }

    fn io(segment: SegmentId) -> impl Fn(io::Error) -> SegmentError {
        move |source| SegmentError::Io { segment, source }
    }

    fn damaged(segment: SegmentId, position: u64, reason: impl ToString) -> SegmentError {
        SegmentError::Damaged {
            segment,
            position,
            reason: reason.to_string(),
        }
    }
}

/// Errors of the disk that mean the machine is short of something, and not that the segment is bad.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)
    )
}

#[cfg(test)]
mod tests;
