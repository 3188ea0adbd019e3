//! DeleteRecords (21): deletes the front of partitions, durably.

use model::TopicName;
use wire::messages::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult,
};

use super::Call;
use super::audit::{Change, some};
use crate::broker::Refusal;
use crate::front::kafka::errors;

/// "Up to the high watermark".
const ALL: i64 = -1;

pub(super) async fn answer(request: DeleteRecordsRequest, call: Call) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = if TopicName::is_internal(&topic.name) {
            Err(Refusal::InternalTopic {
                name: topic.name.clone(),
                reason: "its records cannot be deleted",
            })
        } else {
            call.broker.topic(&topic.name)
        };
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        let mut deleted = Vec::new();
        for partition in topic.partitions {
            let before = (partition.offset != ALL).then_some(partition.offset);
            let result: Result<_, Refusal> = match &found {
                Ok(found) => {
                    call.broker
                        .delete_records(found, partition.partition_index, before)
                        .await
                }
                Err(refusal) => Err(refusal.clone()),
            };
            if let Ok(start) = &result {
                deleted.push(format!("{}: {start}", partition.partition_index));
            }
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: partition.partition_index,
                low_watermark: result.as_ref().map_or(-1, |start| start.to_wire()),
                error_code: result.as_ref().map_or_else(errors::code, |_| errors::NONE),
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
