//! What becomes of a batch: one word that all its publishers wait for, each of whom adds the record's place in the batch.

use std::sync::Arc;

use model::{Offset, PartitionId};
use tokio::sync::SetOnce;

use super::refusal::PublishRefusal;

/// The offset of a batch's first record, once all of it is durable.
type Outcome = SetOnce<Result<Offset, PublishRefusal>>;

/// A message that has its place in a batch, and is not durable yet. It becomes so whether or not anybody waits.
#[derive(Debug, Clone)]
pub struct Publishing {
    /// The partition that it goes to.
    pub partition: PartitionId,
    /// Its place in the batch, from 0.
    index: u32,
    outcome: Arc<Outcome>,
}

impl Publishing {
    /// Returns the record's offset when it is as durable as its topic promises.
    pub async fn durable(self) -> Result<Offset, PublishRefusal> {
        match self.outcome.wait().await {
            Ok(base) => Ok(base.plus(u64::from(self.index))),
            Err(refusal) => Err(refusal.clone()),
        }
    }

    /// Whether both become durable at once, or neither.
    pub fn is_with(&self, other: &Publishing) -> bool {
        Arc::ptr_eq(&self.outcome, &other.outcome)
    }

    /// The same, if it is known by now.
    pub fn known(&self) -> Option<Result<Offset, PublishRefusal>> {
        let outcome = self.outcome.get()?;
        Some(match outcome {
            Ok(base) => Ok(base.plus(u64::from(self.index))),
            Err(refusal) => Err(refusal.clone()),
        })
    }
}

/// The duty to say what became of a batch. Dropped without a word it says that this is not known.
#[derive(Debug, Default)]
pub(super) struct Promise(Arc<Outcome>);

impl Promise {
    pub fn publishing(&self, partition: PartitionId, index: u32) -> Publishing {
        Publishing {
            partition,
            index,
            outcome: Arc::clone(&self.0),
        }
    }

    pub fn keep(self, outcome: Result<Offset, PublishRefusal>) {
        self.0.set(outcome).expect("a promise is kept once");
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        // Kept, as a rule: then this changes nothing.
        let _ = self.0.set(Err(PublishRefusal::Abandoned));
    }
}
