//! Heartbeat: keeps a member's session alive, and tells it to rejoin.

use wire::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};

use super::Call;
use crate::broker::access::right;
use crate::broker::groups::MemberClaim;
use crate::front::kafka::errors;

pub(super) async fn answer(request: HeartbeatRequest, call: Call) -> HeartbeatResponse {
    let claim = MemberClaim {
        member_id: request.member_id,
        instance_id: request.group_instance_id,
        generation: Some(request.generation_id).filter(|generation| *generation >= 0),
    };
    HeartbeatResponse {
        error_code: match call.door.group(&request.group_id, right::Read) {
            Ok(group) => group
                .heartbeat(&claim)
                .map_or_else(errors::group, |()| errors::NONE),
            Err(refusal) => errors::code(&refusal),
        },
        ..HeartbeatResponse::default()
    }
}
