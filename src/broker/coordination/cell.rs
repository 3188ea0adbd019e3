//! One machine's place in memory, with the lock that its steps are taken under.
//! Callers: the runtime, which makes it and takes the steps; its shard, which holds it and delivers its answers.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::machine::Machine;

/// The runtime was told to stop: nothing more is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator is stopping")]
pub struct Stopped;

/// One machine's place in memory.
pub struct Cell<M: Machine> {
    pub(super) key: M::Key,
    /// The shard that its key's hash says.
    pub(super) shard: usize,
    inner: Mutex<Inner<M>>,
}

pub(super) struct Inner<M> {
    pub(super) machine: M,
    /// Deliveries of this machine that are queued.
    pub(super) undelivered: usize,
    /// The entry in the timers that counts.
    pub(super) scheduled: Option<Duration>,
}

impl<M: Machine> Cell<M> {
    /// The place of a new machine, which has done nothing yet.
    pub(super) fn new(key: M::Key, shard: usize, machine: M) -> Cell<M> {
        let inner = Inner {
            machine,
            undelivered: 0,
            scheduled: None,
        };
        Cell {
            key,
            shard,
            inner: Mutex::new(inner),
        }
    }

    /// Which machine it is.
    pub fn key(&self) -> &M::Key {
        &self.key
    }

    /// Looks at the machine.
    pub fn read<R>(&self, look: impl FnOnce(&M) -> R) -> R {
        look(&self.lock().machine)
    }

    /// Changes a machine that is being read back: nothing of it is stored.
    pub fn restore(&self, change: impl FnOnce(&mut M)) {
        change(&mut self.lock().machine);
    }

    /// Whether answers of it wait for a sync.
    pub fn has_undelivered(&self) -> bool {
        self.lock().undelivered > 0
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        self.inner
            .lock()
            .expect("a step that panicked left the machine in an unknown state")
    }
}
