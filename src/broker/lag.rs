//! How far consumer groups are behind, in records and in time.
//! Callers: the HTTP front's metrics and its groups. Time needs the record that a group reads next, which may have to come from the disk: it
//! is looked up beforehand by [`Broker::look_up_lag_times`], which gives up waiting, and remembered, as a record's times do
//! not change. All else here never waits for the disk.

mod times;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use model::batch::{Batch, BatchError, DecompressLimit};
use model::{Offset, PartitionId, Timestamp, TopicName};
use storage::Log;

use super::Broker;
use super::access::{Cluster, Granted, Group, right};
use super::groups::{CommittedOffset, CommittedPlace};
use super::stored::each_batch;
pub(super) use times::LagTimes;
use times::RecordTimes;

/// How far one group is behind in one partition.
#[derive(Debug, Clone)]
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
    /// For how long the next record to be read has been here; zero if there is none. None if that is not known.
    pub age: Option<Duration>,
    /// Its age by its own timestamp, which is the device's.
    pub event_age: Option<Duration>,
    /// The partition's log.
    log: Arc<Log>,
    /// Where the next record is, if there is one.
    next: Option<Offset>,
}

/// How far all groups are behind: some of them each for itself, the others summed.
#[derive(Debug, Clone, Default)]
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
    /// Looks up the times of the records that groups read next, as far as they are not known. Returns when that is done, or
    /// after `at_most`: then it goes on, and the next call finds more. Only the first `single_max` groups and partitions are looked at.
    pub async fn look_up_lag_times(
        &self,
        _cluster: &Granted<Cluster, right::Describe>,
        single_max: usize,
        at_most: Duration,
    ) {
        let broker = self.clone();
        let looking = self.shared.lag_times.looking.clone();
        let done = async {
            let one_at_a_time = looking.lock_owned().await;
            let work = move || {
                broker.look_up(single_max);
                drop(one_at_a_time);
            };
            tokio::task::spawn_blocking(work).await
        };
        if let Ok(Err(error)) = tokio::time::timeout(at_most, done).await {
            tracing::error!(%error, "looking up how far groups are behind");
        }
    }

    /// How far one group is behind in these topics, in the first `single_max` of their partitions each for itself. Times that are not known are
    /// looked up, as far as that takes no longer than `at_most`.
    pub async fn group_lag(
        &self,
        group: &Granted<Group<'_>, right::Describe>,
        is_wanted: impl Fn(&TopicName) -> bool,
        single_max: usize,
        at_most: Duration,
    ) -> GroupLags {
        let lags = self.lag_of(group.id(), &is_wanted, single_max);
        let unknown = lags.single.iter().filter(|lag| lag.age.is_none());
        let unknown: Vec<_> = unknown
            .filter_map(|lag| Some((lag.log.clone(), lag.next?)))
            .collect();
        if unknown.is_empty() {
            return lags;
        }
        let broker = self.clone();
        let looked = self.shared.inflation.run_any(move || {
            for (log, next) in unknown {
                if let Some(found) = times_of(&log, next) {
                    let mut known = broker.shared.lag_times.known();
                    known.insert((log.id(), next), found);
                }
            }
        });
        match tokio::time::timeout(at_most, looked).await {
            Ok(()) => self.lag_of(group.id(), &is_wanted, single_max),
            Err(_) => lags,
        }
    }

    fn lag_of(
        &self,
        group: &str,
        is_wanted: &impl Fn(&TopicName) -> bool,
        single_max: usize,
    ) -> GroupLags {
        let now = self.lag_now();
        let mut lags = GroupLags::default();
        self.add_lags_of(group, is_wanted, single_max, &now, &mut lags);
        lags
    }

    fn lag_now(&self) -> Now {
        Now {
            steady: self.storage().steady_clock().now(),
            wall: self.now(),
        }
    }

    fn look_up(&self, single_max: usize) {
        let times = &self.shared.lag_times;
        let mut wanted = HashSet::new();
        for lag in self.group_lags(single_max).single {
            let Some(next) = lag.next else { continue };
            let key = (lag.log.id(), next);
            wanted.insert(key);
            if !times.known().contains_key(&key)
                && let Some(found) = times_of(&lag.log, next)
            {
                times.known().insert(key, found);
            }
        }
        times.known().retain(|key, _| wanted.contains(key));
    }

    /// The lag of every group in every partition where it has a durable offset, the first `single_max` each for itself.
    pub(super) fn group_lags(&self, single_max: usize) -> GroupLags {
        let now = self.lag_now();
        let mut lags = GroupLags::default();
        for group in self.groups().list() {
            self.add_lags_of(&group.id, &|_| true, single_max, &now, &mut lags);
        }
        lags
    }

    fn add_lags_of(
        &self,
        group: &str,
        is_wanted: &impl Fn(&TopicName) -> bool,
        single_max: usize,
        now: &Now,
        lags: &mut GroupLags,
    ) {
        let mut after = None;
        loop {
            let mut page = self.groups().fetch_after(group, after.take(), PAGE);
            let Some((topic, partition, _)) = page.last() else {
                break;
            };
            after = Some((topic.clone(), *partition));
            page.retain(|(topic, _, _)| is_wanted(topic));
            self.lags_of(group, page, single_max, now, lags);
        }
    }

    fn lags_of(
        &self,
        group: &str,
        offsets: Vec<(TopicName, PartitionId, CommittedOffset)>,
        single_max: usize,
        now: &Now,
        lags: &mut GroupLags,
    ) {
        for (topic, partition, offset) in offsets {
            let CommittedPlace::Next(committed) = offset.offset else {
                continue;
            };
            // Offsets of a topic that is gone, or that came again under its name, tell nothing.
            let known = self.topic(topic.as_str());
            let Some(known) = known.ok().filter(|known| known.id == offset.topic_id) else {
                continue;
            };
            let Ok(log) = known.log(partition) else {
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
            let times = (records > 0).then(|| {
                self.shared
                    .lag_times
                    .known()
                    .get(&(log.id(), next))
                    .copied()
            });
            let (age, event_age) = match times {
                None => (Some(Duration::ZERO), Some(Duration::ZERO)),
                Some(times) => (
                    times.map(|times| since(times.appended, now.steady)),
                    times.map(|times| since(times.stamped, now.wall)),
                ),
            };
            lags.single.push(GroupLag {
                group: group.to_owned(),
                topic,
                partition,
                committed,
                records,
                age,
                event_age,
                log: Arc::clone(log),
                next: (records > 0).then_some(next),
            });
        }
    }
}

/// The two times by which a record has an age.
struct Now {
    steady: Timestamp,
    wall: Timestamp,
}

/// The times of the record at `offset`, or of the next one. Where the index has one time for many batches, the record's own
/// timestamp tells which moment of theirs is meant, as far as it lies within.
fn times_of(log: &Log, offset: Offset) -> Option<RecordTimes> {
    let stamped = time_of(log, offset)?;
    let (since, until) = log.appended_between(offset).ok()??;
    Some(RecordTimes {
        appended: stamped.max(since).min(until),
        stamped,
    })
}

fn since(time: Timestamp, now: Timestamp) -> Duration {
    let millis = now.millis().saturating_sub(time.millis());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// The timestamp of the record at `offset`, or of the next one that is kept.
fn time_of(log: &Log, offset: Offset) -> Option<Timestamp> {
    let mut found = None;
    let looked = each_batch(log, offset..Offset::MAX, 1, |batch, _| {
        found = record_time(batch, offset)?;
        Ok(match found {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        })
    });
    looked.ok()?;
    found
}

fn record_time(batch: &Batch, offset: Offset) -> Result<Option<Timestamp>, BatchError> {
    let header = batch.header();
    if offset <= header.base()
        && let Some(first) = header.first_time()
    {
        return Ok(Some(first));
    }
    let mut records = batch.records(DecompressLimit::default())?;
    while let Some(record) = records.next_ref() {
        let record = record?;
        if record.offset >= offset {
            return Ok(Some(record.timestamp));
        }
    }
    Ok(None)
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
                .map(|offset| record_time(&batch, Offset::new(offset)).unwrap())
                .map(|time| time.map(|time| time.millis()))
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
