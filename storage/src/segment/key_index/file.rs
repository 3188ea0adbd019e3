//! A key index, open: its top is in memory, its pages are read as they are asked for.
//!
//! Callers: the cache of open ones, the offline tools, a fuzzer. Invariant: whose index it is, is checked before an answer is
//! taken from it; what it answers lies inside the segment's blocks.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use model::{LogId, Offset, Timestamp};

use super::section::{
    self, HASH_BITS_MAX, PAGE_BITS_MAX, PAGE_BYTES_MAX, SECTION_BLOCKS, Shape, UNIT_SHIFT_MAX,
    impossible,
};
use super::{MAGIC, VERSION, VERSION_OF_NAMES, VERSION_OF_TIMES, blocks_checksum};
use crate::fields::{Fields, FormatError, put_log_id};
use crate::io::DiskFile;
use crate::segment::{SegmentId, SegmentIndex};

pub(super) const HEADER_BYTES: usize = 16;
pub(super) const FOOTER_BYTES: usize = 96;
/// Checksum, version, and magic: what the checksum does not cover.
const AFTER_COVERED_BYTES: usize = 16;
/// No top is longer: 4 GiB of blocks have 64 sections of as many pages as there can be.
const TOP_BYTES_MAX: u32 = 32 << 20;
const SECTION_BYTES_MIN: usize = 16;

const KIND_LISTS: u8 = 0;
const KIND_NONE: u8 = 1;

/// Whose index a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub log: LogId,
    pub id: SegmentId,
    pub end_offset: Offset,
    pub log_bytes: u64,
    pub blocks: u32,
    pub blocks_checksum: u32,
}

impl Owner {
    pub fn of(log: LogId, index: &SegmentIndex) -> Owner {
        Owner {
            log,
            id: index.id(),
            end_offset: index.end_offset(),
            log_bytes: index.bytes(),
            blocks: u32::try_from(index.blocks().len()).expect("a segment stays below 4 GiB"),
            blocks_checksum: blocks_checksum(index),
        }
    }
}

/// What the top says of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub blocks: u32,
    /// How it tells keys apart; None if it does not.
    pub shape: Option<Shape>,
    pub keys: u32,
    /// Blocks that may hold any key.
    pub always: Vec<u32>,
    /// How long each page is.
    pub pages: Vec<u32>,
}

/// What stands behind the pages.
pub(super) fn encode_end(owner: &Owner, smallest: &[i64], sections: &[Section]) -> Vec<u8> {
    assert!(
        smallest.len() == owner.blocks as usize,
        "each block has one"
    );
    let mut end: Vec<u8> = smallest.iter().flat_map(|it| it.to_le_bytes()).collect();
    for section in sections {
        let shape = section.shape;
        let kind = if shape.is_some() {
            KIND_LISTS
        } else {
            KIND_NONE
        };
        let byte = |of: fn(Shape) -> u32| shape.map_or(0, |shape| of(shape) as u8);
        end.extend_from_slice(&section.blocks.to_le_bytes());
        end.extend_from_slice(&[
            kind,
            byte(|shape| shape.unit_shift),
            byte(|shape| shape.hash_bits),
            byte(|shape| shape.page_bits),
        ]);
        end.extend_from_slice(&section.keys.to_le_bytes());
        let always = u32::try_from(section.always.len()).expect("no more than there are blocks");
        end.extend_from_slice(&always.to_le_bytes());
        for number in section.always.iter().chain(&section.pages) {
            end.extend_from_slice(&number.to_le_bytes());
        }
    }
    let top_bytes = u32::try_from(end.len()).expect("a top is short");
    let pages = sections.iter().flat_map(|section| &section.pages);
    let pages: u64 = pages.map(|page| u64::from(*page)).sum();
    let file_bytes = HEADER_BYTES as u64 + pages + u64::from(top_bytes) + FOOTER_BYTES as u64;
    put_log_id(&mut end, owner.log);
    end.extend_from_slice(&owner.id.generation.to_le_bytes());
    end.extend_from_slice(&owner.id.base.to_wire().to_le_bytes());
    end.extend_from_slice(&owner.end_offset.to_wire().to_le_bytes());
    end.extend_from_slice(&owner.log_bytes.to_le_bytes());
    end.extend_from_slice(&owner.blocks.to_le_bytes());
    end.extend_from_slice(&owner.blocks_checksum.to_le_bytes());
    let count = u32::try_from(sections.len()).expect("no more than there are blocks");
    end.extend_from_slice(&count.to_le_bytes());
    end.extend_from_slice(&top_bytes.to_le_bytes());
    end.extend_from_slice(&file_bytes.to_le_bytes());
    end.extend_from_slice(&[0; 8]);
    let checksum = checksum(&header(), &end);
    end.extend_from_slice(&checksum.to_le_bytes());
    end.extend_from_slice(&VERSION.to_le_bytes());
    end.extend_from_slice(MAGIC);
    assert!(end.len() == top_bytes as usize + FOOTER_BYTES);
    end
}

/// What stands before the pages.
pub(super) fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header
}

/// The checksum of the footer.
fn checksum(header: &[u8], covered: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(covered);
    hasher.finalize()
}

/// What a look-up has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Blocks of the segment that may hold the key: ranges that rise and do not touch.
    pub blocks: Vec<Range<u32>>,
    /// How many bytes were read for it.
    pub read_bytes: u64,
}

impl Looked {
    pub(super) fn add(&mut self, blocks: Range<u32>) {
        match self.blocks.last_mut() {
            Some(last) if last.end >= blocks.start => last.end = last.end.max(blocks.end),
            _ => self.blocks.push(blocks),
        }
    }
}

/// Why a key index is not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyIndexError {
    /// The disk refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not as it was written, or was not written for this.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// See the module.
#[derive(Debug)]
pub struct KeyIndex {
    file: Arc<dyn DiskFile>,
    owner: Owner,
    version: u32,
    sections: Vec<Section>,
    /// Of each block; None in a file of version 1.
    smallest: Option<Arc<[Timestamp]>>,
}

impl KeyIndex {
    /// Reads the top of a file.
    pub fn open(file: Arc<dyn DiskFile>) -> Result<KeyIndex, KeyIndexError> {
        let bytes = file.len()?;
        let need = (HEADER_BYTES + FOOTER_BYTES) as u64;
        if bytes < need {
            return Err(cut(bytes, need).into());
        }
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(0, &mut header)?;
        let mut footer = vec![0; FOOTER_BYTES];
        file.read_exact_at(bytes - FOOTER_BYTES as u64, &mut footer)?;
        let found = Footer::decode(&header, &footer, bytes)?;
        let mut end = vec![0; found.top_bytes as usize + FOOTER_BYTES];
        let top_start = bytes - end.len() as u64;
        file.read_exact_at(top_start, &mut end)?;
        let (covered, _) = end.split_at(end.len() - AFTER_COVERED_BYTES);
        let computed = checksum(&header, covered);
        if computed != found.checksum {
            let stored = found.checksum;
            return Err(FormatError::Checksum { stored, computed }.into());
        }
        let top = &end[..found.top_bytes as usize];
        let (smallest, sections) = decode_top(top, &found, top_start)?;
        Ok(KeyIndex {
            file,
            owner: found.owner,
            version: found.version,
            sections,
            smallest,
        })
    }

    /// The smallest timestamp of the records in each block: no record of it has an earlier one. None if an earlier release wrote it.
    pub fn smallest_times(&self) -> Option<&Arc<[Timestamp]>> {
        self.smallest.as_ref()
    }

    /// Whether a look-up finds the names in headers too. Not if an earlier release wrote it.
    pub fn knows_names(&self) -> bool {
        self.version >= VERSION_OF_NAMES
    }

    /// Whether it knows all that this release writes: then it can go on.
    pub fn is_current(&self) -> bool {
        self.version == VERSION
    }

    /// Whose it is.
    pub fn id(&self) -> (LogId, SegmentId) {
        (self.owner.log, self.owner.id)
    }

    /// Whether it belongs to these blocks of this log, to all of them or to the first ones.
    pub fn is_of(&self, log: LogId, index: &SegmentIndex) -> bool {
        let blocks = index.blocks();
        match blocks.get(self.owner.blocks as usize) {
            Some(next) => {
                let position = u64::from(next.position);
                self.owner == Owner::of(log, &index.ended_blocks(position))
            }
            None => self.owner == Owner::of(log, index),
        }
    }

    /// Bytes of the segment that it indexes.
    pub fn log_bytes(&self) -> u64 {
        self.owner.log_bytes
    }

    /// Where the pages of the first sections lie.
    pub(super) fn pages_of(sections: &[Section]) -> Range<u64> {
        let pages = sections.iter().flat_map(|section| &section.pages);
        let bytes: u64 = pages.map(|page| u64::from(*page)).sum();
        let start = HEADER_BYTES as u64;
        start..start + bytes
    }

    pub(super) fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// How many sections it has: a look-up reads a page of each.
    pub fn section_count(&self) -> usize {
        self.sections.len()
    }

    /// How many blocks it indexes, and of how many of them it knows the keys.
    pub fn blocks(&self) -> (u32, u32) {
        let known = self.sections.iter().filter(|one| one.shape.is_some());
        (self.owner.blocks, known.map(|one| one.blocks).sum())
    }

    /// Which blocks may hold a key, or a name in a header. Reads a page of each section.
    pub fn look_up(&self, hash: u64) -> Result<Looked, KeyIndexError> {
        let mut looked = Looked::default();
        let mut position = HEADER_BYTES as u64;
        let mut first = 0;
        for section in &self.sections {
            let mut found = match section.shape {
                None => std::iter::once(0..section.blocks).collect(),
                Some(shape) => {
                    let at = shape.page_of(hash);
                    let before: u64 = section.pages[..at]
                        .iter()
                        .map(|page| u64::from(*page))
                        .sum();
                    let page = self.page(position + before, section.pages[at])?;
                    looked.read_bytes += page.len() as u64;
                    section::look_up(&page, shape, hash)?
                }
            };
            if section.shape.is_some() && !section.always.is_empty() {
                found.extend(section.always.iter().map(|block| *block..*block + 1));
                found.sort_unstable_by_key(|blocks| blocks.start);
            }
            for blocks in found {
                looked.add(first + blocks.start..first + blocks.end);
            }
            first += section.blocks;
            position += section
                .pages
                .iter()
                .map(|page| u64::from(*page))
                .sum::<u64>();
        }
        Ok(looked)
    }

    /// Reads all of it, and says whether it is as it was written.
    pub fn check(&self) -> Result<(), KeyIndexError> {
        let mut position = HEADER_BYTES as u64;
        for section in &self.sections {
            for bytes in &section.pages {
                let page = self.page(position, *bytes)?;
                if let Some(shape) = section.shape {
                    section::check(&page, shape)?;
                }
                position += u64::from(*bytes);
            }
        }
        Ok(())
    }

    fn page(&self, position: u64, bytes: u32) -> io::Result<Vec<u8>> {
        self.bytes_at(position, bytes as usize)
    }

    pub(super) fn bytes_at(&self, position: u64, count: usize) -> io::Result<Vec<u8>> {
        self.file.read_new(position, count)
    }
}

fn cut(have: u64, need: u64) -> FormatError {
    let size = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
    FormatError::Truncated {
        have: size(have),
        need: size(need),
    }
}

struct Footer {
    owner: Owner,
    sections: u32,
    top_bytes: u32,
    checksum: u32,
    version: u32,
}

impl Footer {
    fn decode(header: &[u8], footer: &[u8], file_bytes: u64) -> Result<Footer, FormatError> {
        let (fields, ends) = footer.split_at(FOOTER_BYTES - 8);
        for found in [&header[..8], ends] {
            if found != MAGIC {
                return Err(FormatError::Magic {
                    found: found.to_vec(),
                    wanted: *MAGIC,
                });
            }
        }
        let mut fields = Fields::new(fields);
        let log = fields.log_id()?;
        let generation = fields.u32()?;
        let id = SegmentId {
            base: fields.offset("base offset")?,
            generation,
        };
        let owner = Owner {
            log,
            id,
            end_offset: fields.offset("end offset")?,
            log_bytes: fields.u64()?,
            blocks: fields.u32()?,
            blocks_checksum: fields.u32()?,
        };
        let (sections, top_bytes, told) = (fields.u32()?, fields.u32()?, fields.u64()?);
        fields.bytes(8)?;
        let (checksum, repeated) = (fields.u32()?, fields.u32()?);
        let version = Fields::new(&header[8..12]).u32()?;
        if version == 0 || version > VERSION {
            return Err(FormatError::Version {
                found: version,
                known: VERSION,
            });
        }
        if repeated != version {
            return Err(impossible("version at the end", repeated.into()));
        }
        let least = u64::from(top_bytes) + (HEADER_BYTES + FOOTER_BYTES) as u64;
        if told != file_bytes || least > file_bytes || top_bytes > TOP_BYTES_MAX {
            return Err(impossible("file bytes", told));
        }
        Ok(Footer {
            owner,
            sections,
            top_bytes,
            checksum,
            version,
        })
    }
}

/// What a top says: the smallest timestamps, and the sections.
type Top = (Option<Arc<[Timestamp]>>, Vec<Section>);

fn decode_top(top: &[u8], footer: &Footer, pages_end: u64) -> Result<Top, FormatError> {
    let mut fields = Fields::new(top);
    let smallest = match footer.version {
        ..VERSION_OF_TIMES => None,
        _ => Some(decode_smallest(&mut fields, footer.owner.blocks)?),
    };
    let mut sections = Vec::new();
    let (mut blocks, mut position) = (0_u64, HEADER_BYTES as u64);
    if footer.sections as usize > top.len() / SECTION_BYTES_MIN {
        return Err(impossible("sections", footer.sections.into()));
    }
    for _ in 0..footer.sections {
        let section = decode_section(&mut fields)?;
        blocks += u64::from(section.blocks);
        position += section
            .pages
            .iter()
            .map(|page| u64::from(*page))
            .sum::<u64>();
        sections.push(section);
    }
    fields.finish()?;
    if blocks != u64::from(footer.owner.blocks) {
        return Err(impossible("blocks", blocks));
    }
    if position != pages_end {
        return Err(impossible("page bytes", position));
    }
    Ok((smallest, sections))
}

fn decode_smallest(fields: &mut Fields<'_>, blocks: u32) -> Result<Arc<[Timestamp]>, FormatError> {
    let bytes = fields.bytes((blocks as usize).saturating_mul(8))?;
    let mut bytes = Fields::new(bytes);
    (0..blocks)
        .map(|_| Ok(Timestamp::from_millis(bytes.i64()?)))
        .collect()
}

fn decode_section(fields: &mut Fields<'_>) -> Result<Section, FormatError> {
    let blocks = fields.u32()?;
    if blocks == 0 || blocks > SECTION_BLOCKS {
        return Err(impossible("blocks of a section", blocks.into()));
    }
    let kind = fields.u8()?;
    let shape = Shape {
        blocks,
        unit_shift: fields.u8()?.into(),
        hash_bits: fields.u8()?.into(),
        page_bits: fields.u8()?.into(),
    };
    let keys = fields.u32()?;
    let count = fields.count(4)?;
    let always = (0..count)
        .map(|_| fields.u32())
        .collect::<Result<Vec<_>, _>>()?;
    let rises = always.windows(2).all(|pair| pair[0] < pair[1]);
    if !rises || always.last().is_some_and(|last| *last >= blocks) {
        return Err(impossible("blocks that are always read", count as u64));
    }
    let mut pages = Vec::new();
    let shape = match kind {
        KIND_NONE => None,
        KIND_LISTS => {
            let is_possible = shape.unit_shift <= UNIT_SHIFT_MAX
                && (1..=HASH_BITS_MAX).contains(&shape.hash_bits)
                && shape.page_bits < shape.hash_bits
                && shape.page_bits <= PAGE_BITS_MAX;
            if !is_possible {
                return Err(impossible("shape", shape.hash_bits.into()));
            }
            for _ in 0..1_u32 << shape.page_bits {
                let bytes = fields.u32()?;
                if bytes > PAGE_BYTES_MAX {
                    return Err(impossible("page bytes", bytes.into()));
                }
                pages.push(bytes);
            }
            Some(shape)
        }
        kind => return Err(impossible("kind", kind.into())),
    };
    Ok(Section {
        blocks,
        shape,
        keys,
        always,
        pages,
    })
}

/// A file with right checksums over whatever it says, as far as it can be read: for a fuzzer.
pub fn mend(bytes: &[u8]) -> Vec<u8> {
    let mut mended = bytes.to_vec();
    let Some(footer_start) = bytes.len().checked_sub(FOOTER_BYTES) else {
        return mended;
    };
    if footer_start < HEADER_BYTES {
        return mended;
    }
    let footer = &bytes[footer_start..];
    let decoded = Footer::decode(&bytes[..HEADER_BYTES], footer, bytes.len() as u64);
    let Ok(footer) = decoded else {
        return mended;
    };
    let top_start = footer_start - footer.top_bytes as usize;
    let sections = decode_top(&bytes[top_start..footer_start], &footer, top_start as u64);
    let mut position = HEADER_BYTES;
    let sections = sections.map_or(Vec::new(), |(_, sections)| sections);
    for page in sections.iter().flat_map(|section| &section.pages) {
        let end = position + *page as usize;
        if end - position >= 4 {
            let computed = crc32fast::hash(&mended[position + 4..end]);
            mended[position..position + 4].copy_from_slice(&computed.to_le_bytes());
        }
        position = end;
    }
    let covered_end = bytes.len() - AFTER_COVERED_BYTES;
    let computed = checksum(&bytes[..HEADER_BYTES], &bytes[top_start..covered_end]);
    mended[covered_end..covered_end + 4].copy_from_slice(&computed.to_le_bytes());
    mended
}
