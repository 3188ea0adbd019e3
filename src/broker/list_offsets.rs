//! Offsets by position and by time, and by leader epoch.
//! Callers: fronts. Looking up a time decodes the batch in question and may need the disk: it runs on the blocking pool.

use std::sync::Arc;

use model::{LeaderEpoch, Offset, PartitionId, Timestamp};

use super::access::{Granted, right};
use super::catalog::Topic;
use super::{Bounds, Broker, Refusal};

/// Which offset is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The end of what readers may see.
    Latest,
    /// The first that is kept.
    Earliest,
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// The first record, in the log's order, that is at least this late.
    AtTime(Timestamp),
}

/// An offset that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset.
    pub offset: Offset,
    /// The record's timestamp, where the query was about time.
    pub timestamp: Option<Timestamp>,
    /// The leader epoch of the batch, where known.
    pub leader_epoch: Option<LeaderEpoch>,
}

impl From<storage::TimedOffset> for FoundOffset {
    fn from(found: storage::TimedOffset) -> FoundOffset {
        FoundOffset {
            offset: found.offset,
            timestamp: Some(found.timestamp),
            leader_epoch: found.leader_epoch,
        }
    }
}

impl Broker {
    /// Answers one query about one partition; `None` if no record fits.
    pub async fn offset_for(
        &self,
        topic: &Granted<Arc<Topic>, right::Describe>,
        partition: PartitionId,
        leader_epoch: Option<LeaderEpoch>,
        query: OffsetQuery,
    ) -> Result<Option<FoundOffset>, Refusal> {
        let log = topic.log(partition)?.clone();
        self.check_epoch(leader_epoch)?;
        let bounds = log.bounds();
        let edge = |offset| FoundOffset {
            offset,
            timestamp: None,
            leader_epoch: Some(self.leader_epoch()),
        };
        match query {
            OffsetQuery::Latest => Ok(Some(edge(bounds.durable_end))),
            // The epoch of the first record that is kept; of the next one to come, if there is none.
            OffsetQuery::Earliest if bounds.start < bounds.durable_end => Ok(Some(FoundOffset {
                leader_epoch: log.epoch_at(bounds.start),
                ..edge(bounds.start)
            })),
            OffsetQuery::Earliest => Ok(Some(edge(bounds.start))),
            OffsetQuery::AtTime(timestamp) => {
                let lookup = move || log.offset_for_time(timestamp);
                let found = self.shared.inflation.run_any(lookup).await;
                Ok(found.map_err(super::read_refusal)?.map(FoundOffset::from))
            }
            OffsetQuery::MaxTimestamp => {
                let found = self
                    .shared
                    .inflation
                    .run_any(move || log.max_timestamp())
                    .await;
                Ok(found.map_err(super::read_refusal)?.map(FoundOffset::from))
            }
        }
    }

    /// From where to where a partition's records reach.
    pub(super) fn bounds(&self, topic: &Topic, partition: PartitionId) -> Result<Bounds, Refusal> {
        Ok(topic.log(partition)?.bounds())
    }

    /// The last epoch not above `wanted`, and where its records end; `None` if this partition knows of none.
    pub fn end_offset_for_epoch(
        &self,
        topic: &Granted<Arc<Topic>, right::Describe>,
        partition: PartitionId,
        leader_epoch: Option<LeaderEpoch>,
        wanted: Option<LeaderEpoch>,
    ) -> Result<Option<(LeaderEpoch, Offset)>, Refusal> {
        let log = topic.log(partition)?;
        self.check_epoch(leader_epoch)?;
        let Some(wanted) = wanted else {
            return Ok(None);
        };
        // The running epoch ends at the end, also before its first record.
        if wanted == self.leader_epoch() {
            return Ok(Some((wanted, log.bounds().durable_end)));
        }
        if wanted > self.leader_epoch() {
            return Ok(None);
        }
        Ok(log.end_offset_for_epoch(wanted))
    }
}
