//! Reading a keyed log back, batch by batch.
//! Callers: the opening of the log. Blocks on the disk.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use model::batch::{Batch, DecompressLimit};
use model::{LogId, Offset};
use storage::Log;

use super::super::error::StateLogError;

/// What one replay step reads.
const REPLAY_BYTES: usize = 4 * 1024 * 1024;
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
    let mut next = bounds.start;
    while next < bounds.durable_end {
        next = walk(id, log, next, |records| {
            for (key, value) in records {
                // Copied, so that a small entry doesn't keep a large batch in memory.
                let value = value.map(|value| Bytes::copy_from_slice(&value));
                match last.get_mut(&key) {
                    Some(before) => *before = value,
                    None => {
                        last.insert(Bytes::copy_from_slice(&key), value);
                    }
                }
            }
        })?;
    }
    let mut opened = Opened::default();
    for (key, value) in last {
        match value {
            Some(value) => opened.live.push((key, value)),
            None => opened.removed.push(key),
        }
    }
    Ok(opened)
}

/// Shows the records of some batches, from `from` on, batch by batch. Gives where to go on.
fn walk(
    id: LogId,
    log: &Log,
    from: Offset,
    mut show: impl FnMut(Vec<Change>),
) -> Result<Offset, StateLogError> {
    let chunk = log
        .read_copy(from, REPLAY_BYTES)
        .map_err(|error| StateLogError::Unreadable {
            log: id,
            offset: from,
            reason: error.to_string(),
        })?;
    if chunk.slices.is_empty() {
        return Err(StateLogError::Unreadable {
            log: id,
            offset: from,
            reason: "nothing is stored there".into(),
        });
    }
    let malformed = |error| StateLogError::Malformed { log: id, error };
    let mut next = from;
    for batch in model::batch::split(joined(&chunk.slices)) {
        let batch = batch.map_err(malformed)?;
        let mut records = Vec::new();
        for record in batch.records(decompress_limit(&batch)).map_err(malformed)? {
            let record = record.map_err(malformed)?;
            if record.offset >= from {
                records.push((record.key.unwrap_or_default(), record.value));
            }
        }
        show(records);
        next = batch.header().next_offset();
    }
    Ok(next)
}

/// What is not compressed does not grow, however long it is.
pub(super) fn decompress_limit(batch: &Batch) -> DecompressLimit {
    DecompressLimit::bytes(DECOMPRESSED_BYTES_MAX.max(batch.bytes().len()))
}

fn joined(slices: &[Bytes]) -> Bytes {
    match slices {
        [one] => one.clone(),
        many => many
            .iter()
            .fold(BytesMut::new(), |mut all, slice| {
                all.extend_from_slice(slice);
                all
            })
            .freeze(),
    }
}
