//! Where partitions begin and end, and when the record at an offset was written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::Result;
use client::Client;
use client::admin::{Admin, At};
use client::consumer::{Consumer, ConsumerConfig, Fetched, Reset, Start};
use model::{Offset, PartitionId, Timestamp, TopicName, TopicPartition};

/// How long to look for records; where that was too short, the time is not known.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Offsets of one partition: `start..end` is what can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    pub start: Offset,
    pub end: Offset,
}

/// The partitions of a topic, or None if there is no such topic.
pub(super) async fn partitions_of(
    client: &Client,
    topic: &TopicName,
) -> Result<Option<Vec<TopicPartition>>> {
    match client.topic_anew(topic.as_str(), false).await {
        Ok(known) => Ok(Some(
            known
                .partitions
                .iter()
                .filter_map(|partition| PartitionId::from_wire(partition.partition))
                .map(|partition| TopicPartition::new(topic.clone(), partition))
                .collect(),
        )),
        Err(error) if error.code() == Some(client::ErrorCode::UnknownTopicOrPartition) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The bounds of those partitions that are there.
pub(super) async fn bounds(
    client: &Client,
    wanted: &BTreeSet<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, Bounds>> {
    let mut there = BTreeSet::new();
    let topics: BTreeSet<&TopicName> = wanted.iter().map(|partition| &partition.topic).collect();
    for topic in topics {
        let partitions = partitions_of(client, topic).await?.unwrap_or_default();
        there.extend(
            partitions
                .into_iter()
                .filter(|partition| wanted.contains(partition)),
        );
    }
    let starts = offsets(client, &there, At::Earliest).await?;
    let ends = offsets(client, &there, At::Latest).await?;
    Ok(there
        .into_iter()
        .filter_map(|partition| {
            let (start, end) = (*starts.get(&partition)?, *ends.get(&partition)?);
            Some((partition, Bounds { start, end }))
        })
        .collect())
}

/// One place in each partition; those where there is no such record are left out.
pub(super) async fn offsets(
    client: &Client,
    partitions: &BTreeSet<TopicPartition>,
    at: At,
) -> Result<HashMap<TopicPartition, Offset>> {
    let wanted: Vec<(TopicPartition, At)> = partitions
        .iter()
        .map(|partition| (partition.clone(), at))
        .collect();
    let found = Admin::new(client).list_offsets(&wanted).await?;
    Ok(found
        .into_iter()
        .filter_map(|(partition, place)| Some((partition, place.offset?)))
        .collect())
}

/// When the records at these offsets, each below its partition's end, were written. What could not be read in time is
/// left out.
pub(super) async fn times(
    client: &Client,
    wanted: &BTreeMap<TopicPartition, Offset>,
) -> Result<HashMap<TopicPartition, Timestamp>> {
    let config = ConsumerConfig {
        // One batch of each is enough, and the first one comes whole however large it is.
        partition_bytes_max: 16 << 10,
        reset: Reset::Earliest,
        ..ConsumerConfig::default()
    };
    let mut consumer = Consumer::new(client, config);
    for (partition, offset) in wanted {
        consumer.assign(partition.clone(), Start::Offset(*offset));
    }
    let deadline = Instant::now() + LOOK_MAX;
    let mut times = HashMap::new();
    while times.len() < wanted.len() && Instant::now() < deadline {
        for fetched in consumer.poll(deadline - Instant::now()).await? {
            if let Some(time) = first_time(&fetched)? {
                consumer.unassign(&fetched.partition);
                times.entry(fetched.partition).or_insert(time);
            }
        }
    }
    Ok(times)
}

fn first_time(fetched: &Fetched) -> Result<Option<Timestamp>> {
    let mut first = None;
    fetched.for_each_record(|record| {
        first.get_or_insert(record.timestamp);
    })?;
    Ok(first)
}

/// Milliseconds from a record's time to now; a record from the future is of now.
pub(super) fn age(time: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(now.millis_since(time)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_from_the_future_is_of_now() {
        let (early, late) = (Timestamp::from_millis(1), Timestamp::from_millis(5));
        assert_eq!(age(late, early), Duration::ZERO);
        assert_eq!(age(early, late), Duration::from_millis(4));
    }
}
