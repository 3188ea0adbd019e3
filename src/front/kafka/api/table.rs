//! The one table of what is offered in which versions, and the look-up of a request's row in it.
//! Callers: `connection`. ApiVersions is answered from the same table, which each call brings along.

use std::sync::Arc;

use bytes::Bytes;
use wire::{ApiKey, Reader, RequestHeader};

use super::call::{Call, Peer, Reply, Request, Row, Run, encode, respond};
use super::{
    alter_client_quotas, alter_configs, alter_partition_reassignments, alter_replica_log_dirs,
    alter_share_group_offsets, alter_user_scram_credentials, api_versions, create_acls,
    create_partitions, create_topics, delete_acls, delete_groups, delete_records,
    delete_share_group_offsets, delete_topics, describe_acls, describe_client_quotas,
    describe_cluster, describe_configs, describe_groups, describe_log_dirs, describe_producers,
    describe_quorum, describe_share_group_offsets, describe_topic_partitions,
    describe_user_scram_credentials, elect_leaders, fetch, find_coordinator, heartbeat,
    incremental_alter_configs, init_producer_id, join_group, leave_group, list_config_resources,
    list_groups, list_offsets, list_partition_reassignments, metadata, offset_commit,
    offset_delete, offset_fetch, offset_for_leader_epoch, produce, sasl_authenticate,
    sasl_handshake, share_acknowledge, share_fetch, share_group_describe, share_group_heartbeat,
    sync_group,
};
use crate::broker::access::{Caller, Entrance, Protocol};
use crate::front::budget::Budget;
use crate::front::kafka::answer::Answer;
use crate::front::kafka::sessions::Sessions;
use crate::front::kafka::stats::Stats;
use crate::front::kafka::throttle::Throttle;
use crate::front::kafka::unsupported::Unsupported;

/// A row whose handler is `async fn answer(request, call) -> response` of the module named after the key.
macro_rules! alone {
    ($key:ident, $versions:expr, $module:ident) => {
        Row {
            key: ApiKey::$key,
            listed: $versions,
            served: $versions,
            run: Run::Alone(|request| Box::pin(respond(request, $module::answer))),
        }
    };
}

/// A row like that of `alone!`, whose handler may wait long and for others.
macro_rules! waiting {
    ($key:ident, $versions:expr, $module:ident) => {
        Row {
            key: ApiKey::$key,
            listed: $versions,
            served: $versions,
            run: Run::Waiting(|request| Box::pin(respond(request, $module::answer))),
        }
    };
}

/// What is offered, by key. Transactions (24 to 28) are left out whole.
pub(super) static TABLE: &[Row] = &[
    Row {
        key: ApiKey::Produce,
        listed: 0..=11,
        served: 3..=11,
        run: Run::Pipelined(produce::start),
    },
    waiting!(Fetch, 4..=17, fetch),
    alone!(ListOffsets, 1..=8, list_offsets),
    alone!(Metadata, 0..=13, metadata),
    alone!(OffsetCommit, 2..=9, offset_commit),
    alone!(OffsetFetch, 1..=9, offset_fetch),
    alone!(FindCoordinator, 0..=4, find_coordinator),
    waiting!(JoinGroup, 0..=9, join_group),
    alone!(Heartbeat, 0..=4, heartbeat),
    alone!(LeaveGroup, 0..=5, leave_group),
    waiting!(SyncGroup, 0..=5, sync_group),
    alone!(DescribeGroups, 0..=6, describe_groups),
    alone!(ListGroups, 0..=5, list_groups),
    alone!(SaslHandshake, 0..=1, sasl_handshake),
    alone!(ApiVersions, 0..=4, api_versions),
    alone!(CreateTopics, 2..=7, create_topics),
    alone!(DeleteTopics, 1..=6, delete_topics),
    alone!(DeleteRecords, 0..=2, delete_records),
    alone!(InitProducerId, 0..=4, init_producer_id),
    alone!(OffsetForLeaderEpoch, 2..=4, offset_for_leader_epoch),
    alone!(DescribeAcls, 1..=3, describe_acls),
    alone!(CreateAcls, 1..=3, create_acls),
    alone!(DeleteAcls, 1..=3, delete_acls),
    alone!(DescribeConfigs, 1..=4, describe_configs),
    alone!(AlterConfigs, 0..=2, alter_configs),
    alone!(AlterReplicaLogDirs, 1..=2, alter_replica_log_dirs),
    alone!(DescribeLogDirs, 1..=4, describe_log_dirs),
    alone!(SaslAuthenticate, 0..=2, sasl_authenticate),
    alone!(CreatePartitions, 0..=3, create_partitions),
    alone!(DeleteGroups, 0..=2, delete_groups),
    alone!(ElectLeaders, 0..=2, elect_leaders),
    alone!(IncrementalAlterConfigs, 0..=1, incremental_alter_configs),
    alone!(
        AlterPartitionReassignments,
        0..=1,
        alter_partition_reassignments
    ),
    alone!(
        ListPartitionReassignments,
        0..=0,
        list_partition_reassignments
    ),
    alone!(OffsetDelete, 0..=0, offset_delete),
    alone!(DescribeClientQuotas, 0..=1, describe_client_quotas),
    alone!(AlterClientQuotas, 0..=1, alter_client_quotas),
    alone!(
        DescribeUserScramCredentials,
        0..=0,
        describe_user_scram_credentials
    ),
    alone!(
        AlterUserScramCredentials,
        0..=0,
        alter_user_scram_credentials
    ),
    alone!(DescribeQuorum, 0..=2, describe_quorum),
    alone!(DescribeCluster, 0..=2, describe_cluster),
    alone!(DescribeProducers, 0..=0, describe_producers),
    alone!(ListConfigResources, 0..=1, list_config_resources),
    alone!(DescribeTopicPartitions, 0..=0, describe_topic_partitions),
    alone!(ShareGroupHeartbeat, 1..=1, share_group_heartbeat),
    alone!(ShareGroupDescribe, 1..=1, share_group_describe),
    waiting!(ShareFetch, 1..=2, share_fetch),
    alone!(ShareAcknowledge, 1..=2, share_acknowledge),
    alone!(
        DescribeShareGroupOffsets,
        0..=1,
        describe_share_group_offsets
    ),
    alone!(AlterShareGroupOffsets, 0..=0, alter_share_group_offsets),
    alone!(DeleteShareGroupOffsets, 0..=0, delete_share_group_offsets),
];

/// Elements of all lists of a request. No broker has as many partitions; Kafka's own bound is its memory.
const ELEMENTS_MAX: usize = 1 << 20;

/// Finds the row that serves a frame, or what to answer if none does.
pub(in crate::front::kafka) fn route(
    frame: Bytes,
    entrance: &Entrance,
    stats: &Arc<Stats>,
    answers: &Arc<Budget>,
    sessions: &Arc<Sessions>,
    peer: &Peer,
) -> Result<(Request, Run), Reply> {
    let mut body = Reader::new(frame.clone()).with_elements_bound(ELEMENTS_MAX);
    let fixed = |frame: &[u8]| -> Option<(i16, i16, i32)> {
        let key = i16::from_be_bytes(*frame.first_chunk()?);
        let version = i16::from_be_bytes(*frame.get(2..)?.first_chunk()?);
        let correlation_id = i32::from_be_bytes(*frame.get(4..)?.first_chunk()?);
        Some((key, version, correlation_id))
    };
    let (code, version, correlation_id) =
        fixed(&frame).ok_or_else(|| Reply::Close("a frame without a header".into()))?;
    let row = TABLE
        .iter()
        .find(|row| row.key.code() == code)
        .ok_or_else(|| Reply::Unsupported(Unsupported::new(code, version, &frame)))?;
    if !row.served.contains(&version) {
        return Err(match row.key {
            // The one key that is answered in any version: this is how a client learns what it may ask.
            ApiKey::ApiVersions => {
                let answer = api_versions::unsupported_version(TABLE);
                encode(stats, correlation_id, 0, &answer)
            }
            _ => Reply::Unsupported(Unsupported::new(code, version, &frame)),
        });
    }
    let header = RequestHeader::decode(&mut body).map_err(|error| {
        Reply::Close(format!(
            "{:?} version {version}: malformed header: {error}",
            row.key
        ))
    })?;
    let caller = Caller {
        principal: peer.login.principal(),
        address: peer.address,
        client_id: header.client_id,
        protocol: Protocol::Kafka,
    };
    let call = Call {
        version,
        throttle: Throttle::of(entrance.broker(), &caller),
        door: entrance.door(caller),
        stats: stats.clone(),
        answer: Answer::new(answers),
        sessions: sessions.clone(),
        shares: peer.shares.clone(),
        endpoint: peer.login.transport().listener.clone(),
        login: peer.login.clone(),
        request_bytes: frame.len(),
        offered: TABLE,
    };
    Ok((
        Request {
            key: row.key,
            correlation_id,
            body,
            call,
        },
        row.run,
    ))
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;

    #[test]
    fn every_listed_version_is_one_that_the_codec_knows() {
        for row in TABLE {
            let known = row.key.version_min()..=row.key.version_max();
            assert!(
                known.contains(row.served.start()) && known.contains(row.served.end()),
                "{:?}",
                row.key
            );
            assert!(
                row.listed.start() <= row.served.start() && row.listed.end() == row.served.end(),
                "{:?}",
                row.key
            );
        }
    }

    #[test]
    fn the_compatibility_page_lists_the_table() {
        let mut rows: Vec<&Row> = TABLE.iter().collect();
        rows.sort_by_key(|row| row.key.code());
        let mut table = String::from("| key | API | listed | served |\n|---:|---|---|---|\n");
        let range = |it: &RangeInclusive<i16>| match (it.start(), it.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first} to {last}"),
        };
        for row in rows {
            let (listed, served) = (range(&row.listed), range(&row.served));
            let (code, name) = (row.key.code(), row.key.name());
            table += &format!("| {code} | {name} | {listed} | {served} |\n");
        }
        let page = include_str!("../../../../docs/COMPATIBILITY.md");
        let wanted = format!("<!-- api keys -->\n\n{table}\n");
        assert!(page.contains(&wanted), "the page must say:\n{wanted}");
    }

    #[test]
    fn rows_stand_once_each() {
        let mut keys: Vec<i16> = TABLE.iter().map(|row| row.key.code()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), TABLE.len());
    }
}
