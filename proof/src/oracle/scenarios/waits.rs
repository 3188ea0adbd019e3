//! Waits: fetches that want more than there is. What must be answered at once has a wait beyond the time in which an
//! answer is expected at all; what must be waited for is answered by records that are produced meanwhile.
//! Callers: `scenarios`.

use super::produce::one_batch;
use super::read::{partition, request};
use super::topics::{create, topic};
use crate::oracle::batches::{Batch, MOMENT};
use crate::oracle::pair::{Both, Pair, Side};
use anyhow::Result;
use model::batch::Codec;
use wire::Uuid;
use wire::messages::delete_topics::DeleteTopicsRequest;
use wire::messages::fetch::{FetchPartition, FetchRequest};

/// Longer than an answer is waited for.
const LONG_MS: i32 = 60_000;
const HOUR_MS: i64 = 3_600_000;

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    create(
        pair,
        vec![
            topic("waits", 2, &[]),
            // Each batch begins a segment: the times in them are hours apart.
            topic("rolls", 1, &[("segment.ms", "1000")]),
            topic("goes", 1, &[]),
        ],
    )?;
    full(pair)?;
    failing(pair)?;
    filling(pair)?;
    deleted(pair)
}

fn full(pair: &mut Pair) -> Result<()> {
    pair.scene = "filling what is waited for".into();
    for hour in 0..4 {
        let batch = Batch::at(Codec::None, &[MOMENT + hour * HOUR_MS]).bytes();
        pair.ask(9, |_| one_batch("rolls", 0, Some(batch.clone())));
    }
    let id = pair.topic_id("rolls")?;
    for (what, max_bytes, partition_max_bytes) in [
        ("the answer's limit", 1, 1 << 20),
        ("the partition's limit", 1 << 20, 1),
        ("both limits", 1, 1),
    ] {
        pair.scene = format!("fetch that is full by {what}");
        pair.ask_each(|side, version| FetchRequest {
            max_wait_ms: LONG_MS,
            min_bytes: 1 << 20,
            max_bytes,
            ..request(
                version,
                vec![(
                    "rolls",
                    *id.of(side),
                    vec![FetchPartition {
                        partition_max_bytes,
                        ..partition(0, 0)
                    }],
                )],
            )
        });
    }
    Ok(())
}

fn failing(pair: &mut Pair) -> Result<()> {
    let id = pair.topic_id("waits")?;
    for (what, offset, by) in [
        ("out of range", 99, 0),
        ("before the first", -5, 0),
        ("of an epoch to come", 0, 1),
    ] {
        pair.scene = format!("fetch that waits beside one that is {what}");
        let epochs = [Side::Ours, Side::Theirs].map(|side| pair.epoch(side, by));
        pair.ask_each(|side, version| {
            let epoch = epochs[usize::from(side == Side::Theirs)];
            // Older versions carry no epoch: there it is an offset that is wrong.
            let bad = match by {
                0 => partition(1, offset),
                _ if version < 9 => partition(1, 99),
                _ => FetchPartition {
                    current_leader_epoch: epoch,
                    ..partition(1, offset)
                },
            };
            FetchRequest {
                max_wait_ms: LONG_MS,
                ..request(
                    version,
                    vec![("waits", *id.of(side), vec![partition(0, 0), bad])],
                )
            }
        });
    }
    pair.scene = "fetch that has nothing to wait for".into();
    pair.ask_each(|_, version| FetchRequest {
        max_wait_ms: LONG_MS,
        ..request(
            version,
            vec![("not-there", Uuid::from_u128(80), vec![partition(0, 0)])],
        )
    });
    pair.ask_each(|side, version| FetchRequest {
        max_wait_ms: LONG_MS,
        ..request(
            version,
            vec![("waits", *id.of(side), vec![partition(7, 0)])],
        )
    });
    Ok(())
}

/// What is not there is told together with what comes.
fn filling(pair: &mut Pair) -> Result<()> {
    let id = pair.topic_id("waits")?;
    let Some((first, last)) = pair.versions(wire::ApiKey::Fetch) else {
        return Ok(());
    };
    let mut end = 0;
    for version in [first, 11, 12, 13, last] {
        for absent in ["a topic", "a partition"] {
            pair.scene = format!("fetch that waits beside {absent} that is not there");
            let wanted = |side: Side| {
                let id = *id.of(side);
                let topics = match absent {
                    "a topic" => vec![
                        ("not-there", Uuid::from_u128(80), vec![partition(0, 0)]),
                        ("waits", id, vec![partition(0, end)]),
                    ],
                    _ => vec![("waits", id, vec![partition(7, 0), partition(0, end)])],
                };
                FetchRequest {
                    max_wait_ms: LONG_MS,
                    ..request(version, topics)
                }
            };
            let mut line = pair.line();
            pair.send(&mut line, version, wanted);
            let_it_wait(pair, &id);
            pair.ask(9, |_| one_batch("waits", 0, Some(Batch::of(1).bytes())));
            pair.receive(&mut line, version, &wanted(Side::Ours));
            end += 1;
        }
    }
    Ok(())
}

/// A fetch of the same two brokers that waits and is answered: by then what was sent before is waiting too. A fetch that Kafka
/// reads while the records come may show them below the high watermark that it noted before.
fn let_it_wait(pair: &mut Pair, waits: &Both<Uuid>) {
    pair.ask(11, |side| FetchRequest {
        max_wait_ms: 100,
        ..request(11, vec![("waits", *waits.of(side), vec![partition(1, 0)])])
    });
}

fn deleted(pair: &mut Pair) -> Result<()> {
    let waits = pair.topic_id("waits")?;
    let goes = pair.topic_id("goes")?;
    let version = 11;
    let wanted = |side: Side| FetchRequest {
        max_wait_ms: LONG_MS,
        ..request(
            version,
            vec![("goes", *goes.of(side), vec![partition(0, 0)])],
        )
    };
    pair.scene = "fetch of a topic that is deleted under it".into();
    let mut line = pair.line();
    pair.send(&mut line, version, wanted);
    let_it_wait(pair, &waits);
    pair.ask(5, |_| DeleteTopicsRequest {
        topic_names: vec!["goes".into()],
        timeout_ms: 10_000,
        ..DeleteTopicsRequest::default()
    });
    pair.receive(&mut line, version, &wanted(Side::Ours));
    pair.settle()?;
    pair.forget_topic("goes");
    Ok(())
}
