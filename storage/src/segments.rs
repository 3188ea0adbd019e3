//! A log's settled part: its segments, as the log's state knows them and as readers see them.
//!
//! Callers: `log` reads through it, `settler` replaces it when it has laid something down. Nothing here is open or mapped
//! for an idle log: files, maps and indexes live in the store's cache.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use model::{LogId, Offset, Timestamp};

use crate::checkpoint::ActiveSegment;
use crate::error::{ReadError, TimedOffset};
use crate::io::FileMap;
use crate::manifest::{Manifest, Sealed};
use crate::scrub::run::Suspects;
use crate::segment::{
    Extent, OpenSegment, SegmentError, SegmentId, SegmentSource, SharedIndex, is_shortage,
};
use crate::storage::Shared;

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
struct Part<'a> {
    id: SegmentId,
    bytes: u64,
    end_offset: Offset,
    max_timestamp: Timestamp,
    source: Source<'a>,
}

enum Source<'a> {
    Sealed(&'a Sealed),
    Active(&'a ActiveView),
}

/// A run of whole batches within one segment.
#[derive(Clone, Debug)]
pub(crate) struct SegmentPart {
    map: Arc<FileMap>,
    positions: Range<u64>,
    end_offset: Offset,
    segment: (LogId, SegmentId),
    suspects: Arc<Suspects>,
}

impl SegmentPart {
    pub fn is_cold(&self) -> bool {
        self.map.is_cold(self.positions.clone())
    }

    pub fn populate(&self) -> std::io::Result<()> {
        self.map
            .populate(self.positions.clone())
            .inspect_err(|error| {
                let (log, id) = self.segment;
                tracing::error!(%log, segment = %id, %error, "a segment cannot be read");
                self.suspects.add(log, id);
            })
    }

    pub fn slice(&self) -> Bytes {
        self.map.slice(self.positions.clone())
    }

    pub fn end_offset(&self) -> Offset {
        self.end_offset
    }
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

    fn sealed(&self) -> impl Iterator<Item = (SegmentId, &Sealed)> {
        self.manifest.iter().flat_map(|manifest| manifest.sealed())
    }

    fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let sealed = self.sealed().map(|(id, sealed)| Part {
            id,
            bytes: sealed.bytes,
            end_offset: sealed.end_offset,
            max_timestamp: sealed.max_timestamp,
            source: Source::Sealed(sealed),
        });
        let active = self.active.iter().map(|active| Part {
            id: active.segment.id,
            bytes: active.segment.bytes,
            end_offset: active.end_offset,
            max_timestamp: active.segment.max_timestamp,
            source: Source::Active(active),
        });
        sealed.chain(active)
    }

    /// A run of whole batches from the one that contains the first of `offsets`, or the first one behind it, and before the
    /// one that contains their end. None if there is none, or if it does not fit.
    pub fn read(
        &self,
        shared: &Shared,
        log: LogId,
        offsets: Range<Offset>,
        max_bytes: usize,
        min_one: bool,
    ) -> Result<Option<SegmentPart>, ReadError> {
        let from = offsets.start;
        let Some(part) = self.parts().find(|part| part.end_offset > from) else {
            return Ok(None);
        };
        let fail = |error: SegmentError| read_error(shared, log, error, from, &part);
        let open = part.open(shared, log).map_err(fail)?;
        let from = from.max(part.id.base);
        let reader = open.reader(part.bytes, part.end_offset);
        let found = reader.extent(from, max_bytes as u64, min_one);
        let Some(mut extent) = found.map_err(fail)? else {
            return Ok(None);
        };
        if extent.end_offset > offsets.end {
            extent = match reader.locate(offsets.end) {
                Ok(Some(next)) if next.position > extent.positions.start => Extent {
                    positions: extent.positions.start..next.position,
                    end_offset: next.header.base().min(offsets.end),
                    ..extent
                },
                // What is damaged there cannot be walked over: the first batch lies before it.
                _ => reader
                    .extent(from, 0, true)
                    .map_err(fail)?
                    .unwrap_or(extent),
            };
        }
        let map = Arc::clone(open.map().map_err(fail)?);
        Ok(Some(SegmentPart {
            map,
            positions: extent.positions,
            end_offset: extent.end_offset,
            segment: (log, part.id),
            suspects: Arc::clone(&shared.suspects),
        }))
    }

    /// The first record at or after `start` whose timestamp is at or after `wanted`.
    pub fn offset_for_time(
        &self,
        shared: &Shared,
        log: LogId,
        start: Offset,
        wanted: Timestamp,
    ) -> Result<Option<TimedOffset>, ReadError> {
        for part in self
            .parts()
            .filter(|part| part.end_offset > start && part.max_timestamp >= wanted)
        {
            let fail = |error: SegmentError| read_error(shared, log, error, part.id.base, &part);
            let open = part.open(shared, log).map_err(fail)?;
            let reader = open.reader(part.bytes, part.end_offset);
            if let Some(hit) = reader
                .offset_for_time(wanted, start.max(part.id.base))
                .map_err(fail)?
            {
                return Ok(Some(hit));
            }
        }
        Ok(None)
    }

    /// The largest timestamp of a record at or after `start`.
    pub fn max_timestamp(
        &self,
        shared: &Shared,
        log: LogId,
        start: Offset,
    ) -> Result<Option<Timestamp>, ReadError> {
        let mut largest: Option<Timestamp> = None;
        for part in self.parts().filter(|part| part.end_offset > start) {
            if largest.is_some_and(|known| known >= part.max_timestamp) {
                continue;
            }
            let fail = |error: SegmentError| read_error(shared, log, error, part.id.base, &part);
            let open = part.open(shared, log).map_err(fail)?;
            let reader = open.reader(part.bytes, part.end_offset);
            let hit = reader
                .max_timestamp(start.max(part.id.base))
                .map_err(fail)?;
            largest = largest.max(hit.map(|hit| hit.timestamp));
        }
        Ok(largest)
    }
}

impl Part<'_> {
    fn open(&self, shared: &Shared, log: LogId) -> Result<Arc<OpenSegment>, SegmentError> {
        let source = match self.source {
            Source::Sealed(sealed) => SegmentSource::Sealed {
                bytes: sealed.bytes,
                last_append_time: sealed.last_append_time,
            },
            Source::Active(active) => SegmentSource::Active {
                index: active.index.clone(),
                bytes_max: active.bytes_max.max(self.bytes),
            },
        };
        shared
            .segments
            .open(&shared.log_directory(log), log, self.id, &source)
    }
}

/// A read has failed: the scrub looks at the segment soon, and puts what is damaged on record to the offset.
fn read_error(
    shared: &Shared,
    log: LogId,
    error: SegmentError,
    from: Offset,
    part: &Part<'_>,
) -> ReadError {
    match error {
        SegmentError::Io { source, .. } if is_shortage(&source) => ReadError::Io { from, source },
        SegmentError::Io { source, .. } => {
            tracing::error!(%log, segment = %part.id, error = %source, "a segment cannot be read");
            shared.suspects.add(log, part.id);
            ReadError::Io { from, source }
        }
        SegmentError::Damaged { .. } | SegmentError::Foreign { .. } => {
            tracing::error!(%log, %error, "a segment is damaged");
            if let (Source::Active(_), Some(found)) = (&part.source, shared.log(log)) {
                // What settles from now on has a file of its own, that the damage does not reach.
                found.ask_for_seal();
                shared.mark_dirty_once(&found);
            }
            shared.suspects.add(log, part.id);
            ReadError::Damaged {
                range: part.id.base..part.end_offset,
            }
        }
    }
}

/// Where a partition's files are: `p/<xx>/<topic uuid>-<partition>`, spread over 256 directories.
pub(crate) fn directory_of(root: &std::path::Path, log: LogId) -> PathBuf {
    let [first, ..] = log.topic_id.to_bytes();
    let spread = first ^ log.partition.get().to_le_bytes()[0];
    root.join("p")
        .join(format!("{spread:02x}"))
        .join(log.to_string())
}
