//! Frames: a body that is made frame by frame, until it ends or breaks off.
//!
//! Callers: `pump` and `downsampled`. A body that breaks off is a line of the log, and its connection ends without the body's end.

use axum::body::{Body, Bytes};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

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

/// The body. Its next frame is made while the last one is sent. Whoever makes the frames is dropped with the last of them, or with
/// the body.
pub(super) fn body_of<F: Frames>(mut frames: F) -> Body {
    let (made, taken) = mpsc::channel(1);
    let task = tokio::spawn(async move {
        loop {
            let frame = frames.frame().await;
            if let Err(error) = &frame {
                tracing::warn!(topic = frames.topic(), %error, "{} breaks off", F::WHAT);
            }
            let is_last = !matches!(frame, Ok(Some(_)));
            // Nobody takes it where the body was dropped.
            if made.send(frame).await.is_err() || is_last {
                return;
            }
        }
    });
    let making = Making { taken, task };
    let frames = futures_util::stream::unfold(Some(making), |making| async move {
        let mut making = making?;
        match making.taken.recv().await {
            Some(Ok(None)) => None,
            Some(Ok(Some(frame))) => Some((Ok(frame), Some(making))),
            Some(Err(error)) => Some((Err(Ended::Broken(error)), None)),
            None => Some((Err(Ended::Panicked), None)),
        }
    });
    Body::new(StreamBody::new(frames))
}

/// Why a body has no end.
#[derive(Debug, thiserror::Error)]
enum Ended<B> {
    #[error(transparent)]
    Broken(B),
    #[error("whoever makes the frames panicked")]
    Panicked,
}

/// Frames that are being made.
struct Making<B> {
    taken: mpsc::Receiver<Result<Option<Frame<Bytes>>, B>>,
    task: JoinHandle<()>,
}

impl<B> Drop for Making<B> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt as _;

    use super::*;

    /// Counts up, and then does what it is told.
    struct Counting {
        made: Arc<AtomicUsize>,
        then: fn(usize) -> Result<Option<Frame<Bytes>>, Failed>,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("failed")]
    struct Failed;

    impl Frames for Counting {
        type Broken = Failed;

        const WHAT: &'static str = "a count";

        fn topic(&self) -> &str {
            "t"
        }

        async fn frame(&mut self) -> Result<Option<Frame<Bytes>>, Failed> {
            match self.made.fetch_add(1, Ordering::SeqCst) {
                number @ 0..5 => Ok(Some(Frame::data(Bytes::from(number.to_string())))),
                number => (self.then)(number),
            }
        }
    }

    fn body(then: fn(usize) -> Result<Option<Frame<Bytes>>, Failed>) -> (Body, Arc<AtomicUsize>) {
        let made = Arc::new(AtomicUsize::new(0));
        let counting = Counting {
            made: Arc::clone(&made),
            then,
        };
        (body_of(counting), made)
    }

    #[tokio::test]
    async fn a_body_is_its_frames_in_order() {
        let (body, _) = body(|_| Ok(None));
        let whole = body.collect().await.expect("it is whole").to_bytes();
        assert_eq!(whole, Bytes::from_static(b"01234"));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_has_no_end() {
        let (body, _) = body(|_| Err(Failed));
        assert!(body.collect().await.is_err());
    }

    #[tokio::test]
    async fn a_body_whose_maker_panics_has_no_end() {
        let (body, _) = body(|_| panic!("in the maker"));
        assert!(body.collect().await.is_err());
    }

    #[tokio::test]
    async fn a_body_is_made_as_it_is_taken_and_no_more_once_it_is_dropped() {
        let (mut body, made) = body(|_| Ok(Some(Frame::data(Bytes::from_static(b"more")))));
        body.frame().await.expect("a frame").expect("a frame");
        let turns = async || {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        };
        turns().await;
        // One was taken, one is ready, one waits to be.
        assert_eq!(made.load(Ordering::SeqCst), 3);
        drop(body);
        turns().await;
        assert_eq!(made.load(Ordering::SeqCst), 3);
    }
}
