use super::*;
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder};
use model::codec::Codec;
use proptest::prelude::*;

/// A batch of `count` records by producer 7, parsed back to its header.
fn header(epoch: i16, first: i32, count: usize) -> BatchHeader {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.producer(ProducerId::new(7), ProducerEpoch::new(epoch), first);
    for n in 0..count {
        builder
            .push(Timestamp::from_millis(n as i64), None, Some(b"v"), &[])
            .unwrap();
    }
    *Batch::parse(builder.build().unwrap()).unwrap().header()
}

fn at(offset: u64) -> Offset {
    Offset::new(offset)
}

const NOW: Timestamp = Timestamp::from_millis(1_000);

/// Appends whatever is `Next`, at the end, and returns the verdicts in words.
fn check(script: &[(i16, i32, usize)]) -> Vec<String> {
    let mut producers = Producers::default();
    let mut end = 100;
    let mut verdicts = Vec::new();
    for (epoch, first, count) in script {
        let header = header(*epoch, *first, *count);
        let verdict = match producers.check(&header) {
            Ok(Sequence::Next) => {
                producers.record(&header, at(end), NOW);
                end += *count as u64;
                format!("at {}", end - *count as u64)
            }
            Ok(Sequence::Duplicate(batch)) => format!("again {}", batch.base_offset),
            Ok(Sequence::Untracked) => "untracked".to_owned(),
            Err(SequenceError::OutOfOrder { expected, .. }) => format!("expected {expected}"),
            Err(SequenceError::OldEpoch { current, .. }) => format!("epoch is {current}"),
            Err(SequenceError::Missing { .. }) => "missing".to_owned(),
        };
        verdicts.push(verdict);
    }
    verdicts
}

#[test]
fn a_retry_within_the_window_is_answered_with_its_original_offset() {
    let verdicts = check(&[(0, 0, 3), (0, 3, 2), (0, 0, 3), (0, 3, 2), (0, 5, 1)]);
    assert_eq!(
        verdicts,
        ["at 100", "at 103", "again 100", "again 103", "at 105"]
    );
}

#[test]
fn a_retry_from_before_the_window_is_out_of_order() {
    let script: Vec<(i16, i32, usize)> = (0..6)
        .map(|n| (0, n, 1))
        .chain([(0, 0, 1), (0, 1, 1)])
        .collect();
    let verdicts = check(&script);
    assert_eq!(&verdicts[6..], ["expected 6", "again 101"]);
}

#[test]
fn a_gap_and_a_partial_overlap_are_out_of_order() {
    assert_eq!(
        check(&[(0, 0, 3), (0, 4, 1), (0, 2, 2), (0, 0, 2)])[1..],
        ["expected 3", "expected 3", "expected 3"]
    );
}

#[test]
fn an_unknown_producer_may_start_anywhere() {
    assert_eq!(check(&[(3, 4_711, 2), (3, 4_713, 1)]), ["at 100", "at 102"]);
}

#[test]
fn a_new_epoch_starts_at_zero_and_an_old_one_is_fenced() {
    let verdicts = check(&[(1, 0, 1), (2, 1, 1), (2, 0, 1), (1, 1, 1), (2, 1, 1)]);
    assert_eq!(
        verdicts,
        ["at 100", "expected 0", "at 101", "epoch is 2", "at 102"]
    );
}

#[test]
fn sequences_wrap_to_zero() {
    let verdicts = check(&[(0, i32::MAX - 1, 2), (0, 0, 1), (0, i32::MAX - 1, 2)]);
    assert_eq!(verdicts, ["at 100", "at 102", "again 100"]);
    let across = check(&[(0, i32::MAX, 3), (0, 2, 1), (0, i32::MAX, 3)]);
    assert_eq!(across, ["at 100", "at 103", "again 100"]);
}

#[test]
fn a_producer_id_without_a_sequence_is_refused() {
    assert_eq!(check(&[(0, -1, 1)]), ["missing"]);
}

#[test]
fn a_batch_without_a_producer_leaves_no_trace() {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(NOW, None, Some(b"v"), &[]).unwrap();
    let header = *Batch::parse(builder.build().unwrap()).unwrap().header();
    let mut producers = Producers::default();
    assert_eq!(producers.check(&header), Ok(Sequence::Untracked));
    producers.record(&header, at(0), NOW);
    assert!(producers.is_empty());
}

#[test]
fn producers_expire_by_the_brokers_clock() {
    let mut producers = Producers::default();
    producers.record(&header(0, 0, 1), at(0), NOW);
    assert_eq!(producers.expire(NOW), 0);
    assert_eq!(producers.expire(NOW.plus_millis(1)), 1);
    assert!(producers.is_empty());
}

#[test]
fn a_damaged_snapshot_never_panics() {
    let mut producers = Producers::default();
    for first in 0..7 {
        producers.record(&header(0, first, 1), at(first as u64), NOW);
    }
    let bytes = producers.encode();
    assert_eq!(Producers::decode(&bytes).unwrap(), producers);
    for len in 0..bytes.len() {
        assert!(Producers::decode(&bytes[..len]).is_err(), "cut to {len}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _ = Producers::decode(&flipped);
    }
}

proptest! {
    #[test]
    fn snapshots_round_trip(batches in prop::collection::vec((0i64..50, 0i16..3, 0i32..1_000), 0..200)) {
        let mut producers = Producers::default();
        for (n, (id, epoch, first)) in batches.into_iter().enumerate() {
            let mut header = header(epoch, first, 1);
            header.producer_id = id;
            producers.record(&header, at(n as u64), NOW.plus_millis(n as i64));
        }
        prop_assert_eq!(Producers::decode(&producers.encode()).unwrap(), producers);
    }

    #[test]
    fn any_bytes_decode_or_fail_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Producers::decode(&Bytes::from(bytes));
    }
}
