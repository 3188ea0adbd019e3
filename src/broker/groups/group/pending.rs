//! Member ids that were given out and not used yet. Only `Group` holds them. Its size is known without counting: any client
//! may ask for as many as the bounds allow.

use std::collections::BTreeMap;
use std::time::Duration;

/// What an id takes in memory, about, beside its text.
pub(super) const PENDING_BYTES: usize = 64;

/// Ids, and until when each is good.
#[derive(Debug, Default)]
pub(super) struct Pending {
    ids: BTreeMap<String, Duration>,
    bytes: usize,
}

impl Pending {
    pub(super) fn insert(&mut self, id: String, deadline: Duration) {
        let bytes = PENDING_BYTES + id.len();
        if self.ids.insert(id, deadline).is_none() {
            self.bytes += bytes;
        }
    }

    /// False if there is no such id.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let is_known = self.ids.remove(id).is_some();
        if is_known {
            self.bytes -= PENDING_BYTES + id.len();
        }
        is_known
    }

    /// Takes away all whose time is over. False if there are none.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        let before = self.ids.len();
        let bytes = &mut self.bytes;
        self.ids.retain(|id, deadline| {
            let is_good = *deadline > now;
            if !is_good {
                *bytes -= PENDING_BYTES + id.len();
            }
            is_good
        });
        self.ids.len() < before
    }

    pub(super) fn clear(&mut self) {
        *self = Pending::default();
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.ids.contains_key(id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// What they take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the first one's time is over.
    pub(super) fn first_deadline(&self) -> Option<Duration> {
        self.ids.values().copied().min()
    }
}
