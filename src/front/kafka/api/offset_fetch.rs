//! OffsetFetch: durable offsets, of one group or from version 8 of many. Without transactions every offset is stable.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use model::{LeaderEpoch, PartitionId};
use wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestTopic, OffsetFetchRequestTopics, OffsetFetchResponse,
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};

use super::Call;
use crate::broker::access::{Granted, Group, right};
use crate::broker::groups::CommittedOffset;
use crate::broker::{Refusal, Topic};
use crate::front::kafka::errors::{self, Failure};

/// The first version that asks for many groups at once.
const BATCHED: i16 = 8;
/// The first version with an error for the whole request.
const HAS_ERROR: i16 = 2;
/// Offsets that are copied before it is asked whether more fit into the answer.
const PIECE: usize = 256;
/// What stands for no committed offset.
const NO_OFFSET: i64 = -1;

pub(super) async fn answer(request: OffsetFetchRequest, call: Call) -> OffsetFetchResponse {
    let mut named = Named::default();
    if call.version >= BATCHED {
        let mut groups = Vec::new();
        for group in request.groups {
            let (error_code, topics) =
                match fetch(&call, &group.group_id, group.topics, &mut named).await {
                    Ok(topics) => (errors::NONE, topics),
                    Err(failure) => (failure.code(), Vec::new()),
                };
            groups.push(OffsetFetchResponseGroup {
                group_id: group.group_id,
                topics,
                error_code,
            });
        }
        return OffsetFetchResponse {
            groups,
            ..OffsetFetchResponse::default()
        };
    }
    let topics = request.topics.map(|topics| {
        let batched = |it: OffsetFetchRequestTopic| OffsetFetchRequestTopics {
            name: it.name,
            partition_indexes: it.partition_indexes,
            ..OffsetFetchRequestTopics::default()
        };
        topics.into_iter().map(batched).collect()
    });
    match fetch(&call, &request.group_id, topics, &mut named).await {
        Ok(topics) => OffsetFetchResponse {
            topics: topics.into_iter().map(single).collect(),
            ..OffsetFetchResponse::default()
        },
        Err(failure) if call.version >= HAS_ERROR => OffsetFetchResponse {
            error_code: failure.code(),
            ..OffsetFetchResponse::default()
        },
        Err(failure) => OffsetFetchResponse {
            topics: named.refused(&failure),
            ..OffsetFetchResponse::default()
        },
    }
}

/// What was asked for so far: each partition of a group is answered once, however often it is named.
#[derive(Default)]
struct Named {
    partitions: HashMap<(String, String), HashSet<i32>>,
}

impl Named {
    /// The partitions that were not named before.
    fn new_ones(&mut self, group: &str, topic: &str, partitions: Vec<i32>) -> Vec<i32> {
        let key = (group.to_owned(), topic.to_owned());
        let named = self.partitions.entry(key).or_default();
        let mut once = partitions;
        once.retain(|partition| named.insert(*partition));
        once
    }

    /// All that was asked for, refused.
    fn refused(self, failure: &Failure) -> Vec<OffsetFetchResponseTopic> {
        let partition = |index| OffsetFetchResponsePartition {
            error_code: failure.code(),
            ..single_partition(partition(index, None))
        };
        let topic = |((_, name), partitions): ((String, String), HashSet<i32>)| {
            let partitions = partitions.into_iter().map(partition).collect();
            OffsetFetchResponseTopic { name, partitions }
        };
        self.partitions.into_iter().map(topic).collect()
    }
}

/// The offsets of these topics' partitions, in order; of all that have one if none are named.
async fn fetch(
    call: &Call,
    group: &str,
    topics: Option<Vec<OffsetFetchRequestTopics>>,
    named: &mut Named,
) -> Result<Vec<OffsetFetchResponseTopics>, Failure> {
    let granted = match call.door.group(group, right::Describe) {
        Ok(granted) => granted,
        Err(refusal) => {
            for topic in topics.into_iter().flatten() {
                named.new_ones(group, &topic.name, topic.partition_indexes);
            }
            return Err(refusal.into());
        }
    };
    let Some(topics) = topics else {
        return fetch_all(call, &granted).await;
    };
    let mut answered = Vec::with_capacity(topics.len());
    for topic in topics {
        let indexes = named.new_ones(group, &topic.name, topic.partition_indexes);
        let mut partitions = Vec::with_capacity(indexes.len());
        let known = call.door.topic(&topic.name, right::Describe);
        if let Err(refusal @ Refusal::Denied { .. }) = &known {
            let refused = |index: &i32| OffsetFetchResponsePartitions {
                error_code: errors::code(refusal),
                ..partition(*index, None)
            };
            answered.push(OffsetFetchResponseTopics {
                partitions: indexes.iter().map(refused).collect(),
                name: topic.name,
                ..OffsetFetchResponseTopics::default()
            });
            continue;
        }
        let known = known.ok();
        let name = known.as_ref().map(|topic| &topic.name);
        for indexes in indexes.chunks(PIECE) {
            let Some(name) = name else {
                partitions.extend(indexes.iter().map(|index| partition(*index, None)));
                continue;
            };
            let valid: Vec<_> = indexes
                .iter()
                .filter_map(|index| Some((name.clone(), PartitionId::from_wire(*index)?)))
                .collect();
            let found = granted.fetch(&valid);
            call.answer
                .hold(found.iter().flatten().map(bytes_of).sum())
                .await?;
            let mut found = found.into_iter();
            for index in indexes {
                let committed = match *index {
                    ..0 => None,
                    _ => found.next().flatten(),
                };
                let committed = committed.filter(|committed| is_of(known.as_deref(), committed));
                partitions.push(partition(*index, committed));
            }
        }
        answered.push(OffsetFetchResponseTopics {
            partitions,
            name: topic.name,
            ..OffsetFetchResponseTopics::default()
        });
    }
    Ok(answered)
}

async fn fetch_all(
    call: &Call,
    group: &Granted<Group<'_>, right::Describe>,
) -> Result<Vec<OffsetFetchResponseTopics>, Failure> {
    let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
    let mut after = None;
    loop {
        let page = group.fetch_after(after.take(), PIECE);
        let Some((name, index, _)) = page.last() else {
            return Ok(topics);
        };
        after = Some((name.clone(), *index));
        let committed = page.iter().map(|(_, _, committed)| committed);
        call.answer.hold(committed.map(bytes_of).sum()).await?;
        for (name, index, committed) in page {
            let known = call.door.topic_if_allowed(&name, right::Describe);
            if !is_of(known.as_deref(), &committed) {
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
    }
}

/// What an offset takes, in the answer and before it.
fn bytes_of(committed: &CommittedOffset) -> usize {
    200 + 2 * committed.metadata.len()
}

/// An offset of a topic that was deleted, and perhaps created anew, counts for nothing.
fn is_of(topic: Option<&Arc<Topic>>, committed: &CommittedOffset) -> bool {
    topic.is_some_and(|topic| topic.id == committed.topic_id)
}

fn partition(
    partition_index: i32,
    committed: Option<CommittedOffset>,
) -> OffsetFetchResponsePartitions {
    let (offset, epoch, metadata) = match committed {
        Some(committed) => (
            committed.offset.to_wire(),
            committed.leader_epoch,
            committed.metadata,
        ),
        None => (NO_OFFSET, None, String::new()),
    };
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: offset,
        committed_leader_epoch: epoch.map_or(-1, LeaderEpoch::to_wire),
        metadata: Some(metadata),
        ..OffsetFetchResponsePartitions::default()
    }
}

fn single(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(single_partition).collect(),
    }
}

fn single_partition(it: OffsetFetchResponsePartitions) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition {
        partition_index: it.partition_index,
        committed_offset: it.committed_offset,
        committed_leader_epoch: it.committed_leader_epoch,
        metadata: it.metadata,
        error_code: it.error_code,
    }
}
