//! The decoders of every API key and version, both directions: `key i16 | version i16 | direction u8 | message`.
//! What decodes must encode, and decode again to the same.

use bytes::Bytes;
use wire::messages::*;
use wire::{ApiKey, Message, Reader, Request, Writer};

use crate::Input;
use crate::seeds::{Direction, traffic};

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (key, version, direction) = (input.i16(), input.i16(), input.u8());
    let Some(key) = ApiKey::from_code(key) else {
        return;
    };
    let message = Bytes::copy_from_slice(input.rest());
    read(key, version, direction % 2 == 1, message);
}

macro_rules! by_key {
    ($key:expr, $version:expr, $is_response:expr, $bytes:expr; $($name:ident => $module:ident::$request:ident,)*) => {
        match $key {
            $(ApiKey::$name => both::<$module::$request>($version, $is_response, $bytes),)*
        }
    };
}

/// Reads a message of this key.
pub(super) fn read(key: ApiKey, version: i16, is_response: bool, message: Bytes) {
    by_key! { key, version, is_response, message;
        Produce => produce::ProduceRequest,
        Fetch => fetch::FetchRequest,
        ListOffsets => list_offsets::ListOffsetsRequest,
        Metadata => metadata::MetadataRequest,
        OffsetCommit => offset_commit::OffsetCommitRequest,
        OffsetFetch => offset_fetch::OffsetFetchRequest,
        FindCoordinator => find_coordinator::FindCoordinatorRequest,
        JoinGroup => join_group::JoinGroupRequest,
        Heartbeat => heartbeat::HeartbeatRequest,
        LeaveGroup => leave_group::LeaveGroupRequest,
        SyncGroup => sync_group::SyncGroupRequest,
        DescribeGroups => describe_groups::DescribeGroupsRequest,
        ListGroups => list_groups::ListGroupsRequest,
        SaslHandshake => sasl_handshake::SaslHandshakeRequest,
        ApiVersions => api_versions::ApiVersionsRequest,
        CreateTopics => create_topics::CreateTopicsRequest,
        DeleteTopics => delete_topics::DeleteTopicsRequest,
        DeleteRecords => delete_records::DeleteRecordsRequest,
        InitProducerId => init_producer_id::InitProducerIdRequest,
        OffsetForLeaderEpoch => offset_for_leader_epoch::OffsetForLeaderEpochRequest,
        AddPartitionsToTxn => add_partitions_to_txn::AddPartitionsToTxnRequest,
        AddOffsetsToTxn => add_offsets_to_txn::AddOffsetsToTxnRequest,
        EndTxn => end_txn::EndTxnRequest,
        WriteTxnMarkers => write_txn_markers::WriteTxnMarkersRequest,
        TxnOffsetCommit => txn_offset_commit::TxnOffsetCommitRequest,
        DescribeAcls => describe_acls::DescribeAclsRequest,
        CreateAcls => create_acls::CreateAclsRequest,
        DeleteAcls => delete_acls::DeleteAclsRequest,
        DescribeConfigs => describe_configs::DescribeConfigsRequest,
        AlterConfigs => alter_configs::AlterConfigsRequest,
        AlterReplicaLogDirs => alter_replica_log_dirs::AlterReplicaLogDirsRequest,
        DescribeLogDirs => describe_log_dirs::DescribeLogDirsRequest,
        SaslAuthenticate => sasl_authenticate::SaslAuthenticateRequest,
        CreatePartitions => create_partitions::CreatePartitionsRequest,
        DeleteGroups => delete_groups::DeleteGroupsRequest,
        ElectLeaders => elect_leaders::ElectLeadersRequest,
        IncrementalAlterConfigs => incremental_alter_configs::IncrementalAlterConfigsRequest,
        AlterPartitionReassignments => alter_partition_reassignments::AlterPartitionReassignmentsRequest,
        ListPartitionReassignments => list_partition_reassignments::ListPartitionReassignmentsRequest,
        OffsetDelete => offset_delete::OffsetDeleteRequest,
        DescribeClientQuotas => describe_client_quotas::DescribeClientQuotasRequest,
        AlterClientQuotas => alter_client_quotas::AlterClientQuotasRequest,
        DescribeUserScramCredentials => describe_user_scram_credentials::DescribeUserScramCredentialsRequest,
        AlterUserScramCredentials => alter_user_scram_credentials::AlterUserScramCredentialsRequest,
        DescribeQuorum => describe_quorum::DescribeQuorumRequest,
        UpdateFeatures => update_features::UpdateFeaturesRequest,
        DescribeCluster => describe_cluster::DescribeClusterRequest,
        DescribeProducers => describe_producers::DescribeProducersRequest,
        DescribeTransactions => describe_transactions::DescribeTransactionsRequest,
        ListTransactions => list_transactions::ListTransactionsRequest,
        ConsumerGroupHeartbeat => consumer_group_heartbeat::ConsumerGroupHeartbeatRequest,
        ConsumerGroupDescribe => consumer_group_describe::ConsumerGroupDescribeRequest,
        GetTelemetrySubscriptions => get_telemetry_subscriptions::GetTelemetrySubscriptionsRequest,
        PushTelemetry => push_telemetry::PushTelemetryRequest,
        ListConfigResources => list_config_resources::ListConfigResourcesRequest,
        DescribeTopicPartitions => describe_topic_partitions::DescribeTopicPartitionsRequest,
        ShareGroupHeartbeat => share_group_heartbeat::ShareGroupHeartbeatRequest,
        ShareGroupDescribe => share_group_describe::ShareGroupDescribeRequest,
        ShareFetch => share_fetch::ShareFetchRequest,
        ShareAcknowledge => share_acknowledge::ShareAcknowledgeRequest,
        DescribeShareGroupOffsets => describe_share_group_offsets::DescribeShareGroupOffsetsRequest,
        AlterShareGroupOffsets => alter_share_group_offsets::AlterShareGroupOffsetsRequest,
        DeleteShareGroupOffsets => delete_share_group_offsets::DeleteShareGroupOffsetsRequest,
    }
}

fn both<R: Request + PartialEq + std::fmt::Debug>(version: i16, is_response: bool, message: Bytes)
where
    R::Response: PartialEq + std::fmt::Debug,
{
    if is_response {
        there_and_back::<R::Response>(version, message);
    } else {
        there_and_back::<R>(version, message);
    }
}

/// Decodes; what that gives must encode, and decode again to the same, with nothing left over.
pub(super) fn there_and_back<M: Message + PartialEq + std::fmt::Debug>(
    version: i16,
    message: Bytes,
) {
    let mut reader = Reader::new(message);
    let Ok(value) = M::decode(&mut reader, version) else {
        return;
    };
    let written = encoded(&value, version);
    let mut reader = Reader::new(written.clone());
    let again = M::decode(&mut reader, version).expect("what was encoded decodes");
    assert_eq!(reader.remaining(), 0, "nothing is left over");
    // A number that is not one differs from itself; its text does not.
    assert!(
        again == value || format!("{again:?}") == format!("{value:?}"),
        "{value:?} came back as {again:?}"
    );
    assert_eq!(encoded(&again, version), written, "encoding is a function");
}

fn encoded<M: Message>(value: &M, version: i16) -> Bytes {
    let mut writer = Writer::new();
    value
        .encode(&mut writer, version)
        .expect("what decoded in a version encodes in it");
    writer.into_bytes()
}

/// Recorded messages, and for every version of every key the shortest that can be: zeros.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for exchange in traffic() {
        let mut seed = exchange.key.code().to_be_bytes().to_vec();
        seed.extend_from_slice(&exchange.version.to_be_bytes());
        seed.push(u8::from(exchange.direction == Direction::Response));
        seed.extend_from_slice(exchange.message());
        seeds.push(seed);
    }
    for key in ApiKey::ALL {
        for version in key.version_min()..=key.version_max() {
            for direction in [0, 1] {
                let mut seed = key.code().to_be_bytes().to_vec();
                seed.extend_from_slice(&version.to_be_bytes());
                seed.push(direction);
                seed.extend_from_slice(&[0; 64]);
                seeds.push(seed);
            }
        }
    }
    seeds
}
