//! What groups may hold: each bound refuses what grows past it and nothing else, and what goes makes room.

use super::coordinator::{World, offset_commit, place};
use super::*;

fn used(world: &World, setting: &str) -> u64 {
    let bounds = world.coordinator.bounds();
    let bound = bounds.iter().find(|bound| bound.setting == setting);
    bound.expect("a bound").used
}

fn with_metadata(member_id: &str, bytes: usize) -> Ask {
    let metadata = "m".repeat(bytes);
    ask(member_id).protocols(&[("range", &metadata)])
}

async fn commit(world: &World, group: &str, topic: &str, text: &str) -> Result<(), GroupError> {
    let commit = OffsetCommit {
        metadata: text.into(),
        ..offset_commit(topic, 5)
    };
    let claim = MemberClaim::default();
    let results = world
        .coordinator
        .commit(group, world.owner, &claim, vec![commit], None);
    results.await?.remove(0)
}

async fn sync_all(
    world: &World,
    group: &str,
    joined: &Joined,
    assignment: usize,
) -> Result<Synced, GroupError> {
    let request = SyncRequest {
        member_id: joined.member_id.clone(),
        instance_id: None,
        generation: Some(joined.generation),
        protocol_type: None,
        protocol: None,
        assignments: vec![(joined.member_id.clone(), vec![b'a'; assignment].into())],
    };
    world.coordinator.sync(group, request).await
}

#[tokio::test]
async fn no_more_groups_are_made_than_may_be() {
    let world = World::with(|config| config.groups_max = 2);
    world.commit("a", "t", 1).await.expect("room");
    world.member("b").await;
    let refused = world.join("c", ask("")).await.expect_err("no room");
    assert_eq!(refused.error, GroupError::MaxSizeReached);
    let refused = world.commit("c", "t", 1).await;
    assert_eq!(refused, Err(GroupError::OffsetsMaxReached));
    world.commit("a", "u", 1).await.expect("not a new one");
    assert_eq!(used(&world, "groups.max"), 2);
    world.coordinator.delete("a").await.expect("empty");
    world.commit("c", "t", 1).await.expect("room again");
}

#[tokio::test]
async fn a_principals_groups_are_bounded_whoever_uses_them_and_after_a_start_too() {
    let mut world = World::with(|config| {
        config.held_of_one_max.groups = 2;
        config.held_of_one_max.offsets = 3;
    });
    world.owner = Some("mallory");
    world.commit("a", "t", 1).await.expect("room");
    world.member("b").await;
    let refused = world.join("c", ask("")).await.expect_err("no room");
    assert_eq!(refused.error, GroupError::MaxSizeReached);
    let refused = world.commit("c", "t", 1).await;
    assert_eq!(refused, Err(GroupError::OffsetsMaxReached));
    // Others are not hindered, but for what they put into the groups of the first.
    world.owner = Some("alice");
    world.commit("c", "t", 1).await.expect("room");
    for topic in ["u", "v"] {
        world.commit("a", topic, 1).await.expect("room");
    }
    let refused = world.commit("a", "w", 1).await;
    assert_eq!(refused, Err(GroupError::OffsetsMaxReached));
    world.commit("c", "w", 1).await.expect("room");
    assert_eq!(used(&world, "groups.per.principal.max"), 2);
    assert_eq!(used(&world, "offsets.per.principal.max"), 3);
    // A start reads it back.
    let mut world = world.cut();
    assert_eq!(used(&world, "groups.per.principal.max"), 2);
    assert_eq!(used(&world, "offsets.per.principal.max"), 3);
    world.owner = Some("mallory");
    let refused = world.commit("d", "t", 1).await;
    assert_eq!(refused, Err(GroupError::OffsetsMaxReached));
    world.coordinator.delete("a").await.expect("empty");
    world.commit("d", "t", 1).await.expect("room again");
    // What is gone is on nobody's account, whoever makes it anew.
    let mut world = world.cut();
    world.owner = Some("alice");
    world.commit("a", "t", 1).await.expect("room");
    let refused = world.commit("e", "t", 1).await;
    assert_eq!(
        refused,
        Err(GroupError::OffsetsMaxReached),
        "two are alice's"
    );
}

#[tokio::test]
async fn a_group_whose_first_record_is_refused_is_stored_with_its_owner_later() {
    let mut world = World::with(|config| config.held_of_one_max.groups = 1);
    world.owner = Some("mallory");
    world.log.set_full(true);
    let refused = world.commit("a", "t", 1).await;
    assert!(refused.is_err(), "{refused:?}");
    world.log.set_full(false);
    world.commit("a", "t", 1).await.expect("room");
    let mut world = world.cut();
    world.owner = Some("mallory");
    let refused = world.commit("b", "t", 1).await;
    assert_eq!(refused, Err(GroupError::OffsetsMaxReached));
}

#[tokio::test]
async fn members_of_all_groups_are_counted_and_so_are_ids_that_nobody_uses() {
    let world = World::with(|config| config.members_max = 2);
    world.member("a").await;
    let given = world.coordinator.join("b", None, ask("").request).await;
    let given = given.expect_err("an id first");
    assert_eq!(given.error, GroupError::MemberIdRequired);
    for group in ["a", "b", "c"] {
        let refused = world.join(group, ask("")).await.expect_err("no room");
        assert_eq!(refused.error, GroupError::MaxSizeReached, "{group}");
    }
    world
        .join("b", ask(&given.member_id))
        .await
        .expect("its place is kept");
    world.pass(SESSION + REBALANCE).await;
    assert_eq!(used(&world, "groups.members.max"), 0, "sessions have ended");
    world.member("c").await;
}

#[tokio::test]
async fn what_members_say_of_themselves_is_bounded_and_given_back_when_they_go() {
    let world = World::with(|config| config.groups_bytes_max = 100_000);
    let joined = world.join("a", with_metadata("", 60_000)).await;
    let joined = joined.expect("room");
    let refused = world.join("b", with_metadata("", 60_000)).await;
    assert_eq!(
        refused.expect_err("no room").error,
        GroupError::MaxSizeReached
    );
    assert_eq!(
        sync_all(&world, "a", &joined, 60_000).await,
        Err(GroupError::MaxSizeReached),
        "an assignment counts as well"
    );
    assert!(used(&world, "groups.bytes.max") < 2_000, "nobody is left");
    let joined = world.join("b", with_metadata("", 60_000)).await;
    let joined = joined.expect("room again");
    sync_all(&world, "b", &joined, 30_000).await.expect("room");
    let leaver = Leaver {
        member_id: joined.member_id,
        instance_id: None,
    };
    let left = world.coordinator.leave("b", vec![leaver]).await;
    assert_eq!(left, Ok(vec![Ok(())]));
    assert!(used(&world, "groups.bytes.max") < 2_000);
}

#[tokio::test]
async fn whoever_makes_a_group_too_long_to_store_is_turned_away_alone() {
    let world = World::with(|config| config.bytes_max = 100_000);
    let member = world.member("g").await;
    let refused = world.join("g", with_metadata("", 100_000)).await;
    assert_eq!(
        refused.expect_err("too long").error,
        GroupError::MaxSizeReached
    );
    let heartbeat = world.coordinator.heartbeat("g", &claim(&member, 1));
    assert_eq!(heartbeat, Ok(()), "the others are not disturbed");
    let refused = world.join("g", with_metadata(&member, 100_000)).await;
    assert_eq!(
        refused.expect_err("too long").error,
        GroupError::MaxSizeReached,
        "also for a member"
    );
    let gone = world.coordinator.heartbeat("g", &claim(&member, 1));
    assert_eq!(gone, Err(GroupError::unknown(&member)));
}

#[tokio::test]
async fn an_assignment_too_long_to_store_costs_its_leader_the_place() {
    let world = World::with(|config| config.bytes_max = 100_000);
    let joined = world.join("g", ask("")).await.expect("a generation");
    let refused = sync_all(&world, "g", &joined, 100_000).await;
    assert_eq!(refused, Err(GroupError::MaxSizeReached));
    world.member("g").await;
}

#[tokio::test]
async fn a_group_of_megabytes_is_stored_and_read_back() {
    let world = World::with_files(32 << 20, |_| {});
    let joined = world.join("g", with_metadata("", 3 << 20)).await;
    let joined = joined.expect("a generation");
    sync_all(&world, "g", &joined, 2 << 20).await.expect("room");
    let before = world.coordinator.bounds();
    let world = world.cut();
    assert_eq!(world.coordinator.bounds(), before);
    let described = world.coordinator.describe("g").expect("a group");
    assert_eq!(described.members[0].metadata.len(), 3 << 20);
    assert_eq!(described.members[0].assignment.len(), 2 << 20);
}

#[tokio::test]
async fn committed_offsets_are_bounded_in_number_and_in_bytes() {
    let world = World::with(|config| config.offsets_max = 2);
    world.commit("a", "t", 1).await.expect("room");
    world.commit("b", "t", 1).await.expect("room");
    let refused = world.commit("a", "u", 1).await;
    assert_eq!(refused, Err(GroupError::OffsetsMaxReached));
    world.commit("a", "t", 2).await.expect("it grows nothing");
    let wanted = [place("t")];
    let deleted = world.coordinator.delete_offsets("b", &wanted).await;
    assert_eq!(deleted, Ok(vec![Ok(())]));
    world.commit("a", "u", 1).await.expect("room again");
    assert_eq!(used(&world, "offsets.max"), 2);

    let world = World::with(|config| config.offsets_bytes_max = 2_000);
    let text = "n".repeat(1_000);
    commit(&world, "a", "t", &text).await.expect("room");
    let refused = commit(&world, "a", "u", &text).await;
    assert_eq!(refused, Err(GroupError::OffsetsMaxReached));
    commit(&world, "a", "t", "short").await.expect("shorter");
    commit(&world, "a", "u", &text).await.expect("room again");
    let before = world.coordinator.bounds();
    let world = world.cut();
    let used = |bounds: Vec<Bound>| bounds.iter().map(|bound| bound.used).collect::<Vec<_>>();
    assert_eq!(used(world.coordinator.bounds()), used(before));
}

#[tokio::test]
async fn what_an_earlier_start_let_in_stays_over_a_lowered_bound() {
    let world = World::new();
    for topic in ["t", "u", "v"] {
        world.commit("a", topic, 1).await.expect("room");
    }
    let world = world.cut_with(|config| config.offsets_max = 1);
    assert_eq!(world.fetch("a", "v"), Some(1));
    world.commit("a", "v", 2).await.expect("it grows nothing");
    let refused = world.commit("a", "w", 1).await;
    assert_eq!(refused, Err(GroupError::OffsetsMaxReached));
}

#[tokio::test]
async fn a_commit_and_a_deletion_larger_than_one_append_go_in_pieces() {
    // An append is 128 KiB at most, and a deletion's record about 300 bytes.
    const PARTITIONS: u32 = 1000;
    let world = World::with_files(256 << 10, |_| {});
    let topic = "t".repeat(249);
    let commits = (0..PARTITIONS).map(|partition| OffsetCommit {
        partition: model::PartitionId::new(partition),
        ..offset_commit(&topic, 7)
    });
    let claim = MemberClaim::default();
    let results = world
        .coordinator
        .commit("g", None, &claim, commits.collect(), None)
        .await;
    assert_eq!(results, Ok(vec![Ok(()); PARTITIONS as usize]));
    let world = world.cut();
    let fetched = world.coordinator.fetch_all("g");
    assert_eq!(fetched.len(), PARTITIONS as usize);
    world.coordinator.delete("g").await.expect("empty");
    let world = world.cut();
    assert_eq!(world.coordinator.list(), []);
    assert_eq!(world.coordinator.fetch_all("g"), []);
}

#[tokio::test]
async fn of_several_commits_for_one_partition_the_last_counts_and_all_are_answered() {
    let world = World::new();
    let too_long = OffsetCommit {
        metadata: "x".repeat(4097),
        ..offset_commit("t", 9)
    };
    let commits = vec![
        offset_commit("t", 1),
        offset_commit("u", 2),
        offset_commit("t", 3),
        too_long,
    ];
    let claim = MemberClaim::default();
    let results = world
        .coordinator
        .commit("g", None, &claim, commits, None)
        .await;
    let too_large = Err(GroupError::MetadataTooLarge {
        chars: 4097,
        chars_max: 4096,
    });
    assert_eq!(results, Ok(vec![Ok(()), Ok(()), Ok(()), too_large]));
    assert_eq!(world.fetch("g", "t"), Some(3));
    assert_eq!(used(&world, "offsets.max"), 2);
}

#[tokio::test]
async fn a_negative_offset_is_kept_as_it_was_committed() {
    let world = World::new();
    for offset in [-2, -1, -1001, i64::MIN] {
        let commit = OffsetCommit {
            offset: CommittedPlace::from_wire(offset),
            ..offset_commit("t", 0)
        };
        let claim = MemberClaim::default();
        let results = world
            .coordinator
            .commit("g", None, &claim, vec![commit], None)
            .await;
        assert_eq!(results, Ok(vec![Ok(())]));
        let fetched = world.coordinator.fetch("g", &[place("t")]).remove(0);
        assert_eq!(fetched.expect("kept").offset, CommittedPlace::Sign(offset));
    }
    let world = world.cut();
    let fetched = world.coordinator.fetch("g", &[place("t")]).remove(0);
    assert_eq!(
        fetched.expect("kept").offset,
        CommittedPlace::Sign(i64::MIN)
    );
}

#[tokio::test]
async fn metadata_is_counted_in_characters() {
    let world = World::new();
    for (text, count, is_taken) in [
        ("a", 4096, true),
        ("a", 4097, false),
        ("é", 4096, true),
        ("é", 4097, false),
        ("日", 4096, true),
        // Two UTF-16 code units each, as Java's strings count.
        ("😀", 2048, true),
        ("😀", 2049, false),
    ] {
        let expected = if is_taken {
            Ok(())
        } else {
            Err(GroupError::MetadataTooLarge {
                chars: 4097 + usize::from(text == "😀"),
                chars_max: 4096,
            })
        };
        let result = commit(&world, "g", "t", &text.repeat(count)).await;
        assert_eq!(result, expected, "{text} {count}");
    }
}
