//! Fetch: whole batches from many partitions, under byte limits, waiting for more if there is too little.
//! Callers: fronts. No queue on this path: each log hands out slices of its immutable view. What is in memory is read where
//! the fetch runs; only what the disk is needed for goes to the blocking pool. While a fetch waits it reads again only the
//! partitions that moved.
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
use super::catalog::Topic;
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
    /// Of a client that fetches the same partitions again and again: with it the answer says which of them are [`Idle`].
    pub watch: Option<Watch>,
}

/// Watches the partitions of one client from one of its fetches to the next.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Waiter>);

/// A partition in which nothing has happened since a fetch with a [`Watch`] found nothing in it: no record, no move of its start,
/// no deletion. To look takes no lock.
#[derive(Debug, Clone)]
pub struct Idle {
    log: Arc<Log>,
    moves: u64,
}

impl Idle {
    /// Whether that is so still.
    pub fn is_still(&self) -> bool {
        self.log.moves() == self.moves
    }
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
    /// What an earlier fetch with the same watch, that wanted exactly this, was told.
    pub idle: Option<Idle>,
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
    /// Whether nothing was left out: there is no record at or behind the offset.
    is_at_end: bool,
    /// There was nothing to fetch, and the fetch's watch tells when there is.
    pub idle: Option<Idle>,
}

impl Fetched {
    /// Bytes of its batches.
    pub fn bytes(&self) -> usize {
        self.slices.iter().map(Bytes::len).sum()
    }
}

/// What came of each partition of a fetch; None for one that is idle still.
pub type Answers = Vec<Option<Result<Fetched, Refusal>>>;

impl Broker {
    /// Answers with one entry for each partition asked for, in their order. Waits at most `wait_max`. An error ends the
    /// wait, but for a topic or partition that did not exist when the fetch began: its error is told together with what
    /// the others give, because a client that asks again before its metadata is renewed would otherwise do so without
    /// a pause. Where no partition exists there is nothing to wait for.
    pub async fn fetch(&self, fetch: Fetch) -> Answers {
        let deadline = Instant::now() + fetch.wait_max;
        let logs = self.logs_of(&fetch);
        let waiter = match &fetch.watch {
            Some(watch) => Arc::clone(&watch.0),
            None => Waiter::new(),
        };
        let mut pass = Pass {
            found: fetch.partitions.iter().map(|_| None).collect(),
            moves: vec![0; logs.len()],
            is_watched: vec![false; logs.len()],
            asked: Arc::new((fetch, logs)),
            waiter,
        };
        let places = pass.begin();
        pass.read(places).await;
        let (fetch, logs) = &*Arc::clone(&pass.asked);
        if !fetch.wait_max.is_zero() {
            while !fetch.is_answered_by(&pass.found, logs) {
                pass.watch_all();
                // What moved before it was watched is seen here, what moves later wakes.
                let moved = pass.moved();
                if moved.is_empty() {
                    let woken = tokio::time::timeout_at(deadline, pass.waiter.wait());
                    if woken.await.is_err() {
                        break;
                    }
                    continue;
                }
                pass.read(moved).await;
                if Instant::now() >= deadline {
                    break;
                }
            }
        }
        pass.found
    }

    fn logs_of(&self, fetch: &Fetch) -> Logs {
        let find = |wanted: &FetchPartition| {
            let topic = wanted.topic.as_ref().map_err(Clone::clone)?;
            if let Some(idle) = wanted.idle.as_ref().filter(|idle| idle.is_still()) {
                return Ok(idle.log.clone());
            }
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
}

type Logs = Vec<Result<Arc<Log>, Refusal>>;

/// A fetch under way. All lists have an entry for each partition asked for.
struct Pass {
    asked: Arc<(Fetch, Logs)>,
    found: Answers,
    /// How often each log had moved when it was last looked at.
    moves: Vec<u64>,
    /// Whether `waiter` is told of the next move of each log.
    is_watched: Vec<bool>,
    waiter: Arc<Waiter>,
}

/// What the partitions that were read have left of the response.
#[derive(Clone, Copy)]
struct Room {
    bytes_left: usize,
    is_first: bool,
}

impl Room {
    fn take(&mut self, bytes: usize) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.is_first &= bytes == 0;
    }
}

/// What one look at a partition gave, and how often its log had moved before.
type Looked = (u64, Result<Fetched, Refusal>);

impl Pass {
    /// The partitions that are to be read: all but the idle ones, which are watched since they were found so.
    fn begin(&mut self) -> Vec<usize> {
        let (fetch, logs) = &*self.asked;
        let mut places = Vec::new();
        for (place, wanted) in fetch.partitions.iter().enumerate() {
            match (&wanted.idle, &logs[place]) {
                (Some(idle), Ok(log)) if Arc::ptr_eq(&idle.log, log) && idle.is_still() => {
                    self.moves[place] = idle.moves;
                    self.is_watched[place] = true;
                }
                _ => places.push(place),
            }
        }
        places
    }

    /// Reads some partitions, in their order: here what is in memory, and from the first one on for which the disk is needed
    /// on the blocking pool.
    async fn read(&mut self, places: Vec<usize>) {
        for place in &places {
            self.found[*place] = None;
        }
        let mut room = self.room();
        let mut rest = places.into_iter();
        let mut looks = 0;
        while let Some(place) = rest.next() {
            let Some((moves, found)) = look(&self.asked, place, room, Wait::Never) else {
                let places: Vec<usize> = std::iter::once(place).chain(rest).collect();
                let asked = Arc::clone(&self.asked);
                let all = super::on_blocking_pool(move || look_at_all(&asked, places, room)).await;
                for (place, looked) in all {
                    self.take(place, looked);
                }
                return;
            };
            room.take(bytes_of(&found));
            self.take(place, (moves, found));
            looks += 1;
            if looks % LOOKS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn take(&mut self, place: usize, (moves, mut found): Looked) {
        self.is_watched[place] &= self.moves[place] == moves;
        self.moves[place] = moves;
        // Whoever watches from now on what was looked at before sees by the count whether it has moved meanwhile.
        let is_idle = found.as_ref().is_ok_and(|fetched| fetched.is_at_end);
        if let (true, (Fetch { watch: Some(_), .. }, logs)) = (is_idle, &*self.asked)
            && let (Ok(log), Ok(fetched)) = (&logs[place], &mut found)
        {
            if !std::mem::replace(&mut self.is_watched[place], true) {
                log.watch(&self.waiter);
            }
            fetched.idle = Some(Idle {
                log: Arc::clone(log),
                moves,
            });
        }
        self.found[place] = Some(found);
    }

    fn room(&self) -> Room {
        let mut room = Room {
            bytes_left: self.asked.0.bytes_max,
            is_first: true,
        };
        for found in self.found.iter().flatten() {
            room.take(bytes_of(found));
        }
        room
    }

    /// Watches what is not watched.
    fn watch_all(&mut self) {
        for (log, is_watched) in self.asked.1.iter().zip(&mut self.is_watched) {
            if let (Ok(log), false) = (log, std::mem::replace(is_watched, true)) {
                log.watch(&self.waiter);
            }
        }
    }

    /// The partitions that moved since they were looked at. They are watched again from now on.
    fn moved(&mut self) -> Vec<usize> {
        let has_moved = |place: &usize| {
            let log = self.asked.1[*place].as_ref();
            log.is_ok_and(|log| log.moves() != self.moves[*place])
        };
        let moved: Vec<usize> = (0..self.moves.len()).filter(has_moved).collect();
        for place in &moved {
            self.is_watched[*place] = false;
        }
        moved
    }
}

/// Partitions that are read in one turn of a task, a few microseconds each.
const LOOKS_PER_TURN: usize = 128;

/// What a look does where it would have to wait for the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    ForDisk,
    Never,
}

fn bytes_of(found: &Result<Fetched, Refusal>) -> usize {
    found.as_ref().map_or(0, Fetched::bytes)
}

/// Looks at partitions, also where the disk is needed. Blocks.
fn look_at_all(asked: &(Fetch, Logs), places: Vec<usize>, mut room: Room) -> Vec<(usize, Looked)> {
    let look = |place| {
        let looked = look(asked, place, room, Wait::ForDisk);
        let looked = looked.expect("who waits for the disk gets an answer");
        room.take(bytes_of(&looked.1));
        (place, looked)
    };
    places.into_iter().map(look).collect()
}

/// Looks at one partition; None if the disk would be needed and is not to be waited for.
fn look((fetch, logs): &(Fetch, Logs), place: usize, room: Room, wait: Wait) -> Option<Looked> {
    let log = match &logs[place] {
        Ok(log) => log,
        Err(refusal) => return Some((0, Err(refusal.clone()))),
    };
    let moves = log.moves();
    match read_partition(&fetch.partitions[place], log, room, wait) {
        Ok(None) => None,
        Ok(Some(fetched)) => Some((moves, Ok(fetched))),
        Err(refusal) => Some((moves, Err(refusal))),
    }
}

impl Fetch {
    /// Whether there is nothing to wait for. `logs` are what the fetch began with.
    fn is_answered_by(
        &self,
        found: &[Option<Result<Fetched, Refusal>>],
        logs: &[Result<Arc<Log>, Refusal>],
    ) -> bool {
        let mut bytes = 0;
        let mut is_waited_for = false;
        for (partition, log) in found.iter().zip(logs) {
            match (partition, log) {
                (Some(Err(_)), Err(refusal)) if is_absence(refusal) => {}
                // Also of a topic that is deleted during the wait: its log was there at the beginning.
                (Some(Err(_)), _) => return true,
                (Some(Ok(fetched)), _) if fetched.is_full || fetched.diverging.is_some() => {
                    return true;
                }
                (Some(Ok(fetched)), _) => {
                    bytes += fetched.bytes();
                    is_waited_for = true;
                }
                (None, _) => is_waited_for = true,
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

fn read_partition(
    wanted: &FetchPartition,
    log: &Log,
    room: Room,
    wait: Wait,
) -> Result<Option<Fetched>, Refusal> {
    let is_first = room.is_first;
    let bounds = log.bounds();
    assert!(
        bounds.start <= bounds.durable_end && bounds.durable_end <= bounds.end,
        "no reader sees past the durable end"
    );
    let offset = wanted
        .offset
        .filter(|offset| (bounds.start..=bounds.end).contains(offset))
        .ok_or_else(|| super::out_of_range(wanted.offset, &bounds))?;
    let diverging = wanted.last_fetched_epoch.and_then(|epoch| {
        log.end_offset_for_epoch(epoch)
            .filter(|(known, end)| *known < epoch || *end < offset)
    });
    let bytes_max = wanted.bytes_max.min(room.bytes_left);
    // At the durable end too the log is asked: it says whether it was deleted meanwhile.
    let is_empty = diverging.is_some() || (bytes_max == 0 && !is_first);
    // Whoever writes its slices to a socket must not wait for the disk.
    let chunk = match wait {
        _ if is_empty => Ok(Some(Chunk::default())),
        Wait::Never => log.read_in_memory(offset, bytes_max, is_first),
        Wait::ForDisk => log.read_warm(offset, bytes_max, is_first).map(Some),
    };
    let Some(chunk) = chunk.map_err(super::read_refusal)? else {
        return Ok(None);
    };
    let next = if chunk.slices.is_empty() {
        offset
    } else {
        chunk.end_offset
    };
    assert!(
        next >= offset && (chunk.slices.is_empty() || next > offset),
        "whoever fetches behind what was found goes on"
    );
    assert!(
        chunk.slices.is_empty() == (chunk.bytes == 0),
        "what is given is counted"
    );
    // An answer without any records is never full: a client would ask again at once, and get the same.
    let has_records = !is_first || chunk.bytes > 0;
    let is_cut = next < bounds.durable_end;
    let is_filled = chunk.bytes > 0 && chunk.bytes >= wanted.bytes_max;
    Ok(Some(Fetched {
        // More may have become durable since the bounds were taken: no answer shows records past its own high watermark.
        high_watermark: bounds.durable_end.max(chunk.end_offset),
        start_offset: bounds.start,
        is_full: has_records && (is_cut || is_filled),
        is_at_end: diverging.is_none() && !is_cut && chunk.bytes == 0,
        diverging,
        slices: chunk.slices,
        idle: None,
    }))
}
