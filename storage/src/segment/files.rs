//! The files of all logs' segments: where they are, which of them are open, and which of them a reader had trouble with.
//!
//! Callers: what reads settled records, the settler, which makes and removes the files, and the scrub.

use std::sync::Arc;

use model::LogId;

use super::cache::{OpenSegment, SegmentCache, SegmentSource};
use super::key_index::KeyIndexes;
use super::{SegmentError, SegmentId};
use crate::data_dir::DataDir;
use crate::scrub::Suspects;

/// Memory for the indexes of sealed segments that are open.
const INDEX_CACHE_BYTES: usize = 64 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct SegmentFiles {
    pub data: Arc<DataDir>,
    pub cache: SegmentCache,
    pub suspects: Arc<Suspects>,
    pub key_indexes: KeyIndexes,
}

impl SegmentFiles {
    pub fn new(data: Arc<DataDir>, open_max: usize) -> SegmentFiles {
        let cache = SegmentCache::new(data.shared_disk(), open_max, INDEX_CACHE_BYTES);
        SegmentFiles {
            data,
            cache,
            suspects: Arc::default(),
            key_indexes: KeyIndexes::default(),
        }
    }

    /// Forgets a segment that is deleted, and notes who reads it still.
    pub fn retire(&self, log: LogId, id: SegmentId) {
        self.cache.retire(log, id);
        self.key_indexes.forget(log, id);
    }

    /// The segment, opened if it is not. Opening blocks.
    pub fn open(
        &self,
        log: LogId,
        id: SegmentId,
        source: &SegmentSource,
    ) -> Result<Arc<OpenSegment>, SegmentError> {
        // Without its path, which takes memory and time to put together.
        if let Some(open) = self.cache.get(log, id) {
            return Ok(open);
        }
        self.cache.open(&self.data.of_log(log), log, id, source)
    }
}
