//! ShareGroupDescribe (77): share groups with their members, by id.

use std::collections::{HashMap, HashSet};

use model::{PartitionId, TopicId};
use wire::messages::share_group_describe::{
    Assignment, DescribedGroup, Member, ShareGroupDescribeRequest, ShareGroupDescribeResponse,
    TopicPartitions,
};

use super::list_groups::share_state;
use super::{Call, operations};
use crate::broker::Refusal;
use crate::broker::access::right;
use crate::broker::share::{ShareDescription, ShareError, ShareMember};
use crate::front::kafka::errors::{self, Failure};

/// How partitions are assigned, by Kafka's name.
const ASSIGNOR: &str = "simple";

pub(super) async fn answer(
    request: ShareGroupDescribeRequest,
    call: Call,
) -> ShareGroupDescribeResponse {
    let mut named = HashSet::new();
    let mut groups = Vec::new();
    for group_id in request.group_ids {
        if !named.insert(group_id.clone()) {
            continue;
        }
        let mut described = match found(&group_id, &call).await {
            Ok(described) => described,
            Err(failure) => DescribedGroup {
                error_code: failure.code(),
                error_message: Some(failure.to_string()),
                ..DescribedGroup::default()
            },
        };
        let asked = request.include_authorized_operations && described.error_code == errors::NONE;
        described.authorized_operations = operations::of_group(asked, &group_id, &call.door);
        described.group_id = group_id;
        groups.push(described);
    }
    ShareGroupDescribeResponse {
        groups,
        ..ShareGroupDescribeResponse::default()
    }
}

async fn found(group_id: &str, call: &Call) -> Result<DescribedGroup, Failure> {
    let group = call.door.group(group_id, right::Describe)?;
    if group_id.is_empty() {
        return Err(ShareError::InvalidGroupId.into());
    }
    let ShareDescription { epoch, members } = group.describe_shared()?;
    call.answer.hold(members.iter().map(bytes_of).sum()).await?;
    let names = names_of(&members, call)?;
    let has_members = !members.is_empty();
    let member = |member: ShareMember| Member {
        member_id: member.member_id,
        rack_id: member.rack,
        member_epoch: member.epoch,
        client_id: member.client.client_id,
        client_host: member.client.host,
        subscribed_topic_names: member.topics,
        assignment: assignment(member.assigned, &names),
    };
    Ok(DescribedGroup {
        group_state: share_state(has_members).into(),
        group_epoch: epoch,
        assignment_epoch: epoch,
        assignor_name: ASSIGNOR.into(),
        members: members.into_iter().map(member).collect(),
        ..DescribedGroup::default()
    })
}

/// What a described member takes, in the answer and before it.
fn bytes_of(member: &ShareMember) -> usize {
    let topics = member.topics.iter().map(|topic| 128 + 2 * topic.len());
    let assigned = member.assigned.values().map(|of| 512 + 8 * of.len());
    let id = member.member_id.len() + member.client.client_id.len();
    512 + 2 * id + topics.sum::<usize>() + assigned.sum::<usize>()
}

/// The names of the topics that members read, all of which who asks must be allowed to describe.
fn names_of(members: &[ShareMember], call: &Call) -> Result<HashMap<TopicId, String>, Failure> {
    let names: HashSet<&String> = members.iter().flat_map(|it| &it.topics).collect();
    let mut found = HashMap::new();
    for name in names {
        match call.door.topic(name, right::Describe) {
            Ok(topic) => drop(found.insert(topic.id, name.clone())),
            Err(denied @ Refusal::Denied { .. }) => return Err(denied.into()),
            Err(_) => {}
        }
    }
    Ok(found)
}

/// What a member was told to fetch, of the topics that are there.
fn assignment(
    assigned: crate::broker::share::Assigned,
    names: &HashMap<TopicId, String>,
) -> Assignment {
    let topic = |(topic, partitions): (TopicId, Vec<PartitionId>)| {
        Some(TopicPartitions {
            topic_id: topic.as_uuid(),
            topic_name: names.get(&topic)?.clone(),
            partitions: partitions.into_iter().map(PartitionId::to_wire).collect(),
        })
    };
    Assignment {
        topic_partitions: assigned.into_iter().filter_map(topic).collect(),
    }
}
