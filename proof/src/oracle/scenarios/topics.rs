//! Topics: creating, telling, growing and deleting them.
//! Callers: `scenarios`; the others create their topics here.

use crate::oracle::pair::{Pair, Side};
use anyhow::Result;
use wire::Uuid;
use wire::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use wire::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use wire::messages::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, RequestCursor, TopicRequest,
};
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    create_well(pair)?;
    create_badly(pair)?;
    describe_all(pair)?;
    grow(pair)?;
    delete(pair)
}

/// A topic with these settings, on both.
pub fn topic(name: &str, partitions: i32, settings: &[(&str, &str)]) -> CreatableTopic {
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: 1,
        configs: settings
            .iter()
            .map(|(key, value)| CreatableTopicConfig {
                name: (*key).to_owned(),
                value: Some((*value).to_owned()),
            })
            .collect(),
        ..CreatableTopic::default()
    }
}

/// Creates topics on both and waits until they can be used.
/// Their records stay, however old: Kafka's would go in the middle of a run.
pub fn create(pair: &mut Pair, mut topics: Vec<CreatableTopic>) -> Result<()> {
    for topic in &mut topics {
        topic.configs.push(CreatableTopicConfig {
            name: "retention.ms".to_owned(),
            value: Some("-1".to_owned()),
        });
    }
    let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    let (_, last) = pair.versions(wire::ApiKey::CreateTopics).unwrap_or((2, 7));
    pair.ask(last, |_| request(topics.clone(), false));
    pair.settle()?;
    for name in names {
        pair.topic_id(&name)?;
    }
    Ok(())
}

fn request(topics: Vec<CreatableTopic>, validate_only: bool) -> CreateTopicsRequest {
    CreateTopicsRequest {
        topics,
        timeout_ms: 10_000,
        validate_only,
    }
}

fn create_well(pair: &mut Pair) -> Result<()> {
    pair.scene = "topics that are created".into();
    for dry in [true, false] {
        pair.ask_each(|_, version| request(vec![topic(&format!("made-{version}"), 2, &[])], dry));
        pair.ask_each(|_, version| {
            let settings = [
                ("retention.ms", "1000000"),
                ("max.message.bytes", "5000"),
                ("compression.type", "zstd"),
                ("cleanup.policy", "delete"),
                ("message.timestamp.type", "LogAppendTime"),
            ];
            request(vec![topic(&format!("set-{version}"), 3, &settings)], dry)
        });
        pair.ask_each(|_, version| {
            let mut wanted = topic(&format!("default-{version}"), -1, &[]);
            wanted.replication_factor = -1;
            request(vec![wanted], dry)
        });
        pair.ask_each(|_, version| {
            let mut wanted = topic(&format!("placed-{version}"), -1, &[]);
            wanted.replication_factor = -1;
            wanted.assignments = vec![place(0, &[1]), place(1, &[1])];
            request(vec![wanted], dry)
        });
    }
    pair.settle()
}

fn place(partition_index: i32, broker_ids: &[i32]) -> CreatableReplicaAssignment {
    CreatableReplicaAssignment {
        partition_index,
        broker_ids: broker_ids.to_vec(),
    }
}

fn create_badly(pair: &mut Pair) -> Result<()> {
    create(pair, vec![topic("there", 1, &[])])?;
    let long = "n".repeat(250);
    let longest = "n".repeat(249);
    let mut wrong: Vec<(String, Vec<CreatableTopic>)> = vec![
        ("no topics".into(), vec![]),
        ("a topic that exists".into(), vec![topic("there", 1, &[])]),
        (
            "one topic twice".into(),
            vec![topic("twice", 1, &[]), topic("twice", 1, &[])],
        ),
        (
            "one topic twice beside another".into(),
            vec![
                topic("twice", 1, &[]),
                topic("beside", 0, &[]),
                topic("twice", 2, &[]),
            ],
        ),
        ("a topic too long".into(), vec![topic(&long, 1, &[])]),
        (
            "the longest topic, without partitions".into(),
            vec![topic(&longest, 0, &[])],
        ),
        (
            "names that collide".into(),
            vec![topic("some.name", 0, &[]), topic("some_name", 0, &[])],
        ),
    ];
    for name in ["", ".", "..", "a b", "ü", "a/b", "a:b"] {
        wrong.push((
            format!("a topic called {name:?}"),
            vec![topic(name, 1, &[])],
        ));
    }
    for partitions in [0, -2, i32::MIN, 1_000_000] {
        wrong.push((
            format!("{partitions} partitions"),
            vec![topic("count", partitions, &[])],
        ));
    }
    for factor in [0, -2, 2, 3, i16::MAX] {
        let mut wanted = topic("factor", 1, &[]);
        wanted.replication_factor = factor;
        wrong.push((format!("replication factor {factor}"), vec![wanted]));
    }
    let places: [(&str, Vec<CreatableReplicaAssignment>); 9] = [
        ("an unknown broker", vec![place(0, &[7])]),
        ("no broker", vec![place(0, &[])]),
        ("one broker twice", vec![place(0, &[1, 1])]),
        ("a known and an unknown broker", vec![place(0, &[1, 7])]),
        ("a negative broker", vec![place(0, &[-1])]),
        ("one partition twice", vec![place(0, &[1]), place(0, &[1])]),
        ("a gap", vec![place(0, &[1]), place(2, &[1])]),
        ("not from 0 on", vec![place(1, &[1])]),
        (
            "replicas of two sizes",
            vec![place(0, &[1]), place(1, &[1, 2])],
        ),
    ];
    for (what, assignments) in places {
        let mut wanted = topic("places", -1, &[]);
        wanted.replication_factor = -1;
        wanted.assignments = assignments;
        wrong.push((format!("assignments: {what}"), vec![wanted]));
    }
    let mut both = topic("counted", 1, &[]);
    both.assignments = vec![place(0, &[1])];
    wrong.push(("assignments and counts".into(), vec![both.clone()]));
    both.num_partitions = -1;
    wrong.push(("assignments and a factor".into(), vec![both.clone()]));
    both.num_partitions = 1;
    both.replication_factor = -1;
    wrong.push(("assignments and a count".into(), vec![both]));
    for (key, value) in WRONG_SETTINGS {
        let wanted = topic("setting", 1, &[(key, value)]);
        wrong.push((format!("setting {key}={value}"), vec![wanted]));
    }
    let mut null = topic("setting", 1, &[("retention.ms", "")]);
    null.configs[0].value = None;
    wrong.push(("a setting of null".into(), vec![null]));
    let double = topic(
        "setting",
        0,
        &[("retention.ms", "1"), ("retention.ms", "2")],
    );
    wrong.push(("a setting twice".into(), vec![double]));
    wrong.push((
        "a right one among wrong ones".into(),
        vec![
            topic("there", 1, &[]),
            topic("count", 0, &[]),
            topic("a b", 1, &[]),
        ],
    ));
    for (scene, topics) in wrong {
        pair.scene = scene;
        for dry in [true, false] {
            pair.ask_each(|_, _| request(topics.clone(), dry));
        }
    }
    pair.settle()
}

/// Settings with values that one broker or the other refuses.
pub const WRONG_SETTINGS: &[(&str, &str)] = &[
    ("no.such.setting", "1"),
    ("", "1"),
    ("retention.ms", "soon"),
    ("retention.ms", "-2"),
    ("retention.ms", ""),
    ("retention.bytes", "1.5"),
    ("segment.bytes", "13"),
    ("segment.bytes", "99999999999"),
    ("segment.ms", "0"),
    ("max.message.bytes", "-1"),
    ("cleanup.policy", "shred"),
    ("compression.type", "rar"),
    ("compression.gzip.level", "10"),
    ("compression.gzip.level", "0"),
    ("compression.zstd.level", "99"),
    ("message.timestamp.type", "Whenever"),
    ("message.timestamp.after.max.ms", "-1"),
    ("min.insync.replicas", "0"),
    ("min.cleanable.dirty.ratio", "1.1"),
    ("unclean.leader.election.enable", "perhaps"),
    ("preallocate", "yes"),
    ("index.interval.bytes", "-1"),
    ("flush.messages", "0"),
    ("follower.replication.throttled.replicas", "x"),
    ("local.retention.ms", "-3"),
    ("delete.retention.ms", "-1"),
    ("message.format.version", "3.0"),
];

fn by_name(name: Option<&str>, id: Uuid) -> MetadataRequestTopic {
    MetadataRequestTopic {
        name: name.map(str::to_owned),
        topic_id: id,
    }
}

/// Topics by name, if given, and by id, if true.
type Mentions<'a> = Vec<(Option<&'a str>, bool)>;

fn describe_all(pair: &mut Pair) -> Result<()> {
    create(pair, vec![topic("told", 3, &[])])?;
    let ids = pair.topic_id("told")?;
    let metadata = |topics: Option<Vec<MetadataRequestTopic>>, version: i16| MetadataRequest {
        topics: if version == 0 {
            Some(topics.unwrap_or_default())
        } else {
            topics
        },
        allow_auto_topic_creation: version < 4,
        include_cluster_authorized_operations: false,
        include_topic_authorized_operations: false,
    };
    pair.scene = "metadata of all".into();
    pair.ask_each(|_, version| metadata(None, version));
    pair.scene = "metadata of none".into();
    pair.ask_each(|_, version| metadata(Some(vec![]), version));
    let names: &[&[&str]] = &[
        &["told"],
        &["told", "there"],
        &["told", "told"],
        &[""],
        &["."],
        &["a b"],
    ];
    for names in names {
        pair.scene = format!("metadata of {names:?}");
        pair.ask_each(|_, version| {
            let topics = names.iter().map(|name| by_name(Some(name), Uuid::nil()));
            metadata(Some(topics.collect()), version)
        });
    }
    pair.scene = "metadata of an unknown topic".into();
    for version in 4..=13 {
        pair.ask(version, |_| {
            metadata(Some(vec![by_name(Some("not-there"), Uuid::nil())]), version)
        });
    }
    let unknown = Uuid::from_u128(77);
    for version in [10, 11, 12, 13] {
        let asked: [(&str, Mentions<'_>); 5] = [
            ("by id", vec![(None, true)]),
            ("by name and id", vec![(Some("told"), true)]),
            ("by another name and id", vec![(Some("there"), true)]),
            (
                "by id and by name",
                vec![(None, true), (Some("there"), false)],
            ),
            ("by neither", vec![(None, false)]),
        ];
        for (what, topics) in asked {
            pair.scene = format!("metadata {what}");
            pair.ask(version, |side| {
                let topics = topics.iter().map(|(name, with_id)| {
                    by_name(*name, if *with_id { *ids.of(side) } else { Uuid::nil() })
                });
                metadata(Some(topics.collect()), version)
            });
        }
        pair.scene = "metadata of unknown ids".into();
        pair.ask(version, |_| {
            metadata(Some(vec![by_name(None, unknown)]), version)
        });
        pair.ask(version, |side| {
            metadata(
                Some(vec![by_name(None, unknown), by_name(None, *ids.of(side))]),
                version,
            )
        });
    }
    pair.scene = "metadata with operations".into();
    pair.ask_each(|_, version| MetadataRequest {
        include_cluster_authorized_operations: (8..=10).contains(&version),
        include_topic_authorized_operations: version >= 8,
        ..metadata(Some(vec![by_name(Some("told"), Uuid::nil())]), version)
    });
    pair.scene = "topics that metadata creates".into();
    pair.ask_each(|_, version| MetadataRequest {
        allow_auto_topic_creation: true,
        ..metadata(
            Some(vec![by_name(Some(&format!("auto-{version}")), Uuid::nil())]),
            version,
        )
    });
    pair.settle()?;
    pair.ask_each(|_, version| {
        metadata(
            Some(vec![by_name(Some(&format!("auto-{version}")), Uuid::nil())]),
            version,
        )
    });
    describe(pair);
    Ok(())
}

fn describe(pair: &mut Pair) {
    let cursors: [Option<(&str, i32)>; 6] = [
        None,
        Some(("told", 1)),
        Some(("told", 9)),
        Some(("told", -1)),
        Some(("t", 0)),
        Some(("zzz", 0)),
    ];
    for cursor in cursors {
        for limit in [2000, 1, 2, 3, 0, -1] {
            for names in [
                &["told"][..],
                &["there", "told"],
                &["not-there", "told"],
                &["a b"],
                &[],
            ] {
                pair.scene = format!("partitions of {names:?} from {cursor:?}, at most {limit}");
                if names.is_empty() && limit != 2000 {
                    continue;
                }
                pair.ask_each(|_, _| DescribeTopicPartitionsRequest {
                    topics: names
                        .iter()
                        .map(|name| TopicRequest {
                            name: (*name).to_owned(),
                        })
                        .collect(),
                    response_partition_limit: limit,
                    cursor: cursor.map(|(topic_name, partition_index)| RequestCursor {
                        topic_name: topic_name.to_owned(),
                        partition_index,
                    }),
                });
            }
        }
    }
}

fn grow(pair: &mut Pair) -> Result<()> {
    create(pair, vec![topic("grows", 1, &[]), topic("stays", 2, &[])])?;
    let more = |name: &str, count: i32, places: Option<Vec<Vec<i32>>>| CreatePartitionsTopic {
        name: name.to_owned(),
        count,
        assignments: places.map(|places| {
            places
                .into_iter()
                .map(|broker_ids| CreatePartitionsAssignment { broker_ids })
                .collect()
        }),
    };
    let asked: Vec<(&str, Vec<CreatePartitionsTopic>)> = vec![
        ("nothing", vec![]),
        ("as many", vec![more("stays", 2, None)]),
        ("fewer", vec![more("stays", 1, None)]),
        ("none", vec![more("stays", 0, None)]),
        ("a negative count", vec![more("stays", -1, None)]),
        ("unknown topic", vec![more("not-there", 2, None)]),
        ("bad name", vec![more("a b", 2, None)]),
        ("no name", vec![more("", 2, None)]),
        (
            "one topic twice",
            vec![more("stays", 3, None), more("stays", 4, None)],
        ),
        (
            "too few places",
            vec![more("stays", 4, Some(vec![vec![1]]))],
        ),
        (
            "too many places",
            vec![more("stays", 3, Some(vec![vec![1], vec![1]]))],
        ),
        ("no places", vec![more("stays", 3, Some(vec![]))]),
        ("an empty place", vec![more("stays", 3, Some(vec![vec![]]))]),
        (
            "an unknown place",
            vec![more("stays", 3, Some(vec![vec![9]]))],
        ),
        (
            "one place twice",
            vec![more("stays", 3, Some(vec![vec![1, 1]]))],
        ),
        (
            "wrong ones together",
            vec![
                more("stays", 1, None),
                more("not-there", 2, None),
                more("there", 0, None),
            ],
        ),
    ];
    for (what, topics) in asked {
        pair.scene = format!("more partitions: {what}");
        for dry in [true, false] {
            pair.ask_each(|_, _| CreatePartitionsRequest {
                topics: topics.clone(),
                timeout_ms: 10_000,
                validate_only: dry,
            });
        }
    }
    pair.scene = "more partitions".into();
    for dry in [true, false] {
        pair.ask_each(|_, version| CreatePartitionsRequest {
            topics: vec![more("grows", 2 + 2 * i32::from(version), None)],
            timeout_ms: 10_000,
            validate_only: dry,
        });
        pair.settle()?;
    }
    pair.ask_each(|_, version| CreatePartitionsRequest {
        topics: vec![more("stays", 3 + i32::from(version), Some(vec![vec![1]]))],
        timeout_ms: 10_000,
        validate_only: false,
    });
    pair.settle()?;
    let topics = ["grows", "stays"].map(|name| by_name(Some(name), Uuid::nil()));
    pair.ask(12, |_| MetadataRequest {
        topics: Some(topics.to_vec()),
        ..MetadataRequest::default()
    });
    Ok(())
}

fn delete(pair: &mut Pair) -> Result<()> {
    let names = |names: &[&str], version: i16| DeleteTopicsRequest {
        topics: match version >= 6 {
            true => names
                .iter()
                .map(|name| DeleteTopicState {
                    name: Some((*name).to_owned()),
                    topic_id: Uuid::nil(),
                })
                .collect(),
            false => Vec::new(),
        },
        topic_names: match version < 6 {
            true => names.iter().map(|name| (*name).to_owned()).collect(),
            false => Vec::new(),
        },
        timeout_ms: 10_000,
    };
    let wrong: &[&[&str]] = &[
        &[],
        &["not-there"],
        &["not-there", "not-there"],
        &[""],
        &["a b"],
        &["there", "there"],
    ];
    for asked in wrong {
        pair.scene = format!("delete {asked:?}");
        pair.ask_each(|_, version| names(asked, version));
    }
    pair.settle()?;
    pair.scene = "after one topic was to be deleted twice".into();
    let there = by_name(Some("there"), Uuid::nil());
    pair.ask(12, |_| MetadataRequest {
        topics: Some(vec![there.clone()]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    });
    pair.scene = "delete".into();
    pair.ask_each(|_, version| names(&[&format!("made-{version}")], version));
    pair.ask_each(|_, version| {
        let name = format!("set-{}", version + 1);
        names(&[&name, "not-there"], version)
    });
    pair.settle()?;
    let by_id = |side: Side, rows: &[(Option<&str>, Uuid)]| {
        let _ = side;
        DeleteTopicsRequest {
            topics: rows
                .iter()
                .map(|(name, topic_id)| DeleteTopicState {
                    name: name.map(str::to_owned),
                    topic_id: *topic_id,
                })
                .collect(),
            timeout_ms: 10_000,
            ..DeleteTopicsRequest::default()
        }
    };
    let told = pair.topic_id("told")?;
    let unknown = Uuid::from_u128(78);
    pair.scene = "delete by an unknown id".into();
    pair.ask(6, |side| by_id(side, &[(None, unknown)]));
    pair.scene = "delete by neither name nor id".into();
    pair.ask(6, |side| by_id(side, &[(None, Uuid::nil())]));
    pair.scene = "delete by name and id".into();
    pair.ask(6, |side| by_id(side, &[(Some("told"), *told.of(side))]));
    pair.scene = "delete one topic by name and by id".into();
    pair.ask(6, |side| {
        by_id(side, &[(Some("told"), Uuid::nil()), (None, *told.of(side))])
    });
    pair.scene = "delete one id twice".into();
    pair.ask(6, |side| {
        by_id(side, &[(None, *told.of(side)), (None, *told.of(side))])
    });
    pair.settle()?;
    pair.scene = "delete by id".into();
    pair.ask(6, |side| by_id(side, &[(None, *told.of(side))]));
    pair.settle()?;
    pair.forget_topic("told");
    pair.scene = "a topic made again".into();
    create(pair, vec![topic("told", 1, &[])])?;
    pair.ask(12, |_| MetadataRequest {
        topics: Some(vec![by_name(Some("told"), Uuid::nil())]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    });
    Ok(())
}
