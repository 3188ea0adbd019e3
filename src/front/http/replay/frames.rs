//! Frames: a body that is made frame by frame, until it ends or breaks off.
//!
//! Callers: `pump` and `downsampled`. A body that breaks off is a line of the log, and its connection ends without the body's end.

use axum::body::{Body, Bytes};
use http_body_util::StreamBody;
use hyper::body::Frame;

/// What makes the frames of one answer.
pub(super) trait Frames: Send + 'static {
    /// Why it breaks off.
    type Broken: std::error::Error + Send + Sync + 'static;

    /// What it is, for the log.
    const WHAT: &'static str;

    /// Of which topic, for the log.
    fn topic(&self) -> &str;

    /// The next frame; None is the end.
    fn frame(&mut self) -> impl Future<Output = Result<Option<Frame<Bytes>>, Self::Broken>> + Send;
}

/// The body. Whoever makes the frames is dropped with the last of them.
pub(super) fn body_of<F: Frames>(frames: F) -> Body {
    let frames = futures_util::stream::unfold(Some(frames), |frames| async move {
        let mut frames = frames?;
        match frames.frame().await {
            Ok(None) => None,
            Ok(Some(frame)) => Some((Ok(frame), Some(frames))),
            Err(error) => {
                tracing::warn!(topic = frames.topic(), %error, "{} breaks off", F::WHAT);
                Some((Err(error), None))
            }
        }
    });
    Body::new(StreamBody::new(frames))
}
