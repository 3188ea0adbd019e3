//! ShareAcknowledge (79): what a member says of records that it holds, without a fetch. Answered when it is durable.

use wire::messages::share_acknowledge::{
    PartitionData, ShareAcknowledgeRequest, ShareAcknowledgeResponse, ShareAcknowledgeTopicResponse,
};

use super::Call;
use super::acknowledgements::{Batch, Said, Trouble, member_id, settle};
use super::share_fetch::release;
use crate::broker::access::right;
use crate::front::kafka::errors::{self, Failure, Misuse};
use crate::front::kafka::share_sessions::{SessionKey, SharedPlace};

pub(super) async fn answer(
    request: ShareAcknowledgeRequest,
    call: Call,
) -> ShareAcknowledgeResponse {
    match acknowledge(request, &call).await {
        Ok(response) => response,
        Err(failure) => ShareAcknowledgeResponse {
            error_code: failure.code(),
            error_message: Some(failure.to_string()),
            ..ShareAcknowledgeResponse::default()
        },
    }
}

async fn acknowledge(
    request: ShareAcknowledgeRequest,
    call: &Call,
) -> Result<ShareAcknowledgeResponse, Failure> {
    let id = request.group_id.as_deref();
    let id = id.ok_or(Misuse::Share("Invalid group id in the request."))?;
    let group = call.door.group(id, right::Read)?;
    let member = member_id(request.member_id.as_deref())?;
    let key = SessionKey {
        group: id.to_owned(),
        member: member.to_owned(),
    };
    let is_final = call.shares.acknowledge(&key, request.share_session_epoch)?;
    let mut said = Vec::new();
    for topic in request.topics {
        for partition in topic.partitions {
            let batch = partition.acknowledgement_batches.into_iter();
            said.push(Said {
                place: (topic.topic_id, partition.partition_index),
                batches: batch
                    .map(|batch| Batch {
                        first: batch.first_offset,
                        last: batch.last_offset,
                        types: batch.acknowledge_types,
                    })
                    .collect(),
            });
        }
    }
    let done = settle(said, (&group, member), request.is_renew_ack, call).await;
    if is_final {
        release(&group, &key, call).await;
    }
    let lock = group.share_settings().lock;
    Ok(ShareAcknowledgeResponse {
        acquisition_lock_timeout_ms: i32::try_from(lock.as_millis()).unwrap_or(i32::MAX),
        responses: responses(done),
        ..ShareAcknowledgeResponse::default()
    })
}

/// The answer: neighbours of one topic stand together.
fn responses(done: Vec<(SharedPlace, Result<(), Trouble>)>) -> Vec<ShareAcknowledgeTopicResponse> {
    let mut topics: Vec<ShareAcknowledgeTopicResponse> = Vec::new();
    for ((topic_id, partition_index), result) in done {
        if topics.last().is_none_or(|last| last.topic_id != topic_id) {
            topics.push(ShareAcknowledgeTopicResponse {
                topic_id,
                partitions: Vec::new(),
            });
        }
        let trouble = result.err();
        let topic = topics.last_mut().expect("a topic was just named");
        topic.partitions.push(PartitionData {
            partition_index,
            error_code: trouble.as_ref().map_or(errors::NONE, |it| it.code),
            error_message: trouble.map(|it| it.text),
            ..PartitionData::default()
        });
    }
    topics
}
