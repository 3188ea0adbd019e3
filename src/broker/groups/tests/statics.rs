//! Static members (KIP-345): a name outlives a process, and only one process holds it.

use super::*;

/// A stable group of two static members, `left` leading and `right`.
fn stable_pair(bench: &mut Bench) -> (String, String) {
    let left = bench.join(ask("").instance("left"));
    let right = bench.join(ask("").instance("right"));
    bench.pass(2 * DELAY);
    let (left, right) = (bench.joined(left).member_id, bench.joined(right).member_id);
    bench.sync_all(&[left.clone(), right.clone()]);
    (left, right)
}

#[test]
fn a_static_member_needs_no_second_round_for_its_id() {
    let mut bench = Bench::new();
    let ticket = bench.join(ask("").instance("left"));
    assert!(bench.is_parked(ticket));
    bench.pass(DELAY);
    assert_eq!(
        bench.joined(ticket).members[0].instance_id.as_deref(),
        Some("left")
    );
}

#[test]
fn a_bounced_follower_takes_its_place_without_a_rebalance() {
    let mut bench = Bench::new();
    let (left, right) = stable_pair(&mut bench);
    let back = bench.join(ask("").instance("right"));
    let joined = bench.joined(back);
    assert_eq!(
        (
            joined.generation,
            joined.leader.as_str(),
            joined.skip_assignment
        ),
        (1.into(), left.as_str(), false)
    );
    assert_ne!(joined.member_id, right);
    assert_eq!(bench.group.state(), GroupState::Stable);
    let sync = bench.sync(&joined.member_id, 1, &[]);
    assert_eq!(
        bench.synced(sync),
        Ok(right),
        "the assignment stayed with the name"
    );
}

#[test]
fn a_bounced_leader_is_told_to_leave_the_assignment_alone() {
    let mut bench = Bench::new();
    let (_, right) = stable_pair(&mut bench);
    let back = bench.join(ask("").instance("left"));
    let joined = bench.joined(back);
    assert!(joined.skip_assignment);
    assert_eq!(
        (joined.leader.as_str(), joined.members.len()),
        (joined.member_id.as_str(), 2)
    );
    assert_eq!(joined.members[1].member_id, right);
}

#[test]
fn a_bounced_leader_of_an_old_version_does_not_learn_that_it_leads() {
    let mut bench = Bench::new();
    let (left, _) = stable_pair(&mut bench);
    let back = bench.join(ask("").instance("left").old_version());
    let joined = bench.joined(back);
    assert_eq!(
        (joined.leader, joined.members.len(), joined.skip_assignment),
        (left, 0, false)
    );
}

#[test]
fn the_new_id_of_a_bounced_member_is_recorded() {
    let mut bench = Bench::new();
    stable_pair(&mut bench);
    let back = bench.join(ask("").instance("right"));
    let member_id = bench.joined(back).member_id;
    bench.restart();
    assert_eq!(bench.heartbeat(&member_id, 1), Ok(()));
}

#[test]
fn a_static_member_that_bounces_over_a_restart_of_the_broker_causes_no_rebalance() {
    let mut bench = Bench::new();
    let (_, right) = stable_pair(&mut bench);
    bench.restart();
    let back = bench.join(ask("").instance("right"));
    let joined = bench.joined(back);
    assert_eq!(joined.generation, 1);
    let sync = bench.sync(&joined.member_id, 1, &[]);
    assert_eq!(bench.synced(sync), Ok(right));
}

/// The refusal of who has lost the name to a newer member.
fn fenced(member_id: &str) -> GroupError {
    GroupError::FencedInstance {
        instance_id: "right".into(),
        member_id: member_id.to_owned(),
    }
}

#[test]
fn the_process_that_lost_its_name_is_fenced() {
    let mut bench = Bench::new();
    let (_, right) = stable_pair(&mut bench);
    bench.join(ask("").instance("right"));
    let stale = MemberClaim {
        member_id: right.clone(),
        instance_id: Some("right".into()),
        generation: Some(1.into()),
    };
    let now = bench.now();
    assert_eq!(bench.group.heartbeat(now, &stale), Err(fenced(&right)));
    assert_eq!(
        bench.group.authorize_commit(now, &stale),
        Err(fenced(&right))
    );
    let join = bench.join(ask(&right).instance("right"));
    assert_eq!(bench.refused(join).0, fenced(&right));
    let sync = bench.sync_with(SyncRequest {
        member_id: right.clone(),
        instance_id: Some("right".into()),
        generation: Some(1.into()),
        protocol_type: None,
        protocol: None,
        assignments: Vec::new(),
    });
    assert_eq!(bench.synced(sync), Err(fenced(&right)));
    assert_eq!(
        bench.leave(&[(&right, Some("right"))]),
        [Err(fenced(&right))]
    );
}

#[test]
fn a_parked_request_of_the_old_process_is_answered_with_the_fence() {
    let mut bench = Bench::new();
    let (left, right) = stable_pair(&mut bench);
    let parked = bench.join(
        ask(&right)
            .instance("right")
            .protocols(&[("range", "changed")]),
    );
    assert!(bench.is_parked(parked));
    let back = bench.join(ask("").instance("right"));
    assert_eq!(bench.refused(parked), (fenced(&right), right));
    let leader = bench.join(ask(&left).instance("left"));
    assert_eq!(bench.joined(back).generation, 2);
    let second = bench.joined(back).member_id.clone();
    let waiting = bench.sync(&second, 2, &[]);
    let third = bench.join(ask("").instance("right"));
    assert_eq!(bench.synced(waiting), Err(fenced(&second)));
    assert!(
        bench.is_parked(third),
        "the leader may have assigned to the old id: a new generation is needed"
    );
    assert_eq!(bench.joined(leader).generation, 2);
}

#[test]
fn a_bounce_that_changes_the_chosen_protocol_rebalances() {
    let mut bench = Bench::new();
    let two = [("sticky", ""), ("range", "")];
    let left = bench.join(ask("").instance("left").protocols(&two));
    let right = bench.join(ask("").instance("right").protocols(&two));
    bench.pass(2 * DELAY);
    let (left, right) = (bench.joined(left).member_id, bench.joined(right).member_id);
    bench.sync_all(&[left, right]);
    let back = bench.join(ask("").instance("right").protocols(&[("range", "")]));
    assert!(bench.is_parked(back));
    assert_eq!(bench.group.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_static_member_keeps_its_place_when_it_misses_a_rebalance() {
    let mut bench = Bench::new();
    let left = bench.join(ask("").instance("left").session_ms(120_000));
    let right = bench.join(ask("").instance("right").session_ms(120_000));
    bench.pass(2 * DELAY);
    let (left, right) = (bench.joined(left).member_id, bench.joined(right).member_id);
    bench.sync_all(&[left.clone(), right]);
    let rejoined = bench.join(ask(&left).instance("left").session_ms(120_000));
    bench.pass(REBALANCE);
    assert_eq!(
        bench.joined(rejoined).members.len(),
        2,
        "it may only be restarting"
    );
}

#[test]
fn a_rebalance_that_nobody_rejoins_waits_for_the_sessions_of_static_members() {
    let mut bench = Bench::new();
    let left = bench.join(ask("").instance("left").session_ms(100_000));
    bench.pass(DELAY);
    let left = bench.joined(left).member_id;
    bench.sync_all(std::slice::from_ref(&left));
    let (newcomer, _) = bench.enter(ask(""));
    bench.leave(&[(&newcomer, None)]);
    bench.pass(REBALANCE);
    assert_eq!(bench.group.state(), GroupState::PreparingRebalance);
    bench.pass(100_000 - REBALANCE);
    assert_eq!(bench.group.state(), GroupState::Empty);
}

#[test]
fn an_operator_removes_a_static_member_by_its_name() {
    let mut bench = Bench::new();
    let (left, _) = stable_pair(&mut bench);
    assert_eq!(
        bench.leave(&[("", Some("right")), ("", Some("right"))]),
        [
            Ok(()),
            Err(GroupError::UnknownMember {
                member_id: String::new(),
                instance_id: Some("right".into()),
            })
        ]
    );
    let rejoined = bench.join(ask(&left).instance("left"));
    assert_eq!(bench.joined(rejoined).members.len(), 1);
    let back = bench.join(ask("").instance("right"));
    assert!(bench.is_parked(back), "it comes as someone new");
}

#[test]
fn a_full_group_takes_a_bounced_member_back() {
    let mut bench = Bench::with(GroupSettings {
        size_max: 2,
        initial_rebalance_delay: Duration::from_millis(DELAY),
        ..GroupSettings::default()
    });
    stable_pair(&mut bench);
    let back = bench.join(ask("").instance("right"));
    assert_eq!(bench.joined(back).generation, 1);
}

#[test]
fn a_name_that_nobody_holds_cannot_be_claimed_with_an_id() {
    let mut bench = Bench::new();
    let members = bench.stable(1);
    let join = bench.join(ask(&members[0]).instance("left"));
    assert_eq!(
        bench.refused(join).0,
        GroupError::UnknownMember {
            member_id: members[0].clone(),
            instance_id: Some("left".into()),
        }
    );
}

#[test]
fn a_rebalance_timeout_of_zero_does_not_spin() {
    let mut bench = Bench::new();
    let left = bench.join(ask("").instance("left").rebalance_ms(0));
    bench.now_ms += DELAY;
    bench.wake();
    let left = bench.joined(left).member_id;
    bench.sync_all(std::slice::from_ref(&left));
    let (newcomer, _) = bench.enter(ask("").rebalance_ms(0));
    bench.leave(&[(&newcomer, None)]);
    // Each wake asserts that the next deadline lies ahead.
    bench.pass(SESSION);
    assert_eq!(bench.group.state(), GroupState::Empty);
}
