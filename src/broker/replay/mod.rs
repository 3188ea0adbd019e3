//! The door out for records: a range of a topic as decoded records, filtered by key, time and anything else.
//! Callers: fronts. They say what they want in a [`ReplayRequest`] and get a [`Replay`], which gives blocks of records.
//! Invariants: a time range is exact by the records' own timestamps in every partition, whatever their order. What is missing is
//! told: [`Replay::gaps`], and the offsets that cleanup took are counted. A replay holds a bounded amount of memory, however large
//! the range is, and while nobody asks it for more no file is open because of it.

mod block;
mod downsampled;
mod merge;
mod reader;
mod readers;
mod reading;
mod request;
mod subscription;

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{Offset, PartitionId, Timestamp};

pub use block::{Block, ReplayRecord};
pub use downsampled::{
    DownsampleRefusal, DownsampleRequest, Downsampled, DownsampledWindow, Sources, Stats, WindowKey,
};
pub use merge::TIME_ORDER_BYTES;
pub(super) use readers::Readers;
pub(super) use reading::Reading;
pub use request::{
    Accept, Filter, Gap, GapReason, KeyFilter, Order, Place, ReplayError, ReplayRequest, Scanned,
};
pub use subscription::{Event, FollowRequest, ReadTo, Resume, Subscription};

use super::access::{Caller, Granted, right};
use super::open_readers::ReaderName;
use super::{Broker, Topic};
use merge::Merge;
use reader::{Found, Reader, Sizes, Step};

/// Gaps that a replay remembers; of further ones it says that there are more.
const GAPS_MAX: usize = 1_000;

/// A range of a topic that is being read. See [`Broker::replay`].
pub struct Replay {
    broker: Broker,
    /// In the order in which they are read.
    readers: Vec<Reader>,
    /// Where each of them ends.
    ends: Vec<(PartitionId, Offset)>,
    /// How many of them are at their end.
    ended: usize,
    by_time: Option<ByTime>,
    /// Where the first record of a partition is that was read and not shown, because no more were wanted.
    cut: Option<(PartitionId, Offset)>,
    records_left: u64,
    /// Whether steps are made before they are asked for: where all of them will be.
    goes_ahead: bool,
    gaps: Vec<Gap>,
    more_gaps: u64,
}

/// What an order by time takes.
#[derive(Default)]
struct ByTime {
    merge: Merge,
    /// For each reader that is not at its end, the latest time that came of it.
    reached: Vec<Option<Timestamp>>,
    is_ended: Vec<bool>,
}

impl ByTime {
    /// The partition to read on in, until enough is held of all.
    fn next_reader(&self) -> Option<usize> {
        if self.merge.is_full() {
            return None;
        }
        let open = (0..self.reached.len()).filter(|reader| !self.is_ended[*reader]);
        open.min_by_key(|reader| self.reached[*reader])
    }
}

impl Broker {
    /// Begins to read a range of a topic. What is appended later is not in it.
    /// Errors: `NoPartition` for one that the topic does not have.
    pub async fn replay(
        &self,
        topic: &Granted<Arc<Topic>, right::Read>,
        request: ReplayRequest,
    ) -> Result<Replay, ReplayError> {
        let from_time = request.from.time();
        let to_time = request.to.and_then(Place::time);
        let filter = request.filter.within(from_time, to_time);
        let sizes = match (request.order, request.max_records) {
            (Order::Offset, None) => Sizes::WHOLE,
            _ => Sizes::RANGE,
        };
        let goes_ahead = request.order == Order::Offset && request.max_records.is_none();
        let mut readers = Vec::new();
        let mut ends = Vec::new();
        for partition in partitions_of(topic, request.partitions)? {
            let log = topic.log(partition)?;
            let bounds = log.bounds();
            let resumed = request.resume.iter().find(|(of, _)| *of == partition);
            let start = match resumed {
                Some((_, offset)) => *offset,
                None => request.from.offset(&bounds).unwrap_or(bounds.start),
            };
            let end = request.to.and_then(|to| to.offset(&bounds));
            let end = end.map_or(bounds.durable_end, |end| end.min(bounds.durable_end));
            let offsets = start..end.max(start);
            ends.push((partition, offsets.end));
            readers.push(Reader::new(partition, log, offsets, filter.clone(), sizes));
        }
        let by_time = (request.order == Order::Time).then(|| ByTime {
            reached: vec![None; readers.len()],
            is_ended: vec![false; readers.len()],
            ..ByTime::default()
        });
        Ok(Replay {
            broker: self.clone(),
            readers,
            ends,
            ended: 0,
            by_time,
            cut: None,
            records_left: request.max_records.unwrap_or(u64::MAX),
            goes_ahead,
            gaps: Vec::new(),
            more_gaps: 0,
        })
    }
}

/// The partitions that are asked for, each once, in their order.
fn partitions_of(
    topic: &Topic,
    wanted: Option<Vec<PartitionId>>,
) -> Result<Vec<PartitionId>, ReplayError> {
    let Some(wanted) = wanted else {
        return Ok(topic.partitions().collect());
    };
    let unknown = wanted.iter().find(|partition| !topic.has(**partition));
    if let Some(partition) = unknown {
        let partition = *partition;
        return Err(ReplayError::NoPartition { partition });
    }
    Ok(BTreeSet::from_iter(wanted).into_iter().collect())
}

impl Replay {
    /// The next records; None at the end. A call that is given up loses nothing.
    pub async fn next(&mut self) -> Result<Option<Block>, ReplayError> {
        if self.records_left == 0 {
            return Ok(None);
        }
        let block = match &self.by_time {
            None => self.next_by_offset().await?,
            Some(_) => self.next_by_time().await?,
        };
        if let Some(block) = &block {
            self.records_left -= block.len() as u64;
        }
        Ok(block)
    }

    async fn next_by_offset(&mut self) -> Result<Option<Block>, ReplayError> {
        while self.ended < self.readers.len() {
            match self.step_by_offset().await? {
                Found::Records(mut block) => {
                    if block.len() as u64 > self.records_left {
                        let count = usize::try_from(self.records_left);
                        block.truncate(count.expect("it is less than a block's length"));
                        let last = block.last_offset().expect("at least one was left");
                        let partition = self.readers[self.ended].partition();
                        self.cut = Some((partition, last.plus(1)));
                    }
                    return Ok(Some(block));
                }
                Found::Gap(gap) => self.note_gap(gap),
                Found::Nothing => {}
                Found::End => self.ended += 1,
            }
        }
        Ok(None)
    }

    /// A step of the partition whose turn it is. All of a range is read: while a step waits for the disk, the next partition's
    /// first one is made, and the step after this while its records are worked on.
    async fn step_by_offset(&mut self) -> Result<Found, ReplayError> {
        let (broker, at) = (&self.broker, self.ended);
        if let Some(step) = self.readers[at].step_now(broker) {
            return step.map(|step| step.found);
        }
        if self.goes_ahead
            && let Some(next) = self.readers.get_mut(at + 1)
        {
            next.go_ahead(broker);
        }
        let found = self.step(at).await?;
        if self.goes_ahead && !matches!(found, Found::End) {
            self.readers[at].go_ahead(&self.broker);
        }
        Ok(found)
    }

    async fn next_by_time(&mut self) -> Result<Option<Block>, ReplayError> {
        while let Some(reader) = self.by_time.as_ref().and_then(ByTime::next_reader) {
            let found = self.step(reader).await?;
            let by_time = self.by_time.as_mut().expect("its order is by time");
            match found {
                Found::Records(block) => {
                    let latest = by_time.merge.push(block);
                    by_time.reached[reader] = by_time.reached[reader].max(latest);
                }
                Found::Gap(gap) => self.note_gap(gap),
                Found::Nothing => {}
                Found::End => by_time.is_ended[reader] = true,
            }
        }
        let by_time = self.by_time.as_mut().expect("its order is by time");
        let block = by_time.merge.pop(self.records_left);
        Ok((!block.is_empty()).then_some(block))
    }

    async fn step(&mut self, reader: usize) -> Result<Found, ReplayError> {
        // What cleanup has taken is counted.
        let Step { found, cleaned: _ } = self.readers[reader].step(&self.broker).await?;
        Ok(found)
    }

    fn note_gap(&mut self, gap: Gap) {
        match self.gaps.len() < GAPS_MAX {
            true => self.gaps.push(gap),
            false => self.more_gaps += 1,
        }
    }

    /// Says for whom it reads: who is overtaken by a removal is in the loss ledger.
    pub fn open_as(&mut self, topic: &Topic, caller: &Caller) {
        let who = ReaderName::of(caller);
        for reader in &mut self.readers {
            let log = topic.log_id(reader.partition());
            reader.open_as(&self.broker, &who, log);
        }
    }

    /// How much was looked at so far.
    pub fn scanned(&self) -> Scanned {
        let mut all = Scanned::default();
        for reader in &self.readers {
            all += reader.scanned();
        }
        all.late = self
            .by_time
            .as_ref()
            .map_or(0, |by_time| by_time.merge.late());
        all
    }

    /// Where its range ends in each partition: what [`Replay::next_offsets`] tells once all of it was read.
    pub fn ends(&self) -> Vec<(PartitionId, Offset)> {
        self.ends.clone()
    }

    /// Where to go on in each partition: the first offset that was neither shown nor passed over. In the order of offsets, a
    /// replay that resumes here shows exactly what this one did not. In the order of time, what lies behind these offsets may
    /// have been shown already, if this replay ended at `max_records`.
    pub fn next_offsets(&self) -> Vec<(PartitionId, Offset)> {
        let waiting = self
            .by_time
            .as_ref()
            .map(|by_time| by_time.merge.first_waiting());
        let of = |reader: &Reader| {
            let partition = reader.partition();
            let waiting = waiting.as_ref().and_then(|waiting| waiting.get(&partition));
            let cut = self.cut.filter(|(of, _)| *of == partition);
            let cut = cut.map(|(_, offset)| offset).or(waiting.copied());
            (partition, cut.unwrap_or_else(|| reader.next_offset()))
        };
        self.readers.iter().map(of).collect()
    }

    /// Offsets of the range that have no records to show any more, as they were come upon so far: the first ones, and how many
    /// more there were. What compaction, thinning and erasures took within the log is not among them, but counted in
    /// [`Replay::scanned`].
    pub fn gaps(&self) -> (&[Gap], u64) {
        (&self.gaps, self.more_gaps)
    }
}

#[cfg(test)]
mod following;
#[cfg(test)]
mod tests;
