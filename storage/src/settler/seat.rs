//! The settler behind its lock, and what the store makes of how a round ended.
//!
//! Callers: the engine's thread, tests, and rewrites where no thread runs.

use std::sync::{Arc, Mutex, MutexGuard};

use super::{SettleError, Settler};
use crate::wal::Wal;

/// Directories that are tidied after one round of the settler.
const SWEEPS_PER_ROUND: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct SettlerSeat {
    settler: Mutex<Settler>,
    wal: Arc<Wal>,
}

impl SettlerSeat {
    pub fn new(settler: Settler, wal: Arc<Wal>) -> SettlerSeat {
        SettlerSeat {
            settler: Mutex::new(settler),
            wal,
        }
    }

    pub fn locked(&self) -> MutexGuard<'_, Settler> {
        self.settler
            .lock()
            .expect("nothing panics while it holds the settler")
    }

    /// Whether the store has stopped writing.
    pub fn has_failed(&self) -> bool {
        self.wal.gate.failure().is_some()
    }

    /// Changes manifests as others ask. A failure ends all writing.
    pub fn apply_changes(&self) {
        let applied = self.locked().apply_changes();
        match applied {
            // Who asked is told, of a full disk too.
            Ok(()) | Err(SettleError::DiskFull | SettleError::Stopped) => {}
            Err(SettleError::Failed(failure)) => self.wal.gate.fail(failure),
        }
    }

    /// Settles all that is published, and gives the WAL's files before it back. A failure ends all writing.
    pub fn settle_all(&self) -> Result<(), SettleError> {
        let settled = self.locked().settle_all();
        if let Err(SettleError::Failed(failure)) = &settled {
            self.wal.gate.fail(failure.clone());
        }
        settled
    }

    /// One round of the settler. True if something settled. A failure ends all writing; a full disk only this round.
    pub fn round(&self) -> bool {
        let mut settler = self.locked();
        let gate = &self.wal.gate;
        match settler.round() {
            Ok(worked) => {
                gate.set_settling_full(false);
                settler.sweep_some(SWEEPS_PER_ROUND);
                worked
            }
            Err(SettleError::DiskFull) => {
                gate.set_settling_full(true);
                gate.report_disk(self.wal.clock.monotonic());
                false
            }
            Err(SettleError::Stopped) => false,
            Err(SettleError::Failed(failure)) => {
                drop(settler);
                gate.fail(failure);
                false
            }
        }
    }
}
