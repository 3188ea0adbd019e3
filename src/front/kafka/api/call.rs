//! One request on its way to its handler, and its answer on the way back.
//! Callers: the table, which makes a [`Request`] of a frame; the handlers, which get a [`Call`] with each message; `connection`,
//! which sends the [`Reply`].

use std::future::Future;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use model::PartitionId;
use model::quota::Quota;
use wire::{ApiKey, Reader, Response};

use crate::broker::access::Door;
use crate::broker::quotas::Mutation;
use crate::broker::{Broker, NodeId, Refusal, Topic};
use crate::front::budget::Claim;
use crate::front::kafka::answer::Answer;
use crate::front::kafka::login::Login;
use crate::front::kafka::sessions::Sessions;
use crate::front::kafka::share_sessions::ConnectionShares;
use crate::front::kafka::stats::Stats;
use crate::front::kafka::throttle::{Throttle, timed};
use crate::front::kafka::unsupported::Unsupported;
use crate::front::listener::Endpoint;

/// Requests up to this are read and answered in what every connection may hold.
const SMALL_BYTES: usize = 1024;
/// From this size on, a request is not kept waiting for data: it holds memory that others may need.
const LARGE_BYTES: usize = 64 * 1024;
/// A byte of a request becomes as many bytes of memory at most: four that name a partition become an answer with an error
/// and its text.
const INFLATION: usize = 32;

/// What goes back for one request.
pub(in crate::front::kafka) enum Reply {
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
pub(in crate::front::kafka) enum Run {
    /// Takes effect when the outer future is done; the inner one is its reply. The next request may start meanwhile.
    Pipelined(fn(Request) -> BoxFuture<'static, BoxFuture<'static, Reply>>),
    /// Alone on its connection, and never broken off in the middle.
    Alone(fn(Request) -> BoxFuture<'static, Reply>),
    /// Alone on its connection, and dropped when nobody waits for it any more.
    Waiting(fn(Request) -> BoxFuture<'static, Reply>),
}

/// One offered API key.
pub(super) struct Row {
    pub(super) key: ApiKey,
    /// What ApiVersions says.
    pub(super) listed: RangeInclusive<i16>,
    /// What is decoded. Narrower than `listed` only for Produce: clients look for version 0 to learn which codecs a
    /// broker knows, and Kafka lists it although it is gone (apache/kafka#18727).
    pub(super) served: RangeInclusive<i16>,
    pub(super) run: Run,
}

/// One request whose header is read.
pub(in crate::front::kafka) struct Request {
    /// What is asked for.
    pub(in crate::front::kafka) key: ApiKey,
    pub(super) correlation_id: i32,
    pub(super) body: Reader,
    pub(super) call: Call,
}

/// Who asks, as far as its connection knows.
pub(in crate::front::kafka) struct Peer {
    /// Where it connects from.
    pub(in crate::front::kafka) address: SocketAddr,
    /// How far it is with showing who it is.
    pub(in crate::front::kafka) login: Arc<Login>,
    /// What it takes from share groups.
    pub(in crate::front::kafka) shares: Arc<ConnectionShares>,
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
    /// What the connection's members of share groups fetch from.
    pub(in crate::front::kafka) shares: Arc<ConnectionShares>,
    /// The listener that was asked.
    pub(in crate::front::kafka) endpoint: Arc<Endpoint>,
    /// What it is charged; none where no client has a quota.
    pub(in crate::front::kafka) throttle: Option<Arc<Throttle>>,
    /// How far the connection is with showing who it is.
    pub(in crate::front::kafka) login: Arc<Login>,
    /// Bytes of the request.
    pub(crate) request_bytes: usize,
    /// All that is offered.
    pub(super) offered: &'static [Row],
}

impl Call {
    /// The service's operations, which take what the door gives.
    pub(crate) fn broker(&self) -> &Broker {
        self.door.broker()
    }

    /// Charges the creation or deletion of partitions, if the client's quota allows it. From version `strict_since` on it is
    /// refused where it does not; older clients are made to wait.
    pub(crate) fn mutate(&self, partitions: u64, strict_since: i16) -> Result<(), Refusal> {
        let mutation = match self.version >= strict_since {
            true => Mutation::Strict,
            false => Mutation::Permissive,
        };
        let (wait, outcome) = match self.door.mutate(partitions, mutation) {
            Ok(wait) => (wait, Ok(())),
            Err(Refusal::QuotaExceeded { quota, wait }) => {
                (wait, Err(Refusal::QuotaExceeded { quota, wait }))
            }
            Err(other) => return Err(other),
        };
        if let Some(throttle) = &self.throttle {
            throttle.wait(Quota::ControllerMutationRate, wait);
        }
        outcome
    }

    /// Whether the request is so large that it should not wait for data.
    pub(crate) fn is_large(&self) -> bool {
        self.request_bytes > LARGE_BYTES
    }
}

impl Request {
    /// How the client calls itself.
    pub(in crate::front::kafka) fn client_id(&self) -> Option<&str> {
        self.call.door.caller().client_id.as_deref()
    }

    /// What it is charged.
    pub(in crate::front::kafka) fn throttle(&self) -> Option<Arc<Throttle>> {
        self.call.throttle.clone()
    }

    /// Whether it is answered in a second or so: all are but those that wait for other members of a group.
    pub(in crate::front::kafka) fn is_answered_soon(&self) -> bool {
        !matches!(self.key, ApiKey::JoinGroup | ApiKey::SyncGroup)
    }

    /// Holds what reading the request and answering each of its elements may take.
    pub(super) async fn hold(&self) {
        let small = match self.key {
            // What they carry is not read here, and their elements are few; a fetch may wait, and should hold nothing then.
            ApiKey::JoinGroup | ApiKey::SyncGroup => return,
            ApiKey::Fetch | ApiKey::ShareFetch => LARGE_BYTES,
            _ => SMALL_BYTES,
        };
        if self.call.request_bytes > small {
            let bytes = self.call.request_bytes.saturating_mul(INFLATION);
            self.call.answer.hold_at_most(bytes).await;
        }
    }

    /// The message, if the body is one.
    pub(super) fn decode<Q: wire::Request>(&mut self) -> Result<Q, Reply> {
        Q::decode(&mut self.body, self.call.version).map_err(|error| {
            Reply::Close(format!(
                "{:?} version {} is malformed: {error}",
                self.key, self.call.version
            ))
        })
    }
}

/// The partition with the wire's number, if the topic has it.
pub(super) fn held_partition(topic: &Topic, index: i32) -> Result<PartitionId, Refusal> {
    PartitionId::from_wire(index)
        .filter(|partition| topic.has(*partition))
        .ok_or(Refusal::UnknownTopicOrPartition)
}

/// Brokers by the wire's numbers.
pub(super) fn node_ids(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId::new).collect()
}

/// Decodes a request, runs its handler and encodes the response.
pub(super) async fn respond<Q, H, F>(mut request: Request, handler: H) -> Reply
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
    let throttle = request.call.throttle.clone();
    let mut response = timed(throttle.clone(), handler(message, request.call)).await;
    if let Some(throttle) = throttle {
        throttle.charge_work();
        response.set_throttle_time_ms(throttle.wire_ms());
    }
    match pieces(&stats, correlation_id, version, &response) {
        Ok(pieces) => {
            drop(response);
            let held = match request.key {
                // The rest is slices of the log.
                ApiKey::Fetch | ApiKey::ShareFetch => pieces.first().map_or(0, Bytes::len),
                _ => pieces.iter().map(Bytes::len).sum(),
            };
            let claim = answer.sent_as(held).await;
            Reply::Send(pieces, claim)
        }
        Err(close) => close,
    }
}

/// A response as a frame that holds next to nothing.
pub(super) fn encode<R: Response>(
    stats: &Stats,
    correlation_id: i32,
    version: i16,
    response: &R,
) -> Reply {
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
