//! Takes offsets and groups away: on request, with their topic, or because retention no longer keeps them.
//! Callers: the fronts, through `Broker::groups`; `Broker` for topics that go; the coordinator's own time.
//! What is removed of one group goes in pieces that one append takes, its offsets before the group itself: a stop in
//! between leaves a group with fewer offsets, which the next try or the next sweep takes away.

use std::collections::HashSet;
use std::sync::Arc;

use model::{PartitionId, TopicId, TopicName};
use storage::Purpose;
use tokio::sync::oneshot;

use super::coordinator::{Cell, Coordinator, Inner, saturating_millis};
use super::exchange::{GroupError, Moment};
use super::offsets::{CommittedOffset, OffsetChange, is_expired};
use super::record::Record;

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
        self.remove(&cell, |inner, _| {
            inner.group.authorize_offset_delete()?;
            let is_read = |topic: &TopicName| inner.group.is_subscribed_to(topic.as_str());
            Ok(Removal {
                changes: inner.offsets.deletions(|topic, partition, _| {
                    named.contains(&(topic, partition)) && !is_read(topic)
                }),
                group: false,
            })
        })
        .await?;
        let inner = cell.lock();
        let result = |topic: &TopicName| {
            if inner.group.is_subscribed_to(topic.as_str()) {
                Err(GroupError::SubscribedToTopic)
            } else {
                Ok(())
            }
        };
        Ok(wanted.iter().map(|(topic, _)| result(topic)).collect())
    }

    /// Deletes an empty group with its offsets; returns when that is durable.
    pub async fn delete(&self, group: &str) -> Result<(), GroupError> {
        let cell = self.cell(group).ok_or(GroupError::NotFound)?;
        self.remove(&cell, |inner, _| {
            inner.group.authorize_delete()?;
            Ok(whole(inner))
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
        let retention_ms = saturating_millis(self.shared.config.offsets_retention);
        self.sweep(|inner, now| {
            let Inner { group, offsets, .. } = inner;
            let expiry = group.offsets_expiry();
            let is_gone = |topic: &TopicName, committed: &CommittedOffset| {
                !group.is_subscribed_to(topic.as_str())
                    && is_expired(committed, expiry, retention_ms, now.wall)
            };
            let is_left =
                |topic: &TopicName, _, committed: &CommittedOffset| !is_gone(topic, committed);
            if group.is_abandoned() && offsets.deletions(is_left).is_empty() {
                return whole(inner);
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
        self.sweep(|inner, _| Removal {
            changes: inner
                .offsets
                .deletions(|topic, _, committed| gone(topic, committed)),
            group: false,
        })
        .await
    }

    /// One removal in every group; returns when all are durable.
    async fn sweep(&self, plan: impl Fn(&Inner, Moment) -> Removal) -> Result<(), GroupError> {
        let mut waits = Vec::new();
        for cell in self.cells() {
            waits.extend(self.begin(&cell, |inner, now| Ok(plan(inner, now))).await?);
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
        plan: impl Fn(&Inner, Moment) -> Result<Removal, GroupError>,
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
        plan: impl Fn(&Inner, Moment) -> Result<Removal, GroupError>,
    ) -> Result<Vec<oneshot::Receiver<Result<(), GroupError>>>, GroupError> {
        let mut waits = Vec::new();
        let piece = |inner: &Inner| Ok(self.piece(cell, plan(inner, self.now())?));
        loop {
            // Most groups have nothing to remove. What is on its way is waited for: it may be the same removal.
            let is_nothing = {
                let inner = cell.lock();
                piece(&inner)?.sizes.is_empty() && inner.undelivered == 0
            };
            if is_nothing {
                return Ok(waits);
            }
            let sizes =
                |inner: &Inner| piece(inner).map_or_else(|_: GroupError| Vec::new(), |it| it.sizes);
            let (sender, done) = oneshot::channel();
            let is_last = self
                .step_for(Purpose::Removal, cell, sizes, |inner, now, step| {
                    let piece = piece(inner)?;
                    step.changes = piece.removal.changes;
                    if piece.removal.group {
                        inner.group.bury(now);
                        step.tombstones = vec![
                            Record::Group(cell.id.to_string(), None),
                            Record::Promise(cell.id.to_string(), None),
                        ];
                    }
                    step.done = Some(sender);
                    Ok(piece.is_last)
                })
                .await??;
            self.forget_if_dead(cell);
            waits.push(done);
            if is_last {
                return Ok(waits);
            }
        }
    }

    fn piece(&self, cell: &Cell, removal: Removal) -> Piece {
        let Removal { mut changes, group } = removal;
        let tombstones = if group { 2 } else { 0 };
        let mut sizes: Vec<_> = changes
            .iter()
            .map(|change| cell.deletion_record(&change.topic))
            .chain(std::iter::repeat_n(cell.tombstone_record(), tombstones))
            .collect();
        let count = self.shared.log.count_for_one_append(sizes.iter().copied());
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
fn whole(inner: &Inner) -> Removal {
    Removal {
        changes: inner.offsets.deletions(|_, _, _| true),
        group: true,
    }
}
