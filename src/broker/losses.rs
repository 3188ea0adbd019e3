//! The loss ledger: what was removed or damaged before a consumer group, or somebody who was reading, had read it: who lost it, when
//! and why.
//!
//! Callers: the store's cleaner tells of what it is about to remove, DeleteRecords and the deletion of topics of what they are about
//! to delete, `Broker::run` looks for damage that is new; fronts list the entries.
//! Invariants: an entry comes before what it tells of. It is in the write-ahead log before the frame that raises a log's start, and
//! durable before a rewritten segment takes another's place, or a topic is deleted: a kill between the two leaves an entry too many, which
//! the next start takes back or the next try makes true, and never a gap that nobody is told of. Only on a disk without a free
//! byte a start is raised first, because that gives the room. Losses of one reader in a partition that continue one another, for one cause,
//! are one entry; of more than [`LOSSES_MAX`] entries the oldest go, and are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use model::state_log::{LOSS_KEY_HEAD, LOSSES_VERSION, StateLogKind};
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use serde::{Deserialize, Serialize};
use storage::cleanup::Policy;
use storage::cleanup::removed::{Noted, Removed};
use storage::segment::SegmentId;
use storage::{AppendError, Clock, Damage, Purpose, Storage};
use tokio::sync::{Notify, watch};

use super::Broker;
use super::access::{Cluster, Granted, right};
use super::catalog::Topic;
use super::groups::MemberDescription;
use super::open_readers::OpenReader;
use super::state_log::{Change, StateLog, StateLogError, StateRecord, Written};

/// Entries that are kept.
pub const LOSSES_MAX: usize = 10_000;
/// How often it is looked whether damage was found.
const DAMAGE_INTERVAL: Duration = Duration::from_secs(1);
/// Entries that are written at once.
const WRITTEN_AT_ONCE: usize = 100;
/// By so much an entry may grow while there is no room for it.
const SPARE_BYTES: usize = 64;

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
    /// Compaction: there is a later record of the key.
    Compaction,
    /// Thinning.
    Thinning,
    /// Somebody deleted the topic.
    TopicDeleted,
}

impl Cause {
    /// Whether it takes the front of a partition, which then begins later.
    fn takes_front(self) -> bool {
        match self {
            Cause::Retention | Cause::StoreBound | Cause::DeleteRecords => true,
            Cause::Damage
            | Cause::Erasure
            | Cause::Compaction
            | Cause::Thinning
            | Cause::TopicDeleted => false,
        }
    }

    /// Whether a release that knows version 1 alone knows it.
    fn is_of_version_1(self) -> bool {
        self.takes_front() || matches!(self, Cause::Damage | Cause::Erasure)
    }
}

/// Who lost something.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    /// A consumer group.
    Group(String),
    /// Somebody who was reading: who it is, in words.
    Reader(String),
}

/// What a group lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// First, in every value: see [`model::state_log::METADATA_VALUE_HEAD`].
    version: u32,
    /// The entry's number; it rises.
    pub number: u64,
    /// The consumer group; None for a reader.
    pub group: Option<String>,
    /// Who was reading, without a group. Such an entry is of version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<String>,
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
    /// The segment that was written last without them, for what compaction and thinning take. Such an entry is of version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segment: Option<String>,
}

impl Loss {
    fn is_whose(&self, who: &Who) -> bool {
        match who {
            Who::Group(group) => self.group.as_ref() == Some(group),
            Who::Reader(reader) => self.reader.as_ref() == Some(reader),
        }
    }

    /// The least version that says all of it.
    fn version_of(&self) -> u32 {
        let is_of_1 = self.group.is_some() && self.reader.is_none() && self.cause.is_of_version_1();
        if is_of_1 { 1 } else { LOSSES_VERSION }
    }

    /// Whether somebody deleted the front of this log.
    pub(super) fn is_deleted_from(&self, log: LogId) -> bool {
        self.cause == Cause::DeleteRecords && self.is_of(log.topic_id, log.partition)
    }

    /// Whether it tells of the deletion of this topic.
    pub(super) fn is_of_deleted(&self, topic: TopicId) -> bool {
        self.cause == Cause::TopicDeleted && TopicId::from_uuid(self.topic_id) == topic
    }

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
        let loss: Loss =
            serde_json::from_slice(value).map_err(|error| refuse(error.to_string()))?;
        if loss.version != loss.version_of() || loss.group.is_some() == loss.reader.is_some() {
            return Err(refuse("it is none of its version".to_owned()));
        }
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
    /// The segment that is about to take the place of those that they are in.
    segment: Option<SegmentId>,
}

/// Whether the log has what was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InLog {
    /// All of it is appended.
    Yes,
    /// The disk is full.
    NoRoom,
    /// Not now.
    Busy,
}

impl Book {
    fn of<'b>(&'b self, who: &'b Who, taken: &'b Taken<'_>) -> impl Iterator<Item = &'b Arc<Loss>> {
        let is_of =
            |loss: &&Arc<Loss>| loss.is_whose(who) && loss.is_of(taken.topic.id, taken.partition);
        self.entries.values().rev().filter(is_of)
    }

    /// Notes that somebody loses what they had not read. Gives whether that is news: a removal is told again when it was not done
    /// at the first time.
    fn note(&mut self, who: &Who, read_to: Offset, taken: &Taken<'_>, now: Timestamp) -> bool {
        let mut from = taken.offsets.start.max(read_to).get();
        let to = taken.offsets.end.get();
        if taken.cause.takes_front() {
            // A front is taken once.
            let before = self.of(who, taken).filter(|loss| loss.cause.takes_front());
            let before = before.filter(|loss| loss.from <= from).map(|loss| loss.to);
            from = before.max().map_or(from, |noted| noted.max(from));
        }
        if from >= to {
            return false;
        }
        let segment = taken.segment.map(|id| id.to_string());
        let is_told_again = |loss: &&Arc<Loss>| match taken.cause {
            Cause::Compaction | Cause::Thinning => loss.segment == segment,
            Cause::TopicDeleted => loss.to >= to,
            _ => false,
        };
        let continues = |loss: &&Arc<Loss>| {
            loss.cause == taken.cause && (loss.to == from || taken.segment.is_some())
        };
        let same = |loss: &&Arc<Loss>| loss.cause == taken.cause && is_told_again(loss);
        if self.of(who, taken).any(|loss| same(&loss)) {
            return false;
        }
        let records = taken.records.min(to - from);
        self.records += records;
        let continued = self.of(who, taken).find(continues).map(Arc::clone);
        let mut loss = match continued {
            Some(found) => Loss::clone(&found),
            None => self.begin(who, taken, from, now),
        };
        loss.version = loss.version_of();
        loss.from = loss.from.min(from);
        loss.to = loss.to.max(to);
        loss.segment = segment;
        loss.records += records;
        loss.last_ms = taken
            .appended
            .map(|(_, last)| last.millis())
            .or(loss.last_ms);
        loss.until_ms = now.millis();
        loss.reason = taken.reason.to_owned();
        self.unwritten.insert(loss.number);
        self.entries.insert(loss.number, Arc::new(loss));
        self.drop_oldest();
        true
    }

    /// An entry with nothing in it yet.
    fn begin(&mut self, who: &Who, taken: &Taken<'_>, from: u64, now: Timestamp) -> Loss {
        let number = self.next;
        self.next += 1;
        let (group, reader) = match who.clone() {
            Who::Group(group) => (Some(group), None),
            Who::Reader(reader) => (None, Some(reader)),
        };
        Loss {
            version: LOSSES_VERSION,
            number,
            group,
            reader,
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
            segment: None,
        }
    }

    /// Entries beyond the bound go.
    fn drop_oldest(&mut self) {
        while self.entries.len() > LOSSES_MAX {
            let Some((number, _)) = self.entries.pop_first() else {
                break;
            };
            self.unwritten.remove(&number);
            self.dropped.push(number);
        }
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

    /// The next records that the log is to have, at most so many as are written at once.
    fn to_write(book: &Book) -> Vec<LossRecord> {
        let noted = book
            .unwritten
            .iter()
            .filter_map(|number| book.entries.get(number));
        let noted = noted.cloned().map(LossRecord::Noted);
        let dropped = book.dropped.iter().copied().map(LossRecord::Dropped);
        noted.chain(dropped).take(WRITTEN_AT_ONCE).collect()
    }

    /// They are in the log.
    fn has_appended(book: &mut Book, records: &[LossRecord]) {
        for record in records {
            match record {
                LossRecord::Dropped(number) => book.dropped.retain(|one| one != number),
                LossRecord::Noted(loss) => drop(book.unwritten.remove(&loss.number)),
            }
        }
    }

    /// Appends what the log does not have, without waiting; what it gives ends when that is durable.
    fn append_now(&self, book: &mut Book) -> (InLog, Option<Written>) {
        let mut last = None;
        loop {
            let records = Losses::to_write(book);
            if records.is_empty() {
                return (InLog::Yes, last);
            }
            let size = self.log.size_of(records.iter().map(StateRecord::bytes));
            let Some(admission) = self.log.try_admit(size, Purpose::Removal) else {
                return (InLog::Busy, last);
            };
            match self.log.append(&records, admission) {
                Ok(written) => {
                    Losses::has_appended(book, &records);
                    last = Some(written);
                }
                Err(StateLogError::Append(AppendError::DiskFull)) => {
                    return (InLog::NoRoom, last);
                }
                Err(error) => {
                    tracing::debug!(%error, "the loss ledger takes nothing now");
                    return (InLog::Busy, last);
                }
            }
        }
    }

    /// Writes what the log does not have, and waits until it is durable. What cannot be written now is tried again with the next
    /// news.
    async fn write(&self) -> Result<(), StateLogError> {
        let mut last = None;
        loop {
            let size = {
                let records = Losses::to_write(&self.locked());
                if records.is_empty() {
                    break;
                }
                self.log
                    .size_of(records.iter().map(|record| record.bytes() + SPARE_BYTES))
            };
            let admission = self.log.admit(size, Purpose::State).await;
            let mut book = self.locked();
            let mut records = Losses::to_write(&book);
            // They may have grown meanwhile.
            let fits = |records: &[LossRecord]| {
                let needs = self.log.size_of(records.iter().map(StateRecord::bytes));
                needs.bytes <= size.bytes && needs.batches <= size.batches
            };
            while !fits(&records) {
                records.pop();
            }
            last = Some(self.log.append(&records, admission)?);
            Losses::has_appended(&mut book, &records);
        }
        match last {
            Some(written) => written.wait().await,
            None => Ok(()),
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
            group.is_none_or(|group| loss.group.as_deref() == Some(group))
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

    /// The cleaner is about to remove records. Called by it. Waits for the disk only if a rewrite is to take them. The answer says
    /// whether they may go.
    pub(super) fn note_removed(&self, removed: &Removed) -> Noted {
        let Some(topic) = self.shared.catalog.by_id(removed.log.topic_id) else {
            return Noted::Yes;
        };
        let cause = match removed.policy {
            Policy::StoreBound => Cause::StoreBound,
            Policy::Retention => Cause::Retention,
            Policy::Compaction => Cause::Compaction,
            Policy::Thin => Cause::Thinning,
        };
        let taken = Taken {
            topic: &topic,
            partition: removed.log.partition,
            offsets: removed.offsets.clone(),
            records: removed.records,
            appended: removed.appended,
            cause,
            reason: &removed.reason,
            segment: removed.rewritten_as,
        };
        match self.note_taken(&taken) {
            (InLog::Yes, Some(written)) if removed.rewritten_as.is_some() => {
                match written.wait_blocking() {
                    Ok(()) => Noted::Yes,
                    Err(_) => Noted::NotNow,
                }
            }
            (InLog::Yes, _) => Noted::Yes,
            // What is removed makes room. A rewrite has no room either.
            (InLog::NoRoom, _) if removed.rewritten_as.is_none() => Noted::Yes,
            (InLog::NoRoom | InLog::Busy, _) => Noted::NotNow,
        }
    }

    /// Somebody is about to delete the front of a partition. When this returns an append that follows is durable no sooner than what
    /// was noted.
    pub(super) async fn note_deleted(
        &self,
        topic: &Topic,
        partition: PartitionId,
        offsets: Range<Offset>,
        by: &str,
    ) {
        let (in_log, _) = self.note_taken(&Taken {
            topic,
            partition,
            records: offsets.end.since(offsets.start),
            offsets,
            appended: None,
            cause: Cause::DeleteRecords,
            reason: by,
            segment: None,
        });
        if in_log == InLog::Busy {
            self.write_losses().await;
        }
    }

    /// Topics are about to be deleted. What was noted is durable when this returns, unless the disk is full.
    pub(super) async fn note_topics_deleted<'t>(
        &self,
        topics: impl Iterator<Item = &'t Arc<Topic>>,
    ) {
        let mut is_full = false;
        for topic in topics {
            for partition in topic.partitions() {
                let Ok(log) = topic.log(partition) else {
                    continue;
                };
                let bounds = log.bounds();
                let (in_log, _) = self.note_taken(&Taken {
                    topic,
                    partition,
                    records: bounds.durable_end.since(bounds.start),
                    offsets: bounds.start..bounds.durable_end,
                    appended: None,
                    cause: Cause::TopicDeleted,
                    reason: "the topic was deleted",
                    segment: None,
                });
                is_full |= in_log == InLog::NoRoom;
            }
        }
        if !is_full {
            self.write_losses().await;
        }
    }

    async fn write_losses(&self) {
        if let Err(error) = self.shared.losses.write().await {
            tracing::warn!(%error, "the loss ledger could not be written: it is tried again");
        }
    }

    /// Takes back what was noted and not done: of a log that begins before the end of what its front is said to have lost, and of a
    /// topic that is there. Called at a start before anything is removed, and when a removal has failed.
    pub(super) fn take_back_losses(&self, is_meant: impl Fn(&Loss) -> bool) {
        let mut book = self.shared.losses.locked();
        let entries: Vec<Arc<Loss>> = book.entries.values().cloned().collect();
        for loss in entries.into_iter().filter(|loss| is_meant(loss)) {
            let id = TopicId::from_uuid(loss.topic_id);
            let Some(topic) = self.shared.catalog.by_id(id) else {
                continue;
            };
            let start = match loss.cause {
                cause if cause.takes_front() => topic.log(PartitionId::new(loss.partition)).ok(),
                Cause::TopicDeleted => None,
                _ => continue,
            };
            let start = start.map_or(0, |log| log.bounds().start.get());
            if loss.to <= start {
                continue;
            }
            let mut left = Loss::clone(&loss);
            left.to = start.max(left.from);
            left.records = left.records.min(left.to - left.from);
            book.records -= loss.records - left.records;
            if left.to > left.from {
                book.unwritten.insert(left.number);
                book.entries.insert(left.number, Arc::new(left));
            } else {
                book.entries.remove(&loss.number);
                book.unwritten.remove(&loss.number);
                book.dropped.push(loss.number);
            }
        }
        drop(book);
        self.shared.losses.news.notify_one();
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
            segment: None,
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
            segment: None,
        });
    }

    /// Notes what each group had not read of it: those that committed something in the partition, and those for which the topic
    /// keeps records; and what they had not read who read without a group now, if a front or a topic goes. Appends it to the log.
    fn note_taken(&self, taken: &Taken<'_>) -> (InLog, Option<Written>) {
        let now = self.now();
        let groups = self.groups().list();
        let mut read_to: BTreeMap<String, Offset> = taken
            .topic
            .config
            .hold
            .groups
            .iter()
            .map(|group| (group.clone(), Offset::ZERO))
            .collect();
        for group in groups {
            if let Some(committed) = self.committed(&group.id, taken.topic, taken.partition) {
                read_to.insert(group.id, committed);
            }
        }
        let is_reader = taken.cause.takes_front() || taken.cause == Cause::TopicDeleted;
        let readers = match is_reader {
            true => self.readers_of(taken, &read_to),
            false => Vec::new(),
        };
        let mut book = self.shared.losses.locked();
        let mut is_news = false;
        for (group, read_to) in read_to {
            is_news |= book.note(&Who::Group(group), read_to, taken, now);
        }
        for reader in readers {
            let who = Who::Reader(reader.name.to_string());
            is_news |= book.note(&who, reader.next, taken, now);
        }
        let appended = self.shared.losses.append_now(&mut book);
        drop(book);
        if is_news {
            self.shared.losses.news.notify_one();
        }
        appended
    }

    /// Who reads the partition now, but for members of these groups: what they have not read is known of their groups.
    fn readers_of(&self, taken: &Taken<'_>, groups: &BTreeMap<String, Offset>) -> Vec<OpenReader> {
        let log = taken.topic.log_id(taken.partition);
        let mut readers = self.shared.open_readers.of(taken.topic, log);
        readers.retain(|reader| reader.next < taken.offsets.end);
        if readers.is_empty() {
            return readers;
        }
        let described = groups
            .keys()
            .filter_map(|group| self.groups().describe(group));
        let members: Vec<_> = described.flat_map(|group| group.members).collect();
        readers.retain(|reader| {
            let is_member = |member: &MemberDescription| {
                let host = member.client.host.trim_start_matches('/');
                reader.client_id.as_deref().unwrap_or_default() == member.client.client_id
                    && reader.address.to_string() == host
            };
            !members.iter().any(is_member)
        });
        readers
    }

    /// Writes the ledger, and looks for damage, until `shutdown` turns true.
    pub(super) async fn keep_losses(&self, mut shutdown: watch::Receiver<bool>) {
        let losses = &self.shared.losses;
        loop {
            for damage in self.health().damage {
                self.note_damage(&damage);
            }
            self.write_losses().await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::records::TopicRecord;
    use crate::broker::scratch::Scratch;
    use model::TopicName;

    fn broker() -> (Scratch, Arc<Topic>) {
        let broker = Scratch::new();
        let record = TopicRecord {
            id: TopicId::random(),
            name: TopicName::parse("readings").expect("a name"),
            partitions: 1,
            settings: BTreeMap::new(),
        };
        let topic = broker.attach(record).expect("a topic");
        (broker, topic)
    }

    fn taken(topic: &Topic, offsets: Range<u64>, cause: Cause) -> Taken<'_> {
        Taken {
            topic,
            partition: PartitionId::new(0),
            records: offsets.end - offsets.start,
            offsets: Offset::new(offsets.start)..Offset::new(offsets.end),
            appended: None,
            cause,
            reason: "a test",
            segment: None,
        }
    }

    /// All entries: who, from, to and records.
    fn told(book: &Book) -> String {
        let each = book.entries.values().map(|loss| {
            let who = loss.group.as_ref().or(loss.reader.as_ref());
            let who = who.expect("somebody");
            format!("{who} {}..{} {}", loss.from, loss.to, loss.records)
        });
        each.collect::<Vec<_>>().join(", ")
    }

    const NOW: Timestamp = Timestamp::from_millis(7);

    #[test]
    fn what_is_told_again_is_noted_once() {
        let (_broker, topic) = broker();
        let (group, mut book) = (Who::Group("g".to_owned()), Book::default());
        let mut note = |offsets: Range<u64>, read_to, cause| {
            let taken = taken(&topic, offsets, cause);
            book.note(&group, Offset::new(read_to), &taken, NOW)
        };
        assert!(note(0..10, 4, Cause::Retention));
        assert!(!note(0..10, 4, Cause::Retention), "the same again");
        assert!(!note(0..10, 4, Cause::StoreBound), "a front goes once");
        assert!(
            note(0..20, 4, Cause::Retention),
            "it was not done, and is more now"
        );
        assert!(note(20..30, 4, Cause::DeleteRecords));
        assert!(!note(30..40, 40, Cause::Retention), "it was read");
        assert_eq!(told(&book), "g 4..20 16, g 20..30 10");
        assert_eq!(book.records, 26);
    }

    #[test]
    fn what_rewrites_take_from_a_group_is_one_entry_and_a_rewrite_counts_once() {
        let (_broker, topic) = broker();
        let (group, mut book) = (Who::Group("g".to_owned()), Book::default());
        let mut note = |offsets: Range<u64>, generation| {
            let mut taken = taken(&topic, offsets, Cause::Compaction);
            taken.records = 3;
            let base = taken.offsets.start;
            taken.segment = Some(SegmentId { base, generation });
            book.note(&group, Offset::ZERO, &taken, NOW)
        };
        assert!(note(0..10, 1));
        assert!(!note(0..10, 1), "a kill came before its switch");
        assert!(note(10..20, 1));
        assert!(note(0..8, 2));
        assert_eq!(told(&book), "g 0..20 9");
    }

    #[test]
    fn what_was_noted_and_not_done_is_taken_back_at_a_start() {
        let (broker, topic) = broker();
        let reader = Who::Reader("somebody".to_owned());
        let mut book = broker.shared.losses.locked();
        for cause in [Cause::Retention, Cause::TopicDeleted, Cause::Erasure] {
            assert!(book.note(&reader, Offset::ZERO, &taken(&topic, 0..10, cause), NOW));
        }
        let numbers: Vec<u64> = book.entries.keys().copied().collect();
        drop(book);
        broker.take_back_losses(|_| true);
        let book = broker.shared.losses.locked();
        // Neither has the log begun later, nor is the topic gone.
        let left: Vec<Cause> = book.entries.values().map(|loss| loss.cause).collect();
        assert_eq!(left, [Cause::Erasure]);
        assert_eq!((&book.dropped[..], book.records), (&numbers[..2], 10));
    }

    #[test]
    fn an_entry_is_written_in_the_least_version_that_says_it() {
        let (_broker, topic) = broker();
        let mut book = Book::default();
        let group = Who::Group("g".to_owned());
        let reader = Who::Reader("r".to_owned());
        for (who, cause, version) in [
            (&group, Cause::Retention, 1),
            (&group, Cause::Thinning, 2),
            (&reader, Cause::Retention, 2),
        ] {
            let before = book.next;
            book.note(who, Offset::ZERO, &taken(&topic, 0..10, cause), NOW);
            let loss = Arc::clone(&book.entries[&before]);
            let (key, value) = LossRecord::Noted(Arc::clone(&loss)).encode();
            let value = value.expect("a value");
            let text = String::from_utf8(value.to_vec()).expect("JSON");
            assert!(
                text.starts_with(&format!("{{\"version\":{version},")),
                "{text}"
            );
            assert_eq!(text.contains("reader"), loss.reader.is_some());
            assert_eq!(text.contains("\"group\":null"), loss.reader.is_some());
            match LossRecord::decode(&key, &value) {
                Ok(LossRecord::Noted(read)) => assert_eq!(read, loss),
                _ => panic!("an entry"),
            }
            let (from, to) = (format!(":{version},"), format!(":{},", 3 - version));
            let wrong = text.replacen(&from, &to, 1);
            assert!(
                LossRecord::decode(&key, wrong.as_bytes()).is_err(),
                "{wrong}"
            );
        }
    }
}
