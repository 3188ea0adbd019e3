//! Looks at some of a topic's records, so that its schema knows what is in them.
//!
//! Callers: `pump`, before the columns are fixed and while it writes; the schema's route; the list of files.

use std::sync::Arc;

use columnar::{Observer, Schema};
use model::PartitionId;

use crate::broker::access::{Granted, right};
use crate::broker::replay::{Block, Place, ReplayRequest};
use crate::broker::{Broker, Topic};
use crate::front::http::errors::Failure;

/// The records of each partition that are looked at.
const LOOK_RECORDS: u64 = 1_000;
/// Partitions that are looked at.
const PARTITIONS_MAX: usize = 32;

/// What is known of a topic, after a look at its newest records.
pub(in crate::front::http) async fn newest_schema(
    broker: &Broker,
    topic: &Granted<Arc<Topic>, right::Read>,
) -> Result<Arc<Schema>, Failure> {
    let partitions: Vec<PartitionId> = topic.partitions().take(PARTITIONS_MAX).collect();
    let newest = Place::BeforeLatest(LOOK_RECORDS);
    let blocks = some_records(broker, topic, &partitions, newest).await?;
    let known = Schema::clone(&broker.schema(topic));
    let seen = tokio::task::spawn_blocking(move || seen_in(known, &blocks)).await;
    let seen = seen.map_err(|error| Failure::Internal(std::io::Error::other(error)))?;
    Ok(learn(broker, topic, seen).await)
}

/// Some records of each of these partitions, from this place on.
pub(super) async fn some_records(
    broker: &Broker,
    topic: &Granted<Arc<Topic>, right::Read>,
    partitions: &[PartitionId],
    from: Place,
) -> Result<Vec<Block>, Failure> {
    let mut blocks = Vec::new();
    for partition in partitions.iter().take(PARTITIONS_MAX) {
        let request = ReplayRequest {
            partitions: Some(vec![*partition]),
            from,
            max_records: Some(LOOK_RECORDS),
            ..ReplayRequest::default()
        };
        let mut replay = broker.replay(topic, request).await?;
        // A block is half a MiB, or its last records.
        blocks.extend(replay.next().await?);
    }
    Ok(blocks)
}

/// What a schema becomes by these records.
pub(super) fn seen_in(schema: Schema, blocks: &[Block]) -> Schema {
    let mut observer = Observer::new(schema);
    let records = blocks.iter().flat_map(Block::iter);
    for found in records {
        observer.observe(found.record.key, found.record.value);
    }
    observer.into_schema()
}

/// Takes in what was seen. Where that cannot be kept, this answer alone goes by it.
pub(super) async fn learn(
    broker: &Broker,
    topic: &Granted<Arc<Topic>, right::Read>,
    seen: Schema,
) -> Arc<Schema> {
    match broker.learn_schema(topic, &seen).await {
        Ok(schema) => schema,
        Err(error) => {
            tracing::warn!(topic = %topic.name, %error, "what was seen of a topic's values is not kept");
            Arc::new(seen)
        }
    }
}
