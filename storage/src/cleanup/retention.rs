//! Retention by age and size. Source: Kafka's `UnifiedLog.deleteOldSegments`, but for the clock: age counts from the broker's
//! append time, so that a device clock in 2099 or 1970 neither saves nor kills data.

use model::{Offset, Timestamp};

use super::{LogView, Plan, Reason, Removal, SegmentView};

/// The limits; None keeps for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// `retention.ms`
    pub retention_ms: Option<u64>,
    /// `retention.bytes`
    pub retention_bytes: Option<u64>,
}

/// Plans which segments go. `now` should come from a clock that does not jump: the engine adds the monotonic time since its
/// start to the wall clock at its start. A segment goes by size only if what remains is still `retention_bytes` or more.
pub fn plan(view: &LogView, retention: Retention, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let mut log_bytes = view.tail_bytes
        + view
            .segments
            .iter()
            .map(|segment| segment.bytes)
            .sum::<u64>();
    for segment in &view.segments {
        let Some(reason) = reason(segment, view.start_offset, log_bytes, retention, now) else {
            break;
        };
        if !segment.sealed && segment.bytes == 0 {
            break;
        }
        log_bytes -= segment.bytes;
        plan.remove.push(Removal {
            id: segment.id,
            end_offset: segment.end_offset,
            bytes: segment.bytes,
            reason,
        });
    }
    let mut removed_end = plan.remove.last().map(|removal| removal.end_offset);
    if plan.remove.len() == view.segments.len()
        && let Some((end, last_append_time)) = view.tail_end
        && is_due(last_append_time, retention, now).is_some()
    {
        // On a full disk it waits in the WAL for long.
        removed_end = Some(end);
    }
    plan.raise_start_to = removed_end.filter(|end| *end > view.start_offset);
    plan
}

/// Whether what was appended then is kept no longer: its age and the limit.
fn is_due(last_append_time: Timestamp, retention: Retention, now: Timestamp) -> Option<(u64, u64)> {
    let age_ms = u64::try_from(now.millis_since(last_append_time)).unwrap_or(0);
    let limit = retention.retention_ms?;
    (age_ms > limit).then_some((age_ms, limit))
}

fn reason(
    segment: &SegmentView,
    start_offset: Offset,
    log_bytes: u64,
    retention: Retention,
    now: Timestamp,
) -> Option<Reason> {
    if segment.end_offset <= start_offset {
        return Some(Reason::BelowStart);
    }
    if let Some((age_ms, retention_ms)) = is_due(segment.last_append_time, retention, now) {
        return Some(Reason::Age {
            age_ms,
            retention_ms,
        });
    }
    match retention {
        Retention {
            retention_bytes: Some(limit),
            ..
        } if log_bytes.saturating_sub(segment.bytes) >= limit && segment.bytes > 0 => {
            Some(Reason::Size {
                log_bytes,
                retention_bytes: limit,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        };
        LogView {
            log: LogId::new(TopicId::from_bytes([1; 16]), PartitionId::new(0)),
            start_offset: Offset::new(start_offset),
            segments: segments.iter().enumerate().map(segment).collect(),
            tail_bytes,
            tail_end: None,
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
            Timestamp::from_millis(1_000),
        );
        let mut words: Vec<String> = plan
            .remove
            .iter()
            .map(|removal| match removal.reason {
                Reason::BelowStart => format!("{} below", removal.id.base),
                Reason::Age { age_ms, .. } => format!("{} age {age_ms}", removal.id.base),
                Reason::Size { log_bytes, .. } => format!("{} size {log_bytes}", removal.id.base),
                Reason::StoreSize { .. } => panic!("a log's own limits know no other log"),
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

    proptest! {
        #[test]
        fn a_second_plan_after_the_first_finds_nothing(
            segments in prop::collection::vec((0u64..300, 0i64..1_200), 1..30),
            start in 0u64..300, ms in prop::option::of(0u64..1_200), bytes in prop::option::of(0u64..3_000),
        ) {
            let before = view(&segments, start, 0);
            let retention = Retention { retention_ms: ms, retention_bytes: bytes };
            let first = plan(&before, retention, Timestamp::from_millis(1_000));
            let mut after = before.clone();
            after.segments.drain(..first.remove.len());
            after.start_offset = first.raise_start_to.unwrap_or(before.start_offset);
            prop_assert!(after.start_offset >= before.start_offset);
            let second = plan(&after, retention, Timestamp::from_millis(1_000));
            prop_assert!(second.remove.is_empty() && second.raise_start_to.is_none());
        }
    }
}
