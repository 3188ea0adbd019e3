//! Long pages: made on a thread of their own, sent in pieces, and few at a time.
//!
//! Callers: the routes of metrics and of cleanup plans.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Long pages that are made, or not taken by their readers yet: of each kind.
pub(super) const PAGES_MAX: usize = 4;
/// Replays that run at a time, each with a batch of rows or a row group at most, and what is made of two others.
pub(super) const REPLAYS_MAX: usize = 32;
/// Answers in windows of time that run at a time, each of which holds all of its windows.
pub(super) const DOWNSAMPLED_MAX: usize = 4;
/// A page is handed to the connection in pieces of this size.
const PIECE_BYTES: usize = 64 * 1024;

/// Waits for one of the places of long pages.
pub(super) async fn place_for(pages: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let page = pages.clone().acquire_owned().await;
    page.expect("the semaphore is never closed")
}

/// A long page, which keeps its place until the last piece of it is taken.
pub(super) fn in_pieces(
    text: String,
    content_type: &'static str,
    page: OwnedSemaphorePermit,
) -> Response {
    let length = text.len();
    let pieces =
        futures_util::stream::unfold((Bytes::from(text), page), |(mut rest, page)| async move {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES));
            (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), (rest, page)))
        });
    let headers = [
        (header::CONTENT_TYPE, content_type.to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

/// Runs `work` on a thread of its own: those of the runtime that may block may all be waiting for the disk.
pub(super) async fn on_own_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Whoever asked may have gone.
            let _ = done.send(work());
        })?;
    result.await.map_err(io::Error::other)
}
