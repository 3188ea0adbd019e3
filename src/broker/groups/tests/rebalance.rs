//! How a generation forms: the initial delay, timeouts, votes, the leader, the assignment.

use super::*;

#[test]
fn the_first_rebalance_waits_and_grows_while_members_come() {
    let mut bench = Bench::new();
    let (_, first) = bench.enter(ask("").rebalance_ms(8_000));
    bench.pass(DELAY - 1);
    bench.enter(ask("").rebalance_ms(8_000));
    bench.pass(1);
    assert!(bench.is_parked(first), "a newcomer extends the delay");
    bench.pass(DELAY - 1);
    assert!(bench.is_parked(first));
    bench.enter(ask("").rebalance_ms(8_000));
    bench.pass(1);
    assert!(bench.is_parked(first), "2 s of the 8 s remain");
    bench.pass(2_000);
    assert_eq!(
        bench.joined(first).members.len(),
        3,
        "the rebalance timeout bounds all extensions"
    );
    assert_eq!(bench.now_ms, 8_000);
}

#[test]
fn the_first_rebalance_ends_with_its_delay_if_nobody_else_comes() {
    let mut bench = Bench::new();
    let (_, first) = bench.enter(ask(""));
    bench.pass(DELAY);
    assert_eq!(bench.joined(first).generation, 1);
}

#[test]
fn without_a_delay_the_first_member_has_its_generation_at_once() {
    let mut bench = Bench::with(GroupSettings {
        initial_rebalance_delay: Duration::ZERO,
        size_max: usize::MAX,
        ..GroupSettings::default()
    });
    let (_, first) = bench.enter(ask(""));
    assert_eq!(bench.joined(first).generation, 1);
}

#[test]
fn a_group_that_everyone_left_during_the_delay_ends_empty() {
    let mut bench = Bench::new();
    let (member, _) = bench.enter(ask(""));
    bench.leave(&[(&member, None)]);
    assert_eq!(bench.group.state(), GroupState::PreparingRebalance);
    bench.pass(DELAY);
    assert_eq!(bench.group.state(), GroupState::Empty);
}

#[test]
fn whoever_does_not_rejoin_in_time_is_out() {
    let mut bench = Bench::new();
    let members = bench.stable(3);
    let leader = bench.join(ask(&members[0]));
    for _ in 0..(REBALANCE / 5_000) {
        assert!(bench.is_parked(leader));
        bench.heartbeat(&members[1], 1).ok();
        bench.heartbeat(&members[2], 1).ok();
        bench.pass(5_000);
    }
    let joined = bench.joined(leader);
    assert_eq!((joined.generation, joined.members.len()), (2.into(), 1));
    assert_eq!(
        bench.heartbeat(&members[1], 1),
        Err(GroupError::unknown(&members[1]))
    );
}

#[test]
fn the_longest_rebalance_timeout_counts() {
    let mut bench = Bench::new();
    let (slow, _) = bench.enter(ask("").rebalance_ms(60_000));
    let (quick, _) = bench.enter(ask("").rebalance_ms(5_000));
    bench.pass(2 * DELAY);
    bench.sync_all(&[slow.clone(), quick.clone()]);
    let parked = bench.join(
        ask(&quick)
            .rebalance_ms(5_000)
            .protocols(&[("range", "changed")]),
    );
    for _ in 0..11 {
        bench.pass(5_000);
        bench.heartbeat(&slow, 1).ok();
    }
    assert!(bench.is_parked(parked));
    bench.pass(5_000);
    assert_eq!(bench.joined(parked).members.len(), 1);
}

#[test]
fn the_protocol_most_vote_for_among_those_all_support_wins() {
    let mut bench = Bench::new();
    let (_, first) =
        bench.enter(ask("").protocols(&[("only-mine", ""), ("range", ""), ("sticky", "")]));
    bench.enter(ask("").protocols(&[("sticky", ""), ("range", "")]));
    bench.enter(ask("").protocols(&[("sticky", ""), ("range", "")]));
    bench.pass(3 * DELAY);
    assert_eq!(bench.joined(first).protocol.as_deref(), Some("sticky"));
}

#[test]
fn a_tied_vote_goes_by_the_leaders_preference() {
    let mut bench = Bench::new();
    let (_, first) = bench.enter(ask("").protocols(&[("sticky", ""), ("range", "")]));
    bench.enter(ask("").protocols(&[("range", ""), ("sticky", "")]));
    bench.pass(2 * DELAY);
    assert_eq!(bench.joined(first).protocol.as_deref(), Some("sticky"));
}

#[test]
fn protocols_that_fit_nobody_are_refused() {
    let mut bench = Bench::new();
    let none = bench.join(ask("").protocols(&[]));
    assert_eq!(bench.refused(none).0, GroupError::InconsistentProtocol);
    let typeless = bench.join(ask("").protocol_type(""));
    assert_eq!(bench.refused(typeless).0, GroupError::InconsistentProtocol);
    bench.stable(2);
    let other_kind = bench.join(ask("").protocol_type("connect"));
    assert_eq!(
        bench.refused(other_kind).0,
        GroupError::InconsistentProtocol
    );
    let other_strategy = bench.join(ask("").protocols(&[("sticky", "")]));
    assert_eq!(
        bench.refused(other_strategy).0,
        GroupError::InconsistentProtocol
    );
    assert_eq!(
        bench.group.state(),
        GroupState::Stable,
        "and nobody is disturbed"
    );
}

#[test]
fn an_empty_group_may_change_its_kind() {
    let mut bench = Bench::new();
    let members = bench.stable(1);
    bench.leave(&[(&members[0], None)]);
    let (_, joined) = bench.enter(
        ask("")
            .protocol_type("connect")
            .protocols(&[("default", "")]),
    );
    bench.pass(DELAY);
    assert_eq!(
        bench.joined(joined).protocol_type.as_deref(),
        Some("connect")
    );
}

#[test]
fn an_unchanged_follower_that_rejoins_gets_the_generation_that_stands() {
    let mut bench = Bench::new();
    let members = bench.stable(2);
    let follower = bench.join(ask(&members[1]));
    let joined = bench.joined(follower);
    assert_eq!((joined.generation, joined.members.len()), (1.into(), 0));
    assert_eq!(bench.group.state(), GroupState::Stable);
}

#[test]
fn a_leader_or_a_changed_follower_that_rejoins_starts_a_rebalance() {
    let mut bench = Bench::new();
    let members = bench.stable(2);
    let leader = bench.join(ask(&members[0]));
    assert!(bench.is_parked(leader));
    bench.join(ask(&members[1]));
    bench.sync_all(&members);
    let follower = bench.join(ask(&members[1]).protocols(&[("range", "changed")]));
    assert!(bench.is_parked(follower));
    let leader = bench.join(ask(&members[0]));
    assert_eq!(bench.joined(follower).generation, 3);
    assert_eq!(bench.joined(leader).members[1].metadata, "changed");
}

#[test]
fn a_lost_join_answer_is_repeated_while_the_assignment_is_awaited() {
    let mut bench = Bench::new();
    let (leader, _) = bench.enter(ask(""));
    let (follower, _) = bench.enter(ask(""));
    bench.pass(2 * DELAY);
    let again = bench.join(ask(&leader));
    assert_eq!(
        (
            bench.joined(again).generation,
            bench.joined(again).members.len()
        ),
        (1.into(), 2)
    );
    let again = bench.join(ask(&follower));
    assert_eq!(
        (
            bench.joined(again).generation,
            bench.joined(again).members.len()
        ),
        (1.into(), 0)
    );
    let changed = bench.join(ask(&follower).protocols(&[("range", "changed")]));
    assert!(
        bench.is_parked(changed),
        "changed metadata needs a new generation"
    );
}

#[test]
fn a_second_join_of_a_parked_member_answers_the_first() {
    let mut bench = Bench::new();
    let members = bench.stable(2);
    let first = bench.join(ask(&members[0]));
    let second = bench.join(ask(&members[0]));
    assert_eq!(
        bench.refused(first),
        (GroupError::RebalanceInProgress, members[0].clone())
    );
    bench.join(ask(&members[1]));
    assert_eq!(bench.joined(second).generation, 2);
}

#[test]
fn followers_wait_for_the_leaders_assignment() {
    let mut bench = Bench::new();
    let (leader, _) = bench.enter(ask(""));
    let (follower, _) = bench.enter(ask(""));
    bench.pass(2 * DELAY);
    let waiting = bench.sync(&follower, 1, &[]);
    assert!(bench.is_parked(waiting));
    let again = bench.sync(&follower, 1, &[]);
    assert_eq!(
        bench.synced(waiting),
        Err(GroupError::RebalanceInProgress),
        "the newer request counts"
    );
    let leading = bench.sync(&leader, 1, &[(&follower, "f"), ("stranger", "s")]);
    assert_eq!(bench.synced(again), Ok("f".into()));
    assert_eq!(
        bench.synced(leading),
        Ok(String::new()),
        "no assignment is an empty one"
    );
    assert_eq!(bench.group.state(), GroupState::Stable);
    let later = bench.sync(&follower, 1, &[]);
    assert_eq!(bench.synced(later), Ok("f".into()));
}

#[test]
fn the_assignment_is_recorded_before_it_is_answered() {
    let mut bench = Bench::new();
    let (leader, _) = bench.enter(ask(""));
    bench.pass(DELAY);
    assert_eq!(bench.records, [GroupRecord::Promised(1.into())]);
    bench.sync(&leader, 1, &[(&leader, "all")]);
    let Some(GroupRecord::Stored(stored)) = bench.records.last() else {
        panic!("the group is recorded")
    };
    assert_eq!(
        (stored.generation, stored.members[0].assignment.as_ref()),
        (1.into(), b"all".as_slice())
    );
    assert_eq!(stored.leader.as_deref(), Some(leader.as_str()));
}

#[test]
fn an_assignment_that_could_not_be_recorded_is_not_kept() {
    let mut bench = Bench::new();
    let members = bench.stable(2);
    let mut effects = Effects::default();
    let now = bench.now();
    bench.group.on_records_lost(now, &mut effects);
    bench.take(effects);
    assert_eq!(
        bench.heartbeat(&members[0], 1),
        Err(GroupError::RebalanceInProgress)
    );
    let first = bench.join(ask(&members[0]));
    bench.join(ask(&members[1]));
    assert_eq!(bench.joined(first).generation, 2);
}

#[test]
fn syncs_are_refused_out_of_turn() {
    let mut bench = Bench::new();
    let sync = bench.sync("stranger", 0, &[]);
    assert_eq!(
        bench.synced(sync),
        Err(GroupError::unknown("stranger")),
        "in an empty group"
    );
    let members = bench.stable(2);
    let sync = bench.sync("stranger", 1, &[]);
    assert_eq!(bench.synced(sync), Err(GroupError::unknown("stranger")));
    let sync = bench.sync(&members[0], 0, &[]);
    assert_eq!(bench.synced(sync), Err(passed(Some(0), 1)));
    bench.join(ask(&members[0]));
    let sync = bench.sync(&members[1], 1, &[]);
    assert_eq!(bench.synced(sync), Err(GroupError::RebalanceInProgress));
}

#[test]
fn syncs_that_name_another_protocol_are_refused() {
    let mut bench = Bench::new();
    let members = bench.stable(1);
    let request = |protocol_type: Option<&str>, protocol: Option<&str>| SyncRequest {
        member_id: members[0].clone(),
        instance_id: None,
        generation: Some(1.into()),
        protocol_type: protocol_type.map(Into::into),
        protocol: protocol.map(Into::into),
        assignments: Vec::new(),
    };
    let fits = bench.sync_with(request(Some("consumer"), Some("range")));
    assert_eq!(bench.synced(fits), Ok(members[0].clone()));
    let other_kind = bench.sync_with(request(Some("connect"), None));
    assert_eq!(
        bench.synced(other_kind),
        Err(GroupError::InconsistentProtocol)
    );
    let other_strategy = bench.sync_with(request(None, Some("sticky")));
    assert_eq!(
        bench.synced(other_strategy),
        Err(GroupError::InconsistentProtocol)
    );
}

#[test]
fn a_rebalance_sends_those_who_wait_for_their_assignment_back() {
    let mut bench = Bench::new();
    let (leader, _) = bench.enter(ask(""));
    let (follower, _) = bench.enter(ask(""));
    bench.pass(2 * DELAY);
    let waiting = bench.sync(&follower, 1, &[]);
    let (_, third) = bench.enter(ask(""));
    assert_eq!(bench.synced(waiting), Err(GroupError::RebalanceInProgress));
    let leading = bench.sync(&leader, 1, &[(&follower, "stale")]);
    assert_eq!(bench.synced(leading), Err(GroupError::RebalanceInProgress));
    bench.join(ask(&leader));
    bench.join(ask(&follower));
    assert_eq!(bench.joined(third).generation, 2);
    let waiting = bench.sync(&follower, 2, &[]);
    bench.sync(&leader, 2, &[]);
    assert_eq!(
        bench.synced(waiting),
        Ok(String::new()),
        "nothing of the old assignment is left"
    );
}

#[test]
fn members_that_never_sync_are_out_after_the_rebalance_timeout() {
    let mut bench = Bench::new();
    let (leader, _) = bench.enter(ask("").session_ms(100_000));
    let (follower, _) = bench.enter(ask("").session_ms(100_000));
    bench.pass(2 * DELAY);
    bench.sync(&leader, 1, &[]);
    bench.pass(REBALANCE - 1);
    assert_eq!(bench.group.state(), GroupState::Stable);
    bench.pass(1);
    assert_eq!(bench.group.state(), GroupState::PreparingRebalance);
    assert_eq!(
        bench.heartbeat(&follower, 1),
        Err(GroupError::unknown(&follower))
    );
    let rejoined = bench.join(ask(&leader));
    assert_eq!(bench.joined(rejoined).members.len(), 1);
}

#[test]
fn a_leader_that_never_assigns_is_out_and_the_next_one_leads() {
    let mut bench = Bench::new();
    let (leader, _) = bench.enter(ask("").session_ms(100_000));
    let (follower, _) = bench.enter(ask("").session_ms(100_000));
    bench.pass(2 * DELAY);
    let waiting = bench.sync(&follower, 1, &[]);
    bench.pass(REBALANCE);
    assert_eq!(bench.synced(waiting), Err(GroupError::RebalanceInProgress));
    let rejoined = bench.join(ask(&follower));
    assert_eq!(bench.joined(rejoined).leader, follower);
    assert_eq!(
        bench.heartbeat(&leader, 1),
        Err(GroupError::unknown(&leader))
    );
}

#[test]
fn a_leader_that_does_not_rejoin_is_followed_by_one_that_did() {
    let mut bench = Bench::new();
    let members = bench.stable(3);
    let third = bench.join(ask(&members[2]).protocols(&[("range", "changed")]));
    for _ in 0..(REBALANCE / 5_000) {
        bench.heartbeat(&members[0], 1).ok();
        bench.heartbeat(&members[1], 1).ok();
        bench.pass(5_000);
    }
    assert_eq!(bench.joined(third).leader, members[2]);
}
