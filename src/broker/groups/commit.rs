//! Commits offsets and gives them back.
//! Callers: the fronts, through `Broker::groups`. A commit goes in pieces that one append takes; each partition has a
//! result of its own, as in the protocol.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use model::{LeaderEpoch, PartitionId, Timestamp, TopicId, TopicName};
use storage::Purpose;
use tokio::sync::oneshot;

use super::coordinator::{Cell, Coordinator, saturating_millis};
use super::exchange::{GroupError, MemberClaim, Moment};
use super::ledger::Held;
use super::machine::{GroupMachine, Step, offset_record_bytes};
use super::offsets::{CommittedOffset, CommittedPlace, OffsetChange};

/// An offset that a client wants to be remembered.
#[derive(Clone, Debug)]
pub struct OffsetCommit {
    /// The topic.
    pub topic: TopicName,
    /// The topic as it is now.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionId,
    /// Where the consumer is.
    pub offset: CommittedPlace,
    /// The leader epoch of the last record that was read.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The client's own note.
    pub metadata: String,
}

/// Which commits of a piece were refused, by their index, and what is told when the others are durable.
type CommittedPiece = (
    Vec<(usize, GroupError)>,
    oneshot::Receiver<Result<(), GroupError>>,
);

impl Coordinator {
    /// Stores offsets; one result for each, in order, when they are durable. Of several for one partition the last counts.
    /// `retention` overrides the broker's. A group that is new by it is on the account of `owner`. `NotFound` if the claim names a generation of a group that does not exist.
    pub async fn commit(
        &self,
        group: &str,
        owner: Option<&str>,
        claim: &MemberClaim,
        commits: Vec<OffsetCommit>,
        retention: Option<Duration>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let cell = if claim.generation.is_none() {
            self.cell_or_new(group, owner)
                .ok_or(GroupError::OffsetsMaxReached)?
        } else {
            self.cell(group).ok_or(GroupError::NotFound)?
        };
        let mut results = vec![Ok(()); commits.len()];
        let mut last_of = HashMap::new();
        for (index, commit) in commits.iter().enumerate() {
            match self.check_metadata(commit) {
                Ok(()) => {
                    last_of.insert((commit.topic.clone(), commit.partition), index);
                }
                refused => results[index] = refused,
            }
        }
        let same: Vec<_> = commits
            .iter()
            .map(|commit| {
                last_of
                    .get(&(commit.topic.clone(), commit.partition))
                    .copied()
            })
            .collect();
        let wanted: Vec<_> = commits
            .into_iter()
            .enumerate()
            .filter(|(index, _)| results[*index].is_ok() && same[*index] == Some(*index))
            .collect();
        self.commit_in_pieces(&cell, claim, wanted, retention, &mut results)
            .await?;
        for (index, same) in same.into_iter().enumerate() {
            if let Some(same) = same
                && results[index].is_ok()
            {
                results[index] = results[same].clone();
            }
        }
        Ok(results)
    }

    /// Stores commits, each with its index in `results`, and returns when they are durable.
    async fn commit_in_pieces(
        &self,
        cell: &Arc<Cell>,
        claim: &MemberClaim,
        mut wanted: Vec<(usize, OffsetCommit)>,
        retention: Option<Duration>,
        results: &mut [Result<(), GroupError>],
    ) -> Result<(), GroupError> {
        // Also without anything to store it is asked whether the claim holds.
        let mut begun = Vec::new();
        loop {
            let rest = wanted.split_off(self.one_append(cell, &wanted));
            let indexes: Vec<_> = wanted.iter().map(|(index, _)| *index).collect();
            match self.commit_piece(cell, claim, wanted, retention).await {
                Ok((refused, done)) => {
                    for (index, error) in refused {
                        results[index] = Err(error);
                    }
                    begun.push((indexes, done));
                }
                Err(error) if begun.is_empty() => return Err(error),
                Err(error) => {
                    let left = indexes
                        .into_iter()
                        .chain(rest.iter().map(|(index, _)| *index));
                    left.for_each(|index| results[index] = Err(error.clone()));
                    break;
                }
            }
            wanted = rest;
            if wanted.is_empty() {
                break;
            }
        }
        for (indexes, done) in begun {
            if let Err(error) = done.await.unwrap_or(Err(GroupError::NotAvailable)) {
                let accepted = indexes.into_iter().filter(|index| results[*index].is_ok());
                let accepted: Vec<_> = accepted.collect();
                accepted
                    .into_iter()
                    .for_each(|index| results[index] = Err(error.clone()));
            }
        }
        Ok(())
    }

    /// How many of these commits one append takes.
    fn one_append(&self, cell: &Cell, commits: &[(usize, OffsetCommit)]) -> usize {
        let owner = cell.read(GroupMachine::owner_record);
        let sizes = commits.iter().map(|(_, commit)| bytes_of(cell, commit));
        let count = self
            .runtime
            .log()
            .count_for_one_append(owner.into_iter().chain(sizes));
        // The owner's record takes a place in it; one commit goes in any case.
        let of_owner = usize::from(owner.is_some());
        count.saturating_sub(of_owner).max(1).min(commits.len())
    }

    /// One step of a commit. Gives which of it were refused, by their index, and what is told when the rest is durable.
    async fn commit_piece(
        &self,
        cell: &Arc<Cell>,
        claim: &MemberClaim,
        commits: Vec<(usize, OffsetCommit)>,
        retention: Option<Duration>,
    ) -> Result<CommittedPiece, GroupError> {
        let of_commits: Vec<_> = commits
            .iter()
            .map(|(_, commit)| bytes_of(cell, commit))
            .collect();
        let sizes = |machine: &GroupMachine| {
            let owner = machine.owner_record().into_iter();
            owner.chain(of_commits.iter().copied()).collect()
        };
        let (sender, done) = oneshot::channel();
        let commit = |machine: &mut GroupMachine, now: Moment, step: &mut Step| {
            machine.group.authorize_commit(now, claim)?;
            let expires_at =
                retention.map(|retention| now.wall.plus_millis(saturating_millis(retention)));
            let (mut refused, mut changes) = (Vec::new(), Vec::new());
            for (index, commit) in commits {
                let (topic, partition, committed) = committed(commit, now.wall, expires_at);
                let growth = machine.offsets.growth(&topic, partition, &committed);
                let growth = Held {
                    offsets: growth.count,
                    offset_bytes: growth.bytes,
                    ..Held::default()
                };
                if machine.grow(now, growth) {
                    changes.push(OffsetChange {
                        topic,
                        partition,
                        committed: Some(committed),
                    });
                } else {
                    refused.push((index, GroupError::OffsetsMaxReached));
                }
            }
            machine.change_offsets(changes, sender, step);
            Ok::<_, GroupError>(refused)
        };
        let refused = self
            .runtime
            .step(cell, Purpose::State, sizes, commit)
            .await??;
        Ok((refused, done))
    }

    /// Counted as Kafka counts it: in UTF-16 code units, not in bytes.
    fn check_metadata(&self, commit: &OffsetCommit) -> Result<(), GroupError> {
        let chars = commit.metadata.encode_utf16().count();
        let chars_max = self.config().offset_metadata_chars_max;
        if chars <= chars_max {
            return Ok(());
        }
        Err(GroupError::MetadataTooLarge { chars, chars_max })
    }

    /// The durable offsets of these partitions, in order.
    pub fn fetch(
        &self,
        group: &str,
        wanted: &[(TopicName, PartitionId)],
    ) -> Vec<Option<CommittedOffset>> {
        let Some(cell) = self.cell(group) else {
            return vec![None; wanted.len()];
        };
        cell.read(|machine| {
            let fetched = wanted
                .iter()
                .map(|(topic, partition)| machine.offsets.get(topic, *partition).cloned());
            fetched.collect()
        })
    }

    /// All durable offsets of a group, by topic and partition.
    pub fn fetch_all(&self, group: &str) -> Vec<(TopicName, PartitionId, CommittedOffset)> {
        let Some(cell) = self.cell(group) else {
            return Vec::new();
        };
        let of_topic =
            |(topic, partitions): (&TopicName, &BTreeMap<PartitionId, CommittedOffset>)| {
                partitions
                    .iter()
                    .map(|(partition, committed)| (topic.clone(), *partition, committed.clone()))
                    .collect::<Vec<_>>()
            };
        cell.read(|machine| machine.offsets.all().flat_map(of_topic).collect())
    }

    /// Durable offsets of a group in the order of topic and partition: at most `count`, beginning behind `after`.
    pub fn fetch_after(
        &self,
        group: &str,
        after: Option<(TopicName, PartitionId)>,
        count: usize,
    ) -> Vec<(TopicName, PartitionId, CommittedOffset)> {
        let Some(cell) = self.cell(group) else {
            return Vec::new();
        };
        cell.read(|machine| {
            let found = machine.offsets.after(after.as_ref()).take(count);
            found
                .map(|(topic, partition, committed)| (topic.clone(), partition, committed.clone()))
                .collect()
        })
    }
}

fn bytes_of(cell: &Cell, commit: &OffsetCommit) -> usize {
    offset_record_bytes(cell.key(), &commit.topic, &commit.metadata)
}

fn committed(
    commit: OffsetCommit,
    committed_at: Timestamp,
    expires_at: Option<Timestamp>,
) -> (TopicName, PartitionId, CommittedOffset) {
    let OffsetCommit {
        topic,
        topic_id,
        partition,
        offset,
        leader_epoch,
        metadata,
    } = commit;
    let committed = CommittedOffset {
        topic_id,
        offset,
        leader_epoch,
        metadata,
        committed_at,
        expires_at,
    };
    (topic, partition, committed)
}
