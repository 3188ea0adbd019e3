//! Takes offsets and groups away: on request, with their topic, or because retention no longer keeps them.
//! Callers: the fronts, through `Broker::groups`; `Broker` for topics that go; the coordinator's own time.
//! What is removed of one group goes in pieces that one append takes, its offsets before the group itself: a stop in
//! between leaves a group with fewer offsets, which the next try or the next sweep takes away.

use std::collections::HashSet;
use std::sync::Arc;

use model::{PartitionId, TopicId, TopicName};
use storage::Purpose;
use tokio::sync::oneshot;

use super::coordinator::{Cell, Coordinator, saturating_millis};
use super::exchange::{GroupError, Moment};
use super::machine::{GroupMachine, Step};
use super::offsets::{CommittedOffset, OffsetChange, is_expired};

/// What is to go of one group.
#[derive(Default)]
struct Removal {
    /// Deletions.
    changes: Vec<OffsetChange>,
    /// The group goes too, once all of these are gone.
    group: bool,
}

/// The part of a removal that one append takes.
struct Piece {
    removal: Removal,
    /// The lengths of its records.
    sizes: Vec<usize>,
    is_last: bool,
}

impl Coordinator {
    /// Deletes single offsets; one result for each, in order, when that is durable.
    pub async fn delete_offsets(
        &self,
        group: &str,
        wanted: &[(TopicName, PartitionId)],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let cell = self.cell(group).ok_or(GroupError::NotFound)?;
        let named: HashSet<_> = wanted
            .iter()
            .map(|(topic, partition)| (topic, *partition))
            .collect();
        self.remove(&cell, |machine, _| {
            machine.group.authorize_offset_delete()?;
            let is_read = |topic: &TopicName| machine.group.is_subscribed_to(topic.as_str());
            Ok(Removal {
                changes: machine.offsets.deletions(|topic, partition, _| {
                    named.contains(&(topic, partition)) && !is_read(topic)
                }),
                group: false,
            })
        })
        .await?;
        let results = cell.read(|machine| {
            let result = |(topic, _): &(TopicName, PartitionId)| {
                if machine.group.is_subscribed_to(topic.as_str()) {
                    Err(GroupError::SubscribedToTopic)
                } else {
                    Ok(())
                }
            };
            wanted.iter().map(result).collect()
        });
        Ok(results)
    }

    /// Deletes an empty group with its offsets; returns when that is durable.
    pub async fn delete(&self, group: &str) -> Result<(), GroupError> {
        let cell = self.cell(group).ok_or(GroupError::NotFound)?;
        self.remove(&cell, |machine, _| {
            machine.group.authorize_delete()?;
            Ok(whole(machine))
        })
        .await
    }

    /// Deletes every group's offsets of this topic. Called when the topic's own deletion is durable.
    pub async fn forget_topic(&self, topic: TopicId) -> Result<(), GroupError> {
        self.remove_offsets_where(|_, committed| committed.topic_id == topic)
            .await
    }

    /// Deletes the offsets of all topics that are not the current ones. Called at start: the broker may have stopped
    /// between a topic's deletion and its offsets'.
    pub async fn forget_other_topics(
        &self,
        current: impl Fn(&TopicName) -> Option<TopicId>,
    ) -> Result<(), GroupError> {
        self.remove_offsets_where(|topic, committed| current(topic) != Some(committed.topic_id))
            .await
    }

    /// Deletes what retention no longer keeps, and groups of which nothing is left; returns when that is durable.
    pub async fn expire_offsets(&self) -> Result<(), GroupError> {
        let retention_ms = saturating_millis(self.config().offsets_retention);
        self.sweep(|machine, now| {
            let GroupMachine { group, offsets, .. } = machine;
            let expiry = group.offsets_expiry();
            let is_gone = |topic: &TopicName, committed: &CommittedOffset| {
                !group.is_subscribed_to(topic.as_str())
                    && is_expired(committed, expiry, retention_ms, now.wall)
            };
            let is_left =
                |topic: &TopicName, _, committed: &CommittedOffset| !is_gone(topic, committed);
            if group.is_abandoned() && offsets.deletions(is_left).is_empty() {
                return whole(machine);
            }
            Removal {
                changes: offsets.deletions(|topic, _, committed| is_gone(topic, committed)),
                group: false,
            }
        })
        .await
    }

    async fn remove_offsets_where(
        &self,
        gone: impl Fn(&TopicName, &CommittedOffset) -> bool,
    ) -> Result<(), GroupError> {
        self.sweep(|machine, _| Removal {
            changes: machine
                .offsets
                .deletions(|topic, _, committed| gone(topic, committed)),
            group: false,
        })
        .await
    }

    /// One removal in every group; returns when all are durable.
    async fn sweep(
        &self,
        plan: impl Fn(&GroupMachine, Moment) -> Removal,
    ) -> Result<(), GroupError> {
        let mut waits = Vec::new();
        for cell in self.runtime.cells() {
            waits.extend(
                self.begin(&cell, |machine, now| Ok(plan(machine, now)))
                    .await?,
            );
        }
        for done in waits {
            done.await.unwrap_or(Err(GroupError::NotAvailable))?;
        }
        Ok(())
    }

    /// Removes what `plan` says of one group; returns when that is durable.
    async fn remove(
        &self,
        cell: &Arc<Cell>,
        plan: impl Fn(&GroupMachine, Moment) -> Result<Removal, GroupError>,
    ) -> Result<(), GroupError> {
        for done in self.begin(cell, plan).await? {
            done.await.unwrap_or(Err(GroupError::NotAvailable))?;
        }
        Ok(())
    }

    /// Appends the removal of what `plan` says, piece by piece; each that is given resolves when its piece is durable.
    async fn begin(
        &self,
        cell: &Arc<Cell>,
        plan: impl Fn(&GroupMachine, Moment) -> Result<Removal, GroupError>,
    ) -> Result<Vec<oneshot::Receiver<Result<(), GroupError>>>, GroupError> {
        let mut waits = Vec::new();
        let piece = |machine: &GroupMachine| {
            let removal = plan(machine, self.runtime.now())?;
            Ok::<_, GroupError>(self.piece(machine, removal))
        };
        loop {
            // Most groups have nothing to remove. What is on its way is waited for: it may be the same removal.
            if cell.read(piece)?.sizes.is_empty() && !cell.has_undelivered() {
                return Ok(waits);
            }
            let sizes =
                |machine: &GroupMachine| piece(machine).map_or_else(|_| Vec::new(), |it| it.sizes);
            let (sender, done) = oneshot::channel();
            let remove = |machine: &mut GroupMachine, now: Moment, step: &mut Step| {
                let Piece {
                    removal, is_last, ..
                } = piece(machine)?;
                machine.change_offsets(removal.changes, sender, step);
                if removal.group {
                    machine.bury(now, step);
                }
                Ok::<_, GroupError>(is_last)
            };
            let is_last = self
                .runtime
                .step(cell, Purpose::Removal, sizes, remove)
                .await??;
            self.runtime.forget_if_gone(cell);
            waits.push(done);
            if is_last {
                return Ok(waits);
            }
        }
    }

    fn piece(&self, machine: &GroupMachine, removal: Removal) -> Piece {
        let Removal { mut changes, group } = removal;
        let tombstones = if group { machine.tombstones() } else { 0 };
        let mut sizes: Vec<_> = changes
            .iter()
            .map(|change| machine.deletion_record(&change.topic))
            .chain(std::iter::repeat_n(machine.tombstone_record(), tombstones))
            .collect();
        let log = self.runtime.log();
        let count = log.count_for_one_append(sizes.iter().copied());
        let is_last = count == sizes.len();
        if !is_last {
            changes.truncate(count);
            sizes.truncate(changes.len());
        }
        let removal = Removal {
            changes,
            group: group && is_last,
        };
        Piece {
            removal,
            sizes,
            is_last,
        }
    }
}

/// The group with all its offsets.
fn whole(machine: &GroupMachine) -> Removal {
    Removal {
        changes: machine.offsets.deletions(|_, _, _| true),
        group: true,
    }
}
