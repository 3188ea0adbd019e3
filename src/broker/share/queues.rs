//! How a group is with a topic that it shares: what is to be had, what is held and by whom, what is done.
//! Callers: fronts that show it to operators, by way of the door. Nothing is changed.

use std::ops::Range;
use std::sync::Arc;

use model::{Offset, PartitionId, Timestamp};
use storage::Log;

use super::ShareError;
use super::coordinator::Shown;
use super::partition::Counts;
use super::record::Place;
use crate::broker::access::{Granted, Group, right};
use crate::broker::replay::Reading;
use crate::broker::{Broker, Topic};

/// Steps that are taken to find a record's time: compaction may have taken many behind each other.
const STEPS_MAX: usize = 16;

/// A topic as a group shares it.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Its partitions that the group has begun with.
    pub partitions: Vec<QueuePartition>,
    /// The topic that gets the group's dead letters.
    pub dead_letter_topic: Option<String>,
}

/// A partition of it.
#[derive(Clone, Debug)]
pub struct QueuePartition {
    /// Which.
    pub partition: PartitionId,
    /// Where the log begins and ends.
    pub bounds: Range<Offset>,
    /// All before it is finished.
    pub start: Offset,
    /// How many records are in which state.
    pub counts: Counts,
    /// The time of the first record that is not finished; None if there is none, or it cannot be read.
    pub oldest: Option<Timestamp>,
    /// Who holds how many records.
    pub holders: Vec<(Arc<str>, u64)>,
}

impl Queue {
    /// The counts of all partitions.
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for Counts {
            available,
            held,
            archiving,
            finished,
        } in self.partitions.iter().map(|it| it.counts)
        {
            sum.available += available;
            sum.held += held;
            sum.archiving += archiving;
            sum.finished += finished;
        }
        sum
    }

    /// The time of the oldest record that is not finished.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.partitions.iter().filter_map(|it| it.oldest).min()
    }
}

impl Broker {
    /// How a group is with a topic.
    /// Errors: `NotFound` if it is no group that shares records, or has not begun with the topic.
    pub async fn queue(
        &self,
        group: &Granted<Group<'_>, right::Describe>,
        topic: &Granted<Arc<Topic>, right::Describe>,
    ) -> Result<Queue, ShareError> {
        let shares = self.shares();
        let mut partitions = Vec::new();
        for partition in topic.partitions() {
            let place = Place {
                topic: topic.id,
                partition,
            };
            let Ok(log) = topic.log(partition) else {
                continue;
            };
            let bounds = log.bounds();
            let bounds = bounds.start..bounds.durable_end;
            let Some(shown) = shares.look(group.id(), place, bounds.clone()) else {
                continue;
            };
            let Shown {
                start,
                counts,
                first,
                holders,
            } = shown;
            let oldest = match first {
                Some(first) => time_of(self, (partition, log), first..bounds.end).await,
                None => None,
            };
            partitions.push(QueuePartition {
                partition,
                bounds,
                start,
                counts,
                oldest,
                holders,
            });
        }
        match partitions.is_empty() {
            true => Err(ShareError::NotFound),
            false => Ok(Queue {
                partitions,
                dead_letter_topic: shares.dead_letter_topic(group.id()),
            }),
        }
    }
}

/// The time of the first record of a range.
async fn time_of(
    broker: &Broker,
    of: (PartitionId, &Log),
    range: Range<Offset>,
) -> Option<Timestamp> {
    let mut reading = Reading::within(of, range);
    for _ in 0..STEPS_MAX {
        let before = reading.next_offset();
        let block = reading.read(broker).await.ok()?;
        if let Some(first) = block.get(0) {
            return Some(first.record.timestamp);
        }
        if reading.next_offset() == before {
            return None;
        }
    }
    None
}
