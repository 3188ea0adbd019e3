//! A group as a resource.
//! Callers: `door`, which makes it; `groups` has what a right on it lets its holder do.

use crate::broker::groups::Coordinator;

/// A consumer group, be it there or not.
#[derive(Clone, Copy)]
pub struct Group<'a> {
    id: &'a str,
    /// On whose account it is, if it is made.
    pub(super) owner: Option<&'a str>,
    pub(super) coordinator: &'a Coordinator,
}

impl<'a> Group<'a> {
    pub(super) fn new(
        id: &'a str,
        owner: Option<&'a str>,
        coordinator: &'a Coordinator,
    ) -> Group<'a> {
        Group {
            id,
            owner,
            coordinator,
        }
    }

    /// Its id.
    pub fn id(&self) -> &'a str {
        self.id
    }
}
