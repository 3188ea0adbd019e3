//! Coming, staying, going: ids, sessions, leaving, commits' rights, descriptions.

use super::*;

#[test]
fn someone_new_is_given_an_id_and_joins_with_it() {
    let mut bench = Bench::new();
    let first = bench.join(ask(""));
    assert_eq!(
        bench.refused(first),
        (GroupError::MemberIdRequired, "id-1".into())
    );
    assert_eq!(bench.group.state(), GroupState::Empty);
    assert!(!bench.group.is_abandoned(), "someone holds an id");
    let second = bench.join(ask("id-1"));
    assert!(bench.is_parked(second));
    bench.pass(DELAY);
    assert_eq!(bench.joined(second).member_id, "id-1");
}

#[test]
fn an_old_client_joins_without_fetching_an_id() {
    let mut bench = Bench::new();
    let ticket = bench.join(ask("").old_version());
    bench.pass(DELAY);
    let joined = bench.joined(ticket);
    assert_eq!(
        (
            joined.member_id.as_str(),
            joined.leader.as_str(),
            joined.generation
        ),
        ("id-1", "id-1", 1.into())
    );
}

#[test]
fn an_unused_id_is_good_for_one_session() {
    let mut bench = Bench::new();
    bench.join(ask(""));
    bench.pass(SESSION - 1);
    assert!(!bench.group.is_abandoned());
    bench.pass(1);
    assert!(bench.group.is_abandoned());
    let ticket = bench.join(ask("id-1"));
    assert_eq!(
        bench.refused(ticket),
        (GroupError::unknown("id-1"), "id-1".into())
    );
}

#[test]
fn a_rebalance_waits_for_an_unused_id_until_it_expires() {
    let mut bench = Bench::new();
    let members = bench.stable(1);
    let (other, parked) = bench.enter(ask(""));
    bench.join(ask("").session_ms(12_000));
    let leader = bench.join(ask(&members[0]));
    assert!(bench.is_parked(leader), "the third one's id is out");
    bench.pass(12_000);
    assert_eq!(bench.joined(leader).members.len(), 2);
    assert_eq!(bench.joined(parked).member_id, other);
}

#[test]
fn nobody_joins_with_an_invented_id() {
    let mut bench = Bench::new();
    let ticket = bench.join(ask("invented"));
    assert_eq!(
        bench.refused(ticket),
        (GroupError::unknown("invented"), "invented".into())
    );
    bench.stable(1);
    let ticket = bench.join(ask("invented"));
    assert_eq!(bench.refused(ticket).0, GroupError::unknown("invented"));
}

#[test]
fn the_first_to_join_leads_and_alone_sees_the_members() {
    let mut bench = Bench::new();
    let (first, one) = bench.enter(ask("").protocols(&[("range", "a")]));
    let (second, two) = bench.enter(ask("").protocols(&[("range", "b")]));
    bench.pass(2 * DELAY);
    let led = bench.joined(one);
    let seen: Vec<_> = led
        .members
        .iter()
        .map(|member| (member.member_id.clone(), member.metadata.to_vec()))
        .collect();
    assert_eq!(
        seen,
        [(first.clone(), b"a".to_vec()), (second, b"b".to_vec())]
    );
    assert_eq!(bench.joined(two).members, []);
    assert_eq!(bench.joined(two).leader, first);
}

#[test]
fn a_silent_member_is_dropped_and_the_others_rebalance() {
    let mut bench = Bench::new();
    let members = bench.stable(2);
    bench.pass(SESSION - 1);
    assert_eq!(bench.heartbeat(&members[0], 1), Ok(()));
    bench.pass(1);
    assert_eq!(bench.group.state(), GroupState::PreparingRebalance);
    assert_eq!(
        bench.heartbeat(&members[0], 1),
        Err(GroupError::RebalanceInProgress)
    );
    assert_eq!(
        bench.heartbeat(&members[1], 1),
        Err(GroupError::unknown(&members[1]))
    );
    let rejoined = bench.join(ask(&members[0]));
    assert_eq!(bench.joined(rejoined).generation, 2);
}

#[test]
fn the_last_silent_member_leaves_an_empty_group_of_the_next_generation() {
    let mut bench = Bench::new();
    bench.stable(1);
    bench.pass(SESSION);
    assert_eq!(
        (bench.group.state(), bench.group.generation()),
        (GroupState::Empty, 2.into())
    );
    assert!(
        matches!(bench.records.last(), Some(GroupRecord::Stored(stored)) if stored.generation == 2 && stored.members.is_empty())
    );
}

#[test]
fn heartbeats_are_refused_for_strangers_and_other_generations() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.heartbeat("stranger", 0),
        Err(GroupError::unknown("stranger"))
    );
    let members = bench.stable(1);
    assert_eq!(
        bench.heartbeat("stranger", 1),
        Err(GroupError::unknown("stranger"))
    );
    assert_eq!(bench.heartbeat(&members[0], 0), Err(passed(Some(0), 1)));
    assert_eq!(bench.heartbeat(&members[0], 2), Err(passed(Some(2), 1)));
    let words = "2 is not the group's current generation, which is 1";
    assert_eq!(passed(Some(2), 1).to_string(), words);
}

#[test]
fn heartbeats_count_while_the_assignment_is_awaited() {
    let mut bench = Bench::new();
    let (member, _) = bench.enter(ask(""));
    bench.pass(DELAY);
    assert_eq!(bench.group.state(), GroupState::CompletingRebalance);
    for _ in 0..3 {
        bench.pass(SESSION - 1);
        assert_eq!(bench.heartbeat(&member, 1), Ok(()));
    }
    bench.pass(SESSION);
    assert_eq!(bench.group.state(), GroupState::Empty);
}

#[test]
fn a_parked_request_stands_in_for_heartbeats() {
    let mut bench = Bench::new();
    let members = bench.stable(3);
    let rejoining = bench.join(ask(&members[0]));
    for _ in 0..5 {
        bench.pass(SESSION / 2);
        assert_eq!(
            bench.heartbeat(&members[1], 1),
            Err(GroupError::RebalanceInProgress)
        );
        bench.heartbeat(&members[2], 1).ok();
    }
    assert!(bench.is_parked(rejoining));
    let second = bench.join(ask(&members[1]));
    let third = bench.join(ask(&members[2]));
    assert_eq!(bench.joined(rejoining).generation, 2);
    let waiting = bench.sync(&members[1], 2, &[]);
    for _ in 0..2 {
        bench.pass(SESSION - 1);
        assert_eq!(bench.heartbeat(&members[0], 2), Ok(()));
        assert_eq!(bench.heartbeat(&members[2], 2), Ok(()));
    }
    assert!(bench.is_parked(waiting));
    assert_eq!(
        bench.joined(second).generation,
        bench.joined(third).generation
    );
    bench.sync(&members[0], 2, &[(&members[1], "x")]);
    assert_eq!(bench.synced(waiting), Ok("x".into()));
    bench.pass(SESSION - 1);
    assert_eq!(
        bench.heartbeat(&members[1], 2),
        Ok(()),
        "the answer restarted its session"
    );
}

#[test]
fn someone_new_does_not_stay_parked_for_ever() {
    let mut bench = Bench::new();
    let members = bench.stable(1);
    let (newcomer, parked) = bench.enter(ask("").rebalance_ms(3_600_000));
    for _ in 0..60 {
        bench.pass(5_000);
        bench.heartbeat(&members[0], 1).ok();
    }
    assert_eq!(
        bench.refused(parked),
        (GroupError::unknown(&newcomer), String::new())
    );
}

#[test]
fn leaving_rebalances_the_others_at_once() {
    let mut bench = Bench::new();
    let members = bench.stable(2);
    assert_eq!(bench.leave(&[(&members[1], None)]), [Ok(())]);
    assert_eq!(bench.group.state(), GroupState::PreparingRebalance);
    let rejoined = bench.join(ask(&members[0]));
    assert_eq!(bench.joined(rejoined).members.len(), 1);
}

#[test]
fn the_last_to_leave_leaves_an_empty_group() {
    let mut bench = Bench::new();
    let members = bench.stable(2);
    assert_eq!(
        bench.leave(&[(&members[0], None), (&members[1], None)]),
        [Ok(()), Ok(())]
    );
    assert_eq!(
        (bench.group.state(), bench.group.generation()),
        (GroupState::Empty, 2.into())
    );
    assert!(bench.group.is_abandoned());
}

#[test]
fn leaving_answers_for_each_member_of_a_batch() {
    let mut bench = Bench::new();
    let members = bench.stable(1);
    bench.join(ask(""));
    let results = bench.leave(&[
        ("stranger", None),
        ("", None),
        ("", Some("nobody")),
        ("id-3", None),
        (&members[0], Some("nobody")),
    ]);
    let unknown = |member_id: &str, instance_id: Option<&str>| {
        Err(GroupError::UnknownMember {
            member_id: member_id.to_owned(),
            instance_id: instance_id.map(str::to_owned),
        })
    };
    let wanted = [
        unknown("stranger", None),
        unknown("", None),
        unknown("", Some("nobody")),
        Ok(()),
        unknown(&members[0], Some("nobody")),
    ];
    assert_eq!(results, wanted);
    assert_eq!(bench.group.describe().members.len(), 1);
}

#[test]
fn leaving_answers_what_the_leaver_has_parked() {
    let mut bench = Bench::new();
    let members = bench.stable(2);
    let joining = bench.join(ask(&members[0]));
    bench.leave(&[(&members[0], None)]);
    assert_eq!(
        bench.refused(joining),
        (GroupError::unknown(&members[0]), String::new())
    );
    let rejoined = bench.join(ask(&members[1]));
    assert_eq!(bench.joined(rejoined).leader, members[1]);
    let (third, third_join) = bench.enter(ask(""));
    bench.join(ask(&members[1]));
    assert_eq!(bench.joined(third_join).generation, 3);
    let syncing = bench.sync(&third, 3, &[]);
    bench.leave(&[(&third, None)]);
    assert_eq!(bench.synced(syncing), Err(GroupError::unknown(&third)));
}

#[test]
fn the_longest_member_leads_after_the_leader_left() {
    let mut bench = Bench::new();
    let members = bench.stable(3);
    bench.leave(&[(&members[0], None)]);
    let third = bench.join(ask(&members[2]));
    let second = bench.join(ask(&members[1]));
    assert_eq!(bench.joined(third).leader, members[1]);
    assert_eq!(bench.joined(second).members.len(), 2);
}

#[test]
fn a_group_takes_no_more_than_its_maximum() {
    let mut bench = Bench::with(GroupSettings {
        size_max: 2,
        initial_rebalance_delay: Duration::from_millis(DELAY),
        ..GroupSettings::default()
    });
    bench.enter(ask(""));
    bench.enter(ask(""));
    let third = bench.join(ask(""));
    assert_eq!(
        bench.refused(third),
        (GroupError::MaxSizeReached, String::new())
    );
    bench.pass(2 * DELAY);
    let third = bench.join(ask(""));
    assert_eq!(
        bench.refused(third).0,
        GroupError::MaxSizeReached,
        "also once the generation is complete"
    );
    let rejoined = bench.join(ask("id-1"));
    assert_eq!(bench.joined(rejoined).generation, 1, "members may rejoin");
}

#[test]
fn a_lowered_maximum_turns_away_the_last_to_rejoin_after_a_restart() {
    let mut bench = Bench::new();
    let members = bench.stable(2);
    bench.settings.size_max = 1;
    bench.restart();
    assert_eq!(bench.group.state(), GroupState::PreparingRebalance);
    let second = bench.join(ask(&members[1]));
    let first = bench.join(ask(&members[0]));
    assert_eq!(bench.refused(first).0, GroupError::MaxSizeReached);
    assert_eq!(bench.joined(second).members.len(), 1);
}

#[test]
fn commits_need_the_current_generation_or_an_empty_group() {
    let mut bench = Bench::new();
    let standalone = MemberClaim::default();
    let now = bench.now();
    assert_eq!(bench.group.authorize_commit(now, &standalone), Ok(()));
    assert_eq!(
        bench.group.authorize_commit(now, &claim("m", 1)),
        Err(GroupError::unknown("m"))
    );
    let members = bench.stable(1);
    let now = bench.now();
    assert_eq!(
        bench.group.authorize_commit(now, &standalone),
        Err(GroupError::unknown(""))
    );
    assert_eq!(
        bench.group.authorize_commit(now, &claim(&members[0], 1)),
        Ok(())
    );
    assert_eq!(
        bench.group.authorize_commit(now, &claim(&members[0], 0)),
        Err(passed(Some(0), 1))
    );
    let no_generation = MemberClaim {
        member_id: members[0].clone(),
        ..MemberClaim::default()
    };
    assert_eq!(
        bench.group.authorize_commit(now, &no_generation),
        Err(passed(None, 1))
    );
    assert_eq!(
        bench.group.authorize_commit(now, &claim("stranger", 1)),
        Err(GroupError::unknown("stranger"))
    );
}

#[test]
fn commits_go_on_while_members_rejoin_but_not_while_the_assignment_is_awaited() {
    let mut bench = Bench::new();
    let members = bench.stable(2);
    bench.join(ask(&members[0]));
    let now = bench.now();
    assert_eq!(
        bench.group.authorize_commit(now, &claim(&members[1], 1)),
        Ok(())
    );
    bench.join(ask(&members[1]));
    assert_eq!(bench.group.state(), GroupState::CompletingRebalance);
    assert_eq!(
        bench.group.authorize_commit(now, &claim(&members[1], 2)),
        Err(GroupError::RebalanceInProgress)
    );
}

#[test]
fn a_commit_keeps_the_session_alive() {
    let mut bench = Bench::new();
    let members = bench.stable(1);
    for _ in 0..3 {
        bench.pass(SESSION - 1);
        let now = bench.now();
        assert_eq!(
            bench.group.authorize_commit(now, &claim(&members[0], 1)),
            Ok(())
        );
    }
    assert_eq!(bench.group.state(), GroupState::Stable);
}

#[test]
fn only_an_empty_group_can_be_deleted_and_then_it_is_gone() {
    let mut bench = Bench::new();
    let members = bench.stable(1);
    assert_eq!(
        bench.group.authorize_delete(),
        Err(GroupError::NonEmpty {
            state: GroupState::Stable
        })
    );
    bench.leave(&[(&members[0], None)]);
    assert_eq!(bench.group.authorize_delete(), Ok(()));
    let now = bench.now();
    bench.group.bury(now);
    assert_eq!(bench.group.authorize_delete(), Err(GroupError::NotFound));
    assert_eq!(
        bench.heartbeat(&members[0], 1),
        Err(GroupError::NotAvailable)
    );
    let join = bench.join(ask(""));
    assert_eq!(bench.refused(join).0, GroupError::NotAvailable);
    let sync = bench.sync(&members[0], 1, &[]);
    assert_eq!(bench.synced(sync), Err(GroupError::NotAvailable));
    assert_eq!(
        bench.group.authorize_commit(now, &MemberClaim::default()),
        Err(GroupError::NotAvailable)
    );
}

#[test]
fn offsets_of_subscribed_topics_are_protected() {
    let mut bench = Bench::new();
    assert!(!bench.group.is_subscribed_to("a"));
    let (member, _) = bench.enter(ask("").topics(&["a", "b"]));
    assert!(
        bench.group.is_subscribed_to("c"),
        "in doubt, while the first generation forms"
    );
    bench.pass(DELAY);
    bench.sync_all(std::slice::from_ref(&member));
    assert!(bench.group.is_subscribed_to("a") && bench.group.is_subscribed_to("b"));
    assert!(!bench.group.is_subscribed_to("c"));
    assert_eq!(bench.group.authorize_offset_delete(), Ok(()));
    bench.leave(&[(&member, None)]);
    assert!(!bench.group.is_subscribed_to("a"));
}

#[test]
fn offsets_of_a_group_of_another_kind_are_protected_while_it_has_members() {
    let mut bench = Bench::new();
    let (member, _) = bench.enter(ask("").protocol_type("connect"));
    bench.pass(DELAY);
    assert_eq!(
        bench.group.authorize_offset_delete(),
        Err(GroupError::NonEmpty {
            state: GroupState::CompletingRebalance
        })
    );
    assert_eq!(bench.group.offsets_expiry(), OffsetsExpiry::Never);
    bench.leave(&[(&member, None)]);
    assert_eq!(bench.group.authorize_offset_delete(), Ok(()));
}

#[test]
fn retention_counts_from_the_last_member_or_from_the_commit() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.group.offsets_expiry(),
        OffsetsExpiry::SinceCommit,
        "a standalone consumer's"
    );
    let (member, _) = bench.enter(ask("").topics(&["a"]));
    assert_eq!(bench.group.offsets_expiry(), OffsetsExpiry::Never);
    bench.pass(DELAY);
    bench.sync_all(std::slice::from_ref(&member));
    assert_eq!(bench.group.offsets_expiry(), OffsetsExpiry::SinceCommit);
    bench.pass(1_000);
    bench.leave(&[(&member, None)]);
    let emptied = bench.now().wall;
    bench.pass(5_000);
    assert_eq!(
        bench.group.offsets_expiry(),
        OffsetsExpiry::SinceEmpty(emptied)
    );
    bench.restart();
    assert_eq!(
        bench.group.offsets_expiry(),
        OffsetsExpiry::SinceEmpty(emptied),
        "a restart does not prolong it"
    );
}

#[test]
fn a_description_shows_the_members_and_once_stable_what_they_have() {
    let mut bench = Bench::new();
    let (member, _) = bench.enter(ask("").protocols(&[("range", "wants")]));
    let described = bench.group.describe();
    assert_eq!(
        (described.state.name(), described.protocol.as_str()),
        ("PreparingRebalance", "")
    );
    assert_eq!(
        (
            described.members[0].metadata.len(),
            described.protocol_type.as_str()
        ),
        (0, "consumer")
    );
    bench.pass(DELAY);
    assert_eq!(bench.group.describe().state.name(), "CompletingRebalance");
    bench.sync_all(std::slice::from_ref(&member));
    let described = bench.group.describe();
    assert_eq!(
        (
            described.state.name(),
            described.protocol.as_str(),
            described.generation
        ),
        ("Stable", "range", 1.into())
    );
    assert_eq!(described.members[0].metadata, "wants");
    assert_eq!(described.members[0].assignment, member);
    assert_eq!(described.members[0].client.host, "/10.0.0.1");
}

#[test]
fn members_survive_a_restart_for_one_session() {
    let mut bench = Bench::new();
    let members = bench.stable(2);
    bench.restart();
    assert_eq!(bench.heartbeat(&members[0], 1), Ok(()));
    let sync = bench.sync(&members[0], 1, &[]);
    assert_eq!(
        bench.synced(sync),
        Ok(members[0].clone()),
        "the assignment is there"
    );
    bench.pass(SESSION - 1);
    assert_eq!(bench.heartbeat(&members[0], 1), Ok(()));
    bench.pass(1);
    assert_eq!(
        bench.heartbeat(&members[1], 1),
        Err(GroupError::unknown(&members[1])),
        "it was not heard of"
    );
    assert_eq!(
        bench.heartbeat(&members[0], 1),
        Err(GroupError::RebalanceInProgress)
    );
}

#[test]
fn a_generation_lost_with_the_broker_is_never_given_out_again() {
    let mut bench = Bench::new();
    let members = bench.stable(1);
    let (_, second) = bench.enter(ask(""));
    bench.join(ask(&members[0]));
    assert_eq!(bench.joined(second).generation, 2);
    bench.restart();
    assert_eq!(
        bench.group.generation(),
        1,
        "what was stable is what is back"
    );
    assert_eq!(bench.heartbeat(&members[0], 2), Err(passed(Some(2), 1)));
    let again = bench.join(ask(&members[0]));
    assert_eq!(bench.joined(again).generation, 3);
}
