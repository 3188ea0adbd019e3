//! Offline repair of a data directory: what can be had from other files is built again, what is damaged is put on record, and
//! what cannot be used is set aside. Nothing that was acknowledged is deleted.
//!
//! [`plan()`] reads and changes nothing; [`execute`] does what a plan says. A plan does not touch what a start mends by itself: it
//! names it. Caller: the command line, which holds the store's lock for both.

mod act;
mod checkpoint;
mod plan;

pub use act::execute;
pub use plan::{Action, Planned, RepairError, plan};
