//! The bound of the whole store: which segments go, over all logs, so that it keeps no more than `store.bytes.max` of records.
//!
//! The oldest go first, by when the broker appended their last batch, whichever log they are of. What a log's own retention
//! keeps is no hindrance: the bound is there so that a disk never fills up. Only what holds no more than the latest of each key, a
//! compacted log without retention, is left alone: its oldest record may be the only one of its key. Pure, as all policies are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::holds::{Hold, first_on};
use super::reason::{HeldBack, Reason};
use super::{LogView, Outcome, Plan, Policy, SegmentView};

/// A log as the bound sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// What the log holds.
    pub view: LogView,
    /// What keeps parts of it.
    pub holds: Vec<Hold>,
    /// It is compacted, and no retention removes from it.
    pub is_only_compacted: bool,
}

impl Share {
    /// Why nothing of it goes, whatever the store holds.
    fn spared(&self) -> Option<HeldBack> {
        if self.view.log.is_reserved() {
            return Some(HeldBack::OwnLog);
        }
        self.is_only_compacted.then_some(HeldBack::OnlyCompacted)
    }
}

/// With a bound, segments are sealed at this part of it at the latest, so that what goes at once is a small part of the store.
const PARTS: u64 = 32;
/// But no segment is sealed for that before it has this size.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;

/// The size at which segments are sealed, for a topic that asks for `segment_bytes`.
pub fn segment_bytes(segment_bytes: u64, store_bytes_max: Option<u64>) -> u64 {
    let bound = store_bytes_max.map_or(u64::MAX, |max| (max / PARTS).max(SEGMENT_BYTES_MIN));
    segment_bytes.min(bound)
}

/// What counts of a log: what is in the write-ahead log only, and its segments but for those that are on their way out.
pub fn held_bytes(view: &LogView) -> u64 {
    let segments = live(view).map(|(_, segment)| segment.bytes);
    view.tail_bytes + segments.sum::<u64>()
}

fn live(view: &LogView) -> impl Iterator<Item = (usize, &SegmentView)> {
    let start = view.start_offset;
    view.segments
        .iter()
        .enumerate()
        .filter(move |(_, segment)| segment.end_offset > start)
}

/// Plans for each log what goes, so that all of them keep `bytes_max` at most: the segments that were written to longest ago,
/// active ones too. What is in the write-ahead log only stays, and so do logs of the broker's own and those that are only
/// compacted; all of them count. What a hold keeps stays, and what lies behind it.
pub fn plan(shares: &[Share], bytes_max: u64) -> Vec<Plan> {
    let keep = |share: &Share| {
        let held_back = share.spared().unwrap_or(HeldBack::StoreBelowSize);
        Plan::keep_all(Policy::StoreBound, &share.view, &held_back)
    };
    let mut plans: Vec<Plan> = shares.iter().map(keep).collect();
    let mut held: u64 = shares.iter().map(|share| held_bytes(&share.view)).sum();
    let mut segments: Vec<_> = shares
        .iter()
        .map(|share| live(&share.view).peekable())
        .collect();
    let mut oldest = BinaryHeap::new();
    for (log, segments) in segments.iter_mut().enumerate() {
        if shares[log].spared().is_none()
            && let Some((_, first)) = segments.peek()
        {
            oldest.push(Reverse((first.last_append_time, log)));
        }
    }
    while held > bytes_max {
        let Some(Reverse((_, log))) = oldest.pop() else {
            break;
        };
        let Some((index, segment)) = segments[log].next() else {
            continue;
        };
        if segment.bytes == 0 {
            // An active one that nothing was written to.
            continue;
        }
        let Share { view, holds, .. } = &shares[log];
        let kept = view.start_offset.max(segment.id.base)..segment.end_offset;
        if let Some(hold) = first_on(holds, &kept) {
            plans[log].segments[index].outcome = Outcome::Keep(HeldBack::Hold {
                name: hold.name.clone(),
            });
            continue;
        }
        plans[log].segments[index].outcome = Outcome::Remove(Reason::StoreSize {
            store_bytes: held,
            store_bytes_max: bytes_max,
        });
        plans[log].raise_start_to = Some(segment.end_offset);
        held -= segment.bytes;
        if let Some((_, next)) = segments[log].peek() {
            oldest.push(Reverse((next.last_append_time, log)));
        }
    }
    plans
}

#[cfg(test)]
mod tests {
    use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::SegmentKind;
    use crate::segment::SegmentId;

    /// Segments of 10 offsets each, `(bytes, last append time)`; the last one is active.
    fn view(log: u8, segments: &[(u64, i64)], start_offset: u64, tail_bytes: u64) -> Share {
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
        let view = LogView {
            log: LogId::new(TopicId::from_bytes([log; 16]), PartitionId::new(0)),
            start_offset: Offset::new(start_offset),
            compacted_to: Offset::ZERO,
            segments: segments.iter().enumerate().map(segment).collect(),
            tail_bytes,
            tail_begin: None,
            tail_end: None,
            set_aside: Vec::new(),
        };
        Share {
            view,
            holds: Vec::new(),
            is_only_compacted: false,
        }
    }

    /// The plans in words: for each log the base offsets that go.
    fn check(views: &[Share], bytes_max: u64, expected: &[&str]) {
        let words = |plan: &Plan| {
            let mut words: Vec<String> = plan
                .removed()
                .map(|(segment, _)| segment.id.base.to_string())
                .collect();
            words.extend(plan.raise_start_to.map(|start| format!("start {start}")));
            words.join(", ")
        };
        let plans: Vec<String> = plan(views, bytes_max).iter().map(words).collect();
        assert_eq!(plans, expected);
    }

    #[test]
    fn what_is_held_stays_and_the_bound_takes_from_others() {
        let mut views = [
            view(1, &[(100, 10), (100, 20)], 0, 0),
            view(2, &[(100, 30), (100, 40)], 0, 0),
        ];
        views[0].holds.push(Hold {
            name: "evidence".into(),
            offsets: Offset::new(3)..Offset::new(4),
            key: None,
        });
        let plans = plan(&views, 250);
        assert!(plans[0].is_empty(), "{:?}", plans[0]);
        assert_eq!(plans[0].segments[0].outcome.rule(), "hold");
        assert_eq!(plans[1].raise_start_to, Some(Offset::new(20)));
    }

    #[test]
    fn the_oldest_segments_of_all_logs_go_until_the_rest_fits() {
        let views = [
            view(1, &[(100, 10), (100, 40), (100, 90)], 0, 0),
            view(2, &[(100, 20), (100, 30), (100, 95)], 0, 0),
        ];
        check(&views, 600, &["", ""]);
        check(&views, 599, &["0, start 10", ""]);
        check(&views, 300, &["0, start 10", "0, 10, start 20"]);
        check(&views, 200, &["0, 10, start 20", "0, 10, start 20"]);
    }

    #[test]
    fn what_is_on_its_way_out_already_does_not_count() {
        let views = [view(1, &[(100, 10), (100, 40), (100, 90)], 10, 0)];
        check(&views, 200, &[""]);
        check(&views, 199, &["10, start 20"]);
    }

    #[test]
    fn what_has_not_settled_counts() {
        let views = [view(1, &[(100, 10), (100, 90)], 0, 50)];
        check(&views, 250, &[""]);
        check(&views, 249, &["0, start 10"]);
    }

    #[test]
    fn an_active_segment_goes_when_it_was_written_to_longest_ago() {
        let views = [
            view(1, &[(100, 80), (100, 90)], 0, 0),
            view(2, &[(100, 10)], 0, 0),
            view(3, &[(100, 85)], 0, 0),
        ];
        check(&views, 300, &["", "0, start 10", ""]);
        check(&views, 100, &["0, start 10", "0, start 10", "0, start 10"]);
    }

    #[test]
    fn the_brokers_own_logs_are_never_touched() {
        let mut own = view(1, &[(100, 10), (100, 20)], 0, 0);
        own.view.log = LogId::METADATA;
        let topic = view(2, &[(100, 30), (100, 40)], 0, 0);
        check(&[own, topic], 100, &["", "0, 10, start 20"]);
    }

    #[test]
    fn the_latest_of_each_key_is_never_touched_and_counts() {
        let mut table = view(1, &[(100, 10), (100, 20)], 0, 0);
        table.is_only_compacted = true;
        let topic = view(2, &[(100, 30), (100, 40)], 0, 0);
        check(&[table.clone(), topic.clone()], 300, &["", "0, start 10"]);
        check(
            &[table.clone(), topic.clone()],
            100,
            &["", "0, 10, start 20"],
        );
        let plans = plan(&[table, topic], 100);
        assert_eq!(plans[0].segments[0].outcome.rule(), "only_compacted");
    }

    #[test]
    fn segments_are_sealed_at_a_small_part_of_the_bound() {
        assert_eq!(segment_bytes(1 << 30, None), 1 << 30);
        assert_eq!(segment_bytes(1 << 30, Some(64 << 20)), 2 << 20);
        assert_eq!(segment_bytes(1 << 30, Some(1 << 20)), 1 << 20);
        assert_eq!(segment_bytes(4096, Some(1 << 40)), 4096);
    }

    proptest! {
        #[test]
        fn nothing_goes_that_need_not_and_nothing_stays_that_must_go(
            logs in prop::collection::vec(prop::collection::vec((1u64..300, 0i64..1_200), 1..8), 1..6), max in 0u64..5_000,
        ) {
            let views: Vec<Share> =
                logs.iter().enumerate().map(|(n, segments)| view(n as u8 + 1, segments, 0, 0)).collect();
            let plans = plan(&views, max);
            let held: u64 = views.iter().map(|share| held_bytes(&share.view)).sum();
            let gone: u64 = plans.iter().map(Plan::removed_bytes).sum();
            prop_assert!(held - gone <= max);
            let removed: Vec<u64> = plans.iter().flat_map(Plan::removed).map(|(segment, _)| segment.bytes).collect();
            let largest = removed.iter().copied().max().unwrap_or(0);
            prop_assert!(removed.is_empty() || held - gone + largest > max, "the last one need not have gone");
            for plan in &plans {
                let kept = plan.segments.iter().skip_while(|one| matches!(one.outcome, Outcome::Remove(_)));
                prop_assert!(kept.into_iter().all(|one| matches!(one.outcome, Outcome::Keep(_))), "from the front");
            }
        }
    }
}
