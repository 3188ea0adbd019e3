//! Where a topic's messages without a key go: all to one partition, until a batch with some of them is closed. So they make
//! few batches, and over time reach every partition alike.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use model::PartitionId;

/// One topic's place.
#[derive(Debug, Default)]
pub struct Keyless(AtomicU32);

impl Keyless {
    /// Where they go now.
    pub(super) fn partition(&self, partitions: u32) -> PartitionId {
        PartitionId::new(self.0.load(Relaxed) % partitions.max(1))
    }

    /// From now on they go to the next partition.
    pub(super) fn go_on(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}
