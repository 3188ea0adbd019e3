//! Which sealed segments hold a key that is to be held: looked for once in each segment, and remembered.
//!
//! Where a segment has a key index, only the blocks that may hold a key are read.
//!
//! Callers: the cleaner, which looks on its own thread and before a run, and the holds, which ask. Asking never waits for the disk:
//! a segment that was not looked into yet counts as one that holds the key, and so does one that cannot be read.
//! Invariant: what is said of a segment is said by its generation, whose bytes never change.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use model::LogId;
use model::batch::{Batch, BatchHeader, DecompressLimit};

use super::holds::HeldKey;
use super::view::{LogView, SegmentView};
use crate::log::LogCell;
use crate::rewrite::{Pace, Pages, RewriteError, RewriteParts, index_of, scan, scan_blocks};
use crate::segment::SegmentId;
use crate::segment::key_index::{LOG_BYTES_MIN, Place, Sought};

/// For each key whether the segment holds it.
type Known = BTreeMap<Arc<[u8]>, bool>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct KeyPlaces(Mutex<HashMap<LogId, HashMap<SegmentId, Known>>>);

impl KeyPlaces {
    /// Whether a segment may hold a key.
    pub fn may_hold(&self, log: LogId, segment: SegmentId, key: &[u8]) -> bool {
        let known = self.locked();
        let known = known.get(&log).and_then(|log| log.get(&segment));
        known
            .and_then(|known| known.get(key).copied())
            .unwrap_or(true)
    }

    /// Looks into a log's sealed segments for keys that were not looked for in them; what is known of others is forgotten. True if it looked into one. Blocks.
    pub fn look(
        &self,
        parts: &RewriteParts,
        log: &Arc<LogCell>,
        view: &LogView,
        keys: &[HeldKey],
        pace: &dyn Pace,
    ) -> Result<bool, RewriteError> {
        self.forget_others(view, keys);
        let mut has_looked = false;
        for segment in view.segments.iter().filter(|segment| segment.sealed) {
            let mut found: Known = BTreeMap::new();
            {
                let known = self.locked();
                let known = known.get(&log.id()).and_then(|log| log.get(&segment.id));
                let is_new = |key: &&HeldKey| {
                    key.touches(segment) && known.is_none_or(|known| !known.contains_key(&key.key))
                };
                found.extend(
                    keys.iter()
                        .filter(is_new)
                        .map(|key| (Arc::clone(&key.key), false)),
                );
            }
            if found.is_empty() {
                continue;
            }
            match find_in(parts, log, segment, pace, &mut found) {
                Ok(()) => {}
                Err(error @ (RewriteError::Damaged { .. } | RewriteError::Io { .. })) => {
                    tracing::warn!(log = %log.id(), segment = %segment.id, %error, "held keys cannot be looked for: the segment is held");
                    found.values_mut().for_each(|found| *found = true);
                }
                Err(error) => return Err(error),
            }
            let mut known = self.locked();
            let known = known.entry(log.id()).or_default();
            known.entry(segment.id).or_default().extend(found);
            has_looked = true;
        }
        Ok(has_looked)
    }

    fn forget_others(&self, view: &LogView, keys: &[HeldKey]) {
        let mut known = self.locked();
        if keys.is_empty() {
            known.remove(&view.log);
        }
        let Some(segments) = known.get_mut(&view.log) else {
            return;
        };
        segments.retain(|id, known| {
            known.retain(|key, _| keys.iter().any(|held| held.key == *key));
            view.segments.iter().any(|segment| segment.id == *id)
        });
    }

    /// Forgets the logs that are not there any more.
    pub fn keep(&self, is_there: &dyn Fn(LogId) -> bool) {
        self.locked().retain(|log, _| is_there(*log));
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<LogId, HashMap<SegmentId, Known>>> {
        self.0
            .lock()
            .expect("nothing panics while it holds the places")
    }
}

/// Marks the keys that a sealed segment has.
fn find_in(
    parts: &RewriteParts,
    log: &Arc<LogCell>,
    segment: &SegmentView,
    pace: &dyn Pace,
    found: &mut Known,
) -> Result<(), RewriteError> {
    let keys: Vec<Arc<[u8]>> = found.keys().cloned().collect();
    let mut each = |header: &BatchHeader, batch: &Bytes| {
        find(header, batch, found);
        Ok(())
    };
    match blocks_with(parts, log.id(), segment, &keys) {
        Some(blocks) => scan_blocks(parts, log, segment.id, &blocks, pace, &mut each),
        None => scan(parts, log, &[segment.id], Pages::AsFound, pace, &mut each),
    }
}

/// The blocks that may hold one of the keys, in order. None if no key index tells.
fn blocks_with(
    parts: &RewriteParts,
    log: LogId,
    segment: &SegmentView,
    keys: &[Arc<[u8]>],
) -> Option<Vec<Range<u32>>> {
    if segment.bytes < LOG_BYTES_MIN {
        return None;
    }
    let (data, indexes) = (&parts.files.data, &parts.files.key_indexes);
    let index = index_of(parts, log, segment.id, segment.bytes)?.index;
    let (disk, directory) = (data.disk(), data.of_log(log));
    let place = Place {
        directory: &directory,
        log,
        id: segment.id,
        bytes: segment.bytes,
        grows: false,
        is_of: &|found| found.is_of(log, &index),
    };
    let mut blocks = Vec::new();
    for key in keys {
        let looked = indexes.look_up(disk, &place, &Sought::Key(Bytes::copy_from_slice(key)))?;
        blocks.extend(looked.blocks);
    }
    blocks.sort_by_key(|range| range.start);
    Some(blocks)
}

/// Marks the keys that a batch has. One that cannot be read may have all of them.
fn find(header: &BatchHeader, batch: &Bytes, found: &mut Known) {
    if header.is_control() {
        return;
    }
    let mut look = || {
        let batch = Batch::parse_unverified(batch.clone())?;
        let mut records = batch.records(DecompressLimit::default())?;
        while let Some(record) = records.next_ref() {
            if let Some(found) = record?.key.and_then(|key| found.get_mut(key)) {
                *found = true;
            }
        }
        Ok::<(), model::batch::BatchError>(())
    };
    if look().is_err() {
        found.values_mut().for_each(|found| *found = true);
    }
}
