//! A log of keyed records: last write wins, no value means gone. Bytes only; what they mean is `StateLog`'s.
//! Callers: `StateLog`.
//! Invariants: a change is in `live` exactly if its record is appended, in the same order. Changes are encoded first,
//! admitted at their real size, then appended; they are cut into batches that every setting of the write-ahead log takes.
//! `write` returns when its records are durable. Compaction re-appends what is live and only then drops what came before,
//! so that at every moment a replay from the start gives what is live. Values are kept by their owners; here is only where
//! the last one of each key stands. The removal of a key outlives one compaction: at a start it says that what is left of
//! it was meant to go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};

use super::StateLogError;
use bytes::{Bytes, BytesMut};
use model::batch::{Batch, BatchBuilder, Codec, DecompressLimit, HEADER_BYTES};
use model::{LogId, Offset, Timestamp};
use storage::{
    Admission, AppendBatch, AppendError, AppendSize, Bounds, Clock, Durable, Log, LogSettings,
    Purpose, Storage,
};

use crate::broker::on_blocking_pool;

/// A batch of changes is cut at this size, or at what a frame holds if that is less.
const BATCH_BYTES: usize = 256 * 1024;
/// What a frame holds beside a batch that fills it.
const FRAME_RESERVE_BYTES: usize = 1024;
/// Changes that need not be appended together are appended in pieces of this size.
const PIECE_BYTES: u64 = 1024 * 1024;
/// What one replay step reads.
const REPLAY_BYTES: usize = 4 * 1024 * 1024;
/// Below this much dead weight a compaction isn't worth its writes.
const COMPACT_BYTES_MIN: usize = 1024 * 1024;
/// A compaction runs when the log holds this many times what is live.
const COMPACT_FACTOR: usize = 4;
/// What a record costs beside key and value, at most.
const RECORD_OVERHEAD_BYTES: usize = 24;
/// Our own batches are not compressed; a compressed one that somebody put there may not grow beyond this.
const DECOMPRESSED_BYTES_MAX: usize = 64 * 1024 * 1024;

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

/// A live record as compaction finds it.
struct Found {
    offset: Offset,
    key: Bytes,
    value: Bytes,
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
    pub fn open(
        storage: &Storage,
        clock: Arc<dyn Clock>,
        id: LogId,
    ) -> Result<(KeyedLog, Vec<(Bytes, Bytes)>), StateLogError> {
        let log = match storage.log(id) {
            Some(log) => log,
            None => storage.create_log(id, LogSettings::state()),
        };
        let mut live = Live::default();
        if id == LogId::METADATA {
            live.removed = Some(BTreeMap::new());
        }
        let entries = replay(id, &log, &mut live)?;
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
        let encoded = self.encode(changes)?;
        let admission = self.admit(encoded.size(), purpose).await;
        let durable = self.append(encoded, admission)?;
        durable.wait().await?;
        // The changes are durable, whatever becomes of this.
        if let Err(error) = self.compact_if_due().await {
            tracing::debug!(log = %self.shared.id, %error, "a state log could not be compacted: with the next change");
        }
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
            pieces.push((piece.len(), self.write_piece(piece, purpose).await));
        }
        let mut results = Vec::new();
        for (count, appended) in pieces {
            let result = match appended {
                Ok(written) => written.wait().await,
                Err(error) => Err(error),
            };
            results.extend(std::iter::repeat_n(result, count));
        }
        if let Err(error) = self.compact_if_due().await {
            tracing::debug!(log = %self.shared.id, %error, "a state log could not be compacted: with the next change");
        }
        results
    }

    async fn write_piece(
        &self,
        piece: Vec<Change>,
        purpose: Purpose,
    ) -> Result<Written, StateLogError> {
        let encoded = self.encode(piece)?;
        let admission = self.admit(encoded.size(), purpose).await;
        self.append(encoded, admission)
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

    /// Compacts when the log has grown to a multiple of what is live. One at a time; the others go on.
    pub async fn compact_if_due(&self) -> Result<(), StateLogError> {
        let is_due = {
            let live = self.shared.lock();
            live.log_bytes > COMPACT_BYTES_MIN.max(live.live_bytes.saturating_mul(COMPACT_FACTOR))
        };
        if !is_due || self.shared.compacting.swap(true, SeqCst) {
            return Ok(());
        }
        let _running = Running(&self.shared.compacting);
        self.compact().await
    }

    /// Re-appends what is live, waits until that is durable, and drops what came before. A record that the write-ahead log
    /// no longer takes, because its files were made shorter, stays where it is, with all that follows it.
    pub async fn compact(&self) -> Result<(), StateLogError> {
        let (bounds, keys) = {
            let mut live = self.shared.lock();
            live.log_bytes = 0;
            (self.shared.log.bounds(), live.entries.len())
        };
        let mut before = bounds.durable_end;
        let mut next = bounds.start;
        let mut pending = Vec::new();
        while next < before {
            let shared = Arc::clone(&self.shared);
            let (found, end) = on_blocking_pool(move || shared.live_from(next, before)).await?;
            next = end;
            let mut found = found.into_iter().peekable();
            while found.peek().is_some() {
                let piece = self.piece(&mut found, Found::bytes);
                let first = piece[0].offset;
                match self.append_again(piece).await {
                    Ok(written) => pending.push(written),
                    Err(StateLogError::Append(AppendError::TooLarge { bytes, bytes_max })) => {
                        tracing::warn!(log = %self.shared.id, offset = first.get(), bytes, bytes_max, "a record of the broker's own state is longer than wal.file.bytes allows now; its log cannot be shortened before it changes");
                        before = first;
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let removed = self.shared.lock().forget_old_removals();
        let mut removed = removed.into_iter().peekable();
        while removed.peek().is_some() {
            let piece = self.piece(&mut removed, |key: &Bytes| {
                key.len() + RECORD_OVERHEAD_BYTES
            });
            pending.push(self.remove_again(piece).await?);
        }
        for written in pending {
            written.wait().await?;
        }
        let storage_error =
            |error: &dyn std::fmt::Display| StateLogError::Storage(error.to_string());
        let dropped = self.shared.log.delete_records(before);
        let dropped = dropped.map_err(|error| storage_error(&error))?;
        dropped.await.map_err(|error| storage_error(&error))?;
        tracing::debug!(log = %self.shared.id, keys, end = before.get(), "state log compacted");
        Ok(())
    }

    /// Appends those of the records that still count: the last write must win.
    async fn append_again(&self, piece: Vec<Found>) -> Result<Written, StateLogError> {
        let changes = piece.iter().map(Found::change).collect();
        let is_current =
            |live: &Live, index: usize| live.is_current(&piece[index].key, piece[index].offset);
        self.append_where(changes, is_current).await
    }

    /// Appends removals again, but of keys that have come back.
    async fn remove_again(&self, keys: Vec<Bytes>) -> Result<Written, StateLogError> {
        let changes = keys.iter().map(|key| (key.clone(), None)).collect();
        let is_gone = |live: &Live, index: usize| !live.entries.contains_key(&keys[index]);
        let written = self.append_where(changes, is_gone).await?;
        self.shared.lock().mark_written_again(&keys);
        Ok(written)
    }

    /// Appends those of the changes that `counts` once there is room for all of them, given by their index.
    async fn append_where(
        &self,
        changes: Vec<Change>,
        counts: impl Fn(&Live, usize) -> bool,
    ) -> Result<Written, StateLogError> {
        let encoded = self.encode(changes)?;
        // Not out of what is kept for a full disk: it frees none before it is done.
        let admission = self.admit(encoded.size(), Purpose::Records).await;
        let mut live = self.shared.lock();
        let all = encoded.changes.len();
        let counting: Vec<Change> = encoded
            .changes
            .iter()
            .enumerate()
            .filter(|(index, _)| counts(&live, *index))
            .map(|(_, change)| change.clone())
            .collect();
        let encoded = if counting.len() == all {
            encoded
        } else {
            self.encode(counting)?
        };
        self.shared.append(&mut live, encoded, admission)
    }
}

/// Clears the flag when a compaction ends, in whichever way.
struct Running<'a>(&'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
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

    /// The live records of some batches from `from` on, before `end`, and where to go on. Blocks on the disk.
    fn live_from(&self, from: Offset, end: Offset) -> Result<(Vec<Found>, Offset), StateLogError> {
        let mut found = Vec::new();
        let next = walk(self.id, &self.log, from, |records| {
            let live = self.lock();
            let is_live =
                |record: &Change, offset| offset < end && live.is_current(&record.0, offset);
            for (offset, record) in records {
                if is_live(&record, offset)
                    && let (key, Some(value)) = record
                {
                    found.push(Found { offset, key, value });
                }
            }
        })?;
        Ok((found, next))
    }
}

impl Live {
    /// Forgets removals that a compaction has written again already, and gives the others.
    fn forget_old_removals(&mut self) -> Vec<Bytes> {
        let Some(removed) = &mut self.removed else {
            return Vec::new();
        };
        removed.retain(|_, is_written_again| !*is_written_again);
        removed.keys().cloned().collect()
    }

    fn mark_written_again(&mut self, keys: &[Bytes]) {
        let Some(removed) = &mut self.removed else {
            return;
        };
        for key in keys {
            if let Some(mark) = removed.get_mut(key) {
                *mark = true;
            }
        }
    }

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

impl Found {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + RECORD_OVERHEAD_BYTES
    }

    fn change(&self) -> Change {
        (self.key.clone(), Some(self.value.clone()))
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

/// Reads the log, notes what is live in it and where, and gives the values.
fn replay(id: LogId, log: &Log, live: &mut Live) -> Result<Vec<(Bytes, Bytes)>, StateLogError> {
    let mut values: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    let bounds = log.bounds();
    let mut next = bounds.start;
    while next < bounds.durable_end {
        next = walk(id, log, next, |records| {
            for (offset, (key, value)) in records {
                // Copied, so that a small entry doesn't keep a large batch in memory.
                let key = Bytes::copy_from_slice(&key);
                let value = value.map(|value| Bytes::copy_from_slice(&value));
                let change = (key, value);
                live.apply(&change, offset);
                match change {
                    (key, Some(value)) => values.insert(key, value),
                    (key, None) => values.remove(&key),
                };
            }
        })?;
    }
    Ok(values.into_iter().collect())
}

/// Shows the records of some batches, from `from` on, batch by batch. Gives where to go on.
fn walk(
    id: LogId,
    log: &Log,
    from: Offset,
    mut show: impl FnMut(Vec<(Offset, Change)>),
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
                records.push((
                    record.offset,
                    (record.key.unwrap_or_default(), record.value),
                ));
            }
        }
        show(records);
        next = batch.header().next_offset();
    }
    Ok(next)
}

/// What is not compressed does not grow, however long it is.
fn decompress_limit(batch: &Batch) -> DecompressLimit {
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

#[cfg(test)]
mod tests;
