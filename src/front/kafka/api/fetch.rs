//! Fetch (1): slices of the log, sent as they are. There are no fetch sessions: the session id is always 0, which makes
//! clients send full requests (KIP-227).

use std::time::Duration;

use model::{LeaderEpoch, Offset, TopicId};
use wire::Records;
use wire::messages::fetch::{
    AbortedTransaction, EpochEndOffset, FetchRequest, FetchResponse, FetchableTopicResponse,
    PartitionData,
};

use super::{Call, held_partition};
use crate::broker::access::right;
use crate::broker::{Fetch, FetchPartition, Fetched, Refusal};
use crate::front::kafka::errors::{self, Misuse};

/// Reads that see only committed transactions.
const READ_COMMITTED: i8 = 1;
/// A fetch of so many partitions that it holds much memory waits no longer than this, whatever it asks for.
const LARGE_WAIT_MAX: Duration = Duration::from_secs(1);
/// From this version on topics are named by id.
const VERSION_TOPIC_IDS: i16 = 13;

pub(super) async fn answer(request: FetchRequest, call: Call) -> FetchResponse {
    if request.session_id != 0 && request.session_epoch > 0 {
        return FetchResponse {
            error_code: Misuse::FetchSessionIdNotFound.code(),
            ..FetchResponse::default()
        };
    }
    let mut wanted = Vec::new();
    let mut traffic = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let found = if call.version >= VERSION_TOPIC_IDS {
            call.door
                .topic_by_id(TopicId::from_uuid(topic.topic_id), right::Read)
        } else {
            call.door.topic(&topic.topic, right::Read)
        };
        traffic.push(found.as_ref().ok().map(|topic| topic.traffic.clone()));
        for partition in &topic.partitions {
            let held = found.as_ref().map_err(Clone::clone);
            let held = held.and_then(|topic| held_partition(topic, partition.partition));
            wanted.push(FetchPartition {
                topic: held.clone().and(found.clone()),
                partition: held.unwrap_or_default(),
                offset: Offset::from_wire(partition.fetch_offset),
                bytes_max: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
                leader_epoch: LeaderEpoch::from_wire(partition.current_leader_epoch),
                last_fetched_epoch: LeaderEpoch::from_wire(partition.last_fetched_epoch),
            });
        }
    }
    let wait_max = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let fetch = Fetch {
        partitions: wanted,
        bytes_min: usize::try_from(request.min_bytes).unwrap_or(0),
        bytes_max: usize::try_from(request.max_bytes)
            .unwrap_or(0)
            .min(call.broker().config().fetch_bytes_max),
        wait_max: match call.is_large() {
            true => wait_max.min(LARGE_WAIT_MAX),
            false => wait_max,
        },
    };
    let mut found = call.broker().fetch(fetch).await.into_iter();
    let committed = request.isolation_level == READ_COMMITTED;
    let mut responses = Vec::with_capacity(request.topics.len());
    for (topic, traffic) in request.topics.into_iter().zip(traffic) {
        let mut bytes = 0;
        let partitions = topic
            .partitions
            .iter()
            .map(|partition| {
                let result = found.next().expect("one answer for each partition");
                bytes += result.as_ref().map_or(0, |fetched| fetched.bytes() as u64);
                described(partition.partition, result, committed)
            })
            .collect();
        if let Some(traffic) = traffic {
            traffic.fetched(bytes);
        }
        responses.push(FetchableTopicResponse {
            topic: topic.topic,
            topic_id: topic.topic_id,
            partitions,
        });
    }
    FetchResponse {
        responses,
        ..FetchResponse::default()
    }
}

/// Kafka tells no aborted transactions of a partition that it does not know, and nothing of one that it cannot read.
fn aborted_of_none(refusal: &Refusal) -> Option<Vec<AbortedTransaction>> {
    match refusal {
        Refusal::UnknownTopicOrPartition | Refusal::UnknownTopicId => Some(Vec::new()),
        _ => None,
    }
}

fn described(
    partition_index: i32,
    result: Result<Fetched, Refusal>,
    committed: bool,
) -> PartitionData {
    let fetched = match result {
        Ok(fetched) => fetched,
        Err(refusal) => {
            return PartitionData {
                partition_index,
                error_code: errors::code(&refusal),
                high_watermark: -1,
                last_stable_offset: -1,
                log_start_offset: -1,
                aborted_transactions: aborted_of_none(&refusal),
                records: Some(Records::EMPTY),
                ..PartitionData::default()
            };
        }
    };
    let diverging_epoch = fetched
        .diverging
        .map_or_else(EpochEndOffset::default, |(epoch, end)| EpochEndOffset {
            epoch: epoch.to_wire(),
            end_offset: end.to_wire(),
        });
    PartitionData {
        partition_index,
        high_watermark: fetched.high_watermark.to_wire(),
        last_stable_offset: fetched.high_watermark.to_wire(),
        log_start_offset: fetched.start_offset.to_wire(),
        diverging_epoch,
        aborted_transactions: committed.then(Vec::new),
        records: Some(Records::from_slices(fetched.slices)),
        ..PartitionData::default()
    }
}
