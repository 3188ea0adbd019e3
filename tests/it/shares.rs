//! Share groups over the wire: whose a record is, what an acknowledgement promises, sessions, and what administrators ask.

use model::Timestamp;
use model::batch::{BatchBuilder, Codec};
use wire::messages::alter_share_group_offsets::*;
use wire::messages::delete_groups::DeleteGroupsRequest;
use wire::messages::delete_share_group_offsets::*;
use wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use wire::messages::describe_share_group_offsets::*;
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use wire::messages::join_group::JoinGroupRequest;
use wire::messages::list_groups::ListGroupsRequest;
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use wire::messages::share_acknowledge as ack;
use wire::messages::share_fetch as fetch;
use wire::messages::share_group_describe::ShareGroupDescribeRequest;
use wire::messages::share_group_heartbeat::ShareGroupHeartbeatRequest;
use wire::{ApiKey, Uuid};

use crate::raw::Raw;
use crate::server::Server;

const NONE: i16 = 0;
const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
const INVALID_GROUP_ID: i16 = 24;
const INVALID_CONFIG: i16 = 40;
const INVALID_REQUEST: i16 = 42;
const NON_EMPTY_GROUP: i16 = 68;
const GROUP_ID_NOT_FOUND: i16 = 69;
const FENCED_MEMBER_EPOCH: i16 = 110;
const INVALID_RECORD_STATE: i16 = 121;
const SHARE_SESSION_NOT_FOUND: i16 = 122;
const INVALID_SHARE_SESSION_EPOCH: i16 = 123;
/// Kafka's number for groups as resources.
const GROUP: i8 = 32;
/// Much longer than any test waits.
const LONG_MS: i32 = 600_000;
const TOPIC: &str = "jobs";

/// A batch of so many records.
async fn produce(raw: &mut Raw, records: usize) {
    let mut builder = BatchBuilder::new(Codec::None);
    for _ in 0..records {
        let pushed = builder.push(Timestamp::from_millis(1), None, Some(b"job"), &[]);
        pushed.expect("a small record");
    }
    let batch = builder.build().expect("a small batch");
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: TOPIC.into(),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(batch.into()),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    let answer = raw.call(9, &request).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, NONE);
}

async fn set(raw: &mut Raw, group: &str, name: &str, value: &str) -> i16 {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: GROUP,
            resource_name: group.into(),
            configs: vec![AlterableConfig {
                name: name.into(),
                config_operation: 0,
                value: Some(value.into()),
            }],
        }],
        validate_only: false,
    };
    raw.call(1, &request).await.responses[0].error_code
}

/// A member of a share group.
struct Member {
    raw: Raw,
    group: String,
    id: String,
    topic: Uuid,
    epoch: i32,
    session: i32,
}

impl Member {
    async fn join(server: &Server, group: &str, id: &str, topic: Uuid) -> Member {
        let mut member = Member {
            raw: Raw::connect(server.address).await,
            group: group.into(),
            id: id.into(),
            topic,
            epoch: 0,
            session: 0,
        };
        assert_eq!(member.beat(0).await, NONE);
        member
    }

    async fn beat(&mut self, epoch: i32) -> i16 {
        let request = ShareGroupHeartbeatRequest {
            group_id: self.group.clone(),
            member_id: self.id.clone(),
            member_epoch: epoch,
            subscribed_topic_names: (epoch == 0).then(|| vec![TOPIC.into()]),
            ..ShareGroupHeartbeatRequest::default()
        };
        let answer = self.raw.call(1, &request).await;
        self.epoch = answer.member_epoch;
        answer.error_code
    }

    fn request(&self, records: i32, wait_ms: i32) -> fetch::ShareFetchRequest {
        fetch::ShareFetchRequest {
            group_id: Some(self.group.clone()),
            member_id: Some(self.id.clone()),
            share_session_epoch: self.session,
            max_wait_ms: wait_ms,
            min_bytes: 1,
            max_records: records,
            batch_size: records,
            share_acquire_mode: 1,
            topics: vec![fetch::FetchTopic {
                topic_id: self.topic,
                partitions: vec![fetch::FetchPartition::default()],
            }],
            ..fetch::ShareFetchRequest::default()
        }
    }

    async fn told(&mut self) -> Vec<(i64, i64, i16)> {
        let answer = self.raw.receive::<fetch::ShareFetchRequest>(2).await;
        assert_eq!(answer.error_code, NONE, "{:?}", answer.error_message);
        self.session += 1;
        let partitions = answer.responses.into_iter().flat_map(|it| it.partitions);
        let acquired = partitions.flat_map(|partition| {
            assert_eq!(partition.error_code, NONE);
            assert_eq!(
                partition.records.is_empty(),
                partition.acquired_records.is_empty()
            );
            partition.acquired_records
        });
        let shown =
            |it: fetch::AcquiredRecords| (it.first_offset, it.last_offset, it.delivery_count);
        acquired.map(shown).collect()
    }

    /// Which records it is given, how often each was.
    async fn fetch(&mut self, records: i32) -> Vec<(i64, i64, i16)> {
        let request = self.request(records, 0);
        self.raw.send(2, &request).await;
        self.told().await
    }

    /// What comes of what it says, of the request and of the partition.
    async fn say(&mut self, first: i64, last: i64, kind: i8) -> (i16, i16) {
        let request = ack::ShareAcknowledgeRequest {
            group_id: Some(self.group.clone()),
            member_id: Some(self.id.clone()),
            share_session_epoch: self.session,
            is_renew_ack: kind == 4,
            topics: vec![ack::AcknowledgeTopic {
                topic_id: self.topic,
                partitions: vec![ack::AcknowledgePartition {
                    partition_index: 0,
                    acknowledgement_batches: vec![ack::AcknowledgementBatch {
                        first_offset: first,
                        last_offset: last,
                        acknowledge_types: vec![kind],
                    }],
                }],
            }],
        };
        let answer = self.raw.call(2, &request).await;
        if answer.error_code != NONE {
            return (answer.error_code, NONE);
        }
        self.session += 1;
        (NONE, answer.responses[0].partitions[0].error_code)
    }
}

async fn world(group: &str) -> (Server, Raw, Uuid) {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let topic = raw.create_topic(TOPIC, 1).await;
    assert_eq!(
        set(&mut raw, group, "share.auto.offset.reset", "earliest").await,
        NONE
    );
    (server, raw, topic)
}

#[tokio::test]
async fn what_was_acknowledged_never_comes_again_and_the_rest_comes_and_counts() {
    let (server, mut raw, topic) = world("g").await;
    produce(&mut raw, 10).await;
    let mut a = Member::join(&server, "g", "a", topic).await;
    let mut b = Member::join(&server, "g", "b", topic).await;
    assert_eq!(a.fetch(4).await, [(0, 3, 1)]);
    assert_eq!(b.fetch(4).await, [(4, 7, 1)]);
    assert_eq!(a.say(0, 1, 1).await, (NONE, NONE), "accepted");
    assert_eq!(a.say(2, 2, 2).await, (NONE, NONE), "released");
    assert_eq!(b.say(5, 5, 3).await, (NONE, NONE), "rejected");
    assert_eq!(b.say(4, 4, 4).await, (NONE, NONE), "renewed");
    assert_eq!(
        b.say(3, 3, 1).await,
        (NONE, INVALID_RECORD_STATE),
        "another's"
    );
    assert_eq!(
        a.say(0, 0, 1).await,
        (NONE, INVALID_RECORD_STATE),
        "done already"
    );
    let server = server.cut().await;
    let mut c = Member::join(&server, "g", "c", topic).await;
    let given = c.fetch(100).await;
    // What was released and what was held are alike now: delivered once, and nobody's.
    assert_eq!(given, [(2, 4, 2), (6, 7, 2), (8, 9, 1)]);
}

#[tokio::test]
async fn records_of_a_connection_that_ends_go_to_who_waits() {
    let (server, mut raw, topic) = world("g").await;
    produce(&mut raw, 3).await;
    let mut a = Member::join(&server, "g", "a", topic).await;
    assert_eq!(a.fetch(100).await, [(0, 2, 1)]);
    let mut b = Member::join(&server, "g", "b", topic).await;
    let request = b.request(100, LONG_MS);
    b.raw.send(2, &request).await;
    drop(a);
    assert_eq!(b.told().await, [(0, 2, 2)]);
    let request = b.request(100, LONG_MS);
    b.raw.send(2, &request).await;
    produce(&mut raw, 2).await;
    assert_eq!(b.told().await, [(3, 4, 1)], "new ones too");
}

#[tokio::test]
async fn a_record_that_is_released_each_time_is_given_up_at_the_limit() {
    let (server, mut raw, topic) = world("g").await;
    assert_eq!(
        set(&mut raw, "g", "share.delivery.count.limit", "2").await,
        NONE
    );
    produce(&mut raw, 1).await;
    let mut a = Member::join(&server, "g", "a", topic).await;
    for count in [1, 2] {
        assert_eq!(a.fetch(1).await, [(0, 0, count)]);
        assert_eq!(a.say(0, 0, 2).await, (NONE, NONE));
    }
    assert_eq!(a.fetch(1).await, []);
    produce(&mut raw, 1).await;
    assert_eq!(a.fetch(1).await, [(1, 1, 1)]);
}

#[tokio::test]
async fn sessions_go_by_their_epochs_and_members_by_theirs() {
    let (server, mut raw, topic) = world("g").await;
    produce(&mut raw, 3).await;
    let mut a = Member::join(&server, "g", "a", topic).await;
    assert_eq!(
        a.say(0, 0, 1).await.0,
        INVALID_SHARE_SESSION_EPOCH,
        "none begins so"
    );
    a.session = 1;
    assert_eq!(a.say(0, 0, 1).await.0, SHARE_SESSION_NOT_FOUND);
    a.session = 0;
    assert_eq!(a.fetch(3).await, [(0, 2, 1)]);
    a.session = 5;
    assert_eq!(a.say(0, 0, 1).await.0, INVALID_SHARE_SESSION_EPOCH);
    a.session = 1;
    let mut unclear = a.request(1, 0);
    unclear.is_renew_ack = true;
    assert_eq!(a.raw.call(2, &unclear).await.error_code, INVALID_REQUEST);
    let (epoch, _) = (a.epoch, a.beat(77).await);
    assert_eq!(a.beat(77).await, FENCED_MEMBER_EPOCH);
    assert_eq!(a.beat(epoch).await, NONE);
    assert_eq!(a.beat(-1).await, NONE);
    a.session = -1;
    assert_eq!(a.say(0, 0, 1).await.0, NONE, "the last word");
    let mut b = Member::join(&server, "g", "b", topic).await;
    assert_eq!(b.fetch(3).await, [(1, 2, 2)]);
}

#[tokio::test]
async fn administrators_see_set_and_delete_what_a_group_without_members_knows() {
    let (server, mut raw, topic) = world("g").await;
    produce(&mut raw, 5).await;
    assert_eq!(
        set(&mut raw, "g", "share.session.timeout.ms", "soon").await,
        INVALID_CONFIG
    );
    assert_eq!(
        set(&mut raw, "g", "consumer.session.timeout.ms", "45000").await,
        INVALID_CONFIG
    );
    let mut a = Member::join(&server, "g", "a", topic).await;
    assert_eq!(a.fetch(2).await, [(0, 1, 1)]);
    assert_eq!(a.say(0, 1, 1).await, (NONE, NONE));

    let describe = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: GROUP,
            resource_name: "g".into(),
            configuration_keys: Some(vec!["share.auto.offset.reset".into()]),
        }],
        ..DescribeConfigsRequest::default()
    };
    let configs = raw.call(4, &describe).await.results.remove(0).configs;
    assert_eq!(
        (configs[0].value.as_deref(), configs[0].config_source),
        (Some("earliest"), 8)
    );
    let listed = ListGroupsRequest {
        types_filter: vec!["share".into()],
        ..ListGroupsRequest::default()
    };
    let listed = raw.call(5, &listed).await.groups;
    assert_eq!(
        (listed.len(), listed[0].group_state.as_str()),
        (1, "Stable")
    );
    let described = ShareGroupDescribeRequest {
        group_ids: vec!["g".into(), "none".into()],
        ..ShareGroupDescribeRequest::default()
    };
    let described = raw.call(1, &described).await.groups;
    assert_eq!(
        described[0].members[0].assignment.topic_partitions[0].partitions,
        [0]
    );
    assert_eq!(described[1].error_code, GROUP_ID_NOT_FOUND);
    let join = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        ..JoinGroupRequest::default()
    };
    assert_eq!(
        raw.call(9, &join).await.error_code,
        INCONSISTENT_GROUP_PROTOCOL
    );

    assert_eq!(offsets(&mut raw).await, (2, 3));
    assert_eq!(reset(&mut raw, 4).await, NON_EMPTY_GROUP);
    assert_eq!(a.beat(-1).await, NONE);
    assert_eq!(reset(&mut raw, 4).await, NONE);
    assert_eq!(offsets(&mut raw).await, (4, 1));
    let server = server.cut().await;
    let mut raw = Raw::connect(server.address).await;
    assert_eq!(offsets(&mut raw).await, (4, 1));
    let delete = DeleteShareGroupOffsetsRequest {
        group_id: "g".into(),
        topics: vec![DeleteShareGroupOffsetsRequestTopic {
            topic_name: TOPIC.into(),
        }],
    };
    assert_eq!(raw.call(0, &delete).await.responses[0].error_code, NONE);
    assert_eq!(offsets(&mut raw).await, (-1, -1));
    let delete = DeleteGroupsRequest {
        groups_names: vec!["g".into()],
    };
    assert_eq!(raw.call(2, &delete).await.results[0].error_code, NONE);
    assert_eq!(
        raw.call(2, &delete).await.results[0].error_code,
        GROUP_ID_NOT_FOUND
    );
}

/// What is answered of groups that are not there, or have no name.
pub async fn answers_of_none(raw: &mut Raw, key: ApiKey, version: i16) {
    let group_id = || "nobody".to_owned();
    let (code, wanted) = match key {
        ApiKey::ShareGroupHeartbeat => {
            let request = ShareGroupHeartbeatRequest::default();
            (
                raw.call(version, &request).await.error_code,
                INVALID_REQUEST,
            )
        }
        ApiKey::ShareGroupDescribe => {
            let request = ShareGroupDescribeRequest {
                group_ids: vec![group_id()],
                ..ShareGroupDescribeRequest::default()
            };
            let answer = raw.call(version, &request).await;
            (answer.groups[0].error_code, GROUP_ID_NOT_FOUND)
        }
        ApiKey::ShareFetch => {
            let request = fetch::ShareFetchRequest::default();
            (
                raw.call(version, &request).await.error_code,
                INVALID_REQUEST,
            )
        }
        ApiKey::ShareAcknowledge => {
            let request = ack::ShareAcknowledgeRequest::default();
            (
                raw.call(version, &request).await.error_code,
                INVALID_REQUEST,
            )
        }
        ApiKey::DescribeShareGroupOffsets => {
            let request = DescribeShareGroupOffsetsRequest {
                groups: vec![DescribeShareGroupOffsetsRequestGroup {
                    group_id: group_id(),
                    topics: None,
                }],
            };
            let answer = raw.call(version, &request).await;
            (answer.groups[0].error_code, GROUP_ID_NOT_FOUND)
        }
        ApiKey::AlterShareGroupOffsets => {
            let request = AlterShareGroupOffsetsRequest::default();
            (
                raw.call(version, &request).await.error_code,
                INVALID_GROUP_ID,
            )
        }
        _ => {
            let request = DeleteShareGroupOffsetsRequest {
                group_id: group_id(),
                ..DeleteShareGroupOffsetsRequest::default()
            };
            (
                raw.call(version, &request).await.error_code,
                GROUP_ID_NOT_FOUND,
            )
        }
    };
    assert_eq!(code, wanted, "{key:?} {version}");
}

/// The group's start and lag.
async fn offsets(raw: &mut Raw) -> (i64, i64) {
    let request = DescribeShareGroupOffsetsRequest {
        groups: vec![DescribeShareGroupOffsetsRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![DescribeShareGroupOffsetsRequestTopic {
                topic_name: TOPIC.into(),
                partitions: vec![0],
            }]),
        }],
    };
    let mut group = raw.call(1, &request).await.groups.remove(0);
    let partition = group.topics.remove(0).partitions.remove(0);
    (partition.start_offset, partition.lag)
}

async fn reset(raw: &mut Raw, start_offset: i64) -> i16 {
    let request = AlterShareGroupOffsetsRequest {
        group_id: "g".into(),
        topics: vec![AlterShareGroupOffsetsRequestTopic {
            topic_name: TOPIC.into(),
            partitions: vec![AlterShareGroupOffsetsRequestPartition {
                partition_index: 0,
                start_offset,
            }],
        }],
    };
    raw.call(0, &request).await.error_code
}
