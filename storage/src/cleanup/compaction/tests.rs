use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use proptest::prelude::*;

use super::*;
use crate::manifest::SegmentKind;
use crate::segment::SegmentId;

/// Segments of 10 offsets each, `(bytes, append time)`; the last one is active.
fn view(segments: &[(u64, i64)], compacted_to: u64) -> LogView {
    let segment = |(n, (bytes, time)): (usize, &(u64, i64))| SegmentView {
        id: SegmentId::first(Offset::new(n as u64 * 10)),
        kind: SegmentKind::Plain,
        end_offset: Offset::new(n as u64 * 10 + 10),
        bytes: *bytes,
        records: 10,
        max_timestamp: Timestamp::from_millis(*time),
        first_append_time: Timestamp::from_millis(*time),
        last_append_time: Timestamp::from_millis(*time),
        sealed: n + 1 < segments.len(),
    };
    LogView {
        compacted_to: Offset::new(compacted_to),
        segments: segments.iter().enumerate().map(segment).collect(),
        ..LogView::gone(LogId::new(
            TopicId::from_bytes([1; 16]),
            PartitionId::new(0),
        ))
    }
}

const HALF: Compaction = Compaction {
    segment_bytes: 250,
    min_dirty_ppm: 500_000,
    min_lag_ms: 0,
    max_lag_ms: None,
    asked: false,
};

/// Each segment in a word: the group that it is written with, or the rule that holds it back.
fn words(view: &LogView, rules: Compaction, holds: &[Hold]) -> String {
    let plan = plan(view, &rules, holds, Timestamp::from_millis(1_000));
    let word = |one: &SegmentPlan| match &one.outcome {
        Outcome::Rewrite { reason, group } => format!("rewrite {group} {}", reason.name()),
        Outcome::Merge { group, .. } => format!("merge {group}"),
        Outcome::Keep(held_back) => held_back.name().to_owned(),
        Outcome::Remove(_) => panic!("compaction removes no segment"),
    };
    let mut words: Vec<String> = plan.segments.iter().map(word).collect();
    words.extend(plan.rolls_active.then(|| "roll".to_owned()));
    words.join(", ")
}

#[test]
fn a_log_is_compacted_when_more_of_it_is_dirty_than_the_ratio() {
    let segments = [(200, 100), (100, 100), (100, 100), (50, 100)];
    // Half of it is not more than half.
    assert_eq!(
        words(&view(&segments, 10), HALF, &[]),
        "clean, min_cleanable_dirty_ratio, min_cleanable_dirty_ratio, active_segment"
    );
    let reason = "min_cleanable_dirty_ratio";
    assert_eq!(
        words(&view(&segments, 0), HALF, &[]),
        format!("rewrite 0 {reason}, rewrite 1 {reason}, rewrite 1 {reason}, active_segment")
    );
    // Halves of segments wait for the next compaction, which puts them together without writing anything twice.
    assert_eq!(
        words(&view(&segments, 30), HALF, &[]),
        "clean, clean, clean, active_segment"
    );
    let quarters = [(200, 100), (50, 100), (50, 100), (50, 100)];
    assert_eq!(
        words(&view(&quarters, 30), HALF, &[]),
        "clean, merge 0, merge 0, active_segment"
    );
    let asked = Compaction {
        asked: true,
        ..HALF
    };
    assert_eq!(
        words(&view(&segments, 20), asked, &[]),
        "rewrite 0 asked, rewrite 1 asked, rewrite 1 asked, active_segment, roll"
    );
}

#[test]
fn lags_count_from_the_brokers_append() {
    let segments = [(100, 100), (100, 900), (100, 200), (50, 990)];
    let young = Compaction {
        min_lag_ms: 150,
        asked: true,
        ..HALF
    };
    // What is asked for does not make the lag shorter, and nothing behind a young segment is touched.
    assert_eq!(
        words(&view(&segments, 0), young, &[]),
        "rewrite 0 asked, min_compaction_lag_ms, behind_lag, active_segment, roll"
    );
    let view_of = |first: i64| view(&[(900, 100), (10, first), (50, 990)], 10);
    let overdue = Compaction {
        max_lag_ms: Some(500),
        ..HALF
    };
    let due = Timestamp::from_millis(1_000);
    assert_eq!(
        words(&view_of(501), overdue, &[]),
        "clean, min_cleanable_dirty_ratio, active_segment"
    );
    assert_eq!(
        next_due(&view_of(501), &overdue, due),
        Some(Timestamp::from_millis(1_001))
    );
    assert_eq!(
        words(&view_of(500), overdue, &[]),
        "rewrite 0 max_compaction_lag_ms, rewrite 1 max_compaction_lag_ms, active_segment"
    );
    assert_eq!(delay_ms(&view_of(400), &overdue, due), 100);
}

#[test]
fn the_active_segment_is_rolled_when_the_lag_demands_it() {
    let overdue = Compaction {
        max_lag_ms: Some(500),
        ..HALF
    };
    assert_eq!(
        words(&view(&[(100, 100), (50, 400)], 10), overdue, &[]),
        "clean, active_segment, roll"
    );
    let mut in_wal = view(&[(100, 100), (0, 100)], 20);
    assert_eq!(words(&in_wal, overdue, &[]), "clean, active_segment");
    in_wal.tail_begin = Some(Timestamp::from_millis(400));
    in_wal.tail_end = Some((Offset::new(25), Timestamp::from_millis(450)));
    assert_eq!(words(&in_wal, overdue, &[]), "clean, active_segment, roll");
    assert_eq!(
        words(&view(&[(100, 100), (50, 600)], 10), overdue, &[]),
        "clean, active_segment"
    );
}

#[test]
fn nothing_is_touched_from_a_hold_on() {
    let hold = Hold {
        name: "an audit".into(),
        offsets: Offset::new(15)..Offset::new(16),
        key: None,
    };
    let asked = Compaction {
        asked: true,
        ..HALF
    };
    let segments = [(100, 100), (100, 100), (100, 100), (50, 100)];
    assert_eq!(
        words(&view(&segments, 0), asked, &[hold]),
        "rewrite 0 asked, hold, behind_hold, active_segment, roll"
    );
}

#[test]
fn a_segment_that_is_set_aside_is_left_out_and_does_not_count() {
    let mut view = view(&[(100, 100), (400, 100), (100, 100), (50, 100)], 10);
    view.set_aside = vec![(view.segments[1].id, "a bad sector".into())];
    assert_eq!(
        words(&view, HALF, &[]),
        "clean, set_aside, min_cleanable_dirty_ratio, active_segment"
    );
    let asked = Compaction {
        asked: true,
        ..HALF
    };
    assert_eq!(
        words(&view, asked, &[]),
        "rewrite 0 asked, set_aside, rewrite 1 asked, active_segment, roll"
    );
    view.compacted_to = Offset::new(30);
    assert_eq!(
        words(&view, asked, &[]),
        "clean, set_aside, clean, active_segment, roll"
    );
}

#[test]
fn what_lies_before_the_start_is_retentions() {
    let mut view = view(&[(100, 100), (100, 100), (50, 100)], 0);
    view.start_offset = Offset::new(12);
    assert_eq!(
        words(&view, HALF, &[]),
        "below_start, rewrite 0 min_cleanable_dirty_ratio, active_segment"
    );
}

proptest! {
    #[test]
    fn groups_are_neighbours_that_fit_into_one_segment(
        segments in prop::collection::vec((1u64..400, 0i64..900), 1..20), compacted in 0u64..20, asked in any::<bool>(),
    ) {
        let view = view(&segments, compacted * 10);
        let rules = Compaction { asked, ..HALF };
        let plan = plan(&view, &rules, &[], Timestamp::from_millis(1_000));
        for group in plan.groups() {
            let bytes: u64 = group.iter().map(|segment| segment.bytes).sum();
            prop_assert!(group.len() == 1 || bytes <= rules.segment_bytes);
            prop_assert!(group.windows(2).all(|pair| pair[0].end_offset == pair[1].id.base));
        }
        let rewritten = plan.segments.iter().filter(|one| matches!(one.outcome, Outcome::Rewrite { .. })).count();
        prop_assert!(rewritten == 0 || rewritten == segments.len() - 1, "all that may be, or none");
    }
}
