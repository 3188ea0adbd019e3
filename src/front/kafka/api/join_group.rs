//! JoinGroup: answered when the generation is complete.

use std::time::Duration;

use wire::messages::join_group::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember};

use super::Call;
use crate::broker::access::right;
use crate::broker::groups::{ClientIdentity, JoinRefused, JoinRequest, Joined, Protocol};
use crate::front::kafka::errors;

/// The first version that fetches its member id before it joins (KIP-394).
const KNOWS_MEMBER_ID: i16 = 4;
/// The first version in which no chosen protocol is null instead of empty.
const NULL_PROTOCOL: i16 = 7;
/// The first version that can be told to skip the assignment (KIP-814).
const SKIPS_ASSIGNMENT: i16 = 9;

pub(super) async fn answer(request: JoinGroupRequest, call: Call) -> JoinGroupResponse {
    let session_timeout = millis(request.session_timeout_ms);
    let caller = call.door.caller();
    let join = JoinRequest {
        member_id: request.member_id,
        instance_id: request.group_instance_id,
        client: ClientIdentity {
            client_id: caller.client_id.clone().unwrap_or_default(),
            host: format!("/{}", caller.address.ip()),
        },
        session_timeout,
        // Version 0 has no timeout of its own for rebalances.
        rebalance_timeout: if call.version == 0 {
            session_timeout
        } else {
            millis(request.rebalance_timeout_ms)
        },
        protocol_type: request.protocol_type,
        protocols: request
            .protocols
            .into_iter()
            .map(|it| Protocol {
                name: it.name,
                metadata: it.metadata,
            })
            .collect(),
        must_know_member_id: call.version >= KNOWS_MEMBER_ID,
        can_skip_assignment: call.version >= SKIPS_ASSIGNMENT,
    };
    let group = match call.door.group(&request.group_id, right::Read) {
        Ok(group) => group,
        Err(refusal) => return rejected(errors::code(&refusal), String::new(), call.version),
    };
    match group.join(join).await {
        Ok(joined) => accepted(joined, call.version),
        Err(JoinRefused { error, member_id }) => {
            rejected(errors::group(error), member_id, call.version)
        }
    }
}

fn accepted(joined: Joined, version: i16) -> JoinGroupResponse {
    let members = joined
        .members
        .into_iter()
        .map(|member| JoinGroupResponseMember {
            member_id: member.member_id,
            group_instance_id: member.instance_id,
            metadata: member.metadata,
        });
    JoinGroupResponse {
        generation_id: joined.generation.get(),
        protocol_type: joined.protocol_type,
        protocol_name: protocol_name(joined.protocol, version),
        leader: joined.leader,
        skip_assignment: joined.skip_assignment,
        member_id: joined.member_id,
        members: members.collect(),
        ..JoinGroupResponse::default()
    }
}

fn rejected(error_code: i16, member_id: String, version: i16) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code,
        member_id,
        protocol_name: protocol_name(None, version),
        ..JoinGroupResponse::default()
    }
}

fn protocol_name(protocol: Option<String>, version: i16) -> Option<String> {
    if version >= NULL_PROTOCOL {
        protocol
    } else {
        Some(protocol.unwrap_or_default())
    }
}

fn millis(millis: i32) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
