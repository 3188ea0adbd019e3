//! Writes the index of a sealed segment again, from its log file and what the index of the segment before says.
//!
//! Callers: the scrub, and the offline repair. Invariant: an index that a later release wrote is left as it is.

use super::Target;
use crate::epochs::Epochs;
use crate::io::{Disk, OpenHow, write_new_file};
use crate::producers::Producers;
use crate::recovery::newer::newer_index;
use crate::segment::{BLOCK_BYTES, HeaderWalk, IndexFile, SegmentError, SegmentIndex};

/// What stands in an index and not in its log file.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// The producers at the end of the segment before.
    pub producers: Producers,
    /// The leader epochs, likewise.
    pub epochs: Epochs,
    /// When the segment's last batch was appended.
    pub append_time: model::Timestamp,
}

/// Builds the index and puts it in place of the old one, durably. False if a later release wrote that one.
pub(crate) fn write_index(
    disk: &dyn Disk,
    target: &Target,
    before: Before,
) -> Result<bool, SegmentError> {
    let io = |source| SegmentError::Io {
        segment: target.id,
        source,
    };
    let file = disk
        .open(&target.id.log_path(&target.directory), OpenHow::Read)
        .map_err(io)?;
    let append_time = before.append_time;
    let index = SegmentIndex::rebuild(&*file, target.id, target.kind, target.bytes, append_time)?;
    let (mut producers, mut epochs) = (before.producers, before.epochs);
    let mut walk = HeaderWalk::new(
        &*file,
        target.id,
        0..target.bytes,
        target.id.base,
        BLOCK_BYTES as usize,
    );
    while let Some(walked) = walk.next_batch()? {
        producers.record(&walked.header, walked.header.base(), append_time);
        if let Some(epoch) = walked.header.epoch() {
            epochs.begin(epoch, walked.header.base());
        }
    }
    let contents = IndexFile {
        log: target.log,
        index,
        producers,
        epochs,
    }
    .encode();
    let path = target.id.index_path(&target.directory);
    if let Some(version) = newer_index(disk, &path) {
        tracing::warn!(path = %path.display(), version, "a later release wrote this index: it is left as it is, and not used");
        return Ok(false);
    }
    let fresh = path.with_extension("idx.new");
    if disk.exists(&fresh).map_err(io)? {
        disk.remove_file(&fresh).map_err(io)?;
    }
    write_new_file(disk, &fresh, &contents).map_err(io)?;
    disk.rename(&fresh, &path).map_err(io)?;
    disk.sync_dir(&target.directory).map_err(io)?;
    Ok(true)
}
