//! What the consumer promises, whatever the broker does.

use crate::fake::{Fake, Fault, TOPIC};
use client::consumer::{Reset, Start, after_damage};
use client::{
    Consumer, ConsumerConfig, Error, ErrorCode, Producer, ProducerConfig, ProducerRecord,
};
use model::batch::Batch;
use model::{Offset, PartitionId, TopicName, TopicPartition};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(10);

fn partition(n: u32) -> TopicPartition {
    TopicPartition::new(TopicName::parse(TOPIC).unwrap(), PartitionId::new(n))
}

/// A broker with two partitions of 30 records each, in several batches.
async fn filled() -> Fake {
    let fake = Fake::start(2).await;
    let config = ProducerConfig {
        linger: Duration::ZERO,
        batch_bytes: 100,
        ..Default::default()
    };
    let producer = Producer::new(&fake.client().await, config).unwrap();
    for n in 0..30 {
        for p in 0..2 {
            let record = ProducerRecord::new(partition(p).topic, n.to_string())
                .partition(PartitionId::new(p));
            let _ = producer.send(record).await.unwrap();
        }
    }
    producer.close().await.unwrap();
    fake
}

/// Reads `count` records and checks that offsets and values of each partition run on from `from`.
async fn check(consumer: &mut Consumer, from: u64, count: usize) {
    let mut next = [from; 2];
    let mut seen = 0;
    while seen < count {
        for fetched in consumer.poll(LONG).await.unwrap() {
            let p = fetched.partition.partition.get() as usize;
            for record in fetched.records().unwrap() {
                assert_eq!(record.offset, Offset::new(next[p]));
                assert_eq!(record.value.unwrap(), next[p].to_string());
                next[p] += 1;
                seen += 1;
            }
            assert_eq!(
                consumer.position(&fetched.partition),
                Some(Offset::new(next[p]))
            );
        }
    }
    assert_eq!(seen, count);
}

#[tokio::test]
async fn records_come_once_and_in_order() {
    let fake = filled().await;
    let mut consumer = Consumer::new(&fake.client().await, ConsumerConfig::default());
    assert_eq!(
        consumer
            .assign_topic(&partition(0).topic, Start::Earliest)
            .await
            .unwrap(),
        2
    );
    check(&mut consumer, 0, 60).await;
    assert_eq!(consumer.lag(&partition(0)), Some(0));
}

#[tokio::test]
async fn an_offset_inside_a_batch_begins_there() {
    let fake = filled().await;
    for from in 0..30 {
        let mut consumer = Consumer::new(&fake.client().await, ConsumerConfig::default());
        consumer.assign(partition(1), Start::Offset(Offset::new(from)));
        let mut next = from;
        while next < 30 {
            for fetched in consumer.poll(LONG).await.unwrap() {
                fetched
                    .for_each_record(|record| {
                        assert_eq!(record.offset, Offset::new(next));
                        next += 1;
                    })
                    .unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_last_batch_that_is_cut_is_asked_for_again() {
    let fake = filled().await;
    fake.state().cut_bytes = 7;
    let mut consumer = Consumer::new(&fake.client().await, ConsumerConfig::default());
    for p in 0..2 {
        consumer.assign(partition(p), Start::Earliest);
    }
    check(&mut consumer, 0, 60).await;
}

#[tokio::test]
async fn faults_lose_and_double_nothing() {
    let fake = filled().await;
    let faults = [
        Fault::DropBefore,
        Fault::DropAfter,
        Fault::Refuse(ErrorCode::NotLeaderOrFollower),
        Fault::Refuse(ErrorCode::UnknownTopicOrPartition),
        Fault::Refuse(ErrorCode::KafkaStorageError),
    ];
    for fault in faults {
        fake.state().faults.extend([fault, fault]);
        let mut consumer = Consumer::new(&fake.client().await, ConsumerConfig::default());
        for p in 0..2 {
            consumer.assign(partition(p), Start::Earliest);
        }
        check(&mut consumer, 0, 60).await;
    }
}

#[tokio::test]
async fn a_poll_that_is_dropped_loses_nothing() {
    let fake = filled().await;
    let mut consumer = Consumer::new(&fake.client().await, ConsumerConfig::default());
    for p in 0..2 {
        consumer.assign(partition(p), Start::Earliest);
    }
    for _ in 0..20 {
        tokio::select! {
            biased;
            () = tokio::task::yield_now() => {}
            fetched = consumer.poll(LONG) => panic!("too early: {fetched:?}"),
        }
    }
    check(&mut consumer, 0, 60).await;
}

#[tokio::test]
async fn an_offset_that_does_not_exist_is_told_or_replaced() {
    let fake = filled().await;
    let cases = [
        (Reset::Earliest, Some(0)),
        (Reset::Latest, None),
        (Reset::Fail, None),
    ];
    for (reset, first) in cases {
        let config = ConsumerConfig {
            reset,
            ..Default::default()
        };
        let mut consumer = Consumer::new(&fake.client().await, config);
        consumer.assign(partition(0), Start::Offset(Offset::new(99)));
        let wait = if reset == Reset::Latest {
            Duration::from_millis(200)
        } else {
            LONG
        };
        match consumer.poll(wait).await {
            Ok(fetched) => {
                assert_eq!(fetched.first().map(|f| f.from.get()), first);
                if reset == Reset::Latest {
                    assert_eq!(consumer.position(&partition(0)), Some(Offset::new(30)));
                }
            }
            Err(error) => {
                assert_eq!(reset, Reset::Fail);
                assert!(
                    matches!(error, Error::OffsetOutOfRange { offset: 99, .. }),
                    "{error}"
                );
            }
        }
    }
}

/// Changes a byte of one of a partition's batches, and says which offsets it has.
fn damage(fake: &Fake, partition: usize, number: usize) -> (Offset, Offset) {
    let batch = &mut fake.state().logs[partition][number];
    let (base, next) = (batch.header().base(), batch.header().next_offset());
    let mut bytes = batch.bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    *batch = Batch::parse_unverified(bytes.into()).unwrap();
    (base, next)
}

#[tokio::test]
async fn what_lies_before_damage_is_yielded_and_the_way_on_is_found() {
    let fake = filled().await;
    let (base, next) = damage(&fake, 0, 4);
    let client = fake.client().await;
    let mut consumer = Consumer::new(&client, ConsumerConfig::default());
    consumer.assign(partition(0), Start::Earliest);
    let mut offsets = Vec::new();
    let error = loop {
        match consumer.poll(LONG).await {
            Ok(fetched) => {
                for fetched in fetched {
                    let records = fetched.records().unwrap();
                    offsets.extend(records.iter().map(|record| record.offset));
                }
            }
            Err(error) => break error,
        }
    };
    let Error::Damaged { offset, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(offset, base);
    let before: Vec<Offset> = (0..base.get()).map(Offset::new).collect();
    assert_eq!(offsets, before);
    assert_eq!(
        after_damage(&client, &partition(0), offset).await.unwrap(),
        next
    );
    consumer.assign(partition(0), Start::Offset(next));
    let fetched = consumer.poll(LONG).await.unwrap();
    assert_eq!(fetched[0].records().unwrap()[0].offset, next);
}

#[tokio::test]
async fn damage_up_to_the_end_leads_to_the_end() {
    let fake = filled().await;
    let last = fake.state().logs[0].len() - 1;
    let (base, next) = damage(&fake, 0, last);
    let way = after_damage(&fake.client().await, &partition(0), base).await;
    assert_eq!(way.unwrap(), next);
}

#[tokio::test]
async fn what_a_broker_calls_corrupt_is_an_error_and_not_asked_for_for_ever() {
    let fake = filled().await;
    fake.state()
        .faults
        .push_back(Fault::Refuse(ErrorCode::CorruptMessage));
    let mut consumer = Consumer::new(&fake.client().await, ConsumerConfig::default());
    consumer.assign(partition(0), Start::Earliest);
    let error = consumer.poll(LONG).await.unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}
