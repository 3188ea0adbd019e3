//! ListOffsets (2): offsets by position and by time.

use std::collections::HashMap;

use model::{LeaderEpoch, Timestamp};
use wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};

use super::{Call, held_partition};
use crate::broker::access::right;
use crate::broker::{FoundOffset, OffsetQuery};
use crate::front::kafka::errors::{Failure, Misuse};

/// The first version whose answers have a leader epoch.
const LEADER_EPOCH: i16 = 4;

pub(super) async fn answer(request: ListOffsetsRequest, call: Call) -> ListOffsetsResponse {
    // How often each partition is named: all mentions are refused if there are several, as in Kafka.
    let mut times: HashMap<String, HashMap<i32, u32>> = HashMap::new();
    for topic in &request.topics {
        let partitions = times.entry(topic.name.clone()).or_default();
        for partition in &topic.partitions {
            *partitions.entry(partition.partition_index).or_default() += 1;
        }
    }
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let result = match times[&topic.name][&partition.partition_index] {
                1 => one(&topic.name, &partition, &call).await,
                _ => Err(Misuse::PartitionNamedTwice.into()),
            };
            partitions.push(described(partition.partition_index, result, call.version));
        }
        topics.push(ListOffsetsTopicResponse {
            name: topic.name,
            partitions,
        });
    }
    ListOffsetsResponse {
        topics,
        ..ListOffsetsResponse::default()
    }
}

async fn one(
    topic: &str,
    partition: &ListOffsetsPartition,
    call: &Call,
) -> Result<Option<FoundOffset>, Failure> {
    let query = match partition.timestamp {
        -1 => OffsetQuery::Latest,
        -2 => OffsetQuery::Earliest,
        -3 if call.version >= 7 => OffsetQuery::MaxTimestamp,
        // The earliest local offset: all of a log is local here.
        -4 if call.version >= 8 => OffsetQuery::Earliest,
        timestamp @ ..0 => {
            let version = call.version;
            return Err(Misuse::UnknownTimestamp { timestamp, version }.into());
        }
        time => OffsetQuery::AtTime(Timestamp::from_millis(time)),
    };
    let topic = call.door.topic(topic, right::Describe)?;
    let epoch = LeaderEpoch::from_wire(partition.current_leader_epoch);
    let index = held_partition(&topic, partition.partition_index)?;
    let found = call.broker().offset_for(&topic, index, epoch, query);
    Ok(found.await?)
}

fn described(
    partition_index: i32,
    result: Result<Option<FoundOffset>, Failure>,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let nothing = ListOffsetsPartitionResponse {
        partition_index,
        timestamp: -1,
        offset: -1,
        leader_epoch: -1,
        ..ListOffsetsPartitionResponse::default()
    };
    match result {
        Ok(Some(found)) => ListOffsetsPartitionResponse {
            timestamp: found.timestamp.map_or(-1, Timestamp::millis),
            offset: found.offset.to_wire(),
            leader_epoch: found
                .leader_epoch
                .filter(|_| version >= LEADER_EPOCH)
                .map_or(-1, LeaderEpoch::to_wire),
            ..nothing
        },
        Ok(None) => nothing,
        Err(failure) => ListOffsetsPartitionResponse {
            error_code: failure.code(),
            ..nothing
        },
    }
}
