//! Who has an account: what a principal has the broker keep is counted, and bounded, if it has one.
//! Callers: the door, and what keeps state of principals by itself. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use super::Principal;

/// So much of a principal's name tells it from others, where it is kept beside what it has made.
const OWNER_BYTES_MAX: usize = 1024;

/// Says who has an account. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(in crate::broker) struct Accounts {
    is_on: bool,
    super_users: Arc<HashSet<String>>,
}

impl Accounts {
    /// Where access is controlled, or not, and these may do everything.
    pub(super) fn new(is_on: bool, super_users: HashSet<String>) -> Accounts {
        Accounts {
            is_on,
            super_users: Arc::new(super_users),
        }
    }

    /// The account of a principal, by name. It has none where access is not controlled, as anybody may call themselves anything there;
    /// nor has a super user.
    pub(in crate::broker) fn of<'a>(&self, principal: &'a Principal) -> Option<&'a str> {
        let name = principal.name();
        let is_counted = self.is_on && !self.super_users.contains(name);
        // Certificates may have longer ones.
        is_counted.then(|| &name[..name.floor_char_boundary(OWNER_BYTES_MAX)])
    }
}
