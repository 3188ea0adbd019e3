//! Deadlines: sessions, joins, syncs, ids that nobody has used. The group knows of the earliest without looking at all.
//! Callers: every step that starts or renews one; `Group::on_time`, which applies those that have passed.

use std::time::Duration;

use super::super::exchange::Moment;
use super::Group;
use super::join_timer::JoinTimer;

impl Group {
    pub(super) fn renew_session(&mut self, now: Moment, member_id: &str) {
        if let Some(member) = self.members.get(member_id) {
            let session_timeout = member.session_timeout;
            self.extend_session(now, member_id, session_timeout);
        }
    }

    pub(super) fn extend_session(&mut self, now: Moment, member_id: &str, timeout: Duration) {
        let deadline = now.monotonic + timeout;
        if let Some(member) = self.members.get_mut(member_id) {
            member.session_deadline = Some(deadline);
        }
        self.wake_by(deadline);
    }

    pub(super) fn start_join_timer(&mut self, timer: JoinTimer) {
        self.join_timer = Some(timer);
        self.wake_by(timer.at());
    }

    pub(super) fn wake_by(&mut self, deadline: Duration) {
        self.wake_at = Some(self.wake_at.map_or(deadline, |at| at.min(deadline)));
    }

    pub(super) fn earliest_deadline(&self) -> Option<Duration> {
        let sessions = self
            .members
            .values()
            .filter_map(|member| member.session_deadline);
        sessions
            .chain(self.pending.first_deadline())
            .chain(self.join_timer.map(JoinTimer::at))
            .chain(self.sync_deadline)
            .min()
    }
}
