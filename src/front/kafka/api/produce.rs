//! Produce (0): appends in order, replies in order when it is durable. The next request may be appended meanwhile.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use model::PartitionId;
use model::quota::Quota;
use wire::messages::produce::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, TopicProduceResponse,
};
use wire::{ApiKey, Records};

use super::call::{Call, Reply, Request, encode};
use crate::broker::access::{Granted, right};
use crate::broker::{
    Acks, Appending, KnownCodecs, Produce, RecordError, RecordFault, Refusal, Rejection, Topic,
};
use crate::front::kafka::errors::{self, Failure, Misuse};
use crate::front::kafka::stats::Stats;
use crate::front::kafka::throttle::{Throttle, timed};

/// The first version whose clients know zstd (KIP-110).
const KNOWS_ZSTD: i16 = 7;

/// One partition on its way.
struct Started {
    index: i32,
    result: Result<Appending, Rejected>,
}

/// A request whose batches are appended.
struct Waiting {
    topics: Vec<(String, Vec<Started>)>,
    asks_for_answer: bool,
    throttle: Option<Arc<Throttle>>,
}

/// Why a batch is refused, and because of which records.
struct Rejected {
    failure: Failure,
    records: Vec<RecordError>,
}

impl<F: Into<Failure>> From<F> for Rejected {
    fn from(failure: F) -> Rejected {
        Rejected {
            failure: failure.into(),
            records: Vec::new(),
        }
    }
}

impl From<Rejection> for Rejected {
    fn from(rejection: Rejection) -> Rejected {
        Rejected {
            failure: rejection.refusal.into(),
            records: rejection.records,
        }
    }
}

/// Appends what the request holds; the inner future is the reply.
#[expect(
    clippy::async_yields_async,
    reason = "a reply is awaited apart from its append"
)]
pub(super) fn start(request: Request) -> BoxFuture<'static, BoxFuture<'static, Reply>> {
    async {
        let throttle = request.throttle();
        let reply = timed(throttle.clone(), append(request)).await;
        if let Some(throttle) = throttle {
            throttle.charge_work();
        }
        reply
    }
    .boxed()
}

async fn append(mut request: Request) -> BoxFuture<'static, Reply> {
    let message = match request.decode::<ProduceRequest>() {
        Ok(message) => message,
        Err(close) => return std::future::ready(close).boxed(),
    };
    let (correlation_id, version) = (request.correlation_id, request.call.version);
    let stats = request.call.stats.clone();
    let throttle = request.throttle();
    if let Some(throttle) = &throttle {
        // Before it is appended, and whatever becomes of it.
        throttle.charge(Quota::ProducerByteRate, request.call.request_bytes as f64);
    }
    let asks_for_answer = message.acks != 0;
    let acks = acks_of(&message);
    let mut topics = Vec::with_capacity(message.topic_data.len());
    for topic in message.topic_data {
        let found = match &acks {
            Ok(acks) => match request.call.door.topic(&topic.name, right::Write) {
                Ok(found) => Ok((found, *acks)),
                Err(refusal) => Err(refusal.into()),
            },
            Err(failure) => Err(failure.clone()),
        };
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for partition in topic.partition_data {
            let index = partition.index;
            let result = match &found {
                Ok((found, acks)) => one(found, partition, *acks, &request.call).await,
                Err(failure) => Err(Rejected::from(failure.clone())),
            };
            partitions.push(Started { index, result });
        }
        topics.push((topic.name, partitions));
    }
    let waiting = Waiting {
        topics,
        asks_for_answer,
        throttle,
    };
    reply(waiting, stats, correlation_id, version).boxed()
}

/// What the client waits for, if all else that holds for the whole request is as it must be.
fn acks_of(message: &ProduceRequest) -> Result<Acks, Failure> {
    let acks = match message.acks {
        -1 => Acks::All,
        0 => Acks::None,
        1 => Acks::Leader,
        other => return Err(Misuse::RequiredAcks(other).into()),
    };
    match message.transactional_id {
        Some(_) => Err(Refusal::TransactionsUnsupported.into()),
        None => Ok(acks),
    }
}

async fn one(
    topic: &Granted<Arc<Topic>, right::Write>,
    partition: PartitionProduceData,
    acks: Acks,
    call: &Call,
) -> Result<Appending, Rejected> {
    let records = partition
        .records
        .map(Records::into_bytes)
        .unwrap_or_default();
    let produce = Produce {
        topic: topic.clone(),
        partition: PartitionId::from_wire(partition.index)
            .ok_or(Refusal::UnknownTopicOrPartition)?,
        records,
        owner: call.door.owner(),
        acks,
        codecs: match call.version < KNOWS_ZSTD {
            true => KnownCodecs::BeforeZstd,
            false => KnownCodecs::All,
        },
    };
    Ok(call.broker().produce(produce).await?)
}

async fn reply(waiting: Waiting, stats: Arc<Stats>, correlation_id: i32, version: i16) -> Reply {
    let Waiting {
        topics,
        asks_for_answer,
        throttle,
    } = waiting;
    let mut responses = Vec::with_capacity(topics.len());
    let mut failed = None;
    for (name, partitions) in topics {
        let mut partition_responses = Vec::with_capacity(partitions.len());
        for started in partitions {
            let response = settled(&name, started).await;
            if response.error_code != errors::NONE {
                failed = Some(response.error_message.clone().unwrap_or_default());
                if !asks_for_answer {
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
    if asks_for_answer {
        let response = ProduceResponse {
            responses,
            throttle_time_ms: throttle.map_or(0, |throttle| throttle.wire_ms()),
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

/// What is wrong with a record, where Kafka has words for it in Kafka's: clients show them to their users.
fn described(record: &RecordError, topic: &str, partition: i32) -> String {
    match record.fault {
        RecordFault::NoKey => format!(
            "Compacted topic cannot accept message without key in topic partition {topic}-{partition}"
        ),
        fault @ RecordFault::Timestamp { .. } => fault.to_string(),
    }
}

/// What is wrong with a batch, with a look at those of its records that are at fault.
fn summarized(rejected: &Rejected, errors: &[BatchIndexAndErrorMessage]) -> String {
    let keyless = |record: &RecordError| record.fault == RecordFault::NoKey;
    if errors.is_empty() || !rejected.records.iter().all(keyless) {
        return rejected.failure.to_string();
    }
    let shown = |error: &BatchIndexAndErrorMessage| {
        let message = error.batch_index_error_message.as_deref();
        let (index, message) = (error.batch_index, message.unwrap_or_default());
        format!("RecordError(batchIndex={index}, message='{message}')")
    };
    let first: Vec<String> = errors.iter().take(3).map(shown).collect();
    format!(
        "One or more records have been rejected due to {} record errors in total, and only showing the first three errors \
         at most: [{}]",
        errors.len(),
        first.join(", ")
    )
}

/// Waits until one partition's batch is durable.
async fn settled(topic: &str, started: Started) -> PartitionProduceResponse {
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
                .map_err(Rejected::from)
        }
        Err(rejected) => Err(rejected),
    };
    match result {
        Ok((base_offset, stamped, start)) => PartitionProduceResponse {
            index: started.index,
            base_offset: base_offset.to_wire(),
            log_append_time_ms: stamped.map_or(-1, model::Timestamp::millis),
            log_start_offset: start.to_wire(),
            ..PartitionProduceResponse::default()
        },
        Err(rejected) => refused(topic, started.index, &rejected),
    }
}

/// The answer for a batch that was not appended.
fn refused(topic: &str, index: i32, rejected: &Rejected) -> PartitionProduceResponse {
    let described = |record: &RecordError| BatchIndexAndErrorMessage {
        batch_index: i32::try_from(record.index).unwrap_or(i32::MAX),
        batch_index_error_message: Some(described(record, topic, index)),
    };
    let record_errors: Vec<_> = rejected.records.iter().map(described).collect();
    let error_message = Some(summarized(rejected, &record_errors));
    PartitionProduceResponse {
        index,
        error_code: rejected.failure.code(),
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        record_errors,
        error_message,
        ..PartitionProduceResponse::default()
    }
}
