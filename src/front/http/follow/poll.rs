//! Long polls: lines of JSON, as soon as there is one, and where to go on.
//!
//! Caller: `follow_topic`. Invariants: what an answer holds is bounded, and its header `Next-Offset` tells exactly what it holds.
//! An answer without a record says that there was none up to `Next-Offset`, however little the reader would wait.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::follower::{Follower, Next};
use crate::broker::replay::ReplayError;

/// An answer is complete at this size.
const BYTES_MAX: usize = 1 << 20;
/// For so long at most what is there is searched for the first record that is wanted; the next poll searches on.
const SEARCH_MAX: Duration = Duration::from_secs(20);

/// Lines, and where to go on behind them.
pub(super) struct Lines {
    pub body: Vec<u8>,
    pub position: String,
    /// Whether all that was there was given.
    pub is_caught_up: bool,
}

/// Takes what is there; if there is nothing, waits for the first record, this long at most, and takes with it what is at hand.
pub(super) async fn lines(
    follower: &mut Follower,
    wait: Duration,
    is_recreated: bool,
) -> Result<Lines, ReplayError> {
    let mut body = Vec::new();
    if is_recreated {
        put_gap(&mut body, &follower.recreated_text());
    }
    let begun = Instant::now();
    let mut is_caught_up = false;
    while !follower.is_done() && body.len() < BYTES_MAX {
        // A disk that takes its time is not the end of what is there.
        let patience = if is_caught_up {
            wait
        } else {
            wait.max(SEARCH_MAX)
        };
        let Ok(next) = timeout_at(begun + patience, follower.next()).await else {
            follower.pass_what_was_searched();
            break;
        };
        match next {
            Ok(Next::Record(_)) => {
                is_caught_up = false;
                let line = follower.take_line();
                body.extend_from_slice(&line.expect("a record is at hand"));
            }
            Ok(Next::Gap(gap)) => put_gap(&mut body, &follower.gap_text(&gap)),
            Ok(Next::CaughtUp) => {
                follower.pass_what_was_searched();
                is_caught_up = true;
                if !body.is_empty() {
                    break;
                }
            }
            // What was found before the trouble is good; the next poll begins with the trouble.
            Err(_) if !body.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Lines {
        body,
        position: follower.position(),
        is_caught_up,
    })
}

/// A gap is a line with one member.
fn put_gap(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(b"{\"gap\":");
    body.extend_from_slice(text.as_bytes());
    body.extend_from_slice(b"}\n");
}
