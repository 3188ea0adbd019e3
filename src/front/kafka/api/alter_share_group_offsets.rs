//! AlterShareGroupOffsets (91): has a share group without members begin anew with partitions, at offsets that are given.

use std::sync::Arc;

use model::{Offset, PartitionId};
use uuid::Uuid;
use wire::messages::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse,
    AlterShareGroupOffsetsResponsePartition, AlterShareGroupOffsetsResponseTopic,
};

use super::audit::{Change, some};
use super::{Call, held_partition};
use crate::broker::access::{Granted, right};
use crate::broker::share::ShareError;
use crate::broker::{Refusal, Topic};
use crate::front::kafka::errors::{self, Failure, Misuse};

type ReadTopic = Granted<Arc<Topic>, right::Read>;

pub(super) async fn answer(
    request: AlterShareGroupOffsetsRequest,
    call: Call,
) -> AlterShareGroupOffsetsResponse {
    match alter(request, &call).await {
        Ok(responses) => AlterShareGroupOffsetsResponse {
            responses,
            ..AlterShareGroupOffsetsResponse::default()
        },
        Err(failure) => AlterShareGroupOffsetsResponse {
            error_code: failure.code(),
            error_message: Some(failure.to_string()),
            ..AlterShareGroupOffsetsResponse::default()
        },
    }
}

async fn alter(
    request: AlterShareGroupOffsetsRequest,
    call: &Call,
) -> Result<Vec<AlterShareGroupOffsetsResponseTopic>, Failure> {
    let group = call.door.group(&request.group_id, right::Read)?;
    if request.group_id.is_empty() {
        return Err(ShareError::InvalidGroupId.into());
    }
    let mut starts = Vec::new();
    let mut responses = Vec::new();
    for topic in request.topics {
        let found = call.door.topic(&topic.topic_name, right::Read);
        let mut partitions = Vec::new();
        for asked in topic.partitions {
            let start = start_of(&found, asked.partition_index, asked.start_offset);
            let failure = start.as_ref().err();
            partitions.push(AlterShareGroupOffsetsResponsePartition {
                partition_index: asked.partition_index,
                error_code: failure.map_or(errors::NONE, Failure::code),
                error_message: failure.map(Failure::to_string),
            });
            starts.extend(start);
        }
        responses.push(AlterShareGroupOffsetsResponseTopic {
            topic_id: found.map_or(Uuid::nil(), |topic| topic.id.as_uuid()),
            topic_name: topic.topic_name,
            partitions,
        });
    }
    group.reset_shared(&starts).await?;
    if !starts.is_empty() {
        let set = starts.iter().map(|(topic, partition, start)| {
            let (name, start) = (topic.name.as_str(), start.get());
            format!("{name}-{partition}: {start}")
        });
        call.changed(&Change::OffsetsSet {
            group: &request.group_id,
            offsets: &some(set),
        });
    }
    Ok(responses)
}

/// Where a partition is to begin.
fn start_of(
    topic: &Result<ReadTopic, Refusal>,
    index: i32,
    offset: i64,
) -> Result<(ReadTopic, PartitionId, Offset), Failure> {
    let topic = topic.as_ref().map_err(Clone::clone)?;
    let partition = held_partition(topic, index)?;
    let start = Offset::from_wire(offset).ok_or(Misuse::NegativeOffset { offset })?;
    Ok((topic.clone(), partition, start))
}
