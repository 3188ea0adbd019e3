//! A message that becomes durable in one frame with changes of the broker's own state: both, or neither.
//! Callers: the parts of the broker that keep state about messages. Such a message joins no open batch: behind those that were
//! published before by the same caller it keeps its order if those are durable.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use model::{Offset, PartitionId};
use storage::{Admission, AppendBatch, LogAppend, Purpose};
use tokio::sync::OwnedSemaphorePermit;

use super::batch::{Encoded, OpenBatch, too_long};
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
