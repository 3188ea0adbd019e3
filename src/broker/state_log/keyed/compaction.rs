//! Compaction: what is live is appended again, and what came before is dropped once that is durable.
//! Callers: every write, and the coordinators' runtime from time to time. Invariant: at every moment a replay from the start
//! gives what is live.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use model::Offset;
use storage::{AppendError, Purpose};

use super::replay::walk;
use super::{Change, KeyedLog, Live, RECORD_OVERHEAD_BYTES, Shared, Written};
use crate::broker::on_blocking_pool;
use crate::broker::state_log::StateLogError;

/// Below this much dead weight a compaction isn't worth its writes.
const COMPACT_BYTES_MIN: usize = 1024 * 1024;
/// A compaction runs when the log holds this many times what is live.
const COMPACT_FACTOR: usize = 4;

/// A live record as compaction finds it.
struct Found {
    offset: Offset,
    key: Bytes,
    value: Bytes,
}

impl KeyedLog {
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

impl Shared {
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
}

impl Found {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + RECORD_OVERHEAD_BYTES
    }

    fn change(&self) -> Change {
        (self.key.clone(), Some(self.value.clone()))
    }
}
