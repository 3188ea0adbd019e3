//! SyncGroup: answered when the leader's assignment is there and stored.

use wire::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

use super::Call;
use crate::broker::access::right;
use crate::broker::groups::{Generation, GroupError, SyncRequest};
use crate::front::kafka::errors;

/// The first version that must say which protocol it means.
const NAMES_PROTOCOL: i16 = 5;

pub(super) async fn answer(request: SyncGroupRequest, call: Call) -> SyncGroupResponse {
    let is_unnamed = request.protocol_type.is_none() || request.protocol_name.is_none();
    if call.version >= NAMES_PROTOCOL && is_unnamed {
        return rejected(errors::group(GroupError::InconsistentProtocol));
    }
    let sync = SyncRequest {
        member_id: request.member_id,
        instance_id: request.group_instance_id,
        generation: Generation::from_wire(request.generation_id),
        protocol_type: request.protocol_type,
        protocol: request.protocol_name,
        assignments: request
            .assignments
            .into_iter()
            .map(|it| (it.member_id, it.assignment))
            .collect(),
    };
    let group = match call.door.group(&request.group_id, right::Read) {
        Ok(group) => group,
        Err(refusal) => return rejected(errors::code(&refusal)),
    };
    match group.sync(sync).await {
        Ok(synced) => SyncGroupResponse {
            protocol_type: synced.protocol_type,
            protocol_name: synced.protocol,
            assignment: synced.assignment,
            ..SyncGroupResponse::default()
        },
        Err(error) => rejected(errors::group(error)),
    }
}

fn rejected(error_code: i16) -> SyncGroupResponse {
    SyncGroupResponse {
        error_code,
        ..SyncGroupResponse::default()
    }
}
