//! Every version that ApiVersions lists is served: asked in each of them, with records, settings and topics that fill the
//! answer's fields, the broker answers what that version can say. What groups say in each version is in `groups`.

use bytes::Bytes;
use model::batch::BatchBuilder;
use model::codec::Codec;
use model::{ProducerEpoch, ProducerId, Timestamp};
use wire::messages::alter_client_quotas::{
    AlterClientQuotasRequest, OpData, RequestEntityData, RequestEntryData,
};
use wire::messages::alter_configs::{self, AlterConfigsRequest};
use wire::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use wire::messages::alter_replica_log_dirs::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest,
};
use wire::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, ScramCredentialDeletion,
};
use wire::messages::api_versions::ApiVersionsRequest;
use wire::messages::create_acls::{AclCreation, CreateAclsRequest};
use wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use wire::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use wire::messages::delete_acls::{DeleteAclsFilter, DeleteAclsRequest};
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
use wire::messages::describe_producers::{self, DescribeProducersRequest};
use wire::messages::describe_quorum::{
    DescribeQuorumRequest, RequestPartitionData, RequestTopicData,
};
use wire::messages::describe_topic_partitions::{DescribeTopicPartitionsRequest, TopicRequest};
use wire::messages::describe_user_scram_credentials::DescribeUserScramCredentialsRequest;
use wire::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use wire::messages::find_coordinator::FindCoordinatorRequest;
use wire::messages::heartbeat::HeartbeatRequest;
use wire::messages::incremental_alter_configs::{self, IncrementalAlterConfigsRequest};
use wire::messages::init_producer_id::InitProducerIdRequest;
use wire::messages::join_group::JoinGroupRequest;
use wire::messages::leave_group::LeaveGroupRequest;
use wire::messages::list_config_resources::ListConfigResourcesRequest;
use wire::messages::list_groups::ListGroupsRequest;
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use wire::messages::list_partition_reassignments::ListPartitionReassignmentsRequest;
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use wire::messages::offset_commit::OffsetCommitRequest;
use wire::messages::offset_delete::OffsetDeleteRequest;
use wire::messages::offset_fetch::OffsetFetchRequest;
use wire::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use wire::messages::sasl_authenticate::SaslAuthenticateRequest;
use wire::messages::sasl_handshake::SaslHandshakeRequest;
use wire::messages::sync_group::SyncGroupRequest;
use wire::{ApiKey, Records};

use crate::raw::Raw;
use crate::server::Server;

const NONE: i16 = 0;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_GROUP_ID: i16 = 24;
const UNKNOWN_MEMBER_ID: i16 = 25;
const RESOURCE_NOT_FOUND: i16 = 91;
const ILLEGAL_SASL_STATE: i16 = 34;
const UNSUPPORTED_VERSION: i16 = 35;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const INVALID_REPLICA_ASSIGNMENT: i16 = 39;
const INVALID_REQUEST: i16 = 42;
const SECURITY_DISABLED: i16 = 54;
const LOG_DIR_NOT_FOUND: i16 = 57;
const GROUP_ID_NOT_FOUND: i16 = 69;
const ELECTION_NOT_NEEDED: i16 = 84;
const NO_REASSIGNMENT_IN_PROGRESS: i16 = 85;
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const PRODUCER_ID: i64 = 1_000_000;
const TIME: i64 = 1_700_000_000_000;
const SETTING: (&str, &str) = ("retention.ms", "7200000");

/// A broker with the topic `t`, and as many batches of one record in it as there are versions of Produce.
struct Scene {
    raw: Raw,
    topic_id: uuid::Uuid,
    node_id: i32,
    leader_epoch: i32,
    records: i64,
}

#[tokio::test]
async fn every_listed_version_answers() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let listed = raw.call(0, &ApiVersionsRequest::default()).await.api_keys;
    assert_eq!(create(&mut raw, 7, "t").await.0, NONE);
    let named = MetadataRequest {
        topics: Some(vec![topic_of_metadata("t")]),
        ..MetadataRequest::default()
    };
    let topic = raw.call(12, &named).await.topics.remove(0);
    let mut scene = Scene {
        raw,
        topic_id: topic.topic_id,
        node_id: topic.partitions[0].leader_id,
        leader_epoch: topic.partitions[0].leader_epoch,
        records: 0,
    };
    for listed in listed {
        let key = ApiKey::from_code(listed.api_key).expect("a known key");
        // Produce lists versions that are gone, see the front's table.
        let first = listed.min_version.max(key.version_min());
        for version in first..=listed.max_version {
            scene.ask(key, version).await;
        }
    }
}

async fn create(raw: &mut Raw, version: i16, name: &str) -> (i16, Option<String>) {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: 2,
        replication_factor: 1,
        configs: vec![CreatableTopicConfig {
            name: SETTING.0.into(),
            value: Some(SETTING.1.into()),
        }],
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 5_000,
        ..CreateTopicsRequest::default()
    };
    let created = raw.call(version, &request).await.topics.remove(0);
    assert_eq!(
        created.topic_id.is_nil(),
        version < 7 || created.error_code != NONE
    );
    (created.error_code, created.error_message)
}

fn topic_of_metadata(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic {
        name: Some(name.into()),
        ..MetadataRequestTopic::default()
    }
}

/// A batch with one record, a second after the one before.
fn batch(at: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    let sequence = i32::try_from(at).expect("few");
    builder.producer(
        ProducerId::new(PRODUCER_ID),
        ProducerEpoch::new(0),
        sequence,
    );
    builder
        .push(
            Timestamp::from_millis(TIME + at * 1000),
            None,
            Some(b"reading"),
            &[],
        )
        .expect("a small record");
    builder.build().expect("one record")
}

impl Scene {
    async fn ask(&mut self, key: ApiKey, version: i16) {
        match key {
            ApiKey::Produce => self.produce(version).await,
            ApiKey::Fetch => self.fetch(version).await,
            ApiKey::ListOffsets => self.list_offsets(version).await,
            ApiKey::Metadata | ApiKey::DescribeCluster | ApiKey::DescribeTopicPartitions => {
                self.cluster(key, version).await;
            }
            ApiKey::CreateTopics | ApiKey::DeleteTopics | ApiKey::CreatePartitions => {
                self.topics(key, version).await;
            }
            ApiKey::DescribeConfigs | ApiKey::AlterConfigs | ApiKey::IncrementalAlterConfigs => {
                self.configs(key, version).await;
            }
            ApiKey::AlterPartitionReassignments
            | ApiKey::AlterReplicaLogDirs
            | ApiKey::DescribeQuorum
            | ApiKey::ElectLeaders
            | ApiKey::ListConfigResources => self.replicas(key, version).await,
            ApiKey::DescribeAcls | ApiKey::CreateAcls | ApiKey::DeleteAcls => {
                self.acls(key, version).await;
            }
            ApiKey::DescribeClientQuotas | ApiKey::AlterClientQuotas => {
                self.quotas(key, version).await;
            }
            ApiKey::DeleteRecords
            | ApiKey::OffsetForLeaderEpoch
            | ApiKey::DescribeLogDirs
            | ApiKey::DescribeProducers => self.logs(key, version).await,
            ApiKey::SaslHandshake
            | ApiKey::SaslAuthenticate
            | ApiKey::DescribeUserScramCredentials
            | ApiKey::AlterUserScramCredentials
            | ApiKey::ApiVersions
            | ApiKey::InitProducerId
            | ApiKey::ListPartitionReassignments => self.connection(key, version).await,
            ApiKey::ShareGroupHeartbeat
            | ApiKey::ShareGroupDescribe
            | ApiKey::ShareFetch
            | ApiKey::ShareAcknowledge
            | ApiKey::DescribeShareGroupOffsets
            | ApiKey::AlterShareGroupOffsets
            | ApiKey::DeleteShareGroupOffsets => {
                crate::shares::answers_of_none(&mut self.raw, key, version).await;
            }
            _ => self.groups(key, version).await,
        }
    }

    async fn produce(&mut self, version: i16) {
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 5_000,
            topic_data: vec![TopicProduceData {
                name: "t".into(),
                partition_data: vec![PartitionProduceData {
                    index: 0,
                    records: Some(Records::from(batch(self.records))),
                }],
                ..TopicProduceData::default()
            }],
            ..ProduceRequest::default()
        };
        let answer = self.raw.call(version, &request).await;
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(
            (partition.error_code, partition.base_offset),
            (NONE, self.records),
            "Produce {version}"
        );
        assert_eq!(
            partition.log_start_offset,
            if version >= 5 { 0 } else { -1 }
        );
        self.records += 1;
    }

    async fn fetch(&mut self, version: i16) {
        let by_id = version >= 13;
        let request = FetchRequest {
            max_wait_ms: 0,
            session_epoch: -1,
            topics: vec![FetchTopic {
                topic: "t".into(),
                topic_id: if by_id {
                    self.topic_id
                } else {
                    uuid::Uuid::nil()
                },
                partitions: vec![FetchPartition {
                    partition_max_bytes: 1 << 20,
                    ..FetchPartition::default()
                }],
            }],
            ..FetchRequest::default()
        };
        let answer = self.raw.call(version, &request).await;
        assert_eq!((answer.error_code, answer.session_id), (NONE, 0));
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(
            (partition.error_code, partition.high_watermark),
            (NONE, self.records),
            "Fetch {version}"
        );
        let records = partition.records.clone().expect("records, not null");
        let batches = model::batch::split(records.into_bytes()).map(|batch| {
            let batch = batch.expect("a whole batch");
            (batch.header().base_offset, batch.header().base_timestamp)
        });
        assert!(batches.eq((0..self.records).map(|at| (at, TIME + at * 1000))));
    }

    async fn list_offsets(&mut self, version: i16) {
        let end = self.records;
        // The end, the start, a record's time, the time after it, and the time after all.
        let mut cases = vec![
            (-1, (end, -1)),
            (-2, (0, -1)),
            (TIME + 3000, (3, TIME + 3000)),
            (TIME + 3001, (4, TIME + 4000)),
            (TIME + end * 1000, (-1, -1)),
        ];
        if version >= 7 {
            cases.push((-3, (end - 1, TIME + (end - 1) * 1000)));
        }
        if version >= 8 {
            cases.push((-4, (0, -1)));
        }
        for (timestamp, expected) in cases {
            let request = ListOffsetsRequest {
                replica_id: -1,
                topics: vec![ListOffsetsTopic {
                    name: "t".into(),
                    partitions: vec![ListOffsetsPartition {
                        timestamp,
                        ..ListOffsetsPartition::default()
                    }],
                }],
                ..ListOffsetsRequest::default()
            };
            let answer = self.raw.call(version, &request).await;
            let found = &answer.topics[0].partitions[0];
            assert_eq!(
                (found.error_code, (found.offset, found.timestamp)),
                (NONE, expected),
                "ListOffsets {version} at {timestamp}"
            );
            let by_time = timestamp >= 0 && found.offset >= 0;
            assert_eq!(
                found.leader_epoch >= 0,
                version >= 4 && (by_time || (-4..=-1).contains(&timestamp))
            );
        }
    }

    async fn cluster(&mut self, key: ApiKey, version: i16) {
        match key {
            ApiKey::Metadata => {
                let request = MetadataRequest {
                    topics: Some(vec![topic_of_metadata("t")]),
                    allow_auto_topic_creation: true,
                    ..MetadataRequest::default()
                };
                let answer = self.raw.call(version, &request).await;
                assert_eq!(answer.brokers[0].host, "127.0.0.1");
                assert_eq!(answer.cluster_id.is_some(), version >= 2);
                let topic = &answer.topics[0];
                assert_eq!(
                    (
                        topic.error_code,
                        topic.name.as_deref(),
                        topic.partitions.len()
                    ),
                    (NONE, Some("t"), 2),
                    "Metadata {version}"
                );
                assert_eq!(topic.topic_id == self.topic_id, version >= 10);
            }
            ApiKey::DescribeCluster => {
                let answer = self
                    .raw
                    .call(version, &DescribeClusterRequest::default())
                    .await;
                assert_eq!((answer.error_code, answer.brokers.len()), (NONE, 1));
            }
            _ => {
                let request = DescribeTopicPartitionsRequest {
                    topics: vec![TopicRequest { name: "t".into() }],
                    ..DescribeTopicPartitionsRequest::default()
                };
                let answer = self.raw.call(version, &request).await;
                assert_eq!(answer.topics[0].partitions.len(), 2);
            }
        }
    }

    async fn topics(&mut self, key: ApiKey, version: i16) {
        let name = format!("{key:?}-{version}");
        assert_eq!(create(&mut self.raw, 7, &name).await.0, NONE);
        match key {
            ApiKey::CreateTopics => {
                let (code, message) = create(&mut self.raw, version, &name).await;
                assert_eq!(code, TOPIC_ALREADY_EXISTS);
                assert!(message.is_some());
                assert_eq!(
                    create(&mut self.raw, version, &format!("{name}-2")).await.0,
                    NONE
                );
            }
            ApiKey::DeleteTopics => {
                let mut request = DeleteTopicsRequest {
                    timeout_ms: 5_000,
                    ..DeleteTopicsRequest::default()
                };
                if version >= 6 {
                    request.topics.push(DeleteTopicState {
                        name: Some(name),
                        ..DeleteTopicState::default()
                    });
                } else {
                    request.topic_names.push(name);
                }
                let answer = self.raw.call(version, &request).await;
                assert_eq!(
                    answer.responses[0].error_code, NONE,
                    "DeleteTopics {version}"
                );
            }
            _ => {
                let request = CreatePartitionsRequest {
                    topics: vec![CreatePartitionsTopic {
                        name,
                        count: 3,
                        assignments: None,
                    }],
                    timeout_ms: 5_000,
                    ..CreatePartitionsRequest::default()
                };
                let answer = self.raw.call(version, &request).await;
                assert_eq!(
                    answer.results[0].error_code, NONE,
                    "CreatePartitions {version}"
                );
            }
        }
    }

    async fn configs(&mut self, key: ApiKey, version: i16) {
        let (name, value) = (SETTING.0.to_string(), Some(SETTING.1.to_string()));
        match key {
            ApiKey::DescribeConfigs => {
                let request = DescribeConfigsRequest {
                    resources: vec![DescribeConfigsResource {
                        resource_type: TOPIC,
                        resource_name: "t".into(),
                        configuration_keys: None,
                    }],
                    include_synonyms: true,
                    include_documentation: version >= 3,
                };
                let answer = self.raw.call(version, &request).await;
                let configs = &answer.results[0].configs;
                let set = configs.iter().find(|config| config.name == name);
                let set = set.expect("it is set");
                assert_eq!(set.value, value, "DescribeConfigs {version}");
                let documented = set
                    .documentation
                    .as_ref()
                    .is_some_and(|text| !text.is_empty());
                assert_eq!(documented, version >= 3);
                assert!(configs.len() > 20);
            }
            ApiKey::AlterConfigs => {
                let request = AlterConfigsRequest {
                    resources: vec![alter_configs::AlterConfigsResource {
                        resource_type: TOPIC,
                        resource_name: "t".into(),
                        configs: vec![alter_configs::AlterableConfig { name, value }],
                    }],
                    ..AlterConfigsRequest::default()
                };
                let answer = self.raw.call(version, &request).await;
                assert_eq!(
                    answer.responses[0].error_code, NONE,
                    "AlterConfigs {version}"
                );
            }
            _ => {
                let request = IncrementalAlterConfigsRequest {
                    resources: vec![incremental_alter_configs::AlterConfigsResource {
                        resource_type: TOPIC,
                        resource_name: "t".into(),
                        configs: vec![incremental_alter_configs::AlterableConfig {
                            name,
                            config_operation: 0,
                            value,
                        }],
                    }],
                    ..IncrementalAlterConfigsRequest::default()
                };
                let answer = self.raw.call(version, &request).await;
                assert_eq!(answer.responses[0].error_code, NONE);
            }
        }
    }

    async fn logs(&mut self, key: ApiKey, version: i16) {
        match key {
            ApiKey::DeleteRecords => {
                let request = DeleteRecordsRequest {
                    topics: vec![DeleteRecordsTopic {
                        name: "t".into(),
                        partitions: vec![DeleteRecordsPartition {
                            partition_index: 0,
                            offset: i64::from(version),
                        }],
                    }],
                    timeout_ms: 5_000,
                };
                let answer = self.raw.call(version, &request).await;
                let partition = &answer.topics[0].partitions[0];
                assert_eq!(
                    (partition.error_code, partition.low_watermark),
                    (NONE, i64::from(version)),
                    "DeleteRecords {version}"
                );
            }
            ApiKey::OffsetForLeaderEpoch => {
                let request = OffsetForLeaderEpochRequest {
                    topics: vec![OffsetForLeaderTopic {
                        topic: "t".into(),
                        partitions: vec![OffsetForLeaderPartition {
                            partition: 0,
                            current_leader_epoch: -1,
                            leader_epoch: self.leader_epoch,
                        }],
                    }],
                    ..OffsetForLeaderEpochRequest::default()
                };
                let answer = self.raw.call(version, &request).await;
                let partition = &answer.topics[0].partitions[0];
                assert_eq!(
                    (partition.error_code, partition.end_offset),
                    (NONE, self.records)
                );
            }
            ApiKey::DescribeProducers => {
                let request = DescribeProducersRequest {
                    topics: vec![describe_producers::TopicRequest {
                        name: "t".into(),
                        partition_indexes: vec![0, 9],
                    }],
                };
                let answer = self.raw.call(version, &request).await;
                let partitions = &answer.topics[0].partitions;
                let producer = &partitions[0].active_producers[0];
                assert_eq!(
                    (producer.producer_id, producer.last_sequence),
                    (PRODUCER_ID, i32::try_from(self.records - 1).expect("few"))
                );
                assert_eq!(partitions[1].error_code, UNKNOWN_TOPIC_OR_PARTITION);
            }
            _ => {
                let answer = self
                    .raw
                    .call(version, &DescribeLogDirsRequest { topics: None })
                    .await;
                assert_eq!(
                    answer.results[0].error_code, NONE,
                    "DescribeLogDirs {version}"
                );
                assert_eq!(answer.results[0].total_bytes > 0, version >= 4);
                assert!(
                    answer.results[0]
                        .topics
                        .iter()
                        .any(|topic| topic.name == "t")
                );
            }
        }
    }

    /// What there is to say of replicas where there is one: it leads, it is in place, and nothing can be moved away.
    async fn replicas(&mut self, key: ApiKey, version: i16) {
        let absent = UNKNOWN_TOPIC_OR_PARTITION;
        match key {
            ApiKey::ElectLeaders => {
                let mut request = ElectLeadersRequest {
                    topic_partitions: Some(vec![TopicPartitions {
                        topic: "t".into(),
                        partitions: vec![0, 1, 2],
                    }]),
                    ..ElectLeadersRequest::default()
                };
                let answer = self.raw.call(version, &request).await;
                assert_eq!(answer.error_code, NONE, "ElectLeaders {version}");
                let codes = answer.replica_election_results[0].partition_result.iter();
                let codes: Vec<i16> = codes.map(|partition| partition.error_code).collect();
                assert_eq!(codes, [ELECTION_NOT_NEEDED, ELECTION_NOT_NEEDED, absent]);
                if version >= 1 {
                    request.election_type = 2;
                    let answer = self.raw.call(version, &request).await;
                    assert_eq!(answer.error_code, INVALID_REQUEST);
                }
                let all = ElectLeadersRequest {
                    topic_partitions: None,
                    ..ElectLeadersRequest::default()
                };
                let unchanged = self.raw.call(version, &all).await.replica_election_results;
                assert!(unchanged.iter().any(|topic| topic.topic == "t"));
                assert!(unchanged.iter().all(|it| it.partition_result.is_empty()));
            }
            ApiKey::AlterPartitionReassignments => {
                let cases = [
                    (0, Some(vec![self.node_id]), NONE),
                    (0, None, NO_REASSIGNMENT_IN_PROGRESS),
                    (0, Some(vec![]), INVALID_REPLICA_ASSIGNMENT),
                    (0, Some(vec![self.node_id, 77]), INVALID_REPLICA_ASSIGNMENT),
                    (2, Some(vec![self.node_id]), absent),
                ];
                for (partition_index, replicas, expected) in cases {
                    let request = AlterPartitionReassignmentsRequest {
                        topics: vec![ReassignableTopic {
                            name: "t".into(),
                            partitions: vec![ReassignablePartition {
                                partition_index,
                                replicas,
                            }],
                        }],
                        ..AlterPartitionReassignmentsRequest::default()
                    };
                    let answer = self.raw.call(version, &request).await;
                    assert_eq!(answer.error_code, NONE);
                    assert_eq!(answer.responses[0].partitions[0].error_code, expected);
                }
            }
            ApiKey::AlterReplicaLogDirs => {
                let logs = DescribeLogDirsRequest { topics: None };
                let only = self.raw.call(4, &logs).await.results[0].log_dir.clone();
                let cases = [
                    (only.as_str(), [NONE, absent]),
                    ("/", [LOG_DIR_NOT_FOUND; 2]),
                ];
                for (path, expected) in cases {
                    let request = AlterReplicaLogDirsRequest {
                        dirs: vec![AlterReplicaLogDir {
                            path: path.into(),
                            topics: vec![AlterReplicaLogDirTopic {
                                name: "t".into(),
                                partitions: vec![0, 2],
                            }],
                        }],
                    };
                    let answer = self.raw.call(version, &request).await;
                    let codes = answer.results[0].partitions.iter();
                    assert!(codes.map(|partition| partition.error_code).eq(expected));
                }
            }
            ApiKey::DescribeQuorum => {
                let request = |topic_name: &str| DescribeQuorumRequest {
                    topics: vec![RequestTopicData {
                        topic_name: topic_name.into(),
                        partitions: vec![RequestPartitionData { partition_index: 0 }],
                    }],
                };
                let metadata = request("__cluster_metadata");
                let answer = self.raw.call(version, &metadata).await;
                let partition = &answer.topics[0].partitions[0];
                assert_eq!(
                    (
                        partition.error_code,
                        partition.leader_id,
                        partition.leader_epoch
                    ),
                    (NONE, self.node_id, self.leader_epoch),
                    "DescribeQuorum {version}"
                );
                let voter = &partition.current_voters[0];
                assert_eq!(voter.replica_id, self.node_id);
                // At least the topic is in there, and all of it is durable.
                assert!(voter.log_end_offset >= 1);
                assert_eq!(voter.log_end_offset, partition.high_watermark);
                assert_eq!(answer.nodes.len(), usize::from(version >= 2));
                let answer = self.raw.call(version, &request("t")).await;
                assert_eq!(answer.topics[0].partitions[0].error_code, absent);
            }
            _ => {
                let request = |resource_types: &[i8]| ListConfigResourcesRequest {
                    resource_types: resource_types.to_vec(),
                };
                let all = self.raw.call(version, &request(&[])).await;
                assert_eq!(all.error_code, NONE);
                if version == 0 {
                    assert_eq!(all.config_resources, []);
                    return;
                }
                let listed = |kind, name: &str| {
                    let mut listed = all.config_resources.iter();
                    listed.any(|it| it.resource_type == kind && it.resource_name == name)
                };
                assert!(listed(TOPIC, "t") && listed(BROKER, &self.node_id.to_string()));
                let topics = self.raw.call(version, &request(&[TOPIC])).await;
                let mut topics = topics.config_resources.iter();
                assert!(topics.all(|it| it.resource_type == TOPIC));
                let unknown = self.raw.call(version, &request(&[99])).await;
                assert_eq!(unknown.error_code, UNSUPPORTED_VERSION);
            }
        }
    }

    /// Access is not controlled here, and that is what is said of it.
    async fn acls(&mut self, key: ApiKey, version: i16) {
        let code = match key {
            ApiKey::DescribeAcls => {
                let request = DescribeAclsRequest {
                    resource_type_filter: 1,
                    pattern_type_filter: 3,
                    operation: 1,
                    permission_type: 1,
                    ..DescribeAclsRequest::default()
                };
                self.raw.call(version, &request).await.error_code
            }
            ApiKey::CreateAcls => {
                let creation = AclCreation {
                    resource_type: 2,
                    resource_name: "t".into(),
                    resource_pattern_type: 3,
                    principal: "User:alice".into(),
                    host: "*".into(),
                    operation: 3,
                    permission_type: 3,
                };
                let request = CreateAclsRequest {
                    creations: vec![creation],
                };
                let answer = self.raw.call(version, &request).await;
                answer.results[0].error_code
            }
            _ => {
                let filter = DeleteAclsFilter {
                    resource_type_filter: 1,
                    pattern_type_filter: 3,
                    operation: 1,
                    permission_type: 1,
                    ..DeleteAclsFilter::default()
                };
                let request = DeleteAclsRequest {
                    filters: vec![filter],
                };
                let answer = self.raw.call(version, &request).await;
                answer.filter_results[0].error_code
            }
        };
        assert_eq!(code, SECURITY_DISABLED, "{key:?} {version}");
    }

    async fn quotas(&mut self, key: ApiKey, version: i16) {
        if key == ApiKey::DescribeClientQuotas {
            let request = DescribeClientQuotasRequest::default();
            let answer = self.raw.call(version, &request).await;
            assert_eq!((answer.error_code, answer.entries), (NONE, Some(vec![])));
            return;
        }
        let request = AlterClientQuotasRequest {
            entries: vec![RequestEntryData {
                entity: vec![RequestEntityData {
                    entity_type: "user".into(),
                    entity_name: Some("alice".into()),
                }],
                ops: vec![OpData {
                    key: "producer_byte_rate".into(),
                    value: 1e9,
                    remove: false,
                }],
            }],
            validate_only: true,
        };
        let answer = self.raw.call(version, &request).await;
        assert_eq!(answer.entries[0].error_code, NONE, "{version}");
    }

    async fn connection(&mut self, key: ApiKey, version: i16) {
        match key {
            ApiKey::SaslHandshake => {
                let request = SaslHandshakeRequest {
                    mechanism: "PLAIN".into(),
                };
                let answer = self.raw.call(version, &request).await;
                assert_eq!(answer.error_code, ILLEGAL_SASL_STATE);
            }
            ApiKey::DescribeUserScramCredentials => {
                let request = DescribeUserScramCredentialsRequest::default();
                let answer = self.raw.call(version, &request).await;
                assert_eq!((answer.error_code, answer.results.len()), (NONE, 0));
            }
            ApiKey::AlterUserScramCredentials => {
                let request = AlterUserScramCredentialsRequest {
                    deletions: vec![ScramCredentialDeletion {
                        name: "alice".into(),
                        mechanism: 1,
                    }],
                    ..AlterUserScramCredentialsRequest::default()
                };
                let answer = self.raw.call(version, &request).await;
                assert_eq!(answer.results[0].error_code, RESOURCE_NOT_FOUND);
            }
            ApiKey::SaslAuthenticate => {
                let answer = self
                    .raw
                    .call(version, &SaslAuthenticateRequest::default())
                    .await;
                assert_eq!(answer.error_code, ILLEGAL_SASL_STATE);
            }
            ApiKey::ApiVersions => {
                let request = ApiVersionsRequest {
                    client_software_name: "raw".into(),
                    client_software_version: "1".into(),
                };
                let answer = self.raw.call(version, &request).await;
                assert_eq!(answer.error_code, NONE, "ApiVersions {version}");
                assert!(answer.api_keys.iter().any(|key| key.api_key == 0));
            }
            ApiKey::InitProducerId => {
                let request = InitProducerIdRequest {
                    transactional_id: None,
                    transaction_timeout_ms: 60_000,
                    ..InitProducerIdRequest::default()
                };
                let answer = self.raw.call(version, &request).await;
                assert_eq!(answer.error_code, NONE, "InitProducerId {version}");
                assert!(answer.producer_id >= 0);
            }
            _ => {
                let request = ListPartitionReassignmentsRequest::default();
                let answer = self.raw.call(version, &request).await;
                assert_eq!((answer.error_code, answer.topics.len()), (NONE, 0));
            }
        }
    }

    /// What is answered of groups that are not there.
    async fn groups(&mut self, key: ApiKey, version: i16) {
        let group_id = "nobody".to_string();
        let code = match key {
            ApiKey::JoinGroup => {
                let request = JoinGroupRequest::default();
                let code = self.raw.call(version, &request).await.error_code;
                assert_eq!(code, INVALID_GROUP_ID);
                UNKNOWN_MEMBER_ID
            }
            ApiKey::SyncGroup => {
                let request = SyncGroupRequest {
                    group_id,
                    protocol_type: Some("consumer".into()),
                    protocol_name: Some("range".into()),
                    ..SyncGroupRequest::default()
                };
                self.raw.call(version, &request).await.error_code
            }
            ApiKey::Heartbeat => {
                let request = HeartbeatRequest {
                    group_id,
                    ..HeartbeatRequest::default()
                };
                self.raw.call(version, &request).await.error_code
            }
            ApiKey::LeaveGroup => {
                let request = LeaveGroupRequest {
                    group_id,
                    ..LeaveGroupRequest::default()
                };
                let code = self.raw.call(version, &request).await.error_code;
                // From version 3 on it is each member's own.
                if version >= 3 {
                    UNKNOWN_MEMBER_ID
                } else {
                    code
                }
            }
            ApiKey::DescribeGroups => {
                let request = DescribeGroupsRequest {
                    groups: vec![group_id],
                    ..DescribeGroupsRequest::default()
                };
                let group = self.raw.call(version, &request).await.groups.remove(0);
                assert_eq!(group.group_state, "Dead");
                let expected = if version >= 6 {
                    GROUP_ID_NOT_FOUND
                } else {
                    NONE
                };
                assert_eq!(group.error_code, expected);
                UNKNOWN_MEMBER_ID
            }
            ApiKey::DeleteGroups => {
                let request = DeleteGroupsRequest {
                    groups_names: vec![group_id],
                };
                let answer = self.raw.call(version, &request).await;
                assert_eq!(answer.results[0].error_code, GROUP_ID_NOT_FOUND);
                UNKNOWN_MEMBER_ID
            }
            ApiKey::OffsetDelete => {
                let request = OffsetDeleteRequest {
                    group_id,
                    ..OffsetDeleteRequest::default()
                };
                assert_eq!(
                    self.raw.call(version, &request).await.error_code,
                    GROUP_ID_NOT_FOUND
                );
                UNKNOWN_MEMBER_ID
            }
            ApiKey::ListGroups => {
                let answer = self.raw.call(version, &ListGroupsRequest::default()).await;
                assert_eq!((answer.error_code, answer.groups.len()), (NONE, 0));
                UNKNOWN_MEMBER_ID
            }
            ApiKey::FindCoordinator => {
                let mut request = FindCoordinatorRequest::default();
                if version >= 4 {
                    request.coordinator_keys.push(group_id);
                } else {
                    request.key = group_id;
                }
                let answer = self.raw.call(version, &request).await;
                assert_eq!(answer.error_code, NONE, "FindCoordinator {version}");
                let host = answer
                    .coordinators
                    .first()
                    .map_or(answer.host, |it| it.host.clone());
                assert_eq!(host, "127.0.0.1");
                UNKNOWN_MEMBER_ID
            }
            ApiKey::OffsetCommit => {
                let request = OffsetCommitRequest {
                    group_id,
                    ..OffsetCommitRequest::default()
                };
                assert_eq!(self.raw.call(version, &request).await.topics.len(), 0);
                UNKNOWN_MEMBER_ID
            }
            ApiKey::OffsetFetch => {
                let request = OffsetFetchRequest {
                    group_id: if version >= 8 {
                        String::new()
                    } else {
                        group_id
                    },
                    topics: Some(Vec::new()),
                    ..OffsetFetchRequest::default()
                };
                assert_eq!(self.raw.call(version, &request).await.error_code, NONE);
                UNKNOWN_MEMBER_ID
            }
            other => panic!("{other:?} is offered, and nothing here asks it"),
        };
        assert_eq!(code, UNKNOWN_MEMBER_ID, "{key:?} {version}");
    }
}
