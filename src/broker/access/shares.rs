//! Groups that share records, as a door gives them: each right with what it lets its holder do.
//! Callers: fronts, by way of [`Door::group`](super::Door::group).
//! Invariant: an id is that of a group of one kind.

use std::ops::Range;
use std::sync::Arc;

use model::{Offset, PartitionId};

use super::{Granted, Group, right};
use crate::broker::catalog::Topic;
use crate::broker::share::{
    Beat, Beaten, GroupSettings, Place, ShareDescription, ShareError, SharedOffset, Take,
    TakeError, Taken, Tally, Verdict,
};
use crate::broker::{Bounds, Refusal};

/// Where a group is to begin with a partition.
pub type SharedStart = (Granted<Arc<Topic>, right::Read>, PartitionId, Offset);

fn place(topic: &Topic, partition: PartitionId) -> Place {
    Place {
        topic: topic.id,
        partition,
    }
}

impl Group<'_> {
    /// Whether there is such a group, and it shares records.
    pub fn is_share(&self) -> bool {
        self.broker.shares().has(self.id())
    }

    fn topic(&self, name: &str) -> Option<(model::TopicId, u32)> {
        let topic = self.broker.topic(name).ok()?;
        Some((topic.id, topic.partition_count()))
    }
}

impl Granted<Group<'_>, right::Read> {
    /// Refuses if there is a group with this id that does not share records.
    pub(in crate::broker) fn check_kind(&self) -> Result<(), ShareError> {
        match self.coordinator.describe(self.id()) {
            None => Ok(()),
            Some(_) => Err(ShareError::OtherKind),
        }
    }

    /// Takes a sign of life of a member. The group comes into being with its first one, unless there is one of another kind.
    pub async fn beat(&self, beat: Beat) -> Result<Beaten, ShareError> {
        self.check_kind()?;
        let shares = self.broker.shares();
        let group = (self.id(), self.maker());
        shares.beat(group, beat, |name| self.topic(name)).await
    }

    /// Takes a member out.
    pub fn leave_shared(&self, member: &str) -> Result<(), ShareError> {
        let shares = self.broker.shares();
        shares.leave(self.id(), member, |name| self.topic(name))
    }

    /// The settings in force.
    pub fn share_settings(&self) -> GroupSettings {
        self.broker.shares().settings(self.id())
    }

    /// Gives records to a member; one result for each partition that it wants to take from.
    pub async fn take(
        &self,
        member: &str,
        take: &Take,
    ) -> Result<Vec<Result<Taken, TakeError>>, ShareError> {
        let group = (self.id(), self.maker());
        self.broker.take(group, member, take).await
    }

    /// Does what a member says of records that it holds: all of it or nothing. Durable when it returns.
    pub async fn settle(
        &self,
        member: &str,
        topic: &Granted<Arc<Topic>, right::Read>,
        partition: PartitionId,
        verdicts: &[(Range<Offset>, Verdict)],
    ) -> Result<Tally, TakeError> {
        let start = self.broker.bounds(topic, partition)?.start;
        let shares = self.broker.shares();
        let place = place(topic, partition);
        let settled = shares.settle(self.id(), member, place, verdicts, start);
        Ok(settled.await?)
    }

    /// Releases all that a member holds.
    pub async fn release(&self, member: &str) -> Result<(), ShareError> {
        self.broker.shares().release(self.id(), member).await
    }

    /// Begins anew with partitions, of a group without members that comes into being if it is not there. Durable when it returns.
    pub async fn reset_shared(&self, starts: &[SharedStart]) -> Result<(), ShareError> {
        self.check_kind()?;
        let start = |(topic, partition, offset): &SharedStart| {
            (place(topic, *partition), *offset, topic.owner.clone())
        };
        let starts: Vec<_> = starts.iter().map(start).collect();
        let group = (self.id(), self.maker());
        self.broker.shares().reset(group, &starts).await
    }
}

impl Granted<Group<'_>, right::Describe> {
    /// The group with its members.
    pub fn describe_shared(&self) -> Result<ShareDescription, ShareError> {
        self.broker.shares().describe(self.id())
    }

    /// The partitions that it has begun with.
    pub fn shared_places(&self) -> Result<Vec<Place>, ShareError> {
        self.broker.shares().places(self.id())
    }

    /// How far it is with a partition; None if it has not begun.
    pub fn shared_offset(
        &self,
        topic: &Granted<Arc<Topic>, right::Describe>,
        partition: PartitionId,
    ) -> Result<Option<SharedOffset>, Refusal> {
        let Bounds {
            start, durable_end, ..
        } = self.broker.bounds(topic, partition)?;
        let shares = self.broker.shares();
        Ok(shares.offset(self.id(), place(topic, partition), start..durable_end))
    }
}

impl Granted<Group<'_>, right::Delete> {
    /// Refuses if the group is not there, or has members.
    pub fn check_empty(&self) -> Result<(), ShareError> {
        match self.broker.shares().describe(self.id())?.members.is_empty() {
            true => Ok(()),
            false => Err(ShareError::NonEmpty),
        }
    }

    /// Deletes the group, which must have no members. Its settings stay. Durable when it returns.
    pub async fn delete_shared(&self) -> Result<(), ShareError> {
        self.broker.shares().delete(self.id()).await
    }

    /// Ends a topic's partitions in a group without members; whether it had begun with any. Durable when it returns.
    pub async fn end_shared(
        &self,
        topic: &Granted<Arc<Topic>, right::Read>,
    ) -> Result<bool, ShareError> {
        let shares = self.broker.shares();
        let has_any = !shares.partitions_of(self.id(), topic.id).is_empty();
        shares.end(self.id(), topic.id).await?;
        Ok(has_any)
    }
}
