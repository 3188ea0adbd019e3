//! The requests that are known, and the duty to do one.
//! Callers: `once`, and `publish_together_once`, which ends the duty.

use std::sync::{Arc, Mutex, MutexGuard};

use model::Timestamp;
use storage::{AppendBatch, Clock, Log, Storage};

use super::book::Book;
use super::record::{Done, Fingerprint, OnceError, OnceKey, OnceRecord};
use crate::broker::state_log::{StateLog, StateLogError};

/// The requests that are known.
pub(in crate::broker) struct Onces {
    log: StateLog<OnceRecord>,
    pub(super) book: Arc<Mutex<Book>>,
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
    pub(super) key: OnceKey,
    pub(super) fingerprint: Fingerprint,
    pub(super) at: Timestamp,
    /// Keys whose time is over.
    pub(super) forgotten: Vec<OnceKey>,
    pub(super) book: Arc<Mutex<Book>>,
    pub(super) is_done: bool,
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

pub(super) fn locked(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
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
    pub(in crate::broker) fn end(mut self, answer: String) {
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
