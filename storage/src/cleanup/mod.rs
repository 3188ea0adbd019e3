//! Cleanup: what is no longer kept goes, by a plan that is data.
//!
//! A policy is a pure function of what it is shown ([`plan()`] dispatches to a file for each), and holds are a veto on it; the
//! cleaner raises the log's start as the plan says, and the settler, who owns the files, alone removes them. Callers: the
//! engine's cleaner, and the tools, which show a plan without executing it.
//! Invariants: only whole segments go, and what is still in the WAL as a whole, from the front, and offsets never change; the
//! start that has passed them is durable before a file is unlinked.

pub(crate) mod cleaner;
mod compact_keeper;
pub mod compaction;
pub(crate) mod due;
pub mod erase;
pub(crate) mod execute;
pub(crate) mod hold_source;
pub mod holds;
mod key_places;
mod keys;
pub(crate) mod pace;
mod plan;
mod policy;
mod reason;
pub mod removed;
pub mod retention;
mod rules;
pub mod run;
pub(crate) mod set_aside;
mod stats;
pub mod store_bound;
pub mod thinning;
mod view;

pub use self::holds::Hold;
pub use self::plan::{Outcome, Plan, SegmentPlan};
pub use self::policy::Policy;
pub use self::reason::{DirtyRatio, HeldBack, Reason};
pub use self::rules::{Rules, plan};
pub use self::set_aside::Uncleanable;
pub use self::stats::CompactionMetrics;
pub use self::view::{LogView, SegmentView};
