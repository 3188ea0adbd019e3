//! DescribeGroups: state and members of groups by id.

use wire::messages::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};

use super::{Call, operations};
use crate::broker::groups::{GroupDescription, GroupError, GroupState, MemberDescription};
use crate::front::kafka::errors;

/// The first version that says that a group does not exist, instead of calling it dead (KIP-1043).
const KNOWS_MISSING: i16 = 6;

pub(super) async fn answer(request: DescribeGroupsRequest, call: Call) -> DescribeGroupsResponse {
    let describe = |group_id: String| {
        let mut described = match call.broker.groups().describe(&group_id) {
            Some(description) => found(group_id, description),
            None => missing(group_id, call.version),
        };
        let asked = request.include_authorized_operations && described.error_code == errors::NONE;
        described.authorized_operations = operations::of_group(asked);
        described
    };
    DescribeGroupsResponse {
        groups: request.groups.into_iter().map(describe).collect(),
        ..DescribeGroupsResponse::default()
    }
}

fn found(group_id: String, description: GroupDescription) -> DescribedGroup {
    DescribedGroup {
        group_id,
        group_state: description.state.name().into(),
        protocol_type: description.protocol_type,
        protocol_data: description.protocol,
        members: description.members.into_iter().map(member).collect(),
        ..DescribedGroup::default()
    }
}

fn member(member: MemberDescription) -> DescribedGroupMember {
    DescribedGroupMember {
        member_id: member.member_id,
        group_instance_id: member.instance_id,
        client_id: member.client.client_id,
        client_host: member.client.host,
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    }
}

fn missing(group_id: String, version: i16) -> DescribedGroup {
    let group_state = GroupState::Dead.name().into();
    if version < KNOWS_MISSING {
        return DescribedGroup {
            group_id,
            group_state,
            ..DescribedGroup::default()
        };
    }
    let error_message = Some(format!("Group {group_id} not found."));
    DescribedGroup {
        error_code: errors::group(GroupError::NotFound),
        error_message,
        group_id,
        group_state,
        ..DescribedGroup::default()
    }
}
