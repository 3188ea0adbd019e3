//! One member of a group: what it said when it joined, its assignment, and which of its requests are parked.
//! Only `Group` holds and changes members.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::exchange::{ClientIdentity, Protocol, Ticket};
use super::record;

/// A member of a group.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) instance_id: Option<String>,
    pub(super) client: ClientIdentity,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    /// Its place in the order of joining, which decides who leads next.
    pub(super) order: u64,
    /// Not yet part of any generation: it cannot send heartbeats, so a deadline of its own bounds its stay.
    pub(super) newcomer: bool,
    pub(super) join: Option<Ticket>,
    pub(super) sync: Option<Ticket>,
    /// When the session ends. None while a parked request keeps it alive past its deadline.
    pub(super) session_deadline: Option<Duration>,
}

impl Member {
    /// Its length in the group's record, under this id.
    pub(super) fn bytes(&self, id: &str) -> usize {
        record::member_bytes(
            id,
            self.instance_id.as_deref(),
            &self.client,
            &self.protocols,
            &self.assignment,
        )
    }

    /// Whether a parked request stands in for heartbeats.
    pub(super) fn is_waiting(&self) -> bool {
        !self.newcomer && (self.join.is_some() || self.sync.is_some())
    }

    /// Its subscription under this strategy; empty if it does not support it.
    pub(super) fn metadata(&self, protocol: Option<&str>) -> Bytes {
        self.protocols
            .iter()
            .find(|own| Some(own.name.as_str()) == protocol)
            .map(|own| own.metadata.clone())
            .unwrap_or_default()
    }

    /// The first of its strategies that is among the candidates.
    pub(super) fn vote<'a>(&self, candidates: &BTreeSet<&'a str>) -> Option<&'a str> {
        self.protocols
            .iter()
            .find_map(|own| candidates.get(own.name.as_str()).copied())
    }

    /// Whether it supports this strategy.
    pub(super) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|own| own.name == protocol)
    }
}
