//! A log's settled part: its segments, as the log's state knows them and as readers see them.
//!
//! Callers: `log` reads through it, `settler` moves it on. Nothing here is open or mapped for an idle log.

use std::sync::Arc;

use bytes::Bytes;
use model::{LogId, Offset, Timestamp};

use crate::error::{ReadError, TimedOffset};
use crate::storage::Shared;

/// The settled part of a log. Cheap to clone; a clone is a reader's immutable view.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segments {}

/// A run of whole batches within one segment.
#[derive(Clone, Debug)]
pub(crate) struct SegmentPart {}

impl SegmentPart {
    pub fn is_cold(&self) -> bool {
        false
    }
    pub fn populate(&self) -> std::io::Result<()> {
        Ok(())
    }
    pub fn slice(&self) -> Bytes {
        Bytes::new()
    }
    pub fn end_offset(&self) -> Offset {
        Offset::ZERO
    }
}

impl Segments {
    pub fn bytes(&self) -> u64 {
        0
    }
    #[allow(clippy::too_many_arguments)]
    pub fn read(
        &self,
        _shared: &Arc<Shared>,
        _log: LogId,
        _from: Offset,
        _settled_end: Offset,
        _max_bytes: usize,
        _min_one: bool,
    ) -> Result<Option<SegmentPart>, ReadError> {
        Ok(None)
    }
    pub fn offset_for_time(
        &self,
        _shared: &Arc<Shared>,
        _log: LogId,
        _start: Offset,
        _settled_end: Offset,
        _wanted: Timestamp,
    ) -> Result<Option<TimedOffset>, ReadError> {
        Ok(None)
    }
    pub fn max_timestamp(
        &self,
        _shared: &Arc<Shared>,
        _log: LogId,
        _start: Offset,
        _settled_end: Offset,
    ) -> Result<Option<Timestamp>, ReadError> {
        Ok(None)
    }
}
