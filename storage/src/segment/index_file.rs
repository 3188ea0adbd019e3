//! The index file of a sealed segment.
//!
//! Little-endian. All that says how to read it stands in the footer, so that `.log` followed by `.idx` is one object that
//! can be read from its end.
//! ```text
//! 0          8         12       16
//! | segindex | version | unused |                                  magic 8, version 4 = 2, zeros 4
//! | per block: relative offset 4 | position 4 | min timestamp 8 | max timestamp 8 | append time 8 | heads crc32 4 |
//! | producer snapshot            |                                 as in producers.rs
//! | leader epochs                |                                 as in epochs.rs
//! footer, 104 bytes:
//! | topic uuid 16 | partition 4 | generation 4 | base offset 8 | end offset 8 | log bytes 8 | first append time 8 |
//! | blocks 4 | producer bytes 4 | epoch bytes 4 | kind 1 | unused 3 | records 8 | index bytes 8 | crc32 4 | version 4 |
//! | segindex 8 |
//! ```
//! `index bytes` is the whole file's length. Kind is 0 for plain and 1 for sparse segments. In version 1 both kind and records
//! are 0, and the segment is plain. The checksum (IEEE) covers all before it. Callers: the seal writes, the cache
//! and the tools read. Invariant: an index that does not match its log's id, base, generation and length is not used.

use std::io;
use std::path::Path;

use model::{LogId, Offset, Timestamp};

use super::SegmentId;
use super::index::{Block, Parts, SegmentIndex};
use crate::epochs::Epochs;
use crate::fields::{Fields, FormatError, put_log_id};
use crate::io::{Disk, read_file};
use crate::manifest::SegmentKind;
use crate::producers::Producers;

/// The magic at both ends.
pub const MAGIC: &[u8; 8] = b"segindex";
/// The version that this build writes.
pub const VERSION: u32 = 2;
/// No index file is longer.
pub const INDEX_BYTES_MAX: u64 = 256 << 20;

const HEADER_BYTES: usize = 16;
const BLOCK_BYTES: usize = 36;
const FOOTER_BYTES: usize = 104;
/// Version, and magic: what follows the checksum.
const AFTER_CHECKSUM_BYTES: usize = 12;

/// All that an index file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFile {
    /// Whose segment.
    pub log: LogId,
    /// Blocks, offsets, times.
    pub index: SegmentIndex,
    /// The producers' state at the segment's end.
    pub producers: Producers,
    /// The leader epochs up to the segment's end.
    pub epochs: Epochs,
}

impl IndexFile {
    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let producers = self.producers.encode();
        let epochs = self.epochs.encode();
        let blocks = self.index.blocks();
        let bytes = HEADER_BYTES
            + blocks.len() * BLOCK_BYTES
            + producers.len()
            + epochs.len()
            + FOOTER_BYTES;
        let mut out = Vec::with_capacity(bytes);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for block in blocks {
            out.extend_from_slice(&block.relative_offset.to_le_bytes());
            out.extend_from_slice(&block.position.to_le_bytes());
            out.extend_from_slice(&block.min_timestamp.millis().to_le_bytes());
            out.extend_from_slice(&block.max_timestamp.millis().to_le_bytes());
            out.extend_from_slice(&block.append_time.millis().to_le_bytes());
            out.extend_from_slice(&block.heads_checksum.to_le_bytes());
        }
        out.extend_from_slice(&producers);
        out.extend_from_slice(&epochs);
        put_log_id(&mut out, self.log);
        let id = self.index.id();
        out.extend_from_slice(&id.generation.to_le_bytes());
        out.extend_from_slice(&id.base.to_wire().to_le_bytes());
        out.extend_from_slice(&self.index.end_offset().to_wire().to_le_bytes());
        out.extend_from_slice(&self.index.bytes().to_le_bytes());
        out.extend_from_slice(&self.index.first_append_time().millis().to_le_bytes());
        for count in [blocks.len(), producers.len(), epochs.len()] {
            let count = u32::try_from(count).expect("parts of an index stay below 4 GiB");
            out.extend_from_slice(&count.to_le_bytes());
        }
        out.extend_from_slice(&[self.index.kind().to_byte(), 0, 0, 0]);
        out.extend_from_slice(&self.index.records().to_le_bytes());
        out.extend_from_slice(&(bytes as u64).to_le_bytes());
        let checksum = crc32fast::hash(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(MAGIC);
        assert!(out.len() == bytes, "the length that the footer tells");
        out
    }

    /// Reads an index file back.
    pub fn decode(bytes: &[u8]) -> Result<IndexFile, FormatError> {
        let need = HEADER_BYTES + FOOTER_BYTES;
        if bytes.len() < need {
            return Err(FormatError::Truncated {
                have: bytes.len(),
                need,
            });
        }
        let version = check_ends(bytes)?;
        let (sections, footer) = bytes.split_at(bytes.len() - FOOTER_BYTES);
        let footer = Footer::decode(footer, bytes.len(), version)?;
        let mut sections = Fields::new(&sections[HEADER_BYTES..]);
        let mut blocks = Vec::with_capacity(footer.blocks);
        for _ in 0..footer.blocks {
            blocks.push(decode_block(&mut sections)?);
        }
        let producers = Producers::decode(sections.bytes(footer.producers_bytes)?)?;
        let epochs = Epochs::decode(sections.bytes(footer.epochs_bytes)?)?;
        sections.finish()?;
        check_blocks(&blocks, &footer)?;
        let log = footer.log;
        let index = SegmentIndex::from_parts(Parts {
            id: footer.id,
            kind: footer.kind,
            blocks,
            bytes: footer.log_bytes,
            end_offset: footer.end_offset,
            first_append_time: footer.first_append_time,
            records: footer.records,
        });
        Ok(IndexFile {
            log,
            index,
            producers,
            epochs,
        })
    }
}

struct Footer {
    log: LogId,
    id: SegmentId,
    end_offset: Offset,
    log_bytes: u64,
    first_append_time: Timestamp,
    kind: SegmentKind,
    records: u64,
    blocks: usize,
    producers_bytes: usize,
    epochs_bytes: usize,
}

impl Footer {
    fn decode(bytes: &[u8], file_bytes: usize, version: u32) -> Result<Footer, FormatError> {
        let mut fields = Fields::new(bytes);
        let log = fields.log_id()?;
        let generation = fields.u32()?;
        let id = SegmentId {
            base: fields.offset("base offset")?,
            generation,
        };
        let end_offset = fields.offset("end offset")?;
        let log_bytes = fields.u64()?;
        let first_append_time = Timestamp::from_millis(fields.i64()?);
        let blocks = fields.u32()? as usize;
        let producers_bytes = fields.u32()? as usize;
        let epochs_bytes = fields.u32()? as usize;
        let kind = fields.u8()?;
        fields.bytes(3)?;
        let records = fields.u64()?;
        let (kind, records) = if version == 1 {
            let offsets = end_offset.get().saturating_sub(id.base.get());
            (SegmentKind::Plain, offsets)
        } else {
            (SegmentKind::from_byte(kind)?, records)
        };
        let index_bytes = fields.u64()?;
        let sections = blocks
            .saturating_mul(BLOCK_BYTES)
            .saturating_add(producers_bytes);
        let told = sections
            .saturating_add(epochs_bytes)
            .saturating_add(HEADER_BYTES + FOOTER_BYTES);
        if index_bytes != file_bytes as u64 || told != file_bytes {
            return Err(FormatError::Field {
                field: "index bytes",
                value: index_bytes.into(),
            });
        }
        Ok(Footer {
            log,
            id,
            end_offset,
            log_bytes,
            first_append_time,
            kind,
            records,
            blocks,
            producers_bytes,
            epochs_bytes,
        })
    }
}

/// Checks magics, checksum and versions; gives the version.
fn check_ends(bytes: &[u8]) -> Result<u32, FormatError> {
    let (before, after) = bytes.split_at(bytes.len() - AFTER_CHECKSUM_BYTES);
    for (found, wanted) in [(&bytes[..8], MAGIC), (&after[4..], MAGIC)] {
        if found != wanted {
            return Err(FormatError::Magic {
                found: found.to_vec(),
                wanted: *wanted,
            });
        }
    }
    let (covered, stored) = before.split_at(before.len() - 4);
    let stored = Fields::new(stored).u32()?;
    let computed = crc32fast::hash(covered);
    if stored != computed {
        return Err(FormatError::Checksum { stored, computed });
    }
    // The one at the front is covered by the checksum; the one at the end repeats it for who reads from there.
    let found = Fields::new(&bytes[8..12]).u32()?;
    if found == 0 || found > VERSION {
        return Err(FormatError::Version {
            found,
            known: VERSION,
        });
    }
    let repeated = Fields::new(&after[..4]).u32()?;
    if repeated != found {
        return Err(FormatError::Field {
            field: "version at the end",
            value: repeated.into(),
        });
    }
    Ok(found)
}

fn decode_block(fields: &mut Fields<'_>) -> Result<Block, FormatError> {
    Ok(Block {
        relative_offset: fields.u32()?,
        position: fields.u32()?,
        min_timestamp: Timestamp::from_millis(fields.i64()?),
        max_timestamp: Timestamp::from_millis(fields.i64()?),
        append_time: Timestamp::from_millis(fields.i64()?),
        heads_checksum: fields.u32()?,
    })
}

fn check_blocks(blocks: &[Block], footer: &Footer) -> Result<(), FormatError> {
    let starts_at_zero = blocks
        .first()
        .map_or(footer.log_bytes == 0, |block| block.position == 0);
    let rising = blocks.windows(2).all(|pair| {
        pair[0].position < pair[1].position && pair[0].relative_offset < pair[1].relative_offset
    });
    let inside = blocks.last().is_none_or(|block| {
        u64::from(block.position) < footer.log_bytes
            && footer.id.base.plus(block.relative_offset.into()) < footer.end_offset
    });
    if starts_at_zero && rising && inside {
        return Ok(());
    }
    Err(FormatError::Field {
        field: "blocks",
        value: blocks.len() as i128,
    })
}

/// Reads a segment's index file and checks that it belongs to this segment as the manifest knows it.
/// The inner error says why it must be built again; the outer one is the disk's.
pub fn read_index_file(
    disk: &dyn Disk,
    directory: &Path,
    log: LogId,
    id: SegmentId,
    log_bytes: u64,
) -> io::Result<Result<IndexFile, String>> {
    let bytes = match read_file(disk, &id.index_path(directory), INDEX_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Err("it is missing".to_owned()));
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Ok(Err(error.to_string()));
        }
        Err(error) => return Err(error),
    };
    let file = match IndexFile::decode(&bytes) {
        Ok(file) => file,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if file.log != log || file.index.id() != id {
        return Ok(Err(format!(
            "it belongs to segment {} of {}",
            file.index.id(),
            file.log
        )));
    }
    if file.index.bytes() != log_bytes {
        return Ok(Err(format!(
            "it indexes {} of {log_bytes} bytes",
            file.index.bytes()
        )));
    }
    Ok(Ok(file))
}
