//! DeleteShareGroupOffsets (92): has a share group without members forget how far it is with topics.

use std::sync::Arc;

use uuid::Uuid;
use wire::messages::delete_share_group_offsets::{
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse,
    DeleteShareGroupOffsetsResponseTopic,
};

use super::Call;
use super::audit::{Change, some};
use crate::broker::access::{Granted, Group, right};
use crate::broker::share::ShareError;
use crate::broker::{Refusal, Topic};
use crate::front::kafka::errors::{self, Failure};

pub(super) async fn answer(
    request: DeleteShareGroupOffsetsRequest,
    call: Call,
) -> DeleteShareGroupOffsetsResponse {
    match delete(request, &call).await {
        Ok(responses) => DeleteShareGroupOffsetsResponse {
            responses,
            ..DeleteShareGroupOffsetsResponse::default()
        },
        Err(failure) => DeleteShareGroupOffsetsResponse {
            error_code: failure.code(),
            error_message: Some(failure.to_string()),
            ..DeleteShareGroupOffsetsResponse::default()
        },
    }
}

async fn delete(
    request: DeleteShareGroupOffsetsRequest,
    call: &Call,
) -> Result<Vec<DeleteShareGroupOffsetsResponseTopic>, Failure> {
    let group = call.door.group(&request.group_id, right::Delete)?;
    if request.group_id.is_empty() {
        return Err(ShareError::InvalidGroupId.into());
    }
    let names = request.topics.into_iter().map(|topic| topic.topic_name);
    let find = |name: String| (call.door.topic(&name, right::Read), name);
    let topics: Vec<_> = names.map(find).collect();
    group.check_empty()?;
    let mut responses = Vec::new();
    let mut deleted = Vec::new();
    for (found, topic_name) in topics {
        let (topic_id, failure) = match forget(&group, found).await {
            Ok(id) => {
                deleted.push(topic_name.clone());
                (id, None)
            }
            Err(failure) => (Uuid::nil(), Some(failure)),
        };
        responses.push(DeleteShareGroupOffsetsResponseTopic {
            topic_name,
            topic_id,
            error_code: failure.as_ref().map_or(errors::NONE, Failure::code),
            error_message: failure.map(|failure| failure.to_string()),
        });
    }
    if !deleted.is_empty() {
        call.changed(&Change::OffsetsDeleted {
            group: &request.group_id,
            partitions: &some(deleted.into_iter()),
        });
    }
    Ok(responses)
}

async fn forget(
    group: &Granted<Group<'_>, right::Delete>,
    topic: Result<Granted<Arc<Topic>, right::Read>, Refusal>,
) -> Result<Uuid, Failure> {
    let topic = topic?;
    match group.end_shared(&topic).await? {
        true => Ok(topic.id.as_uuid()),
        // Kafka's code for it.
        false => Err(Refusal::UnknownTopicOrPartition.into()),
    }
}
