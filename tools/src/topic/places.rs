//! What partitions hold: where they begin and end, and how many bytes they take.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use client::TopicMetadata;
use client::admin::{Admin, At, Place};
use model::{Offset, PartitionId, TopicName, TopicPartition};

/// One partition's part of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The first offset that is kept.
    pub start: Offset,
    /// The offset that the next record will get.
    pub end: Offset,
    /// Bytes on disk, if the broker tells.
    pub bytes: Option<u64>,
}

impl Held {
    /// How many records there are at most: offsets in between.
    pub fn records(self) -> u64 {
        self.end.get().saturating_sub(self.start.get())
    }
}

/// All partitions of a topic.
pub fn partitions_of(topic: &TopicMetadata) -> Result<Vec<TopicPartition>> {
    let name = TopicName::parse(&topic.name)?;
    let mut numbers: Vec<PartitionId> = topic
        .partitions
        .iter()
        .filter_map(|partition| PartitionId::from_wire(partition.partition))
        .collect();
    numbers.sort();
    Ok(numbers
        .into_iter()
        .map(|number| TopicPartition::new(name.clone(), number))
        .collect())
}

/// What each of these partitions holds.
pub async fn held(
    admin: &Admin,
    partitions: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, Held>> {
    let starts = ask(admin, partitions, At::Earliest).await?;
    let ends = ask(admin, partitions, At::Latest).await?;
    let bytes: HashMap<TopicPartition, u64> = match admin.log_dirs().await {
        Ok(dirs) => dirs.into_iter().flat_map(|dir| dir.partitions).collect(),
        // Sizes are an extra: a broker may not tell them.
        Err(_) => HashMap::new(),
    };
    let offset = |places: &HashMap<TopicPartition, Place>, partition| {
        let place: Option<&Place> = places.get(partition);
        place.and_then(|place| place.offset).unwrap_or_default()
    };
    let held = partitions.iter().map(|partition| {
        let held = Held {
            start: offset(&starts, partition),
            end: offset(&ends, partition),
            bytes: bytes.get(partition).copied(),
        };
        (partition.clone(), held)
    });
    Ok(held.collect())
}

/// The same place in each partition.
pub async fn ask(
    admin: &Admin,
    partitions: &[TopicPartition],
    at: At,
) -> Result<HashMap<TopicPartition, Place>> {
    let wanted: Vec<(TopicPartition, At)> = partitions
        .iter()
        .map(|partition| (partition.clone(), at))
        .collect();
    Ok(admin.list_offsets(&wanted).await?)
}

/// The sum over a topic's partitions; bytes only if all are known.
pub fn sum<'a>(held: impl IntoIterator<Item = &'a Held>) -> (u64, Option<u64>) {
    held.into_iter()
        .fold((0, Some(0)), |(records, bytes), held| {
            let bytes = bytes.zip(held.bytes).map(|(sum, more)| sum + more);
            (records + held.records(), bytes)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_of_sizes_is_only_told_if_all_are_known() {
        let held = |start, end, bytes| Held {
            start: Offset::new(start),
            end: Offset::new(end),
            bytes,
        };
        assert_eq!(
            sum(&[held(5, 10, Some(100)), held(0, 1, Some(7))]),
            (6, Some(107))
        );
        assert_eq!(sum(&[held(5, 10, Some(100)), held(0, 1, None)]), (6, None));
    }
}
