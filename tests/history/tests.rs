//! The judge is judged: histories that may happen pass, and each kind of lie is found.

use super::*;

fn record(value: u64, time: i64) -> Record {
    Record { value, time }
}

/// A history from its operations, each with the moments before and after it.
fn history(operations: &[(u64, u64, What)]) -> Vec<Operation> {
    let operations = operations
        .iter()
        .map(|(invoked, completed, what)| Operation {
            invoked: *invoked,
            completed: *completed,
            what: what.clone(),
        });
    operations.collect()
}

fn produce(value: u64, time: i64, base: u64) -> What {
    let records = vec![record(value, time)];
    let base = Outcome::Done(base);
    What::Produce { records, base }
}

fn lost(value: u64, time: i64) -> What {
    let records = vec![record(value, time)];
    let base = Outcome::Unknown;
    What::Produce { records, base }
}

fn read(from: u64, values: &[(u64, i64)]) -> What {
    let records = values.iter().map(|(value, time)| record(*value, *time));
    What::Read {
        from,
        found: (from..).zip(records).collect(),
        end: None,
    }
}

fn end(end: u64) -> What {
    What::Bounds {
        start: None,
        end: Some(end),
    }
}

fn start(start: u64) -> What {
    What::Bounds {
        start: Some(start),
        end: None,
    }
}

fn delete(before: u64) -> What {
    What::DeleteRecords {
        before,
        outcome: Outcome::Done(()),
    }
}

fn seek(wanted: i64, found: Option<(u64, i64)>) -> What {
    What::SeekTime { wanted, found }
}

fn commit(offset: u64, outcome: Outcome<()>) -> What {
    What::Commit {
        group: 1,
        offset,
        outcome,
    }
}

fn committed(offset: Option<u64>) -> What {
    What::Committed { group: 1, offset }
}

#[track_caller]
fn passes(operations: &[(u64, u64, What)]) {
    assert_eq!(check(&history(operations)), Ok(()));
}

#[track_caller]
fn fails(operations: &[(u64, u64, What)], because: &str) {
    let found = check(&history(operations)).expect_err("it cannot have happened");
    assert!(found.0.contains(because), "{found:?}");
}

#[test]
fn one_thing_after_the_other_passes() {
    passes(&[
        (0, 1, produce(1, 50, 0)),
        (2, 3, produce(2, 40, 1)),
        (4, 5, read(0, &[(1, 50), (2, 40)])),
        (6, 7, end(2)),
        (8, 9, seek(45, Some((0, 50)))),
        (10, 11, delete(1)),
        (12, 13, start(1)),
        (14, 15, What::BelowStart { from: 0 }),
        (16, 17, seek(45, None)),
        (18, 19, read(2, &[])),
    ]);
}

#[test]
fn what_overlaps_may_come_in_either_order() {
    for seen in [0, 1] {
        passes(&[(0, 10, produce(1, 5, 0)), (1, 9, end(seen))]);
        let found = (seen == 1).then_some((0, 5));
        passes(&[(0, 10, produce(1, 5, 0)), (1, 9, seek(0, found))]);
        passes(&[
            (0, 1, produce(1, 5, 0)),
            (2, 10, delete(1)),
            (3, 9, start(seen)),
        ]);
    }
    passes(&[(0, 10, produce(1, 5, 1)), (1, 9, produce(2, 5, 0))]);
}

#[test]
fn what_got_no_answer_may_have_happened_or_not() {
    passes(&[(0, 1, lost(1, 5)), (2, 3, produce(2, 5, 0))]);
    passes(&[
        (0, 1, lost(1, 5)),
        (2, 3, produce(2, 5, 1)),
        (4, 5, read(0, &[(1, 5), (2, 5)])),
    ]);
    passes(&[
        (0, 1, commit(7, Outcome::Unknown)),
        (2, 3, committed(None)),
        (4, 5, committed(Some(7))),
    ]);
}

#[test]
fn two_records_at_one_offset_and_one_record_at_two() {
    let other = "has shown";
    fails(&[(0, 1, produce(1, 5, 0)), (2, 3, produce(2, 5, 0))], other);
    fails(
        &[
            (0, 1, produce(1, 5, 0)),
            (0, 2, lost(2, 5)),
            (3, 4, read(0, &[(2, 5)])),
        ],
        other,
    );
    fails(
        &[(0, 1, produce(1, 5, 0)), (3, 4, read(0, &[(1, 5), (1, 5)]))],
        "is at 0 and at 1",
    );
}

#[test]
fn a_record_that_nobody_sent_or_not_yet_or_not_so_or_that_was_refused() {
    fails(&[(0, 1, read(0, &[(1, 5)]))], "nobody sent");
    fails(
        &[(0, 1, read(0, &[(1, 5)])), (2, 3, lost(1, 5))],
        "before it was sent",
    );
    fails(
        &[(0, 1, lost(1, 5)), (2, 3, read(0, &[(1, 6)]))],
        "was sent",
    );
    let records = vec![record(1, 5)];
    let base = Outcome::Refused;
    let refused = What::Produce { records, base };
    fails(
        &[(0, 1, refused), (2, 3, read(0, &[(1, 5)]))],
        "was refused",
    );
}

#[test]
fn appends_that_are_turned_around() {
    fails(
        &[(0, 1, produce(1, 5, 1)), (2, 3, produce(2, 5, 0))],
        "before 2, which was reached",
    );
}

#[test]
fn an_acknowledged_record_that_is_lost() {
    let acknowledged = (0, 1, produce(1, 5, 0));
    fails(&[acknowledged.clone(), (2, 3, read(0, &[]))], "is empty");
    fails(&[acknowledged.clone(), (2, 3, end(0))], "the end was 1");
    fails(
        &[acknowledged.clone(), (2, 3, seek(0, None))],
        "passes over",
    );
    fails(&[acknowledged, (2, 3, produce(2, 5, 0))], "has shown");
}

#[test]
fn a_record_that_was_shown_and_is_lost() {
    fails(
        &[
            (0, 9, lost(1, 5)),
            (1, 2, read(0, &[(1, 5)])),
            (3, 4, read(0, &[])),
        ],
        "is empty",
    );
    fails(
        &[(0, 9, lost(1, 5)), (1, 2, end(1)), (3, 4, produce(2, 5, 0))],
        "before 1, which was reached",
    );
}

#[test]
fn an_end_that_goes_back_or_that_nobody_can_have_reached() {
    fails(
        &[(0, 9, lost(1, 5)), (1, 2, end(1)), (3, 4, end(0))],
        "the end was 1",
    );
    fails(&[(0, 1, end(1)), (2, 3, lost(1, 5))], "no more than 0");
    let past = What::Read {
        from: 0,
        found: vec![(0, record(1, 5))],
        end: Some(0),
    };
    fails(
        &[(0, 1, produce(1, 5, 0)), (2, 3, past)],
        "more than is durable",
    );
}

#[test]
fn a_read_with_a_hole() {
    let hole = What::Read {
        from: 0,
        found: vec![(0, record(1, 5)), (2, record(3, 5))],
        end: None,
    };
    fails(
        &[(0, 1, produce(1, 5, 0)), (2, 3, lost(3, 5)), (4, 5, hole)],
        "leaves 1 out",
    );
}

#[test]
fn a_start_that_goes_back_or_that_nobody_wanted() {
    let two = [(0, 1, produce(1, 5, 0)), (2, 3, produce(2, 5, 1))];
    let with = |more: &[(u64, u64, What)]| [&two[..], more].concat();
    fails(
        &with(&[(4, 5, delete(1)), (6, 7, start(0))]),
        "the start was 1",
    );
    fails(&with(&[(4, 5, start(1))]), "nobody deleted up to 1");
    fails(
        &with(&[(4, 5, What::BelowStart { from: 0 })]),
        "nobody deleted as far",
    );
    fails(
        &with(&[(4, 5, delete(1)), (6, 7, read(0, &[(1, 5)]))]),
        "the start was 1",
    );
    fails(
        &with(&[
            (4, 9, delete(1)),
            (5, 6, What::BelowStart { from: 0 }),
            (7, 8, read(0, &[(1, 5)])),
        ]),
        "the start was 1",
    );
}

#[test]
fn a_search_by_time_that_is_not_exact() {
    let three = [
        (0, 1, produce(1, 50, 0)),
        (2, 3, produce(2, 90, 1)),
        (4, 5, produce(3, 60, 2)),
    ];
    let with = |more: &[(u64, u64, What)]| [&three[..], more].concat();
    passes(&with(&[(6, 7, seek(55, Some((1, 90))))]));
    fails(&with(&[(6, 7, seek(55, Some((2, 60))))]), "passes over 1");
    fails(&with(&[(6, 7, seek(55, Some((0, 50))))]), "too early");
    fails(&with(&[(6, 7, seek(55, Some((1, 70))))]), "is there");
    fails(&with(&[(6, 7, seek(90, None))]), "passes over 1");
    let after = |found| with(&[(6, 7, delete(2)), (8, 9, seek(55, found))]);
    passes(&after(Some((2, 60))));
    fails(&after(Some((1, 90))), "finds what was deleted");
    fails(&after(None), "passes over 2");
}

#[test]
fn a_committed_offset_that_is_lost_or_moves_back() {
    let done = |offset| commit(offset, Outcome::Done(()));
    passes(&[(0, 1, done(5)), (2, 3, done(4)), (4, 5, committed(Some(4)))]);
    fails(
        &[(0, 1, done(5)), (2, 3, committed(None))],
        "both committed",
    );
    fails(
        &[(0, 1, done(5)), (2, 3, done(6)), (4, 5, committed(Some(5)))],
        "both committed",
    );
    // Two readers agree on an order, though nobody was told that the commits are done.
    fails(
        &[
            (0, 20, commit(5, Outcome::Unknown)),
            (1, 21, commit(6, Outcome::Unknown)),
            (2, 3, committed(Some(5))),
            (4, 5, committed(Some(6))),
            (6, 7, committed(Some(5))),
        ],
        "both committed",
    );
}

#[test]
fn a_committed_offset_that_nobody_committed_or_not_yet_or_that_was_refused() {
    fails(&[(0, 1, committed(Some(5)))], "nobody committed");
    fails(
        &[
            (0, 1, commit(5, Outcome::Refused)),
            (2, 3, committed(Some(5))),
        ],
        "nobody committed",
    );
    fails(
        &[
            (0, 1, committed(Some(5))),
            (2, 3, commit(5, Outcome::Unknown)),
        ],
        "before it was committed",
    );
}
