//! Keyed state machines over a state log: what every coordinator of the broker needs, apart from what it coordinates.
//! Callers: `groups` (a machine for each consumer group) and `producer_ids` (one machine).
//!
//! A [`Machine`] is pure: a step of it gives records and answers. The [`Runtime`] admits the records at their real size,
//! takes the step under the machine's own lock, appends the records there, and lets the answers leave when the records are
//! durable. Machines are spread over shards by their key; each shard has a bounded queue of answers that wait for their sync,
//! and timers of its own, so that a shard whose queue is full slows down its own machines only.
//!
//! Invariants: records stand in the log in the order of their machine's steps. Answers of one machine leave in the order of
//! its steps, none before the records of its own and of all earlier steps are durable. Records that are refused are withdrawn
//! by the machine in the same step, before anybody sees it. No lock is held over an await.

mod cell;
mod machine;
mod runtime;
mod shard;
#[cfg(test)]
mod tests;
mod timers;

pub use cell::{Cell, Stopped};
pub use machine::{Answer, Machine, Moment, Step};
pub use runtime::{NotTogether, Runtime, RuntimeTask, Shape};
pub use shard::Durably;
