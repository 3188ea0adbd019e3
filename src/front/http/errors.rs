//! HTTP's error answers: `application/problem+json` (RFC 9457) with a stable `code`. The only file that chooses them.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use columnar::condition::ConditionError;
use columnar::{ColumnError, EncodeError, NewError};
use http_body_util::LengthLimitError;
use serde_json::{Value, json};

use super::produce::Stop;
use crate::broker::Refusal;
use crate::broker::access::{AclError, Principal};
use crate::broker::cleanup::{CleanupError, Fault};
use crate::broker::credentials::CredentialError;
use crate::broker::erasures::ErasureError;
use crate::broker::groups::GroupError;
use crate::broker::holds::HoldError;
use crate::broker::once::OnceRefusal;
use crate::broker::publish::PublishRefusal;
use crate::broker::replay::{DownsampleRefusal, ReplayError};
use crate::broker::share::{ShareError, TransferError};
use model::acl::UnknownWord;
use model::{Offset, PartitionId};

/// What is known of a request wherever its answer is made.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// The request's id, which problem documents name.
    pub(super) id: String,
    pub(super) form: Form,
}

/// In which form errors are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As RFC 9457 has it.
    Problem,
    /// As Confluent's REST proxy has it in version 2, in this content type.
    ProxySecond(&'static str),
    /// The same in its version 3.
    ProxyThird,
}

tokio::task_local! {
    /// The request that this task answers.
    pub(super) static ASKED: Asked;
}

fn problem(status: StatusCode, code: &str, detail: String) -> Response {
    let asked = ASKED.try_with(Asked::clone).ok();
    match asked.as_ref().map(|asked| asked.form) {
        Some(Form::ProxySecond(content_type)) => {
            return proxy_error(status, code, &detail, 40_401, content_type);
        }
        Some(Form::ProxyThird) => {
            return proxy_error(status, code, &detail, 40_403, "application/json");
        }
        Some(Form::Problem) | None => {}
    }
    let body = json!({
        "type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(), "code": code, "detail": detail,
        "request_id": asked.map(|asked| asked.id),
    });
    (
        status,
        [(header::CONTENT_TYPE, "application/problem+json")],
        Json(body),
    )
        .into_response()
}

/// An error as clients of Confluent's REST proxy know them: the codes that they tell apart, and the status for all others.
fn proxy_error(
    status: StatusCode,
    code: &str,
    detail: &str,
    unknown_topic: i32,
    content_type: &'static str,
) -> Response {
    let error_code = match code {
        "unknown_topic" => unknown_topic,
        "unknown_partition" if unknown_topic == 40_401 => 40_402,
        "unknown_partition" => unknown_topic,
        "no_json" => 42_203,
        "unknown_group" => 40_403,
        "unauthorized" => 40_101,
        "name_taken" | "invalid_topic_name" | "invalid_layout" | "invalid_setting" => 40_002,
        "storage" | "disk_full" | "damaged" => 50_002,
        _ => i32::from(status.as_u16()),
    };
    let body = json!({ "error_code": error_code, "message": detail });
    (status, [(header::CONTENT_TYPE, content_type)], Json(body)).into_response()
}

/// Why a request does not reach its route.
#[derive(Debug, thiserror::Error)]
pub(super) enum Turned {
    /// The server stops.
    #[error("the server stops; ask again when it is back")]
    Stopping,
    /// Too many are being answered.
    #[error("too many requests are being answered; ask again in a moment")]
    Overloaded,
    /// HTTP/1.1 without `Host`.
    #[error("a request of HTTP/1.1 says in Host whom it is for")]
    NoHost,
    /// A name that is not this server's.
    #[error(
        "this server is not called {0:?}: the setting http.hosts names what it is called beside its addresses"
    )]
    UnknownHost(String),
    /// A path that is too long.
    #[error("a path with its query has {bytes_max} bytes at most")]
    LongUri {
        /// The bound.
        bytes_max: usize,
    },
    /// Headers that are too long.
    #[error("the headers of a request have {bytes_max} bytes at most")]
    LongHeaders {
        /// The bound.
        bytes_max: usize,
    },
    /// A page of another origin.
    #[error(
        "a browser sends this for a page of another origin ({0:?}): the setting http.cors.allow.origins names those that may"
    )]
    CrossSite(String),
    /// What the request shows is no good.
    #[error("the login failed: the server does not take what Authorization says")]
    LoginFailed,
    /// A password where others can read it.
    #[error(
        "this connection is not encrypted: Authorization is taken over https, or from the server's own machine, only"
    )]
    NotEncrypted,
    /// Nothing that is accepted can be answered.
    #[error("this is answered as {0}, and the request accepts something else")]
    NotAcceptable(String),
}

/// A request does not reach its route.
pub(super) fn turned(why: &Turned) -> Response {
    let (status, code) = match why {
        Turned::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        Turned::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        Turned::NoHost => (StatusCode::BAD_REQUEST, "no_host"),
        Turned::UnknownHost(_) => (StatusCode::MISDIRECTED_REQUEST, "unknown_host"),
        Turned::LongUri { .. } => (StatusCode::URI_TOO_LONG, "uri_too_long"),
        Turned::LongHeaders { .. } => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
        ),
        Turned::LoginFailed => (StatusCode::UNAUTHORIZED, "unauthorized"),
        Turned::NotEncrypted => (StatusCode::FORBIDDEN, "not_encrypted"),
        Turned::CrossSite(_) => (StatusCode::FORBIDDEN, "cross_site"),
        Turned::NotAcceptable(_) => (StatusCode::NOT_ACCEPTABLE, "not_acceptable"),
    };
    let answer = problem(status, code, why.to_string());
    match why {
        Turned::Stopping => later(answer, "5"),
        Turned::Overloaded => later(answer, "1"),
        _ => answer,
    }
}

/// The same answer, which says in how many seconds to ask again.
fn later(mut answer: Response, seconds: &'static str) -> Response {
    let headers = answer.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
    answer
}

/// The same answer, which says to ask again after so long, in whole seconds.
pub(super) fn later_by(mut answer: Response, wait: Duration) -> Response {
    let seconds = wait.as_millis().div_ceil(1000);
    let seconds = HeaderValue::from_str(&seconds.to_string()).expect("digits");
    answer.headers_mut().insert(header::RETRY_AFTER, seconds);
    answer
}

/// Nothing more is to be said.
/// A path behind which nothing is served, as the settings say.
pub(super) fn not_offered(why: &str) -> Response {
    problem(StatusCode::NOT_FOUND, "not_found", why.to_owned())
}

/// A request that is no upgrade to WebSocket.
pub(super) fn no_web_socket(why: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, "no_web_socket", why.to_owned())
}

/// An upgrade that does not name the subprotocol.
pub(super) fn no_subprotocol(wanted: &str) -> Response {
    let why = format!("Sec-WebSocket-Protocol must name {wanted}");
    problem(StatusCode::BAD_REQUEST, "no_subprotocol", why)
}

pub(super) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// What the broker refuses.
pub(super) fn refused(refusal: &Refusal) -> Response {
    let (status, code) = of_refusal(refusal);
    let answer = problem(status, code, refusal.to_string());
    if let Refusal::QuotaExceeded { wait, .. } = refusal {
        return later_by(answer, *wait);
    }
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => later(answer, "10"),
        StatusCode::INSUFFICIENT_STORAGE => later(answer, "60"),
        _ => answer,
    }
}

fn of_refusal(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        // A login may help.
        Refusal::Denied {
            principal: Principal::Anonymous,
            ..
        } => (StatusCode::UNAUTHORIZED, "unauthorized"),
        Refusal::Denied { .. } => (StatusCode::FORBIDDEN, "denied"),
        Refusal::UnknownTopicOrPartition | Refusal::UnknownTopicId => {
            (StatusCode::NOT_FOUND, "unknown_topic")
        }
        Refusal::InvalidTopicName(_) => (StatusCode::BAD_REQUEST, "invalid_topic_name"),
        Refusal::CollidingTopicName { .. }
        | Refusal::ReservedTopicName { .. }
        | Refusal::TopicExists { .. } => (StatusCode::CONFLICT, "name_taken"),
        Refusal::InternalTopic { .. } => (StatusCode::FORBIDDEN, "internal_topic"),
        Refusal::TopicNamedTwice { .. } | Refusal::SettingAlteredTwice { .. } => {
            (StatusCode::BAD_REQUEST, "named_twice")
        }
        Refusal::InvalidPartitions(_)
        | Refusal::InvalidReplicationFactor(_)
        | Refusal::InvalidReplicaAssignment(_) => (StatusCode::BAD_REQUEST, "invalid_layout"),
        Refusal::InvalidSetting(_) | Refusal::SettingNeedsRestart { .. } => {
            (StatusCode::BAD_REQUEST, "invalid_setting")
        }
        Refusal::DeletesForbidden { .. } => (StatusCode::CONFLICT, "deletes_forbidden"),
        Refusal::Held { .. } => (StatusCode::CONFLICT, "held"),
        Refusal::QuotaExceeded { .. } => (StatusCode::TOO_MANY_REQUESTS, "quota_exceeded"),
        Refusal::TooManyPartitions(_)
        | Refusal::TooManyProducers { .. }
        | Refusal::TooManyProducerIds { .. } => (StatusCode::TOO_MANY_REQUESTS, "limit_reached"),
        Refusal::OffsetOutOfRange { .. } => {
            (StatusCode::RANGE_NOT_SATISFIABLE, "offset_out_of_range")
        }
        Refusal::FencedLeaderEpoch | Refusal::UnknownLeaderEpoch => {
            (StatusCode::CONFLICT, "leader_epoch")
        }
        Refusal::BatchTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "batch_too_large"),
        Refusal::CorruptBatch(_)
        | Refusal::InvalidRecord(_)
        | Refusal::InvalidTimestamp(_)
        | Refusal::UnsupportedCompression(_) => (StatusCode::BAD_REQUEST, "invalid_batch"),
        Refusal::Sequence(_) | Refusal::ForeignProducerId { .. } => {
            (StatusCode::CONFLICT, "sequence")
        }
        Refusal::NotEnoughReplicas { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "not_enough_replicas")
        }
        Refusal::TransactionsUnsupported => {
            (StatusCode::NOT_IMPLEMENTED, "transactions_unsupported")
        }
        Refusal::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
        Refusal::Storage(_) => (StatusCode::SERVICE_UNAVAILABLE, "storage"),
        Refusal::Damaged { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "damaged"),
    }
}

fn of_publish(refusal: &PublishRefusal) -> (StatusCode, &'static str) {
    match refusal {
        PublishRefusal::Record(_) => (StatusCode::UNPROCESSABLE_ENTITY, "records_refused"),
        PublishRefusal::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "batch_too_large"),
        PublishRefusal::TooMuch { .. } | PublishRefusal::Retained(_) => {
            (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large")
        }
        PublishRefusal::Refused(refusal) => of_refusal(refusal),
        PublishRefusal::Abandoned => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    }
}

/// A body of records that was not taken, or not all of it; `fields` say what was written of it.
pub(super) fn stopped(stop: &Stop, fields: serde_json::Map<String, Value>) -> Response {
    let (status, code) = of_stop(stop);
    let mut body = json!({
        "type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(), "code": code,
        "detail": stop.to_string(), "request_id": ASKED.try_with(|asked| asked.id.clone()).ok(),
    });
    if let Some(body) = body.as_object_mut() {
        body.extend(fields);
    }
    let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
    let mut answer = (status, content_type, Json(body)).into_response();
    let may_be_tried_again = [
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::INSUFFICIENT_STORAGE,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::CONFLICT,
    ]
    .contains(&status);
    if may_be_tried_again {
        let retry = HeaderValue::from_static("5");
        answer.headers_mut().insert(header::RETRY_AFTER, retry);
    }
    answer
}

fn of_stop(stop: &Stop) -> (StatusCode, &'static str) {
    match stop {
        Stop::Refused(refusal) => of_publish(refusal),
        Stop::SomeRefused { .. } | Stop::AllRefused { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "records_refused")
        }
        Stop::Body(_) => (StatusCode::BAD_REQUEST, "invalid_body"),
        Stop::Query(_) => (StatusCode::BAD_REQUEST, "invalid_query"),
        Stop::Late { .. } => (StatusCode::REQUEST_TIMEOUT, "body_late"),
        Stop::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
        Stop::Inflates { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_inflates"),
        Stop::Encoding(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding"),
        Stop::ContentType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
        Stop::Once(OnceRefusal::Running) => (StatusCode::CONFLICT, "idempotency_key_running"),
        Stop::Once(OnceRefusal::OtherPayload) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused")
        }
        Stop::Once(OnceRefusal::TooMany { .. }) => {
            (StatusCode::TOO_MANY_REQUESTS, "too_many_idempotency_keys")
        }
        Stop::Once(OnceRefusal::InvalidKey { .. }) => {
            (StatusCode::BAD_REQUEST, "invalid_idempotency_key")
        }
        Stop::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
    }
}

/// Why a request of the REST proxy is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyFault {
    /// Anything that ends a body, in version 2.
    #[error(transparent)]
    Second(Stop),
    /// The same in version 3.
    #[error(transparent)]
    Third(Stop),
    /// The path names a partition that is not there.
    #[error("Partition not found.")]
    UnknownPartition,
    /// The path names another cluster.
    #[error("Cluster {0} cannot be found.")]
    UnknownCluster(String),
    /// The body is not as version 2 has it.
    #[error("{0}")]
    Invalid(String),
    /// The body is not as version 3 has it.
    #[error("{0}")]
    InvalidThird(String),
    /// A content type that is not taken.
    #[error("HTTP 415 Unsupported Media Type: {0:?}")]
    ContentType(String),
}

/// Version 3's code of a record that is none.
pub(super) const PROXY_INVALID_RECORD: u32 = 400;

/// The code of a record that is not written, in version 2.
pub(super) fn proxy_code_second(refusal: &PublishRefusal) -> u32 {
    match refusal {
        PublishRefusal::Refused(refusal) => match &**refusal {
            Refusal::UnknownTopicOrPartition => 40402,
            Refusal::Denied { .. } | Refusal::InternalTopic { .. } => 40301,
            Refusal::DiskFull | Refusal::Storage(_) | Refusal::NotEnoughReplicas { .. } => 50003,
            _ => 50002,
        },
        PublishRefusal::Abandoned => 50003,
        PublishRefusal::Record(_)
        | PublishRefusal::TooLarge { .. }
        | PublishRefusal::Retained(_)
        | PublishRefusal::TooMuch { .. } => 50002,
    }
}

/// The same in version 3, which has HTTP's statuses as codes.
pub(super) fn proxy_code_third(refusal: &PublishRefusal) -> u32 {
    match refusal {
        PublishRefusal::Record(_) => PROXY_INVALID_RECORD,
        PublishRefusal::Refused(refusal)
            if matches!(**refusal, Refusal::UnknownTopicOrPartition) =>
        {
            40403
        }
        other => u32::from(of_publish(other).0.as_u16()),
    }
}

fn of_proxy(fault: &ProxyFault) -> (StatusCode, u32) {
    let plain = |status: StatusCode| (status, u32::from(status.as_u16()));
    match fault {
        ProxyFault::Second(Stop::Refused(refusal)) => match proxy_code_second(refusal) {
            40301 if of_publish(refusal).0 == StatusCode::UNAUTHORIZED => {
                (StatusCode::UNAUTHORIZED, 40101)
            }
            40402 => (StatusCode::NOT_FOUND, 40401),
            40301 => (StatusCode::FORBIDDEN, 40301),
            // What the client is to blame for is no error of the server.
            code => match of_publish(refusal).0 {
                status if status.is_client_error() => plain(status),
                _ => (StatusCode::INTERNAL_SERVER_ERROR, code),
            },
        },
        ProxyFault::Second(Stop::Late { .. }) => (StatusCode::REQUEST_TIMEOUT, 40801),
        ProxyFault::Second(Stop::Body(_)) | ProxyFault::Invalid(_) => {
            plain(StatusCode::UNPROCESSABLE_ENTITY)
        }
        ProxyFault::Third(Stop::Refused(refusal)) => {
            (of_publish(refusal).0, proxy_code_third(refusal))
        }
        ProxyFault::Second(stop) | ProxyFault::Third(stop) => plain(of_stop(stop).0),
        ProxyFault::UnknownPartition => (StatusCode::NOT_FOUND, 40402),
        ProxyFault::UnknownCluster(_) => plain(StatusCode::NOT_FOUND),
        ProxyFault::InvalidThird(_) => plain(StatusCode::BAD_REQUEST),
        ProxyFault::ContentType(_) => plain(StatusCode::UNSUPPORTED_MEDIA_TYPE),
    }
}

/// The code of what ends an answer of version 3 that has begun.
pub(super) fn proxy_code(fault: &ProxyFault) -> u32 {
    of_proxy(fault).1
}

/// An error as Confluent's REST proxy tells it.
pub(super) fn proxy_refused(fault: &ProxyFault, content_type: &'static str) -> Response {
    let (status, code) = of_proxy(fault);
    let message = match code {
        40401 => "Topic not found.".to_owned(),
        _ => fault.to_string(),
    };
    let body = json!({ "error_code": code, "message": message });
    let content_type = [(header::CONTENT_TYPE, content_type)];
    (status, content_type, body.to_string()).into_response()
}

/// An answer whose parts have statuses of their own.
pub(super) fn multi_status(body: String) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::MULTI_STATUS, content_type, body).into_response()
}

/// A cleanup that is not planned or run.
fn cleanup_refused(error: &CleanupError) -> Response {
    let (status, code) = match error {
        CleanupError::Refused(refusal) => return refused(refusal),
        CleanupError::Fault(fault) => of_fault(fault),
        CleanupError::TooManyJobs { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_jobs"),
        CleanupError::UnknownJob { .. } => (StatusCode::NOT_FOUND, "unknown_job"),
    };
    let answer = problem(status, code, error.to_string());
    match error {
        CleanupError::TooManyJobs { .. } => later(answer, "10"),
        _ => answer,
    }
}

/// An erasure that is not taken, shown or cancelled.
fn erasure_refused(error: &ErasureError) -> Response {
    let (status, code) = match error {
        ErasureError::Refused(refusal) => return refused(refusal),
        ErasureError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_erasure"),
        ErasureError::TooMany { .. } | ErasureError::TooManyReceipts => {
            (StatusCode::TOO_MANY_REQUESTS, "too_many_erasures")
        }
        ErasureError::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_erasure"),
        ErasureError::NoReceipt(_) => (StatusCode::NOT_FOUND, "no_receipt"),
        ErasureError::TooLate(_) => (StatusCode::CONFLICT, "erasure_over"),
    };
    problem(status, code, error.to_string())
}

fn of_credential(error: &CredentialError) -> (StatusCode, &'static str) {
    match error {
        CredentialError::Refused(refusal) => of_refusal(refusal),
        CredentialError::User(_)
        | CredentialError::Unacceptable(_)
        | CredentialError::About(_)
        | CredentialError::Expired => (StatusCode::BAD_REQUEST, "invalid_user"),
        CredentialError::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too_many_users"),
        CredentialError::Exists(_) => (StatusCode::CONFLICT, "user_exists"),
        CredentialError::Unknown | CredentialError::NoUser(_) => {
            (StatusCode::NOT_FOUND, "unknown_user")
        }
        CredentialError::NoToken(_) => (StatusCode::NOT_FOUND, "unknown_token"),
    }
}

fn of_fault(fault: &Fault) -> (StatusCode, &'static str) {
    match fault {
        Fault::NoLog(_) => (StatusCode::NOT_FOUND, "unknown_topic"),
        Fault::NotOfOneLog(_) => (StatusCode::BAD_REQUEST, "policy_of_the_store"),
        Fault::Cancelled => (StatusCode::CONFLICT, "cancelled"),
        Fault::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
        Fault::StartNotRaised(_) | Fault::Failed(_) => (StatusCode::SERVICE_UNAVAILABLE, "storage"),
    }
}

/// A group that refuses.
fn group_refused(error: GroupError) -> Response {
    let (status, code) = match error {
        GroupError::NotFound => (StatusCode::NOT_FOUND, "unknown_group"),
        GroupError::InvalidGroupId => (StatusCode::BAD_REQUEST, "invalid_group"),
        GroupError::NonEmpty { .. } => (StatusCode::CONFLICT, "group_not_empty"),
        GroupError::SubscribedToTopic => (StatusCode::CONFLICT, "group_subscribed"),
        GroupError::UnknownMember { .. }
        | GroupError::FencedInstance { .. }
        | GroupError::IllegalGeneration { .. }
        | GroupError::RebalanceInProgress
        | GroupError::InconsistentProtocol
        | GroupError::InvalidSessionTimeout { .. }
        | GroupError::MemberIdRequired => (StatusCode::CONFLICT, "group_membership"),
        GroupError::MaxSizeReached | GroupError::OffsetsMaxReached => {
            (StatusCode::TOO_MANY_REQUESTS, "limit_reached")
        }
        GroupError::MetadataTooLarge { .. } => {
            (StatusCode::PAYLOAD_TOO_LARGE, "metadata_too_large")
        }
        GroupError::NotAvailable => (StatusCode::SERVICE_UNAVAILABLE, "group_not_available"),
    };
    let answer = problem(status, code, error.to_string());
    match status {
        StatusCode::SERVICE_UNAVAILABLE => later(answer, "1"),
        StatusCode::TOO_MANY_REQUESTS => later(answer, "10"),
        _ => answer,
    }
}

/// A group that shares records, and refuses.
fn share_refused(error: ShareError) -> Response {
    let (status, code) = match error {
        ShareError::NotFound => (StatusCode::NOT_FOUND, "unknown_queue"),
        ShareError::InvalidGroupId => (StatusCode::BAD_REQUEST, "invalid_group"),
        ShareError::OtherKind => (StatusCode::CONFLICT, "other_group"),
        ShareError::NonEmpty => (StatusCode::CONFLICT, "group_not_empty"),
        ShareError::Invalid(_)
        | ShareError::UnknownMember
        | ShareError::FencedEpoch
        | ShareError::NotRenewed
        | ShareError::NotHeld(_) => (StatusCode::CONFLICT, "group_membership"),
        ShareError::MaxSizeReached | ShareError::OffsetsMaxReached => {
            (StatusCode::TOO_MANY_REQUESTS, "limit_reached")
        }
        ShareError::NotAvailable => (StatusCode::SERVICE_UNAVAILABLE, "group_not_available"),
    };
    let answer = problem(status, code, error.to_string());
    match status {
        StatusCode::SERVICE_UNAVAILABLE => later(answer, "1"),
        StatusCode::TOO_MANY_REQUESTS => later(answer, "10"),
        _ => answer,
    }
}

/// Messages that are not moved.
fn transfer_refused(error: TransferError) -> Response {
    match error {
        TransferError::Group(error) => share_refused(error),
        TransferError::Read(error) => Failure::Replay(error).into_response(),
        TransferError::Publish(refusal) => {
            let (status, code) = of_publish(&refusal);
            problem(status, code, refusal.to_string())
        }
        TransferError::SameTopic => {
            problem(StatusCode::BAD_REQUEST, "same_topic", error.to_string())
        }
    }
}

/// The code of what went wrong with one partition of a job.
pub(super) fn cleanup_code(fault: &Fault) -> &'static str {
    let (_, code) = of_fault(fault);
    code
}

/// What was asked for goes on in the background: the same answer, as one that says so.
pub(super) fn accepted(mut answer: Response) -> Response {
    *answer.status_mut() = StatusCode::ACCEPTED;
    answer
}

/// A part of what was asked for: the same answer, as one that says so.
pub(super) fn partial(mut answer: Response) -> Response {
    *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    answer
}

/// The reader has it: the same answer, as one that says so. It must have no body.
pub(super) fn not_modified(mut answer: Response) -> Response {
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    answer
}

/// Something new is there: the same answer, as one that says so.
pub(super) fn created(mut answer: Response) -> Response {
    *answer.status_mut() = StatusCode::CREATED;
    answer
}

/// Why a request of the API has no good answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// A cleanup that is not planned or run.
    #[error(transparent)]
    Cleanup(#[from] CleanupError),
    /// A rule that is not told, made or removed.
    #[error(transparent)]
    Acl(#[from] AclError),
    /// A user or token that is not changed.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// A word of a rule that says nothing.
    #[error(transparent)]
    AclWord(#[from] UnknownWord),
    /// All rules would go.
    #[error("say which rules are to go")]
    AllAcls,
    /// A hold that is not added or removed.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// A replay that does not begin, or does not go on.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A topic that is not told in windows.
    #[error(transparent)]
    Downsample(DownsampleRefusal),
    /// A condition that cannot be read.
    #[error(transparent)]
    Condition(#[from] ConditionError),
    /// Columns that cannot be.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// Rows that cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A version of a topic's schema that there was not yet.
    #[error("the topic's schema has no version {version}; the newest is {newest}")]
    NoSchemaVersion {
        /// What was asked for.
        version: u32,
        /// What there is.
        newest: u32,
    },
    /// A file that is not there, or whose records are not as they were.
    #[error("there is no file {0:?}; the list has those that there are")]
    NoFile(String),
    /// A session that is not kept.
    #[error("no session of the client {0:?} is kept")]
    NoMqttSession(String),
    /// No files are made.
    #[error("no files are made: http.files.bytes is 0")]
    FilesDisabled,
    /// The file is not the one that the request is about.
    #[error("the file has another ETag than If-Match names")]
    FileChanged,
    /// The file has no such bytes.
    #[error("the file has {bytes} bytes, and none of those that Range names")]
    Range {
        /// How many it has.
        bytes: u64,
    },
    /// As many replays run as may.
    #[error("{replays_max} replays run, and no more may; one of them will end")]
    TooManyReplays {
        /// The bound.
        replays_max: usize,
    },
    /// A partition that the topic does not have.
    #[error("the topic has no partition {0}")]
    NoPartition(String),
    /// An erasure that is not taken, shown or cancelled.
    #[error(transparent)]
    Erasure(#[from] ErasureError),
    /// The part of the path behind `?` is not as it must be.
    #[error("{0}")]
    Query(String),
    /// A partition that the topic does not have.
    #[error("the topic has no partition {partition}")]
    UnknownPartition {
        /// Its number.
        partition: PartitionId,
    },
    /// A cluster that is not this one.
    #[error("this is not the cluster {0:?}")]
    UnknownCluster(String),
    /// A setting that there is not.
    #[error("there is no setting {0:?}")]
    UnknownSetting(String),
    /// A key or value that is to be shown as JSON.
    #[error(
        "the key or value at offset {offset} is no JSON: ask for application/vnd.kafka.binary.v2+json"
    )]
    NoJson {
        /// Where.
        offset: Offset,
    },
    /// A group that refuses.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A group that shares records, and refuses.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// Messages that are not moved.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The group has committed nothing there.
    #[error("the group has committed no offset of this partition")]
    UnknownOffset,
    /// A text that is no place in a log.
    #[error("{0}")]
    Place(String),
    /// The path names something that cannot be.
    #[error("{0}")]
    Path(String),
    /// The body is JSON of another shape, or no JSON, or broke off.
    #[error("{0}")]
    Body(String),
    /// The body says that it is something else.
    #[error("the body must be application/json, and its content type is {0:?}")]
    NotJson(String),
    /// The body is longer than it may be.
    #[error("a body has {bytes_max} bytes at most")]
    BodyTooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// The body did not come.
    #[error("the body did not come within {seconds_max} s")]
    BodyLate {
        /// The bound.
        seconds_max: u64,
    },
    /// The server could not.
    #[error(transparent)]
    Internal(#[from] std::io::Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Cleanup(refusal.into())
    }
}

impl From<DownsampleRefusal> for Failure {
    fn from(refusal: DownsampleRefusal) -> Failure {
        match refusal {
            DownsampleRefusal::Replay(error) => Failure::Replay(error),
            other => Failure::Downsample(other),
        }
    }
}

impl From<NewError> for Failure {
    fn from(error: NewError) -> Failure {
        match error {
            NewError::Column(error) => Failure::Column(error),
            NewError::Encode(error) => Failure::Encode(error),
        }
    }
}

impl Failure {
    /// What could not be read of a body that is bounded so.
    pub(super) fn unread(error: axum::Error, bytes_max: usize) -> Failure {
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            if error.is::<LengthLimitError>() {
                return Failure::BodyTooLarge { bytes_max };
            }
            cause = error.source();
        }
        Failure::Body(format!("the body could not be read: {error}"))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let detail = self.to_string();
        let (status, code) = match self {
            Failure::Cleanup(error) => return cleanup_refused(&error),
            Failure::Acl(AclError::Refused(refusal)) => return refused(&refusal),
            Failure::Acl(AclError::Off) => (StatusCode::CONFLICT, "no_access_control"),
            Failure::Acl(AclError::TooMany) => (StatusCode::TOO_MANY_REQUESTS, "too_many_acls"),
            Failure::Acl(AclError::Invalid(_)) | Failure::AclWord(_) | Failure::AllAcls => {
                (StatusCode::BAD_REQUEST, "invalid_acl")
            }
            Failure::Credential(CredentialError::Refused(refusal)) => return refused(&refusal),
            Failure::Credential(error) => of_credential(&error),
            Failure::Hold(HoldError::Refused(refusal)) => return refused(&refusal),
            Failure::Hold(HoldError::Invalid(_)) => (StatusCode::BAD_REQUEST, "invalid_hold"),
            Failure::Hold(HoldError::TooMany) => (StatusCode::TOO_MANY_REQUESTS, "too_many_holds"),
            Failure::Hold(HoldError::Unknown(_)) => (StatusCode::NOT_FOUND, "unknown_hold"),
            Failure::Replay(ReplayError::Refused(refusal)) => return refused(&refusal),
            Failure::Replay(ReplayError::NoPartition { .. }) | Failure::NoPartition(_) => {
                (StatusCode::NOT_FOUND, "unknown_partition")
            }
            Failure::Downsample(DownsampleRefusal::Replay(_)) => {
                unreachable!("a replay's errors are told as such")
            }
            Failure::Downsample(DownsampleRefusal::TooManyWindows) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_many_windows")
            }
            Failure::Downsample(DownsampleRefusal::Unsettled) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return later(problem(status, "cleanup_at_work", detail), "1");
            }
            Failure::Condition(_) => (StatusCode::BAD_REQUEST, "invalid_condition"),
            Failure::Column(ColumnError::Unknown { .. }) => {
                (StatusCode::BAD_REQUEST, "unknown_column")
            }
            Failure::Column(_) => (StatusCode::BAD_REQUEST, "invalid_query"),
            Failure::NoSchemaVersion { .. } => (StatusCode::NOT_FOUND, "unknown_schema_version"),
            Failure::NoFile(_) => (StatusCode::NOT_FOUND, "unknown_file"),
            Failure::NoMqttSession(_) => (StatusCode::NOT_FOUND, "unknown_mqtt_session"),
            Failure::FilesDisabled => (StatusCode::NOT_FOUND, "files_disabled"),
            Failure::FileChanged => (StatusCode::PRECONDITION_FAILED, "file_changed"),
            Failure::Range { bytes } => {
                let status = StatusCode::RANGE_NOT_SATISFIABLE;
                let mut answer = problem(status, "range_not_satisfiable", detail);
                let all = HeaderValue::try_from(format!("bytes */{bytes}")).expect("digits");
                answer.headers_mut().insert(header::CONTENT_RANGE, all);
                return answer;
            }
            Failure::TooManyReplays { .. } => {
                let mut answer =
                    problem(StatusCode::SERVICE_UNAVAILABLE, "too_many_replays", detail);
                let retry = HeaderValue::from_static("1");
                answer.headers_mut().insert(header::RETRY_AFTER, retry);
                return answer;
            }
            Failure::Encode(error) => return internal(&error),
            Failure::Erasure(error) => return erasure_refused(&error),
            Failure::Internal(error) => return internal(&error),
            Failure::UnknownPartition { .. } => (StatusCode::NOT_FOUND, "unknown_partition"),
            Failure::UnknownCluster(_) => (StatusCode::NOT_FOUND, "unknown_cluster"),
            Failure::UnknownSetting(_) => (StatusCode::NOT_FOUND, "unknown_setting"),
            Failure::NoJson { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "no_json"),
            Failure::UnknownOffset => (StatusCode::NOT_FOUND, "unknown_offset"),
            Failure::Group(error) => return group_refused(error),
            Failure::Share(error) => return share_refused(error),
            Failure::Transfer(error) => return transfer_refused(error),
            Failure::Place(_) => (StatusCode::BAD_REQUEST, "invalid_place"),
            Failure::Path(_) => (StatusCode::BAD_REQUEST, "invalid_path"),
            Failure::Query(_) => (StatusCode::BAD_REQUEST, "invalid_query"),
            Failure::Body(_) => (StatusCode::BAD_REQUEST, "invalid_body"),
            Failure::NotJson(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Failure::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Failure::BodyLate { .. } => (StatusCode::REQUEST_TIMEOUT, "body_late"),
        };
        problem(status, code, detail)
    }
}

/// Something that should not happen did.
pub(super) fn internal(error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "an HTTP request failed");
    problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "the request failed; the server's log says why".to_owned(),
    )
}

/// The same answer, as one that says: not now.
pub(super) fn unavailable(mut answer: Response) -> Response {
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer
}

/// Whether the answer is that a login may help.
pub(super) fn wants_login(answer: &Response) -> bool {
    answer.status() == StatusCode::UNAUTHORIZED
}

/// No such path.
pub(super) async fn not_found(uri: Uri) -> Response {
    problem(
        StatusCode::NOT_FOUND,
        "not_found",
        format!("nothing is served at {}", uri.path()),
    )
}

/// The path is there, for another method.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{} does not take {method}", uri.path()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::access::{ResourceKind, Right};

    #[test]
    fn who_has_no_right_is_told_so_and_what_is_not_there_is_not_found() {
        let denied = Refusal::Denied {
            principal: Principal::User("alice".into()),
            right: Right::Alter,
            resource: ResourceKind::Cluster,
        };
        assert_eq!(refused(&denied).status(), StatusCode::FORBIDDEN);
        let anonymous = Refusal::Denied {
            principal: Principal::Anonymous,
            right: Right::Alter,
            resource: ResourceKind::Cluster,
        };
        assert_eq!(refused(&anonymous).status(), StatusCode::UNAUTHORIZED);
        let unknown = Refusal::UnknownTopicOrPartition;
        assert_eq!(refused(&unknown).status(), StatusCode::NOT_FOUND);
    }
}
