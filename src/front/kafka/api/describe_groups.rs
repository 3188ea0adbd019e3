//! DescribeGroups: state and members of groups by id.

use std::collections::HashSet;

use wire::messages::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};

use super::{Call, operations};
use crate::broker::access::right;
use crate::broker::groups::{GroupDescription, GroupError, GroupState, MemberDescription};
use crate::front::kafka::errors::{self, Failure};

/// The first version that says that a group does not exist, instead of calling it dead, and has a text (KIP-1043).
const KNOWS_MISSING: i16 = 6;

pub(super) async fn answer(request: DescribeGroupsRequest, call: Call) -> DescribeGroupsResponse {
    let mut named = HashSet::new();
    let mut groups = Vec::new();
    // One answer for all mentions of a group.
    for group_id in request.groups {
        if !named.insert(group_id.clone()) {
            continue;
        }
        let description = match call.door.group(&group_id, right::Describe) {
            Ok(group) => group.describe().map(Ok),
            Err(refusal) => Some(Err(Failure::from(refusal))),
        };
        let mut described = match description {
            Some(Ok(description)) => match call.answer.hold(bytes_of(&description)).await {
                Ok(()) => found(group_id, description),
                Err(misuse) => refused(group_id, &misuse.into(), call.version),
            },
            Some(Err(failure)) => refused(group_id, &failure, call.version),
            None => missing(group_id, call.version),
        };
        let asked = request.include_authorized_operations && described.error_code == errors::NONE;
        described.authorized_operations =
            operations::of_group(asked, &described.group_id, &call.door);
        groups.push(described);
    }
    DescribeGroupsResponse {
        groups,
        ..DescribeGroupsResponse::default()
    }
}

/// What a described group takes, in the answer and before it.
fn bytes_of(group: &GroupDescription) -> usize {
    let member = |member: &MemberDescription| {
        512 + 2 * (member.member_id.len() + member.client.client_id.len())
            + member.metadata.len()
            + member.assignment.len()
    };
    group.members.iter().map(member).sum()
}

fn refused(group_id: String, failure: &Failure, version: i16) -> DescribedGroup {
    DescribedGroup {
        error_code: failure.code(),
        error_message: (version >= KNOWS_MISSING).then(|| failure.to_string()),
        group_id,
        ..DescribedGroup::default()
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
