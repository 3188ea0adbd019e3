//! One consumer group of the classic protocol, as a pure state machine: no I/O, no clock, no tasks.
//! Callers: `Coordinator`, under the group's lock; it passes the time, parks requests under a [`Ticket`], appends the
//! records in [`Effects`], delivers the answers when they are durable, and calls [`Group::on_time`] at [`Group::wake_at`].
//! Invariants: every ticket is answered exactly once; the generation only rises; at most one member leads a generation;
//! no join and no sync is parked while the group is stable or empty; a group that is stable has its leader's assignment.
//! Its steps lie in `joining`, `rebalancing`, `syncing`, `leaving` and `deadlines`; here is what the driver calls.
//! The rules are Kafka's (`ClassicGroup` and the classic half of `GroupMetadataManager`; KIP-134, 345, 394, 814). Two
//! differences: a parked request whose member asks again or is removed is answered too, and where Kafka takes any (the
//! next leader, a tie in the vote) the longest member or the leader's preference decides.

mod deadlines;
mod join_timer;
mod joining;
mod leaving;
mod pending;
mod rebalancing;
mod settings;
mod size;
mod syncing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use model::Timestamp;

use super::effects::{Answer, Effects};
use super::exchange::{
    GroupDescription, GroupError, GroupState, JoinRefused, JoinRequest, Joined, JoinedMember,
    Leaver, MemberClaim, MemberDescription, Moment, SyncRequest, Synced, Ticket,
};
use super::generation::Generation;
use super::member::Member;
use super::record::{StoredGroup, StoredMember};

use join_timer::JoinTimer;
use pending::Pending;
pub use settings::{GroupSettings, OffsetsExpiry, SubscribedTopics};
pub use size::Growth;

/// The protocol type whose subscriptions the broker can read.
const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// A consumer group.
#[derive(Debug)]
pub struct Group {
    settings: GroupSettings,
    state: GroupState,
    /// When it entered the state.
    since: Timestamp,
    /// The rebalance under way began in an empty group, so its end is the delay's, not the last member's join.
    initial_rebalance: bool,
    /// Someone new came while the initial delay ran.
    delay_saw_newcomer: bool,
    generation: Generation,
    /// The highest generation ever handed out, which a restart may have lost the group of.
    promised_generation: Generation,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Instance id to member id.
    static_members: BTreeMap<String, String>,
    pending: Pending,
    /// Members of this generation that have not asked for their assignment.
    unsynced: BTreeSet<String>,
    /// What `members` take in the group's record.
    member_bytes: usize,
    /// What the members read; None if that cannot be told.
    subscribed: Option<BTreeSet<String>>,
    join_timer: Option<JoinTimer>,
    sync_deadline: Option<Duration>,
    /// No deadline is earlier than this; exact after `on_time`.
    wake_at: Option<Duration>,
    orders: u64,
}

impl Group {
    /// An empty group without history.
    pub fn new(settings: GroupSettings, now: Moment) -> Group {
        Group {
            settings,
            state: GroupState::Empty,
            since: now.wall,
            initial_rebalance: false,
            delay_saw_newcomer: false,
            generation: Generation::default(),
            promised_generation: Generation::default(),
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending: Pending::default(),
            unsynced: BTreeSet::new(),
            member_bytes: 0,
            subscribed: None,
            join_timer: None,
            sync_deadline: None,
            wake_at: None,
            orders: 0,
        }
    }

    /// The group as it was stored. Its members have one session timeout to be heard of again.
    pub fn restore(settings: GroupSettings, stored: StoredGroup, now: Moment) -> Group {
        let mut group = Group::new(settings, now);
        group.generation = stored.generation;
        group.promised_generation = stored.generation;
        group.protocol_type = stored.protocol_type;
        group.since = stored.since;
        for stored_member in stored.members {
            let member_id = stored_member.member_id.clone();
            let session_timeout = stored_member.session_timeout;
            let member = Member {
                instance_id: stored_member.instance_id,
                client: stored_member.client,
                session_timeout,
                rebalance_timeout: stored_member.rebalance_timeout,
                protocols: stored_member.protocols,
                assignment: stored_member.assignment,
                order: group.next_order(),
                newcomer: false,
                join: None,
                sync: None,
                session_deadline: None,
            };
            group.insert(member_id.clone(), member);
            group.extend_session(now, &member_id, session_timeout);
        }
        if !group.members.is_empty() {
            group.state = GroupState::Stable;
            group.protocol = stored.protocol;
            group.leader = stored
                .leader
                .filter(|leader| group.members.contains_key(leader))
                .or_else(|| group.oldest(|_| true));
        }
        group.subscribed = group.read_subscriptions();
        if group.members.len() > settings.size_max {
            let mut effects = Effects::default();
            group.prepare_rebalance(now, &mut effects);
            assert!(effects.records.is_empty() && effects.answers.is_empty());
        }
        group
    }

    /// Learns that a generation was handed out before a restart.
    pub fn restore_promise(&mut self, generation: Generation) {
        self.promised_generation = self.promised_generation.max(generation);
    }

    /// Where it is in its life.
    pub fn state(&self) -> GroupState {
        self.state
    }

    /// What kind of group it is; None if it never had a member.
    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    /// The current generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether it has neither members nor ids that someone may yet join with.
    pub fn is_abandoned(&self) -> bool {
        self.state == GroupState::Empty && self.pending.is_empty()
    }

    /// How many requests are parked.
    pub fn parked_count(&self) -> usize {
        self.members
            .values()
            .map(|member| usize::from(member.join.is_some()) + usize::from(member.sync.is_some()))
            .sum()
    }

    /// The time by which `on_time` must be called, if nothing else happens. May be early, never late.
    pub fn wake_at(&self) -> Option<Duration> {
        self.wake_at
    }

    /// Takes someone in, or parks it until the generation is complete. `new_member_id` is used if the request has none.
    pub fn join(
        &mut self,
        now: Moment,
        request: JoinRequest,
        new_member_id: String,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        let member_id = request.member_id.clone();
        let refuse = |error, member_id: &str| {
            Answer::Join(
                ticket,
                Err(JoinRefused {
                    error,
                    member_id: member_id.to_owned(),
                }),
            )
        };
        if self.state == GroupState::Dead {
            effects
                .answers
                .push(refuse(GroupError::NotAvailable, &member_id));
            return;
        }
        if !self.has_room_for(&request, &new_member_id) {
            self.turn_away(now, &member_id, ticket, effects);
            return;
        }
        if !self.fits(&request) {
            effects
                .answers
                .push(refuse(GroupError::InconsistentProtocol, &member_id));
            return;
        }
        if member_id.is_empty() {
            self.join_as_new(now, request, new_member_id, ticket, effects);
        } else if request.instance_id.is_none() && self.pending.contains(&member_id) {
            self.add(now, request, member_id, ticket, effects);
        } else if let Err(error) = self.check_member(&member_id, request.instance_id.as_deref()) {
            effects.answers.push(refuse(error, &member_id));
        } else {
            self.rejoin(now, request, ticket, effects);
        }
    }

    /// Refuses a join for lack of room. Whoever was a member is one no longer.
    pub fn turn_away(
        &mut self,
        now: Moment,
        member_id: &str,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        let refused = JoinRefused {
            error: GroupError::MaxSizeReached,
            member_id: String::new(),
        };
        effects.answers.push(Answer::Join(ticket, Err(refused)));
        if self.remove(member_id, GroupError::MaxSizeReached, effects) {
            self.rebalance_after_removal(now, effects);
        } else if self.pending.remove(member_id) {
            self.complete_join_if_all_joined(now, effects);
        }
    }

    /// Refuses the assignment that a member has brought, for lack of room. It is a member no longer: whoever leads next
    /// may bring a shorter one.
    pub fn turn_away_leader(
        &mut self,
        now: Moment,
        member_id: &str,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        let refused = Answer::Sync(ticket, Err(GroupError::MaxSizeReached));
        effects.answers.push(refused);
        if self.remove(member_id, GroupError::MaxSizeReached, effects) {
            self.rebalance_after_removal(now, effects);
        }
    }

    /// Whether this member is to bring everyone's assignment.
    pub fn is_led_by(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// How many members it has.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// The strategy that won the vote.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Hands out the assignment, or parks the request until the leader has brought it.
    pub fn sync(
        &mut self,
        now: Moment,
        request: SyncRequest,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        if let Err(error) = self.check_sync(&request) {
            effects.answers.push(Answer::Sync(ticket, Err(error)));
            return;
        }
        let grown = self.member_bytes + self.sync_growth(&request).bytes;
        if grown > self.settings.bytes_max && self.sync_growth(&request).bytes > 0 {
            self.turn_away_leader(now, &request.member_id, ticket, effects);
            return;
        }
        self.unsynced.remove(&request.member_id);
        if self.unsynced.is_empty() {
            self.sync_deadline = None;
        }
        let Some(member) = self.members.get_mut(&request.member_id) else {
            unreachable!("check_sync found the member")
        };
        if self.state == GroupState::Stable {
            let assignment = member.assignment.clone();
            effects
                .answers
                .push(Answer::Sync(ticket, Ok(self.synced(assignment))));
            return;
        }
        if let Some(superseded) = member.sync.replace(ticket) {
            effects.answers.push(Answer::Sync(
                superseded,
                Err(GroupError::RebalanceInProgress),
            ));
        }
        if self.leader.as_ref() == Some(&request.member_id) {
            self.assign(now, request.assignments, effects);
        }
    }

    /// Keeps a member's session alive. `RebalanceInProgress` asks it to rejoin.
    pub fn heartbeat(&mut self, now: Moment, claim: &MemberClaim) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::NotAvailable);
        }
        self.check_member(&claim.member_id, claim.instance_id.as_deref())?;
        self.check_generation(claim.generation)?;
        self.renew_session(now, &claim.member_id);
        match self.state {
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Removes members; one result for each, in order.
    pub fn leave(
        &mut self,
        now: Moment,
        leavers: &[Leaver],
        effects: &mut Effects,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::NotAvailable);
        }
        let results: Vec<_> = leavers
            .iter()
            .map(|leaver| self.remove_leaver(leaver, effects))
            .collect();
        if results.iter().any(Result::is_ok) {
            self.rebalance_after_removal(now, effects);
        }
        Ok(results)
    }

    /// Whether this claim may commit offsets now. A member's commit keeps its session alive.
    pub fn authorize_commit(&mut self, now: Moment, claim: &MemberClaim) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::NotAvailable);
        }
        if claim.generation.is_none() && self.state == GroupState::Empty {
            return Ok(());
        }
        if claim.generation.is_none() && claim.member_id.is_empty() && claim.instance_id.is_none() {
            return Err(GroupError::unknown(&claim.member_id));
        }
        self.check_member(&claim.member_id, claim.instance_id.as_deref())?;
        self.check_generation(claim.generation)?;
        if self.state == GroupState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        self.renew_session(now, &claim.member_id);
        Ok(())
    }

    /// Whether single offsets may be deleted now; subscribed topics are asked for one by one.
    pub fn authorize_offset_delete(&self) -> Result<(), GroupError> {
        match self.state {
            GroupState::Dead => Err(GroupError::NotFound),
            GroupState::Empty => Ok(()),
            _ if self.is_consumer() => Ok(()),
            state => Err(GroupError::NonEmpty { state }),
        }
    }

    /// Whether the group may be deleted now.
    pub fn authorize_delete(&self) -> Result<(), GroupError> {
        match self.state {
            GroupState::Dead => Err(GroupError::NotFound),
            GroupState::Empty => Ok(()),
            state => Err(GroupError::NonEmpty { state }),
        }
    }

    /// Ends an empty group's life. Whoever still holds it is told to look again.
    pub fn bury(&mut self, now: Moment) {
        assert!(self.members.is_empty());
        self.pending.clear();
        self.enter(GroupState::Dead, now);
    }

    /// Undoes [`Group::bury`], when the deletion could not be stored.
    pub fn exhume(&mut self, now: Moment) {
        assert!(self.state == GroupState::Dead);
        self.enter(GroupState::Empty, now);
    }

    /// Whether a member reads this topic, as far as that can be told: in doubt, yes.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.is_consumer() && !self.members.is_empty(),
        }
    }

    /// From when on the retention of its offsets counts.
    pub fn offsets_expiry(&self) -> OffsetsExpiry {
        match self.state {
            _ if self.protocol_type.is_none() => OffsetsExpiry::SinceCommit,
            GroupState::Empty => OffsetsExpiry::SinceEmpty(self.since),
            GroupState::Stable if self.is_consumer() && self.subscribed.is_some() => {
                OffsetsExpiry::SinceCommit
            }
            _ => OffsetsExpiry::Never,
        }
    }

    /// The group as the outside sees it.
    pub fn describe(&self) -> GroupDescription {
        let protocol = if self.state == GroupState::Stable {
            self.protocol.clone()
        } else {
            None
        };
        let mut members: Vec<_> = self.members.iter().collect();
        members.sort_by_key(|(_, member)| member.order);
        GroupDescription {
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            members: members
                .into_iter()
                .map(|(id, member)| MemberDescription {
                    member_id: id.clone(),
                    instance_id: member.instance_id.clone(),
                    client: member.client.clone(),
                    metadata: protocol
                        .as_deref()
                        .map(|chosen| member.metadata(Some(chosen)))
                        .unwrap_or_default(),
                    assignment: if protocol.is_some() {
                        member.assignment.clone()
                    } else {
                        Bytes::new()
                    },
                })
                .collect(),
            protocol: protocol.unwrap_or_default(),
        }
    }

    /// The last step's records could not be appended, and its answers were withheld: nobody may act on that
    /// generation, so the members are asked to rejoin.
    pub fn on_records_lost(&mut self, now: Moment, effects: &mut Effects) {
        if matches!(
            self.state,
            GroupState::Stable | GroupState::CompletingRebalance
        ) {
            self.prepare_rebalance(now, effects);
        }
    }

    /// Applies every deadline that has passed.
    pub fn on_time(&mut self, now: Moment, effects: &mut Effects) {
        let late = |deadline: &Duration| *deadline <= now.monotonic;
        if self.pending.expire(now.monotonic) {
            self.complete_join_if_all_joined(now, effects);
        }
        let expired: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.session_deadline.as_ref().is_some_and(late))
            .map(|(id, _)| id.clone())
            .collect();
        for member_id in expired {
            self.expire_session(now, &member_id, effects);
        }
        if self.join_timer.is_some_and(|timer| late(&timer.at())) {
            self.on_join_timer(now, effects);
        }
        if self.sync_deadline.as_ref().is_some_and(late) {
            self.on_sync_deadline(now, effects);
        }
        self.wake_at = self.earliest_deadline();
    }

    // Small facts.

    fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
        let unknown = || GroupError::UnknownMember {
            member_id: member_id.to_owned(),
            instance_id: instance_id.map(str::to_owned),
        };
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(unknown()),
                Some(holder) if holder != member_id => {
                    return Err(GroupError::FencedInstance {
                        instance_id: instance_id.to_owned(),
                        member_id: member_id.to_owned(),
                    });
                }
                Some(_) => {}
            }
        }
        match self.members.contains_key(member_id) {
            true => Ok(()),
            false => Err(unknown()),
        }
    }

    fn check_generation(&self, claimed: Option<Generation>) -> Result<(), GroupError> {
        let current = self.generation;
        if claimed == Some(current) {
            return Ok(());
        }
        Err(GroupError::IllegalGeneration { claimed, current })
    }

    fn is_consumer(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    fn joined_count(&self) -> usize {
        self.members
            .values()
            .filter(|member| member.join.is_some())
            .count()
    }

    fn have_all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.join.is_some())
    }

    fn oldest(&self, wanted: impl Fn(&Member) -> bool) -> Option<String> {
        self.members
            .iter()
            .filter(|(_, member)| wanted(member))
            .min_by_key(|(_, member)| member.order)
            .map(|(id, _)| id.clone())
    }

    fn ids_by_order(&self) -> Vec<String> {
        let mut ids: Vec<_> = self
            .members
            .iter()
            .map(|(id, member)| (member.order, id.clone()))
            .collect();
        ids.sort();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    fn joined(&self, member_id: &str) -> Joined {
        let leads = self.leader.as_deref() == Some(member_id);
        let members = if leads {
            self.ids_by_order()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: member_id.to_owned(),
            members: members
                .into_iter()
                .filter_map(|id| {
                    let member = self.members.get(&id)?;
                    let metadata = member.metadata(self.protocol.as_deref());
                    Some(JoinedMember {
                        member_id: id,
                        instance_id: member.instance_id.clone(),
                        metadata,
                    })
                })
                .collect(),
            skip_assignment: false,
        }
    }

    fn synced(&self, assignment: Bytes) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment,
        }
    }

    fn stored(&self) -> StoredGroup {
        let members = self.ids_by_order().into_iter().filter_map(|member_id| {
            let member = self.members.get(&member_id)?;
            Some(StoredMember {
                member_id,
                instance_id: member.instance_id.clone(),
                client: member.client.clone(),
                session_timeout: member.session_timeout,
                rebalance_timeout: member.rebalance_timeout,
                protocols: member.protocols.clone(),
                assignment: member.assignment.clone(),
            })
        });
        StoredGroup {
            generation: self.generation,
            since: self.since,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: members.collect(),
        }
    }

    fn insert(&mut self, member_id: String, member: Member) {
        if let Some(instance_id) = &member.instance_id {
            self.static_members
                .insert(instance_id.clone(), member_id.clone());
        }
        self.member_bytes += member.bytes(&member_id);
        if let Some(replaced) = self.members.insert(member_id.clone(), member) {
            let bytes = replaced.bytes(&member_id);
            assert!(self.member_bytes >= bytes, "what it took was counted");
            self.member_bytes -= bytes;
        }
    }

    /// What holds between any two steps.
    pub(super) fn assert_sound(&self) {
        assert!(
            self.generation <= self.promised_generation,
            "no generation is told that was not promised"
        );
        assert!(
            self.static_members.len() <= self.members.len(),
            "each name belongs to a member, and no two to the same"
        );
        let leads = |leader: &String| self.members.contains_key(leader);
        match self.state {
            GroupState::Empty => {
                assert!(self.members.is_empty(), "an empty group has no members");
            }
            GroupState::CompletingRebalance => {
                assert!(
                    self.leader.as_ref().is_some_and(leads) && self.sync_deadline.is_some(),
                    "a member assigns, and not for ever"
                );
            }
            GroupState::Stable => {
                assert!(
                    !self.members.is_empty() && self.leader.as_ref().is_none_or(leads),
                    "a stable group has members, and its leader is one"
                );
            }
            GroupState::PreparingRebalance => {
                assert!(self.join_timer.is_some(), "no rebalance waits for ever");
            }
            GroupState::Dead => {}
        }
    }

    fn next_order(&mut self) -> u64 {
        self.orders += 1;
        self.orders
    }

    fn enter(&mut self, state: GroupState, now: Moment) {
        self.state = state;
        self.since = now.wall;
    }
}

fn answer_parked(
    join_answer_id: &str,
    member: &mut Member,
    error: GroupError,
    effects: &mut Effects,
) {
    if let Some(ticket) = member.join.take() {
        effects.answers.push(Answer::Join(
            ticket,
            Err(JoinRefused {
                error: error.clone(),
                member_id: join_answer_id.to_owned(),
            }),
        ));
    }
    if let Some(ticket) = member.sync.take() {
        effects.answers.push(Answer::Sync(ticket, Err(error)));
    }
}
