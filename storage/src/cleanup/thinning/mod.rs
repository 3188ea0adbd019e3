//! Thinning (`cleanup.policy=thin`): fewer of a topic's records as they age, and a summary of what went.
//!
//! [`ThinPolicy`] is the setting `thin.tiers`, prepared; a [`Piece`] is shown the records of a range and decides which of
//! them go; a `Summary` keeps count, sum, smallest and largest of what was there. All of it is pure: the executor reads and
//! rewrites. `docs/thinning.md` says what is promised.

mod dealt;
pub(crate) mod execute;
mod extract;
mod number;
mod outlook;
mod piece;
mod plan;
mod policy;
mod readings;

#[cfg(test)]
mod tests;

pub(crate) use extract::number as number_at;
pub use number::Number;
pub use piece::{Decided, Piece, Sample};
pub use plan::{Looked, Thinning, plan};
pub use policy::ThinPolicy;
pub(crate) use policy::start;
