//! Examples of what shared subscriptions promise, with their bounds.

use std::time::Duration;

use super::*;

const ALICE: Holder = Holder(1);
const BOB: Holder = Holder(2);

fn ask(holder: Holder, within: Range<u64>, count_max: usize) -> Ask {
    Ask {
        within: vec![offsets(within)],
        absent: Vec::new(),
        count_max,
        ends: Vec::new(),
        holder,
        until: Some(Duration::from_secs(30)),
    }
}

fn settle(partition: &mut SharePartition, holder: Holder, range: Range<u64>, verdict: Verdict) {
    let limits = Limits::default();
    partition
        .settle(holder, &[(offsets(range), verdict)], Offset::ZERO, &limits)
        .expect("held");
}

#[test]
fn a_record_is_one_members_at_a_time_and_the_others_go_on_behind_it() {
    let mut partition = SharePartition::new(Offset::ZERO);
    let limits = Limits::default();
    let (alice, _) = partition.acquire(&ask(ALICE, 0..10, 3), &limits);
    let (bob, _) = partition.acquire(&ask(BOB, 0..10, 3), &limits);
    let given = |range: Range<u64>| Acquired {
        offsets: offsets(range),
        count: 1,
    };
    assert_eq!((alice, bob), (vec![given(0..3)], vec![given(3..6)]));
    settle(&mut partition, BOB, 3..6, Verdict::Accept);
    assert_eq!(partition.start(), Offset::ZERO, "the first are not done");
    settle(&mut partition, ALICE, 0..3, Verdict::Accept);
    assert_eq!(partition.start(), Offset::new(6));
    let refused = partition.settle(
        BOB,
        &[(offsets(6..7), Verdict::Accept)],
        Offset::ZERO,
        &limits,
    );
    assert_eq!(
        refused,
        Err(NotHeld {
            offset: Offset::new(6)
        })
    );
}

#[test]
fn a_record_that_is_released_each_time_is_given_up_at_the_limit() {
    let mut partition = SharePartition::new(Offset::ZERO);
    let limits = Limits::default();
    for count in 1..=limits.deliveries_max {
        let (given, _) = partition.acquire(&ask(ALICE, 0..1, 1), &limits);
        assert_eq!(given[0].count, count);
        settle(&mut partition, ALICE, 0..1, Verdict::Release);
    }
    assert_eq!(partition.acquire(&ask(ALICE, 0..1, 1), &limits).0, []);
    assert_eq!(partition.archiving(), 1, "it has a dead letter first");
    assert!(partition.archive(&[offsets(0..1)]));
    assert_eq!(partition.start(), Offset::new(1));
}

#[test]
fn a_broker_that_dies_each_time_counts_and_a_return_does_not() {
    let (mut partition, mut kept) = (SharePartition::new(Offset::ZERO), Kept::default());
    let limits = Limits::default();
    for count in 1..=limits.deliveries_max {
        let (given, _) = partition.acquire(&ask(ALICE, 0..1, 1), &limits);
        assert_eq!(given[0].count, count);
        settle(&mut partition, ALICE, 0..1, Verdict::Return);
        let (given, _) = partition.acquire(&ask(ALICE, 0..1, 1), &limits);
        assert_eq!(given[0].count, count, "as if it had not been delivered");
        partition
            .end_step()
            .0
            .into_iter()
            .for_each(|keep| kept.apply(keep));
        partition = kept.restore();
    }
    let (given, tally) = partition.acquire(&ask(ALICE, 0..2, 1), &limits);
    assert_eq!(
        (given[0].offsets.clone(), tally.archived),
        (offsets(1..2), 1)
    );
}

/// A selector that wants every second record: the distance between the first that nobody wants and the last that somebody took is
/// not bounded, only the runs are.
#[test]
fn at_the_bound_of_runs_holes_are_given_out_and_nothing_behind_the_last_run() {
    let mut partition = SharePartition::new(Offset::ZERO);
    let limits = Limits::default();
    let second = |from: u64| {
        let within = (from..from + 1_000).map(|number| offsets(2 * number + 1..2 * number + 2));
        Ask {
            within: within.collect(),
            absent: Vec::new(),
            count_max: 1_000,
            ends: Vec::new(),
            holder: ALICE,
            until: None,
        }
    };
    let mut from = 0;
    loop {
        let (given, _) = partition.acquire(&second(from), &limits);
        let verdicts: Vec<_> = given
            .into_iter()
            .map(|piece| (piece.offsets, Verdict::Accept))
            .collect();
        if verdicts.is_empty() {
            break;
        }
        partition
            .settle(ALICE, &verdicts, Offset::ZERO, &limits)
            .expect("held");
        partition.end_step();
        from += 1_000;
    }
    assert_eq!(from, 66_000, "in steps of a thousand, 64 Ki runs");
    let end = 2 * from;
    assert_eq!(
        partition.acquire(&ask(BOB, end..end + 10, 5), &limits).0,
        []
    );
    let (given, _) = partition.acquire(&ask(BOB, 0..end + 10, 5), &limits);
    assert_eq!(given.len(), 5, "the first holes");
    assert_eq!(given[0].offsets, offsets(0..1));
    settle(&mut partition, BOB, 0..1, Verdict::Accept);
    assert_eq!(partition.start(), Offset::new(2));
}

#[test]
fn no_more_are_held_than_may_be_and_the_rest_waits() {
    let mut partition = SharePartition::new(Offset::ZERO);
    let limits = Limits::default();
    partition.acquire(&ask(ALICE, 0..100_000, 100_000), &limits);
    assert_eq!(partition.held(), 2_000);
    assert_eq!(partition.acquire(&ask(BOB, 0..100_000, 1), &limits).0, []);
    let from = partition.first_available(Offset::ZERO, Offset::new(100_000), &limits);
    assert_eq!(from, None);
    settle(&mut partition, ALICE, 5..6, Verdict::Accept);
    let from = partition.first_available(Offset::ZERO, Offset::new(100_000), &limits);
    assert_eq!(from, Some(Offset::new(2_000)));
}
