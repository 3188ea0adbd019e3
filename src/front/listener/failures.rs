//! Failures: handshakes that failed, of which the log tells at times.
//! Caller: the listener. Invariant: whoever fails often does not fill the log: at most one line in [`QUIET`], which says how many
//! there were since the line before.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So long after a line there is no other.
const QUIET: Duration = Duration::from_secs(10);

/// The failed handshakes of one front.
#[derive(Debug)]
pub(super) struct Failures {
    front: &'static str,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    /// Failures since that line.
    untold: u64,
}

impl Failures {
    pub(super) fn of(front: &'static str) -> Failures {
        Failures {
            front,
            told: Mutex::default(),
        }
    }

    /// One has failed.
    pub(super) fn note(&self, peer: SocketAddr, listener: &str, reason: &str) {
        let front = self.front;
        match self.told().next(Instant::now()) {
            Some(untold_before) => tracing::warn!(
                front, listener, %peer, reason, untold_before, "a TLS handshake failed"
            ),
            None => tracing::debug!(front, listener, %peer, reason, "a TLS handshake failed"),
        }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// If a line is due: how many were not told since the last one.
    fn next(&mut self, now: Instant) -> Option<u64> {
        if self.at.is_some_and(|at| now.duration_since(at) < QUIET) {
            self.untold += 1;
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_failures_one_is_told_with_the_number_of_the_others() {
        let mut told = Told::default();
        let begun = Instant::now();
        assert_eq!(told.next(begun), Some(0));
        assert_eq!(told.next(begun), None);
        assert_eq!(told.next(begun + QUIET / 2), None);
        assert_eq!(told.next(begun + QUIET), Some(2));
        assert_eq!(told.next(begun + QUIET), None);
    }
}
