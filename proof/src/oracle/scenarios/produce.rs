//! Produce: batches that are right and batches that are wrong, and producers that count them.
//! Callers: `scenarios`; `read` fills its topics here.

use super::topics::{create, topic};
use crate::oracle::batches::{Batch, MOMENT};
use crate::oracle::pair::{Both, Pair};
use anyhow::Result;
use bytes::Bytes;
use model::batch::Codec;
use wire::messages::describe_producers::{DescribeProducersRequest, TopicRequest};
use wire::messages::init_producer_id::InitProducerIdRequest;
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    create(
        pair,
        vec![
            topic("written", 2, &[]),
            topic("wrong", 120, &[]),
            topic("small", 1, &[("max.message.bytes", "200")]),
            topic("clocked", 1, &[("message.timestamp.type", "LogAppendTime")]),
            topic(
                "recent",
                1,
                &[("message.timestamp.before.max.ms", "3600000")],
            ),
            topic("early", 1, &[("message.timestamp.after.max.ms", "3600000")]),
            topic("zipped", 1, &[("compression.type", "gzip")]),
            topic("strict", 1, &[("min.insync.replicas", "2")]),
            topic("counted", 3, &[]),
        ],
    )?;
    well(pair);
    bad_batches(pair);
    rules(pair);
    producers(pair);
    pair.scene = "after all that was produced".into();
    for name in [
        "written", "small", "clocked", "recent", "early", "zipped", "strict", "counted",
    ] {
        latest(pair, name);
    }
    Ok(())
}

/// One batch for one partition.
pub fn one_batch(topic: &str, index: i32, records: Option<Bytes>) -> ProduceRequest {
    many(vec![(topic, vec![(index, records)])])
}

/// Partitions with what is sent to them.
type Rows = Vec<(i32, Option<Bytes>)>;

fn many(topics: Vec<(&str, Rows)>) -> ProduceRequest {
    ProduceRequest {
        transactional_id: None,
        acks: -1,
        timeout_ms: 10_000,
        topic_data: topics
            .into_iter()
            .map(|(name, partitions)| TopicProduceData {
                name: name.to_owned(),
                partition_data: partitions
                    .into_iter()
                    .map(|(index, records)| PartitionProduceData {
                        index,
                        records: records.map(Into::into),
                    })
                    .collect(),
                ..TopicProduceData::default()
            })
            .collect(),
    }
}

fn latest(pair: &mut Pair, name: &str) {
    pair.ask(7, |_| ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: name.to_owned(),
            partitions: vec![ListOffsetsPartition {
                timestamp: -1,
                ..ListOffsetsPartition::default()
            }],
        }],
        ..ListOffsetsRequest::default()
    });
}

fn well(pair: &mut Pair) {
    pair.scene = "right batches".into();
    pair.ask_each(|_, _| one_batch("written", 0, Some(Batch::of(3).bytes())));
    pair.ask_each(|_, _| {
        many(vec![(
            "written",
            vec![
                (1, Some(Batch::of(1).bytes())),
                (0, Some(Batch::of(2).bytes())),
            ],
        )])
    });
    for acks in [1, -1] {
        pair.ask_each(|_, _| ProduceRequest {
            acks,
            ..one_batch("written", 1, Some(Batch::of(1).bytes()))
        });
    }
    pair.scene = "each codec".into();
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        pair.ask_each(|_, _| one_batch("written", 0, Some(Batch::compressed(codec, 5).bytes())));
    }
    pair.scene = "no acknowledgement".into();
    for version in 3..=11 {
        let mut line = pair.line();
        pair.send(&mut line, version, |_| ProduceRequest {
            acks: 0,
            ..one_batch("written", 0, Some(Batch::of(1).bytes()))
        });
        pair.expect_silence(&mut line);
        let request = one_batch("written", 0, Some(Batch::of(1).bytes()));
        if pair.send(&mut line, version, |_| request.clone()) {
            pair.receive(&mut line, version, &request);
        }
    }
    pair.scene = "no acknowledgement of what fails".into();
    for version in 3..=11 {
        let mut line = pair.line();
        pair.send(&mut line, version, |_| ProduceRequest {
            acks: 0,
            ..one_batch("not/there", 0, Some(Batch::of(1).bytes()))
        });
        pair.expect_silence(&mut line);
        let request = one_batch("written", 0, Some(Batch::of(1).bytes()));
        if pair.send(&mut line, version, |_| request.clone()) {
            pair.receive(&mut line, version, &request);
        }
    }
}

fn bad_batches(pair: &mut Pair) {
    let good = || Batch::of(2);
    // Records of null are left out: Kafka never answers them.
    let wrong: Vec<(&str, ProduceRequest)> = vec![
        ("no topics", many(vec![])),
        ("no partitions", many(vec![("written", vec![])])),
        ("no records", one_batch("written", 0, Some(Bytes::new()))),
        (
            "unknown topic",
            one_batch("not-there", 0, Some(good().bytes())),
        ),
        ("bad topic name", one_batch("a b", 0, Some(good().bytes()))),
        ("empty topic name", one_batch("", 0, Some(good().bytes()))),
        (
            "unknown partition",
            one_batch("written", 9, Some(good().bytes())),
        ),
        (
            "negative partition",
            one_batch("written", -1, Some(good().bytes())),
        ),
        (
            "one partition twice",
            many(vec![(
                "written",
                vec![(0, Some(good().bytes())), (0, Some(good().bytes()))],
            )]),
        ),
        (
            "one topic twice",
            many(vec![
                ("written", vec![(0, Some(good().bytes()))]),
                ("written", vec![(1, Some(good().bytes()))]),
            ]),
        ),
        (
            "a right one among wrong ones",
            many(vec![
                ("not-there", vec![(0, Some(good().bytes()))]),
                (
                    "written",
                    vec![(0, Some(good().bytes())), (9, Some(good().bytes()))],
                ),
            ]),
        ),
        (
            "two batches",
            one_batch("written", 0, Some(good().and(good()).bytes())),
        ),
        (
            "two batches, the second cut",
            one_batch("written", 0, Some(good().and(good().cut(3)).bytes())),
        ),
        (
            "cut at the end",
            one_batch("written", 0, Some(good().cut(1).bytes())),
        ),
        (
            "cut in the header",
            one_batch("written", 0, Some(good().cut(90).bytes())),
        ),
        (
            "four bytes",
            one_batch("written", 0, Some(Bytes::from_static(b"abcd"))),
        ),
        (
            "wrong checksum",
            one_batch(
                "written",
                0,
                Some(good().set_unchecked(17, &[1, 2, 3, 4]).bytes()),
            ),
        ),
        (
            "damaged record",
            one_batch("written", 0, Some(good().set_unchecked(70, &[99]).bytes())),
        ),
        (
            "base offset 5",
            one_batch(
                "written",
                0,
                Some(good().set_unchecked(0, &5_i64.to_be_bytes()).bytes()),
            ),
        ),
        (
            "base offset -1",
            one_batch(
                "written",
                0,
                Some(good().set_unchecked(0, &(-1_i64).to_be_bytes()).bytes()),
            ),
        ),
        (
            "leader epoch 5",
            one_batch(
                "written",
                0,
                Some(good().set_unchecked(12, &5_i32.to_be_bytes()).bytes()),
            ),
        ),
        (
            "magic 1",
            one_batch("written", 0, Some(good().set_unchecked(16, &[1]).bytes())),
        ),
        (
            "magic 0",
            one_batch("written", 0, Some(good().set_unchecked(16, &[0]).bytes())),
        ),
        (
            "magic 3",
            one_batch("written", 0, Some(good().set_unchecked(16, &[3]).bytes())),
        ),
        (
            "length 0",
            one_batch(
                "written",
                0,
                Some(good().set_unchecked(8, &0_i32.to_be_bytes()).bytes()),
            ),
        ),
        (
            "length -1",
            one_batch(
                "written",
                0,
                Some(good().set_unchecked(8, &(-1_i32).to_be_bytes()).bytes()),
            ),
        ),
        (
            "codec 5",
            one_batch(
                "written",
                0,
                Some(good().set(21, &5_i16.to_be_bytes()).bytes()),
            ),
        ),
        (
            "codec 7",
            one_batch(
                "written",
                0,
                Some(good().set(21, &7_i16.to_be_bytes()).bytes()),
            ),
        ),
        (
            "log append time",
            one_batch(
                "written",
                0,
                Some(good().set(21, &8_i16.to_be_bytes()).bytes()),
            ),
        ),
        (
            "a transaction's",
            one_batch(
                "written",
                0,
                Some(good().set(21, &16_i16.to_be_bytes()).bytes()),
            ),
        ),
        (
            "a control batch",
            one_batch(
                "written",
                0,
                Some(good().set(21, &32_i16.to_be_bytes()).bytes()),
            ),
        ),
        (
            "a delete horizon",
            one_batch(
                "written",
                0,
                Some(good().set(21, &64_i16.to_be_bytes()).bytes()),
            ),
        ),
        (
            "an unknown attribute",
            one_batch(
                "written",
                0,
                Some(good().set(21, &256_i16.to_be_bytes()).bytes()),
            ),
        ),
        (
            "last offset too small",
            one_batch(
                "written",
                0,
                Some(good().set(23, &0_i32.to_be_bytes()).bytes()),
            ),
        ),
        (
            "last offset too large",
            one_batch(
                "written",
                0,
                Some(good().set(23, &7_i32.to_be_bytes()).bytes()),
            ),
        ),
        (
            "last offset -1",
            one_batch(
                "written",
                0,
                Some(good().set(23, &(-1_i32).to_be_bytes()).bytes()),
            ),
        ),
        (
            "count 0",
            one_batch(
                "written",
                0,
                Some(good().set(57, &0_i32.to_be_bytes()).bytes()),
            ),
        ),
        (
            "count -1",
            one_batch(
                "written",
                0,
                Some(good().set(57, &(-1_i32).to_be_bytes()).bytes()),
            ),
        ),
        (
            "count 1",
            one_batch(
                "written",
                0,
                Some(good().set(57, &1_i32.to_be_bytes()).bytes()),
            ),
        ),
        (
            "producer without sequence",
            one_batch("written", 0, Some(good().by(4000, 0, -1).bytes())),
        ),
        (
            "producer without epoch",
            one_batch("written", 0, Some(good().by(4000, -1, 0).bytes())),
        ),
        (
            "sequence without producer",
            one_batch("written", 0, Some(good().by(-1, -1, 5).bytes())),
        ),
    ];
    let mut partition = 0;
    for (scene, request) in wrong {
        pair.scene = format!("wrong batches: {scene}");
        let request = elsewhere(request, &mut partition);
        pair.ask_each(|_, _| request.clone());
    }
    pair.scene = "acks of 2".into();
    for acks in [2, -2, i16::MAX] {
        pair.ask_each(|_, _| ProduceRequest {
            acks,
            ..one_batch("written", 0, Some(good().bytes()))
        });
    }
    pair.scene = "a transaction that nobody began".into();
    let begun = ProduceRequest {
        transactional_id: Some("nobody".into()),
        ..one_batch("written", 0, Some(good().bytes()))
    };
    let request = elsewhere(begun, &mut partition);
    pair.ask_each(|_, _| request.clone());
    pair.scene = "odd times".into();
    for times in [
        [-1, -1],
        [i64::MIN, 0],
        [i64::MAX, 0],
        [0, -5],
        [MOMENT, 5],
        [-2, -2],
    ] {
        let batch = Batch::at(Codec::None, &times).bytes();
        let request = elsewhere(one_batch("written", 0, Some(batch)), &mut partition);
        pair.ask(9, |_| request.clone());
    }
    pair.scene = "a largest time that lies".into();
    for lie in [0_i64, -1, MOMENT + 99_999] {
        pair.ask(9, |_| {
            one_batch(
                "written",
                0,
                Some(good().set(35, &lie.to_be_bytes()).bytes()),
            )
        });
    }
}

/// The same to two partitions that nothing was sent to before, so that what one broker takes and the other refuses
/// moves the offsets of nothing else.
fn elsewhere(mut request: ProduceRequest, partition: &mut i32) -> ProduceRequest {
    for topic in request
        .topic_data
        .iter_mut()
        .filter(|topic| topic.name == "written")
    {
        topic.name = "wrong".into();
        for data in &mut topic.partition_data {
            data.index = match data.index {
                index @ (0 | 1) => *partition + index,
                9 => 9_999,
                other => other,
            };
        }
    }
    *partition += 2;
    request
}

fn rules(pair: &mut Pair) {
    pair.scene = "a limit of 200 bytes".into();
    for bytes in [100, 130, 131, 132, 133, 134, 140, 1000] {
        pair.ask_each(|_, _| one_batch("small", 0, Some(Batch::of_bytes(bytes).bytes())));
    }
    pair.scene = "the broker's clock".into();
    pair.ask_each(|_, _| one_batch("clocked", 0, Some(Batch::of(2).bytes())));
    pair.ask_each(|_, _| one_batch("clocked", 0, Some(Batch::compressed(Codec::Lz4, 9).bytes())));
    pair.scene = "records that are too old".into();
    pair.ask_each(|_, _| one_batch("recent", 0, Some(Batch::of(2).bytes())));
    pair.ask_each(|_, _| one_batch("recent", 0, Some(Batch::compressed(Codec::Gzip, 2).bytes())));
    pair.scene = "records that are too new".into();
    let later = 4_000_000_000_000;
    pair.ask_each(|_, _| {
        one_batch(
            "early",
            0,
            Some(Batch::at(Codec::None, &[MOMENT, later]).bytes()),
        )
    });
    pair.ask_each(|_, _| {
        one_batch(
            "early",
            0,
            Some(Batch::at(Codec::Lz4, &[later, MOMENT]).bytes()),
        )
    });
    pair.scene = "recompressed".into();
    pair.ask_each(|_, _| one_batch("zipped", 0, Some(Batch::of(9).bytes())));
    pair.ask_each(|_, _| {
        one_batch(
            "zipped",
            0,
            Some(Batch::compressed(Codec::Snappy, 9).bytes()),
        )
    });
    pair.scene = "too few replicas".into();
    for acks in [-1, 1] {
        pair.ask_each(|_, _| ProduceRequest {
            acks,
            ..one_batch("strict", 0, Some(Batch::of(1).bytes()))
        });
    }
}

fn producers(pair: &mut Pair) {
    pair.scene = "ids for producers".into();
    let init = |id: i64, epoch: i16, name: Option<&str>, version: i16| InitProducerIdRequest {
        transactional_id: name.map(str::to_owned),
        transaction_timeout_ms: 60_000,
        producer_id: if version >= 3 { id } else { -1 },
        producer_epoch: if version >= 3 { epoch } else { -1 },
        ..InitProducerIdRequest::default()
    };
    pair.ask_each(|_, version| init(-1, -1, None, version));
    for (id, epoch) in [(5, 0), (5, -1), (-1, 0), (5, i16::MAX), (-2, -2)] {
        pair.ask_each(|_, version| init(id, epoch, None, version));
    }
    pair.ask_each(|_, version| init(-1, -1, Some(""), version));
    pair.ask_each(|_, version| InitProducerIdRequest {
        transaction_timeout_ms: -1,
        ..init(-1, -1, None, version)
    });
    let ids = pair
        .ask(4, |_| init(-1, -1, None, 4))
        .map(|answers| answers.map(|answer| answer.producer_id))
        .unwrap_or(Both { ours: 1, theirs: 1 });
    let steps: &[(&str, i16, i32, usize)] = &[
        ("the first", 0, 0, 2),
        ("the next", 0, 2, 1),
        ("again", 0, 2, 1),
        ("an older one again", 0, 0, 2),
        ("a part of it again", 0, 0, 1),
        ("a gap", 0, 9, 1),
        ("backwards", 0, 1, 1),
        ("the next after all", 0, 3, 3),
        ("a newer epoch, not from 0", 1, 6, 1),
        ("a newer epoch", 1, 0, 1),
        ("an older epoch", 0, 6, 1),
        ("again in the newer epoch", 1, 0, 1),
        ("a much newer epoch", 7, 0, 1),
        ("one", 7, 1, 1),
        ("two", 7, 2, 1),
        ("three", 7, 3, 1),
        ("four", 7, 4, 1),
        ("five", 7, 5, 1),
        ("the oldest that is remembered", 7, 1, 1),
        ("one that is forgotten", 7, 0, 1),
    ];
    for (scene, epoch, sequence, count) in steps {
        pair.scene = format!("a producer: {scene}");
        pair.ask(9, |side| {
            let batch = Batch::of(*count).by(*ids.of(side), *epoch, *sequence);
            one_batch("counted", 0, Some(batch.bytes()))
        });
    }
    pair.scene = "a producer that begins in the middle".into();
    pair.ask_each(|_, version| {
        let batch = Batch::of(1).by(7_000 + i64::from(version), 3, 77);
        one_batch("counted", 1, Some(batch.bytes()))
    });
    pair.scene = "sequences that wrap".into();
    for sequence in [i32::MAX - 1, 0, i32::MAX, 1, 2] {
        pair.ask(9, |_| {
            one_batch(
                "counted",
                2,
                Some(Batch::of(2).by(8_000, 0, sequence).bytes()),
            )
        });
    }
    pair.scene = "who produces".into();
    for indexes in [vec![0], vec![1, 2], vec![], vec![9], vec![-1], vec![0, 0]] {
        for name in ["counted", "not-there", "a b"] {
            pair.ask_each(|_, _| DescribeProducersRequest {
                topics: vec![TopicRequest {
                    name: name.to_owned(),
                    partition_indexes: indexes.clone(),
                }],
            });
        }
    }
    pair.ask_each(|_, _| DescribeProducersRequest::default());
}
