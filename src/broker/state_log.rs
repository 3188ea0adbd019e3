//! State kept in a log: keyed records of the engine's own log, last write wins, no value means gone.
//! Callers: the cluster's metadata, and `groups` for committed offsets.
//! Invariants: a change is in `live` exactly if its record is appended, in the same order. `write` returns when its
//! records are durable. Compaction re-appends what is live and only then drops what came before, so that at every
//! moment a replay from the start gives `live`. The removal of a key outlives one compaction: at a start it says that what
//! is left of it was meant to go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use model::batch::{Batch, BatchBuilder, BatchError, BuildError, Codec, DecompressLimit};
use model::{LogId, Offset};
use storage::{
    Admission, AppendBatch, AppendError, Bounds, Clock, Durable, Log, LogSettings, Purpose, Storage,
};

/// One batch of changes is cut at about this size.
const BATCH_BYTES: usize = 256 * 1024;
/// What one replay step reads.
const REPLAY_BYTES: usize = 4 * 1024 * 1024;
/// Below this much dead weight a compaction isn't worth its writes.
const COMPACT_BYTES_MIN: usize = 1024 * 1024;
/// A compaction runs when the log holds this many times what is live.
const COMPACT_FACTOR: usize = 4;
/// What a record costs beside key and value, about.
const RECORD_OVERHEAD_BYTES: usize = 24;
/// Our own batches are not compressed; nothing in them may grow beyond this.
const DECOMPRESS: DecompressLimit = DecompressLimit::bytes(64 * 1024 * 1024);

/// Why a state log could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum StateLogError {
    /// The log cannot be read. Nothing is concluded from what is missing.
    #[error("state log {log}: unreadable at offset {offset}: {reason}")]
    Unreadable {
        /// Which log.
        log: LogId,
        /// From where.
        offset: Offset,
        /// What the storage says.
        reason: String,
    },
    /// A batch in it is not a batch.
    #[error("state log {log}: {error}")]
    Malformed {
        /// Which log.
        log: LogId,
        /// What is wrong.
        error: BatchError,
    },
    /// An append was refused.
    #[error("state log: {0}")]
    Append(#[from] AppendError),
    /// The storage failed or stopped before the change was durable.
    #[error("state log: {0}")]
    Storage(String),
    /// A change that no batch can hold.
    #[error("state log: {0}")]
    TooLarge(#[from] BuildError),
}

/// A change: the key's new value, or its end.
pub type Change = (Bytes, Option<Bytes>);

/// A keyed log. Cheap to clone.
#[derive(Clone)]
pub struct StateLog {
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
    entries: BTreeMap<Bytes, Bytes>,
    /// Keys and values of `entries`, with what records cost.
    live_bytes: usize,
    /// What was appended since the last compaction.
    log_bytes: usize,
    /// Removed keys whose removal is still in the log, and whether a compaction has written it again. None where nobody
    /// asks for them.
    removed: Option<BTreeMap<Bytes, bool>>,
}

impl StateLog {
    /// Opens the log, creating it when it isn't there, and replays it. Blocks on the disk.
    pub fn open(
        storage: &Storage,
        clock: Arc<dyn Clock>,
        id: LogId,
    ) -> Result<StateLog, StateLogError> {
        let log = match storage.log(id) {
            Some(log) => log,
            None => storage.create_log(id, LogSettings::state()),
        };
        let mut live = Live::default();
        if id == LogId::METADATA {
            live.removed = Some(BTreeMap::new());
        }
        replay(id, &log, &mut live)?;
        let storage = storage.clone();
        let live = Mutex::new(live);
        let compacting = AtomicBool::new(false);
        Ok(StateLog {
            shared: Arc::new(Shared {
                id,
                log,
                storage,
                clock,
                live,
                compacting,
            }),
        })
    }

    /// What is live now.
    pub fn entries(&self) -> Vec<(Bytes, Bytes)> {
        let live = self.shared.lock();
        live.entries
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Keys that were removed not long ago; older removals are forgotten. Kept of the metadata only.
    pub fn removed(&self) -> Vec<Bytes> {
        let live = self.shared.lock();
        live.removed
            .iter()
            .flatten()
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// From where to where the log reaches.
    pub fn bounds(&self) -> Bounds {
        self.shared.log.bounds()
    }

    /// Applies the changes in order and returns when they are durable. Two writes at the same time may take effect in
    /// either order; where that matters use [`StateLog::admit`] and [`StateLog::append`].
    pub async fn write(&self, changes: Vec<Change>) -> Result<(), StateLogError> {
        self.write_for(changes, Purpose::State).await
    }

    /// Like [`StateLog::write`], for changes that free space, or may: they are taken on a full disk too.
    pub async fn write_for(
        &self,
        changes: Vec<Change>,
        purpose: Purpose,
    ) -> Result<(), StateLogError> {
        let bytes = changes.iter().map(record_bytes).sum();
        let admission = self.shared.storage.admit_for(bytes, purpose).await;
        let durable = self.append(changes, admission)?;
        durable.wait().await?;
        // The changes are durable, whatever becomes of this.
        if let Err(error) = self.compact_if_due().await {
            tracing::debug!(log = %self.shared.id, %error, "a state log could not be compacted: with the next change");
        }
        Ok(())
    }

    /// Waits for room for these changes.
    pub async fn admit(&self, changes: &[Change]) -> Admission {
        let bytes = changes.iter().map(record_bytes).sum();
        self.shared.storage.admit_for(bytes, Purpose::State).await
    }

    /// Waits for room for about this many bytes, where the changes are not known yet.
    pub async fn admit_bytes(&self, bytes: usize) -> Admission {
        self.shared.storage.admit_for(bytes, Purpose::State).await
    }

    /// Appends the changes in order, all or none, without waiting. They are replayed at the next start only when the
    /// returned wait has ended well.
    pub fn append(
        &self,
        changes: Vec<Change>,
        admission: Admission,
    ) -> Result<Written, StateLogError> {
        self.shared
            .append(&mut self.shared.lock(), changes, admission)
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

    /// Re-appends what is live, waits until that is durable, and drops what came before.
    pub async fn compact(&self) -> Result<(), StateLogError> {
        let shared = &self.shared;
        let (before, keys) = {
            let mut live = shared.lock();
            live.log_bytes = 0;
            (
                shared.log.bounds().end,
                live.entries.keys().cloned().collect::<Vec<_>>(),
            )
        };
        let mut pending = Vec::new();
        for keys in keys.chunks(1_000) {
            let admission = shared
                .storage
                .admit(keys.iter().map(Bytes::len).sum::<usize>() * 4)
                .await;
            let mut live = shared.lock();
            // What a key holds now, not what it held when this began: the last write must win.
            let current = |key: &Bytes| Some((key.clone(), Some(live.entries.get(key)?.clone())));
            let changes = keys.iter().filter_map(current).collect();
            pending.push(shared.append(&mut live, changes, admission)?);
        }
        let removed = shared.lock().forget_old_removals();
        for keys in removed.chunks(1_000) {
            let changes: Vec<Change> = keys.iter().map(|key| (key.clone(), None)).collect();
            let admission = self.admit(&changes).await;
            let mut live = shared.lock();
            let is_gone = |change: &Change| !live.entries.contains_key(&change.0);
            let changes: Vec<Change> = changes.into_iter().filter(is_gone).collect();
            pending.push(shared.append(&mut live, changes.clone(), admission)?);
            live.mark_written_again(&changes);
        }
        for written in pending {
            written.wait().await?;
        }
        let dropped = shared.log.delete_records(before);
        let dropped = dropped.map_err(|error| StateLogError::Storage(error.to_string()))?;
        dropped
            .await
            .map_err(|error| StateLogError::Storage(error.to_string()))?;
        tracing::debug!(log = %shared.id, keys = keys.len(), end = before.get(), "state log compacted");
        Ok(())
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

    /// Appends under the lock, so that the log's order is the order of `live`.
    fn append(
        &self,
        live: &mut Live,
        changes: Vec<Change>,
        admission: Admission,
    ) -> Result<Written, StateLogError> {
        if changes.is_empty() {
            return Ok(Written(None));
        }
        let batches = build(&changes, self.clock.now())?;
        let appended = self.log.append(batches, admission)?;
        for change in changes {
            live.apply(change);
        }
        Ok(Written(Some(appended.durable)))
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

    fn mark_written_again(&mut self, changes: &[Change]) {
        for (key, _) in changes {
            if let Some(mark) = self
                .removed
                .as_mut()
                .and_then(|removed| removed.get_mut(key))
            {
                *mark = true;
            }
        }
    }

    fn apply(&mut self, change: Change) {
        let bytes = record_bytes(&change);
        self.log_bytes += bytes;
        let (key, value) = change;
        if let Some(removed) = &mut self.removed {
            match value {
                Some(_) => removed.remove(&key),
                None => removed.insert(key.clone(), false),
            };
        }
        let before = match value {
            Some(value) => {
                self.live_bytes += bytes;
                self.entries.insert(key.clone(), value)
            }
            None => self.entries.remove(&key),
        };
        if let Some(before) = before {
            self.live_bytes -= record_bytes(&(key, Some(before)));
        }
    }
}

fn record_bytes((key, value): &Change) -> usize {
    key.len() + value.as_ref().map_or(0, Bytes::len) + RECORD_OVERHEAD_BYTES
}

fn build(changes: &[Change], now: model::Timestamp) -> Result<Vec<AppendBatch>, StateLogError> {
    let mut batches = Vec::new();
    let mut builder = BatchBuilder::new(Codec::None);
    for (key, value) in changes {
        builder.push(now, Some(key), value.as_deref(), &[])?;
        if builder.plain_bytes() >= BATCH_BYTES {
            batches.push(std::mem::replace(
                &mut builder,
                BatchBuilder::new(Codec::None),
            ));
        }
    }
    if !builder.is_empty() {
        batches.push(builder);
    }
    batches
        .into_iter()
        .map(|builder| {
            let batch = Batch::parse(builder.build()?).expect("what was just built is a batch");
            Ok(AppendBatch::from(batch))
        })
        .collect()
}

fn replay(id: LogId, log: &Log, live: &mut Live) -> Result<(), StateLogError> {
    let bounds = log.bounds();
    let mut next = bounds.start;
    while next < bounds.durable_end {
        let chunk =
            log.read_copy(next, REPLAY_BYTES)
                .map_err(|error| StateLogError::Unreadable {
                    log: id,
                    offset: next,
                    reason: error.to_string(),
                })?;
        for batch in model::batch::split(joined(&chunk.slices)) {
            let malformed = |error| StateLogError::Malformed { log: id, error };
            let batch = batch.map_err(malformed)?;
            for record in batch.records(DECOMPRESS).map_err(malformed)? {
                let record = record.map_err(malformed)?;
                if record.offset < next {
                    continue;
                }
                // Copied, so that a small entry doesn't keep a large batch in memory.
                let key = record
                    .key
                    .map(|key| Bytes::copy_from_slice(&key))
                    .unwrap_or_default();
                live.apply((
                    key,
                    record.value.map(|value| Bytes::copy_from_slice(&value)),
                ));
            }
            next = batch.header().next_offset();
        }
    }
    Ok(())
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
mod tests {
    use super::*;
    use storage::{Env, StorageConfig};

    fn open(directory: &std::path::Path) -> (Storage, StateLog) {
        let mut config = StorageConfig::new(directory);
        config.wal_file_bytes = 256 << 10;
        config.wal_files_min = 2;
        let (storage, _) = Storage::open(config, Env::real()).expect("a new store");
        let log = StateLog::open(&storage, storage.clock(), LogId::METADATA).expect("readable");
        (storage, log)
    }

    #[tokio::test]
    async fn the_removal_of_a_key_outlives_one_compaction_and_no_more() {
        let directory = tempfile::tempdir().expect("a directory");
        let change = |key: &str, value: Option<&'static [u8]>| {
            (
                Bytes::copy_from_slice(key.as_bytes()),
                value.map(Bytes::from_static),
            )
        };
        let (storage, log) = open(directory.path());
        let changes = vec![
            change("kept", Some(b"1")),
            change("gone", Some(b"2")),
            change("gone", None),
        ];
        log.write(changes).await.expect("written");
        assert_eq!(log.removed(), [Bytes::from("gone")]);
        log.compact().await.expect("compacted");
        storage.shutdown();
        drop((storage, log));
        // The start after a kill has still to know it.
        let (storage, log) = open(directory.path());
        assert_eq!(log.removed(), [Bytes::from("gone")]);
        assert_eq!(log.entries().len(), 1);
        log.compact().await.expect("compacted");
        assert_eq!(log.removed().len(), 1);
        log.compact().await.expect("compacted");
        assert_eq!(log.removed().len(), 0);
        storage.shutdown();
        drop((storage, log));
        let (_storage, log) = open(directory.path());
        assert_eq!((log.removed().len(), log.entries().len()), (0, 1));
    }
}
