//! A section of a key index: the keys of up to 4,096 blocks, as pages that are found by a key's hash alone.
//!
//! Of each key the highest bits of its hash are kept, as many as the section's shape says, and where it is: *units* of one or more
//! blocks. Keys that share those bits are one entry, whose units are those of all of them: a look-up may find a block too many,
//! and never one too few.
//!
//! ```text
//! page: | crc32 4 | entries u32 | bits |
//! per entry: rice(hash less the one before, less 1) | gamma(units) | per unit: rice(unit less the one before, less 1)
//! ```
//! The page of a hash is its highest `page bits`; the entries hold the rest of it. The first number of a row is itself. The
//! parameter of a Rice code is the logarithm, rounded down, of how many numbers there can be divided by how many there are.
//! Callers: `build` writes, `file` looks up. Invariant: entries and units rise.

use std::ops::Range;

use super::bits::{BitReader, BitWriter, gamma_bits, rice_bits, rice_parameter};
use crate::fields::{Fields, FormatError};

/// No section has more blocks.
pub(super) const SECTION_BLOCKS: u32 = 1 << BLOCK_BITS;
const BLOCK_BITS: u32 = 12;
/// No more of a hash is kept.
pub(super) const HASH_BITS_MAX: u32 = 48;
/// A unit has no more than `1 << UNIT_SHIFT_MAX` blocks.
pub(super) const UNIT_SHIFT_MAX: u32 = 6;
/// No section has more pages than `1 << PAGE_BITS_MAX`.
pub(super) const PAGE_BITS_MAX: u32 = 16;
/// A page takes about so much.
const PAGE_BYTES: u64 = 4096;
/// No page is longer.
pub(super) const PAGE_BYTES_MAX: u32 = 16 << 20;
const PAGE_HEAD_BYTES: usize = 8;

/// That a key is in a block of the section: the highest bits of its hash, and the block in the lowest 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Posting(u64);

impl Posting {
    pub fn new(hash: u64, block: u32) -> Posting {
        assert!(block < SECTION_BLOCKS, "the section ends before");
        Posting(hash >> BLOCK_BITS << BLOCK_BITS | u64::from(block))
    }

    /// The highest bits of the hash.
    fn bucket(self, hash_bits: u32) -> u64 {
        self.0 >> (64 - hash_bits)
    }

    fn key(self) -> u64 {
        self.0 >> BLOCK_BITS
    }

    fn block(self) -> u32 {
        (self.0 & u64::from(SECTION_BLOCKS - 1)) as u32
    }
}

/// How exactly a section tells keys and places apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// The section's blocks.
    pub blocks: u32,
    /// A unit has `1 << unit_shift` of them.
    pub unit_shift: u32,
    /// How many bits of a hash are kept.
    pub hash_bits: u32,
    /// How many of them tell the page.
    pub page_bits: u32,
}

impl Shape {
    /// How many units there are.
    fn units(self) -> u64 {
        u64::from(self.blocks.div_ceil(1 << self.unit_shift))
    }

    /// What an entry can say of a hash.
    fn universe(self) -> u64 {
        1 << (self.hash_bits - self.page_bits)
    }

    fn blocks_of(self, unit: u64) -> Range<u32> {
        let start = u32::try_from(unit).expect("there are few units") << self.unit_shift;
        start..(start + (1 << self.unit_shift)).min(self.blocks)
    }

    /// The page of a hash, and what its entries say of it.
    fn place_of(self, hash: u64) -> (usize, u64) {
        let bucket = hash >> (64 - self.hash_bits);
        let page = bucket >> (self.hash_bits - self.page_bits);
        let page = usize::try_from(page).expect("there are few pages");
        (page, bucket & (self.universe() - 1))
    }

    /// Which page may hold a key.
    pub fn page_of(self, hash: u64) -> usize {
        self.place_of(hash).0
    }
}

/// How many keys sorted postings have.
pub(super) fn keys(postings: &[Posting]) -> usize {
    postings
        .chunk_by(|one, other| one.key() == other.key())
        .count()
}

/// Shows each bucket of sorted postings: the bucket, how many keys it has, its units.
fn each_bucket(
    postings: &[Posting],
    (hash_bits, unit_shift): (u32, u32),
    mut show: impl FnMut(u64, u64, &[u32]),
) {
    let mut units = Vec::new();
    let same = |one: &Posting, other: &Posting| one.bucket(hash_bits) == other.bucket(hash_bits);
    for bucket in postings.chunk_by(same) {
        units.clear();
        units.extend(bucket.iter().map(|posting| posting.block() >> unit_shift));
        let keys = keys(bucket);
        if keys > 1 {
            units.sort_unstable();
        }
        units.dedup();
        show(bucket[0].bucket(hash_bits), keys as u64, &units);
    }
}

fn units_bits(units: &[u32], universe: u64) -> u64 {
    let k = rice_parameter(universe, units.len() as u64);
    let bits: u64 = gaps(units).map(|gap| rice_bits(gap, k)).sum();
    gamma_bits(units.len() as u64) + bits
}

/// Rising numbers as the distances between them, less 1; the first as it is.
fn gaps(units: &[u32]) -> impl Iterator<Item = u64> {
    let mut next = 0;
    units.iter().map(move |unit| {
        let gap = u64::from(*unit) - next;
        next = u64::from(*unit) + 1;
        gap
    })
}

/// What a shape would cost and bring.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    bits: u64,
    /// Which part of the section is read for a key that is there, and for one that is not.
    present: f64,
    absent: f64,
}

/// Postings are looked at up to about this many, and what they cost is taken for all.
const SAMPLE: usize = 1 << 16;
/// A section of which more than this would be read for a key is not indexed.
const PRESENT_MAX: f64 = 0.5;
/// How much more often a key is asked for that is in other sections, and not in this one.
const ABSENT_WEIGHT: f64 = 4.0;

/// The shape in which the least is read for a key, of those that take no more than `bits_max`. None if there is none, or if too
/// much would be read with all of them. `postings` are sorted, and none comes twice.
pub(super) fn choose(postings: &[Posting], blocks: u32, bits_max: u64) -> Option<Shape> {
    // A part of all hashes, whose keys are as any.
    let mut part = 0;
    let mut sample = postings;
    while sample.len() > SAMPLE && part < 16 {
        part += 1;
        let end = sample.partition_point(|posting| posting.bucket(part) == 0);
        sample = &sample[..end];
    }
    let keys = keys(sample) as u64;
    // Of two keys one in 256 is taken for the other.
    let exact = (u64::BITS - keys.leading_zeros()).max(4) + 8 + part;
    let mut best: Option<(f64, Shape, u64)> = None;
    for less in [0, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16] {
        let hash_bits = exact.saturating_sub(less).min(HASH_BITS_MAX);
        if hash_bits < part + 4 {
            break;
        }
        for unit_shift in 0..=UNIT_SHIFT_MAX {
            let mut shape = Shape {
                blocks,
                unit_shift,
                hash_bits,
                page_bits: 0,
            };
            let found = estimate(sample, keys, part, shape);
            let score = found.present + ABSENT_WEIGHT * found.absent;
            let is_better = best.is_none_or(|(known, ..)| score < known);
            if found.bits <= bits_max && found.present <= PRESENT_MAX && is_better {
                let pages = (found.bits / 8 / PAGE_BYTES).max(1);
                shape.page_bits = (pages.ilog2()).min(PAGE_BITS_MAX).min(hash_bits - 1);
                best = Some((score, shape, found.bits));
            }
        }
    }
    best.map(|(_, shape, _)| shape)
}

fn estimate(sample: &[Posting], keys: u64, part: u32, shape: Shape) -> Estimate {
    let units = shape.units();
    let (mut bits, mut buckets, mut present, mut listed) = (0_u64, 0_u64, 0_u64, 0_u64);
    each_bucket(
        sample,
        (shape.hash_bits, shape.unit_shift),
        |_, keys, list| {
            bits += units_bits(list, units);
            buckets += 1;
            present += keys * list.len() as u64;
            listed += list.len() as u64;
        },
    );
    let universe = 1_u64 << (shape.hash_bits - part);
    let k = rice_parameter(universe, buckets);
    bits += buckets * u64::from(k + 1) + (universe >> k).min(2 * buckets);
    let bits = bits << part;
    Estimate {
        bits: bits + bits / (8 * PAGE_BYTES) * 8 * (PAGE_HEAD_BYTES as u64 + 4),
        present: present as f64 / (keys.max(1) * units) as f64,
        absent: listed as f64 / (universe as f64 * units as f64),
    }
}

/// The pages of sorted postings, of which none comes twice.
pub(super) fn encode(postings: &[Posting], shape: Shape) -> Vec<Vec<u8>> {
    let below = shape.hash_bits - shape.page_bits;
    let mut pages = Vec::with_capacity(1 << shape.page_bits);
    let mut rest = postings;
    for page in 0..1_u64 << shape.page_bits {
        let end = rest.partition_point(|posting| posting.bucket(shape.hash_bits) >> below <= page);
        let (of_page, behind) = rest.split_at(end);
        rest = behind;
        pages.push(encode_page(of_page, shape));
    }
    pages
}

fn encode_page(postings: &[Posting], shape: Shape) -> Vec<u8> {
    let form = (shape.hash_bits, shape.unit_shift);
    let mut entries = 0_u32;
    each_bucket(postings, form, |_, _, _| entries += 1);
    let k = rice_parameter(shape.universe(), entries.into());
    let (mut bits, mut next) = (BitWriter::default(), 0);
    each_bucket(postings, form, |bucket, _, units| {
        let rest = bucket & (shape.universe() - 1);
        bits.rice(rest - next, k);
        next = rest + 1;
        bits.gamma(units.len() as u64);
        let k = rice_parameter(shape.units(), units.len() as u64);
        for gap in gaps(units) {
            bits.rice(gap, k);
        }
    });
    let mut page = vec![0; 4];
    page.extend_from_slice(&entries.to_le_bytes());
    page.extend_from_slice(&bits.finish());
    let checksum = crc32fast::hash(&page[4..]);
    page[..4].copy_from_slice(&checksum.to_le_bytes());
    page
}

/// The blocks of the section that may hold the key with this hash, by the page of it.
pub(super) fn look_up(
    page: &[u8],
    shape: Shape,
    hash: u64,
) -> Result<Vec<Range<u32>>, FormatError> {
    let wanted = shape.place_of(hash).1;
    let mut found = Vec::new();
    each_entry(page, shape, |rest, units| {
        if rest == wanted {
            found.extend(units.iter().map(|unit| shape.blocks_of(*unit)));
        }
        rest < wanted
    })?;
    Ok(found)
}

/// Whether a page is as it was written, to its end.
pub(super) fn check(page: &[u8], shape: Shape) -> Result<(), FormatError> {
    each_entry(page, shape, |_, _| true)
}

/// Shows each entry, until `show` has seen enough.
fn each_entry(
    page: &[u8],
    shape: Shape,
    mut show: impl FnMut(u64, &[u64]) -> bool,
) -> Result<(), FormatError> {
    let mut fields = Fields::new(page);
    let stored = fields.u32()?;
    let computed = crc32fast::hash(fields.rest());
    if stored != computed {
        return Err(FormatError::Checksum { stored, computed });
    }
    let entries = fields.u32()?;
    let bytes = fields.rest();
    // An entry takes two bits at least.
    if u64::from(entries) > bytes.len() as u64 * 4 {
        return Err(impossible("entries", entries.into()));
    }
    let mut bits = BitReader::new(bytes);
    let (universe, k) = (
        shape.universe(),
        rice_parameter(shape.universe(), entries.into()),
    );
    let (mut next, mut units) = (0, Vec::new());
    for entry in 0..entries {
        let gone_wrong = || impossible("entry", entry.into());
        let rest = bits.rice(k, universe - next).ok_or_else(gone_wrong)? + next;
        take_units(&mut bits, shape, &mut units).ok_or_else(gone_wrong)?;
        if !show(rest, &units) {
            return Ok(());
        }
        next = rest + 1;
    }
    if bits.is_at_end() {
        return Ok(());
    }
    Err(impossible("bits", entries.into()))
}

fn take_units(bits: &mut BitReader<'_>, shape: Shape, units: &mut Vec<u64>) -> Option<()> {
    let all = shape.units();
    let count = bits.gamma(all)?;
    let k = rice_parameter(all, count);
    units.clear();
    let mut next = 0;
    for _ in 0..count {
        let unit = bits.rice(k, all - next)? + next;
        units.push(unit);
        next = unit + 1;
    }
    Some(())
}

pub(super) fn impossible(field: &'static str, value: u64) -> FormatError {
    FormatError::Field {
        field,
        value: value.into(),
    }
}
