//! A log of keyed records: last write wins, no value means gone. Bytes only; what they mean is `StateLog`'s.
//! Callers: `StateLog`.
//! Invariants: a change is in `live` exactly if its record is appended, in the same order. Changes are encoded first,
//! admitted at their real size, then appended; they are cut into batches that every setting of the write-ahead log takes.
//! `write` returns when its records are durable. Compaction re-appends what is live and only then drops what came before,
//! so that at every moment a replay from the start gives what is live. Values are kept by their owners; here is only where
//! the last one of each key stands. The removal of a key outlives one compaction: at a start it says that what is left of
//! it was meant to go.

mod compaction;
mod replay;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use super::StateLogError;
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, Codec, HEADER_BYTES};
use model::{LogId, Offset, Timestamp};
use storage::{
    Admission, AppendBatch, AppendSize, Bounds, Clock, Durable, Log, LogSettings, Purpose, Storage,
};

/// A batch of changes is cut at this size, or at what a frame holds if that is less.
const BATCH_BYTES: usize = 256 * 1024;
/// What a frame holds beside a batch that fills it.
const FRAME_RESERVE_BYTES: usize = 1024;
/// Changes that need not be appended together are appended in pieces of this size.
const PIECE_BYTES: u64 = 1024 * 1024;
/// What a record costs beside key and value, at most.
const RECORD_OVERHEAD_BYTES: usize = 24;

/// A change: the key's new value, or its end.
pub type Change = (Bytes, Option<Bytes>);

/// A keyed log. Cheap to clone.
#[derive(Clone)]
pub struct KeyedLog {
    shared: Arc<Shared>,
}

struct Shared {
    id: LogId,
    log: Arc<Log>,
    storage: Storage,
    clock: Arc<dyn Clock>,
    live: Mutex<Live>,
    compacting: AtomicBool,
}

#[derive(Default)]
struct Live {
    entries: BTreeMap<Bytes, Place>,
    /// What the records of `entries` take.
    live_bytes: usize,
    /// What was appended since the last compaction.
    log_bytes: usize,
    /// Removed keys whose removal is still in the log, and whether a compaction has written it again. None where nobody
    /// asks for them.
    removed: Option<BTreeMap<Bytes, bool>>,
}

/// Where a key's last value stands.
#[derive(Clone, Copy)]
struct Place {
    offset: Offset,
    /// What its record takes.
    bytes: usize,
}

/// Changes that are encoded, and so have a size.
pub struct Encoded {
    changes: Vec<Change>,
    batches: Vec<AppendBatch>,
}

impl Encoded {
    /// What an admission for them has to be for.
    pub fn size(&self) -> AppendSize {
        AppendSize::of(&self.batches)
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
    /// Opens the log, creating it when it isn't there, and replays it. Gives what is live in it, by key. Blocks on the disk.
    /// Only with `keeps_removals` it can be asked what was removed.
    pub fn open(
        storage: &Storage,
        clock: Arc<dyn Clock>,
        id: LogId,
        keeps_removals: bool,
    ) -> Result<(KeyedLog, Vec<(Bytes, Bytes)>), StateLogError> {
        let log = match storage.log(id) {
            Some(log) => log,
            None => storage.create_log(id, LogSettings::state()),
        };
        let mut live = Live {
            removed: keeps_removals.then(BTreeMap::new),
            ..Live::default()
        };
        let entries = replay::replay(id, &log, &mut live)?;
        let storage = storage.clone();
        let live = Mutex::new(live);
        let compacting = AtomicBool::new(false);
        let shared = Shared {
            id,
            log,
            storage,
            clock,
            live,
            compacting,
        };
        let shared = Arc::new(shared);
        Ok((KeyedLog { shared }, entries))
    }

    /// Keys that were removed not long ago; older removals are forgotten. Kept of the metadata only.
    pub fn removed(&self) -> Vec<Bytes> {
        let live = self.shared.lock();
        let removed = live.removed.iter().flatten();
        removed.map(|(key, _)| key.clone()).collect()
    }

    /// From where to where the log reaches.
    pub fn bounds(&self) -> Bounds {
        self.shared.log.bounds()
    }

    /// The longest record, key and value together, that the log takes.
    pub fn record_bytes_max(&self) -> usize {
        record_bytes_max(self.shared.storage.batch_bytes_max())
    }

    /// What changes take whose keys and values are together this long, each.
    pub fn size_of(&self, records: impl IntoIterator<Item = usize>) -> AppendSize {
        let mut cut = self.shared.cut();
        for bytes in records {
            cut.push(bytes + RECORD_OVERHEAD_BYTES);
        }
        cut.size
    }

    /// How many of these records, in order, one append takes; one at least, if there is one.
    pub fn count_for_one_append(&self, records: impl IntoIterator<Item = usize>) -> usize {
        let mut cut = self.shared.cut();
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
        self.shared.storage.takes(size)
    }

    /// Applies the changes in order and returns when they are durable. They are appended together, and refused together.
    /// Two writes at the same time may take effect in either order; where that matters use [`KeyedLog::append`].
    pub async fn write(&self, changes: Vec<Change>, purpose: Purpose) -> Result<(), StateLogError> {
        let written = self.append_admitted(changes, purpose).await?;
        written.wait().await?;
        self.compact_after_write().await;
        Ok(())
    }

    /// Applies changes each for itself, in order: one that is refused does not hold back the others. Gives one result for
    /// each when all that are appended are durable.
    pub async fn write_each(
        &self,
        changes: Vec<Change>,
        purpose: Purpose,
    ) -> Vec<Result<(), StateLogError>> {
        let mut pieces = Vec::new();
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let piece = self.piece(&mut changes, record_bytes);
            pieces.push((piece.len(), self.append_admitted(piece, purpose).await));
        }
        let mut results = Vec::new();
        for (count, appended) in pieces {
            let result = match appended {
                Ok(written) => written.wait().await,
                Err(error) => Err(error),
            };
            results.extend(std::iter::repeat_n(result, count));
        }
        self.compact_after_write().await;
        results
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

    /// Compacts if that is due. What was written is durable, whatever becomes of this.
    async fn compact_after_write(&self) {
        if let Err(error) = self.compact_if_due().await {
            tracing::debug!(log = %self.shared.id, %error, "a state log could not be compacted: with the next change");
        }
    }

    /// As many of the items as one append takes without holding up others; one at least.
    fn piece<T>(
        &self,
        items: &mut std::iter::Peekable<impl Iterator<Item = T>>,
        bytes: impl Fn(&T) -> usize,
    ) -> Vec<T> {
        let mut cut = self.shared.cut();
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
        piece
    }

    /// Encodes changes. Errors: `TooLarge` if a record is longer than the format allows.
    pub fn encode(&self, changes: Vec<Change>) -> Result<Encoded, StateLogError> {
        let now = self.shared.clock.now();
        let batches = build(&changes, now, self.shared.cut())?;
        Ok(Encoded { changes, batches })
    }

    /// Waits for room for an append of this size.
    pub async fn admit(&self, size: AppendSize, purpose: Purpose) -> Admission {
        self.shared.storage.admit_for(size, purpose).await
    }

    /// Appends the changes in order, all or none, without waiting. They are replayed at the next start only when the
    /// returned wait has ended well. Errors: `Append` if they are more than the admission is for.
    pub fn append(&self, encoded: Encoded, admission: Admission) -> Result<Written, StateLogError> {
        self.shared
            .append(&mut self.shared.lock(), encoded, admission)
    }
}

/// Changes that are appended and not yet durable.
#[must_use = "appended is not durable"]
pub struct Written(Option<Durable>);

impl Written {
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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().expect("no change panics half-way")
    }

    fn cut(&self) -> Cut {
        let frame = self.storage.frame_bytes_max();
        Cut {
            bytes_max: BATCH_BYTES.min(frame.saturating_sub(FRAME_RESERVE_BYTES)),
            size: AppendSize::default(),
            open: 0,
        }
    }

    /// Appends under the lock, so that the log's order is the order of `live`.
    fn append(
        &self,
        live: &mut Live,
        encoded: Encoded,
        admission: Admission,
    ) -> Result<Written, StateLogError> {
        let Encoded { changes, batches } = encoded;
        if changes.is_empty() {
            return Ok(Written(None));
        }
        let appended = self.log.append(batches, admission)?;
        let mut offset = appended.base_offset;
        for change in &changes {
            live.apply(change, offset);
            offset = offset.plus(1);
        }
        Ok(Written(Some(appended.durable)))
    }
}

impl Live {
    fn apply(&mut self, change: &Change, offset: Offset) {
        let bytes = record_bytes(change);
        self.log_bytes += bytes;
        let (key, value) = change;
        if let Some(removed) = &mut self.removed {
            match value {
                Some(_) => removed.remove(key),
                None => removed.insert(key.clone(), false),
            };
        }
        let before = match value {
            Some(_) => {
                self.live_bytes += bytes;
                self.entries.insert(key.clone(), Place { offset, bytes })
            }
            None => self.entries.remove(key),
        };
        if let Some(before) = before {
            self.live_bytes -= before.bytes;
        }
    }

    fn is_current(&self, key: &Bytes, offset: Offset) -> bool {
        self.entries
            .get(key)
            .is_some_and(|place| place.offset == offset)
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
