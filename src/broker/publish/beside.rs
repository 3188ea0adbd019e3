//! A message that becomes durable in one frame with changes of the broker's own state: both, or neither.
//! Callers: the parts of the broker that keep state about messages. Such a message joins no open batch: behind those that were
//! published before by the same caller it keeps its order if those are durable.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use model::{Offset, PartitionId, Timestamp};
use storage::{Admission, AppendBatch, LogAppend, Purpose};
use tokio::sync::OwnedSemaphorePermit;

use super::batch::{Encoded, OpenBatch, encode_fitly, too_long};
use super::message::{Message, Outgoing, Rules};
use super::outcome::{Promise, Publishing};
use super::place::{partition_of, publishable};
use super::refusal::PublishRefusal;
use super::together::{decided, refusal_of};
use crate::broker::Broker;
use crate::broker::access::{Granted, right};
use crate::broker::catalog::Topic;

/// A message with its state, encoded and admitted.
pub(in crate::broker) struct Ready {
    topic: Arc<Topic>,
    partition: PartitionId,
    bytes: u64,
    /// First the message's log, then those of the state.
    group: Vec<LogAppend>,
    admission: Admission,
    promise: Promise,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Broker {
    /// Checks a message, encodes it, and waits for room for it and the state.
    pub(in crate::broker) async fn ready_beside(
        &self,
        topic: &Granted<Arc<Topic>, right::Write>,
        message: &Message<'_>,
        state: Vec<LogAppend>,
    ) -> Result<Ready, PublishRefusal> {
        let topic = publishable(self, topic)?;
        let now = self.now();
        let store_bytes_max = self.storage().batch_bytes_max();
        let bytes = Rules::of(&topic.config, now, store_bytes_max).check(message, now)?;
        let outgoing = Outgoing {
            partition: None,
            message: *message,
        };
        let partition = partition_of(&topic, &outgoing)?;
        let mut open = OpenBatch::new(Arc::clone(&topic), bytes, store_bytes_max);
        open.push(partition, message, now)?;
        open.pay(Some(self.shared.lanes.admit(bytes).await));
        let Encoded {
            batch,
            permit,
            promise,
            ..
        } = open
            .encoded(now)
            .await
            .ok_or_else(|| too_long(&topic.config))?;
        let bytes = batch.bytes().len() as u64;
        let of_message = LogAppend {
            log: Arc::clone(topic.log(partition)?),
            batches: vec![AppendBatch::from(batch)],
        };
        let group: Vec<LogAppend> = [of_message].into_iter().chain(state).collect();
        let size = LogAppend::size_of(&group);
        if !self.storage().takes_all(size) {
            let (bytes, bytes_max) = (size.bytes, self.together_bytes_max());
            return Err(PublishRefusal::TooMuch { bytes, bytes_max });
        }
        Ok(Ready {
            topic,
            partition,
            bytes,
            group,
            admission: self.storage().admit_all(size, Purpose::Records).await,
            promise,
            _permit: permit,
        })
    }
}

/// Messages for one partition, which become batches that somebody appends with something else.
pub(in crate::broker) struct Gathering {
    topic: Arc<Topic>,
    partition: PartitionId,
    rules: Rules,
    now: Timestamp,
    store_bytes_max: u64,
    batches: Vec<OpenBatch>,
    bytes: usize,
    count: usize,
}

impl Broker {
    /// Begins to gather messages for a partition. Errors: the topic is not there, or takes none.
    pub(in crate::broker) fn gather(
        &self,
        topic: &Topic,
        partition: PartitionId,
    ) -> Result<Gathering, PublishRefusal> {
        let topic = publishable(self, topic)?;
        topic.log(partition)?;
        let store_bytes_max = self.storage().batch_bytes_max();
        Ok(Gathering::new(
            topic,
            partition,
            self.now(),
            store_bytes_max,
        ))
    }
}

impl Gathering {
    /// None yet, for a partition of a topic that is there.
    pub(super) fn new(
        topic: Arc<Topic>,
        partition: PartitionId,
        now: Timestamp,
        store_bytes_max: u64,
    ) -> Gathering {
        Gathering {
            rules: Rules::of(&topic.config, now, store_bytes_max),
            topic,
            partition,
            now,
            store_bytes_max,
            batches: Vec::new(),
            bytes: 0,
            count: 0,
        }
    }

    /// Whose they are.
    pub(super) fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// Adds a message, if the topic takes it.
    pub(in crate::broker) fn push(&mut self, message: &Message<'_>) -> Result<(), PublishRefusal> {
        let bytes = self.rules.check(message, self.now)?;
        if !{ self.batches.last() }.is_some_and(|open| open.takes(&self.topic, bytes)) {
            let topic = Arc::clone(&self.topic);
            self.batches
                .push(OpenBatch::new(topic, bytes, self.store_bytes_max));
        }
        let open = self.batches.last_mut().expect("there is one now");
        open.push(self.partition, message, self.now)?;
        (self.bytes, self.count) = (self.bytes + bytes, self.count + 1);
        Ok(())
    }

    /// How many bytes the messages take, about.
    pub(in crate::broker) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many messages.
    pub(in crate::broker) fn len(&self) -> usize {
        self.count
    }

    /// Encodes them; None if there are none. Errors: a codec made some longer than the topic takes.
    pub(in crate::broker) async fn encoded(self) -> Result<Option<LogAppend>, PublishRefusal> {
        if self.batches.is_empty() {
            return Ok(None);
        }
        let bytes = self.batches.iter().map(OpenBatch::compressed_bytes).sum();
        encode_fitly(bytes, move || self.encode()).await.map(Some)
    }

    /// The same here and now.
    pub(super) fn encode(self) -> Result<LogAppend, PublishRefusal> {
        let mut batches = Vec::with_capacity(self.batches.len());
        for open in self.batches {
            let encoded = open.encode(self.now);
            let encoded = encoded.ok_or_else(|| too_long(&self.topic.config))?;
            batches.push(AppendBatch::from(encoded.batch));
        }
        let log = Arc::clone(self.topic.log(self.partition)?);
        Ok(LogAppend { log, batches })
    }
}

impl Ready {
    /// Appends it all; where the message went, and that it is on its way. Never waits.
    pub(in crate::broker) fn append(
        self,
        broker: &Broker,
    ) -> Result<(Publishing, Offset), PublishRefusal> {
        let appended = broker.storage().append_all(&self.group, self.admission);
        let appended = appended.map_err(|error| {
            broker.shared.refused.fetch_add(1, Relaxed);
            refusal_of(error)
        })?;
        self.topic.traffic.appended(1, self.bytes);
        let base = appended.offsets[0].start;
        let publishing = self.promise.publishing(self.partition, 0);
        let promise = self.promise;
        // Its end is the store's, which decides every append.
        tokio::spawn(async move {
            let outcome = decided(appended.durable).await;
            promise.keep(outcome.map(|()| base));
        });
        Ok((publishing, base))
    }
}
