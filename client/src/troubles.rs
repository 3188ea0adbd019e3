//! Errors that a client retries at the moment, so that whoever waits for the client can say why.
//!
//! The client, the producer and the consumer note here what they try again; the command line looks here, and names an
//! address that cannot be reached while the attempts go on.

use crate::Error;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The troubles of one client. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Troubles {
    current: Arc<Mutex<BTreeMap<String, Trouble>>>,
}

/// Something that does not succeed, and is tried on.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// The broker's address, or what was asked for.
    pub about: String,
    /// When it was tried first.
    pub since: Instant,
    /// When it failed last; none while there is no outcome yet.
    pub failed: Option<(Instant, Error)>,
}

impl Troubles {
    /// All that do not succeed now.
    pub fn current(&self) -> Vec<Trouble> {
        self.lock().values().cloned().collect()
    }

    /// The last failure of all.
    pub fn latest(&self) -> Option<Error> {
        let current = self.lock();
        let failed = current
            .values()
            .filter_map(|trouble| trouble.failed.clone());
        failed.max_by_key(|(at, _)| *at).map(|(_, error)| error)
    }

    /// An attempt begins.
    pub(crate) fn begin(&self, about: &str) {
        let fresh = || Trouble {
            about: about.to_owned(),
            since: Instant::now(),
            failed: None,
        };
        self.lock().entry(about.to_owned()).or_insert_with(fresh);
    }

    /// An attempt failed.
    pub(crate) fn failed(&self, about: &str, error: &Error) {
        let now = Instant::now();
        let mut current = self.lock();
        let trouble = current.entry(about.to_owned()).or_insert_with(|| Trouble {
            about: about.to_owned(),
            since: now,
            failed: None,
        });
        trouble.failed = Some((now, error.clone()));
    }

    /// It succeeded, or nobody tries it any more.
    pub(crate) fn over(&self, about: &str) {
        self.lock().remove(about);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Trouble>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
