//! Which rights each API key asks for, as the compatibility page says it: every key is driven once or more, and what its
//! handler asks the door for is compared with the page. Whoever adds a key adds a request of it here, and a row there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use wire::messages::alter_client_quotas::{self as quotas, AlterClientQuotasRequest};
use wire::messages::alter_configs::*;
use wire::messages::alter_partition_reassignments::*;
use wire::messages::alter_replica_log_dirs::*;
use wire::messages::alter_share_group_offsets as alter_shares;
use wire::messages::alter_user_scram_credentials::*;
use wire::messages::api_versions::*;
use wire::messages::create_acls::*;
use wire::messages::create_partitions::*;
use wire::messages::create_topics::*;
use wire::messages::delete_acls::*;
use wire::messages::delete_groups::*;
use wire::messages::delete_records::*;
use wire::messages::delete_share_group_offsets as delete_shares;
use wire::messages::delete_topics::*;
use wire::messages::describe_acls::*;
use wire::messages::describe_client_quotas::DescribeClientQuotasRequest;
use wire::messages::describe_cluster::*;
use wire::messages::describe_configs::*;
use wire::messages::describe_groups::*;
use wire::messages::describe_log_dirs::*;
use wire::messages::describe_producers as producers;
use wire::messages::describe_quorum as quorum;
use wire::messages::describe_share_group_offsets as share_offsets;
use wire::messages::describe_topic_partitions as pages;
use wire::messages::describe_user_scram_credentials as scram;
use wire::messages::elect_leaders::*;
use wire::messages::fetch::*;
use wire::messages::find_coordinator::*;
use wire::messages::heartbeat::*;
use wire::messages::incremental_alter_configs as incremental;
use wire::messages::init_producer_id::*;
use wire::messages::join_group::*;
use wire::messages::leave_group::*;
use wire::messages::list_config_resources::*;
use wire::messages::list_groups::*;
use wire::messages::list_offsets::*;
use wire::messages::list_partition_reassignments::*;
use wire::messages::metadata::*;
use wire::messages::offset_commit::*;
use wire::messages::offset_delete::*;
use wire::messages::offset_fetch::*;
use wire::messages::offset_for_leader_epoch::*;
use wire::messages::produce::*;
use wire::messages::sasl_authenticate::*;
use wire::messages::sasl_handshake::*;
use wire::messages::share_acknowledge;
use wire::messages::share_fetch;
use wire::messages::share_group_describe as sharers;
use wire::messages::share_group_heartbeat as beat;
use wire::messages::sync_group::*;
use wire::{ApiKey, RequestHeader};

use super::table::{TABLE, route};
use super::{Peer, Reply, Run, config_resource};
use crate::broker::Broker;
use crate::broker::access::{Principal, ResourceKind, Right};
use crate::broker::scratch::Scratch;
use crate::broker::share::DEAD_LETTER_TOPIC;
use crate::front::budget::Budget;
use crate::front::kafka::login::Login;
use crate::front::kafka::share_sessions::{SessionKey, ShareSessions, Wish};
use crate::front::kafka::stats::Stats;

pub(super) type Rights = BTreeSet<(ResourceKind, Right)>;

/// A request in the newest version that is served.
fn frame<R: wire::Request>(request: &R) -> Bytes {
    let row = TABLE.iter().find(|row| row.key == R::KEY);
    let header = RequestHeader {
        key: R::KEY,
        version: *row.expect("a key that is offered").served.end(),
        correlation_id: 1,
        client_id: Some("rights".into()),
    };
    let pieces = wire::frame::request(&header, request).expect("the version has these fields");
    Bytes::from(pieces.concat()).slice(4..)
}

/// Frames of requests from their types and the fields that name something.
macro_rules! frames {
    ($($request:ident { $($field:ident: $value:expr),* $(,)? }),* $(,)?) => {
        vec![$({
            #[allow(clippy::needless_update, reason = "some requests have no other fields")]
            let request = $request { $($field: $value,)* ..$request::default() };
            frame(&request)
        }),*]
    };
}

pub(super) const TOPIC: &str = "readings";

fn topic() -> String {
    TOPIC.to_owned()
}

fn group() -> String {
    "group".to_owned()
}

/// At least one request of every key, which names whatever that key can name.
pub(super) fn requests() -> Vec<Bytes> {
    let mut all = frames![
        DescribeAclsRequest {
            resource_type_filter: 1,
            pattern_type_filter: 1,
            operation: 1,
            permission_type: 1,
        },
        CreateAclsRequest {
            creations: vec![AclCreation {
                resource_type: 2,
                resource_name: topic(),
                resource_pattern_type: 3,
                principal: "User:nobody".into(),
                host: "*".into(),
                operation: 3,
                permission_type: 3,
            }],
        },
        DeleteAclsRequest {
            filters: vec![DeleteAclsFilter {
                resource_type_filter: 1,
                pattern_type_filter: 1,
                principal_filter: Some("User:nobody".into()),
                operation: 1,
                permission_type: 1,
                ..DeleteAclsFilter::default()
            }],
        },
        ProduceRequest {
            acks: -1,
            topic_data: vec![TopicProduceData {
                name: topic(),
                partition_data: vec![PartitionProduceData::default()],
                ..TopicProduceData::default()
            }],
        },
        FetchRequest {
            topics: vec![FetchTopic {
                partitions: vec![FetchPartition::default()],
                ..FetchTopic::default()
            }],
        },
        ListOffsetsRequest {
            topics: vec![ListOffsetsTopic {
                name: topic(),
                partitions: vec![ListOffsetsPartition::default()],
            }],
        },
        MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some("new".into()),
                ..MetadataRequestTopic::default()
            }]),
            allow_auto_topic_creation: true,
        },
        OffsetCommitRequest {
            group_id: group(),
            topics: vec![OffsetCommitRequestTopic {
                name: topic(),
                partitions: vec![OffsetCommitRequestPartition::default()],
                ..OffsetCommitRequestTopic::default()
            }],
        },
        OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: group(),
                topics: Some(vec![OffsetFetchRequestTopics {
                    name: topic(),
                    partition_indexes: vec![0],
                    ..OffsetFetchRequestTopics::default()
                }]),
                ..OffsetFetchRequestGroup::default()
            }],
        },
        FindCoordinatorRequest {
            coordinator_keys: vec![group()],
        },
        JoinGroupRequest { group_id: group() },
        HeartbeatRequest { group_id: group() },
        LeaveGroupRequest { group_id: group() },
        SyncGroupRequest {
            group_id: group(),
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
        },
        DescribeGroupsRequest {
            groups: vec![group()],
        },
        ListGroupsRequest {},
        SaslHandshakeRequest {},
        SaslAuthenticateRequest {},
        ApiVersionsRequest {
            client_software_name: "rights".into(),
            client_software_version: "1".into(),
        },
        CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic(),
                num_partitions: 1,
                replication_factor: 1,
                ..CreatableTopic::default()
            }],
        },
        DeleteTopicsRequest {
            topics: vec![DeleteTopicState {
                name: Some("none".into()),
                ..DeleteTopicState::default()
            }],
        },
        DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: topic(),
                partitions: vec![DeleteRecordsPartition::default()],
            }],
        },
        InitProducerIdRequest {
            transactional_id: None,
            producer_id: -1,
            producer_epoch: -1,
        },
        OffsetForLeaderEpochRequest {
            topics: vec![OffsetForLeaderTopic {
                topic: topic(),
                partitions: vec![OffsetForLeaderPartition::default()],
            }],
        },
        AlterReplicaLogDirsRequest {
            dirs: vec![AlterReplicaLogDir {
                topics: vec![AlterReplicaLogDirTopic {
                    name: topic(),
                    partitions: vec![0],
                }],
                ..AlterReplicaLogDir::default()
            }],
        },
        DescribeLogDirsRequest {},
        CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: topic(),
                ..CreatePartitionsTopic::default()
            }],
        },
        DeleteGroupsRequest {
            groups_names: vec![group()],
        },
        ElectLeadersRequest {},
        AlterPartitionReassignmentsRequest {
            topics: vec![ReassignableTopic {
                name: topic(),
                partitions: vec![ReassignablePartition::default()],
            }],
        },
        ListPartitionReassignmentsRequest {},
        OffsetDeleteRequest {
            group_id: group(),
            topics: vec![OffsetDeleteRequestTopic {
                name: topic(),
                partitions: vec![OffsetDeleteRequestPartition::default()],
            }],
        },
        DescribeClientQuotasRequest {},
        AlterClientQuotasRequest {
            entries: vec![quotas::RequestEntryData {
                entity: vec![quotas::RequestEntityData {
                    entity_type: "user".into(),
                    entity_name: Some("nobody".into()),
                }],
                ops: vec![quotas::OpData {
                    key: "producer_byte_rate".into(),
                    value: 1e9,
                    remove: false,
                }],
            }],
        },
        DescribeClusterRequest { endpoint_type: 1 },
        ListConfigResourcesRequest {},
    ];
    all.push(frame(&scram::DescribeUserScramCredentialsRequest::default()));
    all.push(frame(&AlterUserScramCredentialsRequest {
        deletions: vec![ScramCredentialDeletion {
            name: "alice".into(),
            mechanism: 1,
        }],
        ..AlterUserScramCredentialsRequest::default()
    }));
    all.push(frame(&quorum::DescribeQuorumRequest {
        topics: vec![quorum::RequestTopicData {
            topic_name: "__cluster_metadata".into(),
            partitions: vec![quorum::RequestPartitionData { partition_index: 0 }],
        }],
    }));
    all.push(frame(&producers::DescribeProducersRequest {
        topics: vec![producers::TopicRequest {
            name: topic(),
            partition_indexes: vec![0],
        }],
    }));
    all.push(frame(&pages::DescribeTopicPartitionsRequest {
        topics: vec![pages::TopicRequest { name: topic() }],
        ..pages::DescribeTopicPartitionsRequest::default()
    }));
    all.extend(share_requests());
    for (kind, name) in [
        (config_resource::TOPIC, TOPIC),
        (config_resource::BROKER, ""),
        (config_resource::GROUP, "group"),
    ] {
        all.extend(settings_of(kind, name));
    }
    all
}

/// A member comes, fetches, acknowledges; an administrator asks and changes.
fn share_requests() -> Vec<Bytes> {
    let member = || "member".to_owned();
    vec![
        frame(&beat::ShareGroupHeartbeatRequest {
            group_id: "sharers".into(),
            member_id: member(),
            subscribed_topic_names: Some(vec![topic()]),
            ..beat::ShareGroupHeartbeatRequest::default()
        }),
        frame(&sharers::ShareGroupDescribeRequest {
            group_ids: vec!["sharers".into()],
            ..sharers::ShareGroupDescribeRequest::default()
        }),
        frame(&share_fetch::ShareFetchRequest {
            group_id: Some("sharers".into()),
            member_id: Some(member()),
            topics: vec![share_fetch::FetchTopic {
                partitions: vec![share_fetch::FetchPartition::default()],
                ..share_fetch::FetchTopic::default()
            }],
            ..share_fetch::ShareFetchRequest::default()
        }),
        frame(&share_acknowledge::ShareAcknowledgeRequest {
            group_id: Some("sharers".into()),
            member_id: Some(member()),
            share_session_epoch: 1,
            topics: vec![share_acknowledge::AcknowledgeTopic {
                partitions: vec![share_acknowledge::AcknowledgePartition::default()],
                ..share_acknowledge::AcknowledgeTopic::default()
            }],
            ..share_acknowledge::ShareAcknowledgeRequest::default()
        }),
        frame(&share_offsets::DescribeShareGroupOffsetsRequest {
            groups: vec![share_offsets::DescribeShareGroupOffsetsRequestGroup {
                group_id: "sharers".into(),
                topics: Some(vec![share_offsets::DescribeShareGroupOffsetsRequestTopic {
                    topic_name: topic(),
                    partitions: vec![0],
                }]),
            }],
        }),
        frame(&alter_shares::AlterShareGroupOffsetsRequest {
            group_id: "sharers".into(),
            topics: vec![alter_shares::AlterShareGroupOffsetsRequestTopic {
                topic_name: topic(),
                partitions: Vec::new(),
            }],
        }),
        frame(&delete_shares::DeleteShareGroupOffsetsRequest {
            group_id: "others".into(),
            topics: vec![delete_shares::DeleteShareGroupOffsetsRequestTopic {
                topic_name: topic(),
            }],
        }),
    ]
}

/// Requests about all that there is.
pub(super) fn requests_of_all() -> Vec<Bytes> {
    frames![
        MetadataRequest { topics: None },
        OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: group(),
                topics: None,
                ..OffsetFetchRequestGroup::default()
            }],
        },
    ]
}

/// A client that is no member commits for a group.
pub(super) fn commit_of(group: &str, topic: &str) -> Bytes {
    frame(&OffsetCommitRequest {
        group_id: group.to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: topic.to_owned(),
            partitions: vec![OffsetCommitRequestPartition::default()],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    })
}

/// What is asked and changed of one resource's settings. A group's may name a topic.
fn settings_of(resource_type: i8, resource_name: &str) -> Vec<Bytes> {
    let resource_name = resource_name.to_owned();
    let named = { (resource_type == config_resource::GROUP).then(topic) }.into_iter();
    let named = named.map(|topic| (DEAD_LETTER_TOPIC.to_owned(), Some(topic)));
    let replaced = named
        .clone()
        .map(|(name, value)| AlterableConfig { name, value });
    let altered = named.map(|(name, value)| incremental::AlterableConfig {
        name,
        config_operation: 0,
        value,
    });
    vec![
        frame(&DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type,
                resource_name: resource_name.clone(),
                ..DescribeConfigsResource::default()
            }],
            ..DescribeConfigsRequest::default()
        }),
        frame(&AlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type,
                resource_name: resource_name.clone(),
                configs: replaced.collect(),
            }],
            validate_only: true,
        }),
        frame(&incremental::IncrementalAlterConfigsRequest {
            resources: vec![incremental::AlterConfigsResource {
                resource_type,
                resource_name,
                configs: altered.collect(),
            }],
            validate_only: true,
        }),
    ]
}

/// A request that was answered.
pub(super) struct Answered {
    pub(super) key: ApiKey,
    /// The rights that its handler asked for.
    pub(super) asked: Rights,
    /// The names of the errors in the answer.
    pub(super) errors: BTreeSet<&'static str>,
    /// The answer.
    pub(super) bytes: Vec<u8>,
}

/// Answers a request as if this principal had made it.
pub(super) async fn answered(frame: Bytes, broker: &Broker, principal: Principal) -> Answered {
    let budget = Budget::new(64 << 20, 16 << 20);
    let address = ([127, 0, 0, 1], 1).into();
    let (stats, sessions) = (Arc::<Stats>::default(), Arc::default());
    let peer = Peer {
        address,
        login: Login::none(),
        shares: Arc::<ShareSessions>::default().connect(),
    };
    // As if the member had fetched before.
    let key = SessionKey {
        group: "sharers".into(),
        member: "member".into(),
    };
    let wish = Wish {
        epoch: 0,
        added: Vec::new(),
        forgotten: Vec::new(),
        has_acknowledgements: false,
    };
    let begun = peer.shares.begin(&key, wish);
    begun.expect("there is a place");
    let entrance = broker.entrance();
    let Ok((mut request, run)) = route(frame, &entrance, &stats, &budget, &sessions, &peer) else {
        panic!("a request that is served");
    };
    let mut caller = request.call.door.caller().clone();
    caller.principal = principal;
    request.call.door = broker.door(caller);
    let (key, asked) = (request.key, request.call.door.asked());
    stats.started(key);
    let reply = match run {
        Run::Pipelined(start) => start(request).await.await,
        Run::Alone(answer) | Run::Waiting(answer) => answer(request).await,
    };
    let bytes = match reply {
        Reply::Send(pieces, _) => pieces.concat(),
        _ => panic!("{key:?} is answered"),
    };
    let asked = asked.lock().expect("nothing panics in here").clone();
    let errors = stats.keys().remove(0).errors.into_iter();
    Answered {
        key,
        asked,
        errors: errors.map(|(name, _)| name).collect(),
        bytes,
    }
}

fn listed(rights: &Rights) -> String {
    let word = |(kind, right): &(ResourceKind, Right)| format!("{kind:?} {right:?}");
    let words: Vec<String> = rights.iter().map(word).collect();
    match words.is_empty() {
        true => "none".to_owned(),
        false => words.join(", "),
    }
}

#[tokio::test]
async fn the_compatibility_page_names_the_rights_that_each_key_asks_for() {
    let broker = Scratch::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = broker.clone();
    let running = tokio::spawn(async move { running.run(stopped).await });

    let mut found: BTreeMap<i16, Rights> = BTreeMap::new();
    for frame in requests() {
        let answered = answered(frame, &broker, Principal::Anonymous).await;
        let rights = found.entry(answered.key.code()).or_default();
        rights.extend(answered.asked);
    }
    let mut table = String::from("| key | API | rights |\n|---:|---|---|\n");
    let mut rows: Vec<_> = TABLE.iter().map(|row| row.key).collect();
    rows.sort_by_key(|key| key.code());
    for key in rows {
        let (code, name) = (key.code(), key.name());
        let rights = found.get(&code);
        let rights = listed(rights.unwrap_or_else(|| panic!("no request of {name} is made here")));
        table += &format!("| {code} | {name} | {rights} |\n");
    }
    let page = include_str!("../../../../docs/COMPATIBILITY.md");
    let wanted = format!("<!-- rights -->\n\n{table}\n");
    assert!(page.contains(&wanted), "the page must say:\n{wanted}");

    stop.send_replace(true);
    running.await.expect("the groups end");
}
