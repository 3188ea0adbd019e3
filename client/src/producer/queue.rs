//! What waits for one partition, and in which order it may leave.
//!
//! Batches are filled (`open`), wait whole (`full`), are under way, and may come back to be sent again (`again`). While
//! there is one to be sent again, they leave one by one, oldest first, and only when no younger one is under way.

use super::{Acked, Fate, ProducerConfig};
use crate::Result;
use bytes::{Bytes, BytesMut};
use model::batch::{Batch, BatchBuilder, BuildError, RecordBody, crc32c};
use model::{ProducerEpoch, ProducerId, Timestamp, TopicPartition};
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Batches of one producer are numbered on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
}

/// A partition's queue.
#[derive(Debug)]
pub struct Partition {
    pub name: TopicPartition,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    open: Option<Waiting>,
    full: VecDeque<Waiting>,
    again: VecDeque<Sealed>,
    /// The places of batches under way.
    in_flight: BTreeSet<u64>,
    /// The next batch's first sequence number.
    next_sequence: i32,
    /// The oldest batch that will never be written, by place and number: once nothing is under way, the rest is
    /// numbered from there.
    rewind: Option<(u64, i32)>,
    /// Nothing leaves before.
    not_before: Option<Instant>,
    /// Whether the sender knows that there is something here.
    listed: bool,
    next_order: u64,
    capacity_bytes: usize,
    unfinished: Vec<Arc<Fate>>,
}

/// A batch that has no number yet.
#[derive(Debug)]
struct Waiting {
    content: Content,
    fate: Arc<Fate>,
    since: Instant,
    charged_bytes: usize,
}

#[derive(Debug)]
enum Content {
    Builder(BatchBuilder),
    Built(Batch),
}

/// A batch in its final form.
#[derive(Debug)]
pub struct Sealed {
    pub bytes: Bytes,
    pub fate: Arc<Fate>,
    /// Its place among its partition's batches.
    pub order: u64,
    pub sequence: i32,
    pub record_count: i32,
    pub since: Instant,
    pub attempts: u32,
    pub charged_bytes: usize,
}

/// What became of a record that was pushed.
pub struct Push {
    pub fate: Arc<Fate>,
    pub index: u32,
    /// A batch is full.
    pub filled: bool,
    /// The sender does not know of this partition yet: tell it.
    pub stirred: bool,
}

/// What a partition wants of the sender.
#[derive(Debug, PartialEq, Eq)]
pub enum Wants {
    /// To send now.
    Send,
    /// To be looked at again at this time.
    Wait(Instant),
    /// To be looked at again when an answer came.
    Answer,
    /// Nothing: it is empty and no longer listed.
    Nothing,
}

/// Why a batch was not written, as far as its successors care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The broker did not write it and will not; its number is free.
    NumberFree,
    /// Nobody knows whether it was written, or there is no number.
    NumberUnknown,
}

impl Partition {
    pub fn new(name: TopicPartition) -> Arc<Partition> {
        Arc::new(Partition {
            name,
            queue: Mutex::new(Queue {
                open: None,
                full: VecDeque::new(),
                again: VecDeque::new(),
                in_flight: BTreeSet::new(),
                next_sequence: 0,
                rewind: None,
                not_before: None,
                listed: false,
                next_order: 0,
                capacity_bytes: 0,
                unfinished: Vec::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record to the open batch; `bytes` is what was charged for it.
    pub fn push(
        &self,
        config: &ProducerConfig,
        timestamp: Timestamp,
        body: RecordBody<'_>,
        bytes: usize,
    ) -> std::result::Result<Push, BuildError> {
        let mut queue = self.lock();
        let queue = &mut *queue;
        let mut filled = false;
        if let Some(Waiting {
            content: Content::Builder(builder),
            ..
        }) = &queue.open
            && builder.plain_bytes() + bytes > config.batch_bytes
        {
            queue.capacity_bytes = builder.plain_bytes();
            queue.full.extend(queue.open.take());
            filled = true;
        }
        let open = queue.open.get_or_insert_with(|| {
            let fate = Fate::new(self.name.clone());
            queue.unfinished.push(fate.clone());
            let builder = BatchBuilder::with_capacity(config.compression, queue.capacity_bytes);
            Waiting {
                content: Content::Builder(builder),
                fate,
                since: Instant::now(),
                charged_bytes: 0,
            }
        });
        let Content::Builder(builder) = &mut open.content else {
            unreachable!("an open batch is a builder")
        };
        let index = u32::try_from(builder.record_count()).unwrap_or(u32::MAX);
        builder.push_body(timestamp, body)?;
        open.charged_bytes += bytes;
        let fate = open.fate.clone();
        if builder.plain_bytes() >= config.batch_bytes {
            queue.capacity_bytes = builder.plain_bytes();
            queue.full.extend(queue.open.take());
            filled = true;
        }
        let stirred = !std::mem::replace(&mut queue.listed, true);
        Ok(Push {
            fate,
            index,
            filled,
            stirred,
        })
    }

    /// Appends a whole batch, behind what is open.
    pub fn push_batch(&self, batch: Batch) -> Push {
        let mut queue = self.lock();
        let queue = &mut *queue;
        queue.full.extend(queue.open.take());
        let fate = Fate::new(self.name.clone());
        queue.unfinished.push(fate.clone());
        let charged_bytes = batch.bytes().len();
        let since = Instant::now();
        queue.full.push_back(Waiting {
            content: Content::Built(batch),
            fate: fate.clone(),
            since,
            charged_bytes,
        });
        let stirred = !std::mem::replace(&mut queue.listed, true);
        Push {
            fate,
            index: 0,
            filled: true,
            stirred,
        }
    }

    /// Batches whose fate is open.
    pub fn unfinished(&self) -> Vec<Arc<Fate>> {
        self.lock().unfinished.clone()
    }

    /// What the partition wants now. An empty one leaves the sender's list.
    pub fn wants(&self, config: &ProducerConfig, now: Instant, linger: bool) -> Wants {
        let mut queue = self.lock();
        if queue.again.is_empty() && queue.full.is_empty() && queue.open.is_none() {
            if !queue.in_flight.is_empty() {
                return Wants::Answer;
            }
            queue.listed = false;
            return Wants::Nothing;
        }
        let alone = !queue.again.is_empty() || queue.rewind.is_some();
        if queue.in_flight.len() >= if alone { 1 } else { config.in_flight_max } {
            return Wants::Answer;
        }
        // The broker recognises only the last five batches as written before (Kafka's
        // `ProducerStateEntry.NUM_BATCHES_TO_RETAIN`). Answers are seen in any order, so the oldest batch without one
        // may have to be sent again: the youngest must not push it out of those five.
        let span = queue
            .in_flight
            .first()
            .map_or(0, |oldest| queue.next_order + 1 - oldest);
        if span >= config.in_flight_max as u64 {
            return Wants::Answer;
        }
        if let Some(not_before) = queue.not_before.filter(|t| *t > now) {
            return Wants::Wait(not_before);
        }
        match &queue.open {
            Some(open) if queue.again.is_empty() && queue.full.is_empty() && linger => {
                let due = open.since + config.linger;
                if due > now {
                    Wants::Wait(due)
                } else {
                    Wants::Send
                }
            }
            _ => Wants::Send,
        }
    }

    /// Takes the batch that leaves next, numbered. Only after `wants` said `Send`.
    /// A batch that cannot be built is decided, and what was charged for it comes back with the error.
    pub fn take(
        &self,
        identity: Option<Identity>,
    ) -> Option<std::result::Result<Sealed, (BuildError, usize)>> {
        let mut queue = self.lock();
        let queue = &mut *queue;
        if let Some((_, sequence)) = queue.rewind.take() {
            queue.renumber(identity, sequence);
        }
        if let Some(sealed) = queue.again.pop_front() {
            queue.in_flight.insert(sealed.order);
            return Some(Ok(sealed));
        }
        let waiting = queue.full.pop_front().or_else(|| queue.open.take())?;
        let (fate, charged_bytes) = (waiting.fate.clone(), waiting.charged_bytes);
        match queue.seal(waiting, identity) {
            Ok(sealed) => {
                queue.in_flight.insert(sealed.order);
                Some(Ok(sealed))
            }
            Err(error) => {
                queue.unfinished.retain(|f| !Arc::ptr_eq(f, &fate));
                fate.decide(Err(error.clone().into()));
                Some(Err((error, charged_bytes)))
            }
        }
    }

    /// A batch's fate is decided; it is no longer under way.
    pub fn finish(&self, sealed: &Sealed, outcome: Result<Acked>, failure: Option<Failure>) {
        let mut queue = self.lock();
        queue.in_flight.remove(&sealed.order);
        queue
            .unfinished
            .retain(|fate| !Arc::ptr_eq(fate, &sealed.fate));
        if failure == Some(Failure::NumberFree) {
            let place = (sealed.order, sealed.sequence);
            queue.rewind = Some(queue.rewind.map_or(place, |other| other.min(place)));
        }
        drop(queue);
        sealed.fate.decide(outcome);
    }

    /// A batch is to be sent again, not before the given time.
    pub fn send_again(&self, mut sealed: Sealed, not_before: Instant) {
        let mut queue = self.lock();
        queue.in_flight.remove(&sealed.order);
        sealed.attempts += 1;
        let place = queue
            .again
            .partition_point(|other| other.order < sealed.order);
        queue.again.insert(place, sealed);
        queue.not_before = Some(not_before);
    }

    /// Whether an older batch of this partition may be missing at the broker: it is to be sent again, its answer was
    /// not seen yet, or its number was given up.
    pub fn may_have_gap_before(&self, sealed: &Sealed) -> bool {
        let queue = self.lock();
        let again = queue.again.front().map(|first| first.order);
        let in_flight = queue.in_flight.first().copied();
        let rewind = queue.rewind.map(|(order, _)| order);
        [again, in_flight, rewind]
            .into_iter()
            .flatten()
            .any(|order| order < sealed.order)
    }

    /// Numbers start at 0 for a new identity.
    pub fn renumber(&self, identity: Option<Identity>) {
        let mut queue = self.lock();
        queue.rewind = None;
        queue.renumber(identity, 0);
    }

    /// Takes out what waited longer than `timeout` and is not under way. Tells whether one of them was ever sent.
    pub fn expire(&self, now: Instant, timeout: Duration) -> (Vec<(Arc<Fate>, usize)>, bool) {
        let mut queue = self.lock();
        let queue = &mut *queue;
        let old = |since: Instant| now.saturating_duration_since(since) > timeout;
        let mut expired = Vec::new();
        let mut sent = false;
        while queue.in_flight.is_empty() && queue.again.front().is_some_and(|s| old(s.since)) {
            let Some(sealed) = queue.again.pop_front() else {
                break;
            };
            sent = true;
            expired.push((sealed.fate, sealed.charged_bytes));
        }
        while queue.again.is_empty() && queue.full.front().is_some_and(|w| old(w.since)) {
            let Some(waiting) = queue.full.pop_front() else {
                break;
            };
            expired.push((waiting.fate, waiting.charged_bytes));
        }
        if queue.again.is_empty()
            && queue.full.is_empty()
            && queue.open.as_ref().is_some_and(|w| old(w.since))
        {
            expired.extend(
                queue
                    .open
                    .take()
                    .map(|waiting| (waiting.fate, waiting.charged_bytes)),
            );
        }
        queue
            .unfinished
            .retain(|fate| !expired.iter().any(|(gone, _)| Arc::ptr_eq(gone, fate)));
        (expired, sent)
    }

    /// Takes out everything that is not under way.
    pub fn abandon(&self) -> Vec<Arc<Fate>> {
        let mut queue = self.lock();
        queue.open = None;
        queue.full.clear();
        queue.again.clear();
        std::mem::take(&mut queue.unfinished)
    }
}

impl Queue {
    fn seal(
        &mut self,
        waiting: Waiting,
        identity: Option<Identity>,
    ) -> std::result::Result<Sealed, BuildError> {
        let sequence = self.next_sequence;
        let (bytes, record_count) = match waiting.content {
            Content::Builder(mut builder) => {
                let count = i32::try_from(builder.record_count()).unwrap_or(i32::MAX);
                if let Some(Identity { id, epoch }) = identity {
                    builder.producer(id, epoch, sequence);
                }
                (builder.build()?, count)
            }
            Content::Built(batch) => {
                let count = batch.header().last_offset_delta + 1;
                let bytes = batch.into_bytes();
                (
                    identity.map_or(bytes.clone(), |identity| stamp(bytes, identity, sequence)),
                    count,
                )
            }
        };
        self.next_sequence = sequence_after(sequence, record_count);
        self.next_order += 1;
        Ok(Sealed {
            bytes,
            fate: waiting.fate,
            order: self.next_order,
            sequence,
            record_count,
            since: waiting.since,
            attempts: 0,
            charged_bytes: waiting.charged_bytes,
        })
    }

    fn renumber(&mut self, identity: Option<Identity>, from: i32) {
        self.next_sequence = from;
        let Some(identity) = identity else { return };
        for sealed in &mut self.again {
            sealed.bytes = stamp(
                std::mem::take(&mut sealed.bytes),
                identity,
                self.next_sequence,
            );
            sealed.sequence = self.next_sequence;
            self.next_sequence = sequence_after(self.next_sequence, sealed.record_count);
        }
    }
}

/// Numbers go up to the largest i32 and on from 0.
fn sequence_after(sequence: i32, count: i32) -> i32 {
    let next = i64::from(sequence) + i64::from(count);
    i32::try_from(next % (i64::from(i32::MAX) + 1)).unwrap_or(0)
}

/// Puts producer and sequence into a batch that was built. Copies it if somebody else holds it too.
fn stamp(bytes: Bytes, identity: Identity, sequence: i32) -> Bytes {
    let mut batch = BytesMut::from(bytes);
    batch[43..51].copy_from_slice(&identity.id.get().to_be_bytes());
    batch[51..53].copy_from_slice(&identity.epoch.get().to_be_bytes());
    batch[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use model::batch::{Codec, DecompressLimit};
    use model::{PartitionId, TopicName};

    const IDENTITY: Identity = Identity {
        id: ProducerId::new(7),
        epoch: ProducerEpoch::new(0),
    };

    fn partition() -> Arc<Partition> {
        let topic = TopicName::parse("t").unwrap();
        Partition::new(TopicPartition::new(topic, PartitionId::new(0)))
    }

    /// Every record fills a batch.
    fn config() -> ProducerConfig {
        ProducerConfig {
            batch_bytes: 1,
            ..Default::default()
        }
    }

    fn push(partition: &Partition, config: &ProducerConfig, value: &str) -> Push {
        let body = RecordBody {
            value: Some(value.as_bytes()),
            ..Default::default()
        };
        partition
            .push(config, Timestamp::from_millis(1), body, 100)
            .unwrap()
    }

    fn take(partition: &Partition) -> Sealed {
        assert_eq!(
            partition.wants(&config(), Instant::now(), false),
            Wants::Send
        );
        partition.take(Some(IDENTITY)).unwrap().unwrap()
    }

    fn value(sealed: &Sealed) -> String {
        let batch = Batch::parse(sealed.bytes.clone()).unwrap();
        assert_eq!(batch.header().base_sequence, sealed.sequence);
        assert_eq!(batch.header().producer_id, IDENTITY.id.get());
        let mut records = batch.records(DecompressLimit::bytes(1 << 20)).unwrap();
        let record = records.next_ref().unwrap().unwrap();
        String::from_utf8(record.value.unwrap().to_vec()).unwrap()
    }

    fn acked() -> Result<Acked> {
        Ok(Acked {
            base_offset: None,
            append_time: None,
        })
    }

    #[test]
    fn no_batch_leaves_that_would_push_an_unanswered_one_out_of_the_brokers_memory() {
        let (partition, config) = (partition(), config());
        for n in 0..=config.in_flight_max {
            push(&partition, &config, &n.to_string());
        }
        let sent: Vec<Sealed> = (0..config.in_flight_max)
            .map(|_| take(&partition))
            .collect();
        for younger in &sent[1..] {
            partition.finish(younger, acked(), None);
        }
        assert_eq!(
            partition.wants(&config, Instant::now(), false),
            Wants::Answer
        );
        partition.finish(&sent[0], acked(), None);
        assert_eq!(value(&take(&partition)), config.in_flight_max.to_string());
    }

    #[test]
    fn batches_leave_in_order_and_numbered_on() {
        let (partition, config) = (partition(), config());
        for name in ["a", "b", "c"] {
            push(&partition, &config, name);
        }
        let sent: Vec<Sealed> = (0..3).map(|_| take(&partition)).collect();
        assert_eq!(sent.iter().map(value).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(
            sent.iter().map(|s| s.sequence).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert_eq!(
            partition.wants(&config, Instant::now(), true),
            Wants::Answer
        );
        sent.iter().for_each(|s| partition.finish(s, acked(), None));
        assert_eq!(
            partition.wants(&config, Instant::now(), true),
            Wants::Nothing
        );
    }

    #[test]
    fn what_is_sent_again_goes_first_and_one_by_one_with_its_old_number() {
        let (partition, config) = (partition(), config());
        for name in ["a", "b", "c", "d"] {
            push(&partition, &config, name);
        }
        let (a, b, c) = (take(&partition), take(&partition), take(&partition));
        let now = Instant::now();
        // The answers come back in any order when a connection breaks.
        partition.send_again(b, now);
        assert_eq!(partition.wants(&config, now, false), Wants::Answer);
        assert!(partition.may_have_gap_before(&c));
        assert!(!partition.may_have_gap_before(&a));
        partition.send_again(c, now);
        partition.send_again(a, now);
        for (name, sequence) in [("a", 0), ("b", 1), ("c", 2), ("d", 3)] {
            let sealed = take(&partition);
            assert_eq!((value(&sealed).as_str(), sealed.sequence), (name, sequence));
            if name != "d" {
                assert_eq!(
                    partition.wants(&config, Instant::now(), false),
                    if name == "c" {
                        Wants::Send
                    } else {
                        Wants::Answer
                    }
                );
            }
            partition.finish(&sealed, acked(), None);
        }
    }

    #[test]
    fn answers_may_be_seen_in_another_order_than_they_came() {
        let (partition, config) = (partition(), config());
        for name in ["a", "b", "c"] {
            push(&partition, &config, name);
        }
        let (a, b, c) = (take(&partition), take(&partition), take(&partition));
        assert!(partition.may_have_gap_before(&c));
        partition.finish(&b, Err(Error::Closed), Some(Failure::NumberFree));
        partition.finish(&a, Err(Error::Closed), Some(Failure::NumberFree));
        partition.send_again(c, Instant::now());
        let c = take(&partition);
        assert_eq!((value(&c).as_str(), c.sequence), ("c", 0));
    }

    #[test]
    fn the_number_of_a_refused_batch_goes_to_the_next() {
        let (partition, config) = (partition(), config());
        for name in ["a", "b", "c"] {
            push(&partition, &config, name);
        }
        let (a, b) = (take(&partition), take(&partition));
        let refused = Err(Error::Closed);
        partition.finish(&a, refused, Some(Failure::NumberFree));
        assert!(partition.may_have_gap_before(&b));
        partition.send_again(b, Instant::now());
        let b = take(&partition);
        assert_eq!((value(&b).as_str(), b.sequence), ("b", 0));
        partition.finish(&b, acked(), None);
        let c = take(&partition);
        assert_eq!((value(&c).as_str(), c.sequence), ("c", 1));
    }

    #[test]
    fn a_new_identity_numbers_from_zero() {
        let (partition, config) = (partition(), config());
        for name in ["a", "b", "c"] {
            push(&partition, &config, name);
        }
        let (a, b) = (take(&partition), take(&partition));
        partition.finish(&a, acked(), None);
        partition.send_again(b, Instant::now());
        partition.renumber(Some(IDENTITY));
        let b = take(&partition);
        assert_eq!((value(&b).as_str(), b.sequence), ("b", 0));
        partition.finish(&b, acked(), None);
        assert_eq!(take(&partition).sequence, 1);
    }

    #[test]
    fn an_open_batch_lingers_and_a_full_one_does_not() {
        let partition = partition();
        let config = ProducerConfig {
            linger: Duration::from_secs(60),
            batch_bytes: 1000,
            ..Default::default()
        };
        assert!(push(&partition, &config, "x").stirred);
        assert!(!push(&partition, &config, "y").stirred);
        let now = Instant::now();
        assert!(matches!(partition.wants(&config, now, true), Wants::Wait(due) if due > now));
        assert_eq!(partition.wants(&config, now, false), Wants::Send);
        assert_eq!(
            partition.wants(&config, now + config.linger, true),
            Wants::Send
        );
        assert!(push(&partition, &config, &"z".repeat(950)).filled);
        assert_eq!(partition.wants(&config, now, true), Wants::Send);
    }

    #[test]
    fn old_batches_expire_only_when_none_is_under_way() {
        let (partition, config) = (partition(), config());
        push(&partition, &config, "a");
        push(&partition, &config, "b");
        let a = take(&partition);
        let later = Instant::now() + Duration::from_secs(10);
        let (expired, sent) = partition.expire(later, Duration::from_secs(20));
        assert_eq!((expired.len(), sent), (0, false));
        partition.send_again(a, Instant::now());
        let (expired, sent) = partition.expire(later, Duration::from_secs(5));
        assert_eq!((expired.len(), sent), (2, true));
        assert!(partition.unfinished().is_empty());
    }

    #[test]
    fn a_batch_from_elsewhere_is_stamped_with_the_producer() {
        let partition = partition();
        let mut builder = BatchBuilder::new(Codec::None);
        for value in ["one", "two"] {
            builder
                .push(Timestamp::from_millis(5), None, Some(value.as_bytes()), &[])
                .unwrap();
        }
        partition.push_batch(Batch::parse(builder.build().unwrap()).unwrap());
        let sealed = take(&partition);
        assert_eq!(value(&sealed), "one");
        assert_eq!(sealed.record_count, 2);
    }

    #[test]
    fn numbers_wrap_to_zero() {
        assert_eq!(sequence_after(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 5), 3);
    }
}
