//! Syncing: the leader's assignment comes, and everyone is given its part.
//! Callers: `Group::sync`, and a rebalance that ends the wait for it.

use bytes::Bytes;

use super::super::effects::{Answer, Effects, GroupRecord};
use super::super::exchange::{GroupError, GroupState, Moment, SyncRequest};
use super::Group;

impl Group {
    pub(super) fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        match self.state {
            GroupState::Dead => return Err(GroupError::NotAvailable),
            GroupState::Empty => return Err(GroupError::unknown(&request.member_id)),
            GroupState::PreparingRebalance
            | GroupState::CompletingRebalance
            | GroupState::Stable => {}
        }
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        let differs = |claimed: &Option<String>, actual: &Option<String>| {
            claimed.is_some() && actual.is_some() && claimed != actual
        };
        self.check_generation(request.generation)?;
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol, &self.protocol)
        {
            Err(GroupError::InconsistentProtocol)
        } else if self.state == GroupState::PreparingRebalance {
            Err(GroupError::RebalanceInProgress)
        } else {
            Ok(())
        }
    }

    pub(super) fn assign(
        &mut self,
        now: Moment,
        assignments: Vec<(String, Bytes)>,
        effects: &mut Effects,
    ) {
        self.take_assignments_back();
        for (member_id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&member_id) {
                // A copy, which does not keep the leader's whole request in memory.
                self.member_bytes -= member.assignment.len();
                member.assignment = Bytes::copy_from_slice(&assignment);
                self.member_bytes += member.assignment.len();
            }
        }
        self.enter(GroupState::Stable, now);
        effects.records.push(GroupRecord::Stored(self.stored()));
        self.answer_syncs(now, &Ok(()), effects);
    }

    pub(super) fn take_assignments_back(&mut self) {
        for member in self.members.values_mut() {
            self.member_bytes -= member.assignment.len();
            member.assignment = Bytes::new();
        }
    }

    pub(super) fn answer_syncs(
        &mut self,
        now: Moment,
        outcome: &Result<(), GroupError>,
        effects: &mut Effects,
    ) {
        for member_id in self.ids_by_order() {
            let Some(member) = self.members.get_mut(&member_id) else {
                continue;
            };
            let Some(ticket) = member.sync.take() else {
                continue;
            };
            let assignment = member.assignment.clone();
            let result = outcome.clone().map(|()| self.synced(assignment));
            effects.answers.push(Answer::Sync(ticket, result));
            self.renew_session(now, &member_id);
        }
    }

    pub(super) fn on_sync_deadline(&mut self, now: Moment, effects: &mut Effects) {
        self.sync_deadline = None;
        let absent = std::mem::take(&mut self.unsynced);
        if absent.is_empty() {
            return;
        }
        for member_id in &absent {
            self.remove(member_id, GroupError::unknown(member_id), effects);
        }
        self.rebalance_after_removal(now, effects);
    }
}
