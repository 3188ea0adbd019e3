//! What an erasure keeps of each batch, and of the summary of a segment: all but what it is to erase.
//!
//! Caller: the erasure, for one segment that has something of its keys. Control batches stay. A batch whose records cannot be read
//! stays as it is: the look has named it. The last batch of each producer stays, as an empty one if need be.

use std::io;

use bytes::Bytes;
use model::LogId;
use model::batch::{Batch, BatchHeader, DecompressLimit, Filter, RecordRef, Rest, without_records};

use super::Wanted;
use crate::cleanup::compact_keeper::LastBatches;
use crate::cleanup::holds::{Hold, first_on};
use crate::rewrite::{KeepError, Keeper, RewriteParts, Verdict, new_id};
use crate::segment::SegmentId;
use crate::segment::summary::{Opened, SummaryWriter};

pub(super) struct EraseKeeper<'e> {
    wanted: &'e Wanted,
    holds: &'e [Hold],
    last_batches: &'e LastBatches,
    /// The old segment's.
    summary: Opened,
    /// The new one's.
    written: Option<SummaryWriter>,
    parts: &'e RewriteParts,
    log: LogId,
    /// The segment that takes the old one's place.
    new: SegmentId,
    filter: Filter,
    /// Why the new summary could not be written.
    pub trouble: Option<io::Error>,
    /// The first hold on a record that was to go.
    pub held: Option<Hold>,
    /// Records that went.
    pub records: u64,
}

impl<'e> EraseKeeper<'e> {
    pub fn new(
        erased: (&'e Wanted, LogId, SegmentId),
        holds: &'e [Hold],
        last_batches: &'e LastBatches,
        parts: &'e RewriteParts,
        summary: Opened,
    ) -> EraseKeeper<'e> {
        let (wanted, log, segment) = erased;
        EraseKeeper {
            wanted,
            holds,
            last_batches,
            summary,
            written: None,
            parts,
            log,
            new: new_id(&[segment]),
            trouble: None,
            filter: Filter::new(DecompressLimit::default()),
            held: None,
            records: 0,
        }
    }
}

/// The hold that keeps a record. One on a key keeps the records of that key alone.
pub(super) fn hold_on<'h>(holds: &'h [Hold], record: &RecordRef<'_>) -> Option<&'h Hold> {
    let is_meant = |hold: &&Hold| hold.key.is_none() || hold.key.as_deref() == record.key;
    let meant = holds.iter().filter(is_meant);
    first_on(meant, &(record.offset..record.offset.plus(1)))
}

impl Keeper for EraseKeeper<'_> {
    fn judge(&mut self, header: &BatchHeader, bytes: &Bytes) -> Result<Verdict, KeepError> {
        let is_behind = header.base() >= self.wanted.before;
        if header.is_control() || header.record_count == 0 || is_behind {
            return Ok(Verdict::Keep);
        }
        let (wanted, holds, held) = (self.wanted, self.holds, &mut self.held);
        let batch = Batch::parse_unverified(bytes.clone());
        let filtered = batch.and_then(|batch| {
            self.filter.apply(&batch, None, &mut |record| {
                let goes = wanted.is(record.offset, record.key);
                if goes && held.is_none() {
                    *held = hold_on(holds, record).cloned();
                }
                !goes
            })
        });
        if self.held.is_some() {
            return Err(KeepError::Enough);
        }
        let Ok(filtered) = filtered else {
            return Ok(Verdict::Keep);
        };
        self.records += u64::from(filtered.dropped);
        Ok(match filtered.rest {
            Rest::Whole => Verdict::Keep,
            Rest::Rebuilt(rest) => Verdict::Replace(rest),
            Rest::Nothing => {
                let is_last = header.producer().is_some_and(|(id, ..)| {
                    self.last_batches.contains(&(id, header.last_offset()))
                });
                match is_last {
                    true => Verdict::Replace(without_records(header)),
                    false => Verdict::Drop,
                }
            }
        })
    }

    fn finish(&mut self) -> Result<(), KeepError> {
        self.write_summary().map_err(|error| {
            self.trouble = Some(error);
            KeepError::Unable
        })
    }

    fn summary(&mut self) -> Option<SummaryWriter> {
        self.written.take()
    }

    fn wants_new(&self) -> bool {
        !matches!(self.summary, Opened::None)
    }
}

impl EraseKeeper<'_> {
    /// The summary without what is to be erased. What cannot be read is not carried on.
    fn write_summary(&mut self) -> io::Result<()> {
        let Opened::Whole(summary) = &mut self.summary else {
            return Ok(());
        };
        let data = &self.parts.files.data;
        let directory = data.of_log(self.log);
        let mut writer = SummaryWriter::create(data.shared_disk(), &directory, self.log, self.new)?;
        while let Some(mut section) = summary.next_section()? {
            let wanted = self.wanted;
            let goes = |key: Option<&[u8]>| key.is_some_and(|key| wanted.is_key(key));
            section
                .windows
                .retain(|window| !goes(window.at.key.as_deref()));
            writer.push(section)?;
        }
        self.written = Some(writer);
        Ok(())
    }
}
