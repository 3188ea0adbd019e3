//! OffsetForLeaderEpoch (23): where an epoch's records end, so that a client finds out what was truncated (KIP-101).

use model::LeaderEpoch;
use wire::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};

use super::{Call, held_partition};
use crate::broker::Refusal;
use crate::broker::access::right;
use crate::front::kafka::errors;

pub(super) async fn answer(
    request: OffsetForLeaderEpochRequest,
    call: Call,
) -> OffsetForLeaderEpochResponse {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|partition| one(&topic.topic, partition, &call))
                .collect();
            OffsetForLeaderTopicResult {
                topic: topic.topic,
                partitions,
            }
        })
        .collect();
    OffsetForLeaderEpochResponse {
        topics,
        ..OffsetForLeaderEpochResponse::default()
    }
}

fn one(topic: &str, wanted: &OffsetForLeaderPartition, call: &Call) -> EpochEndOffset {
    let find = || -> Result<_, Refusal> {
        let topic = call.door.topic(topic, right::Describe)?;
        let known = LeaderEpoch::from_wire(wanted.current_leader_epoch);
        let epoch = LeaderEpoch::from_wire(wanted.leader_epoch);
        let partition = held_partition(&topic, wanted.partition)?;
        call.broker()
            .end_offset_for_epoch(&topic, partition, known, epoch)
    };
    let nothing = EpochEndOffset {
        partition: wanted.partition,
        leader_epoch: -1,
        end_offset: -1,
        ..EpochEndOffset::default()
    };
    match find() {
        Ok(Some((epoch, end))) => EpochEndOffset {
            leader_epoch: epoch.to_wire(),
            end_offset: end.to_wire(),
            ..nothing
        },
        Ok(None) => nothing,
        Err(refusal) => EpochEndOffset {
            error_code: errors::code(&refusal),
            ..nothing
        },
    }
}
