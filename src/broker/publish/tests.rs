//! What publishers may rely on, over a store whose disk the test moves.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::broker::Refusal;
use bytes::Bytes;
use model::batch::{Batch, Codec, DecompressLimit, Record, TimestampType};
use model::{Offset, PartitionId, Timestamp, partition_of_key};
use proptest::prelude::*;
use storage::{Clock, ManualClock};

use super::*;
use crate::broker::access::{Caller, Door, Principal, Protocol};
use crate::broker::produce::RecordFault;
use crate::broker::state_log::sim::SimStore;
use crate::broker::{Layout, NewTopic, StorageFault};

const NOW_MS: i64 = 1_700_000_000_000;

struct House {
    store: SimStore,
    broker: Broker,
    clock: Arc<ManualClock>,
}

fn house() -> House {
    house_with(8 << 20)
}

/// A store whose WAL files have this length; it takes batches of a little less than half of it.
fn house_with(file_bytes: u64) -> House {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(NOW_MS)));
    let shared: Arc<dyn Clock> = clock.clone();
    let (store, broker) = SimStore::with_broker(shared, file_bytes);
    House {
        store,
        broker,
        clock,
    }
}

impl House {
    fn door(&self) -> Door {
        self.broker.door(Caller {
            principal: Principal::Anonymous,
            address: ([127, 0, 0, 1], 1).into(),
            client_id: None,
            protocol: Protocol::Http,
        })
    }

    async fn topic(
        &self,
        partitions: u32,
        settings: &[(&str, &str)],
    ) -> Granted<Arc<Topic>, right::Write> {
        let door = self.door();
        let new = NewTopic {
            name: door.new_topic("readings").expect("a free name"),
            layout: Layout::Counted {
                partitions: Some(partitions),
                replicas: None,
            },
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
                .collect(),
        };
        let created = self.broker.create_topics(vec![new], false).await;
        assert!(created[0].is_ok(), "{created:?}");
        door.topic("readings", right::Write).expect("a right")
    }

    fn batches(&self, partition: u32) -> Vec<Batch> {
        let topic = self.broker.topic("readings").expect("it is there");
        let log = topic.log(PartitionId::new(partition)).expect("it is there");
        let mut from = log.bounds().start;
        let mut batches = Vec::new();
        while from < log.bounds().durable_end {
            let read = log.read_copy(from, 1 << 20).expect("readable");
            for slice in read.slices {
                batches.extend(model::batch::split(slice).map(|batch| batch.expect("sound")));
            }
            from = read.end_offset;
        }
        batches
    }

    fn records(&self, partition: u32) -> Vec<Record> {
        let batches = self.batches(partition);
        let records = batches.iter().flat_map(|batch| {
            let records = batch.records(DecompressLimit::default()).expect("readable");
            records.map(|record| record.expect("readable"))
        });
        records.collect()
    }

    /// Until nothing is open or on its way.
    async fn quiet(&self) {
        while self.broker.shared.lanes.count() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.broker.shared.lanes.bytes_held(), 0);
    }
}

async fn yields(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

fn text(value: &str) -> Message<'_> {
    Message {
        value: Some(value.as_bytes()),
        ..Message::default()
    }
}

fn value_of(record: &Record) -> &str {
    std::str::from_utf8(record.value.as_deref().expect("a value")).expect("text")
}

#[tokio::test]
async fn every_record_is_there_once_in_its_publishers_order_and_in_few_batches() {
    const PUBLISHERS: usize = 100;
    const EACH: usize = 40;
    let house = Arc::new(house());
    let topic = house.topic(3, &[]).await;
    house.store.hold();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let (house, topic) = (house.clone(), topic.clone());
            tokio::spawn(async move {
                let mut published = Vec::new();
                for number in 0..EACH {
                    let value = format!("{publisher} {number}");
                    let key = format!("device-{}", number % 7);
                    let message = Message {
                        key: Some(key.as_bytes()),
                        ..text(&value)
                    };
                    let publishing = house.broker.publish(&topic, None, message).await;
                    published.push((value, publishing.expect("taken")));
                    yields(number % 3).await;
                }
                let mut durable = Vec::new();
                for (value, publishing) in published {
                    let partition = publishing.partition.get();
                    let offset = publishing.durable().await.expect("durable");
                    durable.push(((partition, offset), value));
                }
                durable
            })
        })
        .collect();
    // The disk is slow: a sync now and then.
    let disk = tokio::spawn({
        let house = house.clone();
        async move {
            loop {
                yields(25).await;
                house.store.sync();
            }
        }
    });
    let mut told = BTreeMap::new();
    for publisher in publishers {
        for (place, value) in publisher.await.expect("no panic") {
            assert!(told.insert(place, value).is_none(), "{place:?} twice");
        }
    }
    house.quiet().await;
    disk.abort();
    let (mut stored, mut batches) = (BTreeMap::new(), 0);
    for partition in 0..3 {
        batches += house.batches(partition).len();
        let mut newest: HashMap<String, usize> = HashMap::new();
        for record in house.records(partition) {
            let key = record.key.clone().expect("a key");
            assert_eq!(partition_of_key(&key, 3), partition);
            let value = value_of(&record).to_owned();
            let (publisher, number) = value.split_once(' ').expect("two words");
            let number: usize = number.parse().expect("a number");
            let before = newest.insert(publisher.to_owned(), number);
            assert!(before < Some(number), "{value} behind {before:?}");
            stored.insert((partition, record.offset), value);
        }
    }
    assert_eq!(stored.len(), PUBLISHERS * EACH);
    assert_eq!(stored, told);
    assert!(batches * 4 < PUBLISHERS * EACH, "{batches} batches");
}

#[tokio::test]
async fn what_comes_while_the_disk_works_is_one_batch_and_a_full_one_does_not_wait() {
    let house = house();
    let topic = house.topic(1, &[]).await;
    house.store.hold();
    let first = house.broker.publish(&topic, None, text("0")).await;
    let first = first.expect("taken");
    yields(20).await;
    let mut rest = Vec::new();
    for number in 1..500 {
        let value = number.to_string();
        let publishing = house.broker.publish(&topic, None, text(&value)).await;
        rest.push(publishing.expect("taken"));
        yields(1).await;
    }
    assert!(first.known().is_none() && rest[0].known().is_none());
    house.store.let_go();
    assert_eq!(first.durable().await.expect("durable"), Offset::ZERO);
    for (publishing, wanted) in rest.into_iter().zip(1..) {
        let offset = publishing.durable().await.expect("durable");
        assert_eq!(offset, Offset::new(wanted));
    }
    let counts = |house: &House| -> Vec<i32> {
        let batches = house.batches(0);
        batches.iter().map(|it| it.header().record_count).collect()
    };
    assert_eq!(counts(&house), [1, 499]);
    // The disk stands still again: batches go on by their size.
    house.store.hold();
    let value = "x".repeat(7_000);
    let mut all = Vec::new();
    for _ in 0..9 {
        all.push(
            house
                .broker
                .publish(&topic, None, text(&value))
                .await
                .expect("taken"),
        );
        yields(5).await;
    }
    house.store.sync();
    yields(20).await;
    house.store.let_go();
    for publishing in all {
        publishing.durable().await.expect("durable");
    }
    assert_eq!(counts(&house), [1, 499, 1, 2, 2, 2, 2]);
    house.quiet().await;
}

#[tokio::test]
async fn a_record_that_the_topic_does_not_take_is_refused_and_the_others_are_written() {
    let house = house();
    let settings = [
        ("cleanup.policy", "compact"),
        ("message.timestamp.before.max.ms", "60000"),
        ("message.timestamp.after.max.ms", "60000"),
        ("max.message.bytes", "1000"),
    ];
    let topic = house.topic(2, &settings).await;
    let at = |minutes: i64| Some(Timestamp::from_millis(NOW_MS + minutes * 60_000));
    let long = "x".repeat(1000);
    let keyed = |value, time| Message {
        key: Some(b"k"),
        time,
        ..text(value)
    };
    let messages = [
        keyed("a", at(0)),
        text("no key"),
        keyed("early", at(-2)),
        keyed("late", at(2)),
        keyed(&long, None),
        keyed("b", at(1)),
        Message {
            value: None,
            ..keyed("", None)
        },
    ];
    let mut outgoing = messages.map(|message| Outgoing {
        partition: Some(PartitionId::new(1)),
        message,
    });
    outgoing[6].partition = Some(PartitionId::new(2));
    let published = house.broker.publish_all(&topic, &outgoing).await;
    let mut told = Vec::new();
    for publishing in published.expect("a topic") {
        told.push(match publishing {
            Ok(publishing) => format!("{}", publishing.durable().await.expect("durable")),
            Err(PublishRefusal::Record(RecordFault::NoKey)) => "no key".to_owned(),
            Err(PublishRefusal::Record(RecordFault::Timestamp { timestamp, .. })) => {
                format!("time {}", (timestamp.millis() - NOW_MS) / 60_000)
            }
            Err(PublishRefusal::TooLarge { bytes_max, .. }) => format!("over {bytes_max}"),
            Err(other) => other.to_string(),
        });
    }
    let unknown = Refusal::UnknownTopicOrPartition.to_string();
    let wanted = [
        "0",
        "no key",
        "time -2",
        "time 2",
        "over 1000",
        "1",
        &unknown,
    ];
    assert_eq!(told, wanted);
    let records = house.records(1);
    assert_eq!(records.iter().map(value_of).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(records[1].timestamp.millis(), NOW_MS + 60_000);
    let none = house.broker.publish(&topic, None, keyed(&long, None)).await;
    assert!(none.is_err());
    house.quiet().await;
}

#[tokio::test]
async fn a_topics_codec_and_append_time_and_its_largest_batch_are_kept() {
    let house = house();
    let settings = [
        ("compression.type", "zstd"),
        ("message.timestamp.type", "LogAppendTime"),
        ("max.message.bytes", "20000"),
    ];
    let topic = house.topic(1, &settings).await;
    let mut outgoing = Vec::new();
    // Not to be compressed, so that the batch as it is stored is as long as it can be.
    let mut seed = 1u64;
    let values: Vec<Vec<u8>> = (0..100)
        .map(|_| {
            (0..900)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 56) as u8
                })
                .collect()
        })
        .collect();
    for value in &values {
        let message = Message {
            value: Some(value),
            time: Some(Timestamp::from_millis(5)),
            ..Message::default()
        };
        let partition = None;
        outgoing.push(Outgoing { partition, message });
    }
    house.store.hold();
    let published = house.broker.publish_all(&topic, &outgoing).await;
    house.clock.advance(std::time::Duration::from_millis(7));
    house.store.let_go();
    for publishing in published.expect("a topic") {
        publishing.expect("taken").durable().await.expect("durable");
    }
    let batches = house.batches(0);
    assert!(batches.len() >= 9, "{}", batches.len());
    for batch in &batches {
        let header = batch.header();
        assert_eq!(header.codec(), Ok(Codec::Zstd));
        assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
        assert!(header.max_timestamp >= NOW_MS, "{}", header.max_timestamp);
        assert!(batch.bytes().len() <= 20_000, "{}", batch.bytes().len());
    }
    let stored: Vec<_> = house.records(0).iter().map(|it| it.value.clone()).collect();
    let wanted: Vec<_> = values.into_iter().map(|it| Some(Bytes::from(it))).collect();
    assert!(stored == wanted, "the values are as they came");
}

#[tokio::test]
async fn batches_are_no_larger_than_the_store_takes() {
    let house = house_with(256 << 10);
    let topic = house.topic(1, &[]).await;
    let bytes_max = house.broker.storage().batch_bytes_max();
    assert!(bytes_max < 256 << 10, "less than batches are otherwise");
    let value = "x".repeat(1_000);
    let messages = vec![
        Outgoing {
            partition: None,
            message: text(&value),
        };
        600
    ];
    house.store.hold();
    let published = house.broker.publish_all(&topic, &messages).await;
    house.store.let_go();
    for publishing in published.expect("a topic") {
        publishing.expect("taken").durable().await.expect("durable");
    }
    assert_eq!(house.records(0).len(), 600);
    let too_long = "x".repeat(usize::try_from(bytes_max).expect("small"));
    let refused = house.broker.publish(&topic, None, text(&too_long)).await;
    assert!(
        matches!(refused, Err(PublishRefusal::TooLarge { .. })),
        "{refused:?}"
    );
    house.quiet().await;
}

#[tokio::test]
async fn messages_without_a_key_reach_every_partition_alike() {
    let house = house();
    let topic = house.topic(4, &[]).await;
    for number in 0..40 {
        let value = number.to_string();
        let publishing = house.broker.publish(&topic, None, text(&value)).await;
        publishing.expect("taken").durable().await.expect("durable");
        house.quiet().await;
    }
    let counts: Vec<_> = (0..4).map(|it| house.records(it).len()).collect();
    assert_eq!(counts, [10; 4]);
}

#[tokio::test]
async fn a_full_disk_and_a_deleted_topic_refuse_and_leave_nothing_behind() {
    let house = house();
    let topic = house.topic(1, &[]).await;
    house.store.set_full(true);
    let mut refused = None;
    // The files that there are take some.
    let value = "x".repeat(1 << 20 >> 1);
    while refused.is_none() {
        let publishing = house.broker.publish(&topic, None, text(&value)).await;
        refused = publishing.expect("not known yet").durable().await.err();
    }
    match refused.expect("it was waited for") {
        PublishRefusal::Refused(refusal) => assert!(matches!(*refusal, Refusal::DiskFull)),
        other => panic!("{other}"),
    }
    house.quiet().await;
    house.store.set_full(false);
    yields(20).await;
    let publishing = house.broker.publish(&topic, None, text("again")).await;
    publishing.expect("taken").durable().await.expect("durable");

    house.store.hold();
    let mut open = Vec::new();
    for value in ["one", "two"] {
        open.push(
            house
                .broker
                .publish(&topic, None, text(value))
                .await
                .expect("taken"),
        );
        yields(20).await;
    }
    house.store.let_go();
    let delete = house
        .door()
        .topic("readings", right::Delete)
        .expect("a right");
    let deleted = house.broker.delete_topics(vec![delete]).await;
    assert!(deleted[0].is_ok());
    let gone = |refusal: &PublishRefusal| matches!(refusal, PublishRefusal::Refused(it) if matches!(**it, Refusal::UnknownTopicOrPartition | Refusal::Storage(StorageFault::Sync(_))));
    for publishing in open {
        if let Err(refusal) = publishing.durable().await {
            assert!(gone(&refusal), "{refusal}");
        }
    }
    let none = house.broker.publish(&topic, None, text("late")).await;
    assert!(none.is_err_and(|refusal| gone(&refusal)));
    house.quiet().await;
}

#[tokio::test]
async fn what_is_published_together_is_there_whole_or_not_at_all() {
    let house = house();
    let topic = house.topic(3, &[("cleanup.policy", "compact")]).await;
    let keys: Vec<String> = (0..2_000).map(|it| format!("device-{it}")).collect();
    let value = "x".repeat(600);
    let outgoing = |count: usize| -> Vec<Outgoing<'_>> {
        let keyed = keys.iter().take(count).map(|key| Outgoing {
            partition: None,
            message: Message {
                key: Some(key.as_bytes()),
                ..text(&value)
            },
        });
        keyed.collect()
    };
    let mut bad = outgoing(5);
    bad[3].message.key = None;
    match house.broker.publish_together(&topic, &bad, None).await {
        Ok(Together::Refused(refusals)) => assert_eq!(refusals[0].0, 3),
        other => panic!("{other:?}"),
    }
    let none: usize = (0..3).map(|it| house.records(it).len()).sum();
    assert_eq!(none, 0);
    let together = house
        .broker
        .publish_together(&topic, &outgoing(2_000), None)
        .await;
    let Ok(Together::Publishing(publishing)) = together else {
        panic!("{together:?}");
    };
    for (publishing, key) in publishing.into_iter().zip(&keys) {
        let partition = publishing.partition.get();
        assert_eq!(partition, partition_of_key(key.as_bytes(), 3));
        let offset = publishing.durable().await.expect("durable");
        let records = house.records(partition);
        let record = &records[usize::try_from(offset.get()).expect("small")];
        assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
    }
    // Several batches of a partition, in one frame.
    assert!((0..3).all(|it| house.batches(it).len() > 1));
    let long = "x".repeat(900_000);
    let much: Vec<_> = (0..6)
        .map(|it| Outgoing {
            partition: Some(PartitionId::new(it % 3)),
            message: Message {
                key: Some(b"k"),
                ..text(&long)
            },
        })
        .collect();
    let refused = house.broker.publish_together(&topic, &much, None).await;
    assert!(
        matches!(refused, Err(PublishRefusal::TooMuch { .. })),
        "{refused:?}"
    );
    let before: usize = (0..3).map(|it| house.records(it).len()).sum();
    house.store.set_full(true);
    let mut refused = None;
    while refused.is_none() {
        refused = house
            .broker
            .publish_together(&topic, &outgoing(2_000), None)
            .await
            .err();
    }
    assert!(
        matches!(refused, Some(PublishRefusal::Refused(it)) if matches!(*it, Refusal::DiskFull))
    );
    house.quiet().await;
    yields(50).await;
    let after: usize = (0..3).map(|it| house.records(it).len()).sum();
    assert_eq!((after - before) % 2_000, 0, "each is whole");
}

#[tokio::test]
async fn nothing_is_told_before_its_sync_and_a_power_cut_takes_nothing_that_was_told() {
    let house = house();
    let topic = house.topic(1, &[]).await;
    let told = house.broker.publish(&topic, None, text("told")).await;
    told.expect("taken").durable().await.expect("durable");
    house.store.hold();
    let open: Vec<_> = [
        house.broker.publish(&topic, None, text("on its way")).await,
        house.broker.publish(&topic, None, text("open")).await,
    ]
    .into_iter()
    .map(|it| it.expect("taken"))
    .collect();
    yields(50).await;
    assert!(open.iter().all(|publishing| publishing.known().is_none()));
    let House { store, clock, .. } = house;
    let store = store.cut();
    let broker = store.broker();
    let house = House {
        store,
        broker,
        clock,
    };
    let records = house.records(0);
    assert_eq!(value_of(&records[0]), "told");
    for publishing in open {
        assert!(!matches!(publishing.known(), Some(Ok(_))));
    }
}

#[tokio::test]
async fn a_lane_whose_driver_is_gone_is_made_anew_and_who_waits_is_told() {
    let house = house();
    let topic = house.topic(1, &[]).await;
    house.store.hold();
    let lanes = &house.broker.shared.lanes;
    let mut permit = lanes.admit(1_000).await;
    let outgoing = Outgoing {
        partition: None,
        message: text("lost"),
    };
    let mut taken = Vec::new();
    let lane = lanes.push(
        (&topic, PartitionId::new(0)),
        std::iter::once(Checked::new(&outgoing)),
        &mut permit,
        house.broker.now(),
        |publishing| taken.push(publishing.expect("taken")),
    );
    drop(permit);
    // Its driver is dropped before it has done anything, as one that panics.
    let driver = driver::drive(house.broker.clone(), lane.expect("a new lane"));
    let driver = tokio::spawn(driver);
    driver.abort();
    assert!(driver.await.is_err());
    let told = taken.pop().expect("one").durable().await;
    assert!(matches!(told, Err(PublishRefusal::Abandoned)), "{told:?}");
    assert_eq!((lanes.count(), lanes.bytes_held()), (0, 0));
    house.store.let_go();
    let publishing = house.broker.publish(&topic, None, text("next")).await;
    publishing.expect("taken").durable().await.expect("durable");
    house.quiet().await;
}

#[tokio::test]
async fn who_would_hold_more_than_may_be_waits() {
    let lanes = Lanes::new(1 << 20);
    let all = lanes.admit(usize::MAX).await;
    let more = lanes.admit(1);
    tokio::pin!(more);
    let waits = tokio::select! {
        biased;
        _ = &mut more => false,
        () = yields(20) => true,
    };
    assert!(waits);
    drop(all);
    drop(more.await);
    assert_eq!(lanes.bytes_held(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// Whatever sizes come in whatever pieces: the records of a partition are those that were published to it, in order.
    #[test]
    fn what_is_published_in_pieces_is_stored_in_order(
        pieces in prop::collection::vec(prop::collection::vec((0u32..3, 0usize..60_000, any::<bool>()), 0..12), 0..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async move {
            let house = house();
            let topic = house.topic(3, &[("max.message.bytes", "40000")]).await;
            let mut wanted: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
            let mut open = Vec::new();
            for piece in pieces {
                let values: Vec<_> = piece.iter().map(|(_, bytes, _)| vec![7u8; *bytes]).collect();
                let outgoing: Vec<_> = piece.iter().zip(&values).map(|((partition, _, _), value)| Outgoing {
                    partition: Some(PartitionId::new(*partition)),
                    message: Message { value: Some(value), ..Message::default() },
                }).collect();
                let published = house.broker.publish_all(&topic, &outgoing).await.expect("a topic");
                for ((partition, bytes, is_held), publishing) in piece.into_iter().zip(published) {
                    // What a batch takes beside the value: its header, and some varints.
                    prop_assert!(publishing.is_ok() == (bytes < 39_900) || (39_900..40_000).contains(&bytes));
                    if let Ok(publishing) = publishing {
                        wanted.entry(partition).or_default().push(bytes);
                        open.push(publishing);
                    }
                    if is_held { house.store.hold() } else { house.store.let_go() }
                }
            }
            house.store.let_go();
            for publishing in open {
                publishing.durable().await.expect("durable");
            }
            for partition in 0..3 {
                let stored: Vec<_> = house.records(partition).iter().map(|it| it.value.as_ref().map_or(0, Bytes::len)).collect();
                prop_assert_eq!(&stored, wanted.entry(partition).or_default());
            }
            house.quiet().await;
            Ok(())
        })?;
    }
}
