//! The coordinator over a store whose syncs the test performs: what waits for a sync, what survives a power cut, what a
//! full disk does, and retention.

use std::sync::{Arc, Mutex};

use model::{LeaderEpoch, PartitionId, TopicId, TopicName};
use storage::io::Clock;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::broker::config::GroupConfig;
use crate::broker::state_log::sim::SimStore;

const DAY_MS: u64 = 24 * 3600 * 1000;
/// The length of a WAL file: half of it is the longest append.
const FILE_BYTES: u64 = 2 << 20;

#[derive(Debug, Default)]
struct TestClock(Mutex<u64>);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        moment(*self.0.lock().expect("no panic")).wall
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(*self.0.lock().expect("no panic"))
    }

    fn boot(&self) -> Option<storage::io::Boot> {
        None
    }
}

pub(super) struct World {
    pub(super) coordinator: Coordinator,
    config: GroupConfig,
    /// On whose account its groups are.
    pub(super) owner: Option<&'static str>,
    clock: Arc<TestClock>,
    pub(super) log: SimStore,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl World {
    pub(super) fn new() -> World {
        World::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut GroupConfig)) -> World {
        World::with_files(FILE_BYTES, change)
    }

    /// Over WAL files of this length.
    pub(super) fn with_files(file_bytes: u64, change: impl FnOnce(&mut GroupConfig)) -> World {
        let mut config = GroupConfig {
            initial_rebalance_delay: Duration::ZERO,
            ..GroupConfig::default()
        };
        change(&mut config);
        let clock = Arc::new(TestClock::default());
        let log = SimStore::new(Arc::clone(&clock) as Arc<dyn Clock>, file_bytes);
        World::open(config, log, clock)
    }

    fn open(config: GroupConfig, log: SimStore, clock: Arc<TestClock>) -> World {
        let (records, replayed) = log.open();
        let (coordinator, task) = Coordinator::open(
            config.clone(),
            subscribed_topics,
            records,
            replayed,
            clock.clone(),
        )
        .expect("readable records");
        let (stop, shutdown) = watch::channel(false);
        World {
            coordinator,
            config,
            owner: None,
            clock,
            log,
            stop,
            task: tokio::spawn(task.run(shutdown)),
        }
    }

    /// A power cut and a new start: only what was synced is there.
    pub(super) fn cut(self) -> World {
        self.task.abort();
        World::open(self.config, self.log.cut(), self.clock)
    }

    /// The same with other settings.
    pub(super) fn cut_with(mut self, change: impl FnOnce(&mut GroupConfig)) -> World {
        change(&mut self.config);
        self.cut()
    }

    pub(super) async fn pass(&self, millis: u64) {
        *self.clock.0.lock().expect("no panic") += millis;
        self.coordinator.run_due().await.expect("running");
    }

    pub(super) async fn join(&self, group: &str, ask: Ask) -> Result<Joined, JoinRefused> {
        self.coordinator
            .join(group, self.owner, ask.old_version().request)
            .await
    }

    /// The only member of a stable group.
    pub(super) async fn member(&self, group: &str) -> String {
        let joined = self
            .join(group, ask("").topics(&["read"]))
            .await
            .expect("a generation");
        self.sync(group, &joined.member_id, joined.generation)
            .await
            .expect("an assignment");
        joined.member_id
    }

    async fn sync(
        &self,
        group: &str,
        member_id: &str,
        generation: impl Into<Generation>,
    ) -> Result<Synced, GroupError> {
        let request = SyncRequest {
            member_id: member_id.into(),
            instance_id: None,
            generation: Some(generation.into()),
            protocol_type: None,
            protocol: None,
            assignments: vec![(member_id.into(), Bytes::from_static(b"all"))],
        };
        self.coordinator.sync(group, request).await
    }

    pub(super) async fn commit(
        &self,
        group: &str,
        topic: &str,
        offset: u64,
    ) -> Result<(), GroupError> {
        self.commit_as(group, MemberClaim::default(), topic, offset, None)
            .await
    }

    async fn commit_as(
        &self,
        group: &str,
        claim: MemberClaim,
        topic: &str,
        offset: u64,
        retention: Option<Duration>,
    ) -> Result<(), GroupError> {
        let results = self
            .coordinator
            .commit(
                group,
                self.owner,
                &claim,
                vec![offset_commit(topic, offset)],
                retention,
            )
            .await?;
        results
            .into_iter()
            .next()
            .expect("one result for one commit")
    }

    pub(super) fn fetch(&self, group: &str, topic: &str) -> Option<u64> {
        let fetched = self.coordinator.fetch(group, &[place(topic)]).remove(0)?;
        Some(u64::try_from(fetched.offset.to_wire()).expect("an offset"))
    }

    fn groups(&self) -> Vec<String> {
        self.coordinator
            .list()
            .into_iter()
            .map(|listing| format!("{} {}", listing.id, listing.state.name()))
            .collect()
    }
}

pub(super) fn place(topic: &str) -> (TopicName, PartitionId) {
    (
        TopicName::parse(topic).expect("a valid name"),
        PartitionId::new(0),
    )
}

/// Each topic's id in these tests follows from its name.
pub(super) fn topic_id(topic: &str) -> TopicId {
    TopicId::from_bytes([topic.as_bytes()[0]; 16])
}

pub(super) fn offset_commit(topic: &str, offset: u64) -> OffsetCommit {
    let (name, partition) = place(topic);
    OffsetCommit {
        topic: name,
        topic_id: topic_id(topic),
        partition,
        offset: CommittedPlace::from_wire(offset as i64),
        leader_epoch: Some(LeaderEpoch::new(4)),
        metadata: "note".into(),
    }
}

/// Lets every task do what it can without time passing.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_commit_is_answered_and_visible_only_after_its_sync() {
    let world = World::new();
    world.log.hold();
    let commit = world.commit("g", "t", 5);
    tokio::pin!(commit);
    tokio::select! {
        biased;
        _ = &mut commit => panic!("answered before the sync"),
        () = settle() => {}
    }
    assert_eq!(world.fetch("g", "t"), None);
    world.log.sync();
    assert_eq!(commit.await, Ok(()));
    assert_eq!(world.fetch("g", "t"), Some(5));
}

#[tokio::test]
async fn a_power_cut_takes_back_only_what_nobody_was_told() {
    let world = World::new();
    world.commit("g", "t", 5).await.expect("durable");
    world.log.hold();
    let commit = world.commit("g", "t", 9);
    tokio::select! {
        biased;
        _ = commit => panic!("answered before the sync"),
        () = settle() => {}
    }
    let world = world.cut();
    assert_eq!(world.fetch("g", "t"), Some(5));
    let fetched = world.coordinator.fetch_all("g");
    assert_eq!(
        (
            fetched.len(),
            fetched[0].2.metadata.as_str(),
            fetched[0].2.leader_epoch
        ),
        (1, "note", Some(LeaderEpoch::new(4)))
    );
}

#[tokio::test]
async fn a_commit_whose_client_went_away_still_counts() {
    let world = World::new();
    world.log.hold();
    tokio::select! {
        biased;
        _ = world.commit("g", "t", 5) => panic!("answered before the sync"),
        () = settle() => {}
    }
    world.log.sync();
    settle().await;
    assert_eq!(world.fetch("g", "t"), Some(5));
}

#[tokio::test]
async fn joins_and_assignments_are_answered_only_after_their_sync() {
    let world = World::new();
    world.log.hold();
    let join = world.join("g", ask(""));
    tokio::pin!(join);
    tokio::select! {
        biased;
        _ = &mut join => panic!("answered before the sync"),
        () = settle() => {}
    }
    world.log.sync();
    let joined = join.await.expect("a generation");
    let sync = world.sync("g", &joined.member_id, 1);
    tokio::pin!(sync);
    tokio::select! {
        biased;
        _ = &mut sync => panic!("answered before the sync"),
        () = settle() => {}
    }
    let early = world.sync("g", &joined.member_id, 1);
    tokio::pin!(early);
    tokio::select! {
        biased;
        _ = &mut early => panic!("a second answer overtook the sync that it rests on"),
        () = settle() => {}
    }
    world.log.sync();
    assert_eq!(sync.await.expect("an assignment").assignment, "all");
    assert_eq!(early.await.expect("an assignment").assignment, "all");
}

#[tokio::test]
async fn groups_generations_and_assignments_survive_a_restart() {
    let world = World::new();
    let member = world.member("g").await;
    let world = world.cut();
    assert_eq!(world.groups(), ["g Stable"]);
    assert_eq!(world.coordinator.heartbeat("g", &claim(&member, 1)), Ok(()));
    assert_eq!(
        world
            .sync("g", &member, 1)
            .await
            .expect("the assignment")
            .assignment,
        "all"
    );
    assert_eq!(
        world.commit_as("g", claim(&member, 1), "t", 5, None).await,
        Ok(())
    );
    world.pass(SESSION).await;
    assert_eq!(world.groups(), ["g Empty"]);
    let rejoined = world.join("g", ask("")).await.expect("a generation");
    assert_eq!(rejoined.generation, 3);
    let world = world.cut();
    let rejoined = world.join("g", ask("")).await.expect("a generation");
    assert_eq!(
        rejoined.generation, 4,
        "also after a generation that never became stable"
    );
}

#[tokio::test]
async fn sessions_end_on_time_without_anyone_asking() {
    let world = World::new();
    let member = world.member("g").await;
    world.pass(SESSION - 1).await;
    assert_eq!(world.coordinator.heartbeat("g", &claim(&member, 1)), Ok(()));
    world.pass(SESSION - 1).await;
    assert_eq!(world.groups(), ["g Stable"]);
    world.pass(1).await;
    assert_eq!(world.groups(), ["g Empty"]);
}

#[tokio::test]
async fn a_parked_join_is_answered_when_the_others_time_is_up() {
    let world = World::new();
    let member = world.member("g").await;
    let second = world.join("g", ask("").topics(&["read"]));
    tokio::pin!(second);
    tokio::select! {
        biased;
        _ = &mut second => panic!("the first member has not rejoined"),
        () = settle() => {}
    }
    assert_eq!(
        world.coordinator.heartbeat("g", &claim(&member, 1)),
        Err(GroupError::RebalanceInProgress)
    );
    world.pass(SESSION).await;
    assert_eq!(second.await.expect("a generation").members.len(), 1);
}

#[tokio::test]
async fn a_full_disk_refuses_commits_and_keeps_what_was() {
    let world = World::new();
    world.commit("g", "t", 5).await.expect("durable");
    world.log.set_full(true);
    assert_eq!(
        world.commit("g", "t", 6).await,
        Err(GroupError::NotAvailable)
    );
    assert_eq!(
        world.coordinator.delete("g").await,
        Err(GroupError::NotAvailable)
    );
    assert_eq!(world.fetch("g", "t"), Some(5));
    world.log.set_full(false);
    assert_eq!(
        world.commit("g", "t", 7).await,
        Ok(()),
        "the refused deletion left the group alive"
    );
    assert_eq!(world.fetch("g", "t"), Some(7));
}

#[tokio::test]
async fn a_full_disk_refuses_a_members_commit_without_a_rebalance() {
    let world = World::new();
    let member = world.member("g").await;
    world.log.set_full(true);
    let commit = world.commit_as("g", claim(&member, 1), "t", 5, None).await;
    assert_eq!(commit, Err(GroupError::NotAvailable));
    assert_eq!(world.coordinator.heartbeat("g", &claim(&member, 1)), Ok(()));
}

#[tokio::test]
async fn a_full_disk_stops_no_group_for_longer_than_it_lasts() {
    let world = World::new();
    world.log.set_full(true);
    let refused = world
        .join("g", ask("").topics(&["read"]))
        .await
        .expect_err("nothing can be promised");
    assert_eq!(refused.error, GroupError::NotAvailable);
    world.log.set_full(false);
    let member = refused.member_id;
    let joined = world
        .join("g", ask(&member).topics(&["read"]))
        .await
        .expect("a generation");
    world.log.set_full(true);
    assert_eq!(
        world.sync("g", &member, joined.generation).await,
        Err(GroupError::NotAvailable)
    );
    world.log.set_full(false);
    let joined = world
        .join("g", ask(&member).topics(&["read"]))
        .await
        .expect("the next generation");
    assert_eq!(
        world
            .sync("g", &member, joined.generation)
            .await
            .expect("an assignment")
            .assignment,
        "all"
    );
}

#[tokio::test]
async fn ids_and_timeouts_outside_the_bounds_are_refused() {
    let world = World::new();
    let error = |result: Result<Joined, JoinRefused>| result.expect_err("refused").error;
    assert_eq!(
        error(world.join("", ask("")).await),
        GroupError::InvalidGroupId
    );
    let invalid = |asked| GroupError::InvalidSessionTimeout {
        asked: Duration::from_millis(asked),
        min: Duration::from_secs(6),
        max: Duration::from_secs(1800),
    };
    assert_eq!(
        error(world.join("g", ask("").session_ms(5_999)).await),
        invalid(5_999)
    );
    assert_eq!(
        error(world.join("g", ask("").session_ms(1_800_001)).await),
        invalid(1_800_001)
    );
    assert_eq!(
        error(world.join("g", ask("somebody")).await),
        GroupError::unknown("somebody")
    );
    assert!(world.join("g", ask("").session_ms(6_000)).await.is_ok());
    assert_eq!(
        world.sync("nobody", "m", 1).await,
        Err(GroupError::unknown("m"))
    );
    assert_eq!(
        world.coordinator.heartbeat("nobody", &claim("m", 1)),
        Err(GroupError::unknown("m"))
    );
    assert_eq!(
        world.coordinator.heartbeat("", &claim("m", 1)),
        Err(GroupError::InvalidGroupId)
    );
    let leaver = Leaver {
        member_id: "m".into(),
        instance_id: None,
    };
    assert_eq!(
        world.coordinator.leave("nobody", vec![leaver]).await,
        Ok(vec![Err(GroupError::unknown("m"))])
    );
    assert_eq!(
        world.groups(),
        ["g CompletingRebalance"],
        "none of the others came into being"
    );
}

#[tokio::test]
async fn member_ids_begin_with_the_clients_name() {
    let world = World::new();
    let joined = world.join("g", ask("")).await.expect("a generation");
    assert!(joined.member_id.starts_with("client-"));
    let joined = world
        .join("s", ask("").instance("left"))
        .await
        .expect("a generation");
    assert!(joined.member_id.starts_with("left-"));
    let mut long = ask("");
    long.request.client.client_id = "ä".repeat(10_000);
    let joined = world.join("l", long).await.expect("a generation");
    assert!(joined.member_id.len() < 300);
}

#[tokio::test]
async fn commits_of_members_and_outsiders_follow_the_groups_rules() {
    let world = World::new();
    assert_eq!(
        world.commit_as("g", claim("m", 1), "t", 5, None).await,
        Err(GroupError::NotFound)
    );
    assert_eq!(world.groups(), [""; 0], "a refused commit makes no group");
    let member = world.member("g").await;
    assert_eq!(
        world.commit("g", "t", 5).await,
        Err(GroupError::unknown(""))
    );
    assert_eq!(
        world.commit_as("g", claim(&member, 1), "t", 5, None).await,
        Ok(())
    );
    assert_eq!(
        world.commit_as("g", claim(&member, 2), "t", 6, None).await,
        Err(passed(Some(2), 1))
    );
    assert_eq!(world.fetch("g", "t"), Some(5));
}

#[tokio::test]
async fn metadata_above_the_limit_refuses_its_partition_only() {
    let world = World::new();
    let commit = |topic: &str, bytes: usize| OffsetCommit {
        metadata: "x".repeat(bytes),
        ..offset_commit(topic, 5)
    };
    let commits = vec![commit("a", 4096), commit("b", 4097)];
    let results = world
        .coordinator
        .commit("g", None, &MemberClaim::default(), commits, None)
        .await;
    let too_large = GroupError::MetadataTooLarge {
        chars: 4097,
        chars_max: 4096,
    };
    assert_eq!(results, Ok(vec![Ok(()), Err(too_large.clone())]));
    assert_eq!(
        (world.fetch("g", "a"), world.fetch("g", "b")),
        (Some(5), None)
    );
    let results = world
        .coordinator
        .commit(
            "g",
            None,
            &MemberClaim::default(),
            vec![commit("b", 4097)],
            None,
        )
        .await;
    assert_eq!(results, Ok(vec![Err(too_large)]));
}

#[tokio::test]
async fn a_group_is_deleted_with_its_offsets_for_good() {
    let world = World::new();
    let member = world.member("g").await;
    world
        .commit_as("g", claim(&member, 1), "t", 5, None)
        .await
        .expect("durable");
    assert_eq!(
        world.coordinator.delete("g").await,
        Err(GroupError::NonEmpty {
            state: GroupState::Stable
        })
    );
    assert_eq!(
        world.coordinator.delete("nobody").await,
        Err(GroupError::NotFound)
    );
    world
        .coordinator
        .leave(
            "g",
            vec![Leaver {
                member_id: member,
                instance_id: None,
            }],
        )
        .await
        .expect("left");
    assert_eq!(world.coordinator.delete("g").await, Ok(()));
    assert_eq!((world.groups(), world.fetch("g", "t")), (vec![], None));
    let world = world.cut();
    assert_eq!((world.groups(), world.fetch("g", "t")), (vec![], None));
}

#[tokio::test]
async fn single_offsets_are_deleted_unless_their_topic_is_read() {
    let world = World::new();
    let member = world.member("g").await;
    for topic in ["read", "other", "third"] {
        world
            .commit_as("g", claim(&member, 1), topic, 5, None)
            .await
            .expect("durable");
    }
    let wanted = [place("read"), place("other"), place("never")];
    let results = world.coordinator.delete_offsets("g", &wanted).await;
    assert_eq!(
        results,
        Ok(vec![Err(GroupError::SubscribedToTopic), Ok(()), Ok(())])
    );
    assert_eq!(
        world.coordinator.delete_offsets("nobody", &wanted).await,
        Err(GroupError::NotFound)
    );
    let world = world.cut();
    assert_eq!(
        (
            world.fetch("g", "read"),
            world.fetch("g", "other"),
            world.fetch("g", "third")
        ),
        (Some(5), None, Some(5))
    );
}

#[tokio::test]
async fn a_deleted_topic_takes_its_offsets_along() {
    let world = World::new();
    world.commit("a", "gone", 5).await.expect("durable");
    world.commit("a", "kept", 5).await.expect("durable");
    world.commit("b", "gone", 5).await.expect("durable");
    world
        .coordinator
        .forget_topic(topic_id("gone"))
        .await
        .expect("durable");
    let world = world.cut();
    assert_eq!(
        (
            world.fetch("a", "gone"),
            world.fetch("b", "gone"),
            world.fetch("a", "kept")
        ),
        (None, None, Some(5))
    );
}

#[tokio::test]
async fn a_start_finishes_what_a_topics_deletion_had_left() {
    let world = World::new();
    world.commit("g", "gone", 5).await.expect("durable");
    world.commit("g", "kept", 5).await.expect("durable");
    world.commit("g", "anew", 5).await.expect("durable");
    let current = |topic: &TopicName| match topic.as_str() {
        "kept" => Some(topic_id("kept")),
        "anew" => Some(topic_id("other")),
        _ => None,
    };
    world
        .coordinator
        .forget_other_topics(current)
        .await
        .expect("durable");
    assert_eq!(
        (
            world.fetch("g", "gone"),
            world.fetch("g", "kept"),
            world.fetch("g", "anew")
        ),
        (None, Some(5), None)
    );
}

#[tokio::test]
async fn offsets_outlive_their_group_by_the_retention() {
    let world = World::new();
    let member = world.member("g").await;
    world
        .commit_as("g", claim(&member, 1), "read", 5, None)
        .await
        .expect("durable");
    for _ in 0..8 * 3 {
        world.pass(DAY_MS / 3).await;
        world.coordinator.expire_offsets().await.expect("running");
        // The session ended in the first step; what counts is the time since then.
        if world.clock.monotonic() < Duration::from_millis(7 * DAY_MS) {
            assert_eq!(world.fetch("g", "read"), Some(5));
        }
    }
    assert_eq!((world.groups(), world.fetch("g", "read")), (vec![], None));
    assert_eq!(world.cut().groups(), [""; 0]);
}

#[tokio::test]
async fn a_running_group_keeps_the_offsets_of_what_it_reads_and_loses_old_others() {
    let world = World::new();
    let member = world.member("g").await;
    world
        .commit_as("g", claim(&member, 1), "read", 5, None)
        .await
        .expect("durable");
    world
        .commit_as("g", claim(&member, 1), "other", 5, None)
        .await
        .expect("durable");
    *world.clock.0.lock().expect("no panic") += 8 * DAY_MS;
    world
        .coordinator
        .heartbeat("g", &claim(&member, 1))
        .expect("nobody has looked at the time yet");
    world.coordinator.expire_offsets().await.expect("running");
    assert_eq!(
        (world.fetch("g", "read"), world.fetch("g", "other")),
        (Some(5), None)
    );
}

#[tokio::test]
async fn a_standalone_consumers_offsets_go_by_their_commits_and_by_their_own_retention() {
    let world = World::new();
    world.commit("g", "old", 5).await.expect("durable");
    let hour = Some(Duration::from_secs(3600));
    world
        .commit_as("g", MemberClaim::default(), "brief", 5, hour)
        .await
        .expect("durable");
    world.pass(4 * DAY_MS).await;
    world.commit("g", "new", 5).await.expect("durable");
    world.coordinator.expire_offsets().await.expect("running");
    assert_eq!(
        (
            world.fetch("g", "old"),
            world.fetch("g", "brief"),
            world.fetch("g", "new")
        ),
        (Some(5), None, Some(5))
    );
    world.pass(3 * DAY_MS).await;
    world.coordinator.expire_offsets().await.expect("running");
    assert_eq!(
        (world.fetch("g", "old"), world.fetch("g", "new")),
        (None, Some(5))
    );
    world.pass(4 * DAY_MS).await;
    world.coordinator.expire_offsets().await.expect("running");
    assert_eq!(world.groups(), [""; 0]);
}

#[tokio::test]
async fn descriptions_and_lists_show_every_group() {
    let world = World::new();
    world.commit("b-standalone", "t", 5).await.expect("durable");
    let member = world.member("a-consumers").await;
    let listed: Vec<_> = world
        .coordinator
        .list()
        .into_iter()
        .map(|listing| (listing.id, listing.protocol_type))
        .collect();
    assert_eq!(
        listed,
        [
            ("a-consumers".into(), "consumer".into()),
            ("b-standalone".into(), String::new())
        ]
    );
    let described = world
        .coordinator
        .describe("a-consumers")
        .expect("it exists");
    assert_eq!(
        (
            described.members[0].member_id.as_str(),
            described.members[0].assignment.as_ref()
        ),
        (member.as_str(), b"all".as_slice())
    );
    assert_eq!(world.coordinator.describe("nobody"), None);
}

#[tokio::test]
async fn a_shutdown_delivers_what_is_appended_and_refuses_what_is_new() {
    let world = World::new();
    world.log.hold();
    let mut commit = Box::pin(world.commit("g", "t", 5));
    tokio::select! {
        biased;
        _ = &mut commit => panic!("answered before the sync"),
        () = settle() => {}
    }
    world.stop.send_replace(true);
    settle().await;
    world.log.sync();
    assert_eq!(commit.as_mut().await, Ok(()));
    drop(commit);
    assert_eq!(
        world.commit("g", "t", 6).await,
        Err(GroupError::NotAvailable)
    );
    world.task.await.expect("the task ends by itself");
}

#[tokio::test]
async fn many_members_at_once_become_one_generation() {
    let world = World::new();
    let mut joins = Vec::new();
    for _ in 0..200 {
        let coordinator = world.coordinator.clone();
        let mut request = ask("").old_version().request;
        joins.push(tokio::spawn(async move {
            loop {
                match coordinator.join("g", None, request.clone()).await {
                    Ok(joined) => {
                        request.member_id.clone_from(&joined.member_id);
                        let assignments = joined
                            .members
                            .iter()
                            .map(|member| {
                                (
                                    member.member_id.clone(),
                                    Bytes::from(member.member_id.clone()),
                                )
                            })
                            .collect();
                        let sync = SyncRequest {
                            member_id: joined.member_id.clone(),
                            instance_id: None,
                            generation: Some(joined.generation),
                            protocol_type: None,
                            protocol: None,
                            assignments,
                        };
                        if let Ok(synced) = coordinator.sync("g", sync).await {
                            assert_eq!(synced.assignment, joined.member_id);
                            let claim = claim(&joined.member_id, joined.generation);
                            while coordinator.heartbeat("g", &claim).is_ok() {
                                if coordinator.describe("g").expect("it exists").members.len()
                                    == 200
                                {
                                    return joined.generation;
                                }
                                tokio::task::yield_now().await;
                            }
                        }
                    }
                    Err(refused) => panic!("{refused:?}"),
                }
            }
        }));
    }
    let mut generations = Vec::new();
    for join in joins {
        generations.push(join.await.expect("no panic"));
    }
    assert!(generations.iter().all(|generation| *generation >= 1));
    assert_eq!(
        world
            .coordinator
            .describe("g")
            .expect("it exists")
            .members
            .len(),
        200
    );
}

/// What was logged at the level of information, as it is written.
#[derive(Clone, Default)]
struct LogLines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl LogLines {
    fn count(&self, text: &str) -> usize {
        let lines = self.0.lock().expect("no panic");
        String::from_utf8_lossy(&lines).matches(text).count()
    }
}

#[tokio::test]
async fn a_rebalance_is_one_line_of_the_log_and_so_is_the_last_members_going() {
    // With one subscriber in the process, a place that logs and is first reached by another test's thread asks that thread's
    // subscriber, finds none, and stays silent for all. With two it asks both.
    let other = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO);
    let _other = tracing::Dispatch::new(other.with_writer(std::io::sink).finish());
    let lines = LogLines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let counts = || {
        (
            lines.count("group rebalanced"),
            lines.count("group is empty"),
        )
    };
    let world = World::new();
    let member = world.member("g").await;
    assert_eq!(counts(), (1, 0));
    world.sync("g", &member, 1).await.expect("an assignment");
    let commit = world.commit_as("g", claim(&member, 1), "t", 5, None);
    commit.await.expect("durable");
    assert_eq!(counts(), (1, 0), "nothing has changed");
    let world = world.cut();
    assert_eq!(counts(), (1, 0), "what is read back is no news");
    world.pass(SESSION).await;
    assert_eq!(counts(), (1, 1));
    world.log.set_full(true);
    world.join("g", ask("")).await.expect_err("no room");
    assert_eq!(counts(), (1, 1), "what was withdrawn never was");
}
