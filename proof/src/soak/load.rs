//! Mixed load at a moderate, paced rate, and a ledger small enough for an hour: every record carries its number within
//! its partition, and a reader that never stops sees each of them once, in order.
//!
//! - *steady*: two idempotent producers, one of them compressing, 1,000 records of 1 KiB a second each;
//! - *pulse*: 50 single records a second, whose acknowledgements are timed from the moment when each was due;
//! - *reader*: reads all of *steady* from its begin, and checks it;
//! - *replays*: a new connection every few seconds that reads a part from the oldest record on, as console tools do;
//! - *group*: three members that commit, leave and come back;
//! - *topics*: are created, written and deleted again.
//!
//! Caller: `soak::run`. Everything here outlives the broker's restarts: what fails is tried again, and only a record that
//! could not be delivered, or is missing, is an error.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use client::admin::NewTopic;
use client::consumer::{Reset, Start};
use client::{
    Admin, Client, ClientConfig, Consumer, ConsumerConfig, GroupConfig, GroupConsumer, Producer,
    ProducerConfig, ProducerRecord,
};
use model::batch::{Codec, Compression};
use model::{PartitionId, TopicName, TopicPartition};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const STEADY: &str = "soak-steady";
const PULSE: &str = "soak-pulse";
const GROUP: &str = "soak";
const PARTITIONS: u32 = 8;
const PRODUCERS: u32 = 2;
const RECORD_BYTES: usize = 1024;
/// Each producer sends this many records each time.
const RECORDS_PER_TICK: u64 = 20;
const TICK: Duration = Duration::from_millis(20);
const PULSE_EVERY: Duration = Duration::from_millis(20);
const REPLAY_EVERY: Duration = Duration::from_secs(5);
const REPLAY_BYTES: usize = 16 << 20;
const TOPIC_EVERY: Duration = Duration::from_secs(4);
/// So many of the topics that come and go are there at a time.
const TOPICS_KEPT: u64 = 5;
const MEMBERS: u64 = 3;
/// A member stays for this long and a bit, each another bit.
const MEMBER_STAYS: Duration = Duration::from_secs(25);
/// Kept of each partition: 256 MiB in all, reached after two minutes.
const RETENTION: [(&str, &str); 2] = [
    ("retention.bytes", "33554432"),
    ("segment.bytes", "8388608"),
];
/// The reader must have seen the last record this long after the end.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Load that is under way.
pub struct Load {
    shared: Arc<Shared>,
    tasks: Vec<(&'static str, JoinHandle<Result<()>>)>,
    reader: JoinHandle<Result<()>>,
}

struct Shared {
    address: String,
    stop: AtomicBool,
    /// All producers are done, and `delivered` is what the reader must have seen.
    complete: AtomicBool,
    delivered: Vec<AtomicU64>,
    latencies: Mutex<Vec<Duration>>,
    pulses: AtomicU64,
    read: AtomicU64,
    grouped: AtomicU64,
    joins: AtomicU64,
    replays: AtomicU64,
    topics: AtomicU64,
}

/// What was done.
pub struct Done {
    delivered: u64,
    pulses: u64,
    read: u64,
    grouped: u64,
    joins: u64,
    replays: u64,
    topics: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records acknowledged, {} read back in order and none missing, {} single records timed, {} read by a group with {} joins, \
             {} replays, {} topics created and deleted",
            self.delivered,
            self.read,
            self.pulses,
            self.grouped,
            self.joins,
            self.replays,
            self.topics
        )
    }
}

impl Load {
    /// Creates the topics and begins.
    pub async fn start(address: &str) -> Result<Load> {
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            stop: AtomicBool::new(false),
            complete: AtomicBool::new(false),
            delivered: (0..PARTITIONS).map(|_| AtomicU64::new(0)).collect(),
            latencies: Mutex::new(Vec::new()),
            pulses: AtomicU64::new(0),
            read: AtomicU64::new(0),
            grouped: AtomicU64::new(0),
            joins: AtomicU64::new(0),
            replays: AtomicU64::new(0),
            topics: AtomicU64::new(0),
        });
        let admin = Admin::new(&shared.connect().await?);
        for (name, partitions) in [(STEADY, PARTITIONS), (PULSE, 1)] {
            admin.create_topic(new_topic(name, partitions)?).await?;
        }
        let mut tasks = Vec::new();
        for number in 0..PRODUCERS {
            tasks.push(("steady", tokio::spawn(steady(shared.clone(), number))));
        }
        for number in 0..MEMBERS {
            tasks.push(("group", tokio::spawn(member(shared.clone(), number))));
        }
        tasks.push(("pulse", tokio::spawn(pulse(shared.clone()))));
        tasks.push(("replays", tokio::spawn(replays(shared.clone()))));
        tasks.push(("topics", tokio::spawn(topics(shared.clone()))));
        let reader = tokio::spawn(reader(shared.clone()));
        Ok(Load {
            shared,
            tasks,
            reader,
        })
    }

    /// The time that each acknowledgement took since the last call.
    pub fn latencies(&self) -> Vec<Duration> {
        std::mem::take(
            &mut self
                .shared
                .latencies
                .lock()
                .expect("nothing panics under this lock"),
        )
    }

    /// What was done so far.
    pub fn counts(&self) -> Done {
        let Shared {
            pulses,
            read,
            grouped,
            joins,
            replays,
            topics,
            ..
        } = &*self.shared;
        Done {
            delivered: self
                .shared
                .delivered
                .iter()
                .map(|count| count.load(Relaxed))
                .sum(),
            pulses: pulses.load(Relaxed),
            read: read.load(Relaxed),
            grouped: grouped.load(Relaxed),
            joins: joins.load(Relaxed),
            replays: replays.load(Relaxed),
            topics: topics.load(Relaxed),
        }
    }

    /// Ends it: everything is delivered, and the reader has seen everything. Error: something was lost.
    pub async fn stop(self) -> Result<Done> {
        self.shared.stop.store(true, Relaxed);
        let counts = Load {
            shared: self.shared.clone(),
            tasks: Vec::new(),
            reader: tokio::spawn(async { Ok(()) }),
        };
        for (name, task) in self.tasks {
            task.await?.with_context(|| name)?;
        }
        self.shared.complete.store(true, Relaxed);
        tokio::time::timeout(CATCH_UP, self.reader)
            .await
            .with_context(|| format!("the reader has not seen all: {}", counts.counts()))??
            .context("reader")?;
        Ok(counts.counts())
    }
}

impl Shared {
    /// A client of its own. The broker may be away for a while.
    async fn connect(&self) -> Result<Client> {
        loop {
            match Client::connect(ClientConfig::new(&self.address)).await {
                Ok(client) => return Ok(client),
                Err(error) if self.is_over() => bail!("connect: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Sleeps, but not beyond the end.
    async fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_over() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            tokio::time::sleep(left.min(Duration::from_millis(200))).await;
        }
    }
}

fn new_topic(name: &str, partitions: u32) -> Result<NewTopic> {
    let configs = RETENTION
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Ok(NewTopic {
        name: name.to_owned(),
        partitions: Some(i32::try_from(partitions)?),
        configs: configs.collect(),
        ..NewTopic::default()
    })
}

/// A record's number, and bytes that make it a KiB and compress to a half.
fn payload(number: u64) -> Bytes {
    let mut value = Vec::with_capacity(RECORD_BYTES);
    value.extend_from_slice(&number.to_be_bytes());
    let mut random = crate::exam::random::Random::new(number);
    let mut noise = [0; RECORD_BYTES / 2];
    random.fill(&mut noise);
    value.extend_from_slice(&noise);
    value.resize(RECORD_BYTES, b'.');
    value.into()
}

fn number_of(value: &[u8]) -> Result<u64> {
    let head = value.first_chunk().context("a record without a number")?;
    Ok(u64::from_be_bytes(*head))
}

async fn steady(shared: Arc<Shared>, producer_number: u32) -> Result<()> {
    let codec = if producer_number.is_multiple_of(2) {
        Codec::None
    } else {
        Codec::Lz4
    };
    let config = ProducerConfig {
        compression: Compression::from(codec),
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&shared.connect().await?, config)?;
    let (sender, mut deliveries) = mpsc::channel::<(u32, client::Delivery)>(100_000);
    let ledger = {
        let shared = shared.clone();
        tokio::spawn(async move {
            while let Some((partition, delivery)) = deliveries.recv().await {
                delivery
                    .wait()
                    .await
                    .context("a record was not delivered")?;
                shared.delivered[partition as usize].fetch_add(1, Relaxed);
            }
            anyhow::Ok(())
        })
    };
    let topic = TopicName::parse(STEADY)?;
    let own: Vec<u32> = (0..PARTITIONS)
        .filter(|partition| partition % PRODUCERS == producer_number)
        .collect();
    let mut numbers: BTreeMap<u32, u64> = own.iter().map(|partition| (*partition, 0)).collect();
    let mut ticks = tokio::time::interval(TICK);
    // After a restart the rate stays what it was: what was not sent then is not made up for.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut turn = 0;
    while !shared.is_over() {
        ticks.tick().await;
        for _ in 0..RECORDS_PER_TICK {
            let partition = own[turn % own.len()];
            turn += 1;
            let number = numbers.entry(partition).or_default();
            let record = ProducerRecord::new(topic.clone(), payload(*number))
                .partition(PartitionId::new(partition));
            *number += 1;
            let delivery = producer.send(record).await?;
            sender
                .send((partition, delivery))
                .await
                .context("the ledger has ended")?;
        }
    }
    drop(sender);
    producer.close().await?;
    ledger.await?
}

async fn pulse(shared: Arc<Shared>) -> Result<()> {
    let config = ProducerConfig {
        linger: Duration::ZERO,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&shared.connect().await?, config)?;
    let topic = TopicName::parse(PULSE)?;
    let begun = Instant::now();
    let mut sent = 0;
    while !shared.is_over() {
        let due = begun + PULSE_EVERY * sent;
        sent += 1;
        tokio::time::sleep_until(due.into()).await;
        let delivery = producer
            .send(ProducerRecord::new(topic.clone(), payload(u64::from(sent))))
            .await?;
        let shared = shared.clone();
        tokio::spawn(async move {
            if delivery.wait().await.is_ok() {
                shared.pulses.fetch_add(1, Relaxed);
                shared
                    .latencies
                    .lock()
                    .expect("nothing panics under this lock")
                    .push(due.elapsed());
            }
        });
    }
    Ok(producer.close().await?)
}

async fn reader(shared: Arc<Shared>) -> Result<()> {
    let client = shared.connect().await?;
    let mut consumer = Consumer::new(&client, ConsumerConfig::default());
    consumer
        .assign_topic(&TopicName::parse(STEADY)?, Start::Earliest)
        .await?;
    let mut next = vec![0_u64; PARTITIONS as usize];
    loop {
        let seen_all =
            || (0..next.len()).all(|index| next[index] == shared.delivered[index].load(Relaxed));
        if shared.complete.load(Relaxed) && seen_all() {
            return Ok(());
        }
        let fetched = match consumer.poll(Duration::from_millis(500)).await {
            Ok(fetched) => fetched,
            Err(error) if error.is_retriable() => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for part in &fetched {
            let index = part.partition.partition.to_wire() as usize;
            for record in part.records()? {
                let number = number_of(&record.value.unwrap_or_default())?;
                ensure!(
                    number == next[index],
                    "at offset {} of {} is record {number}, and {} was due",
                    record.offset,
                    part.partition,
                    next[index]
                );
                next[index] += 1;
                shared.read.fetch_add(1, Relaxed);
            }
        }
    }
}

async fn replays(shared: Arc<Shared>) -> Result<()> {
    let topic = TopicName::parse(STEADY)?;
    let config = ConsumerConfig {
        // Retention may be faster than a replay.
        reset: Reset::Earliest,
        ..ConsumerConfig::default()
    };
    for turn in 0.. {
        shared.pause(REPLAY_EVERY).await;
        if shared.is_over() {
            break;
        }
        let partition = TopicPartition {
            topic: topic.clone(),
            partition: PartitionId::new(turn % PARTITIONS),
        };
        let mut consumer = Consumer::new(&shared.connect().await?, config.clone());
        consumer.assign(partition.clone(), Start::Earliest);
        let (mut bytes, mut is_at_end) = (0, false);
        while bytes < REPLAY_BYTES && !is_at_end && !shared.is_over() {
            match consumer.poll(Duration::from_millis(500)).await {
                Ok(fetched) => {
                    bytes += fetched.iter().map(|part| part.bytes()).sum::<usize>();
                    is_at_end = consumer.lag(&partition) == Some(0);
                }
                Err(error) if error.is_retriable() => {
                    tokio::time::sleep(Duration::from_millis(100)).await
                }
                Err(error) => return Err(error.into()),
            }
        }
        shared.replays.fetch_add(1, Relaxed);
    }
    Ok(())
}

async fn member(shared: Arc<Shared>, number: u64) -> Result<()> {
    let config = GroupConfig {
        session_timeout: Duration::from_secs(10),
        rebalance_timeout: Duration::from_secs(10),
        heartbeat_interval: Duration::from_secs(1),
        auto_commit: Some(Duration::from_secs(1)),
        ..GroupConfig::new(GROUP, [STEADY])
    };
    while !shared.is_over() {
        let mut consumer = GroupConsumer::new(&shared.connect().await?, config.clone());
        let stays_until = Instant::now() + MEMBER_STAYS + Duration::from_secs(number * 7);
        while Instant::now() < stays_until && !shared.is_over() {
            match consumer.poll(Duration::from_millis(500)).await {
                Ok(fetched) => {
                    for part in fetched {
                        shared
                            .grouped
                            .fetch_add(part.records()?.len() as u64, Relaxed);
                    }
                }
                Err(error) if error.is_retriable() => {
                    tokio::time::sleep(Duration::from_millis(100)).await
                }
                Err(error) => return Err(error.into()),
            }
        }
        shared.joins.fetch_add(consumer.rebalances(), Relaxed);
        // The broker may be away just now: the session ends by itself then.
        let _ = consumer.close().await;
        shared.pause(Duration::from_secs(2)).await;
    }
    Ok(())
}

async fn topics(shared: Arc<Shared>) -> Result<()> {
    let client = shared.connect().await?;
    let admin = Admin::new(&client);
    let name = |turn: u64| format!("soak-passing-{turn}");
    for turn in 0.. {
        shared.pause(TOPIC_EVERY).await;
        if shared.is_over() {
            break;
        }
        // Nobody knows what became of a request that a restart cut off, so the answer to the next attempt may be no.
        let _ = admin.create_topic(new_topic(&name(turn), 4)?).await;
        let producer = Producer::new(&client, ProducerConfig::default())?;
        for number in 0..40 {
            let record = ProducerRecord::new(TopicName::parse(&name(turn))?, payload(number));
            let _ = producer.send(record).await?;
        }
        producer.close().await.context("a passing topic")?;
        if let Some(old) = turn.checked_sub(TOPICS_KEPT) {
            let _ = admin.delete_topics(&[&name(old)]).await;
            shared.topics.fetch_add(1, Relaxed);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_carries_its_number() {
        for number in [0, 7, u64::MAX] {
            let value = payload(number);
            assert_eq!(
                (value.len(), number_of(&value).unwrap()),
                (RECORD_BYTES, number)
            );
        }
        assert!(number_of(b"short").is_err());
    }
}
