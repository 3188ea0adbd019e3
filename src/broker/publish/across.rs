//! Messages for several topics as batches that somebody appends together, with something else.
//!
//! Callers: transactions. Such messages join no open batch: behind those that were published before by the same caller they keep their
//! order if those are durable. What they take at most is what one frame takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use model::{Offset, PartitionId, TopicId};
use storage::LogAppend;
use tokio::sync::OwnedSemaphorePermit;

use super::batch::encode_fitly;
use super::beside::Gathering;
use super::message::Outgoing;
use super::outcome::{Promise, Publishing};
use super::place::{partition_of, publishable};
use super::refusal::PublishRefusal;
use crate::broker::Broker;
use crate::broker::access::{Granted, right};
use crate::broker::catalog::Topic;

/// Messages for a topic, in their order.
pub type OfTopic<'a> = (Granted<Arc<Topic>, right::Write>, Vec<Outgoing<'a>>);

/// Batches that are encoded, by log.
pub(in crate::broker) struct Across {
    pub(in crate::broker) appends: Vec<LogAppend>,
    /// How many records and bytes each topic gets.
    counts: Vec<(Arc<Topic>, u64, u64)>,
    _permit: OwnedSemaphorePermit,
}

impl Broker {
    /// Checks messages and encodes them. Errors: one that its topic does not take; nothing is to be written then.
    pub(in crate::broker) async fn encode_across(
        &self,
        all: &[OfTopic<'_>],
    ) -> Result<Across, PublishRefusal> {
        let now = self.now();
        let store_bytes_max = self.storage().batch_bytes_max();
        let mut filled: BTreeMap<(TopicId, PartitionId), Gathering> = BTreeMap::new();
        let (mut held, bytes_max) = (0_u64, self.together_bytes_max());
        for (topic, outgoing) in all {
            let topic = publishable(self, topic)?;
            for outgoing in outgoing {
                let partition = partition_of(&topic, outgoing)?;
                let gathering = filled.entry((topic.id, partition)).or_insert_with(|| {
                    Gathering::new(Arc::clone(&topic), partition, now, store_bytes_max)
                });
                let before = gathering.bytes();
                gathering.push(&outgoing.message)?;
                held = held.saturating_add((gathering.bytes() - before) as u64);
                if held > bytes_max {
                    let bytes = held;
                    return Err(PublishRefusal::TooMuch { bytes, bytes_max });
                }
            }
            if outgoing.iter().any(Outgoing::is_keyless) {
                topic.keyless.go_on();
            }
        }
        let held = usize::try_from(held).expect("it was compared just now");
        let permit = self.shared.lanes.admit(held).await;
        let encode = move || -> Result<(Vec<LogAppend>, Vec<_>), PublishRefusal> {
            let (mut appends, mut counts) = (Vec::new(), Vec::new());
            for gathering in filled.into_values() {
                let (topic, records) = (Arc::clone(gathering.topic()), gathering.len() as u64);
                let append = gathering.encode()?;
                let bytes = LogAppend::size_of(std::slice::from_ref(&append)).bytes;
                counts.push((topic, records, bytes));
                appends.push(append);
            }
            Ok((appends, counts))
        };
        let (appends, counts) = encode_fitly(held, encode).await?;
        Ok(Across {
            appends,
            counts,
            _permit: permit,
        })
    }
}

impl Across {
    /// They are appended.
    pub(in crate::broker) fn appended(self) {
        for (topic, records, bytes) in &self.counts {
            topic.traffic.appended(*records, *bytes);
        }
    }

    /// They are refused.
    pub(in crate::broker) fn refused(self, broker: &Broker) {
        if !self.counts.is_empty() {
            broker.shared.refused.fetch_add(1, Relaxed);
        }
    }
}

/// Stands for all that becomes durable together.
pub(in crate::broker) fn promised(
    durable: impl Future<Output = Result<(), PublishRefusal>> + Send + 'static,
) -> Publishing {
    let promise = Promise::default();
    let publishing = promise.publishing(PartitionId::new(0), 0);
    tokio::spawn(async move { promise.keep(durable.await.map(|()| Offset::ZERO)) });
    publishing
}
