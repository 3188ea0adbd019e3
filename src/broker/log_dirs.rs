//! What the store holds, by partition, and deleting the front of a partition.
//! Callers: fronts.

use std::path::PathBuf;
use std::sync::Arc;

use model::{Offset, PartitionId};

use super::access::{Cluster, Granted, right};
use super::catalog::Topic;
use super::refusal::StorageFault;
use super::{Bounds, Broker, Refusal};

/// The data directory and what is in it.
#[derive(Debug)]
pub struct LogDir {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of its file system.
    pub bytes_total: Option<u64>,
    /// Bytes of its file system that are free.
    pub bytes_free: Option<u64>,
}

/// Up to where records are to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteBefore {
    /// All that readers may see.
    HighWatermark,
    /// The records before this one.
    Offset(Offset),
}

/// One partition, as it is now.
#[derive(Debug, Clone, Copy)]
pub struct PartitionShape {
    /// The partition.
    pub partition: PartitionId,
    /// From where to where its records reach.
    pub bounds: Bounds,
    /// Bytes of its batches.
    pub bytes: u64,
}

/// One partition's size.
#[derive(Debug, Clone, Copy)]
pub struct PartitionSize {
    /// The partition.
    pub partition: PartitionId,
    /// Bytes of its batches.
    pub bytes: u64,
}

impl Broker {
    /// From where to where the log of the cluster's metadata reaches.
    pub fn metadata_bounds(&self, _cluster: &Granted<Cluster, right::Describe>) -> Bounds {
        self.shared.metadata.bounds()
    }

    /// The data directory.
    pub async fn log_dir(&self, _cluster: &Granted<Cluster, right::Describe>) -> LogDir {
        let path = self.config().data_dir.clone();
        let asked = path.clone();
        let space = super::on_blocking_pool(move || rustix::fs::statvfs(&asked).ok()).await;
        LogDir {
            bytes_total: space
                .as_ref()
                .map(|space| space.f_blocks.saturating_mul(space.f_frsize)),
            bytes_free: space
                .as_ref()
                .map(|space| space.f_bavail.saturating_mul(space.f_frsize)),
            path,
        }
    }

    /// The sizes of a topic's partitions.
    pub fn partition_sizes(
        &self,
        _cluster: &Granted<Cluster, right::Describe>,
        topic: &Topic,
    ) -> Vec<PartitionSize> {
        self.sizes(topic)
    }

    /// From where to where the records of a topic's partitions reach, and their bytes.
    pub fn partition_shapes(
        &self,
        topic: &Granted<Arc<Topic>, right::Describe>,
    ) -> Vec<PartitionShape> {
        let shape = |partition| self.partition_shape(topic, partition).ok();
        topic.partitions().filter_map(shape).collect()
    }

    /// The same of one partition.
    pub fn partition_shape(
        &self,
        topic: &Granted<Arc<Topic>, right::Describe>,
        partition: PartitionId,
    ) -> Result<PartitionShape, Refusal> {
        let log = topic.log(partition)?;
        Ok(PartitionShape {
            partition,
            bounds: log.bounds(),
            bytes: log.size_bytes(),
        })
    }

    pub(super) fn sizes(&self, topic: &Topic) -> Vec<PartitionSize> {
        let size = |partition: PartitionId| {
            let log = topic.log(partition).ok()?;
            Some(PartitionSize {
                partition,
                bytes: log.size_bytes(),
            })
        };
        topic.partitions().filter_map(size).collect()
    }

    /// What [`Broker::delete_records`] would make the start, with nothing changed.
    pub fn check_delete_records(
        &self,
        topic: &Granted<Arc<Topic>, right::DeleteRecords>,
        partition: PartitionId,
        before: DeleteBefore,
    ) -> Result<Offset, Refusal> {
        let (_, bounds, before) = self.deletable(topic, partition, before)?;
        Ok(before.max(bounds.start))
    }

    /// Refuses what may not be deleted.
    fn deletable<'a>(
        &self,
        topic: &'a Topic,
        partition: PartitionId,
        before: DeleteBefore,
    ) -> Result<(&'a Arc<storage::Log>, Bounds, Offset), Refusal> {
        let log = topic.log(partition)?;
        let policy = topic.config.cleanup_policy;
        if policy.compact && !policy.delete {
            return Err(Refusal::DeletesForbidden {
                topic: topic.name.clone(),
                partition,
            });
        }
        let bounds = log.bounds();
        let before = match before {
            DeleteBefore::HighWatermark => bounds.durable_end,
            DeleteBefore::Offset(offset) if offset <= bounds.durable_end => offset,
            DeleteBefore::Offset(offset) => {
                return Err(super::out_of_range(Some(offset), &bounds));
            }
        };
        let removed = bounds.start..before.max(bounds.start);
        assert!(
            removed.end <= bounds.durable_end,
            "only what somebody may have seen is deleted"
        );
        if let Some(hold) = self.storage().hold_on(log.id(), &removed) {
            return Err(super::holds::held(&topic.name, &hold));
        }
        Ok((log, bounds, before))
    }

    /// Deletes the front of a partition. Returns the new start when it is durable.
    pub async fn delete_records(
        &self,
        topic: &Granted<Arc<Topic>, right::DeleteRecords>,
        partition: PartitionId,
        before: DeleteBefore,
    ) -> Result<Offset, Refusal> {
        let (log, bounds, before) = self.deletable(topic, partition, before)?;
        let removed = bounds.start..before.max(bounds.start);
        if !removed.is_empty() {
            let by = "records were deleted on request";
            self.note_deleted(topic, partition, removed, by).await;
        }
        let durable = log.delete_records(before).map_err(|error| {
            let log = topic.log_id(partition);
            self.take_back_losses(|loss| loss.is_deleted_from(log));
            match error {
                storage::DeleteRecordsError::OutOfRange { bounds, .. } => {
                    super::out_of_range(Some(before), &bounds)
                }
                storage::DeleteRecordsError::Append(error) => super::append_refusal(error),
            }
        })?;
        durable.await.map_err(StorageFault::Sync)?;
        Ok(log.bounds().start)
    }
}
