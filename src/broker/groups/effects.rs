//! What one step of a group asks of its driver: records to be stored, answers to parked requests.
//! Callers: the group, which says it; the group's machine, which does it.

use super::exchange::{GroupError, JoinRefused, Joined, Synced, Ticket};
use super::generation::Generation;
use super::record::StoredGroup;

/// An answer that leaves the group for a parked request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a join.
    Join(Ticket, Result<Joined, JoinRefused>),
    /// To a sync.
    Sync(Ticket, Result<Synced, GroupError>),
}

/// What must be durable before the answers beside it may leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRecord {
    /// The group as it stands, empty or stable.
    Stored(StoredGroup),
    /// This generation was handed out; none that starts later, also after a restart, may be as low.
    Promised(Generation),
}

/// What one step of a group asks of its driver: first the records, then the answers.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be appended in this order.
    pub records: Vec<GroupRecord>,
    /// To be delivered once the records are durable.
    pub answers: Vec<Answer>,
}
