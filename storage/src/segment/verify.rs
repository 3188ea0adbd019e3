//! Verifies a segment's bytes, batch by batch, resumable: the scrub does it at a rate, the offline tools at once.
//!
//! Checks each batch's structure and CRC-32C, that offsets follow one another, and what Kafka's checksum leaves out against
//! the block checksums of the index. A batch with a wrong checksum is reported and stepped over as far as its header allows.

use bytes::Bytes;
use model::Offset;
use model::batch::{Batch, BatchHeader};

use super::index::SegmentIndex;
use super::walk::{HeaderWalk, Walked};
use super::{SegmentError, SegmentId};
use crate::io::DiskFile;

const READ_BYTES: usize = 64 * 1024;

/// A batch that the verifier came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Where it starts.
    pub position: u64,
    /// Its header.
    pub header: BatchHeader,
    /// What is wrong with it; None if all is well.
    pub fault: Option<String>,
}

/// Walks over a segment and checks it.
#[derive(Debug)]
pub struct SegmentVerifier {
    id: SegmentId,
    position: u64,
    end: u64,
    next_offset: Offset,
    block: usize,
    heads: crc32fast::Hasher,
}

impl SegmentVerifier {
    /// Starts at the front of a segment of which `bytes` are published.
    pub fn new(id: SegmentId, bytes: u64) -> SegmentVerifier {
        SegmentVerifier {
            id,
            position: 0,
            end: bytes,
            next_offset: id.base,
            block: 0,
            heads: crc32fast::Hasher::new(),
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
        let mut fault = self.check_batch(file, &walked)?;
        if fault.is_none() && walked.header.base() != self.next_offset {
            fault = Some(format!(
                "base offset {}, expected {}",
                walked.header.base(),
                self.next_offset
            ));
        }
        self.position = walked.end_position();
        self.next_offset = walked.header.next_offset();
        if let Some(index) = index
            && let Some(wrong) = self.check_block(index, &walked)
        {
            fault = fault.or(Some(wrong));
        }
        Ok(Some(Verified {
            position: walked.position,
            header: walked.header,
            fault,
        }))
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
        HeaderWalk::new(file, self.id, self.position..self.end, self.next_offset, 64).next_batch()
    }

    fn check_batch(
        &self,
        file: &dyn DiskFile,
        walked: &Walked,
    ) -> Result<Option<String>, SegmentError> {
        let mut bytes = vec![0; walked.header.total_bytes()];
        for (piece, chunk) in bytes.chunks_mut(READ_BYTES).enumerate() {
            let position = walked.position + (piece * READ_BYTES) as u64;
            match file.read_exact_at(position, chunk) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    return Ok(Some(format!("position {position}: {error}")));
                }
                Err(error) => return Err(SegmentError::io(self.id)(error)),
            }
        }
        Ok(Batch::parse(Bytes::from(bytes))
            .err()
            .map(|error| error.to_string()))
    }

    fn check_block(&mut self, index: &SegmentIndex, walked: &Walked) -> Option<String> {
        self.heads.update(&walked.head);
        let block = index.blocks().get(self.block)?;
        let end = index.block_end(self.block);
        if self.position < end {
            return None;
        }
        self.block += 1;
        let computed = std::mem::take(&mut self.heads).finalize();
        if self.position > end {
            return Some(format!(
                "the batch crosses the end of its index block at {end}"
            ));
        }
        (computed != block.heads_checksum).then(|| {
            format!(
                "crc mismatch of the batch heads from position {}",
                block.position
            )
        })
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
