//! Cleanup over HTTP, below `/api/v1/cleanup`: plans, and jobs that run them. The page `docs/http-api.md` describes each route.
//!
//! Callers: `http::routes`. Invariants: a body is read as far as [`BODY_BYTES_MAX`] and [`BODY_TIME_MAX`] go; unknown fields are
//! refused; a body is only taken as `application/json`, which a page of another site cannot have a browser send without asking
//! this server first. Few plans are made at a time, so that who asks for many holds no more memory than a page of metrics does.

mod json;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use model::PartitionId;
use serde::Deserialize;

use super::{Front, errors, in_pieces, on_own_thread, place_for};
use crate::broker::access::right;
use crate::broker::cleanup::{CleanupError, JobId, Policy, Selection};

/// The longest body of a request.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// How long a body may take to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a request waits for the end of a job at most: less than a stopping server waits for its connections.
const WAIT_MS_MAX: u64 = 2_000;

/// What a cleanup would do, or what holds it back.
const PLAN: &str = "/api/v1/cleanup/plan";
/// Runs of cleanups.
pub(super) const JOBS: &str = "/api/v1/cleanup/jobs";
/// One of them.
const JOB: &str = "/api/v1/cleanup/jobs/{id}";

pub(super) fn routes() -> Router<Arc<Front>> {
    Router::new()
        .route(PLAN, get(plan))
        .route(JOBS, get(jobs).post(start))
        .route(JOB, get(job).delete(cancel))
}

/// A policy by the name of its command.
fn policy(name: &str) -> Result<Policy, String> {
    json::POLICIES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, policy)| *policy)
        .ok_or_else(|| {
            let known: Vec<&str> = json::POLICIES.iter().map(|(name, _)| *name).collect();
            format!(
                "policy {name:?} is not known: it is one of {}",
                known.join(", ")
            )
        })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanQuery {
    policy: String,
    topic: String,
    partition: Option<u32>,
    #[serde(default)]
    now: bool,
}

async fn plan(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    query: Result<Query<PlanQuery>, QueryRejection>,
) -> Response {
    let (query, policy) = match parsed(query).and_then(|query| {
        let policy = policy(&query.policy).map_err(|detail| errors::invalid_query(&detail))?;
        Ok((query, policy))
    }) {
        Ok(both) => both,
        Err(refused) => return refused,
    };
    let door = front.door(peer, &headers);
    let topic = match door.topic(&query.topic, right::Describe) {
        Ok(topic) => topic,
        Err(refusal) => return errors::refused(&refusal),
    };
    let selection = Selection {
        policy,
        partition: query.partition.map(PartitionId::new),
        now: query.now,
    };
    let page = place_for(&front.plan_pages).await;
    let work = move || {
        let plan = door.broker().plan_cleanup(&topic, selection)?;
        Ok::<_, CleanupError>(json::of_plan(&plan).to_string())
    };
    match on_own_thread("cleanup-plan", work).await {
        Ok(Ok(text)) => in_pieces(text, json::CONTENT_TYPE, page),
        Ok(Err(refused)) => errors::cleanup_refused(&refused),
        Err(error) => errors::internal(&error),
    }
}

async fn jobs(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    let door = front.door(peer, &headers);
    match door.cluster(right::Describe) {
        Ok(cluster) => json::of_jobs(&door.broker().cleanup_jobs(&cluster)).into_response(),
        Err(refusal) => errors::refused(&refusal),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartBody {
    policy: String,
    topic: String,
    partition: Option<u32>,
    #[serde(default)]
    now: bool,
    #[serde(default)]
    dry_run: bool,
}

async fn start(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (body, policy) = match body_of::<StartBody>(&headers, body).await.and_then(|body| {
        let policy = policy(&body.policy).map_err(|detail| errors::invalid_body(&detail))?;
        Ok((body, policy))
    }) {
        Ok(both) => both,
        Err(refused) => return refused,
    };
    let door = front.door(peer, &headers);
    let topic = match door.topic(&body.topic, right::Clean) {
        Ok(topic) => topic,
        Err(refusal) => return errors::refused(&refusal),
    };
    let selection = Selection {
        policy,
        partition: body.partition.map(PartitionId::new),
        now: body.now,
    };
    let started = door
        .broker()
        .start_cleanup(&topic, selection, body.dry_run, door.caller());
    match started {
        Ok(job) => {
            let place = format!("{JOBS}/{}", job.id);
            errors::accepted(([(header::LOCATION, place)], json::of_job(&job)).into_response())
        }
        Err(refused) => errors::cleanup_refused(&refused),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobQuery {
    #[serde(default)]
    wait_ms: u64,
}

async fn job(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<JobQuery>, QueryRejection>,
) -> Response {
    let wait_ms = match parsed(query) {
        Ok(query) if query.wait_ms <= WAIT_MS_MAX => query.wait_ms,
        Ok(_) => {
            return errors::invalid_query(&format!("wait_ms must be 0 to {WAIT_MS_MAX}"));
        }
        Err(refused) => return refused,
    };
    let door = front.door(peer, &headers);
    let cluster = match door.cluster(right::Describe) {
        Ok(cluster) => cluster,
        Err(refusal) => return errors::refused(&refusal),
    };
    let found = match job_id(id) {
        Ok(id) => {
            let wait = Duration::from_millis(wait_ms);
            door.broker().cleanup_job(&cluster, id, wait).await
        }
        Err(error) => Err(error),
    };
    match found {
        Ok(job) => json::of_job(&job).into_response(),
        Err(refused) => errors::cleanup_refused(&refused),
    }
}

async fn cancel(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let door = front.door(peer, &headers);
    let cluster = match door.cluster(right::Clean) {
        Ok(cluster) => cluster,
        Err(refusal) => return errors::refused(&refusal),
    };
    let cancelled = job_id(id).and_then(|id| door.broker().cancel_cleanup(&cluster, id));
    match cancelled {
        Ok(job) => json::of_job(&job).into_response(),
        Err(refused) => errors::cleanup_refused(&refused),
    }
}

/// The id in the path. One that is no text names no job.
fn job_id(id: Result<Path<String>, PathRejection>) -> Result<JobId, CleanupError> {
    match id {
        Ok(Path(id)) => id.parse(),
        Err(rejection) => Err(CleanupError::UnknownJob {
            id: rejection.body_text(),
        }),
    }
}

fn parsed<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Response> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => Err(errors::invalid_query(&rejection.body_text())),
    }
}

/// Reads a JSON body.
async fn body_of<T: for<'a> Deserialize<'a>>(
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Response> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case(json::CONTENT_TYPE) {
        return Err(errors::not_json(kind));
    }
    let read = tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, BODY_BYTES_MAX));
    let bytes = match read.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return Err(errors::unread_body(error, BODY_BYTES_MAX)),
        Err(_) => return Err(errors::late_body(BODY_TIME_MAX)),
    };
    serde_json::from_slice(&bytes).map_err(|error| errors::invalid_body(&error.to_string()))
}
