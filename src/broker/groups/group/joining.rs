//! Joining: who comes, who comes back, and who takes a static member's place.
//! Callers: `Group::join`. A join is answered at once, or parked until the generation is complete.

use std::time::Duration;

use bytes::Bytes;

use super::super::effects::{Answer, Effects, GroupRecord};
use super::super::exchange::{
    GroupError, GroupState, JoinRefused, JoinRequest, Moment, Protocol, Ticket,
};
use super::super::member::Member;
use super::{Group, answer_parked};

/// How long someone new may stay parked before it must ask again. It cannot send heartbeats yet, and its connection
/// may be gone; Kafka's constant.
const NEWCOMER_WAIT: Duration = Duration::from_secs(5 * 60);

impl Group {
    pub(super) fn join_as_new(
        &mut self,
        now: Moment,
        request: JoinRequest,
        new_member_id: String,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        let holder = request
            .instance_id
            .as_ref()
            .and_then(|instance| self.static_members.get(instance).cloned());
        match holder {
            Some(old_member_id) => {
                self.replace_static(now, request, &old_member_id, new_member_id, ticket, effects)
            }
            None if request.instance_id.is_none() && request.must_know_member_id => {
                let deadline = now.monotonic + request.session_timeout;
                self.pending.insert(new_member_id.clone(), deadline);
                self.wake_by(deadline);
                let refused = JoinRefused {
                    error: GroupError::MemberIdRequired,
                    member_id: new_member_id,
                };
                effects.answers.push(Answer::Join(ticket, Err(refused)));
            }
            None => self.add(now, request, new_member_id, ticket, effects),
        }
    }

    pub(super) fn add(
        &mut self,
        now: Moment,
        request: JoinRequest,
        member_id: String,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        if self.state == GroupState::PreparingRebalance && self.initial_rebalance {
            self.delay_saw_newcomer = true;
        }
        self.pending.remove(&member_id);
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type);
        }
        let member = Member {
            instance_id: request.instance_id,
            client: request.client,
            session_timeout: request.session_timeout,
            rebalance_timeout: request.rebalance_timeout,
            protocols: request.protocols.iter().map(Protocol::owned).collect(),
            assignment: Bytes::new(),
            order: self.next_order(),
            newcomer: true,
            join: Some(ticket),
            sync: None,
            session_deadline: None,
        };
        self.insert(member_id.clone(), member);
        self.leader.get_or_insert_with(|| member_id.clone());
        self.extend_session(now, &member_id, NEWCOMER_WAIT);
        self.rebalance_or_complete_join(now, effects);
    }

    pub(super) fn rejoin(
        &mut self,
        now: Moment,
        request: JoinRequest,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        let Some(member) = self.members.get(&request.member_id) else {
            unreachable!("join found the member")
        };
        let unchanged = member.protocols == request.protocols;
        let leads = self.leader.as_ref() == Some(&request.member_id);
        let current_generation_stands = match self.state {
            GroupState::CompletingRebalance => unchanged,
            GroupState::Stable => unchanged && !leads,
            GroupState::PreparingRebalance => false,
            GroupState::Empty | GroupState::Dead => {
                unreachable!("a group with members is neither empty nor dead")
            }
        };
        if current_generation_stands {
            effects
                .answers
                .push(Answer::Join(ticket, Ok(self.joined(&request.member_id))));
            return;
        }
        let member_id = request.member_id.clone();
        self.park_join(&member_id, request, ticket, effects);
        self.rebalance_or_complete_join(now, effects);
    }

    /// A static member has come back under its name without its id: the id is replaced and the old one fenced. If the
    /// group is stable and its strategy stays, nothing else changes (KIP-345).
    pub(super) fn replace_static(
        &mut self,
        now: Moment,
        request: JoinRequest,
        old_member_id: &str,
        new_member_id: String,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        let led_by = self.leader.clone().unwrap_or_default();
        let can_skip_assignment = request.can_skip_assignment;
        self.rename(old_member_id, &new_member_id, effects);
        let session_timeout = request.session_timeout;
        self.park_join(&new_member_id, request, ticket, effects);
        self.extend_session(now, &new_member_id, session_timeout);
        match self.state {
            GroupState::Stable if self.select_protocol() == self.protocol => {
                if let Some(member) = self.members.get_mut(&new_member_id) {
                    member.join = None;
                }
                let mut joined = self.joined(&new_member_id);
                if can_skip_assignment {
                    joined.skip_assignment = self.leader.as_ref() == Some(&new_member_id);
                } else {
                    // It must not take itself for the leader, or it would assign anew for a group that does not ask.
                    joined.leader = led_by;
                    joined.members.clear();
                }
                effects.records.push(GroupRecord::Stored(self.stored()));
                effects.answers.push(Answer::Join(ticket, Ok(joined)));
            }
            GroupState::Stable | GroupState::CompletingRebalance => {
                self.prepare_rebalance(now, effects)
            }
            GroupState::PreparingRebalance => self.complete_join_if_all_joined(now, effects),
            GroupState::Empty | GroupState::Dead => {
                unreachable!("a group with members is neither empty nor dead")
            }
        }
    }

    pub(super) fn rename(
        &mut self,
        old_member_id: &str,
        new_member_id: &str,
        effects: &mut Effects,
    ) {
        let Some(mut member) = self.members.remove(old_member_id) else {
            unreachable!("static members are members")
        };
        self.member_bytes -= member.bytes(old_member_id);
        let fenced = GroupError::FencedInstance {
            instance_id: member.instance_id.clone().unwrap_or_default(),
            member_id: old_member_id.to_owned(),
        };
        answer_parked(old_member_id, &mut member, fenced, effects);
        member.newcomer = false;
        if let Some(instance_id) = &member.instance_id {
            self.static_members
                .insert(instance_id.clone(), new_member_id.to_owned());
        }
        if self.leader.as_deref() == Some(old_member_id) {
            self.leader = Some(new_member_id.to_owned());
        }
        if self.unsynced.remove(old_member_id) {
            self.unsynced.insert(new_member_id.to_owned());
        }
        self.member_bytes += member.bytes(new_member_id);
        self.members.insert(new_member_id.to_owned(), member);
    }

    pub(super) fn park_join(
        &mut self,
        member_id: &str,
        request: JoinRequest,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        let Some(member) = self.members.get_mut(member_id) else {
            unreachable!("only members are parked")
        };
        self.member_bytes -= member.bytes(member_id);
        member.protocols = request.protocols.iter().map(Protocol::owned).collect();
        member.client = request.client;
        self.member_bytes += member.bytes(member_id);
        member.session_timeout = request.session_timeout;
        member.rebalance_timeout = request.rebalance_timeout;
        if let Some(superseded) = member.join.replace(ticket) {
            let refused = JoinRefused {
                error: GroupError::RebalanceInProgress,
                member_id: member_id.to_owned(),
            };
            effects.answers.push(Answer::Join(superseded, Err(refused)));
        }
    }

    /// The id of the member that asks: its own, or that of the static member whose place it takes; empty for none.
    pub(super) fn id_of<'a>(&'a self, request: &'a JoinRequest) -> &'a str {
        match &request.instance_id {
            Some(instance_id) if request.member_id.is_empty() => self
                .static_members
                .get(instance_id)
                .map_or("", String::as_str),
            _ => &request.member_id,
        }
    }

    /// An existing member, or one that takes a static member's place, never makes the group have more members.
    pub(super) fn has_room_for(&self, request: &JoinRequest, new_member_id: &str) -> bool {
        let growth = self.join_growth(request, new_member_id).bytes;
        if growth > 0 && self.member_bytes + growth > self.settings.bytes_max {
            return false;
        }
        let member_id = self.id_of(request);
        match self.state {
            GroupState::Empty | GroupState::Dead => true,
            // Counting who has rejoined, not who was there, turns away the last to rejoin once the maximum was lowered.
            GroupState::PreparingRebalance => {
                self.members
                    .get(member_id)
                    .is_some_and(|member| member.join.is_some())
                    || self.joined_count() < self.settings.size_max
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.members.contains_key(member_id) || self.members.len() < self.settings.size_max
            }
        }
    }

    pub(super) fn fits(&self, request: &JoinRequest) -> bool {
        if self.state == GroupState::Empty {
            return !request.protocol_type.is_empty() && !request.protocols.is_empty();
        }
        self.protocol_type.as_ref() == Some(&request.protocol_type)
            && request.protocols.iter().any(|protocol| {
                self.members
                    .values()
                    .all(|member| member.supports(&protocol.name))
            })
    }
}
