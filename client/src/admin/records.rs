//! What lies in partitions: looking up offsets, and deleting records before one. Each partition's leader is asked.
//! Callers: whoever holds an [`Admin`]. The first partition that fails fails the whole call.

use super::{Admin, LATEST, by_topic, topic_partition};
use crate::Result;
use crate::error::check;
use model::{Offset, Timestamp, TopicPartition};
use std::collections::HashMap;
use wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};

/// A place to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The oldest record.
    Earliest,
    /// After the newest record.
    Latest,
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// The first record that is as young as this or younger.
    Time(Timestamp),
}

/// A place that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its offset; none if there is no such record.
    pub offset: Option<Offset>,
    /// The record's timestamp, where the look-up was about one.
    pub timestamp: Option<Timestamp>,
    /// The epoch of the leader that wrote it, if the broker tells.
    pub leader_epoch: Option<i32>,
}

impl Admin {
    /// Looks up places in partitions. The first partition that fails fails all.
    pub async fn list_offsets(
        &self,
        wanted: &[(TopicPartition, At)],
    ) -> Result<HashMap<TopicPartition, Place>> {
        self.by_leader(wanted, |batch| self.list_offsets_of(batch))
            .await
    }

    async fn list_offsets_of(
        &self,
        (broker, wanted): (i32, Vec<(TopicPartition, At)>),
    ) -> Result<HashMap<TopicPartition, Place>> {
        let topics = by_topic(
            &wanted,
            |(p, _)| p,
            |(p, at)| ListOffsetsPartition {
                partition_index: p.partition.to_wire(),
                timestamp: match at {
                    At::Earliest => -2,
                    At::Latest => -1,
                    At::MaxTimestamp => -3,
                    // A negative time would be one of the marks above.
                    At::Time(time) => time.millis().max(0),
                },
                ..Default::default()
            },
        );
        let topic = |(name, partitions)| ListOffsetsTopic { name, partitions };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: topics.into_iter().map(topic).collect(),
            ..Default::default()
        };
        let answer = self.call_broker(broker, &request, 8).await?;
        let asked: HashMap<TopicPartition, At> = wanted.into_iter().collect();
        let mut found = HashMap::new();
        for topic in &answer.topics {
            for p in &topic.partitions {
                let Some(partition) = topic_partition(&topic.name, p.partition_index) else {
                    continue;
                };
                check(p.error_code, || partition.to_string(), None)?;
                let about_a_record =
                    matches!(asked.get(&partition), Some(At::Time(_) | At::MaxTimestamp));
                let place = Place {
                    offset: Offset::from_wire(p.offset),
                    timestamp: Some(Timestamp::from_millis(p.timestamp))
                        .filter(|_| about_a_record && p.offset >= 0),
                    leader_epoch: Some(p.leader_epoch).filter(|e| *e >= 0),
                };
                found.insert(partition, place);
            }
        }
        Ok(found)
    }

    /// Deletes all records before an offset (none: all there are). Yields the first offset that is left.
    pub async fn delete_records(
        &self,
        wanted: &[(TopicPartition, Option<Offset>)],
    ) -> Result<HashMap<TopicPartition, Offset>> {
        self.by_leader(wanted, |(broker, wanted)| async move {
            let topics = by_topic(
                &wanted,
                |(p, _)| p,
                |(p, before)| DeleteRecordsPartition {
                    partition_index: p.partition.to_wire(),
                    offset: before.map_or(-1, Offset::to_wire),
                },
            );
            let topic = |(name, partitions)| DeleteRecordsTopic { name, partitions };
            let request = DeleteRecordsRequest {
                topics: topics.into_iter().map(topic).collect(),
                timeout_ms: self.timeout_ms(),
            };
            let answer = self.call_broker(broker, &request, LATEST).await?;
            let mut left = HashMap::new();
            for topic in &answer.topics {
                for p in &topic.partitions {
                    let Some(partition) = topic_partition(&topic.name, p.partition_index) else {
                        continue;
                    };
                    check(p.error_code, || partition.to_string(), None)?;
                    left.insert(
                        partition,
                        Offset::from_wire(p.low_watermark).unwrap_or_default(),
                    );
                }
            }
            Ok(left)
        })
        .await
    }
}
