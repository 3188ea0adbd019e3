//! HTTP's error answers: `application/problem+json` (RFC 9457) with a stable `code`. The only file that chooses them.

use axum::Json;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

fn problem(status: StatusCode, code: &str, detail: String) -> Response {
    let body = json!({
        "type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(), "code": code, "detail": detail,
    });
    (
        status,
        [(header::CONTENT_TYPE, "application/problem+json")],
        Json(body),
    )
        .into_response()
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
