//! The index of a log's tail: where each batch lies in the write-ahead log.
//!
//! The committer makes an entry of each batch that it publishes, recovery of each one that it replays; readers slice the WAL's
//! map by it, the settler copies from there into segments.

use std::sync::Arc;

use bytes::Bytes;
use model::batch::{Batch, BatchError};
use model::{Offset, Timestamp};

use crate::error::ReadError;
use crate::wal::WalFile;

/// A batch of the tail: where it lies in the WAL.
#[derive(Clone, Debug)]
pub(crate) struct TailEntry {
    pub base: Offset,
    pub next: Offset,
    pub file: Arc<WalFile>,
    pub position: u32,
    pub bytes: u32,
    pub max_timestamp: Timestamp,
    pub append_time: Timestamp,
}

impl TailEntry {
    pub fn slice(&self) -> Bytes {
        let start = u64::from(self.position);
        self.file.map.slice(start..start + u64::from(self.bytes))
    }

    /// What is searched for in its batch.
    pub fn search<T>(
        &self,
        find: impl Fn(&Batch) -> Result<T, BatchError>,
    ) -> Result<T, ReadError> {
        let batch = Batch::parse_unverified(self.slice());
        batch
            .and_then(|batch| find(&batch))
            .map_err(|_| ReadError::Damaged {
                range: self.base..self.next,
            })
    }

    /// The WAL file and the position behind it.
    pub fn ends_at(&self) -> (u64, u64) {
        (
            self.file.sequence,
            u64::from(self.position) + u64::from(self.bytes),
        )
    }
}
