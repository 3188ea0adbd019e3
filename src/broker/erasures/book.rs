//! The erasures that are known, in memory and in the state log `erasures`.
//! Callers: `erasures`, `work` and `looks`. Invariant: what is in the book is durable, but for who runs and who has stopped.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use storage::cleanup::run::Progress;
use storage::{Clock, Purpose, Storage};
use tokio::sync::watch;

use super::look::Looks;
use super::record::{Erasure, ErasureRecord, Part, PartDone, UnknownErasure};
use super::stopped::Stopped;
use crate::broker::state_log::{StateLog, StateLogError, StateRecord};

/// Erasures that are over and still listed; their receipts stay anyway.
pub const ENDED_MAX: usize = 1_000;

/// An erasure as it is now.
#[derive(Clone, Debug)]
pub struct ErasureState {
    /// What was asked for.
    pub erasure: Arc<Erasure>,
    /// What was done to each of its partitions, in their order; empty once it is over.
    pub parts: Vec<PartDone>,
    /// Why it does not go on now.
    pub stopped: Option<Stopped>,
    /// Bytes that it has read, and is to read, in its phase; None if it does not run.
    pub bytes: Option<(u64, u64)>,
}

/// Removes what was made of a topic's records. May block.
pub type OnErased = Arc<dyn Fn(&str) + Send + Sync>;

/// What is in memory.
#[derive(Default)]
pub(super) struct Book {
    pub(super) erasures: BTreeMap<String, Arc<Erasure>>,
    pub(super) parts: HashMap<String, BTreeMap<u32, PartDone>>,
    pub(super) wanted: HashMap<String, Vec<Bytes>>,
    pub(super) receipts: BTreeMap<u64, Arc<str>>,
    pub(super) stopped: HashMap<String, Stopped>,
    pub(super) running: Option<(String, Arc<Progress>)>,
}

impl Book {
    pub(super) fn take(&mut self, record: ErasureRecord) {
        match record {
            ErasureRecord::Erasure(one) => drop(self.erasures.insert(one.id.clone(), one)),
            ErasureRecord::ErasureGone(id) => drop(self.erasures.remove(&id)),
            ErasureRecord::Part(id, partition, done) => {
                self.parts.entry(id).or_default().insert(partition, done);
            }
            ErasureRecord::PartGone(id, partition) => {
                if let Some(parts) = self.parts.get_mut(&id) {
                    parts.remove(&partition);
                    if parts.is_empty() {
                        self.parts.remove(&id);
                    }
                }
            }
            ErasureRecord::Wanted(id, keys) => drop(self.wanted.insert(id, keys)),
            ErasureRecord::WantedGone(id) => drop(self.wanted.remove(&id)),
            ErasureRecord::Receipt(number, text) => drop(self.receipts.insert(number, text)),
        }
    }

    pub(super) fn state(&self, erasure: &Arc<Erasure>) -> ErasureState {
        let parts = self.parts.get(&erasure.id);
        let of = |part: &Part| parts.and_then(|parts| parts.get(&part.partition)).cloned();
        let running = self.running.as_ref().filter(|(id, _)| *id == erasure.id);
        ErasureState {
            erasure: Arc::clone(erasure),
            parts: match parts {
                Some(_) => (erasure.parts.iter())
                    .map(|part| of(part).unwrap_or_else(PartDone::new))
                    .collect(),
                None => Vec::new(),
            },
            stopped: self.stopped.get(&erasure.id).cloned(),
            bytes: running.map(|(_, progress)| (progress.bytes_done(), progress.bytes_total())),
        }
    }

    /// Those that are not over.
    pub(super) fn open(&self) -> impl Iterator<Item = &Arc<Erasure>> {
        self.erasures.values().filter(|one| !one.is_ended())
    }
}

/// The erasures.
pub(in crate::broker) struct Erasures {
    pub(super) log: StateLog<ErasureRecord>,
    book: Mutex<Book>,
    /// Changes run one at a time.
    pub(super) changes: tokio::sync::Mutex<()>,
    /// Told whenever something has changed.
    pub(super) changed: watch::Sender<()>,
    looks: Mutex<Looks>,
    /// Who has something that was made of records.
    pub(super) on_erased: Mutex<Vec<OnErased>>,
}

/// Why the erasures cannot be read at a start.
#[derive(Debug, thiserror::Error)]
pub enum ErasuresError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] StateLogError),
    /// A record is not understood.
    #[error(transparent)]
    Unknown(#[from] UnknownErasure),
}

impl Erasures {
    /// Reads the log. Blocks on the disk.
    pub(in crate::broker) fn open(
        storage: &Storage,
        clock: Arc<dyn Clock>,
    ) -> Result<Erasures, ErasuresError> {
        let (log, records) = StateLog::open(storage, clock)?;
        let mut book = Book::default();
        for record in records {
            book.take(record?);
        }
        Ok(Erasures {
            log,
            book: Mutex::new(book),
            changes: tokio::sync::Mutex::default(),
            changed: watch::Sender::new(()),
            looks: Mutex::default(),
            on_erased: Mutex::default(),
        })
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, Book> {
        self.book
            .lock()
            .expect("nothing panics while it holds the book")
    }

    pub(super) fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks
            .lock()
            .expect("nothing panics while it holds the looks")
    }

    /// Writes records, each for itself and in order, and takes them into the book once they are durable.
    pub(super) async fn write(&self, records: Vec<ErasureRecord>) -> Result<(), StateLogError> {
        let written = self.log.write_each(records.iter(), Purpose::Removal).await;
        let mut result = Ok(());
        let mut book = self.locked();
        for (record, written) in records.into_iter().zip(written) {
            match written {
                Ok(()) => book.take(record),
                Err(error) => result = Err(error),
            }
        }
        drop(book);
        self.changed.send_replace(());
        result
    }

    /// Writes a few records in one append, and takes them into the book once they are durable.
    pub(super) async fn write_together(
        &self,
        records: Vec<ErasureRecord>,
    ) -> Result<(), StateLogError> {
        let size = self.log.size_of(records.iter().map(StateRecord::bytes));
        let admission = self.log.admit(size, Purpose::Removal).await;
        self.log.append(&records, admission)?.wait().await?;
        let mut book = self.locked();
        for record in records {
            book.take(record);
        }
        drop(book);
        self.changed.send_replace(());
        Ok(())
    }

    /// Changes an erasure, durably. None if there is no such one, or `change` does not want to.
    pub(super) async fn change(
        &self,
        id: &str,
        change: impl FnOnce(&mut Erasure) -> bool,
    ) -> Result<Option<Arc<Erasure>>, StateLogError> {
        let _changes = self.changes.lock().await;
        let Some(known) = self.locked().erasures.get(id).cloned() else {
            return Ok(None);
        };
        let mut erasure = Erasure::clone(&known);
        if !change(&mut erasure) {
            return Ok(None);
        }
        let erasure = Arc::new(erasure);
        let record = ErasureRecord::Erasure(Arc::clone(&erasure));
        self.write(vec![record]).await?;
        Ok(Some(erasure))
    }
}
