//! Tests of the pure parts: scripted scenarios for each rule, and random members against the invariants.

mod bounds;
mod coordinator;
mod membership;
mod offsets;
mod random;
mod rebalance;
mod records;
mod statics;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use model::Timestamp;

use super::*;

pub(super) const DELAY: u64 = 3_000;
pub(super) const SESSION: u64 = 10_000;
pub(super) const REBALANCE: u64 = 30_000;

/// A group with a clock of its own that keeps every answer and record.
pub(super) struct Bench {
    pub(super) group: Group,
    pub(super) now_ms: u64,
    pub(super) settings: GroupSettings,
    pub(super) joins: BTreeMap<Ticket, Result<Joined, JoinRefused>>,
    pub(super) syncs: BTreeMap<Ticket, Result<Synced, GroupError>>,
    pub(super) records: Vec<GroupRecord>,
    tickets: u64,
    ids: u64,
}

/// A join in the making: everything has a default.
pub(super) struct Ask {
    pub(super) request: JoinRequest,
}

pub(super) fn ask(member_id: &str) -> Ask {
    let request = JoinRequest {
        member_id: member_id.to_owned(),
        instance_id: None,
        client: ClientIdentity {
            client_id: "client".into(),
            host: "/10.0.0.1".into(),
        },
        session_timeout: Duration::from_millis(SESSION),
        rebalance_timeout: Duration::from_millis(REBALANCE),
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range", "")],
        must_know_member_id: true,
        can_skip_assignment: true,
    };
    Ask { request }
}

pub(super) fn protocol(name: &str, metadata: &str) -> Protocol {
    Protocol {
        name: name.into(),
        metadata: Bytes::copy_from_slice(metadata.as_bytes()),
    }
}

/// What a subscription in these tests' own format begins with.
const SUBSCRIPTION: &str = "topics:";

/// A consumer's subscription to these topics.
pub(super) fn subscription(topics: &[&str]) -> Bytes {
    format!("{SUBSCRIPTION}{}", topics.join(",")).into()
}

/// The topics in such a subscription.
pub(super) fn subscribed_topics(bytes: &[u8]) -> Option<BTreeSet<String>> {
    let topics = std::str::from_utf8(bytes)
        .ok()?
        .strip_prefix(SUBSCRIPTION)?;
    Some(topics.split(',').map(str::to_owned).collect())
}

impl Ask {
    pub(super) fn instance(mut self, instance_id: &str) -> Ask {
        self.request.instance_id = Some(instance_id.into());
        self
    }

    pub(super) fn old_version(mut self) -> Ask {
        self.request.must_know_member_id = false;
        self.request.can_skip_assignment = false;
        self
    }

    pub(super) fn protocols(mut self, protocols: &[(&str, &str)]) -> Ask {
        self.request.protocols = protocols
            .iter()
            .map(|(name, metadata)| protocol(name, metadata))
            .collect();
        self
    }

    pub(super) fn topics(mut self, topics: &[&str]) -> Ask {
        self.request.protocols = vec![Protocol {
            name: "range".into(),
            metadata: subscription(topics),
        }];
        self
    }

    pub(super) fn protocol_type(mut self, protocol_type: &str) -> Ask {
        self.request.protocol_type = protocol_type.into();
        self
    }

    pub(super) fn rebalance_ms(mut self, millis: u64) -> Ask {
        self.request.rebalance_timeout = Duration::from_millis(millis);
        self
    }

    pub(super) fn session_ms(mut self, millis: u64) -> Ask {
        self.request.session_timeout = Duration::from_millis(millis);
        self
    }
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench::with(GroupSettings {
            initial_rebalance_delay: Duration::from_millis(DELAY),
            ..GroupSettings::default()
        })
    }

    pub(super) fn with(settings: GroupSettings) -> Bench {
        let settings = GroupSettings {
            subscribed_topics,
            ..settings
        };
        Bench {
            group: Group::new(settings, moment(0)),
            now_ms: 0,
            settings,
            joins: BTreeMap::new(),
            syncs: BTreeMap::new(),
            records: Vec::new(),
            tickets: 0,
            ids: 0,
        }
    }

    pub(super) fn now(&self) -> Moment {
        moment(self.now_ms)
    }

    pub(super) fn take(&mut self, effects: Effects) {
        self.group.assert_sound();
        let held = self.group.held();
        for record in &effects.records {
            if let GroupRecord::Stored(stored) = record
                && stored.members.len() == held.members
            {
                let bytes = |it: &StoredMember| {
                    let instance_id = it.instance_id.as_deref();
                    let (protocols, assignment) = (&it.protocols, &it.assignment);
                    record::member_bytes(
                        &it.member_id,
                        instance_id,
                        &it.client,
                        protocols,
                        assignment,
                    )
                };
                let bytes: usize = stored.members.iter().map(bytes).sum();
                assert_eq!(bytes, held.bytes, "a group knows what its members take");
            }
        }
        self.records.extend(effects.records);
        for answer in effects.answers {
            let fresh = match answer {
                Answer::Join(ticket, result) => self.joins.insert(ticket, result).is_none(),
                Answer::Sync(ticket, result) => self.syncs.insert(ticket, result).is_none(),
            };
            assert!(fresh, "a ticket was answered twice");
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    pub(super) fn join(&mut self, ask: Ask) -> Ticket {
        let ticket = self.ticket();
        self.ids += 1;
        let new_member_id = format!("id-{}", self.ids);
        let mut effects = Effects::default();
        self.group
            .join(self.now(), ask.request, new_member_id, ticket, &mut effects);
        self.take(effects);
        ticket
    }

    pub(super) fn sync(
        &mut self,
        member_id: &str,
        generation: impl Into<Generation>,
        assignments: &[(&str, &str)],
    ) -> Ticket {
        let assignments = assignments
            .iter()
            .map(|(id, bytes)| ((*id).to_owned(), Bytes::copy_from_slice(bytes.as_bytes())))
            .collect();
        self.sync_with(SyncRequest {
            member_id: member_id.into(),
            instance_id: None,
            generation: Some(generation.into()),
            protocol_type: None,
            protocol: None,
            assignments,
        })
    }

    pub(super) fn sync_with(&mut self, request: SyncRequest) -> Ticket {
        let ticket = self.ticket();
        let mut effects = Effects::default();
        self.group.sync(self.now(), request, ticket, &mut effects);
        self.take(effects);
        ticket
    }

    pub(super) fn heartbeat(&mut self, member_id: &str, generation: i32) -> Result<(), GroupError> {
        self.group
            .heartbeat(self.now(), &claim(member_id, generation))
    }

    pub(super) fn leave(
        &mut self,
        leavers: &[(&str, Option<&str>)],
    ) -> Vec<Result<(), GroupError>> {
        let leavers: Vec<_> = leavers
            .iter()
            .map(|(id, instance)| Leaver {
                member_id: (*id).into(),
                instance_id: instance.map(Into::into),
            })
            .collect();
        let mut effects = Effects::default();
        let results = self
            .group
            .leave(self.now(), &leavers, &mut effects)
            .expect("the group is not dead");
        self.take(effects);
        results
    }

    /// Lets time pass and applies the deadlines on the way at their own time.
    pub(super) fn pass(&mut self, millis: u64) {
        let until = self.now_ms + millis;
        while let Some(at) = self
            .group
            .wake_at()
            .filter(|at| at.as_millis() as u64 <= until)
        {
            self.now_ms = self.now_ms.max(at.as_millis() as u64);
            self.wake();
        }
        self.now_ms = until;
    }

    pub(super) fn wake(&mut self) {
        let mut effects = Effects::default();
        self.group.on_time(self.now(), &mut effects);
        self.take(effects);
        if let Some(at) = self.group.wake_at() {
            assert!(
                at > self.now().monotonic,
                "a deadline that has passed was left standing"
            );
        }
    }

    pub(super) fn joined(&self, ticket: Ticket) -> Joined {
        match self.joins.get(&ticket) {
            Some(Ok(joined)) => joined.clone(),
            other => panic!("expected a joined member, found {other:?}"),
        }
    }

    pub(super) fn refused(&self, ticket: Ticket) -> (GroupError, String) {
        match self.joins.get(&ticket) {
            Some(Err(refused)) => (refused.error.clone(), refused.member_id.clone()),
            other => panic!("expected a refusal, found {other:?}"),
        }
    }

    pub(super) fn is_parked(&self, ticket: Ticket) -> bool {
        !self.joins.contains_key(&ticket) && !self.syncs.contains_key(&ticket)
    }

    pub(super) fn synced(&self, ticket: Ticket) -> Result<String, GroupError> {
        let result = self
            .syncs
            .get(&ticket)
            .expect("the sync is answered")
            .clone();
        result.map(|synced| {
            String::from_utf8(synced.assignment.to_vec()).expect("test assignments are text")
        })
    }

    /// Someone new, as clients do it since KIP-394: fetch an id, then join with it.
    pub(super) fn enter(&mut self, ask: Ask) -> (String, Ticket) {
        let mut request = ask.request.clone();
        let (error, member_id) = {
            let ticket = self.join(ask);
            self.refused(ticket)
        };
        assert_eq!(error, GroupError::MemberIdRequired);
        request.member_id.clone_from(&member_id);
        let ticket = self.join(Ask { request });
        (member_id, ticket)
    }

    /// A stable group of this many dynamic members; the first leads. Each has its id as assignment.
    pub(super) fn stable(&mut self, count: usize) -> Vec<String> {
        let entered: Vec<_> = (0..count).map(|_| self.enter(ask(""))).collect();
        while self.group.state() == GroupState::PreparingRebalance {
            self.pass(DELAY);
        }
        let members: Vec<_> = entered.iter().map(|(id, _)| id.clone()).collect();
        self.sync_all(&members);
        members
    }

    /// Syncs everyone in the current generation, the leader first.
    pub(super) fn sync_all(&mut self, members: &[String]) {
        let generation = self.group.generation();
        let assignments: Vec<_> = members
            .iter()
            .map(|id| (id.as_str(), id.as_str()))
            .collect();
        for member in members {
            let ticket = self.sync(member, generation, &assignments);
            assert_eq!(self.synced(ticket), Ok(member.clone()));
        }
        assert_eq!(self.group.state(), GroupState::Stable);
    }

    /// Restarts the broker: what is in the records, and nothing else, comes back.
    pub(super) fn restart(&mut self) {
        let stored = self.records.iter().rev().find_map(|record| match record {
            GroupRecord::Stored(stored) => Some(stored.clone()),
            GroupRecord::Promised(_) => None,
        });
        let now = self.now();
        self.group = match stored {
            Some(stored) => Group::restore(self.settings, stored, now),
            None => Group::new(self.settings, now),
        };
        for record in &self.records {
            if let GroupRecord::Promised(generation) = record {
                self.group.restore_promise(*generation);
            }
        }
        self.joins.clear();
        self.syncs.clear();
    }
}

pub(super) fn moment(millis: u64) -> Moment {
    Moment {
        monotonic: Duration::from_millis(millis),
        wall: Timestamp::from_millis(1_700_000_000_000 + millis as i64),
    }
}

/// The refusal of a generation that is not the current one.
pub(super) fn passed(claimed: Option<i32>, current: i32) -> GroupError {
    GroupError::IllegalGeneration {
        claimed: claimed.map(Generation::from),
        current: current.into(),
    }
}

pub(super) fn claim(member_id: &str, generation: impl Into<Generation>) -> MemberClaim {
    MemberClaim {
        member_id: member_id.into(),
        instance_id: None,
        generation: Some(generation.into()),
    }
}
