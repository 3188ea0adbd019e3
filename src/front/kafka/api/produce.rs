//! Produce (0): appends in order, replies in order when it is durable. The next request may be appended meanwhile.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use model::TopicName;
use wire::messages::produce::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, TopicProduceResponse,
};
use wire::{ApiKey, Records};

use super::{Call, Reply, Request, encode};
use crate::broker::{Appending, Produce, Refusal, Rejection};
use crate::front::kafka::errors;
use crate::front::stats::Stats;

/// Kafka's `AdminUtils.ADMIN_CLIENT_ID`.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// One partition on its way.
struct Started {
    index: i32,
    result: Result<Appending, Rejection>,
}

/// Appends what the request holds; the inner future is the reply.
pub(super) fn start(request: Request) -> BoxFuture<'static, BoxFuture<'static, Reply>> {
    append(request).boxed()
}

async fn append(mut request: Request) -> BoxFuture<'static, Reply> {
    let message = match request.decode::<ProduceRequest>() {
        Ok(message) => message,
        Err(close) => return std::future::ready(close).boxed(),
    };
    let (correlation_id, version) = (request.correlation_id, request.call.version);
    let stats = request.call.stats.clone();
    let acks = message.acks;
    let mut topics = Vec::with_capacity(message.topic_data.len());
    let refused = match acks {
        -1..=1 => message
            .transactional_id
            .is_some()
            .then_some(Refusal::TransactionsUnsupported),
        other => Some(Refusal::InvalidRequiredAcks(other)),
    };
    for topic in message.topic_data {
        let found = match &refused {
            Some(refusal) => Err(refusal.clone()),
            None => writable(&topic.name, &request.call),
        };
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for partition in topic.partition_data {
            let index = partition.index;
            let result = match &found {
                Ok(found) => one(found, partition, acks, &request.call).await,
                Err(refusal) => Err(Rejection::from(refusal.clone())),
            };
            partitions.push(Started { index, result });
        }
        topics.push((topic.name, partitions));
    }
    reply(topics, acks, stats, correlation_id, version).boxed()
}

/// The topic, if clients may write to it. Kafka lets its administrators' client write to internal topics, by its name.
fn writable(name: &str, call: &Call) -> Result<std::sync::Arc<crate::broker::Topic>, Refusal> {
    if TopicName::is_internal(name) && call.client_id.as_deref() != Some(ADMIN_CLIENT_ID) {
        return Err(Refusal::InternalTopic {
            name: name.to_owned(),
            reason: "clients cannot write to it",
        });
    }
    call.broker.topic(name)
}

async fn one(
    topic: &std::sync::Arc<crate::broker::Topic>,
    partition: PartitionProduceData,
    acks: i16,
    call: &Call,
) -> Result<Appending, Rejection> {
    let records = partition
        .records
        .map(Records::into_bytes)
        .unwrap_or_default();
    let produce = Produce {
        topic: topic.clone(),
        partition: partition.index,
        records,
        acks_all: acks == -1,
        zstd: call.version >= 7,
    };
    call.broker.produce(produce).await
}

async fn reply(
    topics: Vec<(String, Vec<Started>)>,
    acks: i16,
    stats: Arc<Stats>,
    correlation_id: i32,
    version: i16,
) -> Reply {
    let mut responses = Vec::with_capacity(topics.len());
    let mut failed = None;
    for (name, partitions) in topics {
        let mut partition_responses = Vec::with_capacity(partitions.len());
        for started in partitions {
            let response = settled(started).await;
            if response.error_code != errors::NONE {
                failed = Some(response.error_message.clone().unwrap_or_default());
                if acks == 0 {
                    stats.answered_with(ApiKey::Produce, &[(response.error_code, 1)]);
                }
            }
            partition_responses.push(response);
        }
        responses.push(TopicProduceResponse {
            name,
            partition_responses,
            ..TopicProduceResponse::default()
        });
    }
    if acks != 0 {
        let response = ProduceResponse {
            responses,
            ..ProduceResponse::default()
        };
        return encode(&stats, correlation_id, version, &response);
    }
    // Without a reply, closing the connection is the only way to tell the client.
    match failed {
        Some(reason) => Reply::Close(format!(
            "a produce without acknowledgement failed: {reason}"
        )),
        None => Reply::Silent,
    }
}

/// Waits until one partition's batch is durable.
async fn settled(started: Started) -> PartitionProduceResponse {
    let result = match started.result {
        Ok(appending) => {
            let (base_offset, stamped, start) = (
                appending.base_offset,
                appending.log_append_time,
                appending.start_offset,
            );
            appending
                .durable()
                .await
                .map(|()| (base_offset, stamped, start))
                .map_err(Rejection::from)
        }
        Err(rejection) => Err(rejection),
    };
    match result {
        Ok((base_offset, stamped, start)) => PartitionProduceResponse {
            index: started.index,
            base_offset: base_offset.to_wire(),
            log_append_time_ms: stamped.map_or(-1, model::Timestamp::millis),
            log_start_offset: start.to_wire(),
            ..PartitionProduceResponse::default()
        },
        Err(rejection) => PartitionProduceResponse {
            index: started.index,
            error_code: errors::code(&rejection.refusal),
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: rejection
                .records
                .into_iter()
                .map(|record| BatchIndexAndErrorMessage {
                    batch_index: i32::try_from(record.index).unwrap_or(i32::MAX),
                    batch_index_error_message: Some(record.reason),
                })
                .collect(),
            error_message: Some(rejection.refusal.to_string()),
            ..PartitionProduceResponse::default()
        },
    }
}
