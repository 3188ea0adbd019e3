//! DescribeShareGroupOffsets (90): how far share groups are, with partitions that are named or all that they have begun with.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{PartitionId, TopicId};
use uuid::Uuid;
use wire::messages::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup,
    DescribeShareGroupOffsetsRequestTopic, DescribeShareGroupOffsetsResponse,
    DescribeShareGroupOffsetsResponseGroup, DescribeShareGroupOffsetsResponsePartition,
    DescribeShareGroupOffsetsResponseTopic,
};

use super::Call;
use crate::broker::access::{Granted, Group, right};
use crate::broker::share::Place;
use crate::broker::{Refusal, Topic};
use crate::front::kafka::errors::{self, Failure};

/// Stands for what is not known.
const NONE: i64 = -1;

type DescribedGroup<'a> = Granted<Group<'a>, right::Describe>;
type DescribedTopic = Granted<Arc<Topic>, right::Describe>;

pub(super) async fn answer(
    request: DescribeShareGroupOffsetsRequest,
    call: Call,
) -> DescribeShareGroupOffsetsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    for asked in request.groups {
        let group_id = asked.group_id.clone();
        let mut group = match described(asked, &call).await {
            Ok(topics) => DescribeShareGroupOffsetsResponseGroup {
                topics,
                ..DescribeShareGroupOffsetsResponseGroup::default()
            },
            Err(failure) => DescribeShareGroupOffsetsResponseGroup {
                error_code: failure.code(),
                error_message: Some(failure.to_string()),
                ..DescribeShareGroupOffsetsResponseGroup::default()
            },
        };
        group.group_id = group_id;
        groups.push(group);
    }
    DescribeShareGroupOffsetsResponse {
        groups,
        ..DescribeShareGroupOffsetsResponse::default()
    }
}

async fn described(
    asked: DescribeShareGroupOffsetsRequestGroup,
    call: &Call,
) -> Result<Vec<DescribeShareGroupOffsetsResponseTopic>, Failure> {
    let group = call.door.group(&asked.group_id, right::Describe)?;
    let Some(topics) = asked.topics else {
        return all_of(&group, call).await;
    };
    Ok(topics
        .into_iter()
        .map(|topic| named(&group, topic, call))
        .collect())
}

/// All topics of which the caller may know.
async fn all_of(
    group: &DescribedGroup<'_>,
    call: &Call,
) -> Result<Vec<DescribeShareGroupOffsetsResponseTopic>, Failure> {
    let places = group.shared_places()?;
    call.answer.hold(256 * places.len()).await?;
    let mut by_topic: BTreeMap<TopicId, Vec<PartitionId>> = BTreeMap::new();
    for Place { topic, partition } in places {
        by_topic.entry(topic).or_default().push(partition);
    }
    let mut topics = Vec::new();
    for (topic, partitions) in by_topic {
        let Ok(topic) = call.door.topic_by_id(topic, right::Describe) else {
            continue;
        };
        let partition = |partition: PartitionId| offset(group, &topic, partition.to_wire(), call);
        topics.push(DescribeShareGroupOffsetsResponseTopic {
            topic_name: topic.name.as_str().to_owned(),
            topic_id: topic.id.as_uuid(),
            partitions: partitions.into_iter().map(partition).collect(),
        });
    }
    Ok(topics)
}

fn named(
    group: &DescribedGroup<'_>,
    asked: DescribeShareGroupOffsetsRequestTopic,
    call: &Call,
) -> DescribeShareGroupOffsetsResponseTopic {
    let found = call.door.topic(&asked.topic_name, right::Describe);
    let partition = |index: i32| match &found {
        Ok(topic) => offset(group, topic, index, call),
        Err(denied @ Refusal::Denied { .. }) => DescribeShareGroupOffsetsResponsePartition {
            error_code: errors::code(denied),
            error_message: Some(errors::text(denied)),
            ..unknown(index)
        },
        // Not an error: there is nothing to tell.
        Err(_) => unknown(index),
    };
    DescribeShareGroupOffsetsResponseTopic {
        partitions: asked.partitions.into_iter().map(partition).collect(),
        topic_id: found
            .as_ref()
            .map_or(Uuid::nil(), |topic| topic.id.as_uuid()),
        topic_name: asked.topic_name,
    }
}

fn offset(
    group: &DescribedGroup<'_>,
    topic: &DescribedTopic,
    index: i32,
    call: &Call,
) -> DescribeShareGroupOffsetsResponsePartition {
    let partition = PartitionId::from_wire(index);
    let found = partition.and_then(|it| group.shared_offset(topic, it).ok().flatten());
    match found {
        Some(found) => DescribeShareGroupOffsetsResponsePartition {
            start_offset: found.start.to_wire(),
            leader_epoch: call.broker().leader_epoch().to_wire(),
            lag: i64::try_from(found.lag).unwrap_or(i64::MAX),
            ..unknown(index)
        },
        None => unknown(index),
    }
}

fn unknown(partition_index: i32) -> DescribeShareGroupOffsetsResponsePartition {
    DescribeShareGroupOffsetsResponsePartition {
        partition_index,
        start_offset: NONE,
        lag: NONE,
        ..DescribeShareGroupOffsetsResponsePartition::default()
    }
}
