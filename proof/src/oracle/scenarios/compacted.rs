//! Compacted topics: the settings that make one, what Kafka's own engines ask for, what may be produced, and what may be
//! deleted. `cleaning` compares what is left after cleaning.
//! Callers: `scenarios`.

use super::produce::one_batch;
use super::topics::{create, topic};
use crate::oracle::batches::{Batch, KeyValue, MOMENT};
use crate::oracle::pair::Pair;
use anyhow::Result;
use model::batch::Codec;
use wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Lists of policies, right and wrong ones.
const POLICIES: &[&str] = &[
    "",
    " ",
    "compact",
    "delete",
    "compact,delete",
    "delete,compact",
    "delete, compact",
    "compact,compact",
    "delete,delete,compact",
    "Compact",
    "none",
    "none,delete",
    "compact,",
    ",",
    "compact,,delete",
    "\"compact\"",
    "[compact]",
];

/// Settings of compaction, right and wrong ones, alone and against each other.
const SETTINGS: &[&[(&str, &str)]] = &[
    &[
        ("min.compaction.lag.ms", "10"),
        ("max.compaction.lag.ms", "9"),
    ],
    &[
        ("min.compaction.lag.ms", "10"),
        ("max.compaction.lag.ms", "10"),
    ],
    &[("max.compaction.lag.ms", "0")],
    &[("min.compaction.lag.ms", "-1")],
    &[("delete.retention.ms", "0")],
    &[("delete.retention.ms", "-1")],
    &[("min.cleanable.dirty.ratio", "0")],
    &[("min.cleanable.dirty.ratio", "1")],
    &[("min.cleanable.dirty.ratio", "0.50")],
    &[("min.cleanable.dirty.ratio", "1e-4")],
    &[("min.cleanable.dirty.ratio", "-0.1")],
    &[("segment.ms", "100"), ("segment.jitter.ms", "200")],
    &[("segment.jitter.ms", "-1")],
];

/// Topics as Kafka Streams and Kafka Connect create them for themselves.
const OF_ENGINES: &[(&str, &[(&str, &str)])] = &[
    (
        "count-store-changelog",
        &[
            ("cleanup.policy", "compact"),
            ("message.timestamp.type", "CreateTime"),
        ],
    ),
    (
        "window-store-changelog",
        &[
            ("cleanup.policy", "compact,delete"),
            ("retention.ms", "172800000"),
            ("message.timestamp.type", "CreateTime"),
        ],
    ),
    (
        "count-repartition",
        &[
            ("cleanup.policy", "delete"),
            ("segment.bytes", "52428800"),
            ("retention.ms", "-1"),
            ("message.timestamp.type", "CreateTime"),
        ],
    ),
    (
        "connect-configs",
        &[
            ("cleanup.policy", "compact"),
            ("min.insync.replicas", "1"),
            ("unclean.leader.election.enable", "false"),
        ],
    ),
];

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    creations(pair)?;
    alterations(pair)?;
    defaults(pair)?;
    keys(pair)?;
    deletions(pair)
}

fn creations(pair: &mut Pair) -> Result<()> {
    let mut asked: Vec<(String, Vec<(&str, &str)>)> = Vec::new();
    for (n, policy) in POLICIES.iter().enumerate() {
        asked.push((format!("policy-{n}"), vec![("cleanup.policy", policy)]));
    }
    for (n, settings) in SETTINGS.iter().enumerate() {
        asked.push((format!("compaction-{n}"), settings.to_vec()));
    }
    for (name, settings) in OF_ENGINES {
        asked.push(((*name).to_owned(), settings.to_vec()));
    }
    for (name, settings) in &asked {
        pair.scene = format!("compacted: create with {settings:?}");
        for validate_only in [true, false] {
            pair.ask(7, |_| {
                let wanted = CreatableTopic {
                    replication_factor: -1,
                    ..topic(name, 1, settings)
                };
                CreateTopicsRequest {
                    topics: vec![wanted],
                    timeout_ms: 10_000,
                    validate_only,
                }
            });
        }
    }
    pair.settle()?;
    for (name, settings) in &asked {
        pair.scene = format!("compacted: created with {settings:?}");
        let keys: Vec<&str> = settings.iter().map(|(key, _)| *key).collect();
        describe(pair, TOPIC, name, &keys);
    }
    Ok(())
}

fn describe(pair: &mut Pair, kind: i8, name: &str, keys: &[&str]) {
    pair.ask(4, |_| DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.to_owned(),
            configuration_keys: Some(keys.iter().map(|key| (*key).to_owned()).collect()),
        }],
        ..DescribeConfigsRequest::default()
    });
}

fn alter(pair: &mut Pair, kind: i8, name: &str, operations: &[(&str, i8, Option<&str>)]) {
    for validate_only in [true, false] {
        pair.ask(1, |_| IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: kind,
                resource_name: name.to_owned(),
                configs: operations
                    .iter()
                    .map(|(name, operation, value)| AlterableConfig {
                        name: (*name).to_owned(),
                        config_operation: *operation,
                        value: value.map(str::to_owned),
                    })
                    .collect(),
            }],
            validate_only,
        });
    }
}

fn alterations(pair: &mut Pair) -> Result<()> {
    create(pair, vec![topic("altered", 1, &[])])?;
    const POLICY: &str = "cleanup.policy";
    let steps: &[&[(&str, i8, Option<&str>)]] = &[
        &[(POLICY, APPEND, Some("compact"))],
        &[(POLICY, SUBTRACT, Some("delete"))],
        &[(POLICY, SUBTRACT, Some("compact"))],
        &[(POLICY, SUBTRACT, Some("compact"))],
        &[(POLICY, APPEND, Some("delete,compact"))],
        &[(POLICY, APPEND, Some("compact"))],
        &[(POLICY, APPEND, Some("shred"))],
        &[(POLICY, SET, Some("compact,compact"))],
        &[(POLICY, SET, Some(""))],
        &[(POLICY, DELETE, None)],
        &[("min.compaction.lag.ms", SET, Some("100"))],
        &[("max.compaction.lag.ms", SET, Some("50"))],
        &[
            ("min.compaction.lag.ms", SET, Some("40")),
            ("max.compaction.lag.ms", SET, Some("50")),
        ],
    ];
    for operations in steps {
        pair.scene = format!("compacted: alter {operations:?}");
        alter(pair, TOPIC, "altered", operations);
        pair.settle()?;
        let keys = [POLICY, "min.compaction.lag.ms", "max.compaction.lag.ms"];
        describe(pair, TOPIC, "altered", &keys);
    }
    Ok(())
}

/// What all topics of the broker do that say nothing themselves.
fn defaults(pair: &mut Pair) -> Result<()> {
    create(pair, vec![topic("defaulted", 1, &[])])?;
    const POLICY: &str = "log.cleanup.policy";
    const MIN: &str = "log.cleaner.min.compaction.lag.ms";
    const MAX: &str = "log.cleaner.max.compaction.lag.ms";
    let steps: &[&[(&str, i8, Option<&str>)]] = &[
        &[(POLICY, SET, Some("compact,delete"))],
        &[(POLICY, SET, Some("shred"))],
        &[(MIN, SET, Some("1000"))],
        &[(MAX, SET, Some("2000"))],
        &[("log.cleaner.min.cleanable.ratio", SET, Some("0.25"))],
        &[("log.cleaner.delete.retention.ms", SET, Some("3000"))],
        &[
            (POLICY, DELETE, None),
            (MIN, DELETE, None),
            (MAX, DELETE, None),
            ("log.cleaner.min.cleanable.ratio", DELETE, None),
            ("log.cleaner.delete.retention.ms", DELETE, None),
        ],
    ];
    for operations in steps {
        pair.scene = format!("compacted: defaults {operations:?}");
        alter(pair, BROKER, "", operations);
        pair.settle()?;
        let keys = [
            "cleanup.policy",
            "min.compaction.lag.ms",
            "max.compaction.lag.ms",
            "min.cleanable.dirty.ratio",
            "delete.retention.ms",
        ];
        describe(pair, TOPIC, "defaulted", &keys);
    }
    Ok(())
}

/// Records with and without keys, for topics of each policy.
fn keys(pair: &mut Pair) -> Result<()> {
    let times = ("message.timestamp.before.max.ms", "3600000");
    create(
        pair,
        vec![
            topic("keyed", 1, &[("cleanup.policy", "compact")]),
            topic("keyed-both", 1, &[("cleanup.policy", "compact,delete")]),
            topic("keyed-recent", 1, &[("cleanup.policy", "compact"), times]),
            topic(
                "keyed-clocked",
                1,
                &[
                    ("cleanup.policy", "compact"),
                    ("message.timestamp.type", "LogAppendTime"),
                ],
            ),
            topic(
                "keyed-zipped",
                1,
                &[("cleanup.policy", "compact"), ("compression.type", "gzip")],
            ),
            topic("keyless", 1, &[("cleanup.policy", "")]),
        ],
    )?;
    let batches: &[&[KeyValue<'_>]] = &[
        &[(Some("a"), Some("1"))],
        &[(None, Some("1"))],
        &[(Some(""), Some("1"))],
        &[(Some("a"), None), (Some("b"), Some("2"))],
        &[
            (Some("a"), Some("1")),
            (None, Some("2")),
            (Some("b"), None),
            (None, None),
            (None, Some("3")),
            (None, Some("4")),
        ],
    ];
    for name in [
        "keyed",
        "keyed-both",
        "keyed-recent",
        "keyed-clocked",
        "keyed-zipped",
        "keyless",
    ] {
        for codec in [
            Codec::None,
            Codec::Gzip,
            Codec::Snappy,
            Codec::Lz4,
            Codec::Zstd,
        ] {
            pair.scene = format!("compacted: keys for {name} in {codec}");
            for records in batches {
                let bytes = Batch::keyed(codec, records).bytes();
                // Versions before 7 do not know zstd, and 8 is the first that names records.
                for version in [7, 8, 11] {
                    pair.ask(version, |_| one_batch(name, 0, Some(bytes.clone())));
                }
            }
        }
    }
    pair.scene = "compacted: a header with another largest timestamp".into();
    let wrong = Batch::of(2).set(35, &(MOMENT + 9).to_be_bytes()).bytes();
    pair.ask(9, |_| one_batch("keyed", 0, Some(wrong.clone())));
    Ok(())
}

/// What clients may delete of topics of each policy.
fn deletions(pair: &mut Pair) -> Result<()> {
    let policies = ["compact", "compact,delete", "delete", ""];
    let name = |n: usize| format!("shrinking-{n}");
    let topics = policies
        .iter()
        .enumerate()
        .map(|(n, policy)| topic(&name(n), 1, &[("cleanup.policy", policy)]));
    create(pair, topics.collect())?;
    for (n, policy) in policies.iter().enumerate() {
        pair.scene = format!("compacted: delete records under {policy:?}");
        let records = Batch::of(3).bytes();
        pair.ask(9, |_| one_batch(&name(n), 0, Some(records.clone())));
        for offset in [1, 99, -1] {
            pair.ask_each(|_, _| DeleteRecordsRequest {
                topics: vec![DeleteRecordsTopic {
                    name: name(n),
                    partitions: vec![DeleteRecordsPartition {
                        partition_index: 0,
                        offset,
                    }],
                }],
                timeout_ms: 10_000,
            });
        }
    }
    Ok(())
}
