//! Leaving, and sessions that end.
//! Callers: `Group::leave` and `Group::on_time`.

use super::super::effects::Effects;
use super::super::exchange::{GroupError, Leaver, Moment};
use super::{Group, answer_parked};

impl Group {
    pub(super) fn remove_leaver(
        &mut self,
        leaver: &Leaver,
        effects: &mut Effects,
    ) -> Result<(), GroupError> {
        let member_id = if leaver.member_id.is_empty() {
            leaver
                .instance_id
                .as_ref()
                .and_then(|instance| self.static_members.get(instance))
                .cloned()
                .ok_or_else(|| leaver.unknown())?
        } else if self.pending.remove(&leaver.member_id) {
            return Ok(());
        } else {
            self.check_member(&leaver.member_id, leaver.instance_id.as_deref())?;
            leaver.member_id.clone()
        };
        self.remove(&member_id, GroupError::unknown(&member_id), effects);
        Ok(())
    }

    pub(super) fn expire_session(&mut self, now: Moment, member_id: &str, effects: &mut Effects) {
        let Some(member) = self.members.get_mut(member_id) else {
            return;
        };
        match member.session_deadline {
            // The removal of another member may have completed the join and renewed this session.
            Some(deadline) if deadline <= now.monotonic => {}
            _ => return,
        }
        if member.is_waiting() {
            member.session_deadline = None;
            return;
        }
        self.remove(member_id, GroupError::unknown(member_id), effects);
        self.rebalance_after_removal(now, effects);
    }

    /// Takes a member out and answers what it has parked. False if there is no such member.
    pub(super) fn remove(
        &mut self,
        member_id: &str,
        reason: GroupError,
        effects: &mut Effects,
    ) -> bool {
        let Some(mut member) = self.members.remove(member_id) else {
            return false;
        };
        self.member_bytes -= member.bytes(member_id);
        answer_parked("", &mut member, reason, effects);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        self.unsynced.remove(member_id);
        if self.leader.as_deref() == Some(member_id) {
            self.leader = self.oldest(|_| true);
        }
        true
    }
}
