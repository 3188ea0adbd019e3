//! What a group holds, what a request would add to it, and how long its record is.
//! Callers: `Group`, which bounds its own record, and `Coordinator`, which bounds all groups together and admits a record
//! before it takes the group's lock. Lengths are those of the encoded record.

use super::super::exchange::{JoinRequest, SyncRequest};
use super::super::record;
use super::pending::PENDING_BYTES;
use super::{Group, GroupState};

/// No member's id is longer: the client's name, cut, and a UUID.
const MEMBER_ID_BYTES_MAX: usize = 300;

/// What a request would add to a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Members, and ids that may become members.
    pub members: usize,
    /// Bytes of members.
    pub bytes: usize,
}

impl Group {
    /// What this join would add, if it is let in.
    pub fn join_growth(&self, request: &JoinRequest, new_member_id: &str) -> Growth {
        let wanted = |id: &str| {
            record::member_bytes(
                id,
                request.instance_id.as_deref(),
                &request.client,
                &request.protocols,
                &[],
            )
        };
        let known_id = self.id_of(request);
        if let Some(member) = self.members.get(known_id) {
            let id = if request.member_id.is_empty() {
                new_member_id
            } else {
                known_id
            };
            let before = member.bytes(known_id) - member.assignment.len();
            return Growth {
                members: 0,
                bytes: wanted(id).saturating_sub(before),
            };
        }
        if self.pending.contains(known_id) {
            return Growth {
                members: 0,
                bytes: wanted(known_id).saturating_sub(PENDING_BYTES + known_id.len()),
            };
        }
        if !request.member_id.is_empty() {
            // Not known, and so refused.
            return Growth::default();
        }
        let is_asked_back = request.instance_id.is_none() && request.must_know_member_id;
        Growth {
            members: 1,
            bytes: if is_asked_back {
                PENDING_BYTES + new_member_id.len()
            } else {
                wanted(new_member_id)
            },
        }
    }

    /// What the assignments of this sync would add, if it is the one that brings them.
    pub fn sync_growth(&self, request: &SyncRequest) -> Growth {
        let brings = self.state == GroupState::CompletingRebalance
            && self.leader.as_ref() == Some(&request.member_id)
            && self.check_sync(request).is_ok();
        let assigned = request.assignments.iter();
        let bytes = assigned
            .filter(|(member_id, _)| self.members.contains_key(member_id))
            .map(|(_, assignment)| assignment.len());
        Growth {
            members: 0,
            bytes: if brings { bytes.sum() } else { 0 },
        }
    }

    /// What it holds: members and ids that may become members, and their bytes.
    pub fn held(&self) -> Growth {
        Growth {
            members: self.members.len() + self.pending.len(),
            bytes: self.member_bytes + self.pending.bytes(),
        }
    }

    /// The length of the group's record, without its key: with its members, and once they are all gone.
    pub fn record_bytes(&self) -> (usize, usize) {
        let name = |name: &Option<String>| name.as_ref().map_or(0, String::len);
        let empty = record::GROUP_VALUE_BYTES + name(&self.protocol_type) + name(&self.protocol);
        let whole = empty + name(&self.leader).max(MEMBER_ID_BYTES_MAX) + self.member_bytes;
        (whole, empty)
    }
}
