//! Takes records for a member: what of its partitions is available is read from their logs, and acquired.
//! Callers: fronts, by way of the door. Records are read first, so that what is acquired can be sent; somebody else may have
//! acquired them meanwhile, and then more is read.
//! Invariants: a group begins with a partition durably before anything of it is given out. What a read shows to be missing from the log
//! is nobody's to wait for. Who waits is woken by new records and by those that come back.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::batch::BatchHeader;
use model::{Offset, PartitionId};
use storage::{Log, Waiter};
use tokio::sync::watch;
use tokio::time::Instant;

use super::ShareError;
use super::machine::{Makers, Wanted};
use super::partition::Acquired;
use super::record::Place;
use super::settings::Reset;
use crate::broker::access::{Granted, right};
use crate::broker::catalog::Topic;
use crate::broker::{Broker, Fetch, FetchPartition, Fetched, Refusal};

/// So much of a partition is read before what was read is acquired: of a cold log no more is brought into memory than is given.
const PIECE_BYTES: usize = 1 << 20;

/// What a member wants.
pub struct Take {
    /// In the order in which the limits are spent.
    pub from: Vec<TakeFrom>,
    /// So many records at most.
    pub records_max: usize,
    /// The last batch is given whole, though that makes more than `records_max`.
    pub whole_batches: bool,
    /// Nothing is given before there is so much, or the time is over.
    pub bytes_min: usize,
    /// So much at most, but for a first batch that is larger.
    pub bytes_max: usize,
    /// How long to wait.
    pub wait_max: Duration,
}

/// A partition to take from.
pub struct TakeFrom {
    /// Its topic.
    pub topic: Granted<Arc<Topic>, right::Read>,
    /// Its number.
    pub partition: PartitionId,
}

/// What was taken of a partition.
#[derive(Debug, Default)]
pub struct Taken {
    /// Whole batches, with records of others too.
    pub slices: Vec<Bytes>,
    /// Which records are the member's.
    pub acquired: Vec<Acquired>,
    /// Where batches end.
    pub ends: Vec<Offset>,
}

impl Taken {
    /// Bytes of its batches.
    pub fn bytes(&self) -> usize {
        self.slices.iter().map(Bytes::len).sum()
    }

    fn add(&mut self, other: Taken) {
        self.slices.extend(other.slices);
        self.acquired.extend(other.acquired);
        self.ends.extend(other.ends);
    }
}

/// Why nothing is taken from a partition.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TakeError {
    /// The log cannot be read.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The group does not give.
    #[error(transparent)]
    Share(#[from] ShareError),
}

/// What each partition gave.
type Results = Vec<Result<Taken, TakeError>>;

/// A look at all partitions.
struct Look<'a> {
    broker: &'a Broker,
    group: &'a str,
    /// On whose account the group is, if it is gone meanwhile and made anew.
    maker: Option<&'a str>,
    member: &'a str,
    take: &'a Take,
    records_left: usize,
    bytes_left: usize,
    is_first: bool,
}

/// A batch of what was read.
struct Read {
    offsets: Range<Offset>,
    slice: usize,
    bytes: Range<usize>,
}

impl Broker {
    /// Takes records for a member of a group that is there; one result for each partition.
    pub(in crate::broker) async fn take(
        &self,
        (group, maker): (&str, Option<&str>),
        member: &str,
        take: &Take,
    ) -> Result<Results, ShareError> {
        if !self.shares().has(group) {
            return Err(ShareError::NotFound);
        }
        let deadline = Instant::now() + take.wait_max;
        let waiter = Waiter::new();
        let mut returned = self.shares().watch(group)?;
        loop {
            returned.mark_unchanged();
            for from in &take.from {
                if let Ok(log) = from.topic.log(from.partition) {
                    log.watch(&waiter);
                }
            }
            let is_over = Instant::now() >= deadline;
            let mut look = Look {
                broker: self,
                group,
                maker,
                member,
                take,
                records_left: take.records_max,
                bytes_left: take.bytes_max,
                is_first: true,
            };
            if is_over || look.is_enough().await {
                let results = look.take_all().await;
                let gives = |result: &Result<Taken, TakeError>| match result {
                    Ok(taken) => !taken.acquired.is_empty(),
                    Err(_) => true,
                };
                if is_over || results.is_empty() || results.iter().any(gives) {
                    return Ok(results);
                }
            }
            if wait(&waiter, &mut returned, deadline).await.is_err() {
                return Err(ShareError::NotFound);
            }
        }
    }

    /// Begins with a partition, where the group has not.
    async fn begin_sharing(
        &self,
        (group, maker): (&str, Option<&str>),
        from: &TakeFrom,
        log: &Log,
    ) -> Result<(), TakeError> {
        let place = from.place();
        if self.shares().has_begun(group, place) {
            return Ok(());
        }
        // It may have been deleted while somebody waited for its records.
        self.topic_by_id(place.topic)?;
        let bounds = log.bounds();
        let start = match self.shares().settings(group).reset {
            Reset::Latest => bounds.durable_end,
            Reset::Earliest => bounds.start,
            Reset::Age(age) => {
                let millis = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                let since = self.now().millis().saturating_sub(millis);
                let found = self.first_since(from, model::Timestamp::from_millis(since));
                found.await?.unwrap_or(bounds.durable_end)
            }
        };
        let makers = Makers {
            group: maker,
            topic: from.topic.owner.as_ref(),
        };
        let begun = self.shares().begin((group, makers), place, start);
        Ok(begun.await?)
    }

    async fn first_since(
        &self,
        from: &TakeFrom,
        since: model::Timestamp,
    ) -> Result<Option<Offset>, Refusal> {
        let log = from.topic.log(from.partition)?.clone();
        let lookup = move || log.offset_for_time(since);
        let found = self.shared.inflation.run_any(lookup).await;
        let found = found.map_err(crate::broker::read_refusal)?;
        Ok(found.map(|found| found.offset))
    }
}

/// Waits for records, new ones or such that come back, but not behind `deadline`. Fails if the group has gone.
async fn wait(
    waiter: &Waiter,
    returned: &mut watch::Receiver<()>,
    deadline: Instant,
) -> Result<(), watch::error::RecvError> {
    tokio::select! {
        () = tokio::time::sleep_until(deadline) => Ok(()),
        () = waiter.wait() => Ok(()),
        changed = returned.changed() => changed,
    }
}

impl TakeFrom {
    fn place(&self) -> Place {
        Place {
            topic: self.topic.id,
            partition: self.partition,
        }
    }
}

impl Look<'_> {
    /// Whether there is as much as is to be there at least.
    async fn is_enough(&self) -> bool {
        let wanted = self.take.bytes_min.min(self.take.bytes_max);
        if wanted <= 1 {
            return true;
        }
        let mut found = 0;
        for from in &self.take.from {
            // What cannot be read is told at once.
            match self.read(from, wanted - found).await {
                Ok(Some((_, fetched))) => found += fetched.bytes(),
                Ok(None) => {}
                Err(_) => return true,
            }
            if found >= wanted {
                return true;
            }
        }
        false
    }

    async fn take_all(&mut self) -> Results {
        let mut results = Vec::with_capacity(self.take.from.len());
        for from in &self.take.from {
            results.push(self.take_from(from).await);
        }
        results
    }

    fn is_full(&self) -> bool {
        self.records_left == 0 || self.bytes_left == 0
    }

    async fn take_from(&mut self, from: &TakeFrom) -> Result<Taken, TakeError> {
        let mut taken = Taken::default();
        let mut in_vain = None;
        while !self.is_full() {
            let Some((available, fetched)) = self.read(from, PIECE_BYTES).await? else {
                break;
            };
            let bytes = fetched.bytes();
            if !self.is_first && bytes > self.bytes_left {
                break;
            }
            let more = self.acquire(from, available, fetched).await?;
            if more.acquired.is_empty() {
                // Others were faster, and there may be more behind; or no more may be held.
                match in_vain.replace(available) == Some(available) {
                    true => break,
                    false => continue,
                }
            }
            let records = more
                .acquired
                .iter()
                .map(|it| it.offsets.end.since(it.offsets.start));
            let records = usize::try_from(records.sum::<u64>()).unwrap_or(usize::MAX);
            self.records_left = self.records_left.saturating_sub(records);
            self.bytes_left = self.bytes_left.saturating_sub(more.bytes());
            self.is_first &= more.slices.is_empty();
            taken.add(more);
        }
        Ok(taken)
    }

    /// Reads from the first record on that can be given out; which that is, and what was read. None if there is none.
    async fn read(
        &self,
        from: &TakeFrom,
        bytes_max: usize,
    ) -> Result<Option<(Offset, Fetched)>, TakeError> {
        let log = from.topic.log(from.partition)?;
        let group = (self.group, self.maker);
        self.broker.begin_sharing(group, from, log).await?;
        let bounds = log.bounds();
        let within = bounds.start..bounds.durable_end;
        let shares = self.broker.shares();
        let Some(available) = shares.first_available(self.group, from.place(), within) else {
            return Ok(None);
        };
        let fetch = Fetch {
            partitions: vec![FetchPartition {
                topic: Ok(from.topic.clone()),
                partition: from.partition,
                offset: Some(available),
                bytes_max: bytes_max.min(self.bytes_left),
                leader_epoch: None,
                last_fetched_epoch: None,
                idle: None,
            }],
            bytes_min: 0,
            bytes_max,
            wait_max: Duration::ZERO,
            watch: None,
        };
        let fetched = self.broker.fetch(fetch).await.pop().flatten();
        match fetched.expect("each partition has an answer") {
            Ok(fetched) if fetched.slices.is_empty() => Ok(None),
            Ok(fetched) => Ok(Some((available, fetched))),
            // Its first records went meanwhile.
            Err(Refusal::OffsetOutOfRange { .. }) => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Acquires of what was read what is to be had, and leaves out batches of which nothing was.
    async fn acquire(
        &self,
        from: &TakeFrom,
        available: Offset,
        fetched: Fetched,
    ) -> Result<Taken, TakeError> {
        let Fetched {
            slices,
            start_offset,
            ..
        } = fetched;
        let batches = batches_of(&slices);
        let mut wanted = Wanted {
            place: from.place(),
            within: Vec::new(),
            absent: Vec::new(),
            count_max: self.records_left,
            ends: Vec::new(),
            deliveries_max: None,
            log_start: start_offset,
        };
        let mut at = available;
        for batch in &batches {
            let Range { start, end } = batch.offsets;
            if at < start {
                wanted.absent.push(at..start);
            }
            // Neighbours are one range, whatever batches they are in.
            match wanted.within.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => wanted.within.push(start.max(available)..end),
            }
            if self.take.whole_batches {
                wanted.ends.push(end);
            }
            at = end;
        }
        let shares = self.broker.shares();
        let acquired = shares.acquire(self.group, self.member, &wanted).await?;
        let has_any = |batch: &&Read| {
            let at = acquired.partition_point(|it| it.offsets.end <= batch.offsets.start);
            let next = acquired.get(at);
            next.is_some_and(|it| it.offsets.start < batch.offsets.end)
        };
        let mut kept: Vec<(usize, Range<usize>)> = Vec::new();
        let mut ends = Vec::new();
        for batch in batches.iter().filter(has_any) {
            ends.push(batch.offsets.end);
            match kept.last_mut() {
                Some((slice, bytes)) if *slice == batch.slice && bytes.end == batch.bytes.start => {
                    bytes.end = batch.bytes.end;
                }
                _ => kept.push((batch.slice, batch.bytes.clone())),
            }
        }
        let cut = |(slice, bytes): (usize, Range<usize>)| slices[slice].slice(bytes);
        Ok(Taken {
            slices: kept.into_iter().map(cut).collect(),
            acquired,
            ends,
        })
    }
}

/// Where the batches are of what was read.
fn batches_of(slices: &[Bytes]) -> Vec<Read> {
    let mut batches = Vec::new();
    for (slice, bytes) in slices.iter().enumerate() {
        let mut at = 0;
        while at < bytes.len() {
            let header = BatchHeader::parse(&bytes[at..]);
            let header = header.expect("what is read from a log are whole batches");
            let end = at + header.total_bytes();
            batches.push(Read {
                offsets: header.base()..header.next_offset(),
                slice,
                bytes: at..end,
            });
            at = end;
        }
    }
    batches
}
