//! Recovery: a data directory becomes what the checkpoint and the WAL say it was.
//!
//! `newer` refuses files of a later release before anything is changed; `store_file` says whose directory it is; `replay`
//! walks the WAL behind the checkpoint; `logs` puts the logs together from both; `segments` finds the segments that the checkpoint names; `orphans` and `sweep` see to
//! files that nothing names. Nothing that is not understood is deleted.

pub(crate) mod logs;
pub(crate) mod newer;
pub(crate) mod orphans;
pub(crate) mod replay;
pub(crate) mod segments;
pub(crate) mod store_file;
pub(crate) mod sweep;

pub use self::orphans::Fate;
pub use self::replay::RecoveryReport;
