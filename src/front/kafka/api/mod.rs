//! The API keys: one file for each key, and the one table of what is offered in which versions.
//! Callers: `connection`. ApiVersions is answered from the same table, so what is listed is what is served.
//! Adding a key is a file with `answer` in it and a row in [`TABLE`].

use std::future::Future;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use model::PartitionId;
use wire::{ApiKey, Reader, RequestHeader, Response};

use super::answer::Answer;
use super::sessions::Sessions;
use super::unsupported::Unsupported;
use crate::broker::access::{Caller, Door, Principal, Protocol};
use crate::broker::{Broker, NodeId, Refusal, Topic};
use crate::front::budget::{Budget, Claim};
use crate::front::kafka::stats::Stats;

mod alter_configs;
mod alter_partition_reassignments;
mod alter_replica_log_dirs;
mod api_versions;
mod audit;
mod config_resource;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod elect_leaders;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod operations;
mod produce;
mod sasl_authenticate;
mod sasl_handshake;
mod sync_group;

/// What goes back for one request.
pub(super) enum Reply {
    /// A whole frame, in pieces for a vectored write, and the memory that it holds if that is much.
    Send(Vec<Bytes>, Option<Claim>),
    /// Nothing: the request asked for no answer.
    Silent,
    /// The protocol has no answer to this: the connection ends, for the reason that is logged.
    Close(String),
    /// Neither has it one to a key or a version that is not offered: the connection ends, and the log says so at times.
    Unsupported(Unsupported),
}

/// How a request runs beside the others of its connection.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// Takes effect when the outer future is done; the inner one is its reply. The next request may start meanwhile.
    Pipelined(fn(Request) -> BoxFuture<'static, BoxFuture<'static, Reply>>),
    /// Alone on its connection, and never broken off in the middle.
    Alone(fn(Request) -> BoxFuture<'static, Reply>),
    /// Alone on its connection, and dropped when nobody waits for it any more.
    Waiting(fn(Request) -> BoxFuture<'static, Reply>),
}

/// One offered API key.
struct Row {
    key: ApiKey,
    /// What ApiVersions says.
    listed: RangeInclusive<i16>,
    /// What is decoded. Narrower than `listed` only for Produce: clients look for version 0 to learn which codecs a
    /// broker knows, and Kafka lists it although it is gone (apache/kafka#18727).
    served: RangeInclusive<i16>,
    run: Run,
}

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
static TABLE: &[Row] = &[
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
    alone!(DescribeQuorum, 0..=2, describe_quorum),
    alone!(DescribeCluster, 0..=2, describe_cluster),
    alone!(DescribeProducers, 0..=0, describe_producers),
    alone!(ListConfigResources, 0..=1, list_config_resources),
    alone!(DescribeTopicPartitions, 0..=0, describe_topic_partitions),
];

/// Elements of all lists of a request. No broker has as many partitions; Kafka's own bound is its memory.
const ELEMENTS_MAX: usize = 1 << 20;
/// Requests up to this are read and answered in what every connection may hold.
const SMALL_BYTES: usize = 1024;
/// From this size on, a request is not kept waiting for data: it holds memory that others may need.
const LARGE_BYTES: usize = 64 * 1024;
/// A byte of a request becomes as many bytes of memory at most: four that name a partition become an answer with an error
/// and its text.
const INFLATION: usize = 32;

/// One request whose header is read.
pub(super) struct Request {
    /// What is asked for.
    pub(super) key: ApiKey,
    correlation_id: i32,
    body: Reader,
    call: Call,
}

/// What a handler may know besides the message.
pub(crate) struct Call {
    /// The version of the request, and so of the response.
    pub(crate) version: i16,
    /// The service behind, as who asks may use it.
    pub(crate) door: Door,
    /// Where answers are counted.
    pub(in crate::front::kafka) stats: Arc<Stats>,
    /// What the answer holds in memory.
    pub(crate) answer: Arc<Answer>,
    /// What clients fetch again and again.
    pub(in crate::front::kafka) sessions: Arc<Sessions>,
    /// Bytes of the request.
    pub(crate) request_bytes: usize,
}

impl Call {
    /// The service's operations, which take what the door gives.
    pub(crate) fn broker(&self) -> &Broker {
        self.door.broker()
    }

    /// Whether the request is so large that it should not wait for data.
    pub(crate) fn is_large(&self) -> bool {
        self.request_bytes > LARGE_BYTES
    }
}

impl Request {
    /// How the client calls itself.
    pub(super) fn client_id(&self) -> Option<&str> {
        self.call.door.caller().client_id.as_deref()
    }

    /// Whether it is answered in a second or so: all are but those that wait for other members of a group.
    pub(super) fn is_answered_soon(&self) -> bool {
        !matches!(self.key, ApiKey::JoinGroup | ApiKey::SyncGroup)
    }

    /// Holds what reading the request and answering each of its elements may take.
    async fn hold(&self) {
        let small = match self.key {
            // What they carry is not read here, and their elements are few; a fetch may wait, and should hold nothing then.
            ApiKey::JoinGroup | ApiKey::SyncGroup => return,
            ApiKey::Fetch => LARGE_BYTES,
            _ => SMALL_BYTES,
        };
        if self.call.request_bytes > small {
            let bytes = self.call.request_bytes.saturating_mul(INFLATION);
            self.call.answer.hold_at_most(bytes).await;
        }
    }

    /// The message, if the body is one.
    fn decode<Q: wire::Request>(&mut self) -> Result<Q, Reply> {
        Q::decode(&mut self.body, self.call.version).map_err(|error| {
            Reply::Close(format!(
                "{:?} version {} is malformed: {error}",
                self.key, self.call.version
            ))
        })
    }
}

/// The partition with the wire's number, if the topic has it.
fn held_partition(topic: &Topic, index: i32) -> Result<PartitionId, Refusal> {
    PartitionId::from_wire(index)
        .filter(|partition| topic.has(*partition))
        .ok_or(Refusal::UnknownTopicOrPartition)
}

/// Brokers by the wire's numbers.
fn node_ids(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId::new).collect()
}

/// Finds the row that serves a frame, or what to answer if none does.
pub(super) fn route(
    frame: Bytes,
    broker: &Broker,
    stats: &Arc<Stats>,
    answers: &Arc<Budget>,
    sessions: &Arc<Sessions>,
    peer: SocketAddr,
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
                let answer = api_versions::unsupported_version();
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
        principal: Principal::Anonymous,
        address: peer,
        client_id: header.client_id,
        protocol: Protocol::Kafka,
    };
    let call = Call {
        version,
        door: broker.door(caller),
        stats: stats.clone(),
        answer: Answer::new(answers),
        sessions: sessions.clone(),
        request_bytes: frame.len(),
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

/// Decodes a request, runs its handler and encodes the response.
async fn respond<Q, H, F>(mut request: Request, handler: H) -> Reply
where
    Q: wire::Request,
    H: FnOnce(Q, Call) -> F,
    F: Future<Output = Q::Response>,
{
    request.hold().await;
    let message = match request.decode::<Q>() {
        Ok(message) => message,
        Err(close) => return close,
    };
    let (correlation_id, version) = (request.correlation_id, request.call.version);
    let answer = request.call.answer.clone();
    let stats = request.call.stats.clone();
    let response = handler(message, request.call).await;
    match pieces(&stats, correlation_id, version, &response) {
        Ok(pieces) => {
            drop(response);
            let held = match request.key {
                // The rest is slices of the log.
                ApiKey::Fetch => pieces.first().map_or(0, Bytes::len),
                _ => pieces.iter().map(Bytes::len).sum(),
            };
            let claim = answer.sent_as(held).await;
            Reply::Send(pieces, claim)
        }
        Err(close) => close,
    }
}

/// A response as a frame that holds next to nothing.
fn encode<R: Response>(stats: &Stats, correlation_id: i32, version: i16, response: &R) -> Reply {
    match pieces(stats, correlation_id, version, response) {
        Ok(pieces) => Reply::Send(pieces, None),
        Err(close) => close,
    }
}

/// A response as a frame; the errors in it are counted.
fn pieces<R: Response>(
    stats: &Stats,
    correlation_id: i32,
    version: i16,
    response: &R,
) -> Result<Vec<Bytes>, Reply> {
    match wire::frame::response_and_errors(correlation_id, version, response) {
        Ok((pieces, errors)) => {
            stats.answered_with(R::KEY, &errors);
            Ok(pieces)
        }
        Err(error) => {
            tracing::error!(key = ?R::KEY, version, %error, "a response could not be encoded");
            Err(Reply::Close(format!(
                "{:?} version {version}: the response could not be encoded: {error}",
                R::KEY
            )))
        }
    }
}

#[cfg(test)]
mod rights_tests;
#[cfg(test)]
mod tests {
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
