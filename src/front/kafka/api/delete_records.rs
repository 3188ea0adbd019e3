//! DeleteRecords (21): deletes the front of partitions, durably.

use std::sync::Arc;

use model::Offset;
use wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteRecordsTopicResult,
};

use super::audit::{Change, some};
use super::{Call, held_partition};
use crate::broker::access::{Granted, right};
use crate::broker::{DeleteBefore, Topic};
use crate::front::kafka::errors::{self, Failure, Misuse};

/// "Up to the high watermark".
const ALL: i64 = -1;

pub(super) async fn answer(request: DeleteRecordsRequest, call: Call) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = call.door.topic(&topic.name, right::DeleteRecords);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        let mut deleted = Vec::new();
        for partition in topic.partitions {
            let result = match &found {
                Ok(found) => delete(found, &partition, &call).await,
                Err(refusal) => Err(refusal.clone().into()),
            };
            if let Ok(start) = &result {
                deleted.push(format!("{}: {start}", partition.partition_index));
            }
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: partition.partition_index,
                low_watermark: result.as_ref().map_or(-1, |start| start.to_wire()),
                error_code: result.map_or_else(|failure| failure.code(), |_| errors::NONE),
            });
        }
        if !deleted.is_empty() {
            call.changed(&Change::RecordsDeleted {
                topic: &topic.name,
                before: &some(deleted.into_iter()),
            });
        }
        topics.push(DeleteRecordsTopicResult {
            name: topic.name,
            partitions,
        });
    }
    DeleteRecordsResponse {
        topics,
        ..DeleteRecordsResponse::default()
    }
}

/// Returns the new start of the partition.
async fn delete(
    topic: &Granted<Arc<Topic>, right::DeleteRecords>,
    wanted: &DeleteRecordsPartition,
    call: &Call,
) -> Result<Offset, Failure> {
    let partition = held_partition(topic, wanted.partition_index)?;
    let before = match wanted.offset {
        ALL => DeleteBefore::HighWatermark,
        offset => Offset::from_wire(offset)
            .map(DeleteBefore::Offset)
            .ok_or(Misuse::NegativeOffset { offset })?,
    };
    Ok(call
        .broker()
        .delete_records(topic, partition, before)
        .await?)
}
