//! Read: what comes back of what was produced: by offset, by time, by epoch, and after records were deleted.
//! Callers: `scenarios`.

use super::produce::one_batch;
use super::topics::{create, topic};
use crate::oracle::batches::{Batch, MOMENT};
use crate::oracle::pair::{Pair, Side};
use anyhow::Result;
use model::batch::Codec;
use wire::Uuid;
use wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use wire::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    create(
        pair,
        vec![
            topic("read", 3, &[]),
            topic("empty", 1, &[]),
            topic("shrinks", 2, &[]),
        ],
    )?;
    pair.scene = "filling".into();
    for codec in [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ] {
        pair.ask(9, |_| {
            one_batch("read", 0, Some(Batch::compressed(codec, 4).bytes()))
        });
    }
    for times in [
        [MOMENT + 100, MOMENT + 50],
        [MOMENT + 10, MOMENT + 300],
        [MOMENT, MOMENT + 1],
    ] {
        pair.ask(9, |_| {
            one_batch("read", 1, Some(Batch::at(Codec::None, &times).bytes()))
        });
    }
    for partition in [0, 1] {
        for _ in 0..4 {
            pair.ask(9, |_| {
                one_batch("shrinks", partition, Some(Batch::of(5).bytes()))
            });
        }
    }
    fetch(pair)?;
    list(pair);
    epochs(pair);
    shrink(pair)
}

/// One partition, from an offset on.
pub fn partition(partition: i32, fetch_offset: i64) -> FetchPartition {
    FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    }
}

/// A fetch of these partitions, by name or by id as the version wants it.
pub fn request(version: i16, topics: Vec<(&str, Uuid, Vec<FetchPartition>)>) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 50,
        min_bytes: 1,
        max_bytes: 10 << 20,
        topics: topics
            .into_iter()
            .map(|(name, id, partitions)| FetchTopic {
                topic: if version < 13 {
                    name.to_owned()
                } else {
                    String::new()
                },
                topic_id: if version >= 13 { id } else { Uuid::nil() },
                partitions,
            })
            .collect(),
        ..FetchRequest::default()
    }
}

fn fetch(pair: &mut Pair) -> Result<()> {
    let read = pair.topic_id("read")?;
    let empty = pair.topic_id("empty")?;
    let unknown = Uuid::from_u128(79);
    for offset in [0, 1, 4, 7, 19, 20, 21, 1000, -1, -2, i64::MAX] {
        pair.scene = format!("fetch from {offset}");
        pair.ask_each(|side, version| {
            request(
                version,
                vec![("read", *read.of(side), vec![partition(0, offset)])],
            )
        });
    }
    pair.scene = "fetch of nothing".into();
    pair.ask_each(|_, version| request(version, vec![]));
    pair.ask_each(|side, version| request(version, vec![("read", *read.of(side), vec![])]));
    pair.scene = "fetch of unknown topics and partitions".into();
    for (name, index) in [
        ("not-there", 0),
        ("a b", 0),
        ("", 0),
        ("read", 9),
        ("read", -1),
    ] {
        pair.ask_each(|side, version| {
            let id = if name == "read" {
                *read.of(side)
            } else {
                unknown
            };
            request(version, vec![(name, id, vec![partition(index, 0)])])
        });
    }
    pair.ask_each(|_, version| request(version, vec![("", Uuid::nil(), vec![partition(0, 0)])]));
    pair.scene = "fetch of an empty partition".into();
    pair.ask_each(|side, version| {
        request(
            version,
            vec![("empty", *empty.of(side), vec![partition(0, 0)])],
        )
    });
    pair.scene = "fetch of several".into();
    pair.ask_each(|side, version| {
        request(
            version,
            vec![
                ("empty", *empty.of(side), vec![partition(0, 0)]),
                (
                    "read",
                    *read.of(side),
                    vec![partition(1, 2), partition(0, 8), partition(2, 0)],
                ),
                ("not-there", unknown, vec![partition(0, 0)]),
            ],
        )
    });
    pair.scene = "fetch of one partition twice".into();
    pair.ask_each(|side, version| {
        request(
            version,
            vec![(
                "read",
                *read.of(side),
                vec![partition(0, 0), partition(0, 8)],
            )],
        )
    });
    for isolation_level in [1, 2, -1] {
        pair.scene = format!("fetch with isolation {isolation_level}");
        pair.ask_each(|side, version| FetchRequest {
            isolation_level,
            ..request(
                version,
                vec![("read", *read.of(side), vec![partition(0, 12)])],
            )
        });
    }
    pair.scene = "fetch with limits that fit one batch".into();
    for (max_bytes, partition_max_bytes) in [(1, 1), (0, 0), (1, 1 << 20), (1 << 20, 1), (-1, -1)] {
        pair.ask_each(|side, version| {
            let small = |index, offset| FetchPartition {
                partition_max_bytes,
                ..partition(index, offset)
            };
            FetchRequest {
                max_bytes,
                ..request(
                    version,
                    vec![("read", *read.of(side), vec![small(0, 0), small(1, 0)])],
                )
            }
        });
    }
    pair.scene = "fetch that waits for more".into();
    for (max_wait_ms, min_bytes) in [
        (0, 1),
        (0, 1 << 20),
        (20, 1 << 20),
        (-1, 1),
        (20, 0),
        (20, -1),
    ] {
        pair.ask_each(|side, version| FetchRequest {
            max_wait_ms,
            min_bytes,
            ..request(
                version,
                vec![("read", *read.of(side), vec![partition(0, 16)])],
            )
        });
    }
    for by in [0, -1, 1, 100] {
        pair.scene = format!("fetch in leader epoch {by:+}");
        let epochs = [Side::Ours, Side::Theirs].map(|side| pair.epoch(side, by));
        pair.ask_each(|side, version| {
            let epoch = epochs[usize::from(side == Side::Theirs)];
            let wanted = FetchPartition {
                current_leader_epoch: epoch,
                ..partition(0, 4)
            };
            request(version, vec![("read", *read.of(side), vec![wanted])])
        });
        pair.scene = format!("fetch after leader epoch {by:+}");
        pair.ask_each(|side, version| {
            let epoch = epochs[usize::from(side == Side::Theirs)];
            let wanted = FetchPartition {
                last_fetched_epoch: if version >= 12 { epoch } else { -1 },
                ..partition(0, 4)
            };
            request(version, vec![("read", *read.of(side), vec![wanted])])
        });
    }
    pair.scene = "fetch sessions".into();
    for (session_id, session_epoch) in [(0, -1), (0, 0), (0, 1), (5, 0), (5, 1), (5, -1), (0, -2)] {
        pair.ask_each(|side, version| FetchRequest {
            session_id: if version >= 7 { session_id } else { 0 },
            session_epoch: if version >= 7 { session_epoch } else { -1 },
            ..request(
                version,
                vec![("read", *read.of(side), vec![partition(1, 4)])],
            )
        });
    }
    Ok(())
}

fn list(pair: &mut Pair) {
    let wanted =
        |partition_index: i32, timestamp: i64, current_leader_epoch: i32| ListOffsetsPartition {
            partition_index,
            current_leader_epoch,
            timestamp,
        };
    let request = |topics: Vec<(&str, Vec<ListOffsetsPartition>)>| ListOffsetsRequest {
        replica_id: -1,
        topics: topics
            .into_iter()
            .map(|(name, partitions)| ListOffsetsTopic {
                name: name.to_owned(),
                partitions,
            })
            .collect(),
        ..ListOffsetsRequest::default()
    };
    let times = [
        -1,
        -2,
        -3,
        -4,
        -5,
        -6,
        -7,
        -100,
        i64::MIN,
        0,
        MOMENT - 1,
        MOMENT,
        MOMENT + 1,
        MOMENT + 3,
        MOMENT + 4,
        MOMENT + 51,
        MOMENT + 100,
        MOMENT + 101,
        MOMENT + 300,
        MOMENT + 301,
        i64::MAX,
    ];
    for time in times {
        pair.scene = format!("offset at {time}");
        for (name, index) in [("read", 0), ("read", 1), ("empty", 0)] {
            pair.ask_each(|_, _| request(vec![(name, vec![wanted(index, time, -1)])]));
        }
    }
    pair.scene = "offsets of what is not there".into();
    for (name, index) in [
        ("not-there", 0),
        ("a b", 0),
        ("", 0),
        ("read", 9),
        ("read", -1),
    ] {
        pair.ask_each(|_, _| request(vec![(name, vec![wanted(index, -1, -1)])]));
    }
    pair.scene = "offsets of nothing".into();
    pair.ask_each(|_, _| request(vec![]));
    pair.ask_each(|_, _| request(vec![("read", vec![])]));
    pair.scene = "offsets of one partition twice".into();
    pair.ask_each(|_, _| request(vec![("read", vec![wanted(0, -1, -1), wanted(0, -2, -1)])]));
    pair.ask_each(|_, _| {
        request(vec![
            ("read", vec![wanted(0, -1, -1)]),
            ("read", vec![wanted(0, -2, -1)]),
        ])
    });
    pair.scene = "offsets of several".into();
    pair.ask_each(|_, _| {
        let rows = vec![wanted(0, -1, -1), wanted(9, -1, -1), wanted(1, MOMENT, -1)];
        request(vec![
            ("read", rows),
            ("not-there", vec![wanted(0, -1, -1)]),
            ("empty", vec![]),
        ])
    });
    for isolation_level in [1, 2, -1] {
        pair.scene = format!("offsets with isolation {isolation_level}");
        pair.ask_each(|_, version| ListOffsetsRequest {
            isolation_level: if version >= 2 { isolation_level } else { 0 },
            ..request(vec![(
                "read",
                vec![wanted(0, -1, -1), wanted(1, MOMENT + 200, -1)],
            )])
        });
    }
    for by in [0, -1, 1] {
        pair.scene = format!("offsets in leader epoch {by:+}");
        let epochs = [Side::Ours, Side::Theirs].map(|side| pair.epoch(side, by));
        for time in [-1, -2, MOMENT] {
            pair.ask_each(|side, _| {
                let epoch = epochs[usize::from(side == Side::Theirs)];
                request(vec![("read", vec![wanted(0, time, epoch)])])
            });
        }
    }
}

fn epochs(pair: &mut Pair) {
    let ask = |pair: &mut Pair, name: &str, partition: i32, current: Option<i32>, wanted: i32| {
        let of = |by: i32| [Side::Ours, Side::Theirs].map(|side| pair.epoch(side, by));
        let leader = of(wanted);
        let current = current.map_or([-1, -1], of);
        pair.ask_each(|side, _| {
            let at = usize::from(side == Side::Theirs);
            OffsetForLeaderEpochRequest {
                replica_id: -1,
                topics: vec![OffsetForLeaderTopic {
                    topic: name.to_owned(),
                    partitions: vec![OffsetForLeaderPartition {
                        partition,
                        current_leader_epoch: current[at],
                        leader_epoch: leader[at],
                    }],
                }],
            }
        });
    };
    for wanted in [0, -1, 1, 100] {
        pair.scene = format!("end of leader epoch {wanted:+}");
        for (name, index) in [
            ("read", 0),
            ("empty", 0),
            ("read", 9),
            ("not-there", 0),
            ("a b", 0),
        ] {
            ask(pair, name, index, None, wanted);
        }
        for current in [0, -1, 1] {
            ask(pair, "read", 0, Some(current), wanted);
        }
    }
    pair.scene = "end of no leader epoch".into();
    pair.ask_each(|_, _| OffsetForLeaderEpochRequest::default());
}

fn shrink(pair: &mut Pair) -> Result<()> {
    let ask = |pair: &mut Pair, name: &str, rows: &[(i32, i64)]| {
        pair.ask_each(|_, _| DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: name.to_owned(),
                partitions: rows
                    .iter()
                    .map(|(partition_index, offset)| DeleteRecordsPartition {
                        partition_index: *partition_index,
                        offset: *offset,
                    })
                    .collect(),
            }],
            timeout_ms: 10_000,
        });
    };
    for offset in [0, 3, 5, 7, 2, 21, 1000, -2, i64::MIN, i64::MAX] {
        pair.scene = format!("delete records before {offset}");
        ask(pair, "shrinks", &[(0, offset)]);
    }
    let id = pair.topic_id("shrinks")?;
    pair.scene = "after records were deleted".into();
    for offset in [0, 6, 7, 10, 20] {
        pair.ask_each(|side, version| {
            request(
                version,
                vec![("shrinks", *id.of(side), vec![partition(0, offset)])],
            )
        });
    }
    for time in [-2, -1, -3, MOMENT, MOMENT + 3] {
        pair.ask_each(|_, _| ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: "shrinks".into(),
                partitions: vec![ListOffsetsPartition {
                    timestamp: time,
                    ..ListOffsetsPartition::default()
                }],
            }],
            ..ListOffsetsRequest::default()
        });
    }
    pair.scene = "delete records of what is not there".into();
    for (name, index) in [
        ("not-there", 0),
        ("a b", 0),
        ("shrinks", 9),
        ("shrinks", -1),
        ("empty", 0),
    ] {
        ask(pair, name, &[(index, 0)]);
    }
    ask(pair, "shrinks", &[]);
    pair.ask_each(|_, _| DeleteRecordsRequest::default());
    pair.scene = "delete records of several".into();
    ask(pair, "shrinks", &[(1, 5), (9, 5), (0, 8)]);
    ask(pair, "shrinks", &[(1, 6), (1, 7)]);
    pair.scene = "delete all records".into();
    ask(pair, "shrinks", &[(1, -1)]);
    pair.ask_each(|side, version| {
        request(
            version,
            vec![(
                "shrinks",
                *id.of(side),
                vec![partition(1, 20), partition(1, 19)],
            )],
        )
    });
    pair.scene = "after all records were deleted".into();
    pair.ask(9, |_| one_batch("shrinks", 1, Some(Batch::of(1).bytes())));
    pair.ask_each(|side, version| {
        request(
            version,
            vec![("shrinks", *id.of(side), vec![partition(1, 20)])],
        )
    });
    Ok(())
}
