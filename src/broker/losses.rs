//! The loss ledger: what was removed or damaged before a consumer group had read it, who lost it, when and why.
//!
//! Callers: the store's cleaner tells of what it removes, DeleteRecords of what it deletes, `Broker::run` looks for damage that is
//! new; fronts list the entries. An entry is in memory at once and in the state log `losses` as soon as that has room: a removal
//! does not wait for it. Invariants: losses of a group in a partition that continue one another, for one cause, are one entry;
//! of more than [`LOSSES_MAX`] entries the oldest go, and are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use model::state_log::{LOSS_KEY_HEAD, LOSSES_VERSION, StateLogKind};
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use serde::{Deserialize, Serialize};
use storage::cleanup::removed::Removed;
use storage::{Clock, Damage, Purpose, Storage};
use tokio::sync::{Notify, watch};

use super::Broker;
use super::access::{Cluster, Granted, right};
use super::catalog::Topic;
use super::state_log::{Change, StateLog, StateLogError, StateRecord};

/// Entries that are kept.
pub const LOSSES_MAX: usize = 10_000;
/// How often it is looked whether damage was found.
const DAMAGE_INTERVAL: Duration = Duration::from_secs(1);
/// Entries that are written at once.
const WRITTEN_AT_ONCE: usize = 100;

/// What took the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Retention, by time or size.
    Retention,
    /// The bound of the whole store.
    StoreBound,
    /// Somebody deleted them.
    DeleteRecords,
    /// They are damaged.
    Damage,
    /// Somebody had the records of their keys erased.
    Erasure,
}

/// What a group lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// First, in every value: see [`model::state_log::METADATA_VALUE_HEAD`].
    version: u32,
    /// The entry's number; it rises.
    pub number: u64,
    /// The consumer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    topic_id: uuid::Uuid,
    /// The partition.
    pub partition: u32,
    /// The first offset that the group had not read.
    pub from: u64,
    /// The offset after the last one.
    pub to: u64,
    /// How many records; no more than so many, where compaction had been there before.
    pub records: u64,
    /// When the first of them was appended, as far as that is known.
    pub first_ms: Option<i64>,
    /// When the last of them was appended.
    pub last_ms: Option<i64>,
    /// When it was noted first.
    pub at_ms: i64,
    /// When it was noted last.
    pub until_ms: i64,
    /// What took them.
    pub cause: Cause,
    /// Why, in words.
    pub reason: String,
}

impl Loss {
    fn is_of(&self, topic: TopicId, partition: PartitionId) -> bool {
        TopicId::from_uuid(self.topic_id) == topic && self.partition == partition.get()
    }
}

/// A record of the state log `losses`.
pub(super) enum LossRecord {
    Noted(Arc<Loss>),
    Dropped(u64),
}

/// Why a record is not understood.
#[derive(Debug, thiserror::Error)]
#[error("record {key:?} of the loss ledger: {reason}")]
pub struct UnknownLoss {
    key: String,
    reason: String,
}

impl StateRecord for LossRecord {
    const LOG: StateLogKind = StateLogKind::Losses;
    type Unknown = UnknownLoss;

    fn encode(&self) -> Change {
        let (number, value) = match self {
            LossRecord::Noted(loss) => (loss.number, Some(&**loss)),
            LossRecord::Dropped(number) => (*number, None),
        };
        let value = value.map(|loss| serde_json::to_vec(loss).expect("plain fields are JSON"));
        (
            Bytes::from(format!("{LOSS_KEY_HEAD}{number:020}")),
            value.map(Bytes::from),
        )
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<LossRecord, UnknownLoss> {
        let refuse = |reason: String| UnknownLoss {
            key: String::from_utf8_lossy(key).into_owned(),
            reason,
        };
        StateLogKind::Losses
            .check(key, Some(value))
            .map_err(|error| refuse(error.to_string()))?;
        let loss = serde_json::from_slice(value).map_err(|error| refuse(error.to_string()))?;
        Ok(LossRecord::Noted(Arc::new(loss)))
    }
}

/// What is in memory.
#[derive(Default)]
struct Book {
    entries: BTreeMap<u64, Arc<Loss>>,
    next: u64,
    /// Entries that the log does not have as they are.
    unwritten: BTreeSet<u64>,
    /// Entries that are to be removed from the log.
    dropped: Vec<u64>,
    /// Damage that was looked at.
    seen: Vec<(LogId, Range<Offset>)>,
    records: u64,
}

/// Records that were lost, before it is known who lost them.
struct Taken<'a> {
    topic: &'a Topic,
    partition: PartitionId,
    offsets: Range<Offset>,
    /// The most records that they can be.
    records: u64,
    appended: Option<(Timestamp, Timestamp)>,
    cause: Cause,
    reason: &'a str,
}

impl Book {
    /// Notes that a group lost what it had not read. Gives whether that is news.
    fn note(&mut self, group: &str, read_to: Offset, taken: &Taken<'_>, now: Timestamp) -> bool {
        let from = taken.offsets.start.max(read_to);
        if from >= taken.offsets.end {
            return false;
        }
        let (from, to) = (from.get(), taken.offsets.end.get());
        let records = taken.records.min(to - from);
        self.records += records;
        let continued = self.entries.values().rev().take(LOSSES_MAX).find(|loss| {
            loss.group == group
                && loss.is_of(taken.topic.id, taken.partition)
                && loss.cause == taken.cause
                && loss.to == from
        });
        let mut loss = match continued {
            Some(found) => Loss::clone(found),
            None => {
                let number = self.next;
                self.next += 1;
                Loss {
                    version: LOSSES_VERSION,
                    number,
                    group: group.to_owned(),
                    topic: taken.topic.name.as_str().to_owned(),
                    topic_id: taken.topic.id.as_uuid(),
                    partition: taken.partition.get(),
                    from,
                    to: from,
                    records: 0,
                    first_ms: taken.appended.map(|(first, _)| first.millis()),
                    last_ms: None,
                    at_ms: now.millis(),
                    until_ms: now.millis(),
                    cause: taken.cause,
                    reason: String::new(),
                }
            }
        };
        loss.to = to;
        loss.records += records;
        loss.last_ms = taken
            .appended
            .map(|(_, last)| last.millis())
            .or(loss.last_ms);
        loss.until_ms = now.millis();
        loss.reason = taken.reason.to_owned();
        self.unwritten.insert(loss.number);
        self.entries.insert(loss.number, Arc::new(loss));
        while self.entries.len() > LOSSES_MAX {
            let Some((number, _)) = self.entries.pop_first() else {
                break;
            };
            self.unwritten.remove(&number);
            self.dropped.push(number);
        }
        true
    }
}

/// The ledger.
pub(super) struct Losses {
    log: StateLog<LossRecord>,
    book: Mutex<Book>,
    /// Told when there is something to write.
    news: Notify,
}

/// Why the ledger cannot be read at a start.
#[derive(Debug, thiserror::Error)]
pub enum LossesError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] StateLogError),
    /// A record is not understood.
    #[error(transparent)]
    Unknown(#[from] UnknownLoss),
}

impl Losses {
    /// Reads the log. Blocks on the disk.
    pub(super) fn open(storage: &Storage, clock: Arc<dyn Clock>) -> Result<Losses, LossesError> {
        let (log, records) = StateLog::open(storage, clock)?;
        let mut book = Book::default();
        for record in records {
            if let LossRecord::Noted(loss) = record? {
                book.next = book.next.max(loss.number + 1);
                book.records += loss.records;
                book.entries.insert(loss.number, loss);
            }
        }
        Ok(Losses {
            log,
            book: Mutex::new(book),
            news: Notify::new(),
        })
    }

    fn locked(&self) -> MutexGuard<'_, Book> {
        self.book
            .lock()
            .expect("nothing panics while it holds the book")
    }

    /// Writes what the log does not have. What cannot be written now is tried again with the next news.
    async fn write(&self) -> Result<(), StateLogError> {
        loop {
            let (records, numbers) = {
                let book = self.locked();
                let numbers: Vec<u64> = book
                    .unwritten
                    .iter()
                    .take(WRITTEN_AT_ONCE)
                    .copied()
                    .collect();
                let noted = numbers.iter().filter_map(|number| book.entries.get(number));
                let mut records: Vec<LossRecord> = noted.cloned().map(LossRecord::Noted).collect();
                records.extend(book.dropped.iter().copied().map(LossRecord::Dropped));
                (records, numbers)
            };
            if records.is_empty() {
                return Ok(());
            }
            let written = self.log.write_each(records.iter(), Purpose::State).await;
            written.into_iter().collect::<Result<Vec<()>, _>>()?;
            let mut book = self.locked();
            for record in &records {
                match record {
                    LossRecord::Dropped(number) => book.dropped.retain(|one| one != number),
                    // Unless it grew meanwhile.
                    LossRecord::Noted(loss) if book.entries.get(&loss.number) == Some(loss) => {
                        book.unwritten.remove(&loss.number);
                    }
                    LossRecord::Noted(_) => {}
                }
            }
            drop(numbers);
        }
    }
}

/// What the ledger holds in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossTotals {
    /// Entries.
    pub entries: usize,
    /// Records in them.
    pub records: u64,
    /// When the newest was noted.
    pub newest_ms: Option<i64>,
}

impl Broker {
    /// The entries of the ledger, the newest first: of one group, of one topic, or all.
    pub fn losses(
        &self,
        _cluster: &Granted<Cluster, right::Describe>,
        group: Option<&str>,
        topic: Option<&str>,
    ) -> Vec<Arc<Loss>> {
        let book = self.shared.losses.locked();
        let wanted = book.entries.values().rev().filter(|loss| {
            group.is_none_or(|group| group == loss.group)
                && topic.is_none_or(|topic| topic == loss.topic)
        });
        wanted.cloned().collect()
    }

    /// How much is in the ledger.
    pub fn loss_totals(&self) -> LossTotals {
        let book = self.shared.losses.locked();
        LossTotals {
            entries: book.entries.len(),
            records: book.records,
            newest_ms: book.entries.values().map(|loss| loss.until_ms).max(),
        }
    }

    /// The cleaner removes records. Called by it; never waits for the disk.
    pub(super) fn note_removed(&self, removed: &Removed) {
        let Some(topic) = self.shared.catalog.by_id(removed.log.topic_id) else {
            return;
        };
        let cause = match removed.policy {
            storage::cleanup::Policy::StoreBound => Cause::StoreBound,
            _ => Cause::Retention,
        };
        self.note_taken(&Taken {
            topic: &topic,
            partition: removed.log.partition,
            offsets: removed.offsets.clone(),
            records: removed.records,
            appended: removed.appended,
            cause,
            reason: &removed.reason,
        });
    }

    /// Somebody deleted the front of a partition.
    pub(super) fn note_deleted(
        &self,
        topic: &Topic,
        partition: PartitionId,
        offsets: Range<Offset>,
        by: &str,
    ) {
        self.note_taken(&Taken {
            topic,
            partition,
            records: offsets.end.since(offsets.start),
            offsets,
            appended: None,
            cause: Cause::DeleteRecords,
            reason: by,
        });
    }

    /// An erasure took so many records between these offsets.
    pub(super) fn note_erased(&self, log: LogId, offsets: Range<Offset>, records: u64, by: &str) {
        let topic = self.shared.catalog.by_id(log.topic_id);
        let Some(topic) = topic.filter(|_| !offsets.is_empty()) else {
            return;
        };
        let is_noted = |loss: &Arc<Loss>| {
            loss.is_of(log.topic_id, log.partition)
                && loss.cause == Cause::Erasure
                && loss.reason == by
                && loss.from <= offsets.start.get()
                && loss.to >= offsets.end.get()
        };
        // What was done when the server was killed is told again.
        if self.shared.losses.locked().entries.values().any(is_noted) {
            return;
        }
        self.note_taken(&Taken {
            topic: &topic,
            partition: log.partition,
            offsets,
            records,
            appended: None,
            cause: Cause::Erasure,
            reason: by,
        });
    }

    fn note_damage(&self, damage: &Damage) {
        let Some(log) = damage.log else { return };
        {
            let mut book = self.shared.losses.locked();
            let place = (log, damage.range.clone());
            if book.seen.contains(&place) {
                return;
            }
            book.seen.push(place);
            let known = |loss: &Arc<Loss>| {
                loss.is_of(log.topic_id, log.partition)
                    && loss.cause == Cause::Damage
                    && loss.to == damage.range.end.get()
            };
            // An earlier start has noted it.
            if book.entries.values().any(known) {
                return;
            }
        }
        let Some(topic) = self.shared.catalog.by_id(log.topic_id) else {
            return;
        };
        self.note_taken(&Taken {
            topic: &topic,
            partition: log.partition,
            records: damage.range.end.since(damage.range.start),
            offsets: damage.range.clone(),
            appended: None,
            cause: Cause::Damage,
            reason: &damage.reason,
        });
    }

    /// Notes what each group had not read of it: those that committed something in the partition, and those for which the topic
    /// keeps records.
    fn note_taken(&self, taken: &Taken<'_>) {
        let now = self.now();
        let groups = self.groups().list();
        let mut readers: BTreeMap<String, Offset> = taken
            .topic
            .config
            .hold
            .groups
            .iter()
            .map(|group| (group.clone(), Offset::ZERO))
            .collect();
        for group in groups {
            if let Some(read_to) = self.committed(&group.id, taken.topic, taken.partition) {
                readers.insert(group.id, read_to);
            }
        }
        let mut book = self.shared.losses.locked();
        let mut is_news = false;
        for (group, read_to) in readers {
            is_news |= book.note(&group, read_to, taken, now);
        }
        drop(book);
        if is_news {
            self.shared.losses.news.notify_one();
        }
    }

    /// Writes the ledger, and looks for damage, until `shutdown` turns true.
    pub(super) async fn keep_losses(&self, mut shutdown: watch::Receiver<bool>) {
        let losses = &self.shared.losses;
        loop {
            for damage in self.health().damage {
                self.note_damage(&damage);
            }
            if let Err(error) = losses.write().await {
                tracing::warn!(%error, "the loss ledger could not be written: it is tried again");
            }
            let stopped = async {
                let _ = shutdown.wait_for(|stop| *stop).await;
            };
            tokio::select! {
                () = losses.news.notified() => {}
                () = tokio::time::sleep(DAMAGE_INTERVAL) => {}
                () = stopped => break,
            }
        }
        if let Err(error) = losses.write().await {
            tracing::warn!(%error, "the loss ledger could not be written");
        }
    }
}
