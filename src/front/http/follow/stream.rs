//! Server-sent events: records as they come, each with the position behind it as its id.
//!
//! ```text
//! id: 3f9a0c41/0:125
//! data: {"topic":"readings","partition":0,"offset":124,…}
//!
//! event: gap
//! id: 3f9a0c41/0:500
//! data: {"topic":"readings","partition":0,"from":125,"to":500,"missing":375,"reason":"removed"}
//! ```
//!
//! Caller: `follow_topic`. Invariants: something is written every [`HEARTBEAT`]. Nothing is read ahead of a reader that does not
//! take what there is: it is asked for by the connection, a piece at a time.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::follower::{Follower, Next};
use crate::broker::replay::ReplayError;
use crate::front::pace::Pace;

/// A comment is sent when nothing else was for so long, so that proxies and readers know that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How soon a reader is to come again when its connection breaks.
const RETRY: Duration = Duration::from_secs(2);
/// A piece is handed to the connection at this size.
const PIECE_BYTES: usize = 32 << 10;

/// See the module.
pub(super) struct Events {
    follower: Follower,
    pace: Option<Pace>,
    /// When the record is due that comes next.
    due: Option<Instant>,
    /// What is sent first.
    head: Option<String>,
    is_caught_up: bool,
    is_ended: bool,
}

impl Events {
    pub fn new(follower: Follower, pace: Option<Pace>, is_recreated: bool) -> Events {
        let mut head = format!("retry: {}\n\n", RETRY.as_millis());
        if is_recreated {
            head += &event("gap", &follower.position(), &follower.recreated_text());
        }
        Events {
            follower,
            pace,
            due: None,
            head: Some(head),
            is_caught_up: false,
            is_ended: false,
        }
    }

    /// The next piece; None behind the last.
    pub async fn piece(&mut self) -> Option<Bytes> {
        if let Some(head) = self.head.take() {
            return Some(head.into());
        }
        if self.is_ended || self.follower.is_done() {
            return None;
        }
        let heartbeat_at = Instant::now() + HEARTBEAT;
        let mut piece = Vec::new();
        match timeout_at(heartbeat_at, self.fill(&mut piece)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.is_ended = true;
                let why = serde_json::json!({ "detail": error.to_string() });
                let text = event("end", &self.follower.position(), &why.to_string());
                piece.extend_from_slice(text.as_bytes());
            }
            Err(_) if piece.is_empty() => piece.extend_from_slice(b": still here\n\n"),
            Err(_) => {}
        }
        Some(piece.into())
    }

    /// Adds what comes next: waits for something, and takes what is at hand with it. A call that is given up loses nothing: what was
    /// taken stands in the piece.
    async fn fill(&mut self, piece: &mut Vec<u8>) -> Result<(), ReplayError> {
        while !self.follower.is_done() && piece.len() < PIECE_BYTES {
            match self.follower.next().await? {
                Next::Record(time) => {
                    if let Some(pace) = &mut self.pace {
                        let now = Instant::now();
                        let due = *self.due.get_or_insert_with(|| pace.due(time, now));
                        if due > now && !piece.is_empty() {
                            return Ok(());
                        }
                        sleep_until(due).await;
                        self.due = None;
                    }
                    let line = self.follower.take_line().expect("a record is at hand");
                    put_record(piece, &self.follower.position(), &line);
                    // What else is at hand goes along; to wait for more is for the next piece.
                    if !self.follower.has_more_at_hand() {
                        return Ok(());
                    }
                }
                Next::Gap(gap) => {
                    let text = event(
                        "gap",
                        &self.follower.position(),
                        &self.follower.gap_text(&gap),
                    );
                    piece.extend_from_slice(text.as_bytes());
                    return Ok(());
                }
                Next::CaughtUp if self.is_caught_up => {}
                Next::CaughtUp => {
                    self.is_caught_up = true;
                    let text = event("caught-up", &self.follower.position(), "{}");
                    piece.extend_from_slice(text.as_bytes());
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// An event. Its data is one line.
fn event(name: &str, id: &str, data: &str) -> String {
    format!("event: {name}\nid: {id}\ndata: {data}\n\n")
}

/// A record, whose line ends with its line break.
fn put_record(piece: &mut Vec<u8>, id: &str, line: &[u8]) {
    piece.extend_from_slice(b"id: ");
    piece.extend_from_slice(id.as_bytes());
    piece.extend_from_slice(b"\ndata: ");
    piece.extend_from_slice(line);
    piece.push(b'\n');
}
