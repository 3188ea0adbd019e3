//! Reads what requests of the API say: queries, and JSON bodies.
//!
//! Callers: the routes of the API. Invariants: a body is read as far as [`BODY_BYTES_MAX`] and [`BODY_TIME_MAX`] go; unknown fields
//! are refused by the types that are read; a body is only taken as `application/json`, which a page of another site cannot have
//! a browser send without asking this server first.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::errors::Failure;

/// What bodies are.
pub(super) const CONTENT_TYPE: &str = "application/json";
/// The longest body of a request.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// How long a body may take to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(5);

/// The part of the path behind `?`.
pub(super) fn parsed<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Failure> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => Err(Failure::Query(rejection.body_text())),
    }
}

/// What the names in the path stand for; a request whose path says something else is refused.
pub(super) struct At<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<At<T>, Failure> {
        let found = Path::<T>::from_request_parts(parts, state).await;
        let Path(found) = found.map_err(|rejection| Failure::Path(rejection.body_text()))?;
        Ok(At(found))
    }
}

/// The id in the path; or why it is no text, so that it names nothing.
pub(super) fn id_of(id: Result<Path<String>, PathRejection>) -> Result<String, String> {
    id.map(|Path(id)| id)
        .map_err(|rejection| rejection.body_text())
}

/// Reads a JSON body.
pub(super) async fn body_of<T: for<'a> Deserialize<'a>>(
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Failure> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case(CONTENT_TYPE) {
        return Err(Failure::NotJson(kind.to_owned()));
    }
    let read = tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, BODY_BYTES_MAX)).await;
    let read = read.map_err(|_| Failure::BodyLate {
        seconds_max: BODY_TIME_MAX.as_secs(),
    })?;
    let bytes = read.map_err(|error| Failure::unread(error, BODY_BYTES_MAX))?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::Body(error.to_string()))
}
