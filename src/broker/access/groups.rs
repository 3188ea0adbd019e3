//! Groups as a door gives them: each right with what it lets its holder do.
//! Callers: fronts, by way of [`Door::group`](super::Door::group).

use std::time::Duration;

use model::{PartitionId, TopicName};

use super::{Granted, Group, right};
use crate::broker::groups::{
    CommittedOffset, GroupDescription, GroupError, JoinRefused, JoinRequest, Joined, Leaver,
    MemberClaim, OffsetCommit, SyncRequest, Synced,
};

impl Granted<Group<'_>, right::Read> {
    /// Becomes or stays a member; returns when the generation is complete.
    pub async fn join(&self, request: JoinRequest) -> Result<Joined, JoinRefused> {
        if self.is_share() {
            return Err(JoinRefused {
                error: GroupError::InconsistentProtocol,
                member_id: request.member_id,
            });
        }
        self.coordinator
            .join(self.id(), self.maker(), request)
            .await
    }

    /// Returns with the member's assignment when the leader has brought it.
    pub async fn sync(&self, request: SyncRequest) -> Result<Synced, GroupError> {
        self.coordinator.sync(self.id(), request).await
    }

    /// Keeps a member's session alive.
    pub fn heartbeat(&self, claim: &MemberClaim) -> Result<(), GroupError> {
        self.coordinator.heartbeat(self.id(), claim)
    }

    /// Removes members; one result for each.
    pub async fn leave(
        &self,
        leavers: Vec<Leaver>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.coordinator.leave(self.id(), leavers).await
    }

    /// Stores offsets; one result for each, when they are durable. `retention` overrides the broker's.
    pub async fn commit(
        &self,
        claim: &MemberClaim,
        commits: Vec<OffsetCommit>,
        retention: Option<Duration>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if self.is_share() {
            return Err(GroupError::NotFound);
        }
        self.coordinator
            .commit(self.id(), self.maker(), claim, commits, retention)
            .await
    }
}

impl Granted<Group<'_>, right::Describe> {
    /// The group with its members, if it is there.
    pub fn describe(&self) -> Option<GroupDescription> {
        self.coordinator.describe(self.id())
    }

    /// The durable offsets of these partitions, in order.
    pub fn fetch(&self, wanted: &[(TopicName, PartitionId)]) -> Vec<Option<CommittedOffset>> {
        self.coordinator.fetch(self.id(), wanted)
    }

    /// At most `count` durable offsets in the order of topic and partition, beginning behind `after`.
    pub fn fetch_after(
        &self,
        after: Option<(TopicName, PartitionId)>,
        count: usize,
    ) -> Vec<(TopicName, PartitionId, CommittedOffset)> {
        self.coordinator.fetch_after(self.id(), after, count)
    }
}

impl Granted<Group<'_>, right::Delete> {
    /// Deletes the group, which must be empty, with its offsets; returns when that is durable.
    pub async fn delete(&self) -> Result<(), GroupError> {
        self.coordinator.delete(self.id()).await
    }

    /// Deletes single offsets; one result for each, when that is durable.
    pub async fn delete_offsets(
        &self,
        wanted: &[(TopicName, PartitionId)],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.coordinator.delete_offsets(self.id(), wanted).await
    }
}
