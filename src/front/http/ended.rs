//! The end of a request: when the last of its answer has gone, or its connection with it, it is counted, and its line is logged.
//!
//! Callers: `middleware`. Invariant: each request has one line and is counted once, also if nobody took its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::extract::Request;
use axum::http::Method;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::state::Front;
use super::traffic::Counted;
use crate::front::places::{Busy, Stay};

/// Of a path so much is logged.
const PATH_SHOWN_MAX: usize = 512;

/// What a request holds until it has ended.
#[derive(Default)]
pub(super) struct Entry {
    _busy: Option<Busy>,
    pub(super) stay: Option<Stay>,
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl Entry {
    /// One that keeps its connection busy.
    pub(super) fn of(busy: Option<Busy>) -> Entry {
        Entry {
            _busy: busy,
            ..Entry::default()
        }
    }
}

/// A request until its end, which is when this is dropped.
pub(super) struct Ended {
    front: Arc<Front>,
    counted: Counted,
    started_at: Instant,
    entry: Entry,
    method: Method,
    path: String,
    remote: Option<SocketAddr>,
    id: String,
    status: u16,
    sent: u64,
    follows: bool,
    broke_off: bool,
}

impl Ended {
    /// A request begins.
    pub(super) fn begin(
        front: Arc<Front>,
        counted: Counted,
        request: &Request,
        id: String,
    ) -> Ended {
        front.traffic.answering.fetch_add(1, Relaxed);
        let path = request.uri().path();
        let end = path.floor_char_boundary(PATH_SHOWN_MAX);
        Ended {
            counted,
            started_at: Instant::now(),
            entry: Entry::default(),
            method: request.method().clone(),
            path: path[..end].to_owned(),
            remote: request.extensions().get::<SocketAddr>().copied(),
            id,
            status: 0,
            sent: 0,
            follows: false,
            broke_off: false,
            front,
        }
    }

    /// It keeps this to its end.
    pub(super) fn keep(&mut self, entry: Entry) {
        self.entry = entry;
    }

    /// The head of the answer is there.
    pub(super) fn answered(&mut self, status: u16, follows: bool) {
        self.status = status;
        self.front.traffic.answered(self.counted, status);
        if follows {
            self.follows = true;
            self.front.traffic.following.fetch_add(1, Relaxed);
            self.front
                .traffic
                .took(self.counted, self.started_at.elapsed());
        }
    }

    /// So much of the body went to the connection.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
        self.front.traffic.sent(self.counted, bytes);
    }

    /// The answer ends in the middle.
    pub(super) fn broke_off(&mut self, error: &axum::Error) {
        self.broke_off = true;
        tracing::warn!(request_id = %self.id, %error, "an HTTP answer broke off: its connection is reset");
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let time = self.started_at.elapsed();
        let traffic = &self.front.traffic;
        traffic.answering.fetch_sub(1, Relaxed);
        if self.follows {
            traffic.following.fetch_sub(1, Relaxed);
        } else if self.status != 0 {
            traffic.took(self.counted, time);
        }
        let remote = self
            .remote
            .map(|remote| remote.to_string())
            .unwrap_or_default();
        tracing::debug!(
            target: "alluvium::access",
            method = %self.method,
            path = %self.path,
            status = self.status,
            bytes = self.sent,
            seconds = time.as_secs_f64(),
            request_id = %self.id,
            %remote,
            broke_off = self.broke_off,
            "request"
        );
    }
}
