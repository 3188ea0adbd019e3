//! A consumer that shares topics with the other members of its group (the classic protocol, eager rebalances).
//!
//! `GroupConsumer::poll` joins, rejoins and commits as need be; a task of its own sends heartbeats between polls, over
//! a connection that only the group's own requests use.

mod assignors;

pub use assignors::{Assignment, Assignor, Member};

use crate::admin::{
    Admin, Committed, OFFSET_COMMIT_VERSION_MAX, check_commit, commit_request, topic_partition,
};
use crate::consumer::{Consumer, ConsumerConfig, Fetched, Reset, Start};
use crate::error::check;
use crate::{Client, Connection, Error, Result};
use model::{Offset, TopicPartition};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use wire::messages::consumer_protocol::{
    AssignmentTopicPartition, ConsumerProtocolAssignment, ConsumerProtocolSubscription,
};
use wire::messages::heartbeat::HeartbeatRequest;
use wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use wire::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use wire::{Bytes, ErrorCode};

/// What consumers call their kind of group.
const PROTOCOL_TYPE: &str = "consumer";
/// Old enough for every client that may lead the group.
const SUBSCRIPTION_VERSION: i16 = 1;
/// How much longer than its rebalance a join may take.
const JOIN_SLACK: Duration = Duration::from_secs(5);

/// Settings of a group's member.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// The group.
    pub group: String,
    /// What to read.
    pub topics: Vec<String>,
    /// A name that outlives restarts of this member (KIP-345).
    pub instance_id: Option<String>,
    /// After this time without a heartbeat the member counts as gone.
    pub session_timeout: Duration,
    /// How long members have to rejoin.
    pub rebalance_timeout: Duration,
    /// The time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// How partitions may be shared, the favourite first.
    pub assignors: Vec<Assignor>,
    /// Commit what was polled this often, and before every rebalance; never, if none is given.
    pub auto_commit: Option<Duration>,
    /// How records are fetched. `reset` is also where a partition without a commit begins.
    pub consumer: ConsumerConfig,
}

impl GroupConfig {
    /// The defaults.
    pub fn new(
        group: impl Into<String>,
        topics: impl IntoIterator<Item = impl Into<String>>,
    ) -> GroupConfig {
        GroupConfig {
            group: group.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            instance_id: None,
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(60),
            heartbeat_interval: Duration::from_secs(3),
            assignors: vec![Assignor::Range, Assignor::RoundRobin],
            auto_commit: Some(Duration::from_secs(5)),
            consumer: ConsumerConfig {
                reset: Reset::Earliest,
                ..ConsumerConfig::default()
            },
        }
    }
}

/// A member of a consumer group.
#[derive(Debug)]
pub struct GroupConsumer {
    client: Client,
    config: GroupConfig,
    consumer: Consumer,
    member_id: String,
    membership: Option<Membership>,
    /// The join that is under way. It goes on between polls, so that a short poll does not hold up the others.
    joining: Option<Joining>,
    last_commit: Instant,
    /// Goes up with every assignment.
    rebalances: u64,
}

#[derive(Debug)]
struct Joining(JoinHandle<Result<Joined>>);

impl Drop for Joining {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a join needs.
#[derive(Debug)]
struct Joiner {
    client: Client,
    config: GroupConfig,
    member_id: String,
}

/// What came of a join.
#[derive(Debug)]
struct Joined {
    membership: Membership,
    partitions: Vec<(TopicPartition, Start)>,
}

/// What a member has while it belongs to a generation.
#[derive(Debug)]
struct Membership {
    identity: Identity,
    connection: Connection,
    pulse: Arc<Pulse>,
    heart: JoinHandle<()>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

#[derive(Clone, Debug)]
struct Identity {
    group: String,
    generation: i32,
    member_id: String,
    instance_id: Option<String>,
}

/// What the heartbeats found out.
#[derive(Debug, Default)]
struct Pulse {
    trouble: Mutex<Option<Trouble>>,
    changed: Notify,
}

#[derive(Clone, Debug)]
enum Trouble {
    /// A rebalance has begun: rejoin.
    Rebalance,
    /// The coordinator is gone or does not answer, or the generation is over: find the coordinator and rejoin.
    Rejoin,
    /// The group goes on without this member: rejoin as a new one.
    Lost,
    /// Another member took this one's name.
    Fatal(Error),
}

impl Pulse {
    fn trouble(&self) -> Option<Trouble> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn report(&self, trouble: Trouble) {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(trouble);
        self.changed.notify_one();
    }
}

impl GroupConsumer {
    /// A member that joins at its first poll.
    pub fn new(client: &Client, config: GroupConfig) -> GroupConsumer {
        GroupConsumer {
            client: client.separate(),
            consumer: Consumer::new(client, config.consumer.clone()),
            config,
            member_id: String::new(),
            membership: None,
            joining: None,
            last_commit: Instant::now(),
            rebalances: 0,
        }
    }

    /// Waits for records, at most for `timeout`; yields none after that, also while the group rebalances.
    /// What the last poll yielded counts as read now, and is committed if auto-commit is due.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<Fetched>> {
        let deadline = Instant::now() + timeout;
        loop {
            self.notice_trouble().await?;
            if self.membership.is_none() && !self.joined_by(deadline).await? {
                return Ok(Vec::new());
            }
            if self
                .config
                .auto_commit
                .is_some_and(|interval| self.last_commit.elapsed() >= interval)
            {
                self.commit_or_notice().await?;
            }
            let Some(membership) = &self.membership else {
                continue;
            };
            let pulse = membership.pulse.clone();
            if pulse.trouble().is_some() {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            tokio::select! {
                biased;
                () = pulse.changed.notified() => {}
                fetched = self.consumer.poll(left) => return fetched,
            }
        }
    }

    /// Ends the membership if the heartbeats brought news.
    async fn notice_trouble(&mut self) -> Result<()> {
        let Some(trouble) = self.membership.as_ref().and_then(|m| m.pulse.trouble()) else {
            return Ok(());
        };
        match trouble {
            Trouble::Fatal(error) => return Err(error),
            Trouble::Rebalance => {
                if self.config.auto_commit.is_some()
                    && let Err(error) = self.commit_all().await
                {
                    tracing::debug!(%error, "could not commit before the rebalance");
                }
            }
            Trouble::Lost => self.member_id.clear(),
            Trouble::Rejoin => {}
        }
        self.membership = None;
        self.consumer.unassign_all();
        Ok(())
    }

    /// Begins to join if need be, and waits for it until the deadline. Tells whether this member belongs to the group.
    async fn joined_by(&mut self, deadline: Instant) -> Result<bool> {
        let joining = self.joining.get_or_insert_with(|| {
            let joiner = Joiner {
                client: self.client.clone(),
                config: self.config.clone(),
                member_id: self.member_id.clone(),
            };
            Joining(tokio::spawn(joiner.join()))
        });
        let Ok(joined) = tokio::time::timeout_at(deadline.into(), &mut joining.0).await else {
            return Ok(false);
        };
        self.joining = None;
        // The task neither panics nor is it aborted while somebody waits for it.
        let joined = joined.map_err(|_| Error::Closed)??;
        self.member_id
            .clone_from(&joined.membership.identity.member_id);
        self.membership = Some(joined.membership);
        for (partition, start) in joined.partitions {
            self.consumer.assign(partition, start);
        }
        self.last_commit = Instant::now();
        self.rebalances += 1;
        Ok(true)
    }

    /// What this member reads now.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        let mut partitions: Vec<TopicPartition> = self.consumer.assignment().cloned().collect();
        partitions.sort_by_key(|p| (p.topic.to_string(), p.partition.to_wire()));
        partitions
    }

    /// How many assignments this member got so far.
    pub fn rebalances(&self) -> u64 {
        self.rebalances
    }

    /// The generation that this member belongs to, if it belongs to one.
    pub fn generation(&self) -> Option<i32> {
        self.membership.as_ref().map(|m| m.identity.generation)
    }

    /// The id that the group gave this member; empty before the first join.
    pub fn member_id(&self) -> &str {
        &self.member_id
    }

    /// The offset after the last record that `poll` yielded.
    pub fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.consumer.position(partition)
    }

    /// Goes on elsewhere in a partition that is assigned.
    pub fn seek(&mut self, partition: &TopicPartition, start: Start) {
        if self.consumer.assignment().any(|p| p == partition) {
            self.consumer.assign(partition.clone(), start);
        }
    }

    /// Commits everything that was polled.
    pub async fn commit_all(&mut self) -> Result<()> {
        let positions = self.consumer.positions();
        let committed = |(partition, offset)| {
            (
                partition,
                Committed {
                    offset,
                    metadata: String::new(),
                },
            )
        };
        let offsets: Vec<_> = positions.into_iter().map(committed).collect();
        self.commit(&offsets).await
    }

    /// Commits some offsets: each is the next record to be read.
    pub async fn commit(&mut self, offsets: &[(TopicPartition, Committed)]) -> Result<()> {
        self.last_commit = Instant::now();
        let Some(membership) = &self.membership else {
            return Err(Error::broker(
                ErrorCode::UnknownMemberId,
                format!("group {}", self.config.group),
                None,
            ));
        };
        if offsets.is_empty() {
            return Ok(());
        }
        let identity = &membership.identity;
        let mut request = commit_request(&identity.group, offsets);
        request.generation_id_or_member_epoch = identity.generation;
        request.member_id = identity.member_id.clone();
        request.group_instance_id = identity.instance_id.clone();
        let connection = &membership.connection;
        // Versions before 7 do not know names across restarts.
        let answer = connection
            .start(&request, OFFSET_COMMIT_VERSION_MAX)
            .await?
            .wait(Duration::ZERO)
            .await?;
        check_commit(&answer, &identity.group)
    }

    /// Auto-commit: what a rebalance or a new coordinator explains is left to the next join.
    async fn commit_or_notice(&mut self) -> Result<()> {
        let Err(error) = self.commit_all().await else {
            return Ok(());
        };
        tracing::debug!(%error, "could not commit");
        let trouble = trouble_of(&error);
        match (&self.membership, trouble) {
            (Some(membership), Some(trouble)) => {
                membership.pulse.report(trouble);
                Ok(())
            }
            _ if error.is_retriable() => Ok(()),
            _ => Err(error),
        }
    }

    /// Commits if auto-commit is on, and leaves the group, so that the others need not wait for the session to end.
    /// A member with a name across restarts stays: its place is kept for the session timeout.
    pub async fn close(mut self) -> Result<()> {
        let Some(membership) = &self.membership else {
            return Ok(());
        };
        let healthy = membership.pulse.trouble().is_none();
        let committed = match self.config.auto_commit.is_some() && healthy {
            true => self.commit_all().await,
            false => Ok(()),
        };
        let Some(membership) = self.membership.take() else {
            return committed;
        };
        if self.config.instance_id.is_none() {
            membership.leave().await?;
        }
        committed
    }
}

impl Joiner {
    /// Joins and syncs until an assignment is there, and looks up where to begin.
    async fn join(mut self) -> Result<Joined> {
        let begun = Instant::now();
        loop {
            let error = match self.join_once().await {
                Ok(joined) => return Ok(joined),
                Err(error) => error,
            };
            tracing::debug!(%error, group = self.config.group, "joining failed");
            let patience = self.client.config().retry_timeout + self.config.rebalance_timeout;
            match (error.code(), trouble_of(&error)) {
                (Some(ErrorCode::MemberIdRequired), _) => continue,
                (_, Some(Trouble::Lost)) => self.member_id.clear(),
                (_, Some(Trouble::Rebalance)) => {}
                (_, Some(Trouble::Rejoin)) if begun.elapsed() < patience => {
                    tokio::time::sleep(self.client.config().retry_backoff).await;
                }
                _ => return Err(error),
            }
        }
    }

    async fn join_once(&mut self) -> Result<Joined> {
        let coordinator = self.client.coordinator(&self.config.group).await?;
        let connection = self.client.connection(coordinator).await?;
        let joined = self.send_join(&connection).await?;
        let identity = Identity {
            group: self.config.group.clone(),
            generation: joined.generation_id,
            member_id: joined.member_id.clone(),
            instance_id: self.config.instance_id.clone(),
        };
        let assignments = match joined.leader == joined.member_id && !joined.skip_assignment {
            true => self.share(&joined).await?,
            false => Vec::new(),
        };
        let request = SyncGroupRequest {
            group_id: identity.group.clone(),
            generation_id: identity.generation,
            member_id: identity.member_id.clone(),
            group_instance_id: identity.instance_id.clone(),
            protocol_type: Some(PROTOCOL_TYPE.to_owned()),
            protocol_name: joined.protocol_name.clone(),
            assignments,
        };
        let longer = self.config.rebalance_timeout + JOIN_SLACK;
        let synced = connection
            .start(&request, i16::MAX)
            .await?
            .wait(longer)
            .await?;
        check(
            synced.error_code,
            || format!("group {}", identity.group),
            None,
        )?;
        let decode = |source| Error::Decode {
            key: wire::ApiKey::SyncGroup,
            source,
        };
        let assignment = wire::consumer::decode_assignment(synced.assignment).map_err(decode)?;
        // From now on the member has to show that it lives, also while it looks up where to begin.
        let membership = Membership::begin(identity, connection, &self.config);
        let partitions = self.starts(&assignment).await?;
        Ok(Joined {
            membership,
            partitions,
        })
    }

    async fn send_join(&mut self, connection: &Connection) -> Result<JoinGroupResponse> {
        let subscription = ConsumerProtocolSubscription {
            topics: self.config.topics.clone(),
            ..Default::default()
        };
        let metadata = wire::consumer::encode_subscription(&subscription, SUBSCRIPTION_VERSION)?;
        let protocol = |a: &Assignor| JoinGroupRequestProtocol {
            name: a.name().to_owned(),
            metadata: metadata.clone(),
        };
        let request = JoinGroupRequest {
            group_id: self.config.group.clone(),
            session_timeout_ms: millis(self.config.session_timeout),
            rebalance_timeout_ms: millis(self.config.rebalance_timeout),
            member_id: self.member_id.clone(),
            group_instance_id: self.config.instance_id.clone(),
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocols: self.config.assignors.iter().map(protocol).collect(),
            reason: None,
        };
        let longer = self.config.rebalance_timeout + JOIN_SLACK;
        let joined = connection
            .start(&request, i16::MAX)
            .await?
            .wait(longer)
            .await?;
        if joined.error_code == ErrorCode::MemberIdRequired.code() {
            self.member_id.clone_from(&joined.member_id);
        }
        check(
            joined.error_code,
            || format!("group {}", self.config.group),
            None,
        )?;
        self.member_id.clone_from(&joined.member_id);
        Ok(joined)
    }

    /// The leader's part: who reads what.
    async fn share(&self, joined: &JoinGroupResponse) -> Result<Vec<SyncGroupRequestAssignment>> {
        let name = joined.protocol_name.as_deref().unwrap_or_default();
        let assignor = Assignor::from_name(name).ok_or_else(|| {
            Error::Invalid(format!(
                "the group chose an assignor {name:?} that nobody offered"
            ))
        })?;
        let mut members = Vec::new();
        for member in &joined.members {
            let decode = |source| Error::Decode {
                key: wire::ApiKey::JoinGroup,
                source,
            };
            let subscription =
                wire::consumer::decode_subscription(member.metadata.clone()).map_err(decode)?;
            members.push(Member {
                id: member.member_id.clone(),
                instance_id: member.group_instance_id.clone(),
                topics: subscription.topics.into_iter().collect(),
            });
        }
        let topics: BTreeSet<&str> = members
            .iter()
            .flat_map(|m| m.topics.iter().map(String::as_str))
            .collect();
        let names: Vec<&str> = topics.into_iter().collect();
        let known = self.client.refresh(Some(&names)).await?;
        let count = |name: &&str| {
            let topic = known.topics.get(*name)?;
            Some((
                (*name).to_owned(),
                i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
            ))
        };
        let counts: BTreeMap<String, i32> = names.iter().filter_map(count).collect();
        let shares = assignor.assign(&members, &counts);
        shares
            .into_iter()
            .map(|(member_id, share)| encode_share(member_id, share))
            .collect()
    }

    /// Where to begin in each partition: where the group left off.
    async fn starts(
        &self,
        assignment: &ConsumerProtocolAssignment,
    ) -> Result<Vec<(TopicPartition, Start)>> {
        let topics = assignment.assigned_partitions.iter();
        let partitions: Vec<TopicPartition> = topics
            .flat_map(|t| {
                t.partitions
                    .iter()
                    .filter_map(|p| topic_partition(&t.topic, *p))
            })
            .collect();
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let topics: Vec<&str> = assignment
            .assigned_partitions
            .iter()
            .map(|t| t.topic.as_str())
            .collect();
        self.client.refresh(Some(&topics)).await?;
        let group = &self.config.group;
        let committed: HashMap<TopicPartition, Committed> = Admin::new(&self.client)
            .committed(group, Some(&partitions))
            .await?;
        let start = |partition: TopicPartition| match (
            committed.get(&partition),
            self.config.consumer.reset,
        ) {
            (Some(committed), _) => Ok((partition, Start::Offset(committed.offset))),
            (None, Reset::Earliest) => Ok((partition, Start::Earliest)),
            (None, Reset::Latest) => Ok((partition, Start::Latest)),
            (None, Reset::Fail) => Err(Error::Invalid(format!(
                "group {group} has no commit for {partition}"
            ))),
        };
        partitions.into_iter().map(start).collect()
    }
}

impl Membership {
    fn begin(identity: Identity, connection: Connection, config: &GroupConfig) -> Membership {
        let pulse = Arc::new(Pulse::default());
        let heart = tokio::spawn(beat(
            identity.clone(),
            connection.clone(),
            pulse.clone(),
            config.heartbeat_interval,
        ));
        Membership {
            identity,
            connection,
            pulse,
            heart,
        }
    }

    async fn leave(&self) -> Result<()> {
        let mut request = LeaveGroupRequest {
            group_id: self.identity.group.clone(),
            ..Default::default()
        };
        let version = self.connection.version_for::<LeaveGroupRequest>(i16::MAX)?;
        if version < 3 {
            request.member_id = self.identity.member_id.clone();
        } else {
            let member_id = self.identity.member_id.clone();
            request.members = vec![MemberIdentity {
                member_id,
                ..Default::default()
            }];
        }
        let answer = self
            .connection
            .start(&request, version)
            .await?
            .wait(Duration::ZERO)
            .await?;
        check(
            answer.error_code,
            || format!("group {}", self.identity.group),
            None,
        )
    }
}

/// Sends heartbeats until one of them brings news.
async fn beat(identity: Identity, connection: Connection, pulse: Arc<Pulse>, interval: Duration) {
    let request = HeartbeatRequest {
        group_id: identity.group.clone(),
        generation_id: identity.generation,
        member_id: identity.member_id.clone(),
        group_instance_id: identity.instance_id.clone(),
    };
    loop {
        tokio::time::sleep(interval).await;
        let result = match connection.call(&request).await {
            Ok(answer) => check(
                answer.error_code,
                || format!("group {}", identity.group),
                None,
            ),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::debug!(%error, group = identity.group, "heartbeat");
            let trouble = trouble_of(&error).unwrap_or(Trouble::Fatal(error));
            return pulse.report(trouble);
        }
    }
}

/// What an error means for the membership; none if it is not about that.
fn trouble_of(error: &Error) -> Option<Trouble> {
    match error.code() {
        Some(ErrorCode::RebalanceInProgress) => Some(Trouble::Rebalance),
        Some(ErrorCode::UnknownMemberId) => Some(Trouble::Lost),
        Some(
            ErrorCode::IllegalGeneration
            | ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress,
        ) => Some(Trouble::Rejoin),
        Some(_) => None,
        None => error.is_retriable().then_some(Trouble::Rejoin),
    }
}

fn encode_share(member_id: String, share: Assignment) -> Result<SyncGroupRequestAssignment> {
    let topics = share
        .into_iter()
        .map(|(topic, partitions)| AssignmentTopicPartition { topic, partitions });
    let assignment = ConsumerProtocolAssignment {
        assigned_partitions: topics.collect(),
        user_data: Some(Bytes::new()),
    };
    let assignment = wire::consumer::encode_assignment(&assignment, SUBSCRIPTION_VERSION)?;
    Ok(SyncGroupRequestAssignment {
        member_id,
        assignment,
    })
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
