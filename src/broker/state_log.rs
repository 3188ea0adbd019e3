//! State logs: what the broker keeps that is no topic's record, as typed records by key; the last one of a key counts, and a
//! removal ends it.
//! Callers: the cluster's metadata, and the coordinators through `coordination`.
//! Invariants: those of `keyed`, which keeps the bytes. Which state logs there are, their ids and the rule of their versions
//! stand in [`model::state_log`]; a record of a version that is not known ends the opening: what we don't understand we must
//! not act on.

mod error;
pub(in crate::broker) mod fields;
mod keyed;
#[cfg(test)]
pub(super) mod sim;

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use model::state_log::StateLogKind;
use storage::{Admission, AppendBatch, AppendSize, Bounds, Clock, Log, Purpose, Storage};

pub use error::StateLogError;
use keyed::KeyedLog;
pub use keyed::{Change, Written, WrittenEach, record_bytes_max};

/// A record of one of the state logs.
pub trait StateRecord: Sized + Send + Sync + 'static {
    /// The log in which it stands.
    const LOG: StateLogKind;
    /// Why a record is not understood.
    type Unknown: std::error::Error;

    /// Its key, and its value; no value is the key's end.
    fn encode(&self) -> Change;

    /// Reads one that counts.
    fn decode(key: &[u8], value: &[u8]) -> Result<Self, Self::Unknown>;

    /// How long it is, key and value together.
    fn bytes(&self) -> usize {
        change_bytes(&self.encode())
    }
}

/// How long an encoded record is, key and value together.
pub fn change_bytes((key, value): &Change) -> usize {
    key.len() + value.as_ref().map_or(0, Bytes::len)
}

/// A state log of records of one type. Cheap to clone.
pub struct StateLog<R> {
    log: KeyedLog,
    records: PhantomData<fn(R) -> R>,
}

/// The records that counted when a log was opened, in the order of their keys. Each is read when it is taken, and its bytes go
/// then: what is kept is kept once, by whoever takes it.
pub struct Replayed<R> {
    entries: std::vec::IntoIter<(Bytes, Bytes)>,
    removed: Vec<Bytes>,
    records: PhantomData<fn() -> R>,
}

impl<R> Replayed<R> {
    /// Keys that were removed not long ago; older removals are forgotten.
    pub fn removed(&self) -> &[Bytes] {
        &self.removed
    }
}

impl<R> Clone for StateLog<R> {
    fn clone(&self) -> Self {
        StateLog {
            log: self.log.clone(),
            records: PhantomData,
        }
    }
}

impl<R: StateRecord> Iterator for Replayed<R> {
    type Item = Result<R, R::Unknown>;

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.entries.next()?;
        Some(R::decode(&key, &value))
    }
}

impl<R: StateRecord> StateLog<R> {
    /// Opens the log, creating it when it isn't there, and reads it. Blocks on the disk.
    pub fn open(
        storage: &Storage,
        clock: Arc<dyn Clock>,
    ) -> Result<(StateLog<R>, Replayed<R>), StateLogError> {
        let (log, opened) = KeyedLog::open(storage, clock, R::LOG.id())?;
        let log = StateLog {
            log,
            records: PhantomData,
        };
        let replayed = Replayed {
            entries: opened.live.into_iter(),
            removed: opened.removed,
            records: PhantomData,
        };
        Ok((log, replayed))
    }

    /// From where to where the log reaches.
    pub fn bounds(&self) -> Bounds {
        self.log.bounds()
    }

    /// The log itself, for appends over several logs.
    pub fn log(&self) -> &Arc<Log> {
        self.log.log()
    }

    /// The records as batches, for the same.
    pub fn batches(&self, records: &[R]) -> Result<Vec<AppendBatch>, StateLogError> {
        let encoded = self.log.encode(records.iter().map(R::encode).collect())?;
        Ok(encoded.into_batches())
    }

    /// The longest record, key and value together, that the log takes.
    pub fn record_bytes_max(&self) -> usize {
        self.log.record_bytes_max()
    }

    /// What an append takes of records that are this long, key and value together.
    pub fn size_of(&self, records: impl IntoIterator<Item = usize>) -> AppendSize {
        self.log.size_of(records)
    }

    /// How many of these records, in order, one append takes; one at least, if there is one.
    pub fn count_for_one_append(&self, records: impl IntoIterator<Item = usize>) -> usize {
        self.log.count_for_one_append(records)
    }

    /// Writes one record and returns when it is durable.
    pub async fn write(&self, record: &R, purpose: Purpose) -> Result<(), StateLogError> {
        self.log.write(vec![record.encode()], purpose).await
    }

    /// Writes records each for itself, in order: one that is refused does not hold back the others. Gives one result for
    /// each when all that are appended are durable.
    pub async fn write_each<'a>(
        &self,
        records: impl Iterator<Item = &'a R>,
        purpose: Purpose,
    ) -> Vec<Result<(), StateLogError>> {
        self.append_each(records, purpose).await.wait().await
    }

    /// Appends records as [`StateLog::write_each`] does, and does not wait until they are durable.
    pub async fn append_each<'a>(
        &self,
        records: impl Iterator<Item = &'a R>,
        purpose: Purpose,
    ) -> WrittenEach {
        self.log
            .append_each(records.map(R::encode).collect(), purpose)
            .await
    }

    /// Waits for room for an append of this size.
    pub async fn admit(&self, size: AppendSize, purpose: Purpose) -> Admission {
        self.log.admit(size, purpose).await
    }

    /// The same without waiting: None if it would have to.
    pub fn try_admit(&self, size: AppendSize, purpose: Purpose) -> Option<Admission> {
        self.log.try_admit(size, purpose)
    }

    /// Appends the records in order, all or none, without waiting. Errors: `Append` if they are more than the admission is
    /// for.
    pub fn append(&self, records: &[R], admission: Admission) -> Result<Written, StateLogError> {
        self.append_changes(records.iter().map(R::encode).collect(), admission)
    }

    /// The same with records that whoever calls has encoded, to know their size.
    pub fn append_changes(
        &self,
        changes: Vec<Change>,
        admission: Admission,
    ) -> Result<Written, StateLogError> {
        let encoded = self.log.encode(changes)?;
        self.log.append(encoded, admission)
    }
}
