//! Producer ids: each is given to one producer, ever; and who of them a partition remembers.
//! Callers: fronts. Invariant: a block of ids is durable in the metadata before the first of it is given away, so that no id
//! is given twice over restarts; what is left of a block at a stop is lost.

use tokio::sync::Mutex;

use model::{PartitionId, ProducerEpoch, ProducerId, Timestamp};

use super::records::Record;
use super::topics::Topic;
use super::{Broker, Refusal};

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

/// How many ids are reserved at once, as in Kafka.
const BLOCK: i64 = 1000;

/// The ids that are left of the reserved block.
#[derive(Debug)]
pub(super) struct ProducerIds {
    block: Mutex<Block>,
}

#[derive(Debug)]
struct Block {
    next: i64,
    end: i64,
}

impl ProducerIds {
    /// No id below `next` may be given away again.
    pub(super) fn new(next: i64) -> ProducerIds {
        ProducerIds {
            block: Mutex::new(Block { next, end: next }),
        }
    }
}

impl Broker {
    /// How many idempotent producers a partition remembers.
    pub fn producer_count(&self, topic: &Topic, partition: PartitionId) -> Result<usize, Refusal> {
        Ok(topic.log(partition)?.producer_count())
    }

    /// The idempotent producers that a partition remembers, in order of their ids.
    pub fn active_producers(
        &self,
        topic: &Topic,
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

    /// A producer id that nobody has had, with epoch 0.
    pub async fn new_producer_id(&self) -> Result<(ProducerId, ProducerEpoch), Refusal> {
        let mut block = self.shared.producer_ids.block.lock().await;
        if block.next == block.end {
            let end = block.next + BLOCK;
            let change = Record::ProducerIds { next: end }.change();
            self.shared
                .metadata
                .write(vec![change])
                .await
                .map_err(super::state_refusal)?;
            block.end = end;
        }
        let id = ProducerId::new(block.next);
        block.next += 1;
        Ok((id, ProducerEpoch::new(0)))
    }
}
