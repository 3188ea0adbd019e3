//! Producer ids: each is given to one producer, ever; and who of them a partition remembers.
//! Callers: fronts. Invariant: a block of ids is durable in the metadata before the first of it is given away, so that no id
//! is given twice over restarts; what is left of a block at a stop is lost. Each principal that has an account has blocks of its own, so that
//! it is known whose an id is. The blocks are a machine of `coordination`: whoever asks while a record is on its way waits for the same sync.

mod block;
mod owners;

use std::sync::Arc;

use model::{PartitionId, ProducerEpoch, ProducerId, Timestamp};

use super::access::{self, Cluster, Owner, right};
use super::catalog::Topic;
use super::{Broker, Refusal};
pub(super) use block::{Block, ProducerIds};
pub(super) use owners::{NotClaimed, Owners};

/// An idempotent producer that a partition remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Who.
    pub id: ProducerId,
    /// The epoch of its batches.
    pub epoch: ProducerEpoch,
    /// The sequence of its last record.
    pub last_sequence: i32,
    /// When the broker last appended for it.
    pub last_append_time: Timestamp,
}

impl Broker {
    /// How many idempotent producers a partition remembers.
    pub fn producer_count(
        &self,
        topic: &access::Granted<Arc<Topic>, right::Read>,
        partition: PartitionId,
    ) -> Result<usize, Refusal> {
        Ok(topic.log(partition)?.producer_count())
    }

    /// The idempotent producers that a partition remembers, in order of their ids.
    pub fn active_producers(
        &self,
        topic: &access::Granted<Arc<Topic>, right::Read>,
        partition: PartitionId,
    ) -> Result<Vec<ActiveProducer>, Refusal> {
        let active = |(id, state): (ProducerId, storage::ProducerState)| {
            Some(ActiveProducer {
                id,
                epoch: state.epoch,
                last_sequence: state.batches.last()?.last_sequence,
                last_append_time: state.last_append_time,
            })
        };
        let producers = topic.log(partition)?.producers();
        Ok(producers.into_iter().filter_map(active).collect())
    }

    /// A producer id that nobody has had, with epoch 0, on the account of `owner` if there is one.
    pub async fn new_producer_id(
        &self,
        _cluster: &access::Granted<Cluster, right::IdempotentWrite>,
        owner: Option<&str>,
    ) -> Result<(ProducerId, ProducerEpoch), Refusal> {
        let owner = owner.map(Owner::from);
        let id = self.shared.producer_ids.grant(owner).await?;
        Ok((ProducerId::new(id), ProducerEpoch::new(0)))
    }
}
