//! How far consumer groups are behind, in records and in time.
//! Callers: the HTTP front's metrics. Looks into the batch that a group reads next, so it may need the disk: it runs on the
//! blocking pool.

use std::time::Duration;

use bytes::Bytes;
use model::batch::{Batch, DecompressLimit};
use model::{Offset, PartitionId, Timestamp, TopicName};
use storage::Log;

use super::Broker;
use super::groups::CommittedOffset;

/// How far one group is behind in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLag {
    /// The group's id.
    pub group: String,
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// The next record to read.
    pub committed: Offset,
    /// Records that are still to be read; those that retention took are not among them.
    pub records: u64,
    /// The age of the next record to be read, by its timestamp; zero if there is none. None if it cannot be read.
    pub age: Option<Duration>,
}

/// How far all groups are behind: some of them each for itself, the others summed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupLags {
    /// The first ones by group, topic and partition.
    pub single: Vec<GroupLag>,
    /// How many others there are.
    pub other_count: usize,
    /// The sum of the others' committed offsets.
    pub other_committed: u64,
    /// The sum of the records that the others have still to read.
    pub other_records: u64,
}

/// Offsets that are copied out of a group at a time.
const PAGE: usize = 1000;

impl Broker {
    /// The lag of every group in every partition where it has a durable offset, the first `single_max` each for itself.
    /// Blocks.
    pub fn group_lags(&self, single_max: usize) -> GroupLags {
        let now = self.storage().clock().now();
        let mut lags = GroupLags::default();
        for group in self.groups().list() {
            let mut after = None;
            loop {
                let page = self.groups().fetch_after(&group.id, after.take(), PAGE);
                let Some((topic, partition, _)) = page.last() else {
                    break;
                };
                after = Some((topic.clone(), *partition));
                self.lags_of(&group.id, page, single_max, now, &mut lags);
            }
        }
        lags
    }

    fn lags_of(
        &self,
        group: &str,
        offsets: Vec<(TopicName, PartitionId, CommittedOffset)>,
        single_max: usize,
        now: Timestamp,
        lags: &mut GroupLags,
    ) {
        for (topic, partition, offset) in offsets {
            let Some(committed) = offset.offset else {
                continue;
            };
            // Offsets of a topic that is gone, or that came again under its name, tell nothing.
            let known = self.topic(topic.as_str());
            let Some(known) = known.ok().filter(|known| known.id == offset.topic_id) else {
                continue;
            };
            let Ok(log) = known.log(partition.to_wire()) else {
                continue;
            };
            let bounds = log.bounds();
            let next = committed.max(bounds.start);
            let records = bounds.durable_end.get().saturating_sub(next.get());
            if lags.single.len() == single_max {
                lags.other_count += 1;
                lags.other_committed = lags.other_committed.saturating_add(committed.get());
                lags.other_records = lags.other_records.saturating_add(records);
                continue;
            }
            let age = match records {
                0 => Some(Duration::ZERO),
                _ => time_of(log, next).map(|time| since(time, now)),
            };
            lags.single.push(GroupLag {
                group: group.to_owned(),
                topic,
                partition,
                committed,
                records,
                age,
            });
        }
    }
}

fn since(time: Timestamp, now: Timestamp) -> Duration {
    let millis = now.millis().saturating_sub(time.millis());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// The timestamp of the record at `offset`, or of the next one after it in its batch.
fn time_of(log: &Log, offset: Offset) -> Option<Timestamp> {
    let chunk = log.read_copy(offset, 1).ok()?;
    let bytes: Bytes = chunk.slices.into_iter().next()?;
    let batch = model::batch::split(bytes).next()?.ok()?;
    record_time(&batch, offset)
}

fn record_time(batch: &Batch, offset: Offset) -> Option<Timestamp> {
    let header = batch.header();
    if offset <= header.base() {
        return Some(Timestamp::from_millis(header.base_timestamp));
    }
    let mut records = batch.records(DecompressLimit::default()).ok()?;
    while let Some(record) = records.next_ref() {
        let record = record.ok()?;
        if record.offset >= offset {
            return Some(record.timestamp);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use model::batch::{BatchBuilder, Codec};

    use super::*;

    #[test]
    fn the_time_is_the_records_own_also_inside_a_compressed_batch() {
        for codec in [Codec::None, Codec::Zstd] {
            let mut builder = BatchBuilder::new(codec);
            builder.base_offset(Offset::new(10));
            for millis in [500, 300, 900] {
                builder
                    .push(Timestamp::from_millis(millis), None, Some(b"v"), &[])
                    .unwrap();
            }
            let batch = Batch::parse(builder.build().unwrap()).unwrap();
            let times: Vec<_> = (9..=13)
                .map(|offset| record_time(&batch, Offset::new(offset)).map(|time| time.millis()))
                .collect();
            assert_eq!(
                times,
                [Some(500), Some(500), Some(300), Some(900), None],
                "{codec:?}"
            );
        }
    }

    #[test]
    fn a_record_from_the_future_has_no_age() {
        let (early, late) = (Timestamp::from_millis(1_000), Timestamp::from_millis(4_000));
        assert_eq!(since(late, early), Duration::ZERO);
        assert_eq!(since(early, late), Duration::from_secs(3));
    }
}
