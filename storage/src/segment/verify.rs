//! Verifies a segment's bytes, batch by batch, resumable: the scrub does it at a rate, the offline tools at once.
//!
//! Checks each batch's structure and CRC-32C, that offsets follow one another, and what Kafka's checksum leaves out against
//! the block checksums of the index. A batch that is not as it was is reported and stepped over, if it can be told where the
//! next one begins. What is damaged is never asked how far the damage reaches: a base offset stands outside the checksum, and
//! one wrong bit of it would name offsets that never were. In a sparse segment an offset is believed as far as it lies behind the
//! batches before it and inside its block of the index, whose checksum of the heads has the last word.

use std::ops::Range;

use bytes::Bytes;
use model::Offset;
use model::batch::{Batch, BatchHeader, HEADER_BYTES};

use super::index::SegmentIndex;
use super::index::{HEADS_OF_NONE, with_head};
use super::walk::{HeaderWalk, Walked};
use super::{SegmentError, SegmentId};
use crate::io::DiskFile;
use crate::manifest::SegmentKind;

const READ_BYTES: usize = 64 * 1024;

/// A batch that the verifier came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Where it starts.
    pub position: u64,
    /// Its header.
    pub header: BatchHeader,
    /// What is wrong; None if all is well.
    pub fault: Option<String>,
    /// Whether that is a sector that the disk could not read.
    pub is_unreadable: bool,
    /// The offsets that this says something about: the batch's, or those of the whole index block that ends with it.
    pub offsets: Range<Offset>,
}

/// What became of one batch's bytes.
enum Checked {
    Sound,
    Damaged(String),
    /// The disk could not read a sector of it.
    Unreadable(String),
}

/// Walks over a segment and checks it.
#[derive(Debug)]
pub struct SegmentVerifier {
    id: SegmentId,
    kind: SegmentKind,
    position: u64,
    end: u64,
    end_offset: Offset,
    next_offset: Offset,
    block: usize,
    /// Where this block begins, and whether something was wrong in it.
    block_from: Offset,
    is_block_faulty: bool,
    heads: crc32fast::Hasher,
    /// Of all batches so far.
    all_heads: u32,
}

impl SegmentVerifier {
    /// Starts at the front of a segment of which `bytes` are published. Nothing in it has an offset at or past `end_offset`;
    /// where nobody knows the end that is `Offset::MAX`, and each batch is believed.
    pub fn new(
        id: SegmentId,
        kind: SegmentKind,
        bytes: u64,
        end_offset: Offset,
    ) -> SegmentVerifier {
        SegmentVerifier {
            id,
            kind,
            position: 0,
            end: bytes,
            end_offset,
            next_offset: id.base,
            block: 0,
            block_from: id.base,
            is_block_faulty: false,
            heads: crc32fast::Hasher::new(),
            all_heads: HEADS_OF_NONE,
        }
    }

    /// Checks one block of the index, which ends at position `end` and offset `end_offset` as far as it is published.
    pub fn of_block(
        index: &SegmentIndex,
        block: usize,
        end: u64,
        end_offset: Offset,
    ) -> SegmentVerifier {
        let from = index.block_offset(block);
        SegmentVerifier {
            position: index.blocks()[block].position.into(),
            next_offset: from,
            block,
            block_from: from,
            ..SegmentVerifier::new(index.id(), index.kind(), end, end_offset)
        }
    }

    /// Checks the next batch. None at the end. Errors: the disk's, and damage that cannot be stepped over because it is not
    /// known where the next batch starts; the verifier then stays where it is.
    pub fn next_batch(
        &mut self,
        file: &dyn DiskFile,
        index: Option<&SegmentIndex>,
    ) -> Result<Option<Verified>, SegmentError> {
        let Some(walked) = self.walk_one(file)? else {
            return Ok(None);
        };
        let from = self.next_offset;
        let (mut fault, is_unreadable) = match self.check_batch(file, &walked)? {
            Checked::Sound => (None, false),
            Checked::Damaged(reason) => (Some(reason), false),
            Checked::Unreadable(reason) => (Some(reason), true),
        };
        let base = walked.header.base();
        let is_in_place = match self.kind {
            SegmentKind::Plain => base == from,
            SegmentKind::Sparse => {
                base >= from && walked.header.next_offset() <= self.block_limit(index)
            }
        };
        let Some(next) = self.offset_after(file, &walked, fault.is_none(), is_in_place) else {
            let reason = fault.unwrap_or_else(|| "offsets past the segment's end".to_owned());
            return Err(SegmentError::damaged(self.id, walked.position, reason));
        };
        if fault.is_none() && !is_in_place {
            fault = Some(format!("base offset {base}, expected {from}"));
        }
        self.is_block_faulty |= fault.is_some();
        self.position = walked.end_position();
        self.next_offset = next;
        self.all_heads = with_head(self.all_heads, &walked.head);
        let mut offsets = from..next;
        if let Some(index) = index
            && let Some((block_from, wrong)) = self.check_block(index, &walked)
            && fault.is_none()
        {
            offsets.start = block_from;
            fault = Some(wrong);
        }
        Ok(Some(Verified {
            position: walked.position,
            header: walked.header,
            fault,
            is_unreadable,
            offsets,
        }))
    }

    /// No batch of the block that the verifier is in has an offset at or past this.
    fn block_limit(&self, index: Option<&SegmentIndex>) -> Offset {
        match index {
            Some(index) if self.block + 1 < index.blocks().len() => {
                index.block_offset(self.block + 1)
            }
            _ => self.end_offset,
        }
    }

    /// The offset after a batch. An intact one's count of offsets is covered by its checksum; behind another one the next
    /// batch tells. None if it cannot be told.
    fn offset_after(
        &self,
        file: &dyn DiskFile,
        walked: &Walked,
        is_intact: bool,
        is_in_place: bool,
    ) -> Option<Offset> {
        if self.end_offset == Offset::MAX {
            return Some(walked.header.next_offset());
        }
        let from = self.next_offset;
        let next = if is_intact && self.kind == SegmentKind::Plain {
            from.checked_plus(walked.header.offset_count())?
        } else if is_intact && is_in_place {
            walked.header.next_offset()
        } else if walked.end_position() == self.end {
            self.end_offset
        } else {
            let mut bytes = [0; HEADER_BYTES];
            file.read_exact_at(walked.end_position(), &mut bytes).ok()?;
            BatchHeader::parse(&bytes).ok()?.base()
        };
        (from < next && next <= self.end_offset).then_some(next)
    }

    /// Goes on at the next block of the index, behind a place that cannot be stepped over. False if there is none.
    pub fn resume_behind(&mut self, index: &SegmentIndex) -> bool {
        let next = index
            .blocks()
            .partition_point(|block| u64::from(block.position) <= self.position);
        let Some(block) = index.blocks().get(next) else {
            return false;
        };
        self.position = block.position.into();
        self.next_offset = index.block_offset(next);
        self.block = next;
        self.block_from = self.next_offset;
        self.is_block_faulty = false;
        self.heads = crc32fast::Hasher::new();
        true
    }

    /// Where the next batch starts.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The offset after the last batch.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    fn walk_one(&self, file: &dyn DiskFile) -> Result<Option<Walked>, SegmentError> {
        let positions = self.position..self.end;
        HeaderWalk::new(file, self.id, positions, Offset::ZERO, 64).next_batch()
    }

    fn check_batch(&self, file: &dyn DiskFile, walked: &Walked) -> Result<Checked, SegmentError> {
        let total = walked.header.total_bytes();
        let mut bytes = Vec::new();
        // In pieces, so that what cannot be read is named by its place.
        while bytes.len() < total {
            let position = walked.position + bytes.len() as u64;
            match file.read_new(position, READ_BYTES.min(total - bytes.len())) {
                Ok(piece) if bytes.is_empty() => bytes = piece,
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    return Ok(Checked::Unreadable(format!("position {position}: {error}")));
                }
                Err(error) => return Err(SegmentError::io(self.id)(error)),
            }
        }
        Ok(match Batch::parse(Bytes::from(bytes)) {
            Ok(_) => Checked::Sound,
            Err(error) => Checked::Damaged(error.to_string()),
        })
    }

    /// The checksum of the heads of all batches that were walked over.
    pub fn heads_checksum(&self) -> u32 {
        self.all_heads
    }

    /// At the end of a block: where it began and what is wrong with the heads of its batches, unless that was told already.
    fn check_block(&mut self, index: &SegmentIndex, walked: &Walked) -> Option<(Offset, String)> {
        self.heads.update(&walked.head);
        let block = index.blocks().get(self.block)?;
        let end = index.block_end(self.block);
        if self.position < end {
            return None;
        }
        self.block += 1;
        let from = std::mem::replace(&mut self.block_from, self.next_offset);
        let was_faulty = std::mem::replace(&mut self.is_block_faulty, false);
        let computed = std::mem::take(&mut self.heads).finalize();
        if was_faulty {
            return None;
        }
        if self.position > end {
            let reason = format!("the batch crosses the end of its index block at {end}");
            return Some((from, reason));
        }
        let reason = format!(
            "crc mismatch of the batch heads from position {}",
            block.position
        );
        (computed != block.heads_checksum).then_some((from, reason))
    }
}

/// Compares the first block of a log with a valid index of it: catches log files that were swapped, for the price of one
/// read. Errors: the disk's, and damage.
pub fn check_first_block(file: &dyn DiskFile, index: &SegmentIndex) -> Result<(), SegmentError> {
    let Some(block) = index.blocks().first() else {
        return Ok(());
    };
    let mut walk = HeaderWalk::new(
        file,
        index.id(),
        0..index.block_end(0),
        index.id().base,
        READ_BYTES / 4,
    );
    let mut heads = crc32fast::Hasher::new();
    while let Some(walked) = walk.next_batch()? {
        heads.update(&walked.head);
    }
    if heads.finalize() == block.heads_checksum {
        return Ok(());
    }
    Err(SegmentError::damaged(
        index.id(),
        0,
        "the first batches are not those that were indexed",
    ))
}
