//! Verified: logins by password that succeeded a short while ago, so that each request of HTTP need not cost what a password does.
//! Callers: `login`. Invariants: it keeps no password, but a hash of it under a key that only this process has; an entry holds
//! only as long as the credential that was verified is the user's, and for `KEPT` at most; it remembers a bounded number.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use model::sasl::{Credential, ScramMechanism};
use zeroize::Zeroizing;

/// How long an entry holds.
const KEPT: Duration = Duration::from_secs(300);
/// Entries at most.
const ENTRIES_MAX: usize = 10_000;

/// The key under which a login is remembered.
pub(super) type Mark = [u8; 32];

struct Entry {
    credential: Weak<Credential>,
    until: Duration,
}

/// What was verified.
pub(super) struct Verified {
    key: Zeroizing<Vec<u8>>,
    entries: HashMap<Mark, Entry>,
}

impl Verified {
    /// `key` is random, and this process's alone.
    pub(super) fn new(key: Zeroizing<Vec<u8>>) -> Verified {
        let entries = HashMap::new();
        Verified { key, entries }
    }

    /// What stands for a name and a password.
    pub(super) fn mark(&self, user: &str, password: &[u8]) -> Mark {
        let user_bytes = (user.len() as u64).to_be_bytes();
        let parts = [&user_bytes, user.as_bytes(), password];
        let mac = ScramMechanism::Sha256.hmac(&self.key, &parts);
        *mac.first_chunk().expect("SHA-256 has 32 bytes")
    }

    /// Whether this was verified by the credential that is in force.
    pub(super) fn has(&self, mark: &Mark, in_force: &Arc<Credential>, now: Duration) -> bool {
        self.entries.get(mark).is_some_and(|entry| {
            let verified = entry.credential.upgrade();
            now < entry.until && verified.is_some_and(|it| Arc::ptr_eq(&it, in_force))
        })
    }

    /// Remembers that it was.
    pub(super) fn insert(&mut self, mark: Mark, credential: &Arc<Credential>, now: Duration) {
        if self.entries.len() >= ENTRIES_MAX {
            let holds = |entry: &Entry| now < entry.until && entry.credential.strong_count() > 0;
            self.entries.retain(|_, entry| holds(entry));
            if self.entries.len() >= ENTRIES_MAX {
                self.entries.clear();
            }
        }
        let entry = Entry {
            credential: Arc::downgrade(credential),
            until: now + KEPT,
        };
        self.entries.insert(mark, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_verified_holds_for_its_credential_and_its_time_only() {
        let credential = || Arc::new(Credential::decoy(ScramMechanism::Sha256, b"secret", "a"));
        let (first, second) = (credential(), credential());
        let mut verified = Verified::new(Zeroizing::new(vec![7; 32]));
        let mark = verified.mark("a", b"password");
        assert_ne!(mark, verified.mark("ap", b"assword"));
        assert_ne!(
            mark,
            Verified::new(Zeroizing::new(vec![8; 32])).mark("a", b"password")
        );
        let now = Duration::from_secs(1);
        assert!(!verified.has(&mark, &first, now));
        verified.insert(mark, &first, now);
        assert!(verified.has(&mark, &first, now));
        assert!(!verified.has(&mark, &second, now), "another credential");
        assert!(!verified.has(&mark, &first, now + KEPT));
        for number in 0..2 * ENTRIES_MAX as u64 {
            let mark = verified.mark("a", &number.to_be_bytes());
            verified.insert(mark, &first, now);
            assert!(verified.entries.len() <= ENTRIES_MAX);
        }
    }
}
