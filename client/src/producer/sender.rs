//! The task that sends batches, within the bound of in-flight requests. It alone decides what leaves when; requests and
//! look-ups run as tasks of their own, whose results come back here.

use super::queue::{Failure, Identity, Partition, Sealed, Wants};
use super::{Acked, Acks, Shared, batch_bytes_max};
use crate::{Connection, Error, Pending, Result};
use model::{Offset, ProducerEpoch, ProducerId, Timestamp, TopicName};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use wire::messages::init_producer_id::InitProducerIdRequest;
use wire::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceData,
};
use wire::{ErrorCode, Records};

/// Later versions are for transactions and topic ids.
const PRODUCE_VERSION_MAX: i16 = 11;
/// When nothing else is due the sender looks again, for batches that grow too old.
const IDLE: Duration = Duration::from_secs(1);
/// How long brokers may say of a topic that they knew that there is none before its records fail. A broker that has just
/// started may not know all topics yet.
const GONE_AFTER: Duration = Duration::from_secs(5);
/// What the sender's troubles are about.
const TROUBLE: &str = "produce";

/// What a task of the sender found out.
enum Event {
    Answer {
        broker: i32,
        sent: Vec<(Arc<Partition>, Sealed)>,
        answer: Result<ProduceResponse>,
    },
    Connected {
        broker: i32,
        result: Result<Connection>,
    },
    Metadata {
        asked: BTreeSet<String>,
        /// The topics among them that have errors.
        result: Result<Vec<(Option<String>, ErrorCode)>>,
    },
    /// What a topic's batches may have, asked for anew.
    BatchBytesMax(TopicName, Option<usize>),
    Identity(Result<Identity>),
}

#[derive(Default)]
struct Broker {
    in_flight: usize,
    connecting: bool,
    not_before: Option<Instant>,
}

struct Sender {
    shared: Arc<Shared>,
    events: JoinSet<Event>,
    brokers: HashMap<i32, Broker>,
    /// Partitions that have something.
    listed: Vec<Arc<Partition>>,
    in_flight: usize,
    identity: Option<Identity>,
    /// The identity is being asked for.
    identifying: bool,
    metadata_running: bool,
    metadata_wanted: BTreeSet<String>,
    metadata_not_before: Option<Instant>,
    /// Topics that brokers say they do not know, and since when.
    missing: HashMap<String, Instant>,
    /// Topics whose bound is being asked for.
    measuring: BTreeSet<TopicName>,
    /// Whether the client's troubles name this producer.
    is_troubled: bool,
    backoff: Duration,
}

/// Runs until the producer is closed and nothing is left, or its last handle was dropped.
pub async fn run(shared: Arc<Shared>) {
    let backoff = shared.client.config().retry_backoff;
    let mut sender = Sender {
        shared: shared.clone(),
        events: JoinSet::new(),
        brokers: HashMap::new(),
        listed: Vec::new(),
        in_flight: 0,
        identity: None,
        identifying: false,
        metadata_running: false,
        metadata_wanted: BTreeSet::new(),
        metadata_not_before: None,
        missing: HashMap::new(),
        measuring: BTreeSet::new(),
        is_troubled: false,
        backoff,
    };
    while !shared.closed.load(Ordering::Acquire) {
        let due = sender.send_what_is_ready().await;
        tokio::select! {
            () = shared.wake.notified() => {}
            Some(event) = sender.events.join_next() => sender.handle(event),
            () = tokio::time::sleep_until(due.into()) => {}
        }
        while let Some(event) = sender.events.try_join_next() {
            sender.handle(event);
        }
    }
    sender.events.abort_all();
    sender.trouble(None);
    shared.buffer.close();
    let topics = shared.topics.read().unwrap_or_else(PoisonError::into_inner);
    topics
        .partitions()
        .for_each(|partition| partition.abandon());
    drop(topics);
    shared.ledger.decide_all(&Error::Closed);
    shared.has_stopped.store(true, Ordering::Release);
    shared.stopped.notify_waiters();
}

impl Sender {
    /// Sends all that may leave now. Yields when to look again at the latest.
    async fn send_what_is_ready(&mut self) -> Instant {
        let now = Instant::now();
        let mut due = now + IDLE;
        self.listed.append(&mut self.shared.lock_stirred());
        self.expire(now, &mut due);
        if self.shared.config.idempotent && self.identity.is_none() {
            self.identify();
            return due;
        }
        let linger = self.shared.flushing.load(Ordering::Acquire) == 0;
        loop {
            let ready = self.collect(now, linger, &mut due);
            if ready.is_empty() {
                break;
            }
            for (broker, partitions) in ready {
                if let Some(connection) = self.shared.client.open_connection(broker) {
                    self.send(broker, &connection, partitions).await;
                }
            }
        }
        self.ask_metadata(now, &mut due);
        due
    }

    /// The partitions that can send now, by the broker that leads them.
    fn collect(
        &mut self,
        now: Instant,
        linger: bool,
        due: &mut Instant,
    ) -> BTreeMap<i32, Vec<Arc<Partition>>> {
        let mut ready: BTreeMap<i32, Vec<Arc<Partition>>> = BTreeMap::new();
        let mut listed = std::mem::take(&mut self.listed);
        listed.retain(|partition| {
            match partition.wants(&self.shared.config, now, linger) {
                Wants::Nothing => return false,
                Wants::Answer => {}
                Wants::Wait(time) => *due = (*due).min(time),
                Wants::Send => {
                    if let Some(broker) = self.broker_for(partition, now, due) {
                        ready.entry(broker).or_default().push(partition.clone());
                    }
                }
            }
            true
        });
        // Whoever came first this time comes last the next time.
        if !listed.is_empty() {
            listed.rotate_left(1);
        }
        self.listed = listed;
        ready
    }

    /// The leader, if it can be sent to now. If not, what is needed for it is under way afterwards.
    fn broker_for(
        &mut self,
        partition: &Partition,
        now: Instant,
        due: &mut Instant,
    ) -> Option<i32> {
        let name = &partition.name;
        let client = &self.shared.client;
        let Some(id) = client.known_leader(name.topic.as_str(), name.partition.to_wire()) else {
            self.metadata_wanted.insert(name.topic.to_string());
            return None;
        };
        let broker = self.brokers.entry(id).or_default();
        if broker.connecting || broker.in_flight >= self.shared.config.in_flight_max {
            return None;
        }
        if let Some(not_before) = broker.not_before.filter(|t| *t > now) {
            *due = (*due).min(not_before);
            return None;
        }
        if client.open_connection(id).is_some() {
            return Some(id);
        }
        broker.connecting = true;
        let client = client.clone();
        self.events.spawn(async move {
            Event::Connected {
                broker: id,
                result: client.connection(id).await,
            }
        });
        None
    }

    /// One request, with at most one batch of each partition.
    async fn send(
        &mut self,
        broker: i32,
        connection: &Connection,
        partitions: Vec<Arc<Partition>>,
    ) {
        let mut sent = Vec::new();
        let mut bytes = 0;
        for partition in partitions {
            if bytes >= self.shared.config.request_bytes_max {
                break;
            }
            match partition.take(self.identity) {
                Some(Ok(sealed)) => {
                    bytes += sealed.bytes.len();
                    sent.push((partition, sealed));
                }
                Some(Err(charged_bytes)) => self.shared.buffer.add_permits(charged_bytes),
                None => {}
            }
        }
        if sent.is_empty() {
            return;
        }
        let config = &self.shared.config;
        let request = ProduceRequest {
            acks: config.acks.to_wire(),
            timeout_ms: i32::try_from(config.ack_timeout.as_millis()).unwrap_or(i32::MAX),
            topic_data: topic_data(&sent),
            ..Default::default()
        };
        self.in_flight += 1;
        self.brokers.entry(broker).or_default().in_flight += 1;
        if config.acks == Acks::None {
            let answer = connection
                .send_unanswered(&request, PRODUCE_VERSION_MAX)
                .await;
            self.answered(broker, sent, answer.map(|()| ProduceResponse::default()));
            return;
        }
        // Queued here and now, so that requests leave in the order in which batches were numbered.
        match connection.start(&request, PRODUCE_VERSION_MAX).await {
            Ok(pending) => {
                let longer = config.ack_timeout;
                self.events.spawn(answer(broker, sent, pending, longer));
            }
            Err(error) => self.answered(broker, sent, Err(error)),
        }
    }

    fn handle(&mut self, event: std::result::Result<Event, tokio::task::JoinError>) {
        // Tasks neither panic nor are they aborted while the sender runs.
        let Ok(event) = event else { return };
        match event {
            Event::Answer {
                broker,
                sent,
                answer,
            } => self.answered(broker, sent, answer),
            Event::Connected { broker, result } => {
                let state = self.brokers.entry(broker).or_default();
                state.connecting = false;
                if let Err(error) = result {
                    tracing::debug!(broker, %error, "no connection");
                    state.not_before = Some(Instant::now() + self.backoff);
                    self.suspect_all();
                }
            }
            Event::Metadata { asked, result } => {
                self.metadata_running = false;
                self.metadata_not_before = Some(Instant::now() + self.backoff);
                match result {
                    Ok(errors) => asked.iter().for_each(|topic| self.learned(topic, &errors)),
                    Err(error) => tracing::debug!(%error, "no metadata"),
                }
            }
            Event::BatchBytesMax(topic, bytes) => {
                self.measuring.remove(&topic);
                self.measured(&topic, bytes);
            }
            Event::Identity(result) => {
                self.identifying = false;
                match result {
                    Ok(identity) => self.adopt(identity),
                    Err(error) if error.is_retriable() => {
                        tracing::debug!(%error, "no producer id yet")
                    }
                    Err(error) => self.give_up(error),
                }
            }
        }
    }

    fn answered(
        &mut self,
        broker: i32,
        sent: Vec<(Arc<Partition>, Sealed)>,
        answer: Result<ProduceResponse>,
    ) {
        self.in_flight -= 1;
        let state = self.brokers.entry(broker).or_default();
        state.in_flight -= 1;
        match answer {
            Err(error) => {
                state.not_before = Some(Instant::now() + self.backoff);
                for (partition, sealed) in sent {
                    self.decide(&partition, sealed, Err(error.clone()));
                }
            }
            Ok(_) if self.shared.config.acks == Acks::None => {
                for (partition, sealed) in sent {
                    self.decide(
                        &partition,
                        sealed,
                        Ok(Acked {
                            base_offset: None,
                            append_time: None,
                        }),
                    );
                }
            }
            Ok(answer) => {
                let by_name: HashMap<(&str, i32), &PartitionProduceResponse> = answer
                    .responses
                    .iter()
                    .flat_map(|t| {
                        t.partition_responses
                            .iter()
                            .map(|p| ((t.name.as_str(), p.index), p))
                    })
                    .collect();
                for (partition, sealed) in sent {
                    let name = &partition.name;
                    let found = by_name.get(&(name.topic.as_str(), name.partition.to_wire()));
                    let outcome = match found {
                        Some(found) => acked(&partition, found),
                        None => Err(Error::Invalid(format!(
                            "{name}: the answer does not mention it"
                        ))),
                    };
                    self.decide(&partition, sealed, outcome);
                }
            }
        }
    }

    /// A batch came back. It is done, or it is sent again, whole or in two, or it fails for good.
    fn decide(&mut self, partition: &Arc<Partition>, sealed: Sealed, outcome: Result<Acked>) {
        let shared = self.shared.clone();
        let error = match outcome {
            Ok(acked) => {
                self.trouble(None);
                let records = u64::try_from(sealed.record_count).unwrap_or(0);
                shared.acknowledged.fetch_add(records, Ordering::Relaxed);
                shared.buffer.add_permits(sealed.charged_bytes);
                return partition.finish(&sealed, Ok(acked), None);
            }
            Err(error) => error,
        };
        let now = Instant::now();
        let numbered = shared.config.idempotent;
        if error.code() == Some(ErrorCode::MessageTooLarge) {
            self.measure(&partition.name.topic);
            if let Err(unsplit) = partition.split(sealed, &shared.config, numbered) {
                self.fail(partition, &unsplit.sealed, unsplit.error.unwrap_or(error));
            }
            return;
        }
        let again = match error.code() {
            // An older batch is missing at the broker; it goes first.
            Some(ErrorCode::OutOfOrderSequenceNumber) => {
                numbered && partition.may_have_gap_before(&sealed)
            }
            // The broker has forgotten the producer. Nothing of this batch was written.
            Some(ErrorCode::InvalidProducerEpoch | ErrorCode::UnknownProducerId) if numbered => {
                self.identity = None;
                true
            }
            _ => error.is_retriable(),
        };
        if error.wants_metadata() {
            self.metadata_wanted
                .insert(partition.name.topic.to_string());
        }
        let age = now.saturating_duration_since(sealed.since);
        if again && age < shared.config.delivery_timeout && !partition.is_gone() {
            tracing::debug!(partition = %partition.name, %error, "sending again");
            self.trouble(Some(&error));
            let sealed = Sealed {
                last_error: Some(error),
                ..sealed
            };
            return partition.send_again(sealed, now + self.backoff);
        }
        self.fail(partition, &sealed, error);
    }

    /// A batch fails for good.
    fn fail(&mut self, partition: &Partition, sealed: &Sealed, error: Error) {
        let failure = match &error {
            _ if !self.shared.config.idempotent => None,
            // Nothing follows.
            _ if partition.is_gone() => None,
            Error::Broker { code, .. }
                if *code != ErrorCode::OutOfOrderSequenceNumber && !error.is_retriable() =>
            {
                Some(Failure::NumberFree)
            }
            _ => Some(Failure::NumberUnknown),
        };
        if failure == Some(Failure::NumberUnknown) {
            self.identity = None;
        }
        self.shared.buffer.add_permits(sealed.charged_bytes);
        partition.finish(sealed, Err(error), failure);
    }

    /// Notes what keeps records from being delivered, and that nothing does. Who cannot be reached is noted by the client.
    fn trouble(&mut self, error: Option<&Error>) {
        let troubles = self.shared.client.troubles();
        match error {
            Some(error @ Error::Broker { .. }) => {
                troubles.failed(TROUBLE, error);
                self.is_troubled = true;
            }
            Some(_) => {}
            None if self.is_troubled => {
                troubles.over(TROUBLE);
                self.is_troubled = false;
            }
            None => {}
        }
    }

    /// Fails what is late. `due` becomes the time at which the next batch will be.
    fn expire(&mut self, now: Instant, due: &mut Instant) {
        let after = self.shared.config.delivery_timeout;
        for partition in &self.listed {
            let expired = partition.expire(now, after);
            for (fate, charged_bytes, last) in expired.batches {
                self.shared.buffer.add_permits(charged_bytes);
                if fate.outcome().is_some() {
                    continue;
                }
                let last = last.or_else(|| self.shared.client.troubles().latest());
                let error = Error::Undelivered {
                    what: partition.name.to_string(),
                    after,
                    last: last.map(Box::new),
                };
                self.shared.ledger.decide(&fate, Err(error));
            }
            if expired.number_lost {
                // It may have been written, so that its number cannot be used again.
                self.identity = None;
            }
            *due = expired.next.map_or(*due, |next| next.min(*due));
        }
    }

    /// What the brokers say of a topic that was asked for.
    fn learned(&mut self, topic: &str, errors: &[(Option<String>, ErrorCode)]) {
        let known = self.shared.client.metadata();
        let found = errors
            .iter()
            .find(|(name, _)| name.as_deref() == Some(topic));
        let lacks_partition = |partition: &Arc<Partition>| {
            let name = &partition.name;
            let topic = known.topics.get(name.topic.as_str());
            name.topic.as_str() == topic.map_or("", |topic| &topic.name)
                && topic.is_some_and(|t| t.partition(name.partition.to_wire()).is_none())
        };
        let code = match found {
            Some((_, code)) => *code,
            // It was deleted, and created again with fewer partitions.
            None if self
                .listed
                .iter()
                .any(|p| p.name.topic.as_str() == topic && lacks_partition(p)) =>
            {
                ErrorCode::UnknownTopicOrPartition
            }
            None => {
                self.missing.remove(topic);
                return;
            }
        };
        let now = Instant::now();
        let grace = GONE_AFTER.min(self.shared.config.delivery_timeout);
        let message = match code {
            ErrorCode::UnknownTopicOrPartition => {
                let since = *self.missing.entry(topic.to_owned()).or_insert(now);
                if now.saturating_duration_since(since) < grace {
                    // No need to ask as often as for a leader that moves.
                    self.metadata_not_before = Some(now + self.backoff.max(grace / 20));
                    return;
                }
                Some("it was deleted while records were on their way to it".to_owned())
            }
            code if code.is_retriable() => return,
            _ => None,
        };
        self.missing.remove(topic);
        self.gone(
            topic,
            &Error::broker(code, format!("topic {topic}"), message),
        );
    }

    /// Fails all records of a topic that cannot be sent to any more.
    fn gone(&mut self, topic: &str, error: &Error) {
        let mut topics = self
            .shared
            .topics
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        topics.known.retain(|name, _| name.as_str() != topic);
        if let Ok(name) = TopicName::parse(topic) {
            topics.gone.insert(name);
        }
        drop(topics);
        for partition in &self.listed {
            if partition.name.topic.as_str() != topic {
                continue;
            }
            for (fate, charged_bytes) in partition.leave() {
                self.shared.buffer.add_permits(charged_bytes);
                self.shared.ledger.decide(&fate, Err(error.clone()));
            }
        }
    }

    /// Asks how large a topic's batches may be.
    fn measure(&mut self, topic: &TopicName) {
        if !self.measuring.insert(topic.clone()) {
            return;
        }
        let (client, topic) = (self.shared.client.clone(), topic.clone());
        self.events.spawn(async move {
            let bytes = batch_bytes_max(&client, &topic).await;
            Event::BatchBytesMax(topic, bytes)
        });
    }

    fn measured(&self, topic: &TopicName, bytes: Option<usize>) {
        let topics = self
            .shared
            .topics
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((topic, bytes)) = topics.known.get(topic).zip(bytes) {
            topic.batch_bytes_max.store(bytes, Ordering::Relaxed);
        }
    }

    /// Asks for a producer id, once nothing is in-flight under the old one.
    fn identify(&mut self) {
        if self.identifying || self.in_flight > 0 {
            return;
        }
        self.identifying = true;
        let client = self.shared.client.clone();
        self.events.spawn(async move {
            let request = InitProducerIdRequest {
                transactional_id: None,
                transaction_timeout_ms: 60_000,
                ..Default::default()
            };
            let answer = client.call_any(&request, 4).await;
            Event::Identity(answer.and_then(|answer| {
                crate::error::check(answer.error_code, || "producer id".to_owned(), None)?;
                let id = ProducerId::from_wire(answer.producer_id);
                let id = id
                    .ok_or_else(|| Error::Invalid(format!("producer id {}", answer.producer_id)))?;
                Ok(Identity {
                    id,
                    epoch: ProducerEpoch::new(answer.producer_epoch),
                })
            }))
        });
    }

    fn adopt(&mut self, identity: Identity) {
        self.identity = Some(identity);
        let topics = self
            .shared
            .topics
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        for partition in topics.partitions() {
            partition.renumber(Some(identity));
        }
    }

    /// Nothing can be sent any more.
    fn give_up(&self, error: Error) {
        let error = self.shared.fatal.get_or_init(|| error).clone();
        self.listed.iter().for_each(|partition| partition.abandon());
        self.shared.ledger.decide_all(&error);
        self.shared.buffer.close();
    }

    /// A broker cannot be reached: perhaps others lead now.
    fn suspect_all(&mut self) {
        let topics = self.listed.iter().map(|p| p.name.topic.to_string());
        self.metadata_wanted.extend(topics);
    }

    fn ask_metadata(&mut self, now: Instant, due: &mut Instant) {
        if self.metadata_wanted.is_empty() || self.metadata_running {
            return;
        }
        if let Some(not_before) = self.metadata_not_before.filter(|t| *t > now) {
            *due = (*due).min(not_before);
            return;
        }
        self.metadata_running = true;
        let topics = std::mem::take(&mut self.metadata_wanted);
        let client = self.shared.client.clone();
        self.events.spawn(async move {
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            let result = client.ask_metadata(Some(&names), false).await;
            let result = result.map(|(_, errors)| errors);
            Event::Metadata {
                asked: topics,
                result,
            }
        });
    }
}

async fn answer(
    broker: i32,
    sent: Vec<(Arc<Partition>, Sealed)>,
    pending: Pending<ProduceRequest>,
    longer: Duration,
) -> Event {
    let answer = pending.wait(longer).await;
    Event::Answer {
        broker,
        sent,
        answer,
    }
}

fn topic_data(sent: &[(Arc<Partition>, Sealed)]) -> Vec<TopicProduceData> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut topics: Vec<TopicProduceData> = Vec::new();
    for (partition, sealed) in sent {
        let name = partition.name.topic.as_str();
        let place = *places.entry(name).or_insert_with(|| {
            topics.push(TopicProduceData {
                name: name.to_owned(),
                ..Default::default()
            });
            topics.len() - 1
        });
        topics[place].partition_data.push(PartitionProduceData {
            index: partition.name.partition.to_wire(),
            records: Some(Records::from(sealed.bytes.clone())),
        });
    }
    topics
}

fn acked(partition: &Partition, answer: &PartitionProduceResponse) -> Result<Acked> {
    match ErrorCode::from_code(answer.error_code) {
        ErrorCode::None => {}
        // It is written already; the broker only does not remember where.
        ErrorCode::DuplicateSequenceNumber => {
            return Ok(Acked {
                base_offset: None,
                append_time: None,
            });
        }
        code => {
            let detail = answer
                .record_errors
                .iter()
                .find_map(|e| e.batch_index_error_message.clone());
            let message = answer.error_message.clone().or(detail);
            return Err(Error::broker(code, partition.name.to_string(), message));
        }
    }
    Ok(Acked {
        base_offset: Offset::from_wire(answer.base_offset),
        append_time: Some(Timestamp::from_millis(answer.log_append_time_ms))
            .filter(|t| !t.is_none()),
    })
}
