//! The ledger's entries, in memory and in the state log `losses`.
//! Callers: `losses`. Invariants: of one reader, partition and cause, losses that continue one another are one entry; what the log
//! does not have as it is stands in `unwritten` or `dropped` until it has.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use model::state_log::LOSSES_VERSION;
use model::{LogId, Offset, PartitionId, Timestamp};
use storage::segment::SegmentId;
use storage::{AppendError, Clock, Purpose, Storage};
use tokio::sync::Notify;

use super::record::{Cause, Loss, LossRecord, UnknownLoss, Who};
use crate::broker::catalog::Topic;
use crate::broker::state_log::{StateLog, StateLogError, StateRecord, Written};

/// Entries that are kept.
pub const LOSSES_MAX: usize = 10_000;
/// Entries that are written at once.
const WRITTEN_AT_ONCE: usize = 100;
/// By so much an entry may grow while there is no room for it.
const SPARE_BYTES: usize = 64;

/// What is in memory.
#[derive(Default)]
pub(super) struct Book {
    pub(super) entries: BTreeMap<u64, Arc<Loss>>,
    pub(super) next: u64,
    /// Entries that the log does not have as they are.
    pub(super) unwritten: BTreeSet<u64>,
    /// Entries that are to be removed from the log.
    pub(super) dropped: Vec<u64>,
    /// Damage that was looked at.
    pub(super) seen: Vec<(LogId, Range<Offset>)>,
    pub(super) records: u64,
}

/// Records that were lost, before it is known who lost them.
pub(super) struct Taken<'a> {
    pub(super) topic: &'a Topic,
    pub(super) partition: PartitionId,
    pub(super) offsets: Range<Offset>,
    /// The most records that they can be.
    pub(super) records: u64,
    pub(super) appended: Option<(Timestamp, Timestamp)>,
    pub(super) cause: Cause,
    pub(super) reason: &'a str,
    /// The segment that is about to take the place of those that they are in.
    pub(super) segment: Option<SegmentId>,
}

impl<'a> Taken<'a> {
    /// What an erasure takes from a partition.
    pub(super) fn by_erasure(
        topic: &'a Topic,
        log: LogId,
        offsets: Range<Offset>,
        records: u64,
        by: &'a str,
    ) -> Taken<'a> {
        Taken {
            topic,
            partition: log.partition,
            offsets,
            records,
            appended: None,
            cause: Cause::Erasure,
            reason: by,
            segment: None,
        }
    }
}

/// Whether the log has what was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InLog {
    /// All of it is appended.
    Yes,
    /// The disk is full.
    NoRoom,
    /// Not now.
    Busy,
}

impl Book {
    pub(super) fn of<'b>(
        &'b self,
        who: &'b Who,
        taken: &'b Taken<'_>,
    ) -> impl Iterator<Item = &'b Arc<Loss>> {
        let is_of =
            |loss: &&Arc<Loss>| loss.is_whose(who) && loss.is_of(taken.topic.id, taken.partition);
        self.entries.values().rev().filter(is_of)
    }

    /// Notes that somebody loses what they had not read. Gives whether that is news: a removal is told again when it was not done
    /// at the first time.
    pub(super) fn note(
        &mut self,
        who: &Who,
        read_to: Offset,
        taken: &Taken<'_>,
        now: Timestamp,
    ) -> bool {
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
            Cause::Erasure => loss.reason == taken.reason && loss.from <= from && loss.to >= to,
            _ => false,
        };
        let continues = |loss: &&Arc<Loss>| {
            loss.cause == taken.cause && (loss.to == from || taken.cause.is_scattered())
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
    pub(super) fn begin(
        &mut self,
        who: &Who,
        taken: &Taken<'_>,
        from: u64,
        now: Timestamp,
    ) -> Loss {
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
    pub(super) fn drop_oldest(&mut self) {
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
pub(in crate::broker) struct Losses {
    pub(super) log: StateLog<LossRecord>,
    pub(super) book: Mutex<Book>,
    /// Held by who notes damage that is new, so that nobody passes by what another is about to note.
    damage_turn: Mutex<()>,
    /// Told when there is something to write.
    pub(super) news: Notify,
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
    pub(in crate::broker) fn open(
        storage: &Storage,
        clock: Arc<dyn Clock>,
    ) -> Result<Losses, LossesError> {
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
            damage_turn: Mutex::default(),
            news: Notify::new(),
        })
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, Book> {
        self.book
            .lock()
            .expect("nothing panics while it holds the book")
    }

    pub(super) fn damage_turn(&self) -> MutexGuard<'_, ()> {
        self.damage_turn
            .lock()
            .expect("nothing panics while it notes damage")
    }

    /// The next records that the log is to have, at most so many as are written at once.
    pub(super) fn to_write(book: &Book) -> Vec<LossRecord> {
        let noted = book
            .unwritten
            .iter()
            .filter_map(|number| book.entries.get(number));
        let noted = noted.cloned().map(LossRecord::Noted);
        let dropped = book.dropped.iter().copied().map(LossRecord::Dropped);
        noted.chain(dropped).take(WRITTEN_AT_ONCE).collect()
    }

    /// They are in the log.
    pub(super) fn has_appended(book: &mut Book, records: &[LossRecord]) {
        for record in records {
            match record {
                LossRecord::Dropped(number) => book.dropped.retain(|one| one != number),
                LossRecord::Noted(loss) => drop(book.unwritten.remove(&loss.number)),
            }
        }
    }

    /// Appends what the log does not have, without waiting; what it gives ends when that is durable.
    pub(super) fn append_now(&self, book: &mut Book) -> (InLog, Option<Written>) {
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
    pub(super) async fn write(&self) -> Result<(), StateLogError> {
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
