//! Looks at the records of a log ahead of what is written, piece by piece, and has each piece decided.
//!
//! Called by the executor. A piece ends between two batches. Of a batch that cannot be read no record is shown, so that all of it is
//! kept. Where there are threads one of its own looks at the next piece while the one before is decided and written, so that two
//! pieces are held at a time; otherwise the next is looked at when it is asked for.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use bytes::Bytes;
use model::batch::{Batch, BatchHeader, DecompressLimit};
use model::{LogId, Offset, Timestamp};

use super::piece::{Ahead, Decided, Piece, Sample};
use super::policy::ThinPolicy;
use crate::cleanup::SegmentView;
use crate::log::LogCell;
use crate::rewrite::{Batches, Pace, Pages, RewriteError, RewriteParts, open_segment};
use crate::segment::SegmentId;
use crate::segment::summary::{Summary, SummaryReader, read_summary};

/// What a look works with.
#[derive(Clone, Copy)]
pub(super) struct LookParts<'o> {
    pub parts: &'o RewriteParts,
    pub policy: &'o ThinPolicy,
    pub pace: &'o dyn Pace,
}

/// Looks at one piece after the other.
pub(super) struct Look<'o> {
    with: LookParts<'o>,
    log: &'o Arc<LogCell>,
    /// All that is looked at, in order, and which comes next.
    segments: &'o [SegmentView],
    next: usize,
    /// Those that are read again soon, to be written.
    written: HashSet<SegmentId>,
    open: Option<Opened<'o>>,
    piece_bytes: usize,
    /// Where the pieces so far end, and what they left to the next one.
    end: Offset,
    ahead: Ahead,
    bytes_read: u64,
}

/// A piece whose records were all shown.
pub(super) struct LookedPiece<'o> {
    piece: Piece<'o>,
    /// What it is of.
    range: Range<Offset>,
    /// How many bytes of segments were looked at by then, or begun to be.
    bytes_read: u64,
}

/// Where pieces come from.
pub(super) enum Pieces<'o> {
    /// They are looked at when they are asked for.
    Look(Box<Look<'o>>),
    /// Another thread looks at them.
    Thread(Receiver<Result<LookedPiece<'o>, RewriteError>>),
}

/// See the module.
pub(super) struct Outlook<'o> {
    pieces: Pieces<'o>,
    now: Timestamp,
    /// All records that were appended before are in the log.
    complete_until: Timestamp,
    decided: Option<Decided<'o>>,
    /// What the decided piece is of.
    range: Range<Offset>,
    bytes_read: u64,
}

impl<'o> Outlook<'o> {
    /// Nothing is decided yet; the first piece will begin here. All records that were appended before `complete_until` are in the log.
    pub fn new(
        pieces: Pieces<'o>,
        begin: Offset,
        now: Timestamp,
        complete_until: Timestamp,
    ) -> Outlook<'o> {
        Outlook {
            pieces,
            now,
            complete_until,
            decided: None,
            range: begin..begin,
            bytes_read: 0,
        }
    }

    /// How many bytes of segments were looked at, or begun to be.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Where the present piece ends.
    pub fn decided_to(&self) -> Offset {
        self.range.end
    }

    /// Whether all before an offset is decided.
    pub fn has_decided(&self, end: Offset) -> bool {
        end <= self.range.end
    }

    /// The present piece.
    pub fn decided(&self) -> Option<&Decided<'o>> {
        self.decided.as_ref()
    }

    /// Goes on until the piece that holds an offset is decided.
    pub fn reach(&mut self, offset: Offset) -> Result<(), RewriteError> {
        while self.range.end <= offset {
            self.advance()?;
        }
        Ok(())
    }

    /// Whether a range is known to stay as it is: all of it is in the present piece, and nothing of it goes.
    pub fn keeps_all_of(&self, offsets: &Range<Offset>) -> bool {
        let is_in = self.range.start <= offsets.start && offsets.end <= self.range.end;
        let decided = self.decided.as_ref();
        is_in && decided.is_some_and(|decided| !decided.drops_of(offsets))
    }

    /// The lowest tier of a range's records in the present piece.
    pub fn lowest_tier(&self, offsets: &Range<Offset>) -> Option<u8> {
        self.decided.as_ref()?.lowest_tier(offsets)
    }

    /// Has the next piece decided, in the place of the present one.
    pub fn advance(&mut self) -> Result<(), RewriteError> {
        self.decided = None;
        let looked = match &mut self.pieces {
            Pieces::Look(look) => look.next_piece()?,
            Pieces::Thread(pieces) => pieces.recv().map_err(|_| RewriteError::Stopped)??,
        };
        assert!(
            looked.range.start == self.range.end,
            "a piece begins where the one before ends"
        );
        self.range = looked.range;
        self.decided = Some(looked.piece.decide(self.now, self.complete_until));
        self.bytes_read = looked.bytes_read;
        Ok(())
    }
}

impl<'o> Look<'o> {
    pub fn new(
        with: LookParts<'o>,
        log: &'o Arc<LogCell>,
        (segments, written): (&'o [SegmentView], HashSet<SegmentId>),
        piece_bytes: usize,
    ) -> Look<'o> {
        Look {
            with,
            log,
            segments,
            next: 0,
            written,
            open: None,
            piece_bytes,
            end: segments.first().expect("something is looked at").id.base,
            ahead: Ahead::default(),
            bytes_read: 0,
        }
    }

    /// Looks at all that is left, piece by piece. Ends early if nobody wants the pieces any more.
    pub fn run(mut self, pieces: &SyncSender<Result<LookedPiece<'o>, RewriteError>>) {
        while self.open.is_some() || self.next < self.segments.len() {
            let piece = self.next_piece();
            let is_last = piece.is_err();
            if pieces.send(piece).is_err() || is_last {
                return;
            }
        }
    }

    /// Shows the next piece what fits into it.
    fn next_piece(&mut self) -> Result<LookedPiece<'o>, RewriteError> {
        let left = self.segments[self.next..].iter();
        let left = left.chain(self.open.iter().map(|open| open.view));
        let records = left.map(|segment| segment.records).sum();
        let mut piece = Piece::new(self.with.policy, self.piece_bytes, records);
        let begin = self.end;
        let mut end = begin;
        for section in self.open.iter().flat_map(|open| &open.present) {
            piece.begin_section(section, None);
        }
        piece.begin_with(std::mem::take(&mut self.ahead), begin);
        let pace = self.with.pace;
        while let Some(open) = self.open()? {
            if !open.fill(&mut piece, pace, &mut end)? {
                self.ahead = piece.leave_ahead(end);
                break;
            }
            end = open.view.end_offset;
            self.open = None;
        }
        assert!(end > begin, "there is more to look at");
        self.end = end;
        Ok(LookedPiece {
            piece,
            range: begin..end,
            bytes_read: self.bytes_read,
        })
    }

    /// The segment that is looked at; None if there is no other.
    fn open(&mut self) -> Result<Option<&mut Opened<'o>>, RewriteError> {
        if self.open.is_none() {
            let Some(view) = self.segments.get(self.next) else {
                return Ok(None);
            };
            let pages = match self.written.contains(&view.id) {
                true => Pages::Keep,
                false => Pages::AsFound,
            };
            let batches = open_segment(self.with.parts, self.log, view.id, pages)?;
            self.next += 1;
            self.bytes_read += view.bytes;
            let mut open = Opened {
                view,
                batches,
                ahead: None,
                summary: summary_of(self.with.parts, self.log.id(), view.id),
                section: None,
                present: Vec::new(),
            };
            open.read_section();
            self.open = Some(open);
        }
        Ok(self.open.as_mut())
    }
}

/// A segment that is being looked at.
struct Opened<'o> {
    view: &'o SegmentView,
    batches: Batches,
    /// A batch that did not fit into the piece before.
    ahead: Option<(BatchHeader, Bytes)>,
    summary: Option<SummaryReader>,
    /// The next section of the summary.
    section: Option<Summary>,
    /// Sections that later batches may be counted in.
    present: Vec<Summary>,
}

impl Opened<'_> {
    /// Shows a piece what fits into it; `end` is where that ends. True if the segment is at its end.
    fn fill(
        &mut self,
        piece: &mut Piece<'_>,
        pace: &dyn Pace,
        end: &mut Offset,
    ) -> Result<bool, RewriteError> {
        loop {
            let ahead = match self.ahead.take() {
                Some(ahead) => Some(ahead),
                None => {
                    let found = self.batches.next_batch(pace)?;
                    found.map(|found| (found.header, found.bytes))
                }
            };
            let Some((header, bytes)) = ahead else {
                return Ok(true);
            };
            let records = header.record_count.unsigned_abs().into();
            if !piece.has_room_for(records, header.next_offset()) {
                self.ahead = Some((header, bytes));
                return Ok(false);
            }
            self.begin_sections(piece, &header);
            show(piece, &header, &bytes, self.view.last_append_time);
            *end = header.next_offset();
        }
    }

    /// Begins with the sections that reach into a batch, and ends with those that end before it.
    fn begin_sections(&mut self, piece: &mut Piece<'_>, header: &BatchHeader) {
        let ends_before = |section: &Summary| {
            section
                .counted
                .last()
                .is_none_or(|last| last.end <= header.base())
        };
        if self.present.iter().any(ends_before) {
            self.present.retain(|section| !ends_before(section));
            piece.reach(header.base());
        }
        let begins = |section: &Summary| {
            section
                .counted
                .first()
                .is_none_or(|first| first.start < header.next_offset())
        };
        while let Some(section) = self.section.take_if(|section| begins(section)) {
            let first = section.counted.first().map(|first| first.start);
            let base = first.map_or(header.base(), |first| first.max(header.base()));
            piece.begin_section(&section, Some(base));
            self.present.push(section);
            self.read_section();
        }
    }

    fn read_section(&mut self) {
        let Some(summary) = &mut self.summary else {
            return;
        };
        match summary.next_section() {
            Ok(section) => self.section = section,
            Err(error) => {
                tracing::warn!(segment = %self.view.id, %error, "a summary cannot be read: it is not used");
                self.summary = None;
            }
        }
    }
}

/// Shows the records of a batch to a piece.
fn show(piece: &mut Piece<'_>, header: &BatchHeader, bytes: &Bytes, appended: Timestamp) {
    if header.is_control() {
        return;
    }
    let records = Batch::parse_unverified(bytes.clone())
        .and_then(|batch| batch.records(DecompressLimit::default()));
    let Ok(mut records) = records else {
        return;
    };
    while let Some(record) = records.next_ref() {
        let Ok(record) = record else {
            return piece.forget_from(header.base());
        };
        piece.push(Sample {
            offset: record.offset,
            key: record.key,
            time: record.timestamp,
            appended,
            value: record.value,
        });
    }
}

/// A segment's summary, if it has one that can be read.
pub(super) fn summary_of(parts: &RewriteParts, log: LogId, id: SegmentId) -> Option<SummaryReader> {
    let data = &parts.files.data;
    match read_summary(data.disk(), &data.of_log(log), log, id) {
        Ok(summary) => summary,
        Err(error) => {
            tracing::warn!(%log, segment = %id, %error, "a summary cannot be read: it is not used");
            None
        }
    }
}
