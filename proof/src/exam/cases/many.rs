//! What the cases of many partitions share: one record in each, and whether it is there.

use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use model::Timestamp;
use model::batch::BatchBuilder;
use model::codec::Codec;
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use wire::{ErrorCode, Records};

use crate::exam::Outcome;
use crate::exam::probe::Probe;

/// The topic.
pub const TOPIC: &str = "many";
const PER_REQUEST: usize = 100;
const PRODUCE_VERSION: i16 = 9;

/// Sends a record to each partition, and waits until all are acknowledged. Gives the values.
pub fn produce_to_all(probe: &mut Probe, partitions: u32) -> Result<Vec<Vec<u8>>> {
    produce_to(probe, 0..partitions)
}

/// Sends a record to each of these partitions, and waits until all are acknowledged. Gives the values.
pub fn produce_to(probe: &mut Probe, partitions: Range<u32>) -> Result<Vec<Vec<u8>>> {
    let numbered: Vec<(u32, Vec<u8>)> = partitions
        .map(|index| {
            (
                index,
                format!("the record of partition {index}").into_bytes(),
            )
        })
        .collect();
    for some in numbered.chunks(PER_REQUEST) {
        let mut partition_data = Vec::with_capacity(some.len());
        for (index, value) in some {
            partition_data.push(PartitionProduceData {
                index: i32::try_from(*index)?,
                records: Some(Records::from_slices(vec![batch(value)?])),
            });
        }
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData {
                name: TOPIC.to_owned(),
                partition_data,
                ..TopicProduceData::default()
            }],
            ..ProduceRequest::default()
        };
        let response = probe.call(PRODUCE_VERSION, &request)?;
        let topic = response
            .responses
            .first()
            .context("no topic in the answer")?;
        for partition in &topic.partition_responses {
            let error = ErrorCode::from_code(partition.error_code);
            ensure!(
                error == ErrorCode::None,
                "partition {}: {}",
                partition.index,
                error.name()
            );
        }
    }
    Ok(numbered.into_iter().map(|(_, value)| value).collect())
}

fn batch(value: &[u8]) -> Result<Bytes> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(Timestamp::from_millis(1), None, Some(value), &[])?;
    Ok(builder.build()?)
}

/// Reads each partition: its record has to be there.
pub fn require_all(probe: &mut Probe, values: &[Vec<u8>], outcome: &mut Outcome) -> Result<()> {
    let mut lost = 0;
    for (partition, value) in values.iter().enumerate() {
        let fetched = probe.fetch(TOPIC, i32::try_from(partition)?, 0, 1 << 20, 0)?;
        let is_there = fetched.error == ErrorCode::None
            && fetched
                .records
                .windows(value.len())
                .any(|window| window == value);
        lost += u64::from(!is_there);
    }
    outcome.checked += values.len() as u64;
    outcome.lost += lost;
    outcome.require(lost == 0, || {
        format!("{lost} acknowledged records are gone")
    });
    Ok(())
}
