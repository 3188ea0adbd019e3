//! Fetch: whole batches from many partitions, under byte limits, waiting for more if there is too little.
//! Callers: fronts. No queue on this path: each log hands out slices of its immutable view.
//! Invariants: nothing past the durable end is handed out. The first partition with data yields at least one whole
//! batch; after it both limits are hard (KIP-74). A waiting fetch looks again on every wake-up, in a loop. It waits
//! for records that do not exist yet, never for records that a limit of its own keeps out of the answer.
//! Source: when Kafka ends a wait (`ReplicaManager.fetchMessages`, `DelayedFetch.tryComplete`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{LeaderEpoch, Offset, PartitionId};
use storage::{Chunk, Log, Waiter};
use tokio::time::Instant;

use super::access::{Granted, right};
use super::topics::Topic;
use super::{Broker, Refusal};

/// What to fetch.
#[derive(Debug)]
pub struct Fetch {
    /// In the order in which the byte limit is spent.
    pub partitions: Vec<FetchPartition>,
    /// Answer as soon as this much is there, or the answer is full: see [`Fetched::is_full`].
    pub bytes_min: usize,
    /// Stop when this much is there; see [`FetchPartition::bytes_max`] for what is exempt.
    pub bytes_max: usize,
    /// How long to wait for `bytes_min`.
    pub wait_max: Duration,
}

/// One partition of a fetch.
#[derive(Debug, Clone)]
pub struct FetchPartition {
    /// The topic, if it is there.
    pub topic: Result<Granted<Arc<Topic>, right::Read>, Refusal>,
    /// The partition.
    pub partition: PartitionId,
    /// The first record wanted; None for what is no record's offset, which no partition holds.
    pub offset: Option<Offset>,
    /// The most to return of this partition, but for a first batch that is larger.
    pub bytes_max: usize,
    /// The leader epoch that the client believes in.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The epoch of the last record that the client has: a log that disagrees says where it diverges (KIP-595).
    pub last_fetched_epoch: Option<LeaderEpoch>,
}

/// One partition's answer.
#[derive(Debug)]
pub struct Fetched {
    /// The end of what readers may see.
    pub high_watermark: Offset,
    /// The first offset kept.
    pub start_offset: Offset,
    /// Whole batches.
    pub slices: Vec<Bytes>,
    /// The client's log is not a prefix of this one: the last epoch both share, and where it ends here.
    pub diverging: Option<(LeaderEpoch, Offset)>,
    /// Whether a limit was reached: the partition's own, or what the partitions before it left of the response's. To
    /// wait for more would add nothing to this partition's part of the answer.
    pub is_full: bool,
}

impl Fetched {
    /// Bytes of its batches.
    pub fn bytes(&self) -> usize {
        self.slices.iter().map(Bytes::len).sum()
    }
}

impl Broker {
    /// Answers with one entry for each partition asked for, in their order. Waits at most `wait_max`. An error ends the
    /// wait, but for a topic or partition that did not exist when the fetch began: its error is told together with what
    /// the others give, because a client that asks again before its metadata is renewed would otherwise do so without
    /// a pause. Where no partition exists there is nothing to wait for.
    pub async fn fetch(&self, fetch: Fetch) -> Vec<Result<Fetched, Refusal>> {
        let deadline = Instant::now() + fetch.wait_max;
        let fetch = Arc::new(fetch);
        let logs = Arc::new(self.logs_of(&fetch));
        let first = self.read_all(&fetch, &logs).await;
        if fetch.wait_max.is_zero() || fetch.is_answered_by(&first, &logs) {
            return first;
        }
        loop {
            // Watched before it is read, so that nothing falls between.
            let waiter = Arc::new(Waiter::new());
            logs.iter().flatten().for_each(|log| log.watch(&waiter));
            let found = self.read_all(&fetch, &logs).await;
            if fetch.is_answered_by(&found, &logs) {
                return found;
            }
            if tokio::time::timeout_at(deadline, waiter.wait())
                .await
                .is_err()
            {
                return found;
            }
        }
    }

    fn logs_of(&self, fetch: &Fetch) -> Vec<Result<Arc<Log>, Refusal>> {
        let find = |wanted: &FetchPartition| {
            let topic = wanted.topic.as_ref().map_err(Clone::clone)?;
            let log = topic.log(wanted.partition)?;
            self.check_epoch(wanted.leader_epoch)?;
            // Who has read records of an epoch that has not begun has read them elsewhere.
            if wanted.last_fetched_epoch > Some(self.leader_epoch()) {
                return Err(super::out_of_range(wanted.offset, &log.bounds()));
            }
            Ok(log.clone())
        };
        fetch.partitions.iter().map(find).collect()
    }

    /// Reads every partition once. What is settled may need the disk and is read on the blocking pool.
    async fn read_all(
        &self,
        fetch: &Arc<Fetch>,
        logs: &Arc<Vec<Result<Arc<Log>, Refusal>>>,
    ) -> Vec<Result<Fetched, Refusal>> {
        let is_settled = |(wanted, log): (&FetchPartition, &Result<Arc<Log>, Refusal>)| {
            let offset = wanted.offset.unwrap_or_default();
            log.as_ref()
                .is_ok_and(|log| offset < log.bounds().settled_end)
        };
        if !fetch.partitions.iter().zip(logs.iter()).any(is_settled) {
            return read_now(fetch, logs);
        }
        let (fetch, logs) = (fetch.clone(), logs.clone());
        super::on_blocking_pool(move || read_now(&fetch, &logs)).await
    }
}

impl Fetch {
    /// Whether there is nothing to wait for. `logs` are what the fetch began with.
    fn is_answered_by(
        &self,
        found: &[Result<Fetched, Refusal>],
        logs: &[Result<Arc<Log>, Refusal>],
    ) -> bool {
        let mut bytes = 0;
        let mut is_waited_for = false;
        for (partition, log) in found.iter().zip(logs) {
            match (partition, log) {
                (Err(_), Err(refusal)) if is_absence(refusal) => {}
                // Also of a topic that is deleted during the wait: its log was there at the beginning.
                (Err(_), _) => return true,
                (Ok(fetched), _) if fetched.is_full || fetched.diverging.is_some() => return true,
                (Ok(fetched), _) => {
                    bytes += fetched.bytes();
                    is_waited_for = true;
                }
            }
        }
        !is_waited_for || bytes >= self.bytes_min.min(self.bytes_max)
    }
}

/// Whether a partition was refused because it does not exist.
fn is_absence(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::UnknownTopicOrPartition | Refusal::UnknownTopicId
    )
}

fn read_now(fetch: &Fetch, logs: &[Result<Arc<Log>, Refusal>]) -> Vec<Result<Fetched, Refusal>> {
    let mut bytes_left = fetch.bytes_max;
    let mut is_first = true;
    fetch
        .partitions
        .iter()
        .zip(logs)
        .map(|(wanted, log)| {
            let fetched = read_partition(
                wanted,
                log.as_ref().map_err(Clone::clone)?,
                bytes_left,
                is_first,
            )?;
            let bytes = fetched.bytes();
            bytes_left = bytes_left.saturating_sub(bytes);
            is_first &= bytes == 0;
            Ok(fetched)
        })
        .collect()
}

fn read_partition(
    wanted: &FetchPartition,
    log: &Log,
    bytes_left: usize,
    is_first: bool,
) -> Result<Fetched, Refusal> {
    let bounds = log.bounds();
    let offset = wanted
        .offset
        .filter(|offset| (bounds.start..=bounds.end).contains(offset))
        .ok_or_else(|| super::out_of_range(wanted.offset, &bounds))?;
    let diverging = wanted.last_fetched_epoch.and_then(|epoch| {
        log.end_offset_for_epoch(epoch)
            .filter(|(known, end)| *known < epoch || *end < offset)
    });
    let bytes_max = wanted.bytes_max.min(bytes_left);
    // At the durable end too the log is asked: it says whether it was deleted meanwhile.
    let is_empty = diverging.is_some() || (bytes_max == 0 && !is_first);
    let chunk = if is_empty {
        Chunk::default()
    } else {
        // Whoever writes its slices to a socket must not wait for the disk.
        log.read_warm(offset, bytes_max, is_first)
            .map_err(super::read_refusal)?
    };
    let next = if chunk.slices.is_empty() {
        offset
    } else {
        chunk.end_offset
    };
    // An answer without any records is never full: a client would ask again at once, and get the same.
    let has_records = !is_first || chunk.bytes > 0;
    let is_cut = next < bounds.durable_end;
    let is_filled = chunk.bytes > 0 && chunk.bytes >= wanted.bytes_max;
    Ok(Fetched {
        // More may have become durable since the bounds were taken: no answer shows records past its own high watermark.
        high_watermark: bounds.durable_end.max(chunk.end_offset),
        start_offset: bounds.start,
        slices: chunk.slices,
        diverging,
        is_full: has_records && (is_cut || is_filled),
    })
}
