//! The producer: records gather in a batch per partition (batching), and a task of its own sends the batches to their
//! leaders. Its memory is bounded, and a full one makes `send` wait: backpressure.
//!
//! `mod.rs` is what callers see, `queue.rs` the batches of one partition and the order in which they may leave, `sender.rs`
//! the task, `ledger.rs` the outcomes and what a flush reports of them. With idempotence (the default) every batch carries a
//! sequence number. A batch that is retried keeps its number and goes before all younger ones, so that the broker can tell
//! a duplicate from a gap.

mod ledger;
mod queue;
mod sender;

/// The lock that the ledger takes, so that a test can put another in its place.
mod sync {
    pub use std::sync::{Mutex, MutexGuard};
}

pub use model::partition_of_key;

use crate::admin::{Admin, Resource};
use crate::{Client, Error, Result};
use bytes::Bytes;
use ledger::{Fate, Ledger, Outcome, Watcher};
use model::batch::{Batch, BatchBuilder, Codec, Compression, HeaderRef, RecordBody};
use model::{Offset, PartitionId, Timestamp, TopicName, TopicPartition};
use queue::{Partition, Push};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, Semaphore};

/// The largest record that is accepted where neither the caller nor the broker names a bound: Kafka's default.
const RECORD_BYTES_MAX: usize = 1 << 20;
/// The setting of a topic that bounds its batches.
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// When the broker answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Never. Offsets are not known, and losses not noticed.
    None,
    /// Once the leader has it.
    Leader,
    /// Once all in-sync replicas have it.
    All,
}

impl Acks {
    fn to_wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

/// Settings of a producer.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// When the broker answers. Idempotence needs `All`.
    pub acks: Acks,
    /// Number batches, so that none is lost or doubled by sending it again.
    pub idempotent: bool,
    /// How batches are compressed.
    pub compression: Compression,
    /// How long a batch that is not full waits for more records.
    pub linger: Duration,
    /// When a batch is full, before compression. A topic's `max.message.bytes` makes its batches smaller.
    pub batch_bytes: usize,
    /// The most that one request carries.
    pub request_bytes_max: usize,
    /// What all records that were not delivered yet may take; beyond it `send` waits.
    pub buffer_bytes: usize,
    /// The largest record that is accepted. Without it the topic's `max.message.bytes` is the bound, or 1 MiB if the
    /// broker does not say. The topic's bound always counts.
    pub record_bytes_max: Option<usize>,
    /// Requests in-flight to one broker, and batches in-flight of one partition.
    pub in_flight_max: usize,
    /// How long a record may take in all: waiting for metadata and room, new attempts, and what is in-flight. After that it
    /// fails with [`Error::Undelivered`], whatever happens to it.
    pub delivery_timeout: Duration,
    /// How long the broker may wait for its replicas.
    pub ack_timeout: Duration,
    /// Let the broker create topics that are missing.
    pub create_topics: bool,
}

impl Default for ProducerConfig {
    fn default() -> ProducerConfig {
        ProducerConfig {
            acks: Acks::All,
            idempotent: true,
            compression: Compression::from(Codec::None),
            linger: Duration::from_millis(5),
            batch_bytes: 256 << 10,
            request_bytes_max: 8 << 20,
            buffer_bytes: 64 << 20,
            record_bytes_max: None,
            // The broker remembers five batches of each producer.
            in_flight_max: 5,
            delivery_timeout: Duration::from_secs(120),
            ack_timeout: Duration::from_secs(30),
            create_topics: true,
        }
    }
}

/// A record to be sent.
#[derive(Clone, Debug)]
pub struct ProducerRecord {
    /// Where it goes.
    pub topic: TopicName,
    /// Its partition; chosen by the key, or else one after another, if it is not given.
    pub partition: Option<PartitionId>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Its time; now, if it is not given.
    pub timestamp: Option<Timestamp>,
}

impl ProducerRecord {
    /// A record without a key.
    pub fn new(topic: TopicName, value: impl Into<Bytes>) -> ProducerRecord {
        ProducerRecord {
            topic,
            partition: None,
            key: None,
            value: Some(value.into()),
            headers: Vec::new(),
            timestamp: None,
        }
    }

    /// With a key.
    pub fn key(mut self, key: impl Into<Bytes>) -> ProducerRecord {
        self.key = Some(key.into());
        self
    }

    /// To this partition.
    pub fn partition(mut self, partition: PartitionId) -> ProducerRecord {
        self.partition = Some(partition);
        self
    }

    /// At this time.
    pub fn timestamp(mut self, timestamp: Timestamp) -> ProducerRecord {
        self.timestamp = Some(timestamp);
        self
    }
}

/// Where a record ended up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Its topic and partition.
    pub partition: TopicPartition,
    /// Its offset; none with [`Acks::None`], and none for a copy whose first offset the broker no longer knew.
    pub offset: Option<Offset>,
    /// The broker's time, if the topic is stamped with it.
    pub append_time: Option<Timestamp>,
}

/// A record on its way.
#[derive(Clone, Debug)]
#[must_use = "a record is only known to be delivered once this was waited for, or the producer was flushed without error"]
pub struct Delivery {
    fate: Arc<Fate>,
    index: u32,
}

impl Delivery {
    /// Waits until the broker has it, or it is certain that it cannot be delivered.
    pub async fn wait(&self) -> Result<Delivered> {
        let (mut fate, mut index) = (self.fate.clone(), self.index);
        loop {
            match fate.wait().await {
                Outcome::Whole(outcome) => return delivered(&fate, index, outcome),
                Outcome::Split { at, parts } => (fate, index) = part(parts, at, index),
            }
        }
    }

    /// The outcome, if it is known.
    pub fn get(&self) -> Option<Result<Delivered>> {
        let (mut fate, mut index) = (self.fate.clone(), self.index);
        loop {
            match fate.outcome()? {
                Outcome::Whole(outcome) => return Some(delivered(&fate, index, outcome)),
                Outcome::Split { at, parts } => (fate, index) = part(parts, at, index),
            }
        }
    }
}

/// The part of a batch that has its record number `index`, and the record's number there.
fn part([first, second]: [Arc<Fate>; 2], at: u32, index: u32) -> (Arc<Fate>, u32) {
    match index.checked_sub(at) {
        None => (first, index),
        Some(index) => (second, index),
    }
}

fn delivered(fate: &Fate, index: u32, outcome: Result<Acked>) -> Result<Delivered> {
    let acked = outcome?;
    Ok(Delivered {
        partition: fate.partition.clone(),
        offset: acked.base_offset.map(|base| base.plus(u64::from(index))),
        append_time: acked.append_time,
    })
}

#[derive(Clone, Debug)]
struct Acked {
    base_offset: Option<Offset>,
    append_time: Option<Timestamp>,
}

/// A producer. Clones share buffer and task, but each is told of failures by its own flushes. Dropping the last one gives up
/// what was not delivered: `close` it.
#[derive(Debug)]
pub struct Producer {
    shared: Arc<Shared>,
    /// What this clone was not told of yet.
    watcher: Watcher,
    _handle: Arc<Handle>,
}

impl Clone for Producer {
    /// The clone is told of what fails from now on.
    fn clone(&self) -> Producer {
        Producer {
            watcher: self.shared.ledger.watch(),
            shared: self.shared.clone(),
            _handle: self._handle.clone(),
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.ledger.unwatch(self.watcher);
    }
}

/// Counts the producer's clones.
#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }
}

#[derive(Debug)]
struct Shared {
    client: Client,
    config: ProducerConfig,
    topics: RwLock<Topics>,
    /// The outcomes that are open, and the failures that were not told.
    ledger: Arc<Ledger>,
    /// Records that were acknowledged.
    acknowledged: AtomicU64,
    /// Partitions that got something since the sender looked.
    stirred: Mutex<Vec<Arc<Partition>>>,
    wake: Notify,
    buffer: Semaphore,
    /// Callers of `flush` under way: open batches do not linger.
    flushing: AtomicUsize,
    closed: AtomicBool,
    stopped: Notify,
    has_stopped: AtomicBool,
    /// Why nothing can be sent any more.
    fatal: OnceLock<Error>,
    random: AtomicU64,
}

/// While one of these lives, open batches do not linger.
struct Flushing<'a>(&'a Shared);

impl Flushing<'_> {
    fn begin(shared: &Shared) -> Flushing<'_> {
        shared.flushing.fetch_add(1, Ordering::AcqRel);
        shared.wake.notify_one();
        Flushing(shared)
    }
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.0.flushing.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug, Default)]
struct Topics {
    known: HashMap<TopicName, Arc<Topic>>,
    /// Those that were deleted while records were on their way to them. This producer does not create them again.
    gone: BTreeSet<TopicName>,
}

impl Topics {
    fn partitions(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.known.values().flat_map(|topic| &topic.partitions)
    }
}

#[derive(Debug)]
struct Topic {
    partitions: Vec<Arc<Partition>>,
    /// The most that a batch may have, if the broker says so; else 0.
    batch_bytes_max: AtomicUsize,
    /// Where records without a key go until the batch there is full.
    sticky: AtomicU32,
}

impl Producer {
    /// Starts a producer.
    pub fn new(client: &Client, config: ProducerConfig) -> Result<Producer> {
        if config.idempotent && config.acks != Acks::All {
            return Err(Error::Invalid(
                "an idempotent producer needs acks=all".to_owned(),
            ));
        }
        if config.idempotent && !(1..=5).contains(&config.in_flight_max) {
            return Err(Error::Invalid(
                "an idempotent producer has 1 to 5 batches in flight".to_owned(),
            ));
        }
        let buffer_bytes = config
            .buffer_bytes
            .min(u32::MAX as usize)
            .min(Semaphore::MAX_PERMITS);
        // Two u64 of a random uuid, one of them odd by force: the state of a xorshift must not be 0.
        let seed = uuid::Uuid::new_v4().as_u64_pair().0 | 1;
        let shared = Arc::new(Shared {
            client: client.clone(),
            config,
            topics: RwLock::default(),
            stirred: Mutex::default(),
            wake: Notify::new(),
            buffer: Semaphore::new(buffer_bytes),
            flushing: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            stopped: Notify::new(),
            has_stopped: AtomicBool::new(false),
            fatal: OnceLock::new(),
            ledger: Arc::default(),
            acknowledged: AtomicU64::new(0),
            random: AtomicU64::new(seed),
        });
        tokio::spawn(sender::run(shared.clone()));
        Ok(Producer {
            watcher: shared.ledger.watch(),
            _handle: Arc::new(Handle(shared.clone())),
            shared,
        })
    }

    /// Puts a record into its partition's batch. Waits for metadata of a new topic, and while the buffer is full; the
    /// record is delivered only once the yielded [`Delivery`] says so.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery> {
        let headers: Vec<HeaderRef<'_>> = record
            .headers
            .iter()
            .map(|(k, v)| (&k[..], v.as_deref()))
            .collect();
        let body = RecordBody {
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        self.send_body(&record.topic, record.partition, record.timestamp, body)
            .await
    }

    /// Like [`Producer::send`], for a record whose parts are borrowed.
    pub async fn send_body(
        &self,
        topic: &TopicName,
        partition: Option<PartitionId>,
        timestamp: Option<Timestamp>,
        body: RecordBody<'_>,
    ) -> Result<Delivery> {
        let shared = &*self.shared;
        let header_bytes: usize = body
            .headers
            .iter()
            .map(|(k, v)| k.len() + v.map_or(0, <[u8]>::len) + 10)
            .sum();
        let bytes = header_bytes
            + BatchBuilder::record_bytes_max(
                body.key.map_or(0, <[u8]>::len),
                body.value.map_or(0, <[u8]>::len),
            );
        let (name, topic) = (topic, shared.topic(topic).await?);
        shared.check_size(name, &topic, bytes, &body).await?;
        shared.make_room(bytes).await?;
        let timestamp = timestamp.unwrap_or_else(now);
        let unkeyed = partition.is_none() && body.key.is_none();
        let partition = match topic.choose(partition, body.key) {
            Ok(partition) => partition,
            Err(error) => {
                shared.buffer.add_permits(bytes);
                return Err(error);
            }
        };
        let Push {
            fate,
            index,
            filled,
            stirred,
        } = match partition.push(
            &shared.config,
            topic.batch_bytes(&shared.config),
            timestamp,
            body,
            bytes,
        ) {
            Ok(push) => push,
            Err(error) => {
                shared.buffer.add_permits(bytes);
                return Err(error.into());
            }
        };
        if filled && unkeyed {
            topic.sticky.store(shared.next_random(), Ordering::Relaxed);
        }
        if stirred {
            shared.lock_stirred().push(partition.clone());
        }
        if filled || stirred {
            shared.wake.notify_one();
        }
        Ok(Delivery { fate, index })
    }

    /// Sends a batch that was built elsewhere. Its bytes go out as they are, but an idempotent producer stamps them.
    pub async fn send_batch(&self, partition: &TopicPartition, batch: Bytes) -> Result<Delivery> {
        let shared = &*self.shared;
        let topic = shared.topic(&partition.topic).await?;
        let queue = topic.choose(Some(partition.partition), None)?;
        let parsed = Batch::parse_unverified(batch).map_err(|source| Error::Batch {
            partition: partition.to_string(),
            offset: 0,
            source,
        })?;
        shared.make_room(parsed.bytes().len()).await?;
        let Push {
            fate,
            index,
            stirred,
            ..
        } = queue.push_batch(parsed);
        if stirred {
            shared.lock_stirred().push(queue.clone());
        }
        shared.wake.notify_one();
        Ok(Delivery { fate, index })
    }

    /// Sends all that waits without lingering, and waits for the outcome of everything that was sent before this call.
    /// The error is the oldest one of any record that no flush of this clone has yielded yet. Flushes at the same time each
    /// yield what fails meanwhile.
    pub async fn flush(&self) -> Result<()> {
        let _flushing = Flushing::begin(&self.shared);
        self.shared.ledger.flush(self.watcher).await
    }

    /// The failure that the next flush of this clone would yield, as far as it is known. It stays to be yielded.
    pub fn failure(&self) -> Option<Error> {
        self.shared.ledger.failure(self.watcher)
    }

    /// Records that the broker acknowledged, of all clones.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// The most that a record of this topic may have, in a batch of its own. Waits for metadata of a new topic.
    pub async fn record_bytes_max(&self, topic: &TopicName) -> Result<usize> {
        let topic = self.shared.topic(topic).await?;
        Ok(self.shared.record_bytes_max(&topic))
    }

    /// Flushes and ends the producer, with all its clones.
    pub async fn close(self) -> Result<()> {
        let result = self.flush().await;
        self.shared.closed.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        loop {
            let stopped = self.shared.stopped.notified();
            if self.shared.has_stopped.load(Ordering::Acquire) {
                return result;
            }
            stopped.await;
        }
    }

    /// Bytes of records that are neither delivered nor failed, roughly.
    pub fn buffered_bytes(&self) -> usize {
        self.shared
            .config
            .buffer_bytes
            .saturating_sub(self.shared.buffer.available_permits())
    }
}

impl Shared {
    async fn topic(&self, name: &TopicName) -> Result<Arc<Topic>> {
        if let Some(error) = self.fatal.get() {
            return Err(error.clone());
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let (known, create) = {
            let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
            let create = self.config.create_topics && !topics.gone.contains(name);
            (topics.known.get(name).cloned(), create)
        };
        if let Some(topic) = known {
            return Ok(topic);
        }
        let what = || format!("topic {name}");
        let metadata = self.in_time(self.client.topic(name.as_str(), create), what);
        let metadata = metadata.await?;
        let batch_bytes_max = batch_bytes_max(&self.client, name).await.unwrap_or(0);
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let random = self.next_random();
        topics.gone.remove(name);
        let topic = topics.known.entry(name.clone()).or_insert_with(|| {
            let count = u32::try_from(metadata.partitions.len()).unwrap_or(u32::MAX);
            let partition = |n| {
                let name = TopicPartition::new(name.clone(), PartitionId::new(n));
                Partition::new(name, self.ledger.clone())
            };
            Arc::new(Topic {
                partitions: (0..count).map(partition).collect(),
                batch_bytes_max: AtomicUsize::new(batch_bytes_max),
                sticky: AtomicU32::new(random),
            })
        });
        Ok(topic.clone())
    }

    /// What has to come within the delivery timeout.
    async fn in_time<T>(
        &self,
        operation: impl Future<Output = Result<T>>,
        what: impl FnOnce() -> String,
    ) -> Result<T> {
        let after = self.config.delivery_timeout;
        let Ok(result) = tokio::time::timeout(after, operation).await else {
            return Err(Error::Undelivered {
                what: what(),
                after,
                last: self.client.troubles().latest().map(Box::new),
            });
        };
        result
    }

    /// The most that a record may have, in a batch of its own.
    fn record_bytes_max(&self, topic: &Topic) -> usize {
        let of_topic = match topic.batch_bytes_max.load(Ordering::Relaxed) {
            0 => None,
            bytes => Some(bytes),
        };
        match (self.config.record_bytes_max, of_topic) {
            (Some(ours), Some(of_topic)) => ours.min(of_topic),
            (Some(bytes), None) | (None, Some(bytes)) => bytes,
            (None, None) => RECORD_BYTES_MAX,
        }
    }

    /// Refuses a record that no batch can hold. `bytes` is what it takes at most.
    async fn check_size(
        &self,
        name: &TopicName,
        topic: &Topic,
        bytes: usize,
        body: &RecordBody<'_>,
    ) -> Result<()> {
        if let Some(bytes_max) = self.config.record_bytes_max.filter(|max| bytes > *max) {
            let limit = "the producer's record_bytes_max";
            return Err(Error::RecordTooLarge {
                bytes,
                bytes_max,
                limit,
            });
        }
        // What compression makes of it is for the broker to judge.
        let is_plain = self.config.compression.codec == Codec::None;
        let header_bytes = model::batch::HEADER_BYTES;
        if !is_plain || bytes.saturating_add(header_bytes) <= self.record_bytes_max(topic) {
            return Ok(());
        }
        let bytes = BatchBuilder::alone_bytes(body);
        if bytes > self.record_bytes_max(topic) {
            // The bound may have been raised since.
            let now = batch_bytes_max(&self.client, name).await;
            topic
                .batch_bytes_max
                .store(now.unwrap_or(0), Ordering::Relaxed);
        }
        match self.record_bytes_max(topic) {
            bytes_max if bytes > bytes_max => {
                let limit = "the topic's max.message.bytes";
                Err(Error::RecordTooLarge {
                    bytes,
                    bytes_max,
                    limit,
                })
            }
            _ => Ok(()),
        }
    }

    /// Takes room in the buffer for a record; the sender gives it back once the record's fate is decided.
    async fn make_room(&self, bytes: usize) -> Result<()> {
        let permits = u32::try_from(bytes.min(self.config.buffer_bytes)).unwrap_or(u32::MAX);
        let permit = match self.buffer.try_acquire_many(permits) {
            Ok(permit) => permit,
            Err(_) => {
                let room = async {
                    self.buffer.acquire_many(permits).await.map_err(|_| {
                        // The buffer closes when the producer gives up, and when it is closed.
                        self.fatal.get().cloned().unwrap_or(Error::Closed)
                    })
                };
                let what = || "room in the producer's buffer".to_owned();
                self.in_time(room, what).await?
            }
        };
        permit.forget();
        Ok(())
    }

    fn next_random(&self) -> u32 {
        let step = |mut x: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^ (x << 17)
        };
        let old = self
            .random
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |x| Some(step(x)));
        (old.unwrap_or_else(|x| x) >> 32) as u32
    }

    fn lock_stirred(&self) -> MutexGuard<'_, Vec<Arc<Partition>>> {
        self.stirred.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A topic's `max.message.bytes`; none if the broker does not say.
async fn batch_bytes_max(client: &Client, topic: &TopicName) -> Option<usize> {
    let resource = Resource::Topic(topic.to_string());
    match Admin::new(client)
        .setting(&resource, MAX_MESSAGE_BYTES)
        .await
    {
        Ok(value) => value?.parse().ok(),
        Err(error) => {
            tracing::debug!(%topic, %error, "no settings");
            None
        }
    }
}

impl Topic {
    /// When a batch is full.
    fn batch_bytes(&self, config: &ProducerConfig) -> usize {
        match self.batch_bytes_max.load(Ordering::Relaxed) {
            0 => config.batch_bytes,
            of_topic => config.batch_bytes.min(of_topic),
        }
    }

    fn choose(
        &self,
        partition: Option<PartitionId>,
        key: Option<&[u8]>,
    ) -> Result<&Arc<Partition>> {
        let count = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        let number = match (partition, key) {
            (Some(partition), _) => partition.get(),
            (None, Some(key)) => partition_of_key(key, count),
            (None, None) => self.sticky.load(Ordering::Relaxed) % count.max(1),
        };
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        self.partitions
            .get(index)
            .ok_or_else(|| Error::Invalid(format!("no partition {number}: there are {count}")))
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
