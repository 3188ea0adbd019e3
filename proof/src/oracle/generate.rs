//! Generate: requests drawn under a seed: what clients ask all day, with values from the edges of what makes sense.
//! Callers: `oracle::main`.
//! Invariant: the same seed asks the same things in the same order, whatever the brokers answer.

use super::batches::{Batch, MOMENT};
use super::pair::{Pair, Side};
use super::scenarios::{produce, topics};
use crate::exam::random::Random;
use anyhow::Result;
use model::batch::Codec;
use wire::ApiKey;
use wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use wire::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};

const TOPICS: [&str; 2] = ["drawn-a", "drawn-b"];
const NAMES: [&str; 5] = ["drawn-a", "drawn-b", "drawn-a", "not-there", "a b"];
const GROUPS: [&str; 3] = ["drawn-1", "drawn-2", ""];

/// Asks `rounds` requests.
pub fn run(pair: &mut Pair, seed: u64, rounds: usize) -> Result<()> {
    let wanted = TOPICS.map(|name| topics::topic(name, 2, &[]));
    pair.scene = "drawn topics".into();
    topics::create(pair, wanted.to_vec())?;
    let mut random = Random::new(seed);
    for round in 0..rounds {
        pair.scene = format!("seed {seed}, round {round}");
        ask_one(pair, &mut random)?;
    }
    Ok(())
}

fn ask_one(pair: &mut Pair, random: &mut Random) -> Result<()> {
    match random.between(0, 10) {
        0..=2 => produce(pair, random),
        3 | 4 => fetch(pair, random)?,
        5 | 6 => list(pair, random),
        7 => epoch(pair, random),
        8 => match random.between(0, 4) {
            0 => delete(pair, random),
            _ => commit(pair, random),
        },
        _ => committed(pair, random),
    }
    Ok(())
}

fn pick<T: Copy>(random: &mut Random, values: &[T]) -> T {
    let index = random.between(0, values.len() as u64);
    values[usize::try_from(index).expect("below a length")]
}

fn version(pair: &Pair, random: &mut Random, key: ApiKey) -> i16 {
    let (first, last) = pair.versions(key).unwrap_or((0, 0));
    first + i16::try_from(random.between(0, u64::from(last.abs_diff(first)) + 1)).unwrap_or(0)
}

/// A small number, mostly; sometimes one from the edges.
fn offset(random: &mut Random) -> i64 {
    match random.between(0, 6) {
        0 => pick(random, &[-1, -2, i64::MAX, i64::MIN]),
        _ => i64::try_from(random.between(0, 120)).unwrap_or(0),
    }
}

fn index(random: &mut Random) -> i32 {
    pick(random, &[0, 0, 0, 1, 1, 2, -1, i32::MAX])
}

fn produce(pair: &mut Pair, random: &mut Random) {
    let codec = pick(
        random,
        &[
            Codec::None,
            Codec::Gzip,
            Codec::Snappy,
            Codec::Lz4,
            Codec::Zstd,
        ],
    );
    let times: Vec<i64> = (0..random.between(1, 9))
        .map(|_| MOMENT + i64::try_from(random.between(0, 1000)).unwrap_or(0))
        .collect();
    let mut batch = Batch::at(codec, &times);
    match random.between(0, 8) {
        0 => {
            let position = usize::try_from(random.between(21, 80)).unwrap_or(21);
            batch = batch.set_unchecked(position, &[0xa5]);
        }
        1 => batch = batch.set_unchecked(0, &3_i64.to_be_bytes()),
        2 | 3 => {
            let id = i64::try_from(random.between(9_000, 9_003)).unwrap_or(9_000);
            let epoch = pick(random, &[0, 0, 0, 1]);
            let sequence = i32::try_from(random.between(0, 12)).unwrap_or(0);
            batch = batch.by(id, epoch, sequence);
        }
        _ => {}
    }
    let name = pick(random, &NAMES);
    let request = produce::one_batch(name, index(random), Some(batch.bytes()));
    // Zstandard came with version 7: before it Kafka refuses the batch, and so do we; both are asked.
    let version = version(pair, random, ApiKey::Produce);
    pair.ask(version, |_| request.clone());
}

fn fetch(pair: &mut Pair, random: &mut Random) -> Result<()> {
    let version = version(pair, random, ApiKey::Fetch);
    let name = pick(random, &TOPICS);
    let id = pair.topic_id(name)?;
    let partition = FetchPartition {
        partition: index(random),
        fetch_offset: offset(random),
        partition_max_bytes: pick(random, &[0, 1, 100, 300, 1 << 20]),
        ..FetchPartition::default()
    };
    let max_bytes = pick(random, &[0, 1, 200, 1 << 20]);
    let isolation_level = pick(random, &[0, 1]);
    pair.ask(version, |side| FetchRequest {
        max_wait_ms: 1,
        min_bytes: 1,
        max_bytes,
        isolation_level,
        topics: vec![FetchTopic {
            topic: if version < 13 {
                name.to_owned()
            } else {
                String::new()
            },
            topic_id: if version >= 13 {
                *id.of(side)
            } else {
                wire::Uuid::nil()
            },
            partitions: vec![partition.clone()],
        }],
        ..FetchRequest::default()
    });
    Ok(())
}

fn list(pair: &mut Pair, random: &mut Random) {
    let version = version(pair, random, ApiKey::ListOffsets);
    let name = pick(random, &NAMES);
    let partition_index = index(random);
    let timestamp = match random.between(0, 3) {
        0 => pick(random, &[-1, -5, -9, 0, i64::MAX]),
        _ => MOMENT + i64::try_from(random.between(0, 1100)).unwrap_or(0),
    };
    pair.ask(version, |_| ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: name.to_owned(),
            partitions: vec![ListOffsetsPartition {
                partition_index,
                timestamp,
                ..ListOffsetsPartition::default()
            }],
        }],
        ..ListOffsetsRequest::default()
    });
}

fn epoch(pair: &mut Pair, random: &mut Random) {
    let version = version(pair, random, ApiKey::OffsetForLeaderEpoch);
    let name = pick(random, &NAMES);
    let partition = index(random);
    let by = pick(random, &[0, 0, 1, 5]);
    let epochs = [Side::Ours, Side::Theirs].map(|side| pair.epoch(side, by));
    pair.ask(version, |side| OffsetForLeaderEpochRequest {
        replica_id: -1,
        topics: vec![OffsetForLeaderTopic {
            topic: name.to_owned(),
            partitions: vec![OffsetForLeaderPartition {
                partition,
                current_leader_epoch: -1,
                leader_epoch: epochs[usize::from(side == Side::Theirs)],
            }],
        }],
    });
}

fn delete(pair: &mut Pair, random: &mut Random) {
    let version = version(pair, random, ApiKey::DeleteRecords);
    let name = pick(random, &NAMES);
    let partition_index = index(random);
    let before = i64::try_from(random.between(0, 12)).unwrap_or(0);
    pair.ask(version, |_| DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: name.to_owned(),
            partitions: vec![DeleteRecordsPartition {
                partition_index,
                offset: before,
            }],
        }],
        timeout_ms: 5_000,
    });
}

fn commit(pair: &mut Pair, random: &mut Random) {
    let version = version(pair, random, ApiKey::OffsetCommit);
    let (group, name) = (pick(random, &GROUPS), pick(random, &NAMES));
    let partition_index = index(random);
    let committed_offset = i64::try_from(random.between(0, 120)).unwrap_or(0);
    let metadata_bytes = pick(random, &[0, 5, 4096, 4097]);
    pair.ask(version, |_| OffsetCommitRequest {
        group_id: group.to_owned(),
        retention_time_ms: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: name.to_owned(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index,
                committed_offset,
                committed_metadata: Some("m".repeat(metadata_bytes)),
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    });
}

fn committed(pair: &mut Pair, random: &mut Random) {
    let version = version(pair, random, ApiKey::OffsetFetch);
    let (group, name) = (pick(random, &GROUPS), pick(random, &NAMES));
    let indexes = vec![index(random), 1];
    let by_group = version >= 8;
    pair.ask(version, |_| OffsetFetchRequest {
        group_id: if by_group {
            String::new()
        } else {
            group.to_owned()
        },
        topics: Some(match by_group {
            true => Vec::new(),
            false => vec![OffsetFetchRequestTopic {
                name: name.to_owned(),
                partition_indexes: indexes.clone(),
            }],
        }),
        groups: match by_group {
            true => vec![OffsetFetchRequestGroup {
                group_id: group.to_owned(),
                topics: Some(vec![OffsetFetchRequestTopics {
                    name: name.to_owned(),
                    partition_indexes: indexes.clone(),
                    ..OffsetFetchRequestTopics::default()
                }]),
                ..OffsetFetchRequestGroup::default()
            }],
            false => Vec::new(),
        },
        ..OffsetFetchRequest::default()
    });
}
