//! How long a rebalance waits for members to join.
//! Callers: the group, which holds the one that runs; the steps of joining and rebalancing, which start it.

use std::time::Duration;

/// Runs while a group prepares its next generation.
#[derive(Clone, Copy, Debug)]
pub(super) enum JoinTimer {
    /// The first rebalance of an empty group; it grows while members arrive, until `remaining` is used up.
    Initial {
        at: Duration,
        delay: Duration,
        remaining: Duration,
    },
    /// Whoever has not rejoined by then is out.
    Rebalance { at: Duration },
}

impl JoinTimer {
    /// When it ends.
    pub(super) fn at(self) -> Duration {
        match self {
            JoinTimer::Initial { at, .. } | JoinTimer::Rebalance { at } => at,
        }
    }
}
