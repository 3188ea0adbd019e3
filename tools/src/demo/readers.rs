//! A consumer group of two members that reads along, through the kill and after it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use client::{Client, GroupConfig, GroupConsumer};
use model::{Offset, TopicPartition};
use tokio::task::JoinHandle;

/// The group's name.
pub(super) const GROUP: &str = "demo";
/// How many members it has.
const MEMBERS: usize = 2;

/// How often members commit what they have read.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// How soon a member notices that its coordinator is gone.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);
const POLL_WAIT_MAX: Duration = Duration::from_millis(200);

/// The group.
#[derive(Debug)]
pub(super) struct Readers {
    members: Vec<JoinHandle<Result<()>>>,
    seen: Arc<Seen>,
}

/// What the members saw.
#[derive(Debug, Default)]
struct Seen {
    /// By partition, the first offset that nobody saw yet.
    next: Mutex<HashMap<TopicPartition, Offset>>,
    by_member: [AtomicU64; MEMBERS],
    read: AtomicU64,
    again: AtomicU64,
    skipped: AtomicU64,
    stop: AtomicBool,
}

/// What the group read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Records, each once.
    pub(super) read: u64,
    /// Records that were read another time.
    pub(super) again: u64,
    /// Records that were passed over.
    pub(super) skipped: u64,
    /// By member, each reading counted.
    pub(super) by_member: [u64; MEMBERS],
}

impl Seen {
    fn saw(
        &self,
        member: usize,
        partition: &TopicPartition,
        from: Offset,
        end: Offset,
        count: u64,
    ) {
        let mut all = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let next = all.entry(partition.clone()).or_insert(from);
        let add = |counter: &AtomicU64, count| counter.fetch_add(count, Ordering::Relaxed);
        add(&self.by_member[member], count);
        add(&self.skipped, from.get().saturating_sub(next.get()));
        let new = end.get().saturating_sub(from.get().max(next.get()));
        add(&self.read, new);
        add(&self.again, count.saturating_sub(new));
        *next = end.max(*next);
    }
}

impl Readers {
    /// Starts the group. `starts` is where each partition begins.
    pub(super) fn start(
        client: &Client,
        topics: &[&str],
        starts: HashMap<TopicPartition, Offset>,
    ) -> Readers {
        let seen = Arc::new(Seen {
            next: Mutex::new(starts),
            ..Seen::default()
        });
        let member = |number| {
            let config = GroupConfig {
                auto_commit: Some(COMMIT_INTERVAL),
                heartbeat_interval: HEARTBEAT_INTERVAL,
                ..GroupConfig::new(GROUP, topics.iter().copied())
            };
            let consumer = GroupConsumer::new(client, config);
            tokio::spawn(read(consumer, number, seen.clone()))
        };
        Readers {
            members: (0..MEMBERS).map(member).collect(),
            seen,
        }
    }

    /// What the group read so far.
    pub(super) fn progress(&self) -> Progress {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Progress {
            read: get(&self.seen.read),
            again: get(&self.seen.again),
            skipped: get(&self.seen.skipped),
            by_member: [0, 1].map(|member| get(&self.seen.by_member[member])),
        }
    }

    /// Waits until the group has read so many records; gives up after a while. Tells an end of a member that was not
    /// asked for.
    pub(super) async fn catch_up(&self, count: u64, patience: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < patience && !self.members.iter().all(JoinHandle::is_finished) {
            if self.progress().read >= count {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.progress().read >= count
    }

    /// Members commit and leave.
    pub(super) async fn stop(self) -> Result<Progress> {
        self.seen.stop.store(true, Ordering::Relaxed);
        let progress = self.progress();
        for member in self.members {
            member.await.context("a member of the group")??;
        }
        Ok(progress)
    }
}

async fn read(mut consumer: GroupConsumer, member: usize, seen: Arc<Seen>) -> Result<()> {
    while !seen.stop.load(Ordering::Relaxed) {
        for fetched in consumer.poll(POLL_WAIT_MAX).await? {
            let mut count = 0;
            fetched.for_each_record(|_| count += 1)?;
            seen.saw(
                member,
                &fetched.partition,
                fetched.from,
                fetched.end(),
                count,
            );
        }
    }
    consumer.close().await.context("leave the group")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use model::{Offset, PartitionId, TopicName, TopicPartition};

    use super::{Ordering, Seen};

    #[test]
    fn what_is_read_again_and_what_is_skipped_are_told_apart() {
        let topic = TopicName::parse("host").expect("a good name");
        let partition = TopicPartition::new(topic, PartitionId::new(0));
        let starts = HashMap::from([(partition.clone(), Offset::new(10))]);
        let seen = Seen {
            next: Mutex::new(starts),
            ..Seen::default()
        };
        let mut told = Vec::new();
        for (from, end) in [(10, 20), (15, 25), (12, 14), (30, 31)] {
            seen.saw(
                0,
                &partition,
                Offset::new(from),
                Offset::new(end),
                end - from,
            );
            let counters = [&seen.read, &seen.again, &seen.skipped];
            told.push(counters.map(|c| c.load(Ordering::Relaxed)));
        }
        assert_eq!(told, [[10, 0, 0], [15, 5, 0], [15, 7, 0], [16, 7, 5]]);
    }
}
