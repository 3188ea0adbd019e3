//! Heartbeat: keeps a member's session alive, and tells it to rejoin.

use wire::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};

use super::Call;
use crate::broker::access::right;
use crate::broker::groups::{Generation, MemberClaim};
use crate::front::kafka::errors;

pub(super) async fn answer(request: HeartbeatRequest, call: Call) -> HeartbeatResponse {
    let claim = MemberClaim {
        member_id: request.member_id,
        instance_id: request.group_instance_id,
        generation: Generation::from_wire(request.generation_id),
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
