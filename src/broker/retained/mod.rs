//! Retained messages: the last message of a name that was published to be kept, for whoever comes later.
//!
//! Callers: fronts whose protocols know such messages. A message is published and kept in one frame of the write-ahead log: both
//! are durable, or neither. What is kept lives in memory, within a bound that the front gives; beyond it a message is refused
//! with its record, and so it is beyond what its publisher's principal may have. Invariants: the book changes in the order of the log, when a message is appended; who is given a message
//! whose record is not below the durable end that it has seen leaves it to the log, which gives it later. A message whose time is over is
//! given to nobody, and is removed soon.

mod book;
mod record;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use model::{Offset, Timestamp, TopicId};
use storage::{Clock, LogAppend, Purpose, Storage};
use tokio::sync::watch;

use super::Broker;
use super::access::{Granted, right};
use super::allowance::Allowance;
use super::catalog::Topic;
use super::groups::Bound;
use super::place::Place;
use super::publish::{Message, PublishRefusal, Publishing, Ready};
use super::state_log::{StateLog, StateLogError, StateRecord as _, change_bytes};
use super::state_refusal;
use book::Book;
pub use book::{KeptAt, Looked};
pub use record::{Kept, KeptOf, UnknownRetained, read_again};
use record::{RetainedRecord, key_of};

/// How often it is looked whose time is over.
const EXPIRY_LOOK: Duration = Duration::from_secs(1);
/// Names that are removed at once.
const REMOVED_AT_ONCE: usize = 1_000;
/// Names that are looked at under the lock.
const LOOKED_AT_ONCE: usize = 1_000;

/// The only topic whose messages were kept before releases noted of which record they are; their key was their name.
const FIRST_TOPIC: &str = "mqtt";

/// How a message is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Retain<'a> {
    /// Under which name.
    pub name: &'a str,
    /// For how long; None for ever.
    pub lifetime: Option<Duration>,
    /// On whose account it is to be, if on somebody's.
    pub owner: Option<&'a str>,
}

/// Why they cannot be read at a start.
#[derive(Debug, thiserror::Error)]
pub enum RetainedError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] StateLogError),
    /// A record is not understood.
    #[error(transparent)]
    Unknown(#[from] UnknownRetained),
}

/// All retained messages.
pub(super) struct RetainedMessages {
    log: StateLog<RetainedRecord>,
    /// Held while a change is appended, so that the book changes in the order of the log.
    book: Mutex<Book>,
    clock: Arc<dyn Clock>,
}

impl RetainedMessages {
    /// Reads the log. Blocks on the disk.
    pub fn open(
        storage: &Storage,
        clock: Arc<dyn Clock>,
    ) -> Result<RetainedMessages, RetainedError> {
        let (log, records) = StateLog::open(storage, clock)?;
        let mut book = Book::default();
        for record in records {
            if let RetainedRecord::Kept(kept) = record? {
                book.insert(KeptAt { kept, place: None });
            }
        }
        Ok(RetainedMessages {
            log,
            book: Mutex::new(book),
            clock: storage.steady_clock(),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book
            .lock()
            .expect("nothing panics while it holds retained messages")
    }
}

/// Whether what is to be kept may be.
fn check_bytes(change: &RetainedRecord, book: &mut Book) -> Result<(), PublishRefusal> {
    match change {
        RetainedRecord::Kept(kept) => book.check(kept).map_err(PublishRefusal::Retained),
        RetainedRecord::Removed(_) => Ok(()),
    }
}

impl Broker {
    /// Publishes a message and keeps it under a name, in one frame; with an empty value nothing is kept of the name any more.
    pub async fn publish_retained(
        &self,
        topic: &Granted<Arc<Topic>, right::Write>,
        message: Message<'_>,
        retain: Retain<'_>,
    ) -> Result<Publishing, PublishRefusal> {
        let append = |ready: Ready| ready.append(self);
        self.publish_retained_with(topic, message, retain, Vec::new(), append)
            .await
    }

    /// The same with other changes of state, which `append` makes with it.
    pub(super) async fn publish_retained_with(
        &self,
        topic: &Granted<Arc<Topic>, right::Write>,
        message: Message<'_>,
        retain: Retain<'_>,
        mut state: Vec<LogAppend>,
        append: impl FnOnce(Ready) -> Result<(Publishing, Offset), PublishRefusal>,
    ) -> Result<Publishing, PublishRefusal> {
        let retained = &self.shared.retained;
        let change = self.retained_of(topic, &message, &retain);
        check_bytes(&change, &mut retained.book())?;
        let batches = retained.log.batches(std::slice::from_ref(&change));
        state.push(LogAppend {
            log: Arc::clone(retained.log.log()),
            batches: batches.map_err(state_refusal)?,
        });
        let ready = self.ready_beside(topic, &message, state).await?;
        let mut book = retained.book();
        check_bytes(&change, &mut book)?;
        let (publishing, offset) = append(ready)?;
        match change {
            RetainedRecord::Removed(name) => book.remove(&name),
            RetainedRecord::Kept(kept) => {
                let place = Some(Place {
                    topic: topic.id,
                    partition: publishing.partition,
                    offset,
                });
                book.insert(KeptAt { kept, place });
            }
        }
        Ok(publishing)
    }

    fn retained_of(
        &self,
        topic: &Topic,
        message: &Message<'_>,
        retain: &Retain<'_>,
    ) -> RetainedRecord {
        let name: Arc<str> = retain.name.into();
        let value = message.value.unwrap_or_default();
        if value.is_empty() {
            return RetainedRecord::Removed(name);
        }
        let at = self.steady_now();
        let lifetime = retain.lifetime.map(|it| i64::try_from(it.as_millis()));
        let headers = message.headers.iter().map(|(name, value)| {
            let copied = Bytes::copy_from_slice;
            (copied(name), copied(value.unwrap_or_default()))
        });
        RetainedRecord::Kept(Arc::new(Kept {
            name,
            value: Bytes::copy_from_slice(value),
            headers: headers.collect(),
            at,
            expires_at: lifetime.map(|it| at.plus_millis(it.unwrap_or(i64::MAX))),
            of: Some(KeptOf {
                topic: topic.id,
                key: message.key.map(Bytes::copy_from_slice),
                owner: retain.owner.map(Arc::from),
            }),
        }))
    }

    /// The store's steady time.
    pub fn steady_now(&self) -> Timestamp {
        self.shared.retained.clock.now()
    }

    /// What is retained under a name.
    pub fn retained(&self, name: &str) -> Option<KeptAt> {
        let book = self.shared.retained.book();
        let now = self.steady_now();
        let found = book.get(name).filter(|_| !book.is_overdue(name, now));
        found.cloned()
    }

    /// Goes on with a look at the retained messages below a prefix, in the order of their names, behind the last one. It looks at
    /// some only, so that nobody waits for long.
    pub fn next_retained(
        &self,
        prefix: &str,
        behind: Option<&str>,
        wants: impl Fn(&str) -> bool,
    ) -> Looked {
        let book = self.shared.retained.book();
        let now = self.steady_now();
        let wants = |name: &str| wants(name) && !book.is_overdue(name, now);
        book.next(prefix, behind, LOOKED_AT_ONCE, wants)
    }

    /// How many messages are retained, and what they hold in memory.
    pub fn retained_held(&self) -> (usize, u64) {
        let book = self.shared.retained.book();
        (book.count(), book.bytes())
    }

    /// Bounds what retained messages hold in memory. What is kept already stays.
    pub fn allow_retained(&self, bytes: Allowance) {
        self.shared.retained.book().allow(bytes);
    }

    /// These bounds, and what is held.
    pub(super) fn retained_bounds(&self, has_accounts: bool) -> Vec<Bound> {
        self.shared.retained.book().bounds(has_accounts)
    }

    /// The messages that are kept of a topic's records and are to be forgotten, as is said by the record's key and its place, which is
    /// known of those that came since the start; and the end of the log that holds them, then.
    pub(super) fn retained_to_forget(
        &self,
        (id, topic): (TopicId, &str),
        is_gone: impl Fn(&[u8], Option<Place>) -> bool,
    ) -> (Vec<Arc<Kept>>, Offset) {
        let retained = &self.shared.retained;
        // Changes are appended while it is held.
        let book = retained.book();
        let end = retained.log.log().bounds().end;
        let gone = book.matching(|at| match &at.kept.of {
            Some(KeptOf { topic, key, .. }) => {
                *topic == id && key.as_ref().is_some_and(|key| is_gone(key, at.place))
            }
            None => topic == FIRST_TOPIC && is_gone(at.kept.name.as_bytes(), at.place),
        });
        (gone, end)
    }

    /// Whether anything is kept under a name.
    pub(super) fn is_retained(&self, name: &str) -> bool {
        self.shared.retained.book().get(name).is_some()
    }

    /// The key of a name's records in the state log.
    pub(super) fn retained_key(name: &str) -> Bytes {
        key_of(name)
    }

    /// Nothing is kept of these any more, and their records are gone. What was kept under their names since stays.
    pub(super) fn forget_retained(&self, gone: &[Arc<Kept>]) {
        let mut book = self.shared.retained.book();
        for kept in gone {
            let is_kept = |at: &KeptAt| Arc::ptr_eq(&at.kept, kept);
            if book.get(&kept.name).is_some_and(is_kept) {
                book.remove(&kept.name);
            }
        }
    }

    /// Removes messages whose time is over, until the server stops.
    pub(super) async fn expire_retained(&self, mut shutdown: watch::Receiver<bool>) {
        let mut look = tokio::time::interval(EXPIRY_LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stops| *stops) => return,
                _ = look.tick() => {}
            }
            while self.expire_some().await {}
        }
    }

    /// Whether there may be more.
    async fn expire_some(&self) -> bool {
        let retained = &self.shared.retained;
        let names = retained.book().overdue(self.steady_now(), REMOVED_AT_ONCE);
        if names.is_empty() {
            return false;
        }
        let removals = names.into_iter().map(|name| {
            let change = RetainedRecord::Removed(Arc::clone(&name)).encode();
            (name, change)
        });
        let mut removals: Vec<_> = removals.collect();
        let bytes = removals.iter().map(|(_, change)| change_bytes(change));
        removals.truncate(retained.log.count_for_one_append(bytes));
        let bytes = removals.iter().map(|(_, change)| change_bytes(change));
        let size = retained.log.size_of(bytes);
        let admission = retained.log.admit(size, Purpose::State).await;
        let mut book = retained.book();
        let now = self.steady_now();
        // A new one of the name may have come.
        removals.retain(|(name, _)| book.is_overdue(name, now));
        let (names, changes): (Vec<_>, Vec<_>) = removals.into_iter().unzip();
        match retained.log.append_changes(changes, admission) {
            // Nobody waits for it: until it is durable the message is overdue anyway.
            Ok(_written) => {
                names.iter().for_each(|name| book.remove(name));
                true
            }
            Err(error) => {
                tracing::debug!(%error, "retained messages whose time is over stay for now");
                false
            }
        }
    }
}
