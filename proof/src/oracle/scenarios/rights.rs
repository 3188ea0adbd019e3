//! Rights: what a client is answered that may do this and not that, and which operations it is told that it may do.
//! Callers: `scenarios`. The client of the oracle is `User:ANONYMOUS`, and everybody may do what no rule is about.

use super::acls;
use super::acls::{
    ALL, ALLOW, ALTER, ALTER_CONFIGS, CLUSTER, CLUSTER_ACTION, CLUSTER_NAME, CREATE, DELETE, DENY,
    DESCRIBE, DESCRIBE_CONFIGS, GROUP, IDEMPOTENT_WRITE, LITERAL, PREFIXED, READ, Rule, TOPIC,
    WRITE,
};
use super::produce::one_batch;
use super::read;
use super::topics::{create, topic};
use crate::oracle::batches::Batch;
use crate::oracle::pair::{Pair, Side};
use crate::oracle::warm;
use anyhow::Result;
use wire::Uuid;
use wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use wire::messages::create_topics::CreateTopicsRequest;
use wire::messages::delete_groups::DeleteGroupsRequest;
use wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use wire::messages::describe_acls::DescribeAclsRequest;
use wire::messages::describe_client_quotas::DescribeClientQuotasRequest;
use wire::messages::describe_cluster::DescribeClusterRequest;
use wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use wire::messages::describe_groups::DescribeGroupsRequest;
use wire::messages::describe_log_dirs::DescribeLogDirsRequest;
use wire::messages::describe_producers::{DescribeProducersRequest, TopicRequest};
use wire::messages::describe_topic_partitions::{self, DescribeTopicPartitionsRequest};
use wire::messages::describe_user_scram_credentials::DescribeUserScramCredentialsRequest;
use wire::messages::find_coordinator::FindCoordinatorRequest;
use wire::messages::heartbeat::HeartbeatRequest;
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use wire::messages::init_producer_id::InitProducerIdRequest;
use wire::messages::join_group::JoinGroupRequest;
use wire::messages::leave_group::LeaveGroupRequest;
use wire::messages::list_groups::ListGroupsRequest;
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use wire::messages::list_partition_reassignments::ListPartitionReassignmentsRequest;
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use wire::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use wire::messages::sync_group::SyncGroupRequest;

const ME: &str = "User:ANONYMOUS";

/// Topics and groups, each with what the rules about it say. All are asked for the same things.
const NAMES: &[&str] = &[
    "may-everything",
    "may-read",
    "may-write",
    "may-create",
    "may-delete",
    "may-alter",
    "may-describe",
    "may-describe-configs",
    "may-alter-configs",
    "may-all-but-read",
    "may-read-not-describe",
    "may-elsewhere-nothing",
    "others-may",
    "prefix-may",
    "prefix-not-this",
];

/// Names of nothing, with rules and without.
const NOT_THERE: &[&str] = &["others-may-later", "prefix-later", "nobody-cares"];

const TOPIC_RULES: &[(&str, &str, i8, i8)] = &[
    ("may-read", ME, READ, ALLOW),
    ("may-write", ME, WRITE, ALLOW),
    ("may-create", ME, CREATE, ALLOW),
    ("may-delete", ME, DELETE, ALLOW),
    ("may-alter", ME, ALTER, ALLOW),
    ("may-describe", ME, DESCRIBE, ALLOW),
    ("may-describe-configs", ME, DESCRIBE_CONFIGS, ALLOW),
    ("may-alter-configs", ME, ALTER_CONFIGS, ALLOW),
    ("may-all-but-read", ME, ALL, ALLOW),
    ("may-all-but-read", "User:*", READ, DENY),
    ("may-read-not-describe", ME, READ, ALLOW),
    ("may-read-not-describe", ME, DESCRIBE, DENY),
    ("others-may", "User:bob", ALL, ALLOW),
    ("others-may-later", "User:bob", ALL, ALLOW),
    ("prefix-not-this", ME, ALL, DENY),
];

/// What the client may do to the cluster all the time: what the oracle needs, and Kafka's broker, which asks as nobody too.
const CLUSTER_RIGHTS: &[i8] = &[ALTER, CLUSTER_ACTION];

/// What the client may not do to the cluster in the second half.
const CLUSTER_DENIALS: &[i8] = &[
    CREATE,
    DESCRIBE,
    DESCRIBE_CONFIGS,
    ALTER_CONFIGS,
    IDEMPOTENT_WRITE,
];

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    pair.scene = "what rights are about".into();
    create(pair, NAMES.iter().map(|name| topic(name, 1, &[])).collect())?;
    for name in NAMES {
        pair.ask(9, |_| one_batch(name, 0, Some(Batch::of(3).bytes())));
        pair.ask(7, |_| commit(name, "may-everything"));
    }
    rules(pair)?;
    for name in NAMES.iter().chain(NOT_THERE) {
        pair.scene = format!("the topic {name}");
        tell_topic(pair, name)?;
        use_topic(pair, name)?;
        pair.scene = format!("the group {name}");
        use_group(pair, name);
    }
    several(pair);
    pair.scene = "a client that may do nearly everything to the cluster".into();
    whole(pair);
    // Kafka gives no answer at all to who may not.
    pair.ask_each(|_, _| DescribeUserScramCredentialsRequest { users: None });
    acls::create(
        pair,
        &CLUSTER_DENIALS
            .iter()
            .map(|&operation| (CLUSTER, CLUSTER_NAME, LITERAL, ME, "*", operation, DENY))
            .collect::<Vec<Rule>>(),
    );
    pair.settle()?;
    pair.scene = "a client that may do little to the cluster".into();
    whole(pair);
    for name in NAMES.iter().chain(NOT_THERE) {
        pair.scene = format!("the topic {name}, when the cluster may not be changed");
        make_topic(pair, name);
        pair.ask(9, |_| {
            one_batch(name, 0, Some(Batch::of(1).by(900, 0, 0).bytes()))
        });
    }
    for name in NAMES.iter().chain(NOT_THERE) {
        pair.scene = format!("the end of the topic {name}");
        remove_topic(pair, name)?;
    }
    acls::clear(pair)?;
    for name in NAMES {
        pair.forget_topic(name);
    }
    for side in [Side::Ours, Side::Theirs] {
        let topics = DeleteTopicsRequest {
            topic_names: NAMES.iter().map(|name| (*name).to_owned()).collect(),
            timeout_ms: 10_000,
            ..DeleteTopicsRequest::default()
        };
        pair.ask_one(side, 5, &topics)?;
        let groups = DeleteGroupsRequest {
            groups_names: NAMES.iter().map(|name| (*name).to_owned()).collect(),
        };
        pair.ask_one(side, 2, &groups)?;
    }
    pair.settle()
}

/// The rules; the client keeps what the oracle itself needs.
fn rules(pair: &mut Pair) -> Result<()> {
    let mut rules: Vec<Rule> = vec![
        (TOPIC, warm::MARK_TOPIC, LITERAL, ME, "*", ALL, ALLOW),
        (TOPIC, "prefix-", PREFIXED, ME, "*", ALL, ALLOW),
        (GROUP, "prefix-", PREFIXED, ME, "*", ALL, ALLOW),
        (
            TOPIC,
            "may-elsewhere-nothing",
            LITERAL,
            ME,
            "10.0.0.1",
            ALL,
            ALLOW,
        ),
        (
            GROUP,
            "may-elsewhere-nothing",
            LITERAL,
            ME,
            "10.0.0.1",
            ALL,
            ALLOW,
        ),
    ];
    for &(name, principal, operation, permission) in TOPIC_RULES {
        for kind in [TOPIC, GROUP] {
            rules.push((kind, name, LITERAL, principal, "*", operation, permission));
        }
    }
    let of_cluster = CLUSTER_RIGHTS.iter().chain(CLUSTER_DENIALS);
    rules.extend(of_cluster.map(|&right| (CLUSTER, CLUSTER_NAME, LITERAL, ME, "*", right, ALLOW)));
    acls::create(pair, &rules);
    pair.settle()
}

fn text(name: &str) -> String {
    name.to_owned()
}

/// What tells of a topic.
fn tell_topic(pair: &mut Pair, name: &str) -> Result<()> {
    let ids = pair.topic_id(name)?;
    for named in [true, false] {
        let topic = |side: Side| MetadataRequestTopic {
            name: named.then(|| text(name)),
            topic_id: match named {
                true => Uuid::nil(),
                false => *ids.of(side),
            },
        };
        let is_there = ids.ours != Uuid::nil();
        // Up to version 3 topics are made by asking for them.
        let first = match (named, NOT_THERE.contains(&name)) {
            (true, false) => 0,
            (true, true) => 4,
            (false, _) => 12,
        };
        for version in first..=13 {
            if named || is_there {
                pair.ask(version, |side| MetadataRequest {
                    topics: Some(vec![topic(side)]),
                    allow_auto_topic_creation: version < 4,
                    include_topic_authorized_operations: version >= 8,
                    include_cluster_authorized_operations: (8..=10).contains(&version),
                });
            }
        }
    }
    pair.ask_each(|_, _| DescribeTopicPartitionsRequest {
        topics: vec![describe_topic_partitions::TopicRequest { name: text(name) }],
        response_partition_limit: 10,
        cursor: None,
    });
    pair.ask_each(|_, _| DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 2,
            resource_name: text(name),
            configuration_keys: Some(vec![text("segment.bytes")]),
        }],
        ..DescribeConfigsRequest::default()
    });
    pair.ask(7, |_| ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: text(name),
            partitions: vec![ListOffsetsPartition {
                timestamp: -1,
                ..ListOffsetsPartition::default()
            }],
        }],
        ..ListOffsetsRequest::default()
    });
    pair.ask_each(|_, _| OffsetForLeaderEpochRequest {
        replica_id: -1,
        topics: vec![OffsetForLeaderTopic {
            topic: text(name),
            partitions: vec![OffsetForLeaderPartition {
                partition: 0,
                current_leader_epoch: -1,
                leader_epoch: 0,
            }],
        }],
    });
    pair.ask_each(|_, _| DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: text(name),
            partition_indexes: vec![0],
        }],
    });
    Ok(())
}

/// What uses and changes a topic. What would change much is only tried.
fn use_topic(pair: &mut Pair, name: &str) -> Result<()> {
    let ids = pair.topic_id(name)?;
    for version in [3, 9, 11] {
        pair.ask(version, |_| one_batch(name, 0, Some(Batch::of(1).bytes())));
    }
    for version in [4, 12, 13, 16] {
        if version < 13 || ids.ours != Uuid::nil() {
            pair.ask(version, |side| {
                read::request(
                    version,
                    vec![(name, *ids.of(side), vec![read::partition(0, 0)])],
                )
            });
        }
    }
    pair.ask_each(|_, _| DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: text(name),
            partitions: vec![DeleteRecordsPartition {
                partition_index: 0,
                offset: 1,
            }],
        }],
        timeout_ms: 10_000,
    });
    pair.ask_each(|_, _| CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: text(name),
            count: 2,
            assignments: None,
        }],
        timeout_ms: 10_000,
        validate_only: true,
    });
    pair.ask_each(|_, _| IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 2,
            resource_name: text(name),
            configs: vec![AlterableConfig {
                name: text("segment.ms"),
                config_operation: 0,
                value: Some(text("5000000")),
            }],
        }],
        validate_only: true,
    });
    pair.scene = format!("the topic {name} in a group");
    pair.ask(7, |_| commit("may-everything", name));
    pair.ask(8, |_| fetched("may-everything", Some(name)));
    pair.ask_each(|_, _| uncommit("may-everything", name));
    make_topic(pair, name);
    Ok(())
}

fn make_topic(pair: &mut Pair, name: &str) {
    pair.ask_each(|_, _| CreateTopicsRequest {
        topics: vec![topic(name, 1, &[])],
        timeout_ms: 10_000,
        validate_only: true,
    });
}

fn remove_topic(pair: &mut Pair, name: &str) -> Result<()> {
    let ids = pair.topic_id(name)?;
    if ids.ours != Uuid::nil() {
        pair.ask(6, |side| DeleteTopicsRequest {
            topics: vec![DeleteTopicState {
                name: None,
                topic_id: *ids.of(side),
            }],
            timeout_ms: 10_000,
            ..DeleteTopicsRequest::default()
        });
    }
    for version in 1..=5 {
        pair.ask(version, |_| DeleteTopicsRequest {
            topic_names: vec![text(name)],
            timeout_ms: 10_000,
            ..DeleteTopicsRequest::default()
        });
    }
    Ok(())
}

fn use_group(pair: &mut Pair, name: &str) {
    pair.ask_each(|_, version| FindCoordinatorRequest {
        key: if version < 4 {
            text(name)
        } else {
            String::new()
        },
        coordinator_keys: if version >= 4 {
            vec![text(name)]
        } else {
            Vec::new()
        },
        ..FindCoordinatorRequest::default()
    });
    pair.ask_each(|_, version| DescribeGroupsRequest {
        groups: vec![text(name)],
        include_authorized_operations: version >= 3,
    });
    pair.ask(7, |_| commit(name, "may-everything"));
    pair.ask(7, |_| fetched(name, None));
    pair.ask(8, |_| fetched(name, Some("may-everything")));
    pair.ask_each(|_, _| uncommit(name, "may-everything"));
    // No member of this id is there, so that none of these does anything.
    let member = || text("nobody");
    pair.ask_each(|_, _| HeartbeatRequest {
        group_id: text(name),
        generation_id: 1,
        member_id: member(),
        ..HeartbeatRequest::default()
    });
    pair.ask_each(|_, version| JoinGroupRequest {
        group_id: text(name),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: if version >= 1 { 30_000 } else { -1 },
        member_id: member(),
        protocol_type: text("consumer"),
        ..JoinGroupRequest::default()
    });
    pair.ask_each(|_, _| SyncGroupRequest {
        group_id: text(name),
        generation_id: 1,
        member_id: member(),
        ..SyncGroupRequest::default()
    });
    pair.ask(2, |_| LeaveGroupRequest {
        group_id: text(name),
        member_id: member(),
        ..LeaveGroupRequest::default()
    });
    pair.ask_each(|_, _| DeleteGroupsRequest {
        groups_names: vec![text(name)],
    });
    pair.ask_each(|_, _| DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 32,
            resource_name: text(name),
            configuration_keys: Some(vec![text("no.such")]),
        }],
        ..DescribeConfigsRequest::default()
    });
}

fn commit(group: &str, topic: &str) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: text(group),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: text(topic),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: 1,
                committed_leader_epoch: -1,
                committed_metadata: None,
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

/// The offsets of a group: of one topic or, below version 8, of all.
fn fetched(group: &str, topic: Option<&str>) -> OffsetFetchRequest {
    match topic {
        None => OffsetFetchRequest {
            group_id: text(group),
            topics: None,
            ..OffsetFetchRequest::default()
        },
        Some(topic) => OffsetFetchRequest {
            topics: Some(Vec::<OffsetFetchRequestTopic>::new()),
            groups: vec![OffsetFetchRequestGroup {
                group_id: text(group),
                topics: Some(vec![OffsetFetchRequestTopics {
                    name: text(topic),
                    partition_indexes: vec![0],
                    ..OffsetFetchRequestTopics::default()
                }]),
                ..OffsetFetchRequestGroup::default()
            }],
            ..OffsetFetchRequest::default()
        },
    }
}

fn uncommit(group: &str, topic: &str) -> OffsetDeleteRequest {
    OffsetDeleteRequest {
        group_id: text(group),
        topics: vec![OffsetDeleteRequestTopic {
            name: text(topic),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    }
}

/// Requests of which only a part is allowed.
fn several(pair: &mut Pair) {
    pair.scene = "all topics".into();
    pair.ask_each(|_, version| MetadataRequest {
        topics: match version {
            0 => Some(Vec::new()),
            _ => None,
        },
        allow_auto_topic_creation: version < 4,
        include_topic_authorized_operations: version >= 8,
        include_cluster_authorized_operations: (8..=10).contains(&version),
    });
    pair.scene = "several topics".into();
    pair.ask(13, |_| MetadataRequest {
        topics: Some(
            NAMES
                .iter()
                .chain(NOT_THERE)
                .map(|name| MetadataRequestTopic {
                    name: Some(text(name)),
                    topic_id: Uuid::nil(),
                })
                .collect(),
        ),
        allow_auto_topic_creation: false,
        include_topic_authorized_operations: true,
        ..MetadataRequest::default()
    });
    pair.scene = "several groups".into();
    let all: Vec<String> = NAMES
        .iter()
        .chain(NOT_THERE)
        .map(|name| text(name))
        .collect();
    pair.ask(6, |_| DescribeGroupsRequest {
        groups: all.clone(),
        include_authorized_operations: true,
    });
    pair.ask(4, |_| FindCoordinatorRequest {
        coordinator_keys: all.clone(),
        ..FindCoordinatorRequest::default()
    });
    pair.ask_each(|_, _| ListGroupsRequest::default());
}

/// What is about the cluster, or about all.
fn whole(pair: &mut Pair) {
    pair.ask_each(|_, _| DescribeClusterRequest {
        include_cluster_authorized_operations: true,
        endpoint_type: 1,
        ..DescribeClusterRequest::default()
    });
    pair.ask_each(|_, _| ListGroupsRequest::default());
    pair.ask_each(|_, _| DescribeLogDirsRequest {
        topics: Some(Vec::new()),
    });
    pair.ask_each(|_, _| ListPartitionReassignmentsRequest {
        timeout_ms: 10_000,
        topics: None,
    });
    for kind in [4, 8] {
        pair.ask_each(|_, _| DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: kind,
                resource_name: text("1"),
                configuration_keys: Some(vec![text("no.such")]),
            }],
            ..DescribeConfigsRequest::default()
        });
    }
    pair.ask_each(|_, _| IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 4,
            resource_name: text("1"),
            configs: vec![AlterableConfig {
                name: text("log.cleaner.backoff.ms"),
                config_operation: 0,
                value: Some(text("15000")),
            }],
        }],
        validate_only: true,
    });
    pair.ask_each(|_, _| DescribeAclsRequest {
        resource_type_filter: TOPIC,
        resource_name_filter: Some(text("may-read")),
        pattern_type_filter: LITERAL,
        operation: 1,
        permission_type: 1,
        ..DescribeAclsRequest::default()
    });
    pair.ask_each(|_, _| DescribeClientQuotasRequest {
        components: Vec::new(),
        strict: false,
    });
    pair.ask_each(|_, _| InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    });
    make_topic(pair, "nobody-cares-either");
}
