//! Answer: what one request and its answer may hold in memory while it is worked on, and until it is sent.
//! Callers: `api`, where a handler says what it is about to hold before it does.
//! Invariants: one answer holds no more than `socket.response.max.bytes`, all of them together no more than
//! `queued.max.response.bytes`; who needs more than there is now waits. The first [`FREE_BYTES`] are the connection's own.
//! Records are not counted: they are slices of the log's files.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use super::errors::Misuse;
use crate::front::budget::{Budget, Claim, ClaimError};

/// What an answer holds without asking.
const FREE_BYTES: usize = 64 * 1024;
/// The budget is asked for no less at a time.
const STEP_BYTES: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Answer {
    budget: Arc<Budget>,
    total: AtomicUsize,
    claim: OnceLock<Claim>,
}

impl Answer {
    /// Nothing yet.
    pub(super) fn new(budget: &Arc<Budget>) -> Arc<Answer> {
        Arc::new(Answer {
            budget: budget.clone(),
            total: AtomicUsize::new(0),
            claim: OnceLock::new(),
        })
    }

    /// Holds `bytes` more, which may mean waiting. Refuses, and holds what it held before, if that is more than one answer
    /// may be.
    pub(crate) async fn hold(&self, bytes: usize) -> Result<(), Misuse> {
        // One handler works on an answer.
        let total = self.total.load(Relaxed).saturating_add(bytes);
        if total > FREE_BYTES {
            let steps = total.div_ceil(STEP_BYTES).saturating_mul(STEP_BYTES);
            let claim = self.claim.get_or_init(|| self.budget.claim());
            if let Err(ClaimError::TooLarge { bytes_max }) = claim.hold(steps, 0).await {
                return Err(Misuse::AnswerTooLarge { bytes_max });
            }
        }
        self.total.store(total, Relaxed);
        Ok(())
    }

    /// Holds `bytes` more, or as many as one answer may hold.
    pub(super) async fn hold_at_most(&self, bytes: usize) {
        if self.hold(bytes).await.is_err() {
            let left = self.budget.usage().claim_bytes_max - self.held();
            // It was just said to fit.
            let _ = self.hold(left / STEP_BYTES * STEP_BYTES).await;
        }
    }

    fn held(&self) -> usize {
        self.total.load(Relaxed).div_ceil(STEP_BYTES) * STEP_BYTES
    }

    /// What is left to hold once the answer is encoded in `bytes`: the claim, until they are sent.
    pub(super) async fn sent_as(self: Arc<Answer>, bytes: usize) -> Option<Claim> {
        if self.claim.get().is_some() || bytes > FREE_BYTES {
            let held = self.total.load(Relaxed);
            self.hold_at_most(bytes.saturating_sub(held)).await;
        }
        let claim = Arc::into_inner(self)?.claim.into_inner()?;
        claim.shrink(bytes);
        Some(claim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_is_refused_at_its_bound_and_holds_what_it_is_until_it_is_sent() {
        let budget = Budget::new(4 << 20, 1 << 20);
        let answer = Answer::new(&budget);
        answer.hold(FREE_BYTES).await.unwrap();
        assert_eq!(budget.usage().held, 0);
        answer.hold(900_000).await.unwrap();
        let refused = answer.hold(100_000).await.unwrap_err();
        assert!(refused.to_string().contains("1048576"), "{refused}");
        let claim = answer.sent_as(500_000).await;
        assert_eq!(budget.usage().held, 500_000);
        drop(claim);
        assert_eq!(budget.usage().held, 0);
    }

    #[tokio::test]
    async fn a_large_answer_that_nobody_announced_is_counted_all_the_same() {
        let budget = Budget::new(4 << 20, 1 << 20);
        let claim = Answer::new(&budget).sent_as(600_000).await;
        assert_eq!(budget.usage().held, 600_000);
        drop(claim);
        let claim = Answer::new(&budget).sent_as(5 << 20).await;
        assert_eq!(budget.usage().held, 1 << 20);
        drop(claim);
        assert!(Answer::new(&budget).sent_as(1000).await.is_none());
    }
}
