//! The key index of a segment: which of its blocks may hold a key, and the smallest timestamp in each block. A replay of one
//! key, or one that ends at a time, reads those blocks and no others.
//!
//! `<base offset>.<generation>.kix` lies beside the segment. It is derived data: made in the background after the seal, and for the
//! first blocks of an active segment while that grows, made again where it is missing or damaged, never trusted against the log, and
//! no part of a backup. It belongs to exactly the blocks that the segment's index names, or to the first of them: their heads'
//! checksums stand in it. The blocks behind those may hold any key and any time.
//!
//! A key is found by the XXH3 hash (64 bits, seed 0) of its bytes, and so is the value of a record's header [`NAME_HEADER`]: a look-up
//! tells the blocks of records that have it as the one or as the other. Sections of up to 4,096 blocks each choose how exactly they
//! tell keys and places apart, so that a file takes no more than an 80th of its segment; a section for which that would bring
//! too little says so, and all of it is read (`section.rs`). A batch whose records cannot be read is in the answer to every key.
//!
//! Little-endian. All that says how to read it stands at its end.
//! ```text
//! 0          8         12       16
//! | keyindex | version | zeros  |                               magic 8, version 4 = 3, zeros 4
//! | pages of the first section | pages of the second | ...      see section.rs
//! top:
//! | per block: smallest timestamp i64 |                           since version 2
//! per section:
//! | blocks 4 | kind 1 | unit shift 1 | hash bits 1 | page bits 1 | keys 4 | always 4 | per always: block 4 |
//! | per page, if kind 0: bytes 4 |
//! footer, 96 bytes:
//! | topic uuid 16 | partition 4 | generation 4 | base offset 8 | end offset 8 | log bytes 8 | blocks 4 | blocks crc32 4 |
//! | sections 4 | top bytes 4 | file bytes 8 | unused 8 | crc32 4 | version 4 | keyindex 8 |
//! ```
//! Until version 2 headers are not known. Kind 0 has pages; 1 has none, because there are too many keys for what it may take. Always: blocks, counted in the section,
//! that are in every answer. A block whose records cannot be read has the smallest timestamp there is. The blocks' checksum is the CRC-32 (IEEE) over `relative offset 4 | position 4 | heads crc32 4` of
//! each; the checksum of the footer covers the first 16 bytes, the top and the footer up to it. Each page has one of its own.
//! Callers: the builder's thread (`key_indexer.rs`), the log's scan, the offline tools.

mod bits;
mod build;
mod file;
mod files;
mod section;

use bytes::Bytes;
#[cfg(doc)]
use model::batch::NAME_HEADER;
use twox_hash::XxHash3_64;

pub use self::build::{Built, build};
pub use self::file::{KeyIndex, KeyIndexError, Looked, mend};
pub(crate) use self::files::{GROWTH_MIN, KeyIndexes, Place};
use super::index::SegmentIndex;

/// The magic at both ends.
pub const MAGIC: &[u8; 8] = b"keyindex";
/// The version that this build writes.
pub const VERSION: u32 = 3;
/// Since this one it knows the smallest timestamps.
const VERSION_OF_TIMES: u32 = 2;
/// Since this one it knows names in headers.
const VERSION_OF_NAMES: u32 = 3;
/// No segment of fewer bytes has a key index: one or two reads go through all of it.
pub const LOG_BYTES_MIN: u64 = 256 << 10;
/// A section takes no more than this part of its blocks' bytes.
const SHARE: u64 = 80;

/// What is looked for in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought {
    /// Records with this key.
    Key(Bytes),
    /// Records that are called so: by their key, or by a header [`NAME_HEADER`].
    Name(Bytes),
}

impl Sought {
    fn hash(&self) -> u64 {
        let (Sought::Key(bytes) | Sought::Name(bytes)) = self;
        hash_of(bytes)
    }
}

/// What a key is found by.
pub fn hash_of(key: &[u8]) -> u64 {
    XxHash3_64::oneshot(key)
}

/// The checksum of a segment's blocks: a key index belongs to these and to no others.
fn blocks_checksum(index: &SegmentIndex) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for block in index.blocks() {
        hasher.update(&block.relative_offset.to_le_bytes());
        hasher.update(&block.position.to_le_bytes());
        hasher.update(&block.heads_checksum.to_le_bytes());
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests;
