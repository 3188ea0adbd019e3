//! A group as a resource.
//! Callers: `door`, which makes it; `groups` and `shares` have what a right on it lets its holder do.

use crate::broker::Broker;
use crate::broker::groups::Coordinator;

/// A group of consumers, be it there or not.
#[derive(Clone, Copy)]
pub struct Group<'a> {
    id: &'a str,
    /// On whose account it is, if it is made.
    owner: Option<&'a str>,
    pub(super) broker: &'a Broker,
    pub(super) coordinator: &'a Coordinator,
}

impl<'a> Group<'a> {
    pub(super) fn new(id: &'a str, owner: Option<&'a str>, broker: &'a Broker) -> Group<'a> {
        Group {
            id,
            owner,
            broker,
            coordinator: broker.groups(),
        }
    }

    /// On whose account it is, if it is made.
    pub(in crate::broker) fn maker(&self) -> Option<&'a str> {
        self.owner
    }

    /// Its id.
    pub fn id(&self) -> &'a str {
        self.id
    }
}
