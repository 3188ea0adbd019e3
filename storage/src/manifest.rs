//! The manifest of one partition: its start offset and its live segments.
//!
//! Callers: recovery loads, the settler's roll and the cleanup's executor store. A manifest is a whole snapshot in a file
//! `manifest.<number, 20 digits>` that is created, synced and never written again; the newest valid one counts, and the one
//! before it is kept, so that a torn newest one costs nothing that was promised.
//! Order: what a manifest names is durable before it is stored; what it no longer names is unlinked only afterwards. One thing
//! may be missing: a segment that lies wholly before the log's start. On a full disk it goes without a new manifest.
//!
//! Body, little-endian, inside an envelope (see `fields.rs`) with magic `manifest`, version 2:
//! ```text
//! | topic uuid 16 | partition 4 | number 8 | start offset 8 | compacted to 8 | segments 4 |
//! per segment:
//! | base offset 8 | generation 4 | kind 1 | sealed 1 | end offset 8 | bytes 8 | max timestamp 8 |
//! | first append time 8 | last append time 8 | records 8 |
//! ```
//! Kind is 0 for plain and 1 for sparse segments. Of a segment that is not sealed only base, generation and kind are told; the
//! rest is 0, and the checkpoint knows. Version 1 has neither `compacted to` nor `records`, and knows plain segments only; it
//! is read.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use model::{LogId, Offset, Timestamp};

use crate::fields::{Fields, FormatError, envelope, open_envelope, put_log_id};
use crate::io::{Disk, OpenHow, Syncs, read_file};
use crate::segment::{SegmentFileKind, SegmentId};

/// The magic of a manifest.
pub const MAGIC: &[u8; 8] = b"manifest";
/// The version that this build writes.
pub const VERSION: u32 = 2;
/// No manifest is longer: 62 bytes for each of a million segments.
const BYTES_MAX: u64 = 64 << 20;
/// An entry of version 1.
const SEGMENT_BYTES_1: usize = 8 + 4 + 1 + 1 + 8 + 8 + 8 + 8 + 8;
/// An entry of version 2.
const SEGMENT_BYTES: usize = SEGMENT_BYTES_1 + 8;
/// What stands before the segments.
const HEAD_BYTES: usize = 20 + 8 + 8 + 8 + 4;
pub(crate) const NAME_PREFIX: &str = "manifest.";

/// What kind of segment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// All batches as they were appended, offsets without gaps.
    Plain,
    /// What a rewrite has left: offsets rise, with gaps. It stands for all offsets from its base to its end, and its last batch
    /// ends there.
    Sparse,
}

impl SegmentKind {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            SegmentKind::Plain => 0,
            SegmentKind::Sparse => 1,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Result<SegmentKind, FormatError> {
        match byte {
            0 => Ok(SegmentKind::Plain),
            1 => Ok(SegmentKind::Sparse),
            other => Err(FormatError::Field {
                field: "segment kind",
                value: other.into(),
            }),
        }
    }

    /// Whether the next batch may begin at `base` where `next` follows the batches before it.
    pub(crate) fn may_follow(self, next: Offset, base: Offset) -> bool {
        match self {
            SegmentKind::Plain => base == next,
            SegmentKind::Sparse => base >= next,
        }
    }
}

/// What is known of a segment that will not change any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The offset after its last record.
    pub end_offset: Offset,
    /// The length of its log file.
    pub bytes: u64,
    /// The largest timestamp of its records, as their producers say.
    pub max_timestamp: Timestamp,
    /// When the broker appended its first batch.
    pub first_append_time: Timestamp,
    /// When the broker appended its last batch.
    pub last_append_time: Timestamp,
    /// How many records it holds; of a plain one as many as offsets.
    pub records: u64,
}

/// A live segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Which file.
    pub id: SegmentId,
    /// What kind.
    pub kind: SegmentKind,
    /// None for the active one, which is the last.
    pub sealed: Option<Sealed>,
}

/// A partition's live segments and start offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Whose.
    pub log: LogId,
    /// Rises by one with every store.
    pub number: u64,
    /// The first offset that is kept.
    pub start_offset: Offset,
    /// The first offset that compaction has not looked at yet; zero before the first compaction.
    pub compacted_to: Offset,
    /// Live segments, in order; at most the last one is active.
    pub segments: Vec<SegmentEntry>,
}

impl Manifest {
    /// The manifest before the first one that is stored.
    pub fn empty(log: LogId) -> Manifest {
        Manifest {
            log,
            number: 0,
            start_offset: Offset::ZERO,
            compacted_to: Offset::ZERO,
            segments: Vec::new(),
        }
    }

    /// The active segment.
    pub fn active(&self) -> Option<SegmentId> {
        self.segments
            .last()
            .filter(|entry| entry.sealed.is_none())
            .map(|entry| entry.id)
    }

    /// The sealed segments, in order.
    pub fn sealed(&self) -> impl DoubleEndedIterator<Item = (&SegmentEntry, &Sealed)> {
        self.segments
            .iter()
            .filter_map(|entry| Some((entry, entry.sealed.as_ref()?)))
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.check()
            .expect("a manifest that is stored is well-formed");
        let mut body = Vec::with_capacity(HEAD_BYTES + self.segments.len() * SEGMENT_BYTES);
        put_log_id(&mut body, self.log);
        body.extend_from_slice(&self.number.to_le_bytes());
        body.extend_from_slice(&self.start_offset.to_wire().to_le_bytes());
        body.extend_from_slice(&self.compacted_to.to_wire().to_le_bytes());
        let count = u32::try_from(self.segments.len()).expect("live segments fit u32");
        body.extend_from_slice(&count.to_le_bytes());
        for entry in &self.segments {
            entry.encode(&mut body);
        }
        assert!(
            body.len() == HEAD_BYTES + self.segments.len() * SEGMENT_BYTES,
            "each segment's entry has its size"
        );
        envelope(MAGIC, VERSION, &body)
    }

    /// Reads a manifest back.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, FormatError> {
        let opened = open_envelope(MAGIC, VERSION, bytes)?;
        if !opened.trailing.is_empty() {
            return Err(FormatError::Trailing {
                bytes: opened.trailing.len(),
            });
        }
        let mut fields = Fields::new(opened.body);
        let log = fields.log_id()?;
        let number = fields.u64()?;
        let start_offset = fields.offset("start offset")?;
        let (compacted_to, entry_bytes) = if opened.version == 1 {
            (Offset::ZERO, SEGMENT_BYTES_1)
        } else {
            (fields.offset("compacted to")?, SEGMENT_BYTES)
        };
        let count = fields.count(entry_bytes)?;
        let mut segments = Vec::with_capacity(count);
        for _ in 0..count {
            segments.push(SegmentEntry::decode(&mut fields, opened.version)?);
        }
        fields.finish()?;
        let manifest = Manifest {
            log,
            number,
            start_offset,
            compacted_to,
            segments,
        };
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), FormatError> {
        let mut end = Offset::ZERO;
        for (index, entry) in self.segments.iter().enumerate() {
            let base = entry.id.base;
            if base < end {
                return Err(FormatError::Field {
                    field: "base offset",
                    value: base.get().into(),
                });
            }
            match entry.sealed {
                Some(sealed) if sealed.end_offset < base => {
                    let value = sealed.end_offset.get().into();
                    return Err(FormatError::Field {
                        field: "end offset",
                        value,
                    });
                }
                Some(sealed) if !entry.has_possible_records(&sealed) => {
                    let value = sealed.records.into();
                    return Err(FormatError::Field {
                        field: "records",
                        value,
                    });
                }
                Some(sealed) => end = sealed.end_offset,
                None if index + 1 < self.segments.len() => {
                    return Err(FormatError::Field {
                        field: "active segment",
                        value: index as i128,
                    });
                }
                None => {}
            }
        }
        Ok(())
    }
}

impl SegmentEntry {
    /// The active segment.
    pub fn active(id: SegmentId) -> SegmentEntry {
        SegmentEntry {
            id,
            kind: SegmentKind::Plain,
            sealed: None,
        }
    }

    /// A sealed segment.
    pub fn sealed(id: SegmentId, kind: SegmentKind, sealed: Sealed) -> SegmentEntry {
        SegmentEntry {
            id,
            kind,
            sealed: Some(sealed),
        }
    }

    /// A plain one has a record for each offset, a sparse one at most that.
    fn has_possible_records(&self, sealed: &Sealed) -> bool {
        let offsets = sealed.end_offset.get().saturating_sub(self.id.base.get());
        match self.kind {
            SegmentKind::Plain => sealed.records == offsets,
            SegmentKind::Sparse => sealed.records <= offsets,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.base.to_wire().to_le_bytes());
        out.extend_from_slice(&self.id.generation.to_le_bytes());
        out.push(self.kind.to_byte());
        out.push(u8::from(self.sealed.is_some()));
        let nothing = Timestamp::from_millis(0);
        let sealed = self.sealed.unwrap_or(Sealed {
            end_offset: Offset::ZERO,
            bytes: 0,
            max_timestamp: nothing,
            first_append_time: nothing,
            last_append_time: nothing,
            records: 0,
        });
        out.extend_from_slice(&sealed.end_offset.to_wire().to_le_bytes());
        out.extend_from_slice(&sealed.bytes.to_le_bytes());
        out.extend_from_slice(&sealed.max_timestamp.millis().to_le_bytes());
        out.extend_from_slice(&sealed.first_append_time.millis().to_le_bytes());
        out.extend_from_slice(&sealed.last_append_time.millis().to_le_bytes());
        out.extend_from_slice(&sealed.records.to_le_bytes());
    }

    fn decode(fields: &mut Fields<'_>, version: u32) -> Result<SegmentEntry, FormatError> {
        let id = SegmentId {
            base: fields.offset("base offset")?,
            generation: fields.u32()?,
        };
        let kind = SegmentKind::from_byte(fields.u8()?)?;
        if version == 1 && kind != SegmentKind::Plain {
            return Err(FormatError::Field {
                field: "segment kind",
                value: kind.to_byte().into(),
            });
        }
        let is_sealed = match fields.u8()? {
            0 => false,
            1 => true,
            other => {
                return Err(FormatError::Field {
                    field: "sealed",
                    value: other.into(),
                });
            }
        };
        let end_offset = fields.offset("end offset")?;
        let sealed = Sealed {
            end_offset,
            bytes: fields.u64()?,
            max_timestamp: Timestamp::from_millis(fields.i64()?),
            first_append_time: Timestamp::from_millis(fields.i64()?),
            last_append_time: Timestamp::from_millis(fields.i64()?),
            records: if version == 1 {
                end_offset.get().saturating_sub(id.base.get())
            } else {
                fields.u64()?
            },
        };
        Ok(SegmentEntry {
            id,
            kind,
            sealed: is_sealed.then_some(sealed),
        })
    }
}

/// A manifest file that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What a partition's directory says about its manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The newest valid one.
    pub manifest: Option<Manifest>,
    /// The valid one before it: what it names and the newest does not was meant to be unlinked.
    pub previous: Option<Manifest>,
    /// Files that are no valid manifest of this log. One that is newer than `manifest` is either the torn rest of a store
    /// that nobody relied on, or damage; the checkpoint's manifest number tells which.
    pub rejected: Vec<Rejected>,
    /// The largest number in any manifest's name; the next store must be above it.
    pub number_max: u64,
    /// The lengths of the segments' log files that are there, by their names.
    pub segments: HashMap<String, u64>,
}

impl Loaded {
    /// What a directory's listing alone tells of a sealed segment: why it cannot be as it was sealed.
    pub fn trouble(&self, id: SegmentId, sealed: &Sealed) -> Option<String> {
        let expected = sealed.bytes;
        match self.segments.get(&id.log_name()) {
            None => Some(format!("segment {id} is missing")),
            Some(bytes) if *bytes != expected => Some(format!(
                "segment {id}: the file has {bytes} bytes, it was sealed with {expected}"
            )),
            Some(_) => None,
        }
    }
}

/// Reads the manifests in a partition's directory. Errors are the disk's; damaged files are reported in the result.
pub fn load(disk: &dyn Disk, directory: &Path, log: LogId) -> io::Result<Loaded> {
    let mut loaded = Loaded::default();
    let mut files = Vec::new();
    for entry in disk.list(directory)? {
        let Some(digits) = entry.name.strip_prefix(NAME_PREFIX) else {
            if let Some((_, SegmentFileKind::Log)) = SegmentId::parse(&entry.name)
                && !entry.is_dir
            {
                loaded.segments.insert(entry.name, entry.len);
            }
            continue;
        };
        match digits.parse::<u64>() {
            Ok(number) if !entry.is_dir => files.push((number, entry.name)),
            _ => loaded.rejected.push(Rejected {
                name: entry.name,
                reason: "no number".to_owned(),
            }),
        }
    }
    files.sort();
    loaded.number_max = files.last().map_or(0, |(number, _)| *number);
    for (number, name) in files.into_iter().rev() {
        match read_one(disk, &directory.join(&name), log, number)? {
            Ok(manifest) if loaded.manifest.is_none() => loaded.manifest = Some(manifest),
            Ok(manifest) if loaded.previous.is_none() => loaded.previous = Some(manifest),
            Ok(_) => {}
            Err(reason) => loaded.rejected.push(Rejected { name, reason }),
        }
    }
    Ok(loaded)
}

fn read_one(
    disk: &dyn Disk,
    path: &Path,
    log: LogId,
    number: u64,
) -> io::Result<Result<Manifest, String>> {
    let bytes = match read_file(disk, path, BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error)
            if error.kind() == io::ErrorKind::InvalidData
                || error.raw_os_error() == Some(libc::EIO) =>
        {
            return Ok(Err(error.to_string()));
        }
        Err(error) => return Err(error),
    };
    let manifest = match Manifest::decode(&bytes) {
        Ok(manifest) => manifest,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if manifest.log != log {
        return Ok(Err(format!("it belongs to {}", manifest.log)));
    }
    if manifest.number != number {
        return Ok(Err(format!("it is number {}", manifest.number)));
    }
    Ok(Ok(manifest))
}

/// Writes a manifest, in a file that must not be there yet. What it names must be durable already; it is durable itself once
/// `syncs` has been synced. On an error the file is gone again.
pub fn write(
    disk: &dyn Disk,
    directory: &Path,
    manifest: &Manifest,
    syncs: &mut Syncs<'_>,
) -> io::Result<()> {
    assert!(manifest.number > 0, "number 0 says that there is none");
    let path = directory.join(file_name(manifest.number));
    let file = disk.open(&path, OpenHow::CreateNew)?;
    if let Err(error) = file.write_at(0, &manifest.encode()) {
        // Not left as a torn newest one, which would look like damage.
        let _ = disk.remove_file(&path);
        return Err(error);
    }
    syncs.file(path, file);
    syncs.directory(directory);
    Ok(())
}

/// Stores a manifest durably, and then removes those older than the one before it.
/// What the manifest names must be durable already. On an error the old manifest still counts.
pub fn store(disk: &dyn Disk, directory: &Path, manifest: &Manifest) -> io::Result<()> {
    let mut syncs = Syncs::new(disk, directory)?;
    write(disk, directory, manifest, &mut syncs)?;
    syncs.sync().map_err(|failed| failed.source)?;
    forget_older_than(disk, directory, manifest.number.saturating_sub(1))
}

/// Removes the manifests with smaller numbers.
pub fn forget_older_than(disk: &dyn Disk, directory: &Path, keep_from: u64) -> io::Result<()> {
    for entry in disk.list(directory)? {
        let number = entry
            .name
            .strip_prefix(NAME_PREFIX)
            .and_then(|digits| digits.parse::<u64>().ok());
        if number.is_some_and(|number| number < keep_from) && !entry.is_dir {
            disk.remove_file(&directory.join(&entry.name))?;
        }
    }
    Ok(())
}

/// The name of the manifest with this number.
pub fn file_name(number: u64) -> String {
    format!("{NAME_PREFIX}{number:020}")
}

#[cfg(test)]
mod tests;
