//! OffsetDelete: single offsets of a group, but not of topics that its members read.

use wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
};

use super::audit::{Change, some};
use super::{Call, held_partition};
use crate::broker::Refusal;
use crate::broker::access::right;
use crate::front::kafka::errors;

pub(super) async fn answer(request: OffsetDeleteRequest, call: Call) -> OffsetDeleteResponse {
    let mut wanted = Vec::new();
    let mut topics = Vec::new();
    // One slot for each partition in the order of the request: its index, and its code unless the group has the say.
    for topic in request.topics {
        let known = call.door.topic(&topic.name, right::Read);
        let refused = match &known {
            Err(refusal @ Refusal::Denied { .. }) => errors::code(refusal),
            _ => errors::code(&Refusal::UnknownTopicOrPartition),
        };
        let mut slots = Vec::new();
        for partition in topic.partitions {
            let index = partition.partition_index;
            let place = known.as_ref().ok().and_then(|topic| {
                let partition = held_partition(topic, index).ok()?;
                Some((topic.name.clone(), partition))
            });
            slots.push((index, place.is_none().then_some(refused)));
            wanted.extend(place);
        }
        topics.push((topic.name, slots));
    }
    let results = match call.door.group(&request.group_id, right::Delete) {
        Ok(group) => group.delete_offsets(&wanted).await.map_err(errors::group),
        Err(refusal) => Err(errors::code(&refusal)),
    };
    let results = match results {
        Ok(results) => results,
        Err(error_code) => {
            return OffsetDeleteResponse {
                error_code,
                ..OffsetDeleteResponse::default()
            };
        }
    };
    let deleted: Vec<String> = wanted
        .iter()
        .zip(&results)
        .filter(|(_, result)| result.is_ok())
        .map(|((topic, partition), _)| format!("{topic}-{partition}"))
        .collect();
    if !deleted.is_empty() {
        call.changed(&Change::OffsetsDeleted {
            group: &request.group_id,
            partitions: &some(deleted.into_iter()),
        });
    }
    let mut codes = results
        .into_iter()
        .map(|result| result.map_or_else(errors::group, |()| errors::NONE));
    let topics = topics
        .into_iter()
        .map(|(name, slots)| OffsetDeleteResponseTopic {
            name,
            partitions: slots
                .into_iter()
                .map(|(partition_index, refused)| OffsetDeleteResponsePartition {
                    partition_index,
                    error_code: refused
                        .unwrap_or_else(|| codes.next().expect("each place has one result")),
                })
                .collect(),
        });
    OffsetDeleteResponse {
        topics: topics.collect(),
        ..OffsetDeleteResponse::default()
    }
}
