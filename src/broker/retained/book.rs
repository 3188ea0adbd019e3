//! What is retained, in memory, by name. Callers: `retained`. Pure.
//! Invariant: what is entered with a place is in the log, and not durable before that place is; without one it is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use model::Timestamp;

use super::record::Kept;
use crate::broker::allowance::{Allowance, Holdings, Limit, Taken};
use crate::broker::groups;
use crate::broker::place::Place;

/// What a message takes beside its own bytes, about.
const OVERHEAD_BYTES: usize = 200;
/// What a header takes beside its own bytes, about.
const HEADER_OVERHEAD_BYTES: usize = 64;

/// A message that is kept, and where its record is; None if that was before the start.
#[derive(Clone, Debug)]
pub struct KeptAt {
    /// The message.
    pub kept: Arc<Kept>,
    /// Of its record.
    pub place: Option<Place>,
}

/// Where a look at the names below a prefix has come to.
#[derive(Clone, Debug)]
pub enum Looked {
    /// A message that is wanted.
    Found(KeptAt),
    /// None so far; the last name that was looked at.
    Further(Arc<str>),
    /// None any more.
    End,
}

/// See the module.
#[derive(Default)]
pub(super) struct Book {
    kept: BTreeMap<Arc<str>, KeptAt>,
    by_end: BTreeSet<(Timestamp, Arc<str>)>,
    /// What all hold in memory.
    bytes: Holdings,
}

fn bytes_of(kept: &Kept) -> usize {
    let headers = kept.headers.iter();
    let headers = headers.map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD_BYTES);
    let key = kept.of.as_ref().and_then(|of| of.key.as_ref());
    let key = key.map_or(0, Bytes::len);
    let owner = kept.owner().map_or(0, str::len);
    // The name stands in the list of ends, too.
    OVERHEAD_BYTES + owner + kept.name.len() + key + kept.value.len() + headers.sum::<usize>()
}

fn taken(kept: Option<&Kept>) -> Taken<'_> {
    kept.map_or((None, 0), |kept| (kept.owner(), bytes_of(kept) as u64))
}

impl Book {
    pub fn count(&self) -> usize {
        self.kept.len()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.held()
    }

    /// Bounds what is held.
    pub fn allow(&mut self, bytes: Allowance) {
        self.bytes.allow(bytes);
    }

    /// These bounds, and what is held.
    pub fn bounds(&self, has_accounts: bool) -> Vec<groups::Bound> {
        self.bytes.bounds(has_accounts)
    }

    /// Whether this one may be kept, in the place of what is kept under its name.
    pub fn check(&mut self, kept: &Kept) -> Result<(), Limit> {
        let before = self.kept.get(&kept.name);
        let before = taken(before.map(|it| &*it.kept));
        self.bytes.check(before, taken(Some(kept)))
    }

    pub fn remove(&mut self, name: &str) {
        if let Some(KeptAt { kept, .. }) = self.kept.remove(name) {
            self.bytes.change(taken(Some(&kept)), taken(None));
            if let Some(end) = kept.expires_at {
                self.by_end.remove(&(end, Arc::clone(&kept.name)));
            }
        }
    }

    pub fn insert(&mut self, at: KeptAt) {
        self.remove(&at.kept.name);
        self.bytes.change(taken(None), taken(Some(&at.kept)));
        let name = Arc::clone(&at.kept.name);
        if let Some(end) = at.kept.expires_at {
            self.by_end.insert((end, Arc::clone(&name)));
        }
        self.kept.insert(name, at);
    }

    /// All of which that can be said.
    pub fn matching(&self, is_wanted: impl Fn(&KeptAt) -> bool) -> Vec<Arc<Kept>> {
        let wanted = self.kept.values().filter(|at| is_wanted(at));
        wanted.map(|at| Arc::clone(&at.kept)).collect()
    }

    pub fn get(&self, name: &str) -> Option<&KeptAt> {
        self.kept.get(name)
    }

    /// The next one below a prefix that is wanted, behind a name; so many are looked at.
    pub fn next(
        &self,
        prefix: &str,
        behind: Option<&str>,
        looked_max: usize,
        wants: impl Fn(&str) -> bool,
    ) -> Looked {
        let from = match behind {
            Some(name) if name >= prefix => Bound::Excluded(name),
            _ => Bound::Included(prefix),
        };
        let names = self.kept.range::<str, _>((from, Bound::Unbounded));
        let mut last = None;
        for (name, at) in names.take(looked_max) {
            if !name.starts_with(prefix) {
                return Looked::End;
            }
            if wants(name) {
                return Looked::Found(at.clone());
            }
            last = Some(name);
        }
        last.map_or(Looked::End, |name| Looked::Further(Arc::clone(name)))
    }

    /// Names whose time is over, so many at most.
    pub fn overdue(&self, now: Timestamp, count_max: usize) -> Vec<Arc<str>> {
        let overdue = self.by_end.iter().take_while(|(end, _)| *end <= now);
        overdue
            .take(count_max)
            .map(|(_, name)| Arc::clone(name))
            .collect()
    }

    /// Whether the time of this name's message is over.
    pub fn is_overdue(&self, name: &str, now: Timestamp) -> bool {
        let at = self.get(name);
        at.is_some_and(|at| at.kept.expires_at.is_some_and(|end| end <= now))
    }
}
