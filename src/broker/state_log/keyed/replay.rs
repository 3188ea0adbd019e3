//! Reading a keyed log back, record by record.
//! Callers: the opening of the log. Blocks on the disk.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use model::batch::{Batch, DecompressLimit};
use model::{LogId, Offset};
use storage::{Log, ReadError};

use super::super::error::StateLogError;
use crate::broker::stored::{Trouble, each_record};

/// Our own batches are not compressed; a compressed one that somebody put there may not grow beyond this.
pub(super) const DECOMPRESSED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A change: the key's new value, or its end.
pub type Change = (Bytes, Option<Bytes>);

/// What a log holds when it is opened.
#[derive(Default)]
pub struct Opened {
    /// The last value of each key, in the order of keys.
    pub live: Vec<(Bytes, Bytes)>,
    /// Keys that were removed not long ago. Older removals are compacted away.
    pub removed: Vec<Bytes>,
}

/// Reads the log, and gives what is live in it and what was removed.
pub(super) fn replay(id: LogId, log: &Log) -> Result<Opened, StateLogError> {
    let mut last: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
    let bounds = log.bounds();
    let offsets = bounds.start..bounds.durable_end;
    let walked = each_record(log, offsets, decompress_limit, |record| {
        // Copied, so that a small entry doesn't keep a large batch in memory.
        let key = record.key.unwrap_or_default();
        let value = record.value.map(Bytes::copy_from_slice);
        match last.get_mut(key) {
            Some(before) => *before = value,
            None => {
                last.insert(Bytes::copy_from_slice(key), value);
            }
        }
        ControlFlow::Continue(())
    });
    walked.map_err(|trouble| unreadable(id, bounds.start, trouble))?;
    let mut opened = Opened::default();
    for (key, value) in last {
        match value {
            Some(value) => opened.live.push((key, value)),
            None => opened.removed.push(key),
        }
    }
    Ok(opened)
}

fn unreadable(log: LogId, start: Offset, trouble: Trouble) -> StateLogError {
    let offset = match &trouble {
        Trouble::Malformed(error) => {
            let error = error.clone();
            return StateLogError::Malformed { log, error };
        }
        Trouble::Missing { offsets, .. } => offsets.start,
        Trouble::Read(ReadError::Io { from, .. } | ReadError::OutOfRange { from, .. }) => *from,
        Trouble::Read(ReadError::Damaged { range }) => range.start,
        Trouble::Read(ReadError::Deleted) => start,
    };
    StateLogError::Unreadable {
        log,
        offset,
        reason: trouble.to_string(),
    }
}

/// What is not compressed does not grow, however long it is.
pub(super) fn decompress_limit(batch: &Batch) -> DecompressLimit {
    DecompressLimit::bytes(DECOMPRESSED_BYTES_MAX.max(batch.bytes().len()))
}
