//! Configs: telling and changing settings, and the questions of administrators that one node answers simply.
//! Callers: `scenarios`.

use super::topics::{WRONG_SETTINGS, create, topic};
use crate::oracle::pair::Pair;
use anyhow::Result;
use wire::messages::alter_configs::{self, AlterConfigsRequest};
use wire::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use wire::messages::describe_log_dirs::{DescribableLogDirTopic, DescribeLogDirsRequest};
use wire::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use wire::messages::list_config_resources::ListConfigResourcesRequest;
use wire::messages::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsTopics,
};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    create(
        pair,
        vec![
            topic("plain", 1, &[]),
            topic(
                "tuned",
                1,
                &[("segment.bytes", "2000000"), ("cleanup.policy", "delete")],
            ),
        ],
    )?;
    describe_all(pair);
    change(pair)?;
    replace(pair)?;
    administer(pair);
    Ok(())
}

fn asked(kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResource {
    DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.to_owned(),
        configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect()),
    }
}

fn describe(pair: &mut Pair, resources: &[DescribeConfigsResource], synonyms: bool) {
    pair.ask_each(|_, version| DescribeConfigsRequest {
        resources: resources.to_vec(),
        include_synonyms: synonyms,
        include_documentation: synonyms && version >= 3,
    });
}

fn describe_all(pair: &mut Pair) {
    pair.scene = "settings of topics".into();
    for name in ["plain", "tuned", "not-there", "a b", ""] {
        for keys in [
            None,
            Some(&[][..]),
            Some(&["retention.ms", "segment.bytes"][..]),
            Some(&["no.such", "retention.ms"][..]),
            Some(&["retention.ms", "retention.ms"][..]),
        ] {
            describe(pair, &[asked(TOPIC, name, keys)], false);
        }
    }
    pair.scene = "settings of topics with synonyms".into();
    describe(pair, &[asked(TOPIC, "tuned", None)], true);
    pair.scene = "settings of one topic twice".into();
    describe(
        pair,
        &[
            asked(TOPIC, "plain", Some(&["retention.ms"])),
            asked(TOPIC, "plain", Some(&["segment.ms"])),
        ],
        false,
    );
    pair.scene = "settings of brokers".into();
    for name in ["1", "", "2", "one", "-1"] {
        describe(
            pair,
            &[asked(
                BROKER,
                name,
                Some(&["node.id", "num.partitions", "no.such"]),
            )],
            false,
        );
    }
    pair.scene = "settings of what has none".into();
    for kind in [0, 1, 3, 8, 99, -1] {
        describe(pair, &[asked(kind, "plain", None)], false);
    }
    describe(pair, &[], false);
    pair.scene = "settings of groups".into();
    for name in ["some-group", ""] {
        describe(pair, &[asked(GROUP, name, None)], false);
        describe(pair, &[asked(GROUP, name, Some(&["no.such"]))], false);
    }
    pair.scene = "levels of loggers".into();
    for name in ["1", "", "2", "one", "-1"] {
        describe(pair, &[asked(BROKER_LOGGER, name, Some(&["root"]))], false);
        describe(
            pair,
            &[asked(BROKER_LOGGER, name, Some(&["no.such"]))],
            false,
        );
    }
}

fn operation(name: &str, operation: i8, value: Option<&str>) -> AlterableConfig {
    AlterableConfig {
        name: name.to_owned(),
        config_operation: operation,
        value: value.map(str::to_owned),
    }
}

fn change(pair: &mut Pair) -> Result<()> {
    let ask = |pair: &mut Pair, rows: &[(i8, &str, Vec<AlterableConfig>)]| {
        for validate_only in [true, false] {
            pair.ask_each(|_, _| IncrementalAlterConfigsRequest {
                resources: rows
                    .iter()
                    .map(|(kind, name, configs)| AlterConfigsResource {
                        resource_type: *kind,
                        resource_name: (*name).to_owned(),
                        configs: configs.clone(),
                    })
                    .collect(),
                validate_only,
            });
        }
    };
    pair.scene = "change nothing".into();
    ask(pair, &[]);
    ask(pair, &[(TOPIC, "plain", vec![])]);
    pair.scene = "change what is not there".into();
    for (kind, name) in [
        (TOPIC, "not-there"),
        (TOPIC, "a b"),
        (TOPIC, ""),
        (BROKER, "2"),
        (BROKER, "one"),
        (BROKER_LOGGER, "1"),
        (BROKER_LOGGER, "2"),
        (GROUP, "some-group"),
        (GROUP, ""),
        (99, "x"),
        (0, "x"),
    ] {
        ask(
            pair,
            &[(
                kind,
                name,
                vec![operation("retention.ms", SET, Some("5000"))],
            )],
        );
    }
    for (key, value) in WRONG_SETTINGS {
        pair.scene = format!("change to {key}={value}");
        ask(
            pair,
            &[(TOPIC, "plain", vec![operation(key, SET, Some(value))])],
        );
    }
    let steps: Vec<(&str, Vec<AlterableConfig>)> = vec![
        ("set", vec![operation("retention.ms", SET, Some("5000000"))]),
        ("set to null", vec![operation("retention.ms", SET, None)]),
        ("delete", vec![operation("retention.ms", DELETE, None)]),
        (
            "delete what is not set",
            vec![operation("segment.ms", DELETE, None)],
        ),
        (
            "delete with a value",
            vec![operation("segment.ms", DELETE, Some("7"))],
        ),
        (
            "delete what is unknown",
            vec![operation("no.such", DELETE, None)],
        ),
        (
            "append",
            vec![operation("cleanup.policy", APPEND, Some("delete"))],
        ),
        (
            "subtract",
            vec![operation("cleanup.policy", SUBTRACT, Some("delete"))],
        ),
        (
            "append to no list",
            vec![operation("retention.ms", APPEND, Some("1"))],
        ),
        (
            "subtract from no list",
            vec![operation("retention.ms", SUBTRACT, Some("1"))],
        ),
        (
            "append null",
            vec![operation("cleanup.policy", APPEND, None)],
        ),
        (
            "an unknown operation",
            vec![operation("retention.ms", 9, Some("1"))],
        ),
        (
            "one setting twice",
            vec![
                operation("retention.ms", SET, Some("1000")),
                operation("retention.ms", DELETE, None),
            ],
        ),
        (
            "a right one and a wrong one",
            vec![
                operation("retention.ms", SET, Some("9000000")),
                operation("segment.bytes", SET, Some("x")),
            ],
        ),
    ];
    for (what, operations) in steps {
        pair.scene = format!("change: {what}");
        ask(pair, &[(TOPIC, "tuned", operations)]);
        pair.settle()?;
        describe(
            pair,
            &[asked(
                TOPIC,
                "tuned",
                Some(&["retention.ms", "cleanup.policy", "segment.bytes"]),
            )],
            true,
        );
    }
    pair.scene = "change one topic twice".into();
    ask(
        pair,
        &[
            (
                TOPIC,
                "tuned",
                vec![operation("retention.ms", SET, Some("1111111"))],
            ),
            (
                TOPIC,
                "tuned",
                vec![operation("segment.ms", SET, Some("2222222"))],
            ),
        ],
    );
    pair.scene = "change a right one among wrong ones".into();
    ask(
        pair,
        &[
            (
                TOPIC,
                "not-there",
                vec![operation("retention.ms", SET, Some("1"))],
            ),
            (
                TOPIC,
                "plain",
                vec![operation("retention.ms", SET, Some("3333333"))],
            ),
            (
                TOPIC,
                "tuned",
                vec![operation("retention.ms", SET, Some("x"))],
            ),
        ],
    );
    pair.settle()?;
    for name in ["plain", "tuned"] {
        describe(
            pair,
            &[asked(TOPIC, name, Some(&["retention.ms", "segment.ms"]))],
            true,
        );
    }
    Ok(())
}

/// Settings with their values.
type Values<'a> = &'a [(&'a str, Option<&'a str>)];

fn replace(pair: &mut Pair) -> Result<()> {
    let ask = |pair: &mut Pair, rows: &[(i8, &str, Values<'_>)]| {
        for validate_only in [true, false] {
            pair.ask_each(|_, _| AlterConfigsRequest {
                resources: rows
                    .iter()
                    .map(
                        |(kind, name, configs)| alter_configs::AlterConfigsResource {
                            resource_type: *kind,
                            resource_name: (*name).to_owned(),
                            configs: configs
                                .iter()
                                .map(|(name, value)| alter_configs::AlterableConfig {
                                    name: (*name).to_owned(),
                                    value: value.map(str::to_owned),
                                })
                                .collect(),
                        },
                    )
                    .collect(),
                validate_only,
            });
        }
    };
    let steps: &[(&str, i8, &str, Values<'_>)] = &[
        ("all", TOPIC, "tuned", &[("segment.ms", Some("7777777"))]),
        ("all by nothing", TOPIC, "tuned", &[]),
        ("by null", TOPIC, "tuned", &[("segment.ms", None)]),
        ("by an unknown", TOPIC, "tuned", &[("no.such", Some("1"))]),
        (
            "by a wrong value",
            TOPIC,
            "tuned",
            &[("retention.ms", Some("x"))],
        ),
        (
            "one twice",
            TOPIC,
            "tuned",
            &[("retention.ms", Some("1")), ("retention.ms", Some("2"))],
        ),
        (
            "of an unknown topic",
            TOPIC,
            "not-there",
            &[("retention.ms", Some("1"))],
        ),
        (
            "of a bad name",
            TOPIC,
            "a b",
            &[("retention.ms", Some("1"))],
        ),
        (
            "of an unknown broker",
            BROKER,
            "7",
            &[("log.cleaner.threads", Some("2"))],
        ),
        ("of an unknown kind", 99, "x", &[]),
    ];
    for (what, kind, name, configs) in steps {
        pair.scene = format!("replace settings: {what}");
        ask(pair, &[(*kind, *name, *configs)]);
        pair.settle()?;
        describe(
            pair,
            &[asked(
                TOPIC,
                "tuned",
                Some(&["retention.ms", "segment.ms", "segment.bytes"]),
            )],
            true,
        );
    }
    // One topic twice is left out: Kafka never answers it.
    Ok(())
}

fn administer(pair: &mut Pair) {
    pair.scene = "what has settings".into();
    for kinds in [
        &[][..],
        &[TOPIC],
        &[BROKER],
        &[TOPIC, BROKER],
        &[8],
        &[16],
        &[32],
        &[99],
        &[-1],
    ] {
        pair.ask_each(|_, version| ListConfigResourcesRequest {
            resource_types: if version >= 1 {
                kinds.to_vec()
            } else {
                Vec::new()
            },
        });
    }
    pair.scene = "directories".into();
    let of = |name: &str, partitions: &[i32]| DescribableLogDirTopic {
        topic: name.to_owned(),
        partitions: partitions.to_vec(),
    };
    for topics in [
        Some(vec![of("plain", &[0])]),
        Some(vec![of("plain", &[0, 9]), of("not-there", &[0])]),
        Some(vec![of("plain", &[])]),
        Some(vec![]),
    ] {
        pair.ask_each(|_, _| DescribeLogDirsRequest {
            topics: topics.clone(),
        });
    }
    pair.scene = "elections".into();
    for election_type in [0, 1, 9, -1] {
        for rows in [
            Some(vec![("plain", vec![0])]),
            Some(vec![("plain", vec![0, 9, -1]), ("not-there", vec![0])]),
            Some(vec![("plain", vec![])]),
            Some(vec![]),
            None,
        ] {
            pair.ask_each(|_, version| ElectLeadersRequest {
                election_type: if version >= 1 { election_type } else { 0 },
                topic_partitions: rows.as_ref().map(|rows| {
                    rows.iter()
                        .map(|(name, partitions)| TopicPartitions {
                            topic: (*name).to_owned(),
                            partitions: partitions.clone(),
                        })
                        .collect()
                }),
                timeout_ms: 5_000,
            });
        }
    }
    pair.scene = "reassignments".into();
    for (name, partition, replicas) in [
        ("plain", 0, None),
        ("plain", 0, Some(vec![1])),
        ("plain", 0, Some(vec![2])),
        ("plain", 0, Some(vec![1, 2])),
        ("plain", 0, Some(vec![1, 1])),
        ("plain", 0, Some(vec![])),
        ("plain", 0, Some(vec![-1])),
        ("plain", 9, Some(vec![1])),
        ("plain", 9, None),
        ("not-there", 0, Some(vec![1])),
        ("a b", 0, None),
    ] {
        pair.ask_each(|_, _| AlterPartitionReassignmentsRequest {
            timeout_ms: 5_000,
            topics: vec![ReassignableTopic {
                name: name.to_owned(),
                partitions: vec![ReassignablePartition {
                    partition_index: partition,
                    replicas: replicas.clone(),
                }],
            }],
            ..AlterPartitionReassignmentsRequest::default()
        });
    }
    pair.ask_each(|_, _| AlterPartitionReassignmentsRequest::default());
    for topics in [
        None,
        Some(vec![("plain", vec![0])]),
        Some(vec![("not-there", vec![0])]),
        Some(vec![]),
    ] {
        pair.ask_each(|_, _| ListPartitionReassignmentsRequest {
            timeout_ms: 5_000,
            topics: topics.as_ref().map(|topics| {
                topics
                    .iter()
                    .map(|(name, indexes)| ListPartitionReassignmentsTopics {
                        name: (*name).to_owned(),
                        partition_indexes: indexes.clone(),
                    })
                    .collect()
            }),
        });
    }
}
