//! The pace of a run: its budget of bytes a second, the way it yields to producers, its progress, and its end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::run::Progress;
use crate::components::Threads;
use crate::config::Live;
use crate::demand::Demand;
use crate::rewrite::{Cancelled, PIECE_BYTES_MAX, Pace};
use crate::signals::Signals;
use crate::wal::Wal;

/// The run waits in pieces of this, so that a changed budget and a cancel are seen soon.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// While others ask a MiB a second of the disk or more, so much is read or written at a time: they wait behind it.
const BUSY_PIECE_BYTES: usize = 256 << 10;
/// And a run that nobody has given a budget reads and writes so many times as much a second as they ask for at most: each sync of the
/// write-ahead log takes what was written meanwhile to the disk, too, so that nothing but a lower rate leaves producers their latency.
const BUSY_TIMES: u64 = 4;
/// But this much, so that cleanup keeps up.
const BUSY_BYTES_PER_SECOND_MIN: u64 = 64 << 20;
/// An append that has waited for so long shows that the disk or the processor is short: the run pauses.
const YIELD_AFTER: Duration = Duration::from_millis(10);
/// It pauses no longer at once, and no longer than it worked before: it goes on at half its speed at least.
const YIELD_MAX: Duration = Duration::from_millis(100);

/// What a pace asks and waits with.
#[derive(Clone, Debug)]
pub(crate) struct PaceParts {
    pub wal: Arc<Wal>,
    /// Gives the budget.
    pub live: Arc<Live>,
    pub signals: Arc<Signals>,
    pub threads: Threads,
    /// What others ask of the disk.
    pub demand: Arc<Demand>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RunPace<'r> {
    parts: &'r PaceParts,
    progress: &'r Progress,
    /// This run's own budget.
    bytes_per_second: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When what was spent so far is paid for.
    paid_at: Duration,
    /// When it went on working.
    working_since: Duration,
}

impl<'r> RunPace<'r> {
    pub fn new(
        parts: &'r PaceParts,
        progress: &'r Progress,
        bytes_per_second: Option<u64>,
    ) -> RunPace<'r> {
        let now = parts.wal.clock.monotonic();
        RunPace {
            parts,
            progress,
            bytes_per_second,
            state: Mutex::new(State {
                paid_at: now,
                working_since: now,
            }),
        }
    }

    fn budget(&self) -> Option<u64> {
        let server = self.parts.live.get().cleaner_bytes_per_second;
        self.bytes_per_second.or(server).filter(|rate| *rate > 0)
    }

    /// The rate by which what is spent now is paid for.
    fn rate(&self) -> Option<u64> {
        let budget = self.budget();
        if self.bytes_per_second.is_some() {
            return budget;
        }
        let beside_others = rate_beside(self.parts.demand.mib_per_second());
        budget.into_iter().chain(beside_others).min()
    }

    /// Waits until the budget allows more, in pieces.
    fn wait_for_budget(&self, state: &mut State, bytes: u64) -> Result<(), Cancelled> {
        let clock = &self.parts.wal.clock;
        let budget = self.budget();
        let Some(rate) = self.rate() else {
            return Ok(());
        };
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        state.paid_at = state.paid_at.max(clock.monotonic()).saturating_add(cost);
        loop {
            let left = state.paid_at.saturating_sub(clock.monotonic());
            if left.is_zero() {
                return Ok(());
            }
            self.pause(left.min(WAIT_MAX))?;
            if self.budget() != budget {
                // What was spent by the old one is paid for.
                state.paid_at = clock.monotonic();
                return Ok(());
            }
        }
    }

    /// While producers wait for the disk the run works half of the time.
    fn yield_to_producers(&self, state: &mut State) -> Result<(), Cancelled> {
        let waits = self.parts.wal.append_waits();
        if waits.oldest.max(waits.oldest_at_gate) >= YIELD_AFTER {
            let clock = &self.parts.wal.clock;
            let worked = clock.monotonic().saturating_sub(state.working_since);
            self.pause(worked.min(YIELD_MAX))?;
            state.working_since = clock.monotonic();
        }
        Ok(())
    }

    fn pause(&self, time: Duration) -> Result<(), Cancelled> {
        if self.parts.signals.pause(time) && !self.progress.is_cancelled() {
            Ok(())
        } else {
            Err(Cancelled)
        }
    }
}

/// How much a run may move a second while others ask for so many MiB; None if they ask for nothing.
fn rate_beside(demand: u64) -> Option<u64> {
    let times_as_much = BUSY_TIMES.saturating_mul(demand).saturating_mul(1 << 20);
    (demand > 0).then(|| times_as_much.max(BUSY_BYTES_PER_SECOND_MIN))
}

impl Pace for RunPace<'_> {
    fn piece_bytes(&self) -> usize {
        match self.parts.demand.mib_per_second() {
            0 => PIECE_BYTES_MAX,
            _ => BUSY_PIECE_BYTES,
        }
    }

    fn spend(&self, bytes: u64) -> Result<(), Cancelled> {
        self.progress.done(bytes);
        if self.progress.is_cancelled() || self.parts.signals.is_stopping() {
            return Err(Cancelled);
        }
        if self.parts.threads == Threads::Manual {
            // Nobody moves the clock while a test's call works.
            return Ok(());
        }
        let mut state = self
            .state
            .lock()
            .expect("nothing panics while it holds the pace");
        self.wait_for_budget(&mut state, bytes)?;
        self.yield_to_producers(&mut state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_others_a_run_moves_four_times_as_much_and_keeps_up() {
        let mib = |rate: Option<u64>| rate.map(|rate| rate >> 20);
        assert_eq!(
            [0, 1, 16, 20, 500].map(|demand| mib(rate_beside(demand))),
            [None, Some(64), Some(64), Some(80), Some(2000)]
        );
    }
}
