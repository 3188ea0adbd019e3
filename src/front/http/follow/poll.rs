//! Long polls: lines of JSON, as soon as there is one, and where to go on.
//!
//! Caller: `follow_topic`. Invariant: what an answer holds is bounded, and its header `Next-Offset` tells exactly what it holds.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::follower::{Follower, Next};
use crate::broker::replay::ReplayError;

/// An answer is complete at this size.
const BYTES_MAX: usize = 1 << 20;

/// Lines, and where to go on behind them.
pub(super) struct Lines {
    pub body: Vec<u8>,
    pub position: String,
}

/// Waits for the first record, this long at most, and takes with it what is at hand.
pub(super) async fn lines(
    follower: &mut Follower,
    wait: Duration,
    is_recreated: bool,
) -> Result<Lines, ReplayError> {
    let mut body = Vec::new();
    if is_recreated {
        put_gap(&mut body, &follower.recreated_text());
    }
    let deadline = Instant::now() + wait;
    while !follower.is_done() && body.len() < BYTES_MAX {
        let Ok(next) = timeout_at(deadline, follower.next()).await else {
            break;
        };
        match next {
            Ok(Next::Record(_)) => {
                let line = follower.take_line();
                body.extend_from_slice(&line.expect("a record is at hand"));
            }
            Ok(Next::Gap(gap)) => put_gap(&mut body, &follower.gap_text(&gap)),
            Ok(Next::CaughtUp) if body.is_empty() => {}
            Ok(Next::CaughtUp) => break,
            // What was found before the trouble is good; the next poll begins with the trouble.
            Err(_) if !body.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Lines {
        body,
        position: follower.position(),
    })
}

/// A gap is a line with one member.
fn put_gap(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(b"{\"gap\":");
    body.extend_from_slice(text.as_bytes());
    body.extend_from_slice(b"}\n");
}
