//! The world around the group: a producer that goes on through all of it, and an observer that asks the broker how the
//! group is and what is committed. Both write into the history. Caller: `chaos::run`.
//! Invariant: only what was acknowledged is noted as produced.

use super::history::{Described, History, Partition, What};
use super::member::{GROUP, TOPIC, note, now_us};
use crate::exam::probe::{Answer, Probe};
use crate::exam::random::Random;
use anyhow::{Context, Result, ensure};
use model::Timestamp;
use model::batch::BatchBuilder;
use model::codec::Codec;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use wire::ErrorCode;
use wire::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup};
use wire::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};

/// How many partitions the topic has: more than there are ever members.
pub const PARTITIONS: u32 = 12;
const PRODUCE_EVERY: Duration = Duration::from_millis(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// What the broker says about the group.
pub struct View {
    /// Its state, by Kafka's name.
    pub state: String,
    /// Its members.
    pub members: Vec<Described>,
    /// What is committed.
    pub committed: BTreeMap<Partition, u64>,
}

/// Sends records with values of their own until `stop`.
pub fn produce(address: &str, seed: u64, history: &Mutex<History>, stop: &AtomicBool) {
    let mut random = Random::new(seed);
    let mut probe = None;
    let mut number = 0;
    while !stop.load(Relaxed) {
        let partition = random.between(0, u64::from(PARTITIONS)) as Partition;
        let count = random.between(1, 4);
        let values: Vec<String> = (number..number + count)
            .map(|n| format!("record {n}"))
            .collect();
        number += count;
        match send(&mut probe, address, partition, &values) {
            Ok(Some(base_offset)) => {
                for (offset, value) in (base_offset..).zip(values) {
                    note(
                        history,
                        now_us(),
                        What::Produced {
                            partition,
                            offset,
                            value,
                        },
                    );
                }
                std::thread::sleep(PRODUCE_EVERY);
            }
            Ok(None) => std::thread::sleep(TRY_AGAIN),
            Err(_) => {
                // The broker is away: nobody knows what became of these.
                probe = None;
                std::thread::sleep(TRY_AGAIN);
            }
        }
    }
}

fn send(
    probe: &mut Option<Probe>,
    address: &str,
    partition: Partition,
    values: &[String],
) -> Result<Option<u64>> {
    let mut builder = BatchBuilder::new(Codec::None);
    for value in values {
        builder.push(Timestamp::from_millis(0), None, Some(value.as_bytes()), &[])?;
    }
    let probe = connected(probe, address)?;
    match probe.produce(TOPIC, i32::try_from(partition)?, builder.build()?)? {
        Answer::Acknowledged(base_offset) => Ok(Some(u64::try_from(base_offset)?)),
        Answer::Refused(_) => Ok(None),
    }
}

fn connected<'a>(probe: &'a mut Option<Probe>, address: &str) -> Result<&'a mut Probe> {
    match probe {
        Some(probe) => Ok(probe),
        None => Ok(probe.insert(Probe::connect(address)?)),
    }
}

/// Looks at the group until `stop`, and notes what it sees.
pub fn observe(address: &str, history: &Mutex<History>, stop: &AtomicBool) {
    let mut probe = None;
    while !stop.load(Relaxed) {
        let seen = connected(&mut probe, address).and_then(|probe| observe_once(probe, history));
        if seen.is_err() {
            probe = None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Looks at the group once, and notes what it sees.
pub fn observe_once(probe: &mut Probe, history: &Mutex<History>) -> Result<View> {
    let group = describe(probe)?;
    let members: Vec<Described> = group
        .members
        .into_iter()
        .map(|member| {
            let assignment = wire::consumer::decode_assignment(member.member_assignment)?;
            let partitions = assignment
                .assigned_partitions
                .into_iter()
                .filter(|topic| topic.topic == TOPIC)
                .flat_map(|topic| topic.partitions)
                .map(Partition::try_from)
                .collect::<Result<_, _>>()?;
            Ok(Described {
                member_id: member.member_id,
                partitions,
            })
        })
        .collect::<Result<_>>()?;
    if group.group_state == "Stable" {
        note(history, now_us(), What::Stable(members.clone()));
    }
    let begun_us = now_us();
    let committed = committed(probe)?;
    let offsets = committed.clone();
    note(history, now_us(), What::Fetched { begun_us, offsets });
    Ok(View {
        state: group.group_state,
        members,
        committed,
    })
}

fn describe(probe: &mut Probe) -> Result<DescribedGroup> {
    let request = DescribeGroupsRequest {
        groups: vec![GROUP.to_owned()],
        ..DescribeGroupsRequest::default()
    };
    let response = probe.call(4, &request)?;
    let group = response
        .groups
        .into_iter()
        .next()
        .context("no group in the answer")?;
    let error = ErrorCode::from_code(group.error_code);
    ensure!(
        error == ErrorCode::None,
        "describe {GROUP}: {}",
        error.name()
    );
    Ok(group)
}

fn committed(probe: &mut Probe) -> Result<BTreeMap<Partition, u64>> {
    let request = OffsetFetchRequest {
        group_id: GROUP.to_owned(),
        topics: Some(vec![OffsetFetchRequestTopic {
            name: TOPIC.to_owned(),
            partition_indexes: (0..i32::try_from(PARTITIONS)?).collect(),
        }]),
        ..OffsetFetchRequest::default()
    };
    let response = probe.call(7, &request)?;
    let error = ErrorCode::from_code(response.error_code);
    ensure!(
        error == ErrorCode::None,
        "offsets of {GROUP}: {}",
        error.name()
    );
    let mut offsets = BTreeMap::new();
    for partition in response
        .topics
        .into_iter()
        .flat_map(|topic| topic.partitions)
    {
        let error = ErrorCode::from_code(partition.error_code);
        ensure!(
            error == ErrorCode::None,
            "an offset of {GROUP}: {}",
            error.name()
        );
        if let Ok(offset) = u64::try_from(partition.committed_offset) {
            offsets.insert(Partition::try_from(partition.partition_index)?, offset);
        }
    }
    Ok(offsets)
}

/// The end of every partition that has records.
pub fn ends(probe: &mut Probe) -> Result<BTreeMap<Partition, u64>> {
    let mut ends = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let fetched = probe.fetch(TOPIC, i32::try_from(partition)?, 0, 1, 0)?;
        ensure!(
            fetched.error == ErrorCode::None,
            "fetch: {}",
            fetched.error.name()
        );
        let end = u64::try_from(fetched.high_watermark)?;
        if end > 0 {
            ends.insert(partition, end);
        }
    }
    Ok(ends)
}
