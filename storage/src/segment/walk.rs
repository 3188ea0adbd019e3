//! Walks over the batch headers of a segment's file with `read_at`, so that a bad sector is an error and not a signal.
//! Callers: lookups within a block, index rebuilding, verification.

use std::ops::Range;

use model::Offset;
use model::batch::{BatchHeader, HEADER_BYTES};

use super::{SegmentError, SegmentId};
use crate::io::DiskFile;

/// Bytes of a batch that Kafka's checksum leaves out, and the checksum itself.
pub(super) const HEAD_BYTES: usize = 21;

/// A batch that the walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Where it starts.
    pub position: u64,
    /// Its header.
    pub header: BatchHeader,
    /// Its first 21 bytes, which the block checksums are made of.
    pub head: [u8; HEAD_BYTES],
}

impl Walked {
    /// Where the next batch starts.
    pub fn end_position(&self) -> u64 {
        self.position + self.header.total_bytes() as u64
    }
}

/// Reads batch headers one after the other.
#[derive(Debug)]
pub struct HeaderWalk<'a> {
    file: &'a dyn DiskFile,
    segment: SegmentId,
    position: u64,
    end: u64,
    next_offset: Offset,
    /// No longer than what was asked of it.
    buffer: Vec<u8>,
    read_bytes: usize,
    buffered: Range<u64>,
}

impl<'a> HeaderWalk<'a> {
    /// Starts at a batch's position; nothing at or past `positions.end` is looked at. `base` is the least base offset that
    /// the first batch may have. `read_bytes` is how much is read at a time.
    pub fn new(
        file: &'a dyn DiskFile,
        segment: SegmentId,
        positions: Range<u64>,
        base: Offset,
        read_bytes: usize,
    ) -> HeaderWalk<'a> {
        assert!(
            read_bytes >= HEADER_BYTES,
            "a header must fit into one read"
        );
        HeaderWalk {
            file,
            segment,
            position: positions.start,
            end: positions.end,
            next_offset: base,
            buffer: Vec::new(),
            read_bytes,
            buffered: 0..0,
        }
    }

    /// The next batch; None at the end. Errors: a header that cannot be right, a batch that does not fit, offsets that do
    /// not rise. After an error the walk stays where it is.
    pub fn next_batch(&mut self) -> Result<Option<Walked>, SegmentError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let left = self.end - self.position;
        if left < HEADER_BYTES as u64 {
            return Err(self.damaged(format!("{left} bytes are too few for a batch")));
        }
        let bytes = self.header_bytes()?;
        let head = *bytes
            .first_chunk::<HEAD_BYTES>()
            .expect("a header is longer than its head");
        let header = match BatchHeader::parse(bytes) {
            Ok(header) => header,
            Err(error) => return Err(self.damaged(error)),
        };
        if header.total_bytes() as u64 > left {
            let need = header.total_bytes();
            return Err(self.damaged(format!("the batch takes {need} bytes, {left} are left")));
        }
        if header.base() < self.next_offset {
            let (found, least) = (header.base(), self.next_offset);
            return Err(self.damaged(format!("base offset {found}, expected {least}")));
        }
        let walked = Walked {
            position: self.position,
            header,
            head,
        };
        self.position = walked.end_position();
        self.next_offset = header.next_offset();
        Ok(Some(walked))
    }

    /// Where the next batch starts.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The offset after the last batch that was walked over.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    fn header_bytes(&mut self) -> Result<&[u8], SegmentError> {
        let wanted = self.position..self.position + HEADER_BYTES as u64;
        if wanted.start < self.buffered.start || wanted.end > self.buffered.end {
            let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
            let count = self.read_bytes.min(left);
            if self.buffer.len() < count {
                self.buffer.resize(count, 0);
            }
            let buffer = &mut self.buffer[..count];
            let mut read = 0;
            // A read ends early before a bad sector, which the next one then begins with.
            while read < HEADER_BYTES {
                let more = self
                    .file
                    .read_at(self.position + read as u64, &mut buffer[read..])
                    .map_err(SegmentError::io(self.segment))?;
                if more == 0 {
                    break;
                }
                read += more;
            }
            self.buffered = self.position..self.position + read as u64;
            if read < HEADER_BYTES {
                return Err(self.damaged(format!("the file ends at {}", self.buffered.end)));
            }
        }
        let start = (self.position - self.buffered.start) as usize;
        Ok(&self.buffer[start..start + HEADER_BYTES])
    }

    fn damaged(&self, reason: impl ToString) -> SegmentError {
        SegmentError::damaged(self.segment, self.position, reason)
    }
}
