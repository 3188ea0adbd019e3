//! Publishing all or nothing: messages that become durable in one frame of the write-ahead log, over any partitions.
//!
//! Callers: fronts, for bodies of which nothing may be written if some of it cannot be. Such messages do not join open batches;
//! behind those that were published before by the same caller and are durable they keep their order. What they take at most is
//! what one frame takes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use model::{Offset, PartitionId};
use storage::{
    AppendAllError, AppendBatch, AppendSize, AppendedAll, Durable, LogAppend, Purpose, ToldLog,
};

use super::batch::{Encoded, OpenBatch, encode_fitly, too_long};
use super::message::{Outgoing, Rules};
use super::outcome::Publishing;
use super::place::{partition_of, publishable};
use super::refusal::PublishRefusal;
use crate::broker::access::{Granted, right};
use crate::broker::catalog::Topic;
use crate::broker::once::OnceTicket;
use crate::broker::refusal::StorageFault;
use crate::broker::{Broker, Refusal, state_refusal};

/// What is published together at most, whatever a frame takes: memory that one call holds.
const BYTES_MAX: u64 = 16 << 20;

/// What the counts of an answer may be longer than those of the answer by which its size is told, for each of them.
const COUNTS_BYTES: u64 = 32;

/// What became of messages that were to be published together.
#[derive(Debug)]
pub enum Together {
    /// Nothing is written, because of these, by their places.
    Refused(Vec<(usize, PublishRefusal)>),
    /// All are on their way, in one frame. In the order of the call.
    Publishing(Vec<Publishing>),
}

/// Batches by partition, and where each message went.
struct Filled {
    batches: BTreeMap<PartitionId, Vec<OpenBatch>>,
    publishing: Vec<Publishing>,
}

/// Where a partition's records went.
pub type Placed = (PartitionId, Range<Offset>);

/// A request that is to be done once, and how it is answered: where each partition's records went, in words of whoever asks. It
/// is asked for the answer under locks, and waits for nothing.
pub struct DoneOnce<'a> {
    /// The request.
    pub ticket: OnceTicket,
    /// Its answer. For other offsets than those that are largest it is no longer.
    pub answer: &'a (dyn Fn(&[Placed]) -> String + Sync),
}

impl Broker {
    /// Bytes that messages may have which are published together, as [`PublishRefusal::TooMuch`] counts them.
    pub fn together_bytes_max(&self) -> u64 {
        // Their batches' headers and the frame's own are small against the half.
        BYTES_MAX.min(self.storage().batch_bytes_max() / 2)
    }

    /// The messages that the topic does not take now, by their places. Errors: what concerns all of them.
    pub fn refusals(
        &self,
        topic: &Granted<Arc<Topic>, right::Write>,
        outgoing: &[Outgoing<'_>],
    ) -> Result<Vec<(usize, PublishRefusal)>, PublishRefusal> {
        let topic = publishable(self, topic)?;
        let now = self.now();
        let rules = Rules::of(&topic.config, now, self.storage().batch_bytes_max());
        let refusals = outgoing.iter().enumerate().filter_map(|(index, outgoing)| {
            let checked =
                partition_of(&topic, outgoing).and_then(|_| rules.check(&outgoing.message, now));
            checked.err().map(|refusal| (index, refusal))
        });
        Ok(refusals.collect())
    }

    /// Publishes messages together: all of them are durable at once, or none is ever seen; with `once`, the same holds of the
    /// request being known as done. Errors: what concerns all of them.
    pub async fn publish_together(
        &self,
        topic: &Granted<Arc<Topic>, right::Write>,
        outgoing: &[Outgoing<'_>],
        once: Option<DoneOnce<'_>>,
    ) -> Result<Together, PublishRefusal> {
        let topic = publishable(self, topic)?;
        let now = self.now();
        let rules = Rules::of(&topic.config, now, self.storage().batch_bytes_max());
        let (mut refusals, mut bytes) = (Vec::new(), 0u64);
        let mut places = Vec::with_capacity(outgoing.len());
        for (index, outgoing) in outgoing.iter().enumerate() {
            let checked = partition_of(&topic, outgoing).and_then(|partition| {
                let bytes = rules.check(&outgoing.message, now)?;
                Ok((partition, bytes))
            });
            match checked {
                Ok(place) => {
                    bytes = bytes.saturating_add(place.1 as u64);
                    places.push(place);
                }
                Err(refusal) => refusals.push((index, refusal)),
            }
        }
        if !refusals.is_empty() {
            return Ok(Together::Refused(refusals));
        }
        let bytes_max = self.together_bytes_max();
        if bytes > bytes_max {
            return Err(PublishRefusal::TooMuch { bytes, bytes_max });
        }
        if places.is_empty() {
            return Ok(Together::Publishing(Vec::new()));
        }
        let held = usize::try_from(bytes).expect("it was compared just now");
        let _permit = self.shared.lanes.admit(held).await;
        let mut filled = Filled {
            batches: BTreeMap::new(),
            publishing: Vec::with_capacity(outgoing.len()),
        };
        for (outgoing, (partition, bytes)) in outgoing.iter().zip(places) {
            let open = filled.batches.entry(partition).or_default();
            if !open.last().is_some_and(|open| open.takes(&topic, bytes)) {
                let store_bytes_max = self.storage().batch_bytes_max();
                open.push(OpenBatch::new(Arc::clone(&topic), bytes, store_bytes_max));
            }
            let open = open.last_mut().expect("there is one now");
            let publishing = open.push(partition, &outgoing.message, now)?;
            filled.publishing.push(publishing);
        }
        if outgoing.iter().any(Outgoing::is_keyless) {
            topic.keyless.go_on();
        }
        self.append_together(&topic, filled.batches, once).await?;
        Ok(Together::Publishing(filled.publishing))
    }

    /// Appends the group as one frame, and with it that the request was done.
    async fn append_group(
        &self,
        group: &[LogAppend],
        partitions: &[PartitionId],
        once: Option<DoneOnce<'_>>,
    ) -> Result<(AppendedAll, Option<(OnceTicket, String)>), PublishRefusal> {
        let mut size = LogAppend::size_of(group);
        if let Some(once) = &once {
            // No answer is longer than that for the largest offsets, but for its counts of records.
            let largest = vec![Offset::MAX..Offset::MAX; partitions.len()];
            let (batches, _) = said(self, once, partitions, &largest)?;
            let told = AppendSize::of(&batches);
            size.batches += told.batches;
            size.bytes += told.bytes + COUNTS_BYTES * (partitions.len() as u64 + 1);
        }
        if !self.storage().takes_all(size) {
            let (bytes, bytes_max) = (size.bytes, self.together_bytes_max());
            return Err(PublishRefusal::TooMuch { bytes, bytes_max });
        }
        let admission = self.storage().admit_all(size, Purpose::Records).await;
        let refused = |error| {
            self.shared.refused.fetch_add(1, Relaxed);
            refusal_of(error)
        };
        let Some(once) = once else {
            let appended = self.storage().append_all(group, admission);
            return Ok((appended.map_err(refused)?, None));
        };
        let mut answered = String::new();
        let told = ToldLog {
            log: Arc::clone(self.shared.onces.log()),
            batches: |offsets: &[Range<Offset>]| {
                let said = said(self, &once, partitions, offsets);
                let (batches, answer) = said.expect("it was encoded before, and was longer");
                answered = answer;
                batches
            },
        };
        let appended = self.storage().append_all_telling(group, told, admission);
        let appended = appended.map_err(refused)?;
        Ok((appended, Some((once.ticket, answered))))
    }

    async fn append_together(
        &self,
        topic: &Arc<Topic>,
        batches: BTreeMap<PartitionId, Vec<OpenBatch>>,
        once: Option<DoneOnce<'_>>,
    ) -> Result<(), PublishRefusal> {
        let now = self.now();
        let bytes = batches.values().flatten().map(OpenBatch::plain_bytes).sum();
        let encode = move || -> Option<Vec<(PartitionId, Vec<Encoded>)>> {
            let encoded = batches.into_iter().map(|(partition, batches)| {
                let encoded = batches.into_iter().map(|batch| batch.encode(now));
                Some((partition, encoded.collect::<Option<Vec<_>>>()?))
            });
            encoded.collect()
        };
        let encoded = encode_fitly(bytes, encode).await;
        let encoded = encoded.ok_or_else(|| too_long(&topic.config))?;
        let (mut group, mut promises, mut partitions) = (Vec::new(), Vec::new(), Vec::new());
        let (mut records, mut bytes) = (0, 0);
        for (partition, encoded) in encoded {
            let log = Arc::clone(topic.log(partition)?);
            let mut batches = Vec::with_capacity(encoded.len());
            let mut of_log = Vec::with_capacity(encoded.len());
            for encoded in encoded {
                let header = encoded.batch.header();
                records += u64::try_from(header.record_count).unwrap_or(0);
                bytes += encoded.batch.bytes().len() as u64;
                of_log.push((header.offset_count(), encoded.promise));
                batches.push(AppendBatch::from(encoded.batch));
            }
            group.push(LogAppend { log, batches });
            promises.push(of_log);
            partitions.push(partition);
        }
        let (appended, done) = self.append_group(&group, &partitions, once).await?;
        topic.traffic.appended(records, bytes);
        // Its end is the store's, which decides every append.
        let promises = appended.offsets.into_iter().zip(promises);
        let promises = promises.collect::<Vec<_>>();
        tokio::spawn(async move {
            let outcome = decided(appended.durable).await;
            if let (Ok(()), Some((ticket, answer))) = (&outcome, done) {
                ticket.end(answer);
            }
            for (offsets, of_log) in promises {
                let mut base = offsets.start;
                for (count, promise) in of_log {
                    promise.keep(outcome.clone().map(|()| base));
                    base = base.plus(count);
                }
                assert!(base == offsets.end, "the batches' offsets add up");
            }
        });
        Ok(())
    }
}

/// The batches that say that the request was done, and its answer, if its records went there.
fn said(
    broker: &Broker,
    once: &DoneOnce<'_>,
    partitions: &[PartitionId],
    offsets: &[Range<Offset>],
) -> Result<(Vec<AppendBatch>, String), PublishRefusal> {
    let ranges = partitions.iter().copied().zip(offsets.iter().cloned());
    let answer = (once.answer)(&ranges.collect::<Vec<_>>());
    let batches = broker.shared.onces.batches(&once.ticket, answer.clone());
    let batches = batches.map_err(state_refusal)?;
    Ok((batches, answer))
}

pub(super) async fn decided(durable: Durable) -> Result<(), PublishRefusal> {
    let outcome = durable.await.map_err(StorageFault::Sync);
    outcome.map_err(|fault| Refusal::from(fault).into())
}

pub(super) fn refusal_of(error: AppendAllError) -> PublishRefusal {
    match error {
        AppendAllError::Refused(error) | AppendAllError::Log { source: error, .. } => error.into(),
        AppendAllError::Twice { .. } => unreachable!("each partition is named once"),
        AppendAllError::Duplicate { .. } => unreachable!("the batches have no producer"),
    }
}
