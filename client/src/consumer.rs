//! The consumer of partitions that it is told: one fetch in-flight to each leader, and the next one sent as soon as an
//! answer is taken (prefetch), so that the network works while the caller does.
//! Callers: tools, tests, and the group member for the partitions that it is assigned. A caller that takes nothing is
//! backpressure: nothing further is fetched.

use crate::admin::{Admin, At};
use crate::{Client, Error, Result};
use model::batch::{
    Batch, BatchError, DecompressLimit, Record, RecordRef, split, split_unverified,
};
use model::{Offset, Timestamp, TopicPartition};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use wire::ErrorCode;
use wire::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};

/// From 13 on topics go by their ids.
const FETCH_VERSION_MAX: i16 = 12;
const SESSIONLESS_EPOCH: i32 = -1;

/// Settings of a consumer.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// The broker waits for this much.
    pub fetch_bytes_min: u32,
    /// But no longer than this.
    pub fetch_wait_max: Duration,
    /// The most that one answer carries, but for a first batch that is larger.
    pub fetch_bytes_max: u32,
    /// The most of one partition in an answer, but for a first batch that is larger.
    pub partition_bytes_max: u32,
    /// Check every batch's checksum.
    pub verify_crc: bool,
    /// Where to go on if the next offset does not exist.
    pub reset: Reset,
}

impl Default for ConsumerConfig {
    fn default() -> ConsumerConfig {
        ConsumerConfig {
            fetch_bytes_min: 1,
            fetch_wait_max: Duration::from_millis(500),
            fetch_bytes_max: 32 << 20,
            partition_bytes_max: 4 << 20,
            verify_crc: true,
            reset: Reset::Fail,
        }
    }
}

/// Where to go on if the next offset does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// At the oldest record.
    Earliest,
    /// After the newest record.
    Latest,
    /// Nowhere: `poll` yields [`Error::OffsetOutOfRange`].
    Fail,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record.
    Earliest,
    /// After the newest record.
    Latest,
    /// At this offset.
    Offset(Offset),
    /// At the first record that is as young as this or younger; after the newest record if there is none.
    Time(Timestamp),
}

/// What came of one partition.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset that was asked for; the first batch may begin earlier.
    pub from: Offset,
    /// After the last record that consumers may read.
    pub high_watermark: Offset,
    /// The oldest record there is; none if the broker does not tell.
    pub log_start: Option<Offset>,
    /// Whole batches, in order.
    pub batches: Vec<Batch>,
}

impl Fetched {
    /// The offset after the last batch.
    pub fn end(&self) -> Offset {
        self.batches
            .last()
            .map_or(self.from, |batch| batch.header().next_offset())
    }

    /// Bytes of all batches.
    pub fn bytes(&self) -> usize {
        self.batches.iter().map(|b| b.bytes().len()).sum()
    }

    /// Visits the records from `from` on, borrowed. Control batches are left out.
    pub fn for_each_record(&self, mut visit: impl FnMut(RecordRef<'_>)) -> Result<()> {
        let damaged = |source| Error::Batch {
            partition: self.partition.to_string(),
            offset: self.from.get(),
            source,
        };
        for batch in self
            .batches
            .iter()
            .filter(|b| !b.header().attributes.is_control())
        {
            let mut records = batch.records(DecompressLimit::default()).map_err(damaged)?;
            while let Some(record) = records.next_ref() {
                let record = record.map_err(damaged)?;
                if record.offset >= self.from {
                    visit(record);
                }
            }
        }
        Ok(())
    }

    /// The records from `from` on, owned.
    pub fn records(&self) -> Result<Vec<Record>> {
        let mut all = Vec::new();
        for batch in self
            .batches
            .iter()
            .filter(|b| !b.header().attributes.is_control())
        {
            let damaged = |source| Error::Batch {
                partition: self.partition.to_string(),
                offset: self.from.get(),
                source,
            };
            for record in batch.records(DecompressLimit::default()).map_err(damaged)? {
                let record = record.map_err(damaged)?;
                if record.offset >= self.from {
                    all.push(record);
                }
            }
        }
        Ok(all)
    }
}

/// A partition that is read.
#[derive(Debug)]
struct Assigned {
    position: Position,
    high_watermark: Option<Offset>,
    /// It failed; not to be asked for before.
    not_before: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    At(Offset),
    /// To be looked up.
    Wanted(Start),
}

struct Answer {
    broker: i32,
    asked: HashMap<TopicPartition, Offset>,
    answer: Result<FetchResponse>,
}

/// Reads partitions that it is told to. Has connections of its own, so that a long poll delays nobody else.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    assigned: HashMap<TopicPartition, Assigned>,
    /// In which order to ask; what was served goes to the end.
    turns: Vec<TopicPartition>,
    fetches: JoinSet<Answer>,
    /// Brokers with a fetch in-flight.
    asked: HashSet<i32>,
    stale_topics: BTreeSet<String>,
    /// An error that is told at the next poll, after the data that came with it.
    failure: Option<Error>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answer of {}", self.broker)
    }
}

impl Consumer {
    /// A consumer without partitions.
    pub fn new(client: &Client, config: ConsumerConfig) -> Consumer {
        Consumer {
            client: client.separate(),
            config,
            assigned: HashMap::new(),
            turns: Vec::new(),
            fetches: JoinSet::new(),
            asked: HashSet::new(),
            stale_topics: BTreeSet::new(),
            failure: None,
        }
    }

    /// Reads a partition, from a place that is looked up at the next poll. Moves it if it is read already.
    pub fn assign(&mut self, partition: TopicPartition, start: Start) {
        let position = match start {
            Start::Offset(offset) => Position::At(offset),
            start => Position::Wanted(start),
        };
        let fresh = Assigned {
            position,
            high_watermark: None,
            not_before: None,
        };
        if self.assigned.insert(partition.clone(), fresh).is_none() {
            self.turns.push(partition);
        }
    }

    /// Reads all partitions of a topic.
    pub async fn assign_topic(&mut self, topic: &model::TopicName, start: Start) -> Result<usize> {
        let known = self.client.topic(topic.as_str(), false).await?;
        for partition in &known.partitions {
            if let Some(number) = model::PartitionId::from_wire(partition.partition) {
                self.assign(TopicPartition::new(topic.clone(), number), start);
            }
        }
        Ok(known.partitions.len())
    }

    /// Stops reading a partition.
    pub fn unassign(&mut self, partition: &TopicPartition) {
        self.assigned.remove(partition);
        self.turns.retain(|other| other != partition);
    }

    /// Stops reading everything.
    pub fn unassign_all(&mut self) {
        self.assigned.clear();
        self.turns.clear();
    }

    /// What is read.
    pub fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        self.assigned.keys()
    }

    /// The offset after the last record that `poll` yielded, or where it will begin; none while that is looked up.
    pub fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        match self.assigned.get(partition)?.position {
            Position::At(offset) => Some(offset),
            Position::Wanted(_) => None,
        }
    }

    /// All positions that are known.
    pub fn positions(&self) -> Vec<(TopicPartition, Offset)> {
        let known = |(partition, assigned): (&TopicPartition, &Assigned)| match assigned.position {
            Position::At(offset) => Some((partition.clone(), offset)),
            Position::Wanted(_) => None,
        };
        self.assigned.iter().filter_map(known).collect()
    }

    /// Records between the position and the high watermark of the last answer; none if there was none yet.
    pub fn lag(&self, partition: &TopicPartition) -> Option<u64> {
        let end = self.assigned.get(partition)?.high_watermark?;
        Some(end.get().saturating_sub(self.position(partition)?.get()))
    }

    /// Waits for records, at most for `timeout`; yields none after that. Dropping the future loses nothing.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<Fetched>> {
        let deadline = Instant::now() + timeout;
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        loop {
            self.refresh_stale().await;
            self.look_up_positions().await?;
            let now = Instant::now();
            let wake = self.fetch(now).map_or(deadline, |time| time.min(deadline));
            let answer = tokio::select! {
                Some(answer) = self.fetches.join_next() => answer,
                () = tokio::time::sleep_until(wake.into()) => {
                    if Instant::now() >= deadline {
                        return Ok(Vec::new());
                    }
                    continue;
                }
            };
            // Tasks neither panic nor are they aborted.
            let Ok(answer) = answer else { continue };
            let fetched = self.take(answer);
            if !fetched.is_empty() {
                self.fetch(Instant::now());
                return Ok(fetched);
            }
            if let Some(error) = self.failure.take() {
                return Err(error);
            }
        }
    }

    async fn refresh_stale(&mut self) {
        if self.stale_topics.is_empty() {
            return;
        }
        let topics: Vec<&str> = self.stale_topics.iter().map(String::as_str).collect();
        match self.client.refresh(Some(&topics)).await {
            Ok(_) => self.stale_topics.clear(),
            // The partitions in question have to wait a while anyway, and then ask again.
            Err(error) => {
                tracing::debug!(%error, "no metadata");
                self.stale_topics.clear();
            }
        }
    }

    async fn look_up_positions(&mut self) -> Result<()> {
        let wanted: Vec<(TopicPartition, At)> = self
            .assigned
            .iter()
            .filter_map(|(partition, assigned)| {
                let at = match assigned.position {
                    Position::At(_) | Position::Wanted(Start::Offset(_)) => return None,
                    Position::Wanted(Start::Earliest) => At::Earliest,
                    Position::Wanted(Start::Latest) => At::Latest,
                    Position::Wanted(Start::Time(time)) => At::Time(time),
                };
                Some((partition.clone(), at))
            })
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let admin = Admin::new(&self.client);
        let mut found = admin.list_offsets(&wanted).await?;
        let young: Vec<(TopicPartition, At)> = wanted
            .iter()
            .filter(|(partition, _)| found.get(partition).is_some_and(|f| f.offset.is_none()))
            .map(|(partition, _)| (partition.clone(), At::Latest))
            .collect();
        found.extend(admin.list_offsets(&young).await?);
        for (partition, place) in found {
            if let (Some(assigned), Some(offset)) =
                (self.assigned.get_mut(&partition), place.offset)
            {
                assigned.position = Position::At(offset);
            }
        }
        Ok(())
    }

    /// Sends a fetch to each leader that has none in-flight. Yields when a partition that has to wait may be asked for.
    fn fetch(&mut self, now: Instant) -> Option<Instant> {
        let mut wake: Option<Instant> = None;
        let mut by_leader: BTreeMap<i32, Vec<(&TopicPartition, Offset)>> = BTreeMap::new();
        let metadata = self.client.metadata();
        for partition in &self.turns {
            let Some(assigned) = self.assigned.get_mut(partition) else {
                continue;
            };
            if let Some(not_before) = assigned.not_before {
                if not_before > now {
                    wake = Some(wake.map_or(not_before, |other| other.min(not_before)));
                    continue;
                }
                assigned.not_before = None;
            }
            let Position::At(offset) = assigned.position else {
                continue;
            };
            let topic = metadata.topics.get(partition.topic.as_str());
            let leader = topic
                .and_then(|t| t.partition(partition.partition.to_wire()))
                .and_then(|p| p.leader);
            match leader {
                Some(leader) if self.asked.contains(&leader) => {}
                Some(leader) => by_leader
                    .entry(leader)
                    .or_default()
                    .push((partition, offset)),
                None => {
                    let pause = now + self.client.config().retry_backoff;
                    assigned.not_before = Some(pause);
                    wake = Some(wake.map_or(pause, |other| other.min(pause)));
                    self.stale_topics.insert(partition.topic.to_string());
                }
            }
        }
        for (broker, partitions) in by_leader {
            self.asked.insert(broker);
            let request = fetch_request(&self.config, &partitions);
            let asked = partitions
                .into_iter()
                .map(|(p, offset)| (p.clone(), offset))
                .collect();
            let (client, longer) = (self.client.clone(), self.config.fetch_wait_max);
            self.fetches.spawn(async move {
                let answer = client
                    .call_broker(broker, &request, FETCH_VERSION_MAX, longer)
                    .await;
                Answer {
                    broker,
                    asked,
                    answer,
                }
            });
        }
        if !self.stale_topics.is_empty() {
            return Some(now + self.client.config().retry_backoff);
        }
        wake
    }

    fn take(&mut self, answer: Answer) -> Vec<Fetched> {
        let Answer {
            broker,
            asked,
            answer,
        } = answer;
        self.asked.remove(&broker);
        let pause = Instant::now() + self.client.config().retry_backoff;
        let answer = answer.and_then(|answer| {
            crate::error::check(
                answer.error_code,
                || format!("fetch from broker {broker}"),
                None,
            )?;
            Ok(answer)
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                if !error.is_retriable() {
                    self.failure = Some(error.clone());
                }
                tracing::debug!(broker, %error, "fetch failed");
                for partition in asked.keys() {
                    if let Some(assigned) = self.assigned.get_mut(partition) {
                        assigned.not_before = Some(pause);
                        self.stale_topics.insert(partition.topic.to_string());
                    }
                }
                return Vec::new();
            }
        };
        let asked: HashMap<(&str, i32), (&TopicPartition, Offset)> = asked
            .iter()
            .map(|(p, offset)| ((p.topic.as_str(), p.partition.to_wire()), (p, *offset)))
            .collect();
        let mut fetched = Vec::new();
        for topic in answer.responses {
            for data in topic.partitions {
                let place = (topic.topic.as_str(), data.partition_index);
                let Some(&(partition, from)) = asked.get(&place) else {
                    continue;
                };
                fetched.extend(self.take_partition(partition, from, data, pause));
            }
        }
        let served: HashSet<&TopicPartition> =
            fetched.iter().map(|f: &Fetched| &f.partition).collect();
        self.turns
            .sort_by_key(|partition| served.contains(partition));
        fetched
    }

    fn take_partition(
        &mut self,
        partition: &TopicPartition,
        from: Offset,
        data: PartitionData,
        pause: Instant,
    ) -> Option<Fetched> {
        let assigned = self.assigned.get_mut(partition)?;
        if assigned.position != Position::At(from) {
            // It was moved while the fetch was in-flight.
            return None;
        }
        match ErrorCode::from_code(data.error_code) {
            ErrorCode::None => {}
            // The protocol lets clients try this again, but the disk will not mend itself.
            code @ ErrorCode::CorruptMessage => {
                assigned.not_before = Some(pause);
                self.failure = Some(Error::Damaged {
                    partition: partition.clone(),
                    offset: from,
                    reason: code.to_string(),
                });
                return None;
            }
            ErrorCode::OffsetOutOfRange => {
                match self.config.reset {
                    Reset::Earliest => assigned.position = Position::Wanted(Start::Earliest),
                    Reset::Latest => assigned.position = Position::Wanted(Start::Latest),
                    Reset::Fail => {
                        let (partition, offset) = (partition.to_string(), from.get());
                        self.failure = Some(Error::OffsetOutOfRange { partition, offset });
                    }
                }
                return None;
            }
            code => {
                assigned.not_before = Some(pause);
                if code.wants_metadata() {
                    self.stale_topics.insert(partition.topic.to_string());
                } else if !code.is_retriable() {
                    self.failure = Some(Error::broker(code, partition.to_string(), None));
                }
                return None;
            }
        }
        let high_watermark = Offset::from_wire(data.high_watermark).unwrap_or(from);
        assigned.high_watermark = Some(high_watermark);
        let records = data.records.unwrap_or_default();
        let (batches, damage) = whole_batches(records, from, self.config.verify_crc);
        if let Some(source) = damage {
            let before = batches.last().map(|batch| batch.header().next_offset());
            assigned.not_before = Some(pause);
            // It is yielded after the batches before it.
            self.failure = Some(Error::Damaged {
                partition: partition.clone(),
                offset: before.unwrap_or(from).max(from),
                reason: source.to_string(),
            });
        }
        let log_start = Offset::from_wire(data.log_start_offset);
        let fetched = Fetched {
            partition: partition.clone(),
            from,
            high_watermark,
            log_start,
            batches,
        };
        assigned.position = Position::At(fetched.end());
        (!fetched.batches.is_empty()).then_some(fetched)
    }
}

fn fetch_request(
    config: &ConsumerConfig,
    partitions: &[(&TopicPartition, Offset)],
) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (partition, offset) in partitions {
        let name = partition.topic.as_str();
        let place = *places.entry(name).or_insert_with(|| {
            topics.push(FetchTopic {
                topic: name.to_owned(),
                ..Default::default()
            });
            topics.len() - 1
        });
        topics[place].partitions.push(FetchPartition {
            partition: partition.partition.to_wire(),
            fetch_offset: offset.to_wire(),
            partition_max_bytes: wire_bytes(config.partition_bytes_max),
            ..Default::default()
        });
    }
    FetchRequest {
        max_wait_ms: i32::try_from(config.fetch_wait_max.as_millis()).unwrap_or(i32::MAX),
        min_bytes: wire_bytes(config.fetch_bytes_min),
        max_bytes: wire_bytes(config.fetch_bytes_max),
        session_epoch: SESSIONLESS_EPOCH,
        topics,
        ..Default::default()
    }
}

fn wire_bytes(bytes: u32) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

/// The whole batches of an answer, and what is wrong with the one after them. A broker may cut the last one off; a first one
/// that is cut is an error.
fn whole_batches(
    records: wire::Records,
    from: Offset,
    verify_crc: bool,
) -> (Vec<Batch>, Option<BatchError>) {
    let bytes = records.into_bytes();
    let mut batches = Vec::new();
    for batch in if verify_crc {
        split(bytes)
    } else {
        split_unverified(bytes)
    } {
        match batch {
            // What lies wholly before the offset is of no use.
            Ok(batch) if batch.header().next_offset() <= from => {}
            Ok(batch) => batches.push(batch),
            Err(BatchError::Truncated { .. }) if !batches.is_empty() => break,
            Err(error) => return (batches, Some(error)),
        }
    }
    (batches, None)
}

/// Finds where a partition can be read again after [`Error::Damaged`] at `damaged`: the first such offset behind the damage, or
/// the end of the partition. Asks for single batches: first further and further away, then between what cannot be read and
/// what can.
pub async fn after_damage(
    client: &Client,
    partition: &TopicPartition,
    damaged: Offset,
) -> Result<Offset> {
    let at = [(partition.clone(), At::Latest)];
    let ends = Admin::new(client).list_offsets(&at).await?;
    let end = ends.get(partition).and_then(|place| place.offset);
    let end = end.unwrap_or(damaged).get();
    let client = &client.separate();
    let (mut bad, mut good) = (damaged.get(), end.max(damaged.get()));
    let mut step = 1;
    while bad.saturating_add(step) < good {
        let offset = bad.saturating_add(step);
        if is_readable(client, partition, Offset::new(offset)).await? {
            good = offset;
            break;
        }
        bad = offset;
        step = step.saturating_mul(2);
    }
    while good - bad > 1 {
        let offset = bad + (good - bad) / 2;
        match is_readable(client, partition, Offset::new(offset)).await? {
            true => good = offset,
            false => bad = offset,
        }
    }
    Ok(Offset::new(good))
}

/// Whether the batch at an offset can be read. Other errors than damage are errors.
async fn is_readable(client: &Client, partition: &TopicPartition, offset: Offset) -> Result<bool> {
    let config = ConsumerConfig {
        fetch_wait_max: Duration::ZERO,
        partition_bytes_max: 1,
        ..ConsumerConfig::default()
    };
    let request = &fetch_request(&config, &[(partition, offset)]);
    client
        .retry(|| async {
            let name = &partition.topic;
            let number = partition.partition.to_wire();
            let leader = client.leader(name.as_str(), number).await?;
            let answer = client
                .call_broker(leader, request, FETCH_VERSION_MAX, Duration::ZERO)
                .await?;
            let what = || partition.to_string();
            crate::error::check(answer.error_code, what, None)?;
            let data = answer
                .responses
                .into_iter()
                .flat_map(|t| t.partitions)
                .next();
            let data = data.ok_or_else(|| Error::Invalid("an answer without partitions".into()))?;
            if ErrorCode::from_code(data.error_code) == ErrorCode::CorruptMessage {
                return Ok(false);
            }
            crate::error::check(data.error_code, what, None)?;
            let (batches, damage) = whole_batches(data.records.unwrap_or_default(), offset, true);
            Ok(damage.is_none() || !batches.is_empty())
        })
        .await
}
