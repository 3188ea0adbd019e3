//! Whether the disk keeps up with what is appended: how long syncs take, how long appends wait, and whether they stall.
//!
//! Callers: the committer notes its syncs and frames, [`crate::Storage::admit`] who waits for leave; health, metrics and the
//! store's watch ask. Nothing here is held over disk I/O: whoever asks never waits for the disk.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::io::Clock;

/// From here on an append that waits means that the disk stalls. A sync of a sound disk takes milliseconds, on a busy one a
/// second or two; clients give up after 30 s by default. In between an operator, or a load balancer, can still act.
pub const STALL_AFTER: Duration = Duration::from_secs(5);

/// Upper bounds of the buckets of [`SyncDurations`], in microseconds; one more bucket has no bound.
pub const SYNC_BUCKETS_MICROS: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    2_500_000, 10_000_000,
];

/// How long the syncs of the write-ahead log took since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncDurations {
    /// How many took at most as long as each bound of [`SYNC_BUCKETS_MICROS`] and longer than the one before; the last ones
    /// took longer than all of them.
    pub buckets: [u64; SYNC_BUCKETS_MICROS.len() + 1],
    /// All of them together, in microseconds.
    pub micros: u64,
}

/// How long appends wait now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendWaits {
    /// The age of the oldest append that is not durable; zero if there is none.
    pub oldest: Duration,
    /// The time for which somebody has waited for leave to append; zero if nobody does.
    pub oldest_at_gate: Duration,
    /// Whether they wait because the disk stalls.
    pub is_stalled: bool,
}

/// What the committer and the gate's callers note.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    buckets: [AtomicU64; SYNC_BUCKETS_MICROS.len() + 1],
    micros: AtomicU64,
    /// When a frame became durable for the last time, by the monotonic clock.
    progress_micros: AtomicU64,
    at_gate: Mutex<AtGate>,
    /// Whether the log was told that appends stall.
    is_told: AtomicBool,
}

#[derive(Debug, Default)]
struct AtGate {
    /// Since when each of them waits.
    since: BTreeSet<(Duration, u64)>,
    next: u64,
}

/// Somebody waits for leave to append, until this is dropped.
#[derive(Debug)]
struct Waiting<'s> {
    stall: &'s Stall,
    since: (Duration, u64),
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.stall.gate().since.remove(&self.since);
    }
}

/// What the log is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Stalls,
    GoesOn,
}

impl Stall {
    /// A sync of the write-ahead log has returned.
    pub fn synced(&self, took: Duration) {
        let micros = micros(took);
        let bucket = SYNC_BUCKETS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
    }

    /// A frame was written, and synced where it had to be.
    pub fn went_on(&self, now: Duration) {
        self.progress_micros.fetch_max(micros(now), Relaxed);
    }

    /// Somebody begins to wait for leave to append.
    fn wait(&self, now: Duration) -> Waiting<'_> {
        let mut gate = self.gate();
        let since = (now, gate.next);
        gate.next += 1;
        gate.since.insert(since);
        Waiting { stall: self, since }
    }

    /// Waits for leave to append, and counts as somebody who does while it is not given at once.
    pub async fn noting<T>(&self, clock: &dyn Clock, leave: impl Future<Output = T>) -> T {
        let mut leave = std::pin::pin!(leave);
        let mut waiting = None;
        std::future::poll_fn(|context| {
            let given = leave.as_mut().poll(context);
            if given.is_pending() && waiting.is_none() {
                waiting = Some(self.wait(clock.monotonic()));
            }
            given
        })
        .await
    }

    pub fn durations(&self) -> SyncDurations {
        SyncDurations {
            buckets: std::array::from_fn(|bucket| self.buckets[bucket].load(Relaxed)),
            micros: self.micros.load(Relaxed),
        }
    }

    /// How long appends wait; `oldest` is since when the oldest one does that has an offset.
    pub fn waits(&self, now: Duration, oldest: Option<Duration>) -> AppendWaits {
        let first = self.gate().since.first().copied();
        let age = |since: Duration| now.saturating_sub(since);
        let oldest = oldest.map_or(Duration::ZERO, age);
        let oldest_at_gate = first.map_or(Duration::ZERO, |(since, _)| age(since));
        let progress = Duration::from_micros(self.progress_micros.load(Relaxed));
        // Under more load than the disk takes there is always somebody at the gate: that is no stall while frames go on.
        let stands_still = age(progress) >= STALL_AFTER;
        AppendWaits {
            oldest,
            oldest_at_gate,
            is_stalled: oldest >= STALL_AFTER || (oldest_at_gate >= STALL_AFTER && stands_still),
        }
    }

    /// What of it the log was not told yet.
    pub fn change(&self, waits: &AppendWaits) -> Option<Change> {
        let was_told = self.is_told.swap(waits.is_stalled, Relaxed);
        match (was_told, waits.is_stalled) {
            (false, true) => Some(Change::Stalls),
            (true, false) => Some(Change::GoesOn),
            _ => None,
        }
    }

    fn gate(&self) -> MutexGuard<'_, AtGate> {
        self.at_gate
            .lock()
            .expect("nothing panics while it holds the list")
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn an_append_that_waits_too_long_is_a_stall_whatever_goes_on_beside_it() {
        let stall = Stall::default();
        stall.went_on(seconds(9));
        let waits = |now| stall.waits(seconds(now), Some(seconds(4)));
        assert!(!waits(8).is_stalled);
        assert!(waits(9).is_stalled);
        assert_eq!(waits(11).oldest, seconds(7));
        assert!(!stall.waits(seconds(11), None).is_stalled);
    }

    #[test]
    fn who_waits_at_the_gate_waits_for_a_stall_only_if_nothing_goes_on() {
        let stall = Stall::default();
        let first = stall.wait(seconds(10));
        let second = stall.wait(seconds(12));
        stall.went_on(seconds(19));
        assert!(!stall.waits(seconds(20), None).is_stalled);
        assert_eq!(stall.waits(seconds(20), None).oldest_at_gate, seconds(10));
        assert!(stall.waits(seconds(24), None).is_stalled);
        drop(first);
        assert_eq!(stall.waits(seconds(24), None).oldest_at_gate, seconds(12));
        drop(second);
        assert_eq!(stall.waits(seconds(99), None), AppendWaits::default());
    }

    #[test]
    fn the_log_is_told_once_each_way() {
        let stall = Stall::default();
        let told = |is_stalled| {
            let waits = AppendWaits {
                is_stalled,
                ..AppendWaits::default()
            };
            stall.change(&waits)
        };
        let changes = [false, true, true, false, false, true].map(told);
        let (stalls, goes_on) = (Some(Change::Stalls), Some(Change::GoesOn));
        assert_eq!(changes, [None, stalls, None, goes_on, None, stalls]);
    }

    #[test]
    fn a_sync_counts_in_the_bucket_of_its_bound() {
        let stall = Stall::default();
        for micros in [100, 101, 10_000_000, 10_000_001] {
            stall.synced(Duration::from_micros(micros));
        }
        let durations = stall.durations();
        let counted: Vec<usize> = (0..durations.buckets.len())
            .filter(|bucket| durations.buckets[*bucket] == 1)
            .collect();
        assert_eq!(counted, [0, 1, 13, 14]);
        assert_eq!(durations.micros, 20_000_202);
    }
}
