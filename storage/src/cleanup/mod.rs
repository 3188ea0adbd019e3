//! Cleanup: what is no longer kept goes, by a plan that is data.
//!
//! A policy is a pure function of what it is shown; the cleaner raises the log's start as the plan says, and the settler, who
//! owns the files, alone removes them. Callers: the engine's cleaner, and the tools, which show a plan without executing it.
//! Invariants: only whole segments go, and what is still in the WAL as a whole, from the front, and offsets never change; the
//! start that has passed them is durable before a file is unlinked.

pub(crate) mod execute;
mod plan;
pub mod retention;
pub mod store_bound;

pub use self::plan::{LogView, Plan, Reason, Removal, SegmentView};
