//! Committed offsets: visible when durable, in the order of the log; retention.

use model::{LeaderEpoch, PartitionId, TopicId, TopicName};

use super::*;

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("a valid name")
}

pub(super) fn committed(offset: u64) -> CommittedOffset {
    CommittedOffset {
        topic_id: TopicId::from_bytes([7; 16]),
        offset: CommittedPlace::from_wire(offset as i64),
        leader_epoch: Some(LeaderEpoch::new(3)),
        metadata: "note".into(),
        committed_at: Timestamp::from_millis(1_000),
        expires_at: None,
    }
}

fn change(partition: u32, committed: Option<CommittedOffset>) -> OffsetChange {
    OffsetChange {
        topic: topic("t"),
        partition: PartitionId::new(partition),
        committed,
    }
}

fn visible(offsets: &GroupOffsets, partition: u32) -> Option<i64> {
    offsets
        .get(&topic("t"), PartitionId::new(partition))
        .map(|committed| committed.offset.to_wire())
}

#[test]
fn a_commit_is_visible_when_it_is_durable() {
    let mut offsets = GroupOffsets::default();
    let appended = offsets.on_appended(vec![change(0, Some(committed(5)))]);
    assert_eq!(visible(&offsets, 0), None);
    assert!(!offsets.is_empty());
    offsets.on_durable(appended);
    assert_eq!(visible(&offsets, 0), Some(5));
}

#[test]
fn commits_take_effect_in_the_order_of_the_log_whoever_hears_first() {
    let mut offsets = GroupOffsets::default();
    let first = offsets.on_appended(vec![
        change(0, Some(committed(5))),
        change(1, Some(committed(1))),
    ]);
    let second = offsets.on_appended(vec![change(0, Some(committed(9)))]);
    let third = offsets.on_appended(vec![change(1, None)]);
    offsets.on_durable(second);
    assert_eq!(
        (visible(&offsets, 0), visible(&offsets, 1)),
        (Some(9), Some(1))
    );
    offsets.on_durable(first);
    assert_eq!(
        visible(&offsets, 0),
        Some(9),
        "the older news changes nothing"
    );
    offsets.on_durable(third);
    assert_eq!(
        (visible(&offsets, 0), visible(&offsets, 1)),
        (Some(9), None)
    );
}

#[test]
fn deletions_cover_what_is_on_its_way() {
    let mut offsets = GroupOffsets::default();
    offsets.apply(change(0, Some(committed(5))));
    offsets.apply(change(1, Some(committed(5))));
    offsets.on_appended(vec![change(1, None), change(2, Some(committed(5)))]);
    let deletions = offsets.deletions(|_, _, _| true);
    assert_eq!(deletions, [change(0, None), change(2, None)]);
    assert_eq!(
        offsets.deletions(|_, partition, _| partition.get() == 2),
        [change(2, None)]
    );
}

#[test]
fn a_group_whose_last_offset_is_deleted_is_empty() {
    let mut offsets = GroupOffsets::default();
    offsets.apply(change(0, Some(committed(5))));
    offsets.apply(change(0, None));
    assert!(offsets.is_empty());
    assert_eq!(offsets.all().count(), 0);
}

#[test]
fn retention_counts_from_what_the_group_says_unless_the_commit_says_when() {
    let at = Timestamp::from_millis;
    let plain = committed(5);
    assert!(!is_expired(&plain, OffsetsExpiry::Never, 10, at(1_000_000)));
    assert!(!is_expired(
        &plain,
        OffsetsExpiry::SinceCommit,
        500,
        at(1_499)
    ));
    assert!(is_expired(
        &plain,
        OffsetsExpiry::SinceCommit,
        500,
        at(1_500)
    ));
    assert!(!is_expired(
        &plain,
        OffsetsExpiry::SinceEmpty(at(2_000)),
        500,
        at(2_499)
    ));
    assert!(is_expired(
        &plain,
        OffsetsExpiry::SinceEmpty(at(2_000)),
        500,
        at(2_500)
    ));
    let dated = CommittedOffset {
        expires_at: Some(at(9_000)),
        ..plain
    };
    assert!(!is_expired(
        &dated,
        OffsetsExpiry::SinceCommit,
        500,
        at(8_999)
    ));
    assert!(is_expired(
        &dated,
        OffsetsExpiry::SinceEmpty(at(8_999)),
        500,
        at(9_000)
    ));
    assert!(!is_expired(&dated, OffsetsExpiry::Never, 500, at(9_000)));
}
