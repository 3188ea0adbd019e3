//! How many jobs there may be.
//! Callers: `jobs`, and the texts that name the bounds.

/// Jobs that wait for their turn. A cleanup reads and writes much: they run one at a time.
pub const WAITING_MAX: usize = 16;
/// Jobs that have ended and are remembered with their results.
pub const ENDED_MAX: usize = 100;
