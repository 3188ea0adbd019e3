//! Rebalancing: from the first member that has to rejoin to the generation that everyone is told of.
//! Callers: the other parts of the state machine, whenever members come, go or change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::effects::{Answer, Effects, GroupRecord};
use super::super::exchange::{GroupError, GroupState, Moment};
use super::super::member::Member;
use super::Group;
use super::join_timer::JoinTimer;

/// The rebalance timeout is the client's word, and may be 0. Less than this would leave no time for an answer, and a
/// rebalance that waits for static members' sessions would spin.
const REBALANCE_TIMEOUT_MIN: Duration = Duration::from_secs(1);

impl Group {
    pub(super) fn rebalance_or_complete_join(&mut self, now: Moment, effects: &mut Effects) {
        match self.state {
            GroupState::Empty | GroupState::Stable | GroupState::CompletingRebalance => {
                self.prepare_rebalance(now, effects)
            }
            GroupState::PreparingRebalance => self.complete_join_if_all_joined(now, effects),
            GroupState::Dead => {}
        }
    }

    pub(super) fn rebalance_after_removal(&mut self, now: Moment, effects: &mut Effects) {
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance => {
                self.prepare_rebalance(now, effects)
            }
            GroupState::PreparingRebalance => self.complete_join_if_all_joined(now, effects),
            GroupState::Empty | GroupState::Dead => {}
        }
    }

    pub(super) fn prepare_rebalance(&mut self, now: Moment, effects: &mut Effects) {
        // Nobody is given the last generation's any more.
        self.take_assignments_back();
        if self.state == GroupState::CompletingRebalance {
            self.answer_syncs(now, &Err(GroupError::RebalanceInProgress), effects);
        }
        self.unsynced.clear();
        self.sync_deadline = None;
        self.initial_rebalance = self.state == GroupState::Empty;
        self.enter(GroupState::PreparingRebalance, now);
        if self.initial_rebalance {
            let delay = self.settings.initial_rebalance_delay;
            if delay.is_zero() {
                self.complete_join(now, effects);
                return;
            }
            let remaining = self.rebalance_timeout().saturating_sub(delay);
            self.delay_saw_newcomer = false;
            self.start_join_timer(JoinTimer::Initial {
                at: now.monotonic + delay,
                delay,
                remaining,
            });
        } else if self.have_all_joined() {
            self.complete_join(now, effects);
        } else {
            self.start_join_timer(JoinTimer::Rebalance {
                at: now.monotonic + self.rebalance_timeout(),
            });
        }
    }

    pub(super) fn on_join_timer(&mut self, now: Moment, effects: &mut Effects) {
        match self.join_timer {
            Some(JoinTimer::Initial {
                delay, remaining, ..
            }) if self.delay_saw_newcomer && !remaining.is_zero() => {
                self.delay_saw_newcomer = false;
                let next_delay = self.settings.initial_rebalance_delay.min(remaining);
                self.start_join_timer(JoinTimer::Initial {
                    at: now.monotonic + next_delay,
                    delay: next_delay,
                    remaining: remaining.saturating_sub(delay),
                });
            }
            Some(_) => self.complete_join(now, effects),
            None => {}
        }
    }

    pub(super) fn complete_join_if_all_joined(&mut self, now: Moment, effects: &mut Effects) {
        if self.state == GroupState::PreparingRebalance
            && !self.initial_rebalance
            && self.have_all_joined()
        {
            self.complete_join(now, effects);
        }
    }

    pub(super) fn complete_join(&mut self, now: Moment, effects: &mut Effects) {
        self.join_timer = None;
        // Static members keep their place until their session ends: they may only be restarting.
        let absent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.join.is_none() && member.instance_id.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for member_id in absent {
            self.remove(&member_id, GroupError::unknown(&member_id), effects);
        }
        if !self.elect_leader() && !self.members.is_empty() {
            self.start_join_timer(JoinTimer::Rebalance {
                at: now.monotonic + self.rebalance_timeout(),
            });
            return;
        }
        self.generation = self.generation.after(self.promised_generation);
        self.promised_generation = self.generation;
        self.initial_rebalance = false;
        self.unsynced.clear();
        self.protocol = self.select_protocol();
        self.subscribed = self.read_subscriptions();
        if self.members.is_empty() {
            self.enter(GroupState::Empty, now);
            effects.records.push(GroupRecord::Stored(self.stored()));
            return;
        }
        self.enter(GroupState::CompletingRebalance, now);
        effects.records.push(GroupRecord::Promised(self.generation));
        self.answer_joins(now, effects);
        let deadline = now.monotonic + self.rebalance_timeout();
        self.sync_deadline = Some(deadline);
        self.wake_by(deadline);
    }

    pub(super) fn answer_joins(&mut self, now: Moment, effects: &mut Effects) {
        for member_id in self.ids_by_order() {
            let Some(member) = self.members.get_mut(&member_id) else {
                continue;
            };
            member.newcomer = false;
            let ticket = member.join.take();
            self.renew_session(now, &member_id);
            if let Some(ticket) = ticket {
                effects
                    .answers
                    .push(Answer::Join(ticket, Ok(self.joined(&member_id))));
            }
            self.unsynced.insert(member_id);
        }
    }

    /// Keeps the leader if it has rejoined, else takes the longest member that has. False if nobody has.
    pub(super) fn elect_leader(&mut self) -> bool {
        let has_rejoined = |member: &Member| member.join.is_some();
        if self
            .leader
            .as_ref()
            .and_then(|leader| self.members.get(leader))
            .is_some_and(has_rejoined)
        {
            return true;
        }
        match self.oldest(has_rejoined) {
            Some(member_id) => {
                self.leader = Some(member_id);
                true
            }
            None => false,
        }
    }

    /// Each member votes for its first strategy among those that all support; the leader's order breaks a tie.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let leader = self
            .leader
            .as_ref()
            .and_then(|leader| self.members.get(leader))?;
        let candidates: BTreeSet<&str> = leader
            .protocols
            .iter()
            .map(|protocol| protocol.name.as_str())
            .filter(|name| self.members.values().all(|member| member.supports(name)))
            .collect();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for choice in self
            .members
            .values()
            .filter_map(|member| member.vote(&candidates))
        {
            *votes.entry(choice).or_default() += 1;
        }
        let most = votes.values().max()?;
        leader
            .protocols
            .iter()
            .find(|protocol| votes.get(protocol.name.as_str()) == Some(most))
            .map(|protocol| protocol.name.clone())
    }

    pub(super) fn read_subscriptions(&self) -> Option<BTreeSet<String>> {
        if !self.is_consumer() {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            let subscription = member.metadata(self.protocol.as_deref());
            topics.extend((self.settings.subscribed_topics)(&subscription)?);
        }
        Some(topics)
    }

    pub(super) fn rebalance_timeout(&self) -> Duration {
        let timeouts = self.members.values().map(|member| member.rebalance_timeout);
        timeouts
            .max()
            .unwrap_or_default()
            .max(REBALANCE_TIMEOUT_MIN)
    }
}
