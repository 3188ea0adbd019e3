//! Tidies a partition's directory after a start: what a crash left behind goes, what nobody knows is moved aside.
//!
//! Callers: the settler, which owns the directories, a few at a time between its rounds; and the start, for whole directories.
//! A segment's files go only if all that they hold lies before the log's start, or is held by the log's live files too, batch by
//! batch: the rest of a removal, or of a settling that no checkpoint came to name; and if they are of a rewrite, whose old segments
//! and unfinished new ones hold nothing that is to be kept. All else is moved, never deleted.

use std::io;
use std::path::{Path, PathBuf};

use model::Offset;
use model::batch::{Batch, BatchHeader, HEADER_BYTES};

use crate::data_dir::move_aside;
use crate::io::{Disk, DiskFile, OpenHow};
use crate::segment::{BLOCK_BYTES, HeaderWalk, PADDING, SegmentId, Walked};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// The last field of a batch's header.
const RECORD_COUNT_BYTES: u64 = 4;
/// How much of an unreadable file is searched at a time.
const SEARCH_BYTES: usize = 256 << 10;

/// What a log holds.
pub struct Known<'a> {
    /// Live segments, sealed or not.
    pub segments: Vec<SegmentId>,
    /// Those of them that took the place of others, and where they end.
    pub rewritten: Vec<(SegmentId, Offset)>,
    /// The first offset that is kept.
    pub start: Offset,
    /// Whether a live file or the WAL holds this very batch.
    pub holds: &'a dyn Fn(&BatchHeader) -> io::Result<bool>,
}

/// What [`sweep`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files that a removal or a settling had left behind, now removed.
    pub removed: Vec<String>,
    /// Files that nobody knows, moved aside.
    pub moved: Vec<PathBuf>,
}

/// Removes the rest of what a crash cut short from a partition's directory, and moves what nobody knows into `quarantine`.
/// Manifests are left to those who store them, and what belongs to a live segment to the scrub, which may be writing its index.
pub fn sweep(
    disk: &dyn Disk,
    directory: &Path,
    known: &Known<'_>,
    quarantine: &Path,
) -> io::Result<Swept> {
    let mut swept = Swept::default();
    for entry in disk.list(directory)? {
        let path = directory.join(&entry.name);
        let name = entry.name.strip_suffix(".new").unwrap_or(&entry.name);
        let is_unfinished = name != entry.name;
        match SegmentId::parse(name) {
            _ if entry.is_dir => swept.moved.push(move_aside(disk, &path, quarantine)?),
            None if entry.name.starts_with("manifest.") => {}
            Some((id, _)) if known.segments.contains(&id) => {}
            Some((id, _))
                if is_unfinished
                    || known.is_of_a_rewrite(id)
                    || known.needs_no_more(disk, directory, id)? =>
            {
                disk.remove_file(&path)?;
                swept.removed.push(entry.name);
            }
            _ => swept.moved.push(move_aside(disk, &path, quarantine)?),
        }
    }
    if !swept.moved.is_empty() {
        disk.sync_dir(quarantine)?;
        disk.sync_dir(directory)?;
    }
    Ok(swept)
}

impl Known<'_> {
    /// Whether an unknown segment is the rest of a rewrite: one that did not finish, so that the old ones still live, or one that
    /// was replaced. What it held is not looked at: it was to go.
    fn is_of_a_rewrite(&self, id: SegmentId) -> bool {
        let takes_its_place = |(live, end): &(SegmentId, Offset)| {
            (live.base..*end).contains(&id.base) && id.generation < live.generation
        };
        id.generation > 0 || self.rewritten.iter().any(takes_its_place)
    }

    /// Whether an unknown segment holds nothing that would be missed.
    fn needs_no_more(&self, disk: &dyn Disk, directory: &Path, id: SegmentId) -> io::Result<bool> {
        // It ends before the next live segment begins, or else it would be one of them.
        let first_live = self.segments.iter().map(|id| id.base).min();
        if id.base < self.start && first_live.is_none_or(|first| id.base < first) {
            return Ok(true);
        }
        let file = match disk.open(&id.log_path(directory), OpenHow::Read) {
            Ok(file) => file,
            // An index alone is derived data.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        let bytes = file.len()?;
        let mut walk = HeaderWalk::new(&*file, id, 0..bytes, id.base, BLOCK_BYTES as usize);
        // What cannot be walked over is the padding, or what a power cut has torn: it was not synced, so nothing named it.
        let mut is_torn = false;
        while let Ok(Some(walked)) = walk.next_batch() {
            if self.would_miss(&walked.header)? {
                let Walked {
                    position, header, ..
                } = walked;
                is_torn = is_torn_at(&*file, position)? && !is_whole(&*file, position, &header)?;
                if !is_torn {
                    return Ok(false);
                }
                break;
            }
        }
        if !is_torn && (walk.position() > 0 || is_blank(&*file, bytes)?) {
            return Ok(true);
        }
        Ok((is_torn || is_torn_at(&*file, 0)?) && !self.misses_any(&*file, id, bytes)?)
    }

    fn would_miss(&self, header: &BatchHeader) -> io::Result<bool> {
        Ok(header.next_offset() > self.start && !(self.holds)(header)?)
    }

    /// Whether a whole batch that would be missed lies anywhere in a file that cannot be walked over.
    fn misses_any(&self, file: &dyn DiskFile, id: SegmentId, bytes: u64) -> io::Result<bool> {
        let mut window = vec![0; SEARCH_BYTES];
        let mut from = 0;
        while from + (HEADER_BYTES as u64) <= bytes {
            let read = file.read_at(from, &mut window)?;
            for at in 0..(read + 1).saturating_sub(HEADER_BYTES) {
                let Ok(header) = BatchHeader::parse(&window[at..at + HEADER_BYTES]) else {
                    continue;
                };
                let position = from + at as u64;
                if header.base() >= id.base
                    && position + header.total_bytes() as u64 <= bytes
                    && is_whole(file, position, &header)?
                    && self.would_miss(&header)?
                {
                    return Ok(true);
                }
            }
            if read < window.len() {
                break;
            }
            from += (read + 1 - HEADER_BYTES) as u64;
        }
        Ok(false)
    }
}

fn is_whole(file: &dyn DiskFile, position: u64, header: &BatchHeader) -> io::Result<bool> {
    let mut batch = vec![0; header.total_bytes()];
    let read = file.read_at(position, &mut batch)?;
    Ok(read == batch.len() && Batch::parse(batch.into()).is_ok())
}

/// Whether the header of a batch came to the disk in part at most: a write that was cut, and that nobody had synced, leaves zeros
/// from some byte on to the end of the sector. A header ends in its count of records, which no settled batch has as zero.
fn is_torn_at(file: &dyn DiskFile, position: u64) -> io::Result<bool> {
    let from = position + HEADER_BYTES as u64 - RECORD_COUNT_BYTES;
    let mut rest = [0; SECTOR_BYTES];
    let rest = &mut rest[..SECTOR_BYTES - (from % SECTOR_BYTES as u64) as usize];
    let read = file.read_at(from, rest)?;
    Ok(read > 0 && rest[..read].iter().all(|byte| *byte == 0))
}

/// Whether a file of which nothing could be read holds nothing at all.
fn is_blank(file: &dyn DiskFile, bytes: u64) -> io::Result<bool> {
    let mut buffer = vec![0; BLOCK_BYTES as usize];
    let mut position = 0;
    while position < bytes {
        let read = file.read_at(position, &mut buffer)?;
        if read == 0
            || buffer[..read]
                .iter()
                .any(|byte| ![0, PADDING].contains(byte))
        {
            return Ok(read == 0);
        }
        position += read as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{SimDisk, write_new_file};
    use model::Timestamp;
    use model::batch::{BatchBuilder, Codec};

    fn id(base: u64) -> SegmentId {
        SegmentId::first(Offset::new(base))
    }

    fn batch(base: u64, value: &[u8]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.base_offset(Offset::new(base));
        for _ in 0..5 {
            let time = Timestamp::from_millis(1);
            builder.push(time, None, Some(value), &[]).unwrap();
        }
        builder.build().unwrap().to_vec()
    }

    /// Sweeps a partition of which 20 on is kept, in a sealed segment from 20 and an active one from 30, among other files.
    fn check(others: &[(String, Vec<u8>)], removed: usize, moved: usize) {
        let disk = SimDisk::new(1);
        let directory = PathBuf::from("/data/p/07/log");
        disk.create_dir_all(&directory).unwrap();
        let named = [
            id(20).log_name(),
            id(20).index_name(),
            id(30).log_name(),
            "manifest.00000000000000000004".to_owned(),
        ];
        let live = batch(35, b"held");
        for name in &named {
            write_new_file(&disk, &directory.join(name), &live).unwrap();
        }
        for (name, contents) in others {
            write_new_file(&disk, &directory.join(name), contents).unwrap();
        }
        let header = BatchHeader::parse(&live).unwrap();
        let known = Known {
            segments: vec![id(20), id(30)],
            rewritten: Vec::new(),
            start: Offset::new(22),
            holds: &|wanted| Ok(*wanted == header),
        };
        let quarantine = Path::new("/data/quarantine");
        let swept = sweep(&disk, &directory, &known, quarantine).unwrap();
        assert_eq!((swept.removed.len(), swept.moved.len()), (removed, moved));
        let files = disk.files();
        for path in &swept.moved {
            assert!(others.iter().any(|(_, contents)| *contents == files[path]));
        }
        assert!(
            named
                .iter()
                .all(|name| files[&directory.join(name)] == live)
        );
        let again = sweep(&disk, &directory, &known, quarantine).unwrap();
        assert_eq!(again, Swept::default());
    }

    #[test]
    fn the_rest_of_a_removal_goes() {
        let (log, index) = (id(10).log_name(), id(10).index_name());
        check(&[(log, batch(10, b"old")), (index, vec![1])], 2, 0);
    }

    #[test]
    fn the_rest_of_a_settling_goes_when_it_was_settled_again() {
        let padded = [batch(35, b"held"), vec![PADDING; 99]].concat();
        let (log, index) = (id(35).log_name(), id(35).index_name());
        check(&[(log, padded), (index, vec![1])], 2, 0);
        check(&[(id(35).log_name(), vec![0; 9999])], 1, 0);
        check(&[(id(35).log_name(), vec![])], 1, 0);
        // The first sector was lost: what lies behind it is the rest of a batch that nobody can read, or is held.
        let held = batch(35, b"held");
        let torn = [&[0; 512][..], &[9; 300]].concat();
        check(&[(id(35).log_name(), torn)], 1, 0);
        let torn = [&[0; 700][..], &held].concat();
        check(&[(id(35).log_name(), torn)], 1, 0);
        check(&[(id(35).index_name(), vec![1])], 1, 0);
    }

    #[test]
    fn the_rest_of_a_settling_goes_wherever_in_its_first_header_it_was_torn() {
        let held = batch(35, b"held");
        for kept in 0..HEADER_BYTES - 3 {
            let mut torn = held.clone();
            torn[kept..].fill(0);
            torn.resize(4096, 0);
            check(&[(id(35).log_name(), torn.clone())], 1, 0);
            // A whole batch behind it that is held nowhere else is not lost with it.
            let missed = batch(40, b"more");
            torn[600..600 + missed.len()].copy_from_slice(&missed);
            check(&[(id(35).log_name(), torn)], 0, 1);
        }
    }

    #[test]
    fn a_batch_that_was_changed_and_not_torn_is_moved_aside() {
        let mut changed = batch(35, b"held");
        // Of its sum, and of its last record.
        for at in [17, changed.len() - 1] {
            changed[at] ^= 1;
            check(&[(id(35).log_name(), changed.clone())], 0, 1);
        }
    }

    #[test]
    fn what_is_held_nowhere_else_is_moved_aside_and_never_deleted() {
        check(&[(id(35).log_name(), batch(35, b"other"))], 0, 1);
        let more = [batch(35, b"held"), batch(40, b"more")].concat();
        check(&[(id(35).log_name(), more)], 0, 1);
        check(&[(id(25).log_name(), b"whose?".to_vec())], 0, 1);
        let behind = [&[0; 700][..], &batch(37, b"other")].concat();
        check(&[(id(35).log_name(), behind)], 0, 1);
        let far_behind = [&vec![0; SEARCH_BYTES - 30][..], &batch(37, b"other")].concat();
        check(&[(id(35).log_name(), far_behind)], 0, 1);
        check(&[("notes.txt".to_owned(), b"mine".to_vec())], 0, 1);
    }

    #[test]
    fn an_index_that_was_not_finished_goes_unless_the_scrub_may_be_writing_it() {
        let unfinished = |base| format!("{}.new", id(base).index_name());
        check(
            &[(unfinished(20), vec![1]), (unfinished(25), vec![1])],
            1,
            0,
        );
    }
}
