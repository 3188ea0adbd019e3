//! What cleanup leaves of a batch: exactly the records that were to stay, and everything else as it was.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail as its assertions do"
)]

use alluvium_model::batch::{
    Attributes, Batch, BatchBuilder, Codec, DecompressLimit, Filter, Record, Rest, TimestampType,
    stamp, with_log_append_time, without_records,
};
use alluvium_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};
use proptest::prelude::*;

const LIMIT: DecompressLimit = DecompressLimit::bytes(1 << 24);

#[derive(Clone, Debug)]
struct Input {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    header: Vec<u8>,
    stays: bool,
}

fn input() -> impl Strategy<Value = Input> {
    let part = || prop::collection::vec(any::<u8>(), 0..40);
    let times = prop_oneof![any::<i64>(), 1_700_000_000_000i64..1_700_000_100_000];
    let key = prop::option::of(part());
    let value = prop::option::of(part());
    (times, key, value, part(), any::<bool>()).prop_map(|(timestamp, key, value, header, stays)| {
        Input {
            timestamp,
            key,
            value,
            header,
            stays,
        }
    })
}

/// A batch of an idempotent producer in the middle of a log.
fn build(codec: Codec, inputs: &[Input], append_time: Option<i64>) -> Batch {
    let mut builder = BatchBuilder::new(codec);
    builder
        .producer(ProducerId::new(77), ProducerEpoch::new(3), 1000)
        .base_offset(Offset::new(5_000))
        .leader_epoch(LeaderEpoch::from_wire(9).unwrap());
    for input in inputs {
        let time = Timestamp::from_millis(input.timestamp);
        let headers = [(&b"h"[..], Some(&input.header[..]))];
        builder
            .push(time, input.key.as_deref(), input.value.as_deref(), &headers)
            .unwrap();
    }
    let batch = Batch::parse(builder.build().unwrap()).unwrap();
    match append_time {
        Some(time) => {
            let bytes = with_log_append_time(&batch, Timestamp::from_millis(time));
            Batch::parse(bytes).unwrap()
        }
        None => batch,
    }
}

fn records(batch: &Batch) -> Vec<Record> {
    batch.records(LIMIT).unwrap().map(Result::unwrap).collect()
}

fn codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(Codec::ALL.to_vec())
}

proptest! {
    #[test]
    fn what_stays_is_what_was_to_stay_and_all_else_is_as_it_was(
        codec in codec(), inputs in prop::collection::vec(input(), 1..20),
        append_time in prop::option::of(1_700_000_000_000i64..1_800_000_000_000),
        horizon in prop::option::of(1_700_000_000_000i64..1_900_000_000_000),
    ) {
        let batch = build(codec, &inputs, append_time);
        let expected: Vec<Record> = records(&batch)
            .into_iter().zip(&inputs).filter(|(_, input)| input.stays).map(|(record, _)| record).collect();
        let mut stays = inputs.iter().map(|input| input.stays);
        let mut filter = Filter::new(LIMIT);
        let horizon = horizon.map(Timestamp::from_millis);
        let filtered = filter.apply(&batch, horizon, &mut |_| stays.next().unwrap()).unwrap();
        prop_assert_eq!(filtered.kept as usize, expected.len());
        prop_assert_eq!(filtered.dropped as usize, inputs.len() - expected.len());
        let tombstones = expected.iter().filter(|record| record.value.is_none()).count();
        prop_assert_eq!(filtered.tombstones_kept as usize, tombstones);
        let sets_horizon = horizon.is_some() && tombstones > 0;
        let rest = match filtered.rest {
            Rest::Nothing => {
                prop_assert!(expected.is_empty());
                return Ok(());
            }
            Rest::Whole => {
                prop_assert!(expected.len() == inputs.len() && !sets_horizon);
                return Ok(());
            }
            Rest::Rebuilt(bytes) => Batch::parse(bytes).unwrap(),
        };
        prop_assert_eq!(&records(&rest), &expected);
        let (old, new) = (batch.header(), rest.header());
        prop_assert_eq!(
            (new.base_offset, new.last_offset_delta, new.leader_epoch, new.producer()),
            (old.base_offset, old.last_offset_delta, old.leader_epoch, old.producer())
        );
        prop_assert_eq!(new.last_sequence(), old.last_sequence());
        prop_assert_eq!(new.codec().unwrap(), codec);
        prop_assert_eq!(new.timestamp_type(), old.timestamp_type());
        prop_assert_eq!(new.record_count as usize, expected.len());
        prop_assert_eq!(new.delete_horizon(), horizon.filter(|_| sets_horizon));
        let latest = expected.iter().map(|record| record.timestamp).max();
        prop_assert_eq!(Some(new.max_time()), latest);
        if !sets_horizon {
            prop_assert_eq!(new.first_time(), Some(expected[0].timestamp), "as Kafka writes it");
        }
        // Once more with the same choice: nothing changes, and a horizon that is there stays.
        let later = Some(Timestamp::from_millis(i64::MAX));
        let again = filter.apply(&rest, horizon.and(later), &mut |_| true).unwrap();
        prop_assert_eq!(again.rest, Rest::Whole);
    }

    #[test]
    fn an_emptied_batch_takes_the_same_place(codec in codec(), inputs in prop::collection::vec(input(), 1..5)) {
        let batch = build(codec, &inputs, None);
        let empty = Batch::parse(without_records(batch.header())).unwrap();
        let (old, new) = (batch.header(), empty.header());
        prop_assert_eq!((new.base(), new.next_offset()), (old.base(), old.next_offset()));
        prop_assert_eq!((new.producer(), new.last_sequence()), (old.producer(), old.last_sequence()));
        prop_assert_eq!((new.epoch(), new.max_time()), (old.epoch(), old.max_time()));
        prop_assert_eq!((new.record_count, new.codec().unwrap(), new.first_time()), (0, Codec::None, None));
        prop_assert!(records(&empty).is_empty());
        let filtered = Filter::new(LIMIT).apply(&empty, None, &mut |_| true).unwrap();
        prop_assert_eq!((filtered.rest, filtered.kept, filtered.dropped), (Rest::Nothing, 0, 0));
    }
}

fn two_records() -> Batch {
    let input = |value: Option<&[u8]>, timestamp| Input {
        timestamp,
        key: Some(b"k".to_vec()),
        value: value.map(<[u8]>::to_vec),
        header: Vec::new(),
        stays: true,
    };
    build(
        Codec::None,
        &[input(Some(b"v"), 1_000), input(None, 2_000)],
        None,
    )
}

#[test]
fn a_batch_with_a_delete_horizon_is_read_and_written_as_kip_534_says() {
    let horizon = Timestamp::from_millis(90_000);
    let mut filter = Filter::new(LIMIT);
    let batch = two_records();
    let filtered = filter.apply(&batch, Some(horizon), &mut |_| true).unwrap();
    let Rest::Rebuilt(bytes) = filtered.rest else {
        panic!("a batch with a tombstone gets a horizon");
    };
    assert_eq!(bytes[22] & 0x40, 0x40, "bit 6 of the attributes");
    assert_eq!(bytes[27..35], 90_000i64.to_be_bytes(), "the base timestamp");
    let rest = Batch::parse(bytes).unwrap();
    let times: Vec<i64> = records(&rest)
        .iter()
        .map(|record| record.timestamp.millis())
        .collect();
    assert_eq!(times, [1_000, 2_000]);
    assert_eq!(rest.header().max_timestamp, 2_000);
    // Without its value, the tombstone alone keeps the horizon of the first time.
    let alone = filter
        .apply(
            &rest,
            Some(Timestamp::from_millis(500_000)),
            &mut |record| record.value.is_none(),
        )
        .unwrap();
    let Rest::Rebuilt(bytes) = alone.rest else {
        panic!("a record went");
    };
    let alone = Batch::parse(bytes).unwrap();
    assert_eq!(alone.header().delete_horizon(), Some(horizon));
    assert_eq!(records(&alone)[0].timestamp.millis(), 2_000);
    assert_eq!(alone.header().last_offset_delta, 1);
}

#[test]
fn under_log_append_time_every_record_keeps_the_brokers_time() {
    let batch = with_log_append_time(&two_records(), Timestamp::from_millis(7_777));
    let batch = Batch::parse(batch).unwrap();
    let horizon = Some(Timestamp::from_millis(90_000));
    let filtered = Filter::new(LIMIT)
        .apply(&batch, horizon, &mut |_| true)
        .unwrap();
    let Rest::Rebuilt(bytes) = filtered.rest else {
        panic!("a batch with a tombstone gets a horizon");
    };
    let rest = Batch::parse(bytes).unwrap();
    assert_eq!(rest.header().timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(rest.header().max_timestamp, 7_777);
    assert!(
        records(&rest)
            .iter()
            .all(|record| record.timestamp.millis() == 7_777)
    );
}

#[test]
fn a_control_batch_is_left_alone() {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.attributes(Attributes::from_bits(0x30));
    builder
        .push(Timestamp::from_millis(5), Some(&[0, 0, 0, 1]), None, &[])
        .unwrap();
    let mut bytes = builder.build().unwrap().to_vec();
    stamp(
        bytes.first_chunk_mut().unwrap(),
        Offset::new(3),
        LeaderEpoch::from_wire(1).unwrap(),
    );
    let batch = Batch::parse(bytes.into()).unwrap();
    let horizon = Some(Timestamp::from_millis(90_000));
    let filtered = Filter::new(LIMIT)
        .apply(&batch, horizon, &mut |_| panic!("its records are nobody's"))
        .unwrap();
    assert_eq!((filtered.rest, filtered.kept), (Rest::Whole, 1));
}
