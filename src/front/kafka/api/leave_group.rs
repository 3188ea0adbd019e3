//! LeaveGroup: one member, or from version 3 many, also by a static member's name.

use wire::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberResponse};

use super::Call;
use crate::broker::access::right;
use crate::broker::groups::{GroupError, Leaver};
use crate::front::kafka::errors;

/// The first version with a list of members.
const BATCHED: i16 = 3;

pub(super) async fn answer(request: LeaveGroupRequest, call: Call) -> LeaveGroupResponse {
    let leavers: Vec<Leaver> = if call.version >= BATCHED {
        let leaver = |it: &wire::messages::leave_group::MemberIdentity| Leaver {
            member_id: it.member_id.clone(),
            instance_id: it.group_instance_id.clone(),
        };
        request.members.iter().map(leaver).collect()
    } else {
        vec![Leaver {
            member_id: request.member_id,
            instance_id: None,
        }]
    };
    let results = match call.door.group(&request.group_id, right::Read) {
        Ok(group) => group.leave(leavers.clone()).await.map_err(errors::group),
        Err(refusal) => Err(errors::code(&refusal)),
    };
    let results = match results {
        Ok(results) => results,
        Err(error_code) => {
            return LeaveGroupResponse {
                error_code,
                ..LeaveGroupResponse::default()
            };
        }
    };
    let code =
        |result: Result<(), GroupError>| result.map_or_else(errors::group, |()| errors::NONE);
    if call.version < BATCHED {
        // The one member's result is the whole request's.
        let error_code = results
            .into_iter()
            .map(code)
            .find(|code| *code != errors::NONE)
            .unwrap_or(errors::NONE);
        return LeaveGroupResponse {
            error_code,
            ..LeaveGroupResponse::default()
        };
    }
    let members = leavers
        .into_iter()
        .zip(results)
        .map(|(leaver, result)| MemberResponse {
            member_id: leaver.member_id,
            group_instance_id: leaver.instance_id,
            error_code: code(result),
        });
    LeaveGroupResponse {
        members: members.collect(),
        ..LeaveGroupResponse::default()
    }
}
