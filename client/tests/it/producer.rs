//! What the producer promises, whatever the broker does.

use crate::fake::{Fake, Fault, TOPIC};
use client::producer::partition_of_key;
use client::{Acks, Error, ErrorCode, Producer, ProducerConfig, ProducerRecord};
use model::batch::{BatchBuilder, Codec};
use model::{Offset, PartitionId, Timestamp, TopicName, TopicPartition};
use std::time::{Duration, Instant};

fn topic() -> TopicName {
    TopicName::parse(TOPIC).unwrap()
}

fn record(partition: u32, value: impl Into<String>) -> ProducerRecord {
    ProducerRecord::new(topic(), value.into()).partition(PartitionId::new(partition))
}

/// Small batches, sent at once.
fn config() -> ProducerConfig {
    ProducerConfig {
        linger: Duration::ZERO,
        batch_bytes: 110,
        ..Default::default()
    }
}

/// Sends 40 records to each of two partitions while the faults happen, and expects each of them once and in order.
async fn check(faults: &[Fault], what: &str) {
    let fake = Fake::start(2).await;
    fake.state().faults.extend(faults);
    let producer = Producer::new(&fake.client().await, config()).unwrap();
    let mut deliveries = Vec::new();
    for n in 0..40 {
        for partition in 0..2 {
            deliveries.push(
                producer
                    .send(record(partition, format!("{n}")))
                    .await
                    .unwrap(),
            );
            if n % 3 == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
    producer
        .close()
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let wanted: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    for partition in 0..2 {
        assert_eq!(fake.values(partition), wanted, "{what}");
    }
    let left = fake
        .state()
        .faults
        .iter()
        .filter(|f| **f != Fault::Answer)
        .count();
    assert!(
        left == 0 || left < faults.len() / 2,
        "{what}: {left} faults never happened"
    );
    for (n, delivery) in deliveries.iter().enumerate() {
        let delivered = delivery.get().unwrap().unwrap();
        assert_eq!(delivered.offset, Some(Offset::new(n as u64 / 2)), "{what}");
    }
}

#[tokio::test]
async fn records_arrive_once_and_in_order() {
    check(&[], "without faults").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_at_each_request_loses_and_doubles_nothing() {
    let faults = [
        Fault::DropBefore,
        Fault::DropAfter,
        Fault::Refuse(ErrorCode::NotLeaderOrFollower),
        Fault::Refuse(ErrorCode::KafkaStorageError),
        Fault::Refuse(ErrorCode::NotEnoughReplicasAfterAppend),
    ];
    for fault in faults {
        for position in 0..6 {
            for times in 1..=3 {
                let mut script = vec![Fault::Answer; position];
                script.extend(vec![fault; times]);
                check(&script, &format!("{fault:?} {times} times at {position}")).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_lose_and_double_nothing() {
    for seed in 1..=60_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut script = Vec::new();
        for _ in 0..25 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            script.push(match (random >> 20) % 6 {
                0 => Fault::DropBefore,
                1 => Fault::DropAfter,
                2 => Fault::Refuse(ErrorCode::RequestTimedOut),
                _ => Fault::Answer,
            });
        }
        check(&script, &format!("seed {seed}")).await;
    }
}

#[tokio::test]
async fn a_refused_batch_fails_alone_and_the_rest_goes_on_without_a_gap() {
    let fake = Fake::start(1).await;
    fake.state()
        .faults
        .extend([Fault::Answer, Fault::Refuse(ErrorCode::MessageTooLarge)]);
    let producer = Producer::new(&fake.client().await, config()).unwrap();
    let mut refused = Vec::new();
    for n in 0..20 {
        let delivery = producer.send(record(0, n.to_string())).await.unwrap();
        // Each in a batch of its own.
        let outcome = delivery.wait().await;
        if let Err(error) = &outcome {
            assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge));
            assert!(
                error.to_string().contains("MESSAGE_TOO_LARGE (10)"),
                "{error}"
            );
            refused.push(n);
        }
    }
    assert_eq!(refused, [1]);
    let error = producer.flush().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge));
    producer.flush().await.unwrap();
    let wanted: Vec<String> = (0..20).filter(|n| *n != 1).map(|n| n.to_string()).collect();
    assert_eq!(fake.values(0), wanted);
}

#[tokio::test]
async fn batches_behind_a_refused_one_are_numbered_anew() {
    let fake = Fake::start(1).await;
    fake.state()
        .faults
        .extend([Fault::Refuse(ErrorCode::InvalidRecord)]);
    let producer = Producer::new(&fake.client().await, config()).unwrap();
    let mut deliveries = Vec::new();
    for n in 0..60 {
        deliveries.push(producer.send(record(0, n.to_string())).await.unwrap());
    }
    producer.flush().await.unwrap_err();
    let delivered: Vec<String> = (0..60)
        .zip(&deliveries)
        .filter(|(_, d)| d.get().unwrap().is_ok())
        .map(|(n, _)| n.to_string())
        .collect();
    assert!(delivered.len() < 60);
    assert!(delivered.len() > 40, "only one batch was refused");
    assert_eq!(fake.values(0), delivered);
}

#[tokio::test]
async fn a_broker_that_forgot_the_producer_is_introduced_to_it_again() {
    let refuse = Fault::Refuse(ErrorCode::UnknownProducerId);
    check(
        &[Fault::Answer, refuse, Fault::Answer, refuse, refuse],
        "unknown producer",
    )
    .await;
}

#[tokio::test]
async fn a_record_that_cannot_be_delivered_in_time_fails() {
    let fake = Fake::start(1).await;
    fake.state()
        .faults
        .extend(vec![Fault::Refuse(ErrorCode::NotLeaderOrFollower); 100_000]);
    let config = ProducerConfig {
        delivery_timeout: Duration::from_millis(200),
        ..config()
    };
    let producer = Producer::new(&fake.client().await, config).unwrap();
    let delivery = producer.send(record(0, "late")).await.unwrap();
    assert!(delivery.wait().await.is_err());
    assert_eq!(producer.buffered_bytes(), 0);
    fake.state().faults.clear();
    producer
        .send(record(0, "after"))
        .await
        .unwrap()
        .wait()
        .await
        .unwrap();
    assert_eq!(fake.values(0), ["after"]);
}

#[tokio::test]
async fn the_delivery_timeout_holds_for_what_is_under_way() {
    let fake = Fake::start(1).await;
    fake.state().faults.push_back(Fault::Silence);
    let config = ProducerConfig {
        delivery_timeout: Duration::from_millis(200),
        ..config()
    };
    let producer = Producer::new(&fake.client().await, config).unwrap();
    let begun = Instant::now();
    let delivery = producer.send(record(0, "x")).await.unwrap();
    let error = delivery.wait().await.unwrap_err();
    assert!(matches!(error, Error::Undelivered { .. }), "{error}");
    assert!(matches!(
        producer.close().await,
        Err(Error::Undelivered { .. })
    ));
    // The answer itself would be waited for 60 seconds.
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn what_is_not_delivered_in_time_says_why_it_was_sent_again() {
    let fake = Fake::start(1).await;
    fake.state()
        .faults
        .extend(vec![Fault::Refuse(ErrorCode::KafkaStorageError); 100_000]);
    let config = ProducerConfig {
        delivery_timeout: Duration::from_millis(200),
        ..config()
    };
    let client = fake.client().await;
    let producer = Producer::new(&client, config).unwrap();
    let delivery = producer.send(record(0, "x")).await.unwrap();
    let error = delivery.wait().await.unwrap_err().to_string();
    assert!(error.contains("KAFKA_STORAGE_ERROR"), "{error}");
}

#[tokio::test]
async fn batches_keep_to_the_topics_bound() {
    let fake = Fake::start(1).await;
    fake.state().message_bytes_max = 1000;
    let config = ProducerConfig {
        linger: Duration::from_secs(60),
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&fake.client().await, config).unwrap();
    let mut values = Vec::new();
    for n in 0..200 {
        values.push(format!("{n:0>20}"));
        let _ = producer.send(record(0, values[n].clone())).await.unwrap();
    }
    let large = producer.send(record(0, "x".repeat(1000))).await;
    assert!(matches!(
        large,
        Err(Error::RecordTooLarge {
            bytes_max: 1000,
            ..
        })
    ));
    producer.close().await.unwrap();
    assert_eq!(fake.values(0), values);
    let state = fake.state();
    let produced = state
        .requests
        .iter()
        .filter(|(key, _)| *key == wire::ApiKey::Produce);
    // Nothing was refused and sent again, and no batch was much smaller than it may be.
    assert!(produced.count() <= state.logs[0].len());
    assert!(state.logs[0].len() < 12, "{} batches", state.logs[0].len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_too_large_is_split_until_only_the_record_that_is_fails() {
    for compression in [Codec::None, Codec::Lz4] {
        let fake = Fake::start(1).await;
        fake.state().message_bytes_max = 600;
        // So that the bound is found out by the refusal only.
        fake.state().hides_settings = true;
        let config = ProducerConfig {
            linger: Duration::ZERO,
            batch_bytes: 3000,
            compression: compression.into(),
            ..ProducerConfig::default()
        };
        let producer = Producer::new(&fake.client().await, config).unwrap();
        let mut random = 1_u64;
        let mut noise = |bytes: usize| -> String {
            let mut next = || {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                char::from(b'!' + u8::try_from((random >> 33) % 90).unwrap())
            };
            (0..bytes).map(|_| next()).collect()
        };
        let mut sent = Vec::new();
        for n in 0..300 {
            let value = noise(if n % 100 == 50 { 2000 } else { 30 });
            let delivery = producer.send(record(0, value.clone())).await.unwrap();
            sent.push((value, delivery));
        }
        let error = producer.close().await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge));
        let mut stored = Vec::new();
        for (value, delivery) in sent {
            match delivery.get().unwrap() {
                Ok(delivered) => {
                    assert_eq!(delivered.offset, Some(Offset::new(stored.len() as u64)));
                    stored.push(value);
                }
                Err(error) => {
                    assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge));
                    assert_eq!(value.len(), 2000);
                }
            }
        }
        assert_eq!(stored.len(), 297);
        assert_eq!(fake.values(0), stored, "once each, and in order");
    }
}

#[tokio::test]
async fn a_topic_that_is_deleted_under_the_producer_is_an_error_that_says_so() {
    let fake = Fake::start(1).await;
    let config = ProducerConfig {
        // The grace is not longer than this.
        delivery_timeout: Duration::from_millis(500),
        ..config()
    };
    let producer = Producer::new(&fake.client().await, config).unwrap();
    let first = producer.send(record(0, "before")).await.unwrap();
    first.wait().await.unwrap();
    fake.state().is_deleted = true;
    let error = loop {
        let after = producer.send(record(0, "after")).await.unwrap();
        // Those that came first may be late before the topic is known to be gone.
        match after.wait().await.unwrap_err() {
            Error::Undelivered { last, .. } => {
                let last = last.unwrap();
                assert_eq!(last.code(), Some(ErrorCode::UnknownTopicOrPartition));
            }
            error => break error,
        }
    };
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopicOrPartition));
    assert!(error.to_string().contains("deleted"), "{error}");
    // It is not created again behind its owner's back.
    let error = producer.send(record(0, "later")).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopicOrPartition));
    fake.state().is_deleted = false;
    let again = producer.send(record(0, "again")).await.unwrap();
    assert_eq!(again.wait().await.unwrap().offset, Some(Offset::new(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_clone_is_told_of_a_failure_by_its_own_flush() {
    let fake = Fake::start(1).await;
    fake.state()
        .faults
        .push_back(Fault::Refuse(ErrorCode::InvalidRecord));
    let producer = Producer::new(&fake.client().await, config()).unwrap();
    let clone = producer.clone();
    let delivery = producer.send(record(0, "x")).await.unwrap();
    delivery.wait().await.unwrap_err();
    for told in [&producer, &clone] {
        let error = told.flush().await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::InvalidRecord));
        told.flush().await.unwrap();
    }
}

#[tokio::test]
async fn a_full_buffer_makes_the_sender_wait_until_there_is_room() {
    let fake = Fake::start(1).await;
    let config = ProducerConfig {
        buffer_bytes: 400,
        ..config()
    };
    let producer = Producer::new(&fake.client().await, config).unwrap();
    for n in 0..200 {
        let _ = producer.send(record(0, n.to_string())).await.unwrap();
        assert!(producer.buffered_bytes() <= 400);
    }
    producer.flush().await.unwrap();
    assert_eq!(fake.values(0).len(), 200);
    assert_eq!(producer.buffered_bytes(), 0);
}

#[tokio::test]
async fn dropping_the_producer_tells_the_records_that_wait() {
    let fake = Fake::start(1).await;
    fake.state().faults.push_back(Fault::Silence);
    let producer = Producer::new(&fake.client().await, config()).unwrap();
    let delivery = producer.send(record(0, "x")).await.unwrap();
    drop(producer);
    assert!(matches!(delivery.wait().await, Err(Error::Closed)));
}

#[tokio::test]
async fn without_acks_nothing_is_waited_for() {
    let fake = Fake::start(1).await;
    let config = ProducerConfig {
        acks: Acks::None,
        idempotent: false,
        ..config()
    };
    let producer = Producer::new(&fake.client().await, config).unwrap();
    let delivered = producer
        .send(record(0, "x"))
        .await
        .unwrap()
        .wait()
        .await
        .unwrap();
    assert_eq!(delivered.offset, None);
    producer.close().await.unwrap();
}

#[tokio::test]
async fn keys_go_where_java_puts_them_and_the_rest_is_spread() {
    let fake = Fake::start(3).await;
    let producer = Producer::new(&fake.client().await, config()).unwrap();
    for n in 0..50 {
        let key = format!("key {n}");
        let delivery = producer
            .send(ProducerRecord::new(topic(), "v").key(key.clone()))
            .await
            .unwrap();
        let delivered = delivery.wait().await.unwrap();
        assert_eq!(
            delivered.partition.partition.get(),
            partition_of_key(key.as_bytes(), 3)
        );
    }
    for _ in 0..300 {
        let _ = producer
            .send(ProducerRecord::new(topic(), "unkeyed"))
            .await
            .unwrap();
    }
    producer.close().await.unwrap();
    for partition in 0..3 {
        assert!(
            fake.values(partition)
                .iter()
                .filter(|v| *v == "unkeyed")
                .count()
                > 20
        );
    }
}

#[tokio::test]
async fn a_batch_from_elsewhere_goes_out_as_it_is() {
    let fake = Fake::start(1).await;
    let config = ProducerConfig {
        idempotent: false,
        ..config()
    };
    let producer = Producer::new(&fake.client().await, config).unwrap();
    let mut builder = BatchBuilder::new(Codec::None);
    for value in ["one", "two"] {
        builder
            .push(Timestamp::from_millis(3), None, Some(value.as_bytes()), &[])
            .unwrap();
    }
    let batch = builder.build().unwrap();
    let partition = TopicPartition::new(topic(), PartitionId::new(0));
    for _ in 0..2 {
        let _ = producer
            .send_batch(&partition, batch.clone())
            .await
            .unwrap();
    }
    let last = producer
        .send_batch(&partition, batch.clone())
        .await
        .unwrap();
    assert_eq!(last.wait().await.unwrap().offset, Some(Offset::new(4)));
    assert_eq!(fake.state().logs[0][0].bytes()[STAMPED..], batch[STAMPED..]);
}

/// Bytes that a broker stamps.
const STAMPED: usize = model::batch::STAMP_BYTES;

#[tokio::test]
async fn what_cannot_be_sent_is_refused_at_once() {
    let fake = Fake::start(1).await;
    let client = fake.client().await;
    let no_acks = ProducerConfig {
        acks: Acks::None,
        ..ProducerConfig::default()
    };
    assert!(matches!(
        Producer::new(&client, no_acks),
        Err(Error::Invalid(_))
    ));
    let config = ProducerConfig {
        record_bytes_max: Some(1000),
        create_topics: false,
        ..config()
    };
    let producer = Producer::new(&client, config).unwrap();
    let large = producer.send(record(0, "x".repeat(1000))).await;
    assert!(matches!(large, Err(Error::RecordTooLarge { .. })));
    assert!(matches!(
        producer.send(record(9, "x")).await,
        Err(Error::Invalid(_))
    ));
    let elsewhere = ProducerRecord::new(TopicName::parse("missing").unwrap(), "x");
    let error = producer.send(elsewhere).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(producer.buffered_bytes(), 0);
}
