//! Files of a format version that this release does not know: a store that a later release has written is not opened.
//!
//! Callers: `Storage::open`, before anything is changed, and the offline verification. What is taken for damage is dropped,
//! set aside or built again, and all of that would be wrong for a file that is whole and only newer. A version counts only
//! where the checksum that covers it is right: a flipped bit in it is damage. Frames behind the first one of each file of the
//! write-ahead log are looked at where they are walked over (`wal/walk.rs`).
//! What cannot be read here is left to those who read it next.

use std::path::{Path, PathBuf};

use crate::checkpoint::{self, Checkpoint, Slot};
use crate::damage::{DAMAGE_VERSION, newer_damage};
use crate::data_dir::directory_of;
use crate::error::OpenError;
use crate::fields::{FormatError, open_envelope};
use crate::io::{Disk, OpenHow, read_file};
use crate::manifest;
use crate::recovery::store_file::{STORE_COPY_BYTES, STORE_MAGIC, STORE_VERSION};
use crate::segment::{self, INDEX_BYTES_MAX, IndexFile};
use crate::steady;
use crate::wal::format::FRAME_VERSION;
use crate::wal::pool::sequence_of;
use crate::wal::reader::newer_at;

/// Indexes that a start looks at, the newest of each partition first, so that its time does not grow with history. The others
/// are not written over either: `scrub` looks before it writes.
const INDEXES_MAX: usize = 1024;
/// No file of the small ones is longer.
const SMALL_BYTES_MAX: u64 = 64 << 20;
/// Magic and version.
const HEAD_BYTES: usize = 12;

/// A file that a later release wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Newer {
    pub path: PathBuf,
    /// Its version.
    pub found: u32,
    /// The latest version that this release reads.
    pub known: u32,
}

impl std::fmt::Display for Newer {
    /// What is wrong, and what to do, without the file.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Newer { found, known, .. } = self;
        write!(
            f,
            "it is of format version {found}, and this release reads versions up to {known}. Start the release that wrote it, \
             or a later one; or restore a copy of the data directory from before the upgrade"
        )
    }
}

impl From<Newer> for OpenError {
    fn from(newer: Newer) -> OpenError {
        let Newer { path, found, known } = newer;
        OpenError::Newer { path, found, known }
    }
}

/// The version in an error that says that it is not known.
fn version_in(error: &FormatError) -> Option<u32> {
    match error {
        FormatError::Version { found, .. } => Some(*found),
        _ => None,
    }
}

/// The version of an envelope, if it is whole and not known.
fn envelope(magic: &[u8; 8], known: u32, bytes: &[u8]) -> Option<u32> {
    open_envelope(magic, known, bytes)
        .err()
        .and_then(|error| version_in(&error))
}

/// Looks at everything but the partitions.
pub(crate) fn find_in_store(disk: &dyn Disk, root: &Path, visit: &mut dyn FnMut(Newer)) {
    let mut check = |path: PathBuf, known: u32, version: &dyn Fn(&[u8]) -> Option<u32>| {
        let found = read_file(disk, &path, checkpoint::BYTES_MAX)
            .ok()
            .and_then(|bytes| version(&bytes));
        if let Some(found) = found {
            visit(Newer { path, found, known });
        }
    };
    check(root.join("STORE"), STORE_VERSION, &|bytes| {
        let version = |copy: &[u8]| envelope(STORE_MAGIC, STORE_VERSION, copy);
        bytes.chunks(STORE_COPY_BYTES).find_map(version)
    });
    check(root.join("CLOCK"), steady::VERSION, &|bytes| {
        envelope(steady::MAGIC, steady::VERSION, bytes)
    });
    check(root.join("DAMAGE"), DAMAGE_VERSION, &newer_damage);
    for slot in Slot::ALL {
        let path = slot.path(&root.join("checkpoint"));
        // One of a version that is known may be large, and is not read here.
        let is_known = version_of(disk, &path)
            .is_some_and(|version| (1..=checkpoint::VERSION).contains(&version));
        if !is_known {
            check(path, checkpoint::VERSION, &|bytes| {
                envelope(checkpoint::MAGIC, checkpoint::VERSION, bytes)
            });
        }
    }
    let wal = root.join("wal");
    for entry in disk.list(&wal).unwrap_or_default() {
        let path = wal.join(&entry.name);
        let found = sequence_of(&entry.name)
            .zip(disk.open(&path, OpenHow::Read).ok())
            .and_then(|(sequence, file)| newer_at(&*file, None, sequence, 0).ok().flatten());
        if let Some(found) = found {
            let (found, known) = (found.into(), FRAME_VERSION.into());
            visit(Newer { path, found, known });
        }
    }
}

/// Looks at the partitions: those that the checkpoint knows to have sealed segments, and directories that it does not know.
pub(crate) fn find_in_partitions(
    disk: &dyn Disk,
    root: &Path,
    checkpoint: Option<&Checkpoint>,
    visit: &mut dyn FnMut(Newer),
) {
    let entries = checkpoint.map_or(&[][..], |checkpoint| &checkpoint.logs);
    let known: std::collections::HashSet<_> = entries.iter().map(|entry| entry.log).collect();
    let mut indexes: Vec<(usize, PathBuf)> = Vec::new();
    for entry in entries {
        let directory = directory_of(root, entry.log);
        if entry.manifest > 0 {
            directory_of_one(disk, &directory, &mut indexes, visit);
        } else {
            // The first one, of a round that no checkpoint has seen.
            manifest_at(disk, directory.join(manifest::file_name(1)), visit);
        }
    }
    let partitions = root.join("p");
    for spread in disk.list(&partitions).unwrap_or_default() {
        let spread = partitions.join(spread.name);
        for entry in disk.list(&spread).unwrap_or_default() {
            let is_known = entry.name.parse().is_ok_and(|log| known.contains(&log));
            if !is_known && entry.is_dir {
                directory_of_one(disk, &spread.join(entry.name), &mut indexes, visit);
            }
        }
    }
    indexes.sort();
    for (_, path) in indexes.into_iter().take(INDEXES_MAX) {
        if let Some(found) = newer_index(disk, &path) {
            let known = segment::INDEX_VERSION;
            visit(Newer { path, found, known });
        }
    }
}

/// The version of an index file, if the file is whole and its version not known.
pub(crate) fn newer_index(disk: &dyn Disk, path: &Path) -> Option<u32> {
    if has_known_version(disk, path, segment::INDEX_VERSION)? {
        return None;
    }
    let bytes = read_file(disk, path, INDEX_BYTES_MAX).ok()?;
    version_in(&IndexFile::decode(&bytes).err()?)
}

/// The manifests of one directory; its indexes are gathered, each with how many of the directory are newer.
fn directory_of_one(
    disk: &dyn Disk,
    directory: &Path,
    indexes: &mut Vec<(usize, PathBuf)>,
    visit: &mut dyn FnMut(Newer),
) {
    let names = disk.list(directory).unwrap_or_default();
    let mut age = 0;
    for entry in names.iter().rev().filter(|entry| !entry.is_dir) {
        if entry.name.starts_with(manifest::NAME_PREFIX) {
            manifest_at(disk, directory.join(&entry.name), visit);
        } else if entry.name.ends_with(".idx") {
            indexes.push((age, directory.join(&entry.name)));
            age += 1;
        }
    }
}

fn manifest_at(disk: &dyn Disk, path: PathBuf, visit: &mut dyn FnMut(Newer)) {
    if has_known_version(disk, &path, manifest::VERSION) != Some(false) {
        return;
    }
    let version = |bytes: Vec<u8>| envelope(manifest::MAGIC, manifest::VERSION, &bytes);
    let found = read_file(disk, &path, SMALL_BYTES_MAX)
        .ok()
        .and_then(version);
    if let Some(found) = found {
        let known = manifest::VERSION;
        visit(Newer { path, found, known });
    }
}

/// Whether a file that begins with a magic of 8 bytes has a version up to this one; None if it cannot be read that far.
fn has_known_version(disk: &dyn Disk, path: &Path, version: u32) -> Option<bool> {
    version_of(disk, path).map(|found| (1..=version).contains(&found))
}

/// The version that a file claims which begins with a magic of 8 bytes; None if it cannot be read that far.
fn version_of(disk: &dyn Disk, path: &Path) -> Option<u32> {
    let mut head = [0; HEAD_BYTES];
    let file = disk.open(path, OpenHow::Read).ok()?;
    file.read_exact_at(0, &mut head).ok()?;
    head[8..].first_chunk().copied().map(u32::from_le_bytes)
}
