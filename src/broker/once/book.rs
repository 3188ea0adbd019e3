//! What is known of requests that are to be done once: which run, and which were done and how they were answered.
//!
//! Callers: `once`. Pure but for its lock. Invariants: of one key one request runs at a time. What was done is remembered for as
//! long as the setting says, by the store's clock, and never dropped sooner: when the book is full, new keys are refused.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use model::Timestamp;

use super::record::{Done, Fingerprint, OnceKey};

/// What all answers may hold in memory.
pub(super) const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Keys that are forgotten with a new one, at most.
const FORGOTTEN_AT_ONCE_MAX: usize = 16;

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OnceRefusal {
    /// One with this key runs.
    #[error("a request with this idempotency key is being done")]
    Running,
    /// One with this key was done, and its payload was another.
    #[error("this idempotency key was used with another payload")]
    OtherPayload,
    /// As many keys are remembered as may be.
    #[error("as many idempotency keys are remembered as may be: idempotency.keys.max={count_max}")]
    TooMany {
        /// The bound.
        count_max: usize,
    },
    /// No key that a request can have.
    #[error("an idempotency key has 1 to {bytes_max} printable ASCII characters")]
    InvalidKey {
        /// The bound.
        bytes_max: usize,
    },
}

enum Entry {
    Running(Fingerprint),
    Done {
        fingerprint: Fingerprint,
        at: Timestamp,
        answer: Arc<str>,
    },
}

/// See the module.
#[derive(Default)]
pub(super) struct Book {
    entries: HashMap<OnceKey, Entry>,
    /// What was done, oldest first.
    by_time: BTreeSet<(Timestamp, OnceKey)>,
    answer_bytes: usize,
}

/// What the book says of a key.
pub(super) enum Known {
    /// It was done, and this was the answer.
    Answered(Arc<str>),
    /// It is new, and runs from now on. These keys' time is over.
    Begun(Vec<OnceKey>),
}

impl Book {
    /// Begins a request, if it is new. `kept_since`: what was done before is forgotten.
    pub fn begin(
        &mut self,
        key: &OnceKey,
        fingerprint: Fingerprint,
        kept_since: Timestamp,
        count_max: usize,
    ) -> Result<Known, OnceRefusal> {
        match self.entries.get(key) {
            Some(Entry::Running(running)) => {
                return Err(match *running == fingerprint {
                    true => OnceRefusal::Running,
                    false => OnceRefusal::OtherPayload,
                });
            }
            Some(Entry::Done { at, .. }) if *at < kept_since => self.forget(key),
            Some(Entry::Done {
                fingerprint: done,
                answer,
                ..
            }) => {
                return match *done == fingerprint {
                    true => Ok(Known::Answered(Arc::clone(answer))),
                    false => Err(OnceRefusal::OtherPayload),
                };
            }
            None => {}
        }
        let mut forgotten = Vec::new();
        while forgotten.len() < FORGOTTEN_AT_ONCE_MAX
            && let Some((at, oldest)) = self.by_time.first()
            && *at < kept_since
        {
            let oldest = oldest.clone();
            self.forget(&oldest);
            forgotten.push(oldest);
        }
        if self.entries.len() >= count_max || self.answer_bytes >= ANSWER_BYTES_MAX {
            return Err(OnceRefusal::TooMany { count_max });
        }
        self.entries
            .insert(key.clone(), Entry::Running(fingerprint));
        Ok(Known::Begun(forgotten))
    }

    /// A request is done; nothing is kept of one that did nothing.
    pub fn end(&mut self, key: &OnceKey, done: Option<Done>) {
        self.forget(key);
        if let Some(done) = done {
            self.answer_bytes += done.answer.len();
            self.by_time.insert((done.at, key.clone()));
            let entry = Entry::Done {
                fingerprint: done.fingerprint,
                at: done.at,
                answer: done.answer.into(),
            };
            self.entries.insert(key.clone(), entry);
        }
    }

    fn forget(&mut self, key: &OnceKey) {
        if let Some(Entry::Done { at, answer, .. }) = self.entries.remove(key) {
            self.answer_bytes -= answer.len();
            self.by_time.remove(&(at, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use model::TopicId;

    use super::*;

    fn key(name: &str) -> OnceKey {
        OnceKey {
            topic: TopicId::from_uuid(uuid::Uuid::from_u128(1)),
            name: name.to_owned(),
        }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// Begins at a time; everything of the last 100 ms is kept.
    fn begin(book: &mut Book, name: &str, payload: u8, now: i64) -> String {
        let begun = book.begin(&key(name), [payload; 32], at(now - 100), 3);
        match begun {
            Ok(Known::Answered(answer)) => format!("answered {answer}"),
            Ok(Known::Begun(forgotten)) => {
                let names = forgotten.iter().map(|key| key.name.as_str());
                format!("begun, without {:?}", names.collect::<Vec<_>>())
            }
            Err(OnceRefusal::Running) => "running".to_owned(),
            Err(OnceRefusal::OtherPayload) => "other".to_owned(),
            Err(other) => other.to_string(),
        }
    }

    fn done(book: &mut Book, name: &str, payload: u8, now: i64) {
        let done = Done {
            fingerprint: [payload; 32],
            at: at(now),
            answer: format!("{name} {payload}"),
        };
        book.end(&key(name), Some(done));
    }

    #[test]
    fn a_request_is_done_once_within_its_time_and_no_key_is_dropped_sooner() {
        let mut book = Book::default();
        assert_eq!(begin(&mut book, "a", 1, 0), "begun, without []");
        assert_eq!(begin(&mut book, "a", 1, 1), "running");
        assert_eq!(begin(&mut book, "a", 2, 1), "other");
        done(&mut book, "a", 1, 0);
        assert_eq!(begin(&mut book, "a", 1, 100), "answered a 1");
        assert_eq!(begin(&mut book, "a", 2, 100), "other");
        // One that did nothing leaves nothing.
        assert_eq!(begin(&mut book, "b", 1, 100), "begun, without []");
        book.end(&key("b"), None);
        assert_eq!(begin(&mut book, "b", 2, 100), "begun, without []");
        done(&mut book, "b", 2, 100);
        assert_eq!(begin(&mut book, "c", 1, 100), "begun, without []");
        assert!(begin(&mut book, "d", 1, 100).contains("keys.max=3"));
        // Its time is over.
        assert_eq!(begin(&mut book, "d", 1, 101), "begun, without [\"a\"]");
        done(&mut book, "c", 1, 101);
        done(&mut book, "d", 1, 101);
        assert_eq!(begin(&mut book, "b", 5, 201), "begun, without []");
        assert_eq!(begin(&mut book, "c", 1, 201), "answered c 1");
        let bytes: usize = book.by_time.len() * "c 1".len();
        assert_eq!(book.answer_bytes, bytes);
    }
}
