//! Time as a component: the machine's clock, and one that a test turns.

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

/// Where the time comes from.
pub trait Clock: Send + Sync + Debug {
    /// The wall clock, in milliseconds. It may jump in either direction.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// The machine's boot, which outlives the process. None where it is not known.
    fn boot(&self) -> Option<Boot>;
}

/// One boot of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Which one.
    pub id: Uuid,
    /// How long ago it was; goes on while the machine sleeps.
    pub since: Duration,
}

/// The machine's clock. Its monotonic time counts from the boot, and goes on while the machine sleeps.
#[derive(Debug)]
pub struct SystemClock {
    boot: Option<Uuid>,
}

impl SystemClock {
    /// The clock of this boot.
    pub fn new() -> SystemClock {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        SystemClock {
            boot: id.ok().and_then(|id| id.trim().parse().ok()),
        }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis)
            }
        };
        Timestamp::from_millis(millis)
    }

    fn monotonic(&self) -> Duration {
        let since = clock_gettime(ClockId::Boottime);
        Duration::try_from(since).expect("the time since the boot is not negative")
    }

    fn boot(&self) -> Option<Boot> {
        let since = self.monotonic();
        self.boot.map(|id| Boot { id, since })
    }
}

/// A clock that stands still until it is turned.
#[derive(Debug)]
pub struct ManualClock {
    wall_ms: AtomicI64,
    monotonic_ns: AtomicU64,
    boots: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> ManualClock {
        ManualClock {
            wall_ms: AtomicI64::new(now.millis()),
            monotonic_ns: AtomicU64::new(0),
            boots: AtomicU64::new(1),
        }
    }

    /// Lets time pass, on both clocks.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).expect("a test's step fits 584 years");
        let millis = i64::try_from(by.as_millis()).expect("a test's step fits 584 years");
        self.monotonic_ns.fetch_add(nanos, Ordering::SeqCst);
        self.wall_ms.fetch_add(millis, Ordering::SeqCst);
    }

    /// From here on it is another boot of the machine.
    pub fn reboot(&self) {
        self.boots.fetch_add(1, Ordering::SeqCst);
    }

    /// Sets the wall clock alone, as an operator or NTP does.
    pub fn set_wall(&self, now: Timestamp) {
        self.wall_ms.store(now.millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.monotonic_ns.load(Ordering::SeqCst))
    }

    fn boot(&self) -> Option<Boot> {
        Some(Boot {
            id: Uuid::from_u128(self.boots.load(Ordering::SeqCst).into()),
            since: self.monotonic(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_leaves_the_monotonic_one_alone() {
        let clock = ManualClock::new(Timestamp::from_millis(1_000));
        clock.advance(Duration::from_millis(5));
        clock.set_wall(Timestamp::from_millis(-7));
        assert_eq!(clock.now(), Timestamp::from_millis(-7));
        assert_eq!(clock.monotonic(), Duration::from_millis(5));
    }
}
