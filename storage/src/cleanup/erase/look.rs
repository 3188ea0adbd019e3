//! Finds what a log has of some keys: sealed segments and their summaries one by one, and what is not sealed as readers get it.
//!
//! Caller: the erasure, before it writes something again, and for those who only ask. Every record is read; what cannot be is named.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use model::Offset;
use model::batch::{Batch, BatchHeader, DecompressLimit, split};

use super::keeper::hold_on;
use super::{EraseError, Found, Known, Looked, Sighting, Undecodable, Wanted};
use crate::cleanup::holds::Hold;
use crate::cleanup::{LogView, SegmentView};
use crate::error::{ReadError, StorageFailed};
use crate::log::Log;
use crate::rewrite::{Pace, Pages, RewriteError, RewriteParts, scan};
use crate::segment::SegmentId;
use crate::segment::summary::{Opened, open_summary};

/// So much is read at a time of what is not sealed.
const READ_BYTES: usize = 1 << 20;
/// Batches of a segment that are listed with what is wrong with them.
const UNDECODABLE_MAX: usize = 1_000;

pub(super) fn summary_of(parts: &RewriteParts, log: &Log, id: SegmentId) -> io::Result<Opened> {
    let data = &parts.files.data;
    open_summary(data.disk(), &data.of_log(log.id()), log.id(), id)
}

pub(super) struct Looker<'l> {
    parts: &'l RewriteParts,
    log: &'l Log,
    wanted: &'l Wanted,
    pace: &'l dyn Pace,
    /// Holds that are looked at; the first one on what was found is noted.
    pub holds: &'l [Hold],
    hold: Option<Hold>,
}

/// What batches have of the keys.
#[derive(Default)]
struct Tally {
    records: u64,
    offsets: Option<Range<Offset>>,
    undecodable: Vec<Undecodable>,
}

impl<'l> Looker<'l> {
    pub fn new(
        parts: &'l RewriteParts,
        log: &'l Log,
        wanted: &'l Wanted,
        pace: &'l dyn Pace,
    ) -> Looker<'l> {
        Looker {
            parts,
            log,
            wanted,
            pace,
            holds: &[],
            hold: None,
        }
    }

    /// Looks at all that lies before the end of what is wanted.
    pub fn all(mut self, view: &LogView, known: &mut Known) -> Result<Sighting, EraseError> {
        let mut sighting = Sighting::default();
        let mut end = view.start_offset;
        let is_meant = |one: &&SegmentView| one.sealed && one.id.base < self.wanted.before;
        let sealed: Vec<SegmentView> = view.segments.iter().filter(is_meant).copied().collect();
        for segment in sealed {
            end = end.max(segment.end_offset);
            sighting.segments_read += 1;
            sighting.bytes_read += segment.bytes;
            match self.sealed(segment.id, known) {
                Ok(looked) => sighting.add(&looked),
                Err(RewriteError::NoLongerLive { .. }) => {}
                Err(RewriteError::Cancelled(_)) => return Err(EraseError::Cancelled),
                Err(RewriteError::Deleted { .. }) => return Err(EraseError::NoLog),
                Err(error) => sighting
                    .unreadable
                    .push((segment.id, error.to_string().into())),
            }
        }
        self.unsealed(end, &mut sighting)?;
        sighting.hold = self.hold;
        Ok(sighting)
    }

    /// Looks at a sealed segment, unless it is known what it has.
    pub fn sealed(&mut self, id: SegmentId, known: &mut Known) -> Result<Looked, RewriteError> {
        if let Some(looked) = known.get(&id)
            && (looked.found.is_none() || self.holds.is_empty())
        {
            return Ok(looked.clone());
        }
        let io = |source| RewriteError::Io {
            segment: id,
            source,
        };
        let (windows, unreadable_summary) = self.windows_of(id).map_err(io)?;
        let mut tally = Tally::default();
        let (parts, cell, pace) = (self.parts, self.log.cell(), self.pace);
        scan(
            parts,
            cell,
            &[id],
            Pages::AsFound,
            pace,
            &mut |header, bytes| {
                self.take(header, bytes, Some(id), &mut tally);
                Ok(())
            },
        )?;
        let is_found = tally.records > 0 || windows > 0 || unreadable_summary;
        let found = is_found.then(|| Found {
            segment: id,
            offsets: tally.offsets.unwrap_or(Offset::ZERO..Offset::ZERO),
            records: tally.records,
            windows,
            unreadable_summary,
        });
        let looked = Looked {
            found,
            undecodable: tally.undecodable,
        };
        known.insert(id, looked.clone());
        Ok(looked)
    }

    /// How many windows of a segment's summary are of the keys, and whether that cannot be said.
    fn windows_of(&self, id: SegmentId) -> io::Result<(u64, bool)> {
        let mut summary = match summary_of(self.parts, self.log, id)? {
            Opened::None => return Ok((0, false)),
            Opened::Unusable(_) => return Ok((0, true)),
            Opened::Whole(summary) => summary,
        };
        let mut count = 0;
        while let Some(section) = summary.next_section()? {
            let keys = section.windows.iter();
            let keys = keys.filter_map(|window| window.at.key.as_deref());
            count += keys.filter(|key| self.wanted.is_key(key)).count() as u64;
        }
        Ok((count, false))
    }

    /// Looks at what is not sealed, from an offset on.
    fn unsealed(&mut self, from: Offset, sighting: &mut Sighting) -> Result<(), EraseError> {
        let bounds = self.log.bounds();
        let end = self.wanted.before.min(bounds.durable_end);
        let mut next = from.max(bounds.start);
        let mut tally = Tally::default();
        let is_any = next < end;
        while next < end {
            let chunk = match self.log.read_warm(next, READ_BYTES, true) {
                Ok(chunk) => chunk,
                Err(ReadError::Deleted) => return Err(EraseError::NoLog),
                Err(ReadError::OutOfRange { bounds, .. }) if bounds.start > next => {
                    next = bounds.start;
                    continue;
                }
                Err(ReadError::Damaged { range }) => {
                    let segment = SegmentId::first(range.start);
                    let reason = format!("offsets {} to {} are damaged", range.start, range.end);
                    sighting.unreadable.push((segment, reason.into()));
                    next = range.end;
                    continue;
                }
                Err(error) => {
                    return Err(EraseError::Failed(StorageFailed::new(error.to_string())));
                }
            };
            for batch in split(chunk.to_bytes()) {
                let batch = batch.map_err(|error| StorageFailed::new(error.to_string()))?;
                let header = *batch.header();
                self.take(&header, &batch.into_bytes(), None, &mut tally);
            }
            let bytes = chunk.bytes as u64;
            sighting.bytes_read += bytes;
            self.pace.spend(bytes).map_err(|_| EraseError::Cancelled)?;
            if chunk.end_offset <= next {
                break;
            }
            next = chunk.end_offset;
        }
        sighting.segments_read += u64::from(is_any);
        sighting.segments += u64::from(tally.records > 0);
        sighting.count(tally.records, tally.offsets);
        sighting.undecodable.extend(tally.undecodable);
        Ok(())
    }

    fn take(
        &mut self,
        header: &BatchHeader,
        bytes: &Bytes,
        segment: Option<SegmentId>,
        tally: &mut Tally,
    ) {
        let before = self.wanted.before;
        if header.is_control() || header.record_count == 0 || header.base() >= before {
            return;
        }
        let mut of_batch = Tally::default();
        let mut hold: Option<&Hold> = None;
        let mut read_records = |batch: Batch| {
            let mut records = batch.records(DecompressLimit::default())?;
            while let Some(record) = records.next_ref() {
                let record = record?;
                if !self.wanted.is(record.offset, record.key) {
                    continue;
                }
                of_batch.records += 1;
                let range = record.offset..record.offset.plus(1);
                of_batch.offsets = around(of_batch.offsets.take(), Some(range));
                hold = hold.or_else(|| hold_on(self.holds, &record));
            }
            Ok(())
        };
        let read = Batch::parse_unverified(bytes.clone()).and_then(&mut read_records);
        if read.is_ok() {
            // Of a batch that cannot be read to its end nothing goes.
            tally.records += of_batch.records;
            tally.offsets = around(tally.offsets.take(), of_batch.offsets);
            self.hold = self.hold.take().or_else(|| hold.cloned());
        }
        if let Err(error) = read
            && tally.undecodable.len() < UNDECODABLE_MAX
        {
            tally.undecodable.push(Undecodable {
                segment,
                base_offset: header.base(),
                reason: match of_batch.records {
                    0 => error.to_string(),
                    count => {
                        format!("{error}; of what can be read {count} records have a key")
                    }
                },
            });
        }
    }
}

impl Sighting {
    fn add(&mut self, looked: &Looked) {
        self.undecodable.extend(looked.undecodable.iter().cloned());
        if let Some(found) = &looked.found {
            self.segments += 1;
            self.windows += found.windows;
            let offsets = Some(found.offsets.clone()).filter(|range| !range.is_empty());
            self.count(found.records, offsets);
        }
    }

    fn count(&mut self, records: u64, offsets: Option<Range<Offset>>) {
        self.records += records;
        self.offsets = around(self.offsets.take(), offsets);
    }
}

/// The smallest range that has both in it.
fn around(one: Option<Range<Offset>>, other: Option<Range<Offset>>) -> Option<Range<Offset>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.start.min(other.start)..one.end.max(other.end)),
        (one, other) => one.or(other),
    }
}
