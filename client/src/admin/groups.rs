//! Consumer groups and their committed offsets. A group's coordinator is asked.
//! Callers: whoever holds an [`Admin`]; the group member, for requests and answers of commits.

use super::{Admin, LATEST, by_topic, topic_partition};
use crate::error::check;
use crate::{Error, Result};
use model::{Offset, TopicPartition};
use std::collections::HashMap;
use std::time::Duration;
use wire::messages::delete_groups::DeleteGroupsRequest;
use wire::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup};
use wire::messages::list_groups::ListGroupsRequest;
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use wire::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};

/// From 8 on several groups are asked for at once, in other fields.
const OFFSET_FETCH_VERSION_MAX: i16 = 7;

/// From 10 on topics go by their ids.
pub(crate) const OFFSET_COMMIT_VERSION_MAX: i16 = 9;

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next record to be read.
    pub offset: Offset,
    /// The committer's own note.
    pub metadata: String,
}

/// A group as a broker lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// Its name.
    pub group: String,
    /// What kind of members it has, `consumer`.
    pub protocol_type: String,
    /// Its state, if the broker tells.
    pub state: String,
    /// Which group protocol it speaks, if the broker tells.
    pub group_type: String,
}

/// A group in detail.
#[derive(Clone, Debug)]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// `Stable`, `Empty`, `Dead` and so on.
    pub state: String,
    /// What kind of members it has.
    pub protocol_type: String,
    /// The assignor that its members agreed on.
    pub protocol: String,
    /// Its coordinator.
    pub coordinator: i32,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug)]
pub struct GroupMember {
    /// Its id.
    pub member_id: String,
    /// Its name across restarts, if it has one.
    pub instance_id: Option<String>,
    /// How its client calls itself.
    pub client_id: String,
    /// Where it is.
    pub host: String,
    /// What it reads.
    pub partitions: Vec<TopicPartition>,
}

impl Admin {
    /// Groups of all brokers.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>> {
        let brokers = self.client.retry(|| self.client.refresh(Some(&[]))).await?;
        let mut groups = Vec::new();
        for broker in brokers.brokers.keys() {
            let answer = self
                .call_broker(*broker, &ListGroupsRequest::default(), LATEST)
                .await?;
            check(
                answer.error_code,
                || format!("groups of broker {broker}"),
                None,
            )?;
            groups.extend(answer.groups.into_iter().map(|g| GroupListing {
                group: g.group_id,
                protocol_type: g.protocol_type,
                state: g.group_state,
                group_type: g.group_type,
            }));
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(groups)
    }

    /// A group in detail. One that does not exist is `Dead`, or an error, as the broker has it.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        self.on_coordinator(group, |coordinator| async move {
            let request = DescribeGroupsRequest {
                groups: vec![group.to_owned()],
                ..Default::default()
            };
            let answer = self
                .client
                .call_broker(coordinator, &request, LATEST, Duration::ZERO)
                .await?;
            let missing = || Error::Invalid(format!("the answer does not mention group {group}"));
            let found = answer.groups.into_iter().next().ok_or_else(missing)?;
            check(
                found.error_code,
                || format!("group {group}"),
                found.error_message.as_ref(),
            )?;
            Ok(describe(found, coordinator))
        })
        .await
    }

    /// Deletes a group without members, and all that it committed.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        self.on_coordinator(group, |coordinator| async move {
            let request = DeleteGroupsRequest {
                groups_names: vec![group.to_owned()],
            };
            let answer = self
                .client
                .call_broker(coordinator, &request, LATEST, Duration::ZERO)
                .await?;
            for result in &answer.results {
                check(result.error_code, || format!("group {group}"), None)?;
            }
            Ok(())
        })
        .await
    }

    /// What a group committed, for some partitions or for all. Partitions without a commit are not in the result.
    pub async fn committed(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<HashMap<TopicPartition, Committed>> {
        let topics = partitions.map(|list| {
            let topics = by_topic(list, |p| p, |p| p.partition.to_wire());
            let topic = |(name, partition_indexes)| OffsetFetchRequestTopic {
                name,
                partition_indexes,
            };
            topics.into_iter().map(topic).collect::<Vec<_>>()
        });
        let request = &OffsetFetchRequest {
            group_id: group.to_owned(),
            topics,
            ..Default::default()
        };
        self.on_coordinator(group, |coordinator| async move {
            let answer = self
                .client
                .call_broker(
                    coordinator,
                    request,
                    OFFSET_FETCH_VERSION_MAX,
                    Duration::ZERO,
                )
                .await?;
            check(answer.error_code, || format!("group {group}"), None)?;
            let mut committed = HashMap::new();
            for topic in answer.topics {
                for p in topic.partitions {
                    let Some(partition) = topic_partition(&topic.name, p.partition_index) else {
                        continue;
                    };
                    check(
                        p.error_code,
                        || format!("{partition} of group {group}"),
                        None,
                    )?;
                    if let Some(offset) = Offset::from_wire(p.committed_offset) {
                        let metadata = p.metadata.unwrap_or_default();
                        committed.insert(partition, Committed { offset, metadata });
                    }
                }
            }
            Ok(committed)
        })
        .await
    }

    /// Commits for a group that has no members now, to move it.
    pub async fn commit(&self, group: &str, offsets: &[(TopicPartition, Committed)]) -> Result<()> {
        let request = &commit_request(group, offsets);
        self.on_coordinator(group, |coordinator| async move {
            let answer = self
                .client
                .call_broker(
                    coordinator,
                    request,
                    OFFSET_COMMIT_VERSION_MAX,
                    Duration::ZERO,
                )
                .await?;
            check_commit(&answer, group)
        })
        .await
    }

    /// Forgets what a group committed for some partitions.
    pub async fn delete_committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<()> {
        let topics = by_topic(
            partitions,
            |p| p,
            |p| OffsetDeleteRequestPartition {
                partition_index: p.partition.to_wire(),
            },
        );
        let topic = |(name, partitions)| OffsetDeleteRequestTopic { name, partitions };
        let topics = topics.into_iter().map(topic).collect();
        let request = &OffsetDeleteRequest {
            group_id: group.to_owned(),
            topics,
        };
        self.on_coordinator(group, |coordinator| async move {
            let answer = self
                .client
                .call_broker(coordinator, request, LATEST, Duration::ZERO)
                .await?;
            check(answer.error_code, || format!("group {group}"), None)?;
            for topic in &answer.topics {
                for p in &topic.partitions {
                    check(
                        p.error_code,
                        || format!("{}-{}", topic.name, p.partition_index),
                        None,
                    )?;
                }
            }
            Ok(())
        })
        .await
    }
}

pub(crate) fn commit_request(
    group: &str,
    offsets: &[(TopicPartition, Committed)],
) -> OffsetCommitRequest {
    let topics = by_topic(
        offsets,
        |(p, _)| p,
        |(p, committed)| OffsetCommitRequestPartition {
            partition_index: p.partition.to_wire(),
            committed_offset: committed.offset.to_wire(),
            committed_metadata: Some(committed.metadata.clone()),
            ..Default::default()
        },
    );
    let topic = |(name, partitions)| OffsetCommitRequestTopic {
        name,
        partitions,
        ..Default::default()
    };
    OffsetCommitRequest {
        group_id: group.to_owned(),
        topics: topics.into_iter().map(topic).collect(),
        ..Default::default()
    }
}

pub(crate) fn check_commit(
    answer: &wire::messages::offset_commit::OffsetCommitResponse,
    group: &str,
) -> Result<()> {
    for topic in &answer.topics {
        for p in &topic.partitions {
            check(
                p.error_code,
                || format!("{}-{} of group {group}", topic.name, p.partition_index),
                None,
            )?;
        }
    }
    Ok(())
}

fn describe(group: DescribedGroup, coordinator: i32) -> GroupDescription {
    let members = group.members.into_iter().map(|member| {
        // Other protocol types put other things there.
        let assignment =
            wire::consumer::decode_assignment(member.member_assignment).unwrap_or_default();
        let partitions = assignment.assigned_partitions.iter();
        GroupMember {
            member_id: member.member_id,
            instance_id: member.group_instance_id,
            client_id: member.client_id,
            host: member.client_host,
            partitions: partitions
                .flat_map(|t| {
                    t.partitions
                        .iter()
                        .filter_map(|p| topic_partition(&t.topic, *p))
                })
                .collect(),
        }
    });
    GroupDescription {
        members: members.collect(),
        group: group.group_id,
        state: group.group_state,
        protocol_type: group.protocol_type,
        protocol: group.protocol_data,
        coordinator,
    }
}
