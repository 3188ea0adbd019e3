//! Everything that the client can do, one thing after the other, each with its check.
//! Callers: the example's `main`, and the broker's own tests.

use client::admin::{At, Committed, ConfigChange, NewTopic, Resource, single};
use client::consumer::{Fetched, Reset, Start};
use client::group::Assignor;
use client::{
    Admin, Client, ClientConfig, Consumer, ConsumerConfig, ErrorCode, GroupConfig, GroupConsumer,
    Producer, ProducerConfig, ProducerRecord,
};
use model::batch::{BatchBuilder, Codec, Compression, RecordBody};
use model::{Offset, PartitionId, Timestamp, TopicName, TopicPartition};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a step comes to; what does not hold panics.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Exercises the broker at `address`; the measurements send `records` records.
pub async fn run(address: &str, records: u64) -> Outcome {
    let client = Client::connect(ClientConfig::new(address)).await?;
    let admin = Admin::new(&client);
    let name = format!("exercise-{}", uuid::Uuid::new_v4());
    let topic = TopicName::parse(&name)?;
    topics(&admin, &name).await?;
    let result = async {
        codecs(&client, &topic).await?;
        places(&client, &topic).await?;
        groups(&client, &topic).await?;
        speed(&client, &topic, records).await
    }
    .await;
    single(admin.delete_topics(&[&name]).await?, &name)?;
    result
}

async fn topics(admin: &Admin, name: &str) -> Outcome {
    let cluster = admin.describe_cluster().await?;
    assert!(!cluster.brokers.is_empty());
    let new = NewTopic {
        name: name.to_owned(),
        partitions: Some(2),
        replication_factor: Some(1),
        configs: vec![("retention.ms".into(), "86400000".into())],
        ..Default::default()
    };
    admin.create_topic(new.clone()).await?;
    let again = single(admin.create_topics(&[new], false).await?, name);
    assert_eq!(
        again.expect_err("it exists").code(),
        Some(ErrorCode::TopicAlreadyExists)
    );
    let resource = Resource::Topic(name.to_owned());
    let change = ConfigChange::Set("max.message.bytes".into(), "2000000".into());
    admin.alter_configs(&resource, &[change], false).await?;
    let configs = admin.describe_configs(&resource).await?;
    let value = |key: &str| {
        configs
            .iter()
            .find(|c| c.name == key)
            .and_then(|c| c.value.clone())
    };
    assert_eq!(value("max.message.bytes").as_deref(), Some("2000000"));
    assert_eq!(value("retention.ms").as_deref(), Some("86400000"));
    single(admin.create_partitions(&[(name, 3)], false).await?, name)?;
    let topics = admin.list_topics().await?;
    assert_eq!(topics.get(name).map(|t| t.partitions.len()), Some(3));
    assert!(!admin.log_dirs().await?.is_empty());
    println!("topics, settings: fine");
    Ok(())
}

async fn codecs(client: &Client, topic: &TopicName) -> Outcome {
    let partition = TopicPartition::new(topic.clone(), PartitionId::new(0));
    let mut next = 0;
    for codec in Codec::ALL {
        for idempotent in [true, false] {
            let compression = Compression::from(codec);
            let config = ProducerConfig {
                compression,
                idempotent,
                ..Default::default()
            };
            let producer = Producer::new(client, config)?;
            let mut deliveries = Vec::new();
            for n in 0..100 {
                let record = ProducerRecord::new(topic.clone(), format!("{codec:?} {n}"))
                    .partition(partition.partition)
                    .key("key")
                    .timestamp(Timestamp::from_millis(1_000_000 + next + n));
                deliveries.push(producer.send(record).await?);
            }
            for (n, delivery) in (0..).zip(deliveries) {
                let delivered = delivery.wait().await?;
                assert_eq!(delivered.offset, Offset::from_wire(next + n));
            }
            producer.close().await?;
            next += 100;
        }
    }
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign(partition.clone(), Start::Earliest);
    let mut seen = 0;
    while seen < next {
        for fetched in consumer.poll(Duration::from_secs(5)).await? {
            fetched.for_each_record(|record| {
                assert_eq!(record.offset.to_wire(), seen);
                assert_eq!(record.key, Some(&b"key"[..]));
                seen += 1;
            })?;
        }
    }
    println!("{seen} records with every codec: fine");
    Ok(())
}

async fn places(client: &Client, topic: &TopicName) -> Outcome {
    let admin = Admin::new(client);
    let partition = TopicPartition::new(topic.clone(), PartitionId::new(0));
    let place = async |at| {
        admin
            .list_offsets(&[(partition.clone(), at)])
            .await
            .map(|found| found[&partition])
    };
    assert_eq!(place(At::Earliest).await?.offset, Some(Offset::ZERO));
    assert_eq!(place(At::Latest).await?.offset, Some(Offset::new(1000)));
    let found = place(At::Time(Timestamp::from_millis(1_000_250))).await?;
    assert_eq!(
        (found.offset, found.timestamp),
        (
            Some(Offset::new(250)),
            Some(Timestamp::from_millis(1_000_250))
        )
    );
    assert_eq!(
        place(At::Time(Timestamp::from_millis(9_000_000)))
            .await?
            .offset,
        None
    );
    assert_eq!(
        place(At::MaxTimestamp).await?.offset,
        Some(Offset::new(999))
    );
    let left = admin
        .delete_records(&[(partition.clone(), Some(Offset::new(50)))])
        .await?;
    assert_eq!(left[&partition], Offset::new(50));
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign(partition.clone(), Start::Offset(Offset::new(10)));
    let error = loop {
        match consumer.poll(Duration::from_secs(5)).await {
            Ok(fetched) => assert!(fetched.is_empty()),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, client::Error::OffsetOutOfRange { offset: 10, .. }),
        "{error}"
    );
    for (start, first) in [
        (Start::Time(Timestamp::from_millis(1_000_777)), Some(777)),
        (Start::Offset(Offset::new(123)), Some(123)),
        (Start::Earliest, Some(50)),
        (Start::Latest, None),
    ] {
        consumer.assign(partition.clone(), start);
        // It returns as soon as there is something.
        let wait = match first {
            Some(_) => Duration::from_secs(30),
            None => Duration::from_millis(700),
        };
        let fetched = consumer.poll(wait).await?;
        let records = fetched.first().map(Fetched::records).transpose()?;
        let found = records.and_then(|r| r.first().map(|r| r.offset.get()));
        assert_eq!(found, first, "{start:?}");
    }
    println!("offsets, times, deleted records: fine");
    Ok(())
}

async fn groups(client: &Client, topic: &TopicName) -> Outcome {
    let admin = Admin::new(client);
    let group = format!("{topic}-group");
    let mut config = GroupConfig::new(group.clone(), [topic.as_str()]);
    config.heartbeat_interval = Duration::from_millis(200);
    config.session_timeout = Duration::from_secs(10);
    config.assignors = vec![Assignor::RoundRobin, Assignor::Range];
    config.consumer.reset = Reset::Earliest;
    let mut one = GroupConsumer::new(client, config.clone());
    let mut seen = 0;
    while seen < 950 {
        for fetched in one.poll(Duration::from_secs(5)).await? {
            seen += fetched.records()?.len();
        }
    }
    assert_eq!(one.assignment().len(), 3);
    let mut two = GroupConsumer::new(client, config.clone());
    let begun = Instant::now();
    while one.assignment().len() + two.assignment().len() != 3 || two.assignment().is_empty() {
        let (a, b) = tokio::join!(
            one.poll(Duration::from_millis(100)),
            two.poll(Duration::from_millis(100))
        );
        let again: usize = a?.iter().chain(&b?).map(|f| f.batches.len()).sum();
        assert_eq!(again, 0, "what was read was committed before the rebalance");
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
    let described = admin.describe_group(&group).await?;
    assert_eq!(
        (described.state.as_str(), described.members.len()),
        ("Stable", 2)
    );
    assert_eq!(
        described
            .members
            .iter()
            .map(|m| m.partitions.len())
            .sum::<usize>(),
        3
    );
    assert!(admin.list_groups().await?.iter().any(|g| g.group == group));
    one.close().await?;
    let begun = Instant::now();
    while two.assignment().len() != 3 {
        two.poll(Duration::from_millis(100)).await?;
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
    two.close().await?;
    let partition = TopicPartition::new(topic.clone(), PartitionId::new(0));
    let committed = admin.committed(&group, None).await?;
    assert_eq!(
        committed.get(&partition).map(|c| c.offset),
        Some(Offset::new(1000))
    );
    let moved = Committed {
        offset: Offset::new(500),
        metadata: "moved".into(),
    };
    admin
        .commit(&group, &[(partition.clone(), moved.clone())])
        .await?;
    assert_eq!(
        admin
            .committed(&group, Some(std::slice::from_ref(&partition)))
            .await?
            .get(&partition),
        Some(&moved)
    );
    admin
        .delete_committed(&group, std::slice::from_ref(&partition))
        .await?;
    assert_eq!(admin.committed(&group, None).await?.get(&partition), None);
    admin.delete_group(&group).await?;
    println!("groups, commits: fine");
    Ok(())
}

async fn speed(client: &Client, topic: &TopicName, records: u64) -> Outcome {
    let value = vec![b'x'; 100];
    let config = ProducerConfig {
        linger: Duration::from_millis(5),
        batch_bytes: 1 << 20,
        ..Default::default()
    };
    let producer = Producer::new(client, config.clone())?;
    let mut before: BTreeMap<u32, u64> = BTreeMap::new();
    let admin = Admin::new(client);
    for n in 0..3 {
        let partition = TopicPartition::new(topic.clone(), PartitionId::new(n));
        let end = admin
            .list_offsets(&[(partition.clone(), At::Latest)])
            .await?[&partition]
            .offset;
        before.insert(n, end.map_or(0, Offset::get));
    }
    let begun = Instant::now();
    for _ in 0..records {
        let body = RecordBody {
            value: Some(&value),
            ..Default::default()
        };
        let _ = producer.send_body(topic, None, None, body).await?;
    }
    producer.flush().await?;
    report("produced", records, records * 100, begun);
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    for (&n, &end) in &before {
        let partition = TopicPartition::new(topic.clone(), PartitionId::new(n));
        consumer.assign(partition, Start::Offset(Offset::new(end)));
    }
    let begun = Instant::now();
    let (mut count, mut bytes) = (0, 0);
    while count < records {
        let fetched = consumer.poll(Duration::from_secs(5)).await?;
        assert!(
            !fetched.is_empty(),
            "{count} of {records} records came back"
        );
        for fetched in fetched {
            fetched.for_each_record(|record| {
                count += 1;
                bytes += record.value.map_or(0, <[u8]>::len) as u64;
            })?;
        }
    }
    report("consumed", count, bytes, begun);
    let mut builder = BatchBuilder::new(Codec::None);
    let large = vec![b'y'; 10_000];
    while builder.plain_bytes() < 1_000_000 {
        builder.push(Timestamp::from_millis(1), None, Some(&large), &[])?;
    }
    let batch = builder.build()?;
    let raw = Producer::new(
        client,
        ProducerConfig {
            idempotent: false,
            ..config
        },
    )?;
    let begun = Instant::now();
    let batches = 500;
    for n in 0..batches {
        let partition = TopicPartition::new(topic.clone(), PartitionId::new(n % 3));
        let _ = raw.send_batch(&partition, batch.clone()).await?;
    }
    raw.flush().await?;
    report(
        "batches",
        u64::from(batches),
        u64::from(batches) * batch.len() as u64,
        begun,
    );
    raw.close().await?;
    producer.close().await?;
    Ok(())
}

fn report(what: &str, count: u64, bytes: u64, begun: Instant) {
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{what}: {count} in {seconds:.2} s, {:.0} a second, {:.0} MB/s",
        count as f64 / seconds,
        bytes as f64 / seconds / 1e6
    );
}
