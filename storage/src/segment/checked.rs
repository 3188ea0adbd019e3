//! Checks batches before they are served from a segment for the first time since its file was opened or written.
//!
//! Callers: `Segments::read`, on a thread that may block. A block of the index is checked as a whole: each batch's CRC-32C,
//! that offsets follow one another (in a sparse segment: rise), and the checksum of the heads, which Kafka's checksum leaves out. A block that was checked
//! is not looked at again while the file stays open, so that warm reads pay for a bit and no more.
//! Bytes are read with `read_at` and never through the map: an unreadable sector is an error and not a signal.
//! Invariant: a block's bit is set only if each of its batches is sound or is on record as damaged.

use std::cell::Cell;
use std::io;
use std::ops::Range;

use model::Offset;
use model::batch::{BatchHeader, BodyChecksum, HEADER_BYTES};

use super::cache::OpenSegment;
use super::checked_blocks::Span;
use super::index::{HEADS_OF_NONE, SegmentIndex, with_head};
use super::verify::SegmentVerifier;
use super::walk::HEAD_BYTES;
use super::{SegmentError, is_shortage};
use crate::io::DiskFile;

/// How much is read at a time: enough for the disk, little enough for the processor's cache.
const WINDOW_BYTES: usize = 256 * 1024;

thread_local! {
    /// What the thread's last check read into. Memory that is new each time would cost a page fault for each page of it, and an
    /// interrupt of every processor.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Something in a segment that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBatches {
    /// The offsets that this says something about.
    pub offsets: Range<Offset>,
    /// Where in the file.
    pub position: u64,
    /// What was found.
    pub reason: String,
    /// Whether the disk could not read it. Otherwise it was read, and is not what was written.
    pub is_unreadable: bool,
}

/// What a close look at some blocks found.
#[derive(Debug, Default)]
pub struct Examined {
    /// What is wrong, in the order of offsets.
    pub bad: Vec<BadBatches>,
    /// Where the sound batches are.
    pub sound: Vec<(u64, BatchHeader)>,
    spans: Vec<Span>,
}

impl Examined {
    /// What is wrong at an offset.
    pub fn bad_at(&self, offset: Offset) -> Option<&BadBatches> {
        self.bad.iter().find(|bad| bad.offsets.contains(&offset))
    }
}

impl OpenSegment {
    /// Checks what of a range of whole batches was not checked since the file was opened; blocks that it touches are checked
    /// as a whole. None if all of it is sound. The caller puts what is bad on record and says so with [`Self::noted`].
    /// `bytes` and `end_offset` are the segment's published end. Blocks.
    pub fn check(
        &self,
        positions: &Range<u64>,
        bytes: u64,
        end_offset: Offset,
    ) -> Result<Option<Examined>, SegmentError> {
        let spans = self.index().with(self.file(), |index| {
            let checked = self.checked().locked();
            let first = index.block_of_position(positions.start).unwrap_or(0);
            spans_of(index, first, bytes, end_offset)
                .take_while(|span| span.positions.start < positions.end)
                .filter(|span| !checked.holds(span.block, span.positions.end.min(positions.end)))
                .collect::<Vec<Span>>()
        })?;
        if spans.is_empty() {
            return Ok(None);
        }
        let mut window = Window::new(self.file(), &spans);
        let (sound, suspect): (Vec<Span>, Vec<Span>) = spans
            .into_iter()
            .partition(|span| is_sound(&mut window, span));
        self.checked().mark(&sound);
        if suspect.is_empty() {
            return Ok(None);
        }
        let examined = self.examine(suspect)?;
        if examined.bad.is_empty() {
            // Whoever wrote the last block again in the meantime has changed none of its published bytes.
            self.noted(&examined);
            return Ok(None);
        }
        Ok(Some(examined))
    }

    /// Whether [`OpenSegment::check`] would find all of a range checked already. Does not block if the index is there.
    pub fn is_checked(&self, positions: &Range<u64>, bytes: u64, end_offset: Offset) -> bool {
        let is_checked = self.index().peek(|index| {
            let checked = self.checked().locked();
            let first = index.block_of_position(positions.start).unwrap_or(0);
            spans_of(index, first, bytes, end_offset)
                .take_while(|span| span.positions.start < positions.end)
                .all(|span| checked.holds(span.block, span.positions.end.min(positions.end)))
        });
        is_checked.unwrap_or(false)
    }

    /// Looks closely at the block that holds `offset`: for one whose batches cannot be walked over from head to head.
    pub fn examine_block_of(
        &self,
        offset: Offset,
        bytes: u64,
        end_offset: Offset,
    ) -> Result<Examined, SegmentError> {
        let span = self.index().with(self.file(), |index| {
            let first = index.block_of_offset(offset).unwrap_or(0);
            spans_of(index, first, bytes, end_offset).next()
        })?;
        self.examine(span.into_iter().collect())
    }

    /// What is bad is on record, and no reader is given it: the blocks need no second look.
    pub fn noted(&self, examined: &Examined) {
        self.checked().mark(&examined.spans);
    }

    fn examine(&self, spans: Vec<Span>) -> Result<Examined, SegmentError> {
        let index = self.index().with(self.file(), SegmentIndex::clone)?;
        let mut examined = Examined {
            spans,
            ..Examined::default()
        };
        for span in &examined.spans {
            let mut verifier =
                SegmentVerifier::of_block(&index, span.block, span.positions.end, span.offsets.end);
            loop {
                let (from, position) = (verifier.next_offset(), verifier.position());
                let bad = match verifier.next_batch(self.file(), Some(&index)) {
                    Ok(None) if span.may_end_at(from) => break,
                    Ok(None) => BadBatches {
                        offsets: from..span.offsets.end,
                        position,
                        reason: format!(
                            "the batches end at offset {from}, expected {}",
                            span.offsets.end
                        ),
                        is_unreadable: false,
                    },
                    Ok(Some(verified)) => match verified.fault {
                        None => {
                            examined.sound.push((verified.position, verified.header));
                            continue;
                        }
                        Some(reason) => BadBatches {
                            offsets: verified.offsets,
                            position,
                            reason,
                            is_unreadable: verified.is_unreadable,
                        },
                    },
                    Err(SegmentError::Io { segment, source }) if is_shortage(&source) => {
                        return Err(SegmentError::Io { segment, source });
                    }
                    // Where the next batch begins cannot be told: the rest of the block is lost with it.
                    Err(SegmentError::Io { source, .. }) => BadBatches {
                        offsets: from..span.offsets.end,
                        position,
                        reason: source.to_string(),
                        is_unreadable: true,
                    },
                    Err(error) => BadBatches {
                        offsets: from..span.offsets.end,
                        position,
                        reason: match error {
                            SegmentError::Damaged { reason, .. } => reason,
                            other => other.to_string(),
                        },
                        is_unreadable: false,
                    },
                };
                let ends_block = bad.offsets.end >= span.offsets.end;
                push_bad(&mut examined.bad, bad);
                if ends_block {
                    break;
                }
            }
        }
        let is_bad = |header: &BatchHeader| {
            examined
                .bad
                .iter()
                .any(|bad| bad.offsets.contains(&header.base()))
        };
        examined.sound.retain(|(_, header)| !is_bad(header));
        Ok(examined)
    }
}

/// Neighbours are one range, so that a bad sector full of small batches is one line on record.
fn push_bad(all: &mut Vec<BadBatches>, bad: BadBatches) {
    match all.last_mut() {
        Some(last)
            if last.is_unreadable == bad.is_unreadable && bad.offsets.start <= last.offsets.end =>
        {
            last.offsets.start = last.offsets.start.min(bad.offsets.start);
            last.offsets.end = last.offsets.end.max(bad.offsets.end);
        }
        _ => all.push(bad),
    }
}

/// The blocks from `first` on, as far as they are published.
fn spans_of(
    index: &SegmentIndex,
    first: usize,
    bytes: u64,
    end_offset: Offset,
) -> impl Iterator<Item = Span> + '_ {
    let blocks = index.blocks();
    (first..blocks.len())
        .map(move |block| {
            let end = index.block_end(block);
            let next_offset = if block + 1 < blocks.len() {
                index.block_offset(block + 1)
            } else {
                index.end_offset()
            };
            Span {
                block,
                positions: blocks[block].position.into()..end.min(bytes),
                offsets: index.block_offset(block)..next_offset.min(end_offset),
                kind: index.kind(),
                heads_checksum: (end <= bytes).then_some(blocks[block].heads_checksum),
            }
        })
        .take_while(move |span| span.positions.start < bytes)
}

/// Whether a block is as it was written. What is not, is looked at more closely by the caller.
fn is_sound(window: &mut Window<'_>, span: &Span) -> bool {
    let mut position = span.positions.start;
    let mut next = span.offsets.start;
    let mut heads = HEADS_OF_NONE;
    while position < span.positions.end {
        let left = span.positions.end - position;
        let Ok(Some(header)) = window.header(position, left) else {
            return false;
        };
        let (header, head) = header;
        let total = header.total_bytes() as u64;
        if total > left || !span.kind.may_follow(next, header.base()) {
            return false;
        }
        match window.checksum(position + HEAD_BYTES as u64..position + total) {
            Ok(computed) if computed == header.crc => {}
            _ => return false,
        }
        heads = with_head(heads, &head);
        position += total;
        next = header.next_offset();
    }
    span.may_end_at(next) && span.heads_checksum.is_none_or(|expected| expected == heads)
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        BUFFER.set(std::mem::take(&mut self.buffer));
    }
}

/// Reads a file in pieces that are larger than what is asked for.
struct Window<'f> {
    file: &'f dyn DiskFile,
    buffer: Vec<u8>,
    /// What of the file the buffer holds.
    holds: Range<u64>,
    /// Nothing at or past this position is read.
    end: u64,
}

impl<'f> Window<'f> {
    fn new(file: &'f dyn DiskFile, spans: &[Span]) -> Window<'f> {
        let start = spans.first().map_or(0, |span| span.positions.start);
        let end = spans.last().map_or(0, |span| span.positions.end);
        let bytes = usize::try_from(end - start).unwrap_or(usize::MAX);
        let bytes = bytes.clamp(HEADER_BYTES, WINDOW_BYTES);
        let mut buffer = BUFFER.take();
        if buffer.len() < bytes {
            buffer = vec![0; bytes];
        }
        Window {
            file,
            buffer,
            holds: start..start,
            end,
        }
    }

    /// At least `least` bytes from `position` on, and what else is at hand; fewer where the file ends.
    fn at(&mut self, position: u64, least: usize) -> io::Result<&[u8]> {
        let wanted = position + least as u64;
        if position < self.holds.start || wanted > self.holds.end {
            let room = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
            let count = self.buffer.len().min(room);
            let read = self.file.read_at(position, &mut self.buffer[..count])?;
            self.holds = position..position + read as u64;
        }
        let from = (position - self.holds.start) as usize;
        let until = (self.holds.end - self.holds.start) as usize;
        Ok(&self.buffer[from..until])
    }

    /// The header of the batch at `position`, and its head; None if there is none.
    fn header(
        &mut self,
        position: u64,
        left: u64,
    ) -> io::Result<Option<(BatchHeader, [u8; HEAD_BYTES])>> {
        if left < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let bytes = self.at(position, HEADER_BYTES)?;
        let head = bytes.first_chunk::<HEAD_BYTES>().copied();
        Ok(BatchHeader::parse(bytes).ok().zip(head))
    }

    /// CRC-32C of a range, which may be longer than the window.
    fn checksum(&mut self, positions: Range<u64>) -> io::Result<u32> {
        let mut checksum = BodyChecksum::default();
        let mut position = positions.start;
        while position < positions.end {
            let left = usize::try_from(positions.end - position).unwrap_or(usize::MAX);
            let bytes = self.at(position, 1)?;
            let piece = &bytes[..bytes.len().min(left)];
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            checksum.update(piece);
            position += piece.len() as u64;
        }
        Ok(checksum.value())
    }
}
