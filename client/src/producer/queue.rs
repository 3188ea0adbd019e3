//! The batches of one partition, from the first record to the answer, and the order in which they may leave.
//!
//! Batches are filled (`open`), wait whole (`full`), are in-flight, and may come back to be retried (`again`). While
//! there is one to retry, they leave one by one, oldest first, and only when no younger one is in-flight.

use super::ledger::{Fate, Ledger};
use super::{Acked, ProducerConfig};
use crate::{Error, Result};
use bytes::{Bytes, BytesMut};
use model::batch::{
    Batch, BatchBuilder, BatchError, BuildError, DecompressLimit, HeaderRef, RecordBody, crc32c,
};
use model::{ProducerEpoch, ProducerId, Timestamp, TopicPartition};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
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
    ledger: Arc<Ledger>,
    /// Its topic is gone: nothing is sent again.
    is_gone: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    open: Option<Waiting>,
    full: VecDeque<Waiting>,
    again: VecDeque<Sealed>,
    /// Batches in-flight, by place, with the time from which they are late or early.
    in_flight: BTreeMap<u64, (Arc<Fate>, Instant)>,
    /// The next batch's first sequence number.
    next_sequence: i32,
    /// The oldest batch that will never be written, by place and number: once nothing is in-flight, the rest is
    /// numbered from there.
    rewind: Option<(u64, i32)>,
    /// Nothing leaves before.
    not_before: Option<Instant>,
    /// Whether the sender knows that there is something here.
    listed: bool,
    next_order: u64,
    capacity_bytes: usize,
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
    /// Why it is sent again.
    pub last_error: Option<Error>,
    /// It was built here, of records that may as well travel in two batches.
    pub is_ours: bool,
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

/// Batches whose time is over.
#[derive(Debug, Default)]
pub struct Expired {
    /// Their fates, what was charged for them and is now free, and why they were sent again.
    pub batches: Vec<(Arc<Fate>, usize, Option<Error>)>,
    /// One that may have been written was given up with its number.
    pub number_lost: bool,
    /// When the next batch will be late.
    pub next: Option<Instant>,
}

/// A batch that was not split: it is one record, was built elsewhere, or its outcome is decided already.
#[derive(Debug)]
pub struct Unsplit {
    pub sealed: Box<Sealed>,
    /// Its records cannot be read or written again.
    pub error: Option<Error>,
}

impl Partition {
    pub fn new(name: TopicPartition, ledger: Arc<Ledger>) -> Arc<Partition> {
        Arc::new(Partition {
            name,
            ledger,
            is_gone: AtomicBool::new(false),
            queue: Mutex::new(Queue {
                open: None,
                full: VecDeque::new(),
                again: VecDeque::new(),
                in_flight: BTreeMap::new(),
                next_sequence: 0,
                rewind: None,
                not_before: None,
                listed: false,
                next_order: 0,
                capacity_bytes: 0,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record to the open batch, which is full with `batch_bytes`; `bytes` is what was charged for the record.
    pub fn push(
        &self,
        config: &ProducerConfig,
        batch_bytes: usize,
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
            && builder.plain_bytes() + bytes > batch_bytes
        {
            queue.capacity_bytes = builder.plain_bytes();
            queue.full.extend(queue.open.take());
            filled = true;
        }
        let open = queue.open.get_or_insert_with(|| {
            let fate = self.ledger.open(self.name.clone());
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
        if builder.plain_bytes() >= batch_bytes {
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
        let fate = self.ledger.open(self.name.clone());
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
            .first_key_value()
            .map_or(0, |(oldest, _)| queue.next_order + 1 - oldest);
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
    /// A batch that cannot be built is decided, and what was charged for it comes back.
    pub fn take(&self, identity: Option<Identity>) -> Option<std::result::Result<Sealed, usize>> {
        let mut queue = self.lock();
        let queue = &mut *queue;
        if let Some((_, sequence)) = queue.rewind.take() {
            queue.renumber(identity, sequence);
        }
        if let Some(sealed) = queue.again.pop_front() {
            queue.leaves(&sealed);
            return Some(Ok(sealed));
        }
        let waiting = queue.full.pop_front().or_else(|| queue.open.take())?;
        let (fate, charged_bytes) = (waiting.fate.clone(), waiting.charged_bytes);
        match queue.seal(waiting, identity) {
            Ok(sealed) => {
                queue.leaves(&sealed);
                Some(Ok(sealed))
            }
            Err(error) => {
                self.ledger.decide(&fate, Err(error.into()));
                Some(Err(charged_bytes))
            }
        }
    }

    /// A batch's fate is decided; it is no longer in-flight.
    pub fn finish(&self, sealed: &Sealed, outcome: Result<Acked>, failure: Option<Failure>) {
        let mut queue = self.lock();
        queue.in_flight.remove(&sealed.order);
        if failure == Some(Failure::NumberFree) {
            queue.rewind_to(sealed);
        }
        drop(queue);
        self.ledger.decide(&sealed.fate, outcome);
    }

    /// Puts two batches with half of the records each in the place of one that the broker found too large and did not
    /// write. They leave before all younger ones.
    pub fn split(
        &self,
        sealed: Sealed,
        config: &ProducerConfig,
        numbered: bool,
    ) -> std::result::Result<(), Unsplit> {
        let whole = |sealed, error| {
            let sealed = Box::new(sealed);
            Err(Unsplit { sealed, error })
        };
        if sealed.record_count < 2 || !sealed.is_ours {
            return whole(sealed, None);
        }
        let at = sealed.record_count / 2;
        let halves = match halves(&sealed.bytes, at, config) {
            Ok(halves) => halves,
            Err(error) => return whole(sealed, Some(self.damaged(error))),
        };
        let Some(fates) = self.ledger.split(&sealed.fate, at.unsigned_abs()) else {
            return whole(sealed, None);
        };
        let mut queue = self.lock();
        queue.in_flight.remove(&sealed.order);
        if numbered {
            queue.rewind_to(&sealed);
        }
        let place = queue.place_of(&sealed);
        let counts = [at, sealed.record_count - at];
        let charges = [
            sealed.charged_bytes / 2,
            sealed.charged_bytes - sealed.charged_bytes / 2,
        ];
        // The second goes in first, and is then pushed back by the first. Both have the place of the whole: they never are
        // in-flight at the same time, as nothing is beside a batch that is sent again.
        for (index, (bytes, fate)) in halves.into_iter().zip(fates).enumerate().rev() {
            let half = Sealed {
                bytes,
                fate,
                order: sealed.order,
                sequence: sealed.sequence,
                record_count: counts[index],
                since: sealed.since,
                attempts: 0,
                charged_bytes: charges[index],
                last_error: None,
                is_ours: true,
            };
            queue.again.insert(place, half);
        }
        Ok(())
    }

    fn damaged(&self, error: SplitError) -> Error {
        match error {
            SplitError::Read(source) => Error::Batch {
                partition: self.name.to_string(),
                offset: 0,
                source,
            },
            SplitError::Build(error) => error.into(),
        }
    }

    /// A batch is to be sent again, not before the given time.
    pub fn send_again(&self, mut sealed: Sealed, not_before: Instant) {
        let mut queue = self.lock();
        queue.in_flight.remove(&sealed.order);
        sealed.attempts += 1;
        let place = queue.place_of(&sealed);
        queue.again.insert(place, sealed);
        queue.not_before = Some(not_before);
    }

    /// Whether an older batch of this partition may be missing at the broker: it is to be sent again, its answer was
    /// not seen yet, or its number was given up.
    pub fn may_have_gap_before(&self, sealed: &Sealed) -> bool {
        let queue = self.lock();
        let again = queue.again.front().map(|first| first.order);
        let in_flight = queue.in_flight.first_key_value().map(|(order, _)| *order);
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

    /// What is older than `timeout`. Batches in-flight keep their place in the queue until their answer, and one that may
    /// have been written keeps it until nothing is in-flight; the others are taken out.
    pub fn expire(&self, now: Instant, timeout: Duration) -> Expired {
        let mut queue = self.lock();
        let queue = &mut *queue;
        let mut expired = Expired::default();
        // True for a batch that is late now. The ledger knows which of them were late before.
        let is_old = |since: Instant, next: &mut Option<Instant>| {
            let due = since.checked_add(timeout);
            if due.is_some_and(|due| due > now) {
                *next = [*next, due].into_iter().flatten().min();
            }
            due.is_some_and(|due| due <= now)
        };
        for (fate, since) in queue.in_flight.values() {
            if is_old(*since, &mut expired.next) {
                expired.batches.push((fate.clone(), 0, None));
            }
        }
        let is_idle = queue.in_flight.is_empty();
        queue.again.retain(|sealed| {
            if !is_old(sealed.since, &mut expired.next) {
                return true;
            }
            let charge = if is_idle { sealed.charged_bytes } else { 0 };
            let batch = (sealed.fate.clone(), charge, sealed.last_error.clone());
            expired.batches.push(batch);
            expired.number_lost |= is_idle;
            !is_idle
        });
        let mut waits = |waiting: &Waiting| {
            if !is_old(waiting.since, &mut expired.next) {
                return true;
            }
            let batch = (waiting.fate.clone(), waiting.charged_bytes, None);
            expired.batches.push(batch);
            false
        };
        queue.full.retain(&mut waits);
        queue.open.take_if(|open| !waits(open));
        expired
    }

    /// Takes out everything that is not in-flight, because the topic is gone; what is in-flight is not sent again. Yields
    /// the fates, and what was charged.
    pub fn leave(&self) -> Vec<(Arc<Fate>, usize)> {
        self.is_gone.store(true, Ordering::Release);
        let mut queue = self.lock();
        let queue = &mut *queue;
        queue.rewind = None;
        let again = queue.again.drain(..);
        let again: Vec<_> = again.map(|s| (s.fate, s.charged_bytes)).collect();
        let waiting = queue.full.drain(..).chain(queue.open.take());
        let waiting = waiting.map(|w| (w.fate, w.charged_bytes));
        again.into_iter().chain(waiting).collect()
    }

    /// Whether [`Partition::leave`] was called.
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// Forgets everything that is not in-flight.
    pub fn abandon(&self) {
        let mut queue = self.lock();
        queue.open = None;
        queue.full.clear();
        queue.again.clear();
    }
}

impl Queue {
    fn leaves(&mut self, sealed: &Sealed) {
        let before = self
            .in_flight
            .insert(sealed.order, (sealed.fate.clone(), sealed.since));
        assert!(before.is_none(), "two batches in-flight in one place");
    }

    /// The broker did not write a batch: its number goes to the next one.
    fn rewind_to(&mut self, sealed: &Sealed) {
        let place = (sealed.order, sealed.sequence);
        self.rewind = Some(self.rewind.map_or(place, |other| other.min(place)));
    }

    /// Where a batch goes among those to be sent again: before what has its place already, such as its other half.
    fn place_of(&self, sealed: &Sealed) -> usize {
        self.again
            .partition_point(|other| other.order < sealed.order)
    }

    fn seal(
        &mut self,
        waiting: Waiting,
        identity: Option<Identity>,
    ) -> std::result::Result<Sealed, BuildError> {
        let sequence = self.next_sequence;
        let is_ours = matches!(waiting.content, Content::Builder(_));
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
            last_error: None,
            is_ours,
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

enum SplitError {
    Read(BatchError),
    Build(BuildError),
}

/// A batch's first `at` records, and the rest, without numbers.
fn halves(
    bytes: &Bytes,
    at: i32,
    config: &ProducerConfig,
) -> std::result::Result<[Bytes; 2], SplitError> {
    let batch = Batch::parse(bytes.clone()).map_err(SplitError::Read)?;
    let mut halves = [(); 2].map(|()| BatchBuilder::new(config.compression));
    let mut records = batch
        .records(DecompressLimit::default())
        .map_err(SplitError::Read)?;
    let mut number = 0;
    while let Some(record) = records.next_ref() {
        let record = record.map_err(SplitError::Read)?;
        let headers: Vec<HeaderRef<'_>> = record.headers().collect();
        let body = RecordBody {
            key: record.key,
            value: record.value,
            headers: &headers,
        };
        halves[usize::from(number >= at)]
            .push_body(record.timestamp, body)
            .map_err(SplitError::Build)?;
        number += 1;
    }
    let [first, second] = halves;
    let build = |half: BatchBuilder| half.build().map_err(SplitError::Build);
    Ok([build(first)?, build(second)?])
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
    use super::super::ledger::Outcome;
    use super::*;
    use model::batch::{Codec, DecompressLimit};
    use model::{PartitionId, TopicName};

    const IDENTITY: Identity = Identity {
        id: ProducerId::new(7),
        epoch: ProducerEpoch::new(0),
    };

    fn partition() -> Arc<Partition> {
        let topic = TopicName::parse("t").unwrap();
        Partition::new(
            TopicPartition::new(topic, PartitionId::new(0)),
            Arc::default(),
        )
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
            .push(
                config,
                config.batch_bytes,
                Timestamp::from_millis(1),
                body,
                100,
            )
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
    fn a_batch_is_late_when_it_is_under_way_too_and_its_number_is_lost_once_nothing_is() {
        let (partition, config) = (partition(), config());
        push(&partition, &config, "a");
        push(&partition, &config, "b");
        push(&partition, &config, "c");
        let (a, b) = (take(&partition), take(&partition));
        let later = Instant::now() + Duration::from_secs(10);
        let early = partition.expire(later, Duration::from_secs(20));
        assert_eq!((early.batches.len(), early.number_lost), (0, false));
        assert!(early.next.is_some_and(|next| next > later));
        partition.send_again(a, Instant::now());
        // `a` waits for the answer to `b`, `c` was never sent.
        let late = partition.expire(later, Duration::from_secs(5));
        assert_eq!((late.batches.len(), late.number_lost), (3, false));
        assert_eq!(
            late.batches
                .iter()
                .map(|(_, charge, _)| charge)
                .sum::<usize>(),
            100
        );
        partition.finish(&b, acked(), None);
        let idle = partition.expire(later, Duration::from_secs(5));
        assert_eq!((idle.batches.len(), idle.number_lost), (1, true));
        assert_eq!(partition.wants(&config, later, false), Wants::Nothing);
    }

    #[test]
    fn halves_leave_before_younger_batches_under_the_number_of_the_whole() {
        let partition = partition();
        let large = ProducerConfig {
            batch_bytes: 100_000,
            ..Default::default()
        };
        for name in ["a", "b", "c"] {
            push(&partition, &large, name);
        }
        let whole = partition.take(Some(IDENTITY)).unwrap().unwrap();
        push(&partition, &config(), "d");
        let younger = take(&partition);
        assert_eq!((whole.sequence, younger.sequence), (0, 3));
        let fate = whole.fate.clone();
        partition.split(whole, &large, true).unwrap();
        assert!(partition.may_have_gap_before(&younger));
        partition.send_again(younger, Instant::now());
        let mut left = Vec::new();
        for _ in 0..3 {
            let sealed = take(&partition);
            left.push((value(&sealed), sealed.sequence, sealed.record_count));
            partition.finish(&sealed, acked(), None);
        }
        let wanted = [("a", 0, 1), ("b", 1, 2), ("d", 3, 1)].map(|(v, s, n)| (v.to_owned(), s, n));
        assert_eq!(left, wanted);
        assert!(matches!(fate.outcome(), Some(Outcome::Split { at: 1, .. })));
    }

    #[test]
    fn a_single_record_and_a_batch_from_elsewhere_are_not_split() {
        let (partition, config) = (partition(), config());
        push(&partition, &config, "a");
        let sealed = take(&partition);
        let unsplit = partition.split(sealed, &config, true).unwrap_err();
        assert!(unsplit.error.is_none());
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
