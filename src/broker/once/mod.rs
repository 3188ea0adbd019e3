//! Requests that are done once, however often they are sent: each has a key of its client's, and what was answered is kept in the
//! log, in the same frame as what the request wrote.
//!
//! Callers: fronts, by way of `publish_together_once`. Invariants: a request whose records are durable is known as done after any
//! crash, and one of which nothing is durable is not. A key is remembered for `idempotency.key.retention.ms`.

mod book;
mod record;

use std::sync::{Arc, Mutex, MutexGuard};

use model::Timestamp;
use storage::{AppendBatch, Clock, Log, Storage};

use super::Broker;
use super::access::{Granted, right};
use super::state_log::{StateLog, StateLogError};
use super::topics::Topic;
pub use book::OnceRefusal;
use book::{Book, Known};
use record::OnceRecord;
pub use record::{Done, Fingerprint, OnceError, OnceKey, UnknownOnce};

/// The longest key.
const KEY_BYTES_MAX: usize = 255;

/// The requests that are known.
pub(super) struct Onces {
    log: StateLog<OnceRecord>,
    book: Arc<Mutex<Book>>,
}

/// What is known of a request that is to be done once.
pub enum Begun {
    /// It was done, and this was the answer.
    Answered(Arc<str>),
    /// It is to be done now.
    Now(OnceTicket),
}

/// The duty to do a request. Dropped before it was done, its key is free again.
pub struct OnceTicket {
    key: OnceKey,
    fingerprint: Fingerprint,
    at: Timestamp,
    /// Keys whose time is over.
    forgotten: Vec<OnceKey>,
    book: Arc<Mutex<Book>>,
    is_done: bool,
}

impl Onces {
    /// Reads the log. Blocks on the disk.
    pub fn open(storage: &Storage, clock: Arc<dyn Clock>) -> Result<Onces, OnceError> {
        let (log, records) = StateLog::open(storage, clock)?;
        let mut book = Book::default();
        for record in records {
            if let OnceRecord::Done(key, done) = record? {
                book.end(&key, Some(done));
            }
        }
        let book = Arc::new(Mutex::new(book));
        Ok(Onces { log, book })
    }

    /// The log in which they are kept.
    pub fn log(&self) -> &Arc<Log> {
        self.log.log()
    }

    /// The batches that say that the ticket's request was done, with this answer.
    pub fn batches(
        &self,
        ticket: &OnceTicket,
        answer: String,
    ) -> Result<Vec<AppendBatch>, StateLogError> {
        let mut records = vec![OnceRecord::Done(ticket.key.clone(), ticket.done(answer))];
        let forgotten = ticket.forgotten.iter().cloned();
        records.extend(forgotten.map(OnceRecord::Forgotten));
        self.log.batches(&records)
    }
}

fn locked(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().expect("nothing panics while it holds the book")
}

impl OnceTicket {
    fn done(&self, answer: String) -> Done {
        Done {
            fingerprint: self.fingerprint,
            at: self.at,
            answer,
        }
    }

    /// It is done, durably.
    pub(super) fn end(mut self, answer: String) {
        self.is_done = true;
        let done = self.done(answer);
        locked(&self.book).end(&self.key, Some(done));
    }
}

impl Drop for OnceTicket {
    fn drop(&mut self) {
        if !self.is_done {
            locked(&self.book).end(&self.key, None);
        }
    }
}

impl Broker {
    /// Begins a request on a topic that is to be done once. Never waits.
    pub fn begin_once(
        &self,
        topic: &Granted<Arc<Topic>, right::Write>,
        name: &str,
        fingerprint: Fingerprint,
    ) -> Result<Begun, OnceRefusal> {
        let is_valid = (1..=KEY_BYTES_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if !is_valid {
            let bytes_max = KEY_BYTES_MAX;
            return Err(OnceRefusal::InvalidKey { bytes_max });
        }
        let key = OnceKey {
            topic: topic.id,
            name: name.to_owned(),
        };
        let (now, config) = (self.now(), self.config());
        let kept = i64::try_from(config.idempotency_key_retention_ms).unwrap_or(i64::MAX);
        let book = &self.shared.onces.book;
        let count_max = config.idempotency_keys_max;
        let known = locked(book).begin(&key, fingerprint, now.plus_millis(-kept), count_max)?;
        Ok(match known {
            Known::Answered(answer) => Begun::Answered(answer),
            Known::Begun(forgotten) => Begun::Now(OnceTicket {
                key,
                fingerprint,
                at: now,
                forgotten,
                book: Arc::clone(book),
                is_done: false,
            }),
        })
    }
}
