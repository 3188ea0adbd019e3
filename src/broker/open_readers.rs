//! Who reads without a group at the moment, and where: replays and subscriptions over HTTP, and clients' fetch sessions.
//!
//! Callers: fronts register what they read for somebody; the loss ledger asks who had not read what is about to go. Invariants: a
//! reader is in the list for as long as its `Opened` lives; where it is costs it one store of a number. Asking never waits for the
//! disk.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use model::{LogId, Offset};

use super::access::{Caller, asked_by};
use super::catalog::Topic;

/// Somebody who reads a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReader {
    /// Who, in words.
    pub name: Arc<str>,
    /// How the client calls itself.
    pub client_id: Option<Arc<str>>,
    /// Where it is.
    pub address: IpAddr,
    /// The first offset that it was not given.
    pub next: Offset,
}

/// Who reads, without a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderName {
    name: Arc<str>,
    client_id: Option<Arc<str>>,
    address: IpAddr,
}

impl ReaderName {
    /// That of a caller.
    pub fn of(caller: &Caller) -> ReaderName {
        ReaderName {
            name: asked_by(caller).into(),
            client_id: caller.client_id.as_deref().map(Arc::from),
            address: caller.address.ip(),
        }
    }

    /// The same in a place.
    pub fn at(&self, next: Offset) -> OpenReader {
        OpenReader {
            name: Arc::clone(&self.name),
            client_id: self.client_id.clone(),
            address: self.address,
            next,
        }
    }
}

/// Gives who fetches a partition of a topic now. Must not wait for the disk.
pub type Fetching = Arc<dyn Fn(&Topic, LogId) -> Vec<OpenReader> + Send + Sync>;

/// All open readers. See the module.
#[derive(Default)]
pub(super) struct OpenReaders {
    open: Mutex<Open>,
    pub(super) fetching: OnceLock<Fetching>,
}

#[derive(Default)]
struct Open {
    next: u64,
    readers: BTreeMap<u64, Registered>,
}

struct Registered {
    who: ReaderName,
    log: LogId,
    place: Arc<AtomicU64>,
}

impl fmt::Debug for OpenReaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenReaders").finish_non_exhaustive()
    }
}

/// A reader's place in the list: it says where it is, and leaves the list when this is dropped.
#[derive(Debug)]
pub(super) struct Opened {
    list: Arc<OpenReaders>,
    number: u64,
    place: Arc<AtomicU64>,
}

impl Opened {
    /// The first offset that it was not given.
    pub fn is_at(&self, next: Offset) {
        self.place.store(next.get(), Ordering::Relaxed);
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.list.locked().readers.remove(&self.number);
    }
}

impl OpenReaders {
    fn locked(&self) -> MutexGuard<'_, Open> {
        self.open
            .lock()
            .expect("nothing panics while it holds the list")
    }

    /// Puts a reader into the list.
    pub fn open(self: &Arc<OpenReaders>, who: &ReaderName, log: LogId, next: Offset) -> Opened {
        let place = Arc::new(AtomicU64::new(next.get()));
        let mut open = self.locked();
        let number = open.next;
        open.next += 1;
        let registered = Registered {
            who: who.clone(),
            log,
            place: Arc::clone(&place),
        };
        open.readers.insert(number, registered);
        Opened {
            list: Arc::clone(self),
            number,
            place,
        }
    }

    /// Who reads a log.
    pub fn of(&self, topic: &Topic, log: LogId) -> Vec<OpenReader> {
        let mut readers: Vec<OpenReader> = {
            let open = self.locked();
            let on = open.readers.values().filter(|one| one.log == log);
            on.map(|one| one.who.at(Offset::new(one.place.load(Ordering::Relaxed))))
                .collect()
        };
        if let Some(fetching) = self.fetching.get() {
            readers.extend(fetching(topic, log));
        }
        readers
    }
}
