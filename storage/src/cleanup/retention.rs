//! Retention by age and size. Source: Kafka's `UnifiedLog.deleteOldSegments`, but for the clock: age counts from the broker's
//! append time, so that a device clock in 2099 or 1970 neither saves nor kills data.

use model::{Offset, Timestamp};

use super::holds::{self, Hold};
use super::reason::{HeldBack, Reason, age_ms};
use super::{LogView, Outcome, Plan, Policy, SegmentPlan, SegmentView};
use crate::log::LogSettings;

/// The limits; None keeps for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// `retention.ms`
    pub retention_ms: Option<u64>,
    /// `retention.bytes`
    pub retention_bytes: Option<u64>,
}

impl Retention {
    /// Those of a log.
    pub fn of(settings: &LogSettings) -> Retention {
        Retention {
            retention_ms: settings.retention_ms,
            retention_bytes: settings.retention_bytes,
        }
    }
}

/// Plans which segments go. `now` should come from a clock that does not jump: the engine adds the monotonic time since its
/// start to the wall clock at its start. A segment goes by size only if what remains is still `retention_bytes` or more.
/// The active segment, and what is in the WAL only, go by age too. A hold keeps what is not below the start already.
pub fn plan(view: &LogView, retention: Retention, holds: &[Hold], now: Timestamp) -> Plan {
    let mut log_bytes = view.bytes();
    let mut removed_end = None;
    let mut all_go = true;
    let mut segments = Vec::with_capacity(view.segments.len());
    for segment in &view.segments {
        let outcome = if all_go {
            judge(segment, view.start_offset, log_bytes, retention, holds, now)
        } else {
            Outcome::Keep(HeldBack::BehindKept)
        };
        if let Outcome::Remove(_) = outcome {
            log_bytes -= segment.bytes;
            removed_end = Some(segment.end_offset);
        } else {
            all_go = false;
        }
        segments.push(SegmentPlan {
            segment: *segment,
            outcome,
        });
    }
    if all_go
        && let Some((end, last_append_time)) = view.tail_end
        && is_due(last_append_time, retention, now).is_some()
        && holds::first_on(holds, &(view.start_offset..end)).is_none()
    {
        // On a full disk it waits in the WAL for long.
        removed_end = Some(end);
    }
    Plan {
        log: view.log,
        policy: Policy::Retention,
        rolls_active: false,
        segments,
        raise_start_to: removed_end.filter(|end| *end > view.start_offset),
    }
}

/// Whether what was appended then is kept no longer: its age and the limit.
fn is_due(last_append_time: Timestamp, retention: Retention, now: Timestamp) -> Option<(u64, u64)> {
    let age_ms = age_ms(now, last_append_time);
    let limit = retention.retention_ms?;
    (age_ms > limit).then_some((age_ms, limit))
}

/// What happens to the first segment that is left.
fn judge(
    segment: &SegmentView,
    start_offset: Offset,
    log_bytes: u64,
    retention: Retention,
    holds: &[Hold],
    now: Timestamp,
) -> Outcome {
    if !segment.sealed && segment.bytes == 0 {
        return Outcome::Keep(HeldBack::Empty);
    }
    if segment.end_offset <= start_offset {
        return Outcome::Remove(Reason::BelowStart);
    }
    let reason = match limit_passed(segment, log_bytes, retention, now) {
        Ok(reason) => reason,
        Err(held_back) => return Outcome::Keep(held_back),
    };
    let kept = start_offset.max(segment.id.base)..segment.end_offset;
    match holds::first_on(holds, &kept) {
        Some(hold) => Outcome::Keep(HeldBack::Hold {
            name: hold.name.clone(),
        }),
        None => Outcome::Remove(reason),
    }
}

/// The limit that the first segment has passed, or the first one that it has not.
fn limit_passed(
    segment: &SegmentView,
    log_bytes: u64,
    retention: Retention,
    now: Timestamp,
) -> Result<Reason, HeldBack> {
    if let Some((age_ms, retention_ms)) = is_due(segment.last_append_time, retention, now) {
        return Ok(Reason::Age {
            age_ms,
            retention_ms,
        });
    }
    if let Some(retention_bytes) = retention.retention_bytes
        && log_bytes.saturating_sub(segment.bytes) >= retention_bytes
        && segment.bytes > 0
    {
        return Ok(Reason::Size {
            log_bytes,
            retention_bytes,
        });
    }
    Err(match retention {
        Retention {
            retention_ms: Some(retention_ms),
            ..
        } => HeldBack::Young {
            age_ms: age_ms(now, segment.last_append_time),
            retention_ms,
        },
        Retention {
            retention_bytes: Some(retention_bytes),
            ..
        } => HeldBack::BelowSize {
            log_bytes,
            retention_bytes,
        },
        Retention { .. } => HeldBack::NoLimit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::SegmentKind;
    use crate::segment::SegmentId;
    use model::{LogId, PartitionId, TopicId};
    use proptest::prelude::*;

    /// Segments of 10 offsets each, `(bytes, last append time)`; the last one is active.
    fn view(segments: &[(u64, i64)], start_offset: u64, tail_bytes: u64) -> LogView {
        let segment = |(n, (bytes, time)): (usize, &(u64, i64))| SegmentView {
            id: SegmentId::first(Offset::new(n as u64 * 10)),
            end_offset: Offset::new(n as u64 * 10 + 10),
            bytes: *bytes,
            last_append_time: Timestamp::from_millis(*time),
            sealed: n + 1 < segments.len(),
            kind: SegmentKind::Plain,
            records: 10,
            max_timestamp: Timestamp::from_millis(*time),
            first_append_time: Timestamp::from_millis(*time),
        };
        LogView {
            log: LogId::new(TopicId::from_bytes([1; 16]), PartitionId::new(0)),
            start_offset: Offset::new(start_offset),
            compacted_to: Offset::ZERO,
            segments: segments.iter().enumerate().map(segment).collect(),
            tail_bytes,
            tail_begin: None,
            tail_end: None,
            set_aside: Vec::new(),
        }
    }

    /// The plan in words.
    fn check(
        view: &LogView,
        retention_ms: Option<u64>,
        retention_bytes: Option<u64>,
        expected: &str,
    ) {
        let plan = plan(
            view,
            Retention {
                retention_ms,
                retention_bytes,
            },
            &[],
            Timestamp::from_millis(1_000),
        );
        let mut words: Vec<String> = plan
            .removed()
            .map(|(segment, reason)| match reason {
                Reason::BelowStart => format!("{} below", segment.id.base),
                Reason::Age { age_ms, .. } => format!("{} age {age_ms}", segment.id.base),
                Reason::Size { log_bytes, .. } => format!("{} size {log_bytes}", segment.id.base),
                other => panic!("a log's own limits know no other log, nor keys: {other:?}"),
            })
            .collect();
        words.extend(plan.raise_start_to.map(|start| format!("start {start}")));
        assert_eq!(words.join(", "), expected);
    }

    #[test]
    fn segments_go_by_age_from_the_front_and_stop_at_the_first_that_is_kept() {
        let segments = [(100, 100), (100, 900), (100, 200), (100, 950)];
        check(
            &view(&segments, 0, 0),
            Some(500),
            None,
            "0 age 900, start 10",
        );
        check(&view(&segments, 0, 0), Some(900), None, "");
        check(&view(&segments, 0, 0), None, None, "");
    }

    #[test]
    fn segments_go_by_size_only_as_long_as_enough_remains() {
        let segments = [(100, 1_000), (100, 1_000), (100, 1_000), (50, 1_000)];
        check(
            &view(&segments, 0, 0),
            None,
            Some(250),
            "0 size 350, start 10",
        );
        check(&view(&segments, 0, 0), None, Some(251), "");
        check(
            &view(&segments, 0, 1),
            None,
            Some(251),
            "0 size 351, start 10",
        );
        check(
            &view(&segments, 0, 0),
            None,
            Some(0),
            "0 size 350, 10 size 250, 20 size 150, 30 size 50, start 40",
        );
    }

    #[test]
    fn segments_below_the_start_go_whatever_the_limits_say() {
        let segments = [(100, 1_000), (100, 1_000), (100, 1_000)];
        check(&view(&segments, 19, 0), None, None, "0 below");
        check(&view(&segments, 20, 0), None, None, "0 below, 10 below");
    }

    #[test]
    fn an_old_active_segment_goes_too_and_what_waits_in_the_wal_when_all_of_it_is_old() {
        let mut view = view(&[(100, 100), (100, 100)], 0, 5);
        let all = "0 age 900, 10 age 900, start 20";
        check(&view, Some(500), None, all);
        view.tail_end = Some((Offset::new(25), Timestamp::from_millis(600)));
        check(&view, Some(500), None, all);
        view.tail_end = Some((Offset::new(25), Timestamp::from_millis(400)));
        check(&view, Some(500), None, "0 age 900, 10 age 900, start 25");
        check(&view, Some(950), None, "");
        view.segments.clear();
        check(&view, Some(500), None, "start 25");
    }

    #[test]
    fn appends_from_the_future_are_not_old() {
        check(&view(&[(100, 5_000), (100, 100)], 0, 0), Some(0), None, "");
    }

    #[test]
    fn each_segment_that_stays_names_the_first_rule_that_holds_it_back() {
        let held_back = |view: &LogView, ms, bytes, holds: &[Hold]| -> Vec<String> {
            let limits = Retention {
                retention_ms: ms,
                retention_bytes: bytes,
            };
            let plan = plan(view, limits, holds, Timestamp::from_millis(1_000));
            let words = plan.segments.iter().map(|one| match &one.outcome {
                Outcome::Keep(held_back) => held_back.to_string(),
                other => other.name().to_owned(),
            });
            words.collect()
        };
        let young = view(&[(100, 100), (100, 900), (100, 200)], 0, 0);
        assert_eq!(
            held_back(&young, Some(500), None, &[]),
            [
                "remove",
                "its last record was appended 100 ms ago, retention.ms is 500 ms",
                "segments are removed from the front, and an older one is kept",
            ]
        );
        let below = "the partition holds 300 bytes with it, and would hold less than retention.bytes (250) without it";
        assert_eq!(held_back(&young, None, Some(250), &[])[0], below);
        let none = "no limit: retention.ms and retention.bytes are not set, or cleanup.policy does not name delete";
        assert_eq!(held_back(&young, None, None, &[])[0], none);
        let hold = Hold {
            name: "an audit".into(),
            offsets: Offset::new(5)..Offset::new(8),
            key: None,
        };
        let held = held_back(&young, Some(500), None, std::slice::from_ref(&hold));
        assert_eq!(held[0], "held by an audit");
        // What lies before the start is gone for readers: a hold on it keeps no file.
        let passed = view(&[(100, 100), (100, 900), (100, 200)], 10, 0);
        let held = held_back(&passed, Some(500), None, &[hold]);
        assert_eq!(held[0], "remove");
    }

    proptest! {
        #[test]
        fn a_second_plan_after_the_first_finds_nothing(
            segments in prop::collection::vec((0u64..300, 0i64..1_200), 1..30),
            start in 0u64..300, ms in prop::option::of(0u64..1_200), bytes in prop::option::of(0u64..3_000),
        ) {
            let before = view(&segments, start, 0);
            let retention = Retention { retention_ms: ms, retention_bytes: bytes };
            let first = plan(&before, retention, &[], Timestamp::from_millis(1_000));
            let mut after = before.clone();
            after.segments.drain(..first.removed().count());
            after.start_offset = first.raise_start_to.unwrap_or(before.start_offset);
            prop_assert!(after.start_offset >= before.start_offset);
            let second = plan(&after, retention, &[], Timestamp::from_millis(1_000));
            prop_assert!(second.is_empty());
        }
    }
}
