//! Rewriting: what is kept of neighbouring sealed segments goes into a new one, which takes their place in one durable step.
//!
//! Callers: the cleanup's executor, with a [`Keeper`] that says what of each batch stays. Batches that are kept whole are copied
//! byte for byte; offsets never change. The new segment is written and synced beside the old ones; the settler stores a manifest
//! that names it, and a checkpoint that names the manifest, and only then are the old files unlinked. A cut before leaves the
//! old ones, a cut behind the new one, never something between.
//! Invariants: a batch is judged only after its checksum and its offsets were checked; damage ends the rewrite, and changes
//! nothing; the last batch is kept, as an empty one if need be, so that a reader gets past the end; readers who hold a map of an
//! old segment keep its bytes.

mod beforehand;
mod closing;
mod error;
mod keeper;
mod replace;
mod source;

use std::sync::Arc;

pub(crate) use self::beforehand::scan_beforehand;
pub(crate) use self::closing::Closing;
pub use self::error::RewriteError;
pub use self::keeper::{Cancelled, KeepError, Keeper, PIECE_BYTES_MAX, Pace, Verdict};
pub use self::replace::{Amount, Rewritten};
pub(crate) use self::replace::{mark_compacted, new_id, rewrite};
pub(crate) use self::source::{Batches, Pages, index_of, open_segment, scan, scan_blocks};

use crate::components::Threads;
use crate::log::DirtyLogs;
use crate::segment::SegmentFiles;
use crate::settler::{Changes, SettlerSeat};
use crate::signals::Signals;

/// What a rewrite works with.
#[derive(Clone, Debug)]
pub(crate) struct RewriteParts {
    pub files: Arc<SegmentFiles>,
    /// Where the settler is asked to change a manifest.
    pub changes: Arc<Changes>,
    pub dirty: Arc<DirtyLogs>,
    pub signals: Arc<Signals>,
    /// Who makes the change.
    pub settler: Arc<SettlerSeat>,
    /// Whether it may have threads of its own.
    pub threads: Threads,
    pub closing: Arc<Closing>,
}

impl RewriteParts {
    /// Whether the settler answers no more.
    fn has_stopped(&self) -> bool {
        self.signals.is_stopping() || self.settler.has_failed()
    }
}
