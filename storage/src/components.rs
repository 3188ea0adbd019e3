//! The components that a store is made with: the disk, the clock, who does the work, and what a failure does. They are parts of
//! the world and not settings: a server always takes [`Env::real`], a test or a simulation its own.

use std::sync::Arc;

use crate::io::{Clock, Disk, RealDisk, SystemClock};

/// The exit code of a process whose store has failed (`EX_IOERR` of sysexits).
pub const EXIT_CODE_STORAGE_FAILED: i32 = 74;

/// What the process does when a write or sync has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It ends at once, with [`EXIT_CODE_STORAGE_FAILED`]: what the page cache says can no longer be trusted.
    ExitProcess,
    /// It refuses all appends; for tests and simulations.
    Refuse,
}

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Threads of the store's own.
    Own,
    /// Nobody, until a test calls [`crate::Storage::commit_once`] and the like: the same order every time.
    Manual,
}

/// The world the store lives in.
#[derive(Clone, Debug)]
pub struct Env {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who does the work.
    pub threads: Threads,
    /// What a failed write or sync does.
    pub on_failure: OnFailure,
}

impl Env {
    /// The machine's disk and clock; threads of the store's own; a failure ends the process.
    pub fn real() -> Env {
        Env {
            disk: Arc::new(RealDisk),
            clock: Arc::new(SystemClock::new()),
            threads: Threads::Own,
            on_failure: OnFailure::ExitProcess,
        }
    }

    /// For a test or a simulation: nothing happens but by its calls, and a failure refuses appends.
    pub fn manual(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Env {
        Env {
            disk,
            clock,
            threads: Threads::Manual,
            on_failure: OnFailure::Refuse,
        }
    }
}
