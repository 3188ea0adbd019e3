//! ShareGroupHeartbeat (76): a member of a share group comes, tells that it is there, and goes.

use wire::messages::share_group_heartbeat::{
    Assignment, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse, TopicPartitions,
};

use super::Call;
use super::acknowledgements::member_id;
use crate::broker::Refusal;
use crate::broker::access::right;
use crate::broker::groups::ClientIdentity;
use crate::broker::share::{Assigned, Beat, Beaten};
use crate::front::kafka::errors::{Failure, Misuse};

/// The epoch with which a member goes.
const LEAVE: i32 = -1;
/// A rack's name is so long at most: it is kept with the member.
const RACK_BYTES_MAX: usize = 255;

pub(super) async fn answer(
    request: ShareGroupHeartbeatRequest,
    call: Call,
) -> ShareGroupHeartbeatResponse {
    match beat(request, &call).await {
        Ok(response) => response,
        Err(failure) => ShareGroupHeartbeatResponse {
            error_code: failure.code(),
            error_message: Some(failure.to_string()),
            ..ShareGroupHeartbeatResponse::default()
        },
    }
}

async fn beat(
    request: ShareGroupHeartbeatRequest,
    call: &Call,
) -> Result<ShareGroupHeartbeatResponse, Failure> {
    let group = call.door.group(&request.group_id, right::Read)?;
    member_id(Some(&request.member_id))?;
    if request.group_id.trim().is_empty() {
        return Err(Misuse::Share("GroupId can't be empty.").into());
    }
    let is_rack = |rack: &String| !rack.is_empty() && rack.len() <= RACK_BYTES_MAX;
    if !request.rack_id.as_ref().is_none_or(is_rack) {
        return Err(Misuse::Share("RackId can't be empty, or longer than 255 bytes.").into());
    }
    if request.member_epoch < LEAVE {
        return Err(Misuse::Share("MemberEpoch is invalid.").into());
    }
    // Whether a topic is there is no matter: it may come.
    for name in request.subscribed_topic_names.iter().flatten() {
        if let Err(denied @ Refusal::Denied { .. }) = call.door.topic(name, right::Describe) {
            return Err(denied.into());
        }
    }
    if request.member_epoch == LEAVE {
        group.leave_shared(&request.member_id)?;
        return Ok(ShareGroupHeartbeatResponse {
            member_id: Some(request.member_id),
            member_epoch: LEAVE,
            ..ShareGroupHeartbeatResponse::default()
        });
    }
    let caller = call.door.caller();
    let beat = Beat {
        member_id: request.member_id.clone(),
        epoch: request.member_epoch,
        topics: request.subscribed_topic_names,
        rack: request.rack_id,
        client: ClientIdentity {
            client_id: caller.client_id.clone().unwrap_or_default(),
            host: format!("/{}", caller.address.ip()),
        },
    };
    let Beaten {
        epoch,
        interval,
        assigned,
    } = group.beat(beat).await?;
    Ok(ShareGroupHeartbeatResponse {
        member_id: Some(request.member_id),
        member_epoch: epoch,
        heartbeat_interval_ms: i32::try_from(interval.as_millis()).unwrap_or(i32::MAX),
        assignment: assigned.map(assignment),
        ..ShareGroupHeartbeatResponse::default()
    })
}

fn assignment(assigned: Assigned) -> Assignment {
    let topic = |(topic, partitions): (model::TopicId, Vec<model::PartitionId>)| TopicPartitions {
        topic_id: topic.as_uuid(),
        partitions: partitions
            .into_iter()
            .map(model::PartitionId::to_wire)
            .collect(),
    };
    Assignment {
        topic_partitions: assigned.into_iter().map(topic).collect(),
    }
}
