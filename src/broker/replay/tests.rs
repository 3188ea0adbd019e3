//! Replays over a store that settles as it likes: what they show equals a plain filter over all that was appended.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, Codec, HeaderRef};
use model::{Offset, PartitionId, Timestamp, TopicId, TopicName};
use proptest::prelude::*;
use storage::AppendBatch;

use super::*;
use crate::broker::records::TopicRecord;
use crate::broker::scratch::Scratch;

/// A record as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    partition: u32,
    offset: u64,
    millis: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

/// A topic with these records.
pub(super) struct House {
    pub(super) broker: Scratch,
    sent: Vec<Sent>,
    partitions: u32,
}

impl House {
    pub(super) fn new(partitions: u32) -> House {
        let broker = Scratch::new();
        let record = TopicRecord {
            id: TopicId::random(),
            name: TopicName::parse("readings").unwrap(),
            partitions,
            settings: BTreeMap::from([("segment.bytes".to_owned(), "20000".to_owned())]),
            owner: None,
        };
        broker.attach(record).unwrap();
        House {
            broker,
            sent: Vec::new(),
            partitions,
        }
    }

    pub(super) fn topic(&self) -> Granted<Arc<Topic>, right::Read> {
        Granted::<(), right::Read>::on(self.broker.topic("readings").unwrap())
    }

    async fn append_batch(&self, partition: u32, batch: Batch) -> Offset {
        let admission = self.broker.storage().admit(batch.bytes().len());
        let admission = admission.await;
        let topic = self.topic();
        let log = topic.log(PartitionId::new(partition)).unwrap();
        let appended = log.append(vec![AppendBatch::from(batch)], admission);
        let appended = appended.unwrap();
        appended.durable.await.unwrap();
        appended.base_offset
    }

    /// Appends records with these keys and times.
    pub(super) async fn append(&mut self, partition: u32, codec: Codec, records: &[(i64, u8)]) {
        let mut builder = BatchBuilder::new(codec);
        let mut sent = Vec::new();
        for (millis, key) in records {
            let key = (*key != 0).then(|| format!("device-{key}").into_bytes());
            let value = format!("{millis} {}", self.sent.len() + sent.len()).into_bytes();
            let headers: [HeaderRef<'_>; 1] = [(b"h", Some(b"v"))];
            let time = Timestamp::from_millis(*millis);
            builder
                .push(time, key.as_deref(), Some(&value), &headers)
                .unwrap();
            sent.push(Sent {
                partition,
                offset: 0,
                millis: *millis,
                key,
                value: Some(value),
            });
        }
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        let base = self.append_batch(partition, batch).await;
        for (index, sent) in sent.iter_mut().enumerate() {
            sent.offset = base.get() + index as u64;
        }
        self.sent.extend(sent);
    }

    async fn replay(&self, request: ReplayRequest) -> (Vec<Sent>, Replay) {
        let mut replay = self.broker.replay(&self.topic(), request).await.unwrap();
        let mut shown = Vec::new();
        while let Some(block) = replay.next().await.unwrap() {
            assert!(!block.is_empty());
            shown.extend(block.iter().map(|found| {
                assert_eq!(found.record.headers().len(), 1);
                Sent {
                    partition: found.partition.get(),
                    offset: found.record.offset.get(),
                    millis: found.record.timestamp.millis(),
                    key: found.record.key.map(<[u8]>::to_vec),
                    value: found.record.value.map(<[u8]>::to_vec),
                }
            }));
        }
        (shown, replay)
    }

    /// What a request should show, by the plainest computation.
    fn expected(&self, wanted: impl Fn(&Sent) -> bool, order: Order) -> Vec<Sent> {
        let mut all: Vec<Sent> = self
            .sent
            .iter()
            .filter(|sent| wanted(sent))
            .cloned()
            .collect();
        all.sort_by_key(|sent| match order {
            Order::Offset => (0, sent.partition, sent.offset),
            Order::Time => (sent.millis, sent.partition, sent.offset),
        });
        all
    }
}

/// A batch to append: to which partition, how, and its records' times and keys.
type Step = (u32, bool, Vec<(i64, u8)>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = (-50i64..1000, 0u8..5);
    let batch = prop::collection::vec(record, 1..30);
    prop::collection::vec((0u32..3, any::<bool>(), batch), 1..40)
}

#[test]
fn random_windows_show_what_a_plain_filter_shows() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let windows = prop::collection::vec((-60i64..1010, 0i64..500, 0u8..6, any::<bool>()), 40);
    let config = ProptestConfig {
        cases: 24,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in steps(), windows in windows)| {
        runtime.block_on(async {
            let mut house = House::new(3);
            for (partition, compressed, records) in &steps {
                let codec = if *compressed { Codec::Lz4 } else { Codec::None };
                house.append(*partition, codec, records).await;
            }
            for (from, length, key, by_time) in windows {
                check_window(&house, from, length, key, by_time).await;
            }
        });
    });
}

async fn check_window(house: &House, from: i64, length: i64, key: u8, by_time: bool) {
    let order = if by_time { Order::Time } else { Order::Offset };
    let wanted_key = format!("device-{key}").into_bytes();
    let key = match key {
        0 => None,
        5 => Some(KeyFilter::Prefix(Bytes::from_static(b"device-"))),
        _ => Some(KeyFilter::Is(wanted_key.clone().into())),
    };
    let request = |key: &Option<KeyFilter>| ReplayRequest {
        from: Place::Time(Timestamp::from_millis(from)),
        to: Some(Place::Time(Timestamp::from_millis(from + length))),
        filter: Filter {
            key: key.clone(),
            ..Filter::default()
        },
        order,
        ..ReplayRequest::default()
    };
    let (shown, replay) = house.replay(request(&key)).await;
    let is_wanted = |sent: &Sent| {
        let is_key = match &key {
            None => true,
            Some(KeyFilter::Prefix(_)) => sent.key.is_some(),
            Some(KeyFilter::Is(_)) => sent.key.as_ref() == Some(&wanted_key),
        };
        is_key && (from..from + length).contains(&sent.millis)
    };
    let expected = house.expected(is_wanted, order);
    assert_eq!(shown, expected);
    assert_eq!(replay.scanned().late, 0);
    assert_eq!(replay.gaps(), (&[][..], 0));
    // The same a few records at a time, each part going on where the one before ended.
    let (mut parts, mut resume) = (Vec::new(), Vec::new());
    loop {
        let request = ReplayRequest {
            order: Order::Offset,
            max_records: Some(7),
            resume,
            ..request(&key)
        };
        let (shown, replay) = house.replay(request).await;
        let is_end = shown.len() < 7;
        parts.extend(shown);
        resume = replay.next_offsets();
        if is_end {
            break;
        }
    }
    assert_eq!(parts, house.expected(is_wanted, Order::Offset));
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_bound_a_replay_in_each_partition() {
    let mut house = House::new(2);
    for round in 0..20 {
        house
            .append(0, Codec::None, &[(round, 1), (round, 2), (round, 3)])
            .await;
    }
    house.append(1, Codec::Zstd, &[(5, 1)]).await;
    for (from, to, expected) in [
        (Place::Earliest, None, 0..60),
        (
            Place::Offset(Offset::new(7)),
            Some(Place::Offset(Offset::new(11))),
            7..11,
        ),
        (Place::BeforeLatest(4), None, 56..60),
        (Place::AfterEarliest(58), Some(Place::Latest), 58..60),
        (Place::Latest, None, 60..60),
        (Place::Earliest, Some(Place::Earliest), 0..0),
        (Place::Offset(Offset::new(70)), None, 60..60),
    ] {
        let request = ReplayRequest {
            partitions: Some(vec![PartitionId::new(0), PartitionId::new(0)]),
            from,
            to,
            ..ReplayRequest::default()
        };
        let (shown, _) = house.replay(request).await;
        let offsets: Vec<u64> = shown.iter().map(|sent| sent.offset).collect();
        assert_eq!(offsets, expected.collect::<Vec<_>>(), "{from:?} {to:?}");
    }
    let unknown = ReplayRequest {
        partitions: Some(vec![PartitionId::new(2)]),
        ..ReplayRequest::default()
    };
    let refused = house.broker.replay(&house.topic(), unknown).await.err();
    assert!(matches!(refused, Some(ReplayError::NoPartition { .. })));
    assert_eq!(house.partitions, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_after_the_request_is_not_in_it() {
    let mut house = House::new(1);
    house.append(0, Codec::None, &[(1, 1)]).await;
    let request = ReplayRequest::default();
    let mut replay = house.broker.replay(&house.topic(), request).await.unwrap();
    house.append(0, Codec::None, &[(2, 1)]).await;
    assert_eq!(
        replay.next().await.unwrap().map(|block| block.len()),
        Some(1)
    );
    assert!(replay.next().await.unwrap().is_none());
    assert_eq!(
        replay.next_offsets(),
        [(PartitionId::new(0), Offset::new(1))]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_no_records_is_a_gap_between_its_neighbours() {
    let mut house = House::new(1);
    house.append(0, Codec::None, &[(1, 1)]).await;
    // A valid checksum over what no codec reads.
    let mut builder = BatchBuilder::new(Codec::Lz4);
    builder
        .push(Timestamp::from_millis(2), None, Some(b"x"), &[])
        .unwrap();
    let mut bytes = builder.build().unwrap().to_vec();
    bytes[61..].fill(0xff);
    let crc = model::batch::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    house
        .append_batch(0, Batch::parse(bytes.into()).unwrap())
        .await;
    house.append(0, Codec::None, &[(3, 1)]).await;
    let (shown, replay) = house.replay(ReplayRequest::default()).await;
    assert_eq!(
        shown.iter().map(|sent| sent.offset).collect::<Vec<_>>(),
        [0, 2]
    );
    let gap = Gap {
        partition: PartitionId::new(0),
        offsets: Offset::new(1)..Offset::new(2),
        missing: 1,
        reason: GapReason::Undecodable,
    };
    assert_eq!(replay.gaps(), (&[gap][..], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_large_inside_is_shown_in_pieces_and_whole() {
    let house = House::new(1);
    let mut builder = BatchBuilder::new(Codec::Zstd);
    let value = vec![7u8; 100_000];
    for millis in 0..130 {
        let time = Timestamp::from_millis(millis);
        builder.push(time, None, Some(&value), &[]).unwrap();
    }
    let batch = Batch::parse(builder.build().unwrap()).unwrap();
    house.append_batch(0, batch).await;
    let request = ReplayRequest::default();
    let mut replay = house.broker.replay(&house.topic(), request).await.unwrap();
    let mut next = 0;
    while let Some(block) = replay.next().await.unwrap() {
        assert!(block.memory_bytes() < 3 << 20, "{}", block.memory_bytes());
        for found in block.iter() {
            assert_eq!(found.record.offset.get(), next);
            assert_eq!(found.record.value, Some(&value[..]));
            next += 1;
        }
    }
    assert_eq!(next, 130);
    assert_eq!(replay.scanned().records, 130);
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_were_made_ahead_are_not_told_before_they_are_handed_out() {
    let mut house = House::new(2);
    for partition in 0..2 {
        for start in 0..45 {
            let records: Vec<(i64, u8)> = (0..2_000).map(|n| (start * 2_000 + n, 1)).collect();
            house.append(partition, Codec::None, &records).await;
        }
    }
    let all = house.expected(|_| true, Order::Offset);
    let request = ReplayRequest::default();
    let mut replay = house.broker.replay(&house.topic(), request).await.unwrap();
    let (mut shown, mut resumes) = (0, Vec::new());
    while let Some(block) = replay.next().await.unwrap() {
        shown += block.len();
        // Whatever runs ahead meanwhile has the time to do so.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        assert_eq!(replay.scanned().records, shown as u64);
        resumes.push((shown, replay.next_offsets()));
    }
    assert_eq!(shown, all.len());
    assert!(resumes.len() > 3, "{} blocks", resumes.len());
    for (shown, resume) in &resumes[1..3] {
        let rest = ReplayRequest {
            resume: resume.clone(),
            ..ReplayRequest::default()
        };
        let (rest, _) = house.replay(rest).await;
        assert!(rest == all[*shown..], "after {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_records_of_a_batch_do_not_keep_all_of_it() {
    let mut house = House::new(1);
    let records: Vec<(i64, u8)> = (0..2_000)
        .map(|n| (n, u8::from(n % 500 == 7) + 1))
        .collect();
    for codec in [Codec::None, Codec::Lz4] {
        house.append(0, codec, &records).await;
    }
    let key = Bytes::from_static(b"device-2");
    let filter = Filter {
        key: Some(KeyFilter::Is(key)),
        ..Filter::default()
    };
    let request = ReplayRequest {
        filter,
        ..ReplayRequest::default()
    };
    let mut replay = house
        .broker
        .replay(&house.topic(), request.clone())
        .await
        .unwrap();
    let mut kept = 0;
    while let Some(block) = replay.next().await.unwrap() {
        kept += block.memory_bytes();
    }
    assert!(kept < 4_096, "{kept} bytes for 8 records of 30");
    let (shown, _) = house.replay(request).await;
    let wanted = |sent: &Sent| sent.key.as_deref() == Some(b"device-2");
    assert_eq!(shown, house.expected(wanted, Order::Offset));
    assert_eq!(shown.len(), 8);
}
