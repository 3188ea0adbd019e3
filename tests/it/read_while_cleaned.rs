//! A consumer that reads while its topic is compacted again and again: it sees each record as it was sent, none twice, and no gap but those of
//! compaction.

use std::collections::BTreeMap;
use std::time::Duration;

use client::consumer::Start;
use client::{
    Client, ClientConfig, Consumer, ConsumerConfig, Producer, ProducerConfig, ProducerRecord,
};
use model::{Offset, PartitionId, TopicName, TopicPartition};
use serde_json::json;

use crate::binary::{Running, create_topic, serve};

const TOPIC: &str = "readings";
/// Records that are there when it begins, and those that each compaction finds beyond.
const AT_FIRST: usize = 1_500;
const MORE: usize = 60;
/// How often its topic is compacted while it reads.
const COMPACTIONS: usize = 8;

/// Every third record is the only one of its key, so that something of each batch stays.
fn key_of(number: usize) -> String {
    match number % 3 {
        0 => format!("once-{number}"),
        _ => format!("again-{}", number % 50),
    }
}

/// Keys and values by offset.
type Sent = BTreeMap<Offset, (String, String)>;

async fn produce(client: &Client, count: usize, sent: &mut Sent) {
    let config = ProducerConfig {
        batch_bytes: 1024,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(client, config).expect("a producer");
    let mut deliveries = Vec::new();
    for number in sent.len()..sent.len() + count {
        let (key, value) = (key_of(number), format!("value {number}"));
        let name = TopicName::parse(TOPIC).expect("a name");
        let record = ProducerRecord::new(name, value.clone()).key(key.clone());
        let delivery = producer.send(record).await.expect("taken");
        deliveries.push((key, value, delivery));
    }
    producer.close().await.expect("delivered");
    for (key, value, delivery) in deliveries {
        let delivered = delivery.wait().await.expect("delivered");
        sent.insert(delivered.offset.expect("an offset"), (key, value));
    }
}

/// Has the topic compacted. Gives where the job is to be asked for.
fn begin_compaction(running: &Running) -> String {
    let wanted = json!({ "policy": "compact", "topic": TOPIC, "now": true });
    let (status, job) = running.ask_json("POST /api/v1/cleanup/jobs", &wanted.to_string());
    assert_eq!(status, 202, "{job}");
    format!(
        "GET /api/v1/cleanup/jobs/{}?wait_ms=1000",
        job["id"].as_str().expect("an id")
    )
}

/// How many records a compaction took, when it has ended.
fn end_compaction(running: &Running, job: &str) -> u64 {
    loop {
        let (status, job) = running.ask_json(job, "");
        assert_eq!(status, 200, "{job}");
        match job["state"].as_str() {
            Some("waiting" | "running") => {}
            Some("done") => {
                let removed = &job["result"]["removed"]["records"];
                return removed.as_u64().expect("a number");
            }
            _ => panic!("{job}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_while_compaction_runs_sees_no_record_twice_and_no_gap_but_its_own() {
    let data = tempfile::tempdir().expect("a directory");
    // Nothing is compacted but when it is asked for.
    let running = Running::start(serve(data.path()).args([
        "-X",
        "settle.age.ms=20",
        "-X",
        "log.cleaner.backoff.ms=86400000",
    ]));
    let configs = [("cleanup.policy", "compact"), ("segment.bytes", "16384")];
    create_topic(&running, TOPIC, 1, &configs).await;
    let client = Client::connect(ClientConfig::new(&running.kafka));
    let client = client.await.expect("a client");
    let mut sent = Sent::new();
    produce(&client, AT_FIRST, &mut sent).await;

    let config = ConsumerConfig {
        partition_bytes_max: 2048,
        ..ConsumerConfig::default()
    };
    let mut consumer = Consumer::new(&client, config);
    let partition = TopicPartition {
        topic: TopicName::parse(TOPIC).expect("a name"),
        partition: PartitionId::new(0),
    };
    consumer.assign(partition.clone(), Start::Earliest);
    let mut shown = Vec::new();
    let (mut compactions, mut removed) = (0, 0);
    loop {
        let job = (compactions < COMPACTIONS).then(|| begin_compaction(&running));
        // The first of these while the topic is compacted.
        for _ in 0..3 {
            for fetched in consumer
                .poll(Duration::from_millis(100))
                .await
                .expect("records")
            {
                let visited = fetched.for_each_record(|record| {
                    let text = |bytes: Option<&[u8]>| {
                        String::from_utf8(bytes.expect("some").to_vec()).expect("text")
                    };
                    shown.push((record.offset, (text(record.key), text(record.value))));
                });
                visited.expect("sound batches");
            }
        }
        if let Some(job) = job {
            removed += end_compaction(&running, &job);
            compactions += 1;
            produce(&client, MORE, &mut sent).await;
        }
        let end = sent.keys().next_back().expect("records").plus(1);
        if compactions == COMPACTIONS && consumer.position(&partition) >= Some(end) {
            break;
        }
    }
    assert!(removed > 0, "nothing was compacted");
    let rises = shown.windows(2).all(|pair| pair[0].0 < pair[1].0);
    assert!(rises, "an offset is shown twice, or out of order");
    let shown: Sent = shown.into_iter().collect();
    for (offset, record) in &shown {
        assert_eq!(sent.get(offset), Some(record), "at {offset}");
    }
    let newest: BTreeMap<&str, Offset> = sent
        .iter()
        .map(|(offset, (key, _))| (key.as_str(), *offset))
        .collect();
    let missing = sent
        .iter()
        .filter(|(offset, _)| !shown.contains_key(offset));
    let mut gaps = 0;
    for (offset, (key, _)) in missing {
        assert!(
            newest[key.as_str()] > *offset,
            "{key} at {offset} is the newest"
        );
        gaps += 1;
    }
    assert!(gaps > 0, "it was never behind a compaction");
}
