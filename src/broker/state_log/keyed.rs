//! A log of keyed records: last write wins, no value means gone. Bytes only; what they mean is `StateLog`'s.
//! Callers: `StateLog`.
//! Invariants: changes are encoded first, admitted at their real size, then appended; they are cut into batches that every
//! setting of the write-ahead log takes. `write` returns when its records are durable. Nothing of what is live is kept here:
//! values are their owners', and the log is compacted by the engine as any compacted log (`LogSettings::state`). It keeps the
//! removal of a key for a day at least: at a start it says that what is left of it was meant to go.

mod replay;

use std::sync::Arc;

use super::error::StateLogError;
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, Codec, HEADER_BYTES};
use model::{LogId, Timestamp};
use storage::{
    Admission, AppendBatch, AppendSize, Bounds, Clock, Durable, Log, LogSettings, Purpose, Storage,
};

pub use replay::{Change, Opened};

/// A batch of changes is cut at this size, or at what a frame holds if that is less.
const BATCH_BYTES: usize = 256 * 1024;
/// What a frame holds beside a batch that fills it.
const FRAME_RESERVE_BYTES: usize = 1024;
/// Changes that need not be appended together are appended in pieces of this size.
const PIECE_BYTES: u64 = 1024 * 1024;
/// What a record costs beside key and value, at most.
const RECORD_OVERHEAD_BYTES: usize = 24;

/// A keyed log. Cheap to clone.
#[derive(Clone)]
pub struct KeyedLog {
    log: Arc<Log>,
    storage: Storage,
    clock: Arc<dyn Clock>,
}

/// Changes that are encoded, and so have a size.
pub struct Encoded {
    batches: Vec<AppendBatch>,
}

impl Encoded {
    /// What an admission for them has to be for.
    pub fn size(&self) -> AppendSize {
        AppendSize::of(&self.batches)
    }

    /// The batches.
    pub fn into_batches(self) -> Vec<AppendBatch> {
        self.batches
    }
}

/// How records are cut into batches, by their lengths alone, so that the size of an append can be told before its records
/// are known to the byte. Shorter records never make more batches.
#[derive(Clone, Copy)]
struct Cut {
    bytes_max: usize,
    size: AppendSize,
    /// What stands in the last batch.
    open: usize,
}

impl Cut {
    /// Takes one more record. True if it begins a batch.
    fn push(&mut self, record_bytes: usize) -> bool {
        let begins = self.open == 0 || self.open + record_bytes > self.bytes_max;
        if begins {
            self.size.batches += 1;
            self.size.bytes += HEADER_BYTES as u64;
            self.open = HEADER_BYTES;
        }
        self.size.bytes += record_bytes as u64;
        self.open += record_bytes;
        begins
    }
}

impl KeyedLog {
    /// Opens the log, creating it when it isn't there, and replays it. Blocks on the disk.
    pub fn open(
        storage: &Storage,
        clock: Arc<dyn Clock>,
        id: LogId,
    ) -> Result<(KeyedLog, Opened), StateLogError> {
        let log = match storage.log(id) {
            Some(log) => {
                storage.set_settings(id, LogSettings::state());
                log
            }
            None => storage.create_log(id, LogSettings::state()),
        };
        let opened = replay::replay(id, &log)?;
        let storage = storage.clone();
        let log = KeyedLog {
            log,
            storage,
            clock,
        };
        Ok((log, opened))
    }

    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// From where to where the log reaches.
    pub fn bounds(&self) -> Bounds {
        self.log.bounds()
    }

    /// The longest record, key and value together, that the log takes.
    pub fn record_bytes_max(&self) -> usize {
        record_bytes_max(self.storage.batch_bytes_max())
    }

    /// What changes take whose keys and values are together this long, each.
    pub fn size_of(&self, records: impl IntoIterator<Item = usize>) -> AppendSize {
        let mut cut = self.cut();
        for bytes in records {
            cut.push(bytes + RECORD_OVERHEAD_BYTES);
        }
        cut.size
    }

    /// How many of these records, in order, one append takes; one at least, if there is one.
    pub fn count_for_one_append(&self, records: impl IntoIterator<Item = usize>) -> usize {
        let mut cut = self.cut();
        let mut count = 0;
        for bytes in records {
            cut.push(bytes + RECORD_OVERHEAD_BYTES);
            if count > 0 && !self.takes(cut.size) {
                break;
            }
            count += 1;
        }
        count
    }

    /// Whether an append of this size can ever be admitted.
    fn takes(&self, size: AppendSize) -> bool {
        self.storage.takes(size)
    }

    /// Applies the changes in order and returns when they are durable. They are appended together, and refused together.
    /// Two writes at the same time may take effect in either order; where that matters use [`KeyedLog::append`].
    pub async fn write(&self, changes: Vec<Change>, purpose: Purpose) -> Result<(), StateLogError> {
        let written = self.append_admitted(changes, purpose).await?;
        written.wait().await
    }

    /// Appends changes each for itself, in order: one that is refused does not hold back the others.
    pub async fn append_each(&self, changes: Vec<Change>, purpose: Purpose) -> WrittenEach {
        let mut pieces = Vec::new();
        let count = changes.len();
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let piece = self.piece(&mut changes, record_bytes);
            pieces.push((piece.len(), self.append_admitted(piece, purpose).await));
        }
        let pieced: usize = pieces.iter().map(|(count, _)| count).sum();
        assert!(pieced == count, "each change stands in one piece");
        WrittenEach { pieces }
    }

    /// Appends changes together, once there is room for them.
    async fn append_admitted(
        &self,
        changes: Vec<Change>,
        purpose: Purpose,
    ) -> Result<Written, StateLogError> {
        let encoded = self.encode(changes)?;
        let admission = self.admit(encoded.size(), purpose).await;
        self.append(encoded, admission)
    }

    /// As many of the items as one append takes without holding up others; one at least.
    fn piece<T>(
        &self,
        items: &mut std::iter::Peekable<impl Iterator<Item = T>>,
        bytes: impl Fn(&T) -> usize,
    ) -> Vec<T> {
        let mut cut = self.cut();
        let mut piece = Vec::new();
        while let Some(next) = items.peek() {
            let mut more = cut;
            more.push(bytes(next));
            let fits = more.size.bytes <= PIECE_BYTES && self.takes(more.size);
            if !piece.is_empty() && !fits {
                break;
            }
            cut = more;
            piece.extend(items.next());
        }
        assert!(
            !piece.is_empty() || items.peek().is_none(),
            "whoever takes pieces comes to the end"
        );
        piece
    }

    /// Encodes changes. Errors: `TooLarge` if a record is longer than the format allows.
    pub fn encode(&self, changes: Vec<Change>) -> Result<Encoded, StateLogError> {
        let now = self.clock.now();
        let batches = build(&changes, now, self.cut())?;
        Ok(Encoded { batches })
    }

    /// Waits for room for an append of this size.
    pub async fn admit(&self, size: AppendSize, purpose: Purpose) -> Admission {
        self.storage.admit_for(size, purpose).await
    }

    /// The same without waiting: None if it would have to.
    pub fn try_admit(&self, size: AppendSize, purpose: Purpose) -> Option<Admission> {
        self.storage.try_admit_for(size, purpose)
    }

    /// Appends the changes in order, all or none, without waiting. They are replayed at the next start only when the
    /// returned wait has ended well. Errors: `Append` if they are more than the admission is for.
    pub fn append(&self, encoded: Encoded, admission: Admission) -> Result<Written, StateLogError> {
        if encoded.batches.is_empty() {
            return Ok(Written(None));
        }
        let appended = self.log.append(encoded.batches, admission)?;
        Ok(Written(Some(appended.durable)))
    }

    fn cut(&self) -> Cut {
        let frame = self.storage.frame_bytes_max();
        Cut {
            bytes_max: BATCH_BYTES.min(frame.saturating_sub(FRAME_RESERVE_BYTES)),
            size: AppendSize::default(),
            open: 0,
        }
    }
}

/// Changes that are appended and not yet durable.
#[must_use = "appended is not durable"]
pub struct Written(Option<Durable>);

impl Written {
    /// The same for code that is not async. Blocks.
    pub fn wait_blocking(self) -> Result<(), StateLogError> {
        let Some(durable) = self.0 else { return Ok(()) };
        let done = durable.wait();
        done.map_err(|error| StateLogError::Storage(error.to_string()))
    }

    /// Returns when the changes, and all before them, are durable.
    pub async fn wait(self) -> Result<(), StateLogError> {
        match self.0 {
            Some(durable) => durable
                .await
                .map_err(|error| StateLogError::Storage(error.to_string())),
            None => Ok(()),
        }
    }
}

/// Changes of which each was appended or refused for itself; see [`Written`].
#[must_use = "appended is not durable"]
pub struct WrittenEach {
    /// How many changes stand together, and what came of them.
    pieces: Vec<(usize, Result<Written, StateLogError>)>,
}

impl WrittenEach {
    /// Gives one result for each change, in order, when all that are appended are durable.
    pub async fn wait(self) -> Vec<Result<(), StateLogError>> {
        let mut results = Vec::new();
        for (count, appended) in self.pieces {
            let result = match appended {
                Ok(written) => written.wait().await,
                Err(error) => Err(error),
            };
            results.extend(std::iter::repeat_n(result, count));
        }
        results
    }
}

/// The longest record, key and value together, where batches may be this long.
pub fn record_bytes_max(batch_bytes_max: u64) -> usize {
    usize::try_from(batch_bytes_max)
        .unwrap_or(usize::MAX)
        .saturating_sub(HEADER_BYTES + RECORD_OVERHEAD_BYTES)
}

fn record_bytes((key, value): &Change) -> usize {
    key.len() + value.as_ref().map_or(0, Bytes::len) + RECORD_OVERHEAD_BYTES
}

fn build(
    changes: &[Change],
    now: Timestamp,
    mut cut: Cut,
) -> Result<Vec<AppendBatch>, StateLogError> {
    let mut builders: Vec<BatchBuilder> = Vec::new();
    for change in changes {
        if cut.push(record_bytes(change)) {
            builders.push(BatchBuilder::new(Codec::None));
        }
        let builder = builders.last_mut().expect("the first record begins one");
        let (key, value) = change;
        builder.push(now, Some(key), value.as_deref(), &[])?;
    }
    let batches = builders
        .into_iter()
        .map(|builder| {
            let batch = Batch::parse(builder.build()?).expect("what was just built is a batch");
            Ok(AppendBatch::from(batch))
        })
        .collect::<Result<Vec<_>, StateLogError>>()?;
    let size = AppendSize::of(&batches);
    assert!(
        size.batches == cut.size.batches && size.bytes <= cut.size.bytes,
        "records take no more than what was told of them before"
    );
    Ok(batches)
}

#[cfg(test)]
mod tests;
