//! OffsetFetch: durable offsets, of one group or from version 8 of many. Without transactions every offset is stable.

use model::{LeaderEpoch, Offset, PartitionId, TopicName};
use wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestTopics, OffsetFetchResponse, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};

use super::Call;
use crate::broker::Broker;
use crate::broker::groups::CommittedOffset;

/// The first version that asks for many groups at once.
const BATCHED: i16 = 8;

pub(super) async fn answer(request: OffsetFetchRequest, call: Call) -> OffsetFetchResponse {
    if call.version >= BATCHED {
        let groups = request.groups.into_iter().map(|group| {
            let topics = fetch(&call.broker, &group.group_id, group.topics);
            OffsetFetchResponseGroup {
                group_id: group.group_id,
                topics,
                ..OffsetFetchResponseGroup::default()
            }
        });
        return OffsetFetchResponse {
            groups: groups.collect(),
            ..OffsetFetchResponse::default()
        };
    }
    let as_batched = |topics: Vec<wire::messages::offset_fetch::OffsetFetchRequestTopic>| {
        let topic =
            |it: wire::messages::offset_fetch::OffsetFetchRequestTopic| OffsetFetchRequestTopics {
                name: it.name,
                partition_indexes: it.partition_indexes,
                ..OffsetFetchRequestTopics::default()
            };
        topics.into_iter().map(topic).collect()
    };
    let topics = fetch(
        &call.broker,
        &request.group_id,
        request.topics.map(as_batched),
    )
    .into_iter()
    .map(single);
    OffsetFetchResponse {
        topics: topics.collect(),
        ..OffsetFetchResponse::default()
    }
}

/// The offsets of these topics' partitions, in order; of all that have one if none are named.
fn fetch(
    broker: &Broker,
    group: &str,
    topics: Option<Vec<OffsetFetchRequestTopics>>,
) -> Vec<OffsetFetchResponseTopics> {
    let Some(topics) = topics else {
        return fetch_all(broker, group);
    };
    let topic = |topic: OffsetFetchRequestTopics| {
        let Ok(name) = TopicName::parse(&topic.name) else {
            let partitions = topic
                .partition_indexes
                .into_iter()
                .map(|index| partition(index, None))
                .collect();
            return OffsetFetchResponseTopics {
                name: topic.name,
                partitions,
                ..OffsetFetchResponseTopics::default()
            };
        };
        let valid: Vec<_> = topic
            .partition_indexes
            .iter()
            .filter_map(|index| Some((name.clone(), PartitionId::from_wire(*index)?)))
            .collect();
        let mut found = broker.groups().fetch(group, &valid).into_iter();
        let partitions = topic.partition_indexes.into_iter().map(|index| {
            let committed = if index < 0 {
                None
            } else {
                found.next().flatten()
            };
            partition(
                index,
                committed.filter(|committed| is_current(broker, &name, committed)),
            )
        });
        OffsetFetchResponseTopics {
            partitions: partitions.collect(),
            name: topic.name,
            ..OffsetFetchResponseTopics::default()
        }
    };
    topics.into_iter().map(topic).collect()
}

fn fetch_all(broker: &Broker, group: &str) -> Vec<OffsetFetchResponseTopics> {
    let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
    for (name, index, committed) in broker.groups().fetch_all(group) {
        if !is_current(broker, &name, &committed) {
            continue;
        }
        let partition = partition(index.to_wire(), Some(committed));
        match topics.last_mut() {
            Some(topic) if topic.name == name.as_str() => topic.partitions.push(partition),
            _ => topics.push(OffsetFetchResponseTopics {
                name: name.as_str().into(),
                partitions: vec![partition],
                ..OffsetFetchResponseTopics::default()
            }),
        }
    }
    topics
}

/// An offset of a topic that was deleted, and perhaps created anew, counts for nothing.
fn is_current(broker: &Broker, name: &TopicName, committed: &CommittedOffset) -> bool {
    broker
        .topic(name.as_str())
        .is_ok_and(|topic| topic.id == committed.topic_id)
}

fn partition(
    partition_index: i32,
    committed: Option<CommittedOffset>,
) -> OffsetFetchResponsePartitions {
    let (offset, epoch, metadata) = match committed {
        Some(committed) => (committed.offset, committed.leader_epoch, committed.metadata),
        None => (None, None, String::new()),
    };
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: offset.map_or(-1, Offset::to_wire),
        committed_leader_epoch: epoch.map_or(-1, LeaderEpoch::to_wire),
        metadata: Some(metadata),
        ..OffsetFetchResponsePartitions::default()
    }
}

fn single(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partition = |it: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: it.partition_index,
        committed_offset: it.committed_offset,
        committed_leader_epoch: it.committed_leader_epoch,
        metadata: it.metadata,
        error_code: it.error_code,
    };
    OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    }
}
