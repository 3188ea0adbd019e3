//! What `$management` says, as Event Hubs' clients ask it: which partitions a topic has, and from where to where their records reach.
//! Callers: `connection`. The rights are those of the same question over Kafka.

use std::sync::Arc;

use amqp::{MapBuf, Strings, Value};
use model::PartitionId;

use super::errors::{NoAnswer, Status};
use super::requests::{Answer, Request};
use crate::broker::access::{Door, Granted, right};
use crate::broker::{OffsetQuery, Refusal, Topic};
use crate::front::written::made;

const HUB: &str = "com.microsoft:eventhub";
const PARTITION: &str = "com.microsoft:partition";
/// What stands for a time that is not known: the first of the year 1.
const NO_TIME: i64 = -62_135_596_800_000;

/// Answers a request.
pub(super) async fn answer(door: &Door, request: &Request<'_>) -> Answer {
    match read(door, request).await {
        Ok(body) => Answer {
            status: Status::of_done(200, "OK"),
            body: Some(body),
        },
        Err(why) => Answer {
            status: why.status(),
            body: None,
        },
    }
}

async fn read(door: &Door, request: &Request<'_>) -> Result<MapBuf, NoAnswer> {
    let known = request.operation == "READ" && [HUB, PARTITION].contains(&request.kind);
    if !known {
        return Err(NoAnswer::Unknown);
    }
    let name = request.said("name").ok_or(NoAnswer::Missing("name"))?;
    // As metadata in Kafka does: who asks for a topic is about to use it.
    let topic = made(door, name, right::Describe).await?;
    let mut body = MapBuf::new();
    let mut put = |name, value: &Value<'_>| body.put(&Value::String(name), value);
    put("type", &Value::String(request.kind));
    put("name", &Value::String(topic.name.as_str()));
    if request.kind == HUB {
        put("created_at", &Value::Timestamp(NO_TIME));
        let count = i32::try_from(topic.partition_count()).unwrap_or(i32::MAX);
        put("partition_count", &Value::Int(count));
        let mut ids = Strings::new();
        for partition in topic.partitions() {
            ids.push(&partition.get().to_string());
        }
        put("partition_ids", &ids.as_value());
        // Clients for Go take an answer without it for none.
        put("georeplication_factor", &Value::Int(1));
        return Ok(body);
    }
    let said = request.said("partition");
    let said = said.ok_or(NoAnswer::Missing("partition"))?;
    let partition = said.parse().map(PartitionId::new);
    let partition = partition.map_err(|_| NoAnswer::Refused(Refusal::UnknownTopicOrPartition))?;
    let found = Reach::of(door, &topic, partition).await?;
    put("partition", &Value::String(said));
    put("begin_sequence_number", &Value::Long(found.first));
    put("last_enqueued_sequence_number", &Value::Long(found.last));
    let last = found.last.to_string();
    put("last_enqueued_offset", &Value::String(&last));
    let time = Value::Timestamp(found.time.unwrap_or(NO_TIME));
    put("last_enqueued_time_utc", &time);
    let is_empty = found.last < found.first;
    put("is_partition_empty", &Value::Boolean(is_empty));
    Ok(body)
}

/// From where to where a partition's records reach.
struct Reach {
    first: i64,
    /// The last; one before the first, if there is none.
    last: i64,
    /// The newest time of a record, in milliseconds.
    time: Option<i64>,
}

impl Reach {
    async fn of(
        door: &Door,
        topic: &Granted<Arc<Topic>, right::Describe>,
        partition: PartitionId,
    ) -> Result<Reach, Refusal> {
        let ask = |query| door.broker().offset_for(topic, partition, None, query);
        let newest = ask(OffsetQuery::MaxTimestamp).await?;
        let edge = async |query| {
            let found = ask(query).await?;
            let offset = found.map_or(0, |it| it.offset.get());
            Ok::<i64, Refusal>(i64::try_from(offset).unwrap_or(i64::MAX))
        };
        Ok(Reach {
            first: edge(OffsetQuery::Earliest).await?,
            last: edge(OffsetQuery::Latest).await? - 1,
            time: newest.and_then(|it| it.timestamp).map(|it| it.millis()),
        })
    }
}
