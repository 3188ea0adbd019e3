//! DescribeProducers (61): the idempotent producers that partitions remember, for `kafka-transactions.sh` and admin clients.
//! None of them has a transaction. Their time is that of the broker's last append, which expiry goes by.

use std::collections::{HashMap, HashSet};

use wire::messages::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState,
    TopicResponse,
};

use super::{Call, held_partition};
use crate::broker::access::right;
use crate::broker::{ActiveProducer, Refusal};
use crate::front::kafka::errors::Failure;

/// What a producer's state, its description and their bytes in the answer take.
const PRODUCER_BYTES: usize = 400;
/// There is no coordinator of transactions, and so no epoch of one.
const NO_EPOCH: i32 = -1;

pub(super) async fn answer(
    request: DescribeProducersRequest,
    call: Call,
) -> DescribeProducersResponse {
    let mut named: HashMap<String, HashSet<i32>> = HashMap::new();
    let mut topics = Vec::new();
    // One answer for all mentions of a partition.
    for topic in request.topics {
        let indexes = named.entry(topic.name.clone()).or_default();
        let mut partitions = Vec::new();
        for index in topic.partition_indexes {
            if indexes.insert(index) {
                partitions.push(one(&topic.name, index, &call).await);
            }
        }
        topics.push(TopicResponse {
            name: topic.name,
            partitions,
        });
    }
    DescribeProducersResponse {
        topics,
        ..DescribeProducersResponse::default()
    }
}

async fn one(topic: &str, partition_index: i32, call: &Call) -> PartitionResponse {
    let find = async || -> Result<_, Failure> {
        model::TopicName::parse(topic).map_err(Refusal::from)?;
        let topic = call.door.topic(topic, right::Read)?;
        let partition = held_partition(&topic, partition_index)?;
        let count = call.broker().producer_count(&topic, partition)?;
        call.answer.hold(count * PRODUCER_BYTES).await?;
        Ok(call.broker().active_producers(&topic, partition)?)
    };
    let nothing = PartitionResponse {
        partition_index,
        ..PartitionResponse::default()
    };
    match find().await {
        Ok(producers) => PartitionResponse {
            active_producers: producers.into_iter().map(described).collect(),
            ..nothing
        },
        Err(failure) => PartitionResponse {
            error_code: failure.code(),
            error_message: Some(failure.to_string()),
            ..nothing
        },
    }
}

fn described(producer: ActiveProducer) -> ProducerState {
    ProducerState {
        producer_id: producer.id.get(),
        producer_epoch: producer.epoch.get().into(),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_append_time.millis(),
        coordinator_epoch: NO_EPOCH,
        current_txn_start_offset: -1,
    }
}
