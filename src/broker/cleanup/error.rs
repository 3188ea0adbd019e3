//! Why a cleanup is not planned or run.
//! Callers: `cleanup` and its jobs.

use storage::cleanup::run::CleanupError as Fault;

use super::bounds::ENDED_MAX;
use crate::broker::Refusal;

/// Why a cleanup is not planned or run.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The topic, the partition or the right to it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The storage could not say.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// As many jobs wait as may.
    #[error("{waiting_max} cleanup jobs wait for their turn, and no more may")]
    TooManyJobs {
        /// The bound.
        waiting_max: usize,
    },
    /// No job of this name, or it ended long ago.
    #[error(
        "there is no cleanup job {id:?}: the last {ENDED_MAX} results of this start of the server are kept"
    )]
    UnknownJob {
        /// The name.
        id: String,
    },
}
