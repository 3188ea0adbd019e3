//! A log's settled part: its segments, as the log's state knows them and as readers see them.
//!
//! Callers: `log` reads through it, `settler` replaces it when it has settled something. Nothing here is open or mapped
//! for an idle log: files, maps and indexes live in the store's cache.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use model::batch::BatchHeader;
use model::{LogId, Offset, Timestamp};

use crate::checkpoint::ActiveSegment;
use crate::error::{ReadError, TimedOffset};
use crate::io::FileMap;
use crate::manifest::{Manifest, Sealed};
use crate::scrub::run::Suspects;
use crate::segment::{
    BadBatches, Examined, OpenSegment, SegmentError, SegmentId, SegmentSource, SharedIndex,
    is_shortage,
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
    first_append_time: Timestamp,
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
            first_append_time: sealed.first_append_time,
            source: Source::Sealed(sealed),
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

    /// A run of whole batches from the one that contains the first of `offsets`, or the first one behind it, and before the
    /// one that contains their end. None if there is none, or if it does not fit. Every batch was checked since its file was
    /// opened: the run ends before one that is not sound, which is put on record. Blocks.
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
        let first = match reader.locate(from) {
            Ok(Some(first)) => (first.position, first.header),
            Ok(None) => return Ok(None),
            // A head that is not as it was written stands before it in its block.
            Err(error) if !error.is_of_the_whole_segment() => {
                let examined = open
                    .examine_block_of(from, part.bytes, part.end_offset)
                    .map_err(fail)?;
                part.report(shared, log, &open, &examined);
                if let Some(bad) = examined.bad_at(from) {
                    return Err(bad_batches(bad, from));
                }
                let is_it = |(_, header): &&(u64, BatchHeader)| header.next_offset() > from;
                match examined.sound.iter().find(is_it) {
                    Some(first) => *first,
                    None => return Err(fail(error)),
                }
            }
            Err(error) => return Err(fail(error)),
        };
        let found = reader.extent_from(first, max_bytes as u64, min_one);
        let Some(extent) = found.map_err(fail)? else {
            return Ok(None);
        };
        let mut extent = reader.cut(extent, offsets.end).map_err(fail)?;
        let checked = open.check(&extent.positions, part.bytes, part.end_offset);
        if let Some(examined) = checked.map_err(fail)? {
            part.report(shared, log, &open, &examined);
            if let Some(bad) = examined.bad_at(first.1.base()) {
                return Err(bad_batches(bad, from));
            }
            let behind = |bad: &&BadBatches| bad.offsets.start > from;
            if let Some(bad) = examined.bad.iter().find(behind) {
                extent = reader.cut(extent, bad.offsets.start).map_err(fail)?;
            }
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

    /// When the broker appended the record at `offset`, or the next one: between these times.
    pub fn appended_between(
        &self,
        shared: &Shared,
        log: LogId,
        offset: Offset,
    ) -> Result<Option<(Timestamp, Timestamp)>, ReadError> {
        let Some(part) = self.parts().find(|part| part.end_offset > offset) else {
            return Ok(None);
        };
        let fail = |error: SegmentError| read_error(shared, log, error, offset, &part);
        let open = part.open(shared, log).map_err(fail)?;
        let reader = open.reader(part.bytes, part.end_offset);
        let found = reader.appended_between(offset).map_err(fail)?;
        Ok(found.map(|(since, until)| (since.unwrap_or(part.first_append_time).min(until), until)))
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

/// What a reader is told of batches that are not as they were written.
fn bad_batches(bad: &BadBatches, from: Offset) -> ReadError {
    if bad.is_unreadable {
        let source = std::io::Error::other(bad.reason.clone());
        return ReadError::Io { from, source };
    }
    ReadError::Damaged {
        range: bad.offsets.clone(),
    }
}

impl Part<'_> {
    /// Puts what is damaged on record, and has the scrub look at what could not be read. The blocks need no second look once
    /// no reader is given any of it.
    fn report(&self, shared: &Shared, log: LogId, open: &OpenSegment, examined: &Examined) {
        let mut is_all_on_record = true;
        for bad in &examined.bad {
            let (position, reason) = (bad.position, &bad.reason);
            if !bad.is_unreadable {
                let reason = format!("segment {}, position {position}: {reason}", self.id);
                if shared.lose_range(log, bad.offsets.clone(), reason) {
                    shared.counters.read_faults.fetch_add(1, Relaxed);
                    self.go_on_behind(shared, log);
                }
            } else if !shared.is_lost(log, &bad.offsets) {
                tracing::error!(%log, segment = %self.id, position, reason, "a segment cannot be read");
                shared.suspects.add(log, self.id);
                is_all_on_record = false;
            }
        }
        if is_all_on_record {
            open.noted(examined);
        }
    }

    /// What settles from now on has a file of its own, that the damage does not reach.
    fn go_on_behind(&self, shared: &Shared, log: LogId) {
        if let (Source::Active(_), Some(found)) = (&self.source, shared.log(log)) {
            found.ask_for_seal();
            shared.mark_dirty_once(&found);
        }
    }

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
            part.go_on_behind(shared, log);
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
