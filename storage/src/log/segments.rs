//! The view of a log's settled part: its segments, as the log's state knows them and as readers see them. Plain values: nothing
//! here is open or mapped.
//!
//! Callers: `settled` reads through it, the settler replaces it when it has settled something.

use std::sync::Arc;

use model::{Offset, Timestamp};

use crate::checkpoint::ActiveSegment;
use crate::manifest::{Manifest, Sealed, SegmentEntry, SegmentKind};
use crate::segment::{SegmentId, SharedIndex};

/// The settled part of a log. Cheap to clone; a clone is a reader's immutable view.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segments {
    /// The sealed ones; None for none.
    pub manifest: Option<Arc<Manifest>>,
    /// The one that is settled into; None before the first.
    pub active: Option<Arc<ActiveView>>,
}

/// The active segment as far as it is published.
#[derive(Debug)]
pub(crate) struct ActiveView {
    pub segment: ActiveSegment,
    pub end_offset: Offset,
    pub index: SharedIndex,
    /// How long it may become.
    pub bytes_max: u64,
}

/// One segment of the view.
pub(super) struct Part<'a> {
    pub id: SegmentId,
    pub bytes: u64,
    pub end_offset: Offset,
    pub max_timestamp: Timestamp,
    pub first_append_time: Timestamp,
    pub source: Source<'a>,
}

/// What of a segment depends on whether it is sealed.
pub(super) enum Source<'a> {
    Sealed(SegmentKind, &'a Sealed),
    Active(&'a ActiveView),
}

impl Segments {
    /// Bytes of its batches.
    pub fn bytes(&self) -> u64 {
        let active = self
            .active
            .as_ref()
            .map_or(0, |active| active.segment.bytes);
        self.sealed().map(|(_, sealed)| sealed.bytes).sum::<u64>() + active
    }

    /// The sealed ones, in order.
    pub fn sealed(&self) -> impl Iterator<Item = (&SegmentEntry, &Sealed)> {
        self.manifest.iter().flat_map(|manifest| manifest.sealed())
    }

    /// Whether other segments are sealed than in a later view.
    pub fn is_sealed_otherwise(&self, later: &Segments) -> bool {
        match (&self.manifest, &later.manifest) {
            (Some(one), Some(other)) => !Arc::ptr_eq(one, other),
            (one, other) => one.is_some() != other.is_some(),
        }
    }

    /// All of them, in order.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let sealed = self.sealed().map(|(entry, sealed)| Part {
            id: entry.id,
            bytes: sealed.bytes,
            end_offset: sealed.end_offset,
            max_timestamp: sealed.max_timestamp,
            first_append_time: sealed.first_append_time,
            source: Source::Sealed(entry.kind, sealed),
        });
        let active = self.active.iter().map(|active| Part {
            id: active.segment.id,
            bytes: active.segment.bytes,
            end_offset: active.end_offset,
            max_timestamp: active.segment.max_timestamp,
            first_append_time: active.segment.first_append_time,
            source: Source::Active(active),
        });
        sealed.chain(active)
    }
}
