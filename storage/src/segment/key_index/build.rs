//! Builds a segment's key index from its batches, section by section, into a file, or goes on with one that indexes its first blocks.
//!
//! Caller: the builder's thread, which gives the batches at its pace. Memory is bounded: 16 MiB of postings, one section's pages,
//! and eight bytes for each block. A file appears under its name whole and synced, or not at all.
//! Invariant: the batches that are shown are those of the index, by the checksums of its blocks' heads.
//!
//! What goes on a little at a time would get a section for each time, and a look-up reads a page of each. So the last sections are
//! made anew together with what has come: as a binary counter carries, those behind the last number of blocks that both lengths have
//! in common in their highest digits. Then a file has its full sections and at most one for each digit below them, and a block is
//! read once for each digit at most, however small the steps are.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use model::LogId;
use model::batch::{Batch, NAME_HEADER};
use model::codec::DecompressLimit;

use super::file::{HEADER_BYTES, KeyIndex, Owner, Section, encode_end, header};
use super::section::{self, PAGE_BYTES_MAX, Posting, SECTION_BLOCKS};
use super::{SHARE, hash_of};
use crate::io::{Disk, DiskFile, OpenHow};
use crate::segment::index::{HEADS_OF_NONE, with_head};
use crate::segment::{SegmentId, SegmentIndex};

/// How much of an earlier file is copied at a time.
const COPY_BYTES: usize = 1 << 20;
/// A section ends before it has more postings.
const POSTINGS_MAX: usize = 2 << 20;
/// So many keys of one block are told apart; a block with more is in every answer.
const BLOCK_KEYS_MAX: usize = 1 << 20;
/// How often a smaller shape is tried for what came out larger than was thought.
const TRIES: u64 = 6;

/// What was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// The file's length.
    pub bytes: u64,
    /// Blocks of the segment.
    pub blocks: u32,
    /// Blocks whose keys are not known, because there are too many keys.
    pub unknown_blocks: u32,
}

/// Builds the index of a segment with these blocks from its batches, which `batches` shows in order, each once: all of them, or, of
/// an index that goes on, those from the position on that it is told, where a block begins. `known` was found to be sound and of
/// these blocks. The file is in place when this returns. Errors are those of `batches` and the disk's, and one if the batches are not those of the blocks; nothing but a file `.kix.new` is
/// left behind then.
pub fn build<E: From<io::Error>>(
    disk: &dyn Disk,
    directory: &Path,
    (log, index): (LogId, &SegmentIndex),
    known: Option<&KeyIndex>,
    batches: impl FnOnce(u64, &mut dyn FnMut(&Bytes) -> io::Result<()>) -> Result<(), E>,
) -> Result<Built, E> {
    let path = index.id().key_index_path(directory);
    let fresh = path.with_extension("kix.new");
    if disk.exists(&fresh)? {
        disk.remove_file(&fresh)?;
    }
    let file = disk.open(&fresh, OpenHow::CreateNew)?;
    let mut builder = Builder::new(file, index);
    builder.put(&header())?;
    if let Some(known) = known {
        builder.go_on_with(known)?;
    }
    batches(builder.read, &mut |batch| builder.batch(batch))?;
    let built = builder.finish(log)?;
    disk.rename(&fresh, &path)?;
    disk.sync_dir(directory)?;
    Ok(built)
}

struct Builder<'i> {
    file: Arc<dyn DiskFile>,
    position: u64,
    index: &'i SegmentIndex,
    sections: Vec<Section>,
    /// Where in the log the next batch begins.
    read: u64,
    /// The block that is being read, and the checksum of its batches' heads.
    block: u32,
    heads: u32,
    /// The hashes of its keys.
    hashes: Vec<u64>,
    is_always: bool,
    /// Where the present section begins.
    first: u32,
    postings: Vec<Posting>,
    always: Vec<u32>,
    /// The smallest timestamp of each block before the present one, and of that one.
    smallest: Vec<i64>,
    block_smallest: i64,
}

impl<'i> Builder<'i> {
    fn new(file: Arc<dyn DiskFile>, index: &'i SegmentIndex) -> Builder<'i> {
        Builder {
            file,
            position: 0,
            index,
            sections: Vec::new(),
            read: 0,
            block: 0,
            heads: HEADS_OF_NONE,
            hashes: Vec::new(),
            is_always: false,
            first: 0,
            postings: Vec::new(),
            always: Vec::new(),
            smallest: Vec::with_capacity(index.blocks().len()),
            block_smallest: i64::MAX,
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(self.position, bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Takes over what an earlier file says of the first blocks, the pages as they are; the sections that are made anew not.
    fn go_on_with(&mut self, known: &KeyIndex) -> io::Result<()> {
        assert!(self.sections.is_empty() && self.read == 0, "it begins so");
        let all = u32::try_from(self.index.blocks().len()).expect("a segment stays below 4 GiB");
        let sections = known.sections();
        let kept = &sections[..kept_sections(sections.iter().map(|it| it.blocks), all)];
        let blocks: u32 = kept.iter().map(|section| section.blocks).sum();
        let mut pages = KeyIndex::pages_of(kept);
        while !pages.is_empty() {
            let count = (pages.end - pages.start).min(COPY_BYTES as u64);
            self.put(&known.bytes_at(pages.start, count as usize)?)?;
            pages.start += count;
        }
        self.sections.extend_from_slice(kept);
        let smallest = known.smallest_times().expect("who gives it looked");
        let smallest = &smallest[..blocks as usize];
        self.smallest
            .extend(smallest.iter().map(|time| time.millis()));
        (self.block, self.first) = (blocks, blocks);
        let blocks = self.index.blocks();
        self.read = match blocks.get(self.block as usize) {
            Some(next) => next.position.into(),
            None => self.index.bytes(),
        };
        Ok(())
    }

    fn batch(&mut self, batch: &Bytes) -> io::Result<()> {
        let blocks = self.index.blocks();
        while let Some(next) = blocks.get(self.block as usize + 1)
            && u64::from(next.position) <= self.read
        {
            self.end_block()?;
        }
        let head = batch.first_chunk().ok_or_else(other_batches)?;
        self.heads = with_head(self.heads, head);
        self.read += batch.len() as u64;
        if self.look_at(batch).is_none() {
            self.is_always = true;
            self.block_smallest = i64::MIN;
        }
        if self.is_always {
            self.hashes.clear();
        }
        Ok(())
    }

    /// Notes the keys, names and times of a batch. None if its records cannot be read.
    fn look_at(&mut self, batch: &Bytes) -> Option<()> {
        let batch = Batch::parse_unverified(batch.clone()).ok()?;
        let mut records = batch.records(DecompressLimit::default()).ok()?;
        while let Some(record) = records.next_ref() {
            let record = record.ok()?;
            self.block_smallest = self.block_smallest.min(record.timestamp.millis());
            if let Some(key) = record.key {
                self.note(key);
            }
            for (header, value) in record.headers() {
                if let Some(name) = value.filter(|_| header == NAME_HEADER.as_bytes()) {
                    self.note(name);
                }
            }
        }
        Some(())
    }

    /// Notes a key or a name of the present block.
    fn note(&mut self, key: &[u8]) {
        if self.is_always {
            return;
        }
        let hash = hash_of(key);
        if self.hashes.last() != Some(&hash) {
            self.hashes.push(hash);
        }
        if self.hashes.len() >= BLOCK_KEYS_MAX {
            self.hashes.sort_unstable();
            self.hashes.dedup();
            if self.hashes.len() > BLOCK_KEYS_MAX / 2 {
                self.is_always = true;
                self.hashes.clear();
            }
        }
    }

    fn end_block(&mut self) -> io::Result<()> {
        let heads = std::mem::replace(&mut self.heads, HEADS_OF_NONE);
        if heads != self.index.blocks()[self.block as usize].heads_checksum {
            return Err(other_batches());
        }
        self.hashes.sort_unstable();
        self.hashes.dedup();
        let is_full = self.block - self.first == SECTION_BLOCKS
            || self.postings.len() + self.hashes.len() > POSTINGS_MAX;
        if self.block > self.first && is_full {
            self.end_section()?;
        }
        let at = self.block - self.first;
        self.smallest
            .push(std::mem::replace(&mut self.block_smallest, i64::MAX));
        if std::mem::take(&mut self.is_always) {
            self.always.push(at);
        }
        let hashes = self.hashes.drain(..);
        self.postings
            .extend(hashes.map(|hash| Posting::new(hash, at)));
        self.block += 1;
        Ok(())
    }

    /// Writes the pages of the blocks from `first` to the present one.
    fn end_section(&mut self) -> io::Result<()> {
        self.postings.sort_unstable();
        self.postings.dedup();
        let blocks = self.block - self.first;
        let bytes = self.bytes_of(self.first..self.block);
        let pages = shaped(&self.postings, blocks, bytes / SHARE);
        let mut section = Section {
            blocks,
            shape: None,
            keys: u32::try_from(section::keys(&self.postings)).expect("postings are bounded"),
            always: std::mem::take(&mut self.always),
            pages: Vec::new(),
        };
        if let Some((shape, pages)) = pages {
            section.shape = Some(shape);
            for page in pages {
                let bytes = u32::try_from(page.len()).expect("postings are bounded");
                assert!(bytes <= PAGE_BYTES_MAX, "a page is what is read back");
                section.pages.push(bytes);
                self.put(&page)?;
            }
        }
        self.sections.push(section);
        self.postings.clear();
        self.first = self.block;
        Ok(())
    }

    fn bytes_of(&self, blocks: Range<u32>) -> u64 {
        let start = self.index.blocks()[blocks.start as usize].position;
        self.index.block_end(blocks.end as usize - 1) - u64::from(start)
    }

    fn finish(mut self, log: LogId) -> io::Result<Built> {
        let owner = Owner::of(log, self.index);
        if self.read != self.index.bytes() {
            return Err(other_batches());
        }
        while self.block < owner.blocks {
            self.end_block()?;
        }
        if self.block > self.first {
            self.end_section()?;
        }
        let end = encode_end(&owner, &self.smallest, &self.sections);
        self.put(&end)?;
        self.file.sync_data()?;
        let unknown = self.sections.iter().filter(|one| one.shape.is_none());
        Ok(Built {
            bytes: self.position,
            blocks: owner.blocks,
            unknown_blocks: unknown.map(|one| one.blocks).sum(),
        })
    }
}

/// How many sections, of which these are the blocks, are kept of an index that goes on to so many blocks.
fn kept_sections(sections: impl Iterator<Item = u32> + Clone, all: u32) -> usize {
    let known: u32 = sections.clone().sum();
    let full = known - known % SECTION_BLOCKS;
    // The last number of blocks that both have in common in their highest digits.
    let common = (0..u32::BITS)
        .map(|digits| all >> digits << digits)
        .find(|common| *common <= known)
        .unwrap_or(0);
    let kept_blocks = common.max(full);
    let mut start = 0;
    let is_kept = |blocks: &u32| {
        let is_before = start < kept_blocks;
        start += blocks;
        is_before
    };
    sections.take_while(is_kept).count()
}

/// A rewrite may put other batches in place of those that were to be shown.
fn other_batches() -> io::Error {
    io::Error::other("the batches are not those that the segment's index tells of")
}

/// The best shape that takes no more than so many bytes, and the pages of it.
fn shaped(
    postings: &[Posting],
    blocks: u32,
    bytes_max: u64,
) -> Option<(section::Shape, Vec<Vec<u8>>)> {
    for attempt in 0..TRIES {
        let bits_max = bytes_max * 8 * (TRIES + 2 - attempt) / (TRIES + 2);
        let shape = section::choose(postings, blocks, bits_max)?;
        let pages = section::encode(postings, shape);
        let bytes: usize = pages.iter().map(|page| page.len() + 4).sum();
        if bytes as u64 <= bytes_max {
            return Some((shape, pages));
        }
    }
    None
}

/// Removes a segment's key index, if it has one, also one that was not finished. True if there was one.
pub(super) fn remove(disk: &dyn Disk, directory: &Path, id: SegmentId) -> io::Result<bool> {
    let path = id.key_index_path(directory);
    let mut is_removed = false;
    for path in [path.with_extension("kix.new"), path] {
        match disk.remove_file(&path) {
            Ok(()) => is_removed = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(is_removed)
}

const _: () = assert!(HEADER_BYTES == 16);

#[cfg(test)]
mod tests {
    use super::*;

    /// Grows an index by so many blocks each time, whose sections end at `cut` blocks: the most sections that it had, and how
    /// many blocks were read for it.
    fn grown(all: u32, step: u32, cut: u32) -> (usize, u64) {
        let (mut sections, mut known) = (Vec::<u32>::new(), 0);
        let (mut most, mut read) = (0, 0);
        while known < all {
            let next = known + step;
            sections.truncate(kept_sections(sections.iter().copied(), next));
            let mut rest = next - sections.iter().sum::<u32>();
            read += u64::from(rest);
            while rest > 0 {
                sections.push(rest.min(cut));
                rest -= rest.min(cut);
            }
            known = next;
            most = most.max(sections.len());
        }
        (most, read)
    }

    #[test]
    fn small_steps_make_few_sections_and_read_little_again() {
        // A GiB, a MiB at a time; and in other steps.
        let (sections, read) = grown(65_536, 64, SECTION_BLOCKS);
        assert!(sections <= 16 + 7, "{sections}");
        assert!(read <= 65_536 * 7, "{read}");
        for step in [1, 3, 65, 100, 777, 2_000, 4_095, 4_096, 4_097, 9_000] {
            let (sections, read) = grown(65_536, step, SECTION_BLOCKS);
            assert!(sections <= 17 + 12, "{step}: {sections}");
            assert!(read <= 65_536 * 14, "{step}: {read}");
        }
        // Sections that are full before, of many keys.
        for cut in [2, 50, 1_500, 3_000] {
            let (sections, read) = grown(65_536, 64, cut);
            assert!(sections <= (65_536 / cut) as usize * 2 + 12, "{cut}");
            assert!(read <= 65_536 * 14, "{cut}: {read}");
        }
    }
}
