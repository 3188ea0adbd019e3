//! The loss ledger: what was removed or damaged before a consumer group, or somebody who was reading, had read it: who lost it, when
//! and why.
//!
//! Callers: the store's cleaner tells of what it is about to remove, DeleteRecords and the deletion of topics of what they are about
//! to delete, `Broker::run` looks for damage that is new; fronts list the entries.
//! Invariants: an entry comes before what it tells of. It is in the write-ahead log before the frame that raises a log's start, and
//! durable before a rewritten segment takes another's place, or a topic is deleted; what an erasure takes from groups is known by its
//! progress, which is durable before, and told after it. A kill between the two leaves an entry too many, which
//! the next start takes back or the next try makes true, and never a gap that nobody is told of. Only on a disk without a free
//! byte a start is raised first, because that gives the room. Losses of one reader in a partition that continue one another, for one cause,
//! are one entry; of more than [`LOSSES_MAX`] entries the oldest go, and are counted.

mod book;
mod record;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use model::{LogId, Offset, PartitionId, TopicId};
use storage::Damage;
use storage::cleanup::Policy;
use storage::cleanup::removed::{Noted, Removed};
use tokio::sync::watch;

use super::Broker;
use super::access::{Cluster, Granted, right};
use super::catalog::Topic;
use super::groups::MemberDescription;
use super::open_readers::{Fetching, OpenReader, Opened, ReaderName};
use super::state_log::Written;
pub(super) use book::Losses;
use book::{InLog, Taken};
pub use book::{LOSSES_MAX, LossesError};
use record::Who;
pub use record::{Cause, Loss, UnknownLoss, read_again};

/// How often it is looked whether damage was found.
const DAMAGE_INTERVAL: Duration = Duration::from_secs(1);

/// What the ledger holds in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossTotals {
    /// Entries.
    pub entries: usize,
    /// Records in them.
    pub records: u64,
    /// When the newest was noted.
    pub newest_ms: Option<i64>,
}

impl Broker {
    /// Puts a reader into the list.
    pub(super) fn open_reader(&self, who: &ReaderName, log: LogId, next: Offset) -> Opened {
        self.shared.open_readers.open(who, log, next)
    }

    /// Sets who knows which clients fetch. The first one counts.
    pub fn set_fetching(&self, fetching: Fetching) {
        let _ = self.shared.open_readers.fetching.set(fetching);
    }

    /// The entries of the ledger, the newest first: of one group, of one topic, or all.
    pub fn losses(
        &self,
        _cluster: &Granted<Cluster, right::Describe>,
        group: Option<&str>,
        topic: Option<&str>,
    ) -> Vec<Arc<Loss>> {
        let book = self.shared.losses.locked();
        let wanted = book.entries.values().rev().filter(|loss| {
            group.is_none_or(|group| loss.group.as_deref() == Some(group))
                && topic.is_none_or(|topic| topic == loss.topic)
        });
        wanted.cloned().collect()
    }

    /// How much is in the ledger.
    pub fn loss_totals(&self) -> LossTotals {
        let book = self.shared.losses.locked();
        LossTotals {
            entries: book.entries.len(),
            records: book.records,
            newest_ms: book.entries.values().map(|loss| loss.until_ms).max(),
        }
    }

    /// The cleaner is about to remove records. Called by it. Waits for the disk only if a rewrite is to take them. The answer says
    /// whether they may go.
    pub(super) fn note_removed(&self, removed: &Removed) -> Noted {
        let Some(topic) = self.shared.catalog.by_id(removed.log.topic_id) else {
            return Noted::Yes;
        };
        let cause = match removed.policy {
            Policy::StoreBound => Cause::StoreBound,
            Policy::Retention => Cause::Retention,
            Policy::Compaction => Cause::Compaction,
            Policy::Thin => Cause::Thinning,
        };
        let taken = Taken {
            topic: &topic,
            partition: removed.log.partition,
            offsets: removed.offsets.clone(),
            records: removed.records,
            appended: removed.appended,
            cause,
            reason: &removed.reason,
            segment: removed.rewritten_as,
        };
        match self.note_taken(&taken) {
            (InLog::Yes, Some(written)) if removed.rewritten_as.is_some() => {
                match written.wait_blocking() {
                    Ok(()) => Noted::Yes,
                    Err(_) => Noted::NotNow,
                }
            }
            (InLog::Yes, _) => Noted::Yes,
            // What is removed makes room. A rewrite has no room either.
            (InLog::NoRoom, _) if removed.rewritten_as.is_none() => Noted::Yes,
            (InLog::NoRoom | InLog::Busy, _) => Noted::NotNow,
        }
    }

    /// Somebody is about to delete the front of a partition. When this returns an append that follows is durable no sooner than what
    /// was noted.
    pub(super) async fn note_deleted(
        &self,
        topic: &Topic,
        partition: PartitionId,
        offsets: Range<Offset>,
        by: &str,
    ) {
        let (in_log, _) = self.note_taken(&Taken {
            topic,
            partition,
            records: offsets.end.since(offsets.start),
            offsets,
            appended: None,
            cause: Cause::DeleteRecords,
            reason: by,
            segment: None,
        });
        if in_log == InLog::Busy {
            self.write_losses().await;
        }
    }

    /// Topics are about to be deleted. What was noted is durable when this returns, unless the disk is full.
    pub(super) async fn note_topics_deleted<'t>(
        &self,
        topics: impl Iterator<Item = &'t Arc<Topic>>,
    ) {
        let mut is_full = false;
        for topic in topics {
            for partition in topic.partitions() {
                let Ok(log) = topic.log(partition) else {
                    continue;
                };
                let bounds = log.bounds();
                let (in_log, _) = self.note_taken(&Taken {
                    topic,
                    partition,
                    records: bounds.durable_end.since(bounds.start),
                    offsets: bounds.start..bounds.durable_end,
                    appended: None,
                    cause: Cause::TopicDeleted,
                    reason: "the topic was deleted",
                    segment: None,
                });
                is_full |= in_log == InLog::NoRoom;
            }
        }
        if !is_full {
            self.write_losses().await;
        }
    }

    async fn write_losses(&self) {
        if let Err(error) = self.shared.losses.write().await {
            tracing::warn!(%error, "the loss ledger could not be written: it is tried again");
        }
    }

    /// Takes back what was noted and not done: of a log that begins before the end of what its front is said to have lost, and of a
    /// topic that is there. Called at a start before anything is removed, and when a removal has failed.
    pub(super) fn take_back_losses(&self, is_meant: impl Fn(&Loss) -> bool) {
        let mut book = self.shared.losses.locked();
        let entries: Vec<Arc<Loss>> = book.entries.values().cloned().collect();
        for loss in entries.into_iter().filter(|loss| is_meant(loss)) {
            let id = TopicId::from_uuid(loss.topic_id);
            let Some(topic) = self.shared.catalog.by_id(id) else {
                continue;
            };
            let start = match loss.cause {
                cause if cause.takes_front() => topic.log(PartitionId::new(loss.partition)).ok(),
                Cause::TopicDeleted => None,
                _ => continue,
            };
            let start = start.map_or(0, |log| log.bounds().start.get());
            if loss.to <= start {
                continue;
            }
            let mut left = Loss::clone(&loss);
            left.to = start.max(left.from);
            left.records = left.records.min(left.to - left.from);
            book.records -= loss.records - left.records;
            if left.to > left.from {
                book.unwritten.insert(left.number);
                book.entries.insert(left.number, Arc::new(left));
            } else {
                book.entries.remove(&loss.number);
                book.unwritten.remove(&loss.number);
                book.dropped.push(loss.number);
            }
        }
        drop(book);
        self.shared.losses.news.notify_one();
    }

    /// An erasure is about to take so many records between these offsets: who reads without a group now is noted. When this returns an
    /// append that follows is durable no sooner than that.
    pub(super) async fn note_erasing(
        &self,
        log: LogId,
        offsets: Range<Offset>,
        records: u64,
        by: &str,
    ) {
        let Some(topic) = self.shared.catalog.by_id(log.topic_id) else {
            return;
        };
        let taken = Taken::by_erasure(&topic, log, offsets, records, by);
        let groups = self.read_to(&taken);
        let readers = self.readers_of(&taken, &groups);
        let (in_log, _) = self.note_for(&taken, BTreeMap::new(), readers);
        if in_log == InLog::Busy {
            self.write_losses().await;
        }
    }

    /// An erasure took so many records between these offsets: groups are noted. What was done when the server was killed is told again.
    pub(super) fn note_erased(&self, log: LogId, offsets: Range<Offset>, records: u64, by: &str) {
        if let Some(topic) = self.shared.catalog.by_id(log.topic_id) {
            let taken = Taken::by_erasure(&topic, log, offsets, records, by);
            self.note_for(&taken, self.read_to(&taken), Vec::new());
        }
    }

    /// A group is about to be done with these records of a partition, which it has given up and which have no dead letters. When this
    /// returns an append that follows is durable no sooner than what was noted, unless the disk is full.
    pub(super) async fn note_given_up(
        &self,
        group: &str,
        (topic, partition): (&Topic, PartitionId),
        given_up: &[Range<Offset>],
        reason: &str,
    ) {
        if given_up.is_empty() {
            return;
        }
        let who = Who::Group(group.to_owned());
        let now = self.now();
        let in_log = {
            let mut book = self.shared.losses.locked();
            for offsets in given_up {
                let taken = Taken {
                    topic,
                    partition,
                    records: offsets.end.since(offsets.start),
                    offsets: offsets.clone(),
                    appended: None,
                    cause: Cause::GivenUp,
                    reason,
                    segment: None,
                };
                book.note(&who, offsets.start, &taken, now);
            }
            self.shared.losses.append_now(&mut book).0
        };
        self.shared.losses.news.notify_one();
        if in_log == InLog::Busy {
            self.write_losses().await;
        }
    }

    /// Notes damage that is new. Called when a reader comes upon some, before it goes on, and once a second. Never waits for the disk.
    pub(super) fn note_new_damage(&self) {
        let _one_at_a_time = self.shared.losses.damage_turn();
        for damage in self.health().damage {
            self.note_damage(&damage);
        }
    }

    fn note_damage(&self, damage: &Damage) {
        let Some(log) = damage.log else { return };
        {
            let mut book = self.shared.losses.locked();
            let place = (log, damage.range.clone());
            if book.seen.contains(&place) {
                return;
            }
            book.seen.push(place);
            let known = |loss: &Arc<Loss>| {
                loss.is_of(log.topic_id, log.partition)
                    && loss.cause == Cause::Damage
                    && loss.to == damage.range.end.get()
            };
            // An earlier start has noted it.
            if book.entries.values().any(known) {
                return;
            }
        }
        let Some(topic) = self.shared.catalog.by_id(log.topic_id) else {
            return;
        };
        self.note_taken(&Taken {
            topic: &topic,
            partition: log.partition,
            records: damage.range.end.since(damage.range.start),
            offsets: damage.range.clone(),
            appended: None,
            cause: Cause::Damage,
            reason: &damage.reason,
            segment: None,
        });
    }

    /// Notes what each group had not read of it, and what they had not read who read without a group now. Appends it to the log.
    fn note_taken(&self, taken: &Taken<'_>) -> (InLog, Option<Written>) {
        let read_to = self.read_to(taken);
        let readers = self.readers_of(taken, &read_to);
        self.note_for(taken, read_to, readers)
    }

    /// How far each group has read: those that committed something in the partition, and those for which the topic keeps records.
    fn read_to(&self, taken: &Taken<'_>) -> BTreeMap<String, Offset> {
        let groups = self.groups().list();
        let mut read_to: BTreeMap<String, Offset> = taken
            .topic
            .config
            .hold
            .groups
            .iter()
            .map(|group| (group.clone(), Offset::ZERO))
            .collect();
        for group in groups {
            if let Some(committed) = self.committed(&group.id, taken.topic, taken.partition) {
                read_to.insert(group.id, committed);
            }
        }
        read_to
    }

    fn note_for(
        &self,
        taken: &Taken<'_>,
        read_to: BTreeMap<String, Offset>,
        readers: Vec<OpenReader>,
    ) -> (InLog, Option<Written>) {
        let now = self.now();
        let mut book = self.shared.losses.locked();
        let mut is_news = false;
        for (group, read_to) in read_to {
            is_news |= book.note(&Who::Group(group), read_to, taken, now);
        }
        for reader in readers {
            let who = Who::Reader(reader.name.to_string());
            is_news |= book.note(&who, reader.next, taken, now);
        }
        let appended = self.shared.losses.append_now(&mut book);
        drop(book);
        if is_news {
            self.shared.losses.news.notify_one();
        }
        appended
    }

    /// Who reads the partition now, but for members of these groups: what they have not read is known of their groups.
    fn readers_of(&self, taken: &Taken<'_>, groups: &BTreeMap<String, Offset>) -> Vec<OpenReader> {
        let log = taken.topic.log_id(taken.partition);
        let mut readers = self.shared.open_readers.of(taken.topic, log);
        readers.retain(|reader| reader.next < taken.offsets.end);
        if readers.is_empty() {
            return readers;
        }
        let described = groups
            .keys()
            .filter_map(|group| self.groups().describe(group));
        let members: Vec<_> = described.flat_map(|group| group.members).collect();
        readers.retain(|reader| {
            let is_member = |member: &MemberDescription| {
                let host = member.client.host.trim_start_matches('/');
                reader.client_id.as_deref().unwrap_or_default() == member.client.client_id
                    && reader.address.to_string() == host
            };
            !members.iter().any(is_member)
        });
        readers
    }

    /// Writes the ledger, and looks for damage, until `shutdown` turns true.
    pub(super) async fn keep_losses(&self, mut shutdown: watch::Receiver<bool>) {
        let losses = &self.shared.losses;
        loop {
            self.note_new_damage();
            self.write_losses().await;
            let stopped = async {
                let _ = shutdown.wait_for(|stop| *stop).await;
            };
            tokio::select! {
                () = losses.news.notified() => {}
                () = tokio::time::sleep(DAMAGE_INTERVAL) => {}
                () = stopped => break,
            }
        }
        if let Err(error) = losses.write().await {
            tracing::warn!(%error, "the loss ledger could not be written");
        }
    }
}

#[cfg(test)]
mod tests;
