//! Cleanup over HTTP, below `/api/v1/cleanup`: plans, and jobs that run them. The page `docs/http-api.md` describes each route.
//!
//! Callers: `http::routes`. Invariant: few plans are made at a time, so that who asks for many holds no more memory than a page
//! of metrics does.

mod json;

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use model::PartitionId;
use serde::Deserialize;
use serde_json::Value;

use super::errors;
use super::errors::Failure;
use super::pages::{in_pieces, on_own_thread, place_for};
use super::request::{CONTENT_TYPE, body_of, id_of, parsed};
use super::routes::{Operation, Routes};
use super::schema::{boolean, integer_from, integer_in, list, object, one_of, text};
use super::state::Front;
use crate::broker::access::{Door, ResourceKind, Right, right};
use crate::broker::cleanup::{CleanupError, JobId, Policy, Selection, Way};

/// How long a request waits for the end of a job at most: less than a stopping server waits for its connections.
const WAIT_MS_MAX: u64 = 2_000;

/// What a cleanup would do, or what holds it back.
const PLAN: &str = "/api/v1/cleanup/plan";
/// Runs of cleanups.
const JOBS: &str = "/api/v1/cleanup/jobs";
/// One of them.
const JOB: &str = "/api/v1/cleanup/jobs/{id}";

pub(super) fn routes() -> Routes {
    let of = |id, summary| Operation::new(id, "cleanup", summary);
    let policies: Vec<&str> = json::POLICIES.iter().map(|(name, _)| *name).collect();
    let policies = || one_of(&policies);
    let partition = || integer_in(0..=i64::from(u32::MAX));
    let start_body = object([("policy", policies()), ("topic", text())])
        .optional([
            ("partition", partition().or_null()),
            ("now", boolean()),
            ("dry_run", boolean()),
            ("bytes_per_second", integer_from(1).or_null()),
        ])
        .closed();
    Routes::new()
        .get(
            PLAN,
            plan,
            of(
                "planCleanup",
                "What a cleanup would do, or what holds it back",
            )
            .needs(ResourceKind::Topic, Right::Describe)
            .query_required("policy", policies(), "by which policy")
            .query_required("topic", text(), "of which topic")
            .query("partition", partition(), "of this partition alone")
            .query("now", boolean(), "as a run with `now` would begin")
            .answers_json(200, "the plan", json::plan_schema())
            .refuses(404, "unknown_topic"),
        )
        .get(
            JOBS,
            jobs,
            of("listCleanupJobs", "Cleanups that were asked for")
                .needs(ResourceKind::Cluster, Right::Describe)
                .answers_json(
                    200,
                    "all of them",
                    object([("jobs", list(json::job_schema()))]),
                ),
        )
        .post(
            JOBS,
            start,
            of("startCleanup", "Has a cleanup run")
                .needs(ResourceKind::Topic, Right::Clean)
                .takes_json("what to clean", start_body)
                .answers_json(
                    202,
                    "the job that runs it; its place is in Location",
                    json::job_schema(),
                )
                .refuses(400, "invalid_body, policy_of_the_store")
                .refuses(404, "unknown_topic")
                .refuses(429, "too_many_jobs"),
        )
        .get(
            JOB,
            job,
            of("getCleanupJob", "One of them, with its result")
                .needs(ResourceKind::Cluster, Right::Describe)
                .path("id", text(), "the job's id")
                .query(
                    "wait_ms",
                    integer_in(0..=2_000),
                    "how long to wait for its end",
                )
                .answers_json(200, "the job", json::job_schema())
                .refuses(404, "unknown_job"),
        )
        .delete(
            JOB,
            cancel,
            of("cancelCleanup", "Has it end early")
                .needs(ResourceKind::Cluster, Right::Clean)
                .path("id", text(), "the job's id")
                .answers_json(200, "the job", json::job_schema())
                .refuses(404, "unknown_job"),
        )
}

/// A policy by the name of its command; or what it may be.
fn policy(name: &str) -> Result<Policy, String> {
    let found = json::POLICIES.iter().find(|(known, _)| *known == name);
    found.map(|(_, policy)| *policy).ok_or_else(|| {
        let known: Vec<&str> = json::POLICIES.iter().map(|(name, _)| *name).collect();
        let known = known.join(", ");
        format!("policy {name:?} is not known: it is one of {known}")
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
    door: Door,
    query: Result<Query<PlanQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let query = parsed(query)?;
    let selection = Selection {
        policy: policy(&query.policy).map_err(Failure::Query)?,
        partition: query.partition.map(PartitionId::new),
        now: query.now,
    };
    let topic = door.topic(&query.topic, right::Describe)?;
    let page = place_for(&front.plan_pages).await;
    let work = move || {
        let plan = door.broker().plan_cleanup(&topic, selection)?;
        Ok::<_, CleanupError>(json::of_plan(&plan).to_string())
    };
    let text = on_own_thread("cleanup-plan", work).await??;
    Ok(in_pieces(text, CONTENT_TYPE, page))
}

async fn jobs(door: Door) -> Result<Json<Value>, Failure> {
    let cluster = door.cluster(right::Describe)?;
    Ok(json::of_jobs(&door.broker().cleanup_jobs(&cluster)))
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
    bytes_per_second: Option<NonZero<u64>>,
}

async fn start(door: Door, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let body: StartBody = body_of(&headers, body).await?;
    let selection = Selection {
        policy: policy(&body.policy).map_err(Failure::Body)?,
        partition: body.partition.map(PartitionId::new),
        now: body.now,
    };
    let way = Way {
        dry_run: body.dry_run,
        bytes_per_second: body.bytes_per_second.map(NonZero::get),
    };
    let topic = door.topic(&body.topic, right::Clean)?;
    let job = door
        .broker()
        .start_cleanup(&topic, selection, way, door.caller())?;
    let place = format!("{JOBS}/{}", job.id);
    let answer = ([(header::LOCATION, place)], json::of_job(&job));
    Ok(errors::accepted(answer.into_response()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobQuery {
    #[serde(default)]
    wait_ms: u64,
}

async fn job(
    door: Door,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<JobQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let JobQuery { wait_ms } = parsed(query)?;
    if wait_ms > WAIT_MS_MAX {
        let detail = format!("wait_ms must be 0 to {WAIT_MS_MAX}");
        return Err(Failure::Query(detail));
    }
    let cluster = door.cluster(right::Describe)?;
    let wait = Duration::from_millis(wait_ms);
    let job = door
        .broker()
        .cleanup_job(&cluster, job_id(id)?, wait)
        .await?;
    Ok(json::of_job(&job))
}

async fn cancel(
    door: Door,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Failure> {
    let cluster = door.cluster(right::Clean)?;
    let job = door
        .broker()
        .cancel_cleanup(&cluster, job_id(id)?, door.caller())?;
    Ok(json::of_job(&job))
}

/// The job in the path.
fn job_id(id: Result<Path<String>, PathRejection>) -> Result<JobId, CleanupError> {
    id_of(id)
        .map_err(|id| CleanupError::UnknownJob { id })?
        .parse()
}
