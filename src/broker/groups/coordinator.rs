//! All consumer groups: what clients ask of them, as steps of each group's machine.
//! Callers: the fronts, through `Broker::groups`; `Broker` for topics that go.
//! Invariants: those of `coordination`, on which the groups run: what a request is told leaves only when all that its group
//! had appended by then is durable, and so does a committed offset for fetches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use storage::Purpose;
use storage::io::Clock;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::exchange::{
    GroupDescription, GroupError, GroupState, JoinRefused, JoinRequest, Joined, Leaver,
    MemberClaim, Moment, SyncRequest, Synced, Ticket,
};
use super::group::{Group, GroupSettings, SubscribedTopics};
use super::ledger::{Bound, Ledger};
use super::machine::{GroupMachine, Parked, growth_of};
use super::offsets::OffsetChange;
use super::record::{GroupsError, Record, member_bytes};
use crate::broker::config::GroupConfig;
use crate::broker::coordination::{self, Runtime, RuntimeTask, Shape, Stopped};
use crate::broker::state_log::{Replayed, StateLog};

/// Groups are spread over so many shards, and so many of each shard's steps may wait for their sync.
const SHAPE: Shape = Shape {
    shards: 8,
    places: 512,
};
/// A new member id begins with at most this much of the client's own name.
const ID_PREFIX_BYTES_MAX: usize = 255;

/// One group's place in memory.
pub(super) type Cell = coordination::Cell<GroupMachine>;

/// All consumer groups. Cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    pub(super) runtime: Runtime<GroupMachine>,
    shared: Arc<Shared>,
}

/// The coordinator's own work: it must be run for answers to leave and for time to pass.
pub struct CoordinatorTask {
    coordinator: Coordinator,
    task: RuntimeTask<GroupMachine>,
}

struct Shared {
    config: GroupConfig,
    subscribed_topics: SubscribedTopics,
    ledger: Arc<Ledger>,
    tickets: AtomicU64,
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// The group's id.
    pub id: String,
    /// The kind of group; empty for offsets without members.
    pub protocol_type: String,
    /// Where it is in its life.
    pub state: GroupState,
}

impl Coordinator {
    /// Reads back all groups. Members have one session timeout to be heard of again.
    pub fn open(
        config: GroupConfig,
        subscribed_topics: SubscribedTopics,
        log: StateLog<Record>,
        replayed: Replayed<Record>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Coordinator, CoordinatorTask), GroupsError> {
        let (runtime, task) = Runtime::new(SHAPE, log, clock);
        let shared = Shared {
            ledger: Arc::new(Ledger::new(config.held_max(), config.held_of_one_max)),
            config,
            subscribed_topics,
            tickets: AtomicU64::new(0),
        };
        let coordinator = Coordinator {
            runtime,
            shared: Arc::new(shared),
        };
        for record in replayed {
            coordinator.restore(record?);
        }
        for cell in coordinator.runtime.cells() {
            cell.restore(GroupMachine::restored);
        }
        coordinator.runtime.begin();
        let task = CoordinatorTask {
            coordinator: coordinator.clone(),
            task,
        };
        Ok((coordinator, task))
    }

    /// Joins a group, creating it for someone new, on the account of `owner` if there is one; returns when the generation is
    /// complete.
    pub async fn join(
        &self,
        group: &str,
        owner: Option<&str>,
        request: JoinRequest,
    ) -> Result<Joined, JoinRefused> {
        let member_id = request.member_id.clone();
        let refuse = |error| JoinRefused {
            error,
            member_id: member_id.clone(),
        };
        if group.is_empty() {
            return Err(refuse(GroupError::InvalidGroupId));
        }
        self.check_session_timeout(request.session_timeout)
            .map_err(refuse)?;
        let cell = if member_id.is_empty() {
            self.cell_or_new(group, owner)
                .ok_or(GroupError::MaxSizeReached)
                .map_err(refuse)?
        } else {
            self.cell(group)
                .ok_or_else(|| refuse(GroupError::unknown(&member_id)))?
        };
        let new_member_id = new_member_id(
            request
                .instance_id
                .as_deref()
                .unwrap_or(&request.client.client_id),
        );
        let (sender, answer) = oneshot::channel();
        let ticket = self.next_ticket();
        let protocol_type_bytes = request.protocol_type.len();
        // Only a static member's return stores the group before everyone has rejoined.
        let static_bytes = (request.instance_id.is_some() && member_id.is_empty())
            .then(|| new_member_id.len() + request_bytes(&request));
        let sizes = |machine: &GroupMachine| {
            let mut sizes = machine.small_records(protocol_type_bytes);
            sizes.extend(static_bytes.map(|bytes| machine.whole_record(bytes)));
            sizes
        };
        let join = |machine: &mut GroupMachine, now, step: &mut _| {
            let growth = machine.group.join_growth(&request, &new_member_id);
            let has_room = machine.grow(now, growth_of(growth));
            machine.park(ticket, Parked::Join(sender));
            machine.act(step, |group, effects| {
                if has_room {
                    group.join(now, request, new_member_id, ticket, effects);
                } else {
                    group.turn_away(now, &request.member_id, ticket, effects);
                }
            });
        };
        let joined = self.runtime.step(&cell, Purpose::State, sizes, join).await;
        joined.map_err(|stopped| refuse(stopped.into()))?;
        answer
            .await
            .unwrap_or_else(|_| Err(refuse(GroupError::NotAvailable)))
    }

    /// Fetches the member's assignment, or brings everyone's; returns when it is there.
    pub async fn sync(&self, group: &str, request: SyncRequest) -> Result<Synced, GroupError> {
        if group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let cell = self
            .cell(group)
            .ok_or_else(|| GroupError::unknown(&request.member_id))?;
        let assigned = request.assignments.iter();
        let assigned: usize = assigned.map(|(_, assignment)| assignment.len()).sum();
        let member_id = request.member_id.clone();
        let (sender, answer) = oneshot::channel();
        let ticket = self.next_ticket();
        let sizes = |machine: &GroupMachine| {
            let mut sizes = machine.small_records(0);
            if machine.group.is_led_by(&member_id) {
                sizes.push(machine.whole_record(assigned));
            }
            sizes
        };
        let sync = |machine: &mut GroupMachine, now, step: &mut _| {
            let growth = machine.group.sync_growth(&request);
            let has_room = machine.grow(now, growth_of(growth));
            machine.park(ticket, Parked::Sync(sender));
            machine.act(step, |group, effects| {
                if has_room {
                    group.sync(now, request, ticket, effects);
                } else {
                    group.turn_away_leader(now, &request.member_id, ticket, effects);
                }
            });
        };
        self.runtime
            .step(&cell, Purpose::State, sizes, sync)
            .await?;
        answer.await.unwrap_or(Err(GroupError::NotAvailable))
    }

    /// Keeps a member's session alive.
    pub fn heartbeat(&self, group: &str, claim: &MemberClaim) -> Result<(), GroupError> {
        if group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let cell = self
            .cell(group)
            .ok_or_else(|| GroupError::unknown(&claim.member_id))?;
        self.runtime
            .touch(&cell, |machine, now| machine.group.heartbeat(now, claim))
    }

    /// Removes members; one result for each, in order.
    pub async fn leave(
        &self,
        group: &str,
        leavers: Vec<Leaver>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let Some(cell) = self.cell(group) else {
            return Ok(leavers.iter().map(|leaver| Err(leaver.unknown())).collect());
        };
        let sizes = |machine: &GroupMachine| machine.small_records(0);
        let leave = |machine: &mut GroupMachine, now, step: &mut _| {
            machine.act(step, |group, effects| group.leave(now, &leavers, effects))
        };
        self.runtime
            .step(&cell, Purpose::State, sizes, leave)
            .await?
    }

    /// All groups, by id.
    pub fn list(&self) -> Vec<GroupListing> {
        let listing = |cell: &Arc<Cell>| {
            cell.read(|machine| GroupListing {
                id: cell.key().to_string(),
                protocol_type: machine.group.protocol_type().unwrap_or_default().to_owned(),
                state: machine.group.state(),
            })
        };
        let mut listings: Vec<_> = self.runtime.cells().iter().map(listing).collect();
        listings.retain(|listing| listing.state != GroupState::Dead);
        listings.sort_by(|a, b| a.id.cmp(&b.id));
        listings
    }

    /// One group, if it exists.
    pub fn describe(&self, group: &str) -> Option<GroupDescription> {
        let cell = self.cell(group)?;
        let description = cell.read(|machine| machine.group.describe());
        (description.state != GroupState::Dead).then_some(description)
    }

    /// The bounds on all groups, and what is held of each.
    pub fn bounds(&self) -> Vec<Bound> {
        self.shared.ledger.bounds()
    }

    /// The account of all groups.
    pub(in crate::broker) fn ledger(&self) -> &Arc<Ledger> {
        &self.shared.ledger
    }

    /// Applies every deadline that has passed.
    pub async fn run_due(&self) -> Result<(), GroupError> {
        Ok(self.runtime.run_due().await?)
    }

    // Small facts.

    pub(super) fn config(&self) -> &GroupConfig {
        &self.shared.config
    }

    fn check_session_timeout(&self, asked: Duration) -> Result<(), GroupError> {
        let config = self.config();
        let (min, max) = (config.session_timeout_min, config.session_timeout_max);
        if (min..=max).contains(&asked) {
            return Ok(());
        }
        Err(GroupError::InvalidSessionTimeout { asked, min, max })
    }

    fn settings(&self) -> GroupSettings {
        let config = self.config();
        let most = group_bytes_max(self.runtime.log().record_bytes_max());
        GroupSettings {
            initial_rebalance_delay: config.initial_rebalance_delay,
            size_max: config.size_max,
            bytes_max: config.bytes_max.min(most),
            subscribed_topics: self.shared.subscribed_topics,
        }
    }

    fn next_ticket(&self) -> Ticket {
        Ticket(self.shared.tickets.fetch_add(1, Relaxed))
    }

    pub(super) fn cell(&self, group: &str) -> Option<Arc<Cell>> {
        self.runtime.cell(group)
    }

    /// The group, or a new one; None if there may be no more.
    pub(super) fn cell_or_new(&self, group: &str, owner: Option<&str>) -> Option<Arc<Cell>> {
        let now = self.runtime.now();
        let id = Arc::from(group);
        self.runtime.cell_or(Arc::clone(&id), || {
            self.machine(id, owner.map(Arc::from), now).let_in(now)
        })
    }

    fn machine(&self, id: Arc<str>, owner: Option<Arc<str>>, now: Moment) -> GroupMachine {
        let ledger = Arc::clone(&self.shared.ledger);
        GroupMachine::new(id, owner, self.settings(), ledger, now)
    }

    /// Changes a group that is read back, however many there may be now.
    fn restore_group(&self, group: &str, change: impl FnOnce(&mut GroupMachine, Moment)) {
        let now = self.runtime.now();
        let id = Arc::from(group);
        let cell = self
            .runtime
            .cell_or(Arc::clone(&id), || Some(self.machine(id, None, now)))
            .expect("one was made if there was none");
        cell.restore(|machine| change(machine, now));
    }

    fn restore(&self, record: Record) {
        match record {
            Record::Group(id, Some(stored)) => self.restore_group(&id, |machine, now| {
                machine.group = Group::restore(self.settings(), stored, now);
            }),
            Record::Promise(id, Some(generation)) => self.restore_group(&id, |machine, _| {
                machine.group.restore_promise(generation);
            }),
            Record::Offset(id, topic, partition, committed) => {
                self.restore_group(&id, |machine, _| {
                    machine.offsets.apply(OffsetChange {
                        topic,
                        partition,
                        committed,
                    });
                });
            }
            Record::Owner(id, Some(owner)) => {
                self.restore_group(&id, |machine, _| machine.restore_owner(&owner));
            }
            Record::Group(_, None) | Record::Promise(_, None) | Record::Owner(_, None) => {}
        }
    }

    async fn keep_retention(&self) {
        loop {
            tokio::time::sleep(self.config().offsets_retention_check).await;
            if self.expire_offsets().await.is_err() {
                return;
            }
        }
    }
}

impl CoordinatorTask {
    /// Delivers answers and keeps the time until `shutdown` turns true; then delivers what is left and returns.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let CoordinatorTask { coordinator, task } = self;
        let running = task.run(shutdown.clone());
        let keeping_retention = async {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => {}
                () = coordinator.keep_retention() => {}
            }
        };
        tokio::join!(running, keeping_retention);
    }
}

impl From<Stopped> for GroupError {
    fn from(_: Stopped) -> GroupError {
        GroupError::NotAvailable
    }
}

/// How many bytes of members one group may have, where its record may be this long: half of it, for the longest names
/// beside them.
pub fn group_bytes_max(record_bytes_max: usize) -> usize {
    record_bytes_max / 2
}

/// What the member that a join is about takes in its group's record, beside its id.
fn request_bytes(request: &JoinRequest) -> usize {
    let instance_id = request.instance_id.as_deref();
    member_bytes("", instance_id, &request.client, &request.protocols, &[])
}

fn new_member_id(name: &str) -> String {
    let prefix = &name[..name.floor_char_boundary(ID_PREFIX_BYTES_MAX)];
    format!("{prefix}-{}", Uuid::new_v4())
}

pub(super) fn saturating_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
